//! Files that hold secrets: read only if nobody but their owner can, written so that a crash leaves the old or the new.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::SecretError;

/// The largest file that is taken for one with secrets, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SecretError {
    let path = path.to_path_buf();
    move |cause| SecretError::Io { action, path, cause }
}

/// Reads a file; `None` if there is none. Never waits on a named pipe.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SecretError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(io("open", path)(error.into())),
    };
    let metadata = file.metadata().map_err(io("look at", path))?;
    let unusable = |why| SecretError::Unusable { path: path.into(), why };
    if !metadata.is_file() {
        return Err(unusable("it is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Permissions {
            path: path.into(),
            mode: metadata.mode() & 0o777,
        });
    }
    // Root may lend a secret (systemd credentials); anybody else could exchange it.
    if metadata.uid() != rustix::process::geteuid().as_raw() && metadata.uid() != 0 {
        return Err(SecretError::Owner {
            path: path.into(),
            owner: metadata.uid(),
        });
    }
    if metadata.len() > SIZE_MAX {
        return Err(unusable("it is larger than 1 MiB"));
    }
    // All the room at once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    (&mut file)
        .take(SIZE_MAX)
        .read_to_end(&mut bytes)
        .map_err(io("read", path))?;
    Ok(Some(bytes))
}

/// Creates a file that must not be there yet, synced, with its name.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    write_new(path, bytes)?;
    sync_directory_of(path)
}

/// Puts new contents in the place of a file's old ones, in one step. One writer at a time: see [`lock`].
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let temporary = beside(path, "new");
    // What a crash left is of no use to anyone: it was never renamed.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &temporary)(error)),
        _ => {}
    }
    write_new(&temporary, bytes)?;
    std::fs::rename(&temporary, path).map_err(io("replace", path))?;
    sync_directory_of(path)
}

/// Takes the lock that goes with a file, waiting for whoever has it; it ends when the result is dropped.
pub(super) fn lock(path: &Path) -> Result<File, SecretError> {
    let path = beside(path, "lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd =
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| io("open", &path)(error.into()))?;
    rustix::fs::flock(&fd, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| io("lock", &path)(error.into()))?;
    Ok(File::from(fd))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd =
        rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| io("create", path)(error.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io("write", path))
}

fn sync_directory_of(path: &Path) -> Result<(), SecretError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io("sync", directory))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
