//! vsftpd with one virtual user, whom `tests/servers/install` makes known to PAM. Runs as root only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::certificate::{Certificate, Tls};
use super::port::Port;
use super::{Daemon, Server, data_folder, is_root, pairs, program, subfolder, write};

/// An FTP server; user `tester`, password `secret`.
pub struct Vsftpd {
    daemon: Daemon,
    port: Port,
    root: PathBuf,
    log: PathBuf,
    certificate: Option<Certificate>,
    _folder: tempfile::TempDir,
}

impl Vsftpd {
    /// Starts the server.
    pub fn start() -> Self {
        Self::start_with(None, false)
    }

    /// Starts the server so that it notes every command that it is given.
    pub fn start_logged() -> Self {
        Self::start_with(None, true)
    }

    /// Starts the server over TLS, which it demands for everything.
    pub fn start_tls(tls: Tls) -> Self {
        Self::start_with(Some(tls), false)
    }

    fn start_with(tls: Option<Tls>, logged: bool) -> Self {
        assert!(is_root(), "vsftpd checks passwords as root only; run this test as root");
        assert!(
            Path::new("/etc/pam.d/manifold-tests").is_file() && Path::new("/run/vsftpd/empty").is_dir(),
            "vsftpd is not set up for tests; run: sudo tests/servers/install"
        );
        let folder = data_folder();
        let root = subfolder(folder.path(), "files");
        let port = Port::take();
        let certificate = tls.map(|tls| Certificate::make(folder.path(), tls));
        let tls = certificate.as_ref().map_or_else(String::new, |files| {
            format!(
                "ssl_enable=YES\nforce_local_logins_ssl=YES\nforce_local_data_ssl=YES\nrsa_cert_file={}\n\
                 rsa_private_key_file={}\nssl_ciphers=HIGH\n",
                files.file.display(),
                files.key.display()
            )
        });
        let conf = folder.path().join("vsftpd.conf");
        let log = folder.path().join("vsftpd.log");
        let logging = if logged {
            format!(
                "xferlog_enable=YES\nxferlog_std_format=NO\nlog_ftp_protocol=YES\nvsftpd_log_file={}\n",
                log.display()
            )
        } else {
            "xferlog_enable=NO\n".to_owned()
        };
        let text = format!(
            "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\nanonymous_enable=NO\n\
             local_enable=YES\nwrite_enable=YES\nguest_enable=YES\nguest_username=daemon\nvirtual_use_local_privs=YES\n\
             pam_service_name=manifold-tests\nlocal_root={root}\nchroot_local_user=YES\nallow_writeable_chroot=YES\n\
             seccomp_sandbox=NO\nsecure_chroot_dir=/run/vsftpd/empty\npasv_address=127.0.0.1\n\
             force_dot_files=YES\nmax_clients=200\nmax_per_ip=200\ndelay_failed_login=0\nuse_localtime=NO\n\
             utf8_filesystem=YES\nsession_support=NO\n{logging}{tls}",
            port = port.number(),
            root = root.display(),
        );
        write(&conf, &text);
        let arguments = vec![conf.display().to_string()];
        let daemon = Daemon::start(program("vsftpd"), arguments, &[], port.number(), folder.path(), || true);
        Self {
            daemon,
            port,
            root,
            log,
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

impl Vsftpd {
    /// Gives the commands that a server that notes them was given so far, by their words alone.
    pub fn commands(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).expect("read the server's log");
        let log = String::from_utf8_lossy(&log).into_owned();
        let said = log.lines().filter_map(|line| line.split_once("FTP command: "));
        // FTP command: Client "127.0.0.1", "RETR /file"
        let words = said.filter_map(|(_, said)| said.split_once("\", \"")?.1.split(['\"', ' ']).next());
        words.map(str::to_owned).collect()
    }
}

impl Server for Vsftpd {
    fn uri(&self) -> String {
        let scheme = if self.certificate.is_some() { "ftps" } else { "ftp" };
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
