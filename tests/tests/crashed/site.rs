//! A library over one source and another within it, between which files are moved, whose daemon is killed; or the power goes on the
//! disk that keeps the library.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;
use manifold_tests::lossy::Lossy;
use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Apache, Samba, SeaweedFs, Server, Sshd};
use serde_json::Value;

use crate::manifest::Manifest;

/// Where another source is attached, beneath the first.
pub(crate) const ELSEWHERE: &str = "elsewhere";
const ELSEWHERE_AT: &str = "/s/elsewhere";
/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(2);
/// What a scan says that came between too many uploads.
const OVERTAKEN: &str = "was changed through the mount each time it was looked at";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Smb,
    S3,
    Webdav,
    Sftp,
}

/// What holds the files.
enum Source {
    Folder(tempfile::TempDir),
    Server(Box<dyn Server>),
}

/// How the daemon goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What it has written stays.
    Kill,
    /// What it has not synced is lost, by chance.
    PowerCut,
}

pub(crate) struct Site {
    /// The library's disk, where its power goes. Dropped first.
    disk: Option<Lossy>,
    source: Source,
    /// Another source, within the first.
    elsewhere: Option<Source>,
    library: Library,
}

impl Site {
    pub(crate) fn open(kind: Kind, end: End) -> Self {
        let source = match kind {
            Kind::Local => Source::Folder(tempfile::tempdir().expect("make a folder")),
            Kind::Smb => Source::Server(Box::new(Samba::start())),
            Kind::S3 => Source::Server(Box::new(SeaweedFs::start())),
            Kind::Webdav => Source::Server(Box::new(Apache::start())),
            Kind::Sftp => Source::Server(Box::new(Sshd::start())),
        };
        let mut library = Library::new(User::Current);
        let disk = (end == End::PowerCut).then(|| Lossy::mount(&library.state()));
        match &source {
            Source::Folder(folder) => library.add_folder(folder.path(), "/s"),
            Source::Server(server) => library.add_server_with(&**server, "/s", &[("write", "back")]),
        }
        let elsewhere = match kind {
            Kind::Local => None,
            Kind::Smb | Kind::S3 => Some(Source::Folder(tempfile::tempdir().expect("make a folder"))),
            Kind::Webdav => Some(Source::Server(Box::new(Sshd::start()))),
            Kind::Sftp => Some(Source::Server(Box::new(SeaweedFs::start()))),
        };
        match &elsewhere {
            None => {}
            Some(Source::Folder(folder)) => library.add_folder(folder.path(), ELSEWHERE_AT),
            Some(Source::Server(server)) => library.add_server_with(&**server, ELSEWHERE_AT, &[("write", "back")]),
        }
        library.mount();
        if let Some(disk) = &disk {
            disk.sync();
        }
        Self {
            disk,
            source,
            elsewhere,
            library,
        }
    }

    /// Tells whether there is another source within the first.
    pub(crate) fn has_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Gives the source's folder in the mount.
    pub(crate) fn folder(&self) -> PathBuf {
        self.library.at().join("s")
    }

    /// Kills the daemon.
    pub(crate) fn kill(&mut self) {
        self.library.kill9();
    }

    /// Mounts the library anew, after the power was gone if that is how the daemon goes.
    pub(crate) fn mount(&mut self, chance: &mut Chance) {
        if let Some(disk) = &self.disk {
            let (pages, names) = disk.cut(chance);
            println!("{pages} pages and {names} names were lost");
        }
        self.library.mount();
        if let Source::Folder(_) = self.source {
            // What the catalog had not committed it learns from the disk again.
            self.scan("/s");
        }
        if let Some(Source::Folder(_)) = self.elsewhere {
            self.scan(ELSEWHERE_AT);
        }
    }

    /// Has the source listed. Where uploads arrive in a directory each time that it is looked at, it is looked at again.
    fn scan(&self, path: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let scanned = self.library.command().args(["scan", path]).output();
            let scanned = scanned.expect("run manifold");
            if scanned.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&scanned.stderr);
            assert!(
                said.contains(OVERTAKEN),
                "the scan failed: {said}\n{}",
                self.library.log()
            );
            assert!(Instant::now() < end, "it is never scanned: {said}");
        }
    }

    /// Makes sure that a folder is as the manifest says.
    fn is_as(&self, manifest: &Manifest, folder: &Path, place: &str, after_crash: bool) {
        let differences = manifest.differences(folder, after_crash);
        assert!(
            differences.is_empty(),
            "{place}:\n{}\n{}\n{}",
            differences.join("\n"),
            self.uploads(),
            self.library.log()
        );
    }

    /// Makes sure that the mount is as the manifest says, at once after a crash.
    pub(crate) fn is_whole(&self, manifest: &Manifest) {
        manifest.end_life();
        self.is_as(manifest, &self.folder(), "in the mount", true);
        if matches!(self.source, Source::Server(_)) {
            self.scan("/s");
            self.scan(ELSEWHERE_AT);
            self.is_as(manifest, &self.folder(), "in the mount, as listed", false);
        }
        manifest.settle_crossings(&self.folder());
    }

    /// Waits until all is uploaded, and makes sure that the source is as the manifest says, for whoever has never seen it.
    pub(crate) fn look(&self, manifest: &Manifest) {
        manifest.remove_doubts(&self.folder());
        match &self.source {
            Source::Folder(folder) => self.is_as(manifest, folder.path(), "in the folder beneath", false),
            Source::Server(server) => {
                self.until_uploaded(manifest);
                let mut library = Library::new(User::Current);
                library.add_server(&**server, "/s");
                match &self.elsewhere {
                    None => {}
                    Some(Source::Folder(folder)) => library.add_folder(folder.path(), ELSEWHERE_AT),
                    Some(Source::Server(server)) => library.add_server(&**server, ELSEWHERE_AT),
                }
                library.mount();
                self.is_as(manifest, &library.at().join("s"), "at the source", false);
                library.unmount();
            }
        }
    }

    fn until_uploaded(&self, manifest: &Manifest) {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = expect_success(self.library.command().args(["uploads", "--json"]));
            let uploads: Value = serde_json::from_str(&said).expect("JSON");
            for conflict in uploads["conflicts"].as_array().expect("a list") {
                let path = conflict["path"].as_str().and_then(|path| path.strip_prefix("/s/"));
                assert!(
                    path.is_some_and(|path| manifest.may_be_in_conflict(path)),
                    "nobody else writes: {conflict}"
                );
            }
            let said = expect_success(self.library.command().args(["status", "--json"]));
            let status: Value = serde_json::from_str(&said).expect("JSON");
            if status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0 {
                return;
            }
            assert!(
                Instant::now() < end,
                "not uploaded: {status:#}\n{}\n{}",
                self.uploads(),
                self.library.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn uploads(&self) -> String {
        expect_success(self.library.command().arg("uploads"))
    }

    pub(crate) fn end(mut self) {
        self.library.unmount();
    }
}
