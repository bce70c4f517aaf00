//! `SeaweedFS` with its S3 gateway: master, volume server, filer and gateway in one process.
//!
//! Objects are put through the filer, whose folder `/buckets` the gateway shows as buckets; that needs no signature.

use std::collections::BTreeMap;
use std::path::Path;

use super::port::Port;
use super::{Daemon, Server, data_folder, http, pairs, program, subfolder, write};

const BUCKET: &str = "files";
const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "secret-of-the-tester";

/// An S3 server with the bucket `files`.
pub struct SeaweedFs {
    daemon: Daemon,
    s3: Port,
    filer: Port,
    _others: Vec<Port>,
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
        let mut ports = ports.into_iter();
        let (s3, filer) = (
            ports.next().expect("invariant: 8 ports"),
            ports.next().expect("invariant: 8 ports"),
        );
        Self {
            daemon,
            s3,
            filer,
            _others: ports.collect(),
            _folder: folder,
        }
    }

    /// Gives the address of the S3 gateway.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3.number())
    }

    fn target(path: &[u8]) -> String {
        format!("/buckets/{BUCKET}/{}", http::encode(path, false))
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
        http::must(self.filer.number(), "PUT", &Self::target(path), &[], bytes);
    }

    fn make_directory(&self, path: &[u8]) {
        http::must(
            self.filer.number(),
            "POST",
            &format!("{}/", Self::target(path)),
            &[],
            b"",
        );
    }

    fn unfinished(&self) -> Vec<String> {
        // The gateway keeps a folder for each.
        let target = format!("/buckets/{BUCKET}/.uploads/?limit=1000");
        let json = [("Accept", "application/json")];
        let answer = http::request(self.filer.number(), "GET", &target, &json, b"");
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
        let answer = http::request(self.filer.number(), "HEAD", &Self::target(path), &[], b"");
        answer.expect("the filer answers").0 == 200
    }

    fn remove(&self, path: &[u8]) {
        http::must(self.filer.number(), "DELETE", &Self::target(path), &[], b"");
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
