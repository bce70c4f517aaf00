//! What cannot be uploaded: another has the place, there is no room, the source is not written to.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Apache, Behind, Samba, Server, Sshd};

use super::{SETTINGS, Site, pattern};

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

#[test]
fn a_file_that_another_has_changed_is_kept_beside_his_and_the_status_tells() {
    let mut site = Site::over(Apache::start(), &[]);
    site.server.put(b"report.txt", b"as it was");
    expect_success(site.library.command().args(["scan", "/s"]));
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(site.at("report.txt"))
        .expect("open");
    file.write_all(b", and what I say").expect("write");
    // Another second, so that even times of whole seconds tell the versions apart.
    std::thread::sleep(Duration::from_millis(1_100));
    site.server.put(b"report.txt", b"what the other says, which is longer");
    drop(file);
    site.until("the conflict is told", |status| status["uploads"]["conflicts"] == 1);
    site.until_uploaded();
    let look = site.look();
    let mut names: Vec<_> = fs::read_dir(look.at())
        .expect("list")
        .map(|item| item.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.starts_with("report"))
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[0].starts_with("report (conflict ") && names[0].ends_with(").txt"),
        "{names:?}"
    );
    assert_eq!(
        fs::read(look.at().join("report.txt")).expect("read"),
        b"what the other says, which is longer"
    );
    let told = expect_success(site.library.command().arg("uploads"));
    assert!(told.contains(&names[0]), "{told}");
    site.library.unmount();
}

/// A file waits in a directory in whose place another puts a file.
fn a_directory_is_replaced_by_a_file(server: impl Server + 'static, settings: &[(&str, &str)]) {
    let mut site = Site::over(server, settings);
    fs::create_dir_all(site.at("r/s")).expect("make");
    fs::write(site.at("r/s/f"), "before").expect("write");
    site.until_uploaded();
    site.server.line().fail(Fault::Refuse);
    fs::write(site.at("r/s/f"), "after it").expect("a write needs no source");
    let there = site.server.root().expect("a folder of this machine").join("r/s");
    fs::remove_dir_all(&there).expect("remove");
    site.server.put(b"r/s", b"a file");
    site.server.line().heal();
    site.until("the upload is refused", |status| status["uploads"]["refused"] == 1);
    let told = expect_success(site.library.command().arg("uploads"));
    assert!(
        told.contains("the directory that it is to lie in is not there"),
        "{told}"
    );
    let scan = site.library.command().args(["scan", "/s"]).output().expect("run");
    assert!(!scan.status.success(), "not all could be listed");
    assert_eq!(fs::read_to_string(site.at("r/s/f")).expect("read"), "after it");
    fs::remove_file(site.at("r/s/f")).expect("remove the file");
    fs::remove_dir(site.at("r/s")).expect("remove the directory");
    expect_success(site.library.command().args(["scan", "/s"]));
    assert_eq!(fs::read_to_string(site.at("r/s")).expect("read"), "a file");
    assert_eq!(site.status()["uploads"]["waiting"], 0);
    site.library.unmount();
}

#[test]
fn a_directory_that_another_has_replaced_by_a_file_can_be_removed_at_samba() {
    a_directory_is_replaced_by_a_file(Samba::start(), &[]);
}

#[test]
fn a_directory_that_another_has_replaced_by_a_file_can_be_removed_at_a_webdav_server() {
    a_directory_is_replaced_by_a_file(Apache::start(), &[]);
}

#[test]
fn a_directory_that_another_has_replaced_by_a_file_can_be_removed_at_an_sftp_server() {
    a_directory_is_replaced_by_a_file(Sshd::start(), &[("trash", "true")]);
}

#[test]
fn a_full_staging_area_is_enospc_at_write_and_what_was_written_is_uploaded() {
    let server = Behind::proxy(Samba::start());
    let mut library = Library::new(User::Current);
    library.settings(&format!("{SETTINGS}\n[staging]\nbytes = \"16 MiB\"\n"));
    library.add_server_with(&server, "/s", &[("write", "back")]);
    library.mount();
    let site = Site { server, library };
    fs::read_dir(site.at("")).expect("list").for_each(drop);
    site.server.line().fail(Fault::Refuse);
    let bytes = pattern(12 << 20, 4);
    fs::write(site.at("first"), &bytes).expect("there is room");
    let full = fs::write(site.at("second"), &bytes).map_err(|error| error.raw_os_error());
    assert_eq!(full, Err(Some(ENOSPC)));
    site.server.line().heal();
    site.until_uploaded();
    assert!(fs::read(site.look().at().join("first")).expect("read") == bytes);
    fs::write(site.at("third"), &bytes).expect("there is room again");
    site.until_uploaded();
}

#[test]
fn a_source_that_is_read_only_says_so() {
    for settings in [("read_only", "true"), ("write", "off")] {
        refuses_changes(&Site::over(Samba::start(), &[settings]));
    }
}

fn refuses_changes(site: &Site) {
    let refused = |done: io::Result<()>| assert_eq!(done.map_err(|error| error.raw_os_error()), Err(Some(EROFS)));
    refused(fs::write(site.at("new"), "x"));
    refused(fs::OpenOptions::new().write(true).open(site.at(super::BIG)).map(drop));
    refused(fs::remove_file(site.at(super::BIG)));
    refused(fs::create_dir(site.at("folder")));
}

#[test]
fn closing_through_returns_when_the_source_has_it() {
    let site = Site::over(Samba::start(), &[("write", "through")]);
    fs::write(site.at("there"), "at once").expect("write");
    let there = site.server.file(b"there");
    assert_eq!(fs::read(there).expect("it is there"), b"at once");
}
