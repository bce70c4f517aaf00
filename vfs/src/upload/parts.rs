//! What a source has of a file that is sent in parts, as the catalog remembers it: an upload that was broken off, by a crash or
//! by the source, is taken up by the next.
//!
//! Always true: an upload is taken up for the very state of the file, and the very place, for which it was begun.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use manifold_backends::{PartLog, PartUpload, SentPart};
use manifold_catalog::{Catalog, PartUploadId};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// The parts of one state of a file.
pub(crate) struct Parts {
    catalog: Arc<Catalog>,
    runtime: Handle,
    /// What is uploaded to where, but for what the source calls it.
    what: manifold_catalog::PartUpload,
    /// The upload that is under way, once it is known.
    upload: Mutex<Option<PartUploadId>>,
}

impl Parts {
    /// Of `what`, whose name is not known yet.
    pub(super) fn new(catalog: &Arc<Catalog>, runtime: &Handle, what: manifold_catalog::PartUpload) -> Arc<Self> {
        Arc::new(Self {
            catalog: Arc::clone(catalog),
            runtime: runtime.clone(),
            what,
            upload: Mutex::default(),
        })
    }

    /// Asks the catalog, which may wait for the disk.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Catalog) -> manifold_catalog::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let catalog = Arc::clone(&self.catalog);
        let answered = self.runtime.spawn_blocking(move || question(&catalog));
        answered.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

/// Tells whether an upload is of the same state of a file, to the same place.
pub(super) fn is_of(one: &manifold_catalog::PartUpload, what: &manifold_catalog::PartUpload) -> bool {
    let state = |it: &manifold_catalog::PartUpload| (it.entry, it.size, it.written_ns);
    state(one) == state(what) && one.source == what.source && one.path == what.path
}

#[async_trait]
impl PartLog for Parts {
    async fn broken_off(&self) -> io::Result<Option<PartUpload>> {
        let what = self.what.clone();
        let found = self.ask(move |catalog| {
            let mut begun = catalog.part_uploads()?.into_iter().rev();
            let Some((id, upload)) = begun.find(|(_, upload)| is_of(upload, &what)) else {
                return Ok(None);
            };
            Ok(Some((id, upload.name, catalog.sent_parts(id)?)))
        });
        let Some((id, name, parts)) = found.await? else {
            return Ok(None);
        };
        *self.upload.lock() = Some(id);
        let parts = parts.into_iter().map(|part| {
            Ok(SentPart {
                number: part.number,
                length: part.length,
                sum: part.sum,
                tag: text(part.tag)?,
            })
        });
        Ok(Some(PartUpload {
            id: text(name)?,
            parts: parts.collect::<io::Result<_>>()?,
        }))
    }

    async fn begun(&self, id: &str) -> io::Result<()> {
        let upload = manifold_catalog::PartUpload {
            name: id.as_bytes().to_vec(),
            ..self.what.clone()
        };
        let begun = self.ask(move |catalog| catalog.begin_part_upload(&upload)).await?;
        *self.upload.lock() = Some(begun);
        Ok(())
    }

    async fn sent(&self, part: SentPart) -> io::Result<()> {
        let Some(upload) = *self.upload.lock() else {
            return Ok(());
        };
        let part = manifold_catalog::SentPart {
            number: part.number,
            length: part.length,
            sum: part.sum,
            tag: part.tag.into_bytes(),
        };
        self.ask(move |catalog| catalog.note_sent_part(upload, &part)).await
    }

    async fn ended(&self) -> io::Result<()> {
        let ended = self.upload.lock().take();
        match ended {
            Some(upload) => self.ask(move |catalog| catalog.end_part_upload(upload)).await,
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// Gives what a source calls something, which was text when it was noted.
fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(io::Error::other)
}
