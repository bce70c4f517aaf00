//! A folder of this machine, in the place of a server. Its "crash" is that of a disk: it is gone from its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Daemon, Server, data_folder, subfolder};

/// A folder that can go away and come back.
pub struct Folder {
    root: PathBuf,
    away: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Folder {
    /// Makes an empty folder.
    pub fn start() -> Self {
        let folder = data_folder();
        let root = subfolder(folder.path(), "files");
        let away = folder.path().join("away");
        Self {
            root,
            away,
            _temporary: folder,
        }
    }
}

impl Server for Folder {
    fn uri(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn daemon(&self) -> &Daemon {
        panic!("a folder has no process")
    }

    fn can_be_paused(&self) -> bool {
        false
    }

    /// Takes the folder away and leaves an empty one, as an unmounted disk leaves its mount point.
    fn kill9(&self) {
        fs::rename(&self.root, &self.away).expect("take the folder away");
        fs::create_dir(&self.root).expect("leave an empty folder");
    }

    fn restart(&self) {
        fs::remove_dir(&self.root).expect("remove the empty folder");
        fs::rename(&self.away, &self.root).expect("bring the folder back");
    }
}
