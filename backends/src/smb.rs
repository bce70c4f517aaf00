//! SMB shares, of Windows, Samba and every NAS, through the crate `smb2`.
//!
//! From the wire up: [`wire`] reads and writes what `smb2` does not; [`frames`] has the socket; [`handshake`] mends its first words; a [`session`] is one connection; the [`pool`] keeps
//! a few of them and runs each exchange so that dropping a future harms nothing; [`files`] keeps handles open and proves
//! the version of what is read; [`listing`] brings directories page by page; [`service`] makes an `OpenDAL` service of
//! it, and the backend here speaks to that service through an operator, as our other backends do to theirs; [`write`](mod@write)
//! makes changes; [`watch`] is told of those that others make. What
//! `OpenDAL` has no word for (the time of the last change, file numbers, the kind of a link) travels in the metadata; only
//! where a link points is asked of the share directly.
//!
//! There: NTLM log-in and guests, SMB 2.0.2 to 3.1.1, signing, encryption, big and small servers (credits), links of
//! Windows and WSL, every name a server can hold. Not there: Kerberos, DFS referrals to other servers, multichannel.
//!
//! Known limits, of the servers. Samba tells no time of the last change but the one of the last write: a program on the
//! server that overwrites bytes in place and puts the old time back is not noticed. Windows may show the size and time of
//! a file that another program is writing as they were when it was opened, and may put off the new time of a written file
//! until that is closed.

mod absence;
mod facts;
mod failure;
mod files;
mod frames;
mod handshake;
mod listing;
mod names;
mod patience;
mod pool;
mod service;
mod session;
mod settings;
mod watch;
mod wire;
mod write;

use std::ops::Range;
use std::sync::{Arc, Once};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use opendal::{Configurator, OperationContext, Operator, OperatorRegistry};

use self::facts::Facts;
use self::failure::Failure;
use self::service::{SCHEME, Share, SmbBuilder, SmbConfig, SmbService};
use self::settings::Settings;
use self::watch::SmbWatch;
use crate::blocks::Blocks;
use crate::{
    Attributes, Backend, Body, Capabilities, Child, Error, ErrorKind, Expected, Limits, Listing, Metadata, ObjectPath,
    Operation, Presence, Result, Secret, Secrets, SourceSpec, Version, Watch,
};

/// The block size that suits a share, in bytes: one piece on the wire.
const BLOCK_SIZE: u32 = files::PIECE;

/// The longest read that pays, in bytes: four pieces at once.
const READ_SIZE_MAX: u32 = 4 * files::PIECE;

/// Children in a page of a listing.
const PAGE_CHILDREN: usize = 1024;

/// Builds the backend of a share. Nothing is asked of the server yet.
#[expect(clippy::unused_async, reason = "every kind of source is connected in the same way")]
pub(crate) async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(SmbBackend::new(spec, secrets, limits)?))
}

/// A share as a source.
#[derive(Debug)]
struct SmbBackend {
    name: String,
    share: Share,
    operator: Operator,
    capabilities: Capabilities,
}

impl SmbBackend {
    fn new(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Self> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| OperatorRegistry::get().register::<SmbBuilder>(SCHEME));

