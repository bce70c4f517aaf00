//! Looking: names, attributes and links, out of the catalog wherever it knows.
//!
//! Always true: "not there" is said of a completely listed directory only; a directory that was never listed is listed first, and if that
//! fails the answer is its failure. What may be out of date is answered as it is, and brought up to date behind the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_backends::{ObjectPath, Presence};
use manifold_catalog::{Catalog, Entry, EntryId, Kind, LinkTarget, SourceId};

use crate::attributes::{Attributes, NameMatch};
use crate::error::Cause;
use crate::handle::OpenFiles;
use crate::staging::Look;
use crate::vfs::Core;
use crate::{Answer, Error, Handle};

/// The longest name, in bytes.
const NAME_MAX: usize = 255;
/// How often one directory is looked at for being out of date, at most.
const STALE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// A stored name, and what stands under it.
type Named = (Box<[u8]>, Attributes);

impl Core {
    /// Looks a name up in what is known. `None`: the directory was never listed, so nobody can tell.
    pub(crate) fn lookup_known(
        self: &Arc<Self>,
        parent: EntryId,
        name: &[u8],
        how: NameMatch,
    ) -> Result<Option<Named>, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return Err(Error::InvalidArgument);
        }
        let find = || match how {
            NameMatch::Exact => self.catalog.lookup(parent, name),
            NameMatch::Fold => self.catalog.lookup_folded(parent, name),
        };
        let mut found = find().map_err(Error::from_catalog)?;
        if found.is_none() {
            if !self.is_listed(parent)? {
                return Ok(None);
            }
            // The first listing may have come between the two questions; only what is not there after it is not there.
            found = find().map_err(Error::from_catalog)?;
        }
        if let Some(entry) = found {
            // An attach point's directory belongs to another source, or to none.
            if !entry.attach_point {
                self.refresh_behind(parent, entry.source);
            }
            let attributes = self.attributes_shown(&entry)?;
            return Ok(Some((entry.name, attributes)));
        }
        Err(Error::NotFound)
    }

    /// Tells whether a directory has been listed completely, and has it listed again behind that if it may be out of date.
    pub(crate) fn is_listed(self: &Arc<Self>, id: EntryId) -> Result<bool, Error> {
        let entry = self
            .catalog
            .entry(id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        if entry.kind != Kind::Directory {
            return Err(Error::NotADirectory);
        }
        if entry.source == SourceId::LIBRARY {
            return Ok(true);
        }
        let state = self.catalog.directory_state(id).map_err(Error::from_catalog)?;
        let is_listed = state.is_some_and(|it| it.listed_ns.is_some());
        if is_listed {
            self.refresh_behind(id, entry.source);
        }
        Ok(is_listed)
    }

    /// Lists a directory now, within the deadline.
    pub(crate) async fn list(self: &Arc<Self>, directory: EntryId) -> Result<(), Error> {
        let deadline = self.settings.metadata_deadline;
        if let Ok(listed) = tokio::time::timeout(deadline, self.indexer.list_now(directory)).await {
            return listed.map_err(Error::from_index);
        }
        // Where its links point may take longer than that, and its names are known.
        let state = self.catalog.directory_state(directory).map_err(Error::from_catalog)?;
        if state.is_some_and(|state| state.listed_ns.is_some()) {
            return Ok(());
        }
        let source = self.source_of(directory)?;
        if let Some(out_of_reach) = self.indexer.out_of_reach(source) {
            return Err(Error::from_index(out_of_reach));
        }
        let path = self
            .catalog
            .tree_path(directory)
            .map_err(Error::from_catalog)?
            .unwrap_or_default();
        let (path, after) = (path.escape_ascii(), deadline.as_secs_f32());
        Err(Error::TimedOut(Cause::new(format!(
            "list {path}: no answer within {after} s"
        ))))
    }

    /// Has a directory listed again in the background if what is known of it is stale.
    pub(crate) fn refresh_behind(&self, directory: EntryId, source: SourceId) {
        if source == SourceId::LIBRARY {
            return;
        }
        let now = Instant::now();
        {
            let mut checked = self.checked.lock();
            if checked.is_some_and(|(id, at)| id == directory && now < at + STALE_CHECK_EVERY) {
                return;
            }
            *checked = Some((directory, now));
        }
        self.recent.note(directory, source, now);
        self.indexer
            .refresh_directory_if_stale(directory, self.refresh_of(source));
    }

    /// Says after how long a listing of a source is stale.
    pub(crate) fn refresh_of(&self, source: SourceId) -> Duration {
        let own = self.refresh.read().get(&source).copied();
        own.unwrap_or(self.settings.refresh)
    }

    pub(crate) fn attributes(&self, id: EntryId, handle: Option<Handle>) -> Result<Attributes, Error> {
        if let Some(handle) = handle
            && self.files.get(handle).is_none()
        {
            return Err(Error::BadHandle);
        }
        match self.catalog.entry(id).map_err(Error::from_catalog)? {
            Some(entry) => {
                if !entry.attach_point {
                    self.refresh_behind(entry.parent, entry.source);
                }
                attributes_of(&self.catalog, &self.files, &entry)
            }
            None => self.attributes_without_name(id),
        }
    }

    /// Gives the attributes of an entry that the catalog has no more: it was replaced or removed, but somebody uses it.
    fn attributes_without_name(&self, id: EntryId) -> Result<Attributes, Error> {
        let now = on_disk(&self.files, id).or_else(|| {
            let held = self.files.held(id).filter(|held| !held.may_hang())?;
            let (seen, blocks) = held.metadata_and_blocks().ok()?;
            Some(Attributes {
                // Whoever has it open beside the mount may write to it, and no notice tells of what has no name.
                volatile: true,
                ..Attributes::of_disk(id, &seen, Some(blocks))
            })
        });
        if let Some(staged) = self.files.staged_without_name(id)
            && let Some(known) = self.files.attributes(id)
        {
            return Ok(as_staged(without_name(known), staged.look()));
        }
        // Else as it was.
        let known = || {
            let known = self.files.attributes(id);
            // Of what a disk has lost, the links were counted since.
            let known = match self.files.held(id) {
                Some(_) => known,
                None => known.map(without_name),
            };
            known.or_else(|| Some(self.gone.get(&id)?.attributes))
        };
        now.or_else(known).ok_or(Error::Stale)
    }

    pub(crate) fn read_link(self: &Arc<Self>, id: EntryId) -> Answer<Vec<u8>> {
        let known = || -> Result<_, Error> {
            let entry = self
                .catalog
                .entry(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?;
            if entry.kind != Kind::Symlink {
                return Err(Error::InvalidArgument);
            }
            let details = self
                .catalog
                .details(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?;
            Ok((entry.source, details.version))
        };
        let (source, version) = match known() {
            Ok(known) => known,
            Err(error) => return Answer::err(error),
        };
        match self.catalog.link_target(id) {
            Ok(Some(target)) => return Answer::ok(target.into()),
            Ok(None) => {}
            Err(error) => return Answer::err(Error::from_catalog(error)),
        }
        let key = (id, version);
        if let Some(target) = self.links.get(&key) {
            return Answer::ok(target.to_vec());
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let end = tokio::time::Instant::now() + core.settings.metadata_deadline;
            // Whether it came in time is seen next.
            let _connected = tokio::time::timeout_at(end, core.indexer.until_connected(source)).await;
            let backend = core.indexer.backend(source);
            let backend =
                backend.ok_or_else(|| Error::Unreachable(Cause::new(format!("source {source} is not connected"))))?;
            let path = core
                .catalog
                .object_path(id)
                .map_err(Error::from_catalog)?
                .ok_or(Error::Stale)?
                .1;
            let path = ObjectPath::from_bytes(path);
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            // A source that is known to be away is not waited for.
            let told = core.indexer.ask(source, &path, left, backend.read_link(&path)).await;
            match told.map_err(Error::from_index)? {
                Presence::Absent => Err(Error::NotFound),
                Presence::Found(target) if backend.as_local().is_some() => {
                    core.links.insert(key, target.as_slice().into());
                    Ok(target)
                }
                Presence::Found(target) => {
                    let noting = Arc::clone(&core);
                    core.blocking(move || {
                        let (id, version) = key;
                        noting.note_link(id, &version, &target)?;
                        Ok(target)
                    })
                    .await
                }
            }
        }))
    }
}

