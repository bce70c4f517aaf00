//! Which object of the disk cache goes first: S3-FIFO over whole objects (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023), with bytes in place of counts.
//!
//! New objects queue in `small`, which is where room is made while it holds more than a tenth of the limit. An object
//! that was read again from the cache moves on to `main` when its turn comes; one that comes back soon after it went
//! (a ghost) goes to `main` at once. So a big file that is read through once makes room for itself out of its own
//! blocks, and what is used again and again stays.
//!
//! What is pinned stands in no queue: it never goes, and its bytes are counted apart from the limit.
//!
//! Pure: it knows no files. Always true: `used` is the sum over all objects that are not pinned, `pinned_used` over those that are.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::key::{DiskKey, SourceTag};
use super::pinned::PinnedKeys;

/// Uses beyond this many count no more.
const USES_MAX: u8 = 3;
/// How many objects that went are remembered.
const GHOSTS_MAX: usize = 4_096;
/// The part of the limit that new objects may fill before they make room for each other.
const SMALL_PART: u64 = 10;

/// Counts how often an object was read from the cache since its last turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses(Arc<AtomicU8>);

impl Uses {
    /// Counts one use.
    pub(crate) fn touch(&self) {
        let uses = self.0.load(Ordering::Relaxed);
        if uses < USES_MAX {
            self.0.store(uses + 1, Ordering::Relaxed);
        }
    }

    /// Forgets all uses, and tells whether there were any.
    fn reset(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) > 0
    }

    /// Forgets one use, and tells whether there was one.
    fn take_one(&self) -> bool {
        let uses = self.0.load(Ordering::Relaxed);
        self.0.store(uses.saturating_sub(1), Ordering::Relaxed);
        uses > 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
    /// In none.
    Pinned,
}

#[derive(Debug)]
struct Resident {
    bytes: u64,
    queue: Queue,
    uses: Uses,
    /// Bytes of its blocks that are there, where somebody has counted them since it last changed.
    present: Option<u64>,
}

/// What a source occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupied {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// All objects on disk, their bytes, and the order in which they go.
#[derive(Debug)]
pub(crate) struct Residents {
    limit: u64,
    used: u64,
    pinned_used: u64,
    small_bytes: u64,
    pins: PinnedKeys,
    objects: HashMap<DiskKey, Resident>,
    small: VecDeque<DiskKey>,
    main: VecDeque<DiskKey>,
    ghosts: HashSet<DiskKey>,
    ghost_order: VecDeque<DiskKey>,
}

impl Residents {
    /// Starts empty, with a limit in bytes for what is not pinned.
    pub(crate) fn new(limit: u64, pins: PinnedKeys) -> Self {
        Self {
            limit,
            used: 0,
            pinned_used: 0,
            small_bytes: 0,
            pins,
            objects: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: HashSet::new(),
            ghost_order: VecDeque::new(),
        }
    }

    /// Says how many bytes an object occupies now, and makes it known where it was not.
    pub(crate) fn account(&mut self, key: DiskKey, bytes: u64, uses: &Uses) {
        if let Some(resident) = self.objects.get_mut(&key) {
            let sum = match resident.queue {
                Queue::Pinned => &mut self.pinned_used,
                Queue::Small | Queue::Main => &mut self.used,
            };
            *sum = *sum - resident.bytes + bytes;
            if resident.queue == Queue::Small {
                self.small_bytes = self.small_bytes - resident.bytes + bytes;
            }
            resident.bytes = bytes;
            resident.present = None;
            return;
        }
        let queue = if self.pins.contains(key) {
            Queue::Pinned
        } else if self.ghosts.remove(&key) {
            Queue::Main
        } else {
            Queue::Small
        };
        self.admit(key, bytes, queue, uses);
    }

    /// Takes in an object that an earlier run left behind: it has proved nothing, but is no newcomer either.
    pub(crate) fn account_found(&mut self, key: DiskKey, bytes: u64, uses: &Uses) {
        if !self.objects.contains_key(&key) {
            let queue = if self.pins.contains(key) {
                Queue::Pinned
            } else {
                Queue::Main
            };
            self.admit(key, bytes, queue, uses);
        }
    }

