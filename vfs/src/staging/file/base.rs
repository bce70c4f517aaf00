//! What shows through a staged file, and is taken over while it can be had.

use super::{Base, Refused, Rest, StagedFile, State};

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
            Some(now) if now.version == base.version => now.shows,
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

    /// Gives what still shows through of the base.
    pub(crate) fn holes(&self) -> Option<Rest> {
        let state = self.state.lock();
        let base = state.base.clone()?;
        let pieces = state.extents.pieces(&(0..base.shows));
        let ranges: Vec<_> = pieces.filter(|(_, written)| !written).map(|(range, _)| range).collect();
        (!ranges.is_empty()).then_some(Rest { base, ranges })
    }
}
