//! Files that are being read: their handles, kept open between reads, and the proof that what is read is one version.
//!
//! A handle is found by path and version. Opening one compares the file's attributes with the version asked for; after
//! each read the handle is asked again. A write changes the time of the last change before it changes the bytes, so
//! equal attributes afterwards prove that the bytes read belong to the version.
//!
//! A handle goes on to read the file it opened when that is renamed, replaced or deleted. To lose its last name changes
//! a file's time of the last change and nothing else; that one difference is accepted.
//!
//! Handles are few ([`HANDLES_MAX`]) and do not stay open when unused ([`IDLE`]): Windows does not let a folder be
//! renamed while something in it is open. When its connection breaks, a handle is dead; the next read opens another.
//!
//! Always true: no byte is given out that was not read between two moments at which the file was in the version asked
//! for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use smb2::types::FileId;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::facts::Facts;
use super::failure::{Failure, Left};
use super::pool::Pool;
use super::session::Session;
use crate::{ErrorKind, Version};

/// The unit of a read on the wire, in bytes; longer reads are slower with `smb2`.
pub(super) const PIECE: u32 = 1024 * 1024;

/// Handles kept open.
const HANDLES_MAX: usize = 64;

/// How long an unused handle stays open.
const IDLE: Duration = Duration::from_secs(5);

/// The open files of one share.
#[derive(Debug)]
pub(super) struct Files {
    pool: Arc<Pool>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    open: HashMap<Key, Slot>,
    /// Whether a task waits to close what is unused.
    sweeping: bool,
}

/// The wire path and the version.
type Key = (Vec<u16>, Version);

#[derive(Debug)]
struct Slot {
    /// Filled by the first to need it, while the others wait.
    file: Arc<OnceCell<Arc<OpenFile>>>,
    used: Instant,
}

/// An open file. Closed when the last to use it lets go.
#[derive(Debug)]
pub(super) struct OpenFile {
    pool: Weak<Pool>,
    session: Arc<Session>,
    handle: FileId,
    opened: Facts,
    /// The time of the last change that the file must still have.
    changed: AtomicU64,
}

