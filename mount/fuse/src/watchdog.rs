//! The last resort against a request that is never answered.
//!
//! Each request has its deadline in the file system. Should one outlive twice that time all the same (a disk that blocks in
//! the middle of a system call, a bug), its process would stay in uninterruptible sleep, because fuser does not handle the
//! kernel's interrupts. Then the watchdog aborts the connection: every waiting process gets an error, and the mount is over,
//! as [`Ended::GivenUp`] tells whoever may mount anew.
//!
//! Owns the list of requests in flight. It stands outside the runtime, on a thread of its own, so that a runtime without
//! free workers is noticed too; and it does not wait for the session's threads, of which one may be stuck for good.

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    crossing::Ticket,
    mountpoint::{self, table::Device},
    session::{Ending, clear_away},
};

/// A request may take this many times its deadline before the mount is given up.
const PATIENCE: u32 = 2;
/// And one for which a thread of the session is at a disk of this machine: that may be slow, and what it does then is done.
const INLINE_PATIENCE: u32 = 6;
/// How long the session's threads have to notice that the connection was aborted.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The requests that are being answered.
pub(crate) struct InFlight {
    since: Instant,
    /// For each session thread, when the request came that it is answering, as [`Self::now`] tells; 0 when there is none.
    /// Written for each request, so it has to cost next to nothing: no lock, no allocation.
    inline: Box<[AtomicU64]>,
    places_given: AtomicUsize,
    waiting: Mutex<AllWaiting>,
}

#[derive(Default)]
struct AllWaiting {
    requests: HashMap<u64, Waiting>,
    /// Whether somebody looks after them.
    looked_after: bool,
}

/// A request that waits in a task.
struct Waiting {
    ticket: Ticket,
    came: u64,
    give_up: Option<oneshot::Sender<()>>,
}

/// Keeps a request among those that wait.
pub(crate) struct Place {
    in_flight: Arc<InFlight>,
    request: u64,
    is_first: bool,
}

impl Place {
    /// Tells whether nothing had waited before it.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.waiting.lock().requests.remove(&self.request);
    }
}

thread_local! {
    /// Which place of [`InFlight::inline`] is this thread's. A session thread serves one mount only.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl InFlight {
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            inline: (0..threads.max(1)).map(|_| AtomicU64::new(0)).collect(),
            places_given: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Notes that this thread is answering a request, until the guard goes.
    pub(crate) fn inline(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a AtomicU64);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::Relaxed);
            }
        }
        let place = PLACE.get().unwrap_or_else(|| {
            let place = self.places_given.fetch_add(1, Ordering::Relaxed);
            PLACE.set(Some(place));
            place
        });
        let place = &self.inline[place % self.inline.len()];
        place.store(self.now(), Ordering::Relaxed);
        Guard(place)
    }

    /// Notes that a request is waiting in a task, for as long as the place is kept. The receiver is told when nobody waits for
    /// the answer any more. Whoever gets the first place has to see to it that they are looked after.
    pub(crate) fn waiting(self: &Arc<Self>, ticket: Ticket) -> (Place, oneshot::Receiver<()>) {
        let (give_up, told) = oneshot::channel();
        let came = self.now();
        let mut waiting = self.waiting.lock();
        waiting.requests.insert(
            ticket.id,
            Waiting {
                ticket,
                came,
                give_up: Some(give_up),
            },
        );
        let is_first = !std::mem::replace(&mut waiting.looked_after, true);
        drop(waiting);
        let place = Place {
            in_flight: Arc::clone(self),
            request: ticket.id,
            is_first,
        };
        (place, told)
    }

    /// Gives the requests that have waited for longer, each with the thread that asked. `None` if none waits at all: then the
    /// next is the first again.
    pub(crate) fn waiting_longer_than(&self, age: Duration) -> Option<Vec<(u64, u32)>> {
        let before = self.now().saturating_sub(age.as_millis() as u64);
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() {
            waiting.looked_after = false;
            return None;
        }
        let old = waiting.requests.values().filter(|it| it.came <= before);
        Some(old.map(|it| (it.ticket.id, it.ticket.pid)).collect())
    }

    /// Tells a request's task that nobody waits for the answer.
    pub(crate) fn give_up(&self, request: u64) {
        let give_up = self
            .waiting
            .lock()
            .requests
            .get_mut(&request)
            .and_then(|it| it.give_up.take());
        if let Some(give_up) = give_up {
            // It may just have been answered.
            let _too_late = give_up.send(());
        }
    }

    /// The age of the oldest request that has taken too long, if one has, and its name where it has one.
    pub(crate) fn overdue(&self, deadline: Duration) -> Option<(Duration, Option<Ticket>)> {
        self.overdue_at(self.now(), deadline)
    }

    /// The same at a moment, in milliseconds since this mount began.
    fn overdue_at(&self, now: u64, deadline: Duration) -> Option<(Duration, Option<Ticket>)> {
        let inline = self.inline.iter().map(|place| place.load(Ordering::Relaxed));
        let inline = inline
            .filter(|came| *came != 0)
            .map(|came| (came, None))
            .min_by_key(|(came, _)| *came);
        let waiting = {
            let waiting = self.waiting.lock();
            let requests = waiting.requests.values().filter(|it| !it.ticket.patient);
            requests
                .map(|it| (it.came, Some(it.ticket)))
                .min_by_key(|(came, _)| *came)
        };
        let late = |oldest: Option<(u64, Option<Ticket>)>, patience| {
            let (came, ticket) = oldest?;
            let age = Duration::from_millis(now.saturating_sub(came));
            (age > deadline * patience).then_some((age, ticket))
        };
        late(waiting, PATIENCE).or_else(|| late(inline, INLINE_PATIENCE))
    }

    /// Milliseconds since this mount began; never 0.
    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64 + 1
    }
}

