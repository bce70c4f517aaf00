//! An honest source in memory that fails on cue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use manifold_backends::{
    Backend, Capabilities, Child, Error, ErrorKind, Identity, Kind, Listing, Metadata, ObjectPath, Operation, Presence,
    Result, Timestamp, Version,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many children come in one page.
const PAGE: usize = 3;

/// What goes wrong with a directory.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Refused with that kind.
    Refuse(ErrorKind),
    /// That many pages come, then the connection is lost.
    BreakAfter(usize),
    /// No answer, for ever.
    Hang,
    /// An answer that is not the truth.
    Pretend(Vec<Child>),
}

/// The source: a truth of its own, faults, and a count of what it was asked.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: String,
    capabilities: Capabilities,
    world: Mutex<World>,
    /// Something was asked, or let go.
    stirred: Notify,
    pub(crate) checks: AtomicUsize,
    pub(crate) stats: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    at_once: AtomicUsize,
}

#[derive(Debug, Default)]
struct World {
    /// Children of each directory.
    directories: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Metadata>>,
    faults: BTreeMap<Vec<u8>, Fault>,
    held: BTreeSet<Vec<u8>>,
    away: Option<ErrorKind>,
    stat_fails: bool,
    gone: bool,
    listings: BTreeMap<Vec<u8>, usize>,
    last_inode: u64,
    time: i64,
}

pub(crate) fn source() -> Arc<Scripted> {
    Scripted::new("scripted://one", false)
}

impl Scripted {
    /// `object_store`: directories are implied by names, and identity is content.
    pub(crate) fn new(name: &str, object_store: bool) -> Arc<Self> {
        let mut world = World::default();
        world.directories.insert(Vec::new(), BTreeMap::new());
        Arc::new(Self {
            name: name.to_owned(),
            capabilities: Capabilities {
                block_size: 1 << 20,
                read_size_max: 1 << 20,
                concurrency: 8,
                posix_attributes: !object_store,
                identities: true,
                implicit_directories: object_store,
            },
            world: Mutex::new(world),
            stirred: Notify::new(),
            checks: AtomicUsize::new(0),
            stats: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
        })
    }

    pub(crate) fn directory(&self, path: &str) -> &Self {
        self.world.lock().make(path, Kind::Directory, 0);
        self
    }

    pub(crate) fn file(&self, path: &str, size: u64) -> &Self {
        self.world.lock().make(path, Kind::File, size);
        self
    }

    /// An object whose identity is made of what it holds, as object stores have it.
    pub(crate) fn object(&self, path: &str, size: u64, content: u8) -> &Self {
        let mut world = self.world.lock();
        world.make(path, Kind::File, size);
        let metadata = world.metadata_mut(path);
        metadata.identity = Some(Identity([content; 16]));
        metadata.version = Version::from_etag(&[content]);
        self
    }

    pub(crate) fn link(&self, from: &str, to: &str) -> &Self {
        let mut world = self.world.lock();
        let metadata = world.metadata_mut(from).clone();
        let (parent, name) = split(to);
        world.children_mut(&parent).insert(name, metadata);
        self
    }

