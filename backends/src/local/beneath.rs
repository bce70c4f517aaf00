//! System calls beneath the root: nothing here follows a link or leaves the root, whatever is renamed meanwhile.

use std::error::Error as StdError;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;

use super::attributes::Origin;
use super::root::{Opened, Root};
use super::{attributes, regular};
use crate::{ErrorKind, Kind, Metadata, ObjectPath, Presence};

/// Links are entries of their own: a path that leads through one names nothing here.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// The longest path given to the kernel at once, in bytes; its own limit is 4096 with the NUL.
const PIECE_MAX: usize = 4000;

/// How often a call is repeated that a rename at the same time, a signal or a lease got in the way of.
const ATTEMPTS_MAX: u32 = 64;

/// Why something beneath the root, or the root itself, could not be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// No folder stands at the root's path, and none was ever seen there.
    NoRoot(Errno),
    /// The root could not be opened.
    Root(Errno),
    /// Another folder stands where the root was.
    OtherRoot,
    /// A system call failed on an object beneath the root.
    Object(Errno),
    /// A system call failed that was to change something beneath the root.
    Change(Errno),
    /// We refuse.
    Refused(ErrorKind, &'static str),
}

impl Failure {
    pub(super) fn root(errno: Errno) -> Self {
        Self::Root(errno)
    }

    pub(super) fn root_never_seen(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NoRoot(errno),
            _ => Self::Root(errno),
        }
    }

    pub(super) fn root_gone() -> Self {
        Self::Root(Errno::NOENT)
    }

    pub(super) fn other_root() -> Self {
        Self::OtherRoot
    }

    pub(super) fn refused(kind: ErrorKind, why: &'static str) -> Self {
        Self::Refused(kind, why)
    }

    pub(super) fn into_parts(self, root: &Root) -> (ErrorKind, Box<dyn StdError + Send + Sync>) {
        let path = root.path().display();
        match self {
            Self::NoRoot(errno) => (ErrorKind::NoSuchSource, format!("no folder stands at {path}: {errno}").into()),
            Self::Root(errno @ (Errno::NOENT | Errno::NOTDIR)) => {
                (ErrorKind::Unreachable, format!("no folder stands at {path} (is its disk mounted?): {errno}").into())
            }
            Self::Root(Errno::ACCESS | Errno::PERM) => {
                (ErrorKind::PermissionDenied, format!("{path} may not be opened by this user").into())
            }
            Self::Root(Errno::TIMEDOUT) => (ErrorKind::TimedOut, format!("{path}: {}", Errno::TIMEDOUT).into()),
            // A network or FUSE file system that is away says so in many ways.
            Self::Root(errno) => (ErrorKind::Unreachable, format!("{path} cannot be opened: {errno}").into()),
            Self::OtherRoot => (
                ErrorKind::Unreachable,
                format!(
                    "another folder stands at {path} than the one that was added: its disk may not be mounted; if it was \
                     replaced on purpose, remove the source and add it again"
                )
                .into(),
            ),
            Self::Object(errno) => (kind_of(errno), Box::new(std::io::Error::from(errno))),
            Self::Change(errno) => (kind_of_change(errno), Box::new(std::io::Error::from(errno))),
            Self::Refused(kind, why) => (kind, why.into()),
        }
    }
}

/// Sorts the errors of objects beneath a root that could itself be opened.
fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
        Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL | Errno::ILSEQ => ErrorKind::BadPath,
        Errno::NOTDIR => ErrorKind::NotADirectory,
        Errno::ISDIR => ErrorKind::IsADirectory,
        // A lease on the file (a file server has it), or renames without end.
        Errno::AGAIN | Errno::TIMEDOUT => ErrorKind::TimedOut,
        Errno::NOSYS | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::Full,
        Errno::ROFS => ErrorKind::ReadOnly,
        _ => ErrorKind::Other,
    }
}

/// Sorts the errors of changes, so that the disk's own number can be told to whoever asked.
fn kind_of_change(errno: Errno) -> ErrorKind {
    match errno {
        Errno::ACCESS => ErrorKind::PermissionDenied,
        Errno::PERM => ErrorKind::NotPermitted,
        Errno::EXIST => ErrorKind::Exists,
        Errno::NOTEMPTY => ErrorKind::NotEmpty,
        Errno::XDEV => ErrorKind::CrossDevice,
        Errno::MLINK => ErrorKind::TooManyLinks,
        Errno::NAMETOOLONG => ErrorKind::NameTooLong,
        Errno::DQUOT => ErrorKind::Quota,
        Errno::BUSY => ErrorKind::Busy,
        Errno::TXTBSY => ErrorKind::TextBusy,
        Errno::FBIG | Errno::OVERFLOW => ErrorKind::TooLarge,
        Errno::INVAL | Errno::ILSEQ => ErrorKind::InvalidArgument,
        Errno::NODATA => ErrorKind::NoAttribute,
        Errno::RANGE | Errno::TOOBIG => ErrorKind::ValueTooLong,
        Errno::NXIO => ErrorKind::BeyondEnd,
        other => kind_of(other),
    }
}

