//! Copies that were about to be given names in a directory when the daemon ended: seen to before the directory is listed, which would
//! show them as something else.

use std::sync::Arc;

use manifold_catalog::EntryId;

use super::{Indexer, Target};
use crate::IndexError;

/// Sees to the copies of a directory of which the catalog does not know whether they have got their names.
pub type BeforeListing = Arc<dyn Fn(EntryId) + Send + Sync>;

impl Indexer {
    /// Takes the function that sees to copies in a directory before that is listed. It may block the thread, but must not wait
    /// for a listing.
    pub fn set_before_listing(&self, before: BeforeListing) {
        *self.before_listing.write() = before;
    }

    pub(super) async fn settle_crossings_to(&self, target: &Target) -> Result<(), IndexError> {
        let directory = target.directory;
        if !target.source.is_local() || !self.catalog.is_crossing_to(directory)? {
            return Ok(());
        }
        let before = Arc::clone(&self.before_listing.read());
        self.blocking(move |_| {
            before(directory);
            Ok(())
        })
        .await
    }
}
