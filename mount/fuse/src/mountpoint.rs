//! The place where a library is mounted: looked at before, taken, and left.
//!
//! Owns all that is done to the mount table. The descriptor of `/dev/fuse` that comes out of [`attach`] goes to the
//! session; fuser is never told the path, so that it can never unmount it.
//!
//! Always true: nothing is unmounted by path unless the mount table says that what stands on top there is ours, alive or
//! dead. A mount that someone else made at the same path in the meantime is not touched.

mod fusermount;
pub(crate) mod grip;
pub(crate) mod table;

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};

use crate::{MountError, MountOptions};
use table::Device;

/// The file system type in the mount table: how a mount of ours is known.
const KIND: &str = "fuse.manifold";
const DEVICE: &str = "/dev/fuse";

/// Dead mounts can lie on top of each other, one for each time that a daemon was killed and started by something that did
/// not clean up. More than this is no accident.
const DEAD_LAYERS_MAX: usize = 16;

/// How a mount was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing used it.
    Unmounted,
    /// Files were open: the name is free, and what is open goes on being served until it is closed.
    Detached,
    /// There was nothing of ours to take away.
    Gone,
}

/// Gives the real path of a directory that can be mounted upon, after clearing away what a killed daemon has left there.
pub(crate) fn prepare(at: &Path) -> Result<PathBuf, MountError> {
    let point = real_path(at)?;
    let failed = |cause: Errno| MountError::MountPoint {
        point: point.clone(),
        cause: cause.into(),
    };
    let mut layers = 0;
    while is_dead(&point) {
        if layers == DEAD_LAYERS_MAX {
            return Err(failed(Errno::NOTCONN));
        }
        clear_dead(&point)?;
        layers += 1;
    }
    match rustix::fs::stat(&point) {
        Ok(status) if rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir() => {}
        Ok(_) => return Err(MountError::NotADirectory(point)),
        Err(Errno::NOENT) => return Err(MountError::Missing(point)),
        Err(cause) => return Err(failed(cause)),
    }
    if let Some(top) = topmost(&point)?
        && top.kind == KIND
    {
        return Err(MountError::AlreadyMounted {
            point,
            source_name: top.source,
        });
    }
    let mut entries = fs::read_dir(&point).map_err(|cause| MountError::MountPoint {
        point: point.clone(),
        cause,
    })?;
    match entries.next() {
        None => Ok(point),
        Some(_) => Err(MountError::NotEmpty(point)),
    }
}

/// Mounts at `point`, which [`prepare`] gave, and hands back the descriptor on which the kernel asks.
pub(crate) fn attach(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    // Opened first even where the helper does the mounting: it opens the device with the user's own rights, and says less.
    let device = open_device()?;
    match attach_directly(point, options, &device) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => {
            drop(device);
            fusermount::mount(point, options)
        }
        Err(cause) => Err(MountError::System {
            doing: "mount",
            point: point.to_owned(),
            cause: cause.into(),
        }),
    }
}

/// Whether further descriptors of `/dev/fuse` can be had, one for each session thread.
pub(crate) fn device_opens() -> bool {
    open_device().is_ok()
}

/// Takes away the mount that has `device` at `point`.
pub(crate) fn leave(point: &Path, device: Device) -> Result<Left, MountError> {
    match topmost(point)? {
        Some(top) if top.device == device => {}
        Some(_) if table::mounted(point, device).map_err(|cause| no_table(point, cause))? => {
            return Err(MountError::Covered(point.to_owned()));
        }
        _ => return Ok(Left::Gone),
    }
    match detach(point, UnmountFlags::empty())? {
        Left::Detached => detach(point, UnmountFlags::DETACH).map(|left| match left {
            Left::Unmounted => Left::Detached,
            other => other,
        }),
        other => Ok(other),
    }
}

/// Takes away what is left of the mount that had `device` at `point`, after its session has ended. Gives whether anything
/// was left.
///
/// The kernel gives the number of a file system that is gone to the next one, which may have been mounted at this very
/// point in the meantime. So the number alone does not tell ours from another's; that it is dead does.
pub(crate) fn clear_away(point: &Path, device: Device) -> Result<bool, MountError> {
    let same_number = topmost(point)?.is_some_and(|top| top.device == device);
    if same_number && is_dead(point) {
        return detach(point, UnmountFlags::DETACH).map(|left| left == Left::Unmounted);
    }
    Ok(false)
}

/// Makes every request of the mount with `device` at `point` fail, and all that come.
///
/// The kernel gives the number of a mount that is gone to the next one, whoever's that is. So nothing is done where `point` has
/// no mount of ours with that number any more.
pub(crate) fn abort(point: &Path, device: Device) -> Result<(), MountError> {
    let is_ours = |mounted: &table::Mounted| mounted.device == device && mounted.kind == KIND;
    let here = table::all_at(point).map_err(|cause| no_table(point, cause))?;
    if !here.iter().any(is_ours) {
        return Err(MountError::System {
            doing: "abort the connection to the kernel",
            point: point.to_owned(),
            cause: io::Error::new(
                io::ErrorKind::NotFound,
                "it is not mounted there any more, and its number may be another mount's by now",
            ),
        });
    }
    // fusectl has a folder for each connection, named by the minor number (Documentation/filesystems/fuse.rst).
    let by_control = fs::write(format!("/sys/fs/fuse/connections/{}/abort", device.minor), "1");
    let Err(cause) = by_control else { return Ok(()) };
    if topmost(point)?.is_some_and(|top| top.device == device) {
        // It ends the connection before it looks whether it can unmount: being busy is no failure.
        match rustix::mount::unmount(point, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::BUSY) => return Ok(()),
            Err(errno) => tracing::debug!(%errno, "unmounting by force failed"),
        }
    }
    Err(MountError::System {
        doing: "abort the connection to the kernel",
        point: point.to_owned(),
        cause,
    })
}

