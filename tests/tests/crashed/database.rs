//! Databases over kills of the daemon: what was committed is there, and all else is sound.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use manifold_tests::chance::Chance;
use manifold_tests::mounted::expect_success;

use crate::number;
use crate::site::{End, Kind, Site};

/// How many points there are for each kind of journal and of source.
const POINTS: u64 = 1;
/// How many rows a point comes after, at most.
const ROWS_MAX: usize = 12;
/// The longest moment between the last of these and the kill.
const MOMENT_MAX_US: usize = 400_000;

fn program(site: &Site, mode: &str) -> Command {
    let mut command = Command::new("python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crashed/database.py");
    command
        .arg(script)
        .arg(site.folder().join(format!("{mode}.db")))
        .arg(mode);
    command
}

/// Reads which rows were committed, until so many were, or to the end.
fn committed(child: &mut BufReader<std::process::ChildStdout>, rows: usize) -> Option<u64> {
    let mut last = None;
    for _ in 0..rows {
        let mut line = String::new();
        if child.read_line(&mut line).expect("read from a pipe") == 0 {
            break;
        }
        last = line.trim().parse().ok();
    }
    last
}

fn is_whole_after_each_end(kind: Kind, end: End, first: u64) {
    let mut site = Site::open(kind, end);
    let first = number("MANIFOLD_TESTS_SEED", first);
    for seed in first..first + number("MANIFOLD_MODEL_CASES", POINTS) {
        for mode in ["delete", "wal"] {
            let mut chance = Chance::new(seed);
            let mut child: Child = program(&site, mode)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("run python3");
            let mut output = BufReader::new(child.stdout.take().expect("its output"));
            let before = committed(&mut output, 1 + chance.below(ROWS_MAX));
            let before = before.unwrap_or_else(|| panic!("seed {seed}: it does not get on in {mode}"));
            std::thread::sleep(Duration::from_micros(chance.below(MOMENT_MAX_US) as u64));
            site.kill();
            let last = committed(&mut output, usize::MAX).unwrap_or(before);
            assert!(!child.wait().expect("wait").success(), "its disk was gone");
            site.mount(&mut chance);
            println!("seed {seed}: killed after row {last} in {mode}");
            expect_success(program(&site, mode).arg(last.to_string()));
        }
    }
    site.end();
}

#[test]
fn databases_are_whole_in_a_folder_of_this_machine_after_each_kill() {
    is_whole_after_each_end(Kind::Local, End::Kill, 1);
}

#[test]
fn databases_are_whole_in_a_share_after_each_kill() {
    is_whole_after_each_end(Kind::Smb, End::Kill, 2);
}

#[test]
fn databases_are_whole_in_a_bucket_after_each_kill() {
    is_whole_after_each_end(Kind::S3, End::Kill, 3);
}

#[test]
fn databases_are_whole_on_a_webdav_server_after_each_kill() {
    is_whole_after_each_end(Kind::Webdav, End::Kill, 4);
}

#[test]
fn databases_are_whole_on_an_sftp_server_after_each_kill() {
    is_whole_after_each_end(Kind::Sftp, End::Kill, 5);
}

#[test]
fn databases_are_whole_in_a_share_after_each_power_cut() {
    is_whole_after_each_end(Kind::Smb, End::PowerCut, 6);
}
