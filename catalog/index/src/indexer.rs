//! The door of the crate: listings on demand, single looks, and the sources that they go to ([`sources`]).

mod crossings;
mod looking;
mod moving;
mod sources;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use manifold_backends::{Error, ErrorKind, ObjectPath, Operation, Presence, Version, Watch};
use manifold_catalog::{Catalog, ChangedFile, EntryId, Kind, SourceId};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::crossings::BeforeListing;
use self::moving::Purpose;
use crate::expected::Expected;
use crate::flight::{Flights, Outcome, Waiter};
use crate::health::{EVENTS_MAX, Event, Monitor, RequestKind};
use crate::overtaken::Tries;
use crate::reconcile::Taken;
use crate::scan::RunningScan;
use crate::source::Source;
use crate::{Clock, IndexError, IndexSettings, ScanHold, listing};

/// How many calls wait for the catalog at once, each on a thread of its own. There is one writer, so that more of them would
/// only be threads that wait; and a thread that there is is kept for as long as there is anything to do for any.
const CATALOG_CALLS_MAX: usize = 8;

/// Tells of a file that is seen with other bytes whether it is a new entry from now on, because somebody has the old one
/// open.
pub type OpenProbe = Arc<dyn Fn(ChangedFile) -> bool + Send + Sync>;

/// Fills the catalog from its sources: at once for a directory that somebody opens, and bit by bit behind that.
///
/// Share it behind an `Arc`. All of its tasks run on the runtime that it was given.
pub struct Indexer {
    catalog: Arc<Catalog>,
    pub(crate) runtime: Handle,
    settings: IndexSettings,
    clock: Arc<dyn Clock>,
    sources: RwLock<HashMap<SourceId, Arc<Source>>>,
    expected: Expected,
    monitors: RwLock<HashMap<SourceId, Arc<Monitor>>>,
    events: broadcast::Sender<Event>,
    hold: watch::Sender<ScanHold>,
    pub(crate) watches: RwLock<HashMap<SourceId, Arc<dyn Watch>>>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) scans: Mutex<HashMap<SourceId, Arc<RunningScan>>>,
    open_probe: RwLock<OpenProbe>,
    before_listing: RwLock<BeforeListing>,
    catalog_calls: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    cancel: CancellationToken,
}

impl std::fmt::Debug for Indexer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Indexer")
            .field("sources", &self.sources.read().keys())
            .finish_non_exhaustive()
    }
}

/// A directory or file, and where it is found.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) directory: EntryId,
    pub(crate) parent: EntryId,
    pub(crate) kind: Kind,
    pub(crate) source: Arc<Source>,
    pub(crate) path: ObjectPath,
}

