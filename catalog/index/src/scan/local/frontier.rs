//! What several walkers have before them: directories in the order of their ids, given out in chunks that are numbered, so
//! that what they find can be written in that order whoever is faster.
//!
//! Always true:
//! - a walker that waits is woken when there is something to walk, when all is written, and when it is to stop;
//! - the walker of the chunk that is to be written next never waits for room, so that the others' waiting ends;
//! - what was listed and not written yet are no more than [`ENTRIES_AHEAD`] entries, and one directory for each walker.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// How many directories go into a chunk. Where there are few, they are shared out.
const CHUNK_MAX: usize = 16;
/// How many chunks may be given out beyond the one that is to be written next.
const CHUNKS_AHEAD: u64 = 64;
/// How many entries may wait to be written before the walkers do.
const ENTRIES_AHEAD: usize = 32_768;

/// The directories that are still to be walked.
#[derive(Debug)]
pub(super) struct Frontier<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    walkers: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// The number of the next chunk that is given out.
    next: u64,
    /// The number of the chunk that is to be written next.
    due: u64,
    /// Entries that were listed and not written yet.
    entries: usize,
    stopped: bool,
}

impl<T> Frontier<T> {
    pub(super) fn new(waiting: VecDeque<T>, walkers: usize) -> Self {
        let state = State {
            waiting,
            next: 0,
            due: 0,
            entries: 0,
            stopped: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            walkers: walkers.max(1),
        }
    }

    /// Waits for a chunk and its number; `None` when there is nothing more to walk, or it is time to stop.
    pub(super) fn take(&self) -> Option<(u64, Vec<T>)> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if !state.waiting.is_empty() && state.next - state.due <= CHUNKS_AHEAD {
                let count = (state.waiting.len() / self.walkers).clamp(1, CHUNK_MAX);
                let chunk = state.waiting.drain(..count).collect();
                state.next += 1;
                return Some((state.next - 1, chunk));
            }
            if state.waiting.is_empty() && state.next == state.due {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Takes note that so many entries of a chunk were listed, and waits while too many are to be written.
    pub(super) fn listed(&self, chunk: u64, entries: usize) {
        let mut state = self.state.lock();
        state.entries += entries;
        while state.entries >= ENTRIES_AHEAD && state.due != chunk && !state.stopped {
            self.changed.wait(&mut state);
        }
    }

    /// Takes note that so many entries were written, of the chunk that was due, and what was found to be walked in its turn.
    pub(super) fn written(&self, entries: usize, found: Vec<T>, is_last: bool) {
        let mut state = self.state.lock();
        state.entries -= entries;
        state.waiting.extend(found);
        state.due += u64::from(is_last);
        self.changed.notify_all();
    }

    /// Ends all walking.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn few_directories_are_shared_out_and_many_go_in_chunks() {
        let frontier = Frontier::new((0..3).collect(), 2);
        assert_eq!(frontier.take(), Some((0, vec![0])));
        assert_eq!(frontier.take(), Some((1, vec![1])));
        frontier.written(0, (10..1000).collect(), true);
        assert_eq!(frontier.take().map(|it| (it.0, it.1.len())), Some((2, CHUNK_MAX)));
    }

    #[test]
    fn it_ends_when_all_is_written_and_nothing_was_found() {
        let frontier = Frontier::new(VecDeque::from([1]), 4);
        assert!(frontier.take().is_some());
        std::thread::scope(|scope| {
            let (ended, told) = mpsc::channel();
            for _ in 0..3 {
                let (frontier, ended) = (&frontier, ended.clone());
                scope.spawn(move || ended.send(frontier.take()));
            }
            assert!(told.try_recv().is_err(), "the chunk may yet bring something");
            frontier.written(0, vec![2], true);
            assert_eq!(told.recv(), Ok(Some((1, vec![2]))), "one of them gets it");
            frontier.written(0, Vec::new(), true);
            assert_eq!((told.recv(), told.recv()), (Ok(None), Ok(None)));
        });
    }

    #[test]
    fn who_is_ahead_waits_for_the_writer_and_who_is_due_does_not() {
        let frontier = Frontier::new((0..100).collect(), 2);
        let (due, ahead) = (frontier.take().map(|it| it.0), frontier.take().map(|it| it.0));
        assert_eq!((due, ahead), (Some(0), Some(1)));
        std::thread::scope(|scope| {
            let (went_on, told) = mpsc::channel();
            frontier.listed(0, ENTRIES_AHEAD);
            let ahead = &frontier;
            scope.spawn(move || {
                ahead.listed(1, 1);
                went_on.send(())
            });
            frontier.listed(0, ENTRIES_AHEAD);
            assert!(told.try_recv().is_err());
            frontier.written(2 * ENTRIES_AHEAD, Vec::new(), false);
            assert_eq!(told.recv(), Ok(()));
        });
    }

    #[test]
    fn stopping_wakes_everybody() {
        let frontier = Frontier::new(VecDeque::from([1]), 2);
        assert!(frontier.take().is_some());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| frontier.take());
            let full = scope.spawn(|| frontier.listed(7, ENTRIES_AHEAD));
            frontier.stop();
            assert_eq!(waits.join().ok(), Some(None));
            assert!(full.join().is_ok());
        });
        assert_eq!(frontier.take(), None);
    }
}
