//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02): requests written, answers read.
//!
//! Nothing an answer claims is believed: every length is checked against the bytes that are there, and no memory is set
//! aside for what was only announced.

use bytes::Bytes;

use super::attributes::Attributes;

/// The longest packet that is read, in bytes: the longest data asked for, and room for a listing.
pub(super) const PACKET_MAX: u32 = 1 << 20;

pub(super) const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const EXTENDED_REPLY: u8 = 201;

// Extensions of OpenSSH (its PROTOCOL, section 4), which others have taken over.
const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
const FSYNC: &[u8] = b"fsync@openssh.com";
const STATVFS: &[u8] = b"statvfs@openssh.com";

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
    Read {
        handle: Vec<u8>,
        offset: u64,
        length: u32,
    },
    Close(Vec<u8>),
    /// Opens a new file for writing, with a mode if one is given; fails if anything has that name.
    CreateFile(Vec<u8>, Option<u32>),
    /// Opens a file that is there for reading and writing.
    RewriteFile(Vec<u8>),
    Write {
        handle: Vec<u8>,
        offset: u64,
        data: Bytes,
    },
    SetStat(Vec<u8>, Change),
    FsetStat(Vec<u8>, Change),
    Remove(Vec<u8>),
    MakeDirectory(Vec<u8>),
    RemoveDirectory(Vec<u8>),
    /// Gives another name; fails if anything has it.
    Rename(Vec<u8>, Vec<u8>),
    /// Gives another name, in place of what has it.
    PosixRename(Vec<u8>, Vec<u8>),
    Fsync(Vec<u8>),
    FileSystem(Vec<u8>),
}

/// Attributes to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    /// Seconds since 1970, for the last access and the last change of the bytes alike: they can only be set together.
    pub(super) times: Option<u32>,
}

