//! The connections to the sources: made in the background, tried again while they fail, and made anew when a source that
//! refused our credentials may take others.
//!
//! How a source is, is the indexer's to say; what cannot even be connected is told to it. Always true: a source that cannot be
//! connected costs nobody anything but its own files' bytes; its tree stays as last known. No secret is in any message.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{
    Backend, Diagnosis, ErrorKind, Limits, Place, SecretError, SecretStore, Secrets, SourceSpec, connect, diagnose,
    secrets,
};
use manifold_catalog::{SourceId, SourceRecord};
use manifold_index::{HealthState, Indexer, Problem, SourceOptions};
use manifold_vfs::{Vfs, WritePolicy};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::failure::{Failure, Result};
use crate::settings::Settings;
use crate::uploads;

/// The pause before the second try; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The longest pause between two looks at the secrets of a source that has refused them.
const SECRETS_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long the sources may take to say how they are, when somebody waits for the answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// A sign of a source counts as news for that long.
const SIGN_AGE_MAX: Duration = Duration::from_secs(5);

/// The settings that name a file with credentials in it.
const FILES: [&str; 3] = ["key", "credential_path", "ca_file"];

/// What a source was connected with, as far as it may change without its settings.
#[derive(PartialEq, Eq)]
struct Credentials {
    secrets: Secrets,
    files: Vec<Option<(i64, i64, u64)>>,
}

/// Why a source cannot be connected.
#[derive(Debug)]
struct Unconnected {
    failure: Failure,
    /// Whether its credentials cannot be had, or were refused.
    refused: bool,
}

impl Unconnected {
    fn problem(&self) -> Problem {
        let (message, hint) = (self.failure.message(), self.failure.hints().join("; "));
        if self.refused {
            Problem::of_credentials(message, hint)
        } else {
            Problem::new(message, hint)
        }
    }
}

impl From<Failure> for Unconnected {
    fn from(failure: Failure) -> Self {
        let refused = false;
        Self { failure, refused }
    }
}

/// The connections of a library's sources.
#[derive(Debug)]
pub(crate) struct Connections {
    indexer: Arc<Indexer>,
    vfs: Arc<Vfs>,
    store: Arc<SecretStore>,
    limits: Limits,
    sources: Mutex<BTreeMap<SourceId, Connection>>,
}

