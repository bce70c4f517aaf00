//! One try to bring a staged file to its source, and what it comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_backends::{Backend, ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::{EntryId, PartUpload, SourceId};
use manifold_index::{IndexError, seen_attributes};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::body::StagedBody;
use super::parts::Parts;
use super::{UploadState, Uploads, WritePolicy};
use crate::Error;
use crate::events::Event;
use crate::fetch::Object;
use crate::staging::{Sending, Sent, StagedFile};

/// Files up to this length, in bytes, are put into the cache when they are uploaded.
const CACHED_MAX: u64 = 16 << 20;
/// How long the answer to an upload is waited for that was sent to its end and is to end: it may arrive all the same, and then
/// whoever removes or renames the file is to know.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How long data files wait to be removed, so that many go at once.
const SWEEP_AFTER: Duration = Duration::from_millis(500);

/// What a try came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The source has it, as it was.
    Done,
    /// It was written to meanwhile.
    Overtaken,
    /// The task is to end.
    Ended,
    /// Something was put right, and it is to be tried at once.
    Again,
    /// It failed, and may do better later.
    Delayed(String),
    /// It will fail until somebody does something.
    Refused { error: String, remedy: String },
}

/// What sending a file came to.
enum Put {
    /// It was not begun.
    Nothing,
    /// The source has it.
    Sent(Sending, Metadata),
    /// What it was moved from could not be read.
    NoOrigin(Error),
    /// It could not be read here, or was written to: that is no failure of the source.
    Unread(manifold_backends::Error),
}

/// A file and where it is to go.
pub(super) struct Upload {
    pub(super) file: Arc<StagedFile>,
    pub(super) source: SourceId,
    pub(super) path: ObjectPath,
    pub(super) backend: Arc<dyn Backend>,
}

impl Upload {
    /// Gives where it is to go.
    pub(super) fn place(&self) -> (SourceId, &ObjectPath) {
        (self.source, &self.path)
    }
}

