//! How each source is, told from its own requests.
//!
//! [`record`] draws the conclusions and is pure. A [`Monitor`] gives it a lock and a clock, and tells of each change: in the
//! log, and to those who have subscribed. It outlives the source's connection, so that what was learnt is still known when
//! the source is connected anew. Always true: there is one monitor for each source that was named to the indexer, and no
//! other place that says how a source is.

mod latency;
mod problem;
mod record;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_catalog::SourceId;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::Clock;

pub use problem::Problem;
pub(crate) use record::Sign;
use record::{Moment, Record};
pub use requests::RequestFacts;
use requests::{Requests, UnderWay};

/// The most events that a subscriber may be behind; then it is told how many it has missed.
pub(crate) const EVENTS_MAX: usize = 256;

/// How a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// It is being connected, and nobody has had an answer yet.
    Connecting,
    /// It answers.
    Online,
    /// It answers, but takes far longer than it used to.
    Slow,
    /// It answers, but a share of the requests fails, or it asks for fewer of them.
    Degraded,
    /// It does not answer.
    Offline,
    /// It does not take our credentials.
    Refused,
}

impl HealthState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Connecting,
        Self::Online,
        Self::Slow,
        Self::Degraded,
        Self::Offline,
        Self::Refused,
    ];

    /// Gives the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::Slow => "slow",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Refused => "refused",
        }
    }
}

/// What is asked of a source; each kind is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// For the attributes of one object, or whether the source is there.
    Look,
    /// For a directory, up to its first page.
    List,
    /// For bytes: at most 512 KiB.
    ReadShort,
    /// For more bytes than that.
    ReadLong,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Look, Self::List, Self::ReadShort, Self::ReadLong];

    /// Gives the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::List => "list",
            Self::ReadShort => "read-short",
            Self::ReadLong => "read-long",
        }
    }

    pub(crate) fn of_read(bytes: u64) -> Self {
        if bytes <= 512 << 10 {
            Self::ReadShort
        } else {
            Self::ReadLong
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Look => "answers about single files",
            Self::List => "listings",
            Self::ReadShort => "reads",
            Self::ReadLong => "long reads",
        }
    }
}

/// How long requests of one kind take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyFacts {
    /// Half of them are answered within this, of the last 32 in two minutes; of all, where there were none lately.
    pub p50: Option<Duration>,
    /// 95 % of the same.
    pub p95: Option<Duration>,
    /// 95 % of those before are answered within this; `None` while there are too few.
    pub usual_p95: Option<Duration>,
}

/// How a source is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHealth {
    /// How it is.
    pub state: HealthState,
    /// Since when, in nanoseconds since 1970 UTC.
    pub since_ns: i64,
    /// What is wrong; `None` while nothing is.
    pub problem: Option<Problem>,
    /// The last failure that spoke against the source, and when it was, in nanoseconds since 1970 UTC.
    pub last_error: Option<(Problem, i64)>,
    /// Requests that wait for their turn.
    pub queued: u64,
    /// Requests that wait for the source's answer.
    pub in_flight: u64,
    /// When it is asked next whether it is there again, in nanoseconds since 1970 UTC.
    pub next_probe_ns: Option<i64>,
    /// How long it takes, by kind of request; kinds that were never answered are left out.
    pub latency: Vec<(RequestKind, LatencyFacts)>,
    /// Requests that were late, and made a second time.
    pub hedges: u64,
    /// Of those, how many were answered first by the second.
    pub hedges_won: u64,
    /// What became of its requests, by kind; kinds that were never asked for are left out.
    pub requests: Vec<RequestFacts>,
    /// Requests that were not made, because it was known to be away.
    pub turned_away: u64,
}

/// What happens to sources, for those who follow it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A source is in another state.
    Health(HealthChange),
    /// A scan has begun, or goes on where it stood.
    ScanBegan {
        /// The source.
        source: SourceId,
        /// Counts its scans, from 1.
        generation: u64,
    },
    /// A scan has ended.
    ScanEnded {
        /// The source.
        source: SourceId,
        /// How.
        end: crate::ScanEnd,
    },
}

/// A source that is in another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// The source.
    pub source: SourceId,
    /// How it was.
    pub from: HealthState,
    /// How it is.
    pub to: HealthState,
    /// When it changed, in nanoseconds since 1970 UTC.
    pub at_ns: i64,
    /// What is wrong, if anything is.
    pub problem: Option<Problem>,
}

