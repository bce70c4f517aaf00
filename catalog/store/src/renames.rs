//! Directories that their sources were asked to rename, and that have the new name there a moment before they have it here.
//!
//! A row is durable before a source is asked, and goes in the transaction in which the catalog follows. So whoever finds one when nobody is
//! renaming the directory sees what the source has made of it, and has the catalog follow, or forgets the row.

use redb::ReadableTableMetadata;

use crate::error::{Error, Result};
use crate::format::{CROSSING_TEXT_MAX, RenameRow};
use crate::store::When;
use crate::{Catalog, EntryId};

/// A rename of a directory that its source was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedRename {
    /// The directory.
    pub id: EntryId,
    /// The directory in which it is to stand, and its name there.
    pub to: (EntryId, Box<[u8]>),
    /// What the source is to call it, where that is not the name.
    pub raw_name: Option<Box<[u8]>>,
}

impl Catalog {
    /// Notes that a source is about to be asked to rename a directory, in the place of what was noted of that before. The row goes
    /// when the directory is moved or removed in the catalog. Durable when it returns.
    ///
    /// Refused where it is no directory, or is to stand in none of a source, or a name is too long.
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
    /// False, and nothing but the row is gone, where nothing is noted, where the directory cannot stand there, or where something else than a
    /// directory stands there, or one that leads to what waits to be uploaded.
    pub fn follow_asked_rename(&self, id: EntryId, at_ns: i64) -> Result<bool> {
        let followed = self.store().write(When::Soon, |edit| edit.follow_asked(id.0, at_ns));
        match followed {
            Err(Error::Refused { .. } | Error::NoEntry(_) | Error::NotADirectory(_)) => {
                self.end_rename(id)?;
                Ok(false)
            }
            followed => followed.map(|(followed, _)| followed),
        }
    }

    /// Forgets that a source was asked to rename a directory: it has not done so. A loss of power may take that back.
    pub fn end_rename(&self, id: EntryId) -> Result<()> {
        let ended = self.store().write(When::Told, |edit| edit.end_rename(id.0));
        ended.map(drop)
    }

    /// Lists the directories that sources were asked to rename, in the order of ids.
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
