//! Uploads, as a staged file sees them: what is sent is the file as it was when the upload began, and what is written meanwhile is
//! not taken for uploaded.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use super::{Base, Data, Durability, Rest, StagedFile, State, Tally};
use crate::Error;
use crate::staging::row::{Renamed, Row, UNCONFIRMED_MAX, Unconfirmed};

/// What an upload sends: the file as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) generation: u64,
    pub(crate) size: u64,
}

/// A state of the file that was sent, or is being sent.
#[derive(Debug)]
pub(super) struct Attempt {
    sending: Sending,
    /// The least length that the file had since.
    pub(super) least: u64,
    sent: What,
    /// Whether a try to send it ended, and nobody knows what came of it.
    in_doubt: bool,
    /// Whether the durable row tells of it.
    is_recorded: bool,
}

/// What is known of what was sent.
#[derive(Debug)]
enum What {
    /// It is noted while it is sent.
    Noted(Arc<Tally>),
    /// The hash of it all, which stood in the row.
    Hash([u8; 32]),
}

impl Attempt {
    /// Takes up what a row tells of. These states of the file have generations from 1 on.
    pub(super) fn recover(row: &[Unconfirmed]) -> Vec<Self> {
        let recovered = row.iter().zip(1..).map(|(sent, generation)| Self {
            sending: Sending {
                generation,
                size: sent.size,
            },
            least: sent.least,
            sent: What::Hash(sent.hash),
            in_doubt: true,
            is_recorded: true,
        });
        recovered.collect()
    }

    /// Gives the hash of what was sent, if all of it was: else the source cannot have it.
    fn hash(&self) -> Option<[u8; 32]> {
        match &self.sent {
            What::Noted(tally) => tally.whole(self.sending.size),
            What::Hash(hash) => Some(*hash),
        }
    }

    /// Tells whether all of it may have been sent: what was broken off before that has changed nothing at the source.
    fn may_have_arrived(&self) -> bool {
        match &self.sent {
            What::Noted(tally) => tally.may_be_whole(self.sending.size),
            What::Hash(_) => true,
        }
    }
}

/// What is to be done after an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The source has all of it.
    All,
    /// It was written to meanwhile: what is there now is to be uploaded too.
    More,
}

/// What reading for an upload came to.
pub(crate) enum Reading {
    /// As [`StagedFile::read`].
    Read(Option<Rest>),
    /// The file is not any more what the upload began with.
    Changed,
}

/// An upload that has begun, what the source has to have under the file's name, and where to note what is sent.
type Begun = (Sending, Option<Box<[u8]>>, Arc<Tally>);

impl State {
    /// Lists what the source may have of the file, for its row.
    pub(super) fn unconfirmed(&self) -> Vec<Unconfirmed> {
        let sent = self.attempts.iter().filter_map(|attempt| {
            Some(Unconfirmed {
                size: attempt.sending.size,
                least: attempt.least,
                hash: attempt.hash()?,
            })
        });
        sent.collect()
    }

    /// Lists the uploads that [`unconfirmed`](Self::unconfirmed) tells of.
    pub(super) fn told(&self) -> Vec<Sending> {
        let sent = self.attempts.iter().filter(|attempt| attempt.hash().is_some());
        sent.map(|attempt| attempt.sending).collect()
    }

    /// Takes note that a row that tells of these uploads is durable.
    pub(super) fn note_recorded(&mut self, told: &[Sending]) {
        for attempt in &mut self.attempts {
            attempt.is_recorded |= told.contains(&attempt.sending);
        }
    }

    /// Tells whether the bytes that the row tells of may be at the source, which could not be told any more after a crash if
    /// they were changed here.
    pub(super) fn is_to_be_recorded(&self) -> bool {
        // Else the row tells of other bytes, which are left as they are.
        self.is_named && self.is_sent_and_unrecorded()
    }

    /// Tells whether the source may have something of which the row does not tell.
    fn is_sent_and_unrecorded(&self) -> bool {
        self.durable.is_some()
            && !self.orphan
            && self
                .attempts
                .iter()
                .any(|attempt| !attempt.is_recorded && attempt.hash().is_some())
    }
}

impl StagedFile {
    /// As [`read`](Self::read), for an upload.
    pub(crate) fn read_sending(&self, sending: Sending, offset: u64, buffer: &mut [u8]) -> Result<Reading, Error> {
        let mut state = self.state.lock();
        if state.generation != sending.generation {
            return Ok(Reading::Changed);
        }
        let (_, rest) = self.read_locked(&mut state, offset, buffer)?;
        Ok(Reading::Read(rest))
    }

