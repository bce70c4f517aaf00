//! Directories that their sources were asked to rename.

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::follow::refuse;
use crate::error::Result;
use crate::format::RenameRow;
use crate::{EntryId, SourceId};

impl Edit<'_> {
    /// Puts the row of a directory that its source is about to be asked to rename.
    pub(crate) fn begin_rename(&mut self, id: u64, row: &RenameRow) -> Result<()> {
        let to = (EntryId(row.to.0), &*row.to.1);
        let (_, hot) = self.node(id)?.ok_or_else(|| refuse(to, "it is not in the catalog"))?;
        if !hot.is_directory() {
            return Err(refuse(to, "it is not a directory"));
        }
        if !self.is_attached(id)? {
            return Err(refuse(to, "it does not stand in the tree"));
        }
        self.source_directory(to.0)?;
        self.renames.insert(id, row.encode().as_slice())?;
        Ok(())
    }

    /// Moves a directory to where its row says. False, and nothing but the row is gone, where there is none, or where something waits to be
    /// uploaded there.
    pub(crate) fn follow_asked(&mut self, id: u64, at_ns: i64) -> Result<bool> {
        let row = self.renames.get(id)?;
        let row = row.map(|row| RenameRow::decode(row.value())).transpose()?;
        let (Some(row), Some((cold, _))) = (row, self.node(id)?) else {
            self.end_rename(id)?;
            return Ok(false);
        };
        let to = (EntryId(row.to.0), &*row.to.1);
        if let Some(there) = self.standing(to)?.map(|there| there.hot)
            && (!there.is_directory() || self.leads_to_staged(there.id())?)
        {
            self.end_rename(id)?;
            return Ok(false);
        }
        let raw_name = (row.raw_name != row.to.1).then(|| row.raw_name.clone().into());
        let from = (EntryId(cold.parent), &*cold.name);
        self.follow_moved_with_uploads(from, to, raw_name, None, at_ns)?;
        self.end_rename(id)?;
        Ok(true)
    }

    /// Takes the row of a directory away.
    pub(crate) fn end_rename(&mut self, id: u64) -> Result<()> {
        if !self.renames.is_empty()? {
            self.renames.remove(id)?;
        }
        Ok(())
    }

    /// Takes the rows of a source away: it goes.
    pub(crate) fn drop_renames_of(&mut self, source: SourceId) -> Result<()> {
        let mut gone = Vec::new();
        for row in self.renames.iter()? {
            let id = row?.0.value();
            if self.node(id)?.is_none_or(|(_, hot)| hot.source() == source.0) {
                gone.push(id);
            }
        }
        gone.into_iter().try_for_each(|id| self.end_rename(id))
    }
}
