//! What applications write to a mounted library of remote sources arrives there, whole: in everyday use, while the line fails, and
//! though the daemon is killed. What arrived is seen through a second library, which knows nothing but the server.
//!
//! Needs /dev/fuse, the servers of `tests/servers/install`, and root for the servers.

#[path = "uploaded/across.rs"]
mod across;
#[path = "uploaded/alike.rs"]
mod alike;
#[path = "uploaded/attributes.rs"]
mod attributes;
#[path = "uploaded/beneath.rs"]
mod beneath;
#[path = "uploaded/broken_off.rs"]
mod broken_off;
#[path = "uploaded/crash.rs"]
mod crash;
#[path = "uploaded/full.rs"]
mod full;
#[path = "uploaded/going_on.rs"]
mod going_on;
#[path = "uploaded/inward.rs"]
mod inward;
#[path = "uploaded/limits.rs"]
mod limits;
#[path = "uploaded/links.rs"]
mod links;
#[path = "uploaded/moving.rs"]
mod moving;
#[path = "uploaded/mv.rs"]
mod mv;
#[path = "uploaded/own.rs"]
mod own;
#[path = "uploaded/trash.rs"]
mod trash;
#[path = "uploaded/union.rs"]
mod union;
#[path = "uploaded/unseen.rs"]
mod unseen;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Apache, Behind, Samba, SeaweedFs, Server, Sshd};
use serde_json::Value;

/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(2);
const SETTINGS: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"5 s\"\nmetadata = \"5 s\"\n";
/// A file that is there before.
const BIG: &str = "big.bin";
const BIG_BYTES: usize = 3_000_000;

/// A server and a library over it.
struct Site {
    server: Behind,
    library: Library,
}

impl Site {
    fn over(server: impl Server + 'static, settings: &[(&str, &str)]) -> Self {
        Self::with(server, SETTINGS, settings)
    }

    /// One over a source with `settings` of its own, in a library with these `deadlines`.
    fn with(server: impl Server + 'static, deadlines: &str, settings: &[(&str, &str)]) -> Self {
        let server = Behind::proxy(server);
        server.put(BIG.as_bytes(), &pattern(BIG_BYTES, 1));
        let mut library = Library::new(User::Current);
        library.settings(deadlines);
        let writes = [("write", "back")];
        let settings = if settings.iter().any(|(key, _)| *key == "write") {
            settings.to_vec()
        } else {
            [&writes[..], settings].concat()
        };
        library.add_server_with(&server, "/s", &settings);
        library.mount();
        Self { server, library }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.library.at().join("s").join(path)
    }

    fn status(&self) -> Value {
        let said = expect_success(self.library.command().args(["status", "--json"]));
        serde_json::from_str(&said).expect("JSON")
    }

