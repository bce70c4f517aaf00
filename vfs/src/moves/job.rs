//! The life of one move: look at all that the directory holds, bring what is elsewhere, and end when all is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use manifold_catalog::{EntryId, Kind};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::bring::Brought;
use super::{Fault, Ground, MoveState, Moves};
use crate::Error;

/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure that may pass by itself.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The pause before something is tried again that was refused.
const PAUSE_REFUSED: Duration = Duration::from_mins(10);
/// How long a move waits for others at first: files that are being written, names that are being changed. Doubled each time.
const PAUSE_WAITING: Duration = Duration::from_millis(250);
/// The longest pause in which it waits for them.
const PAUSE_WAITING_MAX: Duration = Duration::from_secs(10);
/// How many files one move brings at once; a source that likes less is asked for less.
const FILES_MAX: usize = 16;

/// What a round came to.
#[derive(Debug)]
enum Round {
    /// There is nothing left to do, or it is for another's task to do.
    Ended,
    /// Others have to end something first.
    Waits,
}

/// A directory of the move, and where some of what it holds may lie besides where it stands.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) id: EntryId,
    pub(super) places: Vec<Vec<u8>>,
    /// Those of the places in which it has stood only after its move began, so that copies alone can lie there.
    pub(super) passed: Vec<Vec<u8>>,
}

impl Holding {
    /// Of a directory that has a row.
    fn of_row(id: EntryId, places: Vec<Vec<u8>>) -> Self {
        let passed = places.iter().skip(1).cloned().collect();
        Self { id, places, passed }
    }
}

/// Takes note that a task has ended, in whatever way.
struct Working<'a> {
    moves: &'a Arc<Moves>,
    id: EntryId,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.moves.jobs.lock().remove(&self.id);
        self.moves.note();
    }
}

