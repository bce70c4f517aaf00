//! Takes back all that the kernel was ever told, after events were lost or a whole source came or went.
//!
//! Since FUSE 7.44 (Linux 6.16) one notice does it: the kernel then trusts no entry that it learned before. fuser does not
//! know it, so its sixteen bytes are written here. An older kernel drops all entries beneath a directory entry that it is
//! told to drop, so it is told that of each child of the root; the names in the root itself are believed for a second only
//! ([`ROOT_BELIEF`](crate::adaptor::ROOT_BELIEF)).

use std::{ffi::OsString, io, ops::ControlFlow, os::unix::ffi::OsStringExt};

use fuser::{INodeNo, Version};
use manifold_catalog::EntryId;
use manifold_vfs::{Answer, Cursor};

use crate::notify::Delivery;

/// The first version of the protocol with epochs.
const EPOCHS_SINCE: Version = Version(7, 44);

/// `FUSE_NOTIFY_INC_EPOCH` of `include/uapi/linux/fuse.h`.
const NOTIFY_INC_EPOCH: i32 = 8;

/// An out header: length, code in place of an error, and request number 0, which makes it a notice (`struct fuse_out_header`).
fn next_epoch() -> [u8; 16] {
    let mut notice = [0; 16];
    notice[..4].copy_from_slice(&16_u32.to_ne_bytes());
    notice[4..8].copy_from_slice(&NOTIFY_INC_EPOCH.to_ne_bytes());
    notice
}

pub(crate) fn take_back(delivery: &Delivery) -> io::Result<()> {
    delivery.notifier.inval_inode(INodeNo::ROOT, 0, 0)?;
    if delivery.kernel().is_some_and(|kernel| kernel >= EPOCHS_SINCE) {
        rustix::io::write(&delivery.connection, &next_epoch())?;
        return Ok(());
    }
    for name in names_in_root(delivery) {
        delivery.notifier.inval_entry(INodeNo::ROOT, &name)?;
    }
    Ok(())
}

/// The library's top level, which is the catalog's and is never waited for.
fn names_in_root(delivery: &Delivery) -> Vec<OsString> {
    let mut names = Vec::new();
    if let Some(vfs) = delivery.vfs.upgrade()
        && let Answer::Ready(Ok(handle)) = vfs.open_directory(EntryId::ROOT)
    {
        let read = vfs.read_directory(handle, Cursor::Offset(0), &mut |item| {
            names.push(OsString::from_vec(item.name.to_vec()));
            ControlFlow::Continue(())
        });
        vfs.release_directory(handle);
        if let Err(error) = read {
            tracing::warn!(%error, "the kernel may show what is no longer so, for a day at most");
        }
    }
    names
}
