//! What a source has under a name that is about to be given away: the version that is known here, or what another has put there since,
//! and nobody has seen.

use std::sync::Arc;

use manifold_backends::{Kind as ObjectKind, Presence, Version};
use manifold_catalog::{Entry, EntryId, Kind};
use tokio::time::timeout;

use super::Target;
use super::rename::Renaming;
use super::unseen::is_away;
use crate::Error;
use crate::error::Cause;
use crate::events::Event;
use crate::fetch::Object;
use crate::staging::StagedFile;
use crate::upload::settle::Confirmed;
use crate::vfs::Core;

/// Files that another is about to take the place of, where the source does not tell the one from the other.
pub(super) struct Lookalikes {
    /// What is open of them.
    open: Vec<Arc<Object>>,
    /// The one that has the name, its version and its length.
    over: Option<(EntryId, Version, u64)>,
}

impl Core {
    /// Sees to it that what is open of other files in the new place of a file is not read on from there, and that nothing is remembered
    /// of the bytes of the one that it replaces: should the answer be lost, what the source has then may be either.
    pub(super) async fn lookalikes(self: &Arc<Self>, renaming: &Renaming) -> Result<Lookalikes, Error> {
        let known = self.known_version(renaming.from.id)?;
        let version = known.map(|version| Version::from_stored(&version));
        let Some(version) = version.filter(|version| version.grain().is_some()) else {
            return Ok(Lookalikes {
                open: Vec::new(),
                over: None,
            });
        };
        let place = (renaming.target.source, &renaming.target.path);
        let open = self.files.open_at(place, &version, renaming.from.id);
        for object in &open {
            object.lose_place(true);
        }
        let over = renaming.over.as_ref().filter(|over| over.kind == Kind::File);
        let over = match over.map(|over| (over.id, over.size)) {
            Some((id, size)) if self.known_version(id)?.as_deref() == Some(version.as_bytes()) => {
                Some((id, version, size))
            }
            _ => None,
        };
        if let Some((id, version, size)) = over.clone() {
            let core = Arc::clone(self);
            self.blocking(move || {
                // Whoever has it open reads on from what is in memory.
                core.fetcher.forget_lookalike_on_disk(id, &version, size);
                core.catalog.forget_content(id).map_err(Error::from_catalog)?;
                core.catalog.sync().map_err(Error::from_catalog)
            })
            .await?;
        }
        Ok(Lookalikes { open, over })
    }

    /// They are read on from there after all, and kept on disk again where they are pinned.
    pub(super) fn keep_place(&self, lookalikes: &Lookalikes) {
        for object in &lookalikes.open {
            object.lose_place(false);
        }
        if lookalikes.over.is_some() {
            self.fetcher.cache.count_anew();
            self.pins.plan_anew();
        }
    }

    /// Nobody knows whether the place was taken: what was read there meanwhile is forgotten, here and by the kernel.
    pub(super) fn may_be_another(&self, lookalikes: Lookalikes) {
        if let Some((id, version, size)) = lookalikes.over {
            self.fetcher.forget_lookalike(id, &version, size);
            self.files.forget_version(Some(id));
            self.publisher.publish(&[Event::Pages { id }]);
        }
    }

    /// Makes sure that a file that is about to be replaced is the version that is known here, as an upload does.
    pub(super) async fn must_be_as_seen(&self, renaming: &Renaming) -> Result<(), Error> {
        match &renaming.over {
            Some(over) => self.is_as_seen(over, &renaming.target).await,
            None => Ok(()),
        }
    }

    /// Makes sure of the same before anything is done to a file that gives way to one of another source. What its source is not known to
    /// have can be given up while that is away.
    pub(crate) async fn may_give_way(self: &Arc<Self>, over: &Entry) -> Result<(), Error> {
        let _name = self.lock_name(over.id).await?;
        let _places = self.moves()?.keep_places().await;
        let is_alone = |file: Arc<StagedFile>| file.expected().is_none() && !file.was_sent();
        // While it is on the move, only what was moved is removed.
        if self.staged_entry(over.id).is_some_and(is_alone) || self.is_in_a_move(over.id)? {
            return Ok(());
        }
        let asked = async {
            let target = self.remote_target_of(over.id)?;
            self.clear_left(&target, over.id).await?;
            let _hold = self.hold_upload(self.writable()?, over.id).await?;
            self.has_its_name(over)?;
            self.is_as_seen(over, &target).await
        };
        match asked.await {
            Err(error) if is_away(&error) && self.stands_here_alone(over.id) => Ok(()),
            asked => asked,
        }
    }

    /// Tells whether a file stands in a directory whose objects are still to follow it.
    pub(super) fn is_in_a_move(&self, id: EntryId) -> Result<bool, Error> {
        let above = self.catalog.move_above(id).map_err(Error::from_catalog)?;
        Ok(above.is_some())
    }

    async fn is_as_seen(&self, over: &Entry, target: &Target) -> Result<(), Error> {
        let known = self.version_to_replace(over.parent, over).await?;
        match self.ask(target, target.backend.stat(&target.path)).await? {
            // Nothing is lost where another has removed it, and what a directory is replaced by is for the source to say.
            Presence::Absent => Ok(()),
            Presence::Found(there) if there.kind == ObjectKind::Directory => Ok(()),
            Presence::Found(there) if known.as_deref() == Some(there.version.as_bytes()) => Ok(()),
            Presence::Found(_) => {
                self.look_into(over.parent);
                Err(Error::Busy)
            }
        }
    }

    /// Gives the version of a held file that its source is to have when the file is replaced; `None`: nothing. Where an upload of it was
    /// not confirmed, the source is asked what became of that.
    ///
    /// # Errors
    /// [`Error::Busy`]: another has put something there, which shows soon.
    pub(super) async fn version_to_replace(
        &self,
        directory: EntryId,
        over: &Entry,
    ) -> Result<Option<Box<[u8]>>, Error> {
        if let Some(file) = self.staged_entry(over.id).filter(|file| file.was_sent()) {
            self.confirm_replaced(directory, &file).await?;
            // It may have turned out that the source had renamed it before.
            self.has_its_name(over)?;
        }
        self.known_version(over.id)
    }

    async fn confirm_replaced(&self, directory: EntryId, over: &Arc<StagedFile>) -> Result<(), Error> {
        let confirmed = timeout(self.settings.data_deadline / 2, self.writable()?.confirm(over)).await;
        let late = |_elapsed| Error::TimedOut(Cause::new("its source did not say in time what it has of the file"));
        match confirmed.map_err(late)?? {
            Confirmed::All | Confirmed::Part | Confirmed::Nothing => Ok(()),
            Confirmed::SomethingElse => {
                self.look_into(directory);
                Err(Error::Busy)
            }
        }
    }

    /// Gives the version that the source is known to have of a file.
    pub(super) fn known_version(&self, id: EntryId) -> Result<Option<Box<[u8]>>, Error> {
        if let Some(file) = self.staged_entry(id) {
            return Ok(file.expected());
        }
        let details = self.catalog.details(id).map_err(Error::from_catalog)?;
        Ok(details.map(|details| details.version))
    }

    /// Tells whether a name at the source is still in the version that is known here.
    pub(super) async fn version_at(&self, target: &Target) -> Result<Option<Version>, Error> {
        match self.ask(target, target.backend.stat(&target.path)).await? {
            Presence::Found(metadata) if metadata.kind == ObjectKind::File => Ok(Some(metadata.version)),
            Presence::Found(_) => Err(Error::IsADirectory),
            Presence::Absent => Ok(None),
        }
    }
}
