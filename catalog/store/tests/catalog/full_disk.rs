//! A full disk: a change fails and has changed nothing, reads go on, and with room again so do changes.

use std::path::Path;
use std::process::Command;

use manifold_catalog::{Catalog, Error, NewChild};

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
