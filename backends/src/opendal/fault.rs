//! What an error of a service means: the one place where `OpenDAL`'s errors become ours.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;

use crate::{ErrorKind, Secret};

/// The longest text of a server that is passed on in a message, in bytes.
const TEXT_MAX: usize = 300;

/// The shortest secret that is masked where somebody repeats it, in bytes. A shorter one is in many a word by chance, and to mask it
/// there would spell it out; so what holds one is left out as a whole.
const MASKED_MIN: usize = 6;

/// Says what went wrong; `None` means that the source answered, and the object is not there.
///
/// `status` is that of the last HTTP answer.
pub(super) fn classify(error: &::opendal::Error, status: Option<u16>) -> Option<ErrorKind> {
    use ::opendal::ErrorKind as Theirs;
    if let Some(kind) = code(error.message()).and_then(by_code) {
        return Some(kind);
    }
    if let Some(kind) = status.and_then(by_status) {
        return Some(kind);
    }
    Some(match error.kind() {
        Theirs::NotFound => return None,
        _ if error.message().contains("insufficient_space") => ErrorKind::Full,
        Theirs::PermissionDenied => ErrorKind::PermissionDenied,
        Theirs::IsADirectory => ErrorKind::IsADirectory,
        Theirs::NotADirectory => ErrorKind::NotADirectory,
        Theirs::RateLimited => ErrorKind::RateLimited,
        Theirs::ConditionNotMatch => ErrorKind::VersionChanged,
        Theirs::RangeNotSatisfied => ErrorKind::Nonsense,
        Theirs::Unsupported => ErrorKind::Unsupported,
        Theirs::ConfigInvalid => ErrorKind::Settings,
        // Unexpected, and what later releases may add.
        _ => by_cause(error),
    })
}

/// Takes the error code that a service names in its answer, from the form in which `OpenDAL` passes it on.
fn code(message: &str) -> Option<&str> {
    for opening in ["code: \"", "error_summary: \"", "\"error\":\"", "\"error\": \""] {
        if let Some((_, rest)) = message.split_once(opening) {
            let end = rest.find(['"', '/']).unwrap_or(rest.len());
            return Some(&rest[..end]);
        }
    }
    None
}

pub(super) fn by_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "NoSuchBucket" | "ContainerNotFound" | "AccountNotFound" | "ContainerBeingDeleted" => ErrorKind::NoSuchSource,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "AuthenticationFailed"
        | "AuthorizationFailure"
        | "InvalidAuthenticationInfo"
        | "InvalidAuthenticationToken"
        | "expired_access_token"
        | "invalid_access_token"
        | "invalid_grant"
        | "invalid_client" => ErrorKind::CredentialsRefused,
        "QuotaExceeded" | "quotaExceeded" | "storageQuotaExceeded" | "quotaLimitReached" | "XMinioStorageFull" => {
            ErrorKind::Full
        }
        "EntityTooLarge" | "RequestBodyTooLarge" | "MaxMessageLengthExceeded" => ErrorKind::TooLarge,
        "KeyTooLongError" => ErrorKind::NameTooLong,
        "ConditionalRequestConflict" | "LeaseIdMissing" | "resourceLocked" => ErrorKind::Busy,
        "SlowDown" | "RequestLimitExceeded" | "ServerBusy" | "too_many_requests" => ErrorKind::RateLimited,
        _ => return None,
    })
}

pub(super) fn by_status(status: u16) -> Option<ErrorKind> {
    Some(match status {
        401 | 407 => ErrorKind::CredentialsRefused,
        403 => ErrorKind::PermissionDenied,
        405 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::TimedOut,
        412 => ErrorKind::VersionChanged,
        413 => ErrorKind::TooLarge,
        414 => ErrorKind::NameTooLong,
        416 => ErrorKind::Nonsense,
        423 => ErrorKind::Busy,
        429 => ErrorKind::RateLimited,
        502 | 503 => ErrorKind::Unreachable,
        507 => ErrorKind::Full,
        _ => return None,
    })
}

/// Looks for the cause of an error that `OpenDAL` has no word for.
fn by_cause(error: &::opendal::Error) -> ErrorKind {
    let message = error.message();
    if message.contains("timeout") {
        return ErrorKind::TimedOut;
    }
    if message.contains("deserialize") || message.contains("parse ") || message.contains("got too ") {
        return ErrorKind::Nonsense;
    }
    let mut found = None;
    for cause in causes(error) {
        let text = cause.to_string();
        if text.contains("certificate") || text.contains("Host key verification failed") {
            return ErrorKind::Certificate;
        }
        if text.contains("Invalid response: [530]") || text.contains("[331]") {
            return ErrorKind::CredentialsRefused;
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // The innermost says most.
            found = Some(match error.kind() {
                io::ErrorKind::TimedOut => ErrorKind::TimedOut,
                io::ErrorKind::PermissionDenied => ErrorKind::CredentialsRefused,
                io::ErrorKind::InvalidData => ErrorKind::Nonsense,
                _ => ErrorKind::Unreachable,
            });
        } else if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
            found = Some(if error.is_timeout() {
                ErrorKind::TimedOut
            } else {
                ErrorKind::Unreachable
            });
        } else if text.contains("Connection error") || text.contains("connection") {
            found = found.or(Some(ErrorKind::Unreachable));
        }
    }
    found.unwrap_or(ErrorKind::Other)
}

