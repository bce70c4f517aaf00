//! What is wrong with a source, in words a person can act on.

use manifold_backends::{Diagnosis, ErrorKind};

use crate::IndexError;

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// What to do about it, in one line without a full stop; may be empty.
    pub hint: String,
    /// Whether it is the credentials that were refused.
    pub refused: bool,
    /// Whether the source asks for fewer requests.
    pub asks_for_less: bool,
    /// Whether no answer came in time.
    pub timed_out: bool,
}

impl Problem {
    /// Puts a failure into words.
    pub fn of(error: &IndexError) -> Self {
        let (message, hint) = match error {
            IndexError::Backend(error) => {
                let diagnosis = Diagnosis::of(error);
                (diagnosis.message, diagnosis.hint)
            }
            IndexError::Away { cause, .. } => return Self::of(cause),
            IndexError::TimedOut { source_name, after, .. } => (
                format!("{source_name} gave no answer within {} s", after.as_secs_f32()),
                "check that it is on, and that this machine can reach it".to_owned(),
            ),
            other => (other.to_string(), String::new()),
        };
        Self {
            message,
            hint,
            refused: error.kind() == Some(ErrorKind::CredentialsRefused),
            asks_for_less: error.kind() == Some(ErrorKind::RateLimited),
            timed_out: matches!(error, IndexError::TimedOut { .. }) || error.kind() == Some(ErrorKind::TimedOut),
        }
    }

    /// Says what is wrong with the credentials, and what to do about it.
    pub fn of_credentials(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            refused: true,
            ..Self::new(message, hint)
        }
    }

    /// Says what is wrong, and what to do about it.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
            refused: false,
            asks_for_less: false,
            timed_out: false,
        }
    }
}
