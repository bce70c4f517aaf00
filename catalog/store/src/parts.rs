//! Uploads in parts that were begun, and of which a source keeps what has arrived until somebody ends them.
//!
//! A row of an upload is durable before anything of it is sent. It stays until the upload has ended at the source, whatever
//! becomes of the entry that was uploaded: else what was sent would lie there for good. It goes with its source.

use crate::error::{Error, Result};
use crate::format::{PART_TEXT_MAX, PartUploadRow, SentPartRow, part_place, part_range};
use crate::store::When;
use crate::{Catalog, EntryId, SourceId};

/// Names an upload in parts. None is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartUploadId(pub u64);

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartUpload {
    /// The source.
    pub source: SourceId,
    /// What is uploaded. It may be gone.
    pub entry: EntryId,
    /// The length in bytes of what was to be uploaded.
    pub size: u64,
    /// When its bytes were changed last, in nanoseconds since 1970 UTC, by the clock of the disk on which they are staged.
    pub written_ns: i64,
    /// The path of the object beneath the source's root.
    pub path: Vec<u8>,
    /// What the source calls the upload; not empty.
    pub name: Vec<u8>,
}

/// A part that the source has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPart {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its length in bytes.
    pub length: u64,
    /// The MD5 of its bytes, or the first half of their BLAKE3.
    pub sum: [u8; 16],
    /// What the source calls it.
    pub tag: Vec<u8>,
}

impl Catalog {
    /// Notes that an upload in parts has begun. Durable when it returns.
    ///
    /// Refused where a text is longer than 64 KiB, or the source is not there.
    pub fn begin_part_upload(&self, upload: &PartUpload) -> Result<PartUploadId> {
        if upload.name.is_empty() || upload.name.len() > PART_TEXT_MAX || upload.path.len() > PART_TEXT_MAX {
            return Err(refused(upload.entry));
        }
        let row = PartUploadRow {
            source: upload.source.0,
            entry: upload.entry.0,
            size: upload.size,
            written_ns: upload.written_ns,
            path: upload.path.clone(),
            name: upload.name.clone(),
        };
        let (id, _) = self.store().write(When::Now, |edit| edit.begin_part_upload(&row))?;
        Ok(PartUploadId(id))
    }

    /// Notes that a part has arrived, if its upload has not ended. A loss of power may take that back.
    pub fn note_sent_part(&self, id: PartUploadId, part: &SentPart) -> Result<()> {
        if part.tag.len() > PART_TEXT_MAX {
            return Err(refused(EntryId(id.0)));
        }
        let row = SentPartRow {
            length: part.length,
            sum: part.sum,
            tag: part.tag.clone(),
        };
        let noted = self
            .store()
            .write(When::Told, |edit| edit.note_sent_part(id.0, part.number, &row));
        noted.map(drop)
    }

    /// Notes that an upload has ended at its source, and forgets its parts. A loss of power may take that back.
    pub fn end_part_upload(&self, id: PartUploadId) -> Result<()> {
        let ended = self.store().write(When::Told, |edit| edit.end_part_upload(id.0));
        ended.map(drop)
    }

    /// Lists the uploads in parts that have not ended, in the order in which they began.
    pub fn part_uploads(&self) -> Result<Vec<(PartUploadId, PartUpload)>> {
        self.store().read(|snapshot| {
            let rows = snapshot.part_uploads.range::<u64>(..)?.map(|row| {
                let (id, row) = row?;
                let row = PartUploadRow::decode(row.value())?;
                let upload = PartUpload {
                    source: SourceId(row.source),
                    entry: EntryId(row.entry),
                    size: row.size,
                    written_ns: row.written_ns,
                    path: row.path,
                    name: row.name,
                };
                Ok((PartUploadId(id.value()), upload))
            });
            rows.collect()
        })
    }

    /// Lists the parts of an upload that have arrived, in the order of their numbers.
    pub fn sent_parts(&self, id: PartUploadId) -> Result<Vec<SentPart>> {
        self.store().read(|snapshot| {
            let (first, last) = part_range(id.0);
            let rows = snapshot.sent_parts.range::<&[u8; 12]>(&first..=&last)?.map(|row| {
                let (key, row) = row?;
                let row = SentPartRow::decode(row.value())?;
                Ok(SentPart {
                    number: part_place(key.value()).1,
                    length: row.length,
                    sum: row.sum,
                    tag: row.tag,
                })
            });
            rows.collect()
        })
    }
}

fn refused(directory: EntryId) -> Error {
    Error::Refused {
        directory,
        what: "upload of",
        name: Box::default(),
        why: "its path, or what the source calls it, is empty or too long",
    }
}
