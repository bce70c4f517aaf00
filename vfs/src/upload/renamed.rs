//! Renames of staged files of which it is not known whether the source has made them: its answer was lost, or whoever waited for
//! it has died. The file stands where the source has it, before it is uploaded.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Kind, Metadata, ObjectPath, Presence};
use manifold_catalog::{Catalog, EntryId, SourceId};
use manifold_index::names;
use tokio::time::timeout;

use super::Uploads;
use super::attempt::{Outcome, delayed};
use crate::Error;
use crate::error::Cause;
use crate::fetch::object::not_connected;
use crate::staging::row::{Renamed, Row};
use crate::staging::{Refused, StagedFile};

impl Uploads {
    /// Finds out, in that time, which name a file has that is about to be written to: that is to stand under the name by which it was found.
    /// Where it cannot be told, it keeps that name.
    pub(crate) async fn find_name(self: &Arc<Self>, file: &Arc<StagedFile>, patience: Duration) {
        let finding = async {
            let _hold = self.hold(file.id).await;
            if let Some(renamed) = file.renamed()
                && let Err(outcome) = self.settle_rename(file, &renamed).await
            {
                tracing::debug!(id = file.id.0, ?outcome, "whether a file was renamed is not known");
            }
        };
        if timeout(patience, finding).await.is_err() {
            tracing::debug!(id = file.id.0, "whether a file was renamed is not known in time");
        }
        file.keep_name();
    }

    /// Finds out what became of a rename that the source was asked for, and follows it, or forgets it. The file must be held.
    pub(super) async fn settle_rename(
        self: &Arc<Self>,
        file: &Arc<StagedFile>,
        renamed: &Renamed,
    ) -> Result<(), Outcome> {
        let made = self.was_renamed(file, renamed).await.map_err(|error| delayed(&error))?;
        if let Some(there) = &made
            && self.stays(file, renamed).map_err(|error| delayed(&error))?
        {
            return self.stay(file, renamed, there).await.map_err(|error| delayed(&error));
        }
        let (uploads, file, renamed) = (Arc::clone(self), Arc::clone(file), renamed.clone());
        let settled = self.blocking(move || match made {
            Some(there) => uploads.follow_rename(&file, &renamed, &there),
            None => file.note_renamed(None, |change| {
                let catalog = &uploads.fetcher.catalog;
                let row = changed_row(catalog, file.id, change)?;
                catalog.restage(file.id, &row).map_err(Error::from_catalog)
            }),
        });
        settled.await.map_err(|error| delayed(&error))
    }

    /// Tells whether a file keeps its name, though its source has renamed what it has: somebody has written to it since, or to
    /// what stands under the other name here.
    fn stays(&self, file: &StagedFile, renamed: &Renamed) -> Result<bool, Error> {
        if file.renamed().is_none_or(|now| now.stays) {
            return Ok(true);
        }
        let shown = names::escape(&renamed.name, names::Side::Plain);
        let over = self.fetcher.catalog.lookup(EntryId(renamed.directory), &shown);
        let over = over.map_err(Error::from_catalog)?;
        Ok(self.is_new_there(renamed, over.map(|over| over.id)))
    }

    /// Tells whether what stands under the other name was written there after the source had been asked.
    fn is_new_there(&self, renamed: &Renamed, over: Option<EntryId>) -> bool {
        let over = over.and_then(|over| self.staging.get(over));
        over.is_some_and(|over| Some(over.look().modified_ns) != renamed.over_ns)
    }

