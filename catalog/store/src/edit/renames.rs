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
        self.source_directory(to.0)?;
        self.renames.insert(id, row.encode().as_slice())?;
        Ok(())
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
