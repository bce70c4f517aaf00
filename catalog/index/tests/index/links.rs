//! Where symbolic links point is known when their directory has been listed.

use std::sync::Arc;

use manifold_backends::{ErrorKind, Timestamp, Version};
use tempfile::tempdir;

use crate::library::Library;
use crate::support::{Fault, Scripted, source};

fn target(library: &Library, path: &str) -> Option<String> {
    let target = library.catalog.link_target(library.id(path)).unwrap();
    target.map(|target| String::from_utf8_lossy(&target).into_owned())
}

/// Many links in two directories, and a file.
fn grow(source: &Arc<Scripted>, links: usize) {
    source.directory("d").file("d/file", 1);
    for number in 0..links {
        source.symlink(&format!("d/{number:03}"), format!("to/{number}").as_bytes());
    }
    source.symlink("top", b"d/000");
}

fn all_known(library: &Library, links: usize) {
    for number in 0..links {
        let known = target(library, &format!("/s/d/{number:03}"));
        assert_eq!(known, Some(format!("to/{number}")));
    }
    assert_eq!(target(library, "/s/top").as_deref(), Some("d/000"));
    assert_eq!(target(library, "/s/d/file"), None);
}

#[tokio::test(start_paused = true)]
async fn a_scan_reads_every_link_once_for_each_version() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 150);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    all_known(&library, 150);
    assert_eq!(source.link_reads(), 151);
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(source.link_reads(), 151, "their versions are what they were");
    source.symlink("d/007", b"elsewhere");
    library.list("/s/d").await;
    assert_eq!(target(&library, "/s/d/007").as_deref(), Some("elsewhere"));
    assert_eq!(source.link_reads(), 152);
    // It outlives the process, and needs no source.
    library.catalog.sync().unwrap();
    drop(library);
    let library = Library::open(folder.path());
    source.go_away(ErrorKind::Unreachable);
    assert_eq!(target(&library, "/s/d/149").as_deref(), Some("to/149"));
    assert_eq!(target(&library, "/s/d/007").as_deref(), Some("elsewhere"));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_opens_has_its_links_at_once() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 100);
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    library.list("/s/d").await;
    all_known(&library, 100);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_cannot_be_read_does_no_harm_to_the_listing() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 5);
    source
        .fault("d/001", Fault::Refuse(ErrorKind::PermissionDenied))
        .fault("d/002", Fault::Refuse(ErrorKind::Other));
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    library.list("/s/d").await;
    assert_eq!(library.names("/s/d"), ["000", "001", "002", "003", "004", "file"]);
    let state = library.catalog.directory_state(library.id("/s/d")).unwrap().unwrap();
    assert!(state.failure.is_none());
    let known = ["000", "001", "002", "003"].map(|name| target(&library, &format!("/s/d/{name}")));
    assert_eq!(
        known.map(|known| known.is_some()),
        [true, false, false, true],
        "nothing is made up"
    );
    // What was refused is not asked for again; what failed is.
    let before = source.link_reads();
    source.mend("d/002");
    library.list("/s/d").await;
    assert_eq!(source.link_reads(), before + 1);
    assert_eq!(target(&library, "/s/d/002").as_deref(), Some("to/2"));
    assert_eq!(target(&library, "/s/d/001"), None);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_falls_silent_over_its_links_has_been_listed() {
    let (folder, source) = (tempdir().unwrap(), source());
    grow(&source, 100);
    source.fault("d/080", Fault::Hang);
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    library.list("/s/d").await;
    assert_eq!(library.names("/s/d").len(), 101);
    assert_eq!(target(&library, "/s/d/010").as_deref(), Some("to/10"));
    assert_eq!(target(&library, "/s/d/090"), None);
    source.mend("d/080");
    library.list("/s/d").await;
    all_known(&library, 100);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_changed_within_the_tick_of_its_version_is_read_once_more() {
    let (folder, source) = (tempdir().unwrap(), source());
    let library = Library::open(folder.path());
    library.add("/s", &source);
    let now = 1 << 50;
    source
        .symlink("fresh", b"v1")
        .symlink("etag", b"v1")
        .symlink("old", b"v1");
    for name in ["fresh", "etag"] {
        source.change(name, |metadata| metadata.modified = Some(Timestamp(now)));
    }
    source.change("etag", |metadata| metadata.version = Version::from_etag(b"\"1\""));
    library.list("/s").await;
    for name in ["fresh", "etag", "old"] {
        source.redirect(name, b"v2");
    }
    library.list("/s").await;
    let known = ["fresh", "etag", "old"].map(|name| target(&library, &format!("/s/{name}")));
    assert_eq!(known.map(|known| known.unwrap()), ["v2", "v1", "v1"]);
    assert_eq!(source.link_reads(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_look_at_a_link_reads_it() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.symlink("a", b"one");
    let library = Library::open(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    source.change("a", |metadata| metadata.version = Version::from_id(b"2"));
    source.redirect("a", b"two");
    library.indexer.refresh(library.id("/s/a")).await.unwrap();
    assert_eq!(target(&library, "/s/a").as_deref(), Some("two"));
}
