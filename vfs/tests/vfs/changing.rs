//! Changes of folders of this machine: on the disk at once, and the catalog with it.

mod beside;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::library::Library;
use manifold_backends::Backend;
use manifold_backends::local::LocalBackend;
use manifold_catalog::{Catalog, Kind, Options};
use manifold_vfs::{
    Access, AttributeChange, Attributes, Created, Creation, Durable, EntryId, Error, Event, EventStream, Making,
    NameMatch, Received, RenameMode, Requester, Seek, SetMode, Settings, WriteAt, Writing,
};
use tempfile::TempDir;

const ME: Requester = Requester {
    uid: 0,
    gid: 0,
    pid: 0,
    umask: 0o022,
};
const NEW: Creation = Creation {
    mode: 0o666,
    access: Access::ReadWrite,
    exclusive: true,
};

/// A library over two folders, `a` and `b`.
struct Two {
    library: Library,
    a: TempDir,
    b: TempDir,
}

fn two() -> Two {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let open = |folder: &TempDir| -> Arc<dyn Backend> { Arc::new(LocalBackend::open(folder.path()).unwrap()) };
    let library = Library::new(&[("a", open(&a)), ("b", open(&b))], Settings::default());
    Two { library, a, b }
}

impl Two {
    async fn create(&self, directory: EntryId, name: &str) -> Result<Created, Error> {
        let vfs = &self.library.vfs;
        vfs.create(directory, name.as_bytes(), NEW, ME).wait().await
    }

    async fn write(&self, file: &Created, at: WriteAt, bytes: &[u8]) -> u32 {
        let writing = Writing {
            at,
            durable: Durable::Later,
            keep_privileges: true,
        };
        self.library
            .vfs
            .write(file.opened.handle, bytes, writing)
            .wait()
            .await
            .unwrap()
    }

    async fn close(&self, file: &Created) {
        self.library.vfs.flush(file.opened.handle).wait().await.unwrap();
        self.library.vfs.release(file.opened.handle);
    }

    async fn attributes(&self, id: EntryId) -> Attributes {
        self.library.vfs.attributes(id, None).wait().await.unwrap()
    }

    /// The catalog, the mount and the disk agree on an entry.
    async fn agrees(&self, path: &str, on_disk: &Path) {
        let id = self.library.find(path).await.unwrap();
        let (seen, there) = (self.attributes(id).await, fs::symlink_metadata(on_disk).unwrap());
        let ns = |seconds: i64, nanoseconds: i64| seconds * 1_000_000_000 + nanoseconds;
        assert_eq!(seen.modified_ns, ns(there.mtime(), there.mtime_nsec()), "{path}");
        assert_eq!(seen.changed_ns, ns(there.ctime(), there.ctime_nsec()), "{path}");
        assert_eq!(u32::from(seen.mode), there.mode() & 0o7777, "{path}");
        if seen.kind != Kind::Directory {
            assert_eq!(
                (seen.size, u64::from(seen.links)),
                (there.size(), there.nlink()),
                "{path}"
            );
        }
    }
}

