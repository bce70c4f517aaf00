//! Opening, and what there is room for.

use std::{sync::Arc, time::Duration};

use fuser::{FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyOpen, ReplyStatfs, Request};
use manifold_vfs::Answer;

use super::{Adaptor, access, changes::is_direct, ticket};
use crate::attributes::entry_id;

/// The unit in which `df` counts.
const STATFS_BLOCK: u32 = 4096;
const NAME_MAX: u32 = 255;

/// How long an opening waits at most until the kernel has been told of changes. It takes a moment; on a machine that has too much to
/// do, several.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);

impl Adaptor {
    pub(super) fn open_file(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let direct = is_direct(flags);
        let (vfs, shared, runtime) = (Arc::clone(&self.vfs), Arc::clone(&self.shared), self.crossing.runtime());
        // What the kernel has been told, or will be told is no longer so.
        let known = match self.vfs.attributes(entry_id(ino), None) {
            Answer::Ready(Ok(attributes)) => Some(attributes.size),
            Answer::Ready(Err(_)) | Answer::Pending(_) => None,
        };
        self.crossing.answer(
            ticket(request, "open", ino),
            reply,
            || self.vfs.open(entry_id(ino), access(flags)),
            move |reply, ticket, opened| match opened {
                Ok(opened) if shared.is_settled() && known.is_none_or(|size| size == opened.size && !opened.writes) => {
                    shared.opened(&vfs, ino, &opened, direct, reply);
                }
                // The file was found to be another than was known, or has become another and the news has not reached the
                // kernel yet. It cuts reads at the size that it knows, so it has to unlearn that before the first of them;
                // and what is written by way of a mapping changes times that it would go on believing. News that arrived
                // while it asks for the size would make it drop the answer, so they go first.
                Ok(opened) => {
                    let _told = runtime.spawn_blocking(move || {
                        shared.settle(NEWS_PATIENCE);
                        shared.forget_attributes(ino);
                        shared.opened(&vfs, ino, &opened, direct, reply);
                    });
                }
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    pub(super) fn open_directory(&self, request: &Request, ino: INodeNo, reply: ReplyOpen) {
        let shared = Arc::clone(&self.shared);
        self.crossing.answer(
            ticket(request, "opendir", ino),
            reply,
            || self.vfs.open_directory(entry_id(ino)),
            move |reply, ticket, opened| match opened {
                Ok(handle) => {
                    let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                    if shared.listings.keep(ino) {
                        flags |= FopenFlags::FOPEN_KEEP_CACHE;
                    }
                    reply.opened(FileHandle(handle.0), flags);
                }
                Err(error) => reply.error(ticket.failed(&error)),
            },
        );
    }

    pub(super) fn tell_space(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let ticket = ticket(request, "statfs", ino);
        self.crossing.now(ticket, || match self.vfs.statfs(entry_id(ino)) {
            Ok(totals) => {
                let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK);
                if let Some(room) = totals.room {
                    reply.statfs(
                        blocks(room.bytes),
                        blocks(room.free),
                        blocks(room.available),
                        room.objects,
                        room.free_objects,
                        STATFS_BLOCK,
                        NAME_MAX,
                        STATFS_BLOCK,
                    );
                } else {
                    // Full, as a read-only file system is.
                    let all = totals.bytes.div_ceil(u64::from(STATFS_BLOCK));
                    reply.statfs(all, 0, 0, totals.entries, 0, STATFS_BLOCK, NAME_MAX, STATFS_BLOCK);
                }
                Ok(())
            }
            Err(error) => {
                let errno = ticket.failed(&error);
                reply.error(errno);
                Err(errno)
            }
        });
    }
}
