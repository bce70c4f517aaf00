//! What the metrics are read from: all counts of all rooms, gathered at one time.

use std::collections::HashMap;

use manifold_catalog::{ScanState, SourceId, SourceRecord};
use manifold_fuse::OperationFacts;
use manifold_index::SourceHealth;
use manifold_vfs::cache::{SourceTag, Usage};
use manifold_vfs::{Counters, PinReport, Waiting};

use super::process::Process;
use crate::control::status::SourceStatus;
use crate::failure::{Failure, Result};
use crate::open::OpenLibrary;

/// All counts.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(super) library: String,
    pub(super) mount: MountPicture,
    pub(super) process: Process,
    pub(super) counters: Counters,
    pub(super) cache: Usage,
    /// What waits for the disk cache.
    pub(super) disk_queue: Waiting,
    pub(super) pins: PinReport,
    /// Files whose content is known.
    pub(super) hashed: u64,
    pub(super) sources: Vec<SourcePicture>,
}

/// What the mount has counted.
#[derive(Debug)]
pub(crate) struct MountPicture {
    /// Where it is.
    pub(crate) point: String,
    /// When the daemon started, in nanoseconds since 1970 UTC.
    pub(crate) started_ns: i64,
    /// What the kernel asked.
    pub(crate) operations: Vec<OperationFacts>,
    /// Files opened that the kernel reads by itself.
    pub(crate) left_to_kernel: u64,
    /// How often it had to be given up and made anew.
    pub(crate) given_up: u64,
}

/// All counts of one source.
#[derive(Debug)]
pub(super) struct SourcePicture {
    pub(super) id: String,
    pub(super) status: SourceStatus,
    /// `None` before it was connected the first time.
    pub(super) health: Option<SourceHealth>,
    pub(super) scan: Option<ScanState>,
    /// What waits to be fetched from it.
    pub(super) queue: Waiting,
    /// Bytes of it in the disk cache.
    pub(super) cached_bytes: u64,
}

impl Picture {
    /// Gathers everything. Reads the catalog, but asks no source.
    pub(crate) fn take(open: &OpenLibrary, mount: MountPicture) -> Result<Self> {
        let process =
            Process::look().map_err(|error| Failure::new(format!("cannot tell how this process is: {error}")))?;
        let waiting: HashMap<_, _> = open.vfs.waiting().into_iter().map(|it| (it.source, it)).collect();
        let queue = |source| waiting.get(&source).copied().unwrap_or(nothing_waits(source));
        let cache = open.vfs.cache().show();
        let source = |record: &SourceRecord| {
            let tag = SourceTag::new(&record.name);
            let cached = cache.sources.iter().find(|it| it.source == tag);
            Ok(SourcePicture {
                id: record.id.0.to_string(),
                status: open.source_status(record)?,
                health: open.indexer.health(record.id),
                scan: open.catalog.scan_state(record.id)?,
                queue: queue(Some(record.id)),
                cached_bytes: cached.map_or(0, |it| it.bytes),
            })
        };
        let sources = open.sources()?.iter().map(source).collect::<Result<_>>()?;
        Ok(Self {
            library: open.library.name().to_owned(),
            mount,
            process,
            counters: open.vfs.counters(),
            disk_queue: queue(None),
            pins: open.vfs.pins_now(),
            hashed: open.catalog.hashed()?,
            sources,
            cache,
        })
    }
}

fn nothing_waits(source: Option<SourceId>) -> Waiting {
    Waiting {
        source,
        readers: 0,
        ahead: 0,
        pinned: 0,
    }
}
