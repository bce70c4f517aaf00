//! Writing through the kernel: whoever writes, by the kernel's own hand or through us, finds the disk's semantics.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use manifold_fuse::MountOptions;
use rustix::{
    fs::{CWD, FallocateFlags, OFlags, RenameFlags, XattrFlags},
    io::Errno,
};

use crate::library::{Library, Mounted, PATIENCE, cached, errno, need_root, pattern};

/// Runs a test where the kernel reads and writes by itself, and where everything goes through us.
fn both_ways(test: impl Fn(&Mounted, &Path)) {
    need_root();
    for options in [MountOptions::default(), cached()] {
        let folder = tempfile::tempdir().expect("a folder");
        let library = Library::over_folder(folder.path());
        let mounted = library.mount(&options);
        test(&mounted, folder.path());
        assert_eq!(mounted.mount.passthrough(), options.passthrough);
    }
}

fn create(path: PathBuf) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.open(path).expect("it is created")
}

/// Names, times, sizes and modes, as they are on the disk.
fn agree(mounted: &Path, folder: &Path) {
    let look = |path: &Path| {
        let it = fs::symlink_metadata(path).expect("it is there");
        let size = if it.is_dir() { 0 } else { it.len() };
        (
            it.mode(),
            it.uid(),
            it.mtime(),
            it.mtime_nsec(),
            it.ctime(),
            it.ctime_nsec(),
            size,
        )
    };
    assert_eq!(look(mounted), look(folder), "{}", mounted.display());
}

#[test]
fn what_is_written_can_be_read_at_once_by_everybody_and_is_on_the_disk() {
    both_ways(|mounted, folder| {
        let bytes = pattern(3_000_000);
        let mut file = create(mounted.path("f"));
        for part in bytes.chunks(77_777) {
            file.write_all(part).expect("it is written");
        }
        let mut other = File::open(mounted.path("f")).expect("it opens");
        let mut read = Vec::new();
        other.read_to_end(&mut read).expect("it is read");
        assert!(read == bytes, "another descriptor");
        assert!(fs::read(folder.join("f")).expect("it is there") == bytes, "the disk");
        agree(&mounted.path("f"), &folder.join("f"));
        file.write_all_at(b"in the middle", 1_000_000).expect("it is written");
        agree(&mounted.path("f"), &folder.join("f"));
        drop(file);
        agree(&mounted.path("f"), &folder.join("f"));
        agree(&mounted.path(""), folder);
        let mut middle = [0; 13];
        other.read_exact_at(&mut middle, 1_000_000).expect("it is read");
        assert_eq!(&middle, b"in the middle");
    });
}

#[test]
fn a_file_that_is_open_for_reading_is_opened_for_writing_beside_it() {
    both_ways(|mounted, folder| {
        fs::write(folder.join("f"), "old bytes").expect("a file");
        let reader = File::open(mounted.path("f")).expect("it opens");
        let mut read = [0; 9];
        reader.read_exact_at(&mut read, 0).expect("it is read");
        let writer = OpenOptions::new()
            .write(true)
            .open(mounted.path("f"))
            .expect("it opens for writing");
        writer.write_all_at(b"new", 0).expect("it is written");
        reader.read_exact_at(&mut read, 0).expect("it is read");
        assert_eq!(&read, b"new bytes");
        let truncated = File::create(mounted.path("f")).expect("it opens and is truncated");
        assert_eq!(
            (
                fs::metadata(mounted.path("f")).expect("stat").len(),
                reader.metadata().expect("stat").len()
            ),
            (0, 0)
        );
        drop((writer, truncated));
        let appending = OpenOptions::new()
            .append(true)
            .open(mounted.path("f"))
            .expect("it opens for appending");
        (&appending).write_all(b"one").expect("it is appended");
        fs::OpenOptions::new()
            .append(true)
            .open(folder.join("f"))
            .expect("open")
            .write_all(b"two")
            .expect("behind");
        (&appending).write_all(b"three").expect("it is appended");
        assert_eq!(fs::read(folder.join("f")).expect("read"), b"onetwothree");
    });
}

#[test]
fn unaligned_and_direct_writes_meet() {
    both_ways(|mounted, folder| {
        let file = create(mounted.path("f"));
        file.write_all_at(&pattern(10_000), 3).expect("it is written");
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(mounted.path("f"))
            .expect("it opens");
        // Aligned, wherever the vector begins.
        let room = vec![7_u8; 8_192 + 4_096];
        let skip = room.as_ptr().align_offset(4_096);
        direct
            .write_all_at(&room[skip..skip + 4_096], 4_096)
            .expect("it is written");
        let mut expected = vec![0, 0, 0];
        expected.extend(pattern(10_000));
        expected[4_096..8_192].fill(7);
        assert!(fs::read(folder.join("f")).expect("read") == expected);
        let mut read = vec![0; expected.len()];
        file.read_exact_at(&mut read, 0).expect("read");
        assert!(read == expected);
    });
}

