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

/// Builds the backend of a source. Nothing is asked of the source but what its protocol demands.
pub async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    match spec.scheme() {
        Scheme::Local => match spec.local_root() {
            Some(root) => Ok(Arc::new(LocalBackend::open(root)?)),
            None => Err(Error::new(
                ErrorKind::Settings,
                Operation::Connect,
                spec.name(),
                ObjectPath::root(),
                "a local source needs a folder",
            )),
        },
        Scheme::Smb => smb::connect(spec, secrets, limits).await,
        Scheme::S3
        | Scheme::Webdav
        | Scheme::Sftp
        | Scheme::Ftp
        | Scheme::Azblob
        | Scheme::Gcs
        | Scheme::Dropbox
        | Scheme::Gdrive
        | Scheme::Onedrive => opendal::connect(spec, secrets, limits).await,
    }
}
