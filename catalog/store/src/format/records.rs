//! The rows of which there are few: states of directories, sources, scans, totals.

use zerocopy::byteorder::little_endian::{I64, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;
use crate::{DirectoryState, Failure, ScanState, TotalsOf};

const LISTED: u8 = 1;
const FAILED: u8 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StateHeader {
    flags: u8,
    listed_ns: I64,
    scan: U64,
}

/// Writes what is known of a directory.
pub(crate) fn encode_state(state: &DirectoryState) -> Vec<u8> {
    let header = StateHeader {
        flags: if state.listed_ns.is_some() { LISTED } else { 0 } | if state.failure.is_some() { FAILED } else { 0 },
        listed_ns: state.listed_ns.unwrap_or_default().into(),
        scan: state.scan.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    if let Some(failure) = &state.failure {
        bytes.extend_from_slice(&failure.at_ns.to_le_bytes());
        bytes.extend_from_slice(failure.message.as_bytes());
    }
    bytes
}

/// Reads what is known of a directory.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<DirectoryState, Malformed> {
    let read = || {
        let (header, rest) = StateHeader::read_from_prefix(bytes).ok()?;
        let failure = match (header.flags & FAILED != 0, rest) {
            (false, []) => None,
            (false, _) => return None,
            (true, rest) => {
                let (at_ns, message) = rest.split_first_chunk()?;
                let message = str::from_utf8(message).ok()?.to_owned();
                Some(Failure {
                    at_ns: i64::from_le_bytes(*at_ns),
                    message,
                })
            }
        };
        (header.flags & !(LISTED | FAILED) == 0).then(|| DirectoryState {
            listed_ns: (header.flags & LISTED != 0).then(|| header.listed_ns.get()),
            scan: header.scan.get(),
            failure,
        })
    };
    read().ok_or(Malformed("state of a directory"))
}

/// A source as it stands in the file: root, then each text with its length in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceRow {
    pub(crate) root: u64,
    pub(crate) name: String,
    pub(crate) attach: Vec<u8>,
    pub(crate) spec: String,
    pub(crate) options: String,
}

impl SourceRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.root.to_le_bytes().to_vec();
        for text in [
            self.name.as_bytes(),
            &self.attach,
            self.spec.as_bytes(),
            self.options.as_bytes(),
        ] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = || {
            let (root, mut rest) = bytes.split_first_chunk()?;
            let mut text = || {
                let (len, tail) = rest.split_first_chunk()?;
                let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
                rest = tail;
                Some(text.to_vec())
            };
            let (name, attach, spec, options) = (text()?, text()?, text()?, text()?);
            rest.is_empty().then_some(())?;
            Some(Self {
                root: u64::from_le_bytes(*root),
                name: String::from_utf8(name).ok()?,
                attach,
                spec: String::from_utf8(spec).ok()?,
                options: String::from_utf8(options).ok()?,
            })
        };
        read().ok_or(Malformed("source"))
    }
}

/// The last scan of a source, and how many of its directories are in the queue. Generation 0: none has begun yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanRow {
    pub(crate) generation: u64,
    pub(crate) started_ns: i64,
    pub(crate) finished_ns: Option<i64>,
    pub(crate) queued: u64,
    pub(crate) listed: u64,
    pub(crate) failed: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ScanBytes {
    finished: u8,
    generation: U64,
    started_ns: I64,
    finished_ns: I64,
    queued: U64,
    listed: U64,
    failed: U64,
}

impl ScanRow {
    pub(crate) fn is_running(&self) -> bool {
        self.generation > 0 && self.finished_ns.is_none()
    }

    pub(crate) fn state(&self) -> Option<ScanState> {
        (self.generation > 0).then_some(ScanState {
            generation: self.generation,
            started_ns: self.started_ns,
            finished_ns: self.finished_ns,
            queued: self.queued,
            listed: self.listed,
            failed: self.failed,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = ScanBytes {
            finished: self.finished_ns.is_some().into(),
            generation: self.generation.into(),
            started_ns: self.started_ns.into(),
            finished_ns: self.finished_ns.unwrap_or_default().into(),
            queued: self.queued.into(),
            listed: self.listed.into(),
            failed: self.failed.into(),
        };
        bytes.as_bytes().to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let row = ScanBytes::read_from_bytes(bytes).map_err(|_| Malformed("scan"))?;
        let finished_ns = match row.finished {
            0 => None,
            1 => Some(row.finished_ns.get()),
            _ => return Err(Malformed("scan")),
        };
        Ok(Self {
            generation: row.generation.get(),
            started_ns: row.started_ns.get(),
            finished_ns,
            queued: row.queued.get(),
            listed: row.listed.get(),
            failed: row.failed.get(),
        })
    }
}

/// Length of a totals row.
pub(crate) const TOTALS_BYTES: usize = size_of::<TotalsBytes>();

/// Entries and bytes of a source. The sum of sizes has 128 bits, so that no source can make it overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TotalsRow {
    pub(crate) entries: u64,
    pub(crate) bytes: u128,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TotalsBytes {
    entries: U64,
    bytes: U128,
}

impl TotalsRow {
    pub(crate) fn of(size: u64) -> Self {
        Self {
            entries: 1,
            bytes: size.into(),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Takes away; `None` if there is less than that.
    pub(crate) fn minus(self, other: Self) -> Option<Self> {
        Some(Self {
            entries: self.entries.checked_sub(other.entries)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
        })
    }

    pub(crate) fn shown(self) -> TotalsOf {
        TotalsOf {
            entries: self.entries,
            bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn encode(&self) -> [u8; TOTALS_BYTES] {
        let row = TotalsBytes {
            entries: self.entries.into(),
            bytes: self.bytes.into(),
        };
        let mut bytes = [0; TOTALS_BYTES];
        bytes.copy_from_slice(row.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let row = TotalsBytes::read_from_bytes(bytes).map_err(|_| Malformed("totals"))?;
        Ok(Self {
            entries: row.entries.get(),
            bytes: row.bytes.get(),
        })
    }
}