#[test]
fn a_file_without_a_name_is_a_file_until_it_is_closed() {
    both_ways(|mounted, folder| {
        let mut file = create(mounted.path("f"));
        fs::remove_file(mounted.path("f")).expect("it goes");
        assert_eq!(fs::read_dir(folder).expect("list").count(), 0);
        file.write_all(b"bytes").expect("it is written");
        file.set_permissions(fs::Permissions::from_mode(0o600)).expect("chmod");
        file.set_len(3).expect("truncate");
        let seen = file.metadata().expect("stat");
        assert_eq!((seen.len(), seen.nlink(), seen.mode() & 0o7777), (3, 0, 0o600));
        let mut read = String::new();
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.read_to_string(&mut read).expect("read");
        assert_eq!(read, "byt");
        file.sync_all().expect("sync");

        // One that is only read, and is replaced.
        fs::write(mounted.path("g"), "old").expect("write");
        let reader = File::open(mounted.path("g")).expect("it opens");
        fs::write(mounted.path("new"), "new").expect("write");
        fs::rename(mounted.path("new"), mounted.path("g")).expect("rename");
        reader
            .set_permissions(fs::Permissions::from_mode(0o640))
            .expect("chmod");
        let seen = reader.metadata().expect("stat");
        assert_eq!((seen.nlink(), seen.mode() & 0o7777), (0, 0o640));
        let mut old = [0; 3];
        reader.read_exact_at(&mut old, 0).expect("read");
        assert_eq!(&old, b"old");
        assert_eq!(fs::read(mounted.path("g")).expect("read"), b"new");
    });
}

#[test]
fn a_directory_in_which_somebody_stands_keeps_its_name() {
    both_ways(|mounted, _| {
        fs::create_dir(mounted.path("d")).expect("mkdir");
        let inside = File::open(mounted.path("d")).expect("it opens");
        fs::write(mounted.path("d/f"), "x").expect("write");
        fs::rename(mounted.path("d"), mounted.path("e")).expect("rename");
        mounted.mount.settle(PATIENCE);
        let link = fs::read_link(format!("/proc/self/fd/{}", inside.as_raw_fd())).expect("its path");
        assert_eq!(link, mounted.path("e"));
        assert_eq!(fs::read_dir(mounted.path("e")).expect("list").count(), 1);
    });
}

#[test]
fn holes_room_and_copies_are_the_disks() {
    both_ways(|mounted, folder| {
        let file = create(mounted.path("f"));
        file.write_all_at(&pattern(1 << 20), 1 << 20).expect("it is written");
        let data = |offset| rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(offset));
        assert_eq!((data(0), data(2 << 20)), (Ok(1 << 20), Err(Errno::NXIO)));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 1 << 20, 1 << 19).expect("a hole");
        assert_eq!(data(0), Ok(3 << 19));
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4 << 20).expect("room");
        assert_eq!(file.metadata().expect("stat").len(), 4 << 20);
        let copy = create(mounted.path("g"));
        let copied = rustix::fs::copy_file_range(&file, Some(&mut (3 << 19)), &copy, Some(&mut 5), 1 << 18);
        assert_eq!(copied, Ok(1 << 18));
        assert_eq!(fs::metadata(mounted.path("g")).expect("stat").len(), (1 << 18) + 5);
        assert!(fs::read(folder.join("g")).expect("read")[5..] == pattern(1 << 20)[1 << 19..(1 << 19) + (1 << 18)]);
        // A reader whom the kernel serves by itself finds holes too.
        let reader = File::open(mounted.path("f")).expect("it opens");
        let beneath = File::open(folder.join("f")).expect("it opens");
        for offset in [0, 1 << 20, 7 << 18, 3 << 20] {
            for from in [rustix::fs::SeekFrom::Hole(offset), rustix::fs::SeekFrom::Data(offset)] {
                assert_eq!(
                    rustix::fs::seek(&reader, from),
                    rustix::fs::seek(&beneath, from),
                    "{from:?}"
                );
            }
        }
    });
}

