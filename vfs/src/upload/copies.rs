//! Copies of files on the move that nobody has taken note of: their answers were lost, or the daemon died before they came, or
//! the file was written to meanwhile and the copy could not be undone.

use std::sync::Arc;

use futures::future::try_join;
use manifold_backends::{Backend, ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::{EntryId, SourceId};
use manifold_index::IndexError;

use super::Uploads;
use crate::places::is_occupied_by_ours;

/// How much is compared at once, in bytes.
const CHUNK: u64 = 4 << 20;

/// An object at a source, as it was seen.
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a ObjectPath,
    pub(crate) version: &'a Version,
}

impl Uploads {
    /// Takes away the copy of a file in the place to which it is to follow its directory, where one was made that is not in
    /// the catalog. To be called before the file changes in the place where it lies, or leaves that: nobody could tell after that whose the copy is.
    /// The name of the file, or its upload, must be held.
    pub(crate) async fn take_unnoted_copy_away(
        &self,
        id: EntryId,
        source: SourceId,
        backend: &Arc<dyn Backend>,
    ) -> Result<(), IndexError> {
        let (catalog, indexer, deadline) = (&self.fetcher.catalog, &self.fetcher.indexer, self.fetcher.deadline);
        let (Some((_, lies_at)), Some(stands_at)) = (catalog.object_path(id)?, catalog.standing_path(id)?) else {
            return Ok(());
        };
        if lies_at == stands_at || is_occupied_by_ours(catalog, source, id, &stands_at)? {
            return Ok(());
        }
        let version = match self.staging.get(id) {
            Some(file) => file.expected(),
            None => catalog.details(id)?.map(|details| details.version),
        };
        // What is here alone has no copy.
        let Some(version) = version.map(|version| Version::from_stored(&version)) else {
            return Ok(());
        };
        let (from, to) = (ObjectPath::from_bytes(lies_at), ObjectPath::from_bytes(stands_at));
        let Presence::Found(there) = indexer.ask(source, &to, deadline, backend.stat(&to)).await? else {
            return Ok(());
        };
        let original = match indexer.ask(source, &from, deadline, backend.stat(&from)).await? {
            Presence::Found(seen) if seen.version == version => seen,
            Presence::Found(_) | Presence::Absent => return Ok(()),
        };
        let is_alike = there.kind == Kind::File && there.size == original.size;
        let ours = Seen {
            path: &from,
            version: &version,
        };
        if !is_alike || !self.holds_the_same(source, backend, &ours, &to, &there).await? {
            return Ok(());
        }
        tracing::debug!(id = id.0, path = %to, "a copy that was not noted is taken away");
        let expected = Expected::Version(there.version);
        let removal = backend.remove_file(&to, &expected);
        match indexer.ask(source, &to, deadline, removal).await {
            Ok(_) => Ok(()),
            // Another has put something there.
            Err(error) if matches!(error.kind(), Some(ErrorKind::Conflict | ErrorKind::IsADirectory)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Compares the bytes of two objects of one length; `false` also where either is not any more what it was.
    pub(crate) async fn holds_the_same(
        &self,
        source: SourceId,
        backend: &Arc<dyn Backend>,
        one: &Seen<'_>,
        other: &ObjectPath,
        there: &Metadata,
    ) -> Result<bool, IndexError> {
        let (indexer, deadline) = (&self.fetcher.indexer, self.fetcher.deadline);
        if there.size == 0 {
            // There is nothing to be read, but it must be there.
            let ours = indexer.ask(source, one.path, deadline, backend.stat(one.path)).await?;
            return Ok(matches!(ours, Presence::Found(ours) if ours.size == 0 && ours.version == *one.version));
        }
        let chunk = CHUNK.min(u64::from(backend.capabilities().read_size_max)).max(1);
        let mut at = 0;
        while at < there.size {
            let range = at..there.size.min(at + chunk);
            at = range.end;
            let (ours, theirs) = (
                backend.read(one.path, one.version, range.clone()),
                backend.read(other, &there.version, range),
            );
            let read = try_join(
                indexer.ask(source, one.path, deadline, ours),
                indexer.ask(source, other, deadline, theirs),
            );
            match read.await {
                Ok((Presence::Found(ours), Presence::Found(theirs))) if ours == theirs => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == Some(ErrorKind::VersionChanged) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
