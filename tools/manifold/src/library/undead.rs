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
        tracing::warn!(pid = pid.as_raw_pid(), "a daemon was killed and could not end");
        let own = self.fs_name();
        for mount in mounts::ours()?.iter().filter(|mount| mount.fs_name == own) {
            if let Err(error) = Grip::take(&mount.point, mount.device).and_then(|grip| grip.abort()) {
                say(error);
            }
        }
        let since = Instant::now();
        while undead() == Some(pid) && since.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Tells whether a process was killed, and some of its threads wait in the kernel all the same.
fn is_undead(process: Pid) -> bool {
    let threads = || std::fs::read_dir(format!("/proc/{}/task", process.as_raw_pid())).map_or(0, Iterator::count);
    main_thread_has_ended(process) && threads() > 1
}
