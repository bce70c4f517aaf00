//! Whatever changes at the source and whatever fails, nothing that is still there vanishes from the catalog; and once
//! nothing fails any more, the catalog is the truth.

use std::sync::Arc;

use manifold_backends::{Child, ErrorKind};
use manifold_catalog::EntryId;
use proptest::prelude::*;
use tempfile::tempdir;
use tokio::runtime::Builder;

use crate::library::Library;
use crate::support::{Fault, Scripted, Tree, source};

#[derive(Clone, Debug)]
enum Step {
    MakeFile(usize, u8),
    MakeDirectory(usize, u8),
    Remove(usize),
    Rename(usize, usize, u8),
    Link(usize, usize, u8),
    Touch(usize),
    Break(usize, u8),
    Mend,
    List(usize),
    Refresh(usize),
    Scan,
}

fn step() -> impl Strategy<Value = Step> {
    let any = || any::<usize>();
    prop_oneof![
        3 => (any(), 0..4_u8).prop_map(|(at, name)| Step::MakeFile(at, name)),
        3 => (any(), 0..4_u8).prop_map(|(at, name)| Step::MakeDirectory(at, name)),
        2 => any().prop_map(Step::Remove),
        4 => (any(), any(), 0..4_u8).prop_map(|(from, at, name)| Step::Rename(from, at, name)),
        1 => (any(), any(), 0..4_u8).prop_map(|(from, at, name)| Step::Link(from, at, name)),
        1 => any().prop_map(Step::Touch),
        3 => (any(), 0..6_u8).prop_map(|(at, how)| Step::Break(at, how)),
        1 => Just(Step::Mend),
        6 => any().prop_map(Step::List),
        2 => any().prop_map(Step::Refresh),
        1 => Just(Step::Scan),
    ]
}

/// Picks one of the paths; `None` where there is none.
fn pick(paths: &[String], at: usize) -> Option<&str> {
    (!paths.is_empty()).then(|| paths[at % paths.len()].as_str())
}

fn paths(tree: &Tree, directories_only: bool) -> Vec<String> {
    tree.iter()
        .filter(|(_, (is_directory, ..))| *is_directory || !directories_only)
        .map(|(path, _)| String::from_utf8(path.clone()).expect("the names are text"))
        .collect()
}

fn under(directory: &str, name: u8) -> String {
    let name = char::from(b'a' + name);
    if directory.is_empty() {
        name.to_string()
    } else {
        format!("{directory}/{name}")
    }
}

/// Changes the truth, or what fails.
fn stir(source: &Scripted, step: &Step) {
    let truth = source.truth();
    let all = paths(&truth, false);
    let mut directories = paths(&truth, true);
    directories.push(String::new());
    let directory = |at| pick(&directories, at).expect("the root is there");
    match *step {
        Step::MakeFile(at, name) => drop(source.file(&under(directory(at), name), 1)),
        Step::MakeDirectory(at, name) => drop(source.directory(&under(directory(at), name))),
        Step::Remove(at) => {
            if let Some(path) = pick(&all, at) {
                source.remove(path);
            }
        }
        Step::Rename(from, at, name) => {
            let to = under(directory(at), name);
            // Neither into itself, nor onto what holds it.
            if let Some(from) = pick(&all, from)
                && !format!("{to}/").starts_with(&format!("{from}/"))
                && !format!("{from}/").starts_with(&format!("{to}/"))
            {
                source.rename(from, &to);
            }
        }
        Step::Link(from, at, name) => {
            let to = under(directory(at), name);
            if let Some(from) = pick(&all, from)
                && !truth[from.as_bytes()].0
                && !truth.contains_key(to.as_bytes())
            {
                source.link(from, &to);
            }
        }
        Step::Touch(at) => {
            if let Some(path) = pick(&all, at)
                && !truth[path.as_bytes()].0
            {
                source.change(path, |metadata| metadata.size += 1);
            }
        }
        Step::Break(at, how) => {
            let path = directory(at);
            match how {
                0 => drop(source.fault(path, Fault::Refuse(ErrorKind::PermissionDenied))),
                1 => drop(source.fault(path, Fault::BreakAfter(0))),
                2 => drop(source.fault(path, Fault::BreakAfter(1))),
                3 => {
                    if let Some(object) = pick(&all, at) {
                        let metadata = source.change(object, |metadata| metadata.clone());
                        let twice = Child {
                            name: b"twice".to_vec(),
                            metadata,
                        };
                        source.fault(path, Fault::Pretend(vec![twice.clone(), twice]));
                    }
                }
                4 => source.stat_fails(true),
                _ => source.go_away(ErrorKind::Unreachable),
            }
        }
        Step::Mend => source.mend_all(),
        Step::List(_) | Step::Refresh(_) | Step::Scan => {}
    }
}

