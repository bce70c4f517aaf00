//! Renames to folders of this machine, as they stand when a copy has its name and the catalog does not know it yet: noted before,
//! followed after, and gone on with where the daemon ended in between.
//!
//! Always true:
//! - a copy that was found is never removed, but in the request that has made it: its original may be gone;
//! - an original is due only with the copy there as it was made;
//! - what cannot be looked at now stays noted.

use std::sync::Arc;

use futures::FutureExt;
use manifold_backends::local::{Held, LocalBackend, Place};
use manifold_backends::{Kind as ObjectKind, Metadata, Presence};
use manifold_catalog::{Crossing as Noted, EntryId, Mark, SourceId};

use super::Crossing;
use super::link::finish_link;
use crate::Error;
use crate::change::Paths;
use crate::change::follow::seen_attributes;
use crate::change::local::{done, found};
use crate::vfs::{Core, Vfs};

/// What is found where a copy was to have its name.
enum There {
    /// The copy, as it was made.
    Copy(Held, Metadata),
    /// Nothing, or something else: another has changed it, or it never got there.
    NoCopy,
    /// Its directory is not there now.
    NoDirectory,
}

impl Vfs {
    /// Goes on with the renames to folders of this machine that a daemon has left when a copy may have had its name already.
    /// `folder` gives such a folder. To be called before [`accept_writes`](Self::accept_writes). Where a folder is not there now,
    /// that is done before it is listed.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn resume_renames(&self, folder: impl Fn(SourceId) -> Option<LocalBackend>) -> Result<(), Error> {
        self.core.resume_renames(|_| true, folder)
    }

    /// Goes on with such renames from or to a source that is about to leave the library. `folder` gives such a folder. Where one is not
    /// there now, nobody will find out what became of the rename: it is forgotten, and if the copy has its name, both stay. Gives the
    /// number of those that are under way at this moment.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn settle_renames_of(
        &self,
        source: SourceId,
        folder: impl Fn(SourceId) -> Option<LocalBackend>,
    ) -> Result<u64, Error> {
        self.core.settle_renames_of(source, folder)
    }
}

impl Core {
    /// Has renames to a directory gone on with before it is listed.
    pub(crate) fn resume_before_listings(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        self.indexer.set_before_listing(Arc::new(move |directory| {
            let Some(core) = core.upgrade() else { return };
            let folder = |source| core.indexer.backend(source)?.as_local().cloned();
            if let Err(error) = core.resume_renames(|noted| noted.to.0 == directory, folder) {
                tracing::warn!(%error, "a rename that was broken off is gone on with later");
            }
        }));
    }

    fn resume_renames(
        &self,
        is_meant: impl Fn(&Noted) -> bool,
        folder: impl Fn(SourceId) -> Option<LocalBackend>,
    ) -> Result<(), Error> {
        let noted = self.catalog.crossings().map_err(Error::from_catalog)?;
        for noted in noted.iter().filter(|noted| is_meant(noted)) {
            let source = |id| self.catalog.entry(id).map(|entry| entry.map(|entry| entry.source));
            let from = source(noted.from.0).map_err(Error::from_catalog)?;
            let to = source(noted.to.0).map_err(Error::from_catalog)?;
            match (from, to) {
                (Some(from), Some(to)) if from != to => {
                    if let Some(folder) = folder(to) {
                        self.resume(noted, from, to, &folder)?;
                    }
                }
                (Some(_), Some(_)) => self.end_noted(noted.id),
                // One of the directories is not in the tree now, and may be back.
                _ => {}
            }
        }
        Ok(())
    }

