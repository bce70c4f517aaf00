use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use futures::StreamExt;
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::Timestamp;

fn folder() -> (TempDir, LocalBackend) {
    let folder = TempDir::new().unwrap();
    let backend = LocalBackend::open(folder.path()).unwrap();
    (folder, backend)
}

fn path(bytes: &(impl AsRef<[u8]> + ?Sized)) -> ObjectPath {
    ObjectPath::from_bytes(bytes.as_ref())
}

fn walk(backend: &LocalBackend, directory: &str) -> BTreeMap<Vec<u8>, Metadata> {
    let mut children = BTreeMap::new();
    let walked = backend.walk_directory(&path(directory), &mut |name, metadata| {
        assert!(
            children.insert(name.to_vec(), metadata.clone()).is_none(),
            "{name:?} came twice"
        );
    });
    assert_eq!(walked.unwrap(), Presence::Found(()));
    children
}

async fn list(backend: &LocalBackend, directory: &str) -> BTreeMap<Vec<u8>, Metadata> {
    let Presence::Found(mut pages) = backend.list(&path(directory)).await.unwrap() else {
        panic!("{directory} is absent");
    };
    let mut children = BTreeMap::new();
    while let Some(page) = pages.next().await {
        for child in page.unwrap() {
            assert!(
                children.insert(child.name.clone(), child.metadata).is_none(),
                "{:?} came twice",
                child.name
            );
        }
    }
    children
}

fn found<T>(presence: Result<Presence<T>>) -> T {
    match presence.unwrap() {
        Presence::Found(value) => value,
        Presence::Absent => panic!("absent"),
    }
}

fn kind_of<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.kind(),
    }
}

fn fifo(at: PathBuf) {
    rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Runs on a thread for which permission bits hold, even if the tests are run by root.
fn as_ordinary_user(body: impl FnOnce() + Send) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective
                .remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            body();
        });
    });
}

