//! Names on disks of this machine: made, linked, removed, renamed.

use std::sync::Arc;

use manifold_backends::Operation;
use manifold_backends::local::{LocalBackend, Making, Place, RenameMode};
use manifold_catalog::{Entry, EntryId, Kind, SourceId};

use super::found;
use crate::attributes::Attributes;
use crate::change::follow::{Loss, seen_attributes};
use crate::change::{Created, Creation, Requester, Site};
use crate::vfs::Core;
use crate::{Answer, Error};

type Name = Box<[u8]>;

impl Core {
    pub(in crate::change) fn local_make(
        self: &Arc<Self>,
        local: &LocalBackend,
        site: Site,
        name: Name,
        making: Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        let place = match self.place_for(&site, &name) {
            Ok(place) => place,
            Err(error) => return Answer::err(error),
        };
        let (source, path) = (site.source, site.path.clone());
        self.at_disk(local, source, &path, Operation::Create, move |core, local| {
            let _change = core.catalog.begin_change(&[site.directory, site.parent]);
            let new = found(local.make(&place, &making, mode, by.asker()))?;
            let id = core.follow_made(&site, &name, &place.name, &new.object, &new.directory)?;
            Ok(Attributes::of_disk(id, &new.object, None))
        })
    }

    pub(in crate::change) fn local_create(
        self: &Arc<Self>,
        local: &LocalBackend,
        site: Site,
        name: Name,
        creation: Creation,
        by: Requester,
    ) -> Answer<Created> {
        let place = match self.place_for(&site, &name) {
            Ok(place) => place,
            Err(error) => return Answer::err(error),
        };
        let (source, path) = (site.source, site.path.clone());
        let made = self.at_disk(local, source, &path, Operation::Create, move |core, local| {
            let _change = core.catalog.begin_change(&[site.directory, site.parent]);
            let Creation {
                mode,
                access,
                exclusive,
            } = creation;
            let created = local.create_file(&place, mode, access.of_file(), exclusive, by.asker());
            let (file, made, is_new) = found(created)?;
            let id = core.follow_made(&site, &name, &place.name, &made.object, &made.directory)?;
            Ok((core.shown(id, &made.object)?, file, made.object, is_new))
        });
        let core = Arc::clone(self);
        // Not before somebody takes it: a handle that nobody knows would never be closed.
        made.map(move |(id, file, object, is_new)| {
            let opened = core.open_as_made(id, source, file, &object, is_new);
            let attributes = Attributes {
                volatile: opened.writes,
                ..Attributes::of_disk(id, &object, None)
            };
            Created {
                attributes,
                opened,
                is_new,
            }
        })
    }

    pub(in crate::change) fn local_link(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        site: Site,
        name: Name,
    ) -> Answer<Attributes> {
        let place = match self.place_for(&site, &name) {
            Ok(place) => place,
            Err(error) => return Answer::err(error),
        };
        let (source, path) = (site.source, site.path.clone());
        self.at_disk(local, source, &path, Operation::Link, move |core, local| {
            let held = core.hold(local, id)?;
            let _change = core.catalog.begin_change(&core.directories_of(id, &site));
            let made = found(local.link(&held, &place))?;
            let new = core.follow_made(&site, &name, &place.name, &made.object, &made.directory)?;
            core.follow_other_names(Some(new), site.source, &made.object);
            let shown = core.shown(new, &made.object)?;
            Ok(Attributes {
                volatile: core.files.open_here(shown).is_some(),
                ..Attributes::of_disk(shown, &made.object, None)
            })
        })
    }

    pub(in crate::change) fn local_remove(
        self: &Arc<Self>,
        local: &LocalBackend,
        site: &Site,
        name: &Name,
        is_directory: bool,
    ) -> Answer<()> {
        let (entry, place) = match self.place_of(site, name) {
            Ok(found) => found,
            Err(error) => return Answer::err(error),
        };
        let operation = if is_directory {
            Operation::RemoveDirectory
        } else {
            Operation::RemoveFile
        };
        let (source, path, name) = (site.source, site.path.clone(), name.clone());
        let (directory, parent) = (site.directory, site.parent);
        self.at_disk(local, source, &path, operation, move |core, local| {
            let _change = core.catalog.begin_change(&[directory, parent]);
            let hold = entry.as_ref().is_some_and(|entry| core.files.is_open(entry.id));
            let removed = found(local.remove(&place, is_directory, hold))?;
            let at_ns = removed.directory.changed.map_or(0, |it| it.0);
            match entry {
                Some(entry) => {
                    core.lost_name(&entry, &removed.object, removed.held.as_ref(), at_ns, Loss::Removed)?;
                }
                None => core.follow(|catalog| Ok(((), catalog.follow_removed(directory, &name, at_ns)?)))?,
            }
            core.follow_directory(directory, &removed.directory);
            Ok(())
        })
    }

