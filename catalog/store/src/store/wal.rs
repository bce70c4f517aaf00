//! The write-ahead log: what was committed and must survive a crash before the database's own durable commit, which costs
//! several times as much (docs/catalog-format.md tells the file byte by byte).
//!
//! Always true here:
//! - The log holds changes that follow one durable commit of the database, without a gap, each record from the state that the
//!   one before it left. The database names that commit by a number of chance, its generation, and each record does too.
//!   So a log that belongs to another file, or to another time, is never taken.
//! - The next durable commit of the database holds all of them, and the log begins anew in the same place. It is written
//!   over what was written before, since a file that grows is several times as slow to sync.
//! - A change that does not fit, or follows one that was not noted, makes a durable commit of the database instead.
//! - The database notes which generation the file begins with, from before the first record is needed until it is closed in
//!   order. So a log that is gone, or is another's, is found out; and since each record says whether all before it were on the
//!   disk, so is damage in the middle ([`LogLoss`]). A torn end is none: nothing of it was promised.

mod read;
mod record;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use read::LogLoss;
pub(crate) use read::{note_loss, noted_loss, read};
use record::{HEADER_BYTES, Header};
pub(crate) use record::{Record, Step, steps};

use super::opening::sync_folder;

/// How long the file is at first, in bytes, and at most. It doubles when it was too short.
const LEN_MIN: u64 = 256 << 10;
const LEN_MAX: u64 = 16 << 20;
/// For how many durable commits a log is left alone that could not be written.
const REST_COMMITS: u32 = 1_000;

/// The log of one open catalog.
#[derive(Debug)]
pub(crate) struct Wal {
    path: PathBuf,
    /// Opened when it is needed first.
    file: Option<File>,
    len: u64,
    /// The durable commit that it follows; `None` until there was one that named itself.
    generation: Option<u64>,
    /// The generation that the file begins with, once there is one of which the database is told.
    begins_with: Option<u64>,
    /// Whether the database has been told.
    noted: bool,
    /// Whether all that was written is on the disk.
    synced: bool,
    /// Where the next record goes, and its number.
    at: u64,
    sequence: u64,
    /// What was committed since the last record. `None` if that is more than is kept.
    pending: Option<Vec<u8>>,
    /// Whether it was too short.
    cramped: bool,
    /// How many durable commits it is left alone for, after it could not be written.
    rests: u32,
}

