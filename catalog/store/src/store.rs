//! The open file: one writer, a snapshot for the readers, and the commits.
//!
//! Always true here:
//! - Readers share one snapshot with its tables open, which each commit replaces. Nobody keeps a snapshot beyond one
//!   call, so that no commit has to leave old pages lying about for longer than that.
//! - Small changes are committed at once, but made durable together, by the keeper thread or by the next durable
//!   commit. What must be durable at once is so through the write-ahead log, and in the database with the keeper's commit. What hands out ids beyond the reserved limit moves the limit in the same transaction, durably; so an id
//!   that anyone has seen is never given away again.
//! - After the storage has failed, it is opened again in place, held: reads go on, and the next change tries to write.
//!
//! - Durable changes of the journal that wait for the writer at the same time become one transaction.
//!
//! Lock order: `writer` before `together` and `snapshot` before the queues of subscribers.

mod keeper;
mod opening;
mod snapshot;
mod together;
pub(crate) mod wal;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::{Database, Durability};

use crate::change::Subscribers;
use crate::edit::Edit;
use crate::error::{Error, OpenError, Result};
use crate::format::{owned_id, owned_key};
use crate::reserve::Reserve;
use crate::ticket::Tickets;
use crate::{Change, Options, SourceId, Subscription};

pub(crate) use keeper::Keeper;
pub use opening::examines_file;
pub(crate) use opening::{bring_up_to_date, open as open_file, refuse as refuse_file};
pub(crate) use snapshot::Snapshot;
pub use wal::LogLoss;
pub(crate) use wal::lengthen;

use opening::Hold;
use together::Together;
use wal::{Record, Wal};

/// How many ids are reserved at a time. What is left of them after a crash is never used: 2^64 ids outlast that.
const IDS_RESERVED: u64 = 1 << 20;

/// When a change must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the call returns, in the database or in the write-ahead log.
    Now,
    /// Before the call returns, in the database, with all that the log holds.
    InTheDatabase,
    /// With the next durable commit; but from when the call returns on it outlives this process, through the log, where that can
    /// be written.
    Told,
    /// With the next durable commit.
    Soon,
}

/// The open catalog, beneath its public face.
#[derive(Debug)]
pub(crate) struct Store {
    file: PathBuf,
    cache_bytes: usize,
    writer: Mutex<Writer>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// The next id to be given away.
    next_id: AtomicU64,
    tickets: Arc<Tickets>,
    together: Together,
    /// Counts the durable commits since the opening.
    durable_commits: AtomicU64,
    subscribers: Subscribers,
    keeper: Arc<Keeper>,
    repaired: bool,
    /// Why the last attempt to write failed, until one succeeds durably.
    unwritten: Mutex<Option<String>>,
    /// How often the storage failed.
    losses: AtomicU64,
    /// How often it was opened for writing in vain.
    vain: AtomicU64,
    /// What its log was found to lack when it was opened, where that could not be noted beside it.
    unnoted: Option<LogLoss>,
    reserve: Arc<Reserve>,
    /// How many bytes stand in the log that the database has yet to take in.
    logged: AtomicU64,
    /// Whether something was turned away since there was room the last time.
    is_short: AtomicBool,
    /// How often that came about.
    turned_away: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    /// `None` only while it is being opened again, or when that failed.
    database: Option<Database>,
    /// The reserved limit as the file has it.
    id_limit: u64,
    /// Whether there are commits that are not durable in the database yet.
    behind: bool,
    wal: Wal,
    /// Whether it could not be opened for writing the last time: what stands in the log is then shown from memory.
    shut: bool,
    /// Whether that was for want of room.
    is_full: bool,
}

