//! Changes on the disk: what is made, renamed, removed, written, and to whom it belongs.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use super::*;
use crate::local::{AttributeChange, Durable, FileAccess, Making, NewTime, Place, RenameMode, Seek, SetMode, WriteAt};

const ME: Asker = Asker {
    uid: 0,
    gid: 0,
    umask: 0o022,
};
const ADA: Asker = Asker {
    uid: 1234,
    gid: 2345,
    umask: 0o027,
};

fn place(directory: &str, name: &str) -> Place {
    Place {
        directory: path(directory),
        name: name.into(),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn write(file: &LocalFile, offset: u64, bytes: &[u8]) -> usize {
    file.write(WriteAt::Offset(offset), bytes, Durable::Later, true)
        .unwrap()
}

#[test]
fn everything_that_can_be_made_is_made_with_the_askers_mask_and_told_as_it_is() {
    let (folder, backend) = folder();
    let cases = [
        (Making::Directory, Kind::Directory),
        (Making::File, Kind::File),
        (Making::Symlink(b"to/nowhere".to_vec()), Kind::Symlink),
        (Making::Fifo, Kind::Fifo),
        (Making::Socket, Kind::Socket),
        (Making::CharDevice(rustix::fs::makedev(1, 3)), Kind::CharDevice),
    ];
    for (making, expected) in cases {
        let name = format!("{expected:?}");
        let made = found(backend.make(&place("", &name), &making, 0o777, ME));
        assert_eq!(made.object.kind, expected);
        let there = fs::symlink_metadata(folder.path().join(&name)).unwrap();
        let bits = if expected == Kind::Symlink { 0o777 } else { 0o755 };
        assert_eq!((there.mode() & 0o7777, made.object.mode), (bits, Some(bits)), "{name}");
        assert_eq!(
            kind(backend.make(&place("", &name), &making, 0o777, ME)),
            ErrorKind::Exists
        );
        assert!(
            backend
                .make(&place("none", &name), &making, 0o777, ME)
                .unwrap()
                .is_absent()
        );
    }
    assert!(
        fs::symlink_metadata(folder.path().join("Fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let made = backend.make(&place("", name), &Making::Directory, 0o777, ME);
        assert_eq!(kind(made), ErrorKind::InvalidArgument, "{name:?}");
    }
}

#[test]
fn what_is_made_belongs_to_whoever_asked_and_to_the_group_of_a_setgid_directory() {
    let (folder, backend) = folder();
    found(backend.make(&place("", "shared"), &Making::Directory, 0o777, ME));
    let shared = folder.path().join("shared");
    std::os::unix::fs::chown(&shared, None, Some(77)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2770)).unwrap();
    for (directory, gid, setgid) in [("", ADA.gid, 0), ("shared", 77, 0o2000)] {
        let made = found(backend.make(&place(directory, "d"), &Making::Directory, 0o777, ADA)).object;
        assert_eq!((made.owner, made.mode), (Some((ADA.uid, gid)), Some(0o750 | setgid)));
        let made = found(backend.make(&place(directory, "l"), &Making::Symlink(b"x".to_vec()), 0o777, ADA));
        assert_eq!(made.object.owner, Some((ADA.uid, gid)));
        let (_, made, is_new) =
            found(backend.create_file(&place(directory, "f"), 0o666, FileAccess::ReadWrite, true, ADA));
        assert!(is_new);
        assert_eq!(
            (made.object.owner, made.object.mode),
            (Some((ADA.uid, gid)), Some(0o640))
        );
    }
    // The thread is who it was.
    let made = found(backend.make(&place("", "mine"), &Making::File, 0o666, ME)).object;
    assert_eq!(made.owner, Some((0, 0)));
    fs::write(folder.path().join("by other means"), "").unwrap();
    assert_eq!(fs::metadata(folder.path().join("by other means")).unwrap().uid(), 0);
}

#[test]
fn a_default_acl_has_its_way_and_the_mask_has_none() {
    let (folder, backend) = folder();
    let set = std::process::Command::new("setfacl")
        .args(["-d", "-m", "u::rwx,g::rwx,o::r-x"])
        .arg(folder.path())
        .status();
    assert!(set.unwrap().success(), "setfacl, of the package acl");
    let made = found(backend.make(&place("", "d"), &Making::Directory, 0o777, ADA)).object;
    assert_eq!(made.mode, Some(0o775));
}

#[test]
fn a_file_is_made_once_and_found_after_that() {
    let (folder, backend) = folder();
    let create =
        |name: &str, exclusive| backend.create_file(&place("", name), 0o644, FileAccess::ReadWrite, exclusive, ME);
    let (file, made, is_new) = found(create("f", true));
    assert!(is_new && file.writes() && made.object.size == 0);
    assert_eq!(write(&file, 0, b"hello"), 5);
    let (again, made, is_new) = found(create("f", false));
    assert!(!is_new && made.object.size == 5);
    assert_eq!(&again.read_now(1, 3).unwrap().unwrap()[..], b"ell");
    assert_eq!(kind(create("f", true)), ErrorKind::Exists);
    fs::create_dir(folder.path().join("d")).unwrap();
    assert_eq!(kind(create("d", false)), ErrorKind::IsADirectory);
    // A link is not followed, wherever it leads to.
    let outside = TempDir::new().unwrap();
    symlink(outside.path().join("new"), folder.path().join("l")).unwrap();
    assert_eq!(kind(create("l", false)), ErrorKind::Unsupported);
    assert!(!outside.path().join("new").exists());
    symlink(outside.path(), folder.path().join("out")).unwrap();
    let through = backend.create_file(&place("out", "f"), 0o644, FileAccess::Write, false, ME);
    assert!(through.unwrap().is_absent());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn names_go_and_what_is_open_or_has_further_names_stays_at_hand() {
    let (folder, backend) = folder();
    fs::write(folder.path().join("f"), "text").unwrap();
    fs::create_dir_all(folder.path().join("d/e")).unwrap();
    assert_eq!(kind(backend.remove(&place("", "d"), true, false)), ErrorKind::NotEmpty);
    assert_eq!(
        kind(backend.remove(&place("", "d"), false, false)),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(backend.remove(&place("", "f"), true, false)),
        ErrorKind::NotADirectory
    );
    assert!(backend.remove(&place("", "g"), false, false).unwrap().is_absent());

    let held = found(backend.hold(&path("f")));
    let linked = found(backend.link(&held, &place("d", "g")));
    assert_eq!(linked.object.links, 2);
    let removed = found(backend.remove(&place("", "f"), false, false));
    assert_eq!(removed.object.links, 2);
    assert_eq!(removed.held.unwrap().metadata().unwrap().links, 1);
    let removed = found(backend.remove(&place("d", "g"), false, true));
    let held = removed.held.unwrap();
    assert_eq!(held.metadata().unwrap().links, 0);
    let changed = held.set(
        &AttributeChange {
            mode: Some(0o600),
            size: Some(2),
            ..AttributeChange::default()
        },
        true,
    );
    assert_eq!(
        (changed.as_ref().unwrap().mode, changed.unwrap().size),
        (Some(0o600), 2)
    );
    let (file, _) = backend.open_held(&held, FileAccess::ReadWrite).unwrap();
    assert_eq!(&file.read_now(0, 10).unwrap().unwrap()[..], b"te");
    found(backend.remove(&place("d", "e"), true, false));
}

#[test]
fn a_rename_replaces_refuses_or_exchanges() {
    let (folder, backend) = folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        fs::write(at(name), name).unwrap();
    }
    fs::create_dir_all(at("d/e")).unwrap();
    let rename =
        |from: &str, to: (&str, &str), mode| backend.rename_local(&place("", from), &place(to.0, to.1), mode, false);
    assert_eq!(kind(rename("a", ("", "b"), RenameMode::NoReplace)), ErrorKind::Exists);
    assert!(found(rename("a", ("", "b"), RenameMode::Exchange)).replaced.is_none());
    assert_eq!(
        (fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()),
        (b"b".to_vec(), b"a".to_vec())
    );
    let renamed = found(rename("a", ("", "b"), RenameMode::Replace));
    assert_eq!(renamed.replaced.map(|it| it.links), Some(1));
    assert_eq!(fs::read(at("b")).unwrap(), b"b");
    assert!(rename("a", ("d", "b"), RenameMode::Replace).unwrap().is_absent());
    assert!(rename("b", ("none", "b"), RenameMode::Replace).unwrap().is_absent());
    assert_eq!(
        kind(rename("d", ("d/e", "f"), RenameMode::Replace)),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(rename("b", ("", "d"), RenameMode::Replace)),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(rename("d", ("", "b"), RenameMode::Replace)),
        ErrorKind::NotADirectory
    );
    fs::create_dir(at("g")).unwrap();
    assert_eq!(kind(rename("g", ("", "d"), RenameMode::Replace)), ErrorKind::NotEmpty);
    assert_eq!(
        kind(rename("b", ("", &"x".repeat(256)), RenameMode::Replace)),
        ErrorKind::NameTooLong
    );
    // Two names of one file: a disk leaves both.
    fs::hard_link(at("b"), at("c")).unwrap();
    let renamed = found(rename("b", ("", "c"), RenameMode::Replace));
    assert!(renamed.nothing && at("b").exists() && at("c").exists());
}

#[test]
fn bytes_are_written_where_they_are_to_stand() {
    let (folder, backend) = folder();
    let (file, ..) = found(backend.create_file(&place("", "f"), 0o644, FileAccess::Write, true, ME));
    assert_eq!(write(&file, 4, b"four"), 4);
    let written = file.write(WriteAt::Append, b"end", Durable::Data, true).unwrap();
    assert_eq!(written, 3);
    let written = file.write(WriteAt::NoExtend(9), b"beyond", Durable::All, true).unwrap();
    assert_eq!(written, 2);
    assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"\0\0\0\0fourebe");
    file.truncate(6, true).unwrap();
    file.sync(false).unwrap();
    file.sync(true).unwrap();
    assert_eq!(file.held().metadata().unwrap().size, 6);
}

#[test]
fn holes_are_found_made_and_copied_around() {
    const MIB: u64 = 1 << 20;
    let (_folder, backend) = folder();
    let (file, ..) = found(backend.create_file(&place("", "f"), 0o644, FileAccess::ReadWrite, true, ME));
    write(&file, MIB, &vec![1; MIB as usize]);
    assert_eq!(
        (file.seek(Seek::Data, 0).unwrap(), file.seek(Seek::Hole, 0).unwrap()),
        (MIB, 0)
    );
    assert_eq!(file.seek(Seek::Hole, MIB).unwrap(), 2 * MIB);
    assert_eq!(kind(file.seek(Seek::Data, 2 * MIB)), ErrorKind::BeyondEnd);
    // Punching a hole keeps the size (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE).
    file.allocate(3, MIB, MIB / 2, true).unwrap();
    assert_eq!(file.seek(Seek::Data, 0).unwrap(), MIB + MIB / 2);
    file.allocate(0, 0, 4 * MIB, true).unwrap();
    let (seen, blocks) = file.held().metadata_and_blocks().unwrap();
    assert!(seen.size == 4 * MIB && blocks * 512 >= 4 * MIB, "{blocks}");
    let (copy, ..) = found(backend.create_file(&place("", "g"), 0o644, FileAccess::ReadWrite, true, ME));
    let copied = file.copy_to(2 * MIB - 2, &copy, 1, 4, true).unwrap();
    assert_eq!(copied, 4);
    assert_eq!(&copy.read_now(0, 9).unwrap().unwrap()[..], b"\0\x01\x01\0\0");
}

#[test]
fn attributes_are_changed_on_the_object_itself_and_on_no_target() {
    let (folder, backend) = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("f"), "text").unwrap();
    symlink("f", at("l")).unwrap();
    let hold = |name: &str| found(backend.hold(&path(name)));
    let all = AttributeChange {
        mode: Some(0o4751),
        uid: Some(5),
        gid: Some(6),
        size: Some(1),
        accessed: Some(NewTime::At(-7, 8)),
        modified: Some(NewTime::At(9, 10)),
    };
    let seen = hold("f").set(&all, true).unwrap();
    let there = fs::metadata(at("f")).unwrap();
    assert_eq!((there.uid(), there.gid(), there.mode() & 0o7777), (5, 6, 0o4751));
    assert_eq!(
        (there.atime(), there.atime_nsec(), there.mtime(), there.mtime_nsec()),
        (-7, 8, 9, 10)
    );
    assert_eq!((seen.owner, seen.mode, seen.size), (Some((5, 6)), Some(0o4751), 1));
    assert_eq!(seen.modified, Some(Timestamp::from_parts(9, 10)));
    let owner = AttributeChange {
        uid: Some(7),
        modified: Some(NewTime::Now),
        ..AttributeChange::default()
    };
    assert_eq!(hold("l").set(&owner, true).unwrap().owner.map(|it| it.0), Some(7));
    assert_eq!(fs::metadata(at("f")).unwrap().uid(), 5);
    assert!(fs::symlink_metadata(at("l")).unwrap().mtime() > 9);
    assert_eq!(hold("l").target().unwrap(), b"f");
    hold("f").target().unwrap_err();
    let size = AttributeChange {
        size: Some(0),
        ..AttributeChange::default()
    };
    assert_eq!(kind(hold("l").set(&size, true)), ErrorKind::InvalidArgument);
}

#[test]
fn set_user_id_bits_go_with_a_write_unless_they_may_stay() {
    let (folder, backend) = folder();
    let bits = || fs::metadata(folder.path().join("f")).unwrap().mode() & 0o7777;
    let (file, ..) = found(backend.create_file(&place("", "f"), 0o644, FileAccess::ReadWrite, true, ME));
    let again = || fs::set_permissions(folder.path().join("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    let size = AttributeChange {
        size: Some(1),
        ..AttributeChange::default()
    };
    let held = file.held();
    let changes: [&dyn Fn(bool); 4] = [
        &|keep| assert_eq!(file.write(WriteAt::Offset(0), b"ab", Durable::Later, keep).unwrap(), 2),
        &|keep| file.truncate(5, keep).unwrap(),
        &|keep| file.allocate(0, 0, 10, keep).unwrap(),
        &|keep| drop(held.set(&size, keep).unwrap()),
    ];
    for change in changes {
        again();
        change(true);
        assert_eq!(bits(), 0o6755);
        change(false);
        assert_eq!(bits(), 0o755);
    }
    // Whoever gives a file away gives no rights with it.
    again();
    let owner = AttributeChange {
        uid: Some(5),
        ..AttributeChange::default()
    };
    held.set(&owner, true).unwrap();
    assert_eq!(bits(), 0o755);
}

#[test]
fn extended_attributes_are_set_found_listed_and_removed() {
    let (folder, backend) = folder();
    fs::write(folder.path().join("f"), "text").unwrap();
    let held = found(backend.hold(&path("f")));
    assert_eq!(held.xattr(b"user.a").unwrap(), None);
    assert_eq!(
        kind(held.set_xattr(b"user.a", b"1", SetMode::Replace)),
        ErrorKind::NoAttribute
    );
    held.set_xattr(b"user.a", b"1", SetMode::Create).unwrap();
    assert_eq!(
        kind(held.set_xattr(b"user.a", b"1", SetMode::Create)),
        ErrorKind::Exists
    );
    let long = vec![7; 3_000];
    held.set_xattr(b"user.a", &long, SetMode::Replace).unwrap();
    held.set_xattr(b"user.empty", b"", SetMode::Any).unwrap();
    assert_eq!(held.xattr(b"user.a").unwrap(), Some(long));
    assert_eq!(held.xattr(b"user.empty").unwrap(), Some(Vec::new()));
    let names = held.xattrs().unwrap();
    let mut names: Vec<_> = names.split(|byte| *byte == 0).filter(|it| !it.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [&b"user.a"[..], b"user.empty"]);
    held.remove_xattr(b"user.a").unwrap();
    assert_eq!(kind(held.remove_xattr(b"user.a")), ErrorKind::NoAttribute);
}

#[test]
fn a_directory_is_synced_and_an_absent_one_is_absent() {
    let (_folder, backend) = folder();
    found(backend.sync_directory(&path("")));
    assert!(backend.sync_directory(&path("none")).unwrap().is_absent());
}

#[test]
fn a_full_disk_and_a_running_program_say_what_they_are() {
    let (folder, backend) = folder();
    fs::copy("/bin/sleep", folder.path().join("sleep")).unwrap();
    let mut running = std::process::Command::new(folder.path().join("sleep"))
        .arg("600")
        .spawn()
        .unwrap();
    let opened = backend.open_as(&path("sleep"), FileAccess::Write);
    assert_eq!(kind(opened), ErrorKind::TextBusy);
    running.kill().unwrap();
    running.wait().unwrap();
    found(backend.open_as(&path("sleep"), FileAccess::Write));
    let small = TempDir::new().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", small.path(), "tmpfs", flags, c"size=64k").unwrap();
    let on_small = LocalBackend::open(small.path()).unwrap();
    let (file, ..) = found(on_small.create_file(&place("", "f"), 0o644, FileAccess::Write, true, ME));
    let bytes = vec![1; 1 << 20];
    let mut offset = 0;
    let refused = loop {
        match file.write(WriteAt::Offset(offset), &bytes, Durable::Later, true) {
            Ok(written) => offset += written as u64,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(refused, ErrorKind::Full);
    assert!((1..=64 << 10).contains(&offset), "what had room was written: {offset}");
    drop(file);
    rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_file_without_a_name_is_seen_by_nobody_before_it_gets_one_that_is_free() {
    let (folder, backend) = folder();
    let names = || fs::read_dir(folder.path()).unwrap().count();
    let before = names();
    drop(found(backend.make_unnamed(&path(""))));
    let file = found(backend.make_unnamed(&path("")));
    assert_eq!(write(&file, 0, b"whole"), 5);
    file.sync(false).unwrap();
    file.forget_pages().unwrap();
    assert_eq!(names(), before, "nothing is there, nor left of the other");
    fs::write(folder.path().join("taken"), b"in the way").unwrap();
    let taken = backend.link(&file.held(), &place("", "taken"));
    assert_eq!(kind(taken), ErrorKind::Exists);
    let there = found(backend.link(&file.held(), &place("", "new")));
    assert_eq!(
        (there.object.size, there.object.links, there.object.mode),
        (5, 1, Some(0o600))
    );
    assert_eq!(fs::read(folder.path().join("new")).unwrap(), b"whole");
    assert!(backend.make_unnamed(&path("none")).unwrap().is_absent());
}

#[test]
fn a_rename_into_another_folder_is_the_disks_own_or_none() {
    let (from, backend) = folder();
    let (to, other) = folder();
    let elsewhere = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let far = LocalBackend::open(elsewhere.path()).unwrap();
    fs::write(from.path().join("one"), b"1").unwrap();
    fs::write(to.path().join("two"), b"22").unwrap();
    assert!(backend.is_beside(&other) && !backend.is_beside(&far));
    let inode = fs::metadata(from.path().join("one")).unwrap().ino();
    let (one, two) = (place("", "one"), place("", "two"));
    let taken = backend.rename_into(&one, &other, &two, RenameMode::NoReplace, false);
    assert_eq!(kind(taken), ErrorKind::Exists);
    let away = backend.rename_into(&one, &far, &two, RenameMode::Replace, false);
    assert_eq!(kind(away), ErrorKind::CrossDevice);
    let renamed = found(backend.rename_into(&one, &other, &two, RenameMode::Replace, true));
    assert_eq!((renamed.object.size, renamed.replaced.map(|it| it.size)), (1, Some(2)));
    assert_eq!(renamed.held.unwrap().metadata().unwrap().links, 0);
    assert_eq!(fs::metadata(to.path().join("two")).unwrap().ino(), inode);
    assert!(!from.path().join("one").exists());
}
