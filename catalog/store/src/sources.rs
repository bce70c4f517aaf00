//! Sources come and go: attach points, and the library's directories that lead to them.

use redb::ReadableTable;

use crate::edit::Edit;
use crate::edit::depart::Standing;
use crate::error::{Error, Result, SourceError};
use crate::format::{HotRow, META_NEXT_SOURCE, NOWHERE, SourceRow, TotalsRow, name_fault};
use crate::{Change, DirectoryState, EntryId, NewSource, SourceId, SourceRecord, WhenStaged};

/// Departed before all others: it may be reaped at once.
const AT_ONCE: i64 = i64::MIN;

/// Takes an attach path apart.
pub(crate) fn attach_parts(attach: &[u8]) -> Result<Vec<&[u8]>, SourceError> {
    let refuse = |why| SourceError::BadAttachPoint {
        attach: attach.to_vec(),
        why,
    };
    let path = attach
        .strip_prefix(b"/")
        .ok_or_else(|| refuse("it does not begin with a slash"))?;
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<_> = path.split(|byte| *byte == b'/').collect();
    match parts.iter().find_map(|part| name_fault(part)) {
        Some(_) => Err(refuse("one of its names cannot stand in a path")),
        None => Ok(parts),
    }
}

pub(crate) fn record(id: u32, row: SourceRow) -> SourceRecord {
    let SourceRow {
        root,
        name,
        attach,
        spec,
        options,
    } = row;
    SourceRecord {
        id: SourceId(id),
        name,
        attach,
        root: EntryId(root),
        spec,
        options,
    }
}

/// Adds a source; the inner result tells what was wrong with it, in which case nothing was changed.
pub(crate) fn add(edit: &mut Edit<'_>, new: NewSource) -> Result<SourceRecord, SourceError> {
    let parts = attach_parts(&new.attach)?;
    let attach = if parts.is_empty() {
        b"/".to_vec()
    } else {
        parts.iter().flat_map(|part| [b"/", *part].concat()).collect()
    };
    for (_, other) in all(edit)? {
        if other.name == new.name {
            return Err(SourceError::SameName {
                name: other.name,
                attach: other.attach,
            });
        }
        if other.attach == attach {
            return Err(SourceError::AttachPointTaken { attach, by: other.name });
        }
    }
    let id = next_source(edit)?;
    let root = make_attach_point(edit, &parts, id)?;
    let row = SourceRow {
        root,
        name: new.name,
        attach,
        spec: new.spec,
        options: new.options,
    };
    put(edit, id, &row)?;
    edit.sources_changed();
    Ok(record(id, row))
}

/// Changes spec and options.
pub(crate) fn update(edit: &mut Edit<'_>, id: SourceId, spec: String, options: String) -> Result<SourceRecord> {
    let row = SourceRow {
        spec,
        options,
        ..get(edit, id)?
    };
    put(edit, id.0, &row)?;
    Ok(record(id.0, row))
}

/// Takes a source out of the tree. Its entries are detached; reaping them is the caller's.
pub(crate) fn remove(edit: &mut Edit<'_>, id: SourceId, when_staged: WhenStaged) -> Result<()> {
    let row = get(edit, id)?;
    let staged = edit.staged_of(id)?;
    let on_their_way = edit.origins_in(id)?.len() + edit.crossings_of(id)?.len();
    let waiting = (staged.len() + edit.moves_of(id)?.len() + on_their_way) as u64;
    if when_staged == WhenStaged::Refuse && waiting > 0 {
        return Err(Error::SourceWaiting {
            source_id: id,
            entries: waiting,
        });
    }
    edit.drop_moves_of(id)?;
    edit.drop_origins_of(id)?;
    edit.drop_part_uploads_of(id)?;
    edit.drop_crossings_of(id)?;
    edit.drop_renames_of(id)?;
    for entry in staged {
        edit.drop_staged(entry)?;
    }
    edit.sources.remove(id.0)?;
    edit.sources_changed();
    let missing = || Error::damaged(format!("the root of source {id} is missing"));
    let (cold, hot) = edit.node(row.root)?.ok_or_else(missing)?;
    let standing = Standing {
        parent: cold.parent,
        name: cold.name,
        hot,
    };
    if row.root == EntryId::ROOT.0 || edit.holds_attach_point(row.root)? {
        edit.release(&standing, AT_ONCE)?;
        let stays = edit.prune_library(row.root)?;
        list_again(edit, stays)?;
    } else {
        let parent = standing.parent;
        edit.remove_child(&standing, AT_ONCE)?;
        edit.changes.push(Change::Directory { id: EntryId(parent) });
        let stays = edit.prune_library(parent)?;
        list_again(edit, stays)?;
    }
    edit.forget_source(id.0)
}

