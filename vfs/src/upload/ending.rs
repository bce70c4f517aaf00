//! Uploads in parts that nobody will take up: ended at their sources, which would keep what was sent of them for good. The same is
//! done with what lies beside its place under a temporary name.
//!
//! It owns one task for all of them. Which they are follows from the catalog and the staging area alone, so that a crash takes
//! nothing away from that: one is to be ended when its file is not staged any more, has been changed or lies elsewhere, or was
//! refused. One whose source cannot be reached is tried again for as long as it takes; one that a source will not end
//! is told in the log, and tried anew at the next start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use manifold_backends::{ErrorKind, ObjectPath};
use manifold_catalog::{PartUpload, PartUploadId, SourceId};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{UploadState, Uploads, parts};
use crate::Error;

/// How many are ended at once.
const AT_ONCE: usize = 4;
/// How long those that are to be ended are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// Looked at again at the latest.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How often a source may refuse to end an upload.
const REFUSALS_MAX: u32 = 5;

/// What is known of the task, and of uploads that could not be ended at once.
#[derive(Debug, Default)]
pub(super) struct Ending {
    runs: AtomicBool,
    failed: Mutex<HashMap<PartUploadId, Failed>>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    refusals: u32,
    again: Instant,
}

/// Why an upload was not ended.
#[derive(Debug)]
enum Fault {
    /// Its source gives no answer.
    Away(String),
    /// Its source has said so.
    Refused(String),
}

impl Ending {
    /// Tells whether the task runs.
    pub(super) fn runs(&self) -> bool {
        self.runs.load(Ordering::Acquire)
    }

    /// Has everything tried again that failed.
    pub(super) fn retry(&self) {
        self.failed.lock().clear();
    }
}

