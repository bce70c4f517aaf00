//! Files that are renamed to a folder of this machine: whole on its disk when that returns, or not there at all.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;

const NOTE: &[u8] = b"user.note";

pub(super) fn names_on_disk(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn attribute(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(256);
    let room = rustix::buffer::spare_capacity(&mut value);
    rustix::fs::getxattr(path, name, room).ok()?;
    Some(value)
}

fn set_time(path: &Path, seconds: u64, rest: u32) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::new(seconds, rest))
        .unwrap();
}

fn time_of(path: &Path) -> (i64, i64) {
    let about = fs::metadata(path).unwrap();
    (about.mtime(), about.mtime_nsec())
}

fn crosses(renamed: &Result<(), Error>) {
    assert!(matches!(renamed, Err(Error::CrossSource)), "{renamed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_from_a_remote_source_with_its_attributes() {
    let world = World::new();
    let (id, vfs) = (world.library.find("x/dir/a").await.unwrap(), &world.library.vfs);
    let change = AttributeChange {
        mode: Some(0o640),
        modified: Some(manifold_vfs::NewTime::At(1_000_000_000, 123_456_789)),
        ..AttributeChange::default()
    };
    vfs.set_attributes(id, None, change, ME).wait().await.unwrap();
    vfs.set_attribute(id, NOTE, b"hello", SetMode::Any)
        .wait()
        .await
        .unwrap();
    let other = world.open("x/b", Access::Read).await;
    world.x.set_cue(Cue::RemovesNothing);
    world.rename("x/dir/a", "d/sub/new").await.unwrap();
    let path = world.disk.path().join("sub/new");
    for _ in 0..2 {
        assert_eq!(fs::read(&path).unwrap(), pattern(300_000));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(time_of(&path), (1_000_000_000, 123_456_789));
        assert_eq!(attribute(&path, NOTE).as_deref(), Some(&b"hello"[..]));
        assert_eq!(names_on_disk(&world.disk.path().join("sub")), ["file", "new"]);
        assert_eq!(world.library.find("d/sub/new").await.unwrap(), id);
        assert_eq!(world.content("d/sub/new").await, pattern(300_000));
        let now = vfs.attributes(id, None).wait().await.unwrap();
        assert_eq!((now.mode, now.size), (0o640, 300_000));
        assert_eq!(now.modified_ns, 1_000_000_000_123_456_789);
        let note = vfs.attribute(id, NOTE).wait().await.unwrap();
        assert_eq!(note, b"hello");
        assert_eq!(world.names("x/dir").await, [""; 0], "what is left there is not shown");
        assert_eq!(world.names("d/sub").await, ["file", "new"]);
        world.x.set_cue(Cue::Does);
        vfs.retry_uploads();
        world.until_settled().await;
    }
    assert_eq!(world.x.files(), ["b"]);
    assert_eq!(world.read(other).await.unwrap(), b"b of x");
    // From now on its disk tells what it is like.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    world.library.relist("d/sub").await;
    assert_eq!(vfs.attributes(id, None).wait().await.unwrap().mode, 0o600);
    assert_eq!(world.undone(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_not_uploaded_comes_whole() {
    let world = World::new();
    world.x.set_cue(Cue::Holds);
    let handle = world.create("x/fresh").await.unwrap();
    world.write(handle, 0, b"fresh").await;
    world.close(handle).await;
    let handle = world.open("x/dir/a", Access::ReadWrite).await;
    world.write(handle, 100_000, b"CHANGED").await;
    world.close(handle).await;
    world.rename("t/b", "x/between").await.unwrap();
    world.rename("x/fresh", "d/fresh").await.unwrap();
    world.rename("x/dir/a", "far/a").await.unwrap();
    world.rename("x/between", "d/between").await.unwrap();
    let mut bytes = pattern(300_000);
    bytes[100_000..100_007].copy_from_slice(b"CHANGED");
    assert_eq!(fs::read(world.disk.path().join("fresh")).unwrap(), b"fresh");
    assert!(fs::read(world.far.path().join("a")).unwrap() == bytes);
    assert_eq!(fs::read(world.disk.path().join("between")).unwrap(), b"b of t");
    world.x.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!((world.x.files(), world.t.files()), (vec!["b".to_owned()], vec![]));
    assert_eq!(world.content("far/a").await, bytes);
    assert_eq!(world.library.vfs.staging_usage().unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_beside_it_is_reached_by_the_disks_own_rename() {
    let world = World::new();
    let (old, new) = (world.disk.path().join("sub/file"), world.near.path().join("file"));
    fs::write(&new, b"in the way").unwrap();
    let before = fs::metadata(&old).unwrap();
    let id = world.library.find("d/sub/file").await.unwrap();
    let over = world.open("near/file", Access::Read).await;
    let handle = world.open("d/sub/file", Access::ReadWrite).await;
    let taken = world.rename_as("d/sub/file", "near/file", RenameMode::NoReplace).await;
    assert!(matches!(taken, Err(Error::Exists)), "{taken:?}");
    world.rename("d/sub/file", "near/file").await.unwrap();
    let after = fs::metadata(&new).unwrap();
    assert_eq!((after.ino(), after.len()), (before.ino(), 200_000));
    assert!(!old.exists());
    assert_eq!(world.library.find("near/file").await.unwrap(), id);
    assert!(!world.is_there("d/sub/file").await);
    assert_eq!(world.read(over).await.unwrap(), b"in the way");
    // Who has it open goes on with it.
    world.write(handle, 200_000, b"more").await;
    world.close(handle).await;
    let now = world.library.vfs.attributes(id, None).wait().await.unwrap();
    assert_eq!(now.size, 200_004);
    assert_eq!(
        world.content("near/file").await,
        [&pattern(200_000)[..], b"more"].concat()
    );
    assert_eq!(world.names("near").await, ["file"]);
    assert_eq!(world.names("d/sub").await, [""; 0]);
    assert_eq!(world.library.find("near/file").await.unwrap(), id);
    world.library.catalog.examine().unwrap();
    world.remove_directory("d/sub").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_gets_a_copy_that_is_like_the_original() {
    let world = World::new();
    let (old, new) = (world.disk.path().join("sub/file"), world.far.path().join("file"));
    fs::File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .write_all_at(b"end", 5 * MIB)
        .unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::setxattr(&old, NOTE, b"hello", rustix::fs::XattrFlags::empty()).unwrap();
    set_time(&old, 900_000_000, 1);
    let (before, bytes) = (fs::metadata(&old).unwrap(), fs::read(&old).unwrap());
    world.library.relist("d/sub").await;
    let id = world.library.find("d/sub/file").await.unwrap();
    world.rename("d/sub/file", "far/file").await.unwrap();
    let after = fs::metadata(&new).unwrap();
    assert!(fs::read(&new).unwrap() == bytes);
    assert_eq!(
        (after.mode(), after.uid(), after.gid(), after.nlink()),
        (before.mode(), before.uid(), before.gid(), 1)
    );
    assert_eq!(time_of(&new), (900_000_000, 1));
    assert_eq!(attribute(&new, NOTE).as_deref(), Some(&b"hello"[..]));
    assert!(after.blocks() * 512 < 2 * MIB, "what was not written takes no room");
    assert_eq!(world.library.find("far/file").await.unwrap(), id);
    assert!(!world.is_there("d/sub/file").await);
    world.until_settled().await;
    assert!(!old.exists());
    assert_eq!(names_on_disk(world.far.path()), ["file"]);
    world.rename("far/file", "x/file").await.unwrap();
    world.until_settled().await;
    assert!(world.x.bytes("file").unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_so_is_for_the_asker_to_copy_and_nothing_is_left_of_it() {
    let world = World::new();
    let (disk, far) = (world.disk.path(), world.far.path());
    fs::write(far.join("taken"), b"in the way").unwrap();
    fs::write(disk.join("one"), b"1").unwrap();
    fs::hard_link(disk.join("one"), disk.join("two")).unwrap();
    world.library.relist("d").await;
    crosses(&world.rename("x/b", "far/taken").await);
    let taken = world.rename_as("x/b", "far/taken", RenameMode::NoReplace).await;
    assert!(matches!(taken, Err(Error::Exists)), "{taken:?}");
    crosses(&world.rename("d/one", "far/one").await);
    crosses(&world.rename("d/one", "near/one").await);
    crosses(&world.rename("d/sub", "near/sub").await);
    crosses(&world.rename_as("x/b", "far/taken", RenameMode::Exchange).await);
    let open = world.open("x/b", Access::Read).await;
    crosses(&world.rename("x/b", "far/b").await);
    world.library.vfs.release(open);
    // Made by another a moment ago.
    world.library.find("far/taken").await.unwrap();
    fs::write(far.join("unseen"), b"in the way").unwrap();
    crosses(&world.rename("x/b", "far/unseen").await);
    // Nobody becomes another by what a server says.
    let id = world.library.find("x/b").await.unwrap();
    let change = AttributeChange {
        mode: Some(0o4755),
        ..AttributeChange::default()
    };
    let set = world.library.vfs.set_attributes(id, None, change, ME);
    set.wait().await.unwrap();
    crosses(&world.rename("x/b", "far/b").await);
    assert_eq!(names_on_disk(far), ["taken", "unseen"]);
    assert_eq!(world.x.files(), ["b", "dir/a"]);
    assert_eq!(world.content("x/b").await, b"b of x");
    let strict = World::with(CrossSourceRename::Strict);
    crosses(&strict.rename("d/sub/file", "near/file").await);
    crosses(&strict.rename("x/b", "d/b").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_takes_its_time_leaves_the_copying_to_the_asker() {
    let world = World::new();
    world.library.find("x/dir/a").await.unwrap();
    world.x.set_cue(Cue::HoldsReads);
    crosses(&world.rename("x/dir/a", "d/a").await);
    world.x.set_cue(Cue::IsAway);
    let refused = world.rename("x/dir/a", "d/a").await;
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
    assert_eq!(names_on_disk(world.disk.path()), ["sub"]);
    world.x.set_cue(Cue::Does);
    while world.rename("x/dir/a", "d/a").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fs::read(world.disk.path().join("a")).unwrap() == pattern(300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_goes_in_the_version_that_was_copied_alone() {
    let world = World::new();
    world.x.set_cue(Cue::RemovesNothing);
    world.rename("x/b", "d/b").await.unwrap();
    world.x.place("b", b"somebody else's");
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.bytes("b").unwrap(), b"somebody else's");
    assert_eq!(world.undone(), 1);
    assert_eq!(world.names("x").await, ["b", "dir"]);
    assert_eq!(world.content("x/b").await, b"somebody else's");
    assert_eq!(world.content("d/b").await, b"b of x");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_the_copy_does_not_keep_its_original() {
    let world = World::new();
    world.x.set_cue(Cue::RemovesNothing);
    world.rename("x/b", "d/b").await.unwrap();
    fs::write(world.disk.path().join("b"), b"changed beside the mount").unwrap();
    world.rename("x/dir/a", "d/a").await.unwrap();
    world.remove("d/a").await.unwrap();
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.files(), [""; 0]);
    assert_eq!(world.undone(), 0, "{:?}", world.events.lock());
    assert_eq!(names_on_disk(world.disk.path()), ["b", "sub"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_is_taken_away_though_the_daemon_has_died() {
    let world = World::new();
    let id = world.library.find("x/b").await.unwrap();
    world.x.set_cue(Cue::RemovesNothing);
    world.rename("x/b", "d/b").await.unwrap();
    world.rename("d/sub/file", "near/file").await.unwrap();
    let world = world.die_and_come_back().await;
    assert_eq!(world.library.find("d/b").await.unwrap(), id);
    assert_eq!(world.content("d/b").await, b"b of x");
    assert_eq!(world.content("near/file").await, pattern(200_000));
    assert!(!world.is_there("x/b").await && !world.is_there("d/sub/file").await);
    assert_eq!(world.names("x").await, ["dir"]);
    // It comes back to what it has left when that has gone.
    let busy = world.rename("d/b", "x/b").await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.files(), ["dir/a"]);
    world.rename("d/b", "x/b").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.x.bytes("b").unwrap(), b"b of x");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_cross_in_both_directions_at_once_and_are_read_meanwhile() {
    let world = Arc::new(World::new());
    for (source, disk) in [("d", &world.disk), ("near", &world.near), ("far", &world.far)] {
        for number in 0..8 {
            fs::write(disk.path().join(format!("{source}{number}")), pattern(number * 10_000)).unwrap();
        }
        world.library.relist(source).await;
    }
    let mut moving = tokio::task::JoinSet::new();
    for (from, to) in [
        ("d", "near"),
        ("near", "d"),
        ("d", "far"),
        ("far", "d"),
        ("near", "far"),
        ("far", "near"),
    ] {
        let world = Arc::clone(&world);
        moving.spawn(async move {
            let half = if to == "far" || from == "far" && to == "near" {
                4..8
            } else {
                0..4
            };
            for number in half {
                let (old, new) = (format!("{from}/{from}{number}"), format!("{to}/{from}{number}"));
                let id = world.library.find(&old).await.ok();
                // Another direction may have been faster, or a reader have it open.
                let renamed = world.rename(&old, &new).await;
                if let Some(id) = id
                    && let Ok(opened) = world.library.vfs.open(id, Access::Read).wait().await
                {
                    assert_eq!(
                        world.read(opened.handle).await.unwrap(),
                        pattern(number * 10_000),
                        "{old}"
                    );
                    world.library.vfs.release(opened.handle);
                }
                assert!(
                    matches!(
                        renamed,
                        Ok(()) | Err(Error::NotFound | Error::CrossSource | Error::Stale)
                    ),
                    "{old}: {renamed:?}"
                );
            }
        });
    }
    while let Some(moved) = moving.join_next().await {
        moved.unwrap();
    }
    world.until_settled().await;
    let mut found = Vec::new();
    for disk in [&world.disk, &world.near, &world.far] {
        for name in names_on_disk(disk.path()).into_iter().filter(|name| name != "sub") {
            let number: u64 = name[name.len() - 1..].parse().unwrap();
            assert_eq!(fs::read(disk.path().join(&name)).unwrap(), pattern(number * 10_000));
            found.push(name);
        }
    }
    found.sort_unstable();
    assert_eq!(found.len(), 24, "each is in one place: {found:?}");
    found.dedup();
    assert_eq!(found.len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_pipes_go_where_they_can_be() {
    let world = World::new();
    let (disk, near, far) = (world.disk.path(), world.near.path(), world.far.path());
    std::os::unix::fs::symlink("sub/file", disk.join("link")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, disk.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    world.library.relist("d").await;
    let id = world.library.find("d/link").await.unwrap();
    let points = async |id| world.library.vfs.read_link(id).wait().await.unwrap();
    let inode = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    let before = inode(&disk.join("link"));
    // Beside it, the disk renames them.
    world.rename("d/link", "near/link").await.unwrap();
    world.rename("d/pipe", "near/pipe").await.unwrap();
    assert_eq!(inode(&near.join("link")), before);
    assert_eq!(
        (world.library.find("near/link").await.unwrap(), points(id).await),
        (id, b"sub/file".to_vec())
    );
    assert_eq!(names_on_disk(disk), ["sub"]);
    // On another disk the link is made anew.
    crosses(&world.rename("near/pipe", "far/pipe").await);
    fs::write(far.join("taken"), b"in the way").unwrap();
    crosses(&world.rename("near/link", "far/taken").await);
    let about = fs::symlink_metadata(near.join("link")).unwrap();
    world.rename("near/link", "far/link").await.unwrap();
    let now = fs::symlink_metadata(far.join("link")).unwrap();
    assert_eq!(fs::read_link(far.join("link")).unwrap(), Path::new("sub/file"));
    assert_eq!(
        (now.uid(), now.gid(), now.mtime(), now.mtime_nsec()),
        (about.uid(), about.gid(), about.mtime(), about.mtime_nsec())
    );
    assert_eq!(
        (world.library.find("far/link").await.unwrap(), points(id).await),
        (id, b"sub/file".to_vec())
    );
    assert!(!world.is_there("near/link").await);
    world.until_settled().await;
    assert_eq!(
        (names_on_disk(near), names_on_disk(far)),
        (vec!["pipe".to_owned()], vec!["link".into(), "taken".into()])
    );
    assert_eq!(world.names("far").await, ["link", "taken"]);
    crosses(&world.rename("far/link", "x/link").await);
    assert_eq!(world.undone(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_copies_one_name_of_a_file_can_give_the_copy_the_others() {
    let world = World::new();
    let disk = world.disk.path();
    for name in ["one", "two"] {
        fs::write(disk.join(name), name).unwrap();
        fs::hard_link(disk.join(name), disk.join(format!("other {name}"))).unwrap();
    }
    world.library.relist("d").await;
    for (name, to) in [("one", "near"), ("two", "far")] {
        crosses(&world.rename(&format!("d/{name}"), &format!("{to}/{name}")).await);
        // It was copied, and is to be linked there.
        world.remove(&format!("d/{name}")).await.unwrap();
        let last = format!("other {name}");
        assert_eq!(fs::metadata(disk.join(&last)).unwrap().nlink(), 1);
        crosses(&world.rename(&format!("d/{last}"), &format!("{to}/{last}")).await);
    }
    assert_eq!(names_on_disk(disk), ["other one", "other two", "sub"]);
}

/// What is cached of the version that was known would have been copied, and the other one removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_nobody_has_seen_is_not_taken_away_for_the_one_that_was() {
    let world = World::new();
    assert_eq!(world.content("x/dir/a").await, pattern(300_000));
    world.x.place("dir/a", b"of another");
    crosses(&world.rename("x/dir/a", "d/a").await);
    assert_eq!(world.x.bytes("dir/a").unwrap(), b"of another");
    // Whoever copies it then reads that.
    assert_eq!(world.content("x/dir/a").await, b"of another");
    world.rename("x/dir/a", "d/a").await.unwrap();
    assert_eq!(fs::read(world.disk.path().join("a")).unwrap(), b"of another");
}
