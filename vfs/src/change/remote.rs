//! Changes of remote sources: bytes are staged here, names are asked of the source.
//!
//! Always true:
//! - what `close` or `fsync` has acknowledged is on this machine's disk, and a journal row owns it;
//! - a name changes here when the source has changed it, within the deadline, or not at all; what only stands here changes
//!   here alone;
//! - what a source cannot do is refused; attributes that it cannot store are kept in the catalog, where its settings say so.

mod across;
mod ahead;
mod attributes;
mod bytes;
mod directories;
mod journal;
mod making;
mod nameless;
mod names;
mod open;
mod rename;
mod seen;
mod settled;
mod trash;
mod unseen;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Backend, ObjectPath, WriteAbilities};
use manifold_catalog::{Catalog, Entry, EntryId, STAGED_BYTES_MAX, SourceId};
use manifold_index::Clock;

use self::journal::Journal;
use crate::change::Site;
use crate::error::Cause;
use crate::fetch::object::not_connected;
use crate::moves::{MoveReport, Moves, Place};
use crate::staging::{Limits, Recovered, Staging, StagingUsage};
use crate::turns::Turn;
use crate::upload::naming::NameLock;
use crate::upload::{AttributePolicy, Conflict, UploadListener, UploadReport, UploadTally, Uploads, WritePolicy};
use crate::vfs::{Core, Vfs};
use crate::{Answer, Error};
pub(crate) use names::Removal;

/// What writing to remote sources needs to know.
#[derive(Clone)]
pub struct WriteSettings {
    /// The folder of the staging area.
    pub folder: PathBuf,
    /// The most bytes that may wait there.
    pub bytes: u64,
    /// This machine's name, for files that have to make way for another version.
    pub host: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Is told of what becomes of uploads.
    pub listener: UploadListener,
    /// What becomes of writes to each source; [`WritePolicy::Back`] for all others.
    pub policies: HashMap<SourceId, WritePolicy>,
}

impl std::fmt::Debug for WriteSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteSettings")
            .field("folder", &self.folder)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A place at a remote source that can be changed.
pub(crate) struct Target {
    pub(crate) source: SourceId,
    pub(crate) path: ObjectPath,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) able: WriteAbilities,
}

impl Target {
    /// Says where in a directory that is, for those who look for what lies there.
    pub(crate) fn place_in(&self, directory: EntryId) -> Place<'_> {
        Place {
            name: Some(self.path.name()),
            ..self.place_of(directory)
        }
    }

    /// The same where it is a directory itself.
    pub(crate) fn place_of(&self, directory: EntryId) -> Place<'_> {
        Place {
            source: self.source,
            directory,
            name: None,
            path: self.path.as_bytes(),
            renamed: None,
        }
    }
}

impl Vfs {
    /// Accepts writes to remote sources from now on, and goes on with what waits to be uploaded. To be called once, before
    /// anybody can ask for anything.
    ///
    /// # Errors
    /// The staging area cannot be used, or the catalog failed.
    pub fn accept_writes(&self, settings: WriteSettings) -> Result<(), Error> {
        self.core.accept_writes(settings)
    }

    /// Says what becomes of writes to a source.
    pub fn set_write_policy(&self, source: SourceId, policy: WritePolicy) {
        if let Some(uploads) = self.core.uploads.get() {
            uploads.set_policy(source, policy);
        }
    }

    /// Says whether what is removed from a source goes to its trash.
    pub fn set_trash(&self, source: SourceId, has_trash: bool) {
        if let Some(uploads) = self.core.uploads.get() {
            uploads.set_trash(source, has_trash);
        }
    }

    /// Says what becomes of attributes that a source cannot store; they are kept for all of which nothing is said.
    pub fn set_attribute_policy(&self, source: SourceId, policy: AttributePolicy) {
        if let Some(uploads) = self.core.uploads.get() {
            uploads.set_attribute_policy(source, policy);
        }
    }

    /// Says how much is staged; `None` where nothing can be.
    pub fn staging_usage(&self) -> Option<StagingUsage> {
        self.core.uploads.get().map(|uploads| uploads.usage())
    }

