//! The life of one file that waits to be uploaded: wait, try, and wait longer after each failure.

use std::sync::Arc;
use std::time::Duration;

use manifold_catalog::EntryId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::attempt::Outcome;
use super::rush::SMALL_MAX;
use super::{SETTLE_OPEN, UploadEvent, UploadState, Uploads};
use crate::staging::StagedFile;

/// The pause after the first failure; doubled with each, and spread by chance.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure that may pass by itself.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The pause before something is tried again that was refused.
const PAUSE_REFUSED: Duration = Duration::from_mins(10);

/// Takes note that a task has ended, in whatever way.
struct Working<'a> {
    uploads: &'a Arc<Uploads>,
    id: EntryId,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut jobs = self.uploads.jobs.lock();
        if let Some(job) = jobs.get_mut(&self.id) {
            job.running = false;
            if job.held == 0 {
                self.uploads.start(self.id, job);
                if !job.running && !job.is_wanted() {
                    jobs.remove(&self.id);
                }
            }
        }
        drop(jobs);
        self.uploads.note();
    }
}

impl Uploads {
    pub(super) async fn work(self: Arc<Self>, id: EntryId, mut end: watch::Receiver<bool>) {
        let _working = Working { uploads: &self, id };
        let mut failures = 0;
        loop {
            let (due, gathers, nudge, asked) = {
                let jobs = self.jobs.lock();
                let Some(job) = jobs.get(&id).filter(|job| job.is_wanted()) else {
                    return;
                };
                (job.due, job.gathers, Arc::clone(&job.nudge), job.asked)
            };
            let is_small = |file: Arc<StagedFile>| file.look().size <= SMALL_MAX;
            let its_turn = async {
                sleep_until(due).await;
                if gathers && failures == 0 && self.staging.get(id).is_some_and(is_small) {
                    self.rush.over(due).await;
                }
            };
            tokio::select! {
                biased;
                _ = end.wait_for(|end| *end) => return,
                () = nudge.notified() => {
                    failures = 0;
                    continue;
                }
                () = its_turn => {}
            }
            let outcome = self.attempt(id, &mut end).await;
            let mut event = None;
            let mut jobs = self.jobs.lock();
            let Some(job) = jobs.get_mut(&id) else { return };
            job.sends = None;
            match outcome {
                Outcome::Ended => {
                    job.state = UploadState::Waiting;
                    return drop(jobs);
                }
                Outcome::Done => {
                    job.done = job.done.max(asked);
                    job.state = UploadState::Waiting;
                    failures = 0;
                }
                // When whoever writes closes it, that comes sooner.
                Outcome::Overtaken => {
                    job.state = UploadState::Waiting;
                    if job.asked == asked {
                        job.due = Instant::now() + SETTLE_OPEN;
                    }
                    failures = 0;
                }
                Outcome::Again => {
                    job.state = UploadState::Waiting;
                    job.due = Instant::now();
                }
                Outcome::Delayed(error) => {
                    tracing::debug!(id = id.0, error, "an upload failed, and is tried again");
                    job.state = UploadState::Delayed { error };
                    job.due = Instant::now() + self.pause(id, failures);
                    failures = failures.saturating_add(1);
                }
                Outcome::Refused { error, remedy } => {
                    let state = UploadState::Refused { error, remedy };
                    if job.state != state {
                        event = Some(state.clone());
                    }
                    job.state = state;
                    job.due = Instant::now() + PAUSE_REFUSED;
                }
            }
            drop(jobs);
            self.note();
            if let Some(UploadState::Refused { error, remedy }) = event {
                self.tell_refused(id, error, remedy);
            }
        }
    }

    /// Spreads a pause by chance over its upper half.
    fn pause(&self, id: EntryId, failures: u32) -> Duration {
        let full = PAUSE.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
        let salt = [self.seed, id.0, u64::from(failures)];
        let bytes: Vec<u8> = salt.iter().flat_map(|number| number.to_le_bytes()).collect();
        full * (50 + crc32c::crc32c(&bytes) % 51) / 100
    }

    fn tell_refused(&self, id: EntryId, error: String, remedy: String) {
        let catalog = &self.fetcher.catalog;
        let source = catalog.entry(id).ok().flatten().map(|entry| entry.source);
        let path = catalog.tree_path(id).ok().flatten().unwrap_or_default();
        tracing::warn!(id = id.0, path = %path.escape_ascii(), error, "an upload was refused; the file stays staged");
        (self.listener)(UploadEvent::Refused {
            source,
            path,
            error,
            remedy,
        });
    }
}
