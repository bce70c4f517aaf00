//! Renaming at remote sources: what the source has, it renames; what stands here alone changes its name here.

use std::sync::Arc;
use std::time::Instant;

use manifold_backends::local::RenameMode;
use manifold_backends::{ObjectPath, Presence, Renames, Version};
use manifold_catalog::{Catalog, ChangeGuard, Entry, EntryId, Keep, Kind, Unseen};
use manifold_index::seen_attributes;
use tokio::time::timeout;

use super::Target;
use super::nameless::Kept;
use super::names::is_unable;
use super::settled;
use super::unseen::is_away;
use crate::change::Site;
use crate::error::Cause;
use crate::fetch::Object;
use crate::handle::Opening;
use crate::staging::StagedFile;
use crate::staging::row::Renamed;
use crate::temporaries::rename_directory;
use crate::upload::naming::NameLock;
use crate::upload::settle::Confirmed;
use crate::upload::{Hold, Uploads, changed_row};
use crate::vfs::Core;
use crate::{Answer, Error};

/// A rename, as it was asked for and as the catalog has it.
pub(super) struct Renaming {
    pub(super) from: Entry,
    pub(super) to_directory: EntryId,
    pub(super) to_name: Box<[u8]>,
    pub(super) to_raw_name: Vec<u8>,
    /// What has the new name now.
    pub(super) over: Option<Entry>,
    /// What is left of that for those who have it open.
    kept: Option<Kept>,
    /// Whether nothing may have it.
    pub(super) only_new: bool,
    pub(super) source: Target,
    pub(super) target: Target,
    /// Whether nobody has asked for the new name: then nothing there is replaced, and the kernel is told of it.
    pub(super) is_aside: bool,
}

/// What is known, before a rename, of a file whose upload was not confirmed.
enum Before {
    Known(Confirmed),
    /// Its source cannot be asked, and may have this.
    Unseen(Unseen),
}

impl Renaming {
    /// Gives both names in the catalog: the directory, and the name in it.
    pub(super) fn names(&self) -> [(EntryId, &[u8]); 2] {
        [(self.from.parent, &self.from.name), (self.to_directory, &self.to_name)]
    }

    /// Gives the new place, as a row in the journal tells of it.
    fn renamed(&self) -> Renamed {
        Renamed {
            directory: self.to_directory.0,
            name: self.to_raw_name.as_slice().into(),
            stays: false,
            over_ns: None,
        }
    }

    /// Gives what the source calls it, where that is not the name.
    pub(super) fn raw_name(&self) -> Option<Box<[u8]>> {
        (*self.to_raw_name != *self.to_name).then(|| self.to_raw_name.as_slice().into())
    }
}

