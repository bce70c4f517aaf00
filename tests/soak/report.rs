//! The verdict, in words and as a page for docs/soak.md.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::load::Load;
use crate::sample::Sample;

/// Rows of the table.
const ROWS: usize = 12;
/// What the last third may have above the middle third, which is past the beginning: memory in KiB, descriptors, threads.
/// Connections come and go with the ailments, and blocks with the reads.
const MEMORY_SLACK_KIB: u64 = 24 << 10;
const DESCRIPTOR_SLACK: u64 = 48;
const THREAD_SLACK: u64 = 12;

/// What came of a soak.
pub(crate) struct Report {
    facts: String,
    rows: Vec<Sample>,
    problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(length: &Duration, seed: u64, samples: &[Sample], load: &Load) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (begun, good, refused) = (read(&load.begun), read(&load.good), read(&load.refused));
        let mut problems = load.complaints().clone();
        if samples.last().is_none_or(|last| last.at < *length) {
            problems.push("it was ended before its time".to_owned());
        }
        if begun != good + refused {
            problems.push(format!("{begun} reads were begun, {} were answered", good + refused));
        }
        let third = samples.len() / 3;
        let grown = |of: &dyn Fn(&Sample) -> u64| {
            let (middle, last) = (&samples[third..third * 2], &samples[third * 2..]);
            (median(middle, of), median(last, of))
        };
        let mut constant = |what: &str, slack: u64, of: fn(&Sample) -> u64| {
            let (middle, last) = grown(&of);
            if last > middle + slack {
                problems.push(format!("{what} grew from {middle} to {last}"));
            }
        };
        if samples.len() >= 3 {
            constant("memory in KiB", MEMORY_SLACK_KIB, |it| it.resident_kib);
            constant("the number of descriptors", DESCRIPTOR_SLACK, |it| it.descriptors);
            constant("the number of threads", THREAD_SLACK, |it| it.threads);
            let names: BTreeSet<_> = samples.iter().flat_map(|it| it.threads_by_name.keys()).collect();
            for name in names {
                let (middle, last) = grown(&|it| it.threads_by_name.get(name).copied().unwrap_or(0));
                if last > middle + THREAD_SLACK {
                    problems.push(format!("the threads called {name} grew from {middle} to {last}"));
                }
            }
        }
        Self {
            facts: format!(
                "{} of {} minutes, seed {seed}: {begun} files read, {refused} of them refused because their source was ill, the \
                 longest after {:.1} s; {} walks of the whole tree; {} ailments.",
                samples.last().map_or(0, |last| last.at.as_secs() / 60),
                length.as_secs() / 60,
                read(&load.longest_ms) as f64 / 1000.0,
                read(&load.walks),
                read(&load.ailments),
            ),
            rows: spread(samples.len()).map(|index| samples[index].clone()).collect(),
            problems,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn verdict(&self) -> String {
        if self.is_good() {
            "Memory, descriptors and threads stayed as they were; no request was lost, no entry disappeared, no byte was wrong."
                .to_owned()
        } else {
            self.problems.iter().fold("Not good:".to_owned(), |mut text, problem| {
                write!(text, "\n- {problem}").expect("a string takes all");
                text
            })
        }
    }

    /// Gives the page.
    pub(crate) fn page(&self) -> String {
        format!(
            "# The soak\n\nOne library over every kind of source, each behind a proxy that can fail: six readers and two walkers \
             without a pause, while every\nfour seconds a source falls ill or gets well, in one of the ways of \
             `tests/src/estate/ailment.rs`. The cache is smaller than what is\nread. Run it, as root:\n\n```\ncargo build \
             --release -p manifold\ncargo run --release -p manifold-tests --example soak -- --minutes 60 --write \
             docs/soak.md\n```\n\n## The last result\n\n{self}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.facts)?;
        writeln!(f, "{}\n", self.verdict())?;
        writeln!(
            f,
            "| second | memory, MiB | descriptors | threads | files read | refused |"
        )?;
        writeln!(f, "| --: | --: | --: | --: | --: | --: |")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} |",
                row.at.as_secs(),
                row.resident_kib >> 10,
                row.descriptors,
                row.threads,
                row.reads,
                row.errors
            )?;
        }
        Ok(())
    }
}

/// Gives the places of up to [`ROWS`] samples at even distances, the last sample among them.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let rows = ROWS.min(count);
    (1..=rows).map(move |row| count * row / rows - 1)
}

fn median(samples: &[Sample], of: &dyn Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_spread_evenly_and_the_last_stands_there_once() {
        assert_eq!(spread(0).count(), 0);
        assert_eq!(spread(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for count in 1..5_000 {
            let rows: Vec<_> = spread(count).collect();
            assert_eq!(
                (rows.len(), rows.last()),
                (count.min(ROWS), Some(&(count - 1))),
                "{count}"
            );
            let distances: BTreeSet<_> = rows.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let even = count / rows.len();
            assert!(
                distances.iter().all(|it| *it == even || *it == even + 1),
                "{count}: {rows:?}"
            );
        }
    }
}
