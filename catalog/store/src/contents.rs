//! Contents of files: noting them, and finding replicas by them.

use std::ops::{Bound, ControlFlow};

use redb::ReadableTableMetadata;

use crate::error::{Error, Result};
use crate::format::{ColdView, NOWHERE, content_id, content_range};
use crate::store::{Snapshot, When};
use crate::tree::{self, Top};
use crate::{Catalog, EntryId, FileFacts, Hashed, Kind, SourceId};

impl Catalog {
    /// Notes what files hold, in one transaction. Gives the number of those that still were in the state that was
    /// hashed; the others are passed over, and so is what has no version to tell its states apart.
    ///
    /// A content is forgotten when the version or the size of its file changes.
    pub fn set_contents(&self, hashed: &[Hashed]) -> Result<u64> {
        let mut hashed: Vec<_> = hashed.iter().collect();
        hashed.sort_unstable_by_key(|one| (one.content, one.id));
        let (taken, _) = self.store().write_new(When::Soon, |edit| {
            let mut taken = 0;
            for one in hashed {
                taken += u64::from(edit.set_content(one)?);
            }
            Ok(taken)
        })?;
        Ok(taken)
    }

    /// Forgets what a file was found to hold: it may hold something else, though its version does not tell.
    pub fn forget_content(&self, id: EntryId) -> Result<()> {
        self.store().write_new(When::Soon, |edit| edit.forget_content(id.0))?;
        Ok(())
    }

    /// Gives up to `limit` other files of the tree that hold the same bytes, as far as their contents are known, in
    /// the order of ids.
    pub fn replicas(&self, id: EntryId, limit: usize) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| {
            let content = tree::with_cold(&snapshot.entries, id.0, |cold| Ok(cold.content))?.flatten();
            content.map_or_else(
                || Ok(Vec::new()),
                |content| holders(snapshot, &content, Some(id), limit),
            )
        })
    }

    /// Gives up to `limit` files of the tree that are known to hold these bytes, in the order of ids.
    pub fn holders(&self, content: &[u8; 32], limit: usize) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| holders(snapshot, content, None, limit))
    }

    /// Goes through up to `limit` entries in the order of ids, from the first behind `after` on. Gives the files among
    /// them, those that have departed left out, and where to go on; `None` at the end.
    pub fn files(&self, after: Option<EntryId>, limit: usize) -> Result<(Vec<FileFacts>, Option<EntryId>)> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0));
        self.store().read(|snapshot| {
            let (mut files, mut last) = (Vec::new(), None);
            let mut seen = 0;
            for row in snapshot.entries.range::<u64>((start, Bound::Unbounded))?.take(limit) {
                let (id, row) = row?;
                let (id, cold) = (id.value(), ColdView::decode(row.value())?);
                (last, seen) = (Some(EntryId(id)), seen + 1);
                if cold.parent == NOWHERE {
                    continue;
                }
                let hot = tree::hot(&snapshot.children, &tree::hot_key(id, cold.parent, cold.name)?)?;
                let hot = hot.ok_or_else(|| Error::damaged(format!("entry {id} has lost its attributes")))?;
                if hot.kind() == Kind::File {
                    files.push(FileFacts {
                        id: EntryId(id),
                        source: SourceId(hot.source()),
                        size: hot.size(),
                        unhashed: cold.content.is_none() && !cold.version.is_empty(),
                    });
                }
            }
            Ok((files, last.filter(|_| seen == limit)))
        })
    }

    /// Gives the number of files whose content is known, departed ones among them.
    pub fn hashed(&self) -> Result<u64> {
        self.store().read(|snapshot| Ok(snapshot.contents.len()?))
    }
}

fn holders(snapshot: &Snapshot, content: &[u8; 32], but: Option<EntryId>, limit: usize) -> Result<Vec<EntryId>> {
    let mut found = Vec::new();
    let (first, last) = content_range(content);
    for row in snapshot.contents.range::<&[u8; 40]>(&first..=&last)? {
        if found.len() >= limit {
            break;
        }
        let id = EntryId(content_id(row?.0.value()));
        let in_tree = || -> Result<bool> {
            let top = tree::climb(&snapshot.entries, id.0, |_, _| ControlFlow::Continue(()))?;
            Ok(top == Top::Root)
        };
        if but != Some(id) && in_tree()? {
            found.push(id);
        }
    }
    Ok(found)
}