    /// Takes in which objects are pinned from now on. What is not any more is no newcomer among the rest.
    pub(crate) fn set_pins(&mut self, pins: PinnedKeys) {
        self.pins = pins;
        let mut unpinned = Vec::new();
        for (key, resident) in &mut self.objects {
            match (resident.queue, self.pins.contains(*key)) {
                (Queue::Small | Queue::Main, true) => {
                    if resident.queue == Queue::Small {
                        self.small_bytes -= resident.bytes;
                    }
                    self.used -= resident.bytes;
                    self.pinned_used += resident.bytes;
                    resident.queue = Queue::Pinned;
                }
                (Queue::Pinned, false) => {
                    self.pinned_used -= resident.bytes;
                    self.used += resident.bytes;
                    resident.queue = Queue::Main;
                    unpinned.push(*key);
                }
                _ => {}
            }
        }
        let objects = &self.objects;
        let stays = |queue| move |key: &DiskKey| objects.get(key).is_some_and(|it| it.queue == queue);
        self.small.retain(stays(Queue::Small));
        self.main.retain(stays(Queue::Main));
        self.main.extend(unpinned);
    }

    /// Gives what is pinned.
    pub(crate) fn pins(&self) -> &PinnedKeys {
        &self.pins
    }

    /// Remembers how many bytes of an object are there, until it changes.
    pub(crate) fn set_present(&mut self, key: DiskKey, bytes: u64) {
        if let Some(resident) = self.objects.get_mut(&key) {
            resident.present = Some(bytes);
        }
    }

    /// Gives how many bytes of an object are there; `None` where that must be counted.
    pub(crate) fn present(&self, key: DiskKey) -> Option<u64> {
        self.objects.get(&key).map_or(Some(0), |it| it.present)
    }

    /// Has the bytes of all objects counted anew.
    pub(crate) fn forget_present(&mut self) {
        for resident in self.objects.values_mut() {
            resident.present = None;
        }
    }

    /// Names the object whose turn it is to go, wholly or in part. It stays known until [`remove`](Self::remove).
    pub(crate) fn victim(&mut self) -> Option<DiskKey> {
        loop {
            let from_small =
                !self.small.is_empty() && (self.small_bytes > self.limit / SMALL_PART || self.main.is_empty());
            let key = *(if from_small {
                self.small.front()
            } else {
                self.main.front()
            })?;
            let Some(resident) = self.objects.get_mut(&key) else {
                self.pop(from_small);
                continue;
            };
            if from_small {
                if resident.queue == Queue::Main {
                    self.small.pop_front();
                } else if resident.uses.reset() {
                    resident.queue = Queue::Main;
                    self.small_bytes -= resident.bytes;
                    self.small.pop_front();
                    self.main.push_back(key);
                } else {
                    return Some(key);
                }
            } else if resident.uses.take_one() {
                self.main.rotate_left(1);
            } else {
                return Some(key);
            }
        }
    }

