//! Copying a file to a disk of this machine, to one that has no name yet.
//!
//! Always true: what is given has all the bytes of the file as it was read, in one version, and its attributes; it lies on the
//! disk, and was read back from there.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use manifold_backends::local::{AttributeChange, Durable, Held, LocalBackend, LocalFile, NewTime, SetMode, WriteAt};
use manifold_backends::{Error as BackendError, ErrorKind, ObjectPath};
use manifold_catalog::{EntryId, ExtendedAttribute};
use tokio::time::Instant;

use super::is_label;
use crate::Error;
use crate::change::local::{done, found};
use crate::error::Cause;
use crate::handle::{Access, Handle, OpenFile};
use crate::vfs::Core;

/// How much is copied at once.
const CHUNK: u32 = 1 << 20;
/// After how many bytes it is waited for the disk, so that it is known how fast that is.
const SYNC_EVERY: u64 = 16 << 20;
/// What is nothing but zeros, and so long, is left out as a hole.
const HOLE: usize = 64 << 10;
/// What is shorter tells nothing of how long it will take.
const BEGINNING: Duration = Duration::from_millis(100);

/// How a copy is to look.
pub(super) struct Wanted {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: NewTime,
    /// `None`: that of the original on its disk.
    pub(super) accessed: Option<NewTime>,
    /// All that there are to be.
    pub(super) attributes: Vec<ExtendedAttribute>,
    /// What its bytes are, where that is known.
    pub(super) content: Option<[u8; 32]>,
}

/// A handle of our own, through which a file is read.
struct Reader<'a> {
    core: &'a Arc<Core>,
    id: EntryId,
    handle: Handle,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.core.release(self.handle);
        // The kernel has got no pages of what was read.
        self.core.files.forget_version(Some(self.id));
    }
}

impl Core {
    /// Copies a file, with the attributes that are wanted, to the disk on which a directory lies.
    ///
    /// # Errors
    /// [`Error::CrossSource`]: it would take longer than `patience`, or this disk cannot have such a file.
    pub(super) async fn copy_unnamed(
        self: &Arc<Self>,
        id: EntryId,
        to: &LocalBackend,
        directory: ObjectPath,
        mut wanted: Wanted,
        patience: Duration,
    ) -> Result<Arc<LocalFile>, Error> {
        let (begun, made_by) = (Instant::now(), to.clone());
        let copy = self.blocking(move || found(made_by.make_unnamed(&directory))).await;
        let copy = copy.map_err(|error| match error {
            Error::Unsupported(_) => Error::CrossSource,
            error => error,
        })?;
        let copy = Arc::new(copy);
        let opened = self.open(id, Access::Read).wait().await?;
        let (size, handle) = (opened.size, opened.handle);
        let reader = Reader { core: self, id, handle };
        if let Some(OpenFile::Local(_, _, file)) = self.files.get(handle).as_deref() {
            let read = file.shared().and_then(|file| file.metadata().ok()?.accessed().ok());
            wanted.accessed = read.and_then(since_1970);
        }
        let (mut at, mut synced, mut hasher) = (0, 0, blake3::Hasher::new());
        while at < size {
            let bytes = self.read(handle, at, CHUNK).wait().await?;
            if bytes.is_empty() {
                // Somebody has cut it off.
                return Err(Error::CrossSource);
            }
            hasher.update(&bytes);
            let (file, offset) = (Arc::clone(&copy), at);
            at += bytes.len() as u64;
            let is_to_be_synced = at - synced >= SYNC_EVERY;
            if is_to_be_synced {
                synced = at;
            }
            let written = self.blocking(move || {
                write(&file, offset, &bytes)?;
                if is_to_be_synced { done(file.sync(true)) } else { Ok(()) }
            });
            written.await?;
            if would_last(begun.elapsed(), at, size) > patience {
                return Err(Error::CrossSource);
            }
        }
        drop(reader);
        let content = *hasher.finalize().as_bytes();
        if wanted.content.is_some_and(|known| known != content) {
            return Err(Error::Io(Cause::new(
                "the bytes of a file that is to be moved are not those that it is known to hold; read it again with: manifold hash PATH",
            )));
        }
        let file = Arc::clone(&copy);
        let finished = self.blocking(move || {
            done(file.truncate(size, true))?;
            dress(&file.held(), &wanted).map_err(undressed)?;
            done(file.sync(false))?;
            done(file.forget_pages())?;
            read_back(&file, size, content)
        });
        finished.await?;
        Ok(copy)
    }
}

