//! Which directories are being changed through the mount, and which were a moment ago: so that a listing or a look
//! that may be older than such a change is not taken for what holds after it.
//!
//! Always true:
//! - a ticket that was taken before a change ended is overtaken in the directories of that change, for good;
//! - one that was taken after all changes of a directory had ended is not, as long as no other begins;
//! - what has to be forgotten for want of room makes older tickets overtaken everywhere, never good.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::EntryId;
use crate::error::{Error, Result};

/// How many directories are remembered in which changes have ended.
const ENDED_MAX: usize = 16_384;

/// When something was looked at at a source, set against the changes made through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Says that names or attributes in some directories are being changed, until it is dropped.
#[derive(Debug)]
#[must_use = "the change counts as ended when the guard is dropped"]
pub struct ChangeGuard {
    tickets: Arc<Tickets>,
    directories: Box<[u64]>,
}

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        self.tickets.end(&self.directories);
    }
}

/// The changes under way, and where some have ended.
#[derive(Debug, Default)]
pub(crate) struct Tickets(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts the changes that have ended.
    now: u64,
    /// How many are under way in a directory.
    under_way: HashMap<u64, u32>,
    /// When the last change of a directory ended.
    ended: HashMap<u64, u64>,
    /// Where changes ended up to then is not remembered.
    forgotten: u64,
}

impl Tickets {
    pub(crate) fn take(&self) -> Ticket {
        Ticket(self.0.lock().now)
    }

    pub(crate) fn begin(self: &Arc<Self>, directories: &[EntryId]) -> ChangeGuard {
        let directories: Box<[u64]> = directories.iter().map(|directory| directory.0).collect();
        let mut state = self.0.lock();
        for directory in &directories {
            *state.under_way.entry(*directory).or_default() += 1;
        }
        drop(state);
        ChangeGuard {
            tickets: Arc::clone(self),
            directories,
        }
    }

    fn end(&self, directories: &[u64]) {
        let mut state = self.0.lock();
        for directory in directories {
            if let Some(count) = state.under_way.get_mut(directory) {
                *count -= 1;
                if *count == 0 {
                    state.under_way.remove(directory);
                }
            }
        }
        state.note(directories);
    }

    /// Notes a change of directories that begins and ends now.
    pub(crate) fn touch(&self, directories: &[u64]) {
        self.0.lock().note(directories);
    }

    /// Tells whether what was seen in a directory since the ticket may be older than a change there.
    pub(crate) fn is_overtaken(&self, ticket: Ticket, directory: u64) -> bool {
        let state = self.0.lock();
        let ended_later = match state.ended.get(&directory) {
            Some(ended) => *ended > ticket.0,
            None => state.forgotten > ticket.0,
        };
        ended_later || state.under_way.contains_key(&directory)
    }

    /// Refuses what may be older than a change.
    pub(crate) fn check(&self, ticket: Ticket, directory: u64) -> Result<()> {
        if self.is_overtaken(ticket, directory) {
            return Err(Error::Overtaken(EntryId(directory)));
        }
        Ok(())
    }
}

impl State {
    fn note(&mut self, directories: &[u64]) {
        self.now += 1;
        for directory in directories {
            self.ended.insert(*directory, self.now);
        }
        if self.ended.len() > ENDED_MAX {
            // The older half goes at once, so that this costs little for each change.
            let mut times: Vec<_> = self.ended.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(ENDED_MAX / 2);
            self.forgotten = *middle;
            let forgotten = self.forgotten;
            self.ended.retain(|_, ended| *ended > forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EntryId = EntryId(7);
    const B: EntryId = EntryId(8);

    #[test]
    fn a_ticket_is_good_only_if_no_change_of_its_directory_ended_after_it_or_is_under_way() {
        let tickets = Arc::new(Tickets::default());
        let before = tickets.take();
        assert!(!tickets.is_overtaken(before, A.0));
        let (first, second) = (tickets.begin(&[A]), tickets.begin(&[A, B]));
        let amid = tickets.take();
        for ticket in [before, amid] {
            assert!(tickets.is_overtaken(ticket, A.0) && tickets.is_overtaken(ticket, B.0));
        }
        drop(first);
        assert!(tickets.is_overtaken(tickets.take(), A.0), "the second is under way");
        drop(second);
        for ticket in [before, amid] {
            assert!(tickets.is_overtaken(ticket, A.0) && tickets.is_overtaken(ticket, B.0));
            assert!(!tickets.is_overtaken(ticket, 9), "nothing happened there");
        }
        let after = tickets.take();
        assert!(!tickets.is_overtaken(after, A.0) && !tickets.is_overtaken(after, B.0));
        tickets.touch(&[B.0]);
        assert!(!tickets.is_overtaken(after, A.0) && tickets.is_overtaken(after, B.0));
    }

    #[test]
    fn what_had_to_be_forgotten_makes_older_tickets_overtaken_and_no_younger_ones() {
        let tickets = Tickets::default();
        let old = tickets.take();
        let mut young = Vec::new();
        for directory in 0..4 * ENDED_MAX as u64 {
            tickets.touch(&[directory]);
            assert!(tickets.0.lock().ended.len() <= ENDED_MAX);
            young.push(tickets.take());
        }
        for directory in 0..4 * ENDED_MAX as u64 {
            assert!(tickets.is_overtaken(old, directory));
            let before = directory.checked_sub(1).map_or(old, |before| young[before as usize]);
            assert!(tickets.is_overtaken(before, directory));
        }
        let last = tickets.take();
        assert!((0..4 * ENDED_MAX as u64).all(|directory| !tickets.is_overtaken(last, directory)));
        let recent = young[young.len() - ENDED_MAX / 4];
        assert!(!tickets.is_overtaken(recent, 3), "it ended long before");
    }
}
