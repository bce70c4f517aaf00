//! A library for tests: a real catalog and index in a folder of its own, over sources of the test's making.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use manifold_backends::Backend;
use manifold_catalog::{Catalog, NewSource, OpenError, Options};
use manifold_index::{IndexSettings, Indexer};
use manifold_vfs::{Access, EntryId, Error, NameMatch, Opened, Settings, SourceId, Vfs};
use tempfile::TempDir;

/// A library that is gone with its folder.
pub(crate) struct Library {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) indexer: Arc<Indexer>,
    pub(crate) now_ns: Arc<AtomicI64>,
    pub(crate) folder: TempDir,
}

impl Library {
    /// Makes a library over sources, each attached under a name in the root.
    pub(crate) fn new(sources: &[(&str, Arc<dyn Backend>)], settings: Settings) -> Self {
        Self::reopen(TempDir::new().unwrap(), sources, settings)
    }

    /// Ends as `kill -9` would, but for what the kernel keeps: nothing is uploaded, nothing is synced any more. Gives the folder.
    pub(crate) async fn die(self) -> TempDir {
        self.vfs.stop_uploads().await;
        self.indexer.stop().await;
        let Self {
            folder,
            vfs,
            catalog,
            indexer,
            ..
        } = self;
        drop((vfs, indexer, catalog));
        // Tasks that still end hold the catalog for a moment.
        let file = folder.path().join("catalog.redb");
        while let Err(error) = Catalog::open(&file, Options::default()) {
            assert!(matches!(error, OpenError::Locked { .. }), "{error}");
            tokio::task::yield_now().await;
        }
        folder
    }

    /// Opens a library in the folder of one that is closed.
    pub(crate) fn reopen(folder: TempDir, sources: &[(&str, Arc<dyn Backend>)], settings: Settings) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let catalog = Arc::new(Catalog::open(&folder.path().join("catalog.redb"), Options::default()).unwrap());
        let now_ns = Arc::new(AtomicI64::new(1_700_000_000_000_000_000));
        let clock = {
            let now_ns = Arc::clone(&now_ns);
            Arc::new(move || now_ns.load(Ordering::SeqCst))
        };
        let indexer = Indexer::new(Arc::clone(&catalog), runtime.clone(), IndexSettings::default(), clock);
        for (attach, backend) in sources {
            let there = catalog
                .sources()
                .unwrap()
                .into_iter()
                .find(|it| it.name == backend.name());
            let source = there.unwrap_or_else(|| {
                let (name, attach) = (backend.name().to_owned(), format!("/{attach}").into_bytes());
                catalog
                    .add_source(NewSource {
                        name,
                        attach,
                        spec: String::new(),
                        options: String::new(),
                    })
                    .unwrap()
            });
            indexer.attach(source.id, Arc::clone(backend));
        }
        let vfs = Vfs::new(Arc::clone(&catalog), Arc::clone(&indexer), settings, runtime).unwrap();
        Self {
            vfs,
            catalog,
            indexer,
            now_ns,
            folder,
        }
    }

    /// Walks a path from the root.
    pub(crate) async fn find(&self, path: &str) -> Result<EntryId, Error> {
        let mut id = EntryId::ROOT;
        for name in path.split('/').filter(|it| !it.is_empty()) {
            id = self
                .vfs
                .lookup(id, name.as_bytes(), NameMatch::Exact)
                .wait()
                .await?
                .1
                .id;
        }
        Ok(id)
    }

    /// Opens a file by path.
    pub(crate) async fn open(&self, path: &str) -> Opened {
        let id = self.find(path).await.unwrap();
        self.vfs.open(id, Access::Read).wait().await.unwrap()
    }

    /// Reads from an open file.
    pub(crate) async fn read(&self, file: &Opened, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.vfs.read(file.handle, offset, length).wait().await
    }

    /// Lists the source's directory again.
    pub(crate) async fn relist(&self, path: &str) {
        let id = self.find(path).await.unwrap();
        self.indexer.list_now(id).await.unwrap();
    }

    /// Names the first source.
    pub(crate) fn source(&self) -> SourceId {
        self.catalog.sources().unwrap()[0].id
    }
}
