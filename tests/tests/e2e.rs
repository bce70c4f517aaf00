//! End to end: a mount that joins a local folder, SMB, S3, WebDAV and SFTP, read by applications that know nothing of
//! it, and compared with the originals.
//!
//! Needs /dev/fuse, the servers of `tests/servers/install`, and root (for the servers, and to become an ordinary user).

#[path = "e2e/added.rs"]
mod added;
#[path = "e2e/applications.rs"]
mod applications;
#[path = "e2e/changes.rs"]
mod changes;
#[path = "e2e/copies.rs"]
mod copies;
#[path = "e2e/growing.rs"]
mod growing;
#[path = "e2e/hung.rs"]
mod hung;
#[path = "e2e/installed.rs"]
mod installed;
#[path = "e2e/links.rs"]
mod links;
#[path = "e2e/originals.rs"]
mod originals;
#[path = "e2e/replaced.rs"]
mod replaced;
#[path = "e2e/undead.rs"]
mod undead;

use std::path::Path;

use manifold_tests::mounted::{Library, User, expect_success, is_mounted};
use manifold_tests::servers::{Apache, Samba, SeaweedFs, Server, Sshd};
use originals::Originals;

/// The sources of one library, all holding the same originals.
struct Sources {
    originals: Originals,
    servers: Vec<(&'static str, Box<dyn Server>)>,
}

impl Sources {
    fn start() -> Self {
        let originals = Originals::make();
        let servers: Vec<(&'static str, Box<dyn Server>)> = vec![
            ("/nas", Box::new(Samba::start())),
            ("/bucket", Box::new(SeaweedFs::start())),
            ("/dav", Box::new(Apache::start())),
            ("/remote/sftp", Box::new(Sshd::start())),
        ];
        for (_, server) in &servers {
            originals.put_into(server.as_ref());
        }
        Self { originals, servers }
    }

    /// Gives the attach points, the local one first.
    fn attached(&self) -> Vec<&'static str> {
        std::iter::once("/disk")
            .chain(self.servers.iter().map(|(attach, _)| *attach))
            .collect()
    }

    fn library(&self, user: User) -> Library {
        let mut library = Library::new(user);
        library.add_folder_with(self.originals.folder(), "/disk", &[("read_only", "true")]);
        for (attach, server) in &self.servers {
            library.add_server(server.as_ref(), attach);
        }
        library.mount();
        library
    }
}

fn below(at: &Path, attach: &str) -> std::path::PathBuf {
    at.join(attach.trim_start_matches('/'))
}

fn every_application_reads_the_originals(user: User) {
    let sources = Sources::start();
    let mut library = sources.library(user);
    let at = library.at();
    for attach in sources.attached() {
        let root = below(&at, attach);
        applications::find_shows_every_name(&library, &sources.originals, &root);
        applications::ls_shows_every_size(&library, &sources.originals, &root);
        applications::checksums_agree(&library, &sources.originals, &root);
        applications::rsync_copies_once(&library, &sources.originals, &root);
        applications::cp_and_tar_agree(&library, &sources.originals, &root);
        applications::ffprobe_and_seek_work(&library, &root);
        applications::mmap_reads_the_same(&library, &sources.originals, &root);
        applications::fifty_readers_agree(&library, &sources.originals, &root);
        applications::writing_is_refused_as_read_only(&library, &root);
    }
    applications::git_finds_nothing_changed(&library, &below(&at, "/disk"));
    applications::df_answers(&library, &at);
    applications::unmount_while_busy(&mut library, &below(&at, "/disk"));
}

#[test]
fn every_application_reads_the_originals_as_root() {
    every_application_reads_the_originals(User::Current);
}

#[test]
fn every_application_reads_the_originals_as_an_ordinary_user() {
    every_application_reads_the_originals(User::Nobody);
}

#[test]
fn a_restart_shows_the_same_tree_and_inodes_while_every_server_is_dead() {
    let sources = Sources::start();
    let mut library = sources.library(User::Current);
    let at = library.at();
    let before = applications::inodes(&at);
    assert!(before.lines().count() > sources.originals.files().len() * 5);
    library.unmount();
    for (_, server) in &sources.servers {
        server.kill9();
    }
    library.mount();
    assert_eq!(applications::inodes(&at), before);
    library.unmount();
}

#[test]
fn a_start_while_every_server_is_silent_has_the_whole_tree_and_all_cached_data() {
    let sources = Sources::start();
    let mut library = sources.library(User::Current);
    let at = library.at();
    let inodes = applications::inodes(&at);
    for attach in sources.attached() {
        applications::checksums_agree(&library, &sources.originals, &below(&at, attach));
    }
    library.unmount();
    for (_, server) in &sources.servers {
        server.pause();
    }
    library.mount();
    assert_eq!(applications::inodes(&at), inodes);
    for attach in sources.attached() {
        applications::ls_shows_every_size(&library, &sources.originals, &below(&at, attach));
        applications::checksums_agree(&library, &sources.originals, &below(&at, attach));
    }
    library.unmount();
    for (_, server) in &sources.servers {
        server.resume();
    }
}

#[test]
fn what_is_pinned_is_read_while_every_server_is_dead() {
    let sources = Sources::start();
    let mut library = sources.library(User::Current);
    let at = library.at();
    let mut pin = library.command();
    expect_success(pin.arg("pin").args(sources.attached()).arg("--wait"));
    library.unmount();
    for (_, server) in &sources.servers {
        server.kill9();
    }
    library.mount();
    for attach in sources.attached() {
        applications::checksums_agree(&library, &sources.originals, &below(&at, attach));
    }
    library.unmount();
}

#[test]
fn a_crash_leaves_nothing_that_the_next_start_cannot_mend() {
    let originals = Originals::make();
    let mut library = Library::new(User::Current);
    library.add_folder(originals.folder(), "/disk");
    library.mount();
    applications::checksums_agree(&library, &originals, &below(&library.at(), "/disk"));
    // The kernel answers for the dead mount what it knows of its root yet.
    std::fs::metadata(library.at()).expect("stat the mount point");
    library.kill9();
    assert!(
        is_mounted(&library.at()),
        "a killed daemon leaves its mount point behind"
    );
    library.mount();
    applications::checksums_agree(&library, &originals, &below(&library.at(), "/disk"));
    library.unmount();
}
