//! Scanning a source again when its last scan has grown old: what nobody looked at, and no watch told, is found then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::indexer::Indexer;
use crate::source::Source;

/// The longest sleep. A machine that was asleep itself finds out after it.
const SLEEP_MAX: Duration = Duration::from_mins(10);

impl Indexer {
    /// Has a source scanned again for as long as it is attached. The first scan is begun by others.
    pub(crate) fn scan_now_and_then(self: &Arc<Self>, source: &Arc<Source>) {
        let (indexer, source) = (Arc::downgrade(self), Arc::clone(source));
        let again = async move {
            let cancelled = source.cancel.clone();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = scan_now_and_then(&indexer, &source) => {}
            }
        };
        self.tasks.spawn_on(again, &self.runtime);
    }

    /// Says how long it is until a source is to be scanned again; `None` where it was never scanned, or is being.
    fn until_next_scan(&self, source: &Source) -> Option<Duration> {
        let finished_ns = match self.catalog().scan_state(source.id) {
            Ok(state) => state?.finished_ns?,
            Err(error) => {
                tracing::error!(source = source.backend.name(), %error, "cannot tell when it was scanned");
                return None;
            }
        };
        let age_ns = self.clock().now_ns().saturating_sub(finished_ns);
        // A time to come was written under another clock.
        let age = u64::try_from(age_ns).map_or(Duration::MAX, Duration::from_nanos);
        Some(self.settings().scan_every.saturating_sub(age))
    }
}

async fn scan_now_and_then(indexer: &Weak<Indexer>, source: &Source) {
    loop {
        let Some(pause) = indexer.upgrade().map(|indexer| indexer.until_next_scan(source)) else {
            return;
        };
        match pause {
            Some(Duration::ZERO) => {
                let Some(scan) = indexer.upgrade().map(|indexer| indexer.scan(source.id)) else {
                    return;
                };
                scan.ended().await;
                // One that failed at once is not begun again at once.
                sleep(Duration::from_secs(1)).await;
            }
            pause => sleep(pause.unwrap_or(SLEEP_MAX).min(SLEEP_MAX)).await,
        }
    }
}
