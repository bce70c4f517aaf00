//! Places that a directory on the move has left, or is still in, while others are renamed to there.

use super::*;

/// Renames a directory while copies are held, which something is in the way of until they go on.
async fn is_renamed_when_copies_go_on(world: &World, from: &str, to: &str) {
    let refused = world.move_to(from, to).await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    let release = async {
        tokio::task::yield_now().await;
        world.shelf.set_cue(Cue::Does);
    };
    let (renamed, ()) = tokio::join!(world.move_to(from, to), release);
    renamed.unwrap();
}

/// Objects of the directory that was renamed, and those of one within it that still lay there, would else have been in one
/// place: a look at it after a crash took the ones for the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_not_renamed_to_where_one_within_it_still_lies() {
    let shelf = Shelf::store();
    for (path, bytes) in [("d/x/1", "one"), ("d/x/3", "three"), ("e/2", "two")] {
        shelf.place(path, bytes.as_bytes());
    }
    shelf.place_directory("d");
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/d/x/1", "s/e/2"] {
        world.library.find(path).await.unwrap();
    }
    world.shelf.set_cue(Cue::Holds);
    world.move_to("s/d/x", "s/e/y").await.unwrap();
    is_renamed_when_copies_go_on(&world, "s/e", "s/d/x").await;
    let world = world.die_and_come_back().await;
    world.until_settled().await;
    assert_eq!(world.shelf.files(), ["d/x/2", "d/x/y/1", "d/x/y/3"]);
    for path in ["s", "s/d", "s/d/x", "s/d/x/y"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s/d/x").await, ["2", "y"]);
    assert_eq!(world.names("s/d/x/y").await, ["1", "3"]);
    assert_eq!(world.read_path("s/d/x/2").await, b"two");
}

/// The same where it has been made the parent of the directory whose place it takes: a file of the one got in the way of the
/// other's of that name, and was kept beside it as in a conflict.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_does_not_take_the_place_of_one_that_was_renamed_into_it() {
    let shelf = Shelf::store();
    for (path, bytes) in [("d/1", "one"), ("d/2", "two"), ("d/x/3", "three"), ("e/2", "other two")] {
        shelf.place(path, bytes.as_bytes());
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/d/x/3", "s/e/2"] {
        world.library.find(path).await.unwrap();
    }
    world.shelf.set_cue(Cue::Holds);
    world.move_to("s/d", "s/e/x").await.unwrap();
    is_renamed_when_copies_go_on(&world, "s/e", "s/d").await;
    let world = world.die_and_come_back().await;
    world.until_settled().await;
    assert_eq!(world.shelf.files(), ["d/2", "d/x/1", "d/x/2", "d/x/x/3"]);
    for path in ["s", "s/d", "s/d/x", "s/d/x/x"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s").await, ["d"]);
    assert_eq!(world.read_path("s/d/2").await, b"other two");
    assert_eq!(world.read_path("s/d/x/2").await, b"two");
    assert_eq!(world.names("s/d/x/x").await, ["3"]);
    assert!(world.library.vfs.conflicts().is_empty());
}

/// The old place of the one holds that of the other, though it stands within it now: the outer one could not be cleared before
/// the inner one was, and showed again.
#[tokio::test(flavor = "multi_thread")]
async fn no_old_place_is_left_of_a_directory_that_was_renamed_into_one_that_it_held() {
    let shelf = Shelf::store();
    shelf.place("d/x/1", b"one");
    for directory in ["d", "d/x"] {
        shelf.place_directory(directory);
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/d/x/1").await.unwrap();
    world.shelf.set_cue(Cue::Holds);
    world.move_to("s/d/x", "s/e").await.unwrap();
    world.move_to("s/d", "s/e/x").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    for path in ["s", "s/e", "s/e/x"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s").await, ["e"]);
    assert_eq!(world.names("s/e").await, ["1", "x"]);
    assert!(!world.shelf.has_object("d"));
}

/// What is made there lies elsewhere at first, but follows to where objects of the directory that stood there may be.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_a_directory_on_the_way_stood_meanwhile() {
    let world = world();
    world.rename_and_hold().await;
    world.move_to("s/b/sub", "s/b/other").await.unwrap();
    world.move_to("s/b/other", "s/away").await.unwrap();
    let refused = world.make_directory("s/b/other").await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    world.shelf.set_cue(Cue::Does);
    world.make_directory("s/b/other").await.unwrap();
    world.until_settled().await;
    for path in ["s", "s/b", "s/b/other", "s/away"] {
        world.library.relist(path).await;
    }
    assert!(world.names("s/b/other").await.is_empty());
    assert_eq!(world.read_path("s/away/deep").await, b"deep");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_place_is_not_renamed_to() {
    let world = world();
    world.make_directory("s/empty").await.unwrap();
    world.make_directory("s/full").await.unwrap();
    world.shelf.place("full/of", b"something");
    world.shelf.place("unseen/of", b"something");
    world.names("s/a").await;
    for taken in ["s/full", "s/unseen"] {
        let refused = world.move_to("s/a", taken).await;
        assert!(matches!(refused, Err(Error::NotEmpty)), "{taken}: {refused:?}");
    }
    world.move_to("s/a", "s/empty").await.unwrap();
    world.until_settled().await;
    world.is_whole_at("s/empty").await;
}

/// Who has an empty directory marked at its source has read where it stands before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_not_marked_under_a_name_that_one_above_it_has_lost_meanwhile() {
    let shelf = Shelf::store();
    for path in ["a", "a/empty"] {
        shelf.place_directory(path);
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/a/empty").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until_held_names(1).await;
    let mut renaming = std::pin::pin!(world.move_to("s/b", "s/c"));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut renaming).await;
    assert!(early.is_err(), "it waits: {early:?}");
    world.shelf.set_cue(Cue::Does);
    renaming.await.unwrap();
    world.until_settled().await;
    for path in ["s", "s/c"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s").await, ["c"]);
    assert_eq!(world.names("s/c").await, ["empty"]);
}
