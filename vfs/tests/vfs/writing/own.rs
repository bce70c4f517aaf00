//! Uploads that arrive unseen, while their files go on being changed and the daemon dies: what the source has then is our own, and
//! no conflict.

use super::*;

/// Has `first` arrive, with nobody here who knows.
async fn arrived_unseen(world: &World, before: Option<&[u8]>, first: &[u8]) {
    match before {
        None => world.save("f", first).await,
        Some(before) => {
            world.shelf.place("f", before);
            rewrite(world, first).await;
        }
    }
    world.uploaded("f", first).await;
}

/// Writes the file anew, in the place of what it was.
async fn rewrite(world: &World, bytes: &[u8]) {
    let id = world.library.find("s/f").await.unwrap();
    let handle = world.open("s/f", Access::Write).await;
    let change = AttributeChange {
        size: Some(0),
        ..AttributeChange::default()
    };
    let cut = world.library.vfs.set_attributes(id, Some(handle), change, ME);
    cut.wait().await.unwrap();
    world.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
    world.close(handle).await.unwrap();
}

/// Waits until all is uploaded: one file, with these bytes, and nobody was told of a conflict.
async fn ends_as(world: &World, bytes: &[u8]) {
    world.shelf.set_cue(Cue::Does);
    world.uploaded("f", bytes).await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["f"]);
    assert!(world.events.lock().is_empty(), "{:?}", world.events.lock());
    assert_eq!(world.read_path("s/f").await, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_since_replaces_it_after_the_daemon_has_died() {
    for before in [None, Some(&b"as it was"[..])] {
        let world = World::new();
        world.shelf.set_cue(Cue::LosesAnswers);
        arrived_unseen(&world, before, b"sent unseen").await;
        rewrite(&world, b"saved since").await;
        let world = world.die_and_come_back().await;
        assert_eq!(world.read_path("s/f").await, b"saved since");
        ends_as(&world, b"saved since").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_place_since_is_based_on_it_after_the_daemon_has_died() {
    // One that has a data file of its own.
    let mut bytes = vec![b'.'; 100_000];
    bytes[..11].copy_from_slice(b"sent unseen");
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    arrived_unseen(&world, None, &bytes).await;
    let handle = world.open("s/f", Access::Write).await;
    world.write(handle, WriteAt::Offset(0), b"SENT").await.unwrap();
    // Nobody was promised these four bytes; on a disk of the kernel's they are there.
    let world = world.die_and_come_back().await;
    bytes[..4].copy_from_slice(b"SENT");
    assert!(world.read_path("s/f").await == bytes);
    ends_as(&world, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_a_short_file_since_and_never_closed_is_gone_and_it_is_known_again() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    arrived_unseen(&world, None, b"sent unseen").await;
    let handle = world.open("s/f", Access::Write).await;
    world.write(handle, WriteAt::Offset(0), b"SENT").await.unwrap();
    let world = world.die_and_come_back().await;
    assert_eq!(world.read_path("s/f").await, b"sent unseen");
    ends_as(&world, b"sent unseen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_and_grows_since_shows_nothing_of_it() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    arrived_unseen(&world, None, b"sent unseen").await;
    let id = world.library.find("s/f").await.unwrap();
    for size in [4, 8] {
        let change = AttributeChange {
            size: Some(size),
            ..AttributeChange::default()
        };
        world
            .library
            .vfs
            .set_attributes(id, None, change, ME)
            .wait()
            .await
            .unwrap();
    }
    let world = world.die_and_come_back().await;
    ends_as(&world, b"sent\0\0\0\0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_again_though_its_source_is_away_when_the_file_is_changed_after_the_start() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    arrived_unseen(&world, None, b"sent unseen").await;
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::IsAway);
    let handle = world.open("s/f", Access::Write).await;
    world.write(handle, WriteAt::Offset(0), b"SENT").await.unwrap();
    world.close(handle).await.unwrap();
    let world = world.die_and_come_back().await;
    ends_as(&world, b"SENT unseen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_still_kept_beside_it() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    arrived_unseen(&world, None, b"sent unseen").await;
    rewrite(&world, b"saved since").await;
    let world = world.die_and_come_back().await;
    world.shelf.place("f", b"of another!");
    world.shelf.set_cue(Cue::Does);
    world.uploaded("f (conflict 2023-11-14 desk)", b"saved since").await;
    world.until_quiet().await;
    assert_eq!(world.read_path("s/f").await, b"of another!");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_again_though_a_version_shows_through_that_it_has_replaced() {
    let world = World::new();
    // Too long for all of it to be taken over.
    let mut bytes = pattern(20 * MIB, 1);
    world.shelf.place("f", &bytes);
    let handle = world.open("s/f", Access::Write).await;
    world.write(handle, WriteAt::Offset(MIB), b"changed").await.unwrap();
    bytes[MIB as usize..MIB as usize + 7].copy_from_slice(b"changed");
    world.shelf.set_cue(Cue::LosesAnswers);
    world.close(handle).await.unwrap();
    world.uploaded("f", &bytes).await;
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["f"]);
    assert!(world.events.lock().is_empty(), "{:?}", world.events.lock());
    let end = world.open("s/f", Access::Read).await;
    let read = world.library.vfs.read(end, MIB - 1, 9).wait().await.unwrap();
    assert_eq!(*read, bytes[MIB as usize - 1..MIB as usize + 8]);
}
