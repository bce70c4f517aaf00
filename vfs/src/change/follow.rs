//! The catalog follows what was done on a disk of this machine.

use std::time::Instant;

use manifold_backends::local::Held;
use manifold_backends::{Kind as SeenKind, Metadata};
use manifold_catalog::{Catalog, Change, Entry, EntryId, Kind, NewChild, SeenAttributes, SourceId};

use super::Site;
use crate::Error;
use crate::attributes::Attributes;
use crate::events::Event;
use crate::handle::Parted;
use crate::vfs::Core;

type Catalogued<T> = manifold_catalog::Result<T>;
/// How an entry has lost its last name through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was removed.
    Removed,
    /// Another has taken its place.
    Replaced,
}

/// An entry that has lost its last name through the mount.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// What it was like then.
    pub(crate) attributes: Attributes,
    pub(crate) loss: Loss,
}

/// A name, with what the source calls it where that differs.
type NextName = (Entry, Option<Box<[u8]>>);

impl Core {
    /// Has the catalog follow; the kernel is not told of what comes of it.
    pub(crate) fn follow<T>(&self, follow: impl FnOnce(&Catalog) -> Catalogued<(T, Vec<Change>)>) -> Result<T, Error> {
        let mut following = self.own.follow();
        let (value, changes) = follow(&self.catalog).map_err(Error::from_catalog)?;
        following.note(changes);
        Ok(value)
    }

    /// Has the kernel look anew under a name that something was renamed to, if it may have taken the name before for that of another
    /// file: then it shows that one there.
    pub(super) fn tell_of_new_name(&self, name: &[u8], parent: EntryId, new_name: Box<[u8]>) {
        if self.uploads.get().is_some_and(|uploads| uploads.has_made_way(name)) {
            self.publisher.publish(&[Event::Entry { parent, name: new_name }]);
        }
    }

    /// Follows something that was made, or has a further name. Gives its id.
    pub(super) fn follow_made(
        &self,
        site: &Site,
        name: &[u8],
        raw_name: &[u8],
        object: &Metadata,
        directory: &Metadata,
    ) -> Result<EntryId, Error> {
        let child = NewChild {
            name: name.into(),
            raw_name: (raw_name != name).then(|| raw_name.into()),
            seen: seen_attributes(object),
            adopt: None,
        };
        // Nobody can have put anything into a directory that is as old as this moment.
        let listed_ns = object.changed.map(|it| it.0);
        let id = self.follow(|catalog| catalog.follow_created(site.directory, child, listed_ns))?;
        self.follow_directory(site.directory, directory);
        Ok(id)
    }

    /// Gives the number under which an entry is shown that looks like this.
    pub(super) fn shown(&self, id: EntryId, seen: &Metadata) -> Result<EntryId, Error> {
        if seen.links < 2 || seen.kind == SeenKind::Directory {
            return Ok(id);
        }
        self.catalog.first_name(id).map_err(Error::from_catalog)
    }

    /// Follows what a change of its names did to a directory itself.
    pub(super) fn follow_directory(&self, id: EntryId, seen: &Metadata) {
        let followed = self.follow(|catalog| Ok(((), catalog.follow_attributes(id, seen_attributes(seen))?)));
        if let Err(error) = followed {
            // It went meanwhile, or its attributes are not kept; the next listing tells.
            tracing::debug!(id = id.0, %error, "the attributes of a directory were not followed");
        }
    }

    /// Follows a change of an entry's attributes or bytes, also under its other names.
    pub(super) fn follow_attributes(&self, id: EntryId, source: SourceId, seen: &Metadata) -> Result<(), Error> {
        self.follow(|catalog| Ok(((), catalog.follow_attributes(id, seen_attributes(seen))?)))?;
        if seen.links > 1 && seen.kind != SeenKind::Directory {
            self.follow_other_names(Some(id), source, seen);
        }
        Ok(())
    }

    /// Follows a change of an object under all its names but one: those are entries of their own. The kernel knows them all
    /// by the number of the first, and has asked for the change.
    pub(super) fn follow_other_names(&self, but: Option<EntryId>, source: SourceId, seen: &Metadata) {
        let Some(identity) = seen.identity else { return };
        let mut following = self.own.follow();
        let mut follow = || -> Catalogued<()> {
            for id in self.catalog.with_identity(source, identity.0)? {
                if Some(id) != but {
                    following.note(self.catalog.follow_attributes(id, seen_attributes(seen))?);
                }
            }
            Ok(())
        };
        if let Err(error) = follow() {
            tracing::debug!(%error, "another name of a changed file was not followed");
        }
    }

