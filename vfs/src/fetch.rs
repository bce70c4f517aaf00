//! Brings blocks that are not in memory: from the disk cache, else from their source, each once however many wait for it.
//!
//! A request is a run of neighbouring blocks. It belongs to the queue, not to a reader: a reader that goes away changes
//! nothing for others. A request that was made ahead of a reader fails silently; a reader who came to need it asks again.
//!
//! Always true: no lock is held across an await, and whatever becomes of a request's task, its blocks are landed and its place and
//! memory are given back.

pub(crate) mod base;
pub(crate) mod flight;
pub(crate) mod object;
mod pinned;
mod queue;
mod replica;
mod run;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use manifold_backends::{ObjectPath, Presence, Version};
use manifold_catalog::{Catalog, EntryId};
use manifold_index::Indexer;
use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio::time::Instant;

use self::flight::{Boarding, Duty, Flights, Wait};
pub(crate) use self::object::Object;
pub use self::queue::Waiting;
use self::queue::{Class, Lane, Load, Queue, Started};
use self::replica::{Brought, Latencies};
use self::run::{Part, Run, Runs};
use crate::Error;
use crate::cache::{BlockCache, BlockId, Shape};
use crate::counters::{Tally, add, take};
use crate::error::Cause;

/// How many blocks are read from the disk cache at once.
const DISK_READS_MAX: u32 = 4;
/// The most blocks of one read from the disk cache.
const DISK_RUN_MAX: u64 = 8;
/// No request takes more than one part in so many of the budget, so that it finds room beside others.
const BUDGET_PARTS: u64 = 8;
/// Into how many requests a window is cut at least, so that they go in parallel.
const AHEAD_REQUESTS_MIN: u64 = 4;

/// Why a block did not come.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    error: Error,
    /// Whether nobody waited for it, as far as was known: then it is worth asking again.
    ahead: bool,
}

/// A block, or why it did not come.
pub(crate) type Outcome = Result<Bytes, Failed>;

/// Tells a request that it is not wanted any more, unless somebody waits for it.
pub(crate) type Abandoned = Arc<AtomicBool>;

/// A block that was asked for.
pub(crate) enum Wanted {
    /// It is here.
    Here(Bytes),
    /// It is on its way.
    Coming {
        /// Waits for it.
        wait: Wait<Outcome>,
        /// Whether nobody had asked for it before.
        first: bool,
    },
}

/// Brings blocks.
pub(crate) struct Fetcher {
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) indexer: Arc<Indexer>,
    pub(crate) runtime: Runtime,
    pub(crate) tally: Arc<Tally>,
    pub(crate) deadline: Duration,
    /// The longest request, in bytes; a single block always goes.
    request_max: u64,
    flights: Arc<Flights<BlockId, Outcome>>,
    latencies: Latencies,
    queue: Mutex<Queue<Run>>,
}

/// Gives back a request's place and memory when its task ends, in whatever way.
struct Place {
    fetcher: Arc<Fetcher>,
    lane: Lane,
    load: Load,
}

impl Fetcher {
    /// Makes a fetcher that holds at most `budget` bytes in flight.
    pub(crate) fn new(
        cache: Arc<BlockCache>,
        catalog: Arc<Catalog>,
        indexer: Arc<Indexer>,
        runtime: Runtime,
        tally: Arc<Tally>,
        budget: u64,
        deadline: Duration,
    ) -> Arc<Self> {
        let (flights, queue) = (Flights::new(), Mutex::new(Queue::new(budget)));
        let request_max = budget / BUDGET_PARTS;
        Arc::new(Self {
            cache,
            catalog,
            indexer,
            runtime,
            tally,
            deadline,
            request_max,
            flights,
            latencies: Latencies::default(),
            queue,
        })
    }

