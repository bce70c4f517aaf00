//! Directories get other names while programs work in them that have them open: nothing is refused, nothing is left behind, and no old name
//! comes back.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_tests::servers::{Apache, Samba, Server, Sshd};

use super::*;

/// How often the directory gets another name.
const ROUNDS: usize = 40;

/// A name in a directory, whatever that is called by now.
fn within(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Makes, renames and removes what is its own in the directory, until it is told to end. Gives what it has left there.
fn work_in(directory: &Path, own: &str, is_over: &AtomicBool) -> Vec<String> {
    let directory = File::open(directory).expect("open the directory");
    let at = |name: &str| within(&directory, &format!("{own}-{name}"));
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        let bytes = vec![number as u8; 10 + (number % 4) * 40_000];
        fs::write(at("new"), &bytes).unwrap_or_else(|error| panic!("{own} {number}: write: {error}"));
        fs::rename(at("new"), at("file")).unwrap_or_else(|error| panic!("{own} {number}: rename: {error}"));
        fs::create_dir(at("made")).unwrap_or_else(|error| panic!("{own} {number}: mkdir: {error}"));
        fs::write(at("made/in"), own).unwrap_or_else(|error| panic!("{own} {number}: write into it: {error}"));
        fs::rename(at("made"), at("moved"))
            .unwrap_or_else(|error| panic!("{own} {number}: rename a directory: {error}"));
        assert!(fs::read(at("file")).expect("read") == bytes, "{own} {number}");
        fs::remove_file(at("moved/in")).unwrap_or_else(|error| panic!("{own} {number}: unlink: {error}"));
        fs::remove_dir(at("moved")).unwrap_or_else(|error| panic!("{own} {number}: rmdir: {error}"));
        number += 1;
    }
    fs::write(at("last"), own).expect("write");
    vec![format!("{own}-file"), format!("{own}-last")]
}

fn a_directory_is_renamed_while_it_is_worked_in(server: impl Server + 'static) {
    let site = Site::over(server, &[("write", "back")]);
    let above = site.at("above");
    fs::create_dir_all(above.join("0")).expect("make the directories");
    let is_over = AtomicBool::new(false);
    let mut left = Vec::new();
    std::thread::scope(|scope| {
        let first = above.join("0");
        let workers = ["a", "b"].map(|own| {
            let (first, is_over) = (first.clone(), &is_over);
            scope.spawn(move || work_in(&first, own, is_over))
        });
        // Both have it open by its first name.
        while ["a", "b"]
            .iter()
            .any(|own| !above.join(format!("0/{own}-file")).exists())
        {
            assert!(
                workers.iter().all(|worker| !worker.is_finished()),
                "a worker has failed"
            );
            std::thread::yield_now();
        }
        for round in 0..ROUNDS {
            let renamed = fs::rename(above.join(round.to_string()), above.join((round + 1).to_string()));
            if renamed.is_err() {
                is_over.store(true, Ordering::SeqCst);
            }
            renamed.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        is_over.store(true, Ordering::SeqCst);
        for worker in workers {
            left.extend(worker.join().expect("it worked"));
        }
    });
    left.sort();
    let last = ROUNDS.to_string();
    let is_as_left = |at: &Path| {
        assert_eq!(names(at), [last.as_str()], "no old name has come back");
        assert_eq!(names(&at.join(&last)), left);
    };
    is_as_left(&above);
    site.until_uploaded();
    let look = site.look();
    is_as_left(&look.at().join("above"));
    expect_success(site.library.command().args(["scan", "/s"]));
    is_as_left(&above);
}

#[test]
fn a_directory_of_a_share_is_renamed_while_it_is_worked_in() {
    a_directory_is_renamed_while_it_is_worked_in(Samba::start());
}

#[test]
fn a_directory_of_an_sftp_server_is_renamed_while_it_is_worked_in() {
    a_directory_is_renamed_while_it_is_worked_in(Sshd::start());
}

#[test]
fn a_directory_of_a_webdav_server_is_renamed_while_it_is_worked_in() {
    a_directory_is_renamed_while_it_is_worked_in(Apache::start());
}
