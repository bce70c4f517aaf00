use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use futures::StreamExt;
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::Timestamp;

mod changes;
mod root;
mod versions;
mod watch;

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
    let walked = backend.walk_directory(&path(directory), None, &mut |name, metadata| {
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
    let walked = backend.walk_directory(&ObjectPath::root(), None, &mut |name, _| {
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
            kind_of(backend.walk_directory(&path("closed"), None, &mut |_, _| ())),
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

#[test]
fn times_that_do_not_fit_are_the_nearest_that_do() {
    assert_eq!(Timestamp::from_parts(i64::MAX, 999_999_999), Timestamp(i64::MAX));
    assert!(Timestamp::from_parts(i64::MIN, 0) < Timestamp::from_parts(-9_000_000_000, 0));
    assert_eq!(Timestamp::from_parts(-1, 250_000_000), Timestamp(-750_000_000));
    let (folder, backend) = folder();
    for (name, seconds) in [("past", -3_000_000_000_i64), ("future", 14_000_000_000)] {
        let path = folder.path().join(name);
        let file = File::create(&path).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: 1,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).unwrap();
        // What the file system made of it, which may not go so far itself.
        let real = path.metadata().unwrap();
        let expected = Timestamp::from_parts(real.mtime(), real.mtime_nsec() as u32);
        assert_eq!(walk(&backend, "")[name.as_bytes()].modified, Some(expected), "{name}");
    }
}
