//! How long requests take: a long record to compare with, and the last few.
//!
//! A measurement is first among the recent ones, and joins the long record when it is pushed out of them; so the two never
//! overlap, and a source that turns slow is seen before its slowness has become the rule. Both are of fixed size.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Each bucket ends √2 later than the one before; the last one ends after about five minutes.
const BUCKETS: usize = 44;
/// Where the first bucket ends.
const FIRST_END: Duration = Duration::from_micros(100);
/// The record is halved when it holds so many, so that what is long ago counts for less and less.
const RECORD_MAX: u32 = 4_096;
/// How many measurements are recent,
const RECENT_MAX: usize = 32;
/// and for how long.
const RECENT_FOR: Duration = Duration::from_mins(2);

/// The times that requests of one kind took.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    record: [u32; BUCKETS],
    in_record: u32,
    recent: VecDeque<(Instant, Duration)>,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            record: [0; BUCKETS],
            in_record: 0,
            recent: VecDeque::with_capacity(RECENT_MAX + 1),
        }
    }
}

impl Latency {
    /// Takes a measurement.
    pub(crate) fn add(&mut self, took: Duration, now: Instant) {
        self.recent.push_back((now, took));
        if self.recent.len() > RECENT_MAX {
            self.retire_oldest();
        }
        self.retire_old(now);
    }

    /// Moves what is not recent any more into the record.
    pub(crate) fn retire_old(&mut self, now: Instant) {
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT_FOR)
        {
            self.retire_oldest();
        }
    }

    /// How many measurements the record holds.
    pub(crate) fn in_record(&self) -> u32 {
        self.in_record
    }

    /// How many are recent.
    pub(crate) fn recent(&self) -> usize {
        self.recent.len()
    }

    /// Gives the time within which that share (in percent) of the record was answered: the end of a bucket.
    pub(crate) fn usual(&self, percent: u32) -> Option<Duration> {
        let wanted = (u64::from(self.in_record) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.record.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Some(end_of(bucket));
            }
        }
        None
    }

    /// Gives the time within which that share (in percent) of the recent requests was answered.
    pub(crate) fn lately(&self, percent: usize) -> Option<Duration> {
        let mut times: Vec<_> = self.recent.iter().map(|(_, took)| *took).collect();
        let rank = (times.len() * percent).div_ceil(100).checked_sub(1)?;
        let (_, at_rank, _) = times.select_nth_unstable(rank);
        Some(*at_rank)
    }

    fn retire_oldest(&mut self) {
        let Some((_, took)) = self.recent.pop_front() else {
            return;
        };
        if self.in_record >= RECORD_MAX {
            self.record.iter_mut().for_each(|count| *count /= 2);
            self.in_record = self.record.iter().sum();
        }
        if let Some(count) = self.record.get_mut(bucket_of(took)) {
            *count += 1;
            self.in_record += 1;
        }
    }
}

fn bucket_of(took: Duration) -> usize {
    let parts = took.as_secs_f64() / FIRST_END.as_secs_f64();
    if parts <= 1.0 {
        return 0;
    }
    ((2.0 * parts.log2()).ceil() as usize).min(BUCKETS - 1)
}

fn end_of(bucket: usize) -> Duration {
    FIRST_END.mul_f64((bucket as f64 / 2.0).exp2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_recent_joins_the_record_and_nothing_is_counted_twice() {
        let (mut latency, now) = (Latency::default(), Instant::now());
        for _ in 0..RECENT_MAX {
            latency.add(Duration::from_millis(10), now);
        }
        assert_eq!((latency.in_record(), latency.usual(95)), (0, None));
        for _ in 0..RECENT_MAX {
            latency.add(Duration::from_secs(1), now);
        }
        assert_eq!(latency.in_record() as usize, RECENT_MAX);
        assert_eq!(latency.lately(50), Some(Duration::from_secs(1)));
        assert!(latency.usual(95).is_some_and(|usual| usual < Duration::from_millis(15)));
        latency.retire_old(now + RECENT_FOR + Duration::from_secs(1));
        assert_eq!((latency.recent(), latency.in_record() as usize), (0, 2 * RECENT_MAX));
    }

    proptest! {
        #[test]
        fn a_usual_time_is_no_less_than_the_truth_and_no_more_than_a_bucket_longer(
            mut micros in prop::collection::vec(1_u64..100_000_000, 1..200),
            percent in 1_u32..=100,
        ) {
            let mut latency = Latency::default();
            let now = Instant::now();
            for took in &micros {
                latency.add(Duration::from_micros(*took), now);
            }
            latency.retire_old(now + RECENT_FOR * 2);
            micros.sort_unstable();
            let rank = (micros.len() * percent as usize).div_ceil(100).max(1) - 1;
            let truth = Duration::from_micros(micros[rank]);
            let told = latency.usual(percent).unwrap();
            prop_assert!(told >= truth.mul_f64(0.999), "{told:?} < {truth:?}");
            prop_assert!(told <= FIRST_END || told <= truth.mul_f64(1.415), "{told:?} > {truth:?}");
        }

        #[test]
        fn the_record_stays_bounded(count in 0_u32..20_000) {
            let mut latency = Latency::default();
            let now = Instant::now();
            for _ in 0..count {
                latency.add(Duration::from_millis(5), now);
            }
            prop_assert!(latency.in_record() <= RECORD_MAX);
            prop_assert!(latency.recent() <= RECENT_MAX);
        }
    }
}
