//! Takes back from the kernel what it has been told, when it is no longer so.
//!
//! One thread takes the file system's events and puts them into a bounded queue; a few threads deliver them. A delivery can
//! block: the kernel locks the directory for an entry, and the pages for a file, and both may be held by a request that
//! waits for a slow source. So no two threads work on one object, and one that is stuck leaves the others free.
//! Deliveries only ever make the kernel ask again; their order does not matter.
//!
//! Always true: nothing is delivered from a thread that answers requests (the kernel would wait for itself), and when the
//! queue is full, everything is taken back instead of something being lost.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use fuser::{INodeNo, Notifier, Version};
use manifold_vfs::{Event, EventStream, Received, Settling, Vfs};
use parking_lot::{Condvar, Mutex};

use crate::{attributes::inode, everything, session::Ending, shared::Shared};

/// Threads that deliver: one more than this many stuck objects holds up all others, for one deadline at most.
const THREADS: usize = 4;

/// Notices that wait for delivery, of about 50 bytes each.
const QUEUE_MAX: usize = 16_384;

/// How often the thread that waits for events looks whether the mount is over.
const LOOK: Duration = Duration::from_millis(500);

/// An offset before the beginning stands for the attributes alone (`fuse_reverse_inval_inode`).
pub(crate) const ATTRIBUTES_ONLY: i64 = -1;
/// A length of 0 reaches to the end.
pub(crate) const TO_THE_END: i64 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Notice {
    Entry { parent: INodeNo, name: Box<[u8]> },
    Attributes(INodeNo),
    Pages(INodeNo),
    Everything,
}

