//! Renaming a file from one source to another: the tree shows it in its new place at once, what the target does not have yet
//! is read from where it was, and the upload brings it there. What is left in the former place is taken away after that
//! ([`Moves`](crate::moves::Moves)). In a folder of this machine it is shown when it is there ([`inward`]).
//!
//! Always true:
//! - whatever fails, and whenever the daemon dies, the file is whole in its former place or in its new one;
//! - what cannot be done so is [`Error::CrossSource`], and whoever asked copies.

mod beside;
mod copy;
mod inward;
mod link;
mod resume;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::local::{LocalBackend, RenameMode};
use manifold_backends::{Kind as ObjectKind, Metadata, ObjectPath, Operation, Presence, SourcePlace, Version};
use manifold_catalog::{Across, Entry, EntryId, ExtendedAttribute, Keep, Kind, Left, SeenAttributes, SourceId};

use super::Target;
use super::journal::staged_version;
use crate::change::{Half, Site};
use crate::error::Cause;
use crate::fetch::object::rows;
use crate::settings::CrossSourceRename;
use crate::staging::row::{Base, Row};
use crate::staging::{Durability, StagedFile, fresh_row};
use crate::upload::settle::Confirmed;
use crate::vfs::Core;
use crate::{Answer, Error};

/// How long it is waited for that a file of this machine is closed: the kernel tells of that a moment after it was.
const CLOSING: Duration = Duration::from_millis(500);
/// Which part of the deadline a former source has for its answers, and copying for all of it.
const PART_OF_DEADLINE: u32 = 4;
/// How the names of extended attributes begin that the catalog can keep.
const KEPT_PREFIX: &[u8] = b"user.";
/// How those begin that are the mount's own, and those of every file where labels are in use.
const LABELS: [&[u8]; 2] = [b"security.selinux", b"security.SMACK64"];

/// A file on its way to another source.
#[derive(Clone)]
struct Crossing {
    from: Entry,
    /// Where it was: the source, and the path there.
    former: (SourceId, ObjectPath),
    to_source: SourceId,
    to_directory: EntryId,
    to_name: Box<[u8]>,
    to_raw_name: Vec<u8>,
    over: Option<Entry>,
    /// Whether nothing may have the new name.
    only_new: bool,
    /// The directories in which the two directories stand.
    above: [EntryId; 2],
}

impl Crossing {
    /// Gives what the new source calls it, where that is not the name.
    fn raw_name(&self) -> Option<Box<[u8]>> {
        (*self.to_raw_name != *self.to_name).then(|| self.to_raw_name.as_slice().into())
    }
}

/// What its former source says of it.
#[derive(Debug, Default)]
struct Found {
    /// `None`: nothing that its upload was not to replace.
    object: Option<Metadata>,
    attributes: Vec<ExtendedAttribute>,
}

