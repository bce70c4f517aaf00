//! Bytes and attributes come through as they are, by whichever way they come.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::{
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    thread,
};

use manifold_fuse::MountOptions;
use rustix::{
    fs::{CWD, Mode},
    process::{Resource, Rlimit},
};

use crate::{
    children::Daemon,
    library::{Library, cached, need_root, pattern},
};

fn holding(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Library) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(name), bytes).expect("a file");
    let library = Library::over_folder(folder.path());
    (folder, library)
}

/// Reads a file whole, in odd pieces and backwards, and compares.
fn reads_as(path: &Path, expected: &[u8]) {
    assert!(fs::read(path).expect("it reads") == expected, "read whole");
    let file = File::open(path).expect("it opens");
    assert_eq!(file.metadata().expect("it is there").len(), expected.len() as u64);
    let mut piece = vec![0; 70_001];
    for start in (0..expected.len() + piece.len()).step_by(65_537).rev() {
        let count = file.read_at(&mut piece, start as u64).expect("it reads");
        let there = expected.get(start..).unwrap_or_default();
        let there = &there[..there.len().min(piece.len())];
        // A read may be cut short by the kernel, but not to nothing.
        assert!(count > 0 || there.is_empty(), "at {start}");
        assert!(piece[..count] == there[..count], "at {start}");
    }
}

#[test]
fn the_bytes_are_the_same_with_passthrough_and_without() {
    need_root();
    for length in [0, 1, 4095, 4096, 4097, 5_000_003] {
        let bytes = pattern(length);
        let (_folder, library) = holding("file", &bytes);
        let mounted = library.mount(&MountOptions::default());
        reads_as(&mounted.path("file"), &bytes);
        assert!(
            mounted.mount.passthrough(),
            "root on this kernel has passthrough (Linux 6.9)"
        );
        mounted.mount.unmount().expect("it unmounts");

        let mounted = library.mount(&cached());
        assert!(!mounted.mount.passthrough());
        reads_as(&mounted.path("file"), &bytes);
    }
}

#[test]
fn a_file_is_opened_again_and_again_in_every_order() {
    let bytes = pattern(200_000);
    let (_folder, library) = holding("file", &bytes);
    let mounted = library.mount(&MountOptions::default());
    let path = mounted.path("file");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (path, bytes) = (path.clone(), bytes.clone());
            thread::spawn(move || {
                for round in 0..50 {
                    let first = File::open(&path).expect("it opens");
                    let second = File::open(&path).expect("it opens beside the first");
                    let mut byte = [0];
                    drop(first);
                    second
                        .read_exact_at(&mut byte, round * 1000)
                        .expect("it reads after the first was closed");
                    assert_eq!(byte[0], bytes[round as usize * 1000]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("each open and read went well");
    }
}

#[test]
fn a_program_runs_from_the_mount() {
    // Running a program maps it into memory.
    for options in [MountOptions::default(), cached()] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy("/bin/echo", folder.path().join("program")).expect("a program");
        let library = Library::over_folder(folder.path());
        let mounted = library.mount(&options);
        let output = Command::new(mounted.path("program"))
            .arg("mapped")
            .output()
            .expect("it runs");
        assert_eq!(output.stdout, b"mapped\n");
    }
}

const FILES: u32 = 3000;

#[test]
fn a_daemon_with_64_descriptors_serves_3000_open_files() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..FILES {
        fs::write(folder.path().join(number.to_string()), number.to_le_bytes()).expect("a file");
    }
    let wanted = Rlimit {
        current: Some(u64::from(FILES) + 100),
        maximum: Some(u64::from(FILES) + 100),
    };
    let had = rustix::process::getrlimit(Resource::Nofile);
    if had.current.is_some_and(|limit| limit < u64::from(FILES) + 100) {
        let maximum = had.maximum.max(wanted.maximum);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { maximum, ..wanted }).expect("root may");
    }
    let place = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), place.path(), 64);
    let open: Vec<File> = (0..FILES)
        .map(|number| {
            File::open(place.path().join("data").join(number.to_string()))
                .unwrap_or_else(|error| panic!("file {number} does not open: {error}"))
        })
        .collect();
    for (mut file, number) in open.iter().zip(0..FILES) {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).expect("it reads");
        assert_eq!(u32::from_le_bytes(bytes), number);
    }
    drop(open);
    daemon.end();
}

#[test]
fn attributes_of_a_local_file_are_its_own() {
    let (folder, library) = holding("file", &pattern(10_000));
    let original = folder.path().join("file");
    fs::set_permissions(&original, fs::Permissions::from_mode(0o640)).expect("ours");
    fs::hard_link(&original, folder.path().join("link")).expect("a second name");
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_millis(1_500));
    File::options()
        .write(true)
        .open(&original)
        .expect("ours")
        .set_times(times)
        .expect("a time before 1970");
    let mounted = library.mount(&MountOptions::default());
    let (ours, theirs) = (fs::metadata(mounted.path("file")), fs::metadata(&original));
    let (ours, theirs) = (ours.expect("it is there"), theirs.expect("it is there"));
    assert_eq!(ours.len(), theirs.len());
    assert_eq!(ours.mode(), theirs.mode());
    assert_eq!((ours.uid(), ours.gid()), (theirs.uid(), theirs.gid()));
    assert_eq!((ours.mtime(), ours.mtime_nsec()), (theirs.mtime(), theirs.mtime_nsec()));
    assert_eq!((ours.mtime(), ours.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(ours.nlink(), 2);
    assert_eq!(
        fs::metadata(mounted.path("")).expect("it is there").nlink(),
        1,
        "of a directory"
    );
}

#[test]
fn special_files_are_shown_and_never_block() {
    let (folder, library) = holding("file", b"content");
    rustix::fs::mknodat(
        CWD,
        folder.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a FIFO");
    let _listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
    symlink("file", folder.path().join("link")).expect("a link");
    symlink("nowhere/at all", folder.path().join("dangling")).expect("a link");
    let mounted = library.mount(&MountOptions::default());
    let kind = |name| {
        fs::symlink_metadata(mounted.path(name))
            .expect("it is there")
            .file_type()
    };
    assert!(kind("fifo").is_fifo());
    assert!(kind("socket").is_socket());
    assert!(kind("link").is_symlink());
    assert_eq!(
        fs::read_to_string(mounted.path("link")).expect("it leads to the file"),
        "content"
    );
    for _ in 0..2 {
        let target = fs::read_link(mounted.path("dangling")).expect("it is a link");
        assert_eq!(target, Path::new("nowhere/at all"));
    }
    // The kernel opens it by itself, as a FIFO between the processes that use the mount.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(mounted.path("fifo"))
        .expect("it opens");
}

#[test]
fn data_and_holes_are_found_by_the_size() {
    let (_folder, library) = holding("file", &pattern(10_000));
    let mounted = library.mount(&cached());
    let file = File::open(mounted.path("file")).expect("it opens");
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).expect("at the end"),
        10_000
    );
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(5)).expect("all is data"),
        5
    );
    let mut file = file;
    assert_eq!(file.seek(SeekFrom::End(-1)).expect("it seeks"), 9_999);
}
