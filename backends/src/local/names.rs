//! Changes of names: what is made, linked, renamed and removed in a directory beneath the root.
//!
//! The directory is opened beneath the root; the last part of a path is given to the kernel with that directory, and no
//! link is followed. What the change has led to is told from the disk, for the catalog to follow.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::asker::{self, Asker};
use super::beneath::{self, Failure, checked, found};
use super::held::Held;
use super::root::Opened;
use super::{Folder, LocalBackend, LocalFile, attributes, regular};
use crate::{ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Result};

/// How often an opening is tried anew because a name came or went in the middle of it.
const TRIES: usize = 8;

/// A name in a directory of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub directory: ObjectPath,
    /// The name in it, raw.
    pub name: Vec<u8>,
}

impl Place {
    /// Gives the path of what has the name.
    pub fn path(&self) -> ObjectPath {
        self.directory.join(&self.name)
    }
}

/// Something that is made at once, and not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Making {
    /// A directory.
    Directory,
    /// An empty regular file.
    File,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device of this number.
    CharDevice(u64),
    /// A block device of this number.
    BlockDevice(u64),
}

/// What a rename does with something that has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Takes its place.
    Replace,
    /// Fails.
    NoReplace,
    /// Gives it the old name.
    Exchange,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// For reading.
    Read,
    /// For writing, and for reading too where that is allowed.
    Write,
    /// For both.
    ReadWrite,
}

/// Something that was made or has a new name, and the directory in which it stands now.
#[derive(Debug)]
pub struct Made {
    /// As it is now.
    pub object: Metadata,
    /// The directory, as it is now.
    pub directory: Metadata,
}

/// Something that has a name less.
#[derive(Debug)]
pub struct Removed {
    /// As it was before.
    pub object: Metadata,
    /// The directory in which it stood, as it is now.
    pub directory: Metadata,
    /// The object itself, if it was to be kept at hand or has further names.
    pub held: Option<Held>,
}

/// What a rename has led to.
#[derive(Debug)]
pub struct Renamed {
    /// What was renamed, as it is now.
    pub object: Metadata,
    /// The directory that it left, as it is now.
    pub from: Metadata,
    /// The directory in which it stands, as it is now.
    pub to: Metadata,
    /// What it has replaced, as it was before.
    pub replaced: Option<Metadata>,
    /// What it has replaced, if that was to be kept at hand or has further names.
    pub held: Option<Held>,
    /// Both were names of one object, and both are there still.
    pub nothing: bool,
}

/// A directory in which something changes.
struct Directory {
    root: Opened,
    fd: OwnedFd,
}

impl LocalBackend {
    /// Makes something. `Absent`: the directory is not there.
    pub fn make(&self, place: &Place, making: &Making, permissions: u32, asker: Asker) -> Result<Presence<Made>> {
        let operation = match making {
            Making::Directory => Operation::CreateDirectory,
            _ => Operation::Create,
        };
        self.changed(operation, place, |directory, name| {
            let fd = &directory.fd;
            let make_node = |kind, number| {
                asker::making(asker, permissions, |mode| {
                    rustix::fs::mknodat(fd, name, kind, mode, number)
                })
            };
            let made = match making {
                Making::Directory => asker::making(asker, permissions, |mode| rustix::fs::mkdirat(fd, name, mode)),
                Making::Symlink(target) => {
                    asker::making(asker, permissions, |_| rustix::fs::symlinkat(&target[..], fd, name))
                }
                Making::File => make_node(FileType::RegularFile, 0),
                Making::Fifo => make_node(FileType::Fifo, 0),
                Making::Socket => make_node(FileType::Socket, 0),
                Making::CharDevice(number) => make_node(FileType::CharacterDevice, *number),
                Making::BlockDevice(number) => make_node(FileType::BlockDevice, *number),
            };
            changing(made)?.map_or(Ok(Presence::Absent), |()| directory.made(name).map(Presence::Found))
        })
    }

