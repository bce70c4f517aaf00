//! `pin`, `unpin` and `pins`, with a daemon and without one. That what is pinned is read with no source is tested end to end.

use crate::support::{Home, text};

#[test]
fn what_is_pinned_without_a_daemon_is_kept_once_one_runs() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    assert_eq!(home.ok(&["pins"]), "nothing is pinned\n");
    let said = home.run(&["pin", "/Pictures", "/Pictures/Pictures.txt", "--json"]);
    assert_eq!(said.json()["ids"].as_array().map(Vec::len), Some(2));
    assert!(said.stderr.contains("once the library is mounted"), "{}", said.stderr);
    let made = home.run(&[
        "pin", "--policy", "*.txt", "--larger", "1 B", "--newer", "30 d", "--json",
    ]);
    assert_eq!(made.json()["policy"], 1);
    let facts = home.run(&["pins", "--json"]).json();
    assert_eq!(facts["pins"][0]["path"], "/Pictures");
    assert_eq!(facts["pins"][2]["policy"]["glob"], "*.txt");
    assert!(
        facts["total"].is_null() && facts["pins"][0]["counts"].is_null(),
        "{facts}"
    );

    let daemon = home.up(&[]);
    // Files of this machine are here already, and count once in the whole.
    home.ok(&["pin", "/Pictures", "--wait"]);
    let facts = home.run(&["pins", "--json"]).json();
    assert_eq!(facts["total"]["files"], 1, "{facts}");
    assert_eq!(facts["total"]["missing_bytes"], 0);
    assert_eq!(facts["total"]["cached_bytes"], 8);
    assert_eq!(facts["pins"][2]["counts"]["files"], 1);
    let shown = home.ok(&["pins"]);
    assert!(
        shown.contains("8 B here, 1 file") && shown.contains("policy 1: *.txt, larger than 1 B, changed within 30 d"),
        "{shown}"
    );
    assert!(home.ok(&["status"]).contains("pins     8 B here, 1 file"));
    assert_eq!(home.run(&["status", "--json"]).json()["pins"]["files"], 1);
    home.ok(&["cache", "clear"]);
    home.ok(&["cache", "clear", "--pinned"]);

    home.ok(&["unpin", "--policy", "1"]);
    home.ok(&["unpin", "/Pictures/Pictures.txt"]);
    home.run(&["unpin", "/Pictures/Pictures.txt"])
        .refused(&["is pinned with its folder", "unpin that"]);
    home.ok(&["unpin", "/Pictures"]);
    home.run(&["unpin", "/Pictures"]).refused(&["is not pinned"]);
    assert_eq!(home.ok(&["pins"]), "nothing is pinned\n");
    daemon.interrupt();
}

#[test]
fn a_pin_of_what_is_gone_is_shown_and_can_be_taken_away() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    std::fs::write(pictures.join("stays"), "here").expect("a file");
    home.ok(&["source", "add", text(&pictures)]);
    let daemon = home.up(&[]);
    home.ok(&["pin", "/Pictures/Pictures.txt", "/Pictures/stays"]);
    std::fs::remove_file(pictures.join("Pictures.txt")).expect("it was there");
    home.ok(&["scan", "/Pictures"]);
    assert!(home.ok(&["pins"]).contains("unpin --gone"), "{}", home.ok(&["pins"]));
    let paths = || {
        let facts = home.run(&["pins", "--json"]).json();
        let pins = facts["pins"].as_array().expect("a list").clone();
        pins.into_iter().map(|pin| pin["path"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(paths().len(), 2);
    home.ok(&["unpin", "--gone"]);
    assert_eq!(paths(), ["/Pictures/stays"]);
    daemon.interrupt();
}

#[test]
fn what_makes_no_sense_to_pin_is_refused() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    std::os::unix::fs::symlink("Pictures.txt", pictures.join("link")).expect("a link");
    home.ok(&["source", "add", text(&pictures)]);
    home.run(&["pin"]).ended(2, &[]);
    home.run(&["pin", "/Pictures", "--larger", "1 B"])
        .ended(2, &["--policy"]);
    home.run(&["pin", "--policy", "*", "--smaller", "much"])
        .ended(2, &["expected a size"]);
    home.run(&["pin", "--policy", "[a"]).ended(2, &["not closed"]);
    home.run(&["pin", "/nothing"]).refused(&["/nothing"]);
    home.run(&["pin", "/Pictures/link"])
        .refused(&["only files and folders"]);
    home.run(&["unpin", "--policy", "7"]).refused(&["no policy 7"]);
    assert_eq!(home.ok(&["pins"]), "nothing is pinned\n");
}

#[test]
fn nothing_can_be_pinned_without_a_disk_cache() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    std::fs::write(home.settings(), "[cache]\ndisk_bytes = 0\n").expect("written");
    home.run(&["pin", "/Pictures"])
        .refused(&["disk cache", "cache.disk_bytes"]);
}