    /// Lists what is staged, in the order of ids.
    pub fn uploads(&self) -> Vec<UploadReport> {
        self.core
            .uploads
            .get()
            .map_or_else(Vec::new, |uploads| uploads.report())
    }

    /// Counts how far what is staged has come.
    pub fn upload_tally(&self) -> UploadTally {
        let uploads = self.core.uploads.get();
        uploads.map_or_else(UploadTally::default, |uploads| uploads.tally())
    }

    /// Lists what had to make way for another version, the last at the end.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.core
            .uploads
            .get()
            .map_or_else(Vec::new, |uploads| uploads.conflicts())
    }

    /// Counts the files that were uploaded since the start.
    pub fn uploaded(&self) -> u64 {
        self.core.uploads.get().map_or(0, |uploads| uploads.done())
    }

    /// Tries again what failed or was refused, and says how many files, and renamed directories, that were.
    pub fn retry_uploads(&self) -> u64 {
        let uploads = self.core.uploads.get().map_or(0, |uploads| uploads.retry(None));
        uploads + self.core.moves.get().map_or(0, |moves| moves.retry())
    }

    /// Lists the renamed directories whose objects are still to follow them, in the order of ids.
    pub fn moves(&self) -> Vec<MoveReport> {
        self.core.moves.get().map_or_else(Vec::new, |moves| moves.report())
    }

    /// Counts the objects that have followed a renamed directory since the start.
    pub fn moved(&self) -> u64 {
        self.core.moves.get().map_or(0, |moves| moves.done())
    }

    /// Waits until all is uploaded that can be now, but no longer than `patience`; `progress` is told how many are left. Gives
    /// the number of files that wait after that.
    pub async fn drain_uploads(&self, patience: Duration, progress: impl FnMut(u64)) -> u64 {
        match self.core.uploads.get() {
            Some(uploads) => uploads.drain(patience, progress).await,
            None => 0,
        }
    }

    /// Ends what uploads have begun at a source that is about to leave the library, so that nothing of them stays there. Where
    /// that fails, the log says what stays.
    ///
    /// # Errors
    /// The catalog failed.
    pub async fn end_uploads_of(&self, source: SourceId) -> Result<(), Error> {
        match self.core.uploads.get() {
            Some(uploads) => uploads.end_all_of(source).await,
            None => Ok(()),
        }
    }

    /// Ends all uploads and moves. What waits is safe, and goes on when the library is opened the next time.
    pub async fn stop_uploads(&self) {
        if let Some(moves) = self.core.moves.get() {
            moves.stop().await;
        }
        if let Some(uploads) = self.core.uploads.get() {
            uploads.stop().await;
        }
    }
}

impl Core {
    /// Opens the staging area, and goes on with what waits there.
    pub(crate) fn accept_writes(self: &Arc<Self>, settings: WriteSettings) -> Result<(), Error> {
        let rows = self.catalog.staged_all().map_err(Error::from_catalog)?;
        let journal = Arc::new(Journal {
            catalog: Arc::clone(&self.catalog),
            cache: Arc::clone(&self.cache),
            folder: settings.folder.clone(),
        });
        let limits = Limits {
            bytes: settings.bytes,
            small: STAGED_BYTES_MAX as u64,
        };
        let rows_lost = self.catalog.log_loss().is_some();
        let opened = Staging::open(&settings.folder, limits, journal, &rows, rows_lost);
        let (staging, Recovered { staged, drafts }) = opened.map_err(|error| {
            let folder = settings.folder.display();
            Error::Io(Cause::new(format!("cannot use the staging folder {folder}: {error}")))
        })?;
        for (id, is_at_source) in drafts {
            match self.drop_draft(id, is_at_source, settings.clock.now_ns()) {
                Err(Error::Full) => tracing::warn!(
                    id = id.0,
                    "the disk is full: what was never saved is forgotten with the next start"
                ),
                dropped => dropped?,
            }
        }
        let staging = Arc::new(staging);
        self.files.follow_staging(&staging);
        let uploads = Uploads::new(
            staging,
            Arc::clone(&self.fetcher),
            Arc::clone(&self.files),
            Arc::clone(&self.publisher),
            settings.clock,
            settings.host,
            settings.listener,
            settings.policies,
        );
        for id in staged {
            uploads.queue(id, false);
        }
        uploads.start_ending();
        uploads.start_settling()?;
        let moves = Moves::new(&uploads, &self.paths, &self.read_only);
        let once = self.uploads.set(uploads);
        once.map_err(|_| Error::Io(Cause::new("the staging area is open already")))?;
        self.moves.get_or_init(|| moves).start_all()
    }