    /// Begins an upload. `None` where there is nothing to upload, or not any more. Gives what the source has to have under the
    /// file's name, and where to note what is sent. No other may be under way.
    pub(crate) fn begin_sending(&self) -> Option<Begun> {
        let mut state = self.state.lock();
        if state.retired || state.orphan || state.broken.is_some() {
            return None;
        }
        let sending = Sending {
            generation: state.generation,
            size: state.size,
        };
        // What was never sent to its end is not at the source.
        state
            .attempts
            .retain(|attempt| attempt.sending == sending || attempt.hash().is_some());
        let expected = state.expected.clone();
        for attempt in &state.attempts {
            if let What::Noted(tally) = &attempt.sent
                && attempt.sending == sending
            {
                return Some((sending, expected, Arc::clone(tally)));
            }
        }
        if state.attempts.len() == UNCONFIRMED_MAX {
            state.attempts.remove(0);
        }
        let tally = Arc::<Tally>::default();
        let least = state.size;
        state.attempts.push(Attempt {
            sending,
            least,
            sent: What::Noted(Arc::clone(&tally)),
            in_doubt: false,
            is_recorded: false,
        });
        Some((sending, expected, tally))
    }

    /// Takes note of a part that is about to be sent. False where the file is not any more what the upload began with: then it
    /// must not be sent.
    pub(crate) fn note_sending(&self, sending: Sending, tally: &Tally, start: u64, bytes: &Bytes) -> bool {
        {
            let state = self.state.lock();
            if state.generation != sending.generation {
                return false;
            }
            tally.note(start, bytes.clone());
        }
        tally.take_in();
        true
    }

    /// Tells whether all of a file was noted that is still what the upload began with, and that could not be told at the source
    /// after a crash by what is here: another version shows through.
    pub(crate) fn is_to_be_recorded_when_sent(&self, sending: Sending) -> bool {
        let state = self.state.lock();
        state.generation == sending.generation && state.has_holes() && state.is_sent_and_unrecorded()
    }

    /// Makes it last what was sent. Blocks the thread.
    pub(crate) fn record(&self, durability: &dyn Durability, folder: &File) -> Result<(), Error> {
        let _one_at_a_time = self.syncing.lock();
        {
            let mut state = self.state.lock();
            if !state.is_sent_and_unrecorded() {
                return state.check();
            }
            state.stamp += 1;
        }
        self.sync_locked(durability, folder)
    }

    /// Gives the file as it is now, as an upload would begin with it.
    pub(crate) fn now(&self) -> Sending {
        let state = self.state.lock();
        Sending {
            generation: state.generation,
            size: state.size,
        }
    }

    /// Tells whether the file is still what an upload began with.
    pub(crate) fn is_still(&self, sending: Sending) -> bool {
        self.state.lock().generation == sending.generation
    }

    /// Takes note that an upload has ended without result. `certainly` tells that it has changed nothing at the source.
    pub(crate) fn end_sending(&self, sending: Sending, certainly: bool) {
        let mut state = self.state.lock();
        if certainly {
            state
                .attempts
                .retain(|attempt| attempt.sending != sending || attempt.in_doubt);
        }
        for attempt in &mut state.attempts {
            attempt.in_doubt |= attempt.sending == sending;
        }
    }

    /// Tells whether the source may have something of this file that was not confirmed.
    pub(crate) fn was_sent(&self) -> bool {
        let state = self.state.lock();
        state.was_sent || state.attempts.iter().any(Attempt::may_have_arrived)
    }

    /// Tells whether an upload was begun that was not confirmed.
    pub(crate) fn was_begun(&self) -> bool {
        let state = self.state.lock();
        state.was_sent || !state.attempts.is_empty()
    }

    /// Tells whether an upload may have been begun before the start of which nothing is known.
    pub(crate) fn was_sent_before(&self) -> bool {
        self.state.lock().was_sent
    }

    /// Tells whether an upload was sent to its end that would not be recognised at the source.
    pub(crate) fn was_sent_unknown(&self) -> bool {
        let state = self.state.lock();
        let mut attempts = state.attempts.iter();
        attempts.any(|attempt| attempt.may_have_arrived() && attempt.hash().is_none())
    }

    /// Tells whether an upload was sent to its end, so that it may arrive whatever becomes of who sent it.
    pub(crate) fn was_sent_whole(&self, sending: Sending) -> bool {
        let state = self.state.lock();
        let mut attempts = state.attempts.iter();
        attempts.any(|attempt| attempt.sending == sending && attempt.hash().is_some())
    }

    /// Lists what was sent to its end and not confirmed, each with its BLAKE3, the last first.
    pub(crate) fn unconfirmed(&self) -> Vec<(Sending, [u8; 32])> {
        let state = self.state.lock();
        let attempts = state.attempts.iter().rev();
        attempts
            .filter_map(|attempt| Some((attempt.sending, attempt.hash()?)))
            .collect()
    }

