//! What is done with a file that is open for writing.
//!
//! These calls wait for nothing but the disk, and are made where the caller is; [`LocalFile::on_thread`] makes them on a
//! thread of the source. Offsets are given with each call: the descriptor has no place of its own.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::LocalFile;
use crate::local::asker;
use crate::local::attributes::Origin;
use crate::local::beneath::Failure;
use crate::local::held::Held;
use crate::{Metadata, Operation, Result};

/// Where bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    /// From this offset on.
    Offset(u64),
    /// From this offset on, as far as the file reaches.
    NoExtend(u64),
    /// At the end, wherever that is then.
    Append,
}

/// What has to be on the disk when a write returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durable {
    /// Nothing.
    #[default]
    Later,
    /// The bytes, and what is needed to find them.
    Data,
    /// Everything.
    All,
}

/// What is looked for in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next bytes that are not in a hole.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

impl LocalFile {
    /// Says that the file is open for writing. `seen` are its attributes.
    pub(in crate::local) fn for_writing(mut self, seen: &Metadata) -> Self {
        self.writes = true;
        self.identified = seen.identity.is_some();
        self
    }

    /// Tells whether it is open for writing.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Takes the file at hand, for its attributes.
    pub fn held(&self) -> Held {
        let origin = Origin {
            root_device: self.folder.root.device_seen(),
            inodes_last: self.identified,
        };
        Held::new(
            Arc::clone(self.file()),
            self.path.clone(),
            Arc::clone(&self.folder),
            origin,
        )
    }

    /// Makes calls on a thread of the source. The wait has no end of its own.
    ///
    /// # Errors
    /// `Unreachable` where too many calls to its file system have not come back.
    pub async fn on_thread<T: Send + 'static>(
        self: &Arc<Self>,
        operation: Operation,
        calls: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(self);
        match self.workers().run(move || calls(&file)).await {
            Ok(result) => result,
            Err(none) => Err(self.folder.no_result(operation, &self.path, none)),
        }
    }

    /// Writes, and says how many bytes; fewer than were given only if the rest failed (or does not lie within the file).
    /// `keep_privileges`: whoever asks may keep the file's set-user-ID and set-group-ID bits.
    pub fn write(&self, at: WriteAt, bytes: &[u8], durable: Durable, keep_privileges: bool) -> Result<usize> {
        let write = || self.write_all(at, bytes, durable);
        let written = if keep_privileges {
            write()
        } else {
            asker::dropping_privileges(write)
        };
        written.map_err(|errno| self.change_failed(Operation::Write, errno))
    }

    fn write_all(&self, at: WriteAt, bytes: &[u8], durable: Durable) -> std::result::Result<usize, Errno> {
        let mut flags = match durable {
            Durable::Later => ReadWriteFlags::empty(),
            Durable::Data => ReadWriteFlags::DSYNC,
            Durable::All => ReadWriteFlags::SYNC,
        };
        let (offset, bytes) = match at {
            WriteAt::Offset(offset) => (offset, bytes),
            WriteAt::NoExtend(offset) => {
                let size = u64::try_from(rustix::fs::fstat(self.file())?.st_size).unwrap_or(0);
                let room = size.saturating_sub(offset).min(bytes.len() as u64) as usize;
                (offset, &bytes[..room])
            }
            WriteAt::Append => {
                flags |= ReadWriteFlags::APPEND;
                (0, bytes)
            }
        };
        let mut written = 0;
        while written < bytes.len() {
            let rest = [IoSlice::new(&bytes[written..])];
            match rustix::io::pwritev2(self.file(), &rest, offset + written as u64, flags) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                // What was written counts; whoever asked finds out with the rest.
                Err(_) if written > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(written)
    }

    /// Waits until what was written is on the disk: the bytes, or everything.
    pub fn sync(&self, data_only: bool) -> Result<()> {
        let synced = if data_only {
            rustix::fs::fdatasync(self.file())
        } else {
            rustix::fs::fsync(self.file())
        };
        synced.map_err(|errno| self.change_failed(Operation::Sync, errno))
    }

    /// Has what is read next come from the disk, where the kernel has it in memory and the disk has it too.
    pub fn forget_pages(&self) -> Result<()> {
        rustix::fs::fadvise(self.file(), 0, None, Advice::DontNeed)
            .map_err(|errno| self.change_failed(Operation::Read, errno))
    }

    /// Changes the length.
    pub fn truncate(&self, size: u64, keep_privileges: bool) -> Result<()> {
        let truncate = || rustix::fs::ftruncate(self.file(), size);
        let truncated = if keep_privileges {
            truncate()
        } else {
            asker::dropping_privileges(truncate)
        };
        truncated.map_err(|errno| self.change_failed(Operation::Write, errno))
    }

    /// Makes room, or holes, in the way that `mode` says as `fallocate(2)` does.
    pub fn allocate(&self, mode: u32, offset: u64, length: u64, keep_privileges: bool) -> Result<()> {
        let allocate = || rustix::fs::fallocate(self.file(), FallocateFlags::from_bits_retain(mode), offset, length);
        let allocated = if keep_privileges {
            allocate()
        } else {
            asker::dropping_privileges(allocate)
        };
        allocated.map_err(|errno| self.change_failed(Operation::Write, errno))
    }

    /// Looks for data or a hole from an offset on; `BeyondEnd` where there is none.
    pub fn seek(&self, what: Seek, offset: u64) -> Result<u64> {
        let from = match what {
            Seek::Data => SeekFrom::Data(offset),
            Seek::Hole => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(self.file(), from).map_err(|errno| self.change_failed(Operation::Read, errno))
    }

    /// Copies bytes into another file of this machine, by sharing them where its file system can. Says how many.
    pub fn copy_to(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        length: u64,
        keep_privileges: bool,
    ) -> Result<u64> {
        let (mut from, mut to) = (offset, target_offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut copy =
            || rustix::fs::copy_file_range(self.file(), Some(&mut from), target.file(), Some(&mut to), length);
        let copied = if keep_privileges {
            copy()
        } else {
            asker::dropping_privileges(copy)
        };
        copied
            .map(|copied| copied as u64)
            .map_err(|errno| target.change_failed(Operation::Write, errno))
    }

    fn change_failed(&self, operation: Operation, errno: Errno) -> crate::Error {
        self.folder.error(operation, &self.path, Failure::Change(errno))
    }
}

impl AsFd for LocalFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file().as_fd()
    }
}
