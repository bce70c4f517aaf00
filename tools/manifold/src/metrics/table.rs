//! The table of metrics: names, kinds, labels, meanings, and what each one is read from.

mod library;
mod sources;

use manifold_vfs::Waiting;

use self::library::{CACHE, DAEMON, KEPT, KERNEL, READS};
use self::sources::{CATALOG, REQUESTS, SOURCES};
use super::exposition::Samples;
use super::{Kind, Metric, Picture};

type Read = fn(&Picture, &mut Samples);

const NONE: &[&str] = &[];

/// Every metric; those of one group stand together.
pub(super) const GROUPS: &[(&str, &[Metric])] = &[
    ("The daemon", DAEMON),
    ("What the kernel asks", KERNEL),
    ("Reads", READS),
    ("The cache", CACHE),
    ("Pins and copies", KEPT),
    ("Sources", SOURCES),
    ("Requests to sources", REQUESTS),
    ("How the catalog is kept", CATALOG),
];

/// Lists every metric.
pub(super) fn all() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|(_, metrics)| metrics.iter())
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str, read: Read) -> Metric {
    let kind = Kind::Counter;
    Metric {
        name,
        kind,
        labels,
        help,
        read,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str, read: Read) -> Metric {
    let kind = Kind::Gauge;
    Metric {
        name,
        kind,
        labels,
        help,
        read,
    }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str, read: Read) -> Metric {
    let kind = Kind::Histogram;
    Metric {
        name,
        kind,
        labels,
        help,
        read,
    }
}

/// Adds what waits, by what it is for.
fn waiting(labels: &[&str], waiting: &Waiting, out: &mut Samples) {
    let Waiting {
        readers, ahead, pinned, ..
    } = *waiting;
    for (purpose, count) in [("reader", readers), ("ahead", ahead), ("pin", pinned)] {
        out.add(&[labels, &[purpose]].concat(), count);
    }
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_labels_are_what_prometheus_takes_and_say_kind_and_unit() {
        let word = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let mut seen = HashSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands there twice");
            assert!(name.starts_with("manifold_") && word(name), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_duration_seconds"),
                metric.kind == Kind::Histogram,
                "{name}"
            );
            assert!(
                metric.labels.iter().all(|label| word(label) && *label != "le"),
                "{name}"
            );
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['|', '\n']),
                "{name}"
            );
        }
    }
}
