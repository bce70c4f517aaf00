//! Directories that were renamed ahead of what they hold: where they and their files lie until all has followed.
//!
//! A row of `moves` says that a directory, and what it holds, lies elsewhere than it stands; one of `moved` says the same of
//! one file, which has followed its directory already, or lies where that lay for a while. As long as there is a row, no
//! listing changes what stands beneath, and none shows what lies at a place that a row names.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::follow::Place;
use super::keep::Keeping;
use crate::error::{Error, Result};
use crate::format::{HotRow, MoveRow, MovedRow, PLACES_MAX, child_name, subtree_range};
use crate::moves::Copied;
use crate::tree;
use crate::{Change, EntryId, SourceId};

impl Edit<'_> {
    /// Moves a directory with all beneath it; what it holds lies where it lay. What stood in its new place is gone.
    pub(crate) fn follow_moved_ahead(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        raw_name: Option<Box<[u8]>>,
        at_ns: i64,
    ) -> Result<()> {
        let refuse = |why| Error::Refused {
            directory: from.0,
            what: "change of",
            name: from.1.into(),
            why,
        };
        let hot = self.hot(from.0.0, from.1)?;
        let hot = hot.ok_or_else(|| refuse("it is not in the catalog"))?;
        if !hot.is_directory() {
            return Err(refuse("it is not a directory"));
        }
        let id = hot.id();
        let missing = || refuse("it does not stand in the tree");
        let stood = tree::standing_path(&*self.entries, id)?.ok_or_else(missing)?;
        let lies_at = self.object_path(id)?.ok_or_else(missing)?;
        let row = match self.move_of(id)? {
            Some(row) => row,
            None => self.first_row(id, lies_at)?,
        };
        let mut rows = vec![(id, stood, row)];
        // What was renamed beneath it before leaves the place where it stood with it.
        for beneath in self.moves_of(SourceId(hot.source()))? {
            if !self.is_beneath(beneath, id)? {
                continue;
            }
            let stood = tree::standing_path(&*self.entries, beneath)?;
            if let (Some(stood), Some(row)) = (stood, self.move_of(beneath)?) {
                rows.push((beneath, stood, row));
            }
        }
        for (_, stood, row) in &mut rows {
            // Files that have followed so far lie where the directory stood.
            if !row.places.contains(stood) {
                row.places.push(std::mem::take(stood));
            }
            if row.places.len() > PLACES_MAX {
                return Err(refuse("it was renamed too often while its objects have not followed"));
            }
        }
        self.follow_moved(from, to, raw_name, None, None, at_ns)?;
        for (id, _, row) in rows {
            self.put_move(id, &row)?;
        }
        Ok(())
    }

    /// Gives the row of a directory that had none: where it lies, and where it has stood with the one above it that is on the move.
    fn first_row(&self, id: u64, lies_at: Vec<u8>) -> Result<MoveRow> {
        let mut way = Vec::new();
        tree::climb(&*self.entries, id, |at, cold| {
            way.push((at, cold.raw().to_vec()));
            if cold.attach_point {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let (mut places, mut beneath) = (vec![lies_at], Vec::new());
        for (at, raw) in way {
            if let Some(above) = self.move_of(at)? {
                let stood = above.places.iter().map(|place| [&place[..], &beneath].concat());
                let stood: Vec<_> = stood.filter(|place| !places.contains(place)).collect();
                places.extend(stood);
                break;
            }
            beneath = [b"/", &raw[..], &beneath].concat();
        }
        Ok(MoveRow { places })
    }

    fn is_beneath(&self, id: u64, directory: u64) -> Result<bool> {
        let mut is_beneath = false;
        tree::climb(&*self.entries, id, |at, _| {
            is_beneath |= at == directory && at != id;
            if is_beneath {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(is_beneath)
    }

    /// Takes in where files lie now, and how they look there.
    pub(crate) fn note_copied(&mut self, copied: &Copied) -> Result<bool> {
        let Some((cold, hot)) = self.node(copied.id.0)? else {
            return Ok(false);
        };
        let id = copied.id.0;
        if hot.is_directory() || !self.is_attached(id)? || self.topmost_move(id)?.is_none() {
            return Ok(false);
        }
        // Whoever writes to it relies on the version that it had.
        if copied.seen.is_some() && self.is_staged(id)? {
            return Ok(false);
        }
        self.tickets.touch(&[cold.parent]);
        if let Some(seen) = &copied.seen {
            let known = self.known(copied.id)?;
            let same_size = known.hot.size() == seen.size;
            let content = known.cold.content.filter(|_| same_size);
            self.take_own_change(&known, seen.clone(), Keeping::All)?;
            self.keep_content(id, content)?;
        }
        self.put_moved(id, copied.lies_at.clone(), copied.left.clone())?;
        Ok(true)
    }

    /// Says where a file lies beneath a directory that is on the move.
    pub(crate) fn put_moved(&mut self, id: u64, lies_at: Vec<u8>, left: Option<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        let row = MovedRow { lies_at, left };
        self.moved.insert(id, row.encode().as_slice())?;
        Ok(())
    }

    /// Notes that nothing of a file is left in its former place.
    pub(crate) fn note_left_removed(&mut self, id: EntryId) -> Result<()> {
        if let Some(row) = self.moved_of(id.0)? {
            let row = MovedRow { left: None, ..row };
            self.moved.insert(id.0, row.encode().as_slice())?;
        }
        Ok(())
    }

    /// Ends the move of a directory, if all that it holds lies where it stands. The directories are listed anew.
    pub(crate) fn finish_move(&mut self, directory: EntryId, settled: &HashMap<EntryId, Vec<u8>>) -> Result<bool> {
        let id = directory.0;
        if self.move_of(id)?.is_none() {
            return Ok(true);
        }
        let places = (self.object_path(id)?, tree::standing_path(&*self.entries, id)?);
        let (Some(lies_at), Some(stands)) = places else {
            return Ok(false);
        };
        if self.topmost_move(id)? != Some(id) {
            return Ok(false);
        }
        let mut directories = vec![(id, lies_at, stands)];
        let (mut files, mut done) = (Vec::new(), Vec::new());
        while let Some((directory, lies_at, stands)) = directories.pop() {
            if settled.get(&EntryId(directory)) != Some(&stands) {
                return Ok(false);
            }
            let range = subtree_range(directory);
            for row in self.children.range(range.start.as_slice()..range.end.as_slice())? {
                let (key, row) = row?;
                let (name, hot) = (child_name(key.value())?, HotRow::decode(row.value())?);
                let raw = tree::with_cold(&*self.entries, hot.id(), |cold| Ok(cold.raw().to_vec()))?;
                let raw = raw.unwrap_or_else(|| name.to_vec());
                let child_stands = [&stands[..], b"/", &raw].concat();
                let beneath = [&lies_at[..], b"/", &raw].concat();
                if hot.is_directory() {
                    let child_lies = self.move_of(hot.id())?.map(|row| row.places[0].clone());
                    directories.push((hot.id(), child_lies.unwrap_or(beneath), child_stands));
                    continue;
                }
                let (child_lies, left) = match self.moved_of(hot.id())? {
                    Some(row) => {
                        files.push(hot.id());
                        (row.lies_at, row.left)
                    }
                    None => (beneath, None),
                };
                if child_lies != child_stands || left.is_some() {
                    return Ok(false);
                }
            }
            done.push(directory);
        }
        for file in files {
            self.moved.remove(file)?;
        }
        for directory in done {
            self.moves.remove(directory)?;
            crate::sources::list_again(self, directory)?;
            // Whoever keeps what it holds finds it elsewhere now.
            self.changes.push(Change::Directory { id: EntryId(directory) });
        }
        self.leading.take();
        // A listing that shows what lay in the old place must not be applied any more: nothing hides that from now on.
        self.tickets.touch_all();
        Ok(true)
    }

    /// Gives the path at which the object of an entry lies.
    pub(crate) fn object_path(&self, id: u64) -> Result<Option<Vec<u8>>> {
        tree::object_path(&*self.entries, &*self.moves, &*self.moved, id)
    }

    fn put_move(&mut self, id: u64, row: &MoveRow) -> Result<()> {
        self.moves.insert(id, row.encode().as_slice())?;
        self.leading.take();
        Ok(())
    }

    pub(crate) fn move_of(&self, id: u64) -> Result<Option<MoveRow>> {
        let row = self.moves.get(id)?;
        Ok(row.map(|row| MoveRow::decode(row.value())).transpose()?)
    }

    pub(crate) fn moved_of(&self, id: u64) -> Result<Option<MovedRow>> {
        let row = self.moved.get(id)?;
        Ok(row.map(|row| MovedRow::decode(row.value())).transpose()?)
    }

    /// Tells whether an entry has a row of its own.
    pub(crate) fn has_move(&self, id: u64) -> Result<bool> {
        Ok(!self.moves.is_empty()? && (self.moves.get(id)?.is_some() || self.moved.get(id)?.is_some()))
    }

    /// Finds the topmost directory with a row that is an entry, or lies above it.
    pub(crate) fn topmost_move(&self, id: u64) -> Result<Option<u64>> {
        topmost(&*self.entries, &*self.moves, id)
    }

    /// Forgets the rows of an entry that goes, or whose object lies where it stands.
    pub(crate) fn drop_move(&mut self, id: u64) -> Result<()> {
        self.end_rename(id)?;
        if self.moves.is_empty()? {
            return Ok(());
        }
        self.moved.remove(id)?;
        if self.moves.remove(id)?.is_some() {
            self.leading.take();
            // Nothing hides any more what lies in its old place.
            self.tickets.touch_all();
        }
        Ok(())
    }

    /// Forgets all rows of a source: it goes.
    pub(crate) fn drop_moves_of(&mut self, source: SourceId) -> Result<()> {
        let mut ids = Vec::new();
        for row in self.moves.iter()?.chain(self.moved.iter()?) {
            let id = row?.0.value();
            if self.node(id)?.is_some_and(|(_, hot)| hot.source() == source.0) {
                ids.push(id);
            }
        }
        for id in ids {
            self.moved.remove(id)?;
            self.moves.remove(id)?;
        }
        self.leading.take();
        Ok(())
    }

    /// Gives the directories of a source that have a row.
    pub(crate) fn moves_of(&self, source: SourceId) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        for row in self.moves.iter()? {
            let id = row?.0.value();
            if self.node(id)?.is_some_and(|(_, hot)| hot.source() == source.0) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Gives the raw names that a listing of a directory may show, though what lies there stands elsewhere in the tree.
    pub(crate) fn names_moved_away(&self, directory: u64, source: u32) -> Result<HashSet<Vec<u8>>> {
        let mut names = HashSet::new();
        if self.moves.is_empty()? {
            return Ok(names);
        }
        let Some(path) = self.object_path(directory)? else {
            return Ok(names);
        };
        for id in self.moves_of(SourceId(source))? {
            let row = self.move_of(id)?;
            for place in row.iter().flat_map(|row| &row.places) {
                names.extend(first_beneath(&path, place).map(<[u8]>::to_vec));
            }
        }
        Ok(names)
    }
}

/// Finds the topmost directory with a row that is an entry, or lies above it.
pub(crate) fn topmost(
    entries: &impl ReadableTable<u64, &'static [u8]>,
    moves: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
) -> Result<Option<u64>> {
    if moves.is_empty()? {
        return Ok(None);
    }
    let mut way = Vec::new();
    tree::climb(entries, id, |at, _| {
        way.push(at);
        ControlFlow::Continue(())
    })?;
    for at in way.into_iter().rev() {
        if moves.get(at)?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Gives the name in a directory that leads to a place, or is it.
fn first_beneath<'a>(directory: &[u8], place: &'a [u8]) -> Option<&'a [u8]> {
    let rest = if directory.is_empty() {
        place
    } else {
        place.strip_prefix(directory)?.strip_prefix(b"/")?
    };
    rest.split(|byte| *byte == b'/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_leads_to_a_place_is_found() {
        for (directory, place, name) in [
            ("", "a/b", Some("a")),
            ("a", "a/b/c", Some("b")),
            ("a", "a/b", Some("b")),
            ("a/b", "a/b", None),
            ("a", "ab/c", None),
            ("c", "a/b", None),
        ] {
            assert_eq!(
                first_beneath(directory.as_bytes(), place.as_bytes()),
                name.map(str::as_bytes),
                "{directory} {place}"
            );
        }
    }
}
