//! What the signs of a source add up to: pure, without a lock and without a clock of its own.
//!
//! Signs are requests that were answered or failed, and what the breaker finds out when it asks the source itself
//! ([`crate::source`]). The breaker goes before everything: while it is open, the source is offline, refused, or (where it
//! asked for fewer requests) degraded. Otherwise a share of failed requests makes it degraded, and requests that take far
//! longer than they used to make it slow. Both have a threshold to enter and a lower one to leave, so that a source at the
//! edge does not flutter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::latency::Latency;
use super::{HealthState, LatencyFacts, Problem, RequestKind};

/// How many outcomes of requests are looked at,
const OUTCOMES_MAX: usize = 50;
/// for how long they count,
const OUTCOMES_FOR: Duration = Duration::from_mins(5);
/// and how many there must be to say anything.
const OUTCOMES_MIN: usize = 20;
/// The share of failures, in percent, from which a source is degraded,
const DEGRADED_FROM: usize = 10;
/// and below which it is not any more.
const DEGRADED_UNTIL: usize = 5;
/// How many times its usual p95 the recent p95 is on a source that is slow,
const SLOW_FROM: u32 = 4;
/// and how many times it is less than on one that is not any more.
const SLOW_UNTIL: u32 = 2;
/// What is faster than this is never called slow.
const SLOW_MIN: Duration = Duration::from_millis(250);
/// How many requests the long record, and the recent one, must hold before they are compared.
const RECORD_MIN: u32 = 50;
const RECENT_MIN: usize = 10;
/// How long a source may leave open whether it is there before it is called slow.
const SILENT_FROM: Duration = Duration::from_secs(1);

/// A moment, by the runtime's clock (for spans) and by the wall's (for people).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Nanoseconds since 1970 UTC.
    pub(crate) ns: i64,
}

/// What was seen of a source.
#[derive(Clone, Debug)]
pub(crate) enum Sign {
    /// It is being connected, perhaps anew; nothing is known of it yet.
    Connecting,
    /// A request was answered.
    Answered(RequestKind, Duration),
    /// A request failed for a reason that speaks against the source.
    Failed(Problem),
    /// It is being asked whether it is there at all.
    Asking,
    /// It is not, or not for us; it is asked again at that time.
    Away(Problem, Option<Moment>),
    /// It is there.
    There,
}

#[derive(Clone, Debug)]
enum Breaker {
    /// Nobody has had an answer since it was connected.
    Untried,
    Closed,
    /// It is being asked whether it is there, since then.
    Asking(Instant),
    Open(Problem),
}

/// All that is remembered of a source.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    state: HealthState,
    since_ns: i64,
    breaker: Breaker,
    next_probe: Option<Moment>,
    outcomes: VecDeque<(Instant, bool)>,
    latencies: [Latency; RequestKind::ALL.len()],
    last_error: Option<(Problem, i64)>,
    /// When the source, or its silence, last said how it is.
    heard: Option<Instant>,
}

