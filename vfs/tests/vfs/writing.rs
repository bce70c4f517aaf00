//! Writing to a remote source through the whole of the file system: what is read at once, what arrives there, and what becomes of
//! both when the source fails, when others write, and when the daemon dies.

mod asked;
mod attributes;
mod broken_off;
mod conflicts;
mod lasting;
mod model;
mod moving;
mod nameless;
mod others;
mod own;
mod renaming;
mod trash;
mod unseen;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::library::Library;
use crate::shelf::{BLOCK, Cue, Shelf};
use manifold_backends::{Backend, ErrorKind};
use manifold_index::HealthState;
use manifold_vfs::{
    Access, AttributeChange, Creation, Durable, EntryId, Error, Handle, NameMatch, RenameMode, Requester, Settings,
    UploadEvent, UploadState, WriteAt, WritePolicy, WriteSettings, Writing,
};
use parking_lot::Mutex;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 2 * MIB;
const ME: Requester = Requester {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0o022,
};

/// A library with one source, `s`, that is written to.
struct World {
    shelf: Arc<Shelf>,
    library: Library,
    events: Arc<Mutex<Vec<UploadEvent>>>,
}

impl World {
    fn new() -> Self {
        Self::over(Shelf::new(), TempDir::new().unwrap())
    }

    fn over(shelf: Arc<Shelf>, folder: TempDir) -> Self {
        let settings = Settings {
            memory_bytes: 64 * MIB,
            data_deadline: Duration::from_secs(3),
            ..Settings::default()
        };
        let library = Library::reopen(folder, &[("s", Arc::clone(&shelf) as Arc<dyn Backend>)], settings);
        let events = Arc::<Mutex<Vec<_>>>::default();
        let (now_ns, told) = (Arc::clone(&library.now_ns), Arc::clone(&events));
        let settings = WriteSettings {
            folder: library.folder.path().join("staging"),
            bytes: LIMIT,
            host: "desk".to_owned(),
            clock: Arc::new(move || now_ns.fetch_add(1_000_000, std::sync::atomic::Ordering::SeqCst)),
            listener: Arc::new(move |event| told.lock().push(event)),
            policies: HashMap::new(),
        };
        library.vfs.accept_writes(settings).unwrap();
        Self { shelf, library, events }
    }

    async fn die_and_come_back(self) -> Self {
        Self::over(self.shelf, self.library.die().await)
    }

    async fn root(&self) -> EntryId {
        self.library.find("s").await.unwrap()
    }

    async fn create(&self, name: &str) -> Handle {
        let creation = Creation {
            mode: 0o644,
            access: Access::ReadWrite,
            exclusive: true,
        };
        let created = self
            .library
            .vfs
            .create(self.root().await, name.as_bytes(), creation, ME);
        created.wait().await.unwrap().opened.handle
    }

    async fn open(&self, path: &str, access: Access) -> Handle {
        let id = self.library.find(path).await.unwrap();
        self.library.vfs.open(id, access).wait().await.unwrap().handle
    }

    async fn write(&self, handle: Handle, at: WriteAt, bytes: &[u8]) -> Result<u32, Error> {
        let writing = Writing {
            at,
            durable: Durable::Later,
            keep_privileges: true,
        };
        self.library.vfs.write(handle, bytes, writing).wait().await
    }

    async fn read(&self, handle: Handle) -> Result<Vec<u8>, Error> {
        let read = self.library.vfs.read(handle, 0, 4 * MIB as u32).wait().await?;
        Ok(read.to_vec())
    }

    async fn read_path(&self, path: &str) -> Vec<u8> {
        let handle = self.open(path, Access::Read).await;
        let bytes = self.read(handle).await.unwrap();
        self.library.vfs.release(handle);
        bytes
    }

    async fn close(&self, handle: Handle) -> Result<(), Error> {
        let flushed = self.library.vfs.flush(handle).wait().await;
        self.library.vfs.release(handle);
        flushed
    }

    /// Makes a file and closes it.
    async fn save(&self, name: &str, bytes: &[u8]) {
        let handle = self.create(name).await;
        self.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
        self.close(handle).await.unwrap();
    }

