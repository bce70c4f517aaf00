//! Renaming a symbolic link to another source that has links: it is read, made anew, compared, and the original is taken away.
//!
//! Always true: the original is to be taken away with the transaction that knows of the new link, in the version that was read.

use std::sync::Arc;

use manifold_backends::local::{Asker, AttributeChange, Held, LocalBackend, Making};
use manifold_backends::{Expected, Kind as ObjectKind, Metadata, ObjectPath, Presence};
use manifold_catalog::{Across, Crossing as Noted, Keep, Left, Mark, SeenAttributes};

use super::copy::time;
use super::resume::noted;
use super::{Crossing, Target};
use crate::Error;
use crate::change::Paths;
use crate::change::follow::seen_attributes;
use crate::change::local::{done, found};
use crate::error::Cause;
use crate::fetch::object::not_connected;
use crate::vfs::Core;

/// A link as its source has it.
struct Original {
    seen: Metadata,
    /// Where it points.
    to: Vec<u8>,
    /// `None`: at a remote source.
    folder: Option<LocalBackend>,
}

impl Core {
    /// Renames a link to a place at another remote source.
    pub(super) async fn cross_link(
        self: &Arc<Self>,
        crossing: Crossing,
        from: Option<LocalBackend>,
    ) -> Result<(), Error> {
        self.link_across(&Arc::new(crossing), from, None).await?;
        self.crossed().await
    }

    /// Makes a link anew, and has it take the place of its original. `to`: in a folder of this machine.
    pub(super) async fn link_across(
        self: &Arc<Self>,
        crossing: &Arc<Crossing>,
        from: Option<LocalBackend>,
        to: Option<LocalBackend>,
    ) -> Result<(), Error> {
        let (uploads, moves) = (Arc::clone(self.writable()?), Arc::clone(self.moves()?));
        if crossing.over.is_some() || to.is_none() && !self.target_of(crossing)?.able.makes_links {
            return Err(Error::CrossSource);
        }
        let reading = async {
            if to.is_none() {
                let target = self.target_of(crossing)?;
                self.until_free(target.place_in(crossing.to_directory)).await?;
            }
            self.until_left_at(crossing.to_directory, &crossing.to_raw_name).await?;
            let turn = self.turn_at(&uploads, &crossing.names()).await?;
            let names = self.lock_crossing(crossing).await?;
            let places = moves.keep_places().await;
            let guard = self.catalog.begin_change(&crossing.directories());
            let read = tokio::time::timeout(self.patience(), self.read_original(crossing, from)).await;
            let original = read.map_err(|_| Error::CrossSource)??;
            Ok(((turn, names), places, guard, original))
        };
        // The other half is for making it.
        let half = self.settings.data_deadline / 2;
        let read = tokio::time::timeout(half, reading).await;
        let (names, places, guard, original) = read.map_err(|_| late())??;
        let made = if to.is_none() {
            let made = tokio::time::timeout(half, self.make_at_source(crossing, &original)).await;
            Some(
                made.map_err(|_| late())
                    .flatten()
                    .inspect_err(|_| self.look_into(crossing.to_directory))?,
            )
        } else {
            None
        };
        let (core, planned) = (Arc::clone(self), Arc::clone(crossing));
        let there = made.as_ref().map(|(_, there)| there.clone());
        let settled = self.blocking(move || {
            let target_paths = if to.is_some() { Paths::Stay } else { Paths::Kept };
            let sources = [(planned.former.0, Paths::Change), (planned.to_source, target_paths)];
            let settled = core.with_paths_of_both(sources, || {
                core.is_link_still(&planned, &original)?;
                match (&to, there) {
                    (Some(to), _) => core.make_in_folder(&planned, to, &original),
                    (None, there) => core.follow_link(&planned, &original, &there.ok_or(Error::Stale)?),
                }
            });
            drop(guard);
            settled
        });
        let settled = settled.await;
        drop((names, places));
        if let (Err(_), Some((target, made))) = (&settled, made) {
            self.take_back_link(target, made);
        }
        settled
    }

