//! Attributes that a source cannot store, and that the catalog keeps in its place: permission bits, owner, times, extended
//! attributes.
//!
//! They belong to the entry: they stay when it is renamed, uploaded, listed or adopted anew, and go with it. A kept time belongs
//! to the version that it was set for as well, and goes when the source tells of another that the mount has not put there.

use crate::error::Result;
use crate::format::KeptRow;
use crate::store::When;
use crate::{Catalog, Change, EntryId, SeenAttributes};

/// What is to be kept of an entry over what its source says. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Permission bits; what lies outside `0o7777` is dropped.
    pub mode: Option<u16>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Last change of the bytes, in nanoseconds since 1970 UTC. Of a directory it holds until names in it change.
    pub modified_ns: Option<i64>,
    /// Last read, in the same unit; not kept where it is the time of the last change.
    pub accessed_ns: Option<i64>,
    /// Last change of the attributes, in the same unit. It holds for as long as anything is kept.
    pub changed_ns: Option<i64>,
}

/// What an extended attribute must be before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeMustBe {
    /// Anything.
    Anything,
    /// Not there.
    Absent,
    /// There.
    Present,
}

/// Why an extended attribute was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeRefused {
    /// It was to be new.
    #[error("there is an attribute of that name")]
    Exists,
    /// It was to be there.
    #[error("there is no attribute of that name")]
    Missing,
    /// All attributes of the entry together would be longer than [`KEPT_ATTRIBUTES_MAX`](crate::KEPT_ATTRIBUTES_MAX).
    #[error("the attributes of one entry would be too long together")]
    NoRoom,
    /// The name is empty, has a NUL in it, or more than 255 bytes.
    #[error("no attribute can have that name")]
    BadName,
}

impl Catalog {
    /// Keeps attributes of an entry of a source. `seen` is how the source shows it now, where it has just said so.
    ///
    /// Durable soon; at once with [`sync`](Self::sync).
    pub fn keep(&self, id: EntryId, keep: &Keep, seen: Option<SeenAttributes>) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Soon, |edit| edit.keep(id, keep, seen))?;
        Ok(changes)
    }

    /// Gives the time of the last read, in nanoseconds since 1970 UTC, where one is kept.
    pub fn kept_accessed(&self, id: EntryId) -> Result<Option<i64>> {
        Ok(self.kept_row(id)?.accessed_ns)
    }

    /// Gives the value of an extended attribute.
    pub fn kept_attribute(&self, id: EntryId, name: &[u8]) -> Result<Option<Box<[u8]>>> {
        Ok(self.kept_row(id)?.attributes.remove(name))
    }

    /// Gives the names of all extended attributes, in byte order.
    pub fn kept_attributes(&self, id: EntryId) -> Result<Vec<Box<[u8]>>> {
        Ok(self.kept_row(id)?.attributes.into_keys().collect())
    }

    /// Keeps an extended attribute of an entry of a source. Durable as [`keep`](Self::keep).
    pub fn keep_attribute(
        &self,
        id: EntryId,
        name: &[u8],
        value: &[u8],
        must_be: AttributeMustBe,
        changed_ns: i64,
    ) -> Result<std::result::Result<Vec<Change>, AttributeRefused>> {
        if !KeptRow::takes_name(name) {
            return Ok(Err(AttributeRefused::BadName));
        }
        self.change_attribute(id, name, Some(value), must_be, changed_ns)
    }

    /// Takes an extended attribute away that is there.
    pub fn drop_attribute(
        &self,
        id: EntryId,
        name: &[u8],
        changed_ns: i64,
    ) -> Result<std::result::Result<Vec<Change>, AttributeRefused>> {
        self.change_attribute(id, name, None, AttributeMustBe::Present, changed_ns)
    }

    fn change_attribute(
        &self,
        id: EntryId,
        name: &[u8],
        value: Option<&[u8]>,
        must_be: AttributeMustBe,
        changed_ns: i64,
    ) -> Result<std::result::Result<Vec<Change>, AttributeRefused>> {
        if value.is_some() {
            self.check_room()?;
        }
        let (done, changes) = self.store().write(When::Soon, |edit| {
            edit.keep_attribute(id, name, value, must_be, changed_ns)
        })?;
        Ok(done.map(|()| changes))
    }

    fn kept_row(&self, id: EntryId) -> Result<KeptRow> {
        self.store().read(|snapshot| match snapshot.kept.get(id.0)? {
            Some(row) => Ok(KeptRow::decode(row.value())?),
            None => Ok(KeptRow::default()),
        })
    }
}
