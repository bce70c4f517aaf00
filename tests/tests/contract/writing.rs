//! Changes: what is put is whole, is what the next listing tells, and replaces nothing that it was not to replace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::join_all;
use manifold_backends::{
    Attributes, Body, Condition, Error, ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Renames, Result,
    Timestamp, Version, WriteAbilities, is_temporary_name,
};

use crate::content::Content;
use crate::listing::ODD_NAMES;
use crate::subject::{Subject, found, told, within};

const MIB: u64 = 1024 * 1024;

fn path(name: &str) -> ObjectPath {
    ObjectPath::from_bytes(name)
}

fn abilities(subject: &Subject) -> WriteAbilities {
    subject.backend.capabilities().writes.expect("it can be written to")
}

fn done<T>(answer: Result<T>, what: &str) -> T {
    answer.unwrap_or_else(|error| panic!("{what}: {}", told(&error)))
}

fn refused<T>(answer: Result<T>, kind: ErrorKind, what: &str) {
    match answer {
        Ok(_) => panic!("{what} succeeded"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
    }
}

async fn put(subject: &Subject, name: &str, body: &dyn Body, expected: &Expected) -> Metadata {
    let put = within(subject.backend.put(&path(name), body, expected)).await;
    done(put, &format!("put {name} ({expected:?})"))
}

async fn is_absent(subject: &Subject, name: &str) -> bool {
    match within(subject.backend.stat(&path(name))).await {
        Ok(Presence::Absent) => true,
        Ok(Presence::Found(_)) => false,
        Err(error) => panic!("stat {name}: {}", told(&error)),
    }
}

/// Makes the directory that a property works in, where directories are real.
async fn workplace(subject: &Subject, name: &str) {
    if abilities(subject).real_directories {
        let made = within(subject.backend.create_directory(&path(name))).await;
        assert_eq!(done(made, &format!("make {name}")).kind, Kind::Directory);
    }
}

/// Reads all of what must be there, as the version that a put gave.
async fn read(subject: &Subject, name: &str, metadata: &Metadata) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < metadata.size {
        let range = bytes.len() as u64..metadata.size.min(bytes.len() as u64 + 4 * MIB);
        let piece = within(subject.backend.read(&path(name), &metadata.version, range)).await;
        bytes.extend_from_slice(&found(piece, &format!("read {name}")));
    }
    bytes
}

/// Holds what a put gave against a look and a listing, and what is there against what was sent.
async fn stands(subject: &Subject, name: &str, metadata: &Metadata, content: &Content) {
    let path = path(name);
    assert_eq!(metadata.kind, Kind::File, "{name}");
    assert_eq!(metadata.size, content.size(), "{name}");
    let seen = subject.stat(path.as_bytes()).await;
    assert_eq!(seen, *metadata, "{name}: a look tells what the put gave");
    let (directory, base) = name.rsplit_once('/').expect("it lies in a directory");
    let listed = subject.list(directory.as_bytes()).await;
    let child = listed.iter().find(|child| child.name == base.as_bytes());
    let child = child.unwrap_or_else(|| panic!("{name} is not listed"));
    assert_eq!(
        child.metadata.version, metadata.version,
        "{name}: a listing tells what the put gave"
    );
    assert_eq!(child.metadata.size, metadata.size, "{name}");
    assert_eq!(child.metadata.modified, metadata.modified, "{name}");
    assert!(
        !listed.iter().any(|child| is_temporary_name(&child.name)),
        "{name}: something unfinished is left"
    );
    assert!(
        read(subject, name, metadata).await == content.all(),
        "{name} holds other bytes"
    );
}

pub(crate) async fn every_size_is_put_and_listed_as_it_was_put(subject: &Subject) {
    workplace(subject, "sizes").await;
    for size in [0, 1, 4095, 65_536, 65_537, MIB, 5 * MIB + 123, 8 * MIB, 17 * MIB + 1] {
        let (name, content) = (format!("sizes/{size}"), Content::new(size, size));
        let metadata = put(subject, &name, &content, &Expected::Absent).await;
        stands(subject, &name, &metadata, &content).await;
    }
}

