//! The bytes of staged files: reading, writing, cutting off, and making it last.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use manifold_catalog::EntryId;
use tokio::time::timeout;

use crate::error::Cause;
use crate::fetch::base;
use crate::fetch::object::rows;
use crate::handle::{Handle, OpenObject};
use crate::staging::row::Base;
use crate::staging::{Place, Refused, StagedFile, fresh_row};
use crate::upload::WritePolicy;
use crate::vfs::Core;
use crate::{Answer, Error};

/// How long closing a file waits for its upload, where it does: in deadlines. A request must not last for two.
const THROUGH_DEADLINES: f32 = 1.9;

/// Of files up to this length, in bytes, all is taken over when a part is written.
const COMPLETED_MAX: u64 = 16 << 20;

/// What is done to the bytes of a file.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Write(Place, Bytes),
    Truncate(u64),
    Modified(i64),
}

impl Core {
    /// Gives what is staged of an open file.
    pub(crate) fn staged(&self, open: &OpenObject) -> Option<Arc<StagedFile>> {
        let uploads = self.uploads.get()?;
        open.staged(|| uploads.staging.get(open.object().id))
    }

    /// Gives what is staged of an entry.
    pub(crate) fn staged_entry(&self, id: EntryId) -> Option<Arc<StagedFile>> {
        self.uploads.get()?.staging.get(id)
    }

    /// Reads from a staged file: at once where all of it was written here.
    pub(crate) fn read_staged(
        self: &Arc<Self>,
        handle: Handle,
        file: &Arc<StagedFile>,
        offset: u64,
        length: u32,
    ) -> Answer<Bytes> {
        let left = file.look().size.saturating_sub(offset);
        let mut buffer = vec![0; u64::from(length).min(left) as usize];
        let rest = match file.read(offset, &mut buffer) {
            Ok((length, rest)) => {
                buffer.truncate(length);
                rest
            }
            Err(error) => return Answer::err(error),
        };
        let Some(rest) = rest else {
            return Answer::ok(buffer.into());
        };
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let (reader, range) = ((handle, file.id), offset..offset.saturating_add(u64::from(length)));
        self.wait_once(reader, range, async move {
            let deadline = core.settings.data_deadline;
            let read = async {
                match base::fill(&core.fetcher, file.id, &rest, offset, &mut buffer).await {
                    Ok(()) => Ok(buffer.into()),
                    // An upload of our own may have replaced that version a moment ago; then there is another to read from.
                    Err(Error::Stale) if core.is_based_otherwise(&file, &rest.base).await => {
                        core.read(handle, offset, length).wait().await
                    }
                    Err(error) => Err(error),
                }
            };
            match timeout(deadline, read).await {
                Ok(read) => read,
                Err(_) => Err(core.late(file.id, deadline)),
            }
        })
    }

    /// Says that what shows through a file was not read in time.
    fn late(&self, id: EntryId, deadline: Duration) -> Error {
        let source = self.source_of(id).ok();
        let out_of_reach = source.and_then(|source| self.indexer.out_of_reach(source));
        out_of_reach.map_or_else(|| late(deadline), Error::from_index)
    }

    /// Waits until it is known what has become of uploads of a file, and tells whether it is read from another version now.
    async fn is_based_otherwise(&self, file: &Arc<StagedFile>, base: &Base) -> bool {
        let Some(uploads) = self.uploads.get() else {
            return false;
        };
        let is_other = || file.is_concluded() || file.shows_through().as_ref() != Some(&base.version);
        uploads.until_news(|| is_other() || !file.was_sent()).await;
        is_other()
    }

