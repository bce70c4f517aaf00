//! Which directories the kernel may answer out of its own cache of their listing.
//!
//! The kernel keeps a listing across opens only where an open says so. A change takes the pages away, but a reading that
//! was under way may put old ones back a moment later; nothing in the protocol prevents that. So the promise is made
//! anew with each open: a listing is kept only if the directory was opened before, and no change came since.
//!
//! Always true: forgetting is safe at any time, and costs one more reading.

use std::collections::HashSet;

use fuser::INodeNo;
use parking_lot::Mutex;

/// Directories whose listing the kernel may keep: 8 bytes each. Beyond it all are forgotten, and read once more.
const KEPT_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Listings {
    kept: Mutex<HashSet<INodeNo>>,
}

impl Listings {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(HashSet::new()),
        }
    }

    /// Whether the listing that the kernel may have from an earlier open still holds.
    pub(crate) fn keep(&self, directory: INodeNo) -> bool {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        !kept.insert(directory)
    }

    pub(crate) fn forget(&self, directory: INodeNo) {
        self.kept.lock().remove(&directory);
    }

    pub(crate) fn forget_all(&self) {
        self.kept.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_kept_from_the_second_open_until_a_change() {
        let listings = Listings::new();
        let directory = INodeNo(1);
        assert!(!listings.keep(directory), "the kernel can have nothing yet");
        assert!(listings.keep(directory));
        listings.forget(directory);
        assert!(!listings.keep(directory));
        assert!(listings.keep(directory));
        listings.forget_all();
        assert!(!listings.keep(directory));
    }

    #[test]
    fn the_memory_is_bounded() {
        let listings = Listings::new();
        for number in 0..=KEPT_MAX as u64 {
            listings.keep(INodeNo(number));
        }
        assert!(listings.kept.lock().len() <= KEPT_MAX);
        assert!(!listings.keep(INodeNo(0)), "forgotten with the others");
    }
}
