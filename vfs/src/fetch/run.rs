//! Requests: runs of neighbouring blocks, gathered from those that are missing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::flight::Duty;
use super::queue::{Class, Lane};
use super::{Abandoned, DISK_RUN_MAX, Failed, Fetcher, Object, Outcome, stopped};
use crate::cache::BlockId;

/// A request: neighbouring blocks of one object.
pub(super) struct Run {
    pub(super) object: Arc<Object>,
    pub(super) first: u64,
    pub(super) duties: Vec<Duty<BlockId, Outcome>>,
    pub(super) abandoned: Option<Abandoned>,
    /// Whether it is fetched to be kept on disk, by whoever asked for it.
    pub(super) pinned: bool,
}

impl Run {
    /// Gives the length in bytes.
    pub(super) fn len(&self) -> u64 {
        (self.first..)
            .take(self.duties.len())
            .map(|index| self.object.shape.block_len(index))
            .sum()
    }

    /// Gives the bytes that the blocks are made of.
    pub(super) fn part(&self) -> Part {
        let block_size = self.object.shape.block_size;
        let start = self.first * u64::from(block_size);
        Part {
            range: start..start + self.len(),
            block_size,
        }
    }

    /// Says what it is for, as far as is known now.
    pub(super) fn class(&self) -> Class {
        if self.duties.iter().any(Duty::is_wanted) {
            Class::Reader
        } else if self.pinned {
            Class::Pinned
        } else {
            Class::Ahead
        }
    }

    /// Tells whether nobody waits for it, nobody reads on towards it, and it is not to be kept either.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.pinned
            && self.abandoned.as_ref().is_none_or(|it| it.load(Ordering::Relaxed))
            && !self.duties.iter().any(Duty::is_wanted)
    }

    /// Ends a request that was abandoned before it went out. Who came to want it in the last moment asks again.
    pub(super) fn give_up(self) {
        for duty in self.duties {
            duty.land(Err(Failed {
                error: stopped(),
                ahead: true,
            }));
        }
    }
}

/// A part of a file, to come in blocks of which only the last may be shorter.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    pub(super) block_size: u32,
}

impl Part {
    /// Gives the bytes of each block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (end, size) = (self.range.end, u64::from(self.block_size));
        (self.range.start..end)
            .step_by(self.block_size as usize)
            .map(move |start| start..(start + size).min(end))
    }

    /// Tells whether these are the blocks that were asked for, as far as their lengths tell.
    pub(super) fn is_answered_by(&self, blocks: &[Bytes]) -> bool {
        let lengths = self.blocks().map(|range| range.end - range.start);
        lengths.eq(blocks.iter().map(|block| block.len() as u64))
    }
}

/// Gathers neighbouring blocks into requests.
pub(super) struct Runs {
    object: Arc<Object>,
    abandoned: Option<Abandoned>,
    pinned: bool,
    gathered: Vec<(Lane, Run)>,
}

impl Runs {
    pub(super) fn new(object: &Arc<Object>, abandoned: Option<Abandoned>) -> Self {
        Self {
            object: Arc::clone(object),
            abandoned,
            pinned: false,
            gathered: Vec::new(),
        }
    }

    /// For what is fetched to be kept on disk.
    pub(super) fn pinned(object: &Arc<Object>) -> Self {
        Self {
            pinned: true,
            ..Self::new(object, None)
        }
    }

    pub(super) fn add(&mut self, fetcher: &Fetcher, index: u64, duty: Duty<BlockId, Outcome>, run_max: u64) {
        let shape = self.object.shape;
        let on_disk = fetcher.cache.may_be_on_disk(shape, index);
        let (lane, run_max) = if on_disk {
            (Lane::Disk, run_max.min(DISK_RUN_MAX))
        } else {
            (Lane::Source(self.object.source.0), run_max)
        };
        self.add_to(lane, index, duty, run_max);
    }

    pub(super) fn add_to(&mut self, lane: Lane, index: u64, duty: Duty<BlockId, Outcome>, run_max: u64) {
        match self.gathered.last_mut() {
            Some((last, run))
                if *last == lane
                    && run.first + run.duties.len() as u64 == index
                    && (run.duties.len() as u64) < run_max =>
            {
                run.duties.push(duty);
            }
            _ => {
                let (object, abandoned) = (Arc::clone(&self.object), self.abandoned.clone());
                self.gathered.push((
                    lane,
                    Run {
                        object,
                        first: index,
                        duties: vec![duty],
                        abandoned,
                        pinned: self.pinned,
                    },
                ));
            }
        }
    }

    pub(super) fn finish(self) -> Vec<(Lane, Run)> {
        self.gathered
    }
}