    pub(crate) fn remove(&self, path: &str) -> &Self {
        self.world.lock().remove(path);
        self
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> &Self {
        self.world.lock().rename(from, to);
        self
    }

    pub(crate) fn change<T>(&self, path: &str, change: impl FnOnce(&mut Metadata) -> T) -> T {
        change(self.world.lock().metadata_mut(path))
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) -> &Self {
        self.world.lock().faults.insert(path.into(), fault);
        self
    }

    pub(crate) fn mend(&self, path: &str) -> &Self {
        self.world.lock().faults.remove(path.as_bytes());
        self.stirred.notify_waiters();
        self
    }

    pub(crate) fn mend_all(&self) {
        let mut world = self.world.lock();
        world.faults.clear();
        world.away = None;
        world.stat_fails = false;
        drop(world);
        self.stirred.notify_waiters();
    }

    /// Lets listings of a directory begin but not end, until [`release`](Self::release).
    pub(crate) fn hold(&self, path: &str) -> &Self {
        self.world.lock().held.insert(path.into());
        self
    }

    pub(crate) fn release(&self, path: &str) {
        self.world.lock().held.remove(path.as_bytes());
        self.stirred.notify_waiters();
    }

    pub(crate) fn go_away(&self, kind: ErrorKind) {
        self.world.lock().away = Some(kind);
    }

    pub(crate) fn come_back(&self) {
        self.world.lock().away = None;
    }

    pub(crate) fn stat_fails(&self, fails: bool) {
        self.world.lock().stat_fails = fails;
    }

    /// The root itself is not there.
    pub(crate) fn vanish(&self) {
        self.world.lock().gone = true;
    }

    pub(crate) fn listings(&self, path: &str) -> usize {
        self.world.lock().listings.get(path.as_bytes()).copied().unwrap_or(0)
    }

    pub(crate) fn listings_in_all(&self) -> usize {
        self.world.lock().listings.values().sum()
    }

    /// Waits until so many listings of a directory have begun.
    pub(crate) async fn until_listings(&self, path: &str, count: usize) {
        self.until(|| self.listings(path) >= count).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let stirred = self.stirred.notified();
            tokio::pin!(stirred);
            stirred.as_mut().enable();
            if holds() {
                return;
            }
            stirred.await;
        }
    }

    /// Everything that is there: path, kind, size and identity.
    pub(crate) fn truth(&self) -> Tree {
        let world = self.world.lock();
        let mut tree = Tree::new();
        for (directory, children) in &world.directories {
            for (name, metadata) in children {
                let path = ObjectPath::from_bytes(directory.clone()).join(name);
                let identity = metadata.identity.map(|identity| identity.0);
                let seen = (metadata.kind == Kind::Directory, metadata.size, identity);
                tree.insert(path.as_bytes().to_vec(), seen);
            }
        }
        tree
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath) -> Error {
        Error::new(kind, operation, self.name.as_str(), path.clone(), "as scripted")
    }
}

/// Path, then whether it is a directory, its size and its identity.
pub(crate) type Tree = BTreeMap<Vec<u8>, (bool, u64, Option<[u8; 16]>)>;

fn split(path: &str) -> (Vec<u8>, Vec<u8>) {
    match path.rsplit_once('/') {
        Some((parent, name)) => (parent.into(), name.into()),
        None => (Vec::new(), path.into()),
    }
}

impl World {
    fn make(&mut self, path: &str, kind: Kind, size: u64) {
        self.last_inode += 1;
        self.time += 1;
        let now = Timestamp(self.time);
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&self.last_inode.to_le_bytes());
        let metadata = Metadata {
            kind,
            size,
            modified: Some(now),
            changed: Some(now),
            created: Some(now),
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_stat(size, now, now, self.last_inode),
            identity: Some(Identity(identity)),
        };
        let (parent, name) = split(path);
        self.remove(path);
        self.children_mut(&parent).insert(name, metadata);
        if kind == Kind::Directory {
            self.directories.insert(path.into(), BTreeMap::new());
        }
    }

    fn children_mut(&mut self, directory: &[u8]) -> &mut BTreeMap<Vec<u8>, Metadata> {
        self.directories
            .get_mut(directory)
            .expect("the script names a directory that is there")
    }

    fn metadata_mut(&mut self, path: &str) -> &mut Metadata {
        let (parent, name) = split(path);
        self.children_mut(&parent)
            .get_mut(&name)
            .expect("the script names an object that is there")
    }

    fn is_beneath(directory: &[u8], path: &[u8]) -> bool {
        path == directory || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
    }

    fn remove(&mut self, path: &str) {
        let (parent, name) = split(path);
        if let Some(children) = self.directories.get_mut(&parent) {
            children.remove(&name);
        }
        self.directories
            .retain(|directory, _| !Self::is_beneath(path.as_bytes(), directory));
    }

    fn rename(&mut self, from: &str, to: &str) {
        assert!(
            !Self::is_beneath(from.as_bytes(), to.as_bytes()),
            "a directory cannot move into itself"
        );
        self.remove(to);
        let (parent, name) = split(from);
        let metadata = self
            .children_mut(&parent)
            .remove(&name)
            .expect("the script renames what is there");
        let (parent, name) = split(to);
        self.children_mut(&parent).insert(name, metadata);
        let moving: Vec<_> = self
            .directories
            .keys()
            .filter(|path| Self::is_beneath(from.as_bytes(), path))
            .cloned()
            .collect();
        for path in moving {
            let children = self.directories.remove(&path).expect("its key was just read");
            let path = [to.as_bytes(), &path[from.len()..]].concat();
            self.directories.insert(path, children);
        }
    }
}

