//! Large files whose uploads to an S3 server, or to Azure, are broken off: what has arrived is not sent again, and nothing stays at the bucket
//! that nobody will go on with. What travels is counted in bytes on the line. (`going_on.rs` has the same of servers that keep what was
//! sent beside its place.)

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use manifold_tests::mounted::expect_success;
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Azurite, SeaweedFs, Server};

use super::{DEADLINE, Site, pattern};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 200 * MIB;
/// What of it reaches the server before the line stands still.
const FIRST: u64 = 120 * MIB;
/// A part, and how many are on the way at once.
const PART: u64 = 8 * MIB;
const AT_ONCE: u64 = 4;
/// What requests take besides the bytes of parts.
const REST: u64 = 2 * MIB;
const NAME: &str = "large.bin";

/// Saves a large file, and lets the line stand still in the middle of its upload.
fn in_the_middle() -> (Site, Vec<u8>) {
    let site = Site::over(SeaweedFs::start(), &[]);
    let bytes = pattern(SIZE as usize, 5);
    stops_in_the_middle(&site, &bytes);
    assert_eq!(site.server.unfinished().len(), 1);
    (site, bytes)
}

fn stops_in_the_middle(site: &Site, bytes: &[u8]) {
    let before = site.server.line().taken();
    site.server.line().fail(Fault::Takes { bytes: FIRST });
    fs::write(site.at(NAME), bytes).expect("a write needs no source");
    site.server.line().until_taken(before + FIRST);
}

/// Waits until the file is there, and makes sure that nothing else is. Gives the bytes that travelled since.
fn arrives(site: &Site, name: &str, bytes: &[u8]) -> u64 {
    let before = site.server.line().taken();
    site.server.line().heal();
    site.until_uploaded();
    let travelled = site.server.line().taken() - before;
    assert!(
        fs::read(site.look().at().join(name)).expect("read") == bytes,
        "other bytes"
    );
    until(site, <[_]>::is_empty);
    travelled
}

/// Waits until something is so of the uploads that were begun and have not ended.
fn until(site: &Site, holds: impl Fn(&[String]) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let unfinished = site.server.unfinished();
        if holds(&unfinished) {
            return;
        }
        assert!(Instant::now() < end, "{unfinished:?}\n{}", site.library.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The most that may travel where what has arrived is not sent again.
const LEFT: u64 = SIZE - FIRST + AT_ONCE * PART + REST;

#[test]
fn an_upload_goes_on_where_it_stopped_after_the_daemon_was_killed() {
    let (mut site, bytes) = in_the_middle();
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    assert_eq!(site.server.unfinished().len(), 1);
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
    site.library.unmount();
}

#[test]
fn an_upload_to_azure_goes_on_where_it_stopped_after_the_daemon_was_killed() {
    let mut site = Site::over(Azurite::start(), &[]);
    let bytes = pattern(SIZE as usize, 7);
    stops_in_the_middle(&site, &bytes);
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
    site.library.unmount();
}

#[test]
fn an_upload_goes_on_where_it_stopped_after_an_outage_and_after_the_library_was_unmounted() {
    let (mut site, bytes) = in_the_middle();
    site.server.line().fail(Fault::Reset);
    site.until("the upload has failed", |status| status["uploads"]["delayed"] == 1);
    let before = site.server.line().taken();
    // A little more of it arrives.
    site.server.line().fail(Fault::Takes { bytes: 3 * PART });
    expect_success(site.library.command().args(["uploads", "retry"]));
    site.server.line().until_taken(before + 3 * PART);
    // Else its end waits for the upload.
    site.server.line().fail(Fault::Reset);
    site.until("the upload has failed", |status| status["uploads"]["delayed"] == 1);
    site.library.unmount();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    let travelled = arrives(&site, NAME, &bytes);
    assert!(travelled < LEFT, "{travelled} bytes were sent after {FIRST}");
}

#[test]
fn what_was_sent_of_a_file_that_is_changed_does_not_stay_and_the_file_arrives_as_it_is() {
    let (mut site, mut bytes) = in_the_middle();
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
    let mut file = fs::OpenOptions::new().append(true).open(site.at(NAME)).expect("open");
    file.write_all(b"and more").expect("write");
    drop(file);
    bytes.extend_from_slice(b"and more");
    arrives(&site, NAME, &bytes);
}

#[test]
fn what_was_sent_of_a_file_that_is_removed_or_renamed_does_not_stay() {
    let (site, bytes) = in_the_middle();
    let begun = site.server.unfinished();
    // Nothing is sent that is answered, but all else is.
    site.server.line().fail(Fault::Unanswered { request: b"PUT " });
    fs::rename(site.at(NAME), site.at("renamed.bin")).expect("rename");
    until(&site, |unfinished| !unfinished.contains(&begun[0]));
    arrives(&site, "renamed.bin", &bytes);
    stops_in_the_middle(&site, &bytes);
    assert_eq!(site.server.unfinished().len(), 1);
    site.server.line().fail(Fault::Unanswered { request: b"PUT " });
    fs::remove_file(site.at(NAME)).expect("remove");
    until(&site, <[_]>::is_empty);
    site.server.line().heal();
    assert!(!site.look().at().join(NAME).exists());
}
