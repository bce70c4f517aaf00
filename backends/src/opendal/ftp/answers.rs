//! What the answers of FTP servers mean.

use suppaftp::types::Response;
use suppaftp::{FtpError, Status};

use crate::ErrorKind;

/// Says of a directory that it is there and may not be read.
pub(super) fn shut() -> FtpError {
    refused("550 Permission denied: the directory cannot be opened")
}

pub(super) fn refused(words: &str) -> FtpError {
    FtpError::UnexpectedResponse(Response::new(Status::FileUnavailable, words.into()))
}

/// Tells whether the server says that it cannot get at something (RFC 959, 550).
pub(super) fn is_unavailable(error: &FtpError) -> bool {
    matches!(error, FtpError::UnexpectedResponse(response) if response.status == Status::FileUnavailable)
}

/// Says what a refusal means (RFC 959, 4.2). Of 550 and 553 only the words tell, and servers have their own.
pub(super) fn judge(error: &FtpError) -> ErrorKind {
    let response = match error {
        FtpError::SecureError(why) if why.contains("certificate") => return ErrorKind::Certificate,
        FtpError::ConnectionError(_) | FtpError::SecureError(_) => return ErrorKind::Unreachable,
        FtpError::UnexpectedResponse(response) => response,
        _ => return ErrorKind::Nonsense,
    };
    let words = String::from_utf8_lossy(&response.body).to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    match response.status.code() {
        421 | 425 | 426 => ErrorKind::Unreachable,
        430 | 530 | 532 => ErrorKind::CredentialsRefused,
        450 => ErrorKind::Busy,
        452 | 552 => ErrorKind::Full,
        500 | 502 | 504 => ErrorKind::Unsupported,
        _ if says(&["no space", "disk full", "quota"]) => ErrorKind::Full,
        _ if says(&["read-only", "read only"]) => ErrorKind::ReadOnly,
        _ if says(&["permission denied", "access is denied", "not permitted"]) => ErrorKind::PermissionDenied,
        _ if says(&["not empty"]) => ErrorKind::NotEmpty,
        _ if says(&["not a directory"]) => ErrorKind::NotADirectory,
        _ if says(&["exists"]) => ErrorKind::Exists,
        _ if says(&["too long"]) => ErrorKind::NameTooLong,
        _ => ErrorKind::Other,
    }
}
