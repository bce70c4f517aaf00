//! The requests and answers that the crate `smb2` does not give, or gives only with names that must be Unicode:
//! opening by UTF-16, all attributes of a file, pages of a directory, symbolic links.
//!
//! Owns no state. Formats are from MS-SMB2 and MS-FSCC, whose sections are named. Answers are read as if a hostile
//! server had written them: every offset and length is checked, and what does not fit is [`Malformed`].

use bytes::Bytes;
use smb2::msg::header::Header;
use smb2::pack::{Pack, WriteCursor};
use smb2::types::FileId;

use super::facts::Facts;

/// An answer that does not have the form its protocol gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed answer: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Reading bytes and attributes.
pub(super) const READ_FILE: u32 = 0x0010_0081;
/// Reading attributes alone, which even a file that another has opened for itself alone permits.
pub(super) const READ_ATTRIBUTES: u32 = 0x0010_0080;
/// Writing a new file, its attributes and its name: `FILE_WRITE_DATA`, `FILE_APPEND_DATA`, `FILE_READ_ATTRIBUTES`,
/// `FILE_WRITE_ATTRIBUTES`, `DELETE` (which a rename needs too) and `SYNCHRONIZE` (MS-SMB2 2.2.13.1.1).
pub(super) const WRITE_FILE: u32 = 0x0011_0186;
/// The same of a file that is there, and reading it: `FILE_READ_DATA` besides.
pub(super) const REWRITE_FILE: u32 = WRITE_FILE | 1;
/// Renaming and removing.
pub(super) const CHANGE_NAME: u32 = 0x0011_0080;
/// Changing attributes.
pub(super) const CHANGE_ATTRIBUTES: u32 = 0x0010_0180;
/// Listing a directory: the same bits as [`READ_FILE`].
pub(super) const LIST_DIRECTORY: u32 = READ_FILE;

/// The open fails unless a directory stands there (MS-SMB2 2.2.13).
pub(super) const DIRECTORY_FILE: u32 = 0x0000_0001;
/// The open fails if a directory stands there.
pub(super) const NON_DIRECTORY_FILE: u32 = 0x0000_0040;
/// The link itself is opened, not what it points to.
pub(super) const OPEN_REPARSE_POINT: u32 = 0x0020_0000;

/// `FileAllInformation` (MS-FSCC 2.4.2).
pub(super) const ALL_INFORMATION: u8 = 18;
/// `FileAttributeTagInformation` (MS-FSCC 2.4.6).
pub(super) const ATTRIBUTE_TAG_INFORMATION: u8 = 35;
/// Asks for what a reparse point holds (MS-FSCC 2.3.30).
pub(super) const FSCTL_GET_REPARSE_POINT: u32 = 0x0009_00A8;

/// Opens what exists, and nothing else (MS-SMB2 2.2.13).
pub(super) const FILE_OPEN: u32 = 1;
/// Makes what does not exist, and nothing else.
pub(super) const FILE_CREATE: u32 = 2;
/// Opens what exists, or makes it.
pub(super) const FILE_OPEN_IF: u32 = 3;

/// `FileBasicInformation` (MS-FSCC 2.4.7).
pub(super) const BASIC_INFORMATION: u8 = 4;
/// `FileRenameInformation` (MS-FSCC 2.4.42).
pub(super) const RENAME_INFORMATION: u8 = 10;
/// `FileDispositionInformation` (MS-FSCC 2.4.11).
pub(super) const DISPOSITION_INFORMATION: u8 = 13;
/// `FileEndOfFileInformation` (MS-FSCC 2.4.13).
pub(super) const END_OF_FILE_INFORMATION: u8 = 20;
const SHARE_READ_WRITE_DELETE: u32 = 7;
const IMPERSONATION: u32 = 2;

/// Gives the name for `FileRenameInformation`: from the share's root, as every name.
pub(super) fn rename_information(name: &[u16], replace: bool) -> Vec<u8> {
    let mut bytes = vec![u8::from(replace)];
    bytes.extend([0; 7]); // Reserved
    bytes.extend([0; 8]); // RootDirectory
    bytes.extend((name.len() as u32 * 2).to_le_bytes());
    bytes.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
    // Servers want room for the structure's padding too.
    bytes.resize(bytes.len().max(24), 0);
    bytes
}

/// Gives the time of the last write for `FileBasicInformation`, in units of 100 ns since 1601; 0 leaves the others as they are.
pub(super) fn basic_information(modified: u64) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[16..24].copy_from_slice(&modified.to_le_bytes());
    bytes
}

/// Opens or makes something (MS-SMB2 2.2.13), shared with everyone, without an oplock.
pub(super) struct Open<'a> {
    /// The path from the share's root, in wire form.
    pub(super) name: &'a [u16],
    /// What the handle is for.
    pub(super) access: u32,
    /// Create options.
    pub(super) options: u32,
    /// [`FILE_OPEN`], [`FILE_CREATE`] or [`FILE_OPEN_IF`].
    pub(super) disposition: u32,
}