impl Core {
    /// Notes where a link points whose source has just told, or been told.
    pub(crate) fn note_link(&self, id: EntryId, version: &[u8], target: &[u8]) -> Result<(), Error> {
        let read = LinkTarget {
            id,
            version: version.into(),
            target: target.into(),
        };
        self.follow(|catalog| Ok(((), catalog.set_link_targets(&[read])?)))
    }
}

/// Makes attributes of a row; a device's number, and a time of the last read that was set, stand in other ones. What is
/// a file of this machine and open has those of the disk.
pub(crate) fn attributes_of(catalog: &Catalog, files: &OpenFiles, entry: &Entry) -> Result<Attributes, Error> {
    let id = first_name(catalog, entry)?;
    if let Some(attributes) = on_disk(files, id) {
        return Ok(attributes);
    }
    let accessed_ns = if entry.keeps_more {
        catalog.kept_accessed(entry.id).map_err(Error::from_catalog)?
    } else {
        None
    };
    let attributes = Attributes {
        id,
        accessed_ns,
        ..Attributes::of(entry)
    };
    if let Some(staged) = files.staged(entry.id) {
        return Ok(as_staged(attributes, staged.look()));
    }
    if !matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        return Ok(attributes);
    }
    let details = catalog.details(entry.id).map_err(Error::from_catalog)?;
    Ok(details.map_or(attributes.clone(), |details| attributes.with(&details)))
}