/// Writes all but what is nothing but zeros.
fn write(file: &LocalFile, offset: u64, bytes: &Bytes) -> Result<(), Error> {
    let mut at = offset;
    for part in bytes.chunks(HOLE) {
        let is_hole = part.len() == HOLE && part.iter().all(|byte| *byte == 0);
        let (mut left, mut place) = (if is_hole { &[][..] } else { part }, at);
        while !left.is_empty() {
            let written = done(file.write(WriteAt::Offset(place), left, Durable::Later, true))?;
            place += written as u64;
            left = &left[written..];
        }
        at += part.len() as u64;
    }
    Ok(())
}

/// Says how long copying lasts in all if it goes on as it did, once that can be told.
fn would_last(elapsed: Duration, copied: u64, size: u64) -> Duration {
    if elapsed < BEGINNING {
        return elapsed;
    }
    let parts = u32::try_from(size.div_ceil(copied.max(1))).unwrap_or(u32::MAX);
    elapsed.saturating_mul(parts)
}

/// Gives a file the attributes that are wanted, and none besides.
fn dress(held: &Held, wanted: &Wanted) -> Result<(), BackendError> {
    let (uid, gid) = wanted.owner;
    if held.metadata()?.owner != Some(wanted.owner) {
        let owner = AttributeChange {
            uid: Some(uid),
            gid: Some(gid),
            ..AttributeChange::default()
        };
        held.set(&owner, true)?;
    }
    let names = match held.xattrs() {
        Err(error) if error.kind() == ErrorKind::Unsupported => Vec::new(),
        names => names?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Such as the list that a directory gives to what is made in it.
        if !is_label(name) && !wanted.attributes.iter().any(|(wanted, _)| **wanted == *name) {
            held.remove_xattr(name)?;
        }
    }
    for (name, value) in &wanted.attributes {
        held.set_xattr(name, value, SetMode::Any)?;
    }
    let rest = AttributeChange {
        mode: Some(wanted.mode),
        accessed: wanted.accessed,
        modified: Some(wanted.modified),
        ..AttributeChange::default()
    };
    held.set(&rest, true).map(drop)
}

/// Says what it means that a file could not be given the attributes that are wanted.
fn undressed(error: BackendError) -> Error {
    match error.kind() {
        // The other disk had them, or another user is to own it: whoever asked may see how far he gets.
        ErrorKind::Unsupported
        | ErrorKind::NotPermitted
        | ErrorKind::PermissionDenied
        | ErrorKind::InvalidArgument
        | ErrorKind::ValueTooLong
        | ErrorKind::Full => Error::CrossSource,
        _ => Error::from_backend(&Arc::new(error)),
    }
}

/// Makes sure that a file has the bytes that were written to it.
fn read_back(file: &LocalFile, size: u64, content: [u8; 32]) -> Result<(), Error> {
    let file = file.shared().ok_or(Error::CrossSource)?;
    let (mut at, mut hasher) = (0, blake3::Hasher::new());
    let mut buffer = vec![0; CHUNK as usize];
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(Cause::new(error))),
        }
    }
    if at != size || *hasher.finalize().as_bytes() != content {
        return Err(Error::Io(Cause::new(
            "the disk gave other bytes than were written to it",
        )));
    }
    Ok(())
}

/// Gives a time, in nanoseconds since 1970 UTC, as a disk is told it.
pub(super) fn time(at_ns: i64) -> NewTime {
    let (seconds, rest) = (at_ns.div_euclid(1_000_000_000), at_ns.rem_euclid(1_000_000_000));
    NewTime::At(seconds, rest as u32)
}

/// The same; none for a time before 1970, which is no time of a read.
fn since_1970(at: SystemTime) -> Option<NewTime> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(NewTime::At(i64::try_from(since.as_secs()).ok()?, since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_copy_lasts_is_told_by_its_beginning() {
        let millis = Duration::from_millis;
        assert_eq!(would_last(millis(50), 1, 1_000_000), millis(50), "too early to tell");
        assert_eq!(would_last(millis(200), 10, 100), millis(2_000));
        assert_eq!(would_last(millis(200), 100, 100), millis(200));
        assert!(would_last(millis(200), 0, u64::MAX) > Duration::from_secs(1 << 20));
    }

    #[test]
    fn a_time_before_1970_has_nanoseconds_that_count_forward() {
        assert_eq!(time(-1), NewTime::At(-1, 999_999_999));
        assert_eq!(time(1_500_000_000), NewTime::At(1, 500_000_000));
    }
}
