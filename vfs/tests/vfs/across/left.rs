//! What files are made of that stand elsewhere by now: what is left in their former places, and the few bytes that were written.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_in_a_folder_goes_under_no_name_of_its_own() {
    let world = World::new();
    world.library.find("d/sub/file").await.unwrap();
    world.t.set_cue(Cue::Holds);
    world.rename("d/sub/file", "t/file").await.unwrap();
    world.t.until_puts(1).await;
    let removed = world.remove("d/sub/file").await;
    assert!(matches!(removed, Err(Error::NotFound)), "{removed:?}");
    let renamed = world.rename("d/sub/file", "d/sub/other").await;
    assert!(matches!(renamed, Err(Error::NotFound)), "{renamed:?}");
    let moved = world.rename("d/sub/file", "x/other").await;
    assert!(matches!(moved, Err(Error::NotFound)), "{moved:?}");
    assert_eq!(fs::read(world.disk.path().join("sub/file")).unwrap(), pattern(200_000));
    assert_eq!(world.content("t/file").await, pattern(200_000));
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.t.bytes("file").unwrap(), pattern(200_000));
    assert!(!world.disk.path().join("sub/file").exists());
    assert_eq!(world.undone(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_bytes_go_along_with_what_shows_through_around_them() {
    for dies in [false, true] {
        let mut world = World::new();
        // Too long to be taken over whole when a part is written.
        let mut bytes = pattern(17 * MIB);
        world.x.place("long", &bytes);
        world.library.relist("x").await;
        let handle = world.open("x/long", Access::ReadWrite).await;
        world.x.set_cue(Cue::Holds);
        world.write(handle, 40_000, b"changed").await;
        world.close(handle).await;
        bytes[40_000..40_007].copy_from_slice(b"changed");
        world.t.set_cue(Cue::Holds);
        world.rename("x/long", "t/moved").await.unwrap();
        let begins_so = async |world: &World, bytes: &[u8]| {
            let read = world.content("t/moved").await;
            assert!(!read.is_empty() && bytes.starts_with(&read), "it dies: {dies}");
        };
        begins_so(&world, &bytes).await;
        if dies {
            world = world.die_and_come_back().await;
            begins_so(&world, &bytes).await;
        }
        // More, of which the next row tells; then so far into the file that the bytes go to a data file.
        for (at, more) in [(5, &b"again"[..]), (9 * MIB, b"and again")] {
            let handle = world.open("t/moved", Access::ReadWrite).await;
            world.write(handle, at, more).await;
            world.close(handle).await;
            bytes[at as usize..at as usize + more.len()].copy_from_slice(more);
            if dies {
                world = world.die_and_come_back().await;
            }
            begins_so(&world, &bytes).await;
        }
        world.x.set_cue(Cue::Does);
        world.t.set_cue(Cue::Does);
        world.until_settled().await;
        assert!(world.t.bytes("moved").unwrap() == bytes);
        assert_eq!(world.x.files(), ["b", "dir/a"]);
        assert_eq!(world.undone(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_of_a_few_bytes_moves_though_no_source_has_it() {
    let mut world = World::new();
    world.x.set_cue(Cue::Holds);
    world.t.set_cue(Cue::Holds);
    let handle = world.create("x/new").await.unwrap();
    world.write(handle, 0, b"a few bytes").await;
    world.close(handle).await;
    world.rename("x/new", "t/new").await.unwrap();
    world = world.die_and_come_back().await;
    assert_eq!(world.content("t/new").await, b"a few bytes");
    assert!(!world.is_there("x/new").await);
    world.x.set_cue(Cue::Does);
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.t.bytes("new").unwrap(), b"a few bytes");
    assert_eq!(world.x.files(), ["b", "dir/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_something_is_left_at_a_source_that_is_away_that_is_said() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    let dir = world.library.find("x/dir").await.unwrap();
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/a").await.unwrap();
    world.t.until_puts(1).await;
    world.x.set_cue(Cue::IsAway);
    let (source, _) = world.library.catalog.object_path(dir).unwrap().unwrap();
    while !world.library.indexer.is_away(source) {
        world.library.indexer.probe(source).await;
    }
    let refused = world.remove_directory("x/dir").await;
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
    world.x.set_cue(Cue::Does);
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    world.remove_directory("x/dir").await.unwrap();
    assert_eq!(world.t.bytes("a").unwrap(), pattern(300_000));
}
