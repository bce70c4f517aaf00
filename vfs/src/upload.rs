//! Uploads: staged files on their way to their sources.
//!
//! It owns the queue, which is made anew from the journal at each start, and a task for each file that waits or is under way.
//! Always true:
//! - a file is uploaded by one task at a time, and by none while somebody holds it to change its name;
//! - an upload replaces only the version that the writer had seen;
//! - what cannot be uploaded stays staged, and says why.

pub(crate) mod asked;
mod attempt;
mod body;
pub(crate) mod conflict;
pub(crate) mod copies;
mod ending;
mod job;
pub(crate) mod naming;
mod origin;
mod parts;
mod renamed;
mod report;
mod rush;
pub(crate) mod settle;
mod told;
mod unseen;
mod way;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use manifold_catalog::{EntryId, PartUpload, SourceId};
use manifold_index::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

pub use self::told::{Conflict, UploadEvent, UploadListener};

use crate::Error;
use crate::error::Cause;
use crate::events::Publisher;
use crate::fetch::Fetcher;
use crate::handle::OpenFiles;
use crate::staging::{Staging, StagingUsage};
use crate::turns::Turns;
use asked::Unanswered;
use ending::Ending;
use naming::NameLocks;
pub(crate) use renamed::changed_row;
use rush::Rush;
use way::Way;

/// How long a closed file is left alone before its upload begins: many are renamed or written again at once.
const SETTLE: Duration = Duration::from_millis(300);
/// The same for a file that was synced and is still open.
const SETTLE_OPEN: Duration = Duration::from_secs(5);
/// How often it is looked whether uploads have ended, when they are waited for.
const DRAIN_LOOK: Duration = Duration::from_millis(100);
/// How many conflicts are remembered, to be shown.
const CONFLICTS_MAX: usize = 100;

/// What becomes of writes to a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// They are safe here when the file is closed, and are uploaded behind that.
    #[default]
    Back,
    /// Closing a file waits for its upload, and fails with it.
    Through,
    /// There are none.
    Off,
}

/// What becomes of attributes that a source cannot store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttributePolicy {
    /// The catalog keeps them.
    #[default]
    Keep,
    /// They are refused.
    Refuse,
}

/// How far a staged file has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// It is open and was not closed yet.
    Open,
    /// It waits for its turn, or for its source.
    Waiting,
    /// It is being uploaded.
    UnderWay {
        /// Bytes that were sent so far.
        sent: u64,
    },
    /// It failed, and is tried again by itself.
    Delayed {
        /// Why.
        error: String,
    },
    /// It cannot be uploaded as things are; it stays here, and is tried again when told to, or when a setting changes.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
}

/// A staged file, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReport {
    /// The entry.
    pub id: EntryId,
    /// Its source; `None` where the entry is gone.
    pub source: Option<SourceId>,
    /// Where it stands in the tree.
    pub path: Vec<u8>,
    /// Where it was moved from, at another source that still has it: a path in the tree.
    pub from: Option<Vec<u8>>,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of it that are staged.
    pub staged: u64,
    /// How far it has come.
    pub state: UploadState,
}

/// How many staged files have come how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadTally {
    /// Under way.
    pub under_way: u64,
    /// Failed, and tried again by themselves.
    pub delayed: u64,
    /// Refused by their sources, or not to be read here.
    pub refused: u64,
    /// Moved from another source, whose object they are made of.
    pub moving: u64,
}

