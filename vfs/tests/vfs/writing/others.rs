//! Renames where another has made or changed what has the new name, and nobody has seen that yet: it is not replaced.

use manifold_vfs::UploadReport;

use super::*;

const OTHER: &[u8] = b"of another";

/// `s` with the files `from` and `over`, and what another then puts under a name that nobody looks at since.
async fn another_puts(name: &str) -> World {
    let world = World::new();
    world.shelf.place("from", b"from");
    world.shelf.place("over", b"over");
    for path in ["s/from", "s/over"] {
        world.library.find(path).await.unwrap();
    }
    world.shelf.place(name, OTHER);
    world
}

/// `new`, whose upload has arrived unseen, while the source is away; and the name of a file that is at the source, or only here.
async fn sent_unseen(is_staged: bool) -> (World, &'static str) {
    let world = another_puts("elsewhere").await;
    world.shelf.set_cue(Cue::TakesAndGoes);
    world.save("new", b"of ours").await;
    world.uploaded("new", b"of ours").await;
    if !is_staged {
        return (world, "from");
    }
    world.save("staged", b"staged").await;
    (world, "staged")
}

impl World {
    /// Waits until it is known that the source is there again.
    async fn until_reached(&self) {
        while let Err(error) = self.rename("over", "renamed").await {
            assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Renames `from` to a name, which is refused until what stands there was seen.
    async fn is_busy_until_seen(&self, name: &str) {
        let to = format!("s/{name}");
        let refused = self.rename("from", name).await;
        assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
        assert_eq!(self.shelf.bytes(name).unwrap(), OTHER);
        assert_eq!(self.shelf.bytes("from").unwrap(), b"from");
        self.library.relist("s").await;
        assert_eq!(self.read_path(&to).await, OTHER);
        self.rename("from", name).await.unwrap();
        assert_eq!(self.shelf.bytes(name).unwrap(), b"from");
        assert_eq!(self.read_path(&to).await, b"from");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_made_under_the_new_name_is_not_replaced() {
    another_puts("new").await.is_busy_until_seen("new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_changed_under_the_new_name_is_not_replaced() {
    another_puts("over").await.is_busy_until_seen("over").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_made_is_there_already_for_a_rename_to_a_new_name_alone() {
    let world = another_puts("new").await;
    let (root, vfs) = (world.root().await, &world.library.vfs);
    let renamed = vfs.rename((root, b"from"), (root, b"new"), RenameMode::NoReplace);
    let refused = renamed.wait().await;
    assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
    assert_eq!(world.shelf.bytes("new").unwrap(), OTHER);
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["from", "new", "over"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_removed_is_not_missed() {
    let world = another_puts("over").await;
    world.shelf.take("over");
    world.rename("from", "over").await.unwrap();
    assert_eq!(world.shelf.files(), ["over"]);
    assert_eq!(world.read_path("s/over").await, b"from");
}

/// Of a file whose upload may have arrived, and where another has put something since. From is at the source, or only here.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_put_where_an_upload_was_not_confirmed_is_not_replaced() {
    for is_staged in [false, true] {
        let (world, from) = sent_unseen(is_staged).await;
        // What was sent is not sent again, as long as nobody asks for that.
        world.library.vfs.stop_uploads().await;
        world.shelf.place("new", OTHER);
        world.shelf.set_cue(Cue::Does);
        world.until_reached().await;
        let refused = world.rename(from, "new").await;
        assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
        assert_eq!(world.shelf.bytes("new").unwrap(), OTHER);
        assert_eq!(world.read_path("s/new").await, b"of ours");
        assert_eq!(world.read_path(&format!("s/{from}")).await, from.as_bytes());
    }
}

/// What was sent is known again, and replaced.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_unseen_is_replaced_by_a_rename() {
    for is_staged in [false, true] {
        let (world, from) = sent_unseen(is_staged).await;
        world.shelf.set_cue(Cue::Does);
        world.until_reached().await;
        world.rename(from, "new").await.unwrap();
        world.uploaded("new", from.as_bytes()).await;
        world.until_quiet().await;
        assert_eq!(world.read_path("s/new").await, from.as_bytes());
    }
}

/// Of a file that somebody is writing to: what he saves has the name again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_file_that_another_removes_meanwhile_is_not_lost() {
    for removed_at in 0..4 {
        let world = another_puts("elsewhere").await;
        let removed = async |at: u32| {
            if at == removed_at {
                world.shelf.take("over");
                world.library.relist("s").await;
            }
        };
        let id = world.library.find("s/over").await.unwrap();
        let handle = world.open("s/over", Access::ReadWrite).await;
        removed(0).await;
        let written = world.write(handle, WriteAt::Offset(0), b"saved here").await;
        if removed_at == 0 {
            // Nothing of it can be had any more that was not written.
            assert!(matches!(written, Err(Error::Stale)), "{written:?}");
            continue;
        }
        written.unwrap();
        removed(1).await;
        world.library.vfs.sync(id, handle, true).wait().await.unwrap();
        removed(2).await;
        world.write(handle, WriteAt::Offset(0), b"SAVED").await.unwrap();
        removed(3).await;
        world.close(handle).await.unwrap();
        assert_eq!(
            world.read_path("s/over").await,
            b"SAVED here",
            "removed at {removed_at}"
        );
        world.uploaded("over", b"SAVED here").await;
        world.until_quiet().await;
        world.library.relist("s").await;
        assert_eq!(world.read_path("s/over").await, b"SAVED here");
    }
}

/// It is not shown, and would keep the directory for good.
#[tokio::test(flavor = "multi_thread")]
async fn what_uploads_have_left_goes_with_a_directory_in_which_nothing_else_is() {
    const LEFT: &str = ".manifold-0123456789abcdef0123456789abcdef";
    for shelf in [Shelf::new(), Shelf::store()] {
        for directory in ["d", "e"] {
            shelf.place(&format!("{directory}/{LEFT}"), b"a part");
        }
        shelf.place("e/file", b"file");
        let world = World::over(shelf, TempDir::new().unwrap());
        let root = world.root().await;
        for path in ["s/d", "s/e"] {
            world.library.relist(path).await;
        }
        assert!(world.names("s/d").await.is_empty());
        assert_eq!(world.names("s/e").await, ["file"]);
        let remove = |name: &'static [u8]| world.library.vfs.remove_directory(root, name).wait();
        remove(b"d").await.unwrap();
        let refused = remove(b"e").await;
        assert!(matches!(refused, Err(Error::NotEmpty)), "{refused:?}");
        assert_eq!(world.shelf.files(), [format!("e/{LEFT}"), "e/file".to_owned()]);
        world.library.relist("s").await;
        assert_eq!(world.names("s").await, ["e"]);
    }
}

/// It does not keep another directory from the name either.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_takes_the_name_of_one_that_holds_nothing_but_what_uploads_have_left() {
    const LEFT: &str = ".manifold-0123456789abcdef0123456789abcdef";
    let left = format!("e/{LEFT}");
    for (shelf, stays) in [(Shelf::new(), &[][..]), (Shelf::store(), &[&*left])] {
        shelf.place("d/file", b"file");
        shelf.place(&left, b"a part");
        let world = World::over(shelf, TempDir::new().unwrap());
        for path in ["s/d", "s/e"] {
            world.library.relist(path).await;
        }
        assert!(world.names("s/e").await.is_empty());
        let root = world.root().await;
        let vfs = &world.library.vfs;
        let renamed = vfs.rename((root, b"d"), (root, b"e"), RenameMode::Replace);
        renamed.wait().await.unwrap();
        world
            .shelf
            .until(|shelf| shelf.files() == [stays, &["e/file"]].concat())
            .await;
        world.library.relist("s").await;
        assert_eq!(world.names("s").await, ["e"]);
    }
}

/// Another machine may be uploading into it at this moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_uploads_have_in_a_directory_that_is_not_known_yet_stays() {
    const LEFT: &str = "e/.manifold-0123456789abcdef0123456789abcdef";
    let world = World::new();
    world.shelf.place("d/file", b"file");
    world.library.relist("s").await;
    world.library.find("s/d/file").await.unwrap();
    world.shelf.place(LEFT, b"a part");
    let refused = world.rename("d", "e").await;
    assert!(matches!(refused, Err(Error::NotEmpty)), "{refused:?}");
    assert_eq!(world.shelf.files(), ["d/file", LEFT]);
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["d", "e"]);
}

/// Above the directory that is missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_says_that_something_else_than_a_folder_is_on_its_way() {
    let world = World::new();
    world.shelf.place("r/s/t/f", b"before");
    let f = world.open("s/r/s/t/f", Access::ReadWrite).await;
    world.shelf.set_cue(Cue::IsAway);
    world.write(f, WriteAt::Offset(0), b"AFTER!").await.unwrap();
    world.close(f).await.unwrap();
    for path in ["r/s/t/f", "r/s/t", "r/s"] {
        world.shelf.take(path);
    }
    world.shelf.place("r/s", b"of another");
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    let is_refused = |upload: &UploadReport| match &upload.state {
        UploadState::Refused { remedy, .. } => remedy.contains("something else than a folder"),
        _ => false,
    };
    let refused = world.until(|library| library.vfs.uploads().iter().any(is_refused));
    tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert_eq!(world.shelf.bytes("r/s").unwrap(), b"of another");
}
