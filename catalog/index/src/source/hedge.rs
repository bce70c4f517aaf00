//! Second requests for what is late: when, and how many.
//!
//! A read that takes longer than 95 % of those before it is made a second time; the first answer wins, and the other request
//! is dropped. Always true: second requests are at most [`SHARE`] of all reads, and short of that a few in a row.

use std::time::Duration;

use parking_lot::Mutex;

use super::Source;
use crate::health::RequestKind;

/// One second request for so many reads: 5 %.
const SHARE: u32 = 20;
/// How many may be saved up.
const SAVED_MAX: u32 = 3;
/// Nothing is late before that.
const LATE_MIN: Duration = Duration::from_millis(50);

/// What may be spent on second requests, in twentieths of one.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<u32>);

impl Budget {
    /// Counts a read.
    pub(super) fn earn(&self) {
        let mut saved = self.0.lock();
        *saved = (*saved + 1).min(SHARE * SAVED_MAX);
    }

    /// Takes what a second request costs, if it is there.
    pub(super) fn spend(&self) -> bool {
        let mut saved = self.0.lock();
        let left = saved.checked_sub(SHARE);
        *saved = left.unwrap_or(*saved);
        left.is_some()
    }
}

impl Source {
    /// Says after which time a read is late; `None` where that is not known, the source is this machine, or it is no read.
    pub(super) fn late_after(&self, kind: RequestKind) -> Option<Duration> {
        let is_read = matches!(kind, RequestKind::ReadShort | RequestKind::ReadLong);
        if !is_read || self.is_local() {
            return None;
        }
        Some(self.monitor.usual_p95(kind)?.max(LATE_MIN))
    }

    /// Takes leave for a second request: there is something saved for it, and the source has room and is not silent as a whole.
    pub(super) fn may_hedge(&self) -> bool {
        let room = self.monitor.in_flight_now() < u64::from(self.backend.capabilities().concurrency);
        room && !self.is_suspect() && self.away().is_none() && self.hedges.spend()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_requests_are_at_most_one_in_twenty_and_three_in_a_row() {
        let budget = Budget::default();
        assert!(!budget.spend(), "nothing is saved at first");
        let spent = (0..10_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(spent.count(), 10_000 / SHARE as usize);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..10).filter(|_| budget.spend()).count(), SAVED_MAX as usize);
    }
}
