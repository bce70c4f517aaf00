//! Mounting, unmounting, and what is left when either goes wrong.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use manifold_fuse::{MountError, MountOptions, Unmounted};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{
    children::{Daemon, as_ordinary_user},
    library::{Library, cached, errno, need_root, pattern},
};

/// The line of the mount table for a mount point.
fn table_line(point: &std::path::Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mounts").expect("the mount table");
    let point = format!(" {} ", point.display());
    table.lines().rfind(|line| line.contains(&point)).map(str::to_owned)
}

#[test]
fn a_mount_comes_and_goes_and_comes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "content").expect("a file");
    let library = Library::over_folder(folder.path());
    for _ in 0..3 {
        let mounted = library.mount(&MountOptions::default());
        assert_eq!(fs::read_to_string(mounted.path("file")).expect("it reads"), "content");
        assert_eq!(mounted.mount.unmount().expect("it unmounts"), Unmounted::Entirely);
        assert!(
            fs::read_dir(mounted.root())
                .expect("the empty directory")
                .next()
                .is_none()
        );
    }
}

#[test]
fn the_mount_table_shows_a_nosuid_nodev_mount_of_ours_and_whether_it_is_read_only() {
    for (read_only, shown) in [(true, "ro"), (false, "rw")] {
        shows_in_the_mount_table(read_only, shown);
    }
}

fn shows_in_the_mount_table(read_only: bool, shown: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let options = MountOptions {
        fs_name: "my library, all of it".to_owned(),
        read_only,
        ..MountOptions::default()
    };
    let mounted = library.mount(&options);
    let line = table_line(mounted.root()).expect("it is mounted");
    assert!(line.starts_with("my\\040library,\\040all\\040of\\040it "), "{line}");
    assert!(
        line.contains(&format!(" fuse.manifold {shown},nosuid,nodev,")),
        "{line}"
    );
    assert!(
        line.contains("default_permissions") && !line.contains("allow_other"),
        "{line}"
    );
    assert_eq!(
        fs::metadata(mounted.root()).expect("it is there").dev(),
        mounted.mount.device()
    );
}

#[test]
fn dropping_a_mount_unmounts() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    let point = mounted.root().to_owned();
    drop(mounted);
    assert_eq!(table_line(&point), None);
}

#[test]
fn a_place_that_does_not_suit_is_refused_with_a_word_on_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let place = tempfile::tempdir().expect("a folder");
    let mount = |at: &str| {
        library
            .mount_at(&place.path().join(at), &MountOptions::default())
            .expect_err("refused")
    };

    assert!(matches!(mount("missing"), MountError::Missing(_)));
    fs::write(place.path().join("file"), "").expect("a file");
    assert!(matches!(mount("file"), MountError::NotADirectory(_)));
    assert!(matches!(mount(""), MountError::NotEmpty(_)));
    for error in [mount("missing"), mount("")] {
        assert!(error.to_string().contains('\n'), "no hint: {error}");
    }

    let mounted = library.mount(&MountOptions::default());
    let again = library
        .mount_at(mounted.root(), &MountOptions::default())
        .expect_err("refused");
    assert!(matches!(again, MountError::AlreadyMounted { .. }), "{again}");
    assert!(mounted.root().join("data").exists(), "the mount that is there stays");
}

#[test]
fn what_a_killed_daemon_leaves_is_cleared_away_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "content").expect("a file");
    let place = tempfile::tempdir().expect("a folder");

    for look_before in [false, true] {
        let daemon = Daemon::start(folder.path(), place.path(), 1024);
        if look_before {
            // So that the kernel remembers some of it when the daemon is dead.
            assert!(fs::metadata(place.path()).expect("it is there").is_dir());
            assert_eq!(
                fs::read_to_string(place.path().join("data/file")).expect("it reads"),
                "content"
            );
        }
        daemon.kill();
        assert_eq!(
            errno(fs::read_dir(place.path().join("data"))),
            rustix::io::Errno::NOTCONN
        );
    }

    Daemon::start(folder.path(), place.path(), 1024).end();
    assert_eq!(table_line(place.path()), None, "neither the dead mount nor the new one");
}

#[test]
fn an_open_file_outlives_a_busy_unmount() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), pattern(3_000_000)).expect("a file");
    let library = Library::over_folder(folder.path());
    for options in [cached(), MountOptions::default()] {
        let mounted = library.mount(&options);
        let mut file = fs::File::open(mounted.path("file")).expect("it opens");
        assert_eq!(mounted.mount.unmount().expect("busy is no error"), Unmounted::InUse);
        assert_eq!(table_line(mounted.root()), None, "the name is free");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("it is still served");
        assert!(bytes == pattern(3_000_000));
        drop(file);
        mounted.mount.wait();
    }
}

#[test]
fn an_unmount_from_outside_ends_the_session() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    rustix::mount::unmount(mounted.root(), UnmountFlags::empty()).expect("root may");
    mounted.mount.wait();
    assert_eq!(mounted.mount.unmount().expect("it is over"), Unmounted::Entirely);
}

#[test]
fn the_end_of_an_old_mount_leaves_a_newer_one_alone() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let old = library.mount(&MountOptions::default());
    let held = fs::File::open(old.root().join("data")).expect("it opens");
    rustix::mount::unmount(old.root(), UnmountFlags::DETACH).expect("root may");
    let newer = library.mount(&MountOptions::default());

    // Detached but in use: unmounting it by its path would hit the newer one.
    old.mount.unmount().expect("nothing of it is left to unmount");
    assert!(newer.root().join("data").exists(), "by unmounting the old one");
    drop(held);
    old.mount.wait();
    drop(old);
    assert!(
        newer.root().join("data").exists(),
        "by the end of the old one's session"
    );
}

#[test]
fn the_end_of_an_old_mount_leaves_one_alone_that_got_its_device_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    for _ in 0..20 {
        let old = library.mount(&MountOptions::default());
        let held = fs::File::open(old.root().join("data")).expect("it opens");
        assert_eq!(old.mount.unmount().expect("busy is no error"), Unmounted::InUse);
        // Frees the number, which the next mount gets, and ends the old session, which looks after its mount point.
        drop(held);
        let newer = library.mount(&MountOptions::default());
        old.mount.wait();
        assert!(newer.root().join("data").exists());
    }
}

#[test]
fn a_mount_beneath_another_is_not_reached_through_it() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    rustix::mount::mount("none", mounted.root(), "tmpfs", MountFlags::empty(), None).expect("root may");
    let covered = mounted.mount.unmount().expect_err("the other mount is in the way");
    assert!(matches!(covered, MountError::Covered(_)), "{covered}");
    rustix::mount::unmount(mounted.root(), UnmountFlags::empty()).expect("root may");
    assert_eq!(mounted.mount.unmount().expect("now it is on top"), Unmounted::Entirely);
}

/// Plays a part as an ordinary user, and fails with what that said if it did not go well.
fn ordinary_user(part: &str, device_mode: &str) {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(folder.path().join("file"), pattern(300_000)).expect("a file");
    let own = tempfile::tempdir().expect("a folder");
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let output = as_ordinary_user(part, folder.path(), own.path(), device_mode);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("the user is content"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_ordinary_user_mounts_reads_and_unmounts() {
    ordinary_user("user", "0666");
}

#[test]
fn a_user_who_may_not_open_the_device_is_told_so() {
    ordinary_user("user without a device", "0600");
}
