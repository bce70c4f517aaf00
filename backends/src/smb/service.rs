//! The `OpenDAL` service `smb`.
//!
//! It stats, lists and reads. Changes are made beside it ([`write`](super::write)): `OpenDAL` has no words for what they
//! are bound to. Beyond what `OpenDAL` asks of a service:
//!
//! - **Paths** are percent-encoded ([`names`](super::names)), so that white space at their ends survives the operator.
//! - **Versions.** Metadata has a version made of the attributes; reading with it gives those bytes or
//!   `ConditionNotMatch`. What else SMB tells of an object is among the user metadata ([`Facts`]).
//! - **A missing directory** is `NotFound` where `OpenDAL` would list it as empty: absent and empty are not the same.
//! - **Errors** carry a [`Failure`] as their source.
//!
//! The backend of a source uses the service through an operator without layers. Of the layers that
//! [`Operator::new`](opendal::Operator::new) adds, one answers for the root without asking the server, and the others
//! have nothing to add here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opendal::raw::{
    OpCopy, OpCreateDir, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir, RpPresign, RpRead,
    RpRename, RpStat, Service, ServiceInfo, oio,
};
use opendal::{
    Buffer, Builder, BytesRange, Capability, Configurator, ErrorKind as OpendalErrorKind, OperationContext, OperatorUri,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

use super::READ_SIZE_MAX;
use super::facts::Facts;
use super::failure::Failure;
use super::files::{Files, OpenFile};
use super::listing::DirectoryPages;
use super::names;
use super::pool::Pool;
use super::session::Session;
use super::settings::{Protection, Settings};
use super::wire::LinkTarget;
use crate::{ErrorKind, ObjectPath, Secret, Version};

/// The name of the service.
pub(crate) const SCHEME: &str = "smb";

/// The settings of the service, as `OpenDAL` takes them.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SmbConfig {
    /// `host` or `host:port`.
    pub(crate) endpoint: String,
    /// The share.
    pub(crate) share: String,
    /// The folder of the share that is the root, percent-encoded.
    pub(crate) root: Option<String>,
    /// The user; nobody for a guest.
    pub(crate) user: Option<String>,
    /// The user's password. Never written out.
    #[serde(skip_serializing)]
    pub(crate) password: Option<String>,
    /// The user's domain.
    pub(crate) domain: Option<String>,
    /// `auto` or `required`.
    pub(crate) signing: Option<String>,
    /// `auto` or `required`.
    pub(crate) encryption: Option<String>,
    /// Exchanges at once.
    pub(crate) concurrency: Option<u32>,
    /// How long connecting may take, in milliseconds.
    pub(crate) connect_timeout_ms: Option<u64>,
    /// How long the server may say nothing to a request, in milliseconds.
    pub(crate) request_timeout_ms: Option<u64>,
}

impl std::fmt::Debug for SmbConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmbConfig")
            .field("endpoint", &self.endpoint)
            .field("share", &self.share)
            .field("root", &self.root)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Configurator for SmbConfig {
    type Builder = SmbBuilder;

    /// Takes `smb://[user@]host[:port]/share[/folder]`.
    fn from_uri(uri: &OperatorUri) -> opendal::Result<Self> {
        let mut config = Self::from_iter(uri.options().clone())?;
        if uri.password().is_some() {
            return Err(opendal::Error::new(
                OpendalErrorKind::ConfigInvalid,
                "a password does not belong in a URI; give it as the option `password`",
            ));
        }
        uri.authority().unwrap_or_default().clone_into(&mut config.endpoint);
        let path = uri.root().unwrap_or_default();
        let (share, root) = path.split_once('/').unwrap_or((path, ""));
        share.clone_into(&mut config.share);
        if !root.is_empty() {
            // `OpenDAL` has decoded the path already.
            config.root = Some(names::to_opendal(&ObjectPath::from_bytes(root), false).map_err(Failure::from)?);
        }
        if let Some(user) = uri.username() {
            config.user = Some(
                percent_encoding::percent_decode_str(user)
                    .decode_utf8_lossy()
                    .into_owned(),
            );
        }
        Ok(config)
    }

    fn into_builder(self) -> Self::Builder {
        SmbBuilder(self)
    }
}

/// Makes the service of a configuration.
#[derive(Debug, Default)]
pub(crate) struct SmbBuilder(SmbConfig);

