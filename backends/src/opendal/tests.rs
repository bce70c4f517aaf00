//! Odd object stores and odd drives: servers of a few lines that say what a test tells them to.

mod blocks;
mod conditions;
mod drives;
mod drives_written;
mod parts;
mod store;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use futures::TryStreamExt;

use super::*;
use crate::{Child, Kind};

/// What a request asked for: method, path with query, headers, and body.
struct Asked {
    method: String,
    target: String,
    /// The range that was asked for, as `first-last`.
    range: Option<String>,
    head: String,
    body: String,
}

/// What is answered: status, headers, body.
type Said = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// Serves every connection with `answer`, for as long as the process lives; gives the address.
fn serve(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it has an address"));
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || while exchange(&stream, &*answer).is_some() {});
        }
    });
    address
}

#[tokio::test]
async fn an_ftp_server_is_spoken_to_over_tls() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"220 ready\r\n").expect("it listens");
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("it asks");
        stream.write_all(b"234 go on\r\n").expect("it listens");
        let mut record = [0];
        reader.read_exact(&mut record).expect("it greets");
        (line, record[0])
    });
    let spec = SourceSpec::parse(&format!("ftps://ada@127.0.0.1:{port}"), &BTreeMap::new()).expect("a good URI");
    let secrets = Secrets::from([("password".to_owned(), Secret::new("word".to_owned()))]);
    let backend = OpendalBackend::build(&spec, &secrets, &Limits::default(), None).expect("a backend");
    let error = backend.check().await.expect_err("the server hangs up");
    assert_ne!(error.kind(), crate::ErrorKind::Nonsense, "{error}");
    let handshake = 22;
    let (line, record) = server.join().expect("a server without a panic");
    assert_eq!((line.as_str(), record), ("AUTH TLS\r\n", handshake));
}

fn exchange(stream: &TcpStream, answer: &dyn Fn(&Asked) -> Said) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range) = (0, None);
    let mut head = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        head.push_str(&header);
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if let Some(value) = header.strip_prefix("range: bytes=") {
            range = Some(value.to_owned());
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked {
        method,
        target,
        range,
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (status, headers, body) = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} Said\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        let _infallible = write!(head, "Content-Length: {}\r\n", body.len());
    }
    // Part of an object comes with where it stands, unless a test says otherwise.
    if status == 206
        && let Some(range) = &asked.range
        && !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-range"))
    {
        let _infallible = write!(head, "Content-Range: bytes {range}/*\r\n");
    }
    for (name, value) in headers {
        let _infallible = write!(head, "{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    Some(())
}

async fn children(backend: &OpendalBackend, path: &str) -> Result<Vec<Child>> {
    match backend.list(&ObjectPath::from_bytes(path)).await? {
        Presence::Found(pages) => Ok(pages.try_collect::<Vec<_>>().await?.into_iter().flatten().collect()),
        Presence::Absent => panic!("{path} is absent"),
    }
}

fn names(children: &[Child]) -> Vec<(&str, Kind)> {
    children
        .iter()
        .map(|child| (std::str::from_utf8(&child.name).expect("text"), child.metadata.kind))
        .collect()
}

#[test]
fn every_setting_that_we_pass_on_is_one_that_opendal_knows() {
    use ::opendal::Configurator;
    use ::opendal::services::{
        AzblobConfig, DropboxConfig, FtpConfig, GcsConfig, GdriveConfig, OnedriveConfig, S3Config, WebdavConfig,
    };
    let secret = |key: &&str| ((*key).to_owned(), Secret::new("value".to_owned()));
    let secrets: Secrets = [
        "password",
        "token",
        "secret_access_key",
        "session_token",
        "account_key",
        "sas_token",
        "credential",
        "access_token",
        "refresh_token",
        "client_id",
        "client_secret",
        "access_key_id",
    ]
    .iter()
    .map(secret)
    .collect();
    for uri in [
        "s3://b?access_key_id=a&role_arn=r&virtual_host_style=true",
        "s3://b?anonymous=true",
        "azblob://c?account_name=a",
        "gcs://b?credential_path=/c",
        "webdavs://u@h/d",
        "ftps://u@h/d",
        "dropbox://",
        "gdrive://",
        "onedrive://",
    ] {
        let spec = SourceSpec::parse(uri, &BTreeMap::new()).expect("a good source");
        let plan = Plan::of(&spec, &secrets).expect("a plan");
        let given = plan.options.clone();
        // A key that a service does not know is lost on the way through its configuration.
        let known = match plan.service {
            "s3" => S3Config::from_iter(given).map(serde_json::to_value),
            "azblob" => AzblobConfig::from_iter(given).map(serde_json::to_value),
            "gcs" => GcsConfig::from_iter(given).map(serde_json::to_value),
            "webdav" => WebdavConfig::from_iter(given).map(serde_json::to_value),
            "ftp" => FtpConfig::from_iter(given).map(serde_json::to_value),
            "dropbox" => DropboxConfig::from_iter(given).map(serde_json::to_value),
            "gdrive" => GdriveConfig::from_iter(given).map(serde_json::to_value),
            "onedrive" => OnedriveConfig::from_iter(given).map(serde_json::to_value),
            other => panic!("{other} has no configuration"),
        };
        let known = known.expect("a configuration").expect("it can be written");
        for (key, value) in plan.options {
            let kept = &known[&key];
            assert!(
                *kept == value.as_str() || (*kept == true && value == "true"),
                "{uri}: {key} is {kept}"
            );
        }
    }
}