impl Core {
    pub(in crate::change) fn remote_rename(
        self: &Arc<Self>,
        from: (&Site, &[u8]),
        to: (&Site, &[u8]),
        mode: RenameMode,
    ) -> Answer<()> {
        let renaming = match self.plan_rename(from, to, mode) {
            Ok(Some(renaming)) => renaming,
            Ok(None) => return Answer::ok(()),
            Err(error) => return Answer::err(error),
        };
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            if renaming.from.kind == Kind::Directory {
                core.rename_remote_directory(renaming).await
            } else {
                core.rename_remote_file(renaming).await
            }
        }))
    }

    /// Finds what is to be renamed; `None` where both names are one already.
    fn plan_rename(
        &self,
        (from, from_name): (&Site, &[u8]),
        (to, to_name): (&Site, &[u8]),
        mode: RenameMode,
    ) -> Result<Option<Renaming>, Error> {
        self.check_room()?;
        if mode == RenameMode::Exchange {
            return Err(Error::InvalidArgument);
        }
        let look = |site: &Site, name: &[u8]| self.catalog.lookup(site.directory, name).map_err(Error::from_catalog);
        let entry = look(from, from_name)?.ok_or(Error::NotFound)?;
        let over = look(to, to_name)?;
        let to_raw_name = Site::raw_name(to_name)?;
        if entry.attach_point || over.as_ref().is_some_and(|over| over.attach_point) {
            return Err(Error::Busy);
        }
        if let Some(over) = &over {
            if mode == RenameMode::NoReplace {
                return Err(Error::Exists);
            }
            if over.id == entry.id {
                return Ok(None);
            }
            match (entry.kind == Kind::Directory, over.kind == Kind::Directory) {
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                _ => {}
            }
        }
        let source = self.remote_target_of(entry.id)?;
        let target = self.target_over(to.directory, over.as_ref(), &to_raw_name)?;
        Ok(Some(Renaming {
            from: entry,
            to_directory: to.directory,
            to_name: to_name.into(),
            to_raw_name,
            over,
            kept: None,
            only_new: mode == RenameMode::NoReplace,
            source,
            target,
            is_aside: false,
        }))
    }

    /// Moves a file to a place that nobody has asked for, under its own name: `Exists` if something has that there.
    pub(super) async fn move_aside(self: &Arc<Self>, entry: Entry, source: Target, to: &Site) -> Result<(), Error> {
        let to_raw_name = source.path.name().to_vec();
        let target = self.remote_target(to.source, to.path.join(&to_raw_name).as_bytes().to_vec())?;
        let renaming = Renaming {
            to_directory: to.directory,
            to_name: entry.name.clone(),
            to_raw_name,
            over: None,
            kept: None,
            only_new: true,
            source,
            target,
            is_aside: true,
            from: entry,
        };
        self.rename_remote_file(renaming).await
    }

    /// Finds where a name in a directory is at its source: where what has the name lies, or is to lie.
    pub(super) fn target_over(
        &self,
        directory: EntryId,
        over: Option<&Entry>,
        raw_name: &[u8],
    ) -> Result<Target, Error> {
        if let Some(over) = over {
            return self.remote_target_of(over.id);
        }
        let (source, path) = self
            .catalog
            .object_path(directory)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        let path = ObjectPath::from_bytes(path).join(raw_name);
        self.remote_target(source, path.as_bytes().to_vec())
    }

    /// Finds the places at the source anew: directories may have come further on their move.
    pub(super) fn look_at_places(&self, renaming: &mut Renaming) -> Result<(), Error> {
        renaming.source = self.remote_target_of(renaming.from.id)?;
        let (over, raw_name) = (renaming.over.as_ref(), &renaming.to_raw_name);
        renaming.target = self.target_over(renaming.to_directory, over, raw_name)?;
        Ok(())
    }

    async fn rename_remote_file(self: &Arc<Self>, mut renaming: Renaming) -> Result<(), Error> {
        let uploads = Arc::clone(self.writable()?);
        let waits_later = self.waits_when_uploaded(&renaming)?;
        if !waits_later {
            self.until_left_at(renaming.to_directory, &renaming.to_raw_name).await?;
        }
        if renaming.over.is_none() {
            self.until_free(renaming.target.place_in(renaming.to_directory)).await?;
        }
        let _turn = self.turn_at(&uploads, &renaming.names()).await?;
        let _names = self.lock_names(&renaming).await?;
        let _places = self.moves()?.keep_places().await;
        let guard = self.guard(&renaming);
        self.look_at_places(&mut renaming)?;
        self.clear_left(&renaming.source, renaming.from.id).await?;
        if let Some(over) = &renaming.over {
            self.clear_left(&renaming.target, over.id).await?;
        }
        let hold = self.hold_upload(&uploads, renaming.from.id).await?;
        let over_hold = match &renaming.over {
            Some(over) => Some(self.hold_upload(&uploads, over.id).await?),
            None => None,
        };
        self.has_its_name(&renaming.from)?;
        if let Some(over) = &renaming.over {
            self.has_its_name(over)?;
            renaming.kept = self.keep_for_open(over).await;
        }
        let mut staged = self.staged_entry(renaming.from.id);
        let mut unseen = None;
        if let Some(file) = &staged
            && file.was_sent()
        {
            match self.confirm_before(&renaming, file).await? {
                Before::Known(Confirmed::All) => staged = None,
                Before::Known(Confirmed::Nothing | Confirmed::Part) => {}
                // Both versions are to be kept, which its upload sees to first.
                Before::Known(Confirmed::SomethingElse) => return Err(Error::Busy),
                Before::Unseen(left) => unseen = Some(left),
            }
            // It may have turned out that the source had renamed it before.
            self.has_its_name(&renaming.from)?;
        }
        let stands_here_alone = staged.as_ref().is_some_and(|file| file.expected().is_none());
        let holds = (guard, hold, over_hold);
        match staged {
            Some(file) if stands_here_alone => self.rename_here(renaming, file, unseen, holds).await,
            _ if waits_later && self.is_left_at(&renaming)? => Err(Error::Busy),
            staged => self.rename_there(renaming, staged, holds).await,
        }
    }

    /// Tells whether nothing need be waited for that may be in the new place: the upload does that.
    fn waits_when_uploaded(&self, renaming: &Renaming) -> Result<bool, Error> {
        let (directory, name) = (renaming.to_directory, &renaming.to_raw_name);
        let is_known = self.catalog.is_known_to_be_left_at(directory, name);
        Ok(self.stands_here_alone(renaming.from.id) && !is_known.map_err(Error::from_catalog)?)
    }

    fn is_left_at(&self, renaming: &Renaming) -> Result<bool, Error> {
        let left = self.catalog.is_left_at(renaming.to_directory, &renaming.to_raw_name);
        left.map_err(Error::from_catalog)
    }

    /// Finds out what the source has of a held file that is to be renamed; or says what it may have, where it cannot be asked and is
    /// not known to have the file.
    async fn confirm_before(self: &Arc<Self>, renaming: &Renaming, file: &Arc<StagedFile>) -> Result<Before, Error> {
        let uploads = self.writable()?;
        let alone = Some(file).filter(|file| file.expected().is_none() && !renaming.is_aside);
        let confirmed = match alone {
            None => uploads.confirm(file).await,
            Some(file) => timeout(self.settings.data_deadline / 2, uploads.confirm(file))
                .await
                .unwrap_or_else(|_| {
                    Err(Error::TimedOut(Cause::new(
                        "its source did not say in time what it has of it",
                    )))
                }),
        };
        let error = match confirmed {
            Ok(confirmed) => return Ok(Before::Known(confirmed)),
            Err(error) => error,
        };
        let to_moves = self
            .catalog
            .move_above(renaming.to_directory)
            .map_err(Error::from_catalog)?;
        let unseen = self.unseen(alone.filter(|_| to_moves.is_none()), &error).await?;
        unseen.map(Before::Unseen).ok_or(error)
    }

    /// Renames what no source has yet. What has the new name there is replaced by the upload.
    async fn rename_here(
        self: &Arc<Self>,
        renaming: Renaming,
        file: Arc<StagedFile>,
        left: Option<Unseen>,
        holds: (ChangeGuard, Hold, Option<Hold>),
    ) -> Result<(), Error> {
        let (was_sent, mut unseen) = (left.is_some(), left.into_iter().collect::<Vec<_>>());
        let expected = match &renaming.over {
            None => None,
            Some(over) => match self.version_to_replace(renaming.to_directory, over).await {
                Ok(known) => known,
                // What the source is known to have is not taken away before what replaces it is there.
                Err(error) => {
                    let over = self.staged_entry(over.id);
                    let alone = over.as_ref().filter(|over| over.expected().is_none());
                    unseen.push(self.unseen(alone, &error).await?.ok_or(error)?);
                    None
                }
            },
        };
        let core = Arc::clone(self);
        self.blocking(move || {
            let replaced = core.part_with_replaced(&renaming)?;
            // Under the new name, the row must not say for a moment what holds under the old one: an upload after a crash
            // would find what is replaced there, and take it for somebody else's.
            file.rebase(None, expected.as_deref(), |change| {
                let row = changed_row(&core.catalog, file.id, change)?;
                core.follow_renamed(&renaming, None, Some(&row), &unseen)
            })?;
            if was_sent {
                // That is in its former place, if anywhere.
                file.nothing_was_sent();
            }
            core.forget_replaced(&renaming, replaced)?;
            core.catalog.sync().map_err(Error::from_catalog)?;
            drop(holds);
            if !unseen.is_empty() {
                core.moves()?.is_due();
            }
            Ok(())
        })
        .await
    }

    /// Has the source rename what it has.
    async fn rename_there(
        self: &Arc<Self>,
        renaming: Renaming,
        staged: Option<Arc<StagedFile>>,
        holds: (ChangeGuard, Hold, Option<Hold>),
    ) -> Result<(), Error> {
        if renaming.source.able.renames_files == Renames::No {
            return Err(Error::CrossSource);
        }
        if let Some(over) = &renaming.over {
            self.make_whole(over).await?;
        }
        if let Some(file) = &staged {
            // What shows through is of the version that is known here; another one there is for its upload to settle.
            let there = self.version_at(&renaming.source).await?;
            let known = file.expected();
            if there.as_ref().map(Version::as_bytes) != known.as_deref() {
                return Err(Error::Busy);
            }
            // Where the answer does not come, or nobody is left to hear it, the next upload finds out what became of it.
            let over = renaming.over.as_ref().and_then(|over| self.staged_entry(over.id));
            let renamed = Renamed {
                over_ns: over.map(|over| over.look().modified_ns),
                ..renaming.renamed()
            };
            let catalog = Arc::clone(&self.catalog);
            let (staging, noted) = (Arc::clone(&self.writable()?.staging), Arc::clone(file));
            self.blocking(move || {
                staging.note_renamed(&noted, &renamed, |change| {
                    let row = changed_row(&catalog, noted.id, change)?;
                    catalog.restage(noted.id, &row).map_err(Error::from_catalog)
                })
            })
            .await?;
        }
        let over = renaming.over.as_ref().map(|over| over.id);
        let changed: Vec<_> = [renaming.from.id].into_iter().chain(over).collect();
        let mut settled = self.settle_origins(&changed).await?;
        let renamed = self.rename_at_source(&renaming).await;
        let metadata = renamed.inspect_err(|error| settled::lasts_if_away(&mut settled, error))?;
        let core = Arc::clone(self);
        self.blocking(move || {
            let replaced = core.part_with_replaced(&renaming)?;
            if let Some(file) = &staged {
                let version = metadata.version.as_bytes();
                file.rebase(Some(version), Some(version), |change| {
                    let row = changed_row(&core.catalog, file.id, change)?;
                    core.follow_renamed(&renaming, None, Some(&row), &[])
                })?;
            } else {
                core.follow_renamed(&renaming, Some(&metadata), None, &[])?;
            }
            core.forget_replaced(&renaming, replaced)?;
            if staged.is_some() {
                core.catalog.sync().map_err(Error::from_catalog)?;
            } else if core.files.is_open(renaming.from.id)
                && let Ok((object, _)) = Object::find(&core.catalog, &core.indexer, renaming.from.id)
            {
                core.files.rebind(renaming.from.id, &Arc::new(object));
            }
            drop((holds, settled));
            Ok(())
        })
        .await
    }

    /// Holds the files whose names change, always in the same order.
    async fn lock_names(&self, renaming: &Renaming) -> Result<Vec<NameLock>, Error> {
        let mut ids = vec![renaming.from.id];
        ids.extend(renaming.over.as_ref().map(|over| over.id));
        ids.sort_unstable();
        let mut locks = Vec::with_capacity(ids.len());
        for id in ids {
            locks.push(self.lock_name(id).await?);
        }
        Ok(locks)
    }

    pub(super) async fn rename_at_source(
        self: &Arc<Self>,
        renaming: &Renaming,
    ) -> Result<manifold_backends::Metadata, Error> {
        let (source, target) = (&renaming.source, &renaming.target);
        // While a directory is on the move, what others put where it lay is not seen.
        let above = self
            .catalog
            .move_above(renaming.to_directory)
            .map_err(Error::from_catalog)?;
        let is_file = renaming.from.kind != Kind::Directory;
        let replaces = !renaming.only_new && (renaming.over.is_some() || above.is_none() && !is_file);
        if replaces && is_file && above.is_none() {
            self.must_be_as_seen(renaming).await?;
        }
        let lookalikes = self.lookalikes(renaming).await?;
        let (from, to) = (&source.path, &target.path);
        // Where no directory is known, another machine may be uploading into one at this moment.
        let renamed = if is_file || renaming.over.is_none() {
            self.ask(source, source.backend.rename(from, to, replaces)).await
        } else {
            self.ask(source, rename_directory(&*source.backend, from, to)).await
        };
        match &renamed {
            Err(error) if is_away(error) => self.may_be_another(lookalikes),
            Err(_) => self.keep_place(&lookalikes),
            Ok(_) => {}
        }
        match renamed {
            Ok(Presence::Found(metadata)) => Ok(metadata),
            Ok(Presence::Absent) => {
                self.look_into(renaming.from.parent);
                Err(Error::NotFound)
            }
            // Then it can be copied.
            Err(error) if is_unable(&error) => Err(Error::CrossSource),
            Err(Error::Exists) if renaming.is_aside => Err(Error::Exists),
            Err(error) => {
                self.look_into(renaming.from.parent);
                self.look_into(renaming.to_directory);
                Err(match error {
                    // Another has put something there that nobody has seen.
                    Error::Exists if !renaming.only_new && is_file => Error::Busy,
                    error => error,
                })
            }
        }
    }

    /// What has the new name is about to be gone for all but those who have it open, or have just looked it up.
    fn part_with_replaced(&self, renaming: &Renaming) -> Result<Option<Opening<'_>>, Error> {
        let Some(over) = &renaming.over else { return Ok(None) };
        self.leave_to_open(renaming.kept.as_ref())?;
        if let Some(file) = self.staged_entry(over.id) {
            file.forget();
        }
        let opening = self.files.begin(over.id);
        self.files.lose_place(over.id);
        let attributes = self.attributes(over.id, None)?;
        self.files.lost_name(over.id, self.at_hand(over.id), &attributes);
        Ok(Some(opening))
    }

    /// What had the new name is gone, but for those.
    fn forget_replaced(&self, renaming: &Renaming, replaced: Option<Opening<'_>>) -> Result<(), Error> {
        let Some(over) = &renaming.over else { return Ok(()) };
        if let Some(opening) = replaced
            && self.files.parted(over.id).is_some()
        {
            self.files.keep_replaced(opening, Instant::now());
        }
        self.forget_staged(over.id)
    }

    /// `metadata`: how it looks at its source now; `row`: what its row in the journal is to be, where it is staged; `unseen`: what may
    /// have arrived of it, and of what it replaces, and is to be taken away later, where nothing is on the move.
    pub(super) fn follow_renamed(
        &self,
        renaming: &Renaming,
        metadata: Option<&manifold_backends::Metadata>,
        row: Option<&[u8]>,
        unseen: &[Unseen],
    ) -> Result<(), Error> {
        let ([from, to], raw_name) = (renaming.names(), renaming.raw_name());
        let (seen, now_ns) = (metadata.map(seen_attributes), self.writable()?.now_ns());
        // A rename is no change of the bytes, though the source may have made it by a copy.
        let before_ns = renaming.from.modified_ns;
        let (kind, lies_at) = (renaming.from.kind, renaming.target.path.as_bytes());
        let is_kept = kind == Kind::File
            && self.keeps_attributes(renaming.source.source)
            && seen.as_ref().is_some_and(|seen| seen.modified_ns != before_ns);
        let is_moving = self
            .catalog
            .move_above(renaming.to_directory)
            .map_err(Error::from_catalog)?;
        let follow = |catalog: &Catalog| {
            let lies_at = (kind != Kind::Directory && is_moving.is_some()).then(|| lies_at.to_vec());
            let changes = match (row, lies_at) {
                (Some(row), None) if !unseen.is_empty() => {
                    catalog.follow_moved_unseen(from, to, raw_name, row, unseen, now_ns)?
                }
                (Some(row), lies_at) => catalog.follow_moved_staged(from, to, raw_name, lies_at, row, now_ns)?,
                (None, Some(lies_at)) => catalog.follow_moved_onto(from, to, raw_name, seen, lies_at, now_ns)?,
                (None, None) => catalog.follow_moved(from, to, raw_name, seen, now_ns)?,
            };
            Ok(((), changes))
        };
        if renaming.is_aside {
            follow(&self.catalog).map_err(Error::from_catalog)?;
        } else {
            self.follow(follow)?;
        }
        if is_kept {
            let keep = Keep {
                modified_ns: Some(before_ns),
                ..Keep::default()
            };
            self.keep_here(renaming.from.id, keep, None)?;
        }
        self.names_changed(renaming.from.parent, now_ns)?;
        self.names_changed(renaming.to_directory, now_ns)
    }

    pub(super) fn guard(&self, renaming: &Renaming) -> ChangeGuard {
        let itself = Some(renaming.from.id).filter(|_| renaming.from.kind == Kind::Directory);
        let directories = [renaming.from.parent, renaming.to_directory].into_iter().chain(itself);
        self.catalog.begin_change(&directories.collect::<Vec<_>>())
    }

    pub(super) async fn hold_upload(&self, uploads: &Arc<Uploads>, id: EntryId) -> Result<Hold, Error> {
        let held = timeout(self.settings.data_deadline, uploads.hold(id)).await;
        held.map_err(|_| Error::TimedOut(Cause::new("its upload did not end in time")))
    }
}
