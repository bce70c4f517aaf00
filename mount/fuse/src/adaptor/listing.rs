//! Listings, with attributes and without.

use std::{ffi::OsStr, ops::ControlFlow, os::unix::ffi::OsStrExt, time::Duration};

use fuser::{FileHandle, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request};
use manifold_vfs::{Cursor, DirectoryHandle, DirectoryItem, Error};

use super::{Adaptor, GENERATION, attr_belief, belief, ticket};
use crate::attributes::{file_attr, file_type, inode, no_entry};

/// `.` and `..` stand before the file system's own entries.
const DOTS: u64 = 2;

impl Adaptor {
    pub(super) fn list(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let ticket = ticket(request, "readdir", ino);
        self.crossing.now(ticket, move || {
            let walked = self.walk(ino, handle, offset, &mut |item| match item {
                Item::Dot { ino, name, next } => reply.add(ino, next, FileType::Directory, name),
                Item::Entry(item) => reply.add(
                    inode(item.attributes.id),
                    item.next_offset + DOTS,
                    file_type(item.attributes.kind),
                    OsStr::from_bytes(item.name),
                ),
            });
            match walked {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(ticket.failed(&error)),
            }
        });
    }

    pub(super) fn list_with_attributes(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let ticket = ticket(request, "readdirplus", ino);
        self.crossing.now(ticket, move || {
            let walked = self.walk(ino, handle, offset, &mut |item| match item {
                // The kernel takes no attributes for these two, and counts no look-up.
                Item::Dot { ino, name, next } => {
                    let dot = fuser::FileAttr {
                        ino,
                        kind: FileType::Directory,
                        ..no_entry()
                    };
                    reply.add(ino, next, name, &Duration::ZERO, &dot, GENERATION)
                }
                Item::Entry(item) => reply.add(
                    inode(item.attributes.id),
                    item.next_offset + DOTS,
                    OsStr::from_bytes(item.name),
                    // One time for both: of what is being written, the name is asked for again too.
                    &belief(ino).min(attr_belief(item.attributes)),
                    &file_attr(item.attributes, self.owner),
                    GENERATION,
                ),
            });
            match walked {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(ticket.failed(&error)),
            }
        });
    }

    /// Walks a directory from the kernel's `offset`; `add` gives whether the reply is full.
    fn walk(
        &self,
        directory: INodeNo,
        handle: FileHandle,
        offset: u64,
        add: &mut dyn FnMut(Item<'_>) -> bool,
    ) -> Result<(), Error> {
        for (position, name) in [(0, "."), (1, "..")] {
            // The number of the parent is of no use to anyone: who goes up asks for its attributes.
            if offset <= position
                && add(Item::Dot {
                    ino: directory,
                    name,
                    next: position + 1,
                })
            {
                return Ok(());
            }
        }
        let cursor = Cursor::Offset(offset.saturating_sub(DOTS));
        self.vfs.read_directory(DirectoryHandle(handle.0), cursor, &mut |item| {
            if add(Item::Entry(&item)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }
}

/// What a listing holds.
enum Item<'a> {
    Dot {
        ino: INodeNo,
        name: &'static str,
        next: u64,
    },
    Entry(&'a DirectoryItem<'a>),
}
