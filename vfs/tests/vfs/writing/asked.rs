//! Renames of directories of which nobody knows whether the source has made them, with files beneath that wait to be uploaded: the answer
//! was lost, or the daemon died before it came.

use super::*;

/// A world in which `d/f` was written to and `d/sub/new` was saved while the source was away, and in which it was asked to rename `d` to `e`, and
/// has said nothing since. `over`: an empty directory had that name before.
async fn with_an_unknown_rename(is_made: bool, over: bool) -> World {
    let world = with_files_that_wait(over).await;
    world.shelf.set_cue(if is_made {
        Cue::RenamesAndIsSilent
    } else {
        Cue::IgnoresRenames
    });
    let unknown = world.rename_in_root("d", "e").await;
    assert!(
        matches!(unknown, Err(Error::TimedOut(_) | Error::Unreachable(_))),
        "{unknown:?}"
    );
    assert_eq!(world.library.catalog.asked_renames().unwrap().len(), 1);
    world
}

/// A world in which `d/f` was written to and `d/sub/new` was saved while the source was away.
async fn with_files_that_wait(over: bool) -> World {
    with_files_that_wait_at(Shelf::new(), over).await
}

async fn with_files_that_wait_at(shelf: Arc<Shelf>, over: bool) -> World {
    if over {
        shelf.place_directory("e");
    }
    shelf.place("d/f", b"before");
    shelf.place("d/sub/g", b"g");
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/d/sub/g").await.unwrap();
    if over {
        assert!(world.names("s/e").await.is_empty());
    }
    let f = world.open("s/d/f", Access::ReadWrite).await;
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    world.write(f, WriteAt::Offset(0), b"AFTER!").await.unwrap();
    world.close(f).await.unwrap();
    world.save_in("s/d/sub", "new", b"new").await;
    world
}

impl World {
    async fn save_in(&self, directory: &str, name: &str, bytes: &[u8]) {
        let directory = self.library.find(directory).await.unwrap();
        let creation = Creation {
            mode: 0o644,
            access: Access::ReadWrite,
            exclusive: true,
        };
        let created = self.library.vfs.create(directory, name.as_bytes(), creation, ME);
        let handle = created.wait().await.unwrap().opened.handle;
        self.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
        self.close(handle).await.unwrap();
    }

    async fn rename_in_root(&self, from: &str, to: &str) -> Result<(), Error> {
        let root = self.root().await;
        let (from, to) = ((root, from.as_bytes()), (root, to.as_bytes()));
        self.library.vfs.rename(from, to, RenameMode::Replace).wait().await
    }

    /// The source has been looked at, and that has not told what became of the rename: nothing is made in the directory, or uploaded.
    async fn is_not_known_yet(&self, directory: EntryId) {
        let vfs = &self.library.vfs;
        let made = vfs.make_directory(directory, b"made", 0o755, ME).wait().await;
        assert!(
            matches!(made, Err(Error::TimedOut(_) | Error::Busy)),
            "nobody knows where it would be: {made:?}"
        );
        assert_eq!(self.library.catalog.asked_renames().unwrap().len(), 1);
        assert!(vfs.staging_usage().unwrap().files > 0);
    }

