//! Known children that a listing lacks, where a listing may end well and be cut all the same: they are looked for by themselves
//! before they are believed to be gone.
//!
//! Samba is such a source: where it cannot tell a name, since that is not in the character set that it was given, some of its modules
//! (`vfs_catia`) have it end the listing there, in the words of one that is complete.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use manifold_backends::{Identity, ObjectPath, Presence};
use manifold_catalog::{Catalog, EntryId, NewChild, SourceId, Ticket};
use tokio::time::timeout;

use crate::IndexError;
use crate::indexer::{Indexer, Target};
use crate::reconcile::KnownChildren;

/// How many are looked for, of one listing: where it was cut, all of them are there.
const LOOKS_MAX: usize = 16;
/// How many of them at once.
const LOOKS_AT_ONCE: usize = 8;

impl Indexer {
    /// Gives the children of a listing back, unless something is there that it lacks.
    pub(crate) async fn only_if_whole(
        self: &Arc<Self>,
        target: &Target,
        children: Vec<NewChild>,
        ticket: Ticket,
    ) -> Result<Vec<NewChild>, IndexError> {
        let (source, directory) = (target.source.id, target.directory);
        let (children, missing) = self
            .blocking(move |catalog| {
                let missing = missing(catalog, source, directory, &children)?;
                Ok((children, missing))
            })
            .await?;
        let step = missing.len().div_ceil(LOOKS_MAX).max(1);
        let mut looks = futures::stream::iter(missing.into_iter().step_by(step))
            .map(|path| self.look_for(target, path))
            .buffered(LOOKS_AT_ONCE);
        while let Some(looked) = looks.next().await {
            let Some((path, identity)) = looked? else { continue };
            if !is_listed(&children, &path, identity) {
                // What was uploaded since the listing is no sign that it was cut.
                if self.catalog().is_overtaken(ticket, directory) {
                    return Err(IndexError::Overtaken(directory.0));
                }
                return Err(IndexError::Odd {
                    source_name: target.source.backend.name().to_owned(),
                    path: target.path.to_string(),
                    reason: format!(
                        "it lacks {path}, which is there; the server may have stopped at a name that it cannot tell, so \
                         all that was known stays"
                    ),
                });
            }
        }
        drop(looks);
        Ok(children)
    }

    async fn look_for(
        &self,
        target: &Target,
        path: ObjectPath,
    ) -> Result<Option<(ObjectPath, Option<Identity>)>, IndexError> {
        let limit = self.settings().stat_timeout;
        match timeout(limit, target.source.backend.stat(&path)).await {
            Ok(Ok(Presence::Absent)) => Ok(None),
            Ok(Ok(Presence::Found(there))) => Ok(Some((path, there.identity))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(IndexError::TimedOut {
                source_name: target.source.backend.name().to_owned(),
                path: path.to_string(),
                after: limit,
            }),
        }
    }
}

/// Gives the paths of all known children that are not listed, and are not one that is under another name.
fn missing(
    catalog: &Catalog,
    source: SourceId,
    directory: EntryId,
    children: &[NewChild],
) -> Result<Vec<ObjectPath>, IndexError> {
    let moved: HashSet<EntryId> = children.iter().filter_map(|child| child.adopt).collect();
    let mut known = KnownChildren::new(catalog, directory);
    let mut missing = Vec::new();
    while let Some(entry) = known.next()? {
        let is_listed = children.binary_search_by(|child| child.name.cmp(&entry.name)).is_ok();
        if is_listed || entry.source != source || entry.attach_point || moved.contains(&entry.id) {
            continue;
        }
        // It may get there at any moment, and stays in any case.
        if catalog.staged(entry.id)?.is_some() {
            continue;
        }
        if let Some((_, path)) = catalog.object_path(entry.id)? {
            missing.push(ObjectPath::from_bytes(path));
        }
    }
    Ok(missing)
}

/// Tells whether what is found under a path is listed all the same: a server finds it by other letters, too.
fn is_listed(children: &[NewChild], path: &ObjectPath, identity: Option<Identity>) -> bool {
    let last = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let letters = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let sought = letters(last);
    children.iter().any(|child| {
        let same = identity.is_some_and(|it| child.seen.identity == Some(it.0));
        same || letters(child.raw_name.as_deref().unwrap_or(&child.name)) == sought
    })
}
