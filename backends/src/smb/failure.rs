//! Why an exchange failed, and the one table from NTSTATUS to our words.
//!
//! Always true: only a server that answered can make something [`Failure::Absent`].

use std::sync::Arc;

use smb2::types::Command;
use smb2::types::status::NtStatus;

use super::names::BadName;
use super::wire::Malformed;
use crate::ErrorKind;

/// What an exchange with the server came to, if not to success. Cheap to clone: several callers may share one.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server answered that there is no such object.
    #[error("no such file or directory")]
    Absent,
    /// Anything else.
    #[error("{text}")]
    Failed {
        /// What went wrong.
        kind: ErrorKind,
        /// What is left standing.
        left: Left,
        /// The reason, and what to do about it.
        text: Arc<str>,
    },
}

/// What a failed exchange leaves standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The connection and its handles.
    All,
    /// The connection, but not the handle.
    Connection,
    /// Nothing: a new connection is needed.
    Nothing,
}

impl Failure {
    /// Makes a failure that leaves connection and handle usable.
    pub(super) fn new(kind: ErrorKind, text: impl Into<Arc<str>>) -> Self {
        Self::leaving(Left::All, kind, text)
    }

    /// Makes a failure that takes the connection with it.
    pub(super) fn lost(kind: ErrorKind, text: impl Into<Arc<str>>) -> Self {
        Self::leaving(Left::Nothing, kind, text)
    }

    fn leaving(left: Left, kind: ErrorKind, text: impl Into<Arc<str>>) -> Self {
        Self::Failed {
            kind,
            left,
            text: text.into(),
        }
    }

    /// Says what the failure left standing.
    pub(super) fn left(&self) -> Left {
        match self {
            Self::Absent => Left::All,
            Self::Failed { left, .. } => *left,
        }
    }

