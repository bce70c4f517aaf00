//! Copies that were made in the new place of a directory, and that nobody has taken note of: their answers were lost, or the
//! file was written to while it was copied.

use super::*;

/// A world in which `s/b/00` has been copied to its new place without an answer, and lies in the old one for us.
async fn with_an_unnoted_copy() -> World {
    let shelf = Shelf::store();
    shelf.place("a/00", &content(0));
    let world = World::over(shelf, TempDir::new().unwrap());
    world.names("s/a").await;
    world.shelf.set_cue(Cue::LosesAnswers);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until(|shelf| shelf.bytes("b/00").is_some()).await;
    // What is done next comes before the copy is found by the move itself.
    world.shelf.set_cue(Cue::IsAway);
    let world = world.die_and_come_back().await;
    assert_eq!(world.shelf.files(), ["a/00", "b/00"]);
    world
}

impl World {
    async fn write_over(&self, path: &str, bytes: &[u8]) {
        let handle = self.open(path, Access::ReadWrite).await;
        self.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
        self.close(handle).await.unwrap();
    }

    /// Does something once the source is known to answer again.
    async fn once_there<F: Future<Output = Result<(), Error>>>(&self, change: impl Fn() -> F) {
        self.shelf.set_cue(Cue::Does);
        loop {
            match change().await {
                Err(Error::Unreachable(_) | Error::TimedOut(_)) => tokio::task::yield_now().await,
                done => return done.unwrap(),
            }
        }
    }

