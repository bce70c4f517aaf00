//! What is put onto a share: how much is asked of the server for it, and what it does not need.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use manifold_backends::{Attributes, Body, Expected, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

const KIB: usize = 1024;

// The commands that a put gives (MS-SMB2 2.2.1.2).
const CREATE: u16 = 5;
const CLOSE: u16 = 6;
const FLUSH: u16 = 7;
const WRITE: u16 = 9;
const QUERY_INFO: u16 = 16;
const SET_INFO: u16 = 17;

/// The messages to a server, each as the commands that it gives.
type Messages = Arc<Mutex<Vec<Vec<u16>>>>;

/// Passes connections on, and keeps what the clients ask.
async fn overhear(server: u16) -> (u16, Messages) {
    let heard = Messages::default();
    let ear = Arc::clone(&heard);
    let hear = move |message: &[u8]| {
        ear.lock().expect("the ear").push(commands(message));
        None
    };
    let port = pass_on(server, hear).await;
    (port, heard)
}

/// Passes connections on, and shows what the clients ask before that; where something is given for that, not until it is notified. Gives
/// the port.
async fn pass_on(server: u16, show: impl Fn(&[u8]) -> Option<Arc<Notify>> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let show = Arc::new(show);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))
                .await
                .expect("the server");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            let to_server = Arc::new(tokio::sync::Mutex::new(to_server));
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let show = Arc::clone(&show);
            tokio::spawn(async move {
                while let Ok(length) = from_client.read_u32().await {
                    let mut message = vec![0; length as usize];
                    if from_client.read_exact(&mut message).await.is_err() {
                        break;
                    }
                    let frame = [&length.to_be_bytes()[..], &message].concat();
                    if let Some(released) = show(&message) {
                        let to_server = Arc::clone(&to_server);
                        tokio::spawn(async move {
                            released.notified().await;
                            to_server.lock().await.write_all(&frame).await
                        });
                    } else if to_server.lock().await.write_all(&frame).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// Reads the commands of a message that is not encrypted.
fn commands(message: &[u8]) -> Vec<u16> {
    let mut commands = Vec::new();
    let mut rest = message;
    while let Some(header) = rest.get(..64) {
        commands.push(u16::from_le_bytes([header[12], header[13]]));
        let next = u32::from_le_bytes([header[20], header[21], header[22], header[23]]) as usize;
        rest = rest.get(next..).filter(|_| next > 0).unwrap_or_default();
    }
    commands
}

/// Bytes with the time of their last change.
struct Dated(Bytes);

#[async_trait::async_trait]
impl Body for Dated {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, range: std::ops::Range<u64>) -> std::io::Result<Bytes> {
        Body::read(&self.0, range).await
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            modified: Some(Timestamp(1_500_000_000_123_456_700)),
            mode: None,
        }
    }
}

async fn put(backend: &dyn Backend, name: &str, content: &[u8], expected: &Expected) -> Metadata {
    let body = Dated(Bytes::copy_from_slice(content));
    let metadata = backend.put(&path(name), &body, expected).await.expect(name);
    assert_eq!(stat(backend, name).await, metadata, "{name}");
    assert_eq!(metadata.modified, body.attributes().modified, "{name}");
    assert!(
        read_all(backend, name, &metadata).await.expect("bytes") == content,
        "{name} holds other bytes"
    );
    metadata
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_file_is_put_with_three_messages_and_looked_for_with_one_where_it_replaces() {
    let server = Samba::start();
    let (port, heard) = overhear(server.port()).await;
    let uri = format!("smb://{}@127.0.0.1:{port}/{}", server.user(), server.share());
    let backend = connect_to(&uri, &[], Some(server.password()), &limits()).await;
    backend.create_directory(&path("folder")).await.expect("a folder");
    let look = vec![CREATE, QUERY_INFO, QUERY_INFO, CLOSE];
    let (made, named, closed) = (
        vec![CREATE, SET_INFO, WRITE, SET_INFO, FLUSH],
        vec![SET_INFO, SET_INFO],
        vec![QUERY_INFO, CLOSE],
    );
    let mut version = None;
    for length in [10 * KIB, 64 * KIB, 1] {
        let body = Dated(noise(1, length).into());
        let expected = version.map_or(Expected::Absent, Expected::Version);
        heard.lock().expect("the ear").clear();
        let metadata = backend
            .put(&path("folder/file"), &body, &expected)
            .await
            .expect("a put");
        let asked = std::mem::take(&mut *heard.lock().expect("the ear"));
        if expected == Expected::Absent {
            assert_eq!(asked, [made.clone(), named.clone(), closed.clone()]);
        } else {
            assert_eq!(asked, [made.clone(), look.clone(), named.clone(), closed.clone()]);
        }
        assert_eq!(stat(&*backend, "folder/file").await, metadata);
        version = Some(metadata.version);
    }
    // There is nothing to write of an empty one.
    heard.lock().expect("the ear").clear();
    let (name, empty) = (path("folder/empty"), Dated(Bytes::new()));
    backend.put(&name, &empty, &Expected::Absent).await.expect("a put");
    let asked = std::mem::take(&mut *heard.lock().expect("the ear"));
    assert_eq!(asked, [vec![CREATE, SET_INFO, SET_INFO, FLUSH], named, closed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_every_kind_take_files_of_every_length() {
    for more in [
        "smb2 max credits = 8",
        "smb2 max write = 65536",
        "server signing = mandatory",
        "server smb encrypt = required",
        "server max protocol = SMB2_02",
        "server max protocol = SMB2_10",
        "server max protocol = SMB3_00",
    ] {
        let server = Samba::start_with(&[more]);
        let backend = connect(&server).await;
        for length in [0, 1, 64 * KIB, 64 * KIB + 1, 5 * KIB * KIB + 7] {
            let name = format!("{length}");
            let first = put(&*backend, &name, &noise(2, length), &Expected::Absent).await;
            let again = backend
                .put(&path(&name), &Dated(Bytes::from_static(b"late")), &Expected::Absent)
                .await;
            assert_eq!(kind(again), ErrorKind::Conflict, "{more}: {name}");
            put(&*backend, &name, &noise(3, length), &Expected::Version(first.version)).await;
        }
        assert_eq!(
            children(&*backend, "").await.len(),
            5,
            "{more}: something unfinished is left"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_while_nobody_looked_does_not_fail_a_put() {
    let server = Samba::start();
    let backend = connect(&server).await;
    let first = put(&*backend, "file", b"first", &Expected::Absent).await;
    server.restart();
    let second = backend
        .put(
            &path("file"),
            &Dated(Bytes::from_static(b"second")),
            &Expected::Version(first.version),
        )
        .await;
    assert_eq!(second.expect("a put").size, 6);
    server.restart();
    let other = backend
        .put(&path("other"), &Dated(Bytes::from_static(b"third")), &Expected::Absent)
        .await;
    assert_eq!(other.expect("a put").size, 5);
    assert_eq!(children(&*backend, "").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_file_is_not_put_over_a_folder_or_beneath_a_file() {
    let server = Samba::start();
    let backend = connect(&server).await;
    backend.create_directory(&path("folder")).await.expect("a folder");
    put(&*backend, "file", b"content", &Expected::Absent).await;
    let short = Dated(Bytes::from_static(b"short"));
    for expected in [Expected::Absent, Expected::Anything] {
        let over = backend.put(&path("folder"), &short, &expected).await;
        assert_eq!(kind(over), ErrorKind::IsADirectory, "{expected:?}");
        let beneath = backend.put(&path("file/name"), &short, &expected).await;
        assert_eq!(kind(beneath), ErrorKind::NotADirectory, "{expected:?}");
    }
    assert_eq!(children(&*backend, "").await.len(), 2);
}

/// A server keeps the name of a directory that is open, though it has agreed to remove it.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_being_listed_is_gone_once_it_is_removed() {
    let server = Samba::start();
    let backend = connect(&server).await;
    let (folder, on_disk) = (path("folder"), server.file(b"folder"));
    std::fs::create_dir(&on_disk).expect("make a folder");
    // Several pages, so that the listing has not ended when the first of them has come.
    let files: Vec<_> = (0..3000).map(|at| on_disk.join(format!("{at:0>200}"))).collect();
    for file in &files {
        std::fs::write(file, b"").expect("write");
    }
    let mut listing = found(backend.list(&folder).await);
    listing.next().await.expect("a page").expect("no error");
    for file in &files {
        std::fs::remove_file(file).expect("remove");
    }
    let removing = {
        let (backend, folder) = (Arc::clone(&backend), folder.clone());
        tokio::spawn(async move { backend.remove_directory(&folder).await })
    };
    while !removing.is_finished() && matches!(backend.stat(&folder).await, Ok(Presence::Found(_))) {}
    // Time enough to end, for one that did not wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(listing);
    found(removing.await.expect("no panic"));
    assert!(!on_disk.exists());
    assert_eq!(children(&*backend, "").await, []);
    backend.create_directory(&folder).await.expect("its name is free");
}

/// It has gone before the server says that something is open beneath the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_stays_whose_place_another_cannot_take() {
    let server = Samba::start_with(&["strict rename = yes"]);
    let (backend, other) = (connect(&server).await, connect(&server).await);
    let (folder, empty) = (server.file(b"folder/open"), server.file(b"empty"));
    for made in [&folder, &empty] {
        std::fs::create_dir_all(made).expect("make a folder");
    }
    // Several pages, so that the listing has not ended when the first of them has come.
    for at in 0..3000 {
        std::fs::write(folder.join(format!("{at:0>200}")), b"").expect("write");
    }
    let mut listing = found(other.list(&path("folder/open")).await);
    listing.next().await.expect("a page").expect("no error");
    let refused = backend.rename(&path("folder"), &path("empty"), true).await;
    assert_eq!(kind(refused), ErrorKind::PermissionDenied);
    assert!(empty.is_dir() && folder.is_dir());
    assert_eq!(children(&*backend, "empty").await, []);
    drop(listing);
    found(backend.rename(&path("folder"), &path("empty"), true).await);
    assert!(empty.join("open").is_dir() && !folder.exists());
}

/// A rename waits on its way to the server when nobody waits for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_first_is_done_first() {
    let server = Samba::start();
    let (armed, held, released) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
    );
    let (is_armed, is_held, until) = (Arc::clone(&armed), Arc::clone(&held), Arc::clone(&released));
    let look = move |message: &[u8]| {
        let is_it = commands(message) == [SET_INFO] && is_armed.swap(false, Ordering::SeqCst);
        is_it.then(|| {
            is_held.notify_one();
            Arc::clone(&until)
        })
    };
    let port = pass_on(server.port(), look).await;
    let uri = format!("smb://{}@127.0.0.1:{port}/{}", server.user(), server.share());
    let backend = connect_to(&uri, &[], Some(server.password()), &limits()).await;
    put(&*backend, "from", b"first", &Expected::Absent).await;
    armed.store(true, Ordering::SeqCst);
    let (from, to) = (path("from"), path("to"));
    let renaming = {
        let (backend, from, to) = (Arc::clone(&backend), from.clone(), to.clone());
        tokio::spawn(async move { backend.rename(&from, &to, true).await.map(drop) })
    };
    held.notified().await;
    renaming.abort();
    let (looking, putting) = {
        let (looker, putter, to) = (Arc::clone(&backend), Arc::clone(&backend), to.clone());
        let look = async move { looker.stat(&from).await };
        let put = async move {
            let later = Dated(Bytes::from_static(b"and later"));
            putter.put(&to, &later, &Expected::Anything).await
        };
        (tokio::spawn(look), tokio::spawn(put))
    };
    // Time enough for those that do not wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    released.notify_one();
    assert_eq!(looking.await.expect("no panic").expect("an answer"), Presence::Absent);
    putting.await.expect("no panic").expect("it is put");
    assert_eq!(std::fs::read(server.file(b"to")).expect("read"), b"and later");
}
