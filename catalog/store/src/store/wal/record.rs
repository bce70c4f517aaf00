//! The records of the log: a header with a checksum, and the rows that were put and removed.

pub(super) const MAGIC: [u8; 4] = *b"MfWL";
/// The bytes before the steps of a record.
pub(super) const HEADER_BYTES: usize = 40;
/// The most bytes of steps that one change is noted with. A longer one is worth a durable commit of its own.
const STEPS_MAX: usize = 512 << 10;
/// With the number of a record: when it was written, all before it were on the disk.
const AFTER_SYNC: u64 = 1 << 63;
/// In the place of the length of a value: the row was removed.
const REMOVED: u32 = u32::MAX;

/// What one change did to rows, as it is done.
#[derive(Debug)]
pub(crate) struct Record(Option<Vec<u8>>);

impl Default for Record {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

impl Record {
    pub(crate) fn put(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.step(table, key, Some(value));
    }

    pub(crate) fn removed(&mut self, table: u8, key: &[u8]) {
        self.step(table, key, None);
    }

    fn step(&mut self, table: u8, key: &[u8], value: Option<&[u8]>) {
        let Some(steps) = &mut self.0 else { return };
        let bytes = value.unwrap_or_default();
        if steps.len() + key.len() + bytes.len() > STEPS_MAX {
            self.0 = None;
            return;
        }
        steps.push(table);
        // Both are shorter than the limit above.
        steps.extend_from_slice(&(key.len() as u32).to_le_bytes());
        let len = value.map_or(REMOVED, |value| value.len() as u32);
        steps.extend_from_slice(&len.to_le_bytes());
        steps.extend_from_slice(key);
        steps.extend_from_slice(bytes);
    }

    /// All of it, if it is not too long.
    pub(super) fn steps(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

/// One row that was put or removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    /// The number of its table.
    pub(crate) table: u8,
    pub(crate) key: &'a [u8],
    /// `None`: removed.
    pub(crate) value: Option<&'a [u8]>,
}

/// Reads the steps of a record in their order. `None` in the place of one that makes no sense, and then no more.
pub(crate) fn steps(mut bytes: &[u8]) -> impl Iterator<Item = Option<Step<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let step = split_step(bytes);
        bytes = step.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(step.map(|(step, _)| step))
    })
}

fn split_step(bytes: &[u8]) -> Option<(Step<'_>, &[u8])> {
    let (table, rest) = bytes.split_first()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let (value, rest) = match u32::from_le_bytes(*value_len) {
        REMOVED => (None, rest),
        len => {
            let (value, rest) = rest.split_at_checked(len as usize)?;
            (Some(value), rest)
        }
    };
    let table = *table;
    Some((Step { table, key, value }, rest))
}

/// What stands before the steps of a record.
pub(super) struct Header {
    generation: u64,
    /// With [`AFTER_SYNC`].
    sequence: u64,
    len: u32,
    checksum: [u8; 16],
}

impl Header {
    /// `steps` has no more than 4 GiB. `after_sync`: all records before it are on the disk.
    pub(super) fn of(generation: u64, sequence: u64, after_sync: bool, steps: &[u8]) -> Self {
        let sequence = sequence | if after_sync { AFTER_SYNC } else { 0 };
        Self {
            generation,
            sequence,
            len: steps.len() as u32,
            checksum: checksum(generation, sequence, steps),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..].copy_from_slice(&self.checksum);
        bytes
    }
}

/// Of what follows the length, and of that by how many bytes there are.
fn checksum(generation: u64, sequence: u64, steps: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.update(steps);
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("invariant: a hash has 32 bytes")
}

/// A record that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole<'a> {
    pub(super) sequence: u64,
    /// Whether all before it were on the disk when it was written.
    pub(super) after_sync: bool,
    pub(super) steps: &'a [u8],
    /// What lies behind it.
    pub(super) behind: &'a [u8],
}

/// Reads the record that bytes begin with, if it is one of that generation, and is whole.
pub(super) fn split_first(bytes: &[u8], generation: u64) -> Option<Whole<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    if generation_of(header) != Some(generation) {
        return None;
    }
    let len = u32::from_le_bytes(*header[4..8].first_chunk()?);
    let (steps, behind) = rest.split_at_checked(len as usize)?;
    let told = u64::from_le_bytes(*header[16..24].first_chunk()?);
    let (sequence, after_sync) = (told & !AFTER_SYNC, told & AFTER_SYNC != 0);
    (*header == Header::of(generation, sequence, after_sync, steps).encode()).then_some(Whole {
        sequence,
        after_sync,
        steps,
        behind,
    })
}

/// Gives the generation that is named by the header that bytes begin with, whether or not the record is whole.
pub(super) fn generation_of(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    Some(u64::from_le_bytes(*rest.get(4..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (u8, Vec<u8>, Option<Vec<u8>>)> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        (any::<u8>(), bytes(), proptest::option::of(bytes()))
    }

    proptest! {
        #[test]
        fn a_record_gives_back_its_steps_and_nothing_of_any_other(
            rows in proptest::collection::vec(row(), 0..9),
            behind in proptest::collection::vec(any::<u8>(), 0..60),
            generation: u64,
            sequence in 0u64..9,
            after_sync: bool,
            damage: proptest::sample::Index,
        ) {
            let mut record = Record::default();
            for (table, key, value) in &rows {
                match value {
                    Some(value) => record.put(*table, key, value),
                    None => record.removed(*table, key),
                }
            }
            let written = record.steps().unwrap();
            let mut bytes = Header::of(generation, sequence, after_sync, written).encode().to_vec();
            bytes.extend_from_slice(written);
            let len = bytes.len();
            bytes.extend_from_slice(&behind);
            let whole = split_first(&bytes, generation).unwrap();
            prop_assert_eq!(whole.behind, behind.as_slice());
            prop_assert_eq!((whole.sequence, whole.after_sync), (sequence, after_sync));
            let read: Vec<_> = steps(whole.steps).map(Option::unwrap).collect();
            prop_assert_eq!(read.len(), rows.len());
            for (step, (table, key, value)) in read.iter().zip(&rows) {
                prop_assert_eq!(step, &Step { table: *table, key, value: value.as_deref() });
            }
            prop_assert_eq!(split_first(&bytes, generation ^ 1), None);
            prop_assert_eq!(split_first(&bytes[..len - 1], generation), None);
            bytes[damage.index(len)] ^= 1;
            prop_assert_eq!(split_first(&bytes, generation), None);
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_to_an_end(bytes in proptest::collection::vec(0u8..4, 0..200)) {
            let read = steps(&bytes).count();
            prop_assert!(read <= bytes.len());
            prop_assert_eq!(split_first(&bytes, 0), None);
        }
    }

    #[test]
    fn a_change_that_is_too_long_is_not_noted() {
        let mut record = Record::default();
        record.put(1, b"key", &vec![0; STEPS_MAX]);
        assert_eq!(record.steps(), None);
        record.removed(1, b"key");
        assert_eq!(record.steps(), None);
    }
}
