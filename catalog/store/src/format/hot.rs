//! The hot row: everything `stat` needs, so that a listing brings its attributes along.

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Cold;
use super::Malformed;
use crate::{Entry, EntryId, Kind, SeenAttributes, SourceId};

/// Length of a hot row.
pub(crate) const HOT_BYTES: usize = size_of::<HotRow>();

const OWNER_KNOWN: u8 = 1;
const ATTACH_POINT: u8 = 2;
const MODE_KEPT: u8 = 4;
const TIME_KEPT: u8 = 8;
const OWNER_KEPT: u8 = 16;
const MORE_KEPT: u8 = 32;
/// Flags of what is the catalog's own, whatever a source says.
const KEPT: u8 = MODE_KEPT | TIME_KEPT | OWNER_KEPT | MORE_KEPT;
const KIND_SHIFT: u16 = 12;
const MODE_MASK: u16 = 0o7777;

/// A hot row as it stands in the file: little-endian, unaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct HotRow {
    id: U64,
    size: U64,
    modified_ns: I64,
    changed_ns: I64,
    source: U32,
    kind_and_mode: U16,
    flags: u8,
    uid: U32,
    gid: U32,
    links: U32,
}

impl HotRow {
    /// Builds the row of something that a source told of.
    pub(crate) fn of(id: u64, source: u32, seen: &SeenAttributes) -> Self {
        let (uid, gid) = seen.owner.unwrap_or_default();
        Self {
            id: id.into(),
            size: if seen.kind == Kind::Directory { 0 } else { seen.size }.into(),
            modified_ns: seen.modified_ns.into(),
            changed_ns: seen.changed_ns.into(),
            source: source.into(),
            kind_and_mode: (kind_code(seen.kind) << KIND_SHIFT | seen.mode & MODE_MASK).into(),
            flags: if seen.owner.is_some() { OWNER_KNOWN } else { 0 },
            uid: uid.into(),
            gid: gid.into(),
            links: seen.links.into(),
        }
    }

