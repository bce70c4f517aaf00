//! Pins: files that are kept whole on this machine, so that they can be read with no network at all.
//!
//! The catalog knows what is pinned: entries by name, and policies. From it a plan is made ([`plan`]) of what must be on disk; the cache is
//! told, and what is missing is fetched behind all readers ([`job`]). A plan is made anew when the catalog has changed, so a
//! new version of a pinned file is fetched, and the old one is room for others from then on.
//!
//! Always true: nothing is fetched before the cache was told to keep it; a source's trouble holds up its own files only.

pub(crate) mod glob;
mod job;
mod plan;
mod policy;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use manifold_catalog::{Change, EntryId, PolicyId, SourceId};
use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::plan::{Plan, Work};
pub use self::policy::PinPolicy;

/// How many files of one source are remembered as failed at most; others are tried again sooner.
const FAILED_MAX: usize = 10_000;
/// The first pause after a source has failed; doubled each time.
const SOURCE_PAUSE: Duration = Duration::from_secs(1);
const SOURCE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long whoever asks for a report waits for the plan to be up to date.
const PLAN_PATIENCE: Duration = Duration::from_secs(3);

/// What made files pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinRule {
    /// The pin of an entry.
    Entry(EntryId),
    /// A policy.
    Policy(PolicyId),
}

/// Sums over pinned files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinTotals {
    /// How many there are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of them that are on this machine.
    pub cached_bytes: u64,
    /// How many are not whole on this machine.
    pub missing_files: u64,
    /// Directories of which it is not known yet what they hold.
    pub unlisted: u64,
}

/// What one pin or policy comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleReport {
    /// Which.
    pub rule: PinRule,
    /// Its files. Those that others mean too are counted with each.
    pub totals: PinTotals,
}

/// Why something pinned is not on this machine yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinProblem {
    /// The source that it is about; `None`: the cache.
    pub source: Option<SourceId>,
    /// What is wrong, in words.
    pub message: String,
}

/// How far keeping has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinReport {
    /// Each pin and policy.
    pub rules: Vec<RuleReport>,
    /// All files, each once.
    pub total: PinTotals,
    /// Those that find no room beneath the limit for what is pinned.
    pub refused: PinTotals,
    /// What stands in the way.
    pub problems: Vec<PinProblem>,
    /// Whether this says how things stand after the last change of pins, rather than before.
    pub up_to_date: bool,
}

impl PinTotals {
    fn add(&mut self, size: u64, present: u64) {
        self.files += 1;
        self.bytes += size;
        self.cached_bytes += present;
        self.missing_files += u64::from(present < size);
    }
}

/// The state of keeping.
#[derive(Debug)]
pub(crate) struct Pins {
    state: Mutex<State>,
    /// Counts the wishes for a plan.
    wishes: AtomicU64,
    /// Rung for each.
    bell: Notify,
    /// The count of wishes that the last plan knew of.
    planned: watch::Sender<u64>,
    /// Tells those who work that there may be something to do, or nothing more.
    moved: Notify,
    /// Whether anything may be pinned, so that changes matter.
    any: AtomicBool,
    /// Bytes that were fetched and written, to tell whether there is progress.
    written: AtomicU64,
    /// Permits for bytes that are on their way to the disk.
    memory: Semaphore,
    memory_max: u32,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    report: PinReport,
    queues: BTreeMap<SourceId, WorkQueue>,
    /// What the disk cache has to say.
    no_room: Option<&'static str>,
}

/// What is to be done at one source.
#[derive(Debug, Default)]
struct WorkQueue {
    work: VecDeque<Work>,
    /// What somebody is about.
    in_hand: HashSet<EntryId>,
    /// What failed, and is not tried before then.
    failed: HashMap<EntryId, Instant>,
    /// Until when nothing is tried, and how long that is: the source does not answer.
    rests: Option<(Instant, Duration)>,
    problem: Option<String>,
    /// Whether somebody works on it.
    busy: bool,
}

/// What somebody who works on a source does next.
enum Next {
    Do(Work),
    /// Look again when something has moved, or then.
    Wait(Option<Instant>),
    Nothing,
}

/// What became of something that was to be done.
enum End {
    Done,
    /// It is not wanted any more.
    Unwanted,
    /// The source does not answer, in words.
    Away(String),
    /// It alone failed: why, and how long it is left alone.
    Failed(String, Duration),
    /// The disk has no room for it: why, and how long that is believed.
    NoRoom(&'static str, Duration),
}

impl Pins {
    /// Starts with nothing pinned. `memory` is how many bytes may be on their way to the disk.
    pub(crate) fn new(memory: u64) -> Self {
        let memory_max = u32::try_from(memory).unwrap_or(u32::MAX);
        Self {
            state: Mutex::default(),
            wishes: AtomicU64::new(1),
            bell: Notify::new(),
            planned: watch::Sender::new(0),
            moved: Notify::new(),
            any: AtomicBool::new(false),
            written: AtomicU64::new(0),
            memory: Semaphore::new(memory_max as usize),
            memory_max,
            task: Mutex::new(None),
        }
    }

    /// Begins keeping, in place of one that was begun before.
    pub(crate) fn start(&self, runtime: &Runtime, keeping: impl Future<Output = ()> + Send + 'static) {
        if let Some(before) = self.task.lock().replace(runtime.spawn(keeping)) {
            before.abort();
        }
    }