/// Gives the number under which an entry is shown. Names of one object are entries of their own, but have the number of the
/// oldest of them: programs recognise by it that they are one.
pub(crate) fn first_name(catalog: &Catalog, entry: &Entry) -> Result<EntryId, Error> {
    if entry.links < 2 || entry.kind == Kind::Directory {
        return Ok(entry.id);
    }
    catalog.first_name(entry.id).map_err(Error::from_catalog)
}

/// Takes the name off the links of what has lost it.
fn without_name(mut known: Attributes) -> Attributes {
    known.links = match known.kind {
        Kind::Directory => 0,
        _ => known.links.saturating_sub(1),
    };
    known
}

/// Shows what was written to a file and is not uploaded yet. That may change without a word.
fn as_staged(known: Attributes, look: Look) -> Attributes {
    Attributes {
        modified_ns: look.modified_ns,
        // Attributes may have changed since; and the time of the last change of the bytes may have been set to the past.
        changed_ns: known.changed_ns.max(look.modified_ns),
        volatile: true,
        ..known.with_size(look.size)
    }
}

/// Gives the attributes of a file of this machine that is open here, as the disk has them now: whoever has it open sees it grow.
/// Where the disk may hang, those of a file that is open for writing are as they were after the last write, and those of another
/// are the catalog's.
fn on_disk(files: &OpenFiles, id: EntryId) -> Option<Attributes> {
    let file = files.open_here(id)?;
    let attributes = if !file.may_hang() {
        let (seen, blocks) = file.held().metadata_and_blocks().ok()?;
        Attributes::of_disk(id, &seen, Some(blocks))
    } else if file.writes() {
        files.attributes(id)?
    } else {
        return None;
    };
    Some(Attributes {
        volatile: true,
        ..attributes
    })
}
