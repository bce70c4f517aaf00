//! Which parts of a source lie on a file system that may hang: one whose answers come from another machine or from
//! another process, which may be gone.
//!
//! Known from the kernel's table of mounts alone, which answers whatever has become of the file systems in it; asking
//! the path itself (`statfs`) would be the call that hangs. What is not known to live on this machine's own devices may
//! hang: that costs a thread, and the other way round it would cost the mount.
//!
//! Always true: nothing here touches a file system.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mounts::{self, Mount};
use crate::ObjectPath;

/// File systems of devices and memory of this machine. `overlay` is one of them where it is used: beneath containers.
const HARMLESS: [&str; 37] = [
    "bcachefs",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "ecryptfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfsplus",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "msdos",
    "nilfs2",
    "ntfs3",
    "overlay",
    "proc",
    "ramfs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
];

/// A mount within a source, or around it, that may hang.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hazard {
    /// Where it is, beneath the source's root.
    path: Vec<u8>,
    made_of_fuse: bool,
}

/// What the table of mounts says of one source.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// The root itself, or the way to it, lies on such a file system.
    root: bool,
    beneath: Vec<Hazard>,
    /// The ids of all such mounts, wherever they are.
    ids: Vec<u64>,
}

/// The children of one directory that are such mounts: they are looked at without asking their file system.
#[derive(Debug, Default)]
pub(super) struct Children(Vec<(Vec<u8>, bool)>);

/// Watches the table of mounts for one source.
#[derive(Debug)]
pub(super) struct Hazards {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: Option<File>,
    known: Arc<Known>,
}

impl Hazards {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            state: Mutex::default(),
        }
    }

    /// Tells whether a look at `path` may hang. `mount` is the id of the mount that the root was last seen on, which
    /// tells more than its path where a link is in it.
    pub(super) fn may_hang(&self, path: &ObjectPath, mount: Option<u64>) -> bool {
        self.known().may_hang(path, mount)
    }

    /// Finds the children of a directory that may hang.
    pub(super) fn children(&self, directory: &ObjectPath) -> Children {
        self.known().children(directory)
    }

    /// Reads the table where it has changed.
    fn known(&self) -> Arc<Known> {
        let mut state = self.state.lock();
        match state.look(&self.root) {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "the table of mounts cannot be read");
                state.table = None;
                state.known = Arc::new(Known {
                    root: true,
                    ..Known::default()
                });
            }
        }
        Arc::clone(&state.known)
    }
}

impl State {
    fn look(&mut self, root: &Path) -> std::io::Result<()> {
        let (table, is_new) = match &mut self.table {
            Some(table) => (table, false),
            none => (none.insert(File::open(mounts::TABLE)?), true),
        };
        // proc(5): a change since the last look shows as an exceptional condition. Asked before reading, so that none is missed.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let has_changed = poll(&mut [PollFd::new(&*table, PollFlags::PRI)], Some(&now))? > 0;
        if is_new || has_changed {
            let mut text = Vec::new();
            table.seek(SeekFrom::Start(0))?;
            table.read_to_end(&mut text)?;
            self.known = Arc::new(Known::of(&mounts::parse(&text), root));
        }
        Ok(())
    }
}

impl Known {
    fn of(mounts: &[Mount], root: &Path) -> Self {
        let mut known = Self::default();
        for (index, mount) in mounts.iter().enumerate() {
            let kind = mount.filesystem.as_str();
            if HARMLESS.contains(&kind) {
                continue;
            }
            known.ids.push(mount.id);
            // What is mounted over it at the same place hides it.
            if mounts[index + 1..].iter().any(|later| later.at == mount.at) {
                continue;
            }
            if root.starts_with(&mount.at) {
                known.root = true;
            } else if let Ok(path) = mount.at.strip_prefix(root) {
                known.beneath.push(Hazard {
                    path: path.as_os_str().as_bytes().to_vec(),
                    made_of_fuse: kind.starts_with("fuse") || kind == "virtiofs",
                });
            }
        }
        known
    }

    fn may_hang(&self, path: &ObjectPath, mount: Option<u64>) -> bool {
        self.root
            || mount.is_some_and(|id| self.ids.contains(&id))
            || self
                .beneath
                .iter()
                .any(|hazard| beneath(path.as_bytes(), &hazard.path).is_some())
    }

    fn children(&self, directory: &ObjectPath) -> Children {
        let child = |hazard: &Hazard| {
            let name = beneath(&hazard.path, directory.as_bytes())?;
            (!name.is_empty() && !name.contains(&b'/')).then(|| (name.to_vec(), hazard.made_of_fuse))
        };
        Children(self.beneath.iter().filter_map(child).collect())
    }
}

impl Children {
    /// Tells whether a child may hang; if so, whether its file system makes up inode numbers as it goes.
    pub(super) fn get(&self, name: &[u8]) -> Option<bool> {
        self.0.iter().find(|(child, _)| child == name).map(|(_, fuse)| *fuse)
    }
}

/// Gives the rest of a path beneath a directory, without the slash; empty for the directory itself.
fn beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(directory)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, at: &str, filesystem: &str) -> Mount {
        Mount {
            id,
            at: at.into(),
            filesystem: filesystem.into(),
            device: "none".into(),
        }
    }

    #[test]
    fn what_lies_on_another_machine_or_process_is_found_around_and_within_a_source() {
        let mounts = [
            mount(1, "/", "ext4"),
            mount(2, "/home/ada/nas", "nfs4"),
            mount(3, "/home/ada/phone", "fuse.simple-mtpfs"),
            mount(4, "/mnt/share", "cifs"),
            mount(5, "/home/ada/old", "fuse.sshfs"),
            mount(6, "/home/ada/old", "tmpfs"),
        ];
        let home = Known::of(&mounts, Path::new("/home/ada"));
        assert!(!home.root);
        let paths: Vec<_> = home.beneath.iter().map(|hazard| &hazard.path[..]).collect();
        assert_eq!(paths, [&b"nas"[..], b"phone"], "what is covered does not count");
        assert_eq!(home.ids, [2, 3, 4, 5]);
        assert!(Known::of(&mounts, Path::new("/mnt/share/Films")).root);
        assert!(!Known::of(&mounts, Path::new("/mnt/shared")).root);
        assert!(Known::of(&[mount(1, "/", "9p")], Path::new("/any")).root);
    }

    #[test]
    fn a_look_at_a_path_may_hang_where_a_mount_is_at_it_or_above() {
        let known = Known {
            root: false,
            beneath: vec![Hazard {
                path: b"a/nas".to_vec(),
                made_of_fuse: false,
            }],
            ids: vec![7],
        };
        let may_hang = |path: &str| known.may_hang(&ObjectPath::from_bytes(path), Some(3));
        assert!(may_hang("a/nas") && may_hang("a/nas/x/y"));
        assert!(!may_hang("a") && !may_hang("a/nas2") && !may_hang(""));
        assert!(
            known.may_hang(&ObjectPath::root(), Some(7)),
            "its root was seen on such a mount"
        );
        let children = known.children(&ObjectPath::from_bytes("a"));
        assert_eq!((children.get(b"nas"), children.get(b"other")), (Some(false), None));
        assert_eq!(known.children(&ObjectPath::root()).get(b"a"), None);
    }

    #[test]
    fn the_table_is_read_at_the_first_look_and_then_where_it_has_changed() {
        let hazards = Hazards::new("/proc".into());
        assert!(!hazards.may_hang(&ObjectPath::root(), None), "proc does not hang");
        assert!(!hazards.known().root);
    }
}