/// The queue.
pub(crate) struct Uploads {
    pub(crate) staging: Arc<Staging>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) files: Arc<OpenFiles>,
    publisher: Arc<Publisher>,
    clock: Arc<dyn Clock>,
    host: String,
    listener: UploadListener,
    jobs: Mutex<HashMap<EntryId, Job>>,
    /// Taken before the hold of a file, never after it.
    pub(crate) naming: Arc<NameLocks>,
    /// Who changes names at sources. Taken before a name of a file.
    pub(crate) turns: Turns,
    rush: Rush,
    /// What nobody will take up of uploads in parts.
    ending: Ending,
    /// Counts what happens to jobs, for those who wait for something of it.
    happened: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
    conflicts: Mutex<VecDeque<Conflict>>,
    /// The names that files have lost to another's version of late.
    way: Way,
    unanswered: Unanswered,
    policies: RwLock<HashMap<SourceId, WritePolicy>>,
    /// The sources from which what is removed goes to a trash.
    with_trash: RwLock<HashSet<SourceId>>,
    /// Sources of which nothing is kept that they cannot store.
    refusing: RwLock<HashSet<SourceId>>,
    /// How many files were uploaded since the start.
    done: AtomicU64,
    /// Whether data files are about to be removed.
    sweeping: AtomicBool,
    seed: u64,
}

/// A file that waits, is under way, or is held.
struct Job {
    /// Where it is to go, once that was found out.
    source: Option<SourceId>,
    /// How many hold it.
    held: u32,
    /// Whether a task works on it.
    running: bool,
    /// How often it was asked for: each time that it was closed.
    asked: u64,
    /// How many of these have been seen to.
    done: u64,
    /// When it may begin.
    due: Instant,
    /// Whether it may wait longer, for the end of a rush.
    gathers: bool,
    /// Brings the next try forward, or ends the task of a file that is held.
    nudge: Arc<Notify>,
    end: watch::Sender<bool>,
    state: UploadState,
    /// What is being sent to where, while it is.
    sends: Option<PartUpload>,
    sent: Arc<AtomicU64>,
}

impl Job {
    /// Tells whether the file is to be uploaded.
    fn is_wanted(&self) -> bool {
        self.asked > self.done
    }
}

impl Default for Job {
    fn default() -> Self {
        Self {
            source: None,
            held: 0,
            running: false,
            asked: 0,
            done: 0,
            due: Instant::now(),
            gathers: true,
            nudge: Arc::default(),
            end: watch::Sender::new(false),
            state: UploadState::Waiting,
            sends: None,
            sent: Arc::default(),
        }
    }
}

/// Keeps a file from being uploaded, so that its name can be changed.
#[must_use = "the file is held until this is dropped"]
pub(crate) struct Hold {
    uploads: Arc<Uploads>,
    id: EntryId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.uploads.let_go(self.id);
    }
}

