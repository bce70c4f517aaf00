//! What a source is, without its secrets: parsed from a URI (or an absolute path) and settings.

use std::collections::BTreeMap;
use std::path::Path;

use crate::ObjectPath;

/// The kinds of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// A folder of this machine.
    Local,
    /// A share of a Windows or Samba server.
    Smb,
    /// A bucket of Amazon S3 or of a compatible service.
    S3,
    /// A `WebDAV` server.
    Webdav,
    /// A server reached over SSH.
    Sftp,
    /// An FTP server.
    Ftp,
    /// A container of Azure Blob Storage.
    Azblob,
    /// A bucket of Google Cloud Storage.
    Gcs,
    /// Dropbox.
    Dropbox,
    /// Google Drive.
    Gdrive,
    /// Microsoft `OneDrive`.
    Onedrive,
}

/// A secret that a kind of source can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// The setting's name.
    pub key: &'static str,
    /// Whether the source cannot be used without it.
    pub required: bool,
    /// What to ask a person for.
    pub prompt: &'static str,
}

/// What a source is: everything needed to connect to it but its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    scheme: Scheme,
    name: String,
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    container: Option<String>,
    prefix: ObjectPath,
    tls: bool,
    settings: BTreeMap<String, String>,
}

/// Why a source cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(String);

#[allow(
    unused_variables,
    clippy::unimplemented,
    clippy::unused_self,
    reason = "first landing"
)]
impl SourceSpec {
    /// Parses a URI or an absolute path, with settings.
    pub fn parse(uri_or_path: &str, settings: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        unimplemented!()
    }

    /// Gives the kind of source.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Gives the canonical URI, which is the source's identity and holds no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the folder, where the source is one of this machine.
    pub fn local_root(&self) -> Option<&Path> {
        unimplemented!()
    }

    /// Gives the host, in lower case, without port or brackets.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Gives the port, where one was named that is not the protocol's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Gives the user's name, from the URI or from the setting `user`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Gives the share, bucket or container.
    pub fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// Gives the sub-folder that is the source's root: beneath the share, bucket or container where there is one, else
    /// beneath the server's root.
    pub fn prefix(&self) -> &ObjectPath {
        &self.prefix
    }

    /// Tells whether the URI asks for TLS (`webdavs`, `ftps`).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Gives one setting, or its default from the table of schemes. Secrets are never among them.
    pub fn setting(&self, key: &str) -> Option<&str> {
        unimplemented!()
    }

    /// Gives the settings that were given. A value may be a reference to a secret, never a secret.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Gives the secrets that this kind of source can use.
    pub fn secret_keys(&self) -> &'static [SecretKey] {
        unimplemented!()
    }

    /// Gives the name under which the source is attached when none is chosen: its last name, or its host.
    pub fn default_attach_name(&self) -> Vec<u8> {
        unimplemented!()
    }
}
