//! Files that lose their names while somebody has them open, and of which the source alone has the bytes.

use super::*;
use manifold_vfs::NewTime;

const LENGTH: u64 = 300_000;

async fn world() -> World {
    let shelf = Shelf::new();
    for name in ["file", "other"] {
        shelf.place(name, &pattern(LENGTH, name.len() as u64));
    }
    let world = World::over(shelf, TempDir::new().unwrap());
    for path in ["s/file", "s/other"] {
        world.library.find(path).await.unwrap();
    }
    world
}

/// What is written and read through handles of a file that has no name any more.
async fn is_usable(world: &World, writer: Handle, reader: Handle, mut bytes: Vec<u8>) {
    assert!(world.read(reader).await.unwrap() == bytes);
    world
        .write(writer, WriteAt::Offset(1_000), b"written on")
        .await
        .unwrap();
    bytes[1_000..1_010].copy_from_slice(b"written on");
    assert!(world.read(reader).await.unwrap() == bytes);
    world.write(writer, WriteAt::Offset(LENGTH), b"longer").await.unwrap();
    bytes.extend(b"longer");
    assert!(world.read(writer).await.unwrap() == bytes);
    for handle in [writer, reader] {
        world.close(handle).await.unwrap();
    }
    let usage = || world.library.vfs.staging_usage().unwrap().used;
    while usage() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_that_is_open_is_read_and_written_on() {
    let world = world().await;
    let (writer, reader) = (
        world.open("s/file", Access::ReadWrite).await,
        world.open("s/file", Access::Read).await,
    );
    let removed = world.library.vfs.remove_file(world.root().await, b"file");
    removed.wait().await.unwrap();
    is_usable(&world, writer, reader, pattern(LENGTH, 4)).await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["other"], "it does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_that_is_open_is_read_and_written_on() {
    let world = world().await;
    let (writer, reader) = (
        world.open("s/other", Access::ReadWrite).await,
        world.open("s/other", Access::Read).await,
    );
    let root = world.root().await;
    let renamed = world
        .library
        .vfs
        .rename((root, b"file"), (root, b"other"), RenameMode::Replace);
    renamed.wait().await.unwrap();
    is_usable(&world, writer, reader, pattern(LENGTH, 5)).await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["other"]);
    assert!(world.shelf.bytes("other").unwrap() == pattern(LENGTH, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_removed_file_what_was_not_written_is_read_on_too() {
    let world = world().await;
    let writer = world.open("s/file", Access::ReadWrite).await;
    world.shelf.set_cue(Cue::HoldsReads);
    world.write(writer, WriteAt::Offset(0), b"written").await.unwrap();
    let removing = tokio::spawn(world.library.vfs.remove_file(world.root().await, b"file").wait());
    world.shelf.until_held_reads(1).await;
    world.shelf.set_cue(Cue::Does);
    removing.await.unwrap().unwrap();
    let mut bytes = pattern(LENGTH, 4);
    bytes[..7].copy_from_slice(b"written");
    assert!(world.read(writer).await.unwrap() == bytes);
    world.close(writer).await.unwrap();
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_refused_leaves_an_open_file_what_it_was() {
    let world = world().await;
    let writer = world.open("s/file", Access::ReadWrite).await;
    world.shelf.set_cue(Cue::ForbidsRemovals);
    let removed = world.library.vfs.remove_file(world.root().await, b"file");
    assert!(removed.wait().await.is_err());
    assert_eq!(world.library.vfs.staging_usage().unwrap().used, 0);
    world.write(writer, WriteAt::Offset(0), b"written").await.unwrap();
    world.close(writer).await.unwrap();
    world.until_quiet().await;
    let mut bytes = pattern(LENGTH, 4);
    bytes[..7].copy_from_slice(b"written");
    assert!(world.shelf.bytes("file").unwrap() == bytes);
}

/// The kernel asks for such a file without a handle, also where a program has one.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_a_removed_file_that_is_open_are_changed_and_it_has_no_link() {
    for is_written in [false, true] {
        let world = world().await;
        let writer = world.open("s/file", Access::ReadWrite).await;
        if is_written {
            world.write(writer, WriteAt::Offset(0), b"written").await.unwrap();
        }
        let id = world.library.find("s/file").await.unwrap();
        let vfs = &world.library.vfs;
        assert_eq!(vfs.attributes(id, None).wait().await.unwrap().links, 1);
        let removed = vfs.remove_file(world.root().await, b"file");
        removed.wait().await.unwrap();
        assert_eq!(vfs.attributes(id, None).wait().await.unwrap().links, 0);
        let change = AttributeChange {
            mode: Some(0o600),
            modified: Some(NewTime::At(1_000, 7)),
            accessed: Some(NewTime::At(2_000, 0)),
            ..AttributeChange::default()
        };
        let changed = vfs.set_attributes(id, None, change, ME).wait().await.unwrap();
        let after = vfs.attributes(id, None).wait().await.unwrap();
        for seen in [&changed, &after] {
            assert_eq!((seen.mode, seen.links, seen.size), (0o600, 0, LENGTH));
            assert_eq!(seen.modified_ns, 1_000_000_000_007);
            assert_eq!(seen.accessed_ns, Some(2_000_000_000_000));
        }
        world.close(writer).await.unwrap();
        let set = vfs.set_attributes(id, None, change, ME).wait().await;
        assert!(matches!(set, Err(Error::Stale)), "nobody has it open any more: {set:?}");
    }
}