    /// Builds the row of a directory that no source told of: the library's own, or an attach point.
    pub(crate) fn directory(id: u64, source: u32, attach_point: bool) -> Self {
        Self {
            id: id.into(),
            size: 0.into(),
            modified_ns: 0.into(),
            changed_ns: 0.into(),
            source: source.into(),
            kind_and_mode: (kind_code(Kind::Directory) << KIND_SHIFT | 0o755).into(),
            flags: if attach_point { ATTACH_POINT } else { 0 },
            uid: 0.into(),
            gid: 0.into(),
            links: 2.into(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let row = Self::read_from_bytes(bytes).map_err(|_| Malformed("attributes"))?;
        let is_known = row.flags & !(OWNER_KNOWN | ATTACH_POINT | KEPT) == 0;
        let has_owner = row.flags & (OWNER_KNOWN | OWNER_KEPT) != OWNER_KEPT;
        if !is_known || !has_owner || kind_of(row.kind_and_mode.get() >> KIND_SHIFT).is_none() {
            return Err(Malformed("attributes"));
        }
        Ok(row)
    }

    pub(crate) fn encode(&self) -> [u8; HOT_BYTES] {
        let mut bytes = [0; HOT_BYTES];
        bytes.copy_from_slice(self.as_bytes());
        bytes
    }

    pub(crate) fn id(&self) -> u64 {
        self.id.get()
    }

    pub(crate) fn source(&self) -> u32 {
        self.source.get()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.get()
    }

    pub(crate) fn kind(&self) -> Kind {
        kind_of(self.kind_and_mode.get() >> KIND_SHIFT).expect("invariant: rows are decoded or built with a known kind")
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == Kind::Directory
    }

    pub(crate) fn is_attach_point(&self) -> bool {
        self.flags & ATTACH_POINT != 0
    }

    pub(crate) fn with_attach_point(mut self, attach_point: bool) -> Self {
        self.flags = self.flags & !ATTACH_POINT | if attach_point { ATTACH_POINT } else { 0 };
        self
    }

    /// Tells whether anything of the entry is kept over what its source says.
    pub(crate) fn keeps_anything(&self) -> bool {
        self.flags & KEPT != 0
    }

    /// Tells whether the time of the last change is kept.
    pub(crate) fn keeps_time(&self) -> bool {
        self.flags & TIME_KEPT != 0
    }

    /// Tells whether more is kept, in a row of its own.
    pub(crate) fn keeps_more(&self) -> bool {
        self.flags & MORE_KEPT != 0
    }

    pub(crate) fn modified_ns(&self) -> i64 {
        self.modified_ns.get()
    }

    /// Gives the row of what a source says with all that `before` keeps; the times only if `with_times`.
    pub(crate) fn keeping(mut self, before: &Self, with_times: bool) -> Self {
        if !before.keeps_anything() {
            return self;
        }
        let mut flags = before.flags & (MODE_KEPT | OWNER_KEPT | MORE_KEPT);
        if flags & MODE_KEPT != 0 {
            let kind = self.kind_and_mode.get() & !MODE_MASK;
            self.kind_and_mode = (kind | before.kind_and_mode.get() & MODE_MASK).into();
        }
        if flags & OWNER_KEPT != 0 {
            (self.uid, self.gid) = (before.uid, before.gid);
            flags |= OWNER_KNOWN;
        }
        if with_times {
            // The time of the last change of the attributes is that of what is kept, too.
            self.changed_ns = before.changed_ns;
            if before.keeps_time() {
                self.modified_ns = before.modified_ns;
                flags |= TIME_KEPT;
            }
        }
        self.flags |= flags;
        self
    }

    pub(crate) fn changed_ns(&self) -> i64 {
        self.changed_ns.get()
    }

    /// Keeps permission bits.
    pub(crate) fn with_mode(mut self, mode: u16) -> Self {
        self.kind_and_mode = (self.kind_and_mode.get() & !MODE_MASK | mode & MODE_MASK).into();
        self.flags |= MODE_KEPT;
        self
    }

    /// Keeps an owner and a group.
    pub(crate) fn with_owner(mut self, (uid, gid): (u32, u32)) -> Self {
        (self.uid, self.gid) = (uid.into(), gid.into());
        self.flags |= OWNER_KNOWN | OWNER_KEPT;
        self
    }

    /// Keeps the time of the last change.
    pub(crate) fn with_time(mut self, modified_ns: i64) -> Self {
        self.modified_ns = modified_ns.into();
        self.flags |= TIME_KEPT;
        self
    }

    /// Sets the time of the last change, which is not kept any more.
    pub(crate) fn without_time(mut self, modified_ns: i64) -> Self {
        self.modified_ns = modified_ns.into();
        self.flags &= !TIME_KEPT;
        self
    }

    /// Sets the time of the last change of the attributes.
    pub(crate) fn with_changed(mut self, changed_ns: i64) -> Self {
        self.changed_ns = changed_ns.into();
        self
    }

    /// Says whether more is kept, in a row of its own.
    pub(crate) fn with_more(mut self, more: bool) -> Self {
        self.flags = self.flags & !MORE_KEPT | if more { MORE_KEPT } else { 0 };
        self
    }

    /// Says that nothing is kept.
    pub(crate) fn without_kept(mut self) -> Self {
        self.flags &= !KEPT;
        self
    }

    /// Gives what the source said of the entry, as far as the two rows keep it: all of it, but for what is kept instead.
    pub(crate) fn seen(&self, cold: &Cold) -> SeenAttributes {
        let has_owner = self.flags & OWNER_KNOWN != 0;
        SeenAttributes {
            kind: self.kind(),
            size: self.size(),
            modified_ns: self.modified_ns.get(),
            changed_ns: self.changed_ns.get(),
            created_ns: cold.created_ns,
            mode: self.kind_and_mode.get() & MODE_MASK,
            owner: has_owner.then(|| (self.uid.get(), self.gid.get())),
            links: self.links.get(),
            device: cold.device,
            version: cold.version.clone(),
            identity: cold.identity,
        }
    }

    /// Turns the row into what callers see.
    pub(crate) fn entry(&self, parent: u64, name: &[u8]) -> Entry {
        let id = EntryId(self.id());
        Entry {
            id,
            parent: if id == EntryId::ROOT { id } else { EntryId(parent) },
            name: name.into(),
            kind: self.kind(),
            size: self.size(),
            modified_ns: self.modified_ns.get(),
            changed_ns: self.changed_ns.get(),
            mode: self.kind_and_mode.get() & MODE_MASK,
            owner: (self.flags & OWNER_KNOWN != 0).then(|| (self.uid.get(), self.gid.get())),
            links: self.links.get(),
            source: SourceId(self.source()),
            attach_point: self.is_attach_point(),
            keeps_time: self.keeps_time(),
            keeps_more: self.keeps_more(),
        }
    }
}

/// The codes are those of `st_mode`'s upper four bits.
fn kind_code(kind: Kind) -> u16 {
    match kind {
        Kind::Fifo => 1,
        Kind::CharDevice => 2,
        Kind::Directory => 4,
        Kind::BlockDevice => 6,
        Kind::File => 8,
        Kind::Symlink => 10,
        Kind::Socket => 12,
    }
}

fn kind_of(code: u16) -> Option<Kind> {
    Some(match code {
        1 => Kind::Fifo,
        2 => Kind::CharDevice,
        4 => Kind::Directory,
        6 => Kind::BlockDevice,
        8 => Kind::File,
        10 => Kind::Symlink,
        12 => Kind::Socket,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        assert_eq!(HOT_BYTES, 51);
        let seen = SeenAttributes {
            kind: Kind::File,
            size: 0x0102_0304_0506_0708,
            modified_ns: -1,
            changed_ns: 2,
            created_ns: None,
            mode: 0o100_644,
            owner: Some((3, 4)),
            links: 5,
            device: 0,
            version: Box::default(),
            identity: None,
        };
        let bytes = HotRow::of(9, 6, &seen).encode();
        assert_eq!(bytes[..8], [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..24], [0xff; 8]);
        assert_eq!(bytes[24..32], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32..36], [6, 0, 0, 0]);
        assert_eq!(bytes[36..38], 0x81a4u16.to_le_bytes());
        assert_eq!(bytes[38..], [1, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn unknown_kinds_and_flags_are_malformed() {
        let good = HotRow::directory(1, 0, true).encode();
        assert!(HotRow::decode(&good).is_ok());
        let mut kind = good;
        kind[37] = 0x30;
        let mut flags = good;
        flags[38] = 0x80;
        let mut nobody = good;
        nobody[38] = OWNER_KEPT;
        for bad in [&kind[..], &flags, &nobody, &good[1..], &[]] {
            assert!(HotRow::decode(bad).is_err());
        }
    }
}
