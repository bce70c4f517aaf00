//! Where a source really lies: a folder of this machine, or a server behind a proxy; it is changed past the mount, and falls
//! ill on cue. A server is started once, and emptied for each run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use manifold_tests::mounted::Library;
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Apache, Behind, Folder, Nginx, Samba, SeaweedFs, Server, Sshd};

use crate::operation::Ailment;

/// What kind of source it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Smb,
    S3,
    Webdav,
    WebdavNginx,
    Sftp,
}

impl Kind {
    /// Tells whether two versions of one size, written within one second, look the same at the source.
    pub(crate) fn needs_sizes(self) -> bool {
        matches!(self, Self::WebdavNginx | Self::Sftp)
    }

    /// Tells whether directories are there by themselves, and can be renamed and empty.
    pub(crate) fn has_directories(self) -> bool {
        self != Self::S3
    }

    /// Tells whether a rename is recognised by the inode that the source tells.
    pub(crate) fn tells_inodes(self) -> bool {
        matches!(self, Self::Local | Self::Smb)
    }

    /// Gives how fine the source tells times, in nanoseconds; `None` where the time is not that of the file on the disk: a
    /// bucket has its own, and Samba tells of a file that a client holds open what it was when that client opened it.
    pub(crate) fn time_step_ns(self) -> Option<i128> {
        match self {
            Self::Local => Some(1),
            Self::Webdav | Self::WebdavNginx | Self::Sftp => Some(1_000_000_000),
            Self::Smb | Self::S3 => None,
        }
    }
}

/// One source.
pub(crate) struct Ground {
    pub(crate) kind: Kind,
    place: Place,
    /// The objects of a source that is no folder.
    objects: Mutex<BTreeSet<String>>,
}

enum Place {
    Here(Folder),
    Behind(Box<Behind>),
}

impl Ground {
    /// Starts a source.
    pub(crate) fn start(kind: Kind) -> Self {
        let place = match kind {
            Kind::Local => Place::Here(Folder::start()),
            Kind::Smb => Place::behind(Samba::start()),
            Kind::S3 => Place::behind(SeaweedFs::start()),
            Kind::Webdav => Place::behind(Apache::start()),
            Kind::WebdavNginx => Place::behind(Nginx::start()),
            Kind::Sftp => Place::behind(Sshd::start()),
        };
        Self {
            kind,
            place,
            objects: Mutex::default(),
        }
    }

    fn server(&self) -> &dyn Server {
        match &self.place {
            Place::Here(folder) => folder,
            Place::Behind(behind) => behind.as_ref(),
        }
    }

    /// Adds it to a library.
    pub(crate) fn add_to(&self, library: &mut Library, attach: &str, settings: &[(&str, &str)]) {
        library.add_server_with(self.server(), attach, settings);
    }

    /// Makes it empty and well.
    pub(crate) fn clear(&self) {
        if let Place::Behind(behind) = &self.place {
            behind.line().heal();
        }
        let Some(root) = self.server().root() else {
            let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            for path in std::mem::take(&mut *objects) {
                self.server().remove(path.as_bytes());
            }
            return;
        };
        for entry in fs::read_dir(root).expect("list a source") {
            let path = entry.expect("list a source").path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
        }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.server().file(path.as_bytes())
    }

    fn has_files(&self) -> bool {
        self.server().root().is_some()
    }

    fn note(&self, path: &str, is_there: bool) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            objects.insert(path.to_owned());
        } else {
            objects.remove(path);
        }
    }

    /// Writes a file; one that is there is written anew in place.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        self.server().put(path.as_bytes(), bytes);
        if !self.has_files() {
            self.note(path, true);
        }
    }

    /// Makes a file longer or shorter, so that it comes to hold `bytes`, of which it holds the first `same` already.
    pub(crate) fn resize(&self, path: &str, bytes: &[u8], same: usize) {
        if !self.has_files() {
            return self.write(path, bytes);
        }
        let file = File::options().write(true).open(self.file(path));
        let changed = file.and_then(|file| {
            if bytes.len() == same {
                file.set_len(same as u64)
            } else {
                file.write_all_at(&bytes[same..], same as u64)
            }
        });
        changed.unwrap_or_else(|error| panic!("resize {path:?}: {error}"));
    }

    /// Renames a file or directory; what stands in the new place is replaced.
    pub(crate) fn rename(&self, from: &str, to: &str, bytes: Option<&[u8]>) {
        if self.has_files() {
            let renamed = fs::rename(self.file(from), self.file(to));
            renamed.unwrap_or_else(|error| panic!("rename {from:?} to {to:?}: {error}"));
        } else {
            self.write(to, bytes.expect("objects alone can be renamed here"));
            self.remove(from);
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) {
        self.server().remove(path.as_bytes());
        if !self.has_files() {
            self.note(path, false);
        }
    }

    /// Makes a directory.
    pub(crate) fn make_directory(&self, path: &str) {
        self.server().make_directory(path.as_bytes());
    }

    /// Removes a directory with all that is in it.
    pub(crate) fn remove_directory(&self, path: &str) {
        let removed = fs::remove_dir_all(self.file(path));
        removed.unwrap_or_else(|error| panic!("remove {path:?}: {error}"));
    }

    /// Gives when a file or directory was modified, in nanoseconds, as the source's own disk has it.
    pub(crate) fn modified_ns(&self, path: &str) -> i128 {
        let metadata = fs::symlink_metadata(self.file(path)).expect("the source holds it");
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
    }

    /// Gives the source's ailments their turn. It holds when this returns.
    pub(crate) fn fall_ill(&self, ailment: Ailment) {
        match &self.place {
            Place::Here(folder) => folder.kill9(),
            Place::Behind(behind) => behind.line().fail(match ailment {
                Ailment::Refuses => Fault::Refuse,
                Ailment::Silent => Fault::Silence,
                Ailment::HangsUp => Fault::Cut { after: 3_000 },
                Ailment::Resets => Fault::Reset,
                Ailment::Stalls => Fault::Stall { after: 3_000 },
            }),
        }
    }

    /// Makes it well again.
    pub(crate) fn get_well(&self) {
        match &self.place {
            Place::Here(folder) => folder.restart(),
            Place::Behind(behind) => behind.line().heal(),
        }
    }
}

impl Place {
    fn behind(server: impl Server + 'static) -> Self {
        Self::Behind(Box::new(Behind::proxy(server)))
    }
}
