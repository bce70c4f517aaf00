//! Changing what is there: at every member that has it, and so that nothing hidden comes to light.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use manifold_vfs::{NewTime, SetMode};

use super::*;

/// The members in an order that begins with this one, all listed.
async fn with_first(member: &str) -> World {
    let world = World::new(|_, _, _| {});
    let order = vec![member.as_bytes().into()];
    world.library.vfs.set_unions(vec![Union { order, ..union() }]).unwrap();
    world.list("").await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_renamed_where_it_is_into_a_directory_that_only_others_have() {
    let world = World::new(|a, b, shelf| {
        put(a, "target/keep", "a");
        put(b, "from/file", "b");
        fs::set_permissions(a.path().join("target"), fs::Permissions::from_mode(0o750)).unwrap();
        shelf.place("remote/file", b"s");
    });
    let id = world.find("from/file").await.unwrap();
    world
        .rename("from/file", "target/moved", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.find("target/moved").await.unwrap(), id, "it is the same file");
    assert_eq!(fs::read(world.b.path().join("target/moved")).unwrap(), b"b");
    let made = fs::metadata(world.b.path().join("target")).unwrap();
    assert_eq!(made.mode() & 0o7777, 0o750, "as the one that is shown");
    world
        .rename("remote/file", "target/deeper", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.shelf.bytes("target/deeper"), Some(b"s".to_vec()));
    assert_eq!(world.list("target").await.unwrap(), ["deeper", "keep", "moved"]);
    assert!(matches!(world.find("from/file").await, Err(Error::NotFound)));
    let refused = world.rename("target/moved", "target/keep", RenameMode::NoReplace).await;
    assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_by_a_rename_is_gone_at_every_member() {
    let world = World::new(|a, b, shelf| {
        put(a, "config", "old");
        put(b, "config.lock", "new");
        shelf.place("config", b"older");
    });
    world
        .rename("config.lock", "config", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.read("config").await, b"new");
    assert_eq!(world.list("").await.unwrap(), ["config"]);
    assert!(!world.a.path().join("config").exists());
    world.shelf.until(|shelf| shelf.bytes("config").is_none()).await;
    // And back over it, from the first member: the copies of the others must not hide it, nor come to light when it goes.
    put(&world.a, "later", "latest");
    world.relist("a").await;
    world.rename("later", "config", RenameMode::Replace).await.unwrap();
    assert_eq!(world.read("config").await, b"latest");
    world.unlink("config").await.unwrap();
    assert_eq!(world.list("").await.unwrap(), [""; 0]);
}

/// `.new` at `a`, and `save` at the remote member, and at `a` too if so asked, where another has changed it since it was seen.
async fn another_has_changed_it(is_hidden: bool) -> World {
    let world = World::new(|a, _, shelf| {
        put(a, ".new", "new");
        shelf.place("save", b"known");
        if is_hidden {
            put(a, "save", "old");
        }
    });
    world.list("").await.unwrap();
    world.shelf.place("save", b"of another");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_changed_at_another_member_is_not_replaced_before_it_is_seen() {
    for is_hidden in [false, true] {
        let world = another_has_changed_it(is_hidden).await;
        let refused = world.rename(".new", "save", RenameMode::Replace).await;
        assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
        assert_eq!(world.shelf.bytes("save").unwrap(), b"of another");
        assert_eq!(world.read(".new").await, b"new");
        assert_eq!(world.a.path().join("save").exists(), is_hidden);
        if is_hidden {
            assert_eq!(world.read("save").await, b"old", "nothing was begun");
        }
        world.relist("s").await;
        if !is_hidden {
            assert_eq!(world.read("save").await, b"of another");
        }
        world.rename(".new", "save", RenameMode::Replace).await.unwrap();
        assert_eq!(world.read("save").await, b"new");
        world.shelf.until(|shelf| shelf.bytes("save").is_none()).await;
    }
}

/// `.new` at `a`, renamed to `save`, which the remote member has, and does not let go.
async fn replaced_and_held() -> World {
    let world = another_has_changed_it(false).await;
    world.relist("s").await;
    world.shelf.set_cue(Cue::HoldsNames);
    world.rename(".new", "save", RenameMode::Replace).await.unwrap();
    world.shelf.until_held_names(1).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_at_another_member_is_not_waited_for_and_goes_when_that_is_back() {
    for dies in [false, true] {
        let mut world = replaced_and_held().await;
        world.shelf.set_cue(Cue::IsAway);
        if dies {
            world = world.reopened().await;
        }
        assert_eq!(world.read("save").await, b"new");
        assert_eq!(world.list("").await.unwrap(), ["save"]);
        assert_eq!(world.shelf.bytes("save").unwrap(), b"of another");
        world.shelf.set_cue(Cue::Does);
        world.library.vfs.retry_uploads();
        world.shelf.until(|shelf| shelf.bytes("save").is_none()).await;
        world.relist("s").await;
        assert_eq!(world.read("save").await, b"new");
        world.unlink("save").await.unwrap();
        assert_eq!(world.list("").await.unwrap(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_changes_at_another_member_while_it_is_being_replaced_stays() {
    let world = replaced_and_held().await;
    world.shelf.place("save", b"faster");
    world.shelf.set_cue(Cue::Does);
    while !world.library.catalog.all_origins().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.shelf.bytes("save").unwrap(), b"faster");
    world.relist("s").await;
    assert_eq!(world.read("save").await, b"new", "of the first member");
    world.unlink("save").await.unwrap();
}

/// What stands here alone needs no source, and what has arrived of it unseen is found out.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_uploaded_at_another_member_is_replaced() {
    let world = with_first("s").await;
    for is_sent in [false, true] {
        world
            .shelf
            .set_cue(if is_sent { Cue::TakesAndGoes } else { Cue::IsAway });
        world.write("save", b"staged").await.unwrap();
        if is_sent {
            world.shelf.until(|shelf| shelf.bytes("save").is_some()).await;
        }
        put(&world.a, "new", "new");
        world.relist("a").await;
        world.rename("new", "save", RenameMode::Replace).await.unwrap();
        world.shelf.set_cue(Cue::Does);
        assert_eq!(world.read("save").await, b"new");
        world.until_uploaded().await;
        world.shelf.until(|shelf| shelf.bytes("save").is_none()).await;
        world.unlink("save").await.unwrap();
        while world.library.indexer.is_away(world.source("s")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_files_go_where_the_shown_one_goes() {
    let world = mixed();
    world
        .rename("both/twice", "both/away", RenameMode::Replace)
        .await
        .unwrap();
    assert!(matches!(world.find("both/twice").await, Err(Error::NotFound)));
    assert_eq!(fs::read(world.a.path().join("both/away")).unwrap(), b"first");
    assert_eq!(fs::read(world.b.path().join("both/away")).unwrap(), b"second");
    world.unlink("both/away").await.unwrap();
    assert!(!world.a.path().join("both/away").exists() && !world.b.path().join("both/away").exists());
    // What is of another kind stays, and shows.
    world.unlink("odd").await.unwrap();
    assert_eq!(world.list("odd").await.unwrap(), ["inside"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_renamed_at_every_member_that_has_it() {
    let world = mixed();
    let inside = world.find("both/deeper/x").await.unwrap();
    world.rename("both", "only-b/moved", RenameMode::Replace).await.unwrap();
    assert_eq!(
        world.list("only-b/moved").await.unwrap(),
        ["deeper", "from-a", "from-b", "from-s", "twice"]
    );
    assert_eq!(world.find("only-b/moved/deeper/x").await.unwrap(), inside);
    assert!(matches!(world.find("both").await, Err(Error::NotFound)));
    assert!(world.a.path().join("only-b/moved/from-a").exists() && world.b.path().join("only-b/moved/from-b").exists());
    assert_eq!(world.shelf.bytes("only-b/moved/from-s"), Some(b"s".to_vec()));
    // Over an empty one, which another member has.
    fs::create_dir(world.b.path().join("empty")).unwrap();
    world.relist("b").await;
    world
        .rename("only-b/moved/deeper", "empty", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.list("empty").await.unwrap(), ["x"]);
    let full = world.rename("empty", "only-b", RenameMode::Replace).await;
    assert!(matches!(full, Err(Error::NotEmpty)), "{full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_removed_if_no_member_has_anything_in_it() {
    let world = World::new(|a, b, shelf| {
        fs::create_dir(a.path().join("d")).unwrap();
        put(b, "d/f", "b");
        shelf.place("d/g", b"s");
    });
    assert!(matches!(world.rmdir("d").await, Err(Error::NotEmpty)));
    world.unlink("d/f").await.unwrap();
    assert!(matches!(world.rmdir("d").await, Err(Error::NotEmpty)));
    assert!(world.a.path().join("d").exists(), "nothing was begun");
    world.unlink("d/g").await.unwrap();
    world.rmdir("d").await.unwrap();
    assert!(!world.a.path().join("d").exists() && !world.b.path().join("d").exists());
    assert_eq!(world.list("").await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_member_cannot_be_changed_nothing_is() {
    let world = mixed();
    world.library.vfs.set_read_only(world.source("b"), true);
    let refused = [
        world.unlink("both/twice").await.unwrap_err(),
        world.rename("both/twice", "x", RenameMode::Replace).await.unwrap_err(),
        world.rename("both", "x", RenameMode::Replace).await.unwrap_err(),
        world
            .rename("both/from-a", "both/from-b", RenameMode::Replace)
            .await
            .unwrap_err(),
    ];
    assert!(
        refused.iter().all(|error| matches!(error, Error::ReadOnly)),
        "{refused:?}"
    );
    assert_eq!(world.read("both/twice").await, b"first");
    assert_eq!(world.read("both/from-b").await, b"b");
    assert!(world.a.path().join("both/from-a").exists() && world.shelf.bytes("both/from-s").is_some());
    // What others have alone, and what is new, is not its business.
    world
        .rename("both/from-a", "both/renamed", RenameMode::Replace)
        .await
        .unwrap();
    world.write("only-b/new", b"elsewhere").await.unwrap();
    assert_eq!(fs::read(world.a.path().join("only-b/new")).unwrap(), b"elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_member_is_known_to_be_away_nothing_is_done() {
    for first in ["a", "s"] {
        let world = World::new(|a, _, shelf| {
            put(a, "both", "old at a");
            put(a, "only-a", "only a");
            put(a, "d/x", "x");
            shelf.place("both", b"old at s");
            shelf.place_directory("d");
            shelf.place_directory("empty");
            fs::create_dir(a.path().join("empty")).unwrap();
        });
        let order = vec![first.as_bytes().into()];
        world.library.vfs.set_unions(vec![Union { order, ..union() }]).unwrap();
        world.list("").await.unwrap();
        world.list("empty").await.unwrap();
        world.shelf.set_cue(Cue::IsAway);
        while !world.library.indexer.is_away(world.source("s")) {
            world.library.indexer.probe(world.source("s")).await;
        }
        let refused = [
            world.rename("only-a", "both", RenameMode::Replace).await,
            world.rename("both", "renamed", RenameMode::Replace).await,
            world.rename("d", "e", RenameMode::Replace).await,
            world.rename("d", "empty", RenameMode::Replace).await,
            world.unlink("both").await,
            world.rmdir("empty").await,
        ];
        let is_away = |refused: &Result<(), Error>| matches!(refused, Err(Error::Unreachable(_)));
        assert!(refused.iter().all(is_away), "{refused:?}");
        for (path, bytes) in [("both", "old at a"), ("only-a", "only a"), ("d/x", "x")] {
            assert_eq!(
                fs::read_to_string(world.a.path().join(path)).unwrap(),
                bytes,
                "nothing was begun"
            );
        }
        assert!(world.a.path().join("empty").exists() && !world.a.path().join("renamed").exists());
        // It is asked whether it is back.
        world.shelf.set_cue(Cue::Does);
        while let Err(error) = world.rename("only-a", "both", RenameMode::Replace).await {
            assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.read("both").await, b"only a");
        world.shelf.until(|shelf| shelf.bytes("both").is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_a_merged_directory_are_set_at_every_member_that_can_be_changed() {
    let world = mixed();
    let id = world.find("both").await.unwrap();
    let vfs = &world.library.vfs;
    let change = AttributeChange {
        mode: Some(0o711),
        modified: Some(NewTime::At(1_000, 5)),
        ..AttributeChange::default()
    };
    let shown = vfs.set_attributes(id, None, change, ME).wait().await.unwrap();
    assert_eq!(
        (shown.id, shown.mode, shown.modified_ns),
        (id, 0o711, 1_000_000_000_005)
    );
    for folder in [&world.a, &world.b] {
        let there = fs::metadata(folder.path().join("both")).unwrap();
        assert_eq!(
            (there.mode() & 0o7777, there.mtime(), there.mtime_nsec()),
            (0o711, 1_000, 5)
        );
    }
    vfs.set_attribute(id, b"user.colour", b"blue", SetMode::Create)
        .wait()
        .await
        .unwrap();
    assert_eq!(vfs.attribute(id, b"user.colour").wait().await.unwrap(), b"blue");
    let again = vfs
        .set_attribute(id, b"user.colour", b"red", SetMode::Create)
        .wait()
        .await;
    assert!(matches!(again, Err(Error::Exists)), "{again:?}");
    vfs.remove_attribute(id, b"user.colour").wait().await.unwrap();
    assert!(matches!(
        vfs.attribute(id, b"user.colour").wait().await,
        Err(Error::NoData)
    ));
    // One that is only read has no say.
    vfs.set_read_only(world.source("a"), true);
    let change = AttributeChange {
        mode: Some(0o700),
        ..AttributeChange::default()
    };
    let shown = vfs.set_attributes(id, None, change, ME).wait().await.unwrap();
    assert_eq!(shown.mode, 0o700);
    assert_eq!(
        fs::metadata(world.a.path().join("both")).unwrap().mode() & 0o7777,
        0o711
    );
    vfs.sync_directory(id).wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_exchanged_where_the_same_members_have_both() {
    let world = World::new(|a, b, _| {
        put(a, "one", "1");
        put(a, "two", "2");
        put(b, "three", "3");
    });
    world.rename("one", "two", RenameMode::Exchange).await.unwrap();
    assert_eq!(
        (world.read("one").await, world.read("two").await),
        (b"2".to_vec(), b"1".to_vec())
    );
    let refused = world.rename("one", "three", RenameMode::Exchange).await;
    assert!(matches!(refused, Err(Error::InvalidArgument)), "{refused:?}");
    let missing = world.rename("one", "none", RenameMode::Exchange).await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_name_is_made_where_the_file_is() {
    let world = mixed();
    let id = world.find("only-b/deep/file").await.unwrap();
    let (directory, name) = world.place("both/linked").await;
    let made = world.library.vfs.make_link(id, directory, name).wait().await.unwrap();
    assert_eq!((made.id, made.links), (id, 2));
    let ino = |path: &str| fs::metadata(world.b.path().join(path)).unwrap().ino();
    assert_eq!(ino("both/linked"), ino("only-b/deep/file"));
    let (directory, name) = world.place("both/twice").await;
    let exists = world.library.vfs.make_link(id, directory, name).wait().await;
    assert!(matches!(exists, Err(Error::Exists)), "{exists:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_out_of_a_union_is_another_source() {
    let world = mixed();
    let outside = TempDir::new().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(outside.path()).unwrap());
    let source = world.library.catalog.add_source(manifold_catalog::NewSource {
        name: backend.name().to_owned(),
        attach: b"/outside".to_vec(),
        spec: String::new(),
        options: String::new(),
    });
    world.library.indexer.attach(source.unwrap().id, backend);
    let to = world.library.find("outside").await.unwrap();
    let from = world.place("both/from-a").await;
    let moved = world
        .library
        .vfs
        .rename(from, (to, b"x"), RenameMode::Replace)
        .wait()
        .await;
    assert!(matches!(moved, Err(Error::CrossSource)), "{moved:?}");
    let root = (EntryId::ROOT, b"u".as_slice());
    let moved = world
        .library
        .vfs
        .rename(root, (to, b"x"), RenameMode::Replace)
        .wait()
        .await;
    assert!(moved.is_err());
    let removed = world.library.vfs.remove_directory(root.0, root.1).wait().await;
    assert!(removed.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_is_not_told_of_its_own_changes() {
    let world = mixed();
    world.list("both").await.unwrap();
    world.list("only-b/deep").await.unwrap();
    let events = world.library.vfs.subscribe();
    // It makes `only-b/deep` on the first member, for which nothing of what the kernel knows is other than before.
    world.write("only-b/deep/new", b"new").await.unwrap();
    assert!(world.a.path().join("only-b/deep/new").exists());
    world
        .rename("both/from-b", "only-b/deep/b", RenameMode::Replace)
        .await
        .unwrap();
    world.rename("only-b", "renamed", RenameMode::Replace).await.unwrap();
    let told = world.told(&events);
    let names: Vec<_> = told
        .iter()
        .filter(|event| matches!(event, Event::Entry { .. }))
        .collect();
    assert_eq!(names, Vec::<&Event>::new());
}
