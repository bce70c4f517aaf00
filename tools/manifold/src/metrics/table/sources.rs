//! The part of the table that has samples for each source.

use manifold_index::{HealthState, SourceHealth};

use super::{counter, gauge, histogram, seconds, waiting};
use crate::control::status::WatchState;
use crate::metrics::exposition::{Number, Samples};
use crate::metrics::picture::SourcePicture;
use crate::metrics::{Metric, Picture};

const SOURCE: &[&str] = &["source", "uri"];

pub(super) const SOURCES: &[Metric] = &[
    gauge(
        "manifold_source_info",
        &["source", "uri", "attach"],
        "Always 1; where a source is attached.",
        |all, out| {
            for it in &all.sources {
                out.add(&[&it.id, &it.status.uri, &it.status.attach.visible()], 1);
            }
        },
    ),
    gauge(
        "manifold_source_state",
        &["source", "uri", "state"],
        "1 for the state that a source is in, 0 for the others: connecting, online, slow, degraded, offline (its breaker is open), refused (so are the credentials).",
        |all, out| {
            for it in &all.sources {
                let now = it.health.as_ref().map(|health| health.state);
                for state in HealthState::ALL {
                    out.add(&[&it.id, &it.status.uri, state.as_str()], now == Some(state));
                }
            }
        },
    ),
    gauge(
        "manifold_source_entries",
        SOURCE,
        "Entries of a source that are known.",
        |all, out| {
            each(all, out, |it| Some(it.status.entries));
        },
    ),
    gauge(
        "manifold_source_bytes",
        SOURCE,
        "The sum of their sizes.",
        |all, out| {
            each(all, out, |it| Some(it.status.bytes));
        },
    ),
    gauge(
        "manifold_source_cached_bytes",
        SOURCE,
        "Bytes of a source in the disk cache, with what is pinned.",
        |all, out| {
            each(all, out, |it| Some(it.cached_bytes));
        },
    ),
    counter(
        "manifold_source_fetched_bytes_total",
        SOURCE,
        "Bytes of files fetched from a source.",
        |all, out| {
            each(all, out, |it| it.status.fetched.map(|fetched| fetched.bytes));
        },
    ),
    counter(
        "manifold_source_fetched_blocks_total",
        SOURCE,
        "Blocks that they came in.",
        |all, out| {
            each(all, out, |it| it.status.fetched.map(|fetched| fetched.blocks));
        },
    ),
    gauge(
        "manifold_source_fetch_queue_requests",
        &["source", "uri", "purpose"],
        "Fetches that wait for their turn at a source: for a reader, ahead of one, for pins.",
        |all, out| {
            for it in &all.sources {
                waiting(&[&it.id, &it.status.uri], &it.queue, out);
            }
        },
    ),
];