impl SmbBuilder {
    /// Checks the configuration. Nothing is connected yet.
    pub(super) fn share(self) -> Result<Share, Failure> {
        let config = self.0;
        let missing = |key: &str| Failure::new(ErrorKind::Settings, format!("{key} is missing"));
        if config.endpoint.is_empty() {
            return Err(missing("the host"));
        }
        if config.share.is_empty() {
            return Err(missing("the share; name it after the host, as in smb://host/share"));
        }
        let has_port = config
            .endpoint
            .rsplit_once(':')
            .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
        let (user, domain) =
            Settings::user_and_domain(&config.user.unwrap_or_default(), &config.domain.unwrap_or_default());
        let settings = Settings {
            address: if has_port {
                config.endpoint
            } else {
                Settings::address(&config.endpoint, None)
            },
            share: config.share,
            root: names::from_opendal(config.root.as_deref().unwrap_or_default()),
            user,
            domain,
            password: config.password.map(Secret::new),
            signing: Protection::parse("signing", config.signing.as_deref().unwrap_or_default())?,
            encryption: Protection::parse("encryption", config.encryption.as_deref().unwrap_or_default())?,
            concurrency: config.concurrency.unwrap_or(Settings::CONCURRENCY),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms.unwrap_or(5_000)),
            request_timeout: Duration::from_millis(config.request_timeout_ms.unwrap_or(10_000)),
        };
        names::to_wire(&settings.root)?;
        let pool = Pool::new(settings);
        let files = Files::new(Arc::clone(&pool));
        Ok(Share { pool, files })
    }
}

impl Builder for SmbBuilder {
    type Config = SmbConfig;

    fn build(self) -> opendal::Result<impl Service> {
        Ok(SmbService(self.share()?))
    }
}

/// One share, with its connections and open files: what service and backend are made of.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) pool: Arc<Pool>,
    pub(super) files: Arc<Files>,
}

impl Share {
    /// Gives the settings.
    pub(super) fn settings(&self) -> &Settings {
        self.pool.settings()
    }

    /// Gives the wire paths under which a path beneath the root may stand: one, or two to be tried in turn.
    pub(super) fn wires(&self, path: &ObjectPath) -> Result<Wires, Failure> {
        let root = &self.pool.settings().root;
        let full = if path.is_root() {
            root.clone()
        } else {
            root.join(path.as_bytes())
        };
        Ok(Wires {
            usual: names::to_wire(&full)?,
            other: names::to_wire_with_plain_ends(&full),
        })
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Facts, Failure> {
        self.wires(path)?.find(|name| self.stat_wire(name)).await
    }

    pub(super) async fn stat_wire(&self, name: Vec<u16>) -> Result<Facts, Failure> {
        self.files.until_answered(&name).await;
        self.look_at(name, |session, name| async move { session.stat(&name).await })
            .await
    }

    /// Asks the server for something that it opens for the time of the question.
    async fn look_at<T, R>(&self, name: Vec<u16>, ask: fn(Arc<Session>, Arc<[u16]>) -> R) -> Result<T, Failure>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let looking = self.files.look(&name).await;
        self.ask(name, looking, ask).await
    }

    /// Looks at what a listing names: whoever gives a directory above another name waits for that listing to end, and must not be
    /// waited for by it.
    async fn stat_listed(&self, name: Vec<u16>, listing: watch::Sender<()>) -> Result<Facts, Failure> {
        self.files.until_answered(&name).await;
        self.ask(name, listing, |session, name| async move { session.stat(&name).await })
            .await
    }

    async fn ask<T, R>(
        &self,
        name: Vec<u16>,
        looking: watch::Sender<()>,
        ask: fn(Arc<Session>, Arc<[u16]>) -> R,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let name: Arc<[u16]> = name.into();
        self.pool
            .exchange(move |session| {
                let (asked, looking) = (ask(session, Arc::clone(&name)), looking.clone());
                async move {
                    let _looking = looking;
                    asked.await
                }
            })
            .await
    }

