//! How far to read ahead of one handle: what its reads have proved so far, and nothing more. Pure.
//!
//! The kernel reads ahead too, and that misleads twice. It asks for the pieces of its window (up to 4 MiB) in parallel,
//! so that they arrive in any order; and it asks for a whole window around a single page fault. So
//! - a piece within a window's reach is part of the run, before or behind its front;
//! - what arrives before anything of the run was answered proves nothing: it is one wish of the kernel. A read that comes after an
//!   answer is the reader's own progress;
//! - the window is twice what the run has really covered: it opens by doubling, and never brings more than twice what was read.
//!
//! A read out of reach closes the window at once. Small forward skips keep it, as long as the run covers a quarter of its span.

use std::ops::Range;

/// How far apart reads of one run may be, in bytes: two windows of the kernel.
const REACH: u64 = 8 << 20;
/// A gap up to this size, in bytes, is a skip at once; a larger one may still be filled by a piece that is late.
const SKIP: u64 = 1 << 20;
/// How many pieces may be ahead of a gap before it counts as skipped.
const PIECES_MAX: usize = 4;
/// A run must cover at least one part in so many of its span.
const COVER_PART: u64 = 4;

/// The reads of one handle.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    run: Option<Run>,
    runs: u64,
}

/// Names a run of reads, to tell its answers from those of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(u64);

/// What a read showed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The run that it belongs to.
    pub(crate) run: RunId,
    /// Whether it closed a window that was open.
    pub(crate) closed: bool,
    /// The bytes to fetch ahead.
    pub(crate) ahead: Option<Range<u64>>,
    /// Whether a window is open.
    pub(crate) open: bool,
}

/// What bounds a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The object's length in bytes.
    pub(crate) size: u64,
    /// The widest window in bytes.
    pub(crate) window_max: u64,
    /// The length of a block in bytes.
    pub(crate) block_size: u64,
}

#[derive(Debug)]
struct Run {
    id: RunId,
    start: u64,
    /// The end of what was read from `start` without a gap, or with gaps that count as skipped.
    front: u64,
    covered: u64,
    skipped: u64,
    /// What was read beyond a gap, by offset.
    pieces: Vec<Range<u64>>,
    /// Whether anything of the run was answered.
    answered: bool,
    /// The end of what is fetched ahead.
    planned: u64,
}

impl Stream {
    /// Takes note of a read, before it is answered.
    pub(crate) fn read(&mut self, range: Range<u64>, bounds: Bounds) -> Seen {
        let mut closed = false;
        let kept = self.run.take().and_then(|mut run| {
            let was_open = run.planned > run.front;
            if run.reaches(&range) && run.extend(range.clone()) {
                return Some(run);
            }
            closed = was_open;
            None
        });
        let run = kept.unwrap_or_else(|| {
            self.runs += 1;
            Run::new(RunId(self.runs), range)
        });
        let run = self.run.insert(run);
        let window = run.window(bounds);
        Seen {
            run: run.id,
            closed,
            ahead: run.plan(window, bounds.size),
            open: window > 0,
        }
    }

    /// Takes note that a read was answered.
    pub(crate) fn answered(&mut self, id: RunId) {
        if let Some(run) = self.run.as_mut().filter(|it| it.id == id) {
            run.answered = true;
        }
    }

    /// Takes note that a block before `offset`, which had been fetched ahead, was not there when it was needed.
    pub(crate) fn missed(&mut self, id: RunId, offset: u64) {
        if let Some(run) = self.run.as_mut().filter(|it| it.id == id) {
            run.planned = run.planned.min(offset);
        }
    }
}

impl Run {
    fn new(id: RunId, range: Range<u64>) -> Self {
        Self {
            id,
            start: range.start,
            front: range.end,
            covered: range.end - range.start,
            skipped: 0,
            pieces: Vec::new(),
            answered: false,
            planned: 0,
        }
    }

    /// Gives the end of the furthest read.
    fn reach(&self) -> u64 {
        self.pieces.last().map_or(self.front, |piece| piece.end.max(self.front))
    }

