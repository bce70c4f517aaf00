//! `SeaweedFS` with its S3 gateway: master, volume server, filer and gateway in one process.
//!
//! Objects are put through the filer, whose folder `/buckets` the gateway shows as buckets; that needs no signature.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::port::Port;
use super::{Daemon, Server, data_folder, http, pairs, program, subfolder, write};

const BUCKET: &str = "files";
const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "secret-of-the-tester";

/// An S3 server with the bucket `files`.
pub struct SeaweedFs {
    daemon: Daemon,
    /// The S3 gateway's, the filer's, and the others.
    ports: Vec<Port>,
    _folder: tempfile::TempDir,
}

impl SeaweedFs {
    /// Starts the server and makes the bucket.
    pub fn start() -> Self {
        let folder = data_folder();
        let data = subfolder(folder.path(), "data");
        let config = folder.path().join("s3.json");
        write(
            &config,
            &format!(
                r#"{{"identities":[{{"name":"tester","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
            ),
        );
        let ports: Vec<Port> = std::iter::repeat_with(Port::take).take(8).collect();
        let number = |index: usize| ports[index].number();
        let arguments = vec![
            "-alsologtostderr=false".to_owned(),
            "-logtostderr=true".to_owned(),
            "server".to_owned(),
            format!("-dir={}", data.display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            "-master.volumeSizeLimitMB=256".to_owned(),
            "-volume.max=40".to_owned(),
            // The default of ten seconds is what a restart would take.
            "-master.electionTimeout=1s".to_owned(),
            "-filer".to_owned(),
            // Both have ports of their own that a second server would find taken.
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            "-s3".to_owned(),
            format!("-s3.port={}", number(0)),
            format!("-filer.port={}", number(1)),
            format!("-master.port={}", number(2)),
            format!("-volume.port={}", number(3)),
            format!("-s3.port.grpc={}", number(4)),
            format!("-filer.port.grpc={}", number(5)),
            format!("-master.port.grpc={}", number(6)),
            format!("-volume.port.grpc={}", number(7)),
            format!("-s3.config={}", config.display()),
        ];
        let (s3, filer) = (number(0), number(1));
        let ready = move || {
            let made = http::request(filer, "POST", &format!("/buckets/{BUCKET}/"), &[], b"");
            let wrote = http::request(filer, "PUT", &format!("/buckets/{BUCKET}/.ready"), &[], b"ready");
            let gone = http::request(filer, "DELETE", &format!("/buckets/{BUCKET}/.ready"), &[], b"");
            [made, wrote, gone]
                .iter()
                .all(|answer| matches!(answer, Some((200..=299 | 409, _))))
        };
        let daemon = Daemon::start(program("weed"), arguments, &[], s3, folder.path(), ready);
        Self {
            daemon,
            ports,
            _folder: folder,
        }
    }

    fn s3(&self) -> u16 {
        self.ports[0].number()
    }

    fn filer(&self) -> u16 {
        self.ports[1].number()
    }

    /// Gives the address of the S3 gateway.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3())
    }

    fn target(path: &[u8]) -> String {
        format!("/buckets/{BUCKET}/{}", http::encode(path, false))
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.daemon.kill9();
        // It makes a socket there for each of its ports, whatever it is told, and was not given the time to remove them.
        for name in fs::read_dir("/tmp").into_iter().flatten().flatten() {
            let (path, name) = (name.path(), name.file_name());
            let rest = name
                .to_str()
                .and_then(|name| name.strip_prefix("seaweedfs-")?.strip_suffix(".sock"));
            let port = rest.and_then(|rest| rest.rsplit_once('-')?.1.parse().ok());
            if self.ports.iter().any(|own| Some(own.number()) == port) {
                let _gone = fs::remove_file(path);
            }
        }
    }
}

impl Server for SeaweedFs {
    fn uri(&self) -> String {
        format!("s3://{BUCKET}")
    }

    fn settings(&self) -> BTreeMap<String, String> {
        pairs([
            ("endpoint", &self.endpoint()),
            ("region", "us-east-1"),
            ("access_key_id", ACCESS_KEY),
        ])
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        pairs([("secret_access_key", SECRET_KEY)])
    }

    fn root(&self) -> Option<&Path> {
        None
    }

    fn put(&self, path: &[u8], bytes: &[u8]) {
        http::must(self.filer(), "PUT", &Self::target(path), &[], bytes);
    }

    fn make_directory(&self, path: &[u8]) {
        http::must(self.filer(), "POST", &format!("{}/", Self::target(path)), &[], b"");
    }

    fn unfinished(&self) -> Vec<String> {
        // The gateway keeps a folder for each.
        let target = format!("/buckets/{BUCKET}/.uploads/?limit=1000");
        let json = [("Accept", "application/json")];
        let answer = http::request(self.filer(), "GET", &target, &json, b"");
        let (status, body) = answer.expect("the filer answers");
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let listing: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let entries = listing["Entries"].as_array().cloned().unwrap_or_default();
        let path = |entry: &serde_json::Value| entry["FullPath"].as_str().map(str::to_owned);
        entries.iter().filter_map(path).collect()
    }

    fn has(&self, path: &[u8]) -> bool {
        let answer = http::request(self.filer(), "HEAD", &Self::target(path), &[], b"");
        answer.expect("the filer answers").0 == 200
    }

    fn remove(&self, path: &[u8]) {
        http::must(self.filer(), "DELETE", &Self::target(path), &[], b"");
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
