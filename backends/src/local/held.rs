//! An object of this machine that is at hand by a descriptor, whatever becomes of its name: for its attributes.
//!
//! The descriptor may be one that can neither read nor write, so that pipes and devices notice nothing and links are not
//! followed. What the kernel does only by path is done by the path of the descriptor itself (`/proc/self/fd`), which leads
//! to the object and nowhere else.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::asker;
use super::attributes::{self, Origin};
use super::beneath::{self, Failure};
use super::names::{FileAccess, changing, open_access};
use super::{Folder, LocalBackend, LocalFile, regular};
use crate::{Kind, Metadata, ObjectPath, Operation, Presence, Result};

/// The longest value, or list of names, of extended attributes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTRS_MAX: usize = 65_536;
/// Most values are far shorter.
const XATTR_USUAL: usize = 1_024;

/// An object at hand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Held {
    fd: Arc<File>,
    path: ObjectPath,
    folder: Arc<Folder>,
    origin: Origin,
}

/// A change of attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits (`0o7777`).
    pub mode: Option<u32>,
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The length, in bytes.
    pub size: Option<u64>,
    /// The time of the last read.
    pub accessed: Option<NewTime>,
    /// The time of the last change of the bytes.
    pub modified: Option<NewTime>,
}

/// What a time is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// The file system's present time.
    Now,
    /// Seconds since 1970-01-01 UTC, and nanoseconds after that.
    At(i64, u32),
}

/// What an extended attribute must be before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Anything.
    Any,
    /// Not there.
    Create,
    /// There.
    Replace,
}

impl LocalBackend {
    /// Takes an object at hand, without following a link.
    pub fn hold(&self, path: &ObjectPath) -> Result<Presence<Held>> {
        let hold = || {
            let root = self.folder.root.open()?;
            let Presence::Found(fd) = beneath::look(&root, path)? else {
                return Ok(Presence::Absent);
            };
            Ok(Presence::Found(self.held(File::from(fd), path.clone(), root.origin())))
        };
        hold().map_err(|failure| self.folder.error(Operation::Open, path, failure))
    }

    pub(super) fn held(&self, fd: File, path: ObjectPath, origin: Origin) -> Held {
        Held::new(Arc::new(fd), path, Arc::clone(&self.folder), origin)
    }

    /// Opens a regular file, and gives its attributes as they are then. For reading it is as [`open_file`](Self::open_file).
    pub fn open_as(&self, path: &ObjectPath, access: FileAccess) -> Result<Presence<(LocalFile, Metadata)>> {
        if access == FileAccess::Read {
            return self.open_file(path);
        }
        match self.hold(path)? {
            Presence::Found(held) => self.open_held(&held, access).map(Presence::Found),
            Presence::Absent => Ok(Presence::Absent),
        }
    }

    /// As [`open_as`](Self::open_as), on a thread of the source. The wait has no end of its own.
    pub async fn open_as_soon(&self, path: &ObjectPath, access: FileAccess) -> Result<Presence<(LocalFile, Metadata)>> {
        if access == FileAccess::Read {
            return self.open_file_soon(path).await;
        }
        let object = path.clone();
        self.on_thread(Operation::Open, path, move |local| local.open_as(&object, access))
            .await?
    }

    /// Opens an object that is at hand, a regular file, whatever its name is by now.
    pub fn open_held(&self, held: &Held, access: FileAccess) -> Result<(LocalFile, Metadata)> {
        let open = || {
            let seen = held.look()?;
            regular(seen.kind)?;
            let path = held.by_descriptor();
            let common = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let fd = open_access(access, |flags| {
                rustix::fs::openat(CWD, path.as_str(), common | flags, Mode::empty())
            })
            .map_err(Failure::Change)?;
            Ok((File::from(fd), seen))
        };
        let (file, seen) = open().map_err(|failure| self.folder.error(Operation::Open, &held.path, failure))?;
        let may_hang = self.may_hang(&held.path);
        let file = match access {
            FileAccess::Read => {
                let (folder, threads) = (Arc::clone(&self.folder), Arc::clone(&self.threads));
                LocalFile::new(file, held.path.clone(), folder, threads, may_hang)
            }
            FileAccess::Write | FileAccess::ReadWrite => self.writable(file, held.path.clone(), may_hang, &seen),
        };
        Ok((file, seen))
    }
}

impl Held {
    pub(super) fn new(fd: Arc<File>, path: ObjectPath, folder: Arc<Folder>, origin: Origin) -> Self {
        Self {
            fd,
            path,
            folder,
            origin,
        }
    }

    /// Gives the path at which it was found.
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// Tells whether its file system may hang, as far as the kernel's table of mounts tells.
    pub fn may_hang(&self) -> bool {
        self.folder.may_hang(&self.path)
    }

    /// Gives the attributes as they are now.
    pub fn metadata(&self) -> Result<Metadata> {
        self.look().map_err(|failure| self.failed(Operation::Stat, failure))
    }

    /// Gives the length on the disk as well, in units of 512 bytes.
    pub fn metadata_and_blocks(&self) -> Result<(Metadata, u64)> {
        let look = || {
            let stat =
                rustix::fs::statx(&*self.fd, c"", AtFlags::EMPTY_PATH, attributes::WANTED).map_err(Failure::Object)?;
            Ok((
                beneath::described(self.fd.as_fd(), &stat, self.origin)?,
                stat.stx_blocks,
            ))
        };
        look().map_err(|failure| self.failed(Operation::Stat, failure))
    }

