//! Bringing bytes to the disk while more are being written, so that whoever closes a long file waits for its end alone.

use std::sync::Arc;

use super::{Data, StagedFile};
use crate::staging::Durability;

/// How many bytes are written before they are brought to the disk.
const STEP: u64 = 16 << 20;

impl StagedFile {
    /// Tells, once for each step, that bytes should be brought to the disk ahead of the next [`sync`](Self::sync).
    pub(crate) fn is_to_be_synced_ahead(&self) -> bool {
        let mut state = self.state.lock();
        state.loose >= STEP && !std::mem::replace(&mut state.is_synced_ahead, true)
    }

    /// Brings what was written so far to the disk; nothing is acknowledged by that. Blocks the thread.
    pub(crate) fn sync_ahead(&self, durability: &dyn Durability) {
        // The kernel tells of a failure once. Nobody else may ask meanwhile, and take the next answer for a good one.
        let _one_at_a_time = self.syncing.lock();
        let (number, data) = {
            let mut state = self.state.lock();
            state.is_synced_ahead = false;
            state.loose = 0;
            match (state.retired || state.orphan, self.open(&mut state), &state.data) {
                (false, Ok(()), Data::File(Some(data))) => (state.number, Arc::clone(data)),
                // Nobody waits for it, or it has no file, or the next who asks is told why it cannot be read.
                _ => return,
            }
        };
        if let Err(error) = durability.data(number, &data) {
            self.is_lost(&error);
        }
    }
}
