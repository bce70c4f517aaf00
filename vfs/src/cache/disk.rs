//! The disk tier: which objects have files, the thread that writes them, and the room that they may take.
//!
//! Always true:
//! - nothing here is ever an error to a reader: what cannot be read counts as missing, what cannot be written is left
//!   out, with a line in the log when it begins and a count for each;
//! - the reply path waits for no write: blocks go through a bounded line to one thread (`backlog`);
//! - before a block is written, room has been made for it;
//! - nothing is put out before it is known what is pinned.

mod backlog;
mod pins;
mod search;
mod trial;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::backlog::Backlog;
pub(crate) use self::backlog::Late;
pub(crate) use self::pins::NotKept;
use super::DiskSettings;
use super::evict::{Occupied, Residents, Uses};
use super::key::{DiskKey, Shape, SourceTag};
use super::object::{Found, HandedOut, Paths, StoredObject, remove_files};
use super::pinned::PinnedKeys;
use crate::counters::{Tally, add};

/// How many objects' files are kept open.
const OPEN_MAX: usize = 128;
/// For how long nothing is written after the disk refused a write.
const PAUSE: Duration = Duration::from_secs(30);
/// Objects larger than this make room in parts.
const PARTIAL_MIN: u64 = 64 << 20;
/// The least that is put out of a large object at once.
const PARTIAL_STEP: u64 = 32 << 20;
/// What a block may cost beyond its own bytes, in its map and in the file system's rounding.
const BLOCK_SLACK: u64 = 16 << 10;

/// What checking all blocks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) objects: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) bad: u64,
}

/// The disk tier.
#[derive(Debug)]
pub(crate) struct DiskTier {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    tally: Arc<Tally>,
    /// Held while files are written or removed. Taken before `open` and `known`, never on the reply path.
    ledger: Mutex<Ledger>,
    open: Mutex<OpenObjects>,
    /// Every object that has files, as far as they were found yet.
    known: Mutex<HashMap<DiskKey, Uses>>,
    /// Whether all that earlier runs left behind has been found.
    searched: AtomicBool,
    /// What the disk said when it last refused something, until it takes a block again.
    failing: Mutex<Option<String>>,
    /// What the ledger says is pinned, for those who must not wait for it. Taken last.
    pins: RwLock<PinnedKeys>,
    backlog: Arc<Backlog>,
    /// The most bytes of pinned objects; 0: what the disk has.
    pinned_limit: u64,
}

