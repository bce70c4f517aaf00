//! One file on its way: copied at its source, noted in the catalog, and taken away where it was.

use std::sync::Arc;

use manifold_backends::{ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::{Copied, Details, Entry, EntryId};
use manifold_index::{IndexError, names, seen_attributes};

use super::job::{fault, of_index};
use super::{Fault, Ground, Moves};
use crate::Error;
use crate::attributes::Attributes;
use crate::fetch::Object;
use crate::places::is_occupied_by_ours;
use crate::upload::Conflict;
use crate::upload::copies::Seen;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// It was where it is to be.
    There,
    /// It is there now.
    Moved,
    /// It does not stand in the tree any more.
    Gone,
    /// It is being written, or something of ours is still in its place.
    Waits,
}

/// A file that is to be brought, and from where to where.
struct Load {
    entry: Entry,
    details: Details,
    version: Version,
    from: ObjectPath,
    to: ObjectPath,
}

impl Moves {
    /// Tells whether a file lies where it stands, and nowhere else.
    pub(super) fn is_there(&self, id: EntryId) -> Result<bool, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let lies_at = catalog.object_path(id).map_err(fault)?;
        let stands_at = catalog.standing_path(id).map_err(fault)?;
        if lies_at.map(|(_, lies_at)| lies_at) != stands_at {
            return Ok(false);
        }
        let moved = catalog.moved(id).map_err(fault)?;
        Ok(moved.is_none_or(|moved| moved.left.is_none()))
    }

    /// Brings a file to where it stands.
    pub(super) async fn bring(&self, ground: &Ground, id: EntryId) -> Result<Brought, Fault> {
        if self.is_there(id)? {
            return Ok(Brought::There);
        }
        if self.is_being_sent(id) {
            return Ok(Brought::Waits);
        }
        let _name = self.lock_name(id).await;
        if self.is_being_sent(id) {
            return Ok(Brought::Waits);
        }
        let _hold = self.uploads.hold(id).await;
        self.take_left_away(ground, id).await.map_err(of_index)?;
        let Some(load) = self.load(id)? else {
            return Ok(Brought::Gone);
        };
        if load.from == load.to {
            return Ok(Brought::Moved);
        }
        if let Some(file) = self.uploads.staging.get(id) {
            if file.expected().is_some() || file.was_sent() || file.is_broken().is_some() {
                return Ok(Brought::Waits);
            }
            // It is only here, and will be uploaded to where it stands.
            return self.take_in(id, &load.to, None, None).await;
        }
        if self.uploads.fetcher.catalog.staged(id).map_err(fault)?.is_some() {
            // It is being made at this moment: its row is there before it is found among what is staged.
            return Ok(Brought::Waits);
        }
        let request = ground.backend.copy(&load.from, &load.version, &load.to);
        match self.ask(ground, request).await {
            Ok(Presence::Found(copy)) => self.copied(ground, load, copy, true).await,
            Ok(Presence::Absent) => self.nothing_there(ground, load).await,
            Err(error) => match error.kind() {
                Some(ErrorKind::Exists) => self.place_is_taken(ground, load).await,
                Some(ErrorKind::Conflict) => self.leave_behind(&load, "it was changed there since").await,
                _ => Err(of_index(error)),
            },
        }
    }

    /// Tells whether the place of a file cannot be changed because of its upload.
    fn is_being_sent(&self, id: EntryId) -> bool {
        let staged = self.uploads.staging.get(id);
        staged.is_some_and(|file| file.expected().is_some() || file.was_begun())
    }

    fn load(&self, id: EntryId) -> Result<Option<Load>, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let paths = (
            catalog.object_path(id).map_err(fault)?,
            catalog.standing_path(id).map_err(fault)?,
        );
        let rows = (catalog.entry(id).map_err(fault)?, catalog.details(id).map_err(fault)?);
        let ((Some((_, lies_at)), Some(stands_at)), (Some(entry), Some(details))) = (paths, rows) else {
            return Ok(None);
        };
        Ok(Some(Load {
            version: Version::from_stored(&details.version),
            entry,
            details,
            from: ObjectPath::from_bytes(lies_at),
            to: ObjectPath::from_bytes(stands_at),
        }))
    }

    /// Makes a request that nobody waits for.
    pub(super) async fn ask<T>(
        &self,
        ground: &Ground,
        request: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, IndexError> {
        self.uploads
            .fetcher
            .indexer
            .upload(ground.source, request, |_| true)
            .await
    }

    /// Takes note that a file is in its new place too, and takes it away from the old one. `is_ours`: we have put it there a
    /// moment ago.
    async fn copied(&self, ground: &Ground, load: Load, copy: Metadata, is_ours: bool) -> Result<Brought, Fault> {
        let id = load.entry.id;
        let left = Some((load.from.as_bytes().to_vec(), load.details.version.to_vec()));
        let brought = self.take_in(id, &load.to, left, Some(copy.clone())).await?;
        if brought != Brought::Moved && !is_ours {
            return Ok(brought);
        }
        if brought != Brought::Moved {
            // Somebody has begun to write to it, or it is gone.
            let expected = Expected::Version(copy.version);
            let undo = ground.backend.remove_file(&load.to, &expected);
            self.ask(ground, undo).await.map_err(of_index)?;
            return Ok(brought);
        }
        self.take_left_away(ground, id).await.map_err(of_index)?;
        Ok(Brought::Moved)
    }

    /// Has the catalog say durably where a file lies; those who have it open read it from there.
    async fn take_in(
        &self,
        id: EntryId,
        lies_at: &ObjectPath,
        left: Option<(Vec<u8>, Vec<u8>)>,
        seen: Option<Metadata>,
    ) -> Result<Brought, Fault> {
        let is_copy = seen.is_some();
        let copied = Copied {
            id,
            lies_at: lies_at.as_bytes().to_vec(),
            left,
            seen: seen.as_ref().map(seen_attributes),
        };
        let catalog = Arc::clone(&self.uploads.fetcher.catalog);
        let note = move || catalog.note_copied(&copied).map_err(Error::from_catalog);
        let noted = self.uploads.blocking(note).await.map_err(fault)?;
        if noted {
            let catalog = Arc::clone(&self.uploads.fetcher.catalog);
            let sync = async || {
                let sync = move || catalog.sync().map_err(Error::from_catalog);
                self.uploads.blocking(sync).await
            };
            self.together.durable(sync).await.map_err(fault)?;
        }
        let fetcher = &self.uploads.fetcher;
        if !noted {
            let is_gone = fetcher.catalog.entry(id).map_err(fault)?.is_none();
            return Ok(if is_gone { Brought::Gone } else { Brought::Waits });
        }
        if is_copy
            && self.uploads.files.is_open(id)
            && let Ok((object, _)) = Object::find(&fetcher.catalog, &fetcher.indexer, id)
        {
            self.uploads.files.rebind(id, &Arc::new(object));
        }
        Ok(Brought::Moved)
    }

    /// Takes a file away from its former place, if it is still there as it was copied.
    pub(super) async fn take_left_away(&self, ground: &Ground, id: EntryId) -> Result<(), IndexError> {
        let catalog = &self.uploads.fetcher.catalog;
        let Some((place, version)) = catalog.moved(id)?.and_then(|moved| moved.left) else {
            return Ok(());
        };
        let (path, expected) = (
            ObjectPath::from_bytes(place),
            Expected::Version(Version::from_stored(&version)),
        );
        let removal = ground.backend.remove_file(&path, &expected);
        match self.ask(ground, removal).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Some(ErrorKind::Conflict | ErrorKind::IsADirectory)) => {
                tracing::warn!(%path, "what others have put in the old place of a file stays there");
            }
            Err(error) => return Err(error),
        }
        catalog.note_left_removed(id)?;
        Ok(())
    }

    /// Finds out what it means that a file is not in its old place.
    async fn nothing_there(&self, ground: &Ground, load: Load) -> Result<Brought, Fault> {
        let (at, version) = (&load.to, &load.version);
        match self.ask(ground, ground.backend.stat(at)).await.map_err(of_index)? {
            Presence::Found(seen)
                if seen.kind == Kind::File && seen.size == load.entry.size && seen.version == *version =>
            {
                self.take_in(load.entry.id, &load.to, None, Some(seen)).await
            }
            _ => self.leave_behind(&load, "it was removed there").await,
        }
    }

    /// Compares what is in the new place with what is in the old one.
    async fn holds_the_same(&self, ground: &Ground, load: &Load, there: &Metadata) -> Result<bool, IndexError> {
        let ours = Seen {
            path: &load.from,
            version: &load.version,
        };
        let compared = self
            .uploads
            .holds_the_same(ground.source, &ground.backend, &ours, &load.to, there);
        compared.await
    }

    /// Makes the best of a place in which something is: a copy of our own whose confirmation was lost, or somebody else's.
    async fn place_is_taken(&self, ground: &Ground, load: Load) -> Result<Brought, Fault> {
        let id = load.entry.id;
        let catalog = &self.uploads.fetcher.catalog;
        if is_occupied_by_ours(catalog, ground.source, id, load.to.as_bytes()).map_err(fault)? {
            return Ok(Brought::Waits);
        }
        let at = &load.to;
        match self.ask(ground, ground.backend.stat(at)).await.map_err(of_index)? {
            Presence::Absent => Ok(Brought::Waits),
            Presence::Found(there)
                if there.kind == Kind::File
                    && there.size == load.entry.size
                    && self.holds_the_same(ground, &load, &there).await.map_err(of_index)? =>
            {
                self.copied(ground, load, there, false).await
            }
            Presence::Found(_) => self.make_way(load).await,
        }
    }

    /// Gives a file another name, since somebody else's has its place: both are kept.
    async fn make_way(&self, load: Load) -> Result<Brought, Fault> {
        let uploads = Arc::clone(&self.uploads);
        let made = self.uploads.blocking(move || {
            let (catalog, now_ns) = (&uploads.fetcher.catalog, uploads.now_ns());
            let (parent, id) = (load.entry.parent, load.entry.id);
            let path = catalog.tree_path(id).map_err(Error::from_catalog)?.unwrap_or_default();
            let _guard = catalog.begin_change(&[parent]);
            let kept_as = uploads.free_name(parent, &load.details.raw_name, now_ns)?;
            let shown = names::escape(&kept_as, names::Side::Plain).into_owned();
            let raw_name = (shown != kept_as).then(|| kept_as.into());
            let (from, to) = ((parent, &*load.entry.name), (parent, &*shown));
            catalog
                .follow_moved_onto(from, to, raw_name, None, load.from.as_bytes().to_vec(), now_ns)
                .map_err(Error::from_catalog)?;
            Ok(Conflict {
                at_ns: now_ns,
                source: load.entry.source,
                path,
                kept_as: shown,
            })
        });
        let conflict = made.await.map_err(fault)?;
        tracing::warn!(
            path = %conflict.path.escape_ascii(),
            kept_as = %conflict.kept_as.escape_ascii(),
            "somebody has put a file where one of a renamed directory belongs; both are kept"
        );
        self.uploads.note_conflict(conflict);
        Ok(Brought::Waits)
    }

    /// Leaves what others have made of a file in its old place, where it shows again when the move has ended. What the tree has
    /// of it is gone.
    async fn leave_behind(&self, load: &Load, why: &str) -> Result<Brought, Fault> {
        let (id, parent, name) = (load.entry.id, load.entry.parent, load.entry.name.clone());
        tracing::warn!(path = %load.from, why, "a file does not follow its directory");
        if self.uploads.files.is_open(id) {
            self.uploads.files.note_attributes(id, Attributes::of(&load.entry));
        }
        let (catalog, now_ns) = (Arc::clone(&self.uploads.fetcher.catalog), self.uploads.now_ns());
        let removed = self.uploads.blocking(move || {
            catalog
                .follow_removed(parent, &name, now_ns)
                .map(drop)
                .map_err(Error::from_catalog)
        });
        removed.await.map_err(fault)?;
        Ok(Brought::Gone)
    }
}

/// Says what to do about a failure that does not pass by itself.
pub(super) fn remedy(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::PermissionDenied => {
            "allow the account to write and delete there, or rename the folder back; then: manifold uploads retry"
        }
        ErrorKind::ReadOnly => "make the source writable again; then: manifold uploads retry",
        ErrorKind::Full | ErrorKind::Quota => "make room at the source; then: manifold uploads retry",
        ErrorKind::Unsupported | ErrorKind::BadPath | ErrorKind::NameTooLong | ErrorKind::TooLarge => {
            "the source does not take this name, or an object of this size, there: rename the folder back"
        }
        ErrorKind::Settings => "put the source's settings right: manifold source test NAME",
        _ => return None,
    })
}
