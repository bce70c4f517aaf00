//! Changing: what an adaptor may ask for, and which half of this room does it.
//!
//! A change is made at the source that the entry belongs to: on a disk of this machine ([`local`]) it is done there and
//! then, and the catalog follows in the same request; elsewhere it is staged ([`remote`]). The library's own directories
//! and the places where sources are attached belong to nobody and are not changed through here.
//!
//! Always true: a change whose answer is [`Error::ReadOnly`] has changed nothing, and one that was answered well can be
//! seen by whoever asks next.

mod answered;
pub(crate) mod follow;
mod local;
mod one;
mod own;
mod paths;
pub(crate) mod remote;

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_backends::local::{
    Asker, AttributeChange, Durable, LocalBackend, Making, RenameMode, Seek, SetMode, WriteAt,
};
use manifold_catalog::{Entry, EntryId, Kind, SourceId};
use manifold_index::names::{self, Side};

pub(crate) use own::OwnChanges;
use paths::Paths;
pub(crate) use remote::Removal;

use crate::attributes::Attributes;
use crate::error::Cause;
use crate::fetch::object::not_connected;
use crate::handle::{Access, Handle, OpenFile, Opened};
use crate::vfs::{Core, Vfs};
use crate::{Answer, Error};

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process, or 0.
    pub pid: u32,
    /// The permissions that what it makes is not to have.
    pub umask: u32,
}

impl Requester {
    fn asker(self) -> Asker {
        Asker {
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
        }
    }

    /// Tells whether it may keep set-user-ID bits through a change of the bytes, and see what only the system may see.
    fn is_privileged(self) -> bool {
        self.uid == 0
    }
}

/// A file that was made, or found, and opened.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its attributes.
    pub attributes: Attributes,
    /// The open file.
    pub opened: Opened,
    /// Whether it was made: else nobody has cut it off yet, nor asked whether the asker may open it.
    pub is_new: bool,
}

/// How a file is made that is opened at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Permission bits, before the asker's mask.
    pub mode: u32,
    /// What it is opened for.
    pub access: Access,
    /// Whether one that is there already is refused.
    pub exclusive: bool,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writing {
    /// Where.
    pub at: WriteAt,
    /// What has to be on the disk when it returns.
    pub durable: Durable,
    /// Whether set-user-ID and set-group-ID bits stay.
    pub keep_privileges: bool,
}

/// A directory in which something is to be changed.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) directory: EntryId,
    /// The directory in which that stands.
    pub(crate) parent: EntryId,
    pub(crate) source: SourceId,
    pub(crate) path: ObjectPath,
}

/// Which half of this room changes a source.
pub(crate) enum Half {
    Local(LocalBackend),
    Remote,
}

impl Vfs {
    /// Makes a file, or finds it, and opens it.
    pub fn create(&self, directory: EntryId, name: &[u8], creation: Creation, by: Requester) -> Answer<Created> {
        let core = &self.core;
        core.in_union_or(
            directory,
            || core.create_joined(directory, name.into(), creation, by),
            || core.create_in(directory, name, creation, by),
        )
    }

    /// Makes a directory.
    pub fn make_directory(&self, directory: EntryId, name: &[u8], mode: u32, by: Requester) -> Answer<Attributes> {
        self.make(directory, name, Making::Directory, mode, by)
    }

    /// Makes a file that is not opened, a named pipe, a socket or a device.
    pub fn make_node(
        &self,
        directory: EntryId,
        name: &[u8],
        making: Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        self.make(directory, name, making, mode, by)
    }

    /// Makes a symbolic link.
    pub fn make_symlink(&self, directory: EntryId, name: &[u8], target: &[u8], by: Requester) -> Answer<Attributes> {
        self.make(directory, name, Making::Symlink(target.into()), 0o777, by)
    }

    fn make(&self, directory: EntryId, name: &[u8], making: Making, mode: u32, by: Requester) -> Answer<Attributes> {
        let core = &self.core;
        match core.is_in_union(directory) {
            Ok(true) => core.make_joined(directory, name.into(), making, mode, by),
            Ok(false) => core.make_in(directory, name, making, mode, by),
            Err(error) => Answer::err(error),
        }
    }

