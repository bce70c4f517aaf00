//! Counting what happens often, cheaply: relaxed atomics, no lock, and no allocation while it is counted.
//!
//! Nothing here knows what it counts. Always true: a count is never lost and never goes down; a picture of several counts is
//! not of the very same moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the buckets of a [`Histogram`] end, each with its end; one more holds what takes longer than the last. From what
/// memory answers to what outlives every deadline.
pub const BUCKET_ENDS: [Duration; 18] = [
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

const BUCKETS: usize = BUCKET_ENDS.len() + 1;

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// Nanoseconds; enough for 584 years.
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramPicture {
    /// How many fell into each bucket, and after the last of [`BUCKET_ENDS`] those that took longer.
    pub counts: [u64; BUCKETS],
    /// How long all of them took together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn observe(&self, took: Duration) {
        let bucket = BUCKET_ENDS.partition_point(|end| *end < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Takes a picture.
    pub fn picture(&self) -> HistogramPicture {
        HistogramPicture {
            counts: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

impl HistogramPicture {
    /// Gives how many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Something for each of a few words, made when its word first comes, and found without a lock.
///
/// There is room for `N` words; what comes beyond that shares one place.
#[derive(Debug)]
pub struct ByWord<T, const N: usize> {
    /// Filled from the front, and never emptied: a word that is looked for stands before the first empty place, or nowhere.
    places: [OnceLock<(&'static str, T)>; N],
    beyond: T,
}

/// The word for what found no place of its own.
const BEYOND: &str = "beyond";

impl<T: Default, const N: usize> Default for ByWord<T, N> {
    fn default() -> Self {
        Self {
            places: [const { OnceLock::new() }; N],
            beyond: T::default(),
        }
    }
}

impl<T: Default, const N: usize> ByWord<T, N> {
    /// Finds what belongs to a word.
    pub fn of(&self, word: &'static str) -> &T {
        let found = self.places.iter().find_map(|place| {
            let (holder, value) = place.get_or_init(|| (word, T::default()));
            (*holder == word).then_some(value)
        });
        found.unwrap_or(&self.beyond)
    }

    /// Lists the words that have come, in the order in which they came, and at the end what found no place.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        let taken = self.places.iter().map_while(OnceLock::get);
        let by_word = taken.map(|(word, value)| (*word, value));
        by_word.chain(std::iter::once((BEYOND, &self.beyond)))
    }
}

impl<const N: usize> ByWord<AtomicU64, N> {
    /// Counts one more of a word.
    pub fn count(&self, word: &'static str) {
        self.of(word).fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a picture of what was counted at all, in the order of the words.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.iter().map(|(word, count)| (word, count.load(Ordering::Relaxed)));
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        counts.sort_unstable();
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_takes_just_as_long_as_a_bucket_ends_belongs_to_it() {
        let histogram = Histogram::default();
        for end in BUCKET_ENDS {
            histogram.observe(end);
            histogram.observe(end + Duration::from_nanos(1));
        }
        let picture = histogram.picture();
        assert_eq!(picture.counts[0], 1);
        assert!(picture.counts[1..BUCKETS - 1].iter().all(|count| *count == 2));
        assert_eq!(picture.counts[BUCKETS - 1], 1, "what takes longer than the last end");
        let sum = BUCKET_ENDS.iter().sum::<Duration>() * 2 + Duration::from_nanos(BUCKET_ENDS.len() as u64);
        assert_eq!(picture.sum, sum);
    }

    #[test]
    fn the_ends_of_the_buckets_rise() {
        assert!(BUCKET_ENDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn many_threads_lose_no_count_and_give_no_word_two_places() {
        let words = ["a", "b", "c", "d", "e"];
        let counts: ByWord<AtomicU64, 4> = ByWord::default();
        std::thread::scope(|scope| {
            for first in 0..words.len() {
                let counts = &counts;
                scope.spawn(move || {
                    for round in 0..10_000 {
                        counts.count(words[(first + round) % words.len()]);
                    }
                });
            }
        });
        let found = counts.counts();
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|(_, count)| *count == 10_000), "{found:?}");
        assert_eq!(found.iter().filter(|(word, _)| *word == BEYOND).count(), 1);
    }

    proptest! {
        #[test]
        fn everything_is_counted_once(took in prop::collection::vec(0_u64..60_000_000_000, 0..200)) {
            let histogram = Histogram::default();
            for ns in &took {
                histogram.observe(Duration::from_nanos(*ns));
            }
            let picture = histogram.picture();
            prop_assert_eq!(picture.count(), took.len() as u64);
            prop_assert_eq!(picture.sum, Duration::from_nanos(took.iter().sum()));
        }
    }
}
