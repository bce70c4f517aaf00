//! The breaker: whether a source can be asked at all.
//!
//! A failure that speaks of the whole source makes it *suspect*, and one probe finds out. If that fails too, it is *away*:
//! the scan pauses, listings fail at once but for one try each `retry_pause`, and the probe is repeated, ever more
//! seldom, until it or a listing succeeds. One directory that fails on a source that is well makes nothing else wait.
//!
//! A source that asked to be left alone for a while is left alone for that long, within [`RETRY_AFTER_MAX`]; those who
//! have the time wait for it. One that refused our credentials is asked seldom, since some services lock an account that
//! tries too often.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::ErrorKind;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{PROBE_PATIENCE, Source};
use crate::IndexError;
use crate::health::{Problem, RequestKind, Sign};

/// The longest that a source is left alone because it asked for that.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// The attempt from which pauses are the longest.
const SELDOM: u32 = 16;

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Well,
    Suspect,
    Away {
        cause: Arc<IndexError>,
        /// When one request is let through.
        next_try: Instant,
        /// Until when the source has asked to be left alone.
        left_alone: Option<Instant>,
    },
}

/// How often a source has turned out to be well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Returns {
    /// After it was away.
    pub(crate) from_away: u64,
    /// After something had failed.
    pub(crate) from_doubt: u64,
}

impl Source {
    /// Follows how often the source has turned out to be well.
    pub(crate) fn returns(&self) -> watch::Receiver<Returns> {
        self.returns.subscribe()
    }

