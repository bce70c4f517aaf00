//! What is open: files by handle, and for each entry how many handles it has and what it looked like.
//!
//! Always true:
//! - an entry counts as open from before its row is read until its last handle is released, so that a file that changes
//!   meanwhile gets an entry of its own;
//! - an entry that leaves the catalog while it is open keeps its attributes until then;
//! - a handle is never given out twice.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_backends::local::LocalFile;
use manifold_catalog::{EntryId, SourceId};
use parking_lot::{Mutex, RwLock};

use crate::attributes::Attributes;
use crate::cache::{HandedOut, ObjectKey};
use crate::fetch::{Abandoned, Object};
use crate::prefetch::Stream;

/// How many closed files' versions are remembered, to tell a kernel that its pages are still good.
const VERSIONS_MAX: usize = 65_536;

/// Names an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Anything that may change the file.
    Write,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Names it from now on.
    pub handle: Handle,
    /// Where its bytes are.
    pub backing: Backing,
    /// Whether the pages that the kernel may have of this entry are those of the version that was opened.
    pub keep_cache: bool,
    /// The length of the version that was opened, in bytes.
    pub size: u64,
}

/// Where the bytes of an open file are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// All in this file, at the same offsets: the kernel may read it by itself. It stays as it is until the handle is released.
    File(Arc<File>),
    /// In blocks, by [`Vfs::read`](crate::Vfs::read) only.
    Blocks,
}

/// What stands behind a handle.
#[derive(Debug)]
pub(crate) enum OpenFile {
    /// A file of this machine.
    Local(EntryId, SourceId, Arc<LocalFile>),
    /// A file of this machine that the kernel has open too, and reads without us.
    Kernels(EntryId),
    /// A version of an object.
    Object(OpenObject),
}

/// An object that is open.
#[derive(Debug)]
pub(crate) struct OpenObject {
    pub(crate) object: Arc<Object>,
    pub(crate) readahead: Mutex<Readahead>,
    /// The whole file in the disk cache, kept from being changed while the handle is open.
    #[expect(dead_code, reason = "held for what its end does")]
    pub(crate) whole: Option<HandedOut>,
}

/// How a handle has been read, and what is fetched ahead for it.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    pub(crate) stream: Stream,
    pub(crate) abandoned: Abandoned,
    pub(crate) open: bool,
}

/// All that is open.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    next: AtomicU64,
    files: RwLock<HashMap<Handle, Arc<OpenFile>>>,
    entries: Mutex<HashMap<EntryId, OpenEntry>>,
    versions: Mutex<HashMap<EntryId, ObjectKey>>,
}

#[derive(Debug, Default)]
struct OpenEntry {
    count: u64,
    attributes: Option<Attributes>,
}

/// Keeps an entry open while it is being opened. Dropped, it closes it again.
pub(crate) struct Opening<'a> {
    files: &'a OpenFiles,
    id: EntryId,
}

impl OpenFiles {
    /// Counts an entry as open. To be called before its row is read.
    pub(crate) fn begin(&self, id: EntryId) -> Opening<'_> {
        self.entries.lock().entry(id).or_default().count += 1;
        Opening { files: self, id }
    }

    /// Tells whether an entry is open, or being opened.
    pub(crate) fn is_open(&self, id: EntryId) -> bool {
        self.entries.lock().contains_key(&id)
    }

    /// Gives what stands behind a handle.
    pub(crate) fn get(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        self.files.read().get(&handle).cloned()
    }

    /// Tells whether a file of this machine is open under an entry, to be read here or by the kernel.
    pub(crate) fn is_open_local(&self, id: EntryId) -> bool {
        let is_local = |file: &OpenFile| matches!(file, OpenFile::Local(..) | OpenFile::Kernels(_));
        let files = self.files.read();
        files.values().any(|file| file.id() == id && is_local(file))
    }

    /// Gives the attributes that an open entry had when it was opened.
    pub(crate) fn attributes(&self, id: EntryId) -> Option<Attributes> {
        self.entries.lock().get(&id)?.attributes.clone()
    }

    /// Closes the file of this machine behind a handle, and keeps the handle.
    pub(crate) fn leave_to_kernel(&self, handle: Handle) {
        if let Some(file) = self.files.write().get_mut(&handle)
            && let OpenFile::Local(id, ..) = **file
        {
            *file = Arc::new(OpenFile::Kernels(id));
        }
    }

    /// Closes a handle.
    pub(crate) fn release(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        let file = self.files.write().remove(&handle)?;
        self.end(file.id());
        Some(file)
    }

    /// Remembers which version of an entry the kernel has pages of from now on, and tells whether it is the same as before.
    pub(crate) fn same_version(&self, id: EntryId, version: ObjectKey) -> bool {
        let mut versions = self.versions.lock();
        if versions.len() >= VERSIONS_MAX && !versions.contains_key(&id) {
            versions.clear();
        }
        versions.insert(id, version) == Some(version)
    }

    /// Forgets which version the kernel has pages of: of one entry, or of all.
    pub(crate) fn forget_version(&self, id: Option<EntryId>) {
        let mut versions = self.versions.lock();
        match id {
            Some(id) => drop(versions.remove(&id)),
            None => versions.clear(),
        }
    }

    fn end(&self, id: EntryId) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(&id) {
            entry.count -= 1;
            if entry.count == 0 {
                entries.remove(&id);
            }
        }
    }
}

impl Opening<'_> {
    /// Turns the opening into a handle.
    pub(crate) fn finish(self, file: OpenFile, attributes: Attributes) -> Handle {
        let handle = Handle(self.files.next.fetch_add(1, Ordering::Relaxed) + 1);
        if let Some(entry) = self.files.entries.lock().get_mut(&self.id) {
            entry.attributes = Some(attributes);
        }
        self.files.files.write().insert(handle, Arc::new(file));
        std::mem::forget(self);
        handle
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.files.end(self.id);
    }
}

impl OpenFile {
    /// Names the entry.
    pub(crate) fn id(&self) -> EntryId {
        match self {
            Self::Local(id, ..) | Self::Kernels(id) => *id,
            Self::Object(open) => open.object.id,
        }
    }
}
