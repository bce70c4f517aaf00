//! One durable commit for all files that were noted meanwhile: each costs the disk's own synchronisation.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::Error;

/// Counts what was noted, and how much of it is durable.
#[derive(Debug, Default)]
pub(super) struct Together {
    noted: AtomicU64,
    durable: AtomicU64,
    /// Held by whoever sees to it for all.
    turn: Mutex<()>,
}

impl Together {
    /// Waits until what was noted before this call is durable; `sync` makes all durable that was noted before it is called.
    pub(super) async fn durable(&self, sync: impl AsyncFnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let own = self.noted.fetch_add(1, Ordering::SeqCst) + 1;
        let _turn = self.turn.lock().await;
        if self.durable.load(Ordering::SeqCst) >= own {
            return Ok(());
        }
        let all = self.noted.load(Ordering::SeqCst);
        sync().await?;
        self.durable.store(all, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Cause;

    #[tokio::test]
    async fn those_who_wait_share_the_next_synchronisation_and_nobody_that_began_before() {
        let together = Together::default();
        let (syncs, (go, gone)) = (AtomicU64::new(0), oneshot::channel::<()>());
        let count = || syncs.fetch_add(1, Ordering::SeqCst);
        let first = together.durable(async || {
            count();
            gone.await.map_err(|error| Error::Io(Cause::new(error)))
        });
        let others = async {
            let waiting = (0..9).map(|_| {
                together.durable(async || {
                    count();
                    Ok(())
                })
            });
            let waiting = join_all(waiting);
            let (waited, ()) = futures::join!(waiting, async { go.send(()).expect("it waits") });
            waited
        };
        let (first, others) = futures::join!(first, others);
        assert!(first.is_ok() && others.iter().all(Result::is_ok));
        assert_eq!(syncs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_makes_nothing_durable() {
        let together = Together::default();
        let failed = together.durable(async || Err(Error::Full)).await;
        assert!(matches!(failed, Err(Error::Full)));
        let mut synced = false;
        let done = together.durable(async || {
            synced = true;
            Ok(())
        });
        assert!(done.await.is_ok() && synced);
    }
}
