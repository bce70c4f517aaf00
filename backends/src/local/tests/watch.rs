//! Being told of changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tempfile::TempDir;

use crate::local::LocalBackend;
use crate::{Backend, Coverage, Noticed, ObjectPath, Watch, Where};

const ROOT: u64 = 7;
const INNER: u64 = 8;

/// What was noticed in directories that are covered.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Names(u64),
    Child(u64, String),
    Attributes(u64),
}

struct Watched {
    folder: TempDir,
    watch: Arc<dyn Watch>,
}

impl Watched {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("file"), "1").unwrap();
        let watch = LocalBackend::open(folder.path()).unwrap().watch().unwrap();
        let mut noticed = Vec::new();
        watch.next(&mut noticed).await.unwrap();
        assert_eq!(noticed, [Noticed::Began]);
        watch.cover(&ObjectPath::root(), ROOT).await.unwrap();
        watch.cover(&ObjectPath::from_bytes(*b"inner"), INNER).await.unwrap();
        Self { folder, watch }
    }

    /// Waits until `wanted` has been noticed.
    async fn sees(&self, wanted: Seen) {
        loop {
            let mut noticed = Vec::new();
            self.watch.next(&mut noticed).await.unwrap();
            let number = |place: &Where| match place {
                Where::Covered { number, .. } => *number,
                Where::Path(path) => panic!("{path} has a number"),
            };
            let found = noticed.iter().map(|one| match one {
                Noticed::Names(place) => Seen::Names(number(place)),
                Noticed::Child { directory, name } => {
                    Seen::Child(number(directory), String::from_utf8(name.clone()).unwrap())
                }
                Noticed::Attributes(place) => Seen::Attributes(number(place)),
                other => panic!("{other:?}"),
            });
            if found.into_iter().any(|it| it == wanted) {
                return;
            }
        }
    }
}

/// A first scan numbers a directory that somebody has opened meanwhile once more.
#[tokio::test]
async fn a_directory_that_is_covered_under_two_numbers_is_told_of_under_both() {
    const AGAIN: u64 = 9;
    let watched = Watched::new().await;
    let inner = watched.folder.path().join("inner");
    let again = ObjectPath::from_bytes(*b"inner");
    watched.watch.cover(&again, AGAIN).await.unwrap();
    fs::write(inner.join("new"), "").unwrap();
    let mut places = Vec::new();
    let number = |place: &Where| match place {
        Where::Covered { number, .. } => *number,
        Where::Path(path) => panic!("{path} has a number"),
    };
    while ![INNER, AGAIN]
        .iter()
        .all(|wanted| places.iter().any(|place| number(place) == *wanted))
    {
        let mut noticed = Vec::new();
        watched.watch.next(&mut noticed).await.unwrap();
        places.extend(noticed.into_iter().filter_map(|one| match one {
            Noticed::Names(place) => Some(place),
            _ => None,
        }));
    }
    let again = places.iter().find(|place| number(place) == AGAIN).unwrap();
    watched.watch.uncover(again);
    fs::write(inner.join("newer"), "").unwrap();
    watched.sees(Seen::Names(INNER)).await;
    assert!(matches!(
        watched.watch.coverage(),
        Coverage::Directories {
            watched: 2,
            short_of: None
        }
    ));
}

#[tokio::test]
async fn every_kind_of_change_is_noticed_where_it_happens() {
    let watched = Watched::new().await;
    let root = watched.folder.path();
    fs::write(root.join("file"), "22").unwrap();
    watched.sees(Seen::Child(ROOT, "file".into())).await;
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    watched.sees(Seen::Child(ROOT, "file".into())).await;
    fs::write(root.join("inner/new"), "").unwrap();
    watched.sees(Seen::Names(INNER)).await;
    fs::rename(root.join("inner/new"), root.join("new")).unwrap();
    watched.sees(Seen::Names(ROOT)).await;
    fs::remove_file(root.join("new")).unwrap();
    watched.sees(Seen::Names(ROOT)).await;
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
    watched.sees(Seen::Attributes(ROOT)).await;
}

#[tokio::test]
async fn a_directory_keeps_its_watch_when_it_moves_and_loses_it_when_it_goes() {
    let watched = Watched::new().await;
    let root = watched.folder.path();
    let covered = |count| Coverage::Directories {
        watched: count,
        short_of: None,
    };
    assert_eq!(watched.watch.coverage(), covered(2));
    fs::rename(root.join("inner"), root.join("moved")).unwrap();
    fs::write(root.join("moved/new"), "").unwrap();
    watched.sees(Seen::Names(INNER)).await;
    // Listed under another number: the watch is the same.
    watched
        .watch
        .cover(&ObjectPath::from_bytes(*b"moved"), 9)
        .await
        .unwrap();
    assert_eq!(watched.watch.coverage(), covered(2));
    fs::write(root.join("moved/newer"), "").unwrap();
    watched.sees(Seen::Names(9)).await;
    fs::remove_dir_all(root.join("moved")).unwrap();
    fs::write(root.join("last"), "").unwrap();
    // Everything that came before has been taken in with it.
    while watched.watch.coverage() != covered(1) {
        watched.sees(Seen::Names(ROOT)).await;
    }
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_let_go() {
    let watched = Watched::new().await;
    fs::write(watched.folder.path().join("inner/new"), "").unwrap();
    let mut noticed = Vec::new();
    watched.watch.next(&mut noticed).await.unwrap();
    let Some(Noticed::Names(place)) = noticed.first() else {
        panic!("{noticed:?}")
    };
    watched.watch.uncover(place);
    let coverage = Coverage::Directories {
        watched: 1,
        short_of: None,
    };
    assert_eq!(watched.watch.coverage(), coverage);
}