    /// Tells whether the folder that is the root stands on the share.
    pub(super) async fn has_root(&self) -> Result<bool, Failure> {
        match self.stat(&ObjectPath::root()).await {
            Ok(_) => Ok(true),
            Err(Failure::Absent) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Tells whether the server lists a name of the path that it does not open: one with characters that SMB forbids, which
    /// it neither maps nor replaces.
    pub(super) async fn lists_what_it_does_not_open(&self, path: &ObjectPath) -> Result<bool, Failure> {
        let mut parent = ObjectPath::root();
        for name in path.as_bytes().split(|&byte| byte == b'/') {
            if let Some(unmapped) = names::unmapped(name) {
                let open = |wire: Vec<u16>| async move { DirectoryPages::open(self, &wire).await };
                let mut pages = match self.wires(&parent)?.find(open).await {
                    Ok(pages) => pages,
                    Err(
                        Failure::Absent
                        | Failure::Failed {
                            kind: ErrorKind::NotADirectory,
                            ..
                        },
                    ) => return Ok(false),
                    Err(failure) => return Err(failure),
                };
                while let Some(page) = pages.next().await? {
                    if page.iter().any(|(listed, _)| *listed == unmapped) {
                        return Ok(true);
                    }
                }
            }
            parent = parent.join(name);
        }
        Ok(false)
    }

    /// Reads where a link points. `OpenDAL` has no such operation, so that the backend asks here.
    pub(super) async fn read_link(&self, path: &ObjectPath) -> Result<Vec<u8>, Failure> {
        let ask = |name| self.look_at(name, |session, name| async move { session.read_link(&name).await });
        Ok(match self.wires(path)?.find(ask).await? {
            LinkTarget::Unix(target) => target,
            LinkTarget::Windows(target) => {
                let parts: Vec<Vec<u8>> = target
                    .split(|unit| *unit == u16::from(b'\\'))
                    .map(names::from_wire)
                    .collect();
                parts.join(&b'/')
            }
        })
    }
}

/// The wire paths of one object.
#[derive(Debug)]
pub(super) struct Wires {
    usual: Vec<u16>,
    other: Option<Vec<u16>>,
}

impl Wires {
    /// Gives the path, where there is no other under which the object may stand.
    pub(super) fn only(&self) -> Option<Vec<u16>> {
        self.other.is_none().then(|| self.usual.clone())
    }

    /// Asks under the one path, and if nothing stands there, under the other.
    pub(super) async fn find<T, R>(&self, ask: impl Fn(Vec<u16>) -> R) -> Result<T, Failure>
    where
        R: Future<Output = Result<T, Failure>>,
    {
        match (ask(self.usual.clone()).await, &self.other) {
            (Err(Failure::Absent), Some(other)) => ask(other.clone()).await,
            (answer, _) => answer,
        }
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(super) struct SmbService(pub(super) Share);

impl Service for SmbService {
    type Reader = SmbReader;
    type Writer = ();
    type Lister = SmbLister;
    type Deleter = ();
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        let settings = self.0.pool.settings();
        ServiceInfo::new(SCHEME, settings.root.to_string(), &settings.share)
    }

    fn capability(&self) -> Capability {
        Capability {
            stat: true,
            read: true,
            read_with_version: true,
            list: true,
            shared: true,
            ..Capability::default()
        }
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> opendal::Result<RpStat> {
        Ok(RpStat::new(self.0.stat(&names::from_opendal(path)).await?.to_opendal()))
    }

    fn read(&self, _: &OperationContext, path: &str, args: OpRead) -> opendal::Result<Self::Reader> {
        let names = self.0.wires(&names::from_opendal(path))?;
        let version = match args.version() {
            Some(text) => Some(Facts::version_of_text(text).ok_or_else(|| {
                opendal::Error::new(OpendalErrorKind::ConfigInvalid, "this is not a version of an SMB file")
            })?),
            None => None,
        };
        let source = Source {
            files: Arc::clone(&self.0.files),
            names,
            version,
            any: OnceCell::new(),
        };
        Ok(SmbReader(Arc::new(source)))
    }

    fn list(&self, _: &OperationContext, path: &str, _: OpList) -> opendal::Result<Self::Lister> {
        Ok(SmbLister {
            share: self.0.clone(),
            directory: names::from_opendal(path),
            pages: None,
            entries: VecDeque::new(),
        })
    }

    async fn create_dir(&self, _: &OperationContext, _: &str, _: OpCreateDir) -> opendal::Result<RpCreateDir> {
        Err(read_only())
    }

    fn write(&self, _: &OperationContext, _: &str, _: OpWrite) -> opendal::Result<Self::Writer> {
        Err(read_only())
    }

    fn delete(&self, _: &OperationContext) -> opendal::Result<Self::Deleter> {
        Err(read_only())
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> opendal::Result<Self::Copier> {
        Err(read_only())
    }

    async fn rename(&self, _: &OperationContext, _: &str, _: &str, _: OpRename) -> opendal::Result<RpRename> {
        Err(read_only())
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> opendal::Result<RpPresign> {
        Err(opendal::Error::new(
            OpendalErrorKind::Unsupported,
            "SMB has no signed addresses",
        ))
    }
}

fn read_only() -> opendal::Error {
    opendal::Error::new(OpendalErrorKind::Unsupported, "the service smb only reads")
}

/// Reads one file.
pub(super) struct SmbReader(Arc<Source>);

struct Source {
    files: Arc<Files>,
    names: Wires,
    version: Option<Version>,
    /// The file, if it is read in whatever version it is.
    any: OnceCell<Arc<OpenFile>>,
}

impl Source {
    async fn any(&self) -> Result<&Arc<OpenFile>, Failure> {
        let open = |name: Vec<u16>| async move { self.files.open_any(&name).await };
        self.any.get_or_try_init(|| self.names.find(open)).await
    }

    async fn size(&self) -> Result<u64, Failure> {
        match &self.version {
            Some(version) => {
                let ask = |name: Vec<u16>| async move { self.files.size(&name, version).await };
                self.names.find(ask).await
            }
            None => Ok(self.any().await?.size()),
        }
    }

    async fn read(&self, range: std::ops::Range<u64>) -> Result<Buffer, Failure> {
        let pieces = match &self.version {
            Some(version) => {
                let read = |name: Vec<u16>| {
                    let range = range.clone();
                    async move { self.files.read(&name, version, range).await }
                };
                self.names.find(read).await?
            }
            None => self.files.read_open(self.any().await?, range).await?,
        };
        Ok(Buffer::from(pieces))
    }
}

impl oio::Read for SmbReader {
    async fn open(&self, range: BytesRange) -> opendal::Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let BytesRange::Range { offset, size } = range else {
            return Err(opendal::Error::new(
                OpendalErrorKind::Unsupported,
                "a range must say where it begins",
            ));
        };
        let end = match size {
            Some(size) => offset.saturating_add(size),
            None => self.0.size().await?.max(offset),
        };
        Ok((
            RpRead::default(),
            Box::new(SmbStream {
                source: Arc::clone(&self.0),
                position: offset,
                end,
            }),
        ))
    }

    async fn read(&self, range: BytesRange) -> opendal::Result<(RpRead, Buffer)> {
        let (reply, mut stream) = self.open(range).await?;
        Ok((reply, stream.read_all_dyn().await?))
    }
}

/// Gives a range in steps of at most [`READ_SIZE_MAX`].
struct SmbStream {
    source: Arc<Source>,
    position: u64,
    end: u64,
}

impl oio::ReadStream for SmbStream {
    async fn read(&mut self) -> opendal::Result<Buffer> {
        if self.position >= self.end {
            return Ok(Buffer::new());
        }
        let end = self.end.min(self.position + u64::from(READ_SIZE_MAX));
        let buffer = self.source.read(self.position..end).await?;
        self.position = end;
        Ok(buffer)
    }
}

/// Lists one directory.
pub(super) struct SmbLister {
    share: Share,
    directory: ObjectPath,
    /// The wire path that was found, and its pages.
    pages: Option<(Vec<u16>, DirectoryPages)>,
    entries: VecDeque<oio::Entry>,
}

impl SmbLister {
    async fn next_page(&mut self) -> Result<bool, Failure> {
        let (directory, pages) = match &mut self.pages {
            Some(pages) => pages,
            unopened => {
                let share = &self.share;
                let open = |name: Vec<u16>| async move {
                    let pages = DirectoryPages::open(share, &name).await?;
                    Ok((name, pages))
                };
                unopened.insert(self.share.wires(&self.directory)?.find(open).await?)
            }
        };
        let Some(page) = pages.next().await? else {
            return Ok(false);
        };
        let open = self.share.files.open_in(directory);
        for (name, mut facts) in page {
            if !open.is_empty() {
                // Samba lists what is open with the times that it had when it was opened, so that it is asked for.
                let mut path = directory.clone();
                if !path.is_empty() {
                    path.push(u16::from(b'\\'));
                }
                path.extend_from_slice(&name);
                if open.contains(&path) {
                    match self.share.stat_listed(path, pages.listing()).await {
                        Ok(now) => facts = now,
                        // Removed since, or about to be; the listing is right about when it was made.
                        Err(
                            Failure::Absent
                            | Failure::Failed {
                                kind: ErrorKind::Busy, ..
                            },
                        ) => {}
                        Err(failure) => return Err(failure),
                    }
                }
            }
            let metadata = facts.to_opendal();
            let path = names::to_opendal(&self.directory.join(&names::from_wire(&name)), metadata.is_dir())?;
            self.entries.push_back(oio::Entry::with(path, metadata));
        }
        Ok(true)
    }
}

impl oio::List for SmbLister {
    async fn next(&mut self) -> opendal::Result<Option<oio::Entry>> {
        while self.entries.is_empty() {
            if !self.next_page().await? {
                return Ok(None);
            }
        }
        Ok(self.entries.pop_front())
    }
}
