//! The trait that every kind of source implements, and what it says of itself.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::blocks::Blocks;
use crate::local::LocalBackend;
use crate::{Child, Metadata, ObjectPath, Presence, Result, Version, Watch};

/// The pages of one directory listing. It is complete when the stream ends without an error; after an error nothing
/// follows.
pub type Listing = BoxStream<'static, Result<Vec<Child>>>;

/// What a source can do and how it likes to be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The block size that suits its latency, in bytes; a power of two from 64 KiB to 16 MiB.
    pub block_size: u32,
    /// The longest single ranged read that pays, in bytes; a multiple of `block_size`.
    pub read_size_max: u32,
    /// How many requests it likes at once. The backend itself never exceeds it.
    pub concurrency: u32,
    /// Whether modes, owners and links are real (a file system) or made up by the mount (an object store).
    pub posix_attributes: bool,
    /// Whether [`Metadata::identity`] is given, so that renames can be recognised.
    pub identities: bool,
    /// Whether a missing directory is indistinguishable from an empty one (object stores).
    pub implicit_directories: bool,
}

/// One source, connected. Cheap to share; every method may be called from many tasks at once, and dropping a future
/// cancels the request without harm to the connection.
///
/// A backend enforces its own concurrency limit. Deadlines are its caller's: wrap a call in a timeout.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Names the source for people: its URI, without secrets.
    fn name(&self) -> &str;

    /// Says what the source can do.
    fn capabilities(&self) -> &Capabilities;

    /// Makes one cheap request that needs the credentials, to tell whether the source can be used.
    async fn check(&self) -> Result<()>;

    /// Gives the attributes of one object. A directory and a file of the same name: the directory wins; see
    /// [`Child::name`].
    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>>;

    /// Lists the children of a directory, the directory itself not among them.
    ///
    /// `Absent` means the source answered that there is no such directory.
    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>>;

    /// Reads exactly `range` of the object, which must lie within the size that goes with `version`.
    ///
    /// The bytes are those of `version`; if the object has changed: `ErrorKind::VersionChanged`.
    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>>;

    /// Reads as [`read`](Self::read) does, and gives blocks of `block_size` bytes, of which only the last may be shorter. Each
    /// has memory of its own.
    async fn read_blocks(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u32,
    ) -> Result<Presence<Vec<Bytes>>> {
        Ok(match self.read(path, version, range).await? {
            Presence::Found(bytes) if bytes.len() as u64 == u64::from(block_size) => Presence::Found(vec![bytes]),
            Presence::Found(bytes) => Presence::Found(Blocks::cut(&bytes, u64::from(block_size))),
            Presence::Absent => Presence::Absent,
        })
    }

    /// Reads where a symbolic link points, raw.
    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>>;

    /// Gives the local fast path, where the source is a folder of this machine.
    fn as_local(&self) -> Option<&LocalBackend> {
        None
    }

    /// Gives a watch over the source, where it can tell of changes that others make. To be called within a runtime; nothing
    /// is asked of the source yet.
    fn watch(&self) -> Option<Arc<dyn Watch>> {
        None
    }
}
