//! One staged file: what was written to it lies here, the rest shows through from the object that it was
//! made from.
//!
//! Always true:
//! - a byte counts as written only after it was: the extents grow behind the data;
//! - bytes that the extents do not name are never read, so that what was cut off needs no erasing before
//!   the row says so;
//! - what an upload reads is the file as it was when the upload began, or an error.

mod ahead;
mod area;
mod base;
mod data;
mod sending;
mod tally;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use manifold_catalog::EntryId;
use parking_lot::Mutex;

use super::Durability;
use super::extents::Extents;
use super::row::{Base, EXTENTS_MAX, Renamed, Row};
use crate::Error;
use crate::error::Cause;

pub(crate) use area::Area;
use area::open_data;
pub(crate) use data::Data;
use sending::Attempt;
pub(crate) use sending::{Reading, Sending, Sent};
pub(crate) use tally::Tally;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this offset.
    At(u64),
    /// Behind what is there.
    End,
}

/// Why nothing was written.
#[derive(Debug)]
pub(crate) enum Refused {
    /// So many bytes would have to be free first.
    NoRoom(u64),
    /// The source has the file by now, and it is staged no more: it is to be staged anew.
    Retired,
    /// The source may have what would be changed: that is to be [recorded](StagedFile::record) first.
    Unrecorded,
    /// It failed.
    Failed(Error),
}

/// What a read could not take from here: parts of the base, each by its place in the file.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) base: Base,
    pub(crate) ranges: Vec<Range<u64>>,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
}

/// A staged file.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) id: EntryId,
    area: Arc<Area>,
    /// Held while the row is being brought up to date, so that no older row replaces a newer one, and while the file is
    /// retired. Taken before `state`; never on a thread of the runtime.
    syncing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, in any mixture")]
struct State {
    /// Names the data file, or what lies elsewhere; 0: there is neither.
    number: u64,
    /// Data files that the durable row may still name.
    former: Vec<u64>,
    data: Data,
    /// Whether the durable row names the very data file that is written to.
    is_named: bool,
    users: u64,
    extents: Extents,
    size: u64,
    modified_ns: i64,
    base: Option<Base>,
    expected: Option<Box<[u8]>>,
    /// Where the source was asked to rename it to.
    renamed: Option<Renamed>,
    /// Counts the changes of the bytes.
    generation: u64,
    /// Counts the changes of what stands in the row.
    stamp: u64,
    /// The stamp of the row that is durable.
    durable: Option<u64>,
    /// The generation of the bytes that it tells of.
    synced: Option<u64>,
    folder_synced: bool,
    /// How many bytes were written since they were last brought to the disk.
    loose: u64,
    /// Whether that is about to be done, ahead of whoever will ask for it.
    is_synced_ahead: bool,
    /// Uploads that were begun and neither confirmed nor certainly without effect.
    attempts: Vec<Attempt>,
    /// Whether an upload may have been begun before the start, of which nothing is known.
    was_sent: bool,
    /// Whether it was tried to find that out.
    was_asked: bool,
    /// Whether it was tried to take over what shows through.
    was_completed: bool,
    retired: bool,
    /// Retired, and everybody was told where to read from now on.
    concluded: bool,
    /// Unlinked: nobody will ever ask for it again by name.
    orphan: bool,
    /// Why it can be neither read nor written any more.
    broken: Option<String>,
}

/// Keeps a staged file's data open.
#[derive(Debug)]
pub(crate) struct InUse(Arc<StagedFile>);

impl InUse {
    pub(crate) fn file(&self) -> &Arc<StagedFile> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.users -= 1;
        state.settle();
    }
}

