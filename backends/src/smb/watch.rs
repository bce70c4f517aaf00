//! Watching a share (`CHANGE_NOTIFY`, MS-SMB2 2.2.35), from the source's folder down.
//!
//! The watch has a connection of its own: a request that the server may answer in a week takes no credit and no turn from
//! those that read, and what they do cannot end it. The crate's keep-alive finds out when the server has gone silent, and the kernel's when the way to it has.
//!
//! What a server does not tell is not noticed here: Samba knows of changes that other programs on the server make only in
//! the folder at the top.
//!
//! Always true: what is noticed waits in a queue with a bound, and what does not fit becomes [`Noticed::Missed`].

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use smb2::client::watcher::{FileNotifyAction, FileNotifyEvent};
use smb2::types::status::NtStatus;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::failure::Failure;
use super::session::Session;
use super::settings::Settings;
use crate::watch::{Coverage, Noticed, Watch, Where};
use crate::{ErrorKind, ObjectPath, Operation, Result};

/// Notices that wait to be taken.
const QUEUE_MAX: usize = 16_384;

/// The watch over a share.
#[derive(Debug)]
pub(super) struct SmbWatch {
    name: String,
    settings: Settings,
    told: Arc<Told>,
}

/// What the connection has told.
#[derive(Debug, Default)]
struct Told {
    state: Mutex<State>,
    something: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Noticed>,
    failure: Option<Failure>,
    standing: bool,
    /// Talks to the server.
    task: Option<JoinHandle<()>>,
}

impl SmbWatch {
    pub(super) fn new(name: String, settings: Settings) -> Self {
        Self {
            name,
            settings,
            told: Arc::default(),
        }
    }

    /// Sees to it that somebody talks to the server.
    fn start(&self, state: &mut State) {
        if state.task.is_some() {
            return;
        }
        let (settings, told) = (self.settings.clone(), Arc::clone(&self.told));
        state.task = Some(tokio::spawn(async move {
            let Err(failure) = talk(&settings, &told).await;
            let mut state = told.state.lock();
            state.failure = Some(failure);
            state.standing = false;
            state.task = None;
            drop(state);
            told.something.notify_one();
        }));
    }
}

impl Drop for SmbWatch {
    fn drop(&mut self) {
        if let Some(task) = self.told.state.lock().task.take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Watch for SmbWatch {
    async fn cover(&self, _: &ObjectPath, _: u64) -> Result<()> {
        Ok(())
    }

    fn uncover(&self, _: &Where) {}

    async fn next(&self, noticed: &mut Vec<Noticed>) -> Result<()> {
        loop {
            {
                let mut state = self.told.state.lock();
                if !state.queue.is_empty() {
                    noticed.append(&mut state.queue);
                    return Ok(());
                }
                if let Some(failure) = state.failure.take() {
                    return Err(super::error(&self.name, &ObjectPath::root(), Operation::List, failure));
                }
                self.start(&mut state);
            }
            // What was told since the look keeps a permit.
            self.told.something.notified().await;
        }
    }

    fn coverage(&self) -> Coverage {
        Coverage::Whole {
            standing: self.told.state.lock().standing,
        }
    }
}

impl Told {
    fn add(&self, more: impl Iterator<Item = Noticed>) {
        let mut state = self.state.lock();
        for one in more {
            if state.queue.len() >= QUEUE_MAX {
                state.queue.clear();
                state.queue.push(Noticed::Missed);
            }
            if state.queue.last() != Some(&one) {
                state.queue.push(one);
            }
        }
        drop(state);
        self.something.notify_one();
    }
}

/// Connects, and passes on what the server tells, until that ends.
async fn talk(settings: &Settings, told: &Told) -> std::result::Result<std::convert::Infallible, Failure> {
    let root = std::str::from_utf8(settings.root.as_bytes())
        .map_err(|_| Failure::new(ErrorKind::Unsupported, "the folder's name cannot be watched"))?;
    let limit = settings.set_up_timeout();
    let set_up = async {
        let session = Session::set_up(settings).await?;
        let watcher = session.watch(root).await?;
        Ok::<_, Failure>((session, watcher))
    };
    let silence = |_| Failure::lost(ErrorKind::TimedOut, format!("no watch within {limit:.0?}"));
    let (_session, mut watcher) = timeout(limit, set_up).await.map_err(silence)??;
    told.state.lock().standing = true;
    told.add(std::iter::once(Noticed::Began));
    loop {
        match watcher.next_events().await {
            Ok(events) => told.add(events.iter().map(noticed)),
            // More happened than the answer has room for; or a name is none that can be written down.
            Err(
                smb2::Error::Protocol {
                    status: NtStatus::NOTIFY_ENUM_DIR,
                    ..
                }
                | smb2::Error::InvalidData { .. },
            ) => told.add(std::iter::once(Noticed::Missed)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn noticed(event: &FileNotifyEvent) -> Noticed {
    let (directory, name) = event.filename.rsplit_once('/').unwrap_or(("", &event.filename));
    let directory = Where::Path(ObjectPath::from_bytes(directory));
    match event.action {
        FileNotifyAction::Modified => Noticed::Child {
            directory,
            name: name.into(),
        },
        _ => Noticed::Names(directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: FileNotifyAction, filename: &str) -> FileNotifyEvent {
        FileNotifyEvent {
            action,
            filename: filename.to_owned(),
        }
    }

    #[test]
    fn a_notice_names_the_directory_to_look_into() {
        let path = |path: &str| Where::Path(ObjectPath::from_bytes(path));
        let names = |path_: &str| Noticed::Names(path(path_));
        assert_eq!(noticed(&event(FileNotifyAction::Added, "a/b/c")), names("a/b"));
        assert_eq!(noticed(&event(FileNotifyAction::RenamedOldName, "a")), names(""));
        let child = Noticed::Child {
            directory: path("a"),
            name: b"b".to_vec(),
        };
        assert_eq!(noticed(&event(FileNotifyAction::Modified, "a/b")), child);
    }

    #[test]
    fn what_does_not_fit_becomes_missed() {
        let told = Told::default();
        let all = (0..=QUEUE_MAX).map(|number| noticed(&event(FileNotifyAction::Added, &format!("{number}/x"))));
        told.add(all);
        assert_eq!(told.state.lock().queue.first(), Some(&Noticed::Missed));
        assert_eq!(told.state.lock().queue.len(), 2);
    }
}
