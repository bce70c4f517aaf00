//! Files that were moved here from another source: reading what they are made of, and what to make of it where that cannot be
//! read.
//!
//! Always true: the upload of such a file counts only if the target has as many bytes as were sent, and if those are what the
//! file was known to hold; what cannot be read of its origin is held against the origin's source and not against the target.

use std::sync::Arc;

use manifold_backends::{Metadata, ObjectPath, Presence};
use manifold_catalog::{EntryId, Origin, SourceId, Ticket};
use manifold_index::names;

use super::attempt::{Outcome, Upload, delayed};
use super::{UploadEvent, Uploads};
use crate::Error;
use crate::attributes::Attributes;
use crate::staging::{Sending, StagedFile};

impl Uploads {
    /// Says why a file cannot be uploaded now, if that is known without asking: what it was moved from cannot be read, what had
    /// its name is still to be taken away, or another may have got its name at the source.
    pub(super) fn why_wait(&self, file: &StagedFile) -> Result<Option<String>, Error> {
        if self.is_perhaps_replaced(file.id)? {
            return Ok(Some(
                "it is not known yet whether another file was renamed over this one".to_owned(),
            ));
        }
        if self.is_in_a_former_place(file.id)? {
            return Ok(Some(
                "what had this name is still to be taken away at its source".to_owned(),
            ));
        }
        if !file.holes().is_some_and(|rest| rest.base.is_origin) {
            return Ok(None);
        }
        let place = self
            .fetcher
            .catalog
            .origin_place(file.id)
            .map_err(Error::from_catalog)?;
        let away = place.filter(|(source, _)| self.fetcher.indexer.is_away(*source));
        Ok(away.map(|(source, _)| format!("source {source}, from which it is moved, gives no answer")))
    }

    /// Makes the best of it that what a file was moved from could not be read.
    pub(super) async fn no_origin(self: &Arc<Self>, upload: &Upload, error: Error) -> Outcome {
        if !matches!(error, Error::Stale | Error::NotFound) {
            return delayed(&error);
        }
        let (catalog, indexer) = (&self.fetcher.catalog, &self.fetcher.indexer);
        let (id, file) = (upload.file.id, &upload.file);
        let ticket = catalog.ticket();
        let place = match catalog.origin_place(id) {
            Ok(place) => place,
            Err(error) => return delayed(&error),
        };
        if let Some((source, path)) = place.clone() {
            let Some(backend) = indexer.backend(source) else {
                return Outcome::Delayed(format!("source {source} is not connected"));
            };
            let path = ObjectPath::from_bytes(path);
            let request = backend.stat(&path);
            match indexer.ask(source, &path, self.fetcher.deadline, request).await {
                Ok(Presence::Found(there)) if file.shows_through().as_deref() == Some(there.version.as_bytes()) => {
                    return delayed(&error);
                }
                Ok(_) => {}
                Err(error) => return delayed(&error),
            }
        }
        match self.is_origin_in_flux(id, ticket) {
            Ok(false) => {}
            Ok(true) => return Outcome::Delayed("its former directory is being changed".to_owned()),
            Err(error) => return delayed(&error),
        }
        match catalog.origin_place(id) {
            Ok(now) if now == place => {}
            // Its directory was renamed meanwhile.
            Ok(_) => return Outcome::Again,
            Err(error) => return delayed(&error),
        }
        // It may have been taken away after all, when its copy had arrived, and the daemon have died before that could last.
        if let Some(outcome) = self.has_arrived_unseen(upload).await {
            return outcome;
        }
        let why = format!(
            "{} was changed or removed by another, where it was moved from, before all of it had been copied",
            upload.path
        );
        if !file.is_all_base() {
            return Outcome::Refused {
                error: why,
                remedy: "what was written here is kept; write the whole file anew, or give it up by removing it"
                    .to_owned(),
            };
        }
        let (uploads, file) = (Arc::clone(self), Arc::clone(file));
        let undone = self.blocking(move || uploads.undo_move(&file)).await;
        match undone {
            Ok(Some((source, path, directory))) => {
                self.tell_move_undone(
                    source,
                    path,
                    format!("{why}; what is there now shows under the old name, and the new one is gone"),
                );
                let indexer = Arc::clone(indexer);
                self.fetcher.runtime.spawn(async move {
                    if let Err(error) = indexer.list_now(directory).await {
                        tracing::debug!(id = directory.0, %error, "the former place of a file is listed later");
                    }
                });
                Outcome::Done
            }
            Ok(None) => Outcome::Done,
            Err(error) => delayed(&error),
        }
    }

