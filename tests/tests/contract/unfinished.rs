//! Puts that do not end: dropped, killed, out of space. They leave nothing, and take nothing away.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Error, ErrorKind, Expected, Metadata, Presence, Renames};

use crate::content::Content;
use crate::subject::{Subject, told, within};
use crate::writing::{MIB, abilities, is_absent, path, put, read, refused, stands, until_clean, workplace};

pub(crate) async fn a_put_that_is_dropped_leaves_nothing(subject: &Subject) {
    const SIZE: u64 = 20 * MIB;
    workplace(subject, "dropped").await;
    let old = Content::new(77, 40);
    let was = put(subject, "dropped/old", &old, &Expected::Absent).await;
    for name in ["dropped/new", "dropped/old"] {
        let (content, mut stop) = Content::new(SIZE, 41).stop_at(SIZE - 1);
        let backend = Arc::clone(&subject.backend);
        let object = path(name);
        let put = tokio::spawn(async move { backend.put(&object, &content, &Expected::Anything).await });
        within(stop.reached()).await;
        put.abort();
        assert!(put.await.is_err(), "{name}: it was put");
    }
    assert!(is_absent(subject, "dropped/new").await);
    stands_old(subject, "dropped/old", &was, &old).await;
    until_clean(subject, "dropped").await;
    let new = Content::new(1000, 42);
    let metadata = put(subject, "dropped/new", &new, &Expected::Absent).await;
    stands(subject, "dropped/new", &metadata, &new).await;
}

/// A put that is dropped after a moment leaves nothing, whatever it waited for by then.
pub(crate) async fn a_put_that_is_dropped_at_any_moment_leaves_nothing(subject: &Subject) {
    workplace(subject, "moments").await;
    for moment in 0..40 {
        let (object, content) = (path(&format!("moments/{moment}")), Content::new(300, moment));
        let put = subject.backend.put(&object, &content, &Expected::Absent);
        let _ended = tokio::time::timeout(Duration::from_micros(100 * moment), put).await;
    }
    until_clean(subject, "moments").await;
}

pub(crate) async fn a_directory_is_renamed_when_a_put_into_it_was_dropped(subject: &Subject) {
    const SIZE: u64 = 200_000;
    if abilities(subject).renames_directories != Renames::Whole {
        return;
    }
    for number in 0..8 {
        let (from, to) = (format!("given-up-{number}"), format!("renamed-{number}"));
        workplace(subject, &from).await;
        let (content, mut stop) = Content::new(SIZE, number).stop_at(SIZE - 1);
        let (backend, object) = (Arc::clone(&subject.backend), path(&format!("{from}/file")));
        let put = tokio::spawn(async move { backend.put(&object, &content, &Expected::Absent).await });
        within(stop.reached()).await;
        put.abort();
        assert!(put.await.is_err(), "it was put");
        let renamed = within(subject.backend.rename(&path(&from), &path(&to), false)).await;
        assert!(matches!(renamed, Ok(Presence::Found(_))), "{renamed:?}");
    }
}

async fn stands_old(subject: &Subject, name: &str, metadata: &Metadata, content: &Content) {
    assert_eq!(subject.stat(name.as_bytes()).await.version, metadata.version);
    assert!(
        read(subject, name, metadata).await == content.all(),
        "{name} holds other bytes"
    );
}

pub(crate) async fn a_server_killed_in_the_middle_loses_nothing(subject: &Subject) {
    const SIZE: u64 = 40 * MIB;
    workplace(subject, "killed").await;
    let (name, old) = ("killed/file", Content::new(900, 50));
    let was = put(subject, name, &old, &Expected::Absent).await;
    let (content, mut stop) = Content::new(SIZE, 51).stop_at(SIZE / 2);
    let (backend, expected) = (Arc::clone(&subject.backend), Expected::Version(was.version.clone()));
    let put = tokio::spawn(async move {
        let answer = backend.put(&path("killed/file"), &content, &expected).await;
        (answer, content)
    });
    within(stop.reached()).await;
    subject.server.kill9();
    stop.go();
    let (answer, content) = within(put).await.expect("the put ends");
    let error: Error = answer.expect_err("the server is gone");
    assert!(
        matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut),
        "{}",
        told(&error)
    );
    subject.server.restart();
    let there = match within(subject.backend.stat(&path(name))).await {
        Ok(Presence::Found(there)) => {
            assert!(
                read(subject, name, &there).await == old.all(),
                "the old file is not what it was"
            );
            Expected::Version(there.version)
        }
        Ok(Presence::Absent) if subject.traits.forgets => {
            workplace_again(subject, "killed").await;
            Expected::Absent
        }
        other => panic!("look at the old file: {other:?}"),
    };
    let metadata = self::put(subject, name, &content, &there).await;
    assert_eq!(subject.stat(name.as_bytes()).await, metadata);
    assert!(read(subject, name, &metadata).await == content.all());
}

async fn workplace_again(subject: &Subject, name: &str) {
    if is_absent(subject, name).await {
        workplace(subject, name).await;
    }
}

pub(crate) async fn a_full_disk_is_called_full(subject: &Subject) {
    let Some(kind) = subject.traits.when_full else { return };
    workplace(subject, "full").await;
    let disk = SmallDisk::mount(&subject.server.file(b"full"));
    let small = put(subject, "full/small", &Content::new(1000, 60), &Expected::Absent).await;
    let answer = within(
        subject
            .backend
            .put(&path("full/large"), &Content::new(8 * MIB, 61), &Expected::Absent),
    )
    .await;
    refused(answer, kind, "a put onto a full disk");
    assert!(is_absent(subject, "full/large").await);
    let late = Expected::Version(small.version.clone());
    let answer = within(
        subject
            .backend
            .put(&path("full/small"), &Content::new(8 * MIB, 62), &late),
    )
    .await;
    refused(answer, kind, "a put onto a full disk, over another");
    stands_old(subject, "full/small", &small, &Content::new(1000, 60)).await;
    until_clean(subject, "full").await;
    drop(disk);
}

/// A disk of a few megabytes.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Self {
        let data = c"size=4m,mode=0777";
        rustix::mount::mount("none", at, "tmpfs", rustix::mount::MountFlags::empty(), data)
            .unwrap_or_else(|error| panic!("mount a small disk at {} (root may): {error}", at.display()));
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH)
            .unwrap_or_else(|error| panic!("unmount {}: {error}", self.0.display()));
    }
}
