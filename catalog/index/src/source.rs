//! One connected source: who may ask it next, and whether it can be asked at all.
//!
//! Two semaphores share out what the source likes at once: the larger part is for directories that somebody waits
//! for, the smaller for the background scan, which also holds still for a moment while anybody waits.
//!
//! A failure that speaks of the whole source makes it *suspect*, and one probe finds out. If that fails too, it is *away*:
//! the scan pauses, listings fail at once but for one try each `retry_pause`, and the probe is repeated, ever more
//! seldom, until it or a listing succeeds. One directory that fails on a source that is well makes nothing else wait.
//!
//! Requests for data are counted in too. One that gets no answer for a while makes the source suspect before its deadline
//! is over, so that whoever asks next is not made to wait a deadline of his own: the kernel lets the readers of one page
//! ask one after another. While the source is away they are refused at once, but bring the next probe forward.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_backends::{Backend, ErrorKind, ObjectPath};
use manifold_catalog::{EntryId, SourceId};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::skip::Skip;
use crate::{IndexError, IndexSettings};

/// The part of its deadline that a request for data goes without an answer before its source is suspect. The probe that
/// follows must be over before the deadline is.
const SILENT_PARTS: u32 = 4;
/// How long a request for data waits for the probe that it has brought forward.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) backend: Arc<dyn Backend>,
    /// Ends everything that is done for this source.
    pub(crate) cancel: CancellationToken,
    /// What is kept out of the library.
    pub(crate) skip: Skip,
    /// How many directories the scan may list at once.
    pub(crate) scan_share: usize,
    foreground: Semaphore,
    background: Semaphore,
    waited_for: watch::Sender<usize>,
    health: watch::Sender<Health>,
    /// Brings the next probe forward.
    probe_sooner: Notify,
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

#[derive(Clone, Debug)]
enum Health {
    Well,
    Suspect,
    Away { cause: Arc<IndexError>, next_try: Instant },
}

/// Counts somebody who waits for a listing, or has it done.
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
}

impl Source {
    pub(crate) fn new(
        id: SourceId,
        backend: Arc<dyn Backend>,
        settings: &IndexSettings,
        cancel: CancellationToken,
    ) -> Self {
        let likes = backend.capabilities().concurrency.max(1) as usize;
        let skip = Skip::new(&*backend, &settings.skip_paths);
        let scan_share = settings.scan_concurrency.min(likes / 2).max(1);
        Self {
            id,
            backend,
            cancel,
            skip,
            scan_share,
            foreground: Semaphore::new(likes.saturating_sub(scan_share).max(1)),
            background: Semaphore::new(scan_share),
            waited_for: watch::Sender::new(0),
            health: watch::Sender::new(Health::Well),
            probe_sooner: Notify::new(),
            generation: AtomicU64::new(0),
            scan_retries: Mutex::new(Vec::new()),
            seed: RandomState::new().build_hasher().finish(),
            retry_pause: settings.retry_pause,
            retry_pause_max: settings.retry_pause_max,
            check_timeout: settings.stat_timeout / 2,
            yield_max: settings.yield_max,
        }
    }

