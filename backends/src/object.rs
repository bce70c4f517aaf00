//! Words for what stands at a source: paths, kinds, versions, metadata.

use std::fmt;
use std::time::Duration;

/// The answer of a source that was reached: the thing, or the certainty that it is not there.
///
/// "Could not find out" is never a `Presence`; it is an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence<T> {
    /// The source answered, and this is what stands there.
    Found(T),
    /// The source answered, and nothing of that name is there.
    Absent,
}

impl<T> Presence<T> {
    /// Tells whether the source answered that nothing is there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A path beneath a source's root: raw parts joined by `/`, without a slash at either end; the root is empty.
///
/// Parts are what the source itself calls them. They may hold any byte; an object store may even have empty parts,
/// `.` or `..`, which only name-based backends accept (the local backend refuses them).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ObjectPath(Vec<u8>);

impl ObjectPath {
    /// Names the source's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes bytes that are already in the form described on the type.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Gives the path of `name` beneath this one.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// Gives the directory that this path lies in; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Self(self.0[..end].to_vec())
    }

    /// Gives the last part.
    pub fn name(&self) -> &[u8] {
        let start = self
            .0
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Tells whether this is the source's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What sort of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory, or a prefix of an object store.
    Directory,
    /// A regular file, or an object.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A point in time, in nanoseconds since 1970-01-01 UTC; negative before. Out-of-range values saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Builds a timestamp from whole seconds and nanoseconds, saturating at the ends of the range (1677 to 2262).
    pub fn from_parts(seconds: i64, nanoseconds: u32) -> Self {
        Self(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(nanoseconds)),
        )
    }
}

/// What tells one state of an object from the next: opaque bytes that are only compared for equality.
///
/// The first byte says what it was made of, so that values of different origins never compare equal.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Version(Box<[u8]>);

impl Version {
    const ETAG: u8 = 1;
    const ID: u8 = 2;
    const STAT: u8 = 3;

    /// From an entity tag, quotes and all, as the server gave it.
    pub fn from_etag(etag: &[u8]) -> Self {
        Self::tagged(Self::ETAG, etag)
    }

    /// From a version id or generation that the service assigns on each write.
    pub fn from_id(id: &[u8]) -> Self {
        Self::tagged(Self::ID, id)
    }

    /// From attributes, where the service has nothing better. `ctime` and `inode` are zero where unknown.
    pub fn from_stat(size: u64, mtime: Timestamp, ctime: Timestamp, inode: u64) -> Self {
        Self(Box::new(Self::stat_bytes(size, mtime, ctime, inode)))
    }

    /// Overwrites this version as [`from_stat`](Self::from_stat) would make it, allocating only if it was made
    /// otherwise: listings go through millions.
    pub(crate) fn set_stat(&mut self, size: u64, mtime: Timestamp, ctime: Timestamp, inode: u64) {
        let bytes = Self::stat_bytes(size, mtime, ctime, inode);
        if self.0.len() == bytes.len() {
            self.0.copy_from_slice(&bytes);
        } else {
            self.0 = Box::new(bytes);
        }
    }

    fn stat_bytes(size: u64, mtime: Timestamp, ctime: Timestamp, inode: u64) -> [u8; 33] {
        let mut bytes = [Self::STAT; 33];
        bytes[1..9].copy_from_slice(&size.to_le_bytes());
        bytes[9..17].copy_from_slice(&mtime.0.to_le_bytes());
        bytes[17..25].copy_from_slice(&ctime.0.to_le_bytes());
        bytes[25..33].copy_from_slice(&inode.to_le_bytes());
        bytes
    }

