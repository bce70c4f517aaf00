//! Changes that nobody asked about: what a source tells by itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Backend, Coverage, ErrorKind, Noticed, ObjectPath, Where, local::LocalBackend};
use manifold_catalog::{Catalog, SourceRecord, Subscription};
use manifold_index::IndexSettings;
use tempfile::{TempDir, tempdir};

use crate::library::Library;
use crate::support::talkative;

/// Only ends a test that hangs.
const DEADLINE: Duration = Duration::from_mins(1);

/// A library with one folder that was scanned.
struct Watched {
    library: Library,
    record: SourceRecord,
    changes: Subscription,
    _state: TempDir,
}

impl Watched {
    async fn new(fill: impl FnOnce(&Path)) -> (Self, TempDir) {
        let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
        fill(root.path());
        let library = Library::open(state.path());
        let backend = LocalBackend::open(root.path()).unwrap();
        let record = library.record("/l", backend.name());
        library.indexer.attach(record.id, Arc::new(backend));
        assert_eq!(library.scan(&record).await, 0);
        (Self::of(library, record, state), root)
    }

    fn of(library: Library, record: SourceRecord, state: TempDir) -> Self {
        let changes = library.catalog.subscribe();
        Self {
            library,
            record,
            changes,
            _state: state,
        }
    }

    /// Waits until the catalog says so, looking after each change.
    async fn until(self, holds: impl Fn(&Library) -> bool + Send + 'static) -> Self {
        let waited = tokio::task::spawn_blocking(move || {
            let end = std::time::Instant::now() + DEADLINE;
            while !holds(&self.library) {
                assert!(std::time::Instant::now() < end, "the catalog was never told");
                self.changes.recv_timeout(Duration::from_secs(1));
            }
            self
        });
        waited.await.unwrap()
    }
}

#[tokio::test]
async fn what_a_source_tells_by_path_is_looked_at_there_or_nearby() {
    let state = tempdir().unwrap();
    let (source, watch) = talkative();
    source.directory("d").directory("d/e").file("d/e/f", 1);
    let library = Library::open(state.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let listed = source.listings_in_all();
    watch.tell(Ok(Noticed::Began));
    let path = |path: &str| Where::Path(ObjectPath::from_bytes(path));

    source.file("d/e/new", 2);
    watch.tell(Ok(Noticed::Names(path("d/e"))));
    let watched = Watched::of(library, record, state);
    let watched = watched.until(|library| library.find("/s/d/e/new").is_some()).await;
    assert_eq!(
        source.listings_in_all(),
        listed + 1,
        "the first beginning has nothing listed"
    );
    source.change("d/e/f", |metadata| metadata.size = 5);
    watch.tell(Ok(Noticed::Child {
        directory: path("d/e"),
        name: b"f".to_vec(),
    }));
    let watched = watched
        .until(|library| library.find("/s/d/e/f").unwrap().size == 5)
        .await;
    assert_eq!(source.listings_in_all(), listed + 1, "one child is asked for alone");
    // A directory that is not known yet is found from the nearest that is, and what is in it too.
    source.directory("d/x").directory("d/x/y").file("d/x/y/f", 1);
    watch.tell(Ok(Noticed::Names(path("d/x/y"))));
    let watched = watched.until(|library| library.find("/s/d/x/y/f").is_some()).await;
    watched.library.indexer.stop().await;
}

#[tokio::test]
async fn what_was_missed_while_nobody_could_tell_is_found_by_a_scan() {
    for missed in [
        vec![Err(ErrorKind::Unreachable), Ok(Noticed::Began)],
        vec![Ok(Noticed::Missed)],
    ] {
        let state = tempdir().unwrap();
        let (source, watch) = talkative();
        source.directory("d").file("d/f", 1);
        let settings = IndexSettings {
            retry_pause: Duration::from_millis(1),
            ..IndexSettings::default()
        };
        let library = Library::with(state.path(), settings);
        let record = library.add("/s", &source);
        assert_eq!(library.scan(&record).await, 0);
        watch.tell(Ok(Noticed::Began));
        source.file("d/new", 2);
        for one in missed {
            watch.tell(one);
        }
        let watched = Watched::of(library, record, state);
        let watched = watched.until(|library| library.find("/s/d/new").is_some()).await;
        watched.library.indexer.stop().await;
    }
}

fn modified_ns(path: &Path) -> i64 {
    let there = fs::metadata(path).unwrap();
    there.mtime() * 1_000_000_000 + there.mtime_nsec()
}

#[tokio::test]
async fn what_changes_in_a_local_folder_is_known_without_asking() {
    let (watched, root) = Watched::new(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "1").unwrap();
    })
    .await;
    let path = root.path().to_owned();
    let file = watched.library.id("/l/d/e/f");

    fs::write(path.join("d/e/new"), "x").unwrap();
    let watched = watched.until(|library| library.find("/l/d/e/new").is_some()).await;
    // The times of the directory have changed with its names.
    let there = modified_ns(&path.join("d/e"));
    let watched = watched
        .until(move |library| library.find("/l/d/e").unwrap().modified_ns == there)
        .await;

    fs::write(path.join("d/e/f"), "longer").unwrap();
    let watched = watched
        .until(|library| library.find("/l/d/e/f").unwrap().size == 6)
        .await;
    fs::set_permissions(path.join("d/e/f"), fs::Permissions::from_mode(0o600)).unwrap();
    let watched = watched
        .until(|library| library.find("/l/d/e/f").unwrap().mode == 0o600)
        .await;

    fs::rename(path.join("d/e/f"), path.join("g")).unwrap();
    let watched = watched.until(|library| library.find("/l/g").is_some()).await;
    assert_eq!(watched.library.id("/l/g"), file, "it kept its number");
    fs::remove_file(path.join("g")).unwrap();
    let watched = watched.until(|library| library.find("/l/g").is_none()).await;
    watched.library.indexer.stop().await;
}