    fn settle_renames_of(
        &self,
        source: SourceId,
        folder: impl Fn(SourceId) -> Option<LocalBackend>,
    ) -> Result<u64, Error> {
        let source_of = |directory| -> Result<Option<SourceId>, Error> {
            let entry = self.catalog.entry(directory).map_err(Error::from_catalog)?;
            Ok(entry.map(|entry| entry.source))
        };
        let concerns = |noted: &Noted| {
            let whose = [noted.from.0, noted.to.0].map(source_of);
            // Of what cannot be found out, it is found out below.
            whose
                .iter()
                .any(|whose| matches!(whose, Ok(Some(whose)) if *whose == source))
        };
        self.resume_renames(concerns, &folder)?;
        let mut under_way = 0;
        for noted in self.catalog.crossings().map_err(Error::from_catalog)? {
            let (from, to) = (source_of(noted.from.0)?, source_of(noted.to.0)?);
            if from != Some(source) && to != Some(source) {
                continue;
            }
            let folder = to.and_then(&folder);
            if self.is_folder_there(&noted, folder.as_ref()) {
                under_way += 1;
            } else {
                tracing::warn!(
                    id = noted.id.0,
                    "a rename to a folder that is not there now was broken off, and is not gone on with: its source leaves the library; the \
                     file may be in both places"
                );
                self.end_noted(noted.id);
            }
        }
        Ok(under_way)
    }

    /// Tells whether a folder is there, and can be looked into, in which a copy was to have its name.
    fn is_folder_there(&self, noted: &Noted, folder: Option<&LocalBackend>) -> bool {
        let (Some(folder), Ok(directory)) = (folder, self.path_of(noted.to.0)) else {
            return false;
        };
        let raw_name = noted.raw_name.as_ref().unwrap_or(&noted.to.1);
        let name = raw_name.to_vec();
        let place = Place { directory, name };
        matches!(
            self.find_copy(noted, folder, &place),
            Ok(There::Copy(..) | There::NoCopy)
        )
    }

    fn resume(&self, noted: &Noted, from: SourceId, to: SourceId, folder: &LocalBackend) -> Result<(), Error> {
        let Ok(directory) = self.path_of(noted.to.0) else {
            self.end_noted(noted.id);
            return Ok(());
        };
        if folder.may_hang(&directory) {
            return Ok(());
        }
        // Whoever is renaming or uploading it now comes first; it is looked at again with the next listing.
        let name = match self.moves.get().map(|moves| moves.lock_name(noted.id).now_or_never()) {
            Some(None) => return Ok(()),
            locked => locked.flatten(),
        };
        let hold = match self.uploads.get().map(|uploads| uploads.hold(noted.id).now_or_never()) {
            Some(None) => return Ok(()),
            held => held.flatten(),
        };
        let place = Place {
            directory,
            name: noted.raw_name.as_ref().unwrap_or(&noted.to.1).to_vec(),
        };
        let resumed = self.with_paths_of_both([(from, Paths::Change), (to, Paths::Stay)], || {
            self.resume_alone(noted, folder, &place)
        });
        drop((name, hold));
        resumed
    }

