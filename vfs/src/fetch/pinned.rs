//! Bringing what is to be kept on disk: behind all readers, past the memory that their blocks are in.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::flight::Boarding;
use super::queue::Lane;
use super::run::Runs;
use super::{Failed, Fetcher, Object, stopped};
use crate::Error;

/// How often blocks are asked for that readers had asked for, and did not wait for after all.
const TRIES: usize = 3;

impl Fetcher {
    /// Brings neighbouring blocks that are not on disk, for a caller who writes them there. A reader who needs one of them
    /// meanwhile joins in.
    pub(crate) async fn fetch_pinned(
        self: &Arc<Self>,
        object: &Arc<Object>,
        blocks: Range<u64>,
    ) -> Result<Vec<(u64, Bytes)>, Error> {
        let (mut brought, mut left) = (Vec::new(), blocks.collect::<Vec<_>>());
        for attempt in 1..=TRIES {
            let (mut runs, mut coming) = (Runs::pinned(object), Vec::new());
            for index in left.drain(..) {
                let block = object.shape.block(index);
                let otherwise = Err(Failed {
                    error: stopped(),
                    ahead: true,
                });
                match self
                    .flights
                    .board(block, false, || self.cache.in_memory(block).map(Ok), otherwise)
                {
                    Boarding::Kept(Ok(bytes)) => brought.push((index, bytes)),
                    Boarding::Kept(Err(_)) => {}
                    Boarding::Joined { flight, .. } => coming.push((index, flight.listen(), true)),
                    Boarding::First(duty) => {
                        coming.push((index, duty.flight().listen(), false));
                        runs.add_to(Lane::Source(object.source.0), index, duty, self.run_max(object));
                    }
                }
            }
            self.submit(runs.finish());
            for (index, listen, joined) in coming {
                match listen.await {
                    Ok(bytes) => brought.push((index, bytes)),
                    Err(Failed { ahead: true, .. }) if joined && attempt < TRIES => left.push(index),
                    Err(failed) => return Err(failed.error),
                }
            }
            if left.is_empty() {
                break;
            }
        }
        Ok(brought)
    }
}