    /// Tells whether the connection was lost without a word of the server.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                left: Left::Nothing,
                kind: ErrorKind::Unreachable | ErrorKind::TimedOut,
                ..
            }
        )
    }

    /// Says what a status means as the answer to `command`.
    pub(super) fn of_status(status: NtStatus, command: Command) -> Self {
        let failed = |left, kind, hint: &str| {
            let text = format!("the server answered {status} to {command:?}{hint}");
            Self::leaving(left, kind, text)
        };
        let setting_up = matches!(command, Command::Negotiate | Command::SessionSetup);
        let entering = setting_up || command == Command::TreeConnect;
        match status {
            NtStatus::BAD_NETWORK_NAME => failed(Left::All, ErrorKind::NoSuchSource, "; check the name of the share"),
            _ if entering
                && matches!(
                    status,
                    NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND | NtStatus::BAD_NETWORK_PATH
                ) =>
            {
                failed(Left::All, ErrorKind::NoSuchSource, "; check the name of the share")
            }
            NtStatus::NO_SUCH_FILE
            | NtStatus::OBJECT_NAME_NOT_FOUND
            | NtStatus::OBJECT_PATH_NOT_FOUND
            | NtStatus::NOT_FOUND
            | NtStatus::DELETE_PENDING => Self::Absent,
            NtStatus::LOGON_FAILURE | NO_SUCH_USER | WRONG_PASSWORD => failed(
                Left::All,
                ErrorKind::CredentialsRefused,
                "; check user, password and domain",
            ),
            NtStatus::PASSWORD_EXPIRED | NtStatus::PASSWORD_MUST_CHANGE => failed(
                Left::All,
                ErrorKind::CredentialsRefused,
                "; change the password at the server, then here",
            ),
            NtStatus::ACCOUNT_RESTRICTION
            | NtStatus::INVALID_LOGON_HOURS
            | NtStatus::INVALID_WORKSTATION
            | NtStatus::ACCOUNT_DISABLED
            | NtStatus::ACCOUNT_EXPIRED
            | NtStatus::ACCOUNT_LOCKED_OUT
            | LOGON_TYPE_NOT_GRANTED => failed(
                Left::All,
                ErrorKind::CredentialsRefused,
                "; the server's administrator can lift this",
            ),
            NtStatus::ACCESS_DENIED if setting_up => failed(
                Left::All,
                ErrorKind::CredentialsRefused,
                "; the server wants a user and a password",
            ),
            NtStatus::ACCESS_DENIED if entering => failed(
                Left::All,
                ErrorKind::PermissionDenied,
                "; the share is not open to this user",
            ),
            NtStatus::ACCESS_DENIED | PRIVILEGE_NOT_HELD | NtStatus::CANNOT_DELETE => {
                failed(Left::All, ErrorKind::PermissionDenied, "")
            }
            NtStatus::SHARING_VIOLATION | NtStatus::FILE_LOCK_CONFLICT | USER_MAPPED_FILE => failed(
                Left::All,
                ErrorKind::Busy,
                "; a program has the file open for itself alone",
            ),
            NtStatus::OBJECT_NAME_COLLISION => failed(Left::All, ErrorKind::Exists, ""),
            NtStatus::DIRECTORY_NOT_EMPTY => failed(Left::All, ErrorKind::NotEmpty, ""),
            NtStatus::FILE_IS_A_DIRECTORY => failed(Left::All, ErrorKind::IsADirectory, ""),
            NtStatus::NOT_A_DIRECTORY => failed(Left::All, ErrorKind::NotADirectory, ""),
            NtStatus::OBJECT_NAME_INVALID | OBJECT_PATH_SYNTAX_BAD => failed(Left::All, ErrorKind::BadPath, ""),
            NAME_TOO_LONG => failed(Left::All, ErrorKind::NameTooLong, ""),
            FILE_TOO_LARGE => failed(Left::All, ErrorKind::TooLarge, ""),
            NtStatus::STOPPED_ON_SYMLINK
            | NtStatus::PATH_NOT_COVERED
            | NtStatus::NOT_SUPPORTED
            | NtStatus::NOT_IMPLEMENTED
            | NtStatus::INVALID_DEVICE_REQUEST
            | NtStatus::INVALID_INFO_CLASS => failed(Left::All, ErrorKind::Unsupported, ""),
            NtStatus::DISK_FULL | DISK_QUOTA_EXCEEDED => failed(Left::All, ErrorKind::Full, ""),
            MEDIA_WRITE_PROTECTED => failed(Left::All, ErrorKind::ReadOnly, ""),
            NtStatus::INSUFFICIENT_RESOURCES
            | NtStatus::INSUFF_SERVER_RESOURCES
            | NtStatus::REQUEST_NOT_ACCEPTED
            | TOO_MANY_OPENED_FILES => failed(Left::All, ErrorKind::RateLimited, ""),
            IO_TIMEOUT => failed(Left::All, ErrorKind::TimedOut, ""),
            // The file is shorter than what is asked of it: it has been cut.
            NtStatus::END_OF_FILE => failed(Left::Connection, ErrorKind::VersionChanged, ""),
            NtStatus::FILE_CLOSED | INVALID_HANDLE => failed(Left::Connection, ErrorKind::Unreachable, ""),
            NtStatus::NETWORK_NAME_DELETED
            | NtStatus::USER_SESSION_DELETED
            | NtStatus::NETWORK_SESSION_EXPIRED
            | CONNECTION_DISCONNECTED
            | CONNECTION_RESET
            | SERVER_UNAVAILABLE
            | VOLUME_DISMOUNTED
            | NtStatus::NO_SUCH_DEVICE
            | NtStatus::BAD_NETWORK_PATH => failed(Left::Nothing, ErrorKind::Unreachable, ""),
            _ => failed(Left::All, ErrorKind::Other, ""),
        }
    }
}

