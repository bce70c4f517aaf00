//! Applications that know nothing of the mount, and what each of them must find there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifold_tests::mounted::{Library, expect_success, is_mounted};

use crate::originals::{FILM, LARGE, Originals};

fn program(library: &Library, name: &str) -> Command {
    let mut command = library.as_user(Path::new(name));
    command.env("LC_ALL", "C.UTF-8");
    command
}

pub(crate) fn find_shows_every_name(library: &Library, originals: &Originals, root: &Path) {
    let shown = expect_success(
        program(library, "find")
            .arg(root)
            .args(["-mindepth", "1", "-printf", "%P\\0"]),
    );
    let mut shown: Vec<&str> = shown.split_terminator('\0').collect();
    shown.sort_unstable();
    assert_eq!(shown, originals.names(), "find {}", root.display());
}

pub(crate) fn ls_shows_every_size(library: &Library, originals: &Originals, root: &Path) {
    let listing = expect_success(program(library, "ls").arg("-lR").arg(root));
    assert!(
        !listing.contains('?'.to_string().repeat(3).as_str()),
        "ls could not stat something:\n{listing}"
    );
    let sizes = expect_success(
        program(library, "find")
            .arg(root)
            .args(["-type", "f", "-printf", "%s %P\\0"]),
    );
    for line in sizes.split_terminator('\0') {
        let (size, name) = line.split_once(' ').expect("a size and a name");
        let original = fs::metadata(originals.folder().join(name)).expect("stat an original");
        assert_eq!(size, original.len().to_string(), "the size of {name}");
    }
}

fn checksums(library: &Library, originals: &Originals, root: &Path) -> BTreeMap<PathBuf, String> {
    let output = expect_success(
        program(library, "sha256sum")
            .arg("-z")
            .args(originals.files())
            .current_dir(root),
    );
    output
        .split_terminator('\0')
        .map(|line| {
            let (sum, name) = line.split_once("  ").expect("a sum and a name");
            (PathBuf::from(name), sum.to_owned())
        })
        .collect()
}

pub(crate) fn checksums_agree(library: &Library, originals: &Originals, root: &Path) {
    let ours = checksums(library, originals, root);
    assert_eq!(ours.len(), originals.files().len());
    assert_eq!(
        ours,
        checksums(library, originals, originals.folder()),
        "{}",
        root.display()
    );
}

/// A folder that the library's user may write to.
fn scratch(library: &Library) -> tempfile::TempDir {
    let home = library
        .state()
        .parent()
        .expect("the state lies in a folder")
        .join("home");
    let folder = tempfile::tempdir_in(&home).expect("make a scratch folder");
    let owner = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&home)
            .map(|data| (data.uid(), data.gid()))
            .expect("stat the home folder")
    };
    std::os::unix::fs::chown(folder.path(), Some(owner.0), Some(owner.1)).expect("give the scratch folder away");
    folder
}

pub(crate) fn rsync_copies_once(library: &Library, originals: &Originals, root: &Path) {
    let target = scratch(library);
    let sync = || {
        let mut source = root.as_os_str().to_owned();
        source.push("/");
        expect_success(
            program(library, "rsync")
                .args(["-a", "--stats"])
                .arg(&source)
                .arg(target.path()),
        )
    };
    let transferred = |said: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix("Number of regular files transferred: "))
            .map(|number| number.replace(',', ""))
            .expect("rsync tells what it transferred")
    };
    assert_eq!(transferred(&sync()), originals.files().len().to_string());
    assert_eq!(
        transferred(&sync()),
        "0",
        "the second rsync of {} copies nothing",
        root.display()
    );
    expect_success(
        Command::new("diff")
            .arg("-r")
            .arg(originals.folder())
            .arg(target.path()),
    );
}

