//! A file that is replaced while it is open: the handle reads the version that it opened, or `ESTALE`; never a mixture, and
//! never another version.
//!
//! Each version is one letter from end to end, so that a mixed read shows wherever it is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Apache, Azurite, FakeGcs, Nginx, Samba, SeaweedFs, Server, Sshd};

use crate::below;

/// Several blocks of every source.
const SIZE: usize = 12 << 20;
const STEP: usize = 256 << 10;
const FILE: &[u8] = b"d/file";

fn version(letter: u8, size: usize) -> Vec<u8> {
    vec![letter; size]
}

/// How a file is replaced.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// As the server's own protocol does.
    Put,
    /// By another file, renamed over it.
    Rename,
    /// Cut, and grown again, in place.
    TruncateThenGrow,
}

impl Way {
    fn replace(self, server: &dyn Server, bytes: &[u8]) {
        match self {
            Self::Put => server.put(FILE, bytes),
            Self::Rename => {
                server.put(b"d/other", bytes);
                fs::rename(server.file(b"d/other"), server.file(FILE)).expect("rename");
            }
            Self::TruncateThenGrow => {
                let file = File::options().write(true).open(server.file(FILE)).expect("open");
                file.set_len(10).expect("cut");
                file.write_all_at(bytes, 0).expect("grow");
            }
        }
    }
}

/// Reads a piece through a handle: the letter that it is made of, or `None` for `ESTALE`.
fn piece(file: &File, offset: usize, about: &str) -> Option<u8> {
    let mut bytes = vec![0; STEP];
    match file.read_at(&mut bytes, offset as u64) {
        Ok(0) => panic!("{about}: the file ends at {offset}"),
        Ok(count) => {
            let first = bytes[0];
            assert!(
                bytes[..count].iter().all(|byte| *byte == first),
                "{about}: a mixture at {offset}"
            );
            Some(first)
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => None,
        Err(error) => panic!("{about}: {error} at {offset}"),
    }
}

/// Reads a file from its name until that succeeds; a version that went away meanwhile is `ESTALE` in between.
fn whole(path: &Path, about: &str) -> Vec<u8> {
    for _ in 0..1_000 {
        let read = || -> io::Result<Vec<u8>> { fs::read(path) };
        match read() {
            Ok(bytes) => return bytes,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => {}
            Err(error) => panic!("{about}: {error}"),
        }
    }
    panic!("{about}: it never holds still");
}

/// Replaces a file under an open handle, and looks at what the handle and the name read from then on.
fn replace_under_a_handle(library: &Library, server: &dyn Server, attach: &str, way: Way, known: bool) {
    let about = format!("{attach}, {way:?}, {}", if known { "known" } else { "not known yet" });
    let path = below(&library.at(), attach).join("d/file");
    server.put(FILE, &version(b'a', SIZE));
    expect_success(library.command().args(["scan", attach]));
    let file = File::open(&path).expect("open");
    assert_eq!(piece(&file, 0, &about), Some(b'a'));
    // Of another size, since some servers tell time by the second.
    let larger = SIZE + 4321;
    way.replace(server, &version(b'b', larger));
    if known {
        expect_success(library.command().args(["scan", attach]));
    }
    // From the end, so that nothing was read ahead.
    for offset in (0..SIZE).step_by(STEP).rev() {
        let read = piece(&file, offset, &about);
        assert!(matches!(read, Some(b'a') | None), "{about}: {read:?} at {offset}");
    }
    if !known {
        // What the name reads is one version, whichever the mount knows of.
        let bytes = whole(&path, &about);
        let (letter, size) = (bytes[0], bytes.len());
        assert!(bytes.iter().all(|byte| *byte == letter), "{about}: a mixture");
        assert!(
            matches!((letter, size), (b'a', SIZE)) || (letter, size) == (b'b', larger),
            "{about}"
        );
        expect_success(library.command().args(["scan", attach]));
    }
    let bytes = whole(&path, &about);
    assert_eq!((bytes.len(), bytes.first()), (larger, Some(&b'b')), "{about}");
    assert!(bytes.iter().all(|byte| *byte == b'b'), "{about}: a mixture");
    assert_eq!(
        fs::metadata(&path).expect("it is there").len(),
        larger as u64,
        "{about}"
    );
    // The handle has not become another file.
    let read = piece(&file, SIZE - STEP, &about);
    assert!(matches!(read, Some(b'a') | None), "{about}: {read:?} in the end");
}

#[test]
fn a_handle_reads_its_own_version_or_none_on_every_kind_of_server() {
    let servers: Vec<(&str, Box<dyn Server>)> = vec![
        ("/smb", Box::new(Samba::start())),
        ("/s3", Box::new(SeaweedFs::start())),
        ("/dav", Box::new(Apache::start())),
        ("/dav-without-tags", Box::new(Nginx::start())),
        ("/sftp", Box::new(Sshd::start())),
        ("/azblob", Box::new(Azurite::start())),
        ("/gcs", Box::new(FakeGcs::start())),
    ];
    let mut library = Library::new(User::Current);
    for (attach, server) in &servers {
        server.put(FILE, b"");
        library.add_server_with(server.as_ref(), attach, &[("refresh", "1d")]);
    }
    library.mount();
    for (attach, server) in &servers {
        let ways: &[Way] = match server.root() {
            Some(_) => &[Way::Put, Way::Rename, Way::TruncateThenGrow],
            None => &[Way::Put],
        };
        for way in ways {
            for known in [true, false] {
                replace_under_a_handle(&library, server.as_ref(), attach, *way, known);
            }
        }
    }
    library.unmount();
}

fn replaced_in_a_local_folder(passthrough: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("file");
    fs::write(&source, version(b'a', SIZE)).expect("write");
    let mut library = Library::new(User::Current);
    library.add_folder(folder.path(), "/disk");
    if !passthrough {
        let settings = library.state().join("settings.toml");
        fs::write(&settings, "[mount]\npassthrough = false\n").expect("write the settings");
    }
    library.mount();
    let path = below(&library.at(), "/disk/file");
    let file = File::open(&path).expect("open");
    assert_eq!(piece(&file, 0, "local"), Some(b'a'));
    let other = folder.path().join("other");
    fs::write(&other, version(b'b', SIZE + 1)).expect("write");
    fs::rename(&other, &source).expect("rename");
    expect_success(library.command().args(["scan", "/disk"]));
    for offset in (0..SIZE).step_by(STEP).rev() {
        assert_eq!(
            piece(&file, offset, "local"),
            Some(b'a'),
            "the file that was opened is still there"
        );
    }
    let bytes = whole(&path, "local");
    assert_eq!(bytes, version(b'b', SIZE + 1));
    drop(file);

    // In place it is the same file, which everybody who has it open reads as it is now.
    let file = File::open(&path).expect("open");
    assert_eq!(piece(&file, 0, "local"), Some(b'b'));
    let writer = File::options().write(true).open(&source).expect("open");
    writer.set_len(10).expect("cut");
    writer.write_all_at(&version(b'c', SIZE), 0).expect("grow");
    expect_success(library.command().args(["scan", "/disk"]));
    for offset in (0..SIZE).step_by(STEP).rev() {
        assert_eq!(piece(&file, offset, "local"), Some(b'c'));
    }
    assert_eq!(whole(&path, "local"), version(b'c', SIZE));
    library.unmount();
}

#[test]
fn a_local_file_that_is_replaced_stays_what_was_opened_with_passthrough() {
    replaced_in_a_local_folder(true);
}

#[test]
fn a_local_file_that_is_replaced_stays_what_was_opened_without_passthrough() {
    replaced_in_a_local_folder(false);
}
