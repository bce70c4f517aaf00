//! How everything is: the answer to `manifold status`, whose JSON form is described in `docs/control.md` and only grows.

use serde::{Deserialize, Serialize};

use super::CacheFacts;
use super::pins::PinCounts;
use super::text::Text;
use super::uploads::UploadCounts;

/// How everything is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The version of this form, 1.
    pub(crate) schema: u32,
    /// Whether anything needs attention.
    pub(crate) verdict: Verdict,
    /// The same in words.
    pub(crate) summary: String,
    /// What is wrong on this machine, whatever the sources do.
    #[serde(default)]
    pub(crate) troubles: Vec<Trouble>,
    /// Which library.
    pub(crate) library: LibraryFacts,
    /// The daemon; `None` where none runs.
    pub(crate) daemon: Option<DaemonFacts>,
    /// The mount; `None` where it is not mounted.
    pub(crate) mount: Option<MountFacts>,
    /// In the order in which they were added.
    pub(crate) sources: Vec<SourceStatus>,
    /// Sources that are shown as one.
    #[serde(default)]
    pub(crate) unions: Vec<UnionStatus>,
    /// What is cached; `None` where no daemon runs.
    pub(crate) cache: Option<CacheFacts>,
    /// What is pinned; `None` where nothing is, or no daemon runs.
    #[serde(default)]
    pub(crate) pins: Option<PinCounts>,
    /// What is still to be uploaded.
    pub(crate) uploads: UploadCounts,
    /// What is known of the bytes of files.
    #[serde(default)]
    pub(crate) copies: CopyFacts,
}

/// Sources that are shown as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnionStatus {
    /// Where.
    pub(crate) at: Text,
    /// Where its members are attached, in their order.
    pub(crate) members: Vec<Text>,
    /// Why nothing is shown as one there.
    pub(crate) problem: Option<String>,
}

/// What is known of the bytes of files, and how often that has helped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyFacts {
    /// Files whose content is known.
    pub(crate) hashed: u64,
    /// Requests since the daemon started that were answered from another copy than the file that was read.
    pub(crate) reads: u64,
    /// Requests since then that failed or were late at one copy, and were answered by another.
    pub(crate) switches: u64,
}

/// Whether anything needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// All is well.
    Ok,
    /// Mounted, but something needs attention.
    Attention,
    /// Not mounted.
    NotMounted,
}

/// What is wrong on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// With what.
    pub(crate) with: TroubleWith,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// What something is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TroubleWith {
    /// The catalog, or the disk that it lies on.
    Catalog,
    /// The disk cache, or its disk.
    Cache,
    /// The guard of the mount.
    Guard,
}

/// Which library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LibraryFacts {
    /// Its name.
    pub(crate) name: String,
    /// Its state folder.
    pub(crate) state: Text,
    /// Its settings.
    pub(crate) settings: Text,
}

/// The daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DaemonFacts {
    /// Its process id.
    pub(crate) pid: u32,
    /// Its version.
    pub(crate) version: String,
    /// Since when it runs, RFC 3339.
    pub(crate) started: String,
}

/// The mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountFacts {
    /// Where.
    pub(crate) point: Text,
    /// Whether the kernel reads local files and wholly cached ones by itself.
    pub(crate) passthrough: bool,
    /// Why it does not.
    pub(crate) passthrough_why_not: Option<String>,
}

/// A source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SourceStatus {
    /// Its id within the library.
    pub(crate) id: u32,
    /// Its name: a URI without secrets.
    pub(crate) uri: String,
    /// Where it is attached.
    pub(crate) attach: Text,
    /// How it is.
    pub(crate) state: SourceState,
    /// What is wrong.
    pub(crate) problem: Option<Problem>,
    /// What its requests tell of it; `None` where no daemon runs.
    #[serde(default)]
    pub(crate) health: Option<HealthFacts>,
    /// Its scan.
    pub(crate) scan: Option<ScanFacts>,
    /// How changes at the source become known; `None` where no daemon runs.
    pub(crate) watch: Option<WatchStatus>,
    /// Entries that are known.
    pub(crate) entries: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// What was fetched from it since the daemon started; `None` where no daemon runs.
    pub(crate) fetched: Option<FetchedFacts>,
}

