//! Reading directories: pages out of the catalog, by name, so that a million entries cost no memory.
//!
//! Offsets count entries, from 0. What an offset means is fixed when it is given out: it stands for the name after which to go on. A handle
//! remembers those names for its last two replies and for one entry in a thousand before that, so that going on, and going back to any place of the last two
//! replies, neither repeats nor loses an entry that stayed, whatever came and went meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_catalog::{Entry, EntryId};
use parking_lot::{Mutex, RwLock};

use crate::Error;
use crate::attributes::Attributes;
use crate::vfs::Core;

/// One name in so many is remembered for as long as the handle is open.
const MARK_EVERY: u64 = 1_000;
/// How many entries are asked of the catalog at once, at first and at most.
const PAGE_FIRST: usize = 64;
const PAGE_MAX: usize = 1_000;
/// How many replies' names are remembered.
const REPLIES_KEPT: usize = 2;

/// Names an open directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryHandle(pub u64);

/// Where to go on reading a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor<'a> {
    /// After so many entries: 0, or the [`next_offset`](DirectoryItem::next_offset) of an item that this handle gave.
    Offset(u64),
    /// After this name.
    AfterName(&'a [u8]),
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryItem<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes.
    pub attributes: &'a Attributes,
    /// Where the next entry is read from.
    pub next_offset: u64,
}

/// All open directories.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    next: AtomicU64,
    open: RwLock<HashMap<DirectoryHandle, Arc<OpenDirectory>>>,
}

#[derive(Debug)]
struct OpenDirectory {
    id: EntryId,
    places: Mutex<Places>,
}

/// Which name stands before which offset.
#[derive(Debug, Default)]
struct Places {
    /// Names of single entries, by the offset after them.
    marks: Vec<(u64, Box<[u8]>)>,
    /// The last replies: the offset of the first entry, and the entries.
    replies: VecDeque<(u64, Vec<Entry>)>,
    page: usize,
}

impl Directories {
    /// Opens a directory.
    pub(crate) fn open(&self, id: EntryId) -> DirectoryHandle {
        let handle = DirectoryHandle(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let directory = OpenDirectory {
            id,
            places: Mutex::new(Places {
                page: PAGE_FIRST,
                ..Places::default()
            }),
        };
        self.open.write().insert(handle, Arc::new(directory));
        handle
    }

    /// Closes a directory.
    pub(crate) fn release(&self, handle: DirectoryHandle) {
        self.open.write().remove(&handle);
    }

    /// Reads on from a place, until the end or until `each` breaks. The item at which it breaks counts as not taken.
    pub(crate) fn read(
        &self,
        core: &Core,
        handle: DirectoryHandle,
        cursor: Cursor<'_>,
        each: &mut dyn FnMut(DirectoryItem<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let directory = self.open.read().get(&handle).cloned().ok_or(Error::BadHandle)?;
        let mut places = directory.places.lock();
        let (mut offset, mut after, mut skip) = match cursor {
            Cursor::Offset(offset) => places.find(offset),
            Cursor::AfterName(name) => (0, Some(name.into()), 0),
        };
        loop {
            let limit = if skip > 0 { PAGE_MAX } else { places.page };
            let mut entries = core.children_shown(directory.id, after.as_deref(), limit)?;
            let is_last = entries.len() < limit;
            after = entries.last().map(|it| it.name.clone());
            let skipped = skip.min(entries.len() as u64);
            entries.drain(..skipped as usize);
            (offset, skip) = (offset + skipped, skip - skipped);
            let taken = give(core, &entries, offset, each)?;
            let is_full = taken < entries.len();
            entries.truncate(taken);
            places.page = if is_full {
                (taken + taken / 4 + 4).clamp(16, PAGE_MAX)
            } else {
                (places.page * 2).min(PAGE_MAX)
            };
            let start = offset;
            offset += taken as u64;
            if matches!(cursor, Cursor::Offset(_)) {
                places.remember(start, entries);
            }
            if is_full || is_last {
                return Ok(());
            }
        }
    }
}

/// Hands out entries, and says how many were taken.
fn give(
    core: &Core,
    entries: &[Entry],
    offset: u64,
    each: &mut dyn FnMut(DirectoryItem<'_>) -> ControlFlow<()>,
) -> Result<usize, Error> {
    for (taken, entry) in entries.iter().enumerate() {
        let attributes = core.attributes_shown(entry)?;
        let item = DirectoryItem {
            name: &entry.name,
            attributes: &attributes,
            next_offset: offset + taken as u64 + 1,
        };
        if each(item).is_break() {
            return Ok(taken);
        }
    }
    Ok(entries.len())
}

impl Places {
    /// Finds the name to go on after, and how many entries to leave out from there: offset reached, name, rest.
    fn find(&self, offset: u64) -> (u64, Option<Box<[u8]>>, u64) {
        if offset == 0 {
            return (0, None, 0);
        }
        for (start, entries) in self.replies.iter().rev() {
            if let Some(entry) = offset.checked_sub(start + 1).and_then(|at| entries.get(at as usize)) {
                return (offset, Some(entry.name.clone()), 0);
            }
        }
        let at = self.marks.partition_point(|(mark, _)| *mark <= offset);
        match at.checked_sub(1).map(|at| &self.marks[at]) {
            Some((mark, name)) => (*mark, Some(name.clone()), offset - mark),
            None => (0, None, offset),
        }
    }

    fn remember(&mut self, start: u64, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        for (after, entry) in (start + 1..).zip(&entries) {
            let is_new = self.marks.last().is_none_or(|(last, _)| *last < after);
            if after % MARK_EVERY == 0 && is_new {
                self.marks.push((after, entry.name.clone()));
            }
        }
        self.replies.push_back((start, entries));
        while self.replies.len() > REPLIES_KEPT {
            self.replies.pop_front();
        }
    }
}