    /// Tells, once, that it should be found out what the source has of this file before it is changed: the last who knew has
    /// died.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        let mut state = self.state.lock();
        !std::mem::replace(&mut state.was_asked, true) && state.was_sent && state.broken.is_none()
    }

    /// Takes note that the source has nothing of this file that was not confirmed.
    pub(crate) fn nothing_was_sent(&self) {
        let mut state = self.state.lock();
        state.was_sent = false;
        state.attempts.clear();
    }

    /// Takes note that the source has what an upload began with, as `version`. `conclude` is called where that is all of the
    /// file: after it the row is gone, and the file retired; nothing can be written meanwhile. Otherwise what was written since
    /// is from now on based on that version. Blocks the thread.
    pub(crate) fn sent(
        &self,
        sending: Sending,
        version: &[u8],
        durability: &dyn Durability,
        folder: &File,
        conclude: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Sent, Error> {
        let _one_at_a_time = self.syncing.lock();
        let all = {
            let mut state = self.state.lock();
            let attempt = state.attempts.iter().find(|attempt| attempt.sending == sending);
            let least = attempt.map_or(sending.size, |attempt| attempt.least);
            state.retired = state.generation == sending.generation && !state.orphan;
            if state.retired {
                // What lies beside the row goes with it, and some may read it still.
                if matches!(state.data, Data::Beside(_))
                    && let Err(error) = self.open(&mut state)
                {
                    state.retired = false;
                    return Err(error);
                }
            } else {
                state.expected = Some(version.into());
                state.base = Some(Base {
                    version: version.into(),
                    size: sending.size,
                    shows: least.min(sending.size).min(state.size),
                    is_origin: false,
                });
                state.stamp += 1;
                state.was_sent = false;
                state.attempts.clear();
            }
            state.retired
        };
        if !all {
            // What nobody has acknowledged is not made to last: should a crash come, the row still tells of what was.
            if !self.has_unsynced_bytes() {
                self.sync_locked(durability, folder)?;
            }
            return Ok(Sent::More);
        }
        let concluded = conclude();
        let mut state = self.state.lock();
        match concluded {
            Ok(()) => {
                state.concluded = true;
                self.area.room.give_back(state.extents.total());
                self.doom(&mut state);
                Ok(Sent::All)
            }
            Err(error) => {
                state.retired = false;
                Err(error)
            }
        }
    }

    /// Waits until what is being concluded is concluded. Blocks the thread.
    pub(crate) fn wait_for_conclusion(&self) {
        drop(self.syncing.lock());
    }

    /// Changes what the file is based on, if that lies where the file does, and what the source has to have under its name: it was renamed. `put` changes the row
    /// accordingly, in the transaction that gives the file its new name; where that fails, nothing is changed.
    pub(crate) fn rebase(
        &self,
        base_version: Option<&[u8]>,
        expected: Option<&[u8]>,
        put: impl FnOnce(&dyn Fn(&mut Row)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let based = |base: &mut Option<Base>| {
            if let (Some(base), Some(version)) = (base, base_version)
                && !base.is_origin
            {
                base.version = version.into();
            }
        };
        let in_row = |row: &mut Row| {
            based(&mut row.base);
            row.expected = expected.map(Into::into);
            row.renamed = None;
        };
        let in_state = |state: &mut State| {
            based(&mut state.base);
            state.expected = expected.map(Into::into);
            state.renamed = None;
        };
        self.alter(in_state, || put(&in_row))
    }

    /// Notes where the source is about to be asked to rename the file to, or that nothing of that is open any more.
    pub(crate) fn note_renamed(
        &self,
        renamed: Option<&Renamed>,
        put: impl FnOnce(&dyn Fn(&mut Row)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let in_state = |state: &mut State| state.renamed = renamed.cloned();
        self.alter(in_state, || put(&|row| row.renamed = renamed.cloned()))
    }

    /// Forgets that its source was asked to rename it, once it stands alone.
    pub(crate) fn forget_renamed(&self) {
        let mut state = self.state.lock();
        state.renamed = None;
        state.stamp += 1;
    }

    /// Gives where the source was asked to rename the file to, where it is not known what became of that.
    pub(crate) fn renamed(&self) -> Option<Renamed> {
        self.state.lock().renamed.clone()
    }

    /// Changes something that stands in the row, in the row first, and in nothing else of it.
    fn alter(&self, change: impl FnOnce(&mut State), in_row: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let _one_at_a_time = self.syncing.lock();
        in_row()?;
        let mut state = self.state.lock();
        change(&mut state);
        let was_durable = state.durable == Some(state.stamp);
        state.stamp += 1;
        if was_durable {
            state.durable = Some(state.stamp);
        }
        Ok(())
    }

    /// Lets the file be one of its own: nothing shows through it, and nothing may stand under its name. To be called when it has
    /// no holes.
    pub(crate) fn stand_alone(&self) {
        let mut state = self.state.lock();
        let shows = state.base.as_ref().map_or(0, |base| base.shows);
        if state.extents.missing(&(0..shows)) == 0 {
            state.base = None;
        }
        state.expected = None;
        state.was_sent = false;
        state.attempts.clear();
        state.stamp += 1;
    }
}