pub(crate) async fn a_large_object_is_never_whole_in_memory(subject: &Subject) {
    workplace(subject, "large").await;
    let content = Content::new(80 * MIB + 5, 1);
    let metadata = put(subject, "large/file", &content, &Expected::Anything).await;
    let most = content.most_in_memory.load(Ordering::SeqCst);
    let bound = abilities(subject).memory_max;
    assert!(most <= bound, "{most} bytes were in memory, and {bound} are the bound");
    assert!(most < content.size(), "it was all in memory");
    stands(subject, "large/file", &metadata, &content).await;
    let removed = within(subject.backend.remove_file(&path("large/file"), &Expected::Anything)).await;
    found(removed, "remove the large file");
}

pub(crate) async fn a_put_replaces_only_what_was_expected(subject: &Subject) {
    workplace(subject, "expected").await;
    let name = "expected/file";
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

pub(crate) async fn odd_names_are_put(subject: &Subject) {
    workplace(subject, "odd").await;
    let possible = |name: &&&[u8]| !subject.traits.impossible.contains(*name);
    for name in ODD_NAMES.iter().filter(possible) {
        let object = path("odd").join(name);
        let content = Content::new(name.len() as u64, 4);
        let answer = within(subject.backend.put(&object, &content, &Expected::Absent)).await;
        let metadata = done(answer, &format!("put {object}"));
        assert_eq!(subject.stat(object.as_bytes()).await, metadata, "{object}");
        assert_eq!(
            subject.read(object.as_bytes(), 0..metadata.size).await,
            content.all(),
            "{object}"
        );
    }
    let listed = subject.list(b"odd").await;
    for name in ODD_NAMES.iter().filter(possible) {
        assert!(
            listed.iter().any(|child| child.name == **name),
            "{} is not listed",
            name.escape_ascii()
        );
        let removed = within(
            subject
                .backend
                .remove_file(&path("odd").join(name), &Expected::Anything),
        )
        .await;
        found(removed, &format!("remove {}", name.escape_ascii()));
    }
}

pub(crate) async fn nothing_is_put_into_a_directory_that_is_not_there(subject: &Subject) {
    let content = Content::new(100, 5);
    let answer = within(
        subject
            .backend
            .put(&path("nowhere/deep/file"), &content, &Expected::Absent),
    )
    .await;
    if abilities(subject).real_directories {
        refused(answer, ErrorKind::NotADirectory, "a put into a missing directory");
        let made = within(subject.backend.create_directory(&path("nowhere/deep"))).await;
        refused(made, ErrorKind::NotADirectory, "a directory in a missing one");
        assert!(is_absent(subject, "nowhere").await, "the directory was made");
    } else {
        stands(subject, "nowhere/deep/file", &done(answer, "put"), &content).await;
    }
}

pub(crate) async fn directories_are_made_and_removed(subject: &Subject) {
    if !subject.traits.markers {
        return;
    }
    let backend = &subject.backend;
    let create = async |name: &str| within(backend.create_directory(&path(name))).await;
    let remove = async |name: &str| within(backend.remove_directory(&path(name))).await;
    assert_eq!(done(create("made").await, "make").kind, Kind::Directory);
    refused(create("made").await, ErrorKind::Exists, "the same directory");
    done(create("made/inner ä").await, "make within");
    let listed = subject.list(b"made").await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        (&*listed[0].name, listed[0].metadata.kind),
        ("inner ä".as_bytes(), Kind::Directory)
    );
    assert_eq!(subject.list("made/inner ä".as_bytes()).await, []);

    let content = Content::new(10, 6);
    let metadata = put(subject, "made/inner ä/file", &content, &Expected::Absent).await;
    refused(
        create("made/inner ä/file").await,
        ErrorKind::Exists,
        "a directory over a file",
    );
    refused(
        remove("made/inner ä/file").await,
        ErrorKind::NotADirectory,
        "a file as a directory",
    );
    refused(
        remove("made/inner ä").await,
        ErrorKind::NotEmpty,
        "a directory with a file",
    );
    refused(
        remove("made").await,
        ErrorKind::NotEmpty,
        "a directory with a directory",
    );
    let over = within(backend.put(&path("made/inner ä"), &content, &Expected::Anything)).await;
    refused(over, ErrorKind::IsADirectory, "a put over a directory");
    let file = within(backend.remove_file(&path("made/inner ä"), &Expected::Anything)).await;
    refused(file, ErrorKind::IsADirectory, "a directory as a file");
    stands(subject, "made/inner ä/file", &metadata, &content).await;

    found(
        within(backend.remove_file(&path("made/inner ä/file"), &Expected::Anything)).await,
        "remove the file",
    );
    found(remove("made/inner ä").await, "remove the inner directory");
    assert_eq!(remove("made/inner ä").await.ok(), Some(Presence::Absent));
    found(remove("made").await, "remove the directory");
    assert!(is_absent(subject, "made").await);
}

