//! The daemon is killed at points by chance, again and again, while writers work in its mount; or the power goes, and with it what
//! was not synced on the disk that keeps catalog, staging area and cache (`manifold_tests::lossy`). What `close`, `fsync`, `rename` and
//! the like had acknowledged is in the mount at once after the restart, and in the source once all is uploaded; nothing else
//! is, but what was under way.
//!
//! The writers keep a manifest outside of the mount (`crashed/manifest.rs`) of what was acknowledged. A point is a number of
//! acknowledged changes, and a moment after it, from a seed: `MANIFOLD_TESTS_SEED` begins with another seed than each test's own,
//! and `MANIFOLD_MODEL_CASES` says how many points there are for each kind of source.
//!
//! Needs /dev/fuse, the servers of `tests/servers/install`, and root for the servers.

#![allow(clippy::print_stdout, reason = "what happened is shown with the point that failed")]

#[path = "crashed/database.rs"]
mod database;
#[path = "crashed/manifest.rs"]
mod manifest;
#[path = "crashed/site.rs"]
mod site;
#[path = "crashed/writer.rs"]
mod writer;

use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;

use manifest::Manifest;
use site::{End, Kind, Site};
use writer::Work;

/// How many points there are for each kind of source, unless that is set.
const POINTS: u64 = 3;
/// After so many, it is looked at what the source has.
const LOOK_EVERY: u64 = 20;
/// How many acknowledged changes a point comes after, at most.
const CHANGES_MAX: usize = 25;
/// The longest moment between the last of these and the kill, in microseconds: short ones fall into changes, long ones into
/// uploads.
const MOMENTS_MAX_US: [usize; 4] = [1_000, 20_000, 400_000, 900_000];
const WRITERS: u64 = 3;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("it is a number"))
}

fn ends_again_and_again(kind: Kind, end: End, first: u64) {
    let (first, points) = (
        number("MANIFOLD_TESTS_SEED", first),
        number("MANIFOLD_MODEL_CASES", POINTS),
    );
    let (mut site, manifest, begun) = (Site::open(kind, end), Manifest::default(), Instant::now());
    for seed in first..first + points {
        let mut chance = Chance::new(seed);
        let changes = chance.below(CHANGES_MAX);
        let longest = MOMENTS_MAX_US[chance.below(MOMENTS_MAX_US.len())];
        let moment = Duration::from_micros(chance.below(longest) as u64);
        println!("seed {seed}: killed {moment:?} after {changes} changes");
        let work = Work::new(&manifest, site.folder(), site.has_elsewhere());
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let work = &work;
                scope.spawn(move || work.go_on(writer, seed));
            }
            work.until(changes);
            std::thread::sleep(moment);
            work.ends();
            site.kill();
        });
        site.mount(&mut chance);
        site.is_whole(&manifest);
        if (seed - first + 1) % LOOK_EVERY == 0 {
            site.look(&manifest);
        }
    }
    site.look(&manifest);
    println!(
        "{points} points, {} acknowledged changes in {:?}",
        manifest.acknowledged(),
        begun.elapsed()
    );
    site.end();
}

#[test]
fn what_was_acknowledged_is_in_a_folder_of_this_machine_after_each_kill() {
    ends_again_and_again(Kind::Local, End::Kill, 1);
}

#[test]
fn what_was_acknowledged_is_in_a_share_after_each_kill() {
    ends_again_and_again(Kind::Smb, End::Kill, 4);
}

#[test]
fn what_was_acknowledged_is_in_a_bucket_after_each_kill() {
    ends_again_and_again(Kind::S3, End::Kill, 7);
}

#[test]
fn what_was_acknowledged_is_on_a_webdav_server_after_each_kill() {
    ends_again_and_again(Kind::Webdav, End::Kill, 10);
}

#[test]
fn what_was_acknowledged_is_on_an_sftp_server_after_each_kill() {
    ends_again_and_again(Kind::Sftp, End::Kill, 13);
}

#[test]
fn what_was_acknowledged_is_in_a_share_after_each_power_cut() {
    ends_again_and_again(Kind::Smb, End::PowerCut, 16);
}

#[test]
fn what_was_acknowledged_is_in_a_bucket_after_each_power_cut() {
    ends_again_and_again(Kind::S3, End::PowerCut, 19);
}
