//! The file system's own interface, which serves two kernels: names are bytes, handles are opaque, changes leave as events.
//!
//! A request that the catalog or memory can answer is answered at once. Only a directory that was never listed, a link's target that no listing has
//! brought and bytes that are not cached are asked of a source, within a deadline. Always true: what is not known is never answered as not there.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use manifold_backends::local::Space;
use manifold_catalog::{Catalog, Change, EntryId, SourceId, Subscription};
use manifold_index::{Clock, Indexer};
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle as Runtime;

use crate::attributes::{Attributes, FilesystemTotals, NameMatch};
use crate::cache::{BlockCache, DiskSettings};
use crate::change::OwnChanges;
use crate::change::follow::Gone;
use crate::counters::{Counters, Tally};
use crate::directory::{Cursor, Directories, DirectoryHandle, DirectoryItem};
use crate::error::Cause;
use crate::events::{Event, EventStream, Publisher, events_of};
use crate::fetch::{Fetcher, Waiting};
use crate::handle::{Access, Handle, OpenFile, OpenFiles, Opened};
use crate::hash::Hasher;
use crate::moves::Moves;
use crate::pins::{PinReport, Pins};
use crate::recent::Recent;
use crate::union::Unions;
use crate::upload::Uploads;
use crate::{Answer, Error, Settings, look};

/// How long fetching waits for a disk cache that is slower than the source. The disk's own pauses, when it writes back what
/// it has in memory, are of this length.
const DISK_PATIENCE: Duration = Duration::from_millis(250);
/// How many targets of symbolic links in folders of this machine are remembered; the catalog has the others.
const LINKS_MAX: u64 = 4_096;
/// How long the thread that passes on changes may take to notice that it is to end.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How many changes are passed on at once.
const BATCH_MAX: usize = 1_024;

/// How many entries are remembered that have lost their names through the mount: some process may still stand in them.
const GONE_MAX: u64 = 4_096;
/// How many files are remembered that had several names when they were to go to another folder of this machine.
const LINKED_MAX: u64 = 16_384;

/// One file system over all sources of a library.
#[derive(Debug)]
pub struct Vfs {
    pub(crate) core: Arc<Core>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// One version of a symbolic link.
type LinkVersion = (EntryId, Box<[u8]>);

/// A file of one source, whatever its names.
type FileIdentity = (SourceId, [u8; 16]);

/// A lock for each folder of this machine; see [`Core::paths`].
pub(crate) type Paths = Mutex<HashMap<SourceId, Arc<RwLock<()>>>>;

/// What all requests share.
pub(crate) struct Core {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) indexer: Arc<Indexer>,
    pub(crate) settings: Settings,
    pub(crate) runtime: Runtime,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) files: Arc<OpenFiles>,
    /// `None`: nothing is hashed.
    pub(crate) hasher: Option<Hasher>,
    /// How many handles read ahead now.
    pub(crate) windows: AtomicU64,
    /// The limit of the memory tier, in bytes.
    pub(crate) memory_for_blocks: u64,
    pub(crate) directories: Directories,
    /// Targets of links in folders of this machine.
    pub(crate) links: Cache<LinkVersion, Arc<[u8]>>,
    pub(crate) refresh: RwLock<HashMap<SourceId, Duration>>,
    /// Sources in which nothing is changed.
    pub(crate) read_only: Arc<RwLock<HashSet<SourceId>>>,
    /// Held while a path of a folder of this machine is used that was made from the catalog, so that no name changes on the
    /// way; alone by whoever changes names there.
    pub(crate) paths: Arc<Paths>,
    /// What entries were like that have lost their names through the mount.
    pub(crate) gone: Cache<EntryId, Gone>,
    /// Files that had several names when they were to be renamed to another folder of this machine.
    pub(crate) linked: Cache<FileIdentity, ()>,
    /// Who owns what has no owner, as it is shown: user and group.
    pub(crate) owner: RwLock<(u32, u32)>,
    /// Changes of the catalog of which the kernel is not told.
    pub(crate) own: OwnChanges,
    pub(crate) checked: Mutex<Option<(EntryId, Instant)>>,
    pub(crate) pins: Pins,
    pub(crate) recent: Recent,
    pub(crate) unions: Unions,
    /// The room of disks, as last known: what `df` shows does not depend on whether they are there.
    pub(crate) spaces: Mutex<HashMap<SourceId, Space>>,
    changes: Subscription,
    pub(crate) publisher: Arc<Publisher>,
    /// Unset: nothing of a remote source can be written.
    pub(crate) uploads: OnceLock<Arc<Uploads>>,
    /// Set with the uploads.
    pub(crate) moves: OnceLock<Arc<Moves>>,
}

