//! The map file's format, byte by byte: which blocks of an object stand in the data file beside it.
//!
//! `docs/cache-format.md` describes it for people. Always true: parsing any bytes whatever ends in a map or an error, never in a panic,
//! and costs no more memory than the blocks that are really there; a record counts only with its own check, so that zeroes, torn writes and
//! records that strayed from another object or place are no records.

use std::collections::BTreeMap;

use super::key::ObjectKey;

/// The length of the header and the seal together, in bytes; the first record follows.
pub const RECORDS_START: u64 = 128;
/// The length of one record, in bytes.
pub const RECORD_LEN: usize = 8;
/// The length of the header, in bytes; the seal follows.
pub const HEADER_LEN: usize = 64;
/// The length of the seal, in bytes.
pub const SEAL_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"MFBLOCKS";
const SEAL_MAGIC: [u8; 8] = *b"MFSEALED";
const FORMAT_VERSION: u16 = 1;
const BLOCK_SIZE_MIN: u32 = 4 << 10;
const BLOCK_SIZE_MAX: u32 = 64 << 20;

/// Why bytes are no map file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Fewer bytes than a header.
    #[error("the header is cut off")]
    Short,
    /// Something else's file.
    #[error("this is no map file")]
    Magic,
    /// A format that this program does not know.
    #[error("the format version {0} is not known")]
    FormatVersion(u16),
    /// The header's checksum does not match.
    #[error("the header's checksum does not match")]
    Checksum,
    /// A block size that is out of range or no power of two.
    #[error("the block size {0} is impossible")]
    BlockSize(u32),
}

/// What the map file says of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The object's version.
    pub key: ObjectKey,
    /// The object's length in bytes.
    pub size: u64,
    /// The length of each block but the last, in bytes.
    pub block_size: u32,
}

impl Header {
    /// Writes the header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.block_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.key.0);
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a header from the first bytes of a file.
    ///
    /// # Errors
    /// Says why they are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, MapError> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(MapError::Short)?;
        if bytes[0..8] != MAGIC {
            return Err(MapError::Magic);
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version != FORMAT_VERSION {
            return Err(MapError::FormatVersion(version));
        }
        if crc32c::crc32c(&bytes[..60]) != u32::from_le_bytes(array(bytes, 60)) {
            return Err(MapError::Checksum);
        }
        let block_size = u32::from_le_bytes(array(bytes, 12));
        if !block_size.is_power_of_two() || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size) {
            return Err(MapError::BlockSize(block_size));
        }
        let size = u64::from_le_bytes(array(bytes, 16));
        Ok(Self {
            key: ObjectKey(array(bytes, 24)),
            size,
            block_size,
        })
    }

    /// Counts the blocks of the whole object.
    pub fn block_count(&self) -> u64 {
        self.size.div_ceil(u64::from(self.block_size))
    }
}

/// The word that the data file is whole and on stable storage, with what the file looked like at that moment.
///
/// A file that was written to afterwards, or is another file, has other times or another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The data file's last modification, in nanoseconds since 1970-01-01 UTC.
    pub modified_ns: i64,
    /// The data file's last change of attributes, in the same unit.
    pub changed_ns: i64,
    /// The data file's inode number.
    pub inode: u64,
}

impl Seal {
    /// Writes the seal's bytes, which are good for this header only.
    pub fn encode(&self, header: &Header) -> [u8; SEAL_LEN] {
        let mut bytes = [0; SEAL_LEN];
        bytes[0..8].copy_from_slice(&SEAL_MAGIC);
        bytes[8..16].copy_from_slice(&self.modified_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.changed_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.inode.to_le_bytes());
        let check = seal_check(&bytes, header);
        bytes[60..64].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the seal that follows the header; `None` where there is no good one.
    pub fn parse(bytes: &[u8], header: &Header) -> Option<Self> {
        let bytes: &[u8; SEAL_LEN] = bytes.get(HEADER_LEN..)?.first_chunk()?;
        if bytes[0..8] != SEAL_MAGIC || seal_check(bytes, header) != u32::from_le_bytes(array(bytes, 60)) {
            return None;
        }
        Some(Self {
            modified_ns: i64::from_le_bytes(array(bytes, 8)),
            changed_ns: i64::from_le_bytes(array(bytes, 16)),
            inode: u64::from_le_bytes(array(bytes, 24)),
        })
    }
}

/// Writes the record that block `index` is there with this checksum.
pub fn encode_record(key: ObjectKey, index: u64, checksum: u32) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
    bytes[4..8].copy_from_slice(&record_check(key, index, checksum).to_le_bytes());
    bytes
}

/// Says where the record of block `index` stands in the map file; `None` beyond what a file can hold.
pub fn record_offset(index: u64) -> Option<u64> {
    index
        .checked_mul(RECORD_LEN as u64)?
        .checked_add(RECORDS_START)
        .filter(|it| i64::try_from(*it).is_ok())
}

