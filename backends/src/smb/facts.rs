//! What a server says of one object, in the protocol's own terms, and how that becomes our [`Metadata`].
//!
//! Always true: the version made here is the same whether the facts came from a listing, from asking for one object
//! or from an open handle.

use opendal::raw::Timestamp as OpendalTimestamp;
use opendal::{Metadata as OpendalMetadata, MetadataBuilder};

use crate::{Identity, Kind, Metadata, Timestamp, Version};

/// The key under which the facts travel through `OpenDAL`, among the user metadata.
const KEY: &str = "smb-facts";

/// The attributes of one object. Times are in units of 100 ns since 1601, 0 if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) changed: u64,
    pub(super) attributes: u32,
    /// The kind of reparse point; 0 for everything else.
    pub(super) tag: u32,
    /// The file's number within its volume; 0 if there is none.
    pub(super) index: u64,
    /// Names of the file, as an open handle tells it; a listing does not.
    pub(super) links: u32,
    /// Whether it goes when its last handle is closed.
    pub(super) delete_pending: bool,
}

impl Facts {
    /// The attribute of a directory (MS-FSCC 2.6).
    pub(super) const DIRECTORY: u32 = 0x10;
    /// The attribute of a reparse point.
    pub(super) const REPARSE_POINT: u32 = 0x400;
    /// A symbolic link of Windows (MS-FSCC 2.1.2.1, as are all tags).
    pub(super) const TAG_SYMLINK: u32 = 0xA000_000C;
    /// A junction.
    pub(super) const TAG_MOUNT_POINT: u32 = 0xA000_0003;
    /// A symbolic link of WSL.
    pub(super) const TAG_LX_SYMLINK: u32 = 0xA000_001D;
    /// A link or special file of the NFS server.
    pub(super) const TAG_NFS: u32 = 0x8000_0014;
    const TAG_AF_UNIX: u32 = 0x8000_0023;
    const TAG_LX_FIFO: u32 = 0x8000_0024;
    const TAG_LX_CHR: u32 = 0x8000_0025;
    const TAG_LX_BLK: u32 = 0x8000_0026;

    /// Says what sort of thing it is. A junction counts as a link: followed as a directory it could lead in a circle.
    /// Files that a storage filter keeps elsewhere (deduplicated, compressed, in a cloud) are files.
    pub(super) fn kind(&self) -> Kind {
        if self.attributes & Self::REPARSE_POINT != 0 {
            match self.tag {
                Self::TAG_SYMLINK | Self::TAG_MOUNT_POINT | Self::TAG_LX_SYMLINK | Self::TAG_NFS => {
                    return Kind::Symlink;
                }
                Self::TAG_AF_UNIX => return Kind::Socket,
                Self::TAG_LX_FIFO => return Kind::Fifo,
                Self::TAG_LX_CHR => return Kind::CharDevice,
                Self::TAG_LX_BLK => return Kind::BlockDevice,
                _ => {}
            }
        }
        if self.attributes & Self::DIRECTORY != 0 {
            Kind::Directory
        } else {
            Kind::File
        }
    }

    /// Tells this state of the object from the next: size, both times and the file's number.
    pub(super) fn version(&self) -> Version {
        let time = |ticks| timestamp(ticks).unwrap_or_default();
        Version::from_stat(self.size, time(self.modified), time(self.changed), self.index)
    }