/// Tells the errors that mean: the file system answered, and no object has this path.
pub(super) fn is_absent(errno: Errno) -> bool {
    // A parent that is a file or (`LOOP`) a link has no children.
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

pub(super) fn found<T>(result: Result<T, Errno>) -> Result<Presence<T>, Failure> {
    match result {
        Ok(value) => Ok(Presence::Found(value)),
        Err(errno) if is_absent(errno) => Ok(Presence::Absent),
        Err(errno) => Err(Failure::Object(errno)),
    }
}

/// Refuses paths that no local object can have.
pub(super) fn checked(path: &ObjectPath) -> Result<&[u8], Failure> {
    let bytes = path.as_bytes();
    let bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
    if !bytes.is_empty() && bytes.split(|byte| *byte == b'/').any(bad) {
        return Err(Failure::Refused(
            ErrorKind::BadPath,
            "a path of this machine has no empty, `.`, `..` or NUL parts",
        ));
    }
    Ok(bytes)
}

/// Opens an object. `path` has been checked.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut rest = path;
    let mut piece_root: Option<OwnedFd> = None;
    while rest.len() > PIECE_MAX {
        let end = rest[..=PIECE_MAX]
            .iter()
            .rposition(|byte| *byte == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let from = piece_root.as_ref().map_or(root, AsFd::as_fd);
        piece_root = Some(open_piece(
            from,
            &rest[..end],
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        )?);
        rest = &rest[end + 1..];
    }
    let from = piece_root.as_ref().map_or(root, AsFd::as_fd);
    open_piece(from, if rest.is_empty() { b"." } else { rest }, flags | OFlags::CLOEXEC)
}

fn open_piece(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut attempt = 1;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS_MAX => attempt += 1,
            result => return result,
        }
    }
}

/// Gives the attributes of what is opened.
pub(super) fn stat_fd(fd: BorrowedFd<'_>, root: Origin) -> Result<Metadata, Failure> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, attributes::WANTED).map_err(Failure::Object)?;
    described(fd, &stat, root)
}

/// Turns what the kernel says of an object into ours; `fd` is the object or its directory.
pub(super) fn described(fd: BorrowedFd<'_>, stat: &Statx, root: Origin) -> Result<Metadata, Failure> {
    let origin = origin(fd, stat, root).map_err(Failure::Object)?;
    attributes::metadata(stat, origin).ok_or(Failure::Refused(ErrorKind::Nonsense, "its type is none of Linux's"))
}

/// Finds the origin of what is opened, which may be on another file system than the root.
pub(super) fn origin(fd: BorrowedFd<'_>, stat: &Statx, root: Origin) -> Result<Origin, Errno> {
    if attributes::device(stat) == root.root_device {
        return Ok(root);
    }
    let filesystem = rustix::fs::fstatfs(fd)?.f_type as u64;
    Ok(Origin {
        inodes_last: attributes::inodes_last(filesystem),
        ..root
    })
}

/// Opens an object only to look at it, a link itself rather than its target. Nothing blocks, and devices notice nothing.
pub(super) fn look(root: &Opened, path: &ObjectPath) -> Result<Presence<OwnedFd>, Failure> {
    found(open(root.as_fd(), checked(path)?, OFlags::PATH | OFlags::NOFOLLOW))
}

pub(super) fn stat(root: &Opened, path: &ObjectPath) -> Result<Presence<Metadata>, Failure> {
    match look(root, path)? {
        Presence::Found(fd) => stat_fd(fd.as_fd(), root.origin()).map(Presence::Found),
        Presence::Absent => Ok(Presence::Absent),
    }
}

pub(super) fn open_file(root: &Opened, path: &ObjectPath) -> Result<Presence<(File, Metadata)>, Failure> {
    let Presence::Found(seen) = stat(root, path)? else {
        return Ok(Presence::Absent);
    };
    regular(seen.kind)?;
    // It may have been exchanged since, so the open itself must not block either.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Presence::Found(fd) = found(open(root.as_fd(), checked(path)?, flags))? else {
        return Ok(Presence::Absent);
    };
    let metadata = stat_fd(fd.as_fd(), root.origin())?;
    regular(metadata.kind)?;
    Ok(Presence::Found((File::from(fd), metadata)))
}

pub(super) fn read_link(root: &Opened, path: &ObjectPath) -> Result<Presence<Vec<u8>>, Failure> {
    let Presence::Found(fd) = look(root, path)? else {
        return Ok(Presence::Absent);
    };
    if stat_fd(fd.as_fd(), root.origin())?.kind != Kind::Symlink {
        return Err(Failure::Refused(ErrorKind::Unsupported, "it is not a symbolic link"));
    }
    let target = rustix::fs::readlinkat(&fd, c"", Vec::new()).map_err(Failure::Object)?;
    Ok(Presence::Found(target.into_bytes()))
}
