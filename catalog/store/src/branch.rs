//! The same path in several sources: what a union of sources is made of.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::format::{ChildKey, decode_state};
use crate::read::entry;
use crate::store::Snapshot;
use crate::tree;
use crate::{Catalog, Entry, EntryId, Kind};

/// What stands at a path beneath a source's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Branch {
    /// A directory of that source.
    Directory(Entry),
    /// No directory of that source: nothing, something else, or a place where another source is attached.
    Absent,
    /// Nobody can tell, since this directory on the way was never listed.
    Unlisted(EntryId),
}

impl Branch {
    /// Gives the directory, where there is one.
    pub fn directory(&self) -> Option<&Entry> {
        match self {
            Self::Directory(entry) => Some(entry),
            Self::Absent | Self::Unlisted(_) => None,
        }
    }
}

impl Catalog {
    /// Gives the names that lead to an entry from the root of its source, as the tree shows them; none for that root itself.
    ///
    /// `None` for what is not in the tree, and for the library's own directories above all sources.
    pub fn names_beneath_root(&self, id: EntryId) -> Result<Option<Vec<Box<[u8]>>>> {
        self.store().read(|snapshot| {
            let (mut names, mut reached) = (Vec::new(), false);
            tree::climb(&snapshot.entries, id.0, |_, cold| {
                reached = cold.attach_point;
                if reached {
                    return ControlFlow::Break(());
                }
                names.push(cold.name.into());
                ControlFlow::Continue(())
            })?;
            names.reverse();
            Ok(reached.then_some(names))
        })
    }

    /// Follows names from a source's root, as far as they lead through directories of that source.
    pub fn branch(&self, root: EntryId, names: &[Box<[u8]>]) -> Result<Branch> {
        self.store().read(|snapshot| {
            let Some(mut at) = entry(snapshot, root)? else {
                return Ok(Branch::Absent);
            };
            for name in names {
                let Some(key) = ChildKey::new(at.id.0, name) else {
                    return Ok(Branch::Absent);
                };
                let found = tree::hot(&snapshot.children, &key)?.map(|hot| hot.entry(at.id.0, name));
                match found {
                    Some(found)
                        if found.kind == Kind::Directory && found.source == at.source && !found.attach_point =>
                    {
                        at = found;
                    }
                    None if !was_listed(snapshot, at.id)? => return Ok(Branch::Unlisted(at.id)),
                    _ => return Ok(Branch::Absent),
                }
            }
            Ok(Branch::Directory(at))
        })
    }
}

fn was_listed(snapshot: &Snapshot, id: EntryId) -> Result<bool> {
    let state = snapshot.directories.get(id.0)?;
    let state = state.map(|state| decode_state(state.value())).transpose()?;
    Ok(state.is_some_and(|state| state.listed_ns.is_some()))
}
