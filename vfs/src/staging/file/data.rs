//! Where the bytes of a staged file lie: those of a short one in memory until its row is durable, and beside that row in
//! the catalog from then on; those of a longer one in a data file.
//!
//! Always true:
//! - what lies beside a row is never changed: the bytes are changed in memory, and go there with the next row;
//! - of all files together no more than [`HELD_MAX`] bytes are written into memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Area, StagedFile, State, failed, open_data};
use crate::Error;
use crate::error::Cause;

/// The most bytes that are in memory when one more is written there; then a data file is made.
const HELD_MAX: u64 = 32 << 20;
/// While more bytes than that are staged, what is written goes into data files: the catalog's file is not to grow with all that
/// gathers while a source is away.
const BESIDE_MAX: u64 = 512 << 20;

/// The bytes of a staged file, at their natural offsets.
#[derive(Debug)]
pub(crate) enum Data {
    /// In the data file that the state names; open while somebody uses it.
    File(Option<Arc<File>>),
    /// In memory, at least as far as the last extent goes.
    Held(Held),
    /// Beside the durable row, with this CRC32C.
    Beside(u32),
}

/// Bytes in memory, which are counted.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    area: Arc<Area>,
}

impl Held {
    fn new(area: &Arc<Area>, bytes: Vec<u8>) -> Self {
        area.held.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let area = Arc::clone(area);
        Self { bytes, area }
    }

    /// Makes sure that there are so many bytes, unless too many are in memory already.
    fn grow(&mut self, length: u64) -> bool {
        let more = length.saturating_sub(self.bytes.len() as u64);
        if more > 0 {
            if self.area.held.load(Ordering::Relaxed) + more > HELD_MAX {
                return false;
            }
            self.area.held.fetch_add(more, Ordering::Relaxed);
            self.bytes.resize(length as usize, 0);
        }
        true
    }

    pub(super) fn truncate(&mut self, length: u64) {
        let less = (self.bytes.len() as u64).saturating_sub(length);
        self.bytes.truncate(length as usize);
        self.area.held.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

impl Area {
    /// Gives a number and a place for the bytes of a file of which nothing is written yet.
    pub(in crate::staging) fn fresh(self: &Arc<Self>) -> Result<(u64, Data), Error> {
        if self.small > 0 {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            return Ok((number, Data::Held(Held::new(self, Vec::new()))));
        }
        let (number, file) = self.create()?;
        Ok((number, Data::File(Some(Arc::new(file)))))
    }

    /// Writes to a data file. Where the disk is full, what matters less makes way.
    fn write(&self, file: &File, bytes: &[u8], start: u64) -> Result<(), Error> {
        self.with_room(bytes.len() as u64, || file.write_all_at(bytes, start))
    }
}

impl Data {
    /// Fills a part of a buffer from an offset on, all of which was written.
    pub(super) fn read(&self, start: u64, part: &mut [u8]) -> Result<(), Error> {
        let from = start as usize;
        match self {
            Self::File(Some(file)) => file.read_exact_at(part, start).map_err(|error| failed(&error)),
            Self::Held(held) if held.bytes.len() >= from + part.len() => {
                part.copy_from_slice(&held.bytes[from..from + part.len()]);
                Ok(())
            }
            _ => Err(Error::Io(Cause::new("what was written cannot be read"))),
        }
    }
}

impl State {
    /// Gives the bytes that go beside the row, as far as they were written.
    pub(super) fn beside(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Held(held) => Some(&held.bytes[..self.extents.end() as usize]),
            Data::File(_) | Data::Beside(_) => None,
        }
    }

    /// Lets go of what nobody uses, and what can be had again.
    pub(super) fn settle(&mut self) {
        if self.users > 0 {
            return;
        }
        let is_beside = self.durable == Some(self.stamp) && !self.retired && !self.orphan;
        match (&self.data, self.beside()) {
            (Data::File(_), _) => self.data = Data::File(None),
            (Data::Held(_), Some(bytes)) if is_beside => self.data = Data::Beside(crc32c::crc32c(bytes)),
            _ => {}
        }
    }
}

impl StagedFile {
    /// Has the bytes at hand until the state is [settled](State::settle).
    pub(super) fn open(&self, state: &mut State) -> Result<(), Error> {
        state.check()?;
        match state.data {
            Data::File(Some(_)) | Data::Held(_) => {}
            Data::File(None) => {
                let file = open_data(&self.area.data_path(state.number), false).map_err(|error| failed(&error))?;
                state.data = Data::File(Some(Arc::new(file)));
            }
            Data::Beside(crc) => {
                let bytes = if state.extents.end() == 0 {
                    Vec::new()
                } else {
                    let bytes = self.area.durability.bytes(self.id)?.unwrap_or_default();
                    if (bytes.len() as u64) < state.extents.end() || crc32c::crc32c(&bytes) != crc {
                        state.broken = Some("what lies beside its row is not what was written".to_owned());
                        return state.check();
                    }
                    bytes
                };
                state.data = Data::Held(Held::new(&self.area, bytes));
            }
        }
        Ok(())
    }

    /// Puts bytes where they belong, after they were [opened](Self::open).
    pub(super) fn put(&self, state: &mut State, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = start + bytes.len() as u64;
        if let Data::Held(held) = &mut state.data {
            let is_short = end <= self.area.small && self.area.room.used() <= BESIDE_MAX;
            if is_short && held.grow(end) {
                held.bytes[start as usize..end as usize].copy_from_slice(bytes);
                return Ok(());
            }
            self.spill(state)?;
        }
        let Data::File(Some(file)) = &state.data else {
            return Err(Error::Io(Cause::new("what was written cannot be opened")));
        };
        self.area.write(file, bytes, start)
    }

    /// Makes a data file of what is in memory. The durable row knows nothing of it.
    fn spill(&self, state: &mut State) -> Result<(), Error> {
        let (number, file) = self.area.create()?;
        if let Err(error) = self.area.write(&file, state.beside().unwrap_or_default(), 0) {
            self.area.doomed.lock().push(number);
            return Err(error);
        }
        state.loose += state.extents.end();
        state.number = number;
        state.folder_synced = false;
        state.is_named = false;
        state.data = Data::File(Some(Arc::new(file)));
        Ok(())
    }
}
