//! Network services through `OpenDAL`: S3, `WebDAV`, FTP, Azure, Google Cloud Storage and the drives.
//!
//! This module owns the translation between `OpenDAL`'s words and ours, and nothing else in the crate names an
//! `OpenDAL` type. Always true here:
//! - services are called beneath `OpenDAL`'s operator, which trims and folds paths; a name reaches the service as it is
//!   (see [`path`] for the names that no request can express);
//! - "not found" becomes [`Presence::Absent`] only when the source itself is known to be there;
//! - a step towards the source takes one of the source's slots and ends within the request timeout, or that long after
//!   bytes of a body have ceased to move;
//! - what changes something is sent once (see [`write`](mod@write));
//! - a read gives the part of the object that was asked for ([`range`]), of the version that was asked for: by a condition on the request where the service takes one,
//!   else by a look at the object after the read ([`confirm`]).

mod blocks;
mod confirm;
mod copies;
mod dav;
mod fault;
mod ftp;
mod list;
mod minds;
mod names;
mod path;
mod plan;
mod range;
mod read;
mod resume;
mod source;
mod transport;
mod trust;
mod unfinished;
mod upload;
mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::opendal::layers::{RetryEvent, RetryLayer};
use ::opendal::raw::format_authorization_by_basic;
use ::opendal::{Executor, HttpTransporter, OperationContext, Operator};
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Semaphore;

use self::confirm::Confirmations;
use self::minds::Minds;
use self::plan::Plan;
use self::source::{Own, Source};
use crate::{
    Backend, Body, Capabilities, Error, ErrorKind, Expected, Limits, Listing, Metadata, ObjectPath, Operation,
    Presence, Result, Scheme, Secret, Secrets, SourceSpec, Version,
};

/// How often a request that failed for a passing reason is sent again. Small, since callers have deadlines.
const RETRIES: usize = 2;
/// The first pause before a request is sent again; the next is twice as long, and each varies at random.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Builds the backend. Nothing is asked of the source yet.
#[expect(clippy::unused_async, reason = "every kind of source is connected in the same way")]
pub(crate) async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(OpendalBackend::build(spec, secrets, limits, None)?))
}

/// One source on a service that `OpenDAL` speaks to.
struct OpendalBackend(Arc<Source>);

impl fmt::Debug for OpendalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpendalBackend")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl OpendalBackend {
    /// Builds the backend. `origin` (`http://host:port`) takes the place of the service's own address; the drives have
    /// theirs fixed, and doubles of them in tests are reached so.
    fn build(spec: &SourceSpec, secrets: &Secrets, limits: &Limits, origin: Option<&str>) -> Result<Self> {
        let refuse = |why: String| {
            Error::new(
                ErrorKind::Settings,
                Operation::Connect,
                spec.name(),
                ObjectPath::root(),
                why,
            )
        };
        let Plan {
            service,
            options,
            in_one_request,
            prefix,
            traits,
        } = Plan::of(spec, secrets).map_err(refuse)?;
        let concurrency = limits.concurrency.unwrap_or(traits.concurrency).max(1);
        let block_size = limits.block_size.unwrap_or(traits.block_size);
        // First: the transport, which FTP does not use, fails over them too, but in fewer words.
        if spec.scheme() == Scheme::Ftp && spec.tls() {
            trust::check_system().map_err(refuse)?;
        }
        let transport =
            transport::Transport::new(limits, concurrency, spec.setting("ca_file"), origin).map_err(refuse)?;
        let known: Vec<Secret> = secrets.values().cloned().collect();
        if spec.tls() {
            trust::choose_cryptography();
        }
        // Its own start-up hook does not run in every kind of build.
        ::opendal::init_default_registry();
        let operator = |options: Vec<(String, String)>| {
            Operator::via_iter(service, options).map_err(|error| refuse(fault::describe(&error, None, &known)))
        };
        // Of the operator only the service is kept: the layers that it brings fail a whole listing for one entry.
        let context = OperationContext::new()
            .with_http_transport(HttpTransporter::new(transport.clone()))
            .with_executor(Executor::with(transport::Tasks));
        let in_one_request = in_one_request.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let options_in_one_request = options.iter().cloned().chain(in_one_request).collect();
        let in_one_request = operator(options_in_one_request)?.base_service().clone();
        let bare = operator(options)?.base_service().clone();
        let own = own(spec, secrets, limits).map_err(refuse)?;
        let retry = RetryLayer::new()
            .with_max_times(RETRIES)
            .with_min_delay(RETRY_PAUSE)
            .with_jitter()
            .with_notify(|event: RetryEvent<'_>| {
                // The error itself may hold an address with a signature in it.
                tracing::debug!(attempt = event.attempt, kind = %event.err.kind(), "asking a source again");
            });
        let (context, service) = Operator::from_parts(context, bare.clone()).layer(retry).into_parts();
        let capabilities = Capabilities {
            block_size,
            read_size_max: traits.read_size_max.max(block_size),
            concurrency,
            posix_attributes: false,
            identities: traits.identities(),
            implicit_directories: traits.implicit_directories,
            lists_may_be_cut: false,
            tells_minutes: matches!(own, Own::Ftp(_)),
            writes: traits.writes.abilities(),
        };
        Ok(Self(Arc::new(Source {
            name: spec.name().to_owned(),
            capabilities,
            traits,
            prefix,
            service,
            bare,
            in_one_request,
            context,
            transport,
            own,
            slots: Semaphore::new(concurrency as usize),
            patience: limits.request_timeout,
            secrets: known,
            confirmations: Confirmations::default(),
            tags_name_no_bytes: AtomicBool::new(false),
            puts: Semaphore::new(write::put_slots(concurrency) as usize),
            minds: Minds::default(),
        })))
    }
}

