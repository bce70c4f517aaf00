//! What makes the daemon end, and how long it then waits.

use std::sync::Arc;
use std::time::Duration;

use manifold_fuse::{Ended, Mount};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::{Failure, Result};
use crate::print::say;

/// How long those who have files open are still served after the mount point is free.
const GRACE: Duration = Duration::from_secs(3);

/// The signals that ask for the end: Ctrl-C, `kill`, and a terminal that is closed.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over: from now on they end nothing by themselves.
    pub(crate) fn take() -> Result<Self> {
        let take = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")));
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _came = self.interrupt.recv() => {}
            _came = self.terminate.recv() => {}
            _came = self.hang_up.recv() => {}
        }
    }
}

/// Is told when the mount is over, by whomever.
pub(super) async fn of_mount(mount: &Arc<Mount>) -> Result<Ended> {
    let (over, ended) = oneshot::channel();
    let mount = Arc::clone(mount);
    // A thread, and not a blocking task: the runtime would wait for it.
    std::thread::Builder::new()
        .name("manifold-end".to_owned())
        .spawn(move || {
            // Nobody is left to hear it when the daemon has ended first.
            let _too_late = over.send(mount.wait());
        })
        .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
    ended
        .await
        .map_err(|error| Failure::new(format!("a thread of manifold broke off: {error}")))
}

/// Serves those who still have files open for a while.
pub(super) async fn wait_for_users(mount: &Arc<Mount>) -> Result<()> {
    say("files of the mount are still open; they are served for a moment longer (Ctrl-C ends at once)");
    match tokio::time::timeout(GRACE, of_mount(mount)).await {
        Ok(over) => over.map(drop),
        Err(_) => Ok(()),
    }
}
