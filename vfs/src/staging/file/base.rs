//! What shows through a staged file, and is taken over while it can be had.

use super::{Base, Refused, Rest, StagedFile, State};

/// What a file was based on before it was moved to another source.
#[derive(Debug)]
pub(crate) struct Former {
    was_origin: bool,
    expected: Option<Box<[u8]>>,
}

impl State {
    /// Tells whether something shows through.
    pub(super) fn has_holes(&self) -> bool {
        let shows = self.base.as_ref().map_or(0, |base| base.shows);
        self.extents.missing(&(0..shows)) > 0
    }
}

impl StagedFile {
    /// Takes bytes of the base over, where nothing was written meanwhile and it still shows.
    pub(crate) fn fill(&self, base: &Base, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let mut state = self.state.lock();
        self.open(&mut state).map_err(Refused::Failed)?;
        let shows = match &state.base {
            Some(now) if now.version == base.version && now.is_origin == base.is_origin => now.shows,
            _ => return Ok(()),
        };
        let range = offset..(offset + bytes.len() as u64).min(shows);
        let holes: Vec<_> = state.extents.pieces(&range).filter(|(_, written)| !written).collect();
        for (hole, _) in holes {
            if !self.area.room.take(hole.end - hole.start) {
                return Err(Refused::NoRoom(hole.end - hole.start));
            }
            let part = &bytes[(hole.start - offset) as usize..(hole.end - offset) as usize];
            if let Err(error) = self.put(&mut state, hole.start, part) {
                self.area.room.give_back(hole.end - hole.start);
                return Err(Refused::Failed(error));
            }
            state.extents.insert(hole);
            state.stamp += 1;
        }
        state.settle();
        Ok(())
    }

    /// Tells, once, that a base of no more than `most` bytes shows through, which is better taken over while it can be had.
    pub(crate) fn is_to_be_completed(&self, most: u64) -> bool {
        let mut state = self.state.lock();
        let shows = state.base.as_ref().map_or(0, |base| base.shows);
        shows > 0 && shows <= most && !std::mem::replace(&mut state.was_completed, true)
    }

    /// Lets the file be one of another source, which has to have `expected` under its name: what shows through stays where it is.
    /// To be called while nothing of it is being sent, and nothing that was sent is in doubt. Gives what takes it back.
    pub(crate) fn take_across(&self, expected: Option<&[u8]>) -> Former {
        let mut state = self.state.lock();
        let was_origin = state.base.as_ref().is_some_and(|base| base.is_origin);
        if let Some(base) = &mut state.base {
            base.is_origin = true;
        }
        state.was_sent = false;
        state.attempts.clear();
        state.stamp += 1;
        Former {
            was_origin,
            expected: std::mem::replace(&mut state.expected, expected.map(Into::into)),
        }
    }

    /// Takes back [`take_across`](Self::take_across): the catalog did not follow.
    pub(crate) fn take_back(&self, former: Former) {
        let mut state = self.state.lock();
        if let Some(base) = &mut state.base {
            base.is_origin = former.was_origin;
        }
        state.expected = former.expected;
        state.stamp += 1;
    }

    /// Tells whether what shows through lies at the source from which the file was moved.
    pub(crate) fn has_origin(&self) -> bool {
        self.state.lock().base.as_ref().is_some_and(|base| base.is_origin)
    }

    /// Tells whether the file is what shows through, and nothing else.
    pub(crate) fn is_all_base(&self) -> bool {
        let state = self.state.lock();
        let is_whole = |base: &Base| base.shows == base.size && base.size == state.size;
        state.extents.total() == 0 && state.base.as_ref().is_some_and(is_whole)
    }

    /// Gives what still shows through of the base.
    pub(crate) fn holes(&self) -> Option<Rest> {
        let state = self.state.lock();
        let base = state.base.clone()?;
        let pieces = state.extents.pieces(&(0..base.shows));
        let ranges: Vec<_> = pieces.filter(|(_, written)| !written).map(|(range, _)| range).collect();
        (!ranges.is_empty()).then_some(Rest { base, ranges })
    }
}
