//! What the daemon has done for the looks at the tree, by its own counts and the kernel's: whether any of them has waited.
//!
//! None of it depends on how fast the machine is, or on what else it does.

use std::collections::BTreeMap;
use std::fs;

use manifold_tests::mounted::{Library, expect_success};

/// The kernel's requests that looks at a tree are made of. Of a directory that was listed, all are answered at once.
const LOOKS: [&str; 10] = [
    "getattr",
    "getxattr",
    "listxattr",
    "lookup",
    "opendir",
    "readdir",
    "readdirplus",
    "readlink",
    "releasedir",
    "statfs",
];
/// A look that takes longer than this, in seconds, has waited for a source within the thread that answers it: no deadline of
/// these tests is shorter than twice that. It is one of the bounds that are counted.
const LONG_S: f64 = 1.0;
/// Half of the looks of each operation take no longer than this, in seconds: a hundred times what they take, so that only what all of
/// them do on their way can be longer. It is one of the bounds too.
const USUAL_S: f64 = 0.01;
/// How often those who answer may go to sleep for each request: while they wait for it, if it is not there yet. What is more they
/// have slept on their way to an answer; a few may be woken by a request that another has taken.
const SLEEPS_MAX: f64 = 1.05;

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// Looks that could not be answered at once, by operation.
    waited: BTreeMap<String, u64>,
    /// Looks that took long, by operation.
    long: BTreeMap<String, u64>,
    /// Looks that took no longer than is usual, and all, by operation.
    usual: BTreeMap<String, (u64, u64)>,
    /// Looks that came.
    looks: u64,
    /// Requests of all kinds.
    requests: u64,
    /// How often the threads that answer the kernel went to sleep by themselves.
    sleeps: u64,
}

impl Served {
    /// Asks the daemon of a mounted library, and the kernel.
    pub(crate) fn by(library: &Library) -> Self {
        let said = expect_success(library.command().args(["metrics", "--json"]));
        let families: serde_json::Value = serde_json::from_str(&said).expect("the metrics are JSON");
        let samples = |name: &str| -> Vec<(String, serde_json::Value)> {
            let families = families.as_array().expect("a list of metrics");
            let family = families.iter().find(|family| family["name"] == name);
            let samples = family.expect("the metric is there")["samples"].as_array();
            let named = |sample: &serde_json::Value| {
                let operation = sample["labels"]["operation"].as_str();
                (operation.expect("it names an operation").to_owned(), sample.clone())
            };
            samples.expect("a list of samples").iter().map(named).collect()
        };
        let count = |value: &serde_json::Value| value.as_u64().expect("a count");
        let is_look = |operation: &str| LOOKS.contains(&operation);
        let mut served = Self::default();
        for (operation, sample) in samples("manifold_kernel_requests_total") {
            served.requests += count(&sample["value"]);
            if is_look(&operation) {
                served.looks += count(&sample["value"]);
            }
        }
        for (operation, sample) in samples("manifold_kernel_requests_waited_total") {
            let waited = count(&sample["value"]);
            if is_look(&operation) && waited > 0 {
                served.waited.insert(operation, waited);
            }
        }
        for (operation, sample) in samples("manifold_kernel_request_duration_seconds") {
            let buckets = sample["buckets"].as_array().expect("a list of buckets");
            let within = |bound: f64| {
                let is_it =
                    |bucket: &&serde_json::Value| bucket["le"].as_f64().is_some_and(|le| (le - bound).abs() < 1e-9);
                count(&buckets.iter().find(is_it).expect("it is one of the bounds")["count"])
            };
            let all = count(&sample["value"]);
            if !is_look(&operation) {
                continue;
            }
            if all > within(LONG_S) {
                served.long.insert(operation.clone(), all - within(LONG_S));
            }
            served.usual.insert(operation, (within(USUAL_S), all));
        }
        served.sleeps = sleeps_of(library.pid());
        served
    }

    /// Makes sure that since `before` every look was answered at once. Gives how many there were.
    pub(crate) fn must_not_have_waited_since(&self, before: &Self, when: &str) -> u64 {
        assert!(self.looks > before.looks, "{when}: nobody has looked");
        assert_eq!(self.waited, before.waited, "{when}: looks waited");
        assert_eq!(self.long, before.long, "{when}: looks took longer than {LONG_S} s");
        for (operation, (usual, all)) in &self.usual {
            let (usual_before, all_before) = before.usual.get(operation).copied().unwrap_or_default();
            let (usual, all) = (usual - usual_before, all - all_before);
            assert!(
                2 * usual >= all,
                "{when}: of {all} {operation} {usual} took no longer than {USUAL_S} s"
            );
        }
        let (requests, sleeps) = (self.requests - before.requests, self.sleeps - before.sleeps);
        assert!(
            sleeps as f64 <= requests as f64 * SLEEPS_MAX,
            "{when}: those who answered {requests} requests went to sleep {sleeps} times: they waited for something on their way"
        );
        self.looks - before.looks
    }
}

/// Counts how often the threads of a daemon that answer the kernel went to sleep by themselves, and not because another had
/// its turn.
fn sleeps_of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("look at the daemon's threads");
    let sleeps = tasks.map(|task| {
        let task = task.expect("look at the daemon's threads").path();
        // A thread may end meanwhile; these do not.
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if !name.starts_with("fuser-") || name.trim_end() == "fuser-bg" {
            return 0;
        }
        let status = fs::read_to_string(task.join("status")).expect("a thread that answers the kernel stays");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
            .expect("the kernel counts them")
    });
    sleeps.sum()
}
