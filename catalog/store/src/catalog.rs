//! The door of the crate: opening, and every change. The reads are in `read.rs`.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::format::ScanRow;
use crate::store::{Keeper, Store, When};
use crate::{
    BulkLoader, Change, EntryId, Failure, NewChild, NewSource, OpenError, Replaces, Result, SeenAttributes,
    SourceError, SourceId, SourceRecord, Subscription, Ticket, WhenStaged, check, listing, sources,
};

/// How a catalog is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// How long small changes may wait for a durable commit. What is lost with a crash is what the next listing brings back.
    pub commit_interval: Duration,
    /// Room that is kept on the disk, in bytes, so that what was begun can be ended when it is full; nothing new is begun without it.
    /// 0: none is.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 48 << 20,
            commit_interval: Duration::from_millis(500),
            reserve_bytes: 8 << 20,
        }
    }
}

/// A complete, successful listing of one directory.
#[derive(Clone, Debug)]
pub struct CompleteListing {
    /// All its children, in any order, each name once.
    pub children: Vec<NewChild>,
    /// When it was taken, in nanoseconds since 1970 UTC.
    pub listed_ns: i64,
    /// The scan generation it belongs to; 0 if to none.
    pub scan: u64,
    /// Taken before it began.
    pub ticket: Ticket,
}

/// An entry that was found by its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry.
    pub id: EntryId,
    /// Whether it has left its directory and waits for adoption.
    pub departed: bool,
}

/// Entries and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalsOf {
    /// Number of entries that can be reached, directories and attach points among them.
    pub entries: u64,
    /// Sum of their sizes, in bytes.
    pub bytes: u64,
}

/// Entries and bytes of the library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All sources together, and the library's own directories.
    pub all: TotalsOf,
    /// Each source, in the order of ids.
    pub sources: Vec<(SourceId, TotalsOf)>,
}

/// What an examination of a catalog's file found. A file with findings that matter is never reported here, but as
/// [`OpenError::Damaged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Version of the format.
    pub format: u64,
    /// Number of entries that can be reached.
    pub entries: u64,
    /// Number of directories among them.
    pub directories: u64,
    /// Number of entries that have left the tree and are not reaped yet.
    pub departed: u64,
    /// Number of entries with changes that their source does not have yet.
    pub staged: u64,
    /// Number of sources.
    pub sources: u64,
    /// Sum of sizes, in bytes.
    pub bytes: u64,
    /// What the write-ahead log of a file was found to lack, now or before, so that what was saved last may be lost.
    pub log_loss: Option<String>,
}

/// A library's catalog, open. Share it behind an `Arc`; every method may be called from many threads at once.
///
/// Reads never wait for a change. Changes wait for one another.
#[derive(Debug)]
pub struct Catalog {
    store: Arc<Store>,
    keeper: Option<JoinHandle<()>>,
}

/// How many rows one transaction reaps at most.
const REAP_BATCH: usize = 10_000;

impl Catalog {
    /// Opens the catalog, or makes an empty one where there is no file.
    ///
    /// Every page is checked against its checksum before the file is trusted, and until then nothing is written to it.
    pub fn open(file: &Path, options: Options) -> Result<Self, OpenError> {
        let store = Store::open(file, &options)?;
        let keeper = Keeper::start(&store).map_err(|cause| OpenError::Io {
            file: file.to_owned(),
            cause,
        })?;
        Ok(Self {
            store,
            keeper: Some(keeper),
        })
    }

    /// Examines the whole file, row by row, without changing it.
    pub fn check(file: &Path) -> Result<CheckReport, OpenError> {
        check::check_file(file)
    }

    /// Examines every row of the open catalog, as it is now; what does not hold is [`Error::Damaged`](crate::Error).
    pub fn examine(&self) -> Result<CheckReport> {
        self.store.read(check::examine)
    }

    /// Says why nothing can be written to the catalog, such as a full disk, if the last attempt failed and one more does.
    pub fn why_unwritten(&self) -> Option<String> {
        self.store.why_unwritten()
    }

    /// Says what the write-ahead log was found to lack when the catalog was opened, so that what was saved last may be lost. It is
    /// told until somebody removes the note of it, which lies beside the log with `-lost` behind its name; the log as it was found
    /// has `-damaged` there.
    pub fn log_loss(&self) -> Option<String> {
        self.store.log_loss()
    }

    /// Makes sure that something new may be begun, whose end the catalog will be told of: there is room on the disk for all that it
    /// comes to.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error).
    pub fn check_room(&self) -> Result<()> {
        self.store.check_room()
    }

    /// Counts how often what is known of the sources came to lack something since it was opened: the storage failed, or
    /// something was not taken in for want of room. What that is, is known again once all was listed after that.
    pub fn shortfalls(&self) -> u64 {
        self.store.shortfalls()
    }

    /// Counts how often the storage failed since it was opened. Each time, what was not durable yet was lost, and
    /// [`Change::Overflow`] is told.
    pub fn losses(&self) -> u64 {
        self.store.losses()
    }

    /// Tells whether the storage had to be repaired on opening, because it had not been closed in order.
    pub fn repaired_on_open(&self) -> bool {
        self.store.repaired()
    }

    /// Adds a source and makes its attach point, with the directories that lead to it. Durable when it returns.
    ///
    /// What an outer source has under the attach point's name is hidden by it.
    pub fn add_source(&self, new: NewSource) -> Result<SourceRecord, SourceError> {
        // What is wrong with a source shows before anything is changed, so such a transaction commits nothing.
        let (record, _) = self.store.write_new(When::Now, |edit| match sources::add(edit, new) {
            Err(SourceError::Catalog(error)) => Err(error),
            other => Ok(other),
        })?;
        record
    }

