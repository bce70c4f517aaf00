//! Changes: what is put is whole, is what the next listing tells, and replaces nothing that it was not to replace.

use std::sync::atomic::Ordering;

use manifold_backends::{
    Attributes, Body, ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Result, Timestamp, WriteAbilities,
    is_temporary_name,
};

use crate::content::Content;
use crate::listing::ODD_NAMES;
use crate::subject::{Subject, found, told, within};

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) fn path(name: &str) -> ObjectPath {
    ObjectPath::from_bytes(name)
}

pub(crate) fn abilities(subject: &Subject) -> WriteAbilities {
    subject.backend.capabilities().writes.expect("it can be written to")
}

pub(crate) fn done<T>(answer: Result<T>, what: &str) -> T {
    answer.unwrap_or_else(|error| panic!("{what}: {}", told(&error)))
}

pub(crate) fn refused<T>(answer: Result<T>, kind: ErrorKind, what: &str) {
    match answer {
        Ok(_) => panic!("{what} succeeded"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
    }
}

pub(crate) async fn put(subject: &Subject, name: &str, body: &dyn Body, expected: &Expected) -> Metadata {
    let put = within(subject.backend.put(&path(name), body, expected)).await;
    done(put, &format!("put {name} ({expected:?})"))
}

pub(crate) async fn is_absent(subject: &Subject, name: &str) -> bool {
    match within(subject.backend.stat(&path(name))).await {
        Ok(Presence::Absent) => true,
        Ok(Presence::Found(_)) => false,
        Err(error) => panic!("stat {name}: {}", told(&error)),
    }
}

/// Makes the directory that a property works in, where directories are real.
pub(crate) async fn workplace(subject: &Subject, name: &str) {
    if abilities(subject).real_directories {
        let made = within(subject.backend.create_directory(&path(name))).await;
        assert_eq!(done(made, &format!("make {name}")).kind, Kind::Directory);
    }
}

/// Reads all of what must be there, as the version that a put gave.
pub(crate) async fn read(subject: &Subject, name: &str, metadata: &Metadata) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < metadata.size {
        let range = bytes.len() as u64..metadata.size.min(bytes.len() as u64 + 4 * MIB);
        let piece = within(subject.backend.read(&path(name), &metadata.version, range)).await;
        bytes.extend_from_slice(&found(piece, &format!("read {name}")));
    }
    bytes
}

/// Tells whether an object has the time that a put gave. A store that tells none in its answer may have taken its time a moment before
/// that, in the second before.
fn is_when_it_was_put(subject: &Subject, seen: &Metadata, put: &Metadata) -> bool {
    const MOMENT_NS: i64 = 2_000_000_000;
    match (seen.modified, put.modified) {
        (Some(seen), Some(put)) if subject.backend.capabilities().implicit_directories => {
            (0..=MOMENT_NS).contains(&(put.0 - seen.0))
        }
        (seen, put) => seen == put,
    }
}

/// Holds what a put gave against a look and a listing, and what is there against what was sent.
pub(crate) async fn stands(subject: &Subject, name: &str, metadata: &Metadata, content: &Content) {
    let path = path(name);
    assert_eq!(metadata.kind, Kind::File, "{name}");
    assert_eq!(metadata.size, content.size(), "{name}");
    let seen = subject.stat(path.as_bytes()).await;
    assert!(is_when_it_was_put(subject, &seen, metadata), "{name}: {seen:?}");
    let modified = metadata.modified;
    assert_eq!(
        Metadata { modified, ..seen },
        *metadata,
        "{name}: a look tells what the put gave"
    );
    let (directory, base) = name.rsplit_once('/').expect("it lies in a directory");
    let listed = subject.list(directory.as_bytes()).await;
    let child = listed.iter().find(|child| child.name == base.as_bytes());
    let child = child.unwrap_or_else(|| panic!("{name} is not listed"));
    assert_eq!(
        child.metadata.version, metadata.version,
        "{name}: a listing tells what the put gave"
    );
    assert_eq!(child.metadata.size, metadata.size, "{name}");
    let child = &child.metadata;
    assert!(is_when_it_was_put(subject, child, metadata), "{name}: {child:?}");
    assert!(
        !listed.iter().any(|child| is_temporary_name(&child.name)),
        "{name}: something unfinished is left"
    );
    assert!(
        read(subject, name, metadata).await == content.all(),
        "{name} holds other bytes"
    );
}

/// Waits until nothing unfinished is listed any more.
pub(crate) async fn until_clean(subject: &Subject, directory: &str) {
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

pub(crate) async fn odd_names_are_put(subject: &Subject) {
    workplace(subject, "odd").await;
    let possible = |name: &&&[u8]| !subject.traits.impossible.contains(*name);
    for name in ODD_NAMES.iter().filter(possible) {
        let object = path("odd").join(name);
        let content = Content::new(name.len() as u64, 4);
        let answer = within(subject.backend.put(&object, &content, &Expected::Absent)).await;
        let metadata = done(answer, &format!("put {object}"));
        let seen = subject.stat(object.as_bytes()).await;
        assert!(is_when_it_was_put(subject, &seen, &metadata), "{object}: {seen:?}");
        let modified = metadata.modified;
        assert_eq!(Metadata { modified, ..seen }, metadata, "{object}");
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
