//! Keeping at work: plans are made as the catalog changes, and each source's missing blocks are fetched behind its readers.
//!
//! It starts from what is on disk, so an end in the middle of a file costs nothing. Always true: planning takes at most one part in ten of
//! the time; what fails is tried again after a pause; a request that is slow is followed by a shorter one.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use manifold_catalog::{EntryId, SourceId};
use manifold_index::Clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::plan::{Plan, Work};
use super::{End, Next};
use crate::Error;
use crate::cache::NotKept;
use crate::counters::add;
use crate::fetch::Object;
use crate::vfs::Core;

/// A plan rests for so many times what it took to make.
const PLAN_REST: u32 = 10;
/// The shortest rest.
const PLAN_REST_MIN: Duration = Duration::from_millis(50);
/// How often the numbers are made anew while files are being fetched, at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often a plan that depends on the time is made anew.
const AGES_EVERY: Duration = Duration::from_hours(1);
/// How many files of one source are fetched at once.
const FILES_AT_ONCE: u32 = 4;
/// How many requests for one file are made at once.
const REQUESTS_AT_ONCE: usize = 3;
/// How long a single file that failed is left alone.
const FILE_PAUSE: Duration = Duration::from_mins(1);
/// How long one is that has changed, which the catalog is about to learn.
const CHANGE_PAUSE: Duration = Duration::from_secs(2);
/// How long everything rests when the disk has no room.
const ROOM_PAUSE: Duration = Duration::from_secs(10);
/// A request that takes longer than one part in so many of the deadline is too long.
const SLOW_PART: u32 = 8;
/// One that takes less than one part in so many can be longer.
const QUICK_PART: u32 = 32;

/// Why something could not be done.
enum Trouble {
    /// The source does not answer, or not us.
    Source(Error),
    /// This one file.
    File(Error),
    /// The disk has no room, or does not work.
    Room(NotKept),
    /// It is not wanted any more.
    Unwanted,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::TimedOut(_) | Error::Unreachable(_) => Self::Source(error),
            Error::NotFound => Self::Unwanted,
            other => Self::File(other),
        }
    }
}

