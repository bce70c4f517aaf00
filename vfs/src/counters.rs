//! What the file system counts, for `manifold status` and for tests that hold it to its promises.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_catalog::SourceId;
use parking_lot::Mutex;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A picture of all counts, each since the start unless it says otherwise.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
            /// What was fetched, by source.
            pub sources: HashMap<u32, SourceCounters>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: AtomicU64,)+
            sources: Mutex<HashMap<u32, SourceCounters>>,
        }

        impl Tally {
            /// Takes a picture. The counts are each true, but not of the very same moment.
            pub(crate) fn picture(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    sources: self.sources.lock().clone(),
                }
            }
        }
    };
}

counters! {
    /// Reads answered at once, from memory or from a local file.
    reads_ready,
    /// Reads that had to wait.
    reads_waited,
    /// Reads that wait for bytes of an object, now.
    reads_waiting,
    /// Bytes that reads were answered with.
    bytes_read,
    /// Blocks found in memory.
    memory_hits,
    /// Blocks that were not in memory when they were asked for, now or ahead of a reader, and not on their way either.
    memory_misses,
    /// Blocks found in the disk cache, of files that are not pinned.
    disk_hits,
    /// Blocks that had to be asked of a source, of files that are not pinned.
    misses,
    /// Blocks of pinned files found in the disk cache.
    pinned_hits,
    /// Blocks of pinned files that had to be asked of a source, also those that are fetched to be kept.
    pinned_misses,
    /// Blocks put out of memory to make room.
    memory_blocks_evicted,
    /// Times a reader joined a fetch that was under way already.
    joined,
    /// Bytes that requests under way will bring, now.
    bytes_in_flight,
    /// Requests to sources under way, now.
    requests_in_flight,
    /// Bytes asked for ahead of a reader.
    bytes_ahead,
    /// Requests that were answered from another copy of the same bytes than the file that was opened.
    replica_reads,
    /// Requests that failed or were late at one copy, and were answered by another.
    replica_switches,
    /// Requests that failed, of readers and ahead of them.
    requests_failed,
    /// Reads that ended at their deadline.
    reads_timed_out,
    /// Files whose content was learnt from the disk cache.
    files_hashed,
    /// Blocks written to the disk cache.
    disk_blocks_written,
    /// Blocks not written to the disk cache, because it was behind or out of order.
    disk_blocks_skipped,
    /// Failed operations of the disk cache.
    disk_errors,
    /// Blocks of the disk cache whose checksum did not match; they were dropped.
    disk_blocks_bad,
    /// Times a file, or a part of one, was put out of the disk cache to make room.
    disk_evictions,
    /// Bytes put out of the disk cache to make room.
    disk_bytes_evicted,
}

/// What was fetched from one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceCounters {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that they brought.
    pub bytes: u64,
    /// Blocks that they brought.
    pub blocks: u64,
}

impl Tally {
    /// Counts one answered request.
    pub(crate) fn fetched(&self, source: SourceId, blocks: u64, bytes: u64) {
        let mut sources = self.sources.lock();
        let count = sources.entry(source.0).or_default();
        count.requests += 1;
        count.bytes += bytes;
        count.blocks += blocks;
    }
}

/// Adds to a count.
pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// Takes from a count of what is under way now.
pub(crate) fn take(count: &AtomicU64, less: u64) {
    count.fetch_sub(less, Ordering::Relaxed);
}