/// Sets up the ways to change that are our own.
fn own(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> std::result::Result<Own, String> {
    let password = secrets.get("password");
    match spec.scheme() {
        Scheme::Webdav => {
            let endpoint = plan::server(spec, if spec.tls() { "https" } else { "http" })?;
            let user = spec.user().unwrap_or_default();
            let told = match secrets.get("token") {
                Some(token) => Some(format!("Bearer {}", token.expose())),
                None if user.is_empty() => None,
                None => {
                    let word = password.map_or("", Secret::expose);
                    Some(format_authorization_by_basic(user, word).map_err(|error| error.message().to_owned())?)
                }
            };
            let unusable =
                |_: http::header::InvalidHeaderValue| "the credentials cannot be sent in a header".to_owned();
            let authorization = told.map(|told| HeaderValue::from_str(&told).map_err(unusable));
            let authorization = authorization.transpose()?.map(|mut value| {
                value.set_sensitive(true);
                value
            });
            Ok(Own::Dav(dav::Dav {
                endpoint,
                authorization,
            }))
        }
        Scheme::Ftp => {
            let host = spec.host().ok_or("the URI names no host")?;
            let server = (host, spec.port());
            let ftp = ftp::Ftp::new(server, spec.user(), password.cloned(), spec.tls(), limits);
            Ok(Own::Ftp(Box::new(ftp)))
        }
        _ => Ok(Own::None),
    }
}

#[async_trait]
impl Backend for OpendalBackend {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn check(&self) -> Result<()> {
        self.0.check(Operation::Connect).await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        self.0.stat(path).await
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        list::list(self.0.clone(), directory).await
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        // All in one block.
        let length = range.end.saturating_sub(range.start);
        Ok(match self.0.read(path, version, range, length).await? {
            Presence::Found(blocks) => Presence::Found(blocks.into_iter().next().unwrap_or_default()),
            Presence::Absent => Presence::Absent,
        })
    }

    async fn read_blocks(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u32,
    ) -> Result<Presence<Vec<Bytes>>> {
        self.0.read(path, version, range, u64::from(block_size)).await
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        let mut answers = self.read_links(std::slice::from_ref(path)).await;
        answers.pop().unwrap_or(Ok(Presence::Absent))
    }

    async fn read_links(&self, paths: &[ObjectPath]) -> Vec<Result<Presence<Vec<u8>>>> {
        if let Own::Ftp(ftp) = &self.0.own {
            return ftp.read_links(&self.0, paths).await;
        }
        let why = "this kind of source has no links to read";
        let none = |path| Err(self.0.error(ErrorKind::Unsupported, Operation::ReadLink, path, why));
        paths.iter().map(none).collect()
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        Box::pin(self.0.put(path, body, expected)).await
    }

    async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        upload::give_up(&self.0, path, upload).await
    }

    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        self.0.create_directory(path).await
    }

    async fn keep_directory(&self, path: &ObjectPath) -> Result<()> {
        self.0.keep_directory(path).await
    }

    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        self.0.remove_file(path, expected).await
    }

    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        self.0.remove_directory(path).await
    }

    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        self.0.rename(from, to, replace).await
    }

    async fn copy(&self, from: &ObjectPath, version: &Version, to: &ObjectPath) -> Result<Presence<Metadata>> {
        Box::pin(self.0.copy_object(from, version, to)).await
    }
}

#[cfg(test)]
mod tests;