/// The mount on top at `point`.
pub(crate) fn topmost(point: &Path) -> Result<Option<table::Mounted>, MountError> {
    table::topmost(point).map_err(|cause| no_table(point, cause))
}

fn no_table(point: &Path, cause: io::Error) -> MountError {
    MountError::System {
        doing: "read the mount table",
        point: point.to_owned(),
        cause,
    }
}

fn real_path(at: &Path) -> Result<PathBuf, MountError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => MountError::Missing(at.to_owned()),
        _ => MountError::MountPoint {
            point: at.to_owned(),
            cause,
        },
    };
    match fs::canonicalize(at) {
        // Resolving the last name asks the dead mount itself; its parent answers.
        Err(cause) if cause.kind() == io::ErrorKind::NotConnected => {
            let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
                return Err(failed(cause));
            };
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(fs::canonicalize(parent).map_err(failed)?.join(name))
        }
        other => other.map_err(failed),
    }
}

/// Whether nobody answers for the mount at `point` any more.
///
/// By statfs: the kernel answers a stat out of its memory, for as long as it was allowed to believe what the dead daemon said.
fn is_dead(point: &Path) -> bool {
    rustix::fs::statfs(point).is_err_and(|errno| matches!(errno, Errno::NOTCONN | Errno::CONNABORTED))
}

fn clear_dead(point: &Path) -> Result<(), MountError> {
    match topmost(point)? {
        Some(top) if top.kind == KIND => {
            tracing::info!(point = %point.display(), "taking away a dead mount");
            detach(point, UnmountFlags::DETACH).map(drop)
        }
        Some(top) => Err(MountError::DeadForeign {
            point: point.to_owned(),
            kind: top.kind,
        }),
        // The dead mount is further up the path.
        None => Err(MountError::MountPoint {
            point: point.to_owned(),
            cause: Errno::NOTCONN.into(),
        }),
    }
}

/// Unmounts by path. [`Left::Detached`] stands for "busy" here: it comes only where `flags` do not ask to detach.
fn detach(point: &Path, flags: UnmountFlags) -> Result<Left, MountError> {
    match rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Left::Unmounted),
        Err(Errno::BUSY) => Ok(Left::Detached),
        Err(Errno::INVAL | Errno::NOENT) => Ok(Left::Gone),
        Err(Errno::PERM) => fusermount::unmount(point, flags.contains(UnmountFlags::DETACH)),
        Err(cause) => Err(MountError::System {
            doing: "unmount",
            point: point.to_owned(),
            cause: cause.into(),
        }),
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => MountError::DeviceDenied,
        Errno::NOENT | Errno::NODEV | Errno::NXIO => MountError::NoDevice,
        cause => MountError::System {
            doing: "open the FUSE device",
            point: DEVICE.into(),
            cause: cause.into(),
        },
    })
}

fn attach_directly(point: &Path, options: &MountOptions, device: &OwnedFd) -> Result<(), Errno> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        permissions(options)
    )
    .into_bytes();
    data.retain(|byte| *byte != 0);
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = flags(options)
        .map(|(_, flag)| flag)
        .fold(MountFlags::empty(), MountFlags::union);
    rustix::mount::mount(options.fs_name.as_str(), point, KIND, flags, data.as_c_str())
}

/// What the kernel itself sees to: each as mount(8) calls it, and as the kernel does.
fn flags(options: &MountOptions) -> impl Iterator<Item = (&'static str, MountFlags)> {
    let flags = [
        (true, "nosuid", MountFlags::NOSUID),
        (true, "nodev", MountFlags::NODEV),
        (options.read_only, "ro", MountFlags::RDONLY),
        (!options.read_only, "rw", MountFlags::empty()),
        (options.no_exec, "noexec", MountFlags::NOEXEC),
        (options.no_atime, "noatime", MountFlags::NOATIME),
        (options.no_diratime, "nodiratime", MountFlags::NODIRATIME),
    ];
    flags
        .into_iter()
        .filter_map(|(is_set, name, flag)| is_set.then_some((name, flag)))
}

/// Who may come in, in the kernel's words.
///
/// `default_permissions` is always on: the kernel then decides by mode and owner as on a local file system, without an
/// ACCESS request for each look, and `allow_other` without it would let everyone read everything.
fn permissions(options: &MountOptions) -> &'static str {
    if options.allow_other {
        "default_permissions,allow_other"
    } else {
        "default_permissions"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_ours_at_the_mount_point_is_not_aborted() {
        // Nothing is mounted on a new folder, and what is mounted on `/proc` is not ours, whatever its number.
        let folder = tempfile::tempdir().expect("a folder");
        let proc = table::topmost(Path::new("/proc"))
            .expect("a table")
            .expect("it is mounted");
        for point in [folder.path(), Path::new("/proc")] {
            let refused = abort(point, proc.device).expect_err("it is another's");
            assert!(refused.to_string().contains("not mounted there any more"), "{refused}");
        }
    }
}
