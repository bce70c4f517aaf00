//! fake-gcs-server, an emulator of Google Cloud Storage. It asks for no credentials.

use std::collections::BTreeMap;
use std::path::Path;

use super::port::Port;
use super::{Daemon, Server, http, memory_folder, pairs, program, subfolder};

const BUCKET: &str = "files";

/// A Google Cloud Storage server with the bucket `files`.
pub struct FakeGcs {
    daemon: Daemon,
    port: Port,
    _folder: tempfile::TempDir,
}

impl FakeGcs {
    /// Starts the server and makes the bucket.
    pub fn start() -> Self {
        let folder = memory_folder();
        let data = subfolder(folder.path(), "data");
        let port = Port::take();
        let number = port.number();
        let arguments = vec![
            "-scheme".to_owned(),
            "http".to_owned(),
            "-host".to_owned(),
            "127.0.0.1".to_owned(),
            "-port".to_owned(),
            number.to_string(),
            "-backend".to_owned(),
            "filesystem".to_owned(),
            "-filesystem-root".to_owned(),
            data.display().to_string(),
            "-public-host".to_owned(),
            format!("127.0.0.1:{number}"),
            "-log-level".to_owned(),
            "warn".to_owned(),
        ];
        let ready = move || {
            let body = format!(r#"{{"name":"{BUCKET}"}}"#);
            let headers = [("Content-Type", "application/json")];
            let made = http::request(number, "POST", "/storage/v1/b?project=test", &headers, body.as_bytes());
            matches!(made, Some((200 | 409, _)))
        };
        let daemon = Daemon::start(program("fake-gcs-server"), arguments, &[], number, folder.path(), ready);
        Self {
            daemon,
            port,
            _folder: folder,
        }
    }
}

impl Server for FakeGcs {
    fn uri(&self) -> String {
        format!("gcs://{BUCKET}")
    }

    fn settings(&self) -> BTreeMap<String, String> {
        pairs([
            ("endpoint", &format!("http://127.0.0.1:{}", self.port.number())),
            ("anonymous", "true"),
        ])
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn root(&self) -> Option<&Path> {
        None
    }

    fn put(&self, path: &[u8], bytes: &[u8]) {
        let target = format!(
            "/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={}",
            http::encode(path, true)
        );
        http::must(
            self.port.number(),
            "POST",
            &target,
            &[("Content-Type", "application/octet-stream")],
            bytes,
        );
    }

    /// Does nothing: a directory is there once something lies in it.
    fn make_directory(&self, _path: &[u8]) {}

    fn remove(&self, path: &[u8]) {
        let target = format!("/storage/v1/b/{BUCKET}/o/{}", http::encode(path, true));
        http::must(self.port.number(), "DELETE", &target, &[], b"");
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
