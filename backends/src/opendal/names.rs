//! Changes of names: directories made and removed, files removed, both renamed.
//!
//! What a service would do on its own, and a file system does not, is seen to before: to remove a directory with all that is
//! in it, to make the directories on the way to a name, to replace what has that name. Between that look and the change
//! another writer is not noticed.

use std::sync::Arc;

use ::opendal::Capability;
use ::opendal::options::{DeleteOptions, WriteOptions};
use ::opendal::raw::{OpCreateDir, OpDelete, OpRename};
use futures::StreamExt;

use super::list;
use super::plan::Writes;
use super::source::{Own, Source};
use super::upload::{self, How};
use crate::{ErrorKind, Expected, Kind, Metadata, ObjectPath, Operation, Presence, Result, Version};

impl Source {
    pub(super) async fn create_directory(self: &Arc<Self>, path: &ObjectPath) -> Result<Metadata> {
        let operation = Operation::CreateDirectory;
        if self.traits.writes == Writes::Not {
            return Err(self.unsupported(operation, path));
        }
        if path.is_root() || matches!(self.standing(path).await?, Presence::Found(_)) {
            return Err(self.exists(operation, path));
        }
        let raw = self.raw(operation, path, true)?;
        match &self.own {
            Own::Dav(dav) => dav.create_directory(self, path, &raw).await?,
            Own::Ftp(ftp) => ftp.create_directory(self, path, &raw).await?,
            Own::None if self.traits.implicit_directories => self.put_marker(path, raw).await?,
            Own::None => {
                self.has_parent(operation, path).await?;
                let step = self.bare.create_dir_dyn(&self.context, &raw, OpCreateDir::default());
                self.ask(operation, path, step).await?;
            }
        }
        match self.standing(path).await? {
            Presence::Found(now) => Ok(now),
            Presence::Absent => {
                let why = "the server made it, and does not have it";
                Err(self.error(ErrorKind::Nonsense, operation, path, why))
            }
        }
    }

    pub(super) async fn keep_directory(self: &Arc<Self>, path: &ObjectPath) -> Result<()> {
        let operation = Operation::CreateDirectory;
        if self.traits.writes == Writes::Not {
            return Err(self.unsupported(operation, path));
        }
        if !self.traits.implicit_directories || path.is_root() {
            return Ok(());
        }
        match self.stat_marker(path).await? {
            Presence::Found(_) => Ok(()),
            Presence::Absent => self.put_marker(path, self.raw(operation, path, true)?).await,
        }
    }

    /// Puts an object of no bytes, whose name ends in a slash.
    async fn put_marker(self: &Arc<Self>, path: &ObjectPath, raw: String) -> Result<()> {
        let nothing = bytes::Bytes::new();
        let put = upload::upload(self, path, raw, &nothing, WriteOptions::default(), How::Parts);
        put.await.map(drop)
    }

    pub(super) async fn remove_file(self: &Arc<Self>, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        let operation = Operation::RemoveFile;
        if self.traits.writes == Writes::Not {
            return Err(self.unsupported(operation, path));
        }
        let found = self.expect(operation, path, &Expected::Anything).await?;
        let Presence::Found(there) = &found else {
            return Ok(Presence::Absent);
        };
        if !expected.holds(&found) {
            return Err(self.conflict(operation, path));
        }
        let raw = self.raw(operation, path, false)?;
        if !matches!(expected, Expected::Version(_)) || !self.takes_conditions() {
            return self.delete(operation, path, &raw).await;
        }
        // A server that does not mind the condition has been looked at a moment ago.
        let minds_removals = self.traits.writes.is_the_service() || self.minds.minds_removals();
        let removed = if minds_removals {
            Box::pin(self.delete_version(operation, path, &raw, &there.version)).await
        } else {
            self.delete(operation, path, &raw).await
        };
        if !minds_removals && removed.is_ok() {
            Box::pin(self.note_looked(path)).await;
        }
        removed.map_err(|error| match error.kind() {
            ErrorKind::VersionChanged => error.with_kind(ErrorKind::Conflict),
            _ => error,
        })
    }

    /// Tells whether requests to change something may carry conditions.
    fn takes_conditions(&self) -> bool {
        matches!((&self.own, self.traits.writes), (Own::None, Writes::Store { .. }))
    }

    /// Deletes what is there in a version alone, if the server minds that: else `VersionChanged`.
    pub(super) async fn delete_version(
        &self,
        operation: Operation,
        path: &ObjectPath,
        raw: &str,
        version: &Version,
    ) -> Result<Presence<()>> {
        let bound = self.traits.conditions(&Expected::Version(version.clone()));
        let options = DeleteOptions {
            if_match: bound.if_match,
            if_version_match: bound.if_version_match,
            ..DeleteOptions::default()
        };
        self.delete_bare(operation, path, raw, options).await
    }

