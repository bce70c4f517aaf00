//! Whether the process that made a request is still there to take the answer.
//!
//! The kernel would tell by an interrupt, but fuser does not pass those on. So requests that wait for a source for a
//! while are looked after here: the process table tells whether the thread that asked is gone, or has been killed and
//! only waits for us before it can go. Such a request is answered at once, and nothing more is fetched for it.
//!
//! Always true: a request is given up only if its thread is certainly gone or killed. Who cannot be seen counts as alive.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Weak},
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, test_kill_process},
};

use crate::watchdog::InFlight;

/// A request is looked after once it has waited for so long, and then as often.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks after the requests that wait, until none does.
pub(crate) async fn look_after(in_flight: Weak<InFlight>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(in_flight) = Weak::upgrade(&in_flight) else {
            return;
        };
        if !look(&in_flight) {
            return;
        }
    }
}

/// Gives up what nobody waits for any more; false if nothing waits at all.
fn look(in_flight: &Arc<InFlight>) -> bool {
    let Some(waiting) = in_flight.waiting_longer_than(LOOK_EVERY) else {
        return false;
    };
    let mut gone = HashMap::new();
    for (request, pid) in waiting {
        if *gone.entry(pid).or_insert_with(|| is_gone(pid)) {
            in_flight.give_up(request);
        }
    }
    true
}

/// Tells whether a thread is gone, or has been killed. `pid` is what the kernel gave with the request; 0 for a process
/// that this one cannot see.
fn is_gone(pid: u32) -> bool {
    let Some(thread) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    match test_kill_process(thread) {
        Err(Errno::SRCH) => true,
        // /proc may hide what is another user's.
        _ => fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_dead_or_dying(&status)),
    }
}

/// Reads `proc_pid_status(5)`. A fatal signal of any kind shows as a SIGKILL to each thread.
fn is_dead_or_dying(status: &str) -> bool {
    let kill = 1_u64 << (Signal::KILL.as_raw() - 1);
    status.lines().any(|line| match line.split_once(':') {
        Some(("State", state)) => state.trim_start().starts_with(['Z', 'X']),
        Some(("SigPnd" | "ShdPnd", set)) => u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & kill != 0),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_runs_is_there_and_who_has_ended_is_gone() {
        assert!(!is_gone(std::process::id()));
        assert!(!is_gone(0), "it cannot be seen");
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        assert!(!is_gone(child.id()));
        child.kill().expect("it is ours");
        // A zombie until it is waited for, but not there to take an answer.
        while !is_gone(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it was ours");
        assert!(is_gone(child.id()));
    }

    #[test]
    fn who_is_killed_and_waits_for_us_is_seen_by_the_signal() {
        let status = |pending: &str| format!("Name:\tcat\nState:\tD (disk sleep)\nSigPnd:\t{pending}\nShdPnd:\t0\n");
        assert!(is_dead_or_dying(&status("0000000000000100")));
        assert!(
            !is_dead_or_dying(&status("0000000000000002")),
            "an interrupt that may be handled"
        );
        assert!(is_dead_or_dying("State:\tZ (zombie)\n"));
        assert!(!is_dead_or_dying(""));
    }
}
