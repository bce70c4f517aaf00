//! What the file system says of one entry, in its own words.

use manifold_backends::Metadata;
use manifold_backends::local::Space;
use manifold_catalog::{Details, Entry, EntryId, Kind};

use crate::change::follow::kind_of;

/// The unit of [`Attributes::blocks`], in bytes, as `stat` counts them.
const STAT_BLOCK: u64 = 512;

/// What `stat` needs to know of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The entry, which is its inode number too.
    pub id: EntryId,
    /// What sort of thing it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// Length in units of 512 bytes.
    pub blocks: u64,
    /// Last change of the bytes, in nanoseconds since 1970-01-01 UTC.
    pub modified_ns: i64,
    /// Last change of the attributes, in the same unit.
    pub changed_ns: i64,
    /// Last read, as it was set, where that is known, in the same unit.
    pub accessed_ns: Option<i64>,
    /// Birth time, where it is known, in the same unit.
    pub created_ns: Option<i64>,
    /// Permission bits (`0o7777`).
    pub mode: u16,
    /// Owner and group; `None` stands for whoever owns the mount.
    pub owner: Option<(u32, u32)>,
    /// Number of hard links.
    pub links: u32,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// Whether they change with no word of it: the file is open for writing, perhaps by the kernel itself.
    pub volatile: bool,
}

impl Attributes {
    /// Makes them of the catalog's hot row alone: all but birth time, device number and the time of the last read.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind,
            size: entry.size,
            blocks: entry.size.div_ceil(STAT_BLOCK),
            modified_ns: entry.modified_ns,
            changed_ns: entry.changed_ns,
            accessed_ns: None,
            created_ns: None,
            mode: entry.mode,
            owner: entry.owner,
            // What has a name has a link, whatever its source says.
            links: entry.links.max(1),
            device: 0,
            volatile: false,
        }
    }

    /// Makes them of what a disk of this machine says of an entry now. `blocks`: its length there, where that is known.
    pub(crate) fn of_disk(id: EntryId, seen: &Metadata, blocks: Option<u64>) -> Self {
        Self {
            id,
            kind: kind_of(seen.kind),
            size: seen.size,
            blocks: blocks.unwrap_or_else(|| seen.size.div_ceil(STAT_BLOCK)),
            modified_ns: seen.modified.map_or(0, |it| it.0),
            changed_ns: seen.changed.map_or(0, |it| it.0),
            accessed_ns: None,
            created_ns: seen.created.map(|it| it.0),
            mode: seen.mode.map_or(0, |it| (it & 0o7777) as u16),
            owner: seen.owner,
            links: seen.links,
            device: seen.device,
            volatile: false,
        }
    }

    /// Gives the same with another length.
    pub(crate) fn with_size(self, size: u64) -> Self {
        Self {
            size,
            blocks: size.div_ceil(STAT_BLOCK),
            ..self
        }
    }

    /// Adds what only the catalog's cold row knows.
    pub(crate) fn with(mut self, details: &Details) -> Self {
        self.created_ns = details.created_ns;
        self.device = details.device;
        self
    }
}

/// How a name is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameMatch {
    /// Byte for byte.
    Exact,
    /// Without regard to case, an exact match first.
    Fold,
}

/// The size of the whole file system, for `df`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesystemTotals {
    /// Number of entries known.
    pub entries: u64,
    /// Sum of the sizes of all files known, in bytes.
    pub bytes: u64,
    /// The room that there is where it was asked for; `None` where nothing can be made.
    pub room: Option<Room>,
}

/// The room of one file system, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What is there and what is free, in bytes.
    pub bytes: u64,
    /// What is free, in bytes.
    pub free: u64,
    /// What is free for everybody, in bytes.
    pub available: u64,
    /// How many objects it can hold; 0 where that has no bound.
    pub objects: u64,
    /// How many more it can hold.
    pub free_objects: u64,
}

impl Room {
    pub(crate) fn add(&mut self, disk: &Space) {
        self.bytes = self.bytes.saturating_add(disk.bytes);
        self.free = self.free.saturating_add(disk.free);
        self.available = self.available.saturating_add(disk.available);
        self.objects = self.objects.saturating_add(disk.objects);
        self.free_objects = self.free_objects.saturating_add(disk.free_objects);
    }

    pub(crate) fn add_free(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.free = self.free.saturating_add(bytes);
        self.available = self.available.saturating_add(bytes);
    }
}
