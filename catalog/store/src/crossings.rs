//! Files and links whose copies in folders of this machine are given their names: the moment in which a disk has a copy under its new
//! name, and the catalog still has the original under the former one.
//!
//! A row is durable before the name is given, and goes in the transaction in which the catalog follows. So whoever opens the
//! library after a crash in between finds the row, sees whether the copy is there, and has the catalog follow, or forgets the row.

use redb::ReadableTableMetadata;

use crate::error::{Error, Result};
use crate::format::{CROSSING_TEXT_MAX, CrossingRow, MarkRow};
use crate::store::When;
use crate::{Catalog, Change, EntryId, Left, SeenAttributes, VERSION_MAX};

/// A file or link whose copy is given its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The entry.
    pub id: EntryId,
    /// The directory in which it stands, and its name there.
    pub from: (EntryId, Box<[u8]>),
    /// The directory in which it is to stand, and its name there.
    pub to: (EntryId, Box<[u8]>),
    /// What the new source calls it, where that is not the name.
    pub raw_name: Option<Box<[u8]>>,
    /// The copy's length in bytes; of no meaning for a link.
    pub size: u64,
    /// The last change that the copy has, or is to have, in nanoseconds since 1970 UTC.
    pub modified_ns: i64,
    /// How the copy is recognised.
    pub mark: Mark,
    /// Whether its bytes are those of the version that is known.
    pub same_bytes: bool,
    /// What is left in its former place; `None`: its source had nothing there.
    pub left: Option<Left>,
    /// When it is moved, in nanoseconds since 1970 UTC.
    pub at_ns: i64,
}

/// How a copy is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A file, by its identity on its disk, which it has before it has a name.
    Identity([u8; 16]),
    /// A link, by where it points: it has its name from its beginning on, and nothing had that name before.
    Target(Box<[u8]>),
}

impl Catalog {
    /// Notes that a copy is about to be given its name, in the place of what was noted of the entry before. Durable when it returns.
    ///
    /// Refused where the entry does not stand where it is said to, or a text is too long.
    pub fn begin_crossing(&self, crossing: &Crossing) -> Result<()> {
        let row = row_of(crossing)?;
        let begun = self
            .store()
            .write_new(When::Now, |edit| edit.begin_crossing(crossing.id.0, &row));
        begun.map(drop)
    }

    /// Follows a copy that has its name, as it was noted: what stood in its new place is gone, what was staged is forgotten, and
    /// what is left in the former place is due, in one transaction with the end of the row. Durable soon; at once with
    /// [`sync`](Self::sync).
    ///
    /// False, and nothing but the row is gone, where nothing is noted, where the entry does not stand any more where it
    /// stood, or is another version, or something was written to it since.
    pub fn follow_crossing(&self, id: EntryId, seen: &SeenAttributes) -> Result<(bool, Vec<Change>)> {
        let followed = self.store().write(When::Soon, |edit| edit.follow_crossing(id.0, seen));
        match followed {
            Err(Error::Refused { .. } | Error::NoEntry(_) | Error::NotADirectory(_)) => {
                self.end_crossing(id)?;
                Ok((false, Vec::new()))
            }
            followed => followed,
        }
    }

    /// Forgets that a copy was to be given its name: it has none. A loss of power may take that back.
    pub fn end_crossing(&self, id: EntryId) -> Result<()> {
        let ended = self.store().write(When::Told, |edit| edit.end_crossing(id.0));
        ended.map(drop)
    }

    /// Lists the copies that were about to be given their names, in the order of ids.
    pub fn crossings(&self) -> Result<Vec<Crossing>> {
        self.store().read(|snapshot| {
            let rows = snapshot.crossings.range::<u64>(..)?.map(|row| {
                let (id, row) = row?;
                Ok(crossing_of(id.value(), CrossingRow::decode(row.value())?))
            });
            rows.collect()
        })
    }

    /// Tells whether a copy was about to be given a name in a directory.
    pub fn is_crossing_to(&self, directory: EntryId) -> Result<bool> {
        self.store().read(|snapshot| {
            if snapshot.crossings.is_empty()? {
                return Ok(false);
            }
            for row in snapshot.crossings.range::<u64>(..)? {
                if CrossingRow::decode(row?.1.value())?.to.0 == directory.0 {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

fn row_of(crossing: &Crossing) -> Result<CrossingRow> {
    let mark = match &crossing.mark {
        Mark::Identity(identity) => MarkRow::Identity(*identity),
        Mark::Target(target) => MarkRow::Target(target.to_vec()),
    };
    let raw_name = crossing.raw_name.as_ref().unwrap_or(&crossing.to.1);
    let version = crossing.left.as_ref().map(|left| &left.version);
    let target = match &mark {
        MarkRow::Target(target) => target.len(),
        MarkRow::Identity(_) => 0,
    };
    if raw_name.len().max(target) > CROSSING_TEXT_MAX || version.is_some_and(|version| version.len() > VERSION_MAX) {
        return Err(Error::Refused {
            directory: crossing.to.0,
            what: "crossing to",
            name: crossing.to.1.clone(),
            why: "what the source calls it, its version, or where it points is too long",
        });
    }
    Ok(CrossingRow {
        same_bytes: crossing.same_bytes,
        from: (crossing.from.0.0, crossing.from.1.to_vec()),
        to: (crossing.to.0.0, crossing.to.1.to_vec(), raw_name.to_vec()),
        size: crossing.size,
        modified_ns: crossing.modified_ns,
        at_ns: crossing.at_ns,
        mark,
        left: crossing
            .left
            .as_ref()
            .map(|left| (left.version.to_vec(), left.shows_through)),
        // It is looked at when the row is put.
        state: [0; 16],
    })
}

pub(crate) fn crossing_of(id: u64, row: CrossingRow) -> Crossing {
    let (to, name, raw_name) = row.to;
    Crossing {
        id: EntryId(id),
        from: (EntryId(row.from.0), row.from.1.into()),
        raw_name: (raw_name != name).then(|| raw_name.into()),
        to: (EntryId(to), name.into()),
        size: row.size,
        modified_ns: row.modified_ns,
        mark: match row.mark {
            MarkRow::Identity(identity) => Mark::Identity(identity),
            MarkRow::Target(target) => Mark::Target(target.into()),
        },
        same_bytes: row.same_bytes,
        left: row.left.map(|(version, shows_through)| Left {
            version: version.into(),
            shows_through,
        }),
        at_ns: row.at_ns,
    }
}
