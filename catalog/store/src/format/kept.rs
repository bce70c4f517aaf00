//! The row of what the catalog keeps of an entry beyond its hot row: a time of the last read, and extended attributes.

use std::collections::BTreeMap;

use super::Malformed;

/// The most bytes of all extended attributes of one entry together: names, values, and one more for each.
pub const KEPT_ATTRIBUTES_MAX: usize = 1 << 16;

/// The longest name of an extended attribute, in bytes.
const NAME_MAX: usize = 255;

const ACCESSED: u8 = 1;

/// What is kept of an entry. There is no row of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptRow {
    /// The time of the last read, as it was set.
    pub(crate) accessed_ns: Option<i64>,
    /// Extended attributes by name.
    pub(crate) attributes: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl KeptRow {
    pub(crate) fn is_empty(&self) -> bool {
        self.accessed_ns.is_none() && self.attributes.is_empty()
    }

    /// Counts the bytes of all extended attributes, as [`KEPT_ATTRIBUTES_MAX`] does.
    pub(crate) fn attribute_bytes(&self) -> usize {
        let each = self.attributes.iter().map(|(name, value)| name.len() + value.len() + 1);
        each.sum()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read(bytes).ok_or(Malformed("attributes that are kept"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (flags, mut rest) = bytes.split_first()?;
        let mut row = Self::default();
        match *flags {
            0 => {}
            ACCESSED => row.accessed_ns = Some(i64::from_le_bytes(*take(&mut rest)?)),
            _ => return None,
        }
        while !rest.is_empty() {
            let [name_len] = *take::<1>(&mut rest)?;
            let value_len = u32::from_le_bytes(*take(&mut rest)?);
            let (name, tail) = rest.split_at_checked(name_len.into())?;
            let (value, tail) = tail.split_at_checked(value_len.try_into().ok()?)?;
            rest = tail;
            let ascends = row.attributes.last_key_value().is_none_or(|(last, _)| **last < *name);
            if name.is_empty() || name.contains(&0) || !ascends {
                return None;
            }
            row.attributes.insert(name.into(), value.into());
        }
        (!row.is_empty() && row.attribute_bytes() <= KEPT_ATTRIBUTES_MAX).then_some(row)
    }

    /// Writes the row. Names are at most 255 bytes long, and all together within [`KEPT_ATTRIBUTES_MAX`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.attribute_bytes() + 4 * self.attributes.len());
        bytes.push(if self.accessed_ns.is_some() { ACCESSED } else { 0 });
        if let Some(accessed_ns) = self.accessed_ns {
            bytes.extend_from_slice(&accessed_ns.to_le_bytes());
        }
        for (name, value) in &self.attributes {
            debug_assert!(name.len() <= NAME_MAX, "a name is too long");
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// Tells whether a name can be kept.
    pub(crate) fn takes_name(name: &[u8]) -> bool {
        (1..=NAME_MAX).contains(&name.len()) && !name.contains(&0)
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> KeptRow {
        let attributes = [("user.a", &b"x"[..]), ("user.b", &[])];
        KeptRow {
            accessed_ns: Some(-2),
            attributes: attributes
                .map(|(name, value)| (name.as_bytes().into(), value.into()))
                .into(),
        }
    }

    #[test]
    fn the_layout_is_what_the_format_says() {
        let bytes = row().encode();
        let kept = [
            &[1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            b"\x06\x01\x00\x00\x00user.ax",
            b"\x06\x00\x00\x00\x00user.b",
        ];
        assert_eq!(bytes, kept.concat());
        assert_eq!(KeptRow::decode(&bytes), Ok(row()));
        let plain = KeptRow {
            accessed_ns: None,
            ..row()
        };
        assert_eq!(plain.encode(), [&[0][..], kept[1], kept[2]].concat());
    }

    #[test]
    fn what_says_nothing_or_is_in_disorder_is_malformed() {
        let twice = [&b"\x00"[..], b"\x01\x00\x00\x00\x00a", b"\x01\x00\x00\x00\x00a"].concat();
        let falling = [&b"\x00"[..], b"\x01\x00\x00\x00\x00b", b"\x01\x00\x00\x00\x00a"].concat();
        let large = KeptRow {
            attributes: [((*b"n").into(), vec![0; KEPT_ATTRIBUTES_MAX - 1].into())].into(),
            ..KeptRow::default()
        };
        for bad in [
            &b""[..],
            b"\x00",
            b"\x02",
            b"\x01\x00",
            b"\x00\x00\x00\x00\x00\x00",
            b"\x00\x01\x00\x00\x00\x00\x00",
            &twice,
            &falling,
            &large.encode(),
        ] {
            assert!(KeptRow::decode(bad).is_err(), "{bad:?}");
        }
        let largest = KeptRow {
            attributes: [((*b"n").into(), vec![0; KEPT_ATTRIBUTES_MAX - 2].into())].into(),
            ..KeptRow::default()
        };
        assert_eq!(KeptRow::decode(&largest.encode()), Ok(largest));
    }

    proptest! {
        #[test]
        fn a_row_survives_its_encoding_and_no_part_of_it_is_one(
            accessed_ns: Option<i64>,
            attributes in proptest::collection::btree_map(
                proptest::collection::vec(1u8.., 1..=255),
                proptest::collection::vec(any::<u8>(), 0..300),
                0..5,
            ),
        ) {
            let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value.into()));
            let row = KeptRow { accessed_ns, attributes: attributes.collect() };
            prop_assume!(!row.is_empty());
            let bytes = row.encode();
            prop_assert_eq!(KeptRow::decode(&bytes), Ok(row.clone()));
            for cut in 0..bytes.len() {
                // What is cut off between two attributes is a row, but not this one.
                prop_assert_ne!(KeptRow::decode(&bytes[..cut]), Ok(row.clone()));
            }
        }
    }
}
