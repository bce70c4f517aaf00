//! What makes staged files survive a crash: the disk's own synchronisation, and the catalog's journal.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifold_backends::Version;
use manifold_catalog::{Catalog, EntryId, Kind, SeenAttributes};

use crate::Error;
use crate::cache::BlockCache;
use crate::fetch::object::rows;
use crate::staging::Durability;
use crate::staging::row::Row;

/// What the cache gives up at once where the disk is full, in bytes, so that it is not asked for each write.
const WAY: u64 = 32 << 20;

/// The catalog's journal, and this machine's disk.
pub(super) struct Journal {
    pub(super) catalog: Arc<Catalog>,
    /// Gives way where the disk is full.
    pub(super) cache: Arc<BlockCache>,
    /// Where data files lie.
    pub(super) folder: PathBuf,
}

impl Durability for Journal {
    fn data(&self, _number: u64, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn folder(&self, folder: &File) -> io::Result<()> {
        folder.sync_all()
    }

    fn room(&self) -> Result<(), Error> {
        let room = || self.catalog.check_room().map_err(Error::from_catalog);
        match room() {
            Err(Error::Full) if self.make_way(0) => room(),
            known => known,
        }
    }

    fn make_way(&self, bytes: u64) -> bool {
        self.cache.make_way(bytes.max(WAY), &self.folder)
    }

    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        self.room()?;
        let (entry, details) = rows(&self.catalog, id)?;
        let seen = SeenAttributes {
            kind: Kind::File,
            size: row.size,
            modified_ns: row.modified_ns,
            changed_ns: entry.changed_ns.max(row.modified_ns),
            created_ns: details.created_ns,
            mode: entry.mode,
            owner: entry.owner,
            links: entry.links,
            device: details.device,
            version: staged_version(row).as_bytes().into(),
            identity: details.identity,
        };
        let put = match bytes {
            Some(bytes) => self.catalog.stage_with(id, &row.encode(), bytes, Some(seen)),
            None => self.catalog.stage(id, &row.encode(), Some(seen), true),
        };
        put.map(drop).map_err(Error::from_catalog)
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        self.catalog.staged_bytes(id).map_err(Error::from_catalog)
    }

    fn rows(&self) -> Result<(), Error> {
        self.catalog.sync().map_err(Error::from_catalog)
    }

    fn losses(&self) -> u64 {
        self.catalog.losses()
    }
}

/// Names a state of a staged file, which no source has.
pub(super) fn staged_version(row: &Row) -> Version {
    let parts = [row.number, row.size, row.modified_ns as u64];
    let mut name = b"staged here ".to_vec();
    for part in parts {
        name.extend_from_slice(&part.to_le_bytes());
    }
    Version::from_id(&name)
}
