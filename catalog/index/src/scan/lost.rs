//! Looking at everything again after the catalog's storage failed, as on a full disk: what it had taken in and not made durable is
//! lost, and so is what changed while nothing could be written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::indexer::Indexer;
use crate::source::Source;

/// How often it is asked whether the storage has failed, and, after that, whether it can be written to again.
const EVERY: Duration = Duration::from_secs(2);

impl Indexer {
    /// Has all of a source listed again when the storage has failed and is well again, for as long as the source is attached.
    pub(crate) fn list_what_was_lost(self: &Arc<Self>, source: &Arc<Source>) {
        let (indexer, source) = (Arc::downgrade(self), Arc::clone(source));
        let seen = self.catalog().shortfalls();
        let again = async move {
            let cancelled = source.cancel.clone();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = list_what_was_lost(&indexer, &source, seen) => {}
            }
        };
        self.tasks.spawn_on(again, &self.runtime);
    }
}

async fn list_what_was_lost(indexer: &Weak<Indexer>, source: &Source, mut seen: u64) {
    loop {
        sleep(EVERY).await;
        let Some(indexer) = indexer.upgrade() else { return };
        let losses = indexer.catalog().shortfalls();
        if losses == seen {
            continue;
        }
        match indexer.blocking(|catalog| Ok(catalog.why_unwritten())).await {
            Ok(None) => {}
            Ok(Some(_)) => continue,
            Err(error) => {
                tracing::debug!(source = source.backend.name(), %error, "whether the catalog can be written to is not known");
                continue;
            }
        }
        tracing::info!(
            source = source.backend.name(),
            "the catalog can be written to again; all is listed again"
        );
        // What fails from now on is another loss.
        seen = losses;
        indexer.look_at_all(source.id).await;
    }
}