    /// Forgets a file that was being written when the daemon died and of which nothing was acknowledged. What was new is gone,
    /// as nothing has it; what the source has is as it is there, which is looked at.
    fn drop_draft(&self, id: EntryId, is_at_source: bool, now_ns: i64) -> Result<(), Error> {
        self.catalog.unstage(id, None, None).map_err(Error::from_catalog)?;
        let Some(entry) = self.catalog.entry(id).map_err(Error::from_catalog)? else {
            return Ok(());
        };
        if !is_at_source {
            let removed = self.catalog.follow_removed(entry.parent, &entry.name, now_ns);
            removed.map_err(Error::from_catalog)?;
        }
        self.catalog.note_stale(entry.parent).map_err(Error::from_catalog)?;
        self.look_into(entry.parent);
        Ok(())
    }

    /// Tells whether files of a remote source may be written to.
    pub(crate) fn is_written_to(&self, source: SourceId) -> bool {
        let Some(uploads) = self.uploads.get() else {
            return false;
        };
        uploads.policy(source) != WritePolicy::Off
            && !self.read_only.read().contains(&source)
            && self
                .indexer
                .backend(source)
                .is_some_and(|backend| backend.capabilities().writes.is_some())
    }

    /// Gives the queue, where writes are accepted.
    pub(crate) fn writable(&self) -> Result<&Arc<Uploads>, Error> {
        self.uploads.get().ok_or(Error::ReadOnly)
    }