/// Reads the records in `bytes`, the first of which is that of block `first`, into `blocks`: index to checksum.
///
/// Records beyond the object's end, and what is no record, are left out.
pub fn parse_records(header: &Header, first: u64, bytes: &[u8], blocks: &mut BTreeMap<u64, u32>) {
    let count = header.block_count();
    for (index, record) in (first..count).zip(bytes.as_chunks::<RECORD_LEN>().0) {
        let checksum = u32::from_le_bytes(array(record, 0));
        let check = u32::from_le_bytes(array(record, 4));
        if *record != [0; RECORD_LEN] && check == record_check(header.key, index, checksum) {
            blocks.insert(index, checksum);
        }
    }
}

/// All that a map file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// What it is the map of.
    pub header: Header,
    /// Whether, and since when, the data file is whole.
    pub seal: Option<Seal>,
    /// The blocks that are there: index to checksum.
    pub blocks: BTreeMap<u64, u32>,
}

/// Reads a whole map file from memory: header, seal if there is a good one, and records.
///
/// # Errors
/// Says why the bytes are no map file.
pub fn parse(bytes: &[u8]) -> Result<Map, MapError> {
    let header = Header::parse(bytes)?;
    let mut blocks = BTreeMap::new();
    parse_records(
        &header,
        0,
        bytes.get(RECORDS_START as usize..).unwrap_or_default(),
        &mut blocks,
    );
    Ok(Map {
        header,
        seal: Seal::parse(bytes, &header),
        blocks,
    })
}

/// A checksum over which record this is, as well as over what it says.
fn record_check(key: ObjectKey, index: u64, checksum: u32) -> u32 {
    let mut bytes = [0; 28];
    bytes[0..16].copy_from_slice(&key.0);
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    bytes[24..28].copy_from_slice(&checksum.to_le_bytes());
    crc32c::crc32c(&bytes)
}

fn seal_check(seal: &[u8; SEAL_LEN], header: &Header) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header.encode()), &seal[..60])
}

/// Copies `N` bytes at `at`, which lie within `bytes`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        key: ObjectKey([3; 16]),
        size: 10 << 20,
        block_size: 1 << 20,
    };
    const SEAL: Seal = Seal {
        modified_ns: -5,
        changed_ns: 1 << 60,
        inode: 42,
    };

    fn file() -> Vec<u8> {
        let mut bytes = HEADER.encode().to_vec();
        bytes.extend(SEAL.encode(&HEADER));
        for index in 0..10 {
            bytes.extend(encode_record(HEADER.key, index, index as u32 * 7));
        }
        bytes
    }

    #[test]
    fn what_was_written_reads_back() {
        let Map { header, seal, blocks } = parse(&file()).unwrap();
        assert_eq!((header, seal), (HEADER, Some(SEAL)));
        assert_eq!(blocks, (0..10).map(|index| (index, index as u32 * 7)).collect());
    }

    #[test]
    fn the_bytes_on_disk_are_those_of_format_version_1() {
        // Made by a program in another language, from `docs/cache-format.md`.
        let kept = include_bytes!("../../tests/fixtures/map-v1.map");
        assert_eq!(file(), kept, "a change of the format needs a new version number");
    }

    #[test]
    fn a_record_does_not_count_at_another_place_or_for_another_object() {
        let record = encode_record(HEADER.key, 4, 99);
        let mut blocks = BTreeMap::new();
        parse_records(&HEADER, 5, &record, &mut blocks);
        parse_records(
            &Header {
                key: ObjectKey([4; 16]),
                ..HEADER
            },
            4,
            &record,
            &mut blocks,
        );
        assert!(blocks.is_empty());
        parse_records(&HEADER, 4, &record, &mut blocks);
        assert_eq!(blocks.get(&4), Some(&99));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_damage_loses_records_but_never_invents_one(at in 0_usize..208, flip in 1_u8..) {
            let whole = parse(&file()).unwrap().blocks;
            let mut bytes = file();
            bytes[at] ^= flip;
            if let Ok(Map { header, seal, blocks }) = parse(&bytes) {
                prop_assert_eq!(header, HEADER);
                prop_assert!(seal.is_none() || seal == Some(SEAL));
                prop_assert!(blocks.iter().all(|(index, checksum)| whole.get(index) == Some(checksum)));
            }
        }

        #[test]
        fn any_cut_loses_records_but_never_invents_one(length in 0_usize..208) {
            let whole = parse(&file()).unwrap().blocks;
            if let Ok(Map { blocks, .. }) = parse(&file()[..length]) {
                prop_assert!(blocks.iter().all(|(index, checksum)| whole.get(index) == Some(checksum)));
            }
        }
    }
}
