//! Secrets: taken from stdin or by reference, never from the command line, and never written or said in the clear.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Home, run_with_input, said, text};

const SECRET: &str = "correct-horse-battery-staple";

/// A server that is not there, with a user and so with a password.
fn uri() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a port")
        .port();
    format!("smb://ada@127.0.0.1:{port}/share")
}

/// No file beneath the folder holds the secret, in any of the forms in which it might have got there.
fn nowhere_in(folder: &Path) {
    let base64 = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZ";
    let wide: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut files = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    files += 1;
                    let bytes = fs::read(entry.path()).expect("a file");
                    for form in [SECRET.as_bytes(), base64.as_bytes(), &wide] {
                        let found = bytes.windows(form.len()).any(|window| window == form);
                        assert!(!found, "{} holds the secret", entry.path().display());
                    }
                }
                _ => {}
            }
        }
    }
    assert!(files > 2, "there is something to look at");
}

#[test]
fn a_secret_from_stdin_is_kept_but_stands_nowhere_in_the_clear() {
    let home = Home::new();
    let uri = uri();
    let add = ["source", "add", &uri, "--secret-stdin", "password", "--force"];
    let added = run_with_input(
        home.command().args(add).env("MANIFOLD_LOG", "trace"),
        &format!("{SECRET}\n"),
    );
    assert_eq!(added.code(), 0, "{}", added.stderr);
    assert!(
        !added.stderr.contains(SECRET) && !added.stdout.contains(SECRET),
        "{}",
        added.stderr
    );
    assert!(
        home.state().join("secrets").exists(),
        "without a keyring it is in the encrypted file"
    );
    // It is had again: nothing is asked for, and it is the connection that fails.
    let tested = said(
        home.command()
            .args(["source", "test", "/share"])
            .env("MANIFOLD_LOG", "trace"),
    );
    assert_eq!(tested.code(), 1);
    assert!(
        !tested.stderr.contains("needs the secret") && !tested.stderr.contains(SECRET),
        "{}",
        tested.stderr
    );
    for command in [&["status", "--json"][..], &["source", "list", "--json"], &["settings"]] {
        assert!(!home.ok(command).contains(SECRET));
    }
    home.ok(&["mount", "--background"]);
    home.ok(&["unmount"]);
    nowhere_in(&home.path());
    home.ok(&["source", "remove", "/share"]);
    home.run(&["source", "test", &uri])
        .refused(&["needs the secret `password`"]);
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    let home = Home::new();
    let uri = uri();
    for arguments in [
        &["source", "add", &uri, "--set", "password=correct-horse-battery-staple"][..],
        &["up", &uri, "--set", "password=correct-horse-battery-staple"],
        &["source", "add", &uri, "--set", "correct-horse-battery-staple"],
        &["source", "add", "smb://ada:correct-horse-battery-staple@nas/share"],
    ] {
        let refused = home.run(arguments);
        assert_eq!(refused.code(), 2, "{}", refused.stderr);
        assert!(!refused.stderr.contains(SECRET), "{}", refused.stderr);
    }
    assert_eq!(home.run(&["source", "list"]).code(), 1, "no library was made");
}

#[test]
fn a_missing_secret_is_asked_for_only_on_a_terminal() {
    let home = Home::new();
    let uri = uri();
    home.run(&["source", "add", &uri])
        .refused(&["needs the secret `password`", "--secret-stdin password", "env:NAME"]);
    home.run(&["source", "add", &uri, "--set", "password=env:NOT_SET_ANYWHERE"])
        .refused(&["NOT_SET_ANYWHERE", "not set"]);
    run_with_input(
        home.command()
            .args(["source", "add", &uri, "--secret-stdin", "password"]),
        "",
    )
    .refused(&["no secret `password` on stdin"]);
    run_with_input(
        home.command()
            .args(["source", "add", &uri, "--secret-stdin", "passwort"]),
        SECRET,
    )
    .ended(2, &["it has one: --secret-stdin password"]);
    run_with_input(
        home.command()
            .args(["source", "add", "smb://127.0.0.1:1/x", "--secret-stdin", "password"]),
        SECRET,
    )
    .ended(2, &["has no secret `password`", "name the user"]);
}

#[test]
fn a_source_that_is_refused_leaves_no_secret_behind() {
    let home = Home::new();
    let uri = uri();
    let add = ["source", "add", &uri, "--secret-stdin", "password"];
    run_with_input(home.command().args(add), SECRET).refused(&["was not added"]);
    assert!(!home.state().join("secrets").exists());
    // The path is found to be taken only when it is added.
    home.ok(&["source", "add", crate::support::text(&home.source("Pictures"))]);
    let add = [
        "source",
        "add",
        &uri,
        "--secret-stdin",
        "password",
        "--force",
        "--at",
        "/Pictures",
    ];
    run_with_input(home.command().args(add), SECRET).refused(&["is taken"]);
    home.run(&["source", "test", &uri])
        .refused(&["needs the secret `password`"]);
}

