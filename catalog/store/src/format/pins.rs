//! The row of a pinned entry.

use zerocopy::byteorder::little_endian::{I64, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;
use crate::{EntryId, Pin, PolicyId};

const RECURSIVE: u8 = 1;

/// A pin as it stands in the file; policy 0: somebody pinned it by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct PinRow {
    flags: u8,
    policy: U64,
    pinned_ns: I64,
}

impl PinRow {
    pub(crate) fn of(pin: &Pin) -> Self {
        Self {
            flags: if pin.recursive { RECURSIVE } else { 0 },
            policy: pin.policy.map_or(0, |policy| policy.0).into(),
            pinned_ns: pin.pinned_ns.into(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let row = Self::read_from_bytes(bytes).map_err(|_| Malformed("pin"))?;
        if row.flags & !RECURSIVE != 0 {
            return Err(Malformed("pin"));
        }
        Ok(row)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// Turns the row into what callers see.
    pub(crate) fn pin(&self, id: u64) -> Pin {
        let policy = self.policy.get();
        Pin {
            id: EntryId(id),
            recursive: self.flags & RECURSIVE != 0,
            policy: (policy != 0).then_some(PolicyId(policy)),
            pinned_ns: self.pinned_ns.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let pin = Pin {
            id: EntryId(7),
            recursive: true,
            policy: Some(PolicyId(2)),
            pinned_ns: -1,
        };
        let bytes = PinRow::of(&pin).encode();
        assert_eq!(bytes, [&[1, 2, 0, 0, 0, 0, 0, 0, 0][..], &[0xff; 8]].concat());
        assert_eq!(PinRow::decode(&bytes).map(|row| row.pin(7)), Ok(pin));
        assert!(PinRow::decode(&bytes[1..]).is_err());
        assert!(PinRow::decode(&[&[2][..], &bytes[1..]].concat()).is_err());
    }
}
