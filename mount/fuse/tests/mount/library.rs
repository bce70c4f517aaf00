//! A library for one test: a catalog in a temporary folder, one source attached at `/data`, and the place to mount it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use manifold_backends::{Backend, local::LocalBackend};
use manifold_catalog::{Catalog, NewSource, SourceId};
use manifold_fuse::{Mount, MountError, MountOptions};
use manifold_index::{IndexSettings, Indexer};
use manifold_vfs::{Settings, Vfs};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long a test waits for what has to happen, before it fails. No test depends on how fast it does happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Library {
    // In the order in which they have to go.
    pub(crate) vfs: Arc<Vfs>,
    indexer: Arc<Indexer>,
    catalog: Arc<Catalog>,
    source: SourceId,
    pub(crate) runtime: Runtime,
    state: TempDir,
}

impl Library {
    /// A library whose `/data` is a folder of this machine.
    pub(crate) fn over_folder(folder: &Path) -> Self {
        Self::over(
            Arc::new(LocalBackend::open(folder).expect("the folder opens as a source")),
            Settings::default(),
        )
    }

    pub(crate) fn over(backend: Arc<dyn Backend>, settings: Settings) -> Self {
        let state = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let options = manifold_catalog::Options::default();
        let catalog = Catalog::open(&state.path().join("catalog.redb"), options).expect("a new catalog");
        let catalog = Arc::new(catalog);
        let new = NewSource {
            name: backend.name().to_owned(),
            attach: b"/data".to_vec(),
            spec: String::new(),
            options: String::new(),
        };
        let source = catalog.add_source(new).expect("the first source").id;
        let clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_nanos() as i64)
        };
        let indexer = Indexer::new(
            Arc::clone(&catalog),
            runtime.handle().clone(),
            IndexSettings::default(),
            Arc::new(clock),
        );
        indexer.attach(source, backend);
        let vfs = Vfs::new(
            Arc::clone(&catalog),
            Arc::clone(&indexer),
            settings,
            runtime.handle().clone(),
        )
        .expect("a file system");
        Self {
            vfs,
            indexer,
            catalog,
            source,
            runtime,
            state,
        }
    }

    /// Mounts it at a new directory.
    pub(crate) fn mount(&self, options: &MountOptions) -> Mounted {
        let at = self.state.path().join("mount");
        if !at.exists() {
            fs::create_dir(&at).expect("a mount point");
        }
        let mount = self
            .mount_at(&at, options)
            .unwrap_or_else(|error| panic!("these tests need to mount: {error}"));
        Mounted { mount, at }
    }

    pub(crate) fn mount_at(&self, at: &Path, options: &MountOptions) -> Result<Mount, MountError> {
        manifold_fuse::mount(Arc::clone(&self.vfs), at, options, self.runtime.handle().clone())
    }

    /// Lists a directory anew, as the watcher of a source does.
    pub(crate) fn relist(&self, path: &str) {
        let entry = self
            .catalog
            .resolve(path.as_bytes())
            .expect("the catalog reads")
            .expect("the directory is known");
        self.runtime
            .block_on(self.indexer.list_now(entry.id))
            .expect("the source lists");
    }

    /// Lets nothing be changed in the source.
    pub(crate) fn make_read_only(&self) {
        self.vfs.set_read_only(self.source, true);
    }

    /// Takes the source away, with all its entries.
    pub(crate) fn remove_source(&self) {
        self.indexer.detach(self.source);
        self.catalog
            .remove_source(self.source, manifold_catalog::WhenStaged::Refuse)
            .expect("the source goes");
    }
}

pub(crate) struct Mounted {
    pub(crate) mount: Mount,
    at: PathBuf,
}

impl Mounted {
    pub(crate) fn root(&self) -> &Path {
        &self.at
    }

    /// A path in the source.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join("data").join(name)
    }
}

/// Options without passthrough, so that the reading goes through us.
pub(crate) fn cached() -> MountOptions {
    MountOptions {
        passthrough: false,
        ..MountOptions::default()
    }
}

/// Waits until `holds`. For what the kernel does by itself, and tells nobody.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Bytes in which each place differs from its neighbours at any block size.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|place| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// The errno of a failed call.
#[track_caller]
pub(crate) fn errno<T>(result: std::io::Result<T>) -> rustix::io::Errno {
    match result {
        Ok(_) => panic!("it went well, and should not have"),
        Err(error) => rustix::io::Errno::from_io_error(&error).expect("the kernel's own error"),
    }
}

#[track_caller]
pub(crate) fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}
