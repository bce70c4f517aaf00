//! Moves: the objects of renamed directories on their way to where the tree has them, at sources that have no directories to
//! rename; and what files have left at the sources from which they were moved.
//!
//! It owns a task for each directory that was renamed ahead of what it holds. What is to be done stands in the catalog
//! (`docs/catalog-format.md`), so that each start goes on with it. Always true:
//! - an object leaves its old place only when it is in its new one and the catalog has that durably;
//! - nothing is replaced in a new place, and of an old place only the version is removed that was copied;
//! - a file is brought by one task at a time, and by none while its name is being changed;
//! - a move ends only when all that the directory holds lies where it stands.

mod bring;
mod directories;
mod job;
mod left;
mod origins;
mod passed;
mod places;
mod together;
mod two_names;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_backends::Backend;
use manifold_catalog::{EntryId, SourceId};
use parking_lot::{Mutex, RwLock as RwLocked};
use tokio::sync::{Notify, RwLock, RwLockReadGuard, Semaphore, watch};
use tokio::time::timeout;

use self::origins::Leaving;
pub(crate) use self::places::Place;
use self::together::Together;
use crate::Error;
use crate::upload::Uploads;
use crate::upload::naming::NameLock;
use crate::vfs::Paths;

/// How many directories are moved at once.
const JOBS_MAX: usize = 4;

/// How far a move has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveState {
    /// It waits for its turn, or for files that are being written.
    Waiting,
    /// Objects are being brought.
    UnderWay,
    /// It failed, and is tried again by itself.
    Delayed {
        /// Why.
        error: String,
    },
    /// It cannot be done as things are; it is tried again when told to, or when a setting changes.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
}

/// A directory whose objects are still to follow it, or a file that has still to be taken away where it was moved from, for
/// people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveReport {
    /// The directory or file.
    pub id: EntryId,
    /// The source that is changed.
    pub source: SourceId,
    /// Where it stands in the tree; empty where it was removed since.
    pub path: Vec<u8>,
    /// Where it lay at the source: a path beneath the source's root.
    pub from: Vec<u8>,
    /// Whether it is a file that was moved to another source, and has arrived there.
    pub is_across: bool,
    /// Files that have been brought since the daemon started.
    pub moved: u64,
    /// Files that are still to be brought, as far as is known.
    pub left: u64,
    /// How far it has come.
    pub state: MoveState,
}

/// All moves.
pub(crate) struct Moves {
    uploads: Arc<Uploads>,
    jobs: Mutex<BTreeMap<EntryId, Job>>,
    /// Shared by those who change names at a place that they have found in the catalog; alone by a move that ends, after
    /// which the place is another.
    steady: RwLock<()>,
    together: Together,
    turns: Semaphore,
    paths: Arc<Paths>,
    read_only: Arc<RwLocked<HashSet<SourceId>>>,
    leaving: Leaving,
    /// Counts what happens, for those who wait for something of it.
    happened: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
    /// How many files were brought since the start.
    done: AtomicU64,
}

/// A directory that is moved.
#[derive(Debug)]
struct Job {
    nudge: Arc<Notify>,
    moved: u64,
    left: u64,
    state: MoveState,
}

/// Why a step could not be made.
#[derive(Debug)]
enum Fault {
    /// It may do better later.
    Delayed(String),
    /// It will fail until somebody does something.
    Refused { error: String, remedy: String },
}

/// Where a move is made.
#[derive(Clone)]
struct Ground {
    /// The directory.
    top: EntryId,
    source: SourceId,
    backend: Arc<dyn Backend>,
}

