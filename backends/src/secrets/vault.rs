//! The encrypted file: where secrets are kept when the system has no keyring, and where it is written down which ones
//! the keyring has.
//!
//! The file, all numbers little-endian:
//!
//! | bytes | are |
//! | --- | --- |
//! | 8 | `MFSECRET` |
//! | 2 | format, 1 |
//! | 24 | nonce, random for each writing |
//! | rest | XChaCha20-Poly1305 of the records; the 34 bytes before it are authenticated too |
//!
//! Each record: source name, key, place (1 byte: 0 here, 1 in the keyring), secret (empty if in the keyring); texts are
//! UTF-8 with their length in 4 bytes before them.
//!
//! The key is 32 random bytes behind `MFKEY\0\0\1` in a file of its own. Whoever can read both files has the secrets:
//! the encryption keeps them from whoever gets at one alone (a backup, a copied folder, a search index).
//!
//! A file that does not authenticate is never written over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chacha20poly1305::aead::{Aead, AeadCore, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{Secret, SecretError, private_file};

const MAGIC: &[u8; 8] = b"MFSECRET";
const FORMAT: u16 = 1;
const NONCE_LENGTH: usize = 24;
const HEADER_LENGTH: usize = MAGIC.len() + 2 + NONCE_LENGTH;
const KEY_MAGIC: &[u8; 8] = b"MFKEY\0\0\x01";
const KEY_LENGTH: usize = 32;

const PLACE_HERE: u8 = 0;
const PLACE_KEYRING: u8 = 1;

/// What the file says of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Here(Secret),
    InKeyring,
}

/// By source name and key.
pub(super) type Records = BTreeMap<(String, String), Record>;

/// The file and the file of its key.
#[derive(Debug)]
pub(super) struct Vault {
    pub(super) path: PathBuf,
    pub(super) key_path: PathBuf,
}

impl Vault {
    /// Reads all records; there are none where there is no file.
    pub(super) fn read(&self) -> Result<Records, SecretError> {
        let Some(bytes) = private_file::read(&self.path)? else {
            return Ok(Records::new());
        };
        let damaged = || SecretError::Damaged {
            path: self.path.clone(),
            key_path: self.key_path.clone(),
        };
        let (header, sealed) = bytes.split_at_checked(HEADER_LENGTH).ok_or_else(damaged)?;
        let (magic, rest) = header.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (format, nonce) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        let found = u16::from_le_bytes(*format);
        if found > FORMAT {
            return Err(SecretError::NewerVersion {
                path: self.path.clone(),
                found,
                known: FORMAT,
            });
        }
        if found != FORMAT {
            return Err(damaged());
        }
        let cipher = self.cipher()?.ok_or_else(damaged)?;
        let plain = cipher.decrypt(
            XNonce::from_slice(nonce),
            Payload {
                msg: sealed,
                aad: header,
            },
        );
        let plain = Zeroizing::new(plain.map_err(|_| damaged())?);
        decode(&plain).ok_or_else(damaged)
    }

    /// Changes the records in one step, alone: other processes wait.
    pub(super) fn update(&self, change: impl FnOnce(&mut Records)) -> Result<(), SecretError> {
        let _lock = private_file::lock(&self.path)?;
        let mut records = self.read()?;
        let before = records.clone();
        change(&mut records);
        if records == before {
            return Ok(());
        }
        let cipher = match self.cipher()? {
            Some(cipher) => cipher,
            None => self.create_key()?,
        };
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&nonce);
        let plain = encode(&records);
        let sealed = cipher.encrypt(
            &nonce,
            Payload {
                msg: &plain,
                aad: &bytes,
            },
        );
        bytes.extend_from_slice(&sealed.expect("invariant: memory holds far less than the cipher's limit of 256 GiB"));
        private_file::replace(&self.path, &bytes)
    }

    fn cipher(&self) -> Result<Option<XChaCha20Poly1305>, SecretError> {
        let Some(bytes) = private_file::read(&self.key_path)? else {
            return Ok(None);
        };
        let key = bytes.strip_prefix(KEY_MAGIC).filter(|key| key.len() == KEY_LENGTH);
        let key = key.ok_or_else(|| SecretError::Damaged {
            path: self.path.clone(),
            key_path: self.key_path.clone(),
        })?;
        Ok(Some(XChaCha20Poly1305::new(key.into())))
    }

    fn create_key(&self) -> Result<XChaCha20Poly1305, SecretError> {
        let key = Zeroizing::new(<[u8; KEY_LENGTH]>::from(XChaCha20Poly1305::generate_key(&mut OsRng)));
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_MAGIC.len() + KEY_LENGTH));
        bytes.extend_from_slice(KEY_MAGIC);
        bytes.extend_from_slice(&*key);
        private_file::create(&self.key_path, &bytes)?;
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

fn encode(records: &Records) -> Zeroizing<Vec<u8>> {
    let length = |text: &str| text.len() + 4;
    let size = records.iter().map(|((source, key), record)| match record {
        Record::Here(secret) => length(source) + length(key) + 1 + length(secret.expose()),
        Record::InKeyring => length(source) + length(key) + 1 + 4,
    });
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.sum()));
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    for ((source, key), record) in records {
        text(&mut bytes, source);
        text(&mut bytes, key);
        match record {
            Record::Here(secret) => {
                bytes.push(PLACE_HERE);
                text(&mut bytes, secret.expose());
            }
            Record::InKeyring => {
                bytes.push(PLACE_KEYRING);
                text(&mut bytes, "");
            }
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Records> {
    fn text(bytes: &mut &[u8]) -> Option<String> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *bytes = rest;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }
    let mut records = Records::new();
    while !bytes.is_empty() {
        let name = (text(&mut bytes)?, text(&mut bytes)?);
        let (place, rest) = bytes.split_first()?;
        bytes = rest;
        let secret = Secret::new(text(&mut bytes)?);
        let record = match *place {
            PLACE_HERE => Record::Here(secret),
            PLACE_KEYRING => Record::InKeyring,
            _ => return None,
        };
        records.insert(name, record);
    }
    Some(records)
}
