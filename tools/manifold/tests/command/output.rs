//! What is printed: data on stdout, talk on stderr, JSON where it is asked for, help that teaches.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use crate::support::{Home, text};

#[test]
fn every_command_that_prints_data_prints_json_with_and_without_a_daemon() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    fs::write(pictures.join("two\nlines"), "x").expect("a file");
    fs::write(pictures.join(std::ffi::OsStr::from_bytes(b"\xff.jpg")), "x").expect("a file");
    let added = home.run(&["source", "add", text(&pictures), "--json"]).json();
    assert_eq!(added["attach"], "/Pictures");
    let daemon_less: &[&[&str]] = &[&["check"], &["settings"]];
    let both: &[&[&str]] = &[
        &["status"],
        &["source", "list"],
        &["source", "test", "/Pictures"],
        &["ls"],
        &["ls", "/Pictures"],
        &["stat", "/Pictures/Pictures.txt"],
        &["stat", "/"],
        &["cache", "show"],
        &["cache", "verify"],
        &["cache", "clear"],
    ];
    let run = |arguments: &&[&str]| home.run(&[arguments, &["--json"][..]].concat()).json();
    let without: Vec<_> = both.iter().chain(daemon_less).map(run).collect();
    assert_eq!(without[0]["verdict"], "not-mounted");
    assert_eq!(without[0]["schema"], 1);
    assert_eq!(without[1][0]["state"], "unknown");
    assert_eq!(without[2]["ok"], true);
    assert_eq!(without[5]["size"], 8);
    let names: Vec<_> = without[4]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["name"].clone())
        .collect();
    let expected: Vec<serde_json::Value> = vec![
        "Pictures.txt".into(),
        "two\nlines".into(),
        serde_json::json!({"hex": "ff2e6a7067"}),
    ];
    assert_eq!(names, expected);
    let daemon = home.up(&[]);
    let with: Vec<_> = both.iter().map(run).collect();
    assert_eq!(with[0]["verdict"], "ok");
    assert_eq!(with[0]["daemon"]["pid"], daemon.pid());
    assert_eq!(with[4], without[4], "the tree is the same, whoever is asked");
    let check = home.run(&["check"]);
    check.refused(&["in use by the daemon", "`manifold unmount`, then `manifold check`"]);
    assert!(!check.stderr.contains("source add"), "{}", check.stderr);
    daemon.interrupt();
}

#[test]
fn status_says_first_whether_everything_is_all_right() {
    let home = Home::new();
    home.run(&["status"]).refused(&["there is no library", "manifold up"]);
    let daemon = home.up(&[text(&home.source("Pictures"))]);
    let shown = home.ok(&["status"]);
    let first = shown.lines().next().expect("a line");
    assert!(first.starts_with("all is well: mounted at "), "{shown}");
    for word in ["/Pictures", "passthrough o", "none waiting", &daemon.pid().to_string()] {
        assert!(shown.contains(word), "no '{word}' in {shown}");
    }
    daemon.interrupt();
    assert!(home.ok(&["status"]).starts_with("not mounted; 1 source"));
}

#[test]
fn ls_shows_a_directory_of_many_pages_whole_and_stat_what_is_not_there() {
    let home = Home::new();
    let many = home.source("many");
    for i in 0..2500 {
        fs::write(many.join(format!("{i:04}")), "").expect("a file");
    }
    home.ok(&["source", "add", text(&many)]);
    let listed = home.ok(&["ls", "/many"]);
    assert_eq!(listed.lines().count(), 2501);
    assert!(listed.starts_with("0000\n0001\n") && listed.ends_with("2499\nmany.txt\n"));
    assert!(home.ok(&["ls", "-l", "many"]).starts_with("file "));
    let stat = home.run(&["stat", "/", "--json"]).json();
    assert_eq!(
        stat["listed"],
        serde_json::Value::Null,
        "the library itself comes from no listing"
    );
    assert!(!home.ok(&["stat", "/"]).contains("listed"));
    assert!(home.run(&["stat", "/many", "--json"]).json()["listed"].is_string());
    home.run(&["stat", "/many/none"])
        .refused(&["/many/none", "no such file"]);
    home.run(&["stat", "/many/0000/"]).refused(&["not a directory"]);
    home.run(&["ls", "/many/0000"]).refused(&["not a directory"]);
    home.run(&["ls", "/many/0000/x"]).refused(&["not a directory"]);
    home.run(&["ls", "/many/../many"]).ended(2, &["'..'"]);
}

/// Stands for a daemon that gives the first page of a listing, and then breaks off.
#[test]
fn a_listing_that_breaks_off_prints_no_json_that_is_none() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let listener = UnixListener::bind(home.state().join("control.sock")).expect("a socket");
    let daemon = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a command");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("it asks");
        let entry = |name: usize| {
            serde_json::json!({
                "name": format!("{name:04}"), "kind": "file", "size": 0, "modified": null, "mode": "0644", "id": name,
            })
        };
        let entries: Vec<_> = (0..1000).map(entry).collect();
        let page = serde_json::json!({
            "version": 1, "reply": { "to": "listing", "entries": entries, "more": true },
        });
        writeln!(&stream, "{page}").expect("it listens");
        line
    });
    let listed = home.run(&["ls", "/Pictures", "--json"]);
    assert!(daemon.join().expect("no panic").contains("list"));
    listed.refused(&["has not answered"]);
    assert_eq!(listed.stdout, "");
}

