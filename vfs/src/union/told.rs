//! What is told of unions to those who ask for more than the mount shows.

use futures::future::join_all;
use manifold_catalog::{EntryId, SourceId};

use crate::Error;
use crate::error::Cause;
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

    /// Gives the sources that have a part of a directory; none where it is the library's own.
    ///
    /// # Errors
    /// The catalog failed, or there is no such entry.
    pub fn sources_of(&self, directory: EntryId) -> Result<Vec<SourceId>, Error> {
        let mut sources = Vec::new();
        for id in self.parts(directory)? {
            sources.push(self.core.entry_of(id)?.source);
        }
        sources.retain(|source| *source != SourceId::LIBRARY);
        Ok(sources)
    }

    /// Has a directory listed at its source now, though it is known, so that a name shows that was made a moment ago.
    /// `way`: the directory, and before it those that lead there from the root.
    ///
    /// # Errors
    /// A source that could not be asked within the deadline, and why.
    pub async fn look_in(&self, way: &[EntryId]) -> Result<(), (SourceId, Error)> {
        let within = |error| (SourceId::LIBRARY, error);
        for (index, directory) in way.iter().enumerate() {
            let is_last = index + 1 == way.len();
            // What one member has not, another may have by now, all the way to it.
            if is_last || self.core.merged(*directory).map_err(within)?.is_some() {
                let parts = self.parts(*directory).map_err(within)?;
                let listed = join_all(parts.into_iter().map(|id| self.list_anew(id))).await;
                listed.into_iter().collect::<Result<(), _>>()?;
            }
        }
        Ok(())
    }

    async fn list_anew(&self, directory: EntryId) -> Result<(), (SourceId, Error)> {
        let entry = self.core.entry_of(directory);
        let source = entry.map_err(|error| (SourceId::LIBRARY, error))?.source;
        let deadline = self.core.settings.metadata_deadline;
        match tokio::time::timeout(deadline, self.core.indexer.list_anew(directory)).await {
            Ok(listed) => listed.map_err(|error| (source, Error::from_index(error))),
            Err(_elapsed) => {
                let why = format!("no answer within {} s", deadline.as_secs_f32());
                Err((source, Error::TimedOut(Cause::new(why))))
            }
        }
    }
}
