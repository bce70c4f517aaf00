//! What `status` says of a machine, or of sources, on which nothing works: never that all is well.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Daemon, Home, said, text};

/// Files that are made while the disk is full.
const NAMES: usize = 500;
/// Ends what never comes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A disk of 32 MiB, which needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(home: &Home) -> Self {
        let at = home.join("disk");
        fs::create_dir(&at).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "none"])
            .arg(&at)
            .status();
        assert!(mounted.expect("mount runs").success(), "it needs root");
        Self(at)
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("it has an end");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Gives the verdict, the first line, and what is wrong, each with its remedy.
fn status(home: &Home, library: &Path) -> (String, String, Vec<String>) {
    let status = said(home.command().arg("--library").arg(library).args(["status", "--json"])).json();
    let word = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let troubles = status["troubles"].as_array().expect("a list").iter();
    let troubles = troubles.map(|it| {
        assert!(!word(&it["message"]).is_empty() && !word(&it["hint"]).is_empty());
        word(&it["with"])
    });
    (word(&status["verdict"]), word(&status["summary"]), troubles.collect())
}

/// Counts what the catalog has in a folder.
fn listed(home: &Home, library: &Path, folder: &str) -> usize {
    let listed = home
        .command()
        .arg("--library")
        .arg(library)
        .args(["ls", folder])
        .output();
    let listed = listed.expect("manifold runs");
    String::from_utf8_lossy(&listed.stdout).lines().count()
}

#[test]
fn a_full_disk_of_the_catalog_is_told_with_its_remedy_until_there_is_room() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home);
    let library = disk.0.join("library");
    let pictures = home.source("Pictures");
    let mut up = home.command();
    up.arg("--library").arg(&library).args(["up", text(&pictures)]);
    let daemon = Daemon::start(&mut up, "mounted at ");
    assert_eq!(status(&home, &library).0, "ok");
    disk.fill();
    // It is noticed, and cannot be taken in.
    fs::create_dir(pictures.join("behind")).expect("a folder");
    for number in 0..NAMES {
        fs::write(pictures.join(format!("behind/{number}")), "x").expect("a file");
    }
    let (verdict, summary, troubles) = status(&home, &library);
    assert_eq!(verdict, "attention");
    assert!(
        summary.contains("the disk of the catalog is full") && summary.contains("make room"),
        "{summary}"
    );
    // The cache lies on the same disk.
    assert_eq!(troubles, ["catalog", "cache"]);
    let shown = said(home.command().arg("--library").arg(&library).arg("status")).stdout;
    assert!(shown.contains("trouble  the disk of the cache is full"), "{shown}");
    disk.empty();
    assert_eq!(status(&home, &library).0, "ok");
    let begun = Instant::now();
    while listed(&home, &library, "/Pictures/behind") < NAMES {
        assert!(begun.elapsed() < PATIENCE, "what changed meanwhile is never shown");
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.interrupt();
}

#[test]
fn a_full_disk_of_the_cache_is_told_with_its_remedy() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home);
    let library = home.join("library");
    fs::create_dir(&library).expect("a folder");
    let settings = format!("[cache]\ndirectory = {:?}\n", disk.0.join("cache"));
    fs::write(library.join("settings.toml"), settings).expect("write");
    let mut up = home.command();
    up.arg("--library")
        .arg(&library)
        .args(["up", text(&home.source("Pictures"))]);
    let daemon = Daemon::start(&mut up, "mounted at ");
    assert_eq!(status(&home, &library).0, "ok");
    disk.fill();
    let (verdict, summary, troubles) = status(&home, &library);
    assert_eq!((verdict.as_str(), troubles), ("attention", vec!["cache".to_owned()]));
    assert!(
        summary.contains("the disk of the cache is full") && summary.contains("cache.directory"),
        "{summary}"
    );
    daemon.interrupt();
}

#[test]
fn a_write_ahead_log_that_is_gone_after_a_kill_is_told_until_somebody_has_seen_to_it() {
    let home = Home::new();
    let library = home.join("library");
    let pictures = home.source("Pictures");
    let run = |arguments: &[&str]| said(home.command().arg("--library").arg(&library).args(arguments));
    let up = || {
        let mut up = home.command();
        up.arg("--library").arg(&library).args(["up", text(&pictures)]);
        Daemon::start(&mut up, "mounted at ")
    };
    let daemon = up();
    assert_eq!(status(&home, &library).0, "ok");
    daemon.kill9();
    let log = library.join("catalog.redb-wal");
    fs::remove_file(&log).expect("it is there");
    let note = library.join("catalog.redb-wal-lost");
    let words = ["may be lost", "the write-ahead log is missing", text(&note)];
    let checked = run(&["check"]);
    checked.ended(1, &words);
    assert!(checked.stdout.contains("is in order, but for"), "{}", checked.stdout);
    let daemon = up();
    let (verdict, summary, troubles) = status(&home, &library);
    assert_eq!((verdict.as_str(), troubles), ("attention", vec!["catalog".to_owned()]));
    assert!(words.iter().all(|word| summary.contains(word)), "{summary}");
    daemon.interrupt();
    run(&["check"]).ended(1, &words);
    fs::remove_file(&note).expect("it is there");
    run(&["check"]).ended(0, &[]);
}

#[test]
fn sources_that_have_not_answered_yet_are_not_well() {
    let home = Home::new();
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("smb://127.0.0.1:{}/share", silent.local_addr().expect("a port").port());
    home.ok(&["source", "add", &uri, "--force"]);
    let daemon = home.up(&[]);
    let status = home.run(&["status", "--json"]).json();
    assert_eq!(status["sources"][0]["state"], "connecting", "{status}");
    assert_eq!(status["verdict"], "attention");
    let summary = status["summary"].as_str().expect("a text");
    assert!(summary.contains("/share has not answered yet"), "{summary}");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait();
}