    /// Asks for a new plan: pins have changed.
    pub(crate) fn plan_anew(&self) {
        self.any.store(true, Ordering::SeqCst);
        self.wishes.fetch_add(1, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Asks for a new plan if a change of the catalog can matter to it.
    pub(crate) fn note(&self, change: &Change) {
        let matters = !matches!(change, Change::Attributes { .. });
        if matters && self.any.load(Ordering::SeqCst) {
            self.plan_anew();
        }
    }

    /// Says how far keeping has come, once the plan knows of all that was asked for, or after a while.
    pub(crate) async fn report(&self) -> PinReport {
        let wishes = self.wishes.load(Ordering::SeqCst);
        if self.task.lock().is_some() {
            let mut planned = self.planned.subscribe();
            let known = planned.wait_for(|planned| *planned >= wishes);
            let _known_or_late = tokio::time::timeout(PLAN_PATIENCE, known).await;
        }
        self.report_now(wishes)
    }

    /// Says how far keeping had come when it was last looked at.
    pub(crate) fn latest(&self) -> PinReport {
        self.report_now(self.wishes.load(Ordering::SeqCst))
    }

    /// Ends keeping.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    fn report_now(&self, wishes: u64) -> PinReport {
        let state = self.state.lock();
        let mut report = state.report.clone();
        report.up_to_date = *self.planned.borrow() >= wishes;
        if let Some(message) = state.no_room {
            report.problems.push(PinProblem {
                source: None,
                message: message.to_owned(),
            });
        }
        for (source, queue) in &state.queues {
            if let Some(message) = queue.problem.clone() {
                let source = Some(*source);
                report.problems.push(PinProblem { source, message });
            }
        }
        report
    }

    /// Takes in a new plan. Gives the sources on which somebody must begin to work.
    fn publish(&self, plan: Plan, wishes: u64) -> Vec<SourceId> {
        let mut state = self.state.lock();
        state.report = PinReport {
            rules: plan.rules,
            total: plan.total,
            refused: plan.refused,
            ..PinReport::default()
        };
        let mut work = plan.work;
        state
            .queues
            .retain(|source, queue| queue.busy || work.contains_key(source));
        for (source, queue) in &mut state.queues {
            queue.work = work.remove(source).unwrap_or_default();
            if queue.work.is_empty() && queue.in_hand.is_empty() {
                queue.problem = None;
                queue.rests = None;
                queue.failed.clear();
            }
        }
        for (source, work) in work {
            let queue = WorkQueue {
                work,
                ..WorkQueue::default()
            };
            state.queues.insert(source, queue);
        }
        if state.queues.is_empty() {
            state.no_room = None;
        }
        let idle = state.queues.iter_mut().filter(|(_, queue)| !queue.busy);
        let begin = idle.map(|(source, queue)| {
            queue.busy = true;
            *source
        });
        let begin = begin.collect();
        drop(state);
        self.planned.send_replace(wishes);
        self.moved.notify_waiters();
        begin
    }

    /// Takes what is to be done next at a source. It must be given to [`ended`](Self::ended).
    fn next(&self, source: SourceId, now: Instant) -> Next {
        let mut state = self.state.lock();
        let Some(queue) = state.queues.get_mut(&source) else {
            return Next::Nothing;
        };
        if let Some((until, _)) = queue.rests.filter(|it| it.0 > now) {
            return Next::Wait(Some(until));
        }
        queue.failed.retain(|_, until| *until > now);
        let may_go = |it: &Work| !queue.failed.contains_key(&it.id()) && !queue.in_hand.contains(&it.id());
        let place = queue.work.iter().position(may_go);
        if let Some(work) = place.and_then(|place| queue.work.remove(place)) {
            queue.in_hand.insert(work.id());
            return Next::Do(work);
        }
        if queue.work.is_empty() && queue.in_hand.is_empty() {
            return Next::Nothing;
        }
        Next::Wait(queue.failed.values().min().copied())
    }

    /// Takes note of what became of something.
    fn ended(&self, source: SourceId, work: Work, end: End, now: Instant) {
        let mut state = self.state.lock();
        match end {
            End::Done => state.no_room = None,
            End::NoRoom(why, _) => state.no_room = Some(why),
            _ => {}
        }
        let Some(queue) = state.queues.get_mut(&source) else {
            return;
        };
        queue.in_hand.remove(&work.id());
        match end {
            End::Unwanted => {}
            End::Done => {
                queue.rests = None;
                if queue.failed.is_empty() {
                    queue.problem = None;
                }
            }
            End::Away(message) => {
                let pause = queue.rests.map_or(SOURCE_PAUSE, |it| (it.1 * 2).min(SOURCE_PAUSE_MAX));
                // Others may have found out at the same time.
                if queue.rests.is_none_or(|it| it.0 <= now) {
                    queue.rests = Some((now + pause, pause));
                }
                queue.problem = Some(message);
                queue.work.push_front(work);
            }
            End::Failed(message, pause) => {
                if queue.failed.len() < FAILED_MAX {
                    queue.failed.insert(work.id(), now + pause);
                }
                queue.problem = Some(message);
                queue.work.push_back(work);
            }
            End::NoRoom(_, pause) => {
                queue.rests = Some((now + pause, Duration::ZERO));
                queue.work.push_front(work);
            }
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// Takes note that nobody works on a source any more.
    fn idle(&self, source: SourceId) {
        if let Some(queue) = self.state.lock().queues.get_mut(&source) {
            queue.busy = false;
        }
    }
}