/// Watches one source.
pub(crate) struct Monitor {
    source: SourceId,
    name: String,
    clock: Arc<dyn Clock>,
    events: broadcast::Sender<Event>,
    record: Mutex<Record>,
    queued: AtomicU64,
    in_flight: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    requests: Requests,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Counts something while it lasts.
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Monitor {
    pub(crate) fn new(source: SourceId, name: &str, clock: Arc<dyn Clock>, events: broadcast::Sender<Event>) -> Self {
        let record = Record::new(moment(&*clock));
        Self {
            source,
            name: name.to_owned(),
            clock,
            events,
            record: Mutex::new(record),
            queued: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            hedges_won: AtomicU64::new(0),
            requests: Requests::default(),
        }
    }

    /// Takes a sign of the source.
    pub(crate) fn take(&self, sign: Sign) {
        let now = moment(&*self.clock);
        let mut record = self.record.lock();
        let before = record.take(sign, now);
        self.tell(&record, before, now);
    }

    /// Takes note that the source is away, and is asked again after `pause`, if it is known when.
    pub(crate) fn away(&self, problem: Problem, pause: Option<Duration>) {
        let now = moment(&*self.clock);
        let next = pause.map(|pause| Moment {
            at: now.at + pause,
            ns: now
                .ns
                .saturating_add(i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX)),
        });
        self.take(Sign::Away(problem, next));
    }

    /// Says how the source is.
    pub(crate) fn health(&self) -> SourceHealth {
        let now = moment(&*self.clock);
        let mut record = self.record.lock();
        let before = record.conclude(now);
        self.tell(&record, before, now);
        SourceHealth {
            state: record.state(),
            since_ns: record.since_ns(),
            problem: record.problem(now.at),
            last_error: record.last_error(),
            queued: self.queued.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            next_probe_ns: record.next_probe_ns(),
            latency: record.latency_facts(),
            hedges: self.hedges.load(Ordering::Relaxed),
            hedges_won: self.hedges_won.load(Ordering::Relaxed),
            requests: self.requests.facts(),
            turned_away: self.requests.refused(),
        }
    }

    pub(crate) fn state(&self) -> HealthState {
        self.record.lock().state()
    }

    /// Tells whether the source has said how it is within that time.
    pub(crate) fn is_fresh(&self, age_max: Duration) -> bool {
        self.record.lock().is_fresh(age_max, Instant::now())
    }

    /// Gives the time within which 95 % of such requests used to be answered, once enough were.
    pub(crate) fn usual_p95(&self, kind: RequestKind) -> Option<Duration> {
        self.record.lock().usual_p95(kind)
    }

    /// Counts a request that is made now, and then what becomes of it.
    pub(crate) fn asks(&self, kind: RequestKind) -> UnderWay<'_> {
        self.requests.begin(kind)
    }

    /// Counts a request that is not made, because the source is away.
    pub(crate) fn turned_away(&self) {
        self.requests.refuse();
    }

    /// Counts a second request for what was late.
    pub(crate) fn hedged(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a second request that was answered first.
    pub(crate) fn hedge_won(&self) {
        self.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests wait for the source.
    pub(crate) fn in_flight_now(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request that waits for its turn.
    pub(crate) fn queued(&self) -> Counted<'_> {
        Counted::new(&self.queued)
    }

    /// Counts a request that waits for the source.
    pub(crate) fn in_flight(&self) -> Counted<'_> {
        Counted::new(&self.in_flight)
    }

    /// Tells of a change. The record is locked meanwhile, so that changes are told in their order.
    fn tell(&self, record: &Record, before: Option<HealthState>, now: Moment) {
        let Some(from) = before else { return };
        let (to, problem) = (record.state(), record.problem(now.at));
        let (was, is) = (from.as_str(), to.as_str());
        if let Some(problem) = &problem {
            tracing::warn!(source = self.name, was, is, why = problem.message, "the source changed");
        } else {
            tracing::info!(source = self.name, was, is, "the source changed");
        }
        // Nobody may be listening.
        let _heard_or_not = self.events.send(Event::Health(HealthChange {
            source: self.source,
            from,
            to,
            at_ns: now.ns,
            problem,
        }));
    }
}

fn moment(clock: &dyn Clock) -> Moment {
    Moment {
        at: Instant::now(),
        ns: clock.now_ns(),
    }
}
