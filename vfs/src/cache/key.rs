//! Names for cached things: an object's version, a block of it, and the source it came from.

use std::fmt;

use manifold_backends::Version;
use manifold_catalog::EntryId;

/// Names one version of one object, cut into blocks of one size: the first 16 bytes of a BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(pub [u8; 16]);

impl ObjectKey {
    /// Derives the key. Each part goes in with its length, so that no two different lists of parts look alike.
    ///
    /// The entry is one of them, and not its path: sources that tell versions by size and whole seconds give a file that was renamed, or
    /// made anew, the version of the one that had its name before.
    pub fn new(source_name: &str, id: EntryId, version: &Version, size: u64, block_size: u32) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("manifold 2026 block cache object key v2");
        for part in [source_name.as_bytes(), version.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&id.0.to_le_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&block_size.to_le_bytes());
        Self(first_16(hasher.finalize()))
    }
}

/// Names a source's folder in the disk cache: the first 8 bytes of a hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceTag(pub [u8; 8]);

impl SourceTag {
    /// Derives the tag from the source's canonical name.
    pub fn new(source_name: &str) -> Self {
        let hash = blake3::derive_key("manifold 2026 block cache source tag v1", source_name.as_bytes());
        Self(std::array::from_fn(|i| hash[i]))
    }
}

/// Names one block in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockId {
    /// The object's version.
    pub(crate) object: ObjectKey,
    /// Which block of it, from 0.
    pub(crate) index: u64,
}

/// Names one object's files on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DiskKey {
    /// Whose folder it lies in.
    pub(crate) source: SourceTag,
    /// The object's version.
    pub(crate) object: ObjectKey,
}

/// What the cache must know of an object to keep its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Where it lies.
    pub(crate) key: DiskKey,
    /// The object's length in bytes.
    pub(crate) size: u64,
    /// The length of each block but the last, in bytes.
    pub(crate) block_size: u32,
}

impl Shape {
    /// Counts the blocks of the whole object.
    pub(crate) fn block_count(&self) -> u64 {
        self.size.div_ceil(u64::from(self.block_size))
    }

    /// Gives the length of one block, in bytes: only the last may be shorter. 0 beyond the end.
    pub(crate) fn block_len(&self, index: u64) -> u64 {
        let start = index.saturating_mul(u64::from(self.block_size));
        self.size.saturating_sub(start).min(u64::from(self.block_size))
    }

    /// Names one block.
    pub(crate) fn block(&self, index: u64) -> BlockId {
        BlockId {
            object: self.key.object,
            index,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SourceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SourceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// Reads back what the keys' `Display` wrote; `None` for anything else.
pub(crate) fn parse_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn first_16(hash: blake3::Hash) -> [u8; 16] {
    std::array::from_fn(|i| hash.as_bytes()[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, id: u64, version: &[u8], block_size: u32) -> ObjectKey {
        ObjectKey::new(source, EntryId(id), &Version::from_stored(version), 10, block_size)
    }

    #[test]
    fn keys_differ_in_each_part_and_where_one_part_ends_and_the_next_begins() {
        let base = key("s", 7, b"v", 65536);
        for other in [
            key("t", 7, b"v", 65536),
            key("s", 8, b"v", 65536),
            key("sv", 7, b"", 65536),
            key("s", 7, b"w", 65536),
            key("s", 7, b"v", 131_072),
            key("s", 7, b"", 65536),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, key("s", 7, b"v", 65536));
    }

    #[test]
    fn hex_reads_back_and_refuses_what_it_did_not_write() {
        let tag = SourceTag::new("smb://nas/share");
        assert_eq!(parse_hex(tag.to_string().as_bytes()), Some(tag.0));
        assert_eq!(parse_hex::<8>(b"0123456789ABCDEF"), None);
        assert_eq!(parse_hex::<8>(b"0123456789abcde"), None);
        assert_eq!(parse_hex::<2>("äb".as_bytes()), None);
    }
}
