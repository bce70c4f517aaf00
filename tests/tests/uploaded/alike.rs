//! Files that their source does not tell apart: of one length, and written in one second. Each is what it is, whatever names they are
//! given.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::SystemTime;

use manifold_tests::servers::{Nginx, Vsftpd};

use super::*;

/// When all of them were written.
const WRITTEN: Duration = Duration::from_secs(1_600_000_000);
const LENGTH: usize = 5_000;
/// More than is put into the cache when it is uploaded.
const LONG: usize = 17_000_000;
const PIECE: usize = 1_000_000;

fn over(server: impl Server + 'static) -> Site {
    let names = ["a", "b", "c", "d", "e", "f", "one/x", "two/x"];
    let site = with(server, names.into_iter().zip(10..), LENGTH);
    for name in names {
        fs::read(site.at(name)).expect("read");
    }
    site
}

/// Two files that are not read yet: as seeds 30 and 31.
fn with_long(server: impl Server + 'static, names: [&str; 2]) -> Site {
    with(server, names.into_iter().zip(30..), LONG)
}

fn with<'a>(server: impl Server + 'static, files: impl Iterator<Item = (&'a str, u64)>, length: usize) -> Site {
    let below = server
        .root()
        .expect("a server with a folder of this machine")
        .to_owned();
    for (name, seed) in files {
        server.put(name.as_bytes(), &pattern(length, seed));
        if let Some((folder, _)) = name.split_once('/') {
            let all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(below.join(folder), all).expect("open it for the server");
        }
        let file = File::options().write(true).open(below.join(name)).expect("open");
        file.set_modified(SystemTime::UNIX_EPOCH + WRITTEN)
            .expect("set the time");
    }
    Site::over(server, &[])
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

/// `script` sees to it that another file comes to the place of one that is open.
fn who_reads_on_gets_what_he_has_opened_or_is_told(site: &Site, name: &str, script: &str) {
    let file = File::open(site.at(name)).expect("open");
    let mut piece = vec![0; PIECE];
    file.read_exact_at(&mut piece, 0).expect("read");
    run(&site.at(""), script);
    let former = pattern(LONG, 30);
    for (at, part) in (0..).step_by(PIECE).zip(former.chunks(PIECE)) {
        match file.read_exact_at(&mut piece, at) {
            Ok(()) => assert!(piece == part, "of another file, at {at}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ESTALE), "{error}"),
        }
    }
    assert!(fs::read(site.at(name)).expect("read") == pattern(LONG, 31));
}

fn another_comes_to_its_place<S: Server + 'static>(start: impl Fn() -> S) {
    let site = with_long(start(), ["long", "other"]);
    who_reads_on_gets_what_he_has_opened_or_is_told(&site, "long", "mv other long");
    let site = with_long(start(), ["long", "other"]);
    who_reads_on_gets_what_he_has_opened_or_is_told(&site, "long", "rm long; mv other long");
    let site = with_long(start(), ["one/x", "two/x"]);
    who_reads_on_gets_what_he_has_opened_or_is_told(&site, "one/x", "rm -r one; mv two one");
    let site = with_long(start(), ["one/x", "two/x"]);
    who_reads_on_gets_what_he_has_opened_or_is_told(&site, "one/x", "mv one gone; mv two one; rm gone/x");
}

/// Writes a file twice within a second, and reads it in between and after a restart.
fn what_was_written_last_is_read(mut site: Site) {
    let below = site.server.root().expect("a folder of this machine").join("a");
    let changed = || fs::metadata(&below).expect("look").modified().expect("a time");
    // On a machine that has much to do it takes many tries.
    let end = Instant::now() + 5 * DEADLINE;
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

/// A file that is written anew, and given its old time: its version comes round again.
#[test]
fn a_version_that_comes_round_again_is_not_taken_for_the_former() {
    let mut site = over(Sshd::start());
    let save = |site: &Site, name: &str, length: usize, seed: u64| {
        fs::write(site.at(name), pattern(length, seed)).expect("write");
        let file = File::options().write(true).open(site.at(name)).expect("open");
        file.set_modified(SystemTime::UNIX_EPOCH + WRITTEN)
            .expect("set the time");
        drop(file);
        site.until_uploaded();
        assert!(fs::read(site.at(name)).expect("read") == pattern(length, seed));
    };
    for seed in 0..3 {
        save(&site, "small", LENGTH, seed);
        save(&site, "long", LONG, seed);
    }
    run(&site.at(""), "mv small s; mv long l");
    for (name, length) in [("s", LENGTH), ("l", LONG)] {
        save(&site, name, length, 7);
    }
    run(&site.at(""), "mv s small; mv l long");
    let holds = |site: &Site, more: &[u8]| {
        for (name, length) in [("small", LENGTH), ("long", LONG)] {
            let found = fs::read(site.at(name)).expect("read");
            assert!(found == [&pattern(length, 7), more].concat(), "{name}");
        }
    };
    holds(&site, b"");
    site.library.unmount();
    site.library.mount();
    holds(&site, b"");
    run(&site.at(""), "printf more >>small; printf more >>long");
    site.until_uploaded();
    holds(&site, b"more");
    site.library.unmount();
}

/// The answer to a rename is lost, or the daemon dies before it comes: nobody knows which of the two files has the name.
#[test]
fn what_a_rename_without_an_answer_has_replaced_is_not_read_any_more() {
    for dies in [false, true] {
        let mut site = over(Nginx::start());
        let below = site.server.root().expect("a folder of this machine").join("b");
        site.server.line().fail(Fault::Unanswered { request: b"MOVE " });
        let (from, to) = (site.at("a"), site.at("b"));
        let renaming = std::thread::spawn(move || fs::rename(from, to));
        let end = Instant::now() + DEADLINE;
        while fs::read(&below).expect("read") != pattern(LENGTH, 10) {
            assert!(Instant::now() < end, "the server never renames");
            std::thread::sleep(Duration::from_millis(5));
        }
        if dies {
            site.library.kill9();
        }
        renaming.join().expect("no panic").expect_err("there was no answer");
        site.server.line().heal();
        if dies {
            site.library.mount();
        }
        while !site
            .library
            .command()
            .args(["scan", "/s"])
            .status()
            .expect("scan")
            .success()
        {
            assert!(Instant::now() < end, "it is never scanned");
        }
        holds(&site, "b", 10);
        run(&site.at(""), "printf more >>b");
        site.until_uploaded();
        let longer = [pattern(LENGTH, 10), b"more".to_vec()].concat();
        assert!(fs::read(&below).expect("read") == longer);
        site.library.unmount();
    }
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
    another_comes_to_its_place(Sshd::start);
}

#[test]
fn who_reads_on_from_an_ftp_server_gets_what_he_has_opened_or_is_told() {
    another_comes_to_its_place(Vsftpd::start);
}

#[test]
fn who_reads_on_from_a_webdav_server_that_counts_seconds_gets_what_he_has_opened_or_is_told() {
    another_comes_to_its_place(Nginx::start);
}
