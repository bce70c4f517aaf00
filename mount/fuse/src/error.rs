//! Why a mount could not be made or taken away, and what the person can do about it.

use std::{io, path::PathBuf};

/// Why mounting or unmounting failed. Each message says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point does not exist.
    #[error("mount point {} does not exist\ncreate it first: mkdir -p {}", .0.display(), .0.display())]
    Missing(PathBuf),
    /// The mount point is a file.
    #[error("mount point {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The mount point holds files, which the mount would hide.
    #[error("mount point {} is not empty, and the mount would hide what it holds\nname an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// A library is mounted there already.
    #[error("mount point {} is in use: {source_name} is mounted there\nunmount it first: manifold unmount {}", .point.display(), .point.display())]
    AlreadyMounted {
        /// The mount point.
        point: PathBuf,
        /// What `/proc/mounts` shows as its device.
        source_name: String,
    },
    /// A mount of another program stands dead at the mount point.
    #[error("mount point {} holds a dead {kind} mount of another program\ntake it away first: umount -l {}", .point.display(), .point.display())]
    DeadForeign {
        /// The mount point.
        point: PathBuf,
        /// Its file system type.
        kind: String,
    },
    /// The mount point could not be looked at.
    #[error("cannot use mount point {}: {cause}", .point.display())]
    MountPoint {
        /// The mount point.
        point: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The kernel has no FUSE.
    #[error(
        "this kernel offers no /dev/fuse\nload the module: modprobe fuse; in a container, pass the device: --device /dev/fuse"
    )]
    NoDevice,
    /// This user may not open `/dev/fuse`.
    #[error(
        "this user may not open /dev/fuse, which mounting needs\nallow it as root: chmod 0666 /dev/fuse (the usual mode; udev sets it where it runs)"
    )]
    DeviceDenied,
    /// The set-user-id helper for ordinary users is not installed.
    #[error("fusermount3 was not found, and mounting as an ordinary user needs it\ninstall the package fuse3")]
    NoFusermount,
    /// `allow_other` was asked for by an ordinary user, and the machine does not permit that.
    #[error(
        "other users may be let in only where /etc/fuse.conf says so\nadd the line user_allow_other to /etc/fuse.conf as root, or mount without allow_other"
    )]
    AllowOtherForbidden,
    /// The helper refused.
    #[error("fusermount3 refused {}: {said}", .point.display())]
    Fusermount {
        /// The mount point.
        point: PathBuf,
        /// What it wrote to stderr.
        said: String,
    },
    /// A system call on the way failed.
    #[error("cannot {doing} at {}: {cause}", .point.display())]
    System {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The mount point.
        point: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// Another mount stands on top of this one, and taking that away is not ours to do.
    #[error("{} is covered by another mount\nunmount that one first: umount {}", .0.display(), .0.display())]
    Covered(PathBuf),
}
