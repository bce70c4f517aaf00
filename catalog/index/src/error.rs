//! The one error of this crate.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::ErrorKind;

/// Why a directory could not be listed, or an entry not be looked at or read.
///
/// Cheap to clone: all that wait for one listing get the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// The source failed. Nothing was forgotten because of it.
    #[error(transparent)]
    Backend(Arc<manifold_backends::Error>),
    /// The source has failed a moment ago and is not asked again before its next probe.
    #[error("{source_name} is away, and is asked again shortly: {cause}")]
    Away {
        /// The source, without secrets.
        source_name: String,
        /// The failure that showed it.
        cause: Arc<IndexError>,
    },
    /// The source gave no answer, or no further page, for too long.
    #[error("{path} on {source_name}: no answer within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The source, without secrets.
        source_name: String,
        /// The directory or entry, as the source calls it.
        path: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A listing ended well, but cannot be true.
    #[error("list {path} on {source_name}: the listing makes no sense: {reason}")]
    Odd {
        /// The source, without secrets.
        source_name: String,
        /// The directory, as the source calls it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The source answered that its own root is not there.
    #[error("the root of {source_name} is not there; check that the share, bucket or folder exists")]
    RootMissing {
        /// The source, without secrets.
        source_name: String,
    },
    /// The source answered that this is not there, or the catalog knows no such entry.
    #[error("entry {0} is not there")]
    NotFound(u64),
    /// A directory was needed and something else stands there.
    #[error("entry {0} is not a directory")]
    NotADirectory(u64),
    /// The directory is kept out of the library: a mount of Manifold itself, or the library's own state.
    #[error("{path} on {source_name} is kept out of the library, because it holds Manifold's own mount or state")]
    Skipped {
        /// The source, without secrets.
        source_name: String,
        /// The directory, as the source calls it.
        path: String,
    },
    /// Whenever it was looked at, something was changed there through the mount, so that what was seen may be older than
    /// what is known. It is looked at again later.
    #[error("entry {0} was changed through the mount each time it was looked at")]
    Overtaken(u64),
    /// The source is known, but not connected.
    #[error("source {0} is not connected")]
    NotConnected(u32),
    /// The catalog failed.
    #[error("the catalog failed: {0}")]
    Catalog(Arc<manifold_catalog::Error>),
    /// The indexer is being stopped, or its task has died.
    #[error("the listing was cut short, because indexing is being stopped")]
    Stopped,
}

impl IndexError {
    /// Gives the backend's word for it, where there is one: what a file system's error is made from.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Backend(error) => Some(error.kind()),
            // Nobody waited for this answer: a source known to be silent is out of reach.
            Self::Away { cause, .. } => match cause.kind() {
                Some(ErrorKind::TimedOut) | None => Some(ErrorKind::Unreachable),
                kind => kind,
            },
            Self::TimedOut { .. } => Some(ErrorKind::TimedOut),
            Self::Odd { .. } => Some(ErrorKind::Nonsense),
            Self::RootMissing { .. } => Some(ErrorKind::NoSuchSource),
            Self::NotConnected(_) => Some(ErrorKind::Unreachable),
            Self::NotADirectory(_) => Some(ErrorKind::NotADirectory),
            Self::Skipped { .. } => Some(ErrorKind::PermissionDenied),
            Self::NotFound(_) | Self::Overtaken(_) | Self::Catalog(_) | Self::Stopped => None,
        }
    }

    /// Tells whether this speaks of the whole source rather than of one directory.
    pub(crate) fn is_about_source(&self) -> bool {
        matches!(
            self.kind(),
            Some(
                ErrorKind::Unreachable
                    | ErrorKind::TimedOut
                    | ErrorKind::CredentialsRefused
                    | ErrorKind::Certificate
                    | ErrorKind::NoSuchSource
                    | ErrorKind::RateLimited
            )
        )
    }

    /// Tells whether this speaks against the source, whatever was asked for: it failed where it should not have.
    pub(crate) fn speaks_against_source(&self) -> bool {
        match self {
            Self::Backend(error) => {
                self.is_about_source() || matches!(error.kind(), ErrorKind::Nonsense | ErrorKind::Other)
            }
            Self::TimedOut { .. } | Self::Odd { .. } | Self::RootMissing { .. } => true,
            _ => false,
        }
    }

    /// How long the source has asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Backend(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Tells whether this is to be noted as the state of the directory that was to be listed.
    pub(crate) fn is_failure_of_directory(&self) -> bool {
        match self {
            Self::Backend(_)
            | Self::TimedOut { .. }
            | Self::Odd { .. }
            | Self::RootMissing { .. }
            | Self::Skipped { .. } => true,
            Self::Away { .. }
            | Self::NotFound(_)
            | Self::NotADirectory(_)
            | Self::Overtaken(_)
            | Self::NotConnected(_)
            | Self::Catalog(_)
            | Self::Stopped => false,
        }
    }

    /// Tells whether the same request may do better a little later, by itself.
    pub(crate) fn may_retry(&self) -> bool {
        match self {
            Self::Backend(error) => !matches!(
                error.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::NotADirectory
                    | ErrorKind::Unsupported
                    | ErrorKind::BadPath
                    | ErrorKind::Settings
            ),
            Self::Away { .. }
            | Self::TimedOut { .. }
            | Self::Odd { .. }
            | Self::RootMissing { .. }
            | Self::Overtaken(_)
            | Self::Catalog(_) => true,
            Self::NotFound(_)
            | Self::NotADirectory(_)
            | Self::Skipped { .. }
            | Self::NotConnected(_)
            | Self::Stopped => false,
        }
    }
}

impl From<manifold_backends::Error> for IndexError {
    fn from(error: manifold_backends::Error) -> Self {
        Self::Backend(Arc::new(error))
    }
}

impl From<manifold_catalog::Error> for IndexError {
    fn from(error: manifold_catalog::Error) -> Self {
        match error {
            manifold_catalog::Error::NoEntry(id) => Self::NotFound(id.0),
            manifold_catalog::Error::NotADirectory(id) => Self::NotADirectory(id.0),
            manifold_catalog::Error::Overtaken(id) => Self::Overtaken(id.0),
            other => Self::Catalog(Arc::new(other)),
        }
    }
}
