//! What a source is, without its secrets: parsed from a URI (or an absolute path) and settings.
//!
//! Always true of a [`SourceSpec`]:
//! - its [`name`](SourceSpec::name) is the one spelling of where it is, and so its identity: two spellings of one place
//!   have one name, and parsing the name gives the same source again;
//! - its settings are known to the table ([`schemes`]), checked, and spelled in one way;
//! - it holds no secret: a setting that is one can only be a reference to where the secret is kept.

mod error;
mod nearest;
mod place;
mod table;
mod uri;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::error::SpecError;
pub use self::nearest::nearest;
pub use self::place::SourcePlace;
pub use self::table::{KeyInfo, SchemeInfo, SecretKey, ValueKind, common_keys, schemes};
use crate::ObjectPath;
use crate::secrets::{SecretReference, Secrets};

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

/// What becomes of files that are written to a source that is not a folder of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They cannot be written.
    Off,
    /// Closing them returns when they are safe on this machine; they are uploaded behind that.
    Back,
    /// Closing them returns when they are uploaded.
    Through,
}

/// What a source is: everything needed to connect to it but its secrets.
///
/// Stored (through serde) as its name and settings, and parsed again when it is read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct SourceSpec {
    parts: uri::Parts,
    name: String,
    prefix: ObjectPath,
    local_root: Option<PathBuf>,
    settings: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    uri: String,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

impl SourceSpec {
    /// Parses a URI or an absolute path, with settings. A relative path is made absolute by the caller, who knows where
    /// it stands; so is a path with `..`, and links in it are resolved, or the same folder has two names.
    ///
    /// Settings may stand in the URI too (`?key=value`). A setting that is a secret can only be a reference
    /// (`env:NAME`, `file:PATH`, `store`).
    pub fn parse(uri_or_path: &str, settings: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        Self::build(uri::parse(uri_or_path)?, settings)
    }

    /// Takes a folder of this machine, whose path must be absolute but need not be UTF-8.
    pub fn from_path(path: &Path, settings: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        Self::build(uri::parse_path(path)?, settings)
    }

    /// Gives the same source with one setting more, or another value of it.
    pub fn with_setting(&self, key: &str, value: &str) -> Result<Self, SpecError> {
        self.changed(&BTreeMap::from([(key.to_owned(), Some(value.to_owned()))]))
    }

