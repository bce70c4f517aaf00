//! The operations that change something, and those on extended attributes and holes.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    Errno, FileHandle, INodeNo, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyEntry, ReplyLseek, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use manifold_vfs::{
    Answer, AttributeChange, Attributes, Created, Creation, Durable, Error, Handle, Kind, Making, NewTime, RenameMode,
    Requester, Seek, SetMode, WriteAt, Writing,
};
use rustix::fs::{FileType, OFlags};

use super::{Adaptor, GENERATION, access, attr_belief, belief, patient, ticket};
use crate::{
    attributes::{device_number, entry_id, file_attr},
    crossing::Ticket,
};

/// `lseek(2)`: whence.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// `setxattr(2)`: flags.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// What POSIX access control lists are called.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

impl Adaptor {
    /// Answers with an entry that was made in `parent`.
    pub(super) fn entry(
        &self,
        parent: INodeNo,
    ) -> impl FnOnce(ReplyEntry, Ticket, Result<Attributes, Error>) + Send + 'static {
        let owner = self.owner;
        move |reply, ticket, made| match made {
            Ok(attributes) => {
                let attr = file_attr(&attributes, owner);
                reply.entry_with_ttls(&attr_belief(&attributes), &belief(parent), &attr, GENERATION);
            }
            Err(error) => reply.error(ticket.failed(&error)),
        }
    }

    pub(super) fn make(
        &self,
        request: &Request,
        op: &'static str,
        (parent, name): (INodeNo, &OsStr),
        making: Making,
        (mode, umask): (u32, u32),
        reply: ReplyEntry,
    ) {
        let by = requester(request, umask);
        self.shared.listings.forget(parent);
        let ticket = Ticket {
            patient: matches!(making, Making::File),
            ..ticket(request, op, parent)
        };
        self.crossing.answer(
            ticket,
            reply,
            || match making {
                Making::Directory => self.vfs.make_directory(entry_id(parent), name.as_bytes(), mode, by),
                Making::Symlink(target) => self.vfs.make_symlink(entry_id(parent), name.as_bytes(), &target, by),
                node => self.vfs.make_node(entry_id(parent), name.as_bytes(), node, mode, by),
            },
            self.entry(parent),
        );
    }

    pub(super) fn create_file(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (mode, umask): (u32, u32),
        flags: OpenFlags,
        reply: ReplyCreate,
    ) {
        let creation = Creation {
            mode,
            access: access(flags),
            exclusive: open_flags(flags).contains(OFlags::EXCL),
        };
        let by = requester(request, umask);
        let (vfs, shared, owner) = (Arc::clone(&self.vfs), Arc::clone(&self.shared), self.owner);
        self.shared.listings.forget(parent);
        self.crossing.answer(
            // What nobody writes to is made to last before the answer.
            patient(request, "create", parent),
            reply,
            || self.vfs.create(entry_id(parent), name.as_bytes(), creation, by),
            move |reply, ticket, created| match created {
                // The kernel took the name for free: it would neither cut the file off nor ask whether it may be opened. With this
                // answer it looks the name up anew.
                Ok(created) if !created.is_new => {
                    vfs.release(created.opened.handle);
                    reply.error(ticket.failed(&Error::Stale));
                }
                Ok(Created { attributes, opened, .. }) => {
                    let attr = file_attr(&attributes, owner);
                    let beliefs = (&attr, belief(parent), attr_belief(&attributes));
                    shared.created(&vfs, beliefs, &opened, is_direct(flags), reply);
                }
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    pub(super) fn set(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        change: AttributeChange,
        reply: ReplyAttr,
    ) {
        let (by, owner) = (requester(request, 0), self.owner);
        let handle = handle.map(|handle| Handle(handle.0));
        let ticket = Ticket {
            patient: change.size.is_some(),
            ..ticket(request, "setattr", ino)
        };
        self.crossing.answer(
            ticket,
            reply,
            || self.vfs.set_attributes(entry_id(ino), handle, change, by),
            move |reply, ticket, attributes| match attributes {
                Ok(attributes) => reply.attr(&attr_belief(&attributes), &file_attr(&attributes, owner)),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    pub(super) fn find(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        (offset, whence): (i64, i32),
        reply: ReplyLseek,
    ) {
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        self.crossing.answer(
            ticket(request, "lseek", ino),
            reply,
            || self.vfs.seek(entry_id(ino), Handle(handle.0), what, offset),
            |reply, ticket, found| match found {
                Ok(offset) => reply.offset(offset.cast_signed()),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    /// Gives an extended attribute.
    ///
    /// `ls -l` asks each file for its access control list, unless it is told once that there is no such thing: then it
    /// remembers that for the whole file system. So that is what the owner of a file without a list is told. The kernel
    /// itself asks on behalf of others, and must hear that this file has none; and `cp -a` would not ask a directory for its
    /// default list if it had heard that. Where nobody can be asked, there is none to be had either: what a listing shows does
    /// not depend on the source.
    pub(super) fn get_xattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let is_list = ACCESS_LISTS.contains(&name.as_bytes());
        let missing = if !is_list || self.is_owner_of_file(ino, request.uid()) {
            Errno::EOPNOTSUPP
        } else {
            Errno::ENODATA
        };
        self.crossing.answer(
            ticket(request, "getxattr", ino),
            reply,
            || self.vfs.attribute(entry_id(ino), name.as_bytes()),
            move |reply, ticket, value| match value {
                Ok(value) => give(reply, &value, size),
                Err(Error::NoData | Error::Unreachable(_) | Error::TimedOut(_)) if is_list => reply.error(missing),
                Err(Error::Unsupported(_)) => reply.error(missing),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    pub(super) fn list_xattrs(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let by = requester(request, 0);
        self.crossing.answer(
            ticket(request, "listxattr", ino),
            reply,
            || self.vfs.attribute_names(entry_id(ino), by),
            move |reply, ticket, names| match names {
                Ok(names) => give(reply, &names, size),
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    fn is_owner_of_file(&self, ino: INodeNo, uid: u32) -> bool {
        match self.vfs.attributes(entry_id(ino), None) {
            Answer::Ready(Ok(attributes)) => {
                attributes.kind != Kind::Directory && attributes.owner.unwrap_or(self.owner).0 == uid
            }
            Answer::Ready(Err(_)) | Answer::Pending(_) => false,
        }
    }
}

/// Answers with a value, or its length where that is asked for.
fn give(reply: ReplyXattr, value: &[u8], size: u32) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

pub(super) fn requester(request: &Request, umask: u32) -> Requester {
    Requester {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
        umask,
    }
}

/// What `mknod` is to make; `None` for what it cannot.
pub(super) fn node(mode: u32, device: u32) -> Option<Making> {
    Some(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Making::File,
        FileType::Fifo => Making::Fifo,
        FileType::Socket => Making::Socket,
        FileType::CharacterDevice => Making::CharDevice(device_number(device)),
        FileType::BlockDevice => Making::BlockDevice(device_number(device)),
        FileType::Directory | FileType::Symlink | FileType::Unknown => return None,
    })
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    let time = match time {
        TimeOrNow::Now => return NewTime::Now,
        TimeOrNow::SpecificTime(time) => time,
    };
    let parts = |distance: Duration| (distance.as_secs().cast_signed(), distance.subsec_nanos());
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            let (seconds, nanoseconds) = parts(after);
            NewTime::At(seconds, nanoseconds)
        }
        // fuser 0.18 takes the nanoseconds of a time before 1970, which count from its whole second on, for such as lie before
        // that: what it gives is put together from the kernel's two numbers, and taken apart again here.
        Err(before) => {
            let (seconds, nanoseconds) = parts(before.duration());
            NewTime::At(-seconds, nanoseconds)
        }
    }
}

/// What `renameat2` is to do; `None` for what no source of ours can.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

pub(super) fn set_mode(flags: i32) -> Option<SetMode> {
    match flags {
        0 => Some(SetMode::Any),
        XATTR_CREATE => Some(SetMode::Create),
        XATTR_REPLACE => Some(SetMode::Replace),
        _ => None,
    }
}

/// How the kernel wants bytes written.
pub(super) fn writing(offset: u64, how: WriteFlags, flags: OpenFlags) -> Writing {
    let flags = open_flags(flags);
    // Pages of a mapping belong where they are, whatever else the file is open for.
    let is_page = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    let at = if flags.contains(OFlags::APPEND) && !is_page {
        WriteAt::Append
    } else {
        WriteAt::Offset(offset)
    };
    let durable = if is_page {
        Durable::Later
    } else if flags.contains(OFlags::SYNC) {
        Durable::All
    } else if flags.contains(OFlags::DSYNC) {
        Durable::Data
    } else {
        Durable::Later
    };
    Writing {
        at,
        durable,
        keep_privileges: !how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
    }
}

pub(super) fn is_direct(flags: OpenFlags) -> bool {
    open_flags(flags).contains(OFlags::DIRECT)
}

fn open_flags(flags: OpenFlags) -> OFlags {
    OFlags::from_bits_retain(flags.0.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_the_kernels_two_numbers_again() {
        let at = |time| new_time(TimeOrNow::SpecificTime(time));
        assert_eq!(at(UNIX_EPOCH + Duration::new(5, 7)), NewTime::At(5, 7));
        assert_eq!(at(UNIX_EPOCH - Duration::new(5, 0)), NewTime::At(-5, 0));
        // Of -5 s and 1 ns after that, fuser makes this.
        assert_eq!(at(UNIX_EPOCH - Duration::new(5, 1)), NewTime::At(-5, 1));
        assert_eq!(new_time(TimeOrNow::Now), NewTime::Now);
    }

    #[test]
    fn pages_of_a_mapping_are_written_where_they_are_though_the_file_is_open_for_appending() {
        let append = OpenFlags((OFlags::WRONLY | OFlags::APPEND | OFlags::SYNC).bits().cast_signed());
        let by_call = writing(7, WriteFlags::empty(), append);
        assert_eq!((by_call.at, by_call.durable), (WriteAt::Append, Durable::All));
        let by_page = writing(7, WriteFlags::FUSE_WRITE_CACHE, append);
        assert_eq!((by_page.at, by_page.durable), (WriteAt::Offset(7), Durable::Later));
        assert!(!writing(0, WriteFlags::FUSE_WRITE_KILL_SUIDGID, append).keep_privileges);
    }

    #[test]
    fn what_no_source_can_do_is_refused() {
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(
            rename_mode(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE),
            None
        );
        assert_eq!(set_mode(XATTR_CREATE | XATTR_REPLACE), None);
        assert_eq!(node(0o100_644, 0), Some(Making::File));
        assert_eq!(node(0o040_755, 0), None);
    }
}
