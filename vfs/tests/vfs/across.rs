//! Files renamed from one source to another: the tree shows them in their new place at once, the bytes follow, and the original
//! goes when they have arrived, whatever fails on the way and whoever else changes something.

mod inward;
mod left;
mod model;
mod resumed;
mod settled;
mod troubles;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::local::LocalBackend;
use manifold_backends::{Backend, ErrorKind, ObjectPath, Presence};
use manifold_vfs::{
    Access, AttributeChange, Creation, CrossSourceRename, Durable, EntryId, Error, Handle, MoveState, RenameMode,
    Requester, SetMode, Settings, UploadEvent, UploadState, WriteAt, WriteSettings, Writing,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::library::Library;
use crate::shelf::{Cue, Shelf};

const MIB: u64 = 1 << 20;
const ME: Requester = Requester {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0o022,
};
const NEW: Creation = Creation {
    mode: 0o644,
    access: Access::ReadWrite,
    exclusive: true,
};

/// Two remote sources, `x` and `t`, and folders of this machine: `d`, `near` on the same file system, `far` on another.
struct World {
    x: Arc<Shelf>,
    t: Arc<Shelf>,
    disk: TempDir,
    near: TempDir,
    far: TempDir,
    library: Library,
    events: Arc<Mutex<Vec<UploadEvent>>>,
}

fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect()
}

/// A folder, one on the same file system, and one on another.
fn disks() -> [TempDir; 3] {
    let near = TempDir::new().unwrap();
    [TempDir::new().unwrap(), near, TempDir::new_in("/dev/shm").unwrap()]
}

impl World {
    fn new() -> Self {
        Self::with(CrossSourceRename::Copy)
    }

    fn with(rename: CrossSourceRename) -> Self {
        let (x, t, disks) = (Shelf::named("test://x"), Shelf::named("test://t"), disks());
        let disk = &disks[0];
        x.place("dir/a", &pattern(300_000));
        x.place("b", b"b of x");
        t.place("b", b"b of t");
        fs::create_dir(disk.path().join("sub")).unwrap();
        fs::write(disk.path().join("sub/file"), pattern(200_000)).unwrap();
        Self::over(x, t, disks, TempDir::new().unwrap(), rename)
    }

    fn over(x: Arc<Shelf>, t: Arc<Shelf>, disks: [TempDir; 3], folder: TempDir, rename: CrossSourceRename) -> Self {
        let settings = Settings {
            memory_bytes: 64 * MIB,
            data_deadline: Duration::from_secs(4),
            rename,
            ..Settings::default()
        };
        let local = |disk: &TempDir| Arc::new(LocalBackend::open(disk.path()).unwrap()) as Arc<dyn Backend>;
        let [disk, near, far] = disks;
        let sources = [
            ("x", Arc::clone(&x) as Arc<dyn Backend>),
            ("t", Arc::clone(&t) as Arc<dyn Backend>),
            ("d", local(&disk)),
            ("near", local(&near)),
            ("far", local(&far)),
        ];
        let library = Library::reopen(folder, &sources, settings);
        let events = Arc::<Mutex<Vec<_>>>::default();
        let (now_ns, told) = (Arc::clone(&library.now_ns), Arc::clone(&events));
        let settings = WriteSettings {
            folder: library.folder.path().join("staging"),
            bytes: 4 * MIB,
            host: "desk".to_owned(),
            clock: Arc::new(move || now_ns.fetch_add(1_000_000, std::sync::atomic::Ordering::SeqCst)),
            listener: Arc::new(move |event| told.lock().push(event)),
            policies: HashMap::new(),
        };
        let folder = |source| library.indexer.backend(source)?.as_local().cloned();
        library.vfs.resume_renames(folder).unwrap();
        library.vfs.accept_writes(settings).unwrap();
        Self {
            x,
            t,
            disk,
            near,
            far,
            library,
            events,
        }
    }

