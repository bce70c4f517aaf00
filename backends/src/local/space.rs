//! How much room the disk beneath a source has.

use std::os::fd::AsFd;

use super::LocalBackend;
use super::beneath::Failure;
use crate::{ObjectPath, Operation, Result};

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The number of the file system: two folders of one number have their room together.
    pub device: u64,
    /// All of it, in bytes.
    pub bytes: u64,
    /// What is free, in bytes.
    pub free: u64,
    /// What is free for everybody, in bytes.
    pub available: u64,
    /// How many objects it can hold; 0 where that has no bound.
    pub objects: u64,
    /// How many more it can hold.
    pub free_objects: u64,
}

impl LocalBackend {
    /// Tells how much room the disk has that the root is on. The disk itself is not asked, only its file system, which knows;
    /// one that [may hang](Self::may_hang) may not answer.
    pub fn space(&self) -> Result<Space> {
        let ask = || {
            let root = self.folder.root.open()?;
            let seen = rustix::fs::fstatvfs(root.as_fd()).map_err(Failure::Object)?;
            let device = rustix::fs::fstat(root.as_fd()).map_err(Failure::Object)?.st_dev;
            let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
            Ok(Space {
                device,
                bytes: bytes(seen.f_blocks),
                free: bytes(seen.f_bfree),
                available: bytes(seen.f_bavail),
                objects: seen.f_files,
                free_objects: seen.f_ffree,
            })
        };
        ask().map_err(|failure| self.folder.error(Operation::Stat, &ObjectPath::root(), failure))
    }
}
