//! Learns what files hold from what lies whole in the disk cache: the one way that costs a source nothing.
//!
//! It owns one thread, which gives way to all others. Always true: what is recorded is the BLAKE3 of a file that was whole
//! when it was handed out and held still meanwhile, under the version that its blocks were fetched as; and nobody waits for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use manifold_backends::Version;
use manifold_catalog::{Catalog, Entry, EntryId, Hashed};

use crate::cache::{BlockCache, Shape};
use crate::counters::{Tally, add};
use crate::fetch::Object;

/// How many files wait to be hashed at most. One that finds no room is asked for again when it is next opened.
const QUEUE_MAX: usize = 256;
/// How much is read at once.
const CHUNK: usize = 1 << 20;
/// How long a file must have been left alone where its times are coarse.
const LONG: Duration = Duration::from_hours(24);
/// How far the thread stands behind others.
const NICENESS: i32 = 15;

/// The thread that hashes.
#[derive(Debug)]
pub(crate) struct Hasher {
    wishes: Option<SyncSender<Wish>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A version whose content is to be learnt.
#[derive(Debug)]
struct Wish {
    id: EntryId,
    version: Version,
    shape: Shape,
}

struct Work {
    catalog: Arc<Catalog>,
    cache: Arc<BlockCache>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Hasher {
    /// Starts the thread.
    pub(crate) fn start(catalog: Arc<Catalog>, cache: Arc<BlockCache>, tally: Arc<Tally>) -> io::Result<Self> {
        let (wishes, inbox) = sync_channel(QUEUE_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            catalog,
            cache,
            tally,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("manifold-hash".to_owned());
        let thread = thread.spawn(move || work.run(&inbox))?;
        Ok(Self {
            wishes: Some(wishes),
            stop,
            thread: Some(thread),
        })
    }

    /// Asks for the content of what was opened, if it is not known and lies whole in the disk cache.
    pub(crate) fn wish(&self, object: &Object) {
        if object.content.is_some() || object.shape.size == 0 || object.version.as_bytes().is_empty() {
            return;
        }
        let wish = Wish {
            id: object.id,
            version: object.version.clone(),
            shape: object.shape,
        };
        if let Some(wishes) = &self.wishes {
            // A full queue is not waited for.
            let _sent_or_left_out = wishes.try_send(wish);
        }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wishes = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hashes has panicked");
        }
    }
}

/// Tells whether what was fetched can stand for a version. Where its times are coarse, another change may have the same: then it
/// does if nothing was fetched before the file had been left alone for long, by a clock that may be wrong.
fn is_settled(version: &Version, entry: Option<Entry>, cached: &File) -> bool {
    if version.grain().is_none() {
        return true;
    }
    let changed = entry.and_then(|entry| u64::try_from(entry.modified_ns).ok());
    let changed = changed.map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
    let begun = cached.metadata().and_then(|about| about.created());
    match (changed, begun) {
        (Some(changed), Ok(begun)) => begun.duration_since(changed).is_ok_and(|alone| alone > LONG),
        _ => false,
    }
}

impl Work {
    fn run(&self, inbox: &Receiver<Wish>) {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "hashing cannot stand behind other work");
        }
        while let Ok(wish) = inbox.recv() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.fulfil(&wish) {
                tracing::debug!(id = wish.id.0, %error, "a cached file could not be hashed");
            }
        }
    }

    fn fulfil(&self, wish: &Wish) -> Result<(), Box<dyn std::error::Error>> {
        let details = self.catalog.details(wish.id)?;
        let is_open = details.is_some_and(|it| *it.version == *wish.version.as_bytes() && it.content.is_none());
        if !is_open {
            return Ok(());
        }
        // Its last blocks may still be on their way to the disk.
        self.cache.settle();
        let Some(whole) = self.cache.whole_file(wish.shape) else {
            return Ok(());
        };
        if !is_settled(&wish.version, self.catalog.entry(wish.id)?, whole.file()) {
            return Ok(());
        }
        let Some(content) = self.hash(whole.file(), wish.shape.size)? else {
            return Ok(());
        };
        let hashed = Hashed {
            id: wish.id,
            version: wish.version.as_bytes().into(),
            size: wish.shape.size,
            content,
        };
        add(&self.tally.files_hashed, self.catalog.set_contents(&[hashed])?);
        Ok(())
    }

    /// Hashes a whole file; `None` if it was told to stop.
    fn hash(&self, file: &File, size: u64) -> io::Result<Option<[u8; 32]>> {
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK.min(size as usize)];
        let mut at = 0;
        while at < size {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let part = &mut chunk[..(size - at).min(CHUNK as u64) as usize];
            file.read_exact_at(part, at)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok(Some(hasher.finalize().into()))
    }
}