    async fn at(&self, path: &str) -> (EntryId, Vec<u8>) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        (self.library.find(parent).await.unwrap(), name.as_bytes().to_vec())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.rename_as(from, to, RenameMode::Replace).await
    }

    async fn rename_as(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), Error> {
        let (from, to) = (self.at(from).await, self.at(to).await);
        let renamed = self.library.vfs.rename((from.0, &*from.1), (to.0, &*to.1), mode);
        renamed.wait().await
    }

    async fn create(&self, path: &str) -> Result<Handle, Error> {
        let (parent, name) = self.at(path).await;
        let created = self.library.vfs.create(parent, &name, NEW, ME).wait().await;
        created.map(|created| created.opened.handle)
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = self.at(path).await;
        self.library.vfs.remove_file(parent, &name).wait().await
    }

    async fn remove_directory(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = self.at(path).await;
        self.library.vfs.remove_directory(parent, &name).wait().await
    }

    async fn open(&self, path: &str, access: Access) -> Handle {
        let id = self.library.find(path).await.unwrap();
        self.library.vfs.open(id, access).wait().await.unwrap().handle
    }

    async fn write(&self, handle: Handle, offset: u64, bytes: &[u8]) {
        let writing = Writing {
            at: WriteAt::Offset(offset),
            durable: Durable::Later,
            keep_privileges: true,
        };
        self.library.vfs.write(handle, bytes, writing).wait().await.unwrap();
    }

    async fn close(&self, handle: Handle) {
        self.library.vfs.flush(handle).wait().await.unwrap();
        self.library.vfs.release(handle);
    }

    async fn read(&self, handle: Handle) -> Result<Vec<u8>, Error> {
        let read = self.library.vfs.read(handle, 0, 4 * MIB as u32).wait().await?;
        Ok(read.to_vec())
    }

    async fn content(&self, path: &str) -> Vec<u8> {
        let handle = self.open(path, Access::Read).await;
        let bytes = self.read(handle).await.unwrap();
        self.library.vfs.release(handle);
        bytes
    }

    async fn is_there(&self, path: &str) -> bool {
        match self.library.find(path).await {
            Ok(_) => true,
            Err(Error::NotFound) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    async fn names(&self, path: &str) -> Vec<String> {
        self.library.relist(path).await;
        let id = self.library.find(path).await.unwrap();
        let children = self.library.catalog.children(id, None, usize::MAX).unwrap();
        let names = children
            .iter()
            .map(|child| String::from_utf8_lossy(&child.name).into_owned());
        names.collect()
    }

    /// Waits until something is so, of which nothing tells.
    async fn until(&self, holds: impl Fn(&Library) -> bool) {
        while !holds(&self.library) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_nothing_is_staged(&self) {
        self.until(|library| library.vfs.staging_usage().unwrap().files == 0)
            .await;
    }

    /// Waits until nothing is staged, and nothing left elsewhere.
    async fn until_settled(&self) {
        let is_left = |library: &Library| !library.catalog.all_origins().unwrap().is_empty();
        self.until(|library| library.vfs.staging_usage().unwrap().files == 0 && !is_left(library))
            .await;
        self.library.catalog.examine().unwrap();
    }

    async fn until_upload(&self, is: impl Fn(&UploadState) -> bool) {
        self.until(|library| library.vfs.uploads().iter().any(|report| is(&report.state)))
            .await;
    }

    /// Waits until all bytes of `x/dir/a` have been sent, and no answer has come.
    async fn until_sent(&self) {
        self.until_upload(|state| matches!(state, UploadState::UnderWay { sent: 300_000 }))
            .await;
    }

    fn undone(&self) -> usize {
        let events = self.events.lock();
        events
            .iter()
            .filter(|event| matches!(event, UploadEvent::MoveUndone { .. }))
            .count()
    }
}

fn is_delayed(state: &UploadState) -> bool {
    matches!(state, UploadState::Delayed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moves_from_one_remote_source_to_another() {
    let world = World::new();
    let id = world.library.find("x/dir/a").await.unwrap();
    let before = world.open("x/dir/a", Access::Read).await;
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/moved").await.unwrap();
    assert_eq!(world.library.find("t/moved").await.unwrap(), id);
    assert!(!world.is_there("x/dir/a").await);
    assert_eq!(
        world.names("x/dir").await,
        [""; 0],
        "it is there still, and is not shown"
    );
    let bytes = pattern(300_000);
    assert_eq!(world.content("t/moved").await, bytes, "before it has arrived");
    assert_eq!(world.read(before).await.unwrap(), bytes, "through a handle from before");
    world.t.until_puts(1).await;
    let [report] = &world.library.vfs.uploads()[..] else {
        panic!("{:?}", world.library.vfs.uploads())
    };
    assert_eq!(report.from.as_deref(), Some(&b"/x/dir/a"[..]));
    assert_eq!(
        (report.size, report.staged),
        (300_000, 0),
        "nothing of it lies on this machine"
    );
    assert_eq!(
        world.x.bytes("dir/a").unwrap(),
        bytes,
        "the original stays until the copy is confirmed"
    );
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.t.bytes("moved").unwrap(), bytes);
    assert_eq!(world.x.files(), ["b"]);
    assert_eq!(world.read(before).await.unwrap(), bytes, "after the original has gone");
    assert_eq!(world.content("t/moved").await, bytes);
    assert_eq!(world.library.find("t/moved").await.unwrap(), id);
    assert_eq!(world.names("x/dir").await, [""; 0]);
    assert_eq!(world.library.vfs.moved(), 1);
    assert_eq!(world.undone(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_folder_moves_with_its_attributes_to_a_remote_source() {
    let world = World::new();
    let path = world.disk.path().join("sub/file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789))
        .unwrap();
    drop(file);
    let id = world.library.find("d/sub/file").await.unwrap();
    let set = world.library.vfs.set_attribute(id, b"user.tag", b"blue", SetMode::Any);
    set.wait().await.unwrap();
    let before = fs::metadata(&path).unwrap();
    world.rename("d/sub/file", "t/file").await.unwrap();
    assert!(!world.is_there("d/sub/file").await);
    for _ in 0..2 {
        let now = world.library.vfs.attributes(id, None).wait().await.unwrap();
        assert_eq!((now.mode, now.size), (0o640, 200_000));
        assert_eq!(now.modified_ns, before.mtime() * 1_000_000_000 + before.mtime_nsec());
        let tag = world.library.vfs.attribute(id, b"user.tag").wait().await.unwrap();
        assert_eq!(tag, b"blue");
        assert_eq!(world.content("t/file").await, pattern(200_000));
        world.until_settled().await;
    }
    assert!(!path.exists());
    assert_eq!(world.t.bytes("file").unwrap(), pattern(200_000));
    world.remove_directory("d/sub").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_move_so_is_for_the_asker_to_copy() {
    let world = World::new();
    let disk = world.disk.path();
    std::os::unix::fs::symlink("sub", disk.join("link")).unwrap();
    fs::write(disk.join("one"), b"1").unwrap();
    fs::hard_link(disk.join("one"), disk.join("two")).unwrap();
    world.library.relist("d").await;
    let open = world.open("d/sub/file", Access::Write).await;
    for from in ["d/link", "d/one", "d/sub", "d/sub/file", "x/dir"] {
        let refused = world.rename(from, "t/new").await;
        assert!(matches!(refused, Err(Error::CrossSource)), "{from}: {refused:?}");
        assert!(world.is_there(from).await);
    }
    world.close(open).await;
    let exchanged = world.rename_as("x/b", "t/b", RenameMode::Exchange).await;
    assert!(matches!(exchanged, Err(Error::CrossSource)), "{exchanged:?}");
    let taken = world.rename_as("x/b", "t/b", RenameMode::NoReplace).await;
    assert!(matches!(taken, Err(Error::Exists)), "{taken:?}");
    let missing = world.rename("x/nothing", "t/new").await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    world.rename_as("x/b", "t/new", RenameMode::NoReplace).await.unwrap();
    world.until_settled().await;
    assert_eq!(world.t.files(), ["b", "new"]);
    let strict = World::with(CrossSourceRename::Strict);
    let refused = strict.rename("x/b", "t/new").await;
    assert!(matches!(refused, Err(Error::CrossSource)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_open_in_a_folder_moves_once_it_is_closed() {
    let world = World::new();
    let handle = world.open("d/sub/file", Access::ReadWrite).await;
    world.write(handle, 0, b"changed").await;
    let vfs = Arc::clone(&world.library.vfs);
    let closing = tokio::spawn(async move {
        vfs.flush(handle).wait().await.unwrap();
        vfs.release(handle);
    });
    world.rename("d/sub/file", "t/file").await.unwrap();
    closing.await.unwrap();
    world.until_settled().await;
    assert_eq!(
        &world.t.bytes("file").unwrap()[..8],
        [&b"changed"[..], &pattern(8)[7..]].concat()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaces_what_has_its_new_name_and_only_the_version_that_was_seen() {
    let world = World::new();
    let over = world.open("t/b", Access::Read).await;
    world.rename("x/b", "t/b").await.unwrap();
    assert_eq!(world.content("t/b").await, b"b of x");
    assert_eq!(
        world.read(over).await.unwrap(),
        b"b of t",
        "what is open stays readable"
    );
    world.until_settled().await;
    assert_eq!(
        (world.t.files(), world.t.bytes("b").unwrap()),
        (vec!["b".to_owned()], b"b of x".to_vec())
    );
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/b").await.unwrap();
    world.t.until_puts(2).await;
    world.t.place("b", b"somebody else's");
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    let names = world.names("t").await;
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("b (conflict "), "{names:?}");
    assert_eq!(world.t.bytes("b").unwrap(), b"somebody else's");
    assert_eq!(world.t.bytes(&names[1]).unwrap(), pattern(300_000));
    assert_eq!(world.x.files(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_its_way_is_written_renamed_and_removed_as_on_a_disk() {
    let world = World::new();
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/moved").await.unwrap();
    world.rename("x/b", "t/gone").await.unwrap();
    world.rename("d/sub/file", "t/other").await.unwrap();
    let mut bytes = pattern(300_000);
    let handle = world.open("t/moved", Access::ReadWrite).await;
    world.write(handle, 100_000, b"in the middle").await;
    bytes[100_000..100_013].copy_from_slice(b"in the middle");
    world.close(handle).await;
    world.rename("t/moved", "t/renamed").await.unwrap();
    assert_eq!(world.content("t/renamed").await, bytes);
    world.remove("t/gone").await.unwrap();
    // Over what the target has, and on: both are gone there then.
    world.rename("t/other", "t/b").await.unwrap();
    world.t.set_cue(Cue::Does);
    world.rename("t/b", "t/c").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.t.files(), ["c", "renamed"]);
    assert_eq!(
        (world.t.bytes("c").unwrap(), world.t.bytes("renamed").unwrap()),
        (pattern(200_000), bytes)
    );
    assert_eq!(world.x.files(), [""; 0]);
    assert!(!world.disk.path().join("sub/file").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_its_way_moves_on_to_a_third_source() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    world.t.set_cue(Cue::IsAway);
    world.rename("d/sub/file", "t/b").await.unwrap();
    world.rename("t/b", "x/there").await.unwrap_err();
    world.t.set_cue(Cue::Does);
    world.t.set_cue(Cue::Holds);
    while world.rename("t/b", "x/there").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.content("x/there").await, pattern(200_000));
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.x.bytes("there").unwrap(), pattern(200_000));
    assert_eq!(world.t.files(), [""; 0], "what it had replaced there is gone");
    assert!(!world.disk.path().join("sub/file").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_not_uploaded_yet_moves_too() {
    let world = World::new();
    world.x.set_cue(Cue::Holds);
    let handle = world.create("x/fresh").await.unwrap();
    world.write(handle, 0, b"fresh").await;
    world.close(handle).await;
    let handle = world.open("x/dir/a", Access::ReadWrite).await;
    world.write(handle, 0, b"CHANGED").await;
    world.rename("x/fresh", "t/fresh").await.unwrap();
    world.x.set_cue(Cue::Does);
    world.rename("x/dir/a", "t/a").await.unwrap();
    let mut bytes = pattern(300_000);
    bytes[..7].copy_from_slice(b"CHANGED");
    assert_eq!(world.read(handle).await.unwrap(), bytes);
    world.write(handle, 7, b" TWICE").await;
    bytes[7..13].copy_from_slice(b" TWICE");
    world.close(handle).await;
    world.until_settled().await;
    assert_eq!(
        (world.t.bytes("fresh").unwrap(), world.t.bytes("a").unwrap()),
        (b"fresh".to_vec(), bytes)
    );
    assert_eq!(world.x.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_name_is_free_for_another_file_while_the_original_is_still_there() {
    let world = World::new();
    world.t.set_cue(Cue::Holds);
    world.rename("x/b", "t/moved").await.unwrap();
    world.rename("d/sub/file", "t/file").await.unwrap();
    let handle = world.create("x/b").await.unwrap();
    world.write(handle, 0, b"a new one").await;
    world.close(handle).await;
    world.until_upload(is_delayed).await;
    assert_eq!(
        world.x.bytes("b").unwrap(),
        b"b of x",
        "its upload waits for the original to go"
    );
    // On a disk it would be the original that is opened.
    let busy = world.create("d/sub/file").await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    let busy = world.remove_directory("d/sub").await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    assert_eq!(fs::read(world.disk.path().join("sub/file")).unwrap(), pattern(200_000));
    world.t.set_cue(Cue::Does);
    let handle = world.create("d/sub/file").await.unwrap();
    world.close(handle).await;
    while !world.library.catalog.all_origins().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(
        (world.x.bytes("b").unwrap(), world.t.bytes("moved").unwrap()),
        (b"a new one".to_vec(), b"b of x".to_vec())
    );
    assert_eq!(world.t.bytes("file").unwrap(), pattern(200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_renamed_over_what_its_files_have_left_in_it() {
    let world = World::new();
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/a").await.unwrap();
    world.rename("d/sub/file", "t/file").await.unwrap();
    world.t.until_puts(2).await;
    world.rename("x/dir", "x/dir2").await.unwrap();
    world.rename("d/sub", "d/sub2").await.unwrap();
    assert_eq!(world.content("t/a").await, pattern(300_000));
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.undone(), 0, "{:?}", world.events.lock());
    assert_eq!(
        (world.t.bytes("a").unwrap(), world.t.bytes("file").unwrap()),
        (pattern(300_000), pattern(200_000))
    );
    assert_eq!(world.x.files(), ["b"]);
    assert!(!world.disk.path().join("sub2/file").exists() && world.disk.path().join("sub2").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_where_it_stood_when_the_daemon_died() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    world.t.set_cue(Cue::IsAway);
    world.rename("x/dir/a", "t/a").await.unwrap();
    world.rename("d/sub/file", "t/b").await.unwrap();
    let world = world.die_and_come_back().await;
    assert_eq!(world.content("t/a").await, pattern(300_000));
    assert_eq!(world.content("t/b").await, pattern(200_000));
    assert!(!world.is_there("x/dir/a").await && !world.is_there("d/sub/file").await);
    assert_eq!(world.names("x/dir").await, [""; 0]);
    assert_eq!(world.names("d/sub").await, [""; 0]);
    // The copy arrives, but nobody hears of it before the next death.
    world.x.set_cue(Cue::RemovesNothing);
    world.t.set_cue(Cue::LosesAnswers);
    world.library.vfs.retry_uploads();
    world
        .t
        .until(|t| t.bytes("a").is_some() && t.bytes("b").is_some_and(|b| b.len() > 10))
        .await;
    let world = world.die_and_come_back().await;
    world.t.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_nothing_is_staged().await;
    let world = world.die_and_come_back().await;
    assert!(world.x.bytes("dir/a").is_some(), "nothing could be removed yet");
    assert_eq!(world.names("x/dir").await, [""; 0]);
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(
        (world.t.bytes("a").unwrap(), world.t.bytes("b").unwrap()),
        (pattern(300_000), pattern(200_000))
    );
    assert_eq!(
        (world.x.files(), world.t.files()),
        (vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()])
    );
    assert!(!world.disk.path().join("sub/file").exists());
    assert_eq!(world.undone(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_was_set_stays_through_the_move() {
    let world = World::new();
    let id = world.library.find("x/b").await.unwrap();
    let change = AttributeChange {
        mode: Some(0o600),
        ..AttributeChange::default()
    };
    world
        .library
        .vfs
        .set_attributes(id, None, change, ME)
        .wait()
        .await
        .unwrap();
    world.rename("x/b", "t/moved").await.unwrap();
    world.until_settled().await;
    world.library.relist("t").await;
    let now = world.library.vfs.attributes(id, None).wait().await.unwrap();
    assert_eq!(now.mode, 0o600);
}
