//! Listing a directory: `getdents` into one large buffer, and one `statx` for each child.
//!
//! Nothing is allocated for a child: names are borrowed from the buffer and attributes overwritten in place.

use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, RawDirEntry, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::attributes::Origin;
use super::beneath::Failure;
use super::hazard::Children;
use super::root::Opened;
use super::{attributes, beneath, mounts};
use crate::{Child, ErrorKind, Kind, Metadata, ObjectPath, Presence};

/// Room for what one `getdents` gives, in bytes: some 2,000 to 8,000 children.
const BUFFER_SIZE: usize = 256 * 1024;

/// How often a directory is opened again that was exchanged while we looked at it.
const ATTEMPTS_MAX: u32 = 3;

thread_local! {
    /// Kept by the threads that list directory after directory.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory that is being listed.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// The device the directory is on, and where what is on that comes from.
    device: u64,
    origin: Origin,
    root: Origin,
    /// Children that are not to be waited for.
    hazards: Children,
}

impl Directory {
    /// Opens a directory. `Absent` if nothing stands there; an error if something else does.
    pub(super) fn open(root: &Opened, path: &ObjectPath, hazards: Children) -> Result<Presence<Self>, Failure> {
        let bytes = beneath::checked(path)?;
        for _ in 0..ATTEMPTS_MAX {
            match beneath::open(
                root.as_fd(),
                bytes,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
            ) {
                Ok(fd) => {
                    return Self::new(root, fd, hazards).map(Presence::Found);
                }
                Err(Errno::NOENT) => return Ok(Presence::Absent),
                Err(Errno::NOTDIR | Errno::LOOP) => match beneath::stat(root, path)? {
                    Presence::Absent => return Ok(Presence::Absent),
                    Presence::Found(Metadata {
                        kind: Kind::Directory, ..
                    }) => {}
                    Presence::Found(_) => {
                        return Err(Failure::refused(ErrorKind::NotADirectory, "it is not a directory"));
                    }
                },
                Err(errno) => return Err(Failure::Object(errno)),
            }
        }
        Err(Failure::refused(
            ErrorKind::Other,
            "it is being exchanged again and again",
        ))
    }

