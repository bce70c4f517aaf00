//! An honest source in memory that fails, hangs, dawdles and changes on cue, and remembers what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use manifold_backends::{
    Backend, Capabilities, Child, Error, ErrorKind, Kind, Listing, Metadata, ObjectPath, Operation, Presence, Result,
    Timestamp, Version,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How requests are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answered at once.
    Answers,
    /// Answered after a while.
    Dawdles(Duration),
    /// Kept waiting until the mood changes.
    Holds,
    /// Refused.
    Fails(ErrorKind),
    /// Kept waiting until the mood changes; whoever only asks whether it is there is told so.
    FailsSlowly(ErrorKind),
    /// Answered with one byte too few.
    CutsShort,
}

/// A source of the test's own.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: String,
    able: Capabilities,
    state: Mutex<State>,
    mood: watch::Sender<Mood>,
    started: watch::Sender<usize>,
    alive: Arc<Alive>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Vec<u8>, Object>,
    reads: Vec<(ObjectPath, Range<u64>)>,
}

#[derive(Clone, Debug)]
struct Object {
    kind: Kind,
    size: u64,
    seed: u64,
    target: Vec<u8>,
}

/// How many bytes of answers are alive, and were at most.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Counted(Vec<u8>, Arc<Alive>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// Gives the bytes of a file that was made with `seed`.
pub(crate) fn truth(seed: u64, range: Range<u64>) -> Vec<u8> {
    range
        .map(|at| {
            ((at ^ (at >> 8) ^ (at >> 16))
                .wrapping_mul(31)
                .wrapping_add(seed.wrapping_mul(97))) as u8
        })
        .collect()
}

impl Scripted {
    /// Makes an empty source.
    pub(crate) fn new(name: &str, block_size: u32, read_size_max: u32, concurrency: u32) -> Arc<Self> {
        let able = Capabilities {
            block_size,
            read_size_max,
            concurrency,
            posix_attributes: false,
            identities: false,
            implicit_directories: false,
            lists_may_be_cut: false,
            tells_minutes: false,
            writes: None,
        };
        Arc::new(Self {
            name: name.to_owned(),
            able,
            state: Mutex::default(),
            mood: watch::Sender::new(Mood::Answers),
            started: watch::Sender::new(0),
            alive: Arc::default(),
        })
    }

    /// Puts a file there, in place of one that may be there. The seed makes its bytes and its version.
    pub(crate) fn put(&self, path: &str, size: u64, seed: u64) {
        self.insert(path, Kind::File, size, seed, Vec::new());
    }

    /// Puts a symbolic link there.
    pub(crate) fn put_link(&self, path: &str, target: &str) {
        self.insert(path, Kind::Symlink, target.len() as u64, 0, target.into());
    }

    /// Removes what stands there, and all beneath it.
    pub(crate) fn remove(&self, path: &str) {
        let beneath = format!("{path}/");
        self.state
            .lock()
            .objects
            .retain(|it, _| it != path.as_bytes() && !it.starts_with(beneath.as_bytes()));
    }

    /// Sets how requests are treated from now on; those that are held are let go.
    pub(crate) fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Waits until so many reads have begun.
    pub(crate) async fn until_reads(&self, count: usize) {
        self.started.subscribe().wait_for(|it| *it >= count).await.unwrap();
    }

    /// Gives the ranges that were read, in order.
    pub(crate) fn reads(&self) -> Vec<Range<u64>> {
        self.state.lock().reads.iter().map(|it| it.1.clone()).collect()
    }

    /// Gives the blocks that were read, each as often as it was.
    pub(crate) fn blocks_read(&self) -> Vec<u64> {
        let size = u64::from(self.able.block_size);
        self.reads()
            .iter()
            .flat_map(|it| it.start / size..it.end.div_ceil(size))
            .collect()
    }

    /// Tells whether no block of any one file was read twice.
    pub(crate) fn read_each_block_once(&self) -> bool {
        let size = u64::from(self.able.block_size);
        let mut seen = BTreeSet::new();
        self.state
            .lock()
            .reads
            .iter()
            .flat_map(|(path, it)| (it.start / size..it.end.div_ceil(size)).map(move |index| (path.clone(), index)))
            .all(|block| seen.insert(block))
    }