pub(crate) fn cp_and_tar_agree(library: &Library, originals: &Originals, root: &Path) {
    let target = scratch(library);
    expect_success(
        program(library, "cp")
            .arg("-r")
            .arg(root)
            .arg(target.path().join("copy")),
    );
    expect_success(
        Command::new("diff")
            .arg("-r")
            .arg(originals.folder())
            .arg(target.path().join("copy")),
    );
    let archive = target.path().join("all.tar");
    expect_success(
        program(library, "tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(root)
            .arg("."),
    );
    let difference = Command::new("tar")
        .arg("--compare")
        .arg("-f")
        .arg(&archive)
        .arg("-C")
        .arg(originals.folder())
        .output()
        .expect("run tar");
    // Times, modes and owners are the source's own; the bytes are what must agree.
    let said = String::from_utf8_lossy(&difference.stdout).into_owned();
    assert!(
        !said.contains("Contents differ") && !said.contains("Size differs") && !said.contains("No such file"),
        "{said}"
    );
}

pub(crate) fn ffprobe_and_seek_work(library: &Library, root: &Path) {
    let film = root.join(FILM);
    let duration = expect_success(
        program(library, "ffprobe")
            .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
            .arg(&film),
    );
    assert_eq!(duration.trim(), "12.000000");
    let frame = expect_success(
        program(library, "ffmpeg")
            .args(["-v", "error", "-ss", "9.5"])
            .arg("-i")
            .arg(&film)
            .args(["-frames:v", "1", "-f", "framemd5", "-"]),
    );
    assert_eq!(
        frame.lines().filter(|line| !line.starts_with('#')).count(),
        1,
        "{frame}"
    );
}

pub(crate) fn mmap_reads_the_same(library: &Library, originals: &Originals, root: &Path) {
    let script = "import mmap, sys, hashlib\n\
        with open(sys.argv[1], 'rb') as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:\n\
        \x20   tail = m[-5000:]\n\
        \x20   print(hashlib.sha256(m).hexdigest(), hashlib.sha256(tail).hexdigest())\n";
    let run = |file: PathBuf| expect_success(program(library, "/usr/bin/python3").arg("-c").arg(script).arg(file));
    assert_eq!(run(root.join(LARGE)), run(originals.folder().join(LARGE)));
}

pub(crate) fn fifty_readers_agree(library: &Library, originals: &Originals, root: &Path) {
    let readers: Vec<_> = (0..50)
        .map(|_| {
            program(library, "sha256sum")
                .arg(root.join(LARGE))
                .stdout(Stdio::piped())
                .spawn()
                .expect("start a reader")
        })
        .collect();
    let wanted = expect_success(Command::new("sha256sum").arg(originals.folder().join(LARGE)));
    let wanted = wanted.split(' ').next().expect("a sum");
    for reader in readers {
        let output = reader.wait_with_output().expect("wait for a reader");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success());
        assert_eq!(said.split(' ').next(), Some(wanted));
    }
}

pub(crate) fn writing_is_refused_as_read_only(library: &Library, root: &Path) {
    let owner = expect_success(program(library, "stat").args(["-c", "%u"]).arg(root));
    let asker = expect_success(program(library, "id").arg("-u"));
    // What belongs to somebody else may not be changed in the first place.
    let reason = if asker == owner || asker.trim() == "0" {
        "Read-only file system"
    } else {
        "Permission denied"
    };
    for (name, arguments) in [
        ("touch", vec![root.join("new file")]),
        ("mkdir", vec![root.join("new folder")]),
        ("rm", vec![root.join(LARGE)]),
        ("mv", vec![root.join(LARGE), root.join("moved")]),
        ("rmdir", vec![root.join("names")]),
    ] {
        let output = program(library, name).args(&arguments).output().expect("run a writer");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name} must fail");
        assert!(said.contains(reason), "{name}: {said}");
    }
    expect_success(program(library, "test").arg("-f").arg(root.join(LARGE)));
}

pub(crate) fn git_finds_nothing_changed(library: &Library, root: &Path) {
    let said = expect_success(
        program(library, "git")
            .args(["-c", "safe.directory=*", "status", "--porcelain"])
            .current_dir(root.join("repository")),
    );
    assert_eq!(said, "");
    let log = expect_success(
        program(library, "git")
            .args(["-c", "safe.directory=*", "log", "--format=%s"])
            .current_dir(root.join("repository")),
    );
    assert_eq!(log, "Begin\n");
}

pub(crate) fn df_answers(library: &Library, at: &Path) {
    let said = expect_success(program(library, "df").args(["--output=used,fstype"]).arg(at));
    let row = said.lines().nth(1).expect("df has a row");
    assert!(row.contains("fuse.manifold"), "{said}");
    let used: u64 = row
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number");
    assert!(used > 0, "{said}");
}

/// Gives every path beneath `at` with its inode number and size, sorted.
pub(crate) fn inodes(at: &Path) -> String {
    let said = expect_success(Command::new("find").arg(at).args(["-printf", "%P %i %s\\n"]));
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").expect("write to a string");
        text
    })
}

/// A process keeps a file of the mount open and works in one of its folders; the daemon must end all the same.
pub(crate) fn unmount_while_busy(library: &mut Library, root: &Path) {
    let mut busy = program(library, "/usr/bin/python3")
        .arg("-c")
        .arg("import sys\nf = open(sys.argv[1], 'rb')\nf.read(10)\nprint('open', flush=True)\nsys.stdin.read()\n")
        .arg(root.join(LARGE))
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a busy process");
    let mut line = String::new();
    BufReader::new(busy.stdout.take().expect("its output is a pipe"))
        .read_line(&mut line)
        .expect("hear from the busy process");
    assert_eq!(line, "open\n");
    library.unmount();
    assert!(!is_mounted(&library.at()));
    drop(busy.stdin.take());
    let status = busy.wait().expect("wait for the busy process");
    assert!(status.success(), "the busy process ended with {status}");
}