/// Has a directory listed again, and what it holds: it counts as listed long ago, and is queued. For a directory of the
/// library, which may lie in a source all the same, that is the one above.
pub(crate) fn list_again(edit: &mut Edit<'_>, directory: u64) -> Result<()> {
    let Some((cold, hot)) = edit.node(directory)? else {
        return Ok(());
    };
    if hot.source() == SourceId::LIBRARY.0 {
        // A library directory that stays because it leads to another attach point may lie in a source all the same.
        return if cold.parent == NOWHERE {
            Ok(())
        } else {
            list_again(edit, cold.parent)
        };
    }
    let state = edit.state(directory)?;
    if state.listed_ns.is_some() {
        edit.set_state(
            directory,
            &DirectoryState {
                listed_ns: Some(0),
                ..state
            },
        )?;
    }
    edit.enqueue(hot.source(), directory)
}

fn make_attach_point(edit: &mut Edit<'_>, parts: &[&[u8]], source: u32) -> Result<u64> {
    let Some((last, leading)) = parts.split_last() else {
        let (_, hot) = edit
            .node(EntryId::ROOT.0)?
            .ok_or_else(|| Error::damaged("the root is missing"))?;
        return claim(
            edit,
            &Standing {
                parent: NOWHERE,
                name: Box::default(),
                hot,
            },
            source,
        );
    };
    let mut directory = EntryId::ROOT.0;
    for part in leading {
        directory = match edit.hot(directory, part)? {
            Some(hot) if hot.is_directory() => hot.id(),
            Some(hot) => {
                edit.remove_child(
                    &Standing {
                        parent: directory,
                        name: (*part).into(),
                        hot,
                    },
                    0,
                )?;
                add_directory(edit, directory, part, SourceId::LIBRARY.0, false)?
            }
            None => add_directory(edit, directory, part, SourceId::LIBRARY.0, false)?,
        };
    }
    let standing = edit.hot(directory, last)?.map(|hot| Standing {
        parent: directory,
        name: (*last).into(),
        hot,
    });
    match standing {
        None => add_directory(edit, directory, last, source, true),
        Some(standing) if standing.hot.source() == SourceId::LIBRARY.0 => claim(edit, &standing, source),
        Some(standing) => {
            // What an outer source has under this name is hidden from now on.
            edit.remove_child(&standing, 0)?;
            match edit.hot(directory, last)? {
                Some(hot) => claim(edit, &Standing { hot, ..standing }, source),
                None => add_directory(edit, directory, last, source, true),
            }
        }
    }
}

/// Turns a library directory into the root of a source. It keeps its id, and what is attached beneath it.
fn claim(edit: &mut Edit<'_>, standing: &Standing, source: u32) -> Result<u64> {
    let id = standing.hot.id();
    edit.subtract_totals(SourceId::LIBRARY.0, TotalsRow::of(0))?;
    edit.put_directory(id, standing.parent, &standing.name, source, true)?;
    edit.changes.push(Change::Attributes { id: EntryId(id) });
    edit.changes.push(Change::Directory { id: EntryId(id) });
    Ok(id)
}

fn add_directory(edit: &mut Edit<'_>, parent: u64, name: &[u8], source: u32, attach_point: bool) -> Result<u64> {
    let id = edit.allocate_id();
    edit.put_directory(id, parent, name, source, attach_point)?;
    edit.changes.push(Change::Added {
        parent: EntryId(parent),
        name: name.into(),
        id: EntryId(id),
    });
    edit.changes.push(Change::Directory { id: EntryId(parent) });
    Ok(id)
}

fn next_source(edit: &mut Edit<'_>) -> Result<u32> {
    let next = edit.meta.get(META_NEXT_SOURCE)?.map(|next| next.value());
    let next = next.ok_or_else(|| Error::damaged("no id for the next source"))?;
    let id = u32::try_from(next).map_err(|_| Error::damaged("ids of sources have run out"))?;
    edit.meta.insert(META_NEXT_SOURCE, next + 1)?;
    Ok(id)
}

fn get(edit: &Edit<'_>, id: SourceId) -> Result<SourceRow> {
    let row = edit.sources.get(id.0)?.ok_or(Error::NoSource(id))?;
    Ok(SourceRow::decode(row.value())?)
}

fn put(edit: &mut Edit<'_>, id: u32, row: &SourceRow) -> Result<()> {
    edit.sources.insert(id, row.encode().as_slice())?;
    Ok(())
}

fn all(edit: &Edit<'_>) -> Result<Vec<(u32, SourceRow)>> {
    let rows = edit.sources.iter()?.map(|row| {
        let (id, row) = row?;
        Ok((id.value(), SourceRow::decode(row.value())?))
    });
    rows.collect()
}

/// The hot row of a source's root, for those who only need to know that the source is there.
pub(crate) fn root_of(edit: &Edit<'_>, id: SourceId) -> Result<(u64, HotRow)> {
    let root = get(edit, id)?.root;
    let (_, hot) = edit
        .node(root)?
        .ok_or_else(|| Error::damaged(format!("the root of source {id} is missing")))?;
    Ok((root, hot))
}
