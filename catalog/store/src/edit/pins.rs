//! Pins, and the policies that made them.

use redb::ReadableTable;

use super::Edit;
use crate::error::{Error, Result};
use crate::format::{META_NEXT_POLICY, PinRow};
use crate::{Pin, PolicyId};

impl Edit<'_> {
    /// Pins an entry that stands in the tree, in the place of an older pin; tells whether it does.
    pub(crate) fn put_pin(&mut self, pin: &Pin) -> Result<bool> {
        if let Some(policy) = pin.policy
            && self.pin_policies.get(policy.0)?.is_none()
        {
            return Err(Error::NoPolicy(policy));
        }
        let there = self.is_attached(pin.id.0)?;
        if there {
            self.pins.insert(pin.id.0, PinRow::of(pin).encode().as_slice())?;
        }
        Ok(there)
    }

    /// Takes a pin away; tells whether there was one.
    pub(crate) fn remove_pin(&mut self, id: u64) -> Result<bool> {
        Ok(self.pins.remove(id)?.is_some())
    }

    /// Tells whether an entry has no pin of its own.
    pub(crate) fn pin_is_free(&self, id: u64) -> Result<bool> {
        Ok(self.pins.get(id)?.is_none())
    }

    /// Gives the pin of one entry to another that takes its place.
    pub(crate) fn move_pin(&mut self, from: u64, to: u64) -> Result<()> {
        let row = self.pins.remove(from)?.map(|row| row.value().to_vec());
        if let Some(row) = row {
            self.pins.insert(to, row.as_slice())?;
        }
        Ok(())
    }

    pub(crate) fn add_policy(&mut self, policy: &[u8]) -> Result<PolicyId> {
        let next = self.meta.get(META_NEXT_POLICY)?.map(|next| next.value());
        let next = next.ok_or_else(|| Error::damaged("no id for the next policy"))?;
        self.meta.insert(META_NEXT_POLICY, next + 1)?;
        self.pin_policies.insert(next, policy)?;
        Ok(PolicyId(next))
    }

    pub(crate) fn set_policy(&mut self, id: PolicyId, policy: &[u8]) -> Result<()> {
        if self.pin_policies.get(id.0)?.is_none() {
            return Err(Error::NoPolicy(id));
        }
        self.pin_policies.insert(id.0, policy)?;
        Ok(())
    }

    /// Removes a policy with the pins that it made; tells whether it was there.
    pub(crate) fn remove_policy(&mut self, id: PolicyId) -> Result<bool> {
        if self.pin_policies.remove(id.0)?.is_none() {
            return Ok(false);
        }
        let mut made = Vec::new();
        for row in self.pins.iter()? {
            let (entry, row) = row?;
            if PinRow::decode(row.value())?.pin(entry.value()).policy == Some(id) {
                made.push(entry.value());
            }
        }
        for entry in made {
            self.pins.remove(entry)?;
        }
        Ok(true)
    }
}