impl Indexer {
    /// Makes an indexer without sources. `clock` stamps what is seen; timers are the runtime's.
    pub fn new(catalog: Arc<Catalog>, runtime: Handle, settings: IndexSettings, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            runtime,
            settings,
            clock,
            sources: RwLock::new(HashMap::new()),
            expected: Expected::default(),
            monitors: RwLock::new(HashMap::new()),
            events: broadcast::Sender::new(EVENTS_MAX),
            hold: watch::Sender::new(ScanHold::default()),
            watches: RwLock::new(HashMap::new()),
            flights: Arc::new(Flights::default()),
            scans: Mutex::new(HashMap::new()),
            open_probe: RwLock::new(Arc::new(|_| false)),
            before_listing: RwLock::new(Arc::new(|_| ())),
            catalog_calls: Arc::new(Semaphore::new(CATALOG_CALLS_MAX)),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// Takes the function that tells which files are new entries when they change. It must not wait for anything, nor
    /// change the catalog.
    pub fn set_open_probe(&self, probe: OpenProbe) {
        *self.open_probe.write() = probe;
    }

    /// Lists a directory of its source now, ahead of the scan. When it returns well, the catalog holds the children.
    ///
    /// However many ask for a directory, it is listed once; the listing goes on when a caller stops waiting, so wrap
    /// the call in a deadline. After an error everything that was known is still there, and the directory's state
    /// tells of the failure. If the source says that the directory is not there, its parent is listed, which removes
    /// it properly, and the error is [`IndexError::NotFound`].
    pub async fn list_now(self: &Arc<Self>, directory: EntryId) -> Result<(), IndexError> {
        self.listing_of(directory).0.outcome().await
    }

    /// Lists a directory in the background if what is known of it is older than `max_age`, unless it failed within
    /// that time or its source is away. Tells whether it does.
    pub fn refresh_directory_if_stale(self: &Arc<Self>, directory: EntryId, max_age: Duration) -> bool {
        match self.is_stale(directory, max_age) {
            Ok(true) => {
                drop(self.listing_of(directory));
                true
            }
            // The errors: it went meanwhile.
            Ok(false)
            | Err(IndexError::NotFound(_) | IndexError::NotConnected(_) | IndexError::NoCredentials { .. }) => false,
            Err(error) => {
                tracing::error!(directory = directory.0, %error, "cannot tell how old a listing is");
                false
            }
        }
    }

    /// Looks at one entry at its source and brings the catalog up to date with it.
    ///
    /// `Absent` is given only after a listing of the parent has confirmed it, and removed the entry.
    pub async fn refresh(self: &Arc<Self>, id: EntryId) -> Result<Presence<()>, IndexError> {
        let Some(target) = self.target(id)? else {
            return Ok(Presence::Found(()));
        };
        let result = self.look(&target).await;
        match &result {
            Ok(_) => target.source.answered(),
            Err(error) => target.source.failed(error, &self.runtime),
        }
        match result? {
            Presence::Found(()) => Ok(Presence::Found(())),
            Presence::Absent if target.path.is_root() => Err(target.root_missing()),
            Presence::Absent => self.list_parent_of(&target).await,
        }
    }

    /// Reads a range of an object in blocks, so that what becomes of the request counts as a sign of its source's health.
    /// What is late, as this source goes, is asked for a second time, within a small budget.
    ///
    /// # Errors
    /// The request failed, gave no answer within `deadline`, or was refused at once because the source is away.
    pub async fn read(
        &self,
        source: SourceId,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u32,
        deadline: Duration,
    ) -> Result<Presence<Vec<Bytes>>, IndexError> {
        let source = self.source(source)?;
        let kind = RequestKind::of_read(range.end.saturating_sub(range.start));
        let request = || Some(source.backend.read_blocks(path, version, range.clone(), block_size));
        source.ask(path, kind, deadline, request, &self.runtime).await
    }

    /// Tells whether a source is known not to answer now.
    pub fn is_away(&self, id: SourceId) -> bool {
        self.sources
            .read()
            .get(&id)
            .is_none_or(|source| source.away().is_some())
    }

    /// Says that a source cannot be reached, if it has shown that: one that is only silent has not. For those whose own request
    /// was not answered in time.
    pub fn out_of_reach(&self, id: SourceId) -> Option<IndexError> {
        self.sources.read().get(&id)?.out_of_reach()
    }

    /// Makes another request for somebody who waits for an object, so that what becomes of it counts as a sign of its
    /// source's health.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn ask<T>(
        &self,
        source: SourceId,
        path: &ObjectPath,
        deadline: Duration,
        request: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, IndexError> {
        let mut once = Some(request);
        let kind = RequestKind::Look;
        let source = self.source(source)?;
        source.ask(path, kind, deadline, || once.take(), &self.runtime).await
    }

    /// Makes a request that brings bytes to a source, behind everybody who waits for it: when the source is well, and without a
    /// deadline. Dropping it ends it. `is_answer` tells of what it comes to whether the source has said anything.
    ///
    /// # Errors
    /// The request failed, or the source is not connected, or not any more.
    pub async fn upload<T>(
        &self,
        source: SourceId,
        request: impl Future<Output = manifold_backends::Result<T>>,
        is_answer: impl FnOnce(&T) -> bool,
    ) -> Result<T, IndexError> {
        let source = self.source(source)?;
        source.upload(request, is_answer, &self.runtime).await
    }

    /// Ends all that is under way, and waits for it. Scans go on where they stood when the source is attached again.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts or joins the listing of a directory, and tells whether it starts now.
    pub(crate) fn listing_of(self: &Arc<Self>, directory: EntryId) -> (Waiter, bool) {
        let mut starts = false;
        let waiter = self.flights.join_or_start(directory, |landing| {
            starts = true;
            let indexer = Arc::clone(self);
            let listing = async move { landing.land(indexer.list_in_front(directory).await) };
            self.tasks.spawn_on(listing, &self.runtime);
        });
        (waiter, starts)
    }

    async fn list_in_front(self: &Arc<Self>, directory: EntryId) -> Outcome {
        if let Some(entry) = self.catalog.entry(directory)? {
            tokio::select! {
                () = self.until_connected(entry.source) => {}
                () = self.cancel.cancelled() => return Err(IndexError::Stopped),
            }
        }
        let Some(target) = self.target(directory)? else {
            return Ok(());
        };
        let cancelled = target.source.cancel.clone();
        let listed = async {
            let _turn = target.source.foreground_turn().await?;
            self.list(&target).await
        };
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(IndexError::Stopped),
            result = listed => result,
        };
        let outcome = self.conclude(&target, result).await;
        if let Err(error) = &outcome
            && error.is_failure_of_directory()
        {
            self.note_failure(&target, error).await?;
            target.source.scan_again(directory);
            if error.is_about_source() {
                target.source.failure_was_noted();
            }
        }
        outcome
    }

