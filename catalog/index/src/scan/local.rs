//! The first scan of a local folder: some threads walk, another writes. What the walkers find is written in the order of
//! the directories' ids whoever is faster, so that the catalog's keys ascend.
//!
//! It is only faster, not another way: what it could not list stays in the catalog's queue for the ordinary scan, and
//! directories that somebody opened meanwhile were listed for them and are passed over here, and so are those in which
//! something was changed through the mount since they were walked.

mod frontier;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use manifold_backends::local::LocalBackend;
use manifold_backends::{ObjectPath, Presence};
use manifold_catalog::{BulkLoader, Catalog, EntryId, NewChild, Ticket};

use self::frontier::Frontier;
use crate::health::RequestKind;
use crate::indexer::Indexer;
use crate::listing::Children;
use crate::source::Source;
use crate::{Clock, IndexError};

/// How many threads walk, at most; no more than the scan's share of what the source likes. More find nothing to do on a
/// disk that turns, and take the processors from the writer on a fast one.
const WALKERS_MAX: usize = 4;
/// A walker hands over when it has gathered so many entries, or has come to the end of its chunk.
const PART_ENTRIES: usize = 4_096;
/// How many queued directories are taken from the catalog to begin with.
const QUEUE_PAGE: usize = 1 << 20;

/// A directory that was listed completely.
struct Walked {
    directory: EntryId,
    path: ObjectPath,
    children: Vec<NewChild>,
    listed_ns: i64,
    /// Taken before it was listed.
    ticket: Ticket,
}

/// What a walker hands over of a chunk.
struct Part {
    chunk: u64,
    walked: Vec<Walked>,
    is_last: bool,
}

/// A directory that is to be listed.
type Next = (EntryId, ObjectPath);

impl Indexer {
    /// Loads what the catalog has queued for a local source, and all that is found beneath.
    pub(super) async fn load_local(
        self: &Arc<Self>,
        source: &Arc<Source>,
        listed: &AtomicU64,
    ) -> Result<(), IndexError> {
        let mut tried = HashSet::new();
        loop {
            let queued = self.catalog().scan_queue_next(source.id, QUEUE_PAGE)?;
            let mut frontier = VecDeque::new();
            for directory in queued {
                if tried.insert(directory)
                    && let Some((_, path)) = self.catalog().object_path(directory)?
                {
                    let path = ObjectPath::from_bytes(path);
                    if path.is_root() {
                        self.look_at_root(source, directory).await;
                    }
                    frontier.push_back((directory, path));
                }
            }
            if frontier.is_empty() {
                return Ok(());
            }
            self.load_once(source, frontier, listed).await?;
        }
    }

    async fn load_once(
        self: &Arc<Self>,
        source: &Arc<Source>,
        frontier: VecDeque<Next>,
        listed: &AtomicU64,
    ) -> Result<(), IndexError> {
        let walkers = source.scan_share.min(WALKERS_MAX);
        let frontier = Arc::new(Frontier::new(frontier, walkers));
        // What is under way is bounded by the frontier.
        let (to_writer, parts) = mpsc::channel::<Part>();
        let mut walking = Vec::new();
        for _ in 0..walkers {
            let (source, clock) = (Arc::clone(source), Arc::clone(self.clock()));
            let catalog = Arc::clone(self.catalog());
            let (frontier, to_writer) = (Stopping(Arc::clone(&frontier)), to_writer.clone());
            let walk = move || match source.backend.as_local() {
                Some(local) => Walker {
                    source: &source,
                    local,
                    catalog: &catalog,
                    clock: &*clock,
                    frontier: &frontier.0,
                }
                .walk(&to_writer),
                None => 0,
            };
            walking.push(self.tasks.spawn_blocking_on(walk, &self.runtime));
        }
        drop(to_writer);
        let (id, frontier) = (source.id, Stopping(frontier));
        let written = self
            .blocking_for_long(move |catalog| {
                let Stopping(frontier) = &frontier;
                write(catalog, catalog.bulk_load(id)?, &parts, frontier)
            })
            .await;
        let mut left_out = 0;
        for walker in walking {
            left_out += walker.await.map_err(|_| IndexError::Stopped)?;
        }
        if left_out > 0 {
            tracing::debug!(
                source = source.backend.name(),
                left_out,
                "directories are left to the ordinary scan"
            );
        }
        listed.fetch_add(written?, Ordering::Relaxed);
        if source.cancel.is_cancelled() {
            Err(IndexError::Stopped)
        } else {
            Ok(())
        }
    }
}

