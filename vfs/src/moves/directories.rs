//! Directories of a move: an object store keeps one by an object of its own when nothing is in it, and that object belongs where
//! the directory stands, whether or not something is in it now.

use std::collections::HashMap;

use manifold_backends::{ErrorKind, Kind, ObjectPath, Presence};
use manifold_catalog::EntryId;
use manifold_index::IndexError;

use super::job::{Holding, fault, of_index};
use super::{Fault, Ground, Moves};
use crate::Error;
use crate::temporaries::remove_directory;

impl Moves {
    /// Sees to it that directories whose files have been brought are where they stand, and nowhere else. Gives those places.
    pub(super) async fn settle_directories(
        &self,
        ground: &Ground,
        holdings: &[Holding],
    ) -> Result<HashMap<EntryId, Vec<u8>>, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let (turns, patience) = (&self.uploads.turns, self.uploads.fetcher.deadline);
        // Where an ancestor gets another name meanwhile, what is marked would come back under the former one.
        let stay = async |id| turns.stay(catalog, id, patience).await.map_err(fault);
        let mut settled = HashMap::with_capacity(holdings.len());
        let mut left = Vec::new();
        for holding in holdings {
            let _turn = stay(holding.id).await?;
            let _name = self.lock_name(holding.id).await;
            let Some(stands_at) = catalog.standing_path(holding.id).map_err(fault)? else {
                continue;
            };
            if catalog.children(holding.id, None, 1).map_err(fault)?.is_empty() {
                self.keep(ground, &stands_at).await?;
            }
            let places = holding.places.iter().filter(|place| **place != stands_at);
            left.extend(places.map(|place| (place, holding.id)));
            settled.insert(holding.id, stands_at);
        }
        // What lies beneath another goes first, whatever it belongs to: nothing else is to be left in that then.
        left.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(place.len()));
        for (place, id) in left {
            let _turn = stay(id).await?;
            let _name = self.lock_name(id).await;
            let stands_at = catalog.standing_path(id).map_err(fault)?;
            if stands_at.as_ref() != settled.get(&id) {
                settled.remove(&id);
                continue;
            }
            // What stands there by now has an object of its own.
            if self.find_at(ground.source, place).map_err(fault)?.is_some() {
                continue;
            }
            // All that it held has left: it is still there by an object of its own, or by what others have put into it.
            let path = ObjectPath::from_bytes(place.clone());
            match self.ask(ground, ground.backend.stat(&path)).await.map_err(of_index)? {
                Presence::Found(seen) if seen.kind == Kind::Directory => {
                    self.keep(ground, &stands_at.unwrap_or_default()).await?;
                    self.clear(ground, place).await.map_err(of_index)?;
                }
                Presence::Found(_) | Presence::Absent => {}
            }
        }
        Ok(settled)
    }

    /// Gives a directory an object where it stands.
    async fn keep(&self, ground: &Ground, stands_at: &[u8]) -> Result<(), Fault> {
        let path = ObjectPath::from_bytes(stands_at.to_vec());
        let kept = self.ask(ground, ground.backend.keep_directory(&path));
        kept.await.map_err(of_index)
    }

    /// Gives all places at its source where something of a directory on the move may lie, besides where it stands.
    pub(crate) fn old_places(&self, id: EntryId) -> Result<Vec<Vec<u8>>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        let moves = catalog.moves().map_err(Error::from_catalog)?;
        let (mut places, mut beneath, mut at) = (Vec::new(), Vec::new(), id);
        loop {
            if let Some(own) = moves.iter().find(|one| one.id == at) {
                places.extend(own.places.iter().map(|place| [place, &*beneath].concat()));
                break;
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
    pub(super) async fn clear(&self, ground: &Ground, place: &[u8]) -> Result<(), IndexError> {
        let path = ObjectPath::from_bytes(place.to_vec());
        match self.ask(ground, remove_directory(&*ground.backend, &path)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), Some(ErrorKind::NotEmpty | ErrorKind::NotADirectory)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
