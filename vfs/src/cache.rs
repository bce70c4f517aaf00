//! The block cache: blocks of object versions, in memory and on disk.
//!
//! It knows no sources: whoever fetches a block gives it to [`BlockCache`], which keeps it as long as there is room. Always true: a block
//! is found under the version it belongs to or not at all, and the disk tier costs a reader nothing but a miss when it is full, broken or gone.

mod disk;
mod evict;
mod key;
pub mod map;
mod memory;
mod object;
mod pinned;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::disk::DiskTier;
pub(crate) use self::disk::{Late, NotKept};
use self::memory::MemoryTier;
use crate::counters::Tally;

pub(crate) use self::key::{BlockId, DiskKey, Shape};
pub use self::key::{ObjectKey, SourceTag};
pub(crate) use self::object::HandedOut;
pub(crate) use self::pinned::PinnedKeys;

/// Blocks in memory and on disk.
#[derive(Debug)]
pub struct BlockCache {
    memory: MemoryTier,
    disk: Option<DiskTier>,
}

/// What the cache holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of blocks in memory.
    pub memory_used: u64,
    /// The most that they may be.
    pub memory_limit: u64,
    /// Bytes that the disk tier really occupies, without what is pinned.
    pub disk_used: u64,
    /// The most that they may be; 0 where there is no disk tier.
    pub disk_limit: u64,
    /// Bytes that pinned objects really occupy.
    pub pinned_used: u64,
    /// The most that they may be; 0: what the disk has.
    pub pinned_limit: u64,
    /// What each source occupies on disk; named by [`SourceTag::new`] of its name.
    pub sources: Vec<SourceUsage>,
}

/// What one source's objects occupy on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceUsage {
    /// Which source.
    pub source: SourceTag,
    /// How many objects have blocks there.
    pub objects: u64,
    /// Bytes that they really occupy.
    pub bytes: u64,
}

/// What verifying the disk tier came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects looked at.
    pub objects: u64,
    /// Blocks whose checksum matches.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that did not match or could not be read; they were dropped, and are fetched again when needed.
    pub bad_blocks: u64,
}

/// What to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearScope<'a> {
    /// The blocks of one source, given by its canonical name.
    Source(&'a str),
    /// All blocks.
    All,
}

impl BlockCache {
    /// Starts a cache. A disk tier that cannot be started is left out, with a line in the log.
    pub(crate) fn start(memory_bytes: u64, disk: Option<DiskSettings<'_>>, tally: &Arc<Tally>) -> Self {
        let disk = disk.and_then(|it| {
            DiskTier::start(&it, Arc::clone(tally))
                .inspect_err(
                    |error| tracing::warn!(folder = %it.folder.display(), %error, "going on without a disk cache"),
                )
                .ok()
        });
        Self {
            memory: MemoryTier::new(memory_bytes, Arc::clone(tally)),
            disk,
        }
    }

    /// Says what is cached.
    pub fn show(&self) -> Usage {
        let mut usage = Usage {
            memory_used: self.memory.used(),
            memory_limit: self.memory.limit(),
            ..Usage::default()
        };
        if let Some(disk) = &self.disk {
            (usage.disk_used, usage.disk_limit) = disk.used();
            (usage.pinned_used, usage.pinned_limit) = disk.pinned_used();
            let sources = disk.by_source().into_iter();
            usage.sources = sources
                .map(|(source, it)| SourceUsage {
                    source,
                    objects: it.objects,
                    bytes: it.bytes,
                })
                .collect();
            usage.sources.sort_unstable_by_key(|it| it.source);
        }
        usage
    }

    /// Says what the disk refuses, if it has refused something and does still: it is tried. Blocks the thread.
    pub fn why_disk_fails(&self) -> Option<String> {
        self.disk.as_ref()?.why_failing()
    }

