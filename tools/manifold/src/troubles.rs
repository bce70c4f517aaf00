//! What is wrong on this machine, as `status` tells it: a full disk beneath the catalog or the cache, and a lost write-ahead log.

use std::path::Path;

use crate::control::status::{Trouble, TroubleWith};
use crate::library::Library;
use crate::open::OpenLibrary;

/// A disk with less room than this, in bytes, is as good as full: the catalog grows by as much at once.
const ROOM_MIN: u64 = 4 << 20;

impl OpenLibrary {
    /// Says what is wrong, the worst first. Tries to write to the catalog, and to the cache, where that failed the last time.
    pub(crate) fn machine_troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let state = self.library.state();
        let catalog = |message, hint| Trouble {
            with: TroubleWith::Catalog,
            message,
            hint,
        };
        let unwritten = self.catalog.why_unwritten();
        if is_full(state) {
            troubles.push(catalog(of_full_disk(state), AFTER_FULL_DISK.to_owned()));
        } else if let Some(why) = unwritten {
            troubles.push(catalog(
                format!("the catalog cannot be written, so that what is learnt of the sources is not kept: {why}"),
                format!("see to the disk, or the quota, of {}", state.display()),
            ));
        }
        if let Some(loss) = self.catalog.log_loss() {
            troubles.push(catalog(of_lost_log(&loss), after_lost_log(&self.library)));
        }
        if self.with_cache && self.settings.cache.disk_bytes > 0 {
            troubles.extend(self.trouble_of_cache());
        }
        troubles
    }

    fn trouble_of_cache(&self) -> Option<Trouble> {
        let folder = self.library.cache_folder(&self.settings);
        let (message, hint) = if is_full(&folder) {
            (
                format!(
                    "the disk of the cache is full ({}), so that nothing more is cached on it",
                    folder.display()
                ),
                "make room on it, or have the cache elsewhere (cache.directory)".to_owned(),
            )
        } else {
            let why = self.vfs.cache().why_disk_fails()?;
            (
                format!("the disk cache is not used: {why}"),
                format!("see to the disk, or the quota, of {}", folder.display()),
            )
        };
        Some(Trouble {
            with: TroubleWith::Cache,
            message,
            hint,
        })
    }
}

/// Says what it means that the disk of the catalog is full.
pub(crate) fn of_full_disk(state: &Path) -> String {
    format!(
        "the disk of the catalog is full ({}), so that what is learnt of the sources is not kept, and what is written to remote ones is \
         refused; what waits is uploaded all the same",
        state.display()
    )
}

/// What to do then.
pub(crate) const AFTER_FULL_DISK: &str = "make room on it";

/// Says what it means that the write-ahead log of the catalog was not as it should be.
pub(crate) fn of_lost_log(loss: &str) -> String {
    format!("what was saved through the mount just before it ended the last time may be lost: {loss}")
}

/// Says what to do then.
pub(crate) fn after_lost_log(library: &Library) -> String {
    let log = library.catalog_file().display().to_string() + "-wal";
    format!(
        "compare what was saved last with where it came from, and save again what is missing; then remove {log}-lost, which says so, and \
         {log}-damaged, which is the log as it was found, if that is there"
    )
}

/// Tells whether the disk of a folder has no room for this user. One that does not tell is not called full.
pub(crate) fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_MIN)
}
