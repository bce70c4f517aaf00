//! What is done through handles of remote files, and to their attributes.

use std::sync::Arc;

use bytes::Bytes;
use manifold_backends::local::{AttributeChange, Durable, NewTime, SetMode, WriteAt};
use manifold_backends::{Presence, Timestamp};
use manifold_catalog::{Entry, EntryId, Kind};
use manifold_index::seen_attributes;

use super::bytes::Edit;
use crate::attributes::Attributes;
use crate::change::{Requester, Site, Writing};
use crate::error::Cause;
use crate::handle::{Access, Handle, OpenFile, OpenObject, Opened};
use crate::staging::Place;
use crate::vfs::Core;
use crate::{Answer, Error};

/// `fallocate(2)`'s flag for leaving the length alone.
const KEEP_SIZE: u32 = 1;

impl Core {
    /// Runs something with the object behind a handle.
    fn with_object<T>(&self, handle: Handle, run: impl FnOnce(&OpenObject) -> Answer<T>) -> Answer<T> {
        match self.files.get(handle).as_deref() {
            Some(OpenFile::Object(open)) => run(open),
            _ => Answer::err(Error::BadHandle),
        }
    }

    /// Opens a file of a remote source for writing. Nothing is staged before something is written.
    pub(crate) fn remote_open(&self, id: EntryId, access: Access) -> Answer<Opened> {
        // It was opened while its source was read-only.
        if self.files.is_read_by_kernel(id) {
            return Answer::err(Error::Busy);
        }
        let opened = self.remote_target_of(id).and_then(|_| self.open_object_for(id, access));
        Answer::Ready(opened)
    }

    /// Gives the length of an open object, as whoever reads it finds it.
    pub(crate) fn size_of(&self, open: &OpenObject) -> u64 {
        let staged = self.staged(open);
        staged.map_or_else(|| open.object().shape.size, |file| file.look().size)
    }

