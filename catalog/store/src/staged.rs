//! The journal of what is staged: bytes that were written through the mount and that their source does not have yet.
//!
//! The catalog keeps one row for an entry, and does not read it. As long as it is there, no listing changes or removes the
//! entry, and nothing that leads to it leaves the tree.

use crate::edit::staged::Staging;
use crate::error::{Error, Result};
use crate::format::{STAGED_BYTES_MAX, STAGED_ROW_MAX, decode_staged};
use crate::store::When;
use crate::tree::{self, Top};
use crate::{Catalog, Change, EntryId, SeenAttributes, SourceId};

use std::ops::ControlFlow;

use redb::ReadableTableMetadata;

/// What is to be done where something is staged that would be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenStaged {
    /// Change nothing, and say what waits.
    Refuse,
    /// Forget it.
    Drop,
}

impl Catalog {
    /// Puts the row of an entry, in the place of an older one, and what the entry looks like with it, in one
    /// transaction; mode and owner stay as they are. If `durable`, it is on the disk when this returns, and whoever waits for that at the
    /// same time shares the commit.
    ///
    /// An entry that is not in the tree, the root of a source, the library's own directories, and a row that is empty
    /// or longer than [`STAGED_ROW_MAX`] are refused. Bytes that were put with an older row go.
    pub fn stage(&self, id: EntryId, row: &[u8], seen: Option<SeenAttributes>, durable: bool) -> Result<Vec<Change>> {
        let staging = staging(id, row, None, seen)?;
        if durable {
            return self.store().stage_durably(staging);
        }
        let ((), changes) = self.store().write_new(When::Soon, |edit| edit.stage(&staging))?;
        Ok(changes)
    }

    /// Puts the row of an entry as [`stage`](Self::stage) does, durably, and bytes with it, no more than
    /// [`STAGED_BYTES_MAX`]. They stay until another row is put, or the row is taken away.
    pub fn stage_with(
        &self,
        id: EntryId,
        row: &[u8],
        bytes: &[u8],
        seen: Option<SeenAttributes>,
    ) -> Result<Vec<Change>> {
        self.store().stage_durably(staging(id, row, Some(bytes), seen)?)
    }

    /// Puts another row in the place of the one that an entry has, durably. Its bytes stay.
    ///
    /// Refused where it has none.
    pub fn restage(&self, id: EntryId, row: &[u8]) -> Result<()> {
        let staging = staging(id, row, None, None)?;
        let restaged = self
            .store()
            .write(When::Now, |edit| edit.restage(staging.id, &staging.row));
        restaged.map(drop)
    }

    /// Gives the bytes that were put with the row of an entry.
    pub fn staged_bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>> {
        self.store()
            .read(|snapshot| Ok(snapshot.staged_bytes.get(id.0)?.map(|bytes| bytes.value().to_vec())))
    }

    /// Gives the row of an entry.
    pub fn staged(&self, id: EntryId) -> Result<Option<Vec<u8>>> {
        self.store().read(|snapshot| match snapshot.staged.get(id.0)? {
            Some(row) => Ok(Some(decode_staged(row.value())?.to_vec())),
            None => Ok(None),
        })
    }

    /// Gives all rows in the order of ids.
    pub fn staged_all(&self) -> Result<Vec<(EntryId, Vec<u8>)>> {
        self.store().read(|snapshot| {
            let rows = snapshot.staged.range::<u64>(..)?.map(|row| {
                let (id, row) = row?;
                Ok((EntryId(id.value()), decode_staged(row.value())?.to_vec()))
            });
            rows.collect()
        })
    }

    /// Gives the number of entries of a source that have a row.
    pub fn staged_of(&self, source: SourceId) -> Result<u64> {
        self.store().read(|snapshot| {
            let mut count = 0;
            for row in snapshot.staged.range::<u64>(..)? {
                let node = tree::node(&snapshot.children, &snapshot.entries, row?.0.value())?;
                count += u64::from(node.is_some_and(|(_, hot)| hot.source() == source.0));
            }
            Ok(count)
        })
    }

    /// Tells whether a directory leads to an entry that has a row, to another directory whose objects are still to follow
    /// it, or to what is left of a file that stands elsewhere, so that it stays although its source may not have it.
    pub fn leads_to_staged(&self, directory: EntryId) -> Result<bool> {
        if self.is_left_beneath(directory)? {
            return Ok(true);
        }
        self.store().read(|snapshot| {
            if snapshot.staged.is_empty()? && snapshot.moves.is_empty()? {
                return Ok(false);
            }
            for row in snapshot
                .staged
                .range::<u64>(..)?
                .chain(snapshot.moves.range::<u64>(..)?)
            {
                let staged = row?.0.value();
                let top = tree::climb(&snapshot.entries, staged, |above, _| {
                    if above == directory.0 && above != staged {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                if top == Top::Stopped {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Takes the row of an entry away: its source has the bytes now and the entry looks like `seen`, or they were given
    /// up, and it looks as it did. In the first case its [origins](crate::Origins) are due from then on. `kept_ns` is kept as the time of its last change over that of `seen`, where there is one
    /// (in nanoseconds since 1970 UTC). Listings that began before are overtaken. Durable soon: a crash may bring the row
    /// back, so keep what it speaks of until [`sync`](Self::sync) or the next durable change has returned.
    pub fn unstage(&self, id: EntryId, seen: Option<SeenAttributes>, kept_ns: Option<i64>) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Soon, |edit| edit.unstage(id, seen, kept_ns))?;
        Ok(changes)
    }
}

pub(crate) fn staging(id: EntryId, row: &[u8], bytes: Option<&[u8]>, seen: Option<SeenAttributes>) -> Result<Staging> {
    let why = if row.is_empty() || row.len() > STAGED_ROW_MAX {
        "the row is empty, or longer than a MiB"
    } else if bytes.is_some_and(|bytes| bytes.len() > STAGED_BYTES_MAX) {
        "there are more than 64 KiB of bytes"
    } else {
        let (row, bytes) = (row.to_vec(), bytes.map(<[u8]>::to_vec));
        return Ok(Staging { id, row, bytes, seen });
    };
    Err(Error::Refused {
        directory: id,
        what: "journal of",
        name: Box::default(),
        why,
    })
}
