//! What a kernel must be told: the catalog's changes, in the words of entries, attributes and pages.
//!
//! Always true: a subscriber that falls behind is told [`Event::Everything`], never nothing; and nobody who publishes
//! waits for a subscriber.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use manifold_catalog::{Change, EntryId};
use parking_lot::{Condvar, Mutex};

/// The most events that wait for one subscriber before they are all replaced by [`Event::Everything`].
const QUEUE_MAX: usize = 16_384;

/// Something that a kernel may have cached is no longer so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What stands (or does not stand) under this name.
    Entry {
        /// The directory.
        parent: EntryId,
        /// The name in it.
        name: Box<[u8]>,
    },
    /// The attributes of an entry.
    Attributes {
        /// The entry.
        id: EntryId,
    },
    /// The bytes of a file, and with them its attributes.
    Pages {
        /// The file.
        id: EntryId,
    },
    /// The listing of a directory.
    Directory {
        /// The directory.
        id: EntryId,
    },
    /// All that was ever answered may be different now.
    Everything,
}

/// What waiting for an event came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Something changed.
    Event(Event),
    /// Nothing changed within the time given.
    Nothing,
    /// The file system is gone, and nothing will change any more.
    Closed,
}

/// One subscriber's events, in the order in which they happened. Meant for a thread of its own, because a kernel may
/// not be notified from within a request.
#[derive(Debug)]
pub struct EventStream(Arc<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    closed: bool,
    /// How many events were ever told, one for each of those that [`Event::Everything`] stands for.
    told: u64,
    /// How many of them have been dealt with.
    done: u64,
}

/// Waits for what one subscriber was told.
#[derive(Clone, Debug)]
pub struct Settling(Arc<Mailbox>);

impl Settling {
    /// Tells whether the subscriber has dealt with everything told so far.
    pub fn is_done(&self) -> bool {
        let state = self.0.state.lock();
        state.done == state.told
    }

    /// Waits until the subscriber has dealt with everything told so far, but no longer than `patience`.
    pub fn wait(&self, patience: Duration) {
        let mut state = self.0.state.lock();
        let told = state.told;
        let open = |state: &mut State| state.done < told && !state.closed;
        self.0.arrived.wait_while_for(&mut state, open, patience);
    }
}

impl EventStream {
    /// Gives what waits for this stream's subscriber, from another thread.
    pub fn settling(&self) -> Settling {
        Settling(Arc::clone(&self.0))
    }

    /// Waits for the next event, but no longer than `timeout`. The one before counts as dealt with.
    pub fn receive(&self, timeout: Duration) -> Received {
        let until = Instant::now() + timeout;
        let mut state = self.0.state.lock();
        let done = state.told - state.events.len() as u64;
        if state.done != done {
            state.done = done;
            self.0.arrived.notify_all();
        }
        loop {
            if let Some(event) = state.events.pop_front() {
                return Received::Event(event);
            }
            if state.closed {
                return Received::Closed;
            }
            if self.0.arrived.wait_until(&mut state, until).timed_out() && state.events.is_empty() && !state.closed {
                return Received::Nothing;
            }
        }
    }
}

/// All subscribers.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    subscribers: Mutex<Vec<Weak<Mailbox>>>,
}

impl Publisher {
    /// Adds a subscriber, who sees all that is published from now on.
    pub(crate) fn subscribe(&self) -> EventStream {
        let mailbox = Arc::new(Mailbox::default());
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|it| it.strong_count() > 0);
        subscribers.push(Arc::downgrade(&mailbox));
        EventStream(mailbox)
    }

    /// Hands events to everyone.
    pub(crate) fn publish(&self, events: &[Event]) {
        for mailbox in self.mailboxes() {
            let mut state = mailbox.state.lock();
            state.told += events.len() as u64;
            if state.events.front() == Some(&Event::Everything) && state.events.len() == 1 {
                continue;
            }
            if state.events.len() + events.len() > QUEUE_MAX || events.contains(&Event::Everything) {
                state.events.clear();
                state.events.push_back(Event::Everything);
            } else {
                state.events.extend(events.iter().cloned());
            }
            mailbox.arrived.notify_all();
        }
    }

    /// Tells everyone that nothing more will come.
    pub(crate) fn close(&self) {
        for mailbox in self.mailboxes() {
            mailbox.state.lock().closed = true;
            mailbox.arrived.notify_all();
        }
    }

    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.subscribers.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Turns one change of the catalog into what a kernel must be told.
pub(crate) fn events_of(change: &Change, events: &mut Vec<Event>) {
    let mut entry = |parent: &EntryId, name: &[u8]| {
        events.push(Event::Entry {
            parent: *parent,
            name: name.into(),
        });
        events.push(Event::Directory { id: *parent });
    };
    match change {
        Change::Added { parent, name, .. } | Change::Replaced { parent, name, .. } => entry(parent, name),
        Change::Removed { parent, name, id } => {
            entry(parent, name);
            events.push(Event::Attributes { id: *id });
        }
        Change::Attributes { id } => events.push(Event::Attributes { id: *id }),
        Change::Content { id } => events.push(Event::Pages { id: *id }),
        Change::Moved { from, to, id } => {
            entry(&from.0, &from.1);
            entry(&to.0, &to.1);
            events.push(Event::Attributes { id: *id });
        }
        Change::Directory { id } => events.push(Event::Directory { id: *id }),
        Change::Overflow => events.push(Event::Everything),
    }
}
