//! What has lost its name: kept at hand for those who have it open, and, where another has taken its place, for a moment longer.
//!
//! A kernel looks a name up first and opens what it was told of after that. In between, the name may have been given to another file: on
//! a local disk whoever opens then gets the one that he has looked up. Here he would be told that there is no such file any more; the
//! kernel then looks once more, and may meet the next replacement.
//!
//! What is replaced through the mount is at hand then. What is replaced beside it is so where somebody has it open; for that a few files
//! are kept at hand that are left to the kernel. Where nobody has, but several were about to open it, they get what they have found in its
//! place: on a local disk they would have come a moment later.
//!
//! Always true: what is kept for nobody but such a one is kept for [`KEPT_FOR`] and little more, and there are at most [`KEPT_MAX`] of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_backends::local::{Held, LocalFile};
use manifold_catalog::{EntryId, SourceId};
use rustix::process::{Resource, getrlimit};

use super::{Handle, OpenEntry, OpenFiles, Opening};
use crate::attributes::Attributes;
use crate::cache::HandedOut;
use crate::fetch::Object;
use crate::staging::InUse;

/// How long what was replaced can still be opened. A kernel opens what it has looked up within a moment; on a machine that has too much to
/// do, within several.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How many replaced files can still be opened, the newest of them. Each has a descriptor, and its room on its disk.
const KEPT_MAX: usize = 256;

/// How many files that are left to the kernel are kept at hand for as long as they are open, the newest of them. Each has a descriptor,
/// so there are fewer where the process may have few.
const AT_HAND_MAX: usize = 256;
/// Which part of the descriptors that the process may have they take at most.
const AT_HAND_PART: u64 = 16;

/// What is left of an entry that has lost its name.
#[derive(Debug)]
pub(crate) enum Parted {
    /// A file of this machine, and its source.
    Local(SourceId, Held),
    /// A file of another source.
    Object(PartedObject),
}

/// A version of an object, all of whose bytes are at hand.
#[derive(Debug)]
pub(crate) struct PartedObject {
    pub(crate) object: Arc<Object>,
    /// What was written to it and not uploaded.
    pub(crate) staged: Option<InUse>,
    /// The whole of it in the disk cache, kept from being put out.
    pub(crate) _cached: Option<HandedOut>,
}

/// What counts as open because it was replaced a moment ago, the oldest first.
pub(super) type Queue = VecDeque<(Instant, EntryId)>;

/// What is kept at hand, the oldest first, and by which handle.
pub(super) type AtHand = VecDeque<(EntryId, Handle)>;

impl OpenFiles {
    /// Keeps a file at hand that is left to the kernel, until it is closed or others have come.
    pub(super) fn keep_at_hand(&self, id: EntryId, handle: Handle, file: Arc<LocalFile>) {
        let keep = |entry: &mut OpenEntry| entry.at_hand.replace((handle, file));
        let before = self.entries.lock().get_mut(&id).and_then(keep);
        let mut queue = self.at_hand.lock();
        queue.push_back((id, handle));
        let few = getrlimit(Resource::Nofile).current.map(|limit| limit / AT_HAND_PART);
        let most = few.map_or(AT_HAND_MAX, |few| AT_HAND_MAX.min(few as usize));
        let too_many = queue.len().saturating_sub(most);
        let oldest: Vec<_> = queue.drain(..too_many).collect();
        drop(queue);
        let mut over = Vec::with_capacity(oldest.len());
        for (id, handle) in oldest {
            let mut entries = self.entries.lock();
            let entry = entries.get_mut(&id);
            over.push(entry.and_then(|entry| entry.at_hand.take_if(|(it, _)| *it == handle)));
        }
        // Closed when nothing is locked any more.
        drop((before, over));
    }