/// The entries of which every part of the path is the same object in both.
fn unchanged(known: &Tree, truth: &Tree) -> Vec<Vec<u8>> {
    let is_same = |path: &[u8]| {
        let (before, now) = (known.get(path), truth.get(path));
        before
            .zip(now)
            .is_some_and(|(before, now)| (before.0, before.2) == (now.0, now.2))
    };
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        ends.chain([path.len()]).map(|end| path[..end].to_vec()).collect()
    };
    known
        .keys()
        .filter(|path| parts(path).iter().all(|part| is_same(part)))
        .cloned()
        .collect()
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (folder, source) = (tempdir().expect("a folder"), source());
    let library = Library::open(folder.path());
    let record = library.add("/", &source);
    let at = |path: &[u8]| {
        library
            .find(&format!("/{}", String::from_utf8_lossy(path)))
            .map(|entry| entry.id)
    };
    for step in steps {
        stir(&source, &step);
        let (known, truth) = (library.tree(&record), source.truth());
        let must_stay: Vec<(Vec<u8>, Option<EntryId>)> = unchanged(&known, &truth)
            .into_iter()
            .map(|path| (path.clone(), at(&path)))
            .collect();
        let choose = |directories_only, number| {
            let mut paths = paths(&known, directories_only);
            paths.push(String::new());
            at(pick(&paths, number).expect("the root is there").as_bytes()).expect("it was just read")
        };
        // What these answer is not the question here: with faults about, most of them fail.
        match step {
            Step::List(number) => drop(library.indexer.list_now(choose(true, number)).await),
            Step::Refresh(number) => drop(library.indexer.refresh(choose(false, number)).await),
            Step::Scan => {
                let scan = library.indexer.scan(record.id);
                drop(tokio::time::timeout(std::time::Duration::from_secs(20), scan.ended()).await);
            }
            _ => {}
        }
        for (path, id) in must_stay {
            prop_assert_eq!(at(&path), id, "{} after {:?}", path.escape_ascii(), step);
        }
    }
    source.mend_all();
    tokio::time::sleep(std::time::Duration::from_mins(3)).await;
    // A scan that was under way has seen some of it before the end; the one after it has not.
    library.scan(&record).await;
    prop_assert_eq!(library.scan(&record).await, 0);
    prop_assert_eq!(library.tree(&record), source.truth());
    library.indexer.stop().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_and_fails(steps in prop::collection::vec(step(), 1..50)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_looks_as_it_was_known() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").file("a/x", 1).file("y", 2);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    let known = library.tree(&record);
    for kind in [
        ErrorKind::Unreachable,
        ErrorKind::TimedOut,
        ErrorKind::CredentialsRefused,
        ErrorKind::NoSuchSource,
    ] {
        source.go_away(kind);
        for path in ["/s", "/s/a"] {
            library.indexer.list_now(library.id(path)).await.unwrap_err();
        }
        library.indexer.scan(record.id);
        tokio::time::sleep(std::time::Duration::from_mins(5)).await;
        assert_eq!(library.tree(&record), known, "{kind:?}");
        library.indexer.detach(record.id);
        library.indexer.attach(record.id, Arc::<Scripted>::clone(&source));
    }
}
