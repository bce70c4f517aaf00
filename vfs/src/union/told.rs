//! What is told of unions to those who ask for more than the mount shows.

use manifold_catalog::{EntryId, SourceId};

use crate::Error;
use crate::vfs::Vfs;

/// A union as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnionReport {
    /// Where it is shown: an absolute path of the tree.
    pub at: Vec<u8>,
    /// Its members, in their order.
    pub members: Vec<SourceId>,
}

impl Vfs {
    /// Gives all unions whose directory is there, with their members.
    pub fn unions(&self) -> Vec<UnionReport> {
        let joined = self.core.unions.joined.read();
        let reports = joined.iter().map(|union| UnionReport {
            at: union.settings.at.clone(),
            members: union.members.iter().map(|member| member.source).collect(),
        });
        reports.collect()
    }

    /// Gives the entries that make up what is shown under a number: the parts of a merged directory that are known, in the order of
    /// the members; anything else by itself.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn parts(&self, id: EntryId) -> Result<Vec<EntryId>, Error> {
        Ok(match self.core.merged(id)? {
            Some(merged) => merged.directories().map(|(_, entry)| entry.id).collect(),
            None => vec![id],
        })
    }

    /// Gives the entries of other members that have the name of what is shown, and are hidden by it.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn hidden_by(&self, id: EntryId) -> Result<Vec<EntryId>, Error> {
        let entry = self.core.entry_of(id)?;
        let Some(merged) = self.core.merged(entry.parent)? else {
            return Ok(Vec::new());
        };
        let found = self.core.named(&merged, &entry.name)?;
        let first_is_part = found
            .first()
            .is_some_and(|(member, first)| merged.union.is_part(*member, first));
        let is_hidden = |(number, found): &(usize, &super::Found)| {
            *number > 0 && !(first_is_part && merged.union.is_part(found.0, &found.1))
        };
        let hidden = found.iter().enumerate().filter(is_hidden);
        Ok(hidden.map(|(_, (_, entry))| entry.id).collect())
    }

    /// Gives the sources that must be connected before a directory can be listed: those of its parts that were never listed.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn unlisted_sources(&self, directory: EntryId) -> Result<Vec<SourceId>, Error> {
        let unlisted = match self.core.merged(directory)? {
            Some(merged) => self.core.unlisted_parts(&merged)?,
            None if self.core.is_listed(directory)? => Vec::new(),
            None => vec![directory],
        };
        let mut sources = Vec::new();
        for id in unlisted {
            sources.push(self.core.entry_of(id)?.source);
        }
        Ok(sources)
    }
}
