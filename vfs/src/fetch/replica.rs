//! Copies: where several entries are known to hold the same bytes, which of them answers a request.
//!
//! Entries are copies of one another when the BLAKE3 of the whole of each is on record for its present version, and is the
//! same. The cheapest that can be reached is asked first: what lies in the cache, then a file of this machine, then the
//! source that answers fastest. One that fails is followed by the next at once; one that is late is joined by it, and the
//! first answer counts. So a reader goes on in the middle of a file while a source goes away.
//!
//! Always true:
//! - each copy is read under its own version, which its own source guards: bytes of another version are never taken;
//! - all copies together have the one deadline of the request;
//! - a request keeps its place in the line of the object's own source, whichever copy answers, so that its bounds hold.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use manifold_catalog::{EntryId, SourceId};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::run::Part;
use super::{Fetcher, Object, stopped};
use crate::Error;
use crate::counters::add;
use crate::read::{blocks_of, within};

/// The most copies that one request asks, its own object among them.
const COPIES_MAX: usize = 4;
/// The most entries that are looked at to find them.
const HOLDERS_MAX: usize = 32;
/// The part of the deadline after which a copy that has not answered is joined by the next, at the latest. One for each
/// copy, so that the last still has a part of its own.
const PATIENCE_PARTS: u32 = COPIES_MAX as u32;
/// The least that a copy is waited for before the next is asked too.
const PATIENCE_MIN: Duration = Duration::from_millis(200);
/// A copy is late when it takes so many times as long as requests to its source do on the average.
const LATE_FACTOR: u32 = 8;
/// How much of the average one request is, as one part in so many.
const NEW_PART: u32 = 8;
/// What a source that was never measured is taken to need for an answer.
const LATENCY_GUESS: Duration = Duration::from_millis(30);

/// The blocks that were asked for, and the source that they came from just now; `None`: the cache.
pub(super) struct Brought {
    pub(super) blocks: Vec<Bytes>,
    pub(super) source: Option<SourceId>,
}

/// How dear it is to ask a copy now; the cheaper the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// It lies on this machine.
    Local,
    /// Its source answers, within this power of four of a microsecond: smaller differences are not worth a change.
    Answers(u32),
    /// Its source does not answer.
    Away,
}

/// How long the requests of each source take on the average, the last ones above all.
#[derive(Debug, Default)]
pub(super) struct Latencies(Mutex<HashMap<SourceId, Duration>>);

impl Latencies {
    /// Takes note of an answer.
    pub(super) fn note(&self, source: SourceId, took: Duration) {
        let mut all = self.0.lock();
        let average = all.entry(source).or_insert(took);
        *average = (*average * (NEW_PART - 1) + took) / NEW_PART;
    }

    fn of(&self, source: SourceId) -> Option<Duration> {
        self.0.lock().get(&source).copied()
    }
}

type Attempt = BoxFuture<'static, (Arc<Object>, Result<Vec<Bytes>, Error>)>;

impl Fetcher {
    /// Brings blocks of an object, from whichever copy of it is best.
    pub(super) async fn bring_blocks(self: &Arc<Self>, object: &Arc<Object>, part: Part) -> Result<Brought, Error> {
        let copies = self.copies(object);
        if copies.len() == 1 {
            let blocks = self.ask(object, part, self.deadline).await?;
            let source = Some(object.source);
            return Ok(Brought { blocks, source });
        }
        match self.cached(object, &copies, &part).await {
            Some(blocks) => Ok(Brought { blocks, source: None }),
            None => self.race(object, copies, part).await,
        }
    }

    /// Finds other entries that hold the bytes of an object, each of another source, as far as they are connected.
    pub(crate) fn replicas(&self, object: &Object) -> Vec<Object> {
        let found = self.content_of(object).and_then(|content| {
            let Some(content) = content else { return Ok(Vec::new()) };
            let mut found: Vec<Object> = Vec::new();
            for id in self.catalog.holders(&content, HOLDERS_MAX)? {
                if id == object.id {
                    continue;
                }
                // What has gone meanwhile, or is not connected, is no copy now.
                let Ok((copy, _)) = Object::find(&self.catalog, &self.indexer, id) else {
                    continue;
                };
                let is_copy = copy.content == Some(content) && copy.shape.size == object.shape.size;
                if is_copy && found.iter().all(|other| other.source != copy.source) {
                    found.push(copy);
                }
            }
            Ok(found)
        });
        found.unwrap_or_else(|error| {
            tracing::warn!(id = object.id.0, %error, "cannot tell which entries hold the same bytes");
            Vec::new()
        })
    }

    /// Gives the copies that may be asked, the cheapest first; the object itself is always among them.
    fn copies(&self, object: &Arc<Object>) -> Vec<Arc<Object>> {
        let mut copies = vec![Arc::clone(object)];
        copies.extend(self.replicas(object).into_iter().map(Arc::new));
        if copies.len() > 1 {
            copies.sort_by_cached_key(|copy| self.cost(copy.source));
            if let Some(own) = copies.iter().position(|copy| copy.id == object.id)
                && own >= COPIES_MAX
            {
                copies.swap(own, COPIES_MAX - 1);
            }
            copies.truncate(COPIES_MAX);
        }
        copies
    }