// Statuses of MS-ERREF 2.3.1 that the crate `smb2` has no name for.
const INVALID_HANDLE: NtStatus = NtStatus(0xC000_0008);
const OBJECT_PATH_SYNTAX_BAD: NtStatus = NtStatus(0xC000_003B);
const DISK_QUOTA_EXCEEDED: NtStatus = NtStatus(0xC000_0802);
const PRIVILEGE_NOT_HELD: NtStatus = NtStatus(0xC000_0061);
const NO_SUCH_USER: NtStatus = NtStatus(0xC000_0064);
const WRONG_PASSWORD: NtStatus = NtStatus(0xC000_006A);
const MEDIA_WRITE_PROTECTED: NtStatus = NtStatus(0xC000_00A2);
const IO_TIMEOUT: NtStatus = NtStatus(0xC000_00B5);
const NAME_TOO_LONG: NtStatus = NtStatus(0xC000_0106);
const USER_MAPPED_FILE: NtStatus = NtStatus(0xC000_0243);
const FILE_TOO_LARGE: NtStatus = NtStatus(0xC000_0904);
const TOO_MANY_OPENED_FILES: NtStatus = NtStatus(0xC000_011F);
const LOGON_TYPE_NOT_GRANTED: NtStatus = NtStatus(0xC000_015B);
const CONNECTION_DISCONNECTED: NtStatus = NtStatus(0xC000_020C);
const CONNECTION_RESET: NtStatus = NtStatus(0xC000_020D);
const VOLUME_DISMOUNTED: NtStatus = NtStatus(0xC000_026E);
const SERVER_UNAVAILABLE: NtStatus = NtStatus(0xC000_0466);

