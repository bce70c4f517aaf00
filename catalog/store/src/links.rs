//! Where symbolic links point: noting it, and asking for it.
//!
//! It is known of one version of a link, and of no other: what stands in the row of another version is not given.

use crate::error::Result;
use crate::format::{ChildKey, LinkRow};
use crate::store::{Snapshot, When};
use crate::tree;
use crate::{Catalog, Change, EntryId, Kind};

/// Where a link was found to point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    /// The link.
    pub id: EntryId,
    /// The version that was read.
    pub version: Box<[u8]>,
    /// Where that points, at most [`LINK_TARGET_MAX`](crate::LINK_TARGET_MAX) bytes without a NUL; empty where the source
    /// would not tell.
    pub target: Box<[u8]>,
}

/// A link in a directory, and whether its source has been asked where it points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLink {
    /// The link.
    pub id: EntryId,
    /// What its source calls it.
    pub raw_name: Box<[u8]>,
    /// Last change, in nanoseconds since 1970 UTC, as it is shown.
    pub modified_ns: i64,
    /// Its version.
    pub version: Box<[u8]>,
    /// Where that points; empty where the source would not tell, `None` where it was not asked.
    pub target: Option<Box<[u8]>>,
}

impl Catalog {
    /// Notes where links point, in one transaction; a target that is none, and a link that has another version by now, are passed
    /// over. Durable soon.
    pub fn set_link_targets(&self, read: &[LinkTarget]) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write_new(When::Soon, |edit| {
            for one in read {
                edit.set_link_target(one)?;
            }
            Ok(())
        })?;
        Ok(changes)
    }

    /// Gives where a link points; `None` where that is not known of its present version.
    pub fn link_target(&self, id: EntryId) -> Result<Option<Box<[u8]>>> {
        let target = self.store().read(|snapshot| {
            let version = tree::with_cold(&snapshot.entries, id.0, |cold| Ok(Box::<[u8]>::from(cold.version)))?;
            match version {
                Some(version) => target_of(snapshot, id.0, &version),
                None => Ok(None),
            }
        })?;
        Ok(target.filter(|target| !target.is_empty()))
    }

    /// Gives those of the names in a directory that are links.
    pub fn links_among(&self, directory: EntryId, names: &[Box<[u8]>]) -> Result<Vec<KnownLink>> {
        self.store().read(|snapshot| {
            let mut links = Vec::with_capacity(names.len());
            for name in names {
                let Some(key) = ChildKey::new(directory.0, name) else {
                    continue;
                };
                let hot = tree::hot(&snapshot.children, &key)?;
                let Some(hot) = hot.filter(|hot| hot.kind() == Kind::Symlink) else {
                    continue;
                };
                let id = hot.id();
                let seen = tree::with_cold(&snapshot.entries, id, |cold| {
                    Ok((Box::<[u8]>::from(cold.raw()), Box::<[u8]>::from(cold.version)))
                })?;
                let Some((raw_name, version)) = seen else { continue };
                links.push(KnownLink {
                    id: EntryId(id),
                    raw_name,
                    modified_ns: hot.modified_ns(),
                    target: target_of(snapshot, id, &version)?,
                    version,
                });
            }
            Ok(links)
        })
    }
}

fn target_of(snapshot: &Snapshot, id: u64, version: &[u8]) -> Result<Option<Box<[u8]>>> {
    let Some(row) = snapshot.links.get(id)? else {
        return Ok(None);
    };
    let row = LinkRow::decode(row.value())?;
    Ok((row.version == version).then(|| row.target.into()))
}
