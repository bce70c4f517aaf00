//! One backend under test: its server, what that server cannot do, and short ways to ask.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use manifold_backends::{
    Backend, Child, Error, ErrorKind, Limits, Metadata, ObjectPath, Presence, Result, Secret, SourceSpec, connect,
};
use manifold_tests::servers::{Apache, Azurite, FakeGcs, Folder, Nginx, Samba, SeaweedFs, Server, Sshd, Vsftpd};

/// Long enough that only a hang exceeds it.
const PATIENCE: Duration = Duration::from_mins(2);

/// One backend and its server.
pub(crate) struct Subject {
    name: &'static str,
    pub(crate) server: Arc<dyn Server>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) traits: Traits,
    /// A setting that makes the server refuse whoever comes with it.
    strange: Option<(&'static str, String)>,
}

/// What a server or its protocol can do, where that is not the same for all.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a server")]
pub(crate) struct Traits {
    /// Names that the server, or the way to it, cannot hold.
    pub(crate) impossible: &'static [&'static [u8]],
    /// Whether it keeps empty directories.
    pub(crate) empty_directories: bool,
    /// Whether the objects are files that can be sparse.
    pub(crate) sparse: bool,
    /// Whether it holds names that are not UTF-8, as plain files.
    pub(crate) raw_names: bool,
    /// Whether it tells links, FIFOs and modes.
    pub(crate) file_types: bool,
    /// Whether it tells links at least.
    pub(crate) links: bool,
    /// A secret that is wrong, and its key; `None` if the server asks for none.
    pub(crate) wrong_secret: Option<(&'static str, &'static str)>,
    /// What comes after the URI's authority or container to name a folder that is not there.
    pub(crate) missing_source: MissingSource,
    /// What a put onto a full disk is refused as, where such a disk can be had.
    pub(crate) when_full: Option<ErrorKind>,
    /// Whether it renames no directories, though its kind does.
    pub(crate) directories_stay: bool,
    /// Whether it holds objects whose name ends in a slash, which stand for empty directories of a store.
    pub(crate) markers: bool,
    /// Whether it may lose what it acknowledged when it is killed: some emulators write late.
    pub(crate) forgets: bool,
    /// Whether it may name two puts of the same moment by one version.
    pub(crate) names_by_the_clock: bool,
}

/// How to name a source that does not exist, on a server that does.
#[derive(Clone, Copy)]
pub(crate) enum MissingSource {
    /// Another bucket or container.
    Container(&'static str),
    /// A folder beneath the URI.
    Folder,
}

impl Traits {
    const SERVER: Self = Self {
        impossible: &[],
        empty_directories: true,
        sparse: true,
        raw_names: true,
        file_types: false,
        links: false,
        wrong_secret: None,
        missing_source: MissingSource::Folder,
        when_full: None,
        directories_stay: false,
        forgets: false,
        names_by_the_clock: false,
        markers: true,
    };
    const STORE: Self = Self {
        empty_directories: false,
        sparse: false,
        raw_names: false,
        missing_source: MissingSource::Container("no-such-container"),
        ..Self::SERVER
    };
}

impl Subject {
    pub(crate) async fn local() -> Self {
        let traits = Traits {
            file_types: true,
            links: true,
            ..Traits::SERVER
        };
        Self::new("a local folder", Folder::start(), traits).await
    }

    pub(crate) async fn smb() -> Self {
        // Samba leaves names out that are not Unicode.
        let traits = Traits {
            raw_names: false,
            wrong_secret: Some(("password", "wrong-word-of-the-tester")),
            missing_source: MissingSource::Container("no-such-share"),
            when_full: Some(ErrorKind::Full),
            ..Traits::SERVER
        };
        Self::new("SMB", Samba::start(), traits).await
    }

    pub(crate) async fn s3() -> Self {
        let wrong_secret = Some(("secret_access_key", "wrong-key-of-the-tester"));
        // SeaweedFS takes a backslash for a slash.
        let traits = Traits {
            impossible: &[b"back\\slash"],
            wrong_secret,
            ..Traits::STORE
        };
        Self::new("S3", SeaweedFs::start(), traits).await
    }

    pub(crate) async fn webdav() -> Self {
        let traits = Traits {
            wrong_secret: Some(("password", "wrong")),
            ..Traits::SERVER
        };
        Self::new("WebDAV", Apache::start(), traits).await
    }

    pub(crate) async fn webdav_without_etags() -> Self {
        // nginx hides what begins with a dot.
        let traits = Traits {
            impossible: &[b"...", b"..two dots", b".hidden"],
            ..Traits::SERVER
        };
        Self::new("WebDAV without tags", Nginx::start(), traits).await
    }

    pub(crate) async fn sftp() -> Self {
        let server = Sshd::start();
        let strange = Some(("key", server.strange_key().display().to_string()));
        let traits = Traits {
            file_types: true,
            links: true,
            when_full: Some(ErrorKind::Full),
            ..Traits::SERVER
        };
        Self {
            strange,
            ..Self::new("SFTP", server, traits).await
        }
    }