impl From<smb2::Error> for Failure {
    fn from(error: smb2::Error) -> Self {
        use smb2::Error as E;
        match &error {
            E::Protocol { status, command } => Self::of_status(*status, *command),
            E::Auth { message } => Self::new(
                ErrorKind::CredentialsRefused,
                format!("the log-in failed: {message}; check user, password and domain"),
            ),
            E::GuestSessionRefused { .. } => Self::new(
                ErrorKind::CredentialsRefused,
                "the server let the user in as a guest only; check user and password, or give no user to be a guest",
            ),
            E::SignatureInvalid { command, .. } => Self::lost(
                ErrorKind::Nonsense,
                format!(
                    "the server's answer to {command:?} is not signed as it must be; \
                     something between here and there may have changed it"
                ),
            ),
            E::InvalidData { message } => Self::new(
                ErrorKind::Nonsense,
                format!("the server's answer makes no sense: {message}"),
            ),
            // `smb2` says this of one request on a connection that still shows signs of life.
            E::Timeout => Self::leaving(Left::Connection, ErrorKind::TimedOut, "no answer in time"),
            E::SendTimeout { .. } | E::CreditStarvation { .. } => Self::lost(ErrorKind::TimedOut, "no answer in time"),
            E::ServerUnresponsive { silent_for } => Self::lost(
                ErrorKind::TimedOut,
                format!("the server has said nothing for {silent_for:.0?}"),
            ),
            E::ConnectFailed { attempts, .. } => {
                let attempts: Vec<String> = attempts.iter().map(ToString::to_string).collect();
                Self::lost(
                    ErrorKind::Unreachable,
                    format!("no connection: {}", attempts.join(", ")),
                )
            }
            E::Io(error) => Self::lost(ErrorKind::Unreachable, format!("no connection: {error}")),
            E::Disconnected | E::SendFailed { .. } | E::SessionExpired | E::HandleInvalidated { .. } => {
                Self::lost(ErrorKind::Unreachable, "the connection was lost")
            }
            E::DfsReferralRequired { .. } | E::ShareRedirected { .. } => Self::new(
                ErrorKind::Unsupported,
                "the object lies on another server (DFS); add that server's share as a source of its own",
            ),
            _ => Self::new(ErrorKind::Other, error.to_string()),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::new(ErrorKind::Nonsense, error.to_string())
    }
}

impl From<BadName> for Failure {
    fn from(error: BadName) -> Self {
        Self::new(ErrorKind::BadPath, error.to_string())
    }
}

/// To `OpenDAL`, with the failure itself as the source of the error.
impl From<Failure> for opendal::Error {
    fn from(failure: Failure) -> Self {
        use opendal::ErrorKind as K;
        let (kind, temporary) = match &failure {
            Failure::Absent => (K::NotFound, false),
            Failure::Failed { kind, .. } => match kind {
                ErrorKind::Unreachable | ErrorKind::TimedOut => (K::Unexpected, true),
                ErrorKind::RateLimited => (K::RateLimited, true),
                ErrorKind::CredentialsRefused | ErrorKind::PermissionDenied => (K::PermissionDenied, false),
                ErrorKind::VersionChanged => (K::ConditionNotMatch, false),
                ErrorKind::NotADirectory => (K::NotADirectory, false),
                ErrorKind::IsADirectory => (K::IsADirectory, false),
                ErrorKind::Unsupported => (K::Unsupported, false),
                ErrorKind::NoSuchSource | ErrorKind::Settings => (K::ConfigInvalid, false),
                ErrorKind::Certificate
                | ErrorKind::Full
                | ErrorKind::ReadOnly
                | ErrorKind::Nonsense
                | ErrorKind::BadPath
                | ErrorKind::Exists
                | ErrorKind::NotEmpty
                | ErrorKind::Conflict
                | ErrorKind::Busy
                | ErrorKind::NameTooLong
                | ErrorKind::TooLarge
                | ErrorKind::NotPermitted
                | ErrorKind::TextBusy
                | ErrorKind::TooManyLinks
                | ErrorKind::CrossDevice
                | ErrorKind::Quota
                | ErrorKind::InvalidArgument
                | ErrorKind::NoAttribute
                | ErrorKind::ValueTooLong
                | ErrorKind::BeyondEnd
                | ErrorKind::Other => (K::Unexpected, false),
            },
        };
        Self::new(kind, failure.to_string())
            .with_temporary(temporary)
            .set_source(failure)
    }
}

/// Back from `OpenDAL`.
impl From<opendal::Error> for Failure {
    fn from(error: opendal::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Self>());
        match source {
            Some(failure) => failure.clone(),
            None => Self::new(ErrorKind::Other, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u32, command: Command) -> Option<ErrorKind> {
        match Failure::of_status(NtStatus(status), command) {
            Failure::Absent => None,
            Failure::Failed { kind, .. } => Some(kind),
        }
    }

    #[test]
    fn a_missing_share_is_not_a_missing_file() {
        assert_eq!(kind(0xC000_00CC, Command::TreeConnect), Some(ErrorKind::NoSuchSource));
        assert_eq!(kind(0xC000_0034, Command::Create), None);
        assert_eq!(kind(0xC000_003A, Command::Create), None);
        assert_eq!(kind(0xC000_0034, Command::TreeConnect), Some(ErrorKind::NoSuchSource));
    }

    #[test]
    fn refused_credentials_are_told_from_a_refused_object() {
        for status in [
            0xC000_006D,
            0xC000_0071,
            0xC000_0072,
            0xC000_0193,
            0xC000_0224,
            0xC000_0234,
            0xC000_0022,
        ] {
            assert_eq!(
                kind(status, Command::SessionSetup),
                Some(ErrorKind::CredentialsRefused),
                "{status:x}"
            );
        }
        assert_eq!(kind(0xC000_0022, Command::Create), Some(ErrorKind::PermissionDenied));
    }

    #[test]
    fn an_unknown_status_is_never_an_absence() {
        for status in (0xC000_0000..0xC000_0400).chain([0x8000_0005, 0x1234_5678, 0]) {
            let absent = kind(status, Command::Create).is_none();
            let known = [0xC000_000F, 0xC000_0034, 0xC000_003A, 0xC000_0056, 0xC000_0225].contains(&status);
            assert_eq!(absent, known, "{status:x}");
        }
    }

    #[test]
    fn a_session_that_is_gone_takes_the_connection_with_it() {
        for status in [0xC000_00C9, 0xC000_0203, 0xC000_035C, 0xC000_020C] {
            let failure = Failure::of_status(NtStatus(status), Command::Read);
            assert_eq!(failure.left(), Left::Nothing);
            assert!(matches!(
                failure,
                Failure::Failed {
                    kind: ErrorKind::Unreachable,
                    ..
                }
            ));
        }
    }

    #[test]
    fn a_failure_comes_back_from_opendal_as_it_went() {
        let failure = Failure::lost(ErrorKind::TimedOut, "no answer in time");
        let error = opendal::Error::from(failure);
        assert!(error.is_temporary());
        assert!(matches!(
            Failure::from(error),
            Failure::Failed { kind: ErrorKind::TimedOut, left: Left::Nothing, text } if &*text == "no answer in time"
        ));
        assert!(matches!(
            Failure::from(opendal::Error::from(Failure::Absent)),
            Failure::Absent
        ));
    }
}
