//! Samba, with one share that needs a user and a password.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::port::Port;
use super::{Daemon, Server, current_user, data_folder, pairs, program, subfolder, write};

/// The share's name.
const SHARE: &str = "files";
/// How a NAS is set up so that names with characters that Windows forbids can be reached (`vfs_catia`): each is shown as
/// what the clients of macOS and Linux map it to.
const MAPPINGS: &str = "0x01:0xf001,0x02:0xf002,0x03:0xf003,0x04:0xf004,0x05:0xf005,0x06:0xf006,0x07:0xf007,\
    0x08:0xf008,0x09:0xf009,0x0a:0xf00a,0x0b:0xf00b,0x0c:0xf00c,0x0d:0xf00d,0x0e:0xf00e,0x0f:0xf00f,0x10:0xf010,\
    0x11:0xf011,0x12:0xf012,0x13:0xf013,0x14:0xf014,0x15:0xf015,0x16:0xf016,0x17:0xf017,0x18:0xf018,0x19:0xf019,\
    0x1a:0xf01a,0x1b:0xf01b,0x1c:0xf01c,0x1d:0xf01d,0x1e:0xf01e,0x1f:0xf01f,0x22:0xf020,0x2a:0xf021,0x3a:0xf022,\
    0x3c:0xf023,0x3e:0xf024,0x3f:0xf025,0x5c:0xf026,0x7c:0xf027";

/// The user's password.
const PASSWORD: &str = "secret";

/// A Samba server with the share `files`.
pub struct Samba {
    daemon: Daemon,
    port: Port,
    user: String,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Samba {
    /// Starts the server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the server with more lines for the `[global]` section, such as `server smb encrypt = required`.
    pub fn start_with(global: &[&str]) -> Self {
        let mapping = format!("catia:mappings = {MAPPINGS}");
        Self::start_sharing(global, &["mangled names = no", "vfs objects = catia", &mapping])
    }

    /// Starts the server with more lines for the `[global]` section, and these for the share: as it comes, if there are
    /// none.
    pub fn start_sharing(global: &[&str], share: &[&str]) -> Self {
        let folder = data_folder();
        let state = subfolder(folder.path(), "state");
        let root = subfolder(folder.path(), "files");
        let port = Port::take();
        // The user must exist on this machine; the one who runs the tests does.
        let user = current_user();
        let conf = folder.path().join("smb.conf");
        let text = format!(
            "[global]\nworkgroup = TEST\nserver role = standalone server\nsmb ports = {port}\n\
             interfaces = 127.0.0.1/8\nbind interfaces only = yes\ndisable netbios = yes\nload printers = no\n\
             disable spoolss = yes\nmap to guest = never\nsecurity = user\nmax log size = 0\nlog level = 0\n\
             passdb backend = smbpasswd:{state}/smbpasswd\nprivate dir = {state}\nlock directory = {state}\n\
             state directory = {state}\ncache directory = {state}\npid directory = {state}\nncalrpc dir = {state}/nc\n\
             usershare path =\n{more}\n\
             [{SHARE}]\npath = {root}\nread only = no\ndos filetime resolution = no\n{share}\n",
            port = port.number(),
            state = state.display(),
            root = root.display(),
            more = global.join("\n"),
            share = share.join("\n"),
        );
        write(&conf, &text);
        add_user(&conf, &user);
        let daemon = Daemon::start(
            program("smbd"),
            ["-F", "--no-process-group", "--debug-stdout", "-s"]
                .map(str::to_owned)
                .into_iter()
                .chain([conf.display().to_string()])
                .collect(),
            &[],
            port.number(),
            folder.path(),
            || true,
        );
        Self {
            daemon,
            port,
            user,
            root,
            _folder: folder,
        }
    }

    /// Gives the server's port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Gives the name of the user who may enter.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Gives that user's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Gives the share's name.
    pub fn share(&self) -> &'static str {
        SHARE
    }
}

impl Server for Samba {
    fn uri(&self) -> String {
        format!("smb://{}@127.0.0.1:{}/{SHARE}", self.user, self.port.number())
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        pairs([("password", PASSWORD)])
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

fn add_user(conf: &Path, user: &str) {
    let mut child = Command::new(program("smbpasswd"))
        .arg("-c")
        .arg(conf)
        .args(["-s", "-a", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start smbpasswd");
    let mut input = child.stdin.take().expect("invariant: its input is piped");
    input
        .write_all(format!("{PASSWORD}\n{PASSWORD}\n").as_bytes())
        .expect("write the password");
    drop(input);
    let output = child.wait_with_output().expect("wait for smbpasswd");
    assert!(
        output.status.success(),
        "smbpasswd: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
