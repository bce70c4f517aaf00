//! A library to index sources into, and what its catalog holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use manifold_backends::{Backend, ObjectPath};
use manifold_catalog::{Catalog, Entry, EntryId, NewSource, Options, SourceRecord};
use manifold_index::{Clock, IndexSettings, Indexer, ScanEnd};
use tokio::runtime::Handle;

use crate::support::{Scripted, Seen, Tree};

/// What a catalog holds of a source, by path.
pub(crate) type Known = BTreeMap<Vec<u8>, (EntryId, Seen)>;

/// A library in a folder of its own.
pub(crate) struct Library {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) indexer: Arc<Indexer>,
}

impl Library {
    pub(crate) fn open(folder: &Path) -> Self {
        Self::with(folder, IndexSettings::default())
    }

    pub(crate) fn with(folder: &Path, settings: IndexSettings) -> Self {
        // Each look at the clock is later than the one before, across reopenings too.
        let time = AtomicI64::new(LATER.fetch_add(1 << 40, Ordering::SeqCst));
        let clock = Arc::new(move || time.fetch_add(1, Ordering::SeqCst));
        Self::under(folder, settings, Options::default(), clock)
    }

    pub(crate) fn under(folder: &Path, settings: IndexSettings, options: Options, clock: Arc<dyn Clock>) -> Self {
        let catalog = Catalog::open(&folder.join("catalog.redb"), options).expect("the catalog opens");
        let catalog = Arc::new(catalog);
        let indexer = Indexer::new(Arc::clone(&catalog), Handle::current(), settings, clock);
        Self { catalog, indexer }
    }

    pub(crate) fn add(&self, attach: &str, backend: &Arc<Scripted>) -> SourceRecord {
        let record = self.record(attach, backend.name());
        self.indexer.attach(record.id, Arc::<Scripted>::clone(backend));
        record
    }

    pub(crate) fn record(&self, attach: &str, name: &str) -> SourceRecord {
        let new = NewSource {
            name: name.to_owned(),
            attach: attach.into(),
            spec: String::new(),
            options: String::new(),
        };
        self.catalog.add_source(new).expect("the source is new")
    }

    pub(crate) fn find(&self, path: &str) -> Option<Entry> {
        self.catalog.resolve(path.as_bytes()).expect("the catalog can be read")
    }

    /// The entry at a path that the test knows to be there.
    pub(crate) fn id(&self, path: &str) -> EntryId {
        self.find(path).unwrap_or_else(|| panic!("{path} is in the catalog")).id
    }

    pub(crate) async fn list(&self, path: &str) {
        self.indexer
            .list_now(self.id(path))
            .await
            .unwrap_or_else(|error| panic!("{path} can be listed: {error}"));
    }

    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let children = self
            .catalog
            .children(self.id(path), None, usize::MAX)
            .expect("the catalog can be read");
        children
            .iter()
            .map(|child| String::from_utf8_lossy(&child.name).into_owned())
            .collect()
    }

    /// What the catalog holds of a source.
    pub(crate) fn tree(&self, record: &SourceRecord) -> Tree {
        let known = self.known(record).into_iter();
        known.map(|(path, (_, seen))| (path, seen)).collect()
    }

    /// What the catalog holds of a source, with the ids.
    pub(crate) fn known(&self, record: &SourceRecord) -> Known {
        // Each directory is read by itself: what another thread commits meanwhile would be in one of them alone.
        let mut before = self.read(record);
        loop {
            let known = self.read(record);
            if known == before {
                return known;
            }
            before = known;
        }
    }

    fn read(&self, record: &SourceRecord) -> Known {
        let mut tree = Known::new();
        let mut directories = vec![(record.root, ObjectPath::root())];
        while let Some((directory, path)) = directories.pop() {
            let children = self.catalog.children(directory, None, usize::MAX);
            for child in children.expect("the catalog can be read") {
                // What goes while it is read is not there.
                let details = self.catalog.details(child.id).expect("the catalog can be read");
                let Some(details) = details.filter(|_| child.source == record.id) else {
                    continue;
                };
                let path = path.join(&details.raw_name);
                let is_directory = child.kind == manifold_catalog::Kind::Directory;
                if is_directory {
                    directories.push((child.id, path.clone()));
                }
                let seen = (is_directory, child.size, details.identity);
                tree.insert(path.as_bytes().to_vec(), (child.id, seen));
            }
        }
        tree
    }

    /// Scans to the end, and gives the number of directories that failed.
    pub(crate) async fn scan(&self, record: &SourceRecord) -> u64 {
        match self.indexer.scan(record.id).ended().await {
            ScanEnd::Finished { failed } => failed,
            other => panic!("the scan ends: {other:?}"),
        }
    }
}

static LATER: AtomicI64 = AtomicI64::new(1 << 40);
