//! The reads. Each is one short look at the present snapshot; a look-up is one B-tree get.

use std::ops::{Bound, ControlFlow};

use redb::{ReadableTable, ReadableTableMetadata};

use crate::error::{Error, Result};
use crate::format::{
    ChildKey, HotRow, NOWHERE, ScanRow, SourceRow, TotalsRow, child_name, decode_state, identity_id, identity_range,
    owned_id, owned_key, owned_range, subtree_range,
};
use crate::store::Snapshot;
use crate::tree::{self, Top};
use crate::{
    Catalog, Details, DirectoryState, Entry, EntryId, Found, ScanState, SourceId, SourceRecord, Totals, fold, sources,
};

impl Catalog {
    /// Looks a name up.
    pub fn lookup(&self, parent: EntryId, name: &[u8]) -> Result<Option<Entry>> {
        if name.is_empty() || parent.0 == NOWHERE {
            return Ok(None);
        }
        let Some(key) = ChildKey::new(parent.0, name) else {
            return Ok(None);
        };
        self.store().read(|snapshot| {
            let hot = tree::hot(&snapshot.children, &key)?;
            Ok(hot.map(|hot| hot.entry(parent.0, name)))
        })
    }

    /// Looks a name up, the exact one first, then the first one in byte order that differs only in case.
    ///
    /// Case is Unicode's simple case folding of names that are UTF-8, and ASCII's of others. It costs a walk through
    /// the directory where the exact name is not there.
    pub fn lookup_folded(&self, parent: EntryId, name: &[u8]) -> Result<Option<Entry>> {
        if let Some(exact) = self.lookup(parent, name)? {
            return Ok(Some(exact));
        }
        let folded = fold::fold(name);
        self.store().read(|snapshot| {
            let mut found = None;
            each_child(snapshot, parent.0, None, |name, hot| {
                if fold::fold(name) == folded {
                    found = Some(hot.entry(parent.0, name));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            Ok(found)
        })
    }

    /// Gives the entry of an id.
    ///
    /// What lies beneath a departed directory is still given until it is reaped, as its id is still its own.
    pub fn entry(&self, id: EntryId) -> Result<Option<Entry>> {
        self.store().read(|snapshot| entry(snapshot, id))
    }

    /// Gives what is kept of an entry beyond its attributes.
    pub fn details(&self, id: EntryId) -> Result<Option<Details>> {
        self.store().read(|snapshot| {
            let details = tree::with_cold(&snapshot.entries, id.0, |cold| {
                let in_tree = cold.parent != NOWHERE || id == EntryId::ROOT;
                Ok(in_tree.then(|| Details {
                    version: cold.version.into(),
                    raw_name: cold.raw().into(),
                    created_ns: cold.created_ns,
                    device: cold.device,
                    identity: cold.identity,
                    content: cold.content,
                }))
            })?;
            Ok(details.flatten())
        })
    }

    /// Gives up to `limit` children in the byte order of their names, from the first behind `after` on.
    pub fn children(&self, directory: EntryId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        self.store().read(|snapshot| {
            let mut page = Vec::with_capacity(limit.min(1024));
            if limit == 0 {
                return Ok(page);
            }
            each_child(snapshot, directory.0, after, |name, hot| {
                page.push(hot.entry(directory.0, name));
                if page.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            Ok(page)
        })
    }

    /// Says what is known of a directory as a whole; `None` if there is no such directory.
    ///
    /// The library's own directories need no listing: they count as listed at the end of time.
    pub fn directory_state(&self, id: EntryId) -> Result<Option<DirectoryState>> {
        self.store().read(|snapshot| {
            if let Some(state) = snapshot.directories.get(id.0)? {
                return Ok(Some(decode_state(state.value())?));
            }
            let Some(entry) = entry(snapshot, id)?.filter(|entry| entry.kind == crate::Kind::Directory) else {
                return Ok(None);
            };
            let listed_ns = (entry.source == SourceId::LIBRARY).then_some(i64::MAX);
            Ok(Some(DirectoryState {
                listed_ns,
                ..DirectoryState::default()
            }))
        })
    }

    /// Gives the path in the tree: `/photos/2024/a.jpg`; `None` if the entry is not in the tree.
    pub fn tree_path(&self, id: EntryId) -> Result<Option<Vec<u8>>> {
        self.store().read(|snapshot| {
            let mut names = Vec::new();
            let top = tree::climb(&snapshot.entries, id.0, |_, cold| {
                names.push(cold.name.to_vec());
                ControlFlow::Continue(())
            })?;
            if top != Top::Root {
                return Ok(None);
            }
            // The root's own name is empty: it gives the slash in front.
            names.reverse();
            Ok(Some(if names.len() == 1 {
                b"/".to_vec()
            } else {
                names.join(&b'/')
            }))
        })
    }

    /// Gives the source and the path beneath its root, raw names joined by `/`; empty for the attach point itself. That is
    /// where the object lies: while the objects of a renamed directory are still to follow it, not where it stands.
    ///
    /// `None` for what is not in the tree, and for the library's own directories.
    pub fn object_path(&self, id: EntryId) -> Result<Option<(SourceId, Vec<u8>)>> {
        self.store().read(|snapshot| {
            let Some(source) = entry(snapshot, id)?.map(|entry| entry.source) else {
                return Ok(None);
            };
            if source == SourceId::LIBRARY {
                return Ok(None);
            }
            Ok(snapshot.object_path(id.0)?.map(|path| (source, path)))
        })
    }

    /// Finds the entry at a path of the tree. Slashes in excess are passed over.
    pub fn resolve(&self, tree_path: &[u8]) -> Result<Option<Entry>> {
        self.store().read(|snapshot| {
            let mut at = entry(snapshot, EntryId::ROOT)?;
            for part in tree_path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
                let Some(Entry { id, .. }) = at else { return Ok(None) };
                let Some(key) = ChildKey::new(id.0, part) else {
                    return Ok(None);
                };
                at = tree::hot(&snapshot.children, &key)?.map(|hot| hot.entry(id.0, part));
            }
            Ok(at)
        })
    }

    /// Gives entries and bytes, whole and for each source. What has departed is not among them.
    pub fn totals(&self) -> Result<Totals> {
        self.store().read(|snapshot| {
            let mut all = TotalsRow::default();
            let mut sources = Vec::new();
            for row in snapshot.totals.iter()? {
                let (source, row) = row?;
                let row = TotalsRow::decode(row.value())?;
                all = all.plus(row);
                if source.value() != SourceId::LIBRARY.0 {
                    sources.push((SourceId(source.value()), row.shown()));
                }
            }
            Ok(Totals {
                all: all.shown(),
                sources,
            })
        })
    }

    /// Lists the sources in the order of ids.
    pub fn sources(&self) -> Result<Vec<SourceRecord>> {
        self.store().read(|snapshot| {
            let rows = snapshot.sources.iter()?.map(|row| {
                let (id, row) = row?;
                Ok(sources::record(id.value(), SourceRow::decode(row.value())?))
            });
            rows.collect()
        })
    }

    /// Finds the entry that has an identity; one that has departed rather than one that stands in the tree. But where what
    /// stands is a file with no other name, that is where the one that departed was found again, in the place of another.
    ///
    /// Hard links share an identity: of several that stand in the tree, the oldest is given. Of several that have departed it
    /// is the one that did last.
    pub fn find_identity(&self, source: SourceId, identity: [u8; 16]) -> Result<Option<Found>> {
        self.store().read(|snapshot| {
            let (first, last) = identity_range(source.0, &identity);
            let (mut departed, mut standing) = (None, None);
            for row in snapshot.identities.range::<&[u8; 28]>(&first..=&last)? {
                let id = EntryId(identity_id(row?.0.value()));
                let mut top = id.0;
                let end = tree::climb(&snapshot.entries, id.0, |above, _| {
                    top = above;
                    ControlFlow::Continue(())
                })?;
                match end {
                    Top::Departed => {
                        let at = snapshot.departed.get(&owned_key(source.0, top))?;
                        let at_ns = at.map_or(i64::MIN, |at| at.value());
                        departed = departed.max(Some((at_ns, id.0)));
                    }
                    Top::Root => {
                        standing.get_or_insert(id);
                    }
                    Top::Missing | Top::Stopped => {
                        return Err(Error::damaged(format!("entry {id} has an identity, but is missing")));
                    }
                }
            }
            let departed = departed.map(|(_, id)| Found {
                id: EntryId(id),
                departed: true,
            });
            let Some(id) = standing else { return Ok(departed) };
            let standing = Found { id, departed: false };
            let entry = entry(snapshot, id)?;
            let is_alone = entry.is_some_and(|it| it.kind != crate::Kind::Directory && it.links <= 1);
            Ok(Some(departed.filter(|_| !is_alone).unwrap_or(standing)))
        })
    }

    /// Finds the oldest entry in the tree that is a name of the same object as this one, which may be itself.
    pub fn first_name(&self, id: EntryId) -> Result<EntryId> {
        self.store().read(|snapshot| {
            let Some(found) = entry(snapshot, id)? else {
                return Ok(id);
            };
            let identity = tree::with_cold(&snapshot.entries, id.0, |cold| Ok(cold.identity))?.flatten();
            let Some(identity) = identity else { return Ok(id) };
            let (first, last) = identity_range(found.source.0, &identity);
            for row in snapshot.identities.range::<&[u8; 28]>(&first..=&last)? {
                let name = identity_id(row?.0.value());
                let top = tree::climb(&snapshot.entries, name, |_, _| ControlFlow::Continue(()))?;
                if matches!(top, Top::Root) {
                    return Ok(EntryId(name));
                }
            }
            Ok(id)
        })
    }

    /// Finds all entries that have an identity and stand in the tree: the names of one object, in the order of their ids.
    pub fn with_identity(&self, source: SourceId, identity: [u8; 16]) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| {
            let (first, last) = identity_range(source.0, &identity);
            let mut standing = Vec::new();
            for row in snapshot.identities.range::<&[u8; 28]>(&first..=&last)? {
                let id = EntryId(identity_id(row?.0.value()));
                let top = tree::climb(&snapshot.entries, id.0, |_, _| ControlFlow::Continue(()))?;
                if matches!(top, Top::Root) {
                    standing.push(id);
                }
            }
            Ok(standing)
        })
    }

    /// Gives up to `limit` directories that are still to be listed, in the order of ids.
    pub fn scan_queue_next(&self, source: SourceId, limit: usize) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| {
            let (first, last) = owned_range(source.0);
            let range = snapshot.queue.range::<&[u8; 12]>(&first..=&last)?;
            range
                .take(limit)
                .map(|row| Ok(EntryId(owned_id(row?.0.value()).1)))
                .collect()
        })
    }

