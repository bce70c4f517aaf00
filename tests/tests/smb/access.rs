//! Who may enter, how the way there is protected, and what is said when it fails.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server whose share is open to guests.
fn open_house() -> Samba {
    Samba::start_with(&["map to guest = bad user", "guest ok = yes"])
}

fn guest_uri(server: &Samba) -> String {
    format!("smb://127.0.0.1:{}/{}", server.port(), server.share())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_never_repeated() {
    let server = Samba::start();
    let backend = connect_to(&server.uri(), &[], Some("wr0ng-p4ssword"), &limits()).await;
    let error = backend.check().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::CredentialsRefused);
    assert!(!text(&error).contains("wr0ng-p4ssword") && !format!("{backend:?}").contains("wr0ng-p4ssword"));
    // On a server that would let anyone in as a guest, it is refused just the same.
    let house = open_house();
    let uri = house.uri();
    assert_eq!(
        kind(connect_to(&uri, &[], Some("wrong"), &limits()).await.check().await),
        ErrorKind::CredentialsRefused
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_does_not_exist_is_not_an_empty_share() {
    let server = Samba::start();
    let uri = format!("smb://{}@127.0.0.1:{}/nothing", server.user(), server.port());
    let backend = connect_to(&uri, &[], Some(server.password()), &limits()).await;
    assert_eq!(kind(backend.check().await), ErrorKind::NoSuchSource);
    assert_eq!(kind(backend.list(&ObjectPath::root()).await), ErrorKind::NoSuchSource);
    assert_eq!(kind(backend.stat(&path("file")).await), ErrorKind::NoSuchSource);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_folder_can_be_the_source_and_must_exist() {
    let server = Samba::start();
    server.put("a b/ü%/file".as_bytes(), b"deep");
    let uri = format!("{}/a%20b/%C3%BC%25", server.uri());
    let backend = connect_to(&uri, &[], Some(server.password()), &limits()).await;
    backend.check().await.expect("usable");
    assert_eq!(children(&*backend, "").await[0].name, b"file");
    let metadata = stat(&*backend, "file").await;
    assert_eq!(read_all(&*backend, "file", &metadata).await.expect("bytes"), b"deep");
    let gone = connect_to(
        &format!("{}/gone", server.uri()),
        &[],
        Some(server.password()),
        &limits(),
    )
    .await;
    assert_eq!(kind(gone.check().await), ErrorKind::NoSuchSource);
    // Nor does anything in it look removed when the folder goes while it is in use.
    std::fs::rename(server.file("a b".as_bytes()), server.file(b"away")).expect("rename");
    assert_eq!(kind(backend.stat(&path("file")).await), ErrorKind::NoSuchSource);
    assert_eq!(kind(backend.list(&ObjectPath::root()).await), ErrorKind::NoSuchSource);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_enters_where_guests_may_but_not_with_demands() {
    let house = open_house();
    house.put(b"file", b"for all");
    let guest = connect_to(&guest_uri(&house), &[], None, &limits()).await;
    guest.check().await.expect("usable");
    let metadata = stat(&*guest, "file").await;
    assert_eq!(read_all(&*guest, "file", &metadata).await.expect("bytes"), b"for all");
    for demand in ["signing", "encryption"] {
        let guest = connect_to(&guest_uri(&house), &[(demand, "required")], None, &limits()).await;
        assert_eq!(kind(guest.check().await), ErrorKind::Settings, "{demand}");
    }
    let closed = Samba::start();
    let stranger = connect_to(&guest_uri(&closed), &[], None, &limits()).await;
    let refusal = kind(stranger.check().await);
    assert!(
        matches!(refusal, ErrorKind::CredentialsRefused | ErrorKind::PermissionDenied),
        "{refusal:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_demand_signing_or_encryption_are_read() {
    let demands = [
        "server signing = mandatory",
        "server smb encrypt = required",
        "server max protocol = SMB2_10",
        "server max protocol = SMB3_00",
    ];
    for demand in demands {
        let server = Samba::start_with(&[demand]);
        let content = noise(7, 3 * 1024 * 1024);
        server.put(b"file", &content);
        let backend = connect_to(
            &server.uri(),
            &[("signing", "required")],
            Some(server.password()),
            &limits(),
        )
        .await;
        let metadata = stat(&*backend, "file").await;
        assert_eq!(read_all(&*backend, "file", &metadata).await.expect(demand), content);
        assert_eq!(children(&*backend, "").await.len(), 1);
    }
}

/// Passes a connection on, and keeps what the server sent.
async fn eavesdrop(server: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server))
                .await
                .expect("the server");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let ear = Arc::clone(&ear);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                    ear.lock().expect("the ear").extend_from_slice(&buffer[..length]);
                    if to_client.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn demanded_encryption_hides_what_is_read() {
    let server = Samba::start();
    let secret = b"this must not be seen on the wire";
    server.put(b"file", secret);
    for (encryption, seen) in [("auto", true), ("required", false)] {
        let (port, heard) = eavesdrop(server.port()).await;
        let uri = format!("smb://{}@127.0.0.1:{port}/{}", server.user(), server.share());
        let backend = connect_to(&uri, &[("encryption", encryption)], Some(server.password()), &limits()).await;
        let metadata = stat(&*backend, "file").await;
        assert_eq!(read_all(&*backend, "file", &metadata).await.expect("bytes"), secret);
        let heard = heard.lock().expect("the ear");
        assert_eq!(
            heard.windows(secret.len()).any(|window| window == secret),
            seen,
            "encryption = {encryption}"
        );
    }
    let old = Samba::start_with(&["server max protocol = SMB2_10"]);
    let backend = connect_to(
        &old.uri(),
        &[("encryption", "required")],
        Some(old.password()),
        &limits(),
    )
    .await;
    assert_eq!(kind(backend.check().await), ErrorKind::Settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_and_a_silent_server_are_unreachable_and_late() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let uri = format!("smb://127.0.0.1:{port}/share");
    let short = Limits {
        connect_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_millis(300),
        ..limits()
    };
    let silent = connect_to(&uri, &[], None, &short).await;
    assert_eq!(kind(silent.check().await), ErrorKind::TimedOut);
    drop(listener);
    let closed = connect_to(&uri, &[], None, &limits()).await;
    let error = closed.check().await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(text(&error).contains("refused"), "{error}");
    let nowhere = connect_to("smb://no-such-host.invalid/share", &[], None, &limits()).await;
    assert_eq!(kind(nowhere.check().await), ErrorKind::Unreachable);
}
