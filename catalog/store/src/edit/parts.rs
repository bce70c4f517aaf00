//! Uploads in parts, and the parts that have arrived.

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use crate::SourceId;
use crate::error::{Error, Result};
use crate::format::{PartUploadRow, SentPartRow, part_key, part_range};

impl Edit<'_> {
    /// Puts an upload that begins, and gives its number.
    pub(crate) fn begin_part_upload(&mut self, row: &PartUploadRow) -> Result<u64> {
        if self.sources.get(row.source)?.is_none() {
            return Err(Error::NoSource(SourceId(row.source)));
        }
        let id = self.allocate_id();
        self.part_uploads.insert(id, row.encode().as_slice())?;
        Ok(id)
    }

    /// Puts a part, unless its upload has ended.
    pub(crate) fn note_sent_part(&mut self, upload: u64, number: u32, row: &SentPartRow) -> Result<()> {
        if self.part_uploads.get(upload)?.is_some() {
            self.sent_parts
                .insert(&part_key(upload, number), row.encode().as_slice())?;
        }
        Ok(())
    }

    /// Takes an upload away, with its parts.
    pub(crate) fn end_part_upload(&mut self, upload: u64) -> Result<()> {
        if self.part_uploads.is_empty()? || self.part_uploads.remove(upload)?.is_none() {
            return Ok(());
        }
        let (first, last) = part_range(upload);
        let mut keys = Vec::new();
        for row in self.sent_parts.range::<&[u8; 12]>(&first..=&last)? {
            keys.push(*row?.0.value());
        }
        for key in keys {
            self.sent_parts.remove(&key)?;
        }
        Ok(())
    }

    /// Takes the uploads of a source away.
    pub(crate) fn drop_part_uploads_of(&mut self, source: SourceId) -> Result<()> {
        let mut uploads = Vec::new();
        for row in self.part_uploads.iter()? {
            let (id, row) = row?;
            if PartUploadRow::decode(row.value())?.source == source.0 {
                uploads.push(id.value());
            }
        }
        uploads.into_iter().try_for_each(|upload| self.end_part_upload(upload))
    }
}
