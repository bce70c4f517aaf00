//! The scan: complete, bounded, patient, and unharmed by being cut short.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_backends::{Backend, ErrorKind};
use manifold_index::{IndexSettings, ScanEnd};
use proptest::prelude::*;
use tempfile::tempdir;
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::library::Library;
use crate::support::{Fault, Scripted, source};

/// `directories` directories in a tree of that fan-out, with `files` files each.
fn grow(source: &Scripted, directories: usize, fan_out: usize, files: usize) {
    let mut paths = vec![String::new()];
    for number in 1..directories {
        let parent = &paths[(number - 1) / fan_out];
        let path = if parent.is_empty() {
            format!("d{number}")
        } else {
            format!("{parent}/d{number}")
        };
        source.directory(&path);
        paths.push(path);
    }
    for path in &paths {
        for file in 0..files {
            source.file(
                &if path.is_empty() {
                    format!("f{file}")
                } else {
                    format!("{path}/f{file}")
                },
                file as u64,
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_finds_everything_and_lists_each_directory_once() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 60, 3, 4);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.tree(&record), source.truth());
    assert_eq!(source.listings_in_all(), 60);
    let progress = library.indexer.progress().remove(0);
    assert_eq!(
        (progress.queued, progress.listed, progress.failed, progress.running),
        (0, 60, 0, false)
    );
    assert!(progress.finished_ns.is_some());
    assert!(
        source.most_at_once.load(Ordering::SeqCst) <= 4,
        "half of what the source likes"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_entries_are_scanned() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 100, 10, 1_000);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.tree(&record), source.truth());
}

#[tokio::test(start_paused = true)]
async fn scanning_again_takes_over_what_changed_and_forgets_what_departed() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 20, 3, 3);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    source
        .remove("d1")
        .file("d2/new", 5)
        .directory("d3/deep")
        .file("d3/deep/x", 1);
    source.change("f0", |metadata| metadata.size = 77);
    library.scan(&record).await;
    assert_eq!(library.tree(&record), source.truth());
    assert_eq!(library.indexer.progress()[0].generation, 2);
    // What departed in the second scan is let go at the end of the third.
    library.scan(&record).await;
    drop(library);
    let report = manifold_catalog::Catalog::check(&folder.path().join("catalog.redb")).unwrap();
    assert_eq!(report.departed, 0);
}

#[tokio::test(start_paused = true)]
async fn directories_that_fail_are_tried_again_and_then_counted() {
    let (folder, source) = (tempdir().unwrap(), source());
    source
        .directory("good")
        .file("good/x", 1)
        .directory("locked")
        .directory("flaky")
        .file("flaky/y", 1);
    source
        .directory("broken")
        .fault("locked", Fault::Refuse(ErrorKind::PermissionDenied));
    source
        .fault("flaky", Fault::BreakAfter(0))
        .fault("broken", Fault::Refuse(ErrorKind::Other));
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    let scan = library.indexer.scan(record.id);
    source.until_listings("flaky", 2).await;
    source.mend("flaky");
    assert!(matches!(scan.ended().await, ScanEnd::Finished { failed: 2 }));
    assert_eq!(source.listings("locked"), 1, "a refusal does not mend itself");
    assert_eq!(
        source.listings("broken"),
        IndexSettings::default().scan_attempts as usize
    );
    assert!(library.find("/s/flaky/y").is_some());
    let state = library
        .catalog
        .directory_state(library.id("/s/broken"))
        .unwrap()
        .unwrap();
    assert!(state.failure.unwrap().message.contains("/broken"));
    source.mend_all();
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.tree(&record), source.truth());
}

/// Found by a killed scan that never came to its end: what was overdue and had no room kept the scan's loop running hot, and
/// nothing else on its thread.
#[tokio::test(start_paused = true)]
async fn what_is_due_while_all_places_are_taken_waits_for_a_place() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").directory("b");
    source.fault("a", Fault::BreakAfter(0)).fault("b", Fault::Hang);
    let settings = IndexSettings {
        scan_concurrency: 1,
        ..IndexSettings::default()
    };
    let library = Library::with(folder.path(), settings);
    let record = library.add("/s", &source);
    // Were the loop hot, the clock would stand still, and this never end.
    assert_eq!(library.scan(&record).await, 2);
    assert_eq!(source.listings("b"), IndexSettings::default().scan_attempts as usize);
}