        let fail = |failure: Failure| error(spec.name(), &ObjectPath::root(), Operation::Connect, failure);
        let host = spec.host().unwrap_or_default();
        let concurrency = limits.concurrency.unwrap_or(Settings::CONCURRENCY).max(1);
        let config = SmbConfig {
            endpoint: if host.is_empty() {
                String::new()
            } else {
                Settings::address(host, spec.port())
            },
            share: spec.container().unwrap_or_default().to_owned(),
            root: Some(names::to_opendal(spec.prefix(), false).map_err(|bad| fail(bad.into()))?),
            user: spec.user().map(str::to_owned),
            password: secrets
                .get("password")
                .map(|secret: &Secret| secret.expose().to_owned()),
            domain: spec.setting("domain").map(str::to_owned),
            signing: spec.setting("signing").map(str::to_owned),
            encryption: spec.setting("encryption").map(str::to_owned),
            concurrency: Some(concurrency),
            connect_timeout_ms: Some(u64::try_from(limits.connect_timeout.as_millis()).unwrap_or(u64::MAX)),
            request_timeout_ms: Some(u64::try_from(limits.request_timeout.as_millis()).unwrap_or(u64::MAX)),
        };
        let share = config.into_builder().share().map_err(fail)?;
        let operator = Operator::from_parts(OperationContext::default(), Arc::new(SmbService(share.clone())));
        let block_size = limits.block_size.unwrap_or(BLOCK_SIZE);
        Ok(Self {
            name: spec.name().to_owned(),
            share,
            operator,
            capabilities: Capabilities {
                block_size,
                read_size_max: READ_SIZE_MAX.max(block_size),
                concurrency,
                posix_attributes: false,
                identities: true,
                implicit_directories: false,
                lists_may_be_cut: true,
                tells_minutes: false,
                writes: Some(write::ABILITIES),
            },
        })
    }

    /// Reads a range of one version, as it comes from the server.
    async fn pieces(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
    ) -> std::result::Result<::opendal::Buffer, Failure> {
        let path = names::to_opendal(path, false)?;
        let version = Facts::version_text(version);
        let reader = self.operator.reader_with(&path).version(&version).await?;
        Ok(reader.read(range).await?)
    }

    /// Says why what stands nowhere cannot be said to be absent; `None` if it can.
    async fn why_absent(&self, path: &ObjectPath) -> std::result::Result<Option<Failure>, Failure> {
        if path.is_root() || !self.share.has_root().await? {
            return Ok(Some(Failure::new(
                ErrorKind::NoSuchSource,
                "the share has no such folder, or no longer; check the path after its name",
            )));
        }
        Ok(self.share.lists_what_it_does_not_open(path).await?.then(|| {
            Failure::new(
                ErrorKind::BadPath,
                "the server lists this name but opens no name with such characters; leave out `mangled names = no` from \
                 the share's settings, or map them with `vfs objects = catia`",
            )
        }))
    }

    /// Gives what was made. What is absent then is the directory that it was to lie in.
    async fn made(
        &self,
        path: &ObjectPath,
        operation: Operation,
        outcome: std::result::Result<Facts, Failure>,
    ) -> Result<Metadata> {
        let failure = match outcome {
            Ok(facts) => return Ok(facts.metadata()),
            Err(failure) => failure,
        };
        match self.absent_or(path, operation, failure).await? {
            Presence::Found(metadata) => Ok(metadata),
            Presence::Absent => {
                let why = "the directory that it is to lie in is not there";
                Err(error(
                    &self.name,
                    path,
                    operation,
                    Failure::new(ErrorKind::NotADirectory, why),
                ))
            }
        }
    }

    /// Turns a failure into absence or into the error of this source. Nothing is absent beneath a root that is not there:
    /// the folder of a disk that is not mounted must not look as if everything in it had been removed.
    async fn absent_or<T>(
        &self,
        path: &ObjectPath,
        operation: Operation,
        failure: impl Into<Failure>,
    ) -> Result<Presence<T>> {
        let failure = match failure.into() {
            Failure::Absent => match self.why_absent(path).await {
                Ok(None) => return Ok(Presence::Absent),
                Ok(Some(failure)) | Err(failure) => failure,
            },
            failure @ Failure::Failed { .. } => failure,
        };
        Err(error(&self.name, path, operation, failure))
    }
}

fn error(source: &str, path: &ObjectPath, operation: Operation, failure: Failure) -> Error {
    let kind = match &failure {
        Failure::Absent => ErrorKind::Other,
        Failure::Failed { kind, .. } => *kind,
    };
    Error::new(kind, operation, source, path.clone(), failure)
}

fn metadata(found: &opendal::Metadata) -> std::result::Result<Metadata, Failure> {
    let facts = Facts::from_opendal(found)
        .ok_or_else(|| Failure::new(ErrorKind::Nonsense, "an entry came without the attributes of SMB"))?;
    Ok(facts.metadata())
}

