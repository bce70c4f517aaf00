//! What changed, and how those who must know are told.
//!
//! Every subscriber has a queue of its own with a bound. One that does not keep up is told that it missed something;
//! it never loses a change without knowing.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::EntryId;

/// One change of the tree, told with its commit, in the order of the commits: a subscriber has it waiting before any reader can
/// see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name is new.
    Added {
        /// The directory.
        parent: EntryId,
        /// The new name.
        name: Box<[u8]>,
        /// What stands there.
        id: EntryId,
    },
    /// A name is gone.
    Removed {
        /// The directory.
        parent: EntryId,
        /// The name that is gone.
        name: Box<[u8]>,
        /// What stood there.
        id: EntryId,
    },
    /// Attributes changed; the bytes did not.
    Attributes {
        /// The entry.
        id: EntryId,
    },
    /// Size or version changed: attributes and pages are out of date.
    Content {
        /// The entry.
        id: EntryId,
    },
    /// A file changed while it was open: the name now stands for a new entry, the old one is no longer in the catalog.
    Replaced {
        /// The directory.
        parent: EntryId,
        /// The name.
        name: Box<[u8]>,
        /// What stood there.
        old: EntryId,
        /// What stands there now.
        new: EntryId,
    },
    /// An entry moved, with all beneath it.
    Moved {
        /// The entry.
        id: EntryId,
        /// Directory and name where it stood.
        from: (EntryId, Box<[u8]>),
        /// Directory and name where it stands.
        to: (EntryId, Box<[u8]>),
    },
    /// The listing of a directory changed, or is known for the first time.
    Directory {
        /// The directory.
        id: EntryId,
    },
    /// Changes were dropped because the subscriber did not keep up: everything may have changed.
    Overflow,
}

/// How many changes a subscriber may leave waiting.
const QUEUE_MAX: usize = 16_384;

/// The changes from the moment of subscribing on.
#[derive(Debug)]
pub struct Subscription(Arc<Queue>);

impl Subscription {
    /// Waits for the next change; `None` once the catalog is closed and nothing is left.
    pub fn recv(&self) -> Option<Change> {
        let mut waiting = self.0.waiting.lock();
        loop {
            match waiting.changes.pop_front() {
                Some(change) => return Some(change),
                None if waiting.closed => return None,
                None => self.0.bell.wait(&mut waiting),
            }
        }
    }

    /// Waits for the next change at most that long; `None` when the time is over or the catalog is closed.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Change> {
        let mut waiting = self.0.waiting.lock();
        let nothing = |waiting: &mut Waiting| waiting.changes.is_empty() && !waiting.closed;
        self.0.bell.wait_while_for(&mut waiting, nothing, timeout);
        waiting.changes.pop_front()
    }

    /// Gives the next change if one is there.
    pub fn try_recv(&self) -> Option<Change> {
        self.0.waiting.lock().changes.pop_front()
    }

    /// Says that everything taken so far has been dealt with.
    pub fn acknowledge(&self) {
        let mut waiting = self.0.waiting.lock();
        waiting.acknowledged = waiting.told - waiting.changes.len() as u64;
        drop(waiting);
        self.0.bell.notify_all();
    }

    /// Tells whether everything that any reader can see by now has been [acknowledged](Self::acknowledge).
    pub fn is_acknowledged(&self) -> bool {
        let waiting = self.0.waiting.lock();
        waiting.acknowledged == waiting.told
    }

    /// Waits until everything that was told so far has been [acknowledged](Self::acknowledge), or can never be, but no
    /// longer than `timeout`. Meant for another thread than the one that takes the changes.
    pub fn wait_for_acknowledgement(&self, timeout: Duration) {
        let mut waiting = self.0.waiting.lock();
        let told = waiting.told;
        let open = |waiting: &mut Waiting| waiting.acknowledged < told && !waiting.closed;
        self.0.bell.wait_while_for(&mut waiting, open, timeout);
    }

    /// Tells whether the catalog is closed, so that no further change will come.
    pub fn is_closed(&self) -> bool {
        self.0.waiting.lock().closed
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Change>,
    closed: bool,
    /// How many changes were ever told, one for each of those that an overflow stands for.
    told: u64,
    /// How many of them have been dealt with.
    acknowledged: u64,
}

/// Everybody who wants to be told.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Vec<Weak<Queue>>>);

impl Subscribers {
    pub(crate) fn subscribe(&self) -> Subscription {
        let queue = Arc::new(Queue::default());
        self.0.lock().push(Arc::downgrade(&queue));
        Subscription(queue)
    }

    /// Tells all. A queue without room for it is emptied, and says that everything may have changed.
    pub(crate) fn publish(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.0.lock().retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            let mut waiting = queue.waiting.lock();
            waiting.told += changes.len() as u64;
            if waiting.changes.len() + changes.len() <= QUEUE_MAX {
                waiting.changes.extend(changes.iter().cloned());
            } else {
                waiting.changes.clear();
                waiting.changes.push_back(Change::Overflow);
            }
            queue.bell.notify_all();
            true
        });
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        for queue in self.0.lock().drain(..).filter_map(|queue| queue.upgrade()) {
            queue.waiting.lock().closed = true;
            queue.bell.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(ids: std::ops::Range<u64>) -> Vec<Change> {
        ids.map(|id| Change::Attributes { id: EntryId(id) }).collect()
    }

    #[test]
    fn changes_arrive_in_order_and_the_end_is_told() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.subscribe();
        subscribers.publish(&attributes(0..2));
        subscribers.publish(&attributes(2..3));
        subscribers.close();
        let seen: Vec<_> = std::iter::from_fn(|| subscription.recv()).collect();
        assert_eq!(seen, attributes(0..3));
        assert!(subscription.is_closed());
    }

    #[test]
    fn a_subscriber_that_does_not_keep_up_is_told_so_and_goes_on() {
        let subscribers = Subscribers::default();
        let slow = subscribers.subscribe();
        subscribers.publish(&attributes(0..QUEUE_MAX as u64));
        subscribers.publish(&attributes(0..1));
        subscribers.publish(&attributes(7..8));
        let seen: Vec<_> = std::iter::from_fn(|| slow.try_recv()).collect();
        assert_eq!(seen, [Change::Overflow, Change::Attributes { id: EntryId(7) }]);
    }

    #[test]
    fn who_waits_for_what_was_told_is_freed_by_the_acknowledgement_alone() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.subscribe();
        subscription.wait_for_acknowledgement(Duration::MAX);
        assert!(subscription.is_acknowledged(), "there is nothing to be told");
        subscribers.publish(&attributes(0..QUEUE_MAX as u64));
        subscribers.publish(&attributes(0..7));
        while subscription.try_recv().is_some() {}
        assert!(
            subscription.0.waiting.lock().acknowledged == 0,
            "taken is not dealt with"
        );
        assert!(!subscription.is_acknowledged());
        subscription.acknowledge();
        assert!(subscription.is_acknowledged());
        subscription.wait_for_acknowledgement(Duration::MAX);
        subscribers.publish(&attributes(0..1));
        subscribers.close();
        subscription.wait_for_acknowledgement(Duration::MAX);
    }

    #[test]
    fn subscribers_that_went_away_are_forgotten() {
        let subscribers = Subscribers::default();
        drop(subscribers.subscribe());
        subscribers.publish(&attributes(0..1));
        assert!(subscribers.0.lock().is_empty());
    }
}
