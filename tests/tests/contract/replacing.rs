//! Puts that replace: only what was expected, never half, and one of many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::join_all;
use manifold_backends::{Body as _, Condition, ErrorKind, Expected, Metadata, Presence, Result};

use crate::content::Content;
use crate::subject::{Subject, within};
use crate::writing::{MIB, abilities, is_absent, path, put, read, refused, stands, until_clean, workplace};

pub(crate) async fn a_put_replaces_only_what_was_expected(subject: &Subject) {
    replaces_only_what_was_expected(subject, "expected").await;
    // A server that has taken some objects may be relied upon for more.
    workplace(subject, "several").await;
    for number in 0..6 {
        let name = format!("several/{number}");
        put(subject, &name, &Content::new(500, number), &Expected::Absent).await;
    }
    until_clean(subject, "several").await;
    replaces_only_what_was_expected(subject, "later").await;
}

async fn replaces_only_what_was_expected(subject: &Subject, directory: &str) {
    workplace(subject, directory).await;
    let name = &format!("{directory}/file");
    let backend = &subject.backend;
    let contents: Vec<Content> = (0..5).map(|seed| Content::new(1000 + seed, seed)).collect();

    let first = put(subject, name, &contents[0], &Expected::Absent).await;
    let again = within(backend.put(&path(name), &contents[1], &Expected::Absent)).await;
    refused(again, ErrorKind::Conflict, "a put where nothing should be");
    stands(subject, name, &first, &contents[0]).await;

    let second = put(subject, name, &contents[1], &Expected::Version(first.version.clone())).await;
    stands(subject, name, &second, &contents[1]).await;
    let late = within(backend.put(&path(name), &contents[2], &Expected::Version(first.version))).await;
    refused(late, ErrorKind::Conflict, "a put over another version");
    stands(subject, name, &second, &contents[1]).await;

    subject.put(name, b"of somebody else");
    let late = within(backend.put(&path(name), &contents[2], &Expected::Version(second.version))).await;
    refused(late, ErrorKind::Conflict, "a put over a foreign version");
    assert_eq!(subject.read(name.as_bytes(), 0..16).await, b"of somebody else");

    let third = put(subject, name, &contents[3], &Expected::Anything).await;
    stands(subject, name, &third, &contents[3]).await;
    subject.server.remove(name.as_bytes());
    let gone = within(backend.put(&path(name), &contents[4], &Expected::Version(third.version))).await;
    refused(gone, ErrorKind::Conflict, "a put over what is gone");
    assert!(is_absent(subject, name).await);
    let fourth = put(subject, name, &contents[4], &Expected::Anything).await;
    stands(subject, name, &fourth, &contents[4]).await;
}

pub(crate) async fn a_change_on_the_way_is_not_lost(subject: &Subject) {
    const SIZE: u64 = 9 * MIB + 77;
    workplace(subject, "between").await;
    let foreign = |name: &'static str| {
        let server = Arc::clone(&subject.server);
        move || server.put(name.as_bytes(), b"of somebody else")
    };
    let before = Content::new(500, 1);
    let was = put(subject, "between/replaced", &before, &Expected::Absent).await;
    let content = Content::new(SIZE, 2).when_read(SIZE / 2, foreign("between/replaced"));
    let expected = Expected::Version(was.version);
    let late = within(subject.backend.put(&path("between/replaced"), &content, &expected)).await;
    refused(late, ErrorKind::Conflict, "a put over what changed meanwhile");
    assert_eq!(subject.read(b"between/replaced", 0..16).await, b"of somebody else");

    let content = Content::new(SIZE, 3).when_read(SIZE / 2, foreign("between/made"));
    let late = within(subject.backend.put(&path("between/made"), &content, &Expected::Absent)).await;
    refused(late, ErrorKind::Conflict, "a put over what was made meanwhile");
    assert_eq!(subject.read(b"between/made", 0..16).await, b"of somebody else");
    until_clean(subject, "between").await;
}

