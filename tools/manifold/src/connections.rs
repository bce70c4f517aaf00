//! The connections to the sources: made in the background, tried again while they fail, and asked how they are.
//!
//! Always true: a source that cannot be connected costs nobody anything but its own files' bytes; its tree stays as last
//! known. No secret is in any message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Backend, Limits, Place, SecretStore, Secrets, SourceSpec, connect, diagnose, secrets};
use manifold_catalog::{SourceId, SourceRecord};
use manifold_index::Indexer;
use manifold_vfs::Vfs;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::failure::{Failure, Result};
use crate::settings::Settings;
use crate::time::now_ns;

/// The pause before the second try; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long a source may take to say how it is, when somebody waits for the answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// A word about a source counts as true for that long.
const LOOK_AGE_MAX: Duration = Duration::from_secs(5);
/// A remote source whose last scan ended longer ago than this is scanned again when it is connected. What is opened in the
/// meantime is refreshed all the same.
const SCAN_AGE_MAX: Duration = Duration::from_hours(24);

/// How a source is.
#[derive(Clone, Debug)]
pub(crate) enum Health {
    /// Nobody has had an answer yet.
    Connecting,
    /// It answered.
    Well,
    /// It did not, or not us.
    Failing {
        /// What is wrong, and what to do.
        failure: Failure,
        /// Since when, in nanoseconds since 1970 UTC.
        since_ns: i64,
    },
}

/// The connections of a library's sources.
#[derive(Debug)]
pub(crate) struct Connections {
    indexer: Arc<Indexer>,
    vfs: Arc<Vfs>,
    store: Arc<SecretStore>,
    limits: Limits,
    data_deadline: Duration,
    sources: Mutex<BTreeMap<SourceId, Connection>>,
}