    /// Lists a directory of its source and gives the catalog what it holds. The caller has a turn.
    pub(crate) async fn list(self: &Arc<Self>, target: &Target) -> Result<Presence<()>, IndexError> {
        self.list_as(target, Purpose::Show).await
    }

    async fn list_as(self: &Arc<Self>, target: &Target, purpose: Purpose) -> Result<Presence<()>, IndexError> {
        target.may_be_listed()?;
        self.cover(target).await;
        let mut tries = Tries::begin();
        let mut moved = None;
        loop {
            let target = moved.as_ref().unwrap_or(target);
            let result = self.list_once(target, purpose).await;
            if !matches!(result, Err(IndexError::Overtaken(_))) {
                return result;
            }
            if !tries.again().await {
                let directory = target.directory;
                self.blocking(move |catalog| Ok(catalog.note_stale(directory)?)).await?;
                return result;
            }
            moved = self.target(target.directory)?;
        }
    }

    async fn list_once(self: &Arc<Self>, target: &Target, purpose: Purpose) -> Result<Presence<()>, IndexError> {
        let scan = target.source.generation();
        let directory = target.directory;
        if purpose == Purpose::Show && self.catalog.move_above(directory)?.is_some() {
            let listed_ns = self.clock.now_ns();
            let pass_over = move |catalog: &Catalog| Ok(catalog.pass_over_moving(directory, listed_ns, scan)?);
            if self.blocking(pass_over).await? {
                return Ok(Presence::Found(()));
            }
        }
        self.settle_crossings_to(target).await?;
        let mut ticket = self.catalog.ticket().by_path(target.path.as_bytes());
        if purpose == Purpose::Move {
            ticket = ticket.of_move();
        }
        let before_ns = self
            .catalog
            .directory_state(directory)?
            .and_then(|state| state.listed_ns);
        let listed_ns = self.clock.now_ns();
        let idle = self.settings.listing_idle_timeout;
        let children = match listing::read(&target.source, &target.path, idle).await? {
            Presence::Found(children) => children,
            // It stays for the sake of what is to be uploaded to it, and holds nothing else.
            Presence::Absent if purpose == Purpose::Move => Vec::new(),
            Presence::Absent if !target.path.is_root() && self.catalog.leads_to_staged(target.directory)? => Vec::new(),
            Presence::Absent => return Ok(Presence::Absent),
        };
        let taken = Taken {
            listed_ns,
            scan,
            ticket,
        };
        let links = listing::links(&target.source, &children);
        self.reconcile(target, children, taken).await?;
        if !links.is_empty() {
            self.learn_links(target, links, before_ns).await?;
        }
        if target.path.is_root() {
            self.look_at_root(&target.source, target.directory).await;
        }
        Ok(Presence::Found(()))
    }

