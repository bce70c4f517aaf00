//! What all staged files share: the folder of the data files, and how much there may be.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::failed;
use crate::Error;
use crate::error::Cause;
use crate::staging::Durability;
use crate::staging::room::Room;

/// The folder that the data files lie in, and what they share.
pub(crate) struct Area {
    pub(crate) folder: PathBuf,
    pub(crate) durability: Arc<dyn Durability>,
    pub(crate) room: Room,
    /// How far the extents of a file without a data file may go, in bytes; 0: all have one.
    pub(crate) small: u64,
    /// How many bytes are in memory.
    pub(crate) held: AtomicU64,
    /// The number of the next data file.
    pub(crate) next: AtomicU64,
    /// Numbers of data files that no row names any more, though perhaps not durably yet.
    pub(crate) doomed: Mutex<Vec<u64>>,
    /// Why the names of data files may not be on the disk, if they once could not be brought there.
    pub(crate) names_lost: Mutex<Option<String>>,
}

impl std::fmt::Debug for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Area")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Area {
    pub(crate) fn data_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.data"))
    }

    /// Makes an empty data file.
    pub(super) fn create(&self) -> Result<(u64, File), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = self.with_room(0, || open_data(&self.data_path(number), true))?;
        Ok((number, file))
    }

    /// Brings the names of the data files to the disk. Once that has failed, it fails until the area is opened anew: a kernel tells of it
    /// once, and would say yes the next time.
    pub(super) fn sync_names(&self, folder: &File) -> Result<(), Error> {
        // One at a time, so that nobody is told yes beside one who is told of a failure.
        let mut lost = self.names_lost.lock();
        if let Some(why) = &*lost {
            return Err(Error::Io(Cause::new(why.clone())));
        }
        self.durability.folder(folder).map_err(|error| {
            let told = failed(&error);
            if !matches!(told, Error::Full | Error::Quota) {
                *lost = Some(format!(
                    "the names of staged files could not be brought to the disk: {error}"
                ));
            }
            told
        })
    }

    /// Does something that takes so many bytes of the disk; once more, if that is full and something makes way.
    pub(super) fn with_room<T>(&self, bytes: u64, act: impl Fn() -> io::Result<T>) -> Result<T, Error> {
        let done = act().map_err(|error| failed(&error));
        match done {
            Err(Error::Full | Error::Quota) if self.durability.make_way(bytes) => act().map_err(|error| failed(&error)),
            done => done,
        }
    }
}

pub(super) fn open_data(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(create).mode(0o600);
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
}
