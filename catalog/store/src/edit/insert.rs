//! New entries, in ascending runs.

use std::ops::Bound;

use redb::CursorError;

use super::Edit;
use crate::error::{Error, Result};
use crate::format::{ChildKey, ColdView, HOT_BYTES, HotRow, IdentityKey, TotalsRow, identity_key};
use crate::rows::Rows;
use crate::{EntryId, Kind, NewChild};

/// An entry that is new.
pub(crate) struct Fresh<'a> {
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) child: &'a NewChild,
}

impl Edit<'_> {
    /// Puts new entries of a source; none of their names is taken. New directories are queued, but for those that
    /// `listed` knows. Rows that come in the order of parent and name, with ids in the same order, cost least.
    pub(crate) fn insert_fresh(
        &mut self,
        source: u32,
        fresh: &mut [Fresh<'_>],
        listed: impl Fn(u64) -> bool,
    ) -> Result<()> {
        if fresh.is_empty() {
            return Ok(());
        }
        fresh.sort_unstable_by(|a, b| (a.parent, &a.child.name).cmp(&(b.parent, &b.child.name)));
        insert_hot_rows(&mut self.children, source, fresh)?;
        let sizes = fresh
            .iter()
            .map(|one| HotRow::of(one.id, source, &one.child.seen).size());
        let totals = sizes.fold(TotalsRow::default(), |sum, size| sum.plus(TotalsRow::of(size)));
        self.add_totals(source, totals)?;
        fresh.sort_unstable_by_key(|one| one.id);
        insert_cold_rows(&mut self.entries, fresh)?;
        let mut identities: Vec<_> = fresh
            .iter()
            .filter_map(|one| Some(identity_key(source, one.child.seen.identity.as_ref()?, one.id)))
            .collect();
        identities.sort_unstable();
        insert_identities(&mut self.identities, &identities)?;
        for one in fresh
            .iter()
            .filter(|one| one.child.seen.kind == Kind::Directory && !listed(one.id))
        {
            self.enqueue(source, one.id)?;
        }
        Ok(())
    }
}

/// A cursor takes a run of ascending keys at less than half the price of as many inserts, and refuses what does not
/// belong in its gap; then it is set anew.
fn insert_hot_rows(
    table: &mut Rows<'_, &'static [u8], &'static [u8; HOT_BYTES]>,
    source: u32,
    fresh: &[Fresh<'_>],
) -> Result<()> {
    let mut rest = fresh;
    while let Some(first) = rest.first() {
        let mut key = key_of(first)?;
        let mut cursor = table.upper_bound_mut(Bound::Excluded(key.as_slice()))?;
        let mut inserted = 0;
        for (index, one) in rest.iter().enumerate() {
            key = key_of(one)?;
            if index > 0 && rest[index - 1].parent == one.parent && rest[index - 1].child.name == one.child.name {
                break;
            }
            match cursor.insert_before(key.as_slice(), &HotRow::of(one.id, source, &one.child.seen).encode()) {
                Ok(()) => inserted += 1,
                Err(CursorError::UnorderedKey) => break,
                Err(error) => return Err(error.into()),
            }
        }
        cursor.close()?;
        if inserted == 0 {
            let (directory, name) = (EntryId(first.parent), first.child.name.clone());
            return Err(Error::Refused {
                directory,
                what: "name",
                name,
                why: "it is listed twice",
            });
        }
        rest = &rest[inserted..];
    }
    Ok(())
}

fn insert_cold_rows(table: &mut Rows<'_, u64, &'static [u8]>, fresh: &[Fresh<'_>]) -> Result<()> {
    let mut rest = fresh;
    let mut bytes = Vec::with_capacity(256);
    while let Some(first) = rest.first() {
        let mut cursor = table.upper_bound_mut(Bound::Excluded(first.id))?;
        let mut inserted = 0;
        for one in rest {
            cold_of(one).encode_into(&mut bytes);
            match cursor.insert_before(one.id, bytes.as_slice()) {
                Ok(()) => inserted += 1,
                Err(CursorError::UnorderedKey) => break,
                Err(error) => return Err(error.into()),
            }
        }
        cursor.close()?;
        if inserted == 0 {
            return Err(Error::damaged("a new id is already taken"));
        }
        rest = &rest[inserted..];
    }
    Ok(())
}

/// Identities of neighbours are often neighbours too: inodes, and whatever a service counts up.
fn insert_identities(table: &mut Rows<'_, IdentityKey, ()>, keys: &[[u8; 28]]) -> Result<()> {
    let mut rest = keys;
    while let Some(first) = rest.first() {
        let mut cursor = table.upper_bound_mut(Bound::<&[u8; 28]>::Excluded(first))?;
        let mut inserted = 0;
        for key in rest {
            match cursor.insert_before(key, ()) {
                Ok(()) => inserted += 1,
                Err(CursorError::UnorderedKey) => break,
                Err(error) => return Err(error.into()),
            }
        }
        cursor.close()?;
        if inserted == 0 {
            return Err(Error::damaged("a new entry is already in the index of identities"));
        }
        rest = &rest[inserted..];
    }
    Ok(())
}

fn key_of(one: &Fresh<'_>) -> Result<ChildKey> {
    ChildKey::new(one.parent, &one.child.name).ok_or_else(|| Error::damaged("a new name is too long"))
}

fn cold_of<'a>(one: &Fresh<'a>) -> ColdView<'a> {
    let NewChild {
        name, raw_name, seen, ..
    } = one.child;
    ColdView {
        parent: one.parent,
        name,
        version: &seen.version,
        raw_name: raw_name.as_deref().filter(|raw| *raw != &**name),
        created_ns: seen.created_ns,
        device: seen.device,
        identity: seen.identity,
        content: None,
        attach_point: false,
    }
}
