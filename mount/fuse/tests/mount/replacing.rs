//! Whoever opens a file that is being replaced gets one of the two, and never an error.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
    time::Duration,
};

use manifold_fuse::MountOptions;
use rustix::io::Errno;

use crate::library::{Library, Mounted, cached, errno, eventually};

const READERS: usize = 8;
/// As many as takes a busy machine half a minute. `MANIFOLD_TESTS_OPENS` asks for more.
const OPENS: i64 = 20_000;
/// One of so many is read as well.
const READ_EVERY: i64 = 16;
const REPLACERS: usize = 2;
/// So many new files are made before they take the place of one another, each at once after the one before.
const BATCH: usize = 64;
const LENGTH: usize = 3;

/// A library over a folder with a file, and its mount.
fn document(options: &MountOptions) -> (tempfile::TempDir, Library, Mounted) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("document"), [b'0'; LENGTH]).expect("a file");
    let library = Library::over_folder(folder.path());
    let mounted = library.mount(options);
    (folder, library, mounted)
}

fn replace(folder: &Path, new: &str, text: &[u8]) {
    fs::write(folder.join(new), text).expect("a new file");
    fs::rename(folder.join(new), folder.join("document")).expect("it takes the place");
}

/// Opens, and now and then reads, until all have opened often enough.
fn open_again_and_again(path: &Path, left: &AtomicI64) -> Vec<String> {
    let mut troubles = Vec::new();
    loop {
        let turn = left.fetch_sub(1, Ordering::Relaxed);
        if turn <= 0 {
            return troubles;
        }
        let opened = File::open(path).and_then(|mut file| {
            let mut text = Vec::new();
            if turn % READ_EVERY == 0 {
                file.read_to_end(&mut text)?;
                if text.len() != LENGTH || text.iter().any(|byte| *byte != text[0]) {
                    troubles.push(format!("it holds {text:?}"));
                }
            }
            Ok(())
        });
        if let Err(error) = opened {
            troubles.push(error.to_string());
        }
    }
}

/// Replaces until it is over, and tells how often.
fn replace_again_and_again(folder: &Path, number: usize, over: &AtomicBool) -> usize {
    let names: Vec<PathBuf> = (0..BATCH).map(|of| folder.join(format!("new {number}.{of}"))).collect();
    let mut replaced = 0;
    while !over.load(Ordering::Relaxed) {
        for (name, letter) in names.iter().zip((b'a'..=b'z').cycle()) {
            fs::write(name, [letter; LENGTH]).expect("a new file");
        }
        for name in &names {
            fs::rename(name, folder.join("document")).expect("it takes the place");
        }
        replaced += names.len();
    }
    replaced
}

#[test]
fn no_opening_fails_while_a_file_of_this_machine_is_replaced_by_rename() {
    let (_folder, _library, mounted) = document(&MountOptions::default());
    let opens = std::env::var("MANIFOLD_TESTS_OPENS").map_or(OPENS, |opens| opens.parse().expect("a number"));
    let (left, over) = (AtomicI64::new(opens), AtomicBool::new(false));
    let (path, folder) = (mounted.path("document"), mounted.path(""));
    let (troubles, replaced) = thread::scope(|scope| {
        let read = || open_again_and_again(&path, &left);
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let (folder, over) = (&folder, &over);
        let replace = |number| scope.spawn(move || replace_again_and_again(folder, number, over));
        let replacers: Vec<_> = (0..REPLACERS).map(replace).collect();
        let troubles: Vec<_> = readers
            .into_iter()
            .flat_map(|it| it.join().expect("a reader"))
            .collect();
        over.store(true, Ordering::Relaxed);
        let replaced = replacers.into_iter().map(|it| it.join().expect("a replacer"));
        (troubles, replaced.sum::<usize>())
    });
    assert!(replaced > 100, "it was replaced {replaced} times only");
    assert!(
        troubles.is_empty(),
        "{} of {opens} opens failed, as {:?}; it was replaced {replaced} times",
        troubles.len(),
        troubles[0]
    );
}

/// A file without a name that somebody has open, by another of the kernel's ways to it.
fn by_descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

#[test]
fn who_has_looked_up_a_file_opens_it_though_another_takes_its_place() {
    for options in [MountOptions::default(), cached()] {
        let (_folder, _library, mounted) = document(&options);
        // Looked up, and not opened.
        let looked_up = rustix::fs::open(
            mounted.path("document"),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let looked_up = File::from(looked_up.expect("it is there"));
        replace(&mounted.path(""), "new", b"new");
        let opened = File::open(by_descriptor(&looked_up)).expect("it was there when it was looked up");
        let mut text = [0; LENGTH];
        opened.read_exact_at(&mut text, 0).expect("it reads");
        assert_eq!(&text, b"000");
        assert_eq!(fs::read(mounted.path("document")).expect("it reads"), b"new");
        drop(opened);
        // Its room on the disk is not kept for long.
        eventually("it is let go", || {
            thread::sleep(Duration::from_millis(50));
            File::open(by_descriptor(&looked_up))
                .is_err_and(|error| error.raw_os_error() == Some(Errno::STALE.raw_os_error()))
        });
    }
}

#[test]
fn a_file_without_a_name_can_be_opened_anew_by_who_has_it_open() {
    for options in [MountOptions::default(), cached()] {
        let (_folder, _library, mounted) = document(&options);
        let first = File::open(mounted.path("document")).expect("it opens");
        fs::remove_file(mounted.path("document")).expect("it goes");
        let second = File::options()
            .read(true)
            .write(true)
            .open(by_descriptor(&first))
            .expect("it is there yet");
        second.write_all_at(b"1", 0).expect("it is written to");
        let mut text = [0; LENGTH];
        first.read_exact_at(&mut text, 0).expect("it reads");
        assert_eq!(&text, b"100");
    }
}

#[test]
fn who_has_looked_up_a_file_that_is_removed_is_told_that_it_is_gone() {
    let (_folder, _library, mounted) = document(&MountOptions::default());
    let path = mounted.path("document");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let looked_up = File::from(rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).expect("it is there"));
    fs::remove_file(&path).expect("it goes");
    assert_eq!(errno(File::open(by_descriptor(&looked_up))), Errno::NOENT);
}
