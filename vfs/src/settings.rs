//! What the file system is told: its patience, its memory, its cache.

use std::path::PathBuf;
use std::time::Duration;

/// The bounds of a [`Vfs`](crate::Vfs). The defaults suit a desktop computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a reader waits for bytes of a source.
    pub data_deadline: Duration,
    /// How long a look into a directory that was never listed may take.
    pub metadata_deadline: Duration,
    /// Bytes of memory for everything that holds file contents: cached blocks, requests in flight, what is read ahead,
    /// and what waits to be written to the disk cache.
    pub memory_bytes: u64,
    /// The folder of the disk cache; `None` goes without.
    pub cache_directory: Option<PathBuf>,
    /// Bytes that the disk cache may occupy, in blocks really allocated, without what is pinned.
    pub cache_bytes: u64,
    /// Whether what lies whole in the disk cache is hashed, so that copies of it are recognised.
    pub hash_cached: bool,
    /// Bytes that pinned files may occupy there; 0: what the disk has, but for a part that is left free.
    pub pinned_bytes: u64,
    /// The furthest that is read ahead of one sequential reader, in bytes; less where memory is short.
    pub prefetch_bytes: u64,
    /// After how long a listing counts as stale, and is made anew behind the answer, unless the source has a time of its own.
    pub refresh: Duration,
    /// What a rename from one source to another comes to.
    pub rename: CrossSourceRename,
}

/// What a rename from one source to another comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossSourceRename {
    /// It is done: the file is copied, the copy is verified, and the original is removed.
    #[default]
    Copy,
    /// It is refused, and whoever asked copies.
    Strict,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_deadline: Duration::from_secs(10),
            metadata_deadline: Duration::from_secs(10),
            memory_bytes: 256 << 20,
            cache_directory: None,
            cache_bytes: 20 << 30,
            hash_cached: true,
            pinned_bytes: 0,
            prefetch_bytes: 64 << 20,
            refresh: Duration::from_mins(1),
            rename: CrossSourceRename::default(),
        }
    }
}
