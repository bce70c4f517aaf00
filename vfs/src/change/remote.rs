//! Changes at sources that are not folders of this machine: refused, with nothing changed.

use manifold_backends::local::{AttributeChange, Making, RenameMode, SetMode};
use manifold_catalog::EntryId;

use super::{Created, Creation, Requester, Site, Writing};
use crate::attributes::Attributes;
use crate::error::Cause;
use crate::handle::{Access, Handle, Opened};
use crate::vfs::Core;
use crate::{Answer, Error};

impl Core {
    pub(crate) fn remote_open(&self, _: EntryId, _: Access) -> Answer<Opened> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_create(&self, _: &Site, _: &[u8], _: Creation, _: Requester) -> Answer<Created> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_make(&self, _: &Site, _: &[u8], _: &Making, _: u32, _: Requester) -> Answer<Attributes> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_link(&self, _: EntryId, _: &Site, _: &[u8]) -> Answer<Attributes> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_remove(&self, _: &Site, _: &[u8], _: bool) -> Answer<()> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_rename(&self, _: (&Site, &[u8]), _: (&Site, &[u8]), _: RenameMode) -> Answer<()> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_set_attributes(
        &self,
        _: EntryId,
        _: Option<Handle>,
        _: AttributeChange,
        _: Requester,
    ) -> Answer<Attributes> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_write(&self, _: Handle, _: &[u8], _: Writing) -> Answer<u32> {
        Answer::err(Error::ReadOnly)
    }

    /// Nothing can have been written.
    pub(super) fn remote_sync(&self, _: Handle, _: bool) -> Answer<()> {
        Answer::ok(())
    }

    pub(super) fn remote_allocate(&self, _: Handle, _: u32, _: u64, _: u64) -> Answer<()> {
        Answer::err(Error::ReadOnly)
    }

    /// There are no extended attributes.
    pub(super) fn remote_attribute(&self, _: EntryId, _: &[u8]) -> Answer<Vec<u8>> {
        Answer::err(Error::Unsupported(Cause::new("its source has no extended attributes")))
    }

    pub(super) fn remote_attribute_names(&self, _: EntryId) -> Answer<Vec<u8>> {
        Answer::ok(Vec::new())
    }

    pub(super) fn remote_set_attribute(&self, _: EntryId, _: &[u8], _: &[u8], _: SetMode) -> Answer<()> {
        Answer::err(Error::ReadOnly)
    }

    pub(super) fn remote_remove_attribute(&self, _: EntryId, _: &[u8]) -> Answer<()> {
        Answer::err(Error::ReadOnly)
    }
}
