//! The door of the crate.

use std::path::Path;
use std::time::Duration;

use crate::{
    BulkLoader, Change, Details, DirectoryState, Entry, EntryId, NewChild, NewSource, OpenError, Result, ScanState,
    SeenAttributes, SourceError, SourceId, SourceRecord, Subscription,
};

/// How a catalog is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// How long small changes may wait for a durable commit. What is lost with a crash is what the next listing brings back.
    pub commit_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 48 << 20,
            commit_interval: Duration::from_millis(500),
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
    /// Number of sources.
    pub sources: u64,
    /// Sum of sizes, in bytes.
    pub bytes: u64,
}

/// A library's catalog, open. Share it behind an `Arc`; every method may be called from many threads at once.
#[derive(Debug)]
pub struct Catalog(());

impl Catalog {
    /// Opens the catalog, or makes an empty one where there is no file.
    pub fn open(_file: &Path, _options: Options) -> Result<Self, OpenError> {
        unimplemented!()
    }

    /// Examines the whole file without changing it.
    pub fn check(_file: &Path) -> Result<CheckReport, OpenError> {
        unimplemented!()
    }

    /// Looks a name up.
    pub fn lookup(&self, _parent: EntryId, _name: &[u8]) -> Result<Option<Entry>> {
        unimplemented!()
    }

    /// Looks a name up, the exact one first, then one that differs only in case.
    pub fn lookup_folded(&self, _parent: EntryId, _name: &[u8]) -> Result<Option<Entry>> {
        unimplemented!()
    }

    /// Gives the entry of an id.
    pub fn entry(&self, _id: EntryId) -> Result<Option<Entry>> {
        unimplemented!()
    }

    /// Gives what is kept of an entry beyond its attributes.
    pub fn details(&self, _id: EntryId) -> Result<Option<Details>> {
        unimplemented!()
    }

    /// Gives up to `limit` children in the byte order of their names, from the first behind `after` on.
    pub fn children(&self, _directory: EntryId, _after: Option<&[u8]>, _limit: usize) -> Result<Vec<Entry>> {
        unimplemented!()
    }

    /// Says what is known of a directory as a whole; `None` if there is no such directory.
    pub fn directory_state(&self, _id: EntryId) -> Result<Option<DirectoryState>> {
        unimplemented!()
    }

    /// Gives the path in the tree: `/photos/2024/a.jpg`; `None` if the entry is not in the tree.
    pub fn tree_path(&self, _id: EntryId) -> Result<Option<Vec<u8>>> {
        unimplemented!()
    }

    /// Gives the source and the path beneath its root, raw names joined by `/`; empty for the attach point itself.
    pub fn object_path(&self, _id: EntryId) -> Result<Option<(SourceId, Vec<u8>)>> {
        unimplemented!()
    }

    /// Finds the entry at a path of the tree.
    pub fn resolve(&self, _tree_path: &[u8]) -> Result<Option<Entry>> {
        unimplemented!()
    }

    /// Gives entries and bytes, whole and for each source.
    pub fn totals(&self) -> Result<Totals> {
        unimplemented!()
    }

    /// Lists the sources in the order of ids.
    pub fn sources(&self) -> Result<Vec<SourceRecord>> {
        unimplemented!()
    }

    /// Adds a source and makes its attach point, with the directories that lead to it. Durable when it returns.
    pub fn add_source(&self, _new: NewSource) -> Result<SourceRecord, SourceError> {
        unimplemented!()
    }

    /// Changes what is needed to connect, and how the source is treated. Durable when it returns.
    pub fn update_source(&self, _id: SourceId, _spec: String, _options: String) -> Result<SourceRecord> {
        unimplemented!()
    }

    /// Removes a source with all its entries; attach points nested in it stay. Durable when it returns.
    pub fn remove_source(&self, _id: SourceId) -> Result<Vec<Change>> {
        unimplemented!()
    }

    /// Makes the children of a directory what a complete listing says.
    pub fn apply_listing(
        &self,
        _directory: EntryId,
        _listing: CompleteListing,
        _open: &dyn Fn(EntryId) -> bool,
    ) -> Result<Vec<Change>> {
        unimplemented!()
    }

    /// Notes that a directory could not be listed. Its children stay; a running scan passes it over.
    pub fn note_failure(&self, _directory: EntryId, _message: &str, _at_ns: i64) -> Result<()> {
        unimplemented!()
    }

    /// Takes in what the source said of one entry.
    pub fn update_attributes(
        &self,
        _id: EntryId,
        _seen: SeenAttributes,
        _open: &dyn Fn(EntryId) -> bool,
    ) -> Result<Vec<Change>> {
        unimplemented!()
    }

    /// Finds the entry that has an identity; one that has departed rather than one that stands in the tree.
    pub fn find_identity(&self, _source: SourceId, _identity: [u8; 16]) -> Result<Option<Found>> {
        unimplemented!()
    }

    /// Forgets, in bounded batches, what departed before that time and was not adopted. Gives the number of entries.
    pub fn reap_departed(&self, _source: SourceId, _before_ns: i64) -> Result<u64> {
        unimplemented!()
    }

    /// Begins a bulk load.
    pub fn bulk_load(&self, _source: SourceId) -> Result<BulkLoader> {
        unimplemented!()
    }

    /// Begins a scan: a new generation, with the source's root to be listed. Durable when it returns.
    pub fn scan_begin(&self, _source: SourceId, _now_ns: i64) -> Result<u64> {
        unimplemented!()
    }

    /// Gives up to `limit` directories that are still to be listed, in the order of ids.
    pub fn scan_queue_next(&self, _source: SourceId, _limit: usize) -> Result<Vec<EntryId>> {
        unimplemented!()
    }

    /// Says how far the last scan has come; `None` if there never was one.
    pub fn scan_state(&self, _source: SourceId) -> Result<Option<ScanState>> {
        unimplemented!()
    }

    /// Ends the scan. Durable when it returns.
    pub fn scan_finish(&self, _source: SourceId, _now_ns: i64) -> Result<()> {
        unimplemented!()
    }

    /// Makes everything that was committed so far durable.
    pub fn sync(&self) -> Result<()> {
        unimplemented!()
    }

    /// Delivers all changes from now on.
    pub fn subscribe(&self) -> Subscription {
        unimplemented!()
    }
}
