//! What is changed at a source which has the copy of a file whose original has not been taken away elsewhere yet.
//!
//! Who takes it away asks that source for the copy first. Should this machine lose power when the source has removed, replaced, renamed or
//! changed the copy, and the catalog has forgotten that, there would be none, and the original would come back in its former place. So that
//! the source had the copy is noted before it is asked to change it.

use std::sync::Arc;

use manifold_catalog::{Catalog, EntryId};

use super::unseen::is_away;
use crate::Error;
use crate::vfs::Core;

/// Files of which it is noted that their sources had the copies. When this is dropped, those that are still there are asked for again.
#[must_use = "sources are asked again when this is dropped"]
pub(super) struct Settled {
    catalog: Arc<Catalog>,
    files: Vec<EntryId>,
}

/// Leaves it noted where nobody knows whether the source has made the change.
pub(super) fn lasts_if_away(settled: &mut Option<Settled>, error: &Error) {
    if let Some(settled) = settled.as_mut().filter(|_| is_away(error)) {
        settled.files.clear();
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        if let Err(error) = self.catalog.unsettle_origins(&self.files) {
            tracing::warn!(%error, "originals are taken away without another look for their copies");
        }
    }
}

impl Core {
    /// Notes that the sources had the copies of these files, or of those beneath these directories. To be called just before they are asked
    /// to change them, when no upload of them is under way any more; what this gives is dropped when the catalog has followed.
    pub(super) async fn settle_origins(&self, changed: &[EntryId]) -> Result<Option<Settled>, Error> {
        let files = self.catalog.unsettled_origins(changed).map_err(Error::from_catalog)?;
        if files.is_empty() {
            return Ok(None);
        }
        let settled = Settled {
            catalog: Arc::clone(&self.catalog),
            files,
        };
        let settling = self.blocking(move || {
            let noted = settled.catalog.settle_origins(&settled.files);
            noted.map_err(Error::from_catalog)?;
            Ok(Some(settled))
        });
        match settling.await {
            // To remove something must not fail for want of room. What it is noted for takes a power cut at the wrong moment.
            Err(Error::Full) => Ok(None),
            settled => settled,
        }
    }
}