    /// Forgets blocks; those of pinned objects only if `pinned`. Gives the bytes that they occupied on disk. Files open in an
    /// application stay readable.
    ///
    /// Memory is always cleared whole.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn clear(&self, scope: ClearScope<'_>, pinned: bool) -> std::io::Result<u64> {
        self.memory.clear();
        let source = match scope {
            ClearScope::Source(name) => Some(SourceTag::new(name)),
            ClearScope::All => None,
        };
        self.disk.as_ref().map_or(Ok(0), |disk| disk.clear(source, pinned))
    }

    /// Reads every block on disk and drops those that are damaged. Takes as long as the disk needs: not for a thread
    /// that answers requests.
    pub fn verify(&self) -> VerifyReport {
        let Some(disk) = &self.disk else {
            return VerifyReport::default();
        };
        let checked = disk.verify();
        VerifyReport {
            objects: checked.objects,
            blocks: checked.blocks,
            bytes: checked.bytes,
            bad_blocks: checked.bad,
        }
    }

    /// Makes way for so many bytes of something that matters more on the disk of a folder: what is cached there and not pinned goes.
    /// Tells whether anything has. Blocks the thread.
    pub(crate) fn make_way(&self, bytes: u64, folder: &std::path::Path) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.make_way(bytes, folder))
    }

    /// Waits until all that was to be written to disk has been.
    pub fn settle(&self) {
        if let Some(disk) = &self.disk {
            disk.settle();
        }
    }

    /// Gives a block that is in memory.
    pub(crate) fn in_memory(&self, block: BlockId) -> Option<Bytes> {
        self.memory.get(block)
    }

    /// Tells whether a block is in memory, without counting as a use of it.
    pub(crate) fn is_in_memory(&self, block: BlockId) -> bool {
        self.memory.contains(block)
    }

    /// Tells whether a block may be on disk. `false` is certain.
    pub(crate) fn may_be_on_disk(&self, shape: Shape, index: u64) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.may_contain(shape, index))
    }

    /// Reads a block from disk. Blocks the thread.
    pub(crate) fn read_disk(&self, shape: Shape, index: u64) -> Option<Bytes> {
        self.disk.as_ref()?.read(shape, index)
    }

    /// Keeps a block that a source has given. Where the disk tier is behind, whoever fetched it is to wait before it fetches
    /// more.
    pub(crate) fn keep(&self, shape: Shape, index: u64, bytes: &Bytes) -> Option<Late> {
        let disk = self.disk.as_ref();
        let late = disk.and_then(|disk| disk.write(shape, index, bytes.clone()));
        self.memory.insert(shape.block(index), bytes.clone());
        late
    }

    /// Keeps a block that was uploaded. What the disk cannot keep up with is fetched again when somebody wants it.
    pub(crate) fn keep_uploaded(&self, shape: Shape, index: u64, bytes: &Bytes) {
        if let Some(disk) = &self.disk {
            disk.write_uploaded(shape, index, bytes.clone());
        }
        self.memory.insert(shape.block(index), bytes.clone());
    }

    /// Forgets an object: what its source has under that name and version is another.
    pub(crate) fn forget(&self, shape: Shape) {
        (0..shape.block_count()).for_each(|index| self.memory.remove(shape.block(index)));
        self.forget_on_disk(shape);
    }

    /// Forgets an object as far as a crash would bring it back.
    pub(crate) fn forget_on_disk(&self, shape: Shape) {
        if let Some(disk) = &self.disk {
            disk.forget(shape.key);
        }
    }

    /// Keeps a block in memory that came from disk.
    pub(crate) fn keep_in_memory(&self, block: BlockId, bytes: &Bytes) {
        self.memory.insert(block, bytes.clone());
    }

    /// Takes in which objects are pinned from now on.
    pub(crate) fn set_pins(&self, pins: PinnedKeys) {
        if let Some(disk) = &self.disk {
            disk.set_pins(pins);
        }
    }

    /// Gives the keys of what is pinned.
    pub(crate) fn pins(&self) -> PinnedKeys {
        self.disk.as_ref().map(DiskTier::pins).unwrap_or_default()
    }

    /// Tells whether an object is pinned.
    pub(crate) fn is_pinned(&self, shape: Shape) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_pinned(shape.key))
    }

    /// Counts the bytes of an object that are on disk. Blocks the thread where nobody has counted them before.
    pub(crate) fn present(&self, shape: Shape) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.present(shape))
    }

    /// Lists the blocks of an object that are not on disk. Blocks the thread.
    pub(crate) fn missing(&self, shape: Shape) -> Vec<u64> {
        self.disk.as_ref().map_or_else(Vec::new, |disk| disk.missing(shape))
    }

    /// Has what is on disk counted anew: blocks have turned out to be damaged.
    pub(crate) fn count_anew(&self) {
        if let Some(disk) = &self.disk {
            disk.count_anew();
        }
    }

    /// Writes a block of a pinned object to disk. Blocks the thread for as long as the disk takes.
    pub(crate) fn write_pinned(&self, shape: Shape, index: u64, bytes: &Bytes) -> Result<(), NotKept> {
        let disk = self.disk.as_ref().ok_or(NotKept::Failing)?;
        disk.write_pinned(shape, index, bytes)
    }

    /// Gives the file of an object that is whole on disk.
    pub(crate) fn whole_file(&self, shape: Shape) -> Option<HandedOut> {
        self.disk.as_ref()?.hand_out(shape)
    }
}

/// Where the disk tier lies, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskSettings<'a> {
    /// Its folder.
    pub(crate) folder: &'a std::path::Path,
    /// Bytes that it may occupy, without what is pinned.
    pub(crate) limit: u64,
    /// Bytes that pinned objects may occupy; 0: what the disk has.
    pub(crate) pinned_limit: u64,
    /// Bytes that may wait to be written.
    pub(crate) backlog_max: u64,
    /// How long fetching waits for a disk that is behind.
    pub(crate) patience: Duration,
}
