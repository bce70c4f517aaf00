//! Changing what one source has: each change is made at the source that the directory, or the entry, belongs to; and the room that there is.

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_backends::local::{AttributeChange, Making, RenameMode, SetMode, Space};
use manifold_catalog::{EntryId, SourceId};

use super::{Created, Creation, Half, Paths, Removal, Requester};
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
        let name = Box::<[u8]>::from(name);
        let known = name.clone();
        let created = self.in_directory(directory, Paths::Stay, move |core, site, half| match half {
            Half::Local(local) => {
                let again = name.clone();
                core.once_left(
                    directory,
                    &again.clone(),
                    || core.local_create(&local, site, name, creation, by),
                    move |core| core.create_in(directory, &again, creation, by),
                )
            }
            Half::Remote => core.remote_create(&site, &name, creation, by),
        });
        self.shown_first(directory, known, created)
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
        let name = Box::<[u8]>::from(name);
        let known = name.clone();
        let answer = self.in_directory(directory, Paths::Stay, move |core, site, half| match half {
            Half::Local(local) => {
                let again = (name.clone(), making.clone());
                core.once_left(
                    directory,
                    &name.clone(),
                    || core.local_make(&local, site, name, making, mode, by),
                    move |core| core.make_in(directory, &again.0, again.1, mode, by),
                )
            }
            Half::Remote => core.lasting(core.remote_make(&site, &name, &making, mode, by)),
        });
        self.shown_first(directory, known, answer)
    }

    /// Gives a file a further name.
    pub(crate) fn link_in(self: &Arc<Self>, id: EntryId, directory: EntryId, name: &[u8]) -> Answer<Attributes> {
        let name = Box::<[u8]>::from(name);
        let known = name.clone();
        let linked = self.in_directory(directory, Paths::Stay, move |core, site, half| {
            match core.source_of(id) {
                Ok(source) if source == site.source => {}
                Ok(_) => return Answer::err(Error::CrossSource),
                Err(error) => return Answer::err(error),
            }
            match half {
                Half::Local(local) => {
                    let again = name.clone();
                    core.once_left(
                        directory,
                        &again.clone(),
                        || core.local_link(&local, id, site, name),
                        move |core| core.link_in(id, directory, &again),
                    )
                }
                Half::Remote => core.remote_link(id, &site, &name),
            }
        });
        self.shown_first(directory, known, linked)
    }

    /// Removes a name.
    pub(crate) fn remove_in(
        self: &Arc<Self>,
        directory: EntryId,
        name: &[u8],
        is_directory: bool,
        why: Removal,
    ) -> Answer<()> {
        let name = Box::<[u8]>::from(name);
        let known = name.clone();
        let removed = self.in_directory(directory, Paths::Change, move |core, site, half| match half {
            Half::Local(local) => {
                let found = core.catalog.lookup(directory, &name).map_err(Error::from_catalog);
                let removed = match found {
                    Ok(found) => found.filter(|_| is_directory),
                    Err(error) => return Answer::err(error),
                };
                let Some(removed) = removed else {
                    return core.local_remove(&local, &site, &name, is_directory);
                };
                let again = name.clone();
                core.once_left_beneath(
                    removed.id,
                    || core.local_remove(&local, &site, &name, is_directory),
                    move |core| core.remove_in(directory, &again, is_directory, why),
                )
            }
            Half::Remote => core.lasting(core.remote_remove(&site, &name, is_directory, why)),
        });
        self.filled_first(directory, &known, removed)
    }

    /// Renames something within its source.
    pub(crate) fn rename_in(
        self: &Arc<Self>,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        mode: RenameMode,
    ) -> Answer<()> {
        let (source, target) = (from.0, to.0);
        let names: (Box<[u8]>, Box<[u8]>) = (from.1.into(), to.1.into());
        let known = names.1.clone();
        let renamed = self.in_directory(from.0, Paths::Change, move |core, from, from_half| {
            core.in_directory(target, Paths::Kept, move |core, to, half| {
                if from.source != to.source {
                    let (from, to) = ((&from, &*names.0, from_half), (&to, &*names.1, half));
                    return core.rename_across(from, to, mode);
                }
                match half {
                    Half::Local(local) => {
                        let again = names.clone();
                        core.once_left(
                            target,
                            &again.1.clone(),
                            || core.local_rename(&local, (from, names.0), (to, names.1), mode),
                            move |core| core.rename_in((source, &again.0), (target, &again.1), mode),
                        )
                    }
                    Half::Remote => core.lasting(core.remote_rename((&from, &names.0), (&to, &names.1), mode)),
                }
            })
        });
        self.shown_first(target, known, renamed)
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
