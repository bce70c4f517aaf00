//! What is to be looked at again, and when: many notices of one directory make one look.
//!
//! Always true: a directory is looked at by one at a time; what is noticed meanwhile makes another look afterwards; a
//! directory that takes long to list, and changes all the time, takes a fifth of the time at most; and when there is too
//! much to remember, everything is looked at again instead of something being forgotten.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use manifold_backends::Where;
use manifold_catalog::EntryId;
use tokio::time::Instant;

/// How long after the first notice a directory is looked at, so that what comes with it is seen too.
const SETTLE: Duration = Duration::from_millis(50);
/// How many times as long as the last look took the next one waits.
const REST: u32 = 4;
/// The longest rest of a directory.
const REST_MAX: Duration = Duration::from_secs(10);
/// The longest rest after a look at everything.
const REST_OF_ALL_MAX: Duration = Duration::from_hours(1);
/// Children that are looked at one by one; where more changed, the directory is listed.
const CHILDREN_MAX: usize = 16;
/// Directories that wait.
const DIRECTORIES_MAX: usize = 16_384;

/// Something to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Look at a directory, or at some of its children.
    Directory {
        directory: EntryId,
        /// As it was noticed.
        place: Where,
        look: Look,
    },
    /// Look at everything.
    Everything,
}

/// What of a directory is to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Which names it holds, and with them all children.
    pub(crate) names: bool,
    /// Its own attributes.
    pub(crate) itself: bool,
    /// The attributes of these children, as the source calls them.
    pub(crate) children: Vec<Vec<u8>>,
}

impl Look {
    /// Looks at the names, and at the times of the directory that changed with them.
    pub(crate) fn names() -> Self {
        Self {
            names: true,
            ..Self::default()
        }
    }

    fn join(&mut self, other: Self) {
        self.names |= other.names;
        self.itself |= other.itself;
        for child in other.children {
            if !self.children.contains(&child) {
                self.children.push(child);
            }
        }
        self.names |= self.children.len() > CHILDREN_MAX;
        if self.names {
            self.children.clear();
        }
    }
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    place: Where,
    look: Look,
}

/// All that waits.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    waiting: HashMap<EntryId, Waiting>,
    /// Those of them that nobody is looking at, by time.
    order: BTreeSet<(Instant, EntryId)>,
    busy: BTreeSet<EntryId>,
    /// Those that rest after a look.
    resting: HashMap<EntryId, Instant>,
    everything: Option<Instant>,
    everything_busy: bool,
    everything_rests: Option<Instant>,
}

impl Pending {
    /// Takes note that a directory is to be looked at.
    pub(crate) fn note(&mut self, directory: EntryId, place: Where, look: Look, now: Instant) {
        self.note_after(directory, place, look, now, SETTLE);
    }

    /// Takes note that a directory is to be looked at, but not before `pause` is over.
    pub(crate) fn note_after(&mut self, directory: EntryId, place: Where, look: Look, now: Instant, pause: Duration) {
        // It will be looked at with everything else.
        if self.everything.is_some() {
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(&directory) {
            waiting.look.join(look);
            waiting.place = place;
            return;
        }
        if self.waiting.len() >= DIRECTORIES_MAX {
            return self.missed(now);
        }
        let rested = self.resting.get(&directory).copied().unwrap_or(now);
        let mut waiting = Waiting {
            due: (now + pause).max(rested),
            place,
            look: Look::default(),
        };
        waiting.look.join(look);
        if !self.busy.contains(&directory) {
            self.order.insert((waiting.due, directory));
        }
        self.waiting.insert(directory, waiting);
    }

    /// Takes note that anything may have changed.
    pub(crate) fn missed(&mut self, now: Instant) {
        self.waiting.clear();
        self.order.clear();
        let rested = self.everything_rests.unwrap_or(now);
        self.everything.get_or_insert((now + SETTLE).max(rested));
    }

    /// Takes something that is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Work> {
        if !self.everything_busy && self.everything.is_some_and(|due| due <= now) {
            self.everything = None;
            self.everything_busy = true;
            return Some(Work::Everything);
        }
        let &(due, directory) = self.order.first()?;
        if due > now {
            return None;
        }
        self.order.pop_first();
        let Waiting { place, look, .. } = self.waiting.remove(&directory)?;
        self.busy.insert(directory);
        Some(Work::Directory { directory, place, look })
    }

