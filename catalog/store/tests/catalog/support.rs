//! A catalog in a scratch folder, and short ways to write children down.

use std::path::PathBuf;
use std::time::Duration;

use manifold_catalog::{
    Catalog, Change, CheckReport, CompleteListing, EntryId, Hashed, Kind, NewChild, NewSource, Options, Pin, PolicyId,
    SeenAttributes, SourceRecord,
};

/// A folder with a catalog in it.
pub struct Scratch {
    pub folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("catalog.redb")
    }

    pub fn open(&self) -> Catalog {
        Catalog::open(&self.file(), options()).unwrap()
    }

    /// What a crash would leave of the open catalog.
    pub fn as_after_a_crash(&self) -> Self {
        let crashed = Self::new();
        std::fs::copy(self.file(), crashed.file()).unwrap();
        if self.log().exists() {
            std::fs::copy(self.log(), crashed.log()).unwrap();
        }
        crashed
    }

    /// The write-ahead log of the catalog.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("catalog.redb-wal")
    }

    /// Where it is told that the log was not as it should be.
    pub fn lost(&self) -> PathBuf {
        self.folder.path().join("catalog.redb-wal-lost")
    }

    /// Closes the catalog, looks at every row, and opens it again.
    pub fn checked(&self, catalog: Catalog) -> Catalog {
        self.check(catalog);
        self.open()
    }

    /// Closes the catalog and looks at every row.
    pub fn check(&self, catalog: Catalog) -> CheckReport {
        drop(catalog);
        Catalog::check(&self.file()).unwrap()
    }
}

pub fn options() -> Options {
    // Nothing becomes durable by the passing of time; only what promises to be durable is.
    Options {
        cache_bytes: 16 << 20,
        commit_interval: Duration::from_hours(1),
        reserve_bytes: 0,
    }
}

pub fn add_source(catalog: &Catalog, attach: &str) -> SourceRecord {
    let new = NewSource {
        name: format!("test://{attach}"),
        attach: attach.into(),
        spec: "{}".into(),
        options: "{}".into(),
    };
    catalog.add_source(new).unwrap()
}

pub fn seen(kind: Kind) -> SeenAttributes {
    SeenAttributes {
        kind,
        size: if kind == Kind::File { 10 } else { 0 },
        modified_ns: 1,
        changed_ns: 2,
        created_ns: None,
        mode: 0o640,
        owner: Some((1000, 100)),
        links: 1,
        device: 0,
        version: b"v1".as_slice().into(),
        identity: None,
    }
}

fn child(name: &str, kind: Kind) -> NewChild {
    NewChild {
        name: name.as_bytes().into(),
        raw_name: None,
        seen: seen(kind),
        adopt: None,
    }
}

pub fn file(name: &str) -> NewChild {
    child(name, Kind::File)
}

pub fn folder(name: &str) -> NewChild {
    child(name, Kind::Directory)
}

/// Changes a child on the way.
pub trait With {
    fn identity(self, identity: u8) -> Self;
    fn version(self, version: &str) -> Self;
    fn size(self, size: u64) -> Self;
    fn adopt(self, id: EntryId) -> Self;
}

impl With for NewChild {
    fn identity(mut self, identity: u8) -> Self {
        self.seen.identity = Some([identity; 16]);
        self
    }

    fn version(mut self, version: &str) -> Self {
        self.seen.version = version.as_bytes().into();
        self
    }

    fn size(mut self, size: u64) -> Self {
        self.seen.size = size;
        self
    }

    fn adopt(mut self, id: EntryId) -> Self {
        self.adopt = Some(id);
        self
    }
}

/// A listing that is taken now.
pub fn listing(catalog: &Catalog, children: Vec<NewChild>) -> CompleteListing {
    CompleteListing {
        children,
        listed_ns: 100,
        scan: 0,
        ticket: catalog.ticket(),
    }
}

/// What a file of the usual version was found to hold.
pub fn hashed(id: EntryId, size: u64, content: u8) -> Hashed {
    let version = b"v1".as_slice().into();
    Hashed {
        id,
        version,
        size,
        content: [content; 32],
    }
}

pub fn pin(id: EntryId, policy: Option<PolicyId>) -> Pin {
    Pin {
        id,
        recursive: true,
        policy,
        pinned_ns: 9,
    }
}

/// Applies a listing while nothing is open.
pub fn list(catalog: &Catalog, directory: EntryId, children: Vec<NewChild>) -> Vec<Change> {
    let listing = listing(catalog, children);
    catalog.apply_listing(directory, listing, &|_| false).unwrap()
}

pub fn id(catalog: &Catalog, path: &str) -> EntryId {
    let entry = catalog.resolve(path.as_bytes()).unwrap();
    entry.unwrap_or_else(|| panic!("{path} is not there")).id
}

pub fn names(catalog: &Catalog, directory: EntryId) -> Vec<String> {
    let children = catalog.children(directory, None, usize::MAX).unwrap();
    children
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect()
}
