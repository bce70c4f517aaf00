//! Changing what one source has: each change is made at the source that the directory, or the entry, belongs to; and the room that there is.

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_backends::local::{AttributeChange, Making, RenameMode, SetMode, Space};
use manifold_catalog::{EntryId, SourceId};

use super::{Created, Creation, Half, Paths, Requester};
use crate::attributes::Attributes;
use crate::handle::Handle;
use crate::vfs::Core;
use crate::{Answer, Error};

impl Core {
    /// Makes a file, or finds it, and opens it.
    pub(crate) fn create_in(
        self: &Arc<Self>,
        directory: EntryId,
        name: &[u8],
        creation: Creation,
        by: Requester,
    ) -> Answer<Created> {
        let name = Box::from(name);
        self.in_directory(directory, Paths::Stay, move |core, site, half| match half {
            Half::Local(local) => core.local_create(&local, site, name, creation, by),
            Half::Remote => core.remote_create(&site, &name, creation, by),
        })
    }

    /// Makes anything else.
    pub(crate) fn make_in(
        self: &Arc<Self>,
        directory: EntryId,
        name: &[u8],
        making: Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        let name = Box::from(name);
        self.in_directory(directory, Paths::Stay, move |core, site, half| match half {
            Half::Local(local) => core.local_make(&local, site, name, making, mode, by),
            Half::Remote => core.remote_make(&site, &name, &making, mode, by),
        })
    }

    /// Gives a file a further name.
    pub(crate) fn link_in(self: &Arc<Self>, id: EntryId, directory: EntryId, name: &[u8]) -> Answer<Attributes> {
        let name = Box::from(name);
        self.in_directory(directory, Paths::Stay, move |core, site, half| {
            match core.source_of(id) {
                Ok(source) if source == site.source => {}
                Ok(_) => return Answer::err(Error::CrossSource),
                Err(error) => return Answer::err(error),
            }
            match half {
                Half::Local(local) => core.local_link(&local, id, site, name),
                Half::Remote => core.remote_link(id, &site, &name),
            }
        })
    }

    /// Removes a name.
    pub(crate) fn remove_in(self: &Arc<Self>, directory: EntryId, name: &[u8], is_directory: bool) -> Answer<()> {
        let name = Box::from(name);
        self.in_directory(directory, Paths::Change, move |core, site, half| match half {
            Half::Local(local) => core.local_remove(&local, &site, &name, is_directory),
            Half::Remote => core.remote_remove(&site, &name, is_directory),
        })
    }

    /// Renames something within its source.
    pub(crate) fn rename_in(
        self: &Arc<Self>,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        mode: RenameMode,
    ) -> Answer<()> {
        let (target, names) = (to.0, (Box::from(from.1), Box::from(to.1)));
        self.in_directory(from.0, Paths::Change, move |core, from, _| {
            core.in_directory(target, Paths::Kept, move |core, to, half| {
                if from.source != to.source {
                    return Answer::err(Error::CrossSource);
                }
                match half {
                    Half::Local(local) => core.local_rename(&local, (from, names.0), (to, names.1), mode),
                    Half::Remote => core.lasting(core.remote_rename((&from, &names.0), (&to, &names.1), mode)),
                }
            })
        })
    }

    /// Changes attributes, and gives them all as they are then.
    pub(crate) fn set_attributes_in(
        self: &Arc<Self>,
        id: EntryId,
        handle: Option<Handle>,
        change: AttributeChange,
        by: Requester,
    ) -> Answer<Attributes> {
        self.at_entry(id, move |core, source, half| match half {
            Half::Local(local) => core.local_set_attributes(&local, id, source, handle, change, by),
            Half::Remote => core.remote_set_attributes(id, handle, change),
        })
    }

    /// Sets an extended attribute.
    pub(crate) fn set_attribute_in(
        self: &Arc<Self>,
        id: EntryId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Answer<()> {
        let (name, value) = (Box::<[u8]>::from(name), Box::<[u8]>::from(value));
        self.at_entry(id, move |core, source, half| match half {
            Half::Local(local) => core.local_set_attribute(&local, id, source, name, value, mode),
            Half::Remote => core.remote_set_attribute(id, &name, &value, mode),
        })
    }

    /// Takes an extended attribute away.
    pub(crate) fn remove_attribute_in(self: &Arc<Self>, id: EntryId, name: &[u8]) -> Answer<()> {
        let name = Box::<[u8]>::from(name);
        self.at_entry(id, move |core, source, half| match half {
            Half::Local(local) => core.local_remove_attribute(&local, id, source, name),
            Half::Remote => core.remote_remove_attribute(id, &name),
        })
    }

    /// Waits until the names in a directory are on the disk.
    pub(crate) fn sync_directory_in(self: &Arc<Self>, id: EntryId) -> Answer<()> {
        match self.half_of(id) {
            Ok((source, Half::Local(local))) => self.local_sync_directory(&local, source, id),
            // What is staged there was made durable with each change.
            Ok((_, Half::Remote)) => self.sync_catalog(),
            Err(Error::ReadOnly) => Answer::ok(()),
            Err(error) => Answer::err(error),
        }
    }

    /// Gives the room of the disk that a source is on, where that can be changed; as last known while the disk is not there.
    pub(crate) fn space_of_source(&self, source: SourceId) -> Option<Space> {
        let Ok(Half::Local(local)) = self.half_of_source(source) else {
            return None;
        };
        if local.may_hang(&ObjectPath::root()) {
            return None;
        }
        // Asked without the lock.
        let now = local.space();
        let mut last = self.spaces.lock();
        if let Ok(space) = now {
            last.insert(source, space);
        }
        last.get(&source).copied()
    }
}
