//! What the daemon occupies at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_tests::estate::Estate;

use crate::load::Load;

/// One look at the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// How many threads there are of each name, numbers at its end left out.
    pub(crate) threads_by_name: BTreeMap<String, u64>,
    pub(crate) reads: u64,
    pub(crate) errors: u64,
}

/// Takes a sample.
pub(crate) fn take(estate: &Estate, at: Duration, load: &Load) -> Sample {
    let pid = estate.library.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|it| it.parse().ok()).expect("the kernel tells")
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the daemon runs")
        .count() as u64;
    Sample {
        at,
        resident_kib: field("VmRSS:"),
        descriptors,
        threads: field("Threads:"),
        threads_by_name: threads_by_name(pid),
        reads: load.begun.load(Ordering::Relaxed),
        errors: load.refused.load(Ordering::Relaxed),
    }
}

fn threads_by_name(pid: u32) -> BTreeMap<String, u64> {
    let mut names = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    for task in tasks.flatten() {
        // A thread may end meanwhile.
        if let Ok(name) = fs::read_to_string(task.path().join("comm")) {
            let name = name
                .trim_end()
                .trim_end_matches(|it: char| it.is_ascii_digit() || it == '-');
            *names.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    names
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5} s: {} MiB, {} descriptors, {} threads {:?}, {} reads, {} of them refused",
            self.at.as_secs(),
            self.resident_kib >> 10,
            self.descriptors,
            self.threads,
            self.threads_by_name,
            self.reads,
            self.errors
        )
    }
}
