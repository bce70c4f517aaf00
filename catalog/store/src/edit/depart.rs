//! Entries that leave the tree, and how they are forgotten.
//!
//! What leaves is first only detached: its hot row moves to the key "nowhere, by its id", its subtree stays as it is
//! beneath it, and it can be adopted again. Reaping takes it apart in bounded batches: a directory that is reaped
//! loses its identity and its state first, so that nobody can adopt it with half of its children and believe them all.

use redb::ReadableTable;

use super::Edit;
use crate::error::{Error, Result};
use crate::format::{
    ChildKey, Cold, HotRow, NOWHERE, TotalsRow, child_name, owned_id, owned_key, owned_range, subtree_range,
};
use crate::tree;
use crate::{Change, EntryId, SourceId};

/// A child, where it stands.
pub(crate) struct Standing {
    pub(crate) parent: u64,
    pub(crate) name: Box<[u8]>,
    pub(crate) hot: HotRow,
}

impl Edit<'_> {
    /// Takes a child of a source out of the tree. A directory that leads to an attach point stays, as the library's.
    /// Nothing leaves that is staged, or leads to what is.
    pub(crate) fn remove_child(&mut self, child: &Standing, at_ns: i64) -> Result<()> {
        if self.is_kept(&child.hot)? {
            return Err(Error::Waiting(EntryId(child.hot.id())));
        }
        if child.hot.is_directory() && self.holds_attach_point(child.hot.id())? {
            return self.release(child, at_ns);
        }
        let (parent, id) = (EntryId(child.parent), EntryId(child.hot.id()));
        self.changes.push(Change::Removed {
            parent,
            name: child.name.clone(),
            id,
        });
        self.depart(child, at_ns)
    }

    /// Takes a child of a source out of the tree that was removed through the mount: it is not kept for adoption, and
    /// what is staged of it is forgotten. Nothing leaves that leads to something staged.
    pub(crate) fn remove_for_good(&mut self, child: &Standing, at_ns: i64) -> Result<()> {
        let (id, source, is_directory) = (child.hot.id(), child.hot.source(), child.hot.is_directory());
        if is_directory && self.leads_to_staged(id)? {
            return Err(Error::Waiting(EntryId(id)));
        }
        self.origins_are_due(id, true)?;
        self.changes.push(Change::Removed {
            parent: EntryId(child.parent),
            name: child.name.clone(),
            id: EntryId(id),
        });
        if is_directory && self.any_child(id, |_| true)? {
            // The source had nothing in it, so this has moved elsewhere or is gone: that is for a listing to find out.
            self.drop_staged(id)?;
            self.drop_move(id)?;
            let cold = self.existing_cold(id)?;
            self.change_identity(source, id, cold.identity, None)?;
            self.put_cold(id, &Cold { identity: None, ..cold })?;
            return self.depart(child, at_ns);
        }
        if is_directory {
            self.dequeue(source, id)?;
            self.clear_failure(source, id)?;
        }
        self.subtract_totals(source, TotalsRow::of(child.hot.size()))?;
        self.forget(source, id, &tree::hot_key(id, child.parent, &child.name)?)
    }

    /// Makes a directory the library's own: what the source told of it leaves, what other sources have in it stays.
    pub(crate) fn release(&mut self, child: &Standing, at_ns: i64) -> Result<()> {
        let (id, source) = (child.hot.id(), child.hot.source());
        let cold = self.existing_cold(id)?;
        self.change_identity(source, id, cold.identity, None)?;
        self.subtract_totals(source, TotalsRow::of(0))?;
        self.put_directory(id, cold.parent, &child.name, SourceId::LIBRARY.0, false)?;
        self.clear_failure(source, id)?;
        self.directories.remove(id)?;
        self.dequeue(source, id)?;
        self.changes.push(Change::Attributes { id: EntryId(id) });
        self.changes.push(Change::Directory { id: EntryId(id) });
        for (name, hot) in self.children_where(id, |hot| hot.source() == source && !hot.is_attach_point())? {
            self.remove_child(&Standing { parent: id, name, hot }, at_ns)?;
        }
        Ok(())
    }

    fn depart(&mut self, child: &Standing, at_ns: i64) -> Result<()> {
        let (id, source) = (child.hot.id(), child.hot.source());
        self.end_rename(id)?;
        let cold = self.existing_cold(id)?;
        let key = tree::hot_key(id, child.parent, &child.name)?;
        self.children.remove(key.as_slice())?;
        let mut leaving = TotalsRow::of(child.hot.size());
        if child.hot.is_directory() {
            leaving = leaving.plus(self.leave_subtree(source, id)?);
        }
        self.subtract_totals(source, leaving)?;
        if child.hot.is_directory() || cold.identity.is_some() {
            self.put_hot(&ChildKey::departed(id), &child.hot.with_attach_point(false))?;
            self.put_cold(
                id,
                &Cold {
                    parent: NOWHERE,
                    attach_point: false,
                    ..cold
                },
            )?;
            self.departed.insert(&owned_key(source, id), at_ns)?;
        } else {
            self.remove_cold(id, &cold)?;
        }
        Ok(())
    }

    /// Counts what leaves with a directory, and takes it out of the queue and out of what could not be listed.
    fn leave_subtree(&mut self, source: u32, root: u64) -> Result<TotalsRow> {
        let mut sum = TotalsRow::default();
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            let range = subtree_range(directory);
            for row in self.children.range(range.start.as_slice()..range.end.as_slice())? {
                let hot = HotRow::decode(row?.1.value())?;
                sum = sum.plus(TotalsRow::of(hot.size()));
                if hot.is_directory() {
                    directories.push(hot.id());
                }
            }
            self.dequeue(source, directory)?;
            self.clear_failure(source, directory)?;
        }
        Ok(sum)
    }

    /// Forgets some of what departed from a source before that time: at most about `budget` rows. Gives the number of
    /// entries forgotten, and whether that was all.
    pub(crate) fn reap(&mut self, source: u32, before_ns: i64, budget: usize) -> Result<(u64, bool)> {
        let (first, last) = owned_range(source);
        let mut due = Vec::new();
        for row in self.departed.range::<&[u8; 12]>(&first..=&last)? {
            let (key, at) = row?;
            if at.value() < before_ns {
                due.push((owned_id(key.value()).1, at.value()));
                if due.len() >= budget {
                    break;
                }
            }
        }
        let mut reaped = 0;
        let mut left = budget;
        let all = due.len() < budget;
        for (id, at_ns) in due {
            if left == 0 {
                return Ok((reaped, false));
            }
            let hot = tree::hot(&*self.children, &ChildKey::departed(id))?;
            let hot = hot.ok_or_else(|| Error::damaged(format!("departed entry {id} has lost its attributes")))?;
            if hot.is_directory() && !self.reap_children(source, id, at_ns, &mut left, &mut reaped)? {
                return Ok((reaped, false));
            }
            self.forget(source, id, &ChildKey::departed(id))?;
            self.departed.remove(&owned_key(source, id))?;
            reaped += 1;
            left = left.saturating_sub(1);
        }
        // Directories that were found on the way are departed now, and still to be reaped.
        Ok((reaped, all && left > 0 && !self.has_due(source, before_ns)?))
    }

    fn has_due(&self, source: u32, before_ns: i64) -> Result<bool> {
        let (first, last) = owned_range(source);
        for row in self.departed.range::<&[u8; 12]>(&first..=&last)? {
            if row?.1.value() < before_ns {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets the children of a departed directory; directories among them depart in their own name. Tells whether
    /// none is left.
    fn reap_children(
        &mut self,
        source: u32,
        directory: u64,
        at_ns: i64,
        left: &mut usize,
        reaped: &mut u64,
    ) -> Result<bool> {
        let cold = self.existing_cold(directory)?;
        self.change_identity(source, directory, cold.identity, None)?;
        self.put_cold(directory, &Cold { identity: None, ..cold })?;
        self.directories.remove(directory)?;
        let range = subtree_range(directory);
        let mut some = Vec::new();
        for row in self
            .children
            .range(range.start.as_slice()..range.end.as_slice())?
            .take(*left + 1)
        {
            let (key, row) = row?;
            some.push((
                Box::<[u8]>::from(child_name(key.value())?),
                HotRow::decode(row.value())?,
            ));
        }
        let all = some.len() <= *left;
        for (name, hot) in some.into_iter().take(*left) {
            let id = hot.id();
            let key = tree::hot_key(id, directory, &name)?;
            if hot.is_directory() {
                self.children.remove(key.as_slice())?;
                self.put_hot(&ChildKey::departed(id), &hot)?;
                let cold = self.existing_cold(id)?;
                self.put_cold(
                    id,
                    &Cold {
                        parent: NOWHERE,
                        ..cold
                    },
                )?;
                self.departed.insert(&owned_key(source, id), at_ns)?;
            } else {
                self.forget(source, id, &key)?;
                *reaped += 1;
            }
            *left -= 1;
        }
        Ok(all)
    }

    /// Removes all rows of an entry that is not counted any more and has no children.
    fn forget(&mut self, source: u32, id: u64, key: &ChildKey) -> Result<()> {
        let cold = self.existing_cold(id)?;
        self.children.remove(key.as_slice())?;
        self.remove_cold(id, &cold)?;
        self.directories.remove(id)?;
        self.change_identity(source, id, cold.identity, None)
    }

    /// Removes library directories that lead nowhere any more, from this one upwards. Gives the first that stays.
    pub(crate) fn prune_library(&mut self, mut directory: u64) -> Result<u64> {
        loop {
            let (cold, hot) = self
                .node(directory)?
                .ok_or_else(|| Error::damaged(format!("entry {directory} is missing")))?;
            let idle = hot.source() == SourceId::LIBRARY.0 && directory != EntryId::ROOT.0;
            if !idle || self.any_child(directory, |_| true)? {
                return Ok(directory);
            }
            let (parent, id) = (cold.parent, EntryId(directory));
            let key = tree::hot_key(directory, parent, &cold.name)?;
            self.children.remove(key.as_slice())?;
            self.remove_cold(directory, &cold)?;
            self.subtract_totals(SourceId::LIBRARY.0, TotalsRow::of(0))?;
            self.changes.push(Change::Removed {
                parent: EntryId(parent),
                name: cold.name,
                id,
            });
            directory = parent;
        }
    }
}
