//! Files that are removed, renamed and replaced while their server is away, after their uploads have arrived there unseen.

use super::*;

fn removed_and_renamed_while_away(server: impl Server + 'static, request: &'static [u8]) {
    let mut site = Site::over(server, &[]);
    site.server.line().fail(Fault::Unanswered { request });
    for name in ["removed", "renamed", "replaced"] {
        fs::write(site.at(name), name).expect("a write needs no source");
    }
    let end = Instant::now() + DEADLINE;
    while !["removed", "renamed", "replaced"]
        .iter()
        .all(|name| site.server.has(name.as_bytes()))
    {
        assert!(Instant::now() < end, "{}", site.library.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    site.library.kill9();
    site.server.line().fail(Fault::Refuse);
    site.library.mount();
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
    removed_and_renamed_while_away(Apache::start(), b"MOVE ");
}