pub(super) const REQUESTS: &[Metric] = &[
    counter(
        "manifold_source_requests_total",
        &["source", "uri", "operation"],
        "Requests to a source: look (one object, or whether the source is there), list (a directory, to its end), read-short (up to 512 KiB), read-long.",
        |all, out| {
            for (it, health) in all.sources.iter().filter_map(with_health) {
                for facts in &health.requests {
                    out.add(&[&it.id, &it.status.uri, facts.kind.as_str()], facts.begun);
                }
            }
        },
    ),
    counter(
        "manifold_source_request_failures_total",
        &["source", "uri", "operation", "kind"],
        "Those that failed, by what went wrong; abandoned: nobody waited for the answer any longer.",
        |all, out| {
            for (it, health) in all.sources.iter().filter_map(with_health) {
                for facts in &health.requests {
                    for (kind, count) in &facts.failed {
                        out.add(&[&it.id, &it.status.uri, facts.kind.as_str(), kind], *count);
                    }
                }
            }
        },
    ),
    histogram(
        "manifold_source_request_duration_seconds",
        &["source", "uri", "operation"],
        "How long they took, failed or not, but not if abandoned.",
        |all, out| {
            for (it, health) in all.sources.iter().filter_map(with_health) {
                for facts in &health.requests {
                    out.add_took(&[&it.id, &it.status.uri, facts.kind.as_str()], &facts.took);
                }
            }
        },
    ),
    counter(
        "manifold_source_requests_turned_away_total",
        SOURCE,
        "Requests not made, because the source was known to be away.",
        |all, out| {
            each(all, out, |it| it.health.as_ref().map(|health| health.turned_away));
        },
    ),
    gauge(
        "manifold_source_requests_queued",
        SOURCE,
        "Requests that wait for their turn at a source.",
        |all, out| {
            each(all, out, |it| it.health.as_ref().map(|health| health.queued));
        },
    ),
    gauge(
        "manifold_source_requests_in_flight",
        SOURCE,
        "Requests that wait for the answer of a source.",
        |all, out| {
            each(all, out, |it| it.health.as_ref().map(|health| health.in_flight));
        },
    ),
    counter(
        "manifold_source_hedges_total",
        SOURCE,
        "Reads that were late, and made a second time.",
        |all, out| {
            each(all, out, |it| it.health.as_ref().map(|health| health.hedges));
        },
    ),
    counter(
        "manifold_source_hedges_won_total",
        SOURCE,
        "Of those, how many were answered first by the second.",
        |all, out| {
            each(all, out, |it| it.health.as_ref().map(|health| health.hedges_won));
        },
    ),
];

pub(super) const CATALOG: &[Metric] = &[
    gauge(
        "manifold_source_scan_running",
        SOURCE,
        "1 while a scan of the source is not done, 0 after it.",
        |all, out| {
            each(all, out, |it| it.scan.map(|scan| u64::from(scan.finished_ns.is_none())));
        },
    ),
    gauge(
        "manifold_source_scan_paused",
        SOURCE,
        "1 while it stands still: the source is away, or the scan waits for mains power or another network.",
        |all, out| {
            each(all, out, |it| {
                it.status.scan.as_ref().map(|scan| u64::from(scan.paused.is_some()))
            });
        },
    ),
    gauge(
        "manifold_source_scan_directories",
        &["source", "uri", "state"],
        "Directories of the last scan: listed, queued, and failed and not listed since.",
        |all, out| {
            for (it, scan) in all.sources.iter().filter_map(|it| Some((it, it.scan?))) {
                for (state, count) in [
                    ("listed", scan.listed),
                    ("queued", scan.queued),
                    ("failed", scan.failed),
                ] {
                    out.add(&[&it.id, &it.status.uri, state], count);
                }
            }
        },
    ),
    gauge(
        "manifold_source_scan_end_time_seconds",
        SOURCE,
        "When it was done, since 1970 UTC; no sample while it runs.",
        |all, out| {
            each(all, out, |it| it.scan?.finished_ns.map(seconds));
        },
    ),
    gauge(
        "manifold_source_watch_state",
        &["source", "uri", "state"],
        "1 for how changes at a source become known, 0 for the others: watched, partly, polled.",
        |all, out| {
            for (it, watch) in all
                .sources
                .iter()
                .filter_map(|it| Some((it, it.status.watch.as_ref()?)))
            {
                for state in WatchState::ALL {
                    out.add(&[&it.id, &it.status.uri, state.as_str()], watch.state == state);
                }
            }
        },
    ),
    gauge(
        "manifold_source_watched_directories",
        SOURCE,
        "Directories that are watched, where each is watched by itself.",
        |all, out| {
            each(all, out, |it| it.status.watch.as_ref()?.directories);
        },
    ),
];

/// Adds a sample for each source that has one.
fn each<N: Into<Number>>(all: &Picture, out: &mut Samples, read: fn(&SourcePicture) -> Option<N>) {
    for it in &all.sources {
        if let Some(value) = read(it) {
            out.add(&[&it.id, &it.status.uri], value);
        }
    }
}

fn with_health(source: &SourcePicture) -> Option<(&SourcePicture, &SourceHealth)> {
    Some((source, source.health.as_ref()?))
}