    /// Gives the source with other values for some settings, and without those that have none. Its name is another one if
    /// the settings say so: then it is another source.
    pub fn changed(&self, changes: &BTreeMap<String, Option<String>>) -> Result<Self, SpecError> {
        let mut settings = self.settings.clone();
        for (key, value) in changes {
            match value {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
        }
        Self::build(
            uri::Parts {
                query: Vec::new(),
                ..self.parts.clone()
            },
            &settings,
        )
    }

    /// Gives the kind of source.
    pub fn scheme(&self) -> Scheme {
        self.parts.info.scheme
    }

    /// Gives the canonical URI, which is the source's identity and holds no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the folder, where the source is one of this machine.
    pub fn local_root(&self) -> Option<&Path> {
        self.local_root.as_deref()
    }

    /// Gives the host, in lower case, without port or brackets.
    pub fn host(&self) -> Option<&str> {
        self.parts.host.as_deref()
    }

    /// Gives the port, where one was named that is not the protocol's own.
    pub fn port(&self) -> Option<u16> {
        self.parts.port
    }

    /// Gives the user's name, from the URI or from the setting `user`.
    pub fn user(&self) -> Option<&str> {
        self.parts.user.as_deref()
    }

    /// Gives the share, bucket or container.
    pub fn container(&self) -> Option<&str> {
        self.parts.container.as_deref()
    }

    /// Gives the sub-folder that is the source's root: beneath the share, bucket or container where there is one, else
    /// beneath the server's root. UTF-8, but for local folders.
    pub fn prefix(&self) -> &ObjectPath {
        &self.prefix
    }

    /// Tells whether the URI asks for TLS (`webdavs`, `ftps`).
    pub fn tls(&self) -> bool {
        matches!(self.parts.uri_scheme, "webdavs" | "ftps")
    }

    /// Gives one setting, or its default from the table. Secrets are never among them, nor are settings that were given
    /// as references: those are among the [`Secrets`].
    pub fn setting(&self, key: &str) -> Option<&str> {
        let info = self.parts.info.key(key)?;
        match self.settings.get(key) {
            Some(value) if info.reference && SecretReference::parse(value).is_some() => None,
            Some(value) => Some(value),
            None => info.default,
        }
    }

    /// Tells whether a setting of the kind `true`/`false` is on.
    pub fn flag(&self, key: &str) -> bool {
        self.setting(key) == Some("true")
    }

    /// Gives the settings that were given. A value may be a reference to a secret, never a secret.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Tells whether every change to the source is to be refused.
    pub fn read_only(&self) -> bool {
        self.flag("read_only")
    }

    /// Says how old a listing may grow before it is asked for again.
    pub fn refresh(&self) -> Duration {
        let value = self.setting("refresh").and_then(values::duration);
        value.expect("invariant: `refresh` has a default, and its values are checked when parsed")
    }

    /// Says what becomes of files that are written to a source that is not a folder of this machine.
    pub fn writing(&self) -> Writes {
        match self.setting("write") {
            _ if self.read_only() => Writes::Off,
            Some("back") => Writes::Back,
            Some("through") => Writes::Through,
            _ => Writes::Off,
        }
    }

    /// Tells whether what is removed from a source that is not a folder of this machine goes to a trash.
    pub fn has_trash(&self) -> bool {
        self.flag("trash")
    }

    /// Tells whether the catalog is to keep attributes that the source cannot store; else they are refused.
    pub fn keeps_attributes(&self) -> bool {
        self.setting("attributes") != Some("refuse")
    }

    /// Tells whether symbolic links are small objects in the source.
    pub fn has_link_objects(&self) -> bool {
        self.setting("links") == Some("objects")
    }

    /// Gives the block size that was chosen for this source, in bytes.
    pub fn block_size(&self) -> Option<u32> {
        self.setting("block_size").and_then(values::block_size)
    }

    /// Gives the number of requests at once that was chosen for this source.
    pub fn concurrency(&self) -> Option<u32> {
        self.setting("concurrency").and_then(|value| value.parse().ok())
    }

    /// Gives the number of directories that may be listed in a second in the background, as it was chosen for this source;
    /// 0: no limit.
    pub fn scan_rate(&self) -> Option<u32> {
        self.setting("scan_rate").and_then(|value| value.parse().ok())
    }

    /// Gives the secrets that the source can use, as its settings stand: none where it is used anonymously, a password
    /// only where there is a user.
    pub fn secret_keys(&self) -> &'static [SecretKey] {
        match self.scheme() {
            Scheme::Smb | Scheme::Ftp if self.user().is_none() => &[],
            Scheme::Webdav if self.user().is_some() => table::PASSWORD,
            Scheme::Webdav => table::TOKEN,
            Scheme::S3 | Scheme::Azblob | Scheme::Gcs if self.flag("anonymous") => &[],
            Scheme::Gcs if self.setting("credential_path").is_some() => &[],
            _ => self.parts.info.secrets,
        }
    }

