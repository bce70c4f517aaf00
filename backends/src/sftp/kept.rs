//! Files that are kept open between reads, and found by their path and version.
//!
//! Always true: what is found was opened after the last change of this program by which something else came to its path in the same
//! version, which a server tells by size and whole seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::session::Handle;
use crate::{ObjectPath, Version};

/// Files that are kept open at most.
const OPEN_MAX: usize = 32;

/// Files kept open, the last used at the end.
#[derive(Default)]
pub(super) struct Kept {
    open: Mutex<Vec<(ObjectPath, Version, Arc<Handle>)>>,
    /// Counts the changes after which not all of them are what stands at their path.
    changes: AtomicU64,
}

impl Kept {
    /// Says how many changes there were, for whoever is about to open a file.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Finds a file whose session lives.
    pub(super) fn find(&self, path: &ObjectPath, version: &Version) -> Option<Arc<Handle>> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(known, of, _)| known == path && of == version)?;
        let entry = open.remove(at);
        let handle = entry.2.clone();
        if !handle.session().lives() {
            return None;
        }
        open.push(entry);
        Some(handle)
    }

    /// Keeps a file that was opened after so many changes, unless there was another since.
    pub(super) fn keep(&self, path: &ObjectPath, version: &Version, handle: Arc<Handle>, changes: u64) {
        let mut open = self.open.lock();
        if self.changes() != changes {
            return;
        }
        open.retain(|(known, _, _)| known != path);
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push((path.clone(), version.clone(), handle));
    }

    /// Keeps none any more.
    pub(super) fn clear(&self) {
        self.open.lock().clear();
    }

    /// Keeps none any more that was opened at a path in this version, nor beneath it.
    pub(super) fn forget(&self, path: &ObjectPath, version: &Version) {
        let mut open = self.open.lock();
        self.changes.fetch_add(1, Ordering::SeqCst);
        open.retain(|(known, of, _)| match known.as_bytes().strip_prefix(path.as_bytes()) {
            Some([]) => of != version,
            Some([b'/', ..]) => false,
            _ => true,
        });
    }
}