    /// Gives where a symbolic link points.
    pub fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&*self.fd, c"", Vec::new()).map_err(Failure::Object);
        let target = target.map_err(|failure| self.failed(Operation::ReadLink, failure))?;
        Ok(target.into_bytes())
    }

    /// Changes attributes, and gives them all as they are then. `keep_privileges`: whoever asks may keep the set-user-ID and
    /// set-group-ID bits of a file whose length he changes.
    pub fn set(&self, change: &AttributeChange, keep_privileges: bool) -> Result<Metadata> {
        let set = || {
            if let Some(size) = change.size {
                let truncate = || self.truncate(size);
                if keep_privileges {
                    truncate()?;
                } else {
                    asker::dropping_privileges(truncate)?;
                }
            }
            self.set_owner(change)?;
            if let Some(mode) = change.mode {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                rustix::fs::chmodat(CWD, self.by_descriptor().as_str(), mode, AtFlags::empty())
                    .map_err(Failure::Change)?;
            }
            self.set_times(change)?;
            self.look()
        };
        set().map_err(|failure| self.failed(Operation::SetAttributes, failure))
    }

    fn truncate(&self, size: u64) -> std::result::Result<(), Failure> {
        if self.look()?.kind != Kind::File {
            return Err(Failure::Change(Errno::INVAL));
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(CWD, self.by_descriptor().as_str(), flags, Mode::empty()).map_err(Failure::Change)?;
        rustix::fs::ftruncate(&file, size).map_err(Failure::Change)
    }

    fn set_owner(&self, change: &AttributeChange) -> std::result::Result<(), Failure> {
        if change.uid.is_none() && change.gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        rustix::fs::chownat(&*self.fd, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(Failure::Change)
    }

    fn set_times(&self, change: &AttributeChange) -> std::result::Result<(), Failure> {
        if change.accessed.is_none() && change.modified.is_none() {
            return Ok(());
        }
        let time = |new: Option<NewTime>| {
            let (seconds, rest) = match new {
                None => (0, rustix::fs::UTIME_OMIT),
                Some(NewTime::Now) => (0, rustix::fs::UTIME_NOW),
                Some(NewTime::At(whole, nanoseconds)) => (whole, nanoseconds.into()),
            };
            Timespec {
                tv_sec: seconds,
                tv_nsec: rest,
            }
        };
        let times = Timestamps {
            last_access: time(change.accessed),
            last_modification: time(change.modified),
        };
        rustix::fs::utimensat(&*self.fd, c"", &times, AtFlags::EMPTY_PATH).map_err(Failure::Change)
    }

    /// Gives the value of an extended attribute; `None` if there is none of that name.
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = self.by_descriptor();
        let get = |room| {
            let mut value = Vec::with_capacity(room);
            rustix::fs::getxattr(path.as_str(), name, rustix::buffer::spare_capacity(&mut value)).map(|_| value)
        };
        match get(XATTR_USUAL).or_else(|errno| {
            if errno == Errno::RANGE {
                get(XATTRS_MAX)
            } else {
                Err(errno)
            }
        }) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(self.failed(Operation::ExtendedAttributes, Failure::Change(errno))),
        }
    }

    /// Gives the names of all extended attributes, each with a NUL after it.
    pub fn xattrs(&self) -> Result<Vec<u8>> {
        let path = self.by_descriptor();
        let list = |room| {
            let mut names = Vec::with_capacity(room);
            rustix::fs::listxattr(path.as_str(), rustix::buffer::spare_capacity(&mut names)).map(|_| names)
        };
        list(XATTR_USUAL)
            .or_else(|errno| {
                if errno == Errno::RANGE {
                    list(XATTRS_MAX)
                } else {
                    Err(errno)
                }
            })
            .map_err(|errno| self.failed(Operation::ExtendedAttributes, Failure::Change(errno)))
    }

    /// Sets an extended attribute, and gives the other attributes as they are then.
    pub fn set_xattr(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<Metadata> {
        let flags = match mode {
            SetMode::Any => XattrFlags::empty(),
            SetMode::Create => XattrFlags::CREATE,
            SetMode::Replace => XattrFlags::REPLACE,
        };
        let set = || {
            rustix::fs::setxattr(self.by_descriptor().as_str(), name, value, flags).map_err(Failure::Change)?;
            self.look()
        };
        set().map_err(|failure| self.failed(Operation::ExtendedAttributes, failure))
    }

    /// Takes an extended attribute away, and gives the other attributes as they are then.
    pub fn remove_xattr(&self, name: &[u8]) -> Result<Metadata> {
        let remove = || {
            changing(rustix::fs::removexattr(self.by_descriptor().as_str(), name))?;
            self.look()
        };
        remove().map_err(|failure| self.failed(Operation::ExtendedAttributes, failure))
    }

    /// Gives the path that leads to the object by its descriptor.
    pub(super) fn by_descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    fn look(&self) -> std::result::Result<Metadata, Failure> {
        beneath::stat_fd(self.fd.as_fd(), self.origin)
    }

    fn failed(&self, operation: Operation, failure: Failure) -> crate::Error {
        self.folder.error(operation, &self.path, failure)
    }
}
