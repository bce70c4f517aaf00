//! Listing one part of the tree anew because somebody asks for it, and waits: all directories beneath an entry, those of
//! other sources that are attached there too.
//!
//! It keeps nothing: who wants it again asks again. A source that turns out to be away is asked no more: somebody waits, and each
//! of its directories would cost them the patience of a request. What else is attached beneath is listed all the same.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use manifold_backends::Presence;
use manifold_catalog::{EntryId, Kind, SourceId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::IndexError;
use crate::flight::Outcome;
use crate::indexer::Indexer;

/// How many directories are listed at once.
const AT_ONCE: usize = 4;

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubtreeProgress {
    /// Directories that were listed.
    pub listed: u64,
    /// What else was asked for by itself, and looked at.
    pub looked: u64,
    /// Directories that are known and not listed yet.
    pub waiting: u64,
    /// Directories that could not be listed, and what was asked for and is gone.
    pub failed: u64,
    /// Why the first of them could not.
    pub failure: Option<String>,
    /// Whether it is over.
    pub ended: bool,
}

/// A listing of a part of the tree that is under way or has ended. Dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct SubtreeScan(watch::Receiver<SubtreeProgress>);

impl SubtreeScan {
    /// Says how far it has come.
    pub fn progress(&self) -> SubtreeProgress {
        self.0.borrow().clone()
    }

    /// Waits until it ends.
    pub async fn ended(&mut self) -> SubtreeProgress {
        // An error means that its task is gone, which is as good as its end.
        drop(self.0.wait_for(|progress| progress.ended).await);
        self.progress()
    }
}

impl Indexer {
    /// Lists entries and all beneath them anew; of a file, the attributes.
    pub fn scan_beneath(self: &Arc<Self>, tops: Vec<EntryId>) -> SubtreeScan {
        let (sender, receiver) = watch::channel(SubtreeProgress::default());
        let indexer = Arc::clone(self);
        self.tasks.spawn_on(
            async move {
                if let Err(error) = indexer.list_beneath(tops, &sender).await {
                    sender.send_modify(|progress| {
                        progress.failed += 1;
                        progress.failure.get_or_insert(error.to_string());
                    });
                }
                sender.send_modify(|progress| progress.ended = true);
            },
            &self.runtime,
        );
        SubtreeScan(receiver)
    }

    async fn list_beneath(
        self: &Arc<Self>,
        tops: Vec<EntryId>,
        progress: &watch::Sender<SubtreeProgress>,
    ) -> Result<(), IndexError> {
        let (mut waiting, mut seen) = (VecDeque::new(), HashSet::new());
        for top in tops.iter().copied() {
            let entry = self.catalog().entry(top)?.ok_or(IndexError::NotFound(top.0))?;
            if entry.kind != Kind::Directory {
                match self.refresh(top).await? {
                    Presence::Found(()) => progress.send_modify(|progress| progress.looked += 1),
                    Presence::Absent => note_gone(progress),
                }
            } else if seen.insert(top) {
                waiting.push_back(top);
            }
        }
        let mut under_way = JoinSet::new();
        let mut away = HashSet::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(directory) = waiting.pop_front()
            {
                if !away.is_empty()
                    && let Some(entry) = self.catalog().entry(directory)?
                    && away.contains(&entry.source)
                {
                    self.take_children(directory, &mut waiting, &mut seen)?;
                    progress.send_modify(|progress| progress.failed += 1);
                    continue;
                }
                let indexer = Arc::clone(self);
                let listing = async move { (directory, indexer.list_anew(directory).await) };
                under_way.spawn_on(listing, &self.runtime);
            }
            let Some(ended) = under_way.join_next().await else {
                return Ok(());
            };
            let (directory, outcome) = ended.map_err(|_| IndexError::Stopped)?;
            if matches!(outcome, Err(IndexError::NotFound(_))) && tops.contains(&directory) {
                note_gone(progress);
            }
            if let Err(error) = &outcome {
                away.extend(self.found_away(directory, error).await?);
            }
            // What is known beneath a directory that could not be listed is looked at all the same.
            self.take_children(directory, &mut waiting, &mut seen)?;
            note(progress, outcome, (waiting.len() + under_way.len()) as u64)?;
        }
    }

    /// Gives the source of a directory that could not be listed, if it is the source that is away.
    async fn found_away(&self, directory: EntryId, error: &IndexError) -> Result<Option<SourceId>, IndexError> {
        if !error.is_about_source() {
            return Ok(None);
        }
        let Some(entry) = self.catalog().entry(directory)? else {
            return Ok(None);
        };
        let is_away = match self.source(entry.source) {
            Ok(source) => source.verdict_is_away().await,
            Err(_not_connected) => true,
        };
        Ok(is_away.then_some(entry.source))
    }

    fn take_children(
        &self,
        directory: EntryId,
        waiting: &mut VecDeque<EntryId>,
        seen: &mut HashSet<EntryId>,
    ) -> Result<(), IndexError> {
        for page in self.catalog().child_pages(directory) {
            let page = page?;
            let directories = page.iter().filter(|child| child.kind == Kind::Directory);
            waiting.extend(directories.map(|child| child.id).filter(|id| seen.insert(*id)));
        }
        Ok(())
    }
}

/// Notes that what was asked for is gone.
fn note_gone(progress: &watch::Sender<SubtreeProgress>) {
    progress.send_modify(|progress| {
        progress.failed += 1;
        let gone = || "it is not there any more".to_owned();
        progress.failure.get_or_insert_with(gone);
    });
}

fn note(progress: &watch::Sender<SubtreeProgress>, outcome: Outcome, waiting: u64) -> Outcome {
    let (mut listed, mut failure) = (0, None);
    match outcome {
        Ok(()) => listed = 1,
        // It went meanwhile.
        Err(IndexError::NotFound(_)) => {}
        Err(error @ (IndexError::Stopped | IndexError::Catalog(_))) => return Err(error),
        Err(error) => failure = Some(error.to_string()),
    }
    progress.send_modify(|progress| {
        progress.listed += listed;
        progress.waiting = waiting;
        if let Some(failure) = failure {
            progress.failed += 1;
            progress.failure.get_or_insert(failure);
        }
    });
    Ok(())
}