    /// Follows that a name was taken away: by a removal, or by giving it to something else. `before` is what had it.
    ///
    /// Names of one object are shown under the number of the first of them, which the kernel knows it by. So where that one
    /// goes, the next takes over its entry.
    pub(super) fn lost_name(
        &self,
        entry: &Entry,
        before: &Metadata,
        held: Option<&Held>,
        at_ns: i64,
        loss: Loss,
    ) -> Result<(), Error> {
        // Before its row goes, so that whoever opens it finds the one or the other.
        let opening = self.files.begin(entry.id);
        let now = held
            .filter(|held| !held.may_hang())
            .and_then(|held| held.metadata().ok());
        let seen = now.unwrap_or_else(|| Metadata {
            links: before.links.saturating_sub(1),
            ..before.clone()
        });
        let seen = match seen.kind {
            SeenKind::Directory => Metadata { links: 0, ..seen },
            _ => seen,
        };
        let place = (entry.parent, &*entry.name);
        let next = if seen.links > 0 {
            self.next_name(entry, before)?
        } else {
            None
        };
        if let Some((next, raw)) = next {
            let (to, seen) = ((next.parent, &*next.name), Some(seen_attributes(&seen)));
            self.follow(|catalog| Ok(((), catalog.follow_moved(place, to, raw, seen, at_ns)?)))?;
        } else {
            let attributes = Attributes::of_disk(entry.id, &seen, None);
            let parted = held.map(|held| Parted::Local(entry.source, held.clone()));
            self.files.lost_name(entry.id, parted, &attributes);
            self.gone.insert(entry.id, Gone { attributes, loss });
            self.follow(|catalog| Ok(((), catalog.follow_removed(place.0, place.1, at_ns)?)))?;
            if loss == Loss::Replaced && held.is_some_and(|held| !held.may_hang()) {
                self.files.keep_replaced(opening, Instant::now());
            }
        }
        if seen.links > 0 {
            self.follow_other_names(None, entry.source, &seen);
        }
        Ok(())
    }

    /// Finds the name that takes over the entry of an object's first name, with its raw name where that differs.
    fn next_name(&self, entry: &Entry, seen: &Metadata) -> Result<Option<NextName>, Error> {
        let Some(identity) = seen.identity else { return Ok(None) };
        let names = self
            .catalog
            .with_identity(entry.source, identity.0)
            .map_err(Error::from_catalog)?;
        let [first, next, ..] = names[..] else { return Ok(None) };
        if first != entry.id {
            return Ok(None);
        }
        let next = self.entry_of(next)?;
        let details = self.catalog.details(next.id).map_err(Error::from_catalog)?;
        let raw = details.map(|it| it.raw_name).filter(|raw| *raw != next.name);
        Ok(Some((next, raw)))
    }
}

/// Turns what a disk says of an object into what the catalog keeps.
pub(crate) fn seen_attributes(seen: &Metadata) -> SeenAttributes {
    SeenAttributes {
        kind: kind_of(seen.kind),
        size: seen.size,
        modified_ns: seen.modified.map_or(0, |it| it.0),
        changed_ns: seen.changed.map_or(0, |it| it.0),
        created_ns: seen.created.map(|it| it.0),
        mode: seen.mode.map_or(0, |it| (it & 0o7777) as u16),
        owner: seen.owner,
        links: seen.links,
        device: seen.device,
        version: seen.version.as_bytes().into(),
        identity: seen.identity.map(|it| it.0),
    }
}

/// Turns a source's word for what a thing is into the catalog's.
pub(crate) fn kind_of(kind: SeenKind) -> Kind {
    match kind {
        SeenKind::Directory => Kind::Directory,
        SeenKind::File => Kind::File,
        SeenKind::Symlink => Kind::Symlink,
        SeenKind::Fifo => Kind::Fifo,
        SeenKind::Socket => Kind::Socket,
        SeenKind::CharDevice => Kind::CharDevice,
        SeenKind::BlockDevice => Kind::BlockDevice,
    }
}
