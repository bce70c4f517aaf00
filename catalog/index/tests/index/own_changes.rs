//! Listings and looks while something is changed through the mount.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_backends::{Backend, Child, Noticed, ObjectPath, Presence, Where, local::LocalBackend};
use manifold_catalog::{EntryId, Kind, NewChild, SeenAttributes};
use manifold_index::{HealthState, IndexError};
use tempfile::tempdir;

use crate::library::Library;
use crate::support::{Fault, Request, source, talkative};

/// How often a listing is taken at most when it is overtaken each time.
const TRIES: usize = 8;

fn child(name: &str, kind: Kind) -> NewChild {
    let seen = SeenAttributes {
        kind,
        size: 0,
        modified_ns: 0,
        changed_ns: 0,
        created_ns: None,
        mode: 0o640,
        owner: None,
        links: 1,
        device: 0,
        version: Box::default(),
        identity: None,
    };
    NewChild {
        name: name.as_bytes().into(),
        raw_name: None,
        seen,
        adopt: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_overtaken_by_a_change_is_taken_again() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("old", 1);
    let library = Library::open(folder.path());
    let root = library.add("/s", &source).root;
    library.list("/s").await;
    let before = Child {
        name: b"old".to_vec(),
        metadata: source.change("old", |metadata| metadata.clone()),
    };
    let (catalog, asked) = (Arc::clone(&library.catalog), AtomicUsize::new(0));
    // The first listing is of the time before: while it is on its way, a file is made.
    source.on_request(Box::new(move |request| {
        let is_first = request == Request::List && asked.fetch_add(1, Ordering::Relaxed) == 0;
        is_first.then(|| {
            let guard = catalog.begin_change(&[root]);
            catalog.follow_created(root, child("made", Kind::File), None).unwrap();
            drop(guard);
            Fault::Pretend(vec![before.clone()])
        })
    }));
    source.file("made", 5);
    let listed = source.listings("");
    library.list("/s").await;
    assert_eq!(source.listings("") - listed, 2);
    assert_eq!(library.names("/s"), ["made", "old"]);
    assert_eq!(
        library.find("/s/made").unwrap().size,
        5,
        "the second was of the time after"
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changes_all_the_time_is_noted_as_stale_and_nothing_is_held_against_its_source() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d").file("d/f", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let (d, f) = (library.id("/s/d"), library.id("/s/d/f"));
    source.file("d/new", 1);
    source.change("d/f", |metadata| metadata.size = 9);
    let listed = source.listings("d");
    let guard = library.catalog.begin_change(&[d]);
    let overtaken = library.indexer.list_now(d).await.unwrap_err();
    assert!(
        matches!(overtaken, IndexError::Overtaken(at) if at == d.0),
        "{overtaken:?}"
    );
    assert_eq!(source.listings("d") - listed, TRIES);
    let looked = library.indexer.refresh(f).await;
    assert!(matches!(looked, Err(IndexError::Overtaken(_))), "{looked:?}");
    assert_eq!(library.names("/s/d"), ["f"]);
    let state = library.catalog.directory_state(d).unwrap().unwrap();
    assert_eq!((state.listed_ns, state.failure), (Some(0), None));
    assert_eq!(library.catalog.scan_queue_next(record.id, 9).unwrap(), [d]);
    let health = library.indexer.health(record.id).unwrap();
    assert_eq!(health.state, HealthState::Online);
    assert_eq!(library.scan(&record).await, 0, "the scan passes it over");
    assert_eq!(library.catalog.scan_queue_next(record.id, 9).unwrap(), [d]);
    drop(guard);
    assert!(matches!(library.indexer.refresh(f).await, Ok(Presence::Found(()))));
    assert_eq!(library.find("/s/d/f").unwrap().size, 9);
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.names("/s/d"), ["f", "new"]);
    assert_eq!(library.catalog.scan_queue_next(record.id, 9).unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_its_source_lost_holds_only_what_is_to_be_uploaded_to_it() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d").file("d/f", 1).file("d/staged", 1).file("g", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let staged = library.id("/s/d/staged");
    library.catalog.stage(staged, b"row", None, true).unwrap();
    source.remove("d").remove("g");
    library.list("/s/d").await;
    assert_eq!(library.names("/s/d"), ["staged"]);
    assert!(matches!(library.indexer.refresh(staged).await, Ok(Presence::Found(()))));
    library.list("/s").await;
    assert_eq!(library.names("/s"), ["d"]);
    let state = library.catalog.directory_state(library.id("/s/d")).unwrap().unwrap();
    assert_eq!(state.failure, None);
    assert_eq!(library.indexer.health(record.id).unwrap().state, HealthState::Online);
    library.catalog.unstage(staged, None, None).unwrap();
    library.list("/s").await;
    assert_eq!(library.names("/s"), [""; 0]);
}

#[tokio::test]
async fn what_others_put_into_a_directory_that_was_made_through_the_mount_is_found() {
    let state = tempdir().unwrap();
    let (source, watch) = talkative();
    source.file("f", 1);
    let library = Library::open(state.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    watch.tell(Ok(Noticed::Began));
    let changes = library.catalog.subscribe();
    let guard = library.catalog.begin_change(&[record.root]);
    source.directory("made").file("made/foreign", 1);
    let made = child("made", Kind::Directory);
    let (id, _) = library.catalog.follow_created(record.root, made, Some(1)).unwrap();
    drop(guard);
    // The one notice is that of our own change.
    watch.tell(Ok(Noticed::Names(Where::Path(ObjectPath::root()))));
    let found = tokio::task::spawn_blocking(move || {
        while library.find("/s/made/foreign").is_none() {
            let told = changes.recv_timeout(std::time::Duration::from_mins(1));
            assert!(told.is_some(), "the catalog was never told");
        }
        library
    });
    let library = found.await.unwrap();
    assert_eq!(library.id("/s/made"), id);
    library.indexer.stop().await;
}

#[tokio::test]
async fn what_a_source_tells_of_a_directory_that_is_being_changed_is_looked_at_when_that_is_over() {
    let state = tempdir().unwrap();
    let (source, watch) = talkative();
    source.file("f", 1);
    let library = Library::open(state.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    watch.tell(Ok(Noticed::Began));
    let changes = library.catalog.subscribe();
    let guard = library.catalog.begin_change(&[record.root]);
    source.file("foreign", 1);
    let listed = source.listings("");
    watch.tell(Ok(Noticed::Names(Where::Path(ObjectPath::root()))));
    source.until_listings("", listed + TRIES).await;
    assert!(library.find("/s/foreign").is_none());
    drop(guard);
    let found = tokio::task::spawn_blocking(move || {
        while library.find("/s/foreign").is_none() {
            let told = changes.recv_timeout(std::time::Duration::from_mins(1));
            assert!(told.is_some(), "the catalog was never told");
        }
        library
    });
    found.await.unwrap().indexer.stop().await;
}

/// The first scan of a folder, by its fast path, while somebody makes files and directories there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_during_the_first_scan_is_there_all_along() {
    const MADE: usize = 300;
    let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
    for directory in 0..30 {
        fs::create_dir_all(root.path().join(format!("d{directory}/e"))).unwrap();
        for file in 0..40 {
            fs::write(root.path().join(format!("d{directory}/e/f{file}")), "x").unwrap();
        }
    }
    let library = Library::open(state.path());
    let backend = LocalBackend::open(root.path()).unwrap();
    let record = library.record("/l", backend.name());
    library.indexer.attach(record.id, Arc::new(backend));
    let scan = library.indexer.scan(record.id);
    let catalog = Arc::clone(&library.catalog);
    let folder = root.path().to_owned();
    let made = tokio::task::spawn_blocking(move || {
        let make = |directory: EntryId, path: &Path, name: &str, kind| {
            let guard = catalog.begin_change(&[directory]);
            match kind {
                Kind::Directory => fs::create_dir(path.join(name)).unwrap(),
                _ => fs::write(path.join(name), "ours").unwrap(),
            }
            let (id, _) = catalog.follow_created(directory, child(name, kind), Some(1)).unwrap();
            drop(guard);
            let there = catalog.lookup(directory, name.as_bytes()).unwrap();
            assert_eq!(there.map(|entry| entry.id), Some(id), "{name}");
            id
        };
        let mut pairs = Vec::new();
        for number in 0..MADE {
            let directory = make(record.root, &folder, &format!("made {number}"), Kind::Directory);
            let path = folder.join(format!("made {number}"));
            pairs.push((directory, make(directory, &path, "file", Kind::File)));
            for (number, (directory, file)) in pairs.iter().enumerate() {
                let there = catalog
                    .lookup(record.root, format!("made {number}").as_bytes())
                    .unwrap();
                assert_eq!(there.map(|entry| entry.id), Some(*directory), "made {number}");
                let there = catalog.lookup(*directory, b"file").unwrap();
                assert_eq!(there.map(|entry| entry.id), Some(*file), "the file in made {number}");
            }
        }
        pairs
    });
    let made = made.await.unwrap();
    scan.ended().await;
    assert_eq!(library.scan(&record).await, 0);
    for (number, (directory, file)) in made.iter().enumerate() {
        assert_eq!(library.id(&format!("/l/made {number}")), *directory);
        let entry = library.find(&format!("/l/made {number}/file")).unwrap();
        assert_eq!((entry.id, entry.size), (*file, 4));
    }
    assert_eq!(library.tree(&record).len(), 30 * 2 + 30 * 40 + 2 * MADE);
    library.catalog.examine().unwrap();
    library.indexer.stop().await;
}
