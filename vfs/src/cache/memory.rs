//! The memory tier: whole blocks, weighed in bytes, the least recently used put out first.
//!
//! Always true: after [`MemoryTier::insert`] returns, the blocks of the tier together weigh no more than its limit. moka alone
//! does not give that: it puts entries out some time after an insertion, and frees an entry that is out only when its
//! epoch ends. So each insertion brings the house-keeping up to date, and the listener empties a block's slot at once.
//!
//! The order is plain LRU on purpose: a policy of admission (moka's default) refuses blocks that were fetched ahead and
//! not read yet, which is just what must be kept.

use std::sync::Arc;

use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::key::BlockId;
use crate::counters::{Tally, add};

/// What a block weighs beyond its bytes: its key, slot and place in the list, roughly.
const OVERHEAD: usize = 256;

type Slot = Arc<Mutex<Option<Bytes>>>;

/// Blocks in memory.
#[derive(Debug)]
pub(crate) struct MemoryTier {
    cache: Cache<BlockId, Slot>,
}

impl MemoryTier {
    /// Makes an empty tier that holds at most `limit` bytes.
    pub(crate) fn new(limit: u64, tally: Arc<Tally>) -> Self {
        let cache = Cache::builder()
            .max_capacity(limit)
            .weigher(|_, slot: &Slot| {
                let length = slot.lock().as_ref().map_or(0, Bytes::len);
                u32::try_from(length + OVERHEAD).unwrap_or(u32::MAX)
            })
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, slot: Slot, cause| {
                if cause == RemovalCause::Size {
                    add(&tally.memory_blocks_evicted, 1);
                }
                drop(slot.lock().take());
            })
            .build();
        Self { cache }
    }

    /// Gives a block.
    pub(crate) fn get(&self, block: BlockId) -> Option<Bytes> {
        self.cache.get(&block)?.lock().clone()
    }

    /// Tells whether a block is there, without counting as a use of it.
    pub(crate) fn contains(&self, block: BlockId) -> bool {
        self.cache.contains_key(&block)
    }

    /// Keeps a block, and puts out others to make room.
    pub(crate) fn insert(&self, block: BlockId, bytes: Bytes) {
        self.cache.insert(block, Arc::new(Mutex::new(Some(bytes))));
        self.cache.run_pending_tasks();
    }

    /// Forgets a block.
    pub(crate) fn remove(&self, block: BlockId) {
        self.cache.invalidate(&block);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Gives the weight of what is there, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// Gives the most it may weigh, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.cache.policy().max_capacity().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cache::key::ObjectKey;

    /// Memory that knows how much of it is alive.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl Counted {
        fn bytes(length: usize, alive: &Arc<AtomicUsize>) -> Bytes {
            alive.fetch_add(length, Ordering::SeqCst);
            Bytes::from_owner(Self(vec![0; length], Arc::clone(alive)))
        }
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
        }
    }

    fn block(index: u64) -> BlockId {
        BlockId {
            object: ObjectKey([7; 16]),
            index,
        }
    }

    #[test]
    fn bytes_alive_never_exceed_the_limit_after_an_insertion() {
        let alive = Arc::new(AtomicUsize::new(0));
        let tally = Arc::new(Tally::default());
        let tier = MemoryTier::new(1 << 20, Arc::clone(&tally));
        for index in 0..500 {
            tier.insert(block(index), Counted::bytes(64 << 10, &alive));
            assert!(alive.load(Ordering::SeqCst) <= 1 << 20, "after block {index}");
        }
        assert!(tier.get(block(499)).is_some(), "the newest block is kept");
        assert!(tier.get(block(0)).is_none(), "the oldest block is out");
        let left = alive.load(Ordering::SeqCst) as u64 / (64 << 10);
        let evicted = || tally.memory_blocks_evicted.load(Ordering::SeqCst);
        assert_eq!(evicted(), 500 - left, "each block that is out was counted");
        tier.clear();
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        assert_eq!(evicted(), 500 - left, "what is cleared makes no room");
    }

    #[test]
    fn a_block_larger_than_the_tier_is_not_kept() {
        let alive = Arc::new(AtomicUsize::new(0));
        let tier = MemoryTier::new(1 << 16, Arc::default());
        tier.insert(block(0), Counted::bytes(1 << 17, &alive));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_block_in_use_outlives_one_that_is_not() {
        let tier = MemoryTier::new(4 * (1024 + OVERHEAD) as u64, Arc::default());
        for index in 0..4 {
            tier.insert(block(index), Bytes::from(vec![0; 1024]));
        }
        assert!(tier.get(block(0)).is_some());
        tier.insert(block(4), Bytes::from(vec![0; 1024]));
        assert!(tier.contains(block(0)) && !tier.contains(block(1)));
    }
}
