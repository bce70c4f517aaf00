//! The kernel's operations, each turned into one question to the file system and its answer into one reply.
//!
//! Owns no state of the file system: ids are inode numbers for good, so nothing is counted and nothing forgotten here.
//!
//! Always true: nothing is changed through this mount. It is read-only for the kernel, which answers EROFS by itself; where
//! root remounts it writable, each changing operation answers EROFS here.

use std::{
    ffi::OsStr,
    io,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use manifold_vfs::{Access, Answer, Cursor, DirectoryHandle, DirectoryItem, Error, Handle, NameMatch, Vfs};

use crate::{
    attributes::{entry_id, file_attr, file_type, inode, no_entry},
    crossing::{Crossing, Ticket},
    shared::Shared,
};

/// How long the kernel may believe an entry or its attributes, including that a name is not there. Changes are told to it
/// as they are found; but what it answers by itself is not seen to be in use, and what is not in use is not kept fresh for
/// longer than this twice over.
const BELIEF: Duration = manifold_vfs::KEPT_FRESH
    .checked_div(2)
    .expect("invariant: two is not zero");

/// The same for the names in the root, which are few. On an old kernel there is no way to take them all back at once.
pub(crate) const ROOT_BELIEF: Duration = Duration::from_secs(1);

/// Inode numbers are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// Requests that the kernel sends ahead of being asked: readahead. Its own default of 16 starves 50 readers.
const BACKGROUND_MAX: u16 = 64;

/// The largest request. A read of more would be cut by the kernel all the same (`fs.fuse.max_pages_limit`).
const REQUEST_MAX: u32 = 1024 * 1024;

/// The unit in which `df` counts.
const STATFS_BLOCK: u32 = 4096;
const NAME_MAX: u32 = 255;

/// `.` and `..` stand before the file system's own entries.
const DOTS: u64 = 2;

pub(crate) struct Adaptor {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) crossing: Crossing,
    pub(crate) shared: Arc<Shared>,
    /// Who owns what has no owner.
    pub(crate) owner: (u32, u32),
}

/// How long the kernel may believe what it is told of a name in `parent`.
fn belief(parent: INodeNo) -> Duration {
    if parent == INodeNo::ROOT { ROOT_BELIEF } else { BELIEF }
}

fn ticket(request: &Request, op: &'static str, ino: INodeNo) -> Ticket {
    Ticket {
        id: request.unique().0,
        op,
        ino: ino.0,
        pid: request.pid(),
    }
}