    pub(super) async fn remove_directory(self: &Arc<Self>, path: &ObjectPath) -> Result<Presence<()>> {
        let operation = Operation::RemoveDirectory;
        if self.traits.writes == Writes::Not {
            return Err(self.unsupported(operation, path));
        }
        if path.is_root() {
            let why = "it is the source's own folder";
            return Err(self.error(ErrorKind::Unsupported, operation, path, why));
        }
        match self.standing(path).await? {
            Presence::Absent => return Ok(Presence::Absent),
            Presence::Found(found) if found.kind != Kind::Directory => {
                return Err(self.error(ErrorKind::NotADirectory, operation, path, "it is not a directory"));
            }
            Presence::Found(_) => {}
        }
        if self.holds_anything(path).await? {
            return Err(self.error(ErrorKind::NotEmpty, operation, path, "the directory is not empty"));
        }
        let raw = self.raw(operation, path, true)?;
        self.delete(operation, path, &raw).await
    }

    async fn holds_anything(self: &Arc<Self>, directory: &ObjectPath) -> Result<bool> {
        let Presence::Found(mut pages) = list::list(Arc::clone(self), directory).await? else {
            return Ok(false);
        };
        while let Some(page) = pages.next().await {
            if !page?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn delete(&self, operation: Operation, path: &ObjectPath, raw: &str) -> Result<Presence<()>> {
        match &self.own {
            Own::Dav(dav) => dav.delete(self, operation, path, raw).await,
            Own::Ftp(ftp) => ftp.delete(self, operation, path, raw).await,
            Own::None => self.delete_bare(operation, path, raw, DeleteOptions::default()).await,
        }
    }

    async fn delete_bare(
        &self,
        operation: Operation,
        path: &ObjectPath,
        raw: &str,
        options: DeleteOptions,
    ) -> Result<Presence<()>> {
        self.ask(operation, path, async {
            let options = OpDelete::from_options(&Capability::default(), options)?;
            let mut deleter = self.bare.delete_dyn(&self.context)?;
            deleter.delete_dyn(raw, options).await?;
            deleter.close_dyn().await
        })
        .await
    }

    pub(super) async fn rename(
        self: &Arc<Self>,
        from: &ObjectPath,
        to: &ObjectPath,
        replace: bool,
    ) -> Result<Presence<Metadata>> {
        let operation = Operation::Rename;
        if self.traits.writes == Writes::Not {
            return Err(self.unsupported(operation, from));
        }
        if from.is_root() || to.is_root() {
            let why = "it is the source's own folder";
            return Err(self.error(ErrorKind::Unsupported, operation, from, why));
        }
        let Presence::Found(subject) = self.standing(from).await? else {
            return Ok(Presence::Absent);
        };
        if from == to {
            return Ok(Presence::Found(subject));
        }
        let directory = subject.kind == Kind::Directory;
        if directory && self.traits.implicit_directories {
            let why = "an object store has no directories that could be renamed";
            return Err(self.error(ErrorKind::Unsupported, operation, from, why));
        }
        let mut taken = false;
        if let Presence::Found(there) = self.standing(to).await? {
            taken = true;
            let refused = match (directory, there.kind == Kind::Directory) {
                _ if !replace => Some((ErrorKind::Exists, "something has that name")),
                (false, true) => Some((ErrorKind::IsADirectory, "a directory stands there")),
                (true, false) => Some((ErrorKind::NotADirectory, "what stands there is not a directory")),
                (true, true) if self.holds_anything(to).await? => {
                    Some((ErrorKind::NotEmpty, "the directory is not empty"))
                }
                _ => None,
            };
            if let Some((kind, why)) = refused {
                return Err(self.error(kind, operation, to, why));
            }
        }
        let raw = (
            self.raw(operation, from, directory)?,
            self.raw(operation, to, directory)?,
        );
        match &self.own {
            Own::Dav(dav) => dav.rename(self, from, to, (&raw.0, &raw.1), replace).await?,
            Own::Ftp(ftp) => ftp.rename(self, to, (&raw.0, &raw.1), replace).await?,
            Own::None if self.traits.implicit_directories => {
                self.copy(to, (&raw.0, &raw.1), replace).await?;
                self.delete(operation, from, &raw.0).await?;
            }
            Own::None => {
                self.has_parent(operation, to).await?;
                if taken && matches!(self.traits.writes, Writes::Drive { moves_over: false, .. }) {
                    self.delete(operation, to, &raw.1).await?;
                }
                let step = self.bare.rename_dyn(&self.context, &raw.0, &raw.1, OpRename::default());
                self.ask(operation, from, step).await?;
            }
        }
        match self.standing(to).await? {
            Presence::Found(now) => Ok(Presence::Found(now)),
            Presence::Absent => {
                let why = "the server renamed it, and does not have it under its new name";
                Err(self.error(ErrorKind::Nonsense, operation, to, why))
            }
        }
    }
}