    /// Says when something is due next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let everything = self.everything.filter(|_| !self.everything_busy);
        let first = self.order.first().map(|(due, _)| *due);
        everything.into_iter().chain(first).min()
    }

    /// Takes note that a look at a directory is over.
    pub(crate) fn looked(&mut self, directory: EntryId, took: Duration, now: Instant) {
        self.busy.remove(&directory);
        self.resting.retain(|_, until| *until > now);
        let rest = (took * REST).min(REST_MAX);
        if rest > SETTLE {
            self.resting.insert(directory, now + rest);
        }
        if let Some(waiting) = self.waiting.get_mut(&directory) {
            waiting.due = waiting.due.max(now + rest);
            self.order.insert((waiting.due, directory));
        }
    }

    /// Takes note that a look at everything is over.
    pub(crate) fn looked_at_all(&mut self, took: Duration, now: Instant) {
        self.everything_busy = false;
        let rested = now + (took * REST).min(REST_OF_ALL_MAX);
        self.everything_rests = Some(rested);
        self.everything = self.everything.map(|due| due.max(rested));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: EntryId = EntryId(1);
    const MS: Duration = Duration::from_millis(1);

    fn place(number: u64) -> Where {
        Where::Covered { number, mark: 0 }
    }

    fn child(name: &str) -> Look {
        Look {
            children: vec![name.into()],
            ..Look::default()
        }
    }

    fn look_of(work: Option<Work>) -> Look {
        match work {
            Some(Work::Directory { look, .. }) => look,
            other => panic!("a directory is due: {other:?}"),
        }
    }

    #[tokio::test]
    async fn many_notices_of_a_directory_make_one_look_soon_after_the_first() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        for after in 0..40 {
            pending.note(ONE, place(1), child("a"), start + MS * after);
        }
        assert_eq!(pending.take(start + SETTLE - MS), None);
        assert_eq!(pending.due(), Some(start + SETTLE));
        assert_eq!(look_of(pending.take(start + SETTLE)).children, [b"a".to_vec()]);
        assert_eq!(pending.due(), None);
    }

    #[tokio::test]
    async fn many_children_are_looked_at_by_listing_their_directory() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        for number in 0..=CHILDREN_MAX {
            pending.note(ONE, place(1), child(&number.to_string()), start);
        }
        let look = look_of(pending.take(start + SETTLE));
        assert!(look.names && look.children.is_empty());
    }

    #[tokio::test]
    async fn what_is_noticed_during_a_look_makes_another_after_a_rest() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.note(ONE, place(1), Look::names(), start);
        look_of(pending.take(start + SETTLE));
        pending.note(ONE, place(1), child("a"), start + SETTLE);
        assert_eq!(
            pending.take(start + Duration::from_secs(5)),
            None,
            "it is being looked at"
        );
        let over = start + Duration::from_secs(1);
        pending.looked(ONE, Duration::from_secs(1), over);
        assert_eq!(pending.due(), Some(over + Duration::from_secs(4)));
        look_of(pending.take(over + Duration::from_secs(4)));
        pending.looked(ONE, Duration::from_mins(1), over);
        pending.note(ONE, place(1), child("a"), over);
        assert_eq!(pending.due(), Some(over + REST_MAX), "no rest is longer");
    }

    #[tokio::test]
    async fn too_much_to_remember_becomes_everything() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        for number in 0..=DIRECTORIES_MAX as u64 {
            pending.note(EntryId(number), place(number), Look::names(), start);
        }
        assert_eq!(pending.take(start + SETTLE), Some(Work::Everything));
        assert_eq!(pending.take(start + SETTLE), None);
        pending.missed(start + SETTLE);
        assert_eq!(pending.due(), None, "a look at everything is under way");
        let over = start + Duration::from_secs(10);
        pending.looked_at_all(Duration::from_secs(2), over);
        assert_eq!(pending.take(over), None);
        assert_eq!(pending.take(over + Duration::from_secs(8)), Some(Work::Everything));
    }
}
