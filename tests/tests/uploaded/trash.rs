//! What is removed through the mount, is in the trash of its source, and comes back.

use super::*;

fn trash(site: &Site, arguments: &[&str]) -> String {
    expect_success(site.library.command().arg("trash").args(arguments))
}

fn removed_and_restored(server: impl Server + 'static, settings: &[(&str, &str)]) {
    let site = Site::over(
        server,
        &[&[("trash", "true"), ("write", "back")][..], settings].concat(),
    );
    run(
        &site.at(""),
        "mkdir -p albums/summer; printf one > albums/summer/one; printf 'tw o' > 'albums/summer/tw o'; printf kept > kept",
    );
    site.until_uploaded();
    run(&site.at(""), "ls -A .manifold-trash 2>/dev/null || true; rm -r albums");
    // The kernel sees at once what went where, also where it looked before.
    run(
        &site.at(""),
        "test ! -e albums; test \"$(cat .manifold-trash/*/albums/summer/one)\" = one; test \"$(find .manifold-trash -type f | wc -l)\" = 2",
    );
    let listed = trash(&site, &[]);
    assert!(listed.contains("/s/albums/summer/tw o"), "{listed}");
    let listed: Value = serde_json::from_str(&trash(&site, &["--json"])).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    let back: Value = serde_json::from_str(&trash(&site, &["restore", "/s/albums", "--json"])).expect("JSON");
    assert_eq!(back, listed);
    run(
        &site.at(""),
        "test \"$(cat albums/summer/one)\" = one; test \"$(cat 'albums/summer/tw o')\" = 'tw o'",
    );
    run(&site.at(""), "rm kept");
    let refused = site
        .library
        .command()
        .args(["trash", "empty"])
        .output()
        .expect("run it");
    assert!(!refused.status.success(), "nothing is deleted without --yes");
    let deleted = trash(&site, &["empty", "--yes", "--json"]);
    assert_eq!(deleted.trim(), r#"{"files":1,"bytes":4}"#);
    assert!(trash(&site, &[]).contains("empty"));
    // What another sees, who knows nothing of all that.
    let look = site.look();
    run(
        &look.at(),
        "test \"$(cat albums/summer/one)\" = one; test ! -e kept; test -z \"$(find .manifold-trash -type f)\"",
    );
}

#[test]
fn what_is_removed_from_s3_comes_back() {
    removed_and_restored(SeaweedFs::start(), &[]);
}

#[test]
fn what_is_removed_from_smb_comes_back() {
    removed_and_restored(Samba::start(), &[]);
}

#[test]
fn what_is_removed_from_webdav_comes_back() {
    removed_and_restored(Apache::start(), &[]);
}

#[test]
fn what_is_removed_from_sftp_comes_back() {
    removed_and_restored(Sshd::start(), &[]);
}
