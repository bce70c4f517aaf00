//! A mounted library: how it begins, what it answers meanwhile, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Daemon, Events, Home, is_mounted, names, said, text, wait_until};

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn up_makes_a_library_shows_its_folders_and_unmounts_on_ctrl_c() {
    let home = Home::new();
    let (pictures, again, music) = (
        home.source("Pictures"),
        home.source("old/Pictures"),
        home.source("Music"),
    );
    let mut daemon = home.up(&[text(&pictures), text(&again), text(&music), text(&music)]);
    let point = home.point();
    assert_eq!(names(&point), ["Music", "Pictures", "Pictures 2"]);
    assert_eq!(
        fs::read_to_string(point.join("Pictures/Pictures.txt")).expect("it is shown"),
        "Pictures"
    );
    assert_eq!(
        fs::read_to_string(point.join("Music/Music.txt")).expect("it is shown"),
        "Music"
    );
    for _ in 0..3 {
        daemon.wait_for("is scanned: ");
    }
    let said = daemon.interrupt();
    assert!(said.contains("named twice") && said.ends_with("unmounted"), "{said}");
    assert!(!is_mounted(&point));
    assert_eq!(names(&point), [""; 0]);

    let daemon = home.up(&[]);
    assert_eq!(
        names(&point),
        ["Music", "Pictures", "Pictures 2"],
        "what was there is mounted again"
    );
    daemon.interrupt();
    let daemon = home.up(&[text(&pictures)]);
    assert_eq!(names(&point).len(), 3);
    assert!(daemon.interrupt().contains("is there already, at /Pictures"));
}

#[test]
fn every_signal_that_asks_for_the_end_unmounts() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let daemon = home.up(&[]);
        assert!(is_mounted(&home.point()));
        daemon.signal(signal);
        let (status, said) = daemon.wait();
        assert!(status.success(), "{signal:?}: {said}");
        assert!(!is_mounted(&home.point()), "{signal:?}");
        assert!(!home.state().join("control.sock").exists());
    }
}

#[test]
fn a_killed_daemon_s_mount_is_taken_away_by_the_next() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    home.up(&[text(&pictures)]).kill9();
    assert!(is_mounted(&home.point()), "the dead mount stays");
    let status = home.run(&["status", "--json"]).json();
    assert_eq!(status["verdict"], "not-mounted");
    let daemon = home.up(&[]);
    assert_eq!(
        fs::read_to_string(home.point().join("Pictures/Pictures.txt")).expect("it is shown"),
        "Pictures"
    );
    daemon.interrupt();
    assert!(!is_mounted(&home.point()));

    home.up(&[]).kill9();
    home.run(&["unmount"]).ended(0, &["took away the dead mount"]);
    assert!(!is_mounted(&home.point()));
    home.run(&["unmount"]).refused(&["is not mounted"]);
}

#[test]
fn what_is_added_or_removed_shows_in_the_mount_without_another() {
    let home = Home::new();
    let (pictures, music) = (home.source("Pictures"), home.source("Music"));
    let daemon = home.up(&[text(&pictures)]);
    assert_eq!(names(&home.point()), ["Pictures"]);
    assert!(
        !home.point().join("media").exists(),
        "the kernel has heard that it is not there"
    );
    home.ok(&["source", "add", text(&music), "--at", "/media/music"]);
    // The kernel is told by a thread of its own, a moment after the command has its answer.
    wait_until("/media shows", || home.point().join("media").exists());
    assert_eq!(
        fs::read_to_string(home.point().join("media/music/Music.txt")).expect("it is shown"),
        "Music"
    );
    home.ok(&["source", "remove", "/Pictures"]);
    wait_until("/Pictures is gone", || !home.point().join("Pictures").exists());
    assert_eq!(names(&pictures), ["Pictures.txt"], "nothing was deleted at the source");
    home.run(&["source", "remove", "/Pictures"])
        .refused(&["has no source '/Pictures'", "it has /media/music"]);
    home.ok(&["source", "scan"]);
    daemon.interrupt();
    home.run(&["source", "scan"]).refused(&["none runs"]);
}