    /// Waits until everything is uploaded.
    fn until_uploaded(&self) {
        self.until("everything is uploaded", |status| status["uploads"]["waiting"] == 0);
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if holds(&status) {
                return;
            }
            let uploads = expect_success(self.library.command().arg("uploads"));
            assert!(
                Instant::now() < end,
                "not so: {what}: {status:#}\n{uploads}\n{}",
                self.library.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Gives what the server holds, as a library sees it that has never seen it before.
    fn look(&self) -> Look {
        let mut library = Library::new(User::Current);
        library.settings(SETTINGS);
        library.add_server_with(&self.server, "/s", &[]);
        library.mount();
        Look(library)
    }
}

/// A second library over a server.
struct Look(Library);

impl Look {
    fn at(&self) -> PathBuf {
        self.0.at().join("s")
    }

    fn is_like(&self, mirror: &Path) {
        let mut diff = Command::new("diff");
        expect_success(diff.arg("-r").arg(mirror).arg(self.at()));
    }
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; length];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("list")
        .map(|item| item.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort_unstable();
    names
}

/// Runs a shell script within a folder.
fn run(folder: &Path, script: &str) {
    expect_success(Command::new("sh").args(["-euc", script]).current_dir(folder));
}

/// What people and programs do to files. `$1` is a folder to copy.
fn everyday(folder: &Path, tree: &Path) {
    let tree = tree.display();
    run(
        folder,
        &format!(
            r"
            cp -r {tree} copied
            dd if=/dev/urandom of=copied/random bs=64k count=8 2>/dev/null
            cp copied/random /dev/null
            printf 'in the middle' | dd of={BIG} conv=notrunc bs=1 seek=1234567 2>/dev/null
            printf 'and more' >> {BIG}
            printf 'first line\n' > notes; printf 'second line\n' >> notes
            truncate -s 5000 copied/random; truncate -s 100000 copied/random
            mkdir -p deep/er; mv notes deep/er/notes
            rsync -r --inplace {tree}/ synced/
            printf 'changed' > {tree}/one; rsync -r --inplace {tree}/ synced/
            printf 'version 1' > doc; printf 'version 2, longer' > .doc.swp; mv .doc.swp doc
            rm copied/folder/three
            sqlite3 base.db 'create table t(a); insert into t values (1), (2); begin; insert into t select a + 2 from t; commit;'
            "
        ),
    );
}

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().expect("make a folder");
    fs::create_dir(tree.path().join("folder")).expect("make a folder");
    fs::write(tree.path().join("one"), "one").expect("write");
    fs::write(tree.path().join("empty"), "").expect("write");
    fs::write(tree.path().join("folder/two"), pattern(300_000, 2)).expect("write");
    fs::write(tree.path().join("folder/three"), pattern(70_000, 3)).expect("write");
    for number in 0..20 {
        fs::write(
            tree.path().join(format!("folder/{number:02}")),
            pattern(1_000 * number, number as u64),
        )
        .expect("write");
    }
    tree
}

fn what_applications_write_arrives(site: &mut Site) {
    let tree = tree();
    everyday(&site.library.at().join("s"), tree.path());
    let rows = Command::new("sqlite3")
        .arg(site.at("base.db"))
        .arg("select sum(a), count(*) from t; pragma integrity_check")
        .output();
    assert_eq!(
        String::from_utf8_lossy(&rows.expect("run sqlite3").stdout),
        "10|4\nok\n"
    );
    // What is random there is taken over, then all of it is compared.
    let mirror = tempfile::tempdir().expect("make a folder");
    run(
        mirror.path(),
        &format!("cp -r {}/. .", site.library.at().join("s").display()),
    );
    let mut big = pattern(BIG_BYTES, 1);
    big[1_234_567..1_234_580].copy_from_slice(b"in the middle");
    big.extend_from_slice(b"and more");
    assert!(
        fs::read(mirror.path().join(BIG)).expect("read") == big,
        "the big file is as it was written"
    );
    assert_eq!(fs::read(mirror.path().join("doc")).expect("read"), b"version 2, longer");
    assert_eq!(
        fs::read(mirror.path().join("deep/er/notes")).expect("read"),
        b"first line\nsecond line\n"
    );
    let random = fs::read(mirror.path().join("copied/random")).expect("read");
    assert!(random.len() == 100_000 && random[5_000..].iter().all(|byte| *byte == 0));
    assert!(!mirror.path().join("copied/folder/three").exists());
    run(mirror.path(), &format!("diff -r {} synced", tree.path().display()));
    site.until_uploaded();
    site.look().is_like(mirror.path());
    site.library.unmount();
    site.library.mount();
    run(
        mirror.path(),
        &format!("diff -r . {}", site.library.at().join("s").display()),
    );
}

#[test]
fn what_applications_write_to_samba_arrives() {
    what_applications_write_arrives(&mut Site::over(Samba::start(), &[]));
}

#[test]
fn what_applications_write_to_an_s3_store_arrives() {
    what_applications_write_arrives(&mut Site::over(SeaweedFs::start(), &[]));
}

#[test]
fn what_applications_write_to_a_webdav_server_arrives() {
    what_applications_write_arrives(&mut Site::over(Apache::start(), &[]));
}

#[test]
fn what_applications_write_to_an_sftp_server_arrives() {
    what_applications_write_arrives(&mut Site::over(Sshd::start(), &[]));
}

#[test]
fn an_outage_in_the_middle_of_uploads_loses_nothing() {
    let mut site = Site::over(SeaweedFs::start(), &[]);
    let mirror = tempfile::tempdir().expect("make a folder");
    fs::create_dir(site.at("in")).expect("make a folder");
    for (number, fault) in [
        Fault::Cut { after: 2_000 },
        Fault::Refuse,
        Fault::Answer {
            status: 503,
            retry_after: Some(1),
        },
        Fault::Reset,
    ]
    .into_iter()
    .enumerate()
    {
        for file in 0..6 {
            let (name, bytes) = (
                format!("in/{number}-{file}"),
                pattern(200_000 * (file + 1), file as u64),
            );
            fs::write(site.at(&name), &bytes).expect("a write needs no source");
            fs::create_dir_all(mirror.path().join("in")).expect("make a folder");
            fs::write(mirror.path().join(&name), &bytes).expect("write");
            if file == 3 {
                site.server.line().fail(fault);
            }
        }
        for file in 0..6 {
            let name = format!("in/{number}-{file}");
            assert!(
                fs::read(site.at(&name)).expect("it is here") == fs::read(mirror.path().join(&name)).expect("read")
            );
        }
        site.server.line().heal();
    }
    site.until_uploaded();
    fs::write(mirror.path().join(BIG), pattern(BIG_BYTES, 1)).expect("write");
    site.look().is_like(mirror.path());
    site.library.unmount();
}
