//! The journal row of a staged file, byte by byte: see `docs/staging-format.md`.
//!
//! Any bytes may be given to [`Row::parse`]; what it takes is what [`Row::encode`] wrote, of this version.

use std::ops::Range;

use super::extents::Extents;

/// The version of the format that is written.
pub const FORMAT: u8 = 4;
/// The first version, which tells of no uploads, and is read for good.
const FORMAT_1: u8 = 1;
/// The version in which all bytes lie in data files; it is read for good.
const FORMAT_2: u8 = 2;
/// The version whose bases all lie where their files do, and that tells of no renames; it is read for good.
const FORMAT_3: u8 = 3;
/// The longest version of an object, in bytes, as the catalog takes it.
const VERSION_MAX: usize = manifold_catalog::VERSION_MAX;
/// The most ranges of one row.
pub const EXTENTS_MAX: usize = 1 << 15;
const EXTENT_LEN: usize = 16;
/// The most unconfirmed uploads of one row.
pub const UNCONFIRMED_MAX: usize = 16;

const HAS_BASE: u8 = 1;
const HAS_EXPECTED: u8 = 2;
const IS_DRAFT: u8 = 4;
const IS_BESIDE: u8 = 8;
const IS_ORIGIN: u8 = 16;
const IS_RENAMED: u8 = 32;
const STAYS: u8 = 64;
const IS_OVER_STAGED: u8 = 128;
const ALL_FLAGS: u8 = HAS_BASE | HAS_EXPECTED | IS_DRAFT | IS_BESIDE | IS_ORIGIN | IS_RENAMED | STAYS | IS_OVER_STAGED;
/// What nobody wrote before format 4.
const OF_FORMAT_4: u8 = IS_ORIGIN | IS_RENAMED | STAYS | IS_OVER_STAGED;
/// How far the extents of a file may go whose bytes lie beside its row.
const BESIDE_MAX: u64 = manifold_catalog::STAGED_BYTES_MAX as u64;

/// Why bytes are not a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Another version of the format, which must be left alone.
    #[error("the row has format {0}, and this program knows only {FORMAT}; use the newer program that wrote it")]
    Version(u8),
    /// Not what was written.
    #[error("the row is damaged")]
    Damaged,
}

/// The object that a staged file was made from: what was not written is read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its version.
    pub version: Box<[u8]>,
    /// Its length in bytes.
    pub size: u64,
    /// How far it shows through: what lies behind was cut off at some time, and reads as zeroes.
    pub shows: u64,
    /// Whether it lies at another source, from where the file was moved: where the catalog says. Else where the file does.
    pub is_origin: bool,
}

/// A state of a file that was sent to its source, which may have it: nobody confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Its length in bytes.
    pub size: u64,
    /// The least length that the file had since: what lies behind in it shows through no more.
    pub least: u64,
    /// The BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// A rename that the source was asked for: whether it has made it, is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The id of the directory.
    pub directory: u64,
    /// The name in it, as the source calls it.
    pub name: Box<[u8]>,
    /// Whether the file was written to since, under its own name: then it stays there, whatever the source has made.
    pub stays: bool,
    /// The last change of the staged file that had that name then; `None`: there was none.
    pub over_ns: Option<i64>,
}

/// What is durable of a staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Names the data file, or what lies beside the row.
    pub number: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change, in nanoseconds since 1970-01-01 UTC.
    pub modified_ns: i64,
    /// What shows through where nothing was written; `None`: zeroes.
    pub base: Option<Base>,
    /// The version that the source has to have under the file's name, so that an upload overwrites nothing unseen;
    /// `None`: nothing may be there.
    pub expected: Option<Box<[u8]>>,
    /// Where the source was asked to rename it to.
    pub renamed: Option<Renamed>,
    /// Whether nothing of the file was ever acknowledged: after a crash it is as if it had not been touched.
    pub draft: bool,
    /// What was sent and not confirmed, the oldest first, at most [`UNCONFIRMED_MAX`].
    pub unconfirmed: Vec<Unconfirmed>,
    /// The CRC32C of the file's bytes where they lie beside the row; `None`: they lie in the data file.
    pub beside: Option<u32>,
    /// Which bytes were written.
    pub extents: Extents,
}

