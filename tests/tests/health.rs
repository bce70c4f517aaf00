//! How a mounted library speaks of its sources while real servers stop, come back and refuse, and how it takes credentials
//! that were repaired.
//!
//! Needs /dev/fuse, the servers of `tests/servers/install`, and root for the servers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Samba, SeaweedFs, Server};
use serde_json::Value;

/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(2);

/// What happens in a library, as it is told.
struct Events {
    child: Child,
    lines: Receiver<String>,
}

impl Events {
    fn follow(library: &Library) -> Self {
        let mut child = library
            .command()
            .args(["events", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start manifold");
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("a pipe"))
            .read_line(&mut said)
            .expect("it says that it follows");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits until a source is told to be in that state. Gives what is said of it.
    fn until(&self, attach: &str, state: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("{attach} is never {state}: {error}"));
            let event: Value = serde_json::from_str(&line).expect("each line is an object");
            if event["event"] == "source-state" && event["source"]["attach"] == attach && event["state"] == state {
                return event;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(library: &Library) -> Value {
    let said = expect_success(library.command().args(["status", "--json"]));
    serde_json::from_str(&said).expect("JSON")
}

fn source<'a>(status: &'a Value, attach: &str) -> &'a Value {
    let sources = status["sources"].as_array().expect("a list");
    let found = sources.iter().find(|source| source["attach"] == attach);
    found.unwrap_or_else(|| panic!("{attach} is not in {status}"))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    fs::read(path)
}

#[test]
fn a_server_that_stops_is_told_apart_from_the_others_and_seen_to_come_back() {
    let (samba, bucket) = (Samba::start(), SeaweedFs::start());
    for server in [&samba as &dyn Server, &bucket] {
        server.put(b"one.txt", b"one");
        server.put(b"two.txt", b"two");
    }
    let mut library = Library::new(User::Current);
    library.add_server(&samba, "/nas");
    library.add_server(&bucket, "/bucket");
    library.mount();
    let at = library.at();
    assert_eq!(read(&at.join("nas/one.txt")).expect("it is there"), b"one");
    assert_eq!(read(&at.join("bucket/one.txt")).expect("it is there"), b"one");
    for (attach, server, other) in [("/nas", &samba as &dyn Server, "/bucket"), ("/bucket", &bucket, "/nas")] {
        let events = Events::follow(&library);
        server.pause();
        // Nobody asks it for anything but the status.
        let shown = loop {
            let shown = status(&library);
            if source(&shown, attach)["state"] == "offline" {
                break shown;
            }
        };
        let told = events.until(attach, "offline");
        assert_eq!(shown["verdict"], "attention");
        assert_eq!(source(&shown, attach)["problem"]["message"], told["problem"]["message"]);
        assert!(source(&shown, attach)["health"]["next_probe"].is_string(), "{shown}");
        assert_ne!(source(&shown, other)["state"], "offline", "{shown}");
        assert_eq!(fs::read_dir(at.join(&attach[1..])).expect("it is shown").count(), 2);
        read(&at.join(&attach[1..]).join("two.txt")).expect_err("it was never read");
        server.resume();
        events.until(attach, "online");
        assert_eq!(
            read(&at.join(&attach[1..]).join("two.txt")).expect("it is back"),
            b"two"
        );
        assert_ne!(source(&status(&library), attach)["state"], "offline");
    }
    library.unmount();
}

fn private_file(path: &Path, text: &str) {
    fs::write(path, text).expect("write a secret");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("make it private");
}

#[test]
fn a_password_that_is_repaired_takes_effect_in_the_mount() {
    let samba = Samba::start();
    samba.put(b"one.txt", b"one");
    samba.put(b"two.txt", b"two");
    let mut library = Library::new(User::Current);
    let secret = library.state().join("../home/password");
    private_file(&secret, "wrong");
    let reference = format!(
        "password=file:{}",
        secret.canonicalize().expect("it is there").display()
    );
    expect_success(library.command().args([
        "source",
        "add",
        &samba.uri(),
        "--at",
        "/nas",
        "--force",
        "--set",
        &reference,
    ]));
    library.mount();
    let events = Events::follow(&library);
    let refused = loop {
        let shown = status(&library);
        if source(&shown, "/nas")["state"] != "connecting" {
            break shown;
        }
    };
    assert_eq!(source(&refused, "/nas")["state"], "refused", "{refused}");
    assert!(
        refused["summary"]
            .as_str()
            .expect("words")
            .contains("did not take the credentials"),
        "{refused}"
    );
    // A rotated file is read again by itself.
    private_file(&secret, samba.password());
    events.until("/nas", "online");
    assert_eq!(read(&library.at().join("nas/one.txt")).expect("it is in"), b"one");

    // What cannot be used is not taken, unless that is asked for.
    let with_stdin = |arguments: &[&str], text: &str| {
        let mut child: Child = library
            .command()
            .args(["source", "set", "/nas", "--secret-stdin", "password"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start manifold");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (changed, said) = with_stdin(&[], "wrong again");
    assert!(
        !changed && said.contains("was not changed") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(source(&status(&library), "/nas")["health"]["state"], "online");
    let (changed, said) = with_stdin(&["--force"], "wrong again");
    assert!(changed, "{said}");
    events.until("/nas", "refused");
    let (changed, said) = with_stdin(&[], samba.password());
    assert!(changed, "{said}");
    events.until("/nas", "online");
    assert_eq!(read(&library.at().join("nas/two.txt")).expect("it is in"), b"two");
    let other: &mut Command = &mut library.command();
    let refused = other
        .args(["source", "set", "/nas", "user=somebody"])
        .output()
        .expect("start manifold");
    assert_eq!(refused.status.code(), Some(2), "that would be another source");
    library.unmount();
}
