//! What has to happen in another process: this test program, started once more.

#![allow(
    clippy::print_stdout,
    reason = "it is how the other process tells the test how far it is"
)]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use manifold_fuse::{MountError, MountOptions, Unmounted};
use rustix::process::{Resource, Rlimit};

use crate::library::{Library, pattern};

/// Which part the process plays; unset in the tests' own process.
const PART: &str = "MANIFOLD_TEST_PART";
const FOLDER: &str = "MANIFOLD_TEST_FOLDER";
const POINT: &str = "MANIFOLD_TEST_POINT";
const DESCRIPTORS: &str = "MANIFOLD_TEST_DESCRIPTORS";

/// A process with a library mounted, which ends when it is told to or killed.
pub(crate) struct Daemon {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Daemon {
    /// Mounts `folder` at `point` in another process, which may have that many descriptors open.
    pub(crate) fn start(folder: &Path, point: &Path, descriptors: u64) -> Self {
        let mut command = myself("daemon", folder, point);
        command.env(DESCRIPTORS, descriptors.to_string());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut daemon = Self { process, input, output };
        assert!(daemon.hears("mounted"), "the other process did not mount");
        daemon
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it was ours");
    }

    /// Lets it unmount and end.
    pub(crate) fn end(mut self) {
        self.input.write_all(b"end\n").expect("it listens");
        assert!(self.hears("unmounted"), "the other process did not unmount");
        assert!(self.process.wait().expect("it ends").success());
    }

    /// Reads on until a line says `word`. The test harness writes lines of its own.
    fn hears(&mut self, word: &str) -> bool {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("its output is text") > 0 {
            if line.trim_end().ends_with(word) {
                return true;
            }
            line.clear();
        }
        false
    }
}

fn myself(part: &str, folder: &Path, point: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["--exact", "children::plays_its_part", "--nocapture"]);
    command.env(PART, part).env(FOLDER, folder).env(POINT, point);
    command
}

/// Plays a part as an ordinary user, in a mount namespace of its own where `/dev/fuse` has the mode `device_mode` and
/// `/etc/fuse.conf` lets nobody else in. So the test does not depend on how the machine is set up, and changes nothing
/// about it. `own` is a folder that the user may write to.
pub(crate) fn as_ordinary_user(part: &str, folder: &Path, own: &Path, device_mode: &str) -> std::process::Output {
    let point = own.join("point");
    fs::create_dir(&point).expect("a mount point");
    std::os::unix::fs::chown(&point, Some(65534), Some(65534)).expect("root may");
    // The user could not start the program where it lies, if that is beneath someone's home.
    let program = own.join("program");
    fs::copy(std::env::current_exe().expect("the path of this program"), &program).expect("a copy of this program");
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc"])
        .arg(
            r#"mknod "$1/fuse" c 10 229; chmod "$2" "$1/fuse"; mount --bind "$1/fuse" /dev/fuse
               : > "$1/fuse.conf"; mount --bind "$1/fuse.conf" /etc/fuse.conf
               export TMPDIR="$1"
               exec setpriv --reuid=65534 --regid=65534 --clear-groups \
                   "$1/program" --exact children::plays_its_part --nocapture"#,
        )
        .arg("sh")
        .arg(own)
        .arg(device_mode)
        .env(PART, part)
        .env(FOLDER, folder)
        .env(POINT, point)
        .output()
        .expect("unshare and setpriv of util-linux")
}

/// No test by itself: the other processes begin here.
#[test]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let path = |name| PathBuf::from(std::env::var_os(name).expect("given by the test"));
    match part.as_str() {
        "daemon" => daemon(&path(FOLDER), &path(POINT)),
        "user" => user(&path(FOLDER), &path(POINT)),
        "user without a device" => user_without_a_device(&path(FOLDER), &path(POINT)),
        other => panic!("no such part: {other}"),
    }
}

fn daemon(folder: &Path, point: &Path) {
    let library = Library::over_folder(folder);
    let descriptors = std::env::var(DESCRIPTORS).expect("given").parse().expect("a number");
    let limit = Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    rustix::process::setrlimit(Resource::Nofile, limit).expect("a limit may be lowered");
    let mount = library.mount_at(point, &MountOptions::default()).expect("it mounts");
    println!("mounted");
    let mut word = [0; 4];
    io::stdin().read_exact(&mut word).expect("the test says when to end");
    mount.unmount().expect("it unmounts");
    println!("unmounted");
}

fn user(folder: &Path, point: &Path) {
    assert!(!rustix::process::geteuid().is_root());
    let library = Library::over_folder(folder);

    let options = MountOptions {
        allow_other: true,
        ..MountOptions::default()
    };
    let refused = library
        .mount_at(point, &options)
        .expect_err("nobody else may be let in");
    assert!(matches!(refused, MountError::AllowOtherForbidden), "{refused}");

    let mount = library
        .mount_at(point, &MountOptions::default())
        .expect("it mounts by fusermount3");
    assert!(!mount.passthrough(), "an ordinary user has no passthrough");
    let file = point.join("data/file");
    assert!(fs::read(&file).expect("it reads") == pattern(300_000));
    assert!(fs::write(point.join("data/new"), "x").is_err());
    let held = fs::File::open(&file).expect("it opens");
    assert_eq!(mount.unmount().expect("busy is no error"), Unmounted::InUse);
    assert_eq!(
        io::read_to_string(held.take(0)).expect("an open file is still served"),
        ""
    );
    // Its end looks at the mount point once more, which would make the next mount busy for a moment.
    mount.wait();

    let mount = library
        .mount_at(point, &MountOptions::default())
        .expect("the place is free again");
    let status = Command::new("fusermount3")
        .arg("-u")
        .arg(point)
        .status()
        .expect("fusermount3");
    assert!(status.success(), "the mount is the user's own");
    mount.wait();
    assert_eq!(mount.unmount().expect("it is over"), Unmounted::Entirely);

    Daemon::start(folder, point, 1024).kill();
    assert!(fs::metadata(point).is_err(), "a dead mount");
    let mount = library
        .mount_at(point, &MountOptions::default())
        .expect("the dead mount is the user's own");
    assert_eq!(mount.unmount().expect("it unmounts"), Unmounted::Entirely);
    println!("the user is content");
}

fn user_without_a_device(folder: &Path, point: &Path) {
    let library = Library::over_folder(folder);
    let refused = library
        .mount_at(point, &MountOptions::default())
        .expect_err("the device is root's");
    assert!(matches!(refused, MountError::DeviceDenied), "{refused}");
    assert!(refused.to_string().contains("chmod"), "no hint: {refused}");
    println!("the user is content");
}
