//! A daemon that ends when a copy has its name in a folder of this machine and the catalog does not know it yet: the next one goes on,
//! and nothing is in both places.

use std::path::{Path, PathBuf};

use manifold_catalog::{Crossing, Left, Mark};

use super::inward::names_on_disk;
use super::*;

impl World {
    pub(super) async fn die_and_come_back(self) -> Self {
        self.die_with(|_| {}).await
    }

    /// The same, with something done to the library's folder meanwhile.
    pub(super) async fn die_with(self, meanwhile: impl FnOnce(&Path)) -> Self {
        let folder = self.library.die().await;
        meanwhile(folder.path());
        let disks = [self.disk, self.near, self.far];
        Self::over(self.x, self.t, disks, folder, CrossSourceRename::Copy)
    }

    /// Notes that a copy is about to be given a name in the folder `far`, as a rename does before that.
    async fn note(&self, from: &str, name: &str, mark: Mark, size: u64, modified_ns: i64) -> EntryId {
        let catalog = &self.library.catalog;
        let (id, old) = (self.library.find(from).await.unwrap(), self.at(from).await);
        let (new, new_name) = self.at(&format!("far/{name}")).await;
        let version = if let Some(path) = from.strip_prefix("x/") {
            let there = self.x.stat(&ObjectPath::from_bytes(path.as_bytes().to_vec())).await;
            let Presence::Found(there) = there.unwrap() else {
                panic!("{from} is not there")
            };
            there.version.as_bytes().into()
        } else {
            catalog.details(id).unwrap().unwrap().version
        };
        let noted = Crossing {
            id,
            from: (old.0, old.1.into()),
            to: (new, new_name.into()),
            raw_name: None,
            size,
            modified_ns,
            mark,
            same_bytes: catalog.staged(id).unwrap().is_none(),
            left: Some(Left {
                version,
                shows_through: false,
            }),
            at_ns: 1,
        };
        catalog.begin_crossing(&noted).unwrap();
        id
    }

    /// Does what a rename to the folder `far` does until the copy has its name.
    async fn cross_half(&self, from: &str, name: &str, bytes: &[u8]) -> EntryId {
        let path = self.far.path().join(name);
        fs::write(&path, bytes).unwrap();
        let seen = self.on_far(name).await;
        let mark = Mark::Identity(seen.identity.unwrap().0);
        self.note(from, name, mark, seen.size, seen.modified.unwrap().0).await
    }

    async fn on_far(&self, name: &str) -> manifold_backends::Metadata {
        let far = LocalBackend::open(self.far.path()).unwrap();
        let found = far.stat(&ObjectPath::from_bytes(name.as_bytes().to_vec())).await;
        let Presence::Found(seen) = found.unwrap() else {
            panic!("{name} is not there")
        };
        seen
    }