impl Core {
    /// Renames a file to a place at another source.
    pub(in crate::change) fn rename_across(
        self: &Arc<Self>,
        from: (&Site, &[u8], Half),
        to: (&Site, &[u8], Half),
        mode: RenameMode,
    ) -> Answer<()> {
        let ((from, name, half), (to, new_name, to_half)) = (from, to);
        let crossing = match self.plan_crossing((from, name), (to, new_name), mode, &to_half) {
            Ok(crossing) => crossing,
            Err(error) => return Answer::err(error),
        };
        if self.is_in_place(&crossing) {
            self.look_into(crossing.to_directory);
            return Answer::ok(());
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let from = match half {
                Half::Local(local) => Some(local),
                Half::Remote => None,
            };
            match (to_half, from) {
                (Half::Local(to), from) => core.cross_inward(crossing, from, to).await,
                (Half::Remote, from) if crossing.from.kind == Kind::Symlink => core.cross_link(crossing, from).await,
                (Half::Remote, Some(local)) => core.cross_from_folder(crossing, &local).await,
                (Half::Remote, None) => core.cross(crossing, None).await,
            }
        }))
    }

    fn plan_crossing(
        &self,
        (from, from_name): (&Site, &[u8]),
        (to, to_name): (&Site, &[u8]),
        mode: RenameMode,
        to_half: &Half,
    ) -> Result<Crossing, Error> {
        if mode == RenameMode::Exchange || self.settings.rename == CrossSourceRename::Strict {
            return Err(Error::CrossSource);
        }
        self.check_room().map_err(|error| match (to_half, error) {
            // Nothing is uploaded in this library.
            (Half::Local(_), Error::ReadOnly) => Error::CrossSource,
            (_, error) => error,
        })?;
        let look = |site: &Site, name: &[u8]| self.catalog.lookup(site.directory, name).map_err(Error::from_catalog);
        let entry = look(from, from_name)?.ok_or(Error::NotFound)?;
        let over = look(to, to_name)?;
        let to_raw_name = Site::raw_name(to_name)?;
        if entry.attach_point || over.as_ref().is_some_and(|over| over.attach_point) {
            return Err(Error::Busy);
        }
        if over.is_some() && mode == RenameMode::NoReplace {
            return Err(Error::Exists);
        }
        let is_local = matches!(to_half, Half::Local(_));
        let can_cross = match entry.kind {
            Kind::File | Kind::Symlink => true,
            Kind::Directory => false,
            // The disk may rename them.
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => is_local,
        };
        if !can_cross || entry.links > 1 || is_local && self.had_more_names(&entry)? {
            self.note_names(&entry)?;
            return Err(Error::CrossSource);
        }
        match over.as_ref().map(|over| over.kind) {
            None | Some(Kind::File) => {}
            Some(Kind::Directory) => return Err(Error::IsADirectory),
            Some(_) if is_local => {}
            Some(_) => return Err(Error::CrossSource),
        }
        // What is on its way with its directory goes on first.
        for id in [entry.id, to.directory] {
            if self.catalog.move_above(id).map_err(Error::from_catalog)?.is_some() {
                return Err(Error::CrossSource);
            }
        }
        let former = self.catalog.object_path(entry.id).map_err(Error::from_catalog)?;
        let (source, path) = former.ok_or(Error::Stale)?;
        Ok(Crossing {
            from: entry,
            former: (source, ObjectPath::from_bytes(path)),
            to_source: to.source,
            to_directory: to.directory,
            to_name: to_name.into(),
            to_raw_name,
            over,
            only_new: mode == RenameMode::NoReplace,
            above: [from.parent, to.parent],
        })
    }

    /// Tells whether a file had several names when it was last to go to another folder. Whoever asked has copied it under one of them
    /// since, and gives that copy the others.
    fn had_more_names(&self, entry: &Entry) -> Result<bool, Error> {
        let details = self.catalog.details(entry.id).map_err(Error::from_catalog)?;
        let identity = details.and_then(|details| details.identity);
        Ok(identity.is_some_and(|identity| self.linked.contains_key(&(entry.source, identity))))
    }

    /// Takes note that a file has several names, if it has.
    fn note_names(&self, entry: &Entry) -> Result<(), Error> {
        let details = self.catalog.details(entry.id).map_err(Error::from_catalog)?;
        if let Some(identity) = details.and_then(|details| details.identity).filter(|_| entry.links > 1) {
            self.linked.insert((entry.source, identity), ());
        }
        Ok(())
    }

    /// The same of one on its disk.
    fn note_more_names(&self, source: SourceId, seen: &Metadata) {
        if let Some(identity) = seen.identity.filter(|_| seen.links > 1) {
            self.linked.insert((source, identity.0), ());
        }
    }

    /// Says for how long a former source is waited for: the kernel lets no other rename across directories go on meanwhile, and
    /// whoever asked can copy too, with all the time that it takes.
    fn patience(&self) -> Duration {
        self.settings.data_deadline / PART_OF_DEADLINE
    }

    fn target_of(&self, crossing: &Crossing) -> Result<Target, Error> {
        self.target_over(crossing.to_directory, crossing.over.as_ref(), &crossing.to_raw_name)
    }

    /// Tells whether both names are one file at a server, of which two sources overlap: to rename that does nothing.
    fn is_in_place(&self, crossing: &Crossing) -> bool {
        let place = |source, path| {
            let root = SourcePlace::root_of(self.indexer.backend(source)?.name())?;
            Some(root.join(path))
        };
        let Ok(target) = self.target_of(crossing) else {
            return false;
        };
        let former = place(crossing.former.0, &crossing.former.1);
        former.is_some() && former == place(target.source, &target.path)
    }

    /// A file of this machine goes once nobody has it open: who writes to it would go on writing to the original.
    async fn cross_from_folder(self: &Arc<Self>, crossing: Crossing, local: &LocalBackend) -> Result<(), Error> {
        if !self.files.until_closed(crossing.from.id, CLOSING).await {
            return Err(Error::CrossSource);
        }
        self.cross(crossing, Some(local)).await
    }

    async fn cross(self: &Arc<Self>, mut crossing: Crossing, local: Option<&LocalBackend>) -> Result<(), Error> {
        let (uploads, moves) = (Arc::clone(self.writable()?), Arc::clone(self.moves()?));
        let deadline = self.settings.data_deadline;
        let (directory, raw_name) = (crossing.to_directory, crossing.to_raw_name.clone());
        let target = self.target_of(&crossing)?;
        if crossing.over.is_none() {
            self.until_free(target.place_in(directory)).await?;
        }
        // Also where another file stands there by now: it might come back to what it has left there itself, which its upload
        // would wait for.
        moves
            .until_left(directory, |catalog| catalog.is_left_at(directory, &raw_name), deadline)
            .await?;
        let turning = Arc::clone(&uploads);
        let _turn = self.turn_at(&turning, &crossing.names()).await?;
        let mut ids = vec![crossing.from.id];
        ids.extend(crossing.over.as_ref().map(|over| over.id));
        ids.sort_unstable();
        let mut names = Vec::with_capacity(ids.len());
        for id in ids {
            names.push(self.lock_name(id).await?);
        }
        let places = moves.keep_places().await;
        let guard = self
            .catalog
            .begin_change(&[crossing.from.parent, crossing.to_directory]);
        let is_left = self.catalog.is_left_at(directory, &raw_name);
        if is_left.map_err(Error::from_catalog)? {
            return Err(Error::Busy);
        }
        if local.is_none() {
            let former = self.remote_target_of(crossing.from.id)?;
            self.clear_left(&former, crossing.from.id).await?;
            crossing.former = (former.source, former.path);
        }
        let target = self.target_of(&crossing)?;
        if let Some(over) = &crossing.over {
            self.clear_left(&target, over.id).await?;
        }
        let mut holds = vec![self.hold_upload(&uploads, crossing.from.id).await?];
        if let Some(over) = &crossing.over {
            holds.push(self.hold_upload(&uploads, over.id).await?);
            self.has_its_name(over)?;
        }
        self.has_its_name(&crossing.from)?;
        let found = match local {
            Some(local) => self.find_in_folder(&crossing, local).await?,
            None => self.find_at_source(&crossing).await?,
        };
        self.may_keep(&crossing, &found, &target)?;
        // What the target has to have under the new name for the upload to replace it.
        let expected = match &crossing.over {
            Some(over) => self.version_to_replace(crossing.to_directory, over).await?,
            None => None,
        };
        let kept = match &crossing.over {
            Some(over) => self.keep_for_open(over).await,
            None => None,
        };
        let (core, id) = (Arc::clone(self), crossing.from.id);
        let lock = local
            .filter(|local| !local.may_hang(&ObjectPath::root()))
            .map(|_| Arc::clone(self.paths.lock().entry(crossing.former.0).or_default()));
        let is_local = local.is_some();
        let crossed = self.blocking(move || {
            let crossed = {
                let _alone = lock.as_ref().map(|lock| lock.write());
                if is_local && core.files.is_open(crossing.from.id) {
                    return Err(Error::CrossSource);
                }
                let is_staged = |id| core.staged_entry(id).is_some();
                let was_staged = crossing.over.as_ref().is_some_and(|over| is_staged(over.id));
                core.leave_to_open(kept.as_ref())?;
                let crossed = core.cross_over(&crossing, &target, found, expected.as_deref());
                if let (Err(_), Some(over), false) = (&crossed, &crossing.over, was_staged) {
                    // It keeps its name.
                    uploads.staging.forget(over.id);
                }
                crossed
            };
            // Though nobody may wait for the answer any more.
            if crossed.is_ok() {
                uploads.queue(id, false);
            }
            drop((guard, holds));
            crossed
        });
        crossed.await?;
        drop((names, places));
        Ok(())
    }

    /// Looks at a file of a folder of this machine, and at what goes along with it.
    async fn find_in_folder(&self, crossing: &Crossing, local: &LocalBackend) -> Result<Found, Error> {
        let path = crossing.former.1.clone();
        let object = path.clone();
        let looked = local.on_thread(Operation::Stat, &path, move |local| {
            let Presence::Found(held) = local.hold(&object)? else {
                return Ok(None);
            };
            let (metadata, names) = (held.metadata()?, held.xattrs()?);
            let mut attributes = Vec::new();
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                if let Some(value) = held.xattr(name)? {
                    attributes.push((Box::<[u8]>::from(name), value.into_boxed_slice()));
                }
            }
            Ok(Some((metadata, attributes)))
        });
        let deadline = self.settings.metadata_deadline;
        let looked = tokio::time::timeout(deadline, looked).await;
        let looked = looked.map_err(|_| Error::TimedOut(Cause::new("its disk gave no answer in time")))?;
        let failed = |error| Error::from_backend(&Arc::new(error));
        let Some((metadata, mut attributes)) = looked.map_err(failed)?.map_err(failed)? else {
            self.look_into(crossing.from.parent);
            return Err(Error::NotFound);
        };
        self.note_more_names(crossing.former.0, &metadata);
        if metadata.kind != ObjectKind::File || metadata.links > 1 {
            return Err(Error::CrossSource);
        }
        attributes.retain(|(name, _)| !is_label(name));
        Ok(Found {
            object: Some(metadata),
            attributes,
        })
    }

    /// Makes sure that the catalog can keep all that the target cannot store.
    fn may_keep(&self, crossing: &Crossing, found: &Found, target: &Target) -> Result<(), Error> {
        let is_ours = found.attributes.iter().all(|(name, _)| name.starts_with(KEPT_PREFIX));
        let has_any = !found.attributes.is_empty() || !self.kept_attribute_names(crossing.from.id)?.is_empty();
        if has_any && !(is_ours && self.keeps_attributes(target.source)) {
            return Err(Error::CrossSource);
        }
        Ok(())
    }

    /// Looks at a file of a remote source: what was written to it here is in no doubt after that. A source that is silent is not
    /// waited for as long as a reader would wait.
    async fn find_at_source(self: &Arc<Self>, crossing: &Crossing) -> Result<Found, Error> {
        let looked = tokio::time::timeout(self.patience(), self.look_at_source(crossing)).await;
        looked.map_err(|_| Error::CrossSource)?
    }

    async fn look_at_source(self: &Arc<Self>, crossing: &Crossing) -> Result<Found, Error> {
        let uploads = self.writable()?;
        let mut staged = self.staged_entry(crossing.from.id);
        if let Some(file) = &staged
            && file.was_sent()
        {
            match uploads.confirm(file).await? {
                Confirmed::All => staged = None,
                Confirmed::Nothing | Confirmed::Part => {}
                // Both versions are to be kept, which its upload sees to first.
                Confirmed::SomethingElse => return Err(Error::Busy),
            }
        }
        let expected = staged.as_ref().map(|file| file.expected());
        if expected == Some(None) {
            return Ok(Found::default());
        }
        let former = self.remote_target_of(crossing.from.id)?;
        let there = self.ask(&former, former.backend.stat(&former.path)).await?;
        match (there, expected.flatten()) {
            (Presence::Found(there), None) if there.kind == ObjectKind::File => Ok(Found {
                object: Some(there),
                ..Found::default()
            }),
            (Presence::Found(there), Some(known)) if there.version.as_bytes() == &*known => Ok(Found {
                object: Some(there),
                ..Found::default()
            }),
            (_, Some(_)) => Err(Error::Busy),
            (Presence::Found(_), None) => {
                self.look_into(crossing.from.parent);
                Err(Error::CrossSource)
            }
            (Presence::Absent, None) => {
                self.look_into(crossing.from.parent);
                Err(Error::NotFound)
            }
        }
    }

    /// Has the journal and the catalog follow, in one transaction. Blocks the thread.
    fn cross_over(
        self: &Arc<Self>,
        crossing: &Crossing,
        target: &Target,
        found: Found,
        expected: Option<&[u8]>,
    ) -> Result<(), Error> {
        let uploads = self.writable()?;
        let id = crossing.from.id;
        let (file, is_new) = match self.staged_entry(id) {
            Some(file) => (file, false),
            None => (self.stage_as_found(crossing, &found)?, true),
        };
        let left = file.expected().map(|version| Left {
            version,
            shows_through: file.base().is_some_and(|base| !base.is_origin),
        });
        let journal = Follows {
            core: self,
            journal: uploads.staging.durability(),
            across: self.across(crossing, target, found, left)?,
        };
        if let Some(over) = &crossing.over {
            self.part_with(over)?;
        }
        let former = file.take_across(expected);
        let followed = uploads.staging.sync_with(&file, &journal);
        let followed = followed.and_then(|()| {
            // What nobody can find by name any more is not followed.
            let now = self.catalog.entry(id).map_err(Error::from_catalog)?;
            if now.is_none_or(|now| now.source != target.source) {
                return Err(Error::Stale);
            }
            self.catalog.sync().map_err(Error::from_catalog)
        });
        if let Err(error) = followed {
            file.take_back(former);
            if is_new && file.is_all_base() {
                uploads.staging.forget(id);
            }
            return Err(error);
        }
        if let Some(over) = &crossing.over {
            self.forget_staged(over.id)?;
        }
        let now_ns = uploads.now_ns();
        self.names_changed(crossing.from.parent, now_ns)?;
        self.names_changed(crossing.to_directory, now_ns)
    }

    /// Stages a file as its former source has it.
    fn stage_as_found(&self, crossing: &Crossing, found: &Found) -> Result<Arc<StagedFile>, Error> {
        let object = found.object.as_ref().ok_or(Error::Stale)?;
        let version = Box::<[u8]>::from(object.version.as_bytes());
        let base = Base {
            version: version.clone(),
            size: object.size,
            shows: object.size,
            is_origin: false,
        };
        // What is kept of the time is what the mount was told.
        let is_known = crossing.from.size == object.size;
        let told_ns = object.modified.map_or(crossing.from.modified_ns, |it| it.0);
        let modified_ns = if is_known { crossing.from.modified_ns } else { told_ns };
        let row = |number| fresh_row(number, object.size, modified_ns, Some(base), Some(version));
        self.writable()?.staging.stage(crossing.from.id, row, |_| Ok(()))
    }

    /// Says how the catalog is to follow.
    fn across<'a>(
        &self,
        crossing: &'a Crossing,
        target: &Target,
        found: Found,
        left: Option<Left>,
    ) -> Result<Across<'a>, Error> {
        let (entry, details) = rows(&self.catalog, crossing.from.id)?;
        let keeps = self.keeps_attributes(target.source);
        let mode = entry.mode;
        let owner = entry.owner.filter(|owner| *owner != *self.owner.read());
        let same_bytes = found
            .object
            .as_ref()
            .is_some_and(|object| object.version.as_bytes() == &*details.version);
        let keep = Keep {
            mode: (!target.able.keeps_mode).then_some(mode),
            owner,
            ..Keep::default()
        };
        Ok(Across {
            from: (crossing.from.parent, &crossing.from.name),
            to: (crossing.to_directory, &crossing.to_name),
            raw_name: crossing.raw_name(),
            seen: SeenAttributes {
                kind: Kind::File,
                size: entry.size,
                modified_ns: entry.modified_ns,
                changed_ns: self.writable()?.now_ns(),
                created_ns: None,
                mode: if keeps || target.able.keeps_mode { mode } else { 0o644 },
                owner: None,
                links: 1,
                device: 0,
                version: Version::from_id(b"moved").as_bytes().into(),
                identity: None,
            },
            same_bytes,
            keeps,
            keep,
            attributes: found.attributes,
            left,
            staged: None,
            staged_bytes: None,
            at_ns: self.writable()?.now_ns(),
        })
    }

    /// What has the new name is about to be gone for all but those who have it open.
    fn part_with(&self, over: &Entry) -> Result<(), Error> {
        if let Some(file) = self.staged_entry(over.id) {
            file.forget();
        }
        if self.files.is_open(over.id) {
            let attributes = self.attributes(over.id, None)?;
            self.files.note_attributes(over.id, attributes);
        }
        Ok(())
    }
}

