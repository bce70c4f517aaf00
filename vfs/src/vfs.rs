//! The file system's own interface, which serves two kernels: names are bytes, handles are opaque, changes leave as events.
//!
//! A request that the catalog or memory can answer is answered at once. Only a directory that was never listed, a link's target and bytes that
//! are not cached are asked of a source, within a deadline. Always true: what is not known is never answered as not there.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use manifold_backends::{ObjectPath, Presence};
use manifold_catalog::{Catalog, Change, Entry, EntryId, Kind, SourceId, Subscription};
use manifold_index::Indexer;
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle as Runtime;

use crate::attributes::{Attributes, FilesystemTotals, NameMatch};
use crate::cache::{BlockCache, DiskSettings};
use crate::counters::{Counters, Tally};
use crate::directory::{Cursor, Directories, DirectoryHandle, DirectoryItem};
use crate::error::Cause;
use crate::events::{EventStream, Publisher, events_of};
use crate::fetch::Fetcher;
use crate::handle::{Access, Handle, OpenFiles, Opened};
use crate::{Answer, Error, Settings};

/// The longest name, in bytes.
const NAME_MAX: usize = 255;
/// How many targets of symbolic links are remembered.
const LINKS_MAX: u64 = 4_096;
/// How often one directory is looked at for being out of date, at most.
const STALE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long the thread that passes on changes may take to notice that it is to end.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How many changes are passed on at once.
const BATCH_MAX: usize = 1_024;

