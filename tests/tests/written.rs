//! What is done through the mount to a folder of this machine, against the same done to a plain folder beside it.
//!
//! Random changes, the same on both sides, must have the same results and errnos, and leave the same names, contents and
//! attributes behind; and what the mount shows must be what the disk beneath it says, while files are open and closed,
//! the library is mounted anew, and its daemon is killed.
//!
//! `MANIFOLD_TESTS_SEED` begins with another seed than 1, `MANIFOLD_MODEL_CASES` says how many follow it, and
//! `MANIFOLD_MODEL_ROUNDS` how long each goes on.
//!
//! Needs root and /dev/fuse.

#[path = "written/change.rs"]
mod change;
#[path = "written/side.rs"]
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use manifold_tests::chance::Chance;
use manifold_tests::mounted::{Library, User, expect_success};

use change::Change;
use side::Side;

/// How many changes stand between two looks at everything.
const ROUND: usize = 120;

/// How a library is mounted for a run.
#[derive(Clone, Copy)]
struct Run {
    seed: u64,
    rounds: u64,
    passthrough: bool,
}

/// How the daemon goes between two rounds, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    None,
    Unmount,
    Kill,
}

fn both_sides_agree(run: Run) {
    let (beneath, plain) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let mut library = Library::new(User::Current);
    library.settings(&format!("mount.passthrough = {}\n", run.passthrough));
    library.add_folder_with(beneath.path(), "/disk", &[("refresh", "1d")]);
    library.mount();
    let mut dice = Chance::new(run.seed);
    let mut mounted = Side::new(library.at().join("disk"));
    let mut plain = Side::new(plain.path().to_owned());
    let mut done = Vec::new();
    for round in 0..run.rounds {
        for _ in 0..ROUND {
            let change = Change::by_chance(&mut dice, !run.passthrough);
            let (ours, theirs) = (mounted.make(&change), plain.make(&change));
            done.push(format!("{change:?} -> {theirs:?}"));
            let last = &done[done.len().saturating_sub(40)..];
            assert_eq!(
                ours,
                theirs,
                "seed {}, round {round}, after\n{}\n{}",
                run.seed,
                last.join("\n"),
                library.log()
            );
        }
        let interruption = match dice.below(4) {
            0 => Interruption::Unmount,
            1 => Interruption::Kill,
            _ => Interruption::None,
        };
        let context = format!(
            "seed {}, round {round}, {interruption:?}, after\n{}",
            run.seed,
            done[done.len() - 40..].join("\n")
        );
        if interruption == Interruption::None {
            assert_eq!(mounted.handles(), plain.handles(), "what is open: {context}");
        } else {
            // What was open goes with the mount.
            mounted.close_all();
            plain.close_all();
        }
        match interruption {
            Interruption::None => {}
            Interruption::Unmount => {
                library.unmount();
                library.mount();
            }
            Interruption::Kill => {
                library.kill9();
                library.mount();
                // What the catalog had not committed it learns from the disk again.
                expect_success(library.command().args(["scan", "/disk"]));
            }
        }
        let differences = differences(&mounted.tree(), &plain.tree());
        assert!(differences.is_empty(), "{differences:#?}\n{context}\n{}", library.log());
        agrees_with_the_disk(&mounted, beneath.path(), &context);
    }
    mounted.close_all();
    agrees_with_the_disk(&mounted, beneath.path(), "at the end");
    let told = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    assert!(
        told.contains(library.at().to_str().expect("text")),
        "it is mounted to the end"
    );
    library.unmount();
}

fn agrees_with_the_disk(mounted: &Side, beneath: &Path, context: &str) {
    let differences = differences(&mounted.looks(), &Side::new(beneath.to_owned()).looks());
    assert!(differences.is_empty(), "the disk beneath: {differences:#?}\n{context}");
}

/// Gives what is not the same on both sides.
fn differences<T: PartialEq + Clone>(ours: &Tree<T>, theirs: &Tree<T>) -> Vec<(PathBuf, Option<T>, Option<T>)> {
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| (path.clone(), ours.get(path).cloned(), theirs.get(path).cloned()))
        .collect()
}

type Tree<T> = BTreeMap<PathBuf, T>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("it is a number"))
}

/// Lets several runs happen, each from a seed of its own.
fn many_runs(first: u64, passthrough: bool) {
    let first = number("MANIFOLD_TESTS_SEED", first);
    for seed in first..first + number("MANIFOLD_MODEL_CASES", 3) {
        both_sides_agree(Run {
            seed,
            rounds: number("MANIFOLD_MODEL_ROUNDS", 6),
            passthrough,
        });
    }
}

#[test]
fn both_sides_agree_where_the_kernel_writes_by_itself() {
    many_runs(1, true);
}

#[test]
fn both_sides_agree_where_everything_goes_through_the_daemon() {
    many_runs(4, false);
}
