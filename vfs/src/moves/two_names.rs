//! A server that has two addresses: two sources of it are one, and nobody knows.

use manifold_backends::{Backend, ObjectPath, Presence, SourcePlace};
use manifold_catalog::{EntryId, Origin};

use super::job::{fault, of_index};
use super::{Fault, Moves};

impl Moves {
    /// Tells whether an original and its copy are called alike, and look like one object: where versions name the content, the copy
    /// of a file over itself has the version that was moved.
    pub(super) async fn may_be_its_copy(&self, origin: &Origin, path: &ObjectPath, id: EntryId) -> Result<bool, Fault> {
        let fetcher = &self.uploads.fetcher;
        let Some((target, target_path)) = fetcher.catalog.object_path(id).map_err(fault)? else {
            return Ok(false);
        };
        let target_path = ObjectPath::from_bytes(target_path);
        let (former, now) = (self.backend_of(origin.source).await?, self.backend_of(target).await?);
        // Elsewhere a copy over itself is another version, and a copy has the time of its original.
        let is_store = |backend: &dyn Backend| backend.capabilities().implicit_directories;
        if !is_store(&*former) || !is_store(&*now) {
            return Ok(false);
        }
        let place = |backend: &dyn Backend, path| Some(SourcePlace::root_of(backend.name())?.join(path));
        match (place(&*former, path), place(&*now, &target_path)) {
            (Some(former), Some(now)) if former.may_be(&now) => {}
            _ => return Ok(false),
        }
        let look = async |source, backend: &dyn Backend, path: &ObjectPath| {
            let asked = fetcher.indexer.ask(source, path, fetcher.deadline, backend.stat(path));
            Ok::<_, Fault>(match asked.await.map_err(of_index)? {
                Presence::Found(there) => Some((there.version, there.modified)),
                Presence::Absent => None,
            })
        };
        let original = look(origin.source, &*former, path).await?;
        Ok(original.is_some() && original == look(target, &*now, &target_path).await?)
    }
}
