//! The one error of this crate: what failed, where, whether to try again, and why.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::ObjectPath;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in terms a file system can act on. "Not there" is not among them: see
/// [`Presence`](crate::Presence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection: refused, no route, name not found, connection lost.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The credentials were refused or have expired.
    CredentialsRefused,
    /// The credentials are good, but this object is not for them.
    PermissionDenied,
    /// The source's certificate was not accepted.
    Certificate,
    /// The share, bucket or container itself does not exist.
    NoSuchSource,
    /// The object is no longer in the version that was asked for.
    VersionChanged,
    /// A directory was needed and something else stands there.
    NotADirectory,
    /// Something else was needed and a directory stands there.
    IsADirectory,
    /// The source asks for fewer requests.
    RateLimited,
    /// The source cannot do this at all.
    Unsupported,
    /// The source is full or over its quota.
    Full,
    /// The source may not be written to.
    ReadOnly,
    /// Something has that name already.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// What stands there is not what was expected; nothing was changed.
    Conflict,
    /// Somebody else has it open or locked.
    Busy,
    /// The name or the path is longer than the source takes.
    NameTooLong,
    /// The object is larger than the source takes.
    TooLarge,
    /// The source does not let anybody in this place do that, whatever the permissions say.
    NotPermitted,
    /// The file is a program that is running.
    TextBusy,
    /// The object has as many names as it can have.
    TooManyLinks,
    /// The two places lie on different devices.
    CrossDevice,
    /// The quota is used up.
    Quota,
    /// The request makes no sense for this object.
    InvalidArgument,
    /// The object has no such extended attribute.
    NoAttribute,
    /// The attribute's value is longer than the source takes.
    ValueTooLong,
    /// Nothing is there from that offset on.
    BeyondEnd,
    /// The answer made no sense: wrong length, impossible attributes, broken protocol.
    Nonsense,
    /// The path cannot be expressed on this source, or leads out of its root.
    BadPath,
    /// A setting is missing, unknown or out of range.
    Settings,
    /// Anything else; the cause tells.
    Other,
}

impl ErrorKind {
    /// Gives the word for it, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::CredentialsRefused => "credentials-refused",
            Self::PermissionDenied => "permission-denied",
            Self::Certificate => "certificate",
            Self::NoSuchSource => "no-such-source",
            Self::VersionChanged => "version-changed",
            Self::NotADirectory => "not-a-directory",
            Self::IsADirectory => "is-a-directory",
            Self::RateLimited => "rate-limited",
            Self::Unsupported => "unsupported",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Exists => "exists",
            Self::NotEmpty => "not-empty",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::NameTooLong => "name-too-long",
            Self::TooLarge => "too-large",
            Self::NotPermitted => "not-permitted",
            Self::TextBusy => "text-busy",
            Self::TooManyLinks => "too-many-links",
            Self::CrossDevice => "cross-device",
            Self::Quota => "quota",
            Self::InvalidArgument => "invalid-argument",
            Self::NoAttribute => "no-attribute",
            Self::ValueTooLong => "value-too-long",
            Self::BeyondEnd => "beyond-end",
            Self::Nonsense => "nonsense",
            Self::BadPath => "bad-path",
            Self::Settings => "settings",
            Self::Other => "other",
        }
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Setting up the connection.
    Connect,
    /// Asking for one object's attributes.
    Stat,
    /// Listing a directory.
    List,
    /// Reading bytes.
    Read,
    /// Reading where a link points.
    ReadLink,
    /// Opening a local file.
    Open,
    /// Putting an object.
    Put,
    /// Making a directory.
    CreateDirectory,
    /// Removing a file.
    RemoveFile,
    /// Removing a directory.
    RemoveDirectory,
    /// Giving something another name.
    Rename,
    /// Changing attributes.
    SetAttributes,
    /// Making something other than a directory.
    Create,
    /// Giving something a further name.
    Link,
    /// Writing bytes.
    Write,
    /// Waiting until what was written is on the disk.
    Sync,
    /// Reading or changing extended attributes.
    ExtendedAttributes,
}

impl Operation {
    /// Gives the verb for messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Read => "read",
            Self::ReadLink => "readlink",
            Self::Open => "open",
            Self::Put => "put",
            Self::CreateDirectory => "create directory",
            Self::RemoveFile => "remove file",
            Self::RemoveDirectory => "remove directory",
            Self::Rename => "rename",
            Self::SetAttributes => "set attributes",
            Self::Create => "create",
            Self::Link => "link",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::ExtendedAttributes => "extended attributes",
        }
    }
}

/// A failed operation on a source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: Operation,
    source_name: String,
    path: ObjectPath,
    retry_after: Option<Duration>,
    cause: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// Records a failure. `source_name` is the source's URI without secrets; the cause must not hold secrets either.
    pub fn new(
        kind: ErrorKind,
        operation: Operation,
        source_name: impl Into<String>,
        path: ObjectPath,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            operation,
            source_name: source_name.into(),
            path,
            retry_after: None,
            cause: cause.into(),
        }
    }

    /// Adds how long the source has asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Says how long the source has asked to be left alone, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Says what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Says what was being done.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Tells whether the same request may succeed later without anyone's help.
    pub fn may_retry(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::RateLimited | ErrorKind::Busy
        )
    }

    /// Takes the same failure for another kind, where who asked knows better.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Names the source, as the backend does.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// Gives the cause, in the words of whoever noticed it.
    pub fn cause(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.cause
    }

    /// Names the object.
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} on {}: {}",
            self.operation.as_str(),
            self.path,
            self.source_name,
            self.cause
        )
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }
}
