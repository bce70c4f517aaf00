//! Where symbolic links point, as far as it is known.
//!
//! A row speaks of the version that was read: of another one it says nothing, so that a listing that finds the link changed need not
//! touch it.

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::keep::Keeping;
use crate::error::Result;
use crate::format::{LinkRow, NOWHERE};
use crate::{Change, Kind, LinkTarget};

impl Edit<'_> {
    /// Notes where a link points, if it still has the version that was read; tells whether it does.
    pub(crate) fn set_link_target(&mut self, read: &LinkTarget) -> Result<bool> {
        let id = read.id.0;
        let Some((cold, _)) = self.node(id)?.filter(|(_, hot)| hot.kind() == Kind::Symlink) else {
            return Ok(false);
        };
        let Some(row) = LinkRow::of(&read.version, &read.target).filter(|row| *cold.version == *row.version) else {
            return Ok(false);
        };
        if cold.parent == NOWHERE {
            return Ok(false);
        }
        let row = row.encode();
        let before = self
            .links
            .insert(id, row.as_slice())?
            .map(|before| before.value().to_vec());
        let before = match &before {
            Some(before) => Some(LinkRow::decode(before)?),
            None => None,
        };
        // The version does not tell the two apart, and whoever has read the link may keep what he read.
        let is_other = |before: LinkRow<'_>| before.version == &*cold.version && before.target != &*read.target;
        if before.is_some_and(|before| !before.target.is_empty() && is_other(before)) {
            self.changes.push(Change::Content { id: read.id });
        }
        Ok(true)
    }

    /// Lets a link that was changed or moved through the mount keep what is known of it: it points where it did.
    pub(super) fn keep_link_target(&mut self, id: u64, keeping: Keeping, versions: (&[u8], &[u8])) -> Result<()> {
        let (before, now) = versions;
        if keeping == Keeping::OfVersion || before == now || self.links.is_empty()? {
            return Ok(());
        }
        let Some(row) = self.links.get(id)?.map(|row| row.value().to_vec()) else {
            return Ok(());
        };
        let row = LinkRow::decode(&row)?;
        if row.version == before {
            let row = LinkRow { version: now, ..row }.encode();
            self.links.insert(id, row.as_slice())?;
        }
        Ok(())
    }

    /// Forgets where a link points.
    pub(crate) fn drop_link_target(&mut self, id: u64) -> Result<()> {
        if !self.links.is_empty()? {
            self.links.remove(id)?;
        }
        Ok(())
    }
}
