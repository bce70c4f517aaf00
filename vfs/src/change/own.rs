//! Changes of the catalog that follow what the mount itself has asked for: the kernel knows of those already.
//!
//! Telling it all the same would do harm: a name that was just made would be taken from under the process that works in it.
//!
//! Always true: a change that somebody else made is told; one that is taken for our own was followed once more than it was
//! told of.

use std::collections::VecDeque;

use manifold_catalog::Change;
use parking_lot::{Mutex, MutexGuard};

/// How many may wait to be met again. Beyond it all count as somebody else's, which costs the kernel a question each.
const WAITING_MAX: usize = 16_384;

/// The changes of our own that the subscription has not brought yet, in the order of the commits.
#[derive(Debug, Default)]
pub(crate) struct OwnChanges(Mutex<VecDeque<Change>>);

/// Held while the catalog follows, so that none of its changes is met before it is known to be our own.
pub(crate) struct Following<'a>(MutexGuard<'a, VecDeque<Change>>);

impl OwnChanges {
    /// Begins to follow.
    pub(crate) fn follow(&self) -> Following<'_> {
        Following(self.0.lock())
    }

    /// Tells whether a change is one of our own, once for each that was noted.
    pub(crate) fn is_own(&self, change: &Change) -> bool {
        let mut waiting = self.0.lock();
        if *change == Change::Overflow {
            // Some will never be met.
            waiting.clear();
            return false;
        }
        match waiting.iter().position(|own| own == change) {
            Some(place) => waiting.remove(place).is_some(),
            None => false,
        }
    }
}

impl Following<'_> {
    /// Notes what the catalog has said that changed.
    pub(crate) fn note(&mut self, changes: Vec<Change>) {
        if self.0.len() + changes.len() > WAITING_MAX {
            self.0.clear();
        } else {
            self.0.extend(changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use manifold_catalog::EntryId;

    use super::*;

    const ONE: Change = Change::Attributes { id: EntryId(1) };
    const TWO: Change = Change::Content { id: EntryId(2) };

    #[test]
    fn a_change_is_our_own_as_often_as_it_was_noted() {
        let own = OwnChanges::default();
        own.follow().note(vec![ONE, TWO, ONE]);
        assert!(own.is_own(&TWO) && own.is_own(&ONE) && own.is_own(&ONE));
        assert!(!own.is_own(&ONE) && !own.is_own(&TWO), "that one is somebody else's");
    }

    #[test]
    fn after_changes_were_lost_none_is_taken_for_our_own() {
        let own = OwnChanges::default();
        own.follow().note(vec![ONE]);
        assert!(!own.is_own(&Change::Overflow));
        assert!(!own.is_own(&ONE));
    }

    #[test]
    fn what_waits_has_a_bound() {
        let own = OwnChanges::default();
        for _ in 0..=WAITING_MAX {
            own.follow().note(vec![ONE]);
        }
        assert!(own.0.lock().len() <= WAITING_MAX);
    }
}
