//! Opening: which version a handle is bound to, and where the kernel may read it by itself. No source is asked.
//!
//! A file of this machine is opened at once, and is its own truth: where it differs from the catalog, the catalog learns of it.
//! Where its file system may hang, that is done elsewhere, within the deadline.

use std::sync::Arc;
use std::time::Instant;

use manifold_backends::local::{Held, LocalBackend, LocalFile};
use manifold_backends::{Backend, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::{Change, ChangedFile, Details, Entry, EntryId, Kind, SourceId, Ticket};

use crate::attributes::Attributes;
use crate::cache::{HandedOut, ObjectKey};
use crate::change::follow::{Loss, seen_attributes};
use crate::error::Cause;
use crate::fetch::Object;
use crate::fetch::object::{not_connected, rows};
use crate::handle::{Access, Backing, OpenFile, OpenObject, Opened, Opening, Parted, PartedObject};
use crate::vfs::Core;
use crate::{Answer, Error, Handle};

/// How often an opening is tried anew because the file changed in the middle of it.
const TRIES: usize = 3;

/// A file of this machine that is being opened, as the catalog has it.
struct Begun<'a> {
    opening: Opening<'a>,
    entry: Entry,
    details: Details,
    path: ObjectPath,
    /// Taken before the file was looked at.
    ticket: Ticket,
}

impl Core {
    pub(crate) fn open(self: &Arc<Self>, id: EntryId, access: Access) -> Answer<Opened> {
        match self.catalog.entry(id).map_err(Error::from_catalog) {
            Ok(Some(entry)) if self.indexer.is_expected(entry.source) => self.open_soon(id, entry.source, access),
            _ => self.open_now(id, access),
        }
    }

