//! Applications at work in a source that is not a folder of this machine: what they leave there is what they see here.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Apache, Samba, SeaweedFs, Server, Sshd};
use serde_json::Value;

use super::{run_script, tree};

/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(2);
/// What no remote source does (`docs/semantics.md`).
const REFUSED: &str = "keep punch zero";
/// What does much of one thing at once and needs nothing that they do not do.
const STRESSORS: &str = "dentry dir flock hdd seek";

fn until_uploaded(library: &Library) {
    let end = Instant::now() + DEADLINE;
    loop {
        let said = expect_success(library.command().args(["status", "--json"]));
        let status: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(status["uploads"]["conflicts"], 0, "nobody else writes");
        if status["uploads"]["waiting"] == 0 {
            return;
        }
        let uploads = expect_success(library.command().arg("uploads"));
        assert!(Instant::now() < end, "not uploaded: {uploads}\n{}", library.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn every_application_works(server: &dyn Server) {
    let mut library = Library::new(User::Current);
    library.add_server_with(server, "/s", &[("write", "back")]);
    library.mount();
    let aside = tempfile::tempdir().expect("a folder");
    let tree = tree(aside.path());
    for script in [
        "remote/databases.py",
        "remote/editors.py",
        "remote/repositories.sh",
        "remote/tools.sh",
        "remote/verify.sh",
        "build.sh",
        "fsx.py",
        "stress.sh",
    ] {
        let name = script.replace(['.', '/'], "-");
        let (folder, own) = (library.at().join("s").join(&name), aside.path().join(&name));
        std::fs::create_dir(&folder).expect("mkdir");
        std::fs::create_dir(&own).expect("mkdir");
        run_script(&library, script, &folder, |work| {
            work.env("ASIDE", own)
                .env("TREE", &tree)
                .env("TAR", "--touch --no-same-permissions")
                .env("REFUSED", REFUSED)
                .env("STRESSORS", STRESSORS)
                .env("STRESS_OPERATIONS", "40");
        });
    }
    until_uploaded(&library);
    let mut other = Library::new(User::Current);
    other.add_server(server, "/s");
    other.mount();
    same(&library.at().join("s"), &other.at().join("s"));
    library.unmount();
    library.mount();
    same(&library.at().join("s"), &other.at().join("s"));
    library.unmount();
    other.unmount();
}

fn same(here: &Path, there: &Path) {
    expect_success(Command::new("diff").arg("-r").arg(here).arg(there));
}

#[test]
fn every_application_works_in_a_share() {
    every_application_works(&Samba::start());
}

#[test]
fn every_application_works_in_a_bucket() {
    every_application_works(&SeaweedFs::start());
}

#[test]
fn every_application_works_on_a_webdav_server() {
    every_application_works(&Apache::start());
}

#[test]
fn every_application_works_on_an_sftp_server() {
    every_application_works(&Sshd::start());
}
