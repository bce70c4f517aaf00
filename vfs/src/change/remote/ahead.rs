//! Directories where the source has none that could be renamed: the tree shows the new name at once, and what the directory
//! holds follows ([`Moves`](crate::moves::Moves)).

use std::sync::Arc;

use futures::StreamExt;
use manifold_backends::{Expected, Kind as ObjectKind, ObjectPath, Presence, Version};
use manifold_catalog::{Entry, EntryId};
use tokio::time::timeout;

use super::Target;
use super::rename::Renaming;
use crate::Error;
use crate::moves::Place;
use crate::temporaries::{is_left, remove_directory};
use crate::vfs::Core;

/// Where a directory is to be after its rename.
fn new_place(renaming: &Renaming) -> Place<'_> {
    let (to, target) = (renaming.to_directory, &renaming.target);
    let over = renaming.over.as_ref();
    Place {
        renamed: Some(renaming.from.id),
        ..over.map_or_else(|| target.place_in(to), |over| target.place_of(over.id))
    }
}

impl Core {
    /// Renames a directory ahead of what it holds. Its new place must be free at the source.
    pub(super) async fn rename_ahead(self: &Arc<Self>, mut renaming: Renaming) -> Result<(), Error> {
        let moves = Arc::clone(self.moves()?);
        let id = renaming.from.id;
        self.until_free(new_place(&renaming)).await?;
        let uploads = Arc::clone(self.writable()?);
        let _turn = self.turn_at(&uploads, &renaming.names()).await?;
        let _places = moves.keep_places().await;
        let guard = self.guard(&renaming);
        self.look_at_places(&mut renaming)?;
        if moves.is_in_the_way(&new_place(&renaming))? {
            return Err(Error::Busy);
        }
        let is_on_the_move = self.catalog.move_above(id).map_err(Error::from_catalog)?.is_some();
        if !is_on_the_move {
            self.must_be_there(&renaming).await?;
        }
        self.must_be_free(&renaming).await?;
        let core = Arc::clone(self);
        self.blocking(move || {
            let ([from, to], raw_name) = (renaming.names(), renaming.raw_name());
            let now_ns = core.writable()?.now_ns();
            core.follow(|catalog| Ok(((), catalog.follow_moved_ahead(from, to, raw_name, now_ns)?)))?;
            // Before anything is moved, and before anybody relies on it.
            core.catalog.sync().map_err(Error::from_catalog)?;
            drop(guard);
            Ok(())
        })
        .await?;
        moves.start(id);
        Ok(())
    }

    async fn must_be_there(&self, renaming: &Renaming) -> Result<(), Error> {
        let (source, id) = (&renaming.source, renaming.from.id);
        match self.ask(source, source.backend.stat(&source.path)).await? {
            Presence::Found(metadata) if metadata.kind == ObjectKind::Directory => Ok(()),
            // What it holds may be here alone.
            _ if self.catalog.leads_to_staged(id).map_err(Error::from_catalog)? => Ok(()),
            _ => {
                self.look_into(renaming.from.parent);
                Err(Error::NotFound)
            }
        }
    }

    async fn must_be_free(&self, renaming: &Renaming) -> Result<(), Error> {
        let target = &renaming.target;
        if let Some(over) = &renaming.over {
            if self.catalog.move_above(over.id).map_err(Error::from_catalog)? == Some(over.id) {
                return Err(Error::Busy);
            }
            if self.is_empty_at(target).await? {
                return Ok(());
            }
            self.look_into(over.id);
            return Err(Error::NotEmpty);
        }
        // Where it lay itself, its own objects may be; what others have put there is found with each of them.
        let is_its_own = self.moves()?.is_in_the_way(&target.place_in(renaming.to_directory))?;
        match self.ask(target, target.backend.stat(&target.path)).await? {
            _ if is_its_own => Ok(()),
            Presence::Absent => Ok(()),
            Presence::Found(there) => {
                self.look_into(renaming.to_directory);
                Err(match there.kind {
                    _ if renaming.only_new => Error::Exists,
                    ObjectKind::Directory => Error::NotEmpty,
                    _ => Error::NotADirectory,
                })
            }
        }
    }

    /// Tells whether a directory holds nothing but what uploads have left.
    async fn is_empty_at(&self, target: &Target) -> Result<bool, Error> {
        let listing = async {
            let Presence::Found(mut pages) = target.backend.list(&target.path).await? else {
                return Ok(true);
            };
            while let Some(page) = pages.next().await {
                if !page?.iter().all(is_left) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.ask(target, listing).await
    }

    /// Takes away what a crash has left of a file in its former place, or in the one to which it was to follow its directory.
    /// To be called by whoever holds the file.
    pub(super) async fn clear_left(&self, target: &Target, id: EntryId) -> Result<(), Error> {
        let copy = self
            .writable()?
            .take_unnoted_copy_away(id, target.source, &target.backend);
        match timeout(self.settings.data_deadline, copy).await {
            Ok(taken) => taken.map_err(Error::from_index)?,
            // A long file is compared by the move itself.
            Err(_elapsed) => return Err(Error::Busy),
        }
        let left = self.catalog.moved(id).map_err(Error::from_catalog)?;
        let Some((place, version)) = left.and_then(|moved| moved.left) else {
            return Ok(());
        };
        let (path, expected) = (
            ObjectPath::from_bytes(place),
            Expected::Version(Version::from_stored(&version)),
        );
        match self.ask(target, target.backend.remove_file(&path, &expected)).await {
            // What others have put there is theirs.
            Ok(_) | Err(Error::Stale | Error::IsADirectory) => {}
            Err(error) => return Err(error),
        }
        self.catalog.note_left_removed(id).map_err(Error::from_catalog)
    }

    /// Removes an empty directory that is on the move, in all the places where it may be. What others have put there stays.
    pub(super) async fn remove_moving_directory(&self, target: &Target, entry: &Entry) -> Result<(), Error> {
        let children = self.catalog.children(entry.id, None, 1).map_err(Error::from_catalog)?;
        if !children.is_empty() {
            return Err(Error::NotEmpty);
        }
        let mut places = self.moves()?.old_places(entry.id)?;
        places.extend(self.catalog.standing_path(entry.id).map_err(Error::from_catalog)?);
        for place in places {
            let path = ObjectPath::from_bytes(place);
            match self.ask(target, remove_directory(&*target.backend, &path)).await {
                Ok(_) | Err(Error::NotEmpty | Error::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
