//! Real servers, each started by the test that needs it.
//!
//! Every server listens on a free loopback port of its own, keeps all it owns in a temporary folder, and is up when
//! its `start` returns. It ends with the value that stands for it; should the test process die first, a watcher ends
//! it and removes its folder. `tests/servers/install` installs every program that is started here; a missing one is a
//! panic that says so, never a skipped test.

mod apache;
mod azurite;
mod behind;
mod certificate;
mod daemon;
mod fake_gcs;
mod folder;
mod http;
mod nginx;
mod port;
mod samba;
mod seaweedfs;
mod sshd;
mod vsftpd;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use apache::Apache;
pub use azurite::Azurite;
pub use behind::Behind;
pub use certificate::Tls;
pub use daemon::Daemon;
pub use fake_gcs::FakeGcs;
pub use folder::Folder;
pub use nginx::Nginx;
pub(crate) use port::Port;
pub use samba::Samba;
pub use seaweedfs::SeaweedFs;
pub use sshd::Sshd;
pub use vsftpd::Vsftpd;

/// One running server, and how a source on it is described.
pub trait Server: Send + Sync {
    /// Gives the URI of the source that the server offers.
    fn uri(&self) -> String;

    /// Gives the other settings of the source; none of them is a secret.
    fn settings(&self) -> BTreeMap<String, String>;

    /// Gives the secrets of the source, in the clear.
    fn secrets(&self) -> BTreeMap<String, String>;

    /// Gives the folder where the source's objects lie as plain files, if they do.
    fn root(&self) -> Option<&Path>;

    /// Writes an object, making its parents; replaces what stood there. `path` is relative, its parts raw.
    fn put(&self, path: &[u8], bytes: &[u8]) {
        let file = self.file(path);
        make_parents(&file);
        fs::write(&file, bytes).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }

    /// Makes an empty directory, with its parents.
    fn make_directory(&self, path: &[u8]) {
        let directory = self.file(path);
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("make {}: {error}", directory.display()));
    }

    /// Lists the uploads in parts that were begun and have not ended, where the server has such.
    fn unfinished(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells whether an object is there.
    fn has(&self, path: &[u8]) -> bool {
        self.file(path).exists()
    }

    /// Removes one object.
    fn remove(&self, path: &[u8]) {
        let file = self.file(path);
        fs::remove_file(&file).unwrap_or_else(|error| panic!("remove {}: {error}", file.display()));
    }

    /// Gives the process.
    fn daemon(&self) -> &Daemon;

    /// Gives the place of an object among the plain files.
    fn file(&self, path: &[u8]) -> PathBuf {
        let root = self
            .root()
            .expect("a server without plain files has a `put` of its own");
        root.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Ends the server at once, sessions and all, as a crash would.
    fn kill9(&self) {
        self.daemon().kill9();
    }

    /// Tells whether it is a process, which can be stopped where it stands.
    fn can_be_paused(&self) -> bool {
        true
    }

    /// Stops the server where it stands: it accepts connections and says nothing.
    fn pause(&self) {
        self.daemon().pause();
    }

    /// Lets a paused server go on.
    fn resume(&self) {
        self.daemon().resume();
    }

    /// Starts the server again on the same port, with the same data.
    fn restart(&self) {
        self.daemon().restart();
    }
}

fn make_parents(file: &Path) {
    let parent = file.parent().expect("an object stands beneath the root");
    fs::create_dir_all(parent).unwrap_or_else(|error| panic!("make {}: {error}", parent.display()));
}

/// Finds a program, in the folder of `tests/servers/install` first; panics with the remedy if it is missing.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/opt/manifold-tests/bin"))
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; run: sudo tests/servers/install"))
}

/// Makes a folder that every user may enter, since servers started by root serve as a lesser user.
fn data_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("manifold-server-")
        .tempdir()
        .expect("make a temporary folder");
    open_to_all(folder.path());
    folder
}

/// Makes such a folder in memory where this machine has one for that (`/dev/shm`): for emulators that sync each object to
/// disk, which would be most of a test's time. A killed server finds its data there again.
fn memory_folder() -> tempfile::TempDir {
    match tempfile::Builder::new()
        .prefix("manifold-server-")
        .tempdir_in("/dev/shm")
    {
        Ok(folder) => {
            open_to_all(folder.path());
            folder
        }
        Err(_) => data_folder(),
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        .unwrap_or_else(|error| panic!("open {} to all users: {error}", path.display()));
}

/// Makes the folder `name` beneath `parent`, open to every user.
fn subfolder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("make {}: {error}", folder.display()));
    open_to_all(&folder);
    folder
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

/// Names the user that the tests run as.
fn current_user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().expect("run id");
    String::from_utf8(output.stdout)
        .expect("a user name is UTF-8")
        .trim()
        .to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