    /// Changes the bytes of a file. `open` is what it is open as, if it is.
    pub(crate) fn edit(self: &Arc<Self>, id: EntryId, open: Option<&OpenObject>, edit: Edit) -> Answer<()> {
        let staged = match open {
            Some(open) => self.staged(open),
            None => self.staged_entry(id),
        };
        let in_doubt = staged.as_ref().is_some_and(|file| file.is_to_be_asked());
        let mut refused = None;
        if !in_doubt {
            match self.try_edit(id, open, &edit) {
                Ok(()) => return Answer::ok(()),
                Err(Refused::Failed(error)) => return Answer::err(error),
                Err(other) => refused = Some(other),
            }
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let deadline = core.settings.data_deadline;
            let end = tokio::time::Instant::now() + deadline;
            if in_doubt && let Some(file) = &staged {
                core.find_out(file, deadline / 2).await;
            }
            loop {
                match refused.take() {
                    None => {}
                    Some(Refused::Failed(error)) => return Err(error),
                    Some(Refused::NoRoom(bytes)) => {
                        let patience = end.saturating_duration_since(tokio::time::Instant::now());
                        let staging = &core.writable()?.staging;
                        if !staging.wait_for_room(bytes, patience).await {
                            return Err(Error::Full);
                        }
                    }
                    Some(Refused::Retired) => {
                        if let Some(file) = staged.clone().or_else(|| core.staged_entry(id)) {
                            core.blocking(move || {
                                file.wait_for_conclusion();
                                Ok(())
                            })
                            .await?;
                        }
                    }
                    Some(Refused::Unrecorded) => {
                        if let Some(file) = staged.clone().or_else(|| core.staged_entry(id)) {
                            core.writable()?.record(&file).await?;
                        }
                    }
                }
                // Where the entry is unlinked, its handle's own staged file is the only one.
                let tried = match staged.as_ref().filter(|file| file.is_orphan()) {
                    Some(file) => apply(file, &edit, core.writable()?.now_ns()),
                    None => core.try_edit(id, None, &edit),
                };
                match tried {
                    Ok(()) => return Ok(()),
                    Err(again) => refused = Some(again),
                }
            }
        }))
    }

    /// Finds out what the source has of a file whose upload may have been under way when the daemon died. Where that cannot
    /// be told in time, it is made sure that it can be later; of a file that cannot be read in that time, it may not be.
    async fn find_out(&self, file: &Arc<StagedFile>, patience: Duration) {
        let Ok(uploads) = self.writable() else { return };
        // While it is being uploaded, what is sent is noted.
        let Ok(_hold) = timeout(patience, uploads.hold(file.id)).await else {
            return;
        };
        if !matches!(timeout(patience, uploads.confirm(file)).await, Ok(Ok(_)))
            && !matches!(timeout(patience / 2, uploads.take_for_sent(file)).await, Ok(Ok(())))
        {
            tracing::warn!(
                id = file.id.0,
                "a staged file is changed whose upload may have arrived unseen: both may be kept"
            );
        }
    }

    fn try_edit(self: &Arc<Self>, id: EntryId, open: Option<&OpenObject>, edit: &Edit) -> Result<(), Refused> {
        let now_ns = self.writable().map_err(Refused::Failed)?.now_ns();
        let known = match open {
            Some(open) => self.staged(open),
            None => self.staged_entry(id),
        };
        let file = match known {
            Some(file) => file,
            None => self.stage(id).map_err(Refused::Failed)?,
        };
        apply(&file, edit, now_ns)?;
        if matches!(edit, Edit::Write(..)) {
            if file.is_to_be_synced_ahead() {
                self.sync_behind(&file);
            }
            if file.is_to_be_completed(COMPLETED_MAX) {
                self.complete_behind(file);
            }
        }
        Ok(())
    }

    /// Brings what was written so far to the disk, while more is written.
    fn sync_behind(&self, file: &Arc<StagedFile>) {
        let Some(uploads) = self.uploads.get() else { return };
        let (staging, file) = (Arc::clone(&uploads.staging), Arc::clone(file));
        self.runtime.spawn_blocking(move || staging.sync_ahead(&file));
    }

    /// Takes over what was not written of a file, so that it is whole here whatever becomes of the version at the source.
    fn complete_behind(self: &Arc<Self>, file: Arc<StagedFile>) {
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let Some(uploads) = core.uploads.get() else { return };
            if let Err(error) = uploads.take_over_base(&file).await {
                tracing::debug!(id = file.id.0, %error, "a part of a file is read from its source for now");
            }
        });
    }

    /// Stages an entry as it is at its source.
    fn stage(&self, id: EntryId) -> Result<Arc<StagedFile>, Error> {
        // Whoever opened it for writing was allowed to; that may have changed.
        drop(self.remote_target_of(id)?);
        let (entry, details) = rows(&self.catalog, id)?;
        let base = Base {
            version: details.version.clone(),
            size: entry.size,
            shows: entry.size,
            is_origin: false,
        };
        let version = details.version.clone();
        let row = |number| fresh_row(number, entry.size, entry.modified_ns, Some(base), Some(details.version));
        let staged = self.writable()?.staging.stage(id, row, |draft| {
            let staged = self.catalog.stage(id, &draft.encode(), None, false);
            staged.map(drop).map_err(Error::from_catalog)
        })?;
        // It may have followed its directory to another place in the meantime. From now on it stays where it is.
        if self.catalog.move_above(id).map_err(Error::from_catalog)?.is_some() && !staged.is_recorded() {
            let (_, now) = rows(&self.catalog, id)?;
            if now.version != version && staged.expected().as_deref() == Some(&*version) {
                // It is a draft still, which goes with whatever it says.
                staged.rebase(Some(&now.version), Some(&now.version), |_| Ok(()))?;
            }
        }
        Ok(staged)
    }

    /// Makes what was written to a file last, and has it uploaded. `closed`: nobody is expected to write more through this
    /// handle.
    pub(crate) fn settle_bytes(self: &Arc<Self>, file: &Arc<StagedFile>, closed: bool) -> Answer<()> {
        let through = |core: &Self| -> Result<bool, Error> {
            let Some(entry) = core.catalog.entry(file.id).map_err(Error::from_catalog)? else {
                return Ok(false);
            };
            Ok(core.writable()?.policy(entry.source) == WritePolicy::Through)
        };
        if file.is_orphan() {
            return Answer::ok(());
        }
        let through = match through(self) {
            Ok(through) => through && closed,
            Err(error) => return Answer::err(error),
        };
        if !file.is_dirty() && !through {
            return match (file.is_broken(), self.writable()) {
                (Some(why), _) => Answer::err(Error::Io(Cause::new(why))),
                (None, Ok(uploads)) => {
                    if closed && !file.is_concluded() {
                        uploads.hasten(file.id);
                    }
                    Answer::ok(())
                }
                (None, Err(error)) => Answer::err(error),
            };
        }
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        Answer::Pending(Box::pin(async move {
            let uploads = Arc::clone(core.writable()?);
            let (queue, synced) = (Arc::clone(&uploads), Arc::clone(&file));
            let is_queued = core.blocking(move || {
                queue.staging.sync(&synced)?;
                if synced.is_orphan() || synced.is_concluded() {
                    return Ok(false);
                }
                // Though nobody may wait for the answer any more.
                if through {
                    queue.queue_after(synced.id, Duration::ZERO);
                } else {
                    queue.queue(synced.id, !closed);
                }
                Ok(true)
            });
            if is_queued.await? && through {
                let patience = core.settings.data_deadline.mul_f32(THROUGH_DEADLINES);
                return uploads.finished(file.id, patience).await;
            }
            Ok(())
        }))
    }

    /// Sees to a handle that is released: what was written through it after the last `close`, by a mapping of memory.
    pub(crate) fn released(self: &Arc<Self>, open: &OpenObject) {
        let Some(file) = open.writes.then(|| self.staged(open)).flatten() else {
            return;
        };
        if !file.is_dirty() {
            return;
        }
        let (core, id) = (Arc::clone(self), file.id);
        self.runtime.spawn(async move {
            if let Err(error) = core.settle_bytes(&file, true).wait().await {
                tracing::error!(id = id.0, %error, "what was written after a file was closed is not safe");
            }
        });
    }
}

fn apply(file: &StagedFile, edit: &Edit, now_ns: i64) -> Result<(), Refused> {
    match edit {
        Edit::Write(place, bytes) => file.write(*place, bytes, now_ns),
        Edit::Truncate(size) => file.truncate(*size, now_ns),
        Edit::Modified(modified_ns) => file.set_modified(*modified_ns),
    }
}

fn late(deadline: Duration) -> Error {
    let after = deadline.as_secs_f32();
    Error::TimedOut(Cause::new(format!("read: no answer within {after} s")))
}
