//! Directories of a move: an object store keeps an empty one by an object of its own, which belongs where the directory stands.

use manifold_backends::{ErrorKind, ObjectPath};
use manifold_catalog::EntryId;
use manifold_index::IndexError;

use super::job::{Holding, fault, of_index};
use super::{Fault, Ground, Moves};
use crate::Error;

impl Moves {
    /// Sees to it that a directory whose files have been brought is where it stands, and nowhere else.
    pub(super) async fn settle_directory(&self, ground: &Ground, holding: &Holding) -> Result<(), Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let _name = self.lock_name(holding.id).await;
        let Some(stands_at) = catalog.standing_path(holding.id).map_err(fault)? else {
            return Ok(());
        };
        if catalog.children(holding.id, None, 1).map_err(fault)?.is_empty() {
            let path = ObjectPath::from_bytes(stands_at.clone());
            match self.ask(ground, ground.backend.create_directory(&path)).await {
                Ok(_) => {}
                Err(error) if error.kind() == Some(ErrorKind::Exists) => {}
                Err(error) => return Err(of_index(error)),
            }
        }
        let mut cleared = Vec::new();
        for place in holding.places.iter().filter(|place| **place != stands_at) {
            // What stands there by now has an object of its own.
            if !cleared.contains(&place) && self.find_at(ground.source, place).map_err(fault)?.is_none() {
                self.clear(ground, place).await.map_err(of_index)?;
                cleared.push(place);
            }
        }
        Ok(())
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
