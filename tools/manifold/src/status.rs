//! Gathers how everything is, and draws the verdict.

use std::time::Duration;

use manifold_backends::Coverage;
use manifold_catalog::SourceRecord;
use manifold_index::{HealthState, SourceHealth};

use crate::control::status::{
    CopyFacts, DaemonFacts, FetchedFacts, HealthFacts, LatencyFacts, LibraryFacts, MountFacts, Problem, ScanFacts,
    SourceState, SourceStatus, Status, Trouble, UnionStatus, Verdict, WatchState, WatchStatus,
};
use crate::control::text::Text;
use crate::control::uploads::UploadCounts;
use crate::failure::Result;
use crate::open::OpenLibrary;
use crate::print::count;
use crate::time::rfc3339;

/// The version of the JSON form.
const SCHEMA: u32 = 1;

impl OpenLibrary {
    /// Says how everything is.
    pub(crate) fn status(
        &self,
        daemon: Option<DaemonFacts>,
        mount: Option<MountFacts>,
        of_mount: Option<Trouble>,
    ) -> Result<Status> {
        let sources = self.source_statuses()?;
        let uploads = self.upload_counts()?;
        let mut troubles = self.machine_troubles();
        troubles.extend(of_mount);
        let (verdict, summary) = judge(&troubles, &sources, &uploads, mount.as_ref());
        let path = |path: &std::path::Path| Text::new(path.as_os_str().as_encoded_bytes());
        Ok(Status {
            schema: SCHEMA,
            verdict,
            summary,
            troubles,
            library: LibraryFacts {
                name: self.library.name().to_owned(),
                state: path(self.library.state()),
                settings: path(&self.library.settings_file()),
            },
            daemon,
            mount,
            unions: self.union_statuses(&sources),
            sources,
            cache: if self.with_cache {
                Some(self.cache_facts()?)
            } else {
                None
            },
            pins: self.pin_counts(),
            uploads,
            copies: self.copies()?,
        })
    }

    /// Says how one source is, as far as is known without asking it.
    pub(crate) fn source_status(&self, record: &SourceRecord) -> Result<SourceStatus> {
        let scan = self.catalog.scan_state(record.id)?;
        let totals = self.catalog.totals()?;
        let totals = totals
            .sources
            .into_iter()
            .find(|(id, _)| *id == record.id)
            .map(|(_, totals)| totals);
        let scanning = scan.is_some_and(|scan| scan.finished_ns.is_none());
        let health = self.indexer.health(record.id).filter(|_| self.keeps_connections());
        let state = match health.as_ref().map(|it| it.state) {
            None => SourceState::Unknown,
            Some(HealthState::Connecting) => SourceState::Connecting,
            Some(HealthState::Online) if scanning => SourceState::Scanning,
            Some(HealthState::Online) => SourceState::Ok,
            Some(HealthState::Slow) => SourceState::Slow,
            Some(HealthState::Degraded) => SourceState::Degraded,
            Some(HealthState::Offline) => SourceState::Offline,
            Some(HealthState::Refused) => SourceState::Refused,
        };
        let since_ns = health.as_ref().map_or(0, |it| it.since_ns);
        let problem = health.as_ref().and_then(|it| it.problem.as_ref());
        let problem = problem.map(|problem| said(problem, since_ns));
        Ok(SourceStatus {
            id: record.id.0,
            uri: record.name.clone(),
            attach: Text::new(record.attach.clone()),
            state,
            problem,
            health: health.as_ref().map(health_facts),
            scan: scan.map(|scan| ScanFacts {
                started: rfc3339(scan.started_ns),
                finished: scan.finished_ns.map(rfc3339),
                listed: scan.listed,
                queued: scan.queued,
                failed: scan.failed,
                paused: self.indexer.scan_paused(record.id),
            }),
            watch: self.watch_status(record, scan.map_or(0, |scan| scan.listed + scan.queued)),
            entries: totals.map_or(0, |totals| totals.entries),
            bytes: totals.map_or(0, |totals| totals.bytes),
            fetched: self.keeps_connections().then(|| self.fetched(record)),
        })
    }

