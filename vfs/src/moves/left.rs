//! What waits until a file that stands elsewhere by now has left nothing in a place.

use std::time::Duration;

use manifold_catalog::{Catalog, EntryId};
use tokio::time::timeout;

use super::Moves;
use crate::fetch::Fetcher;
use crate::{Cause, Error};

impl Moves {
    /// Waits until no file that stands elsewhere has left anything in a place of a directory, but no longer than `patience`, nor for a
    /// source that is away.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::TimedOut`]: the directory's source is away; [`Error::Busy`]: it was not so in time.
    pub(crate) async fn until_left(
        &self,
        directory: EntryId,
        is_left: impl Fn(&Catalog) -> manifold_catalog::Result<bool>,
        patience: Duration,
    ) -> Result<(), Error> {
        let catalog = &self.uploads.fetcher.catalog;
        if !is_left(catalog).map_err(Error::from_catalog)? {
            return Ok(());
        }
        self.leaving.retry();
        let mut failed = None;
        let free = self.until(|| match is_left(catalog) {
            Ok(is_left) => !is_left,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        let patience = if self.why_stays(directory)?.is_some() {
            Duration::ZERO
        } else {
            patience
        };
        if timeout(patience, free).await.is_err() {
            return Err(self.why_stays(directory)?.unwrap_or(Error::Busy));
        }
        failed.map_or(Ok(()), |error| Err(Error::from_catalog(error)))
    }

    /// Says that a directory's source is away, if it is, so that nothing can be taken from there.
    fn why_stays(&self, directory: EntryId) -> Result<Option<Error>, Error> {
        let Fetcher { catalog, indexer, .. } = &*self.uploads.fetcher;
        let place = catalog.object_path(directory).map_err(Error::from_catalog)?;
        let away = place.filter(|(source, _)| indexer.is_away(*source));
        Ok(away.map(|(source, _)| {
            let silent = || {
                Error::TimedOut(Cause::new(
                    "what a file has left there is to go first, and its source does not answer",
                ))
            };
            indexer.out_of_reach(source).map_or_else(silent, Error::from_index)
        }))
    }
}