#[test]
fn help_teaches_by_example_and_promises_no_secret_on_the_command_line() {
    let home = Home::new();
    let top = home.ok(&["--help"]);
    for word in ["manifold up ~/Pictures", "status", "source", "unmount", "--library"] {
        assert!(top.contains(word), "no '{word}' in {top}");
    }
    assert!(home.ok(&["up", "--help"]).contains("Examples:"));
    let add = home.ok(&["source", "add", "--help"]);
    assert!(
        add.contains("never given on the command line") && add.contains("--secret-stdin"),
        "{add}"
    );
    for word in ["--password", "--secret ", "--token"] {
        assert!(!add.contains(word), "{add}");
    }
    assert_eq!(home.run(&[]).code(), 2);
    assert!(home.ok(&["--version"]).starts_with("manifold "));
    assert_eq!(
        fs::read_dir(home.path()).expect("a folder").count(),
        0,
        "help leaves nothing behind"
    );
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.ok(&["completions", shell]).contains("unmount"), "{shell}");
    }
    home.ok(&["man", "pages"]);
    let pages = crate::support::names(&home.join("pages"));
    for page in [
        "manifold.1",
        "manifold-up.1",
        "manifold-source-add.1",
        "manifold-status.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "no {page} in {pages:?}");
    }
}

#[test]
fn everything_is_installed_beneath_destdir() {
    let home = Home::new();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/install");
    let root = home.join("root");
    let installed = crate::support::said(
        home.run_as(&script)
            .arg(env!("CARGO_BIN_EXE_manifold"))
            .env("DESTDIR", &root)
            .env("PREFIX", "/opt/manifold"),
    );
    assert_eq!(installed.code(), 0, "{}", installed.stderr);
    let prefix = root.join("opt/manifold");
    for file in [
        "bin/manifold",
        "sbin/mount.manifold",
        "share/man/man1/manifold-up.1",
        "share/man/man8/mount.manifold.8",
        "share/bash-completion/completions/manifold",
        "lib/systemd/user/manifold@.service",
    ] {
        assert!(prefix.join(file).is_file(), "no {file}");
    }
    let unit = fs::read_to_string(prefix.join("lib/systemd/user/manifold@.service")).expect("a unit");
    assert!(
        unit.contains("ExecStart=/opt/manifold/bin/manifold --library %i mount"),
        "{unit}"
    );
    assert_eq!(crate::support::names(&root), ["opt"], "nothing lies elsewhere");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = Home::new();
    let many = home.source("many");
    for i in 0..2000 {
        fs::write(many.join(format!("{i:0200}")), "").expect("a file");
    }
    home.ok(&["source", "add", text(&many)]);
    let script = format!(
        "set -o pipefail; '{}' ls /many | head -n 1",
        env!("CARGO_BIN_EXE_manifold")
    );
    let shown = crate::support::said(home.run_as(std::path::Path::new("/bin/bash")).args(["-c", &script]));
    assert_eq!((shown.code(), shown.stderr.as_str()), (0, ""));
}

#[test]
fn what_was_made_a_moment_ago_is_looked_for_at_its_source() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    home.ok(&["source", "add", text(&pictures)]);
    assert_eq!(home.ok(&["ls", "/Pictures"]).lines().count(), 1);
    let make = |name: &str| std::fs::write(pictures.join(name), "new").expect("a file");
    make("scanned");
    home.ok(&["scan", "/Pictures/scanned"]);
    make("hashed");
    assert!(home.ok(&["hash", "/Pictures/hashed"]).contains("/Pictures/hashed"));
    make("pinned");
    home.ok(&["pin", "/Pictures/pinned"]);
    std::fs::create_dir_all(pictures.join("a/b")).expect("folders");
    make("a/b/deep");
    home.ok(&["scan", "/Pictures/a/b/deep"]);
    // What stood there as a file is a folder by now.
    std::fs::remove_file(pictures.join("pinned")).expect("it goes");
    std::fs::create_dir(pictures.join("pinned")).expect("a folder");
    make("pinned/in");
    home.ok(&["hash", "/Pictures/pinned/in"]);
    make("later");
    home.run(&["stat", "/Pictures/later"]).refused(&["no such file"]);
    for command in ["scan", "hash", "pin"] {
        home.run(&[command, "/Pictures/never"])
            .refused(&["/Pictures/never: no such file or directory"]);
    }
    std::fs::rename(&pictures, home.join("unplugged")).expect("it goes");
    for command in ["hash", "pin"] {
        home.run(&[command, "/Pictures/newest"])
            .refused(&["/Pictures/newest: it is not known here, and ", "could not be asked"]);
    }
}
