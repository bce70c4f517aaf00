//! What sources hold, as a test that changes them at random needs it: trees that can be read and changed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use manifold_backends::local::LocalBackend;
use manifold_backends::{Identity, Kind, ObjectPath, Presence, Version};
use proptest::prelude::*;

use crate::support::{Scripted, Tree};

/// A source's truth. Paths are those of its tree; what stands in the way of something new is replaced.
pub(crate) trait Truth: Send + Sync {
    fn tree(&self) -> Tree;
    fn make_file(&self, path: &str);
    fn make_directory(&self, path: &str);
    fn remove(&self, path: &str);
    fn rename(&self, from: &str, to: &str);
    fn link(&self, from: &str, to: &str);
    fn grow(&self, path: &str);
}

impl Truth for Arc<Scripted> {
    fn tree(&self) -> Tree {
        self.truth()
    }

    fn make_file(&self, path: &str) {
        self.file(path, 1);
    }

    fn make_directory(&self, path: &str) {
        self.directory(path);
    }

    fn remove(&self, path: &str) {
        Scripted::remove(self, path);
    }

    fn rename(&self, from: &str, to: &str) {
        Scripted::rename(self, from, to);
    }

    fn link(&self, from: &str, to: &str) {
        Scripted::link(self, from, to);
    }

    fn grow(&self, path: &str) {
        self.change(path, |metadata| metadata.size += 1);
    }
}

/// An object store, in which files are known by what they hold and directories by nothing at all.
pub(crate) struct Store(pub(crate) Arc<Scripted>);

/// How many different contents its objects have.
const CONTENTS: u64 = 5;

impl Truth for Store {
    fn tree(&self) -> Tree {
        self.0.truth()
    }

    fn make_file(&self, path: &str) {
        let content = path.bytes().map(u64::from).sum::<u64>() % CONTENTS;
        self.0.object(path, content, content as u8);
    }

    fn make_directory(&self, path: &str) {
        self.0.directory(path);
        self.0.change(path, |metadata| metadata.identity = None);
    }

    fn remove(&self, path: &str) {
        self.0.remove(path);
    }

    fn rename(&self, from: &str, to: &str) {
        self.0.rename(from, to);
    }

    fn link(&self, from: &str, to: &str) {
        self.0.link(from, to);
    }

    fn grow(&self, path: &str) {
        self.0.change(path, |metadata| {
            metadata.size += CONTENTS;
            let content = metadata.size as u8;
            metadata.identity = Some(Identity([content; 16]));
            metadata.version = Version::from_etag(&[content]);
        });
    }
}

/// A real folder.
pub(crate) struct Folder {
    root: PathBuf,
    pub(crate) backend: Arc<LocalBackend>,
}

impl Folder {
    pub(crate) fn open(root: PathBuf) -> Self {
        let backend = Arc::new(LocalBackend::open(&root).expect("the folder is there"));
        Self { root, backend }
    }
}

impl Truth for Folder {
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut directories = vec![ObjectPath::root()];
        while let Some(directory) = directories.pop() {
            let walked = self.backend.walk_directory(&directory, None, &mut |name, metadata| {
                let path = directory.join(name);
                let is_directory = metadata.kind == Kind::Directory;
                let size = if is_directory { 0 } else { metadata.size };
                let identity = metadata.identity.map(|identity| identity.0);
                tree.insert(path.as_bytes().to_vec(), (is_directory, size, identity));
                if is_directory {
                    directories.push(path);
                }
            });
            assert!(matches!(walked, Ok(Presence::Found(()))), "{directory}: {walked:?}");
        }
        tree
    }

    fn make_file(&self, path: &str) {
        self.remove(path);
        fs::write(self.root.join(path), "x").expect("its directory is there");
    }

    fn make_directory(&self, path: &str) {
        self.remove(path);
        fs::create_dir(self.root.join(path)).expect("its directory is there");
    }

    fn remove(&self, path: &str) {
        let path = self.root.join(path);
        let removed = match path.symlink_metadata() {
            Ok(there) if there.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => Ok(()),
        };
        removed.expect("nobody else changes the folder");
    }

    fn rename(&self, from: &str, to: &str) {
        self.remove(to);
        fs::rename(self.root.join(from), self.root.join(to)).expect("both are in the folder");
    }

    fn link(&self, from: &str, to: &str) {
        fs::hard_link(self.root.join(from), self.root.join(to)).expect("the name is free");
    }

    fn grow(&self, path: &str) {
        let path = self.root.join(path);
        let size = path.metadata().expect("it is there").len();
        fs::write(path, vec![b'x'; size as usize + 1]).expect("it can be written");
    }
}

