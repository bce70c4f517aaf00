//! A file that is changed in place while the daemon is killed. (`crashed.rs` kills it at a thousand points.)

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use manifold_tests::servers::Samba;

use super::{Site, pattern};

#[test]
fn a_file_changed_in_place_is_whole_after_the_daemon_was_killed() {
    let mut site = Site::over(Samba::start(), &[]);
    let mut bytes = pattern(super::BIG_BYTES, 1);
    let file = OpenOptions::new().write(true).open(site.at(super::BIG)).expect("open");
    for at in [10, 1_000_000, 2_900_000] {
        file.write_all_at(b"changed", at).expect("write");
        bytes[at as usize..at as usize + 7].copy_from_slice(b"changed");
    }
    file.sync_data().expect("sync");
    file.write_all_at(b"not synced", 500_000).expect("write");
    site.library.kill9();
    drop(file);
    site.library.mount();
    site.until_uploaded();
    assert!(fs::read(site.look().at().join(super::BIG)).expect("read") == bytes);
    site.library.unmount();
}