impl Files {
    /// Makes an empty pool of handles over the connections.
    pub(super) fn new(pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            slots: Mutex::default(),
        })
    }

    /// Reads exactly `range` of the file in that version, in pieces.
    pub(super) async fn read(
        self: &Arc<Self>,
        name: &[u16],
        version: &Version,
        range: Range<u64>,
    ) -> Result<Vec<Bytes>, Failure> {
        let key = (name.to_vec(), version.clone());
        let mut again = true;
        loop {
            let file = self.get(&key).await?;
            match self.read_open(&file, range.clone()).await {
                Err(failure) if failure.left() != Left::All => {
                    self.forget(&key, &file);
                    let gone = matches!(
                        failure,
                        Failure::Failed {
                            kind: ErrorKind::Unreachable,
                            ..
                        }
                    );
                    if !(gone && std::mem::take(&mut again)) {
                        return Err(failure);
                    }
                }
                result => return result,
            }
        }
    }

    /// Gives the size of the file in that version.
    pub(super) async fn size(self: &Arc<Self>, name: &[u16], version: &Version) -> Result<u64, Failure> {
        Ok(self.get(&(name.to_vec(), version.clone())).await?.opened.size)
    }

    /// Opens a file in whatever version it is, for one reader alone.
    pub(super) async fn open_any(&self, name: &[u16]) -> Result<Arc<OpenFile>, Failure> {
        let name: Arc<[u16]> = name.into();
        let weak = Arc::downgrade(&self.pool);
        self.pool
            .exchange(move |session| {
                let (name, pool) = (Arc::clone(&name), weak.clone());
                async move {
                    let (handle, opened) = session.open(&name).await?;
                    let changed = AtomicU64::new(opened.changed);
                    // From here on the handle closes itself, should nobody wait for it any more.
                    Ok(Arc::new(OpenFile {
                        pool,
                        session,
                        handle,
                        opened,
                        changed,
                    }))
                }
            })
            .await
    }

    /// Reads a range of an open file: in pieces, all on the way at once, then asks whether the file is still the same.
    pub(super) async fn read_open(&self, file: &Arc<OpenFile>, range: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        if range.end > file.opened.size || range.start > range.end {
            let text = format!("bytes {range:?} were asked of a file of {} bytes", file.opened.size);
            return Err(Failure::new(ErrorKind::Other, text));
        }
        let piece = u64::from(file.session.read_size(PIECE));
        let starts = (range.start..range.end).step_by(piece as usize);
        let pieces = starts.map(|start| self.read_piece(file, start..range.end.min(start + piece)));
        let pieces = try_join_all(pieces).await?;
        let now = {
            let asked = Arc::clone(file);
            self.pool
                .exchange_on(&file.session, async move { asked.session.query(asked.handle).await })
                .await?
        };
        file.confirm(&now)?;
        Ok(pieces.into_iter().flatten().collect())
    }

    async fn read_piece(&self, file: &Arc<OpenFile>, range: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        let mut parts = Vec::with_capacity(1);
        let mut start = range.start;
        // A server may send less than was asked for.
        while start < range.end {
            let asked = Arc::clone(file);
            let length = (range.end - start) as u32;
            let exchange = async move { asked.session.read(asked.handle, start, length).await };
            let part = self.pool.exchange_on(&file.session, exchange).await?;
            start += part.len() as u64;
            parts.push(part);
        }
        Ok(parts)
    }

    async fn get(self: &Arc<Self>, key: &Key) -> Result<Arc<OpenFile>, Failure> {
        let cell = self.slot(key);
        let file = cell
            .get_or_try_init(|| async {
                let file = self.open_any(&key.0).await?;
                if file.opened.version() == key.1 {
                    Ok(file)
                } else {
                    Err(changed())
                }
            })
            .await;
        if file.is_err() {
            // Nothing to keep; whoever waits for the same cell tries for itself.
            let mut slots = self.slots.lock();
            if slots
                .open
                .get(key)
                .is_some_and(|slot| Arc::ptr_eq(&slot.file, &cell) && !slot.file.initialized())
            {
                slots.open.remove(key);
            }
        }
        file.cloned()
    }

    /// Finds or makes the place of a handle, and makes room for it.
    fn slot(self: &Arc<Self>, key: &Key) -> Arc<OnceCell<Arc<OpenFile>>> {
        let mut slots = self.slots.lock();
        let now = Instant::now();
        if let Some(slot) = slots.open.get_mut(key)
            && slot.file.get().is_none_or(|file| !file.session.is_lost())
        {
            slot.used = now;
            return Arc::clone(&slot.file);
        }
        while slots.open.len() >= HANDLES_MAX {
            let oldest = slots
                .open
                .iter()
                .min_by_key(|(_, slot)| slot.used)
                .map(|(key, _)| key.clone());
            oldest.and_then(|key| slots.open.remove(&key));
        }
        let file = Arc::new(OnceCell::new());
        slots.open.insert(
            key.clone(),
            Slot {
                file: Arc::clone(&file),
                used: now,
            },
        );
        if !std::mem::replace(&mut slots.sweeping, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        file
    }

    /// Lets go of a handle that is no longer of use.
    fn forget(&self, key: &Key, file: &Arc<OpenFile>) {
        let mut slots = self.slots.lock();
        if slots
            .open
            .get(key)
            .and_then(|slot| slot.file.get())
            .is_some_and(|kept| Arc::ptr_eq(kept, file))
        {
            slots.open.remove(key);
        }
    }
}

/// Closes what has been unused for [`IDLE`], until nothing is open.
async fn sweep(files: Weak<Files>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(files) = files.upgrade() else { return };
        let mut slots = files.slots.lock();
        let now = Instant::now();
        slots.open.retain(|_, slot| now.duration_since(slot.used) < IDLE);
        if slots.open.is_empty() {
            slots.sweeping = false;
            return;
        }
    }
}

impl OpenFile {
    /// Gives the file's attributes when it was opened.
    pub(super) fn opened(&self) -> &Facts {
        &self.opened
    }

    /// Tells whether the file is still what it was when it was opened.
    fn confirm(&self, now: &Facts) -> Result<(), Failure> {
        let changed_before = self.changed.load(Ordering::Relaxed);
        let expected = Facts {
            changed: changed_before,
            ..self.opened
        };
        if now.version() == expected.version() {
            return Ok(());
        }
        // Once unlinked, it is held to the time that the unlinking left.
        let first_time = changed_before == self.opened.changed;
        if first_time && now.only_unlinked_since(&self.opened) {
            self.changed.store(now.changed, Ordering::Relaxed);
            return Ok(());
        }
        Err(changed())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A lost connection has closed its handles; without a runtime, the connection goes too.
        let (false, Some(pool), Ok(runtime)) = (
            self.session.is_lost(),
            self.pool.upgrade(),
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        let (session, handle) = (Arc::clone(&self.session), self.handle);
        runtime.spawn(async move {
            let closing = Arc::clone(&session);
            if let Err(failure) = pool
                .exchange_on(&session, async move { closing.close(handle).await })
                .await
            {
                tracing::debug!(%failure, "a handle could not be closed");
            }
        });
    }
}

fn changed() -> Failure {
    Failure::Failed {
        kind: ErrorKind::VersionChanged,
        left: Left::Connection,
        text: "the file has changed at the source".into(),
    }
}
