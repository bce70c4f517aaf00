//! The cold row: where an entry stands, and what `stat` does not need.

use zerocopy::byteorder::little_endian::{I64, U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;

const CREATED: u8 = 1;
const DEVICE: u8 = 2;
const IDENTITY: u8 = 4;
const CONTENT: u8 = 8;
const RAW_NAME: u8 = 16;
const ATTACH_POINT: u8 = 32;
const KNOWN: u8 = CREATED | DEVICE | IDENTITY | CONTENT | RAW_NAME | ATTACH_POINT;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    parent: U64,
    flags: u8,
    name_len: u8,
    version_len: U16,
}

/// A cold row, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColdView<'a> {
    pub(crate) parent: u64,
    pub(crate) name: &'a [u8],
    pub(crate) version: &'a [u8],
    /// What the source calls it, where that is not the name.
    pub(crate) raw_name: Option<&'a [u8]>,
    pub(crate) created_ns: Option<i64>,
    pub(crate) device: u64,
    pub(crate) identity: Option<[u8; 16]>,
    pub(crate) content: Option<[u8; 32]>,
    pub(crate) attach_point: bool,
}

/// A cold row, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cold {
    pub(crate) parent: u64,
    pub(crate) name: Box<[u8]>,
    pub(crate) version: Box<[u8]>,
    pub(crate) raw_name: Option<Box<[u8]>>,
    pub(crate) created_ns: Option<i64>,
    pub(crate) device: u64,
    pub(crate) identity: Option<[u8; 16]>,
    pub(crate) content: Option<[u8; 32]>,
    pub(crate) attach_point: bool,
}

impl<'a> ColdView<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes).ok_or(Malformed("details"))
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::read_from_prefix(bytes).ok()?;
        let flags = header.flags;
        if flags & !KNOWN != 0 {
            return None;
        }
        let (name, rest) = rest.split_at_checked(header.name_len.into())?;
        let (version, mut rest) = rest.split_at_checked(header.version_len.get().into())?;
        let raw_name = if flags & RAW_NAME == 0 {
            None
        } else {
            let (len, tail) = U16::read_from_prefix(rest).ok()?;
            let (raw, tail) = tail.split_at_checked(len.get().into())?;
            rest = tail;
            Some(raw)
        };
        let created_ns = if flags & CREATED == 0 {
            None
        } else {
            Some(i64::from_le_bytes(take::<8>(&mut rest)?))
        };
        let device = if flags & DEVICE == 0 {
            0
        } else {
            u64::from_le_bytes(take::<8>(&mut rest)?)
        };
        let identity = if flags & IDENTITY == 0 {
            None
        } else {
            Some(take::<16>(&mut rest)?)
        };
        let content = if flags & CONTENT == 0 {
            None
        } else {
            Some(take::<32>(&mut rest)?)
        };
        let attach_point = flags & ATTACH_POINT != 0;
        rest.is_empty().then_some(Self {
            parent: header.parent.get(),
            name,
            version,
            raw_name,
            created_ns,
            device,
            identity,
            content,
            attach_point,
        })
    }

    /// What the source calls it.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw_name.unwrap_or(self.name)
    }

    pub(crate) fn to_owned(self) -> Cold {
        Cold {
            parent: self.parent,
            name: self.name.into(),
            version: self.version.into(),
            raw_name: self.raw_name.map(Into::into),
            created_ns: self.created_ns,
            device: self.device,
            identity: self.identity,
            content: self.content,
            attach_point: self.attach_point,
        }
    }

    /// Writes the row. Lengths are those of valid names and versions, which fit.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        for (flag, set) in [
            (CREATED, self.created_ns.is_some()),
            (DEVICE, self.device != 0),
            (IDENTITY, self.identity.is_some()),
            (CONTENT, self.content.is_some()),
            (RAW_NAME, self.raw_name.is_some()),
            (ATTACH_POINT, self.attach_point),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let header = Header {
            parent: self.parent.into(),
            flags,
            name_len: self.name.len() as u8,
            version_len: (self.version.len() as u16).into(),
        };
        out.clear();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.version);
        if let Some(raw) = self.raw_name {
            out.extend_from_slice(U16::new(raw.len() as u16).as_bytes());
            out.extend_from_slice(raw);
        }
        if let Some(created_ns) = self.created_ns {
            out.extend_from_slice(I64::new(created_ns).as_bytes());
        }
        if self.device != 0 {
            out.extend_from_slice(U64::new(self.device).as_bytes());
        }
        out.extend_from_slice(self.identity.as_ref().map_or(&[], |bytes| &bytes[..]));
        out.extend_from_slice(self.content.as_ref().map_or(&[], |bytes| &bytes[..]));
    }
}

impl Cold {
    /// The row of a directory that no source told of.
    pub(crate) fn directory(parent: u64, name: &[u8], attach_point: bool) -> Self {
        Self {
            parent,
            name: name.into(),
            version: Box::default(),
            raw_name: None,
            created_ns: None,
            device: 0,
            identity: None,
            content: None,
            attach_point,
        }
    }

    pub(crate) fn view(&self) -> ColdView<'_> {
        ColdView {
            parent: self.parent,
            name: &self.name,
            version: &self.version,
            raw_name: self.raw_name.as_deref(),
            created_ns: self.created_ns,
            device: self.device,
            identity: self.identity,
            content: self.content,
            attach_point: self.attach_point,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        self.view().encode_into(&mut bytes);
        bytes
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
