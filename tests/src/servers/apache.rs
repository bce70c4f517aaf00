//! Apache as a `WebDAV` server, with a user and a password.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::certificate::{Certificate, Tls};
use super::port::Port;
use super::{Daemon, Server, data_folder, is_root, pairs, program, subfolder, write};

const MODULES: &str = "/usr/lib/apache2/modules";
const LOADED: [&str; 8] = [
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "dav",
    "dav_fs",
];

/// A `WebDAV` server that gives entity tags; user `tester`, password `secret`.
pub struct Apache {
    daemon: Daemon,
    port: Port,
    root: PathBuf,
    certificate: Option<Certificate>,
    _folder: tempfile::TempDir,
}

impl Apache {
    /// Starts the server.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts the server over TLS.
    pub fn start_tls(tls: Tls) -> Self {
        Self::start_with(Some(tls))
    }

    fn start_with(tls: Option<Tls>) -> Self {
        let folder = data_folder();
        let root = subfolder(folder.path(), "files");
        let state = subfolder(folder.path(), "state");
        let port = Port::take();
        assert!(
            Path::new(MODULES).is_dir(),
            "apache2 is not installed; run: sudo tests/servers/install"
        );
        let certificate = tls.map(|tls| Certificate::make(folder.path(), tls));
        let modules: Vec<String> = LOADED
            .iter()
            .chain(certificate.as_ref().map(|_| &"ssl"))
            .map(|module| format!("LoadModule {module}_module {MODULES}/mod_{module}.so\n"))
            .collect();
        let modules = modules.concat();
        let tls = certificate.as_ref().map_or_else(String::new, |files| {
            format!(
                "SSLEngine on\nSSLCertificateFile {}\nSSLCertificateKeyFile {}\n",
                files.file.display(),
                files.key.display()
            )
        });
        let user = if is_root() {
            "User www-data\nGroup www-data\n"
        } else {
            ""
        };
        // SHA-1 of `secret`, the one hash that needs no program to make.
        write(
            &folder.path().join("users"),
            "tester:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
        );
        let text = format!(
            "{modules}{user}ServerName 127.0.0.1\nServerRoot {folder}\nListen 127.0.0.1:{port}\n{tls}PidFile {state}/pid\n\
             DefaultRuntimeDir {state}\nErrorLog /dev/stderr\nMutex file:{state}\nDAVLockDB {state}/locks\n\
             DocumentRoot {root}\nTimeout 600\nKeepAlive On\nMaxKeepAliveRequests 0\n\
             StartServers 1\nServerLimit 4\nThreadsPerChild 32\nMaxRequestWorkers 128\n\
             MinSpareThreads 32\nMaxSpareThreads 128\n\
             <Directory {root}>\nDav On\nDavDepthInfinity Off\nFileETag MTime Size INode\nAuthType Basic\n\
             AuthName files\nAuthUserFile {folder}/users\nRequire valid-user\n</Directory>\n",
            folder = folder.path().display(),
            state = state.display(),
            root = root.display(),
            port = port.number(),
        );
        let conf = folder.path().join("apache.conf");
        write(&conf, &text);
        let arguments = vec![
            "-D".to_owned(),
            "FOREGROUND".to_owned(),
            "-f".to_owned(),
            conf.display().to_string(),
        ];
        let daemon = Daemon::start(program("apache2"), arguments, &[], port.number(), folder.path(), || {
            true
        });
        Self {
            daemon,
            port,
            root,
            certificate,
            _folder: folder,
        }
    }

    /// Gives the file with the certificate to trust.
    ///
    /// # Panics
    /// If the server does not speak TLS.
    pub fn ca_file(&self) -> &Path {
        &self.certificate.as_ref().expect("the server speaks TLS").authority
    }
}

impl Server for Apache {
    fn uri(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "webdavs"
        } else {
            "webdav"
        };
        format!("{scheme}://tester@127.0.0.1:{}", self.port.number())
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        pairs([("password", "secret")])
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
