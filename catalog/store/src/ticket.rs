//! Which directories are being changed through the mount, which were a moment ago, and which listings were applied: so
//! that a listing or a look that may be older than such a change, than the listing that was applied, or than another look at
//! the entry, is not taken for what holds after it.
//!
//! Always true:
//! - a ticket that was taken before a change ended is overtaken in the directories of that change, for good;
//! - one that was taken after all changes of a directory had ended is not, as long as no other begins;
//! - what has to be forgotten of changes for want of room makes older tickets overtaken everywhere, never good;
//! - what was seen by a path is not taken for what is known of an entry that stands elsewhere by now.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::EntryId;
use crate::error::{Error, Result};

/// How many directories are remembered in which changes have ended.
const ENDED_MAX: usize = 16_384;
/// How many directories are remembered of which a listing was applied.
const APPLIED_MAX: usize = 16_384;
/// How many entries are remembered that were looked at.
const LOOKED_MAX: usize = 16_384;

/// When something was looked at at a source, set against the changes made through the mount and against other looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Tickets that were taken up to it.
    taken: u64,
    /// Changes that had ended.
    changes: u64,
    /// A hash of the path beneath its source's root at which was looked.
    place: Option<u64>,
    /// Whether whoever moves a directory has looked.
    of_move: bool,
}

impl Ticket {
    /// Says by which path beneath its source's root is looked. If the entry stands elsewhere when the answer comes, that is of
    /// something else, and overtaken.
    #[must_use]
    pub fn by_path(self, path: &[u8]) -> Self {
        Self {
            place: Some(hash_of(path)),
            ..self
        }
    }

    /// Says that whoever moves the objects of a renamed directory looks at what it holds: that is taken in though the directory
    /// is on the move.
    #[must_use]
    pub fn of_move(self) -> Self {
        Self { of_move: true, ..self }
    }

    pub(crate) fn is_of_move(&self) -> bool {
        self.of_move
    }

    /// Tells whether it was looked by another path.
    pub(crate) fn is_elsewhere(&self, path: &[u8]) -> bool {
        self.place.is_some_and(|place| place != hash_of(path))
    }

    /// Tells whether it was looked by a path at all.
    pub(crate) fn has_place(&self) -> bool {
        self.place.is_some()
    }
}

fn hash_of(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

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
    /// Counts the tickets.
    taken: u64,
    /// The ticket of the last listing of a directory that was applied.
    applied: HashMap<u64, u64>,
    /// The ticket of the last look at an entry, for its own sake, that found it.
    looked: HashMap<u64, u64>,
}

impl Tickets {
    pub(crate) fn take(&self) -> Ticket {
        let mut state = self.0.lock();
        state.taken += 1;
        Ticket {
            taken: state.taken,
            changes: state.now,
            place: None,
            of_move: false,
        }
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

    /// Notes a change that may concern any directory.
    pub(crate) fn touch_all(&self) {
        let mut state = self.0.lock();
        state.now += 1;
        state.ended.clear();
        state.forgotten = state.now;
    }

    /// Tells whether what was seen in a directory since the ticket may be older than a change there.
    pub(crate) fn is_overtaken(&self, ticket: Ticket, directory: u64) -> bool {
        let state = self.0.lock();
        let ended_later = match state.ended.get(&directory) {
            Some(ended) => *ended > ticket.changes,
            None => state.forgotten > ticket.changes,
        };
        ended_later || state.under_way.contains_key(&directory)
    }

    /// Refuses a listing, or a look at one of its entries, that is older than the listing of a directory that was applied last.
    pub(crate) fn check_listing(&self, ticket: Ticket, directory: u64) -> Result<()> {
        match self.0.lock().applied.get(&directory) {
            Some(last) if *last > ticket.taken => Err(Error::Overtaken(EntryId(directory))),
            _ => Ok(()),
        }
    }

    /// Refuses a listing that would take an entry away from a directory that was listed later, and had it.
    pub(crate) fn check_claim(&self, ticket: Ticket, directory: u64, stands_in: u64) -> Result<()> {
        match self.0.lock().applied.get(&stands_in) {
            Some(last) if *last > ticket.taken => Err(Error::Overtaken(EntryId(directory))),
            _ => Ok(()),
        }
    }

    /// Notes that a listing is applied.
    pub(crate) fn note_listing(&self, ticket: Ticket, directory: u64) {
        let mut state = self.0.lock();
        let last = state.applied.entry(directory).or_default();
        *last = ticket.taken.max(*last);
        forget_older_half(&mut state.applied, APPLIED_MAX);
    }

    /// Notes that an entry was looked at by itself, and is there.
    pub(crate) fn note_look(&self, ticket: Ticket, id: u64) {
        let mut state = self.0.lock();
        let last = state.looked.entry(id).or_default();
        *last = ticket.taken.max(*last);
        forget_older_half(&mut state.looked, LOOKED_MAX);
    }

    /// Refuses a listing or a look that would change an entry, and is older than a look at it.
    pub(crate) fn check_look(&self, ticket: Ticket, directory: u64, id: u64) -> Result<()> {
        match self.0.lock().looked.get(&id) {
            Some(last) if *last > ticket.taken => Err(Error::Overtaken(EntryId(directory))),
            _ => Ok(()),
        }
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
        if let Some(last) = forget_older_half(&mut self.ended, ENDED_MAX) {
            self.forgotten = last;
        }
    }
}

/// Makes room where there is too much. The older half goes at once, so that this costs little for each that comes. Gives
/// the time of the last that went.
fn forget_older_half(times: &mut HashMap<u64, u64>, max: usize) -> Option<u64> {
    if times.len() <= max {
        return None;
    }
    let mut sorted: Vec<_> = times.values().copied().collect();
    let (_, middle, _) = sorted.select_nth_unstable(max / 2);
    let last = *middle;
    times.retain(|_, time| *time > last);
    Some(last)
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
    fn a_listing_that_began_before_the_one_that_was_applied_is_not() {
        let tickets = Tickets::default();
        let (first, second) = (tickets.take(), tickets.take());
        tickets.note_listing(second, A.0);
        assert!(tickets.check_listing(first, A.0).is_err());
        for (ticket, directory) in [(first, B), (second, A), (tickets.take(), A)] {
            tickets.check_listing(ticket, directory.0).unwrap();
        }
        for directory in 0..4 * APPLIED_MAX as u64 {
            tickets.note_listing(second, 100 + directory);
            assert!(tickets.0.lock().applied.len() <= APPLIED_MAX);
        }
    }

    #[test]
    fn a_listing_changes_nothing_that_was_looked_at_after_it_began() {
        let tickets = Tickets::default();
        let (old, look, young) = (tickets.take(), tickets.take(), tickets.take());
        tickets.note_look(look, 5);
        tickets.note_look(old, 5);
        assert!(tickets.check_look(old, A.0, 5).is_err());
        assert!(tickets.check_look(old, A.0, 6).is_ok());
        assert!(tickets.check_look(young, A.0, 5).is_ok());
    }

    #[test]
    fn a_change_of_everything_makes_all_older_tickets_overtaken_and_no_younger_ones() {
        let tickets = Tickets::default();
        let old = tickets.take();
        tickets.touch(&[A.0]);
        tickets.touch_all();
        let young = tickets.take();
        for directory in [A.0, B.0] {
            assert!(tickets.is_overtaken(old, directory));
            assert!(!tickets.is_overtaken(young, directory));
        }
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
