//! Files that are being read: their handles, kept open between reads, and the proof that what is read is one version.
//!
//! A handle is found by path and version. Opening one, and after each read, the server is asked what stands at the path:
//! the same file in the version asked for proves that the bytes read belong to it, since a write changes the file's time
//! before it changes its bytes. Reads that end together share the question; it is never older than the end of a read.
//!
//! A handle goes on to read the file it opened when that was renamed, replaced or deleted. Then the handle itself is
//! asked, and must tell what it told when it was opened. To lose its last name changes a file's time of the last change
//! and nothing else; that one difference is accepted.
//!
//! Handles are few ([`HANDLES_MAX`]) and do not stay open when unused ([`IDLE`]): Windows does not let a folder be
//! renamed while something in it is open, and Samba tells old times of what is open. When its connection breaks, a
//! handle is dead; the next read opens another.
//!
//! A change to a name waits until the handles on it are closed, and keeps new ones from being opened meanwhile
//! ([`Files::clear`]): Samba refuses to replace or remove what the same connection has open. Where a directory gets another name,
//! nothing beneath it is listed or looked at either ([`Files::hush`]): Samba refuses that as long as anything there is open.
//!
//! Always true: no byte is given out that was not read between two moments at which the file was in the version asked
//! for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, try_join_all};
use parking_lot::Mutex;
use smb2::types::FileId;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout};

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

/// How long is waited for who lists a directory that is removed, or looks at what lies beneath one that gets another name.
const LOOKED_AT_MAX: Duration = Duration::from_secs(5);

/// The open files of one share.
#[derive(Debug)]
pub(super) struct Files {
    pool: Arc<Pool>,
    slots: Mutex<Slots>,
    /// Names that are being changed, with all beneath them, as wire paths.
    cleared: watch::Sender<Vec<Vec<u16>>>,
    /// Every open file, kept for the next read or not.
    alive: Mutex<Vec<Alive>>,
    /// Directories that are getting another name: nothing beneath them is looked at meanwhile.
    hushed: watch::Sender<Vec<Vec<u16>>>,
    /// Every directory that is being listed, and every name that is being looked at.
    looked_at: Mutex<Vec<Alive>>,
    /// Every name that the server was asked to change, and has not answered.
    changing: Mutex<Vec<Alive>>,
}

/// The wire path of an open file, and what ends when it is closed.
type Alive = (Arc<[u16]>, watch::Receiver<()>);

/// Keeps names free of handles for as long as it lives.
#[derive(Debug)]
pub(super) struct Cleared {
    files: Arc<Files>,
    names: Vec<Vec<u16>>,
}

impl Drop for Cleared {
    fn drop(&mut self) {
        self.files
            .cleared
            .send_modify(|cleared| leave_out(cleared, &self.names));
    }
}

/// Keeps what lies beneath a directory from being looked at for as long as it lives.
#[derive(Debug)]
pub(super) struct Hushed {
    files: Arc<Files>,
    directory: Vec<u16>,
}

impl Drop for Hushed {
    fn drop(&mut self) {
        let directory = std::slice::from_ref(&self.directory);
        self.files.hushed.send_modify(|hushed| leave_out(hushed, directory));
    }
}

/// Takes each of these names out of those that are known, once.
fn leave_out(known: &mut Vec<Vec<u16>>, names: &[Vec<u16>]) {
    for name in names {
        if let Some(at) = known.iter().position(|known| known == name) {
            known.swap_remove(at);
        }
    }
}

/// Adds to what is open, and leaves out what is not any more.
fn make_known(open: &Mutex<Vec<Alive>>, name: &[u16]) -> watch::Sender<()> {
    let (closed, until_closed) = watch::channel(());
    let mut open = open.lock();
    open.retain(|(_, closed)| closed.has_changed().is_ok());
    open.push((name.into(), until_closed));
    closed
}

/// Waits until what is open now, and is concerned, is open no more.
async fn until_ended(open: &Mutex<Vec<Alive>>, concerned: impl Fn(&[u16]) -> bool) {
    let open: Vec<_> = {
        let mut open = open.lock();
        open.retain(|(_, closed)| closed.has_changed().is_ok());
        let concerned = open.iter().filter(|(name, _)| concerned(name));
        concerned.map(|(_, closed)| closed.clone()).collect()
    };
    for mut closed in open {
        // Nothing is ever sent: this ends when the other end is dropped.
        while closed.changed().await.is_ok() {}
    }
}

/// Tells whether `name` is `root`, or lies beneath it.
fn within(name: &[u16], root: &[u16]) -> bool {
    name.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&u16::from(b'\\')))
}

/// Tells whether `name` lies beneath `root`.
fn beneath(name: &[u16], root: &[u16]) -> bool {
    name != root && within(name, root)
}