    /// Waits for a turn ahead of the scan. Fails at once while the source is away, but for one try now and then.
    pub(crate) async fn foreground_turn(&self) -> Result<ForegroundTurn<'_>, IndexError> {
        self.admit(self.retry_pause)?;
        let in_front = InFront::count(&self.waited_for);
        let permit = self.foreground.acquire().await.map_err(|_| IndexError::Stopped)?;
        Ok(ForegroundTurn {
            _in_front: in_front,
            _permit: permit,
        })
    }

    /// Makes a request for data, within `deadline`. Refused at once while the source is away; one now and then brings the
    /// probe forward, and waits a moment for what it finds.
    pub(crate) async fn ask<T>(
        self: &Arc<Self>,
        path: &ObjectPath,
        deadline: Duration,
        request: impl Future<Output = manifold_backends::Result<T>>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<T, IndexError> {
        self.admit(self.check_timeout)?;
        if self.away().is_some() {
            self.probe_sooner.notify_one();
            // Whether it came back in time is seen below.
            let _in_time = timeout(PROBE_PATIENCE.min(deadline), self.until_well()).await;
            if let Some(cause) = self.away() {
                return Err(self.refusal(cause));
            }
        }
        let silence = |after| IndexError::TimedOut {
            source_name: self.backend.name().to_owned(),
            path: path.to_string(),
            after,
        };
        let mut request = std::pin::pin!(request);
        let soon = deadline / SILENT_PARTS;
        let mut answer = timeout(soon, &mut request).await;
        if answer.is_err() {
            self.failed(&silence(soon), runtime);
            answer = timeout(deadline.saturating_sub(soon), &mut request).await;
        }
        let result = answer
            .map_err(|_| silence(deadline))
            .and_then(|it| it.map_err(IndexError::from));
        match &result {
            Ok(_) => self.answered(),
            Err(error) => self.failed(error, runtime),
        }
        result
    }

    /// Waits until the source is well, nobody is waiting in front, and the scan's share allows one more.
    pub(crate) async fn background_turn(&self) -> Result<SemaphorePermit<'_>, IndexError> {
        loop {
            self.until_well().await;
            let permit = self.background.acquire().await.map_err(|_| IndexError::Stopped)?;
            let mut waited_for = self.waited_for.subscribe();
            // Bounded, so that one listing that hangs in front does not hold up the scan; either end is as good.
            let _nobody_or_long_enough = timeout(self.yield_max, waited_for.wait_for(|count| *count == 0)).await;
            if self.away().is_none() {
                return Ok(permit);
            }
        }
    }

    /// Gives the failure that showed the source to be away, while it is.
    pub(crate) fn away(&self) -> Option<Arc<IndexError>> {
        match &*self.health.borrow() {
            Health::Well | Health::Suspect => None,
            Health::Away { cause, .. } => Some(Arc::clone(cause)),
        }
    }

    /// Waits until the source is not away.
    pub(crate) async fn until_well(&self) {
        self.until(|health| !matches!(health, Health::Away { .. })).await;
    }

    /// Waits until it is known whether a failure spoke of the whole source. Gives true if the source is away.
    pub(crate) async fn verdict_is_away(&self) -> bool {
        self.until(|health| !matches!(health, Health::Suspect)).await;
        self.away().is_some()
    }

    async fn until(&self, holds: impl FnMut(&Health) -> bool) {
        let mut health = self.health.subscribe();
        // The sender lives as long as `self`, so the wait ends only with the condition.
        let _holds = health.wait_for(holds).await;
    }

    /// Takes note that the source has answered.
    pub(crate) fn answered(&self) {
        self.health.send_if_modified(|health| {
            if matches!(health, Health::Away { .. }) {
                tracing::info!(source = self.backend.name(), "the source is back");
            }
            !matches!(std::mem::replace(health, Health::Well), Health::Well)
        });
    }

    /// Takes note of a failure: if it speaks of the whole source, one task finds out, and waits for it to come back.
    pub(crate) fn failed(self: &Arc<Self>, error: &IndexError, runtime: &tokio::runtime::Handle) {
        let first_sign = error.is_about_source()
            && self.health.send_if_modified(|health| {
                let was_well = matches!(health, Health::Well);
                if was_well {
                    *health = Health::Suspect;
                }
                was_well
            });
        if !first_sign {
            return;
        }
        let source = Arc::clone(self);
        runtime.spawn(async move {
            let cancel = source.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => source.answered(), // Lets go whoever waits for the verdict.
                () = source.probe_until_well() => {}
            }
        });
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

    /// Refuses while the source is away, but for one try, after which the next is `pause` away.
    fn admit(&self, pause: Duration) -> Result<(), IndexError> {
        let mut refused = None;
        self.health.send_if_modified(|health| {
            if let Health::Away { cause, next_try } = health {
                if Instant::now() < *next_try {
                    refused = Some(Arc::clone(cause));
                } else {
                    *next_try = Instant::now() + pause;
                }
            }
            false
        });
        refused.map_or(Ok(()), |cause| Err(self.refusal(cause)))
    }

    fn refusal(&self, cause: Arc<IndexError>) -> IndexError {
        IndexError::Away {
            source_name: self.backend.name().to_owned(),
            cause,
        }
    }

    async fn probe_until_well(&self) {
        let mut attempt = 0;
        loop {
            let cause = match timeout(self.check_timeout, self.backend.check()).await {
                Ok(Ok(())) => return self.answered(),
                Ok(Err(error)) => IndexError::from(error),
                Err(_) => IndexError::TimedOut {
                    source_name: self.backend.name().to_owned(),
                    path: "/".to_owned(),
                    after: self.check_timeout,
                },
            };
            // Credentials do not mend themselves, and some services lock an account that tries too often.
            let may_be_sooner = cause.kind() != Some(ErrorKind::CredentialsRefused);
            if !may_be_sooner {
                attempt = attempt.max(16);
            }
            let cause = Arc::new(cause);
            let still_failing = self.health.send_if_modified(|health| {
                if matches!(health, Health::Suspect) {
                    tracing::warn!(source = self.backend.name(), %cause, "the source is away");
                }
                let somebody_got_through = matches!(health, Health::Well);
                if !somebody_got_through {
                    *health = Health::Away {
                        cause,
                        next_try: Instant::now() + self.retry_pause,
                    };
                }
                !somebody_got_through
            });
            if !still_failing {
                return;
            }
            let sooner = async {
                sleep(self.retry_pause).await;
                self.probe_sooner.notified().await;
            };
            tokio::select! {
                () = sleep(self.pause(attempt, u64::from(self.id.0))) => {}
                () = sooner, if may_be_sooner => {}
                () = self.until_well() => return,
            }
            attempt = attempt.saturating_add(1);
        }
    }
}

/// `SplitMix64`'s finaliser: spreads neighbouring numbers over the whole range.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
