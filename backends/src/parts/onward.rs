//! Puts that write one file from front to back, beside its place, and note how far the source has it: one that was broken off
//! goes on behind that.
//!
//! Always true:
//! - a part is noted after the source has said that all of it, and all before it, has reached its disk;
//! - what was noted is gone on from only where the bytes at hand have the sums that were noted, all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{PartLog, SentPart};
use crate::write::{Body, is_temporary_name};

const MIB: u64 = 1024 * 1024;
/// The length of a part, in bytes, of a file that is not too large for it. A file that is no longer has none.
pub(crate) const PART: u64 = 16 * MIB;
/// Parts of one file.
const PARTS_MAX: u64 = 4096;
/// Bytes that are read at once to be compared.
const COMPARED: u64 = MIB;
/// A source is not asked to bring bytes to its disk for so many times as long as that took it the last time.
const REST: u32 = 4;
/// But no longer than that: some do nothing else meanwhile, and others wait for them, so that it is not to be much at once.
const REST_MAX: Duration = Duration::from_secs(2);

/// Gives who remembers the parts of a body, if it is long enough to have some.
pub(crate) fn log_of(body: &dyn Body) -> Option<Arc<dyn PartLog>> {
    body.parts().filter(|_| body.size() > PART)
}

/// Gives the length of the parts of a file.
fn part_of(size: u64) -> u64 {
    let mut part = PART;
    while part.saturating_mul(PARTS_MAX) < size {
        part *= 2;
    }
    part
}

/// Sums the bytes of a part.
#[derive(Default)]
pub(crate) struct Sum(blake3::Hasher);

impl Sum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Gives what is noted: the first half of the BLAKE3.
    pub(crate) fn finish(&self) -> [u8; 16] {
        let mut sum = [0; 16];
        self.0.finalize_xof().fill(&mut sum);
        sum
    }
}

/// What an earlier put has left: a file of a temporary name, and what is known of its beginning.
#[derive(Debug)]
pub(crate) struct Left {
    /// The file's name.
    pub(crate) name: String,
    size: u64,
    /// From the first on, without gaps.
    parts: Vec<SentPart>,
}

impl Left {
    /// Asks for what is left of a put of so many bytes.
    pub(crate) async fn of(log: &dyn PartLog, size: u64) -> io::Result<Option<Self>> {
        let Some(upload) = log.broken_off().await? else {
            return Ok(None);
        };
        if !is_temporary_name(upload.id.as_bytes()) {
            // The source was of another kind then.
            return Ok(None);
        }
        let mut parts = upload.parts;
        parts.sort_by_key(|part| part.number);
        let mut end = 0_u64;
        let gapless = parts.iter().zip(1..).take_while(|(part, number)| {
            end = end.saturating_add(part.length);
            part.number == *number && part.length > 0 && end <= size
        });
        let count = gapless.count();
        parts.truncate(count);
        Ok(Some(Self {
            name: upload.id,
            size,
            parts,
        }))
    }

    /// Gives how far the source has it.
    pub(crate) fn end(&self) -> u64 {
        self.parts.iter().map(|part| part.length).sum()
    }

    /// Tells whether a file of that length may be the one that was left.
    pub(crate) fn may_be(&self, length: u64) -> bool {
        (self.end()..=self.size).contains(&length)
    }

    /// Tells whether there is something to go on from, and all of it is as the bytes at hand are. Where it is not, more may have been
    /// sent that is not, and not all of that may have arrived yet.
    pub(crate) async fn is_of(&self, body: &dyn Body) -> io::Result<bool> {
        let mut at = 0;
        for part in &self.parts {
            let (end, mut sum) = (at + part.length, Sum::default());
            while at < end {
                let range = at..end.min(at + COMPARED);
                at = range.end;
                sum.update(&body.read(range).await?);
            }
            if sum.finish() != part.sum {
                return Ok(false);
            }
        }
        Ok(!self.parts.is_empty())
    }

    /// Gives where the last part lies, and its sum.
    pub(crate) fn last(&self) -> Option<(Range<u64>, [u8; 16])> {
        let (last, end) = (self.parts.last()?, self.end());
        Some((end - last.length..end, last.sum))
    }
}

/// A put that notes how far it has come.
#[derive(Debug)]
pub(crate) struct Onward {
    log: Arc<dyn PartLog>,
    size: u64,
    part: u64,
    /// Where it begins.
    start: u64,
    /// How far the bytes were summed.
    summed: watch::Sender<u64>,
    state: Mutex<State>,
}

struct State {
    sum: Sum,
    /// The number of the part that is being summed, and where it begins.
    number: u32,
    begins: u64,
    /// Parts that were summed and not noted, with their ends.
    unnoted: VecDeque<(u64, SentPart)>,
    /// How far all has arrived, and what has arrived beyond.
    arrived: u64,
    beyond: BTreeMap<u64, u64>,
    /// When the source may be asked again to bring it to its disk.
    again: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("arrived", &self.arrived)
            .finish_non_exhaustive()
    }
}

