//! Directories that were renamed ahead of what they hold, at sources that have no directories to rename: the tree shows the
//! new name at once, and the objects follow one by one.
//!
//! [`Catalog::object_path`] gives where an object lies meanwhile. As long as a directory is on the move, what stands beneath
//! it is changed by no listing but those of whoever moves it ([`Ticket::of_move`](crate::Ticket::of_move)), and no
//! listing shows what lies in its old places.

use std::collections::HashMap;

use redb::ReadableTableMetadata;

use crate::edit::moves::topmost;
use crate::error::Result;
use crate::format::{MoveRow, MovedRow};
use crate::store::When;
use crate::{Catalog, Change, EntryId, SeenAttributes, SourceId, listing, tree};

/// A directory whose objects are still to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The directory.
    pub id: EntryId,
    /// Its source.
    pub source: SourceId,
    /// Paths beneath the source's root: where it lies, then where some of what it holds may lie too.
    pub places: Vec<Vec<u8>>,
}

/// Where a file lies that does not lie in the place of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The path beneath the source's root.
    pub lies_at: Vec<u8>,
    /// From where it is still to be taken away, and in which version.
    pub left: Option<(Vec<u8>, Vec<u8>)>,
}

/// A file that was found, or brought, where it lies now.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The entry.
    pub id: EntryId,
    /// The path beneath the source's root.
    pub lies_at: Vec<u8>,
    /// From where it is still to be taken away, and in which version.
    pub left: Option<(Vec<u8>, Vec<u8>)>,
    /// How it looks there, if that is another than before. The bytes are the same.
    pub seen: Option<SeenAttributes>,
}

impl Catalog {
    /// Follows a rename of a directory whose objects are still to follow it. As
    /// [`follow_moved`](Catalog::follow_moved), but all that it holds lies where it lay, until
    /// [`finish_move`](Self::finish_move).
    pub fn follow_moved_ahead(
        &self,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        raw_name: Option<Box<[u8]>>,
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let ((), changes) = self
            .store()
            .write_new(When::Soon, |edit| edit.follow_moved_ahead(from, to, raw_name, at_ns))?;
        Ok(changes)
    }

    /// Follows a rename of a file beneath a directory that is on the move, as [`follow_moved`](Catalog::follow_moved), but its
    /// object lies at `lies_at`.
    pub fn follow_moved_onto(
        &self,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        raw_name: Option<Box<[u8]>>,
        seen: Option<SeenAttributes>,
        lies_at: Vec<u8>,
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Soon, |edit| {
            edit.follow_moved(from, to, raw_name, seen, Some(lies_at), at_ns)
        })?;
        Ok(changes)
    }

    /// Takes in where a file lies now, and tells whether it did. It does not where the file is gone, does not stand beneath a
    /// directory on the move, or is staged and would look different. Only when this is durable may what is left be
    /// removed.
    pub fn note_copied(&self, copied: &Copied) -> Result<bool> {
        let (taken, _) = self.store().write(When::Soon, |edit| edit.note_copied(copied))?;
        Ok(taken)
    }

    /// Notes that nothing is left of a file in its former place.
    pub fn note_left_removed(&self, id: EntryId) -> Result<()> {
        let noted = self.store().write(When::Soon, |edit| edit.note_left_removed(id));
        noted.map(drop)
    }

    /// Ends the move of a directory, if all that it holds lies where it stands, and tells whether it has ended. What it holds
    /// counts as listed long ago then. Durable when it returns.
    ///
    /// `settled`: the path at which each directory has been seen to; one that was made or renamed since keeps the move from
    /// ending.
    pub fn finish_move(&self, directory: EntryId, settled: &HashMap<EntryId, Vec<u8>>) -> Result<bool> {
        let finish = self
            .store()
            .write(When::Now, |edit| edit.finish_move(directory, settled));
        finish.map(|(finished, _)| finished)
    }

    /// Lists the directories that are on the move, in the order of ids.
    pub fn moves(&self) -> Result<Vec<Move>> {
        self.store().read(|snapshot| {
            let mut moves = Vec::new();
            for row in snapshot.moves.range::<u64>(..)? {
                let (id, row) = row?;
                let id = id.value();
                if let Some((_, hot)) = tree::node(&snapshot.children, &snapshot.entries, id)? {
                    moves.push(Move {
                        id: EntryId(id),
                        source: SourceId(hot.source()),
                        places: MoveRow::decode(row.value())?.places,
                    });
                }
            }
            Ok(moves)
        })
    }

    /// Tells where a file lies, if it does not lie in the place of its directory.
    pub fn moved(&self, id: EntryId) -> Result<Option<Moved>> {
        self.store().read(|snapshot| {
            if snapshot.moves.is_empty()? {
                return Ok(None);
            }
            let Some(row) = snapshot.moved.get(id.0)? else {
                return Ok(None);
            };
            let MovedRow { lies_at, left } = MovedRow::decode(row.value())?;
            Ok(Some(Moved { lies_at, left }))
        })
    }

    /// Finds the topmost directory on the move that is an entry, or lies above it.
    pub fn move_above(&self, id: EntryId) -> Result<Option<EntryId>> {
        self.store()
            .read(|snapshot| Ok(topmost(&snapshot.entries, &snapshot.moves, id.0)?.map(EntryId)))
    }

    /// Gives the path beneath its source's root at which an entry stands; its object may [lie](Self::object_path) elsewhere.
    pub fn standing_path(&self, id: EntryId) -> Result<Option<Vec<u8>>> {
        self.store()
            .read(|snapshot| tree::standing_path(&snapshot.entries, id.0))
    }

    /// Passes over a directory that is on the move, as if it had been listed, and tells whether it is. One that was never
    /// listed is not passed over.
    pub fn pass_over_moving(&self, directory: EntryId, listed_ns: i64, scan: u64) -> Result<bool> {
        let is_moving = self.move_above(directory)?.is_some()
            && self
                .directory_state(directory)?
                .is_some_and(|state| state.listed_ns.is_some());
        if !is_moving {
            return Ok(false);
        }
        let (passed, _) = self.store().write(When::Soon, |edit| {
            listing::pass_over_moving(edit, directory, listed_ns, scan)
        })?;
        Ok(passed)
    }
}
