//! The lock on a library: held by the daemon for as long as it runs, or by a command for as long as it works.
//!
//! It is an advisory lock (flock) on a file that says who holds it, so that the next one can say so too. The kernel lets
//! go of it when its holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Failure, Result, is_full, library_failure};

/// How long one waits for a command that holds the lock; commands are short.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one looks whether it has let go.
const PAUSE: Duration = Duration::from_millis(20);

/// Who holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A daemon, which answers on the control socket.
    Daemon,
    /// A command that works by itself, since no daemon runs.
    Command,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Command => "command",
        }
    }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Who else holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process id, where it could still be read.
    pub(crate) pid: Option<u32>,
    /// What it does.
    pub(crate) role: Role,
}

impl Holder {
    /// Says that the library is in use.
    pub(crate) fn in_use(self, library: &str) -> Failure {
        let pid = self
            .pid
            .map_or_else(|| "of unknown id".to_owned(), |pid| pid.to_string());
        Failure::new(format!(
            "the library '{library}' is in use by the {} with process id {pid}",
            self.role.as_str()
        ))
    }

    /// Says that the library is in use, and what can be done about it.
    pub(crate) fn refusal(self, library: &str) -> Failure {
        self.in_use(library).hint(match self.role {
            Role::Daemon => "add to it: manifold source add FOLDER_OR_URI; end it: manifold unmount",
            Role::Command => "wait until it is done",
        })
    }
}

/// Takes the lock if nobody holds it.
pub(crate) fn try_lock(file: &Path, role: Role) -> Result<Result<Lock, Holder>> {
    let mut opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .map_err(|error| library_failure("open", file, &error))?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Err(read_holder(&mut opened))),
        Err(errno) => return Err(library_failure("lock", file, &errno.into())),
    }
    // In its place, which a full disk has room for.
    let name = format!("{} {}\n", std::process::id(), role.as_str());
    let written = opened
        .rewind()
        .and_then(|()| opened.write_all(name.as_bytes()))
        .and_then(|()| opened.set_len(name.len() as u64));
    match written {
        // It is held all the same, by somebody of whom nothing is known.
        Err(error) if is_full(&error) => {
            tracing::warn!(file = %file.display(), %error, "who holds the lock is not told");
        }
        written => written.map_err(|error| library_failure("write", file, &error))?,
    }
    Ok(Ok(Lock { _file: opened }))
}

/// Takes the lock, waiting for a command that works to be done. A daemon is not waited for.
pub(crate) fn lock(file: &Path, role: Role) -> Result<Result<Lock, Holder>> {
    let since = Instant::now();
    loop {
        match try_lock(file, role)? {
            Err(holder) if holder.role == Role::Command && since.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            other => return Ok(other),
        }
    }
}

/// Gives who took the lock last. Whether he holds it yet is not looked at, and nobody is held up.
pub(crate) fn last_holder(file: &Path) -> Option<Holder> {
    File::open(file).ok().map(|mut file| read_holder(&mut file))
}

/// Who has just taken the lock may not have written its name yet: it is then taken for a command, and looked at again.
fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    let (pid, role) = text
        .trim_end()
        .split_once(' ')
        .filter(|_| read.is_ok())
        .unwrap_or_default();
    let role = if role == Role::Daemon.as_str() {
        Role::Daemon
    } else {
        Role::Command
    };
    Holder {
        pid: pid.parse().ok(),
        role,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("lock");
        let first = try_lock(&file, Role::Daemon).expect("a file").expect("nobody holds it");
        let holder = lock(&file, Role::Daemon)
            .expect("a file")
            .expect_err("the first holds it");
        assert_eq!(
            holder,
            Holder {
                pid: Some(std::process::id()),
                role: Role::Daemon
            }
        );
        let words = holder.refusal("default").to_string();
        assert!(words.contains(&std::process::id().to_string()), "{words}");
        drop(first);
        try_lock(&file, Role::Command).expect("a file").expect("it was let go");
    }
}
