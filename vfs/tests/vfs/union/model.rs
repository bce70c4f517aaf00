//! Random changes of a union of two folders and a remote source, side by side with a plain folder: each change has the same outcome,
//! and after it both hold the same.

use std::collections::BTreeMap;
use std::path::Path;

use manifold_vfs::PlaceRule;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;

/// The first letter of a name says which member takes it.
const NAMES: [&str; 6] = ["a1", "a2", "b1", "b2", "s1", "s2"];

#[derive(Clone, Debug)]
enum Step {
    Write(String, u8),
    MakeDirectory(String),
    Unlink(String),
    RemoveDirectory(String),
    Rename(String, String),
    Reopen,
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(0..NAMES.len(), 1..4).prop_map(|names| {
        let names: Vec<_> = names.into_iter().map(|name| NAMES[name]).collect();
        names.join("/")
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (path(), any::<u8>()).prop_map(|(path, byte)| Step::Write(path, byte)),
        6 => path().prop_map(Step::MakeDirectory),
        2 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::RemoveDirectory),
        6 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 5..40)
}

/// What came of a change, in words that both sides share.
fn outcome(done: Result<(), Error>) -> &'static str {
    match done {
        Ok(()) => "done",
        Err(Error::NotFound) => "not found",
        Err(Error::Exists) => "exists",
        Err(Error::NotEmpty) => "not empty",
        Err(Error::NotADirectory) => "not a directory",
        Err(Error::IsADirectory) => "is a directory",
        Err(Error::InvalidArgument) => "invalid",
        Err(other) => panic!("{other:?}"),
    }
}

fn plain_outcome(done: std::io::Result<()>) -> &'static str {
    use rustix::io::Errno;
    let Err(error) = done else { return "done" };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => "not found",
        Some(Errno::EXIST) => "exists",
        Some(Errno::NOTEMPTY) => "not empty",
        Some(Errno::NOTDIR) => "not a directory",
        Some(Errno::ISDIR) => "is a directory",
        Some(Errno::INVAL) => "invalid",
        _ => panic!("{error:?}"),
    }
}

/// Finds the directory of a path as the kernel does: each name must be a directory.
async fn walk<'a>(world: &World, path: &'a str) -> Result<(EntryId, &'a [u8]), Error> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut id = world.find("").await?;
    for part in directory.split('/').filter(|part| !part.is_empty()) {
        let found = world
            .library
            .vfs
            .lookup(id, part.as_bytes(), NameMatch::Exact)
            .wait()
            .await?
            .1;
        if found.kind != Kind::Directory {
            return Err(Error::NotADirectory);
        }
        id = found.id;
    }
    Ok((id, name.as_bytes()))
}

