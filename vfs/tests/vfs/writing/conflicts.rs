//! Two who change one file: both versions are kept, and nobody's change is done to the other's version.

use std::time::Duration;

use manifold_vfs::{Access, Error, Event, Received, UploadEvent, WriteAt};

use super::World;
use crate::shelf::Cue;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_writer_had_not_seen_is_kept_beside_his() {
    let world = World::new();
    world.shelf.place("notes.txt", b"first");
    let handle = world.open("s/notes.txt", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(0), b"local").await.unwrap();
    world.shelf.place("notes.txt", b"other");
    world.close(handle).await.unwrap();
    let kept = "notes (conflict 2023-11-14 desk).txt";
    world.uploaded(kept, b"local").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.bytes("notes.txt").unwrap(), b"other");
    assert_eq!(world.read_path("s/notes.txt").await, b"other");
    assert_eq!(world.read_path(&format!("s/{kept}")).await, b"local");
    let conflicts = world.library.vfs.conflicts();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        (&*conflicts[0].path, &*conflicts[0].kept_as),
        (&b"/s/notes.txt"[..], kept.as_bytes())
    );
    assert!(matches!(&world.events.lock()[..], [UploadEvent::Conflict(_)]));
}

/// Makes a file that another makes too, and waits until both are kept.
async fn kept_both() -> World {
    let world = World::new();
    let handle = world.create("same").await;
    world.write(handle, WriteAt::Offset(0), b"local").await.unwrap();
    world.shelf.place("same", b"other one");
    world.close(handle).await.unwrap();
    world.uploaded("same (conflict 2023-11-14 desk)", b"local").await;
    world.until_quiet().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_else_makes_meanwhile_is_kept_too() {
    let world = kept_both().await;
    assert_eq!(world.read_path("s/same").await, b"other one");
}

/// Has an upload find that another has made the file, and stop before it has compared the two.
async fn finding_another() -> World {
    let world = World::new();
    let handle = world.create("same").await;
    world.write(handle, WriteAt::Offset(0), b"local").await.unwrap();
    world.shelf.place("same", b"other");
    world.shelf.set_cue(Cue::HoldsReads);
    world.close(handle).await.unwrap();
    world.shelf.until_held_reads(1).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_while_its_upload_finds_another_is_gone_under_every_name() {
    let world = finding_another().await;
    let mut removed = std::pin::pin!(world.unlink("same"));
    assert!(futures::poll!(&mut removed).is_pending());
    world.shelf.set_cue(Cue::Does);
    removed.await.unwrap();
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), [""; 0]);
    assert_eq!(world.names("s").await, [""; 0]);
    assert!(world.library.vfs.conflicts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_while_its_upload_finds_another_is_kept_beside_that() {
    let world = finding_another().await;
    let mut renamed = std::pin::pin!(world.rename("same", "new"));
    assert!(futures::poll!(&mut renamed).is_pending());
    world.shelf.set_cue(Cue::Does);
    assert!(matches!(renamed.await, Err(Error::Busy)));
    let kept = "same (conflict 2023-11-14 desk)";
    world.uploaded(kept, b"local").await;
    world.until_quiet().await;
    assert_eq!(world.names("s").await, ["same", kept]);
    assert_eq!(world.read_path("s/same").await, b"other");
    assert_eq!(world.read_path(&format!("s/{kept}")).await, b"local");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_file_has_just_lost_is_looked_up_anew_where_it_is_renamed_to() {
    let world = kept_both().await;
    let (root, events) = (world.root().await, world.library.vfs.subscribe());
    let tells_of = |wanted: &str| {
        let name = wanted.as_bytes().into();
        let wanted = Event::Entry { parent: root, name };
        let told = std::iter::from_fn(|| match events.receive(Duration::ZERO) {
            Received::Event(event) => Some(event),
            _ => None,
        });
        told.filter(|event| *event == wanted).count() > 0
    };
    world.rename("same (conflict 2023-11-14 desk)", "ours").await.unwrap();
    assert!(!tells_of("ours"), "the kernel has renamed it itself");
    world.rename("same", "theirs").await.unwrap();
    assert!(tells_of("theirs"));
    assert_eq!(world.read_path("s/theirs").await, b"other one");
}