    pub(in crate::change) fn remote_write(
        self: &Arc<Self>,
        handle: Handle,
        bytes: &[u8],
        writing: Writing,
    ) -> Answer<u32> {
        let written = self.with_object(handle, |open| {
            if !open.writes {
                return Answer::err(Error::BadHandle);
            }
            let id = open.object().id;
            let mut bytes = bytes;
            let place = match writing.at {
                WriteAt::Offset(offset) => Place::At(offset),
                WriteAt::Append => Place::End,
                WriteAt::NoExtend(offset) => {
                    let left = self.size_of(open).saturating_sub(offset);
                    bytes = &bytes[..left.min(bytes.len() as u64) as usize];
                    Place::At(offset)
                }
            };
            let count = bytes.len() as u32;
            match self.edit(id, Some(open), Edit::Write(place, Bytes::copy_from_slice(bytes))) {
                Answer::Ready(result) => Answer::Ready(result.map(|()| count)),
                Answer::Pending(future) => Answer::Pending(Box::pin(async move { future.await.map(|()| count) })),
            }
        });
        if writing.durable == Durable::Later {
            return written;
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let count = written.wait().await?;
            core.remote_sync(handle, writing.durable == Durable::Data)
                .wait()
                .await?;
            Ok(count)
        }))
    }

    /// Makes what was written to a file last; all of it, whoever has written.
    pub(in crate::change) fn remote_sync(self: &Arc<Self>, handle: Handle, _data_only: bool) -> Answer<()> {
        self.with_object(handle, |open| match self.staged(open) {
            Some(file) => self.settle_bytes(&file, false),
            None => Answer::ok(()),
        })
    }

    /// Ends one descriptor's use of a handle.
    pub(crate) fn remote_flush(self: &Arc<Self>, handle: Handle) -> Answer<()> {
        self.with_object(handle, |open| match open.writes.then(|| self.staged(open)).flatten() {
            Some(file) => self.settle_bytes(&file, true),
            None => Answer::ok(()),
        })
    }

    /// Lengthens a file. Room is not set aside.
    pub(in crate::change) fn remote_allocate(
        self: &Arc<Self>,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Answer<()> {
        self.with_object(handle, |open| {
            if !open.writes {
                return Answer::err(Error::BadHandle);
            }
            if mode & !KEEP_SIZE != 0 || mode == KEEP_SIZE {
                return Answer::err(Error::Unsupported(Cause::new(
                    "a remote file has no room set aside, nor holes made",
                )));
            }
            let Some(end) = offset.checked_add(length) else {
                return Answer::err(Error::TooLarge);
            };
            if end <= self.size_of(open) {
                return Answer::ok(());
            }
            self.edit(open.object().id, Some(open), Edit::Truncate(end))
        })
    }

    pub(in crate::change) fn remote_set_attributes(
        self: &Arc<Self>,
        id: EntryId,
        handle: Option<Handle>,
        change: AttributeChange,
        by: Requester,
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
                core.remote_set_attributes(id, handle, rest, by).wait().await
            }));
        }
        let entry = match self.entry_of(id) {
            Ok(entry) => entry,
            // It is open and has no name any more: nothing of it is kept.
            Err(_) if open.is_some() => return Answer::Ready(self.attributes(id, handle)),
            Err(error) => return Answer::err(error),
        };
        match self.kept_attributes(&entry, change, by) {
            Ok(None) => Answer::Ready(self.attributes(id, handle)),
            Ok(Some(kept)) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(async move {
                    core.keep_attributes(&entry, kept).await?;
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

    /// Sorts out what of a change the source keeps; what it does not keep and what would be different is refused.
    fn kept_attributes(
        &self,
        entry: &Entry,
        change: AttributeChange,
        by: Requester,
    ) -> Result<Option<manifold_backends::Attributes>, Error> {
        let able = self.remote_target_of(entry.id)?.able;
        let refuse = |what: &str| Error::Unsupported(Cause::new(format!("its source does not keep {what}")));
        let owner = entry.owner.unwrap_or((by.uid, by.gid));
        if change.uid.is_some_and(|uid| uid != owner.0) || change.gid.is_some_and(|gid| gid != owner.1) {
            return Err(refuse("owners of our choice"));
        }
        let mut kept = manifold_backends::Attributes::default();
        if let Some(mode) = change
            .mode
            .map(|mode| mode & 0o7777)
            .filter(|mode| *mode != u32::from(entry.mode))
        {
            if !able.keeps_mode {
                return Err(refuse("permissions"));
            }
            kept.mode = Some(mode);
        }
        if let Some(modified) = change.modified {
            let modified_ns = match modified {
                NewTime::Now => self.writable()?.now_ns(),
                NewTime::At(seconds, ns) => Timestamp::from_parts(seconds, ns).0,
            };
            let known = self.attributes(entry.id, None)?.modified_ns;
            if able.keeps_modified {
                kept.modified = Some(Timestamp(modified_ns));
            } else if modified_ns != known && modified != NewTime::Now {
                return Err(refuse("times"));
            }
        }
        // The time of the last read is kept nowhere, here or there.
        Ok(Some(kept).filter(|kept| *kept != manifold_backends::Attributes::default()))
    }

    async fn keep_attributes(
        self: &Arc<Self>,
        entry: &Entry,
        mut kept: manifold_backends::Attributes,
    ) -> Result<(), Error> {
        let guard = self.catalog.begin_change(&[entry.parent]);
        let uploads = Arc::clone(self.writable()?);
        let hold = tokio::time::timeout(self.settings.data_deadline, uploads.hold(entry.id)).await;
        let _hold = hold.map_err(|_| Error::TimedOut(Cause::new("its upload did not end in time")))?;
        if let Some(file) = self.staged_entry(entry.id) {
            // They go with the upload.
            if let Some(modified) = kept.modified.take() {
                self.edit(entry.id, None, Edit::Modified(modified.0)).wait().await?;
            }
            if let Some(mode) = kept.mode.take() {
                self.follow_mode(entry, mode)?;
            }
            if file.is_recorded() {
                return self.settle_bytes(&file, true).wait().await;
            }
            return Ok(());
        }
        let target = self.remote_target_of(entry.id)?;
        let request = target.backend.set_attributes(&target.path, &kept);
        match self.ask(&target, request).await? {
            Presence::Absent => {
                self.look_into(entry.parent);
                Err(Error::NotFound)
            }
            Presence::Found(metadata) => {
                self.follow(|catalog| {
                    let changes = catalog.follow_attributes(entry.id, seen_attributes(&metadata))?;
                    Ok(((), changes))
                })?;
                if let Ok((object, _)) = crate::fetch::Object::find(&self.catalog, &self.indexer, entry.id) {
                    self.files.rebind(entry.id, &Arc::new(object));
                }
                drop(guard);
                Ok(())
            }
        }
    }

    fn follow_mode(&self, entry: &Entry, mode: u32) -> Result<(), Error> {
        let (entry, details) = crate::fetch::object::rows(&self.catalog, entry.id)?;
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
        self.follow(|catalog| Ok(((), catalog.follow_attributes(entry.id, seen)?)))
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

    /// There are no extended attributes.
    pub(in crate::change) fn remote_attribute(&self, _: EntryId, _: &[u8]) -> Answer<Vec<u8>> {
        Answer::err(Error::Unsupported(Cause::new("its source has no extended attributes")))
    }

    pub(in crate::change) fn remote_attribute_names(&self, _: EntryId) -> Answer<Vec<u8>> {
        Answer::ok(Vec::new())
    }

    pub(in crate::change) fn remote_set_attribute(&self, _: EntryId, _: &[u8], _: &[u8], _: SetMode) -> Answer<()> {
        Answer::err(Error::Unsupported(Cause::new("its source has no extended attributes")))
    }

    pub(in crate::change) fn remote_remove_attribute(&self, _: EntryId, _: &[u8]) -> Answer<()> {
        Answer::err(Error::Unsupported(Cause::new("its source has no extended attributes")))
    }
}