#[derive(Debug)]
struct Ledger {
    residents: Residents,
    /// Whether it is known what is pinned. Until then nothing is put out.
    pins_known: bool,
    /// Removed, but still open somewhere: its bytes are free only when the last one lets go.
    orphans: Vec<(Weak<StoredObject>, u64)>,
    paused_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct OpenObjects {
    objects: HashMap<DiskKey, Arc<StoredObject>>,
    order: VecDeque<DiskKey>,
}

impl DiskTier {
    /// Starts the tier in its folder, which is made if it is not there.
    pub(crate) fn start(settings: &DiskSettings<'_>, tally: Arc<Tally>) -> io::Result<Self> {
        let (pins, pins_known) = Shared::load_pins(settings.folder);
        let shared = Arc::new(Shared {
            pins: RwLock::new(pins.clone()),
            root: settings.folder.to_path_buf(),
            backlog: Backlog::new(settings.backlog_max, settings.patience, Arc::clone(&tally)),
            tally,
            ledger: Mutex::new(Ledger {
                residents: Residents::new(settings.limit, pins),
                pins_known,
                orphans: Vec::new(),
                paused_until: None,
            }),
            open: Mutex::default(),
            known: Mutex::default(),
            searched: AtomicBool::new(false),
            failing: Mutex::default(),
            pinned_limit: settings.pinned_limit,
        });
        let thread = std::thread::Builder::new().name("manifold-cache".to_owned());
        let writer = thread.spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// Tells whether a block may be there. `false` is certain.
    pub(crate) fn may_contain(&self, shape: Shape, index: u64) -> bool {
        if let Some(object) = self.shared.open.lock().objects.get(&shape.key) {
            return object.contains(index);
        }
        !self.shared.searched.load(Ordering::Acquire) || self.shared.known.lock().contains_key(&shape.key)
    }

    /// Reads a block. Blocks the thread.
    pub(crate) fn read(&self, shape: Shape, index: u64) -> Option<Bytes> {
        let object = self.shared.load(shape.key)?;
        if object.shape() != shape {
            return None;
        }
        match object.read(index) {
            Ok(Found::Block(bytes)) => Some(bytes),
            Ok(Found::Missing) => None,
            Ok(Found::Bad) => {
                add(&self.shared.tally.disk_blocks_bad, 1);
                tracing::warn!(object = %shape.key.object, index, "a cached block is damaged and is fetched again");
                None
            }
            Err(error) => {
                self.shared.report("read a block", &error);
                None
            }
        }
    }

    /// Gives the file of an object that is whole. Takes a few system calls at most.
    pub(crate) fn hand_out(&self, shape: Shape) -> Option<HandedOut> {
        self.shared.load(shape.key).filter(|it| it.shape() == shape)?.hand_out()
    }

    /// Leaves a block to be written. Where too much is waiting already, it is given back, to be waited for or left out.
    pub(crate) fn write(&self, shape: Shape, index: u64, bytes: Bytes) -> Option<Late> {
        self.shared.backlog.push(shape, index, bytes)
    }

    /// Leaves a block of what was uploaded to be written when uploads pause.
    pub(crate) fn write_uploaded(&self, shape: Shape, index: u64, bytes: Bytes) {
        self.shared.backlog.push_uploaded(shape, index, bytes);
    }

    /// Waits until all that was left to be written has been.
    pub(crate) fn settle(&self) {
        self.shared.backlog.settle();
    }

    /// Gives the bytes of what is not pinned, those of removed files that are still open among them, and their limit.
    pub(crate) fn used(&self) -> (u64, u64) {
        let mut ledger = self.shared.ledger.lock();
        (ledger.used(), ledger.residents.limit())
    }

    /// Sums up by source.
    pub(crate) fn by_source(&self) -> HashMap<SourceTag, Occupied> {
        self.shared.ledger.lock().residents.by_source()
    }

    /// Removes all objects of one source, or all; what is pinned only where that is said too. Gives the bytes that they
    /// occupied.
    pub(crate) fn clear(&self, source: Option<SourceTag>, pinned: bool) -> io::Result<u64> {
        self.shared.backlog.clear(source);
        let mut ledger = self.shared.ledger.lock();
        let mut bytes = 0;
        for key in ledger.residents.keys(source) {
            if pinned || !ledger.residents.pins().contains(key) {
                bytes += self.shared.remove(&mut ledger, key)?;
            }
        }
        Ok(bytes)
    }

    /// Removes an object. A few system calls.
    pub(crate) fn forget(&self, key: DiskKey) {
        self.shared.backlog.clear_if(|waiting| waiting == key);
        let mut ledger = self.shared.ledger.lock();
        if let Err(error) = self.shared.remove(&mut ledger, key) {
            self.shared.report("remove an object", &error);
        }
    }

    /// Puts out what is not pinned, until so many bytes are free again or nothing is left, if it lies on the same disk as a folder.
    /// Tells whether anything was put out. Blocks the thread.
    pub(crate) fn make_way(&self, bytes: u64, folder: &Path) -> bool {
        let device = |folder: &Path| std::fs::metadata(folder).map(|about| about.dev()).ok();
        if device(folder).is_none_or(|device_there| device(&self.shared.root) != Some(device_there)) {
            return false;
        }
        self.shared.backlog.clear(None);
        let mut ledger = self.shared.ledger.lock();
        let before = ledger.residents.used();
        let enough = before.saturating_sub(bytes);
        while ledger.pins_known && ledger.residents.used() > enough {
            let Some(victim) = ledger.residents.victim() else { break };
            let excess = ledger.residents.used() - enough;
            if let Err(error) = self.shared.evict(&mut ledger, victim, excess) {
                self.shared.report("make room for what is written", &error);
                break;
            }
        }
        ledger.residents.used() < before
    }

    /// Reads every block, and drops those that are damaged. Blocks the thread for long.
    pub(crate) fn verify(&self) -> Checked {
        self.settle();
        let keys = self.shared.ledger.lock().residents.keys(None);
        let mut checked = Checked::default();
        for key in keys {
            let Some(object) = self.shared.load(key) else { continue };
            checked.objects += 1;
            for index in object.indexes() {
                match object.read(index) {
                    Ok(Found::Block(bytes)) => {
                        checked.blocks += 1;
                        checked.bytes += bytes.len() as u64;
                    }
                    Ok(Found::Missing) => {}
                    Ok(Found::Bad) => {
                        add(&self.shared.tally.disk_blocks_bad, 1);
                        checked.bad += 1;
                    }
                    Err(error) => {
                        self.shared.report("verify a block", &error);
                        checked.bad += 1;
                    }
                }
            }
        }
        checked
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.shared.backlog.stop();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the disk cache's thread has panicked");
        }
    }
}

impl Ledger {
    fn used(&mut self) -> u64 {
        self.orphans.retain(|(object, _)| object.strong_count() > 0);
        self.residents.used() + self.orphans.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

impl Shared {
    /// The writer's life.
    fn run(&self) {
        self.take_over();
        while let Some(block) = self.backlog.next() {
            self.write(block.shape, block.index, &block.bytes);
        }
    }

    /// Makes known what earlier runs left behind, oldest first, without reading any of it.
    fn take_over(&self) {
        let mut found = search::search(&self.root, &|error| self.report("search the cache folder", error));
        found.sort_unstable_by_key(|it| it.modified);
        let mut ledger = self.ledger.lock();
        for it in found {
            let uses = self.known.lock().entry(it.key).or_default().clone();
            ledger.residents.account_found(it.key, it.bytes, &uses);
        }
        self.searched.store(true, Ordering::Release);
        self.make_room(&mut ledger, 0);
    }

    fn write(&self, shape: Shape, index: u64, bytes: &Bytes) {
        let mut ledger = self.ledger.lock();
        if ledger.paused_until.is_some_and(|until| Instant::now() < until) {
            return add(&self.tally.disk_blocks_skipped, 1);
        }
        let (limit, need) = (ledger.residents.limit(), bytes.len() as u64 + BLOCK_SLACK);
        let has_room = if ledger.residents.pins().contains(shape.key) {
            self.room_for_pinned(&ledger, bytes.len() as u64).is_ok()
        } else {
            need <= limit && self.make_room(&mut ledger, need)
        };
        if !has_room {
            return add(&self.tally.disk_blocks_skipped, 1);
        }
        self.write_counted(&mut ledger, shape, index, bytes);
    }

    /// Writes a block for which there is room, and counts what came of it. Gives whether it is there.
    fn write_counted(&self, ledger: &mut Ledger, shape: Shape, index: u64, bytes: &[u8]) -> bool {
        match self.write_block(ledger, shape, index, bytes) {
            Ok(()) => {
                add(&self.tally.disk_blocks_written, 1);
                self.works_again(ledger);
                true
            }
            Err(error) => {
                add(&self.tally.disk_blocks_skipped, 1);
                ledger.paused_until = Some(Instant::now() + PAUSE);
                self.report("write a block", &error);
                false
            }
        }
    }

    /// Takes note that the disk has taken something.
    fn works_again(&self, ledger: &mut Ledger) {
        ledger.paused_until = None;
        if self.failing.lock().take().is_some() {
            tracing::info!(folder = %self.root.display(), "the disk cache works again");
        }
    }

    fn write_block(&self, ledger: &mut Ledger, shape: Shape, index: u64, bytes: &[u8]) -> io::Result<()> {
        let object = match self.load(shape.key).filter(|it| it.shape() == shape) {
            Some(object) => object,
            None => self.create(ledger, shape)?,
        };
        let mut written = Ok(());
        if !object.contains(index) {
            written = object.write(index, bytes);
        }
        match object.allocated() {
            Ok(allocated) => {
                ledger.residents.account(shape.key, allocated, object.uses());
                ledger.residents.set_present(shape.key, object.present());
            }
            // Somebody removed the files under us: the next block begins anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove(ledger, shape.key)?;
            }
            Err(error) => written = written.and(Err(error)),
        }
        written
    }

    fn create(&self, ledger: &mut Ledger, shape: Shape) -> io::Result<Arc<StoredObject>> {
        self.remove(ledger, shape.key)?;
        let uses = Uses::default();
        let object = Arc::new(StoredObject::create(&self.root, shape, uses.clone())?);
        self.known.lock().insert(shape.key, uses);
        self.open.lock().insert(shape.key, Arc::clone(&object));
        Ok(object)
    }

    /// Gives an object's files, opened if need be.
    fn load(&self, key: DiskKey) -> Option<Arc<StoredObject>> {
        if let Some(object) = self.open.lock().objects.get(&key) {
            return Some(Arc::clone(object));
        }
        let uses = self.known.lock().get(&key).cloned();
        if uses.is_none() && self.searched.load(Ordering::Acquire) {
            return None;
        }
        match StoredObject::open(&self.root, key, uses.unwrap_or_default()) {
            Ok(object) => Some(self.open.lock().insert(key, Arc::new(object))),
            Err(error) => {
                // Not there, or nothing of ours. The next write of a block makes it anew.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::NotADirectory
                ) {
                    self.report("open an object", &error);
                }
                None
            }
        }
    }

