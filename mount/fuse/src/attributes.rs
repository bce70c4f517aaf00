//! The file system's attributes in the kernel's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use manifold_catalog::{EntryId, Kind};
use manifold_vfs::Attributes;

/// What `stat` calls the preferred size of a read. `cp` and `cat` read in units of it; larger is fewer system calls.
const PREFERRED_READ: u32 = 128 * 1024;

/// The largest file that a kernel can address.
const SIZE_MAX: u64 = i64::MAX as u64;

/// `attributes` as the kernel wants them; `owner` stands in where the source knows none.
pub(crate) fn file_attr(attributes: &Attributes, owner: (u32, u32)) -> FileAttr {
    let (uid, gid) = attributes.owner.unwrap_or(owner);
    let modified = time(attributes.modified_ns);
    FileAttr {
        ino: INodeNo(attributes.id.0),
        size: attributes.size.min(SIZE_MAX),
        blocks: attributes.blocks.min(SIZE_MAX),
        // Nobody records when a remote object was read; the kernel's `relatime` would answer the same.
        atime: attributes.accessed_ns.map_or(modified, time),
        mtime: modified,
        ctime: time(attributes.changed_ns),
        crtime: attributes.created_ns.map_or(UNIX_EPOCH, time),
        kind: file_type(attributes.kind),
        perm: attributes.mode & 0o7777,
        nlink: match attributes.kind {
            // `find` takes a directory's links, less two, for the number of its subdirectories and stops looking beyond
            // them. One link says that they are not counted, as on btrfs.
            Kind::Directory => 1,
            _ => attributes.links,
        },
        uid,
        gid,
        rdev: device(attributes.device),
        blksize: PREFERRED_READ,
        flags: 0,
    }
}

/// The answer that says: there is no such name, and you may remember that.
///
/// A look-up that gives inode 0 is how FUSE says so; with ENOENT the kernel would ask again each time.
pub(crate) fn no_entry() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

pub(crate) fn entry_id(ino: INodeNo) -> EntryId {
    EntryId(ino.0)
}

pub(crate) fn inode(id: EntryId) -> INodeNo {
    INodeNo(id.0)
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    // 64 bits of nanoseconds reach from 1677 to 2262, which SystemTime covers many times over.
    if ns < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// A device number as FUSE carries it: the kernel's `new_encode_dev`, 12 bits of major and 20 of minor.
fn device(number: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// A device number as the file system has it, from the form in which FUSE carries it.
pub(crate) fn device_number(encoded: u32) -> u64 {
    rustix::fs::makedev((encoded >> 8) & 0xfff, (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            id: EntryId(42),
            kind: Kind::File,
            size: 10,
            blocks: 1,
            modified_ns: 1,
            changed_ns: 2,
            accessed_ns: None,
            created_ns: None,
            mode: 0o644,
            owner: None,
            links: 1,
            device: 0,
            volatile: false,
        }
    }

    #[test]
    fn sizes_beyond_what_a_kernel_can_address_are_cut() {
        let attr = file_attr(
            &Attributes {
                size: u64::MAX,
                ..attributes()
            },
            (0, 0),
        );
        assert_eq!(attr.size, i64::MAX as u64);
    }

    #[test]
    fn times_before_1970_and_at_both_ends_are_kept() {
        for ns in [i64::MIN, -1_500_000_000, -1, 0, 1, i64::MAX] {
            let attr = file_attr(
                &Attributes {
                    modified_ns: ns,
                    ..attributes()
                },
                (0, 0),
            );
            let seen = match attr.mtime.duration_since(UNIX_EPOCH) {
                Ok(after) => after.as_nanos() as i128,
                Err(before) => -(before.duration().as_nanos() as i128),
            };
            assert_eq!(seen, i128::from(ns));
        }
    }

    #[test]
    fn who_has_no_owner_belongs_to_the_mount() {
        let attr = file_attr(&attributes(), (1000, 1001));
        assert_eq!((attr.uid, attr.gid), (1000, 1001));
        let attr = file_attr(
            &Attributes {
                owner: Some((5, 6)),
                ..attributes()
            },
            (1000, 1001),
        );
        assert_eq!((attr.uid, attr.gid), (5, 6));
    }

    #[test]
    fn a_directory_does_not_count_its_subdirectories() {
        let attr = file_attr(
            &Attributes {
                kind: Kind::Directory,
                links: 17,
                ..attributes()
            },
            (0, 0),
        );
        assert_eq!(attr.nlink, 1);
    }

    #[test]
    fn device_numbers_keep_both_halves() {
        let number = rustix::fs::makedev(259, 70_000);
        let encoded = device(number);
        assert_eq!((encoded >> 8) & 0xfff, 259);
        assert_eq!((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00), 70_000);
        assert_eq!(device_number(encoded), number);
    }
}
