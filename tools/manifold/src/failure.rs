//! What a command says when it cannot do what was asked, and the code it ends with.
//!
//! Owns the way from any error to words and an exit code: 1 for a failure, 2 for a call that makes no sense.

use std::fmt;
use std::io;

use manifold_backends::{Diagnosis, SecretError, SpecError};
use manifold_catalog::{OpenError, SourceError};
use manifold_fuse::MountError;
use serde::{Deserialize, Serialize};

/// A result whose error is [`Failure`].
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Words for a person: what failed and why, and on lines of their own what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    message: String,
    #[serde(default)]
    hints: Vec<String>,
    #[serde(default)]
    usage: bool,
}

impl Failure {
    /// Says what failed and why.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            usage: false,
        }
    }

    /// Says what makes no sense about the call itself.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::new(message)
        }
    }

    /// Takes a message whose further lines are hints.
    pub(crate) fn from_lines(text: &str) -> Self {
        let mut lines = text.lines();
        let mut failure = Self::new(lines.next().unwrap_or_default());
        failure.hints = lines.map(str::to_owned).collect();
        failure
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hints.push(hint);
        }
        self
    }

    /// Puts before the message what it was about.
    #[must_use]
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Gives what failed and why, without hints.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Gives what to do.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Gives the code with which the command ends.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Says what could not be done with a file or folder, and what helps where the disk is full.
pub(crate) fn io_failure(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot {doing} {}: {error}", path.display()));
    if is_full(error) {
        failure.hint("make room on that disk")
    } else {
        failure
    }
}

/// The same of what belongs to the library, which can be kept in another place.
pub(crate) fn library_failure(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    let failure = io_failure(doing, path, error);
    match error.kind() {
        _ if is_full(error) => failure.hint("or keep the library elsewhere: --library DIR"),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            failure.hint("name a folder that this user may write to: --library DIR")
        }
        _ => failure,
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<Diagnosis> for Failure {
    fn from(diagnosis: Diagnosis) -> Self {
        Self::new(diagnosis.message).hint(diagnosis.hint)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        let hint = match &error {
            SecretError::Environment { key, variable } => format!(
                "set {variable} where manifold is started, or give the secret anew: manifold source set SOURCE {key}"
            ),
            SecretError::Keyring { key, .. } => {
                format!("unlock the keyring, or give the secret anew: manifold source set SOURCE {key}")
            }
            SecretError::Io { path, cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                format!("put the secret into {}, readable by its owner alone", path.display())
            }
            SecretError::Owner { path, .. } => format!("have {} belong to who runs manifold", path.display()),
            // The others say what to do, or what it is that no command can mend.
            _ => String::new(),
        };
        Self::new(error.to_string()).hint(hint)
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::from_lines(&error.to_string())
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let hint = match &error {
            SourceError::AttachPointTaken { .. } | SourceError::BadAttachPoint { .. } => "choose a path with --at",
            SourceError::SameName { .. } | SourceError::Catalog(_) => "",
        };
        Self::new(error.to_string()).hint(hint)
    }
}

impl From<manifold_catalog::Error> for Failure {
    fn from(error: manifold_catalog::Error) -> Self {
        let hint = match &error {
            manifold_catalog::Error::Damaged(_) => "`manifold unmount`, then `manifold check` tells how far it goes",
            manifold_catalog::Error::Full => "make room on the disk that holds the library's state folder",
            _ => "",
        };
        Self::new(error.to_string()).hint(hint)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            OpenError::Damaged { file, .. } => failure
                .hint("it is left as it is; `manifold check` tells what is wrong with it")
                .hint(format!(
                    "to begin anew, move it away and add the sources again: mv '{}' '{}.damaged'",
                    file.display(),
                    file.display()
                )),
            OpenError::NewerVersion { .. } => {
                failure.hint("it is left as it is; use the newer manifold, or another library: --library NAME")
            }
            _ => failure,
        }
    }
}

impl From<manifold_vfs::Error> for Failure {
    fn from(error: manifold_vfs::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_library_can_be_kept_elsewhere() {
        let path = std::path::Path::new("/mnt/pictures");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(io_failure("use the folder", path, &denied).hints().is_empty());
        let hints = library_failure("create", path, &denied).hints().join("; ");
        assert!(hints.contains("--library DIR"), "{hints}");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(
            io_failure("use the folder", path, &full).hints(),
            ["make room on that disk"]
        );
    }
}