/// All that the kernel is told from now until nothing more comes.
fn told(library: &Library, events: &EventStream) -> Vec<Event> {
    library.vfs.settle(Duration::from_secs(20));
    let mut told = Vec::new();
    while let Received::Event(event) = events.receive(Duration::ZERO) {
        told.push(event);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_on_the_disk_and_in_the_catalog_when_the_answer_comes() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let directory = vfs.make_directory(root, b"d", 0o777, ME).wait().await.unwrap();
    assert_eq!((directory.kind, directory.mode), (Kind::Directory, 0o755));
    let inside = two.library.find("a/d").await.unwrap();
    assert_eq!(inside, directory.id);
    let link = vfs.make_symlink(inside, b"l", b"to/it", ME).wait().await.unwrap();
    assert_eq!(vfs.read_link(link.id).wait().await.unwrap(), b"to/it");
    vfs.make_node(inside, b"p", Making::Fifo, 0o600, ME)
        .wait()
        .await
        .unwrap();
    let file = two.create(inside, "f").await.unwrap();
    two.close(&file).await;
    for name in ["d", "d/l", "d/p", "d/f"] {
        two.agrees(&format!("a/{name}"), &two.a.path().join(name)).await;
    }
    two.agrees("a", two.a.path()).await;
    let again = [
        vfs.make_directory(root, b"d", 0o777, ME).wait().await.unwrap_err(),
        two.create(inside, "f").await.unwrap_err(),
    ];
    assert!(again.iter().all(|error| matches!(error, Error::Exists)), "{again:?}");
    let long = "x".repeat(256);
    assert!(matches!(two.create(inside, &long).await, Err(Error::NameTooLong)));
    // It would have to be shown under another name.
    assert!(matches!(two.create(inside, "a␛b").await, Err(Error::InvalidArgument)));
    let escaped = two.create(inside, "a␛␛b").await.unwrap();
    assert!(two.a.path().join("d/a␛b").exists());
    two.close(&escaped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_is_as_the_disk_says_and_the_catalog_learns_it_at_the_close() {
    let two = two();
    let root = two.library.find("a").await.unwrap();
    let file = two.create(root, "f").await.unwrap();
    let id = file.attributes.id;
    assert!(file.attributes.volatile && file.opened.writes);
    assert_eq!(two.write(&file, WriteAt::Offset(0), b"hello").await, 5);
    assert_eq!(two.write(&file, WriteAt::Append, b"!").await, 1);
    // By somebody who writes to the disk, as the kernel does.
    fs::OpenOptions::new()
        .append(true)
        .open(two.a.path().join("f"))
        .unwrap()
        .set_len(1_000)
        .unwrap();
    let seen = two.attributes(id).await;
    assert_eq!((seen.size, seen.volatile), (1_000, true));
    let found = two
        .library
        .vfs
        .lookup(root, b"f", NameMatch::Exact)
        .wait()
        .await
        .unwrap()
        .1;
    assert_eq!((found.size, found.volatile), (1_000, true));
    assert_eq!(two.library.catalog.entry(id).unwrap().unwrap().size, 0);
    let read = two.library.read(&file.opened, 0, 7).await.unwrap();
    assert_eq!(&read[..], b"hello!\0");
    two.close(&file).await;
    assert_eq!(two.library.catalog.entry(id).unwrap().unwrap().size, 1_000);
    assert!(!two.attributes(id).await.volatile);
    two.agrees("a/f", &two.a.path().join("f")).await;
    // A reader writes nothing.
    let opened = two.library.open("a/f").await;
    let writing = Writing {
        at: WriteAt::Append,
        durable: Durable::Later,
        keep_privileges: true,
    };
    let refused = two.library.vfs.write(opened.handle, b"x", writing).wait().await;
    assert!(matches!(refused, Err(Error::BadHandle)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_its_number_through_every_change_of_name_and_bytes() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    fs::create_dir_all(two.a.path().join("d/e")).unwrap();
    fs::write(two.a.path().join("d/e/f"), "text").unwrap();
    two.library.relist("a").await;
    let (d, e) = (
        two.library.find("a/d").await.unwrap(),
        two.library.find("a/d/e").await.unwrap(),
    );
    let f = two.library.find("a/d/e/f").await.unwrap();
    let opened = vfs.open(f, Access::ReadWrite).wait().await.unwrap();
    let rename = async |from: (EntryId, &str), to: (EntryId, &str), mode| {
        let (from, to) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        vfs.rename(from, to, mode).wait().await
    };
    rename((e, "f"), (root, "g"), RenameMode::NoReplace).await.unwrap();
    rename((root, "d"), (root, "moved"), RenameMode::Replace).await.unwrap();
    assert_eq!(two.library.find("a/g").await.unwrap(), f);
    assert_eq!(two.library.find("a/moved/e").await.unwrap(), e);
    rename((root, "g"), (root, "moved"), RenameMode::Exchange)
        .await
        .unwrap();
    assert_eq!(
        (
            two.library.find("a/moved").await.unwrap(),
            two.library.find("a/g").await.unwrap()
        ),
        (f, d)
    );
    for (path, beneath) in [("a/moved", "moved"), ("a/g", "g"), ("a/g/e", "g/e"), ("a", "")] {
        two.agrees(path, &two.a.path().join(beneath)).await;
    }
    assert!(matches!(
        rename((root, "none"), (root, "x"), RenameMode::Replace).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        rename((root, "g"), (root, "moved"), RenameMode::NoReplace).await,
        Err(Error::Exists)
    ));
    assert!(matches!(
        rename((root, "g"), (e, "x"), RenameMode::Replace).await,
        Err(Error::InvalidArgument)
    ));
    assert_eq!(&two.library.read(&opened, 0, 10).await.unwrap()[..], b"text");
    vfs.release(opened.handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_is_usable_until_its_last_close_and_a_replaced_one_too() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let first = two.create(root, "f").await.unwrap();
    let id = first.attributes.id;
    let reader = vfs.open(id, Access::Read).wait().await.unwrap();
    vfs.leave_to_kernel(reader.handle);
    two.write(&first, WriteAt::Offset(0), b"bytes").await;
    let second = two.create(root, "g").await.unwrap();
    vfs.rename((root, b"g"), (root, b"f"), RenameMode::Replace)
        .wait()
        .await
        .unwrap();
    assert_eq!(two.library.find("a/f").await.unwrap(), second.attributes.id);
    let seen = two.attributes(id).await;
    assert_eq!((seen.size, seen.links), (5, 0));
    two.write(&first, WriteAt::Append, b"more").await;
    two.close(&first).await;
    // Only the kernel has it open now; its attributes are changed all the same.
    let mode = AttributeChange {
        mode: Some(0o640),
        ..AttributeChange::default()
    };
    let changed = vfs.set_attributes(id, None, mode, ME).wait().await.unwrap();
    assert_eq!((changed.mode, changed.size), (0o640, 9));
    assert_eq!(vfs.seek(id, reader.handle, Seek::Hole, 1).wait().await.unwrap(), 9);
    vfs.set_attribute(id, b"user.a", b"1", SetMode::Any)
        .wait()
        .await
        .unwrap();
    assert_eq!(vfs.attribute(id, b"user.a").wait().await.unwrap(), b"1");
    vfs.remove_file(root, b"f").wait().await.unwrap();
    assert_eq!(two.attributes(second.attributes.id).await.links, 0);
    assert!(matches!(two.library.find("a/f").await, Err(Error::NotFound)));
    vfs.release(reader.handle);
    two.close(&second).await;
    assert_eq!(fs::read_dir(two.a.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_have_one_number_that_lives_as_long_as_one_of_them() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let directory = vfs.make_directory(root, b"d", 0o777, ME).wait().await.unwrap().id;
    let file = two.create(root, "f").await.unwrap();
    let id = file.attributes.id;
    for name in [&b"g"[..], b"h"] {
        let link = vfs.make_link(id, directory, name).wait().await.unwrap();
        assert_eq!(link.id, id);
    }
    assert_eq!(two.attributes(id).await.links, 3);
    two.write(&file, WriteAt::Offset(0), b"12345").await;
    two.close(&file).await;
    let mode = AttributeChange {
        mode: Some(0o600),
        ..AttributeChange::default()
    };
    vfs.set_attributes(id, None, mode, ME).wait().await.unwrap();
    for name in ["f", "d/g", "d/h"] {
        assert_eq!(two.library.find(&format!("a/{name}")).await.unwrap(), id);
        two.agrees(&format!("a/{name}"), &two.a.path().join(name)).await;
    }
    vfs.rename((root, b"f"), (directory, b"g"), RenameMode::Replace)
        .wait()
        .await
        .unwrap();
    assert_eq!(two.library.find("a/f").await.unwrap(), id, "a disk leaves both");
    let opened = vfs.open(id, Access::Read).wait().await.unwrap();
    // The first goes: the next stands for it.
    vfs.remove_file(root, b"f").wait().await.unwrap();
    let other = two.create(root, "other").await.unwrap();
    two.close(&other).await;
    vfs.rename((root, b"other"), (directory, b"g"), RenameMode::Replace)
        .wait()
        .await
        .unwrap();
    assert_eq!(two.library.find("a/d/h").await.unwrap(), id);
    assert_eq!(two.library.find("a/d/g").await.unwrap(), other.attributes.id);
    assert_eq!(two.attributes(id).await.links, 1);
    two.agrees("a/d/h", &two.a.path().join("d/h")).await;
    assert_eq!(&two.library.read(&opened, 0, 9).await.unwrap()[..], b"12345");
    vfs.remove_file(directory, b"h").wait().await.unwrap();
    assert_eq!(two.attributes(id).await.links, 0);
    vfs.release(opened.handle);
    two.library.relist("a/d").await;
    assert!(matches!(two.library.find("a/d/h").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_their_roots_and_the_librarys_directories_have_their_limits() {
    let two = two();
    let vfs = &two.library.vfs;
    let (a, b) = (
        two.library.find("a").await.unwrap(),
        two.library.find("b").await.unwrap(),
    );
    let file = two.create(a, "f").await.unwrap();
    two.close(&file).await;
    let renamed = vfs.rename((a, b"f"), (b, b"f"), RenameMode::Replace).wait().await;
    assert!(matches!(renamed, Err(Error::CrossSource)));
    let linked = vfs.make_link(file.attributes.id, b, b"f").wait().await;
    assert!(matches!(linked, Err(Error::CrossSource)));
    let made = vfs.make_directory(EntryId::ROOT, b"c", 0o777, ME).wait().await;
    assert!(matches!(made, Err(Error::ReadOnly)));
    let removed = vfs.remove_directory(EntryId::ROOT, b"a").wait().await;
    assert!(matches!(removed, Err(Error::ReadOnly)));
    vfs.set_read_only(two.library.source(), true);
    let refused = [
        two.create(a, "g").await.map(drop),
        vfs.remove_file(a, b"f").wait().await,
        vfs.open(file.attributes.id, Access::Write).wait().await.map(drop),
        vfs.set_attributes(file.attributes.id, None, AttributeChange::default(), ME)
            .wait()
            .await
            .map(drop),
        vfs.set_attribute(file.attributes.id, b"user.a", b"", SetMode::Any)
            .wait()
            .await,
    ];
    assert!(
        refused.iter().all(|it| matches!(it, Err(Error::ReadOnly))),
        "{refused:?}"
    );
    two.library.open("a/f").await;
    let other = two.create(b, "g").await.unwrap();
    two.close(&other).await;
    assert!(two.b.path().join("g").exists() && !two.a.path().join("g").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_leads_to_another_source_stays() {
    let (outer, inner) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir_all(outer.path().join("d/e")).unwrap();
    let open = |folder: &TempDir| -> Arc<dyn Backend> { Arc::new(LocalBackend::open(folder.path()).unwrap()) };
    let library = Library::new(&[("o", open(&outer)), ("o/d/e", open(&inner))], Settings::default());
    let vfs = &library.vfs;
    let (root, d) = (library.find("o").await.unwrap(), library.find("o/d").await.unwrap());
    library.find("o/d/e").await.unwrap();
    let changed = [
        vfs.remove_directory(d, b"e").wait().await,
        vfs.rename((root, b"d"), (root, b"x"), RenameMode::Replace).wait().await,
        vfs.rename((d, b"e"), (root, b"x"), RenameMode::Replace).wait().await,
    ];
    for changed in changed {
        assert!(matches!(changed, Err(Error::Busy | Error::ReadOnly)), "{changed:?}");
    }
    let made = vfs.make_directory(d, b"e", 0o777, ME).wait().await;
    assert!(matches!(made, Err(Error::Exists | Error::ReadOnly)), "{made:?}");
    assert!(outer.path().join("d/e").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_is_not_told_of_what_it_asked_for_and_is_told_of_all_else() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let before = two.create(root, "before").await.unwrap();
    two.close(&before).await;
    // The first listing of the directory is told of behind the answers.
    vfs.settle(Duration::from_secs(20));
    let events = vfs.subscribe();
    let directory = vfs.make_directory(root, b"d", 0o777, ME).wait().await.unwrap();
    assert_eq!(told(&two.library, &events), []);
    // A first listing between the write and the close would tell of the bytes.
    two.library.relist("a/d").await;
    told(&two.library, &events);
    let file = two.create(directory.id, "f").await.unwrap();
    two.write(&file, WriteAt::Offset(0), b"bytes").await;
    two.close(&file).await;
    vfs.rename((directory.id, b"f"), (root, b"g"), RenameMode::Replace)
        .wait()
        .await
        .unwrap();
    vfs.remove_directory(root, b"d").wait().await.unwrap();
    assert_eq!(told(&two.library, &events), []);
    // An entry of its own, but the kernel knows both by one number.
    let link = vfs.make_link(file.attributes.id, root, b"h").wait().await.unwrap();
    assert_eq!((link.id, link.links), (file.attributes.id, 2));
    vfs.remove_file(root, b"g").wait().await.unwrap();
    assert_eq!(told(&two.library, &events), []);
    fs::write(two.a.path().join("behind"), "").unwrap();
    let behind = Event::Entry {
        parent: root,
        name: b"behind"[..].into(),
    };
    loop {
        // It may join a listing that had begun before.
        two.library.relist("a").await;
        if told(&two.library, &events).contains(&behind) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_extended_attributes_are_those_of_the_disk() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let file = two.create(root, "f").await.unwrap();
    two.close(&file).await;
    let id = file.attributes.id;
    let all = AttributeChange {
        mode: Some(0o4711),
        uid: Some(5),
        gid: Some(6),
        size: Some(77),
        modified: Some(manifold_vfs::NewTime::At(8, 9)),
        ..AttributeChange::default()
    };
    let seen = vfs.set_attributes(id, None, all, ME).wait().await.unwrap();
    assert_eq!(
        (seen.mode, seen.owner, seen.size, seen.modified_ns),
        (0o4711, Some((5, 6)), 77, 8_000_000_009)
    );
    two.agrees("a/f", &two.a.path().join("f")).await;
    assert!(matches!(vfs.attribute(id, b"user.a").wait().await, Err(Error::NoData)));
    vfs.set_attribute(id, b"user.a", b"1", SetMode::Create)
        .wait()
        .await
        .unwrap();
    vfs.set_attribute(id, b"trusted.b", b"2", SetMode::Create)
        .wait()
        .await
        .unwrap();
    assert_eq!(vfs.attribute(id, b"user.a").wait().await.unwrap(), b"1");
    let names = vfs.attribute_names(id, ME).wait().await.unwrap();
    assert!(names.windows(7).any(|it| it == b"user.a\0") && names.windows(10).any(|it| it == b"trusted.b\0"));
    let ada = Requester { uid: 1_000, ..ME };
    assert_eq!(vfs.attribute_names(id, ada).wait().await.unwrap(), b"user.a\0");
    vfs.remove_attribute(id, b"user.a").wait().await.unwrap();
    assert!(matches!(
        vfs.remove_attribute(id, b"user.a").wait().await,
        Err(Error::NoData)
    ));
    two.agrees("a/f", &two.a.path().join("f")).await;
    assert_eq!(
        fs::metadata(two.a.path().join("f")).unwrap().permissions().mode() & 0o7777,
        0o4711
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_never_listed_is_listed_before_it_is_changed() {
    let two = two();
    fs::create_dir(two.a.path().join("d")).unwrap();
    fs::write(two.a.path().join("d/there"), "").unwrap();
    let directory = two.library.find("a/d").await.unwrap();
    let file = two.create(directory, "new").await.unwrap();
    two.close(&file).await;
    for name in ["there", "new"] {
        two.library.find(&format!("a/d/{name}")).await.unwrap();
    }
    assert!(matches!(two.library.find("a/d/none").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything_as_it_was_left() {
    let two = two();
    let vfs = &two.library.vfs;
    let root = two.library.find("a").await.unwrap();
    let directory = vfs.make_directory(root, b"d", 0o777, ME).wait().await.unwrap().id;
    let file = two.create(directory, "f").await.unwrap();
    two.write(&file, WriteAt::Offset(0), b"text").await;
    two.close(&file).await;
    vfs.rename((directory, b"f"), (root, b"g"), RenameMode::Replace)
        .wait()
        .await
        .unwrap();
    let at = two.library.now_ns.load(std::sync::atomic::Ordering::SeqCst);
    let Two { library, a, b } = two;
    let Library {
        vfs,
        catalog,
        indexer,
        folder,
        ..
    } = library;
    indexer.stop().await;
    let held = Arc::downgrade(&catalog);
    drop((vfs, catalog, indexer));
    // What is under way ends on threads of its own.
    while held.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let open = |folder: &TempDir| -> Arc<dyn Backend> { Arc::new(LocalBackend::open(folder.path()).unwrap()) };
    let library = Library::reopen(folder, &[("a", open(&a)), ("b", open(&b))], Settings::default());
    let again = Two { library, a, b };
    assert_eq!(again.library.find("a/g").await.unwrap(), file.attributes.id);
    assert_eq!(again.library.find("a/d").await.unwrap(), directory);
    let listed = again.library.catalog.directory_state(directory).unwrap().unwrap();
    assert!(
        listed.listed_ns.is_some_and(|listed| listed >= at),
        "it was empty when it was made"
    );
    for path in ["g", "d"] {
        again.agrees(&format!("a/{path}"), &again.a.path().join(path)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_has_and_the_catalog_lacks_is_shown_when_it_is_in_the_way() {
    let two = two();
    let a = two.library.find("a").await.unwrap();
    two.library.relist("a").await;
    // As a crash leaves it between the disk and the catalog.
    fs::write(two.a.path().join("made"), b"bytes").unwrap();
    assert!(matches!(two.library.find("a/made").await, Err(Error::NotFound)));
    let again = two.create(a, "made").await;
    assert!(matches!(again, Err(Error::Exists)), "{again:?}");
    two.library.find("a/made").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_in_a_folder_is_known_after_the_daemon_was_killed() {
    let two = two();
    let a = two.library.find("a").await.unwrap();
    two.library.relist("a").await;
    let made = two.create(a, "made").await.unwrap();
    two.write(&made, WriteAt::Offset(0), b"bytes").await;
    two.close(&made).await;
    let copy = TempDir::new().unwrap();
    for name in ["catalog.redb", "catalog.redb-wal"] {
        fs::copy(two.library.folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let catalog = Catalog::open(&copy.path().join("catalog.redb"), Options::default()).unwrap();
    let entry = catalog.resolve(b"/a/made").unwrap().unwrap();
    assert_eq!((entry.id, entry.size), (made.attributes.id, 5));
}
