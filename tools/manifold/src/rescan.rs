//! Listing a part of the tree anew for somebody who waits: `manifold scan PATH`.
//!
//! Owns the jobs that are under way, a bounded number of them; the listing itself is the indexer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifold_catalog::SourceRecord;
use manifold_index::{SubtreeProgress, SubtreeScan};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::connections::blocking;
use crate::control::text::Text;
use crate::control::{Reply, RescanFacts};
use crate::events::What;
use crate::failure::{Failure, Result};
use crate::find::Look;
use crate::open::OpenLibrary;

/// How many are remembered; the oldest are forgotten first, whether somebody still waits or not.
const JOBS_MAX: usize = 64;
/// How long one question about a job is held back while nothing comes to its end.
const ANSWER_AFTER: Duration = Duration::from_millis(500);

/// The jobs, by number.
#[derive(Debug, Default)]
pub(crate) struct Rescans(Mutex<Jobs>);

#[derive(Debug, Default)]
struct Jobs {
    last: u64,
    jobs: BTreeMap<u64, SubtreeScan>,
}

impl Rescans {
    fn add(&self, scan: SubtreeScan) -> u64 {
        let mut state = self.0.lock();
        state.last += 1;
        let job = state.last;
        state.jobs.insert(job, scan);
        while state.jobs.len() > JOBS_MAX {
            state.jobs.pop_first();
        }
        job
    }

    fn get(&self, job: u64) -> Option<SubtreeScan> {
        self.0.lock().jobs.get(&job).cloned()
    }

    fn forget(&self, job: u64) {
        self.0.lock().jobs.remove(&job);
    }
}

impl OpenLibrary {
    /// Begins to list what stands at a path, and all beneath it.
    pub(crate) async fn rescan(self: &Arc<Self>, path: &Text) -> Result<Reply> {
        if !self.keeps_connections() {
            for record in self.sources()? {
                if concerns(&record, &path.0) {
                    self.connections.connect_now(&record).await?;
                }
            }
        }
        let found = self.find(path, Look::AtSource).await?;
        let scan = self.indexer.scan_beneath(self.vfs.parts(found.id)?);
        self.events.tell(What::RescanBegan { path: path.clone() });
        let (mut ended, events, path) = (scan.clone(), self.events.clone(), path.clone());
        tokio::spawn(async move {
            let progress = ended.ended().await;
            events.tell(What::RescanEnded {
                path,
                listed: progress.listed,
                failed: progress.failed,
                reason: progress.failure,
            });
        });
        let facts = facts(self.rescans.add(scan.clone()), scan.progress());
        Ok(Reply::Rescan(facts))
    }

    /// Says how far a job has come, a little later if it has not ended. What one that has ended saw is durable.
    pub(crate) async fn rescan_progress(&self, job: u64) -> Result<Reply> {
        let mut scan = self
            .rescans
            .get(job)
            .ok_or_else(|| Failure::new(format!("no scan has the number {job}, or it ended and was told")))?;
        // Whether it ended in time is seen in the progress.
        let _ended_or_not = timeout(ANSWER_AFTER, scan.ended()).await;
        let progress = scan.progress();
        if progress.ended {
            let catalog = Arc::clone(&self.catalog);
            blocking(move || Ok(catalog.sync()?)).await?;
            self.rescans.forget(job);
        }
        Ok(Reply::Rescan(facts(job, progress)))
    }
}

fn facts(job: u64, progress: SubtreeProgress) -> RescanFacts {
    let SubtreeProgress {
        listed,
        looked,
        waiting,
        failed,
        failure,
        ended,
    } = progress;
    RescanFacts {
        job,
        listed,
        looked,
        waiting,
        failed,
        failure,
        ended,
    }
}

/// Tells whether a source stands at a path, above it or beneath it.
fn concerns(record: &SourceRecord, path: &[u8]) -> bool {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".");
        parts.map(<[u8]>::to_vec).collect()
    };
    let (attach, path) = (parts(&record.attach), parts(path));
    attach.starts_with(&path) || path.starts_with(&attach)
}

#[cfg(test)]
mod tests {
    use manifold_catalog::{EntryId, SourceId};

    use super::*;

    #[test]
    fn a_path_concerns_the_sources_on_its_way_and_beneath_it() {
        let record = |attach: &str| SourceRecord {
            id: SourceId(1),
            name: "x".into(),
            attach: attach.into(),
            root: EntryId(2),
            spec: String::new(),
            options: String::new(),
        };
        for (attach, path, yes) in [
            ("/media", "/media/films", true),
            ("/media/films", "/media", true),
            ("/media", "/", true),
            ("/media", "media//", true),
            ("/media", "/medial", false),
            ("/", "/anything", true),
        ] {
            assert_eq!(concerns(&record(attach), path.as_bytes()), yes, "{attach} {path}");
        }
    }
}