#[derive(Debug)]
struct Connection {
    name: String,
    health: Health,
    looked: Option<Instant>,
    /// Ends the pause between two tries.
    hurry: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Connections {
    /// Takes what connecting needs. Nothing is connected yet.
    pub(crate) fn new(indexer: Arc<Indexer>, vfs: Arc<Vfs>, store: SecretStore, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            indexer,
            vfs,
            store: Arc::new(store),
            limits: limits(settings),
            data_deadline: settings.deadlines.data,
            sources: Mutex::default(),
        })
    }

    /// Keeps a source connected from now on, trying for as long as it takes, and has it scanned. One that is kept already
    /// stays as it is.
    pub(crate) fn keep(self: &Arc<Self>, record: &SourceRecord) {
        let mut sources = self.sources.lock();
        if sources.contains_key(&record.id) {
            return;
        }
        let hurry = Arc::new(Notify::new());
        // Whoever looks into the mount before the first try is over waits for that, and is not told that it cannot be
        // reached. The mount itself waits for nobody.
        self.indexer.expect(record.id);
        let task = tokio::spawn(Arc::clone(self).connect_for_good(record.clone(), Arc::clone(&hurry)));
        let connection = Connection {
            name: record.name.clone(),
            health: Health::Connecting,
            looked: None,
            hurry,
            task: Some(task),
        };
        sources.insert(record.id, connection);
    }

    /// Connects a source once, for a command that needs it now.
    pub(crate) async fn connect_now(&self, record: &SourceRecord) -> Result<Arc<dyn Backend>> {
        if let Some(backend) = self.indexer.backend(record.id) {
            return Ok(backend);
        }
        let (spec, backend) = self.build(record).await?;
        self.attach(record.id, &spec, Arc::clone(&backend));
        Ok(backend)
    }

    /// Lets a source go.
    pub(crate) fn let_go(&self, id: SourceId) {
        if let Some(Connection { task: Some(task), .. }) = self.sources.lock().remove(&id) {
            task.abort();
        }
        self.indexer.detach(id);
    }

    /// Ends all trying.
    pub(crate) fn stop(&self) {
        for (id, connection) in &mut *self.sources.lock() {
            self.indexer.expect_no_more(*id);
            if let Some(task) = connection.task.take() {
                task.abort();
            }
        }
    }

    /// Ends the pause between two tries, for one source or for all.
    pub(crate) fn hurry(&self, id: Option<SourceId>) {
        for (other, connection) in &*self.sources.lock() {
            if id.is_none_or(|id| id == *other) {
                connection.hurry.notify_one();
            }
        }
    }

    /// Says how a source was when it was last looked at; `None` where nobody keeps it connected.
    pub(crate) fn health(&self, id: SourceId) -> Option<Health> {
        self.sources.lock().get(&id).map(|connection| connection.health.clone())
    }

    /// Asks all sources how they are, at once, and waits for those that answer soon.
    pub(crate) async fn look_at_all(&self) {
        let due: Vec<_> = {
            let sources = self.sources.lock();
            let due = sources
                .iter()
                .filter(|(_, it)| it.looked.is_none_or(|at| at.elapsed() > LOOK_AGE_MAX));
            due.filter_map(|(id, _)| Some((*id, self.indexer.backend(*id)?)))
                .collect()
        };
        let looks = due.into_iter().map(|(id, backend)| async move {
            self.note(id, look(backend.as_ref(), LOOK_PATIENCE).await);
        });
        futures::future::join_all(looks).await;
    }

    /// Forgets the secrets of a source.
    pub(crate) async fn forget_secrets(&self, source_name: &str) -> Result<()> {
        let (store, name) = (Arc::clone(&self.store), source_name.to_owned());
        blocking(move || Ok(store.remove(&name)?)).await
    }

    async fn connect_for_good(self: Arc<Self>, record: SourceRecord, hurry: Arc<Notify>) {
        let mut pause = PAUSE_FIRST;
        let mut attached = None;
        loop {
            if attached.is_none() {
                match self.build(&record).await {
                    Ok((spec, backend)) => {
                        self.attach(record.id, &spec, Arc::clone(&backend));
                        self.scan_where_due(&record, &*backend);
                        attached = Some(backend);
                    }
                    Err(failure) => self.note(record.id, Err(failure)),
                }
                self.indexer.expect_no_more(record.id);
            }
            if let Some(backend) = &attached {
                let outcome = look(&**backend, self.data_deadline).await;
                let well = outcome.is_ok();
                self.note(record.id, outcome);
                if well {
                    return;
                }
            }
            let _woken_or_over = timeout(pause, hurry.notified()).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Builds the backend of a source, with its secrets.
    async fn build(&self, record: &SourceRecord) -> Result<(SourceSpec, Arc<dyn Backend>)> {
        let spec = parse_spec(record)?;
        let store = Arc::clone(&self.store);
        let asked = spec.clone();
        let secrets = blocking(move || resolve(&asked, &store)).await?;
        let backend = build(&spec, &secrets, &self.limits).await?;
        Ok((spec, backend))
    }

    fn attach(&self, id: SourceId, spec: &SourceSpec, backend: Arc<dyn Backend>) {
        self.vfs.set_refresh(id, spec.refresh());
        self.indexer.attach(id, backend);
        // What is pinned of it can be told, and fetched, from now on.
        self.vfs.pins_changed();
    }

    /// Begins a scan of a source that was not scanned for a while; one that was cut short goes on by itself.
    fn scan_where_due(&self, record: &SourceRecord, backend: &dyn Backend) {
        let now_ns = now_ns();
        let age_max_ns = i64::try_from(SCAN_AGE_MAX.as_nanos()).unwrap_or(i64::MAX);
        let progress = self.indexer.progress();
        let last = progress
            .iter()
            .find(|it| it.source == record.id)
            .and_then(|it| it.finished_ns);
        let fresh = last.is_some_and(|finished_ns| now_ns.saturating_sub(finished_ns) < age_max_ns);
        if !fresh || backend.as_local().is_some() {
            self.indexer.scan(record.id);
        }
    }

    fn note(&self, id: SourceId, outcome: Result<()>) {
        let mut sources = self.sources.lock();
        let Some(connection) = sources.get_mut(&id) else { return };
        connection.looked = Some(Instant::now());
        let before = std::mem::replace(&mut connection.health, Health::Well);
        match (outcome, before) {
            (Ok(()), Health::Failing { .. }) => tracing::info!(source = connection.name, "the source is back"),
            (Ok(()), _) => {}
            (Err(failure), Health::Failing { since_ns, .. }) => {
                connection.health = Health::Failing { failure, since_ns }
            }
            (Err(failure), _) => {
                tracing::info!(source = connection.name, "offline: {}", failure.message());
                connection.health = Health::Failing {
                    failure,
                    since_ns: now_ns(),
                };
            }
        }
    }
}

/// Reads what a source is from its record.
pub(crate) fn parse_spec(record: &SourceRecord) -> Result<SourceSpec> {
    serde_json::from_str(&record.spec).map_err(|error| {
        Failure::new(format!(
            "what the catalog holds of {} makes no sense: {error}",
            record.name
        ))
    })
}

/// Gives the limits that the settings set for all sources.
pub(crate) fn limits(settings: &Settings) -> Limits {
    Limits {
        connect_timeout: settings.deadlines.connect,
        request_timeout: settings.deadlines.data,
        ..Limits::default()
    }
}

/// Collects the secrets of a source from its references and the store. Blocks.
pub(crate) fn resolve(spec: &SourceSpec, store: &SecretStore) -> Result<Secrets> {
    let environment = |name: &str| std::env::var(name).ok();
    Ok(secrets::resolve(spec, &environment, store)?)
}

/// Keeps the secrets of a source. Blocks. Gives where they are.
pub(crate) fn keep_secrets(store: &SecretStore, source_name: &str, secrets: &Secrets) -> Result<Option<Place>> {
    let mut place = None;
    for (key, secret) in secrets {
        place = Some(store.set(source_name, key, secret)?);
    }
    Ok(place)
}

/// Builds a backend, and puts into words why that fails.
pub(crate) async fn build(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    // Some protocols greet each other here.
    let patience = limits.connect_timeout + limits.request_timeout;
    match timeout(patience, connect(spec, secrets, limits)).await {
        Ok(Ok(backend)) => Ok(backend),
        Ok(Err(error)) => Err(manifold_backends::Diagnosis::of(&error).into()),
        Err(_) => Err(silence(spec.name(), patience)),
    }
}

/// Asks a source how it is.
pub(crate) async fn look(backend: &dyn Backend, patience: Duration) -> Result<()> {
    match timeout(patience, diagnose(backend)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(silence(backend.name(), patience)),
    }
}

/// Says that a source gave no answer.
pub(crate) fn silence(source_name: &str, patience: Duration) -> Failure {
    Failure::new(format!(
        "{source_name} gave no answer within {}",
        crate::settings::show_duration(patience)
    ))
    .hint("check that it is on, and that this machine can reach it")
}

/// Does what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::new(format!("a task of manifold broke off: {error}"))),
    }
}
