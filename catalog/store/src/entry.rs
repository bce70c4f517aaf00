//! The words for what stands in the tree: ids, kinds, entries, and what is kept about each of them.

use std::fmt;

/// Names an entry for good: it is the entry's inode number, and is never given to another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64);

impl EntryId {
    /// The root of the tree.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a source within its library; never given to another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

impl SourceId {
    /// Owns the directories that exist only to hold attach points.
    pub const LIBRARY: Self = Self(0);
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What sort of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory, or a prefix of an object store.
    Directory,
    /// A regular file, or an object.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Everything that `stat` needs, from one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The directory it stands in. The root stands in itself.
    pub parent: EntryId,
    /// Its name as the tree shows it; empty for the root.
    pub name: Box<[u8]>,
    /// What sort of thing it is.
    pub kind: Kind,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Last change of the bytes, in nanoseconds since 1970 UTC; 0 where the source does not tell.
    pub modified_ns: i64,
    /// Last change of the attributes, in nanoseconds since 1970 UTC; 0 where the source does not tell.
    pub changed_ns: i64,
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner and group; `None`: show the mount's owner.
    pub owner: Option<(u32, u32)>,
    /// Number of hard links.
    pub links: u32,
    /// The source it belongs to.
    pub source: SourceId,
    /// Whether a source is attached here: it is the root of `source`.
    pub attach_point: bool,
    /// Whether `modified_ns` is what the mount was told, rather than what the source tells.
    pub keeps_time: bool,
    /// Whether the catalog keeps more of it: a time of the last read, or extended attributes.
    pub keeps_more: bool,
}

/// What is kept of an entry beyond its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Tells this state of the object from the next; opaque, empty where nothing is known.
    pub version: Box<[u8]>,
    /// What the source calls it; differs from the name only where that was escaped.
    pub raw_name: Box<[u8]>,
    /// Birth time in nanoseconds since 1970 UTC, where the source tells it.
    pub created_ns: Option<i64>,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// What stays the same when the object is renamed within its source.
    pub identity: Option<[u8; 16]>,
    /// BLAKE3 of the bytes, where it was computed for this version.
    pub content: Option<[u8; 32]>,
}

/// What a source said of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenAttributes {
    /// What sort of thing it is.
    pub kind: Kind,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Last change of the bytes, in nanoseconds since 1970 UTC; 0 where the source does not tell.
    pub modified_ns: i64,
    /// Last change of the attributes, in nanoseconds since 1970 UTC; 0 where the source does not tell.
    pub changed_ns: i64,
    /// Birth time in nanoseconds since 1970 UTC, where the source tells it.
    pub created_ns: Option<i64>,
    /// Permission bits; what lies outside `0o7777` is dropped.
    pub mode: u16,
    /// Owner and group, where the source has them.
    pub owner: Option<(u32, u32)>,
    /// Number of hard links; 1 where the source has none.
    pub links: u32,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// Tells this state of the object from the next; opaque, at most [`VERSION_MAX`](crate::VERSION_MAX) bytes.
    pub version: Box<[u8]>,
    /// What stays the same when the object is renamed within its source.
    pub identity: Option<[u8; 16]>,
}

/// A file that is seen with other bytes than the catalog knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedFile {
    /// The entry.
    pub id: EntryId,
    /// The source it belongs to.
    pub source: SourceId,
    /// Whether it is certainly the same object still: its identity is known, and what it was.
    pub same_object: bool,
}

/// Decides whether a file that changed is a new entry from now on, because somebody has the old one open. It is called
/// while the catalog is locked for changes: it must not change the catalog.
pub type Replaces<'a> = &'a dyn Fn(ChangedFile) -> bool;

/// One child of a listed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChild {
    /// Its name as the tree shows it: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`.
    pub name: Box<[u8]>,
    /// What the source calls it, where that differs from `name`.
    pub raw_name: Option<Box<[u8]>>,
    /// What the source said of it.
    pub seen: SeenAttributes,
    /// A verified rename: the entry that moves here, with its subtree, and keeps its id. It is passed over, and the
    /// child treated as new, where that entry is gone, is of another source or kind, is already taken by another
    /// child of the listing, still stands under its own listed name, holds an attach point, or contains the directory
    /// that is being listed.
    pub adopt: Option<EntryId>,
}

/// What is known of a directory as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryState {
    /// When it was last listed completely, in nanoseconds since 1970 UTC; `None`: never.
    pub listed_ns: Option<i64>,
    /// The scan generation in which it was last listed.
    pub scan: u64,
    /// Why the last try to list it failed; a complete listing clears it.
    pub failure: Option<Failure>,
}

/// A failed listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, in nanoseconds since 1970 UTC.
    pub at_ns: i64,
    /// Why, for people.
    pub message: String,
}

/// What the bytes of one state of a file were found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The file.
    pub id: EntryId,
    /// The version whose bytes were read, from the first to the last.
    pub version: Box<[u8]>,
    /// Their number.
    pub size: u64,
    /// Their BLAKE3.
    pub content: [u8; 32],
}

/// A file, as far as hashing must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The file.
    pub id: EntryId,
    /// The source it belongs to.
    pub source: SourceId,
    /// Length in bytes.
    pub size: u64,
    /// Whether its content can be learnt and is not known: it has a version to tie it to.
    pub unhashed: bool,
}

/// Names a policy that pins; never given to another policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub u64);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The wish to keep an entry's bytes on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub id: EntryId,
    /// Whether it counts for everything beneath it as well, now and later.
    pub recursive: bool,
    /// The policy that made the pin; `None`: somebody did, by name.
    pub policy: Option<PolicyId>,
    /// When it was made, in nanoseconds since 1970 UTC.
    pub pinned_ns: i64,
}