impl Notice {
    /// The object whose lock a delivery takes. Inode 0 stands for all.
    fn object(&self) -> INodeNo {
        match self {
            Self::Entry { parent: ino, .. } | Self::Attributes(ino) | Self::Pages(ino) => *ino,
            Self::Everything => INodeNo(0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their numbers.
    waiting: VecDeque<(u64, Notice)>,
    /// What is being delivered, by its object, with its number.
    busy: HashMap<INodeNo, u64>,
    /// The number of the next.
    next: u64,
    closed: bool,
}

impl State {
    /// The number of the first that is not delivered yet.
    fn first_open(&self) -> u64 {
        let waiting = self.waiting.front().map(|(number, _)| *number);
        waiting
            .into_iter()
            .chain(self.busy.values().copied())
            .min()
            .unwrap_or(self.next)
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn push(&self, notice: Notice) {
        let mut state = self.state.lock();
        let is = |place: Option<&(u64, Notice)>, notice: &Notice| place.is_some_and(|(_, it)| it == notice);
        if is(state.waiting.back(), &notice) || is(state.waiting.front(), &Notice::Everything) {
            return;
        }
        let number = state.next;
        state.next += 1;
        if notice == Notice::Everything || state.waiting.len() >= QUEUE_MAX {
            state.waiting.clear();
            state.waiting.push_back((number, Notice::Everything));
        } else {
            state.waiting.push_back((number, notice));
        }
        self.changed.notify_one();
    }

    /// The next notice whose object no other thread works on; `None` when the mount is over.
    fn next(&self) -> Option<Notice> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let free = state
                .waiting
                .iter()
                .position(|(_, notice)| !state.busy.contains_key(&notice.object()));
            if let Some((number, notice)) = free.and_then(|position| state.waiting.remove(position)) {
                state.busy.insert(notice.object(), number);
                return Some(notice);
            }
            self.changed.wait(&mut state);
        }
    }

    fn delivered(&self, object: INodeNo) {
        self.state.lock().busy.remove(&object);
        self.changed.notify_all();
    }

    /// Waits until all that was pushed so far is delivered.
    fn settle(&self, patience: Duration) {
        let mut state = self.state.lock();
        let next = state.next;
        let open = |state: &mut State| state.first_open() < next && !state.closed;
        self.changed.wait_while_for(&mut state, open, patience);
    }

    /// Tells whether all that was pushed so far is delivered.
    fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.first_open() == state.next
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Waits for what the kernel is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    vfs: Weak<Vfs>,
    events: Settling,
    queue: Arc<Queue>,
}

impl Settled {
    /// Tells whether the kernel has been told of all that has changed, as far as anybody can have seen it.
    pub(crate) fn is_so(&self) -> bool {
        // In the order in which news travels, so that none is missed that changes its place meanwhile.
        self.vfs.upgrade().is_none_or(|vfs| vfs.is_settled()) && self.events.is_done() && self.queue.is_empty()
    }

    /// Waits until the kernel has been told of all that has changed so far, but no longer than about `patience`: a delivery
    /// may be stuck.
    pub(crate) fn wait(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let left = || end.saturating_duration_since(Instant::now());
        if let Some(vfs) = self.vfs.upgrade() {
            vfs.settle(left());
        }
        self.events.wait(left());
        self.queue.settle(left());
    }
}

/// Where notices are delivered to.
pub(crate) struct Delivery {
    pub(crate) notifier: Notifier,
    /// The connection itself, for the one notice that fuser does not know.
    pub(crate) connection: OwnedFd,
    /// Not kept alive: who unmounts may want to open the library again at once.
    pub(crate) vfs: Weak<Vfs>,
    pub(crate) shared: Arc<Shared>,
}

/// Starts the threads. They end with the mount.
pub(crate) fn start(events: EventStream, delivery: Delivery, ending: &Arc<Ending>) -> io::Result<Settled> {
    let queue = Arc::new(Queue::default());
    let settled = Settled {
        vfs: Weak::clone(&delivery.vfs),
        events: events.settling(),
        queue: Arc::clone(&queue),
    };
    let delivery = Arc::new(delivery);
    for number in 0..THREADS {
        let (queue, delivery) = (Arc::clone(&queue), Arc::clone(&delivery));
        thread::Builder::new()
            .name(format!("manifold-notify-{number}"))
            .spawn(move || {
                while let Some(notice) = queue.next() {
                    let object = notice.object();
                    delivery.deliver(&notice);
                    queue.delivered(object);
                }
            })?;
    }
    let ending = Arc::clone(ending);
    thread::Builder::new()
        .name("manifold-events".to_owned())
        .spawn(move || {
            while !ending.has_come() {
                match events.receive(LOOK) {
                    Received::Event(event) => take(event, &queue, &delivery.shared),
                    Received::Nothing => {}
                    Received::Closed => {
                        ending.wait();
                    }
                }
            }
            queue.close();
        })?;
    Ok(settled)
}

fn take(event: Event, queue: &Queue, shared: &Shared) {
    match event {
        Event::Entry { parent, name } => queue.push(Notice::Entry {
            parent: inode(parent),
            name,
        }),
        Event::Attributes { id } => queue.push(Notice::Attributes(inode(id))),
        Event::Pages { id } => queue.push(Notice::Pages(inode(id))),
        Event::Directory { id } => {
            // Before its pages are taken away: who opens it from now on reads it anew.
            shared.listings.forget(inode(id));
            queue.push(Notice::Pages(inode(id)));
        }
        Event::Everything => {
            shared.listings.forget_all();
            queue.push(Notice::Everything);
        }
    }
}

impl Delivery {
    fn deliver(&self, notice: &Notice) {
        tracing::trace!(?notice, "telling the kernel");
        let told = match notice {
            Notice::Entry { parent, name } => self.notifier.inval_entry(*parent, OsStr::from_bytes(name)),
            Notice::Attributes(ino) => self.notifier.inval_inode(*ino, ATTRIBUTES_ONLY, TO_THE_END),
            Notice::Pages(ino) => self.notifier.inval_inode(*ino, 0, TO_THE_END),
            Notice::Everything => {
                self.shared.listings.forget_all();
                everything::take_back(self)
            }
        };
        // What the kernel does not hold it cannot give back; fuser passes over that. Anything else means that it goes on
        // believing what is no longer so.
        if let Err(error) = told {
            tracing::warn!(?notice, %error, "the kernel could not be told of a change");
        }
    }

    pub(crate) fn kernel(&self) -> Option<Version> {
        self.shared.kernel()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_object_does_not_hold_up_another() {
        let queue = Queue::default();
        queue.push(Notice::Attributes(INodeNo(1)));
        queue.push(Notice::Pages(INodeNo(1)));
        queue.push(Notice::Attributes(INodeNo(2)));
        assert_eq!(queue.next(), Some(Notice::Attributes(INodeNo(1))));
        assert_eq!(
            queue.next(),
            Some(Notice::Attributes(INodeNo(2))),
            "object 1 is being worked on"
        );
        queue.delivered(INodeNo(1));
        assert_eq!(queue.next(), Some(Notice::Pages(INodeNo(1))));
    }

    #[test]
    fn what_does_not_fit_becomes_everything_and_nothing_is_lost() {
        let queue = Queue::default();
        for number in 0..=QUEUE_MAX as u64 {
            queue.push(Notice::Attributes(INodeNo(number)));
        }
        queue.push(Notice::Attributes(INodeNo(3)));
        assert_eq!(queue.next(), Some(Notice::Everything));
        queue.push(Notice::Attributes(INodeNo(4)));
        assert_eq!(
            queue.next(),
            Some(Notice::Attributes(INodeNo(4))),
            "what comes after is kept again"
        );
    }

    #[test]
    fn settled_means_delivered() {
        let queue = Arc::new(Queue::default());
        queue.settle(Duration::MAX);
        assert!(queue.is_empty());
        queue.push(Notice::Attributes(INodeNo(1)));
        queue.push(Notice::Attributes(INodeNo(2)));
        let open = |queue: &Queue| queue.state.lock().first_open();
        assert_eq!((open(&queue), queue.next().is_some()), (0, true));
        assert_eq!(queue.next().map(|it| it.object()), Some(INodeNo(2)));
        queue.delivered(INodeNo(2));
        assert_eq!(open(&queue), 0, "the first is still being delivered");
        assert!(!queue.is_empty());
        let waiter = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.settle(Duration::MAX)
        });
        queue.delivered(INodeNo(1));
        waiter.join().expect("no panic");
        assert_eq!(open(&queue), 2);
    }

    #[test]
    fn closing_frees_who_waits() {
        let queue = Arc::new(Queue::default());
        let waiter = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.next()
        });
        queue.close();
        assert_eq!(waiter.join().expect("no panic"), None);
    }
}
