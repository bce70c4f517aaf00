//! Files that lose their names while somebody has them open: on a disk they are read and written on until they are closed. What their source
//! has of them goes with the name, so it is read before that, and given to those who have them open.

use std::sync::Arc;

use manifold_backends::local::AttributeChange;
use manifold_catalog::{Entry, EntryId, Kind};
use tokio::time::timeout;

use super::attributes::{in_ns, without_rights};
use crate::Error;
use crate::attributes::Attributes;
use crate::error::Cause;
use crate::fetch::base;
use crate::fetch::object::rows;
use crate::staging::row::Base;
use crate::staging::{Place, Refused, Rest, fresh_row};
use crate::vfs::Core;

/// Of files up to this length, in bytes, all is kept.
const KEPT_MAX: u64 = 16 << 20;
/// What part of the deadline it may take to read one.
const PART_OF_DEADLINE: u32 = 4;

/// The bytes of a file that is open, and of which nothing is staged.
#[derive(Debug)]
pub(super) struct Kept {
    id: EntryId,
    bytes: Vec<u8>,
    modified_ns: i64,
}

impl Core {
    /// Reads a file that is about to lose its name, if somebody has it open: what is not staged of it. Of what is staged in part, the rest is staged
    /// too. `None`: nothing is to be kept, or it cannot be read in time; then it is read on as far as it is in the cache.
    pub(super) async fn keep_for_open(&self, entry: &Entry) -> Option<Kept> {
        if entry.kind != Kind::File || !self.files.is_open(entry.id) {
            return None;
        }
        let reading = async {
            match self.staged_entry(entry.id) {
                Some(file) if file.look().size <= KEPT_MAX => {
                    self.writable()?.take_over_base(&file).await?;
                    Ok(None)
                }
                Some(_) => Ok(None),
                None => self.read_whole(entry.id).await,
            }
        };
        let read = timeout(self.settings.data_deadline / PART_OF_DEADLINE, reading).await;
        read.unwrap_or_else(|_late| Err(Error::TimedOut(Cause::new("it was not read in time"))))
            .unwrap_or_else(|error: Error| {
                tracing::debug!(id = entry.id.0, %error, "an open file loses its name, and cannot be kept whole");
                None
            })
    }

    /// Makes a staged file whole that its source is about to replace, and has it last: should nobody hear of that, what shows through it is
    /// gone there.
    pub(super) async fn make_whole(&self, entry: &Entry) -> Result<(), Error> {
        let Some(file) = self.staged_entry(entry.id).filter(|file| file.is_recorded()) else {
            return Ok(());
        };
        if file.look().size > KEPT_MAX {
            return Ok(());
        }
        let uploads = Arc::clone(self.writable()?);
        let patience = self.settings.data_deadline / PART_OF_DEADLINE;
        if let Ok(Err(error)) = timeout(patience, uploads.take_over_base(&file)).await {
            tracing::debug!(id = entry.id.0, %error, "a file that is replaced cannot be made whole");
        }
        // What was taken over before, too, may not be told of by its row.
        self.blocking(move || uploads.staging.sync(&file)).await
    }

    async fn read_whole(&self, id: EntryId) -> Result<Option<Kept>, Error> {
        let (entry, details) = rows(&self.catalog, id)?;
        if entry.size > KEPT_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; entry.size as usize];
        let base = Base {
            version: details.version,
            size: entry.size,
            shows: entry.size,
            is_origin: false,
        };
        let whole = 0..entry.size;
        let ranges = [whole].into();
        base::fill(&self.fetcher, id, &Rest { base, ranges }, 0, &mut bytes).await?;
        Ok(Some(Kept {
            id,
            bytes,
            modified_ns: entry.modified_ns,
        }))
    }

    /// Changes attributes of an open file that has no name any more: for as long as it is open.
    pub(super) fn set_nameless(&self, id: EntryId, change: AttributeChange) -> Result<(), Error> {
        let known = self.files.attributes(id).ok_or(Error::Stale)?;
        let now_ns = self.writable()?.now_ns();
        let before = known.owner.unwrap_or(*self.owner.read());
        let owner = (change.uid.unwrap_or(before.0), change.gid.unwrap_or(before.1));
        let mut mode = change.mode.unwrap_or_else(|| known.mode.into());
        if change.uid.is_some() || change.gid.is_some() {
            mode = without_rights(mode);
        }
        let modified_ns = change.modified.map(|time| in_ns(time, now_ns));
        if let Some(modified_ns) = modified_ns
            && let Some(file) = self.files.staged_without_name(id)
        {
            file.set_modified(modified_ns).map_err(|refused| match refused {
                Refused::Failed(error) => error,
                _ => Error::Stale,
            })?;
        }
        let changed = Attributes {
            mode: (mode & 0o7777) as u16,
            owner: if owner == before { known.owner } else { Some(owner) },
            modified_ns: modified_ns.unwrap_or(known.modified_ns),
            accessed_ns: change.accessed.map(|time| in_ns(time, now_ns)).or(known.accessed_ns),
            changed_ns: now_ns,
            ..known
        };
        self.files.note_attributes(id, changed);
        Ok(())
    }

    /// Stages what was kept, just before the name goes: from then on it belongs to those who have the file open. No row tells of it, so that it goes
    /// with them.
    pub(super) fn leave_to_open(&self, kept: Option<&Kept>) -> Result<(), Error> {
        let Some(kept) = kept.filter(|kept| self.files.is_open(kept.id)) else {
            return Ok(());
        };
        let staging = &self.writable()?.staging;
        if staging.get(kept.id).is_some() {
            return Ok(());
        }
        let row = |number| fresh_row(number, 0, kept.modified_ns, None, None);
        // The name is gone at the source by now: where there is no room, it is read on as far as it is in the cache.
        let written = staging
            .stage(kept.id, row, |_| Ok(()))
            .map_err(Refused::Failed)
            .and_then(|file| file.write(Place::At(0), &kept.bytes, kept.modified_ns));
        if let Err(refused) = written {
            let why = match refused {
                Refused::Failed(error) => error.to_string(),
                _ => "there is no room".to_owned(),
            };
            tracing::debug!(
                id = kept.id.0,
                why,
                "an open file loses its name, and cannot be kept whole"
            );
            staging.forget(kept.id);
        }
        Ok(())
    }
}