impl Row {
    /// Gives the bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.extents.iter().len() * EXTENT_LEN);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        bytes.push(FORMAT);
        bytes.push(
            flag(self.base.is_some(), HAS_BASE)
                | flag(self.expected.is_some(), HAS_EXPECTED)
                | flag(self.draft, IS_DRAFT)
                | flag(self.beside.is_some(), IS_BESIDE)
                | flag(self.base.as_ref().is_some_and(|base| base.is_origin), IS_ORIGIN)
                | flag(self.renamed.is_some(), IS_RENAMED)
                | flag(self.renamed.as_ref().is_some_and(|renamed| renamed.stays), STAYS)
                | flag(
                    self.renamed.as_ref().is_some_and(|renamed| renamed.over_ns.is_some()),
                    IS_OVER_STAGED,
                ),
        );
        for number in [self.number, self.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.modified_ns.to_le_bytes());
        if let Some(base) = &self.base {
            bytes.extend_from_slice(&base.size.to_le_bytes());
            bytes.extend_from_slice(&base.shows.to_le_bytes());
            put_version(&mut bytes, &base.version);
        }
        if let Some(expected) = &self.expected {
            put_version(&mut bytes, expected);
        }
        if let Some(renamed) = &self.renamed {
            bytes.extend_from_slice(&renamed.directory.to_le_bytes());
            put_version(&mut bytes, &renamed.name);
            if let Some(over_ns) = renamed.over_ns {
                bytes.extend_from_slice(&over_ns.to_le_bytes());
            }
        }
        bytes.push(self.unconfirmed.len() as u8);
        for sent in &self.unconfirmed {
            bytes.extend_from_slice(&sent.size.to_le_bytes());
            bytes.extend_from_slice(&sent.least.to_le_bytes());
            bytes.extend_from_slice(&sent.hash);
        }
        if let Some(crc) = self.beside {
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.extents.iter().len() as u32).to_le_bytes());
        for Range { start, end } in self.extents.iter() {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads back what [`encode`](Self::encode) gave, now or in a former version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RowError> {
        match bytes.first() {
            Some(&(FORMAT_1 | FORMAT_2 | FORMAT_3 | FORMAT)) => {}
            Some(&other) => return Err(RowError::Version(other)),
            None => return Err(RowError::Damaged),
        }
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(RowError::Damaged)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(RowError::Damaged);
        }
        Parts(body).row().ok_or(RowError::Damaged)
    }
}

fn put_version(bytes: &mut Vec<u8>, version: &[u8]) {
    bytes.extend_from_slice(&(version.len() as u16).to_le_bytes());
    bytes.extend_from_slice(version);
}

