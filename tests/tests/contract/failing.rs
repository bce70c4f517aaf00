//! Failures, each under its own name: never an absence, never an empty listing.

use std::time::Duration;

use futures::TryStreamExt;
use manifold_backends::{Backend, Error, ErrorKind, ObjectPath, Presence, Result};

use crate::subject::{MissingSource, Subject, found, told, within};

/// A caller's deadline, in the tests where the server says nothing.
const DEADLINE: Duration = Duration::from_millis(300);

/// Asks a source in every way, and gives each answer's error; an answer that is none fails the test.
async fn every_way(backend: &dyn Backend, known: &ObjectPath) -> Vec<(&'static str, Error)> {
    let version = manifold_backends::Version::from_etag(b"any");
    vec![
        (
            "check",
            refused("check", within(backend.check()).await.map(Presence::Found)),
        ),
        ("stat", refused("stat", within(backend.stat(known)).await)),
        (
            "list",
            refused("list", within(list(backend, &ObjectPath::root())).await),
        ),
        (
            "read",
            refused("read", within(backend.read(known, &version, 0..1)).await),
        ),
    ]
}

async fn list(backend: &dyn Backend, directory: &ObjectPath) -> Result<Presence<usize>> {
    Ok(match backend.list(directory).await? {
        Presence::Absent => Presence::Absent,
        Presence::Found(pages) => Presence::Found(pages.try_collect::<Vec<_>>().await?.iter().map(Vec::len).sum()),
    })
}

fn refused<T>(what: &str, answer: Result<Presence<T>>) -> Error {
    match answer {
        Err(error) => error,
        Ok(Presence::Found(_)) => panic!("{what} succeeded"),
        Ok(Presence::Absent) => panic!("{what} said absent"),
    }
}

pub(crate) async fn wrong_credentials_are_named(subject: &Subject) {
    let Some((answer, value)) = within(subject.connect_as_stranger()).await else {
        return;
    };
    subject.put("secret/file", b"secret");
    let path = ObjectPath::from_bytes("secret/file");
    match answer {
        Err(error) => assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{error}"),
        Ok(backend) => {
            for (what, error) in every_way(&*backend, &path).await {
                assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{what}: {error}");
                assert!(!error.to_string().contains(value), "{what} tells the secret: {error}");
            }
        }
    }
}

pub(crate) async fn a_source_that_does_not_exist_is_named(subject: &Subject) {
    let uri = subject.server.uri();
    let other = match subject.traits.missing_source {
        MissingSource::Container(name) => uri.replace("files", name),
        MissingSource::Folder => format!("{uri}/no such folder").replace(' ', "%20"),
    };
    let path = ObjectPath::from_bytes("any/file");
    match within(subject.connect_at(&other)).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::NoSuchSource, "{error}"),
        Ok(backend) => {
            for (what, error) in every_way(&*backend, &path).await {
                assert_eq!(error.kind(), ErrorKind::NoSuchSource, "{what}: {error}");
            }
        }
    }
}

pub(crate) async fn a_server_that_says_nothing_is_left_by_the_deadline(subject: &Subject) {
    if !subject.server.can_be_paused() {
        return;
    }
    subject.put("silent/file", b"speak");
    let path = ObjectPath::from_bytes("silent/file");
    let version = subject.stat(path.as_bytes()).await.version;
    subject.server.pause();
    let reads = (0..8).map(|_| tokio::time::timeout(DEADLINE, subject.backend.read(&path, &version, 0..5)));
    for answer in futures::future::join_all(reads).await {
        assert!(answer.is_err(), "a stopped server has answered: {answer:?}");
    }
    let answer = tokio::time::timeout(DEADLINE, subject.backend.stat(&path)).await;
    assert!(answer.is_err(), "a stopped server has answered: {answer:?}");
    subject.server.resume();
    let bytes = found(
        within(subject.backend.read(&path, &version, 0..5)).await,
        "read after the server goes on",
    );
    assert_eq!(&bytes[..], b"speak");
}

pub(crate) async fn a_killed_server_is_unreachable_and_comes_back(subject: &Subject) {
    subject.put("killed/file", b"alive");
    let path = ObjectPath::from_bytes("killed/file");
    let version = subject.stat(path.as_bytes()).await.version;
    subject.server.kill9();
    for (what, error) in every_way(&*subject.backend, &path).await {
        assert!(
            matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut),
            "{what}: {}",
            told(&error)
        );
        assert!(error.may_retry(), "{what}: {error}");
    }
    let read = within(subject.backend.read(&path, &version, 0..5)).await;
    let error = refused("read", read);
    assert!(
        matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut),
        "{}",
        told(&error)
    );
    subject.server.restart();
    // Some servers write their last objects to disk late.
    subject.put("killed/file", b"alive again");
    assert_eq!(subject.read(path.as_bytes(), 0..11).await, b"alive again");
    assert!(subject.list(b"").await.iter().any(|child| child.name == b"killed"));
}