#[tokio::test]
async fn names_are_bytes() {
    let (folder, backend) = folder();
    let long = "n".repeat(255);
    let names: [&[u8]; 8] = [
        b"new\nline",
        b"\xff\xfe not utf-8",
        long.as_bytes(),
        b" ",
        b"...",
        b"-x",
        "ä".as_bytes(),
        b"\\ \" *?",
    ];
    for name in names {
        std::fs::write(folder.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let expected: BTreeSet<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    assert_eq!(walk(&backend, "").into_keys().collect::<BTreeSet<_>>(), expected);
    assert_eq!(list(&backend, "").await, walk(&backend, ""));
    for name in names {
        let metadata = found(backend.stat(&path(name)).await);
        let bytes = backend.read(&path(name), &metadata.version, 0..metadata.size).await;
        assert_eq!(found(bytes), name);
    }
}

#[tokio::test]
async fn attributes_are_those_of_the_file_system() {
    let (folder, backend) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "12345").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::fs::hard_link(&file, folder.path().join("other")).unwrap();
    std::fs::create_dir(folder.path().join("directory")).unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    fifo(folder.path().join("fifo"));
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();

    let children = walk(&backend, "");
    let real = file.metadata().unwrap();
    let seen = &children[&b"file"[..]];
    assert_eq!((seen.kind, seen.size, seen.links, seen.device), (Kind::File, 5, 2, 0));
    assert_eq!(seen.mode, Some(0o4751));
    assert_eq!(seen.owner, Some((real.uid(), real.gid())));
    assert_eq!(
        seen.modified,
        Some(Timestamp::from_parts(real.mtime(), real.mtime_nsec() as u32))
    );
    assert_eq!(
        seen.changed,
        Some(Timestamp::from_parts(real.ctime(), real.ctime_nsec() as u32))
    );
    assert_eq!(
        seen.identity,
        children[&b"other"[..]].identity,
        "two names of one inode"
    );
    assert_eq!(children[&b"directory"[..]].size, 0);
    for (name, kind) in [
        ("directory", Kind::Directory),
        ("link", Kind::Symlink),
        ("fifo", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        assert_eq!(children[name.as_bytes()].kind, kind);
    }
    for (name, listed) in &children {
        assert_eq!(
            &found(backend.stat(&path(name)).await),
            listed,
            "stat and listing say the same"
        );
    }
    assert_eq!(found(backend.stat(&ObjectPath::root()).await).kind, Kind::Directory);
}

#[tokio::test]
async fn a_device_is_described_and_not_opened() {
    let backend = LocalBackend::open(Path::new("/dev")).unwrap();
    let null = found(backend.stat(&path("null")).await);
    assert_eq!((null.kind, null.device), (Kind::CharDevice, rustix::fs::makedev(1, 3)));
    assert_eq!(kind_of(backend.open_file(&path("null"))), ErrorKind::Unsupported);
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    let (folder, backend) = folder();
    fifo(folder.path().join("fifo"));
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    std::fs::create_dir(folder.path().join("directory")).unwrap();
    symlink("/etc/passwd", folder.path().join("link")).unwrap();
    for name in ["fifo", "socket", "link"] {
        // Opening the pipe would wait for a writer for ever.
        assert_eq!(
            kind_of(backend.open_file(&path(name))),
            ErrorKind::Unsupported,
            "{name}"
        );
    }
    assert_eq!(kind_of(backend.open_file(&path("directory"))), ErrorKind::IsADirectory);
    assert_eq!(kind_of(backend.open_file(&ObjectPath::root())), ErrorKind::IsADirectory);
}

#[tokio::test]
async fn links_are_read_and_not_followed() {
    let (folder, backend) = folder();
    let outside = TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    std::fs::create_dir(folder.path().join("inside")).unwrap();
    std::fs::write(folder.path().join("inside/file"), "x").unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("inside", folder.path().join("in")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), folder.path().join("odd")).unwrap();

    assert_eq!(found(backend.read_link(&path("dangling")).await), b"nowhere");
    assert_eq!(found(backend.read_link(&path("odd")).await), b"\xff\n");
    assert_eq!(
        found(backend.read_link(&path("out")).await),
        outside.path().as_os_str().as_bytes()
    );
    assert_eq!(walk(&backend, "")[&b"dangling"[..]].kind, Kind::Symlink);
    assert_eq!(
        kind_of(backend.read_link(&path("inside/file")).await),
        ErrorKind::Unsupported
    );
    for through in ["out/secret", "in/file", "dangling/x"] {
        assert_eq!(
            backend.stat(&path(through)).await.unwrap(),
            Presence::Absent,
            "{through}"
        );
        assert!(
            matches!(backend.open_file(&path(through)).unwrap(), Presence::Absent),
            "{through}"
        );
    }
    for link in ["out", "in", "dangling"] {
        assert_eq!(
            kind_of(backend.list(&path(link)).await.map(drop)),
            ErrorKind::NotADirectory,
            "{link}"
        );
    }
}

#[tokio::test]
async fn the_root_cannot_be_left() {
    let (folder, backend) = folder();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    for out in ["..", "../x", "a/../..", "a/./b", ".", "/etc", "a//b", "a/", "/", "a\0b"] {
        assert_eq!(kind_of(backend.stat(&path(out)).await), ErrorKind::BadPath, "{out:?}");
        assert_eq!(kind_of(backend.open_file(&path(out))), ErrorKind::BadPath, "{out:?}");
        assert_eq!(
            kind_of(backend.list(&path(out)).await.map(drop)),
            ErrorKind::BadPath,
            "{out:?}"
        );
        assert_eq!(
            kind_of(backend.read_link(&path(out)).await),
            ErrorKind::BadPath,
            "{out:?}"
        );
    }
}

#[tokio::test]
async fn absent_is_what_the_file_system_says_and_nothing_else() {
    let (folder, backend) = folder();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    for nothing in ["missing", "missing/x", "file/x"] {
        assert_eq!(
            backend.stat(&path(nothing)).await.unwrap(),
            Presence::Absent,
            "{nothing}"
        );
        assert!(
            matches!(backend.list(&path(nothing)).await.unwrap(), Presence::Absent),
            "{nothing}"
        );
        assert!(
            matches!(backend.open_file(&path(nothing)).unwrap(), Presence::Absent),
            "{nothing}"
        );
        assert!(
            matches!(backend.read_link(&path(nothing)).await.unwrap(), Presence::Absent),
            "{nothing}"
        );
        let read = backend.read(&path(nothing), &Version::default(), 0..1).await;
        assert_eq!(read.unwrap(), Presence::Absent, "{nothing}");
    }
    assert_eq!(
        kind_of(backend.list(&path("file")).await.map(drop)),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind_of(backend.stat(&path(&"n".repeat(256))).await), ErrorKind::BadPath);
}

#[test]
fn a_path_may_be_longer_than_the_kernel_takes_at_once() {
    let (folder, backend) = folder();
    let name = "d".repeat(200);
    let mut depth = ObjectPath::root();
    let mut at = rustix::fs::open(folder.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..70 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        depth = depth.join(name.as_bytes());
    }
    assert!(depth.as_bytes().len() > 3 * 4096);
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&at, "file", flags, Mode::RUSR).unwrap();
    assert_eq!(found(backend.open_file(&depth.join(b"file"))).1.kind, Kind::File);
    assert_eq!(walk(&backend, std::str::from_utf8(depth.as_bytes()).unwrap()).len(), 1);
    assert!(matches!(
        backend.open_file(&depth.join(b"missing")).unwrap(),
        Presence::Absent
    ));
}

