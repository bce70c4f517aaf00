//! Folders of this machine, read beneath their root with `openat2`.
//!
//! Always true here:
//! - nothing outside the root is reached, through no link and no `..`;
//! - a root that is gone, or that is not the folder that was added (the empty mount point of a disk that is not
//!   there), is an error and never an empty folder;
//! - named pipes, sockets and devices are described and never opened;
//! - the root is opened for each operation and not held between them, so that its disk can be unmounted;
//! - a change is made beneath the root as a look is, and what is made belongs to whoever asked for it;
//! - what lies on a file system that may hang is touched only on threads of the source's own, a few of them, which nobody
//!   else waits for.

mod asker;
mod attributes;
mod beneath;
mod file;
mod hazard;
mod held;
mod mounts;
mod names;
mod read;
mod root;
mod space;
mod walk;
mod watch;
mod workers;

use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::asker::Asker;
use self::beneath::Failure;
pub use self::file::LocalFile;
pub use self::file::writing::{Durable, Seek, WriteAt};
use self::hazard::Hazards;
pub use self::held::{AttributeChange, Held, NewTime, SetMode};
pub use self::mounts::{Mount, mount_of, mounts};
pub use self::names::{FileAccess, Made, Making, Place, Removed, RenameMode, Renamed};
use self::root::Root;
pub use self::root::RootId;
pub use self::space::Space;
use self::watch::{LocalWatch, Notifier};
use self::workers::{NoResult, Workers};
use crate::{
    Backend, Capabilities, Error, ErrorKind, Kind, Limits, Listing, Metadata, ObjectPath, Operation, Presence, Result,
    SourceSpec, Version, Watch,
};

const BLOCK_SIZE: u32 = 1024 * 1024;
const READ_SIZE_MAX: u32 = 4 * 1024 * 1024;
/// Enough to keep a disk's queue full; more only makes threads.
const CONCURRENCY: u32 = 16;

/// A folder of this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalBackend {
    folder: Arc<Folder>,
    capabilities: Arc<Capabilities>,
    threads: Arc<Threads>,
}

/// Where system calls run that may block. Those that may hang have threads apart from those that only take a while, so
/// that a network file system within a folder does not take the folder with it.
#[derive(Debug)]
struct Threads {
    blocking: Workers,
    hanging: Workers,
}

impl Threads {
    fn of(&self, may_hang: bool) -> &Workers {
        if may_hang { &self.hanging } else { &self.blocking }
    }
}

/// The folder itself: everything that is synchronous.
#[derive(Debug)]
struct Folder {
    name: String,
    root: Root,
    hazards: Hazards,
    /// Is told of changes, once somebody watches.
    notifier: OnceLock<Arc<Notifier>>,
}

impl LocalBackend {
    /// Opens a folder, which must be there, as a source. The path must be absolute.
    pub fn open(root: &Path) -> Result<Self> {
        let spec = SourceSpec::from_path(root, &std::collections::BTreeMap::new()).map_err(|error| {
            Error::new(
                ErrorKind::Settings,
                Operation::Connect,
                root.to_string_lossy(),
                ObjectPath::root(),
                error,
            )
        })?;
        let backend = Self::connect(&spec, &Limits::default())?;
        backend.folder.root_id()?;
        Ok(backend)
    }

    /// Builds the backend of a source that may not be there at present. Each operation looks for its root anew, and
    /// checks it against the setting `root_id`, or else against the first folder that was found there.
    pub fn connect(spec: &SourceSpec, limits: &Limits) -> Result<Self> {
        let bad = |why: String| {
            Error::new(
                ErrorKind::Settings,
                Operation::Connect,
                spec.name(),
                ObjectPath::root(),
                why,
            )
        };
        let path = spec
            .local_root()
            .ok_or_else(|| bad("not a folder of this machine".into()))?;
        let expected = match spec.setting("root_id") {
            Some(text) => Some(
                text.parse()
                    .map_err(|()| bad("bad value of the setting `root_id`".into()))?,
            ),
            None => None,
        };
        let block_size = limits.block_size.unwrap_or(BLOCK_SIZE);
        let concurrency = limits.concurrency.unwrap_or(CONCURRENCY).max(1);
        let capabilities = Capabilities {
            block_size,
            read_size_max: READ_SIZE_MAX.max(block_size),
            concurrency,
            posix_attributes: true,
            identities: true,
            implicit_directories: false,
            lists_may_be_cut: false,
            tells_minutes: false,
            writes: None,
        };
        Ok(Self {
            folder: Arc::new(Folder {
                name: spec.name().into(),
                root: Root::new(path.into(), expected),
                hazards: Hazards::new(path.into()),
                notifier: OnceLock::new(),
            }),
            capabilities: Arc::new(capabilities),
            threads: Arc::new(Threads {
                blocking: Workers::new(concurrency as usize, limits.request_timeout),
                hanging: Workers::new(concurrency as usize, limits.request_timeout),
            }),
        })
    }