    /// Makes room for `need` more bytes. Gives `false` where that cannot be done.
    fn make_room(&self, ledger: &mut Ledger, need: u64) -> bool {
        loop {
            let excess = (ledger.used() + need).saturating_sub(ledger.residents.limit());
            if excess == 0 {
                return true;
            }
            if !ledger.pins_known {
                return false;
            }
            let Some(victim) = ledger.residents.victim() else {
                return false;
            };
            if let Err(error) = self.evict(ledger, victim, excess) {
                self.report("make room", &error);
                return false;
            }
        }
    }

    fn evict(&self, ledger: &mut Ledger, key: DiskKey, excess: u64) -> io::Result<()> {
        let before = ledger.residents.bytes_of(key);
        let step = excess.max(PARTIAL_STEP);
        if before > PARTIAL_MIN
            && before / 2 > step
            && let Some(object) = self.load(key)
            && object.punch(step)?
        {
            let after = object.allocated()?;
            // A file system may keep what it was told to free; then the whole object goes.
            if after < before {
                ledger.residents.account(key, after, object.uses());
                add(&self.tally.disk_evictions, 1);
                add(&self.tally.disk_bytes_evicted, before - after);
                return Ok(());
            }
        }
        let bytes = self.remove(ledger, key)?;
        add(&self.tally.disk_evictions, 1);
        add(&self.tally.disk_bytes_evicted, bytes);
        Ok(())
    }