    /// Asks for blocks that somebody waits for.
    pub(crate) fn want(
        self: &Arc<Self>,
        object: &Arc<Object>,
        blocks: impl Iterator<Item = u64>,
    ) -> Vec<(u64, Wanted)> {
        let (mut wanted, mut runs) = (Vec::new(), Runs::new(object, None));
        let mut promote = false;
        for index in blocks {
            let block = object.shape.block(index);
            let otherwise = Err(Failed {
                error: stopped(),
                ahead: false,
            });
            match self
                .flights
                .board(block, true, || self.cache.in_memory(block).map(Ok), otherwise)
            {
                Boarding::Kept(Ok(bytes)) => {
                    add(&self.tally.memory_hits, 1);
                    wanted.push((index, Wanted::Here(bytes)));
                }
                Boarding::Kept(Err(_)) => {}
                Boarding::Joined { flight, was_ahead } => {
                    add(&self.tally.joined, 1);
                    promote |= was_ahead;
                    wanted.push((
                        index,
                        Wanted::Coming {
                            wait: flight.wait(),
                            first: false,
                        },
                    ));
                }
                Boarding::First(duty) => {
                    add(&self.tally.memory_misses, 1);
                    wanted.push((
                        index,
                        Wanted::Coming {
                            wait: duty.flight().wait(),
                            first: true,
                        },
                    ));
                    runs.add(self, index, duty, self.run_max(object));
                }
            }
        }
        if promote {
            let mut queue = self.queue.lock();
            for lane in [Lane::Disk, Lane::Source(object.source.0)] {
                queue.promote(lane, |run| {
                    run.object.shape.key == object.shape.key && run.duties.iter().any(Duty::is_wanted)
                });
            }
        }
        self.submit(runs.finish());
        wanted
    }

    /// Asks for blocks that somebody may want soon.
    pub(crate) fn ahead(self: &Arc<Self>, object: &Arc<Object>, blocks: Range<u64>, abandoned: &Abandoned) {
        let run_max = ((blocks.end - blocks.start) / AHEAD_REQUESTS_MIN).clamp(1, self.run_max(object));
        let mut runs = Runs::new(object, Some(Arc::clone(abandoned)));
        for index in blocks {
            let block = object.shape.block(index);
            if self.cache.is_in_memory(block) {
                continue;
            }
            let otherwise = Err(Failed {
                error: stopped(),
                ahead: true,
            });
            if let Boarding::First(duty) =
                self.flights
                    .board(block, false, || self.cache.in_memory(block).map(Ok), otherwise)
            {
                add(&self.tally.memory_misses, 1);
                add(&self.tally.bytes_ahead, object.shape.block_len(index));
                runs.add(self, index, duty, run_max);
            }
        }
        self.submit(runs.finish());
    }

