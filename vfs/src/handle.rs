//! What is open: files by handle, and for each entry how many handles it has and what it looked like.
//!
//! Always true:
//! - an entry counts as open from before its row is read until its last handle is released, so that a file that changes
//!   meanwhile gets an entry of its own;
//! - an entry that leaves the catalog while it is open keeps its attributes until then;
//! - an entry whose place another has just taken counts as open for a moment longer, so that whoever has looked its name up gets it
//!   ([`parted`]);
//! - a file of this machine that is open here has the attributes that the disk says, and none of the catalog's;
//! - a handle is never given out twice.

mod late;
mod parted;

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold_backends::local::{FileAccess, LocalFile};
use manifold_backends::{ObjectPath, Version};
use manifold_catalog::{EntryId, SourceId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use late::Late;
pub(crate) use parted::{Parted, PartedObject};

use crate::attributes::Attributes;
use crate::cache::{HandedOut, ObjectKey};
use crate::fetch::{Abandoned, Object};
use crate::prefetch::Stream;
use crate::staging::{InUse, StagedFile, Staging};

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
    /// Writing only.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Tells whether the file may be changed.
    pub fn writes(self) -> bool {
        self != Self::Read
    }

    pub(crate) fn of_file(self) -> FileAccess {
        match self {
            Self::Read => FileAccess::Read,
            Self::Write => FileAccess::Write,
            Self::ReadWrite => FileAccess::ReadWrite,
        }
    }
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
    /// Whether it is open for writing.
    pub writes: bool,
    /// Whether a write has to clear set-user-ID or set-group-ID bits, which depends on who writes.
    pub privileged: bool,
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
    Kernels(EntryId, SourceId),
    /// A version of an object.
    Object(OpenObject),
}

/// An object that is open.
#[derive(Debug)]
pub(crate) struct OpenObject {
    /// Another one once what was written to the file has been uploaded.
    object: RwLock<Arc<Object>>,
    /// What was written to the file and is not uploaded yet, if this handle has met it.
    staged: Mutex<Option<InUse>>,
    /// Whether it may be written to through this handle.
    pub(crate) writes: bool,
    pub(crate) readahead: Mutex<Readahead>,
    /// The whole file in the disk cache, kept from being changed while the handle is open.
    pub(crate) whole: Option<HandedOut>,
}

impl OpenObject {
    pub(crate) fn new(object: Arc<Object>, writes: bool, whole: Option<HandedOut>) -> Self {
        Self {
            object: RwLock::new(object),
            staged: Mutex::new(None),
            writes,
            readahead: Mutex::default(),
            whole,
        }
    }

    /// Gives the version that is read where nothing is staged.
    pub(crate) fn object(&self) -> Arc<Object> {
        Arc::clone(&self.object.read())
    }

    /// Gives what is staged of the file, if anything is; `find` looks for it where this handle has not met it.
    pub(crate) fn staged(&self, find: impl FnOnce() -> Option<Arc<StagedFile>>) -> Option<Arc<StagedFile>> {
        let mut staged = self.staged.lock();
        if let Some(in_use) = &*staged
            && !in_use.file().is_concluded()
        {
            return Some(Arc::clone(in_use.file()));
        }
        let found = find();
        // One whose data cannot be opened fails when it is read.
        *staged = found.as_ref().and_then(|file| file.use_it().ok());
        found
    }

    /// Keeps a staged file with this handle.
    pub(crate) fn meet(&self, file: &Arc<StagedFile>) {
        *self.staged.lock() = file.use_it().ok();
    }
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
    /// How many handles of files of this machine are open here.
    locals: AtomicU64,
    /// What counts as open only because it was replaced a moment ago.
    parted: Mutex<parted::Queue>,
    /// What the kernel reads by itself and is kept at hand all the same.
    at_hand: Mutex<parted::AtHand>,
    staging: OnceLock<Arc<Staging>>,
    /// Told of each entry that nobody has open any more.
    closed: Notify,
}

#[derive(Debug, Default)]
struct OpenEntry {
    /// Handles, and what keeps it open besides.
    count: u64,
    /// Handles alone.
    handles: u64,
    attributes: Option<Attributes>,
    /// The handles of a file of this machine that are open here, and not left to the kernel.
    locals: Vec<(Handle, Arc<LocalFile>)>,
    /// What is left of it once it has lost its name.
    parted: Option<Arc<Parted>>,
    /// A file of this machine that is left to the kernel, and by which handle.
    at_hand: Option<(Handle, Arc<LocalFile>)>,
    late: Option<Late>,
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

