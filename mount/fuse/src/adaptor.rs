//! The kernel's operations, each turned into one question to the file system and its answer into one reply.
//!
//! Owns no state of the file system: ids are inode numbers for good, so nothing is counted and nothing forgotten here.
//!
//! What changes something is in [`changes`].

mod beginning;
mod changes;
mod listing;
mod opening;

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use manifold_vfs::{
    Access, AttributeChange, Attributes, DirectoryHandle, Durable, Error, Handle, Making, NameMatch, Vfs,
};

use crate::{
    attributes::{entry_id, file_attr, no_entry},
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
pub(crate) const GENERATION: Generation = Generation(0);

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

/// How long the kernel may believe attributes. Those of a file that is open for writing may change without a word: by the
/// kernel's own writes, or through a mapping.
fn attr_belief(attributes: &Attributes) -> Duration {
    if attributes.volatile { Duration::ZERO } else { BELIEF }
}

fn ticket(request: &Request, op: &'static str, ino: INodeNo) -> Ticket {
    Ticket {
        id: request.unique().0,
        op,
        ino: ino.0,
        pid: request.pid(),
        patient: false,
    }
}

impl Filesystem for Adaptor {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        beginning::ask_for(config);
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
                    let attr_belief = attr_belief(&attributes);
                    reply.entry_with_ttls(
                        &attr_belief,
                        &belief(parent),
                        &file_attr(&attributes, owner),
                        GENERATION,
                    );
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
                Ok(attributes) => reply.attr(&attr_belief(&attributes), &file_attr(&attributes, owner)),
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
        self.open_file(request, ino, flags, reply);
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
        let flush = || self.vfs.flush(Handle(handle.0));
        self.crossing
            .answer(patient(request, "flush", ino), reply, flush, empty);
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

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let sync = || self.vfs.sync(entry_id(ino), Handle(handle.0), data_only);
        self.crossing.answer(patient(request, "fsync", ino), reply, sync, empty);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.open_directory(request, ino, reply);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(request, ino, handle, offset, reply);
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list_with_attributes(request, ino, handle, offset, reply);
    }

    fn releasedir(&self, request: &Request, ino: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.crossing.now(ticket(request, "releasedir", ino), || {
            self.vfs.release_directory(DirectoryHandle(handle.0));
            reply.ok();
            Ok(())
        });
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let sync = || self.vfs.sync_directory(entry_id(ino));
        self.crossing
            .answer(patient(request, "fsyncdir", ino), reply, sync, empty);
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.tell_space(request, ino, reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.get_xattr(request, ino, name, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.list_xattrs(request, ino, size, reply);
    }

    // What does not exist here either. ENOSYS is answered once: the kernel remembers it and asks no more.

    /// Never asked, because of `default_permissions`.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.find(request, ino, handle, (offset, whence), reply);
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

    // What changes something.

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttributeChange {
            mode,
            uid,
            gid,
            size,
            accessed: accessed.map(changes::new_time),
            modified: modified.map(changes::new_time),
        };
        self.set(request, ino, handle, change, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        match changes::node(mode, device) {
            Some(node) => self.make(request, "mknod", (parent, name), node, (mode, umask), reply),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make(
            request,
            "mkdir",
            (parent, name),
            Making::Directory,
            (mode, umask),
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.vfs.remove_file(entry_id(parent), name.as_bytes());
        self.shared.listings.forget(parent);
        self.crossing
            .answer(ticket(request, "unlink", parent), reply, remove, empty);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.vfs.remove_directory(entry_id(parent), name.as_bytes());
        self.shared.listings.forget(parent);
        self.crossing
            .answer(ticket(request, "rmdir", parent), reply, remove, empty);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let link = Making::Symlink(target.as_os_str().as_bytes().to_vec());
        self.make(request, "symlink", (parent, name), link, (0o777, 0), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = changes::rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let from = (entry_id(parent), name.as_bytes());
        let to = (entry_id(new_parent), new_name.as_bytes());
        self.shared.listings.forget(parent);
        self.shared.listings.forget(new_parent);
        let rename = || self.vfs.rename(from, to, mode);
        self.crossing
            .answer(ticket(request, "rename", parent), reply, rename, empty);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.shared.listings.forget(parent);
        let link = || self.vfs.make_link(entry_id(ino), entry_id(parent), name.as_bytes());
        self.crossing
            .answer(ticket(request, "link", ino), reply, link, self.entry(parent));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.create_file(request, (parent, name), (mode, umask), OpenFlags(flags), reply);
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let writing = changes::writing(offset, how, flags);
        let ticket = Ticket {
            patient: writing.durable != Durable::Later,
            ..ticket(request, "write", ino)
        };
        self.crossing.answer(
            ticket,
            reply,
            || self.vfs.write(Handle(handle.0), bytes, writing),
            |reply, ticket, written| match written {
                Ok(written) => reply.written(written),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = changes::set_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let set = || self.vfs.set_attribute(entry_id(ino), name.as_bytes(), value, mode);
        self.crossing
            .answer(ticket(request, "setxattr", ino), reply, set, empty);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.vfs.remove_attribute(entry_id(ino), name.as_bytes());
        self.crossing
            .answer(ticket(request, "removexattr", ino), reply, remove, empty);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let by = changes::requester(request, 0);
        let allocate = || {
            self.vfs
                .allocate(Handle(handle.0), mode.cast_unsigned(), offset, length, by)
        };
        self.crossing
            .answer(patient(request, "fallocate", ino), reply, allocate, empty);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        _: INodeNo,
        target: FileHandle,
        target_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let by = changes::requester(request, 0);
        let from = (entry_id(ino), Handle(handle.0), offset);
        let to = (Handle(target.0), target_offset);
        self.crossing.answer(
            patient(request, "copy_file_range", ino),
            reply,
            || self.vfs.copy_range(from, to, length, by),
            |reply, ticket, copied| match copied {
                // It is bounded there, far below this.
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }
}

/// A ticket for what may take as long as a disk of this machine takes.
fn patient(request: &Request, op: &'static str, ino: INodeNo) -> Ticket {
    Ticket {
        patient: true,
        ..ticket(request, op, ino)
    }
}

fn empty(reply: ReplyEmpty, ticket: Ticket, done: Result<(), Error>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(ticket.failed(&error)),
    }
}

fn access(flags: OpenFlags) -> Access {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => Access::Read,
        OpenAccMode::O_WRONLY => Access::Write,
        OpenAccMode::O_RDWR => Access::ReadWrite,
    }
}
