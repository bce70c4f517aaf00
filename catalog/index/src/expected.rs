//! Sources that somebody is about to connect: whoever asks for one waits for that instead of being refused.
//!
//! Always true: who waits is let go when the source is attached and when it is expected no longer, whichever comes
//! first. For how long at most is for the caller to say.

use std::collections::HashSet;

use manifold_catalog::SourceId;
use tokio::sync::watch;

/// The sources that are expected.
#[derive(Debug, Default)]
pub(crate) struct Expected(watch::Sender<HashSet<SourceId>>);

impl Expected {
    /// Expects a source.
    pub(crate) fn begin(&self, id: SourceId) {
        self.0.send_modify(|expected| {
            expected.insert(id);
        });
    }

    /// Expects a source no longer.
    pub(crate) fn end(&self, id: SourceId) {
        self.0.send_if_modified(|expected| expected.remove(&id));
    }

    /// Tells whether a source is expected.
    pub(crate) fn contains(&self, id: SourceId) -> bool {
        self.0.borrow().contains(&id)
    }

    /// Waits until a source is not expected.
    pub(crate) async fn until_over(&self, id: SourceId) {
        let mut expected = self.0.subscribe();
        // The sender lives as long as `self`, so the wait ends only with the condition.
        let _over = expected.wait_for(|expected| !expected.contains(&id)).await;
    }
}