    fn noted(&self) -> usize {
        self.library.catalog.crossings().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_its_name_is_the_file_from_the_first_moment_on() {
    let world = World::new();
    world.library.relist("far").await;
    let a = world.cross_half("x/dir/a", "a", &pattern(300_000)).await;
    let file = world.cross_half("d/sub/file", "file", &pattern(200_000)).await;
    let mut world = world.die_and_come_back().await;
    for _ in 0..2 {
        // Before anything was listed, and after.
        let known = |path: &str| world.library.catalog.resolve(path.as_bytes()).unwrap().map(|it| it.id);
        assert_eq!((known("/far/a"), known("/far/file")), (Some(a), Some(file)));
        assert_eq!((known("/x/dir/a"), known("/d/sub/file")), (None, None));
        assert_eq!(world.noted(), 0);
        assert_eq!(world.names("far").await, ["a", "file"]);
        assert_eq!(
            (world.names("x/dir").await, world.names("d/sub").await),
            (vec![], vec![])
        );
        assert_eq!(world.content("far/a").await, pattern(300_000));
        assert_eq!(world.content("far/file").await, pattern(200_000));
        world.until_settled().await;
        assert_eq!(world.x.files(), ["b"]);
        assert_eq!(names_on_disk(&world.disk.path().join("sub")), [""; 0]);
        assert_eq!(world.undone(), 0);
        world = world.die_and_come_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_not_uploaded_is_in_the_copy_alone() {
    let world = World::new();
    world.x.set_cue(Cue::Holds);
    let handle = world.open("x/b", Access::ReadWrite).await;
    world.write(handle, 0, b"B").await;
    world.close(handle).await;
    // After that nothing of its row changes.
    world.x.until_puts(1).await;
    let id = world.cross_half("x/b", "b", b"B of x").await;
    let world = world.die_and_come_back().await;
    assert_eq!(world.library.vfs.staging_usage().unwrap().files, 0);
    world.x.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(
        (world.names("far").await, world.names("x").await),
        (vec!["b".to_owned()], vec!["dir".to_owned()])
    );
    assert_eq!(world.library.find("far/b").await.unwrap(), id);
    assert_eq!(
        (world.content("far/b").await, world.x.files()),
        (b"B of x".to_vec(), vec!["dir/a".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_copy_as_it_was_made_a_file_stays_where_it_is() {
    type Change = fn(&Path);
    let changes: [(&str, Change, &[&str]); 5] = [
        ("it has not got its name", |path| fs::remove_file(path).unwrap(), &[]),
        (
            "another has written to it",
            |path| fs::write(path, b"b of y").unwrap(),
            &["b"],
        ),
        (
            "another has made it longer",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, b"b of x and y").unwrap();
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_modified(before).unwrap();
            },
            &["b"],
        ),
        (
            "another has replaced it",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                let other = path.with_extension("new");
                fs::write(&other, b"b of x").unwrap();
                let file = fs::File::options().write(true).open(&other).unwrap();
                file.set_modified(before).unwrap();
                fs::rename(&other, path).unwrap();
            },
            &["b"],
        ),
        (
            "another has given it a further name",
            |path| fs::hard_link(path, path.with_extension("too")).unwrap(),
            &["b", "b.too"],
        ),
    ];
    for (what, change, left) in changes {
        let world = World::new();
        let id = world.cross_half("x/b", "b", b"b of x").await;
        change(&world.far.path().join("b"));
        let world = world.die_and_come_back().await;
        assert_eq!(world.noted(), 0, "{what}");
        assert_eq!(world.library.find("x/b").await.unwrap(), id, "{what}");
        assert_eq!(world.names("far").await, left, "{what}");
        world.until_settled().await;
        assert_eq!(
            (world.names("x").await, world.x.files()),
            (vec!["b".into(), "dir".into()], vec!["b".into(), "dir/a".into()])
        );
        assert_eq!(world.content("x/b").await, b"b of x", "{what}");
        assert_eq!(names_on_disk(world.far.path()), left, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_another_has_removed_or_changed_does_not_keep_its_copy_from_being_the_file() {
    for changed in [false, true] {
        let world = World::new();
        let id = world.cross_half("x/b", "b", b"b of x").await;
        if changed {
            world.x.place("b", b"somebody else's");
        } else {
            world.x.take("b");
        }
        let world = world.die_and_come_back().await;
        world.until_settled().await;
        assert_eq!(world.library.find("far/b").await.unwrap(), id);
        assert_eq!(
            (world.content("far/b").await, world.names("far").await),
            (b"b of x".to_vec(), vec!["b".to_owned()])
        );
        assert_eq!(world.undone(), usize::from(changed));
        if changed {
            assert_eq!(world.names("x").await, ["b", "dir"]);
            assert_eq!(world.content("x/b").await, b"somebody else's");
        } else {
            assert_eq!(world.names("x").await, ["dir"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_made_is_the_link_and_another_is_not() {
    for (made, is_it) in [(Some("sub/file"), true), (Some("elsewhere"), false), (None, false)] {
        let world = World::new();
        let (disk, far) = (world.disk.path(), world.far.path());
        std::os::unix::fs::symlink("sub/file", disk.join("link")).unwrap();
        world.library.relist("d").await;
        let about = fs::symlink_metadata(disk.join("link")).unwrap();
        let mark = Mark::Target((*b"sub/file").into());
        let modified_ns = about.mtime() * 1_000_000_000 + about.mtime_nsec();
        let id = world.note("d/link", "link", mark, 0, modified_ns).await;
        if let Some(target) = made {
            std::os::unix::fs::symlink(target, far.join("link")).unwrap();
        }
        let world = world.die_and_come_back().await;
        assert_eq!(world.noted(), 0);
        world.until_settled().await;
        let place = if is_it { "far/link" } else { "d/link" };
        assert_eq!(world.library.find(place).await.unwrap(), id);
        let points = world.library.vfs.read_link(id).wait().await.unwrap();
        assert_eq!(points, b"sub/file");
        assert_eq!(world.disk.path().join("link").is_symlink(), !is_it);
        if is_it {
            let now = fs::symlink_metadata(world.far.path().join("link")).unwrap();
            assert_eq!((now.mtime(), now.mtime_nsec()), (about.mtime(), about.mtime_nsec()));
        }
        assert_eq!(world.names("far").await.len(), usize::from(made.is_some()));
    }
}

/// Where a folder is put that is not there for a while.
fn aside(folder: &Path) -> PathBuf {
    let mut aside = folder.as_os_str().to_owned();
    aside.push(" aside");
    aside.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_a_folder_that_is_not_there_is_seen_to_before_the_folder_is_listed_again() {
    for is_mount_point in [false, true] {
        let world = World::new();
        let sub = world.far.path().join("sub");
        fs::create_dir(&sub).unwrap();
        world.library.relist("far").await;
        world.library.relist("far/sub").await;
        let id = world.cross_half("x/b", "sub/b", b"b of x").await;
        fs::rename(&sub, aside(&sub)).unwrap();
        if is_mount_point {
            fs::create_dir(&sub).unwrap();
        }
        let world = world.die_and_come_back().await;
        assert_eq!(world.noted(), 1);
        assert_eq!(world.content("x/b").await, b"b of x");
        if is_mount_point {
            fs::remove_dir(&sub).unwrap();
        }
        fs::rename(aside(&sub), &sub).unwrap();
        assert_eq!(world.names("far/sub").await, ["b"]);
        assert_eq!((world.library.find("far/sub/b").await.unwrap(), world.noted()), (id, 0));
        world.until_settled().await;
        assert_eq!(
            (world.names("x").await, world.x.files()),
            (vec!["dir".to_owned()], vec!["dir/a".to_owned()])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_listed_as_gone_and_comes_back_has_its_copy() {
    let world = World::new();
    let (sub, elsewhere) = (world.far.path().join("sub"), TempDir::new_in("/dev/shm").unwrap());
    let gone = elsewhere.path().join("sub");
    fs::create_dir(&sub).unwrap();
    world.library.relist("far").await;
    world.library.relist("far/sub").await;
    let id = world.cross_half("x/b", "sub/b", b"b of x").await;
    fs::rename(&sub, &gone).unwrap();
    world.library.relist("far").await;
    let world = world.die_and_come_back().await;
    assert_eq!((world.names("far").await, world.noted()), (Vec::<String>::new(), 1));
    assert_eq!(world.content("x/b").await, b"b of x");
    fs::rename(&gone, &sub).unwrap();
    world.library.relist("far").await;
    assert_eq!(world.names("far/sub").await, ["b"]);
    assert_eq!((world.library.find("far/sub/b").await.unwrap(), world.noted()), (id, 0));
    world.until_settled().await;
    assert_eq!(world.x.files(), ["dir/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_keeps_what_is_noted_until_it_is() {
    let world = World::new();
    world.library.relist("far").await;
    let far = world.far.path();
    fs::write(far.join("b"), b"b of x").unwrap();
    let seen = world.on_far("b").await;
    fs::rename(far, aside(far)).unwrap();
    let directory = world.library.find("far").await.unwrap();
    // A listing from before may still be under way.
    while world.library.indexer.list_now(directory).await.is_ok() {}
    let (size, modified_ns) = (seen.size, seen.modified.unwrap().0);
    let mark = Mark::Identity(seen.identity.unwrap().0);
    let id = world.note("x/b", "b", mark, size, modified_ns).await;
    let folder = |source| world.library.indexer.backend(source)?.as_local().cloned();
    world.library.vfs.resume_renames(folder).unwrap();
    world.library.indexer.list_now(directory).await.unwrap_err();
    assert_eq!((world.noted(), world.library.find("x/b").await.unwrap()), (1, id));
    let mut changes = world.library.indexer.subscribe();
    fs::rename(aside(far), far).unwrap();
    // It is found to be there by and by.
    while world.library.indexer.list_now(directory).await.is_err() {
        changes.recv().await.unwrap();
    }
    assert_eq!(world.names("far").await, ["b"]);
    assert_eq!((world.library.find("far/b").await.unwrap(), world.noted()), (id, 0));
    world.until_settled().await;
    assert_eq!(world.names("x").await, ["dir"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scan_finds_first_is_not_shown_twice() {
    let world = World::new();
    let id = world.cross_half("x/b", "b", b"b of x").await;
    let far = world.library.catalog.resolve(b"/far").unwrap().unwrap();
    world.library.indexer.scan(far.source).ended().await;
    assert_eq!((world.library.find("far/b").await.unwrap(), world.noted()), (id, 0));
    world.until_settled().await;
    assert_eq!(
        (world.names("far").await, world.names("x").await),
        (vec!["b".to_owned()], vec!["dir".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_the_original_meanwhile_goes_on_with_it() {
    for writes in [false, true] {
        let world = World::new();
        let id = world.cross_half("x/b", "b", b"b of x").await;
        let handle = world
            .open("x/b", if writes { Access::ReadWrite } else { Access::Read })
            .await;
        assert_eq!(world.names("far").await, ["b"]);
        assert_eq!((world.library.find("x/b").await.unwrap(), world.noted()), (id, 1));
        if writes {
            world.x.set_cue(Cue::Holds);
            world.write(handle, 0, b"B").await;
        }
        world.close(handle).await;
        assert_eq!(world.names("far").await, ["b"]);
        world.x.set_cue(Cue::Does);
        world.until_settled().await;
        assert_eq!(world.names("far").await, ["b"]);
        assert_eq!(world.noted(), 0);
        let place = if writes { "x/b" } else { "far/b" };
        assert_eq!(world.library.find(place).await.unwrap(), id);
        assert_eq!(world.is_there("x/b").await, writes);
        assert_eq!(world.content("far/b").await, b"b of x");
        if writes {
            assert_eq!(world.x.bytes("b").unwrap(), b"B of x");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_noted_of_a_rename_that_was_answered() {
    let world = World::new();
    let (disk, far) = (world.disk.path(), world.far.path());
    std::os::unix::fs::symlink("sub/file", disk.join("link")).unwrap();
    for name in ["d", "far"] {
        world.library.relist(name).await;
    }
    // Made by another a moment ago.
    fs::write(far.join("unseen"), b"in the way").unwrap();
    for from in ["x/b", "d/link"] {
        let refused = world.rename(from, "far/unseen").await;
        assert!(matches!(refused, Err(Error::CrossSource)), "{refused:?}");
        assert_eq!(world.noted(), 0);
        assert!(world.is_there(from).await);
    }
    world.rename("x/b", "far/b").await.unwrap();
    world.rename("d/link", "far/link").await.unwrap();
    assert_eq!(
        (world.noted(), names_on_disk(far)),
        (0, vec!["b".into(), "link".into(), "unseen".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_broken_off_is_complete_before_either_source_leaves() {
    for leaves in ["/x", "/far"] {
        let world = World::new();
        world.library.relist("far").await;
        let handle = world.open("x/b", Access::Read).await;
        let id = world.cross_half("x/b", "b", b"b of x").await;
        let source = world
            .library
            .catalog
            .resolve(leaves.as_bytes())
            .unwrap()
            .unwrap()
            .source;
        let folder = |source| world.library.indexer.backend(source)?.as_local().cloned();
        let settle = || world.library.vfs.settle_renames_of(source, folder).unwrap();
        assert_eq!((settle(), world.noted()), (1, 1), "somebody has it open");
        world.close(handle).await;
        assert_eq!((settle(), world.noted()), (0, 0));
        assert_eq!(world.library.find("far/b").await.unwrap(), id);
        world.until_settled().await;
        assert_eq!(world.x.files(), ["dir/a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_to_a_folder_that_is_not_there_keeps_no_source_in_the_library() {
    let world = World::new();
    world.library.relist("far").await;
    world.cross_half("x/b", "b", b"b of x").await;
    let far = world.far.path();
    fs::rename(far, aside(far)).unwrap();
    let source = world.library.catalog.resolve(b"/x").unwrap().unwrap().source;
    let folder = |source| world.library.indexer.backend(source)?.as_local().cloned();
    assert_eq!(world.library.vfs.settle_renames_of(source, folder).unwrap(), 0);
    assert_eq!(world.noted(), 0);
    fs::rename(aside(far), far).unwrap();
    assert_eq!(fs::read(far.join("b")).unwrap(), b"b of x", "the copy stays");
    assert_eq!(world.content("x/b").await, b"b of x");
}