impl Vfs {
    /// Starts the file system of a library. A disk cache that cannot be used is left out.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn new(
        catalog: Arc<Catalog>,
        indexer: Arc<Indexer>,
        settings: Settings,
        runtime: Runtime,
    ) -> Result<Arc<Self>, Error> {
        let tally = Arc::new(Tally::default());
        // One budget: half for blocks that are kept, a quarter for requests under way, an eighth for what waits to be
        // written to disk, a sixteenth for what is pinned and on its way there; the rest is for answers on their way to
        // the kernel.
        let memory_for_blocks = settings.memory_bytes / 2;
        let disk = settings.cache_directory.as_deref().map(|folder| DiskSettings {
            folder,
            limit: settings.cache_bytes,
            pinned_limit: settings.pinned_bytes,
            backlog_max: settings.memory_bytes / 8,
            patience: DISK_PATIENCE,
        });
        let cache = Arc::new(BlockCache::start(memory_for_blocks, disk, &tally));
        let fetcher = Fetcher::new(
            Arc::clone(&cache),
            Arc::clone(&catalog),
            Arc::clone(&indexer),
            runtime.clone(),
            Arc::clone(&tally),
            settings.memory_bytes / 4,
            settings.data_deadline,
        );
        let files = Arc::new(OpenFiles::default());
        let may_hash = settings.hash_cached && settings.cache_directory.is_some();
        let hasher = may_hash
            .then(|| Hasher::start(Arc::clone(&catalog), Arc::clone(&cache), Arc::clone(&tally)))
            .transpose()
            .map_err(|error| Error::Io(Cause::new(error)))?;
        indexer.set_open_probe({
            let (files, indexer) = (Arc::clone(&files), Arc::downgrade(&indexer));
            Arc::new(move |changed| {
                let is_local = || {
                    let backend = indexer.upgrade().and_then(|indexer| indexer.backend(changed.source));
                    backend.is_some_and(|backend| backend.as_local().is_some())
                };
                files.is_open(changed.id) && !(changed.same_object && is_local())
            })
        });
        let changes = catalog.subscribe();
        let pins = Pins::new(settings.memory_bytes / 16);
        let core = Arc::new(Core {
            catalog,
            indexer,
            settings,
            runtime,
            cache,
            fetcher,
            tally,
            files,
            hasher,
            windows: AtomicU64::new(0),
            memory_for_blocks,
            directories: Directories::default(),
            links: Cache::new(LINKS_MAX),
            refresh: RwLock::default(),
            read_only: Arc::default(),
            paths: Arc::default(),
            gone: Cache::new(GONE_MAX),
            linked: Cache::new(LINKED_MAX),
            owner: RwLock::default(),
            own: OwnChanges::default(),
            checked: Mutex::new(None),
            pins,
            recent: Recent::default(),
            unions: Unions::default(),
            spaces: Mutex::default(),
            changes,
            publisher: Arc::default(),
            uploads: OnceLock::new(),
            moves: OnceLock::new(),
        });
        core.resume_before_listings();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("manifold-events".to_owned());
        let watcher = thread.spawn({
            let (core, stop) = (Arc::clone(&core), Arc::clone(&stop));
            move || core.watch(&stop)
        });
        let watcher = watcher.map_err(|error| Error::Io(Cause::new(error)))?;
        Ok(Arc::new(Self {
            core,
            stop,
            watcher: Some(watcher),
        }))
    }

    /// Finds a name in a directory, and gives the stored name with the attributes.
    pub fn lookup(&self, parent: EntryId, name: &[u8], how: NameMatch) -> Answer<(Box<[u8]>, Attributes)> {
        match self.core.merged(parent) {
            Ok(None) => {}
            Ok(Some(_)) => return self.core.lookup_joined(parent, name, how),
            Err(error) => return Answer::err(error),
        }
        match self.core.lookup_known(parent, name, how) {
            Ok(Some(found)) => Answer::ok(found),
            Err(error) => Answer::err(error),
            Ok(None) => {
                let (core, name) = (Arc::clone(&self.core), Box::<[u8]>::from(name));
                Answer::Pending(Box::pin(async move {
                    core.list(parent).await?;
                    core.lookup_known(parent, &name, how)?.ok_or(Error::NotFound)
                }))
            }
        }
    }

    /// Gives an entry's attributes: as the catalog has them, or as they were when `handle` was opened.
    pub fn attributes(&self, id: EntryId, handle: Option<Handle>) -> Answer<Attributes> {
        match self.core.merged(id) {
            Ok(Some(merged)) => Answer::Ready(self.core.attributes_of_merged(&merged)),
            Ok(None) => Answer::Ready(self.core.attributes(id, handle)),
            Err(error) => Answer::err(error),
        }
    }

    /// Opens a directory. One that was never listed is listed first; what may be out of date is listed again behind the answer.
    pub fn open_directory(&self, id: EntryId) -> Answer<DirectoryHandle> {
        match self.core.merged(id) {
            Ok(None) => {}
            Ok(Some(_)) => {
                let core = Arc::clone(&self.core);
                let listed = self.core.while_wanted(async move { core.list_parts(id).await });
                let core = Arc::clone(&self.core);
                // Not before somebody takes it: a handle that nobody knows would never be closed.
                return listed.map(move |merged| core.directories.open(merged.id));
            }
            Err(error) => return Answer::err(error),
        }
        match self.core.is_listed(id) {
            Err(error) => Answer::err(error),
            Ok(true) => Answer::ok(self.core.directories.open(id)),
            Ok(false) => {
                let core = Arc::clone(&self.core);
                Answer::Pending(Box::pin(async move {
                    core.list(id).await?;
                    Ok(core.directories.open(id))
                }))
            }
        }
    }

    /// Reads a directory from a place on, until its end or until `each` breaks. The item at which it breaks counts as not
    /// taken. `.` and `..` are not among them.
    ///
    /// # Errors
    /// [`Error::BadHandle`], or the catalog failed.
    pub fn read_directory(
        &self,
        handle: DirectoryHandle,
        cursor: Cursor<'_>,
        each: &mut dyn FnMut(DirectoryItem<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.core.directories.read(&self.core, handle, cursor, each)
    }

    /// Closes a directory.
    pub fn release_directory(&self, handle: DirectoryHandle) {
        self.core.directories.release(handle);
    }

    /// Opens a file. No source is asked but the disks of this machine.
    pub fn open(&self, id: EntryId, access: Access) -> Answer<Opened> {
        self.core.open(id, access)
    }

    /// Reads from an open file: one contiguous slice, short only at the end of the file.
    pub fn read(&self, handle: Handle, offset: u64, length: u32) -> Answer<Bytes> {
        self.core.read(handle, offset, length)
    }

    /// Ends one descriptor's use of a handle, which stays open until it is released. What was written can be seen by
    /// whoever looks from now on.
    pub fn flush(&self, handle: Handle) -> Answer<()> {
        match self.core.files.get(handle).as_deref() {
            Some(OpenFile::Local(id, source, file)) => self.core.learn_at_close(*id, *source, file),
            Some(OpenFile::Object(_)) => self.core.remote_flush(handle),
            Some(OpenFile::Kernels(..)) => Answer::ok(()),
            None => Answer::err(Error::BadHandle),
        }
    }

    /// Tells that the kernel has taken the [`Backing::File`](crate::Backing::File) of a handle and reads it by itself, so
    /// that no descriptor of ours is needed for it. The handle stays open; it cannot be read from any more.
    pub fn leave_to_kernel(&self, handle: Handle) {
        self.core.files.leave_to_kernel(handle);
    }

    /// Closes a file.
    pub fn release(&self, handle: Handle) {
        self.core.release(handle);
    }

    /// Reads where a symbolic link points.
    pub fn read_link(&self, id: EntryId) -> Answer<Vec<u8>> {
        self.core.read_link(id)
    }

    /// Gives the size of what an entry belongs to (its source, its union, the whole library), as the catalog knows it, and the
    /// room that there is for what would be made there. No source is asked but a disk of this machine that does not hang.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn statfs(&self, id: EntryId) -> Result<FilesystemTotals, Error> {
        self.core.totals_at(id)
    }

    /// Subscribes to what a kernel must be told from now on.
    pub fn subscribe(&self) -> EventStream {
        self.core.publisher.subscribe()
    }

    /// Waits until all that has changed so far has been handed to those who are subscribed, but no longer than `patience`.
    pub fn settle(&self, patience: Duration) {
        self.core.changes.wait_for_acknowledgement(patience);
    }

    /// Tells whether all that has changed, as far as anybody can have seen it, has been handed to those who are subscribed.
    pub fn is_settled(&self) -> bool {
        self.core.changes.is_acknowledged()
    }

    /// Gives the block cache, to be shown, cleared and verified.
    pub fn cache(&self) -> &BlockCache {
        &self.core.cache
    }

    /// Gives a picture of all counts.
    pub fn counters(&self) -> Counters {
        self.core.tally.picture()
    }

    /// Says what waits for its turn at each source, and at the disk cache.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.core.fetcher.waiting()
    }

    /// Keeps what is pinned on disk from now on, as the catalog says it. Without this nothing is fetched for pins, though what
    /// is there stays.
    pub fn keep_pins(&self, now: Arc<dyn Clock>) {
        let core = Arc::clone(&self.core);
        self.core.pins.start(&self.core.runtime, core.keep_pins(now));
    }

    /// Takes note that the catalog's pins have changed.
    pub fn pins_changed(&self) {
        self.core.pins.plan_anew();
    }

    /// Says how far keeping has come, after the last change of pins; waits a little for that to be known.
    pub async fn pins(&self) -> PinReport {
        self.core.pins.report().await
    }

    /// Says how far keeping had come when it was last looked at.
    pub fn pins_now(&self) -> PinReport {
        self.core.pins.latest()
    }

    /// Ends keeping. What was fetched stays.
    pub fn stop_keeping_pins(&self) {
        self.core.pins.stop();
    }

    /// Says who is shown to own what has no owner: user and group.
    pub fn set_owner(&self, owner: (u32, u32)) {
        *self.core.owner.write() = owner;
    }

    /// Sets after how long listings of one source count as stale.
    pub fn set_refresh(&self, source: SourceId, after: Duration) {
        self.core.refresh.write().insert(source, after);
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.core.pins.stop();
        self.core.publisher.close();
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::error!("the thread that passes on changes has panicked");
        }
    }
}

