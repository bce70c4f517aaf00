//! What a server may still do of what it was asked for on connections that are not used any more.
//!
//! It may carry a change out long after its client has lost patience: the process that serves the connection was stopped, or waits for
//! its disk. Behind a later one such a change would do harm, and a file that was put would be replaced by the state before
//! it. So the server is told to end the sessions of these connections before a name is changed (`PreviousSessionId`, MS-SMB2
//! 3.3.5.5.3). It answers when they have ended: what they were about to do is done by then, or will not be. What is read needs not
//! wait for that.
//!
//! Samba does it for users alone, not for guests.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use smb2::types::SessionId;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::session::Session;
use super::settings::Settings;
use crate::ErrorKind;

/// How often is looked whether nothing is under way any more on such a connection.
const LOOK: Duration = Duration::from_millis(20);

/// The sessions that are to be ended before the next change.
#[derive(Debug, Default)]
pub(super) struct Owed {
    sessions: Mutex<Vec<(SessionId, Weak<Session>)>>,
    /// Held by whoever ends them.
    one: tokio::sync::Mutex<()>,
}

impl Owed {
    /// Takes note of a connection that is not used any more, and on which a change was not answered.
    pub(super) fn note(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.iter().all(|(id, _)| *id != session.id()) {
            sessions.push((session.id(), Arc::downgrade(session)));
        }
    }

    /// Has the server end them, once what is under way on them has ended here.
    pub(super) async fn settle(&self, settings: &Settings) -> Result<(), Failure> {
        if self.sessions.lock().is_empty() {
            return Ok(());
        }
        let _one = self.one.lock().await;
        loop {
            let Some((id, lost)) = self.sessions.lock().first().cloned() else {
                return Ok(());
            };
            while lost.upgrade().is_some_and(|lost| lost.busy.load(Ordering::Relaxed) > 0) {
                sleep(LOOK).await;
            }
            match timeout(settings.set_up_timeout(), Session::set_up(settings, Some(id))).await {
                Ok(ended) => ended.map(drop)?,
                Err(_elapsed) => {
                    let text = "the server has not ended what it was asked for on a connection before; \
                                nothing is changed until it has";
                    return Err(Failure::new(ErrorKind::TimedOut, text));
                }
            }
            tracing::debug!(address = %settings.address, "the session of a connection without an answer has ended");
            self.sessions.lock().retain(|(other, _)| *other != id);
        }
    }
}
