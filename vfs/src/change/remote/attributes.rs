//! Attributes of what stands at remote sources: the source stores those that it can, and the catalog keeps the others where the
//! source's settings say so.
//!
//! Always true: a change that was answered well survives a crash, but for one of a file that was written to and neither closed
//! nor synced since: that is made to last together with its bytes.

use std::sync::Arc;

use manifold_backends::local::{AttributeChange, NewTime, SetMode};
use manifold_backends::{Presence, Timestamp, Version};
use manifold_catalog::{
    AttributeMustBe, AttributeRefused, Change, Entry, EntryId, KEPT_ATTRIBUTES_MAX, Keep, Kind, SourceId,
};
use manifold_index::seen_attributes;

use super::bytes::Edit;
use super::names::is_unable;
use super::settled;
use crate::attributes::Attributes;
use crate::change::{Requester, Site};
use crate::error::Cause;
use crate::fetch::Object;
use crate::fetch::object::not_connected;
use crate::fetch::object::rows;
use crate::handle::{Handle, OpenFile, OpenObject};
use crate::staging::StagedFile;
use crate::vfs::Core;
use crate::{Answer, Error};

/// How the names begin of extended attributes that are kept: those that people and programs give their files. What the system
/// gives them has a meaning that nobody would see to.
const KEPT_PREFIX: &[u8] = b"user.";

/// Permission bits that give a program the rights of its file's owner and group.
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// What is to be done about a change of attributes.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// What the source stores.
    there: manifold_backends::Attributes,
    /// What the catalog keeps, now or if the source does not store it as it was wanted.
    here: Keep,
    /// Whether the catalog keeps what the source does not.
    keeps: bool,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        self.there == manifold_backends::Attributes::default() && self.here == Keep::default()
    }

    /// Tells whether the source is to be asked.
    fn is_for_source(&self) -> bool {
        self.there != manifold_backends::Attributes::default()
    }
}

