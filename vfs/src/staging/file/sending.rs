//! Uploads, as a staged file sees them: what is sent is the file as it was when the upload began, and what is written meanwhile is
//! not taken for uploaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Base, Durability, Rest, StagedFile};
use crate::Error;

/// What an upload sends: the file as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) generation: u64,
    pub(crate) size: u64,
}

/// How many uploads of unknown outcome are remembered.
const ATTEMPTS_MAX: usize = 4;

/// What the parts of an upload were, so that it is recognised at the source though it was not confirmed and the file has changed
/// since: by where each begins, its end and its BLAKE3.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<BTreeMap<u64, (u64, [u8; 32])>>);

impl Parts {
    pub(crate) fn note(&self, start: u64, bytes: &[u8]) {
        let part = (start + bytes.len() as u64, *blake3::hash(bytes).as_bytes());
        self.0.lock().insert(start, part);
    }

    /// Lists parts that make up the whole of an object, if it was read that far.
    pub(crate) fn whole(&self, size: u64) -> Option<Vec<(Range<u64>, [u8; 32])>> {
        let (noted, mut parts, mut at) = (self.0.lock(), Vec::new(), 0);
        while at < size {
            let (end, hash) = *noted.get(&at).filter(|(end, _)| *end > at && *end <= size)?;
            parts.push((at..end, hash));
            at = end;
        }
        Some(parts)
    }
}

/// An upload that was begun.
#[derive(Debug)]
pub(super) struct Attempt {
    sending: Sending,
    /// The least length that the file had since.
    pub(super) least: u64,
    parts: Arc<Parts>,
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
type Begun = (Sending, Option<Box<[u8]>>, Arc<Parts>);

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
    /// file's name, and where to note what is sent.
    pub(crate) fn begin_sending(&self) -> Option<Begun> {
        let mut state = self.state.lock();
        if state.retired || state.orphan || state.broken.is_some() {
            return None;
        }
        let sending = Sending {
            generation: state.generation,
            size: state.size,
        };
        let parts = Arc::<Parts>::default();
        if state.attempts.len() == ATTEMPTS_MAX {
            state.attempts.remove(0);
        }
        let least = state.size;
        state.attempts.push(Attempt {
            sending,
            least,
            parts: Arc::clone(&parts),
        });
        Some((sending, state.expected.clone(), parts))
    }

    /// Tells whether the file is still what an upload began with.
    pub(crate) fn is_still(&self, sending: Sending) -> bool {
        self.state.lock().generation == sending.generation
    }

    /// Takes note that an upload has ended without result. `certainly` tells that it has changed nothing at the source.
    pub(crate) fn end_sending(&self, sending: Sending, certainly: bool) {
        if certainly {
            self.state.lock().attempts.retain(|attempt| attempt.sending != sending);
        }
    }

    /// Tells whether the source may have something of this file that was not confirmed.
    pub(crate) fn was_sent(&self) -> bool {
        let state = self.state.lock();
        state.was_sent || !state.attempts.is_empty()
    }

    /// Lists the uploads whose outcome is not known, the last first.
    pub(crate) fn unconfirmed(&self) -> Vec<(Sending, Arc<Parts>)> {
        let state = self.state.lock();
        let attempts = state.attempts.iter().rev();
        attempts
            .map(|attempt| (attempt.sending, Arc::clone(&attempt.parts)))
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
            if !state.retired {
                state.expected = Some(version.into());
                state.base = Some(Base {
                    version: version.into(),
                    size: sending.size,
                    shows: least.min(sending.size).min(state.size),
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

    /// Changes what the file is based on, and what the source has to have under its name: it was renamed there.
    pub(crate) fn rebase(&self, base_version: Option<&[u8]>, expected: Option<&[u8]>) {
        let mut state = self.state.lock();
        if let (Some(base), Some(version)) = (&mut state.base, base_version) {
            base.version = version.into();
        }
        state.expected = expected.map(Into::into);
        state.stamp += 1;
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
