//! What cannot be done is refused with words, and nothing is lost or left behind.

use std::fs;

use crate::support::{Home, is_mounted, names, said, text};

/// Neither a source nor a mount came of it.
fn nothing_came_of_it(home: &Home) {
    assert_eq!(home.run(&["source", "list", "--json"]).json(), serde_json::json!([]));
    assert!(!is_mounted(&home.point()));
}

#[test]
fn a_mount_point_that_is_not_empty_is_refused_and_nothing_is_added() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let full = home.source("full");
    home.run(&["up", text(&pictures), "--at", text(&full)])
        .refused(&["is not empty"]);
    assert_eq!(names(&full), ["full.txt"]);
    nothing_came_of_it(&home);
}

#[test]
fn a_mount_point_that_is_a_file_or_has_no_parent_is_refused() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let file = pictures.join("Pictures.txt");
    let other = home.join("file");
    fs::copy(file, &other).expect("a file");
    home.run(&["up", text(&pictures), "--at", text(&other)])
        .refused(&["is not a directory"]);
    home.run(&["up", text(&pictures), "--at", "no/such/folder"])
        .refused(&["does not exist"]);
    nothing_came_of_it(&home);
}

#[test]
fn a_mount_point_in_a_source_or_around_one_is_refused() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    fs::create_dir(pictures.join("inside")).expect("a folder");
    for at in [pictures.join("inside"), pictures.join("new"), pictures.clone()] {
        home.run(&["up", text(&pictures), "--at", text(&at)])
            .refused(&["lies in the source"]);
    }
    assert_eq!(names(&pictures), ["Pictures.txt", "inside"], "no mount point was made");
    nothing_came_of_it(&home);
    home.ok(&["source", "add", text(&pictures)]);
    home.run(&["mount", text(&pictures.join("inside"))])
        .refused(&["lies in the source"]);
    fs::create_dir(home.join("around")).expect("a folder");
    let films = home.source("around/films");
    home.run(&["up", text(&films), "--at", text(&home.join("around"))])
        .refused(&["contains the source"]);
}

#[test]
fn a_source_that_holds_the_library_s_own_state_is_refused() {
    let home = Home::new();
    home.run(&["up", text(&home.path())])
        .refused(&["own state folder", "hint:"]);
    home.run(&["source", "add", text(&home.join(".local/state/manifold/default"))])
        .refused(&["own state folder"]);
    nothing_came_of_it(&home);
}

#[test]
fn a_source_that_leads_into_a_mount_of_manifold_is_refused() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    fs::create_dir_all(home.join("outer/mount")).expect("a folder");
    let at = home.join("outer/mount");
    let daemon = home.up(&[text(&pictures), "--at", text(&at)]);
    home.run(&["source", "add", text(&home.join("outer"))])
        .refused(&["Manifold is mounted"]);
    home.run(&["source", "add", text(&at.join("Pictures"))])
        .refused(&["Manifold is mounted"]);
    let other = Home::new();
    other
        .run(&["up", text(&home.join("outer"))])
        .refused(&["Manifold is mounted"]);
    daemon.interrupt();
}

#[test]
fn the_same_source_twice_is_refused_whatever_it_is_called() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    std::os::unix::fs::symlink(&pictures, home.join("link")).expect("a link");
    home.ok(&["source", "add", text(&pictures)]);
    for again in [
        text(&pictures),
        "link",
        "./Pictures/../Pictures",
        &format!("file://{}", pictures.display()),
    ] {
        home.run(&["source", "add", again]).refused(&["already", "/Pictures"]);
    }
    assert_eq!(
        home.run(&["source", "list", "--json"]).json().as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_path_that_is_taken_is_refused_and_overlapping_folders_are_noted() {
    let home = Home::new();
    let (pictures, inner) = (home.source("Pictures"), home.source("Pictures/inner"));
    home.ok(&["source", "add", text(&pictures), "--at", "/media"]);
    let films = home.source("films");
    home.run(&["source", "add", text(&films), "--at", "media/"])
        .refused(&["/media is taken", "--at"]);
    home.run(&["source", "add", text(&films), "--at", "/a/../b"])
        .ended(2, &["'.' or '..'"]);
    let noted = home.run(&["source", "add", text(&inner)]);
    noted.ended(0, &["overlap"]);
}

#[test]
fn a_second_daemon_is_told_the_first_one_s_process_id() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let daemon = home.up(&[text(&pictures)]);
    let pid = daemon.pid().to_string();
    let elsewhere = home.join("elsewhere");
    for second in [
        &["up"][..],
        &["mount", text(&elsewhere)],
        &["up", text(&pictures), "--at", text(&elsewhere)],
    ] {
        home.run(second).refused(&["in use by the daemon", &pid]);
    }
    assert!(!elsewhere.exists());
    daemon.interrupt();
}

