//! The words for sources and their scans.

use crate::{EntryId, SourceId};

/// A source of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRecord {
    /// Its id.
    pub id: SourceId,
    /// What it is called: its canonical URI, unique within the library.
    pub name: String,
    /// Where it is attached: an absolute path of the tree, `/a/b`.
    pub attach: Vec<u8>,
    /// The directory of the tree that is its root.
    pub root: EntryId,
    /// What is needed to connect, opaque to the catalog; never a secret.
    pub spec: String,
    /// How it is to be treated, opaque to the catalog.
    pub options: String,
}

/// A source that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSource {
    /// What it is called: its canonical URI, unique within the library.
    pub name: String,
    /// Where it is to be attached: an absolute path of the tree, `/a/b`, or `/` for the root itself.
    pub attach: Vec<u8>,
    /// What is needed to connect, opaque to the catalog; never a secret.
    pub spec: String,
    /// How it is to be treated, opaque to the catalog.
    pub options: String,
}

/// How far the last scan of a source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanState {
    /// Counts the scans of this source, from 1.
    pub generation: u64,
    /// When it began, in nanoseconds since 1970 UTC.
    pub started_ns: i64,
    /// When it ended; `None` while it runs.
    pub finished_ns: Option<i64>,
    /// Directories that are still to be listed.
    pub queued: u64,
    /// Directories that were listed completely since it began.
    pub listed: u64,
    /// Directories whose last listing failed, since it began; one that is listed well later, or leaves the tree, is not
    /// among them any more.
    pub failed: u64,
}