pub(crate) async fn readers_see_the_old_or_the_new(subject: &Subject) {
    const SIZE: u64 = 3 * MIB;
    const TIMES: u64 = 12;
    workplace(subject, "read").await;
    let name = "read/file";
    // Each of a size of its own: where a version is a size and a time that is told in seconds or minutes, what comes back to
    // a size that it had within that time cannot be told from what it was.
    let contents: Arc<Vec<Content>> = Arc::new((0..=TIMES).map(|time| Content::new(SIZE + time, 20 + time)).collect());
    put(subject, name, &contents[0], &Expected::Absent).await;
    let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let at_once = abilities(subject).replaces_at_once;
    // By way of the server's own disk, where it has one.
    let disk = subject.server.root().map(|_| subject.server.file(name.as_bytes()));
    let on_disk = disk.map(|file| {
        let (over, seen, contents) = (Arc::clone(&over), Arc::clone(&seen), Arc::clone(&contents));
        let whole: Vec<_> = contents.iter().map(Content::all).collect();
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                match std::fs::read(&file) {
                    Ok(bytes) => assert!(whole.contains(&bytes), "{} bytes are neither", bytes.len()),
                    Err(error) => assert!(!at_once, "for a moment there was nothing: {error}"),
                }
                seen.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let (backend, flag, counter, known) = (
        Arc::clone(&subject.backend),
        Arc::clone(&over),
        Arc::clone(&seen),
        Arc::clone(&contents),
    );
    let reader = tokio::spawn(async move {
        let whole: Vec<_> = known.iter().map(Content::all).collect();
        let object = path("read/file");
        while !flag.load(Ordering::SeqCst) {
            let metadata = match within(backend.stat(&object)).await {
                Ok(Presence::Found(metadata)) => metadata,
                Ok(Presence::Absent) if !at_once => continue,
                other => panic!("look: {other:?}"),
            };
            match within(backend.read(&object, &metadata.version, 0..metadata.size)).await {
                Ok(Presence::Found(bytes)) => {
                    assert!(
                        whole.iter().any(|whole| **whole == bytes[..]),
                        "{} bytes are neither",
                        bytes.len()
                    );
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Presence::Absent) if !at_once => {}
                Err(error) if error.kind() == ErrorKind::VersionChanged => {}
                other => panic!("read: {other:?}"),
            }
        }
    });
    for time in 1..=TIMES {
        let content = &contents[time as usize];
        let metadata = put(subject, name, content, &Expected::Anything).await;
        assert_eq!(metadata.size, content.size());
        // So that there is something to be seen of each.
        let before = seen.load(Ordering::SeqCst);
        while seen.load(Ordering::SeqCst) == before && !reader.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    over.store(true, Ordering::SeqCst);
    within(reader).await.expect("the reader saw nothing wrong");
    if let Some(on_disk) = on_disk {
        on_disk.join().expect("the reader of the disk saw nothing wrong");
    }
}

pub(crate) async fn of_many_that_make_a_name_one_wins(subject: &Subject) {
    const MAKERS: u64 = 6;
    workplace(subject, "race").await;
    let name = "race/file";
    let makers = (0..MAKERS).map(|seed| {
        let backend = Arc::clone(&subject.backend);
        tokio::spawn(async move {
            let content = Content::new(MIB + seed, 30 + seed);
            let answer = within(backend.put(&path("race/file"), &content, &Expected::Absent)).await;
            (seed, answer)
        })
    });
    let mut winners = Vec::new();
    for made in join_all(makers).await {
        let (seed, answer): (u64, Result<Metadata>) = made.expect("no put panics");
        match answer {
            Ok(metadata) => winners.push((seed, metadata)),
            // Another's bytes under the version of its own.
            Err(error) if subject.traits.names_by_the_clock && error.kind() == ErrorKind::Nonsense => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    let there = subject.stat(name.as_bytes()).await;
    let bytes = read(subject, name, &there).await;
    let whole = winners
        .iter()
        .any(|(seed, _)| Content::new(MIB + seed, 30 + seed).all() == bytes);
    assert!(whole, "what is there is of none that won");
    if abilities(subject).condition != Condition::Look {
        assert_eq!(winners.len(), 1, "{winners:?}");
    }
    until_clean(subject, "race").await;
}