#[test]
fn a_mount_point_that_is_in_use_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    let pictures = home.source("Pictures");
    let daemon = home.up(&[text(&pictures)]);
    let films = other.source("films");
    other
        .run(&["up", text(&films), "--at", text(&home.point())])
        .refused(&["is mounted there", "manifold unmount"]);
    nothing_came_of_it(&other);
    assert_eq!(names(&home.point()), ["Pictures"], "the mount is as it was");
    daemon.interrupt();
}

#[test]
fn a_damaged_catalog_is_left_as_it_is_and_check_tells() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    home.ok(&["check"]);
    let catalog = home.state().join("catalog.redb");
    let garbage = vec![0x5a; 100_000];
    fs::write(&catalog, &garbage).expect("write");
    for command in [&["up"][..], &["mount"], &["status"], &["source", "list"]] {
        home.run(command)
            .refused(&["damaged", "manifold check", "left as it is"]);
    }
    let checked = home.run(&["check"]);
    checked.refused(&[
        "damaged",
        "hint: it is left as it is",
        "to begin anew, move it away",
        "mv '",
    ]);
    assert!(
        !home.run(&["check"]).stderr.contains("manifold check"),
        "it was just done"
    );
    // The first words are what is wrong, and not what the storage has asserted.
    assert!(home.run(&["check"]).stderr.starts_with("error: "));
    assert_eq!(fs::read(&catalog).expect("read"), garbage);
    assert!(!home.point().exists(), "what was made for the mount is gone again");
}

#[test]
fn a_catalog_of_a_newer_version_is_left_as_it_is_and_check_tells() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let catalog = home.state().join("catalog.redb");
    let database = redb::Database::open(&catalog).expect("a catalog");
    let mut transaction = database.begin_write().expect("write");
    // As the catalog does, so that it opens without a repair.
    transaction.set_quick_repair(true);
    transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
        .expect("its table")
        .insert("format", 1_000)
        .expect("write");
    transaction.commit().expect("write");
    drop(database);
    let newer = fs::read(&catalog).expect("read");
    for command in [&["up"][..], &["mount"], &["status"], &["source", "list"], &["check"]] {
        home.run(command).refused(&["newer version"]);
    }
    assert!(fs::read(&catalog).expect("read") == newer, "it was written to");
    assert!(!home.point().exists(), "what was made for the mount is gone again");
}

#[test]
fn a_full_disk_is_told_with_what_to_do_and_nothing_is_mounted() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let full = home.join("full");
    fs::create_dir(&full).expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "none"])
        .arg(&full)
        .status();
    assert!(
        mounted.expect("mount runs").success(),
        "mounting a small disk needs root"
    );
    fs::write(full.join("filler"), vec![1; 8 << 10]).expect("room for this much");
    let library = full.join("library");
    let refused = said(
        home.command()
            .arg("--library")
            .arg(&library)
            .args(["up", text(&pictures)]),
    );
    assert_eq!(refused.code(), 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("full") || refused.stderr.contains("No space left"),
        "{}",
        refused.stderr
    );
    assert!(!is_mounted(&home.point()));
}

#[test]
fn folders_and_uris_that_are_none_are_refused_with_words() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    home.run(&["up", "no-such-folder"])
        .refused(&["there is no folder no-such-folder"]);
    home.run(&["up", text(&pictures.join("Pictures.txt"))])
        .refused(&["is not a folder"]);
    home.run(&["up", "smbb://nas/x"])
        .ended(2, &["unknown kind of source", "did you mean `smb://`"]);
    home.run(&["up", "smb://nas/x", "--set", "domian=x"])
        .ended(2, &["unknown setting `domian`", "did you mean `domain`"]);
    home.run(&["up"]).ended(2, &["no sources yet"]);
    home.run(&["up", text(&pictures), "/tmp", "--set", "refresh=5s"])
        .ended(2, &["exactly one"]);
    home.run(&["--library", "a b", "status"])
        .ended(2, &["is not the name of a library"]);
    home.run(&["frobnicate"]).ended(2, &["frobnicate"]);
    assert!(!is_mounted(&home.point()));
}

#[test]
fn a_source_that_cannot_be_reached_is_not_added_unless_forced() {
    let home = Home::new();
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a port")
        .port();
    let uri = format!("smb://127.0.0.1:{port}/share");
    home.run(&["source", "add", &uri])
        .refused(&["was not added", "--force"]);
    home.run(&["up", &uri]).refused(&["was not added"]);
    nothing_came_of_it(&home);
    home.ok(&["source", "add", &uri, "--force"]);
    home.run(&["source", "test", "/share"]).refused(&[]);
    assert_eq!(home.run(&["source", "list", "--json"]).json()[0]["attach"], "/share");
}

#[test]
fn a_folder_that_holds_something_else_is_not_made_a_library() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let before = fs::metadata(&pictures).expect("it is there").permissions();
    home.run(&["--library", "./Pictures", "up", "/tmp"])
        .refused(&["holds no library"]);
    assert_eq!(fs::metadata(&pictures).expect("it is there").permissions(), before);
    assert_eq!(names(&pictures), ["Pictures.txt"]);
}
