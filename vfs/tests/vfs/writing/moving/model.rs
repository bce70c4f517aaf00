//! Random changes of a tree at a source that has no directories to rename, side by side with a map of paths: what is shown is what the
//! map holds, after each step and whatever is still on the move, and in the end the source holds the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::super::*;
use super::*;

const DIRECTORIES: [&str; 6] = ["d", "e", "g", "d/x", "e/x", "e/y"];
const NAMES: [&str; 3] = ["1", "2", "3"];

/// What stands at a path: a file's bytes, or a directory.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Clone, Debug)]
enum Step {
    Make(usize),
    RemoveDirectory(usize),
    RenameDirectory(usize, usize),
    Save(usize, usize, Vec<u8>),
    Unlink(usize, usize),
    Rename((usize, usize), (usize, usize)),
    List(usize),
    Cue(Cue),
    Settle,
    /// The daemon dies and comes back.
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let directory = || 0..DIRECTORIES.len();
    let file = || (0..=DIRECTORIES.len(), 0..NAMES.len());
    let bytes = || (1..200_u64, any::<u64>()).prop_map(|(length, seed)| pattern(length, seed));
    let cue = prop_oneof![Just(Cue::Does), Just(Cue::Dawdles), Just(Cue::RemovesNothing)];
    let step = prop_oneof![
        2 => directory().prop_map(Step::Make),
        2 => directory().prop_map(Step::RemoveDirectory),
        8 => (directory(), directory()).prop_map(|(from, to)| Step::RenameDirectory(from, to)),
        5 => (file(), bytes()).prop_map(|((at, name), bytes)| Step::Save(at, name, bytes)),
        2 => file().prop_map(|(at, name)| Step::Unlink(at, name)),
        4 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => directory().prop_map(Step::List),
        3 => cue.prop_map(Step::Cue),
        1 => Just(Step::Settle),
        1 => Just(Step::Die),
    ];
    proptest::collection::vec(step, 6..30)
}

/// The path of a file: in a directory, or for the last number in the source's root.
fn path((at, name): (usize, usize)) -> String {
    DIRECTORIES.get(at).map_or_else(
        || NAMES[name].to_owned(),
        |directory| format!("{directory}/{}", NAMES[name]),
    )
}

fn parent_is_there(model: &Tree, path: &str) -> bool {
    path.rsplit_once('/')
        .is_none_or(|(parent, _)| model.get(parent).is_some_and(Option::is_none))
}

fn is_empty(model: &Tree, directory: &str) -> bool {
    !model.keys().any(|path| path.starts_with(&format!("{directory}/")))
}

/// What could not be done in time has not been done.
fn was_done<T: std::fmt::Debug>(result: Result<T, Error>, expected: bool, step: &str) -> bool {
    match result {
        Err(Error::Busy | Error::TimedOut(_)) => false,
        Ok(_) => {
            assert!(expected, "{step} was done");
            true
        }
        Err(error) => {
            assert!(!expected, "{step}: {error}");
            false
        }
    }
}

async fn take(world: World, model: &mut Tree, step: Step) -> World {
    let told = format!("{step:?}");
    match step {
        Step::Make(at) => {
            let path = DIRECTORIES[at];
            if parent_is_there(model, path) {
                let made = world.make_directory(&format!("s/{path}")).await;
                if was_done(made, !model.contains_key(path), &told) {
                    model.insert(path.to_owned(), None);
                }
            }
        }
        Step::RemoveDirectory(at) => {
            let path = DIRECTORIES[at];
            if parent_is_there(model, path) {
                let removed = world.remove_directory(&format!("s/{path}")).await;
                let may = model.contains_key(path) && is_empty(model, path);
                if was_done(removed, may, &told) {
                    model.remove(path);
                }
            }
        }
        Step::RenameDirectory(from, to) => {
            let (from, to) = (DIRECTORIES[from], DIRECTORIES[to]);
            let beneath = |path: &str, above: &str| path.starts_with(&format!("{above}/"));
            // The kernel lets nobody ask for that.
            if from == to || beneath(to, from) || !parent_is_there(model, from) || !parent_is_there(model, to) {
                return world;
            }
            let renamed = world.move_to(&format!("s/{from}"), &format!("s/{to}")).await;
            let may = model.contains_key(from) && is_empty(model, to);
            if was_done(renamed, may, &told) {
                let moved: Vec<_> = model
                    .keys()
                    .filter(|path| *path == from || beneath(path, from))
                    .cloned()
                    .collect();
                for path in moved {
                    let node = model.remove(&path).unwrap();
                    model.insert(format!("{to}{}", &path[from.len()..]), node);
                }
            }
        }
        Step::Save(at, name, bytes) => {
            let path = path((at, name));
            if parent_is_there(model, &path) {
                let written = world.write_anew(&path, model.contains_key(&path), &bytes).await;
                if was_done(written, true, &told) {
                    model.insert(path, Some(bytes));
                }
            }
        }
        Step::Unlink(at, name) => {
            let path = path((at, name));
            if parent_is_there(model, &path) {
                let removed = world.remove(&format!("s/{path}")).await;
                if was_done(removed, model.contains_key(&path), &told) {
                    model.remove(&path);
                }
            }
        }
        Step::Rename(from, to) => {
            let (from, to) = (path(from), path(to));
            if !parent_is_there(model, &from) || !parent_is_there(model, &to) {
                return world;
            }
            let renamed = world.move_to(&format!("s/{from}"), &format!("s/{to}")).await;
            if was_done(renamed, model.contains_key(&from), &told) {
                let node = model.remove(&from).unwrap();
                model.insert(to, node);
            }
        }
        Step::List(at) => {
            if let Ok(id) = world.library.find(&format!("s/{}", DIRECTORIES[at])).await {
                // It may be overtaken, which changes nothing.
                let _listed = world.library.indexer.list_now(id).await;
            }
            let _listed = world.library.indexer.list_now(world.root().await).await;
        }
        Step::Cue(cue) => world.shelf.set_cue(cue),
        Step::Settle => {
            world.shelf.set_cue(Cue::Does);
            world.until_settled().await;
        }
        Step::Die => {
            let world = world.die_and_come_back().await;
            world.shelf.set_cue(Cue::Does);
            world.until_settled().await;
            return world;
        }
    }
    world
}

