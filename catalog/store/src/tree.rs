//! Walking the tree's rows, for readers and writers alike.

use std::ops::ControlFlow;

use redb::ReadableTable;

use crate::EntryId;
use crate::error::{Error, Result};
use crate::format::{ChildKey, Cold, ColdView, HOT_BYTES, HotRow, MoveRow, MovedRow, NOWHERE};

/// Deeper than any tree that can be; a longer way up is a circle.
const DEPTH_MAX: usize = 1 << 20;

/// Where the way up from an entry ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    /// At the root of the tree.
    Root,
    /// At something that has departed.
    Departed,
    /// At once: there is no such entry.
    Missing,
    /// Where the visitor stopped.
    Stopped,
}

/// Reads a hot row by its key.
pub(crate) fn hot(
    children: &impl ReadableTable<&'static [u8], &'static [u8; HOT_BYTES]>,
    key: &ChildKey,
) -> Result<Option<HotRow>> {
    let row = children.get(key.as_slice())?;
    row.map(|row| HotRow::decode(row.value()))
        .transpose()
        .map_err(Into::into)
}

/// Reads a cold row in place.
pub(crate) fn with_cold<T>(
    entries: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
    read: impl FnOnce(ColdView<'_>) -> Result<T>,
) -> Result<Option<T>> {
    match entries.get(id)? {
        Some(row) => read(ColdView::decode(row.value())?).map(Some),
        None => Ok(None),
    }
}

/// Reads a cold row.
pub(crate) fn cold(entries: &impl ReadableTable<u64, &'static [u8]>, id: u64) -> Result<Option<Cold>> {
    with_cold(entries, id, |cold| Ok(cold.to_owned()))
}

/// The key of an entry's hot row, from what its cold row says.
pub(crate) fn hot_key(id: u64, parent: u64, name: &[u8]) -> Result<ChildKey> {
    if parent == NOWHERE && id != EntryId::ROOT.0 {
        return Ok(ChildKey::departed(id));
    }
    ChildKey::new(parent, name).ok_or_else(|| Error::damaged(format!("entry {id} has an impossible name")))
}

/// Reads both rows of an entry, wherever it stands.
pub(crate) fn node(
    children: &impl ReadableTable<&'static [u8], &'static [u8; HOT_BYTES]>,
    entries: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
) -> Result<Option<(Cold, HotRow)>> {
    let Some(cold) = cold(entries, id)? else {
        return Ok(None);
    };
    match hot(children, &hot_key(id, cold.parent, &cold.name)?)? {
        Some(hot) if hot.id() == id => Ok(Some((cold, hot))),
        _ => Err(Error::damaged(format!("entry {id} has lost its attributes"))),
    }
}

/// Gives the path of an entry beneath its source's root, raw names joined by `/`, by where it stands in the tree; `None` for
/// what is not in the tree and what belongs to no source.
pub(crate) fn standing_path(entries: &impl ReadableTable<u64, &'static [u8]>, id: u64) -> Result<Option<Vec<u8>>> {
    let mut names = Vec::new();
    let mut below_root = false;
    let top = climb(entries, id, |_, cold| {
        below_root |= cold.attach_point;
        if !below_root {
            names.push(cold.raw().to_vec());
        }
        ControlFlow::Continue(())
    })?;
    names.reverse();
    Ok((top == Top::Root && below_root).then(|| names.join(&b'/')))
}

/// The same by where it lies at its source, which differs while the objects of a renamed directory are still to follow it.
pub(crate) fn object_path(
    entries: &impl ReadableTable<u64, &'static [u8]>,
    directories: &impl ReadableTable<u64, &'static [u8]>,
    files: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
) -> Result<Option<Vec<u8>>> {
    if directories.is_empty()? {
        return standing_path(entries, id);
    }
    let lies_at = |at: u64| -> Result<Option<Vec<u8>>> {
        if at == id
            && let Some(row) = files.get(at)?
        {
            return Ok(Some(MovedRow::decode(row.value())?.lies_at));
        }
        let row = directories.get(at)?;
        Ok(row
            .map(|row| MoveRow::decode(row.value()))
            .transpose()?
            .map(|row| row.lies_at().to_vec()))
    };
    let mut names = Vec::new();
    let (mut below_root, mut found, mut failed) = (false, false, None);
    let top = climb(entries, id, |at, cold| {
        below_root |= cold.attach_point;
        if below_root || found {
            return ControlFlow::Continue(());
        }
        match lies_at(at) {
            Ok(None) => names.push(cold.raw().to_vec()),
            Ok(Some(place)) => {
                names.push(place);
                found = true;
            }
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    names.reverse();
    Ok((top == Top::Root && below_root).then(|| names.join(&b'/')))
}

/// Goes from an entry upwards, itself first, until the visitor stops or there is nothing above.
pub(crate) fn climb(
    entries: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
    mut visit: impl FnMut(u64, &ColdView<'_>) -> ControlFlow<()>,
) -> Result<Top> {
    let mut at = id;
    for _ in 0..DEPTH_MAX {
        let step = with_cold(entries, at, |cold| Ok((visit(at, &cold), cold.parent)))?;
        match step {
            None if at == id => return Ok(Top::Missing),
            None => return Err(Error::damaged(format!("entry {at} is missing above entry {id}"))),
            Some((ControlFlow::Break(()), _)) => return Ok(Top::Stopped),
            Some((ControlFlow::Continue(()), NOWHERE)) if at == EntryId::ROOT.0 => return Ok(Top::Root),
            Some((ControlFlow::Continue(()), NOWHERE)) => return Ok(Top::Departed),
            Some((ControlFlow::Continue(()), parent)) => at = parent,
        }
    }
    Err(Error::damaged(format!("entry {id} lies beneath itself")))
}