    pub(crate) async fn ftp() -> Self {
        // Listings tell minutes, and lines.
        let traits = Traits {
            links: true,
            impossible: &[b"new\nline", b"carriage\rreturn"],
            wrong_secret: Some(("password", "wrong")),
            ..Traits::SERVER
        };
        Self::new("FTP", Vsftpd::start(), traits).await
    }

    pub(crate) async fn azblob() -> Self {
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGg==";
        // So does Azure, everywhere.
        let wrong_secret = Some(("account_key", key));
        let traits = Traits {
            impossible: &[b"back\\slash"],
            wrong_secret,
            forgets: true,
            ..Traits::STORE
        };
        Self::new("Azure", Azurite::start_in_memory(), traits).await
    }

    pub(crate) async fn gcs() -> Self {
        // The emulator keeps objects as files, and adds to their names. Its generations are the microseconds of its clock, read before
        // puts wait for one another (fake-gcs-server, internal/backend/fs.go, `CreateObject`).
        let traits = Traits {
            impossible: &[&[b'x'; 255]],
            markers: false,
            names_by_the_clock: true,
            ..Traits::STORE
        };
        Self::new("Google Cloud Storage", FakeGcs::start(), traits).await
    }

    async fn new(name: &'static str, server: impl Server + 'static, traits: Traits) -> Self {
        Self {
            traits,
            ..Self::over(name, Arc::new(server)).await
        }
    }

    /// One over a server of the test's own.
    pub(crate) async fn over(name: &'static str, server: Arc<dyn Server>) -> Self {
        let backend = connect_to(&server.uri(), &server.settings(), &server.secrets())
            .await
            .expect("connect");
        Self {
            name,
            server,
            backend,
            traits: Traits::SERVER,
            strange: None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Connects to the same server as someone whom it refuses, and gives what must not be told with it; `None` if it
    /// refuses nobody.
    pub(crate) async fn connect_as_stranger(&self) -> Option<(Result<Arc<dyn Backend>>, &str)> {
        let (mut settings, mut secrets) = (self.server.settings(), self.server.secrets());
        let never_told = match (&self.strange, self.traits.wrong_secret) {
            (Some((key, value)), _) => {
                settings.insert((*key).to_owned(), value.clone());
                "PRIVATE KEY"
            }
            (None, Some((key, value))) => {
                secrets.insert(key.to_owned(), value.to_owned());
                value
            }
            (None, None) => return None,
        };
        Some((connect_to(&self.server.uri(), &settings, &secrets).await, never_told))
    }

    /// Connects to the same server under another URI.
    pub(crate) async fn connect_at(&self, uri: &str) -> Result<Arc<dyn Backend>> {
        connect_to(uri, &self.server.settings(), &self.server.secrets()).await
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        self.server.put(path.as_bytes(), bytes);
    }

    /// Gives the attributes of what must be there.
    pub(crate) async fn stat(&self, path: &[u8]) -> Metadata {
        let answer = within(self.backend.stat(&ObjectPath::from_bytes(path))).await;
        found(answer, &format!("stat {}", path.escape_ascii()))
    }

    /// Lists what must be there, to the end.
    pub(crate) async fn list(&self, path: &[u8]) -> Vec<Child> {
        let what = format!("list {}", path.escape_ascii());
        let pages = found(within(self.backend.list(&ObjectPath::from_bytes(path))).await, &what);
        let batches: Vec<Vec<Child>> = within(pages.try_collect())
            .await
            .unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        batches.into_iter().flatten().collect()
    }

    /// Reads a range of what must be there, in the version it has now.
    pub(crate) async fn read(&self, path: &[u8], range: std::ops::Range<u64>) -> Vec<u8> {
        let version = self.stat(path).await.version;
        let what = format!("read {} {range:?}", path.escape_ascii());
        let answer = within(self.backend.read(&ObjectPath::from_bytes(path), &version, range)).await;
        found(answer, &what).to_vec()
    }
}

/// Ends a test that hangs; no property depends on how long anything takes.
pub(crate) async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("it never ended")
}

pub(crate) fn found<T>(answer: Result<Presence<T>>, what: &str) -> T {
    match answer {
        Ok(Presence::Found(found)) => found,
        Ok(Presence::Absent) => panic!("{what}: absent"),
        Err(error) => panic!("{what}: {}", told(&error)),
    }
}

/// Gives an error with its kind.
pub(crate) fn told(error: &Error) -> String {
    format!("{:?}: {error}", error.kind())
}

async fn connect_to(
    uri: &str,
    settings: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Arc<dyn Backend>> {
    let spec = SourceSpec::parse(uri, settings).expect("the source is described well");
    let secrets = secrets
        .iter()
        .map(|(key, value)| (key.clone(), Secret::new(value.clone())))
        .collect();
    connect(&spec, &secrets, &Limits::default()).await
}
