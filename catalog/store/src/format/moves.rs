//! The rows of what lies elsewhere at its source than where it stands in the tree: directories that were renamed ahead of
//! what they hold, and files that have followed them.

use super::Malformed;

/// The most places that one directory may lie in, in part.
pub(crate) const PLACES_MAX: usize = u8::MAX as usize;

/// A directory whose objects are still to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MoveRow {
    /// Paths beneath the source's root, at least one: where it lies, then where some of what it holds may lie too.
    pub(crate) places: Vec<Vec<u8>>,
}

impl MoveRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.places.len() as u8];
        for place in &self.places {
            put(&mut bytes, place);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let (count, mut rest) = bytes.split_first()?;
            let mut places = Vec::with_capacity(usize::from(*count));
            for _ in 0..*count {
                places.push(take(&mut rest)?);
            }
            (rest.is_empty() && !places.is_empty()).then_some(Self { places })
        };
        read().ok_or(Malformed("move of a directory"))
    }

    /// Gives where the directory lies.
    pub(crate) fn lies_at(&self) -> &[u8] {
        &self.places[0]
    }
}

/// A file that lies elsewhere than its directory does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedRow {
    /// Where.
    pub(crate) lies_at: Vec<u8>,
    /// From where it is still to be taken away, and in which version.
    pub(crate) left: Option<(Vec<u8>, Vec<u8>)>,
}

impl MovedRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.left.is_some())];
        put(&mut bytes, &self.lies_at);
        if let Some((place, version)) = &self.left {
            put(&mut bytes, place);
            put(&mut bytes, version);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let (flags, mut rest) = bytes.split_first()?;
            let lies_at = take(&mut rest)?;
            let left = match *flags {
                0 => None,
                1 => Some((take(&mut rest)?, take(&mut rest)?)),
                _ => return None,
            };
            rest.is_empty().then_some(Self { lies_at, left })
        };
        read().ok_or(Malformed("place of a moved file"))
    }
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (len, tail) = rest.split_first_chunk()?;
    let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = tail;
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_what_the_format_says() {
        let row = MoveRow {
            places: vec![b"a/b".to_vec(), Vec::new()],
        };
        let bytes = row.encode();
        assert_eq!(bytes, b"\x02\x03\0\0\0a/b\0\0\0\0");
        assert_eq!(MoveRow::decode(&bytes), Ok(row));
        for wrong in [&b"\0"[..], b"", &bytes[..bytes.len() - 1], b"\x01\0\0\0\0x"] {
            assert!(MoveRow::decode(wrong).is_err());
        }
        for left in [None, Some((b"a/f".to_vec(), b"v1".to_vec()))] {
            let row = MovedRow {
                lies_at: b"b/f".to_vec(),
                left,
            };
            let bytes = row.encode();
            assert_eq!(
                bytes[..8],
                [&[u8::from(row.left.is_some())][..], b"\x03\0\0\0b/f"].concat()
            );
            assert_eq!(MovedRow::decode(&bytes), Ok(row));
            assert!(MovedRow::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(MovedRow::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
        assert!(MovedRow::decode(b"\x02\0\0\0\0").is_err());
    }
}