    /// Draws the conclusion for the source, and for a directory that is not there, from its parent.
    pub(crate) async fn conclude(
        self: &Arc<Self>,
        target: &Target,
        result: Result<Presence<()>, IndexError>,
    ) -> Outcome {
        let outcome = match result {
            Ok(Presence::Found(())) => Ok(()),
            Ok(Presence::Absent) if target.path.is_root() => Err(target.root_missing()),
            Ok(Presence::Absent) => match self.list_parent_of(target).await? {
                Presence::Absent => Err(IndexError::NotFound(target.directory.0)),
                Presence::Found(()) => Err(IndexError::Odd {
                    source_name: target.source.backend.name().to_owned(),
                    path: target.path.to_string(),
                    reason: "its parent holds it, but it is not there itself".to_owned(),
                }),
            },
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(()) | Err(IndexError::NotFound(_)) => target.source.answered(),
            Err(error) => target.source.failed(error, &self.runtime),
        }
        outcome
    }

    /// Notes in the catalog that a directory could not be listed.
    pub(crate) async fn note_failure(&self, target: &Target, error: &IndexError) -> Outcome {
        let (directory, message, at_ns) = (target.directory, error.to_string(), self.clock.now_ns());
        tracing::debug!(
            directory = directory.0,
            error = message,
            "a directory could not be listed"
        );
        match self
            .blocking(move |catalog| Ok(catalog.note_failure(directory, &message, at_ns)?))
            .await
        {
            Err(IndexError::NotFound(_)) => Ok(()), // It went meanwhile, and its state with it.
            noted => noted,
        }
    }

    /// Lists the parent of what the source says is not there, and tells whether the catalog still has it there.
    async fn list_parent_of(self: &Arc<Self>, target: &Target) -> Result<Presence<()>, IndexError> {
        // The first may join a listing that began before the object went; the second cannot.
        for _ in 0..2 {
            self.list_now(target.parent).await?;
            let now = self.catalog.entry(target.directory)?;
            if now.is_none_or(|now| now.parent != target.parent) || self.catalog.tree_path(target.directory)?.is_none()
            {
                return Ok(Presence::Absent);
            }
        }
        Ok(Presence::Found(()))
    }

    fn is_stale(&self, directory: EntryId, max_age: Duration) -> Result<bool, IndexError> {
        let Some(state) = self.catalog.directory_state(directory)? else {
            return Ok(false);
        };
        let now = self.clock.now_ns();
        // A time to come was written under another clock, and says nothing.
        let is_recent = |at_ns: i64| {
            now.checked_sub(at_ns)
                .is_some_and(|age| (0..max_age.as_nanos() as i64).contains(&age))
        };
        let is_known =
            state.listed_ns.is_some_and(is_recent) || state.failure.is_some_and(|failure| is_recent(failure.at_ns));
        if is_known || self.flights.is_under_way(directory) {
            return Ok(false);
        }
        Ok(self
            .target(directory)?
            .is_some_and(|target| target.source.away().is_none()))
    }

    /// Finds where an entry is, as [`target`](Self::target) does; `None` also where it has left the tree meanwhile.
    pub(crate) fn target_still(&self, id: EntryId) -> Result<Option<Target>, IndexError> {
        match self.target(id) {
            Err(IndexError::NotFound(_)) => Ok(None),
            found => found,
        }
    }

    /// Finds where an entry is; `None` for the library's own directories, which no source holds.
    pub(crate) fn target(&self, id: EntryId) -> Result<Option<Target>, IndexError> {
        let entry = self.catalog.entry(id)?.ok_or(IndexError::NotFound(id.0))?;
        if entry.source == SourceId::LIBRARY {
            return Ok(None);
        }
        let (source, path) = self.catalog.object_path(id)?.ok_or(IndexError::NotFound(id.0))?;
        let source = self.source(source)?;
        let path = ObjectPath::from_bytes(path);
        Ok(Some(Target {
            directory: id,
            parent: entry.parent,
            kind: entry.kind,
            source,
            path,
        }))
    }

