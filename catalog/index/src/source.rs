//! One connected source: who may ask it next, and what is noted of its answers.
//!
//! Two semaphores share out what the source likes at once: the larger part is for directories that somebody waits
//! for, the smaller for the background scan, which also holds still for a moment while anybody waits, and then goes on one
//! directory at a time. Reads of files count as somebody who waits; how they are made is in [`ask`]. Whether the source can
//! be asked at all is the breaker's to say ([`breaker`]). What all of this shows of the source goes to its [`Monitor`].

mod ask;
mod breaker;
mod hedge;
mod upload;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_backends::Backend;
use manifold_catalog::{EntryId, SourceId};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::health::{Counted, Monitor, RequestKind, Sign};
use crate::skip::Skip;
use crate::{IndexError, IndexSettings, SourceOptions};

pub(crate) use breaker::Returns;

use breaker::Phase;
use hedge::Budget;

/// How long a request waits for what a probe finds that is due at once.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) monitor: Arc<Monitor>,
    /// Ends everything that is done for this source.
    pub(crate) cancel: CancellationToken,
    /// What is kept out of the library.
    pub(crate) skip: Skip,
    /// How many directories the scan may list at once.
    pub(crate) scan_share: usize,
    foreground: Semaphore,
    background: Semaphore,
    /// For the one directory that the scan lists while somebody waits.
    beside_waiters: Semaphore,
    uploads: Semaphore,
    waited_for: watch::Sender<usize>,
    phase: watch::Sender<Phase>,
    /// Counts the times that the source has turned out to be well.
    returns: watch::Sender<Returns>,
    /// Counts the times that the source was asked whether it is there.
    verdicts: watch::Sender<u64>,
    /// Brings the next probe forward.
    probe_sooner: Notify,
    /// Makes the next probe now.
    probe_now: Notify,
    hedges: Budget,
    /// How many directories the scan may begin to list in a second; 0: as many as it can.
    scan_rate: u32,
    /// When it may begin with the next.
    next_listing: Mutex<Instant>,
    /// The scan that is running, by its generation; 0 if none.
    generation: AtomicU64,
    /// Directories that failed in front of somebody while the scan had them queued, and which it is to try again.
    scan_retries: Mutex<Vec<EntryId>>,
    /// Differs from process to process, so that several do not come back in step.
    seed: u64,
    retry_pause: Duration,
    retry_pause_max: Duration,
    check_timeout: Duration,
    yield_max: Duration,
}

/// Counts somebody who waits for the source, or has it work for him.
struct InFront<'a>(&'a watch::Sender<usize>);

impl<'a> InFront<'a> {
    fn count(waited_for: &'a watch::Sender<usize>) -> Self {
        waited_for.send_modify(|count| *count += 1);
        Self(waited_for)
    }
}

impl Drop for InFront<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The right to ask the source for something that somebody waits for.
pub(crate) struct ForegroundTurn<'a> {
    _in_front: InFront<'a>,
    _permit: SemaphorePermit<'a>,
    _in_flight: Counted<'a>,
}

/// The right to list one directory for the scan.
pub(crate) struct BackgroundTurn<'a> {
    _permit: SemaphorePermit<'a>,
    _beside_waiters: Option<SemaphorePermit<'a>>,
    _in_flight: Counted<'a>,
}

