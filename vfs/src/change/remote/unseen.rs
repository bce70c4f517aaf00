//! What may have arrived unseen of a file that is removed or renamed while its source is away: an upload was sent to its end, and nobody
//! has confirmed it.
//!
//! Always true: it is noted by the bytes that were sent, in the transaction in which the name goes, and taken away by
//! [`Moves`](crate::moves::Moves) if that is what the source has; what others have put there stays.

use std::sync::Arc;

use manifold_catalog::{EntryId, Unseen};

use crate::Error;
use crate::staging::StagedFile;
use crate::vfs::Core;

/// The part of the deadline within which the bytes of a file are read here, so that they are recognised at the source.
const READ_PARTS: u32 = 4;

impl Core {
    /// Says what may have arrived unseen of a held file whose source could not be asked, as `error` tells. `None` where it is the
    /// source that has to be asked: it can be, or nobody could tell what is there.
    pub(super) async fn unseen(&self, file: Option<&Arc<StagedFile>>, error: &Error) -> Result<Option<Unseen>, Error> {
        let Some(file) = file.filter(|_| is_away(error)) else {
            return Ok(None);
        };
        if self.is_on_the_move(file.id)? {
            return Ok(None);
        }
        let patience = self.settings.data_deadline / READ_PARTS;
        let states = self.writable()?.sent_states(file, patience).await;
        Ok(states.map(|states| Unseen { id: file.id, states }))
    }

    /// Tells whether a file lies elsewhere at its source than where it stands, or may.
    pub(super) fn is_on_the_move(&self, id: EntryId) -> Result<bool, Error> {
        let above = self.catalog.move_above(id).map_err(Error::from_catalog)?;
        Ok(above.is_some() || self.catalog.moved(id).map_err(Error::from_catalog)?.is_some())
    }

    /// Tells whether no source is known to have a file.
    pub(crate) fn stands_here_alone(&self, id: EntryId) -> bool {
        self.staged_entry(id).is_some_and(|file| file.expected().is_none())
    }
}

/// Tells whether a source could not be asked.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error, Error::Unreachable(_) | Error::TimedOut(_))
}