    async fn uploaded(&self, path: &str, bytes: &[u8]) {
        self.shelf
            .until(|shelf| shelf.bytes(path).as_deref() == Some(bytes))
            .await;
    }

    /// Waits until nothing is staged.
    async fn until_quiet(&self) {
        self.until(|library| library.vfs.staging_usage().unwrap().files == 0)
            .await;
    }

    /// Waits until something is so of the library of which no event tells.
    async fn until(&self, holds: impl Fn(&Library) -> bool) {
        while !holds(&self.library) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let id = self.library.find(path).await.unwrap();
        let children = self.library.catalog.children(id, None, usize::MAX).unwrap();
        children
            .iter()
            .map(|child| String::from_utf8_lossy(&child.name).into_owned())
            .collect()
    }

    async fn size(&self, path: &str) -> u64 {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = self.library.find(parent).await.unwrap();
        let found = self.library.vfs.lookup(parent, name.as_bytes(), NameMatch::Exact);
        found.wait().await.unwrap().1.size
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let root = self.root().await;
        let (from, to) = ((root, from.as_bytes()), (root, to.as_bytes()));
        self.library.vfs.rename(from, to, RenameMode::Replace).wait().await
    }

    async fn unlink(&self, name: &str) -> Result<(), Error> {
        self.library
            .vfs
            .remove_file(self.root().await, name.as_bytes())
            .wait()
            .await
    }
}