pub(crate) async fn a_file_is_removed_as_it_was_expected(subject: &Subject) {
    workplace(subject, "removed").await;
    let name = "removed/file";
    let remove = async |expected: Expected| within(subject.backend.remove_file(&path(name), &expected)).await;
    let first = put(subject, name, &Content::new(10, 7), &Expected::Absent).await;
    let second = put(subject, name, &Content::new(11, 8), &Expected::Anything).await;
    refused(
        remove(Expected::Version(first.version)).await,
        ErrorKind::Conflict,
        "to remove another version",
    );
    stands(subject, name, &second, &Content::new(11, 8)).await;
    found(remove(Expected::Version(second.version.clone())).await, "remove");
    assert!(is_absent(subject, name).await);
    assert_eq!(
        remove(Expected::Version(second.version)).await.ok(),
        Some(Presence::Absent)
    );
    assert_eq!(remove(Expected::Anything).await.ok(), Some(Presence::Absent));
}

pub(crate) async fn names_are_changed(subject: &Subject) {
    let able = abilities(subject);
    workplace(subject, "names").await;
    let rename =
        async |from: &str, to: &str, replace| within(subject.backend.rename(&path(from), &path(to), replace)).await;
    let (one, two) = (Content::new(3 * MIB + 1, 9), Content::new(20, 10));
    put(subject, "names/one", &one, &Expected::Absent).await;
    put(subject, "names/two", &two, &Expected::Absent).await;
    assert_ne!(able.renames_files, Renames::No);
    refused(
        rename("names/one", "names/two", false).await,
        ErrorKind::Exists,
        "a name that is taken",
    );
    let moved = found(rename("names/one", "names/näme ?", false).await, "rename");
    stands(subject, "names/näme ?", &moved, &one).await;
    assert!(is_absent(subject, "names/one").await);
    let moved = found(rename("names/two", "names/näme ?", true).await, "rename over");
    stands(subject, "names/näme ?", &moved, &two).await;
    assert!(is_absent(subject, "names/two").await);
    assert_eq!(
        rename("names/two", "names/three", true).await.ok(),
        Some(Presence::Absent)
    );
    if able.real_directories {
        let lost = rename("names/näme ?", "names/nowhere/x", true).await;
        refused(lost, ErrorKind::NotADirectory, "into a missing directory");
        stands(subject, "names/näme ?", &moved, &two).await;
    }

    if subject.traits.markers {
        done(
            within(subject.backend.create_directory(&path("names/folder"))).await,
            "make",
        );
    }
    let kept = put(subject, "names/folder/file", &two, &Expected::Absent).await;
    match able.renames_directories {
        Renames::Whole if !subject.traits.directories_stay => {
            refused(
                rename("names/folder", "names/näme ?", true).await,
                ErrorKind::NotADirectory,
                "over a file",
            );
            refused(
                rename("names/näme ?", "names/folder", true).await,
                ErrorKind::IsADirectory,
                "over a directory",
            );
            let moved = found(rename("names/folder", "names/other", false).await, "rename a directory");
            assert_eq!(moved.kind, Kind::Directory);
            assert!(is_absent(subject, "names/folder").await);
            let there = subject.stat(b"names/other/file").await;
            assert!(read(subject, "names/other/file", &there).await == two.all());
        }
        _ => {
            let answer = rename("names/folder", "names/other", false).await;
            assert!(answer.is_err(), "{answer:?}");
            stands(subject, "names/folder/file", &kept, &two).await;
        }
    }
    if !able.real_directories {
        objects_are_copied(subject, &kept, &two).await;
    }
}