    fn reaches(&self, range: &Range<u64>) -> bool {
        range.start <= self.front + REACH && range.start + REACH >= self.front
    }

    /// Takes a read into the run; `false` if the run is none with it.
    fn extend(&mut self, range: Range<u64>) -> bool {
        if range.start < self.start {
            if self.front - self.start <= REACH {
                let ahead = std::mem::replace(&mut self.start, range.start)..self.front;
                self.front = range.end;
                self.covered = range.end - range.start;
                self.skipped = 0;
                self.insert(ahead);
                self.absorb();
                if self.pieces.len() > PIECES_MAX {
                    self.skip();
                }
            }
        } else if range.start <= self.front {
            // A late piece of what counted as skipped is covered after all.
            let late = self.front.min(range.end) - range.start;
            let late = late.min(self.skipped);
            self.skipped -= late;
            self.covered += late + range.end.saturating_sub(self.front);
            self.front = self.front.max(range.end);
            self.absorb();
        } else {
            self.insert(range);
            let gap = self.pieces[0].start - self.front;
            if self.pieces.len() > PIECES_MAX || (self.answered && gap <= SKIP) {
                self.skip();
            }
        }
        self.covered * COVER_PART >= self.front - self.start
    }

    fn insert(&mut self, range: Range<u64>) {
        let at = self.pieces.partition_point(|piece| piece.start <= range.start);
        self.pieces.insert(at, range);
    }

    /// Counts the gap before the first piece as skipped.
    fn skip(&mut self) {
        self.skipped += self.pieces[0].start - self.front;
        self.front = self.pieces[0].start;
        self.absorb();
    }

    fn absorb(&mut self) {
        while let Some(piece) = self.pieces.first().filter(|piece| piece.start <= self.front) {
            self.covered += piece.end.saturating_sub(self.front);
            self.front = self.front.max(piece.end);
            self.pieces.remove(0);
        }
    }

    fn window(&self, bounds: Bounds) -> u64 {
        let window = self.covered.saturating_mul(2);
        // What is proved by less than half a block is within the block that was fetched for it, as good as always.
        if !self.answered || window < bounds.block_size / 2 {
            0
        } else {
            window.min(bounds.window_max)
        }
    }