    /// Says which sources are shown as one.
    fn union_statuses(&self, sources: &[SourceStatus]) -> Vec<UnionStatus> {
        let reports = self.vfs.unions();
        let wanted = self.settings.unions.iter().map(|union| union.at.as_bytes());
        let statuses = wanted.map(|at| {
            let report = reports.iter().find(|report| report.at == at);
            let attach = |id| {
                sources
                    .iter()
                    .find(|source| source.id == id)
                    .map(|source| source.attach.clone())
            };
            let members = report.map(|report| report.members.iter().filter_map(|id| attach(id.0)).collect());
            let problem = match &members {
                None if sources.iter().any(|source| source.attach.0 == at) => {
                    Some("a source is attached there itself: attach it beneath, as a member".to_owned())
                }
                None => Some("no source is attached beneath".to_owned()),
                Some(_) => None,
            };
            UnionStatus {
                at: Text::new(at),
                members: members.unwrap_or_default(),
                problem,
            }
        });
        statuses.collect()
    }

    fn copies(&self) -> Result<CopyFacts> {
        let counters = self.vfs.counters();
        Ok(CopyFacts {
            hashed: self.catalog.hashed()?,
            reads: counters.replica_reads,
            switches: counters.replica_switches,
        })
    }

    /// Says how changes become known. `directories` are those of the source, as far as its scan has come.
    fn watch_status(&self, record: &SourceRecord, directories: u64) -> Option<WatchStatus> {
        self.keeps_connections()
            .then(|| watch_status(self.indexer.coverage(record.id), directories))
    }

    fn fetched(&self, record: &SourceRecord) -> FetchedFacts {
        let counters = self.vfs.counters();
        let counted = counters.sources.get(&record.id.0).copied().unwrap_or_default();
        FetchedFacts {
            requests: counted.requests,
            bytes: counted.bytes,
            blocks: counted.blocks,
        }
    }
}

/// Puts what is wrong into the form of the status.
pub(crate) fn said(problem: &manifold_index::Problem, since_ns: i64) -> Problem {
    Problem {
        message: problem.message.clone(),
        hint: problem.hint.clone(),
        since: rfc3339(since_ns),
    }
}

fn health_facts(health: &SourceHealth) -> HealthFacts {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let latency = health.latency.iter().map(|(kind, facts)| LatencyFacts {
        request: kind.as_str().to_owned(),
        p50_us: facts.p50.map(us),
        p95_us: facts.p95.map(us),
        usual_p95_us: facts.usual_p95.map(us),
    });
    HealthFacts {
        state: health.state.as_str().to_owned(),
        since: rfc3339(health.since_ns),
        last_error: health.last_error.as_ref().map(|(problem, at_ns)| said(problem, *at_ns)),
        queued: health.queued,
        in_flight: health.in_flight,
        next_probe: health.next_probe_ns.map(rfc3339),
        latency: latency.collect(),
        hedges: health.hedges,
        hedges_won: health.hedges_won,
    }
}

fn watch_status(coverage: Option<Coverage>, directories: u64) -> WatchStatus {
    let polled = |note: Option<&str>| WatchStatus {
        state: WatchState::Polled,
        directories: None,
        note: note.map(str::to_owned),
    };
    match coverage {
        None | Some(Coverage::Whole { standing: false }) => polled(None),
        Some(Coverage::OwnChangesOnly) => polled(Some(
            "the folder is on a network file system, where others change files without this machine being told",
        )),
        Some(Coverage::Whole { standing: true }) => WatchStatus {
            state: WatchState::Watched,
            directories: None,
            note: None,
        },
        Some(Coverage::Directories { watched, short_of }) => WatchStatus {
            state: if short_of.is_some() {
                WatchState::Partly
            } else {
                WatchState::Watched
            },
            directories: Some(watched),
            note: short_of.map(|allowed| {
                // Room for what is there, for as much again, and for other programs.
                let wanted = directories.max(allowed).saturating_mul(2).next_multiple_of(65_536);
                format!(
                    "not every folder can be watched: the system allows {allowed} watches; raise that with: \
                     sysctl fs.inotify.max_user_watches={wanted}"
                )
            }),
        },
    }
}

