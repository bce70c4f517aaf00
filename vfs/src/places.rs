//! Paths beneath a source's root, and what stands in the tree or lies at the source there.

use manifold_catalog::{Catalog, EntryId, Error as CatalogError, SourceId};
use manifold_index::names::{self, Side};

/// Tells whether another file of ours, which is still to be brought from there, lies at a path.
pub(crate) fn is_occupied_by_ours(
    catalog: &Catalog,
    source: SourceId,
    but: EntryId,
    path: &[u8],
) -> Result<bool, CatalogError> {
    for one in catalog.moves()? {
        for place in one.places.iter().filter(|_| one.source == source) {
            let Some(rest) = leads_to(place, path) else { continue };
            let Some(id) = find_beneath(catalog, one.id, rest)? else {
                continue;
            };
            let lies_at = catalog.object_path(id)?;
            if id != but && lies_at.is_some_and(|(_, lies_at)| lies_at == path) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Finds what stands at a path, of raw names, beneath a directory.
pub(crate) fn find_beneath(
    catalog: &Catalog,
    directory: EntryId,
    path: &[u8],
) -> Result<Option<EntryId>, CatalogError> {
    let mut at = directory;
    if path.is_empty() {
        return Ok(Some(at));
    }
    for part in path.split(|byte| *byte == b'/') {
        let shown = names::escape(part, Side::Plain);
        let found = catalog.lookup(at, &shown)?;
        let Some(found) = found.filter(|found| !found.attach_point) else {
            return Ok(None);
        };
        at = found.id;
    }
    Ok(Some(at))
}

/// Gives what comes behind a place in a path that is the place, or lies beneath it.
pub(crate) fn leads_to<'a>(place: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(place)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_leads_to_itself_and_to_what_lies_beneath() {
        for (place, path, rest) in [
            ("a/b", "a/b", Some("")),
            ("a/b", "a/b/c/d", Some("c/d")),
            ("a/b", "a/bc", None),
            ("a/b", "a", None),
        ] {
            assert_eq!(
                leads_to(place.as_bytes(), path.as_bytes()),
                rest.map(str::as_bytes),
                "{place} {path}"
            );
        }
    }
}
