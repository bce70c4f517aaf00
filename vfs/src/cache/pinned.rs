//! Which objects are pinned: a sorted list of keys, and the file that carries it from one start to the next.
//!
//! The list is made from the catalog, which takes a moment and needs the sources' connections; the file is there at once, so that nothing pinned
//! is ever put out before the list is known. Always true: the file is replaced whole, and one that is damaged says nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::key::{DiskKey, ObjectKey, SourceTag};

/// The name of the file in the cache's folder.
const NAME: &str = "pinned";
const MAGIC: &[u8; 8] = b"MFPINNED";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 24;
const KEY_LEN: usize = 24;
const CHECKSUM_LEN: usize = 4;

/// The keys of all pinned objects. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PinnedKeys(Arc<[DiskKey]>);

impl PinnedKeys {
    /// Takes keys in any order.
    pub(crate) fn new(mut keys: Vec<DiskKey>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self(keys.into())
    }

    /// Tells whether an object is pinned.
    pub(crate) fn contains(&self, key: DiskKey) -> bool {
        self.0.binary_search(&key).is_ok()
    }

    /// Gives the keys of one source.
    pub(crate) fn of_source(&self, source: SourceTag) -> &[DiskKey] {
        let start = self.0.partition_point(|key| key.source < source);
        let length = self.0[start..].partition_point(|key| key.source == source);
        &self.0[start..start + length]
    }

    /// Reads the file. Without one, nothing is pinned; `None`: it is damaged, or of a newer version.
    pub(crate) fn load(root: &Path) -> io::Result<Option<Self>> {
        match fs::read(root.join(NAME)) {
            Ok(bytes) => Ok(Self::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Self::default())),
            Err(error) => Err(error),
        }
    }

    /// Writes the file anew, or takes it away where nothing is pinned.
    pub(crate) fn store(&self, root: &Path) -> io::Result<()> {
        let path = root.join(NAME);
        if self.0.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        fs::create_dir_all(root)?;
        let new = root.join(format!("{NAME}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&self.encode())?;
        file.sync_data()?;
        fs::rename(new, path)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.0.len() * KEY_LEN + CHECKSUM_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&(self.0.len() as u64).to_le_bytes());
        for key in &*self.0 {
            bytes.extend_from_slice(&key.source.0);
            bytes.extend_from_slice(&key.object.0);
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
        let (header, keys) = body.split_first_chunk::<HEADER_LEN>()?;
        let count = u64::from_le_bytes(*header.last_chunk()?);
        let good = header.starts_with(MAGIC)
            && header[8..10] == VERSION.to_le_bytes()
            && header[10..16] == [0; 6]
            && crc32c::crc32c(body).to_le_bytes() == *checksum
            && keys.len() as u64 == count.checked_mul(KEY_LEN as u64)?;
        if !good {
            return None;
        }
        let (keys, _) = keys.as_chunks::<KEY_LEN>();
        let key = |bytes: &[u8; KEY_LEN]| {
            Some(DiskKey {
                source: SourceTag(*bytes.first_chunk()?),
                object: ObjectKey(*bytes.last_chunk()?),
            })
        };
        Some(Self::new(keys.iter().map(key).collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(source: u8, object: u8) -> DiskKey {
        DiskKey {
            source: SourceTag([source; 8]),
            object: ObjectKey([object; 16]),
        }
    }

    #[test]
    fn the_file_is_read_back_and_goes_with_the_last_key() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(PinnedKeys::load(folder.path()).unwrap(), Some(PinnedKeys::default()));
        let keys = PinnedKeys::new(vec![key(2, 1), key(1, 9), key(1, 3), key(2, 1)]);
        keys.store(folder.path()).unwrap();
        assert_eq!(PinnedKeys::load(folder.path()).unwrap(), Some(keys.clone()));
        assert_eq!(keys.of_source(SourceTag([1; 8])), [key(1, 3), key(1, 9)]);
        assert!(keys.of_source(SourceTag([3; 8])).is_empty());
        PinnedKeys::default().store(folder.path()).unwrap();
        assert!(!folder.path().join(NAME).exists());
    }

    proptest! {
        #[test]
        fn a_file_that_was_touched_says_nothing(
            keys in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..20),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
            cut in any::<prop::sample::Index>(),
        ) {
            let keys = PinnedKeys::new(keys.into_iter().map(|(source, object)| key(source, object)).collect());
            let good = keys.encode();
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1 << bit;
            prop_assert_eq!(PinnedKeys::decode(&bad), None);
            prop_assert_eq!(PinnedKeys::decode(&good[..cut.index(good.len())]), None);
            prop_assert_eq!(PinnedKeys::decode(&good), Some(keys));
        }
    }
}
