//! What files have left at the sources from which they were moved: taken away once nobody needs it any more.
//!
//! It owns one task for all of them. What is to be done stands in the catalog. Always true:
//! - nothing is taken away before its row is due, and that is so with the end of the upload, in one transaction;
//! - the target has the copy when it is asked, or the file was removed through the mount; else what is left stays;
//! - that it is due is durable before it is taken away;
//! - only the version is taken away that was moved; what others have put there stays, and is told;
//! - where it is not known whether anything is there, only the very bytes are taken away that were sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use manifold_backends::local::{LocalBackend, Place as LocalPlace};
use manifold_backends::{Backend, ErrorKind, Expected, Kind as ObjectKind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::{Details, EntryId, Origin, Origins, SentState, SourceId};
use manifold_index::names;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::job::{fault, of_index};
use super::{Fault, MoveReport, MoveState, Moves};
use crate::Error;
use crate::change::follow::seen_attributes;

/// How many are taken away at once.
const FILES_MAX: usize = 16;
/// How long those that become due are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure that may pass by itself.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The pause before something is tried again that was refused.
const PAUSE_REFUSED: Duration = Duration::from_mins(10);
/// Looked at again at the latest.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What is known of the task, and of those files that could not be taken away at once.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    nudge: Notify,
    runs: AtomicBool,
    failed: Mutex<HashMap<EntryId, Failed>>,
}

#[derive(Debug)]
struct Failed {
    count: u32,
    again: Instant,
    state: MoveState,
}

/// What became of what was left in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is gone.
    Gone,
    /// Another has put something there, which stays.
    Stays,
    /// The place is another by now.
    Elsewhere,
}

/// What is in a place in which something may have arrived unseen.
#[derive(Clone, Debug)]
enum There {
    Nothing,
    /// It has arrived, as this version.
    Ours(Version),
    /// What another has put there.
    Others,
}

impl Leaving {
    /// Tells whether the task runs.
    pub(super) fn runs(&self) -> bool {
        self.runs.load(Ordering::Acquire)
    }

    /// Tries everything again now that failed, and says how many files.
    pub(super) fn retry(&self) -> u64 {
        let mut failed = self.failed.lock();
        let count = failed.len() as u64;
        let now = Instant::now();
        failed.values_mut().for_each(|one| one.again = now);
        drop(failed);
        self.nudge.notify_one();
        count
    }
}

