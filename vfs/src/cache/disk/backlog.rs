//! What waits to be written to the disk cache, in the order in which it came, and the room that it may take.
//!
//! A source may be faster than the disk. A block that finds no room becomes a [`Late`] one: its readers have it already, and
//! whoever fetched it waits for room before it fetches more, so that what was read once is whole on disk. A disk that is much
//! slower must not hold up reading: nobody waits longer than the patience, and once somebody has waited in vain, nobody does
//! until half of the room is free again. So readers lose at most one patience for each half of the room that is written.
//!
//! What was uploaded stands in a line of its own, behind the others, until a moment has gone by without more of it: its bytes
//! are in memory as well, and two files for each of many small ones would take the disk from the uploads. It takes no more than
//! half of the room; beyond that it is written at once.
//!
//! Always true: what waits in line weighs no more than the room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cache::key::{DiskKey, Shape, SourceTag};
use crate::counters::{Tally, add};

/// How long nothing more was uploaded when what was uploaded is written.
const PAUSE: Duration = Duration::from_millis(500);

/// The line before the disk cache's writer.
#[derive(Debug)]
pub(super) struct Backlog {
    line: Mutex<Line>,
    arrived: Condvar,
    settled: Condvar,
    /// One permit for each byte.
    room: Arc<Semaphore>,
    room_max: u64,
    patience: Duration,
    /// Whether somebody has waited for room in vain, and the line is still long.
    behind: AtomicBool,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Line {
    blocks: VecDeque<Waiting>,
    /// What was uploaded.
    uploaded: VecDeque<Waiting>,
    /// When something was uploaded last.
    uploaded_at: Instant,
    /// How many wait until the line is empty.
    settling: usize,
    /// How many [`Late`] blocks there are.
    late: usize,
    busy: bool,
    stop: bool,
}

/// A block in line. Its room is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) shape: Shape,
    pub(super) index: u64,
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A block that found no room in line at once. Dropped, it is left out.
#[derive(Debug)]
pub(crate) struct Late {
    backlog: Arc<Backlog>,
    shape: Shape,
    index: u64,
    /// Taken when it stands in line after all.
    bytes: Option<Bytes>,
}

impl Backlog {
    /// Makes an empty line for `room_max` bytes, whose writer is busy until it first asks for a block.
    pub(super) fn new(room_max: u64, patience: Duration, tally: Arc<Tally>) -> Arc<Self> {
        let permits = usize::try_from(room_max)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            line: Mutex::new(Line {
                blocks: VecDeque::new(),
                uploaded: VecDeque::new(),
                uploaded_at: Instant::now(),
                settling: 0,
                late: 0,
                busy: true,
                stop: false,
            }),
            arrived: Condvar::new(),
            settled: Condvar::new(),
            room: Arc::new(Semaphore::new(permits)),
            room_max: permits as u64,
            patience,
            behind: AtomicBool::new(false),
            tally,
        })
    }

    /// Puts a block in line; where there is no room for it now, it is given back.
    pub(super) fn push(self: &Arc<Self>, shape: Shape, index: u64, bytes: Bytes) -> Option<Late> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(weight(&bytes)) {
            let waiting = Waiting::new(shape, index, bytes, room);
            self.line.lock().blocks.push_back(waiting);
            self.arrived.notify_one();
            return None;
        }
        self.line.lock().late += 1;
        Some(Late {
            backlog: Arc::clone(self),
            shape,
            index,
            bytes: Some(bytes),
        })
    }

    /// Puts a block of what was uploaded in line; where there is no room for it now, it is left out.
    pub(super) fn push_uploaded(&self, shape: Shape, index: u64, bytes: Bytes) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(weight(&bytes)) else {
            return add(&self.tally.disk_blocks_skipped, 1);
        };
        let mut line = self.line.lock();
        line.uploaded.push_back(Waiting::new(shape, index, bytes, room));
        line.uploaded_at = Instant::now();
        drop(line);
        self.arrived.notify_one();
    }

    /// Waits for the next block; `None` when it is time to stop.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut line = self.line.lock();
        loop {
            line.busy = false;
            if line.stop {
                return None;
            }
            let due = line.uploaded_at + PAUSE;
            let is_due = line.settling > 0 || self.is_half_full() || Instant::now() >= due;
            let next = line.blocks.pop_front();
            if let Some(next) = next.or_else(|| line.uploaded.pop_front_if(|_| is_due)) {
                line.busy = true;
                return Some(next);
            }
            if line.uploaded.is_empty() {
                self.settled.notify_all();
                self.arrived.wait(&mut line);
            } else {
                self.arrived.wait_until(&mut line, due);
            }
        }
    }

    fn is_half_full(&self) -> bool {
        (self.room.available_permits() as u64) < self.room_max / 2
    }

    /// Waits until nothing is in line, late or being written.
    pub(super) fn settle(&self) {
        let mut line = self.line.lock();
        line.settling += 1;
        self.arrived.notify_all();
        while !line.stop && (line.busy || line.late > 0 || !line.blocks.is_empty() || !line.uploaded.is_empty()) {
            self.settled.wait(&mut line);
        }
        line.settling -= 1;
    }

    /// Takes the blocks of one source, or all, out of the line.
    pub(super) fn clear(&self, source: Option<SourceTag>) {
        self.clear_if(|key| source.is_none_or(|source| source == key.source));
    }

    /// Takes the blocks of some objects out of the line.
    pub(super) fn clear_if(&self, is_meant: impl Fn(DiskKey) -> bool) {
        let mut line = self.line.lock();
        line.blocks.retain(|it| !is_meant(it.shape.key));
        line.uploaded.retain(|it| !is_meant(it.shape.key));
    }

    /// Has the writer stop after the block that it is writing.
    pub(super) fn stop(&self) {
        self.line.lock().stop = true;
        self.arrived.notify_all();
        self.settled.notify_all();
    }

    /// Waits for room; `None` where there is none within the patience, or nobody is to wait now.
    async fn wait_for_room(self: &Arc<Self>, weight: u32) -> Option<OwnedSemaphorePermit> {
        if u64::from(weight) > self.room_max {
            return None;
        }
        if self.behind.load(Ordering::Relaxed) {
            if self.is_half_full() {
                return None;
            }
            self.behind.store(false, Ordering::Relaxed);
        }
        let room = Arc::clone(&self.room).acquire_many_owned(weight);
        let Ok(room) = tokio::time::timeout(self.patience, room).await else {
            self.behind.store(true, Ordering::Relaxed);
            return None;
        };
        room.ok()
    }
}