    /// Waits until nobody has an entry open, but no longer than `patience`, and tells whether it came to that. The kernel closes
    /// files behind the back of whoever has closed them.
    pub(crate) async fn until_closed(&self, id: EntryId, patience: Duration) -> bool {
        let closed = async {
            loop {
                let next = self.closed.notified();
                if !self.is_open(id) {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(patience, closed).await.is_ok()
    }

    /// Gives what stands behind a handle.
    pub(crate) fn get(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        self.files.read().get(&handle).cloned()
    }

    /// Tells whether a file of this machine is open under an entry, to be read here or by the kernel.
    pub(crate) fn is_open_local(&self, id: EntryId) -> bool {
        let is_local = |file: &OpenFile| matches!(file, OpenFile::Local(..) | OpenFile::Kernels(..));
        let files = self.files.read();
        files.values().any(|file| file.id() == id && is_local(file))
    }

    /// Tells whether the kernel may have been given a file of the disk cache to read an entry from by itself.
    pub(crate) fn is_read_by_kernel(&self, id: EntryId) -> bool {
        let has_whole = |file: &Arc<OpenFile>| matches!(&**file, OpenFile::Object(open) if open.whole.is_some());
        self.open_objects(id).iter().any(has_whole)
    }

    /// Looks up staged files in `staging` from now on.
    pub(crate) fn follow_staging(&self, staging: &Arc<Staging>) {
        // Set once, when writes begin to be accepted.
        let _first = self.staging.set(Arc::clone(staging));
    }

    /// Gives what is staged of an entry.
    pub(crate) fn staged(&self, id: EntryId) -> Option<Arc<StagedFile>> {
        self.staging.get()?.get(id)
    }

    /// Gives what was written to an open file that has lost its name.
    pub(crate) fn staged_without_name(&self, id: EntryId) -> Option<Arc<StagedFile>> {
        self.staging.get()?;
        self.open_objects(id).iter().find_map(|open| match &**open {
            OpenFile::Object(open) => open.staged(|| None),
            _ => None,
        })
    }

    /// Has all who have an object open read another version of it from now on: what was written through here has become that.
    pub(crate) fn rebind(&self, id: EntryId, object: &Arc<Object>) {
        for open in self.open_objects(id) {
            if let OpenFile::Object(open) = &*open {
                *open.object.write() = Arc::clone(object);
            }
        }
    }

    /// Finds what is open of other entries in a version at a place.
    pub(crate) fn open_at(&self, place: (SourceId, &ObjectPath), version: &Version, but: EntryId) -> Vec<Arc<Object>> {
        let files = self.files.read();
        let objects = files.values().filter_map(|file| match &**file {
            OpenFile::Object(open) => Some(open.object()),
            OpenFile::Local(..) | OpenFile::Kernels(..) => None,
        });
        objects
            .filter(|it| it.id != but && (it.source, &it.path) == place && it.version == *version)
            .collect()
    }

    /// Says of a file that its name goes, or has gone: another that comes to where it was could look like it, where its source tells
    /// versions by their length and seconds, so that it is not read from there any more.
    pub(crate) fn lose_place(&self, id: EntryId) {
        for file in self.open_objects(id) {
            if let OpenFile::Object(open) = &*file {
                let object = open.object();
                object.lose_place(object.version.grain().is_some());
            }
        }
    }

    /// Has all who have an object open keep what is staged of it: its name is about to go.
    pub(crate) fn meet(&self, id: EntryId, file: &Arc<StagedFile>) {
        for open in self.open_objects(id) {
            if let OpenFile::Object(open) = &*open {
                open.meet(file);
            }
        }
    }

    fn open_objects(&self, id: EntryId) -> Vec<Arc<OpenFile>> {
        let files = self.files.read();
        files.values().filter(|file| file.id() == id).map(Arc::clone).collect()
    }

    /// Gives the file behind a handle, if it is one of this machine that is open here.
    pub(crate) fn local(&self, handle: Handle) -> Option<(EntryId, SourceId, Arc<LocalFile>)> {
        match &**self.files.read().get(&handle)? {
            OpenFile::Local(id, source, file) => Some((*id, *source, Arc::clone(file))),
            OpenFile::Kernels(..) | OpenFile::Object(_) => None,
        }
    }

    /// Gives a file that is open for writing under an entry.
    pub(crate) fn writer(&self, id: EntryId) -> Option<Arc<LocalFile>> {
        self.open_here(id).filter(|file| file.writes())
    }

    /// Gives a file of this machine that is open here under an entry, for writing if any is.
    pub(crate) fn open_here(&self, id: EntryId) -> Option<Arc<LocalFile>> {
        if self.locals.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let entries = self.entries.lock();
        let locals = &entries.get(&id)?.locals;
        let (_, file) = locals.iter().find(|(_, file)| file.writes()).or(locals.first())?;
        Some(Arc::clone(file))
    }

    /// Gives the source of an open entry.
    pub(crate) fn source(&self, id: EntryId) -> Option<SourceId> {
        if !self.is_open(id) {
            return None;
        }
        if let Some(Parted::Local(source, _)) = self.parted(id).as_deref() {
            return Some(*source);
        }
        let files = self.files.read();
        files.values().find(|file| file.id() == id).map(|file| file.source())
    }

    /// Notes the attributes of an open entry.
    pub(crate) fn note_attributes(&self, id: EntryId, attributes: Attributes) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.attributes = Some(attributes);
        }
    }

    /// Gives the attributes that an open entry had when it was opened.
    pub(crate) fn attributes(&self, id: EntryId) -> Option<Attributes> {
        self.entries.lock().get(&id)?.attributes.clone()
    }

    /// Closes the file of this machine behind a handle, and keeps the handle. What is open for writing stays: its attributes
    /// are asked for, and it is synced.
    pub(crate) fn leave_to_kernel(&self, handle: Handle) {
        let mut files = self.files.write();
        let Some(file) = files.get_mut(&handle) else { return };
        if let OpenFile::Local(id, source, local) = &**file
            && !local.writes()
        {
            let (id, local) = (*id, Arc::clone(local));
            *file = Arc::new(OpenFile::Kernels(id, *source));
            drop(files);
            self.forget_local(id, handle);
            self.keep_at_hand(id, handle, local);
        }
    }

    fn next_handle(&self) -> Handle {
        Handle(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn enter(&self, entry: &mut OpenEntry, handle: Handle, file: &OpenFile) {
        entry.handles += 1;
        if let OpenFile::Local(_, _, local) = file {
            self.locals.fetch_add(1, Ordering::Relaxed);
            entry.locals.push((handle, Arc::clone(local)));
        }
    }

    fn forget_local(&self, id: EntryId, handle: Handle) {
        self.locals.fetch_sub(1, Ordering::Relaxed);
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.locals.retain(|(it, _)| *it != handle);
        }
    }

    /// Closes a handle.
    pub(crate) fn release(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        let file = self.files.write().remove(&handle)?;
        if let OpenFile::Local(id, ..) = &*file {
            self.forget_local(*id, handle);
        }
        if let Some(entry) = self.entries.lock().get_mut(&file.id()) {
            entry.handles -= 1;
        }
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

    /// Takes an opening off the count. Gives what was left of the entry if that was the last: letting go of it may take a disk a while.
    fn end(&self, id: EntryId) -> Option<OpenEntry> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id)?;
        entry.count -= 1;
        if entry.count > 0 {
            return None;
        }
        self.closed.notify_waiters();
        entries.remove(&id)
    }
}

impl Opening<'_> {
    /// Turns the opening into a handle.
    pub(crate) fn finish(self, file: OpenFile, attributes: Attributes) -> Handle {
        self.files.note_attributes(self.id, attributes);
        self.finish_as_noted(file)
    }

