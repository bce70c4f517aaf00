//! The trait that every kind of source implements, and what it says of itself.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::blocks::Blocks;
use crate::local::LocalBackend;
use crate::write::{Attributes, Body, Expected, WriteAbilities};
use crate::{Child, Error, ErrorKind, Metadata, ObjectPath, Operation, Presence, Result, Version, Watch};

/// The pages of one directory listing. It is complete when the stream ends without an error; after an error nothing
/// follows.
pub type Listing = BoxStream<'static, Result<Vec<Child>>>;

/// How many links are read at once where several are asked for together.
const LINKS_AT_ONCE: usize = 8;

/// What a source can do and how it likes to be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
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
    /// Whether a listing may end well and lack names all the same, so that one that is missing is to be looked for by itself.
    pub lists_may_be_cut: bool,
    /// Whether times may be told in full minutes, so that two changes within one of the same length look the same.
    pub tells_minutes: bool,
    /// What it can do in writing; `None` if nothing through this trait.
    pub writes: Option<WriteAbilities>,
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

    /// Reads where several links of one directory point, each as [`read_link`](Self::read_link) does, and in their order.
    async fn read_links(&self, paths: &[ObjectPath]) -> Vec<Result<Presence<Vec<u8>>>> {
        let reads: Vec<_> = paths.iter().map(|path| self.read_link(path)).collect();
        stream::iter(reads).buffered(LINKS_AT_ONCE).collect().await
    }

    /// Puts a whole object: readers see what stood there before or the new bytes, never a part. The directory it lies in must
    /// be there, where directories are real.
    ///
    /// Not more of the body than [`WriteAbilities::memory_max`] is in memory at once. The result is the object as the source
    /// has it now, in the version that a listing gives it, its size checked, and its hash where the source tells one.
    ///
    /// A put ends within the source's timeout after bytes have ceased to move, however long it takes in all; one that
    /// fails or is dropped leaves nothing under the object's name. Errors: `Conflict` if what stands there is not what was
    /// expected, and nothing is changed then; `IsADirectory`, but a store that has shown that it minds conditions may take a small
    /// object beside a directory of its name; `NotADirectory` if there is no directory for it; those of the source; and what
    /// reading the body gave, as `Other`.
    ///
    /// A body that has a [log of its parts](Body::parts) is taken up where an earlier put of it was broken off, if the source has
    /// that still; the same conditions hold as if it were put at once.
    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        let _unused = (body, expected);
        Err(unsupported(self.name(), Operation::Put, path))
    }

    /// Takes back what a put in parts has sent to a path, under the name that its [`PartLog`](crate::PartLog) was told. `Absent` if
    /// the source has nothing of it; what stands under the path is not touched.
    async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        let _unused = upload;
        Err(unsupported(self.name(), Operation::Put, path))
    }

    /// Makes a directory: `Exists` if anything is there already. An object store gets an object `path/` without bytes, so
    /// that the empty directory is listed.
    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        Err(unsupported(self.name(), Operation::CreateDirectory, path))
    }

    /// Sees to it that a directory does not go with the last thing in it: an object store gets the object `path/`, unless it
    /// has it, whatever lies beneath. Where directories are real, nothing is to be done.
    async fn keep_directory(&self, path: &ObjectPath) -> Result<()> {
        let _unused = path;
        Ok(())
    }

    /// Makes a symbolic link that points to `target`, where the source can ([`WriteAbilities::makes_links`]); else `Unsupported`.
    /// `Exists` if anything is there already.
    async fn make_link(&self, path: &ObjectPath, target: &[u8]) -> Result<Metadata> {
        let _unused = target;
        Err(unsupported(self.name(), Operation::Create, path))
    }

    /// Removes a file or a link: `IsADirectory` if it is a directory, `Conflict` if it is not what was expected. `Absent` if
    /// nothing was there, also where [`Expected::Absent`] was asked for, which removes nothing.
    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        let _unused = expected;
        Err(unsupported(self.name(), Operation::RemoveFile, path))
    }

    /// Removes an empty directory: `NotEmpty` if it is not, `NotADirectory` if it is something else. On an object store it is
    /// listed first, and what is put there meanwhile stays, and so does the directory.
    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        Err(unsupported(self.name(), Operation::RemoveDirectory, path))
    }

    /// Gives a file another name, or a directory with all that is in it, where the source can ([`WriteAbilities`]); else
    /// `Unsupported`. What stands at `to` is replaced if `replace` (a file by a file, an empty directory by a directory,
    /// where the source can), and is `Exists` otherwise. `Absent` if nothing is at `from`.
    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        let _unused = (to, replace);
        Err(unsupported(self.name(), Operation::Rename, from))
    }

    /// Copies an object at the source, for sources that have no directories to rename: what is at `from` stays. `Conflict` if
    /// that is not `version`, `Exists` if anything stands at `to`; nothing is copied then, and what was copied of another
    /// version is taken away again. `Absent` if nothing is at `from`.
    async fn copy(&self, from: &ObjectPath, version: &Version, to: &ObjectPath) -> Result<Presence<Metadata>> {
        let _unused = (version, to);
        Err(unsupported(self.name(), Operation::Rename, from))
    }

    /// Changes attributes without the bytes, those that the source keeps ([`WriteAbilities`]); the others are left alone.
    /// `Unsupported` if it keeps none of those that are given.
    async fn set_attributes(&self, path: &ObjectPath, attributes: &Attributes) -> Result<Presence<Metadata>> {
        let _unused = attributes;
        Err(unsupported(self.name(), Operation::SetAttributes, path))
    }

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

fn unsupported(source: &str, operation: Operation, path: &ObjectPath) -> Error {
    let why = "this kind of source does not do that";
    Error::new(ErrorKind::Unsupported, operation, source, path.clone(), why)
}
