//! Symbolic links at a server: where they point is known here, and needs no answer of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Server, Sshd, Vsftpd};

use crate::below;

const LINKS: usize = 200;

fn target(number: usize) -> PathBuf {
    PathBuf::from(format!("../elsewhere/{number}"))
}

/// What `ls -l` says of the links, which asks of each where it points.
fn listed(library: &Library, at: &Path) -> String {
    expect_success(library.as_user(Path::new("ls")).arg("-l").arg(at))
}

fn links_of_a_server_that_stands_still_point_where_they_did(server: &impl Server) {
    server.make_directory(b"links");
    let there = server.file(b"links");
    for number in 0..LINKS {
        symlink(target(number), there.join(format!("{number:03}"))).expect("make a link");
    }
    let mut library = Library::new(User::Current);
    library.add_server(server, "/s");
    library.mount();
    expect_success(library.command().args(["scan", "/s"]));
    let at = below(&library.at(), "/s/links");
    // The kernel has seen none of them yet.
    server.pause();
    let before = listed(&library, &at);
    for number in 0..LINKS {
        let line = format!("{number:03} -> {}\n", target(number).display());
        assert!(before.contains(&line), "no '{line}' in {before}");
    }
    library.unmount();
    library.mount();
    assert_eq!(listed(&library, &at), before, "after a restart");
    for number in 0..LINKS {
        let link = at.join(format!("{number:03}"));
        assert_eq!(fs::read_link(&link).expect("read the link"), target(number));
    }
    server.resume();
    // What has changed meanwhile is seen.
    fs::remove_file(there.join("007")).expect("remove");
    symlink("quite/elsewhere", there.join("007")).expect("make a link");
    expect_success(library.command().args(["scan", "/s/links"]));
    assert_eq!(
        fs::read_link(at.join("007")).expect("read the link"),
        Path::new("quite/elsewhere")
    );
    library.unmount();
}

#[test]
fn links_of_an_sftp_server_that_stands_still_point_where_they_did() {
    links_of_a_server_that_stands_still_point_where_they_did(&Sshd::start());
}

#[test]
fn links_of_an_ftp_server_that_stands_still_point_where_they_did() {
    links_of_a_server_that_stands_still_point_where_they_did(&Vsftpd::start());
}
