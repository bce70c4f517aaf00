//! Symbolic links as small objects, where they are asked for: as on a disk here, and as rclone reads them there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifold_tests::mounted::expect_success;
use manifold_tests::servers::{Apache, Samba, SeaweedFs, Server, Sshd};

use super::{Site, run};

fn target(link: &Path) -> Option<PathBuf> {
    fs::read_link(link).ok()
}

fn links_are_kept(site: &mut Site) {
    let at = site.library.at().join("s");
    let tree = tempfile::tempdir().expect("make a folder");
    run(
        tree.path(),
        "mkdir d; printf text > d/file; ln -s d/file link; ln -s nowhere/at/all dangling; ln -s .. d/up; touch -h -d '2003-03-03 UTC' link",
    );
    let source = tree.path().display();
    run(&at, &format!("rsync -a {source}/ synced; cp -a {source} copied"));
    let compare = |when: &str| {
        for name in ["synced", "copied"] {
            let folder = at.join(name);
            assert_eq!(
                target(&folder.join("link")).as_deref(),
                Some(Path::new("d/file")),
                "{when}"
            );
            assert_eq!(
                fs::read(folder.join("link")).expect("follow the link"),
                b"text",
                "{when}"
            );
            assert_eq!(target(&folder.join("d/up")).as_deref(), Some(Path::new("..")), "{when}");
            let dangling = target(&folder.join("dangling"));
            assert_eq!(dangling.as_deref(), Some(Path::new("nowhere/at/all")), "{when}");
        }
        let mut again = Command::new("rsync");
        let copied = expect_success(again.arg("-ai").arg(format!("{source}/")).arg(at.join("synced")));
        assert_eq!(copied, "", "nothing is left to be copied, {when}");
    };
    compare("at once");
    site.until_uploaded();
    site.library.unmount();
    site.library.mount();
    compare("after a remount");
    expect_success(site.library.command().args(["scan", "/s"]));
    compare("after a scan");
    // Where they point is known here, whatever becomes of the source.
    site.server.pause();
    site.library.unmount();
    site.library.mount();
    assert_eq!(target(&at.join("synced/link")).as_deref(), Some(Path::new("d/file")));
    assert_eq!(target(&at.join("copied/d/up")).as_deref(), Some(Path::new("..")));
    site.server.resume();
    // Names change hands between links and files, and nothing is left behind.
    run(
        &at,
        r#"
        mkdir names; cd names; printf plain > f; ln -s f l; ln -s elsewhere m
        ln -sfn other l; test "$(readlink l)" = other
        mv -T l f; test "$(readlink f)" = other; ! test -e l
        printf again > g; mv -T g m; test "$(cat m)" = again; rm f
        "#,
    );
    site.until_uploaded();
    expect_success(site.library.command().args(["scan", "/s/names"]));
    run(&at, r#"test "$(ls names)" = m; test "$(cat names/m)" = again"#);
    // A link that another has made is one here.
    site.server.put(b"names/theirs.rclonelink", b"made/by/another");
    expect_success(site.library.command().args(["scan", "/s/names"]));
    assert_eq!(
        target(&at.join("names/theirs")).as_deref(),
        Some(Path::new("made/by/another"))
    );
    fs::remove_file(at.join("names/theirs")).expect("remove");
    expect_success(site.library.command().args(["scan", "/s/names"]));
    assert!(target(&at.join("names/theirs")).is_none());
    // Without the setting they are what they are.
    let look = site.look();
    assert_eq!(
        fs::read(look.at().join("synced/link.rclonelink")).expect("read"),
        b"d/file"
    );
    // And rclone takes them for links.
    let there = tempfile::tempdir().expect("make a folder");
    let mut rclone = Command::new("rclone");
    rclone
        .args(["copy", "--config", "/dev/null"])
        .arg(look.at().join("synced"))
        .arg(format!(":local,links:{}", there.path().display()));
    expect_success(&mut rclone);
    assert_eq!(target(&there.path().join("link")).as_deref(), Some(Path::new("d/file")));
    assert_eq!(
        target(&there.path().join("dangling")).as_deref(),
        Some(Path::new("nowhere/at/all"))
    );
    site.library.unmount();
}

const SETTINGS: &[(&str, &str)] = &[("write", "back"), ("links", "objects")];

#[test]
fn links_are_kept_in_an_s3_store() {
    links_are_kept(&mut Site::over(SeaweedFs::start(), SETTINGS));
}

#[test]
fn links_are_kept_on_a_share() {
    links_are_kept(&mut Site::over(Samba::start(), SETTINGS));
}

#[test]
fn links_are_kept_on_a_webdav_server() {
    links_are_kept(&mut Site::over(Apache::start(), SETTINGS));
}

#[test]
fn links_are_kept_on_an_sftp_server() {
    links_are_kept(&mut Site::over(Sshd::start(), SETTINGS));
}
