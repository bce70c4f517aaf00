//! Files that were moved from one source to another: they stand in their new place, and their former objects stay where they
//! are until nobody needs them.
//!
//! A row of `origins` names those places. Until it is due, the file is staged, and what the target does not have yet may be
//! read from the first of them; then each is to be taken away, in that version alone. As long as there is a row, no listing
//! shows what a place holds in that version, and the directory of a place stays in the tree.

use std::collections::HashMap;
use std::ops::ControlFlow;

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::follow::refuse;
use super::keep::Keeping;
use super::update::{Moving, Seen};
use crate::error::Result;
use crate::format::{
    Cold, ORIGINS_MAX, OriginPlace, OriginsRow, STAGED_BYTES_MAX, TotalsRow, encode_sent, left_id, left_key, left_name,
    left_range,
};
use crate::origins::{Across, Unseen};
use crate::tree;
use crate::{AttributeMustBe, EntryId, NewChild, SourceId, listing};

impl Edit<'_> {
    /// Moves a file to a directory of another source. What stood in its new place is gone.
    pub(crate) fn follow_across(&mut self, across: &Across<'_>) -> Result<()> {
        let (from, to) = (across.from, across.to);
        let left_source = self.source_directory(from.0)?.source();
        let source = self.source_directory(to.0)?.source();
        if left_source == source {
            return Err(refuse(to, "it belongs to the same source"));
        }
        if across
            .staged_bytes
            .as_ref()
            .is_some_and(|bytes| bytes.len() > STAGED_BYTES_MAX)
        {
            return Err(refuse(from, "there are more than 64 KiB of bytes"));
        }
        self.tickets.touch(&[from.0.0, to.0.0]);
        let standing = self
            .standing(from)?
            .ok_or_else(|| refuse(from, "it is not in the catalog"))?;
        self.may_be_changed(&standing)?;
        let (id, hot) = (standing.hot.id(), standing.hot);
        if hot.is_directory() {
            return Err(refuse(from, "it is a directory"));
        }
        if hot.kind() != across.seen.kind {
            return Err(refuse(from, "it is of another kind"));
        }
        let mut child = NewChild {
            name: to.1.into(),
            raw_name: across.raw_name.clone(),
            seen: across.seen.clone(),
            adopt: None,
        };
        listing::prepare(to.0, std::slice::from_mut(&mut child))?;
        let before = self.origins_of(id)?;
        if before.as_ref().is_some_and(|row| row.places.len() >= ORIGINS_MAX) {
            return Err(refuse(
                from,
                "it was moved too often while its former objects are still there",
            ));
        }
        if let Some(target) = self.standing(to)? {
            self.may_be_changed(&target)?;
            if target.hot.is_directory() {
                return Err(refuse(to, "a directory has its place"));
            }
            if self.pin_is_free(id)? {
                self.bequeath_pin(&target.hot, id, hot.kind())?;
            }
            self.remove_for_good(&target, across.at_ns)?;
        }
        let cold = self.existing_cold(id)?;
        let raw_name = cold.raw_name.as_ref().unwrap_or(&cold.name).to_vec();
        let content = cold.content;
        self.change_identity(left_source, id, cold.identity, None)?;
        let moving = Moving {
            id,
            cold: Cold { identity: None, ..cold },
            attached: true,
        };
        // It counts for the new source from here on, as whatever moves within that does.
        self.subtract_totals(left_source, TotalsRow::of(hot.size()))?;
        self.add_totals(source, TotalsRow::of(hot.size()))?;
        self.lift(&moving, left_source)?;
        let seen = Seen {
            directory: to.0.0,
            source,
            child: &child,
            keeping: Keeping::All,
        };
        let hot = if across.keeps { hot } else { self.without_kept(&hot)? };
        self.settle(&moving, &hot, &seen)?;
        self.drop_move(id)?;
        if across.same_bytes {
            self.keep_content(id, content)?;
        }
        if across.keeps {
            self.keep_across(id, across)?;
        }
        self.stage_across(id, across)?;
        let left = across.left.as_ref().map(|left| {
            let place = OriginPlace {
                source: left_source,
                directory: from.0.0,
                name: raw_name,
                version: left.version.to_vec(),
            };
            (place, left.shows_through)
        });
        self.put_origins(id, before, left, across.staged.is_none())?;
        self.tell_directories(from, to);
        self.names_changed(from.0, across.at_ns, true)?;
        self.names_changed(to.0, across.at_ns, true)
    }

    /// Keeps of a moved file what its new source cannot store.
    fn keep_across(&mut self, id: u64, across: &Across<'_>) -> Result<()> {
        self.keep(EntryId(id), &across.keep, None)?;
        for (name, value) in &across.attributes {
            let any = AttributeMustBe::Anything;
            let kept = self.keep_attribute(EntryId(id), name, Some(value), any, across.at_ns)?;
            if kept.is_err() {
                return Err(refuse(across.from, "its extended attributes find no room"));
            }
        }
        Ok(())
    }

    /// Puts the row of a moved file, with what lies beside it, in the place of another.
    fn stage_across(&mut self, id: u64, across: &Across<'_>) -> Result<()> {
        self.drop_staged(id)?;
        if let Some(row) = &across.staged {
            self.staged.insert(id, row.as_slice())?;
            if let Some(bytes) = &across.staged_bytes {
                self.staged_bytes.insert(id, bytes.as_slice())?;
            }
            self.leading.take();
        }
        Ok(())
    }

    /// Adds a place to those of a file. What shows through lies in the first.
    fn put_origins(
        &mut self,
        id: u64,
        before: Option<OriginsRow>,
        left: Option<(OriginPlace, bool)>,
        is_due: bool,
    ) -> Result<()> {
        let mut row = before.unwrap_or(OriginsRow {
            is_due,
            is_settled: false,
            shows_through: false,
            places: Vec::new(),
        });
        row.is_due = is_due;
        row.is_settled &= is_due;
        if let Some((place, shows_through)) = left {
            if shows_through {
                row.places.insert(0, place);
                row.shows_through = true;
            } else {
                row.places.push(place);
            }
        }
        if row.places.is_empty() {
            return Ok(());
        }
        self.set_origins(id, Some(&row))
    }

    /// Notes that an upload may have arrived where a file stands that is about to leave that place.
    pub(crate) fn leave_unseen(&mut self, unseen: &Unseen) -> Result<()> {
        if unseen.states.is_empty() {
            return Ok(());
        }
        self.leave(unseen.id, encode_sent(&unseen.states))
    }

    /// Notes that a file leaves the place where it stands, and its object there in a version.
    pub(crate) fn leave(&mut self, id: EntryId, version: Vec<u8>) -> Result<()> {
        let known = self.known(id)?;
        let before = self.origins_of(id.0)?;
        if before.as_ref().is_some_and(|row| row.places.len() >= ORIGINS_MAX) {
            return Err(known.refuse("it was moved too often while its former objects are still there"));
        }
        let is_due = before.as_ref().is_some_and(|row| row.is_due);
        let place = OriginPlace {
            source: known.hot.source(),
            directory: known.cold.parent,
            name: known.cold.raw_name.unwrap_or(known.cold.name).into_vec(),
            version,
        };
        self.put_origins(id.0, before, Some((place, false)), is_due)
    }

    /// Says that nobody needs any more what a file has left elsewhere: its source has it, or it was removed.
    pub(crate) fn origins_are_due(&mut self, id: u64, is_removed: bool) -> Result<()> {
        if let Some(row) = self.origins_of(id)? {
            let row = OriginsRow {
                is_due: true,
                is_settled: is_removed,
                ..row
            };
            self.origins.insert(id, row.encode().as_slice())?;
        }
        Ok(())
    }

    /// Says whether the sources of files need not be asked any more whether they have the copies, of those that are there and of which
    /// something is due.
    pub(crate) fn settle_origins(&mut self, files: &[EntryId], is_settled: bool) -> Result<()> {
        for id in files {
            match self.origins_of(id.0)? {
                Some(row) if row.is_due && self.node(id.0)?.is_some() => {
                    let row = OriginsRow { is_settled, ..row };
                    self.origins.insert(id.0, row.encode().as_slice())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets what a file has left elsewhere, unless it is due to be taken away: it stays, and listings show it again.
    pub(crate) fn leave_origins(&mut self, id: u64) -> Result<()> {
        match self.origins_of(id)? {
            Some(row) if !row.is_due => self.drop_origins(id, &row),
            _ => Ok(()),
        }
    }

    /// Forgets what a file has left in one place: it is gone there, or is not ours to take away.
    pub(crate) fn note_origin_gone(&mut self, id: u64, gone: &OriginPlace) -> Result<()> {
        let Some(mut row) = self.origins_of(id)? else {
            return Ok(());
        };
        if row.shows_through && row.places[0] == *gone {
            row.shows_through = false;
        }
        row.places.retain(|place| place != gone);
        self.tickets.touch(&[gone.directory]);
        self.set_origins(id, Some(&row))
    }

    /// Gives up the move of a file of which another has made something else before it was copied: what the tree has of it is
    /// gone, and what is in its former places shows again.
    pub(crate) fn give_up_across(&mut self, id: EntryId, at_ns: i64) -> Result<()> {
        let Some((cold, _)) = self.node(id.0)? else {
            return Ok(());
        };
        if let Some(row) = self.origins_of(id.0)? {
            self.drop_origins(id.0, &row)?;
        }
        self.follow_removed((EntryId(cold.parent), &cold.name), at_ns)
    }

    /// Forgets all that concerns a source that goes: what its files have left elsewhere and still need, and what others have
    /// left in it.
    pub(crate) fn drop_origins_of(&mut self, source: SourceId) -> Result<()> {
        for (id, mut row) in self.all_origins()? {
            let is_its_own = self.node(id)?.is_some_and(|(_, hot)| hot.source() == source.0);
            if is_its_own && !row.is_due {
                self.drop_origins(id, &row)?;
                continue;
            }
            if row.shows_through && row.places[0].source == source.0 {
                row.shows_through = false;
            }
            row.places.retain(|place| place.source != source.0);
            self.set_origins(id, Some(&row))?;
        }
        Ok(())
    }

    /// Gives the files that have left something in a source.
    pub(crate) fn origins_in(&self, source: SourceId) -> Result<Vec<u64>> {
        let mut files = self.all_origins()?;
        files.retain(|(_, row)| row.places.iter().any(|place| place.source == source.0));
        Ok(files.into_iter().map(|(id, _)| id).collect())
    }

    /// Gives what a listing of a directory may show that was moved away: raw names and versions.
    pub(crate) fn left_in(&self, directory: u64) -> Result<HashMap<Vec<u8>, Vec<Vec<u8>>>> {
        let mut left = HashMap::<_, Vec<_>>::new();
        if self.left.is_empty()? {
            return Ok(left);
        }
        let (first, last) = left_range(directory, None);
        for key in self.left.range(first.as_slice()..last.as_slice())? {
            let key = key?.0;
            let (id, name) = (left_id(key.value())?, left_name(key.value())?);
            let row = self.origins_of(id)?.map_or_else(Vec::new, |row| row.places);
            let here = row
                .into_iter()
                .filter(|place| place.directory == directory && place.name == name);
            left.entry(name.to_vec())
                .or_default()
                .extend(here.map(|place| place.version));
        }
        Ok(left)
    }

    /// Tells whether something is left of files that stand elsewhere.
    pub(crate) fn has_origins(&self) -> Result<bool> {
        Ok(!self.origins.is_empty()?)
    }

    /// Visits each directory in which something is left, and those above it, until it breaks off.
    pub(crate) fn lead_to_origins(&self, mut visit: impl FnMut(u64) -> ControlFlow<()>) -> Result<()> {
        for (_, row) in self.all_origins()? {
            for place in row.places {
                tree::climb(&*self.entries, place.directory, |above, _| visit(above))?;
            }
        }
        Ok(())
    }

    fn drop_origins(&mut self, id: u64, row: &OriginsRow) -> Result<()> {
        let directories: Vec<_> = row.places.iter().map(|place| place.directory).collect();
        self.tickets.touch(&directories);
        self.set_origins(id, None)
    }

    /// Puts the row of a file, with its places in the index; without any, there is none.
    fn set_origins(&mut self, id: u64, row: Option<&OriginsRow>) -> Result<()> {
        for place in self.origins_of(id)?.into_iter().flat_map(|row| row.places) {
            self.left
                .remove(left_key(place.directory, &place.name, id).as_slice())?;
        }
        match row.filter(|row| !row.places.is_empty()) {
            Some(row) => {
                for place in &row.places {
                    self.left
                        .insert(left_key(place.directory, &place.name, id).as_slice(), ())?;
                }
                self.origins.insert(id, row.encode().as_slice())?;
            }
            None => drop(self.origins.remove(id)?),
        }
        self.leading.take();
        Ok(())
    }

    fn origins_of(&self, id: u64) -> Result<Option<OriginsRow>> {
        if self.origins.is_empty()? {
            return Ok(None);
        }
        let row = self.origins.get(id)?;
        Ok(row.map(|row| OriginsRow::decode(row.value())).transpose()?)
    }

    fn all_origins(&self) -> Result<Vec<(u64, OriginsRow)>> {
        let mut all = Vec::new();
        if self.origins.is_empty()? {
            return Ok(all);
        }
        for row in self.origins.iter()? {
            let (id, row) = row?;
            all.push((id.value(), OriginsRow::decode(row.value())?));
        }
        Ok(all)
    }
}