impl Pack for Open<'_> {
    fn pack(&self, cursor: &mut WriteCursor) {
        let start = cursor.position();
        cursor.write_u16_le(57); // StructureSize
        cursor.write_u8(0); // SecurityFlags
        cursor.write_u8(0); // RequestedOplockLevel: none
        cursor.write_u32_le(IMPERSONATION);
        cursor.write_u64_le(0); // SmbCreateFlags
        cursor.write_u64_le(0); // Reserved
        cursor.write_u32_le(self.access);
        cursor.write_u32_le(0); // FileAttributes
        cursor.write_u32_le(SHARE_READ_WRITE_DELETE);
        cursor.write_u32_le(self.disposition);
        cursor.write_u32_le(self.options);
        // The name follows the fixed part: NameOffset and NameLength (2 each), no contexts (offset and length, 4 each).
        let offset = Header::SIZE + (cursor.position() - start) + 12;
        cursor.write_u16_le(offset as u16);
        cursor.write_u16_le((self.name.len() * 2) as u16);
        cursor.write_u64_le(0);
        for unit in self.name {
            cursor.write_u16_le(*unit);
        }
        if self.name.is_empty() {
            cursor.write_u8(0); // The buffer is never empty.
        }
    }
}

/// Writes (MS-SMB2 2.2.21), without a copy of the bytes of its own.
pub(super) struct Write<'a> {
    /// The open file.
    pub(super) handle: FileId,
    /// Where in the file the bytes begin.
    pub(super) offset: u64,
    /// The bytes.
    pub(super) bytes: &'a [u8],
}

impl Pack for Write<'_> {
    fn pack(&self, cursor: &mut WriteCursor) {
        const FIXED: usize = 48;
        cursor.write_u16_le(FIXED as u16 + 1); // StructureSize
        cursor.write_u16_le((Header::SIZE + FIXED) as u16); // DataOffset
        cursor.write_u32_le(self.bytes.len() as u32);
        cursor.write_u64_le(self.offset);
        cursor.write_u64_le(self.handle.persistent);
        cursor.write_u64_le(self.handle.volatile);
        cursor.write_u64_le(0); // Channel: none; RemainingBytes
        cursor.write_u64_le(0); // WriteChannelInfoOffset and -Length; Flags
        cursor.write_bytes(self.bytes);
        if self.bytes.is_empty() {
            cursor.write_u8(0); // The buffer is never empty.
        }
    }
}

/// Reads `FileAllInformation`; the tag of a reparse point comes separately.
pub(super) fn all_information(bytes: &[u8]) -> Result<Facts, Malformed> {
    let bytes = Fields(bytes);
    Ok(Facts {
        created: bytes.u64(0)?,
        modified: bytes.u64(16)?,
        changed: bytes.u64(24)?,
        attributes: bytes.u32(32)?,
        size: bytes.u64(48)?,
        links: bytes.u32(56)?,
        delete_pending: bytes.u8(60)? != 0,
        index: bytes.u64(64)?,
        tag: 0,
    })
}

/// Reads the tag from `FileAttributeTagInformation`.
pub(super) fn reparse_tag(bytes: &[u8]) -> Result<u32, Malformed> {
    Fields(bytes).u32(4)
}

/// Gives the output buffer of a `QUERY_INFO` or `QUERY_DIRECTORY` answer (MS-SMB2 2.2.38, 2.2.34).
pub(super) fn output_buffer(body: &[u8]) -> Result<&[u8], Malformed> {
    let fields = Fields(body);
    let offset = usize::from(fields.u16(2)?);
    let length = fields.u32(4)? as usize;
    slice_from_header(body, offset, length)
}

/// Gives the bytes of a `READ` answer (MS-SMB2 2.2.20), without copying them.
pub(super) fn read_data(body: Vec<u8>) -> Result<Bytes, Malformed> {
    let fields = Fields(&body);
    let offset = usize::from(fields.u8(2)?);
    let length = fields.u32(4)? as usize;
    if length == 0 {
        return Ok(Bytes::new());
    }
    let start = offset
        .checked_sub(Header::SIZE)
        .ok_or(Malformed("data before the answer's body"))?;
    let end = start
        .checked_add(length)
        .filter(|end| *end <= body.len())
        .ok_or(Malformed("data beyond the answer"))?;
    Ok(Bytes::from(body).slice(start..end))
}

fn slice_from_header(body: &[u8], offset: usize, length: usize) -> Result<&[u8], Malformed> {
    if length == 0 {
        return Ok(&[]);
    }
    let start = offset
        .checked_sub(Header::SIZE)
        .ok_or(Malformed("data before the answer's body"))?;
    let end = start.checked_add(length).ok_or(Malformed("data beyond the answer"))?;
    body.get(start..end).ok_or(Malformed("data beyond the answer"))
}

