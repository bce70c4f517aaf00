//! Watching folders of this machine with inotify.
//!
//! The kernel watches directories one by one; each watch stands for a number of the caller's. A watch costs the kernel
//! about a kilobyte, so a user may have only so many (`fs.inotify.max_user_watches`), and one in eight is left to other
//! programs. A directory for which there is no watch is left unwatched, and that is [told](Coverage).
//!
//! Always true: a watch is set on the directory that was opened beneath the root, whatever is renamed meanwhile; it holds
//! no file system busy; and nothing here touches a file system but [`Notifier::add`].

use std::collections::HashMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::LocalBackend;
use crate::watch::{Coverage, Noticed, Watch, Where};
use crate::{Error, ErrorKind, ObjectPath, Operation, Presence, Result};

/// What is asked of the kernel.
const WANTED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// What changes the names of a directory.
const OTHER_NAMES: ReadFlags = ReadFlags::CREATE
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO);

/// Room for events, in bytes: some hundreds at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// How much is gathered before it is handed on.
const NOTICED_MAX: usize = 4_096;

/// What a user may have, where the kernel does not say: the smallest that it ever sets.
const WATCHES_MAX_LEAST: u64 = 8_192;

/// All watches of this process: the kernel counts them together.
static WATCHES: AtomicU64 = AtomicU64::new(0);

/// File systems that others change without this kernel knowing (`statfs(2)`): NFS, CIFS and SMB, 9P, Ceph, AFS, Coda,
/// and whatever is built on FUSE.
const SHARED_WITH_OTHERS: [u64; 9] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
    0x6573_5546,
];

/// One inotify instance, and what its watches stand for.
pub(super) struct Notifier {
    inotify: AsyncFd<OwnedFd>,
    state: Mutex<State>,
    /// The most watches of this process.
    limit: u64,
    /// What the system allows.
    allowed: u64,
}

#[derive(Default)]
struct State {
    /// What each mark stands for: the number under which its directory was covered last.
    numbers: HashMap<i32, u64>,
    /// Other numbers of the same directory, which are few: a scan that meets it under a number of its own must not take the
    /// watch from who has it already.
    others: HashMap<i32, Vec<u64>>,
    short: bool,
    began: bool,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl Notifier {
    /// Makes an instance. To be called within a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let allowed = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(WATCHES_MAX_LEAST);
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, and asks for what an `OwnedFd` always is"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self {
            inotify,
            state: Mutex::default(),
            limit: allowed - allowed / 8,
            allowed,
        })
    }

    /// Watches an opened directory under a number. Does nothing where no watch is to be had.
    pub(super) fn add(&self, directory: BorrowedFd<'_>, number: u64) {
        if WATCHES.load(Ordering::Relaxed) >= self.limit {
            self.state.lock().short = true;
            return;
        }
        // The kernel takes a path only; this one leads to what is open.
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        // Not under the lock: a network file system may be asked whether the directory is still there.
        match inotify::add_watch(self.inotify.get_ref(), path, WANTED) {
            // What is told before this is passed over, and seen by the listing that follows.
            Ok(mark) => self.state.lock().add(mark, number),
            Err(Errno::NOSPC) => self.state.lock().short = true,
            Err(error) => tracing::debug!(%error, number, "a directory cannot be watched"),
        }
    }

    fn remove(&self, number: u64, mark: i32) {
        let mut state = self.state.lock();
        if state.remove(mark, number) {
            drop(state);
            // It may have gone by itself.
            let _gone = inotify::remove_watch(self.inotify.get_ref(), mark);
        }
    }

    /// Takes what the kernel has to tell now.
    fn drain(&self, noticed: &mut Vec<Noticed>) -> std::io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        loop {
            if noticed.len() >= NOTICED_MAX && reader.is_buffer_empty() {
                return Ok(());
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                // What came before is handed on first.
                Err(Errno::AGAIN) if !noticed.is_empty() => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            let events = event.events();
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                noticed.push(Noticed::Missed);
                continue;
            }
            let mut state = self.state.lock();
            let Some(&number) = state.numbers.get(&event.wd()) else {
                continue;
            };
            if events.contains(ReadFlags::IGNORED) {
                state.forget(event.wd());
                continue;
            }
            let others = state.others.get(&event.wd()).cloned().unwrap_or_default();
            drop(state);
            for number in std::iter::once(number).chain(others) {
                let place = Where::Covered {
                    number,
                    mark: event.wd(),
                };
                let one = if events.contains(ReadFlags::UNMOUNT) {
                    Noticed::Unmounted(place)
                } else if events.intersects(OTHER_NAMES) {
                    Noticed::Names(place)
                } else if let Some(name) = event.file_name() {
                    Noticed::Child {
                        directory: place,
                        name: name.to_bytes().to_vec(),
                    }
                } else {
                    Noticed::Attributes(place)
                };
                if noticed.last() != Some(&one) {
                    noticed.push(one);
                }
            }
        }
    }
}

