//! The bytes that staged files may take: what is not to be had now may be once something was uploaded.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How much is staged, and how much may be.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    used: watch::Sender<u64>,
}

impl Room {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: watch::Sender::new(0),
        }
    }

    /// Takes bytes, unless that would go over the limit.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let mut taken = bytes == 0;
        self.used.send_if_modified(|used| {
            if let Some(sum) = used.checked_add(bytes).filter(|sum| *sum <= self.limit && bytes > 0) {
                *used = sum;
                taken = true;
            }
            false
        });
        taken
    }

    /// Takes bytes that lie on the disk already.
    pub(crate) fn take_over(&self, bytes: u64) {
        self.used.send_modify(|used| *used += bytes);
    }

    /// Gives bytes back.
    pub(crate) fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.used.send_modify(|used| *used = used.saturating_sub(bytes));
        }
    }

    /// Waits until so many bytes can be had, but no longer than `patience`; whoever waited has yet to take them. Gives
    /// false where that can never be, or has not come.
    pub(crate) async fn wait(&self, bytes: u64, patience: Duration) -> bool {
        if bytes > self.limit {
            return false;
        }
        let mut used = self.used.subscribe();
        let enough = used.wait_for(|used| *used + bytes <= self.limit);
        matches!(timeout(patience, enough).await, Ok(Ok(_)))
    }

    pub(crate) fn used(&self) -> u64 {
        *self.used.borrow()
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_over_the_limit_are_waited_for_and_then_refused() {
        let room = Room::new(10);
        assert!(room.take(6) && !room.take(5) && room.take(4) && room.take(0));
        assert!(!room.wait(1, Duration::from_secs(1)).await, "nobody has given any back");
        assert!(
            !room.wait(11, Duration::from_secs(1)).await,
            "that is more than there is"
        );
        let (waited, ()) = tokio::join!(room.wait(3, Duration::from_secs(1)), async { room.give_back(3) });
        assert!(waited && room.take(3));
        assert_eq!(room.used(), 10);
    }
}
