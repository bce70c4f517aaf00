//! What can go wrong: on opening, on reading and writing, on adding a source.

use std::io;
use std::path::PathBuf;

use crate::format::Malformed;
use crate::{EntryId, PolicyId, SourceId};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A read or a change that failed. A failed change has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entry is not in the tree, or not any more.
    #[error("entry {0} is not in the catalog")]
    NoEntry(EntryId),
    /// The entry is not a directory.
    #[error("entry {0} is not a directory")]
    NotADirectory(EntryId),
    /// The source is not in the library, or not any more.
    #[error("source {0} is not in the catalog")]
    NoSource(SourceId),
    /// The policy is not in the library, or not any more.
    #[error("policy {0} is not in the catalog")]
    NoPolicy(PolicyId),
    /// What was seen may be older than a change that was made through the mount in this directory; nothing was changed.
    #[error("entry {0} is being changed through the mount, or was since it was looked at: look again")]
    Overtaken(EntryId),
    /// The entry cannot leave: it is staged, or leads to what is.
    #[error("entry {0} holds changes that its source does not have yet: upload them first, or give them up")]
    Waiting(EntryId),
    /// The source cannot be removed: some of its entries are staged.
    #[error(
        "{entries} entries of source {source_id} hold changes that it does not have yet: upload them first, or give them up"
    )]
    SourceWaiting {
        /// The source.
        source_id: SourceId,
        /// How many entries are staged.
        entries: u64,
    },
    /// What was given cannot stand in the catalog; nothing was changed.
    #[error("entry {directory}: refused {what} '{}': {why}", .name.escape_ascii())]
    Refused {
        /// The directory that was listed, or the entry that was looked at.
        directory: EntryId,
        /// What was refused.
        what: &'static str,
        /// Its name.
        name: Box<[u8]>,
        /// Why.
        why: &'static str,
    },
    /// The file does not hold what a catalog holds.
    #[error("the catalog is damaged: {0}")]
    Damaged(String),
    /// The disk is full; what was there before is still there.
    #[error("the disk that holds the catalog is full")]
    Full,
    /// The storage beneath failed.
    #[error("the catalog's storage failed: {0}")]
    Storage(#[source] Box<redb::Error>),
}

/// A catalog that could not be opened. Its file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("{} is in use by another process", .file.display())]
    Locked {
        /// The catalog's file.
        file: PathBuf,
    },
    /// It does not hold what a catalog holds.
    #[error("{} is damaged: {why}", .file.display())]
    Damaged {
        /// The catalog's file.
        file: PathBuf,
        /// What was found.
        why: String,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer version: format {found}, this program knows up to {known}", .file.display())]
    NewerVersion {
        /// The catalog's file.
        file: PathBuf,
        /// The format that was found.
        found: u64,
        /// The newest format that is known.
        known: u64,
    },
    /// The file could not be read or written.
    #[error("cannot open {}: {cause}", .file.display())]
    Io {
        /// The catalog's file.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// A source that could not be added or changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The same source is there already.
    #[error("source '{name}' is already attached at {}", .attach.escape_ascii())]
    SameName {
        /// Its name.
        name: String,
        /// Where it is attached.
        attach: Vec<u8>,
    },
    /// Another source is attached at that path.
    #[error("{} is taken by source '{by}'", .attach.escape_ascii())]
    AttachPointTaken {
        /// The path.
        attach: Vec<u8>,
        /// The source that is attached there.
        by: String,
    },
    /// The path is not an absolute path of usable names.
    #[error("'{}' is not a path to attach a source at: {why}", .attach.escape_ascii())]
    BadAttachPoint {
        /// The path.
        attach: Vec<u8>,
        /// Why not.
        why: &'static str,
    },
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] Error),
}

impl Error {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    /// Tells whether the storage will do nothing more until it is opened again.
    pub(crate) fn breaks_storage(&self) -> bool {
        matches!(self, Self::Full | Self::Storage(_))
    }

    pub(crate) fn of_storage(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::Io(cause) if is_full(&cause) => Self::Full,
            other => Self::Storage(Box::new(other)),
        }
    }
}

/// Tells whether there was no room: on the disk, in the quota, or beneath the limit on a file's size.
pub(crate) fn is_full(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl From<Malformed> for Error {
    fn from(fault: Malformed) -> Self {
        Self::Damaged(fault.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::of_storage(redb::Error::Io(cause))
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Self {
                Self::of_storage(error.into())
            }
        })*
    };
}

from_redb!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    SetDurabilityError,
    CursorError
);