impl Moves {
    /// Begins to take away what is due.
    pub(super) fn start_leaving(self: &Arc<Self>) {
        self.leaving.runs.store(true, Ordering::Release);
        let moves = Arc::clone(self);
        self.uploads.fetcher.runtime.spawn(async move {
            let mut stopped = moves.stopped.subscribe();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = moves.take_all_away() => {}
            }
            moves.leaving.runs.store(false, Ordering::Release);
            moves.note();
        });
    }

    async fn take_all_away(self: &Arc<Self>) {
        let mut happened = self.uploads.subscribe();
        loop {
            happened.borrow_and_update();
            let next = match self.leaving_round().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "what files have left at other sources stays for now");
                    Instant::now() + PAUSE_MAX
                }
            };
            tokio::select! {
                () = self.leaving.nudge.notified() => {}
                _ = happened.changed() => {}
                () = sleep_until(next) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Takes away what is due and has not failed a moment ago. Says when to look again.
    async fn leaving_round(self: &Arc<Self>) -> Result<Instant, Error> {
        let now = Instant::now();
        let mut due = self.due_origins()?;
        {
            let mut failed = self.leaving.failed.lock();
            failed.retain(|id, _| due.iter().any(|one| one.id == *id));
            due.retain(|one| failed.get(&one.id).is_none_or(|failed| failed.again <= now));
        }
        if due.is_empty() {
            return Ok(self.next_leaving(now));
        }
        // Else a crash could bring back the time when the original was needed.
        let catalog = Arc::clone(&self.uploads.fetcher.catalog);
        let sync = move || catalog.sync().map_err(Error::from_catalog);
        self.uploads.blocking(sync).await?;
        let taken = futures::stream::iter(due).map(|one| async move {
            let id = one.id;
            (id, self.take_one_away(one).await)
        });
        let mut taken = taken.buffer_unordered(FILES_MAX);
        while let Some((id, outcome)) = taken.next().await {
            self.note_leaving(id, outcome);
            self.note();
        }
        Ok(self.next_leaving(now))
    }

    /// Says when to look again.
    fn next_leaving(&self, now: Instant) -> Instant {
        let failed = self.leaving.failed.lock();
        let next = failed.values().map(|failed| failed.again).min();
        next.unwrap_or(now + LOOK_EVERY).min(now + LOOK_EVERY)
    }

    fn due_origins(&self) -> Result<Vec<Origins>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        catalog.due_origins().map_err(Error::from_catalog)
    }

    fn note_leaving(&self, id: EntryId, outcome: Result<(), Fault>) {
        let mut failed = self.leaving.failed.lock();
        let Err(fault) = outcome else {
            failed.remove(&id);
            return;
        };
        let count = failed.get(&id).map_or(0, |failed| failed.count);
        let pause = match fault {
            Fault::Delayed(_) => PAUSE.saturating_mul(1 << count.min(10)).min(PAUSE_MAX),
            Fault::Refused { .. } => PAUSE_REFUSED,
        };
        let state = match fault {
            Fault::Delayed(error) => MoveState::Delayed { error },
            Fault::Refused { error, remedy } => MoveState::Refused { error, remedy },
        };
        let is_new = failed.get(&id).is_none_or(|failed| failed.state != state);
        let told = state.clone();
        failed.insert(
            id,
            Failed {
                count: count + 1,
                again: Instant::now() + pause,
                state,
            },
        );
        drop(failed);
        if let (MoveState::Refused { error, remedy }, true) = (told, is_new) {
            let catalog = &self.uploads.fetcher.catalog;
            let origins = catalog.origins(id).ok().flatten();
            let source = origins.and_then(|origins| Some(origins.places.first()?.source));
            let path = catalog.tree_path(id).ok().flatten().unwrap_or_default();
            if let Some(source) = source {
                self.uploads.tell_original_refused(source, path, error, remedy);
            }
        }
    }

    /// Takes note that something has become due.
    pub(crate) fn is_due(&self) {
        self.leaving.nudge.notify_one();
    }

    /// Lists what is due, for people.
    pub(super) fn report_leaving(&self) -> Vec<MoveReport> {
        let catalog = &self.uploads.fetcher.catalog;
        let due = self.due_origins().unwrap_or_default();
        let failed = self.leaving.failed.lock();
        // What is not due is reported as an upload.
        let reports = due.into_iter().filter(|one| one.is_due).filter_map(|one| {
            let place = one.places.first()?;
            Some(MoveReport {
                id: one.id,
                source: place.source,
                path: catalog.tree_path(one.id).ok().flatten().unwrap_or_default(),
                from: place.path.clone().unwrap_or_default(),
                is_across: true,
                moved: 0,
                left: one.places.len() as u64,
                state: failed
                    .get(&one.id)
                    .map_or(MoveState::Waiting, |failed| failed.state.clone()),
            })
        });
        reports.collect()
    }

    /// Takes away all that a file has left.
    async fn take_one_away(self: &Arc<Self>, origins: Origins) -> Result<(), Fault> {
        let is_known = origins.is_due && origins.places.iter().any(|origin| !origin.is_unseen());
        let is_there = is_known && (origins.is_settled || self.is_needless(origins.id).await?);
        for origin in origins.places {
            let sent = origin.sent();
            if !origins.is_due && sent.is_none() {
                continue;
            }
            let Some(path) = origin.path.clone().map(ObjectPath::from_bytes) else {
                // It went with its directory.
                self.gone(origins.id, &origin)?;
                continue;
            };
            if let Some(sent) = sent {
                self.take_unseen(origins.id, &origin, path, &sent).await?;
                continue;
            }
            if !is_there {
                self.stays(
                    origins.id,
                    &origin,
                    "its copy was changed or removed by another before the original had been taken away",
                )?;
                continue;
            }
            if self.may_be_its_copy(&origin, &path, origins.id).await? {
                self.stays(
                    origins.id,
                    &origin,
                    "the original may be the very object that was to be its copy, at a server of two addresses",
                )?;
                continue;
            }
            let _places = self.keep_places().await;
            let change = self.uploads.fetcher.catalog.begin_change(&[origin.directory]);
            match self.take_from(&origin, path).await? {
                Taken::Gone => {
                    self.gone(origins.id, &origin)?;
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Taken::Stays => {
                    drop(change);
                    self.stays(origins.id, &origin, "another has changed the original since")?;
                }
                Taken::Elsewhere => return Err(fault("its directory, or one above, has another name by now")),
            }
        }
        Ok(())
    }

    fn gone(&self, id: EntryId, origin: &Origin) -> Result<(), Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        catalog.note_origin_gone(id, origin).map_err(fault)
    }

    /// Leaves what is in a former place there: listings show it again.
    fn stays(&self, id: EntryId, origin: &Origin, why: &str) -> Result<(), Fault> {
        self.gone(id, origin)?;
        let fetcher = &self.uploads.fetcher;
        let (path, what) = if let Some(path) = fetcher.catalog.tree_path(id).ok().flatten() {
            (path, format!("it was moved, but {why}: both are kept"))
        } else {
            let above = fetcher.catalog.tree_path(origin.directory).ok().flatten();
            let path = [above.unwrap_or_default(), origin.name.clone()].join(&b'/');
            (path, format!("it was removed or replaced, but {why}: that stays"))
        };
        self.uploads.tell_move_undone(origin.source, path, what);
        self.look_into(origin.directory);
        Ok(())
    }

    /// Has a former place listed.
    fn look_into(&self, directory: EntryId) {
        let fetcher = &self.uploads.fetcher;
        let indexer = Arc::clone(&fetcher.indexer);
        fetcher.runtime.spawn(async move {
            if let Err(error) = indexer.list_now(directory).await {
                tracing::debug!(id = directory.0, %error, "the former place of a file is listed later");
            }
        });
    }

    /// Tells whether nothing of a file is needed any more in its former places: its target has the copy, or it was removed here.
    async fn is_needless(&self, id: EntryId) -> Result<bool, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let ticket = catalog.ticket();
        if self.is_copied(id).await? {
            return Ok(true);
        }
        // Whoever removes it, or renames it or what it lies in, asks its source first, and the catalog knows of it after that.
        if let Some(entry) = catalog.entry(id).map_err(fault)?
            && catalog.is_overtaken_on_the_way(ticket, entry.parent).map_err(fault)?
        {
            return Err(fault("it was changed a moment ago"));
        }
        let now = catalog.origins(id).map_err(fault)?;
        Ok(now.is_some_and(|now| now.is_settled))
    }

    /// Tells whether the target has the copy of a file.
    async fn is_copied(&self, id: EntryId) -> Result<bool, Fault> {
        let fetcher = &self.uploads.fetcher;
        let details = || fetcher.catalog.details(id).map_err(fault);
        // What is written anew was confirmed before that.
        if self.uploads.staging.get(id).is_some() {
            return Ok(true);
        }
        let (Some(known), Some((source, path))) = (details()?, fetcher.catalog.object_path(id).map_err(fault)?) else {
            // Another has removed it there, and a listing has shown that.
            return Ok(false);
        };
        let Some(backend) = fetcher.indexer.backend(source) else {
            return Err(Fault::Delayed(format!("source {source} is not connected")));
        };
        let path = ObjectPath::from_bytes(path);
        let asked = fetcher
            .indexer
            .ask(source, &path, fetcher.deadline, backend.stat(&path));
        let there = asked.await.map_err(of_index)?;
        let is_local = backend.as_local().is_some();
        if let Presence::Found(there) = &there
            && there.kind != ObjectKind::Directory
            && (there.version.as_bytes() == &*known.version || is_local && is_same_file(&known, there))
        {
            return Ok(true);
        }
        if details()?.is_none_or(|now| now.version != known.version) || self.uploads.staging.get(id).is_some() {
            return Err(fault("it was changed a moment ago"));
        }
        Ok(false)
    }

    /// Takes away what may have arrived unseen, if it has.
    async fn take_unseen(
        self: &Arc<Self>,
        id: EntryId,
        origin: &Origin,
        path: ObjectPath,
        sent: &[SentState],
    ) -> Result<(), Fault> {
        match self.find_unseen(origin, &path, sent).await? {
            There::Ours(version) => {
                let _places = self.keep_places().await;
                let _change = self.uploads.fetcher.catalog.begin_change(&[origin.directory]);
                let ours = Origin {
                    version: version.as_bytes().to_vec(),
                    ..origin.clone()
                };
                match self.take_from(&ours, path).await {
                    Ok(Taken::Gone) => self.gone(id, origin)?,
                    Ok(_) => return Err(fault("it was changed a moment ago")),
                    // Then it stays, and shows, as it would have if the source had been asked at once; what waits for it need not.
                    Err(Fault::Refused { error, .. }) => {
                        tracing::warn!(error, "what had arrived of a file that was removed or renamed stays");
                        self.gone(id, origin)?;
                        self.look_into(origin.directory);
                    }
                    Err(other) => return Err(other),
                }
            }
            There::Nothing => self.gone(id, origin)?,
            There::Others => {
                self.gone(id, origin)?;
                self.look_into(origin.directory);
            }
        }
        self.go_on_at(origin);
        self.uploads.retry(Some(id));
        Ok(())
    }

    /// Has what has the name now uploaded, which has waited for that.
    fn go_on_at(&self, origin: &Origin) {
        let shown = names::escape(&origin.name, names::Side::Plain);
        let entry = self.uploads.fetcher.catalog.lookup_folded(origin.directory, &shown);
        if let Some(entry) = entry.ok().flatten() {
            self.uploads.retry(Some(entry.id));
        }
    }

    /// Finds out whether an upload has arrived of which one of these states was sent.
    async fn find_unseen(&self, origin: &Origin, path: &ObjectPath, sent: &[SentState]) -> Result<There, Fault> {
        let backend = self.backend_of(origin.source).await?;
        let fetcher = &self.uploads.fetcher;
        let ticket = fetcher.catalog.ticket();
        let looked = backend.stat(path);
        let looked = fetcher.indexer.ask(origin.source, path, fetcher.deadline, looked);
        let there = match looked.await.map_err(of_index)? {
            Presence::Found(there) => there,
            Presence::Absent => {
                let overtaken = fetcher.catalog.is_overtaken_on_the_way(ticket, origin.directory);
                if overtaken.map_err(fault)?
                    || !self.is_at(origin, path)?
                    || !self.uploads.is_way_known(origin.directory).map_err(fault)?
                {
                    return Err(fault("its directory was changed a moment ago"));
                }
                return Ok(There::Nothing);
            }
        };
        if there.kind != ObjectKind::File || sent.iter().all(|state| state.size != there.size) {
            return Ok(There::Others);
        }
        let hash = self.uploads.hash_there((origin.source, path), &*backend, &there).await;
        match hash.map_err(fault)? {
            Some(hash) if sent.iter().any(|state| state.hash == hash) => Ok(There::Ours(there.version)),
            Some(_) => Ok(There::Others),
            None => Err(fault("it was changed a moment ago")),
        }
    }

    /// Gives a source's backend, once it is connected.
    pub(super) async fn backend_of(&self, source: SourceId) -> Result<Arc<dyn Backend>, Fault> {
        let fetcher = &self.uploads.fetcher;
        let connected = timeout(fetcher.deadline, fetcher.indexer.until_connected(source));
        // Whether it is connected is seen next.
        let _in_time = connected.await;
        let backend = fetcher.indexer.backend(source);
        backend.ok_or_else(|| Fault::Delayed(format!("source {source} is not connected")))
    }

    /// Takes away what is in a place, if it is what was moved.
    async fn take_from(self: &Arc<Self>, origin: &Origin, path: ObjectPath) -> Result<Taken, Fault> {
        let fetcher = &self.uploads.fetcher;
        let backend = self.backend_of(origin.source).await?;
        if self.read_only.read().contains(&origin.source) {
            return Err(Fault::Refused {
                error: format!("{} is read-only", backend.name()),
                remedy: "make the source writable again; then: manifold uploads retry".to_owned(),
            });
        }
        if let Some(local) = backend.as_local() {
            return self.take_from_disk(local, origin, path).await;
        }
        let ground = self.ground(EntryId::ROOT, origin.source).await?;
        let expected = Expected::Version(Version::from_stored(&origin.version));
        let ticket = fetcher.catalog.ticket();
        let removal = ground.backend.remove_file(&path, &expected);
        match fetcher
            .indexer
            .ask(origin.source, &path, fetcher.deadline, removal)
            .await
        {
            Ok(Presence::Found(())) => Ok(Taken::Gone),
            Ok(Presence::Absent) if !self.uploads.is_way_known(origin.directory).map_err(fault)? => {
                Err(fault("its directory may have got another name"))
            }
            Ok(Presence::Absent) if self.is_at(origin, &path)? => {
                // A directory above that is getting another name has it at its source before it has it here.
                let overtaken = fetcher.catalog.is_overtaken_above(ticket, origin.directory);
                Ok(if overtaken.map_err(fault)? {
                    Taken::Elsewhere
                } else {
                    Taken::Gone
                })
            }
            Ok(Presence::Absent) => Ok(Taken::Elsewhere),
            Err(error) if matches!(error.kind(), Some(ErrorKind::Conflict | ErrorKind::IsADirectory)) => {
                Ok(Taken::Stays)
            }
            Err(error) => Err(of_index(error)),
        }
    }

    /// Tells whether a place is still where it was.
    fn is_at(&self, origin: &Origin, path: &ObjectPath) -> Result<bool, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let above = catalog.object_path(origin.directory).map_err(fault)?;
        Ok(above.is_none_or(|(_, above)| ObjectPath::from_bytes(above).join(&origin.name) == *path))
    }

    /// The same on a disk of this machine, while no name changes there through the mount.
    async fn take_from_disk(
        self: &Arc<Self>,
        local: &LocalBackend,
        origin: &Origin,
        path: ObjectPath,
    ) -> Result<Taken, Fault> {
        let (moves, origin, object) = (Arc::clone(self), origin.clone(), path.clone());
        let lock = Arc::clone(self.paths.lock().entry(origin.source).or_default());
        let may_hang = local.may_hang(&path);
        let taken = local.on_thread(manifold_backends::Operation::RemoveFile, &path, move |local| {
            // Where it may hang, nobody is made to wait for it.
            let _alone = (!may_hang).then(|| lock.write());
            moves.take_from_folder(local, &origin, &object)
        });
        let deadline = self.uploads.fetcher.deadline;
        match timeout(deadline, taken).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => Err(fault(error)),
            Err(_elapsed) => Err(fault("its disk gave no answer in time")),
        }
    }

    fn take_from_folder(&self, local: &LocalBackend, origin: &Origin, path: &ObjectPath) -> Result<Taken, Fault> {
        let refused = |error: manifold_backends::Error| match super::bring::remedy(error.kind()) {
            Some(remedy) => Fault::Refused {
                error: error.to_string(),
                remedy: remedy.to_owned(),
            },
            None => fault(error),
        };
        if !self.is_at(origin, path)? {
            return Ok(Taken::Elsewhere);
        }
        let Presence::Found(held) = local.hold(path).map_err(refused)? else {
            return Ok(Taken::Gone);
        };
        let seen = held.metadata().map_err(refused)?;
        if seen.kind == ObjectKind::Directory || seen.version.as_bytes() != &*origin.version {
            return Ok(Taken::Stays);
        }
        let place = LocalPlace {
            directory: path.parent(),
            name: origin.name.clone(),
        };
        if let Presence::Found(removed) = local.remove(&place, false, false).map_err(refused)? {
            let catalog = &self.uploads.fetcher.catalog;
            let seen = seen_attributes(&removed.directory);
            if let Err(error) = catalog.follow_attributes(origin.directory, seen) {
                tracing::debug!(id = origin.directory.0, %error, "the attributes of a directory were not followed");
            }
        }
        Ok(Taken::Gone)
    }
}

/// Tells whether something is the file of this machine that is known: what was copied is in it, whatever was written since.
fn is_same_file(known: &Details, there: &Metadata) -> bool {
    known.identity.is_some() && known.identity == there.identity.map(|it| it.0)
}