impl Core {
    pub(in crate::change) fn remote_set_attributes(
        self: &Arc<Self>,
        id: EntryId,
        handle: Option<Handle>,
        change: AttributeChange,
    ) -> Answer<Attributes> {
        let open = handle.and_then(|handle| self.files.get(handle));
        if let Some(size) = change.size {
            let open = match open.as_deref() {
                Some(OpenFile::Object(open)) => Some(open),
                _ => None,
            };
            let cut = self.cut_off(id, open, size);
            let rest = AttributeChange { size: None, ..change };
            let core = Arc::clone(self);
            return Answer::Pending(Box::pin(async move {
                cut.wait().await?;
                core.remote_set_attributes(id, handle, rest).wait().await
            }));
        }
        let entry = match self.entry_of(id) {
            Ok(entry) => entry,
            // The kernel asks without a handle, also for who has one.
            Err(Error::Stale) if self.files.is_open(id) => {
                let set = self.set_nameless(id, change);
                return Answer::Ready(set.and_then(|()| self.attributes(id, handle)));
            }
            Err(error) => return Answer::err(error),
        };
        match self.check_room().and_then(|()| self.sort_out(&entry, change)) {
            Ok(wanted) if wanted.is_nothing() => Answer::Ready(self.attributes(id, handle)),
            Ok(wanted) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(async move {
                    core.carry_out(&entry, wanted).await?;
                    core.attributes(id, handle)
                }))
            }
            Err(error) => Answer::err(error),
        }
    }

    /// Cuts a file off. What nobody has open is made to last at once: nobody will close it.
    fn cut_off(self: &Arc<Self>, id: EntryId, open: Option<&OpenObject>, size: u64) -> Answer<()> {
        if open.is_none() {
            match self.entry_of(id) {
                Ok(entry) if entry.kind == Kind::Directory => return Answer::err(Error::IsADirectory),
                Ok(_) => {}
                Err(error) => return Answer::err(error),
            }
        }
        let unchanged = match open {
            Some(open) => self.size_of(open) == size,
            None => self
                .attributes(id, None)
                .is_ok_and(|attributes| attributes.size == size),
        };
        if unchanged && self.staged_entry(id).is_none() && size > 0 {
            return Answer::ok(());
        }
        let cut = self.edit(id, open, Edit::Truncate(size));
        if open.is_some() {
            return cut;
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            cut.wait().await?;
            match core.staged_entry(id) {
                Some(file) => core.settle_bytes(&file, true).wait().await,
                None => Ok(()),
            }
        }))
    }

    /// Sorts out what of a change the source stores and what is kept; what is neither and would be different is refused.
    fn sort_out(&self, entry: &Entry, change: AttributeChange) -> Result<Wanted, Error> {
        let able = self.remote_target_of(entry.id)?.able;
        let uploads = self.writable()?;
        let keeps = uploads.keeps_attributes(entry.source);
        let refuse = |what: &str| Error::Unsupported(Cause::new(format!("its source does not keep {what}")));
        let mut wanted = Wanted {
            keeps,
            ..Wanted::default()
        };
        let known_mode = u32::from(entry.mode);
        let mut mode = change.mode.map(|mode| mode & 0o7777);
        if change.uid.is_some() || change.gid.is_some() {
            let before = entry.owner.unwrap_or(*self.owner.read());
            let owner = (change.uid.unwrap_or(before.0), change.gid.unwrap_or(before.1));
            if owner != before && !keeps {
                return Err(refuse("owners of our choice"));
            }
            wanted.here.owner = Some(owner).filter(|owner| *owner != before);
            if entry.kind == Kind::File {
                mode = Some(without_rights(mode.unwrap_or(known_mode)));
            }
        }
        if let Some(mode) = mode.filter(|mode| *mode != known_mode) {
            if able.keeps_mode {
                wanted.there.mode = Some(mode);
            } else if keeps {
                wanted.here.mode = Some(mode as u16);
            } else {
                return Err(refuse("permissions"));
            }
        }
        let now_ns = uploads.now_ns();
        let in_ns = |time: NewTime| in_ns(time, now_ns);
        if let Some(modified) = change.modified {
            let modified_ns = in_ns(modified);
            if able.keeps_modified {
                wanted.there.modified = Some(Timestamp(modified_ns));
            }
            if keeps {
                wanted.here.modified_ns = Some(modified_ns);
            } else if !able.keeps_modified
                && modified != NewTime::Now
                && modified_ns != self.attributes(entry.id, None)?.modified_ns
            {
                return Err(refuse("times"));
            }
        }
        // Where nothing is kept, the time of the last read is accepted all the same: it matters to nobody.
        wanted.here.accessed_ns = change.accessed.filter(|_| keeps).map(in_ns);
        if keeps && !wanted.is_nothing() {
            wanted.here.changed_ns = Some(now_ns);
        }
        Ok(wanted)
    }

    async fn carry_out(self: &Arc<Self>, entry: &Entry, wanted: Wanted) -> Result<(), Error> {
        let uploads = Arc::clone(self.writable()?);
        let _turn = if wanted.is_for_source() {
            Some(self.turn_at(&uploads, &[(entry.parent, &entry.name)]).await?)
        } else {
            None
        };
        let guard = self.catalog.begin_change(&[entry.parent]);
        let sets_time = wanted.here.modified_ns.is_some() || wanted.there.modified.is_some();
        let is_staged = self.staged_entry(entry.id).is_some();
        // An upload takes the time along, and gives the place a new version.
        let _hold = if wanted.is_for_source() || (sets_time && is_staged) {
            Some(self.hold_upload(&uploads, entry.id).await?)
        } else {
            None
        };
        let staged = self.staged_entry(entry.id);
        match &staged {
            Some(file) => self.set_staged(entry, file, wanted).await?,
            None if wanted.is_for_source() => self.set_there(entry, wanted).await?,
            None => self.keep_here(entry.id, wanted.here, None)?,
        }
        drop(guard);
        match staged {
            Some(file) if !file.is_recorded() => Ok(()),
            Some(file) if sets_time => {
                self.settle_bytes(&file, true).wait().await?;
                self.sync_catalog().wait().await
            }
            _ => self.sync_catalog().wait().await,
        }
    }

    /// Sets attributes of a file that is to be uploaded. Those that its source stores go along.
    async fn set_staged(self: &Arc<Self>, entry: &Entry, file: &Arc<StagedFile>, wanted: Wanted) -> Result<(), Error> {
        let modified_ns = wanted.there.modified.map(|it| it.0).or(wanted.here.modified_ns);
        if let Some(modified_ns) = modified_ns {
            self.edit(file.id, None, Edit::Modified(modified_ns)).wait().await?;
        }
        if let Some(mode) = wanted.there.mode {
            let (entry, details) = rows(&self.catalog, entry.id)?;
            let seen = manifold_catalog::SeenAttributes {
                kind: entry.kind,
                size: entry.size,
                modified_ns: entry.modified_ns,
                changed_ns: entry.changed_ns,
                created_ns: details.created_ns,
                mode: mode as u16,
                owner: entry.owner,
                links: entry.links,
                device: details.device,
                version: details.version,
                identity: details.identity,
            };
            self.follow(|catalog| Ok(((), catalog.follow_attributes(entry.id, seen)?)))?;
        }
        if wanted.here == Keep::default() {
            return Ok(());
        }
        self.keep_here(entry.id, wanted.here, None)
    }

    /// Has the source store what it can, and keeps what it did not store as it was wanted.
    async fn set_there(self: &Arc<Self>, entry: &Entry, wanted: Wanted) -> Result<(), Error> {
        let target = self.remote_target_of(entry.id)?;
        let mut settled = match entry.kind {
            Kind::Directory => None,
            _ => self.settle_origins(&[entry.id]).await?,
        };
        let request = target.backend.set_attributes(&target.path, &wanted.there);
        let set = self.ask(&target, request).await;
        let seen = match set.inspect_err(|error| settled::lasts_if_away(&mut settled, error)) {
            Ok(Presence::Found(metadata)) => Some(seen_attributes(&metadata)),
            Ok(Presence::Absent) => {
                self.look_into(entry.parent);
                return Err(Error::NotFound);
            }
            // Not of this sort of entry: a link, say.
            Err(error) if wanted.keeps && is_unable(&error) => None,
            Err(error) => return Err(error),
        };
        let mut here = wanted.here;
        if wanted.keeps {
            let is_stored = |mode: &u32| seen.as_ref().is_some_and(|seen| u32::from(seen.mode) == *mode);
            let mode = wanted.there.mode.filter(|mode| !is_stored(mode));
            here.mode = here.mode.or(mode.map(|mode| mode as u16));
        }
        if let Some(seen) = &seen
            && self.known_version(entry.id)?.as_deref() != Some(&*seen.version)
        {
            let version = Version::from_stored(&seen.version);
            self.fetcher.forget_lookalike(entry.id, &version, seen.size);
        }
        self.keep_here(entry.id, here, seen)?;
        drop(settled);
        if let Ok((object, _)) = Object::find(&self.catalog, &self.indexer, entry.id) {
            self.files.rebind(entry.id, &Arc::new(object));
        }
        Ok(())
    }

    /// Gives who is to own what somebody makes, where that is not who owns all of which nothing is kept.
    pub(super) fn owner_to_keep(&self, source: SourceId, by: Requester) -> Option<(u32, u32)> {
        let owner = (by.uid, by.gid);
        (self.keeps_attributes(source) && owner != *self.owner.read()).then_some(owner)
    }

    /// Has the catalog keep attributes of an entry.
    pub(super) fn keep_here(
        &self,
        id: EntryId,
        keep: Keep,
        seen: Option<manifold_catalog::SeenAttributes>,
    ) -> Result<(), Error> {
        self.follow(|catalog| Ok(((), catalog.keep(id, &keep, seen)?)))
    }

    /// Makes everything last that the catalog was told.
    pub(in crate::change) fn sync_catalog(self: &Arc<Self>) -> Answer<()> {
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let catalog = Arc::clone(&core.catalog);
            core.blocking(move || catalog.sync().map_err(Error::from_catalog)).await
        }))
    }

    /// Gives the value of an extended attribute that is kept here.
    pub(in crate::change) fn kept_attribute(&self, id: EntryId, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !name.starts_with(KEPT_PREFIX) {
            return Ok(None);
        }
        let value = self.catalog.kept_attribute(id, name).map_err(Error::from_catalog)?;
        Ok(value.map(<[u8]>::into_vec))
    }

    /// Gives the names of all extended attributes that are kept here, each with a NUL after it.
    pub(in crate::change) fn kept_attribute_names(&self, id: EntryId) -> Result<Vec<u8>, Error> {
        let names = self.catalog.kept_attributes(id).map_err(Error::from_catalog)?;
        Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    /// Says that an extended attribute is not there, or cannot be.
    pub(in crate::change) fn no_attribute(&self, source: SourceId, name: &[u8]) -> Error {
        let could_be = name.starts_with(KEPT_PREFIX) && source != SourceId::LIBRARY;
        if could_be && self.indexer.backend(source).is_none() {
            // It may be a folder of this machine, whose disk knows.
            return not_connected(&self.indexer, source);
        }
        if could_be && self.keeps_attributes(source) {
            Error::NoData
        } else {
            no_attributes()
        }
    }

    pub(in crate::change) fn remote_set_attribute(
        self: &Arc<Self>,
        id: EntryId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Answer<()> {
        if name == KEPT_PREFIX {
            return Answer::err(Error::InvalidArgument);
        }
        if value.len() > KEPT_ATTRIBUTES_MAX {
            return Answer::err(Error::ValueTooLong);
        }
        let must_be = match mode {
            SetMode::Any => AttributeMustBe::Anything,
            SetMode::Create => AttributeMustBe::Absent,
            SetMode::Replace => AttributeMustBe::Present,
        };
        self.change_attribute(id, name, |catalog, now_ns| {
            catalog.keep_attribute(id, name, value, must_be, now_ns)
        })
    }

    pub(in crate::change) fn remote_remove_attribute(self: &Arc<Self>, id: EntryId, name: &[u8]) -> Answer<()> {
        self.change_attribute(id, name, |catalog, now_ns| catalog.drop_attribute(id, name, now_ns))
    }

    fn change_attribute(
        self: &Arc<Self>,
        id: EntryId,
        name: &[u8],
        change: impl FnOnce(
            &manifold_catalog::Catalog,
            i64,
        ) -> manifold_catalog::Result<Result<Vec<Change>, AttributeRefused>>,
    ) -> Answer<()> {
        let changed = || -> Result<(), Error> {
            let entry = self.entry_of(id)?;
            drop(self.remote_target_of(id)?);
            if !name.starts_with(KEPT_PREFIX) || !self.keeps_attributes(entry.source) {
                return Err(no_attributes());
            }
            let _change = self.catalog.begin_change(&[entry.parent]);
            let now_ns = self.writable()?.now_ns();
            let changed = self.follow(|catalog| {
                Ok(match change(catalog, now_ns)? {
                    Ok(changes) => (Ok(()), changes),
                    Err(refused) => (Err(refused), Vec::new()),
                })
            })?;
            changed.map_err(refused)
        };
        match changed() {
            Err(error) => Answer::err(error),
            Ok(()) if self.staged_entry(id).is_some_and(|file| !file.is_recorded()) => Answer::ok(()),
            Ok(()) => self.sync_catalog(),
        }
    }

    /// Tells whether the catalog keeps what a source cannot store.
    pub(super) fn keeps_attributes(&self, source: SourceId) -> bool {
        self.uploads
            .get()
            .is_some_and(|uploads| uploads.keeps_attributes(source))
    }
}

/// What no remote source has.
#[expect(
    clippy::unused_self,
    reason = "a refusal needs nothing of the file system, but is asked of it"
)]
impl Core {
    pub(in crate::change) fn remote_link(&self, _: EntryId, _: &Site, _: &[u8]) -> Answer<Attributes> {
        Answer::err(Error::Unsupported(Cause::new(
            "its source has no further names for one file",
        )))
    }
}

/// Gives a time in nanoseconds since 1970-01-01 UTC.
pub(super) fn in_ns(time: NewTime, now_ns: i64) -> i64 {
    match time {
        NewTime::Now => now_ns,
        NewTime::At(seconds, ns) => Timestamp::from_parts(seconds, ns).0,
    }
}

/// Takes the rights away that a program would have of an owner who has changed.
pub(super) fn without_rights(mode: u32) -> u32 {
    let group = if mode & GROUP_EXECUTES == 0 { 0 } else { SET_GROUP };
    mode & !(SET_USER | group)
}

fn no_attributes() -> Error {
    Error::Unsupported(Cause::new("neither its source nor the catalog keeps such attributes"))
}

fn refused(refused: AttributeRefused) -> Error {
    match refused {
        AttributeRefused::Exists => Error::Exists,
        AttributeRefused::Missing => Error::NoData,
        AttributeRefused::NoRoom => Error::Full,
        AttributeRefused::BadName => Error::InvalidArgument,
    }
}
