//! An honest source in memory that fails on cue.

mod pages;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use manifold_backends::{
    Backend, Capabilities, Child, Coverage, Error, ErrorKind, Identity, Kind, Listing, Metadata, Noticed, ObjectPath,
    Operation, Presence, Result, Version, Watch, Where,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use pages::Pages;
pub(crate) use world::{Seen, Tree};
use world::{World, split};

/// How many children come in one page.
const PAGE: usize = 3;

/// How long a read takes that nothing is wrong with.
pub(crate) const QUICK: Duration = Duration::from_millis(10);

/// What goes wrong with a directory.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Refused with that kind.
    Refuse(ErrorKind),
    /// That many pages come, then the connection is lost.
    BreakAfter(usize),
    /// No answer, for ever.
    Hang,
    /// That many pages come, then nothing, for ever.
    HangAfter(usize),
    /// An answer that is not the truth.
    Pretend(Vec<Child>),
    /// It is said not to be there.
    SayAbsent,
}

/// What the source is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Check,
    Stat,
    List,
    /// A page of a listing, the first one too.
    Page,
}

/// Hears of each request before it is answered, and may make it fail. It may change the source.
pub(crate) type Cue = Box<dyn Fn(Request) -> Option<Fault> + Send + Sync>;

/// The source: a truth of its own, faults, and a count of what it was asked.
pub(crate) struct Scripted {
    name: String,
    capabilities: Capabilities,
    world: Arc<Mutex<World>>,
    cue: Arc<OnceLock<Cue>>,
    /// Something was asked, or let go.
    stirred: Notify,
    pub(crate) checks: AtomicUsize,
    pub(crate) stats: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    link_reads: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    at_once: AtomicUsize,
    /// Tells of changes, if the source is one that does.
    watch: Option<Arc<ScriptedWatch>>,
}

/// Tells what it is told to.
#[derive(Debug, Default)]
pub(crate) struct ScriptedWatch {
    told: Mutex<VecDeque<std::result::Result<Noticed, ErrorKind>>>,
    something: Notify,
}

impl ScriptedWatch {
    pub(crate) fn tell(&self, one: std::result::Result<Noticed, ErrorKind>) {
        self.told.lock().push_back(one);
        self.something.notify_one();
    }
}

#[async_trait]
impl Watch for ScriptedWatch {
    async fn cover(&self, _: &ObjectPath, _: u64) -> Result<()> {
        Ok(())
    }

    fn uncover(&self, _: &Where) {}

    async fn next(&self, noticed: &mut Vec<Noticed>) -> Result<()> {
        loop {
            let told = self.told.lock().pop_front();
            match told {
                Some(Ok(one)) => {
                    noticed.push(one);
                    return Ok(());
                }
                Some(Err(kind)) => {
                    let (name, path) = ("scripted", ObjectPath::root());
                    return Err(Error::new(kind, Operation::List, name, path, "as scripted"));
                }
                None => self.something.notified().await,
            }
        }
    }

    fn coverage(&self) -> Coverage {
        Coverage::Whole { standing: true }
    }
}

