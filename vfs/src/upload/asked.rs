//! Renames that a source was asked for, and of which it is not known whether it has made them: its answer was lost, or whoever waited for
//! it has died. A directory stands where its source has it before anything is uploaded beneath it, or any name is changed on the way
//! to it or beneath it; and of a file that its source copies for that, one of the two is taken away.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Expected, Kind, Metadata, ObjectPath, Presence};
use manifold_catalog::{AskedRename, Entry, EntryId, Keep, Kind as EntryKind, SourceId};
use manifold_index::seen_attributes;
use tokio::time::sleep;

use super::Uploads;
use super::copies::Seen;
use crate::Error;
use crate::fetch::object::not_connected;
use crate::fetch::{Fetcher, Object};

/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);

impl Uploads {
    /// Begins to find out what became of renames whose askers have died.
    pub(crate) fn start_settling(self: &Arc<Self>) -> Result<(), Error> {
        for asked in self.fetcher.catalog.asked_renames().map_err(Error::from_catalog)? {
            self.settle_later(asked.id);
        }
        Ok(())
    }

    /// Has it found out what became of a rename, as far as nobody needs to know it before.
    pub(crate) fn settle_later(self: &Arc<Self>, id: EntryId) {
        let uploads = Arc::clone(self);
        self.fetcher.runtime.spawn(async move {
            let mut stopped = uploads.stopped.subscribe();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = uploads.settle_in_time(id) => {}
            }
        });
    }

    async fn settle_in_time(self: &Arc<Self>, id: EntryId) {
        let mut pause = PAUSE;
        while let Err(error) = self.settle_asked(id).await {
            tracing::debug!(id = id.0, %error, "what became of a rename is not known yet");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Finds out what became of the renames of directories on the way to these names, or that have them, or were to have them. `None`: the
    /// directory itself. Tells whether one was made: then names are others by now.
    pub(crate) async fn settle_directories(
        self: &Arc<Self>,
        names: &[(EntryId, Option<&[u8]>)],
    ) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        let all = catalog.asked_renames().map_err(Error::from_catalog)?;
        if all.is_empty() {
            return Ok(false);
        }
        // What has a name, or stands above it, and where.
        let mut on_the_way: Vec<(Option<EntryId>, EntryId, Box<[u8]>)> = Vec::new();
        for (directory, name) in names {
            if let Some(name) = name {
                let has_it = catalog.lookup(*directory, name).map_err(Error::from_catalog)?;
                on_the_way.push((has_it.map(|entry| entry.id), *directory, (*name).into()));
            }
            let mut at = *directory;
            while let Some(entry) = catalog.entry(at).map_err(Error::from_catalog)? {
                on_the_way.push((Some(at), entry.parent, entry.name));
                if at == EntryId::ROOT {
                    break;
                }
                at = entry.parent;
            }
        }
        let is_on_the_way = |asked: &&AskedRename| {
            let mut on_the_way = on_the_way.iter();
            on_the_way.any(|(id, parent, name)| *id == Some(asked.id) || (*parent, name) == (asked.to.0, &asked.to.1))
        };
        let mut is_any_made = false;
        for asked in all.iter().filter(is_on_the_way) {
            is_any_made |= self.settle_asked(asked.id).await?;
        }
        Ok(is_any_made)
    }

    /// Finds out what became of a rename, once nobody waits for the answer any more, and follows it, or forgets it. Tells whether it was
    /// made.
    async fn settle_asked(self: &Arc<Self>, id: EntryId) -> Result<bool, Error> {
        let _name = self.naming.lock(id).await;
        let catalog = &self.fetcher.catalog;
        let all = catalog.asked_renames().map_err(Error::from_catalog)?;
        let Some(asked) = all.into_iter().find(|asked| asked.id == id) else {
            return Ok(false);
        };
        let made = self.what_was_made(&asked).await?;
        let (is_made, uploads) = (made.is_some(), Arc::clone(self));
        self.blocking(move || match made {
            Some(there) => uploads.follow_asked(&asked, &there),
            None => uploads
                .fetcher
                .catalog
                .end_rename(asked.id)
                .map_err(Error::from_catalog),
        })
        .await?;
        Ok(is_made)
    }

    /// Gives what the source has under the new name, if that is what was to be renamed.
    async fn what_was_made(&self, asked: &AskedRename) -> Result<Option<Metadata>, Error> {
        let catalog = &self.fetcher.catalog;
        let entry = catalog.entry(asked.id).map_err(Error::from_catalog)?;
        let from = catalog.object_path(asked.id).map_err(Error::from_catalog)?;
        let to = catalog.object_path(asked.to.0).map_err(Error::from_catalog)?;
        let (Some(entry), Some((source, from)), Some((whose, to))) = (entry, from, to) else {
            return Ok(None);
        };
        let (from, to) = (
            ObjectPath::from_bytes(from),
            ObjectPath::from_bytes(to).join(asked.raw_name.as_deref().unwrap_or(&asked.to.1)),
        );
        if source != whose || from == to {
            return Ok(None);
        }
        let kind = if entry.kind == EntryKind::Directory {
            Kind::Directory
        } else {
            Kind::File
        };
        let there = match self.look_at(source, &to).await? {
            Presence::Found(there) if there.kind == kind => there,
            Presence::Found(_) | Presence::Absent => return Ok(None),
        };
        match self.look_at(source, &from).await? {
            Presence::Absent => Ok(Some(there)),
            Presence::Found(before)
                if kind == Kind::File && self.is_copy(asked, &entry, (&from, &before), (&to, &there)).await? =>
            {
                self.take_original_away(source, &from, before).await?;
                Ok(Some(there))
            }
            Presence::Found(_) => Ok(None),
        }
    }

    /// Tells whether a source has copied a file to its new name, and not taken it away under the former one. What a listing has found there
    /// is the file itself; what was written there is not.
    async fn is_copy(
        &self,
        asked: &AskedRename,
        entry: &Entry,
        (from, before): (&ObjectPath, &Metadata),
        (to, there): (&ObjectPath, &Metadata),
    ) -> Result<bool, Error> {
        let Fetcher { catalog, indexer, .. } = &*self.fetcher;
        let known = catalog.details(entry.id).map_err(Error::from_catalog)?;
        let is_known = known.is_some_and(|known| *known.version == *before.version.as_bytes());
        let found = catalog.lookup(asked.to.0, &asked.to.1).map_err(Error::from_catalog)?;
        if found.is_some_and(|found| self.staging.get(found.id).is_some()) {
            return Ok(false);
        }
        // Whoever has written to it goes on under the former name.
        if !is_known || before.size != there.size || self.staging.get(entry.id).is_some() {
            return Ok(false);
        }
        let Some(backend) = indexer.backend(entry.source) else {
            return Err(not_connected(indexer, entry.source));
        };
        let ours = Seen {
            path: from,
            version: &before.version,
        };
        let same = self.holds_the_same(entry.source, &backend, &ours, to, there).await;
        same.map_err(Error::from_index)
    }

    async fn take_original_away(&self, source: SourceId, path: &ObjectPath, seen: Metadata) -> Result<(), Error> {
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        let backend = indexer.backend(source).ok_or_else(|| not_connected(indexer, source))?;
        let expected = Expected::Version(seen.version);
        let removal = backend.remove_file(path, &expected);
        let removed = indexer.ask(source, path, deadline, removal).await;
        removed.map(drop).map_err(Error::from_index)
    }

    fn follow_asked(&self, asked: &AskedRename, there: &Metadata) -> Result<(), Error> {
        let (catalog, id) = (&self.fetcher.catalog, asked.id);
        let entry = catalog.entry(id).map_err(Error::from_catalog)?.ok_or(Error::Stale)?;
        let is_directory = entry.kind == EntryKind::Directory;
        let itself = Some(id).filter(|_| is_directory);
        let guarded: Vec<_> = [entry.parent, asked.to.0].into_iter().chain(itself).collect();
        let _guard = catalog.begin_change(&guarded);
        let seen = Some(seen_attributes(there)).filter(|seen| !is_directory && seen.kind == entry.kind);
        // A rename is no change of the bytes, though the source has made it by a copy.
        let keeps_time = seen.as_ref().is_some_and(|seen| seen.modified_ns != entry.modified_ns);
        let followed = catalog.follow_asked_rename(id, seen, self.now_ns());
        if !followed.map_err(Error::from_catalog)? {
            tracing::warn!(
                id = id.0,
                "something was made where a source has renamed something to: both names stay"
            );
            return Ok(());
        }
        if keeps_time && self.keeps_attributes(entry.source) {
            let keep = Keep {
                modified_ns: Some(entry.modified_ns),
                ..Keep::default()
            };
            catalog.keep(id, &keep, None).map_err(Error::from_catalog)?;
        }
        if is_directory {
            catalog.note_stale(id).map_err(Error::from_catalog)?;
        }
        catalog.sync().map_err(Error::from_catalog)?;
        if self.files.is_open(id)
            && let Ok((object, _)) = Object::find(catalog, &self.fetcher.indexer, id)
        {
            self.files.rebind(id, &Arc::new(object));
        }
        tracing::info!(id = id.0, "a rename was made at the source that had not been confirmed");
        Ok(())
    }
}
