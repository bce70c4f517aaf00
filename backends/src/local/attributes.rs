//! From what the kernel says of an inode to [`Metadata`].

use rustix::fs::{FileType, Statx, StatxFlags, StatxTimestamp};

use crate::{Identity, Kind, Metadata, Timestamp, Version};

/// What is asked of the kernel for each entry.
pub(super) const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Tells the kind; `None` for a type that Linux does not have.
pub(super) fn kind(file_type: FileType) -> Option<Kind> {
    Some(match file_type {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return None,
    })
}

/// What has to be known of where an inode is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The device that the source's root is on.
    pub(super) root_device: u64,
    /// Whether the inode's file system gives a file the same number again after it has forgotten it.
    pub(super) inodes_last: bool,
}

/// File systems that make up inode numbers as they go: vfat, exFAT, and most that are built on FUSE.
const PASSING_INODES: [u64; 3] = [0x4d44, 0x2011_bab0, 0x6573_5546];

/// Tells [`Origin::inodes_last`] of a file system, by its magic number (`statfs(2)`).
pub(super) fn inodes_last(filesystem: u64) -> bool {
    !PASSING_INODES.contains(&filesystem)
}

/// Gives the attributes; `None` for an inode of a type that Linux does not have.
pub(super) fn metadata(stat: &Statx, origin: Origin) -> Option<Metadata> {
    let mut metadata = blank();
    fill(&mut metadata, stat, origin)?;
    Some(metadata)
}

/// Metadata to be overwritten by [`fill`] again and again, without allocating for each entry.
pub(super) fn blank() -> Metadata {
    Metadata {
        kind: Kind::File,
        size: 0,
        modified: None,
        changed: None,
        created: None,
        mode: None,
        owner: None,
        links: 1,
        device: 0,
        version: Version::default(),
        identity: None,
    }
}

/// Overwrites all of `metadata`; `None` (and garbage in it) for an inode of a type that Linux does not have.
pub(super) fn fill(metadata: &mut Metadata, stat: &Statx, origin: Origin) -> Option<()> {
    let kind = kind(FileType::from_raw_mode(stat.stx_mode.into()))?;
    let modified = timestamp(stat.stx_mtime);
    let changed = timestamp(stat.stx_ctime);
    let created = (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| timestamp(stat.stx_btime));
    metadata.kind = kind;
    metadata.size = if kind == Kind::Directory { 0 } else { stat.stx_size };
    metadata.modified = Some(modified);
    metadata.changed = Some(changed);
    metadata.created = created;
    metadata.mode = Some(u32::from(stat.stx_mode) & 0o7777);
    metadata.owner = Some((stat.stx_uid, stat.stx_gid));
    metadata.links = stat.stx_nlink;
    metadata.device = match kind {
        Kind::CharDevice | Kind::BlockDevice => rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        _ => 0,
    };
    let inode = if origin.inodes_last { stat.stx_ino } else { 0 };
    metadata.version.set_stat(metadata.size, modified, changed, inode);
    metadata.identity = origin
        .inodes_last
        .then(|| identity(device(stat), origin.root_device, inode, created));
    Some(())
}

/// Overwrites all of `metadata` with what a directory tells of a child whose attributes are refused.
pub(super) fn fill_refused(metadata: &mut Metadata, kind: Kind, inode: u64) {
    let mut version = std::mem::take(&mut metadata.version);
    version.set_stat(0, Timestamp::default(), Timestamp::default(), inode);
    *metadata = Metadata {
        kind,
        mode: Some(0),
        version,
        ..blank()
    };
}

/// Gives the number of the device an inode is on.
pub(super) fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp::from_parts(time.tv_sec, time.tv_nsec)
}

/// Recognises an inode: its number, and 64 bits mixed from its device and birth time.
///
/// The birth time is in it because a file system gives the number of a deleted file to the next one. Device numbers
/// change when disks are plugged in in another order, so the root's own counts as 0. The mixing is that of
/// `SplitMix64` (Steele, Lea, Flood 2014); the numbers come from the kernel, so no stronger hash is called for.
fn identity(device: u64, root_device: u64, inode: u64, created: Option<Timestamp>) -> Identity {
    fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    let device = if device == root_device { 0 } else { device };
    let created = created.map_or(0, |time| time.0 as u64);
    let rest = mix(mix(device.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ created);
    let mut bytes = [0; 16];
    // Big end first: neighbours on the disk are neighbours in an index of identities, which makes filling one cheap.
    bytes[..8].copy_from_slice(&inode.to_be_bytes());
    bytes[8..].copy_from_slice(&rest.to_le_bytes());
    Identity(bytes)
}