    fn plan(&mut self, window: u64, size: u64) -> Option<Range<u64>> {
        let reach = self.reach();
        let planned = self.planned.max(reach);
        let end = reach.saturating_add(window).min(size);
        // In halves of the window, so that requests stay large.
        if window == 0 || end <= planned || planned - reach > window / 2 {
            return None;
        }
        self.planned = end;
        Some(planned..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds = Bounds {
        size: 1 << 30,
        window_max: 64 * MIB,
        block_size: MIB,
    };

    /// Reads in order, each after the answer to the one before, and gives what was fetched ahead.
    fn read_all(stream: &mut Stream, ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
        let mut ahead = Vec::new();
        for range in ranges {
            let seen = stream.read(range, BOUNDS);
            ahead.extend(seen.ahead);
            stream.answered(seen.run);
        }
        ahead
    }

    fn length(ranges: &[Range<u64>]) -> u64 {
        ranges.iter().map(|it| it.end - it.start).sum()
    }

    #[test]
    fn a_window_opens_by_doubling_up_to_its_bound() {
        let mut stream = Stream::default();
        let ahead = read_all(&mut stream, (0..100).map(|i| i * MIB..(i + 1) * MIB));
        assert_eq!(ahead[0], 2 * MIB..6 * MIB);
        assert!(ahead.windows(2).all(|pair| pair[0].end == pair[1].start), "{ahead:?}");
        assert!(ahead.iter().all(|it| it.end - it.start <= 64 * MIB));
        assert!(ahead.last().unwrap().end >= 100 * MIB + 32 * MIB);
    }

    #[test]
    fn one_wish_of_the_kernel_proves_nothing_in_whatever_order_its_pieces_come() {
        for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
            let mut stream = Stream::default();
            for piece in order {
                let seen = stream.read((100 + piece) * MIB..(101 + piece) * MIB, BOUNDS);
                assert_eq!(seen.ahead, None, "{order:?}");
                assert_eq!(seen.run, RunId(1), "{order:?}");
            }
            stream.answered(RunId(1));
            assert!(stream.read(104 * MIB..105 * MIB, BOUNDS).ahead.is_some());
        }
    }

    #[test]
    fn pieces_out_of_order_keep_the_window() {
        let mut stream = Stream::default();
        read_all(&mut stream, (0..8).map(|i| i * MIB..(i + 1) * MIB));
        for piece in [9, 8, 11, 10, 14, 13, 12, 15, 17, 16] {
            let seen = stream.read(piece * MIB..(piece + 1) * MIB, BOUNDS);
            assert!(seen.open && !seen.closed && seen.run == RunId(1), "at {piece}");
        }
    }

    #[test]
    fn small_forward_skips_keep_the_window() {
        let mut stream = Stream::default();
        let ahead = read_all(&mut stream, (0..50).map(|i| i * 3 * MIB / 2..i * 3 * MIB / 2 + MIB));
        assert_eq!(stream.runs, 1);
        assert!(ahead.last().unwrap().end > 75 * MIB);
    }

    #[test]
    fn a_seek_closes_the_window() {
        let mut stream = Stream::default();
        read_all(&mut stream, (0..8).map(|i| i * MIB..(i + 1) * MIB));
        let seen = stream.read(500 * MIB..501 * MIB, BOUNDS);
        assert_eq!((seen.closed, seen.open, seen.ahead), (true, false, None));
    }

    #[test]
    fn a_player_that_looks_at_header_trailer_and_middle_gets_little_ahead() {
        let mut stream = Stream::default();
        let chunks = |at: u64, count: u64| (0..count).map(move |i| at + i * 65_536..at + (i + 1) * 65_536);
        let ahead = read_all(
            &mut stream,
            chunks(0, 4).chain(chunks(1023 * MIB, 8)).chain(chunks(500 * MIB, 4)),
        );
        assert!(length(&ahead) <= 3 * MIB, "{ahead:?}");
    }

    #[test]
    fn what_was_fetched_ahead_and_lost_is_fetched_again() {
        let mut stream = Stream::default();
        read_all(&mut stream, (0..8).map(|i| i * MIB..(i + 1) * MIB));
        stream.missed(RunId(1), 9 * MIB);
        let seen = stream.read(8 * MIB..9 * MIB, BOUNDS);
        assert_eq!(seen.ahead.unwrap().start, 9 * MIB);
    }

    proptest! {
        #[test]
        fn reads_at_random_fetch_nothing_ahead(offsets in proptest::collection::vec(0_u64..(1 << 18), 1..200)) {
            let mut stream = Stream::default();
            let ahead = read_all(&mut stream, offsets.iter().map(|page| page * 4096..(page + 1) * 4096));
            prop_assert_eq!(length(&ahead), 0);
        }

        #[test]
        fn a_window_stays_within_its_bound_and_the_file(
            reads in proptest::collection::vec((0_u64..64 * MIB, 1_u64..2 * MIB), 1..100),
        ) {
            let bounds = Bounds { size: 66 * MIB, window_max: 4 * MIB, block_size: 65_536 };
            let mut stream = Stream::default();
            for (start, length) in reads {
                let seen = stream.read(start..start + length, bounds);
                let reach = stream.run.as_ref().unwrap().reach();
                if let Some(range) = seen.ahead {
                    prop_assert!(range.start < range.end && range.end <= bounds.size);
                    prop_assert!(range.start >= reach && range.end <= reach + bounds.window_max);
                }
                stream.answered(seen.run);
                prop_assert!(stream.run.as_ref().unwrap().pieces.len() <= PIECES_MAX + 1);
            }
        }
    }
}