/// The log's file, which lies beside that of the catalog.
pub(crate) fn path_beside(catalog: &Path) -> PathBuf {
    let mut name = catalog.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// A name for a durable commit.
pub(crate) fn new_generation() -> u64 {
    // Keys of chance, from the system.
    RandomState::new().hash_one(std::process::id())
}

impl Wal {
    /// A log without records, to follow that durable commit.
    pub(crate) fn following(catalog: &Path, generation: Option<u64>) -> Self {
        Self {
            path: path_beside(catalog),
            file: None,
            len: LEN_MIN,
            generation,
            begins_with: None,
            noted: false,
            synced: true,
            at: 0,
            sequence: 0,
            pending: Some(Vec::new()),
            cramped: false,
            rests: 0,
        }
    }

    /// Tells whether a record of all that was committed, and of these bytes more, has room.
    pub(crate) fn takes(&mut self, record: &Record) -> bool {
        let (Some(pending), Some(more)) = (&self.pending, record.steps()) else {
            return false;
        };
        let needed = HEADER_BYTES as u64 + (pending.len() + more.len()) as u64;
        let fits = self.at + needed <= self.len;
        self.cramped |= !fits && needed <= LEN_MAX;
        fits && self.noted && self.serves() && self.generation.is_some()
    }

    /// Gives how long the records are that the next durable commit of the database holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.at
    }

    /// Tells whether it can be written, as far as is known.
    pub(crate) fn serves(&self) -> bool {
        self.rests == 0
    }

    /// Makes sure that there is a file of which the database can be told, and gives the generation that it begins with. To be called
    /// before a durable commit; `None` where there is no log.
    pub(crate) fn known_beginning(&mut self, is_wanted: bool) -> Option<u64> {
        let known = match self.begins_with {
            // What the database is told of must not be lost with the power.
            Some(generation) => self.sync().map(|()| Some(generation)),
            None if is_wanted && self.serves() => self.prepare().map(Some),
            None => Ok(None),
        };
        self.begins_with = known.unwrap_or_else(|error| {
            tracing::debug!(%error, "the catalog goes on without a write-ahead log");
            self.rests = REST_COMMITS;
            None
        });
        self.begins_with
    }

    fn sync(&mut self) -> io::Result<()> {
        if let (Some(file), false) = (&self.file, self.synced) {
            file.sync_data()?;
            self.synced = true;
        }
        Ok(())
    }

    /// Tells whether the database has been told that there is a log.
    pub(crate) fn is_needed(&self) -> bool {
        self.noted
    }

    /// Says that nothing is needed of the file after the next durable commit.
    pub(crate) fn close(&mut self) {
        (self.begins_with, self.noted) = (None, false);
    }

    /// Makes a file that begins with a record of nothing. Of the durable commit that is the last one now there is no other.
    fn prepare(&mut self) -> io::Result<u64> {
        let generation = self.generation.unwrap_or_else(new_generation);
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path, &mut self.len)?),
        };
        let mut at = file;
        at.seek(SeekFrom::Start(0))?;
        at.write_all(&Header::of(generation, 0, true, &[]).encode())?;
        file.sync_data()?;
        Ok(generation)
    }

    /// Notes what was committed.
    pub(crate) fn push(&mut self, record: &Record) {
        let room = self.len - self.at;
        match (&mut self.pending, record.steps()) {
            (Some(pending), Some(more)) if (pending.len() + more.len()) as u64 <= room => {
                pending.extend_from_slice(more);
            }
            _ => self.pending = None,
        }
    }

    /// Tells whether all that was committed is in the log, on the disk.
    pub(crate) fn holds_all(&self) -> bool {
        self.synced && self.pending.as_ref().is_some_and(Vec::is_empty)
    }

    /// Writes a record of what was noted, and waits for the disk if it is to be `durable`: what was only written outlives this
    /// process, but not a loss of power. After an error nothing more is written until many durable commits later: nobody
    /// knows what is on the disk.
    pub(crate) fn flush(&mut self, durable: bool) -> io::Result<()> {
        let flushed = self.try_flush(durable);
        if flushed.is_err() {
            self.pending = None;
            self.rests = REST_COMMITS;
        }
        flushed
    }

    fn try_flush(&mut self, durable: bool) -> io::Result<()> {
        let (Some(pending), Some(generation), Some(file)) = (&self.pending, self.generation, &self.file) else {
            return Err(io::Error::other("it does not hold what was committed before"));
        };
        if !pending.is_empty() {
            let mut bytes = Vec::with_capacity(HEADER_BYTES + pending.len());
            bytes.extend_from_slice(&Header::of(generation, self.sequence, self.synced, pending).encode());
            bytes.extend_from_slice(pending);
            let mut at = file;
            at.seek(SeekFrom::Start(self.at))?;
            at.write_all(&bytes)?;
            self.begins_with = Some(generation);
            self.at += bytes.len() as u64;
            self.sequence += 1;
            self.synced = false;
            self.pending = Some(Vec::new());
        }
        if durable {
            self.sync()?;
        }
        Ok(())
    }

    /// Begins anew after a durable commit, and makes more room if there was too little.
    pub(crate) fn begin(&mut self, generation: u64) {
        (self.at, self.sequence, self.synced) = (0, 0, true);
        self.generation = Some(generation);
        self.noted = self.begins_with.is_some();
        self.pending = Some(Vec::new());
        self.rests = self.rests.saturating_sub(1);
        if !std::mem::take(&mut self.cramped) || self.len >= LEN_MAX {
            return;
        }
        let longer = self.len * 2;
        match &self.file {
            Some(file) => match lengthen(file, self.len, longer) {
                Ok(()) => self.len = longer,
                // It serves as it is.
                Err(error) => tracing::debug!(%error, "the write-ahead log of the catalog stays short"),
            },
            None => self.len = longer,
        }
    }
}

/// Opens the file, and makes one that has at least that length where there is none. Gives the length that it has.
fn open(path: &Path, len: &mut u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let found = file.metadata()?.len();
    if found < *len {
        lengthen(&file, found, *len)?;
        sync_folder(path)?;
    }
    *len = found.clamp(*len, LEN_MAX.max(*len));
    Ok(file)
}

/// Writes zeroes, so that what is written there later has its blocks already.
pub(crate) fn lengthen(mut file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    file.seek(SeekFrom::Start(from))?;
    let mut left = to - from;
    while left > 0 {
        let part = left.min(ZEROES.len() as u64);
        file.write_all(&ZEROES[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}
