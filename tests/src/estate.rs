//! One library over every kind of source, each behind something that can fail, and all holding the same known files.
//!
//! Always true: what a source holds never changes while an [`Estate`] lives, so that every change of what the mount shows is
//! a fault of the program.

mod ailment;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::mounted::{Library, User, expect_success};
use crate::network::Namespace;
use crate::proxy::{Fault, Proxy};
use crate::servers::{Apache, Azurite, Behind, FakeGcs, Folder, Nginx, Samba, SeaweedFs, Server, Sshd, Tls, Vsftpd};

pub use ailment::{AILMENTS, Ailment, Way};

/// Files of each source that are there to be read, each once.
pub const READS: usize = 64;
/// The size of each.
const READ_BYTES: usize = 300_000;
/// A file of zeroes at sources that are folders.
pub const LARGE: &str = "large.bin";
/// Its size.
pub const LARGE_BYTES: u64 = 4 << 30;
/// How long a library may take to be scanned, and a source to come back. It only ends tests that hang.
const PATIENCE: Duration = Duration::from_mins(2);

/// What kind of source a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder of this machine.
    Local,
    /// Samba.
    Smb,
    /// SeaweedFS.
    S3,
    /// Apache.
    Webdav,
    /// Apache over TLS.
    Webdavs,
    /// nginx.
    WebdavNginx,
    /// OpenSSH.
    Sftp,
    /// vsftpd.
    Ftp,
    /// Azurite.
    Azblob,
    /// fake-gcs-server.
    Gcs,
}

impl Kind {
    /// Every kind; adding one here adds it to every test.
    pub const ALL: [Self; 10] = [
        Self::Local,
        Self::Smb,
        Self::S3,
        Self::Webdav,
        Self::Webdavs,
        Self::WebdavNginx,
        Self::Sftp,
        Self::Ftp,
        Self::Azblob,
        Self::Gcs,
    ];

    /// Tells whether it is asked over HTTP in the clear, so that an answer can be given in the server's place.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Self::S3 | Self::Webdav | Self::WebdavNginx | Self::Azblob | Self::Gcs
        )
    }

    /// Gives the name of the folder that it is attached at.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "disk",
            Self::Smb => "nas",
            Self::S3 => "bucket",
            Self::Webdav => "dav",
            Self::Webdavs => "davs",
            Self::WebdavNginx => "dav2",
            Self::Sftp => "sftp",
            Self::Ftp => "ftp",
            Self::Azblob => "azure",
            Self::Gcs => "gcs",
        }
    }
}

/// One source of an estate.
pub struct Site {
    /// Its kind.
    pub kind: Kind,
    server: Reach,
    at: PathBuf,
    /// Settings of the source besides the server's own.
    settings: Vec<(&'static str, String)>,
    /// Holds what the settings name.
    _files: Option<tempfile::TempDir>,
}

enum Reach {
    Local(Folder),
    Remote {
        behind: Box<Behind>,
        /// Where packets can be lost.
        namespace: Option<Arc<Namespace>>,
        /// The server in the years after its certificate expired.
        expired: Option<Box<Apache>>,
    },
}

impl Site {
    fn start(kind: Kind, mount: &Path) -> Self {
        let server = match kind {
            Kind::Local => Reach::Local(Folder::start()),
            Kind::Smb => Reach::remote(Samba::start()),
            Kind::S3 => Reach::remote(SeaweedFs::start()),
            Kind::Webdav => Reach::remote(Apache::start()),
            Kind::Webdavs => return Self::start_tls(mount),
            Kind::WebdavNginx => Reach::remote(Nginx::start()),
            Kind::Sftp => Reach::remote(Sshd::start()),
            Kind::Ftp => Reach::remote(Vsftpd::start()),
            Kind::Azblob => Reach::remote(Azurite::start()),
            Kind::Gcs => Reach::remote(FakeGcs::start()),
        };
        let site = Self {
            kind,
            server,
            at: mount.join(kind.name()),
            settings: Vec::new(),
            _files: None,
        };
        site.fill();
        site
    }

    /// Starts Apache over TLS, and its like with a certificate that has expired; the authorities of both are trusted.
    fn start_tls(mount: &Path) -> Self {
        let (server, late) = (Apache::start_tls(Tls::Signed), Apache::start_tls(Tls::Expired));
        let files = tempfile::tempdir().expect("make a temporary folder");
        let trusted = files.path().join("authorities.pem");
        let authorities = [&server, &late].map(|it| fs::read_to_string(it.ca_file()).expect("read a certificate"));
        fs::write(&trusted, authorities.concat()).expect("write the certificates");
        // A certificate names an address, so that this one stays where it is.
        let site = Self {
            kind: Kind::Webdavs,
            server: Reach::Remote {
                behind: Box::new(Behind::proxy(server)),
                namespace: None,
                expired: Some(Box::new(late)),
            },
            at: mount.join(Kind::Webdavs.name()),
            settings: vec![("ca_file", trusted.display().to_string())],
            _files: Some(files),
        };
        site.fill();
        site
    }

