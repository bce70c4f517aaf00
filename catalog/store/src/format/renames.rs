//! The row of a directory that its source was asked to rename.

use super::Malformed;
use super::crossings::{array, text};

/// Such a rename as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenameRow {
    /// The directory, and the name in it.
    pub(crate) to: (u64, Vec<u8>),
    /// What the source calls it.
    pub(crate) raw_name: Vec<u8>,
}

impl RenameRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.to.0.to_le_bytes().to_vec();
        for text in [&self.to.1, &self.raw_name] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let mut rest = bytes;
            let row = Self {
                to: (u64::from_le_bytes(array(&mut rest)?), text(&mut rest)?),
                raw_name: text(&mut rest)?,
            };
            rest.is_empty().then_some(row)
        };
        read().ok_or(Malformed("rename of a directory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let row = RenameRow {
            to: (258, b"to".to_vec()),
            raw_name: b"raw".to_vec(),
        };
        let bytes = row.encode();
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..], *b"\x02\0\0\0to\x03\0\0\0raw");
        assert_eq!(RenameRow::decode(&bytes), Ok(row));
        for cut in 0..bytes.len() {
            assert!(RenameRow::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(RenameRow::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
