//! Every name that a server can hold is listed, asked for and read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use manifold_backends::Kind;

use super::*;

/// Names as a person sees them, and as they lie on the server's disk: as they are, where the server maps them itself or
/// need not, or as a Mac wrote them.
fn names() -> Vec<(String, String)> {
    let plain = [
        "who?",
        "a*b",
        "\"quoted\"",
        "10:30",
        "back\\slash",
        "<tag>|",
        "new\nline",
        "...",
        "Inc.",
        "trailing ",
        "plain.txt",
        "with space",
        " leading",
        "100%25 %",
        "emoji 😀🏳️‍🌈",
        "nfc é",
        "nfd e\u{301}",
        "CON",
        "a'b`c$d!e#f&g;h",
        "\u{3000}ideographic\u{a0}",
        ".hidden",
        "…",
        "日本語",
    ];
    let mapped = [
        ("ends with a stop.", "ends with a stop\u{f029}"),
        ("ends with a space ", "ends with a space\u{f028}"),
    ];
    let long = "é".repeat(127) + "x";
    plain
        .into_iter()
        .map(|name| (name, name))
        .chain(mapped)
        .chain([(long.as_str(), long.as_str())])
        .map(|(name, held)| (name.to_owned(), held.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_listed_asked_for_and_read() {
    let server = Samba::start();
    for (name, held) in names() {
        server.put(format!("files/{held}").as_bytes(), name.as_bytes());
        server.put(format!("folders/{held}/inside").as_bytes(), name.as_bytes());
    }
    let backend = connect(&server).await;
    let listed: BTreeMap<Vec<u8>, Metadata> = children(&*backend, "files")
        .await
        .into_iter()
        .map(|child| (child.name, child.metadata))
        .collect();
    assert_eq!(listed.len(), names().len());
    for (name, _) in names() {
        let file = format!("files/{name}");
        let metadata = stat(&*backend, &file).await;
        assert_eq!(listed.get(name.as_bytes()), Some(&metadata), "{name:?}");
        assert_eq!(
            read_all(&*backend, &file, &metadata).await.expect("bytes"),
            name.as_bytes()
        );
        let inside = children(&*backend, &format!("folders/{name}")).await;
        assert_eq!(inside.len(), 1, "{name:?}");
        assert_eq!(inside[0].name, b"inside");
        let inside = format!("folders/{name}/inside");
        let metadata = stat(&*backend, &inside).await;
        assert_eq!(
            read_all(&*backend, &inside, &metadata).await.expect("bytes"),
            name.as_bytes()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_names_come_once_each_and_as_asking_for_one_tells_them() {
    let server = Samba::start();
    for number in 0..10_000 {
        server.put(format!("many/file number {number}").as_bytes(), b"");
    }
    let backend = connect(&server).await;
    let listing = found(backend.list(&path("many")).await);
    let pages: Vec<Vec<Child>> = listing.try_collect().await.expect("a whole listing");
    assert!(pages.len() > 1, "one page of {}", pages[0].len());
    let mut names: Vec<_> = pages.iter().flatten().map(|child| child.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10_000);
    for child in pages.iter().flatten().step_by(997) {
        let asked = found(backend.stat(&path("many").join(&child.name)).await);
        assert_eq!(asked, child.metadata);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_times_and_identities_are_those_of_the_server() {
    let server = Samba::start();
    server.put(b"file", b"four");
    server.make_directory(b"directory");
    let times = [
        (
            "file",
            SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_700),
        ),
        ("directory", SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
    ];
    for (name, time) in times {
        let file = fs::File::open(server.file(name.as_bytes())).expect("open");
        file.set_modified(time).expect("set the time");
    }
    let backend = connect(&server).await;
    let listed = children(&*backend, "").await;
    assert_eq!(listed.len(), 2);
    for (name, time) in times {
        let child = listed
            .iter()
            .find(|child| child.name == name.as_bytes())
            .expect("listed");
        assert_eq!(child.metadata, stat(&*backend, name).await);
        let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        assert_eq!(
            child.metadata.modified.map(|time| i128::from(time.0)),
            Some(since.as_nanos() as i128),
            "{name}"
        );
        assert!(child.metadata.changed.is_some() && child.metadata.identity.is_some());
    }
    let file = stat(&*backend, "file").await;
    assert_eq!((file.kind, file.size), (Kind::File, 4));
    assert_eq!(stat(&*backend, "directory").await.kind, Kind::Directory);
    fs::rename(server.file(b"file"), server.file(b"renamed")).expect("rename");
    assert_eq!(stat(&*backend, "renamed").await.identity, file.identity);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_cannot_name_or_open_does_not_spoil_a_listing() {
    let server = Samba::start();
    server.put(b"good", b"x");
    fs::write(
        server
            .root()
            .expect("files")
            .join(std::ffi::OsStr::from_bytes(b"caf\xe9")),
        b"x",
    )
    .expect("write");
    std::os::unix::fs::symlink("nowhere", server.file(b"dangling")).expect("a link");
    let fifo = std::process::Command::new("mkfifo")
        .arg(server.file(b"fifo"))
        .status()
        .expect("mkfifo");
    assert!(fifo.success());
    let backend = connect(&server).await;
    let listed = children(&*backend, "").await;
    assert!(listed.iter().any(|child| child.name == b"good"));
    for child in listed {
        // Whatever it is, asking for it and opening it end.
        let asked = backend.stat(&path("").join(&child.name)).await;
        if let Ok(Presence::Found(metadata)) = asked {
            let read = backend
                .read(&path("").join(&child.name), &metadata.version, 0..metadata.size)
                .await;
            assert!(child.name != b"good" || read.is_ok());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_any_set_up_opens_what_it_lists() {
    let ways: [&[&str]; 3] = [
        // As it comes: odd names are listed by short ones.
        &[],
        &["vfs objects = fruit streams_xattr"],
        &["vfs objects = catia fruit streams_xattr", "fruit:encoding = native"],
    ];
    for way in ways {
        let server = Samba::start_sharing(&[], way);
        for (name, _) in names() {
            server.put(format!("files/{name}").as_bytes(), name.as_bytes());
        }
        let backend = connect(&server).await;
        let mut contents = Vec::new();
        for child in children(&*backend, "files").await {
            let name = String::from_utf8(child.name).expect("a name of Unicode");
            let file = format!("files/{name}");
            assert_eq!(stat(&*backend, &file).await, child.metadata, "{way:?}: {name:?}");
            let bytes = read_all(&*backend, &file, &child.metadata).await.expect("bytes");
            contents.push(String::from_utf8(bytes).expect("a file holds its name"));
        }
        contents.sort();
        let mut all: Vec<String> = names().into_iter().map(|(name, _)| name).collect();
        all.sort();
        assert_eq!(contents, all, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_share_lists_but_does_not_open_is_not_absent() {
    let server = Samba::start_sharing(&[], &["mangled names = no"]);
    for name in ["who?", "back\\slash", "10:30", "new\nline"] {
        server.put(format!("files/{name}").as_bytes(), b"x");
        server.put(format!("folders/{name}/inside").as_bytes(), b"x");
    }
    let backend = connect(&server).await;
    for child in children(&*backend, "files").await {
        let file = path("files").join(&child.name);
        assert_eq!(kind(backend.stat(&file).await), ErrorKind::BadPath, "{file}");
        let read = backend.read(&file, &child.metadata.version, 0..1).await;
        assert_eq!(kind(read), ErrorKind::BadPath, "{file}");
        let inside = path("folders").join(&child.name).join(b"inside");
        assert_eq!(kind(backend.stat(&inside).await), ErrorKind::BadPath, "{inside}");
        assert_eq!(kind(backend.list(&inside).await), ErrorKind::BadPath, "{inside}");
    }
    for name in [
        "why?",
        "files/why?",
        "gone/who?",
        "files/who?/gone?",
        "folders/why?/inside",
    ] {
        let answer = backend.stat(&path(name)).await;
        if name == "files/who?/gone?" {
            assert_eq!(kind(answer), ErrorKind::BadPath, "{name}");
        } else {
            assert_eq!(answer.expect("an answer"), Presence::Absent, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tells_a_renamed_object_stays_with_it_though_its_birth_may_not() {
    let server = Samba::start();
    server.put(b"folder/file", b"text");
    let backend = connect(&server).await;
    let (folder, file) = (stat(&*backend, "folder").await, stat(&*backend, "folder/file").await);
    fs::rename(server.file(b"folder/file"), server.file(b"moved")).expect("rename");
    fs::rename(server.file(b"folder"), server.file(b"renamed")).expect("rename");
    let (folder_now, file_now) = (stat(&*backend, "renamed").await, stat(&*backend, "moved").await);
    assert!(folder.identity.is_some() && file.identity.is_some());
    assert_eq!(folder_now.identity, folder.identity);
    assert_eq!(file_now.identity, file.identity);
    assert_eq!((file_now.size, file_now.modified), (file.size, file.modified));
}
