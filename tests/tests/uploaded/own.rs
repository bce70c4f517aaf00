//! An upload arrives, its answer does not, the file is changed since, and the daemon is killed: what the source has then is our
//! own, and no conflict.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Apache, SeaweedFs};

use super::{DEADLINE, Site, pattern};

const NAME: &str = "doc";

/// How the file is changed after it was sent.
#[derive(Clone, Copy, Debug)]
enum Since {
    /// It is saved anew.
    Saved,
    /// It is written to in place, and neither closed nor synced.
    Written,
}

impl Site {
    /// Waits until the server has a file, past whatever stands before it.
    fn until_there(&self, bytes: &[u8]) {
        let end = Instant::now() + DEADLINE;
        let look = self.look();
        loop {
            let scanned = look.0.command().args(["scan", "/s"]).status();
            assert!(scanned.expect("run manifold").success());
            if fs::read(look.at().join(NAME)).is_ok_and(|there| there == bytes) {
                return;
            }
            assert!(Instant::now() < end, "it did not arrive: {}", self.library.log());
        }
    }
}

fn is_known_again(site: &mut Site, since: Since) {
    let (before, sent, saved) = (pattern(50_000, 1), pattern(70_000, 2), pattern(60_000, 3));
    fs::write(site.at(NAME), &before).expect("write");
    site.until_uploaded();
    site.server.line().fail(Fault::Unanswered { request: b"PUT " });
    fs::write(site.at(NAME), &sent).expect("write");
    site.until_there(&sent);
    let mut expected = saved.clone();
    let open = match since {
        Since::Saved => {
            fs::write(site.at(NAME), &saved).expect("write");
            None
        }
        Since::Written => {
            let file = OpenOptions::new().write(true).open(site.at(NAME)).expect("open");
            file.write_all_at(b"in place", 1_000).expect("write");
            expected.clone_from(&sent);
            expected[1_000..1_008].copy_from_slice(b"in place");
            Some(file)
        }
    };
    site.library.kill9();
    drop(open);
    site.server.line().heal();
    site.library.mount();
    let here = fs::read(site.at(NAME)).expect("read");
    assert!(here == expected, "{since:?}: the file is another after the crash");
    site.until_uploaded();
    assert_eq!(site.status()["uploads"]["conflicts"], 0, "{since:?}");
    let look = site.look();
    assert!(fs::read(look.at().join(NAME)).expect("read") == expected, "{since:?}");
    let names = fs::read_dir(look.at()).expect("list").count();
    assert_eq!(
        names, 2,
        "{since:?}: nothing stands beside it but what was there before"
    );
    fs::remove_file(site.at(NAME)).expect("remove");
}

#[test]
fn what_arrived_unseen_on_a_webdav_server_is_known_again_after_a_crash() {
    let mut site = Site::over(Apache::start(), &[]);
    for since in [Since::Saved, Since::Written] {
        is_known_again(&mut site, since);
    }
    site.library.unmount();
}

#[test]
fn what_arrived_unseen_in_an_s3_store_is_known_again_after_a_crash() {
    let mut site = Site::over(SeaweedFs::start(), &[]);
    for since in [Since::Saved, Since::Written] {
        is_known_again(&mut site, since);
    }
    site.library.unmount();
}