impl Change {
    fn encode(self, packet: &mut Vec<u8>) {
        let flags = u32::from(self.mode.is_some()) << 2 | u32::from(self.times.is_some()) << 3;
        packet.extend_from_slice(&flags.to_be_bytes());
        for number in self.mode.into_iter().chain(self.times).chain(self.times) {
            packet.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// What a server can do beyond the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Extensions {
    pub(super) posix_rename: bool,
    pub(super) fsync: bool,
    pub(super) file_system: bool,
}

/// What a server tells of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Bytes that are left for this user.
    pub(super) free: u64,
    /// File numbers that are left for this user.
    pub(super) free_files: u64,
    pub(super) read_only: bool,
}

impl Request {
    /// Writes the packet, its length first.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        let (kind, subject) = match self {
            Self::Stat(path) => (STAT, path),
            Self::Lstat(path) => (LSTAT, path),
            Self::Fstat(handle) => (FSTAT, handle),
            Self::OpenFile(path) | Self::CreateFile(path, _) | Self::RewriteFile(path) => (OPEN, path),
            Self::OpenDirectory(path) => (OPENDIR, path),
            Self::ReadDirectory(handle) => (READDIR, handle),
            Self::ReadLink(path) => (READLINK, path),
            Self::Read { handle, .. } => (READ, handle),
            Self::Close(handle) => (CLOSE, handle),
            Self::Write { handle, .. } => (WRITE, handle),
            Self::SetStat(path, _) => (SETSTAT, path),
            Self::FsetStat(handle, _) => (FSETSTAT, handle),
            Self::Remove(path) => (REMOVE, path),
            Self::MakeDirectory(path) => (MKDIR, path),
            Self::RemoveDirectory(path) => (RMDIR, path),
            Self::Rename(from, _) => (RENAME, from),
            Self::PosixRename(from, _) | Self::Fsync(from) | Self::FileSystem(from) => (EXTENDED, from),
        };
        let mut packet = vec![0; 4];
        packet.push(kind);
        packet.extend_from_slice(&id.to_be_bytes());
        match self {
            Self::PosixRename(..) => put_text(&mut packet, POSIX_RENAME),
            Self::Fsync(_) => put_text(&mut packet, FSYNC),
            Self::FileSystem(_) => put_text(&mut packet, STATVFS),
            _ => {}
        }
        put_text(&mut packet, subject);
        match self {
            // Write, create and exclusive.
            Self::CreateFile(_, mode) => {
                packet.extend_from_slice(&[0, 0, 0, 0x2A]);
                let (mode, times) = (*mode, None);
                Change { mode, times }.encode(&mut packet);
            }
            // Read and write, no attributes.
            Self::RewriteFile(_) => packet.extend_from_slice(&[0, 0, 0, 3, 0, 0, 0, 0]),
            Self::MakeDirectory(_) => Change::default().encode(&mut packet),
            Self::SetStat(_, change) | Self::FsetStat(_, change) => change.encode(&mut packet),
            Self::Rename(_, to) | Self::PosixRename(_, to) => put_text(&mut packet, to),
            Self::Write { offset, data, .. } => {
                packet.extend_from_slice(&offset.to_be_bytes());
                put_text(&mut packet, data);
            }
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

fn put_text(packet: &mut Vec<u8>, text: &[u8]) {
    packet.extend_from_slice(&(text.len() as u32).to_be_bytes());
    packet.extend_from_slice(text);
}

/// What a server says of a request that gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
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
    FileSystem(FileSystem),
}

/// Reads the answer to the first packet: the version that the server speaks, and what else it can do.
pub(super) fn decode_version(packet: &[u8]) -> Option<(u32, Extensions)> {
    let mut rest = packet;
    let version = (byte(&mut rest)? == VERSION).then(|| number(&mut rest))??;
    let mut extensions = Extensions::default();
    while let (Some(name), Some(value)) = (text(&mut rest), text(&mut rest)) {
        match name {
            POSIX_RENAME => extensions.posix_rename = value == b"1",
            FSYNC => extensions.fsync = value == b"1",
            STATVFS => extensions.file_system = value == b"2",
            _ => {}
        }
    }
    Some((version, extensions))
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
                0 => Status::Good,
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
        // The one extension that is answered with more than a status.
        EXTENDED_REPLY => Reply::FileSystem(file_system(&mut rest)?),
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

/// Reads the eleven numbers of a `statvfs`.
fn file_system(rest: &mut &[u8]) -> Option<FileSystem> {
    let mut fields = [0; 11];
    for field in &mut fields {
        *field = u64::from(number(rest)?) << 32 | u64::from(number(rest)?);
    }
    let [_, fragment, _, _, available, _, _, files_available, _, flags, _] = fields;
    Some(FileSystem {
        free: fragment.saturating_mul(available),
        free_files: files_available,
        read_only: flags & 1 != 0,
    })
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
    fn what_changes_something_is_written_as_the_draft_says() {
        let change = Change {
            mode: Some(0o644),
            times: Some(7),
        };
        assert_eq!(
            Request::SetStat(b"p".to_vec(), change).encode(1),
            [
                0, 0, 0, 26, 9, 0, 0, 0, 1, 0, 0, 0, 1, b'p', 0, 0, 0, 12, 0, 0, 1, 0xA4, 0, 0, 0, 7, 0, 0, 0, 7
            ]
        );
        let write = Request::Write {
            handle: b"h".to_vec(),
            offset: 1 << 32,
            data: Bytes::from_static(b"ab"),
        };
        assert_eq!(
            write.encode(2),
            [
                0, 0, 0, 24, 6, 0, 0, 0, 2, 0, 0, 0, 1, b'h', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'
            ]
        );
        let rename = Request::PosixRename(b"a".to_vec(), b"b".to_vec()).encode(3);
        assert_eq!(rename[4..9], [200, 0, 0, 0, 3]);
        assert!(rename.ends_with(b"posix-rename@openssh.com\0\0\0\x01a\0\0\0\x01b"));
    }

    #[test]
    fn a_server_says_what_more_it_can_do() {
        let mut packet = vec![VERSION, 0, 0, 0, 3];
        for (name, value) in [
            (POSIX_RENAME, &b"1"[..]),
            (b"other", b"1"),
            (STATVFS, b"1"),
            (FSYNC, b"1"),
        ] {
            put_text(&mut packet, name);
            put_text(&mut packet, value);
        }
        let known = Extensions {
            posix_rename: true,
            fsync: true,
            file_system: false,
        };
        assert_eq!(decode_version(&packet), Some((3, known)));
        assert_eq!(decode_version(&packet[..5]), Some((3, Extensions::default())));
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
