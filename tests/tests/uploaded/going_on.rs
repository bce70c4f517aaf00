//! Large files whose uploads to SMB and SFTP servers are broken off: they go on behind what the server has brought to its disk, and
//! nothing stays beside their places that nobody will go on with. What travels is counted in bytes on the line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Samba, Server, Sshd};

use super::{DEADLINE, Site, pattern};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// What of it reaches the server before the line stands still.
const FIRST: u64 = 40 * MIB;
/// What the server is asked for first to bring to its disk.
const PART: u64 = 16 * MIB;
/// The most that may travel where that is not sent again. What requests take besides the bytes of a file is little.
const LEFT: u64 = SIZE - PART + 4 * MIB;
const SLOWLY: Fault = Fault::Late {
    by: Duration::from_millis(30),
};
const FOLDER: &str = "folder";
const NAME: &str = "folder/large.bin";

/// Saves a large file, and lets the line stand still in the middle of its upload until that has failed.
fn in_the_middle(server: impl Server + 'static) -> (Site, Vec<u8>) {
    let site = Site::over(server, &[]);
    let bytes = pattern(SIZE as usize, 6);
    fs::create_dir(site.at(FOLDER)).expect("make a folder");
    stops_in_the_middle(&site, &bytes);
    (site, bytes)
}

fn stops_in_the_middle(site: &Site, bytes: &[u8]) {
    let before = site.server.line().taken();
    site.server.line().fail(Fault::Takes { bytes: FIRST });
    fs::write(site.at(NAME), bytes).expect("a write needs no source");
    site.server.line().until_taken(before + FIRST);
    site.until("the upload has failed", |status| status["uploads"]["delayed"] == 1);
    assert_eq!(unfinished(site, FOLDER).len(), 1);
}

/// Lets the upload go on, so slowly that somebody comes in between. Should it arrive before, that is as well.
fn goes_on_slowly(site: &Site) {
    site.server.line().fail(SLOWLY);
    site.until("the upload goes on", |status| {
        status["uploads"]["under_way"] == 1 || status["uploads"]["waiting"] == 0
    });
}

/// Lists what lies unfinished in a folder of the server.
fn unfinished(site: &Site, folder: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(site.server.file(folder.as_bytes())).expect("list");
    let paths = listed.map(|item| item.expect("an entry").path());
    let is_unfinished = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(".manifold-"))
    };
    paths.filter(is_unfinished).collect()
}

/// Waits until something is so of what lies unfinished.
fn until(site: &Site, folder: &str, holds: impl Fn(&[PathBuf]) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let unfinished = unfinished(site, folder);
        if holds(&unfinished) {
            return;
        }
        assert!(Instant::now() < end, "{unfinished:?}\n{}", site.library.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the file is there, and makes sure that nothing else is. Gives the bytes that travelled since.
fn arrives(site: &Site, name: &str, bytes: &[u8]) -> u64 {
    let before = site.server.line().taken();
    site.server.line().heal();
    site.until_uploaded();
    let travelled = site.server.line().taken() - before;
    let there = fs::read(site.server.file(name.as_bytes())).expect("read");
    assert!(there == bytes, "other bytes");
    let (folder, _) = name.rsplit_once('/').expect("it lies in a folder");
    until(site, folder, <[_]>::is_empty);
    travelled
}

fn goes_on_after_an_outage_and_a_crash(server: impl Server + 'static) {
    let (mut site, bytes) = in_the_middle(server);
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    assert_eq!(unfinished(&site, FOLDER).len(), 1);
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
    site.library.unmount();
}

#[test]
fn an_upload_to_samba_goes_on_after_an_outage() {
    goes_on_after_an_outage(Samba::start());
}

#[test]
fn an_upload_to_an_sftp_server_goes_on_after_an_outage() {
    goes_on_after_an_outage(Sshd::start());
}

fn goes_on_after_an_outage(server: impl Server + 'static) {
    let (site, bytes) = in_the_middle(server);
    site.server.line().fail(Fault::Reset);
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
}

#[test]
fn an_upload_to_samba_goes_on_after_the_daemon_was_killed() {
    goes_on_after_an_outage_and_a_crash(Samba::start());
}

#[test]
fn an_upload_to_an_sftp_server_goes_on_after_the_daemon_was_killed() {
    goes_on_after_an_outage_and_a_crash(Sshd::start());
}

fn a_file_that_is_changed_meanwhile_arrives_as_it_is(server: impl Server + 'static) {
    let (mut site, mut bytes) = in_the_middle(server);
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    let mut file = OpenOptions::new().append(true).open(site.at(NAME)).expect("open");
    file.write_all(b"and more").expect("write");
    drop(file);
    bytes.extend_from_slice(b"and more");
    arrives(&site, NAME, &bytes);
    site.library.unmount();
}

#[test]
fn a_file_that_is_changed_meanwhile_arrives_at_samba_as_it_is() {
    a_file_that_is_changed_meanwhile_arrives_as_it_is(Samba::start());
}

#[test]
fn a_file_that_is_changed_meanwhile_arrives_at_an_sftp_server_as_it_is() {
    a_file_that_is_changed_meanwhile_arrives_as_it_is(Sshd::start());
}

fn what_somebody_has_removed_or_shortened_is_sent_anew(server: impl Server + 'static) {
    let (site, bytes) = in_the_middle(server);
    // Nothing may be on its way that makes it longer again.
    site.server.line().fail(Fault::Refuse);
    site.server.kill9();
    site.server.restart();
    fs::remove_file(&unfinished(&site, FOLDER)[0]).expect("remove");
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled >= SIZE, "{travelled} bytes were sent");
    fs::remove_file(site.at(NAME)).expect("remove");
    stops_in_the_middle(&site, &bytes);
    site.server.line().fail(Fault::Refuse);
    site.server.kill9();
    site.server.restart();
    let file = OpenOptions::new().write(true).open(&unfinished(&site, FOLDER)[0]);
    file.expect("open").set_len(PART - 1).expect("shorten");
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled >= SIZE, "{travelled} bytes were sent");
}