    /// Gives the version as `OpenDAL` carries it: a string.
    pub(super) fn version_text(version: &Version) -> String {
        let mut text = String::with_capacity(version.as_bytes().len() * 2);
        for byte in version.as_bytes() {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        text
    }

    /// Takes back what [`version_text`](Self::version_text) gave.
    pub(super) fn version_of_text(text: &str) -> Option<Version> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes = pairs
            .iter()
            .map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8));
        rest.is_empty()
            .then(|| bytes.collect::<Option<Vec<u8>>>())
            .flatten()
            .map(|bytes| Version::from_stored(&bytes))
    }

    /// Tells whether nothing but the time of the last change differs, and the file has lost its last name: what a
    /// deletion, or a replacement by renaming, does to a file that is still open.
    pub(super) fn only_unlinked_since(&self, opened: &Self) -> bool {
        (self.links == 0 || self.delete_pending)
            && (self.size, self.modified, self.index) == (opened.size, opened.modified, opened.index)
    }

    /// Gives the facts in our words.
    pub(super) fn metadata(&self) -> Metadata {
        let kind = self.kind();
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&self.index.to_le_bytes());
        Metadata {
            kind,
            size: if kind == Kind::File { self.size } else { 0 },
            modified: timestamp(self.modified),
            changed: timestamp(self.changed),
            created: timestamp(self.created),
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: self.version(),
            identity: (self.index != 0).then_some(Identity(identity)),
        }
    }

    /// Packs the facts into `OpenDAL`'s metadata.
    pub(super) fn to_opendal(self) -> OpendalMetadata {
        let mut builder = match self.kind() {
            Kind::Directory => MetadataBuilder::dir(),
            // `OpenDAL` knows files and directories; what is neither is a file to it.
            _ => MetadataBuilder::file(self.size),
        };
        if let Some(modified) = timestamp(self.modified)
            && let Ok(time) = OpendalTimestamp::new(
                modified.0.div_euclid(1_000_000_000),
                modified.0.rem_euclid(1_000_000_000) as i32,
            )
        {
            builder.last_modified(time);
        }
        builder.version(Self::version_text(&self.version()));
        let text = format!(
            "{:x} {:x} {:x} {:x} {:x} {:x} {:x}",
            self.size, self.created, self.modified, self.changed, self.attributes, self.tag, self.index
        );
        builder.user_metadata([(KEY.to_owned(), text)]);
        builder.build()
    }

    /// Unpacks what [`to_opendal`](Self::to_opendal) packed.
    pub(super) fn from_opendal(metadata: &OpendalMetadata) -> Option<Self> {
        let user = metadata.user_metadata()?;
        let mut fields = user
            .get(KEY)?
            .split(' ')
            .map(|field| u64::from_str_radix(field, 16).ok());
        let mut next = || fields.next().flatten();
        Some(Self {
            size: next()?,
            created: next()?,
            modified: next()?,
            changed: next()?,
            attributes: u32::try_from(next()?).ok()?,
            tag: u32::try_from(next()?).ok()?,
            index: next()?,
            links: 1,
            delete_pending: false,
        })
    }
}

/// Turns a FILETIME (MS-DTYP 2.3.3) into ours, saturating at the ends of the range; `None` for 0, which says "unknown".
fn timestamp(ticks: u64) -> Option<Timestamp> {
    const UNIX_EPOCH_TICKS: i128 = 116_444_736_000_000_000;
    if ticks == 0 {
        return None;
    }
    let nanoseconds = (i128::from(ticks) - UNIX_EPOCH_TICKS) * 100;
    let end = if nanoseconds < 0 { i64::MIN } else { i64::MAX };
    Some(Timestamp(i64::try_from(nanoseconds).unwrap_or(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        size: u64::MAX,
        created: 1,
        modified: 116_444_736_000_000_000,
        changed: u64::MAX,
        attributes: 0x20,
        tag: 0,
        index: 42,
        links: 1,
        delete_pending: false,
    };

    #[test]
    fn times_out_of_range_saturate_and_zero_is_unknown() {
        assert_eq!(timestamp(0), None);
        assert_eq!(timestamp(116_444_736_000_000_000), Some(Timestamp(0)));
        assert_eq!(timestamp(1), Some(Timestamp(i64::MIN)));
        assert_eq!(timestamp(u64::MAX), Some(Timestamp(i64::MAX)));
        assert_eq!(timestamp(116_444_736_000_000_001), Some(Timestamp(100)));
    }

    #[test]
    fn facts_survive_the_way_through_opendal() {
        assert_eq!(Facts::from_opendal(&FACTS.to_opendal()), Some(FACTS));
        let directory = Facts {
            attributes: Facts::DIRECTORY,
            size: 0,
            ..FACTS
        };
        assert!(directory.to_opendal().is_dir());
        assert_eq!(Facts::from_opendal(&directory.to_opendal()), Some(directory));
    }

    #[test]
    fn a_link_is_not_walked_into_and_a_deduplicated_file_is_a_file() {
        let tagged = |tag, more| {
            Facts {
                attributes: Facts::REPARSE_POINT | more,
                tag,
                ..FACTS
            }
            .kind()
        };
        assert_eq!(tagged(Facts::TAG_MOUNT_POINT, Facts::DIRECTORY), Kind::Symlink);
        assert_eq!(tagged(Facts::TAG_SYMLINK, 0), Kind::Symlink);
        assert_eq!(tagged(0x8000_0013, 0), Kind::File);
        assert_eq!(tagged(0x9000_001A, Facts::DIRECTORY), Kind::Directory);
    }

    #[test]
    fn a_write_that_puts_the_old_time_back_is_not_taken_for_a_deletion() {
        let touched = Facts { changed: 7, ..FACTS };
        assert_ne!(touched.version(), FACTS.version());
        assert!(!touched.only_unlinked_since(&FACTS));
        assert!(Facts { links: 0, ..touched }.only_unlinked_since(&FACTS));
        assert!(
            !Facts {
                links: 0,
                modified: 7,
                ..touched
            }
            .only_unlinked_since(&FACTS)
        );
    }
}
