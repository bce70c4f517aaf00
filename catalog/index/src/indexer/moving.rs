//! Listings of directories whose objects are on their way to a new place, for whoever brings them there.

use std::sync::Arc;

use manifold_catalog::EntryId;

use super::Indexer;
use crate::IndexError;

/// What a listing is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be shown.
    Show,
    /// To bring what is found to its new place.
    Move,
}

impl Indexer {
    /// Lists a directory that is on the move, behind everybody who waits, for whoever brings its objects to their new place: what
    /// is found there is taken in, which no other listing's is. One without any objects counts as empty.
    ///
    /// # Errors
    /// The listing failed; nothing was changed then.
    pub async fn list_for_move(self: &Arc<Self>, directory: EntryId) -> Result<(), IndexError> {
        let Some(target) = self.target(directory)? else {
            return Ok(());
        };
        let cancelled = target.source.cancel.clone();
        let listed = async {
            let _turn = target.source.background_turn().await?;
            self.list_as(&target, Purpose::Move).await
        };
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(IndexError::Stopped),
            result = listed => result,
        };
        match &result {
            Ok(_) => target.source.answered(),
            Err(error) => target.source.failed(error, &self.runtime),
        }
        result.map(drop)
    }
}
