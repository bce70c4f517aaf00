//! Places at a source: what lies in the way there, and what stands there in the tree.

use manifold_backends::ObjectPath;
use manifold_catalog::{Catalog, EntryId, Kind, SourceId};
use manifold_index::names::{self, Side};

use super::Moves;
use crate::Error;
use crate::places::{find_beneath, leads_to};

/// How far up a directory is looked for.
const DEPTH_MAX: usize = 1 << 16;

/// A name that no directory has: the directory in which it would stand, and the name.
pub(super) type FreeName = (EntryId, Box<[u8]>);

/// Where something is to be made at a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) source: SourceId,
    /// The directory in which it is, or which it is.
    pub(crate) directory: EntryId,
    /// The name at the source in that directory; `None`: the directory itself.
    pub(crate) name: Option<&'a [u8]>,
    /// The path beneath the source's root at which it is made: where the directory lies, which may be elsewhere than it stands.
    pub(crate) path: &'a [u8],
    /// The directory that is renamed to there.
    pub(crate) renamed: Option<EntryId>,
}

impl Moves {
    /// Finds a directory on the move of which something lies, or may lie, at a place or beneath it or above it.
    pub(super) fn in_the_way(&self, place: &Place<'_>) -> Result<Option<EntryId>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        let moves = catalog.moves().map_err(Error::from_catalog)?;
        if moves.is_empty() {
            return Ok(None);
        }
        // It is made at the one, and is to follow its directory to the other.
        let mut paths = vec![place.path.to_vec()];
        if let Some(mut stands) = catalog.standing_path(place.directory).map_err(Error::from_catalog)? {
            if let Some(name) = place.name {
                stands = ObjectPath::from_bytes(stands).join(name).as_bytes().to_vec();
            }
            paths.push(stands);
        }
        let overlaps = |there: &Vec<u8>| {
            let mut paths = paths.iter();
            paths.any(|path| leads_to(there, path).is_some() || leads_to(path, there).is_some())
        };
        for one in moves {
            if one.source != place.source || !one.places.iter().any(overlaps) {
                continue;
            }
            // What leads to the place is not in its way, and neither is what is renamed in its own. What stands beneath that
            // and lies there is: nobody could tell its objects from those that follow to there.
            let is_own = place.renamed == Some(one.id);
            if !is_own && !is_above(catalog, one.id, place.directory)? {
                return Ok(Some(one.id));
            }
        }
        Ok(None)
    }

    /// Finds the moves, other than those of a directory and what stands beneath it, of which something may lie beneath one of
    /// the directory's old places.
    pub(super) fn lie_within(&self, source: SourceId, top: EntryId, places: &[Vec<u8>]) -> Result<Vec<EntryId>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        let mut found = Vec::new();
        for one in catalog.moves().map_err(Error::from_catalog)? {
            let lies = |place: &Vec<u8>| places.iter().any(|ours| leads_to(ours, place).is_some());
            if one.source == source && one.places.iter().any(lies) && !is_above(catalog, top, one.id)? {
                found.push(one.id);
            }
        }
        Ok(found)
    }

    /// Finds what stands in the tree at a path beneath the root of a source.
    pub(super) fn find_at(&self, source: SourceId, path: &[u8]) -> Result<Option<EntryId>, Error> {
        let Some(root) = self.root_of(source)? else {
            return Ok(None);
        };
        find_beneath(&self.uploads.fetcher.catalog, root, path).map_err(Error::from_catalog)
    }

    /// Finds the name on the way to a path beneath the root of a source that no directory has. `None`: a directory stands at the path.
    pub(super) fn free_name_at(&self, source: SourceId, path: &[u8]) -> Result<Option<FreeName>, Error> {
        let catalog = &self.uploads.fetcher.catalog;
        let Some(mut at) = self.root_of(source)? else {
            return Ok(None);
        };
        for part in path.split(|byte| *byte == b'/') {
            let shown = names::escape(part, Side::Plain);
            let found = catalog.lookup(at, &shown).map_err(Error::from_catalog)?;
            match found.filter(|found| found.kind == Kind::Directory && !found.attach_point) {
                Some(found) => at = found.id,
                None => return Ok(Some((at, shown.into()))),
            }
        }
        Ok(None)
    }

    fn root_of(&self, source: SourceId) -> Result<Option<EntryId>, Error> {
        let sources = self.uploads.fetcher.catalog.sources().map_err(Error::from_catalog)?;
        let record = sources.into_iter().find(|record| record.id == source);
        Ok(record.map(|record| record.root))
    }
}

/// Tells whether an entry is another, or stands above it.
fn is_above(catalog: &Catalog, above: EntryId, id: EntryId) -> Result<bool, Error> {
    let mut at = id;
    for _ in 0..DEPTH_MAX {
        if at == above {
            return Ok(true);
        }
        match catalog.entry(at).map_err(Error::from_catalog)? {
            Some(entry) if at != EntryId::ROOT => at = entry.parent,
            _ => break,
        }
    }
    Ok(false)
}
