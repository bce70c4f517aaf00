//! What is kept of an entry over what its source says: flags and values in its hot row, and a row of its own for the rest.
//!
//! Always true: an entry has such a row if and only if its hot row says so.

use std::collections::btree_map::Entry as Place;

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::update::Seen;
use crate::error::Result;
use crate::format::{Cold, HotRow, KEPT_ATTRIBUTES_MAX, KeptRow};
use crate::tree;
use crate::{AttributeMustBe, AttributeRefused, Change, EntryId, Keep, Kind, SeenAttributes};

/// What becomes of what is kept of an entry when it is seen anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// All stays, but for times where the bytes are others: those belong to the version that they were set for.
    OfVersion,
    /// All stays: the entry was changed through the mount.
    All,
    /// All stays, but for the time of the last change, which is told.
    ButTime,
}

impl Edit<'_> {
    /// Makes the hot row of an entry that is seen anew, with what is kept of it.
    pub(crate) fn hot_over(&mut self, seen: &Seen<'_>, old: &HotRow, bytes_changed: bool) -> Result<HotRow> {
        let hot = HotRow::of(old.id(), seen.source, &seen.child.seen);
        if !old.keeps_anything() {
            return Ok(hot);
        }
        let is_other = bytes_changed && hot.kind() != Kind::Directory;
        Ok(match seen.keeping {
            Keeping::All => hot.keeping(old, true),
            Keeping::ButTime => hot.keeping(old, false),
            Keeping::OfVersion if !is_other => hot.keeping(old, true),
            Keeping::OfVersion => {
                let hot = hot.keeping(old, false);
                self.change_kept(hot, |row| row.accessed_ns = None)?
            }
        })
    }

    /// Gives what is kept of an entry to the one that takes its place with other bytes: all but the times.
    pub(super) fn bequeath_kept(&mut self, old: &HotRow, heir: HotRow) -> Result<HotRow> {
        if old.keeps_more() {
            let row = self.kept.remove(old.id())?.map(|row| row.value().to_vec());
            if let Some(row) = row {
                self.kept.insert(heir.id(), row.as_slice())?;
            }
        }
        self.change_kept(heir.keeping(old, false), |row| row.accessed_ns = None)
    }

    /// Forgets all that is kept of an entry: its new source stores it.
    pub(crate) fn without_kept(&mut self, hot: &HotRow) -> Result<HotRow> {
        self.drop_kept(hot.id())?;
        Ok(hot.without_kept())
    }

    /// Forgets what is kept in an entry's own row; its hot row goes too, or is written anew.
    pub(crate) fn drop_kept(&mut self, id: u64) -> Result<()> {
        if !self.kept.is_empty()? {
            self.kept.remove(id)?;
        }
        Ok(())
    }

    /// Notes that names in a directory have changed, if the time of its last change is kept: whether by us, so that this is
    /// the time now, or at the source, which then tells better.
    pub(crate) fn names_changed(&mut self, directory: EntryId, at_ns: i64, by_us: bool) -> Result<()> {
        let Some((cold, hot)) = self.node(directory.0)?.filter(|(_, hot)| hot.keeps_time()) else {
            return Ok(());
        };
        let at_ns = at_ns.max(hot.modified_ns());
        let now = if by_us {
            hot.with_time(at_ns).with_changed(at_ns)
        } else {
            hot.without_time(at_ns)
        };
        self.put_kept(directory, &cold, &hot, &now)
    }

    /// Keeps attributes of an entry, which looks like `seen` at its source now.
    pub(crate) fn keep(&mut self, id: EntryId, keep: &Keep, seen: Option<SeenAttributes>) -> Result<()> {
        let known = self.known(id)?;
        self.tickets.touch(&[known.cold.parent]);
        let (known, told_ns) = match seen {
            None => (known, None),
            Some(seen) => {
                let keeping = if keep.modified_ns.is_some() {
                    Keeping::ButTime
                } else {
                    Keeping::All
                };
                let told_ns = seen.modified_ns;
                self.take_own_change(&known, seen, keeping)?;
                (self.known(id)?, Some(told_ns))
            }
        };
        let mut hot = known.hot;
        if let Some(mode) = keep.mode {
            hot = hot.with_mode(mode);
        }
        if let Some(owner) = keep.owner {
            hot = hot.with_owner(owner);
        }
        // What the source has taken as it is needs no keeping; but that of a directory changes there with each upload.
        let is_taken = keep.modified_ns == told_ns && !hot.is_directory();
        if let Some(modified_ns) = keep.modified_ns.filter(|_| !is_taken) {
            hot = hot.with_time(modified_ns);
        }
        if let Some(accessed_ns) = keep.accessed_ns {
            // It is shown as that of the last change where it is not kept.
            let kept = Some(accessed_ns).filter(|_| accessed_ns != hot.modified_ns());
            if kept.is_some() || hot.keeps_more() {
                hot = self.change_kept(hot.with_more(true), |row| row.accessed_ns = kept)?;
            }
        }
        if let Some(changed_ns) = keep.changed_ns.filter(|_| hot.keeps_anything()) {
            hot = hot.with_changed(changed_ns);
        }
        self.put_kept(id, &known.cold, &known.hot, &hot)
    }

    /// Sets an extended attribute, or takes it away.
    pub(crate) fn keep_attribute(
        &mut self,
        id: EntryId,
        name: &[u8],
        value: Option<&[u8]>,
        must_be: AttributeMustBe,
        changed_ns: i64,
    ) -> Result<Result<(), AttributeRefused>> {
        let known = self.known(id)?;
        let mut row = self.kept_row(&known.hot)?;
        match (row.attributes.entry(name.into()), value) {
            (Place::Vacant(_), _) if must_be == AttributeMustBe::Present => return Ok(Err(AttributeRefused::Missing)),
            (Place::Occupied(_), _) if must_be == AttributeMustBe::Absent => return Ok(Err(AttributeRefused::Exists)),
            (Place::Vacant(_), None) => return Ok(Ok(())),
            (Place::Occupied(there), None) => drop(there.remove()),
            (Place::Vacant(place), Some(value)) => drop(place.insert(value.into())),
            (Place::Occupied(mut there), Some(value)) => drop(there.insert(value.into())),
        }
        if value.is_some() && row.attribute_bytes() > KEPT_ATTRIBUTES_MAX {
            return Ok(Err(AttributeRefused::NoRoom));
        }
        self.tickets.touch(&[known.cold.parent]);
        let hot = self.put_kept_row(known.hot, &row)?.with_changed(changed_ns);
        self.put_kept(id, &known.cold, &known.hot, &hot)?;
        Ok(Ok(()))
    }

    /// Changes the row of an entry whose hot row may say that there is one. Gives the hot row that says what there is then.
    fn change_kept(&mut self, hot: HotRow, change: impl FnOnce(&mut KeptRow)) -> Result<HotRow> {
        if !hot.keeps_more() {
            return Ok(hot);
        }
        let mut row = self.kept_row(&hot)?;
        change(&mut row);
        self.put_kept_row(hot, &row)
    }

    fn kept_row(&self, hot: &HotRow) -> Result<KeptRow> {
        match self.kept.get(hot.id())? {
            Some(row) => Ok(KeptRow::decode(row.value())?),
            None => Ok(KeptRow::default()),
        }
    }

    fn put_kept_row(&mut self, hot: HotRow, row: &KeptRow) -> Result<HotRow> {
        if row.is_empty() {
            self.kept.remove(hot.id())?;
        } else {
            self.kept.insert(hot.id(), row.encode().as_slice())?;
        }
        Ok(hot.with_more(!row.is_empty()))
    }

    /// Puts a hot row that differs in attributes alone.
    fn put_kept(&mut self, id: EntryId, cold: &Cold, before: &HotRow, now: &HotRow) -> Result<()> {
        if now == before {
            return Ok(());
        }
        let key = tree::hot_key(id.0, cold.parent, &cold.name)?;
        self.put_hot(&key, now)?;
        self.changes.push(Change::Attributes { id });
        Ok(())
    }
}
