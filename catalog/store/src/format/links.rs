//! The row of a symbolic link: where it points.

use super::Malformed;
use crate::VERSION_MAX;

/// The longest that a link can point, in bytes: a path, as kernels take it.
pub const LINK_TARGET_MAX: usize = 4_095;

/// What was found of a link in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkRow<'a> {
    /// The version that was read.
    pub(crate) version: &'a [u8],
    /// Where it points; empty where the source would not tell.
    pub(crate) target: &'a [u8],
}

impl<'a> LinkRow<'a> {
    /// Makes the row, unless nothing can point there.
    pub(crate) fn of(version: &'a [u8], target: &'a [u8]) -> Option<Self> {
        let fits = version.len() <= VERSION_MAX && target.len() <= LINK_TARGET_MAX && !target.contains(&0);
        fits.then_some(Self { version, target })
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes).ok_or(Malformed("link"))
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (version, target) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        Self::of(version, target)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = (self.version.len() as u16).to_le_bytes();
        [&length, self.version, self.target].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let row = LinkRow::of(b"v1", b"../to").expect("a row");
        assert_eq!(row.encode(), b"\x02\x00v1../to");
        assert_eq!(LinkRow::decode(b"\x02\x00v1../to"), Ok(row));
        let untold = LinkRow::of(b"", b"").expect("a row");
        assert_eq!(untold.encode(), b"\x00\x00");
        assert_eq!(LinkRow::decode(b"\x00\x00"), Ok(untold));
    }

    #[test]
    fn what_nothing_can_point_to_is_malformed() {
        let long = vec![b'x'; LINK_TARGET_MAX + 1];
        assert_eq!(LinkRow::of(b"v", &long), None);
        assert_eq!(LinkRow::of(&vec![b'v'; VERSION_MAX + 1], b"x"), None);
        for bad in [
            &b""[..],
            b"\x00",
            b"\x02\x00v",
            b"\x01\x00va\0b",
            &[b"\x00\x00", &*long].concat(),
        ] {
            assert!(LinkRow::decode(bad).is_err(), "{} bytes", bad.len());
        }
        assert!(LinkRow::of(b"v", &long[1..]).is_some());
    }
}
