//! Singleflight: at most one fetch of a block is under way, however many wait for it.
//!
//! A flight belongs to nobody who waits for it: a waiter that is dropped changes nothing for the others, and the first is no different
//! from the rest. Whoever holds a [`Duty`] must land its flight; a duty that is dropped (a task that panicked, a runtime
//! that shuts down) lands it with the outcome that was agreed for that case.
//!
//! Always true: between two looks at a key under the map's lock, either the flight is in the map, or its outcome had been kept where
//! `kept` finds it before the flight left the map. So no block is asked for twice.
//!
//! The code is compiled a second time, over shuttle's lock, by `tests/flight_model.rs`.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// The flights under way, by key.
pub(crate) struct Flights<K, V> {
    under_way: Mutex<HashMap<K, Arc<Flight<V>>>>,
}

/// One fetch under way.
pub(crate) struct Flight<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    outcome: Option<V>,
    /// How many wait for it now, rather than may want it later.
    waiting: usize,
    wakers: Vec<Waker>,
}

/// The duty to land a flight.
pub(crate) struct Duty<K: Eq + Hash + Copy, V: Clone> {
    flights: Arc<Flights<K, V>>,
    key: K,
    flight: Arc<Flight<V>>,
    otherwise: Option<V>,
}

/// What asking for a block came to.
pub(crate) enum Boarding<K: Eq + Hash + Copy, V: Clone> {
    /// It was there after all.
    Kept(V),
    /// Nobody fetches it yet: the caller must.
    First(Duty<K, V>),
    /// It is being fetched.
    Joined {
        /// The fetch.
        flight: Arc<Flight<V>>,
        /// Whether it was only fetched ahead until now.
        was_ahead: bool,
    },
}

impl<K: Eq + Hash + Copy, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::new(HashMap::new()),
        })
    }

    /// Joins the flight for `key`, or begins one. `kept` looks once more whether the block is there by now; `otherwise` is the outcome
    /// if the duty is dropped. `wanted` says that the caller is going to wait for it.
    pub(crate) fn board(
        self: &Arc<Self>,
        key: K,
        wanted: bool,
        kept: impl FnOnce() -> Option<V>,
        otherwise: V,
    ) -> Boarding<K, V> {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(&key) {
            let flight = Arc::clone(flight);
            drop(under_way);
            let was_ahead = wanted && flight.state.lock().waiting == 0;
            return Boarding::Joined { flight, was_ahead };
        }
        if let Some(value) = kept() {
            return Boarding::Kept(value);
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State {
                outcome: None,
                waiting: 0,
                wakers: Vec::new(),
            }),
        });
        under_way.insert(key, Arc::clone(&flight));
        drop(under_way);
        Boarding::First(Duty {
            flights: Arc::clone(self),
            key,
            flight,
            otherwise: Some(otherwise),
        })
    }
}

impl<V: Clone> Flight<V> {
    /// Waits for the outcome. The flight is wanted until the wait is dropped.
    pub(crate) fn wait(self: &Arc<Self>) -> Wait<V> {
        self.state.lock().waiting += 1;
        Wait {
            flight: Arc::clone(self),
            place: None,
            wants: true,
        }
    }

    /// Waits for the outcome without making the flight wanted: others go first.
    pub(crate) fn listen(self: &Arc<Self>) -> Wait<V> {
        Wait {
            flight: Arc::clone(self),
            place: None,
            wants: false,
        }
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Duty<K, V> {
    /// Gives the flight, to wait for it like anybody else.
    pub(crate) fn flight(&self) -> &Arc<Flight<V>> {
        &self.flight
    }

    /// Tells whether somebody waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.flight.state.lock().waiting > 0
    }

    /// Gives the outcome to all that wait. What is to be kept must have been kept before.
    pub(crate) fn land(mut self, outcome: V) {
        self.otherwise = None;
        self.finish(outcome);
    }

    fn finish(&self, outcome: V) {
        self.flights.under_way.lock().remove(&self.key);
        let mut state = self.flight.state.lock();
        state.outcome = Some(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Drop for Duty<K, V> {
    fn drop(&mut self) {
        if let Some(outcome) = self.otherwise.take() {
            self.finish(outcome);
        }
    }
}

/// Waits for a flight's outcome.
pub(crate) struct Wait<V> {
    flight: Arc<Flight<V>>,
    place: Option<usize>,
    /// Whether it counts as somebody who waits.
    wants: bool,
}

impl<V> Drop for Wait<V> {
    fn drop(&mut self) {
        if self.wants {
            self.flight.state.lock().waiting -= 1;
        }
    }
}

impl<V: Clone> Future for Wait<V> {
    type Output = V;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<V> {
        let flight = Arc::clone(&self.flight);
        let mut state = flight.state.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        if let Some(waker) = self.place.and_then(|place| state.wakers.get_mut(place)) {
            waker.clone_from(context.waker());
        } else {
            self.place = Some(state.wakers.len());
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
