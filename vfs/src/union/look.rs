//! Looking into a union: names, listings, and what has to be listed first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use manifold_catalog::{Branch, Entry, EntryId};

use super::{Found, Merged};
use crate::attributes::{Attributes, NameMatch};
use crate::error::Cause;
use crate::vfs::Core;
use crate::{Answer, Error, look};

/// A stored name, and what stands under it.
type Named = (Box<[u8]>, Attributes);

/// What is known of a name.
struct Seen {
    /// The stored name.
    name: Box<[u8]>,
    found: Vec<Found>,
    /// What the first of them is, as it is shown.
    shown: Option<Attributes>,
    /// Directories that were never listed, so that nobody can tell what they have.
    unlisted: Vec<EntryId>,
    /// Whether one of those may have what would be shown instead.
    is_open: bool,
}

impl Core {
    /// Finds a name in a directory of a union.
    pub(crate) fn lookup_joined(self: &Arc<Self>, directory: EntryId, name: &[u8], how: NameMatch) -> Answer<Named> {
        let (core, name) = (Arc::clone(self), Box::<[u8]>::from(name));
        self.while_wanted(async move {
            let until = Instant::now() + core.settings.metadata_deadline;
            let mut failed = HashMap::new();
            loop {
                let merged = core.merged(directory)?.ok_or(Error::Stale)?;
                let seen = core.look_in(&merged, &name, how)?;
                let wanted: Vec<_> = seen
                    .unlisted
                    .iter()
                    .filter(|id| !failed.contains_key(*id))
                    .copied()
                    .collect();
                if !seen.is_open || wanted.is_empty() || Instant::now() >= until {
                    return match (seen.shown, seen.unlisted.first()) {
                        (Some(shown), _) => {
                            if seen.is_open {
                                core.note_guess(&merged, &name);
                            }
                            Ok((seen.name, shown))
                        }
                        (None, Some(unlisted)) => Err(failed.remove(unlisted).unwrap_or_else(|| core.too_late())),
                        (None, None) => Err(Error::NotFound),
                    };
                }
                core.list_all(&wanted, &mut failed).await;
            }
        })
    }

    /// Looks a name up in all that is known.
    fn look_in(self: &Arc<Self>, merged: &Merged, name: &[u8], how: NameMatch) -> Result<Seen, Error> {
        let mut seen = Seen {
            name: name.into(),
            found: Vec::new(),
            shown: None,
            unlisted: Vec::new(),
            is_open: false,
        };
        // Member, directory, and whether it can be asked.
        let own = merged.is_root().then_some((None, merged.id, true));
        let branches = merged
            .branches
            .iter()
            .enumerate()
            .filter_map(|(member, branch)| match branch {
                Branch::Directory(entry) => Some((Some(member), entry.id, true)),
                Branch::Unlisted(id) => Some((Some(member), *id, false)),
                Branch::Absent => None,
            });
        for (member, id, is_there) in own.into_iter().chain(branches) {
            let how = if seen.found.is_empty() { how } else { NameMatch::Exact };
            let known = match is_there.then(|| self.lookup_known(id, &seen.name, how)).transpose() {
                Ok(known) => known.flatten(),
                Err(Error::NotFound | Error::Stale) => continue,
                Err(error) => return Err(error),
            };
            let Some((name, attributes)) = known else {
                seen.is_open |= seen.found.is_empty();
                seen.unlisted.push(id);
                continue;
            };
            let entry = self.catalog.lookup(id, &name).map_err(Error::from_catalog)?;
            let Some(entry) = entry.filter(|entry| !(member.is_none() && entry.attach_point)) else {
                continue;
            };
            if seen.found.is_empty() {
                (seen.name, seen.shown) = (name, Some(attributes));
            }
            seen.found.push((member, entry));
        }
        if let Some((member, first)) = seen.found.first()
            && merged.union.is_part(*member, first)
            && let Some(whole) = self.entry_of_all(&merged.union, &seen.found)
        {
            seen.shown = Some(look::attributes_of(&self.catalog, &self.files, &whole)?);
        }
        Ok(seen)
    }

    /// Gives all that stands under a name in a directory whose parts are all listed, in the order of the members.
    pub(super) fn named(self: &Arc<Self>, merged: &Merged, name: &[u8]) -> Result<Vec<Found>, Error> {
        Ok(self.look_in(merged, name, NameMatch::Exact)?.found)
    }

    /// Lists all parts of a directory of a union that were never listed, and gives them. It fails if one cannot be listed.
    pub(crate) async fn list_parts(self: &Arc<Self>, directory: EntryId) -> Result<Merged, Error> {
        let until = Instant::now() + self.settings.metadata_deadline;
        let mut failed = HashMap::new();
        loop {
            let merged = self.merged(directory)?.ok_or(Error::Stale)?;
            let unlisted = self.unlisted_parts(&merged)?;
            if unlisted.is_empty() {
                return Ok(merged);
            }
            if let Some(error) = unlisted.iter().find_map(|id| failed.remove(id)) {
                return Err(error);
            }
            if Instant::now() >= until {
                return Err(self.too_late());
            }
            self.list_all(&unlisted, &mut failed).await;
        }
    }

    /// Names the directories that must be listed before all of a merged one is known. What may be out of date is listed again
    /// behind that.
    pub(crate) fn unlisted_parts(self: &Arc<Self>, merged: &Merged) -> Result<Vec<EntryId>, Error> {
        let mut unlisted = Vec::new();
        for branch in &merged.branches {
            match branch {
                Branch::Unlisted(id) => unlisted.push(*id),
                Branch::Directory(entry) => match self.is_listed(entry.id) {
                    Ok(true) | Err(Error::Stale) => {}
                    Ok(false) => unlisted.push(entry.id),
                    Err(error) => return Err(error),
                },
                Branch::Absent => {}
            }
        }
        Ok(unlisted)
    }

    async fn list_all(self: &Arc<Self>, directories: &[EntryId], failed: &mut HashMap<EntryId, Error>) {
        let listed = join_all(directories.iter().map(|id| self.list(*id))).await;
        for (id, listed) in directories.iter().zip(listed) {
            if let Err(error) = listed {
                failed.insert(*id, error);
            }
        }
    }

    pub(super) fn too_late(&self) -> Error {
        let after = self.settings.metadata_deadline.as_secs_f32();
        Error::TimedOut(Cause::new(format!(
            "a member of a union was not listed within {after} s"
        )))
    }

    /// Gives up to `limit` children of a directory as they are shown, in the byte order of their names, from the first behind
    /// `after` on.
    pub(crate) fn children_shown(
        &self,
        directory: EntryId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let children = |id, limit| self.catalog.children(id, after, limit).map_err(Error::from_catalog);
        let Some(merged) = self.merged(directory)? else {
            return children(directory, limit);
        };
        let mut names: BTreeMap<Box<[u8]>, Vec<Found>> = BTreeMap::new();
        let mut add = |member: Option<usize>, entries: Vec<Entry>| {
            for entry in entries {
                names.entry(entry.name.clone()).or_default().push((member, entry));
            }
        };
        if merged.is_root() {
            let mut own = children(merged.id, limit + merged.union.members.len())?;
            own.retain(|entry| !entry.attach_point);
            add(None, own);
        }
        for (member, entry) in merged.directories() {
            add(Some(member), children(entry.id, limit)?);
        }
        // Each page goes at least as far as the first `limit` of all names.
        let shown = names.values().take(limit);
        let shown = shown.filter_map(|found| self.entry_of_all(&merged.union, found));
        Ok(shown.collect())
    }
}
