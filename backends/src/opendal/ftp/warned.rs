//! Of which directories something was said already: once in a run is enough, and a directory is listed again and again.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

/// How many directories are remembered. Of more than these it is said again.
const REMEMBERED_MAX: usize = 10_000;

/// The directories.
#[derive(Default)]
pub(super) struct Warned {
    hasher: RandomState,
    known: Mutex<HashSet<u64>>,
}

impl Warned {
    /// Notes a directory, and tells whether it was not noted before.
    pub(super) fn is_first(&self, directory: &[u8]) -> bool {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(self.hasher.hash_one(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_is_the_first_once() {
        let warned = Warned::default();
        let told = [&b"a"[..], b"b", b"a", b"", b"b", b""].map(|it| warned.is_first(it));
        assert_eq!(told, [true, true, false, true, false, false]);
        for number in 0..2 * REMEMBERED_MAX {
            warned.is_first(&number.to_le_bytes());
        }
        assert!(warned.known.lock().len() <= REMEMBERED_MAX);
    }
}
