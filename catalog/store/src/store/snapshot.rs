//! What readers see: the tables of one commit, open.

use std::fmt;

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::error::Result;
use crate::format::{self, ContentKey, HOT_BYTES, IdentityKey, OwnedKey, PartKey, TOTALS_BYTES};
use crate::tree;

/// All tables of one commit.
pub(crate) struct Snapshot {
    pub(crate) meta: ReadOnlyTable<&'static str, u64>,
    pub(crate) children: ReadOnlyTable<&'static [u8], &'static [u8; HOT_BYTES]>,
    pub(crate) entries: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) directories: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) queue: ReadOnlyTable<OwnedKey, ()>,
    pub(crate) identities: ReadOnlyTable<IdentityKey, ()>,
    pub(crate) contents: ReadOnlyTable<ContentKey, ()>,
    pub(crate) pins: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) pin_policies: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) staged: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) staged_bytes: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) kept: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) moves: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) moved: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) links: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) origins: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) left: ReadOnlyTable<&'static [u8], ()>,
    pub(crate) part_uploads: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) sent_parts: ReadOnlyTable<PartKey, &'static [u8]>,
    pub(crate) crossings: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) renames: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) departed: ReadOnlyTable<OwnedKey, i64>,
    pub(crate) sources: ReadOnlyTable<u32, &'static [u8]>,
    pub(crate) totals: ReadOnlyTable<u32, &'static [u8; TOTALS_BYTES]>,
    pub(crate) scans: ReadOnlyTable<u32, &'static [u8]>,
}

impl Snapshot {
    pub(crate) fn take(database: &Database) -> Result<Self> {
        let transaction = database.begin_read()?;
        Ok(Self {
            meta: transaction.open_table(format::META)?,
            children: transaction.open_table(format::CHILDREN)?,
            entries: transaction.open_table(format::ENTRIES)?,
            directories: transaction.open_table(format::DIRECTORIES)?,
            queue: transaction.open_table(format::QUEUE)?,
            identities: transaction.open_table(format::IDENTITIES)?,
            contents: transaction.open_table(format::CONTENTS)?,
            pins: transaction.open_table(format::PINS)?,
            pin_policies: transaction.open_table(format::PIN_POLICIES)?,
            staged: transaction.open_table(format::STAGED)?,
            staged_bytes: transaction.open_table(format::STAGED_BYTES)?,
            kept: transaction.open_table(format::KEPT)?,
            moves: transaction.open_table(format::MOVES)?,
            moved: transaction.open_table(format::MOVED)?,
            links: transaction.open_table(format::LINKS)?,
            origins: transaction.open_table(format::ORIGINS)?,
            left: transaction.open_table(format::LEFT)?,
            part_uploads: transaction.open_table(format::PART_UPLOADS)?,
            sent_parts: transaction.open_table(format::SENT_PARTS)?,
            crossings: transaction.open_table(format::CROSSINGS)?,
            renames: transaction.open_table(format::RENAMES)?,
            departed: transaction.open_table(format::DEPARTED)?,
            sources: transaction.open_table(format::SOURCES)?,
            totals: transaction.open_table(format::TOTALS)?,
            scans: transaction.open_table(format::SCANS)?,
        })
    }

    /// Gives the path at which the object of an entry lies.
    pub(crate) fn object_path(&self, id: u64) -> Result<Option<Vec<u8>>> {
        tree::object_path(&self.entries, &self.moves, &self.moved, id)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