impl Core {
    /// Passes on the catalog's changes, until told to stop.
    fn watch(self: &Arc<Self>, stop: &AtomicBool) {
        let changes = &self.changes;
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) && !changes.is_closed() {
            self.keep_recent_fresh();
            let over = self.files.replaced_long_ago(Instant::now());
            if !over.is_empty() {
                self.runtime.spawn_blocking(move || drop(over));
            }
            let mut next = changes.recv_timeout(WATCH_EVERY);
            while let Some(change) = next {
                self.forget_versions(&change);
                self.pins.note(&change);
                if !self.own.is_own(&change) {
                    if let Change::Replaced { old, .. } = &change
                        && let Some(source) = self.files.source(*old)
                    {
                        self.files.replaced_beside(*old, source, None, Instant::now());
                    }
                    let first = events.len();
                    events_of(&change, &mut events);
                    self.tell_first_name(&change, &mut events);
                    self.as_shown(&mut events, first);
                }
                // An open file of this machine is read as it is on the disk, which the kernel's pages of it no longer are.
                if let Change::Replaced { old, .. } = &change
                    && self.files.is_open_local(*old)
                {
                    events.push(Event::Pages { id: *old });
                }
                next = if events.len() < BATCH_MAX {
                    changes.try_recv()
                } else {
                    None
                };
            }
            if !events.is_empty() {
                events.dedup();
                self.publisher.publish(&events);
                events.clear();
            }
            changes.acknowledge();
        }
        self.publisher.close();
    }

    /// Tells of a change of an object that is shown under the number of another of its names.
    fn tell_first_name(&self, change: &Change, events: &mut Vec<Event>) {
        let (Change::Attributes { id } | Change::Content { id }) = *change else {
            return;
        };
        // What cannot be looked up now is gone, and is told of as such.
        let Ok(Some(entry)) = self.catalog.entry(id) else {
            return;
        };
        if let Ok(first) = look::first_name(&self.catalog, &entry)
            && first != id
        {
            events.push(match change {
                Change::Content { .. } => Event::Pages { id: first },
                _ => Event::Attributes { id: first },
            });
        }
    }

    /// Pages of what changed are good no more.
    fn forget_versions(&self, change: &Change) {
        match change {
            Change::Content { id } | Change::Removed { id, .. } => self.files.forget_version(Some(*id)),
            Change::Replaced { old, .. } => self.files.forget_version(Some(*old)),
            Change::Overflow => self.files.forget_version(None),
            Change::Added { .. } | Change::Attributes { .. } | Change::Moved { .. } | Change::Directory { .. } => {}
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
