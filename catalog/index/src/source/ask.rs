//! Requests for data: with a deadline, a second request for what is late, and an eye on the source's health.
//!
//! One that gets no answer for a while makes the source suspect before its deadline is over, so that whoever asks next is
//! not made to wait a deadline of his own: the kernel lets the readers of one page ask one after another. While the source
//! is away they are refused at once, but bring the next probe forward. One that has waited for its whole deadline is told what the
//! probe was: of a source that refuses slowly, that it cannot be reached.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use manifold_backends::ObjectPath;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{InFront, PROBE_PATIENCE, Source};
use crate::IndexError;
use crate::health::RequestKind;

/// The part of its deadline that a request for data goes without an answer before its source is suspect. The probe that
/// follows must be over before the deadline is.
const SILENT_PARTS: u32 = 4;

impl Source {
    /// Makes a request for data, within `deadline`. Refused at once while the source is away; one now and then brings the
    /// probe forward, and waits a moment for what it finds. `request` is called for the first request and, where
    /// that is late, for a second.
    pub(crate) async fn ask<T, R>(
        self: &Arc<Self>,
        path: &ObjectPath,
        kind: RequestKind,
        deadline: Duration,
        request: impl FnMut() -> Option<R>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<T, IndexError>
    where
        R: Future<Output = manifold_backends::Result<T>>,
    {
        let due = Instant::now() + deadline;
        let queued = self.monitor.queued();
        self.leave_alone(deadline).await;
        self.admit(self.check_timeout)?;
        if self.away().is_some() {
            self.probe_sooner.notify_one();
            // Whether it came back in time is seen below.
            let until = due.min(Instant::now() + PROBE_PATIENCE);
            let _in_time = timeout_at(until, self.until_well()).await;
            if let Some(cause) = self.away() {
                return Err(self.refusal(cause));
            }
        }
        drop(queued);
        let _in_front = InFront::count(&self.waited_for);
        let _in_flight = self.monitor.in_flight();
        self.hedges.earn();
        let under_way = self.monitor.asks(kind);
        let result = self.race(path, kind, due, deadline, request, runtime).await;
        under_way.end(&result);
        match &result {
            Ok(_) => self.answered(),
            Err(error) => self.failed(error, runtime),
        }
        result
    }

    /// Waits for the first of one or two requests.
    async fn race<T, R>(
        self: &Arc<Self>,
        path: &ObjectPath,
        kind: RequestKind,
        due: Instant,
        deadline: Duration,
        mut request: impl FnMut() -> Option<R>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<T, IndexError>
    where
        R: Future<Output = manifold_backends::Result<T>>,
    {
        let silence = |after| IndexError::TimedOut {
            source_name: self.backend.name().to_owned(),
            path: path.to_string(),
            after,
        };
        let began = Instant::now();
        let soon = deadline / SILENT_PARTS;
        let mut late = self.late_after(kind).map(|after| began + after);
        let mut suspicious = Some(began + soon);
        let mut first = pin!(OptionFuture::from(request()));
        let mut second = pin!(OptionFuture::from(None));
        let mut failed = None;
        let (mut first_runs, mut second_runs) = (true, false);
        loop {
            let (answer, by_second) = tokio::select! {
                biased;
                Some(answer) = &mut first, if first_runs => (answer, false),
                Some(answer) = &mut second, if second_runs => (answer, true),
                () = sleep_until(late.unwrap_or(due)), if late.is_some() => {
                    late = None;
                    if self.may_hedge() && let Some(again) = request() {
                        self.monitor.hedged();
                        second.set(OptionFuture::from(Some(again)));
                        second_runs = true;
                    }
                    continue;
                }
                () = sleep_until(suspicious.unwrap_or(due)), if suspicious.is_some() => {
                    suspicious = None;
                    self.failed(&silence(soon), runtime);
                    continue;
                }
                () = sleep_until(due) => {
                    let told = failed.or_else(|| self.out_of_reach());
                    return Err(told.unwrap_or_else(|| silence(deadline)));
                }
            };
            late = None;
            if by_second {
                second_runs = false;
            } else {
                first_runs = false;
            }
            match answer {
                Ok(value) => {
                    if by_second && first_runs {
                        self.monitor.hedge_won();
                    }
                    self.answered_in(kind, began);
                    return Ok(value);
                }
                // The other may do better.
                Err(error) => failed = Some(IndexError::from(error)),
            }
            if !first_runs
                && !second_runs
                && let Some(error) = failed.take()
            {
                return Err(error);
            }
        }
    }
}