    /// Lets a file stand under its name as one of its own. What shows through is taken over from where that lies by now.
    async fn stay(self: &Arc<Self>, file: &Arc<StagedFile>, renamed: &Renamed, there: &Metadata) -> Result<(), Error> {
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        let (source, to) = self.place_of(renamed)?.ok_or(Error::Stale)?;
        let backend = indexer.backend(source).ok_or_else(|| not_connected(indexer, source))?;
        let block_size = backend.capabilities().block_size;
        while let Some(holes) = file.holes().filter(|holes| !holes.base.is_origin)
            && let Some(first) = holes.ranges.first()
        {
            let range = first.start..first.end.min(first.start + u64::from(block_size));
            let asked = indexer.read(source, &to, &there.version, range.clone(), block_size, deadline);
            let Presence::Found(blocks) = asked.await.map_err(Error::from_index)? else {
                return Err(Error::Stale);
            };
            match file.fill(&holes.base, range.start, &blocks.concat()) {
                Ok(()) => {}
                Err(Refused::NoRoom(_)) => return Err(Error::Full),
                Err(Refused::Retired) => return Ok(()),
                Err(Refused::Unrecorded) => self.record(file).await?,
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        let (uploads, file) = (Arc::clone(self), Arc::clone(file));
        self.blocking(move || {
            file.stand_alone();
            file.forget_renamed();
            uploads.staging.sync(&file)
        })
        .await?;
        let (indexer, directory) = (Arc::clone(indexer), EntryId(renamed.directory));
        self.fetcher.runtime.spawn(async move {
            if let Err(error) = indexer.list_now(directory).await {
                tracing::debug!(id = directory.0, %error, "what was renamed at its source is listed later");
            }
        });
        Ok(())
    }

    /// Tells whether the source was asked to rename another file over this one, and it is not known what became of that: until
    /// then nobody knows what is to stand there, and an upload would find somebody else's version.
    pub(super) fn is_perhaps_replaced(&self, id: EntryId) -> Result<bool, Error> {
        let perhaps = self.staging.perhaps_renamed();
        if perhaps.is_empty() {
            return Ok(false);
        }
        let catalog = &self.fetcher.catalog;
        let Some((source, path)) = catalog.object_path(id).map_err(Error::from_catalog)? else {
            return Ok(false);
        };
        for (_, renamed) in perhaps.iter().filter(|(other, _)| *other != id) {
            let Some((whose, to)) = self.place_of(renamed)? else {
                continue;
            };
            if whose == source && to.as_bytes() == &*path {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives what the source has in the new place, if that is the object that was to be renamed to there.
    async fn was_renamed(&self, file: &StagedFile, renamed: &Renamed) -> Result<Option<Metadata>, Error> {
        let catalog = &self.fetcher.catalog;
        self.must_know_the_way(file.id)?;
        if !self.is_way_known(EntryId(renamed.directory))? {
            return Err(Error::Busy);
        }
        let (Some(expected), Some((source, from))) = (
            file.expected(),
            catalog.object_path(file.id).map_err(Error::from_catalog)?,
        ) else {
            return Ok(None);
        };
        let Some((_, to)) = self.place_of(renamed)? else {
            return Ok(None);
        };
        let is_it = |seen: &Metadata| seen.kind == Kind::File && seen.version.as_bytes() == &*expected;
        match self.look_at(source, &ObjectPath::from_bytes(from)).await? {
            Presence::Found(seen) if is_it(&seen) => return Ok(None),
            Presence::Found(_) | Presence::Absent => {}
        }
        match self.look_at(source, &to).await? {
            Presence::Found(seen) if is_it(&seen) => Ok(Some(seen)),
            Presence::Found(_) | Presence::Absent => Ok(None),
        }
    }

    /// Gives where a file was to be renamed to: the source, and the path there.
    fn place_of(&self, renamed: &Renamed) -> Result<Option<(SourceId, ObjectPath)>, Error> {
        let directory = self.fetcher.catalog.object_path(EntryId(renamed.directory));
        let directory = directory.map_err(Error::from_catalog)?;
        Ok(directory.map(|(source, path)| (source, ObjectPath::from_bytes(path).join(&renamed.name))))
    }

    pub(super) async fn look_at(&self, source: SourceId, path: &ObjectPath) -> Result<Presence<Metadata>, Error> {
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        let connected = tokio::time::timeout(deadline, indexer.until_connected(source));
        // Whether it is connected is seen next.
        let _in_time = connected.await;
        let backend = indexer.backend(source).ok_or_else(|| not_connected(indexer, source))?;
        let asked = indexer.ask(source, path, deadline, backend.stat(path)).await;
        asked.map_err(Error::from_index)
    }

    fn follow_rename(&self, file: &StagedFile, renamed: &Renamed, there: &Metadata) -> Result<(), Error> {
        let (catalog, directory) = (&self.fetcher.catalog, EntryId(renamed.directory));
        let entry = catalog
            .entry(file.id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        let _guard = catalog.begin_change(&[entry.parent, directory]);
        let shown = names::escape(&renamed.name, names::Side::Plain);
        let over = catalog.lookup(directory, &shown).map_err(Error::from_catalog)?;
        let raw_name = (*shown != *renamed.name).then(|| renamed.name.clone());
        let is_moving = catalog.move_above(directory).map_err(Error::from_catalog)?.is_some();
        let lies_at = if is_moving {
            let place = catalog.object_path(directory).map_err(Error::from_catalog)?;
            place.map(|(_, path)| ObjectPath::from_bytes(path).join(&renamed.name).as_bytes().to_vec())
        } else {
            None
        };
        let version = there.version.as_bytes();
        let over = over.map(|over| over.id);
        if self.is_new_there(renamed, over) {
            return Err(Error::Busy);
        }
        let replaced = over.and_then(|over| self.staging.get(over));
        if let Some(replaced) = &replaced {
            replaced.forget();
        }
        file.rebase(Some(version), Some(version), |change| {
            if file.renamed().is_none_or(|now| now.stays) {
                return Err(Error::Busy);
            }
            let row = changed_row(catalog, file.id, change)?;
            let (from, to) = ((entry.parent, &*entry.name), (directory, &*shown));
            catalog
                .follow_moved_staged(from, to, raw_name, lies_at, &row, self.now_ns())
                .map(drop)
                .map_err(Error::from_catalog)
        })?;
        if let Some(replaced) = replaced {
            self.files.meet(replaced.id, &replaced);
            self.staging.forget(replaced.id);
        }
        catalog.sync().map_err(Error::from_catalog)?;
        tracing::info!(
            id = file.id.0,
            "a rename was made at the source that had not been confirmed"
        );
        Ok(())
    }
}

/// Gives the row of a staged file as it stands in the journal, but for a change.
pub(crate) fn changed_row(catalog: &Catalog, id: EntryId, change: &dyn Fn(&mut Row)) -> Result<Vec<u8>, Error> {
    let bytes = catalog.staged(id).map_err(Error::from_catalog)?.ok_or(Error::Stale)?;
    let mut row = Row::parse(&bytes).map_err(|error| Error::Io(Cause::new(error)))?;
    change(&mut row);
    Ok(row.encode())
}