    pub(crate) fn source(&self, id: SourceId) -> Result<Arc<Source>, IndexError> {
        if self.cancel.is_cancelled() {
            return Err(IndexError::Stopped);
        }
        self.sources
            .read()
            .get(&id)
            .map(Arc::clone)
            .ok_or_else(|| self.why_not_connected(id))
    }

    pub(crate) fn stopping(&self) -> CancellationToken {
        self.cancel.clone()
    }

    pub(crate) fn attached(&self) -> Vec<Arc<Source>> {
        self.sources.read().values().map(Arc::clone).collect()
    }

    pub(crate) fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn open_probe(&self) -> OpenProbe {
        Arc::clone(&self.open_probe.read())
    }

    /// Does what may wait for the catalog's writer, on one of the threads for that.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Catalog) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let calls = Arc::clone(&self.catalog_calls);
        let turn = calls.acquire_owned().await.map_err(|_| IndexError::Stopped)?;
        self.blocking_for_long(move |catalog| {
            // Kept until the work is done, whatever becomes of who asked for it.
            let _turn = turn;
            work(catalog)
        })
        .await
    }

    /// Does what also waits for others, and must not keep them from their turn, on a thread of its own.
    pub(crate) async fn blocking_for_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Catalog) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let catalog = Arc::clone(&self.catalog);
        // The tracker lets `stop` wait for it, even if the task that asked is gone.
        let done = self
            .tasks
            .spawn_blocking_on(move || work(&catalog), &self.runtime)
            .await;
        done.unwrap_or(Err(IndexError::Stopped))
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        // Those who follow a source hold nothing of the indexer, and wait for ever.
        self.cancel.cancel();
    }
}

impl Target {
    fn root_missing(&self) -> IndexError {
        IndexError::RootMissing {
            source_name: self.source.backend.name().to_owned(),
        }
    }

    /// Refuses what is no directory, what is kept out, and names that would lead a file system in circles.
    fn may_be_listed(&self) -> Result<(), IndexError> {
        if self.kind != Kind::Directory {
            return Err(IndexError::NotADirectory(self.directory.0));
        }
        let source_name = || self.source.backend.name().to_owned();
        if self.source.skip.contains(&self.path) {
            return Err(IndexError::Skipped {
                source_name: source_name(),
                path: self.path.to_string(),
            });
        }
        let names_are_keys = self.source.backend.capabilities().implicit_directories;
        let leads_in_circles = |part: &[u8]| matches!(part, b"" | b"." | b"..");
        if !names_are_keys
            && !self.path.is_root()
            && self.path.as_bytes().split(|&byte| byte == b'/').any(leads_in_circles)
        {
            let why = "the path holds a part that a file system gives another meaning";
            return Err(Error::new(
                ErrorKind::BadPath,
                Operation::List,
                source_name(),
                self.path.clone(),
                why,
            )
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use manifold_catalog::Options;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_wait_for_the_catalog_there_are_only_so_many_threads_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(&folder.path().join("catalog"), Options::default()).expect("a catalog");
        let (settings, clock) = (IndexSettings::default(), Arc::new(|| 0_i64));
        let indexer = Indexer::new(Arc::new(catalog), Handle::current(), settings, clock);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // As many as there may be meet each other; one more would be counted.
        let all_there = Arc::new(Barrier::new(CATALOG_CALLS_MAX));
        let calls = (0..CATALOG_CALLS_MAX * 8).map(|_| {
            let (now, most, all_there) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&all_there));
            indexer.blocking(move |_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all_there.wait();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        for called in join_all(calls).await {
            called.expect("it is called");
        }
        assert_eq!(most.load(Ordering::SeqCst), CATALOG_CALLS_MAX);
    }
}
