//! The row of a file or link whose copy in a folder of this machine is given its name.

use super::Malformed;

/// The longest text of such a row, in bytes: a name, a version, or where a link points.
pub(crate) const CROSSING_TEXT_MAX: usize = 1 << 13;

const SAME_BYTES: u8 = 1;
const LEAVES: u8 = 2;
const SHOWS_THROUGH: u8 = 4;
const LINK: u8 = 8;

/// A crossing as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrossingRow {
    pub(crate) same_bytes: bool,
    pub(crate) from: (u64, Vec<u8>),
    /// The last is the raw name.
    pub(crate) to: (u64, Vec<u8>, Vec<u8>),
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) at_ns: i64,
    pub(crate) mark: MarkRow,
    /// A version, and whether it shows through.
    pub(crate) left: Option<(Vec<u8>, bool)>,
    /// Tells the state of the entry that was copied from others.
    pub(crate) state: [u8; 16],
}

/// How the copy is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MarkRow {
    /// That of a file.
    Identity([u8; 16]),
    /// That of a link.
    Target(Vec<u8>),
}

impl CrossingRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let shows_through = self.left.as_ref().is_some_and(|(_, shows_through)| *shows_through);
        let flags = flag(self.same_bytes, SAME_BYTES)
            | flag(self.left.is_some(), LEAVES)
            | flag(shows_through, SHOWS_THROUGH)
            | flag(matches!(self.mark, MarkRow::Target(_)), LINK);
        let mut bytes = vec![flags];
        let put = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        };
        bytes.extend_from_slice(&self.from.0.to_le_bytes());
        put(&mut bytes, &self.from.1);
        bytes.extend_from_slice(&self.to.0.to_le_bytes());
        put(&mut bytes, &self.to.1);
        put(&mut bytes, &self.to.2);
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.modified_ns.to_le_bytes());
        bytes.extend_from_slice(&self.at_ns.to_le_bytes());
        match &self.mark {
            MarkRow::Identity(identity) => bytes.extend_from_slice(identity),
            MarkRow::Target(target) => put(&mut bytes, target),
        }
        if let Some((version, _)) = &self.left {
            put(&mut bytes, version);
        }
        bytes.extend_from_slice(&self.state);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let mut rest = bytes;
            let [flags] = array(&mut rest)?;
            let has = |flag| flags & flag != 0;
            if flags & !(SAME_BYTES | LEAVES | SHOWS_THROUGH | LINK) != 0 || has(SHOWS_THROUGH) && !has(LEAVES) {
                return None;
            }
            let row = Self {
                same_bytes: has(SAME_BYTES),
                from: (u64::from_le_bytes(array(&mut rest)?), text(&mut rest)?),
                to: (
                    u64::from_le_bytes(array(&mut rest)?),
                    text(&mut rest)?,
                    text(&mut rest)?,
                ),
                size: u64::from_le_bytes(array(&mut rest)?),
                modified_ns: i64::from_le_bytes(array(&mut rest)?),
                at_ns: i64::from_le_bytes(array(&mut rest)?),
                mark: if has(LINK) {
                    MarkRow::Target(text(&mut rest)?)
                } else {
                    MarkRow::Identity(array(&mut rest)?)
                },
                left: if has(LEAVES) {
                    Some((text(&mut rest)?, has(SHOWS_THROUGH)))
                } else {
                    None
                },
                state: array(&mut rest)?,
            };
            rest.is_empty().then_some(row)
        };
        read().ok_or(Malformed("crossing of a file"))
    }
}

pub(super) fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*first)
}

pub(super) fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(array(rest)?) as usize;
    let (text, tail) = rest.split_at_checked(length).filter(|_| length <= CROSSING_TEXT_MAX)?;
    *rest = tail;
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let row = CrossingRow {
            same_bytes: true,
            from: (3, b"a".to_vec()),
            to: (4, b"bc".to_vec(), b"raw".to_vec()),
            size: 5,
            modified_ns: -1,
            at_ns: 6,
            mark: MarkRow::Identity([7; 16]),
            left: Some((b"v1".to_vec(), true)),
            state: [8; 16],
        };
        let bytes = row.encode();
        assert_eq!(bytes[..9], [7, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[9..14], *b"\x01\0\0\0a");
        assert_eq!(
            (bytes[14], &bytes[22..28], &bytes[28..35]),
            (4, &b"\x02\0\0\0bc"[..], &b"\x03\0\0\0raw"[..])
        );
        assert_eq!((bytes[35], bytes[43], bytes[51]), (5, 255, 6));
        assert_eq!(bytes[59..75], [7; 16]);
        assert_eq!(bytes[75..81], *b"\x02\0\0\0v1");
        assert_eq!(bytes[81..], [8; 16]);
        assert_eq!(CrossingRow::decode(&bytes), Ok(row.clone()));
        for cut in 0..bytes.len() {
            assert!(CrossingRow::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let link = CrossingRow {
            same_bytes: false,
            mark: MarkRow::Target(b"../to".to_vec()),
            left: None,
            ..row
        };
        let bytes = link.encode();
        assert_eq!((bytes[0], &bytes[59..68]), (8, &b"\x05\0\0\0../to"[..]));
        assert_eq!(CrossingRow::decode(&bytes), Ok(link));
        assert!(CrossingRow::decode(&[&bytes[..], b"x"].concat()).is_err());
        for wrong in [4, 16] {
            let wrong = [&[wrong], &bytes[1..]].concat();
            assert!(CrossingRow::decode(&wrong).is_err());
        }
    }
}
