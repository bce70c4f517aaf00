//! Listings and looks.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::thread;

use futures::TryStreamExt as _;
use manifold_backends::{ErrorKind, Kind, ObjectPath, Presence};

use crate::subject::{Subject, found, told, within};

/// Threads that fill a server.
const HANDS: usize = 8;

pub(crate) const ODD_NAMES: &[&[u8]] = &[
    b"two words",
    b" leading",
    b"trailing ",
    b"per%cent",
    b"%41",
    b"100%25",
    b"quest?ion",
    b"ha#sh",
    b"plus+plus",
    b"quo\"te",
    b"apos'trophe",
    b"amp&amp;ersand",
    b"semi;colon",
    b"com,ma",
    b"back\\slash",
    b"co:lon",
    b"st*ar",
    b"<angle>",
    b"pi|pe",
    b"ti~lde",
    b"a@b",
    b"eq=ual",
    b"dol$lar",
    b"[bracket]",
    b"{brace}",
    b"ca^ret",
    b"ba`ck",
    b"(round)!",
    b"-dash",
    b".hidden",
    b"..two dots",
    b"...",
    b"new\nline",
    b"carriage\rreturn",
    b"tab\there",
    "caf\u{e9}".as_bytes(),
    "cafe\u{301}".as_bytes(),
    "\u{1f98a} fox \u{1f469}\u{200d}\u{1f680}".as_bytes(),
    "\u{5b57}\u{0627}\u{0644}".as_bytes(),
    "ß".as_bytes(),
    &[b'x'; 255],
];

pub(crate) async fn an_empty_root_lists_as_empty(subject: &Subject) {
    assert_eq!(subject.list(b"").await, []);
    assert_eq!(subject.stat(b"").await.kind, Kind::Directory);
    within(subject.backend.check())
        .await
        .unwrap_or_else(|error| panic!("{}", told(&error)));
}

