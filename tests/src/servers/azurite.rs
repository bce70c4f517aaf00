//! Azurite, Azure's own emulator of its blob storage.

use std::collections::BTreeMap;
use std::path::Path;

use super::port::Port;
use super::{Daemon, Server, http, memory_folder, pairs, program, subfolder};

const CONTAINER: &str = "files";
/// The account and key that every Azurite knows; they are published with it and open nothing else.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A shared access signature made of that key: all rights on blobs until 2099.
const SIGNATURE: &str = "sv=2018-11-09&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&sig=K%2BOQqJj6KnEczTtcVU385IwXLAzlxsauImxanI94hY0%3D";

/// An Azure blob server with the container `files`. It writes what it knows to disk every few seconds only: a kill
/// loses the objects put shortly before.
pub struct Azurite {
    daemon: Daemon,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Azurite {
    /// Starts the server and makes the container.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that writes nothing to disk, which takes it a quarter less of the processor for each put. Once killed it has forgotten
    /// everything.
    pub fn start_in_memory() -> Self {
        Self::start_with(&["--inMemoryPersistence"])
    }

    fn start_with(more: &[&str]) -> Self {
        let folder = memory_folder();
        let data = subfolder(folder.path(), "data");
        let port = Port::take();
        let number = port.number();
        let mut arguments = vec![
            "--blobHost".to_owned(),
            "127.0.0.1".to_owned(),
            "--blobPort".to_owned(),
            number.to_string(),
            "--skipApiVersionCheck".to_owned(),
            "--silent".to_owned(),
            "--disableTelemetry".to_owned(),
        ];
        if more.is_empty() {
            arguments.extend(["-l".to_owned(), data.display().to_string()]);
        }
        arguments.extend(more.iter().map(|it| (*it).to_owned()));
        let ready = move || {
            let target = format!("/{ACCOUNT}/{CONTAINER}?restype=container&{SIGNATURE}");
            matches!(http::request(number, "PUT", &target, &[], b""), Some((201 | 409, _)))
        };
        let daemon = Daemon::start(program("azurite-blob"), arguments, &[], number, folder.path(), ready);
        Self {
            daemon,
            port,
            _folder: folder,
        }
    }

    fn target(path: &[u8]) -> String {
        format!("/{ACCOUNT}/{CONTAINER}/{}?{SIGNATURE}", http::encode(path, false))
    }
}

impl Server for Azurite {
    fn uri(&self) -> String {
        format!("azblob://{CONTAINER}")
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", self.port.number());
        pairs([("endpoint", &endpoint), ("account_name", ACCOUNT)])
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        pairs([("account_key", ACCOUNT_KEY)])
    }

    fn root(&self) -> Option<&Path> {
        None
    }

    fn put(&self, path: &[u8], bytes: &[u8]) {
        let headers = [("x-ms-blob-type", "BlockBlob"), ("x-ms-version", "2018-11-09")];
        http::must(self.port.number(), "PUT", &Self::target(path), &headers, bytes);
    }

    /// Does nothing: a directory is there once something lies in it.
    fn make_directory(&self, _path: &[u8]) {}

    fn remove(&self, path: &[u8]) {
        http::must(
            self.port.number(),
            "DELETE",
            &Self::target(path),
            &[("x-ms-version", "2018-11-09")],
            b"",
        );
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
