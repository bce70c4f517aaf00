//! What SFTP tells of a file, in our words.

use crate::{Kind, Metadata, Timestamp, Version};

/// The attributes of protocol version 3, as far as we use them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    /// Type and permission bits, as in `st_mode`.
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    /// Gives our metadata; `None` where the server tells neither type nor size. Owners are left out: the server's
    /// numbers mean nothing here.
    pub(super) fn metadata(&self) -> Option<Metadata> {
        let kind = match self.mode.map(|mode| mode & 0o170_000) {
            Some(0o040_000) => Kind::Directory,
            Some(0o120_000) => Kind::Symlink,
            Some(0o010_000) => Kind::Fifo,
            Some(0o140_000) => Kind::Socket,
            Some(0o020_000) => Kind::CharDevice,
            Some(0o060_000) => Kind::BlockDevice,
            Some(0o100_000) => Kind::File,
            _ => {
                self.size?;
                Kind::File
            }
        };
        let size = if kind == Kind::Directory {
            0
        } else {
            self.size.unwrap_or(0)
        };
        let modified = self
            .modified
            .map(|seconds| Timestamp::from_parts(i64::from(seconds), 0));
        Some(Metadata {
            kind,
            size,
            modified,
            changed: None,
            created: None,
            mode: self.mode.map(|mode| mode & 0o7777),
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_stat(size, modified.unwrap_or_default(), Timestamp::default(), 0),
            identity: None,
        })
    }
}
