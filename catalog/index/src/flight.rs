//! Singleflight: at most one listing of a directory is under way, however many wait for it.
//!
//! Always true: a waiter that is dropped cancels nobody; whatever becomes of the listing's task (an end, an error, a
//! panic, a runtime that shuts down), its waiters are answered and the next caller may start anew.

use std::collections::HashMap;
use std::sync::Arc;

use manifold_catalog::EntryId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::IndexError;

/// What a listing came to.
pub(crate) type Outcome = Result<(), IndexError>;

/// The listings under way, by directory.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<EntryId, watch::Receiver<Option<Outcome>>>>,
}

/// Somebody's wait for a listing.
#[derive(Debug)]
pub(crate) struct Waiter(watch::Receiver<Option<Outcome>>);

/// The duty to say what a listing came to. Dropped unsaid, it says [`IndexError::Stopped`].
#[derive(Debug)]
pub(crate) struct Landing {
    flights: Arc<Flights>,
    directory: EntryId,
    sender: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// Waits for the listing of `directory` that is under way, or lets `start` begin one.
    pub(crate) fn join_or_start(self: &Arc<Self>, directory: EntryId, start: impl FnOnce(Landing)) -> Waiter {
        let mut under_way = self.under_way.lock();
        if let Some(receiver) = under_way.get(&directory) {
            return Waiter(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(directory, receiver.clone());
        drop(under_way);
        start(Landing {
            flights: Arc::clone(self),
            directory,
            sender,
        });
        Waiter(receiver)
    }

    /// Tells whether a listing of `directory` is under way.
    pub(crate) fn is_under_way(&self, directory: EntryId) -> bool {
        self.under_way.lock().contains_key(&directory)
    }
}

impl Waiter {
    /// Waits for the outcome.
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(IndexError::Stopped)),
            Err(_) => Err(IndexError::Stopped),
        }
    }
}

impl Landing {
    /// Says what the listing came to. The next caller starts a new one.
    pub(crate) fn land(self, outcome: Outcome) {
        self.flights.under_way.lock().remove(&self.directory);
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.flights.under_way.lock().remove(&self.directory);
            self.sender.send_replace(Some(Err(IndexError::Stopped)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: EntryId = EntryId(7);

    #[tokio::test]
    async fn all_waiters_share_one_listing_and_the_next_caller_starts_another() {
        let flights = Arc::new(Flights::default());
        let mut landing = None;
        let first = flights.join_or_start(DIRECTORY, |it| landing = Some(it));
        let second = flights.join_or_start(DIRECTORY, |_| panic!("there is one already"));
        drop(first);
        landing.take().unwrap().land(Ok(()));
        assert!(second.outcome().await.is_ok());
        assert!(!flights.is_under_way(DIRECTORY));
        flights.join_or_start(DIRECTORY, |it| landing = Some(it));
        assert!(landing.is_some());
    }

    #[tokio::test]
    async fn a_listing_whose_task_dies_answers_its_waiters() {
        let flights = Arc::new(Flights::default());
        let waiter = flights.join_or_start(DIRECTORY, drop);
        assert!(matches!(waiter.outcome().await, Err(IndexError::Stopped)));
        assert!(!flights.is_under_way(DIRECTORY));
    }
}