    /// Says what waits for its turn.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.queue.lock().waiting()
    }

    /// Takes back what was abandoned before it went out: asked for ahead, or by readers who have gone.
    pub(crate) fn forget_abandoned(&self, object: &Object) {
        for lane in [Lane::Disk, Lane::Source(object.source.0)] {
            let gone = self.queue.lock().take_out(lane, Run::is_abandoned);
            // After the lock is let go: landing their blocks wakes others.
            gone.into_iter().for_each(Run::give_up);
        }
    }

    /// Waits for a block, and asks again where the request that failed was one that nobody had waited for.
    pub(crate) async fn bring(
        self: &Arc<Self>,
        object: &Arc<Object>,
        index: u64,
        wait: Wait<Outcome>,
    ) -> Result<Bytes, Error> {
        let mut outcome = wait.await;
        while let Err(Failed { ahead: true, .. }) = outcome {
            let again = self.want(object, std::iter::once(index)).pop();
            outcome = match again {
                Some((_, Wanted::Here(bytes))) => Ok(bytes),
                Some((_, Wanted::Coming { wait, .. })) => wait.await,
                None => Err(Failed {
                    error: stopped(),
                    ahead: false,
                }),
            };
        }
        outcome.map_err(|failed| failed.error)
    }

    /// Gives the longest request for an object, in blocks: what pays at its source, and finds room in memory beside others.
    fn run_max(&self, object: &Object) -> u64 {
        object
            .run_max
            .min(self.request_max / u64::from(object.shape.block_size))
            .max(1)
    }

    fn submit(self: &Arc<Self>, runs: Vec<(Lane, Run)>) {
        if runs.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        for (lane, run) in runs {
            let limit = if lane == Lane::Disk {
                DISK_READS_MAX
            } else {
                run.object.concurrency
            };
            let load = Load {
                bytes: run.len(),
                class: run.class(),
            };
            queue.push(lane, limit, load, run);
        }
        drop(queue);
        self.pump();
    }

    /// Starts all requests that may go.
    fn pump(self: &Arc<Self>) {
        loop {
            let started = self.queue.lock().start();
            let Some(Started { lane, load, request }) = started else {
                return;
            };
            add(&self.tally.requests_in_flight, 1);
            add(&self.tally.bytes_in_flight, load.bytes);
            let place = Place {
                fetcher: Arc::clone(self),
                lane,
                load,
            };
            self.runtime.spawn(async move {
                let fetcher = Arc::clone(&place.fetcher);
                match lane {
                    Lane::Disk => fetcher.fetch_from_disk(request).await,
                    Lane::Source(_) => fetcher.fetch_from_source(request, load.class).await,
                }
                drop(place);
            });
        }
    }

    async fn fetch_from_disk(self: &Arc<Self>, run: Run) {
        if run.is_abandoned() {
            return run.give_up();
        }
        let fetcher = Arc::clone(self);
        let task = self.runtime.spawn_blocking(move || {
            let Run {
                object,
                first,
                duties,
                abandoned,
                ..
            } = run;
            let mut runs = Runs::new(&object, abandoned);
            let hits = if fetcher.cache.is_pinned(object.shape) {
                &fetcher.tally.pinned_hits
            } else {
                &fetcher.tally.disk_hits
            };
            for (index, duty) in (first..).zip(duties) {
                if let Some(bytes) = fetcher.cache.read_disk(object.shape, index) {
                    add(hits, 1);
                    fetcher.cache.keep_in_memory(object.shape.block(index), &bytes);
                    duty.land(Ok(bytes));
                } else {
                    runs.add_to(Lane::Source(object.source.0), index, duty, fetcher.run_max(&object));
                }
            }
            fetcher.submit(runs.finish());
        });
        if let Err(error) = task.await {
            tracing::error!(%error, "reading from the disk cache broke off");
        }
    }

    async fn fetch_from_source(self: &Arc<Self>, run: Run, class: Class) {
        if run.is_abandoned() {
            return run.give_up();
        }
        let misses = if run.pinned || self.cache.is_pinned(run.object.shape) {
            &self.tally.pinned_misses
        } else {
            &self.tally.misses
        };
        add(misses, run.duties.len() as u64);
        match self.bring_blocks(&run.object, run.part()).await {
            Ok(Brought { blocks, source }) => {
                if let Some(source) = source {
                    self.tally.fetched(source, run.duties.len() as u64, run.len());
                }
                let mut late = Vec::new();
                for ((index, duty), block) in (run.first..).zip(run.duties).zip(blocks) {
                    // What is pinned is written by whoever asked for it, and would only take memory from others.
                    if !run.pinned || duty.is_wanted() {
                        late.extend(self.cache.keep(run.object.shape, index, &block));
                    }
                    duty.land(Ok(block));
                }
                // The readers have their blocks. The request keeps its place, so that a source that is faster than the disk
                // cache waits for it.
                for block in late {
                    block.catch_up().await;
                }
            }
            Err(error) => {
                add(&self.tally.requests_failed, 1);
                tracing::debug!(id = run.object.id.0, path = %run.object.path, %error, "a request for blocks failed");
                for duty in run.duties {
                    duty.land(Err(Failed {
                        error: error.clone(),
                        ahead: class != Class::Reader,
                    }));
                }
            }
        }
    }

    /// Makes the request, and makes sure that the answer is what was asked for.
    async fn ask(&self, object: &Object, part: Part, deadline: Duration) -> Result<Vec<Bytes>, Error> {
        if object.has_lost_place() {
            return Err(Error::Stale);
        }
        let path = self.current_path(object)?;
        let since = Instant::now();
        let range = part.range.clone();
        let asked = self.indexer.read(
            object.source,
            &path,
            &object.version,
            range.clone(),
            part.block_size,
            deadline,
        );
        match asked.await {
            _ if object.has_lost_place() => Err(Error::Stale),
            Ok(Presence::Found(blocks)) if part.is_answered_by(&blocks) => {
                self.latencies.note(object.source, since.elapsed());
                Ok(blocks)
            }
            Ok(Presence::Found(blocks)) => Err(Error::Io(Cause::new(format!(
                "read {path}, bytes {} to {}: the source gave {} bytes",
                range.start,
                range.end,
                blocks.iter().map(Bytes::len).sum::<usize>()
            )))),
            Ok(Presence::Absent) => {
                self.look_again(object);
                Err(Error::Stale)
            }
            Err(error) => {
                let error = Error::from_index(error);
                if matches!(error, Error::Stale) {
                    self.look_again(object);
                }
                Err(error)
            }
        }
    }

    /// Finds where the object stands now: a directory above it may have been renamed since it was opened.
    fn current_path(&self, object: &Object) -> Result<ObjectPath, Error> {
        let place = if object.is_origin {
            self.catalog.origin_place(object.id)
        } else {
            self.catalog.object_path(object.id)
        };
        Ok(place
            .map_err(Error::from_catalog)?
            .filter(|it| it.0 == object.source)
            .map_or_else(|| object.path.clone(), |it| ObjectPath::from_bytes(it.1)))
    }

    /// Forgets what is cached of an entry in a version that it is about to have: it may have had that before, with other bytes, where
    /// its source tells versions by their length and seconds.
    pub(crate) fn forget_lookalike(&self, id: EntryId, version: &Version, size: u64) {
        if let Some(shape) = self.lookalike(id, version, size) {
            self.cache.forget(shape);
        }
    }

    /// Forgets what a crash would bring back of that.
    pub(crate) fn forget_lookalike_on_disk(&self, id: EntryId, version: &Version, size: u64) {
        if let Some(shape) = self.lookalike(id, version, size) {
            self.cache.forget_on_disk(shape);
        }
    }

    fn lookalike(&self, id: EntryId, version: &Version, size: u64) -> Option<Shape> {
        version.grain()?;
        let object = Object::of_version(&self.catalog, &self.indexer, id, version.clone(), size);
        match object {
            Ok(object) => Some(object.shape),
            Err(error) => {
                tracing::warn!(id = id.0, %error, "what was cached of a file in its new version stays");
                None
            }
        }
    }

    /// Has the catalog learn what the source has just shown: that the object has changed, or is gone.
    fn look_again(&self, object: &Object) {
        if object.is_origin {
            // Whoever moves it sees to that.
            return;
        }
        let id = object.id;
        let indexer = Arc::clone(&self.indexer);
        self.runtime.spawn(async move {
            if let Err(error) = indexer.refresh(id).await {
                tracing::debug!(id = id.0, %error, "an object that had changed could not be looked at again");
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        take(&self.fetcher.tally.requests_in_flight, 1);
        take(&self.fetcher.tally.bytes_in_flight, self.load.bytes);
        self.fetcher.queue.lock().finished(self.lane, self.load);
        self.fetcher.pump();
    }
}

fn stopped() -> Error {
    Error::Io(Cause::new("the request was given up, because reading is being stopped"))
}
