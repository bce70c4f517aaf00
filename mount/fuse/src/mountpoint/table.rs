//! The kernel's mount table, `/proc/self/mountinfo`; its format is in `proc_pid_mountinfo(5)`.

use std::{ffi::OsString, fs, io, os::unix::ffi::OsStringExt, path::Path};

/// A file system's device number: major and minor. FUSE's connection in fusectl, and its bdi, are named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    id: u64,
    parent: u64,
    pub(crate) device: Device,
    point: OsString,
    pub(crate) kind: String,
    pub(crate) source: String,
}

/// The mount that a path look-up meets at `point`; `None` where nothing is mounted right there.
pub(crate) fn topmost(point: &Path) -> io::Result<Option<Mounted>> {
    all_at(point).map(top)
}

/// All that is mounted at `point`, on top or beneath another.
pub(crate) fn all_at(point: &Path) -> io::Result<Vec<Mounted>> {
    Ok(at(point, &fs::read("/proc/self/mountinfo")?))
}

/// Whether `device` is mounted at `point`, on top or beneath another.
pub(crate) fn mounted(point: &Path, device: Device) -> io::Result<bool> {
    Ok(all_at(point)?.iter().any(|mounted| mounted.device == device))
}

fn at(point: &Path, table: &[u8]) -> Vec<Mounted> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|mounted| mounted.point == point.as_os_str())
        .collect()
}

/// Mounts on one point are each other's parents; the one that is nobody's parent is on top.
fn top(mut mounts: Vec<Mounted>) -> Option<Mounted> {
    let position = mounts
        .iter()
        .position(|one| mounts.iter().all(|other| other.parent != one.id))?;
    Some(mounts.swap_remove(position))
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let (major, minor) = text()?.split_once(':')?;
    let device = Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    let point = OsString::from_vec(unescape(fields.nth(1)?));
    // The mount's own options and any number of optional fields come before a lone dash.
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    Some(Mounted {
        id,
        parent,
        device,
        point,
        kind,
        source,
    })
}

/// Space, tab, newline and backslash stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.first_chunk::<3>()).flatten();
        let escaped = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:40 / /mnt/my\\040drive ro,nosuid shared:7 master:2 - fuse.manifold my\\134lib ro,user_id=0
41 40 0:41 / /mnt/my\\040drive rw - tmpfs none rw
42 27 0:42 / /mnt/other rw - fuse.manifold lib rw
not a line
";

    #[test]
    fn names_with_blanks_and_backslashes_are_read_back() {
        let mounts = at(Path::new("/mnt/my drive"), TABLE);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, "fuse.manifold");
        assert_eq!(mounts[0].source, "my\\lib");
        assert_eq!(mounts[0].device, Device { major: 0, minor: 40 });
    }

    #[test]
    fn of_two_mounts_on_a_point_the_child_is_on_top() {
        let mut mounts = at(Path::new("/mnt/my drive"), TABLE);
        assert_eq!(top(mounts.clone()).expect("two are there").kind, "tmpfs");
        mounts.reverse();
        assert_eq!(top(mounts).expect("two are there").kind, "tmpfs");
    }

    #[test]
    fn a_path_that_is_only_beneath_a_mount_is_not_a_mount() {
        assert!(at(Path::new("/mnt"), TABLE).is_empty());
        assert!(at(Path::new("/mnt/other/deeper"), TABLE).is_empty());
    }

    #[test]
    fn a_lone_backslash_stays() {
        assert_eq!(unescape(b"a\\b\\04"), b"a\\b\\04");
        assert_eq!(unescape(b"\\012\\\\040"), b"\n\\ ");
    }
}