impl Moves {
    pub(crate) fn new(
        uploads: &Arc<Uploads>,
        paths: &Arc<Paths>,
        read_only: &Arc<RwLocked<HashSet<SourceId>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            uploads: Arc::clone(uploads),
            jobs: Mutex::default(),
            steady: RwLock::default(),
            together: Together::default(),
            turns: Semaphore::new(JOBS_MAX),
            paths: Arc::clone(paths),
            read_only: Arc::clone(read_only),
            leaving: Leaving::default(),
            happened: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
            done: AtomicU64::new(0),
        })
    }

    /// Goes on with what the catalog says is to be done.
    pub(crate) fn start_all(self: &Arc<Self>) -> Result<(), Error> {
        for one in self.uploads.fetcher.catalog.moves().map_err(Error::from_catalog)? {
            self.start(one.id);
        }
        self.start_leaving();
        Ok(())
    }

    /// Has the objects of a directory brought, or looked at anew where that is under way.
    pub(crate) fn start(self: &Arc<Self>, id: EntryId) {
        let mut jobs = self.jobs.lock();
        if *self.stopped.borrow() {
            return;
        }
        if let Some(job) = jobs.get(&id) {
            job.nudge.notify_one();
            return;
        }
        let nudge = Arc::<Notify>::default();
        jobs.insert(
            id,
            Job {
                nudge: Arc::clone(&nudge),
                moved: 0,
                left: 0,
                state: MoveState::Waiting,
            },
        );
        let moves = Arc::clone(self);
        let work = async move { moves.work(id, nudge).await };
        self.uploads.fetcher.runtime.spawn(work);
        drop(jobs);
        self.note();
    }

    /// Ends all tasks, and waits until they have ended. What is left to do stands in the catalog.
    pub(crate) async fn stop(&self) {
        self.stopped.send_replace(true);
        self.until(|| self.jobs.lock().is_empty() && !self.leaving.runs()).await;
    }

    /// Tries everything again now that failed, and says how many moves that were.
    pub(crate) fn retry(&self) -> u64 {
        let jobs = self.jobs.lock();
        let failed = jobs
            .values()
            .filter(|job| matches!(job.state, MoveState::Delayed { .. } | MoveState::Refused { .. }));
        let mut count = 0;
        for job in failed {
            job.nudge.notify_one();
            count += 1;
        }
        count + self.leaving.retry()
    }

    /// Lists what is on the move, in the order of ids.
    pub(crate) fn report(&self) -> Vec<MoveReport> {
        let (catalog, indexer) = (&self.uploads.fetcher.catalog, &self.uploads.fetcher.indexer);
        let moves = catalog.moves().unwrap_or_default();
        let jobs = self.jobs.lock();
        let reports = moves.into_iter().map(|one| {
            let job = jobs.get(&one.id);
            let state = job.map_or(MoveState::Waiting, |job| job.state.clone());
            let state = match state {
                MoveState::UnderWay if indexer.is_away(one.source) => MoveState::Delayed {
                    error: "its source gives no answer".to_owned(),
                },
                state => state,
            };
            MoveReport {
                id: one.id,
                source: one.source,
                path: catalog.tree_path(one.id).ok().flatten().unwrap_or_default(),
                from: one.places.into_iter().next().unwrap_or_default(),
                is_across: false,
                moved: job.map_or(0, |job| job.moved),
                left: job.map_or(0, |job| job.left),
                state,
            }
        });
        let mut reports: Vec<_> = reports.collect();
        reports.extend(self.report_leaving());
        reports
    }

    /// Counts the files that were brought since the start.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Keeps the name of a file from being changed, and the file from being brought elsewhere, by anybody else.
    pub(crate) async fn lock_name(&self, id: EntryId) -> NameLock {
        self.uploads.naming.lock(id).await
    }

    /// Keeps moves from ending, so that the place of a directory at its source stays what it is. Nobody waits for anything
    /// else of a move meanwhile.
    pub(crate) async fn keep_places(&self) -> RwLockReadGuard<'_, ()> {
        self.steady.read().await
    }

    /// Waits until nothing of a move lies in the way of what is to be made at a place, but no longer than `patience`.
    ///
    /// # Errors
    /// [`Error::Busy`]: it was not so in time.
    pub(crate) async fn until_free(self: &Arc<Self>, place: Place<'_>, patience: Duration) -> Result<(), Error> {
        match self.in_the_way(&place)? {
            None => return Ok(()),
            Some(id) => self.start(id),
        }
        let mut failed = None;
        let free = self.until(|| match self.in_the_way(&place) {
            Ok(in_the_way) => in_the_way.is_none(),
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if timeout(patience, free).await.is_err() {
            return Err(Error::Busy);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Tells whether something of a move lies in the way of what is to be made at a place.
    pub(crate) fn is_in_the_way(&self, place: &Place<'_>) -> Result<bool, Error> {
        Ok(self.in_the_way(place)?.is_some())
    }

    /// Waits until something is so that may become so when something happens to a move.
    async fn until(&self, mut holds: impl FnMut() -> bool) {
        let mut happened = self.happened.subscribe();
        loop {
            happened.borrow_and_update();
            if holds() {
                return;
            }
            if happened.changed().await.is_err() {
                return;
            }
        }
    }

    fn note(&self) {
        self.happened.send_modify(|count| *count += 1);
    }

    /// Changes what is known of a job.
    fn on_job(&self, id: EntryId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.lock().get_mut(&id) {
            change(job);
        }
    }
}

impl std::fmt::Debug for Moves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moves")
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}