impl State {
    fn add(&mut self, mark: i32, number: u64) {
        match self.numbers.insert(mark, number) {
            None => {
                WATCHES.fetch_add(1, Ordering::Relaxed);
            }
            Some(before) if before != number => {
                let others = self.others.entry(mark).or_default();
                others.retain(|other| *other != number && *other != before);
                others.push(before);
            }
            Some(_) => {}
        }
    }

    /// Takes a number from its mark. Gives true if that was the last, so that the watch itself is to go.
    fn remove(&mut self, mark: i32, number: u64) -> bool {
        let Some(others) = self.others.get_mut(&mark) else {
            let is_it = self.numbers.get(&mark) == Some(&number);
            if is_it {
                self.forget(mark);
            }
            return is_it;
        };
        if self.numbers.get(&mark) == Some(&number)
            && let Some(other) = others.pop()
        {
            self.numbers.insert(mark, other);
        }
        others.retain(|other| *other != number);
        if others.is_empty() {
            self.others.remove(&mark);
        }
        false
    }

    fn forget(&mut self, mark: i32) {
        self.others.remove(&mark);
        if self.numbers.remove(&mark).is_some() {
            WATCHES.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        WATCHES.fetch_sub(self.state.get_mut().numbers.len() as u64, Ordering::Relaxed);
    }
}

/// The watch over one folder.
#[derive(Debug)]
pub(super) struct LocalWatch {
    backend: LocalBackend,
    notifier: Arc<Notifier>,
}

impl LocalWatch {
    pub(super) fn new(backend: LocalBackend, notifier: Arc<Notifier>) -> Self {
        Self { backend, notifier }
    }
}

#[async_trait]
impl Watch for LocalWatch {
    async fn cover(&self, directory: &ObjectPath, number: u64) -> Result<()> {
        let (path, notifier) = (directory.clone(), Arc::clone(&self.notifier));
        self.backend
            .blocking(Operation::List, directory, move |folder| {
                if let Presence::Found(opened) = folder.open_directory(&path)? {
                    notifier.add(opened.as_fd(), number);
                }
                Ok(())
            })
            .await
    }

    fn uncover(&self, place: &Where) {
        if let Where::Covered { number, mark } = *place {
            self.notifier.remove(number, mark);
        }
    }

    async fn next(&self, noticed: &mut Vec<Noticed>) -> Result<()> {
        if !std::mem::replace(&mut self.notifier.state.lock().began, true) {
            noticed.push(Noticed::Began);
            return Ok(());
        }
        let waited = async {
            loop {
                let mut ready = self.notifier.inotify.readable().await?;
                match ready.try_io(|_| self.notifier.drain(noticed)) {
                    Ok(drained) => {
                        drained?;
                        if !noticed.is_empty() {
                            return Ok(());
                        }
                    }
                    Err(_would_block) => {}
                }
            }
        };
        waited.await.map_err(|error: std::io::Error| {
            let name = self.backend.folder.name.as_str();
            Error::new(ErrorKind::Other, Operation::List, name, ObjectPath::root(), error)
        })
    }

    fn coverage(&self) -> Coverage {
        if self
            .backend
            .folder
            .root
            .filesystem()
            .is_some_and(|it| SHARED_WITH_OTHERS.contains(&it))
        {
            return Coverage::OwnChangesOnly;
        }
        let state = self.notifier.state.lock();
        Coverage::Directories {
            watched: state.numbers.len() as u64,
            short_of: state.short.then_some(self.notifier.allowed),
        }
    }
}
