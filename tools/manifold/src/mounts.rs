//! Where Manifold is mounted on this machine, from the kernel's table, and what may not contain what.
//!
//! Always true of what passes the checks: no file of a source is served by Manifold itself, so that no look into the
//! library can lead into the library again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use manifold_fuse::MountError;

use crate::failure::{Failure, Result, io_failure};

const TABLE: &str = "/proc/self/mountinfo";
/// The file system type of our mounts.
const KIND: &str = "fuse.manifold";

/// One mount of Manifold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OurMount {
    /// Where it is, without links.
    pub(crate) point: PathBuf,
    /// What it calls its device: see [`crate::library::Library::fs_name`].
    pub(crate) fs_name: String,
    /// Its device number, as `stat` gives it.
    pub(crate) device: u64,
}

/// Lists the mounts of Manifold, dead or alive.
pub(crate) fn ours() -> Result<Vec<OurMount>> {
    let table = fs::read(TABLE).map_err(|error| io_failure("read", Path::new(TABLE), &error))?;
    Ok(parse(&table))
}

/// The format is in `proc_pid_mountinfo`(5).
fn parse(table: &[u8]) -> Vec<OurMount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<OurMount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    (fields.next()? == KIND.as_bytes()).then_some(())?;
    let fs_name = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(OurMount { point, fs_name, device })
}

/// Blanks and backslashes stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.first_chunk::<3>()).flatten();
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// Refuses a folder as a source where that would make a loop.
pub(crate) fn check_source(root: &Path, state: &Path) -> Result<()> {
    if state.starts_with(root) {
        return Err(Failure::new(format!(
            "{} contains the library's own state folder {}, and would contain its own catalog",
            root.display(),
            state.display()
        ))
        .hint("add the folders inside it one by one, or keep the library elsewhere: --library DIR"));
    }
    if root.starts_with(state) {
        return Err(Failure::new(format!(
            "{} lies in the library's own state folder",
            root.display()
        )));
    }
    for mount in ours()? {
        if mount.point.starts_with(root) {
            return Err(Failure::new(format!(
                "{} contains {}, where Manifold is mounted, and would contain itself",
                root.display(),
                mount.point.display()
            ))
            .hint("add the folders beside it one by one, or mount elsewhere: --at MOUNTPOINT"));
        }
        if root.starts_with(&mount.point) {
            return Err(Failure::new(format!(
                "{} lies in {}, where Manifold is mounted",
                root.display(),
                mount.point.display()
            ))
            .hint("add the folder that it is shown from"));
        }
    }
    Ok(())
}

/// Refuses a mount point that lies in, or holds, what it would show. `sources` are the roots of the local sources.
pub(crate) fn check_point(point: &Path, state: &Path, sources: &[PathBuf]) -> Result<()> {
    if point.starts_with(state) || state.starts_with(point) {
        return Err(Failure::new(format!(
            "mount point {} and the library's state folder {} lie in each other",
            point.display(),
            state.display()
        ))
        .hint("name another mount point"));
    }
    for root in sources {
        if point.starts_with(root) {
            return Err(Failure::new(format!(
                "mount point {} lies in the source {}, which would then contain itself",
                point.display(),
                root.display()
            ))
            .hint("name a mount point outside of all sources: --at MOUNTPOINT"));
        }
        if root.starts_with(point) {
            return Err(Failure::new(format!(
                "mount point {} contains the source {}, which the mount would hide",
                point.display(),
                root.display()
            ))
            .hint("name a mount point outside of all sources: --at MOUNTPOINT"));
        }
    }
    Ok(())
}

/// Refuses a mount point that cannot be mounted upon. A dead mount of Manifold can: it is taken away.
pub(crate) fn check_usable(point: &Path) -> Result<()> {
    let ours = ours()?.into_iter().rfind(|mount| mount.point == point);
    if ours.is_some() && is_dead(point) {
        return Ok(());
    }
    match fs::metadata(point) {
        Ok(_) if ours.is_some() => {
            let source_name = ours.map(|mount| mount.fs_name).unwrap_or_default();
            return Err(MountError::AlreadyMounted {
                point: point.to_owned(),
                source_name,
            }
            .into());
        }
        Ok(found) if !found.is_dir() => return Err(MountError::NotADirectory(point.to_owned()).into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing(point.to_owned()).into());
        }
        Err(error) => return Err(io_failure("use the mount point", point, &error)),
    }
    let mut entries = fs::read_dir(point).map_err(|error| io_failure("use the mount point", point, &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(MountError::NotEmpty(point.to_owned()).into()),
    }
}

/// Tells whether nobody serves a mount any more. The attributes of its root say nothing: the kernel may know them yet.
fn is_dead(point: &Path) -> bool {
    use rustix::io::Errno;
    rustix::fs::statfs(point).is_err_and(|errno| matches!(errno, Errno::NOTCONN | Errno::CONNABORTED))
}

/// Gives a path without links, also where its end does not exist yet, or is a dead mount.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match fs::canonicalize(&path) {
        Ok(real) => Ok(real),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted
            ) =>
        {
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok(real_path(parent)?.join(name)),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:40 / /mnt/my\\040drive ro,nosuid shared:7 master:2 - fuse.manifold manifold:work ro,user_id=0
41 27 0:41 / /mnt/tmp rw - tmpfs none rw
not a line
";

    #[test]
    fn only_our_mounts_are_found_with_their_names_read_back() {
        let found = parse(TABLE);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].point, Path::new("/mnt/my drive"));
        assert_eq!(found[0].fs_name, "manifold:work");
        assert_eq!(found[0].device, rustix::fs::makedev(0, 40));
    }

    #[test]
    fn a_source_that_holds_the_state_is_refused() {
        let state = Path::new("/home/ada/.local/state/manifold/default");
        assert!(check_source(Path::new("/home/ada"), state).is_err());
        assert!(check_source(&state.join("cache"), state).is_err());
        check_source(Path::new("/home/ada/.local/state/manifold/default2"), state).expect("a name is compared whole");
    }

    #[test]
    fn a_mount_point_in_a_source_or_around_one_is_refused() {
        let (state, sources) = (Path::new("/state"), [PathBuf::from("/home/ada/Pictures")]);
        assert!(check_point(Path::new("/home/ada/Pictures/m"), state, &sources).is_err());
        assert!(check_point(Path::new("/home/ada"), state, &sources).is_err());
        assert!(check_point(Path::new("/state/m"), state, &sources).is_err());
        check_point(Path::new("/home/ada/Manifold"), state, &sources).expect("it lies beside the source");
    }
}
