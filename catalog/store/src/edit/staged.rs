//! The journal of what is staged: rows that hold their entries, and what leads to them, in the tree.

use std::collections::HashSet;
use std::ops::ControlFlow;

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::keep::Keeping;
use crate::error::{Error, Result};
use crate::format::HotRow;
use crate::tree;
use crate::{EntryId, Keep, SeenAttributes, SourceId};

/// A row that is to be put, with the bytes that go with it, and what its entry looks like then.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) id: EntryId,
    pub(crate) row: Vec<u8>,
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) seen: Option<SeenAttributes>,
}

impl Edit<'_> {
    /// Puts a row and its bytes, in the place of older ones. What is refused is refused before anything is changed.
    pub(crate) fn stage(&mut self, staging: &Staging) -> Result<()> {
        let known = self.known(staging.id)?;
        if known.hot.is_attach_point() {
            return Err(known.refuse("the root of a source holds no bytes"));
        }
        if let Some(seen) = &staging.seen {
            // Whoever has read them to tell of the bytes may have been overtaken.
            let SeenAttributes { mode, owner, .. } = known.hot.seen(&known.cold);
            let seen = SeenAttributes {
                mode,
                owner,
                ..seen.clone()
            };
            self.take_own_change(&known, seen, Keeping::ButTime)?;
        }
        if self.staged.insert(staging.id.0, staging.row.as_slice())?.is_none() {
            self.leading.take();
        }
        match &staging.bytes {
            Some(bytes) => drop(self.staged_bytes.insert(staging.id.0, bytes.as_slice())?),
            None => self.drop_staged_bytes(staging.id.0)?,
        }
        Ok(())
    }

    /// Puts another row in the place of the one that an entry has. The bytes beside it stay.
    pub(crate) fn restage(&mut self, id: EntryId, row: &[u8]) -> Result<()> {
        let known = self.known(id)?;
        if self.staged.get(id.0)?.is_none() {
            return Err(known.refuse("it is not staged"));
        }
        self.staged.insert(id.0, row)?;
        Ok(())
    }

    /// Takes a row away. What its entry looks like without it is known, or stays as it is; `kept_ns` is kept as the time of its
    /// last change.
    pub(crate) fn unstage(&mut self, id: EntryId, seen: Option<SeenAttributes>, kept_ns: Option<i64>) -> Result<()> {
        let known = self.known(id)?;
        self.tickets.touch(&[known.cold.parent]);
        if let Some(seen) = seen {
            // Its source has all of it: what it was made from at another is not needed any more.
            self.origins_are_due(id.0, false)?;
            let told_ns = seen.modified_ns;
            self.take_own_change(&known, seen, Keeping::ButTime)?;
            if kept_ns.is_some_and(|kept_ns| kept_ns != told_ns) {
                let keep = Keep {
                    modified_ns: kept_ns,
                    changed_ns: Some(known.hot.changed_ns()),
                    ..Keep::default()
                };
                self.keep(id, &keep, None)?;
            }
        }
        self.drop_staged(id.0)
    }

    /// Forgets what is staged of an entry.
    pub(crate) fn drop_staged(&mut self, id: u64) -> Result<()> {
        if !self.staged.is_empty()? && self.staged.remove(id)?.is_some() {
            self.leading.take();
            self.drop_staged_bytes(id)?;
        }
        Ok(())
    }

    fn drop_staged_bytes(&mut self, id: u64) -> Result<()> {
        if !self.staged_bytes.is_empty()? {
            self.staged_bytes.remove(id)?;
        }
        Ok(())
    }

    /// Gives the entries of a source that have a row.
    pub(crate) fn staged_of(&self, source: SourceId) -> Result<Vec<u64>> {
        let mut staged = Vec::new();
        for row in self.staged.iter()? {
            let id = row?.0.value();
            let (_, hot) = self
                .node(id)?
                .ok_or_else(|| Error::damaged(format!("entry {id} is staged, but is not there")))?;
            if hot.source() == source.0 {
                staged.push(id);
            }
        }
        Ok(staged)
    }

    /// Tells whether an entry has a row.
    pub(crate) fn is_staged(&self, id: u64) -> Result<bool> {
        Ok(!self.staged.is_empty()? && self.staged.get(id)?.is_some())
    }

    /// Tells whether a directory leads to an entry that has a row, to another directory whose objects are still to follow
    /// it, or to what is left of a file that stands elsewhere.
    pub(crate) fn leads_to_staged(&self, id: u64) -> Result<bool> {
        if self.staged.is_empty()? && self.moves.is_empty()? && !self.has_origins()? {
            return Ok(false);
        }
        if let Some(leading) = self.leading.get() {
            return Ok(leading.contains(&id));
        }
        let mut leading = HashSet::new();
        for row in self.staged.iter()?.chain(self.moves.iter()?) {
            let staged = row?.0.value();
            tree::climb(&*self.entries, staged, |above, _| {
                // What is above a directory that is known already is known too.
                if above == staged || leading.insert(above) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        self.lead_to_origins(|above| {
            if leading.insert(above) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(self.leading.get_or_init(|| leading).contains(&id))
    }

    /// Tells whether a listing must leave a child where it is.
    pub(crate) fn is_kept(&self, hot: &HotRow) -> Result<bool> {
        let id = hot.id();
        Ok(self.is_staged(id)? || self.has_move(id)? || (hot.is_directory() && self.leads_to_staged(id)?))
    }
}
