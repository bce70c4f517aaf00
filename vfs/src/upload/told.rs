//! What is told of uploads and moves as it happens.

use std::sync::Arc;

use manifold_catalog::SourceId;

/// A file whose place was taken by another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// When it was noticed, in nanoseconds since 1970-01-01 UTC.
    pub at_ns: i64,
    /// The source.
    pub source: SourceId,
    /// Where the other version stands in the tree.
    pub path: Vec<u8>,
    /// The name under which the local version is kept, in the same directory.
    pub kept_as: Vec<u8>,
}

/// Something that became of an upload, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEvent {
    /// A place was taken: both versions are kept.
    Conflict(Conflict),
    /// A source does not take a file.
    Refused {
        /// The source, where it is known.
        source: Option<SourceId>,
        /// Where the file stands in the tree.
        path: Vec<u8>,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// Another has changed or removed what a file was moved from, so that one of the two is not as the move would have left it.
    MoveUndone {
        /// The source from which it was moved.
        source: SourceId,
        /// Where the file stands in the tree, or stood.
        path: Vec<u8>,
        /// What became of it.
        what: String,
    },
    /// What a file was moved from cannot be taken away, though its copy has arrived.
    OriginalRefused {
        /// The source from which it was moved.
        source: SourceId,
        /// Where the file stands in the tree.
        path: Vec<u8>,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// The objects of a renamed directory cannot follow it.
    MoveRefused {
        /// The source.
        source: SourceId,
        /// Where the directory stands in the tree.
        path: Vec<u8>,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
}

/// Tells of what becomes of uploads, and of objects that are to follow their directories.
pub type UploadListener = Arc<dyn Fn(UploadEvent) + Send + Sync>;
