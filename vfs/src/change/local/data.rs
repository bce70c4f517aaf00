//! Bytes of files on disks of this machine that are open here.

use std::ops::Range;
use std::sync::Arc;

use manifold_backends::Operation;
use manifold_backends::local::{LocalBackend, LocalFile, Seek};
use manifold_catalog::{EntryId, SourceId};

use super::{done, found};
use crate::attributes::Attributes;
use crate::change::{Requester, Writing};
use crate::handle::{Backing, OpenFile, Opened};
use crate::open::pages_key;
use crate::vfs::Core;
use crate::{Answer, Error};

/// The most that is copied by one request: a disk that cannot share the bytes has to copy them, and others wait for its
/// threads.
const COPY_MAX: u64 = 64 << 20;

/// How often a directory is looked for that has another name each time.
const SYNC_TRIES: usize = 3;

impl Core {
    pub(in crate::change) fn local_write(
        self: &Arc<Self>,
        id: EntryId,
        source: SourceId,
        file: &Arc<LocalFile>,
        bytes: &[u8],
        writing: Writing,
    ) -> Answer<u32> {
        let write = move |core: &Arc<Self>, file: &LocalFile, bytes: &[u8]| {
            let Writing {
                at,
                durable,
                keep_privileges,
            } = writing;
            let written = done(file.write(at, bytes, durable, keep_privileges))?;
            if file.may_hang()
                && let Ok((seen, blocks)) = file.held().metadata_and_blocks()
            {
                core.files
                    .note_attributes(id, Attributes::of_disk(id, &seen, Some(blocks)));
            }
            Ok(written as u32)
        };
        if !file.may_hang() {
            return Answer::Ready(write(self, file, bytes));
        }
        let bytes = Box::<[u8]>::from(bytes);
        self.with_file(source, file, Operation::Write, false, move |core, file| {
            write(core, file, &bytes)
        })
    }

    pub(in crate::change) fn local_sync(
        self: &Arc<Self>,
        id: EntryId,
        source: SourceId,
        file: &Arc<LocalFile>,
        data_only: bool,
    ) -> Answer<()> {
        self.with_file(source, file, Operation::Sync, true, move |core, file| {
            done(file.sync(data_only))?;
            core.learn(id, source, file);
            Ok(())
        })
    }

    pub(in crate::change) fn local_sync_directory(
        self: &Arc<Self>,
        local: &LocalBackend,
        source: SourceId,
        id: EntryId,
    ) -> Answer<()> {
        let path = match self.path_of(id) {
            Ok(path) => path,
            // It was removed: there is nothing of it to be kept.
            Err(Error::Stale) => return Answer::ok(()),
            Err(error) => return Answer::err(error),
        };
        let sync = move |core: &Arc<Self>, local: &LocalBackend| {
            let mut tries = 0;
            loop {
                tries += 1;
                // Not kept meanwhile: the disk may take its time.
                let path = core.while_names_stay(source, local, || core.path_of(id))?;
                match found(local.sync_directory(&path)) {
                    Err(Error::NotFound) if tries < SYNC_TRIES => {}
                    synced => return synced,
                }
            }
        };
        if local.may_hang(&path) {
            return self.at_disk(local, source, &path, Operation::Sync, sync);
        }
        let (core, local) = (Arc::clone(self), local.clone());
        Answer::Pending(Box::pin(async move {
            let synced = local
                .on_thread(Operation::Sync, &path, move |local| sync(&core, local))
                .await;
            done(synced)?
        }))
    }

    pub(in crate::change) fn local_allocate(
        self: &Arc<Self>,
        id: EntryId,
        source: SourceId,
        file: &Arc<LocalFile>,
        mode: u32,
        range: Range<u64>,
        by: Requester,
    ) -> Answer<()> {
        self.with_file(source, file, Operation::Write, true, move |core, file| {
            let length = range.end - range.start;
            done(file.allocate(mode, range.start, length, by.is_privileged()))?;
            core.learn(id, source, file);
            Ok(())
        })
    }

    pub(in crate::change) fn local_seek(
        self: &Arc<Self>,
        source: SourceId,
        file: &Arc<LocalFile>,
        what: Seek,
        offset: u64,
    ) -> Answer<u64> {
        self.with_file(source, file, Operation::Read, false, move |_, file| {
            done(file.seek(what, offset))
        })
    }

    pub(in crate::change) fn local_copy(
        self: &Arc<Self>,
        (from, offset): (&Arc<LocalFile>, u64),
        (id, source, to, target_offset): (EntryId, SourceId, &Arc<LocalFile>, u64),
        length: u64,
        by: Requester,
    ) -> Answer<u64> {
        if from.may_hang() != to.may_hang() {
            // One of them would be waited for in the place of the other.
            return Answer::err(Error::CrossSource);
        }
        let from = Arc::clone(from);
        self.with_file(source, to, Operation::Write, true, move |core, to| {
            let length = length.min(COPY_MAX);
            let copied = done(from.copy_to(offset, to, target_offset, length, by.is_privileged()))?;
            core.learn(id, source, to);
            Ok(copied)
        })
    }

    /// Makes a handle of a file that was just opened, or made, in the same operation that the catalog has followed.
    pub(crate) fn open_as_made(
        &self,
        id: EntryId,
        source: SourceId,
        file: LocalFile,
        seen: &manifold_backends::Metadata,
        is_new: bool,
    ) -> Opened {
        let opening = self.files.begin(id);
        let keep_cache = self.files.same_version(id, pages_key(&seen.version, seen.size)) && !is_new;
        let file = Arc::new(file);
        let backing = file
            .shared()
            .map_or(Backing::Blocks, |file| Backing::File(Arc::clone(file)));
        let writes = file.writes();
        let handle = opening.finish(OpenFile::Local(id, source, file), Attributes::of_disk(id, seen, None));
        Opened {
            handle,
            backing,
            keep_cache,
            size: seen.size,
            writes,
            privileged: seen.mode.is_some_and(crate::open::has_privileges),
        }
    }

    /// Has the catalog learn how a file is that is open for writing.
    pub(crate) fn learn(&self, id: EntryId, source: SourceId, file: &LocalFile) {
        if !file.writes() {
            return;
        }
        let _change = self.catalog.begin_change(&self.directory_of(id));
        let learn = || -> Result<(), Error> {
            let Some(known) = self.catalog.details(id).map_err(Error::from_catalog)? else {
                return Ok(());
            };
            let seen = done(file.held().metadata())?;
            if *known.version == *seen.version.as_bytes() {
                return Ok(());
            }
            self.follow_attributes(id, source, &seen)
        };
        if let Err(error) = learn() {
            tracing::debug!(id = id.0, %error, "a written file was not followed; the next listing tells");
        }
    }

    /// As [`learn`](Self::learn), when the file is being closed.
    pub(crate) fn learn_at_close(self: &Arc<Self>, id: EntryId, source: SourceId, file: &Arc<LocalFile>) -> Answer<()> {
        if !file.writes() {
            return Answer::ok(());
        }
        self.with_file(source, file, Operation::Stat, false, move |core, file| {
            core.learn(id, source, file);
            Ok(())
        })
    }
}

/// Finds data and holes where nobody knows of holes: all is data, and the end is a hole.
pub(in crate::change) fn seek_without_holes(size: u64, what: Seek, offset: u64) -> Result<u64, Error> {
    match what {
        _ if offset >= size => Err(Error::BeyondEnd),
        Seek::Data => Ok(offset),
        Seek::Hole => Ok(size),
    }
}
