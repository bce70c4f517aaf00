//! A home folder of its own for each test, and the command run in it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(1);

/// A home folder.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

/// What a command did.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {}", self.stderr))
    }

    /// It failed with exit code 1, and said all of this.
    pub(crate) fn refused(&self, words: &[&str]) {
        self.ended(1, words);
    }

    /// It ended with that code, and said all of this.
    pub(crate) fn ended(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), code, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in: {}", self.stderr);
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert!(self.status.success(), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::Builder::new()
                .prefix("manifold-home-")
                .tempdir()
                .expect("a folder"),
        }
    }

    /// The folder, without links in its path.
    pub(crate) fn path(&self) -> PathBuf {
        fs::canonicalize(self.folder.path()).expect("it is there")
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.join(".local/state/manifold/default")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.join(".config/manifold/default.toml")
    }

    /// Where `up` mounts if nothing is said.
    pub(crate) fn point(&self) -> PathBuf {
        self.join("Manifold")
    }

    /// Makes a folder with one file `name.txt` that holds its own name.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        let folder = self.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let last = folder.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        fs::write(folder.join(format!("{last}.txt")), &last).expect("a file");
        folder
    }

    pub(crate) fn command(&self) -> Command {
        self.run_as(Path::new(env!("CARGO_BIN_EXE_manifold")))
    }

    /// The command under another name.
    pub(crate) fn run_as(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.path())
            .current_dir(self.path())
            .stdin(Stdio::null());
        for name in [
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "DBUS_SESSION_BUS_ADDRESS",
            "MANIFOLD_LOG",
            "NOTIFY_SOCKET",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(self.command().args(arguments))
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.status.success(), "{arguments:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    }

    /// Runs `up`, and waits until it is mounted.
    pub(crate) fn up(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(self.command().arg("up").args(arguments), "mounted at ")
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    into_said(&command.output().expect("it starts"))
}

/// Runs it with something on stdin.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that refuses before it reads has closed it.
    let _refused_already = stdin.write_all(input.as_bytes());
    drop(stdin);
    into_said(&child.wait_with_output().expect("it ends"))
}

fn into_said(output: &std::process::Output) -> Said {
    Said {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A daemon in the foreground, whose stderr is read line by line.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Daemon {
    /// Starts it, and waits for a line that holds `word`.
    pub(crate) fn start(command: &mut Command, word: &str) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let lines = read_lines(child.stderr.take().expect("a pipe"));
        let mut daemon = Self {
            child,
            lines,
            heard: Vec::new(),
        };
        daemon.wait_for(word);
        daemon
    }

    /// Waits for a line that holds `word`.
    pub(crate) fn wait_for(&mut self, word: &str) {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    let found = line.contains(word);
                    self.heard.push(line);
                    if found {
                        return;
                    }
                }
                Err(error) => panic!("it did not say '{word}' ({error}): {}", self.heard.join("\n")),
            }
        }
    }

    /// The line for which it was waited last.
    pub(crate) fn last_heard(&self) -> &str {
        self.heard.last().expect("something was waited for")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end; gives how it ended and all that it said.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("it ends");
        self.heard.extend(self.lines.iter());
        (status, self.heard.join("\n"))
    }

    /// Ends it with Ctrl-C, which must succeed.
    pub(crate) fn interrupt(self) -> String {
        self.signal(rustix::process::Signal::INT);
        let (status, said) = self.wait();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Ends it as a crash would.
    pub(crate) fn kill9(self) {
        self.signal(rustix::process::Signal::KILL);
        let (status, _) = self.wait();
        assert!(!status.success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// Somebody who follows what happens.
pub(crate) struct Events {
    child: Child,
    lines: Receiver<String>,
}

impl Events {
    /// Begins to follow.
    pub(crate) fn follow(home: &Home) -> Self {
        let mut child = home
            .command()
            .args(["events", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = read_lines(child.stderr.take().expect("a pipe"));
        let line = said.recv_timeout(DEADLINE).expect("it says that it follows");
        assert!(line.contains("Ctrl-C"), "{line}");
        let lines = read_lines(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// Waits for the next event of a kind; others are passed over.
    pub(crate) fn next(&mut self, kind: &str) -> serde_json::Value {
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|error| panic!("no event '{kind}': {error}"));
            let event: serde_json::Value = serde_json::from_str(&line).expect("each line is an object");
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn end(mut self) {
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Tells from the kernel's table whether anything is mounted at a path.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the table");
    table.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

/// Waits until it holds; only a test that would hang ends with the deadline.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "it never came that {what}");
        std::thread::yield_now();
    }
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

impl Drop for Home {
    fn drop(&mut self) {
        // A failed test may leave a mount behind, and the folder could not be removed.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.folder.path().to_path_buf();
        for point in table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(&own))
        {
            let _ = Command::new("umount").args(["-l", point]).status();
        }
    }
}