    /// Tells what distinguishes the root from another folder at the same path, to be kept in the setting `root_id` when
    /// the source is added.
    pub async fn root_id(&self) -> Result<RootId> {
        self.blocking(Operation::Connect, &ObjectPath::root(), Folder::root_id)
            .await
    }

    /// Tells whether a look at `path` may hang, as far as the kernel's table of mounts tells. It is not touched.
    pub fn may_hang(&self, path: &ObjectPath) -> bool {
        self.folder.may_hang(path)
    }

    /// Tells whether an object has one identity by the look of either folder: both were found on one file system, as their
    /// roots are.
    pub fn is_beside(&self, other: &Self) -> bool {
        let device = self.folder.root.device_seen();
        device != 0 && device == other.folder.root.device_seen()
    }

    /// Opens a regular file for reading, and gives its attributes as they are then.
    ///
    /// Anything else is refused without being opened, so that nothing blocks: `IsADirectory`, or `Unsupported` for
    /// links, named pipes, sockets and devices. What [`may_hang`](Self::may_hang) does so in here: see
    /// [`open_file_soon`](Self::open_file_soon).
    pub fn open_file(&self, path: &ObjectPath) -> Result<Presence<(LocalFile, Metadata)>> {
        let may_hang = self.may_hang(path);
        let opened = self.folder.open_file(Operation::Open, path)?;
        Ok(self.local_file(opened, path, may_hang))
    }

    /// As [`open_file`](Self::open_file), on a thread of the source. The wait has no end of its own.
    pub async fn open_file_soon(&self, path: &ObjectPath) -> Result<Presence<(LocalFile, Metadata)>> {
        let may_hang = self.may_hang(path);
        let (object, backend) = (path.clone(), self.clone());
        self.blocking(Operation::Open, path, move |folder| {
            let opened = folder.open_file(Operation::Open, &object)?;
            // Made here, so that a file that nobody waits for any more is closed here too.
            Ok(backend.local_file(opened, &object, may_hang))
        })
        .await
    }

    fn local_file(
        &self,
        opened: Presence<(File, Metadata)>,
        path: &ObjectPath,
        may_hang: bool,
    ) -> Presence<(LocalFile, Metadata)> {
        match opened {
            Presence::Absent => Presence::Absent,
            Presence::Found((file, metadata)) => {
                let (folder, threads) = (Arc::clone(&self.folder), Arc::clone(&self.threads));
                let file = LocalFile::new(file, path.clone(), folder, threads, may_hang);
                Presence::Found((file, metadata))
            }
        }
    }

    /// Lists a directory, synchronously, and calls `each` with the name and attributes of each child, in no order.
    ///
    /// The listing is complete only if the result is `Found`. A child that goes while it is looked at is left out; one
    /// whose attributes are refused is given with what the directory itself tells of it.
    ///
    /// Where somebody [watches](Backend::watch), the directory is covered first, under the number in `cover`.
    pub fn walk_directory(
        &self,
        path: &ObjectPath,
        cover: Option<u64>,
        each: &mut dyn FnMut(&[u8], &Metadata),
    ) -> Result<Presence<()>> {
        self.folder.walk(path, cover, &mut |name, metadata| {
            each(name, metadata);
            ControlFlow::Continue(())
        })
    }

    /// Makes calls on a thread of the source: changes where they [may hang](Self::may_hang). The wait has no end of its own;
    /// what has been begun is done to its end, whoever waits for it.
    pub async fn on_thread<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &ObjectPath,
        calls: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T> {
        let backend = self.clone();
        self.blocking(operation, path, move |_| Ok(calls(&backend))).await
    }

    /// Runs system calls on a thread of the source, where they may block.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &ObjectPath,
        calls: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        let run = self.threads.of(self.may_hang(path)).run(move || calls(&folder));
        match run.await {
            Ok(result) => result,
            Err(none) => Err(self.folder.no_result(operation, path, none)),
        }
    }
}

impl Folder {
    fn error(&self, operation: Operation, path: &ObjectPath, failure: Failure) -> Error {
        let (kind, cause) = failure.into_parts(&self.root);
        Error::new(kind, operation, self.name.as_str(), path.clone(), cause)
    }

    fn no_result(&self, operation: Operation, path: &ObjectPath, none: NoResult) -> Error {
        let kind = match none {
            NoResult::Stuck { .. } | NoResult::Busy => ErrorKind::Unreachable,
            NoResult::NoThread(_) | NoResult::BrokeOff => ErrorKind::Other,
        };
        Error::new(kind, operation, self.name.as_str(), path.clone(), none)
    }

    fn may_hang(&self, path: &ObjectPath) -> bool {
        self.hazards.may_hang(path, self.root.mount_seen())
    }

    fn root_id(&self) -> Result<RootId> {
        let root = self.open_root(Operation::Connect)?;
        root.id()
            .map_err(|failure| self.error(Operation::Connect, &ObjectPath::root(), failure))
    }