    /// Gives up to `limit` directories of a source that could not be listed when that was tried last, in the order of ids, from
    /// the first behind `after` on. Looks through the states of all directories.
    pub fn failed_directories(&self, source: SourceId, after: Option<EntryId>, limit: usize) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| {
            let mut failed = Vec::new();
            let start = after.map_or(0, |after| after.0.saturating_add(1));
            for row in snapshot.directories.range(start..)? {
                if failed.len() >= limit {
                    break;
                }
                let (id, state) = row?;
                if decode_state(state.value())?.failure.is_none() {
                    continue;
                }
                let id = EntryId(id.value());
                if entry(snapshot, id)?.is_some_and(|entry| entry.source == source) {
                    failed.push(id);
                }
            }
            Ok(failed)
        })
    }

    /// Says how far the last scan has come; `None` if there never was one.
    pub fn scan_state(&self, source: SourceId) -> Result<Option<ScanState>> {
        self.store().read(|snapshot| match snapshot.scans.get(source.0)? {
            Some(row) => Ok(ScanRow::decode(row.value())?.state()),
            None => Ok(None),
        })
    }

    /// Gives the number of entries that have departed and are not reaped yet, their subtrees not counted.
    pub fn departed(&self) -> Result<u64> {
        self.store().read(|snapshot| Ok(snapshot.departed.len()?))
    }
}

