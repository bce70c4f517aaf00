//! Directories and names: made, removed, renamed, copied.

use std::sync::Arc;

use futures::TryStreamExt;
use manifold_backends::{ErrorKind, Expected, Kind, Metadata, Presence, Renames, Version};

use crate::content::Content;
use crate::subject::{Subject, found, within};
use crate::writing::{MIB, abilities, done, is_absent, path, put, read, refused, stands, workplace};

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
        put(subject, "a file", &content, &Expected::Absent).await;
        let beneath = path("a file/beneath");
        let answer = within(subject.backend.put(&beneath, &content, &Expected::Absent)).await;
        refused(answer, ErrorKind::NotADirectory, "a put beneath a file");
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

pub(crate) async fn a_directory_that_is_to_stay_stays_when_the_last_thing_in_it_goes(subject: &Subject) {
    if !subject.traits.markers {
        return;
    }
    workplace(subject, "stays").await;
    put(subject, "stays/file", &Content::new(10, 6), &Expected::Absent).await;
    for _ in 0..2 {
        done(within(subject.backend.keep_directory(&path("stays"))).await, "keep");
        assert_eq!(subject.list(b"stays").await.len(), 1, "the file alone");
    }
    let removed = within(subject.backend.remove_file(&path("stays/file"), &Expected::Anything)).await;
    found(removed, "remove the file");
    assert_eq!(subject.stat(b"stays").await.kind, Kind::Directory);
    assert_eq!(subject.list(b"stays").await, []);
    found(
        within(subject.backend.remove_directory(&path("stays"))).await,
        "remove the directory",
    );
    assert!(is_absent(subject, "stays").await);
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
    // Nothing is beneath a file.
    put(subject, name, &Content::new(12, 9), &Expected::Absent).await;
    let beneath = path("removed/file/beneath");
    match within(subject.backend.remove_file(&beneath, &Expected::Anything)).await {
        Ok(Presence::Absent) => {}
        Err(error) if error.kind() == ErrorKind::NotADirectory => {}
        other => panic!("beneath a file: {other:?}"),
    }
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

/// What looks around in a directory, an indexer or a program that lists all there is, does not keep it from getting another name.
pub(crate) async fn a_directory_is_renamed_while_what_is_in_it_is_looked_at(subject: &Subject) {
    const NAMES: [&str; 2] = ["looked-at/one", "looked-at/other"];
    if abilities(subject).renames_directories != Renames::Whole || subject.traits.directories_stay {
        return;
    }
    for directory in ["looked-at", NAMES[0], "looked-at/one/inner"] {
        workplace(subject, directory).await;
    }
    put(
        subject,
        "looked-at/one/inner/file",
        &Content::new(20, 3),
        &Expected::Absent,
    )
    .await;
    let lookers: Vec<_> = NAMES
        .into_iter()
        .flat_map(|name| [(name, true), (name, false)])
        .map(|(name, lists)| {
            let backend = Arc::clone(&subject.backend);
            let (inner, missing) = (path(&format!("{name}/inner")), path(&format!("{name}/inner/missing")));
            tokio::spawn(async move {
                loop {
                    if !lists {
                        let _nothing = backend.stat(&missing).await;
                    } else if let Ok(Presence::Found(pages)) = backend.list(&inner).await {
                        let _broken_off: Result<Vec<_>, _> = pages.try_collect().await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..60 {
        let (from, to) = (NAMES[round % 2], NAMES[(round + 1) % 2]);
        let renamed = within(subject.backend.rename(&path(from), &path(to), false)).await;
        assert!(matches!(renamed, Ok(Presence::Found(_))), "round {round}: {renamed:?}");
    }
    for looker in lookers {
        assert!(!looker.is_finished(), "it still looks");
        looker.abort();
    }
}
