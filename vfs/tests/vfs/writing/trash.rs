//! What is removed, and can be put back.

use super::*;

const DAY: &str = ".manifold-trash/2023-11-14";

fn world_with_trash() -> World {
    let world = World::new();
    let source = world.library.catalog.sources().unwrap()[0].id;
    world.library.vfs.set_trash(source, true);
    world
}

impl World {
    async fn unlink_at(&self, directory: &str, name: &str) -> Result<(), Error> {
        let directory = self.library.find(directory).await.unwrap();
        self.library.vfs.remove_file(directory, name.as_bytes()).wait().await
    }

    async fn is_absent(&self, path: &str) -> bool {
        matches!(self.library.find(path).await, Err(Error::NotFound))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_lies_in_the_trash_under_its_own_path_and_can_be_put_back() {
    let world = world_with_trash();
    world.shelf.place("albums/summer/one", b"the only copy");
    let id = world.library.find("s/albums/summer/one").await.unwrap();
    let reader = world.open("s/albums/summer/one", Access::Read).await;
    world.unlink_at("s/albums/summer", "one").await.unwrap();
    assert!(world.is_absent("s/albums/summer/one").await);
    let place = format!("{DAY}/albums/summer/one");
    assert_eq!(world.shelf.bytes(&place).as_deref(), Some(&b"the only copy"[..]));
    assert_eq!(world.shelf.bytes("albums/summer/one"), None);
    assert_eq!(world.library.find(&format!("s/{place}")).await.unwrap(), id);
    assert_eq!(
        world.read(reader).await.unwrap(),
        b"the only copy",
        "whoever has it open reads on"
    );

    let (trash, home) = (
        world.library.find(&format!("s/{DAY}/albums/summer")).await.unwrap(),
        world.library.find("s/albums/summer").await.unwrap(),
    );
    let back = world
        .library
        .vfs
        .rename((trash, b"one"), (home, b"one"), RenameMode::NoReplace);
    back.wait().await.unwrap();
    assert_eq!(world.read_path("s/albums/summer/one").await, b"the only copy");
    assert_eq!(
        world.shelf.bytes("albums/summer/one").as_deref(),
        Some(&b"the only copy"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_last_lies_in_the_last_folder_of_the_day() {
    let world = world_with_trash();
    for text in ["first", "second", "third"] {
        world.save("note", text.as_bytes()).await;
        world.uploaded("note", text.as_bytes()).await;
        world.until_quiet().await;
        world.unlink("note").await.unwrap();
        if text == "second" {
            // What was removed first is put back elsewhere, so that its folder has room.
            let (trash, root) = (
                world.library.find(&format!("s/{DAY}")).await.unwrap(),
                world.root().await,
            );
            let vfs = &world.library.vfs;
            let back = vfs.rename((trash, b"note"), (root, b"first"), RenameMode::NoReplace);
            back.wait().await.unwrap();
        }
    }
    let text = |path: &str| world.shelf.bytes(path).map(|it| String::from_utf8(it).unwrap());
    assert_eq!(text(&format!("{DAY}/note")), None);
    assert_eq!(text(&format!("{DAY}.2/note")).as_deref(), Some("second"));
    assert_eq!(text(&format!("{DAY}.3/note")).as_deref(), Some("third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_the_trash_is_replaced() {
    let world = world_with_trash();
    // What another library has removed, of which nothing is known here.
    world.shelf.place(&format!("{DAY}/note"), b"of another machine");
    // A file has the name that a folder would need.
    world.shelf.place("deep/note/page", b"a page");
    world.shelf.place(&format!("{DAY}/deep"), b"not a folder");
    for text in ["first", "second"] {
        world.save("note", text.as_bytes()).await;
        world.uploaded("note", text.as_bytes()).await;
        world.until_quiet().await;
        world.unlink("note").await.unwrap();
    }
    world.unlink_at("s/deep/note", "page").await.unwrap();
    let text = |path: &str| world.shelf.bytes(path).map(|it| String::from_utf8(it).unwrap());
    assert_eq!(text(&format!("{DAY}/note")).as_deref(), Some("of another machine"));
    assert_eq!(text(&format!("{DAY}.2/note")).as_deref(), Some("first"));
    assert_eq!(text(&format!("{DAY}.3/note")).as_deref(), Some("second"));
    assert_eq!(text(&format!("{DAY}/deep")).as_deref(), Some("not a folder"));
    assert_eq!(text(&format!("{DAY}.2/deep/note/page")).as_deref(), Some("a page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_from_the_trash_is_gone_and_so_is_what_the_source_never_had() {
    let world = world_with_trash();
    world.shelf.place("old", b"old");
    world.unlink("old").await.unwrap();
    world.unlink_at(&format!("s/{DAY}"), "old").await.unwrap();
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    world.save("new", b"never uploaded").await;
    world.unlink("new").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    assert!(world.shelf.files().is_empty(), "{:?}", world.shelf.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_is_not_uploaded_yet_goes_with_the_file() {
    let world = world_with_trash();
    world.shelf.place("report", b"as it was");
    world.shelf.set_cue(Cue::Holds);
    let handle = world.open("s/report", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(6), b"is.").await.unwrap();
    world.close(handle).await.unwrap();
    world.unlink("report").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.uploaded(&format!("{DAY}/report"), b"as it is.").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), [format!("{DAY}/report")]);
}

/// `old`, which another has taken away, and whose removal looks for it since the trash could not take it.
async fn with_a_file_that_was_taken_away() -> (Arc<World>, tokio::task::JoinHandle<Result<(), Error>>) {
    let world = Arc::new(world_with_trash());
    for name in ["old", "other"] {
        world.shelf.place(name, b"the only copy");
    }
    world.library.find("s/old").await.unwrap();
    // The trash is there by then.
    world.unlink("other").await.unwrap();
    world.shelf.take("old");
    world.shelf.set_cue(Cue::IsSilent);
    let removing = Arc::clone(&world);
    let removed = tokio::spawn(async move { removing.unlink("old").await });
    world.shelf.until_held_looks(1).await;
    (world, removed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_back_while_it_is_removed_stays() {
    let (world, removed) = with_a_file_that_was_taken_away().await;
    world.shelf.place("old", b"the only copy");
    world.shelf.set_cue(Cue::Does);
    let removed = removed.await.unwrap();
    assert!(matches!(removed, Err(Error::Busy)), "{removed:?}");
    assert_eq!(world.shelf.bytes("old").as_deref(), Some(&b"the only copy"[..]));
    world.unlink("old").await.unwrap();
    assert!(world.shelf.files().iter().all(|path| path.starts_with(DAY)));
    assert_eq!(world.shelf.files().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_at_a_source_that_had_nothing_for_the_trash() {
    let (world, mut removed) = with_a_file_that_was_taken_away().await;
    world.shelf.set_cue(Cue::HoldsNames);
    tokio::select! {
        done = &mut removed => {
            done.unwrap().unwrap();
            world.shelf.place("old", b"the only copy");
        }
        () = world.shelf.until_held_names(1) => {
            world.shelf.place("old", b"the only copy");
            world.shelf.set_cue(Cue::Does);
            removed.await.unwrap().unwrap();
        }
    }
    assert_eq!(world.shelf.bytes("old").as_deref(), Some(&b"the only copy"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_trash_cannot_take_stays() {
    let world = world_with_trash();
    world.shelf.place("old", b"the only copy");
    world.library.find("s/old").await.unwrap();
    world.shelf.set_cue(Cue::Fails(ErrorKind::PermissionDenied));
    let refused = world.unlink("old").await;
    assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{refused:?}");
    assert_eq!(world.shelf.files(), ["old"]);
    world.library.find("s/old").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_trash_what_is_removed_is_gone() {
    let world = World::new();
    world.shelf.place("old", b"old");
    world.unlink("old").await.unwrap();
    assert!(world.shelf.files().is_empty());
}
