//! Renames of directories that a source was asked for, and of which it is not known whether it has made them: its answer was lost, or
//! whoever waited for it has died. A directory stands where its source has it before anything is uploaded beneath it, or any name is
//! changed on the way to it or beneath it.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Kind, ObjectPath, Presence};
use manifold_catalog::{AskedRename, EntryId, Error as CatalogError, Kind as EntryKind};
use tokio::time::sleep;

use super::Uploads;
use crate::Error;

/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);

impl Uploads {
    /// Begins to find out what became of renames whose askers have died, as far as nobody needs to know it before.
    pub(crate) fn start_settling(self: &Arc<Self>) -> Result<(), Error> {
        for asked in self.fetcher.catalog.asked_renames().map_err(Error::from_catalog)? {
            let uploads = Arc::clone(self);
            self.fetcher.runtime.spawn(async move {
                let mut stopped = uploads.stopped.subscribe();
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = uploads.settle_in_time(&asked) => {}
                }
            });
        }
        Ok(())
    }

    async fn settle_in_time(self: &Arc<Self>, asked: &AskedRename) {
        let mut pause = PAUSE;
        while let Err(error) = self.settle_directory(asked.id).await {
            tracing::debug!(id = asked.id.0, %error, "whether a directory was renamed is not known yet");
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
            is_any_made |= self.settle_directory(asked.id).await?;
        }
        Ok(is_any_made)
    }

    /// Finds out what became of the rename of a directory, once nobody waits for the answer any more, and follows it, or forgets it.
    /// Tells whether it was made.
    async fn settle_directory(self: &Arc<Self>, id: EntryId) -> Result<bool, Error> {
        let _name = self.naming.lock(id).await;
        let catalog = &self.fetcher.catalog;
        let all = catalog.asked_renames().map_err(Error::from_catalog)?;
        let Some(asked) = all.into_iter().find(|asked| asked.id == id) else {
            return Ok(false);
        };
        let is_made = self.is_made(&asked).await?;
        let uploads = Arc::clone(self);
        self.blocking(move || {
            if is_made {
                uploads.follow_directory(&asked)
            } else {
                let ended = uploads.fetcher.catalog.end_rename(asked.id);
                ended.map_err(Error::from_catalog)
            }
        })
        .await?;
        Ok(is_made)
    }

    async fn is_made(&self, asked: &AskedRename) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        let from = catalog.object_path(asked.id).map_err(Error::from_catalog)?;
        let to = catalog.object_path(asked.to.0).map_err(Error::from_catalog)?;
        let (Some((source, from)), Some((whose, to))) = (from, to) else {
            return Ok(false);
        };
        let (from, to) = (
            ObjectPath::from_bytes(from),
            ObjectPath::from_bytes(to).join(asked.raw_name.as_deref().unwrap_or(&asked.to.1)),
        );
        if source != whose || from == to {
            return Ok(false);
        }
        match self.look_at(source, &from).await? {
            Presence::Found(_) => return Ok(false),
            Presence::Absent => {}
        }
        let there = self.look_at(source, &to).await?;
        Ok(matches!(there, Presence::Found(there) if there.kind == Kind::Directory))
    }

    fn follow_directory(&self, asked: &AskedRename) -> Result<(), Error> {
        let (catalog, id, (to, name)) = (&self.fetcher.catalog, asked.id, &asked.to);
        let entry = catalog.entry(id).map_err(Error::from_catalog)?.ok_or(Error::Stale)?;
        let _guard = catalog.begin_change(&[entry.parent, *to, id]);
        // What a listing has found under the new name is the directory itself.
        let found = catalog.lookup(*to, name).map_err(Error::from_catalog)?;
        let holds_more = match &found {
            Some(found) if found.kind == EntryKind::Directory => catalog.leads_to_staged(found.id),
            found => Ok(found.is_some()),
        };
        if holds_more.map_err(Error::from_catalog)? {
            tracing::warn!(
                id = id.0,
                "a directory was renamed at its source, and something was made under its new name meanwhile: it is made anew under the former one"
            );
            return catalog.end_rename(id).map_err(Error::from_catalog);
        }
        let from = (entry.parent, &*entry.name);
        match catalog.follow_moved(from, (*to, name), asked.raw_name.clone(), None, self.now_ns()) {
            Ok(_) => {}
            Err(error @ (CatalogError::Refused { .. } | CatalogError::NoEntry(_) | CatalogError::NotADirectory(_))) => {
                tracing::warn!(id = id.0, %error, "a directory was renamed at its source, and is made anew under its former name");
                return catalog.end_rename(id).map_err(Error::from_catalog);
            }
            Err(error) => return Err(Error::from_catalog(error)),
        }
        catalog.note_stale(id).map_err(Error::from_catalog)?;
        catalog.sync().map_err(Error::from_catalog)?;
        tracing::info!(
            id = id.0,
            "a directory was renamed at its source, which had not been confirmed"
        );
        Ok(())
    }
}
