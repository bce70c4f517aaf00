//! The system's keyring, asked with a bound on its time: a keyring that waits for somebody to type a password must not
//! hold up a daemon.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::Secret;

const SERVICE: &str = "manifold";

/// What a keyring does. Calls may block for as long as they like.
pub(super) trait Keyring: Debug + Send + Sync {
    fn get(&self, account: &str) -> Result<Option<Secret>, String>;
    fn set(&self, account: &str, secret: &Secret) -> Result<(), String>;
    fn remove(&self, account: &str) -> Result<(), String>;
}

/// The keyring of the desktop session (Secret Service), or of the operating system elsewhere.
#[derive(Debug)]
pub(super) struct SystemKeyring;

impl SystemKeyring {
    fn entry(account: &str) -> Result<keyring::Entry, String> {
        if let Err(error) = keyring::Entry::store_status() {
            return Err(error.to_string());
        }
        keyring::Entry::new(SERVICE, account).map_err(|error| error.to_string())
    }
}

impl Keyring for SystemKeyring {
    fn get(&self, account: &str) -> Result<Option<Secret>, String> {
        match Self::entry(account)?.get_password() {
            Ok(secret) => Ok(Some(Secret::new(secret))),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(describe(&error)),
        }
    }

    fn set(&self, account: &str, secret: &Secret) -> Result<(), String> {
        Self::entry(account)?
            .set_password(secret.expose())
            .map_err(|error| describe(&error))
    }

    fn remove(&self, account: &str) -> Result<(), String> {
        match Self::entry(account)?.delete_credential() {
            Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
            Err(error) => Err(describe(&error)),
        }
    }
}

/// Says what went wrong without what the keyring holds: some of its errors carry the secret along.
fn describe(error: &keyring::Error) -> String {
    match error {
        keyring::Error::BadEncoding(_) => "what it holds is not text".into(),
        keyring::Error::BadDataFormat(..) => "what it holds cannot be read".into(),
        keyring::Error::Ambiguous(_) => "it holds several secrets under this name".into(),
        other => other.to_string(),
    }
}

/// A keyring that answers in time, or is not asked again until it has answered after all: somebody has unlocked it.
#[derive(Debug)]
pub(super) struct BoundedKeyring {
    keyring: Arc<dyn Keyring>,
    timeout: Duration,
    /// Whether a question waits for its answer, so that no other is asked.
    hung: Arc<AtomicBool>,
}

impl BoundedKeyring {
    pub(super) fn new(keyring: Arc<dyn Keyring>, timeout: Duration) -> Self {
        Self {
            keyring,
            timeout,
            hung: Arc::default(),
        }
    }

    pub(super) fn get(&self, account: String) -> Result<Option<Secret>, String> {
        self.ask(move |keyring| keyring.get(&account))
    }

    pub(super) fn set(&self, account: String, secret: Secret) -> Result<(), String> {
        self.ask(move |keyring| {
            keyring.set(&account, &secret)?;
            // Some services accept what they do not keep.
            match keyring.get(&account)? {
                Some(kept) if kept == secret => Ok(()),
                _ => Err("it did not keep the secret".into()),
            }
        })
    }

    pub(super) fn remove(&self, account: String) -> Result<(), String> {
        self.ask(move |keyring| keyring.remove(&account))
    }

    /// Asks on a thread of its own. One that never answers costs that one thread, since nothing is asked before it has.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Keyring) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let late = || format!("no answer within {} s", self.timeout.as_secs_f32());
        if self.hung.load(Ordering::SeqCst) {
            return Err(late());
        }
        let (keyring, hung) = (Arc::clone(&self.keyring), Arc::clone(&self.hung));
        let (sender, receiver) = mpsc::sync_channel(1);
        let asked = std::thread::Builder::new().name("keyring".into()).spawn(move || {
            // Nobody may be waiting any more; the answer is then dropped, and wiped.
            sender.send(question(&*keyring)).ok();
            hung.store(false, Ordering::SeqCst);
        });
        asked.map_err(|error| format!("no thread to ask it on: {error}"))?;
        match receiver.recv_timeout(self.timeout) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.hung.store(true, Ordering::SeqCst);
                // It may have answered just now, and taken itself for done.
                let Ok(answer) = receiver.try_recv() else {
                    return Err(late());
                };
                self.hung.store(false, Ordering::SeqCst);
                answer
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("asking it failed".into()),
        }
    }
}
