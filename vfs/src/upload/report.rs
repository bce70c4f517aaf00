//! What is told of the queue to people.

use std::sync::atomic::Ordering;

use manifold_catalog::EntryId;

use super::{UploadReport, UploadState, UploadTally, Uploads};

impl Uploads {
    /// Counts how many files have come how far. Cheap, however many there are.
    pub(crate) fn tally(&self) -> UploadTally {
        let mut tally = UploadTally::default();
        let files = self.staging.all();
        let jobs = self.jobs.lock();
        for file in files {
            let state = jobs.get(&file.id).filter(|job| job.is_wanted()).map(|job| &job.state);
            match state {
                _ if file.is_broken().is_some() => tally.refused += 1,
                Some(UploadState::UnderWay { .. }) => tally.under_way += 1,
                Some(UploadState::Delayed { .. }) => tally.delayed += 1,
                Some(UploadState::Refused { .. }) => tally.refused += 1,
                Some(UploadState::Open | UploadState::Waiting) | None => {}
            }
        }
        tally
    }

    /// Lists what is staged.
    pub(crate) fn report(&self) -> Vec<UploadReport> {
        let mut reports: Vec<_> = self
            .staging
            .all()
            .into_iter()
            .map(|file| {
                let look = file.look();
                let entry = self.fetcher.catalog.entry(file.id).ok().flatten();
                let path = self
                    .fetcher
                    .catalog
                    .tree_path(file.id)
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                let state = match file.is_broken() {
                    Some(error) => UploadState::Refused {
                        error,
                        remedy: "keep the staging folder, and see docs/staging-format.md".to_owned(),
                    },
                    None => self.state_of(file.id),
                };
                UploadReport {
                    id: file.id,
                    source: entry.map(|entry| entry.source),
                    path,
                    size: look.size,
                    staged: file.written(),
                    state,
                }
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.id);
        reports
    }

    fn state_of(&self, id: EntryId) -> UploadState {
        match self.jobs.lock().get(&id) {
            Some(job) if job.is_wanted() => match &job.state {
                UploadState::UnderWay { .. } => UploadState::UnderWay {
                    sent: job.sent.load(Ordering::Relaxed),
                },
                other => other.clone(),
            },
            _ => UploadState::Open,
        }
    }
}