    fn new(root: &Opened, fd: OwnedFd, hazards: Children) -> Result<Self, Failure> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, wanted).map_err(Failure::Object)?;
        // Reading the table of mounts costs more than the rest, so it is read where one file system ends and the next
        // begins; an old kernel does not tell where that is.
        let told = stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        let begins = !told || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        if begins && stat.stx_mnt_id != root.mount() {
            refuse_our_own(stat.stx_mnt_id)?;
        }
        let origin = beneath::origin(fd.as_fd(), &stat, root.origin()).map_err(Failure::Object)?;
        Ok(Self {
            fd,
            device: attributes::device(&stat),
            origin,
            root: root.origin(),
            hazards,
        })
    }

    /// Calls `each` for every child, until it breaks off. `Absent` if the directory was removed before its first child.
    pub(super) fn walk(
        &mut self,
        each: &mut dyn FnMut(&[u8], &Metadata) -> ControlFlow<()>,
    ) -> Result<Presence<()>, Failure> {
        let mut buffer = Buffer::take();
        let mut entries = RawDir::new(&self.fd, buffer.room());
        let mut metadata = attributes::blank();
        let mut first = true;
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) if first => return Ok(Presence::Absent),
                Err(errno) => return Err(listing_broke(errno)),
            };
            first = false;
            if self.child(&entry, &mut metadata)? && each(entry.file_name().to_bytes(), &metadata).is_break() {
                break;
            }
        }
        Ok(Presence::Found(()))
    }

    /// Gives the children that one system call brings, or `None` after the last.
    pub(super) fn page(&mut self) -> Result<Option<Vec<Child>>, Failure> {
        let mut buffer = Buffer::take();
        let mut entries = RawDir::new(&self.fd, buffer.room());
        let mut metadata = attributes::blank();
        let mut children = Vec::new();
        loop {
            match entries.next() {
                None => return Ok(None),
                Some(Err(errno)) => return Err(listing_broke(errno)),
                Some(Ok(entry)) => {
                    if self.child(&entry, &mut metadata)? {
                        let name = entry.file_name().to_bytes().to_vec();
                        children.push(Child {
                            name,
                            metadata: metadata.clone(),
                        });
                    }
                }
            }
            // The kernel has read no further than this; the next page goes on there.
            if entries.is_buffer_empty() {
                return Ok(Some(children));
            }
        }
    }

    /// Fills in the attributes of a child; false if it is none, or is gone.
    fn child(&self, entry: &RawDirEntry<'_>, metadata: &mut Metadata) -> Result<bool, Failure> {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            return Ok(false);
        }
        let hazard = self.hazards.get(name.to_bytes());
        match self.stat(name, hazard.is_some()) {
            Ok(stat) => {
                let origin = self.origin_of(name, &stat, hazard).map_err(Failure::Object)?;
                match attributes::fill(metadata, &stat, origin) {
                    Some(()) => Ok(true),
                    None => Err(Failure::refused(
                        ErrorKind::Nonsense,
                        "a child's type is none of Linux's",
                    )),
                }
            }
            Err(Errno::NOENT) => Ok(false),
            // A child must not vanish because it may not be looked at (a directory without `x`), nor must one mount
            // that is dead (a directory, then) take its neighbours with it. But a file whose attributes should be had
            // and cannot would have to be given a size; so the listing fails.
            Err(errno) => match attributes::kind(entry.file_type()) {
                Some(kind) if kind == Kind::Directory || matches!(errno, Errno::ACCESS | Errno::PERM) => {
                    attributes::fill_refused(metadata, kind, entry.ino());
                    Ok(true)
                }
                _ => Err(Failure::Object(errno)),
            },
        }
    }

    /// A child on another device than its directory is a mount point. `hazard` tells of one that is not to be asked
    /// whether it makes up its inode numbers.
    fn origin_of(&self, name: &CStr, stat: &Statx, hazard: Option<bool>) -> Result<Origin, Errno> {
        if let Some(passing_inodes) = hazard {
            return Ok(Origin {
                inodes_last: !passing_inodes,
                ..self.root
            });
        }
        if attributes::device(stat) == self.device {
            return Ok(self.origin);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        beneath::origin(fd.as_fd(), stat, self.root)
    }

    /// `now` takes what the kernel knows, and asks no other machine or process.
    fn stat(&self, name: &CStr, now: bool) -> Result<Statx, Errno> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        if now {
            flags |= AtFlags::STATX_DONT_SYNC;
        }
        rustix::fs::statx(&self.fd, name, flags, attributes::WANTED)
    }
}

fn listing_broke(errno: Errno) -> Failure {
    match errno {
        Errno::NOENT => Failure::refused(ErrorKind::Other, "it was removed while it was being listed"),
        errno => Failure::Object(errno),
    }
}

/// Refuses to go into a mount of manifold: what is in it came from here, and would go round for ever.
fn refuse_our_own(mount: u64) -> Result<(), Failure> {
    match mounts::by_id(mount) {
        Ok(Some(mount)) if mount.is_manifold() => Err(Failure::refused(
            ErrorKind::Unsupported,
            "a mount of manifold stands here, and is not gone into",
        )),
        // Where the table cannot be read, the caller's own check of its mount points is what there is.
        _ => Ok(()),
    }
}

/// The thread's buffer, given back when it is dropped.
struct Buffer(Vec<u8>);

impl Buffer {
    fn take() -> Self {
        // One that is in use (a listing within a listing) leaves an empty one behind.
        let mut buffer = BUFFER.take();
        buffer.reserve_exact(BUFFER_SIZE);
        Self(buffer)
    }

    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.spare_capacity_mut()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.0));
    }
}
