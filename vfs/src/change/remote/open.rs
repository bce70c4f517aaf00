//! What is done through handles of remote files.

use std::sync::Arc;

use bytes::Bytes;
use manifold_backends::local::{Durable, WriteAt};
use manifold_catalog::{Entry, EntryId};
use manifold_index::names;

use super::bytes::Edit;
use crate::change::Writing;
use crate::error::Cause;
use crate::handle::{Access, Handle, OpenFile, OpenObject, Opened};
use crate::staging::{Place, StagedFile};
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
    pub(crate) fn remote_open(self: &Arc<Self>, id: EntryId, access: Access) -> Answer<Opened> {
        // It was opened while its source was read-only.
        if self.files.is_read_by_kernel(id) {
            return Answer::err(Error::Busy);
        }
        match self.in_doubt(id) {
            Ok(None) => {}
            Ok(Some((entry, file))) => {
                let core = Arc::clone(self);
                return Answer::Pending(Box::pin(async move {
                    let patience = core.settings.data_deadline / 2;
                    core.writable()?.find_name(&file, patience).await;
                    core.has_its_name(&entry)?;
                    core.open_named(id, access).wait().await
                }));
            }
            Err(error) => return Answer::err(error),
        }
        let opened = self.remote_target_of(id).and_then(|_| self.open_object_for(id, access));
        Answer::Ready(opened)
    }

    /// Finds the file, this one or another, of which it is not known whether its source has renamed it, so that this one stands no longer under
    /// its name. What is written to it is to have the name by which it was found.
    fn in_doubt(&self, id: EntryId) -> Result<Option<(Entry, Arc<StagedFile>)>, Error> {
        let perhaps = self.writable()?.staging.perhaps_renamed();
        if perhaps.iter().all(|(_, renamed)| renamed.stays) {
            return Ok(None);
        }
        let entry = self.catalog.entry(id).map_err(Error::from_catalog)?;
        let entry = entry.ok_or(Error::Stale)?;
        let concerned = perhaps.into_iter().find(|(whose, renamed)| {
            let shown = names::escape(&renamed.name, names::Side::Plain);
            let to = (EntryId(renamed.directory), &*shown);
            !renamed.stays && (*whose == id || to == (entry.parent, &*entry.name))
        });
        let file = concerned.and_then(|(whose, _)| self.staged_entry(whose));
        Ok(file.map(|file| (entry, file)))
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
        let settled = self.with_object(handle, |open| match self.staged(open) {
            Some(file) => self.settle_bytes(&file, false),
            None => Answer::ok(()),
        });
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            settled.wait().await?;
            // Attributes that were changed while nobody was promised anything.
            core.sync_catalog().wait().await
        }))
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
}