/// Counts the listings that are under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self) -> Result<()> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.stirred.notify_waiters();
        match self.world.lock().away {
            Some(kind) => Err(self.error(kind, Operation::Connect, &ObjectPath::root())),
            None => Ok(()),
        }
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        self.stats.fetch_add(1, Ordering::SeqCst);
        let world = self.world.lock();
        if let Some(kind) = world.away {
            return Err(self.error(kind, Operation::Stat, path));
        }
        if world.stat_fails {
            return Err(self.error(ErrorKind::Other, Operation::Stat, path));
        }
        let text = std::str::from_utf8(path.as_bytes()).expect("scripts use text");
        let (parent, name) = split(text);
        let found = world.directories.get(&parent).and_then(|children| children.get(&name));
        Ok(found.map_or(Presence::Absent, |metadata| Presence::Found(metadata.clone())))
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        let key = directory.as_bytes().to_vec();
        *self.world.lock().listings.entry(key.clone()).or_insert(0) += 1;
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        let _under_way = UnderWay(&self.at_once);
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        self.stirred.notify_waiters();
        tokio::task::yield_now().await;
        self.until(|| {
            let world = self.world.lock();
            !world.held.contains(&key) && !matches!(world.faults.get(&key), Some(Fault::Hang))
        })
        .await;
        let world = self.world.lock();
        if let Some(kind) = world.away {
            return Err(self.error(kind, Operation::List, directory));
        }
        let mut broken = None;
        let children: Vec<Child> = match world.faults.get(&key) {
            Some(Fault::Refuse(kind)) => return Err(self.error(*kind, Operation::List, directory)),
            Some(Fault::Pretend(children)) => children.clone(),
            fault => {
                if let Some(Fault::BreakAfter(pages)) = fault {
                    broken = Some(*pages);
                }
                match world.directories.get(&key) {
                    Some(_) if world.gone => return Ok(Presence::Absent),
                    Some(children) => children
                        .iter()
                        .map(|(name, metadata)| Child {
                            name: name.clone(),
                            metadata: metadata.clone(),
                        })
                        .collect(),
                    None => return Ok(Presence::Absent),
                }
            }
        };
        let mut pages: Vec<Result<Vec<Child>>> = children.chunks(PAGE).map(|page| Ok(page.to_vec())).collect();
        if let Some(after) = broken {
            pages.truncate(after);
            pages.push(Err(self.error(ErrorKind::Other, Operation::List, directory)));
        }
        Ok(Presence::Found(futures::stream::iter(pages).boxed()))
    }

    async fn read(&self, path: &ObjectPath, _: &Version, _: std::ops::Range<u64>) -> Result<Presence<Bytes>> {
        Err(self.error(ErrorKind::Unsupported, Operation::Read, path))
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        Err(self.error(ErrorKind::Unsupported, Operation::ReadLink, path))
    }
}