#[derive(Debug)]
struct Connection {
    /// Ends the pause between two tries, or two looks at the secrets.
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
            sources: Mutex::default(),
        })
    }

    /// Keeps a source connected from now on, trying for as long as it takes, and has it scanned. One that is kept already
    /// stays as it is.
    pub(crate) fn keep(self: &Arc<Self>, record: &SourceRecord) {
        self.begin(record, None);
    }

    /// Begins to keep a source connected. `tried` is told when it is known how the first try went.
    fn begin(self: &Arc<Self>, record: &SourceRecord, tried: Option<oneshot::Sender<()>>) {
        let mut sources = self.sources.lock();
        if sources.contains_key(&record.id) {
            return;
        }
        self.indexer.introduce(record.id, &record.name);
        let hurry = Arc::new(Notify::new());
        // Whoever looks into the mount before the first try is over waits for that, and is not told that it cannot be
        // reached. The mount itself waits for nobody.
        self.indexer.expect(record.id);
        let task = Arc::clone(self).connect_for_good(record.clone(), Arc::clone(&hurry), tried);
        let connection = Connection {
            hurry,
            task: Some(tokio::spawn(task)),
        };
        sources.insert(record.id, connection);
    }

    /// Connects a source anew, with its settings and secrets as they are now, and waits until it is known how it is. What goes
    /// on over the old connection ends when the new one is there.
    pub(crate) async fn renew(self: &Arc<Self>, record: &SourceRecord) {
        if let Some(Connection { task: Some(task), .. }) = self.sources.lock().remove(&record.id) {
            task.abort();
        }
        let (tell, told) = oneshot::channel();
        self.begin(record, Some(tell));
        // An error means that another call has taken the place of this one.
        let _tried_or_replaced = told.await;
    }

    /// Connects a source once, for a command that needs it now.
    pub(crate) async fn connect_now(&self, record: &SourceRecord) -> Result<Arc<dyn Backend>> {
        if let Some(backend) = self.indexer.backend(record.id) {
            return Ok(backend);
        }
        let spec = parse_spec(record)?;
        let backend = build(&spec, &self.secrets(&spec).await?, &self.limits).await?;
        self.attach(record.id, &spec, Arc::clone(&backend));
        Ok(backend)
    }

    /// Tries out what is no source yet, with the secrets that this process can get at.
    pub(crate) async fn try_out(&self, spec: &SourceSpec, patience: Duration) -> Result<()> {
        let (asked, store) = (spec.clone(), Arc::clone(&self.store));
        let secrets = blocking(move || {
            secrets::resolve(&asked, &environment, &store).map_err(|error| match error {
                SecretError::Environment { key, variable } => Failure::new(format!(
                    "the secret `{key}` is to come from the environment variable {variable}, which the daemon does not have, \
                     whatever the shell of this command has"
                ))
                .hint(format!(
                    "start the daemon with {variable} set, or give the secret in another way: --secret-stdin {key}, or \
                     --set {key}=file:PATH"
                )),
                other => other.into(),
            })
        })
        .await?;
        let backend = build(spec, &secrets, &self.limits).await?;
        look(&*backend, patience).await
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

    /// Ends the pause between two tries, for one source or for all, and asks those that are away whether they are back.
    pub(crate) fn hurry(&self, id: Option<SourceId>) {
        for (other, connection) in &*self.sources.lock() {
            if id.is_none_or(|id| id == *other) {
                connection.hurry.notify_one();
                let (indexer, id) = (Arc::clone(&self.indexer), *other);
                if indexer.health(id).is_some_and(|it| it.state == HealthState::Offline) {
                    tokio::spawn(async move { indexer.probe(id).await });
                }
            }
        }
    }

    /// Asks the sources of which nothing was heard lately how they are, at once, and waits for those that answer soon, or are
    /// connected soon.
    pub(crate) async fn ask_all(&self) {
        let is_connecting = &|id: &SourceId| {
            let health = self.indexer.health(*id);
            health.is_some_and(|it| it.state == HealthState::Connecting)
        };
        let connecting: Vec<_> = self.sources.lock().keys().copied().filter(is_connecting).collect();
        let connected = connecting.into_iter().map(|id| async move {
            self.indexer.until_connected(id).await;
            if is_connecting(&id) {
                self.indexer.probe(id).await;
            }
        });
        let (connected, probed) = (
            futures::future::join_all(connected),
            self.indexer.probe_all(SIGN_AGE_MAX),
        );
        let _all_or_not = timeout(PROBE_PATIENCE, futures::future::join(connected, probed)).await;
    }

    /// Forgets the secrets of a source.
    pub(crate) async fn forget_secrets(&self, source_name: &str) -> Result<()> {
        let (store, name) = (Arc::clone(&self.store), source_name.to_owned());
        blocking(move || Ok(store.remove(&name)?)).await
    }

    async fn connect_for_good(
        self: Arc<Self>,
        record: SourceRecord,
        hurry: Arc<Notify>,
        mut tried: Option<oneshot::Sender<()>>,
    ) {
        let mut pause = PAUSE_FIRST;
        // What it was last connected with, if it was.
        let mut with = None;
        loop {
            match self.connect(&record, with.as_ref()).await {
                Ok(None) => {}
                Ok(Some((spec, backend, credentials))) => {
                    self.attach(record.id, &spec, Arc::clone(&backend));
                    if with.replace(credentials).is_none() {
                        self.scan_where_due(&record, &*backend);
                    }
                    self.indexer.probe(record.id).await;
                    pause = PAUSE_FIRST;
                }
                // One that is connected says itself how it is.
                Err(why) if with.is_some() => {
                    tracing::debug!(
                        source = record.name,
                        "it cannot be connected anew: {}",
                        why.failure.message()
                    );
                }
                Err(why) => {
                    self.indexer
                        .not_connected(record.id, &record.name, why.problem(), pause);
                }
            }
            if let Some(tried) = tried.take() {
                // Who asked may have lost patience.
                let _heard_or_not = tried.send(());
            }
            if with.is_some() && self.refused(record.id).await {
                pause = PAUSE_FIRST;
            }
            let _woken_or_over = timeout(pause, hurry.notified()).await;
            let pause_max = if with.is_some() { SECRETS_PAUSE_MAX } else { PAUSE_MAX };
            pause = (pause * 2).min(pause_max);
        }
    }

    /// Builds the backend of a source; `None` where that would make no difference, since it was built with the same.
    async fn connect(
        &self,
        record: &SourceRecord,
        with: Option<&Credentials>,
    ) -> Result<Option<(SourceSpec, Arc<dyn Backend>, Credentials)>, Unconnected> {
        let spec = parse_spec(record)?;
        let secrets = self
            .secrets(&spec)
            .await
            .map_err(|failure| Unconnected { failure, refused: true })?;
        let credentials = Credentials {
            secrets,
            files: FILES
                .iter()
                .map(|key| spec.setting(key).and_then(last_change))
                .collect(),
        };
        if with == Some(&credentials) {
            return Ok(None);
        }
        let backend = try_to_build(&spec, &credentials.secrets, &self.limits).await?;
        Ok(Some((spec, backend, credentials)))
    }

    /// Waits until a source is refusing our credentials. Tells whether it had to be waited for.
    async fn refused(&self, id: SourceId) -> bool {
        let mut events = self.indexer.subscribe();
        let mut waited = false;
        while self
            .indexer
            .health(id)
            .is_none_or(|it| it.state != HealthState::Refused)
        {
            waited = true;
            if matches!(events.recv().await, Err(RecvError::Closed)) {
                return std::future::pending().await;
            }
        }
        waited
    }

    async fn secrets(&self, spec: &SourceSpec) -> Result<Secrets> {
        let (asked, store) = (spec.clone(), Arc::clone(&self.store));
        blocking(move || resolve(&asked, &store)).await
    }

    fn attach(&self, id: SourceId, spec: &SourceSpec, backend: Arc<dyn Backend>) {
        self.vfs.set_refresh(id, spec.refresh());
        let policy = uploads::policy(spec);
        let is_local = backend.as_local().is_some();
        self.vfs.set_write_policy(id, policy);
        self.vfs.set_trash(id, spec.has_trash());
        self.vfs.set_attribute_policy(id, uploads::attribute_policy(spec));
        self.vfs
            .set_read_only(id, spec.read_only() || (!is_local && policy == WritePolicy::Off));
        let options = SourceOptions {
            scan_rate: spec.scan_rate(),
        };
        self.indexer.attach_with(id, backend, options);
        // What waited for other settings, or for the source, is tried again.
        self.vfs.retry_uploads();
        // What is pinned of it can be told, and fetched, from now on.
        self.vfs.pins_changed();
    }

    /// Begins the first scan of a source; the indexer repeats it when it is old. A folder of this machine is scanned at each
    /// start, since that is how all of it comes to be watched.
    fn scan_where_due(&self, record: &SourceRecord, backend: &dyn Backend) {
        let was_scanned = self.indexer.progress().iter().any(|it| it.source == record.id);
        if !was_scanned || backend.as_local().is_some() {
            self.indexer.scan(record.id);
        }
    }
}

/// Tells when a file, or who may read it, was last changed, in seconds and nanoseconds, and how long it is; `None` where it is
/// not there.
fn last_change(path: &str) -> Option<(i64, i64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ctime(), found.ctime_nsec(), found.len()))
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
    Ok(secrets::resolve(spec, &environment, store)?)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
    let built = try_to_build(spec, secrets, limits).await;
    built.map_err(|why| why.failure)
}

async fn try_to_build(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>, Unconnected> {
    // Some protocols greet each other here.
    let patience = limits.connect_timeout + limits.request_timeout;
    match timeout(patience, connect(spec, secrets, limits)).await {
        Ok(Ok(backend)) => Ok(backend),
        Ok(Err(error)) => Err(Unconnected {
            failure: Diagnosis::of(&error).into(),
            refused: error.kind() == ErrorKind::CredentialsRefused,
        }),
        Err(_) => Err(silence(spec.name(), patience).into()),
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