    /// Opens a file for writing (or as `access` says), making it if it is not there; `exclusive` refuses one that is.
    /// Tells whether it was made. `Absent`: the directory is not there.
    pub fn create_file(
        &self,
        place: &Place,
        permissions: u32,
        access: FileAccess,
        exclusive: bool,
        asker: Asker,
    ) -> Result<Presence<(LocalFile, Made, bool)>> {
        let may_hang = self.may_hang(&place.directory);
        let opened = self.changed(Operation::Create, place, |directory, name| {
            let common = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            for _ in 0..TRIES {
                // Reading comes with it: the kernel fills up pages that are written in part.
                let flags = common | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
                let made = asker::making(asker, permissions, |mode| {
                    rustix::fs::openat(&directory.fd, name, flags, mode)
                });
                match made {
                    Err(Errno::EXIST) if !exclusive => {}
                    made => {
                        let Some(fd) = changing(made)? else {
                            return Ok(Presence::Absent);
                        };
                        return Ok(Presence::Found((File::from(fd), directory.made(name)?, true)));
                    }
                }
                let Some(seen) = directory.look(name)? else { continue };
                regular(seen.kind)?;
                match open_access(access, |flags| {
                    rustix::fs::openat(&directory.fd, name, common | flags, Mode::empty())
                }) {
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Failure::Change(errno)),
                    Ok(fd) => {
                        let object = beneath::stat_fd(fd.as_fd(), directory.root.origin())?;
                        regular(object.kind)?;
                        let made = Made {
                            object,
                            directory: directory.now()?,
                        };
                        return Ok(Presence::Found((File::from(fd), made, false)));
                    }
                }
            }
            Err(Failure::Change(Errno::AGAIN))
        })?;
        Ok(match opened {
            Presence::Absent => Presence::Absent,
            Presence::Found((file, made, is_new)) => {
                let file = self.writable(file, place.path(), may_hang, &made.object);
                Presence::Found((file, made, is_new))
            }
        })
    }

    /// Makes an empty file that has no name yet, in the file system of a directory: for this process's user alone, until
    /// it is given other attributes, and gone when it is closed before it is [given a name](Self::link) there. `Absent`: the
    /// directory is not there.
    ///
    /// # Errors
    /// `Unsupported` where the file system has no such files.
    pub fn make_unnamed(&self, directory: &ObjectPath) -> Result<Presence<LocalFile>> {
        let unnamed = || {
            let Presence::Found(within) = self.folder.directory(directory)? else {
                return Ok(Presence::Absent);
            };
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&within.fd, c".", flags, Mode::RUSR | Mode::WUSR);
            let fd = opened.map_err(|errno| match errno {
                // A kernel, or a file system, that does not know of them, says what it makes of the rest.
                Errno::ISDIR | Errno::INVAL | Errno::NOENT => Failure::Change(Errno::OPNOTSUPP),
                errno => Failure::Change(errno),
            })?;
            let seen = beneath::stat_fd(fd.as_fd(), within.root.origin())?;
            Ok(Presence::Found((File::from(fd), seen)))
        };
        let unnamed = unnamed().map_err(|failure| self.folder.error(Operation::Create, directory, failure))?;
        Ok(match unnamed {
            Presence::Found((file, seen)) => {
                let may_hang = self.may_hang(directory);
                Presence::Found(self.writable(file, directory.clone(), may_hang, &seen))
            }
            Presence::Absent => Presence::Absent,
        })
    }

    /// Gives something a further name. `Absent`: it, or the directory, is not there.
    pub fn link(&self, object: &Held, place: &Place) -> Result<Presence<Made>> {
        self.changed(Operation::Link, place, |directory, name| {
            // The other way, by the descriptor alone, needs rights that not everybody has.
            let by_descriptor = object.by_descriptor();
            let linked = rustix::fs::linkat(
                rustix::fs::CWD,
                by_descriptor.as_str(),
                &directory.fd,
                name,
                AtFlags::SYMLINK_FOLLOW,
            );
            changing(linked)?.map_or(Ok(Presence::Absent), |()| directory.made(name).map(Presence::Found))
        })
    }

    /// Takes a name away: of an empty directory, or of anything else. `keep`: keeps the object at hand, if it is not a
    /// directory. `Absent`: it is not there.
    pub fn remove(&self, place: &Place, is_directory: bool, keep: bool) -> Result<Presence<Removed>> {
        let (operation, flags) = if is_directory {
            (Operation::RemoveDirectory, AtFlags::REMOVEDIR)
        } else {
            (Operation::RemoveFile, AtFlags::empty())
        };
        self.changed(operation, place, |directory, name| {
            let Some(object) = directory.look(name)? else {
                return Ok(Presence::Absent);
            };
            let held = if !is_directory && (keep || object.links > 1) {
                self.hold_in(directory, name, place)?
            } else {
                None
            };
            if changing(rustix::fs::unlinkat(&directory.fd, name, flags))?.is_none() {
                return Ok(Presence::Absent);
            }
            let directory = directory.now()?;
            Ok(Presence::Found(Removed {
                object,
                directory,
                held,
            }))
        })
    }

    /// Renames something within the source. `keep`: keeps at hand what it replaces. `Absent`: it, or one of the directories,
    /// is not there.
    pub fn rename_local(&self, from: &Place, to: &Place, mode: RenameMode, keep: bool) -> Result<Presence<Renamed>> {
        self.rename_into(from, self, to, mode, keep)
    }

    /// The same to a place in another folder of this machine.
    ///
    /// # Errors
    /// `CrossDevice`: it would have to be copied.
    pub fn rename_into(
        &self,
        from: &Place,
        other: &Self,
        to: &Place,
        mode: RenameMode,
        keep: bool,
    ) -> Result<Presence<Renamed>> {
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => RenameFlags::NOREPLACE,
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        self.changed(Operation::Rename, from, |source, name| {
            let Presence::Found(target) = other.folder.directory(&to.directory)? else {
                return Ok(Presence::Absent);
            };
            let new_name = part(&to.name)?;
            let before = match mode {
                RenameMode::NoReplace => None,
                RenameMode::Replace | RenameMode::Exchange => target.look(new_name)?,
            };
            let held = match &before {
                Some(before) if keep || before.links > 1 && before.kind != Kind::Directory => {
                    other.hold_in(&target, new_name, to)?
                }
                _ => None,
            };
            if changing(rustix::fs::renameat_with(&source.fd, name, &target.fd, new_name, flags))?.is_none() {
                return Ok(Presence::Absent);
            }
            let Made { object, directory } = target.made(new_name)?;
            // A file system does nothing if both are names of one object.
            let nothing = mode == RenameMode::Replace
                && before
                    .as_ref()
                    .is_some_and(|it| it.identity.is_some() && it.identity == object.identity);
            Ok(Presence::Found(Renamed {
                from: source.now()?,
                to: directory,
                replaced: before.filter(|_| mode == RenameMode::Replace && !nothing),
                held,
                object,
                nothing,
            }))
        })
    }

    /// Waits until the names in a directory are on the disk.
    pub fn sync_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        let sync = || {
            let root = self.folder.root.open()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Presence::Found(fd) = found(beneath::open(root.as_fd(), checked(path)?, flags))? else {
                return Ok(Presence::Absent);
            };
            match rustix::fs::fsync(&fd) {
                // A file system that has nothing to sync.
                Ok(()) | Err(Errno::INVAL) => Ok(Presence::Found(())),
                Err(errno) => Err(Failure::Change(errno)),
            }
        };
        sync().map_err(|failure| self.folder.error(Operation::Sync, path, failure))
    }

    /// Opens the directory of a place, and does something there.
    fn changed<T>(
        &self,
        operation: Operation,
        place: &Place,
        change: impl FnOnce(&Directory, &[u8]) -> std::result::Result<Presence<T>, Failure>,
    ) -> Result<Presence<T>> {
        let change = || {
            let name = part(&place.name)?;
            match self.folder.directory(&place.directory)? {
                Presence::Found(directory) => change(&directory, name),
                Presence::Absent => Ok(Presence::Absent),
            }
        };
        change().map_err(|failure| self.folder.error(operation, &place.path(), failure))
    }

    fn hold_in(&self, directory: &Directory, name: &[u8], place: &Place) -> std::result::Result<Option<Held>, Failure> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&directory.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(self.held(File::from(fd), place.path(), directory.root.origin()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failure::Change(errno)),
        }
    }

    /// Makes a writable file of a descriptor.
    pub(super) fn writable(&self, file: File, path: ObjectPath, may_hang: bool, seen: &Metadata) -> LocalFile {
        let (folder, threads) = (Arc::clone(&self.folder), Arc::clone(&self.threads));
        LocalFile::new(file, path, folder, threads, may_hang).for_writing(seen)
    }
}

