//! Uploads in parts that are broken off: they go on where they stopped, whatever has stopped them, and nothing of them stays at
//! the source that nobody will go on with.

use manifold_vfs::{AttributeChange, NewTime, UploadReport};

use super::*;

const PARTS: u64 = 10;
/// How many arrive before it is broken off.
const FIRST: u64 = 4;
const PART: u64 = BLOCK as u64;
const BROKEN: Cue = breaks_off(ErrorKind::Unreachable);

const fn breaks_off(kind: ErrorKind) -> Cue {
    Cue::BreaksOff {
        after: FIRST * PART,
        kind,
    }
}

fn bytes(seed: u8) -> Vec<u8> {
    (0..PARTS * PART).map(|at| (at / 7) as u8 ^ seed).collect()
}

impl World {
    /// Saves a file of which a part arrives.
    async fn break_off(&self, cue: Cue) {
        self.shelf.set_cue(cue);
        self.save("file", &bytes(1)).await;
        self.shelf.until(|shelf| shelf.arrived() == FIRST * PART).await;
        assert_eq!(self.shelf.begun(), ["file"]);
    }

    /// Lets it go on, and waits until it has arrived.
    async fn go_on(&self, path: &str, bytes: &[u8]) {
        self.shelf.set_cue(Cue::Does);
        self.library.vfs.retry_uploads();
        self.uploaded(path, bytes).await;
        self.until_quiet().await;
        self.until_ended().await;
    }

    /// Waits until nothing that was begun is left, here and there.
    async fn until_ended(&self) {
        self.shelf.until(|shelf| shelf.begun().is_empty()).await;
        self.until_forgotten().await;
    }

