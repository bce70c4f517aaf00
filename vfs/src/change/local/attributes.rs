//! Attributes on disks of this machine, the extended ones among them.

use std::sync::Arc;

use manifold_backends::local::{AttributeChange, LocalBackend, SetMode};
use manifold_backends::{Metadata, Operation};
use manifold_catalog::{EntryId, SourceId};

use super::done;
use crate::attributes::Attributes;
use crate::change::Requester;
use crate::handle::Handle;
use crate::vfs::Core;
use crate::{Answer, Error};

/// Labels of security modules: the kernel gives all of a mount one of its own, so those of the disk are not asked for.
const LABELS: [&[u8]; 2] = [b"security.selinux", b"security.SMACK64"];
/// By how much a file may grow at once before it is taken for work that a disk may be long at, in bytes.
const LONG: u64 = 64 << 20;
/// What only the system may see.
const TRUSTED: &[u8] = b"trusted.";

impl Core {
    pub(in crate::change) fn local_set_attributes(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        handle: Option<Handle>,
        change: AttributeChange,
        by: Requester,
    ) -> Answer<Attributes> {
        let path = match self.last_path_of(id) {
            Ok(path) => path,
            Err(error) => return Answer::err(error),
        };
        let set = move |core: &Arc<Self>, local: &LocalBackend| {
            let held = core.while_names_stay(source, local, || match handle {
                Some(_) => core.hold_any(local, id),
                None => core.hold(local, id),
            })?;
            let _change = core.catalog.begin_change(&core.directory_of(id));
            let mut change = change;
            let file = handle
                .and_then(|handle| core.files.local(handle))
                .map(|(_, _, file)| file);
            if let (Some(file), Some(size)) = (file.filter(|file| file.writes()), change.size) {
                done(file.truncate(size, by.is_privileged()))?;
                change.size = None;
            }
            let seen = done(held.set(&change, by.is_privileged()))?;
            core.changed(id, source, &seen)
        };
        // Some file systems write every byte of a longer file.
        let known = self.entry_of(id).map_or(0, |entry| entry.size);
        if change.size.is_some_and(|size| size > known.saturating_add(LONG)) {
            self.at_slow_disk(local, source, &path, Operation::SetAttributes, set)
        } else {
            self.at_disk(local, source, &path, Operation::SetAttributes, set)
        }
    }

    pub(in crate::change) fn local_attribute(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        name: Box<[u8]>,
    ) -> Answer<Vec<u8>> {
        if LABELS.contains(&&*name) {
            return Answer::err(Error::Unsupported(crate::Cause::new("labels are the mount's own")));
        }
        let path = match self.last_path_of(id) {
            Ok(path) => path,
            Err(error) => return Answer::err(error),
        };
        let operation = Operation::ExtendedAttributes;
        self.at_disk(local, source, &path, operation, move |core, local| {
            let value = done(core.hold_any(local, id)?.xattr(&name))?;
            value.ok_or(Error::NoData)
        })
    }

    pub(in crate::change) fn local_attribute_names(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        by: Requester,
    ) -> Answer<Vec<u8>> {
        let path = match self.last_path_of(id) {
            Ok(path) => path,
            Err(error) => return Answer::err(error),
        };
        let operation = Operation::ExtendedAttributes;
        self.at_disk(local, source, &path, operation, move |core, local| {
            let names = done(core.hold_any(local, id)?.xattrs())?;
            let is_shown = |name: &&[u8]| {
                let bare = name.strip_suffix(&[0]).unwrap_or(name);
                !LABELS.contains(&bare) && (by.is_privileged() || !bare.starts_with(TRUSTED))
            };
            Ok(names
                .split_inclusive(|byte| *byte == 0)
                .filter(is_shown)
                .flatten()
                .copied()
                .collect())
        })
    }

    pub(in crate::change) fn local_set_attribute(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        name: Box<[u8]>,
        value: Box<[u8]>,
        mode: SetMode,
    ) -> Answer<()> {
        self.change_xattrs(local, id, source, move |held| held.set_xattr(&name, &value, mode))
    }

    pub(in crate::change) fn local_remove_attribute(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        name: Box<[u8]>,
    ) -> Answer<()> {
        self.change_xattrs(local, id, source, move |held| held.remove_xattr(&name))
    }

    fn change_xattrs(
        self: &Arc<Self>,
        local: &LocalBackend,
        id: EntryId,
        source: SourceId,
        change: impl FnOnce(&manifold_backends::local::Held) -> manifold_backends::Result<Metadata> + Send + 'static,
    ) -> Answer<()> {
        let path = match self.last_path_of(id) {
            Ok(path) => path,
            Err(error) => return Answer::err(error),
        };
        let operation = Operation::ExtendedAttributes;
        self.at_disk(local, source, &path, operation, move |core, local| {
            let held = core.hold(local, id)?;
            let _change = core.catalog.begin_change(&core.directory_of(id));
            let seen = done(change(&held))?;
            core.changed(id, source, &seen).map(drop)
        })
    }

    /// Follows a change of an entry, which may have lost its name, and gives its attributes.
    pub(super) fn changed(&self, id: EntryId, source: SourceId, seen: &Metadata) -> Result<Attributes, Error> {
        let attributes = Attributes {
            volatile: self.files.open_here(id).is_some(),
            ..Attributes::of_disk(id, seen, None)
        };
        match self.follow_attributes(id, source, seen) {
            Ok(()) => {}
            Err(Error::Stale) if self.files.is_open(id) => {
                if seen.links > 0 {
                    self.follow_other_names(Some(id), source, seen);
                }
                self.files.note_attributes(id, attributes.clone());
            }
            Err(error) => return Err(error),
        }
        Ok(attributes)
    }

    pub(super) fn directory_of(&self, id: EntryId) -> Vec<EntryId> {
        self.entry_of(id).map(|entry| entry.parent).into_iter().collect()
    }
}
