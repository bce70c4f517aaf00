//! From a [`SourceSpec`] to a [`Backend`].

use std::sync::Arc;
use std::time::Duration;

use crate::local::LocalBackend;
use crate::{Backend, Error, ErrorKind, ObjectPath, Operation, Result, Scheme, Secrets, SourceSpec, opendal, smb};

/// What a backend may use of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at once; the backend's own choice if `None`.
    pub concurrency: Option<u32>,
    /// Bytes in a block; the backend's own choice if `None`.
    pub block_size: Option<u32>,
    /// How long setting up a connection may take.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: None,
            block_size: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// What the source's own settings say goes before what holds for all.
    #[must_use]
    fn for_source(&self, spec: &SourceSpec) -> Self {
        Self {
            concurrency: spec.concurrency().or(self.concurrency),
            block_size: spec.block_size().or(self.block_size),
            ..self.clone()
        }
    }
}

/// Builds the backend of a source. Nothing is asked of the source but what its protocol demands, so that a source that
/// is away can be connected too, and answers when it is back.
///
/// `secrets` are what [`resolve`](crate::secrets::resolve) found; one that is needed and missing is an error.
pub async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    if let Some(missing) = spec.missing_secrets(secrets).first() {
        let why = format!("the secret `{}` is missing ({})", missing.key, missing.prompt);
        return Err(Error::new(
            ErrorKind::Settings,
            Operation::Connect,
            spec.name(),
            ObjectPath::root(),
            why,
        ));
    }
    let limits = limits.for_source(spec);
    match spec.scheme() {
        Scheme::Local => Ok(Arc::new(LocalBackend::connect(spec, &limits)?)),
        Scheme::Smb => smb::connect(spec, secrets, &limits).await,
        Scheme::S3
        | Scheme::Webdav
        | Scheme::Sftp
        | Scheme::Ftp
        | Scheme::Azblob
        | Scheme::Gcs
        | Scheme::Dropbox
        | Scheme::Gdrive
        | Scheme::Onedrive => opendal::connect(spec, secrets, &limits).await,
    }
}
