//! Files renamed over others while either is staged, and what is there when the daemon dies in the midst of it: what was before, or
//! what is to be after.

use manifold_vfs::{Making, Opened};
use tokio::time::timeout;

use super::*;

/// What the source has of both at first.
const LONG: u64 = 200_000;

/// `s` with the files `from` and `over`, of which nothing is uploaded from now on.
async fn world() -> World {
    let shelf = Shelf::new();
    shelf.place("from", &pattern(LONG, 1));
    shelf.place("over", &pattern(LONG, 2));
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/from", "s/over"] {
        world.library.find(path).await.unwrap();
    }
    world
}

impl World {
    /// Writes a little into a file, closes it, and gives its bytes.
    async fn write_into(&self, path: &str, seed: u64, bytes: &[u8]) -> Vec<u8> {
        let handle = self.open(path, Access::ReadWrite).await;
        self.write(handle, WriteAt::Offset(70_000), bytes).await.unwrap();
        self.close(handle).await.unwrap();
        let mut whole = pattern(LONG, seed);
        whole[70_000..][..bytes.len()].copy_from_slice(bytes);
        whole
    }

    /// Saves a file that is there, from its first byte to its last.
    async fn save_over(&self, path: &str, bytes: &[u8]) {
        let id = self.library.find(path).await.unwrap();
        let emptied = AttributeChange {
            size: Some(0),
            ..AttributeChange::default()
        };
        let emptied = self.library.vfs.set_attributes(id, None, emptied, ME);
        emptied.wait().await.unwrap();
        let handle = self.open(path, Access::ReadWrite).await;
        self.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
        self.close(handle).await.unwrap();
    }