/// How changes at a source become known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchStatus {
    /// Whether the source tells of changes by itself.
    pub(crate) state: WatchState,
    /// Directories that are watched, where each is watched by itself.
    pub(crate) directories: Option<u64>,
    /// Why not all of it is watched, and what can be done.
    pub(crate) note: Option<String>,
}

/// Whether a source tells of changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WatchState {
    /// It does.
    Watched,
    /// For a part of its directories; the rest is looked at now and then.
    Partly,
    /// It does not: what is in use is looked at now and then.
    Polled,
}

impl WatchState {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Watched, Self::Partly, Self::Polled];

    /// Gives the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::Partly => "partly",
            Self::Polled => "polled",
        }
    }
}

/// What was fetched from a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchedFacts {
    /// Requests for bytes of files that were answered.
    pub(crate) requests: u64,
    /// Bytes that they brought.
    pub(crate) bytes: u64,
    /// Blocks that they brought.
    pub(crate) blocks: u64,
}

/// How a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SourceState {
    /// It answers.
    Ok,
    /// It answers, and is being scanned.
    Scanning,
    /// It is being connected.
    Connecting,
    /// It answers, but takes far longer than it used to.
    Slow,
    /// It answers, but a share of the requests fails, or it asks for fewer of them.
    Degraded,
    /// It does not answer; its tree is as last known.
    Offline,
    /// It does not take our credentials; its tree is as last known.
    Refused,
    /// No daemon runs, so nobody asked.
    Unknown,
}

impl SourceState {
    /// Tells whether the source cannot be used at all.
    pub(crate) fn is_away(self) -> bool {
        matches!(self, Self::Offline | Self::Refused)
    }

    /// Gives the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Scanning => "scanning",
            Self::Connecting => "connecting",
            Self::Slow => "slow",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
    /// Since when, RFC 3339.
    pub(crate) since: String,
}

/// What a source's own requests tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthFacts {
    /// `connecting`, `online`, `slow`, `degraded`, `offline` or `refused`, whether it is being scanned or not.
    pub(crate) state: String,
    /// Since when, RFC 3339.
    pub(crate) since: String,
    /// The last failure that spoke against it, and when that was; it may be well again.
    pub(crate) last_error: Option<Problem>,
    /// Requests that wait for their turn.
    pub(crate) queued: u64,
    /// Requests that wait for its answer.
    pub(crate) in_flight: u64,
    /// When it is asked next whether it is there again, RFC 3339.
    pub(crate) next_probe: Option<String>,
    /// How long it takes to answer, by kind of request.
    pub(crate) latency: Vec<LatencyFacts>,
    /// Reads that were late and made a second time.
    pub(crate) hedges: u64,
    /// Of those, how many were answered first by the second.
    pub(crate) hedges_won: u64,
}

/// How long requests of one kind take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LatencyFacts {
    /// `look`, `list`, `read-short` or `read-long`.
    pub(crate) request: String,
    /// Half of the last ones were answered within this.
    pub(crate) p50_us: Option<u64>,
    /// 95 % of them were.
    pub(crate) p95_us: Option<u64>,
    /// 95 % of those before them were.
    pub(crate) usual_p95_us: Option<u64>,
}

/// How far the last scan of a source has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScanFacts {
    /// When it began, RFC 3339.
    pub(crate) started: String,
    /// When it ended, RFC 3339; `None` while it goes on.
    pub(crate) finished: Option<String>,
    /// Directories listed.
    pub(crate) listed: u64,
    /// Directories known and still to be listed.
    pub(crate) queued: u64,
    /// Directories whose listing failed, and which were not listed since.
    pub(crate) failed: u64,
    /// Why it stands still, while it does.
    #[serde(default)]
    pub(crate) paused: Option<String>,
}

impl ScanFacts {
    /// Gives the share of the known directories that is done. It can fall while more are being found.
    pub(crate) fn percent(&self) -> u64 {
        let known = self.listed + self.queued + self.failed;
        ((self.listed + self.failed) * 100).checked_div(known).unwrap_or(0)
    }
}
