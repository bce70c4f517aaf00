//! Reading a range of one version of a file.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::attributes::{self, Origin};
use super::beneath::Failure;
use crate::{ErrorKind, Metadata, Version};

/// Reads exactly `range`. The file must be in `version` before and after: what changes it changes its times too.
pub(super) fn exactly(
    file: &File,
    metadata: &Metadata,
    version: &Version,
    range: Range<u64>,
) -> Result<Bytes, Failure> {
    let changed = || Failure::refused(ErrorKind::VersionChanged, "the file has changed");
    if metadata.version != *version {
        return Err(changed());
    }
    if range.start > range.end || range.end > metadata.size {
        return Err(Failure::refused(
            ErrorKind::Nonsense,
            "the range does not lie within the file",
        ));
    }
    let length = usize::try_from(range.end - range.start).map_err(|_| too_much())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| too_much())?;
    while bytes.len() < length {
        let offset = range.start + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), offset) {
            // The end of the file, before the range's: it was cut short.
            Ok(0) => return Err(changed()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::Object(errno)),
        }
    }
    // The allocator may have given more room than was asked for.
    bytes.truncate(length);
    let stat =
        rustix::fs::statx(file.as_fd(), c"", AtFlags::EMPTY_PATH, attributes::WANTED).map_err(Failure::Object)?;
    let origin = Origin {
        root_device: 0,
        inodes_last: metadata.identity.is_some(),
    };
    match attributes::metadata(&stat, origin) {
        Some(now) if now.version == *version => Ok(bytes.into()),
        _ => Err(changed()),
    }
}

fn too_much() -> Failure {
    Failure::refused(ErrorKind::Other, "there is not enough memory for so long a read")
}
