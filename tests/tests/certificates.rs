//! Whom a source trusts: what a server's certificate must be, and what a person is told when it is not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use manifold_backends::{
    Backend, Diagnosis, Error, ErrorKind, Limits, ObjectPath, Presence, Secret, Secrets, SourceSpec, Version, connect,
    diagnose,
};
use manifold_tests::servers::{Apache, Server, Tls, Vsftpd};

/// Connects to a server of the tests, whose user has the password `secret`.
async fn connect_to(uri: &str, ca_file: Option<&Path>) -> Arc<dyn Backend> {
    let settings: BTreeMap<String, String> = ca_file
        .map(|file| ("ca_file".to_owned(), file.display().to_string()))
        .into_iter()
        .collect();
    let spec = SourceSpec::parse(uri, &settings).expect("a source");
    let secrets = Secrets::from([("password".to_owned(), Secret::new("secret".to_owned()))]);
    connect(&spec, &secrets, &Limits::default())
        .await
        .expect("nothing is asked while connecting")
}

/// Asks in every way, each of which must fail over the certificate, and gives what a person is told.
async fn refused(server: &dyn Server, ca_file: Option<&Path>) -> Diagnosis {
    let backend = connect_to(&server.uri(), ca_file).await;
    let path = ObjectPath::from_bytes("file");
    let over_the_certificate = |error: Error| assert_eq!(error.kind(), ErrorKind::Certificate, "{error}");
    over_the_certificate(backend.stat(&path).await.expect_err("the look is refused"));
    over_the_certificate(
        backend
            .read(&path, &Version::from_etag(b"any"), 0..1)
            .await
            .expect_err("the read is refused"),
    );
    match backend.list(&path).await {
        Err(error) => over_the_certificate(error),
        Ok(_) => panic!("the listing is not refused"),
    }
    let told = diagnose(&*backend).await.expect_err("nothing can be used");
    assert_eq!(told.kind, ErrorKind::Certificate, "{told}");
    told
}

/// Asks in every way for `folder/file`, which holds `content`.
async fn reads(uri: &str, ca_file: Option<&Path>) {
    let backend = connect_to(uri, ca_file).await;
    diagnose(&*backend).await.expect("the server is trusted");
    let path = ObjectPath::from_bytes("folder/file");
    let Presence::Found(metadata) = backend.stat(&path).await.expect("an answer") else {
        panic!("the file is absent");
    };
    let bytes = backend.read(&path, &metadata.version, 0..7).await.expect("an answer");
    assert_eq!(bytes, Presence::Found(bytes::Bytes::from_static(b"content")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_refused_until_its_file_is_given() {
    let server = Apache::start_tls(Tls::Signed);
    let told = refused(&server, None).await;
    assert!(told.hint.contains("`ca_file`"), "{told:?}");
    server.put(b"folder/file", b"content");
    reads(&server.uri(), Some(server.ca_file())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_stands_for_itself_is_refused_until_it_is_given() {
    let server = Apache::start_tls(Tls::SelfSigned);
    let told = refused(&server, None).await;
    assert!(told.hint.contains("`ca_file`"), "{told:?}");
    server.put(b"folder/file", b"content");
    reads(&server.uri(), Some(server.ca_file())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_even_from_an_authority_that_is_trusted() {
    let server = Apache::start_tls(Tls::Expired);
    for ca_file in [None, Some(server.ca_file())] {
        let told = refused(&server, ca_file).await;
        // Who does not know the authority does not ask how long it stood for the server.
        if ca_file.is_some() {
            assert!(told.message.contains("expired"), "{told:?}");
            assert!(told.hint.contains("renewed"), "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ftp_over_tls_refuses_a_certificate_that_the_system_does_not_know() {
    for tls in [Tls::Signed, Tls::SelfSigned] {
        let server = Vsftpd::start_tls(tls);
        let told = refused(&server, None).await;
        assert!(told.hint.contains("this system trusts"), "{told:?}");
    }
}

/// Names the server to a test that runs once more, as a process that the system's certificates are set for.
const SERVER: &str = "MANIFOLD_TESTS_FTPS_SERVER";

/// Runs a test of this file once more, with that file for the certificates that the system trusts.
fn once_more(test: &str, uri: &str, certificates: &Path) {
    let again = Command::new(std::env::current_exe().expect("know the test's own path"))
        .args(["--exact", "--nocapture", test])
        .env(SERVER, uri)
        .env("SSL_CERT_FILE", certificates)
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("run the test once more");
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(
        again.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&again.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ftp_over_tls_serves_where_the_system_knows_the_authority() {
    if let Ok(uri) = std::env::var(SERVER) {
        return reads(&uri, None).await;
    }
    let server = Vsftpd::start_tls(Tls::Signed);
    server.put(b"folder/file", b"content");
    once_more(
        "ftp_over_tls_serves_where_the_system_knows_the_authority",
        &server.uri(),
        server.ca_file(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ftp_over_tls_refuses_an_expired_certificate_of_an_authority_that_the_system_knows() {
    if let Ok(uri) = std::env::var(SERVER) {
        let told = diagnose(&*connect_to(&uri, None).await)
            .await
            .expect_err("it has expired");
        assert_eq!(told.kind, ErrorKind::Certificate, "{told}");
        assert!(told.message.contains("expired"), "{told:?}");
        return;
    }
    let server = Vsftpd::start_tls(Tls::Expired);
    once_more(
        "ftp_over_tls_refuses_an_expired_certificate_of_an_authority_that_the_system_knows",
        &server.uri(),
        server.ca_file(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ftp_over_tls_says_that_the_system_s_certificates_cannot_be_read() {
    let uri = "ftps://tester@127.0.0.1:1";
    if std::env::var(SERVER).is_ok() {
        let spec = SourceSpec::parse(uri, &BTreeMap::new()).expect("a source");
        let secrets = Secrets::from([("password".to_owned(), Secret::new("secret".to_owned()))]);
        let refused = connect(&spec, &secrets, &Limits::default())
            .await
            .expect_err("nobody could be trusted");
        assert_eq!(refused.kind(), ErrorKind::Settings, "{refused}");
        let said = refused.cause().to_string();
        assert!(said.contains("certificates that this system trusts"), "{said}");
        return;
    }
    let nowhere = Path::new("/nowhere/at/all.pem");
    once_more(
        "ftp_over_tls_says_that_the_system_s_certificates_cannot_be_read",
        uri,
        nowhere,
    );
}
