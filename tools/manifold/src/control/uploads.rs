//! What waits to be uploaded, as it travels between a command and its library. The JSON form is described in `docs/control.md`
//! and only grows.

use serde::{Deserialize, Serialize};

use super::text::Text;

/// What is staged, in sums, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadCounts {
    /// Files that are not at their source yet.
    pub(crate) waiting: u64,
    /// Those of them that are being sent.
    #[serde(default)]
    pub(crate) under_way: u64,
    /// Those that failed, and are tried again by themselves.
    #[serde(default)]
    pub(crate) delayed: u64,
    /// Those that their source does not take.
    #[serde(default)]
    pub(crate) refused: u64,
    /// Bytes in the staging area.
    #[serde(default)]
    pub(crate) staged_bytes: u64,
    /// The most that they may be.
    #[serde(default)]
    pub(crate) limit_bytes: u64,
    /// Files uploaded since the daemon started.
    #[serde(default)]
    pub(crate) done: u64,
    /// Files that had to make way for another version since the daemon started.
    #[serde(default)]
    pub(crate) conflicts: u64,
    /// Renamed directories whose objects are still to follow them.
    #[serde(default)]
    pub(crate) moves: u64,
    /// Those of them that cannot be followed as things are.
    #[serde(default)]
    pub(crate) moves_refused: u64,
    /// Objects that are still to follow a renamed directory, as far as is known.
    #[serde(default)]
    pub(crate) to_move: u64,
    /// Objects that have followed a renamed directory, and originals that were taken away, since the daemon started.
    #[serde(default)]
    pub(crate) moved: u64,
    /// Files of `waiting` that were moved from another source, which still has them.
    #[serde(default)]
    pub(crate) moving: u64,
    /// Files that have arrived at another source, and whose originals are still to be taken away.
    #[serde(default)]
    pub(crate) originals: u64,
    /// Those of them that cannot be taken away as things are.
    #[serde(default)]
    pub(crate) originals_refused: u64,
}

/// What is staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadsFacts {
    /// Up to [`PAGE_MAX`](super::PAGE_MAX) files, in the order of their numbers.
    pub(crate) uploads: Vec<UploadFacts>,
    /// Whether there are more behind these.
    pub(crate) more: bool,
    /// What had to make way since the daemon started, the last of it.
    pub(crate) conflicts: Vec<ConflictFacts>,
    /// Renamed directories whose objects are still to follow them.
    #[serde(default)]
    pub(crate) moves: Vec<MoveFacts>,
    /// Files that have arrived at another source, and whose originals are still to be taken away.
    #[serde(default)]
    pub(crate) originals: Vec<MoveFacts>,
}

/// A renamed directory whose objects are still to follow it, or a moved file whose original is still to be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoveFacts {
    /// Its inode number.
    pub(crate) id: u64,
    /// Its path in the tree.
    pub(crate) path: Text,
    /// The source that is changed, by its URI.
    pub(crate) source: String,
    /// Where it lay at its source, from the source's root.
    pub(crate) from: Text,
    /// Objects that have followed it since the daemon started.
    pub(crate) moved: u64,
    /// Objects that are still to follow it, as far as is known.
    pub(crate) left: u64,
    /// `waiting`, `under-way`, `delayed` or `refused`.
    pub(crate) state: String,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// What to do.
    pub(crate) remedy: Option<String>,
}

/// A file that is not at its source yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadFacts {
    /// Its inode number.
    pub(crate) id: u64,
    /// Its path in the tree.
    pub(crate) path: Text,
    /// Where it was moved from, at another source that still has it: a path in the tree.
    #[serde(default)]
    pub(crate) from: Option<Text>,
    /// Its source, by its URI; empty where that is gone.
    pub(crate) source: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes of it that are staged.
    pub(crate) staged: u64,
    /// `open`, `waiting`, `under-way`, `delayed` or `refused`.
    pub(crate) state: String,
    /// Bytes that were sent, while it is under way.
    pub(crate) sent: Option<u64>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// What to do.
    pub(crate) remedy: Option<String>,
}

/// A file that had to make way for another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConflictFacts {
    /// When, RFC 3339.
    pub(crate) at: String,
    /// Where the other version stands in the tree.
    pub(crate) path: Text,
    /// The name under which the local version is kept, in the same directory.
    pub(crate) kept_as: Text,
}