#[test]
fn a_source_that_is_away_is_offline_in_words_and_its_tree_stays() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let mut daemon = home.up(&[text(&pictures)]);
    daemon.wait_for("is scanned");
    daemon.interrupt();
    fs::rename(&pictures, home.join("unplugged")).expect("it goes");
    let mut daemon = home.up(&[]);
    daemon.wait_for("/Pictures is offline");
    assert_eq!(names(&home.point().join("Pictures")), ["Pictures.txt"]);
    let status = home.run(&["status", "--json"]).json();
    assert_eq!(
        (&status["verdict"], &status["sources"][0]["state"]),
        (&"attention".into(), &"offline".into())
    );
    assert!(
        !status["sources"][0]["problem"]["message"]
            .as_str()
            .expect("words")
            .is_empty()
    );
    let shown = home.ok(&["status"]);
    assert!(
        shown
            .lines()
            .next()
            .expect("a line")
            .contains("/Pictures cannot be reached"),
        "{shown}"
    );
    fs::rename(home.join("unplugged"), &pictures).expect("it comes back");
    daemon.wait_for("/Pictures is back");
    assert_eq!(
        fs::read_to_string(home.point().join("Pictures/Pictures.txt")).expect("it is shown"),
        "Pictures"
    );
    daemon.interrupt();
}

#[test]
fn who_follows_hears_that_a_source_goes_and_comes_back_and_status_says_the_same() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let mut daemon = home.up(&[text(&pictures)]);
    daemon.wait_for("is scanned");
    let mut events = Events::follow(&home);
    fs::rename(&pictures, home.join("unplugged")).expect("it goes");
    // Nothing was asked of it since: status asks, and what it says is what was told.
    let status = |state: &str| {
        wait_until(state, || {
            home.run(&["status", "--json"]).json()["sources"][0]["state"] == state
        });
        home.run(&["status", "--json"]).json()["sources"][0].clone()
    };
    let gone = status("offline");
    let event = events.next("source-state");
    assert_eq!(
        (&event["state"], &event["source"]["attach"]),
        (&"offline".into(), &"/Pictures".into())
    );
    assert_eq!(event["problem"], gone["problem"]);
    assert_eq!(gone["health"]["since"], gone["problem"]["since"]);
    assert!(gone["health"]["next_probe"].is_string(), "{gone}");
    fs::rename(home.join("unplugged"), &pictures).expect("it comes back");
    let event = events.next("source-state");
    assert_eq!((&event["was"], &event["state"]), (&"offline".into(), &"online".into()));
    let back = home.run(&["status", "--json"]).json();
    assert_eq!(
        back["verdict"], "ok",
        "the status and the events come from one record: {back}"
    );
    assert!(back["sources"][0]["health"]["last_error"].is_object(), "{back}");
    home.ok(&["source", "scan"]);
    assert_eq!(events.next("scan-began")["source"]["id"], 1);
    let event = events.next("scan-ended");
    assert_eq!((&event["end"], &event["failed"]), (&"finished".into(), &0.into()));
    daemon.interrupt();
    events.next("unmounting");
    events.end();
    home.run(&["events"]).refused(&["is not mounted", "manifold mount"]);
}

#[test]
fn only_the_owner_gets_at_the_state_and_the_socket() {
    let home = Home::new();
    home.ok(&["settings"]);
    fs::write(home.settings(), "cache.directory = \"~/blocks\"\n").expect("write");
    fs::set_permissions(home.settings(), fs::Permissions::from_mode(0o600)).expect("its owner may");
    let daemon = home.up(&[text(&home.source("Pictures"))]);
    let state = home.state();
    assert_eq!(mode(&home.join("blocks")), 0o700);
    assert_eq!(mode(&state.join("catalog.redb")), 0o600);
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("control.sock")), 0o600);
    assert_eq!(mode(&state.join("lock")), 0o600);
    assert_eq!(mode(&home.settings()), 0o600);
    assert_eq!(mode(home.settings().parent().expect("a folder")), 0o700);
    daemon.interrupt();
}

#[test]
fn other_users_are_told_whose_library_it_is() {
    const NOBODY: u32 = 65534;
    let home = Home::new();
    let pictures = home.source("Pictures");
    let as_nobody = || {
        let mut command = home.run_as(Path::new("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_manifold"));
        command
    };
    let daemon = home.up(&[text(&pictures)]);
    std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("needs root");
    said(as_nobody().arg("status")).refused(&["Permission denied"]);
    daemon.interrupt();

    let theirs = home.join("theirs/lib");
    fs::create_dir(home.join("theirs")).expect("a folder");
    std::os::unix::fs::chown(home.join("theirs"), Some(NOBODY), Some(NOBODY)).expect("needs root");
    let at = home.join("theirs/m");
    let daemon = Daemon::start(
        as_nobody().args(["--library", text(&theirs), "up", text(&pictures), "--at", text(&at)]),
        "mounted at ",
    );
    home.run(&["--library", text(&theirs), "status"])
        .refused(&["another user (id 65534)"]);
    daemon.interrupt();
}