impl Folder {
    /// Opens a directory in which names are to change.
    fn directory(&self, path: &ObjectPath) -> std::result::Result<Presence<Directory>, Failure> {
        let root = self.root.open()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        Ok(match found(beneath::open(root.as_fd(), checked(path)?, flags))? {
            Presence::Found(fd) => Presence::Found(Directory { root, fd }),
            Presence::Absent => Presence::Absent,
        })
    }
}

impl Directory {
    /// The directory itself.
    fn now(&self) -> std::result::Result<Metadata, Failure> {
        beneath::stat_fd(self.fd.as_fd(), self.root.origin())
    }

    /// What has a name; `None` if nothing has.
    fn look(&self, name: &[u8]) -> std::result::Result<Option<Metadata>, Failure> {
        match rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, attributes::WANTED) {
            Ok(stat) => beneath::described(self.fd.as_fd(), &stat, self.root.origin()).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failure::Change(errno)),
        }
    }

    /// What has just got a name.
    fn made(&self, name: &[u8]) -> std::result::Result<Made, Failure> {
        // Somebody may have taken it away again behind our back.
        let object = self.look(name)?.ok_or(Failure::Change(Errno::STALE))?;
        let directory = self.now()?;
        Ok(Made { object, directory })
    }
}

/// Opens with the access that is asked for. Who only writes may read as well where the file lets him: pages that are written
/// in part are filled up from it.
pub(super) fn open_access<T>(
    access: FileAccess,
    open: impl Fn(OFlags) -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    match access {
        FileAccess::Read => open(OFlags::RDONLY),
        FileAccess::ReadWrite => open(OFlags::RDWR),
        FileAccess::Write => match open(OFlags::RDWR) {
            Err(Errno::ACCESS) => open(OFlags::WRONLY),
            opened => opened,
        },
    }
}

/// Refuses what cannot be the last part of a path.
fn part(name: &[u8]) -> std::result::Result<&[u8], Failure> {
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(Failure::refused(
            ErrorKind::InvalidArgument,
            "a name of this machine is not empty, `.` or `..`, and has no slash or NUL in it",
        ));
    }
    Ok(name)
}

/// Sorts the outcome of a change: `None` means that what was to be changed, or its directory, is not there.
pub(super) fn changing<T>(result: std::result::Result<T, Errno>) -> std::result::Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Failure::Change(errno)),
    }
}