impl Store {
    pub(crate) fn open(file: &Path, options: &Options) -> Result<Arc<Self>, OpenError> {
        let cache_bytes = options.cache_bytes;
        opening::create_if_missing(file)?;
        let reserve = Arc::new(Reserve::beside(file, options.reserve_bytes));
        let opened = opening::open(file, cache_bytes, Some(&reserve))?;
        let repaired = opened.repaired;
        let refuse = |error| opening::refuse(file, error);
        let (database, caught, why) = match opening::begin(file, opened) {
            Ok((database, caught)) => (database, caught, None),
            // What it holds can be read all the same, and whoever makes room for it looks for what is in it.
            Err(Error::Full) => {
                let held = opening::reopen(file, cache_bytes, Hold::Held, &reserve);
                let (database, caught) = held.map_err(refuse)?;
                tracing::warn!(file = %file.display(), "the disk of the catalog is full: it can only be read for now");
                (database, caught, Some(Error::Full.to_string()))
            }
            Err(error) => return Err(refuse(error)),
        };
        let snapshot = Snapshot::take(&database).map_err(refuse)?;
        let shut = why.is_some();
        let unnoted = caught.loss.filter(|loss| !tell_loss(file, *loss));
        let store = Arc::new(Self {
            file: file.to_owned(),
            cache_bytes,
            snapshot: RwLock::new(Arc::new(snapshot)),
            next_id: AtomicU64::new(caught.id_limit),
            writer: Mutex::new(Writer {
                database: Some(database),
                id_limit: caught.id_limit,
                // The log that was missed is not to be missed again.
                behind: caught.loss.is_some(),
                wal: Wal::following(file, caught.generation),
                shut,
                is_full: shut,
            }),
            tickets: Arc::default(),
            together: Together::default(),
            durable_commits: AtomicU64::new(0),
            subscribers: Subscribers::default(),
            keeper: Arc::new(Keeper::new(options.commit_interval)),
            repaired,
            unwritten: Mutex::new(why),
            losses: AtomicU64::new(0),
            vain: AtomicU64::new(0),
            unnoted,
            reserve,
            logged: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            turned_away: AtomicU64::new(0),
        });
        // Where there is no room for it, that is told to whoever asks for something new.
        store.reserve.fill(0);
        Ok(store)
    }

    pub(crate) fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    pub(crate) fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    pub(crate) fn durable_commits(&self) -> u64 {
        self.durable_commits.load(Ordering::Relaxed)
    }

    pub(crate) fn repaired(&self) -> bool {
        self.repaired
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        self.subscribers.subscribe()
    }

    pub(crate) fn close_subscriptions(&self) {
        self.subscribers.close();
    }