#[tokio::test(start_paused = true)]
async fn a_scan_stands_still_while_the_source_is_away() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 30, 3, 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.hold("d1");
    let scan = library.indexer.scan(record.id);
    source.until_listings("d1", 1).await;
    source.go_away(ErrorKind::Unreachable);
    source.release("d1");
    let asked = Instant::now();
    while library.indexer.progress()[0].paused.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let listings = source.listings_in_all();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(source.listings_in_all(), listings, "it is not asked for listings");
    let checks = source.checks.load(Ordering::SeqCst);
    assert!(
        (60..200).contains(&checks),
        "probed {checks} times in {:?}",
        asked.elapsed()
    );
    source.come_back();
    assert!(matches!(scan.ended().await, ScanEnd::Finished { failed: 0 }));
    assert_eq!(library.tree(&record), source.truth());
}

/// Waits until so many directories could not be listed, for an hour at most.
async fn until_failed(library: &Library, failed: u64) {
    let so_many = async {
        while library.indexer.progress()[0].failed != failed {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_hours(1), so_many).await;
    assert!(in_time.is_ok(), "{:?}", library.indexer.progress());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_listed_while_the_source_was_away_is_when_it_is_back() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").file("a/x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    source.file("a/new", 1).go_away(ErrorKind::Unreachable);
    library.indexer.list_now(library.id("/s/a")).await.unwrap_err();
    until_failed(&library, 1).await;
    source.come_back();
    until_failed(&library, 0).await;
    assert!(library.find("/s/a/new").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_fails_while_its_source_is_well_is_not_asked_for_again_and_again() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").file("a/x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    let before = source.listings("a");
    source.fault("a", Fault::Hang);
    library.indexer.list_now(library.id("/s/a")).await.unwrap_err();
    until_failed(&library, 1).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(
        source.listings("a"),
        before + 2,
        "once more, for its source has answered since"
    );
}

#[tokio::test(start_paused = true)]
async fn one_bad_source_does_not_hold_up_another() {
    let folder = tempdir().unwrap();
    let (bad, good) = (
        Scripted::new("scripted://bad", false),
        Scripted::new("scripted://good", false),
    );
    bad.fault("", Fault::Hang);
    grow(&good, 20, 3, 2);
    let library = Library::open(folder.path());
    let bad_record = library.add("/bad", &bad);
    let good_record = library.add("/good", &good);
    let hanging = library.indexer.scan(bad_record.id);
    bad.until_listings("", 1).await;
    let began = Instant::now();
    assert_eq!(library.scan(&good_record).await, 0);
    assert!(began.elapsed() < Duration::from_secs(1), "on the paused clock");
    assert_eq!(library.tree(&good_record), good.truth());
    drop(hanging);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_somebody_opens_is_listed_ahead_of_the_scan() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 30, 30, 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    for number in 1..20 {
        source.hold(&format!("d{number}"));
    }
    let scan = library.indexer.scan(record.id);
    source.until_listings("d1", 1).await;
    library.list("/s/d29").await;
    assert_eq!(library.names("/s/d29"), ["f0"]);
    for number in 1..20 {
        source.release(&format!("d{number}"));
    }
    assert!(matches!(scan.ended().await, ScanEnd::Finished { failed: 0 }));
    assert_eq!(source.listings("d29"), 1, "the scan need not list it again");
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_front_while_the_scan_runs_is_tried_again_by_the_scan() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").directory("b").file("b/x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.hold("a").fault("b", Fault::Refuse(ErrorKind::Other));
    let scan = library.indexer.scan(record.id);
    source.until_listings("b", 1).await;
    let b = library.id("/s/b");
    library.indexer.list_now(b).await.unwrap_err();
    source.mend("b").release("a");
    scan.ended().await;
    assert_eq!(library.tree(&record), source.truth());
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_was_stopped_goes_on_when_the_source_is_attached() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 40, 3, 2);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.hold("d3");
    let scan = library.indexer.scan(record.id);
    source.until_listings("d3", 1).await;
    library.indexer.detach(record.id);
    assert!(matches!(scan.ended().await, ScanEnd::Stopped));
    source.release("d3");
    library.indexer.attach(record.id, Arc::<Scripted>::clone(&source));
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.tree(&record), source.truth());
    assert_eq!(library.indexer.progress()[0].generation, 1, "it is the same scan");
}

