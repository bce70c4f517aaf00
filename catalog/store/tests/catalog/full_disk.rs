//! A full disk: a change fails and has changed nothing, reads go on, and with room again so do changes. What was begun is ended from
//! the reserve.

use std::path::Path;
use std::process::Command;

use manifold_catalog::{Catalog, Error, NewChild, Options};

use crate::support::{add_source, file, listing, names, options};

/// A small file system of its own where this is root; unmounted when it goes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "manifold-test"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

fn many(from: usize) -> Vec<NewChild> {
    (0..20_000).map(|n| file(&format!("{from}-{n}"))).collect()
}

/// Fills the disk through the catalog, and shows that nothing but the change is lost. `make_room` ends the shortage.
fn fill_and_recover(folder: &Path, make_room: impl FnOnce()) {
    let path = folder.join("catalog.redb");
    let catalog = Catalog::open(&path, options()).unwrap();
    let source = add_source(&catalog, "/s");
    catalog
        .apply_listing(source.root, listing(&catalog, vec![file("before")]), &|_| false)
        .unwrap();
    catalog.sync().unwrap();
    let subscription = catalog.subscribe();
    let mut failed = None;
    for round in 0..50 {
        let mut children = many(round);
        children.push(file("before"));
        let result = catalog
            .apply_listing(source.root, listing(&catalog, children), &|_| false)
            .and_then(|_| catalog.sync());
        if let Err(error) = result {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("the disk is full long before that");
    assert!(matches!(error, Error::Full), "{error:?}");
    for _ in 0..2 {
        assert!(names(&catalog, source.root).contains(&"before".to_owned()));
        assert_eq!(catalog.resolve(b"/s").unwrap().unwrap().id, source.root);
        let again = catalog
            .apply_listing(source.root, listing(&catalog, many(99)), &|_| false)
            .and_then(|_| catalog.sync());
        assert!(matches!(again, Err(Error::Full)), "{again:?}");
    }
    let changes: Vec<_> = std::iter::from_fn(|| subscription.try_recv()).collect();
    assert!(
        changes.contains(&manifold_catalog::Change::Overflow),
        "what was not durable may be lost"
    );
    make_room();
    catalog
        .apply_listing(
            source.root,
            listing(&catalog, vec![file("before"), file("after")]),
            &|_| false,
        )
        .unwrap();
    catalog.sync().unwrap();
    drop(catalog);
    Catalog::check(&path).unwrap();
    let catalog = Catalog::open(&path, options()).unwrap();
    assert_eq!(names(&catalog, source.root), ["after", "before"]);
}

#[test]
fn on_a_full_disk_changes_fail_reads_go_on_and_nothing_is_lost() {
    // Where nothing may be mounted, the limit on the size of a file stands in for the disk.
    let Some(disk) = SmallDisk::mount(6 * 1024) else {
        return limited_in_a_process_of_its_own();
    };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    fill_and_recover(disk.0.path(), || std::fs::remove_file(&ballast).unwrap());
}

/// Fills the disk to its last byte.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// With a reserve, what was begun before the disk was full can be ended, and nothing new is begun. Where nothing may be mounted, the
/// other test is all that there is.
#[test]
fn on_a_full_disk_what_was_begun_is_ended_from_the_reserve() {
    const STAGED: usize = 200;
    let Some(disk) = SmallDisk::mount(24 * 1024) else {
        return;
    };
    let (path, filler) = (disk.0.path().join("catalog.redb"), disk.0.path().join("filler"));
    let options = Options {
        reserve_bytes: 4 << 20,
        ..options()
    };
    let catalog = Catalog::open(&path, options).unwrap();
    let source = add_source(&catalog, "/s");
    let children: Vec<_> = (0..2 * STAGED).map(|n| file(&n.to_string())).collect();
    let listed = listing(&catalog, children);
    catalog.apply_listing(source.root, listed, &|_| false).unwrap();
    let id_of = |catalog: &Catalog, n: usize| {
        let found = catalog.lookup(source.root, n.to_string().as_bytes()).unwrap();
        found.expect("it is listed").id
    };
    let bytes = vec![9; 20_000];
    for n in 0..STAGED {
        catalog.stage_with(id_of(&catalog, n), b"row", &bytes, None).unwrap();
    }
    fill(&filler);
    assert!(catalog.check_room().is_ok(), "nothing of the reserve was needed yet");
    // What was promised is brought into the database, and taken away again; names are removed.
    for n in 0..STAGED {
        catalog.unstage(id_of(&catalog, n), None, None).unwrap();
        catalog
            .follow_removed(source.root, (STAGED + n).to_string().as_bytes(), 1)
            .unwrap();
        catalog.sync().unwrap();
    }
    // Something new only while there is room for its end.
    let mut staged = 0;
    while catalog
        .stage_with(id_of(&catalog, staged), b"row", &bytes, None)
        .is_ok()
    {
        staged += 1;
        assert!(staged < STAGED, "nothing is refused");
    }
    assert!(matches!(catalog.check_room(), Err(Error::Full)));
    let new = listing(&catalog, many(0));
    let refused = catalog.apply_listing(source.root, new, &|_| false);
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    let refused = catalog.stage(id_of(&catalog, 0), b"row", None, true);
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    assert!(catalog.why_unwritten().is_some());
    assert_eq!((catalog.losses(), catalog.shortfalls()), (0, 1));
    drop(catalog);
    fill(&disk.0.path().join("filler 2"));
    Catalog::check(&path).unwrap();
    let catalog = Catalog::open(&path, options).unwrap();
    assert_eq!(names(&catalog, source.root).len(), STAGED);
    assert_eq!(catalog.staged_all().unwrap().len(), staged);
    std::fs::remove_file(&filler).unwrap();
    catalog.check_room().unwrap();
    catalog.stage(id_of(&catalog, 0), b"row", None, true).unwrap();
    assert_eq!(catalog.why_unwritten(), None);
}

const LIMITED: &str = "MANIFOLD_TEST_FULL_DISK";

fn limited_in_a_process_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    // The shell ignores the signal that would end the process, and lowers its soft limit only.
    let script = "trap '' XFSZ; ulimit -S -f 3000; exec \"$0\" full_disk::child_beneath_a_limit --exact";
    let status = Command::new("bash")
        .args(["-c", script])
        .arg(test)
        .env(LIMITED, folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Not a test of its own: what runs beneath the limit, which it raises in the end.
#[test]
fn child_beneath_a_limit() {
    let Ok(folder) = std::env::var(LIMITED) else { return };
    fill_and_recover(Path::new(&folder), || {
        let me = std::process::id().to_string();
        let raised = Command::new("prlimit")
            .args(["--pid", &me, "--fsize=unlimited:"])
            .status()
            .unwrap();
        assert!(raised.success());
    });
}