impl StagedFile {
    /// Takes up what a row tells of, if its data is there.
    pub(crate) fn recover(id: EntryId, area: &Arc<Area>, row: Row) -> Result<Arc<Self>, String> {
        let data = match row.beside {
            Some(crc) => Data::Beside(crc),
            None => Data::File(None),
        };
        if row.beside.is_none() {
            let path = area.data_path(row.number);
            let about = open_data(&path, false).and_then(|file| file.metadata());
            match about {
                Ok(about) if about.len() >= row.extents.end() => {}
                Ok(_) => return Err(format!("{} is shorter than what was written to it", path.display())),
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        area.room.take_over(row.extents.total());
        let is_named = row.beside.is_none();
        let staged = Self::of(id, area, row, data);
        {
            let mut state = staged.state.lock();
            state.durable = Some(state.stamp);
            state.synced = Some(state.generation);
            state.folder_synced = true;
            state.is_named = is_named;
            // Whether an upload was under way when it ended, nobody knows.
            state.was_sent = true;
            state.was_asked = false;
        }
        Ok(Arc::new(staged))
    }

    /// Stands for a row of which nothing can be made: whatever is asked of it fails, and it is kept.
    pub(crate) fn broken(id: EntryId, area: &Arc<Area>, size: u64, why: String) -> Arc<Self> {
        let row = Row {
            number: 0,
            size,
            modified_ns: 0,
            base: None,
            expected: None,
            renamed: None,
            draft: false,
            unconfirmed: Vec::new(),
            beside: None,
            extents: Extents::default(),
        };
        let staged = Self::of(id, area, row, Data::File(None));
        {
            let mut state = staged.state.lock();
            state.broken = Some(why);
            state.durable = Some(state.stamp);
        }
        Arc::new(staged)
    }

    /// Makes a file of its row, with the place of its bytes.
    pub(crate) fn of(id: EntryId, area: &Arc<Area>, row: Row, data: Data) -> Self {
        let attempts = Attempt::recover(&row.unconfirmed);
        Self {
            id,
            area: Arc::clone(area),
            syncing: Mutex::new(()),
            state: Mutex::new(State {
                number: row.number,
                former: Vec::new(),
                data,
                is_named: false,
                users: 0,
                extents: row.extents,
                size: row.size,
                modified_ns: row.modified_ns,
                base: row.base,
                expected: row.expected,
                renamed: row.renamed,
                generation: attempts.len() as u64 + 1,
                stamp: 1,
                durable: None,
                synced: None,
                folder_synced: false,
                loose: 0,
                is_synced_ahead: false,
                attempts,
                was_sent: false,
                was_completed: false,
                was_asked: true,
                retired: false,
                concluded: false,
                orphan: false,
                broken: None,
            }),
        }
    }

    /// Keeps the bytes at hand until what is given is dropped.
    pub(crate) fn use_it(self: &Arc<Self>) -> Result<InUse, Error> {
        let mut state = self.state.lock();
        self.open(&mut state)?;
        state.users += 1;
        Ok(InUse(Arc::clone(self)))
    }

    /// Writes bytes. Where the answer is good, they are read by everybody from now on.
    pub(crate) fn write(&self, place: Place, bytes: &[u8], now_ns: i64) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.retired {
            return Err(Refused::Retired);
        }
        self.open(&mut state).map_err(Refused::Failed)?;
        let start = match place {
            Place::At(start) => start,
            Place::End => state.size,
        };
        let end = start
            .checked_add(bytes.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok());
        let range = start..end.ok_or(Refused::Failed(Error::InvalidArgument))?;
        if range.is_empty() {
            return Ok(());
        }
        if state.is_to_be_recorded() {
            return Err(Refused::Unrecorded);
        }
        let missing = state.extents.missing(&range);
        if missing > 0 && state.extents.iter().len() >= EXTENTS_MAX {
            tracing::warn!(
                id = self.id.0,
                "a staged file is in too many pieces; close it, and it is uploaded and whole again"
            );
            return Err(Refused::Failed(Error::Full));
        }
        if missing > 0 {
            self.area.durability.room().map_err(Refused::Failed)?;
        }
        if !self.area.room.take(missing) {
            return Err(Refused::NoRoom(missing));
        }
        // Before the bytes: whoever reads the old generation notices that it may have read new bytes.
        state.generation += 1;
        if let Err(error) = self.put(&mut state, start, bytes) {
            self.area.room.give_back(missing);
            return Err(Refused::Failed(error));
        }
        state.extents.insert(range.clone());
        state.loose += bytes.len() as u64;
        state.size = state.size.max(range.end);
        state.modified_ns = now_ns;
        state.stays();
        state.stamp += 1;
        state.settle();
        Ok(())
    }

    /// Cuts the file off, or lengthens it by zeroes.
    pub(crate) fn truncate(&self, size: u64, now_ns: i64) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.retired {
            return Err(Refused::Retired);
        }
        state.check().map_err(Refused::Failed)?;
        if i64::try_from(size).is_err() {
            return Err(Refused::Failed(Error::InvalidArgument));
        }
        if size == 0 && matches!(state.data, Data::File(_)) && state.durable.is_some() && state.extents.total() > 0 {
            // What is written from now on must not mix with what the durable row names, should a crash come.
            let (number, data) = self.area.fresh().map_err(Refused::Failed)?;
            let former = std::mem::replace(&mut state.number, number);
            state.former.push(former);
            state.folder_synced = false;
            state.is_named = false;
            state.data = data;
        } else if state.is_to_be_recorded() {
            return Err(Refused::Unrecorded);
        }
        state.generation += 1;
        state.stays();
        state.stamp += 1;
        state.modified_ns = now_ns;
        let before = state.extents.total();
        state.extents.truncate(size);
        self.area.room.give_back(before - state.extents.total());
        let end = state.extents.end();
        if let Data::Held(held) = &mut state.data {
            held.truncate(end);
        }
        if let Some(base) = &mut state.base {
            base.shows = base.shows.min(size);
        }
        for attempt in &mut state.attempts {
            attempt.least = attempt.least.min(size);
        }
        state.size = size;
        state.settle();
        Ok(())
    }

