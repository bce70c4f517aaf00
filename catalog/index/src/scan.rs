//! The scan: lists every directory of a source in the background, and survives everything.
//!
//! Which directories are still to be listed stands in the catalog, in the same transaction as the listing that named
//! them; so a scan that is cut short at any point goes on there. A directory that fails is tried again after a pause,
//! a bounded number of times, and then noted as failed; the scan ends nonetheless. While the source is away the scan
//! stands still and asks nothing; so it does while scans are held, on battery or a metered line. The first scan of a local
//! folder takes a faster path ([`local`]) to the same end, unless it is held to a rate.
//!
//! Always true: at most the source's share of listings is under way at once; what failed is still in the catalog.

mod again;
pub(crate) mod beneath;
mod failed;
mod local;
mod lost;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_catalog::{EntryId, SourceId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::IndexError;
use crate::flight::Outcome;
use crate::health::Event;
use crate::indexer::Indexer;
use crate::source::Source;

/// How many directories are taken from the catalog's queue at a time.
const QUEUE_PAGE: usize = 256;

/// How a scan ended.
#[derive(Clone, Debug)]
pub enum ScanEnd {
    /// Every directory was tried; that many could not be listed, and are known as they were.
    Finished {
        /// Directories that could not be listed.
        failed: u64,
    },
    /// It was stopped, or its source let go. It goes on when the source is attached again.
    Stopped,
    /// The catalog failed. It goes on when the source is attached again.
    Failed(IndexError),
}

/// How far the scan of a source has come.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanProgress {
    /// The source.
    pub source: SourceId,
    /// Counts the scans of this source, from 1.
    pub generation: u64,
    /// Whether it is under way.
    pub running: bool,
    /// Why it stands still: its source is away, or scans are held.
    pub paused: Option<String>,
    /// When it began, in nanoseconds since 1970 UTC.
    pub started_ns: i64,
    /// When it ended, in nanoseconds since 1970 UTC.
    pub finished_ns: Option<i64>,
    /// Directories that are still to be listed.
    pub queued: u64,
    /// Directories that were listed.
    pub listed: u64,
    /// Directories that could not be listed.
    pub failed: u64,
    /// Entries of the source that the catalog knows.
    pub entries: u64,
    /// Directories listed in a second, over the time that this process has worked on it.
    pub directories_per_second: f64,
}

/// A scan that is under way or has just ended. Dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct ScanHandle(Arc<RunningScan>);

impl ScanHandle {
    /// Waits until the scan ends.
    pub async fn ended(&self) -> ScanEnd {
        let mut end = self.0.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(ScanEnd::Stopped),
            Err(_) => ScanEnd::Stopped,
        }
    }
}

/// What is known of a scan while it runs, beyond what the catalog keeps.
#[derive(Debug)]
pub(crate) struct RunningScan {
    /// `None` where it could not begin.
    source: Option<Arc<Source>>,
    end: watch::Sender<Option<ScanEnd>>,
    began: Instant,
    listed: AtomicU64,
}

impl RunningScan {
    /// What it scans; `None` where it could not begin.
    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_deref()
    }
}

/// Says that the scan has ended, whatever ends its task.
struct EndOfScan {
    indexer: Arc<Indexer>,
    source: SourceId,
    scan: Arc<RunningScan>,
    end: ScanEnd,
}

impl Drop for EndOfScan {
    fn drop(&mut self) {
        let mut scans = self.indexer.scans.lock();
        if scans
            .get(&self.source)
            .is_some_and(|current| Arc::ptr_eq(current, &self.scan))
        {
            scans.remove(&self.source);
        }
        drop(scans);
        self.indexer.tell(Event::ScanEnded {
            source: self.source,
            end: self.end.clone(),
        });
        self.scan.end.send_replace(Some(self.end.clone()));
    }
}

