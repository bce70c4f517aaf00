//! Following what a source tells of changes, where it can tell.
//!
//! A notice changes nothing by itself: it only has a directory listed again, or a child looked at, and the catalog learns
//! from that as from any other listing. What was missed (the system's queue ran over, the connection was lost, a disk was
//! unmounted) has the whole source scanned again.
//!
//! Always true: a directory is covered before it is listed; a listing that a notice asks for begins after the notice.

mod pending;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_backends::{Coverage, ErrorKind, Noticed, ObjectPath, Watch, Where};
use manifold_catalog::{EntryId, SourceId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::IndexError;
use crate::flight::Outcome;
use crate::indexer::{Indexer, Target};
use crate::names::{Side, escape};
use crate::source::Source;

use pending::{Look, Pending, Work};

/// How many directories of one source are looked at at once.
const AT_ONCE: usize = 4;
/// When a directory is looked for again that is not in the tree: a scan may have found it and not yet written it down, or
/// it is on its way from one place to another. Doubled each time.
const NOT_IN_THE_TREE: Duration = Duration::from_secs(1);
/// How often it is looked for.
const SEARCHES_MAX: u32 = 5;
/// The number of tries after which the pauses grow no more.
const LONGEST_PAUSE: u32 = 16;
/// When a directory is looked at again that was written to through the mount whenever it was looked at.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// The mark of what is not watched yet.
const NO_MARK: i32 = -1;
/// How many new directories are noted to be listed at a time.
const NEW_AT_ONCE: usize = 64;

/// What a look came to.
struct Looked {
    /// The directory; `None` for everything.
    directory: Option<(EntryId, Where)>,
    took: Duration,
    outcome: Outcome,
    look: Look,
    /// Whether the catalog has no such directory, not even aside.
    gone: bool,
}

impl Indexer {
    /// Says how much of a source is watched; `None` where it tells nothing.
    pub fn coverage(&self, id: SourceId) -> Option<Coverage> {
        self.watches.read().get(&id).map(|watch| watch.coverage())
    }

    /// Begins to follow what a source tells.
    pub(crate) fn follow(self: &Arc<Self>, source: &Arc<Source>) {
        let watch = {
            let _within = self.runtime.enter();
            source.backend.watch()
        };
        let Some(watch) = watch else {
            self.watches.write().remove(&source.id);
            return;
        };
        self.watches.write().insert(source.id, Arc::clone(&watch));
        let (indexer, source) = (Arc::downgrade(self), Arc::clone(source));
        let following = async move {
            let cancelled = source.cancel.clone();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = follow(&indexer, &source, &*watch) => {}
            }
        };
        self.tasks.spawn_on(following, &self.runtime);
    }

    /// Has a directory watched that is about to be listed. Where that fails, the listing says why.
    pub(crate) async fn cover(&self, target: &Target) {
        let watch = self.watches.read().get(&target.source.id).map(Arc::clone);
        if let Some(watch) = watch {
            let covered = watch.cover(&target.path, target.directory.0);
            match timeout(self.settings().listing_idle_timeout, covered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "not watched"),
                Err(_) => tracing::debug!(path = %target.path, "not watched, for want of an answer"),
            }
        }
    }

    /// Lists a directory by a listing that begins now, so that it tells of whatever is there already. Else as
    /// [`list_now`](Self::list_now).
    ///
    /// # Errors
    /// As there.
    pub async fn list_anew(self: &Arc<Self>, directory: EntryId) -> Result<(), IndexError> {
        loop {
            let (waiter, begins_now) = self.listing_of(directory);
            let outcome = waiter.outcome().await;
            if begins_now {
                return outcome;
            }
        }
    }

    async fn look_again(self: &Arc<Self>, directory: EntryId, look: &Look) -> Outcome {
        let Some(target) = self.target(directory)? else {
            return Ok(());
        };
        if look.names {
            self.list_anew(directory).await?;
        }
        // Its times have changed with its names.
        if (look.names && !target.path.is_root()) || look.itself {
            self.refresh(directory).await?;
        }
        for name in &look.children {
            match self.catalog().lookup(directory, &escape(name, Side::Plain))? {
                Some(child) => drop(self.refresh(child.id).await?),
                None => return self.list_anew(directory).await,
            }
        }
        Ok(())
    }

    /// Scans a source by a scan that begins now.
    pub(crate) async fn look_at_all(self: &Arc<Self>, source: SourceId) {
        let running = self.scans.lock().contains_key(&source);
        let mut scan = self.scan(source);
        if running {
            scan.ended().await;
            scan = self.scan(source);
        }
        scan.ended().await;
    }

    /// Finds the directory at a path of a source, or the nearest above it that is known.
    fn nearest(&self, source: &Source, path: &ObjectPath) -> Result<Option<(EntryId, bool)>, IndexError> {
        let record = self
            .catalog()
            .sources()?
            .into_iter()
            .find(|record| record.id == source.id);
        let Some(mut directory) = record.map(|record| record.root) else {
            return Ok(None);
        };
        for name in path
            .as_bytes()
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            match self.catalog().lookup(directory, &escape(name, Side::Plain))? {
                Some(child) if child.source == source.id && child.kind == manifold_catalog::Kind::Directory => {
                    directory = child.id;
                }
                _ => return Ok(Some((directory, false))),
            }
        }
        Ok(Some((directory, true)))
    }
}

