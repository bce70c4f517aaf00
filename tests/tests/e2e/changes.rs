//! Changes that others make behind the mount show in it, whatever the kernel has cached.
//!
//! Sources here have a `refresh` of a day, so that nothing shows because somebody happened to look.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Apache, Folder, Samba, SeaweedFs, Server};

use crate::below;

/// Only ends a test that hangs.
const DEADLINE: Duration = Duration::from_mins(1);
const NEVER: &[(&str, &str)] = &[("refresh", "1d")];

/// Waits until the mount shows it.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what} never showed");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Has the kernel believe that a name is not there.
fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("list a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

fn scan(library: &Library, path: &str) -> serde_json::Value {
    let answer = expect_success(library.command().args(["--json", "scan", path]));
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn changes_in_a_local_folder_show_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path();
    fs::create_dir_all(source.join("d/e")).expect("make folders");
    fs::write(source.join("d/e/file"), "old").expect("write");
    let mut library = Library::new(User::Current);
    library.add_folder_with(source, "/disk", NEVER);
    library.mount();
    let at = below(&library.at(), "/disk/d/e");
    // What the kernel has cached by now: names, attributes, pages, and that a name is not there.
    assert_eq!(names(&at), ["file"]);
    assert_eq!(text(&at.join("file")).as_deref(), Some("old"));
    assert!(is_absent(&at.join("new")));
    let inode = fs::metadata(at.join("file")).expect("it is there").ino();

    fs::write(source.join("d/e/new"), "n").expect("write");
    until("a new file", || text(&at.join("new")).as_deref() == Some("n"));
    assert_eq!(names(&at), ["file", "new"]);
    let longer = "x".repeat(100_000);
    fs::write(source.join("d/e/file"), &longer).expect("write");
    until("a longer file", || text(&at.join("file")).as_ref() == Some(&longer));
    assert_eq!(fs::metadata(at.join("file")).expect("it is there").len(), 100_000);
    fs::write(source.join("d/e/file"), "short").expect("write");
    until("a shorter file", || text(&at.join("file")).as_deref() == Some("short"));
    fs::set_permissions(source.join("d/e/file"), fs::Permissions::from_mode(0o640)).expect("chmod");
    until("a mode", || {
        fs::metadata(at.join("file")).expect("it is there").permissions().mode() & 0o777 == 0o640
    });
    fs::rename(source.join("d/e/file"), source.join("moved")).expect("rename");
    let moved = below(&library.at(), "/disk/moved");
    until("a file that moved", || moved.exists() && is_absent(&at.join("file")));
    assert_eq!(
        fs::metadata(&moved).expect("it is there").ino(),
        inode,
        "it kept its number"
    );
    fs::create_dir_all(source.join("d/e/deep/er")).expect("make folders");
    fs::write(source.join("d/e/deep/er/f"), "f").expect("write");
    until("a new folder", || text(&at.join("deep/er/f")).as_deref() == Some("f"));
    fs::write(source.join("d/e/deep/er/g"), "g").expect("write");
    until("a file in a new folder", || {
        text(&at.join("deep/er/g")).as_deref() == Some("g")
    });
    fs::remove_dir_all(source.join("d/e/deep")).expect("remove");
    until("a removal", || is_absent(&at.join("deep")));
    // The times of a folder change with what is in it.
    let there = fs::metadata(source.join("d/e")).expect("it is there").mtime_nsec();
    until("the time of a folder", || {
        fs::metadata(&at).expect("it is there").mtime_nsec() == there
    });
    let status = expect_success(library.command().args(["--json", "status"]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["sources"][0]["watch"]["state"], "watched", "{status}");
    library.unmount();
}

/// Changes a share as another client does.
fn smbclient(server: &Samba, commands: &str) {
    expect_success(
        Command::new("smbclient")
            .arg(format!("//127.0.0.1/{}", server.share()))
            .args(["-p", &server.port().to_string()])
            .args(["-U", &format!("{}%{}", server.user(), server.password())])
            .args(["-c", commands]),
    );
}

fn file_of(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("upload");
    fs::write(&file, text).expect("write");
    file
}

#[test]
fn changes_by_another_client_of_a_share_show_by_themselves_also_after_the_server_was_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Samba::start();
    server.put(b"d/e/file", b"old");
    let mut library = Library::new(User::Current);
    library.add_server_with(&server, "/nas", NEVER);
    library.mount();
    let at = below(&library.at(), "/nas/d/e");
    assert_eq!(names(&at), ["file"]);
    assert_eq!(text(&at.join("file")).as_deref(), Some("old"));
    assert!(is_absent(&at.join("new")));
    until("the watch", || {
        expect_success(library.command().args(["--json", "status"])).contains("\"watched\"")
    });

    let put = |text: &str, name: &str| {
        let upload = file_of(folder.path(), text);
        smbclient(&server, &format!("put {} {name}", upload.display()));
    };
    put("n", "d\\e\\new");
    until("a new file", || text(&at.join("new")).as_deref() == Some("n"));
    put("something longer", "d\\e\\file");
    until("a longer file", || {
        text(&at.join("file")).as_deref() == Some("something longer")
    });
    let inode = fs::metadata(at.join("file")).expect("it is there").ino();
    smbclient(&server, "rename d\\e\\file d\\moved");
    let moved = below(&library.at(), "/nas/d/moved");
    until("a file that moved", || moved.exists() && is_absent(&at.join("file")));
    assert_eq!(
        fs::metadata(&moved).expect("it is there").ino(),
        inode,
        "it kept its number"
    );
    smbclient(&server, "del d\\e\\new");
    until("a removal", || names(&at).is_empty());

    server.kill9();
    server.put(b"d/e/meanwhile", b"m");
    server.restart();
    until("what changed while nobody could tell", || {
        text(&at.join("meanwhile")).as_deref() == Some("m")
    });
    put("again", "d\\e\\again");
    until("a file after that", || {
        text(&at.join("again")).as_deref() == Some("again")
    });
    library.unmount();
}

/// Samba's catia, which many a NAS has switched on, ends a listing at a name that is not UTF-8, as if that were its end.
#[test]
fn a_name_that_cuts_the_listing_of_a_share_takes_no_other_away() {
    let server = Samba::start();
    let all: Vec<_> = (0..200).map(|number| format!("{number:03}")).collect();
    for name in &all {
        server.put(format!("d/{name}").as_bytes(), b"x");
    }
    let mut library = Library::new(User::Current);
    library.add_server_with(&server, "/nas", NEVER);
    library.mount();
    let at = below(&library.at(), "/nas/d");
    assert_eq!(names(&at), all);
    // The first and only one that the server lists may be any, so there are several.
    for name in [&b"d/caf\xe9"[..], b"d/\xff\xfe!!", b"d/z\xe4hne"] {
        server.put(name, b"x");
    }
    let refused = library
        .command()
        .args(["scan", "/nas/d"])
        .output()
        .expect("run manifold");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("which is there"), "{said}");
    assert_eq!(names(&at), all, "all that was known is shown");
    assert_eq!(text(&at.join("199")).as_deref(), Some("x"));
    for name in [&b"d/caf\xe9"[..], b"d/\xff\xfe!!", b"d/z\xe4hne"] {
        server.remove(name);
    }
    server.remove(b"d/007");
    scan(&library, "/nas/d");
    assert_eq!(names(&at).len(), all.len() - 1);
    library.unmount();
}

