//! A grip on one connection to the kernel, by which a process that does not serve it can end it.
//!
//! It is fusectl's `abort` file of that connection, open (Documentation/filesystems/fuse.rst). Where fusectl is mounted, the
//! mount's own user may open it; elsewhere root looks at fusectl without mounting it anywhere.
//!
//! Always true: whatever gets the number of the file system once it is gone is not touched. The kernel takes the file from its
//! connection when that ends, and writing to it does nothing from then on.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use super::{no_table, table, table::Device};
use crate::MountError;

/// Where fusectl is mounted, if it is.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// What fusectl is called in the table of mounts.
const CONTROL: &str = "fusectl";

/// A grip on the connection of one mount.
#[derive(Debug)]
pub struct Grip {
    point: PathBuf,
    abort: OwnedFd,
}

impl Grip {
    /// Takes hold of the mount at `point` whose device number is `device` (see [`Mount::device`](crate::Mount::device)).
    /// Neither the file system nor its daemon is asked for anything.
    pub fn take(point: &Path, device: u64) -> Result<Self, MountError> {
        let device = Device {
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
        };
        let failed = |cause: io::Error| MountError::System {
            doing: "take hold of the connection to the kernel",
            point: point.to_owned(),
            cause,
        };
        let abort = open_abort(device).map_err(|errno| failed(errno.into()))?;
        // Looked at when it is open: it cannot become another's any more.
        if table::mounted(point, device).map_err(|cause| no_table(point, cause))? {
            Ok(Self {
                point: point.to_owned(),
                abort,
            })
        } else {
            Err(failed(io::Error::other(
                "another file system is mounted there, or none",
            )))
        }
    }

    /// Tells whether fusectl is mounted where it belongs. Where it is not, root alone can take hold of a mount.
    pub fn control_is_mounted() -> bool {
        table::topmost(Path::new(CONNECTIONS)).is_ok_and(|top| top.is_some_and(|top| top.kind == CONTROL))
    }

    /// Makes every request of the connection fail, and all that come: who waits for one gets an error. What is mounted stays
    /// mounted, dead. Nothing is done where the connection has ended already.
    pub fn abort(&self) -> Result<(), MountError> {
        match rustix::io::write(&self.abort, b"1") {
            Ok(_) => Ok(()),
            Err(errno) => Err(MountError::System {
                doing: "abort the connection to the kernel",
                point: self.point.clone(),
                cause: errno.into(),
            }),
        }
    }
}

fn open_abort(device: Device) -> Result<OwnedFd, Errno> {
    // fusectl has a folder for each connection, named by the minor number.
    let file = format!("{}/abort", device.minor);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(format!("{CONNECTIONS}/{file}"), flags, Mode::empty()) {
        Err(Errno::NOENT) => rustix::fs::openat(unmounted_control()?, file, flags, Mode::empty()),
        opened => opened,
    }
}

/// The root of fusectl, mounted nowhere. Root may have it.
fn unmounted_control() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(CONTROL, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
