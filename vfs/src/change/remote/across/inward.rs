//! Renaming a file to a folder of this machine: by the disk's own rename from another such folder beside it, else by a copy
//! within the request, as long as that does not take long.
//!
//! Always true:
//! - before the copy has its name, nobody sees anything of it, and nothing is left of it however that ends: until then it is a
//!   file without a name;
//! - it gets its name when it lies on the disk, was read back from there and is right, and if nothing has that name;
//! - that it is about to get its name is noted durably before, so that a daemon that ends in between is followed by one that goes on
//!   ([`resume`](super::resume));
//! - with the transaction that knows of it, the original is to be taken away, in the version that was copied.

use std::sync::Arc;

use manifold_backends::Version;
use manifold_backends::local::{LocalBackend, LocalFile, Place};
use manifold_catalog::{Crossing as Noted, EntryId, Kind, Left, Mark};
use tokio::time::Instant;

use super::copy::{Wanted, time};
use super::resume::noted;
use super::{CLOSING, Crossing, Found};
use crate::Error;
use crate::attributes::Attributes;
use crate::change::Paths;
use crate::change::local::{done, found};
use crate::error::Cause;
use crate::staging::{Sending, StagedFile};
use crate::upload::naming::NameLock;
use crate::vfs::Core;

/// Set-user-ID and set-group-ID bits.
const PRIVILEGES: u16 = 0o6000;

/// A file in its former place, as it is to be found there still when its copy is done.
struct Original {
    /// `None`: at a remote source.
    folder: Option<LocalBackend>,
    found: Found,
    attributes: Attributes,
    staged: Option<(Arc<StagedFile>, Sending)>,
}

impl Original {
    /// Gives the version that is to be taken away; `None`: its source has nothing there.
    fn version(&self) -> Option<Box<[u8]>> {
        match &self.staged {
            Some((file, _)) => file.expected(),
            None => self.found.object.as_ref().map(|it| it.version.as_bytes().into()),
        }
    }
}

impl Crossing {
    /// Gives both names in the catalog: the directory, and the name in it.
    pub(super) fn names(&self) -> [(EntryId, &[u8]); 2] {
        [(self.from.parent, &self.from.name), (self.to_directory, &self.to_name)]
    }

    /// Names the directories in which something changes.
    pub(super) fn directories(&self) -> [EntryId; 4] {
        let [from, to] = self.above;
        [self.from.parent, self.to_directory, from, to]
    }
}

impl Core {
    /// Renames a file of a remote source, or of another folder, to a place in a folder of this machine.
    pub(super) async fn cross_inward(
        self: &Arc<Self>,
        crossing: Crossing,
        from: Option<LocalBackend>,
        to: LocalBackend,
    ) -> Result<(), Error> {
        // Nobody waits for such a file system longer than the deadline, and it may make a change after that.
        let from_hangs = from.as_ref().is_some_and(|from| from.may_hang(&crossing.former.1));
        if from_hangs || to.may_hang(&self.path_of(crossing.to_directory)?) {
            return Err(Error::CrossSource);
        }
        let end = Instant::now() + self.settings.data_deadline;
        self.until_left_at(crossing.to_directory, &crossing.to_raw_name).await?;
        let crossing = Arc::new(crossing);
        match &from {
            Some(from) if from.is_beside(&to) && self.rename_beside(&crossing, from, &to).await? => {}
            _ => match crossing.from.kind {
                Kind::File => match self.copy_inward(&crossing, from, to, end).await {
                    Err(Error::Stale) => return self.copied_by_others(&crossing).await,
                    copied => copied?,
                },
                Kind::Symlink => self.link_across(&crossing, from, Some(to)).await?,
                _ => return Err(Error::CrossSource),
            },
        }
        self.crossed().await
    }

    /// Leaves it to whoever asked to copy a file of which another has made something else at its source: that is what is to be
    /// found when it is read.
    async fn copied_by_others(&self, crossing: &Crossing) -> Result<(), Error> {
        let listed = self.indexer.list_now(crossing.from.parent);
        match tokio::time::timeout(self.settings.metadata_deadline, listed).await {
            Ok(Ok(())) => Err(Error::CrossSource),
            // Else the version that is known would be copied, and the other one removed.
            _ => Err(Error::Busy),
        }
    }

    /// Makes it last that the catalog has followed, and has the original taken away, if there is one.
    pub(super) async fn crossed(&self) -> Result<(), Error> {
        let catalog = Arc::clone(&self.catalog);
        self.blocking(move || catalog.sync().map_err(Error::from_catalog))
            .await?;
        self.moves()?.is_due();
        Ok(())
    }

    /// Keeps both files from being renamed, and from being brought elsewhere, by anybody else.
    pub(super) async fn lock_crossing(&self, crossing: &Crossing) -> Result<Vec<NameLock>, Error> {
        let mut ids = vec![crossing.from.id];
        ids.extend(crossing.over.as_ref().map(|over| over.id));
        ids.sort_unstable();
        let mut locks = Vec::with_capacity(ids.len());
        for id in ids {
            locks.push(self.lock_name(id).await?);
        }
        Ok(locks)
    }

