//! Who may ask which source next: the order and the bounds of all requests. Pure: it starts nothing itself.
//!
//! A lane is a source, or the disk cache. Each has room for so many requests at once, and all share one budget of bytes in flight.
//! Readers go before what is fetched ahead, and what is fetched ahead never fills a lane to the last place. What is fetched to be kept (pins) goes
//! last, and only while nobody else has anything to ask of the lane.
//!
//! Always true:
//! - no lane has more requests under way than its limit;
//! - the bytes in flight stay within the budget, but for one request that alone is larger: it goes when nothing else does;
//! - one lane holds at most three eighths of the budget, and the last quarter is only for readers of a lane that has
//!   nothing under way: a source that hangs cannot take the memory that others need, not even for fetching ahead;
//! - whatever can go, goes: while anything waits, something is under way.

use std::collections::{BTreeMap, VecDeque};

use manifold_catalog::SourceId;

/// Whose requests stand in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// The disk cache.
    Disk,
    /// A source.
    Source(u32),
}

/// What a request is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody waits for it.
    Reader,
    /// It is fetched ahead of a reader.
    Ahead,
    /// It is fetched to be kept on disk.
    Pinned,
}

/// How much a request will hold in memory, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Bytes.
    pub(crate) bytes: u64,
    /// What it is for.
    pub(crate) class: Class,
}

/// A request that may go now. [`Queue::finished`] must be told when it ends.
#[derive(Debug)]
pub(crate) struct Started<T> {
    pub(crate) lane: Lane,
    pub(crate) load: Load,
    pub(crate) request: T,
}

#[derive(Debug)]
struct Line<T> {
    limit: u32,
    running: u32,
    running_ahead: u32,
    running_pinned: u32,
    bytes: u64,
    readers: VecDeque<(Load, T)>,
    ahead: VecDeque<(Load, T)>,
    pinned: VecDeque<(Load, T)>,
}

impl<T> Line<T> {
    fn waiting(&mut self, class: Class) -> &mut VecDeque<(Load, T)> {
        match class {
            Class::Reader => &mut self.readers,
            Class::Ahead => &mut self.ahead,
            Class::Pinned => &mut self.pinned,
        }
    }
}

/// Requests that wait for their turn at one source, or at the disk cache, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The source; `None`: the disk cache.
    pub source: Option<SourceId>,
    /// Somebody waits for them.
    pub readers: u64,
    /// They are ahead of a reader.
    pub ahead: u64,
    /// They are for what is pinned.
    pub pinned: u64,
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    budget: u64,
    bytes: u64,
    lanes: BTreeMap<Lane, Line<T>>,
    /// The lane that was served last, so that the next goes first.
    served: Option<Lane>,
}

