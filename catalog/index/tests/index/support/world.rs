//! What the source holds: the truth that a catalog is compared with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use manifold_backends::{Child, ErrorKind, Identity, Kind, Metadata, Timestamp, Version};

use super::Fault;

#[derive(Debug, Default)]
pub(super) struct World {
    /// Children of each directory.
    pub(super) directories: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Metadata>>,
    /// Where links point.
    pub(super) targets: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) faults: BTreeMap<Vec<u8>, Fault>,
    pub(super) held: BTreeSet<Vec<u8>>,
    pub(super) away: Option<ErrorKind>,
    pub(super) retry_after: Option<Duration>,
    /// How long the next reads take; those after them are quick.
    pub(super) slow_reads: VecDeque<Duration>,
    pub(super) stat_fails: bool,
    pub(super) gone: bool,
    pub(super) listings: BTreeMap<Vec<u8>, usize>,
    pub(super) last_inode: u64,
    pub(super) time: i64,
}

/// Whether it is a directory, its size and its identity.
pub(crate) type Seen = (bool, u64, Option<[u8; 16]>);
/// What was seen, by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Seen>;

pub(super) fn split(path: &str) -> (Vec<u8>, Vec<u8>) {
    match path.rsplit_once('/') {
        Some((parent, name)) => (parent.into(), name.into()),
        None => (Vec::new(), path.into()),
    }
}

impl World {
    pub(super) fn make(&mut self, path: &str, kind: Kind, size: u64) {
        self.last_inode += 1;
        self.time += 1;
        let now = Timestamp(self.time);
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&self.last_inode.to_le_bytes());
        let metadata = Metadata {
            kind,
            size,
            modified: Some(now),
            changed: Some(now),
            created: Some(now),
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_stat(size, now, now, self.last_inode),
            identity: Some(Identity(identity)),
        };
        let (parent, name) = split(path);
        self.remove(path);
        self.children_mut(&parent).insert(name, metadata);
        if kind == Kind::Directory {
            self.directories.insert(path.into(), BTreeMap::new());
        }
    }

    pub(super) fn children_mut(&mut self, directory: &[u8]) -> &mut BTreeMap<Vec<u8>, Metadata> {
        self.directories
            .get_mut(directory)
            .expect("the script names a directory that is there")
    }

    pub(super) fn metadata_mut(&mut self, path: &str) -> &mut Metadata {
        let (parent, name) = split(path);
        self.children_mut(&parent)
            .get_mut(&name)
            .expect("the script names an object that is there")
    }

    pub(super) fn is_beneath(directory: &[u8], path: &[u8]) -> bool {
        path == directory || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
    }

    pub(super) fn remove(&mut self, path: &str) {
        let (parent, name) = split(path);
        if let Some(children) = self.directories.get_mut(&parent) {
            children.remove(&name);
        }
        self.directories
            .retain(|directory, _| !Self::is_beneath(path.as_bytes(), directory));
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        assert!(
            !Self::is_beneath(from.as_bytes(), to.as_bytes()),
            "a directory cannot move into itself"
        );
        self.remove(to);
        let (parent, name) = split(from);
        let metadata = self
            .children_mut(&parent)
            .remove(&name)
            .expect("the script renames what is there");
        let (parent, name) = split(to);
        self.children_mut(&parent).insert(name, metadata);
        let moving: Vec<_> = self
            .directories
            .keys()
            .filter(|path| Self::is_beneath(from.as_bytes(), path))
            .cloned()
            .collect();
        for path in moving {
            let children = self.directories.remove(&path).expect("its key was just read");
            let path = [to.as_bytes(), &path[from.len()..]].concat();
            self.directories.insert(path, children);
        }
    }

    /// Gives the object at a path; the root is none.
    pub(super) fn object(&self, path: &[u8]) -> Option<&Metadata> {
        let text = std::str::from_utf8(path).expect("scripts use text");
        let (parent, name) = split(text);
        self.directories.get(&parent)?.get(&name)
    }

    /// Gives some children of a directory, in the order of their names, after that name.
    pub(super) fn children_after(&self, directory: &[u8], after: Option<&[u8]>, count: usize) -> Option<Vec<Child>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let children = self.directories.get(directory)?;
        let page = children.range::<[u8], _>((after, Bound::Unbounded)).take(count);
        let child = |(name, metadata): (&Vec<u8>, &Metadata)| Child {
            name: name.clone(),
            metadata: metadata.clone(),
        };
        Some(page.map(child).collect())
    }
}