    /// Forgets an object that is gone, and remembers that it was there.
    pub(crate) fn remove(&mut self, key: DiskKey) -> u64 {
        let Some(resident) = self.objects.remove(&key) else {
            return 0;
        };
        let queue = match resident.queue {
            Queue::Pinned => {
                self.pinned_used -= resident.bytes;
                return resident.bytes;
            }
            Queue::Small => {
                self.small_bytes -= resident.bytes;
                &mut self.small
            }
            Queue::Main => &mut self.main,
        };
        self.used -= resident.bytes;
        if let Some(at) = queue.iter().position(|it| *it == key) {
            queue.remove(at);
        }
        if self.ghosts.insert(key) {
            self.ghost_order.push_back(key);
        }
        while self.ghost_order.len() > GHOSTS_MAX {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
        resident.bytes
    }

    /// Gives the bytes of all known objects that are not pinned.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Gives the bytes of those that are.
    pub(crate) fn pinned_used(&self) -> u64 {
        self.pinned_used
    }

    /// Gives the bytes that one object occupies.
    pub(crate) fn bytes_of(&self, key: DiskKey) -> u64 {
        self.objects.get(&key).map_or(0, |it| it.bytes)
    }

    /// Gives the limit in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Names all known objects, of one source or of all.
    pub(crate) fn keys(&self, source: Option<SourceTag>) -> Vec<DiskKey> {
        self.objects
            .keys()
            .filter(|key| source.is_none_or(|it| it == key.source))
            .copied()
            .collect()
    }

    /// Sums up by source.
    pub(crate) fn by_source(&self) -> HashMap<SourceTag, Occupied> {
        let mut sums: HashMap<_, Occupied> = HashMap::new();
        for (key, resident) in &self.objects {
            let sum = sums.entry(key.source).or_default();
            sum.objects += 1;
            sum.bytes += resident.bytes;
        }
        sums
    }

    fn admit(&mut self, key: DiskKey, bytes: u64, queue: Queue, uses: &Uses) {
        self.objects.insert(
            key,
            Resident {
                bytes,
                queue,
                uses: uses.clone(),
                present: None,
            },
        );
        match queue {
            Queue::Pinned => self.pinned_used += bytes,
            Queue::Small => {
                self.used += bytes;
                self.small_bytes += bytes;
                self.small.push_back(key);
            }
            Queue::Main => {
                self.used += bytes;
                self.main.push_back(key);
            }
        }
    }

    fn pop(&mut self, from_small: bool) {
        if from_small {
            self.small.pop_front();
        } else {
            self.main.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::key::ObjectKey;

    fn key(number: u8) -> DiskKey {
        DiskKey {
            source: SourceTag([number % 3; 8]),
            object: ObjectKey([number; 16]),
        }
    }

    #[test]
    fn a_scan_through_new_objects_leaves_those_in_use_alone() {
        let mut residents = Residents::new(1000, PinnedKeys::default());
        for number in 0..8 {
            let uses = Uses::default();
            residents.account(key(number), 100, &uses);
            uses.touch();
        }
        for number in 100..200 {
            while residents.used() + 100 > residents.limit() {
                let victim = residents.victim().unwrap();
                residents.remove(victim);
            }
            residents.account(key(number), 100, &Uses::default());
        }
        let kept = (0..8).filter(|number| residents.bytes_of(key(*number)) > 0).count();
        assert_eq!(kept, 8);
    }

    #[test]
    fn an_object_that_comes_back_is_no_newcomer() {
        let mut residents = Residents::new(1000, PinnedKeys::default());
        residents.account(key(1), 100, &Uses::default());
        residents.remove(key(1));
        residents.account(key(1), 100, &Uses::default());
        residents.account(key(2), 500, &Uses::default());
        assert_eq!(residents.victim(), Some(key(2)));
    }

    proptest! {
        #[test]
        fn the_sums_agree_with_the_objects(steps in proptest::collection::vec((any::<u8>(), 0_u64..200, 0_u8..5), 0..200)) {
            let mut residents = Residents::new(2000, PinnedKeys::default());
            let mut model = HashMap::new();
            let mut pinned = HashSet::new();
            for (number, bytes, what) in steps {
                match what {
                    0 | 1 => {
                        let uses = Uses::default();
                        residents.account(key(number), bytes, &uses);
                        model.insert(key(number), bytes);
                        if what == 1 { uses.touch(); }
                    }
                    2 => {
                        residents.remove(key(number));
                        model.remove(&key(number));
                    }
                    3 => {
                        if !pinned.remove(&key(number)) {
                            pinned.insert(key(number));
                        }
                        residents.set_pins(PinnedKeys::new(pinned.iter().copied().collect()));
                    }
                    _ => {
                        let victim = residents.victim();
                        prop_assert_eq!(victim.is_some(), model.keys().any(|key| !pinned.contains(key)));
                        if let Some(victim) = victim {
                            prop_assert!(!pinned.contains(&victim));
                            prop_assert_eq!(residents.remove(victim), model.remove(&victim).unwrap());
                        }
                    }
                }
                let sum = |is: bool| model.iter().filter(|it| pinned.contains(it.0) == is).map(|it| it.1).sum::<u64>();
                prop_assert_eq!(residents.used(), sum(false));
                prop_assert_eq!(residents.pinned_used(), sum(true));
                prop_assert_eq!(residents.keys(None).len(), model.len());
                let small: u64 = residents.objects.values().filter(|it| it.queue == Queue::Small).map(|it| it.bytes).sum();
                prop_assert_eq!(residents.small_bytes, small);
            }
        }
    }
}