    /// Gives the server itself.
    pub fn server(&self) -> &dyn Server {
        match &self.server {
            Reach::Local(folder) => folder,
            Reach::Remote { behind, .. } => behind.as_ref(),
        }
    }

    /// Lets bytes change on their way from the server, after so many of each connection.
    pub fn corrupt(&self, after: u64) {
        self.line().fail(Fault::Corrupt { after });
    }

    /// Ends what [`corrupt`](Self::corrupt) began.
    pub fn heal(&self) {
        self.line().heal();
    }

    fn line(&self) -> &Proxy {
        match &self.server {
            Reach::Remote { behind, .. } => behind.line(),
            Reach::Local(_) => panic!("a folder has no line to it"),
        }
    }

    /// Gives where the source is seen.
    pub fn at(&self) -> &PathBuf {
        &self.at
    }

    /// Gives one of the files that are there to be read.
    pub fn read_path(&self, number: usize) -> PathBuf {
        self.at.join(format!("reads/{number:02}.bin"))
    }

    /// Reads one of those files through the mount. Gives whether the bytes are right, or the kernel's number if it ends in an
    /// error.
    pub fn try_read(&self, number: usize) -> Result<bool, i32> {
        let told = |error: io::Error| error.raw_os_error().expect("the kernel says why");
        let mut bytes = Vec::with_capacity(READ_BYTES);
        let mut file = fs::File::open(self.read_path(number)).map_err(told)?;
        file.read_to_end(&mut bytes).map_err(told)?;
        Ok(bytes == self.content(number))
    }

    /// Reads one of those files through the mount; a wrong byte is a panic.
    pub fn read(&self, number: usize) -> Result<(), i32> {
        let right = self.try_read(number)?;
        assert!(right, "{} gave wrong bytes for file {number}", self.kind.name());
        Ok(())
    }

    /// Gives what a file that is there to be read holds.
    fn content(&self, number: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.kind.name().as_bytes());
        hasher.update(&number.to_le_bytes());
        let mut bytes = vec![0; READ_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn fill(&self) {
        let server = self.server();
        for folder in 0..6 {
            for file in 0..5 {
                let path = format!("films/shelf {folder}/season {}/film {file}.mkv", folder % 2);
                server.put(path.as_bytes(), format!("{folder} {file}").as_bytes());
            }
        }
        if let Some(root) = server.root() {
            // It occupies nothing.
            let large = fs::File::create(root.join(LARGE)).expect("make a file");
            large.set_len(LARGE_BYTES).expect("make it large");
        }
        for number in 0..READS {
            server.put(format!("reads/{number:02}.bin").as_bytes(), &self.content(number));
        }
    }
}

impl Reach {
    fn remote(server: impl Server + 'static) -> Self {
        let namespace = Arc::new(Namespace::make());
        Self::Remote {
            behind: Box::new(Behind::network(server, &namespace)),
            namespace: Some(namespace),
            expired: None,
        }
    }
}

/// A mounted library over one source of each kind.
pub struct Estate {
    /// The library.
    pub library: Library,
    /// Its sources.
    pub sites: Vec<Site>,
}

impl Estate {
    /// Starts a server of each of these kinds, and mounts a library with these settings over them. It is scanned when this
    /// returns. Listings grow old after `refresh`.
    pub fn start(kinds: &[Kind], settings: &str, refresh: &str) -> Self {
        let mut library = Library::new(User::Current);
        fs::write(library.state().join("settings.toml"), settings).expect("write the settings");
        let at = library.at();
        let sites: Vec<Site> = thread::scope(|scope| {
            let started: Vec<_> = kinds
                .iter()
                .map(|kind| {
                    let at = at.clone();
                    scope.spawn(move || Site::start(*kind, &at))
                })
                .collect();
            started
                .into_iter()
                .map(|site| site.join().expect("a server starts"))
                .collect()
        });
        for site in &sites {
            let mut settings: Vec<_> = site
                .settings
                .iter()
                .map(|(key, value)| (*key, value.as_str()))
                .collect();
            settings.push(("refresh", refresh));
            library.add_server_with(site.server(), site.kind.name(), &settings);
        }
        library.mount();
        let estate = Self { library, sites };
        estate.until_scanned();
        estate
    }

    /// Gives the status as JSON.
    pub fn status(&self) -> serde_json::Value {
        let said = expect_success(self.library.command().args(["status", "--json"]));
        serde_json::from_str(&said).expect("the status is JSON")
    }

    /// Waits until every source has been scanned to its end.
    fn until_scanned(&self) {
        let begun = Instant::now();
        loop {
            let status = self.status();
            let sources = status["sources"].as_array().expect("a list of sources");
            let scanned =
                |source: &serde_json::Value| source["scan"]["finished"].is_string() && source["scan"]["failed"] == 0;
            if sources.len() == self.sites.len() && sources.iter().all(scanned) {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the library was not scanned: {status:#}\n{}",
                self.library.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}