/// Ends all walking when one of those who take part goes, done, failed or in a panic: nobody waits for it then.
struct Stopping(Arc<Frontier<Next>>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Gives the loader what was walked, in the order of the chunks, and the frontier the directories that were found.
fn write(
    catalog: &Catalog,
    mut loader: BulkLoader,
    parts: &mpsc::Receiver<Part>,
    frontier: &Frontier<Next>,
) -> Result<u64, IndexError> {
    let mut listed = 0;
    let mut due = 0;
    let mut early: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    for part in parts {
        early.entry(part.chunk).or_default().push(part);
        while let Some(ready) = early.remove(&due) {
            for Part { walked, is_last, .. } in ready {
                let (mut entries, mut found) = (0, Vec::new());
                for Walked {
                    directory,
                    path,
                    children,
                    listed_ns,
                    ticket,
                } in walked
                {
                    entries += children.len();
                    for child in loader.add(directory, ticket, children)? {
                        found.push((child.id, path.join(&child.raw_name)));
                    }
                    loader.complete(directory, ticket, listed_ns)?;
                    listed += 1;
                }
                due += u64::from(is_last);
                frontier.written(entries, found, is_last);
            }
        }
    }
    loader.finish()?;
    catalog.sync()?;
    Ok(listed)
}

struct Walker<'a> {
    source: &'a Source,
    local: &'a LocalBackend,
    catalog: &'a Catalog,
    clock: &'a dyn Clock,
    frontier: &'a Frontier<Next>,
}

impl Walker<'_> {
    /// Walks until nothing is left, the source is let go or the writer fails. Gives the number of directories that could
    /// not be listed.
    fn walk(&self, to_writer: &mpsc::Sender<Part>) -> u64 {
        let mut left_out = 0;
        while let Some((chunk, directories)) = self.frontier.take() {
            let (mut walked, mut entries) = (Vec::new(), 0);
            for (directory, path) in directories {
                if self.source.cancel.is_cancelled() {
                    return left_out;
                }
                let (listed_ns, ticket) = (self.clock.now_ns(), self.catalog.ticket().by_path(path.as_bytes()));
                // This thread waits for nobody: the ordinary scan has deadlines, and sees first to what is to be seen to.
                if self.local.may_hang(&path) || self.catalog.is_crossing_to(directory).unwrap_or(true) {
                    left_out += 1;
                    continue;
                }
                match self.list(directory, &path) {
                    Ok(children) => {
                        let count = children.len();
                        entries += count;
                        walked.push(Walked {
                            directory,
                            path,
                            children,
                            listed_ns,
                            ticket,
                        });
                        self.frontier.listed(chunk, count);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "left to the ordinary scan");
                        left_out += 1;
                    }
                }
                if entries >= PART_ENTRIES {
                    entries = 0;
                    let walked = std::mem::take(&mut walked);
                    let is_last = false;
                    if to_writer.send(Part { chunk, walked, is_last }).is_err() {
                        return left_out;
                    }
                }
            }
            let is_last = true;
            if to_writer.send(Part { chunk, walked, is_last }).is_err() {
                return left_out;
            }
        }
        left_out
    }

    fn list(&self, directory: EntryId, path: &ObjectPath) -> Result<Vec<NewChild>, IndexError> {
        let under_way = self.source.monitor.asks(RequestKind::List);
        let listed = self.list_now(directory, path);
        under_way.end(&listed);
        listed
    }

    fn list_now(&self, directory: EntryId, path: &ObjectPath) -> Result<Vec<NewChild>, IndexError> {
        let mut children = Children::new(self.source, path);
        let mut odd = Ok(());
        let walked = self
            .local
            .walk_directory(path, Some(directory.0), &mut |name, metadata| {
                if odd.is_ok() {
                    odd = children.push(name, metadata);
                }
            })?;
        odd?;
        match walked {
            Presence::Found(()) => children.finish(),
            Presence::Absent => Err(IndexError::NotFound(0)),
        }
    }
}
