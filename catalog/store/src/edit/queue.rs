//! The queue of directories that are still to be listed, and the state of scans.

use redb::ReadableTable;

use super::Edit;
use crate::error::Result;
use crate::format::{ScanRow, owned_key};
use crate::{DirectoryState, Failure};

impl Edit<'_> {
    pub(crate) fn scan(&self, source: u32) -> Result<ScanRow> {
        if let Some(now) = self.scans_now.get(&source) {
            return Ok(*now);
        }
        match self.scans.get(source)? {
            Some(row) => Ok(ScanRow::decode(row.value())?),
            None => Ok(ScanRow::default()),
        }
    }

    pub(crate) fn set_scan(&mut self, source: u32, scan: ScanRow) {
        self.scans_now.insert(source, scan);
    }

    pub(crate) fn enqueue(&mut self, source: u32, directory: u64) -> Result<()> {
        if self.queue.insert(&owned_key(source, directory), ())?.is_none() {
            let scan = self.scan(source)?;
            self.set_scan(
                source,
                ScanRow {
                    queued: scan.queued + 1,
                    ..scan
                },
            );
        }
        Ok(())
    }

    /// Takes a directory out of the queue; tells whether it was in.
    pub(crate) fn dequeue(&mut self, source: u32, directory: u64) -> Result<bool> {
        let was_in = self.queue.remove(&owned_key(source, directory))?.is_some();
        if was_in {
            let scan = self.scan(source)?;
            self.set_scan(
                source,
                ScanRow {
                    queued: scan.queued.saturating_sub(1),
                    ..scan
                },
            );
        }
        Ok(was_in)
    }

    /// Queues a known directory if the running scan has not listed it yet.
    pub(crate) fn enqueue_for_scan(&mut self, source: u32, directory: u64) -> Result<()> {
        let scan = self.scan(source)?;
        if scan.is_running() && self.state(directory)?.scan < scan.generation {
            self.enqueue(source, directory)?;
        }
        Ok(())
    }

    /// Notes that a directory was listed completely.
    pub(crate) fn mark_listed(&mut self, source: u32, directory: u64, listed_ns: i64, scan: u64) -> Result<()> {
        let before = self.state(directory)?;
        self.dequeue(source, directory)?;
        self.uncount_failure(source, &before)?;
        let running = self.scan(source)?;
        let mut generation = scan;
        if running.is_running() {
            generation = generation.max(running.generation);
            if before.scan < running.generation || before.listed_ns.is_none() {
                self.set_scan(
                    source,
                    ScanRow {
                        listed: running.listed + 1,
                        ..running
                    },
                );
            }
        }
        let state = DirectoryState {
            listed_ns: Some(listed_ns),
            scan: generation.max(before.scan),
            failure: None,
        };
        self.set_state(directory, &state)
    }

    /// Notes that a directory could not be listed; a running scan passes it over. However often it fails, it counts once.
    pub(crate) fn mark_failed(&mut self, source: u32, directory: u64, failure: Failure) -> Result<()> {
        self.dequeue(source, directory)?;
        let before = self.state(directory)?;
        let scan = self.scan(source)?;
        let counted = |failure: &Option<Failure>| failure.as_ref().is_some_and(|it| it.at_ns >= scan.started_ns);
        let failed = scan.failed.saturating_sub(u64::from(counted(&before.failure)));
        let state = DirectoryState {
            failure: Some(failure),
            ..before
        };
        let failed = failed + u64::from(counted(&state.failure));
        if failed != scan.failed {
            self.set_scan(source, ScanRow { failed, ..scan });
        }
        self.set_state(directory, &state)
    }

    /// Forgets that a directory could not be listed, because it leaves the tree.
    pub(crate) fn clear_failure(&mut self, source: u32, directory: u64) -> Result<()> {
        let before = self.state(directory)?;
        if before.failure.is_none() {
            return Ok(());
        }
        self.uncount_failure(source, &before)?;
        self.set_state(
            directory,
            &DirectoryState {
                failure: None,
                ..before
            },
        )
    }

    /// Takes a directory out of the count of those that could not be listed since the last scan began.
    fn uncount_failure(&mut self, source: u32, before: &DirectoryState) -> Result<()> {
        let scan = self.scan(source)?;
        if before.failure.as_ref().is_some_and(|it| it.at_ns >= scan.started_ns) {
            let failed = scan.failed.saturating_sub(1);
            self.set_scan(source, ScanRow { failed, ..scan });
        }
        Ok(())
    }
}
