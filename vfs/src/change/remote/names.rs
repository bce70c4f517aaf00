//! Names of remote sources: making directories and links, removing.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::local::Making;
use manifold_backends::{Expected, Metadata, Presence, Version};
use manifold_catalog::{Entry, EntryId, Keep, Kind, NewChild, Unseen};
use manifold_index::seen_attributes;

use super::Target;
use super::settled;
use super::unseen::is_away;
use crate::attributes::Attributes;
use crate::change::{Requester, Site};
use crate::error::Cause;
use crate::staging::StagedFile;
use crate::temporaries::remove_directory;
use crate::vfs::Core;
use crate::{Answer, Error};

/// Why a name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Somebody has asked for that: whatever has the name goes.
    Asked,
    /// A file at another source takes its place: only the version that is known here goes.
    GivesWay,
}

/// What becomes of what the source has of a file whose name is gone.
#[derive(Clone, Copy)]
enum Gone<'a> {
    /// It has nothing.
    All,
    /// This may have arrived, and is to be taken away.
    Unseen(&'a Unseen),
    /// It has this version, which is to be taken away.
    Known(&'a [u8]),
}

impl Core {
    /// Makes a directory or a link at the source, or a file here. Whoever asks has it last.
    pub(in crate::change) fn remote_make(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        making: &Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        let link = match making {
            Making::Directory => None,
            Making::Symlink(target) => Some(target.clone()),
            Making::File => return self.make_file(site, name, mode, by),
            _ => {
                return Answer::err(Error::Unsupported(Cause::new(
                    "its source has neither pipes, nor sockets, nor devices",
                )));
            }
        };
        let begun = self.check_room().and_then(|()| {
            let raw_name = Site::raw_name(name)?;
            let target = self.remote_target(site.source, site.path.join(&raw_name).as_bytes().to_vec())?;
            if link.is_some() && !target.able.makes_links {
                return Err(Error::Unsupported(Cause::new(
                    "its source has no symbolic links, unless they are asked for with links=objects",
                )));
            }
            Ok((raw_name, target))
        });
        let (raw_name, target) = match begun {
            Ok(begun) => begun,
            Err(error) => return Answer::err(error),
        };
        let (core, name, directory) = (Arc::clone(self), Box::<[u8]>::from(name), site.directory);
        let mode = mode & !by.umask & 0o7777;
        Answer::Pending(Box::pin(async move {
            core.until_free(target.place_in(directory)).await?;
            core.until_left_at(directory, &raw_name).await?;
            let uploads = Arc::clone(core.writable()?);
            let _turn = core.turn_at(&uploads, &[(directory, &name)]).await?;
            let _places = core.moves()?.keep_places().await;
            let guard = core.catalog.begin_change(&[directory]);
            let above = core.remote_target_of(directory)?;
            let target = Target {
                path: above.path.join(&raw_name),
                ..above
            };
            let known = core.catalog.lookup(directory, &name).map_err(Error::from_catalog)?;
            if known.is_some() {
                return Err(Error::Exists);
            }
            let answer = match &link {
                Some(to) => core.ask(&target, target.backend.make_link(&target.path, to)).await,
                None => core.ask(&target, target.backend.create_directory(&target.path)).await,
            };
            let mut metadata = answer.inspect_err(|_| core.look_into(directory))?;
            // A link has no permissions of its own.
            let keeps = link.is_none() && core.keeps_attributes(target.source);
            if keeps && target.able.keeps_mode && metadata.mode.is_some_and(|there| there & 0o7777 != mode) {
                let wanted = manifold_backends::Attributes {
                    mode: Some(mode),
                    ..Default::default()
                };
                let set = core
                    .ask(&target, target.backend.set_attributes(&target.path, &wanted))
                    .await;
                if let Presence::Found(now) = set.inspect_err(|_| core.look_into(directory))? {
                    metadata = now;
                }
            }
            let (core, at) = (Arc::clone(&core), core.writable()?.now_ns());
            let runtime = Arc::clone(&core);
            runtime
                .blocking(move || {
                    let mut child = new_child(&name, raw_name, &metadata);
                    let keeps_mode = keeps && u32::from(child.seen.mode) != mode;
                    if keeps_mode {
                        child.seen.mode = mode as u16;
                    }
                    let id = core.follow(|catalog| catalog.follow_created(directory, child, Some(at)))?;
                    if let Some(to) = &link {
                        core.note_link(id, metadata.version.as_bytes(), to)?;
                    }
                    let owner = core.owner_to_keep(target.source, by);
                    if keeps_mode || owner.is_some() {
                        let keep = Keep {
                            mode: keeps_mode.then_some(mode as u16),
                            owner,
                            ..Keep::default()
                        };
                        core.keep_here(id, keep, None)?;
                    }
                    if link.is_none() {
                        core.names_changed(id, at)?;
                    }
                    core.names_changed(directory, at)?;
                    drop(guard);
                    Ok(Attributes::of(&core.entry_of(id)?))
                })
                .await
        }))
    }

    /// Removes a name at the source, and here. Whoever asks has that last: the row of a staged file would come back with a crash,
    /// and the file with it.
    pub(in crate::change) fn remote_remove(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        is_directory: bool,
        why: Removal,
    ) -> Answer<()> {
        let known = self.writable().and_then(|_| {
            let entry = self.catalog.lookup(site.directory, name).map_err(Error::from_catalog)?;
            let entry = entry.ok_or(Error::NotFound)?;
            if entry.attach_point {
                return Err(Error::Busy);
            }
            match (entry.kind == Kind::Directory, is_directory) {
                (true, false) => Err(Error::IsADirectory),
                (false, true) => Err(Error::NotADirectory),
                _ => match self.remote_target_of(entry.id) {
                    Err(error) if is_away(&error) && self.stands_here_alone(entry.id) => Ok((None, entry)),
                    target => Ok((Some(target?), entry)),
                },
            }
        });
        let (target, entry) = match known {
            Ok(known) => known,
            Err(error) => return Answer::err(error),
        };
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            // While it is on the move, its object is not where it stands.
            if why == Removal::GivesWay && !is_directory && !core.is_on_the_move(entry.id)? {
                return core.remove_ahead(entry).await;
            }
            let Some(target) = target else {
                return core.remove_remote_file(entry, None).await;
            };
            if is_directory {
                return core.remove_remote_directory(target, entry).await;
            }
            let mut refused = None;
            if core.goes_to_trash(&target, &entry)? {
                match core.move_to_trash(target, entry.clone()).await {
                    // The trash has no place for what the source does not have.
                    Err(error) if !is_away(&error) || core.stands_here_alone(entry.id) => refused = Some(error),
                    moved => return moved,
                }
            }
            core.remove_remote_file(entry, refused).await
        }))
    }

    async fn remove_remote_directory(self: &Arc<Self>, target: Target, entry: Entry) -> Result<(), Error> {
        // What has left the directory for another source may lie in it still.
        self.until_left_beneath(entry.id).await?;
        // What only stands here, the source does not know.
        if self.catalog.leads_to_staged(entry.id).map_err(Error::from_catalog)? {
            return Err(Error::NotEmpty);
        }
        // What has left the directory may lie in it still.
        self.until_free(target.place_of(entry.id)).await?;
        let uploads = Arc::clone(self.writable()?);
        let _turn = self.turn_at(&uploads, &[(entry.parent, &entry.name)]).await?;
        let _name = self.lock_name(entry.id).await?;
        let _places = self.moves()?.keep_places().await;
        self.has_its_name(&entry)?;
        let guard = self.catalog.begin_change(&[entry.parent, entry.id]);
        let target = self.remote_target_of(entry.id)?;
        let removed = if self.is_in_a_move(entry.id)? {
            let removed = self.remove_moving_directory(&target, &entry).await;
            removed.map(|()| Presence::Found(()))
        } else {
            uploads.end_all_in(target.source, &target.path).await?;
            self.ask(&target, remove_directory(&*target.backend, &target.path))
                .await
        };
        // Others have put a file where it was, which is not shown while it stands here.
        let is_replaced = matches!(removed, Err(Error::NotADirectory));
        let parent = entry.parent;
        match removed {
            Ok(Presence::Found(()) | Presence::Absent) | Err(Error::NotADirectory) => {}
            Err(error) => {
                self.look_into(entry.parent);
                return Err(error);
            }
        }
        let core = Arc::clone(self);
        self.blocking(move || {
            core.follow_gone(&entry, Gone::All)?;
            drop(guard);
            Ok(())
        })
        .await?;
        if is_replaced {
            self.look_into(parent);
        }
        Ok(())
    }

    /// Removes a file that gives way to one at another source: its name is free at once, and what its source has is taken away behind that,
    /// in the version that is known here. So it is done, or not, whatever answers come.
    pub(super) async fn remove_ahead(self: &Arc<Self>, entry: Entry) -> Result<(), Error> {
        let uploads = Arc::clone(self.writable()?);
        let _turn = self.turn_at(&uploads, &[(entry.parent, &entry.name)]).await?;
        let _name = self.lock_name(entry.id).await?;
        let _places = self.moves()?.keep_places().await;
        let guard = self.catalog.begin_change(&[entry.parent]);
        let hold = self.hold_upload(&uploads, entry.id).await?;
        self.has_its_name(&entry)?;
        let kept = self.keep_for_open(&entry).await;
        let mut unseen = None;
        let known = match self.version_to_replace(entry.parent, &entry).await {
            Ok(known) => known,
            Err(error) => {
                let file = self.staged_entry(entry.id);
                let alone = file.as_ref().filter(|file| file.expected().is_none());
                unseen = Some(self.unseen(alone, &error).await?.ok_or(error)?);
                None
            }
        };
        let core = Arc::clone(self);
        self.blocking(move || {
            core.leave_to_open(kept.as_ref())?;
            let staged = core.staged_entry(entry.id);
            if let Some(file) = &staged {
                file.forget();
            }
            let gone = match (&known, &unseen) {
                (Some(known), _) => Gone::Known(known),
                (None, Some(unseen)) => Gone::Unseen(unseen),
                (None, None) => Gone::All,
            };
            core.follow_gone(&entry, gone)?;
            if staged.is_some() {
                core.forget_staged(entry.id)?;
            }
            drop((guard, hold));
            core.moves()?.is_due();
            Ok(())
        })
        .await
    }

    /// `refused`: why the trash has not taken it. Then nothing goes that the source has.
    async fn remove_remote_file(self: &Arc<Self>, entry: Entry, refused: Option<Error>) -> Result<(), Error> {
        let uploads = Arc::clone(self.writable()?);
        let _turn = self.turn_at(&uploads, &[(entry.parent, &entry.name)]).await?;
        let _name = self.lock_name(entry.id).await?;
        let _places = self.moves()?.keep_places().await;
        let target = match self.remote_target_of(entry.id) {
            Err(error) if is_away(&error) && !self.is_on_the_move(entry.id)? => Err(error),
            target => Ok(target?),
        };
        if let Ok(target) = &target {
            self.clear_left(target, entry.id).await?;
        }
        let guard = self.catalog.begin_change(&[entry.parent]);
        let hold = self.hold_upload(&uploads, entry.id).await?;
        self.has_its_name(&entry)?;
        let kept = self.keep_for_open(&entry).await;
        let staged = self.staged_entry(entry.id);
        let alone = staged.as_ref().filter(|file| file.expected().is_none());
        let (mut unseen, mut settled) = (None, None);
        if alone.is_none_or(|file| file.was_sent()) {
            settled = self.settle_origins(&[entry.id]).await?;
            let removed = match (&target, refused) {
                (Ok(target), None) => self.remove_at_source(target, &entry, staged.as_deref()).await,
                (Ok(target), Some(refused)) => match self.is_at_source(target, alone.is_some()).await {
                    Ok(true) => return Err(self.not_taken(&entry, refused)),
                    there => there.map(drop),
                },
                (Err(error), _) => Err(error.clone()),
            };
            if let Err(error) = removed {
                unseen = self.unseen(alone, &error).await?;
                if unseen.is_none() {
                    settled::lasts_if_away(&mut settled, &error);
                    self.look_into(entry.parent);
                    return Err(error);
                }
            }
        }
        let core = Arc::clone(self);
        self.blocking(move || {
            core.leave_to_open(kept.as_ref())?;
            // It may have been found to be at the source.
            let staged = core.staged_entry(entry.id);
            if let Some(file) = &staged {
                file.forget();
            }
            core.follow_gone(&entry, unseen.as_ref().map_or(Gone::All, Gone::Unseen))?;
            if staged.is_some() {
                core.forget_staged(entry.id)?;
            }
            drop((guard, hold, settled));
            if unseen.is_some() {
                core.moves()?.is_due();
            }
            Ok(())
        })
        .await
    }

    /// Removes what the source has of a file, if it has anything.
    async fn remove_at_source(&self, target: &Target, entry: &Entry, staged: Option<&StagedFile>) -> Result<(), Error> {
        let patience = self.removal_patience(staged.is_some_and(|file| file.expected().is_none()));
        let expected = self.to_be_removed(entry, staged)?;
        let removing = target.backend.remove_file(&target.path, &expected);
        match self.ask_within(patience, target, removing).await {
            // Others have put a file where its directory was.
            Ok(Presence::Found(()) | Presence::Absent) | Err(Error::NotADirectory) => Ok(()),
            // It is on the move, and what others have made of it in its old place is theirs.
            Err(Error::Stale) if expected != Expected::Anything => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says how long a source is waited for: where it is not known to have a file, that is removed later.
    pub(super) fn removal_patience(&self, is_alone: bool) -> Duration {
        self.settings.data_deadline / if is_alone { 2 } else { 1 }
    }

    /// Leaves what is staged of an entry that has lost its name to those who have it open. Who opens it now either found it
    /// staged, or does not find its row.
    pub(super) fn forget_staged(&self, id: EntryId) -> Result<(), Error> {
        if let Some(file) = self.staged_entry(id) {
            self.files.meet(id, &file);
            self.writable()?.staging.forget(id);
        }
        Ok(())
    }

    /// Says what is to be removed with the name of a file: whatever has it, but while the file is not where it stands, only what
    /// is known.
    fn to_be_removed(&self, entry: &Entry, staged: Option<&StagedFile>) -> Result<Expected, Error> {
        if !self.is_in_a_move(entry.id)? || staged.is_some_and(StagedFile::was_sent) {
            return Ok(Expected::Anything);
        }
        let known = self.known_version(entry.id)?;
        Ok(known.map_or(Expected::Anything, |version| {
            Expected::Version(Version::from_stored(&version))
        }))
    }

    /// `unseen`: what may have arrived of it, and is to be taken away later.
    fn follow_gone(&self, entry: &Entry, gone: Gone<'_>) -> Result<(), Error> {
        let now_ns = self.writable()?.now_ns();
        if self.files.is_open(entry.id) {
            self.files.lose_place(entry.id);
            let attributes = self.attributes(entry.id, None)?;
            self.files.note_attributes(entry.id, attributes);
        }
        let followed = self.follow(|catalog| {
            let (parent, name) = (entry.parent, &*entry.name);
            let changes = match gone {
                Gone::All => catalog.follow_removed(parent, name, now_ns)?,
                Gone::Unseen(unseen) => catalog.follow_removed_unseen(parent, name, unseen, now_ns)?,
                Gone::Known(version) => catalog.follow_removed_ahead(parent, name, (entry.id, version), now_ns)?,
            };
            Ok(((), changes))
        });
        if followed.is_err() && self.catalog.entry(entry.id).map_err(Error::from_catalog)?.is_none() {
            // At an object store its directory may have gone with it, and a listing have seen that already.
            return Ok(());
        }
        followed?;
        self.names_changed(entry.parent, now_ns)
    }

    /// Begins to keep the time of a directory in which a name was changed: at its source it changes when an upload arrives. From
    /// then on the catalog sees to it with each change.
    pub(super) fn names_changed(&self, directory: EntryId, now_ns: i64) -> Result<(), Error> {
        let known = self.catalog.entry(directory).map_err(Error::from_catalog)?;
        let Some(entry) = known.filter(|entry| !entry.keeps_time && self.keeps_attributes(entry.source)) else {
            return Ok(());
        };
        let keep = Keep {
            modified_ns: Some(now_ns),
            changed_ns: Some(now_ns),
            ..Keep::default()
        };
        self.keep_here(entry.id, keep, None)
    }
}

pub(super) fn new_child(name: &[u8], raw_name: Vec<u8>, metadata: &Metadata) -> NewChild {
    NewChild {
        name: name.into(),
        raw_name: (raw_name != name).then(|| raw_name.into()),
        seen: seen_attributes(metadata),
        adopt: None,
    }
}

/// Tells whether a source has said that it cannot do something at all.
pub(super) fn is_unable(error: &Error) -> bool {
    matches!(error, Error::Unsupported(_))
}