    /// Gives a file a further name, which has an entry of its own.
    pub fn make_link(&self, id: EntryId, directory: EntryId, name: &[u8]) -> Answer<Attributes> {
        let core = &self.core;
        core.in_union_or(
            directory,
            || core.link_joined(id, directory, name.into()),
            || core.link_in(id, directory, name),
        )
    }

    /// Removes a name of anything but a directory. What is open stays usable until it is closed.
    pub fn remove_file(&self, directory: EntryId, name: &[u8]) -> Answer<()> {
        self.remove(directory, name, false)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, directory: EntryId, name: &[u8]) -> Answer<()> {
        self.remove(directory, name, true)
    }

    fn remove(&self, directory: EntryId, name: &[u8], is_directory: bool) -> Answer<()> {
        let core = &self.core;
        core.in_union_or(
            directory,
            || core.remove_joined(directory, name.into(), is_directory),
            || core.remove_in(directory, name, is_directory, Removal::Asked),
        )
    }

    /// Renames something within its source, or within a union.
    pub fn rename(&self, from: (EntryId, &[u8]), to: (EntryId, &[u8]), mode: RenameMode) -> Answer<()> {
        let core = &self.core;
        let joined = core
            .is_in_union(from.0)
            .and_then(|one| Ok((one, core.is_in_union(to.0)?)));
        let renamed = match joined {
            Ok((false, false)) => core.rename_in(from, to, mode),
            Ok((true, true)) => core.rename_joined((from.0, from.1.into()), (to.0, to.1.into()), mode),
            Ok(_) => Answer::err(Error::CrossSource),
            Err(error) => Answer::err(error),
        };
        match renamed {
            // What makes way does so for an upload, and whatever is uploaded is renamed in such an answer.
            Answer::Pending(renaming) => {
                let core = Arc::clone(core);
                let (name, (directory, new_name)) = (Box::<[u8]>::from(from.1), (to.0, Box::<[u8]>::from(to.1)));
                Answer::Pending(Box::pin(async move {
                    renaming.await?;
                    core.tell_of_new_name(&name, directory, new_name);
                    Ok(())
                }))
            }
            done @ Answer::Ready(_) => done,
        }
    }

    /// Changes attributes, and gives them all as they are then.
    pub fn set_attributes(
        &self,
        id: EntryId,
        handle: Option<Handle>,
        change: AttributeChange,
        by: Requester,
    ) -> Answer<Attributes> {
        let core = &self.core;
        match core.is_in_union(id) {
            Ok(true) => core.set_attributes_joined(id, change, by),
            Ok(false) => core.set_attributes_in(id, handle, change, by),
            Err(error) => Answer::err(error),
        }
    }

    /// Writes to an open file, and says how many bytes.
    pub fn write(&self, handle: Handle, bytes: &[u8], writing: Writing) -> Answer<u32> {
        match self.core.files.get(handle).as_deref() {
            Some(OpenFile::Local(id, source, file)) if file.writes() => {
                self.core.local_write(*id, *source, file, bytes, writing)
            }
            Some(OpenFile::Object(_)) => self.core.remote_write(handle, bytes, writing),
            _ => Answer::err(Error::BadHandle),
        }
    }

    /// Waits until what was written to a file is on the disk: the bytes, or everything.
    pub fn sync(&self, id: EntryId, handle: Handle, data_only: bool) -> Answer<()> {
        match self.core.files.get(handle).as_deref() {
            Some(OpenFile::Local(_, source, file)) => self.core.local_sync(id, *source, file, data_only),
            // Nothing was written through this handle; what others wrote may have to be synced.
            Some(OpenFile::Kernels(_, source)) => match self.core.reopened(id) {
                Ok(file) => self.core.local_sync(id, *source, &file, data_only),
                Err(error) => Answer::err(error),
            },
            Some(OpenFile::Object(_)) => self.core.remote_sync(handle, data_only),
            None => Answer::err(Error::BadHandle),
        }
    }