pub(crate) async fn odd_names_survive(subject: &Subject) {
    let names: Vec<&[u8]> = ODD_NAMES
        .iter()
        .copied()
        .filter(|name| !subject.traits.impossible.contains(name))
        .collect();
    for directory in [&b"odd"[..], b"odd/a directory #1 %20?"] {
        for name in &names {
            let mut path = directory.to_vec();
            path.push(b'/');
            path.extend_from_slice(name);
            subject.server.put(&path, name);
        }
        let listed = subject.list(directory).await;
        let seen: BTreeSet<&[u8]> = listed
            .iter()
            .filter(|child| child.metadata.kind == Kind::File)
            .map(|child| child.name.as_slice())
            .collect();
        let put: BTreeSet<&[u8]> = names.iter().copied().collect();
        let text = |names: Vec<&&[u8]>| {
            names
                .iter()
                .map(|name| name.escape_ascii().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            text(put.difference(&seen).collect()),
            text(seen.difference(&put).collect()),
            "missing and made up"
        );
        for child in listed.iter().filter(|child| child.metadata.kind == Kind::File) {
            assert_eq!(
                child.metadata.size,
                child.name.len() as u64,
                "{}",
                child.name.escape_ascii()
            );
            let path = ObjectPath::from_bytes(directory).join(&child.name);
            let size = child.metadata.size;
            assert_eq!(subject.read(path.as_bytes(), 0..size).await, child.name, "{path}");
        }
    }
}

/// A protocol of lines cannot tell of such a name; what it can do is to tell of no other.
pub(crate) async fn a_line_break_makes_no_second_name(subject: &Subject) {
    if !subject.traits.impossible.contains(&&b"new\nline"[..]) || subject.server.root().is_none() {
        return;
    }
    let names = [
        &b"two\nlines"[..],
        b"three\nlong\nlines",
        b"ends\n",
        b"\nbegins",
        b"twice\n\n",
        b"looks\n-rw-r--r--    1 ftp      ftp          1234 Nov 05  2018 real",
        b"good",
    ];
    for name in names {
        subject.server.put(&[b"broken/", name].concat(), b"content");
    }
    let names: Vec<_> = subject.list(b"broken").await.into_iter().map(|it| it.name).collect();
    assert_eq!(names, [b"good"]);
}

pub(crate) async fn a_name_that_is_not_text_spoils_nothing(subject: &Subject) {
    if !subject.traits.raw_names {
        return;
    }
    subject.put("raw/good", b"good");
    subject.server.put(b"raw/bad \xff\xfe", b"bad");
    let listed = subject.list(b"raw").await;
    assert!(
        listed.iter().any(|child| child.name == b"good"),
        "the good name is listed"
    );
    let Some(bad) = listed.iter().find(|child| child.name != b"good") else {
        panic!("the other name is listed too");
    };
    let path = ObjectPath::from_bytes("raw").join(&bad.name);
    match within(subject.backend.stat(&path)).await {
        Ok(Presence::Found(metadata)) => assert_eq!(metadata.size, 3),
        Ok(Presence::Absent) => panic!("what is listed is not absent"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::BadPath, "{error}"),
    }
}

pub(crate) async fn directories_nest_and_may_be_empty(subject: &Subject) {
    let deep: Vec<String> = (0..50).map(|level| format!("d{level}")).collect();
    let mut path = format!("deep/{}", deep.join("/"));
    subject.put(&format!("{path}/leaf"), b"leaf");
    assert_eq!(subject.read(format!("{path}/leaf").as_bytes(), 0..4).await, b"leaf");
    let listed = subject.list(path.as_bytes()).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    while let Some((parent, name)) = path.rsplit_once('/') {
        let listed = subject.list(parent.as_bytes()).await;
        assert_eq!(listed.len(), 1, "{parent}: {listed:?}");
        assert_eq!(
            (listed[0].name.as_slice(), listed[0].metadata.kind),
            (name.as_bytes(), Kind::Directory)
        );
        assert_eq!(subject.stat(path.as_bytes()).await.kind, Kind::Directory, "{path}");
        path = parent.to_owned();
    }
    if subject.traits.empty_directories {
        subject.server.make_directory(b"nest/empty");
        assert_eq!(subject.list(b"nest/empty").await, []);
        assert_eq!(subject.stat(b"nest/empty").await.kind, Kind::Directory);
    }
}

pub(crate) async fn what_is_no_file_is_told_as_what_it_is(subject: &Subject) {
    if !subject.traits.file_types {
        return;
    }
    subject.put("types/file", b"target");
    let place = |name: &str| subject.server.file(format!("types/{name}").as_bytes());
    fs::set_permissions(place("file"), Permissions::from_mode(0o640)).expect("set the mode");
    symlink("file", place("link")).expect("make a link");
    symlink(OsStr::from_bytes(b"nowhere \xff"), place("dangling")).expect("make a link");
    symlink(".", place("loop")).expect("make a link");
    let made = Command::new("mkfifo")
        .arg(place("fifo"))
        .status()
        .expect("start mkfifo");
    assert!(made.success());
    let kinds: BTreeMap<Vec<u8>, Kind> = subject
        .list(b"types")
        .await
        .into_iter()
        .map(|child| (child.name, child.metadata.kind))
        .collect();
    let expected = [
        ("dangling", Kind::Symlink),
        ("fifo", Kind::Fifo),
        ("file", Kind::File),
        ("link", Kind::Symlink),
        ("loop", Kind::Symlink),
    ];
    assert_eq!(
        kinds,
        expected.map(|(name, kind)| (name.as_bytes().to_vec(), kind)).into()
    );
    assert_eq!(subject.stat(b"types/file").await.mode, Some(0o640));
    for (name, target) in [("link", &b"file"[..]), ("dangling", b"nowhere \xff"), ("loop", b".")] {
        let path = ObjectPath::from_bytes("types").join(name.as_bytes());
        assert_eq!(
            found(within(subject.backend.read_link(&path)).await, name),
            target,
            "{name}"
        );
    }
    // A FIFO that is opened blocks a server for good.
    let fifo = subject.stat(b"types/fifo").await;
    let path = ObjectPath::from_bytes("types/fifo");
    assert!(within(subject.backend.read(&path, &fifo.version, 0..1)).await.is_err());
    assert_eq!(subject.read(b"types/file", 0..6).await, b"target");
}

pub(crate) async fn links_tell_where_they_point(subject: &Subject) {
    if !subject.traits.links {
        return;
    }
    subject.put("links/folder/file", b"target");
    let links = ["folder/file", "nowhere/at all", ".", "a -> b", "/", "\u{e4}"].map(str::as_bytes);
    let links = [&links[..], &[b"line\nbreak", b"not \xff\xfe text"]].concat();
    let path = |index: usize| ObjectPath::from_bytes(format!("links/{index} ->"));
    for (index, target) in links.iter().enumerate() {
        let link = subject.server.file(path(index).as_bytes());
        symlink(OsStr::from_bytes(target), link).expect("make a link");
    }
    let listed = subject.list(b"links").await;
    let of_kind = |kind| listed.iter().filter(|child| child.metadata.kind == kind).count();
    assert_eq!((of_kind(Kind::Symlink), of_kind(Kind::Directory)), (links.len(), 1));
    assert_eq!(listed.len(), links.len() + 1);
    let mut paths: Vec<_> = (0..links.len()).map(path).collect();
    for (path, target) in paths.iter().zip(&links) {
        let child = listed
            .iter()
            .find(|child| child.name == path.name())
            .expect("it is listed");
        assert_eq!(child.metadata.size, target.len() as u64, "{path}");
        assert_eq!(subject.stat(path.as_bytes()).await, child.metadata, "{path}");
        let read = within(subject.backend.read_link(path)).await;
        assert_eq!(&found(read, "read it"), target, "{path}");
    }
    // Of many at once, each has its own answer.
    paths.push(ObjectPath::from_bytes("links/missing"));
    paths.push(ObjectPath::from_bytes("links/folder"));
    let mut answers = within(subject.backend.read_links(&paths)).await;
    let (folder, missing) = (answers.pop(), answers.pop());
    assert!(matches!(folder, Some(Err(_))), "a folder points nowhere: {folder:?}");
    assert!(matches!(missing, Some(Ok(Presence::Absent))), "{missing:?}");
    for (answer, target) in answers.into_iter().zip(&links) {
        assert_eq!(&found(answer, "read it"), target);
    }
}

pub(crate) async fn a_listing_and_a_look_agree(subject: &Subject) {
    for name in ["one", "two", "three"] {
        subject.put(&format!("agree/{name}"), name.as_bytes());
        subject.put(&format!("agree/folder {name}/file"), b"");
    }
    for child in subject.list(b"agree").await {
        let path = ObjectPath::from_bytes("agree").join(&child.name);
        assert_eq!(subject.stat(path.as_bytes()).await, child.metadata, "{path}");
    }
}

pub(crate) async fn what_is_missing_is_absent(subject: &Subject) {
    subject.put("there/file", b"there");
    for path in ["missing", "there/missing", "missing/below/it", "there/file/below"] {
        match within(subject.backend.stat(&ObjectPath::from_bytes(path))).await {
            Ok(Presence::Absent) => {}
            Ok(Presence::Found(metadata)) => panic!("{path}: {metadata:?}"),
            Err(error) if path == "there/file/below" && error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => panic!("{path}: {}", told(&error)),
        }
    }
    if subject.backend.capabilities().implicit_directories {
        assert_eq!(subject.list(b"missing").await, []);
        return;
    }
    for path in ["missing", "there/missing", "missing/below/it"] {
        match within(subject.backend.list(&ObjectPath::from_bytes(path))).await {
            Ok(Presence::Absent) => {}
            Ok(Presence::Found(_)) => panic!("{path} was listed"),
            Err(error) => panic!("{path}: {}", told(&error)),
        }
    }
    let file = within(subject.backend.list(&ObjectPath::from_bytes("there/file"))).await;
    let Err(error) = file else {
        panic!("a file was listed as a directory, or is absent")
    };
    assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
}

pub(crate) async fn what_may_not_be_listed_is_never_empty(subject: &Subject) {
    subject.put("shut/file", b"x");
    let path = ObjectPath::from_bytes("shut");
    if subject.server.root().is_none() {
        return;
    }
    let folder = subject.server.file(b"shut");
    let set = |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("it is ours");
    // Neither with the right to go in, nor without it.
    for mode in [0o000, 0o311] {
        set(mode);
        let listed = match within(subject.backend.list(&path)).await {
            Ok(Presence::Found(pages)) => within(pages.try_collect::<Vec<_>>()).await.map(Presence::Found),
            Ok(Presence::Absent) => Ok(Presence::Absent),
            Err(error) => Err(error),
        };
        set(0o755);
        match listed {
            // Who serves as root sees it all the same.
            Ok(Presence::Found(pages)) => assert_eq!(pages.concat().len(), 1, "mode {mode:o}"),
            Ok(Presence::Absent) => panic!("mode {mode:o}: it is there"),
            // nginx answers 500, and Apache breaks off: it is an error, and says no more than that.
            Err(_) if subject.name().starts_with("WebDAV") => {}
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::PermissionDenied,
                "mode {mode:o}: {}",
                told(&error)
            ),
        }
    }
}

pub(crate) async fn ten_thousand_names_are_all_listed(subject: &Subject) {
    const COUNT: usize = 10_000;
    thread::scope(|scope| {
        for hand in 0..HANDS {
            scope.spawn(move || {
                for number in (hand..COUNT).step_by(HANDS) {
                    subject.put(&format!("many/name {number:05}"), b"x");
                }
            });
        }
    });
    let listed = subject.list(b"many").await;
    let names: BTreeSet<Vec<u8>> = listed.iter().map(|child| child.name.clone()).collect();
    assert_eq!(listed.len(), COUNT);
    assert_eq!(
        names,
        (0..COUNT)
            .map(|number| format!("name {number:05}").into_bytes())
            .collect()
    );
}