    /// Opens once the source is connected, which is being done.
    fn open_soon(self: &Arc<Self>, id: EntryId, source: SourceId, access: Access) -> Answer<Opened> {
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let deadline = core.settings.data_deadline;
            let connected = core.indexer.until_connected(source);
            if tokio::time::timeout(deadline, connected).await.is_err() {
                let after = deadline.as_secs_f32();
                return Err(Error::TimedOut(Cause::new(format!(
                    "source {source} was not connected within {after} s"
                ))));
            }
            core.open_now(id, access).wait().await
        }))
    }

    pub(crate) fn release(self: &Arc<Self>, handle: Handle) {
        if let Some((id, source, file)) = self.files.local(handle).filter(|(_, _, file)| file.writes()) {
            // Before its attributes are taken from the catalog again.
            if let Answer::Pending(learning) = self.learn_at_close(id, source, &file) {
                self.runtime.spawn(learning);
            }
            self.files.forget_version(Some(id));
        }
        let Some(file) = self.files.release(handle) else { return };
        if let OpenFile::Object(open) = &*file {
            self.released(open);
            self.abandon(&mut open.readahead.lock());
            let object = open.object();
            self.fetcher.forget_abandoned(&object);
            self.hash_soon(&object);
        }
    }

    /// Has the content of an object learnt, if it has come to lie whole in the disk cache.
    pub(crate) fn hash_soon(&self, object: &Object) {
        if let Some(hasher) = &self.hasher {
            hasher.wish(object);
        }
    }

    fn open_now(self: &Arc<Self>, id: EntryId, access: Access) -> Answer<Opened> {
        match self.open_named(id, access) {
            Answer::Ready(Err(Error::Stale)) => Answer::Ready(self.open_parted(id, access)),
            answer => answer,
        }
    }

    pub(crate) fn open_named(self: &Arc<Self>, id: EntryId, access: Access) -> Answer<Opened> {
        let (source, backend) = match self.openable(id) {
            Ok(found) => found,
            Err(error) => return Answer::err(error),
        };
        if access.writes() && self.read_only.read().contains(&source) {
            return Answer::err(Error::ReadOnly);
        }
        let Some(local) = backend.as_local() else {
            let opened = self.while_it_stays(source, || {
                // It may have come to a folder of this machine by now, where it is opened otherwise.
                let now = self.catalog.entry(id).map_err(Error::from_catalog);
                match now {
                    Ok(Some(now)) if now.source != source => None,
                    Err(error) => Some(Answer::err(error)),
                    Ok(_) if access.writes() => Some(self.remote_open(id, access)),
                    Ok(_) => Some(Answer::Ready(self.open_object(id))),
                }
            });
            return opened.unwrap_or_else(|| self.open_named(id, access));
        };
        let path = match self.catalog.object_path(id).map_err(Error::from_catalog) {
            Ok(Some((_, path))) => ObjectPath::from_bytes(path),
            Ok(None) => return Answer::err(Error::Stale),
            Err(error) => return Answer::err(error),
        };
        if local.may_hang(&path) {
            let (core, local) = (Arc::clone(self), local.clone());
            return Answer::Pending(Box::pin(async move {
                let opened = core.open_local_soon(id, source, &local, access).await;
                core.or_a_copy(id, access, opened)
            }));
        }
        Answer::Ready(self.or_a_copy(id, access, self.open_local(id, source, local, access)))
    }

    /// Finds the backend of a file.
    fn openable(&self, id: EntryId) -> Result<(SourceId, Arc<dyn Backend>), Error> {
        let entry = self
            .catalog
            .entry(id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        match entry.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::IsADirectory),
            Kind::Symlink => return Err(Error::InvalidArgument),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                return Err(Error::Unsupported(Cause::new(
                    "pipes, sockets and devices are opened by the kernel, not here",
                )));
            }
        }
        let backend = self
            .indexer
            .backend(entry.source)
            .ok_or_else(|| not_connected(&self.indexer, entry.source))?;
        self.refresh_behind(entry.parent, entry.source);
        Ok((entry.source, backend))
    }

    /// Opens a copy where the file itself cannot be had: its disk has gone, is failing or hangs.
    fn or_a_copy(&self, id: EntryId, access: Access, opened: Result<Opened, Error>) -> Result<Opened, Error> {
        match opened {
            Err(error @ (Error::Unreachable(_) | Error::TimedOut(_) | Error::Io(_))) if access == Access::Read => {
                self.open_a_copy(id).ok_or(error)
            }
            opened => opened,
        }
    }

    fn open_object(&self, id: EntryId) -> Result<Opened, Error> {
        self.open_object_for(id, Access::Read)
    }

    /// Opens a version of an object, for writing too where the caller has seen that this may be.
    pub(crate) fn open_object_for(&self, id: EntryId, access: Access) -> Result<Opened, Error> {
        let opening = self.files.begin(id);
        // Before its row: an entry loses its row first, and what is staged of it after that.
        let staged = self.staged_entry(id);
        let (object, entry) = Object::find(&self.catalog, &self.indexer, id)?;
        let keep_cache = self.files.same_version(id, pages_key(&object.version, entry.size));
        // The kernel lets nobody write to what another reads by itself, so it reads nothing by itself that may be written to.
        let whole = if self.is_written_to(object.source) {
            None
        } else {
            self.whole_file(&object)
        };
        if whole.is_some() {
            self.hash_soon(&object);
        }
        let backing = whole
            .as_ref()
            .map_or(Backing::Blocks, |it| Backing::File(Arc::clone(it.file())));
        let object = Arc::new(object);
        let open = OpenObject::new(Arc::clone(&object), access.writes(), whole);
        if let Some(staged) = &staged {
            open.meet(staged);
        }
        let size = self.size_of(&open);
        let handle = opening.finish(OpenFile::Object(open), Attributes::of(&entry).with_size(size));
        if staged.is_some() {
            // Its upload may have ended meanwhile, and have told only those who had it open by then where to read on.
            match Object::find(&self.catalog, &self.indexer, id) {
                Ok((now, _)) if now.version != object.version => self.files.rebind(id, &Arc::new(now)),
                // What has lost its name stays with the handle.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Opened {
            handle,
            backing,
            keep_cache,
            size,
            writes: access.writes(),
            privileged: false,
        })
    }

    /// Opens what has no name any more, but is at hand: somebody has it open, or another has just taken its place.
    fn open_parted(&self, id: EntryId, access: Access) -> Result<Opened, Error> {
        // So that it stays at hand.
        let opening = self.files.begin(id);
        match self.files.parted(id).as_deref() {
            Some(Parted::Local(source, held)) if !held.may_hang() => self.open_held(id, *source, held, access),
            Some(Parted::Object(parted)) if access == Access::Read => Ok(self.open_parted_object(opening, parted)),
            _ => Err(match self.gone.get(&id) {
                Some(gone) if gone.loss == Loss::Removed => Error::NotFound,
                _ => Error::Stale,
            }),
        }
    }

    fn open_held(&self, id: EntryId, source: SourceId, held: &Held, access: Access) -> Result<Opened, Error> {
        if access.writes() && self.read_only.read().contains(&source) {
            return Err(Error::ReadOnly);
        }
        let backend = self.indexer.backend(source);
        let backend = backend.ok_or_else(|| not_connected(&self.indexer, source))?;
        let local = backend.as_local().ok_or(Error::Stale)?;
        let opened = local.open_held(held, access.of_file());
        let (file, seen) = opened.map_err(|error| Error::from_backend(&Arc::new(error)))?;
        Ok(self.open_as_made(id, source, file, &seen, false))
    }

    fn open_parted_object(&self, opening: Opening<'_>, parted: &PartedObject) -> Opened {
        let object = &parted.object;
        let keep_cache = self
            .files
            .same_version(object.id, pages_key(&object.version, object.shape.size));
        let open = OpenObject::new(Arc::clone(object), false, None);
        if let Some(staged) = &parted.staged {
            open.meet(staged.file());
        }
        let size = self.size_of(&open);
        Opened {
            handle: opening.finish_as_noted(OpenFile::Object(open)),
            backing: Backing::Blocks,
            keep_cache,
            size,
            writes: false,
            privileged: false,
        }
    }

    /// Finds what a remote file is to be opened from once another has taken its place: nothing, where its bytes are not all here.
    pub(crate) fn at_hand(&self, id: EntryId) -> Option<Parted> {
        let staged = self.staged_entry(id).and_then(|file| file.use_it().ok());
        let (object, _) = Object::find(&self.catalog, &self.indexer, id).ok()?;
        let cached = self.cache.whole_file(object.shape);
        let is_here = staged.is_some() || cached.is_some() || object.shape.size == 0;
        is_here.then(|| {
            Parted::Object(PartedObject {
                object: Arc::new(object),
                staged,
                _cached: cached,
            })
        })
    }

    /// Finds a file of the disk cache that holds all of an object.
    fn whole_file(&self, object: &Object) -> Option<HandedOut> {
        self.cache.whole_file(object.shape).or_else(|| {
            // The file of a copy holds the same bytes.
            object.content?;
            let mut copies = self.fetcher.replicas(object).into_iter();
            copies.find_map(|copy| self.cache.whole_file(copy.shape))
        })
    }

    /// Opens a file of this machine that cannot be read by itself, where other entries are known to hold its bytes.
    fn open_a_copy(&self, id: EntryId) -> Option<Opened> {
        let (object, _) = Object::find(&self.catalog, &self.indexer, id).ok()?;
        if object.content.is_none() || self.fetcher.replicas(&object).is_empty() {
            return None;
        }
        self.open_object(id).ok()
    }

    fn open_local(&self, id: EntryId, source: SourceId, local: &LocalBackend, access: Access) -> Result<Opened, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            // Else its name might be another's by the time it is opened.
            let (begun, seen) = self.while_names_stay(source, local, || {
                let begun = self.begin_local(id, source)?;
                let seen = local.open_as(&begun.path, access.of_file());
                Ok::<_, Error>((begun, seen))
            })?;
            let seen = seen.map_err(|error| Error::from_backend(&Arc::new(error)))?;
            if let Some(opened) = self.conclude_local(begun, seen, tries == TRIES)? {
                return Ok(opened);
            }
            if tries == TRIES {
                return Err(Error::Stale);
            }
        }
    }

    /// As [`open_local`](Self::open_local), where that may hang.
    async fn open_local_soon(
        &self,
        id: EntryId,
        source: SourceId,
        local: &LocalBackend,
        access: Access,
    ) -> Result<Opened, Error> {
        let deadline = self.settings.data_deadline;
        let end = tokio::time::Instant::now() + deadline;
        let mut tries = 0;
        loop {
            tries += 1;
            let begun = self.begin_local(id, source)?;
            let rest = end.saturating_duration_since(tokio::time::Instant::now());
            let request = local.open_as_soon(&begun.path, access.of_file());
            let seen = self.indexer.ask(source, &begun.path, rest, request).await;
            if let Some(opened) = self.conclude_local(begun, seen.map_err(Error::from_index)?, tries == TRIES)? {
                return Ok(opened);
            }
            if tries == TRIES {
                return Err(Error::Stale);
            }
        }
    }

    fn begin_local(&self, id: EntryId, source: SourceId) -> Result<Begun<'_>, Error> {
        let opening = self.files.begin(id);
        let ticket = self.catalog.ticket();
        let (entry, details) = rows(&self.catalog, id)?;
        let (_, path) = self
            .catalog
            .object_path(id)
            .map_err(Error::from_catalog)?
            // It may have been moved to another source meanwhile.
            .filter(|(now, _)| *now == source)
            .ok_or(Error::Stale)?;
        Ok(Begun {
            opening,
            entry,
            details,
            ticket: ticket.by_path(&path),
            path: ObjectPath::from_bytes(path),
        })
    }

    /// Makes a handle of what was found; `None` if the file is not the one that the catalog has, and is to be opened again.
    fn conclude_local(
        &self,
        begun: Begun<'_>,
        found: Presence<(LocalFile, Metadata)>,
        is_last: bool,
    ) -> Result<Option<Opened>, Error> {
        let Begun {
            opening,
            entry,
            details,
            ticket,
            ..
        } = begun;
        let id = entry.id;
        let Presence::Found((file, seen)) = found else {
            self.look_again(id);
            return Err(Error::NotFound);
        };
        let same_object = details.identity.is_some() && details.identity == seen.identity.map(|it| it.0);
        // What is being written through the mount is what it is, and the catalog learns of it when it is closed. A file that
        // never holds still is opened as it is, but not another in its place: somebody may have that one open.
        let is_written = same_object && self.files.writer(id).is_some();
        let is_as_good = is_last && (same_object || details.identity.is_none());
        if seen.version.as_bytes() == &*details.version || is_written || is_as_good {
            let keep_cache = self.files.same_version(id, pages_key(&seen.version, seen.size));
            let attributes = Attributes {
                size: seen.size,
                ..Attributes::of(&entry)
            };
            // The kernel would wait for a file system that hangs, and nothing could end that.
            let backing = file
                .shared()
                .map_or(Backing::Blocks, |file| Backing::File(Arc::clone(file)));
            let writes = file.writes();
            let file = OpenFile::Local(id, entry.source, Arc::new(file));
            let handle = opening.finish_named(file, attributes);
            return Ok(handle.map(|handle| Opened {
                handle,
                backing,
                keep_cache,
                size: seen.size,
                writes,
                privileged: seen.mode.is_some_and(has_privileges),
            }));
        }
        // The catalog learns of it while this opening does not count: nobody has read from it yet.
        drop(opening);
        self.take_in(&entry, details.identity, &seen, ticket, Some(&file))?;
        // Whether it may be opened was found out by what was known of it.
        if allows_the_same(&entry, &seen) {
            Ok(None)
        } else {
            Err(Error::Stale)
        }
    }

    /// Has the catalog take in how something looks that it knows otherwise. `file`: for those who have it open already, if it is another one.
    /// False where it was changed through the mount meanwhile, so that the catalog knows better.
    pub(crate) fn take_in(
        &self,
        known: &Entry,
        identity: Option<[u8; 16]>,
        seen: &Metadata,
        ticket: Ticket,
        file: Option<&LocalFile>,
    ) -> Result<bool, Error> {
        let (id, source) = (known.id, known.source);
        // Whoever else has it open reads it as it is now, too, unless it is another file.
        let replaces = |changed: ChangedFile| self.files.is_open(changed.id) && !changed.same_object;
        match self
            .catalog
            .update_attributes(id, seen_attributes(seen), ticket, &replaces)
        {
            Ok(changes) => {
                let is_replaced = |change: &Change| matches!(change, Change::Replaced { old, .. } if *old == id);
                if changes.iter().any(is_replaced) {
                    self.files.replaced_beside(id, source, file, Instant::now());
                }
                Ok(true)
            }
            Err(manifold_catalog::Error::NoEntry(_)) => {
                // Somebody else was the first to see it. What has only departed may come back under its number.
                let before = identity.map(|identity| self.catalog.find_identity(source, identity));
                let before = before.transpose().map_err(Error::from_catalog)?.flatten();
                if before.is_none_or(|before| before.id != id) {
                    self.files.replaced_beside(id, source, file, Instant::now());
                }
                Ok(true)
            }
            Err(manifold_catalog::Error::Overtaken(_)) => Ok(false),
            Err(error) => Err(Error::from_catalog(error)),
        }
    }

    /// Has the catalog learn that an entry is not as it says.
    pub(crate) fn look_again(&self, id: EntryId) {
        let indexer = Arc::clone(&self.indexer);
        self.runtime.spawn(async move {
            if let Err(error) = indexer.refresh(id).await {
                tracing::debug!(id = id.0, %error, "an entry that was not there could not be looked at again");
            }
        });
    }
}

/// Tells whether everybody may do the same with what is seen as with what is known: it is of one kind, mode and owner.
pub(crate) fn allows_the_same(known: &Entry, seen: &Metadata) -> bool {
    let seen = seen_attributes(seen);
    (seen.kind, seen.mode, seen.owner) == (known.kind, known.mode, known.owner)
}

/// Names the bytes that the kernel has pages of, wherever the file stands.
pub(crate) fn pages_key(version: &Version, size: u64) -> ObjectKey {
    ObjectKey::new("", EntryId::ROOT, version, size, 0)
}

/// Tells whether a file has bits that a write of an ordinary user clears (`chmod(2)`): set-user-ID, and set-group-ID where
/// the group may execute.
pub(crate) fn has_privileges(mode: u32) -> bool {
    mode & 0o4000 != 0 || mode & 0o2010 == 0o2010
}