    /// Takes note that another file has taken the place of an entry beside the mount. What somebody has open under its number is kept
    /// open for a moment. Where nobody has, the first who was about to opens the other one under that number: `instead`.
    pub(crate) fn replaced_beside(&self, id: EntryId, source: SourceId, instead: Option<&LocalFile>, now: Instant) {
        let opening = self.begin(id);
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&id).filter(|entry| entry.parted.is_none()) else {
            return;
        };
        let here = entry.at_hand.as_ref().or(entry.locals.first());
        let here = here.map(|(_, file)| &**file);
        let Some(file) = here
            .or(instead.filter(|_| entry.handles == 0))
            .filter(|file| !file.may_hang())
        else {
            return;
        };
        entry.parted = Some(Arc::new(Parted::Local(source, file.held())));
        drop(entries);
        self.keep_replaced(opening, now);
    }

    /// Gives what is left of an entry that has lost its name.
    pub(crate) fn parted(&self, id: EntryId) -> Option<Arc<Parted>> {
        self.entries.lock().get(&id)?.parted.clone()
    }

    /// Gives the file of this machine behind an open entry that has lost its name.
    pub(crate) fn held(&self, id: EntryId) -> Option<Held> {
        match &*self.parted(id)? {
            Parted::Local(_, held) => Some(held.clone()),
            Parted::Object(_) => None,
        }
    }

    /// Keeps what an open entry needs that loses its name: the object, where it is at hand, and its attributes.
    pub(crate) fn lost_name(&self, id: EntryId, parted: Option<Parted>, attributes: &Attributes) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.parted = parted.map(Arc::new);
            entry.attributes = Some(attributes.clone());
        }
    }

    /// Keeps an entry open for a moment whose place another has taken. `opening` was begun before that.
    pub(crate) fn keep_replaced(&self, opening: Opening<'_>, now: Instant) {
        let mut queue = self.parted.lock();
        queue.push_back((now, opening.id));
        std::mem::forget(opening);
        let oldest = if queue.len() > KEPT_MAX {
            queue.pop_front()
        } else {
            None
        };
        drop(queue);
        drop(oldest.and_then(|(_, id)| self.end(id)));
    }

    /// Ends the keeping of what was replaced long enough ago, and gives what was left of it. To let go of that may take a disk a while.
    pub(crate) fn replaced_long_ago(&self, now: Instant) -> Vec<impl Send + use<>> {
        let mut queue = self.parted.lock();
        let count = queue.iter().take_while(|(at, _)| now >= *at + KEPT_FOR).count();
        let over: Vec<_> = queue.drain(..count).collect();
        drop(queue);
        let left = over.into_iter().filter_map(|(_, id)| self.end(id));
        left.map(|OpenEntry { parted, .. }| parted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(files: &OpenFiles, id: u64, now: Instant) {
        files.keep_replaced(files.begin(EntryId(id)), now);
    }

    #[test]
    fn what_was_replaced_is_open_for_a_moment() {
        let (files, start) = (OpenFiles::default(), Instant::now());
        replace(&files, 1, start);
        replace(&files, 2, start + KEPT_FOR / 2);
        let opening = files.begin(EntryId(1));
        assert_eq!(files.replaced_long_ago(start + KEPT_FOR / 2).len(), 0);
        assert!(files.is_open(EntryId(1)) && files.is_open(EntryId(2)));
        assert_eq!(
            files.replaced_long_ago(start + KEPT_FOR).len(),
            0,
            "somebody has it open"
        );
        drop(opening);
        assert!(!files.is_open(EntryId(1)));
        assert_eq!(files.replaced_long_ago(start + KEPT_FOR * 2).len(), 1);
        assert!(!files.is_open(EntryId(2)));
    }

    #[test]
    fn the_first_that_was_replaced_goes_first_where_there_are_too_many() {
        let (files, now) = (OpenFiles::default(), Instant::now());
        for id in 0..=KEPT_MAX as u64 {
            replace(&files, id, now);
        }
        assert!(!files.is_open(EntryId(0)) && files.is_open(EntryId(1)));
        assert_eq!(files.replaced_long_ago(now + KEPT_FOR).len(), KEPT_MAX);
    }
}
