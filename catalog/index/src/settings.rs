//! What the indexer is told: its bounds, its patience, what to leave out, and what time it is.

use std::path::PathBuf;
use std::time::Duration;

/// Tells the time. The library has no clock of its own.
pub trait Clock: Send + Sync {
    /// Gives the nanoseconds since 1970-01-01 UTC.
    fn now_ns(&self) -> i64;
}

impl<F: Fn() -> i64 + Send + Sync> Clock for F {
    fn now_ns(&self) -> i64 {
        self()
    }
}

/// The bounds and the patience of an [`Indexer`](crate::Indexer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSettings {
    /// How many directories of one source are listed at once by the background scan. Never more than half of what
    /// the source likes, so that a directory that a person opens finds its way.
    pub scan_concurrency: usize,
    /// How many directories of one source the background scan lists in a second at most, unless the source has a rate of its
    /// own; 0: as many as it can.
    pub scan_rate: u32,
    /// How long a listing may go without an answer or a further page before it is given up. Those who wait for it may
    /// have less patience.
    pub listing_idle_timeout: Duration,
    /// How long one request for attributes may take.
    pub stat_timeout: Duration,
    /// How often the scan tries a directory that fails before it counts as failed.
    pub scan_attempts: u32,
    /// The pause before the second try of a directory, and before the first probe of a source that went away; doubled
    /// each time, up to `retry_pause_max`, and spread by chance.
    pub retry_pause: Duration,
    /// The longest pause between two tries or probes.
    pub retry_pause_max: Duration,
    /// The longest that the scan holds still for directories that somebody waits for.
    pub yield_max: Duration,
    /// Whether sources are watched, and scanned again, for as long as they are attached: what a daemon does.
    pub keep_fresh: bool,
    /// After how long the whole of a source is scanned again.
    pub scan_every: Duration,
    /// Folders of this machine that no local source may lead into: mount points of Manifold, and the library's state.
    /// Absolute, without links.
    pub skip_paths: Vec<PathBuf>,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self {
            scan_concurrency: 8,
            scan_rate: 0,
            listing_idle_timeout: Duration::from_secs(30),
            stat_timeout: Duration::from_secs(10),
            scan_attempts: 5,
            retry_pause: Duration::from_secs(1),
            retry_pause_max: Duration::from_mins(1),
            yield_max: Duration::from_millis(250),
            keep_fresh: true,
            scan_every: Duration::from_hours(24),
            skip_paths: Vec::new(),
        }
    }
}

/// How one source is to be treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// How many of its directories the background scan lists in a second at most; 0: as many as it can; `None`: as
    /// [`IndexSettings::scan_rate`] says.
    pub scan_rate: Option<u32>,
}

/// What background scans wait for, for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanHold {
    /// This machine runs on its battery; all scans wait.
    pub battery: bool,
    /// This machine's line is paid for by what goes over it; scans of sources that are not on this machine wait.
    pub metered: bool,
}

impl ScanHold {
    /// Says why a scan waits, if it does.
    pub(crate) fn reason(self, is_local: bool) -> Option<&'static str> {
        match self {
            Self { battery: true, .. } => Some("this machine runs on its battery"),
            Self { metered: true, .. } if !is_local => Some("the network is metered"),
            _ => None,
        }
    }
}
