//! Attributes that sources cannot store, as programs set and compare them: kept through uploads, remounts, crashes and scans.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use manifold_tests::mounted::expect_success;
use manifold_tests::servers::{Apache, Samba, SeaweedFs, Server, Sshd};

use super::{Site, pattern, run};

const EOPNOTSUPP: i32 = 95;

/// What programs copy: names, permissions, times to the nanosecond, and owners, of everything in a folder.
fn listing(folder: &Path) -> String {
    let mut find = Command::new("sh");
    find.args([
        "-euc",
        r"find . -printf '%P|%y|%m|%T@|%U:%G|%s\n' | sed 's/|d|\(.*\)|[0-9]*$/|d|\1/' | sort",
    ]);
    expect_success(find.current_dir(folder))
}

fn note(file: &Path) -> String {
    let mut get = Command::new("getfattr");
    let value = expect_success(
        get.args(["--absolute-names", "--only-values", "-n", "user.note"])
            .arg(file),
    );
    value.trim().to_owned()
}

/// A folder with all sorts of permissions and times in it.
fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().expect("make a folder");
    fs::write(tree.path().join("data"), pattern(200_000, 7)).expect("write");
    run(
        tree.path(),
        r"
        mkdir -p bin/deep private
        printf '#!/bin/sh\necho it runs\n' > bin/tool; chmod 755 bin/tool
        printf secret > private/key; chmod 400 private/key; chmod 700 private
        printf shared > bin/deep/shared; chmod 664 bin/deep/shared; : > empty
        touch -d '2001-02-03 04:05:06.123456789 UTC' data bin/tool
        touch -d '1969-12-31 23:59:58.5 UTC' private/key
        touch -d '2031-01-01 00:00:00.000000001 UTC' empty
        setfattr -n user.note -v 'of the tool' bin/tool
        touch -d '2010-10-10 10:10:10.1 UTC' bin/deep bin private .
        ",
    );
    tree
}

impl Site {
    fn again(&mut self) {
        self.library.unmount();
        self.library.mount();
    }

    fn scan(&self) {
        expect_success(self.library.command().args(["scan", "/s"]));
    }
}

/// Everything that was set holds, whatever comes.
fn attributes_hold(site: &mut Site) {
    let (at, tree) = (site.library.at().join("s"), tree());
    let source = tree.path().display();
    run(&at, &format!("rsync -aX {source}/ synced/"));
    run(&at, &format!("cp -a {source} copied"));
    run(
        &at,
        &format!("mkdir unpacked; tar --format=posix --xattrs -C {source} -cf - . | tar --xattrs -C unpacked -xpf -"),
    );
    let expected = listing(tree.path());
    let compare = |when: &str| {
        for name in ["synced", "copied", "unpacked"] {
            assert_eq!(listing(&at.join(name)), expected, "{name}, {when}");
            assert_eq!(note(&at.join(name).join("bin/tool")), "of the tool", "{name}, {when}");
        }
        let mut again = Command::new("rsync");
        let copied = expect_success(again.args(["-aXi"]).arg(format!("{source}/")).arg(at.join("synced")));
        assert_eq!(copied, "", "nothing is left to be copied, {when}");
    };
    compare("at once");
    site.until_uploaded();
    compare("when it is uploaded");
    site.again();
    compare("after a remount");
    site.scan();
    compare("after a scan");
    let runs = expect_success(&mut Command::new(at.join("copied/bin/tool")));
    assert_eq!(runs, "it runs\n");

    // What was answered survives the daemon, whether the file was ever written to or not.
    run(
        &at,
        &format!(
            "chmod 600 {big}; setfattr -n user.note -v big {big}; touch -m -d '2002-02-02 02:02:02.22 UTC' {big}; chmod 711 copied/bin",
            big = super::BIG
        ),
    );
    site.library.kill9();
    site.library.mount();
    let shows = |path: &str| {
        let shown = fs::metadata(at.join(path)).expect("stat");
        (shown.permissions().mode() & 0o7777, shown.mtime(), shown.mtime_nsec())
    };
    let big = (0o600, 1_012_615_322, 220_000_000);
    assert_eq!(shows(super::BIG), big);
    assert_eq!(shows("copied/bin").0, 0o711);
    site.scan();
    run(&at, &format!("mv {} copied/big", super::BIG));
    assert_eq!(shows("copied/big"), big);
    assert_eq!(note(&at.join("copied/big")), "big");
    site.scan();
    assert_eq!(shows("copied/big"), big);

    // What another has put there is as old as he has made it; the rest belongs to the name.
    // In another second, so that even times of whole seconds tell the versions apart.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    site.server.put(b"copied/big", b"another's");
    site.scan();
    let theirs = shows("copied/big");
    assert_eq!(fs::read(at.join("copied/big")).expect("read"), b"another's");
    assert!(theirs.0 == 0o600 && theirs.1 > big.1, "{theirs:?}");
    assert_eq!(note(&at.join("copied/big")), "big");
    run(&at, "rm -f copied/big; printf new > copied/big");
    assert_eq!(shows("copied/big").0, 0o644);
    let fresh = Command::new("getfattr")
        .arg("-n")
        .arg("user.note")
        .arg(at.join("copied/big"))
        .output();
    assert!(!fresh.expect("run getfattr").status.success());
    site.until_uploaded();
    site.library.unmount();
}

