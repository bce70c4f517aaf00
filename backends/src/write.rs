//! Words for changes at a source: what a put is given, what it may replace, and what a kind of source can do.
//!
//! Always true of every change:
//! - a condition that no longer holds is [`ErrorKind::Conflict`](crate::ErrorKind::Conflict), and nothing was changed;
//! - a change that fails with a kind that may be tried again may have been made nevertheless (its answer was lost): who tries
//!   again looks first;
//! - under the name of an object a reader finds what stood there before or what stands there after, and never a part.
//!   What a put has sent so far lies elsewhere until it is whole: in a part upload of an object store, or beside the
//!   object under a name that begins with [`TEMPORARY_PREFIX`].

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chacha20poly1305::aead::OsRng;
use chacha20poly1305::aead::rand_core::RngCore;

use crate::{Metadata, ObjectPath, PartLog, Presence, Timestamp, Version};

/// How the name begins of a file that a put is still writing, where the source has no better place for it. After it come
/// 32 hexadecimal digits, by chance. One that is older than any put takes is what a crash left, and may be removed.
pub const TEMPORARY_PREFIX: &str = ".manifold-";

/// Digits of a temporary name after its beginning.
const TEMPORARY_DIGITS: usize = 32;

/// Tells whether a name is one that a put gives to what it is still writing.
pub fn is_temporary_name(name: &[u8]) -> bool {
    name.strip_prefix(TEMPORARY_PREFIX.as_bytes())
        .is_some_and(|rest| rest.len() == TEMPORARY_DIGITS && rest.iter().all(u8::is_ascii_hexdigit))
}

/// Makes up a name for what a put writes, in the directory of `path`.
pub(crate) fn temporary_beside(path: &ObjectPath) -> ObjectPath {
    let mut chance = [0; TEMPORARY_DIGITS / 2];
    OsRng.fill_bytes(&mut chance);
    let mut name = TEMPORARY_PREFIX.to_owned();
    for byte in chance {
        let _infallible = write!(name, "{byte:02x}");
    }
    path.parent().join(name.as_bytes())
}

/// What must stand at a path for a change to be made there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// An object in this version, as a listing or a look gave it.
    Version(Version),
    /// Whatever it is, or nothing.
    Anything,
}

impl Expected {
    /// Tells whether what was found is what was expected.
    pub fn holds(&self, found: &Presence<Metadata>) -> bool {
        match (self, found) {
            (Self::Anything, _) | (Self::Absent, Presence::Absent) => true,
            (Self::Version(version), Presence::Found(metadata)) => metadata.version == *version,
            (Self::Absent, Presence::Found(_)) | (Self::Version(_), Presence::Absent) => false,
        }
    }
}

/// Attributes besides the bytes, for sources that keep them; see [`WriteAbilities`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The time of the last change of the bytes. The source cuts it to its own precision.
    pub modified: Option<Timestamp>,
    /// Permission bits (`0o7777`).
    pub mode: Option<u32>,
}

/// The bytes of an object to be put. They do not change while a put goes on.
#[async_trait]
pub trait Body: Send + Sync {
    /// Gives the length in bytes.
    fn size(&self) -> u64;

    /// Gives exactly the bytes of `range`, which lies within the size. A range may be read again, and ranges in any order and
    /// at once.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Says which attributes the object is to have, where its source keeps them. Those that are `None` are the source's choice;
    /// of an object that is replaced, its mode stays.
    fn attributes(&self) -> Attributes {
        Attributes::default()
    }

    /// Gives who remembers what the source has of it, where it is sent in parts. Without that, a put that fails or is dropped
    /// takes back what it has sent.
    fn parts(&self) -> Option<Arc<dyn PartLog>> {
        None
    }
}

#[async_trait]
impl Body for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let beyond = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(range.start).map_err(|_| beyond())?;
        let end = usize::try_from(range.end).map_err(|_| beyond())?;
        if start > end || end > self.len() {
            return Err(beyond());
        }
        Ok(self.slice(start..end))
    }
}

/// Who sees to it that a change is made only to what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The source itself, in the same step as the change. No race can be lost unseen.
    Source,
    /// The source itself where nothing must be there; else a look just before the change, with a gap of about one round trip
    /// in which another writer is not noticed.
    AbsenceOnly,
    /// A look just before the change, with such a gap in every case.
    Look,
}

/// How a kind of source gives an object another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renames {
    /// Not at all.
    No,
    /// By a copy at the source, which is then removed from its old place. A crash between leaves both.
    Copied,
    /// In one step.
    Whole,
}

/// What a kind of source can do in writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about a kind of source"
)]
pub struct WriteAbilities {
    /// Who keeps conditions on versions.
    pub condition: Condition,
    /// Bytes of bodies that one put holds in memory at most.
    pub memory_max: u64,
    /// The largest object that can be put, in bytes.
    pub size_max: u64,
    /// Whether an object's name is taken over in one step when it is replaced. If not, a reader may find nothing there for
    /// a moment, but never a part.
    pub replaces_at_once: bool,
    /// Whether a directory is a thing of its own, rather than what names have in common.
    pub real_directories: bool,
    /// How a file is renamed.
    pub renames_files: Renames,
    /// How a directory is renamed.
    pub renames_directories: Renames,
    /// Whether [`Attributes::modified`] is kept.
    pub keeps_modified: bool,
    /// Whether [`Attributes::mode`] is kept.
    pub keeps_mode: bool,
    /// Whether symbolic links can be made.
    pub makes_links: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_told_from_any_other() {
        let digits = "0123456789abcdef".repeat(2);
        assert!(is_temporary_name(format!(".manifold-{digits}").as_bytes()));
        for other in [
            "notes",
            ".manifold-",
            ".manifold-settings",
            ".manifold-0123456789abcdeg0123456789abcdef",
        ] {
            assert!(!is_temporary_name(other.as_bytes()), "{other}");
        }
        assert!(!is_temporary_name(format!(".manifold-{digits}0").as_bytes()));
    }

    #[test]
    fn a_temporary_name_lies_beside_its_object() {
        for (path, beside) in [("a/b/c", "a/b"), ("c", "")] {
            let made = temporary_beside(&ObjectPath::from_bytes(path));
            assert!(is_temporary_name(made.name()), "{made}");
            assert_eq!(made.parent(), ObjectPath::from_bytes(beside));
            assert_ne!(made, temporary_beside(&ObjectPath::from_bytes(path)));
        }
    }

    #[tokio::test]
    async fn bytes_are_a_body_that_ends_where_they_end() {
        let body = Bytes::from_static(b"0123456789");
        assert_eq!(Body::size(&body), 10);
        assert_eq!(body.read(3..5).await.unwrap(), "34");
        assert_eq!(body.read(10..10).await.unwrap(), "");
        for range in [9..11, 20..21] {
            let error = body.read(range).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