/// A change of a truth. Numbers stand for what is there, whatever it is by then.
#[derive(Clone, Debug)]
pub(crate) enum Stir {
    MakeFile(usize, u8),
    MakeDirectory(usize, u8),
    Remove(usize),
    Rename(usize, usize, u8),
    Link(usize, usize, u8),
    Grow(usize),
}

impl Stir {
    /// How many names there are in one directory.
    const NAMES: u8 = 6;

    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let (at, name) = (any::<usize>, || 0..Self::NAMES);
        prop_oneof![
            3 => (at(), name()).prop_map(|(at, name)| Self::MakeFile(at, name)),
            3 => (at(), name()).prop_map(|(at, name)| Self::MakeDirectory(at, name)),
            2 => at().prop_map(Self::Remove),
            4 => (at(), at(), name()).prop_map(|(from, at, name)| Self::Rename(from, at, name)),
            1 => (at(), at(), name()).prop_map(|(from, at, name)| Self::Link(from, at, name)),
            1 => at().prop_map(Self::Grow),
        ]
    }

    /// Makes one by chance; while the truth is young, one that adds to it.
    pub(crate) fn by_chance(random: &mut Random, is_young: bool, with_links: bool) -> Self {
        let mut at = || random.below(1 << 32) as usize;
        let (first, second, third, choice) = (at(), at(), at(), at());
        let name = (third % usize::from(Self::NAMES)) as u8;
        match choice % if is_young { 6 } else { 14 } {
            0..3 => Self::MakeFile(first, name),
            3..6 => Self::MakeDirectory(first, name),
            6..8 => Self::Remove(first),
            8..12 => Self::Rename(first, second, name),
            12 if with_links => Self::Link(first, second, name),
            _ => Self::Grow(first),
        }
    }

    pub(crate) fn apply(&self, truth: &dyn Truth) {
        let tree = truth.tree();
        let all = paths(&tree, false);
        let mut directories = paths(&tree, true);
        directories.push(String::new());
        let under = |at, name| {
            let (directory, name) = (
                pick(&directories, at).expect("the root is there"),
                char::from(b'a' + name),
            );
            if directory.is_empty() {
                name.to_string()
            } else {
                format!("{directory}/{name}")
            }
        };
        match *self {
            Self::MakeFile(at, name) => truth.make_file(&under(at, name)),
            Self::MakeDirectory(at, name) => truth.make_directory(&under(at, name)),
            Self::Remove(at) => {
                if let Some(path) = pick(&all, at) {
                    truth.remove(path);
                }
            }
            Self::Rename(from, at, name) => {
                let to = under(at, name);
                // Neither into itself, nor onto what holds it.
                if let Some(from) = pick(&all, from)
                    && !format!("{to}/").starts_with(&format!("{from}/"))
                    && !format!("{from}/").starts_with(&format!("{to}/"))
                {
                    truth.rename(from, &to);
                }
            }
            Self::Link(from, at, name) => {
                let to = under(at, name);
                if let Some(from) = pick(&all, from)
                    && !tree[from.as_bytes()].0
                    && !tree.contains_key(to.as_bytes())
                {
                    truth.link(from, &to);
                }
            }
            Self::Grow(at) => {
                if let Some(path) = pick(&all, at)
                    && !tree[path.as_bytes()].0
                {
                    truth.grow(path);
                }
            }
        }
    }
}

/// Picks one of the paths; `None` where there is none.
pub(crate) fn pick(paths: &[String], at: usize) -> Option<&str> {
    (!paths.is_empty()).then(|| paths[at % paths.len()].as_str())
}

pub(crate) fn paths(tree: &Tree, directories_only: bool) -> Vec<String> {
    tree.iter()
        .filter(|(_, (is_directory, ..))| *is_directory || !directories_only)
        .map(|(path, _)| String::from_utf8(path.clone()).expect("the names are text"))
        .collect()
}

/// Chance that a seed repeats.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Chance for one purpose: seeds that differ in anything have nothing in common.
    pub(crate) fn new(seed: &[u64]) -> Self {
        let mut random = Self(0);
        for part in seed {
            random.0 ^= part;
            random.next();
        }
        random
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = mixed ^ (mixed >> 31);
        self.0
    }
}