impl<T> Queue<T> {
    /// Starts empty. `budget` is in bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            bytes: 0,
            lanes: BTreeMap::new(),
            served: None,
        }
    }

    /// Puts a request in line. `limit` is how many requests the lane likes at once, as far as is known now.
    pub(crate) fn push(&mut self, lane: Lane, limit: u32, load: Load, request: T) {
        let row = self.lanes.entry(lane).or_insert_with(|| Line {
            limit: 1,
            running: 0,
            running_ahead: 0,
            running_pinned: 0,
            bytes: 0,
            readers: VecDeque::new(),
            ahead: VecDeque::new(),
            pinned: VecDeque::new(),
        });
        row.limit = limit.max(1);
        row.waiting(load.class).push_back((load, request));
    }

    /// Moves what `is_wanted` picks from what nobody waited for to the readers: somebody does now.
    pub(crate) fn promote(&mut self, lane: Lane, mut is_wanted: impl FnMut(&T) -> bool) {
        let Some(row) = self.lanes.get_mut(&lane) else { return };
        for class in [Class::Ahead, Class::Pinned] {
            let mut at = 0;
            while at < row.waiting(class).len() {
                if is_wanted(&row.waiting(class)[at].1)
                    && let Some((mut load, request)) = row.waiting(class).remove(at)
                {
                    load.class = Class::Reader;
                    row.readers.push_back((load, request));
                } else {
                    at += 1;
                }
            }
        }
    }

    /// Takes out what is not wanted any more.
    pub(crate) fn take_out(&mut self, lane: Lane, mut is_dropped: impl FnMut(&T) -> bool) -> Vec<T> {
        let Some(row) = self.lanes.get_mut(&lane) else {
            return Vec::new();
        };
        let mut all_gone = Vec::new();
        for line in [&mut row.readers, &mut row.ahead] {
            let (gone, kept): (VecDeque<_>, _) = std::mem::take(line).into_iter().partition(|it| is_dropped(&it.1));
            *line = kept;
            all_gone.extend(gone.into_iter().map(|it| it.1));
        }
        if row.running == 0 && row.readers.is_empty() && row.ahead.is_empty() && row.pinned.is_empty() {
            self.lanes.remove(&lane);
        }
        all_gone
    }

    /// Gives the next request that may go.
    pub(crate) fn start(&mut self) -> Option<Started<T>> {
        for class in [Class::Reader, Class::Ahead, Class::Pinned] {
            let after = self.served.and_then(|served| {
                self.lanes
                    .keys()
                    .copied()
                    .find(|lane| *lane > served)
                    .or_else(|| self.lanes.keys().next().copied())
            });
            let first = after.or_else(|| self.lanes.keys().next().copied())?;
            let mut order = self
                .lanes
                .range(first..)
                .chain(self.lanes.range(..first))
                .map(|(lane, _)| *lane);
            let Some(lane) = order.find(|lane| self.may_start(*lane, class)) else {
                continue;
            };
            let row = self.lanes.get_mut(&lane)?;
            let (load, request) = row.waiting(class).pop_front()?;
            row.running += 1;
            row.running_ahead += u32::from(class == Class::Ahead);
            row.running_pinned += u32::from(class == Class::Pinned);
            row.bytes += load.bytes;
            self.bytes += load.bytes;
            self.served = Some(lane);
            return Some(Started { lane, load, request });
        }
        None
    }

    /// Takes note that a request has ended, whatever came of it.
    pub(crate) fn finished(&mut self, lane: Lane, load: Load) {
        self.bytes -= load.bytes;
        if let Some(row) = self.lanes.get_mut(&lane) {
            row.running -= 1;
            row.running_ahead -= u32::from(load.class == Class::Ahead);
            row.running_pinned -= u32::from(load.class == Class::Pinned);
            row.bytes -= load.bytes;
            if row.running == 0 && row.readers.is_empty() && row.ahead.is_empty() && row.pinned.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Says what waits, for each lane that has anything waiting or under way.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let lanes = self.lanes.iter().map(|(lane, line)| Waiting {
            source: match lane {
                Lane::Disk => None,
                Lane::Source(id) => Some(SourceId(*id)),
            },
            readers: line.readers.len() as u64,
            ahead: line.ahead.len() as u64,
            pinned: line.pinned.len() as u64,
        });
        lanes.collect()
    }

    /// Gives the bytes in flight.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn may_start(&self, lane: Lane, class: Class) -> bool {
        let Some(row) = self.lanes.get(&lane) else {
            return false;
        };
        let waiting = match class {
            Class::Reader => &row.readers,
            Class::Ahead => &row.ahead,
            Class::Pinned => &row.pinned,
        };
        let Some((load, _)) = waiting.front() else {
            return false;
        };
        if self.bytes == 0 {
            return true;
        }
        if row.running >= row.limit {
            return false;
        }
        let after = self.bytes + load.bytes;
        match class {
            Class::Reader if row.running == 0 => after <= self.budget,
            Class::Reader => after <= self.budget / 4 * 3 && row.bytes + load.bytes <= self.budget / 8 * 3,
            Class::Ahead => {
                let places_kept = (row.limit / 4).max(u32::from(row.limit > 1));
                row.running_ahead + places_kept < row.limit
                    && after <= self.budget / 8 * 5
                    && row.bytes + load.bytes <= self.budget / 4
            }
            Class::Pinned => {
                let nobody_else = row.running == row.running_pinned && row.readers.is_empty() && row.ahead.is_empty();
                nobody_else
                    && row.running_pinned < row.limit.div_ceil(2)
                    && after <= self.budget / 2
                    && row.bytes + load.bytes <= self.budget / 8
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READER: Load = load(Class::Reader);
    const AHEAD: Load = load(Class::Ahead);
    const PINNED: Load = load(Class::Pinned);

    const fn load(class: Class) -> Load {
        Load { bytes: 10, class }
    }

    #[test]
    fn readers_go_before_what_is_fetched_ahead() {
        let mut queue = Queue::new(1000);
        queue.push(Lane::Source(1), 2, AHEAD, "ahead");
        queue.push(Lane::Source(1), 2, AHEAD, "ahead");
        queue.push(Lane::Source(1), 2, READER, "reader");
        assert_eq!(queue.start().unwrap().request, "reader");
        assert_eq!(queue.start().unwrap().request, "ahead");
        assert!(queue.start().is_none(), "the lane is full");
    }

    #[test]
    fn what_waits_is_told_by_what_it_is_for() {
        let mut queue = Queue::new(1000);
        queue.push(Lane::Disk, 1, READER, ());
        for load in [READER, READER, AHEAD, PINNED] {
            queue.push(Lane::Source(7), 1, load, ());
        }
        queue.start().expect("there is room");
        let line = |source, readers, ahead, pinned| Waiting {
            source,
            readers,
            ahead,
            pinned,
        };
        assert_eq!(queue.waiting(), [line(None, 0, 0, 0), line(Some(SourceId(7)), 2, 1, 1)]);
        queue.finished(Lane::Disk, READER);
        assert_eq!(queue.waiting().len(), 1, "a lane with nothing in it is none");
    }

    #[test]
    fn what_is_fetched_ahead_leaves_a_place_for_a_reader() {
        let mut queue = Queue::new(1000);
        for _ in 0..4 {
            queue.push(Lane::Source(1), 4, AHEAD, "ahead");
        }
        assert_eq!(std::iter::from_fn(|| queue.start()).count(), 3);
        queue.push(Lane::Source(1), 4, READER, "reader");
        assert_eq!(queue.start().unwrap().request, "reader");
    }

    #[test]
    fn what_is_fetched_to_be_kept_goes_while_nobody_else_asks_for_anything() {
        let mut queue = Queue::new(1000);
        for _ in 0..4 {
            queue.push(Lane::Source(1), 4, PINNED, "pinned");
        }
        queue.push(Lane::Source(1), 4, AHEAD, "ahead");
        assert_eq!(queue.start().unwrap().request, "ahead");
        assert!(queue.start().is_none(), "something is fetched ahead");
        queue.finished(Lane::Source(1), AHEAD);
        assert_eq!(std::iter::from_fn(|| queue.start()).count(), 2, "half of the places");
        queue.push(Lane::Source(1), 4, READER, "reader");
        assert_eq!(queue.start().unwrap().request, "reader");
        queue.finished(Lane::Source(1), PINNED);
        assert!(queue.start().is_none(), "a reader waits for its answer");
        queue.finished(Lane::Source(1), READER);
        assert_eq!(queue.start().unwrap().request, "pinned");
    }

    #[test]
    fn a_source_that_hangs_leaves_the_memory_that_another_needs() {
        let mut queue = Queue::new(100);
        for _ in 0..100 {
            queue.push(Lane::Source(1), 64, READER, "hangs");
        }
        assert_eq!(std::iter::from_fn(|| queue.start()).count(), 3);
        queue.push(Lane::Source(2), 64, READER, "answers");
        assert_eq!(queue.start().unwrap().request, "answers");
    }

    #[test]
    fn what_somebody_waits_for_overtakes() {
        let mut queue = Queue::new(1000);
        for number in 0..5 {
            queue.push(Lane::Source(1), 1, AHEAD, number);
        }
        queue.promote(Lane::Source(1), |number| *number == 3);
        assert_eq!(queue.start().unwrap().request, 3);
    }

    #[test]
    fn what_nobody_wants_any_more_is_taken_out() {
        let mut queue = Queue::new(1000);
        for number in 0..5 {
            queue.push(Lane::Source(1), 1, AHEAD, number);
        }
        queue.push(Lane::Source(1), 1, READER, 6);
        queue.push(Lane::Source(1), 1, READER, 7);
        assert_eq!(queue.take_out(Lane::Source(1), |number| number % 2 == 0), [6, 0, 2, 4]);
        assert_eq!(queue.start().unwrap().request, 7);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_waits_for_nothing(
            budget in 1_u64..200,
            steps in proptest::collection::vec((0_u32..4, 1_u64..80, 0_usize..3, any::<bool>()), 1..120),
        ) {
            const LIMIT: u32 = 3;
            let mut queue = Queue::new(budget);
            let mut running: Vec<Started<()>> = Vec::new();
            let mut waiting = 0_usize;
            for (source, bytes, class, finish) in steps {
                if finish && !running.is_empty() {
                    let done = running.remove(source as usize % running.len());
                    queue.finished(done.lane, done.load);
                } else {
                    let class = [Class::Reader, Class::Ahead, Class::Pinned][class];
                    queue.push(Lane::Source(source), LIMIT, Load { bytes, class }, ());
                    waiting += 1;
                }
                while let Some(started) = queue.start() {
                    running.push(started);
                    waiting -= 1;
                }
                let bytes: u64 = running.iter().map(|it| it.load.bytes).sum();
                prop_assert_eq!(bytes, queue.bytes());
                prop_assert!(bytes <= budget || running.len() == 1, "{bytes} bytes of {budget}");
                for lane in 0..4 {
                    prop_assert!(running.iter().filter(|it| it.lane == Lane::Source(lane)).count() <= LIMIT as usize);
                }
                prop_assert!(waiting == 0 || !running.is_empty());
            }
        }
    }
}
