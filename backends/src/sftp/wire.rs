//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02): requests written, answers read.
//!
//! Nothing an answer claims is believed: every length is checked against the bytes that are there, and no memory is set
//! aside for what was only announced.

use super::attributes::Attributes;

/// The longest packet that is read, in bytes: the longest data asked for, and room for a listing.
pub(super) const PACKET_MAX: u32 = 1 << 20;

pub(super) const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const STAT: u8 = 17;
const READLINK: u8 = 19;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// A question to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Stat(Vec<u8>),
    Lstat(Vec<u8>),
    Fstat(Vec<u8>),
    OpenFile(Vec<u8>),
    OpenDirectory(Vec<u8>),
    ReadDirectory(Vec<u8>),
    ReadLink(Vec<u8>),
    Read { handle: Vec<u8>, offset: u64, length: u32 },
    Close(Vec<u8>),
}

impl Request {
    /// Writes the packet, its length first.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        let (kind, subject) = match self {
            Self::Stat(path) => (STAT, path),
            Self::Lstat(path) => (LSTAT, path),
            Self::Fstat(handle) => (FSTAT, handle),
            Self::OpenFile(path) => (OPEN, path),
            Self::OpenDirectory(path) => (OPENDIR, path),
            Self::ReadDirectory(handle) => (READDIR, handle),
            Self::ReadLink(path) => (READLINK, path),
            Self::Read { handle, .. } => (READ, handle),
            Self::Close(handle) => (CLOSE, handle),
        };
        let mut packet = vec![0; 4];
        packet.push(kind);
        packet.extend_from_slice(&id.to_be_bytes());
        packet.extend_from_slice(&(subject.len() as u32).to_be_bytes());
        packet.extend_from_slice(subject);
        match self {
            // Read only, no attributes.
            Self::OpenFile(_) => packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]),
            Self::Read { offset, length, .. } => {
                packet.extend_from_slice(&offset.to_be_bytes());
                packet.extend_from_slice(&length.to_be_bytes());
            }
            _ => {}
        }
        let length = (packet.len() - 4) as u32;
        packet[..4].copy_from_slice(&length.to_be_bytes());
        packet
    }
}

/// What a server says of a request that gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    EndOfFile,
    NoSuchFile,
    PermissionDenied,
    Failure,
    BadMessage,
    ConnectionLost,
    Unsupported,
    Other(u32),
}

/// One child in a listing, or where a link points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status, String),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<Name>),
    Attributes(Attributes),
}

/// Reads the answer to the first packet: the version that the server speaks.
pub(super) fn decode_version(packet: &[u8]) -> Option<u32> {
    let mut rest = packet;
    (byte(&mut rest)? == VERSION).then(|| number(&mut rest))?
}

/// Reads an answer, and the number of the request that it belongs to.
pub(super) fn decode(packet: &[u8]) -> Option<(u32, Option<Reply>)> {
    let mut rest = packet;
    let kind = byte(&mut rest)?;
    let id = number(&mut rest)?;
    Some((id, body(kind, rest)))
}

fn body(kind: u8, mut rest: &[u8]) -> Option<Reply> {
    Some(match kind {
        STATUS => {
            let status = match number(&mut rest)? {
                1 => Status::EndOfFile,
                2 => Status::NoSuchFile,
                3 => Status::PermissionDenied,
                4 => Status::Failure,
                5 => Status::BadMessage,
                6 | 7 => Status::ConnectionLost,
                8 => Status::Unsupported,
                other => Status::Other(other),
            };
            // Old servers give no words.
            let words = text(&mut rest).unwrap_or_default();
            Reply::Status(
                status,
                String::from_utf8_lossy(words)
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect(),
            )
        }
        HANDLE => Reply::Handle(text(&mut rest)?.to_vec()),
        DATA => Reply::Data(text(&mut rest)?.to_vec()),
        ATTRS => Reply::Attributes(attributes(&mut rest)?),
        NAME => {
            let count = number(&mut rest)?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = text(&mut rest)?.to_vec();
                let _as_ls_would_show_it = text(&mut rest)?;
                names.push(Name {
                    name,
                    attributes: attributes(&mut rest)?,
                });
            }
            Reply::Names(names)
        }
        _ => return None,
    })
}

fn attributes(rest: &mut &[u8]) -> Option<Attributes> {
    let flags = number(rest)?;
    let mut seen = Attributes::default();
    if flags & 1 != 0 {
        seen.size = Some(u64::from(number(rest)?) << 32 | u64::from(number(rest)?));
    }
    if flags & 2 != 0 {
        let _owner = (number(rest)?, number(rest)?);
    }
    if flags & 4 != 0 {
        seen.mode = Some(number(rest)?);
    }
    if flags & 8 != 0 {
        let _accessed = number(rest)?;
        seen.modified = Some(number(rest)?);
    }
    if flags & 0x8000_0000 != 0 {
        for _ in 0..number(rest)? {
            let _extension = (text(rest)?, text(rest)?);
        }
    }
    Some(seen)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (first, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*first))
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)? as usize;
    let (first, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_read_is_written_as_the_draft_says() {
        let request = Request::Read {
            handle: b"h".to_vec(),
            offset: 0x0102_0304_0506_0708,
            length: 9,
        };
        let expected = [
            0, 0, 0, 22, 5, 0, 0, 0, 7, 0, 0, 0, 1, b'h', 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9,
        ];
        assert_eq!(request.encode(7), expected);
    }

    #[test]
    fn a_listing_is_read_with_names_as_they_are() {
        let mut packet = vec![NAME, 0, 0, 0, 3, 0, 0, 0, 1];
        packet.extend_from_slice(b"\0\0\0\x02\xff\xfe\0\0\0\x01l");
        packet.extend_from_slice(b"\0\0\0\x0d\0\0\0\x01\0\0\0\x02\0\0\x81\xa4\0\0\0\x05\0\0\0\x06");
        let attributes = Attributes {
            size: Some((1 << 32) + 2),
            mode: Some(0o100_644),
            modified: Some(6),
        };
        let names = vec![Name {
            name: b"\xff\xfe".to_vec(),
            attributes,
        }];
        assert_eq!(decode(&packet), Some((3, Some(Reply::Names(names)))));
    }

    #[test]
    fn an_announced_count_sets_no_memory_aside() {
        assert_eq!(decode(&[NAME, 0, 0, 0, 3, 255, 255, 255, 255]), Some((3, None)));
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(packet in prop::collection::vec(any::<u8>(), 0..200), kind in 100_u8..107) {
            let _any = decode(&packet);
            let mut packet = packet;
            if let Some(first) = packet.first_mut() {
                *first = kind;
            }
            let _any = decode(&packet);
            let _any = decode_version(&packet);
        }
    }
}
