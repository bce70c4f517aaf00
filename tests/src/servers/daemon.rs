//! One server process with all its children: started, stopped, killed and started again.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to come up before the test gives up on it.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How often a server that is coming up is asked.
const POLL: Duration = Duration::from_millis(20);

/// Ends the tree of `$1` and removes the folder `$2` once the process that holds its input has died.
const WATCHER: &str = r#"
read -r _
tree() { for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done; echo "$1"; }
kill -STOP "$1"
kill -KILL $(tree "$1")
rm -rf -- "$2"
"#;

type Ready = Box<dyn Fn() -> bool + Send + Sync>;

/// A server process. Dropping it kills the process and its children.
pub struct Daemon {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    port: u16,
    folder: PathBuf,
    ready: Ready,
    running: Mutex<Option<Running>>,
}

struct Running {
    server: Child,
    watcher: Child,
}

impl Daemon {
    /// Starts `program` and waits until `port` accepts connections and `ready` holds. The process writes its log to
    /// `log` in `folder`.
    pub(super) fn start(
        program: PathBuf,
        arguments: Vec<String>,
        environment: &[(&str, &str)],
        port: u16,
        folder: &Path,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let environment = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let daemon = Self {
            program,
            arguments,
            environment,
            port,
            folder: folder.to_owned(),
            ready: Box::new(ready),
            running: Mutex::new(None),
        };
        daemon.restart();
        daemon
    }

    /// Gives the process id of the server's first process, or `None` when it was killed.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.server.id())
    }

    /// Gives the port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server and all its children, and waits for its end.
    pub fn kill9(&self) {
        self.running().take();
    }

    /// Stops the server and all its children with SIGSTOP, and waits until the last of their threads stands still: a
    /// thread that runs meets the signal only later, and would answer until then.
    pub fn pause(&self) {
        let running = self.running();
        let server = &running.as_ref().expect("the server runs").server;
        assert!(stop(server.id()), "the server cannot be stopped");
    }

    /// Lets the server go on with SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts the server on the same port, ending it first if it runs.
    pub fn restart(&self) {
        let mut running = self.running();
        running.take();
        *running = Some(self.spawn());
    }

    /// Gives what the server has written to its log so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        // A test that panicked while it held the lock has left nothing half done.
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn spawn(&self) -> Running {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("open the server's log");
        let server = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the log's descriptor"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.program.display()));
        let watcher = Command::new("/bin/sh")
            .args(["-c", WATCHER, "watcher", &server.id().to_string()])
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start /bin/sh");
        let mut running = Running { server, watcher };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let begun = Instant::now();
        while !(TcpStream::connect(address).is_ok() && (self.ready)()) {
            let ended = running.server.try_wait().expect("ask after the server");
            assert!(
                ended.is_none() && begun.elapsed() < START_LIMIT,
                "{} did not come up on port {}; its log:\n{}",
                self.program.display(),
                self.port,
                self.log()
            );
            // Nothing announces that a port begins to listen; asking again is the only way.
            std::thread::sleep(POLL);
        }
        running
    }

    fn signal(&self, signal: Signal) {
        let running = self.running();
        let server = &running.as_ref().expect("the server runs").server;
        for pid in tree(server.id()) {
            // A child may end between the look and the signal.
            let _gone = kill_process(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The watcher first: it must not act on a process id that is free again.
        let _gone = self.watcher.kill();
        let _gone = self.watcher.wait();
        // A master that runs would put a new child in the place of one that was killed, and that child would live on. One
        // that cannot be stopped is killed all the same.
        let _stopped = stop(self.server.id());
        for pid in tree(self.server.id()) {
            let _gone = kill_process(pid, Signal::KILL);
        }
        let _gone = self.server.wait();
    }
}

/// Stops a process and all its descendants, and tells whether the last of their threads stands still.
fn stop(pid: u32) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < START_LIMIT {
        let mut going = tree(pid);
        going.retain(|pid| !is_stopped(*pid));
        if going.is_empty() {
            return true;
        }
        for pid in going {
            // A child may end between the look and the signal.
            let _gone = kill_process(pid, Signal::STOP);
        }
        std::thread::yield_now();
    }
    false
}

/// Gives a process and all its descendants, the youngest first. Sessions of sshd leave the process group, so the
/// group is not enough.
fn tree(pid: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    collect(pid, &mut found);
    found
}

/// Tells whether no thread of a process runs any more.
fn is_stopped(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        // The state follows the name, which may itself hold a bracket; a thread that has just ended has neither.
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("X", |(_, rest)| rest);
        if !state.starts_with(['T', 't', 'Z', 'X']) {
            return false;
        }
    }
    true
}

fn collect(pid: u32, found: &mut Vec<Pid>) {
    // A process that ends while it is looked at has no children left to find.
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            collect(child, found);
        }
    }
    found.extend(i32::try_from(pid).ok().and_then(Pid::from_raw));
}
