//! Directories of a move: an object store keeps one by an object of its own when nothing is in it, and that object belongs where
//! the directory stands, whether or not something is in it now.

use manifold_backends::{ErrorKind, Kind, ObjectPath, Presence};
use manifold_catalog::EntryId;
use manifold_index::IndexError;

use super::job::{Holding, fault, of_index};
use super::{Fault, Ground, Moves};
use crate::Error;

impl Moves {
    /// Sees to it that a directory whose files have been brought is where it stands, and nowhere else. Gives that place, or
    /// `None` where it does not stand in the tree any more.
    pub(super) async fn settle_directory(&self, ground: &Ground, holding: &Holding) -> Result<Option<Vec<u8>>, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let _name = self.lock_name(holding.id).await;
        let Some(stands_at) = catalog.standing_path(holding.id).map_err(fault)? else {
            return Ok(None);
        };
        let (mut needs_object, mut left) = (
            catalog.children(holding.id, None, 1).map_err(fault)?.is_empty(),
            Vec::new(),
        );
        for place in holding.places.iter().filter(|place| **place != stands_at) {
            // What stands there by now has an object of its own.
            if left.contains(&place) || self.find_at(ground.source, place).map_err(fault)?.is_some() {
                continue;
            }
            // All that it held has left: it is still there by an object of its own, or by what others have put into it.
            let path = ObjectPath::from_bytes(place.clone());
            match self.ask(ground, ground.backend.stat(&path)).await.map_err(of_index)? {
                Presence::Found(seen) if seen.kind == Kind::Directory => {
                    needs_object = true;
                    left.push(place);
                }
                Presence::Found(_) | Presence::Absent => {}
            }
        }
        if needs_object {
            let path = ObjectPath::from_bytes(stands_at.clone());
            let kept = self.ask(ground, ground.backend.keep_directory(&path));
            kept.await.map_err(of_index)?;
        }
        for place in left {
            self.clear(ground, place).await.map_err(of_index)?;
        }
        Ok(Some(stands_at))
    }

    /// Gives all places at its source where something of a directory on the move may lie, besides where it stands.
    pub(crate) fn old_places(&self, id: EntryId) -> Result<Vec<Vec<u8>>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        let moves = catalog.moves().map_err(Error::from_catalog)?;
        let (mut places, mut beneath, mut at) = (Vec::new(), Vec::new(), id);
        loop {
            if let Some(own) = moves.iter().find(|one| one.id == at) {
                places.extend(own.places.iter().map(|place| [place, &*beneath].concat()));
            }
            let (entry, details) = (
                catalog.entry(at).map_err(Error::from_catalog)?,
                catalog.details(at).map_err(Error::from_catalog)?,
            );
            let (Some(entry), Some(details)) = (entry, details) else {
                break;
            };
            if at == EntryId::ROOT || entry.attach_point {
                break;
            }
            beneath = [b"/", &*details.raw_name, &beneath].concat();
            at = entry.parent;
        }
        Ok(places)
    }

    /// Takes away an empty directory. What others have put into it stays, and keeps it.
    async fn clear(&self, ground: &Ground, place: &[u8]) -> Result<(), IndexError> {
        let path = ObjectPath::from_bytes(place.to_vec());
        match self.ask(ground, ground.backend.remove_directory(&path)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), Some(ErrorKind::NotEmpty | ErrorKind::NotADirectory)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
