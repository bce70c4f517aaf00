//! Pins, and the policies that made them. The catalog only keeps them: what they mean for a cache is its user's.

use std::ops::{Bound, ControlFlow};

use redb::{ReadableTable, ReadableTableMetadata};

use crate::error::Result;
use crate::format::PinRow;
use crate::store::When;
use crate::tree;
use crate::{Catalog, EntryId, Pin, PolicyId};

impl Catalog {
    /// Pins entries, in one transaction; an older pin of the same entry is replaced. Gives the number of those that
    /// stand in the tree; the others are passed over. Durable when it returns.
    ///
    /// A pin goes with its entry wherever that is moved, and to the new version of a file that is replaced. It ends
    /// when the entry is forgotten.
    pub fn pin(&self, pins: &[Pin]) -> Result<u64> {
        let (pinned, _) = self.store().write_new(When::Now, |edit| {
            let mut pinned = 0;
            for pin in pins {
                pinned += u64::from(edit.put_pin(pin)?);
            }
            Ok(pinned)
        })?;
        Ok(pinned)
    }

    /// Takes the pins of entries away, in one transaction. Gives the number of those that had one. Durable when it
    /// returns.
    pub fn unpin(&self, ids: &[EntryId]) -> Result<u64> {
        let (unpinned, _) = self.store().write(When::Now, |edit| {
            let mut unpinned = 0;
            for id in ids {
                unpinned += u64::from(edit.remove_pin(id.0)?);
            }
            Ok(unpinned)
        })?;
        Ok(unpinned)
    }

    /// Gives up to `limit` pins in the order of ids, from the first behind `after` on. Entries that have departed
    /// keep theirs until they are forgotten.
    pub fn pins(&self, after: Option<EntryId>, limit: usize) -> Result<Vec<Pin>> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0));
        self.store().read(|snapshot| {
            let rows = snapshot.pins.range::<u64>((start, Bound::Unbounded))?.take(limit);
            rows.map(|row| {
                let (id, row) = row?;
                Ok(PinRow::decode(row.value())?.pin(id.value()))
            })
            .collect()
        })
    }

    /// Gives the pin that counts for an entry: its own, or that of the nearest directory above that is pinned with
    /// all beneath it. It costs one look at each directory above where anything is pinned, and nothing where not.
    pub fn pin_of(&self, id: EntryId) -> Result<Option<Pin>> {
        self.store().read(|snapshot| {
            let mut found = None;
            if snapshot.pins.is_empty()? {
                return Ok(found);
            }
            // A row that cannot be read ends the way; it is told of below.
            let mut failed = None;
            tree::climb(&snapshot.entries, id.0, |at, _| {
                match pin_at(&snapshot.pins, at) {
                    Ok(pin) => found = pin.filter(|pin| pin.recursive || at == id.0),
                    Err(error) => failed = Some(error),
                }
                if found.is_some() || failed.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            failed.map_or(Ok(found), Err)
        })
    }

    /// Adds a policy, opaque to the catalog. Durable when it returns.
    pub fn add_pin_policy(&self, policy: &[u8]) -> Result<PolicyId> {
        let (id, _) = self.store().write_new(When::Now, |edit| edit.add_policy(policy))?;
        Ok(id)
    }

    /// Changes a policy. Its pins stay as they are. Durable when it returns.
    pub fn set_pin_policy(&self, id: PolicyId, policy: &[u8]) -> Result<()> {
        let set = self.store().write(When::Now, |edit| edit.set_policy(id, policy));
        set.map(drop)
    }

    /// Removes a policy with the pins that it made; tells whether it was there. Durable when it returns.
    pub fn remove_pin_policy(&self, id: PolicyId) -> Result<bool> {
        let (was_there, _) = self.store().write(When::Now, |edit| edit.remove_policy(id))?;
        Ok(was_there)
    }

    /// Gives all policies in the order of ids.
    pub fn pin_policies(&self) -> Result<Vec<(PolicyId, Vec<u8>)>> {
        self.store().read(|snapshot| {
            let rows = snapshot.pin_policies.iter()?.map(|row| {
                let (id, policy) = row?;
                Ok((PolicyId(id.value()), policy.value().to_vec()))
            });
            rows.collect()
        })
    }
}

fn pin_at(pins: &impl ReadableTable<u64, &'static [u8]>, id: u64) -> Result<Option<Pin>> {
    match pins.get(id)? {
        Some(row) => Ok(Some(PinRow::decode(row.value())?.pin(id))),
        None => Ok(None),
    }
}
