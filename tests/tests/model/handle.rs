//! An open file of the mount, and what it may be bound to.
//!
//! Always true: of the versions that a handle may be bound to, each read leaves those that agree with it; once none is left,
//! the handle has mixed two, or read another one than it opened.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::bytes::describe;
use crate::ground::Kind;
use crate::source::{Judged, Source, Wrong};
use crate::truth::{Path, State};

/// An open file.
pub(crate) struct Held {
    file: File,
    pub(crate) path: Path,
    /// What it may be bound to.
    may_be: Vec<State>,
    /// When everything had been seen before it was opened: what was touched since may be another version.
    floor: u64,
    /// Whether the source may have told another version than it had.
    may_be_mistaken: bool,
    /// Whether the kernel reads it from the disk by itself.
    passthrough: bool,
}

/// What reading a range came to.
pub(crate) struct Piece {
    /// What was read before the end or the error.
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: Option<io::Error>,
}

/// Reads a range, in as many reads as it takes: a read that breaks off gives what it has, and the next one tells why.
pub(crate) fn read(file: &File, range: &Range<usize>) -> Piece {
    let mut bytes = vec![0; range.len()];
    let mut got = 0;
    let error = loop {
        if got == bytes.len() {
            break None;
        }
        match file.read_at(&mut bytes[got..], (range.start + got) as u64) {
            Ok(0) => break None,
            Ok(count) => got += count,
            Err(error) => break Some(error),
        }
    };
    bytes.truncate(got);
    Piece { bytes, error }
}

impl Held {
    /// Opens a file through the mount.
    pub(crate) fn open(source: &Source<'_>, at: PathBuf, path: &str, passthrough: bool) -> io::Result<Self> {
        let file = File::open(at)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            may_be: source.candidates(path),
            floor: source.seen,
            may_be_mistaken: source.may_mistake(path),
            passthrough,
        })
    }

    /// Gives the largest size that it may have.
    pub(crate) fn size_max(&self) -> usize {
        let sizes = self.may_be.iter().map(|state| match state {
            State::File(_, version) | State::Writing(_, version) => version.bytes.len(),
            State::Absent | State::Directory(_) => 0,
        });
        sizes.max().unwrap_or(0)
    }

    /// Reads a range, and judges what came of it.
    pub(crate) fn read(&mut self, source: &Source<'_>, range: &Range<usize>) -> Result<(), Judged> {
        let Piece { bytes, error } = read(&self.file, range);
        let wrong = |this: &Self, bytes: &[u8]| {
            let may_be: Vec<_> = this.may_be.iter().map(State::in_words).collect();
            Judged::Wrong(format!(
                "the handle reads {} at {range:?}; it was bound to one of {may_be:?}, and its path has been {}",
                describe(bytes),
                source.in_words(&this.path)
            ))
        };
        let before = self.may_be.clone();
        if source.ground.kind == Kind::Local {
            let passthrough = self.passthrough;
            self.may_be
                .retain(|state| agrees_on_disk(passthrough, source, state, range, &bytes));
        } else if error.is_none() {
            self.may_be.retain(|state| state.reads(range, &bytes));
        } else {
            self.may_be.retain(|state| state.begins(range, &bytes));
        }
        if self.may_be.is_empty() {
            self.may_be = before;
            return Err(wrong(self, &bytes));
        }
        match error {
            None => Ok(()),
            Some(error) if source.ground.kind == Kind::Local => Err(Judged::Wrong(format!(
                "the handle of a file of this machine reads {error} at {range:?}"
            ))),
            Some(error) => Err(self.judge(source, error)),
        }
    }

    fn judge(&self, source: &Source<'_>, error: io::Error) -> Judged {
        let is_touched = || source.truth.touched_after(&self.path, self.floor);
        match Errno::from_io_error(&error) {
            Some(Errno::STALE) if is_touched() || self.may_be_mistaken => Judged::Allowed,
            Some(Errno::TIMEDOUT | Errno::HOSTUNREACH) => Judged::Away(error),
            _ => Judged::Wrong(format!(
                "the handle reads {error}; its path has been {}",
                source.in_words(&self.path)
            )),
        }
    }

    /// Judges the size that the handle tells.
    pub(crate) fn judge_size(&self, source: &Source<'_>) -> Result<(), Wrong> {
        let size = match self.file.metadata() {
            Ok(metadata) => metadata.len() as usize,
            Err(error) => return Err(format!("the handle has no attributes: {error}")),
        };
        // What is written to an open file of this machine shows in it.
        let is_right = source.ground.kind == Kind::Local || self.may_be.iter().any(|state| state.has_size(size));
        if is_right {
            return Ok(());
        }
        let may_be: Vec<_> = self.may_be.iter().map(State::in_words).collect();
        Err(format!(
            "the handle has {size} bytes; it was bound to one of {may_be:?}"
        ))
    }

    /// Judges what a handle of a daemon that has been killed still gives: an error, or bytes that the kernel has.
    pub(crate) fn judge_orphan(&mut self, source: &Source<'_>) -> Result<(), Wrong> {
        let range = 0..self.size_max().min(5_000);
        let Piece { bytes, error } = read(&self.file, &range);
        let is_right = match error.as_ref().map(Errno::from_io_error) {
            None => self.may_be.iter().any(|state| match source.ground.kind {
                Kind::Local => agrees_on_disk(self.passthrough, source, state, &range, &bytes),
                _ => state.reads(&range, &bytes),
            }),
            Some(errno) => matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::IO)),
        };
        if is_right {
            return Ok(());
        }
        Err(format!(
            "without its daemon the handle gives {error:?}, {}",
            describe(&bytes)
        ))
    }
}

/// Tells whether a file of this machine may read so: as it is on the disk, or was since the mount last noticed.
fn agrees_on_disk(passthrough: bool, source: &Source<'_>, state: &State, range: &Range<usize>, bytes: &[u8]) -> bool {
    let Some(object) = state.object() else { return false };
    if passthrough {
        source.truth.held(object).range(range) == bytes
    } else {
        source.judge_pages(object, range, bytes)
    }
}
