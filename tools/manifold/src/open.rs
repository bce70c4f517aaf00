//! An open library: its catalog, what fills it, the file system over it, and its sources' connections.
//!
//! The one place that puts the rooms together; the daemon and the commands that work without one both use it. Always true:
//! whoever has an [`OpenLibrary`] holds the library's lock, and keeps it until the process ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_backends::local::LocalBackend;
use manifold_backends::{SecretStore, StoreOptions};
use manifold_catalog::{Catalog, OpenError, SourceId, SourceRecord};
use manifold_index::{HashSettings, IndexSettings, Indexer};
use manifold_vfs::{CrossSourceRename, Vfs};
use tokio::runtime::Handle;

use crate::connections::{Connections, limits, parse_spec};
use crate::events::Hub;
use crate::failure::{Failure, Result};
use crate::library::Library;
use crate::library::lock::{Lock, Role};
use crate::mounts;
use crate::rescan::Rescans;
use crate::settings::{Rename, Settings, UnionSettings};
use crate::time::now_ns;
use crate::uploads;

/// How long the keyring may take to answer. It may ask the person to unlock it.
const KEYRING_PATIENCE: Duration = Duration::from_secs(30);
/// How long a catalog may still be held by a process that has let go of the library's lock and is about to end.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// An open library.
#[derive(Debug)]
pub(crate) struct OpenLibrary {
    pub(crate) library: Library,
    pub(crate) settings: Settings,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) indexer: Arc<Indexer>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) connections: Arc<Connections>,
    /// What happens, for those who follow it.
    pub(crate) events: Hub,
    pub(crate) rescans: Rescans,
    /// Whether the disk cache was started.
    pub(crate) with_cache: bool,
    role: Role,
    _lock: Lock,
}

impl OpenLibrary {
    /// Opens a library whose lock the caller has taken in that role. No source is asked for anything yet, but a folder of this machine
    /// for a file that was being moved to it.
    ///
    /// `with_cache` starts the disk cache too, which those that only look at the tree do without.
    pub(crate) fn open(
        library: Library,
        settings: Settings,
        lock: Lock,
        role: Role,
        with_cache: bool,
    ) -> Result<Arc<Self>> {
        let catalog = Arc::new(open_catalog(&library)?);
        let runtime = Handle::current();
        let index_settings = IndexSettings {
            scan_concurrency: settings.scan.concurrency as usize,
            scan_rate: settings.scan.rate,
            stat_timeout: settings.deadlines.metadata,
            keep_fresh: role == Role::Daemon,
            scan_every: settings.scan.every,
            skip_paths: kept_out(&library)?,
            ..IndexSettings::default()
        };
        let indexer = Indexer::new(Arc::clone(&catalog), runtime.clone(), index_settings, Arc::new(now_ns));
        let cache_directory = (with_cache && settings.cache.disk_bytes > 0).then(|| library.cache_folder(&settings));
        let vfs_settings = manifold_vfs::Settings {
            data_deadline: settings.deadlines.data,
            metadata_deadline: settings.deadlines.metadata,
            memory_bytes: settings.cache.memory_bytes,
            cache_bytes: if cache_directory.is_some() {
                settings.cache.disk_bytes
            } else {
                0
            },
            pinned_bytes: settings.cache.pinned_bytes,
            cache_directory,
            hash_cached: settings.hash.cached,
            rename: match settings.mount.rename {
                Rename::Copy => CrossSourceRename::Copy,
                Rename::Strict => CrossSourceRename::Strict,
            },
            ..manifold_vfs::Settings::default()
        };
        let vfs = Vfs::new(Arc::clone(&catalog), Arc::clone(&indexer), vfs_settings, runtime)
            .map_err(|error| Failure::from(error).about("cannot start the file system"))?;
        let unions = settings.unions.iter().map(UnionSettings::to_union);
        let unions = unions.collect::<Result<_, _>>().map_err(Failure::new)?;
        vfs.set_unions(unions)
            .map_err(|error| Failure::from(error).about("cannot join the sources of a union"))?;
        let events = Hub::new();
        if role == Role::Daemon {
            resume_renames(&catalog, &vfs, &settings)?;
            vfs.accept_writes(uploads::write_settings(&library, &settings, &events))
                .map_err(|error| Failure::from(error).about("cannot start the staging area"))?;
        }
        let connections = Connections::new(
            Arc::clone(&indexer),
            Arc::clone(&vfs),
            secret_store(&library, &settings),
            &settings,
        );
        Ok(Arc::new(Self {
            library,
            settings,
            catalog,
            indexer,
            vfs,
            connections,
            events,
            rescans: Rescans::default(),
            with_cache,
            role,
            _lock: lock,
        }))
    }