#[tokio::test]
async fn a_listing_of_many_pages_is_complete() {
    let (folder, backend) = folder();
    let names: BTreeSet<Vec<u8>> = (0..20_000)
        .map(|number| format!("file number {number}").into_bytes())
        .collect();
    for name in &names {
        std::fs::write(folder.path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    assert_eq!(walk(&backend, "").into_keys().collect::<BTreeSet<_>>(), names);
    assert_eq!(list(&backend, "").await.into_keys().collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_listing_within_a_listing_disturbs_neither() {
    let (folder, backend) = folder();
    for outer in ["a", "b", "c"] {
        std::fs::create_dir(folder.path().join(outer)).unwrap();
        std::fs::write(folder.path().join(outer).join("inner"), "").unwrap();
    }
    let mut seen = BTreeSet::new();
    let walked = backend.walk_directory(&ObjectPath::root(), &mut |name, _| {
        seen.insert(name.to_vec());
        let name = std::str::from_utf8(name).unwrap();
        assert_eq!(
            walk(&backend, name).into_keys().collect::<Vec<_>>(),
            [b"inner".to_vec()]
        );
    });
    assert_eq!(walked.unwrap(), Presence::Found(()));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn ranges_of_a_sparse_file_lie_where_they_should() {
    let (folder, backend) = folder();
    let offset = 5 << 30;
    let file = File::create(folder.path().join("sparse")).unwrap();
    file.write_all_at(b"far", offset).unwrap();
    let metadata = found(backend.stat(&path("sparse")).await);
    assert_eq!(metadata.size, offset + 3);
    let read = async |range| backend.read(&path("sparse"), &metadata.version, range).await;
    assert_eq!(found(read(offset - 2..offset + 3).await), &b"\0\0far"[..]);
    assert_eq!(found(read(7..7).await), &b""[..]);
    assert_eq!(found(read(0..4096).await), vec![0; 4096]);
    assert_eq!(
        kind_of(read(offset..offset + 4).await),
        ErrorKind::Nonsense,
        "past the end"
    );
    assert_eq!(kind_of(read(Range { start: 2, end: 1 }).await), ErrorKind::Nonsense);
}

#[tokio::test]
async fn bytes_of_another_version_are_never_given() {
    let (folder, backend) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "one").unwrap();
    let first = found(backend.stat(&path("file")).await).version;

    // Replaced by rename, with the same size and time: another inode tells.
    let time = file.metadata().unwrap().modified().unwrap();
    std::fs::write(folder.path().join("new"), "two").unwrap();
    File::options()
        .write(true)
        .open(folder.path().join("new"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    assert_eq!(
        kind_of(backend.read(&path("file"), &first, 0..3).await),
        ErrorKind::VersionChanged
    );

    // Written in place with its time put back: the change time tells.
    let second = found(backend.stat(&path("file")).await).version;
    let changed_before = file.metadata().unwrap().ctime_nsec();
    while file.metadata().unwrap().ctime_nsec() == changed_before {
        let open = File::options().write(true).open(&file).unwrap();
        open.write_all_at(b"six", 0).unwrap();
        open.set_modified(time).unwrap();
    }
    assert_eq!(
        kind_of(backend.read(&path("file"), &second, 0..3).await),
        ErrorKind::VersionChanged
    );
}

#[test]
fn a_change_between_the_looks_before_and_after_a_read_is_seen() {
    let (folder, backend) = folder();
    std::fs::write(folder.path().join("file"), vec![1; 100]).unwrap();
    let (file, metadata) = found(backend.open_file(&path("file")));
    assert_eq!(
        read::exactly(&file, &metadata, &metadata.version, 0..100)
            .unwrap()
            .len(),
        100
    );
    // The attributes of before the change stand for the look before, the file for the look after.
    std::fs::write(folder.path().join("file"), vec![2; 50]).unwrap();
    for range in [0..10, 40..100, 60..70] {
        let failure = read::exactly(&file, &metadata, &metadata.version, range).unwrap_err();
        assert_eq!(failure.into_parts(&backend.folder.root).0, ErrorKind::VersionChanged);
    }
}

#[test]
fn an_open_file_survives_being_removed() {
    let (folder, backend) = folder();
    std::fs::write(folder.path().join("file"), "kept").unwrap();
    let (file, _) = found(backend.open_file(&path("file")));
    std::fs::remove_file(folder.path().join("file")).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn an_identity_survives_a_rename_and_is_not_inherited() {
    let (folder, backend) = folder();
    let identity = |name: &str| walk(&backend, "")[name.as_bytes()].identity;
    std::fs::create_dir(folder.path().join("a")).unwrap();
    let before = identity("a");
    std::fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    assert_eq!(identity("b"), before);
    // File systems hand the number of a removed inode to the next one.
    for round in 0..50 {
        std::fs::write(folder.path().join("x"), "").unwrap();
        let old = identity("x");
        std::fs::remove_file(folder.path().join("x")).unwrap();
        std::fs::write(folder.path().join("x"), "").unwrap();
        let born = |name: &str| walk(&backend, "")[name.as_bytes()].created;
        assert!(identity("x") != old || born("x").is_none(), "round {round}");
    }
}

#[test]
fn refused_directories_are_errors_and_refused_children_do_not_vanish() {
    let (folder, backend) = folder();
    let readable = folder.path().join("no x");
    std::fs::create_dir(&readable).unwrap();
    std::fs::write(readable.join("file"), "12345").unwrap();
    std::fs::create_dir(readable.join("directory")).unwrap();
    std::fs::create_dir(folder.path().join("closed")).unwrap();
    std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(folder.path().join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    as_ordinary_user(|| {
        assert_eq!(
            kind_of(backend.walk_directory(&path("closed"), &mut |_, _| ())),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            kind_of(backend.open_file(&path("no x/file"))),
            ErrorKind::PermissionDenied
        );
        let children = walk(&backend, "no x");
        let kinds: Vec<_> = children
            .iter()
            .map(|(name, child)| (name.as_slice(), child.kind, child.mode))
            .collect();
        assert_eq!(
            kinds,
            [
                (&b"directory"[..], Kind::Directory, Some(0)),
                (b"file", Kind::File, Some(0))
            ]
        );
        assert!(
            children
                .values()
                .all(|child| child.modified.is_none() && child.owner.is_none())
        );
    });
    std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(walk(&backend, "no x")[&b"file"[..]].size, 5);
}

#[tokio::test]
async fn a_root_that_is_gone_is_unreachable_and_comes_back() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("disk");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let backend = LocalBackend::open(&root).unwrap();
    let version = found(backend.stat(&path("file")).await).version;

    let unreachable = async || {
        let file = path("file");
        assert_eq!(kind_of(backend.check().await), ErrorKind::Unreachable);
        assert_eq!(kind_of(backend.stat(&file).await), ErrorKind::Unreachable);
        assert_eq!(
            kind_of(backend.list(&ObjectPath::root()).await.map(drop)),
            ErrorKind::Unreachable
        );
        assert_eq!(
            kind_of(backend.read(&file, &version, 0..1).await),
            ErrorKind::Unreachable
        );
        assert_eq!(kind_of(backend.read_link(&file).await), ErrorKind::Unreachable);
        assert_eq!(kind_of(backend.open_file(&file)), ErrorKind::Unreachable);
        let walked = backend.walk_directory(&ObjectPath::root(), &mut |_, _| panic!("nothing is there"));
        assert_eq!(kind_of(walked), ErrorKind::Unreachable);
    };
    std::fs::rename(&root, parent.path().join("elsewhere")).unwrap();
    unreachable().await;
    // The mount point that an unmounted disk leaves behind.
    std::fs::create_dir(&root).unwrap();
    unreachable().await;
    std::fs::remove_dir(&root).unwrap();
    std::fs::write(&root, "a file").unwrap();
    unreachable().await;
    std::fs::remove_file(&root).unwrap();
    std::fs::rename(parent.path().join("elsewhere"), &root).unwrap();
    assert_eq!(walk(&backend, "").len(), 1);
    assert!(backend.check().await.is_ok());
}

#[test]
fn a_root_is_known_again_by_what_was_kept_of_it() {
    let parent = TempDir::new().unwrap();
    let (root, other) = (parent.path().join("disk"), parent.path().join("other"));
    std::fs::create_dir(&root).unwrap();
    let id = LocalBackend::open(&root).unwrap().root_id().unwrap();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!("".parse::<RootId>().is_err() && "1-2-3-4".parse::<RootId>().is_err() && "1".parse::<RootId>().is_err());
    let settings = BTreeMap::from([("root_id".to_owned(), id.to_string())]);
    let spec = SourceSpec::from_path(&root, &settings).unwrap();
    let connect = || LocalBackend::connect(&spec, &Limits::default()).unwrap();
    assert_eq!(walk(&connect(), "").len(), 0);

    std::fs::rename(&root, &other).unwrap();
    let while_away = connect();
    assert_eq!(
        kind_of(while_away.walk_directory(&ObjectPath::root(), &mut |_, _| ())),
        ErrorKind::Unreachable
    );
    std::fs::create_dir(&root).unwrap();
    let error = while_away
        .walk_directory(&ObjectPath::root(), &mut |_, _| ())
        .unwrap_err();
    assert!(error.kind() == ErrorKind::Unreachable && error.may_retry(), "{error}");
    assert!(error.to_string().contains("another folder stands at"), "{error}");
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&other, &root).unwrap();
    assert_eq!(walk(&while_away, "").len(), 0);

    let bad = SourceSpec::from_path(&root, &BTreeMap::from([("root_id".into(), "x".into())])).unwrap();
    assert_eq!(
        kind_of(LocalBackend::connect(&bad, &Limits::default())),
        ErrorKind::Settings
    );
}

#[test]
fn a_root_is_a_folder_with_an_absolute_path() {
    assert_eq!(kind_of(LocalBackend::open(Path::new("relative"))), ErrorKind::Settings);
    assert_eq!(
        kind_of(LocalBackend::open(Path::new("/nowhere/at/all"))),
        ErrorKind::Unreachable
    );
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec()));
    assert!(
        LocalBackend::open(&odd)
            .unwrap_err()
            .to_string()
            .contains("file:///tmp/%FF")
    );
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_keeps_its_permit_until_it_is_over() {
    let (_folder, backend) = folder();
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = backend.clone();
    let call = tokio::spawn(async move {
        let stuck = move |_: &Folder| {
            entered.send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        };
        other.blocking(Operation::Stat, &ObjectPath::root(), stuck).await
    });
    has_entered.await.unwrap();
    let all = CONCURRENCY as usize;
    assert_eq!(backend.permits.available_permits(), all - 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(backend.permits.available_permits(), all - 1);
    go.send(()).unwrap();
    drop(backend.permits.acquire_many(CONCURRENCY).await.unwrap());
}
