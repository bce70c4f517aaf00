//! A disk that loses what was not synced when its power goes: a FUSE file system over a plain folder, which keeps what the folder
//! looked like when it was last synced.
//!
//! After [`Lossy::cut`], of the bytes that were written to a file since its last sync any may be as they were then, and its length
//! too; of the names that were made, changed and removed since their directories were synced, the last ones may be as they were,
//! in the order in which a journal would have them. What was synced is there.

mod disk;
mod fuse;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption, Session};
use tempfile::TempDir;

use crate::chance::Chance;
use disk::Disk;

/// Such a disk, mounted. It goes when this value is dropped.
pub struct Lossy {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
    _folder: TempDir,
}

impl Lossy {
    /// Mounts an empty disk.
    pub fn mount(at: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manifold-disk-")
            .tempdir()
            .expect("make a temporary folder");
        let disk = Arc::new(Mutex::new(Disk::new(folder.path())));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossy".to_owned())];
        let served = fuse::Served::new(Arc::clone(&disk));
        let session = Session::new(served, at, &config).and_then(Session::spawn);
        Self {
            disk,
            session: Some(session.expect("mount a file system, which needs /dev/fuse")),
            _folder: folder,
        }
    }

    /// Syncs everything.
    pub fn sync(&self) {
        self.disk().sync_all();
    }

    /// Takes the power away, and gives it back: how much of what was not synced is lost is decided by chance. Nobody may have
    /// a file open. Gives the number of pages and of names that were lost.
    pub fn cut(&self, chance: &mut Chance) -> (usize, usize) {
        self.disk().cut(chance)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Who still has something open there keeps it.
            let _busy = session.umount_and_join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn mounted() -> (TempDir, Lossy) {
        let at = TempDir::new().unwrap();
        let lossy = Lossy::mount(at.path());
        (at, lossy)
    }

    #[test]
    fn what_was_synced_is_there_and_anything_else_may_be_lost() {
        let (at, lossy) = mounted();
        let (mut bytes_lost, mut names_lost) = (0, 0);
        for seed in 0..40 {
            let (kept, other) = (
                at.path().join(format!("kept-{seed}")),
                at.path().join(format!("other-{seed}")),
            );
            fs::write(&kept, vec![1; 20_000]).unwrap();
            File::open(&kept).unwrap().sync_data().unwrap();
            File::open(at.path()).unwrap().sync_all().unwrap();
            let file = OpenOptions::new().write(true).open(&kept).unwrap();
            file.write_all_at(&[2; 9_000], 15_000).unwrap();
            file.set_len(10_000).unwrap();
            fs::write(&other, "other").unwrap();
            fs::rename(&kept, at.path().join("moved")).unwrap();
            drop(file);
            lossy.cut(&mut Chance::new(seed));
            let is_moved = !kept.exists();
            let now = fs::read(if is_moved { at.path().join("moved") } else { kept }).unwrap();
            assert!([10_000, 20_000].contains(&now.len()), "seed {seed}: {}", now.len());
            assert!(now[..10_000].iter().all(|byte| *byte == 1), "seed {seed}");
            assert!(now[10_000..].iter().all(|byte| [0, 1, 2].contains(byte)), "seed {seed}");
            assert!(other.exists() || !is_moved, "seed {seed}: in the order of a journal");
            bytes_lost += usize::from(now.len() == 20_000);
            names_lost += usize::from(!is_moved);
            lossy.sync();
        }
        assert!(
            (1..40).contains(&bytes_lost) && (1..40).contains(&names_lost),
            "{bytes_lost} {names_lost}"
        );
    }

    #[test]
    fn what_was_removed_and_not_synced_may_come_back() {
        let (at, lossy) = mounted();
        let mut came_back = 0;
        for seed in 0..20 {
            let file = at.path().join("file");
            File::create(&file).unwrap().write_all(b"bytes").unwrap();
            lossy.sync();
            fs::remove_file(&file).unwrap();
            lossy.cut(&mut Chance::new(seed));
            if file.exists() {
                assert_eq!(fs::read(&file).unwrap(), b"bytes");
                came_back += 1;
            }
        }
        assert!((1..20).contains(&came_back), "{came_back}");
    }
}