/// Waits until a name is none of the `busy` ones or concerned by one, and adds it to what is open.
async fn until_free(
    busy: &watch::Sender<Vec<Vec<u16>>>,
    open: &Mutex<Vec<Alive>>,
    name: &[u16],
    concerned: fn(&[u16], &[u16]) -> bool,
) -> watch::Sender<()> {
    let mut busy = busy.subscribe();
    let free = |busy: &Vec<Vec<u16>>| !busy.iter().any(|root| concerned(name, root));
    loop {
        // The sender lives as long as the files.
        drop(busy.wait_for(free).await);
        let closed = make_known(open, name);
        // Either this sees a change that has begun meanwhile, or that sees what was just made known.
        let now_free = free(&busy.borrow());
        if now_free {
            return closed;
        }
    }
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
    name: Arc<[u16]>,
    /// What stood at the path when the file was opened.
    facts: Facts,
    version: Version,
    /// What the handle told of itself when it was opened.
    opened: Facts,
    confirmations: Mutex<Confirmations>,
    /// Dropped when the file is closed.
    closed: Option<watch::Sender<()>>,
}

/// The question whether the file is still the same: being asked, and to be asked next.
#[derive(Debug, Default)]
struct Confirmations {
    last: Option<Confirmation>,
    /// Not begun, so that whoever has read until now may wait for it.
    next: Option<Confirmation>,
}

type Confirmation = Shared<BoxFuture<'static, Result<(), Failure>>>;

