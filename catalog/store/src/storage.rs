//! The file beneath redb, with a hold on it: while it is held, everything written stays in memory.
//!
//! redb writes to its file as it opens it. We open files that may be damaged, or somebody else's, or on a disk that is
//! full; so a file is opened held, examined, and only then released, which writes down what gathered. A file that is
//! refused was never written to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use crate::reserve::Reserve;

const PAGE_BYTES: u64 = 4096;

/// A file, held at first.
#[derive(Clone, Debug)]
pub(crate) struct HeldFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// What is given up for what is written to a full disk; `None`: nothing.
    reserve: Option<Arc<Reserve>>,
    held: AtomicBool,
    overlay: Mutex<Overlay>,
}

/// What was written while the file was held: whole pages over those of the file, and the length it has now.
#[derive(Debug)]
struct Overlay {
    len: u64,
    /// From here on the file's own bytes do not count: it was cut there once, and grew again.
    file_end: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl HeldFile {
    pub(crate) fn new(file: File, reserve: Option<&Arc<Reserve>>) -> Result<Self, DatabaseError> {
        let len = file.metadata()?.len();
        let overlay = Overlay {
            len,
            file_end: len,
            pages: BTreeMap::new(),
        };
        let file = FileBackend::new(file)?;
        Ok(Self(Arc::new(Inner {
            file,
            reserve: reserve.map(Arc::clone),
            held: AtomicBool::new(true),
            overlay: Mutex::new(overlay),
        })))
    }

    /// Writes down what gathered, and lets everything through from now on. On failure the file stays held, and may be
    /// released again later.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut overlay = self.0.overlay.lock();
        if !self.0.held.load(Ordering::Acquire) {
            return Ok(());
        }
        if overlay.file_end < self.0.file.len()? {
            self.0.file.set_len(overlay.file_end)?;
        }
        if overlay.len != self.0.file.len()? {
            self.0.file.set_len(overlay.len)?;
        }
        for (index, page) in &overlay.pages {
            let offset = index * PAGE_BYTES;
            let len = overlay.len.saturating_sub(offset).min(PAGE_BYTES) as usize;
            self.0.write(offset, &page[..len])?;
        }
        self.0.file.sync_data()?;
        overlay.pages.clear();
        self.0.held.store(false, Ordering::Release);
        Ok(())
    }

    fn overlay(&self) -> Option<parking_lot::MutexGuard<'_, Overlay>> {
        if !self.0.held.load(Ordering::Acquire) {
            return None;
        }
        let overlay = self.0.overlay.lock();
        // It may have been released while we waited.
        self.0.held.load(Ordering::Acquire).then_some(overlay)
    }
}

impl Inner {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = || self.file.write(offset, bytes);
        match &self.reserve {
            Some(reserve) => reserve.lend(bytes.len() as u64, write),
            None => write(),
        }
    }
}

impl Overlay {
    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let from_file = self.file_end.clamp(offset, end) - offset;
        let (real, beyond) = out.split_at_mut(from_file as usize);
        if !real.is_empty() {
            file.read(offset, real)?;
        }
        beyond.fill(0);
        for (index, page) in self.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = index * PAGE_BYTES;
            let (from, to) = (start.max(offset), (start + PAGE_BYTES).min(end));
            let source = &page[(from - start) as usize..(to - start) as usize];
            out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    }

    fn write(&mut self, file: &FileBackend, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.len = self.len.max(end);
        for index in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let start = index * PAGE_BYTES;
            if !self.pages.contains_key(&index) {
                let mut page = vec![0; PAGE_BYTES as usize];
                let len = self.len.saturating_sub(start).min(PAGE_BYTES) as usize;
                self.read(file, start, &mut page[..len])?;
                self.pages.insert(index, page.into());
            }
            let page = self
                .pages
                .get_mut(&index)
                .expect("invariant: the page was just put there");
            let (from, to) = (start.max(offset), (start + PAGE_BYTES).min(end));
            let source = &bytes[(from - offset) as usize..(to - offset) as usize];
            page[(from - start) as usize..(to - start) as usize].copy_from_slice(source);
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.file_end = self.file_end.min(len);
            self.pages.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(page) = self.pages.get_mut(&(len / PAGE_BYTES)) {
                page[(len % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.len = len;
    }
}

impl StorageBackend for HeldFile {
    fn len(&self) -> io::Result<u64> {
        match self.overlay() {
            Some(overlay) => Ok(overlay.len),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.overlay() {
            Some(overlay) => overlay.read(&self.0.file, offset, out),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.overlay() {
            Some(mut overlay) => {
                overlay.set_len(len);
                Ok(())
            }
            None => self.0.file.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.overlay() {
            Some(_) => Ok(()),
            None => self.0.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.overlay() {
            Some(mut overlay) => overlay.write(&self.0.file, offset, data),
            None => self.0.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Cut(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..20_000u64, proptest::collection::vec(any::<u8>(), 1..9_000)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            1 => (0..24_000u64).prop_map(Step::Cut),
        ]
    }

    proptest! {
        #[test]
        fn a_held_file_reads_like_a_written_one_and_becomes_it_on_release(
            before in proptest::collection::vec(any::<u8>(), 0..12_000),
            steps in proptest::collection::vec(step(), 0..12),
        ) {
            let scratch = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(scratch.path(), &before).unwrap();
            let open = || File::options().read(true).write(true).open(scratch.path()).unwrap();
            let held = HeldFile::new(open(), None).unwrap();
            let mut model = before.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        let end = at as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                        held.write(at, &bytes).unwrap();
                    }
                    Step::Cut(len) => {
                        model.resize(len as usize, 0);
                        held.set_len(len).unwrap();
                    }
                }
                let mut seen = vec![0; model.len()];
                prop_assert_eq!(held.len().unwrap(), model.len() as u64);
                held.read(0, &mut seen).unwrap();
                prop_assert_eq!(&seen, &model);
            }
            prop_assert!(held.read(model.len() as u64, &mut [0]).is_err());
            prop_assert_eq!(std::fs::read(scratch.path()).unwrap(), before);
            held.release().unwrap();
            prop_assert_eq!(std::fs::read(scratch.path()).unwrap(), model);
        }
    }
}
