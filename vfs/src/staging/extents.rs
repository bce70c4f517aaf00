//! A set of byte ranges: which parts of a staged file were written.
//!
//! Always true: the ranges are not empty, do not touch one another, and their sum is known.

use std::collections::BTreeMap;
use std::ops::Range;

/// Which bytes of a file were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Start → end.
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

impl Extents {
    /// Takes ranges as they were stored: ascending, not empty, not touching. `None` for anything else.
    pub fn from_stored(ranges: impl Iterator<Item = Range<u64>>) -> Option<Self> {
        let mut extents = Self::default();
        let mut last_end = None;
        for range in ranges {
            if range.start >= range.end || last_end.is_some_and(|end| range.start <= end) {
                return None;
            }
            last_end = Some(range.end);
            extents.total += range.end - range.start;
            extents.ranges.insert(range.start, range.end);
        }
        Some(extents)
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            (start, end) = (before, end.max(before_end));
            self.ranges.remove(&before);
            self.total -= before_end - before;
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&next);
            self.total -= next_end - next;
            end = end.max(next_end);
        }
        self.ranges.insert(start, end);
        self.total += end - start;
    }

    /// Takes out everything from `end` on.
    pub fn truncate(&mut self, end: u64) {
        for (start, old_end) in self.ranges.split_off(&end) {
            self.total -= old_end - start;
        }
        if let Some(mut last) = self.ranges.last_entry()
            && *last.get() > end
        {
            self.total -= *last.get() - end;
            *last.get_mut() = end;
        }
    }

    /// Counts the bytes of a range that are not in the set.
    pub fn missing(&self, range: &Range<u64>) -> u64 {
        let here = self.pieces(range).filter(|(_, written)| !written);
        here.map(|(piece, _)| piece.end - piece.start).sum()
    }

    /// Cuts a range into what is in the set and what is not, in order.
    pub fn pieces<'a>(&'a self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> + use<'a> {
        let Range { start: mut at, end } = *range;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let before = self.ranges.range(..=at).next_back();
            let piece = if let Some((_, &before_end)) = before.filter(|(_, before_end)| **before_end > at) {
                (at..before_end.min(end), true)
            } else {
                let next = self.ranges.range(at..end).next().map_or(end, |(next, _)| *next);
                (at..next, false)
            };
            at = piece.0.end;
            Some(piece)
        })
    }

    /// Lists the ranges in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    /// Counts the bytes of the set.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Says where the last range ends; 0 where there is none.
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Range<u64>),
        Truncate(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let range = (0..LEN, 0..16_u64).prop_map(|(start, length)| Step::Insert(start..(start + length).min(LEN)));
        proptest::collection::vec(prop_oneof![4 => range, 1 => (0..LEN).prop_map(Step::Truncate)], 0..40)
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_bytes_that_a_row_of_flags_says(steps in steps(), start in 0..LEN, length in 0..LEN) {
            let (mut extents, mut flags) = (Extents::default(), vec![false; LEN as usize]);
            for step in steps {
                match step {
                    Step::Insert(range) => {
                        flags[range.start as usize..range.end as usize].fill(true);
                        extents.insert(range);
                    }
                    Step::Truncate(end) => {
                        flags[end as usize..].fill(false);
                        extents.truncate(end);
                    }
                }
            }
            let mut from_extents = vec![false; LEN as usize];
            for range in extents.iter() {
                from_extents[range.start as usize..range.end as usize].fill(true);
            }
            prop_assert_eq!(&from_extents, &flags);
            prop_assert_eq!(extents.total(), flags.iter().filter(|it| **it).count() as u64);
            let stored = Extents::from_stored(extents.iter());
            prop_assert_eq!(stored.as_ref(), Some(&extents));
            let range = start..(start + length).min(LEN);
            let mut at = range.start;
            for (piece, written) in extents.pieces(&range) {
                prop_assert_eq!(piece.start, at);
                prop_assert!(flags[piece.start as usize..piece.end as usize].iter().all(|it| *it == written));
                at = piece.end;
            }
            prop_assert_eq!(at, range.end);
            let missing = flags[range.start as usize..range.end as usize].iter().filter(|it| !**it).count();
            prop_assert_eq!(extents.missing(&range), missing as u64);
        }
    }

    #[test]
    fn ranges_that_overlap_touch_or_are_empty_are_not_taken_from_a_store() {
        for ranges in [[0..4, 2..6], [0..4, 4..6], [4..6, 0..2], [0..0, 3..4]] {
            assert_eq!(Extents::from_stored(ranges.into_iter()), None);
        }
    }
}