    /// Sets the time of the last change.
    pub(crate) fn set_modified(&self, modified_ns: i64) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.retired {
            return Err(Refused::Retired);
        }
        state.modified_ns = modified_ns;
        state.stamp += 1;
        Ok(())
    }

    /// Fills a buffer from an offset on, as far as the file goes, and as far as its bytes are here. Gives the number of bytes
    /// that the file has there, and what of them is to be taken from the base.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(usize, Option<Rest>), Error> {
        let mut state = self.state.lock();
        self.read_locked(&mut state, offset, buffer)
    }

    fn read_locked(&self, state: &mut State, offset: u64, buffer: &mut [u8]) -> Result<(usize, Option<Rest>), Error> {
        self.open(state)?;
        let end = offset.saturating_add(buffer.len() as u64).min(state.size);
        if offset >= end {
            return Ok((0, None));
        }
        let shows = state.base.as_ref().map_or(0, |base| base.shows);
        let mut ranges = Vec::new();
        for (piece, written) in state.extents.pieces(&(offset..end)) {
            let part = &mut buffer[(piece.start - offset) as usize..(piece.end - offset) as usize];
            if written {
                state.data.read(piece.start, part)?;
                continue;
            }
            part.fill(0);
            if piece.start < shows {
                ranges.push(piece.start..piece.end.min(shows));
            }
        }
        let rest = state.base.clone().filter(|_| !ranges.is_empty());
        state.settle();
        Ok(((end - offset) as usize, rest.map(|base| Rest { base, ranges })))
    }

    /// Makes everything that was written so far survive a crash: first the bytes, then the row that tells of them. Blocks the
    /// thread.
    pub(crate) fn sync(&self, durability: &dyn Durability, folder: &File) -> Result<(), Error> {
        let _one_at_a_time = self.syncing.lock();
        self.sync_locked(durability, folder)
    }

    fn sync_locked(&self, durability: &dyn Durability, folder: &File) -> Result<(), Error> {
        let (row, told, stamp, generation, bytes, data, folder_synced, former) = {
            let mut state = self.state.lock();
            if state.retired || state.orphan || state.durable == Some(state.stamp) {
                return state.check();
            }
            self.open(&mut state)?;
            state.loose = 0;
            let data = match &state.data {
                Data::File(data) => data.clone(),
                Data::Held(_) | Data::Beside(_) => None,
            };
            (
                row(&state),
                state.told(),
                state.stamp,
                state.generation,
                state.beside().map(<[u8]>::to_vec),
                data,
                state.folder_synced,
                state.former.len(),
            )
        };
        if let Some(data) = &data {
            if let Err(error) = durability.data(row.number, data) {
                self.is_lost(&error);
                return Err(failed(&error));
            }
            if !folder_synced {
                self.area.sync_names(folder)?;
            }
        }
        durability.row(self.id, &row, bytes.as_deref())?;
        let mut state = self.state.lock();
        state.durable = Some(stamp);
        state.synced = Some(generation);
        state.note_recorded(&told);
        self.area.doomed.lock().extend(state.former.drain(..former));
        let data = data.filter(|_| state.number == row.number);
        state.is_named = data.is_some();
        state.folder_synced |= data.is_some();
        // No row names these bytes any more.
        let end = row.extents.end().max(state.extents.end());
        if let Some(data) = &data
            && data.metadata().is_ok_and(|about| about.len() > end)
            && let Err(error) = data.set_len(end)
        {
            tracing::debug!(id = self.id.0, %error, "what was cut off a staged file keeps its place on the disk");
        }
        state.settle();
        Ok(())
    }

    /// Takes note that bytes did not reach the disk: the kernel may have dropped them, and would say yes the next time.
    fn is_lost(&self, error: &io::Error) {
        let why = format!("what was written could not be brought to the disk: {error}");
        self.state.lock().broken = Some(why);
    }

    /// Unlinks the file: it lives until the last who uses it has let go of it. To be called before its row goes.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        if matches!(state.data, Data::Beside(_))
            && let Err(error) = self.open(&mut state)
        {
            tracing::debug!(id = self.id.0, %error, "a removed file cannot be read on by those who have it open");
        }
        state.orphan = true;
    }

    pub(crate) fn look(&self) -> Look {
        let state = self.state.lock();
        Look {
            size: state.size,
            modified_ns: state.modified_ns,
        }
    }

    /// Says when its bytes were changed last, by the clock of the disk on which they lie: whoever writes cannot put that back. Of a
    /// short file it is what `look` tells.
    pub(crate) fn written_ns(&self) -> i64 {
        let (number, modified_ns) = {
            let state = self.state.lock();
            let has_file = matches!(state.data, Data::File(_));
            (Some(state.number).filter(|_| has_file), state.modified_ns)
        };
        let data = number.and_then(|number| std::fs::metadata(self.area.data_path(number)).ok());
        data.map_or(modified_ns, |data| data.mtime() * 1_000_000_000 + data.mtime_nsec())
    }

    /// Gives the version that shows through, where one does.
    pub(crate) fn shows_through(&self) -> Option<Box<[u8]>> {
        self.state.lock().base.as_ref().map(|base| base.version.clone())
    }

    /// Gives the object that shows through, where one does.
    pub(crate) fn base(&self) -> Option<Base> {
        self.state.lock().base.clone()
    }

    /// Gives the version that the source has to have under the file's name; `None`: nothing may be there.
    pub(crate) fn expected(&self) -> Option<Box<[u8]>> {
        self.state.lock().expected.clone()
    }

    /// Says why the file can be neither read nor written, if that is so.
    pub(crate) fn is_broken(&self) -> Option<String> {
        self.state.lock().broken.clone()
    }

    /// Tells whether the source has the file, and those who have it open read it from there.
    pub(crate) fn is_concluded(&self) -> bool {
        self.state.lock().concluded
    }

    /// Tells whether something was written that no row tells of.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.state.lock();
        !state.retired && !state.orphan && state.broken.is_none() && state.durable != Some(state.stamp)
    }

    /// Has it keep its name, whatever its source has made of that.
    pub(crate) fn keep_name(&self) {
        self.state.lock().stays();
    }

    pub(crate) fn is_orphan(&self) -> bool {
        self.state.lock().orphan
    }

    /// Tells whether bytes were written of which nothing is acknowledged yet.
    pub(crate) fn has_unsynced_bytes(&self) -> bool {
        let state = self.state.lock();
        state.synced != Some(state.generation)
    }

    /// Counts the bytes that were written.
    pub(crate) fn written(&self) -> u64 {
        self.state.lock().extents.total()
    }

    /// Tells whether there is a durable row of the file.
    pub(crate) fn is_recorded(&self) -> bool {
        self.state.lock().durable.is_some()
    }

    /// Dooms all data files.
    fn doom(&self, state: &mut State) {
        let has_file = matches!(state.data, Data::File(_)) && state.number != 0;
        let numbers = state.former.drain(..).chain(has_file.then_some(state.number));
        self.area.doomed.lock().extend(numbers);
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Error::Io(Cause::new(why.clone()))),
        }
    }

    /// Whoever writes now has found the file under its own name.
    fn stays(&mut self) {
        if let Some(renamed) = &mut self.renamed {
            renamed.stays = true;
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.orphan && !state.retired {
            self.area.room.give_back(state.extents.total());
            self.doom(&mut state);
        }
    }
}

fn row(state: &State) -> Row {
    Row {
        number: state.number,
        size: state.size,
        modified_ns: state.modified_ns,
        base: state.base.clone(),
        expected: state.expected.clone(),
        renamed: state.renamed.clone(),
        draft: false,
        unconfirmed: state.unconfirmed(),
        beside: match &state.data {
            Data::Beside(crc) => Some(*crc),
            Data::File(_) | Data::Held(_) => state.beside().map(crc32c::crc32c),
        },
        extents: state.extents.clone(),
    }
}

pub(crate) fn failed(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => Error::Full,
        io::ErrorKind::QuotaExceeded => Error::Quota,
        _ => Error::Io(Cause::new(format!("the staging area failed: {error}"))),
    }
}
