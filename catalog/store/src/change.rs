//! What changed, and how those who must know are told.
//!
//! Every subscriber has a queue of its own with a bound. One that does not keep up is told that it missed something;
//! it never loses a change without knowing.

use std::time::Duration;

use crate::EntryId;

/// One change of the tree, told after its commit, in the order of the commits.
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

/// The changes from the moment of subscribing on.
#[derive(Debug)]
pub struct Subscription(());

impl Subscription {
    /// Waits for the next change; `None` once the catalog is closed and nothing is left.
    pub fn recv(&self) -> Option<Change> {
        unimplemented!()
    }

    /// Waits for the next change at most that long; `None` when the time is over or the catalog is closed.
    pub fn recv_timeout(&self, _timeout: Duration) -> Option<Change> {
        unimplemented!()
    }

    /// Gives the next change if one is there.
    pub fn try_recv(&self) -> Option<Change> {
        unimplemented!()
    }

    /// Tells whether the catalog is closed, so that no further change will come.
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }
}
