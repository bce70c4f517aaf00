//! Copies that are given their names: what was noted of them before, and following them after.

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::follow::refuse;
use crate::crossings::crossing_of;
use crate::error::Result;
use crate::format::CrossingRow;
use crate::origins::Across;
use crate::{EntryId, Keep, SeenAttributes, SourceId};

impl Edit<'_> {
    /// Puts the row of a copy that is about to be given its name, with the state of the entry now.
    pub(crate) fn begin_crossing(&mut self, id: u64, row: &CrossingRow) -> Result<()> {
        if !self.stands_at(id, row)? {
            return Err(refuse((EntryId(row.from.0), &row.from.1), "it does not stand there"));
        }
        self.source_directory(EntryId(row.to.0))?;
        let row = CrossingRow {
            state: self.state_of_bytes(id)?,
            ..row.clone()
        };
        self.crossings.insert(id, row.encode().as_slice())?;
        Ok(())
    }

    /// Moves an entry to where its copy is, as its row says. False where there is none, or the entry is not any more what was
    /// copied.
    pub(crate) fn follow_crossing(&mut self, id: u64, seen: &SeenAttributes) -> Result<bool> {
        let Some(row) = self.crossing(id)? else {
            return Ok(false);
        };
        if !self.stands_at(id, &row)? || row.state != self.state_of_bytes(id)? {
            self.end_crossing(id)?;
            return Ok(false);
        }
        let crossing = crossing_of(id, row);
        self.follow_across(&Across {
            from: (crossing.from.0, &crossing.from.1),
            to: (crossing.to.0, &crossing.to.1),
            raw_name: crossing.raw_name,
            seen: seen.clone(),
            same_bytes: crossing.same_bytes,
            // Its disk has all that there is of it.
            keeps: false,
            keep: Keep::default(),
            attributes: Vec::new(),
            left: crossing.left,
            staged: None,
            staged_bytes: None,
            at_ns: crossing.at_ns,
        })?;
        self.end_crossing(id)?;
        Ok(true)
    }

    /// Takes the row of a copy away.
    pub(crate) fn end_crossing(&mut self, id: u64) -> Result<()> {
        if !self.crossings.is_empty()? {
            self.crossings.remove(id)?;
        }
        Ok(())
    }

    /// Takes the rows away that concern a source that goes, and those of which nobody can say any more whom they concern.
    pub(crate) fn drop_crossings_of(&mut self, source: SourceId) -> Result<()> {
        let gone = self.crossings_where(|whose| whose.is_none_or(|whose| whose == source.0))?;
        gone.into_iter().try_for_each(|id| self.end_crossing(id))
    }

    /// Gives the entries whose copies are to be given their names, from a source or in it.
    pub(crate) fn crossings_of(&self, source: SourceId) -> Result<Vec<u64>> {
        self.crossings_where(|whose| whose == Some(source.0))
    }

    /// Gives those of which that is so of the source of either directory; `None`: it is not there.
    fn crossings_where(&self, is_meant: impl Fn(Option<u32>) -> bool) -> Result<Vec<u64>> {
        let mut meant = Vec::new();
        for row in self.crossings.iter()? {
            let (id, row) = row?;
            let row = CrossingRow::decode(row.value())?;
            let from = self.node(row.from.0)?.map(|(_, hot)| hot.source());
            let to = self.node(row.to.0)?.map(|(_, hot)| hot.source());
            if is_meant(from) || is_meant(to) {
                meant.push(id.value());
            }
        }
        Ok(meant)
    }

    fn crossing(&self, id: u64) -> Result<Option<CrossingRow>> {
        if self.crossings.is_empty()? {
            return Ok(None);
        }
        let row = self.crossings.get(id)?;
        Ok(row.map(|row| CrossingRow::decode(row.value())).transpose()?)
    }

    /// Tells whether an entry stands where it is to leave.
    fn stands_at(&self, id: u64, row: &CrossingRow) -> Result<bool> {
        let standing = self.standing((EntryId(row.from.0), &row.from.1))?;
        Ok(standing.is_some_and(|standing| standing.hot.id() == id))
    }

    /// Tells one state of an entry's bytes from others, by its version and by what is staged.
    fn state_of_bytes(&self, id: u64) -> Result<[u8; 16]> {
        let version = self.existing_cold(id)?.version;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(version.len() as u32).to_le_bytes()).update(&version);
        if let Some(row) = self.staged.get(id)? {
            hasher.update(row.value());
        }
        let hash = hasher.finalize();
        let (half, _) = hash.as_bytes().split_first_chunk().expect("invariant: 32 bytes");
        Ok(*half)
    }
}