    /// Waits until the names in a directory are on the disk.
    pub fn sync_directory(&self, id: EntryId) -> Answer<()> {
        match self.core.merged(id) {
            Ok(Some(merged)) => self.core.sync_joined(&merged),
            Ok(None) => self.core.sync_directory_in(id),
            Err(error) => Answer::err(error),
        }
    }

    /// Makes room, or holes, in an open file, in the way that `mode` says as `fallocate(2)` does.
    pub fn allocate(&self, handle: Handle, mode: u32, offset: u64, length: u64, by: Requester) -> Answer<()> {
        match self.core.files.get(handle).as_deref() {
            Some(OpenFile::Local(id, source, file)) if file.writes() => {
                self.core
                    .local_allocate(*id, *source, file, mode, offset..offset.saturating_add(length), by)
            }
            Some(OpenFile::Object(_)) => self.core.remote_allocate(handle, mode, offset, length),
            _ => Answer::err(Error::BadHandle),
        }
    }

    /// Looks for data or a hole in an open file, from an offset on.
    pub fn seek(&self, id: EntryId, handle: Handle, what: Seek, offset: u64) -> Answer<u64> {
        match self.core.files.get(handle).as_deref() {
            Some(OpenFile::Local(_, source, file)) => self.core.local_seek(*source, file, what, offset),
            Some(OpenFile::Kernels(_, source)) => match self.core.reopened(id) {
                Ok(file) => self.core.local_seek(*source, &file, what, offset),
                Err(error) => Answer::err(error),
            },
            Some(OpenFile::Object(open)) => {
                Answer::Ready(local::seek_without_holes(self.core.size_of(open), what, offset))
            }
            None => Answer::err(Error::BadHandle),
        }
    }

    /// Copies bytes from one open file to another, where their source can do that by itself; else [`Error::Unsupported`] or
    /// [`Error::CrossSource`], and whoever asked copies. Says how many bytes.
    pub fn copy_range(
        &self,
        from: (EntryId, Handle, u64),
        to: (Handle, u64),
        length: u64,
        by: Requester,
    ) -> Answer<u64> {
        let Some((id, source, target)) = self.core.files.local(to.0).filter(|(_, _, file)| file.writes()) else {
            return Answer::err(Error::CrossSource);
        };
        let origin = match self.core.files.get(from.1).as_deref() {
            Some(OpenFile::Local(_, _, file)) => Ok(Arc::clone(file)),
            Some(OpenFile::Kernels(..)) => self.core.reopened(from.0),
            Some(OpenFile::Object(_)) => Err(Error::CrossSource),
            None => Err(Error::BadHandle),
        };
        match origin {
            Ok(origin) => self
                .core
                .local_copy((&origin, from.2), (id, source, &target, to.1), length, by),
            Err(error) => Answer::err(error),
        }
    }

    /// Gives the value of an extended attribute. What is kept here needs no source.
    pub fn attribute(&self, id: EntryId, name: &[u8]) -> Answer<Vec<u8>> {
        let id = match self.core.speaker(id) {
            Ok(id) => id,
            Err(error) => return Answer::err(error),
        };
        match self.core.kept_attribute(id, name) {
            Ok(Some(value)) => return Answer::ok(value),
            Ok(None) => {}
            Err(error) => return Answer::err(error),
        }
        let name = Box::<[u8]>::from(name);
        self.core.at_readable(id, move |core, source, half| match half {
            Half::Local(local) => core.local_attribute(&local, id, source, name),
            Half::Remote => Answer::Ready(Err(core.no_attribute(source, &name))),
        })
    }

    /// Gives the names of all extended attributes that may be shown to whoever asks, each with a NUL after it. Those that are
    /// kept here need no source.
    pub fn attribute_names(&self, id: EntryId, by: Requester) -> Answer<Vec<u8>> {
        let id = match self.core.speaker(id) {
            Ok(id) => id,
            Err(error) => return Answer::err(error),
        };
        match self.core.kept_attribute_names(id) {
            Ok(names) if !names.is_empty() => return Answer::ok(names),
            Ok(_) => {}
            Err(error) => return Answer::err(error),
        }
        self.core.at_readable(id, move |core, source, half| match half {
            Half::Local(local) => core.local_attribute_names(&local, id, source, by),
            Half::Remote => Answer::ok(Vec::new()),
        })
    }