    /// Makes sure that both names stand for what they stood for. To be called while no name changes.
    pub(super) fn is_as_planned(&self, crossing: &Crossing) -> Result<(), Error> {
        let look = |directory, name| self.catalog.lookup(directory, name).map_err(Error::from_catalog);
        let from = look(crossing.from.parent, &crossing.from.name)?;
        let over = look(crossing.to_directory, &crossing.to_name)?;
        let expected = crossing.over.as_ref().map(|over| over.id);
        if from.map(|from| from.id) != Some(crossing.from.id) || over.map(|over| over.id) != expected {
            return Err(Error::Stale);
        }
        let (directory, raw_name) = (crossing.to_directory, &crossing.to_raw_name);
        if self
            .catalog
            .is_left_at(directory, raw_name)
            .map_err(Error::from_catalog)?
        {
            return Err(Error::Busy);
        }
        Ok(())
    }

    /// Says where the new name is on the disk. To be called while no name changes.
    pub(super) fn place_in_folder(&self, crossing: &Crossing) -> Result<Place, Error> {
        let name = match &crossing.over {
            None => crossing.to_raw_name.clone(),
            Some(over) => {
                let details = self.catalog.details(over.id).map_err(Error::from_catalog)?;
                details.ok_or(Error::Stale)?.raw_name.into()
            }
        };
        Ok(Place {
            directory: self.path_of(crossing.to_directory)?,
            name,
        })
    }

    /// Copies a file that is to be copied by `end`, and has it take the place of its original.
    async fn copy_inward(
        self: &Arc<Self>,
        crossing: &Arc<Crossing>,
        from: Option<LocalBackend>,
        to: LocalBackend,
        end: Instant,
    ) -> Result<(), Error> {
        let id = crossing.from.id;
        // What has no name yet cannot be given one that something has. Who has it open would go on with the original.
        if crossing.over.is_some() || !self.files.until_closed(id, CLOSING).await {
            return Err(Error::CrossSource);
        }
        let (uploads, moves) = (Arc::clone(self.writable()?), Arc::clone(self.moves()?));
        let copying = async {
            let turn = self.turn_at(&uploads, &crossing.names()).await?;
            let names = self.lock_crossing(crossing).await?;
            let places = moves.keep_places().await;
            let guard = self.catalog.begin_change(&crossing.directories());
            if from.is_none() {
                self.clear_left(&self.remote_target_of(id)?, id).await?;
            }
            let hold = self.hold_upload(&uploads, id).await?;
            let original = self.look_at_original(crossing, from).await?;
            let wanted = self.wanted(id, &original)?;
            let patience = self.patience();
            let directory = self.path_of(crossing.to_directory)?;
            let copied = self.copy_unnamed(id, &to, directory, wanted, patience);
            let copied = tokio::time::timeout(patience, copied).await;
            // Whoever asked has all the time that it takes.
            let copy = copied.map_err(|_| Error::CrossSource)??;
            Ok(((turn, names), places, (guard, hold), original, copy))
        };
        let copied = tokio::time::timeout_at(end, copying).await;
        let late = |_| Error::TimedOut(Cause::new("a file that is to be moved was in use for too long"));
        let (names, places, holds, original, copy) = copied.map_err(late)??;
        let (core, crossing, folder) = (Arc::clone(self), Arc::clone(crossing), to.clone());
        let settled = self.blocking(move || {
            let sources = [(crossing.former.0, Paths::Change), (crossing.to_source, Paths::Stay)];
            let crossed = core.with_paths_of_both(sources, || {
                core.is_still(&crossing, &original)?;
                core.name_copy(&crossing, &folder, &copy, &original)
            });
            drop(holds);
            crossed
        });
        settled.await?;
        drop((names, places));
        Ok(())
    }

    async fn look_at_original(
        self: &Arc<Self>,
        crossing: &Crossing,
        folder: Option<LocalBackend>,
    ) -> Result<Original, Error> {
        let id = crossing.from.id;
        let found = match &folder {
            Some(local) => self.find_in_folder(crossing, local).await?,
            None => self.find_at_source(crossing).await?,
        };
        let original = Original {
            folder,
            found,
            attributes: self.attributes(id, None)?,
            staged: self.staged_now(id),
        };
        // What is read, and perhaps cached, is the version that is known: another must not be taken away for that.
        if original.folder.is_none() && original.staged.is_none() && !self.is_known(id, &original)? {
            return Err(Error::Stale);
        }
        Ok(original)
    }

    fn staged_now(&self, id: EntryId) -> Option<(Arc<StagedFile>, Sending)> {
        let file = self.staged_entry(id)?;
        let now = file.now();
        Some((file, now))
    }