    /// Tells whether sources are kept connected here, as a daemon does.
    pub(crate) fn keeps_connections(&self) -> bool {
        self.role == Role::Daemon
    }

    /// Sees to renames from or to a source that is about to leave the library. Gives the number of those that are under way.
    pub(crate) fn settle_renames_of(&self, id: SourceId) -> Result<u64> {
        if self.catalog.crossings()?.is_empty() {
            return Ok(0);
        }
        let settled = self.vfs.settle_renames_of(id, folders(&self.catalog, &self.settings)?);
        settled.map_err(|error| Failure::from(error).about(GOING_ON))
    }

    /// Learns in the background what files hold that may have copies, as the settings say.
    pub(crate) fn hash_in_background(&self) {
        let hash = &self.settings.hash;
        self.indexer.hash_in_background(HashSettings {
            local: hash.local,
            remote: hash.remote,
            rate: hash.rate,
        });
    }

    /// Lists the sources in the order in which they were added.
    pub(crate) fn sources(&self) -> Result<Vec<SourceRecord>> {
        Ok(self.catalog.sources()?)
    }

    /// Ends what is under way, and makes everything durable.
    pub(crate) async fn close(&self) -> Result<()> {
        self.vfs.stop_keeping_pins();
        self.vfs.stop_uploads().await;
        self.connections.stop();
        self.indexer.stop().await;
        let (catalog, vfs) = (Arc::clone(&self.catalog), Arc::clone(&self.vfs));
        let synced = tokio::task::spawn_blocking(move || {
            vfs.cache().settle();
            catalog.sync()
        })
        .await;
        match synced {
            Ok(synced) => Ok(synced?),
            Err(error) => Err(Failure::new(format!("cannot make the catalog durable: {error}"))),
        }
    }
}

/// Goes on with what the end of another daemon has broken off in folders of this machine, before anybody sees half of it.
fn resume_renames(catalog: &Catalog, vfs: &Vfs, settings: &Settings) -> Result<()> {
    if catalog.crossings()?.is_empty() {
        return Ok(());
    }
    vfs.resume_renames(folders(catalog, settings)?)
        .map_err(|error| Failure::from(error).about(GOING_ON))
}

/// What fails where renames that were broken off cannot be gone on with.
const GOING_ON: &str = "cannot go on with renames that were broken off";

/// Gives what opens the folders of this machine, by their sources.
fn folders(catalog: &Catalog, settings: &Settings) -> Result<impl Fn(SourceId) -> Option<LocalBackend>> {
    let (sources, limits) = (catalog.sources()?, limits(settings));
    Ok(move |id| {
        let record = sources.iter().find(|record| record.id == id)?;
        let spec = parse_spec(record).ok()?;
        spec.local_root()?;
        LocalBackend::connect(&spec, &limits).ok()
    })
}

/// Gives the store of a library's secrets.
pub(crate) fn secret_store(library: &Library, settings: &Settings) -> SecretStore {
    SecretStore::new(StoreOptions {
        file: library.secrets_file(),
        key_file: library.secrets_key(),
        keyring: settings.secrets.keyring.then_some(KEYRING_PATIENCE),
    })
}

fn open_catalog(library: &Library) -> Result<Catalog> {
    let since = Instant::now();
    loop {
        match Catalog::open(&library.catalog_file(), manifold_catalog::Options::default()) {
            Err(OpenError::Locked { .. }) if since.elapsed() < LAST_BREATH => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return Ok(other?),
        }
    }
}

/// What no local source may lead into: mounts of Manifold, and the library's own state. Sources are checked when they are
/// added; what was mounted since then is kept out as well.
fn kept_out(library: &Library) -> Result<Vec<std::path::PathBuf>> {
    let mut paths: Vec<_> = mounts::ours()?.into_iter().map(|mount| mount.point).collect();
    paths.push(mounts::real_path(library.state()).unwrap_or_else(|_| library.state().to_owned()));
    Ok(paths)
}