pub(crate) fn source() -> Arc<Scripted> {
    Scripted::new("scripted://one", false)
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A source that tells of changes.
pub(crate) fn talkative() -> (Arc<Scripted>, Arc<ScriptedWatch>) {
    let (mut source, watch) = (source(), Arc::<ScriptedWatch>::default());
    let only_one = Arc::get_mut(&mut source).expect("it was just made");
    only_one.watch = Some(Arc::clone(&watch));
    (source, watch)
}

/// A share: inodes that last, and births that are made up.
pub(crate) fn share() -> Arc<Scripted> {
    let mut source = source();
    let only_one = Arc::get_mut(&mut source).expect("it was just made");
    only_one.capabilities.posix_attributes = false;
    source
}

/// A share whose listings may be cut short without a sign.
pub(crate) fn cut_share() -> Arc<Scripted> {
    let mut source = share();
    let only_one = Arc::get_mut(&mut source).expect("it was just made");
    only_one.capabilities.lists_may_be_cut = true;
    source
}

/// A source whose times may be full minutes.
pub(crate) fn minutes(name: &str) -> Arc<Scripted> {
    let mut source = Scripted::new(name, false);
    let only_one = Arc::get_mut(&mut source).expect("it was just made");
    only_one.capabilities.tells_minutes = true;
    source
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
                lists_may_be_cut: false,
                tells_minutes: false,
                writes: None,
            },
            world: Arc::new(Mutex::new(world)),
            cue: Arc::default(),
            stirred: Notify::new(),
            checks: AtomicUsize::new(0),
            stats: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            link_reads: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            watch: None,
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

    pub(crate) fn symlink(&self, path: &str, target: &[u8]) -> &Self {
        let mut world = self.world.lock();
        world.make(path, Kind::Symlink, target.len() as u64);
        world.targets.insert(path.into(), target.into());
        drop(world);
        self
    }

    /// Lets a link point elsewhere, without any other sign of it.
    pub(crate) fn redirect(&self, path: &str, target: &[u8]) {
        self.world.lock().targets.insert(path.into(), target.into());
    }

    pub(crate) fn link_reads(&self) -> usize {
        self.link_reads.load(Ordering::SeqCst)
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

    /// Asks for fewer requests, and to be left alone for that long.
    pub(crate) fn ask_for_less(&self, retry_after: Duration) {
        let mut world = self.world.lock();
        (world.away, world.retry_after) = (Some(ErrorKind::RateLimited), Some(retry_after));
    }

    /// Lets the next reads take that long.
    pub(crate) fn slow_reads(&self, times: impl IntoIterator<Item = Duration>) {
        self.world.lock().slow_reads = times.into_iter().collect();
    }

    pub(crate) fn come_back(&self) {
        let mut world = self.world.lock();
        (world.away, world.retry_after) = (None, None);
    }

    pub(crate) fn stat_fails(&self, fails: bool) {
        self.world.lock().stat_fails = fails;
    }

    /// The root itself is not there.
    pub(crate) fn vanish(&self) {
        self.world.lock().gone = true;
    }

    /// Has every request heard, once for all.
    pub(crate) fn on_request(&self, cue: Cue) {
        assert!(self.cue.set(cue).is_ok(), "somebody hears them already");
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

    /// Waits until so many reads have begun.
    pub(crate) async fn until_reads(&self, count: usize) {
        self.until(|| self.reads.load(Ordering::SeqCst) >= count).await;
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

    fn cued(&self, request: Request) -> Option<Fault> {
        self.cue.get().and_then(|cue| cue(request))
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath) -> Error {
        Error::new(kind, operation, self.name.as_str(), path.clone(), "as scripted")
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
        let cued = self.cued(Request::Check);
        let (away, retry_after) = {
            let world = self.world.lock();
            (world.away, world.retry_after)
        };
        let refuse = |kind| self.error(kind, Operation::Connect, &ObjectPath::root());
        match cued {
            Some(Fault::Refuse(kind)) => Err(refuse(kind)),
            Some(Fault::Hang) => std::future::pending().await,
            _ => away.map_or(Ok(()), |kind| Err(refuse(kind).with_retry_after(retry_after))),
        }
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        self.stats.fetch_add(1, Ordering::SeqCst);
        match self.cued(Request::Stat) {
            Some(Fault::Refuse(kind)) => return Err(self.error(kind, Operation::Stat, path)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::SayAbsent) => return Ok(Presence::Absent),
            _ => {}
        }
        let world = self.world.lock();
        if let Some(kind) = world.away {
            return Err(self.error(kind, Operation::Stat, path));
        }
        if world.stat_fails {
            return Err(self.error(ErrorKind::Other, Operation::Stat, path));
        }
        let found = world.object(path.as_bytes());
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
        let cued = self.cued(Request::List);
        if matches!(cued, Some(Fault::Hang)) {
            std::future::pending::<()>().await;
        }
        let world = self.world.lock();
        if let Some(kind) = world.away {
            let error = self.error(kind, Operation::List, directory);
            return Err(error.with_retry_after(world.retry_after));
        }
        let fault = cued.or_else(|| world.faults.get(&key).cloned());
        match fault {
            Some(Fault::Refuse(kind)) => return Err(self.error(kind, Operation::List, directory)),
            Some(Fault::SayAbsent) => return Ok(Presence::Absent),
            Some(Fault::Pretend(children)) => {
                let pages: Vec<_> = children.chunks(PAGE).map(|page| Ok(page.to_vec())).collect();
                return Ok(Presence::Found(futures::stream::iter(pages).boxed()));
            }
            _ if world.gone || !world.directories.contains_key(&key) => return Ok(Presence::Absent),
            _ => {}
        }
        let identity = world.object(&key).and_then(|object| object.identity);
        drop(world);
        let pages = Pages {
            source_name: self.name.clone(),
            world: Arc::clone(&self.world),
            cue: Arc::clone(&self.cue),
            directory: directory.clone(),
            identity,
            after: None,
            fault,
            given: 0,
            ended: false,
        };
        Ok(Presence::Found(futures::stream::unfold(pages, Pages::next).boxed()))
    }

    async fn read(&self, path: &ObjectPath, _: &Version, range: std::ops::Range<u64>) -> Result<Presence<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (away, slow) = {
            let mut world = self.world.lock();
            (world.away, world.slow_reads.pop_front())
        };
        if let Some(kind) = away {
            return Err(self.error(kind, Operation::Read, path));
        }
        self.stirred.notify_waiters();
        tokio::time::sleep(slow.unwrap_or(QUICK)).await;
        Ok(Presence::Found(Bytes::from(vec![
            0;
            (range.end - range.start) as usize
        ])))
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        self.link_reads.fetch_add(1, Ordering::SeqCst);
        let answer = {
            let world = self.world.lock();
            match (world.away, world.faults.get(path.as_bytes()).cloned()) {
                (Some(kind), _) | (None, Some(Fault::Refuse(kind))) => Err(kind),
                (None, Some(_)) => Ok(None),
                (None, None) => Ok(Some(world.targets.get(path.as_bytes()).cloned())),
            }
        };
        match answer {
            Err(kind) => Err(self.error(kind, Operation::ReadLink, path)),
            Ok(None) => std::future::pending().await,
            Ok(Some(target)) => Ok(target.map_or(Presence::Absent, Presence::Found)),
        }
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.watch.as_ref().map(|watch| Arc::clone(watch) as Arc<dyn Watch>)
    }
}
