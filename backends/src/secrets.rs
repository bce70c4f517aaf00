//! Secrets: a type that cannot be printed, and where they come from.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// A secret in memory: never printed, wiped when dropped.
#[derive(Clone)]
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
