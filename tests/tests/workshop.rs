//! Applications at work in a folder of this machine through the mount: what they leave on the disk is what they would have
//! left without it.
//!
//! Each script of `workshop/` is run in a folder of the mount, by whoever runs the library: as root and as an ordinary
//! user, with the kernel writing by itself and with everything going through the daemon. It finds the folder beneath the
//! mount as `$BENEATH`, one beside it that has nothing to do with the mount as `$ASIDE`, and fails where anything differs.
//!
//! In other sources (`workshop/remote.rs`) the applications of `workshop/remote/` work, and those that fit everywhere; they are looked
//! at through a second library, which knows nothing but the server.
//!
//! Needs root (to become an ordinary user), /dev/fuse, and the programs of `tests/servers/install`.

#[path = "workshop/remote.rs"]
mod remote;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifold_tests::mounted::{Library, User, expect_success};

const NOBODY: u32 = 65534;
/// What does much of one thing at once.
const STRESSORS: &str = "chmod dentry dir fallocate hdd link rename seek xattr";

/// A library over one folder, which belongs to whoever runs it.
struct Shop {
    library: Library,
    beneath: tempfile::TempDir,
    aside: tempfile::TempDir,
}

impl Shop {
    fn open(user: User, settings: &str) -> Self {
        let folder = || {
            let folder = tempfile::tempdir().expect("a folder");
            if user == User::Nobody {
                chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("give a folder to nobody");
            }
            folder
        };
        let (beneath, aside) = (folder(), folder());
        let mut library = Library::new(user);
        library.settings(settings);
        library.add_folder_with(beneath.path(), "/disk", &[("refresh", "1d")]);
        library.mount();
        Self {
            library,
            beneath,
            aside,
        }
    }

    fn at(&self) -> PathBuf {
        self.library.at().join("disk")
    }

    /// Kinds, modes, owners, sizes, times, targets and names of everything in a folder.
    fn attributes(&self, folder: &Path) -> String {
        let list = [
            "-type",
            "d",
            "-printf",
            "%y %m %U:%G %T@ %C@ %P\\n",
            "-o",
            "-printf",
            "%y %m %U:%G %n %s %T@ %C@ %P %l\\n",
        ];
        let all = expect_success(self.library.as_user(Path::new("find")).arg(folder).args(list));
        let mut lines: Vec<_> = all.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Runs a script in a folder of its own.
    fn run(&self, name: &str) {
        let folder = name.replace('.', "-");
        let mut make = self.library.as_user(Path::new("mkdir"));
        expect_success(make.arg(self.at().join(&folder)));
        let aside = self.aside.path().join(&folder);
        let mut make = self.library.as_user(Path::new("mkdir"));
        expect_success(make.arg(&aside));
        run_script(&self.library, name, &self.at().join(&folder), |work| {
            work.env("BENEATH", self.beneath.path().join(&folder))
                .env("ASIDE", aside)
                .env("TREE", tree(self.aside.path()))
                .env("STRESSORS", STRESSORS);
        });
    }
}

/// Runs a script of `workshop/` as the library's user.
fn run_script(library: &Library, name: &str, folder: &Path, environment: impl FnOnce(&mut Command)) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workshop").join(name);
    let text = fs::read_to_string(&script).expect("the script");
    let interpreter = if script.extension().is_some_and(|it| it == "py") {
        "python3"
    } else {
        "bash"
    };
    let mut work = library.as_user(Path::new(interpreter));
    work.current_dir(folder)
        .arg(if interpreter == "bash" { "-euc" } else { "-c" })
        .arg(text);
    environment(&mut work);
    expect_success(&mut work);
}

/// Packs the C sources of the crate `blake3`, which is built into these tests and so lies among cargo's crates.
fn tree(folder: &Path) -> PathBuf {
    let tar = folder.join("tree.tar");
    if !tar.exists() {
        let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cargo");
        let crates = std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from);
        let find = format!(
            "set -- {}/registry/src/*/blake3-1.*/; tar -cf {} -C \"$1\" c",
            crates.display(),
            tar.display()
        );
        expect_success(Command::new("sh").args(["-euc", &find]));
    }
    tar
}

fn every_application_works(user: User, settings: &str) {
    let mut shop = Shop::open(user, settings);
    for script in [
        "archives.sh",
        "build.sh",
        "databases.py",
        "editors.py",
        "fsx.py",
        "locks.py",
        "mappings.py",
        "repositories.sh",
        "stress.sh",
        "tools.sh",
        "verify.sh",
    ] {
        shop.run(script);
    }
    // Who mounts it anew finds what was left.
    let before = shop.attributes(&shop.at());
    assert_eq!(before, shop.attributes(shop.beneath.path()));
    shop.library.unmount();
    shop.library.mount();
    assert_eq!(shop.attributes(&shop.at()), before);
    shop.library.unmount();
}

