//! Listing a directory that somebody opens, and looking at one entry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_backends::{Backend, Child, ErrorKind, Kind, Metadata, Presence, Timestamp};
use manifold_catalog::EntryId;
use manifold_index::IndexError;
use tempfile::tempdir;
use tokio::time::timeout;

use crate::library::Library;
use crate::support::{Fault, Scripted, source};

#[tokio::test(start_paused = true)]
async fn a_directory_that_was_never_listed_is_listed_there_and_then() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").file("a/x", 7).file("b", 1);
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    assert_eq!(library.names("/s"), ["a", "b"]);
    library.list("/s/a").await;
    assert_eq!(library.find("/s/a/x").unwrap().size, 7);
    assert_eq!(source.listings_in_all(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_share_one_listing_and_one_who_leaves_cancels_nobody() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1).hold("");
    let library = Library::open(folder.path());
    let root = library.add("/s", &source).root;
    let impatient = timeout(Duration::from_millis(1), library.indexer.list_now(root)).await;
    assert!(impatient.is_err(), "nothing was released yet");
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let indexer = Arc::clone(&library.indexer);
            tokio::spawn(async move { indexer.list_now(root).await })
        })
        .collect();
    source.until_listings("", 1).await;
    tokio::task::yield_now().await;
    source.release("");
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(source.listings(""), 1);
    library.list("/s").await;
    assert_eq!(source.listings(""), 2, "a caller that comes after it starts another");
}

#[tokio::test(start_paused = true)]
async fn failed_listings_change_nothing_but_the_state() {
    let (folder, source) = (tempdir().unwrap(), source());
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        source.file(name, 1);
    }
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    let before = library.tree(&record);
    let file = |name: &str| Child {
        name: name.into(),
        metadata: source.change("a", |metadata| metadata.clone()),
    };
    let faults = [
        Fault::Refuse(ErrorKind::PermissionDenied),
        Fault::Refuse(ErrorKind::Other),
        Fault::BreakAfter(0),
        Fault::BreakAfter(1),
        Fault::BreakAfter(3),
        Fault::Hang,
        Fault::Pretend(vec![file("a"), file("b"), file("a")]),
        Fault::Pretend(vec![file("")]),
    ];
    for fault in faults {
        let what = format!("{fault:?}");
        source.fault("", fault);
        let error = library.indexer.list_now(record.root).await.expect_err(&what);
        assert!(error.kind().is_some(), "{what}: {error}");
        assert_eq!(library.tree(&record), before, "{what}");
        let state = library.catalog.directory_state(record.root).unwrap().unwrap();
        assert!(state.listed_ns.is_some(), "{what}: it is still known as listed");
        assert_eq!(state.failure.unwrap().message, error.to_string(), "{what}");
        source.mend("");
        library.list("/s").await;
        assert_eq!(
            library.catalog.directory_state(record.root).unwrap().unwrap().failure,
            None,
            "{what}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_without_its_root_is_an_error_and_not_empty() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d").file("d/x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    source.vanish();
    let error = library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::NoSuchSource));
    let error = library.indexer.list_now(library.id("/s/d")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Some(ErrorKind::NoSuchSource),
        "its parents were asked in turn"
    );
    assert_eq!(library.tree(&record), source.truth());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_goes_by_a_listing_of_its_parent() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").directory("a/b").directory("a/b/c").file("z", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    let deepest = library.id("/s/a/b/c");
    source.remove("a");
    let error = library.indexer.list_now(deepest).await.unwrap_err();
    assert!(matches!(error, IndexError::NotFound(_)), "{error}");
    assert_eq!(library.tree(&record), source.truth());
    assert_eq!(source.listings(""), 2);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_its_parent_still_names_stays() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").file("a/x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    let root_as_it_was = vec![Child {
        name: b"a".to_vec(),
        metadata: source.change("a", |metadata| metadata.clone()),
    }];
    source.remove("a").fault("", Fault::Pretend(root_as_it_was));
    let error = library.indexer.list_now(library.id("/s/a")).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Nonsense));
    assert!(library.find("/s/a/x").is_some());
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_shown_are_escaped_and_found_again_by_their_raw_name() {
    let (folder, store) = (tempdir().unwrap(), Scripted::new("scripted://store", true));
    store.object("seed", 1, 1);
    let child = |name: &[u8], kind| {
        let metadata = store.change("seed", |metadata| Metadata {
            kind,
            identity: None,
            ..metadata.clone()
        });
        Child {
            name: name.to_vec(),
            metadata,
        }
    };
    store.fault(
        "",
        Fault::Pretend(vec![
            child(b"a", Kind::File),
            child(b"a", Kind::Directory),
            child(b"", Kind::Directory),
            child(b"..", Kind::File),
            child(b"x\0y", Kind::File),
            child(&[b'l'; 400], Kind::File),
            child("␛".as_bytes(), Kind::File),
            child(b"\xFF\n", Kind::File),
        ]),
    );
    let library = Library::open(folder.path());
    let record = library.add("/s", &store);
    library.list("/s").await;
    assert_eq!(library.find("/s/a").unwrap().kind, manifold_catalog::Kind::Directory);
    for (shown, raw) in [
        ("/s/a", b"a".as_slice()),
        ("/s/a␛file", b"a"),
        ("/s/␛empty", b""),
        ("/s/␛2E␛2E", b".."),
        ("/s/x␛00y", b"x\0y"),
    ] {
        assert_eq!(
            library.catalog.object_path(library.id(shown)).unwrap().unwrap(),
            (record.id, raw.to_vec())
        );
    }
    assert_eq!(library.names("/s").len(), 8);
    library.list("/s").await;
    assert_eq!(library.names("/s").len(), 8, "the second listing finds the same");
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_names_a_directory_dot_dot_is_not_walked_in_circles() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d");
    let dots = Child {
        name: b"..".to_vec(),
        metadata: source.change("d", |metadata| metadata.clone()),
    };
    source.fault("", Fault::Pretend(vec![dots]));
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 1);
    assert_eq!(library.names("/s"), ["␛2E␛2E"]);
    assert_eq!(source.listings_in_all(), 1);
}