#[test]
fn extended_attributes_are_the_disks_and_a_missing_access_list_is_said_once_for_all() {
    both_ways(|mounted, folder| {
        let path = mounted.path("f");
        drop(create(path.clone()));
        let mut value = [0_u8; 16];
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut value), Err(Errno::NODATA));
        rustix::fs::setxattr(&path, "user.a", b"one", XattrFlags::CREATE).expect("set");
        assert_eq!(
            rustix::fs::setxattr(&path, "user.a", b"one", XattrFlags::CREATE),
            Err(Errno::EXIST)
        );
        assert_eq!(
            rustix::fs::setxattr(&path, "user.b", b"", XattrFlags::REPLACE),
            Err(Errno::NODATA)
        );
        assert_eq!(rustix::fs::getxattr(folder.join("f"), "user.a", &mut value), Ok(3));
        assert_eq!(
            rustix::fs::getxattr(&path, "user.a", &mut value[..2]),
            Err(Errno::RANGE)
        );
        assert_eq!(rustix::fs::listxattr(&path, &mut value), Ok(7));
        rustix::fs::removexattr(&path, "user.a").expect("remove");
        agree(&path, &folder.join("f"));
        for name in ["system.posix_acl_access", "security.selinux"] {
            assert_eq!(
                rustix::fs::lgetxattr(&path, name, &mut value),
                Err(Errno::OPNOTSUPP),
                "{name}"
            );
        }
        // A list of `user::rw-, user:1234:r--, group::---, mask::r--, other::---`.
        let entry = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let mut list = 2_u32.to_le_bytes().to_vec();
        for part in [
            entry(1, 6, none),
            entry(2, 4, 1234),
            entry(4, 0, none),
            entry(0x10, 4, none),
            entry(0x20, 0, none),
        ] {
            list.extend(part);
        }
        rustix::fs::setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()).expect("set a list");
        let mut got = [0; 100];
        let length = rustix::fs::lgetxattr(&path, "system.posix_acl_access", &mut got).expect("get a list");
        assert_eq!(got[..length], list[..]);
        assert_eq!(
            fs::metadata(&path).expect("stat").mode() & 0o777,
            0o640,
            "the group's bits are the mask"
        );
        agree(&path, &folder.join("f"));
    });
}

#[test]
fn errors_of_the_disk_come_through_as_they_are() {
    both_ways(|mounted, _| {
        fs::create_dir_all(mounted.path("d/e")).expect("directories");
        drop(create(mounted.path("f")));
        assert_eq!(errno(fs::remove_dir(mounted.path("d"))), Errno::NOTEMPTY);
        assert_eq!(errno(fs::remove_dir(mounted.path("f"))), Errno::NOTDIR);
        assert_eq!(errno(fs::remove_file(mounted.path("d"))), Errno::ISDIR);
        assert_eq!(errno(fs::create_dir(mounted.path("f"))), Errno::EXIST);
        assert_eq!(errno(fs::create_dir(mounted.path("none/x"))), Errno::NOENT);
        assert_eq!(
            errno(fs::rename(mounted.path("d"), mounted.path("d/e/x"))),
            Errno::INVAL
        );
        assert_eq!(errno(fs::rename(mounted.path("f"), mounted.path("d"))), Errno::ISDIR);
        assert_eq!(errno(File::create(mounted.path(&"x".repeat(256)))), Errno::NAMETOOLONG);
        let exchange =
            |a: &str, b: &str, flags| rustix::fs::renameat_with(CWD, mounted.path(a), CWD, mounted.path(b), flags);
        assert_eq!(exchange("f", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
        assert_eq!(exchange("f", "d", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        assert_eq!(exchange("f", "d", RenameFlags::EXCHANGE), Ok(()));
        assert!(mounted.path("d").is_file() && mounted.path("f/e").is_dir());
        assert_eq!(errno(fs::create_dir(mounted.root().join("new"))), Errno::ROFS);
        assert_eq!(errno(fs::remove_dir(mounted.root().join("data"))), Errno::ROFS);
    });
}

#[test]
fn a_write_that_nobody_asked_for_by_the_kernel_shows_when_the_file_is_closed() {
    both_ways(|mounted, folder| {
        drop(create(mounted.path("f")));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(mounted.path("f"))
            .expect("it opens");
        // As pages of a mapping are: the kernel knows of no write here.
        fs::write(folder.join("f"), "behind").expect("write");
        assert_eq!(fs::metadata(mounted.path("f")).expect("stat").len(), 6);
        drop(file);
        assert_eq!(fs::metadata(mounted.path("f")).expect("stat").len(), 6);
        mounted.mount.settle(Duration::from_secs(1));
        agree(&mounted.path("f"), &folder.join("f"));
    });
}

#[test]
fn df_shows_the_room_of_the_disk_where_something_can_be_made() {
    both_ways(|mounted, folder| {
        let (here, beneath) = (
            rustix::fs::statvfs(mounted.path("")).expect("it answers"),
            rustix::fs::statvfs(folder).expect("it answers"),
        );
        assert_eq!(here.f_blocks * here.f_frsize, beneath.f_blocks * beneath.f_frsize);
        assert!(here.f_bavail > 0 && here.f_ffree > 0);
    });
}

/// The kernel takes the name for free, and would neither cut the file off nor ask who may open it.
#[test]
fn what_somebody_has_made_a_moment_ago_is_cut_off_by_who_asks_for_that() {
    both_ways(|mounted, folder| {
        for number in 0..20 {
            let name = format!("f{number}");
            fs::metadata(mounted.path(&name)).expect_err("it is not there yet");
            fs::write(folder.join(&name), pattern(100_000)).expect("it is made beside the mount");
            fs::write(mounted.path(&name), "hi").expect("it is written");
            assert_eq!(fs::read(folder.join(&name)).expect("it is there"), b"hi");
        }
    });
}