/// Follows what a source tells, for as long as there is somebody to tell.
async fn follow(indexer: &Weak<Indexer>, source: &Arc<Source>, watch: &dyn Watch) {
    let mut pending = Pending::default();
    let mut looks = JoinSet::new();
    let mut directories = HashMap::new();
    let mut searches = HashMap::new();
    let mut noticed = Vec::new();
    let (mut failures, mut again_at) = (0, None);
    let mut began_before = false;
    let mut may_be_new = false;
    loop {
        {
            let Some(indexer) = indexer.upgrade() else { return };
            for one in noticed.drain(..) {
                if one == Noticed::Began && !std::mem::replace(&mut began_before, true) {
                    continue;
                }
                if let Err(error) = note(&indexer, source, &mut pending, one) {
                    tracing::error!(source = source.backend.name(), %error, "a change cannot be followed");
                }
            }
            if std::mem::take(&mut may_be_new)
                && let Err(error) = note_new(&indexer, source, &mut pending)
            {
                tracing::error!(source = source.backend.name(), %error, "new directories cannot be found");
            }
            while looks.len() < AT_ONCE
                && let Some(work) = pending.take(Instant::now())
            {
                let directory = match &work {
                    Work::Directory { directory, .. } => Some(*directory),
                    Work::Everything => None,
                };
                let look = do_work(Arc::clone(&indexer), source.id, work);
                directories.insert(looks.spawn_on(look, &indexer.runtime).id(), directory);
            }
        }
        let due = pending.due().filter(|_| looks.len() < AT_ONCE);
        let now = Instant::now();
        tokio::select! {
            told = watch.next(&mut noticed), if again_at.is_none() => match told {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::debug!(source = source.backend.name(), %error, "nothing is told of changes");
                    if error.kind() == ErrorKind::Unsupported {
                        return;
                    }
                    // Some servers lock an account that tries too often.
                    if error.kind() == ErrorKind::CredentialsRefused {
                        failures = failures.max(LONGEST_PAUSE);
                    }
                    again_at = Some(Instant::now() + source.pause(failures, 0));
                    failures = failures.saturating_add(1);
                }
            },
            Some(ended) = looks.join_next_with_id() => match ended {
                Ok((task, looked)) => {
                    directories.remove(&task);
                    may_be_new |= looked.look.names && looked.outcome.is_ok();
                    conclude(source, watch, &mut pending, &mut searches, looked);
                }
                Err(error) => match directories.remove(&error.id()).flatten() {
                    Some(directory) => pending.looked(directory, Duration::ZERO, now),
                    None => pending.looked_at_all(Duration::ZERO, now),
                },
            },
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = until_worth_a_try(source, again_at.unwrap_or(now)), if again_at.is_some() => again_at = None,
        }
    }
}

/// Waits until the time has come, and the source answers to others.
async fn until_worth_a_try(source: &Source, time: Instant) {
    sleep_until(time).await;
    source.until_well().await;
}