impl Uploads {
    /// Begins to end what nobody will take up.
    pub(crate) fn start_ending(self: &Arc<Self>) {
        self.ending.runs.store(true, Ordering::Release);
        let uploads = Arc::clone(self);
        self.fetcher.runtime.spawn(async move {
            let mut stopped = uploads.stopped.subscribe();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = uploads.end_all() => {}
            }
            uploads.ending.runs.store(false, Ordering::Release);
            uploads.note();
        });
    }

    async fn end_all(self: &Arc<Self>) {
        let mut happened = self.subscribe();
        loop {
            happened.borrow_and_update();
            let next = match self.ending_round().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "uploads that nobody will take up stay at their sources for now");
                    Instant::now() + LOOK_EVERY
                }
            };
            tokio::select! {
                _ = happened.changed() => {}
                () = sleep_until(next) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Ends what is to be ended and has not failed a moment ago. Says when to look again.
    async fn ending_round(self: &Arc<Self>) -> Result<Instant, Error> {
        let now = Instant::now();
        let mut due = self.begun()?;
        self.ending
            .failed
            .lock()
            .retain(|id, _| due.iter().any(|(other, _)| other == id));
        due.retain(|(id, upload)| {
            let failed = self.ending.failed.lock().get(id).copied();
            failed.is_none_or(|failed| failed.again <= now && failed.refusals < REFUSALS_MAX) && self.is_due(upload)
        });
        let mut ended = futures::stream::iter(due)
            .map(|(id, upload)| async move {
                let outcome = self.end_one(id, &upload).await;
                (id, upload, outcome)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((id, upload, outcome)) = ended.next().await {
            self.note_ending(id, &upload, outcome);
        }
        let failed = self.ending.failed.lock();
        let open = failed.values().filter(|failed| failed.refusals < REFUSALS_MAX);
        let next = open.map(|failed| failed.again).min();
        Ok(next.unwrap_or(now + LOOK_EVERY).min(now + LOOK_EVERY))
    }

    fn begun(&self) -> Result<Vec<(PartUploadId, PartUpload)>, Error> {
        self.fetcher.catalog.part_uploads().map_err(Error::from_catalog)
    }

    /// Tells whether nobody will take an upload up. What cannot be found out now is taken up, as far as is known.
    fn is_due(&self, upload: &PartUpload) -> bool {
        let Some(file) = self.staging.get(upload.entry) else {
            return true;
        };
        if let Some(job) = self.jobs.lock().get(&upload.entry) {
            if job.sends.as_ref().is_some_and(|what| parts::is_of(upload, what)) {
                return false;
            }
            if matches!(job.state, UploadState::Refused { .. }) {
                return true;
            }
        }
        if (file.look().size, file.written_ns()) != (upload.size, upload.written_ns) {
            return true;
        }
        match self.fetcher.catalog.object_path(upload.entry) {
            Ok(place) => place.is_none_or(|(source, path)| source != upload.source || path != upload.path),
            Err(_) => false,
        }
    }

    async fn end_one(&self, id: PartUploadId, upload: &PartUpload) -> Result<(), Fault> {
        let fetcher = &self.fetcher;
        let Some(backend) = fetcher.indexer.backend(upload.source) else {
            return Err(Fault::Away(format!("source {} is not connected", upload.source)));
        };
        let name = std::str::from_utf8(&upload.name).map_err(|error| Fault::Refused(error.to_string()))?;
        // What is not found where its directory does not lie any more would be taken for ended.
        self.must_lie_there(upload)?;
        let path = ObjectPath::from_bytes(upload.path.as_slice());
        let request = backend.give_up(&path, name);
        let asked = fetcher.indexer.ask(upload.source, &path, fetcher.deadline, request);
        asked.await.map_err(|error| match error.kind() {
            Some(
                ErrorKind::PermissionDenied
                | ErrorKind::ReadOnly
                | ErrorKind::Unsupported
                | ErrorKind::BadPath
                | ErrorKind::Nonsense
                | ErrorKind::Other,
            ) => Fault::Refused(error.to_string()),
            _ => Fault::Away(error.to_string()),
        })?;
        self.must_lie_there(upload)?;
        let (catalog, upload) = (Arc::clone(&fetcher.catalog), upload.clone());
        let forget = move || {
            // Where its directory has got another name by now, it lies there, and was looked for elsewhere.
            let begun = catalog.part_uploads().map_err(Error::from_catalog)?;
            if begun.contains(&(id, upload)) {
                catalog.end_part_upload(id).map_err(Error::from_catalog)?;
            }
            Ok(())
        };
        self.blocking(forget)
            .await
            .map_err(|error| Fault::Away(error.to_string()))
    }

    /// Makes sure that it is known where what was sent of an upload lies.
    fn must_lie_there(&self, upload: &PartUpload) -> Result<(), Fault> {
        match self.may_lead_elsewhere(upload.source, &upload.path) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Fault::Away(
                "its source has not said whether it has renamed a directory that leads to it".to_owned(),
            )),
            Err(error) => Err(Fault::Away(error.to_string())),
        }
    }

    fn note_ending(&self, id: PartUploadId, upload: &PartUpload, outcome: Result<(), Fault>) {
        let mut all = self.ending.failed.lock();
        let Err(fault) = outcome else {
            all.remove(&id);
            return;
        };
        let failed = all.entry(id).or_insert_with(|| Failed {
            count: 0,
            refusals: 0,
            again: Instant::now(),
        });
        failed.again = Instant::now() + PAUSE.saturating_mul(1 << failed.count.min(10)).min(PAUSE_MAX);
        failed.count += 1;
        match fault {
            Fault::Away(error) => tracing::debug!(error, "an upload is ended at its source later"),
            Fault::Refused(error) => {
                failed.refusals += 1;
                if failed.refusals == REFUSALS_MAX {
                    tell_left(upload, &error);
                }
            }
        }
    }

    /// Ends what nobody will take up of uploads into a directory that is about to go: what lies there of them would be in the way.
    pub(crate) async fn end_all_in(&self, source: SourceId, directory: &ObjectPath) -> Result<(), Error> {
        let begun = self.begun()?.into_iter().filter(|(_, upload)| {
            let path = ObjectPath::from_bytes(upload.path.as_slice());
            upload.source == source && path.parent() == *directory && self.is_due(upload)
        });
        for (id, upload) in begun {
            let outcome = self.end_one(id, &upload).await;
            self.note_ending(id, &upload, outcome);
        }
        Ok(())
    }

    /// Ends what was begun at a source that is about to leave the library, as far as that can be done at once. What is left
    /// there is told in the log.
    pub(crate) async fn end_all_of(&self, source: SourceId) -> Result<(), Error> {
        let mut is_away = None;
        for (id, upload) in self.begun()?.into_iter().filter(|(_, one)| one.source == source) {
            // Once it has given no answer, the others need not wait for that.
            let outcome = match is_away.take() {
                Some(error) => Err(Fault::Away(error)),
                None => self.end_one(id, &upload).await,
            };
            if let Err(Fault::Away(error) | Fault::Refused(error)) = &outcome {
                tell_left(&upload, error);
            }
            if let Err(Fault::Away(error)) = outcome {
                is_away = Some(error);
            }
        }
        Ok(())
    }
}

/// Says what stays at a source.
fn tell_left(upload: &PartUpload, error: &str) {
    tracing::warn!(
        source = %upload.source,
        path = %upload.path.escape_ascii(),
        upload = %upload.name.escape_ascii(),
        error,
        "an upload that was broken off stays at its source, which may keep what was sent of it, and charge for it: end it there"
    );
}
