//! Verified renames: which claims of a listing hold, seen from the catalog.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::Plan;
use crate::edit::Edit;
use crate::edit::update::Moving;
use crate::error::Result;
use crate::format::HotRow;
use crate::tree;
use crate::{EntryId, Kind, SeenAttributes};

/// An entry that moves into the listed directory.
pub(super) struct Adoption {
    pub(super) moving: Moving,
    /// Its attributes so far.
    pub(super) hot: HotRow,
}

impl Plan<'_> {
    /// Looks at every claim of the children that need a row; one that does not hold makes no adoption.
    pub(super) fn weigh_adoptions(&mut self, edit: &Edit<'_>) -> Result<()> {
        let mut taken = HashSet::new();
        let mut above = None;
        for &index in &self.fresh {
            let Some(EntryId(id)) = self.children[index].adopt else {
                continue;
            };
            if taken.contains(&id) {
                continue;
            }
            if let Some(adoption) = self.weigh(edit, id, &self.children[index].seen, &mut above)? {
                taken.insert(id);
                self.adoptions.insert(index, adoption);
            }
        }
        Ok(())
    }

    fn weigh(
        &self,
        edit: &Edit<'_>,
        id: u64,
        seen: &SeenAttributes,
        above: &mut Option<HashSet<u64>>,
    ) -> Result<Option<Adoption>> {
        let Some((cold, hot)) = edit.node(id)? else {
            return Ok(None);
        };
        if hot.source() != self.source || hot.is_attach_point() || hot.kind() != seen.kind || edit.is_staged(id)? {
            return Ok(None);
        }
        if edit.topmost_move(id)?.is_some() {
            return Ok(None);
        }
        if cold.identity != seen.identity {
            // Another object has taken its name since it was claimed, and with the name the entry.
            return Ok(None);
        }
        if cold.parent == self.directory && !self.loose.contains_key(&id) && !self.staying.contains(&id) {
            // It still stands under a name of its own: this is a second link, not a rename.
            return Ok(None);
        }
        if seen.kind == Kind::Directory && (edit.holds_attach_point(id)? || self.lies_above(edit, id, above)?) {
            return Ok(None);
        }
        let attached = edit.is_attached(id)?;
        if attached && cold.parent != self.directory {
            // Whoever claims it has seen its old place empty, and whoever listed that later has seen it there, or looked at it: what
            // is older is not told by that. It is asked again.
            edit.tickets.check_claim(self.ticket, self.directory, cold.parent)?;
            edit.tickets.check_look(self.ticket, self.directory, id)?;
        }
        Ok(Some(Adoption {
            moving: Moving { id, cold, attached },
            hot,
        }))
    }

    /// Tells whether the listed directory lies beneath that entry: moving it here would make a circle.
    fn lies_above(&self, edit: &Edit<'_>, id: u64, above: &mut Option<HashSet<u64>>) -> Result<bool> {
        if above.is_none() {
            let mut found = HashSet::new();
            tree::climb(&*edit.entries, self.directory, |at, _| {
                found.insert(at);
                ControlFlow::Continue(())
            })?;
            *above = Some(found);
        }
        Ok(above.as_ref().is_some_and(|above| above.contains(&id)))
    }
}
