//! What is left of a daemon that was killed together with its guard, and cannot end (see [`crate::guard`]): it keeps the lock
//! of its library, its socket, on which nobody answers, and its mount, in which everybody waits.

use std::time::{Duration, Instant};

use manifold_fuse::Grip;
use rustix::process::Pid;

use super::Library;
use super::lock::{Role, last_holder};
use crate::failure::Result;
use crate::guard::main_thread_has_ended;
use crate::mounts;
use crate::print::say;

/// How long it may take to end once its mount does not hold it any more. What holds it may be something else, as a file system
/// beneath that hangs; then nothing but that can end it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a daemon that has ended by itself may be without its main thread: the kernel ends that first, and then the others, each of
/// which may have much to let go of.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

impl Library {
    /// Has a daemon of this library let go that was killed and could not end. Its mount is dead then, as that of any that was
    /// killed.
    pub(crate) fn end_undead(&self) -> Result<()> {
        let undead = || {
            let daemon = last_holder(&self.lock_file()).filter(|holder| holder.role == Role::Daemon)?;
            let pid = Pid::from_raw(i32::try_from(daemon.pid?).ok()?)?;
            is_undead(pid).then_some(pid)
        };
        let Some(pid) = undead() else { return Ok(()) };
        if !stays(ENDING_PATIENCE, || undead() == Some(pid)) {
            return Ok(());
        }
        tracing::warn!(pid = pid.as_raw_pid(), "a daemon was killed and could not end");
        let own = self.fs_name();
        for mount in mounts::ours()?.iter().filter(|mount| mount.fs_name == own) {
            if let Err(error) = Grip::take(&mount.point, mount.device).and_then(|grip| grip.abort()) {
                say(error);
            }
        }
        let _gone = stays(PATIENCE, || undead() == Some(pid));
        Ok(())
    }
}

/// Tells whether something holds for all of a time; returns as soon as it does not.
fn stays(time: Duration, holds: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    while holds() {
        if since.elapsed() >= time {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// Tells whether a process was killed, and some of its threads wait in the kernel all the same.
fn is_undead(process: Pid) -> bool {
    let threads = || std::fs::read_dir(format!("/proc/{}/task", process.as_raw_pid())).map_or(0, Iterator::count);
    main_thread_has_ended(process) && threads() > 1
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// A process whose main thread ends while another reads from stdin.
    const MAIN_THREAD_ENDS: &str = "
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print('begun', flush=True)
ctypes.CDLL(None).pthread_exit(None)
";

    #[test]
    fn a_process_that_is_just_ending_is_not_undead_for_long() {
        let mut process = Command::new("python3")
            .args(["-c", MAIN_THREAD_ENDS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut begun = String::new();
        let told = process.stdout.take().expect("a pipe");
        BufReader::new(told).read_line(&mut begun).expect("it tells");
        let pid = Pid::from_child(&process);
        while !is_undead(pid) {
            std::thread::yield_now();
        }
        assert!(stays(PAUSE * 3, || is_undead(pid)), "its other thread waits");
        drop(process.stdin.take());
        // However long that takes on a busy machine: this test would not end else.
        assert!(!stays(Duration::MAX, || is_undead(pid)), "it has ended");
        process.wait().expect("it was ours");
    }
}