    /// Changes what is needed to connect, and how the source is treated. Durable when it returns.
    pub fn update_source(&self, id: SourceId, spec: String, options: String) -> Result<SourceRecord> {
        let (record, _) = self
            .store
            .write(When::Now, |edit| sources::update(edit, id, spec, options))?;
        Ok(record)
    }

    /// Removes a source with all its entries; attach points nested in it stay. Durable when it returns.
    ///
    /// What it hid of an outer source comes back with the next listing there, for which the directory is queued.
    /// Where something of it is staged, that is refused or forgotten.
    pub fn remove_source(&self, id: SourceId, when_staged: WhenStaged) -> Result<Vec<Change>> {
        let ((), changes) = self
            .store
            .write(When::Now, |edit| sources::remove(edit, id, when_staged))?;
        if let Err(error) = self.reap_departed(id, i64::MAX) {
            // The source is gone; the keeper forgets the rest when the catalog is opened the next time.
            tracing::warn!(source = id.0, %error, "entries of a removed source are left in the catalog");
        }
        Ok(changes)
    }

    /// Makes the children of a directory what a complete listing says, in one transaction.
    ///
    /// This is the only way in which children disappear by themselves. Attach points and what leads to them stay. A child that is
    /// listed unchanged keeps everything; one that changed keeps its id, but for a file whose bytes changed and for
    /// which `replaces` answers true: that gets a new id. What is staged stays as it is. A child that is gone is kept aside for adoption if it is a
    /// directory or has an identity, until [`reap_departed`](Self::reap_departed). New directories are queued for the
    /// scan; so are known ones that a running scan has not listed yet.
    ///
    /// [`Error::Overtaken`](crate::Error) if it may be older than a change that was made through the mount, or than the
    /// listing of this directory that was applied last.
    pub fn apply_listing(
        &self,
        directory: EntryId,
        mut listing: CompleteListing,
        replaces: Replaces<'_>,
    ) -> Result<Vec<Change>> {
        listing::prepare(directory, &mut listing.children)?;
        let ((), changes) = self
            .store
            .write_new(When::Soon, |edit| listing::apply(edit, directory, &listing, replaces))?;
        Ok(changes)
    }

    /// Notes that a directory could not be listed. Its children stay; a running scan passes it over.
    pub fn note_failure(&self, directory: EntryId, message: &str, at_ns: i64) -> Result<()> {
        let failure = Failure {
            at_ns,
            message: message.to_owned(),
        };
        let noted = self.store.write_new(When::Soon, |edit| {
            let source = edit.source_directory(directory)?.source();
            edit.mark_failed(source, directory.0, failure)
        });
        noted.map(drop)
    }

    /// Takes in what the source said of one entry, in a look that began after the ticket was taken. If it is of another
    /// kind now, it is another entry; if it is staged, it stays as it is. It costs no transaction where nothing changed.
    ///
    /// [`Error::Overtaken`](crate::Error) if it may be older than a change that was made through the mount.
    pub fn update_attributes(
        &self,
        id: EntryId,
        seen: SeenAttributes,
        ticket: Ticket,
        replaces: Replaces<'_>,
    ) -> Result<Vec<Change>> {
        if self.store.read(|snapshot| listing::is_as_seen(snapshot, id, &seen))? {
            self.store.tickets().note_look(ticket, id.0);
            return Ok(Vec::new());
        }
        let ((), changes) = self
            .store
            .write(When::Soon, |edit| listing::apply_one(edit, id, seen, ticket, replaces))?;
        Ok(changes)
    }

    /// Forgets, in bounded batches, what departed before that time and was not adopted. Gives the number of entries.
    ///
    /// The time of departure is that of the listing in which the entry was missing.
    pub fn reap_departed(&self, source: SourceId, before_ns: i64) -> Result<u64> {
        self.store.reap(source, before_ns, REAP_BATCH)
    }

    /// Begins a bulk load.
    pub fn bulk_load(&self, source: SourceId) -> Result<BulkLoader> {
        BulkLoader::begin(&self.store, source)
    }

    /// Begins a scan: a new generation, with the source's root to be listed. Durable when it returns.
    pub fn scan_begin(&self, source: SourceId, now_ns: i64) -> Result<u64> {
        let (generation, _) = self.store.write_new(When::Now, |edit| {
            let (root, _) = sources::root_of(edit, source)?;
            let scan = edit.scan(source.0)?;
            let generation = scan.generation + 1;
            let scan = ScanRow {
                generation,
                started_ns: now_ns,
                finished_ns: None,
                listed: 0,
                failed: 0,
                ..scan
            };
            edit.set_scan(source.0, scan);
            edit.enqueue(source.0, root)?;
            Ok(generation)
        })?;
        Ok(generation)
    }

    /// Ends the scan. Durable when it returns. Directories that are still queued stay so.
    pub fn scan_finish(&self, source: SourceId, now_ns: i64) -> Result<()> {
        let ended = self.store.write(When::Now, |edit| {
            sources::root_of(edit, source)?;
            let scan = edit.scan(source.0)?;
            edit.set_scan(
                source.0,
                ScanRow {
                    finished_ns: Some(now_ns),
                    ..scan
                },
            );
            Ok(())
        });
        ended.map(drop)
    }

    /// Gives the number of durable commits since it was opened.
    pub fn durable_commits(&self) -> u64 {
        self.store.durable_commits()
    }

    /// Makes everything that was committed so far durable.
    pub fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    /// Delivers all changes from now on. First listings of directories tell only of the directory, bulk loads of
    /// nothing: nobody can have seen what stood there.
    pub fn subscribe(&self) -> Subscription {
        self.store.subscribe()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.store.keeper().stop();
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the catalog's commit thread panicked");
        }
        self.store.close_subscriptions();
    }
}