#[test]
fn what_somebody_has_removed_or_shortened_on_samba_is_sent_anew() {
    what_somebody_has_removed_or_shortened_is_sent_anew(Samba::start());
}

#[test]
fn what_somebody_has_removed_or_shortened_on_an_sftp_server_is_sent_anew() {
    what_somebody_has_removed_or_shortened_is_sent_anew(Sshd::start());
}

fn nothing_stays_of_a_file_that_is_renamed_or_removed(server: impl Server + 'static) {
    let (site, bytes) = in_the_middle(server);
    let begun = unfinished(&site, FOLDER);
    goes_on_slowly(&site);
    fs::rename(site.at(NAME), site.at("folder/renamed.bin")).expect("rename");
    arrives(&site, "folder/renamed.bin", &bytes);
    assert!(!begun[0].exists());
    stops_in_the_middle(&site, &bytes);
    goes_on_slowly(&site);
    fs::remove_file(site.at(NAME)).expect("remove");
    until(&site, FOLDER, <[_]>::is_empty);
    // What is left of a file is not in the way when its folder goes.
    stops_in_the_middle(&site, &bytes);
    goes_on_slowly(&site);
    fs::remove_dir_all(site.at(FOLDER)).expect("remove all");
    assert!(!site.server.file(FOLDER.as_bytes()).exists());
}

#[test]
fn nothing_stays_on_samba_of_a_file_that_is_renamed_or_removed() {
    nothing_stays_of_a_file_that_is_renamed_or_removed(Samba::start());
}

#[test]
fn nothing_stays_on_an_sftp_server_of_a_file_that_is_renamed_or_removed() {
    nothing_stays_of_a_file_that_is_renamed_or_removed(Sshd::start());
}

fn an_upload_into_a_folder_that_is_renamed_goes_on(server: impl Server + 'static) {
    let (site, bytes) = in_the_middle(server);
    goes_on_slowly(&site);
    fs::rename(site.at(FOLDER), site.at("renamed")).expect("rename");
    let travelled = arrives(&site, "renamed/large.bin", &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
}

#[test]
fn an_upload_into_a_folder_of_samba_that_is_renamed_goes_on() {
    an_upload_into_a_folder_that_is_renamed_goes_on(Samba::start());
}

#[test]
fn an_upload_into_a_folder_of_an_sftp_server_that_is_renamed_goes_on() {
    an_upload_into_a_folder_that_is_renamed_goes_on(Sshd::start());
}
