//! Where what is new is made.

use std::os::unix::fs::MetadataExt;

use manifold_vfs::{Making, PlaceRule};

use super::*;

async fn with(union: Union) -> World {
    let world = mixed();
    world.library.vfs.set_unions(vec![union]).unwrap();
    world.list("both").await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_goes_to_the_first_member_that_has_room() {
    let world = with(union()).await;
    world.write("both/new", b"1").await.unwrap();
    assert!(world.a.path().join("both/new").exists());
    // With a reserve that no disk has, only the one of which nothing is known is left.
    let world = with(Union {
        min_free: u64::MAX,
        ..union()
    })
    .await;
    world.write("only-b/deep/new", b"2").await.unwrap();
    world.make_directory("fresh").await.unwrap();
    world.until_uploaded().await;
    assert_eq!(world.shelf.bytes("only-b/deep/new"), Some(b"2".to_vec()));
    assert!(!world.a.path().join("fresh").exists() && !world.b.path().join("fresh").exists());
    assert_eq!(world.list("").await.unwrap(), ["both", "fresh", "odd", "only-b"]);
    // And without that one, there is no room.
    world.library.vfs.set_read_only(world.source("s"), true);
    assert!(matches!(world.write("both/more", b"3").await, Err(Error::Full)));
    assert!(matches!(world.find("both/more").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_the_members_is_that_of_the_settings() {
    let world = with(Union {
        order: vec![b"s".as_slice().into(), b"b".as_slice().into()],
        ..union()
    })
    .await;
    assert_eq!(world.read("both/twice").await, b"second");
    world.write("both/new", b"1").await.unwrap();
    world.until_uploaded().await;
    assert_eq!(world.shelf.bytes("both/new"), Some(b"1".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_with_room_the_one_with_the_most_is_taken_and_the_unknown_last() {
    // Both folders lie on one file system, so that the first of equals is taken, and the remote one never.
    let world = with(Union {
        order: vec![b"s".as_slice().into()],
        place: Placement::MostFree,
        ..union()
    })
    .await;
    world.write("both/new", b"1").await.unwrap();
    assert_eq!(world.shelf.files(), ["both/deeper/x", "both/from-s"]);
    assert!(world.a.path().join("both/new").exists() || world.b.path().join("both/new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_go_before_the_policy_and_make_the_directories_that_are_missing() {
    let rule = |pattern: &str, member: &str| PlaceRule::new(pattern.as_bytes(), member.as_bytes()).unwrap();
    let world = with(Union {
        rules: vec![
            rule("*.raw", "b"),
            rule("both/deeper/**", "a"),
            rule("*.gone", "nobody"),
        ],
        ..union()
    })
    .await;
    let before = world.attributes("both").await;
    world.write("both/deeper/image.raw", b"raw").await.unwrap();
    world.write("both/deeper/other", b"other").await.unwrap();
    world.write("both/some.gone", b"x").await.unwrap();
    assert_eq!(fs::read(world.b.path().join("both/deeper/image.raw")).unwrap(), b"raw");
    assert_eq!(fs::read(world.a.path().join("both/deeper/other")).unwrap(), b"other");
    assert!(
        world.a.path().join("both/some.gone").exists(),
        "a rule for nobody leaves it to the policy"
    );
    assert_eq!(world.list("both/deeper").await.unwrap(), ["image.raw", "other", "x"]);
    let there = fs::metadata(world.b.path().join("both")).unwrap();
    let modified_ns = there.mtime() * 1_000_000_000 + there.mtime_nsec();
    assert_eq!(
        modified_ns, before.modified_ns,
        "a directory that was shown already is no change"
    );
    assert!(PlaceRule::new(b"[", b"a").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_cannot_hold_goes_to_the_next() {
    let world = with(Union {
        order: vec![b"s".as_slice().into()],
        ..union()
    })
    .await;
    let (directory, name) = world.place("both/link").await;
    let vfs = &world.library.vfs;
    let link = vfs.make_symlink(directory, name, b"target", ME).wait().await.unwrap();
    assert_eq!(link.kind, Kind::Symlink);
    assert_eq!(
        fs::read_link(world.a.path().join("both/link")).unwrap().as_os_str(),
        "target"
    );
    vfs.make_node(directory, b"pipe", Making::Fifo, 0o600, ME)
        .wait()
        .await
        .unwrap();
    assert!(world.a.path().join("both/pipe").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_there_is_not_made_a_second_time() {
    let world = with(union()).await;
    let exists = [
        world.write("both/from-s", b"x").await.unwrap_err(),
        world.make_directory("both/from-b").await.unwrap_err(),
        world.make_directory("only-b").await.unwrap_err(),
    ];
    assert!(exists.iter().all(|error| matches!(error, Error::Exists)), "{exists:?}");
    // What is not exclusive opens the one that is shown.
    let (directory, name) = world.place("both/from-b").await;
    let creation = Creation {
        exclusive: false,
        ..NEW
    };
    let vfs = &world.library.vfs;
    let opened = vfs.create(directory, name, creation, ME).wait().await.unwrap();
    assert_eq!(opened.attributes.id, world.find("both/from-b").await.unwrap());
    vfs.release(opened.opened.handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_union_is_that_of_its_members_together() {
    let world = mixed();
    let disk = rustix::fs::statvfs(world.a.path()).unwrap();
    let room = |id| world.library.vfs.statfs(id).unwrap().room.unwrap();
    for path in ["", "both", "both/from-s"] {
        let room = room(world.find(path).await.unwrap());
        // Two of them are folders of one disk, and the third has room for a pebibyte, as far as anybody knows, and next to nothing in it.
        let expected = disk.f_blocks * disk.f_frsize + (1 << 50);
        assert_eq!(room.bytes >> 20, expected >> 20, "{path}");
    }
    // Where sources are attached nothing can be made, but the room is theirs.
    let all = room(EntryId::ROOT);
    assert!(all.free > 0 && all.bytes > all.free, "{all:?}");
}