impl Indexer {
    /// Scans a source in the background: goes on with a scan that was cut short, or begins a new one, in which every
    /// directory is listed again. While a scan of the source runs, it is that one.
    pub fn scan(self: &Arc<Self>, id: SourceId) -> ScanHandle {
        let mut scans = self.scans.lock();
        let source = self.source(id);
        if let Some(running) = scans.get(&id)
            && source
                .as_ref()
                .is_ok_and(|source| running.source.as_ref().is_some_and(|of| Arc::ptr_eq(of, source)))
        {
            return ScanHandle(Arc::clone(running));
        }
        let scan = Arc::new(RunningScan {
            source: source.as_ref().ok().map(Arc::clone),
            end: watch::Sender::new(None),
            began: Instant::now(),
            listed: AtomicU64::new(0),
        });
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                scan.end.send_replace(Some(ScanEnd::Failed(error)));
                return ScanHandle(scan);
            }
        };
        scans.insert(id, Arc::clone(&scan));
        drop(scans);
        let indexer = Arc::clone(self);
        let handle = ScanHandle(Arc::clone(&scan));
        self.tasks.spawn_on(
            async move {
                let mut end = EndOfScan {
                    indexer,
                    source: id,
                    scan,
                    end: ScanEnd::Stopped,
                };
                let cancelled = source.cancel.clone();
                end.end = tokio::select! {
                    biased;
                    () = cancelled.cancelled() => ScanEnd::Stopped,
                    end = end.indexer.run_scan(&source, &end.scan) => match end {
                        Ok(failed) => ScanEnd::Finished { failed },
                        Err(IndexError::Stopped) => ScanEnd::Stopped,
                        Err(error) => {
                            tracing::error!(source = source.backend.name(), %error, "the scan was given up");
                            ScanEnd::Failed(error)
                        }
                    },
                };
                source.set_generation(0);
            },
            &self.runtime,
        );
        handle
    }

    /// Says how far the scans of all attached sources have come; sources that were never scanned are left out.
    pub fn progress(&self) -> Vec<ScanProgress> {
        let totals = self.catalog().totals().map(|totals| totals.sources).unwrap_or_default();
        let mut progress = Vec::new();
        for source in self.attached() {
            let state = match self.catalog().scan_state(source.id) {
                Ok(Some(state)) => state,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(source = source.backend.name(), %error, "cannot tell how far the scan has come");
                    continue;
                }
            };
            let running = self.scans.lock().get(&source.id).map(Arc::clone);
            let paused = running.as_ref().and_then(|_| self.why_paused(&source));
            let rate = running.as_ref().map_or(0.0, |scan| {
                let seconds = scan.began.elapsed().as_secs_f64();
                if seconds > 0.0 {
                    scan.listed.load(Ordering::Relaxed) as f64 / seconds
                } else {
                    0.0
                }
            });
            progress.push(ScanProgress {
                source: source.id,
                generation: state.generation,
                running: running.is_some(),
                paused,
                started_ns: state.started_ns,
                finished_ns: state.finished_ns,
                queued: state.queued,
                listed: state.listed,
                failed: state.failed,
                entries: totals
                    .iter()
                    .find(|(id, _)| *id == source.id)
                    .map_or(0, |(_, totals)| totals.entries),
                directories_per_second: rate,
            });
        }
        progress.sort_by_key(|progress| progress.source);
        progress
    }

    async fn run_scan(self: &Arc<Self>, source: &Arc<Source>, scan: &RunningScan) -> Result<u64, IndexError> {
        let id = source.id;
        let (generation, started_ns) = match self.catalog().scan_state(id)? {
            Some(state) if state.finished_ns.is_none() => (state.generation, state.started_ns),
            _ => {
                let now_ns = self.clock().now_ns();
                (
                    self.blocking(move |catalog| Ok(catalog.scan_begin(id, now_ns)?))
                        .await?,
                    now_ns,
                )
            }
        };
        source.set_generation(generation);
        self.tell(Event::ScanBegan { source: id, generation });
        tracing::info!(source = source.backend.name(), generation, "scanning");
        self.until_not_held(source).await;
        if generation == 1 && source.is_local() && !source.is_paced() {
            self.load_local(source, &scan.listed).await?;
        }
        self.list_queue(source, &scan.listed).await?;
        let now_ns = self.clock().now_ns();
        let failed = self
            .blocking(move |catalog| {
                catalog.scan_finish(id, now_ns)?;
                catalog.reap_departed(id, started_ns)?;
                Ok(catalog.scan_state(id)?.map_or(0, |state| state.failed))
            })
            .await?;
        tracing::info!(source = source.backend.name(), generation, failed, "the scan has ended");
        Ok(failed)
    }

    /// Lists what the catalog has queued, until nothing is left.
    async fn list_queue(self: &Arc<Self>, source: &Arc<Source>, listed: &AtomicU64) -> Result<(), IndexError> {
        let mut queue = Queue::new(source.id);
        let mut under_way = JoinSet::new();
        loop {
            for directory in source.take_scan_retries() {
                queue.put_off(source, directory);
            }
            while under_way.len() < source.scan_share
                && let Some(directory) = queue.next(self)?
            {
                let (indexer, source) = (Arc::clone(self), Arc::clone(source));
                under_way.spawn_on(
                    async move { (directory, indexer.list_behind(&source, directory).await) },
                    &self.runtime,
                );
            }
            // Nothing is due as long as there is no room for it; waiting for what is overdue would be no waiting at all.
            let has_room = under_way.len() < source.scan_share;
            let due = queue.next_due().filter(|_| has_room);
            if under_way.is_empty() && due.is_none() {
                return Ok(());
            }
            let (directory, outcome) = tokio::select! {
                Some(ended) = under_way.join_next() => ended.map_err(|_| IndexError::Stopped)?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            queue.under_way.remove(&directory);
            match outcome {
                Ok(()) => {
                    queue.attempts.remove(&directory);
                    listed.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.after_failure(source, &mut queue, directory, error).await?,
            }
        }
    }

    /// Decides whether a directory is tried again, or passed over as failed.
    async fn after_failure(
        &self,
        source: &Arc<Source>,
        queue: &mut Queue,
        directory: EntryId,
        error: IndexError,
    ) -> Result<(), IndexError> {
        match &error {
            // The directory has left the tree, and the queue with it.
            IndexError::NotFound(_) | IndexError::NotADirectory(_) => {
                queue.passed_over.insert(directory);
                return Ok(());
            }
            // It had joined a listing that was stopped for another reason than the scan's own end.
            IndexError::Stopped if !source.cancel.is_cancelled() => {
                queue.put_back(directory);
                return Ok(());
            }
            // Nothing is wrong with it, and it stays in the catalog's queue.
            IndexError::Overtaken(_) => {
                if queue.attempts_of(directory) < self.settings().scan_attempts {
                    queue.put_off(source, directory);
                } else {
                    queue.passed_over.insert(directory);
                }
                return Ok(());
            }
            IndexError::Stopped
            | IndexError::NotConnected(_)
            | IndexError::NoCredentials { .. }
            | IndexError::Catalog(_) => return Err(error),
            _ => {}
        }
        // What the whole source is to blame for is no failure of the directory, which waits until the source is back.
        if error.is_about_source() && source.verdict_is_away().await {
            queue.put_back(directory);
            return Ok(());
        }
        if error.may_retry() && queue.attempts_of(directory) < self.settings().scan_attempts {
            queue.put_off(source, directory);
            return Ok(());
        }
        queue.passed_over.insert(directory);
        if let Some(target) = self.target_still(directory)? {
            self.note_failure(&target, &error).await?;
        }
        Ok(())
    }

    /// Lists a directory when it is the scan's turn, or waits for a listing of it that is under way already.
    async fn list_behind(self: &Arc<Self>, source: &Arc<Source>, directory: EntryId) -> Outcome {
        self.until_not_held(source).await;
        let _turn = source.background_turn().await?;
        // Somebody may have opened it since it was taken from the queue.
        let state = self
            .catalog()
            .directory_state(directory)?
            .ok_or(IndexError::NotFound(directory.0))?;
        if state.listed_ns.is_some() && state.scan == source.generation() && state.failure.is_none() {
            return Ok(());
        }
        let mut landing = None;
        let waiter = self.flights.join_or_start(directory, |it| landing = Some(it));
        let Some(landing) = landing else {
            return waiter.outcome().await;
        };
        let outcome = self.list_and_conclude(directory).await;
        landing.land(outcome.clone());
        outcome
    }

    async fn list_and_conclude(self: &Arc<Self>, directory: EntryId) -> Outcome {
        let Some(target) = self.target(directory)? else {
            return Ok(());
        };
        let result = self.list(&target).await;
        self.conclude(&target, result).await
    }
}

/// The directories that are still to be listed, as one run of the scan sees them.
struct Queue {
    source: SourceId,
    /// Read from the catalog and not begun.
    upcoming: VecDeque<EntryId>,
    under_way: HashSet<EntryId>,
    /// Failed, and not due before that time.
    put_off: HashMap<EntryId, Instant>,
    /// How often each has failed.
    attempts: HashMap<EntryId, u32>,
    /// Not to be tried again in this run.
    passed_over: HashSet<EntryId>,
}

impl Queue {
    fn new(source: SourceId) -> Self {
        Self {
            source,
            upcoming: VecDeque::new(),
            under_way: HashSet::new(),
            put_off: HashMap::new(),
            attempts: HashMap::new(),
            passed_over: HashSet::new(),
        }
    }

    /// Takes the next directory to list now.
    fn next(&mut self, indexer: &Indexer) -> Result<Option<EntryId>, IndexError> {
        let now = Instant::now();
        let due = self
            .put_off
            .iter()
            .find(|&(_, due)| *due <= now)
            .map(|(&directory, _)| directory);
        if let Some(directory) = due {
            self.put_off.remove(&directory);
            self.under_way.insert(directory);
            return Ok(Some(directory));
        }
        if self.upcoming.is_empty() {
            // Those that are under way or put off are still in the catalog's queue, in front of the others.
            let known = self.under_way.len() + self.put_off.len() + self.passed_over.len();
            let page = indexer.catalog().scan_queue_next(self.source, known + QUEUE_PAGE)?;
            self.upcoming = page
                .into_iter()
                .filter(|directory| !self.is_known(*directory))
                .collect();
        }
        let next = self.upcoming.pop_front();
        self.under_way.extend(next);
        Ok(next)
    }

    fn is_known(&self, directory: EntryId) -> bool {
        self.under_way.contains(&directory)
            || self.put_off.contains_key(&directory)
            || self.passed_over.contains(&directory)
    }

    fn attempts_of(&self, directory: EntryId) -> u32 {
        self.attempts.get(&directory).copied().unwrap_or(0) + 1
    }

    /// Tries it again after a pause that grows with its failures.
    fn put_off(&mut self, source: &Source, directory: EntryId) {
        if self.under_way.contains(&directory) {
            return;
        }
        let attempts = self.attempts.entry(directory).or_insert(0);
        let pause = source.pause(*attempts, directory.0);
        *attempts += 1;
        self.put_off.insert(directory, Instant::now() + pause);
    }

    /// Tries it again as soon as the source can be asked.
    fn put_back(&mut self, directory: EntryId) {
        self.upcoming.push_front(directory);
    }

    fn next_due(&self) -> Option<Instant> {
        self.put_off.values().min().copied()
    }
}