/// Starts the watchdog. It ends with the mount.
pub(crate) fn start(
    in_flight: Arc<InFlight>,
    point: &Path,
    device: Device,
    deadline: Duration,
    ending: &Arc<Ending>,
) -> io::Result<()> {
    let ending = Arc::clone(ending);
    let point = point.to_owned();
    thread::Builder::new()
        .name("manifold-watchdog".to_owned())
        .spawn(move || {
            while !ending.wait_for(deadline / 2) {
                if let Some((age, ticket)) = in_flight.overdue(deadline) {
                    tracing::error!(
                        ?age,
                        ?ticket,
                        "a request was not answered in a multiple of its time: the mount is given up"
                    );
                    ending.give_up(true);
                    if let Err(error) = mountpoint::abort(&point, device) {
                        ending.give_up(false);
                        tracing::error!(%error, "it cannot be given up; mounting fusectl allows it");
                    } else if !ending.wait_for(LAST_WORDS) {
                        // A thread of the session is stuck. What it holds is of no use to anybody, the mount point is.
                        clear_away(&point, device);
                        ending.come();
                    }
                }
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket {
        id: 5,
        op: "read",
        ino: 9,
        pid: 0,
        patient: false,
    };

    const DEADLINE: Duration = Duration::from_secs(1);

    /// What is overdue so many deadlines from now; a request that waits in no task has no number, which is 0 here.
    fn overdue_in(in_flight: &InFlight, deadlines: u32) -> Option<u64> {
        let then = in_flight.now() + (DEADLINE * deadlines).as_millis() as u64 + 1;
        let overdue = in_flight.overdue_at(then, DEADLINE);
        overdue.map(|(_, ticket)| ticket.map_or(0, |ticket| ticket.id))
    }

    #[test]
    fn a_request_is_seen_while_it_is_being_answered_and_not_after() {
        let in_flight = InFlight::new(2);
        assert_eq!(overdue_in(&in_flight, 100), None);
        let inline = in_flight.inline();
        assert_eq!(overdue_in(&in_flight, 100), Some(0));
        drop(inline);
        assert_eq!(overdue_in(&in_flight, 100), None);
        let (waiting, _given_up) = in_flight.waiting(TICKET);
        assert_eq!(overdue_in(&in_flight, 100), Some(TICKET.id));
        drop(waiting);
        assert_eq!(overdue_in(&in_flight, 100), None);
    }

    #[test]
    fn one_that_waits_for_a_disk_is_waited_for_longer_than_one_that_waits_for_a_source() {
        let in_flight = InFlight::new(1);
        let _inline = in_flight.inline();
        let (waiting, _given_up) = in_flight.waiting(TICKET);
        assert_eq!(overdue_in(&in_flight, PATIENCE - 1), None);
        assert_eq!(overdue_in(&in_flight, PATIENCE), Some(TICKET.id));
        drop(waiting);
        assert_eq!(overdue_in(&in_flight, INLINE_PATIENCE - 1), None);
        assert_eq!(overdue_in(&in_flight, INLINE_PATIENCE), Some(0));
    }

    #[test]
    fn a_request_that_may_take_its_time_is_not_taken_for_one_that_hangs() {
        let in_flight = InFlight::new(1);
        let patient = Ticket {
            patient: true,
            ..TICKET
        };
        let (_waiting, _given_up) = in_flight.waiting(patient);
        assert_eq!(overdue_in(&in_flight, 100), None);
        assert!(
            in_flight.waiting_longer_than(Duration::ZERO).is_some(),
            "who asked is looked after all the same"
        );
    }

    #[test]
    fn a_request_that_unwinds_is_not_taken_for_one_that_hangs() {
        let in_flight = InFlight::new(1);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = in_flight.inline();
            panic!("on purpose");
        }));
        assert!(unwound.is_err());
        assert_eq!(overdue_in(&in_flight, 100), None);
    }
}
