//! The bulk load: the first scan of a source, in large sorted batches.

use crate::{EntryId, NewChild, Result};

/// A directory that was met on the way and is to be listed in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedDirectory {
    /// The id it was given.
    pub id: EntryId,
    /// What the source calls it.
    pub raw_name: Box<[u8]>,
}

/// Loads the directories of a fresh source.
///
/// Directories that are given in the order of their ids, as [`add`](Self::add) and the scan queue give them, make all
/// keys ascend, which is more than twice as fast. Rows become visible with each [`flush`](Self::flush); `add` flushes by itself
/// when enough has gathered. A directory that somebody else has listed in the meantime is passed over.
#[derive(Debug)]
pub struct BulkLoader(());

impl BulkLoader {
    /// Takes children of a never-listed directory. Large directories may come in several calls, in any order of names;
    /// the directory counts as listed only after [`complete`](Self::complete). `adopt` is not looked at.
    ///
    /// Gives back the directories among the children with the ids they will have. An id may turn out unused where
    /// the directory was listed by somebody else in the meantime.
    pub fn add(&mut self, _directory: EntryId, _children: Vec<NewChild>) -> Result<Vec<LoadedDirectory>> {
        unimplemented!()
    }

    /// Says that all children of the directory have been added.
    pub fn complete(&mut self, _directory: EntryId, _listed_ns: i64) -> Result<()> {
        unimplemented!()
    }

    /// Commits what has gathered.
    pub fn flush(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// Commits what has gathered, durably. Dropping the loader instead forgets what was not flushed.
    pub fn finish(self) -> Result<()> {
        unimplemented!()
    }
}
