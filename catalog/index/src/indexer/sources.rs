//! The indexer's sources: connected, let go, and asked how they are.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::Backend;
use manifold_catalog::SourceId;
use tokio::sync::broadcast;

use super::Indexer;
use crate::health::{Event, HealthState, Monitor, Problem, Sign, SourceHealth};
use crate::source::Source;
use crate::{IndexError, ScanHold, SourceOptions};

impl Indexer {
    /// Names a source that is to be connected, so that it is known how it is from then on.
    pub fn introduce(&self, id: SourceId, name: &str) {
        self.monitor(id, name);
    }

    /// Announces a source that will be attached soon: until then, or until [`expect_no_more`](Self::expect_no_more), what
    /// is asked of it waits instead of being refused.
    pub fn expect(&self, id: SourceId) {
        if !self.sources.read().contains_key(&id) {
            self.expected.begin(id);
        }
    }

    /// Takes an announcement back: the source could not be connected for now.
    pub fn expect_no_more(&self, id: SourceId) {
        self.expected.end(id);
    }

    /// Tells whether a source is announced and not attached yet.
    pub fn is_expected(&self, id: SourceId) -> bool {
        self.expected.contains(id)
    }

    /// Waits for a source that is announced. Put a deadline around it.
    pub async fn until_connected(&self, id: SourceId) {
        self.expected.until_over(id).await;
    }

    /// Takes note that a source could not be connected, and when that is tried again. Takes its announcement back.
    pub fn not_connected(&self, id: SourceId, name: &str, problem: Problem, next_try: Duration) {
        self.monitor(id, name).away(problem, Some(next_try));
        self.expect_no_more(id);
    }

    /// Says why a source is not connected, as far as that is known.
    pub fn why_not_connected(&self, id: SourceId) -> IndexError {
        let problem = self.health(id).and_then(|health| health.problem);
        match problem.filter(|problem| problem.refused) {
            Some(problem) => IndexError::NoCredentials {
                source_id: id.0,
                why: problem.message,
            },
            None => IndexError::NotConnected(id.0),
        }
    }

    /// Connects a source of the catalog. A scan of it that was cut short goes on where it stood; the first scan is
    /// begun by [`scan`](Self::scan). A backend that was there before is let go, but what was learnt of the source is kept.
    pub fn attach(self: &Arc<Self>, id: SourceId, backend: Arc<dyn Backend>) {
        self.attach_with(id, backend, SourceOptions::default());
    }

    /// Connects a source as [`attach`](Self::attach) does, with options of its own.
    pub fn attach_with(self: &Arc<Self>, id: SourceId, backend: Arc<dyn Backend>, options: SourceOptions) {
        let monitor = self.monitor(id, backend.name());
        let cancel = self.cancel.child_token();
        let source = Arc::new(Source::new(
            id,
            backend,
            Arc::clone(&monitor),
            &self.settings,
            options,
            cancel,
        ));
        if self.settings.keep_fresh {
            // Before the first listing, which has its directory watched.
            self.follow(&source);
            self.scan_now_and_then(&source);
            self.list_failed_when_back(&source);
            self.list_what_was_lost(&source);
        }
        if let Some(before) = self.sources.write().insert(id, source) {
            before.cancel.cancel();
        }
        monitor.take(Sign::Connecting);
        self.expected.end(id);
        match self.catalog.scan_state(id) {
            Ok(Some(state)) if state.finished_ns.is_none() => {
                self.scan(id);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(source = id.0, %error, "cannot tell whether a scan is to go on"),
        }
    }

    /// Lets a source go: what is under way for it ends, and its scan stands still until it is attached again.
    pub fn detach(&self, id: SourceId) {
        if let Some(source) = self.sources.write().remove(&id) {
            source.cancel.cancel();
        }
        self.monitors.write().remove(&id);
        self.watches.write().remove(&id);
        self.expected.end(id);
    }

    /// Gives the backend of an attached source.
    pub fn backend(&self, id: SourceId) -> Option<Arc<dyn Backend>> {
        self.sources.read().get(&id).map(|source| Arc::clone(&source.backend))
    }

    /// Says how a source is; `None` for one that was never named here.
    pub fn health(&self, id: SourceId) -> Option<SourceHealth> {
        let monitor = self.monitors.read().get(&id).map(Arc::clone);
        monitor.map(|monitor| monitor.health())
    }

    /// Delivers what happens from now on. A subscriber that falls too far behind is told how many events it has missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Asks a source whether it is there, and waits until that is known; wrap it in a deadline. A source that is away is asked
    /// at once, unless it has asked to be left alone.
    pub async fn probe(&self, id: SourceId) {
        let source = self.sources.read().get(&id).map(Arc::clone);
        if let Some(source) = source {
            source.probe(&self.runtime).await;
        }
    }

    /// Asks those sources of which nothing was heard for `age_max`, and waits until each has answered or is known to be
    /// away; wrap it in a deadline. One that has refused our credentials is not asked: each time may count against the
    /// account.
    pub async fn probe_all(&self, age_max: Duration) {
        let due: Vec<_> = self.attached();
        let due = due
            .into_iter()
            .filter(|source| source.monitor.state() != HealthState::Refused && !source.monitor.is_fresh(age_max));
        let probes = due.map(|source| async move { source.probe(&self.runtime).await });
        futures::future::join_all(probes).await;
    }

    /// Has background scans wait, or go on. Directories that somebody opens are listed all the same.
    pub fn hold_scans(&self, hold: ScanHold) {
        self.hold.send_if_modified(|now| std::mem::replace(now, hold) != hold);
    }

    /// Says why a running scan stands still, if it does.
    pub fn scan_paused(&self, id: SourceId) -> Option<String> {
        let running = self.scans.lock().get(&id).map(Arc::clone)?;
        self.why_paused(running.source()?)
    }

    pub(crate) fn why_paused(&self, source: &Source) -> Option<String> {
        let held = self.hold.borrow().reason(source.is_local());
        held.map(str::to_owned)
            .or_else(|| source.away().map(|cause| cause.to_string()))
    }

    /// Waits until scans of this source are not held.
    pub(crate) async fn until_not_held(&self, source: &Source) {
        let (mut hold, is_local) = (self.hold.subscribe(), source.is_local());
        // The sender lives as long as `self`, so the wait ends only with the condition.
        let _holds = hold.wait_for(|hold| hold.reason(is_local).is_none()).await;
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _heard_or_not = self.events.send(event);
    }

    fn monitor(&self, id: SourceId, name: &str) -> Arc<Monitor> {
        let mut monitors = self.monitors.write();
        let monitor = monitors.entry(id).or_insert_with(|| {
            let (clock, events) = (Arc::clone(&self.clock), self.events.clone());
            Arc::new(Monitor::new(id, name, clock, events))
        });
        Arc::clone(monitor)
    }
}