#[tokio::test]
async fn directories_that_come_and_move_are_watched_too() {
    let (watched, root) = Watched::new(|root| fs::create_dir_all(root.join("a")).unwrap()).await;
    let path = root.path().to_owned();
    fs::create_dir_all(path.join("a/b/c")).unwrap();
    let watched = watched.until(|library| library.find("/l/a/b").is_some()).await;
    // Nobody has listed what is new; opening it does, and has it watched.
    watched.library.list("/l/a/b").await;
    watched.library.list("/l/a/b/c").await;
    fs::write(path.join("a/b/c/f"), "x").unwrap();
    let watched = watched.until(|library| library.find("/l/a/b/c/f").is_some()).await;

    fs::rename(path.join("a/b"), path.join("moved")).unwrap();
    let watched = watched.until(|library| library.find("/l/moved/c/f").is_some()).await;
    fs::write(path.join("moved/c/g"), "x").unwrap();
    let watched = watched.until(|library| library.find("/l/moved/c/g").is_some()).await;

    fs::remove_dir_all(path.join("moved")).unwrap();
    let watched = watched.until(|library| library.find("/l/moved").is_none()).await;
    watched.library.indexer.stop().await;
}

#[tokio::test]
async fn every_directory_of_a_scanned_folder_is_watched() {
    let (watched, _root) = Watched::new(|root| {
        for number in 0..20 {
            fs::create_dir_all(root.join(format!("d{}/e{number}", number % 3))).unwrap();
        }
    })
    .await;
    let all = Coverage::Directories {
        watched: 1 + 3 + 20,
        short_of: None,
    };
    assert_eq!(watched.library.indexer.coverage(watched.record.id), Some(all));
    watched.library.indexer.detach(watched.record.id);
    assert_eq!(watched.library.indexer.coverage(watched.record.id), None);
}

#[tokio::test]
async fn an_indexer_that_is_dropped_lets_go_of_its_catalog() {
    let (watched, _root) = Watched::new(|root| fs::write(root.join("f"), "x").unwrap()).await;
    let Watched { library, changes, .. } = watched;
    let catalog: Arc<Catalog> = Arc::clone(&library.catalog);
    drop(library);
    drop(catalog);
    // The catalog closes with its last user.
    tokio::task::spawn_blocking(move || while changes.recv().is_some() {})
        .await
        .unwrap();
}
