//! Where nothing can be changed, by the mount's or the source's settings, all that tries is told EROFS.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use manifold_fuse::MountOptions;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Timestamps, UTIME_NOW, XattrFlags},
    io::Errno,
};

use crate::library::{Library, errno};

/// Everything that changes a file system, by name.
fn changing_operations(data: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let file = data.join("file");
    let directory = data.join("directory");
    let new = data.join("new");
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let node = |kind| rustix::fs::mknodat(CWD, &new, kind, Mode::from_raw_mode(0o644), 0).map_err(io::Error::from);
    vec![
        ("open for writing", OpenOptions::new().write(true).open(&file).map(drop)),
        (
            "open for both",
            OpenOptions::new().read(true).write(true).open(&file).map(drop),
        ),
        (
            "open for appending",
            OpenOptions::new().append(true).open(&file).map(drop),
        ),
        ("open and truncate", File::create(&file).map(drop)),
        ("create", File::create(&new).map(drop)),
        ("create exclusively", File::create_new(&new).map(drop)),
        ("truncate", truncate(&file)),
        ("mknod, a file", node(FileType::RegularFile)),
        ("mknod, a FIFO", node(FileType::Fifo)),
        ("mknod, a socket", node(FileType::Socket)),
        ("mkdir", fs::create_dir(&new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(&directory)),
        ("symlink", symlink("file", &new)),
        ("link", fs::hard_link(&file, &new)),
        ("rename", fs::rename(&file, &new)),
        ("rename over", fs::rename(&file, data.join("other"))),
        ("rename out of the directory", fs::rename(&file, directory.join("file"))),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o600))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        (
            "utimens",
            rustix::fs::utimensat(CWD, &file, &times, AtFlags::empty()).map_err(Into::into),
        ),
        (
            "setxattr",
            rustix::fs::setxattr(&file, "user.a", b"1", XattrFlags::empty()).map_err(Into::into),
        ),
        (
            "removexattr",
            rustix::fs::removexattr(&file, "user.a").map_err(Into::into),
        ),
    ]
}

/// By path: an open for writing would fail before.
fn truncate(path: &Path) -> io::Result<()> {
    let status = std::process::Command::new("perl")
        .args(["-e", "truncate($ARGV[0], 1) or exit($!+0)"])
        .arg(path)
        .status()
        .expect("perl");
    match status.code() {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => panic!("perl was killed"),
    }
}

fn a_library() -> (tempfile::TempDir, Library) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "content").expect("a file");
    fs::write(folder.path().join("other"), "other").expect("a file");
    fs::create_dir(folder.path().join("directory")).expect("a directory");
    let library = Library::over_folder(folder.path());
    (folder, library)
}

fn all_refused(data: &Path, folder: &Path) {
    for (operation, result) in changing_operations(data) {
        assert_eq!(errno(result), Errno::ROFS, "{operation}");
    }
    assert_eq!(fs::read(folder.join("file")).expect("untouched"), b"content");
    assert_eq!(fs::read(folder.join("other")).expect("untouched"), b"other");
    assert_eq!(fs::read_dir(folder).expect("untouched").count(), 3);
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let (folder, library) = a_library();
    let options = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let mounted = library.mount(&options);
    all_refused(&mounted.path(""), folder.path());
}

#[test]
fn a_read_only_source_refuses_every_change() {
    let (folder, library) = a_library();
    library.make_read_only();
    let mounted = library.mount(&MountOptions::default());
    all_refused(&mounted.path(""), folder.path());
}

#[test]
fn fsync_of_a_file_that_nobody_wrote_to_succeeds() {
    let (_folder, library) = a_library();
    let mounted = library.mount(&MountOptions::default());
    File::open(mounted.path("file"))
        .expect("it opens")
        .sync_all()
        .expect("nothing to do");
    File::open(mounted.path("directory"))
        .expect("it opens")
        .sync_all()
        .expect("nothing to do");
}
