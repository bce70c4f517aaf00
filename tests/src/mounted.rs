//! The program under test: a library in a temporary folder, mounted by the built `manifold` command.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::Server;

/// The longest that a mount may take to appear or go. It only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(1);

/// Who runs the program: the user of the tests, or an ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests; root in continuous integration.
    Current,
    /// `nobody`, without capabilities; needs root to become.
    Nobody,
}

const NOBODY: u32 = 65534;

impl User {
    fn own(self, path: &Path) {
        if self == Self::Nobody {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))
                .unwrap_or_else(|error| panic!("give {} to nobody, which needs root: {error}", path.display()));
        }
    }
}

/// A library of sources and its mount point.
#[derive(Debug)]
pub struct Library {
    folder: tempfile::TempDir,
    program: PathBuf,
    user: User,
    daemon: Option<Child>,
    environment: Vec<(String, String)>,
}

impl Library {
    /// Makes an empty library that belongs to `user`.
    pub fn new(user: User) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("manifold-library-")
            .tempdir()
            .expect("make a temporary folder");
        for name in ["", "library", "mount", "home"] {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).expect("make a folder of the library");
            user.own(&path);
        }
        let program = match user {
            User::Current => manifold(),
            User::Nobody => {
                // The build folder may lie where only its owner can go.
                let copy = folder.path().join("manifold");
                fs::copy(manifold(), &copy).expect("copy the program");
                copy
            }
        };
        Self {
            folder,
            program,
            user,
            daemon: None,
            environment: Vec::new(),
        }
    }

    /// Gives the mount point.
    pub fn at(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Gives the folder of state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("library")
    }

    /// Gives `manifold --library …`, to be run as the library's user.
    pub fn command(&self) -> Command {
        let mut command = self.as_user(&self.program);
        command.arg("--library").arg(self.state());
        command
    }

    /// Gives another program, to be run as the library's user.
    pub fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.folder.path().join("home"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if self.user == User::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Writes the library's settings. To be called before anything else.
    pub fn settings(&self, text: &str) {
        fs::write(self.state().join("settings.toml"), text).expect("write the settings");
    }

    /// Adds a folder of this machine at `attach`.
    pub fn add_folder(&self, folder: &Path, attach: &str) {
        self.add_folder_with(folder, attach, &[]);
    }

    /// Adds a folder of this machine at `attach`, with more settings.
    pub fn add_folder_with(&self, folder: &Path, attach: &str, more: &[(&str, &str)]) {
        let more = more
            .iter()
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        expect_success(
            self.command()
                .args(["source", "add"])
                .arg(folder)
                .args(["--at", attach])
                .args(more),
        );
    }

    /// Adds a server's source at `attach`; its secrets are passed by reference to the environment.
    pub fn add_server(&mut self, server: &dyn Server, attach: &str) {
        self.add_server_with(server, attach, &[]);
    }

    /// Adds a server's source at `attach`, with more settings, or others.
    pub fn add_server_with(&mut self, server: &dyn Server, attach: &str, settings: &[(&str, &str)]) {
        let mut arguments = Vec::new();
        for (key, value) in settings {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        for (key, mut value) in server.settings() {
            if settings.iter().any(|(given, _)| *given == key) {
                continue;
            }
            if key == "key" {
                value = self.private_copy(Path::new(&value));
            }
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        for (key, value) in server.secrets() {
            let name = format!("TEST_{}_{key}", attach.trim_matches('/').replace('/', "_")).to_uppercase();
            arguments.extend(["--set".to_owned(), format!("{key}=env:{name}")]);
            self.environment.push((name, value));
        }
        expect_success(
            self.command()
                .args(["source", "add", &server.uri(), "--at", attach])
                .args(arguments),
        );
    }

    /// Mounts the library by `manifold up` and waits until the mount is there.
    pub fn mount(&mut self) {
        assert!(self.daemon.is_none(), "the library is mounted already");
        let log = fs::File::create(self.log_file()).expect("make a log file");
        let mut command = self.command();
        command
            .arg("up")
            .arg("--at")
            .arg(self.at())
            .stdout(log.try_clone().expect("share the log file"))
            .stderr(log);
        let mut child = command.spawn().expect("start manifold");
        let end = Instant::now() + DEADLINE;
        // A mount that a crash left behind is there too, but answers nothing. Asked in this order: once something
        // answers, the dead mount is gone, and what is mounted then is the new one. Only its owner may look into it.
        let ready = || {
            let mut list = self.as_user(Path::new("ls"));
            list.arg(self.at()).stdout(Stdio::null()).stderr(Stdio::null());
            list.status().expect("run ls").success() && is_mounted(&self.at())
        };
        while !ready() {
            if let Some(status) = child.try_wait().expect("ask for the daemon") {
                panic!("manifold up ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < end, "no mount within {DEADLINE:?}: {}", self.log());
            std::thread::yield_now();
        }
        self.daemon = Some(child);
    }

    /// Gives what the daemon has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Gives the daemon's process id.
    ///
    /// # Panics
    /// If the library is not mounted.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the library is mounted").id()
    }

    /// Sends the daemon SIGTERM and waits for its end, which must be a success.
    pub fn unmount(&mut self) {
        let mut child = self.daemon.take().expect("the library is mounted");
        signal(&child, rustix::process::Signal::TERM);
        let status = child.wait().expect("wait for the daemon");
        assert!(status.success(), "the daemon ended with {status}: {}", self.log());
        assert!(!is_mounted(&self.at()), "the mount outlived its daemon");
    }

    /// Ends the daemon as a crash would.
    pub fn kill9(&mut self) {
        let mut child = self.daemon.take().expect("the library is mounted");
        child.kill().expect("kill the daemon");
        child.wait().expect("wait for the daemon");
    }

    /// Gives a file that only its owner may read to the library's user.
    fn private_copy(&self, file: &Path) -> String {
        let copy = self.folder.path().join("home/key");
        fs::copy(file, &copy).expect("copy a private file");
        self.user.own(&copy);
        copy.to_str().expect("a temporary path is UTF-8").to_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            signal(&child, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
        // After a crash the dead mount would keep the temporary folder from being removed.
        if is_mounted(&self.at()) {
            let _ = Command::new("umount").arg("-l").arg(self.at()).status();
        }
    }
}

/// Finds the built command beside the test's own executable.
pub fn manifold() -> PathBuf {
    let test = std::env::current_exe().expect("know the test's own path");
    let built = test
        .ancestors()
        .find(|folder| folder.ends_with("deps") || folder.ends_with("examples"))
        .and_then(Path::parent)
        .expect("a test lies in a folder named deps, an example in one named examples")
        .join("manifold");
    assert!(
        built.is_file(),
        "{} is not built; run: cargo build -p manifold",
        built.display()
    );
    built
}

/// Runs a command and gives its standard output; panics with all it said if it fails.
pub fn expect_success(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tells from the kernel's table of mounts whether something is mounted at a path; asks no file system.
pub fn is_mounted(at: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .expect("read the table of mounts")
        .lines()
        .any(|line| line.split(' ').nth(4) == at.to_str())
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("signal the daemon");
}
