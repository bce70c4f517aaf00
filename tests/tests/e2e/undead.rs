//! A daemon that is killed while the kernel holds one of its threads: here one that looks at a file whose size has changed, and
//! waits for a page of it that a file system beneath does not give.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use manifold_tests::mounted::{Library, User, expect_success};
use rustix::process::{Pid, Signal, kill_process};

use crate::hung::{FILES, Lower, until};
use crate::originals::noise;

/// Nothing here ends by a deadline.
const SETTINGS: &str = "[deadlines]\nconnect = \"5 m\"\ndata = \"10 m\"\nmetadata = \"10 m\"\n";

/// A mount in which a reader waits for a page, and two threads of the daemon for the file system beneath: one of them can be
/// killed, the other not.
struct Held {
    library: Library,
    reader: Child,
    scan: Child,
    /// Gives a byte of its files each second.
    lower: Lower,
}

impl Held {
    fn start() -> Self {
        let lower = Lower::start_with(&["--multithreaded", "--read-rate=1"]);
        let mut library = Library::new(User::Current);
        library.settings(SETTINGS);
        library.add_folder(&lower.shown(), "/slow");
        library.mount();
        let folder = library.at().join("slow/sub");
        until("the scan sees all files", || {
            fs::read_dir(&folder).is_ok_and(|found| found.count() == FILES)
        });
        let reader = quiet(Command::new("cat").arg(folder.join("file 0")));
        until("the daemon reads", || waiting(library.pid()) == 1);
        fs::write(lower.beneath("sub/file 0"), noise(90_000, 99)).expect("it gets smaller");
        let scan = || quiet(library.command().args(["scan", "/slow"]));
        let mut last = scan();
        // The first may be told the old size.
        until("the daemon looks at it", || {
            if last.try_wait().expect("it is ours").is_some() {
                last = scan();
            }
            waiting(library.pid()) == 2
        });
        Self {
            library,
            reader,
            scan: last,
            lower,
        }
    }

    /// Kills the daemon, which the kernel does not let end.
    fn kill(&self) {
        let daemon = Pid::from_raw(self.library.pid().cast_signed()).expect("a process");
        kill_process(daemon, Signal::KILL).expect("it is ours");
        until("its main thread ends", || state(self.library.pid(), None) == Some('Z'));
        until("all end that can", || threads(self.library.pid()).len() <= 2);
        assert_eq!(threads(self.library.pid()).len(), 2, "the kernel has let it end");
    }

    fn reader_is_told(&mut self) {
        until("the reader is told", || {
            self.reader.try_wait().expect("it is ours").is_some()
        });
        let told = self.reader.wait().expect("it is ours");
        assert!(!told.success(), "it was given bytes that nobody read");
    }

    /// The file system beneath goes, and with it what held the daemon.
    fn daemon_ends(&mut self) {
        self.lower.end();
        self.library.kill9();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.lower.end();
        // Frees whoever waits yet, where something went wrong.
        let _dead = Command::new("umount")
            .args(["-f", "-l"])
            .arg(self.library.at())
            .output();
        for process in [&mut self.reader, &mut self.scan] {
            let _gone = process.kill();
            let _gone = process.wait();
        }
    }
}

fn quiet(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start it")
}

/// How many threads of a daemon wait within the kernel for a file system beneath.
fn waiting(process: u32) -> usize {
    let local = threads(process)
        .into_iter()
        .filter(|(_, name)| name.starts_with("manifold-local"));
    local
        .filter(|(thread, _)| state(process, Some(*thread)) == Some('D'))
        .count()
}

/// The guard of a daemon, once it is called so.
fn guard_of(daemon: u32) -> Option<Pid> {
    let mut guards = fs::read_dir("/proc")
        .expect("the processes")
        .flatten()
        .filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(") ")?;
            let parent: u32 = rest.split(' ').nth(1)?.parse().ok()?;
            let is_ours = name.ends_with("(mount-guard") && parent == daemon;
            is_ours.then(|| name.split(' ').next()?.parse().ok()).flatten()
        });
    guards.find_map(Pid::from_raw)
}

/// The threads of a process, each with its name.
fn threads(process: u32) -> Vec<(u32, String)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let named = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim_end().to_owned()))
    });
    named.collect()
}

/// The state of a process, or of one of its threads, as `proc_pid_stat(5)` has it.
fn state(process: u32, thread: Option<u32>) -> Option<char> {
    let path = match thread {
        Some(thread) => format!("/proc/{process}/task/{thread}/stat"),
        None => format!("/proc/{process}/stat"),
    };
    let stat = fs::read_to_string(path).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn who_waits_for_a_daemon_that_was_killed_and_cannot_end_is_told() {
    let mut held = Held::start();
    held.kill();
    held.reader_is_told();
    held.daemon_ends();
}

#[test]
fn a_daemon_that_was_killed_with_its_guard_is_cleared_away_by_the_next_command() {
    let mut held = Held::start();
    let daemon = held.library.pid();
    until("it has a guard", || guard_of(daemon).is_some());
    let guard = guard_of(daemon).expect("it was there");
    // One that is killed before the daemon is followed by another.
    kill_process(guard, Signal::STOP).expect("it is ours");
    held.kill();
    kill_process(guard, Signal::KILL).expect("it is ours");
    // What a guard is for.
    assert!(held.reader.try_wait().expect("it is ours").is_none());
    expect_success(held.library.command().arg("unmount").arg(held.library.at()));
    held.reader_is_told();
    held.daemon_ends();
    assert_eq!(fs::read_dir(held.library.at()).expect("it is free").count(), 0);
}

#[test]
fn the_guard_ends_with_its_daemon() {
    let lower = tempfile::tempdir().expect("a folder");
    fs::write(lower.path().join("file"), "on the disk").expect("a file");
    let mut library = Library::new(User::Current);
    library.add_folder(lower.path(), "/disk");
    library.mount();
    let daemon = library.pid();
    until("it has a guard", || guard_of(daemon).is_some());
    let guard = guard_of(daemon).expect("it was there").as_raw_pid();
    let guard = Path::new("/proc").join(guard.to_string());
    let open: Vec<_> = fs::read_dir(guard.join("fd"))
        .expect("its descriptors")
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .collect();
    assert!(open.iter().all(|file| file != Path::new("/dev/fuse")), "{open:?}");
    assert_eq!(fs::read(guard.join("environ")).expect("it is ours"), b"");
    library.unmount();
    assert!(!guard.exists());
}

#[test]
fn a_guard_that_was_killed_is_followed_by_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut library = Library::new(User::Current);
    library.add_folder(folder.path(), "/files");
    library.mount();
    let daemon = library.pid();
    until("it has a guard", || guard_of(daemon).is_some());
    let first = guard_of(daemon).expect("it was there");
    kill_process(first, Signal::KILL).expect("it is ours");
    until("nothing is left of it", || {
        !Path::new(&format!("/proc/{}", first.as_raw_pid())).exists()
    });
    until("it has another guard", || guard_of(daemon).is_some());
    let status = expect_success(library.command().arg("status"));
    assert!(!status.contains("no guard"), "{status}");
    library.unmount();
}