/// Draws the verdict, and puts it into one line.
fn judge(
    troubles: &[Trouble],
    sources: &[SourceStatus],
    uploads: &UploadCounts,
    mount: Option<&MountFacts>,
) -> (Verdict, String) {
    let Some(mount) = mount else {
        return (
            Verdict::NotMounted,
            format!("not mounted; {}", count(sources.len() as u64, "source")),
        );
    };
    let point = mount.point.visible();
    // The worst is said first.
    if let Some(Trouble { message, hint, .. }) = troubles.first() {
        return (Verdict::Attention, format!("mounted at {point}, but {message}; {hint}"));
    }
    for (state, one, many) in [
        (
            SourceState::Refused,
            "did not take the credentials; what is known of it is shown",
            "did not take the credentials; what is known of them is shown",
        ),
        (
            SourceState::Offline,
            "cannot be reached; what is known of it is shown",
            "cannot be reached; what is known of them is shown",
        ),
        (
            SourceState::Degraded,
            "failed some requests lately",
            "failed some requests lately",
        ),
        (
            SourceState::Slow,
            "took far longer than usual lately",
            "took far longer than usual lately",
        ),
        (
            SourceState::Connecting,
            "has not answered yet; what is known of it is shown, and `manifold source test` tells more",
            "have not answered yet; what is known of them is shown, and `manifold source test` tells more",
        ),
    ] {
        let mut alike = sources.iter().filter(|it| it.state == state);
        if let Some(first) = alike.next() {
            let (others, what) = match alike.count() {
                0 => (String::new(), one),
                others => (format!(" and {others} more"), many),
            };
            let attach = first.attach.visible();
            return (
                Verdict::Attention,
                format!("mounted at {point}, but {attach}{others} {what}"),
            );
        }
    }
    if uploads.refused > 0 {
        let refused = count(uploads.refused, "upload");
        return (
            Verdict::Attention,
            format!("mounted at {point}, but {refused} refused; `manifold uploads` tells why"),
        );
    }
    if uploads.moves_refused > 0 {
        let refused = count(uploads.moves_refused, "renamed directory");
        return (
            Verdict::Attention,
            format!("mounted at {point}, but the objects of {refused} cannot follow; `manifold uploads` tells why"),
        );
    }
    if uploads.originals_refused > 0 {
        let refused = count(uploads.originals_refused, "moved file");
        return (
            Verdict::Attention,
            format!(
                "mounted at {point}, but the original of {refused} cannot be taken away; `manifold uploads` tells why"
            ),
        );
    }
    let failed: u64 = sources
        .iter()
        .filter_map(|it| it.scan.as_ref())
        .map(|scan| scan.failed)
        .sum();
    if failed > 0 {
        return (
            Verdict::Attention,
            format!(
                "mounted at {point}, but {} could not be listed",
                count(failed, "directory")
            ),
        );
    }
    let scanning = sources.iter().filter(|it| it.state == SourceState::Scanning).count();
    let and = if scanning > 0 {
        format!(", {scanning} being scanned")
    } else {
        String::new()
    };
    (
        Verdict::Ok,
        format!(
            "all is well: mounted at {point}, {}{and}",
            count(sources.len() as u64, "source")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::TroubleWith;

    fn source(attach: &str, state: SourceState, failed: u64) -> SourceStatus {
        SourceStatus {
            id: 1,
            uri: "smb://nas/x".into(),
            attach: Text::new(attach),
            state,
            problem: None,
            health: None,
            scan: Some(ScanFacts {
                started: rfc3339(0),
                finished: None,
                listed: 1,
                queued: 2,
                failed,
                paused: None,
            }),
            watch: None,
            entries: 0,
            bytes: 0,
            fetched: None,
        }
    }

    #[test]
    fn a_lack_of_watches_is_told_with_what_to_raise() {
        let short = |directories| {
            let coverage = Coverage::Directories {
                watched: 7000,
                short_of: Some(8192),
            };
            watch_status(Some(coverage), directories)
        };
        let status = short(300_000);
        assert_eq!((status.state, status.directories), (WatchState::Partly, Some(7000)));
        let note = status.note.expect("a note");
        assert!(
            note.contains("allows 8192") && note.ends_with("fs.inotify.max_user_watches=655360"),
            "{note}"
        );
        assert!(short(0).note.expect("a note").ends_with("=65536"));
        assert_eq!(watch_status(None, 5).state, WatchState::Polled);
        assert_eq!(
            watch_status(Some(Coverage::Whole { standing: true }), 5).state,
            WatchState::Watched
        );
    }

    #[test]
    fn the_verdict_names_what_needs_attention_first() {
        let mount = MountFacts {
            point: Text::new("/m"),
            passthrough: true,
            passthrough_why_not: None,
        };
        let none = UploadCounts::default();
        let well = source("/a", SourceState::Ok, 0);
        let scanning = source("/b", SourceState::Scanning, 0);
        let away = source("/c", SourceState::Offline, 3);
        let (verdict, words) = judge(&[], &[well.clone(), scanning.clone()], &none, Some(&mount));
        assert_eq!(
            (verdict, words.as_str()),
            (Verdict::Ok, "all is well: mounted at /m, 2 sources, 1 being scanned")
        );
        let (verdict, words) = judge(&[], &[well.clone(), away.clone(), away], &none, Some(&mount));
        assert_eq!(verdict, Verdict::Attention);
        assert!(
            words.ends_with("but /c and 1 more cannot be reached; what is known of them is shown"),
            "{words}"
        );
        let slow = source("/d", SourceState::Slow, 0);
        let refused = source("/e", SourceState::Refused, 0);
        let (verdict, words) = judge(&[], &[well.clone(), slow, refused], &none, Some(&mount));
        assert_eq!(verdict, Verdict::Attention);
        assert!(words.contains("but /e did not take the credentials"), "{words}");
        let (verdict, words) = judge(&[], &[source("/a", SourceState::Ok, 1)], &none, Some(&mount));
        assert_eq!(
            (verdict, words.as_str()),
            (Verdict::Attention, "mounted at /m, but 1 directory could not be listed")
        );
        let connecting = source("/f", SourceState::Connecting, 0);
        let (verdict, words) = judge(
            &[],
            &[connecting.clone(), well.clone(), connecting],
            &none,
            Some(&mount),
        );
        assert_eq!(verdict, Verdict::Attention);
        assert!(
            words.contains("but /f and 1 more have not answered yet; what is known of them is shown, and "),
            "{words}"
        );
        let full = Trouble {
            with: TroubleWith::Catalog,
            message: "the disk of /var is full".to_owned(),
            hint: "make room on it".to_owned(),
        };
        let (verdict, words) = judge(&[full], &[well], &none, Some(&mount));
        assert_eq!(
            (verdict, words.as_str()),
            (
                Verdict::Attention,
                "mounted at /m, but the disk of /var is full; make room on it"
            )
        );
        let uploads = UploadCounts {
            refused: 2,
            ..UploadCounts::default()
        };
        let (verdict, words) = judge(&[], std::slice::from_ref(&scanning), &uploads, Some(&mount));
        assert_eq!(verdict, Verdict::Attention);
        assert!(words.contains("but 2 uploads refused"), "{words}");
        let moves = UploadCounts {
            moves_refused: 1,
            ..UploadCounts::default()
        };
        let (verdict, words) = judge(&[], std::slice::from_ref(&scanning), &moves, Some(&mount));
        assert_eq!(verdict, Verdict::Attention);
        assert!(words.contains("of 1 renamed directory cannot follow"), "{words}");
        let originals = UploadCounts {
            originals_refused: 1,
            ..UploadCounts::default()
        };
        let (verdict, words) = judge(&[], std::slice::from_ref(&scanning), &originals, Some(&mount));
        assert_eq!(verdict, Verdict::Attention);
        assert!(
            words.contains("original of 1 moved file cannot be taken away"),
            "{words}"
        );
        let (verdict, words) = judge(&[], &[scanning], &none, None);
        assert_eq!(
            (verdict, words.as_str()),
            (Verdict::NotMounted, "not mounted; 1 source")
        );
    }
}
