//! The secret store: the system's keyring where it answers, else the encrypted file.
//!
//! The file also says which secrets the keyring has. So a secret that nobody gave is known to be nowhere without
//! asking the keyring, and one that the keyring holds back is an error, not an absence.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::keyring::{BoundedKeyring, Keyring, SystemKeyring};
use super::vault::{Record, Vault};
use super::{Secret, SecretError};

/// Where a store keeps its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The encrypted file. Its folder must exist.
    pub file: PathBuf,
    /// The file of its key: beside it, or better where only the owner gets.
    pub key_file: PathBuf,
    /// Whether to use the system's keyring, and how long it may take to answer.
    pub keyring: Option<Duration>,
}

/// Where a secret was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the system's keyring.
    Keyring,
    /// In the encrypted file.
    File,
}

/// Keeps the secrets of sources. Several processes may use one store at once.
#[derive(Debug)]
pub struct SecretStore {
    vault: Vault,
    keyring: Option<BoundedKeyring>,
}

impl SecretStore {
    /// Builds a store. Nothing is read, written or asked yet.
    pub fn new(options: StoreOptions) -> Self {
        Self::with_keyring(options, Arc::new(SystemKeyring))
    }

    pub(super) fn with_keyring(options: StoreOptions, keyring: Arc<dyn Keyring>) -> Self {
        Self {
            vault: Vault {
                path: options.file,
                key_path: options.key_file,
            },
            keyring: options.keyring.map(|timeout| BoundedKeyring::new(keyring, timeout)),
        }
    }

    /// Gives a secret; `None` if it was never kept here.
    pub fn get(&self, source_name: &str, key: &str) -> Result<Option<Secret>, SecretError> {
        let refused = |why: String| SecretError::Keyring {
            key: key.into(),
            source_name: source_name.into(),
            why,
        };
        match self.vault.read()?.remove(&(source_name.into(), key.into())) {
            None => Ok(None),
            Some(Record::Here(secret)) => Ok(Some(secret)),
            Some(Record::InKeyring) => match &self.keyring {
                None => Err(refused("its use is switched off".into())),
                Some(keyring) => match keyring.get(account(source_name, key)).map_err(refused)? {
                    Some(secret) => Ok(Some(secret)),
                    None => Err(refused("it has been removed from there; give it again".into())),
                },
            },
        }
    }

    /// Keeps a secret, in the keyring if that takes it, and says where.
    pub fn set(&self, source_name: &str, key: &str, secret: &Secret) -> Result<Place, SecretError> {
        // A file that cannot be used is an error before anything is changed.
        self.vault.read()?;
        let name = (source_name.to_owned(), key.to_owned());
        let taken = self
            .keyring
            .as_ref()
            .map(|keyring| keyring.set(account(source_name, key), secret.clone()));
        let (place, record) = match taken {
            Some(Ok(())) => (Place::Keyring, Record::InKeyring),
            Some(Err(why)) => {
                tracing::debug!(why, "the keyring is not used");
                (Place::File, Record::Here(secret.clone()))
            }
            None => (Place::File, Record::Here(secret.clone())),
        };
        self.vault.update(|records| {
            records.insert(name, record);
        })?;
        Ok(place)
    }

    /// Forgets all secrets of a source. What the keyring does not let go of is an error, and is still known.
    pub fn remove(&self, source_name: &str) -> Result<(), SecretError> {
        let records = self.vault.read()?;
        for (name, record) in records.into_iter().filter(|((source, _), _)| source == source_name) {
            let refused = |why| SecretError::Keyring {
                key: name.1.clone(),
                source_name: source_name.into(),
                why,
            };
            match (&record, &self.keyring) {
                (Record::Here(_), _) => {}
                (Record::InKeyring, Some(keyring)) => keyring.remove(account(source_name, &name.1)).map_err(refused)?,
                (Record::InKeyring, None) => return Err(refused("its use is switched off".into())),
            }
            self.vault.update(|records| {
                records.remove(&name);
            })?;
        }
        Ok(())
    }
}

/// The name of a secret in the keyring, where a person can see what it belongs to.
fn account(source_name: &str, key: &str) -> String {
    format!("{key} of {source_name}")
}
