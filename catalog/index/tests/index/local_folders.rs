//! Real folders of this machine, by the fast path of the first scan and by the ordinary one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use manifold_backends::{Backend, local::LocalBackend};
use manifold_catalog::{Kind, SourceRecord};
use manifold_index::IndexSettings;
use tempfile::tempdir;

use crate::library::Library;

fn attach(library: &Library, root: &Path) -> SourceRecord {
    let backend = LocalBackend::open(root).unwrap();
    let record = library.record("/l", backend.name());
    library.indexer.attach(record.id, Arc::new(backend));
    record
}

/// The paths beneath a folder, links not followed.
fn walk(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for child in fs::read_dir(directory).unwrap() {
            let child = child.unwrap();
            found.insert(child.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec());
            if child.file_type().unwrap().is_dir() {
                directories.push(child.path());
            }
        }
    }
    found
}

fn known(library: &Library, record: &SourceRecord) -> BTreeSet<Vec<u8>> {
    library.tree(record).into_keys().collect()
}

fn grow(root: &Path) {
    for directory in 0..40 {
        let path = root.join(format!("d{}/e{directory}/deep", directory % 7));
        fs::create_dir_all(&path).unwrap();
        for file in 0..directory {
            fs::write(path.join(format!("f{file}")), vec![b'x'; file]).unwrap();
        }
    }
    fs::write(root.join(OsStr::from_bytes(b"\xFF not text\n")), "x").unwrap();
    fs::write(root.join("␛"), "x").unwrap();
    fs::write(root.join("n".repeat(255)), "x").unwrap();
    symlink("d0", root.join("link")).unwrap();
    symlink("/", root.join("out")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
}

#[tokio::test]
async fn an_attach_point_has_the_attributes_of_the_folder_behind_it() {
    for scanned in [true, false] {
        let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
        fs::write(root.path().join("f"), "x").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o2750)).unwrap();
        let library = Library::open(state.path());
        let record = attach(&library, root.path());
        if scanned {
            library.scan(&record).await;
        } else {
            library.list("/l").await;
        }
        let (known, there) = (library.find("/l").unwrap(), fs::metadata(root.path()).unwrap());
        assert_eq!(known.id, record.root);
        assert_eq!(u32::from(known.mode), there.mode() & 0o7777);
        assert_eq!(known.owner, Some((there.uid(), there.gid())));
        assert_eq!(known.modified_ns, there.mtime() * 1_000_000_000 + there.mtime_nsec());
        assert_eq!(library.names("/l"), ["f"]);
    }
}

#[tokio::test]
async fn the_first_scan_and_the_second_find_what_is_there() {
    let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
    grow(root.path());
    let library = Library::open(state.path());
    let record = attach(&library, root.path());
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(known(&library, &record), walk(root.path()));
    assert_eq!(library.find("/l/link").unwrap().kind, Kind::Symlink);
    assert_eq!(library.find("/l/pipe").unwrap().kind, Kind::Fifo);
    let progress = library.indexer.progress().remove(0);
    assert_eq!((progress.queued, progress.failed), (0, 0));
    assert_eq!(progress.entries as usize, walk(root.path()).len() + 1);

    let moved = library.id("/l/d1/e1/deep");
    fs::rename(root.path().join("d1/e1/deep"), root.path().join("d2/moved")).unwrap();
    fs::remove_dir_all(root.path().join("d3")).unwrap();
    fs::write(root.path().join("new"), "xyz").unwrap();
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(known(&library, &record), walk(root.path()));
    assert_eq!(library.id("/l/d2/moved"), moved, "it kept its id");
    library.indexer.stop().await;
}

#[tokio::test]
async fn a_directory_can_be_opened_while_the_first_scan_runs() {
    let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
    grow(root.path());
    let library = Library::open(state.path());
    let record = attach(&library, root.path());
    let scan = library.indexer.scan(record.id);
    for path in ["/l", "/l/d6", "/l/d6/e6", "/l/d6/e6/deep"] {
        library.list(path).await;
    }
    assert_eq!(library.names("/l/d6/e6/deep").len(), 6);
    scan.ended().await;
    assert_eq!(known(&library, &record), walk(root.path()));
    library.indexer.stop().await;
}

#[tokio::test]
async fn what_is_to_be_kept_out_is_neither_shown_nor_walked() {
    let (state, root) = (tempdir().unwrap(), tempdir().unwrap());
    let root_path = root.path().canonicalize().unwrap();
    fs::create_dir_all(root_path.join("a/mount/inside")).unwrap();
    fs::create_dir_all(root_path.join("a/mountain")).unwrap();
    let settings = IndexSettings {
        skip_paths: vec![root_path.join("a/mount")],
        ..IndexSettings::default()
    };
    let library = Library::with(state.path(), settings);
    let record = attach(&library, &root_path);
    assert_eq!(library.scan(&record).await, 0);
    library.list("/l/a").await;
    assert_eq!(library.names("/l/a"), ["mountain"]);
    library.indexer.stop().await;
}

#[tokio::test]
async fn a_folder_that_went_away_keeps_what_is_known() {
    let (state, parent) = (tempdir().unwrap(), tempdir().unwrap());
    let root = parent.path().join("disk");
    fs::create_dir(&root).unwrap();
    grow(&root);
    let library = Library::open(state.path());
    let record = attach(&library, &root);
    library.scan(&record).await;
    let before = known(&library, &record);
    // The disk is not there, and an empty mount point is in its place.
    fs::rename(&root, parent.path().join("elsewhere")).unwrap();
    library.indexer.list_now(record.root).await.unwrap_err();
    fs::create_dir(&root).unwrap();
    library.indexer.list_now(record.root).await.unwrap_err();
    library.indexer.list_now(library.id("/l/d1")).await.unwrap_err();
    assert_eq!(known(&library, &record), before);
    library.indexer.stop().await;
}
