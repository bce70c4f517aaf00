//! How each open inode is read: by the kernel from a file of its own, or through us and the kernel's page cache.
//!
//! The kernel does not let the two meet on one inode: it answers EIO to a passthrough open while the inode is open in
//! cached mode, to a cached open while it is open in passthrough mode, and to a second backing file. So the first open of
//! an inode decides, and all further opens follow until the last is released.
//!
//! Always true: an inode here is open at least once, and has one mode. The kernel takes an open off its own count before it
//! sends us the release, so that our count is never the lower one. Following an earlier open never mixes versions: an id
//! stands for one version as long as it is open.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use fuser::{BackingId, INodeNo};
use parking_lot::Mutex;

#[derive(Debug)]
struct OpenInode<B> {
    /// The kernel's own source of the bytes; `None` is cached mode.
    backing: Option<Arc<B>>,
    opens: u64,
}

/// The open inodes. `B` is what the kernel gave for a backing file; dropping it takes the registration back.
#[derive(Debug)]
pub(crate) struct Modes<B = BackingId> {
    inodes: Mutex<HashMap<INodeNo, OpenInode<B>>>,
}

impl<B> Modes<B> {
    pub(crate) fn new() -> Self {
        Self {
            inodes: Mutex::new(HashMap::new()),
        }
    }

    /// Counts an open, and gives the backing file to answer it with; `None` is cached mode. `register` is asked for a
    /// backing file only where the inode is not open yet, and may decline.
    pub(crate) fn open(&self, ino: INodeNo, register: impl FnOnce() -> Option<B>) -> Option<Arc<B>> {
        // Registering is one ioctl on a descriptor that is open already: short enough to do under the lock, which two
        // first opens of one inode need.
        let mut inodes = self.inodes.lock();
        let inode = inodes.entry(ino).or_insert_with(|| OpenInode {
            backing: register().map(Arc::new),
            opens: 0,
        });
        inode.opens += 1;
        inode.backing.clone()
    }

    /// Takes an open off; with the last one the inode may be opened in any mode again.
    pub(crate) fn release(&self, ino: INodeNo) {
        let mut inodes = self.inodes.lock();
        let Entry::Occupied(mut entry) = inodes.entry(ino) else {
            return;
        };
        entry.get_mut().opens -= 1;
        if entry.get().opens == 0 {
            let last = entry.remove();
            drop(inodes);
            // Another ioctl, which needs no lock: the kernel has nothing open on the inode.
            drop(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: INodeNo = INodeNo(7);

    #[test]
    fn the_first_open_decides_for_all_until_the_last_release() {
        let modes = Modes::<u32>::new();
        assert_eq!(modes.open(INO, || Some(1)).as_deref(), Some(&1));
        assert_eq!(
            modes.open(INO, || unreachable!("registered twice")).as_deref(),
            Some(&1)
        );
        modes.release(INO);
        assert_eq!(
            modes.open(INO, || unreachable!("registered twice")).as_deref(),
            Some(&1)
        );
        modes.release(INO);
        modes.release(INO);
        assert_eq!(modes.open(INO, || None), None, "free again, and now cached");
        assert_eq!(modes.open(INO, || unreachable!("passthrough beside cached")), None);
    }

    #[test]
    fn the_registration_is_given_back_with_the_last_release() {
        let modes = Modes::<Arc<()>>::new();
        let registered = Arc::new(());
        drop(modes.open(INO, || Some(Arc::clone(&registered))));
        drop(modes.open(INO, || None));
        modes.release(INO);
        assert_eq!(Arc::strong_count(&registered), 2);
        modes.release(INO);
        assert_eq!(Arc::strong_count(&registered), 1);
    }

    #[test]
    fn a_release_too_many_changes_nothing() {
        let modes = Modes::<u32>::new();
        modes.release(INO);
        assert_eq!(modes.open(INO, || Some(3)).as_deref(), Some(&3));
    }

    #[test]
    fn inodes_do_not_share_a_mode() {
        let modes = Modes::<u32>::new();
        assert_eq!(modes.open(INO, || None), None);
        assert_eq!(modes.open(INodeNo(8), || Some(8)).as_deref(), Some(&8));
    }
}
