//! The keeper thread: makes durable in the database what was committed in passing, or is in the log.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Store;

/// The bell between writers and the keeper thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    interval: Duration,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    behind: bool,
    stopped: bool,
}

impl Keeper {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// Says that there is something to make durable.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.behind {
            state.behind = true;
            self.bell.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.bell.notify_all();
    }

    /// Starts the thread. It holds the store only while it commits.
    pub(crate) fn start(store: &Arc<Store>) -> std::io::Result<JoinHandle<()>> {
        let (keeper, store) = (Arc::clone(&store.keeper), Arc::downgrade(store));
        std::thread::Builder::new()
            .name("catalog-commit".into())
            .spawn(move || keeper.run(&store))
    }

    fn run(&self, store: &Weak<Store>) {
        if let Some(store) = store.upgrade() {
            self.reap_orphans(&store);
        }
        while self.wait_for_work() {
            let Some(store) = store.upgrade() else { return };
            if let Err(error) = store.settle() {
                tracing::warn!(%error, "changes of the catalog could not be made durable");
            }
        }
    }

    /// Forgets what a removal of a source did not come round to before the catalog was closed.
    fn reap_orphans(&self, store: &Store) {
        let reaped = store.orphans().and_then(|orphans| {
            for orphan in orphans {
                while !self.state.lock().stopped && !store.reap_some(orphan)? {}
            }
            Ok(())
        });
        if let Err(error) = reaped {
            tracing::warn!(%error, "entries of a removed source are left in the catalog");
        }
    }

    /// Waits until there is work and the interval has gathered more of it; false when it is over.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while !state.behind && !state.stopped {
            self.bell.wait(&mut state);
        }
        if !state.stopped {
            self.bell
                .wait_while_for(&mut state, |state| !state.stopped, self.interval);
        }
        state.behind = false;
        !state.stopped
    }
}