fn causes(error: &::opendal::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause| StdError::source(*cause))
}

/// Says in words what went wrong, without an address (it may be signed) and without a secret.
pub(super) fn describe(error: &::opendal::Error, status: Option<u16>, secrets: &[Secret]) -> String {
    let mut text = String::new();
    if let Some(status) = status.filter(|status| *status >= 400) {
        let reason = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let _infallible = write!(text, "the server answered {status}");
        if let Some(reason) = reason {
            let _infallible = write!(text, " {reason}");
        }
    }
    let secrets = secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty());
    let (long, short): (Vec<_>, Vec<_>) = secrets.partition(|secret| secret.len() >= MASKED_MIN);
    let mut add = |part: &str| {
        let part = long
            .iter()
            .fold(part.trim().to_owned(), |part, secret| part.replace(secret, "***"));
        let tells = short.iter().any(|secret| part.contains(secret));
        if !part.is_empty() && !tells && !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    };
    match said(error.message()) {
        Some((code, message)) => {
            add(code);
            add(message);
        }
        // A page for people says nothing that the status does not.
        None if status.is_some() && error.message().trim_start().starts_with('<') => {}
        None => add(error.message()),
    }
    for cause in causes(error) {
        add(&cause.to_string());
    }
    if text.is_empty() {
        text = error.kind().to_string();
    }
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Takes code and message out of an answer that `OpenDAL` has read and printed.
fn said(message: &str) -> Option<(&str, &str)> {
    let code = code(message)?;
    let words = message
        .split_once("message: \"")
        .map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
    Some((code, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ::opendal::ErrorKind, message: &str) -> ::opendal::Error {
        ::opendal::Error::new(kind, message)
    }

    #[test]
    fn only_a_plain_not_found_is_absence() {
        use ::opendal::ErrorKind::{ConfigInvalid, NotFound, Unexpected};
        let gone = r#"S3Error { code: "NoSuchKey", message: "gone", resource: "/b/NoSuchBucket", request_id: "1" }"#;
        assert_eq!(classify(&error(NotFound, gone), Some(404)), None);
        let bucket = r#"S3Error { code: "NoSuchBucket", message: "no", resource: "/b", request_id: "1" }"#;
        assert_eq!(
            classify(&error(ConfigInvalid, bucket), Some(404)),
            Some(ErrorKind::NoSuchSource)
        );
        assert_eq!(
            classify(&error(NotFound, bucket), Some(404)),
            Some(ErrorKind::NoSuchSource)
        );
        for status in [301, 400, 401, 403, 429, 500, 502, 503, 504] {
            assert_ne!(classify(&error(Unexpected, ""), Some(status)), None, "{status}");
        }
    }

    #[test]
    fn refused_credentials_are_told_from_a_refused_object() {
        use ::opendal::ErrorKind::{PermissionDenied, Unexpected};
        let key = r#"S3Error { code: "InvalidAccessKeyId", message: "no", resource: "", request_id: "" }"#;
        assert_eq!(
            classify(&error(PermissionDenied, key), Some(403)),
            Some(ErrorKind::CredentialsRefused)
        );
        assert_eq!(
            classify(&error(PermissionDenied, ""), Some(403)),
            Some(ErrorKind::PermissionDenied)
        );
        assert_eq!(
            classify(&error(Unexpected, "<html>"), Some(401)),
            Some(ErrorKind::CredentialsRefused)
        );
    }

    #[test]
    fn the_innermost_cause_of_a_lost_connection_counts() {
        let lost = |kind| error(::opendal::ErrorKind::Unexpected, "send").set_source(io::Error::new(kind, "cause"));
        assert_eq!(
            classify(&lost(io::ErrorKind::ConnectionRefused), None),
            Some(ErrorKind::Unreachable)
        );
        assert_eq!(
            classify(&lost(io::ErrorKind::TimedOut), None),
            Some(ErrorKind::TimedOut)
        );
        let strange = error(::opendal::ErrorKind::Unexpected, "send")
            .set_source(io::Error::other("invalid peer certificate: UnknownIssuer"));
        assert_eq!(classify(&strange, None), Some(ErrorKind::Certificate));
    }

    #[test]
    fn a_message_holds_no_secret_and_no_page() {
        let secrets = [Secret::new("hunter2".into())];
        let told = error(::opendal::ErrorKind::Unexpected, "bad password hunter2\r\nfor you");
        assert_eq!(describe(&told, None, &secrets), "bad password ***  for you");
        // Three stars in the middle of a word would tell which letters are missing.
        for short in ["a", "pass", "word"] {
            let secrets = [Secret::new(short.into()), Secret::new("hunter2".into())];
            assert_eq!(
                describe(&told, Some(401), &secrets),
                "the server answered 401 Unauthorized"
            );
            assert_eq!(describe(&told, None, &secrets), "Unexpected");
        }
        let page = error(::opendal::ErrorKind::Unexpected, "<html><body>Sorry</body></html>");
        assert_eq!(
            describe(&page, Some(503), &[]),
            "the server answered 503 Service Unavailable"
        );
        let long = error(::opendal::ErrorKind::Unexpected, &"ä".repeat(1000));
        assert!(describe(&long, None, &[]).len() < 310);
    }
}