    /// Tells whether the directory that a file was moved from, or one above it, is being changed here, or was since a ticket: its
    /// source is asked first, and the catalog knows of it after that.
    fn is_origin_in_flux(&self, id: EntryId, ticket: Ticket) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        let origins = catalog.origins(id).map_err(Error::from_catalog)?;
        match origins.and_then(|origins| origins.places.into_iter().next()) {
            Some(origin) => {
                let overtaken = catalog.is_overtaken_on_the_way(ticket, origin.directory);
                Ok(overtaken.map_err(Error::from_catalog)? || !self.is_way_known(origin.directory)?)
            }
            None => Ok(false),
        }
    }

    /// Gives up a move: what the tree has of the file is gone. Gives the source from which it was moved, where it stood, and the
    /// directory in which it was.
    fn undo_move(&self, file: &Arc<StagedFile>) -> Result<Option<(SourceId, Vec<u8>, EntryId)>, Error> {
        let (catalog, id) = (&self.fetcher.catalog, file.id);
        let entry = catalog.entry(id).map_err(Error::from_catalog)?;
        let origins = catalog.origins(id).map_err(Error::from_catalog)?;
        let first = origins.and_then(|origins| origins.places.into_iter().next());
        let (Some(entry), Some(origin)) = (entry, first) else {
            return Ok(None);
        };
        let path = catalog.tree_path(id).map_err(Error::from_catalog)?.unwrap_or_default();
        if self.files.is_open(id) {
            self.files.note_attributes(id, Attributes::of(&entry));
        }
        let _change = catalog.begin_change(&[entry.parent, origin.directory]);
        file.forget();
        catalog.give_up_across(id, self.now_ns()).map_err(Error::from_catalog)?;
        self.files.meet(id, file);
        self.staging.forget(id);
        Ok(Some((origin.source, path, origin.directory)))
    }

    /// Makes sure that the target has what was moved.
    pub(super) fn verify_moved(&self, upload: &Upload, sending: Sending, metadata: &Metadata) -> Result<(), Outcome> {
        let file = &upload.file;
        if !file.has_origin() {
            return Ok(());
        }
        if metadata.size != sending.size {
            let (there, sent) = (metadata.size, sending.size);
            return Err(Outcome::Delayed(format!(
                "{} has {there} bytes after {sent} were sent; what it was moved from stays where it is",
                upload.path
            )));
        }
        let details = self.fetcher.catalog.details(file.id).map_err(|error| delayed(&error))?;
        let known = details
            .and_then(|details| details.content)
            .filter(|_| file.is_all_base());
        let sent = file.unconfirmed().into_iter().find(|(one, _)| *one == sending);
        match (known, sent) {
            (Some(known), Some((_, sent))) if known != sent => Err(Outcome::Refused {
                error: format!(
                    "the bytes of {} that were sent are not those that its origin is known to hold",
                    upload.path
                ),
                remedy: "what it was moved from stays where it is; read it again with: manifold hash PATH".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Tells whether something that stands elsewhere by now is still in the place of a file; or it has left something itself at its
    /// source that nobody has seen, and which may be in its place by another path.
    fn is_in_a_former_place(&self, id: EntryId) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        let left = catalog.origins(id).map_err(Error::from_catalog)?;
        if left.is_some_and(|left| left.places.iter().any(Origin::is_unseen)) {
            return Ok(true);
        }
        let rows = (catalog.entry(id), catalog.details(id));
        let (Some(entry), Some(details)) = (
            rows.0.map_err(Error::from_catalog)?,
            rows.1.map_err(Error::from_catalog)?,
        ) else {
            return Ok(false);
        };
        catalog
            .is_left_at(entry.parent, &details.raw_name)
            .map_err(Error::from_catalog)
    }

    /// Tells that another has changed or removed what a file was moved from.
    pub(crate) fn tell_move_undone(&self, source: SourceId, path: Vec<u8>, what: String) {
        tracing::warn!(path = %path.escape_ascii(), what, "another has changed what a file was moved from");
        (self.listener)(UploadEvent::MoveUndone { source, path, what });
    }

    /// Tells that what a file was moved from cannot be taken away.
    pub(crate) fn tell_original_refused(&self, source: SourceId, path: Vec<u8>, error: String, remedy: String) {
        tracing::warn!(path = %path.escape_ascii(), error, "what was moved stays in its former place too");
        (self.listener)(UploadEvent::OriginalRefused {
            source,
            path,
            error,
            remedy,
        });
    }

    /// Says where a file was moved from, in the tree.
    pub(super) fn origin_in_tree(&self, id: EntryId) -> Option<Vec<u8>> {
        let catalog = &self.fetcher.catalog;
        let mut places = catalog.origins(id).ok().flatten()?.places.into_iter();
        let origin = places.find(|origin| !origin.is_unseen())?;
        let above = catalog.tree_path(origin.directory).ok().flatten()?;
        Some([&above[..], b"/", &names::escape(&origin.name, names::Side::Plain)].concat())
    }
}