    fn content_of(&self, object: &Object) -> manifold_catalog::Result<Option<[u8; 32]>> {
        if object.content.is_some() {
            return Ok(object.content);
        }
        // It may have been found out while the object was open.
        let details = self.catalog.details(object.id)?;
        let same = details.filter(|details| *details.version == *object.version.as_bytes());
        Ok(same.and_then(|details| details.content))
    }

    fn cost(&self, source: SourceId) -> Cost {
        if self.indexer.is_away(source) {
            return Cost::Away;
        }
        let backend = self.indexer.backend(source);
        if backend.is_some_and(|backend| backend.as_local().is_some()) {
            return Cost::Local;
        }
        let usual = self.latencies.of(source).unwrap_or(LATENCY_GUESS);
        Cost::Answers((usual.as_micros().max(1) as u64).ilog2() / 2)
    }

    /// How long a copy is waited for alone.
    fn patience(&self, copy: &Object) -> Duration {
        let most = self.deadline / PATIENCE_PARTS;
        let usual = self.latencies.of(copy.source);
        usual.map_or(most, |usual| (usual * LATE_FACTOR).max(PATIENCE_MIN).min(most))
    }

    /// Puts the blocks together from cached ones of another copy, if all are there.
    async fn cached(&self, object: &Object, copies: &[Arc<Object>], part: &Part) -> Option<Vec<Bytes>> {
        for copy in copies.iter().filter(|copy| copy.id != object.id) {
            let (cache, shape, part) = (Arc::clone(&self.cache), copy.shape, part.clone());
            let may_be_there = |index| cache.is_in_memory(shape.block(index)) || cache.may_be_on_disk(shape, index);
            if !blocks_of(shape, &part.range).all(may_be_there) {
                continue;
            }
            let read = self.runtime.spawn_blocking(move || {
                let assemble = |range: Range<u64>| {
                    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
                    for index in blocks_of(shape, &range) {
                        let block = cache
                            .in_memory(shape.block(index))
                            .or_else(|| cache.read_disk(shape, index))?;
                        bytes.extend_from_slice(&block[within(shape, index, &range)]);
                    }
                    Some(Bytes::from(bytes))
                };
                part.blocks().map(assemble).collect::<Option<Vec<_>>>()
            });
            if let Ok(Some(blocks)) = read.await {
                self.note_copy(object, copy, false);
                return Some(blocks);
            }
        }
        None
    }

    /// Asks one copy after the other, until one has answered.
    async fn race(
        self: &Arc<Self>,
        object: &Arc<Object>,
        copies: Vec<Arc<Object>>,
        part: Part,
    ) -> Result<Brought, Error> {
        let until = Instant::now() + self.deadline;
        let mut first = None;
        let mut failure = None;
        let mut asked = FuturesUnordered::new();
        let mut rest = copies.into_iter();
        loop {
            let mut patience = self.deadline;
            if let Some(copy) = rest.next() {
                patience = self.patience(&copy);
                first.get_or_insert(copy.id);
                asked.push(self.attempt(copy, part.clone(), until));
            }
            let answer = if rest.len() == 0 {
                asked.next().await
            } else {
                match timeout(patience, asked.next()).await {
                    Ok(answer) => answer,
                    Err(_) => continue,
                }
            };
            match answer {
                None => return Err(failure.unwrap_or_else(stopped)),
                Some((copy, Ok(blocks))) => {
                    self.note_copy(object, &copy, first != Some(copy.id));
                    self.see_out(asked);
                    let source = Some(copy.source);
                    return Ok(Brought { blocks, source });
                }
                Some((copy, Err(error))) => {
                    tracing::debug!(id = copy.id.0, path = %copy.path, %error, "one copy could not be read");
                    // What the reader is told is what is wrong with the file that it has opened.
                    if failure.is_none() || copy.id == object.id {
                        failure = Some(error);
                    }
                }
            }
        }
    }

    fn attempt(self: &Arc<Self>, copy: Arc<Object>, part: Part, until: Instant) -> Attempt {
        let fetcher = Arc::clone(self);
        Box::pin(async move {
            let left = until.saturating_duration_since(Instant::now());
            let answer = fetcher.ask(&copy, part, left).await;
            (copy, answer)
        })
    }

    /// Lets those that were beaten go on for a while: what becomes of them tells how their sources are.
    fn see_out(&self, mut asked: FuturesUnordered<Attempt>) {
        if !asked.is_empty() {
            let patience = self.deadline / 2;
            self.runtime.spawn(async move {
                let all = async { while asked.next().await.is_some() {} };
                // Whatever is left after that is given up.
                let _all_or_long_enough = timeout(patience, all).await;
            });
        }
    }

    /// Counts, and tells once for each handle, that another copy is read than the one that was opened.
    fn note_copy(&self, object: &Object, copy: &Object, switched: bool) {
        if switched {
            add(&self.tally.replica_switches, 1);
        }
        if copy.id == object.id {
            return;
        }
        add(&self.tally.replica_reads, 1);
        if !object.told_of_copy.swap(true, Ordering::Relaxed) {
            let (EntryId(id), EntryId(copy_id)) = (object.id, copy.id);
            let (path, copy_path) = (&object.path, &copy.path);
            let why = if switched {
                "it failed or is late"
            } else {
                "it is nearer"
            };
            tracing::info!(id, %path, copy_id, copy_source = copy.source.0, %copy_path, why, "reading from another copy");
        }
    }
}
