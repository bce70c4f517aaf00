//! Keeping names from being changed while something is done with paths that were made of them.

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_backends::local::LocalBackend;
use manifold_catalog::SourceId;

use crate::vfs::Core;

/// What a change does to the paths that lead to what stands in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    /// They stay.
    Stay,
    /// Some will be others.
    Change,
    /// Whoever asks has seen to it.
    Kept,
}

impl Core {
    /// Does something with paths that were made from the catalog, while no name changes behind its back. Where a file system
    /// may hang, nobody is made to wait for it, and a name that changes meanwhile is not found.
    pub(super) fn with_paths<T>(
        &self,
        source: SourceId,
        local: &LocalBackend,
        paths: Paths,
        work: impl FnOnce() -> T,
    ) -> T {
        if local.may_hang(&ObjectPath::root()) {
            return work();
        }
        self.with_paths_of(source, paths, work)
    }

    /// The same whatever file system it is on.
    pub(super) fn with_paths_of<T>(&self, source: SourceId, paths: Paths, work: impl FnOnce() -> T) -> T {
        if paths == Paths::Kept {
            return work();
        }
        let lock = Arc::clone(self.paths.lock().entry(source).or_default());
        if paths == Paths::Change {
            let _alone = lock.write();
            work()
        } else {
            let _with_others = lock.read_recursive();
            work()
        }
    }

    /// Does something with paths of two sources.
    pub(super) fn with_paths_of_both<T>(&self, mut sources: [(SourceId, Paths); 2], work: impl FnOnce() -> T) -> T {
        // Always in one order.
        sources.sort_unstable_by_key(|(source, _)| *source);
        let [one, other] = sources;
        self.with_paths_of(one.0, one.1, || self.with_paths_of(other.0, other.1, work))
    }

    /// As [`with_paths`](Self::with_paths), for who changes no names.
    pub(crate) fn while_names_stay<T>(&self, source: SourceId, local: &LocalBackend, work: impl FnOnce() -> T) -> T {
        self.with_paths(source, local, Paths::Stay, work)
    }
}
