//! What must stay: entries of the catalog that their source has held all along.

use std::collections::{BTreeMap, BTreeSet};

use manifold_catalog::EntryId;

use crate::library::Known;
use crate::support::Tree;

/// Whether it is a directory, and its identity: what makes an object the same.
pub(crate) type Same = (bool, Option<[u8; 16]>);

/// Entries by their paths, of which every part is the same object in the catalog and at the source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(BTreeMap<Vec<u8>, (EntryId, Same)>);

impl Held {
    /// Finds out what the catalog knows of what its source holds now.
    pub(crate) fn new(known: &Known, truth: &Tree) -> Self {
        let known = known.iter().map(|(path, seen)| (path.clone(), *seen));
        let mut held = Self(
            known
                .map(|(path, (id, (kind, _, identity)))| (path, (id, (kind, identity))))
                .collect(),
        );
        held.retain(truth);
        held
    }

    pub(crate) fn insert(&mut self, path: Vec<u8>, id: EntryId, same: Same) {
        self.0.insert(path, (id, same));
    }

    /// Lets go what its source does not hold any more, and gives the paths.
    pub(crate) fn retain(&mut self, truth: &Tree) -> Vec<Vec<u8>> {
        let mut gone = BTreeSet::new();
        // A directory comes before what it holds.
        for (path, (_, same)) in &self.0 {
            let is_same = truth
                .get(path)
                .is_some_and(|(kind, _, identity)| (*kind, *identity) == *same);
            let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
            let is_reached = parent.is_none_or(|parent| self.0.contains_key(parent) && !gone.contains(parent));
            if !is_same || !is_reached {
                gone.insert(path.clone());
            }
        }
        self.0.retain(|path, _| !gone.contains(path));
        gone.into_iter().collect()
    }

    /// Lets some go.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.0.values().any(|(held, _)| *held == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, EntryId, Same)> {
        self.0.iter().map(|(path, (id, same))| (path, *id, *same))
    }

    /// Says what the catalog does not have any more where it was, or has under another id.
    pub(crate) fn missing(&self, known: &Known) -> Option<String> {
        self.0.iter().find_map(|(path, (id, _))| {
            let now = known.get(path).map(|(now, _)| *now);
            (now != Some(*id)).then(|| format!("{} was entry {id}, and is {now:?} now", path.escape_ascii()))
        })
    }
}