    /// Takes note that a directory is known not to have been listed because of the source. Where that has turned out to be well
    /// before this was known, it counts as turning out to be well once more.
    pub(crate) fn failure_was_noted(&self) {
        self.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Well) {
                self.returns.send_modify(|returns| returns.from_doubt += 1);
            }
            false
        });
    }

    /// Gives the failure that showed the source to be away, while it is.
    pub(crate) fn away(&self) -> Option<Arc<IndexError>> {
        match &*self.phase.borrow() {
            Phase::Well | Phase::Suspect => None,
            Phase::Away { cause, .. } => Some(Arc::clone(cause)),
        }
    }

    /// Says that the source cannot be reached, if it has shown that: it is not only silent. For those whose own request has not come
    /// that far.
    pub(crate) fn out_of_reach(&self) -> Option<IndexError> {
        let cause = self
            .away()
            .filter(|cause| cause.kind() == Some(ErrorKind::Unreachable))?;
        Some(IndexError::Away {
            source_name: self.backend.name().to_owned(),
            cause,
        })
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Suspect)
    }

    /// Waits until the source is not away.
    pub(crate) async fn until_well(&self) {
        self.until(|phase| !matches!(phase, Phase::Away { .. })).await;
    }

    /// Waits until it is known whether a failure spoke of the whole source. Gives true if the source is away.
    pub(crate) async fn verdict_is_away(&self) -> bool {
        self.until(|phase| !matches!(phase, Phase::Suspect)).await;
        self.away().is_some()
    }

    async fn until(&self, holds: impl FnMut(&Phase) -> bool) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`, so the wait ends only with the condition.
        let _holds = phase.wait_for(holds).await;
    }

    /// Takes note that the source has answered.
    pub(crate) fn answered(&self) {
        self.phase.send_if_modified(|phase| {
            let before = std::mem::replace(phase, Phase::Well);
            if matches!(before, Phase::Well) {
                return false;
            }
            // Told while the phase is held, as everywhere here, so that the monitor hears of it in the same order.
            self.tell(Sign::There);
            self.returns.send_modify(|returns| match before {
                Phase::Away { .. } => returns.from_away += 1,
                Phase::Suspect | Phase::Well => returns.from_doubt += 1,
            });
            true
        });
    }

    /// Takes note of a failure: if it speaks of the whole source, one task finds out, and waits for it to come back.
    pub(crate) fn failed(self: &Arc<Self>, error: &IndexError, runtime: &tokio::runtime::Handle) {
        if error.speaks_against_source() {
            self.tell(Sign::Failed(Problem::of(error)));
        }
        if error.is_about_source() {
            self.suspect(runtime);
        }
    }

    /// Asks the source whether it is there, and waits for its answer. One that is away is asked now, unless it has asked to
    /// be left alone.
    pub(crate) async fn probe(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        let mut verdicts = self.verdicts.subscribe();
        if self.away().is_some() {
            self.probe_now.notify_one();
        } else {
            self.suspect(runtime);
        }
        tokio::select! {
            // The sender lives as long as `self`.
            _one_more = verdicts.changed() => {}
            () = self.until(|phase| matches!(phase, Phase::Well)) => {}
        }
    }

    fn suspect(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        let first_sign = self.phase.send_if_modified(|phase| {
            let was_well = matches!(phase, Phase::Well);
            if was_well {
                *phase = Phase::Suspect;
                self.tell(Sign::Asking);
            }
            was_well
        });
        if !first_sign {
            return;
        }
        let source = Arc::clone(self);
        runtime.spawn(async move {
            let cancel = source.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => source.answered(), // Lets go whoever waits for the verdict.
                () = source.probe_until_well() => {}
            }
        });
    }

    /// Waits while the source has asked to be left alone, if that is over within `patience`.
    pub(super) async fn leave_alone(&self, patience: Duration) {
        let until = match &*self.phase.borrow() {
            Phase::Away {
                left_alone: Some(until),
                ..
            } => *until,
            _ => return,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left < patience {
            // Whether it is well by then is for the caller to see.
            let _well_or_late = timeout(patience.min(left + PROBE_PATIENCE), self.until_well()).await;
        }
    }

    /// Refuses while the source is away, but for one try, after which the next is `pause` away.
    pub(super) fn admit(&self, pause: Duration) -> Result<(), IndexError> {
        let mut refused = None;
        self.phase.send_if_modified(|phase| {
            if let Phase::Away {
                cause,
                next_try,
                left_alone,
            } = phase
            {
                if left_alone.is_some() || Instant::now() < *next_try {
                    refused = Some(Arc::clone(cause));
                } else {
                    *next_try = Instant::now() + pause;
                }
            }
            false
        });
        refused.map_or(Ok(()), |cause| Err(self.refusal(cause)))
    }

    pub(super) fn refusal(&self, cause: Arc<IndexError>) -> IndexError {
        self.monitor.turned_away();
        IndexError::Away {
            source_name: self.backend.name().to_owned(),
            cause,
        }
    }

    async fn probe_until_well(&self) {
        let mut attempt = 0;
        loop {
            let (since, under_way) = (Instant::now(), self.monitor.asks(RequestKind::Look));
            let checked = match timeout(self.check_timeout, self.backend.check()).await {
                Ok(checked) => checked.map_err(IndexError::from),
                Err(_) => Err(IndexError::TimedOut {
                    source_name: self.backend.name().to_owned(),
                    path: "/".to_owned(),
                    after: self.check_timeout,
                }),
            };
            under_way.end(&checked);
            let cause = match checked {
                Ok(()) => {
                    self.answered_in(RequestKind::Look, since);
                    self.answered();
                    return self.note_verdict();
                }
                Err(cause) => cause,
            };
            let refused = cause.kind() == Some(ErrorKind::CredentialsRefused);
            if refused {
                attempt = attempt.max(SELDOM);
            }
            let left_alone = cause.retry_after().map(|after| after.min(RETRY_AFTER_MAX));
            let pause = left_alone.unwrap_or_else(|| self.pause(attempt, u64::from(self.id.0)));
            let still_failing = self.break_off(cause, pause, left_alone);
            self.note_verdict();
            if !still_failing {
                return;
            }
            let sooner = async {
                sleep(self.retry_pause).await;
                self.probe_sooner.notified().await;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = sooner, if !refused && left_alone.is_none() => {}
                () = self.probe_now.notified(), if left_alone.is_none() => {}
                () = self.until_well() => return,
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Takes the source for away, unless somebody has got through meanwhile.
    fn break_off(&self, cause: IndexError, pause: Duration, left_alone: Option<Duration>) -> bool {
        let (problem, cause) = (Problem::of(&cause), Arc::new(cause));
        let now = Instant::now();
        self.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Well) {
                return false;
            }
            *phase = Phase::Away {
                cause,
                next_try: now + self.retry_pause,
                left_alone: left_alone.map(|pause| now + pause),
            };
            if !self.cancel.is_cancelled() {
                self.monitor.away(problem, Some(pause));
            }
            true
        })
    }

    fn note_verdict(&self) {
        self.verdicts.send_modify(|count| *count += 1);
    }
}