    /// As [`finish`](Self::finish), of an entry whose attributes were noted when it lost its name.
    pub(crate) fn finish_as_noted(self, file: OpenFile) -> Handle {
        let handle = self.files.next_handle();
        if let Some(entry) = self.files.entries.lock().get_mut(&self.id) {
            self.files.enter(entry, handle, &file);
        }
        self.conclude(handle, file)
    }

    /// As [`finish`](Self::finish), where the entry has not lost its name since the opening began. Else something else may stand behind
    /// its number.
    pub(crate) fn finish_named(self, file: OpenFile, attributes: Attributes) -> Option<Handle> {
        let handle = self.files.next_handle();
        {
            let mut entries = self.files.entries.lock();
            let entry = entries.get_mut(&self.id).filter(|entry| entry.parted.is_none())?;
            entry.attributes = Some(attributes);
            self.files.enter(entry, handle, &file);
        }
        Some(self.conclude(handle, file))
    }

    fn conclude(self, handle: Handle, file: OpenFile) -> Handle {
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
            Self::Local(id, ..) | Self::Kernels(id, _) => *id,
            Self::Object(open) => open.object.read().id,
        }
    }

    fn source(&self) -> SourceId {
        match self {
            Self::Local(_, source, _) | Self::Kernels(_, source) => *source,
            Self::Object(open) => open.object.read().source,
        }
    }
}