#[tokio::test(start_paused = true)]
async fn scanning_a_source_that_is_not_connected_is_an_error() {
    let folder = tempdir().unwrap();
    let library = Library::open(folder.path());
    let record = library.record("/s", "scripted://one");
    assert!(matches!(
        library.indexer.scan(record.id).ended().await,
        ScanEnd::Failed(_)
    ));
    assert!(library.indexer.progress().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The runtime is dropped in the middle, nothing is stopped, and a new process opens the library.
    #[test]
    fn a_scan_survives_being_cut_short_anywhere(cuts in prop::collection::vec(1_usize..60, 1..4)) {
        let (folder, source) = (tempdir().unwrap(), source());
        grow(&source, 60, 3, 2);
        let mut record = None;
        for cut in cuts {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let library = Library::open(folder.path());
                let known = record.get_or_insert_with(|| library.record("/s", source.name())).clone();
                library.indexer.attach(known.id, Arc::<Scripted>::clone(&source));
                let listed = source.listings_in_all();
                library.indexer.scan(known.id);
                let is_finished = || library.indexer.progress().first().is_some_and(|it| it.finished_ns.is_some());
                while source.listings_in_all() < listed + cut && !is_finished() {
                    tokio::task::yield_now().await;
                }
            });
        }
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let library = Library::open(folder.path());
            let record = record.expect("there was a cut");
            library.indexer.attach(record.id, Arc::<Scripted>::clone(&source));
            prop_assert_eq!(library.scan(&record).await, 0);
            prop_assert_eq!(library.tree(&record), source.truth());
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_part_of_the_tree_is_told_soon_that_its_source_is_away() {
    let folder = tempdir().unwrap();
    let (away, well) = (Scripted::new("test://away", false), Scripted::new("test://well", false));
    for index in 0..100 {
        away.directory(&format!("d{index}"));
    }
    well.directory("a").file("a/x", 1);
    let library = Library::open(folder.path());
    let outer = library.add("/s", &away);
    library.scan(&outer).await;
    let inner = library.add("/s/well", &well);
    library.scan(&inner).await;
    away.go_away(ErrorKind::Unreachable);
    let (listed, before) = (away.listings_in_all(), well.listings_in_all());
    let progress = library.indexer.scan_beneath(vec![outer.root]).ended().await;
    assert_eq!((progress.failed, progress.listed), (101, 2), "{progress:?}");
    let asked = away.listings_in_all() - listed;
    assert!(asked <= 8, "{asked} of 101 directories were asked for");
    assert_eq!(well.listings_in_all() - before, 2, "what is attached beneath is listed");
    assert_eq!(library.names("/s").len(), 101, "nothing is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_asked_for_by_itself_is_looked_at_and_what_is_gone_is_told() {
    let folder = tempdir().unwrap();
    let source = Scripted::new("test://s", false);
    source.file("f", 1).file("g", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    source.file("f", 2);
    source.remove("g");
    let top = |name: &str| library.catalog.resolve(name.as_bytes()).unwrap().unwrap().id;
    let (f, g) = (top("/s/f"), top("/s/g"));
    let progress = library.indexer.scan_beneath(vec![f]).ended().await;
    assert_eq!((progress.looked, progress.listed, progress.failed), (1, 0, 0));
    assert_eq!(library.catalog.entry(f).unwrap().unwrap().size, 2);
    let progress = library.indexer.scan_beneath(vec![g]).ended().await;
    assert_eq!((progress.looked, progress.failed), (0, 1));
    assert!(progress.failure.unwrap().contains("not there any more"));
}
