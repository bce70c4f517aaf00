//! The SMB backend against a real Samba server.

#[path = "smb/access.rs"]
mod access;
#[path = "smb/breaks.rs"]
mod breaks;
#[path = "smb/names.rs"]
mod names;
#[path = "smb/reading.rs"]
mod reading;
#[path = "smb/writing.rs"]
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use manifold_backends::{
    Backend, Child, Error, ErrorKind, Limits, Metadata, ObjectPath, Presence, Result, Secret, Secrets, SourceSpec,
    Version,
};
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Behind, Samba, Server};

/// Long enough for everything that ends at all.
const PATIENCE: Duration = Duration::from_mins(1);

fn limits() -> Limits {
    Limits {
        concurrency: None,
        block_size: None,
        connect_timeout: PATIENCE,
        request_timeout: PATIENCE,
    }
}

async fn connect_to(uri: &str, settings: &[(&str, &str)], password: Option<&str>, limits: &Limits) -> Arc<dyn Backend> {
    let settings: BTreeMap<String, String> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let spec = SourceSpec::parse(uri, &settings).expect("a source");
    let secrets: Secrets = password
        .map(|password| ("password".to_owned(), Secret::new(password.to_owned())))
        .into_iter()
        .collect();
    manifold_backends::connect(&spec, &secrets, limits)
        .await
        .expect("a backend")
}

async fn connect(server: &Samba) -> Arc<dyn Backend> {
    connect_to(&server.uri(), &[], Some(server.password()), &limits()).await
}

fn path(bytes: impl AsRef<[u8]>) -> ObjectPath {
    ObjectPath::from_bytes(bytes.as_ref())
}

fn found<T>(answer: Result<Presence<T>>) -> T {
    match answer.expect("an answer") {
        Presence::Found(found) => found,
        Presence::Absent => panic!("absent"),
    }
}

fn kind<T>(answer: Result<T>) -> ErrorKind {
    match answer {
        Ok(_) => panic!("this should have failed"),
        Err(error) => error.kind(),
    }
}

async fn stat(backend: &dyn Backend, name: &str) -> Metadata {
    match backend.stat(&path(name)).await.expect("an answer") {
        Presence::Found(metadata) => metadata,
        Presence::Absent => panic!("{name:?} is absent"),
    }
}

async fn children(backend: &dyn Backend, directory: &str) -> Vec<Child> {
    let listing = found(backend.list(&path(directory)).await);
    listing.try_concat().await.expect("a whole listing")
}

/// Reads a whole file in one version, in steps that suit the source.
async fn read_all(backend: &dyn Backend, name: &str, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < metadata.size {
        let start = bytes.len() as u64;
        let end = metadata
            .size
            .min(start + u64::from(backend.capabilities().read_size_max));
        bytes.extend_from_slice(&read(backend, name, &metadata.version, start..end).await?);
    }
    Ok(bytes)
}

async fn read(backend: &dyn Backend, name: &str, version: &Version, range: std::ops::Range<u64>) -> Result<Bytes> {
    let length = range.end - range.start;
    let bytes = found(Ok(match backend.read(&path(name), version, range).await? {
        Presence::Found(bytes) => Presence::Found(bytes),
        Presence::Absent => panic!("{name} is absent"),
    }));
    assert_eq!(bytes.len() as u64, length);
    Ok(bytes)
}

/// Bytes that differ everywhere and are the same on every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Asks until the answer is something else than that the source cannot be reached.
async fn until_reached<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> T {
    let reached = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => assert!(error.may_retry(), "{error}"),
            }
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("the source comes back")
}

fn text(error: &Error) -> String {
    format!("{error} {error:?}")
}
