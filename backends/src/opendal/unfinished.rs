//! The file of a temporary name that a put is still writing.

use std::sync::Arc;

use super::source::{Own, Source};
use crate::write;
use crate::{ObjectPath, Operation, Result};

/// Removed when it is dropped, unless it got its object's name.
pub(super) struct Unfinished {
    source: Arc<Source>,
    path: ObjectPath,
    raw: String,
    done: bool,
}

impl Unfinished {
    /// One that is to become `path`, in the same directory. Nothing is written yet.
    pub(super) fn beside(source: &Arc<Source>, path: &ObjectPath) -> Result<Self> {
        let path = write::temporary_beside(path);
        Ok(Self {
            source: Arc::clone(source),
            raw: source.raw(Operation::Put, &path, false)?,
            path,
            done: false,
        })
    }

    pub(super) fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// As the server is told its path.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// It has its object's name now.
    pub(super) fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (source, path, raw) = (
            Arc::clone(&self.source),
            self.path.clone(),
            std::mem::take(&mut self.raw),
        );
        runtime.spawn(async move {
            let removed = match &source.own {
                Own::Dav(dav) => dav.delete(&source, Operation::Put, &path, &raw).await,
                Own::Ftp(ftp) => ftp.delete(&source, Operation::Put, &path, &raw).await,
                // Services without changes of our own write no temporary names.
                Own::None => return,
            };
            if let Err(error) = removed {
                tracing::debug!(%error, "an unfinished file could not be removed");
            }
        });
    }
}