    async fn until_forgotten(&self) {
        self.until(|library| library.catalog.part_uploads().unwrap().is_empty())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_its_source_broke_off_goes_on_where_it_stopped() {
    let world = World::new();
    world.break_off(BROKEN).await;
    world.go_on("file", &bytes(1)).await;
    assert_eq!(world.shelf.arrived(), PARTS * PART, "each part was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_stopped_when_the_daemon_is_back() {
    let world = World::new();
    world.break_off(BROKEN).await;
    let world = world.die_and_come_back().await;
    assert_eq!(world.shelf.begun(), ["file"]);
    world.go_on("file", &bytes(1)).await;
    assert_eq!(world.shelf.arrived(), PARTS * PART, "each part was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_which_the_source_has_nothing_any_more_begins_anew() {
    let world = World::new();
    world.break_off(BROKEN).await;
    world.shelf.forget_parts();
    world.go_on("file", &bytes(1)).await;
    assert_eq!(world.shelf.arrived(), (FIRST + PARTS) * PART);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_of_a_file_that_is_changed_is_ended_at_the_source() {
    let world = World::new();
    world.break_off(BROKEN).await;
    world.shelf.set_cue(Cue::IsAway);
    let handle = world.open("s/file", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(PART + 3), b"other").await.unwrap();
    world.close(handle).await.unwrap();
    let mut changed = bytes(1);
    changed[PART as usize + 3..][..5].copy_from_slice(b"other");
    let world = world.die_and_come_back().await;
    world.go_on("file", &changed).await;
    assert_eq!(world.shelf.arrived(), (FIRST + PARTS) * PART);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_of_a_file_that_is_removed_is_ended_at_the_source_when_that_can_be_reached() {
    let world = World::new();
    world.break_off(BROKEN).await;
    world.shelf.set_cue(Cue::EndsNothing);
    world.unlink("file").await.unwrap();
    let world = world.die_and_come_back().await;
    assert_eq!(world.shelf.begun(), ["file"]);
    assert_eq!(world.library.catalog.part_uploads().unwrap().len(), 1);
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_ended().await;
    assert!(world.shelf.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_of_a_file_under_another_name_is_ended_at_the_source() {
    let world = World::new();
    world.break_off(BROKEN).await;
    // It is under way there, and stands still.
    world.shelf.set_cue(Cue::Holds);
    world.rename("file", "other").await.unwrap();
    world.shelf.until(|shelf| shelf.begun() == ["other"]).await;
    world.go_on("other", &bytes(1)).await;
    assert_eq!(world.shelf.files(), ["other"]);
}

/// Under the former name nothing is found of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_ended_where_its_directory_is_when_that_is_known() {
    let world = World::new();
    let root = world.root().await;
    let made = world.library.vfs.make_directory(root, b"d", 0o755, ME).wait().await;
    let d = made.unwrap().id;
    world.shelf.set_cue(BROKEN);
    let creation = Creation {
        mode: 0o644,
        access: Access::ReadWrite,
        exclusive: true,
    };
    let create = async |name| {
        let created = world.library.vfs.create(d, name, creation, ME).wait().await;
        created.unwrap().opened.handle
    };
    // Being written, it keeps the directory from going with a listing.
    create(b"written").await;
    let handle = create(b"file").await;
    world.write(handle, WriteAt::Offset(0), &bytes(1)).await.unwrap();
    world.close(handle).await.unwrap();
    world.shelf.until(|shelf| shelf.arrived() == FIRST * PART).await;
    let is_broken_off = |upload: &UploadReport| matches!(upload.state, UploadState::Delayed { .. });
    world
        .until(|library| library.vfs.uploads().iter().any(is_broken_off))
        .await;
    world.shelf.set_cue(Cue::EndsNothing);
    world.library.vfs.remove_file(d, b"file").wait().await.unwrap();
    world.shelf.set_cue(Cue::RenamesAndIsSilent);
    world.rename("d", "e").await.unwrap_err();
    assert_eq!(world.shelf.begun(), ["e/file"]);
    // It is looked for what the source has made of the rename, and nothing else is asked meanwhile.
    world.library.vfs.retry_uploads();
    world.shelf.until_held_looks(1).await;
    let ended = tokio::time::timeout(Duration::from_millis(300), world.until_forgotten());
    ended.await.unwrap_err();
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_of_a_file_that_is_refused_is_ended_at_the_source() {
    let world = World::new();
    world.break_off(breaks_off(ErrorKind::PermissionDenied)).await;
    world.until_ended().await;
    let [upload] = &world.library.vfs.uploads()[..] else {
        panic!("{:?}", world.library.vfs.uploads())
    };
    assert!(matches!(upload.state, UploadState::Refused { .. }), "{upload:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_somebody_else_has_made_meanwhile_stays_and_what_was_sent_is_ended() {
    let world = World::new();
    world.break_off(BROKEN).await;
    world.shelf.place("file", b"theirs");
    world.shelf.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.shelf.until(|shelf| shelf.files().len() == 2).await;
    world.until_quiet().await;
    world.until_ended().await;
    assert_eq!(world.shelf.bytes("file").as_deref(), Some(&b"theirs"[..]));
    let kept = world.shelf.files().into_iter().find(|name| name != "file").unwrap();
    assert!(world.shelf.bytes(&kept) == Some(bytes(1)), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_at_a_source_is_ended_before_it_leaves_the_library() {
    let world = World::new();
    world.break_off(BROKEN).await;
    let source = world.library.catalog.sources().unwrap()[0].id;
    world.library.vfs.end_uploads_of(source).await.unwrap();
    assert!(world.shelf.begun().is_empty());
}

/// Whoever writes can put the times back. What was sent and is not noted yet may still be on its way then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_changed_file_is_gone_on_with_though_its_times_are_as_before() {
    for dies in [false, true] {
        let mut world = World::new();
        world.break_off(BROKEN).await;
        world.shelf.set_cue(Cue::IsAway);
        if dies {
            world = world.die_and_come_back().await;
        }
        let id = world.library.find("s/file").await.unwrap();
        let before = world.library.vfs.attributes(id, None).wait().await.unwrap().modified_ns;
        let handle = world.open("s/file", Access::ReadWrite).await;
        let behind = PARTS * PART - 5;
        world.write(handle, WriteAt::Offset(behind), b"other").await.unwrap();
        let back = AttributeChange {
            modified: Some(NewTime::At(before / 1_000_000_000, (before % 1_000_000_000) as u32)),
            ..AttributeChange::default()
        };
        let set = world.library.vfs.set_attributes(id, None, back, ME).wait().await;
        assert_eq!(set.unwrap().modified_ns, before);
        world.close(handle).await.unwrap();
        let mut changed = bytes(1);
        changed[behind as usize..].copy_from_slice(b"other");
        world.go_on("file", &changed).await;
        assert_eq!(world.shelf.arrived(), (FIRST + PARTS) * PART, "{dies}");
    }
}
