//! Listing again, once a source is back, what could not be listed while it was away.
//!
//! A listing that failed because of its source says nothing of the directory; but the directory counts as one that could not
//! be listed until it is, and nobody may look at it for long. Always true: one directory is listed at a time, and behind
//! everybody else; one that fails again while its source is well is left to those who open it, and to the next scan.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use manifold_catalog::{EntryId, ScanState};

use crate::IndexError;
use crate::indexer::Indexer;
use crate::source::{Returns, Source};

/// How many of them are taken from the catalog at a time.
const PAGE: usize = 256;

impl Indexer {
    /// Has what could not be listed listed again whenever the source has come back, for as long as it is attached.
    pub(crate) fn list_failed_when_back(self: &Arc<Self>, source: &Arc<Source>) {
        let (indexer, source) = (Arc::downgrade(self), Arc::clone(source));
        let again = async move {
            let cancelled = source.cancel.clone();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = list_failed_when_back(&indexer, &source) => {}
            }
        };
        self.tasks.spawn_on(again, &self.runtime);
    }

    /// Lists what could not be listed, but for what was `tried` before.
    async fn list_failed(
        self: &Arc<Self>,
        source: &Arc<Source>,
        tried: &mut HashSet<EntryId>,
    ) -> Result<(), IndexError> {
        let id = source.id;
        let mut after = None;
        loop {
            // A scan that is running tries again by itself, and lists all that failed before it began.
            let nothing_to_do = |state: ScanState| state.failed == 0 || state.finished_ns.is_none();
            if self.catalog().scan_state(id)?.is_none_or(nothing_to_do) {
                return Ok(());
            }
            let page = self
                .blocking(move |catalog| Ok(catalog.failed_directories(id, after, PAGE)?))
                .await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for directory in page {
                if !tried.insert(directory) {
                    continue;
                }
                let Err(error) = self.list_behind(source, directory).await else {
                    tried.remove(&directory);
                    continue;
                };
                if error.is_about_source() && source.verdict_is_away().await {
                    // All are tried again when it is back.
                    return Ok(());
                }
                match &error {
                    IndexError::Stopped | IndexError::Catalog(_) => return Err(error),
                    failure if failure.is_failure_of_directory() => {
                        if let Some(target) = self.target_still(directory)? {
                            self.note_failure(&target, failure).await?;
                        }
                    }
                    _gone => {}
                }
            }
        }
    }
}

async fn list_failed_when_back(indexer: &Weak<Indexer>, source: &Arc<Source>) {
    let mut returns = source.returns();
    let mut seen = Returns::default();
    let mut tried = HashSet::new();
    loop {
        let now = *returns.borrow_and_update();
        if now.from_away != seen.from_away {
            tried.clear();
        }
        if now != seen {
            seen = now;
            let Some(indexer) = indexer.upgrade() else { return };
            match indexer.list_failed(source, &mut tried).await {
                Ok(()) | Err(IndexError::NotFound(_)) => {}
                Err(IndexError::Stopped) => return,
                Err(error) => {
                    tracing::error!(source = source.backend.name(), %error, "what failed cannot be listed again");
                }
            }
        }
        // The sender lives as long as the source.
        if returns.changed().await.is_err() {
            return;
        }
    }
}