/// What has no directories to rename copies `names/folder/file`, object by object.
async fn objects_are_copied(subject: &Subject, kept: &Metadata, content: &Content) {
    let copy = async |version: &Version, to: &str| {
        within(subject.backend.copy(&path("names/folder/file"), version, &path(to))).await
    };
    let copied = found(copy(&kept.version, "names/copies/file").await, "copy");
    stands(subject, "names/copies/file", &copied, content).await;
    stands(subject, "names/folder/file", kept, content).await;
    for taken in ["names/copies/file", "names/copies"] {
        refused(copy(&kept.version, taken).await, ErrorKind::Exists, taken);
    }
    stands(subject, "names/copies/file", &copied, content).await;
    let other = put(
        subject,
        "names/folder/file",
        &Content::new(21, 30),
        &Expected::Version(kept.version.clone()),
    )
    .await;
    refused(
        copy(&kept.version, "names/copies/changed").await,
        ErrorKind::Conflict,
        "to copy another version",
    );
    assert!(is_absent(subject, "names/copies/changed").await);
    let nothing = within(
        subject
            .backend
            .copy(&path("names/nothing"), &other.version, &path("names/x")),
    )
    .await;
    assert_eq!(nothing.ok(), Some(Presence::Absent));
}

pub(crate) async fn attributes_are_kept_where_they_can_be(subject: &Subject) {
    const TIME: i64 = 1_500_000_000_123_456_700;
    let able = abilities(subject);
    workplace(subject, "attributes").await;
    let name = "attributes/file";
    let content = Content::new(12, 11).modified(Timestamp(TIME)).mode(0o640);
    let metadata = put(subject, name, &content, &Expected::Absent).await;
    stands(subject, name, &metadata, &content).await;
    let seconds = |metadata: &Metadata| metadata.modified.map(|time| time.0.div_euclid(1_000_000_000));
    let wanted = Attributes {
        modified: Some(Timestamp(TIME + 77_000_000_000)),
        mode: None,
    };
    let set = within(subject.backend.set_attributes(&path(name), &wanted)).await;
    if able.keeps_modified {
        assert_eq!(seconds(&metadata), Some(TIME / 1_000_000_000));
        let now = found(set, "set the time");
        assert_eq!(seconds(&now), Some(TIME / 1_000_000_000 + 77));
        stands(subject, name, &now, &content).await;
    } else {
        refused(set, ErrorKind::Unsupported, "to set the time");
    }
    if able.keeps_mode {
        assert_eq!(metadata.mode, Some(0o640));
        let replaced = put(subject, name, &Content::new(13, 12), &Expected::Anything).await;
        assert_eq!(replaced.mode, Some(0o640), "what replaces a file keeps its mode");
    }
}

pub(crate) async fn readers_see_the_old_or_the_new(subject: &Subject) {
    const SIZE: u64 = 3 * MIB;
    const TIMES: u64 = 12;
    workplace(subject, "read").await;
    let name = "read/file";
    let contents = Arc::new([Content::new(SIZE, 20), Content::new(SIZE + 1, 21)]);
    put(subject, name, &contents[0], &Expected::Absent).await;
    let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let at_once = abilities(subject).replaces_at_once;
    // By way of the server's own disk, where it has one.
    let disk = subject.server.root().map(|_| subject.server.file(name.as_bytes()));
    let on_disk = disk.map(|file| {
        let (over, seen, contents) = (Arc::clone(&over), Arc::clone(&seen), Arc::clone(&contents));
        let whole = contents.each_ref().map(Content::all);
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
        let whole = known.each_ref().map(Content::all);
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
        let content = &contents[(time % 2) as usize];
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

async fn stands_old(subject: &Subject, name: &str, metadata: &Metadata, content: &Content) {
    assert_eq!(subject.stat(name.as_bytes()).await.version, metadata.version);
    assert!(
        read(subject, name, metadata).await == content.all(),
        "{name} holds other bytes"
    );
}

/// Waits until nothing unfinished is listed any more.
async fn until_clean(subject: &Subject, directory: &str) {
    within(async {
        loop {
            let listed = subject.list(directory.as_bytes()).await;
            if !listed.iter().any(|child| is_temporary_name(&child.name)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
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