/// One file system over all sources of a library, for reading.
#[derive(Debug)]
pub struct Vfs {
    core: Arc<Core>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// One version of a symbolic link.
type LinkVersion = (EntryId, Box<[u8]>);
/// A stored name, and what stands under it.
type Named = (Box<[u8]>, Attributes);

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
    /// How many handles read ahead now.
    pub(crate) windows: AtomicU64,
    /// The limit of the memory tier, in bytes.
    pub(crate) memory_for_blocks: u64,
    directories: Directories,
    links: Cache<LinkVersion, Arc<[u8]>>,
    refresh: RwLock<HashMap<SourceId, Duration>>,
    checked: Mutex<Option<(EntryId, Instant)>>,
    publisher: Publisher,
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
        // written to disk; the rest is for answers on their way to the kernel.
        let memory_for_blocks = settings.memory_bytes / 2;
        let disk = settings.cache_directory.as_deref().map(|folder| DiskSettings {
            folder,
            limit: settings.cache_bytes,
            queue_max: settings.memory_bytes / 8,
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
        indexer.set_open_probe({
            let files = Arc::clone(&files);
            Arc::new(move |id| files.is_open(id))
        });
        let changes = catalog.subscribe();
        let core = Arc::new(Core {
            catalog,
            indexer,
            settings,
            runtime,
            cache,
            fetcher,
            tally,
            files,
            windows: AtomicU64::new(0),
            memory_for_blocks,
            directories: Directories::default(),
            links: Cache::new(LINKS_MAX),
            refresh: RwLock::default(),
            checked: Mutex::new(None),
            publisher: Publisher::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("manifold-events".to_owned());
        let watcher = thread.spawn({
            let (core, stop) = (Arc::clone(&core), Arc::clone(&stop));
            move || core.watch(&changes, &stop)
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
        Answer::Ready(self.core.attributes(id, handle))
    }

    /// Opens a directory. One that was never listed is listed first; what may be out of date is listed again behind the answer.
    pub fn open_directory(&self, id: EntryId) -> Answer<DirectoryHandle> {
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
        self.core.directories.read(&self.core.catalog, handle, cursor, each)
    }

    /// Closes a directory.
    pub fn release_directory(&self, handle: DirectoryHandle) {
        self.core.directories.release(handle);
    }

    /// Opens a file. No source is asked.
    pub fn open(&self, id: EntryId, access: Access) -> Answer<Opened> {
        self.core.open(id, access)
    }

    /// Reads from an open file: one contiguous slice, short only at the end of the file.
    pub fn read(&self, handle: Handle, offset: u64, length: u32) -> Answer<Bytes> {
        self.core.read(handle, offset, length)
    }

    /// Ends one descriptor's use of a handle, which stays open until it is released.
    pub fn flush(&self, handle: Handle) -> Answer<()> {
        Answer::Ready(self.core.files.get(handle).map(drop).ok_or(Error::BadHandle))
    }

    /// Closes a file.
    pub fn release(&self, handle: Handle) {
        self.core.release(handle);
    }

    /// Reads where a symbolic link points.
    pub fn read_link(&self, id: EntryId) -> Answer<Vec<u8>> {
        self.core.read_link(id)
    }

    /// Gives the size of the whole file system, as the catalog knows it.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn statfs(&self) -> Result<FilesystemTotals, Error> {
        let all = self.core.catalog.totals().map_err(Error::from_catalog)?.all;
        Ok(FilesystemTotals {
            entries: all.entries,
            bytes: all.bytes,
        })
    }

    /// Subscribes to what a kernel must be told from now on.
    pub fn subscribe(&self) -> EventStream {
        self.core.publisher.subscribe()
    }

    /// Gives the block cache, to be shown, cleared and verified.
    pub fn cache(&self) -> &BlockCache {
        &self.core.cache
    }

    /// Gives a picture of all counts.
    pub fn counters(&self) -> Counters {
        self.core.tally.picture()
    }

    /// Sets after how long listings of one source count as stale.
    pub fn set_refresh(&self, source: SourceId, after: Duration) {
        self.core.refresh.write().insert(source, after);
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.core.publisher.close();
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::error!("the thread that passes on changes has panicked");
        }
    }
}

impl Core {
    /// Looks a name up in what is known. `None`: the directory was never listed, so nobody can tell.
    fn lookup_known(self: &Arc<Self>, parent: EntryId, name: &[u8], how: NameMatch) -> Result<Option<Named>, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return Err(Error::InvalidArgument);
        }
        let found = match how {
            NameMatch::Exact => self.catalog.lookup(parent, name),
            NameMatch::Fold => self.catalog.lookup_folded(parent, name),
        };
        if let Some(entry) = found.map_err(Error::from_catalog)? {
            self.refresh_behind(parent, entry.source);
            let attributes = attributes_of(&self.catalog, &entry)?;
            return Ok(Some((entry.name, attributes)));
        }
        if self.is_listed(parent)? {
            Err(Error::NotFound)
        } else {
            Ok(None)
        }
    }

    /// Tells whether a directory has been listed completely, and has it listed again behind that if it may be out of date.
    fn is_listed(self: &Arc<Self>, id: EntryId) -> Result<bool, Error> {
        let entry = self
            .catalog
            .entry(id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        if entry.kind != Kind::Directory {
            return Err(Error::NotADirectory);
        }
        if entry.source == SourceId::LIBRARY {
            return Ok(true);
        }
        let state = self.catalog.directory_state(id).map_err(Error::from_catalog)?;
        let is_listed = state.is_some_and(|it| it.listed_ns.is_some());
        if is_listed {
            self.refresh_behind(id, entry.source);
        }
        Ok(is_listed)
    }

    /// Lists a directory now, within the deadline.
    async fn list(self: &Arc<Self>, directory: EntryId) -> Result<(), Error> {
        let deadline = self.settings.metadata_deadline;
        if let Ok(listed) = tokio::time::timeout(deadline, self.indexer.list_now(directory)).await {
            return listed.map_err(Error::from_index);
        }
        let path = self
            .catalog
            .tree_path(directory)
            .map_err(Error::from_catalog)?
            .unwrap_or_default();
        let (path, after) = (path.escape_ascii(), deadline.as_secs_f32());
        Err(Error::TimedOut(Cause::new(format!(
            "list {path}: no answer within {after} s"
        ))))
    }

    /// Has a directory listed again in the background if what is known of it is stale.
    pub(crate) fn refresh_behind(&self, directory: EntryId, source: SourceId) {
        if source == SourceId::LIBRARY {
            return;
        }
        let now = Instant::now();
        {
            let mut checked = self.checked.lock();
            if checked.is_some_and(|(id, at)| id == directory && now < at + STALE_CHECK_EVERY) {
                return;
            }
            *checked = Some((directory, now));
        }
        let after = self
            .refresh
            .read()
            .get(&source)
            .copied()
            .unwrap_or(self.settings.refresh);
        self.indexer.refresh_directory_if_stale(directory, after);
    }

    fn attributes(&self, id: EntryId, handle: Option<Handle>) -> Result<Attributes, Error> {
        if let Some(handle) = handle
            && self.files.get(handle).is_none()
        {
            return Err(Error::BadHandle);
        }
        match self.catalog.entry(id).map_err(Error::from_catalog)? {
            Some(entry) => attributes_of(&self.catalog, &entry),
            // Replaced or removed, but open: as it was.
            None => self.files.attributes(id).ok_or(Error::Stale),
        }
    }

    fn read_link(self: &Arc<Self>, id: EntryId) -> Answer<Vec<u8>> {
        let known = || -> Result<_, Error> {
            let entry = self
                .catalog
                .entry(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?;
            if entry.kind != Kind::Symlink {
                return Err(Error::InvalidArgument);
            }
            let details = self
                .catalog
                .details(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?;
            Ok((entry.source, details.version))
        };
        let (source, version) = match known() {
            Ok(known) => known,
            Err(error) => return Answer::err(error),
        };
        let key = (id, version);
        if let Some(target) = self.links.get(&key) {
            return Answer::ok(target.to_vec());
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let backend = core.indexer.backend(source);
            let backend =
                backend.ok_or_else(|| Error::Unreachable(Cause::new(format!("source {source} is not connected"))))?;
            let path = core
                .catalog
                .object_path(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?
                .1;
            let path = ObjectPath::from_bytes(path);
            let deadline = core.settings.metadata_deadline;
            match tokio::time::timeout(deadline, backend.read_link(&path)).await {
                Err(_) => {
                    let (name, after) = (backend.name(), deadline.as_secs_f32());
                    Err(Error::TimedOut(Cause::new(format!(
                        "read link {path} on {name}: no answer within {after} s"
                    ))))
                }
                Ok(Err(error)) => Err(Error::from_backend(&Arc::new(error))),
                Ok(Ok(Presence::Absent)) => Err(Error::NotFound),
                Ok(Ok(Presence::Found(target))) => {
                    core.links.insert(key, target.as_slice().into());
                    Ok(target)
                }
            }
        }))
    }

    /// Passes on the catalog's changes, until told to stop.
    fn watch(&self, changes: &Subscription, stop: &AtomicBool) {
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) && !changes.is_closed() {
            let mut next = changes.recv_timeout(WATCH_EVERY);
            while let Some(change) = next {
                self.forget_versions(&change);
                events_of(&change, &mut events);
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
        }
        self.publisher.close();
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

/// Makes attributes of a row; a device's number stands in the other one.
pub(crate) fn attributes_of(catalog: &Catalog, entry: &Entry) -> Result<Attributes, Error> {
    let attributes = Attributes::of(entry);
    if !matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        return Ok(attributes);
    }
    let details = catalog.details(entry.id).map_err(Error::from_catalog)?;
    Ok(details.map_or(attributes.clone(), |details| attributes.with(&details)))
}