impl Core {
    /// Keeps what is pinned on disk, from now on until it is dropped.
    pub(crate) async fn keep_pins(self: Arc<Self>, now: Arc<dyn Clock>) {
        let mut workers = JoinSet::new();
        let mut bad_blocks = 0;
        loop {
            let wishes = self.pins.wishes.load(Ordering::SeqCst);
            let damaged = self.tally.disk_blocks_bad.load(Ordering::Relaxed);
            if std::mem::replace(&mut bad_blocks, damaged) != damaged {
                self.cache.count_anew();
            }
            let began = Instant::now();
            let written = self.pins.written.load(Ordering::Relaxed);
            let (core, now) = (Arc::clone(&self), Arc::clone(&now));
            let made = self.runtime.spawn_blocking(move || {
                let plan = Plan::make(&core, now.now_ns())?;
                core.cache.set_pins(plan.keys.clone());
                Ok::<_, Error>(plan)
            });
            let mut ages = false;
            match made.await {
                Ok(Ok(plan)) => {
                    ages = plan.ages;
                    let unchanged = self.pins.wishes.load(Ordering::SeqCst) == wishes;
                    if plan.rules.is_empty() && unchanged {
                        self.pins.any.store(false, Ordering::SeqCst);
                    }
                    for source in self.pins.publish(plan, wishes) {
                        workers.spawn(Arc::clone(&self).work_on(source));
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "cannot tell what is pinned"),
                Err(error) => tracing::error!(%error, "telling what is pinned broke off"),
            }
            let rest = (began.elapsed() * PLAN_REST).max(PLAN_REST_MIN);
            let planned = Instant::now();
            loop {
                let pause = if workers.is_empty() { AGES_EVERY } else { PROGRESS_EVERY };
                tokio::select! {
                    () = self.pins.bell.notified() => break,
                    // A source is done: what became of it?
                    Some(_ended) = workers.join_next() => break,
                    () = sleep(pause) => {
                        let progress = self.pins.written.load(Ordering::Relaxed) != written;
                        if progress || ages && planned.elapsed() >= AGES_EVERY {
                            break;
                        }
                    }
                }
            }
            sleep_until(planned + rest).await;
        }
    }

    /// Does all that is to be done at a source.
    async fn work_on(self: Arc<Self>, source: SourceId) {
        let concurrency = self
            .indexer
            .backend(source)
            .map_or(1, |backend| backend.capabilities().concurrency);
        let pace = Pace::new(self.settings.data_deadline);
        let hands = (0..concurrency.div_ceil(2).clamp(1, FILES_AT_ONCE)).map(|_| self.work_alone(source, &pace));
        futures::future::join_all(hands).await;
        self.pins.idle(source);
    }

    async fn work_alone(&self, source: SourceId, pace: &Pace) {
        loop {
            let mut moved = std::pin::pin!(self.pins.moved.notified());
            // From here on nothing is missed.
            moved.as_mut().enable();
            let work = match self.pins.next(source, Instant::now()) {
                Next::Do(work) => work,
                Next::Wait(until) => {
                    let until = until.unwrap_or_else(|| Instant::now() + FILE_PAUSE);
                    let _moved_or_time = timeout_at(until, moved).await;
                    continue;
                }
                Next::Nothing => return,
            };
            let done = match work {
                Work::List(directory) => self.list_pinned(directory).await,
                Work::Fetch(id) => self.fetch_whole(id, pace).await,
            };
            let end = match done {
                Ok(()) => End::Done,
                Err(Trouble::Unwanted) => End::Unwanted,
                Err(Trouble::Source(error)) => End::Away(error.to_string()),
                Err(Trouble::Room(why)) => End::NoRoom(words(why), ROOM_PAUSE),
                Err(Trouble::File(error)) => {
                    let path = self.catalog.tree_path(work.id()).ok().flatten().unwrap_or_default();
                    let message = format!("{}: {error}", String::from_utf8_lossy(&path));
                    let changed = matches!(error, Error::Stale);
                    End::Failed(message, if changed { CHANGE_PAUSE } else { FILE_PAUSE })
                }
            };
            self.pins.ended(source, work, end, Instant::now());
        }
    }

    async fn list_pinned(&self, directory: EntryId) -> Result<(), Trouble> {
        let listed = timeout(self.settings.metadata_deadline, self.indexer.list_now(directory)).await;
        match listed {
            // One that takes longer goes on, and is joined the next time.
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(Error::from_index(error).into()),
        }
    }

    /// Fetches what is missing of a file.
    async fn fetch_whole(&self, id: EntryId, pace: &Pace) -> Result<(), Trouble> {
        let (object, _) = Object::find(&self.catalog, &self.indexer, id)?;
        let object = Arc::new(object);
        let shape = object.shape;
        let cache = Arc::clone(&self.cache);
        let missing = self.runtime.spawn_blocking(move || cache.missing(shape)).await;
        let mut missing: VecDeque<_> = missing.map_err(|_| Trouble::Unwanted)?.into();
        let runs = std::iter::from_fn(|| next_run(&mut missing, pace.blocks(&object)));
        let mut fetches = futures::stream::iter(runs)
            .map(|run| self.fetch_run(&object, run, pace))
            .buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(fetched) = fetches.next().await {
            fetched?;
        }
        self.hash_soon(&object);
        Ok(())
    }

    async fn fetch_run(&self, object: &Arc<Object>, run: Range<u64>, pace: &Pace) -> Result<(), Trouble> {
        let shape = object.shape;
        let bytes: u64 = run.clone().map(|index| shape.block_len(index)).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.pins.memory_max);
        let permit = self.pins.memory.acquire_many(permits).await;
        let _permit = permit.map_err(|_| Trouble::Unwanted)?;
        let began = Instant::now();
        let fetched = self.fetcher.fetch_pinned(object, run).await;
        pace.learn(began.elapsed(), fetched.is_ok());
        let fetched = fetched?;
        let cache = Arc::clone(&self.cache);
        let written = self.runtime.spawn_blocking(move || {
            let mut blocks = fetched.iter();
            blocks.try_for_each(|(index, bytes)| cache.write_pinned(shape, *index, bytes))
        });
        match written.await {
            Ok(Ok(())) => {
                add(&self.pins.written, bytes);
                Ok(())
            }
            Ok(Err(NotKept::Unpinned)) | Err(_) => Err(Trouble::Unwanted),
            Ok(Err(why)) => Err(Trouble::Room(why)),
        }
    }
}

/// Takes the next blocks that are neighbours.
fn next_run(missing: &mut VecDeque<u64>, blocks_max: u64) -> Option<Range<u64>> {
    let first = missing.pop_front()?;
    let mut end = first + 1;
    while end - first < blocks_max && missing.front() == Some(&end) {
        missing.pop_front();
        end += 1;
    }
    Some(first..end)
}

fn words(why: NotKept) -> &'static str {
    match why {
        NotKept::Limit => "the limit for what is pinned is reached (cache.pinned_bytes)",
        NotKept::DiskFull => "the disk of the cache is nearly full; make room there",
        NotKept::Failing | NotKept::Unpinned => "the disk cache cannot be written; the log tells why",
    }
}

/// How long requests to one source may be: on a slow line a long one would keep readers waiting, or miss its deadline.
struct Pace {
    deadline: Duration,
    /// Parts of the longest request, as a power of two.
    halvings: AtomicU64,
}

impl Pace {
    fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            halvings: AtomicU64::new(2),
        }
    }

    fn blocks(&self, object: &Object) -> u64 {
        (object.run_max >> self.halvings.load(Ordering::Relaxed)).max(1)
    }

    fn learn(&self, took: Duration, well: bool) {
        let now = self.halvings.load(Ordering::Relaxed);
        let next = if !well || took > self.deadline / SLOW_PART {
            (now + 1).min(16)
        } else if took < self.deadline / QUICK_PART {
            now.saturating_sub(1)
        } else {
            now
        };
        self.halvings.store(next, Ordering::Relaxed);
    }
}