/// Takes one notice in.
fn note(indexer: &Indexer, source: &Source, pending: &mut Pending, noticed: Noticed) -> Result<(), IndexError> {
    let now = Instant::now();
    let (place, look) = match noticed {
        Noticed::Began | Noticed::Missed | Noticed::Unmounted(_) => {
            tracing::info!(
                source = source.backend.name(),
                ?noticed,
                "changes may have been missed; all is listed again"
            );
            pending.missed(now);
            return Ok(());
        }
        Noticed::Names(place) => (place, Look::names()),
        Noticed::Child { directory, name } => {
            let children = vec![name];
            (
                directory,
                Look {
                    children,
                    ..Look::default()
                },
            )
        }
        Noticed::Attributes(place) => {
            let itself = true;
            (
                place,
                Look {
                    itself,
                    ..Look::default()
                },
            )
        }
    };
    match &place {
        Where::Covered { number, .. } => pending.note(EntryId(*number), place, look, now),
        Where::Path(path) => match indexer.nearest(source, path)? {
            Some((directory, true)) => pending.note(directory, place, look, now),
            Some((above, false)) => pending.note(above, place, Look::names(), now),
            None => {}
        },
    }
    Ok(())
}

/// Has directories listed that a look has found, or that were made through the mount. That is for the scan while one runs,
/// and before the first has ended.
fn note_new(indexer: &Indexer, source: &Source, pending: &mut Pending) -> Result<(), IndexError> {
    let scan = indexer.catalog().scan_state(source.id)?;
    if scan.is_none_or(|scan| scan.finished_ns.is_none()) {
        return Ok(());
    }
    for directory in indexer.catalog().scan_queue_next(source.id, NEW_AT_ONCE)? {
        let state = indexer.catalog().directory_state(directory)?;
        if state.is_some_and(|state| state.failure.is_none()) {
            let place = Where::Covered {
                number: directory.0,
                mark: NO_MARK,
            };
            pending.note(directory, place, Look::names(), Instant::now());
        }
    }
    Ok(())
}

async fn do_work(indexer: Arc<Indexer>, source: SourceId, work: Work) -> Looked {
    let began = Instant::now();
    match work {
        Work::Everything => {
            indexer.look_at_all(source).await;
            Looked {
                directory: None,
                took: began.elapsed(),
                outcome: Ok(()),
                look: Look::default(),
                gone: false,
            }
        }
        Work::Directory { directory, place, look } => {
            let outcome = indexer.look_again(directory, &look).await;
            let gone = matches!(indexer.catalog().entry(directory), Ok(None));
            Looked {
                directory: Some((directory, place)),
                took: began.elapsed(),
                outcome,
                look,
                gone,
            }
        }
    }
}

fn conclude(
    source: &Source,
    watch: &dyn Watch,
    pending: &mut Pending,
    searches: &mut HashMap<EntryId, u32>,
    looked: Looked,
) {
    let now = Instant::now();
    let Some((directory, place)) = looked.directory else {
        pending.looked_at_all(looked.took, now);
        return;
    };
    pending.looked(directory, looked.took, now);
    if !matches!(looked.outcome, Err(IndexError::NotFound(_))) {
        searches.remove(&directory);
    }
    match looked.outcome {
        Ok(()) => {}
        Err(IndexError::NotFound(_)) => {
            let tries = searches.remove(&directory).unwrap_or(0);
            let may_come = !looked.gone || source.generation() != 0;
            if may_come && tries < SEARCHES_MAX {
                searches.insert(directory, tries + 1);
                pending.note_after(directory, place, looked.look, now, NOT_IN_THE_TREE * (1 << tries));
            } else if looked.gone {
                // What is only set aside may be found elsewhere, and is still watched then.
                watch.uncover(&place);
            }
        }
        Err(IndexError::Overtaken(_)) => pending.note_after(directory, place, looked.look, now, OVERTAKEN),
        // When it is back, nobody can tell what it was about.
        Err(error) if error.is_about_source() => pending.missed(now),
        Err(error) => tracing::debug!(source = source.backend.name(), %error, "a change could not be looked at"),
    }
}
