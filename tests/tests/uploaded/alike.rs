//! Files that their source does not tell apart: of one length, and written in one second. Each is what it is, whatever names they are
//! given.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use manifold_tests::servers::{Nginx, Vsftpd};

use super::*;

/// When all of them were written.
const WRITTEN: Duration = Duration::from_secs(1_600_000_000);
const LENGTH: usize = 5_000;
const LONG: usize = 40_000_000;
const PIECE: usize = 1_000_000;

fn over(server: impl Server + 'static) -> Site {
    let below = server
        .root()
        .expect("a server with a folder of this machine")
        .to_owned();
    let names = ["a", "b", "c", "d", "e", "f", "one/x", "two/x"];
    for (name, seed) in names.into_iter().zip(10..) {
        server.put(name.as_bytes(), &pattern(LENGTH, seed));
    }
    for (name, seed) in ["long", "other"].into_iter().zip(30..) {
        server.put(name.as_bytes(), &pattern(LONG, seed));
    }
    for name in names.into_iter().chain(["long", "other"]) {
        let file = File::options().write(true).open(below.join(name)).expect("open");
        file.set_modified(SystemTime::UNIX_EPOCH + WRITTEN)
            .expect("set the time");
    }
    let site = Site::over(server, &[]);
    for name in names {
        fs::read(site.at(name)).expect("read");
    }
    site
}

fn holds(site: &Site, name: &str, seed: u64) {
    let found = fs::read(site.at(name)).expect("read");
    assert!(found == pattern(LENGTH, seed), "{name} holds other bytes");
}

fn each_is_what_it_is(mut site: Site) {
    let below = site.server.root().expect("a folder of this machine").to_owned();
    run(
        &site.at(""),
        "mv a b
         rm c; mv d c
         mv e t; mv f e; mv t f
         mv one gone; mv two one",
    );
    let told = [
        ("b", 10),
        ("c", 13),
        ("e", 15),
        ("f", 14),
        ("one/x", 17),
        ("gone/x", 16),
    ];
    let all_hold = |site: &Site| {
        for (name, seed) in told {
            holds(site, name, seed);
            assert!(
                fs::read(below.join(name)).expect("read") == pattern(LENGTH, seed),
                "{name} at the server"
            );
        }
    };
    all_hold(&site);
    site.library.unmount();
    site.library.mount();
    all_hold(&site);
    run(&site.at(""), "printf more >>b");
    site.until_uploaded();
    let longer = [pattern(LENGTH, 10), b"more".to_vec()].concat();
    assert!(fs::read(below.join("b")).expect("read") == longer);
    site.library.unmount();
}

fn who_reads_on_gets_what_he_has_opened_or_is_told(site: &Site) {
    let file = File::open(site.at("long")).expect("open");
    let mut piece = vec![0; PIECE];
    file.read_exact_at(&mut piece, 0).expect("read");
    fs::rename(site.at("other"), site.at("long")).expect("rename");
    let former = pattern(LONG, 30);
    for (at, part) in (0..).step_by(PIECE).zip(former.chunks(PIECE)) {
        match file.read_exact_at(&mut piece, at) {
            Ok(()) => assert!(piece == part, "of another file, at {at}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ESTALE), "{error}"),
        }
    }
    assert!(fs::read(site.at("long")).expect("read") == pattern(LONG, 31));
}

/// Writes a file twice within a second, and reads it in between and after a restart.
fn what_was_written_last_is_read(mut site: Site) {
    let below = site.server.root().expect("a folder of this machine").join("a");
    let changed = || fs::metadata(&below).expect("look").modified().expect("a time");
    let end = Instant::now() + DEADLINE;
    for seed in (100..).step_by(2) {
        // Early in a second, so that there is time for both.
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        std::thread::sleep(Duration::from_millis(1_010 - u64::from(since.subsec_millis())));
        let written = [seed, seed + 1].map(|seed| {
            fs::write(site.at("a"), pattern(LENGTH, seed)).expect("write");
            site.until_uploaded();
            holds(&site, "a", seed);
            changed()
                .duration_since(SystemTime::UNIX_EPOCH)
                .expect("after 1970")
                .as_secs()
        });
        if written[0] == written[1] {
            site.library.unmount();
            site.library.mount();
            holds(&site, "a", seed + 1);
            return;
        }
        assert!(Instant::now() < end, "two uploads never fall into one second");
    }
}

#[test]
fn what_was_written_last_is_read_from_an_ftp_server() {
    what_was_written_last_is_read(over(Vsftpd::start()));
}

#[test]
fn what_was_written_last_is_read_from_a_webdav_server_that_counts_seconds() {
    what_was_written_last_is_read(over(Nginx::start()));
}

#[test]
fn each_is_what_it_is_on_an_sftp_server() {
    each_is_what_it_is(over(Sshd::start()));
}

#[test]
fn each_is_what_it_is_on_an_ftp_server() {
    each_is_what_it_is(over(Vsftpd::start()));
}

#[test]
fn each_is_what_it_is_on_a_webdav_server_that_counts_seconds() {
    each_is_what_it_is(over(Nginx::start()));
}

#[test]
fn who_reads_on_from_an_sftp_server_gets_what_he_has_opened_or_is_told() {
    who_reads_on_gets_what_he_has_opened_or_is_told(&over(Sshd::start()));
}

#[test]
fn who_reads_on_from_an_ftp_server_gets_what_he_has_opened_or_is_told() {
    who_reads_on_gets_what_he_has_opened_or_is_told(&over(Vsftpd::start()));
}

#[test]
fn who_reads_on_from_a_webdav_server_that_counts_seconds_gets_what_he_has_opened_or_is_told() {
    who_reads_on_gets_what_he_has_opened_or_is_told(&over(Nginx::start()));
}
