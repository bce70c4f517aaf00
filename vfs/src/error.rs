//! The one error of the file system, which each adaptor turns into its kernel's numbers by one exhaustive match.
//!
//! Always true: [`Error::NotFound`] is only ever made of a source's own word, or of a completely listed directory.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use manifold_backends::ErrorKind;
use manifold_index::IndexError;

/// What lies behind a failed request: for the log, with the whole chain of causes.
#[derive(Clone)]
pub struct Cause(Arc<dyn StdError + Send + Sync>);

impl Cause {
    /// Keeps an error, or a message. It must not hold a secret.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a request was refused or failed. Cheap to clone: all that wait for one block get the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The name is certainly not there.
    #[error("no such file or directory")]
    NotFound,
    /// The entry is gone, or the version that a handle is bound to can no longer be had: look again.
    #[error("the entry has been replaced or removed since it was looked up")]
    Stale,
    /// A source gave no answer within the deadline.
    #[error("{0}")]
    TimedOut(Cause),
    /// A source cannot be reached.
    #[error("{0}")]
    Unreachable(Cause),
    /// A source refused the credentials, or its certificate was refused.
    #[error("{0}")]
    AccessDenied(Cause),
    /// The credentials are good, but this object is not for them.
    #[error("{0}")]
    PermissionDenied(Cause),
    /// The file system, or the source, may not be written to.
    #[error("read-only file system")]
    ReadOnly,
    /// The source, or this kind of entry, cannot do that.
    #[error("{0}")]
    Unsupported(Cause),
    /// The operation would lead from one source, or one device of a source, into another.
    #[error("the two paths lie on different sources or devices")]
    CrossSource,
    /// There is no space left.
    #[error("no space left")]
    Full,
    /// The quota is used up.
    #[error("quota exceeded")]
    Quota,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Something else than a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The request makes no sense.
    #[error("invalid argument")]
    InvalidArgument,
    /// A name of more than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// The handle is not, or no longer, open.
    #[error("no such handle")]
    BadHandle,
    /// Something has that name already.
    #[error("it exists")]
    Exists,
    /// The directory has something in it.
    #[error("directory not empty")]
    NotEmpty,
    /// It is in use: by somebody at the source, or because a source is attached there.
    #[error("in use")]
    Busy,
    /// The file is a program that is running.
    #[error("the program is running")]
    TextBusy,
    /// Nobody may do that there, whatever the permissions say.
    #[error("not permitted")]
    NotPermitted,
    /// The object has as many names as it can have.
    #[error("too many links")]
    TooManyLinks,
    /// The file would become larger than its source takes.
    #[error("file too large")]
    TooLarge,
    /// The value of an extended attribute is longer than the source takes.
    #[error("value too long")]
    ValueTooLong,
    /// There is nothing from that offset on.
    #[error("nothing is there from that offset on")]
    BeyondEnd,
    /// There is no such extended attribute.
    #[error("no data")]
    NoData,
    /// Anything else; the cause tells.
    #[error("{0}")]
    Io(Cause),
}

impl Error {
    /// Turns a failed request to a source into what a reader of one of its objects is told.
    pub(crate) fn from_backend(error: &Arc<manifold_backends::Error>) -> Self {
        Self::from_kind(error.kind(), Cause(Arc::clone(error) as _))
    }

    /// Turns a failed listing, or look, into what is told to whoever waited for it.
    pub(crate) fn from_index(error: IndexError) -> Self {
        match error.kind() {
            Some(kind) => Self::from_kind(kind, Cause::new(error)),
            None if matches!(error, IndexError::NotFound(_)) => Self::NotFound,
            // There was time for some tries, and for none that counted.
            None if matches!(error, IndexError::Overtaken(_)) => Self::TimedOut(Cause::new(error)),
            None => Self::Io(Cause::new(error)),
        }
    }

    /// Keeps a failure of the catalog, which is nobody's fault but ours.
    pub(crate) fn from_catalog(error: manifold_catalog::Error) -> Self {
        use manifold_catalog::Error as Catalog;
        match error {
            // It was there when the request began: whoever asked is to look its name up again.
            Catalog::NoEntry(_) | Catalog::NoSource(_) | Catalog::Overtaken(_) => Self::Stale,
            Catalog::NotADirectory(_) => Self::NotADirectory,
            // Something is staged beneath it.
            Catalog::Waiting(_) => Self::NotEmpty,
            Catalog::Full => Self::Full,
            Catalog::NoPolicy(_)
            | Catalog::SourceWaiting { .. }
            | Catalog::Refused { .. }
            | Catalog::Damaged(_)
            | Catalog::Storage(_) => Self::Io(Cause::new(error)),
        }
    }

    /// Makes of a task that broke off what its request is told.
    pub(crate) fn broke_off(error: tokio::task::JoinError) -> Self {
        Self::Io(Cause::new(error))
    }

    /// The one table from a source's failures to the file system's.
    fn from_kind(kind: ErrorKind, cause: Cause) -> Self {
        match kind {
            ErrorKind::TimedOut => Self::TimedOut(cause),
            ErrorKind::Unreachable | ErrorKind::NoSuchSource | ErrorKind::RateLimited | ErrorKind::Settings => {
                Self::Unreachable(cause)
            }
            ErrorKind::CredentialsRefused | ErrorKind::Certificate => Self::AccessDenied(cause),
            ErrorKind::PermissionDenied => Self::PermissionDenied(cause),
            ErrorKind::VersionChanged | ErrorKind::Conflict => Self::Stale,
            ErrorKind::NotADirectory => Self::NotADirectory,
            ErrorKind::IsADirectory => Self::IsADirectory,
            ErrorKind::Unsupported => Self::Unsupported(cause),
            ErrorKind::Full => Self::Full,
            ErrorKind::ReadOnly => Self::ReadOnly,
            ErrorKind::Exists => Self::Exists,
            ErrorKind::NotEmpty => Self::NotEmpty,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::NameTooLong => Self::NameTooLong,
            ErrorKind::TooLarge => Self::TooLarge,
            ErrorKind::NotPermitted => Self::NotPermitted,
            ErrorKind::TextBusy => Self::TextBusy,
            ErrorKind::TooManyLinks => Self::TooManyLinks,
            ErrorKind::CrossDevice => Self::CrossSource,
            ErrorKind::Quota => Self::Quota,
            ErrorKind::InvalidArgument => Self::InvalidArgument,
            ErrorKind::NoAttribute => Self::NoData,
            ErrorKind::ValueTooLong => Self::ValueTooLong,
            ErrorKind::BeyondEnd => Self::BeyondEnd,
            ErrorKind::Nonsense | ErrorKind::BadPath | ErrorKind::Other => Self::Io(cause),
        }
    }
}