    /// Removes an object's files. Whoever has them open keeps them until then.
    fn remove(&self, ledger: &mut Ledger, key: DiskKey) -> io::Result<u64> {
        remove_files(&Paths::new(&self.root, key))?;
        self.known.lock().remove(&key);
        let object = self.open.lock().remove(key);
        let bytes = ledger.residents.remove(key);
        if let Some(object) = object {
            let weak = Arc::downgrade(&object);
            drop(object);
            if weak.strong_count() > 0 {
                ledger.orphans.push((weak, bytes));
            }
        }
        Ok(bytes)
    }

    /// Counts a failure, and says so in the log when it is the first since the cache last worked.
    fn report(&self, what: &str, error: &io::Error) {
        add(&self.tally.disk_errors, 1);
        if self.failing.lock().replace(format!("cannot {what}: {error}")).is_some() {
            tracing::debug!(folder = %self.root.display(), %error, "the disk cache failed again to {what}");
        } else {
            tracing::warn!(
                folder = %self.root.display(),
                %error,
                "the disk cache failed to {what}; reading goes on without it, and it is tried again from time to time"
            );
        }
    }
}

impl OpenObjects {
    /// Keeps an object open, or gives the one that somebody else was faster to open.
    fn insert(&mut self, key: DiskKey, object: Arc<StoredObject>) -> Arc<StoredObject> {
        if let Some(there) = self.objects.get(&key) {
            return Arc::clone(there);
        }
        // What is held by somebody stays, so that what is handed out is always found here.
        let mut tries = self.order.len();
        while self.objects.len() >= OPEN_MAX && tries > 0 {
            tries -= 1;
            let Some(oldest) = self.order.pop_front() else { break };
            if self.objects.get(&oldest).is_some_and(|it| Arc::strong_count(it) > 1) {
                self.order.push_back(oldest);
            } else {
                self.objects.remove(&oldest);
            }
        }
        self.order.push_back(key);
        self.objects.insert(key, Arc::clone(&object));
        object
    }

    fn remove(&mut self, key: DiskKey) -> Option<Arc<StoredObject>> {
        let object = self.objects.remove(&key)?;
        self.order.retain(|it| *it != key);
        Some(object)
    }
}

#[cfg(test)]
mod tests;