    /// Says how the copy is to look.
    fn wanted(&self, id: EntryId, original: &Original) -> Result<Wanted, Error> {
        let shown = &original.attributes;
        let details = self.catalog.details(id).map_err(Error::from_catalog)?;
        let content = details.and_then(|details| details.content);
        let content = content.filter(|_| self.is_known(id, original).is_ok_and(|is_known| is_known));
        let mount = *self.owner.read();
        if let (Some(_), Some(object)) = (&original.folder, &original.found.object) {
            return Ok(Wanted {
                mode: object.mode.map_or(u32::from(shown.mode), |mode| mode & 0o7777),
                owner: object.owner.unwrap_or(mount),
                modified: time(object.modified.map_or(shown.modified_ns, |it| it.0)),
                accessed: None,
                attributes: original.found.attributes.clone(),
                content,
            });
        }
        // What another machine says of it must not make a file of this one somebody's who has not made it, nor a program that
        // runs with other rights.
        if shown.mode & PRIVILEGES != 0 || shown.owner.is_some_and(|owner| owner != mount) {
            return Err(Error::CrossSource);
        }
        let mut attributes = Vec::new();
        for name in self.catalog.kept_attributes(id).map_err(Error::from_catalog)? {
            let value = self.catalog.kept_attribute(id, &name).map_err(Error::from_catalog)?;
            attributes.push((name, value.ok_or(Error::Stale)?));
        }
        Ok(Wanted {
            mode: shown.mode.into(),
            owner: mount,
            modified: time(shown.modified_ns),
            accessed: shown.accessed_ns.map(time),
            attributes,
            content,
        })
    }

    /// Makes sure that the original is what was copied, and that nobody has it open.
    fn is_still(&self, crossing: &Crossing, original: &Original) -> Result<(), Error> {
        self.is_as_planned(crossing)?;
        let id = crossing.from.id;
        if self.files.is_open(id) {
            return Err(Error::CrossSource);
        }
        let is_same = if let Some(local) = &original.folder {
            let now = found(local.hold(&self.path_of(id)?)).and_then(|held| done(held.metadata()))?;
            let before = original.found.object.as_ref().map(|object| &object.version);
            before == Some(&now.version) && now.links == 1
        } else {
            let same_bytes = match (&original.staged, &self.staged_now(id)) {
                (None, None) => true,
                (Some((file, before)), Some((staged, now))) => Arc::ptr_eq(file, staged) && before == now,
                _ => false,
            };
            same_bytes && self.attributes(id, None)? == original.attributes
        };
        if is_same { Ok(()) } else { Err(Error::CrossSource) }
    }

    /// Gives the copy its name, and has the catalog follow. What is noted before has the next start go on where this one ends.
    fn name_copy(
        &self,
        crossing: &Crossing,
        to: &LocalBackend,
        copy: &LocalFile,
        original: &Original,
    ) -> Result<(), Error> {
        let id = crossing.from.id;
        let place = self.place_in_folder(crossing)?;
        let (same_bytes, at_ns) = (self.is_known(id, original)?, self.writable()?.now_ns());
        let seen = done(copy.held().metadata())?;
        // What could not be told from other files would have to stay in both places after a crash.
        let identity = seen.identity.ok_or(Error::CrossSource)?;
        let noted = Noted {
            size: seen.size,
            modified_ns: seen.modified.map_or(0, |it| it.0),
            same_bytes,
            left: original.version().map(|version| Left {
                version,
                shows_through: false,
            }),
            ..noted(crossing, Mark::Identity(identity.0), at_ns)
        };
        self.catalog.begin_crossing(&noted).map_err(Error::from_catalog)?;
        let staged = original.staged.as_ref().map(|(file, _)| file);
        let named = || {
            let made = found(to.link(&copy.held(), &place))?;
            // The original is not taken away before its copy has a name for good.
            found(to.sync_directory(&place.directory))?;
            if let Some(file) = staged {
                file.forget();
            }
            self.follow_noted(id, &made.object)?;
            Ok(made)
        };
        let made = match named() {
            Ok(made) => made,
            Err(error) => {
                self.take_back_copy(&noted, to, &place);
                if !matches!(error, Error::Exists) || crossing.only_new {
                    return Err(error);
                }
                // Another has made it there, and it is not shown yet.
                self.look_into(crossing.to_directory);
                return Err(Error::CrossSource);
            }
        };
        if staged.is_some() {
            self.forget_staged(id)?;
        }
        self.follow_directory(crossing.to_directory, &made.directory);
        if original.folder.is_none() {
            self.names_changed(crossing.from.parent, at_ns)?;
        }
        Ok(())
    }

    /// Tells whether what was copied is the version that the catalog knows.
    fn is_known(&self, id: EntryId, original: &Original) -> Result<bool, Error> {
        let details = self.catalog.details(id).map_err(Error::from_catalog)?;
        let (known, there) = (details.map(|it| it.version), original.found.object.as_ref());
        let is_there = known.is_some_and(|known| there.is_some_and(|it| it.version == Version::from_stored(&known)));
        Ok(original.staged.is_none() && is_there)
    }
}
