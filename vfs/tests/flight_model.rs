//! Singleflight under every interleaving that shuttle finds: the very code of the library, over shuttle's lock.
//!
//! The tier that keeps blocks is modelled by a map that may put anything out at any time.

#[allow(dead_code, unreachable_pub, reason = "the library's module, compiled a second time")]
#[path = "../src/fetch/flight.rs"]
mod flight;

/// The library's `sync`, over shuttle.
mod sync {
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("invariant: a panic ends the model")
        }
    }
}

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use flight::{Boarding, Duty, Flights, Wait};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{future, thread};
use sync::Mutex;

const RUNS: usize = 2_000;
const BROKEN_OFF: Outcome = Err(());

type Outcome = Result<u64, ()>;

/// What a fetcher is to readers: a tier, flights, and a count of requests.
#[derive(Clone)]
struct Model {
    flights: Arc<Flights<u64, Outcome>>,
    tier: Arc<Mutex<HashMap<u64, u64>>>,
    requests: Arc<AtomicUsize>,
}

impl Model {
    fn new() -> Self {
        Self {
            flights: Flights::new(),
            tier: Arc::default(),
            requests: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Asks for a block as a reader does, and starts the request in a thread of its own if it is the first.
    fn want(&self, key: u64, answers: bool) -> Result<Outcome, Wait<Outcome>> {
        let tier = Arc::clone(&self.tier);
        match self
            .flights
            .board(key, true, || tier.lock().get(&key).copied().map(Ok), BROKEN_OFF)
        {
            Boarding::Kept(outcome) => Ok(outcome),
            Boarding::Joined { flight, .. } => Err(flight.wait()),
            Boarding::First(duty) => {
                let wait = duty.flight().wait();
                let model = self.clone();
                thread::spawn(move || model.fetch(key, duty, answers));
                Err(wait)
            }
        }
    }

    fn fetch(&self, key: u64, duty: Duty<u64, Outcome>, answers: bool) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if answers {
            self.tier.lock().insert(key, key * 10);
            duty.land(Ok(key * 10));
        }
    }

    fn read(&self, key: u64, answers: bool) -> Outcome {
        match self.want(key, answers) {
            Ok(outcome) => outcome,
            Err(wait) => future::block_on(wait),
        }
    }
}

#[test]
fn a_block_is_fetched_once_however_many_ask() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let model = model.clone();
                    thread::spawn(move || assert_eq!(model.read(7, true), Ok(70)))
                })
                .collect();
            for it in readers {
                it.join().unwrap();
            }
            assert_eq!(model.requests.load(Ordering::SeqCst), 1);
        },
        RUNS,
    );
}

#[test]
fn a_reader_that_goes_away_changes_nothing_for_the_others() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let leaver = {
                let model = model.clone();
                thread::spawn(move || {
                    if let Err(mut wait) = model.want(7, true) {
                        let mut context = Context::from_waker(Waker::noop());
                        if let Poll::Ready(outcome) = Pin::new(&mut wait).poll(&mut context) {
                            assert_eq!(outcome, Ok(70));
                        }
                    }
                })
            };
            let stayer = {
                let model = model.clone();
                thread::spawn(move || assert_eq!(model.read(7, true), Ok(70)))
            };
            leaver.join().unwrap();
            stayer.join().unwrap();
            assert_eq!(model.requests.load(Ordering::SeqCst), 1);
        },
        RUNS,
    );
}

#[test]
fn a_request_that_dies_answers_all_who_wait_and_the_next_begins_anew() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let model = model.clone();
                    thread::spawn(move || assert_eq!(model.read(7, false), BROKEN_OFF))
                })
                .collect();
            for it in readers {
                it.join().unwrap();
            }
            assert_eq!(model.read(7, true), Ok(70));
        },
        RUNS,
    );
}

#[test]
fn a_tier_that_puts_blocks_out_at_any_time_costs_a_request_but_no_answer() {
    shuttle::check_random(
        || {
            let model = Model::new();
            let evictor = {
                let model = model.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        model.tier.lock().clear();
                        thread::yield_now();
                    }
                })
            };
            let readers: Vec<_> = (0..2)
                .map(|reader| {
                    let model = model.clone();
                    thread::spawn(move || {
                        for key in [reader, 1 - reader] {
                            assert_eq!(model.read(key, true), Ok(key * 10));
                        }
                    })
                })
                .collect();
            for it in readers {
                it.join().unwrap();
            }
            evictor.join().unwrap();
            assert!(model.requests.load(Ordering::SeqCst) <= 4);
        },
        RUNS,
    );
}
