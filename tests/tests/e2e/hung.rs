//! Folders of this machine whose file system hangs: they lie on a FUSE file system whose process stands still, as one on
//! a network does whose server is gone.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, is_mounted};
use rustix::process::{Pid, Signal, kill_process};

use crate::applications;
use crate::originals::noise;

/// Ends what hangs.
const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const FILES: usize = 40;

/// A folder, shown by `bindfs`.
pub(crate) struct Lower {
    folder: tempfile::TempDir,
    process: Child,
}

impl Lower {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts `bindfs` with these options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manifold-lower-")
            .tempdir()
            .expect("a temporary folder");
        for name in ["files/sub", "shown", "empty", "over"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        for number in 0..FILES {
            let path = folder.path().join(format!("files/sub/file {number}"));
            fs::write(path, noise(100_000, number as u64)).expect("a file");
        }
        let process = Command::new("bindfs")
            .arg("-f")
            .args(options)
            .arg(folder.path().join("files"))
            .arg(folder.path().join("shown"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start bindfs");
        let lower = Self { folder, process };
        until("bindfs mounts", || is_mounted(&lower.shown()));
        lower
    }

    pub(crate) fn shown(&self) -> PathBuf {
        self.folder.path().join("shown")
    }

    /// Gives a path of what it shows, past it.
    pub(crate) fn beneath(&self, path: &str) -> PathBuf {
        self.folder.path().join("files").join(path)
    }

    /// Stops it, and waits until the last of its threads stands still.
    fn pause(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).expect("it is ours");
        let tasks = format!("/proc/{}/task", self.process.id());
        until("bindfs stops", || {
            fs::read_dir(&tasks).expect("its threads").flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            })
        });
    }

    /// Ends it, and all that waits for it.
    pub(crate) fn end(&mut self) {
        let _gone = Command::new("umount").args(["-f", "-l"]).arg(self.shown()).output();
        let _gone = self.process.kill();
    }

    fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).expect("it is ours");
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        self.resume();
        for name in ["over", "shown"] {
            let path = self.folder.path().join(name);
            if is_mounted(&path) {
                let _gone = Command::new("umount").arg("-l").arg(path).status();
            }
        }
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// Waits for what has to happen.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// A library of `hung`, and of a folder on a disk; requests have a second.
fn library(hung: &Path, disk: &Path) -> Library {
    let mut library = Library::new(User::Current);
    library.settings("[deadlines]\nconnect = \"1 s\"\ndata = \"1 s\"\nmetadata = \"1 s\"\n");
    library.add_folder(hung, "/hung");
    library.add_folder(disk, "/disk");
    library.mount();
    // The whole tree is known, and none of the files is open anywhere.
    until("the scan sees all files", || {
        fs::read_dir(library.at().join("hung/sub")).is_ok_and(|found| found.count() == FILES)
    });
    library
}

/// Reads a file to its end, or gives the number of the error.
fn read(path: &Path) -> Result<Vec<u8>, i32> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| error.raw_os_error().unwrap_or_default())?;
    Ok(bytes)
}

#[test]
fn a_folder_whose_file_system_hangs_holds_up_nobody_but_who_reads_it() {
    let (lower, disk) = (Lower::start(), tempfile::tempdir().expect("a folder"));
    fs::write(disk.path().join("file"), "on the disk").expect("a file");
    let mut library = library(&lower.shown(), disk.path());
    let at = library.at();
    let hung = |number: usize| at.join(format!("hung/sub/file {number}"));
    let inodes = applications::inodes(&at);
    assert_eq!(read(&hung(0)).expect("it reads"), noise(100_000, 0));
    // Open from before, with nothing of it in memory.
    let mut open = fs::File::open(hung(1)).expect("it opens");

    lower.pause();
    // More than there are threads of the mount, and of the source.
    let readers: Vec<_> = (2..FILES)
        .map(|number| {
            let path = hung(number);
            std::thread::spawn(move || read(&path))
        })
        .collect();
    let late = std::thread::spawn(move || {
        let read = open.read_to_end(&mut Vec::new());
        (open, read.map_err(|error| error.raw_os_error().unwrap_or_default()))
    });
    let (timed_out, unreachable) = (
        rustix::io::Errno::TIMEDOUT.raw_os_error(),
        rustix::io::Errno::HOSTUNREACH.raw_os_error(),
    );
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(applications::inodes(&at), inodes, "the tree is as it was");
        assert_eq!(read(&at.join("disk/file")).expect("the other source"), b"on the disk");
        applications::df_answers(&library, &at);
    }
    for reader in readers {
        let refused = reader.join().expect("no panic").expect_err("nothing answers");
        assert!([timed_out, unreachable].contains(&refused), "{refused}");
    }
    let (mut open, refused) = late.join().expect("no panic");
    let refused = refused.expect_err("nothing answers");
    assert!([timed_out, unreachable].contains(&refused), "{refused}");

    lower.resume();
    until("it is back", || read(&hung(2)).is_ok());
    for number in 0..FILES {
        assert_eq!(read(&hung(number)).expect("it reads"), noise(100_000, number as u64));
    }
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).expect("the handle is as good as ever");
    assert_eq!(bytes, noise(100_000, 1));
    drop(open);
    library.unmount();

    lower.pause();
    library.mount();
    assert_eq!(applications::inodes(&at), inodes, "it starts with the whole tree");
    let refused = read(&hung(0)).expect_err("nothing answers");
    assert!([timed_out, unreachable].contains(&refused), "{refused}");
    lower.resume();
    library.unmount();
}

#[test]
fn a_mount_with_a_thread_that_is_stuck_is_given_up_and_made_anew_at_the_same_place() {
    let (lower, disk) = (Lower::start(), tempfile::tempdir().expect("a folder"));
    fs::write(disk.path().join("file"), "on the disk").expect("a file");
    // An overlay is taken for a file system of this machine: nothing tells what is beneath it.
    let over = lower.folder.path().join("over");
    let layers = format!(
        "lowerdir={}:{}",
        lower.shown().display(),
        lower.folder.path().join("empty").display()
    );
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &layers])
        .arg(&over)
        .status()
        .expect("run mount");
    assert!(mounted.success(), "an overlay needs root");
    let mut library = library(&over, disk.path());
    let at = library.at();
    let inodes = applications::inodes(&at);
    let old = fs::File::open(at.join("disk/file")).expect("it opens");
    lower.pause();
    let refused = read(&at.join("hung/sub/file 5")).expect_err("nothing answers");
    let ended = [
        rustix::io::Errno::CONNABORTED,
        rustix::io::Errno::NOTCONN,
        rustix::io::Errno::IO,
    ];
    let ended = ended.map(rustix::io::Errno::raw_os_error);
    assert!(ended.contains(&refused), "{refused}");
    until("it is mounted anew", || {
        read(&at.join("disk/file")).is_ok_and(|bytes| bytes == b"on the disk")
    });
    assert_eq!(applications::inodes(&at), inodes);
    let refused = old.metadata().expect_err("its mount is gone").raw_os_error();
    assert!(refused.is_some_and(|refused| ended.contains(&refused)), "{refused:?}");
    assert!(library.log().contains("mounted anew"), "{}", library.log());
    lower.resume();
    library.unmount();
}