#[test]
fn every_application_works_as_root() {
    every_application_works(User::Current, "");
}

#[test]
fn every_application_works_as_root_where_everything_goes_through_the_daemon() {
    every_application_works(User::Current, "mount.passthrough = false\n");
}

#[test]
fn every_application_works_as_an_ordinary_user() {
    every_application_works(User::Nobody, "");
}

/// Runs a script as an ordinary user, and tells how it ended.
fn as_nobody(work: &Path, script: &str) -> i32 {
    let mut command = Command::new("bash");
    command.current_dir(work).args(["-euc", script]).uid(NOBODY).gid(NOBODY);
    command.status().expect("run bash").code().expect("it was not killed")
}

#[test]
fn users_of_a_shared_mount_have_their_own_files_and_no_others() {
    let mut shop = Shop::open(User::Current, "mount.allow_other = true\n");
    let at = shop.at();
    for folder in [shop.library.at().parent().expect("its folder"), shop.beneath.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("let others in");
    }
    fs::create_dir(at.join("open")).expect("mkdir");
    fs::set_permissions(at.join("open"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::write(at.join("open/roots"), "root").expect("write");
    fs::create_dir(at.join("group")).expect("mkdir");
    chown(at.join("group"), None, Some(NOBODY)).expect("chgrp");
    fs::set_permissions(at.join("group"), fs::Permissions::from_mode(0o2770)).expect("chmod");

    assert_eq!(
        as_nobody(
            &at,
            "umask 027; cd open; echo mine >f; mkdir d; ln -s f l; mkfifo p; ln f g"
        ),
        0
    );
    for name in ["f", "d", "l", "p", "g"] {
        for side in [&at, shop.beneath.path()] {
            let seen = fs::symlink_metadata(side.join("open").join(name)).expect("it is there");
            assert_eq!((seen.uid(), seen.gid()), (NOBODY, NOBODY), "{name}");
        }
    }
    assert_eq!(fs::metadata(at.join("open/f")).expect("stat").mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(at.join("open/d")).expect("stat").mode() & 0o7777, 0o750);
    assert_eq!(as_nobody(&at, "cd group; echo >f; mkdir d"), 0);
    let made = fs::metadata(at.join("group/d")).expect("stat");
    assert_eq!((made.gid(), made.mode() & 0o2000), (NOBODY, 0o2000));
    for refused in [
        "echo x >new",
        "echo x >open/roots",
        "rm -f open/roots",
        "mv open/roots open/other",
        "chmod 777 open/roots",
        "chown nobody open/roots",
        "touch -d 2001-01-01 open/roots",
        "setfattr -n user.a -v 1 open/roots",
        "mknod open/device c 1 3",
    ] {
        assert_ne!(as_nobody(&at, refused), 0, "{refused}");
    }
    assert_eq!(fs::read(at.join("open/roots")).expect("read"), b"root");

    // Bits that give rights go when somebody without rights writes.
    for settings in ["writes it", "truncates it"] {
        fs::write(at.join("open/program"), "#!").expect("write");
        fs::set_permissions(at.join("open/program"), fs::Permissions::from_mode(0o6777)).expect("chmod");
        let script = if settings == "writes it" {
            "echo x >>open/program"
        } else {
            "truncate -s 1 open/program"
        };
        assert_eq!(as_nobody(&at, script), 0);
        for side in [&at, shop.beneath.path()] {
            let bits = fs::metadata(side.join("open/program")).expect("stat").mode() & 0o7777;
            assert_eq!(bits, 0o777, "nobody {settings}");
        }
    }
    // An access list lets in whom the mode does not, and keeps out whom its mask seems to let in.
    fs::write(at.join("open/listed"), "secret").expect("write");
    fs::set_permissions(at.join("open/listed"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_ne!(as_nobody(&at, "cat open/listed"), 0);
    expect_success(
        Command::new("setfacl")
            .args(["-m", "u:nobody:rw"])
            .arg(at.join("open/listed")),
    );
    assert_eq!(as_nobody(&at, "cat open/listed && echo more >>open/listed"), 0);
    fs::write(at.join("open/masked"), "secret").expect("write");
    chown(at.join("open/masked"), None, Some(NOBODY)).expect("chgrp");
    fs::set_permissions(at.join("open/masked"), fs::Permissions::from_mode(0o600)).expect("chmod");
    expect_success(
        Command::new("setfacl")
            .args(["-m", "u:1234:rw,g::---"])
            .arg(at.join("open/masked")),
    );
    assert_eq!(
        fs::metadata(at.join("open/masked")).expect("stat").mode() & 0o070,
        0o060
    );
    assert_ne!(as_nobody(&at, "cat open/masked"), 0);
    shop.library.unmount();
}
