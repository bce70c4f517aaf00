//! What every source holds: files of many sizes and names, a film whose index is at its end, a git repository.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifold_tests::mounted::expect_success;
use manifold_tests::servers::Server;

/// The film's name, relative to the originals.
pub(crate) const FILM: &str = "films/index at the end.mp4";
/// A file of several blocks that are all different.
pub(crate) const LARGE: &str = "large.bin";
const LARGE_BYTES: usize = 9 * 1024 * 1024 + 4321;

/// A folder with the originals.
pub(crate) struct Originals {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Originals {
    pub(crate) fn make() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manifold-originals-")
            .tempdir()
            .expect("make a temporary folder");
        open_to_all(folder.path());
        let root = folder.path();
        write(root, LARGE, &noise(LARGE_BYTES, 1));
        write(root, "empty", b"");
        write(root, "one byte", b"x");
        for (seed, size) in [(2, 4095), (3, 4096), (4, 4097), (5, 1 << 20), (6, (1 << 20) + 1)] {
            write(root, &format!("sizes/{size}.bin"), &noise(size, seed));
        }
        for name in [
            "plain.txt",
            "with space & ampersand.txt",
            "percent %41 and #hash?.txt",
            "plus+and'quote'.txt",
            "Ünïcödé ﬁ 漢字 🎞.txt",
            ".hidden",
        ] {
            write(root, &format!("names/{name}"), name.as_bytes());
        }
        for number in 0..60 {
            write(
                root,
                &format!("many/{}/{number:03}.txt", number % 7),
                format!("file {number}\n").as_bytes(),
            );
        }
        fs::create_dir_all(root.join("films")).expect("make a folder");
        expect_success(
            Command::new("ffmpeg")
                .args([
                    "-loglevel",
                    "error",
                    "-f",
                    "lavfi",
                    "-i",
                    "testsrc2=size=640x360:rate=25",
                ])
                .args([
                    "-t",
                    "12",
                    "-c:v",
                    "mpeg4",
                    "-q:v",
                    "2",
                    "-movflags",
                    "-faststart",
                    "-y",
                ])
                .arg(root.join(FILM)),
        );
        make_repository(&root.join("repository"));
        let mut files = Vec::new();
        walk(root, root, &mut files);
        files.sort();
        Self { folder, files }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives every file, relative to the folder, sorted.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Gives every directory and file but the root as `find -printf %P` would, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .files
            .iter()
            .flat_map(|file| file.ancestors())
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| path.to_str().expect("the originals have UTF-8 names").to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn put_into(&self, server: &dyn Server) {
        for file in &self.files {
            let bytes = fs::read(self.folder().join(file)).expect("read an original");
            server.put(file.as_os_str().as_bytes(), &bytes);
        }
    }
}

/// Makes bytes that do not repeat, the same ones for the same seed (xorshift).
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}

fn make_repository(at: &Path) {
    fs::create_dir_all(at).expect("make a folder");
    write(at, "kept.txt", b"kept by git\n");
    write(at, "src/main.c", b"int main(void) { return 0; }\n");
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &["commit", "-q", "-m", "Begin"],
    ] {
        expect_success(
            Command::new("git")
                .args(["-c", "user.name=Tester", "-c", "user.email=tester@localhost"])
                .args(arguments)
                .current_dir(at),
        );
    }
    // Hooks and empty folders add nothing here, and object stores hold no empty folders.
    fs::remove_dir_all(at.join(".git/hooks")).expect("remove the hooks");
    for folder in [
        ".git/refs/tags",
        ".git/objects/info",
        ".git/objects/pack",
        ".git/branches",
    ] {
        let _ = fs::remove_dir(at.join(folder));
    }
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    let parent = path.parent().expect("a file has a parent");
    fs::create_dir_all(parent).expect("make a folder");
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list the originals") {
        let path = entry.expect("list the originals").path();
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).expect("beneath the root").to_owned());
        }
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("let every user read the originals");
}