    /// Gives the secrets that are still needed beside the given ones: empty if there are enough to connect with. Where
    /// there is a choice (an access token, or a refresh token with its client secret) it is the first that is asked for.
    pub fn missing_secrets(&self, given: &Secrets) -> Vec<&'static SecretKey> {
        let missing = |key: &&'static SecretKey| !given.contains_key(key.key);
        let keys = self.secret_keys();
        let alternatives: &[&[&str]] = match self.scheme() {
            Scheme::Azblob => &[&["account_key"], &["sas_token"]],
            Scheme::Gcs => &[&["credential"], &["token"]],
            Scheme::Dropbox | Scheme::Gdrive | Scheme::Onedrive => &[&["access_token"], &["refresh_token"]],
            _ => return keys.iter().filter(|key| key.required).filter(missing).collect(),
        };
        let complete = |needed: &&[&str]| needed.iter().all(|key| given.contains_key(*key));
        if keys.is_empty() || alternatives.iter().any(complete) {
            return Vec::new();
        }
        let first = alternatives.first().copied().unwrap_or_default();
        keys.iter()
            .filter(|key| first.contains(&key.key))
            .filter(missing)
            .collect()
    }

    /// Gives the name under which the source is attached when none is chosen: its last name, else its host, else the
    /// service's name.
    pub fn default_attach_name(&self) -> Vec<u8> {
        let last = self.parts.path.last().cloned();
        let word = |text: &str| Some(text.as_bytes().to_vec());
        last.or_else(|| self.container().and_then(word))
            .or_else(|| self.host().and_then(word))
            .or_else(|| {
                self.setting("account")
                    .filter(|word| !word.contains('/') && !matches!(*word, "." | ".."))
                    .and_then(word)
            })
            .unwrap_or_else(|| match self.scheme() {
                Scheme::Local => b"root".to_vec(),
                _ => self.parts.uri_scheme.as_bytes().to_vec(),
            })
    }

    fn build(mut parts: uri::Parts, given: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let info = parts.info;
        let mut settings = given.clone();
        for (key, value) in std::mem::take(&mut parts.query) {
            match settings.get(&key) {
                Some(other) if check(info, &key, other)? != check(info, &key, &value)? => {
                    return Err(SpecError::Conflict { key });
                }
                _ => {
                    settings.insert(key, value);
                }
            }
        }
        for (key, value) in &mut settings {
            *value = check(info, key, value)?;
        }
        // A user's name is part of the URI, however it was given.
        if let Some(user) = settings.remove("user") {
            if parts.user.as_ref().is_some_and(|named| *named != user) {
                return Err(SpecError::Conflict { key: "user".into() });
            }
            parts.user = Some(user);
        } else if parts.user.is_some() && info.key("user").is_none() {
            return Err(SpecError::BadUri {
                why: "this kind of source takes no user in its URI".into(),
            });
        }
        for key in info.keys {
            if key.required && !settings.contains_key(key.name) {
                return Err(missing(info, key));
            }
        }
        if settings.contains_key("password") && parts.user.is_none() {
            return Err(info
                .key("user")
                .map_or(SpecError::PasswordInUri, |key| missing(info, key)));
        }
        let on = |key: &str| settings.get(key).is_some_and(|value| value == "true");
        if info.scheme == Scheme::S3 && !on("anonymous") && !settings.contains_key("access_key_id") {
            return Err(info
                .key("access_key_id")
                .map_or(SpecError::RelativePath, |key| missing(info, key)));
        }
        let identity = settings.iter().filter(|(key, value)| {
            info.key(key)
                .is_some_and(|key| key.identity && key.default != Some(value.as_str()))
        });
        let name = parts.name(identity.map(|(key, value)| (key.as_str(), value.as_str())));
        Ok(Self {
            prefix: parts.prefix(),
            local_root: parts.local_root(),
            name,
            settings,
            parts,
        })
    }
}

/// What a source's name tells by itself, without the settings that do not belong to it.
pub(crate) struct NamedPlace {
    pub(crate) scheme: Scheme,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) prefix: ObjectPath,
}

/// Takes a source's name apart; `None` if it is none.
pub(crate) fn named_place(name: &str) -> Option<NamedPlace> {
    let parts = uri::parse(name).ok()?;
    let endpoint = parts
        .query
        .iter()
        .find(|(key, _)| key == "endpoint")
        .map(|(_, value)| value.clone());
    let (scheme, prefix) = (parts.info.scheme, parts.prefix());
    let uri::Parts {
        host,
        port,
        user,
        container,
        ..
    } = parts;
    Some(NamedPlace {
        scheme,
        host,
        port,
        user,
        container,
        endpoint,
        prefix,
    })
}

/// Checks one setting, and gives the one spelling of its value.
fn check(info: &'static SchemeInfo, key: &str, value: &str) -> Result<String, SpecError> {
    let reference = SecretReference::parse(value).map(|reference| reference.to_string());
    let refers = info.secret(key).is_some() || info.key(key).is_some_and(|known| known.reference);
    if refers && let Some(why) = SecretReference::why_not(value) {
        return Err(SpecError::BadReference { key: key.into(), why });
    }
    if let Some(secret) = info.secret(key) {
        return reference.ok_or(SpecError::PlainSecret { key: secret.key });
    }
    let Some(known) = info.key(key) else {
        let scheme = info.uri_schemes.first().copied().unwrap_or_default();
        return Err(SpecError::UnknownKey {
            key: key.escape_debug().to_string(),
            scheme,
            nearest: info.nearest(key),
        });
    };
    if known.reference
        && let Some(reference) = reference
    {
        return Ok(reference);
    }
    values::canonical(known.value, value).map_err(|why| SpecError::BadValue {
        key: known.name.into(),
        why,
    })
}

fn missing(info: &'static SchemeInfo, key: &'static KeyInfo) -> SpecError {
    let scheme = info.uri_schemes.first().copied().unwrap_or_default();
    SpecError::MissingKey {
        key: key.name,
        scheme,
        meaning: key.meaning,
    }
}

impl From<SourceSpec> for Stored {
    fn from(spec: SourceSpec) -> Self {
        Self {
            uri: spec.name,
            settings: spec.settings,
        }
    }
}

impl TryFrom<Stored> for SourceSpec {
    type Error = SpecError;

    fn try_from(stored: Stored) -> Result<Self, SpecError> {
        Self::parse(&stored.uri, &stored.settings)
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
