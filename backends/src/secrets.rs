//! Secrets: a type that cannot be printed, references to where secrets are, and the store that keeps them.
//!
//! Always true here: a secret is in no message and no `Debug` output, and is wiped when it is dropped; a file that
//! holds one, and that others can read, is refused.

mod keyring;
mod private_file;
mod store;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use self::store::{Place, SecretStore, StoreOptions};
use crate::SourceSpec;

/// A secret in memory: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// The secrets of one source, by the name of their setting.
pub type Secrets = BTreeMap<String, Secret>;

impl Secret {
    /// Takes a secret into care.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Gives the secret, to be handed to the protocol and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is, as it is written among the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretReference {
    /// `env:NAME`: in a variable of the environment.
    Environment(String),
    /// `file:PATH`: in a file that only its owner can read.
    File(PathBuf),
    /// `store`: in the secret store, as if nothing was said.
    Store,
}

impl SecretReference {
    /// Reads a reference; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "store" {
            return Some(Self::Store);
        }
        if let Some(name) = text.strip_prefix("env:") {
            let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return good.then(|| Self::Environment(name.into()));
        }
        let path = text.strip_prefix("file:")?;
        (path.starts_with('/') && !path.contains('\0')).then(|| Self::File(path.into()))
    }

    /// Says what is wrong with a text that looks like a reference and is none.
    pub(crate) fn why_not(text: &str) -> Option<&'static str> {
        if Self::parse(text).is_some() {
            return None;
        }
        if text == "env:" {
            return Some("no variable of the environment: write its name, as in env:NAS_PASSWORD");
        }
        if text.starts_with("env:") {
            return Some(
                "a variable of the environment, whose name has letters, digits and `_` alone, as in env:NAS_PASSWORD",
            );
        }
        text.starts_with("file:")
            .then_some("a file: write its absolute path, as in file:/home/ada/nas-password")
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Store => f.write_str("store"),
        }
    }
}

/// Why a secret could not be had or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The environment has no such variable.
    #[error("the secret `{key}` is to come from the environment variable {variable}, which is not set")]
    Environment {
        /// The setting.
        key: String,
        /// The variable.
        variable: String,
    },
    /// A file with secrets, or with the key to them, can be read or written by others than its owner.
    #[error("{} holds a secret, and others than its owner can use it (mode {mode:03o}); run: chmod 600 {}",
        path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file with secrets belongs to somebody else.
    #[error("{} holds a secret, and belongs to the user with the id {owner}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// A file with a secret does not look like one.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The encrypted file, or its key, was damaged or exchanged. It is left as it is.
    #[error("{} is damaged, or its key {} is not the one it was written with; it is left as it is: restore both from \
        a copy, or move both away and give the secrets again", path.display(), key_path.display())]
    Damaged {
        /// The encrypted file.
        path: PathBuf,
        /// The file of its key.
        key_path: PathBuf,
    },
    /// The encrypted file was written by a newer version.
    #[error("{} was written by a newer version of manifold (format {found}; this one knows {known})", path.display())]
    NewerVersion {
        /// The encrypted file.
        path: PathBuf,
        /// The format it is in.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
    /// A file could not be read or written.
    #[error("could not {action} {}: {cause}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The secret is in the keyring, and that does not give it out.
    #[error("the secret `{key}` of {source_name} is in the system's keyring, which does not give it out: {why}")]
    Keyring {
        /// The setting.
        key: String,
        /// The source's name.
        source_name: String,
        /// What the keyring said.
        why: String,
    },
}

/// Collects the secrets of a source: from where its settings refer to, else from the store.
///
/// `environment` looks up a variable. A secret that is nowhere is left out: see
/// [`SourceSpec::missing_secrets`]. Blocks on files, and on the keyring for as long as the store's options allow.
pub fn resolve(
    spec: &SourceSpec,
    environment: &dyn Fn(&str) -> Option<String>,
    store: &SecretStore,
) -> Result<Secrets, SecretError> {
    let mut secrets = Secrets::new();
    let own = spec.secret_keys().iter().map(|secret| secret.key);
    let referable = spec
        .scheme()
        .info()
        .keys
        .iter()
        .filter(|key| key.reference)
        .map(|key| key.name);
    for (key, is_secret) in own.map(|key| (key, true)).chain(referable.map(|key| (key, false))) {
        let reference = match spec.settings().get(key) {
            Some(value) => SecretReference::parse(value),
            None => is_secret.then_some(SecretReference::Store),
        };
        let secret = match reference {
            None => None,
            Some(SecretReference::Environment(variable)) => match environment(&variable) {
                Some(value) => Some(Secret::new(value)),
                None => {
                    return Err(SecretError::Environment {
                        key: key.into(),
                        variable,
                    });
                }
            },
            Some(SecretReference::File(path)) => Some(read_secret_file(&path)?),
            Some(SecretReference::Store) => store.get(spec.name(), key)?,
        };
        if let Some(secret) = secret {
            secrets.insert(key.into(), secret);
        }
    }
    Ok(secrets)
}

/// Reads a secret that stands alone in a file; one line end after it is not part of it.
fn read_secret_file(path: &Path) -> Result<Secret, SecretError> {
    let unusable = |why| SecretError::Unusable { path: path.into(), why };
    let bytes = private_file::read(path)?.ok_or_else(|| SecretError::Io {
        action: "read the secret in",
        path: path.into(),
        cause: std::io::ErrorKind::NotFound.into(),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("the secret in it is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Secret::new(text.into()))
}

#[cfg(test)]
mod tests;