/// Renames as the kernel does, which refuses some by itself.
async fn rename(world: &World, from: &str, to: &str) -> Result<(), Error> {
    let (one, other) = (walk(world, from).await?, walk(world, to).await?);
    let vfs = &world.library.vfs;
    let moved = vfs.lookup(one.0, one.1, NameMatch::Exact).wait().await?.1;
    if to.starts_with(&format!("{from}/")) {
        return Err(Error::InvalidArgument);
    }
    if from.starts_with(&format!("{to}/")) {
        return Err(Error::NotEmpty);
    }
    match vfs.lookup(other.0, other.1, NameMatch::Exact).wait().await {
        Ok((_, found)) if moved.kind != Kind::Directory && found.kind == Kind::Directory => {
            return Err(Error::IsADirectory);
        }
        Ok((_, found)) if moved.kind == Kind::Directory && found.kind != Kind::Directory => {
            return Err(Error::NotADirectory);
        }
        Ok(_) | Err(Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    vfs.rename(one, other, RenameMode::Replace).wait().await
}

async fn take(world: &World, plain: &Path, step: &Step) -> (&'static str, &'static str) {
    let vfs = &world.library.vfs;
    match step {
        Step::Write(path, byte) => {
            let ours = match walk(world, path).await {
                Ok(_) => world.write(path, &[*byte; 10]).await,
                Err(error) => Err(error),
            };
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(plain.join(path));
            let theirs = file.and_then(|mut file| std::io::Write::write_all(&mut file, &[*byte; 10]));
            (outcome(ours), plain_outcome(theirs))
        }
        Step::MakeDirectory(path) => {
            let ours = match walk(world, path).await {
                Ok((id, name)) => vfs.make_directory(id, name, 0o755, ME).wait().await.map(drop),
                Err(error) => Err(error),
            };
            (outcome(ours), plain_outcome(fs::create_dir(plain.join(path))))
        }
        Step::Unlink(path) => {
            let ours = match walk(world, path).await {
                Ok((id, name)) => vfs.remove_file(id, name).wait().await,
                Err(error) => Err(error),
            };
            (outcome(ours), plain_outcome(fs::remove_file(plain.join(path))))
        }
        Step::RemoveDirectory(path) => {
            let ours = match walk(world, path).await {
                Ok((id, name)) => vfs.remove_directory(id, name).wait().await,
                Err(error) => Err(error),
            };
            (outcome(ours), plain_outcome(fs::remove_dir(plain.join(path))))
        }
        Step::Rename(from, to) => {
            let ours = rename(world, from, to).await;
            (
                outcome(ours),
                plain_outcome(fs::rename(plain.join(from), plain.join(to))),
            )
        }
        Step::Reopen => ("done", "done"),
    }
}

/// All of a folder: files with their bytes, directories without.
fn held(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(folder.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if directory.is_empty() {
                name
            } else {
                format!("{directory}/{name}")
            };
            if entry.file_type().unwrap().is_dir() {
                all.insert(path.clone(), None);
                open.push(path);
            } else {
                all.insert(path, Some(fs::read(entry.path()).unwrap()));
            }
        }
    }
    all
}

async fn shown(world: &World) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for name in world.list(&directory).await.unwrap() {
            let path = if directory.is_empty() {
                name
            } else {
                format!("{directory}/{name}")
            };
            if world.attributes(&path).await.kind == Kind::Directory {
                all.insert(path.clone(), None);
                open.push(path);
            } else {
                let bytes = world.read(&path).await;
                all.insert(path, Some(bytes));
            }
        }
    }
    all
}

fn rules() -> Union {
    let rule = |member: &str| {
        let pattern = format!("{member}*");
        PlaceRule::new(pattern.as_bytes(), member.as_bytes()).unwrap()
    };
    Union {
        rules: vec![rule("a"), rule("b"), rule("s")],
        ..union()
    }
}

async fn run(steps: Vec<Step>) {
    let plain = TempDir::new().unwrap();
    let fill = |path: &str, bytes: &[u8]| {
        let path = plain.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for (path, bytes) in [("a1/a1", b"a"), ("a1/b1", b"b"), ("a1/s1", b"s"), ("b1/s1/s2", b"2")] {
        fill(path, bytes);
    }
    let mut world = World::new(|a, b, shelf| {
        put(a, "a1/a1", "a");
        put(b, "a1/b1", "b");
        shelf.place("a1/s1", b"s");
        shelf.place("b1/s1/s2", b"2");
    });
    world.library.vfs.set_unions(vec![rules()]).unwrap();
    for step in steps {
        if matches!(step, Step::Reopen) {
            world = world.reopened().await;
            world.library.vfs.set_unions(vec![rules()]).unwrap();
        }
        let (ours, theirs) = take(&world, plain.path(), &step).await;
        assert_eq!(ours, theirs, "{step:?}");
        assert_eq!(shown(&world).await, held(plain.path()), "after {step:?}");
    }
    // What the members hold, put together, is the same.
    world.until_uploaded().await;
    let mut together = held(world.a.path());
    together.extend(held(world.b.path()));
    for path in world.shelf.files() {
        together.insert(path.clone(), world.shelf.bytes(&path));
    }
    let mut plain = held(plain.path());
    for all in [&mut together, &mut plain] {
        all.retain(|_, bytes| bytes.is_some());
    }
    assert_eq!(together, plain);
}

#[test]
fn a_union_does_what_a_plain_folder_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 8,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(run(steps));
        Ok::<_, TestCaseError>(())
    });
    ran.unwrap();
}