impl Source {
    pub(crate) fn new(
        id: SourceId,
        backend: Arc<dyn Backend>,
        monitor: Arc<Monitor>,
        settings: &IndexSettings,
        options: SourceOptions,
        cancel: CancellationToken,
    ) -> Self {
        let likes = backend.capabilities().concurrency.max(1) as usize;
        let skip = Skip::new(&*backend, &settings.skip_paths);
        let scan_share = settings.scan_concurrency.min(likes / 2).max(1);
        Self {
            id,
            backend,
            monitor,
            cancel,
            skip,
            scan_share,
            foreground: Semaphore::new(likes.saturating_sub(scan_share).max(1)),
            background: Semaphore::new(scan_share),
            beside_waiters: Semaphore::new(1),
            uploads: Semaphore::new((likes / 2).max(1)),
            waited_for: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Well),
            returns: watch::Sender::default(),
            verdicts: watch::Sender::new(0),
            probe_sooner: Notify::new(),
            probe_now: Notify::new(),
            hedges: Budget::default(),
            scan_rate: options.scan_rate.unwrap_or(settings.scan_rate),
            next_listing: Mutex::new(Instant::now()),
            generation: AtomicU64::new(0),
            scan_retries: Mutex::new(Vec::new()),
            seed: RandomState::new().build_hasher().finish(),
            retry_pause: settings.retry_pause,
            retry_pause_max: settings.retry_pause_max,
            check_timeout: settings.stat_timeout / 2,
            yield_max: settings.yield_max,
        }
    }

    /// Waits for a turn ahead of the scan. Fails at once while the source is away, but for one try now and then; where it
    /// has asked to be left alone for less than a deadline, that is waited for.
    pub(crate) async fn foreground_turn(&self) -> Result<ForegroundTurn<'_>, IndexError> {
        let queued = self.monitor.queued();
        self.leave_alone(self.check_timeout).await;
        self.admit(self.retry_pause)?;
        let in_front = InFront::count(&self.waited_for);
        let permit = self.foreground.acquire().await.map_err(|_| IndexError::Stopped)?;
        drop(queued);
        Ok(ForegroundTurn {
            _in_front: in_front,
            _permit: permit,
            _in_flight: self.monitor.in_flight(),
        })
    }

    /// Waits until the source is well, nobody is waiting in front, and the scan's share allows one more. Those who read
    /// without a pause are waited for only so long; then the scan goes on beside them, one directory at a time.
    pub(crate) async fn background_turn(&self) -> Result<BackgroundTurn<'_>, IndexError> {
        self.pace().await;
        loop {
            self.until_well().await;
            let permit = self.background.acquire().await.map_err(|_| IndexError::Stopped)?;
            let beside_waiters = if self.is_waited_for() {
                let one = self.beside_waiters.acquire().await.map_err(|_| IndexError::Stopped)?;
                let mut waited_for = self.waited_for.subscribe();
                let nobody = timeout(self.yield_max, waited_for.wait_for(|count| *count == 0)).await;
                nobody.is_err().then_some(one)
            } else {
                None
            };
            if self.away().is_none() {
                return Ok(BackgroundTurn {
                    _permit: permit,
                    _beside_waiters: beside_waiters,
                    _in_flight: self.monitor.in_flight(),
                });
            }
        }
    }

    /// Tells whether the source is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.backend.as_local().is_some()
    }

    /// Tells whether the scan is held to a rate.
    pub(crate) fn is_paced(&self) -> bool {
        self.scan_rate > 0
    }

    /// Waits for the scan's next turn by its rate.
    async fn pace(&self) {
        if !self.is_paced() {
            return;
        }
        let due = {
            let mut next = self.next_listing.lock();
            let due = (*next).max(Instant::now());
            *next = due + Duration::from_secs(1) / self.scan_rate;
            due
        };
        sleep_until(due).await;
    }

    fn is_waited_for(&self) -> bool {
        *self.waited_for.borrow() > 0
    }

    /// Notes how long an answer took that began to be waited for at `since`.
    pub(crate) fn answered_in(&self, kind: RequestKind, since: Instant) {
        self.tell(Sign::Answered(kind, since.elapsed()));
    }

    /// Tells the monitor, unless another connection speaks for the source by now.
    fn tell(&self, sign: Sign) {
        if !self.cancel.is_cancelled() {
            self.monitor.take(sign);
        }
    }

    /// The generation of the running scan; 0 if none.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says which scan is running.
    pub(crate) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Asks the running scan to try a directory again: the catalog has passed it over because of a failure in front.
    pub(crate) fn scan_again(&self, directory: EntryId) {
        if self.generation() != 0 {
            self.scan_retries.lock().push(directory);
        }
    }

    /// Takes what [`scan_again`](Self::scan_again) has gathered.
    pub(crate) fn take_scan_retries(&self) -> Vec<EntryId> {
        std::mem::take(&mut self.scan_retries.lock())
    }

    /// Spreads a pause by chance over its upper half, so that many do not come back at once.
    pub(crate) fn pause(&self, attempt: u32, salt: u64) -> Duration {
        let full = self
            .retry_pause
            .saturating_mul(1 << attempt.min(16))
            .min(self.retry_pause_max);
        let percent = 50 + (mix((self.seed ^ salt).wrapping_add(u64::from(attempt))) % 51) as u32;
        full * percent / 100
    }
}

/// `SplitMix64`'s finaliser: spreads neighbouring numbers over the whole range.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
