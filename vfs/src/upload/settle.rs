//! A place that is taken: whether by our own bytes, whose confirmation was lost, or by somebody else's version. Then both are
//! kept.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use manifold_backends::{Backend, Body as _, ErrorKind, Kind, Metadata, ObjectPath, Presence};
use manifold_catalog::{Copied, EntryId, NewChild, SourceId, Ticket};
use manifold_index::{names, seen_attributes};

use super::attempt::{Outcome, Upload, delayed};
use super::body::StagedBody;
use super::{Conflict, Uploads, conflict};
use crate::Error;
use crate::error::Cause;
use crate::fetch::base;
use crate::staging::{InUse, Refused, Rest, Sending, StagedFile};

/// How much is compared, or taken over from a base, at once, in bytes.
const CHUNK: u64 = 4 << 20;
/// How many names are tried for a file that has to make way.
const NAMES_MAX: u32 = 1_000;

/// What a source has of a file whose upload was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    /// Nothing: it is as it was before.
    Nothing,
    /// All of it: it is staged no more.
    All,
    /// A former state of it, which it is based on from now on.
    Part,
    /// Something that is not ours.
    SomethingElse,
}

impl Uploads {
    /// Finds out who has the place, and makes the best of it.
    pub(super) async fn settle(self: &Arc<Self>, upload: &Upload, sending: Sending) -> Outcome {
        let (indexer, catalog) = (&self.fetcher.indexer, &self.fetcher.catalog);
        let ticket = catalog.ticket();
        let request = upload.backend.stat(&upload.path);
        let seen = indexer
            .ask(upload.source, &upload.path, self.fetcher.deadline, request)
            .await;
        let metadata = match seen {
            Err(error) => return delayed(&error),
            Ok(Presence::Absent) => {
                // Or its directory, or one above, is getting another name, which it has at its source before it has it here.
                match self.has_moved_since(upload, ticket) {
                    Ok(false) => {}
                    Ok(true) => return Outcome::Delayed("a directory above was renamed a moment ago".to_owned()),
                    Err(error) => return delayed(&error),
                }
                // Somebody has removed what it was made from: it is a new file.
                if let Err(outcome) = self.complete(upload).await {
                    return outcome;
                }
                upload.file.stand_alone();
                return Outcome::Again;
            }
            Ok(Presence::Found(metadata)) => metadata,
        };
        match self.find_ours(upload, Some(sending), &metadata).await {
            Ok(Some(ours)) => self.conclude_ours(upload, ours, metadata).await,
            Ok(None) if !upload.file.is_still(sending) => Outcome::Overtaken,
            Ok(None) => self.keep_both(upload, &metadata).await,
            Err(error) => delayed(&error),
        }
    }