/// Tells whether an extended attribute is the mount's own.
fn is_label(name: &[u8]) -> bool {
    LABELS.iter().any(|label| name.starts_with(label))
}

/// The journal of a file that changes its source: with its row, the catalog has the file in its new place.
struct Follows<'a> {
    core: &'a Core,
    journal: Arc<dyn Durability>,
    across: Across<'a>,
}

impl Durability for Follows<'_> {
    fn data(&self, number: u64, file: &File) -> io::Result<()> {
        self.journal.data(number, file)
    }

    fn folder(&self, folder: &File) -> io::Result<()> {
        self.journal.folder(folder)
    }

    fn room(&self) -> Result<(), Error> {
        self.journal.room()
    }

    fn make_way(&self, bytes: u64) -> bool {
        self.journal.make_way(bytes)
    }

    fn row(&self, _id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        let across = Across {
            seen: SeenAttributes {
                size: row.size,
                modified_ns: row.modified_ns,
                version: staged_version(row).as_bytes().into(),
                ..self.across.seen.clone()
            },
            staged: Some(row.encode()),
            staged_bytes: bytes.map(<[u8]>::to_vec),
            ..self.across.clone()
        };
        self.core.follow(|catalog| Ok(((), catalog.follow_across(&across)?)))
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        self.journal.bytes(id)
    }

    fn rows(&self) -> Result<(), Error> {
        self.journal.rows()
    }
}