/// What is left to be read.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn row(mut self) -> Option<Row> {
        let [format, flags] = *self.take::<2>()?;
        let is_origin = flags & IS_ORIGIN != 0;
        let of_later = match format {
            FORMAT_1 | FORMAT_2 => IS_BESIDE | OF_FORMAT_4,
            FORMAT_3 => OF_FORMAT_4,
            _ => 0,
        };
        let stays = flags & STAYS != 0;
        if flags & (!ALL_FLAGS | of_later) != 0
            || (is_origin && flags & HAS_BASE == 0)
            || (flags & (STAYS | IS_OVER_STAGED) != 0 && flags & IS_RENAMED == 0)
        {
            return None;
        }
        let (number, size) = (self.u64()?, self.u64()?);
        let modified_ns = i64::from_le_bytes(*self.take()?);
        let base = if flags & HAS_BASE == 0 {
            None
        } else {
            let (base_size, shows) = (self.u64()?, self.u64()?);
            let version = self.version()?;
            Some(Base {
                version,
                size: base_size,
                shows,
                is_origin,
            })
        };
        let expected = if flags & HAS_EXPECTED == 0 {
            None
        } else {
            Some(self.version()?)
        };
        let renamed = if flags & IS_RENAMED == 0 {
            None
        } else {
            let directory = self.u64()?;
            let name = self.version()?;
            let over_ns = if flags & IS_OVER_STAGED == 0 {
                None
            } else {
                Some(i64::from_le_bytes(*self.take()?))
            };
            Some(Renamed {
                directory,
                name,
                stays,
                over_ns,
            })
        };
        let unconfirmed = if format == FORMAT_1 {
            Vec::new()
        } else {
            self.unconfirmed()?
        };
        let beside = if flags & IS_BESIDE == 0 {
            None
        } else {
            Some(u32::from_le_bytes(*self.take()?))
        };
        let count = u32::from_le_bytes(*self.take()?) as usize;
        if count > EXTENTS_MAX || self.0.len() != count * EXTENT_LEN {
            return None;
        }
        let ranges = self.0.chunks_exact(EXTENT_LEN).map(|pair| {
            let mut pair = Parts(pair);
            pair.u64().unwrap_or(0)..pair.u64().unwrap_or(0)
        });
        let extents = Extents::from_stored(ranges)?;
        let makes_sense = extents.end() <= size
            && (beside.is_none() || extents.end() <= BESIDE_MAX)
            && i64::try_from(size).is_ok()
            && base.as_ref().is_none_or(|base| base.shows <= base.size.min(size));
        makes_sense.then_some(Row {
            number,
            size,
            modified_ns,
            base,
            expected,
            renamed,
            draft: flags & IS_DRAFT != 0,
            unconfirmed,
            beside,
            extents,
        })
    }

    fn unconfirmed(&mut self) -> Option<Vec<Unconfirmed>> {
        let [count] = *self.take::<1>()?;
        if usize::from(count) > UNCONFIRMED_MAX {
            return None;
        }
        let mut unconfirmed = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (size, least) = (self.u64()?, self.u64()?);
            if least > size || i64::try_from(size).is_err() {
                return None;
            }
            let hash = *self.take()?;
            unconfirmed.push(Unconfirmed { size, least, hash });
        }
        Some(unconfirmed)
    }

    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(first)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take()?))
    }

    fn version(&mut self) -> Option<Box<[u8]>> {
        let length = usize::from(u16::from_le_bytes(*self.take()?));
        let (version, rest) = self.0.split_at_checked(length).filter(|_| length <= VERSION_MAX)?;
        self.0 = rest;
        Some(version.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> Row {
        Row {
            number: 7,
            size: 100,
            modified_ns: -5,
            base: Some(Base {
                version: (*b"v1").into(),
                size: 90,
                shows: 80,
                is_origin: false,
            }),
            expected: Some((*b"v1").into()),
            renamed: None,
            draft: false,
            unconfirmed: vec![Unconfirmed {
                size: 95,
                least: 3,
                hash: [0xAB; 32],
            }],
            beside: None,
            extents: Extents::from_stored([0..4, 10..20, 99..100].into_iter()).unwrap(),
        }
    }

    fn renamed() -> Row {
        let renamed = Renamed {
            directory: 258,
            name: (*b"new").into(),
            stays: false,
            over_ns: None,
        };
        Row {
            renamed: Some(renamed),
            ..row()
        }
    }

    fn staying() -> Row {
        let renamed = renamed().renamed.map(|renamed| Renamed {
            stays: true,
            over_ns: Some(-3),
            ..renamed
        });
        Row { renamed, ..row() }
    }

    fn beside() -> Row {
        let beside = Some(0x1234_5678);
        Row { beside, ..row() }
    }

    /// What format 1 looks like, for good.
    const KEPT_1: &str = "010307000000000000006400000000000000fbffffffffffffff5a00000000000000500000000000000002007631020076310300000000000000000000000400000000\
                          0000000a00000000000000140000000000000063000000000000006400000000000000";
    /// What format 2 looks like, for good.
    const KEPT_2: &str = "020307000000000000006400000000000000fbffffffffffffff5a000000000000005000000000000000020076310200763101\
                          5f000000000000000300000000000000abababababababababababababababababababababababababababababababab\
                          0300000000000000000000000400000000\
                          0000000a00000000000000140000000000000063000000000000006400000000000000";

    /// What format 4 looks like where the file is being renamed, and its bytes lie beside the row, for good.
    const KEPT_4: &str = "042b07000000000000006400000000000000fbffffffffffffff5a000000000000005000000000000000020076310200763102010000000000000300\
                          6e6577015f000000000000000300000000000000abababababababababababababababababababababababababababababababab\
                          785634120300000000000000000000000400000000\
                          0000000a00000000000000140000000000000063000000000000006400000000000000";

    /// What format 3 looks like where the bytes lie beside the row, for good.
    const KEPT_3: &str = "030b07000000000000006400000000000000fbffffffffffffff5a000000000000005000000000000000020076310200763101\
                          5f000000000000000300000000000000abababababababababababababababababababababababababababababababab\
                          785634120300000000000000000000000400000000\
                          0000000a00000000000000140000000000000063000000000000006400000000000000";

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        let plain = Row {
            base: None,
            expected: None,
            draft: true,
            unconfirmed: Vec::new(),
            extents: Extents::default(),
            ..row()
        };
        for row in [
            row(),
            plain,
            beside(),
            moved(row()),
            moved(beside()),
            renamed(),
            moved(renamed()),
            staying(),
        ] {
            assert_eq!(Row::parse(&row.encode()), Ok(row));
        }
    }

    /// Gives the bytes of a row that was kept without its checksum.
    fn kept(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks_exact(2);
        let mut bytes: Vec<_> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn moved(row: Row) -> Row {
        let base = row.base.map(|base| Base {
            is_origin: true,
            ..base
        });
        Row { base, ..row }
    }

    #[test]
    fn format_4_is_what_it_was() {
        // Numbers and flags, and what follows them in a kept row of an older format.
        for (row, front, rest) in [
            (row(), "0403", KEPT_2),
            (moved(row()), "0413", KEPT_2),
            (beside(), "040b", KEPT_3),
            (moved(beside()), "041b", KEPT_3),
        ] {
            let kept_4 = [front, &rest[4..]].concat();
            let encoded = row.encode();
            assert_eq!(hex(&encoded[..encoded.len() - 4]), kept_4);
            assert_eq!(Row::parse(&kept(&kept_4)), Ok(row));
        }
        let full = Row {
            beside: beside().beside,
            ..renamed()
        };
        let encoded = full.encode();
        assert_eq!(hex(&encoded[..encoded.len() - 4]), KEPT_4);
        assert_eq!(Row::parse(&kept(KEPT_4)), Ok(full));
        assert_eq!(
            row().encode().len(),
            encoded.len() - 4 - 13,
            "a row without either has no room for them"
        );
    }

    #[test]
    fn format_3_is_read_for_good() {
        assert_eq!(Row::parse(&kept(KEPT_3)), Ok(beside()));
        let plain = KEPT_2.replacen("02", "03", 1);
        assert_eq!(Row::parse(&kept(&plain)), Ok(row()));
        // What it did not know stands for damage in it.
        let told_of_an_origin = KEPT_3.replacen("030b", "031b", 1);
        assert_eq!(Row::parse(&kept(&told_of_an_origin)), Err(RowError::Damaged));
        let told_of_a_rename = KEPT_4.replacen("04", "03", 1);
        assert_eq!(Row::parse(&kept(&told_of_a_rename)), Err(RowError::Damaged));
    }

    #[test]
    fn format_2_is_read_for_good() {
        assert_eq!(Row::parse(&kept(KEPT_2)), Ok(row()));
        let odd = KEPT_3.replacen("03", "02", 1);
        assert_eq!(Row::parse(&kept(&odd)), Err(RowError::Damaged));
        let odd = KEPT_2.replacen("0203", "0213", 1);
        assert_eq!(Row::parse(&kept(&odd)), Err(RowError::Damaged));
    }

    #[test]
    fn format_1_is_read_for_good() {
        let told_of_no_uploads = Row {
            unconfirmed: Vec::new(),
            ..row()
        };
        assert_eq!(Row::parse(&kept(KEPT_1)), Ok(told_of_no_uploads));
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = row().encode();
        bytes[0] = 5;
        assert_eq!(Row::parse(&bytes), Err(RowError::Version(5)));
        assert_eq!(Row::parse(&[]), Err(RowError::Damaged));
    }

    #[test]
    fn what_makes_no_sense_is_refused_though_its_checksum_is_right() {
        let beyond = Row { size: 99, ..row() };
        let shows_too_far = Row {
            base: Some(Base {
                version: Box::default(),
                size: 5,
                shows: 6,
                is_origin: false,
            }),
            ..row()
        };
        let longer_than_it_was = Row {
            unconfirmed: vec![Unconfirmed {
                size: 5,
                least: 6,
                hash: [0; 32],
            }],
            ..row()
        };
        let too_many = Row {
            unconfirmed: vec![row().unconfirmed.remove(0); UNCONFIRMED_MAX + 1],
            ..row()
        };
        let too_far_beside = Row {
            size: 1 << 20,
            extents: Extents::from_stored(std::iter::once(0..BESIDE_MAX + 1)).unwrap(),
            ..beside()
        };
        for odd in [beyond, shows_too_far, longer_than_it_was, too_many, too_far_beside] {
            assert_eq!(Row::parse(&odd.encode()), Err(RowError::Damaged));
        }
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 1_usize..190, flip in 1_u8..) {
            let mut bytes = row().encode();
            let at = at % bytes.len();
            prop_assume!(at > 0);
            bytes[at] ^= flip;
            prop_assert_eq!(Row::parse(&bytes), Err(RowError::Damaged));
        }

        /// What the fuzz target does with bytes of any kind, here with bytes that are nearly a row, under a checksum that is right.
        #[test]
        fn whatever_stands_in_a_row_makes_sense_or_is_refused(
            changes in proptest::collection::vec((0_usize..200, any::<u8>()), 0..6),
            format in 0_u8..6,
            kind in 0_usize..4,
            is_moved in any::<bool>(),
            length in 0_usize..250,
        ) {
            let row = [row, beside, renamed, staying][kind]();
            let mut bytes = if is_moved { moved(row) } else { row }.encode();
            bytes.truncate(bytes.len() - 4);
            bytes[0] = format;
            for (at, byte) in changes {
                let at = 1 + at % (bytes.len() - 1);
                bytes[at] = byte;
            }
            if length < bytes.len() {
                bytes.truncate(length.max(1));
            }
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            if let Ok(row) = Row::parse(&bytes) {
                prop_assert!(row.extents.end() <= row.size);
                prop_assert!(row.base.as_ref().is_none_or(|base| base.shows <= base.size.min(row.size)));
                let again = row.encode();
                prop_assert_eq!(Row::parse(&again), Ok(row));
                prop_assert!(again == bytes || bytes[0] != FORMAT);
            }
        }

        #[test]
        fn any_cut_is_noticed(length in 0_usize..190) {
            let bytes = row().encode();
            let length = length % bytes.len();
            prop_assert!(Row::parse(&bytes[..length]).is_err());
        }
    }
}