    /// Takes back what [`as_bytes`](Self::as_bytes) gave, for storage.
    pub fn from_stored(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Gives the bytes to store or to derive a key from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the entity tag, where the version was made of one.
    pub fn etag(&self) -> Option<&[u8]> {
        match self.0.split_first() {
            Some((&Self::ETAG, rest)) => Some(rest),
            _ => None,
        }
    }

    /// Gives the version id, where the version was made of one.
    pub fn id(&self) -> Option<&[u8]> {
        match self.0.split_first() {
            Some((&Self::ID, rest)) => Some(rest),
            _ => None,
        }
    }

    /// Gives how far apart two changes must be, at least, for this version to tell one from the other: `None` where the service
    /// names its versions, or tells times so finely that nothing is read in between. It is taken from the times themselves: full
    /// seconds are taken for two, as some file systems count. Entity tags that are written like those that nginx makes of seconds and
    /// length count as such.
    pub fn grain(&self) -> Option<Duration> {
        const SECOND: i64 = 1_000_000_000;
        const COARSE: Duration = Duration::from_secs(2);
        let rest = match self.0.split_first() {
            Some((&Self::STAT, rest)) => rest,
            Some((&Self::ETAG, tag)) => return is_of_seconds(tag).then_some(COARSE),
            _ => return None,
        };
        let time = |at: usize| {
            let bytes = rest.get(at..at + 8).and_then(|it| it.try_into().ok());
            bytes.map_or(0, i64::from_le_bytes)
        };
        let (modified, changed) = (time(8), time(16));
        if modified % SECOND != 0 || changed % SECOND != 0 {
            return None;
        }
        Some(COARSE)
    }

    fn tagged(tag: u8, rest: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + rest.len());
        bytes.push(tag);
        bytes.extend_from_slice(rest);
        Self(bytes.into())
    }
}

/// Tells whether an entity tag is made as nginx does, of the seconds and the length: `"68d5a1c0-5dc"`.
fn is_of_seconds(tag: &[u8]) -> bool {
    /// Hexadecimal digits of the seconds for the next hundred years.
    const SECONDS: usize = 8;
    /// No length has more; Apache's tags have the microseconds there.
    const LENGTH_MAX: usize = 11;
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inner = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
    let Some((seconds, length)) = inner.and_then(|tag| tag.split_at_checked(SECONDS)) else {
        return false;
    };
    let is_hex = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
    let length = length.strip_prefix(b"-");
    is_hex(seconds) && length.is_some_and(|length| length.len() <= LENGTH_MAX && is_hex(length))
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0.escape_ascii())
    }
}

/// What stays the same when an object is renamed within its source, so that a rename can be recognised.
///
/// For a file system the device and inode; for an object store a strong version together with the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub [u8; 16]);

/// What a source says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What sort of thing it is.
    pub kind: Kind,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Last change of the bytes, where the source tells it.
    pub modified: Option<Timestamp>,
    /// Last change of the attributes, where the source tells it.
    pub changed: Option<Timestamp>,
    /// Birth time, where the source tells it.
    pub created: Option<Timestamp>,
    /// Permission bits (`0o7777`), where the source has them.
    pub mode: Option<u32>,
    /// Owner and group, where the source has them.
    pub owner: Option<(u32, u32)>,
    /// Number of hard links; 1 where the source has none.
    pub links: u32,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// Tells this state of the object from the next.
    pub version: Version,
    /// Recognises the object after a rename, where the source gives anything to go by.
    pub identity: Option<Identity>,
}

/// One child of a listed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The last part of its path, raw, exactly as the source calls it. Two children may share a name only where one
    /// is a directory and the other is not (`a/` and `a` of an object store).
    pub name: Vec<u8>,
    /// What the listing told of it.
    pub metadata: Metadata,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_how_coarse_its_times_are() {
        const SECOND: i64 = 1_000_000_000;
        let stat =
            |modified: i64, changed: i64| Version::from_stat(7, Timestamp(modified), Timestamp(changed), 0).grain();
        assert_eq!(stat(61 * SECOND + 100, 0), None);
        assert_eq!(stat(61 * SECOND, 0), Some(Duration::from_secs(2)));
        assert_eq!(stat(120 * SECOND, 120 * SECOND + 1), None, "the other time is fine");
        assert_eq!(stat(0, 0), Some(Duration::from_secs(2)), "no time at all");
        let etag = |tag: &str| Version::from_etag(tag.as_bytes()).grain();
        assert_eq!(etag("\"68d5a1c0-5dc\""), Some(Duration::from_secs(2)));
        assert_eq!(etag("W/\"68d5a1c0-0\""), Some(Duration::from_secs(2)));
        assert_eq!(etag("\"5dc-63f8a1b2c3d40\""), None);
        assert_eq!(etag("\"1dc00000-63f8a1b2c3d40\""), None);
        assert_eq!(etag("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
        assert_eq!(etag("\"d41d8cd98f00b204e9800998ecf8427e-3\""), None);
        assert_eq!(Version::from_id(b"1").grain(), None);
    }
}
