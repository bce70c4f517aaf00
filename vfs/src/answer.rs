//! The two ways in which a request is answered: at once, or by a future that carries its own deadline.

use std::fmt;

use futures::future::BoxFuture;

use crate::Error;

/// The answer to one request.
///
/// What needs no source is `Ready` and is best sent from the thread that asked. `Pending` ends by itself within the
/// deadline of the settings; dropping it harms nobody else who waits for the same thing.
pub enum Answer<T> {
    /// The answer is here.
    Ready(Result<T, Error>),
    /// A source is being asked.
    Pending(BoxFuture<'static, Result<T, Error>>),
}

impl<T> Answer<T> {
    /// Answers at once.
    pub fn ok(value: T) -> Self {
        Self::Ready(Ok(value))
    }

    /// Refuses at once.
    pub fn err(error: Error) -> Self {
        Self::Ready(Err(error))
    }

    /// Waits for the answer, where it is not there yet.
    pub async fn wait(self) -> Result<T, Error> {
        match self {
            Self::Ready(result) => result,
            Self::Pending(future) => future.await,
        }
    }

    /// Makes something of the answer, once it is here. Where nobody waits for it any more, nothing is made.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U + Send + 'static) -> Answer<U>
    where
        T: 'static,
    {
        match self {
            Self::Ready(result) => Answer::Ready(result.map(make)),
            Self::Pending(future) => Answer::Pending(Box::pin(async move { future.await.map(make) })),
        }
    }

    /// Tells whether the answer is here.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

impl<T: fmt::Debug> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(result) => f.debug_tuple("Ready").field(result).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}