    /// Reserves an id in memory. It becomes somebody's only through a commit.
    pub(crate) fn allocate_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a read on the present snapshot, once more if the storage was opened again meanwhile.
    pub(crate) fn read<T>(&self, read: impl Fn(&Snapshot) -> Result<T>) -> Result<T> {
        let snapshot = Arc::clone(&self.snapshot.read());
        let result = read(&snapshot);
        match result {
            Err(error) if error.breaks_storage() => {
                drop(snapshot);
                // Whoever broke it opens it again under this lock.
                let mut writer = self.writer.lock();
                let again = Arc::clone(&self.snapshot.read());
                match read(&again) {
                    Err(error) if error.breaks_storage() => {
                        drop(again);
                        self.reopen(&mut writer).map(drop)?;
                        let again = Arc::clone(&self.snapshot.read());
                        read(&again)
                    }
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Runs one change as one transaction. If it fails, nothing has changed.
    ///
    /// What the change reports is given to the subscribers after the commit, in the order of commits.
    pub(crate) fn write<T>(
        &self,
        when: When,
        change: impl FnOnce(&mut Edit<'_>) -> Result<T>,
    ) -> Result<(T, Vec<Change>)> {
        let mut writer = self.writer()?;
        let result = self.write_locked(&mut writer, when, change);
        self.mend(&mut writer, result)
    }

    /// Runs a change as [`write`](Self::write) does that makes the catalog larger, or begins what is ended by another, if there is room
    /// for all of that.
    pub(crate) fn write_new<T>(
        &self,
        when: When,
        change: impl FnOnce(&mut Edit<'_>) -> Result<T>,
    ) -> Result<(T, Vec<Change>)> {
        self.check_room()?;
        self.write(when, change)
    }

    /// Makes sure that something new may be begun: what ends it, and what stands in the log by then, has room on the disk.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.has_room() {
            return Ok(());
        }
        if !self.is_short.swap(true, Ordering::Relaxed) {
            tracing::warn!(file = %self.file.display(), "the disk of the catalog is full: nothing new is taken in");
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Full)
    }

    fn has_room(&self) -> bool {
        // The database takes what is in the log in whole pages, and leaves those that they replace for a while.
        let has_room = self.reserve.fill(2 * self.logged.load(Ordering::Relaxed));
        if has_room {
            self.is_short.store(false, Ordering::Relaxed);
        }
        has_room
    }

    /// Waits for the turn to write. Whoever waited while another has tried to open the storage in vain does not try again: that
    /// takes long, and many may wait.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let before = self.vain_attempts();
        let writer = self.writer.lock();
        self.check_open_since(&writer, before)?;
        Ok(writer)
    }

    fn vain_attempts(&self) -> u64 {
        self.vain.load(Ordering::Relaxed)
    }

    /// Refuses to write where the storage could not be opened since there were so many vain attempts.
    fn check_open_since(&self, writer: &Writer, before: u64) -> Result<()> {
        if !writer.shut || self.vain_attempts() == before {
            return Ok(());
        }
        Err(if writer.is_full {
            Error::Full
        } else {
            redb::StorageError::PreviousIo.into()
        })
    }

    /// Opens the storage again where it was the storage that failed.
    fn mend<T>(&self, writer: &mut Writer, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.breaks_storage()
        {
            *self.unwritten.lock() = Some(error.to_string());
            if !writer.shut {
                tracing::warn!(file = %self.file.display(), %error, "the catalog could not be written; opening it again");
                self.losses.fetch_add(1, Ordering::Relaxed);
                self.reopen(writer)?;
            }
        }
        result
    }

    fn write_locked<T>(
        &self,
        writer: &mut Writer,
        when: When,
        change: impl FnOnce(&mut Edit<'_>) -> Result<T>,
    ) -> Result<(T, Vec<Change>)> {
        if (writer.database.is_none() || writer.shut)
            && let Some(error) = self.reopen(writer)?
        {
            return Err(error);
        }
        let database = writer.database.as_ref().expect("invariant: it was opened above");
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        let record = RefCell::default();
        let mut edit = Edit::begin(&transaction, &record, &self.next_id, &self.tickets)?;
        let value = change(&mut edit)?;
        let next_id = self.next_id.load(Ordering::Relaxed);
        let id_limit = if next_id > writer.id_limit {
            next_id.saturating_add(IDS_RESERVED)
        } else {
            writer.id_limit
        };
        if id_limit != writer.id_limit {
            edit.set_id_limit(id_limit)?;
        }
        edit.write_sums()?;
        let durable = matches!(when, When::Now | When::InTheDatabase) || id_limit != writer.id_limit;
        let told = durable || when == When::Told && writer.wal.serves();
        let in_database = when == When::InTheDatabase || told && !writer.wal.takes(&record.borrow());
        let generation = in_database.then(wal::new_generation);
        if let Some(generation) = generation {
            edit.set_generation(generation, writer.wal.known_beginning(when != When::InTheDatabase))?;
        }
        let changes = edit.finish()?;
        transaction.set_durability(if in_database {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        transaction.commit()?;
        writer.behind = !in_database;
        match generation {
            Some(generation) => {
                writer.wal.begin(generation);
                *self.unwritten.lock() = None;
            }
            None => writer.wal.push(&record.borrow()),
        }
        self.logged.store(writer.wal.bytes(), Ordering::Relaxed);
        if durable && !in_database {
            self.flush(writer)?;
        } else if told
            && !in_database
            && let Err(error) = writer.wal.flush(false)
        {
            self.warn_of_log(&error);
        }
        self.durable_commits.fetch_add(u64::from(durable), Ordering::Relaxed);
        writer.id_limit = id_limit;
        let database = writer.database.as_ref().expect("invariant: it was opened above");
        self.show(Snapshot::take(database)?, &changes);
        if writer.behind {
            self.keeper.wake();
        }
        Ok((value, changes))
    }

    /// Makes what was committed durable through the log, or in the database where the log cannot be written.
    fn flush(&self, writer: &mut Writer) -> Result<()> {
        let Err(error) = writer.wal.flush(true) else {
            return Ok(());
        };
        self.warn_of_log(&error);
        self.write_locked(writer, When::InTheDatabase, |_| Ok(())).map(drop)
    }

    fn warn_of_log(&self, error: &std::io::Error) {
        tracing::warn!(file = %self.file.display(), %error, "the write-ahead log of the catalog could not be written");
    }

    /// Says what a log was found to lack, until somebody takes the note of it away.
    pub(crate) fn log_loss(&self) -> Option<String> {
        log_loss(&self.file, self.unnoted)
    }

    /// Says why nothing can be written, after trying once more where the last attempt failed. Blocks for as long as the disk takes.
    pub(crate) fn why_unwritten(&self) -> Option<String> {
        if !self.has_room() {
            return Some(Error::Full.to_string());
        }
        let failed = self.unwritten.lock().clone()?;
        match self.write(When::InTheDatabase, |_| Ok(())) {
            Ok(_) => None,
            Err(error) if error.breaks_storage() => Some(error.to_string()),
            Err(_) => Some(failed),
        }
    }

    /// Counts how often the storage failed, and what was not durable by then was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Counts how often the storage failed, or something was turned away since there was no room for it: what is known of the
    /// sources lacks something then.
    pub(crate) fn shortfalls(&self) -> u64 {
        self.losses() + self.turned_away.load(Ordering::Relaxed)
    }

    /// Makes all commits so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut writer = self.writer()?;
        if !writer.behind || writer.wal.holds_all() {
            return Ok(());
        }
        let result = if writer.wal.takes(&Record::default()) {
            self.durable_commits.fetch_add(1, Ordering::Relaxed);
            self.flush(&mut writer)
        } else {
            self.write_locked(&mut writer, When::Now, |_| Ok(())).map(drop)
        };
        self.mend(&mut writer, result)
    }

    /// Makes all commits so far durable in the database, so that the log begins anew.
    pub(crate) fn settle(&self) -> Result<()> {
        let mut writer = self.writer()?;
        if !writer.behind {
            return Ok(());
        }
        let result = self.write_locked(&mut writer, When::InTheDatabase, |_| Ok(()));
        self.mend(&mut writer, result)?;
        self.reserve.trim();
        Ok(())
    }

    /// Forgets what departed from a source before that time, one batch a transaction, so that others get their turn.
    pub(crate) fn reap(&self, source: SourceId, before_ns: i64, batch: usize) -> Result<u64> {
        let mut total = 0;
        loop {
            let ((reaped, done), _) = self.write(When::Soon, |edit| edit.reap(source.0, before_ns, batch))?;
            total += reaped;
            if done {
                return Ok(total);
            }
        }
    }

    /// Forgets one batch of what a removed source left; tells whether that was all.
    pub(crate) fn reap_some(&self, source: SourceId) -> Result<bool> {
        const BATCH: usize = 2_000;
        let ((_, done), _) = self.write(When::Soon, |edit| edit.reap(source.0, i64::MAX, BATCH))?;
        Ok(done)
    }

    /// The sources that are gone and have left entries behind.
    pub(crate) fn orphans(&self) -> Result<Vec<SourceId>> {
        self.read(|snapshot| {
            let mut orphans = Vec::new();
            let mut next = 0;
            while let Some(row) = snapshot.departed.range::<&[u8; 12]>(&owned_key(next, 0)..)?.next() {
                let (source, _) = owned_id(row?.0.value());
                if snapshot.sources.get(source)?.is_none() {
                    orphans.push(SourceId(source));
                }
                let Some(after) = source.checked_add(1) else { break };
                next = after;
            }
            Ok(orphans)
        })
    }

    /// Opens the storage again after it failed. What was not durable is lost, so everybody is told that everything
    /// may have changed. Gives the reason if it can only be read for now.
    fn reopen(&self, writer: &mut Writer) -> Result<Option<Error>> {
        // The old database must close before its file can be locked again.
        writer.database = None;
        let (opened, why) = match opening::reopen(&self.file, self.cache_bytes, Hold::Released, &self.reserve) {
            Ok(opened) => (opened, None),
            Err(error) => (
                opening::reopen(&self.file, self.cache_bytes, Hold::Held, &self.reserve)?,
                Some(error),
            ),
        };
        let (database, caught) = opened;
        if let (Some(loss), None) = (caught.loss, &why) {
            tell_loss(&self.file, loss);
        }
        writer.id_limit = caught.id_limit;
        writer.behind = false;
        writer.wal = Wal::following(&self.file, caught.generation);
        writer.shut = why.is_some();
        writer.is_full = matches!(why, Some(Error::Full));
        self.vain.fetch_add(u64::from(writer.shut), Ordering::Relaxed);
        self.show(Snapshot::take(&database)?, &[Change::Overflow]);
        writer.database = Some(database);
        Ok(why)
    }

    /// Lets readers see a commit, and the subscribers hear of it: nobody sees what they have not been told.
    fn show(&self, snapshot: Snapshot, changes: &[Change]) {
        let mut shown = self.snapshot.write();
        *shown = Arc::new(snapshot);
        self.subscribers.publish(changes);
    }
}

/// Tells of a log that is not as it should be, in a note beside it that stays; false if that could not be written.
fn tell_loss(file: &Path, loss: LogLoss) -> bool {
    tracing::error!(file = %file.display(), error = %loss, "what was saved last may be lost");
    let noted = wal::note_loss(file, loss);
    noted
        .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "that could not be noted"))
        .is_ok()
}

/// Says what the log of a catalog lacks: what was just found, or was noted beside it.
pub(crate) fn log_loss(file: &Path, found: Option<LogLoss>) -> Option<String> {
    let noted = || match wal::noted_loss(file) {
        Ok(noted) => noted,
        Err(error) => Some(format!("what is noted of the write-ahead log cannot be read: {error}")),
    };
    found.map(|loss| loss.to_string()).or_else(noted)
}

impl Drop for Store {
    /// Closes cleanly: everything durable, and no id left reserved that was not given away.
    fn drop(&mut self) {
        let next_id = self.next_id.load(Ordering::Relaxed);
        let mut writer = self.writer.lock();
        if !writer.behind && writer.id_limit <= next_id && !writer.wal.is_needed() {
            return;
        }
        writer.wal.close();
        let closed = self.write_locked(&mut writer, When::InTheDatabase, |edit| edit.set_id_limit(next_id));
        if let Err(error) = closed {
            // The next opening starts from the last durable commit, as after a crash.
            tracing::warn!(file = %self.file.display(), %error, "the catalog could not be closed cleanly");
        }
    }
}