#[test]
fn a_library_that_is_not_there_is_not_mounted_empty() {
    let home = Home::new();
    home.run(&["--library", "picturs", "mount"])
        .refused(&["there is no library 'picturs' yet", "manifold up"]);
    assert!(!home.join("Manifold-picturs").exists() && !home.join(".config").exists());
}

#[test]
fn a_daemon_takes_as_many_open_files_as_it_may() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let mut command = home.run_as(Path::new("prlimit"));
    command.args(["--nofile=128:4000", env!("CARGO_BIN_EXE_manifold"), "mount"]);
    let daemon = Daemon::start(&mut command, "mounted");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("it lives");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files"));
    let numbers: Vec<_> = open_files.expect("it is listed").split_whitespace().collect();
    assert_eq!(numbers[3..5], ["4000", "4000"]);
    daemon.interrupt();
}

#[test]
fn a_daemon_in_the_background_keeps_nothing_open_that_it_was_not_given() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let mut shell = home.run_as(Path::new("sh"));
    shell.args([
        "-c",
        r#"exec "$0" mount --background 3>&1 >/dev/null 2>&1"#,
        env!("CARGO_BIN_EXE_manifold"),
    ]);
    // Its end is the end of the pipe, which comes when nobody has it open any more.
    let output = shell.output().expect("sh runs");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    home.ok(&["status"]);
    home.ok(&["unmount"]);
}

