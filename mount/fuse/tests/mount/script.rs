//! A source in memory that misbehaves on cue.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use manifold_backends::{Backend, Capabilities, Child, Kind, Listing, Metadata, ObjectPath, Presence, Result, Version};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

/// How the source answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Answer,
    /// Accepts the request, and does not say a word until the next cue.
    Silent,
    Panic,
    /// Holds up the very thread that opens a file, as a system call that does not come back would.
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Script {
    capabilities: Capabilities,
    /// The files of its one directory.
    files: Mutex<BTreeMap<Vec<u8>, (Bytes, u64)>>,
    cue: watch::Sender<Cue>,
    stuck: (Mutex<bool>, Condvar),
    reads: AtomicU64,
    asked: Notify,
}

impl Script {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            capabilities: Capabilities {
                block_size: 64 * 1024,
                read_size_max: 1024 * 1024,
                concurrency: 8,
                posix_attributes: false,
                identities: false,
                implicit_directories: false,
                lists_may_be_cut: false,
                tells_minutes: false,
                writes: None,
            },
            files: Mutex::default(),
            cue: watch::Sender::new(Cue::Answer),
            stuck: (Mutex::new(false), Condvar::new()),
            reads: AtomicU64::new(0),
            asked: Notify::new(),
        })
    }

    /// Puts a file there, as a new version.
    pub(crate) fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        let mut files = self.files.lock();
        let version = files.get(name.as_bytes()).map_or(0, |(_, version)| version + 1);
        files.insert(name.as_bytes().to_vec(), (bytes.into(), version));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.files.lock().remove(name.as_bytes()).expect("the file was there");
    }

    pub(crate) fn cue(&self, cue: Cue) {
        *self.stuck.0.lock() = cue == Cue::Stuck;
        self.stuck.1.notify_all();
        self.cue.send_replace(cue);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// Waits until the source has been asked for bytes.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }
}

fn metadata(kind: Kind, size: u64, version: u64) -> Metadata {
    Metadata {
        kind,
        size,
        modified: None,
        changed: None,
        created: None,
        mode: None,
        owner: None,
        links: 1,
        device: 0,
        version: Version::from_id(&version.to_le_bytes()),
        identity: None,
    }
}

#[async_trait]
impl Backend for Script {
    #[allow(clippy::unnecessary_literal_bound, reason = "the trait's own signature")]
    fn name(&self) -> &str {
        "script://"
    }

    fn capabilities(&self) -> &Capabilities {
        let mut stuck = self.stuck.0.lock();
        if *stuck {
            self.asked.notify_one();
            self.stuck.1.wait_while(&mut stuck, |stuck| *stuck);
        }
        &self.capabilities
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        if path.is_root() {
            return Ok(Presence::Found(metadata(Kind::Directory, 0, 0)));
        }
        Ok(match self.files.lock().get(path.as_bytes()) {
            Some((bytes, version)) => Presence::Found(metadata(Kind::File, bytes.len() as u64, *version)),
            None => Presence::Absent,
        })
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        if !directory.is_root() {
            return Ok(Presence::Absent);
        }
        let children: Vec<Child> = self
            .files
            .lock()
            .iter()
            .map(|(name, (bytes, version))| Child {
                name: name.clone(),
                metadata: metadata(Kind::File, bytes.len() as u64, *version),
            })
            .collect();
        let pages: Vec<_> = children.chunks(1000).map(|page| Ok(page.to_vec())).collect();
        Ok(Presence::Found(stream::iter(pages).boxed()))
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.asked.notify_one();
        let cue = *self
            .cue
            .subscribe()
            .wait_for(|cue| *cue != Cue::Silent)
            .await
            .expect("it lives as long as we do");
        assert!(cue != Cue::Panic, "on cue");
        let files = self.files.lock();
        Ok(match files.get(path.as_bytes()) {
            Some((bytes, now)) if *version == Version::from_id(&now.to_le_bytes()) => {
                Presence::Found(bytes.slice(range.start as usize..range.end as usize))
            }
            _ => Presence::Absent,
        })
    }

    async fn read_link(&self, _: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        Ok(Presence::Absent)
    }
}