impl Uploads {
    pub(super) async fn attempt(self: &Arc<Self>, id: EntryId, end: &mut watch::Receiver<bool>) -> Outcome {
        let Some(file) = self.staging.get(id).filter(|file| file.is_broken().is_none()) else {
            return Outcome::Done;
        };
        if file.has_unsynced_bytes() {
            // Somebody is at it; what was acknowledged before is changed by now.
            return Outcome::Overtaken;
        }
        // Whoever renames a directory above holds those uploads that he has found.
        let steady = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => return Outcome::Ended,
            steady = self.until_names_stay(id) => steady,
        };
        if let Err(error) = steady {
            return delayed(&error);
        }
        let upload = match self.prepare(file).await {
            Ok(upload) => upload,
            Err(outcome) => return outcome,
        };
        match self.why_wait(&upload.file) {
            Ok(None) => {}
            Ok(Some(why)) => return Outcome::Delayed(why),
            Err(error) => return delayed(&error),
        }
        let looked = self.take_unnoted_copy_away(id, upload.source, &upload.backend);
        if let Err(error) = looked.await {
            return delayed(&error);
        }
        let base_is_gone = Arc::new(AtomicBool::new(false));
        let began = Mutex::new(None);
        let request = self.put(&upload, &base_is_gone, &began);
        let is_answer = |put: &Put| matches!(put, Put::Sent(..));
        let mut request = std::pin::pin!(self.fetcher.indexer.upload(upload.source, request, is_answer));
        let ended = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => None,
            result = &mut request => Some(result),
        };
        let result = match ended {
            Some(result) => result,
            None if !began.lock().is_some_and(|sending| upload.file.was_sent_whole(sending)) => return Outcome::Ended,
            None => match tokio::time::timeout(LAST_WORD, request).await {
                Ok(result) => result,
                Err(_elapsed) => return Outcome::Ended,
            },
        };
        match result {
            Ok(Put::Nothing) if upload.file.has_unsynced_bytes() => Outcome::Overtaken,
            // It is gone, or its data could not be opened.
            Ok(Put::Nothing) if self.staging.get(id).is_none() => Outcome::Done,
            Ok(Put::Nothing) => Outcome::Delayed("what was written cannot be read".to_owned()),
            Ok(Put::Sent(sending, metadata)) => self.conclude(&upload, sending, metadata).await,
            Ok(Put::NoOrigin(error)) => {
                if let Some(sending) = *began.lock() {
                    upload.file.end_sending(sending, false);
                }
                self.no_origin(&upload, error).await
            }
            Ok(Put::Unread(error)) => {
                let (began, base_is_gone) = (*began.lock(), base_is_gone.load(Ordering::Relaxed));
                self.failed(&upload, began, error.into(), base_is_gone, end).await
            }
            Err(error) => {
                let (began, base_is_gone) = (*began.lock(), base_is_gone.load(Ordering::Relaxed));
                self.failed(&upload, began, error, base_is_gone, end).await
            }
        }
    }

    /// Waits until no directory above is getting another name at its source, and until it is known which names they have.
    async fn until_names_stay(self: &Arc<Self>, id: EntryId) -> Result<(), Error> {
        let catalog = &self.fetcher.catalog;
        let entry = catalog.entry(id).map_err(Error::from_catalog)?;
        let Some(entry) = entry else { return Ok(()) };
        self.settle_directories(&[(entry.parent, None)]).await?;
        let turn = self.turns.stay(catalog, entry.parent, self.fetcher.deadline).await?;
        drop(turn);
        if self.is_way_known(entry.parent)? {
            Ok(())
        } else {
            Err(Error::Busy)
        }
    }

    /// Makes sure that the row tells of what will be sent, and finds where it is to go.
    pub(super) async fn prepare(self: &Arc<Self>, file: Arc<StagedFile>) -> Result<Upload, Outcome> {
        let (staging, synced) = (Arc::clone(&self.staging), Arc::clone(&file));
        self.blocking(move || staging.sync(&synced))
            .await
            .map_err(|error| delayed(&error))?;
        let id = file.id;
        if let Some(renamed) = file.renamed() {
            self.settle_rename(&file, &renamed).await?;
        }
        let place = self.fetcher.catalog.object_path(id).map_err(|error| delayed(&error))?;
        let Some((source, path)) = place else {
            // It went with its source.
            self.staging.forget(id);
            return Err(Outcome::Done);
        };
        if let Some(job) = self.jobs.lock().get_mut(&id) {
            job.source = Some(source);
        }
        let indexer = &self.fetcher.indexer;
        let connected = tokio::time::timeout(self.fetcher.deadline, indexer.until_connected(source));
        // Whether it is connected is seen next.
        let _in_time = connected.await;
        let Some(backend) = indexer.backend(source) else {
            return Err(Outcome::Delayed(format!("source {source} is not connected")));
        };
        if let Some((error, remedy)) = self.takes_no_changes(source, &*backend) {
            return Err(Outcome::Refused { error, remedy });
        }
        let path = ObjectPath::from_bytes(path);
        Ok(Upload {
            file,
            source,
            path,
            backend,
        })
    }

    /// Says why a source is not to be changed, and what to do about that; `None`: it may be.
    pub(crate) fn takes_no_changes(&self, source: SourceId, backend: &dyn Backend) -> Option<(String, String)> {
        if self.policy(source) != WritePolicy::Off && backend.capabilities().writes.is_some() {
            return None;
        }
        let error = format!("{} takes no changes", backend.name());
        let remedy = "allow changes of the source again: manifold source set NAME write=back read_only=false";
        Some((error, remedy.to_owned()))
    }

    /// Sends the file, as it is when the turn has come.
    async fn put(
        self: &Arc<Self>,
        upload: &Upload,
        base_is_gone: &Arc<AtomicBool>,
        began: &Mutex<Option<Sending>>,
    ) -> manifold_backends::Result<Put> {
        let (sent, id) = {
            let mut jobs = self.jobs.lock();
            let job = jobs.entry(upload.file.id).or_default();
            job.state = UploadState::UnderWay { sent: 0 };
            job.sent.store(0, Ordering::Relaxed);
            (Arc::clone(&job.sent), upload.file.id)
        };
        let in_use = upload.file.use_it().ok().filter(|_| !upload.file.has_unsynced_bytes());
        let Some(in_use) = in_use else {
            return Ok(Put::Nothing);
        };
        let written_ns = upload.file.written_ns();
        let Some((sending, expected, tally)) = upload.file.begin_sending() else {
            return Ok(Put::Nothing);
        };
        let what = PartUpload {
            source: upload.source,
            entry: id,
            size: sending.size,
            written_ns,
            path: upload.path.as_bytes().to_vec(),
            name: Vec::new(),
        };
        if let Some(job) = self.jobs.lock().get_mut(&id) {
            job.sends = Some(what.clone());
        }
        *began.lock() = Some(sending);
        let no_origin = Arc::<Mutex<Option<Error>>>::default();
        let is_unread = Arc::<AtomicBool>::default();
        let keeps_mode = upload.backend.capabilities().writes.is_some_and(|able| able.keeps_mode);
        let entry = self.fetcher.catalog.entry(id).ok().flatten().filter(|_| keeps_mode);
        let body = StagedBody {
            fetcher: Arc::clone(&self.fetcher),
            staging: Arc::clone(&self.staging),
            file: in_use,
            sending,
            tally,
            mode: entry.map(|entry| u32::from(entry.mode)),
            parts: Some(Parts::new(&self.fetcher.catalog, &self.fetcher.runtime, what)),
            read: sent,
            base_is_gone: Arc::clone(base_is_gone),
            no_origin: Arc::clone(&no_origin),
            is_unread: Arc::clone(&is_unread),
        };
        let expected = expected.map_or(Expected::Absent, |version| {
            Expected::Version(Version::from_stored(&version))
        });
        let put = upload.backend.put(&upload.path, &body, &expected).await;
        match (put, no_origin.lock().take()) {
            (Ok(metadata), _) => Ok(Put::Sent(sending, metadata)),
            (Err(_), Some(error)) => Ok(Put::NoOrigin(error)),
            (Err(error), None) if is_unread.load(Ordering::Relaxed) => Ok(Put::Unread(error)),
            (Err(error), None) => Err(error),
        }
    }

    /// Takes note that the source has what was sent.
    pub(super) async fn conclude(self: &Arc<Self>, upload: &Upload, sending: Sending, metadata: Metadata) -> Outcome {
        if let Err(outcome) = self.verify_moved(upload, sending, &metadata) {
            return outcome;
        }
        let (uploads, file) = (Arc::clone(self), Arc::clone(&upload.file));
        let keeps = self.keeps_attributes(upload.source);
        let concluded = self.blocking(move || {
            let version = metadata.version.as_bytes();
            let seen = seen_attributes(&metadata);
            uploads
                .fetcher
                .forget_lookalike(file.id, &metadata.version, metadata.size);
            uploads.staging.sent(&file, sending, version, || {
                let catalog = &uploads.fetcher.catalog;
                // What was written at one time was not changed when it arrived.
                let kept_ns = keeps.then(|| file.look().modified_ns);
                catalog
                    .unstage(file.id, Some(seen), kept_ns)
                    .map_err(Error::from_catalog)?;
                uploads.hand_over(&file);
                Ok(())
            })
        });
        match concluded.await {
            Ok(Sent::All) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.sweep_soon();
                Outcome::Done
            }
            Ok(Sent::More) => Outcome::Overtaken,
            Err(error) => delayed(&error),
        }
    }

    /// Has those who have a file open read it from its source from now on, and keeps its bytes in the cache where that is cheap.
    fn hand_over(&self, file: &StagedFile) {
        let fetcher = &self.fetcher;
        match Object::find(&fetcher.catalog, &fetcher.indexer, file.id) {
            Ok((object, _)) => {
                let object = Arc::new(object);
                if object.shape.size <= CACHED_MAX {
                    self.keep(file, &object);
                }
                self.files.rebind(file.id, &object);
            }
            Err(error) => {
                tracing::debug!(id = file.id.0, %error, "an uploaded file is not read on from its source");
            }
        }
        self.publisher.publish(&[Event::Attributes { id: file.id }]);
    }

    fn keep(&self, file: &StagedFile, object: &Object) {
        let shape = object.shape;
        for index in 0..shape.block_count() {
            let mut block = vec![0; shape.block_len(index) as usize];
            match file.read(index * u64::from(shape.block_size), &mut block) {
                Ok((length, None)) if length == block.len() => {
                    self.fetcher.cache.keep_uploaded(shape, index, &block.into());
                }
                _ => return,
            }
        }
    }

    async fn failed(
        self: &Arc<Self>,
        upload: &Upload,
        sending: Option<Sending>,
        error: IndexError,
        base_is_gone: bool,
        end: &mut watch::Receiver<bool>,
    ) -> Outcome {
        let kind = error.kind();
        let certainly = matches!(
            kind,
            Some(
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnly
                    | ErrorKind::Full
                    | ErrorKind::Unsupported
                    | ErrorKind::BadPath
                    | ErrorKind::NameTooLong
                    | ErrorKind::TooLarge
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
            )
        );
        if let Some(sending) = sending {
            upload.file.end_sending(sending, certainly);
        }
        if sending.is_some_and(|sending| !upload.file.is_still(sending)) {
            return Outcome::Overtaken;
        }
        if base_is_gone {
            return self.base_is_gone(upload).await;
        }
        let message = error.to_string();
        match (kind, sending) {
            (Some(ErrorKind::Conflict | ErrorKind::IsADirectory), Some(sending)) => self.settle(upload, sending).await,
            (Some(ErrorKind::NotADirectory), _) => {
                // Whoever gives them another name has this end first.
                tokio::select! {
                    biased;
                    _ = end.wait_for(|end| *end) => Outcome::Ended,
                    outcome = self.make_directories(upload, message) => outcome,
                }
            }
            (Some(kind), _) => match remedy(kind) {
                Some(remedy) => Outcome::Refused {
                    error: message,
                    remedy: remedy.to_owned(),
                },
                None => Outcome::Delayed(message),
            },
            (None, _) => Outcome::Delayed(message),
        }
    }

    /// Makes the directories that lead to a file, which somebody has removed at the source; or finds that they have other names by now.
    async fn make_directories(&self, upload: &Upload, message: String) -> Outcome {
        let (catalog, id) = (&self.fetcher.catalog, upload.file.id);
        let entry = match catalog.entry(id) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Outcome::Again,
            Err(error) => return delayed(&error),
        };
        let _turn = match self.turns.stay(catalog, entry.parent, self.fetcher.deadline).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return Outcome::Again,
            Err(error) => return delayed(&error),
        };
        match catalog.object_path(id) {
            Ok(Some((source, path))) if source == upload.source && path == upload.path.as_bytes() => {}
            Ok(_) => return Outcome::Again,
            Err(error) => return delayed(&error),
        }
        let path = upload.path.as_bytes();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let directories: Vec<_> = ends.map(|(at, _)| ObjectPath::from_bytes(&path[..at])).collect();
        let (mut made, mut failed) = (false, None);
        for directory in &directories {
            match self
                .ask_for(upload, directory, upload.backend.create_directory(directory))
                .await
            {
                Ok(_) => made = true,
                Err(error) => match error.kind() {
                    Some(ErrorKind::Exists) => {}
                    None | Some(ErrorKind::Unreachable | ErrorKind::TimedOut) => return delayed(&error),
                    Some(_) => {
                        failed = Some(error.to_string());
                        break;
                    }
                },
            }
        }
        if made && failed.is_none() {
            return Outcome::Again;
        }
        // Another upload may have made them meanwhile.
        for directory in &directories {
            match self.ask_for(upload, directory, upload.backend.stat(directory)).await {
                Ok(Presence::Found(there)) if there.kind == Kind::Directory => {}
                Ok(Presence::Found(_)) => {
                    return Outcome::Refused {
                        error: failed.unwrap_or(message),
                        remedy: "something else than a folder stands on the way to it at the source; move that aside"
                            .to_owned(),
                    };
                }
                Ok(Presence::Absent) => break,
                Err(error) => return delayed(&error),
            }
        }
        Outcome::Delayed(failed.unwrap_or(message))
    }

    /// Makes a request to the source of an upload, within the deadline.
    async fn ask_for<T>(
        &self,
        upload: &Upload,
        path: &ObjectPath,
        request: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, IndexError> {
        let deadline = self.fetcher.deadline;
        self.fetcher.indexer.ask(upload.source, path, deadline, request).await
    }

    fn sweep_soon(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let uploads = Arc::clone(self);
        self.fetcher.runtime.spawn(async move {
            tokio::time::sleep(SWEEP_AFTER).await;
            uploads.sweeping.store(false, Ordering::Release);
            let staging = Arc::clone(&uploads.staging);
            if let Err(error) = uploads.blocking(move || staging.sweep()).await {
                tracing::warn!(%error, "data of uploaded files stays in the staging area for now");
            }
        });
    }

    /// Runs what blocks its thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let task = self.fetcher.runtime.spawn_blocking(work);
        task.await.map_err(Error::broke_off)?
    }
}

pub(super) fn delayed(error: &impl std::fmt::Display) -> Outcome {
    Outcome::Delayed(error.to_string())
}

/// Says what to do about a failure that does not pass by itself.
fn remedy(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::PermissionDenied => {
            "allow the account to write there, or move the file elsewhere; then: manifold uploads retry"
        }
        ErrorKind::ReadOnly => "the source is read-only: copy the file elsewhere, or make the source writable",
        ErrorKind::Full => "make room at the source; then: manifold uploads retry",
        ErrorKind::Unsupported | ErrorKind::BadPath => "the source does not take this name: rename the file",
        ErrorKind::NameTooLong => "the name is too long for the source: rename the file",
        ErrorKind::TooLarge => "the file is too large for the source: move it elsewhere",
        ErrorKind::Settings => "put the source's settings right: manifold source test NAME",
        _ => return None,
    })
}