    async fn ends_with(&self, files: &[(&str, &[u8])]) {
        self.shelf.set_cue(Cue::Does);
        self.library.vfs.retry_uploads();
        self.until_settled().await;
        let there = self.shelf.files();
        assert_eq!(there, files.iter().map(|(path, _)| *path).collect::<Vec<_>>());
        for (path, bytes) in files {
            assert_eq!(self.shelf.bytes(path).unwrap(), *bytes, "{path}");
        }
        assert!(self.library.vfs.conflicts().is_empty(), "nobody else has written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_after_its_copy_was_not_answered_is_no_conflict_with_it() {
    let world = with_an_unnoted_copy().await;
    let bytes = pattern(2_000, 7);
    world.write_over("s/b/00", &bytes).await;
    world.ends_with(&[("b/00", &bytes)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_after_its_copy_was_not_answered_does_not_come_back() {
    let world = with_an_unnoted_copy().await;
    world.once_there(|| world.remove("s/b/00")).await;
    world.ends_with(&[]).await;
    world.library.relist("s/b").await;
    assert!(world.names("s/b").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_after_its_copy_was_not_answered_is_in_one_place() {
    let world = with_an_unnoted_copy().await;
    world.once_there(|| world.move_to("s/b/00", "s/out")).await;
    world.ends_with(&[("out", &content(0))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_what_was_written_to_meanwhile_is_no_conflict_though_it_cannot_be_undone_at_once() {
    let shelf = Shelf::store();
    shelf.place("a/00", &content(0));
    let world = World::over(shelf, TempDir::new().unwrap());
    world.names("s/a").await;
    world.shelf.set_cue(Cue::Holds);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until_copies(1).await;
    let bytes = pattern(2_000, 7);
    world.write_over("s/b/00", &bytes).await;
    world.shelf.set_cue(Cue::RemovesNothing);
    world.shelf.until_refused_removals(1).await;
    world.ends_with(&[("b/00", &bytes)]).await;
}

/// What another has put there is not taken for ours, whatever is done with the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_puts_where_a_copy_was_to_be_stays() {
    let world = with_an_unnoted_copy().await;
    world.shelf.place("b/00", b"of another");
    world.once_there(|| world.remove("s/b/00")).await;
    world.ends_with(&[("b/00", b"of another")]).await;
    world.library.relist("s/b").await;
    assert_eq!(world.read_path("s/b/00").await, b"of another");
}

/// A world in which `renames` were made one after the other, and the only file has been copied to where it stood after the first of them,
/// without an answer.
async fn with_a_copy_on_the_way(file: &str, copy: &str, renames: &[(&str, &str)]) -> World {
    let shelf = Shelf::store();
    shelf.place(file, &content(0));
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find(&format!("s/{file}")).await.unwrap();
    world.shelf.set_cue(Cue::Holds);
    for (from, to) in renames {
        world.move_to(from, to).await.unwrap();
        world.shelf.until_copies(1).await;
    }
    world.shelf.set_cue(Cue::TakesAndGoes);
    world.shelf.until(|shelf| shelf.bytes(copy).is_some()).await;
    let world = world.die_and_come_back().await;
    let mut there = world.shelf.files();
    there.sort_unstable_by_key(|path| path != file);
    assert_eq!(there, [file, copy]);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_stays_where_a_directory_has_been_on_its_way() {
    let world = with_a_copy_on_the_way("a/00", "b/00", &[("s/a", "s/b"), ("s/b", "s/c")]).await;
    world.ends_with(&[("c/00", &content(0))]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_stays_where_a_directory_has_been_that_came_back() {
    let world = with_a_copy_on_the_way("a/00", "b/00", &[("s/a", "s/b"), ("s/b", "s/a")]).await;
    world.ends_with(&[("a/00", &content(0))]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_stays_where_a_directory_has_been_when_one_above_was_renamed() {
    let renames = [("s/a/sub", "s/a/c"), ("s/a", "s/b")];
    let world = with_a_copy_on_the_way("a/sub/00", "a/c/00", &renames).await;
    world.ends_with(&[("b/c/00", &content(0))]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_puts_where_a_directory_has_been_on_its_way_stays() {
    let world = with_a_copy_on_the_way("a/00", "b/00", &[("s/a", "s/b"), ("s/b", "s/c")]).await;
    let other = pattern(1_000, 9);
    world.shelf.place("b/00", &other);
    world.shelf.place("b/01", &content(0));
    world
        .ends_with(&[("b/00", &other), ("b/01", &content(0)), ("c/00", &content(0))])
        .await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["b", "c"]);
}

/// Where its place was taken, a file is kept under another name.
#[tokio::test(flavor = "multi_thread")]
async fn no_copy_stays_on_the_way_of_a_file_that_had_to_make_way() {
    let world = with_a_copy_on_the_way("a/00", "b/00", &[("s/a", "s/b"), ("s/b", "s/c")]).await;
    world.shelf.place("c/00", b"of another");
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    let [conflict] = &world.library.vfs.conflicts()[..] else {
        panic!("{:?}", world.library.vfs.conflicts());
    };
    let kept_as = format!("c/{}", String::from_utf8_lossy(&conflict.kept_as));
    let mut files = ["c/00".to_owned(), kept_as.clone()];
    files.sort_unstable();
    assert_eq!(world.shelf.files(), files);
    assert_eq!(world.shelf.bytes(&kept_as).unwrap(), content(0));
    assert_eq!(world.shelf.bytes("c/00").unwrap(), b"of another");
}

/// Both directories get objects of their own there, and are renamed before the former ones have gone.
#[tokio::test(flavor = "multi_thread")]
async fn no_directory_stays_where_one_has_been_on_its_way() {
    let shelf = Shelf::store();
    for directory in ["a", "a/sub"] {
        shelf.place_directory(directory);
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/a/sub").await.unwrap();
    world.names("s/a/sub").await;
    world.shelf.set_cue(Cue::RemovesNothing);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until_refused_removals(1).await;
    assert!(world.shelf.has_object("b/sub"));
    world.once_there(|| world.move_to("s/b", "s/c")).await;
    world.ends_with(&[]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["c"]);
    assert!(world.shelf.has_object("c/sub"));
    for left in ["a", "a/sub", "b", "b/sub"] {
        assert!(!world.shelf.has_object(left), "{left}");
    }
}

/// Directories that were kept by objects of their own where they stood for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn no_directory_stays_where_one_above_it_has_been_on_its_way() {
    let renames = [("s/a/sub", "s/a/c"), ("s/a", "s/b"), ("s/b", "s/d")];
    let world = with_a_copy_on_the_way("a/sub/00", "a/c/00", &renames).await;
    for marked in ["a/c", "b", "b/c"] {
        world.shelf.place_directory(marked);
    }
    world.ends_with(&[("d/c/00", &content(0))]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["d"]);
}

/// It stood there with the directory above it, and has left that since.
#[tokio::test(flavor = "multi_thread")]
async fn no_copy_stays_where_a_directory_has_been_with_the_one_above_it() {
    let renames = [("s/a", "s/b"), ("s/b", "s/c"), ("s/c/sub", "s/c/t")];
    let world = with_a_copy_on_the_way("a/sub/00", "b/sub/00", &renames).await;
    world.ends_with(&[("c/t/00", &content(0))]).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["c"]);
}

/// What has the name and the bytes of a file in another directory is no copy of that, and an empty directory of somebody's is theirs.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_puts_into_other_directories_of_a_place_on_the_way_stays() {
    let world = with_a_copy_on_the_way("a/00", "b/00", &[("s/a", "s/b"), ("s/b", "s/c")]).await;
    world.shelf.place("b/other/00", &content(0));
    world.shelf.place_directory("b/empty");
    world
        .ends_with(&[("b/other/00", &content(0)), ("c/00", &content(0))])
        .await;
    world.library.relist("s").await;
    world.library.relist("s/b").await;
    assert_eq!(world.names("s/b").await, ["empty", "other"]);
}

/// Undone and done again, so that it has come to stand where it has been on its way.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_puts_where_a_directory_stands_again_stays() {
    let renames = [("s/a", "s/b"), ("s/b", "s/a"), ("s/a", "s/b")];
    let world = with_a_copy_on_the_way("a/00", "b/00", &renames).await;
    world.shelf.place("b/sub/00", &content(0));
    world
        .ends_with(&[("b/00", &content(0)), ("b/sub/00", &content(0))])
        .await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["b"]);
}