fn pattern(length: u64, seed: u64) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_at_once_and_arrives() {
    let world = World::new();
    let bytes = pattern(200_000, 1);
    let handle = world.create("new").await;
    let reader = world.open("s/new", Access::Read).await;
    world.write(handle, WriteAt::Offset(0), &bytes).await.unwrap();
    for handle in [handle, reader] {
        assert_eq!(world.read(handle).await.unwrap(), bytes, "before it is closed");
    }
    assert_eq!(world.size("s/new").await, 200_000);
    assert!(
        world.shelf.files().is_empty(),
        "nothing is uploaded before it is closed"
    );
    world.close(handle).await.unwrap();
    assert_eq!(world.read_path("s/new").await, bytes, "before it is uploaded");
    world.uploaded("new", &bytes).await;
    world.until_quiet().await;
    assert_eq!(world.read(reader).await.unwrap(), bytes, "through a handle from before");
    assert_eq!(world.read_path("s/new").await, bytes);
    world.library.relist("s").await;
    assert_eq!(world.size("s/new").await, 200_000);
    assert_eq!(world.library.vfs.uploaded(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_part_of_an_object_is_written_and_the_rest_shows_through() {
    let world = World::new();
    let mut bytes = pattern(5 * u64::from(BLOCK) + 77, 2);
    world.shelf.place("big", &bytes);
    let reader = world.open("s/big", Access::Read).await;
    let handle = world.open("s/big", Access::ReadWrite).await;
    world
        .write(handle, WriteAt::Offset(100_000), b"in the middle")
        .await
        .unwrap();
    bytes[100_000..100_013].copy_from_slice(b"in the middle");
    world.write(handle, WriteAt::Append, b"at the end").await.unwrap();
    bytes.extend_from_slice(b"at the end");
    let far = bytes.len() as u64 + 1_000;
    world.write(handle, WriteAt::Offset(far), b"beyond").await.unwrap();
    bytes.resize(far as usize, 0);
    bytes.extend_from_slice(b"beyond");
    for handle in [handle, reader] {
        assert!(world.read(handle).await.unwrap() == bytes, "the parts are together");
    }
    world.close(handle).await.unwrap();
    world.uploaded("big", &bytes).await;
    world.until_quiet().await;
    assert!(
        world.read(reader).await.unwrap() == bytes,
        "the handle goes on with what it has seen"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_never_comes_back() {
    let world = World::new();
    world.shelf.place("f", &pattern(1_000, 3));
    let id = world.library.find("s/f").await.unwrap();
    let cut = |size| {
        let change = AttributeChange {
            size: Some(size),
            ..AttributeChange::default()
        };
        world.library.vfs.set_attributes(id, None, change, ME)
    };
    assert_eq!(cut(10).wait().await.unwrap().size, 10);
    assert_eq!(cut(20).wait().await.unwrap().size, 20);
    let mut bytes = pattern(10, 3);
    bytes.resize(20, 0);
    assert_eq!(world.read_path("s/f").await, bytes);
    world.uploaded("f", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_where_it_ends_is_not_sent_anew_and_keeps_its_time() {
    let world = World::new();
    world.shelf.place("f", &pattern(1_000, 3));
    let id = world.library.find("s/f").await.unwrap();
    let before = world.library.vfs.attributes(id, None).wait().await.unwrap();
    // Not even its source is needed.
    world.shelf.set_cue(Cue::IsAway);
    let change = AttributeChange {
        size: Some(1_000),
        ..AttributeChange::default()
    };
    let cut = world.library.vfs.set_attributes(id, None, change, ME);
    assert_eq!(cut.wait().await.unwrap(), before);
    assert_eq!(world.library.vfs.staging_usage().unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_confirmation_was_lost_is_no_conflict_with_itself() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    world.save("f", b"only once").await;
    world.uploaded("f", b"only once").await;
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["f"]);
    assert!(world.events.lock().is_empty());
    assert_eq!(world.read_path("s/f").await, b"only once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_close_and_fsync_acknowledged_is_uploaded_after_the_daemon_has_died() {
    let world = World::new();
    world.shelf.place("old", &pattern(300_000, 4));
    world.shelf.set_cue(Cue::Holds);
    world.save("closed", b"closed").await;
    let synced = world.create("synced").await;
    world.write(synced, WriteAt::Offset(0), b"synced").await.unwrap();
    let id = world.library.find("s/synced").await.unwrap();
    world.library.vfs.sync(id, synced, true).wait().await.unwrap();
    world
        .write(synced, WriteAt::Append, b", and more that nobody was promised")
        .await
        .unwrap();
    let old = world.open("s/old", Access::ReadWrite).await;
    world.write(old, WriteAt::Offset(150_000), b"changed").await.unwrap();
    world.library.vfs.flush(old).wait().await.unwrap();
    let drafted = world.create("never closed").await;
    world.write(drafted, WriteAt::Offset(0), b"lost").await.unwrap();
    world.shelf.until_puts(1).await;
    let world = world.die_and_come_back().await;
    assert_eq!(world.read_path("s/closed").await, b"closed");
    assert_eq!(world.read_path("s/synced").await, b"synced");
    world.shelf.set_cue(Cue::Does);
    world.uploaded("closed", b"closed").await;
    world.uploaded("synced", b"synced").await;
    let mut bytes = pattern(300_000, 4);
    bytes[150_000..150_007].copy_from_slice(b"changed");
    world.uploaded("old", &bytes).await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["closed", "old", "synced"]);
    world.library.relist("s").await;
    assert!(matches!(
        world.library.find("s/never closed").await,
        Err(Error::NotFound)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_overtaken_by_a_write_does_not_count() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    world.save("f", b"first").await;
    world.shelf.until_puts(1).await;
    let handle = world.open("s/f", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(0), b"later").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.close(handle).await.unwrap();
    world.uploaded("f", b"later").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["f"]);
    assert_eq!(world.read_path("s/f").await, b"later");
}

/// Whoever writes to a file while it is uploaded does not make its source a bad one.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_overtaken_say_nothing_of_their_source() {
    let world = World::new();
    for round in 0..10 {
        world.shelf.place(&format!("f{round}"), &pattern(200_000, round));
    }
    for round in 0..10 {
        let handle = world.open(&format!("s/f{round}"), Access::ReadWrite).await;
        // The upload reads what shows through, and stands still.
        world.shelf.set_cue(Cue::HoldsReads);
        for text in [b"first", b"later"] {
            world.write(handle, WriteAt::Offset(100_000), text).await.unwrap();
            world.library.vfs.flush(handle).wait().await.unwrap();
            world.shelf.until_puts(2 * round + 1).await;
        }
        world.shelf.set_cue(Cue::Does);
        world.until_quiet().await;
    }
    let source = world.library.catalog.sources().unwrap()[0].id;
    assert_eq!(world.library.indexer.health(source).unwrap().state, HealthState::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unlinked_while_it_is_uploaded_is_nowhere_after_it() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    let handle = world.create("f").await;
    world.write(handle, WriteAt::Offset(0), b"short-lived").await.unwrap();
    world.library.vfs.flush(handle).wait().await.unwrap();
    world.shelf.until_puts(1).await;
    world.unlink("f").await.unwrap();
    assert!(matches!(world.library.find("s/f").await, Err(Error::NotFound)));
    assert_eq!(world.read(handle).await.unwrap(), b"short-lived", "it is open");
    world.write(handle, WriteAt::Append, b" and more").await.unwrap();
    assert_eq!(world.read(handle).await.unwrap(), b"short-lived and more");
    world.close(handle).await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.save("g", b"another").await;
    world.uploaded("g", b"another").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["g"]);
    let world = world.die_and_come_back().await;
    assert_eq!(world.library.vfs.staging_usage().unwrap().files, 0);
    assert!(matches!(world.library.find("s/f").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_by_rename_ends_as_one_file_under_its_name() {
    let world = World::new();
    world.shelf.place("doc", b"old");
    let reader = world.open("s/doc", Access::Read).await;
    world.save("doc.tmp", b"new version").await;
    world.rename("doc.tmp", "doc").await.unwrap();
    assert_eq!(world.read_path("s/doc").await, b"new version");
    assert!(matches!(world.library.find("s/doc.tmp").await, Err(Error::NotFound)));
    world.uploaded("doc", b"new version").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["doc"]);
    assert!(world.events.lock().is_empty());
    assert!(matches!(world.read(reader).await, Ok(bytes) if bytes == b"old") || world.read(reader).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_in_the_middle_of_an_upload_ends_at_the_new_name() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    world.save("a", b"moved on").await;
    world.shelf.until_puts(1).await;
    world.rename("a", "b").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.uploaded("b", b"moved on").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["b"]);
    world.rename("b", "c").await.unwrap();
    assert_eq!(world.shelf.files(), ["c"]);
    assert_eq!(world.read_path("s/c").await, b"moved on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_whose_upload_had_arrived_unnoticed_leaves_one_file() {
    let world = World::new();
    world.shelf.set_cue(Cue::LosesAnswers);
    world.save("a", b"there already").await;
    world.uploaded("a", b"there already").await;
    world.shelf.set_cue(Cue::Does);
    world.rename("a", "b").await.unwrap();
    world.uploaded("b", b"there already").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_staging_area_waits_for_uploads_and_then_says_so() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    world.save("first", &pattern(LIMIT - 1_000, 5)).await;
    let handle = world.create("second").await;
    let refused = world.write(handle, WriteAt::Offset(0), &[1; 2_000]).await;
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    world.shelf.until_puts(1).await;
    let (written, ()) = tokio::join!(world.write(handle, WriteAt::Offset(0), &[1; 2_000]), async {
        world.shelf.set_cue(Cue::Does);
    });
    assert_eq!(written.unwrap(), 2_000, "when there is room, it goes on");
    world.close(handle).await.unwrap();
    world.uploaded("second", &[1; 2_000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_stays_and_says_why_and_goes_on_when_told() {
    let world = World::new();
    world.shelf.set_cue(Cue::Fails(ErrorKind::PermissionDenied));
    world.save("f", b"kept").await;
    world.shelf.until_puts(1).await;
    let is_refused =
        || matches!(&world.library.vfs.uploads()[..], [it] if matches!(it.state, UploadState::Refused { .. }));
    while !is_refused() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.read_path("s/f").await, b"kept");
    // It is told after it can be seen.
    while world.events.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(&world.events.lock()[..], [UploadEvent::Refused { .. }]));
    world.shelf.set_cue(Cue::Does);
    assert_eq!(world.library.vfs.retry_uploads(), 1);
    world.uploaded("f", b"kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_through_waits_for_the_upload_and_fails_with_it() {
    let world = World::new();
    let source = world.library.source();
    world.library.vfs.set_write_policy(source, WritePolicy::Through);
    world.save("f", b"there").await;
    assert_eq!(
        world.shelf.bytes("f").unwrap(),
        b"there",
        "when it is closed, it is there"
    );
    world.shelf.set_cue(Cue::Fails(ErrorKind::Full));
    let handle = world.create("g").await;
    world.write(handle, WriteAt::Offset(0), b"not there").await.unwrap();
    assert!(world.close(handle).await.is_err());
    assert_eq!(world.read_path("s/g").await, b"not there", "and nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_to_be_written_to_is_read_only() {
    let world = World::new();
    world.shelf.place("f", b"as it is");
    let id = world.library.find("s/f").await.unwrap();
    let source = world.library.source();
    world.library.vfs.set_write_policy(source, WritePolicy::Off);
    assert!(matches!(
        world.library.vfs.open(id, Access::Write).wait().await,
        Err(Error::ReadOnly)
    ));
    assert!(matches!(world.unlink("f").await, Err(Error::ReadOnly)));
    assert!(matches!(world.rename("f", "g").await, Err(Error::ReadOnly)));
    assert_eq!(world.shelf.bytes("f").unwrap(), b"as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_moved_and_removed_at_the_source_and_what_is_staged_goes_with_them() {
    let world = World::new();
    let root = world.root().await;
    let vfs = &world.library.vfs;
    let made = vfs.make_directory(root, b"d", 0o755, ME).wait().await.unwrap();
    assert!(matches!(
        vfs.make_directory(root, b"d", 0o755, ME).wait().await,
        Err(Error::Exists)
    ));
    world.shelf.set_cue(Cue::Holds);
    let creation = Creation {
        mode: 0o644,
        access: Access::Write,
        exclusive: true,
    };
    let handle = vfs
        .create(made.id, b"inside", creation, ME)
        .wait()
        .await
        .unwrap()
        .opened
        .handle;
    world.write(handle, WriteAt::Offset(0), b"goes along").await.unwrap();
    world.close(handle).await.unwrap();
    assert!(matches!(
        vfs.remove_directory(root, b"d").wait().await,
        Err(Error::NotEmpty)
    ));
    world.shelf.until_puts(1).await;
    world.rename("d", "e").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.uploaded("e/inside", b"goes along").await;
    world.until_quiet().await;
    assert_eq!(world.shelf.files(), ["e/inside"]);
    let e = world.library.find("s/e").await.unwrap();
    assert!(matches!(
        vfs.remove_directory(root, b"e").wait().await,
        Err(Error::NotEmpty)
    ));
    vfs.remove_file(e, b"inside").wait().await.unwrap();
    vfs.remove_directory(root, b"e").wait().await.unwrap();
    assert!(world.shelf.files().is_empty());
    assert!(matches!(world.library.find("s/e").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_has_opened_a_file_reads_it_though_it_is_replaced_or_uploaded_meanwhile() {
    let world = Arc::new(World::new());
    let text = |round: u64| vec![b'a' + (round % 26) as u8; 5_000];
    world.save("document", &text(0)).await;
    let reader = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            loop {
                let Ok(id) = world.library.find("s/document").await else {
                    return;
                };
                // A name that went since it was looked up is looked up again, as a kernel does.
                let Ok(opened) = world.library.vfs.open(id, Access::Read).wait().await else {
                    continue;
                };
                let read = world.read(opened.handle).await.expect("what is open can be read");
                assert!(
                    read.len() == 5_000 && read.iter().all(|byte| *byte == read[0]),
                    "{} bytes",
                    read.len()
                );
                world.library.vfs.release(opened.handle);
            }
        })
    };
    for round in 1..150 {
        world.save("document.tmp", &text(round)).await;
        world.rename("document.tmp", "document").await.unwrap();
        if round % 30 == 0 {
            world.uploaded("document", &text(round)).await;
        }
    }
    world.unlink("document").await.unwrap();
    reader.await.unwrap();
}