impl Moves {
    /// Works on a move until it has ended.
    pub(super) async fn work(self: Arc<Self>, id: EntryId, nudge: Arc<Notify>) {
        let mut stopped = self.stopped.subscribe();
        {
            let _working = Working { moves: &self, id };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = self.see_through(id, &nudge) => {}
            }
        }
        // It may have been renamed anew after the last look.
        let catalog = &self.uploads.fetcher.catalog;
        if catalog.move_above(id).is_ok_and(|top| top == Some(id)) {
            self.start(id);
        }
    }

    async fn see_through(self: &Arc<Self>, id: EntryId, nudge: &Notify) {
        let mut listed = HashSet::new();
        let (mut failures, mut waits) = (0_u32, 0_u32);
        loop {
            let round = {
                let Ok(_turn) = self.turns.acquire().await else { return };
                self.round(id, &mut listed).await
            };
            let pause = match round {
                Ok(Round::Ended) => return,
                Ok(Round::Waits) => {
                    failures = 0;
                    waits = waits.saturating_add(1);
                    self.on_job(id, |job| job.state = MoveState::Waiting);
                    PAUSE_WAITING
                        .saturating_mul(1 << (waits - 1).min(10))
                        .min(PAUSE_WAITING_MAX)
                }
                Err(Fault::Delayed(error)) => {
                    tracing::debug!(id = id.0, error, "a move failed, and is tried again");
                    self.on_job(id, |job| job.state = MoveState::Delayed { error });
                    let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
                    failures = failures.saturating_add(1);
                    pause
                }
                Err(Fault::Refused { error, remedy }) => {
                    self.refused(id, error, remedy);
                    PAUSE_REFUSED
                }
            };
            self.note();
            tokio::select! {
                () = nudge.notified() => (failures, waits) = (0, 0),
                () = sleep(pause) => {}
            }
        }
    }

    fn refused(&self, id: EntryId, error: String, remedy: String) {
        let catalog = &self.uploads.fetcher.catalog;
        let path = catalog.tree_path(id).ok().flatten().unwrap_or_default();
        let source = catalog.entry(id).ok().flatten().map(|entry| entry.source);
        let state = MoveState::Refused {
            error: error.clone(),
            remedy: remedy.clone(),
        };
        let mut is_new = false;
        self.on_job(id, |job| {
            is_new = job.state != state;
            job.state = state;
        });
        if let Some(source) = source.filter(|_| is_new) {
            tracing::warn!(id = id.0, path = %path.escape_ascii(), error, "a renamed directory is not followed by its objects");
            self.uploads.tell_move_refused(source, path, error, remedy);
        }
    }

    /// Goes through all that the directory holds once.
    async fn round(self: &Arc<Self>, id: EntryId, listed: &mut HashSet<EntryId>) -> Result<Round, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        match catalog.move_above(id).map_err(fault)? {
            Some(top) if top == id => {}
            Some(top) => {
                self.start(top);
                return Ok(Round::Ended);
            }
            None => return Ok(Round::Ended),
        }
        let moves = catalog.moves().map_err(fault)?;
        let Some(own) = moves.into_iter().find(|one| one.id == id) else {
            return Ok(Round::Ended);
        };
        let ground = self.ground(id, own.source).await?;
        self.on_job(id, |job| job.state = MoveState::UnderWay);
        self.note();
        let holdings = self.look_through(&ground, own.places.clone(), listed).await?;
        let mut waits = self.bring_all(&ground, &holdings).await?;
        for other in self.lie_within(ground.source, id, &own.places).map_err(fault)? {
            // Once all its files are there, it may wait for this one.
            waits |= !self.has_followed(other)?;
        }
        if waits {
            return Ok(Round::Waits);
        }
        self.take_copies_away(&ground, &holdings).await?;
        let settled = self.settle_directories(&ground, &holdings).await?;
        if !self.finish(id, settled).await? {
            return Ok(Round::Waits);
        }
        // Whoever has waited for it goes on now.
        self.note();
        self.look_at_old_places(&ground, &own.places).await;
        Ok(Round::Ended)
    }

    /// Finds the source, where it may be written to.
    pub(super) async fn ground(&self, top: EntryId, source: manifold_catalog::SourceId) -> Result<Ground, Fault> {
        let fetcher = &self.uploads.fetcher;
        let connected = tokio::time::timeout(fetcher.deadline, fetcher.indexer.until_connected(source));
        // Whether it is connected is seen next.
        let _in_time = connected.await;
        let Some(backend) = fetcher.indexer.backend(source) else {
            return Err(Fault::Delayed(format!("source {source} is not connected")));
        };
        if let Some((error, remedy)) = self.uploads.takes_no_changes(source, &*backend) {
            return Err(Fault::Refused { error, remedy });
        }
        Ok(Ground { top, source, backend })
    }

    /// Lists each directory once, so that what the source has when its move begins is moved, and counts the files that are to
    /// be brought. Gives the directories, each before those in it.
    async fn look_through(
        &self,
        ground: &Ground,
        places: Vec<Vec<u8>>,
        listed: &mut HashSet<EntryId>,
    ) -> Result<Vec<Holding>, Fault> {
        let (catalog, indexer) = (&self.uploads.fetcher.catalog, &self.uploads.fetcher.indexer);
        let mut next = vec![Holding::of_row(ground.top, places)];
        let mut holdings = Vec::new();
        let mut left = 0;
        while let Some(holding) = next.pop() {
            if !listed.contains(&holding.id) {
                indexer.list_for_move(holding.id).await.map_err(of_index)?;
                listed.insert(holding.id);
            }
            for page in catalog.child_pages(holding.id) {
                for child in &page.map_err(fault)? {
                    if child.kind == Kind::Directory {
                        next.push(self.holding_beneath(&holding, child.id)?);
                    } else {
                        left += u64::from(!self.is_there(child.id)?);
                    }
                }
            }
            holdings.push(holding);
        }
        self.on_job(ground.top, |job| job.left = left);
        self.note();
        Ok(holdings)
    }

    fn holding_beneath(&self, above: &Holding, id: EntryId) -> Result<Holding, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let moves = catalog.moves().map_err(fault)?;
        // Its own row names all places: under the name that it has now, it was not in all of those above it.
        if let Some(own) = moves.into_iter().find(|one| one.id == id) {
            return Ok(Holding::of_row(id, own.places));
        }
        let details = catalog.details(id).map_err(fault)?;
        let raw = details.map(|details| details.raw_name).unwrap_or_default();
        let beneath = |places: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let places = places.iter();
            places.map(|place| [&place[..], b"/", &raw].concat()).collect()
        };
        let (places, passed) = (beneath(&above.places), beneath(&above.passed));
        Ok(Holding { id, places, passed })
    }

    /// Brings all files that are elsewhere, and tells whether some have to wait.
    async fn bring_all(&self, ground: &Ground, holdings: &[Holding]) -> Result<bool, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let at_once = (ground.backend.capabilities().concurrency as usize / 2).clamp(1, FILES_MAX);
        let (mut waits, mut failed, mut in_a_row) = (false, None, 0);
        for holding in holdings {
            for page in catalog.child_pages(holding.id) {
                let page = page.map_err(fault)?;
                let files = page.iter().filter(|child| child.kind != Kind::Directory);
                let tasks: Vec<_> = files.map(|child| self.bring(ground, child.id).boxed()).collect();
                let mut brought = futures::stream::iter(tasks).buffer_unordered(at_once);
                while let Some(outcome) = brought.next().await {
                    in_a_row = if outcome.is_ok() { 0 } else { in_a_row + 1 };
                    match outcome {
                        Ok(Brought::There) => {}
                        Ok(Brought::Moved) => {
                            self.done.fetch_add(1, Ordering::Relaxed);
                            self.on_job(ground.top, |job| {
                                job.moved += 1;
                                job.left = job.left.saturating_sub(1);
                            });
                        }
                        Ok(Brought::Gone) => self.on_job(ground.top, |job| job.left = job.left.saturating_sub(1)),
                        Ok(Brought::Waits) => waits = true,
                        // What fails for all is not tried with each.
                        Err(fault) if in_a_row > at_once => return Err(fault),
                        Err(fault) => failed = Some(fault),
                    }
                }
            }
        }
        failed.map_or(Ok(waits), Err)
    }

    /// Tells whether all files beneath a directory are where they stand.
    fn has_followed(&self, id: EntryId) -> Result<bool, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let mut directories = vec![id];
        while let Some(directory) = directories.pop() {
            for page in catalog.child_pages(directory) {
                for child in &page.map_err(fault)? {
                    if child.kind == Kind::Directory {
                        directories.push(child.id);
                    } else if !self.is_there(child.id)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Ends the move, if all is there and nobody is about to change anything. `settled`: where each directory has been seen to.
    async fn finish(&self, id: EntryId, settled: HashMap<EntryId, Vec<u8>>) -> Result<bool, Fault> {
        let Ok(_alone) = self.steady.try_write() else {
            return Ok(false);
        };
        let catalog = Arc::clone(&self.uploads.fetcher.catalog);
        let finished = self
            .uploads
            .blocking(move || catalog.finish_move(id, &settled).map_err(Error::from_catalog))
            .await
            .map_err(fault)?;
        if finished {
            tracing::debug!(id = id.0, "all objects of a renamed directory have followed it");
        }
        Ok(finished)
    }

    /// Has the directories listed from which something was moved away: what others have put there meanwhile shows again.
    async fn look_at_old_places(&self, ground: &Ground, places: &[Vec<u8>]) {
        let fetcher = &self.uploads.fetcher;
        let mut directories = HashSet::from([ground.top]);
        for place in places {
            let end = place.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            match self.find_at(ground.source, &place[..end]) {
                Ok(found) => directories.extend(found),
                Err(error) => tracing::warn!(%error, "an old place of a directory is listed later"),
            }
        }
        for directory in directories {
            if let Err(error) = fetcher.catalog.note_stale(directory) {
                tracing::warn!(id = directory.0, %error, "an old place of a directory is listed later");
            }
            if let Err(error) = fetcher.indexer.list_now(directory).await {
                tracing::debug!(id = directory.0, %error, "an old place of a directory is listed later");
            }
        }
    }
}

/// What fails here fails for a reason that passes.
pub(super) fn fault(error: impl std::fmt::Display) -> Fault {
    Fault::Delayed(error.to_string())
}

/// Tells what passes from what somebody has to see to.
pub(super) fn of_index(error: manifold_index::IndexError) -> Fault {
    let remedy = error.kind().and_then(super::bring::remedy);
    match remedy {
        Some(remedy) => Fault::Refused {
            error: error.to_string(),
            remedy: remedy.to_owned(),
        },
        None => fault(error),
    }
}
