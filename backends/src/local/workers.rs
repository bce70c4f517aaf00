//! The threads on which a source's system calls run where they may block.
//!
//! A call on a file system that hangs (a network file system whose server is gone) does not come back, and nothing can
//! take it back: its thread is lost until the file system answers. So each source has a few threads of its own, made when
//! they are needed. When all of them are stuck, whoever comes next is refused at once.
//!
//! Always true: a source has no more threads than it was given; no more calls wait than [`WAITING_MAX`], but for files
//! that are to be closed; a call that nobody waits for any more is left out.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How many calls may wait for a thread. Each is somebody's request, and those have deadlines.
const WAITING_MAX: usize = 4096;
/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Why a call was not made, or has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoResult {
    /// All threads are in calls that do not come back.
    #[error("{threads} calls to its file system have not come back for more than {} s", .after.as_secs_f32())]
    Stuck {
        /// How many.
        threads: usize,
        /// For how long at least.
        after: Duration,
    },
    /// Too many wait already.
    #[error("{WAITING_MAX} calls are waiting already")]
    Busy,
    /// No thread could be started.
    #[error("no thread could be started: {0}")]
    NoThread(#[from] std::io::Error),
    /// The call panicked.
    #[error("a call broke off")]
    BrokeOff,
}

/// The threads. Dropping it lets them end, once what was begun is done.
#[derive(Debug)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    threads_max: usize,
    /// A call that has run for so long is stuck.
    stuck_after: Duration,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// When the calls that are being made began, by the number of the call.
    running: Vec<(u64, Instant)>,
    calls: u64,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting.len())
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Workers {
    pub(super) fn new(threads_max: usize, stuck_after: Duration) -> Self {
        Self(Arc::new(Shared {
            threads_max,
            stuck_after,
            state: Mutex::default(),
            bell: Condvar::new(),
        }))
    }

    /// Makes calls on a thread of the source. A caller who stops waiting does not make room for another: a thread may be
    /// stuck in the kernel.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        calls: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (told, result) = oneshot::channel();
        self.0.submit(
            Box::new(move || {
                if !told.is_closed() {
                    // Whoever asked may have stopped waiting by now.
                    let _nobody_waits = told.send(calls());
                }
            }),
            false,
        )?;
        result.await.map_err(|_| NoResult::BrokeOff)
    }

    /// Closes a file, which waits for the file system where that wants to be told.
    pub(super) fn close(&self, file: Arc<File>) {
        if let Err(error) = self.0.submit(Box::new(move || drop(file)), true) {
            tracing::debug!(%error, "a file was closed where it was let go");
        }
    }

    /// Gives how many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.0.state.lock().threads
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.bell.notify_all();
    }
}

impl Shared {
    fn submit(self: &Arc<Self>, job: Job, always: bool) -> Result<(), NoResult> {
        let mut state = self.state.lock();
        if !always {
            if state.waiting.len() >= WAITING_MAX {
                return Err(NoResult::Busy);
            }
            let is_stuck = |(_, began): &(u64, Instant)| began.elapsed() > self.stuck_after;
            if state.running.len() >= self.threads_max && state.running.iter().all(is_stuck) {
                return Err(NoResult::Stuck {
                    threads: state.running.len(),
                    after: self.stuck_after,
                });
            }
        }
        if state.idle <= state.waiting.len() && state.threads < self.threads_max {
            let shared = Arc::clone(self);
            let started = std::thread::Builder::new()
                .name("manifold-local".to_owned())
                .spawn(move || shared.work());
            match started {
                Ok(_) => state.threads += 1,
                // Those that are there will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    fn work(&self) {
        while let Some((call, job)) = self.next() {
            // Whoever waits for it is told by the drop of his sender.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a call to a local file system broke off");
            }
            self.state.lock().running.retain(|(other, _)| *other != call);
        }
    }

    /// Waits for something to do; `None` when it is time to end.
    fn next(&self) -> Option<(u64, Job)> {
        let mut state = self.state.lock();
        let mut waited_enough = false;
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.calls += 1;
                let call = state.calls;
                state.running.push((call, Instant::now()));
                return Some((call, job));
            }
            if state.closed || waited_enough {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            waited_enough = self.bell.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn calls_run_side_by_side_up_to_the_bound_and_the_rest_wait() {
        let workers = Arc::new(Workers::new(2, Duration::from_hours(1)));
        let (let_go, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (began, beginning) = channel();
        let calls: Vec<_> = (0..5)
            .map(|number| {
                let (workers, gate, began) = (Arc::clone(&workers), Arc::clone(&gate), began.clone());
                tokio::spawn(async move {
                    workers
                        .run(move || {
                            began.send(number).unwrap();
                            gate.lock().recv().unwrap();
                            number
                        })
                        .await
                })
            })
            .collect();
        let _rest = tokio::task::spawn_blocking(move || {
            for _ in 0..2 {
                beginning.recv().unwrap();
            }
            assert!(beginning.try_recv().is_err(), "no third");
            beginning
        })
        .await
        .unwrap();
        assert_eq!(workers.threads(), 2);
        for _ in 0..5 {
            let_go.send(()).unwrap();
        }
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), number);
        }
        assert_eq!(workers.threads(), 2);
    }

    #[tokio::test]
    async fn when_all_threads_are_stuck_the_next_is_refused_at_once_until_one_comes_back() {
        let workers = Arc::new(Workers::new(1, Duration::ZERO));
        let (let_go, gate) = channel::<()>();
        let (began, beginning) = tokio::sync::oneshot::channel();
        let stuck = tokio::spawn({
            let workers = Arc::clone(&workers);
            async move {
                workers
                    .run(move || {
                        began.send(()).unwrap();
                        gate.recv().unwrap();
                    })
                    .await
            }
        });
        beginning.await.unwrap();
        stuck.abort();
        assert!(stuck.await.unwrap_err().is_cancelled(), "nobody waits for it any more");
        let refused = workers.run(|| ()).await.unwrap_err();
        assert!(matches!(refused, NoResult::Stuck { threads: 1, .. }), "{refused}");
        let_go.send(()).unwrap();
        while workers.run(|| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_left_out() {
        let workers = Arc::new(Workers::new(1, Duration::from_hours(1)));
        let (let_go, gate) = channel::<()>();
        let (began, beginning) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let workers = Arc::clone(&workers);
            async move {
                workers
                    .run(move || {
                        began.send(()).unwrap();
                        gate.recv().unwrap();
                    })
                    .await
            }
        });
        beginning.await.unwrap();
        let (made, making) = channel();
        let call = workers.run(move || made.send(()).unwrap());
        assert!(call.now_or_never().is_none());
        let_go.send(()).unwrap();
        first.await.unwrap().unwrap();
        workers.run(|| ()).await.unwrap();
        assert!(making.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_one() {
        let workers = Workers::new(1, Duration::from_hours(1));
        let broke = workers.run(|| panic!("on purpose")).await;
        assert!(matches!(broke, Err(NoResult::BrokeOff)));
        workers.run(|| ()).await.unwrap();
    }
}