impl Record {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            state: HealthState::Connecting,
            since_ns: now.ns,
            breaker: Breaker::Untried,
            next_probe: None,
            outcomes: VecDeque::with_capacity(OUTCOMES_MAX + 1),
            latencies: Default::default(),
            last_error: None,
            heard: None,
        }
    }

    /// Takes a sign. Gives the state before, if it is another now.
    pub(crate) fn take(&mut self, sign: Sign, now: Moment) -> Option<HealthState> {
        if matches!(sign, Sign::Answered(..) | Sign::There | Sign::Away(..)) {
            self.heard = Some(now.at);
        }
        match sign {
            Sign::Connecting => {
                self.breaker = Breaker::Untried;
                self.next_probe = None;
                self.outcomes.clear();
            }
            Sign::Answered(kind, took) => {
                self.outcome(now.at, false);
                self.latencies[kind as usize].add(took, now.at);
                if matches!(self.breaker, Breaker::Untried) {
                    self.breaker = Breaker::Closed;
                }
            }
            Sign::Failed(problem) => {
                self.outcome(now.at, true);
                self.last_error = Some((problem, now.ns));
            }
            Sign::Asking => {
                if matches!(self.breaker, Breaker::Closed) {
                    self.breaker = Breaker::Asking(now.at);
                }
            }
            Sign::Away(problem, next_probe) => {
                self.last_error = Some((problem.clone(), now.ns));
                self.breaker = Breaker::Open(problem);
                self.next_probe = next_probe;
            }
            Sign::There => {
                if matches!(self.breaker, Breaker::Open(_)) {
                    // What failed while it was away does not speak against it now.
                    self.outcomes.clear();
                }
                self.breaker = Breaker::Closed;
                self.next_probe = None;
            }
        }
        self.conclude(now)
    }

    /// Draws the conclusion anew: some change by the passing of time alone. Gives the state before, if it is another now.
    pub(crate) fn conclude(&mut self, now: Moment) -> Option<HealthState> {
        let old = |at: &Instant| now.at.saturating_duration_since(*at) > OUTCOMES_FOR;
        while self.outcomes.front().is_some_and(|(at, _)| old(at)) {
            self.outcomes.pop_front();
        }
        for latency in &mut self.latencies {
            latency.retire_old(now.at);
        }
        let state = match &self.breaker {
            Breaker::Untried => HealthState::Connecting,
            Breaker::Open(problem) if problem.refused => HealthState::Refused,
            Breaker::Open(problem) if problem.asks_for_less => HealthState::Degraded,
            Breaker::Open(_) => HealthState::Offline,
            Breaker::Closed | Breaker::Asking(_) if self.is_degraded() => HealthState::Degraded,
            Breaker::Asking(since) if now.at.saturating_duration_since(*since) >= SILENT_FROM => HealthState::Slow,
            Breaker::Closed | Breaker::Asking(_) if self.slowest().is_some() => HealthState::Slow,
            Breaker::Closed | Breaker::Asking(_) => HealthState::Online,
        };
        if state == self.state {
            return None;
        }
        self.since_ns = now.ns;
        Some(std::mem::replace(&mut self.state, state))
    }

    pub(crate) fn state(&self) -> HealthState {
        self.state
    }

    pub(crate) fn since_ns(&self) -> i64 {
        self.since_ns
    }

    /// Tells whether it has said how it is within that time.
    pub(crate) fn is_fresh(&self, age_max: Duration, now: Instant) -> bool {
        self.heard
            .is_some_and(|heard| now.saturating_duration_since(heard) <= age_max)
    }

    pub(crate) fn next_probe_ns(&self) -> Option<i64> {
        self.next_probe.map(|it| it.ns)
    }

    pub(crate) fn last_error(&self) -> Option<(Problem, i64)> {
        self.last_error.clone()
    }

    /// Says what is wrong, if anything is.
    pub(crate) fn problem(&self, now: Instant) -> Option<Problem> {
        let last = |fallback: &str| {
            let last = self.last_error.as_ref().map(|(problem, _)| problem.clone());
            last.unwrap_or_else(|| Problem::new(fallback, ""))
        };
        match (self.state, &self.breaker) {
            (HealthState::Online | HealthState::Connecting, _) => None,
            (_, Breaker::Open(problem)) => Some(problem.clone()),
            (HealthState::Slow, Breaker::Asking(since)) if now.saturating_duration_since(*since) >= SILENT_FROM => {
                Some(Problem::new(
                    format!(
                        "it has given no answer for {}",
                        show(now.saturating_duration_since(*since))
                    ),
                    "",
                ))
            }
            (HealthState::Slow, _) => {
                let (kind, lately, usual) = self.slowest()?;
                Some(Problem::new(
                    format!(
                        "{} take up to {}, where {} was usual",
                        kind.words(),
                        show(lately),
                        show(usual)
                    ),
                    "",
                ))
            }
            (HealthState::Degraded | HealthState::Offline | HealthState::Refused, _) => {
                let failed = self.outcomes.iter().filter(|(_, failed)| *failed).count();
                let last = last("no reason was given");
                if last.timed_out && failed < self.outcomes.len() {
                    // It answers others, so that it is on, and can be reached.
                    return Some(Problem {
                        message: format!(
                            "{failed} of the last {} requests failed, the last since no answer came in time: it, or the network, is slow",
                            self.outcomes.len()
                        ),
                        hint: "see what else keeps it or the network busy; more time is given by `deadlines.data` and \
                               `deadlines.metadata` in the settings"
                            .to_owned(),
                        ..last
                    });
                }
                Some(Problem {
                    message: format!(
                        "{failed} of the last {} requests failed: {}",
                        self.outcomes.len(),
                        last.message
                    ),
                    ..last
                })
            }
        }
    }

    /// Gives the time within which 95 % of such requests used to be answered, once enough were.
    pub(crate) fn usual_p95(&self, kind: RequestKind) -> Option<Duration> {
        let latency = self.latency(kind);
        (latency.in_record() >= RECORD_MIN).then(|| latency.usual(95))?
    }

    pub(crate) fn latency_facts(&self) -> Vec<(RequestKind, LatencyFacts)> {
        let facts = |latency: &Latency| LatencyFacts {
            p50: latency.lately(50).or_else(|| latency.usual(50)),
            p95: latency.lately(95).or_else(|| latency.usual(95)),
            usual_p95: latency.usual(95),
        };
        let all = RequestKind::ALL.iter().map(|kind| (*kind, facts(self.latency(*kind))));
        all.filter(|(_, facts)| facts.p50.is_some()).collect()
    }

    fn latency(&self, kind: RequestKind) -> &Latency {
        &self.latencies[kind as usize]
    }

    fn outcome(&mut self, at: Instant, failed: bool) {
        self.outcomes.push_back((at, failed));
        if self.outcomes.len() > OUTCOMES_MAX {
            self.outcomes.pop_front();
        }
    }

    fn is_degraded(&self) -> bool {
        let failed = self.outcomes.iter().filter(|(_, failed)| *failed).count();
        let threshold = if self.state == HealthState::Degraded {
            DEGRADED_UNTIL
        } else {
            DEGRADED_FROM
        };
        self.outcomes.len() >= OUTCOMES_MIN && failed * 100 >= self.outcomes.len() * threshold
    }

    /// Gives the kind of requests that are slow, with their recent and their usual p95.
    fn slowest(&self) -> Option<(RequestKind, Duration, Duration)> {
        let factor = if self.state == HealthState::Slow {
            SLOW_UNTIL
        } else {
            SLOW_FROM
        };
        let slow = |kind: &RequestKind| {
            let latency = self.latency(*kind);
            let (lately, usual) = (latency.lately(95)?, latency.usual(95)?);
            let enough = latency.recent() >= RECENT_MIN && latency.in_record() >= RECORD_MIN;
            (enough && lately >= SLOW_MIN && lately >= usual * factor).then_some((*kind, lately, usual))
        };
        RequestKind::ALL
            .iter()
            .filter_map(slow)
            .max_by(|a, b| (a.1.as_secs_f64() / a.2.as_secs_f64()).total_cmp(&(b.1.as_secs_f64() / b.2.as_secs_f64())))
    }
}

/// Shows a span as a person would say it.
fn show(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