impl Adaptor {
    /// Walks a directory from the kernel's `offset`; `add` gives whether the reply is full.
    fn walk(
        &self,
        directory: INodeNo,
        handle: FileHandle,
        offset: u64,
        add: &mut dyn FnMut(Item<'_>) -> bool,
    ) -> Result<(), Error> {
        for (position, name) in [(0, "."), (1, "..")] {
            // The number of the parent is of no use to anyone: who goes up asks for its attributes.
            if offset <= position
                && add(Item::Dot {
                    ino: directory,
                    name,
                    next: position + 1,
                })
            {
                return Ok(());
            }
        }
        let cursor = Cursor::Offset(offset.saturating_sub(DOTS));
        self.vfs.read_directory(DirectoryHandle(handle.0), cursor, &mut |item| {
            if add(Item::Entry(&item)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }
}

/// What a listing holds.
enum Item<'a> {
    Dot {
        ino: INodeNo,
        name: &'static str,
        next: u64,
    },
    Entry(&'a DirectoryItem<'a>),
}

impl Filesystem for Adaptor {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let useful = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Attributes come with a listing as long as they are asked for: `ls -l` wants them, `find` is four times slower
            // with them than without.
            InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Pages go when we say so, and not because a modification time was seen to differ.
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
            // Tells an aborted connection from an unmounted one in the log.
            InitFlags::FUSE_ABORT_ERROR,
        ];
        for flags in useful {
            if let Err(missing) = config.add_capabilities(flags) {
                tracing::debug!(?missing, "the kernel is too old for this");
            }
        }
        // Refused values come back as the nearest allowed one, and the kernel's own default stays: none is vital.
        for (what, refused) in [
            ("max_background", config.set_max_background(BACKGROUND_MAX).is_err()),
            ("max_write", config.set_max_write(REQUEST_MAX).is_err()),
        ] {
            if refused {
                tracing::debug!(what, "the kernel keeps its own value");
            }
        }
        self.shared.begin(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let owner = self.owner;
        self.crossing.answer(
            ticket(request, "lookup", parent),
            reply,
            || self.vfs.lookup(entry_id(parent), name.as_bytes(), NameMatch::Exact),
            move |reply, ticket, found| match found {
                Ok((_, attributes)) => {
                    reply.entry_with_ttls(&BELIEF, &belief(parent), &file_attr(&attributes, owner), GENERATION);
                }
                Err(Error::NotFound) => reply.entry(&belief(parent), &no_entry(), GENERATION),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let owner = self.owner;
        self.crossing.answer(
            ticket(request, "getattr", ino),
            reply,
            || {
                self.vfs
                    .attributes(entry_id(ino), handle.map(|handle| Handle(handle.0)))
            },
            move |reply, ticket, attributes| match attributes {
                Ok(attributes) => reply.attr(&BELIEF, &file_attr(&attributes, owner)),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.crossing.answer(
            ticket(request, "readlink", ino),
            reply,
            || self.vfs.read_link(entry_id(ino)),
            |reply, ticket, target| match target {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let (vfs, shared, runtime) = (Arc::clone(&self.vfs), Arc::clone(&self.shared), self.crossing.runtime());
        // What was known before.
        let known = match self.vfs.attributes(entry_id(ino), None) {
            Answer::Ready(Ok(attributes)) => Some(attributes.size),
            Answer::Ready(Err(_)) | Answer::Pending(_) => None,
        };
        self.crossing.answer(
            ticket(request, "open", ino),
            reply,
            || self.vfs.open(entry_id(ino), Access::Read),
            move |reply, ticket, opened| match opened {
                Ok(opened) if known.is_none_or(|size| size == opened.size) && shared.is_settled() => {
                    shared.opened(&vfs, ino, &opened, reply);
                }
                // The file was found to be another than was known, or has become another and the news has not reached the
                // kernel yet. It cuts reads at the size that it knows, so it has to unlearn that before the first of them.
                Ok(opened) => {
                    let _told = runtime.spawn_blocking(move || {
                        shared.forget_attributes(ino);
                        shared.opened(&vfs, ino, &opened, reply);
                    });
                }
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.crossing.answer(
            ticket(request, "read", ino),
            reply,
            || self.vfs.read(Handle(handle.0), offset, size),
            |reply, ticket, bytes| match bytes {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn flush(&self, request: &Request, ino: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.crossing.answer(
            ticket(request, "flush", ino),
            reply,
            || self.vfs.flush(Handle(handle.0)),
            |reply, ticket, flushed| match flushed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.crossing.now(ticket(request, "release", ino), || {
            self.vfs.release(Handle(handle.0));
            self.shared.modes.release(ino);
            reply.ok();
            Ok(())
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Nothing can have been written: all is on disk that ever will be.
        reply.ok();
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let shared = Arc::clone(&self.shared);
        self.crossing.answer(
            ticket(request, "opendir", ino),
            reply,
            || self.vfs.open_directory(entry_id(ino)),
            move |reply, ticket, opened| match opened {
                Ok(handle) => {
                    let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                    if shared.listings.keep(ino) {
                        flags |= FopenFlags::FOPEN_KEEP_CACHE;
                    }
                    reply.opened(FileHandle(handle.0), flags);
                }
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn readdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let ticket = ticket(request, "readdir", ino);
        self.crossing.now(ticket, move || {
            let walked = self.walk(ino, handle, offset, &mut |item| match item {
                Item::Dot { ino, name, next } => reply.add(ino, next, FileType::Directory, name),
                Item::Entry(item) => reply.add(
                    inode(item.attributes.id),
                    item.next_offset + DOTS,
                    file_type(item.attributes.kind),
                    OsStr::from_bytes(item.name),
                ),
            });
            match walked {
                Ok(()) => {
                    reply.ok();
                    Ok(())
                }
                Err(error) => {
                    let errno = ticket.failed(&error);
                    reply.error(errno);
                    Err(errno)
                }
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let ticket = ticket(request, "readdirplus", ino);
        self.crossing.now(ticket, move || {
            let walked = self.walk(ino, handle, offset, &mut |item| match item {
                // The kernel takes no attributes for these two, and counts no look-up.
                Item::Dot { ino, name, next } => {
                    let dot = fuser::FileAttr {
                        ino,
                        kind: FileType::Directory,
                        ..no_entry()
                    };
                    reply.add(ino, next, name, &Duration::ZERO, &dot, GENERATION)
                }
                Item::Entry(item) => reply.add(
                    inode(item.attributes.id),
                    item.next_offset + DOTS,
                    OsStr::from_bytes(item.name),
                    &belief(ino),
                    &file_attr(item.attributes, self.owner),
                    GENERATION,
                ),
            });
            match walked {
                Ok(()) => {
                    reply.ok();
                    Ok(())
                }
                Err(error) => {
                    let errno = ticket.failed(&error);
                    reply.error(errno);
                    Err(errno)
                }
            }
        });
    }

    fn releasedir(&self, request: &Request, ino: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.crossing.now(ticket(request, "releasedir", ino), || {
            self.vfs.release_directory(DirectoryHandle(handle.0));
            reply.ok();
            Ok(())
        });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let ticket = ticket(request, "statfs", ino);
        self.crossing.now(ticket, || match self.vfs.statfs() {
            Ok(totals) => {
                let blocks = totals.bytes.div_ceil(u64::from(STATFS_BLOCK));
                // Full, as a read-only file system is.
                reply.statfs(blocks, 0, 0, totals.entries, 0, STATFS_BLOCK, NAME_MAX, STATFS_BLOCK);
                Ok(())
            }
            Err(error) => {
                let errno = ticket.failed(&error);
                reply.error(errno);
                Err(errno)
            }
        });
    }

    /// There are no extended attributes, and that is said each time: `ls -l` remembers it for the whole file system after the
    /// first file. ENOSYS would be remembered by the kernel, which then says of each file that it has no ACL, and `ls` goes
    /// on to ask it for all of them.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::EOPNOTSUPP);
    }

    // What does not exist here either. ENOSYS is answered once: the kernel remembers it and asks no more.

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    /// Never asked, because of `default_permissions`.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// The kernel then finds data and holes by the size alone, which is right for files without holes.
    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// The kernel then takes each file to be ready always, as files are.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    // What would change something.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
