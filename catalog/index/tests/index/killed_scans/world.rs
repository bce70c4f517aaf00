//! The source of a run, as it is after so many changes: always the same for the same seed.

use std::path::Path;
use std::sync::Arc;

use manifold_backends::Backend;

use crate::support::Scripted;
use crate::truths::{Folder, Random, Stir, Store, Truth};

/// One of the kinds of source that there are.
pub(super) enum World {
    Memory(Arc<Scripted>),
    Store(Store),
    /// Its changes stay by themselves.
    Folder(Folder),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Memory,
    Store,
    Folder,
}

impl Sort {
    fn of(seed: u64) -> Self {
        match seed % 6 {
            0 => Self::Folder,
            1 => Self::Store,
            _ => Self::Memory,
        }
    }
}

impl World {
    /// How many changes made it what it is when a run begins.
    pub(super) const YOUNG: u64 = 28;

    /// Makes what lasts beyond one process.
    pub(super) fn found(seed: u64, folder: &Path) {
        if Sort::of(seed) == Sort::Folder {
            let root = folder.join("source");
            std::fs::create_dir(&root).expect("the scratch folder is there");
            let folder = Folder::open(root);
            (0..Self::YOUNG).for_each(|number| stir(seed, number).apply(&folder));
        }
    }

    /// Opens the source as so many changes have left it.
    pub(super) fn open(seed: u64, folder: &Path, changes: u64) -> Self {
        let name = "scripted://one";
        let world = match Sort::of(seed) {
            Sort::Folder => return Self::Folder(Folder::open(folder.join("source"))),
            Sort::Memory => Self::Memory(Scripted::new(name, false)),
            Sort::Store => Self::Store(Store(Scripted::new(name, true))),
        };
        (0..changes).for_each(|number| stir(seed, number).apply(world.truth()));
        world
    }

    pub(super) fn truth(&self) -> &dyn Truth {
        match self {
            Self::Memory(scripted) => scripted,
            Self::Store(store) => store,
            Self::Folder(folder) => folder,
        }
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Memory(scripted) | Self::Store(Store(scripted)) => Arc::<Scripted>::clone(scripted),
            Self::Folder(folder) => Arc::<manifold_backends::local::LocalBackend>::clone(&folder.backend),
        }
    }

    pub(super) fn scripted(&self) -> Option<&Arc<Scripted>> {
        match self {
            Self::Memory(scripted) | Self::Store(Store(scripted)) => Some(scripted),
            Self::Folder(_) => None,
        }
    }
}

/// Tells whether the source may say of a single object that it is not there while it is. Where one object can stand in two
/// places, nobody could tell a lie of that sort from the truth.
pub(super) fn may_deny(seed: u64) -> bool {
    Sort::of(seed) == Sort::Memory && !has_links(seed)
}

/// Tells whether a run must live in real time: the threads that ask a folder are unknown to a paused clock, which would run
/// ahead of them until everything has timed out.
pub(super) fn takes_time(seed: u64) -> bool {
    Sort::of(seed) == Sort::Folder
}

fn has_links(seed: u64) -> bool {
    Sort::of(seed) != Sort::Memory || seed.is_multiple_of(2)
}

/// Gives the change of that number.
pub(super) fn stir(seed: u64, number: u64) -> Stir {
    let mut random = Random::new(&[seed, 2, number]);
    Stir::by_chance(&mut random, number < World::YOUNG, has_links(seed))
}
