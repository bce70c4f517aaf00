//! Uploads in parts, and the parts that have arrived.

use redb::{ReadableTable, ReadableTableMetadata};

use super::Edit;
use super::follow::Place;
use crate::error::{Error, Result};
use crate::format::{HotRow, PART_TEXT_MAX, PartUploadRow, SentPartRow, part_key, part_range};
use crate::{SeenAttributes, SourceId};

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

    /// Follows a rename at the source. What it has of uploads into a directory has gone along with that.
    pub(crate) fn follow_moved_with_uploads(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        raw_name: Option<Box<[u8]>>,
        seen: Option<SeenAttributes>,
        at_ns: i64,
    ) -> Result<()> {
        let directory = if self.part_uploads.is_empty()? {
            None
        } else {
            self.hot(from.0.0, from.1)?.filter(HotRow::is_directory)
        };
        let Some(hot) = directory else {
            return self.follow_moved(from, to, raw_name, seen, None, at_ns);
        };
        let (id, source) = (hot.id(), hot.source());
        let before = self.object_path(id)?;
        self.follow_moved(from, to, raw_name, seen, None, at_ns)?;
        match (before, self.object_path(id)?) {
            (Some(before), Some(after)) if before != after => self.move_part_uploads(source, &before, &after),
            _ => Ok(()),
        }
    }

    fn move_part_uploads(&mut self, source: u32, from: &[u8], to: &[u8]) -> Result<()> {
        let mut moved = Vec::new();
        for row in self.part_uploads.iter()? {
            let (id, row) = row?;
            let mut row = PartUploadRow::decode(row.value())?;
            let rest = row.path.strip_prefix(from).filter(|rest| rest.first() == Some(&b'/'));
            if row.source == source
                && let Some(rest) = rest
            {
                row.path = [to, rest].concat();
                moved.push((id.value(), row));
            }
        }
        for (id, row) in moved.iter().filter(|(_, row)| row.path.len() <= PART_TEXT_MAX) {
            self.part_uploads.insert(*id, row.encode().as_slice())?;
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