impl Onward {
    /// One that sends a file of so many bytes, or what is left of it to be sent.
    pub(crate) fn new(log: Arc<dyn PartLog>, size: u64, left: Option<&Left>) -> Self {
        let start = left.map_or(0, Left::end);
        let number = left.map_or(0, |left| left.parts.len() as u32) + 1;
        Self {
            log,
            size,
            part: part_of(size),
            start,
            summed: watch::Sender::new(start),
            state: Mutex::new(State {
                sum: Sum::default(),
                number,
                begins: start,
                unnoted: VecDeque::new(),
                arrived: start,
                beyond: BTreeMap::new(),
                again: Instant::now(),
            }),
        }
    }

    /// Gives where it begins.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Gives where the part ends in which `at` lies. No piece goes beyond.
    pub(crate) fn part_end(&self, at: u64) -> u64 {
        let into = (at - self.start) % self.part;
        self.size.min(at - into + self.part)
    }

    /// Takes a piece into the sum of its part, when all before it was.
    pub(crate) async fn sum(&self, start: u64, bytes: &Bytes) {
        let mut summed = self.summed.subscribe();
        // The sender lives as long as this does.
        drop(summed.wait_for(|summed| *summed == start).await);
        let end = start + bytes.len() as u64;
        {
            let mut state = self.state.lock();
            state.sum.update(bytes);
            if end == self.part_end(start) {
                let part = SentPart {
                    number: state.number,
                    length: end - state.begins,
                    sum: std::mem::take(&mut state.sum).finish(),
                    tag: String::new(),
                };
                state.unnoted.push_back((end, part));
                state.number += 1;
                state.begins = end;
            }
        }
        self.summed.send_replace(end);
    }

    /// Takes note that the source has taken a piece.
    pub(crate) fn arrived(&self, piece: Range<u64>) {
        let mut state = self.state.lock();
        state.beyond.insert(piece.start, piece.end);
        let mut arrived = state.arrived;
        while let Some(end) = state.beyond.remove(&arrived) {
            arrived = end;
        }
        state.arrived = arrived;
    }

    /// Takes the parts that have arrived; `None` if there are none, or the source was asked a moment ago.
    fn due(&self) -> Option<Vec<SentPart>> {
        let is_rested = self.state.lock().again <= Instant::now();
        let parts = if is_rested { self.take_arrived() } else { Vec::new() };
        (!parts.is_empty()).then_some(parts)
    }

    fn take_arrived(&self) -> Vec<SentPart> {
        let mut state = self.state.lock();
        let arrived = state.arrived;
        let count = state.unnoted.iter().take_while(|(end, _)| *end <= arrived).count();
        state.unnoted.drain(..count).map(|(_, part)| part).collect()
    }

    async fn note(&self, parts: Vec<SentPart>) {
        for part in parts {
            let number = part.number;
            if let Err(error) = self.log.sent(part).await {
                tracing::debug!(%error, number, "a part that was sent could not be noted");
            }
        }
    }

    /// Notes everything that has arrived: all of it has reached the source's disk.
    pub(crate) async fn synced(&self) {
        let parts = self.take_arrived();
        self.note(parts).await;
    }

    /// Notes that the source has nothing of it any more under its temporary name.
    pub(crate) async fn ended(&self) {
        ended(&*self.log).await;
    }
}

/// Notes that a source has nothing any more of what is remembered.
pub(crate) async fn ended(log: &dyn PartLog) {
    if let Err(error) = log.ended().await {
        // Whoever tries to give it up finds out.
        tracing::debug!(%error, "it could not be noted that an upload has ended");
    }
}

/// Writes pieces until there are no more. If parts are noted, the source is asked meanwhile to bring to its disk what has arrived.
pub(crate) async fn write<E, F>(
    onward: Option<&Onward>,
    pieces: impl Stream<Item = Result<(), E>>,
    sync: impl Fn() -> F,
) -> Result<(), E>
where
    E: Send,
    F: Future<Output = Result<(), E>> + Send,
{
    let mut pieces = std::pin::pin!(pieces);
    let mut syncing: Option<BoxFuture<'_, Result<(), E>>> = None;
    let mut is_over = false;
    // What a source says of one time may be all that it says of a disk that has failed.
    while !is_over || syncing.is_some() {
        if let Some(onward) = onward
            && !is_over
            && syncing.is_none()
            && let Some(parts) = onward.due()
        {
            let sync = sync();
            syncing = Some(Box::pin(async move {
                let began = Instant::now();
                sync.await?;
                let rest = began.elapsed().saturating_mul(REST).min(REST_MAX);
                onward.state.lock().again = Instant::now() + rest;
                onward.note(parts).await;
                Ok(())
            }));
        }
        tokio::select! {
            piece = pieces.next(), if !is_over => match piece {
                Some(piece) => piece?,
                None => is_over = true,
            },
            synced = settled(&mut syncing) => {
                syncing = None;
                synced?;
            }
        }
    }
    Ok(())
}

async fn settled<E>(syncing: &mut Option<BoxFuture<'_, Result<(), E>>>) -> Result<(), E> {
    match syncing {
        Some(syncing) => syncing.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