impl Uploads {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another part of the file system that it works for"
    )]
    pub(crate) fn new(
        staging: Arc<Staging>,
        fetcher: Arc<Fetcher>,
        files: Arc<OpenFiles>,
        publisher: Arc<Publisher>,
        clock: Arc<dyn Clock>,
        host: String,
        listener: UploadListener,
        policies: HashMap<SourceId, WritePolicy>,
    ) -> Arc<Self> {
        use std::hash::{BuildHasher, Hasher};
        Arc::new(Self {
            staging,
            fetcher,
            files,
            publisher,
            clock,
            host,
            listener,
            jobs: Mutex::default(),
            naming: Arc::default(),
            turns: Turns::default(),
            rush: Rush::default(),
            ending: Ending::default(),
            happened: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
            conflicts: Mutex::default(),
            way: Way::default(),
            unanswered: Unanswered::default(),
            policies: RwLock::new(policies),
            with_trash: RwLock::default(),
            refusing: RwLock::default(),
            done: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
            seed: std::hash::RandomState::new().build_hasher().finish(),
        })
    }

    /// Has a file uploaded that was closed, or synced and is still open.
    pub(crate) fn queue(self: &Arc<Self>, id: EntryId, still_open: bool) {
        if !still_open {
            self.note_closed();
        }
        let settle = if still_open { SETTLE_OPEN } else { SETTLE };
        self.queue_after(id, settle);
    }

    /// Has a file uploaded after that time, as far as nothing holds it up; after none, whatever else is closed meanwhile.
    pub(crate) fn queue_after(self: &Arc<Self>, id: EntryId, settle: Duration) {
        let mut jobs = self.jobs.lock();
        let job = jobs.entry(id).or_default();
        let due = Instant::now() + settle;
        // Not later than it was: a file that is closed again and again has its turn too.
        job.due = if job.is_wanted() { job.due.min(due) } else { due };
        job.gathers = !settle.is_zero();
        job.asked += 1;
        if matches!(job.state, UploadState::Refused { .. }) {
            job.state = UploadState::Waiting;
        }
        job.nudge.notify_one();
        self.start(id, job);
        drop(jobs);
        self.note();
    }

    /// Has a file uploaded soon that is closed now and was asked for already when it was only synced.
    pub(crate) fn hasten(&self, id: EntryId) {
        let mut jobs = self.jobs.lock();
        if let Some(job) = jobs
            .get_mut(&id)
            .filter(|job| job.is_wanted() && job.state == UploadState::Waiting)
        {
            job.due = job.due.min(Instant::now() + SETTLE);
            job.nudge.notify_one();
        }
    }

    fn start(self: &Arc<Self>, id: EntryId, job: &mut Job) {
        if job.running || job.held > 0 || !job.is_wanted() || *self.stopped.borrow() {
            return;
        }
        job.running = true;
        job.end.send_replace(false);
        let (uploads, end) = (Arc::clone(self), job.end.subscribe());
        self.fetcher.runtime.spawn(async move { uploads.work(id, end).await });
    }

    /// Ends the upload of a file, if one is under way, and keeps others from beginning until what is given is dropped.
    pub(crate) async fn hold(self: &Arc<Self>, id: EntryId) -> Hold {
        {
            let mut jobs = self.jobs.lock();
            let job = jobs.entry(id).or_default();
            job.held += 1;
            job.end.send_replace(true);
        }
        let hold = Hold {
            uploads: Arc::clone(self),
            id,
        };
        self.until(|jobs| jobs.get(&id).is_none_or(|job| !job.running)).await;
        hold
    }

    fn let_go(self: &Arc<Self>, id: EntryId) {
        let mut jobs = self.jobs.lock();
        let Some(job) = jobs.get_mut(&id) else { return };
        job.held -= 1;
        if job.held == 0 {
            if job.is_wanted() && self.staging.get(id).is_some() {
                self.start(id, job);
            } else if !job.running {
                jobs.remove(&id);
            }
        }
        drop(jobs);
        self.note();
    }

    /// Waits until something is so of the jobs.
    async fn until(&self, holds: impl Fn(&HashMap<EntryId, Job>) -> bool) {
        let mut happened = self.happened.subscribe();
        loop {
            happened.borrow_and_update();
            if holds(&self.jobs.lock()) {
                return;
            }
            if happened.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until something is so that may become so when something happens to a job.
    pub(crate) async fn until_news(&self, holds: impl Fn() -> bool) {
        self.until(|_| holds()).await;
    }

    /// Tells of everything that happens to a job.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.happened.subscribe()
    }

    fn note(&self) {
        self.happened.send_modify(|count| *count += 1);
    }

    /// Waits until a file is uploaded.
    ///
    /// # Errors
    /// Its source does not take it, or it took longer than `patience`; it stays staged, and is tried again by itself.
    pub(crate) async fn finished(&self, id: EntryId, patience: Duration) -> Result<(), Error> {
        let is_over = |jobs: &HashMap<EntryId, Job>| {
            jobs.get(&id)
                .is_none_or(|job| !job.is_wanted() || matches!(job.state, UploadState::Refused { .. }))
        };
        let in_time = timeout(patience, self.until(is_over)).await.is_ok();
        let state = self
            .jobs
            .lock()
            .get(&id)
            .filter(|job| job.is_wanted())
            .map(|job| job.state.clone());
        match state {
            None => Ok(()),
            Some(UploadState::Refused { error, remedy }) => Err(Error::Io(Cause::new(format!("{error}\n{remedy}")))),
            Some(UploadState::Delayed { error }) if !in_time => Err(Error::TimedOut(Cause::new(error))),
            Some(_) => {
                let after = patience.as_secs_f32();
                Err(Error::TimedOut(Cause::new(format!(
                    "the upload did not end within {after} s"
                ))))
            }
        }
    }

    /// Tries everything again now that was refused or waits after a failure: something has changed, or somebody says so.
    pub(crate) fn retry(self: &Arc<Self>, only: Option<EntryId>) -> u64 {
        self.ending.retry();
        let mut jobs = self.jobs.lock();
        let mut count = 0;
        for (id, job) in jobs.iter_mut().filter(|(id, _)| only.is_none_or(|only| only == **id)) {
            if matches!(job.state, UploadState::Refused { .. } | UploadState::Delayed { .. }) {
                job.state = UploadState::Waiting;
                job.due = Instant::now();
                job.nudge.notify_one();
                self.start(*id, job);
                count += 1;
            }
        }
        drop(jobs);
        self.note();
        count
    }

    /// Waits until nothing is left that will be uploaded by itself soon, but no longer than `patience`. Gives the number of
    /// files that wait.
    pub(crate) async fn drain(&self, patience: Duration, mut progress: impl FnMut(u64)) -> u64 {
        let end = Instant::now() + patience;
        let indexer = &self.fetcher.indexer;
        let goes_on = |job: &&Job| {
            job.is_wanted()
                && !matches!(job.state, UploadState::Refused { .. } | UploadState::Delayed { .. })
                && job.source.is_none_or(|source| !indexer.is_away(source))
        };
        loop {
            let count = self.jobs.lock().values().filter(goes_on).count() as u64;
            progress(count);
            if count == 0 || Instant::now() >= end {
                return self.jobs.lock().values().filter(|job| job.is_wanted()).count() as u64;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Ends all uploads, and waits until they have ended. What waits is safe in the journal.
    pub(crate) async fn stop(&self) {
        self.stopped.send_replace(true);
        for job in self.jobs.lock().values() {
            job.end.send_replace(true);
        }
        self.until(|jobs| jobs.values().all(|job| !job.running) && !self.ending.runs())
            .await;
    }

    pub(crate) fn usage(&self) -> StagingUsage {
        self.staging.usage()
    }

    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        self.conflicts.lock().iter().cloned().collect()
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn note_conflict(&self, conflict: Conflict) {
        let mut conflicts = self.conflicts.lock();
        if conflicts.len() == CONFLICTS_MAX {
            conflicts.pop_front();
        }
        conflicts.push_back(conflict.clone());
        drop(conflicts);
        (self.listener)(UploadEvent::Conflict(conflict));
    }

    /// Tells that the objects of a renamed directory cannot follow it.
    pub(crate) fn tell_move_refused(&self, source: SourceId, path: Vec<u8>, error: String, remedy: String) {
        (self.listener)(UploadEvent::MoveRefused {
            source,
            path,
            error,
            remedy,
        });
    }

    pub(crate) fn policy(&self, source: SourceId) -> WritePolicy {
        self.policies.read().get(&source).copied().unwrap_or_default()
    }

    pub(crate) fn set_policy(&self, source: SourceId, policy: WritePolicy) {
        self.policies.write().insert(source, policy);
    }

    pub(crate) fn has_trash(&self, source: SourceId) -> bool {
        self.with_trash.read().contains(&source)
    }

    pub(crate) fn set_trash(&self, source: SourceId, has_trash: bool) {
        let mut with_trash = self.with_trash.write();
        if has_trash {
            with_trash.insert(source);
        } else {
            with_trash.remove(&source);
        }
    }

    /// Tells whether the catalog keeps what a source cannot store.
    pub(crate) fn keeps_attributes(&self, source: SourceId) -> bool {
        !self.refusing.read().contains(&source)
    }

    pub(crate) fn set_attribute_policy(&self, source: SourceId, policy: AttributePolicy) {
        let mut refusing = self.refusing.write();
        match policy {
            AttributePolicy::Keep => drop(refusing.remove(&source)),
            AttributePolicy::Refuse => drop(refusing.insert(source)),
        }
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.clock.now_ns()
    }
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads")
            .field("staging", &self.staging)
            .finish_non_exhaustive()
    }
}