pub(crate) fn entry(snapshot: &Snapshot, id: EntryId) -> Result<Option<Entry>> {
    match tree::node(&snapshot.children, &snapshot.entries, id.0)? {
        Some((cold, _)) if cold.parent == NOWHERE && id != EntryId::ROOT => Ok(None),
        Some((cold, hot)) => Ok(Some(hot.entry(cold.parent, &cold.name))),
        None => Ok(None),
    }
}

/// Visits the children of a directory in the byte order of their names.
fn each_child(
    snapshot: &Snapshot,
    directory: u64,
    after: Option<&[u8]>,
    mut visit: impl FnMut(&[u8], &HotRow) -> ControlFlow<()>,
) -> Result<()> {
    if directory == NOWHERE {
        return Ok(());
    }
    let whole = subtree_range(directory);
    // Names are at most 255 bytes long; a cursor that is longer stands where its first 255 bytes and one more do.
    let mut cursor = Vec::new();
    let start = match after {
        None => Bound::Included(whole.start.as_slice()),
        Some(after) => {
            cursor.extend_from_slice(&whole.start);
            cursor.extend_from_slice(after);
            Bound::Excluded(cursor.as_slice())
        }
    };
    for row in snapshot
        .children
        .range::<&[u8]>((start, Bound::Excluded(whole.end.as_slice())))?
    {
        let (key, row) = row?;
        if visit(child_name(key.value())?, &HotRow::decode(row.value())?).is_break() {
            break;
        }
    }
    Ok(())
}
