//! What is pinned on disk: which objects, how much of each is there, and the way in which their blocks are written.
//!
//! Always true: pinned objects make no room for others and others none for them; they have a limit of their own, and leave
//! a part of the disk free for everybody else.

use std::io;
use std::time::Instant;

use super::{BLOCK_SLACK, DiskTier, Ledger, Shared};
use crate::cache::key::{DiskKey, Shape};
use crate::cache::object::StoredObject;
use crate::cache::pinned::PinnedKeys;
use crate::counters::add;

/// What pinned objects leave free of the disk: one part in so many, but no more than [`SPARE_MAX`].
const SPARE_PART: u64 = 20;
const SPARE_MAX: u64 = 1 << 30;

/// Why a pinned block was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The limit for pinned objects is reached.
    Limit,
    /// The disk has no more than it must keep free.
    DiskFull,
    /// The disk refused.
    Failing,
    /// The object is not pinned any more.
    Unpinned,
}

impl DiskTier {
    /// Takes in which objects are pinned from now on.
    pub(crate) fn set_pins(&self, pins: PinnedKeys) {
        let shared = &self.shared;
        let mut ledger = shared.ledger.lock();
        if *ledger.residents.pins() != pins {
            // Before anything can be put out: after a crash the file never lacks what was pinned all along.
            if let Err(error) = pins.store(&shared.root) {
                shared.report("write down what is pinned", &error);
            }
            shared.pins.write().clone_from(&pins);
            ledger.residents.set_pins(pins);
        }
        ledger.pins_known = true;
        shared.make_room(&mut ledger, 0);
    }

    /// Gives the keys of what is pinned.
    pub(crate) fn pins(&self) -> PinnedKeys {
        self.shared.pins.read().clone()
    }

    /// Tells whether an object is pinned.
    pub(crate) fn is_pinned(&self, key: DiskKey) -> bool {
        self.shared.pins.read().contains(key)
    }

    /// Gives the bytes that pinned objects occupy, and the most that they may; 0: what the disk has.
    pub(crate) fn pinned_used(&self) -> (u64, u64) {
        let ledger = self.shared.ledger.lock();
        (ledger.residents.pinned_used(), self.shared.pinned_limit)
    }

    /// Counts the bytes of an object that are there. Blocks the thread where nobody has counted them before.
    pub(crate) fn present(&self, shape: Shape) -> u64 {
        if let Some(bytes) = self.shared.ledger.lock().residents.present(shape.key) {
            return bytes;
        }
        // Without the lock: a disk may take its time. What was written meanwhile is counted when it is asked again.
        let Some(object) = self.shared.look_at(shape) else {
            return 0;
        };
        let bytes = object.present();
        let mut ledger = self.shared.ledger.lock();
        if object.present() == bytes {
            ledger.residents.set_present(shape.key, bytes);
        }
        bytes
    }

    /// Lists the blocks of an object that are not there. Blocks the thread.
    pub(crate) fn missing(&self, shape: Shape) -> Vec<u64> {
        let object = self.shared.look_at(shape);
        let is_there = |index: &u64| object.as_ref().is_some_and(|it| it.contains(*index));
        (0..shape.block_count()).filter(|index| !is_there(index)).collect()
    }

    /// Has everything counted anew: blocks have turned out to be damaged.
    pub(crate) fn count_anew(&self) {
        self.shared.ledger.lock().residents.forget_present();
    }

    /// Writes a block of a pinned object, past the line of blocks that wait. Blocks the thread for as long as the disk takes.
    pub(crate) fn write_pinned(&self, shape: Shape, index: u64, bytes: &[u8]) -> Result<(), NotKept> {
        let shared = &self.shared;
        let mut ledger = shared.ledger.lock();
        if !ledger.residents.pins().contains(shape.key) {
            return Err(NotKept::Unpinned);
        }
        if ledger.paused_until.is_some_and(|until| Instant::now() < until) {
            return Err(NotKept::Failing);
        }
        shared.room_for_pinned(&ledger, bytes.len() as u64)?;
        if shared.write_counted(&mut ledger, shape, index, bytes) {
            Ok(())
        } else {
            Err(NotKept::Failing)
        }
    }
}

impl Shared {
    /// Tells whether a block of a pinned object may be written.
    pub(super) fn room_for_pinned(&self, ledger: &Ledger, length: u64) -> Result<(), NotKept> {
        let need = length + BLOCK_SLACK;
        if self.pinned_limit > 0 && ledger.residents.pinned_used() + need > self.pinned_limit {
            return Err(NotKept::Limit);
        }
        // A file system that does not tell is trusted to refuse what it has no room for.
        let room = rustix::fs::statvfs(&self.root).map_or(u64::MAX, |disk| {
            let spare = (disk.f_blocks.saturating_mul(disk.f_frsize) / SPARE_PART).min(SPARE_MAX);
            disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(spare)
        });
        if need > room { Err(NotKept::DiskFull) } else { Ok(()) }
    }

    /// Reads what was pinned when the cache was last used. Where that is not known, nothing is put out until it is.
    pub(super) fn load_pins(root: &std::path::Path) -> (PinnedKeys, bool) {
        match PinnedKeys::load(root) {
            Ok(Some(pins)) => (pins, true),
            Ok(None) => {
                tracing::warn!(folder = %root.display(), "the list of what is pinned is damaged, and is made anew");
                (PinnedKeys::default(), false)
            }
            Err(error) => {
                tracing::warn!(folder = %root.display(), %error, "the list of what is pinned cannot be read");
                (PinnedKeys::default(), false)
            }
        }
    }

    /// Gives an object's files for a look, without keeping them open.
    fn look_at(&self, shape: Shape) -> Option<std::sync::Arc<StoredObject>> {
        let key: DiskKey = shape.key;
        let open = self.open.lock().objects.get(&key).cloned();
        let object = open.or_else(|| {
            let uses = self.known.lock().get(&key).cloned()?;
            let opened = StoredObject::open(&self.root, key, uses).inspect_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    add(&self.tally.disk_errors, 1);
                }
            });
            opened.ok().map(std::sync::Arc::new)
        });
        object.filter(|it| it.shape() == shape)
    }
}
