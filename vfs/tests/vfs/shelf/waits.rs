//! Waiting for what the source is asked, and for what it has.

use super::Shelf;

impl Shelf {
    /// Waits until so many puts have begun since the start.
    pub(crate) async fn until_puts(&self, count: u64) {
        self.puts.subscribe().wait_for(|puts| *puts >= count).await.unwrap();
    }

    /// Waits until so many copies have begun since the start.
    pub(crate) async fn until_copies(&self, count: u64) {
        self.copies
            .subscribe()
            .wait_for(|copies| *copies >= count)
            .await
            .unwrap();
    }

    /// Waits until so many reads have been held since the start.
    pub(crate) async fn until_held_reads(&self, count: u64) {
        let mut held = self.held_reads.subscribe();
        held.wait_for(|reads| *reads >= count).await.unwrap();
    }

    /// Waits until so many changes of names have been held since the start.
    pub(crate) async fn until_held_names(&self, count: u64) {
        let mut held = self.held_names.subscribe();
        held.wait_for(|names| *names >= count).await.unwrap();
    }

    /// Waits until so many looks have been held since the start.
    pub(crate) async fn until_held_looks(&self, count: u64) {
        let mut held = self.held_looks.subscribe();
        held.wait_for(|looks| *looks >= count).await.unwrap();
    }

    /// Waits until so many removals have been refused on cue since the start.
    pub(crate) async fn until_refused_removals(&self, count: u64) {
        let mut refused = self.refused_removals.subscribe();
        refused.wait_for(|removals| *removals >= count).await.unwrap();
    }

    /// Waits until so many removals have found nothing since the start.
    pub(crate) async fn until_vain_removals(&self, count: u64) {
        let mut vain = self.vain_removals.subscribe();
        vain.wait_for(|removals| *removals >= count).await.unwrap();
    }

    /// Waits until something is so of the files.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if holds(self) {
                return;
            }
            changed.changed().await.unwrap();
        }
    }
}
