//! Known entries that changed, moved, or turned into something else.

use redb::ReadableTable;

use super::keep::Keeping;
use super::{Edit, Fresh};
use crate::error::{Error, Result};
use crate::format::{ChildKey, Cold, HotRow, NOWHERE, TotalsRow, child_name, owned_key, subtree_range};
use crate::tree;
use crate::{Change, ChangedFile, EntryId, Kind, NewChild, Replaces, SourceId};

/// An entry that is to be moved, as it stood.
pub(crate) struct Moving {
    pub(crate) id: u64,
    pub(crate) cold: Cold,
    /// Whether it could be reached from the root.
    pub(crate) attached: bool,
}

/// What a child is seen as, set against what the catalog has of it.
pub(crate) struct Seen<'a> {
    pub(crate) directory: u64,
    pub(crate) source: u32,
    pub(crate) child: &'a NewChild,
    pub(crate) keeping: Keeping,
}

impl Edit<'_> {
    /// Takes in what was seen of a child of the same name and kind.
    pub(crate) fn update_child(&mut self, seen: &Seen<'_>, old: &HotRow, replaces: Replaces<'_>) -> Result<()> {
        let Seen {
            directory,
            source,
            child,
            ..
        } = *seen;
        let id = old.id();
        let cold = self.existing_cold(id)?;
        let bytes_changed = cold.version != child.seen.version || old.size() != hot_size(child);
        let changed = ChangedFile {
            id: EntryId(id),
            source: SourceId(source),
            same_object: cold.identity.is_some() && cold.identity == child.seen.identity,
        };
        if child.seen.kind == Kind::File && bytes_changed && replaces(changed) {
            return self.replace_file(seen, old, &cold);
        }
        let hot = self.hot_over(seen, old, bytes_changed)?;
        let now = Cold {
            content: cold.content.filter(|_| !bytes_changed),
            ..cold_row(directory, child)
        };
        if hot != *old {
            let key = tree::hot_key(id, directory, &child.name)?;
            self.put_hot(&key, &hot)?;
            self.subtract_totals(source, TotalsRow::of(old.size()))?;
            self.add_totals(source, TotalsRow::of(hot.size()))?;
        }
        if now != cold {
            self.put_cold(id, &now)?;
            self.keep_link_target(id, seen.keeping, (&cold.version, &now.version))?;
            self.change_identity(source, id, cold.identity, now.identity)?;
            self.change_content(id, cold.content, now.content)?;
        }
        let id = EntryId(id);
        if bytes_changed && child.seen.kind != Kind::Directory {
            self.changes.push(Change::Content { id });
        } else if hot != *old {
            self.changes.push(Change::Attributes { id });
        }
        Ok(())
    }

    /// Gives the new version of a file an id of its own, so that one inode number never stands for two versions.
    fn replace_file(&mut self, seen: &Seen<'_>, old: &HotRow, cold: &Cold) -> Result<()> {
        let Seen {
            directory,
            source,
            child,
            ..
        } = *seen;
        let new = self.allocate_id();
        let key = tree::hot_key(old.id(), directory, &child.name)?;
        self.children.remove(key.as_slice())?;
        self.move_pin(old.id(), new)?;
        let hot = self.bequeath_kept(old, HotRow::of(new, source, &child.seen))?;
        self.remove_cold(old.id(), cold)?;
        self.change_identity(source, old.id(), cold.identity, None)?;
        self.subtract_totals(source, TotalsRow::of(old.size()))?;
        self.insert_fresh(
            source,
            &mut [Fresh {
                id: new,
                parent: directory,
                child,
            }],
            |_| false,
        )?;
        if hot.keeps_anything() {
            self.put_hot(&key, &hot)?;
        }
        let (parent, old, new) = (EntryId(directory), EntryId(old.id()), EntryId(new));
        self.changes.push(Change::Replaced {
            parent,
            name: child.name.clone(),
            old,
            new,
        });
        Ok(())
    }

    /// Takes the place of an entry away, as the first half of a move.
    pub(crate) fn lift(&mut self, moving: &Moving, source: u32) -> Result<()> {
        let key = tree::hot_key(moving.id, moving.cold.parent, &moving.cold.name)?;
        self.children.remove(key.as_slice())?;
        if moving.cold.parent == NOWHERE {
            self.departed.remove(&owned_key(source, moving.id))?;
        }
        Ok(())
    }

    /// Gives a lifted entry its new place, with what was seen of it there.
    pub(crate) fn settle(&mut self, moving: &Moving, old: &HotRow, seen: &Seen<'_>) -> Result<()> {
        let Seen {
            directory,
            source,
            child,
            ..
        } = *seen;
        let bytes_changed = moving.cold.version != child.seen.version || old.size() != hot_size(child);
        let hot = self.hot_over(seen, old, bytes_changed)?;
        let now = Cold {
            content: moving.cold.content.filter(|_| !bytes_changed),
            ..cold_row(directory, child)
        };
        let key = tree::hot_key(moving.id, directory, &child.name)?;
        self.put_hot(&key, &hot)?;
        self.put_cold(moving.id, &now)?;
        self.keep_link_target(moving.id, seen.keeping, (&moving.cold.version, &now.version))?;
        self.change_identity(source, moving.id, moving.cold.identity, now.identity)?;
        self.change_content(moving.id, moving.cold.content, now.content)?;
        if moving.attached {
            self.subtract_totals(source, TotalsRow::of(old.size()))?;
        } else if hot.is_directory() {
            let beneath = self.return_subtree(source, moving.id)?;
            self.add_totals(source, beneath)?;
        }
        self.add_totals(source, TotalsRow::of(hot.size()))?;
        let (id, to) = (EntryId(moving.id), (EntryId(directory), child.name.clone()));
        if moving.attached {
            let from = (EntryId(moving.cold.parent), moving.cold.name.clone());
            self.changes.push(Change::Moved { id, from, to });
        } else {
            // Its leaving was told; so it is new to those who listen.
            self.changes.push(Change::Added {
                parent: to.0,
                name: to.1,
                id,
            });
        }
        if bytes_changed && child.seen.kind != Kind::Directory {
            self.changes.push(Change::Content { id });
        } else if hot != *old {
            self.changes.push(Change::Attributes { id });
        }
        Ok(())
    }

    /// [Settles](Self::settle) an entry that a listing shows in another place. A file whose bytes have changed too is a new entry
    /// there, if somebody has the old one open.
    pub(crate) fn settle_listed(
        &mut self,
        moving: &Moving,
        old: &HotRow,
        seen: &Seen<'_>,
        replaces: Replaces<'_>,
    ) -> Result<()> {
        let child = seen.child;
        let bytes_changed = moving.cold.version != child.seen.version || old.size() != hot_size(child);
        let changed = ChangedFile {
            id: EntryId(moving.id),
            source: SourceId(seen.source),
            same_object: moving.cold.identity.is_some() && moving.cold.identity == child.seen.identity,
        };
        let is_replaced = child.seen.kind == Kind::File && bytes_changed && replaces(changed);
        self.settle(moving, old, seen)?;
        if !is_replaced {
            return Ok(());
        }
        // Its bytes are those of the old version still.
        self.changes
            .retain(|change| *change != Change::Content { id: changed.id });
        let (cold, hot) = self
            .node(moving.id)?
            .ok_or_else(|| Error::damaged(format!("entry {} was lost as it moved", moving.id)))?;
        self.replace_file(seen, &hot, &cold)
    }

    /// Counts what comes back with an adopted directory, and queues what was never listed in it.
    fn return_subtree(&mut self, source: u32, root: u64) -> Result<TotalsRow> {
        let mut sum = TotalsRow::default();
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            let range = subtree_range(directory);
            for row in self.children.range(range.start.as_slice()..range.end.as_slice())? {
                let (key, row) = row?;
                child_name(key.value())?;
                let hot = HotRow::decode(row.value())?;
                sum = sum.plus(TotalsRow::of(hot.size()));
                if hot.is_directory() {
                    directories.push(hot.id());
                }
            }
            if self.state(directory)?.listed_ns.is_none() {
                self.enqueue(source, directory)?;
            } else {
                self.enqueue_for_scan(source, directory)?;
            }
        }
        Ok(sum)
    }

    /// Makes a library directory, which so far only led to an attach point, the source's own.
    pub(crate) fn take_over(&mut self, old: &HotRow, seen: &Seen<'_>) -> Result<()> {
        let Seen {
            directory,
            source,
            child,
            ..
        } = *seen;
        let id = old.id();
        let key = tree::hot_key(id, directory, &child.name)?;
        self.put_hot(&key, &HotRow::of(id, source, &child.seen))?;
        self.put_cold(id, &cold_row(directory, child))?;
        self.change_identity(source, id, None, child.seen.identity)?;
        self.subtract_totals(SourceId::LIBRARY.0, TotalsRow::of(0))?;
        self.add_totals(source, TotalsRow::of(0))?;
        self.enqueue(source, id)?;
        self.changes.push(Change::Attributes { id: EntryId(id) });
        self.changes.push(Change::Directory { id: EntryId(id) });
        Ok(())
    }

    /// Takes in what was seen of the root of a source.
    pub(crate) fn update_attach_point(
        &mut self,
        old: &HotRow,
        cold: &Cold,
        child: &NewChild,
        keeping: Keeping,
    ) -> Result<()> {
        let id = old.id();
        let hot = HotRow::of(id, old.source(), &child.seen).with_attach_point(true);
        let hot = hot.keeping(old, keeping != Keeping::ButTime);
        // A root is found by its place, never by an identity.
        let now = Cold {
            version: child.seen.version.clone(),
            created_ns: child.seen.created_ns,
            device: child.seen.device,
            ..cold.clone()
        };
        if now != *cold {
            self.put_cold(id, &now)?;
        }
        if hot != *old {
            let key: ChildKey = tree::hot_key(id, cold.parent, &cold.name)?;
            self.put_hot(&key, &hot)?;
            self.changes.push(Change::Attributes { id: EntryId(id) });
        }
        Ok(())
    }
}

/// Tells whether a child is seen exactly as the catalog has it.
pub(crate) fn is_unchanged(seen: &Seen<'_>, old: &HotRow, cold: &crate::format::ColdView<'_>) -> bool {
    let child = seen.child;
    // Of the same version, so that kept times are its own.
    *old == HotRow::of(old.id(), seen.source, &child.seen).keeping(old, true)
        && cold.version == &*child.seen.version
        && cold.raw() == child.raw_name.as_deref().unwrap_or(&child.name)
        && cold.created_ns == child.seen.created_ns
        && cold.device == child.seen.device
        && cold.identity == child.seen.identity
}

fn hot_size(child: &NewChild) -> u64 {
    if child.seen.kind == Kind::Directory {
        0
    } else {
        child.seen.size
    }
}

fn cold_row(parent: u64, child: &NewChild) -> Cold {
    Cold {
        parent,
        name: child.name.clone(),
        version: child.seen.version.clone(),
        raw_name: child.raw_name.clone().filter(|raw| *raw != child.name),
        created_ns: child.seen.created_ns,
        device: child.seen.device,
        identity: child.seen.identity,
        content: None,
        attach_point: false,
    }
}
