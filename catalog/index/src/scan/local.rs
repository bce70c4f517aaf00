//! The first scan of a local folder: one thread walks, another writes, and both go through the directories in the
//! order of their ids, so that the catalog's keys ascend.
//!
//! It is only faster, not another way: what it could not list stays in the catalog's queue for the ordinary scan, and
//! directories that somebody opened meanwhile were listed for them and are passed over here.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use manifold_backends::local::LocalBackend;
use manifold_backends::{ObjectPath, Presence};
use manifold_catalog::{BulkLoader, Catalog, EntryId, NewChild};

use crate::indexer::Indexer;
use crate::listing::Children;
use crate::source::Source;
use crate::{Clock, IndexError};

/// The walker hands over when it has gathered so many entries,
const BATCH_ENTRIES: usize = 4_096;
/// or so many directories.
const BATCH_DIRECTORIES: usize = 256;
/// How many batches may wait for the writer.
const BATCHES_WAITING: usize = 2;
/// How many queued directories are taken from the catalog to begin with.
const QUEUE_PAGE: usize = 1 << 20;

/// A directory that was listed completely.
struct Walked {
    directory: EntryId,
    path: ObjectPath,
    children: Vec<NewChild>,
    listed_ns: i64,
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
        let (to_writer, batches) = mpsc::sync_channel::<Vec<Walked>>(BATCHES_WAITING);
        let (to_walker, found) = mpsc::channel::<Vec<Next>>();
        let walker = {
            let (source, clock) = (Arc::clone(source), Arc::clone(self.clock()));
            let walk = move || match source.backend.as_local() {
                Some(local) => Walker {
                    source: &source,
                    local,
                    clock: &*clock,
                }
                .walk(frontier, &to_writer, &found),
                None => 0,
            };
            self.tasks.spawn_blocking_on(walk, &self.runtime)
        };
        let id = source.id;
        let written = self
            .blocking(move |catalog| write(catalog, catalog.bulk_load(id)?, &batches, &to_walker))
            .await;
        let left_out = walker.await.map_err(|_| IndexError::Stopped)?;
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

/// Gives the loader what was walked, and the walker the ids of the directories that were found.
fn write(
    catalog: &Catalog,
    mut loader: BulkLoader,
    batches: &mpsc::Receiver<Vec<Walked>>,
    to_walker: &mpsc::Sender<Vec<Next>>,
) -> Result<u64, IndexError> {
    let mut listed = 0;
    for batch in batches {
        let mut next = Vec::new();
        for Walked {
            directory,
            path,
            children,
            listed_ns,
        } in batch
        {
            for found in loader.add(directory, children)? {
                next.push((found.id, path.join(&found.raw_name)));
            }
            loader.complete(directory, listed_ns)?;
            listed += 1;
        }
        // A walker that has been stopped does not want them.
        if to_walker.send(next).is_err() {
            break;
        }
    }
    loader.finish()?;
    catalog.sync()?;
    Ok(listed)
}

struct Walker<'a> {
    source: &'a Source,
    local: &'a LocalBackend,
    clock: &'a dyn Clock,
}

impl Walker<'_> {
    /// Walks from the frontier on until nothing is left, the source is let go or the writer fails. Gives the number of
    /// directories that could not be listed.
    fn walk(
        &self,
        mut frontier: VecDeque<Next>,
        to_writer: &mpsc::SyncSender<Vec<Walked>>,
        found: &mpsc::Receiver<Vec<Next>>,
    ) -> u64 {
        let (mut batch, mut entries, mut unanswered, mut left_out) = (Vec::new(), 0, 0_usize, 0);
        while !self.source.cancel.is_cancelled() {
            while let Ok(next) = found.try_recv() {
                frontier.extend(next);
                unanswered -= 1;
            }
            if let Some((directory, path)) = frontier.pop_front() {
                let listed_ns = self.clock.now_ns();
                match self.list(&path) {
                    Ok(children) => {
                        entries += children.len();
                        batch.push(Walked {
                            directory,
                            path,
                            children,
                            listed_ns,
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, "left to the ordinary scan");
                        left_out += 1;
                    }
                }
            }
            let is_full = entries >= BATCH_ENTRIES || batch.len() >= BATCH_DIRECTORIES;
            if !batch.is_empty() && (is_full || frontier.is_empty()) {
                if to_writer.send(std::mem::take(&mut batch)).is_err() {
                    return left_out;
                }
                entries = 0;
                unanswered += 1;
            }
            if frontier.is_empty() {
                if unanswered == 0 {
                    return left_out;
                }
                let Ok(next) = found.recv() else { return left_out };
                frontier.extend(next);
                unanswered -= 1;
            }
        }
        left_out
    }

    fn list(&self, path: &ObjectPath) -> Result<Vec<NewChild>, IndexError> {
        let mut children = Children::new(self.source, path);
        let mut odd = Ok(());
        let walked = self.local.walk_directory(path, &mut |name, metadata| {
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
