//! The row of a file that was moved here from another source, where its former object still is.

use super::Malformed;

/// The most places that one file may have left something in.
pub(crate) const ORIGINS_MAX: usize = u8::MAX as usize;

const IS_DUE: u8 = 1;
const SHOWS_THROUGH: u8 = 2;
const IS_SETTLED: u8 = 4;

/// Where something of a file still is that stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginsRow {
    /// Whether nobody needs it any more.
    pub(crate) is_due: bool,
    /// Whether the file's source need not be asked whether it has the copy: it had it, or the file was removed or replaced through the mount.
    pub(crate) is_settled: bool,
    /// Whether the file is made of what is in the first place.
    pub(crate) shows_through: bool,
    /// The places, at least one.
    pub(crate) places: Vec<OriginPlace>,
}

/// One of the places, and what is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginPlace {
    pub(crate) source: u32,
    pub(crate) directory: u64,
    /// The raw name in the directory.
    pub(crate) name: Vec<u8>,
    pub(crate) version: Vec<u8>,
}

impl OriginsRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags =
            flag(self.is_due, IS_DUE) | flag(self.shows_through, SHOWS_THROUGH) | flag(self.is_settled, IS_SETTLED);
        let mut bytes = vec![flags, self.places.len() as u8];
        for place in &self.places {
            bytes.extend_from_slice(&place.source.to_le_bytes());
            bytes.extend_from_slice(&place.directory.to_le_bytes());
            for text in [&place.name, &place.version] {
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text);
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let ([flags, count], mut rest) = bytes.split_first_chunk().map(|(head, rest)| (*head, rest))?;
            if flags & !(IS_DUE | SHOWS_THROUGH | IS_SETTLED) != 0 {
                return None;
            }
            let mut places = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                places.push(OriginPlace {
                    source: u32::from_le_bytes(array(&mut rest)?),
                    directory: u64::from_le_bytes(array(&mut rest)?),
                    name: text(&mut rest)?,
                    version: text(&mut rest)?,
                });
            }
            (rest.is_empty() && !places.is_empty()).then_some(Self {
                is_due: flags & IS_DUE != 0,
                is_settled: flags & IS_SETTLED != 0,
                shows_through: flags & SHOWS_THROUGH != 0,
                places,
            })
        };
        read().ok_or(Malformed("origins of a file"))
    }
}

/// The key of a place in the index: directory, length of the name, name, file.
pub(crate) fn left_key(directory: u64, name: &[u8], id: u64) -> Vec<u8> {
    [&left_prefix(directory, Some(name))[..], &id.to_be_bytes()].concat()
}

/// The keys of all places in a directory, or of those with one name: from the first up to before the second.
pub(crate) fn left_range(directory: u64, name: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let first = left_prefix(directory, name);
    let mut last = first.clone();
    last.extend_from_slice(&[0xff; 9]);
    if name.is_none() {
        last = directory.saturating_add(1).to_be_bytes().to_vec();
    }
    (first, last)
}

fn left_prefix(directory: u64, name: Option<&[u8]>) -> Vec<u8> {
    let mut key = directory.to_be_bytes().to_vec();
    if let Some(name) = name {
        key.extend_from_slice(&(name.len() as u32).to_be_bytes());
        key.extend_from_slice(name);
    }
    key
}

/// The file of a key.
pub(crate) fn left_id(key: &[u8]) -> Result<u64, Malformed> {
    let id = key.last_chunk().ok_or(Malformed("index of what is left"))?;
    Ok(u64::from_be_bytes(*id))
}

/// The name in a key.
pub(crate) fn left_name(key: &[u8]) -> Result<&[u8], Malformed> {
    let end = key.len().saturating_sub(8);
    key.get(12..end).ok_or(Malformed("index of what is left"))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*first)
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(array(rest)?) as usize;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_name_lie_in_its_range_and_no_others_do() {
        let key = left_key(7, b"a", 9);
        assert_eq!(key, b"\0\0\0\0\0\0\0\x07\0\0\0\x01a\0\0\0\0\0\0\0\x09");
        assert_eq!((left_id(&key), left_name(&key)), (Ok(9), Ok(&b"a"[..])));
        let lies = |range: (Vec<u8>, Vec<u8>), key: &Vec<u8>| range.0 <= *key && *key < range.1;
        assert!(lies(left_range(7, None), &key) && lies(left_range(7, Some(b"a")), &key));
        for other in [
            left_key(7, b"b", 9),
            left_key(7, b"aa", 9),
            left_key(8, b"a", 9),
            left_key(7, b"", 9),
        ] {
            assert!(!lies(left_range(7, Some(b"a")), &other), "{other:?}");
        }
        assert!(lies(left_range(7, Some(b"a")), &left_key(7, b"a", u64::MAX)));
        assert!(!lies(left_range(7, None), &left_key(8, b"", 0)));
        assert!(left_id(b"short").is_err() && left_name(b"short").is_err());
    }

    #[test]
    fn the_layout_is_what_the_format_says() {
        let row = OriginsRow {
            is_due: false,
            is_settled: false,
            shows_through: true,
            places: vec![OriginPlace {
                source: 3,
                directory: 7,
                name: b"a".to_vec(),
                version: b"v1".to_vec(),
            }],
        };
        let bytes = row.encode();
        assert_eq!(bytes, b"\x02\x01\x03\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0a\x02\0\0\0v1");
        assert_eq!(OriginsRow::decode(&bytes), Ok(row.clone()));
        let due = OriginsRow {
            is_due: true,
            is_settled: true,
            shows_through: false,
            places: vec![row.places[0].clone(), row.places[0].clone()],
        };
        assert_eq!(OriginsRow::decode(&due.encode()), Ok(due));
        for wrong in [&b""[..], b"\0", b"\0\0", b"\x08\x01", &bytes[..bytes.len() - 1]] {
            assert!(OriginsRow::decode(wrong).is_err(), "{wrong:?}");
        }
        assert!(OriginsRow::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
