//! The kernel's table of mounts, `/proc/self/mountinfo` (format: `proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

pub(super) const TABLE: &str = "/proc/self/mountinfo";
/// What our mounts call their file system, and without a subtype their device.
const OURS: &str = "fuse.manifold";
const OUR_DEVICE: &[u8] = b"manifold";

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its id, while it is mounted.
    pub id: u64,
    /// Where it is mounted.
    pub at: PathBuf,
    /// The kind of file system, with its subtype: `ext4`, `fuse.sshfs`.
    pub filesystem: String,
    /// What is mounted: a device, a share, or any word.
    pub device: OsString,
}

impl Mount {
    /// Tells whether it is a mount of manifold itself.
    pub fn is_manifold(&self) -> bool {
        self.filesystem == OURS || (self.filesystem == "fuse" && self.device.as_encoded_bytes() == OUR_DEVICE)
    }
}

/// Reads the whole table, in the order of mounting.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(TABLE)?))
}

/// Finds the mount that a path is on. The path itself is asked of the kernel; a link at its end is followed.
pub fn mount_of(path: &Path) -> io::Result<Option<Mount>> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
    by_id(stat.stx_mnt_id)
}

/// Finds a mount by its id.
pub(super) fn by_id(id: u64) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().find(|mount| mount.id == id))
}

/// Lines that are not understood are left out.
pub(super) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw`: any number of fields before the dash.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let at = unescape(fields.nth(3)?);
    fields.find(|field| *field == b"-")?;
    let filesystem = String::from_utf8(unescape(fields.next()?)).ok()?;
    let device = OsString::from_vec(unescape(fields.next()?));
    Some(Mount {
        id,
        at: OsString::from_vec(at).into(),
        filesystem,
        device,
    })
}

/// Blanks, tabs, newlines and backslashes stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        if let Some(decoded) = octal {
            plain.push(decoded);
            rest = &after[3..];
        } else {
            plain.push(*byte);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_its_escapes_and_optional_fields() {
        let table = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            36 35 98:0 /mnt1 /mnt/a\\040b\\012c\\134d rw,noatime master:1 shared:2 - fuse.manifold my\\040library rw\n\
            nonsense\n40 1 0:5 / /x rw -\n41 1 0:5 / /y rw - fuse manifold rw,user_id=0\n";
        let mounts = parse(table);
        let at: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.id, mount.at.to_str().unwrap()))
            .collect();
        assert_eq!(at, [(22, "/proc"), (36, "/mnt/a b\nc\\d"), (41, "/y")]);
        assert_eq!(mounts[1].device, "my library");
        let ours: Vec<_> = mounts.iter().map(Mount::is_manifold).collect();
        assert_eq!(ours, [false, true, true]);
    }

    #[test]
    fn a_path_is_on_the_mount_that_holds_it() {
        let mount = mount_of(Path::new("/proc/self")).unwrap().unwrap();
        assert_eq!((mount.at.to_str(), mount.filesystem.as_str()), (Some("/proc"), "proc"));
        assert!(!mount.is_manifold());
        assert!(mount_of(Path::new("/nowhere/at/all")).is_err());
    }
}