impl Waiting {
    fn new(shape: Shape, index: u64, bytes: Bytes, room: OwnedSemaphorePermit) -> Self {
        Self {
            shape,
            index,
            bytes,
            _room: room,
        }
    }
}

impl Late {
    /// Waits for room in line, and stands in it, unless the disk is too far behind: then the block is left out.
    pub(crate) async fn catch_up(mut self) {
        let Some(bytes) = &self.bytes else { return };
        if let Some(room) = self.backlog.wait_for_room(weight(bytes)).await
            && let Some(bytes) = self.bytes.take()
        {
            let waiting = Waiting::new(self.shape, self.index, bytes, room);
            self.backlog.line.lock().blocks.push_back(waiting);
            self.backlog.arrived.notify_one();
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if self.bytes.is_some() {
            add(&self.backlog.tally.disk_blocks_skipped, 1);
        }
        self.backlog.line.lock().late -= 1;
        self.backlog.settled.notify_all();
    }
}

fn weight(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::DiskKey;
    use crate::cache::key::ObjectKey;

    const BLOCK: u32 = 1000;
    const FOREVER: Duration = Duration::from_hours(1);
    const SHAPE: Shape = Shape {
        key: DiskKey {
            source: SourceTag([1; 8]),
            object: ObjectKey([1; 16]),
        },
        size: 100 * BLOCK as u64,
        block_size: BLOCK,
    };

    fn backlog(blocks: u64, patience: Duration) -> (Arc<Backlog>, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let backlog = Backlog::new(blocks * u64::from(BLOCK), patience, Arc::clone(&tally));
        (backlog, tally)
    }

    fn push(backlog: &Arc<Backlog>, index: u64) -> Option<Late> {
        backlog.push(SHAPE, index, Bytes::from(vec![0; BLOCK as usize]))
    }

    fn skipped(tally: &Tally) -> u64 {
        tally.disk_blocks_skipped.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_late_block_is_written_when_there_is_room() {
        let (backlog, tally) = backlog(2, FOREVER);
        assert!(push(&backlog, 0).is_none() && push(&backlog, 1).is_none());
        let late = tokio::spawn(push(&backlog, 2).unwrap().catch_up());
        drop(backlog.next().unwrap());
        late.await.unwrap();
        assert_eq!(backlog.next().unwrap().index, 1);
        assert_eq!(backlog.next().unwrap().index, 2);
        assert_eq!(skipped(&tally), 0);
    }

    #[tokio::test]
    async fn once_somebody_has_waited_in_vain_nobody_waits_until_half_is_written() {
        let (mut backlog, tally) = backlog(4, Duration::from_millis(1));
        for index in 0..4 {
            assert!(push(&backlog, index).is_none());
        }
        push(&backlog, 4).unwrap().catch_up().await;
        assert_eq!(skipped(&tally), 1);

        let late = push(&backlog, 5).unwrap();
        drop(late);
        Arc::get_mut(&mut backlog).unwrap().patience = FOREVER;
        push(&backlog, 5).unwrap().catch_up().await;
        assert_eq!(skipped(&tally), 3, "this one was not waited for at all");

        drop((backlog.next(), backlog.next()));
        assert!(push(&backlog, 6).is_none() && push(&backlog, 7).is_none());
        let late = push(&backlog, 8).unwrap();
        drop((backlog.next(), backlog.next()));
        late.catch_up().await;
        assert_eq!(skipped(&tally), 3, "and now there is patience again");
    }

    #[tokio::test]
    async fn a_block_that_never_has_room_is_not_waited_for() {
        let (backlog, tally) = backlog(1, FOREVER);
        let bytes = Bytes::from(vec![0; 2 * BLOCK as usize]);
        backlog.push(SHAPE, 0, bytes).unwrap().catch_up().await;
        assert_eq!(skipped(&tally), 1);
    }

    #[test]
    fn settled_is_when_no_late_block_is_left_either() {
        let (backlog, _) = backlog(1, FOREVER);
        let late = [push(&backlog, 0), push(&backlog, 1)];
        let settled = std::thread::spawn({
            let backlog = Arc::clone(&backlog);
            move || backlog.settle()
        });
        let writer = std::thread::spawn({
            let backlog = Arc::clone(&backlog);
            move || while backlog.next().is_some() {}
        });
        assert!(!settled.is_finished(), "one is late");
        drop(late);
        settled.join().unwrap();
        backlog.stop();
        writer.join().unwrap();
    }

    #[test]
    fn what_was_uploaded_is_written_behind_the_rest_when_that_pauses_or_fills_half_of_the_room() {
        let (backlog, tally) = backlog(6, FOREVER);
        let push_uploaded = |index| backlog.push_uploaded(SHAPE, index, Bytes::from(vec![0; BLOCK as usize]));
        push_uploaded(0);
        let last = backlog.line.lock().uploaded_at;
        assert!(push(&backlog, 1).is_none());
        assert_eq!(backlog.next().unwrap().index, 1, "it has let another go first");
        assert_eq!(backlog.next().unwrap().index, 0);
        assert!(last.elapsed() >= PAUSE, "it has waited for more");

        for index in 2..6 {
            push_uploaded(index);
        }
        // As if they had come just now, however long this test is held up.
        backlog.line.lock().uploaded_at = Instant::now() + FOREVER;
        drop(backlog.next().unwrap());
        let settled = std::thread::spawn({
            let backlog = Arc::clone(&backlog);
            move || backlog.settle()
        });
        while backlog.line.lock().settling == 0 {
            std::thread::yield_now();
        }
        for index in 3..6 {
            assert_eq!(backlog.next().unwrap().index, index);
        }
        assert!(!settled.is_finished(), "the last one is being written");
        backlog.stop();
        assert!(backlog.next().is_none());
        settled.join().unwrap();

        for index in 0..7 {
            push_uploaded(index);
        }
        assert_eq!(skipped(&tally), 1, "one finds no room, and nobody waits for it");
    }
}
