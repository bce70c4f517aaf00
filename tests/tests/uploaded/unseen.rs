//! Files that are removed, renamed and replaced while their server is away, after their uploads have arrived there unseen.

use super::*;

/// So that no source is asked anew what became of an upload before the daemon is killed.
const PATIENT: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"60 s\"\nmetadata = \"60 s\"\n";

/// Waits until the server has these files, and kills the daemon, which does not know. It is mounted again while the server is away.
fn arrives_unseen(site: &mut Site, names: &[&str]) {
    let end = Instant::now() + DEADLINE;
    while !names.iter().all(|name| site.server.has(name.as_bytes())) {
        assert!(Instant::now() < end, "{}", site.library.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_ne!(
        site.status()["uploads"]["waiting"],
        0,
        "its upload is known to have arrived"
    );
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
}

fn removed_and_renamed_while_away(server: impl Server + 'static, request: &'static [u8]) {
    let mut site = Site::with(server, PATIENT, &[]);
    site.server.line().fail(Fault::Unanswered { request });
    for name in ["removed", "renamed", "replaced"] {
        fs::write(site.at(name), name).expect("a write needs no source");
    }
    arrives_unseen(&mut site, &["removed", "renamed", "replaced"]);
    fs::remove_file(site.at("removed")).expect("a removal needs no source");
    fs::rename(site.at("renamed"), site.at("other")).expect("a rename needs no source");
    for text in ["first", "second"] {
        fs::write(site.at("temporary"), text).expect("a write needs no source");
        fs::rename(site.at("temporary"), site.at("replaced")).expect("a rename needs no source");
    }
    let left = [BIG, "other", "replaced"];
    assert_eq!(names(&site.at("")), left);
    site.library.kill9();
    site.library.mount();
    assert_eq!(names(&site.at("")), left, "after a kill too");
    site.server.line().heal();
    site.until("all is taken away", |status| {
        status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0
    });
    expect_success(site.library.command().args(["scan", "/s"]));
    assert_eq!(names(&site.at("")), left);
    let look = site.look();
    assert_eq!(names(&look.at()), left);
    for (name, bytes) in [("other", "renamed"), ("replaced", "second")] {
        assert_eq!(fs::read_to_string(look.at().join(name)).expect("read"), bytes);
    }
}

#[test]
fn what_has_arrived_unseen_at_an_s3_server_goes_with_its_name() {
    removed_and_renamed_while_away(SeaweedFs::start(), b"PUT ");
}

#[test]
fn what_has_arrived_unseen_at_a_webdav_server_goes_with_its_name() {
    removed_and_renamed_while_away(Apache::start(), b"PUT ");
}

/// What gives a file on a share a name of three letters (`FILE_RENAME_INFORMATION`, MS-FSCC 2.4.42): from its root on.
const NAMED: &[u8] = b"\0\0\0\0\0\0\0\0\x06\0\0\0";

/// To Samba the two names are one.
#[test]
fn what_has_arrived_unseen_on_samba_is_taken_away_before_its_name_comes_back_in_another_case() {
    let mut site = Site::with(Samba::start(), PATIENT, &[]);
    for is_removed in [false, true] {
        site.server.line().fail(Fault::Unanswered { request: NAMED });
        fs::write(site.at("new"), "bytes").expect("a write needs no source");
        arrives_unseen(&mut site, &["new"]);
        if is_removed {
            fs::remove_file(site.at("new")).expect("a removal needs no source");
            fs::write(site.at("NEW"), "bytes").expect("a write needs no source");
        } else {
            fs::rename(site.at("new"), site.at("NEW")).expect("a rename needs no source");
        }
        assert_eq!(names(&site.at("")), ["NEW", BIG]);
        site.server.line().heal();
        site.until("all is taken away", |status| {
            status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0
        });
        expect_success(site.library.command().args(["scan", "/s"]));
        for folder in [site.at(""), site.look().at()] {
            assert_eq!(names(&folder), ["NEW", BIG]);
            assert_eq!(fs::read_to_string(folder.join("NEW")).expect("read"), "bytes");
        }
        fs::remove_file(site.at("NEW")).expect("remove");
    }
}
