//! Directories, large and small, and many that look at once.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirEntryExt, MetadataExt},
    },
    thread,
};

use manifold_fuse::MountOptions;
use manifold_vfs::Settings;

use crate::{
    library::{Library, errno},
    script::Script,
};

const FILES: usize = 100_000;

#[test]
fn a_directory_of_100_000_shows_each_name_once() {
    let script = Script::new();
    for number in 0..FILES {
        script.put(&format!("a file with the number {number}"), "");
    }
    let library = Library::over(script, Settings::default());
    let mounted = library.mount(&MountOptions::default());
    // Read by us the first time, out of the kernel's cache the second.
    for _ in 0..2 {
        let names: Vec<OsString> = fs::read_dir(mounted.path(""))
            .expect("it lists")
            .map(|entry| entry.expect("a name").file_name())
            .collect();
        assert_eq!(names.len(), FILES);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), FILES);
    }
}

#[test]
fn a_listing_tells_inode_numbers_and_kinds_that_stat_confirms() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "").expect("a file");
    fs::create_dir(folder.path().join("directory")).expect("a directory");
    std::os::unix::fs::symlink("file", folder.path().join("link")).expect("a link");
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    let mut count = 0;
    for entry in fs::read_dir(mounted.path("")).expect("it lists") {
        let entry = entry.expect("a name");
        let metadata = fs::symlink_metadata(entry.path()).expect("it is there");
        assert_eq!(entry.ino(), metadata.ino());
        assert_eq!(entry.file_type().expect("told"), metadata.file_type());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn names_that_are_not_text_and_names_of_255_bytes_come_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let names: BTreeSet<OsString> = [
        b"\xff\xfe not text".to_vec(),
        b"line\nbreak".to_vec(),
        vec![b'x'; 255],
        b" ".to_vec(),
        b"...".to_vec(),
    ]
    .into_iter()
    .map(OsString::from_vec)
    .collect();
    for name in &names {
        fs::write(folder.path().join(name), name.as_encoded_bytes()).expect("a file");
    }
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    let seen: BTreeSet<OsString> = fs::read_dir(mounted.path(""))
        .expect("it lists")
        .map(|entry| entry.expect("a name").file_name())
        .collect();
    assert_eq!(seen, names);
    for name in &names {
        let bytes = fs::read(mounted.path("").join(name)).expect("it reads");
        assert_eq!(bytes, name.as_encoded_bytes());
    }
    let long = "x".repeat(256);
    assert_eq!(errno(fs::metadata(mounted.path(&long))), rustix::io::Errno::NAMETOOLONG);
}

#[test]
fn many_threads_look_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..500 {
        fs::write(folder.path().join(number.to_string()), vec![0; number]).expect("a file");
    }
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(&MountOptions::default());
    let data = mounted.path("");
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let data = data.clone();
            thread::spawn(move || {
                for step in 0..500 {
                    let number = (step * 7 + thread * 61) % 500;
                    let path = data.join(number.to_string());
                    assert_eq!(fs::metadata(path).expect("it is there").len(), number as u64);
                }
                assert_eq!(fs::read_dir(&data).expect("it lists").count(), 500);
                assert_eq!(errno(fs::metadata(data.join("missing"))), rustix::io::Errno::NOENT);
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("each look went well");
    }
}

#[test]
fn df_shows_what_the_catalog_knows() {
    let script = Script::new();
    script.put("a", vec![0; 4096 * 10]);
    script.put("b", vec![0; 4096 * 5 + 1]);
    let library = Library::over(script, Settings::default());
    let mounted = library.mount(&MountOptions::default());
    assert_eq!(fs::read_dir(mounted.path("")).expect("it lists").count(), 2);
    let totals = rustix::fs::statvfs(mounted.root()).expect("it answers");
    assert_eq!(totals.f_blocks * totals.f_frsize, 4096 * 16);
    assert_eq!((totals.f_bfree, totals.f_bavail, totals.f_ffree), (0, 0, 0));
    assert!(totals.f_files >= 2, "{}", totals.f_files);
    assert_eq!(totals.f_namemax, 255);
}