#[async_trait]
impl Backend for SmbBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self) -> Result<()> {
        self.stat(&ObjectPath::root()).await.map(drop)
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let stat = async {
            let found = self.operator.stat(&names::to_opendal(path, false)?).await?;
            metadata(&found)
        };
        match stat.await {
            Ok(metadata) => Ok(Presence::Found(metadata)),
            Err(failure) => self.absent_or(path, Operation::Stat, failure).await,
        }
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        let prefix = match names::to_opendal(directory, true) {
            Ok(prefix) => prefix,
            Err(bad) => return self.absent_or(directory, Operation::List, bad).await,
        };
        let lister = match self.operator.lister(&prefix).await {
            Ok(lister) => lister,
            Err(failure) => return self.absent_or(directory, Operation::List, failure).await,
        };
        let depth = if directory.is_root() {
            0
        } else {
            directory.as_bytes().len() + 1
        };
        let children = lister.map(move |entry| -> std::result::Result<Child, Failure> {
            let entry = entry?;
            let path = names::from_opendal(entry.path());
            let name = path.as_bytes().get(depth..).unwrap_or_default().to_vec();
            Ok(Child {
                name,
                metadata: metadata(entry.metadata())?,
            })
        });
        // Whether the directory is there is known when the server has answered for the first time.
        let mut pages = Box::pin(children.try_ready_chunks(PAGE_CHILDREN));
        let first = match pages.next().await.transpose() {
            Ok(first) => first,
            Err(failure) => return self.absent_or(directory, Operation::List, failure.1).await,
        };
        let (source, directory) = (self.name.clone(), directory.clone());
        let rest = pages.map_err(move |failure| error(&source, &directory, Operation::List, failure.1));
        Ok(Presence::Found(
            futures::stream::iter(first.map(Ok)).chain(rest).boxed(),
        ))
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        match self.pieces(path, version, range).await {
            Ok(pieces) => Ok(Presence::Found(pieces.to_bytes())),
            Err(failure) => self.absent_or(path, Operation::Read, failure).await,
        }
    }

    async fn read_blocks(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u32,
    ) -> Result<Presence<Vec<Bytes>>> {
        let mut blocks = Blocks::new(range.end.saturating_sub(range.start), u64::from(block_size));
        let mut pieces = match self.pieces(path, version, range).await {
            Ok(pieces) => pieces,
            Err(failure) => return self.absent_or(path, Operation::Read, failure).await,
        };
        // Each piece is what one answer of the server brought, in memory of its own.
        let whole = Iterator::all(&mut pieces, |piece| blocks.adopt(piece));
        match blocks.finish() {
            Ok(blocks) if whole => Ok(Presence::Found(blocks)),
            _ => {
                let failure = Failure::new(ErrorKind::Nonsense, "not as many bytes came back as were asked for");
                self.absent_or(path, Operation::Read, failure).await
            }
        }
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        match self.share.read_link(path).await {
            Ok(target) => Ok(Presence::Found(target)),
            Err(failure) => self.absent_or(path, Operation::ReadLink, failure).await,
        }
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        let outcome = Box::pin(write::put(&self.share, path, body, expected)).await;
        self.made(path, Operation::Put, outcome).await
    }

    async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        match write::give_up(&self.share, path, upload).await {
            Ok(()) => Ok(Presence::Found(())),
            Err(failure) => self.absent_or(path, Operation::Put, failure).await,
        }
    }

    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        let outcome = write::create_directory(&self.share, path).await;
        self.made(path, Operation::CreateDirectory, outcome).await
    }

    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        match write::remove_file(&self.share, path, expected).await {
            Ok(()) => Ok(Presence::Found(())),
            Err(failure) => self.absent_or(path, Operation::RemoveFile, failure).await,
        }
    }

    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        match write::remove_directory(&self.share, path).await {
            Ok(()) => Ok(Presence::Found(())),
            Err(failure) => self.absent_or(path, Operation::RemoveDirectory, failure).await,
        }
    }

    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        match write::rename(&self.share, from, to, replace).await {
            Ok(facts) => Ok(Presence::Found(facts.metadata())),
            Err(failure) => self.absent_or(from, Operation::Rename, failure).await,
        }
    }

    async fn set_attributes(&self, path: &ObjectPath, attributes: &Attributes) -> Result<Presence<Metadata>> {
        match write::set_attributes(&self.share, path, attributes).await {
            Ok(facts) => Ok(Presence::Found(facts.metadata())),
            Err(failure) => self.absent_or(path, Operation::SetAttributes, failure).await,
        }
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        let settings = self.share.settings().clone();
        Some(Arc::new(SmbWatch::new(self.name.clone(), settings)))
    }
}