    /// Everything ends in that directory, at the source and in the tree, and nowhere else.
    async fn ends_in(&self, directory: &str) {
        self.shelf.set_cue(Cue::Does);
        self.library.vfs.retry_uploads();
        self.until_quiet().await;
        assert_eq!(self.library.catalog.asked_renames().unwrap(), []);
        let path = |rest: &str| format!("{directory}/{rest}");
        assert_eq!(self.shelf.files(), [path("f"), path("sub/g"), path("sub/new")]);
        self.library.relist("s").await;
        assert_eq!(self.names("s").await, [directory]);
        for (rest, bytes) in [("f", &b"AFTER!"[..]), ("sub/g", b"g"), ("sub/new", b"new")] {
            assert_eq!(self.read_path(&format!("s/{}", path(rest))).await, bytes, "{rest}");
        }
        assert!(self.library.vfs.conflicts().is_empty());
        self.library.catalog.examine().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_its_source_has_renamed_is_followed_before_anything_is_uploaded_beneath_it() {
    for (dies, over) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = with_an_unknown_rename(true, over).await;
        let d = world.library.find("s/d").await.unwrap();
        if dies {
            world = world.die_and_come_back().await;
        }
        world.ends_in("e").await;
        assert_eq!(world.library.find("s/e").await.unwrap(), d, "it keeps its id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_its_source_has_not_renamed_keeps_its_name() {
    for dies in [false, true] {
        let mut world = with_an_unknown_rename(false, false).await;
        if dies {
            world = world.die_and_come_back().await;
        }
        world.ends_in("d").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_is_not_asked_and_so_nobody_waits_for_what_it_has_made_of_that() {
    let world = with_files_that_wait(false).await;
    world.shelf.set_cue(Cue::IsAway);
    world.library.vfs.retry_uploads();
    while !world.library.indexer.is_away(world.library.source()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let d = world.library.find("s/d").await.unwrap();
    let renamed = world.rename_in_root("d", "e").await;
    assert!(matches!(renamed, Err(Error::Unreachable(_))), "{renamed:?}");
    assert_eq!(world.library.catalog.asked_renames().unwrap(), []);
    world.save_in("s/d", "other", b"other").await;
    world.library.vfs.remove_file(d, b"other").wait().await.unwrap();
    world.ends_in("d").await;
}

/// A server that copies what is in it, or that is behind one that has lost its patience.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_may_come_to_a_rename_later_than_it_was_waited_for() {
    let world = with_an_unknown_rename(false, false).await;
    let d = world.library.find("s/d").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.is_not_known_yet(d).await;
    world.shelf.rename_now("d", "e");
    world.ends_in("e").await;
    assert_eq!(world.library.find("s/e").await.unwrap(), d, "it keeps its id");
}

/// One that copies what is in a directory, and removes that when it has all: what is uploaded meanwhile would go.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_uploaded_beneath_a_directory_that_its_source_is_copying() {
    let mut world = with_an_unknown_rename(false, false).await;
    let d = world.library.find("s/d").await.unwrap();
    world.shelf.place("e/f", b"before");
    world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.is_not_known_yet(d).await;
    assert_eq!(world.shelf.bytes("d/f").unwrap(), b"before");
    for path in ["e/f", "e"] {
        world.shelf.take(path);
    }
    world.shelf.rename_now("d", "e");
    world.ends_in("e").await;
    assert_eq!(world.library.find("s/e").await.unwrap(), d, "it keeps its id");
}

/// The rename was made, and what came of it may not be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_says_after_a_rename_is_not_taken_for_a_refusal() {
    let world = with_files_that_wait(false).await;
    let d = world.library.find("s/d").await.unwrap();
    world.shelf.set_cue(Cue::RenamesAndForbids);
    let renamed = world.rename_in_root("d", "e").await;
    assert!(matches!(renamed, Err(Error::PermissionDenied(_))), "{renamed:?}");
    world.ends_in("e").await;
    assert_eq!(world.library.find("s/e").await.unwrap(), d, "it keeps its id");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listing_has_found_under_the_new_name_is_the_directory_itself() {
    let world = with_an_unknown_rename(true, false).await;
    let d = world.library.find("s/d").await.unwrap();
    world.shelf.set_cue(Cue::IsSilent);
    world.library.relist("s").await;
    assert_eq!(
        world.names("s").await,
        ["d", "e"],
        "what waits to be uploaded does not go"
    );
    world.library.find("s/e/sub/g").await.unwrap();
    world.ends_in("e").await;
    assert_eq!(world.library.find("s/e").await.unwrap(), d);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_under_the_new_name_is_made_in_the_directory_itself() {
    let world = with_an_unknown_rename(true, false).await;
    let d = world.library.find("s/d").await.unwrap();
    world.library.relist("s").await;
    let found = world.library.find("s/e").await.unwrap();
    assert_ne!(found, d);
    let make = |directory| world.library.vfs.make_directory(directory, b"made", 0o755, ME).wait();
    let early = tokio::spawn(make(found));
    world.shelf.set_cue(Cue::Does);
    let refused = early.await.unwrap();
    assert!(
        matches!(refused, Err(Error::Stale | Error::NotFound)),
        "whoever asked looks it up again: {refused:?}"
    );
    assert_eq!(world.library.find("s/e").await.unwrap(), d);
    make(d).await.unwrap();
    assert_eq!(world.names("s/e").await, ["f", "made", "sub"]);
    world.ends_in("e").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_under_the_new_name_meanwhile_stays_and_so_does_what_waited() {
    let shelf = Shelf::new();
    shelf.place("d/f", b"before");
    shelf.place("d/g", b"g");
    let world = World::over(shelf, TempDir::new().unwrap());
    let f = world.open("s/d/f", Access::ReadWrite).await;
    world.write(f, WriteAt::Offset(0), b"AFTER!").await.unwrap();
    world.shelf.set_cue(Cue::RenamesAndIsSilent);
    world.rename_in_root("d", "e").await.unwrap_err();
    world.library.relist("s").await;
    let g = world.open("s/e/g", Access::ReadWrite).await;
    world.write(g, WriteAt::Offset(0), b"G").await.unwrap();
    world.close(g).await.unwrap();
    world.close(f).await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    assert_eq!(world.library.catalog.asked_renames().unwrap(), []);
    for path in ["s", "s/d", "s/e"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.shelf.files(), ["d/f", "e/f", "e/g"]);
    for (path, bytes) in [("d/f", &b"AFTER!"[..]), ("e/f", b"before"), ("e/g", b"G")] {
        assert_eq!(world.shelf.bytes(path).as_deref(), Some(bytes), "{path}");
        assert_eq!(world.read_path(&format!("s/{path}")).await, bytes, "{path}");
    }
    world.library.catalog.examine().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_on_the_way_are_changed_when_it_is_known_where_they_are() {
    let world = with_an_unknown_rename(true, false).await;
    let (d, sub) = (
        world.library.find("s/d").await.unwrap(),
        world.library.find("s/d/sub").await.unwrap(),
    );
    world.shelf.set_cue(Cue::IsAway);
    let made = world.library.vfs.make_directory(d, b"made", 0o755, ME).wait().await;
    assert!(made.is_err(), "nobody knows where: {made:?}");
    world.shelf.set_cue(Cue::Does);
    // Whoever asked for the former name looks it up again.
    loop {
        match world.rename_in_root("d", "g").await {
            Err(Error::Unreachable(_) | Error::TimedOut(_)) => tokio::task::yield_now().await,
            Err(Error::Stale | Error::NotFound) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.library.find("s/e").await.unwrap(), d);
    assert_eq!(world.library.find("s/e/sub").await.unwrap(), sub);
    world.rename_in_root("e", "g").await.unwrap();
    world.ends_in("g").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listing_has_taken_away_keeps_nobody_waiting() {
    let shelf = Shelf::new();
    shelf.place("d/f", b"f");
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/d/f").await.unwrap();
    world.shelf.set_cue(Cue::RenamesAndIsSilent);
    world.rename_in_root("d", "e").await.unwrap_err();
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["e"]);
    assert_eq!(world.library.catalog.asked_renames().unwrap(), []);
    world.shelf.set_cue(Cue::Does);
    let e = world.library.find("s/e").await.unwrap();
    let made = world.library.vfs.make_directory(e, b"made", 0o755, ME).wait();
    made.await.unwrap();
    world.rename_in_root("e", "g").await.unwrap();
    assert_eq!(world.shelf.files(), ["g/f"]);
    world.library.catalog.examine().unwrap();
}

/// Some answer so when something beneath is open; there are two directories then, as there were before.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_refused_a_rename_is_not_waited_for() {
    let world = with_files_that_wait(true).await;
    let [d, e] = [
        world.library.find("s/d").await.unwrap(),
        world.library.find("s/e").await.unwrap(),
    ];
    world.shelf.set_cue(Cue::Fails(ErrorKind::PermissionDenied));
    let refused = world.rename_in_root("d", "e").await;
    assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{refused:?}");
    world.shelf.set_cue(Cue::Does);
    let known = world.until(|library| library.catalog.asked_renames().unwrap().is_empty());
    let soon = tokio::time::timeout(Duration::from_secs(20), known);
    soon.await.expect("it has answered, and so is not at it any more");
    let root = world.root().await;
    world.library.vfs.remove_directory(root, b"e").wait().await.unwrap();
    world.ends_in("d").await;
    let now = world.library.find("s/d").await.unwrap();
    assert!(now == d && now != e);
}

/// A server for which both names are one.
#[tokio::test(flavor = "multi_thread")]
async fn how_a_source_spells_a_directory_tells_whether_it_has_renamed_it() {
    for (cue, directory) in [(Cue::RenamesAndIsSilent, "D"), (Cue::IgnoresRenames, "d")] {
        let world = with_files_that_wait_at(Shelf::without_case(), false).await;
        let d = world.library.find("s/d").await.unwrap();
        world.shelf.set_cue(cue);
        let unknown = world.rename_in_root("d", "D").await;
        assert!(
            matches!(unknown, Err(Error::TimedOut(_) | Error::Unreachable(_))),
            "{unknown:?}"
        );
        world.ends_in(directory).await;
        assert_eq!(world.library.find(&format!("s/{directory}")).await.unwrap(), d);
    }
}

/// What has the new name was not made by the rename.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_has_removed_does_not_become_one_that_has_its_new_name() {
    let shelf = Shelf::new();
    shelf.place("d/f", b"f");
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/d/f").await.unwrap();
    let d = world.library.find("s/d").await.unwrap();
    for path in ["d/f", "d"] {
        world.shelf.take(path);
    }
    world.shelf.place_directory("e");
    let refused = world.rename_in_root("d", "e").await;
    assert!(matches!(refused, Err(Error::NotFound)), "{refused:?}");
    assert_eq!(world.library.catalog.asked_renames().unwrap(), []);
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["e"]);
    assert_ne!(world.library.find("s/e").await.unwrap(), d);
}