#[test]
fn a_scan_of_a_path_has_shown_everything_when_it_returns() {
    let servers: Vec<(&str, Box<dyn Server>)> = vec![
        ("/bucket", Box::new(SeaweedFs::start())),
        ("/dav", Box::new(Apache::start())),
    ];
    let mut library = Library::new(User::Current);
    for (attach, server) in &servers {
        server.put(b"d/e/file", b"old");
        server.put(b"d/gone", b"gone");
        library.add_server_with(server.as_ref(), attach, NEVER);
    }
    library.mount();
    for (attach, server) in &servers {
        let at = below(&library.at(), attach);
        assert_eq!(text(&at.join("d/e/file")).as_deref(), Some("old"));
        assert_eq!(names(&at.join("d")), ["e", "gone"]);
        assert!(is_absent(&at.join("d/e/new")));
        server.put(b"d/e/file", b"something longer");
        server.put(b"d/e/new", b"n");
        server.put(b"d/e/deep/f", b"f");
        server.remove(b"d/gone");
        let facts = scan(&library, &format!("{attach}/d"));
        assert_eq!(
            (&facts["ended"], &facts["failed"]),
            (&true.into(), &0.into()),
            "{facts}"
        );
        assert_eq!(facts["listed"], 3, "d, d/e and d/e/deep");
        assert_eq!(text(&at.join("d/e/file")).as_deref(), Some("something longer"));
        assert_eq!(text(&at.join("d/e/new")).as_deref(), Some("n"));
        assert_eq!(text(&at.join("d/e/deep/f")).as_deref(), Some("f"));
        assert_eq!(names(&at.join("d")), ["e"]);
        assert!(is_absent(&at.join("d/gone")));
        // A file alone, and everything.
        server.put(b"d/e/file", b"again");
        scan(&library, &format!("{attach}/d/e/file"));
        assert_eq!(text(&at.join("d/e/file")).as_deref(), Some("again"));
        server.put(b"d/e/last", b"l");
        scan(&library, "/");
        assert_eq!(text(&at.join("d/e/last")).as_deref(), Some("l"));
    }
    // A server that is away is said to be, and hides nothing.
    servers[1].1.kill9();
    let refused = library.command().args(["scan", "/dav"]).output().expect("run manifold");
    assert!(!refused.status.success());
    assert_eq!(names(&below(&library.at(), "/dav/d")), ["e"]);
    library.unmount();
}

