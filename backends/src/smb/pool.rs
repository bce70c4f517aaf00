//! The connections to one share: how many there are, who makes them, and who uses which.
//!
//! Nothing is connected until something is asked. One connection carries many exchanges; when they pile up, another is
//! made, up to [`SESSIONS_MAX`] (a server serves each connection with a process or thread of its own). A connection that
//! broke is forgotten by whoever meets it, with all from before, and the next to ask makes a new one. However many ask, one connection is being
//! made at a time; when that fails, all of them learn it, and the next attempt begins after a short pause. Who comes in
//! that pause waits for the attempt, so that a server that is back is reached by the first to ask; but where the server
//! answered and refused, they learn that at once.
//!
//! Every exchange runs as a task of its own. A caller that is dropped therefore leaves its exchange to end in order:
//! its answer is read, its credits return, what it opened is closed; only then is its permit free again.
//!
//! Always true: no more than `concurrency` exchanges are under way, abandoned ones counted.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::failure::{Failure, Left};
use super::session::Session;
use super::settings::Settings;
use crate::ErrorKind;

/// Connections to one share.
const SESSIONS_MAX: usize = 4;

/// Exchanges on each connection before another is made.
const CROWDED: u32 = 8;

/// The pause after a first failure to connect; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The connections to one share.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: Vec<Arc<Session>>,
    connecting: Option<Connecting>,
    pause: Option<Pause>,
}

/// A connection in the making, awaited by all who need it.
type Connecting = Shared<BoxFuture<'static, Result<Arc<Session>, Failure>>>;

/// The time after a failure in which no attempt begins.
#[derive(Debug)]
struct Pause {
    until: Instant,
    length: Duration,
    failure: Failure,
}

impl Pool {
    /// Makes an empty pool.
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(settings.concurrency.max(1) as usize));
        Arc::new(Self {
            settings,
            permits,
            state: Mutex::default(),
        })
    }

    /// Gives the settings.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes an exchange on whichever connection is best. If the connection turns out to be gone, once more, and again
    /// for as long as what remains are connections from before, which have died with it: `exchange` must not change
    /// anything at the server that stays when its connection goes.
    pub(super) async fn exchange<T, F, R>(self: &Arc<Self>, exchange: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(Arc<Session>) -> R,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let begun = Instant::now();
        let mut again = true;
        loop {
            let session = self.session().await?;
            match self.exchange_on(&session, exchange(Arc::clone(&session))).await {
                // A server that is slow rather than gone is not asked the same again.
                Err(Failure::Failed {
                    left: Left::Nothing,
                    kind: ErrorKind::Unreachable,
                    ..
                }) if session.made() < begun || std::mem::take(&mut again) => {}
                result => return result,
            }
        }
    }

    /// Makes an exchange on this connection, as a task of its own.
    pub(super) async fn exchange_on<T, R>(self: &Arc<Self>, session: &Arc<Session>, exchange: R) -> Result<T, Failure>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Failure::new(ErrorKind::Other, "the source is being closed"))?;
        let busy = Busy::count(Arc::clone(session));
        let pool = Arc::clone(self);
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let result = exchange.await;
            if let Err(failure) = &result {
                busy.0.note(failure);
                if failure.is_silence() {
                    pool.distrust(begun);
                }
            }
            drop((busy, permit));
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) => Err(Failure::new(
                ErrorKind::Other,
                format!("the exchange was broken off: {error}"),
            )),
        }
    }

    /// Takes all connections out of use that were made before that: what has taken one of them has taken the others too, and
    /// to find that out one after the other would take the time of whoever asks. What is under way on them goes on.
    fn distrust(&self, before: Instant) {
        let state = self.state.lock();
        for session in state.sessions.iter().filter(|session| session.made() < before) {
            session.give_up();
        }
    }

    /// Gives the connection with the least to do, making one if there is none.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Failure> {
        let connecting = {
            let mut state = self.state.lock();
            state.sessions.retain(|session| !session.is_lost());
            let best = state
                .sessions
                .iter()
                .min_by_key(|session| session.busy.load(Ordering::Relaxed))
                .cloned();
            if let Some(session) = best {
                let crowded = session.busy.load(Ordering::Relaxed) >= CROWDED;
                if crowded && state.sessions.len() < SESSIONS_MAX && state.connecting.is_none() && !state.pausing() {
                    // Made by a task of its own; whoever comes when it is there, uses it.
                    drop(self.connect(&mut state));
                }
                return Ok(session);
            }
            if let Some(pause) = state.pause.as_ref().filter(|pause| pause.is_refusal()) {
                return Err(pause.failure.clone());
            }
            match &state.connecting {
                Some(connecting) => connecting.clone(),
                None => self.connect(&mut state),
            }
        };
        connecting.await
    }

    /// Starts to make a connection.
    fn connect(self: &Arc<Self>, state: &mut State) -> Connecting {
        let pool = Arc::clone(self);
        let pause = state.pause.as_ref().map(|pause| pause.until);
        let task = tokio::spawn(async move {
            if let Some(until) = pause {
                tokio::time::sleep_until(until).await;
            }
            // Every step has its own limit, but a server that answers each of them late could string them together.
            let limit = pool.settings.set_up_timeout();
            let set_up = tokio::time::timeout(limit, Session::set_up(&pool.settings)).await;
            let result = set_up.map_or_else(
                |_| {
                    let text = format!("no log-in within {limit:.0?}; check that an SMB server answers there");
                    Err(Failure::lost(ErrorKind::TimedOut, text))
                },
                |result| result.map(Arc::new),
            );
            pool.settle(&result);
            result
        });
        let connecting = async move {
            task.await.unwrap_or_else(|error| {
                Err(Failure::lost(
                    ErrorKind::Other,
                    format!("the connecting was broken off: {error}"),
                ))
            })
        }
        .boxed()
        .shared();
        state.connecting = Some(connecting.clone());
        connecting
    }

    /// Records how the making of a connection ended.
    fn settle(&self, result: &Result<Arc<Session>, Failure>) {
        let mut state = self.state.lock();
        state.connecting = None;
        match result {
            Ok(session) => {
                tracing::debug!(address = %self.settings.address, share = %self.settings.share, "connected");
                state.sessions.push(Arc::clone(session));
                state.pause = None;
            }
            Err(failure) => {
                let length = state
                    .pause
                    .as_ref()
                    .map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
                state.pause = Some(Pause {
                    until: Instant::now() + length,
                    length,
                    failure: failure.clone(),
                });
            }
        }
    }
}

impl State {
    fn pausing(&self) -> bool {
        self.pause.as_ref().is_some_and(Pause::lasts)
    }
}

impl Pause {
    fn lasts(&self) -> bool {
        Instant::now() < self.until
    }

    /// Tells whether it still lasts, and follows an answer of the server: to ask again so soon would change nothing, and
    /// wrong passwords in numbers have accounts locked.
    fn is_refusal(&self) -> bool {
        self.lasts()
            && !matches!(
                self.failure,
                Failure::Failed {
                    kind: ErrorKind::Unreachable | ErrorKind::TimedOut,
                    ..
                }
            )
    }
}

/// Counts an exchange on its connection for as long as it lasts.
struct Busy(Arc<Session>);

impl Busy {
    fn count(session: Arc<Session>) -> Self {
        session.busy.fetch_add(1, Ordering::Relaxed);
        Self(session)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