    /// Removes a link that has been made and is not the original's.
    fn take_back_link(self: &Arc<Self>, target: Target, made: Metadata) {
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let expected = Expected::Version(made.version);
            let removed = core
                .ask(&target, target.backend.remove_file(&target.path, &expected))
                .await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a link that could not be moved stays in both places");
            }
        });
    }

    /// Reads a link where it is.
    async fn read_original(&self, crossing: &Crossing, folder: Option<LocalBackend>) -> Result<Original, Error> {
        let place = self
            .catalog
            .object_path(crossing.from.id)
            .map_err(Error::from_catalog)?;
        let (source, path) = place.ok_or(Error::Stale)?;
        let path = ObjectPath::from_bytes(path);
        if folder.is_none() {
            // Else it could not be taken away.
            self.remote_target(source, path.as_bytes().to_vec())?;
        }
        let backend = self.indexer.backend(source);
        let backend = backend.ok_or_else(|| not_connected(&self.indexer, source))?;
        let deadline = self.settings.data_deadline;
        let looked = self.indexer.ask(source, &path, deadline, backend.stat(&path)).await;
        let seen = match looked.map_err(Error::from_index)? {
            Presence::Found(seen) if seen.kind == ObjectKind::Symlink => seen,
            Presence::Found(_) => {
                self.look_into(crossing.from.parent);
                return Err(Error::CrossSource);
            }
            Presence::Absent => {
                self.look_into(crossing.from.parent);
                return Err(Error::NotFound);
            }
        };
        let read = self
            .indexer
            .ask(source, &path, deadline, backend.read_link(&path))
            .await;
        match read.map_err(Error::from_index)? {
            Presence::Found(to) => Ok(Original { seen, to, folder }),
            Presence::Absent => Err(Error::Stale),
        }
    }

    /// Makes the link at a remote source, and makes sure that it points where it did.
    async fn make_at_source(&self, crossing: &Crossing, original: &Original) -> Result<(Target, Metadata), Error> {
        let target = self.target_of(crossing)?;
        let made = self
            .ask(&target, target.backend.make_link(&target.path, &original.to))
            .await;
        let made = made.map_err(|error| match error {
            Error::Exists if !crossing.only_new => Error::CrossSource,
            error => error,
        })?;
        let there = self.ask(&target, target.backend.read_link(&target.path)).await?;
        if there != Presence::Found(original.to.clone()) {
            return Err(Error::Io(Cause::new("the link points elsewhere than it was made to")));
        }
        Ok((target, made))
    }

    /// Makes the link in a folder of this machine, and has the catalog follow. What is noted before has the next start go on where
    /// this one ends.
    fn make_in_folder(&self, crossing: &Crossing, to: &LocalBackend, original: &Original) -> Result<(), Error> {
        let (id, place) = (crossing.from.id, self.place_in_folder(crossing)?);
        let mount = *self.owner.read();
        // No server decides who somebody is on this machine.
        let owner = original
            .seen
            .owner
            .filter(|_| original.folder.is_some())
            .unwrap_or(mount);
        let asker = Asker {
            uid: owner.0,
            gid: owner.1,
            umask: 0,
        };
        let in_the_way = |error| match error {
            Error::Exists if !crossing.only_new => {
                self.look_into(crossing.to_directory);
                Error::CrossSource
            }
            error => error,
        };
        // What is noted is that nothing has the name.
        if let Presence::Found(_) = done(to.hold(&place.path()))? {
            return Err(in_the_way(Error::Exists));
        }
        let at_ns = self.writable()?.now_ns();
        let noted = Noted {
            size: original.to.len() as u64,
            modified_ns: original.seen.modified.map_or(at_ns, |it| it.0),
            left: Some(left(original)),
            ..noted(crossing, Mark::Target(original.to.as_slice().into()), at_ns)
        };
        self.catalog.begin_crossing(&noted).map_err(Error::from_catalog)?;
        let made = match found(to.make(&place, &Making::Symlink(original.to.clone()), 0o777, asker)) {
            Ok(made) => made,
            // What has the name is another's.
            Err(Error::Exists) => {
                self.end_noted(id);
                return Err(in_the_way(Error::Exists));
            }
            Err(error) => {
                self.take_back_copy(&noted, to, &place);
                return Err(error);
            }
        };
        let named = || {
            let held = found(to.hold(&place.path()))?;
            let now = finish_link(&held, &noted)?;
            if now.owner != Some(owner) {
                return Err(Error::CrossSource);
            }
            // The original is not taken away before its copy has a name for good.
            found(to.sync_directory(&place.directory))?;
            self.follow_noted(id, &now)
        };
        if let Err(error) = named() {
            self.take_back_copy(&noted, to, &place);
            return Err(error);
        }
        self.follow_directory(crossing.to_directory, &made.directory);
        if original.folder.is_none() {
            self.names_changed(crossing.from.parent, at_ns)?;
        }
        Ok(())
    }

    /// Makes sure that the original is what was read. To be called while no name changes.
    fn is_link_still(&self, crossing: &Crossing, original: &Original) -> Result<(), Error> {
        self.is_as_planned(crossing)?;
        let Some(local) = &original.folder else {
            // It is removed in that version alone.
            return Ok(());
        };
        let now = found(local.hold(&self.path_of(crossing.from.id)?)).and_then(|held| done(held.metadata()))?;
        if now.version == original.seen.version && now.links == 1 {
            Ok(())
        } else {
            Err(Error::CrossSource)
        }
    }

    /// Has the catalog follow a link to where it was made at a remote source.
    fn follow_link(&self, crossing: &Crossing, original: &Original, made: &Metadata) -> Result<(), Error> {
        let id = crossing.from.id;
        let keeps = self.keeps_attributes(crossing.to_source);
        let modified_ns = original.seen.modified.map(|it| it.0).filter(|_| keeps);
        let at_ns = self.writable()?.now_ns();
        let seen = seen_attributes(made);
        let across = Across {
            from: (crossing.from.parent, &crossing.from.name),
            to: (crossing.to_directory, &crossing.to_name),
            raw_name: crossing.raw_name(),
            seen: SeenAttributes {
                links: seen.links.max(1),
                mode: 0o777,
                ..seen
            },
            same_bytes: false,
            keeps,
            keep: Keep {
                modified_ns,
                ..Keep::default()
            },
            attributes: Vec::new(),
            left: Some(left(original)),
            staged: None,
            staged_bytes: None,
            at_ns,
        };
        self.follow(|catalog| Ok(((), catalog.follow_across(&across)?)))?;
        self.note_link(id, made.version.as_bytes(), &original.to)?;
        self.names_changed(crossing.from.parent, at_ns)?;
        self.names_changed(crossing.to_directory, at_ns)
    }
}

/// Says what is to be taken away.
fn left(original: &Original) -> Left {
    Left {
        version: original.seen.version.as_bytes().into(),
        shows_through: false,
    }
}

/// Gives a link that was made the time that it is to have, and says how it is then.
pub(super) fn finish_link(link: &Held, noted: &Noted) -> Result<Metadata, Error> {
    let times = AttributeChange {
        modified: Some(time(noted.modified_ns)),
        ..AttributeChange::default()
    };
    done(link.set(&times, true))
}

fn late() -> Error {
    Error::TimedOut(Cause::new("a link was not moved in time"))
}
