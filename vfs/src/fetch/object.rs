//! What is fetched: one version of one object, as the catalog has it.

use std::sync::atomic::{AtomicBool, Ordering};

use manifold_backends::{ObjectPath, Version};
use manifold_catalog::{Catalog, Details, Entry, EntryId, SourceId};
use manifold_index::Indexer;

use crate::Error;
use crate::cache::{DiskKey, ObjectKey, Shape, SourceTag};

/// One version of one object, as far as bringing its bytes is concerned.
#[derive(Debug)]
pub(crate) struct Object {
    /// How it is cached.
    pub(crate) shape: Shape,
    /// Where it comes from.
    pub(crate) source: SourceId,
    /// The entry that was opened.
    pub(crate) id: EntryId,
    /// The version that was opened.
    pub(crate) version: Version,
    /// Where it stood when it was opened; used when the catalog has it at another source by now.
    pub(crate) path: ObjectPath,
    /// The longest request that pays, in blocks.
    pub(crate) run_max: u64,
    /// How many requests its source likes at once.
    pub(crate) concurrency: u32,
    /// What its bytes are, where that was known when it was opened.
    pub(crate) content: Option<[u8; 32]>,
    /// Whether it is what the entry was moved from, at another source.
    pub(crate) is_origin: bool,
    /// Whether another has its place, which the source does not tell from it.
    has_lost_place: AtomicBool,
    /// Whether the log tells already that a copy is read in its place.
    pub(crate) told_of_copy: AtomicBool,
}

impl Object {
    /// Finds the present version of an entry; it must stand in the tree, and its source be connected.
    pub(crate) fn find(catalog: &Catalog, indexer: &Indexer, id: EntryId) -> Result<(Self, Entry), Error> {
        let (entry, details) = rows(catalog, id)?;
        let version = Version::from_stored(&details.version);
        let mut object = Self::of_version(catalog, indexer, id, version, entry.size)?;
        object.content = details.content;
        Ok((object, entry))
    }

    /// Finds a version of an entry, which need not be the present one, where the entry stands now.
    pub(crate) fn of_version(
        catalog: &Catalog,
        indexer: &Indexer,
        id: EntryId,
        version: Version,
        size: u64,
    ) -> Result<Self, Error> {
        let place = catalog.object_path(id).map_err(Error::from_catalog)?;
        Self::at(indexer, id, place.ok_or(Error::Stale)?, version, size)
    }

    /// Finds what an entry was moved from, at another source.
    pub(crate) fn of_origin(
        catalog: &Catalog,
        indexer: &Indexer,
        id: EntryId,
        version: Version,
        size: u64,
    ) -> Result<Self, Error> {
        let place = catalog.origin_place(id).map_err(Error::from_catalog)?;
        let object = Self::at(indexer, id, place.ok_or(Error::Stale)?, version, size)?;
        Ok(Self {
            is_origin: true,
            ..object
        })
    }

    /// Whether its bytes cannot be had from its source any more: what stands in its place is another, and looks the same.
    pub(crate) fn has_lost_place(&self) -> bool {
        self.has_lost_place.load(Ordering::SeqCst)
    }

    /// Says that another is about to have its place, or that it is not.
    pub(crate) fn lose_place(&self, is_lost: bool) {
        self.has_lost_place.store(is_lost, Ordering::SeqCst);
    }

    fn at(
        indexer: &Indexer,
        id: EntryId,
        (source, path): (SourceId, Vec<u8>),
        version: Version,
        size: u64,
    ) -> Result<Self, Error> {
        let backend = indexer.backend(source).ok_or_else(|| not_connected(indexer, source))?;
        let path = ObjectPath::from_bytes(path);
        let able = backend.capabilities();
        let key = DiskKey {
            source: SourceTag::new(backend.name()),
            object: ObjectKey::new(backend.name(), id, &version, size, able.block_size),
        };
        Ok(Self {
            shape: Shape {
                key,
                size,
                block_size: able.block_size,
            },
            source,
            id,
            version,
            path,
            run_max: u64::from((able.read_size_max / able.block_size).max(1)),
            concurrency: able.concurrency,
            content: None,
            is_origin: false,
            has_lost_place: AtomicBool::new(false),
            told_of_copy: AtomicBool::new(false),
        })
    }
}

/// Says that a source is not connected now, and why.
pub(crate) fn not_connected(indexer: &Indexer, source: SourceId) -> Error {
    Error::from_index(indexer.why_not_connected(source))
}

/// Reads both rows of an entry, as they stand together.
pub(crate) fn rows(catalog: &Catalog, id: EntryId) -> Result<(Entry, Details), Error> {
    let entry = || catalog.entry(id).map_err(Error::from_catalog)?.ok_or(Error::Stale);
    let mut before = entry()?;
    loop {
        let details = catalog.details(id).map_err(Error::from_catalog)?.ok_or(Error::Stale)?;
        let after = entry()?;
        if after == before {
            return Ok((after, details));
        }
        before = after;
    }
}
