//! The rows of uploads in parts that a source may still have, and of the parts that it has confirmed.

use super::Malformed;

/// The longest text of such a row, in bytes: a path, or what the source calls an upload or a part.
pub(crate) const PART_TEXT_MAX: usize = 1 << 16;

/// The bytes of a part's row before what the source calls it.
const PART_HEAD: usize = 8 + 16;

/// An upload as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartUploadRow {
    pub(crate) source: u32,
    pub(crate) entry: u64,
    pub(crate) size: u64,
    pub(crate) written_ns: i64,
    pub(crate) path: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

impl PartUploadRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.source.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.entry.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.written_ns.to_le_bytes());
        bytes.extend_from_slice(&(self.path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.path);
        bytes.extend_from_slice(&self.name);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let (source, rest) = bytes.split_first_chunk()?;
            let (entry, rest) = rest.split_first_chunk()?;
            let (size, rest) = rest.split_first_chunk()?;
            let (written_ns, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (path, name) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let fits = !name.is_empty() && path.len() <= PART_TEXT_MAX && name.len() <= PART_TEXT_MAX;
            fits.then(|| Self {
                source: u32::from_le_bytes(*source),
                entry: u64::from_le_bytes(*entry),
                size: u64::from_le_bytes(*size),
                written_ns: i64::from_le_bytes(*written_ns),
                path: path.to_vec(),
                name: name.to_vec(),
            })
        };
        read().ok_or(Malformed("upload in parts"))
    }
}

/// A part as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentPartRow {
    pub(crate) length: u64,
    pub(crate) sum: [u8; 16],
    pub(crate) tag: Vec<u8>,
}

impl SentPartRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PART_HEAD + self.tag.len());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.sum);
        bytes.extend_from_slice(&self.tag);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let (sum, tag) = rest.split_first_chunk()?;
            (tag.len() <= PART_TEXT_MAX).then(|| Self {
                length: u64::from_le_bytes(*length),
                sum: *sum,
                tag: tag.to_vec(),
            })
        };
        read().ok_or(Malformed("part of an upload"))
    }
}

/// Key by upload, then the number of the part.
pub(crate) fn part_key(upload: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&upload.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Reads upload and number back.
pub(crate) fn part_place(key: &[u8; 12]) -> (u64, u32) {
    let (upload, number) = key.split_first_chunk().expect("invariant: twelve bytes");
    let number = number.first_chunk().expect("invariant: four bytes are left");
    (u64::from_be_bytes(*upload), u32::from_be_bytes(*number))
}

/// First and last key of an upload.
pub(crate) fn part_range(upload: u64) -> ([u8; 12], [u8; 12]) {
    (part_key(upload, 0), part_key(upload, u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let upload = PartUploadRow {
            source: 0x0403_0201,
            entry: 5,
            size: 6,
            written_ns: -1,
            path: b"a/b".to_vec(),
            name: b"up".to_vec(),
        };
        let bytes = upload.encode();
        assert_eq!(bytes[..4], [1, 2, 3, 4]);
        assert_eq!((bytes[4], bytes[12], bytes[20], bytes[28]), (5, 6, 255, 3));
        assert_eq!(&bytes[32..], b"a/bup");
        assert_eq!(PartUploadRow::decode(&bytes), Ok(upload));
        for cut in 0..bytes.len() - 1 {
            assert!(PartUploadRow::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let part = SentPartRow {
            length: 7,
            sum: [9; 16],
            tag: b"\"tag\"".to_vec(),
        };
        let bytes = part.encode();
        assert_eq!(
            (bytes[0], &bytes[8..24], &bytes[24..]),
            (7, &[9; 16][..], &b"\"tag\""[..])
        );
        assert_eq!(SentPartRow::decode(&bytes), Ok(part));
        assert!(SentPartRow::decode(&bytes[..23]).is_err());
        assert_eq!(part_place(&part_key(3, 4)), (3, 4));
        assert!(part_key(3, u32::MAX) < part_key(4, 0));
    }
}
