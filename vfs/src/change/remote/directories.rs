//! Renaming directories at sources that have them: what is in them goes with them, and what waits to be uploaded beneath them too.

use std::sync::Arc;

use manifold_backends::{Kind, Presence, Renames};
use manifold_catalog::{AskedRename, Entry};

use super::rename::Renaming;
use super::settled;
use super::unseen::is_away;
use crate::Error;
use crate::staging::StagedFile;
use crate::upload::Uploads;
use crate::upload::asked::Asking;
use crate::vfs::Core;

impl Core {
    /// A directory goes with all that is in it, if the source can do that; else whoever asked copies it.
    pub(super) async fn rename_remote_directory(self: &Arc<Self>, mut renaming: Renaming) -> Result<(), Error> {
        self.until_left_at(renaming.to_directory, &renaming.to_raw_name).await?;
        if let Some(over) = &renaming.over {
            self.until_left_beneath(over.id).await?;
        }
        if let Some(over) = &renaming.over
            && self.catalog.leads_to_staged(over.id).map_err(Error::from_catalog)?
        {
            return Err(Error::NotEmpty);
        }
        let able = renaming.source.able;
        match (able.renames_directories, able.real_directories) {
            (Renames::Whole, _) => {}
            (Renames::No | Renames::Copied, false) => {
                // What is in it and stands elsewhere would not follow.
                self.until_left_beneath(renaming.from.id).await?;
                return self.rename_ahead(renaming).await;
            }
            (Renames::No | Renames::Copied, true) => return Err(Error::CrossSource),
        }
        let uploads = Arc::clone(self.writable()?);
        let _turn = self.turn_at(&uploads, &renaming.names()).await?;
        self.has_its_name(&renaming.from)?;
        if let Some(over) = &renaming.over {
            self.has_its_name(over)?;
        }
        self.look_at_places(&mut renaming)?;
        if renaming.over.is_some() {
            let target = &renaming.target;
            uploads.end_all_in(target.source, &target.path).await?;
        }
        let guard = self.guard(&renaming);
        let beneath = self.staged_beneath(&renaming.from)?;
        let mut held = Vec::with_capacity(beneath.len());
        for file in &beneath {
            held.push(self.hold_upload(&uploads, file.id).await?);
        }
        let mut settled = self.settle_origins(&[renaming.from.id]).await?;
        // One that is away is not asked, and so need not be asked about that.
        self.must_be_reached(&renaming.from).await?;
        self.must_be_a_directory(&renaming).await?;
        let asking = self.note_asked(&uploads, &renaming).await?;
        let renamed = self.rename_at_source(&renaming).await;
        if let Err(error) = renamed {
            settled::lasts_if_away(&mut settled, &error);
            if has_refused(&error) {
                self.catalog.end_rename(renaming.from.id).map_err(Error::from_catalog)?;
                asking.end();
            } else if !is_away(&error) {
                asking.answered();
            }
            return Err(error);
        }
        let core = Arc::clone(self);
        self.blocking(move || {
            core.follow_renamed(&renaming, None, None, &[])?;
            if !beneath.is_empty() {
                core.catalog.sync().map_err(Error::from_catalog)?;
            }
            asking.end();
            drop((guard, held, settled));
            Ok(())
        })
        .await
    }

    /// Makes sure that the source has a directory: what another has under the new name would be taken for one that he has removed.
    async fn must_be_a_directory(self: &Arc<Self>, renaming: &Renaming) -> Result<(), Error> {
        let (source, patience) = (&renaming.source, self.settings.data_deadline / 2);
        let looking = source.backend.stat(&source.path);
        match self.ask_within(patience, source, looking).await {
            Ok(Presence::Found(there)) if there.kind == Kind::Directory => Ok(()),
            Ok(_) | Err(Error::NotADirectory) => {
                self.look_into(renaming.from.parent);
                self.look_into(renaming.to_directory);
                Err(Error::NotFound)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that the source is asked to rename a directory: should nobody hear its answer, it is found out what it has made of that.
    async fn note_asked(&self, uploads: &Arc<Uploads>, renaming: &Renaming) -> Result<Asking, Error> {
        let asked = AskedRename {
            id: renaming.from.id,
            to: (renaming.to_directory, renaming.to_name.clone()),
            raw_name: renaming.raw_name(),
        };
        let (catalog, uploads) = (Arc::clone(&self.catalog), Arc::clone(uploads));
        self.blocking(move || {
            // Whoever waits for this may go while it is noted: then nobody asks, and that is found out.
            catalog.begin_rename(&asked).map_err(Error::from_catalog)?;
            Ok(Asking::begin(&uploads, asked.id))
        })
        .await
    }

    fn staged_beneath(&self, directory: &Entry) -> Result<Vec<Arc<StagedFile>>, Error> {
        if !self
            .catalog
            .leads_to_staged(directory.id)
            .map_err(Error::from_catalog)?
        {
            return Ok(Vec::new());
        }
        let top = self
            .catalog
            .tree_path(directory.id)
            .map_err(Error::from_catalog)?
            .ok_or(Error::Stale)?;
        let mut beneath = self.writable()?.staging.all();
        beneath.retain(|file| {
            let path = self.catalog.tree_path(file.id).ok().flatten();
            path.is_some_and(|path| path.strip_prefix(&*top).is_some_and(|rest| rest.first() == Some(&b'/')))
        });
        Ok(beneath)
    }
}

/// Tells whether a source has said that it has not made a rename: before it, and not when it was looked at what came of it, nor by a word
/// that servers have for other things too.
fn has_refused(error: &Error) -> bool {
    matches!(
        error,
        Error::Exists
            | Error::NotEmpty
            | Error::IsADirectory
            | Error::InvalidArgument
            | Error::NameTooLong
            | Error::ReadOnly
            | Error::Unsupported(_)
            | Error::CrossSource
    )
}
