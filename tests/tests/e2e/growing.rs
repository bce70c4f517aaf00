//! A file of this machine that is written in place while it is open: whoever has it open sees what it has become, as on the disk.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use manifold_tests::mounted::{Library, User, expect_success};

use crate::below;

/// Only ends a test that hangs.
const DEADLINE: Duration = Duration::from_mins(1);

/// `tail` that follows a file, and the lines that it has shown.
struct Tail {
    process: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn follow(library: &Library, file: &Path) -> Self {
        let mut tail = library.as_user(Path::new("tail"));
        tail.args(["-n", "+1", "-f", "-s", "0.1"]).arg(file);
        let mut process = tail.stdout(Stdio::piped()).spawn().expect("start tail");
        let output = BufReader::new(process.stdout.take().expect("its output is ours"));
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if line.is_ok_and(|line| told.send(line).is_ok()) {
                    continue;
                }
                break;
            }
        });
        Self { process, lines }
    }

    fn shows(&self, line: &str, about: &str) {
        let shown = self.lines.recv_timeout(DEADLINE);
        assert_eq!(shown.as_deref(), Ok(line), "{about}");
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.process.kill().expect("end tail");
        self.process.wait().expect("wait for tail");
    }
}

fn append(file: &Path, line: &str) {
    let mut file = File::options().append(true).open(file).expect("open to append");
    writeln!(file, "{line}").expect("append");
}

fn a_file_grows_before_whoever_follows_it(settings: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("log");
    fs::write(&source, "first\n").expect("write");
    // As long as a page and some, so that the last page is cut in the middle.
    let long = "x".repeat(5_000);
    let mut library = Library::new(User::Current);
    library.settings(settings);
    library.add_folder(folder.path(), "/disk");
    library.mount();
    let file = below(&library.at(), "/disk/log");
    let inode = std::os::unix::fs::MetadataExt::ino;
    let number = inode(&fs::metadata(&file).expect("it is there"));
    let tail = Tail::follow(&library, &file);
    tail.shows("first", "what was there");
    for line in ["second", &long, "third", "fourth"] {
        append(&source, line);
        tail.shows(line, "appended behind the mount");
    }
    assert_eq!(
        inode(&fs::metadata(&file).expect("it is there")),
        number,
        "it is the same file"
    );
    // Another who opened it before, and is asked only now.
    let early = Tail::follow(&library, &file);
    for line in ["first", "second", &long, "third", "fourth"] {
        early.shows(line, "from its beginning");
    }
    append(&file, "through the mount");
    for tail in [&tail, &early] {
        tail.shows("through the mount", "by another application");
    }
    append(&source, "last");
    for tail in [&tail, &early] {
        tail.shows("last", "behind the mount, after that");
    }
    drop((tail, early));
    library.unmount();
}

#[test]
fn a_file_grows_before_whoever_follows_it_with_passthrough() {
    a_file_grows_before_whoever_follows_it("");
}

#[test]
fn a_file_grows_before_whoever_follows_it_without_passthrough() {
    a_file_grows_before_whoever_follows_it("mount.passthrough = false\n");
}

/// Whether a handle shows what the file becomes, or what it was, does not depend on who reads it from the disk.
fn a_handle_shows_what_the_file_becomes_in_place_and_not_what_replaces_it(settings: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("file");
    fs::write(&source, "a".repeat(10_000)).expect("write");
    let mut library = Library::new(User::Current);
    library.settings(settings);
    library.add_folder(folder.path(), "/disk");
    library.mount();
    let path = below(&library.at(), "/disk/file");
    let mut file = File::open(&path).expect("open");
    let mut read = || {
        use std::io::Seek;
        let mut text = String::new();
        file.rewind().expect("to the beginning");
        file.read_to_string(&mut text).expect("read");
        let size = file.metadata().expect("it is open").len();
        assert_eq!(size, text.len() as u64, "its length and its bytes agree");
        text
    };
    assert_eq!(read(), "a".repeat(10_000));
    let scan = || expect_success(library.command().args(["scan", "/disk"]));
    // Of the same length, shorter, and longer.
    for text in ["b".repeat(10_000), "c".repeat(10), "d".repeat(50_000)] {
        fs::write(&source, &text).expect("write in place");
        scan();
        assert!(read() == text, "what was written in place shows");
        assert!(fs::read_to_string(&path).expect("read") == text);
    }
    let other = folder.path().join("other");
    fs::write(&other, "e".repeat(60_000)).expect("write");
    fs::rename(&other, &source).expect("rename");
    scan();
    assert!(read() == "d".repeat(50_000), "the file that was opened is still there");
    assert!(fs::read_to_string(&path).expect("read") == "e".repeat(60_000));
    library.unmount();
}

#[test]
fn a_handle_shows_what_the_file_becomes_with_passthrough() {
    a_handle_shows_what_the_file_becomes_in_place_and_not_what_replaces_it("");
}

#[test]
fn a_handle_shows_what_the_file_becomes_without_passthrough() {
    a_handle_shows_what_the_file_becomes_in_place_and_not_what_replaces_it("mount.passthrough = false\n");
}
