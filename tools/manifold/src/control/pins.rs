//! What is pinned, as it travels between a command and its library. The JSON form is described in `docs/control.md` and only grows.

use serde::{Deserialize, Serialize};

use super::text::Text;

/// What is pinned, and how much of it is on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinsFacts {
    /// Up to [`PAGE_MAX`](super::PAGE_MAX) pins, those by name first, then policies.
    pub(crate) pins: Vec<PinFacts>,
    /// Whether there are more behind these.
    pub(crate) more: bool,
    /// The sums over all pinned files; `None` where no daemon runs.
    pub(crate) total: Option<PinCounts>,
    /// What stands in the way.
    pub(crate) problems: Vec<PinTrouble>,
    /// Whether the numbers know of the last change of pins.
    pub(crate) up_to_date: bool,
}

/// One pin or policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinFacts {
    /// What is pinned by name: its inode number.
    pub(crate) id: Option<u64>,
    /// Its path; `None` where it has left the tree.
    pub(crate) path: Option<Text>,
    /// The policy.
    pub(crate) policy: Option<Policy>,
    /// Its files; `None` where no daemon runs.
    pub(crate) counts: Option<PinCounts>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Its number; 0 for one that is to be made.
    pub(crate) id: u64,
    /// A pattern for paths or names.
    pub(crate) glob: Text,
    /// Files have more bytes than this.
    pub(crate) larger: Option<u64>,
    /// Files have fewer bytes than this.
    pub(crate) smaller: Option<u64>,
    /// Files were changed within so many seconds.
    pub(crate) newer_s: Option<u64>,
}

/// Sums over pinned files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinCounts {
    /// How many there are.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The bytes of them that are on this machine.
    pub(crate) cached_bytes: u64,
    /// Those that are not.
    pub(crate) missing_bytes: u64,
    /// How many files are not whole on this machine.
    pub(crate) missing_files: u64,
    /// Directories of which it is not known yet what they hold.
    pub(crate) unlisted: u64,
    /// How many files find no room beneath the limit; only in the sums over all.
    pub(crate) refused_files: u64,
    /// Their bytes.
    pub(crate) refused_bytes: u64,
}

/// What stands in the way of something pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinTrouble {
    /// The source that it is about, by its URI; `None`: the cache.
    pub(crate) source: Option<String>,
    /// What is wrong, in words.
    pub(crate) message: String,
}

/// What was pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    /// The inode numbers, in the order of the paths.
    pub(crate) ids: Vec<u64>,
    /// The number of the policy.
    pub(crate) policy: Option<u64>,
}

impl PinCounts {
    /// Tells whether all of it is on this machine.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing_bytes == 0 && self.unlisted == 0
    }
}
