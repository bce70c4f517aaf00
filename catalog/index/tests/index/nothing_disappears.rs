//! Whatever changes at the source and whatever fails, nothing that is still there vanishes from the catalog; and once
//! nothing fails any more, the catalog is the truth.

use std::sync::Arc;

use manifold_backends::{Child, ErrorKind};
use proptest::prelude::*;
use tempfile::tempdir;
use tokio::runtime::Builder;

use crate::held::Held;
use crate::library::Library;
use crate::support::{Fault, Scripted, source};
use crate::truths::{Stir, paths, pick};

#[derive(Clone, Debug)]
enum Step {
    Stir(Stir),
    Break(usize, u8),
    Mend,
    List(usize),
    Refresh(usize),
    Scan,
}

fn step() -> impl Strategy<Value = Step> {
    let any = || any::<usize>();
    prop_oneof![
        14 => Stir::any().prop_map(Step::Stir),
        3 => (any(), 0..6_u8).prop_map(|(at, how)| Step::Break(at, how)),
        1 => Just(Step::Mend),
        6 => any().prop_map(Step::List),
        2 => any().prop_map(Step::Refresh),
        1 => Just(Step::Scan),
    ]
}

/// Changes the truth, or what fails.
fn stir(source: &Arc<Scripted>, step: &Step) {
    match *step {
        Step::Stir(ref stir) => stir.apply(source),
        Step::Break(at, how) => {
            let truth = source.truth();
            let mut directories = paths(&truth, true);
            directories.push(String::new());
            let path = pick(&directories, at).expect("the root is there");
            match how {
                0 => drop(source.fault(path, Fault::Refuse(ErrorKind::PermissionDenied))),
                1 => drop(source.fault(path, Fault::BreakAfter(0))),
                2 => drop(source.fault(path, Fault::BreakAfter(1))),
                3 => {
                    if let Some(object) = pick(&paths(&truth, false), at) {
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
        let held = Held::new(&library.known(&record), &source.truth());
        let known = library.tree(&record);
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
        prop_assert_eq!(held.missing(&library.known(&record)), None, "after {:?}", step);
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