    /// Sets an extended attribute.
    pub fn set_attribute(&self, id: EntryId, name: &[u8], value: &[u8], mode: SetMode) -> Answer<()> {
        let core = &self.core;
        core.in_union_or(
            id,
            || core.set_attribute_joined(id, name.into(), value.into(), mode),
            || core.set_attribute_in(id, name, value, mode),
        )
    }

    /// Takes an extended attribute away.
    pub fn remove_attribute(&self, id: EntryId, name: &[u8]) -> Answer<()> {
        let core = &self.core;
        core.in_union_or(
            id,
            || core.remove_attribute_joined(id, name.into()),
            || core.remove_attribute_in(id, name),
        )
    }

    /// Says whether a source may be changed.
    pub fn set_read_only(&self, source: SourceId, read_only: bool) {
        let mut sources = self.core.read_only.write();
        if read_only {
            sources.insert(source);
        } else {
            sources.remove(&source);
        }
    }

    /// Tells whether a source may be changed: it is not said to be read only, and is of a kind that can be.
    pub fn may_change(&self, source: SourceId) -> bool {
        matches!(self.core.half_of_source(source), Ok(Half::Local(_)))
    }
}

impl Site {
    /// Gives the raw name that a new name stands for.
    pub(crate) fn raw_name(name: &[u8]) -> Result<Vec<u8>, Error> {
        if name.len() > names::NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        match names::unescape(name) {
            Some((raw, Side::Plain)) => Ok(raw),
            // It could not be shown under the name that was asked for.
            _ => Err(Error::InvalidArgument),
        }
    }
}