    /// Gives the most bytes of answers that were alive at once.
    pub(crate) fn most_alive(&self) -> usize {
        self.alive.most.load(Ordering::SeqCst)
    }

    fn insert(&self, path: &str, kind: Kind, size: u64, seed: u64, target: Vec<u8>) {
        let mut state = self.state.lock();
        for (at, _) in path.match_indices('/') {
            let directory = Object {
                kind: Kind::Directory,
                size: 0,
                seed: 0,
                target: Vec::new(),
            };
            state.objects.entry(path.as_bytes()[..at].to_vec()).or_insert(directory);
        }
        state.objects.insert(
            path.into(),
            Object {
                kind,
                size,
                seed,
                target,
            },
        );
    }

    async fn until_answered(&self, operation: Operation, path: &ObjectPath) -> Result<Mood> {
        let mood = *self
            .mood
            .subscribe()
            .wait_for(|it| match it {
                Mood::Holds => false,
                Mood::FailsSlowly(_) => operation == Operation::Connect,
                _ => true,
            })
            .await
            .expect("invariant: the source lives");
        match mood {
            Mood::Fails(kind) | Mood::FailsSlowly(kind) => {
                Err(Error::new(kind, operation, &*self.name, path.clone(), "on cue"))
            }
            Mood::Dawdles(time) => {
                tokio::time::sleep(time).await;
                Ok(mood)
            }
            Mood::Answers | Mood::CutsShort | Mood::Holds => Ok(mood),
        }
    }

    fn bytes(&self, bytes: Vec<u8>) -> Bytes {
        let now = self.alive.now.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.alive.most.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Counted(bytes, Arc::clone(&self.alive)))
    }
}

impl Object {
    fn version(&self) -> Version {
        Version::from_etag(format!("\"{}-{}\"", self.seed, self.size).as_bytes())
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            kind: self.kind,
            size: self.size,
            modified: Some(Timestamp(1_000_000_000 + self.seed as i64)),
            changed: None,
            created: None,
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: self.version(),
            identity: None,
        }
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn check(&self) -> Result<()> {
        self.until_answered(Operation::Connect, &ObjectPath::root())
            .await
            .map(drop)
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        self.until_answered(Operation::Stat, path).await?;
        let state = self.state.lock();
        Ok(state
            .objects
            .get(path.as_bytes())
            .map_or(Presence::Absent, |it| Presence::Found(it.metadata())))
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        self.until_answered(Operation::List, directory).await?;
        let state = self.state.lock();
        if !directory.is_root() && !state.objects.contains_key(directory.as_bytes()) {
            return Ok(Presence::Absent);
        }
        let children = state.objects.iter().filter_map(|(path, object)| {
            let rest = if directory.is_root() {
                path.as_slice()
            } else {
                path.strip_prefix(directory.as_bytes())?.strip_prefix(b"/")?
            };
            let is_child = !rest.is_empty() && !rest.contains(&b'/');
            is_child.then(|| Child {
                name: rest.to_vec(),
                metadata: object.metadata(),
            })
        });
        let pages = [Ok(children.collect())];
        Ok(Presence::Found(futures::stream::iter(pages).boxed()))
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        self.state.lock().reads.push((path.clone(), range.clone()));
        self.started.send_modify(|it| *it += 1);
        let mood = self.until_answered(Operation::Read, path).await?;
        let object = self.state.lock().objects.get(path.as_bytes()).cloned();
        let Some(object) = object else {
            return Ok(Presence::Absent);
        };
        if object.version() != *version {
            let error = Error::new(
                ErrorKind::VersionChanged,
                Operation::Read,
                &*self.name,
                path.clone(),
                "replaced",
            );
            return Err(error);
        }
        assert!(range.end <= object.size, "asked beyond the end");
        let mut bytes = truth(object.seed, range);
        if mood == Mood::CutsShort {
            bytes.pop();
        }
        Ok(Presence::Found(self.bytes(bytes)))
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        self.until_answered(Operation::ReadLink, path).await?;
        let state = self.state.lock();
        Ok(state
            .objects
            .get(path.as_bytes())
            .map_or(Presence::Absent, |it| Presence::Found(it.target.clone())))
    }
}
