//! Directories on the move that have left one another.

use std::time::Duration;

use super::*;

/// The innermost had left one that was to end after it, and had come back beneath one that was to end after that.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_have_left_one_another_do_not_wait_for_one_another() {
    let shelf = Shelf::store();
    for path in ["a/1", "a/b/2", "a/b/c/3", "t/4"] {
        shelf.place(path, path.as_bytes());
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/a", "s/a/b", "s/a/b/c", "s/t"] {
        world.names(path).await;
    }
    world.shelf.set_cue(Cue::Holds);
    world.move_to("s/a", "s/t/a1").await.unwrap();
    world.move_to("s/t/a1/b", "s/t/b1").await.unwrap();
    world.move_to("s/t/b1/c", "s/t/a1/c").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    let settled = tokio::time::timeout(Duration::from_secs(30), world.until_settled());
    settled.await.expect("the moves end");
    let mut files = world.shelf.files();
    files.sort_unstable();
    assert_eq!(files, ["t/4", "t/a1/1", "t/a1/c/3", "t/b1/2"]);
}
