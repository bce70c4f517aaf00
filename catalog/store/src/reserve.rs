//! Room on the disk that the catalog keeps for itself, in a file that holds nothing: so that what ends something can be written on
//! a full disk too. A row of the journal is taken away when its upload has settled, a name is removed, what stands in the write-ahead
//! log is brought into the database; all of that makes room, and needs some first.
//!
//! Always true:
//! - it is given up bit by bit, and only to a write that the disk has refused;
//! - it is had again before anything new is begun, so that there is enough of it for all that has been begun.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::is_full;

/// What is given up, and set aside, at once, in bytes.
const STEP: u64 = 256 << 10;

/// The reserve of one open catalog.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// How much it is; 0: there is none.
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    /// How much is there.
    held: u64,
    /// Whether the file system sets nothing aside.
    is_unable: bool,
}

impl Reserve {
    /// Takes up what is there of the reserve of a catalog, which is to have so many bytes.
    pub(crate) fn beside(catalog: &Path, bytes: u64) -> Self {
        let mut path = catalog.as_os_str().to_owned();
        path.push("-reserve");
        let reserve = Self {
            path: path.into(),
            bytes,
            state: Mutex::default(),
        };
        if bytes > 0 {
            let mut options = OpenOptions::new();
            let found = options.read(true).write(true).open(&reserve.path);
            // What is not there is made when it is asked for.
            if let Ok(file) = found {
                let mut state = reserve.state.lock();
                state.held = occupied(&file);
                state.file = Some(file);
            }
        }
        reserve
    }

    /// Makes sure that all of it is there, and so many bytes more. False where the disk has no room for that.
    pub(crate) fn fill(&self, more: u64) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let mut state = self.state.lock();
        let wanted = (self.bytes + more).next_multiple_of(STEP);
        if state.is_unable || state.held >= wanted {
            return true;
        }
        match state.grow(&self.path, wanted) {
            Ok(()) => true,
            Err(error) if is_full(&error) => false,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the catalog keeps no room for itself on its disk");
                state.is_unable = true;
                true
            }
        }
    }

    /// Gives back what is there beyond what it is to have.
    pub(crate) fn trim(&self) {
        let mut state = self.state.lock();
        let bytes = self.bytes.next_multiple_of(STEP);
        if state.held > bytes {
            state.cut(bytes);
        }
    }

    /// Writes so many bytes; where the disk is full, gives up room for that until it succeeds or none is left.
    pub(crate) fn lend(&self, bytes: u64, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            match write() {
                Err(error) if is_out_of_room(&error) && self.spend(bytes) => {}
                done => return done,
            }
        }
    }

    fn spend(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        if state.held == 0 {
            return false;
        }
        let less = bytes.max(1).next_multiple_of(STEP);
        let left = state.held.saturating_sub(less);
        state.cut(left)
    }
}

impl State {
    fn grow(&mut self, path: &Path, wanted: u64) -> io::Result<()> {
        let file = if let Some(file) = &self.file {
            file
        } else {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            self.file.insert(options.open(path)?)
        };
        if !may_have(file, wanted - self.held) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let done = set_aside(file, wanted);
        if done.is_ok() {
            self.held = wanted;
        } else {
            // A part of it may have been had.
            self.cut(self.held);
        }
        done
    }

    fn cut(&mut self, left: u64) -> bool {
        let cut = self.file.as_ref().is_some_and(|file| file.set_len(left).is_ok());
        if cut {
            self.held = left;
        }
        cut
    }
}

/// Tells whether more room on the disk is what a write lacks.
fn is_out_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives how much of the disk a file has from its beginning on, as far as can be told: a copy of it may have holes.
#[cfg(unix)]
fn occupied(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map_or(0, |about| about.len().min(about.blocks() * 512))
}

#[cfg(not(unix))]
fn occupied(file: &File) -> u64 {
    file.metadata().map_or(0, |about| about.len())
}

/// Tells whether the disk may have so many bytes more; asked first, since a disk takes long to find out that it has not. Some file
/// systems do not tell, which count no blocks at all.
#[cfg(unix)]
fn may_have(file: &File, bytes: u64) -> bool {
    let for_everybody = !rustix::process::geteuid().is_root();
    rustix::fs::fstatvfs(file).is_ok_and(|disk| {
        let free = if for_everybody { disk.f_bavail } else { disk.f_bfree };
        disk.f_blocks == 0 || free.saturating_mul(disk.f_frsize) >= bytes
    })
}

#[cfg(not(unix))]
fn may_have(_file: &File, _bytes: u64) -> bool {
    true
}

/// Makes a file so long, with room on the disk for all of it.
fn set_aside(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    super::store::lengthen(file, 0, bytes)
}
