//! What is wrong with a source, in words.

use crate::{Backend, ErrorKind};

/// What is wrong with a source, and what a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Diagnosis {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Checks a source, and turns a failure into words.
#[allow(clippy::unimplemented, reason = "first landing")]
pub async fn diagnose(backend: &dyn Backend) -> Result<(), Diagnosis> {
    let _ = backend;
    unimplemented!()
}