    pub(in crate::change) fn local_rename(
        self: &Arc<Self>,
        local: &LocalBackend,
        (from, name): (Site, Name),
        (to, new_name): (Site, Name),
        mode: RenameMode,
    ) -> Answer<()> {
        let places = || {
            let (entry, place) = self.place_of(&from, &name)?;
            let (target, target_place) = match self.place_of(&to, &new_name)? {
                (None, _) => (None, self.place_for(&to, &new_name)?),
                found => found,
            };
            Ok((entry, place, target, target_place))
        };
        let (entry, place, target, target_place) = match places() {
            Ok(found) => found,
            Err(error) => return Answer::err(error),
        };
        // Whichever of the two may hang decides.
        let (source, path) = (
            from.source,
            if local.may_hang(&to.path) { &to.path } else { &from.path }.clone(),
        );
        self.at_disk(local, source, &path, Operation::Rename, move |core, local| {
            let _change = core
                .catalog
                .begin_change(&[from.directory, from.parent, to.directory, to.parent]);
            // For those who have it open, and for those who have just looked it up.
            let hold = target.as_ref().is_some_and(|target| {
                core.files.is_open(target.id) || target.kind == Kind::File && !local.may_hang(&to.path)
            });
            let renamed = found(local.rename_local(&place, &target_place, mode, hold))?;
            if renamed.nothing {
                return Ok(());
            }
            let at_ns = renamed.to.changed.map_or(0, |it| it.0);
            let (here, there) = ((from.directory, &*name), (to.directory, &*new_name));
            if mode == RenameMode::Exchange {
                core.follow(|catalog| Ok(((), catalog.follow_exchanged(here, there)?)))?;
                for (moved, path) in [(&entry, target_place.path()), (&target, place.path())] {
                    core.follow_moved_itself(local, moved.as_ref(), &path);
                }
            } else {
                let raw = (target_place.name != *new_name).then(|| target_place.name.as_slice().into());
                let seen = Some(seen_attributes(&renamed.object));
                if let (Some(target), Some(before)) = (&target, &renamed.replaced) {
                    core.lost_name(target, before, renamed.held.as_ref(), at_ns, Loss::Replaced)?;
                }
                core.follow(|catalog| Ok(((), catalog.follow_moved(here, there, raw, seen, at_ns)?)))?;
            }
            core.follow_directory(from.directory, &renamed.from);
            if from.directory != to.directory {
                core.follow_directory(to.directory, &renamed.to);
            }
            Ok(())
        })
    }

    /// Follows what an exchange did to one of the two itself: the time at which it changed.
    fn follow_moved_itself(&self, local: &LocalBackend, moved: Option<&Entry>, path: &manifold_backends::ObjectPath) {
        let Some(entry) = moved else { return };
        let seen = found(local.hold(path)).and_then(|held| super::done(held.metadata()));
        let followed = seen.and_then(|seen| self.follow_attributes(entry.id, entry.source, &seen));
        if let Err(error) = followed {
            tracing::debug!(id = entry.id.0, %error, "the attributes of an exchanged entry were not followed");
        }
    }

    /// Says where a new name is to be made.
    fn place_for(&self, site: &Site, name: &[u8]) -> Result<Place, Error> {
        let entry = self.catalog.lookup(site.directory, name).map_err(Error::from_catalog)?;
        if entry.is_some_and(|entry| entry.attach_point || entry.source == SourceId::LIBRARY) {
            return Err(Error::Exists);
        }
        Ok(Place {
            directory: site.path.clone(),
            name: Site::raw_name(name)?,
        })
    }

    /// Says where a name stands, and what the catalog knows of it. Neither a source's root nor what leads to one may go.
    fn place_of(&self, site: &Site, name: &[u8]) -> Result<(Option<Entry>, Place), Error> {
        let entry = self.catalog.lookup(site.directory, name).map_err(Error::from_catalog)?;
        let raw = match &entry {
            None => {
                let raw = Site::raw_name(name)?;
                // What lies there is what a file that stands elsewhere by now is made of.
                if self
                    .catalog
                    .is_left_at(site.directory, &raw)
                    .map_err(Error::from_catalog)?
                {
                    return Err(Error::NotFound);
                }
                raw
            }
            Some(entry) => {
                if entry.attach_point || entry.source == SourceId::LIBRARY || self.leads_to_source(entry)? {
                    return Err(Error::Busy);
                }
                let details = self.catalog.details(entry.id).map_err(Error::from_catalog)?;
                details.ok_or(Error::Stale)?.raw_name.into()
            }
        };
        let place = Place {
            directory: site.path.clone(),
            name: raw,
        };
        Ok((entry, place))
    }

    /// Tells whether a source is attached somewhere beneath an entry.
    fn leads_to_source(&self, entry: &Entry) -> Result<bool, Error> {
        if entry.kind != Kind::Directory {
            return Ok(false);
        }
        let sources = self.catalog.sources().map_err(Error::from_catalog)?;
        if sources.len() < 2 {
            return Ok(false);
        }
        let Some(path) = self.catalog.tree_path(entry.id).map_err(Error::from_catalog)? else {
            return Ok(false);
        };
        Ok(sources.iter().any(|source| {
            let rest = source.attach.strip_prefix(&path[..]);
            rest.is_some_and(|rest| rest.first() == Some(&b'/'))
        }))
    }

    /// Names the directories in which a further name of an entry changes something.
    fn directories_of(&self, id: EntryId, site: &Site) -> Vec<EntryId> {
        let parent = self.entry_of(id).map(|entry| entry.parent);
        parent.into_iter().chain([site.directory, site.parent]).collect()
    }
}
