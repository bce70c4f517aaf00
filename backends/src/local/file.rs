//! An open file of this machine: read where the reader is while that does not block, else on a thread of its source.

pub(super) mod writing;

use std::fs::File;
use std::io::IoSliceMut;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};

use super::beneath::Failure;
use super::workers::Workers;
use super::{Folder, Threads};
use crate::{ObjectPath, Operation, Result};

/// A file that is open. Dropping it closes it, without waiting for its file system.
#[derive(Debug)]
pub struct LocalFile {
    /// Taken only when it is dropped.
    file: Option<Arc<File>>,
    path: ObjectPath,
    folder: Arc<Folder>,
    threads: Arc<Threads>,
    may_hang: bool,
    writes: bool,
    /// Whether its inode number lasts.
    identified: bool,
}

impl LocalFile {
    pub(super) fn new(
        file: File,
        path: ObjectPath,
        folder: Arc<Folder>,
        threads: Arc<Threads>,
        may_hang: bool,
    ) -> Self {
        Self {
            file: Some(Arc::new(file)),
            path,
            folder,
            threads,
            may_hang,
            writes: false,
            identified: false,
        }
    }

    /// Gives the path beneath its source's root at which it was opened.
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// Tells whether its file system may hang, so that nothing but [`read`](Self::read) is to be done with it.
    pub fn may_hang(&self) -> bool {
        self.may_hang
    }

    /// Gives the file to somebody who reads it by himself; `None` where that may hang.
    pub fn shared(&self) -> Option<&Arc<File>> {
        (!self.may_hang).then(|| self.file())
    }

    /// Reads what can be had without waiting for a disk: up to `length` bytes, fewer only at the end of the file.
    /// `None` where that is not so; then [`read`](Self::read) does.
    ///
    /// # Errors
    /// The file system's own.
    pub fn read_now(&self, offset: u64, length: u32) -> Option<Result<Bytes>> {
        if self.may_hang {
            return None;
        }
        let read = |file: &File, bytes: &mut [u8], offset| {
            let buffers = &mut [IoSliceMut::new(bytes)];
            match rustix::io::preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT) {
                // A file system that cannot tell (overlayfs) is one that does not hang.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    rustix::io::pread(file, &mut buffers[0][..], offset)
                }
                result => result,
            }
        };
        match fill(self.file(), offset, length, read) {
            Err(Errno::AGAIN) => None,
            result => Some(result.map_err(|errno| self.failed(errno))),
        }
    }

    /// Reads up to `length` bytes, fewer only at the end of the file. The wait has no end of its own.
    ///
    /// # Errors
    /// The file system's own; `Unreachable` where too many calls to it have not come back.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes> {
        let file = Arc::clone(self.file());
        let calls = move || {
            fill(&file, offset, length, |file: &File, bytes: &mut [u8], offset| {
                rustix::io::pread(file, bytes, offset)
            })
        };
        match self.workers().run(calls).await {
            Ok(read) => read.map_err(|errno| self.failed(errno)),
            Err(none) => Err(self.folder.no_result(Operation::Read, &self.path, none)),
        }
    }

    fn file(&self) -> &Arc<File> {
        self.file.as_ref().expect("invariant: it is there until the end")
    }

    fn workers(&self) -> &Workers {
        self.threads.of(self.may_hang)
    }

    fn failed(&self, errno: Errno) -> crate::Error {
        self.folder.error(Operation::Read, &self.path, Failure::Object(errno))
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        // A FUSE file system is told of each close, and the caller waits for its answer.
        if self.may_hang
            && let Some(file) = self.file.take()
        {
            self.workers().close(file);
        }
    }
}

fn fill(
    file: &File,
    offset: u64,
    length: u32,
    read: impl Fn(&File, &mut [u8], u64) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Bytes, Errno> {
    // The file may be shorter than was asked for by far: no memory for what is not there.
    let size = rustix::fs::fstat(file)?.st_size;
    let there = u64::try_from(size).unwrap_or(0).saturating_sub(offset);
    let mut bytes = vec![0; there.min(u64::from(length)) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match read(file, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
