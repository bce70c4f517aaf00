//! The BLAKE3 of what an upload sends, so that it is recognised at the source though it was not confirmed and the file has
//! changed since.
//!
//! Always true: a part is noted before it is sent, so that a source that has all of an upload has nothing that was not noted.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

/// The most bytes that wait for others before them. An upload that reads further ahead is not recognised.
const AHEAD_MAX: usize = 64 << 20;

/// What has been noted of one upload. The hash is taken of a piece once all before it is in.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Locked before `ahead`.
    hashed: Mutex<Hashed>,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Hashed {
    /// How far the hash goes.
    end: u64,
    hasher: blake3::Hasher,
}

/// Parts that are not hashed yet, by where they begin.
#[derive(Debug, Default)]
struct Ahead {
    parts: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// Whether there was no room for one.
    left_out: bool,
}

impl Tally {
    /// Takes note of a part; [`take_in`](Self::take_in) is to follow.
    pub(super) fn note(&self, start: u64, bytes: Bytes) {
        let mut ahead = self.ahead.lock();
        if ahead.bytes + bytes.len() > AHEAD_MAX {
            ahead.left_out = true;
            return;
        }
        ahead.bytes += bytes.len();
        if let Some(other) = ahead.parts.insert(start, bytes) {
            ahead.bytes -= other.len();
            // Of two that begin there, the longer one.
            if other.len() > ahead.parts[&start].len() {
                ahead.bytes += other.len();
                if let Some(shorter) = ahead.parts.insert(start, other) {
                    ahead.bytes -= shorter.len();
                }
            }
        }
    }

    /// Hashes what follows on what is hashed already.
    pub(super) fn take_in(&self) {
        let mut hashed = self.hashed.lock();
        while let Some((start, part)) = self.next(hashed.end) {
            let known = (hashed.end - start) as usize;
            if let Some(rest) = part.get(known..) {
                hashed.hasher.update(rest);
                hashed.end += rest.len() as u64;
            }
        }
    }

    /// Takes out the first part, if it begins no later than there.
    fn next(&self, end: u64) -> Option<(u64, Bytes)> {
        let mut ahead = self.ahead.lock();
        let first = ahead.parts.first_entry().filter(|first| *first.key() <= end)?;
        let (start, part) = first.remove_entry();
        ahead.bytes -= part.len();
        Some((start, part))
    }

    /// Tells whether all of an object may have been sent.
    pub(super) fn may_be_whole(&self, size: u64) -> bool {
        self.whole(size).is_some() || self.ahead.lock().left_out
    }

    /// Gives the hash of the whole of an object, if it was noted that far.
    pub(super) fn whole(&self, size: u64) -> Option<[u8; 32]> {
        self.take_in();
        let hashed = self.hashed.lock();
        (hashed.end == size).then(|| *hashed.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_hash_of_the_whole_in_whatever_order_parts_come(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0..300_usize, 0..10),
            again in proptest::collection::vec((0..300_usize, 0..100_usize), 0..4),
            seed in any::<u64>(),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut parts: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).filter(|part| !part.is_empty()).collect();
            let needed = parts.len();
            parts.extend(again.into_iter().map(|(start, length)| {
                let start = start.min(bytes.len());
                start..(start + length).min(bytes.len())
            }));
            parts.sort_by_key(|part| part.start as u64 ^ seed.rotate_left(part.end as u32));
            let tally = Tally::default();
            for part in &parts {
                tally.note(part.start as u64, Bytes::copy_from_slice(&bytes[part.clone()]));
                if seed & 1 == 0 {
                    tally.take_in();
                }
            }
            prop_assert_eq!(tally.whole(bytes.len() as u64), Some(*blake3::hash(&bytes).as_bytes()), "{} parts", needed);
            prop_assert_eq!(tally.whole(bytes.len() as u64 + 1), None);
        }
    }

    #[test]
    fn what_was_not_read_to_its_end_has_no_hash() {
        let tally = Tally::default();
        tally.note(0, Bytes::from_static(b"begin"));
        tally.note(6, Bytes::from_static(b"end"));
        assert_eq!(tally.whole(9), None);
        tally.note(5, Bytes::from_static(b" "));
        assert_eq!(tally.whole(9), Some(*blake3::hash(b"begin end").as_bytes()));
        assert_eq!(Tally::default().whole(0), Some(*blake3::hash(b"").as_bytes()));
    }

    #[test]
    fn what_was_read_too_far_ahead_may_have_been_sent_whole() {
        let tally = Tally::default();
        tally.note(1, Bytes::from(vec![0; AHEAD_MAX]));
        assert!(!tally.may_be_whole(AHEAD_MAX as u64 + 2));
        tally.note(AHEAD_MAX as u64 + 1, Bytes::from_static(b"!"));
        tally.note(0, Bytes::from_static(b"!"));
        assert_eq!(tally.whole(AHEAD_MAX as u64 + 2), None);
        assert!(tally.may_be_whole(AHEAD_MAX as u64 + 2));
    }
}