    /// Tells whether a file may lie elsewhere at its source than where it was looked for since that ticket was taken.
    fn has_moved_since(&self, upload: &Upload, ticket: Ticket) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        let place = catalog.object_path(upload.file.id).map_err(Error::from_catalog)?;
        if place.is_none_or(|(source, path)| (source, &*path) != (upload.source, upload.path.as_bytes())) {
            return Ok(true);
        }
        let entry = catalog.entry(upload.file.id).map_err(Error::from_catalog)?;
        let Some(entry) = entry else { return Ok(true) };
        catalog
            .is_overtaken_above(ticket, entry.parent)
            .map_err(Error::from_catalog)
    }

    /// Finds the upload of ours that the source has, if it has one: one that was not confirmed, or `now`, the file as it is.
    async fn find_ours(
        self: &Arc<Self>,
        upload: &Upload,
        now: Option<Sending>,
        metadata: &Metadata,
    ) -> Result<Option<Sending>, Error> {
        if metadata.kind != Kind::File {
            return Ok(None);
        }
        let unconfirmed = upload.file.unconfirmed();
        if unconfirmed.iter().any(|(sending, _)| sending.size == metadata.size)
            && let Some(there) = self.hash_there(upload.place(), &*upload.backend, metadata).await?
            && let Some((sending, _)) = unconfirmed.iter().find(|(_, hash)| *hash == there)
        {
            return Ok(Some(*sending));
        }
        let now = now.filter(|now| now.size == metadata.size);
        match now {
            Some(now) if self.is_ours(upload, now, metadata).await? == Some(true) => Ok(Some(now)),
            _ => Ok(None),
        }
    }

    /// Gives the BLAKE3 of what a source has; `None` if that is not any more what it was.
    pub(crate) async fn hash_there(
        &self,
        (source, path): (SourceId, &ObjectPath),
        backend: &dyn Backend,
        metadata: &Metadata,
    ) -> Result<Option<[u8; 32]>, Error> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while at < metadata.size {
            let end = metadata.size.min(at + chunk(backend));
            let Some(bytes) = self.theirs((source, path), backend, metadata, at..end).await? else {
                return Ok(None);
            };
            hasher.update(&bytes);
            at = end;
        }
        Ok(Some(*hasher.finalize().as_bytes()))
    }

    /// Reads what a source has; `None` if that is not any more what it was.
    async fn theirs(
        &self,
        (source, path): (SourceId, &ObjectPath),
        backend: &dyn Backend,
        metadata: &Metadata,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        let (version, block_size) = (&metadata.version, backend.capabilities().block_size);
        let asked = indexer.read(source, path, version, range, block_size, deadline);
        match asked.await {
            Ok(Presence::Found(blocks)) => Ok(Some(blocks.concat())),
            Ok(Presence::Absent) => Ok(None),
            Err(error) if error.kind() == Some(ErrorKind::VersionChanged) => Ok(None),
            Err(error) => Err(Error::from_index(error)),
        }
    }

    /// Finds out what a source has of a held file whose upload was not confirmed.
    ///
    /// # Errors
    /// Among others [`Error::Busy`]: it is not known where its directory is at the source.
    pub(crate) async fn confirm(self: &Arc<Self>, file: &Arc<StagedFile>) -> Result<Confirmed, Error> {
        let failed = |outcome: Outcome| match outcome {
            Outcome::Delayed(error) | Outcome::Refused { error, .. } => Error::Io(Cause::new(error)),
            _ => Error::Stale,
        };
        self.must_know_the_way(file.id)?;
        let upload = self.prepare(Arc::clone(file)).await.map_err(failed)?;
        let request = upload.backend.stat(&upload.path);
        let indexer = &self.fetcher.indexer;
        let seen = indexer
            .ask(upload.source, &upload.path, self.fetcher.deadline, request)
            .await;
        let expected = file.expected();
        let metadata = match seen.map_err(Error::from_index)? {
            Presence::Found(metadata) if expected.as_deref() != Some(metadata.version.as_bytes()) => metadata,
            Presence::Absent if expected.is_some() => return Ok(Confirmed::SomethingElse),
            Presence::Found(_) | Presence::Absent => {
                file.nothing_was_sent();
                return Ok(Confirmed::Nothing);
            }
        };
        let Some((now, ..)) = file.begin_sending() else {
            return Ok(Confirmed::SomethingElse);
        };
        let ours = self.find_ours(&upload, Some(now), &metadata).await;
        if !matches!(ours, Ok(Some(ours)) if ours == now) {
            file.end_sending(now, true);
        }
        let Some(ours) = ours? else {
            return Ok(Confirmed::SomethingElse);
        };
        Ok(match self.conclude(&upload, ours, metadata).await {
            Outcome::Done => Confirmed::All,
            Outcome::Overtaken => Confirmed::Part,
            _ => Confirmed::SomethingElse,
        })
    }

    /// Takes what is staged for sent: whoever could have told whether it was has died, and the source cannot be asked. So it is
    /// recognised there though it is changed here now. The file must be held.
    pub(crate) async fn take_for_sent(self: &Arc<Self>, file: &Arc<StagedFile>) -> Result<(), Error> {
        let in_use = file.use_it()?;
        let Some((sending, _, tally)) = file.begin_sending() else {
            return Ok(());
        };
        let body = StagedBody {
            tally,
            ..self.body(in_use, sending)
        };
        let mut at = 0;
        while at < sending.size {
            let end = sending.size.min(at + CHUNK);
            body.read(at..end).await.map_err(|error| Error::Io(Cause::new(error)))?;
            at = end;
        }
        file.end_sending(sending, false);
        Ok(())
    }

    /// Makes it last what uploads of a file have sent.
    pub(crate) async fn record(&self, file: &Arc<StagedFile>) -> Result<(), Error> {
        let (staging, file) = (Arc::clone(&self.staging), Arc::clone(file));
        self.blocking(move || staging.record(&file)).await
    }

    /// Gives what is staged as an upload would send it, but for nobody who takes note of it.
    fn body(&self, file: InUse, sending: Sending) -> StagedBody {
        StagedBody {
            fetcher: Arc::clone(&self.fetcher),
            staging: Arc::clone(&self.staging),
            file,
            sending,
            tally: Arc::default(),
            mode: None,
            parts: None,
            read: Arc::new(AtomicU64::new(0)),
            base_is_gone: Arc::new(AtomicBool::new(false)),
            no_origin: Arc::default(),
            is_unread: Arc::default(),
        }
    }

    /// Tells whether the source has the very bytes that are staged; `None` if the file is not any more what it was.
    async fn is_ours(
        self: &Arc<Self>,
        upload: &Upload,
        sending: Sending,
        metadata: &Metadata,
    ) -> Result<Option<bool>, Error> {
        let body = self.body(upload.file.use_it()?, sending);
        let mut at = 0;
        while at < sending.size {
            let range = at..(at + chunk(&*upload.backend)).min(sending.size);
            at = range.end;
            let ours = match body.bytes(range.clone()).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(None),
                // What shows through cannot be had any more: then the source has another version.
                Err(Error::Stale | Error::NotFound) => return Ok(Some(false)),
                Err(error) => return Err(error),
            };
            match self.theirs(upload.place(), &*upload.backend, metadata, range).await? {
                Some(theirs) if theirs == ours => {}
                _ => return Ok(Some(false)),
            }
        }
        Ok(Some(upload.file.is_still(sending)).filter(|is_still| *is_still))
    }

    /// Finds out whether an upload of our own has arrived that was not confirmed, and makes the best of it; `None`: none has.
    pub(super) async fn has_arrived_unseen(self: &Arc<Self>, upload: &Upload) -> Option<Outcome> {
        if upload.file.unconfirmed().is_empty() {
            return None;
        }
        let request = upload.backend.stat(&upload.path);
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        let metadata = match indexer.ask(upload.source, &upload.path, deadline, request).await {
            Ok(Presence::Found(metadata)) => metadata,
            Ok(Presence::Absent) => return None,
            Err(error) => return Some(delayed(&error)),
        };
        match self.find_ours(upload, None, &metadata).await {
            Ok(Some(ours)) => Some(self.conclude_ours(upload, ours, metadata).await),
            Ok(None) => None,
            Err(error) => Some(delayed(&error)),
        }
    }

    /// Says that a file can neither be uploaded nor read whole, unless an upload of our own has replaced what is missing, or that
    /// is in the cache after all.
    pub(super) async fn base_is_gone(self: &Arc<Self>, upload: &Upload) -> Outcome {
        if let Some(outcome) = self.has_arrived_unseen(upload).await {
            return outcome;
        }
        match self.complete(upload).await {
            Ok(()) => Outcome::Again,
            Err(outcome) => outcome,
        }
    }

    /// Takes note that the source has what was sent, though that was not confirmed.
    async fn conclude_ours(self: &Arc<Self>, upload: &Upload, ours: Sending, metadata: Metadata) -> Outcome {
        match self.conclude(upload, ours, metadata).await {
            // There is more now, which is based on that.
            Outcome::Overtaken => Outcome::Again,
            outcome => outcome,
        }
    }

    /// Takes over what shows through of the version that a file was made from, or says why that cannot be.
    async fn complete(&self, upload: &Upload) -> Result<(), Outcome> {
        if upload.file.has_origin() {
            // That stays where it is, whatever name the file has.
            return Ok(());
        }
        match self.take_over_base(&upload.file).await {
            Ok(()) => Ok(()),
            Err(Error::Stale | Error::NotFound) => Err(Outcome::Refused {
                error: format!(
                    "{} was replaced or removed at its source while only a part of it had been written here, and the rest of \
                     the version that was written to cannot be had any more",
                    upload.path
                ),
                remedy: "what was written is kept; write the whole file anew, or give it up by removing it".to_owned(),
            }),
            Err(error) => Err(delayed(&error)),
        }
    }

    /// Takes over what shows through of the version that a file was made from, while that can be had.
    pub(crate) async fn take_over_base(&self, file: &Arc<StagedFile>) -> Result<(), Error> {
        while let Some(holes) = file.holes() {
            let Some(first) = holes.ranges.first().cloned() else {
                break;
            };
            let range = first.start..first.end.min(first.start + CHUNK);
            let mut buffer = vec![0; (range.end - range.start) as usize];
            let rest = Rest {
                base: holes.base,
                ranges: vec![range.clone()],
            };
            let filled = base::fill(&self.fetcher, file.id, &rest, range.start, &mut buffer);
            let filled = tokio::time::timeout(self.fetcher.deadline, filled).await;
            filled.unwrap_or_else(|_| Err(Error::TimedOut(Cause::new("no answer in time"))))?;
            match file.fill(&rest.base, range.start, &buffer) {
                Ok(()) => {}
                Err(Refused::NoRoom(_)) => return Err(Error::Full),
                // The source has all of it.
                Err(Refused::Retired) => return Ok(()),
                Err(Refused::Unrecorded) => self.record(file).await?,
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the local version another name, so that the source's has its own.
    async fn keep_both(self: &Arc<Self>, upload: &Upload, theirs: &Metadata) -> Outcome {
        if let Err(outcome) = self.complete(upload).await {
            return outcome;
        }
        // Whoever renames or removes it waits for this upload to end, and then does so with the file that was meant.
        let Some(_name) = self.naming.try_lock(upload.file.id) else {
            return Outcome::Delayed("it is being renamed or removed".to_owned());
        };
        let (uploads, file, theirs) = (Arc::clone(self), Arc::clone(&upload.file), theirs.clone());
        match self.blocking(move || uploads.make_way(&file, &theirs)).await {
            Ok(conflict) => {
                tracing::warn!(
                    path = %conflict.path.escape_ascii(),
                    kept_as = %conflict.kept_as.escape_ascii(),
                    "a file was changed at its source and here; both versions are kept"
                );
                self.note_conflict(conflict);
                Outcome::Again
            }
            Err(error) => delayed(&error),
        }
    }

    fn make_way(&self, file: &Arc<StagedFile>, theirs: &Metadata) -> Result<Conflict, Error> {
        let (catalog, now_ns) = (&self.fetcher.catalog, self.now_ns());
        let entry = catalog
            .entry(file.id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        let details = catalog
            .details(file.id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        let path = catalog
            .tree_path(file.id)
            .map_err(Error::from_catalog)?
            .unwrap_or_default();
        let parent = entry.parent;
        let guard = catalog.begin_change(&[parent]);
        let moved = catalog.moved(file.id).map_err(Error::from_catalog)?;
        let kept_as = self.free_name(parent, &details.raw_name, now_ns)?;
        let shown = names::escape(&kept_as, names::Side::Plain);
        let raw_name = (*shown != *kept_as).then(|| kept_as.as_slice().into());
        let child = NewChild {
            name: entry.name.clone(),
            raw_name: (entry.name != details.raw_name).then_some(details.raw_name),
            seen: seen_attributes(theirs),
            adopt: None,
        };
        self.note_way_made(&entry.name);
        // Nobody is to find the name without a file: the source has one.
        let (theirs_id, _) = catalog
            .follow_made_way((parent, &entry.name), &shown, raw_name, child, now_ns)
            .map_err(Error::from_catalog)?;
        file.stand_alone();
        self.staging.sync(file)?;
        if let Some(moved) = moved {
            // Its directory is on the move, and has not come that far.
            let copied = Copied {
                id: theirs_id,
                lies_at: moved.lies_at,
                left: None,
                seen: None,
            };
            catalog.note_copied(&copied).map_err(Error::from_catalog)?;
        }
        drop(guard);
        Ok(Conflict {
            at_ns: now_ns,
            source: entry.source,
            path,
            kept_as: shown.into_owned(),
        })
    }

    /// Finds a name that is free for a version that has to make way.
    pub(crate) fn free_name(&self, parent: EntryId, raw_name: &[u8], now_ns: i64) -> Result<Vec<u8>, Error> {
        for attempt in 1..=NAMES_MAX {
            let name = conflict::name(raw_name, now_ns, &self.host, attempt);
            let shown = names::escape(&name, names::Side::Plain);
            let taken = self
                .fetcher
                .catalog
                .lookup(parent, &shown)
                .map_err(Error::from_catalog)?;
            if taken.is_none() {
                return Ok(name);
            }
        }
        Err(Error::Io(Cause::new(
            "no name is free for a version that has to make way",
        )))
    }
}

/// How much is compared at a time.
fn chunk(backend: &dyn Backend) -> u64 {
    CHUNK.min(u64::from(backend.capabilities().read_size_max)).max(1)
}
