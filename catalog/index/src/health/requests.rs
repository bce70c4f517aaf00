//! What became of the requests to one source, counted for good: how many, how long they took, why they failed.
//!
//! Other than the [`record`](super::record), which forgets, this draws no conclusions. Always true: each request that began
//! ends once, as one that took its time (failed or not), or as one that nobody waited for any longer.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::RequestKind;
use crate::IndexError;
use crate::measure::{ByWord, Histogram, HistogramPicture};

/// How many reasons to fail are told apart: more than there are kinds of errors.
const REASONS_MAX: usize = 40;
/// The reason of a failure for which the source's kinds of errors have no word.
const OTHER: &str = "other";
/// The reason of a request that nobody waited for any longer.
const ABANDONED: &str = "abandoned";

/// What became of the requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// What was asked for.
    pub kind: RequestKind,
    /// How many began.
    pub begun: u64,
    /// How long those took that have ended, failed or not; those that were abandoned are not among them.
    pub took: HistogramPicture,
    /// How many failed, by the kind of error, and `abandoned`.
    pub failed: Vec<(&'static str, u64)>,
}

/// What became of the requests to one source.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    kinds: [OfKind; RequestKind::ALL.len()],
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct OfKind {
    begun: AtomicU64,
    took: Histogram,
    failed: ByWord<AtomicU64, REASONS_MAX>,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    of: &'a OfKind,
    since: Instant,
    ended: bool,
}

impl Requests {
    /// Counts a request that begins now.
    pub(crate) fn begin(&self, kind: RequestKind) -> UnderWay<'_> {
        let of = &self.kinds[kind as usize];
        of.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay {
            of,
            since: Instant::now(),
            ended: false,
        }
    }

    /// Counts a request that was not made, because the source is known to be away.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a picture, of the kinds that were asked for at all.
    pub(crate) fn facts(&self) -> Vec<RequestFacts> {
        let all = RequestKind::ALL.into_iter().zip(&self.kinds);
        let facts = all.map(|(kind, of)| {
            // What has ended is looked at first, so that it is never more than what has begun.
            let (took, failed) = (of.took.picture(), of.failed.counts());
            let begun = of.begun.load(Ordering::Relaxed);
            RequestFacts {
                kind,
                begun,
                took,
                failed,
            }
        });
        facts.filter(|facts| facts.begun > 0).collect()
    }
}

impl UnderWay<'_> {
    /// Counts what became of it.
    pub(crate) fn end<T>(mut self, result: &Result<T, IndexError>) {
        self.ended = true;
        self.of.took.observe(self.since.elapsed());
        if let Err(error) = result {
            self.of.failed.count(error.kind().map_or(OTHER, |kind| kind.as_str()));
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.of.failed.count(ABANDONED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_request_ends_once_and_is_counted_by_what_became_of_it() {
        let requests = Requests::default();
        let late = || IndexError::TimedOut {
            source_name: "a".to_owned(),
            path: "b".to_owned(),
            after: Duration::ZERO,
        };
        requests.begin(RequestKind::List).end(&Ok(()));
        let slow = requests.begin(RequestKind::List);
        tokio::time::advance(Duration::from_secs(2)).await;
        slow.end::<()>(&Err(late()));
        requests.begin(RequestKind::List).end::<()>(&Err(IndexError::Stopped));
        drop(requests.begin(RequestKind::List));
        let _still_under_way = requests.begin(RequestKind::List);
        requests.refuse();

        let facts = requests.facts();
        assert_eq!(facts.len(), 1, "what was never asked for is left out");
        let list = &facts[0];
        assert_eq!((list.kind, list.begun), (RequestKind::List, 5));
        assert_eq!((list.took.count(), list.took.sum), (3, Duration::from_secs(2)));
        assert_eq!(list.failed, [("abandoned", 1), ("other", 1), ("timed-out", 1)]);
        assert_eq!(requests.refused(), 1);
    }
}