    async fn has(&self, files: &[(&str, &[u8])]) {
        self.until_quiet().await;
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(self.shelf.files(), names);
        self.library.relist("s").await;
        let root = self.root().await;
        let shown = self.library.catalog.children(root, None, usize::MAX).unwrap();
        let shown: Vec<_> = shown
            .iter()
            .map(|child| String::from_utf8_lossy(&child.name).into_owned())
            .collect();
        assert_eq!(shown, names);
        for (name, bytes) in files {
            assert!(
                self.shelf.bytes(name).as_deref() == Some(*bytes),
                "{name} at the source"
            );
            assert!(self.read_path(&format!("s/{name}")).await == *bytes, "{name}");
        }
        assert!(self.library.vfs.conflicts().is_empty());
        self.library.catalog.examine().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_the_source_has_made_is_followed_after_the_daemon_has_died_before_it_knew() {
    for over_is_staged in [false, true] {
        let world = world().await;
        world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
        let bytes = world.write_into("s/from", 1, b"changed").await;
        if over_is_staged {
            world.write_into("s/over", 2, b"changed, too").await;
        }
        world.shelf.set_cue(Cue::LosesRenames);
        let unknown = world.rename("from", "over").await;
        assert!(matches!(unknown, Err(Error::TimedOut(_))), "{unknown:?}");
        let world = world.die_and_come_back().await;
        world.shelf.set_cue(Cue::Does);
        world.has(&[("over", &bytes)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_whose_answer_was_lost_is_followed_by_the_next_upload() {
    let world = world().await;
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    let bytes = world.write_into("s/from", 1, b"changed").await;
    world.write_into("s/over", 2, b"changed, too").await;
    let reader = world.open("s/over", Access::Read).await;
    world.shelf.set_cue(Cue::LosesRenames);
    world.rename("from", "over").await.unwrap_err();
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.has(&[("over", &bytes)]).await;
    world.library.vfs.release(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_an_unknown_rename_stays_where_it_was_written() {
    for whole in [false, true] {
        let world = world().await;
        world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
        world.write_into("s/from", 1, b"changed").await;
        world.shelf.set_cue(Cue::LosesRenames);
        world.rename("from", "over").await.unwrap_err();
        world.shelf.set_cue(Cue::IsAway);
        let world = world.die_and_come_back().await;
        let bytes = if whole {
            world.save_over("s/from", b"all new").await;
            b"all new".to_vec()
        } else {
            world.write_into("s/from", 1, b"anew...").await
        };
        let world = world.die_and_come_back().await;
        world.shelf.set_cue(Cue::Does);
        world.has(&[("from", &bytes), ("over", &pattern(LONG, 1))]).await;
    }
}

/// `from` with bytes of which nothing is uploaded, renamed over `over` with no answer; and what comes of opening one of them to be written to.
async fn opened_after_an_unknown_rename(path: &str, is_away: bool) -> (World, Vec<u8>, Result<Opened, Error>) {
    let world = world().await;
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    let changed = world.write_into("s/from", 1, b"changed").await;
    world.shelf.set_cue(Cue::LosesRenames);
    world.rename("from", "over").await.unwrap_err();
    let id = world.library.find(path).await.unwrap();
    world.shelf.set_cue(if is_away { Cue::IsAway } else { Cue::Does });
    let opened = world.library.vfs.open(id, Access::ReadWrite).wait().await;
    (world, changed, opened)
}

/// Of a file that is opened to be written to before it is known what became of its rename.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_opened_after_an_unknown_rename_has_the_name_by_which_it_was_opened() {
    for is_away in [false, true] {
        let (world, changed, opened) = opened_after_an_unknown_rename("s/from", is_away).await;
        if !is_away {
            // It is looked up again, and is not there.
            assert!(matches!(opened, Err(Error::Stale)), "{opened:?}");
            assert!(matches!(world.library.find("s/from").await, Err(Error::NotFound)));
            world.save("from", b"all new").await;
            world.has(&[("from", b"all new"), ("over", &changed)]).await;
            continue;
        }
        world.shelf.set_cue(Cue::Does);
        world.library.vfs.retry_uploads();
        world.until_quiet().await;
        let handle = opened.unwrap().handle;
        world.write(handle, WriteAt::Offset(1), b"ANEW").await.unwrap();
        world.close(handle).await.unwrap();
        let mut bytes = changed;
        bytes[1..5].copy_from_slice(b"ANEW");
        world.has(&[("from", &*bytes), ("over", &*pattern(LONG, 1))]).await;
    }
}

/// The same of what the rename may have replaced.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_opened_where_an_unknown_rename_leads_is_not_written_to_in_vain() {
    for is_away in [false, true] {
        let (world, changed, opened) = opened_after_an_unknown_rename("s/over", is_away).await;
        if !is_away {
            assert!(matches!(opened, Err(Error::Stale)), "{opened:?}");
            world.has(&[("over", &changed)]).await;
            continue;
        }
        world.shelf.set_cue(Cue::Does);
        world.library.vfs.retry_uploads();
        world.has(&[("from", &changed), ("over", &pattern(LONG, 1))]).await;
        // Its source has replaced what was opened.
        let handle = opened.unwrap().handle;
        let written = world.write(handle, WriteAt::Offset(0), b"saved").await;
        assert!(matches!(written, Err(Error::Stale)), "{written:?}");
        world.library.vfs.release(handle);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_under_the_new_name_after_an_unknown_rename_is_not_replaced_by_it() {
    for over_is_staged in [false, true] {
        let world = world().await;
        world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
        let from = world.write_into("s/from", 1, b"changed").await;
        if over_is_staged {
            world.write_into("s/over", 2, b"changed, too").await;
        }
        world.shelf.set_cue(Cue::LosesRenames);
        world.rename("from", "over").await.unwrap_err();
        world.shelf.set_cue(Cue::IsAway);
        world.save_over("s/over", b"saved").await;
        let world = world.die_and_come_back().await;
        world.shelf.set_cue(Cue::Does);
        world.until_quiet().await;
        assert!(world.read_path("s/from").await == from);
        let files = world.shelf.files();
        let saved = files
            .iter()
            .find(|name| world.shelf.bytes(name).as_deref() == Some(b"saved"));
        assert!(saved.is_some_and(|name| name.starts_with("over")), "{files:?}");
        assert_eq!(files.len(), 3, "what the source has renamed is kept too: {files:?}");
        world.library.catalog.examine().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_the_source_has_not_made_is_forgotten_after_the_daemon_has_died() {
    let world = world().await;
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    let from = world.write_into("s/from", 1, b"changed").await;
    let over = world.write_into("s/over", 2, b"changed, too").await;
    world.rename("from", "over").await.unwrap_err();
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    world.has(&[("from", &from), ("over", &over)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_answered_is_there_after_the_daemon_has_died() {
    for over_is_staged in [false, true] {
        let world = world().await;
        world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
        world.save("new", b"new").await;
        if over_is_staged {
            world.write_into("s/over", 2, b"changed").await;
        }
        world.rename("new", "over").await.unwrap();
        let world = world.die_and_come_back().await;
        assert_eq!(world.read_path("s/over").await, b"new", "before it is uploaded");
        world.shelf.set_cue(Cue::Does);
        world.has(&[("from", &pattern(LONG, 1)), ("over", b"new")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_a_file_whose_upload_is_under_way_replaces_it_through_a_death() {
    let world = world().await;
    world.shelf.set_cue(Cue::Holds);
    world.write_into("s/over", 2, b"changed").await;
    world.shelf.until_puts(1).await;
    world.save("new", b"new").await;
    let busy = world.rename("new", "over").await;
    assert!(matches!(busy, Ok(()) | Err(Error::TimedOut(_))), "{busy:?}");
    let was_renamed = busy.is_ok();
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    if !was_renamed {
        world.until_quiet().await;
        world.rename("new", "over").await.unwrap();
    }
    world.has(&[("from", &pattern(LONG, 1)), ("over", b"new")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_in_a_directory_waits_while_its_source_renames_it() {
    let shelf = Shelf::new();
    for directory in ["d", "d/gone"] {
        shelf.place_directory(directory);
    }
    for file in ["d/a", "d/removed", "d/over"] {
        shelf.place(file, file.as_bytes());
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/d/a", "s/d/gone"] {
        world.library.find(path).await.unwrap();
    }
    let (root, d) = (world.root().await, world.library.find("s/d").await.unwrap());
    let vfs = &world.library.vfs;
    world.shelf.set_cue(Cue::HoldsNames);
    let renaming = tokio::spawn(vfs.rename((root, b"d"), (root, b"e"), RenameMode::Replace).wait());
    world.shelf.until_held_names(1).await;
    let changes = [
        vfs.rename((d, b"a"), (d, b"over"), RenameMode::Replace),
        vfs.remove_file(d, b"removed"),
        vfs.remove_directory(d, b"gone"),
    ];
    let made = tokio::spawn(vfs.make_directory(d, b"made", 0o755, ME).wait());
    let changes = changes.map(|change| tokio::spawn(change.wait()));
    // Longer than it takes to get to the source.
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.shelf.set_cue(Cue::Does);
    renaming.await.unwrap().unwrap();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    made.await.unwrap().unwrap();
    assert_eq!(world.shelf.files(), ["e/over"]);
    assert_eq!(world.shelf.bytes("e/over").unwrap(), b"d/a");
    world.library.relist("s").await;
    for (path, is_there) in [("s/e/made", true), ("s/e/gone", false), ("s/d", false)] {
        assert_eq!(world.library.find(path).await.is_ok(), is_there, "{path}");
    }
}

/// The source has the new name before it is known here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_in_a_directory_while_its_source_renames_it_is_uploaded_after_that() {
    let shelf = Shelf::new();
    shelf.place("d/file", &pattern(LONG, 1));
    let world = World::over(shelf, TempDir::new().unwrap());
    world.library.find("s/d/file").await.unwrap();
    let root = world.root().await;
    world.shelf.set_cue(Cue::TellsLate);
    let vfs = &world.library.vfs;
    let renaming = tokio::spawn(vfs.rename((root, b"d"), (root, b"e"), RenameMode::Replace).wait());
    world.shelf.until(|shelf| shelf.bytes("e/file").is_some()).await;
    world.save_over("s/d/file", b"saved").await;
    let early = timeout(Duration::from_secs(1), world.shelf.until_puts(1)).await;
    assert!(early.is_err(), "it waits for the rename");
    world.shelf.set_cue(Cue::Does);
    renaming.await.unwrap().unwrap();
    world.uploaded("e/file", b"saved").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["e/file"]);
    assert!(world.library.vfs.conflicts().is_empty());
}

/// Of a directory that somebody has removed at the source, and makes again while the upload is about to.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_not_refused_where_another_makes_its_directory_first() {
    let shelf = Shelf::new();
    shelf.place_directory("d");
    let world = World::over(shelf, TempDir::new().unwrap());
    let d = world.library.find("s/d").await.unwrap();
    world.library.relist("s/d").await;
    world.shelf.take("d");
    world.shelf.set_cue(Cue::HoldsNames);
    let made = world.library.vfs.make_node(d, b"file", Making::File, 0o644, ME);
    made.wait().await.unwrap();
    world.shelf.until_held_names(1).await;
    world.shelf.place_directory("d");
    world.shelf.set_cue(Cue::Does);
    world.uploaded("d/file", b"").await;
    world.until_quiet().await;
}
