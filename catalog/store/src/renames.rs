//! What sources were asked to rename, and has the new name there a moment before it has it here.
//!
//! A row is durable before a source is asked, and goes in the transaction in which the catalog follows. So whoever finds one when nobody is
//! renaming the entry sees what the source has made of it, and has the catalog follow, or forgets the row.

use redb::ReadableTableMetadata;

use crate::error::{Error, Result};
use crate::format::{CROSSING_TEXT_MAX, RenameRow};
use crate::store::When;
use crate::{Catalog, EntryId, SeenAttributes};

/// A rename that a source was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedRename {
    /// The directory or file.
    pub id: EntryId,
    /// The directory in which it is to stand, and its name there.
    pub to: (EntryId, Box<[u8]>),
    /// What the source is to call it, where that is not the name.
    pub raw_name: Option<Box<[u8]>>,
}

impl Catalog {
    /// Notes that a source is about to be asked to rename an entry, in the place of what was noted of that before. The row goes
    /// when the entry is moved or removed in the catalog. Durable when it returns.
    ///
    /// Refused where it is not there, or is to stand in no directory of a source, or a name is too long.
    pub fn begin_rename(&self, asked: &AskedRename) -> Result<()> {
        let raw_name = asked.raw_name.as_ref().unwrap_or(&asked.to.1);
        if raw_name.len().max(asked.to.1.len()) > CROSSING_TEXT_MAX {
            return Err(Error::Refused {
                directory: asked.to.0,
                what: "rename to",
                name: asked.to.1.clone(),
                why: "the name is too long",
            });
        }
        let row = RenameRow {
            to: (asked.to.0.0, asked.to.1.to_vec()),
            raw_name: raw_name.to_vec(),
        };
        let begun = self
            .store()
            .write_new(When::Now, |edit| edit.begin_rename(asked.id.0, &row));
        begun.map(drop)
    }

    /// Follows a rename that a source has made, as it was noted: what stood in the new place is gone. Durable soon; at once with
    /// [`sync`](Self::sync).
    ///
    /// False, and nothing but the row is gone, where nothing is noted, where the entry cannot stand there, or where something of another
    /// kind stands there, or something that waits to be uploaded, or leads to that.
    pub fn follow_asked_rename(&self, id: EntryId, seen: Option<SeenAttributes>, at_ns: i64) -> Result<bool> {
        let followed = self
            .store()
            .write(When::Soon, |edit| edit.follow_asked(id.0, seen, at_ns));
        match followed {
            Err(Error::Refused { .. } | Error::NoEntry(_) | Error::NotADirectory(_)) => {
                self.end_rename(id)?;
                Ok(false)
            }
            followed => followed.map(|(followed, _)| followed),
        }
    }

    /// Forgets that a source was asked to rename an entry: it has not done so. A loss of power may take that back.
    pub fn end_rename(&self, id: EntryId) -> Result<()> {
        let ended = self.store().write(When::Told, |edit| edit.end_rename(id.0));
        ended.map(drop)
    }

    /// Lists what sources were asked to rename, in the order of ids.
    pub fn asked_renames(&self) -> Result<Vec<AskedRename>> {
        self.store().read(|snapshot| {
            if snapshot.renames.is_empty()? {
                return Ok(Vec::new());
            }
            let rows = snapshot.renames.range::<u64>(..)?.map(|row| {
                let (id, row) = row?;
                let RenameRow { to, raw_name } = RenameRow::decode(row.value())?;
                Ok(AskedRename {
                    id: EntryId(id.value()),
                    raw_name: (raw_name != to.1).then(|| raw_name.into()),
                    to: (EntryId(to.0), to.1.into()),
                })
            });
            rows.collect()
        })
    }
}
