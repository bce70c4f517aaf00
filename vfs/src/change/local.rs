//! Changes on disks of this machine: done there and then, and the catalog follows before the answer.
//!
//! They are made on the thread that asked, as a look is; where a file system may hang, on threads of its source, within the
//! deadline. What has been begun there is done to its end and followed, whoever still waits for it. What may take long on
//! a disk that does not hang (syncing, copying, making room) is made on those threads too, and has as long as the disk
//! takes: an error for what succeeds a moment later would be a lie.

mod attributes;
mod data;
mod names;

use std::sync::Arc;

use manifold_backends::local::{FileAccess, Held, LocalBackend, LocalFile};
use manifold_backends::{ObjectPath, Operation, Presence};
use manifold_catalog::{EntryId, SourceId};

pub(super) use data::seek_without_holes;

use crate::fetch::object::rows;
use crate::open::allows_the_same;
use crate::vfs::Core;
use crate::{Answer, Error};

/// How often something is taken at hand that is being changed through the mount.
const HOLD_TRIES: usize = 3;

impl Core {
    /// Makes a change of a source of this machine.
    fn at_disk<T: Send + 'static>(
        self: &Arc<Self>,
        local: &LocalBackend,
        source: SourceId,
        path: &ObjectPath,
        operation: Operation,
        work: impl FnOnce(&Arc<Self>, &LocalBackend) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        if local.may_hang(path) {
            self.at_slow_disk(local, source, path, operation, work)
        } else {
            Answer::Ready(work(self, local))
        }
    }

    /// The same on a thread of the source: within the deadline where that may hang, and else for as long as the disk takes.
    fn at_slow_disk<T: Send + 'static>(
        self: &Arc<Self>,
        local: &LocalBackend,
        source: SourceId,
        path: &ObjectPath,
        operation: Operation,
        work: impl FnOnce(&Arc<Self>, &LocalBackend) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        let (core, local, path) = (Arc::clone(self), local.clone(), path.clone());
        Answer::Pending(Box::pin(async move {
            let deadline = core.settings.metadata_deadline;
            let (worker, may_hang) = (Arc::clone(&core), local.may_hang(&path));
            let made = local.on_thread(operation, &path, move |local| work(&worker, local));
            if !may_hang {
                return done(made.await)?;
            }
            let asked = core.indexer.ask(source, &path, deadline, made).await;
            asked.map_err(Error::from_index)?
        }))
    }

    /// Does something with an open file of this machine: here, or where that may hang or `is_long` on a thread of its source.
    fn with_file<T: Send + 'static>(
        self: &Arc<Self>,
        source: SourceId,
        file: &Arc<LocalFile>,
        operation: Operation,
        is_long: bool,
        work: impl FnOnce(&Arc<Self>, &LocalFile) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        if !file.may_hang() && !is_long {
            return Answer::Ready(work(self, file));
        }
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let long = async move {
            let deadline = core.settings.data_deadline;
            let worker = Arc::clone(&core);
            let made = file.on_thread(operation, move |file| Ok(work(&worker, file)));
            if file.may_hang() {
                let asked = core.indexer.ask(source, file.path(), deadline, made).await;
                return asked.map_err(Error::from_index)?;
            }
            made.await.map_err(|error| Error::from_backend(&Arc::new(error)))?
        };
        Answer::Pending(Box::pin(long))
    }

    /// Takes an entry at hand, for its attributes: what is open by its descriptor, all else by its path.
    fn hold_any(&self, local: &LocalBackend, id: EntryId) -> Result<Held, Error> {
        if let Some(held) = self.at_hand_here(id) {
            return Ok(held);
        }
        let path = self.path_of(id)?;
        self.hold_at(local, id, &path)
    }

    fn at_hand_here(&self, id: EntryId) -> Option<Held> {
        let writer = self.files.writer(id).map(|writer| writer.held());
        writer.or_else(|| self.files.held(id))
    }

    fn hold_at(&self, local: &LocalBackend, id: EntryId, path: &ObjectPath) -> Result<Held, Error> {
        found(local.hold(path)).inspect_err(|error| {
            if matches!(error, Error::NotFound) {
                self.look_again(id);
            }
        })
    }

    /// The same for a change, if everybody may do the same with it as with what is known there. To be called before the change begins: the
    /// catalog may have to learn of it.
    fn hold(&self, local: &LocalBackend, id: EntryId) -> Result<Held, Error> {
        if let Some(held) = self.at_hand_here(id) {
            return Ok(held);
        }
        for _ in 0..HOLD_TRIES {
            let ticket = self.catalog.ticket();
            let path = self.path_of(id)?;
            let held = self.hold_at(local, id, &path)?;
            let seen = done(held.metadata())?;
            let (entry, details) = rows(&self.catalog, id)?;
            if allows_the_same(&entry, &seen) {
                return Ok(held);
            }
            // Whether whoever asks may do that was found out by what was known of it. With this answer that is asked anew.
            let ticket = ticket.by_path(path.as_bytes());
            if self.take_in(&entry, details.identity, &seen, ticket, None)? {
                return Err(Error::Stale);
            }
        }
        Err(Error::Stale)
    }

    pub(super) fn path_of(&self, id: EntryId) -> Result<ObjectPath, Error> {
        let path = self.catalog.object_path(id).map_err(Error::from_catalog)?;
        path.map(|(_, path)| ObjectPath::from_bytes(path)).ok_or(Error::Stale)
    }

    /// Gives the path of an entry, or of what is open under it and has no name any more.
    fn last_path_of(&self, id: EntryId) -> Result<ObjectPath, Error> {
        self.path_of(id).or_else(|error| match self.files.held(id) {
            Some(held) => Ok(held.path().clone()),
            None => self.files.writer(id).map(|file| file.path().clone()).ok_or(error),
        })
    }

    /// Opens a file anew for reading that the kernel has open by itself.
    pub(super) fn reopened(&self, id: EntryId) -> Result<Arc<LocalFile>, Error> {
        let source = self.source_of(id)?;
        let super::Half::Local(local) = self.readable_half(source)? else {
            return Err(Error::BadHandle);
        };
        let path = self.last_path_of(id)?;
        if local.may_hang(&path) {
            // The kernel has no such file open by itself.
            return Err(Error::BadHandle);
        }
        let held = self.while_names_stay(source, &local, || self.hold_any(&local, id))?;
        let opened = local.open_held(&held, FileAccess::Read);
        let (file, _) = opened.map_err(|error| Error::from_backend(&Arc::new(error)))?;
        Ok(Arc::new(file))
    }
}

/// Takes a disk's answer; what is not there is [`Error::NotFound`].
pub(super) fn found<T>(answer: manifold_backends::Result<Presence<T>>) -> Result<T, Error> {
    match answer {
        Ok(Presence::Found(value)) => Ok(value),
        Ok(Presence::Absent) => Err(Error::NotFound),
        Err(error) => Err(Error::from_backend(&Arc::new(error))),
    }
}

pub(super) fn done<T>(answer: manifold_backends::Result<T>) -> Result<T, Error> {
    answer.map_err(|error| Error::from_backend(&Arc::new(error)))
}
