//! The settings file: written with its defaults on first use, checked with line and column.

use std::fs;

use crate::support::{Home, text};

#[test]
fn the_file_is_written_once_with_every_default_and_never_over_a_person_s_own() {
    let home = Home::new();
    let shown = home.ok(&["settings"]);
    assert!(
        shown.starts_with(&format!("# {}\n", home.settings().display())),
        "{shown}"
    );
    assert!(shown.contains("cache.disk_bytes = \"20 GiB\"  # default\n"), "{shown}");
    let written = fs::read_to_string(home.settings()).expect("it was written");
    assert_eq!(written, home.ok(&["settings", "--defaults"]));
    fs::write(home.settings(), "[cache]\ndisk_bytes = \"1 GiB\"\n").expect("write");
    assert!(home.ok(&["settings"]).contains("cache.disk_bytes = \"1 GiB\"\n"));
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    assert_eq!(
        fs::read_to_string(home.settings()).expect("read"),
        "[cache]\ndisk_bytes = \"1 GiB\"\n"
    );
    let json = home.run(&["settings", "--json"]).json();
    let one = json["settings"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["key"] == "cache.disk_bytes");
    assert_eq!(one.expect("it is there")["given"], true);
}

#[test]
fn every_complaint_names_its_line_and_column() {
    let home = Home::new();
    home.ok(&["settings"]);
    let bad = "[cache]\ndisk_byte = 1\nmemory_bytes = \"1 KiB\"\n\n[mount]\n  passthrough = \"yes\"\n";
    fs::write(home.settings(), bad).expect("write");
    let file = home.settings().display().to_string();
    let expected = format!(
        "error: {file}:2:1: unknown setting `cache.disk_byte`; did you mean `cache.disk_bytes`?\n\
         {file}:3:16: bad value of `cache.memory_bytes`: out of range, expected 32 MiB to 1 TiB\n\
         {file}:6:17: bad value of `mount.passthrough`: expected true or false, found a text\n\
         hint: `manifold settings --defaults` prints every setting with its meaning and default\n"
    );
    let pictures = home.source("Pictures");
    for command in [&["up", text(&pictures)][..], &["mount"], &["settings"]] {
        let refused = home.run(command);
        assert_eq!(
            (refused.code(), refused.stderr.as_str()),
            (1, expected.as_str()),
            "{command:?}"
        );
    }
    assert_eq!(fs::read_to_string(home.settings()).expect("read"), bad);
}

#[test]
fn settings_hold() {
    let home = Home::new();
    home.ok(&["settings"]);
    let at = home.join("somewhere");
    fs::write(
        home.settings(),
        format!(
            "mount.point = \"{}\"\nmount.passthrough = false\ncache.directory = \"~/blocks\"\n",
            at.display()
        ),
    )
    .expect("write");
    let daemon = home.up(&[text(&home.source("Pictures"))]);
    assert_eq!(crate::support::names(&at), ["Pictures"]);
    let status = home.run(&["status", "--json"]).json();
    assert_eq!(status["mount"]["passthrough"], false);
    assert!(
        status["mount"]["passthrough_why_not"]
            .as_str()
            .expect("words")
            .contains("switched off")
    );
    assert_eq!(status["cache"]["directory"], text(&home.join("blocks")));
    daemon.interrupt();
}