impl Core {
    /// Changes something in a directory, once that is connected and has been listed.
    fn in_directory<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        paths: Paths,
        change: impl FnOnce(&Arc<Self>, Site, Half) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let site = match self.entry_of(directory) {
            Ok(entry) if entry.kind != Kind::Directory => return Answer::err(Error::NotADirectory),
            Ok(entry) => entry,
            Err(error) => return Answer::err(error),
        };
        self.when_connected(site.source, move |core| {
            let half = match core.half_of_source(site.source) {
                Ok(half) => half,
                Err(error) => return Answer::err(error),
            };
            match core.is_listed(directory) {
                Err(error) => Answer::err(error),
                Ok(true) => core.at_site(&site, half, paths, change),
                Ok(false) => {
                    let core = Arc::clone(core);
                    Answer::Pending(Box::pin(async move {
                        core.list(directory).await?;
                        core.at_site(&site, half, paths, change).wait().await
                    }))
                }
            }
        })
    }

    fn at_site<T>(
        self: &Arc<Self>,
        entry: &Entry,
        half: Half,
        paths: Paths,
        change: impl FnOnce(&Arc<Self>, Site, Half) -> Answer<T>,
    ) -> Answer<T> {
        let local = match &half {
            Half::Local(local) => Some(local.clone()),
            Half::Remote => None,
        };
        let at = move || self.at_path(entry, half, change);
        match local {
            Some(local) => self.with_paths(entry.source, &local, paths, at),
            None => at(),
        }
    }

    fn at_path<T>(
        self: &Arc<Self>,
        entry: &Entry,
        half: Half,
        change: impl FnOnce(&Arc<Self>, Site, Half) -> Answer<T>,
    ) -> Answer<T> {
        match self.catalog.object_path(entry.id).map_err(Error::from_catalog) {
            Ok(Some((source, path))) => {
                let site = Site {
                    directory: entry.id,
                    parent: entry.parent,
                    source,
                    path: ObjectPath::from_bytes(path),
                };
                change(self, site, half)
            }
            Ok(None) => Answer::err(Error::Stale),
            Err(error) => Answer::err(error),
        }
    }

    /// As [`while_names_stay`](Self::while_names_stay), for a file of a remote source: it does not come to a folder of this
    /// machine meanwhile.
    pub(crate) fn while_it_stays<T>(&self, source: SourceId, work: impl FnOnce() -> T) -> T {
        self.with_paths_of(source, Paths::Stay, work)
    }

    /// Changes an entry itself, once its source is connected.
    fn at_entry<T: Send + 'static>(
        self: &Arc<Self>,
        id: EntryId,
        change: impl FnOnce(&Arc<Self>, SourceId, Half) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        match self.source_of(id) {
            Ok(source) => self.when_connected(source, move |core| match core.half_of_source(source) {
                Ok(Half::Local(local)) => {
                    let half = Half::Local(local.clone());
                    core.with_paths(source, &local, Paths::Stay, || change(core, source, half))
                }
                Ok(half) => change(core, source, half),
                Err(error) => Answer::err(error),
            }),
            Err(error) => Answer::err(error),
        }
    }

    /// As [`at_entry`](Self::at_entry), for what changes nothing.
    fn at_readable<T: Send + 'static>(
        self: &Arc<Self>,
        id: EntryId,
        read: impl FnOnce(&Arc<Self>, SourceId, Half) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        match self.source_of(id) {
            // What is not a folder of this machine, or is away, has no more to say than is known here.
            Ok(source)
                if self
                    .indexer
                    .backend(source)
                    .is_none_or(|backend| backend.as_local().is_none()) =>
            {
                read(self, source, Half::Remote)
            }
            Ok(source) => self.when_connected(source, move |core| match core.readable_half(source) {
                Ok(Half::Local(local)) => {
                    let half = Half::Local(local.clone());
                    core.with_paths(source, &local, Paths::Stay, || read(core, source, half))
                }
                Ok(Half::Remote) => read(core, source, Half::Remote),
                Err(error) => Answer::err(error),
            }),
            Err(error) => Answer::err(error),
        }
    }

    /// Does something when a source is connected, within the deadline.
    fn when_connected<T: Send + 'static>(
        self: &Arc<Self>,
        source: SourceId,
        work: impl FnOnce(&Arc<Self>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        if !self.indexer.is_expected(source) {
            return work(self);
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let deadline = core.settings.metadata_deadline;
            let connected = core.indexer.until_connected(source);
            if tokio::time::timeout(deadline, connected).await.is_err() {
                let after = deadline.as_secs_f32();
                return Err(Error::TimedOut(Cause::new(format!(
                    "source {source} was not connected within {after} s"
                ))));
            }
            work(&core).wait().await
        }))
    }

    pub(crate) fn entry_of(&self, id: EntryId) -> Result<Entry, Error> {
        self.catalog.entry(id).map_err(Error::from_catalog)?.ok_or(Error::Stale)
    }

    /// Finds the source of an entry, also of one that is open and has no name any more.
    pub(crate) fn source_of(&self, id: EntryId) -> Result<SourceId, Error> {
        match self.catalog.entry(id).map_err(Error::from_catalog)? {
            Some(entry) => Ok(entry.source),
            None => self.files.source(id).ok_or(Error::Stale),
        }
    }

    fn half_of(&self, id: EntryId) -> Result<(SourceId, Half), Error> {
        let source = self.source_of(id)?;
        Ok((source, self.half_of_source(source)?))
    }

    /// As [`half_of_source`](Self::half_of_source), for what changes nothing.
    fn readable_half(&self, source: SourceId) -> Result<Half, Error> {
        if source == SourceId::LIBRARY {
            return Ok(Half::Remote);
        }
        self.half(source)
    }

    pub(crate) fn half_of_source(&self, source: SourceId) -> Result<Half, Error> {
        if source == SourceId::LIBRARY || self.read_only.read().contains(&source) {
            return Err(Error::ReadOnly);
        }
        self.half(source)
    }

    fn half(&self, source: SourceId) -> Result<Half, Error> {
        let backend = self
            .indexer
            .backend(source)
            .ok_or_else(|| not_connected(&self.indexer, source))?;
        Ok(match backend.as_local() {
            Some(local) => Half::Local(local.clone()),
            None => Half::Remote,
        })
    }
}