#[test]
fn the_socket_answers_one_line_of_json_for_each() {
    let home = Home::new();
    let daemon = home.up(&[text(&home.source("Pictures"))]);
    let mut stream = UnixStream::connect(home.state().join("control.sock")).expect("it listens");
    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
    for (asked, found) in [
        (r#"{"version":1,"request":"status"}"#, r#""verdict":"ok""#),
        (r#"{"version":2,"request":"status"}"#, r#""error""#),
        (
            r#"{"version":1,"request":"list","path":"/","limit":9}"#,
            r#""name":"Pictures""#,
        ),
        ("nonsense", r#""error""#),
    ] {
        writeln!(stream, "{asked}").expect("it reads");
        let line = lines.next().expect("it answers").expect("a line");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
        assert!(line.contains(found), "{asked}: {line}");
    }
    daemon.interrupt();
}

#[test]
fn an_unmount_from_outside_ends_the_daemon_well() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let daemon = home.up(&[]);
    let unmounted = Command::new("fusermount3")
        .arg("-u")
        .arg(home.point())
        .status()
        .expect("fusermount3 runs");
    assert!(unmounted.success());
    let (status, said) = daemon.wait();
    assert!(status.success() && said.contains("from outside"), "{status}: {said}");
    let daemon = home.up(&[]);
    home.ok(&["unmount"]);
    let (status, said) = daemon.wait();
    assert!(status.success(), "{status}: {said}");
    let daemon = home.up(&[]);
    home.ok(&["--library", "other", "unmount", text(&home.point())]);
    let (status, said) = daemon.wait();
    assert!(status.success(), "the mount itself tells whose it is: {status}: {said}");
}

#[test]
fn a_busy_mount_is_detached_and_a_second_signal_ends_at_once() {
    let home = Home::new();
    let mut daemon = home.up(&[text(&home.source("Pictures"))]);
    let file = fs::File::open(home.point().join("Pictures/Pictures.txt")).expect("it is shown");
    daemon.signal(Signal::INT);
    daemon.wait_for("still open");
    assert!(!is_mounted(&home.point()), "its name is free already");
    daemon.signal(Signal::INT);
    let (status, said) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    drop(file);
}

#[test]
fn the_cache_of_a_source_that_is_not_there_is_not_said_to_be_cleared() {
    let home = Home::new();
    let daemon = home.up(&[text(&home.source("Pictures"))]);
    let mut socket = UnixStream::connect(home.state().join("control.sock")).expect("it listens");
    let uri = format!("file://{}", home.join("Picture").display());
    writeln!(socket, r#"{{"version":1,"request":"cache-clear","source":"{uri}"}}"#).expect("it takes it");
    let mut answer = String::new();
    BufReader::new(&socket).read_line(&mut answer).expect("it answers");
    assert!(answer.contains("no source") && answer.contains("/Pictures"), "{answer}");
    daemon.interrupt();
}

#[test]
fn a_mount_in_the_background_returns_when_it_is_there_or_says_why_not() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    home.run(&["mount", "--background"]).ended(0, &["mounted at"]);
    assert_eq!(names(&home.point()), ["Pictures"]);
    home.run(&["mount", "--background"]).refused(&["in use by the daemon"]);
    home.ok(&["unmount"]);
    assert!(!is_mounted(&home.point()));
    home.source("Manifold");
    home.run(&["mount", "--background"])
        .refused(&["is not empty", "hint: name an empty directory"]);
}

#[test]
fn of_two_mounts_in_the_background_one_says_why_it_is_none_and_nothing_else() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let both = std::thread::scope(|scope| {
        let run = || home.run(&["mount", "--background"]);
        [scope.spawn(run), scope.spawn(run)].map(|it| it.join().expect("no panic"))
    });
    let (mounted, refused): (Vec<_>, Vec<_>) = both.into_iter().partition(|said| said.code() == 0);
    assert_eq!((mounted.len(), refused.len()), (1, 1));
    refused[0].refused(&["error: ", "in use by the daemon"]);
    for line in refused[0].stderr.lines() {
        assert!(
            line.starts_with("error: ") || line.starts_with("hint: "),
            "'{line}' is for the log"
        );
    }
    home.ok(&["unmount"]);
}

#[test]
fn the_mount_helper_mounts_as_fstab_asks() {
    let home = Home::new();
    let library = home.join("library");
    let pictures = home.source("Pictures");
    home.ok(&["--library", text(&library), "source", "add", text(&pictures)]);
    let helper = home.join("mount.manifold");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_manifold"), &helper).expect("a link");
    let at = home.join("at");
    fs::create_dir(&at).expect("a folder");
    said(
        home.run_as(&helper)
            .arg(&library)
            .arg(&at)
            .args(["-o", "ro,cache=full"]),
    )
    .ended(2, &["unknown mount option"]);
    let mounted =
        said(
            home.run_as(&helper)
                .env_remove("HOME")
                .arg(&library)
                .arg(&at)
                .args(["-n", "-o", "rw,_netdev,nofail"]),
        );
    assert_eq!(mounted.code(), 0, "{}", mounted.stderr);
    assert_eq!(
        fs::read_to_string(at.join("Pictures/Pictures.txt")).expect("it is shown"),
        "Pictures"
    );
    // `mount -a` comes again, for a line that is mounted.
    let again = said(home.run_as(&helper).arg(&library).arg(&at));
    assert_eq!(again.code(), 0, "{}", again.stderr);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the table");
    let here = mounts.lines().filter(|line| line.split(' ').nth(4) == at.to_str());
    assert_eq!(here.count(), 1, "it is mounted once");
    // Another place is another matter.
    let elsewhere = home.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    said(home.run_as(&helper).arg(&library).arg(&elsewhere)).refused(&["daemon"]);
    home.ok(&["unmount", text(&at)]);
    assert!(!is_mounted(&at));
}

#[test]
fn up_tells_what_happens_as_json_where_that_was_asked_for() {
    let home = Home::new();
    let mut up = home
        .command()
        .args(["up", "--json", text(&home.source("Pictures"))])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = BufReader::new(up.stdout.take().expect("a pipe"));
    let mut events = Vec::new();
    for line in stdout.lines().map_while(Result::ok) {
        let event: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("no object ({error}): {line}"));
        if event["event"] == "scan-ended" {
            let pid = rustix::process::Pid::from_child(&up);
            rustix::process::kill_process(pid, Signal::INT).expect("it runs");
        }
        events.push(event["event"].as_str().expect("its kind").to_owned());
    }
    let ended = up.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    for words in ["added", "mounted at", "is scanned"] {
        assert!(!said.contains(words), "an event is told in words too: {said}");
    }
    assert!(events.iter().any(|event| event == "mounted"), "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("unmounting"), "{events:?}");
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let path = home.join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    let daemon = Daemon::start(
        home.command()
            .args(["mount"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000"),
        "mounted",
    );
    let heard = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).expect("it speaks");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(word) {
                return text;
            }
        }
    };
    assert!(heard("READY=1").contains("STATUS=mounted at"));
    assert!(is_mounted(&home.point()), "ready means mounted");
    heard("WATCHDOG=1");
    daemon.signal(Signal::TERM);
    heard("STOPPING=1");
    let (status, said) = daemon.wait();
    assert!(status.success(), "{said}");
}

#[test]
fn commands_that_work_by_themselves_wait_for_each_other() {
    let home = Home::new();
    home.ok(&["source", "add", text(&home.source("Pictures"))]);
    let children: Vec<_> = (0..6)
        .map(|i| {
            let mut command = home.command();
            let folder = home.source(&format!("more{i}"));
            command.args(["source", "add"]).arg(folder);
            command.stderr(std::process::Stdio::piped()).spawn().expect("it starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(home.run(&["ls", "--json"]).json().as_array().map(Vec::len), Some(7));
}