#[test]
fn what_a_scan_has_shown_is_there_after_a_crash() {
    let server = Folder::start();
    server.put(b"d/file", b"old");
    let mut library = Library::new(User::Current);
    library.add_server_with(&server, "/disk", NEVER);
    library.mount();
    let at = below(&library.at(), "/disk/d");
    assert_eq!(names(&at), ["file"]);
    server.put(b"d/new", b"n");
    scan(&library, "/disk");
    let inode = fs::metadata(at.join("new")).expect("it is there").ino();
    library.kill9();
    // Nothing can be learnt again.
    server.kill9();
    library.mount();
    assert_eq!(names(&at), ["file", "new"]);
    assert_eq!(fs::metadata(at.join("new")).expect("it is there").ino(), inode);
    server.restart();
    library.unmount();
}

#[test]
fn what_is_in_use_on_a_server_that_tells_nothing_is_looked_at_again() {
    let server = Apache::start();
    server.put(b"d/file", b"old");
    let mut library = Library::new(User::Current);
    library.add_server_with(&server, "/dav", &[("refresh", "1s")]);
    library.mount();
    let at = below(&library.at(), "/dav/d");
    assert_eq!(text(&at.join("file")).as_deref(), Some("old"));
    assert!(is_absent(&at.join("new")));
    server.put(b"d/new", b"n");
    server.put(b"d/file", b"something longer");
    until("a new file", || text(&at.join("new")).as_deref() == Some("n"));
    until("a longer file", || {
        text(&at.join("file")).as_deref() == Some("something longer")
    });
    library.unmount();
}

#[test]
fn a_source_that_is_added_shows_at_once_under_a_name_that_was_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("first")).expect("make a folder");
    let mut library = Library::new(User::Current);
    library.add_folder(&folder.path().join("first"), "/first");
    library.mount();
    for attach in ["/one", "/two/three"] {
        let at = below(&library.at(), attach);
        assert!(is_absent(&at));
        let source = folder.path().join(attach.trim_start_matches('/'));
        fs::create_dir_all(&source).expect("make a folder");
        fs::write(source.join("file"), "x").expect("write");
        library.add_folder(&source, attach);
        assert_eq!(text(&at.join("file")).as_deref(), Some("x"), "{attach}");
    }
    library.unmount();
}