    fn open_root(&self, operation: Operation) -> Result<root::Opened> {
        self.root
            .open()
            .map_err(|failure| self.error(operation, &ObjectPath::root(), failure))
    }

    fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let root = self.open_root(Operation::Stat)?;
        beneath::stat(&root, path).map_err(|failure| self.error(Operation::Stat, path, failure))
    }

    fn open_file(&self, operation: Operation, path: &ObjectPath) -> Result<Presence<(File, Metadata)>> {
        let root = self.open_root(operation)?;
        beneath::open_file(&root, path).map_err(|failure| self.error(operation, path, failure))
    }

    fn open_directory(&self, path: &ObjectPath) -> Result<Presence<walk::Directory>> {
        let root = self.open_root(Operation::List)?;
        walk::Directory::open(&root, path, self.hazards.children(path))
            .map_err(|failure| self.error(Operation::List, path, failure))
    }

    fn walk(
        &self,
        path: &ObjectPath,
        cover: Option<u64>,
        each: &mut dyn FnMut(&[u8], &Metadata) -> ControlFlow<()>,
    ) -> Result<Presence<()>> {
        let Presence::Found(mut directory) = self.open_directory(path)? else {
            return Ok(Presence::Absent);
        };
        if let (Some(notifier), Some(number)) = (self.notifier.get(), cover) {
            notifier.add(directory.as_fd(), number);
        }
        directory
            .walk(each)
            .map_err(|failure| self.error(Operation::List, path, failure))
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &str {
        &self.folder.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self) -> Result<()> {
        let root = ObjectPath::root();
        let path = root.clone();
        // A root that can be named but not read is found out here, not at the first listing.
        self.blocking(Operation::Connect, &root, move |folder| {
            match folder.open_directory(&path)? {
                Presence::Found(_) => Ok(()),
                Presence::Absent => Err(folder.error(Operation::Connect, &path, Failure::root_gone())),
            }
        })
        .await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let object = path.clone();
        self.blocking(Operation::Stat, path, move |folder| folder.stat(&object))
            .await
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        let path = directory.clone();
        let opened = self
            .blocking(Operation::List, directory, move |folder| folder.open_directory(&path))
            .await?;
        let Presence::Found(opened) = opened else {
            return Ok(Presence::Absent);
        };
        let (backend, path) = (self.clone(), directory.clone());
        // One page is what one system call gives; the next is read when it is asked for.
        let pages = futures::stream::unfold(Some(opened), move |directory| {
            let (backend, path) = (backend.clone(), path.clone());
            async move {
                let mut directory = directory?;
                let object = path.clone();
                let page = backend.blocking(Operation::List, &path, move |folder| match directory.page() {
                    Ok(children) => Ok((children, directory)),
                    Err(failure) => Err(folder.error(Operation::List, &object, failure)),
                });
                match page.await {
                    Ok((None, _)) => None,
                    Ok((Some(children), directory)) => Some((Ok(children), Some(directory))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Presence::Found(Box::pin(pages)))
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        let (object, version) = (path.clone(), version.clone());
        self.blocking(Operation::Read, path, move |folder| {
            let Presence::Found((file, metadata)) = folder.open_file(Operation::Read, &object)? else {
                return Ok(Presence::Absent);
            };
            let bytes = read::exactly(&file, &metadata, &version, range);
            bytes
                .map(Presence::Found)
                .map_err(|failure| folder.error(Operation::Read, &object, failure))
        })
        .await
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        let object = path.clone();
        self.blocking(Operation::ReadLink, path, move |folder| {
            let root = folder.open_root(Operation::ReadLink)?;
            beneath::read_link(&root, &object).map_err(|failure| folder.error(Operation::ReadLink, &object, failure))
        })
        .await
    }

    fn as_local(&self) -> Option<&LocalBackend> {
        Some(self)
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        let notifier = match self.folder.notifier.get() {
            Some(notifier) => Arc::clone(notifier),
            None => match Notifier::new() {
                Ok(notifier) => Arc::clone(self.folder.notifier.get_or_init(|| Arc::new(notifier))),
                Err(error) => {
                    tracing::warn!(source = self.name(), %error,
                        "nothing is told of changes here; raise fs.inotify.max_user_instances if it is used up");
                    return None;
                }
            },
        };
        Some(Arc::new(LocalWatch::new(self.clone(), notifier)))
    }
}

/// Refuses what is not a regular file, before it is opened.
fn regular(kind: Kind) -> std::result::Result<(), Failure> {
    let what = match kind {
        Kind::File => return Ok(()),
        Kind::Directory => return Err(Failure::refused(ErrorKind::IsADirectory, "it is a directory")),
        Kind::Symlink => "it is a symbolic link",
        Kind::Fifo => "it is a named pipe",
        Kind::Socket => "it is a socket",
        Kind::CharDevice | Kind::BlockDevice => "it is a device",
    };
    Err(Failure::refused(ErrorKind::Unsupported, what))
}

#[cfg(test)]
mod tests;