    /// Makes sure that something new may be begun at a source: the catalog can follow it, whatever becomes of the disk.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        self.writable()?.staging.check_room()
    }

    /// Gives the moves, where writes are accepted.
    pub(crate) fn moves(&self) -> Result<&Arc<Moves>, Error> {
        self.moves.get().ok_or(Error::ReadOnly)
    }

    /// Waits until names may be changed at sources: those above them are what they are in the catalog then, and stay so. Whoever asks waits for
    /// moves before that, and holds nothing yet.
    async fn turn_at<'a>(&self, uploads: &'a Arc<Uploads>, names: &[(EntryId, &[u8])]) -> Result<Turn<'a>, Error> {
        let changed: Vec<_> = names
            .iter()
            .map(|(directory, name)| (*directory, Some(*name)))
            .collect();
        let patience = self.settings.data_deadline / 2;
        let turn = async {
            uploads.settle_directories(&changed).await?;
            let turn = uploads.turns.of_sources(&self.catalog, &changed, patience).await?;
            // Until then, another answer may have been lost.
            match uploads.asked_on_the_way(&changed)?[..] {
                [] => Ok(turn),
                _ => Err(Error::Busy),
            }
        };
        let late = |_elapsed| Error::TimedOut(Cause::new("its source does not say whether it has renamed a directory"));
        tokio::time::timeout(patience * 2, turn).await.map_err(late)?
    }

    /// Keeps a file's name from being changed by anybody else, and the file from being brought elsewhere.
    async fn lock_name(&self, id: EntryId) -> Result<NameLock, Error> {
        let locked = tokio::time::timeout(self.settings.data_deadline, self.moves()?.lock_name(id));
        locked.await.map_err(|_| Error::Busy)
    }

    /// Makes sure that a file has the name still under which it was found: until it was held, its upload may have found that it
    /// was renamed at its source, or that another has its place. To be called while it is held.
    fn has_its_name(&self, entry: &Entry) -> Result<(), Error> {
        let now = self.catalog.entry(entry.id).map_err(Error::from_catalog)?;
        match now.filter(|now| (now.parent, &now.name) == (entry.parent, &entry.name)) {
            Some(_) => Ok(()),
            None => Err(Error::Stale),
        }
    }

    /// Waits until nothing of a directory on the move lies where something is to be made.
    async fn until_free(&self, place: Place<'_>) -> Result<(), Error> {
        self.moves()?.until_free(place, self.settings.data_deadline).await
    }

    /// Waits until no file that stands at another source by now has left anything under a name.
    async fn until_left_at(&self, directory: EntryId, raw_name: &[u8]) -> Result<(), Error> {
        let left = |catalog: &Catalog| catalog.is_left_at(directory, raw_name);
        self.moves()?
            .until_left(directory, left, self.settings.data_deadline)
            .await
    }

    /// The same of anything in a directory, or beneath it.
    async fn until_left_beneath(&self, directory: EntryId) -> Result<(), Error> {
        let left = |catalog: &Catalog| catalog.is_left_beneath(directory);
        self.moves()?
            .until_left(directory, left, self.settings.data_deadline)
            .await
    }

    /// Does something in a directory of this machine, once nothing is left there, under that name, of a file that stands at
    /// another source by now. `do_it` begins it anew.
    pub(in crate::change) fn once_left<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        name: &[u8],
        now: impl FnOnce() -> Answer<T>,
        then: impl FnOnce(&Arc<Self>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let Ok(raw_name) = Site::raw_name(name) else {
            return now();
        };
        match self
            .catalog
            .is_left_at(directory, &raw_name)
            .map_err(Error::from_catalog)
        {
            Ok(false) => now(),
            Ok(true) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(async move {
                    core.until_left_at(directory, &raw_name).await?;
                    then(&core).wait().await
                }))
            }
            Err(error) => Answer::err(error),
        }
    }

    /// The same for a directory from which nothing may be missing.
    pub(in crate::change) fn once_left_beneath<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        now: impl FnOnce() -> Answer<T>,
        then: impl FnOnce(&Arc<Self>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        match self.catalog.is_left_beneath(directory).map_err(Error::from_catalog) {
            Ok(false) => now(),
            Ok(true) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(async move {
                    core.until_left_beneath(directory).await?;
                    then(&core).wait().await
                }))
            }
            Err(error) => Answer::err(error),
        }
    }

    /// Finds what is to be changed, and makes sure that it may be.
    pub(crate) fn remote_target(&self, source: SourceId, path: Vec<u8>) -> Result<Target, Error> {
        if self.writable()?.policy(source) == WritePolicy::Off {
            return Err(Error::ReadOnly);
        }
        let backend = self
            .indexer
            .backend(source)
            .ok_or_else(|| not_connected(&self.indexer, source))?;
        let able = backend.capabilities().writes.ok_or(Error::ReadOnly)?;
        Ok(Target {
            source,
            path: ObjectPath::from_bytes(path),
            backend,
            able,
        })
    }

    pub(crate) fn remote_target_of(&self, id: EntryId) -> Result<Target, Error> {
        let place = self.catalog.object_path(id).map_err(Error::from_catalog)?;
        let (source, path) = place.ok_or(Error::Stale)?;
        self.remote_target(source, path)
    }

    /// Makes a request to a source for somebody who waits, within the deadline.
    async fn ask<T>(
        &self,
        target: &Target,
        request: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, Error> {
        self.ask_within(self.settings.data_deadline, target, request).await
    }

    /// The same where there is less time.
    async fn ask_within<T>(
        &self,
        deadline: Duration,
        target: &Target,
        request: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, Error> {
        let asked = self.indexer.ask(target.source, &target.path, deadline, request);
        asked.await.map_err(Error::from_index)
    }

    /// Runs what blocks its thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime.spawn_blocking(work).await.map_err(Error::broke_off)?
    }

    /// Has a directory looked at again of which it is not known what it holds: a change of it was not answered.
    fn look_into(&self, directory: EntryId) {
        let indexer = Arc::clone(&self.indexer);
        self.runtime.spawn(async move {
            if let Err(error) = indexer.list_now(directory).await {
                tracing::debug!(id = directory.0, %error, "a directory in which a change failed is listed again later");
            }
        });
    }
}