impl Files {
    /// Makes an empty pool of handles over the connections.
    pub(super) fn new(pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            slots: Mutex::default(),
            cleared: watch::Sender::default(),
            alive: Mutex::default(),
            hushed: watch::Sender::default(),
            looked_at: Mutex::default(),
            changing: Mutex::default(),
        })
    }

    /// Closes all handles on these names and beneath them, once the reads under way have ended, and lets nobody open another
    /// until the result is dropped.
    pub(super) async fn clear(self: &Arc<Self>, names: &[&[u16]]) -> Cleared {
        let names: Vec<Vec<u16>> = names.iter().map(|name| name.to_vec()).collect();
        self.cleared
            .send_modify(|cleared| cleared.extend(names.iter().cloned()));
        let guard = Cleared {
            files: Arc::clone(self),
            names,
        };
        let concerned = |name: &[u16]| guard.names.iter().any(|root| within(name, root));
        let dropped: Vec<Slot> = {
            let mut slots = self.slots.lock();
            let keys: Vec<Key> = slots.open.keys().filter(|(name, _)| concerned(name)).cloned().collect();
            keys.iter().filter_map(|key| slots.open.remove(key)).collect()
        };
        drop(dropped);
        until_ended(&self.alive, concerned).await;
        until_ended(&self.changing, concerned).await;
        guard
    }

    /// Makes known that the server is asked to change a name, until the result is dropped, though nobody may wait for its answer any
    /// more: what it would say of that name meanwhile may be otherwise a moment later.
    pub(super) fn change(&self, name: &[u16]) -> watch::Sender<()> {
        make_known(&self.changing, name)
    }

    /// Waits until the server has answered all that it was asked to change of a name, or of one above it.
    pub(super) async fn until_answered(&self, name: &[u16]) {
        until_ended(&self.changing, |changing| within(name, changing)).await;
    }

    /// Makes known that a file of this name is open to be written. Whoever changes the name, or one above it, waits until the result is
    /// dropped: servers refuse that while it is open.
    pub(super) fn hold(&self, name: &[u16]) -> watch::Sender<()> {
        make_known(&self.alive, name)
    }

    /// Waits until no directory above is getting another name, and makes known that this one is listed, or looked at, until the result
    /// is dropped.
    pub(super) async fn look(&self, name: &[u16]) -> watch::Sender<()> {
        until_free(&self.hushed, &self.looked_at, name, beneath).await
    }

    /// Waits until no name above is being changed, nor this one, and makes known that something is about to be opened there. Whoever
    /// changes such a name waits until the result is dropped.
    pub(super) async fn announce(&self, name: &[u16]) -> watch::Sender<()> {
        until_free(&self.cleared, &self.alive, name, within).await
    }

    /// Waits until a directory that is removed is not open any more to be listed, for a while: as long as it is, the server keeps its
    /// name, goes on listing it, and lets nothing else have it.
    pub(super) async fn until_not_listed(&self, name: &[u16]) {
        let all_closed = until_ended(&self.looked_at, |looked_at| looked_at == name);
        if timeout(LOOKED_AT_MAX, all_closed).await.is_err() {
            tracing::debug!("a directory that was removed is still being listed");
        }
    }

    /// Lets nobody look at what lies beneath a directory until the result is dropped, nor list it, and waits for who does, for a while.
    pub(super) async fn hush(self: &Arc<Self>, directory: &[u16]) -> Hushed {
        self.hushed.send_modify(|hushed| hushed.push(directory.to_vec()));
        let hushed = Hushed {
            files: Arc::clone(self),
            directory: directory.to_vec(),
        };
        let all_closed = until_ended(&self.looked_at, |looked_at| beneath(looked_at, directory));
        if timeout(LOOKED_AT_MAX, all_closed).await.is_err() {
            tracing::debug!("something beneath a directory that is renamed is still being looked at");
        }
        hushed
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
        Ok(self.get(&(name.to_vec(), version.clone())).await?.facts.size)
    }

    /// Opens a file in whatever version it is, for one reader alone.
    pub(super) async fn open_any(&self, name: &[u16]) -> Result<Arc<OpenFile>, Failure> {
        let name: Arc<[u16]> = name.into();
        let weak = Arc::downgrade(&self.pool);
        let closed = self.announce(&name).await;
        self.pool
            .exchange(move |session| {
                let (name, pool, closed) = (Arc::clone(&name), weak.clone(), closed.clone());
                async move {
                    let (handle, opened) = session.open(&name).await?;
                    // From here on the handle closes itself, should nobody wait for it any more.
                    let mut file = OpenFile {
                        pool,
                        session,
                        handle,
                        name,
                        facts: opened,
                        version: opened.version(),
                        opened,
                        confirmations: Mutex::default(),
                        closed: Some(closed),
                    };
                    file.facts = file.session.stat(&file.name).await?;
                    if file.facts.index != opened.index {
                        return Err(changed());
                    }
                    file.version = file.facts.version();
                    Ok(Arc::new(file))
                }
            })
            .await
    }

    /// Reads a range of an open file: in pieces, all on the way at once, then asks whether the file is still the same.
    pub(super) async fn read_open(&self, file: &Arc<OpenFile>, range: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        if range.end > file.facts.size || range.start > range.end {
            let text = format!("bytes {range:?} were asked of a file of {} bytes", file.facts.size);
            return Err(Failure::new(ErrorKind::Other, text));
        }
        let piece = u64::from(file.session.read_size(PIECE));
        let starts = (range.start..range.end).step_by(piece as usize);
        let pieces = starts.map(|start| self.read_piece(file, start..range.end.min(start + piece)));
        let pieces = try_join_all(pieces).await?;
        file.confirm(&self.pool).await?;
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
                if file.version == key.1 {
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

    /// Gives the files of a directory that are open here, as wire paths.
    pub(super) fn open_in(&self, directory: &[u16]) -> HashSet<Vec<u16>> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(u16::from(b'\\'));
        }
        let slots = self.slots.lock();
        let names = slots.open.keys().map(|(name, _)| name);
        names
            .filter(|name| {
                name.strip_prefix(&*prefix)
                    .is_some_and(|name| !name.contains(&u16::from(b'\\')))
            })
            .cloned()
            .collect()
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
    /// Gives the file's size when it was opened.
    pub(super) fn size(&self) -> u64 {
        self.facts.size
    }

    /// Joins the next question whether the file is still the same.
    fn confirm(self: &Arc<Self>, pool: &Arc<Pool>) -> Confirmation {
        let mut confirmations = self.confirmations.lock();
        if let Some(next) = &confirmations.next {
            return next.clone();
        }
        let (file, pool, last) = (Arc::clone(self), Arc::clone(pool), confirmations.last.take());
        // A task of its own: it must end even if all who wait for it go away.
        let task = tokio::spawn(async move {
            if let Some(last) = last {
                // Its answer is not for those who wait here.
                let _earlier = last.await;
            }
            {
                let mut confirmations = file.confirmations.lock();
                confirmations.last = confirmations.next.take();
            }
            file.ask(&pool).await
        });
        let next = async move {
            task.await.unwrap_or_else(|error| {
                let text = format!("the exchange was broken off: {error}");
                Err(Failure::new(ErrorKind::Other, text))
            })
        }
        .boxed()
        .shared();
        confirmations.next = Some(next.clone());
        next
    }

    /// Asks whether the file is still the same.
    async fn ask(self: &Arc<Self>, pool: &Arc<Pool>) -> Result<(), Failure> {
        let asked = Arc::clone(self);
        let stat = async move { asked.session.stat(&asked.name).await };
        match pool.exchange_on(&self.session, stat).await {
            Ok(now) if now.version() == self.version => return Ok(()),
            Ok(now) if now.index == self.opened.index => return Err(changed()),
            // Another file stands there, or none.
            Ok(_) | Err(Failure::Absent) => {}
            Err(failure) => return Err(failure),
        }
        let asked = Arc::clone(self);
        let query = async move { asked.session.query(asked.handle).await };
        let now = pool.exchange_on(&self.session, query).await?;
        if now.version() == self.opened.version() || now.only_unlinked_since(&self.opened) {
            Ok(())
        } else {
            Err(changed())
        }
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
        let (session, handle, closed) = (Arc::clone(&self.session), self.handle, self.closed.take());
        runtime.spawn(async move {
            let _until_it_is_done = closed;
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
