//! Keys: big-endian numbers in front, so that their byte order is the order we walk in.

use std::ops::Range;

use super::Malformed;

/// The longest name of an entry, in bytes.
pub(crate) const NAME_MAX: usize = 255;

const PARENT_BYTES: usize = 8;

/// Key of an entry's hot row, built without allocation: parent, big-endian, then the name.
pub(crate) struct ChildKey {
    bytes: [u8; PARENT_BYTES + NAME_MAX],
    len: usize,
}

impl ChildKey {
    /// Builds the key; `None` for a name that is too long to be anyone's.
    pub(crate) fn new(parent: u64, name: &[u8]) -> Option<Self> {
        if name.len() > NAME_MAX {
            return None;
        }
        let mut bytes = [0; PARENT_BYTES + NAME_MAX];
        let len = PARENT_BYTES + name.len();
        bytes[..PARENT_BYTES].copy_from_slice(&parent.to_be_bytes());
        bytes[PARENT_BYTES..len].copy_from_slice(name);
        Some(Self { bytes, len })
    }

    /// The key under which something departed keeps its hot row: nowhere, by id.
    pub(crate) fn departed(id: u64) -> Self {
        Self::new(super::NOWHERE, &id.to_be_bytes()).expect("invariant: eight bytes fit")
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The keys of all children of a directory; empty end for the last possible id.
pub(crate) fn subtree_range(parent: u64) -> Range<[u8; PARENT_BYTES]> {
    parent.to_be_bytes()..parent.saturating_add(1).to_be_bytes()
}

/// Reads the parent from a hot row's key.
pub(crate) fn child_parent(key: &[u8]) -> Result<u64, Malformed> {
    key.first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or(Malformed("key of a child"))
}

/// Reads the name from a hot row's key.
pub(crate) fn child_name(key: &[u8]) -> Result<&[u8], Malformed> {
    match key.split_first_chunk::<PARENT_BYTES>() {
        Some((_, name)) if name.len() <= NAME_MAX => Ok(name),
        _ => Err(Malformed("key of a child")),
    }
}

/// Key by source, then id.
pub(crate) fn owned_key(source: u32, id: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&source.to_be_bytes());
    key[4..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Reads source and id back.
pub(crate) fn owned_id(key: &[u8; 12]) -> (u32, u64) {
    let (source, id) = key.split_first_chunk().expect("invariant: twelve bytes");
    let id = id.first_chunk().expect("invariant: eight bytes are left");
    (u32::from_be_bytes(*source), u64::from_be_bytes(*id))
}

/// First and last key of a source.
pub(crate) fn owned_range(source: u32) -> ([u8; 12], [u8; 12]) {
    (owned_key(source, 0), owned_key(source, u64::MAX))
}

/// Key by source, identity, then id: hard links share an identity.
pub(crate) fn identity_key(source: u32, identity: &[u8; 16], id: u64) -> [u8; 28] {
    let mut key = [0; 28];
    key[..4].copy_from_slice(&source.to_be_bytes());
    key[4..20].copy_from_slice(identity);
    key[20..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Reads the id back.
pub(crate) fn identity_id(key: &[u8; 28]) -> u64 {
    u64::from_be_bytes(*key.last_chunk().expect("invariant: 28 bytes"))
}

/// First and last key of an identity.
pub(crate) fn identity_range(source: u32, identity: &[u8; 16]) -> ([u8; 28], [u8; 28]) {
    (
        identity_key(source, identity, 0),
        identity_key(source, identity, u64::MAX),
    )
}

/// Key by content, then id: replicas share a content.
pub(crate) fn content_key(content: &[u8; 32], id: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(content);
    key[32..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Reads the id back.
pub(crate) fn content_id(key: &[u8; 40]) -> u64 {
    u64::from_be_bytes(*key.last_chunk().expect("invariant: 40 bytes"))
}

/// First and last key of a content.
pub(crate) fn content_range(content: &[u8; 32]) -> ([u8; 40], [u8; 40]) {
    (content_key(content, 0), content_key(content, u64::MAX))
}

/// Says why bytes cannot be the name of an entry.
pub(crate) fn name_fault(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("it is empty"),
        b"." | b".." => Some("it means a directory itself or the one above"),
        _ if name.len() > NAME_MAX => Some("it is longer than 255 bytes"),
        _ if memchr::memchr2(b'/', 0, name).is_some() => Some("it holds a slash or a NUL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_directory_lie_together_in_the_order_of_names() {
        let key = |parent, name: &[u8]| ChildKey::new(parent, name).unwrap().as_slice().to_vec();
        let range = subtree_range(0x1ff);
        let inside = [
            key(0x1ff, b""),
            key(0x1ff, b"A"),
            key(0x1ff, b"a"),
            key(0x1ff, b"a b"),
            key(0x1ff, &[0xff; 255]),
        ];
        assert!(inside.is_sorted());
        for key in &inside {
            assert!(range.start.as_slice() <= key.as_slice() && key.as_slice() < range.end.as_slice());
        }
        assert!(key(0x200, b"").as_slice() >= range.end.as_slice());
        assert!(key(0x1fe, &[0xff; 255]).as_slice() < range.start.as_slice());
    }

    #[test]
    fn names_that_a_path_cannot_hold_are_faulty() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(name_fault(name).is_some(), "{name:?}");
        }
        for name in [&b"..."[..], b".a", b"a\nb", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(name_fault(name), None, "{name:?}");
        }
    }
}