/// Reads a page of `FileIdBothDirectoryInformation` (MS-FSCC 2.4.22), or of `FileBothDirectoryInformation` (2.4.8)
/// where `with_index` is false. `.` and `..` are left out.
pub(super) fn directory_page(bytes: &[u8], with_index: bool) -> Result<Vec<(Vec<u16>, Facts)>, Malformed> {
    let name_at = if with_index { 104 } else { 94 };
    let mut entries = Vec::with_capacity(bytes.len() / 160);
    let mut rest = bytes;
    while !rest.is_empty() {
        let entry = Fields(rest);
        let next = entry.u32(0)? as usize;
        let attributes = entry.u32(56)?;
        let name_length = entry.u32(60)? as usize;
        let facts = Facts {
            created: entry.u64(8)?,
            modified: entry.u64(24)?,
            changed: entry.u64(32)?,
            size: entry.u64(40)?,
            attributes,
            // The size of the extended attributes, or the tag where the entry is a reparse point.
            tag: if attributes & Facts::REPARSE_POINT == 0 {
                0
            } else {
                entry.u32(64)?
            },
            index: if with_index { entry.u64(96)? } else { 0 },
            links: 1,
            delete_pending: false,
        };
        let name = rest
            .get(name_at..)
            .and_then(|bytes| bytes.get(..name_length))
            .ok_or(Malformed("a name beyond the page"))?;
        let name = utf16(name)?;
        if name.is_empty() {
            return Err(Malformed("an entry without a name"));
        }
        if name != DOT && name != DOT_DOT {
            entries.push((name, facts));
        }
        if next == 0 {
            break;
        }
        if next < name_at {
            return Err(Malformed("entries that overlap"));
        }
        rest = rest.get(next..).ok_or(Malformed("an entry beyond the page"))?;
    }
    Ok(entries)
}

const DOT: [u16; 1] = [b'.' as u16];
const DOT_DOT: [u16; 2] = [b'.' as u16; 2];

/// Where a link points, in the words of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// A path of Windows, to be turned into one with slashes.
    Windows(Vec<u16>),
    /// A path of Unix, as it is.
    Unix(Vec<u8>),
}

/// Reads a reparse point: a symbolic link of Windows (MS-FSCC 2.1.2.4), a junction (2.1.2.5), a link of WSL (2.1.2.7)
/// or of the NFS server (2.1.2.6). `None` if it is none of them.
pub(super) fn link_target(bytes: &[u8]) -> Result<Option<LinkTarget>, Malformed> {
    const NFS_LINK: u64 = 0x0000_0000_014B_4E4C;
    let fields = Fields(bytes);
    let tag = fields.u32(0)?;
    let length = usize::from(fields.u16(4)?);
    let data = bytes.get(8..8 + length).ok_or(Malformed("a link beyond the answer"))?;
    let fields = Fields(data);
    let windows = |names: usize| -> Result<LinkTarget, Malformed> {
        let part = |offset: usize| -> Result<Vec<u16>, Malformed> {
            let start = names + usize::from(fields.u16(offset)?);
            let end = start + usize::from(fields.u16(offset + 2)?);
            utf16(data.get(start..end).ok_or(Malformed("a link's name beyond the link"))?)
        };
        // The name to show; where it is empty, the name that the server itself uses.
        let shown = part(4)?;
        Ok(LinkTarget::Windows(if shown.is_empty() { part(0)? } else { shown }))
    };
    Ok(match tag {
        Facts::TAG_SYMLINK => Some(windows(12)?),
        Facts::TAG_MOUNT_POINT => Some(windows(8)?),
        Facts::TAG_LX_SYMLINK => Some(LinkTarget::Unix(
            data.get(4..).ok_or(Malformed("a short link"))?.to_vec(),
        )),
        Facts::TAG_NFS if fields.u64(0)? == NFS_LINK => Some(LinkTarget::Windows(utf16(&data[8..])?)),
        _ => None,
    })
}

fn utf16(bytes: &[u8]) -> Result<Vec<u16>, Malformed> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed("half a character"));
    }
    Ok(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
}

/// Little-endian numbers at fixed places.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn at<const N: usize>(&self, offset: usize) -> Result<[u8; N], Malformed> {
        self.0
            .get(offset..)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .ok_or(Malformed("shorter than its fixed part"))
    }

    fn u8(&self, offset: usize) -> Result<u8, Malformed> {
        self.at::<1>(offset).map(|[byte]| byte)
    }

    fn u16(&self, offset: usize) -> Result<u16, Malformed> {
        self.at(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, Malformed> {
        self.at(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, Malformed> {
        self.at(offset).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