    /// Goes on with a rename while no name changes.
    fn resume_alone(&self, noted: &Noted, folder: &LocalBackend, place: &Place) -> Result<(), Error> {
        let shown = self
            .catalog
            .lookup(noted.to.0, &noted.to.1)
            .map_err(Error::from_catalog)?;
        let mut ids = [Some(noted.id), shown.map(|shown| shown.id)].into_iter().flatten();
        if ids.any(|id| self.files.is_open(id)) {
            return Ok(());
        }
        let seen = match self.find_copy(noted, folder, place) {
            Ok(There::Copy(held, seen)) => {
                let finished = match noted.mark {
                    Mark::Identity(_) => Ok(seen),
                    Mark::Target(_) => finish_link(&held, noted),
                };
                // What a crash has left of it may not be on the disk yet.
                finished.and_then(|seen| found(folder.sync_directory(&place.directory)).map(|()| seen))
            }
            Ok(There::NoCopy) => {
                self.end_noted(noted.id);
                return Ok(());
            }
            Ok(There::NoDirectory) => return Ok(()),
            Err(error) => Err(error),
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(id = noted.id.0, %error, "a rename that was broken off is gone on with later");
                return Ok(());
            }
        };
        let (is_followed, _) = self
            .catalog
            .follow_crossing(noted.id, &seen_attributes(&seen))
            .map_err(Error::from_catalog)?;
        if !is_followed {
            return Ok(());
        }
        tracing::info!(
            id = noted.id.0,
            "a rename to a folder of this machine that was broken off is complete"
        );
        if self.uploads.get().is_some() {
            self.forget_staged(noted.id)?;
            self.moves()?.is_due();
        }
        Ok(())
    }

    /// Looks for a copy where it was to have its name.
    fn find_copy(&self, noted: &Noted, folder: &LocalBackend, place: &Place) -> Result<There, Error> {
        let Presence::Found(directory) = done(folder.hold(&place.directory))? else {
            return Ok(There::NoDirectory);
        };
        // The mount point of a disk that is not there is not the directory that was known.
        let known = self.catalog.details(noted.to.0).map_err(Error::from_catalog)?;
        let known = known.and_then(|known| known.identity);
        let identity = done(directory.metadata())?.identity.map(|it| it.0);
        if known.is_some() && identity != known {
            return Ok(There::NoDirectory);
        }
        let Presence::Found(held) = done(folder.hold(&place.path()))? else {
            return Ok(There::NoCopy);
        };
        let seen = done(held.metadata())?;
        let is_copy = match &noted.mark {
            Mark::Identity(identity) => {
                let modified_ns = seen.modified.map(|it| it.0);
                seen.kind == ObjectKind::File
                    && seen.identity.is_some_and(|it| it.0 == *identity)
                    && (seen.size, modified_ns) == (noted.size, Some(noted.modified_ns))
            }
            Mark::Target(target) => seen.kind == ObjectKind::Symlink && *done(held.target())? == **target,
        };
        Ok(if is_copy && seen.links == 1 {
            There::Copy(held, seen)
        } else {
            There::NoCopy
        })
    }

    /// Has the catalog follow a copy that has its name.
    pub(super) fn follow_noted(&self, id: EntryId, made: &Metadata) -> Result<(), Error> {
        let seen = seen_attributes(made);
        let is_followed = self.follow(|catalog| catalog.follow_crossing(id, &seen))?;
        is_followed.then_some(()).ok_or(Error::Stale)
    }

    /// Forgets what was noted of a copy that has no name.
    pub(super) fn end_noted(&self, id: EntryId) {
        if let Err(error) = self.catalog.end_crossing(id) {
            // With the next start it is seen that nothing is there.
            tracing::debug!(id = id.0, %error, "what was noted of a rename stays");
        }
    }

    /// Takes the name of a copy away that could not be followed, if it has got one. Where that fails, it is gone on with as after a
    /// crash.
    pub(super) fn take_back_copy(&self, noted: &Noted, folder: &LocalBackend, place: &Place) {
        let taken_back = self.find_copy(noted, folder, place).and_then(|there| match there {
            There::Copy(..) => done(folder.remove(place, false, false)).map(|_| true),
            There::NoCopy => Ok(true),
            There::NoDirectory => Ok(false),
        });
        match taken_back {
            Ok(true) => self.end_noted(noted.id),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a copy of what could not be moved stays beside it for now"),
        }
    }
}

/// Says what is noted of a crossing, but for what the copy is like and what it leaves.
pub(super) fn noted(crossing: &Crossing, mark: Mark, at_ns: i64) -> Noted {
    Noted {
        id: crossing.from.id,
        from: (crossing.from.parent, crossing.from.name.clone()),
        to: (crossing.to_directory, crossing.to_name.clone()),
        raw_name: crossing.raw_name(),
        size: 0,
        modified_ns: 0,
        mark,
        same_bytes: false,
        left: None,
        at_ns,
    }
}