#[tokio::test(start_paused = true)]
async fn sizes_and_times_out_of_range_are_clamped() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 0);
    source.change("x", |metadata| {
        metadata.size = u64::MAX;
        metadata.modified = Some(Timestamp::from_parts(i64::MAX, 0));
        metadata.created = Some(Timestamp(i64::MIN));
        metadata.mode = Some(0o17_7777);
        metadata.links = 0;
    });
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    let entry = library.find("/s/x").unwrap();
    assert_eq!(
        (entry.size, entry.modified_ns, entry.mode, entry.links),
        (i64::MAX as u64, 0, 0o7777, 1)
    );
    assert_eq!(library.catalog.details(entry.id).unwrap().unwrap().created_ns, None);
}

#[tokio::test(start_paused = true)]
async fn refresh_takes_over_what_changed_and_removes_what_is_gone_by_its_parent() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1).file("y", 2).directory("d").file("d/z", 3);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.scan(&record).await;
    source.change("x", |metadata| metadata.size = 9);
    assert_eq!(
        library.indexer.refresh(library.id("/s/x")).await.unwrap(),
        Presence::Found(())
    );
    assert_eq!(library.find("/s/x").unwrap().size, 9);
    assert_eq!(source.listings(""), 1, "one entry costs no listing");
    source.remove("y");
    assert_eq!(
        library.indexer.refresh(library.id("/s/y")).await.unwrap(),
        Presence::Absent
    );
    source.remove("d").file("d", 5);
    let directory = library.id("/s/d");
    library.indexer.refresh(directory).await.unwrap();
    assert_eq!(library.tree(&record), source.truth());
    assert_ne!(
        library.id("/s/d"),
        directory,
        "a file is not the directory that it replaced"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_removes_nothing() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    source.go_away(ErrorKind::Unreachable);
    let error = library.indexer.refresh(library.id("/s/x")).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Unreachable));
    assert_eq!(library.tree(&record), source.truth());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_is_not_hammered_and_comes_back_by_itself() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let root = library.add("/s", &source).root;
    source.go_away(ErrorKind::Unreachable);
    library.indexer.list_now(root).await.unwrap_err();
    while source.checks.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    for _ in 0..100 {
        let error = library.indexer.list_now(root).await.unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Unreachable));
    }
    assert_eq!(source.listings(""), 1, "the others were answered without asking");
    source.come_back();
    tokio::time::sleep(Duration::from_mins(2)).await;
    library.list("/s").await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_directory_is_listed_behind_once_and_a_fresh_one_is_not() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let root = library.add("/s", &source).root;
    library.list("/s").await;
    library.indexer.refresh_directory_if_stale(root, Duration::from_mins(1));
    source.hold("");
    for _ in 0..10 {
        library.indexer.refresh_directory_if_stale(root, Duration::ZERO);
    }
    source.until_listings("", 2).await;
    source.release("");
    library.list("/s").await;
    assert_eq!(
        source.listings(""),
        2,
        "the fresh one was not listed, the stale one once"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_listed_says_why() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    let indexer = &library.indexer;
    assert!(matches!(
        indexer.list_now(EntryId(999)).await,
        Err(IndexError::NotFound(999))
    ));
    assert!(matches!(
        indexer.list_now(library.id("/s/x")).await,
        Err(IndexError::NotADirectory(_))
    ));
    indexer
        .list_now(EntryId::ROOT)
        .await
        .expect("the library's own directories need no source");
    indexer.detach(record.id);
    assert!(matches!(
        indexer.list_now(record.root).await,
        Err(IndexError::NotConnected(_))
    ));
    indexer.attach(record.id, Arc::<Scripted>::clone(&source));
    indexer.stop().await;
    assert!(matches!(indexer.list_now(record.root).await, Err(IndexError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_a_listing_that_hangs() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.fault("", Fault::Hang);
    let library = Library::open(folder.path());
    let root = library.add("/s", &source).root;
    let indexer = Arc::clone(&library.indexer);
    let waiting = tokio::spawn(async move { indexer.list_now(root).await });
    source.until_listings("", 1).await;
    library.indexer.stop().await;
    assert!(matches!(waiting.await.unwrap(), Err(IndexError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn nested_sources_keep_apart() {
    let folder = tempdir().unwrap();
    let (outer, inner) = (
        Scripted::new("scripted://outer", false),
        Scripted::new("scripted://inner", false),
    );
    outer.directory("in").file("in/of-outer", 1).file("x", 1);
    inner.file("y", 1);
    let library = Library::open(folder.path());
    let outer_record = library.add("/s", &outer);
    let inner_record = library.add("/s/in", &inner);
    library.scan(&outer_record).await;
    library.scan(&inner_record).await;
    assert_eq!(library.names("/s"), ["in", "x"]);
    assert_eq!(
        library.names("/s/in"),
        ["y"],
        "the attach point shadows what the outer source has there"
    );
    outer.remove("x").remove("in");
    library.list("/s").await;
    assert_eq!(library.names("/s"), ["in"]);
    library.list("/s/in").await;
    assert_eq!(library.names("/s/in"), ["y"]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_source_that_is_being_connected_waits_for_it() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("a", 1);
    let library = Library::open(folder.path());
    let record = library.record("/s", source.name());
    library.indexer.expect(record.id);
    assert!(library.indexer.is_expected(record.id));
    let root = library.id("/s");
    let indexer = Arc::clone(&library.indexer);
    let waits = tokio::spawn(async move { indexer.list_now(root).await });
    let patience = Duration::from_secs(1);
    assert!(timeout(patience, library.indexer.list_now(root)).await.is_err());
    library.indexer.attach(record.id, Arc::<Scripted>::clone(&source) as _);
    waits.await.unwrap().unwrap();
    assert_eq!(library.names("/s"), ["a"]);
    library.indexer.expect(record.id);
    assert!(!library.indexer.is_expected(record.id), "it is there");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_source_that_cannot_be_connected_is_told_so() {
    let (folder, source) = (tempdir().unwrap(), source());
    let library = Library::open(folder.path());
    let record = library.record("/s", source.name());
    library.indexer.expect(record.id);
    let root = library.id("/s");
    let indexer = Arc::clone(&library.indexer);
    let waits = tokio::spawn(async move { indexer.list_now(root).await });
    tokio::task::yield_now().await;
    library.indexer.expect_no_more(record.id);
    let told = waits.await.unwrap();
    assert!(matches!(told, Err(IndexError::NotConnected(_))), "{told:?}");
}
