//! One change of a name at a time: whoever changes the name of a file at its source, or brings it elsewhere, holds the file.

use std::collections::HashMap;
use std::sync::Arc;

use manifold_catalog::EntryId;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// The files that are held, or waited for. There are no more than requests and tasks that change names.
#[derive(Debug, Default)]
pub(crate) struct NameLocks(Mutex<HashMap<EntryId, Arc<tokio::sync::Mutex<()>>>>);

/// A file that is held.
#[must_use = "the file is held until this is dropped"]
#[derive(Debug)]
pub(crate) struct NameLock {
    locks: Arc<NameLocks>,
    id: EntryId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl NameLocks {
    /// Waits until nobody else holds a file.
    pub(crate) async fn lock(self: &Arc<Self>, id: EntryId) -> NameLock {
        let (one, mut lock) = self.approach(id);
        lock.guard = Some(one.lock_owned().await);
        lock
    }

    /// Holds a file, unless somebody else does.
    pub(super) fn try_lock(self: &Arc<Self>, id: EntryId) -> Option<NameLock> {
        let (one, mut lock) = self.approach(id);
        lock.guard = Some(one.try_lock_owned().ok()?);
        Some(lock)
    }

    /// Finds what a file is held by. Whoever does not get that leaves nothing behind with what is dropped.
    fn approach(self: &Arc<Self>, id: EntryId) -> (Arc<tokio::sync::Mutex<()>>, NameLock) {
        let one = Arc::clone(self.0.lock().entry(id).or_default());
        let lock = NameLock {
            locks: Arc::clone(self),
            id,
            guard: None,
        };
        (one, lock)
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        self.guard.take();
        let mut locks = self.locks.0.lock();
        // Whoever waits for it has a share in it.
        if locks.get(&self.id).is_some_and(|one| Arc::strong_count(one) == 1) {
            locks.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_held_by_one_at_a_time_and_nothing_is_left_behind() {
        let locks = Arc::<NameLocks>::default();
        let first = locks.lock(EntryId(1)).await;
        let other = locks.lock(EntryId(2)).await;
        let mut second = Box::pin(locks.lock(EntryId(1)));
        assert!(futures::poll!(&mut second).is_pending());
        let mut given_up = Box::pin(locks.lock(EntryId(1)));
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        assert!(locks.try_lock(EntryId(1)).is_none());
        drop((first, other));
        drop(second.await);
        drop(locks.try_lock(EntryId(1)).unwrap());
        assert!(locks.0.lock().is_empty());
    }
}