#[test]
fn a_secret_that_cannot_be_had_is_a_refusal_with_a_remedy_and_not_silence() {
    let home = Home::new();
    let (by_name, by_file, file) = (uri(), uri(), home.join("password"));
    fs::write(&file, SECRET).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    let from_file = format!("password=file:{}", file.display());
    for (uri, at, password) in [
        (&by_name, "/name", "password=env:MANIFOLD_TEST_PASSWORD"),
        (&by_file, "/file", &from_file),
    ] {
        let add = ["source", "add", uri, "--at", at, "--set", password, "--force"];
        let added = said(home.command().args(add).env("MANIFOLD_TEST_PASSWORD", SECRET));
        assert_eq!(added.code(), 0, "{}", added.stderr);
    }
    fs::remove_file(&file).expect("it was there");
    home.ok(&["mount", "--background"]);
    for (at, remedy) in [("name", "MANIFOLD_TEST_PASSWORD"), ("file", text(&file))] {
        let looked = fs::read_dir(home.point().join(at)).map(|_| ());
        let told = looked.expect_err("it was never listed").raw_os_error();
        assert_eq!(told, Some(rustix::io::Errno::ACCESS.raw_os_error()), "{at}");
        let status = home.run(&["status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).expect("the status is JSON");
        let sources = status["sources"].as_array().expect("a list");
        let source = sources
            .iter()
            .find(|it| it["attach"] == format!("/{at}"))
            .expect("it is there");
        assert_eq!(source["state"], "refused", "{source:#}");
        let hint = source["problem"]["hint"].as_str().expect("a remedy");
        assert!(hint.contains(remedy), "{source:#}");
    }
    home.ok(&["unmount"]);
}

/// Runs a command on a terminal of its own, answers the first question once the terminal has stopped showing what is
/// typed, and prints all that the terminal showed.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, subprocess, sys, termios, time
master, slave = pty.openpty()
child = subprocess.Popen(sys.argv[2:], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                         preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
while termios.tcgetattr(slave)[3] & termios.ECHO:
    if child.poll() is not None:
        sys.exit("it did not ask")
    time.sleep(0.001)
os.close(slave)
os.write(master, sys.argv[1].encode() + b"\n")
shown = b""
try:
    while more := os.read(master, 4096):
        shown += more
except OSError:
    pass
child.wait()
sys.stdout.buffer.write(shown)
"#;

#[test]
fn a_secret_that_is_asked_for_is_not_shown_while_it_is_typed() {
    let home = Home::new();
    let program = home.command();
    let shown = said(
        home.run_as(Path::new("python3"))
            .args(["-c", ON_A_TERMINAL, SECRET])
            .arg(program.get_program())
            .args(["source", "add", &uri(), "--force"]),
    );
    assert!(shown.status.success(), "{}{}", shown.stdout, shown.stderr);
    assert!(
        shown.stdout.contains("password") && shown.stdout.contains("trying it out"),
        "{}",
        shown.stdout
    );
    assert!(!shown.stdout.contains(SECRET), "{}", shown.stdout);
    assert_eq!(
        home.run(&["source", "list", "--json"]).json().as_array().map(Vec::len),
        Some(1)
    );
    nowhere_in(&home.path());
}

/// Runs a command on a terminal of its own, types Ctrl-C when the terminal has stopped showing what is typed, and prints
/// whether it shows that again once the command has ended, and which signal ended it.
const INTERRUPTED: &str = r#"
import fcntl, os, pty, subprocess, sys, termios, time
master, slave = pty.openpty()
shows = lambda: bool(termios.tcgetattr(slave)[3] & termios.ECHO)
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                         preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
while shows():
    if child.poll() is not None:
        sys.exit("it did not ask")
    time.sleep(0.001)
os.write(master, b"corr\x03")
child.wait()
print(shows(), -child.returncode)
"#;

#[test]
fn a_terminal_shows_again_what_is_typed_after_a_question_that_was_interrupted() {
    let home = Home::new();
    let program = home.command();
    let told = said(
        home.run_as(Path::new("python3"))
            .args(["-c", INTERRUPTED])
            .arg(program.get_program())
            .args(["source", "add", &uri(), "--force"]),
    );
    assert!(told.status.success(), "{}{}", told.stdout, told.stderr);
    let interrupted = rustix::process::Signal::INT.as_raw();
    assert_eq!(told.stdout.trim(), format!("True {interrupted}"));
}
