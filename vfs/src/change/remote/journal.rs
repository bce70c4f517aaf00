//! What makes staged files survive a crash: the disk's own synchronisation, and the catalog's journal.

use std::fs::File;
use std::io;
use std::sync::Arc;

use manifold_backends::Version;
use manifold_catalog::{Catalog, EntryId, Kind, SeenAttributes};

use crate::Error;
use crate::fetch::object::rows;
use crate::staging::Durability;
use crate::staging::row::Row;

/// The catalog's journal, and this machine's disk.
pub(super) struct Journal(pub(super) Arc<Catalog>);

impl Durability for Journal {
    fn data(&self, _number: u64, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn folder(&self, folder: &File) -> io::Result<()> {
        folder.sync_all()
    }

    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        let (entry, details) = rows(&self.0, id)?;
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
            Some(bytes) => self.0.stage_with(id, &row.encode(), bytes, Some(seen)),
            None => self.0.stage(id, &row.encode(), Some(seen), true),
        };
        put.map(drop).map_err(Error::from_catalog)
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        self.0.staged_bytes(id).map_err(Error::from_catalog)
    }

    fn rows(&self) -> Result<(), Error> {
        self.0.sync().map_err(Error::from_catalog)
    }

    fn losses(&self) -> u64 {
        self.0.losses()
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
