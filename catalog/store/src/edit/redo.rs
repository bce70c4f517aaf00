//! Changes that the write-ahead log tells of, done again.

use super::Edit;
use crate::error::{Error, Result};
use crate::store::wal::{Step, steps};

impl Edit<'_> {
    /// Does what one record of the log tells. The numbers of the tables are those that they were opened with.
    pub(crate) fn redo(&mut self, record: &[u8]) -> Result<()> {
        for step in steps(record) {
            let step = step.ok_or_else(|| Error::damaged("a record of the write-ahead log makes no sense"))?;
            self.redo_step(&step)?;
        }
        Ok(())
    }

    fn redo_step(&mut self, step: &Step<'_>) -> Result<()> {
        match step.table {
            // Its keys are text.
            0 if std::str::from_utf8(step.key).is_err() => {
                Err(Error::damaged("the write-ahead log has a number without a name"))
            }
            0 => self.meta.redo(step),
            1 => self.children.redo(step),
            2 => self.entries.redo(step),
            3 => self.directories.redo(step),
            4 => self.queue.redo(step),
            5 => self.identities.redo(step),
            6 => self.contents.redo(step),
            7 => self.pins.redo(step),
            8 => self.pin_policies.redo(step),
            9 => self.staged.redo(step),
            10 => self.staged_bytes.redo(step),
            11 => self.kept.redo(step),
            12 => self.moves.redo(step),
            13 => self.moved.redo(step),
            14 => self.links.redo(step),
            15 => self.departed.redo(step),
            16 => self.sources.redo(step),
            17 => self.totals.redo(step),
            18 => self.scans.redo(step),
            19 => self.origins.redo(step),
            20 => self.left.redo(step),
            21 => self.part_uploads.redo(step),
            22 => self.sent_parts.redo(step),
            23 => self.crossings.redo(step),
            24 => self.renames.redo(step),
            _ => Err(Error::damaged("the write-ahead log has a row of no table")),
        }
    }
}
