//! Names that are changed at a source which has the copy of a file whose original has not been taken away elsewhere yet.
//!
//! Who takes it away asks that source for the copy first. Should this machine lose power when the source has removed, replaced or renamed the
//! copy, and the catalog has forgotten that, there would be none, and the original would come back in its former place. So that the source
//! had the copy is noted before it is asked to change it.

use std::sync::Arc;

use manifold_catalog::{Catalog, EntryId};

use crate::Error;
use crate::turns::Turn;
use crate::vfs::Core;

/// A turn at sources, with what was noted for it.
#[must_use = "names may change when this is dropped"]
pub(super) struct TurnAtSources<'a> {
    // Dropped first.
    pub(super) _settled: Option<Settled>,
    pub(super) _turn: Turn<'a>,
}

/// Files of which it is noted that their sources had the copies. When this is dropped, those that are still there are asked for again.
pub(super) struct Settled {
    catalog: Arc<Catalog>,
    files: Vec<EntryId>,
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Err(error) = self.catalog.unsettle_origins(&self.files) {
            tracing::warn!(%error, "originals are taken away without another look for their copies");
        }
    }
}

impl Core {
    /// Notes that the sources had the copies of all that has these names, or lies beneath them. To be called by who has a turn.
    pub(super) async fn settle_origins(&self, names: &[(EntryId, &[u8])]) -> Result<Option<Settled>, Error> {
        let mut changed = Vec::with_capacity(names.len());
        for (directory, name) in names {
            let entry = self.catalog.lookup(*directory, name).map_err(Error::from_catalog)?;
            changed.extend(entry.map(|entry| entry.id));
        }
        let files = self.catalog.unsettled_origins(&changed).map_err(Error::from_catalog)?;
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
