//! OpenSSH's sshd with its own SFTP server, entered by key.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::port::Port;
use super::{Daemon, Server, current_user, data_folder, is_root, pairs, program, subfolder, write};

/// An SFTP server for the user who runs the tests.
pub struct Sshd {
    daemon: Daemon,
    port: Port,
    user: String,
    root: PathBuf,
    key: PathBuf,
    stranger: PathBuf,
    _folder: tempfile::TempDir,
}

impl Sshd {
    /// Starts the server, with a host key and a client key of its own.
    pub fn start() -> Self {
        let folder = data_folder();
        let root = subfolder(folder.path(), "files");
        // Keys must lie where nobody else may write.
        let keys = folder.path().join("keys");
        fs::create_dir(&keys).expect("make the folder of keys");
        let (host, key, stranger) = (keys.join("host"), keys.join("client"), keys.join("stranger"));
        for file in [&host, &key, &stranger] {
            make_key(file);
        }
        fs::copy(keys.join("client.pub"), keys.join("authorized")).expect("copy the public key");
        if is_root() {
            // sshd locks itself into this folder; a machine that never ran it by its unit has none.
            fs::create_dir_all("/run/sshd").expect("make /run/sshd");
        }
        let port = Port::take();
        let conf = folder.path().join("sshd.conf");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nUseDNS no\nMaxStartups 200\nMaxSessions 100\nLogLevel INFO\n\
             Subsystem sftp internal-sftp\n",
            port = port.number(),
            host = host.display(),
            keys = keys.display(),
        );
        write(&conf, &text);
        let arguments = vec![
            "-D".to_owned(),
            "-e".to_owned(),
            "-f".to_owned(),
            conf.display().to_string(),
        ];
        let daemon = Daemon::start(program("sshd"), arguments, &[], port.number(), folder.path(), || true);
        Self {
            daemon,
            port,
            user: current_user(),
            root,
            key,
            stranger,
            _folder: folder,
        }
    }

    /// Gives a private key that the server does not know.
    pub fn strange_key(&self) -> &Path {
        &self.stranger
    }

    /// Gives the private key that opens the server.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

impl Server for Sshd {
    fn uri(&self) -> String {
        format!(
            "sftp://{}@127.0.0.1:{}{}",
            self.user,
            self.port.number(),
            self.root.display()
        )
    }

    fn settings(&self) -> BTreeMap<String, String> {
        pairs([("key", &self.key.display().to_string()), ("known_hosts", "accept")])
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

fn make_key(file: &Path) {
    let output = Command::new(program("ssh-keygen"))
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(file)
        .output()
        .expect("start ssh-keygen");
    assert!(
        output.status.success(),
        "ssh-keygen: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
