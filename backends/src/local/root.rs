//! The root of a local source: found anew for each operation, and known to be the folder that was added.
//!
//! A disk that is not mounted leaves its mount point behind, which is a folder like any other, and empty. Taking it for
//! the source would forget everything in the catalog. So the root is recognised by what stays the same across reboots
//! and plugging in: its inode number, the kind of its file system, and the file system's id where that is made from
//! its UUID. Device numbers are not among them: they are given out in the order in which disks turn up.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::attributes::{self, Origin};
use super::beneath::Failure;

const EXT: u64 = 0xef53;
const BTRFS: u64 = 0x9123_683e;
const BCACHEFS: u64 = 0xca45_1a4e;
const ZFS: u64 = 0x2fc1_2fc1;
const TMPFS: u64 = 0x0102_1994;
/// File systems whose `f_fsid` is made from their UUID (`fs/ext4/super.c`, `fs/btrfs/super.c`, `fs/bcachefs/fs.c`;
/// ZFS: from its GUID). That of a `tmpfs` lasts as long as what is in it (`mm/shmem.c`): another one that is mounted there later is
/// empty. Others make it from the device number.
const LASTING_IDS: [u64; 5] = [EXT, BTRFS, BCACHEFS, ZFS, TMPFS];

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): the id of a mount that is never given to another. Older systems give none.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// What tells a folder from another at the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootId {
    /// 0 where inode numbers do not last.
    inode: u64,
    /// The magic number of its file system (`statfs(2)`).
    filesystem: u64,
    /// The file system's id, where it outlasts a reboot.
    id: Option<u64>,
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.inode, self.filesystem)?;
        self.id.map_or(Ok(()), |id| write!(f, "-{id:x}"))
    }
}

impl FromStr for RootId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text
            .split('-')
            .map(|digits| u64::from_str_radix(digits, 16).map_err(drop));
        let mut next = || numbers.next().transpose();
        let id = Self {
            inode: next()?.ok_or(())?,
            filesystem: next()?.ok_or(())?,
            id: next()?,
        };
        if next()?.is_some() { Err(()) } else { Ok(id) }
    }
}

/// Where the root is, and what it must be.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    expected: Option<RootId>,
    /// The last place that was found to be the expected one, which saves asking the file system each time.
    verified: Option<Verified>,
}

#[derive(Clone, Copy, Debug)]
struct Verified {
    place: Place,
    inodes_last: bool,
}

/// Which inode it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
    mount: u64,
    /// Tells it from another mount that gets its id when it is gone; 0 where the system does not tell.
    only_mount: u64,
}

/// The root, opened for one operation.
#[derive(Debug)]
pub(super) struct Opened {
    fd: OwnedFd,
    place: Place,
    inodes_last: bool,
}

impl Opened {
    /// Where what is on the root's own file system comes from.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            root_device: self.place.device,
            inodes_last: self.inodes_last,
        }
    }

    /// The id of the mount, as in `/proc/self/mountinfo`.
    pub(super) fn mount(&self) -> u64 {
        self.place.mount
    }

    /// Tells what distinguishes this root from another folder.
    pub(super) fn id(&self) -> Result<RootId, Failure> {
        identify(&self.fd, self.place)
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    pub(super) fn new(path: PathBuf, expected: Option<RootId>) -> Self {
        Self {
            path,
            state: Mutex::new(State {
                expected,
                verified: None,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the id of the mount on which the root was last found.
    pub(super) fn mount_seen(&self) -> Option<u64> {
        self.state.lock().verified.map(|verified| verified.place.mount)
    }

    /// Gives the number of the device on which the root was last found; 0 if it was not found yet.
    pub(super) fn device_seen(&self) -> u64 {
        self.state.lock().verified.map_or(0, |verified| verified.place.device)
    }

    /// Gives the magic number of its file system, once it has been found.
    pub(super) fn filesystem(&self) -> Option<u64> {
        self.state.lock().expected.map(|id| id.filesystem)
    }

    /// Opens the root if it is there and the one that is expected. Without an expectation, the first one that is found
    /// sets it.
    pub(super) fn open(&self) -> Result<Opened, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, &self.path, flags, Mode::empty());
        let fd = opened.map_err(|errno| match self.state.lock().expected {
            Some(_) => Failure::root(errno),
            None => Failure::root_never_seen(errno),
        })?;
        let place = place(&fd).map_err(Failure::root)?;
        let verified = self.state.lock().verified;
        if let Some(Verified { inodes_last, .. }) = verified.filter(|verified| verified.place == place) {
            return Ok(Opened { fd, place, inodes_last });
        }
        // Asked without the lock: a file system that is away may keep the answer to itself.
        let id = identify(&fd, place)?;
        let inodes_last = attributes::inodes_last(id.filesystem);
        let mut state = self.state.lock();
        if state.expected.is_some_and(|expected| expected != id) {
            state.verified = None;
            return Err(Failure::other_root());
        }
        state.expected = Some(id);
        state.verified = Some(Verified { place, inodes_last });
        Ok(Opened { fd, place, inodes_last })
    }
}

fn identify(fd: &OwnedFd, place: Place) -> Result<RootId, Failure> {
    let filesystem = rustix::fs::fstatfs(fd).map_err(Failure::root)?.f_type as u64;
    let id = rustix::fs::fstatvfs(fd).map_err(Failure::root)?.f_fsid;
    let id = (LASTING_IDS.contains(&filesystem) && id != 0).then_some(id);
    let inode = if attributes::inodes_last(filesystem) {
        place.inode
    } else {
        0
    };
    Ok(RootId { inode, filesystem, id })
}

fn place(fd: &OwnedFd) -> Result<Place, Errno> {
    let ask = |wanted| rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted);
    let stat = ask(StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok(Place {
        device: attributes::device(&stat),
        inode: stat.stx_ino,
        mount: stat.stx_mnt_id,
        only_mount: ask(MNT_ID_UNIQUE)?.stx_mnt_id,
    })
}
