//! How much room there is, for `df` and for whoever looks whether a file fits.
//!
//! Always true: no source is asked but the file systems of disks of this machine, which know; and a place where something can be made is
//! never shown as full for the only reason that nobody knows how much room it has.

use manifold_catalog::{EntryId, SourceId};

use crate::Error;
use crate::attributes::{FilesystemTotals, Room};
use crate::vfs::Core;

/// How much a remote source that is written to is taken to have room for, in bytes: few tell, and all would have to be asked.
const PLENTY: u64 = 1 << 50;

impl Core {
    /// Gives the size of what an entry belongs to: of its source; of all members, in a union; of the whole library, where it leads to sources.
    pub(crate) fn totals_at(&self, id: EntryId) -> Result<FilesystemTotals, Error> {
        let totals = self.catalog.totals().map_err(Error::from_catalog)?;
        let mut sources = self.joined_with(id)?;
        if sources.is_empty() {
            match self.source_of(id) {
                Ok(SourceId::LIBRARY) => sources.extend(totals.sources.iter().map(|(source, _)| *source)),
                Ok(source) => sources.push(source),
                // It is gone, and so is what it belonged to.
                Err(Error::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        let mut room = Room::default();
        let mut disks = Vec::new();
        // Of what tells no room: what is known to be there.
        let mut known = 0_u64;
        for source in &sources {
            if let Some(space) = self.space_of_source(*source) {
                if !disks.contains(&space.device) {
                    disks.push(space.device);
                    room.add(&space);
                }
                continue;
            }
            let of_source = totals.sources.iter().find(|(id, _)| id == source);
            known = known.saturating_add(of_source.map_or(0, |(_, totals)| totals.bytes));
            if self.is_written_to(*source) {
                room.add_free(PLENTY);
            }
        }
        let is_open = room != Room::default();
        room.bytes = room.bytes.saturating_add(known);
        Ok(FilesystemTotals {
            entries: totals.all.entries,
            bytes: totals.all.bytes,
            room: is_open.then_some(room),
        })
    }
}