impl World {
    async fn write_anew(&self, path: &str, known: bool, bytes: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.at(&format!("s/{path}")).await;
        let vfs = &self.library.vfs;
        let creation = Creation {
            mode: 0o644,
            access: Access::ReadWrite,
            exclusive: !known,
        };
        let handle = vfs.create(parent, &name, creation, ME).wait().await?.opened.handle;
        let id = self.library.find(&format!("s/{path}")).await?;
        let change = AttributeChange {
            size: Some(0),
            ..AttributeChange::default()
        };
        vfs.set_attributes(id, Some(handle), change, ME).wait().await?;
        self.write(handle, WriteAt::Offset(0), bytes).await?;
        self.close(handle).await
    }

    /// Reads the whole of what is shown.
    async fn shown(&self) -> Tree {
        let mut tree = Tree::new();
        let mut next = vec![(self.root().await, String::new())];
        while let Some((directory, prefix)) = next.pop() {
            let opened = self.library.vfs.open_directory(directory).wait().await.unwrap();
            self.library.vfs.release_directory(opened);
            for child in self.library.catalog.children(directory, None, usize::MAX).unwrap() {
                let path = format!("{prefix}{}", String::from_utf8_lossy(&child.name));
                if child.kind == manifold_vfs::Kind::Directory {
                    next.push((child.id, format!("{path}/")));
                    tree.insert(path, None);
                } else {
                    let bytes = self.read_path(&format!("s/{path}")).await;
                    tree.insert(path, Some(bytes));
                }
            }
        }
        tree
    }
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.keys().map(String::as_str).collect()
}

async fn run(steps: Vec<Step>) {
    let shelf = Shelf::store();
    let mut model = Tree::new();
    for (path, seed) in [("d/1", 1), ("d/2", 2), ("d/x/1", 3), ("d/x/3", 4), ("e/2", 5)] {
        let bytes = pattern(100 + seed, seed);
        shelf.place(path, &bytes);
        model.insert(path.to_owned(), Some(bytes));
    }
    for directory in ["d", "d/x", "e"] {
        // Or it would go with the last file in it.
        shelf.place_directory(directory);
        model.insert(directory.to_owned(), None);
    }
    let mut world = World::over(shelf, TempDir::new().unwrap());
    assert_eq!(world.shown().await, model);
    for step in steps {
        let told = format!("{step:?}");
        world = take(world, &mut model, step).await;
        let shown = world.shown().await;
        assert_eq!(names(&shown), names(&model), "after {told}");
        assert!(shown == model, "other bytes after {told}");
        world.library.catalog.examine().unwrap();
    }
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    let there: Tree = world
        .shelf
        .files()
        .into_iter()
        .map(|name| (name.clone(), world.shelf.bytes(&name)))
        .collect();
    let mut files = model.clone();
    files.retain(|_, node| node.is_some());
    assert_eq!(names(&there), names(&files));
    assert!(there == files, "other bytes at the source");
    for directory in ["s", "s/d", "s/e", "s/d/x", "s/e/x"] {
        if let Ok(id) = world.library.find(directory).await {
            world.library.indexer.list_now(id).await.unwrap();
        }
    }
    assert_eq!(names(&world.shown().await), names(&model), "when all is listed again");
    assert!(world.events.lock().is_empty(), "no conflict, and nothing refused");
}

proptest! {
    #![proptest_config(Config { cases: 20, ..Config::default() })]

    #[test]
    fn it_is_a_tree_whatever_is_on_the_move(steps in steps()) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(steps));
    }
}