#[test]
fn attributes_hold_over_an_s3_store() {
    attributes_hold(&mut Site::over(SeaweedFs::start(), &[]));
}

#[test]
fn attributes_hold_over_samba() {
    attributes_hold(&mut Site::over(Samba::start(), &[]));
}

#[test]
fn attributes_hold_over_a_webdav_server() {
    attributes_hold(&mut Site::over(Apache::start(), &[]));
}

#[test]
fn attributes_hold_over_an_sftp_server() {
    attributes_hold(&mut Site::over(Sshd::start(), &[]));
}

/// A clone with programs in it stays clean.
fn a_clone_stays_clean(site: &mut Site) {
    let (at, origin) = (site.library.at().join("s"), tempfile::tempdir().expect("make a folder"));
    run(
        origin.path(),
        r"
        git init -q -b main .; git config user.name t; git config user.email t@localhost
        printf 'echo a\n' > tool; chmod +x tool; printf text > text; mkdir d; printf more > d/more
        git add .; git commit -q -m first
        ",
    );
    let clone = format!("git clone -q file://{} clone", origin.path().display());
    run(&at, &clone);
    let clone = at.join("clone");
    run(
        &clone,
        r"
        test $(git config core.fileMode) = true
        git config user.name t; git config user.email t@localhost
        printf changed >> text; chmod +x d/more; git commit -q -a -m second
        git show --summary HEAD | grep -q 'mode change 100644 => 100755 d/more'
        ",
    );
    let is_clean = |when: &str| {
        let status = expect_success(Command::new("git").args(["status", "--porcelain"]).current_dir(&clone));
        assert_eq!(status, "", "{when}");
    };
    is_clean("at once");
    site.until_uploaded();
    is_clean("when it is uploaded");
    site.again();
    site.scan();
    is_clean("after a remount and a scan");
    run(&clone, "git gc -q; git fsck --strict; git push -q origin HEAD:second");
    is_clean("after it was packed");
    site.until_uploaded();
    site.library.unmount();
}

#[test]
fn a_clone_stays_clean_over_an_s3_store() {
    a_clone_stays_clean(&mut Site::over(SeaweedFs::start(), &[]));
}

#[test]
fn a_clone_stays_clean_over_samba() {
    a_clone_stays_clean(&mut Site::over(Samba::start(), &[]));
}

#[test]
fn what_cannot_be_stored_is_refused_where_nothing_is_to_be_kept() {
    let site = Site::over(SeaweedFs::start(), &[("write", "back"), ("attributes", "refuse")]);
    let file = site.at(super::BIG);
    let refused = |done: io::Result<()>| assert_eq!(done.map_err(|error| error.raw_os_error()), Err(Some(EOPNOTSUPP)));
    refused(fs::set_permissions(&file, fs::Permissions::from_mode(0o700)));
    refused(std::os::unix::fs::chown(&file, Some(12), None));
    let set = Command::new("setfattr")
        .args(["-n", "user.a", "-v", "b"])
        .arg(&file)
        .output();
    let said = String::from_utf8_lossy(&set.expect("run setfattr").stderr).into_owned();
    assert!(said.contains("not supported"), "{said}");
    fs::write(site.at("new"), "x").expect("write");
    assert_eq!(
        fs::metadata(site.at("new")).expect("stat").permissions().mode() & 0o7777,
        0o644
    );
    // And it can be changed while the library is mounted.
    let keep = ["source", "set", "/s", "attributes=keep"];
    expect_success(site.library.command().args(keep));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("chmod");
    let wrong = site
        .library
        .command()
        .args(["source", "set", "/s", "attributes=drop"])
        .output();
    let said = String::from_utf8_lossy(&wrong.expect("run manifold").stderr).into_owned();
    assert!(said.contains("keep, refuse"), "{said}");
}

#[test]
fn a_further_name_for_a_file_is_refused_and_programs_do_without() {
    let site = Site::over(SeaweedFs::start(), &[]);
    fs::write(site.at("a"), "x").expect("write");
    let linked = fs::hard_link(site.at("a"), site.at("b")).map_err(|error| error.raw_os_error());
    assert_eq!(linked, Err(Some(EOPNOTSUPP)));
    let pointed = std::os::unix::fs::symlink("a", site.at("c")).map_err(|error| error.raw_os_error());
    assert_eq!(pointed, Err(Some(EOPNOTSUPP)));
}
