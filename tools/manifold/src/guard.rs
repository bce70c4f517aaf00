//! The guard: a small process beside the daemon, which sees to it that nobody waits for a daemon that was killed.
//!
//! The kernel ends a mount when its daemon is gone. But a killed daemon is not gone while one of its threads is within the
//! kernel and cannot be woken: telling it of a change can wait there for a page, or for a directory, that a request holds which
//! nobody answers any more. Each then waits for the other, without an end. The guard learns that the daemon's main thread has
//! ended, and aborts the connection, which frees all of them.
//!
//! Owns nothing but a [`Grip`] on the mount; no descriptor of `/dev/fuse`, no secret, no folder. Always true: it aborts nothing
//! while the daemon lives; and it ends when the daemon does, however that ends.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use manifold_fuse::Grip;
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Result};
use crate::print::say;

/// What the kernel sends the guard when the daemon's main thread ends.
const DAEMON_ENDED: (Signal, SignalKind) = (Signal::USR1, SignalKind::user_defined1());
/// How the guard is called in lists of processes: whoever ends all of a name means the daemon.
const NAME: &std::ffi::CStr = c"mount-guard";
/// A message is a device number, a blank, a mount point, and this.
const END: u8 = 0;
/// No message is longer, in bytes: a path has 4,096.
const MESSAGE_MAX: usize = 8 << 10;

/// The guard, in the hands of its daemon.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
    told: ChildStdin,
}

impl Guard {
    /// Starts the guard of this process. It is told of the end of the thread that calls this, which therefore has to be the
    /// main one.
    pub(crate) fn start() -> Result<Self> {
        let failed = |error: io::Error| Failure::new(format!("cannot start the guard of the mount: {error}"));
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("guard")
            // Secrets may stand there.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let told = process.stdin.take();
        let told = told.ok_or_else(|| Failure::new("the guard of the mount has no way to be told"))?;
        Ok(Self { process, told })
    }

    /// Has it look after this mount from now on, in the place of the one before.
    pub(crate) fn look_after(&mut self, point: &Path, device: u64) -> Result<()> {
        let mut message = format!("{device} ").into_bytes();
        message.extend_from_slice(point.as_os_str().as_bytes());
        message.push(END);
        self.told
            .write_all(&message)
            .map_err(|error| Failure::new(format!("cannot tell the guard of the mount: {error}")))
    }

    /// Tells whether it has ended, though nobody has asked it to: it was killed.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self.process.try_wait() {
            Ok(status) => status.is_some(),
            Err(error) => {
                tracing::debug!(%error, "the guard of the mount was not looked at");
                false
            }
        }
    }

    /// Has it end, and with it what is left of the mount.
    pub(crate) fn dismiss(self) {
        let Self { mut process, told } = self;
        drop(told);
        if let Err(error) = process.wait() {
            tracing::debug!(%error, "the guard of the mount was not seen to end");
        }
    }
}

/// What the guard does.
pub(crate) fn run() -> Result<()> {
    let failed = |error: io::Error| Failure::new(format!("cannot guard a mount: {error}"));
    // Ctrl-C is for the daemon, which ends us.
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    rustix::thread::set_name(NAME).map_err(|errno| failed(errno.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed)?.block_on(guard()).map_err(failed)
}

async fn guard() -> io::Result<()> {
    let mut ended = signal(DAEMON_ENDED.1)?;
    // They end the daemon first, which may want to take its time.
    let _others = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    rustix::process::set_parent_process_death_signal(Some(DAEMON_ENDED.0))?;
    let told = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut messages = Messages::default();
    // It may have ended before we asked to be told of it.
    let mut is_over = rustix::process::getppid().is_none_or(main_thread_has_ended);
    while !is_over {
        tokio::select! {
            _ended = ended.recv() => is_over = true,
            readable = told.readable() => {
                readable?;
                is_over = messages.take(&told)?;
            }
        }
    }
    // What was told at last.
    messages.take(&told)?;
    if let Some(grip) = messages.grip
        && let Err(error) = grip.abort()
    {
        say(error);
    }
    Ok(())
}

/// What the daemon has told.
#[derive(Debug, Default)]
struct Messages {
    begun: Vec<u8>,
    grip: Option<Grip>,
}

impl Messages {
    /// Takes what has come. Gives whether that was the last.
    fn take(&mut self, told: &pipe::Receiver) -> io::Result<bool> {
        let mut bytes = [0; MESSAGE_MAX];
        loop {
            match told.try_read(&mut bytes) {
                Ok(0) => return Ok(true),
                Ok(count) => bytes.iter().take(count).for_each(|byte| self.push(*byte)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if byte != END {
            self.begun.push(byte);
            self.begun.truncate(MESSAGE_MAX);
            return;
        }
        if let Some((device, point)) = parse(&std::mem::take(&mut self.begun)) {
            self.grip = Grip::take(&point, device).inspect_err(say_that_it_is_unguarded).ok();
        }
    }
}

fn say_that_it_is_unguarded(error: &manifold_fuse::MountError) {
    say(format_args!(
        "if this daemon is killed, readers may have to wait until its mount is taken away by force: {error}"
    ));
    if !Grip::control_is_mounted() {
        say("hint: root can mend that for all mounts to come: mount -t fusectl fusectl /sys/fs/fuse/connections");
    }
}

fn parse(message: &[u8]) -> Option<(u64, PathBuf)> {
    let blank = message.iter().position(|byte| *byte == b' ')?;
    let (device, point) = (message.get(..blank)?, message.get(blank + 1..)?);
    let device = std::str::from_utf8(device).ok()?.parse().ok()?;
    Some((device, PathBuf::from(OsStr::from_bytes(point))))
}

/// Tells whether the main thread of a process has ended though the process is there yet: it was killed, and waits in the kernel
/// for something; or nobody has taken notice of its end.
pub(crate) fn main_thread_has_ended(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).unwrap_or_default();
    // `proc_pid_stat(5)`: the name stands in parentheses and may hold anything, and the state follows.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_a_device_and_any_path() {
        assert_eq!(
            parse(b"57 /mnt/my drive\n"),
            Some((57, PathBuf::from("/mnt/my drive\n")))
        );
        for bad in [&b""[..], b"57", b"x /mnt", b" /mnt"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn a_process_that_ended_unnoticed_has_no_main_thread() {
        assert!(!main_thread_has_ended(rustix::process::getpid()));
        let mut ended = Command::new("true").stdout(Stdio::piped()).spawn().expect("true");
        let pid = Pid::from_child(&ended);
        while !main_thread_has_ended(pid) {
            std::thread::yield_now();
        }
        ended.wait().expect("it was ours");
        assert!(!main_thread_has_ended(pid), "it is gone altogether");
    }
}
