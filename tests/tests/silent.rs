//! Connections that die and tell nobody: a machine that slept, a router or a packet filter that forgot. The server is well, and
//! whoever connects anew is served; but what is sent on a connection from before gets no answer, and no word that it is gone.
//! Everything that is asked must then be answered all the same, within its deadline.
//!
//! Needs root, iproute2, and the servers of `tests/servers/install`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use manifold_backends::{
    Backend, Expected, Limits, Metadata, ObjectPath, Presence, Result, Secret, SourceSpec, connect,
};
use manifold_tests::network::Namespace;
use manifold_tests::servers::{Apache, Azurite, Behind, FakeGcs, Nginx, Samba, SeaweedFs, Server, Sshd, Vsftpd};

/// Readers at once, so that several connections are open.
const READERS: usize = 6;
/// The size of a file.
const BYTES: usize = 300_000;
/// What a caller gives a request before he gives up.
const DEADLINE: Duration = Duration::from_secs(10);

fn path(text: &str) -> ObjectPath {
    ObjectPath::from_bytes(text.as_bytes())
}

/// What a file holds.
fn content(name: &str) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Gives the name of a file of a round.
fn file(round: usize, reader: usize) -> String {
    format!("folder/{round}-{reader}")
}

/// A source behind a network that forgets connections.
struct Site {
    server: Behind,
    network: Arc<Namespace>,
    backend: Arc<dyn Backend>,
}

impl Site {
    async fn start(server: impl Server + 'static) -> Self {
        for name in (0..4).flat_map(|round| (0..READERS).map(move |reader| file(round, reader))) {
            server.put(name.as_bytes(), &content(&name));
        }
        let network = Arc::new(Namespace::make());
        let server = Behind::network(server, &network);
        let settings: BTreeMap<String, String> = server.settings();
        let spec = SourceSpec::parse(&server.uri(), &settings).expect("a source");
        let secrets = server.secrets().into_iter();
        let secrets = secrets.map(|(key, value)| (key, Secret::new(value))).collect();
        let backend = connect(&spec, &secrets, &Limits::default()).await.expect("a backend");
        Self {
            server,
            network,
            backend,
        }
    }

    async fn found(&self, name: &str) -> Metadata {
        present(self.backend.stat(&path(name)).await, name)
    }

    /// Reads the files of a round, all at once.
    async fn read(&self, files: &[(String, Metadata)]) {
        let reads = files.iter().map(|(name, metadata)| async move {
            let range = 0..metadata.size;
            let what = format!("a read of {name}");
            let at = path(name);
            let read = self.backend.read(&at, &metadata.version, range);
            let bytes = present(in_time(read, &what).await, &what);
            assert!(bytes == content(name), "{what}: other bytes");
        });
        join_all(reads).await;
    }

    async fn names(&self) -> usize {
        let what = "a listing";
        let list = async {
            match self.backend.list(&path("folder")).await? {
                Presence::Found(pages) => pages.try_concat().await.map(Presence::Found),
                Presence::Absent => Ok(Presence::Absent),
            }
        };
        present(in_time(list, what).await, what).len()
    }

    fn forget(&self) {
        assert!(self.network.forget_connections() > 0, "a connection was open");
    }
}

fn present<T>(answer: Result<Presence<T>>, what: &str) -> T {
    match answer {
        Ok(Presence::Found(found)) => found,
        Ok(Presence::Absent) => panic!("{what}: it is absent"),
        Err(error) => panic!("{what}: {error}: {}", error.cause()),
    }
}

/// Waits for an answer as long as a caller does.
async fn in_time<T>(request: impl Future<Output = Result<T>>, what: &str) -> Result<T> {
    let answer = tokio::time::timeout(DEADLINE, request).await;
    answer.unwrap_or_else(|_| panic!("{what}: no answer within {DEADLINE:?}"))
}

/// Asks everything of a source whose connections have died before each question.
async fn goes_on(server: impl Server + 'static) {
    let site = Site::start(server).await;
    let mut files = Vec::new();
    for round in 0..3 {
        let names = (0..READERS).map(|reader| file(round, reader));
        let looked = names.map(|name| async {
            let metadata = site.found(&name).await;
            (name, metadata)
        });
        files.push(join_all(looked).await);
    }
    site.read(&files[0]).await;
    site.forget();
    site.read(&files[1]).await;
    // And again, since what is open now was made after a loss.
    site.forget();
    site.read(&files[2]).await;
    site.forget();
    assert_eq!(site.names().await, 4 * READERS);
    site.forget();
    let what = "a look";
    assert_eq!(
        present(in_time(site.backend.stat(&path(&file(3, 0))), what).await, what).size,
        BYTES as u64
    );
    site.forget();
    let (name, bytes) = ("new", content("new"));
    let (body, what) = (Bytes::from(bytes.clone()), "a put");
    let at = path(name);
    let put = site.backend.put(&at, &body, &Expected::Absent);
    let put = in_time(put, what)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", error.cause()));
    let read = site.backend.read(&path(name), &put.version, 0..put.size).await;
    assert!(present(read, name) == bytes, "other bytes were put");
    drop(site.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smb_goes_on_over_new_connections() {
    goes_on(Samba::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_goes_on_over_new_connections() {
    goes_on(SeaweedFs::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webdav_goes_on_over_new_connections() {
    goes_on(Apache::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webdav_nginx_goes_on_over_new_connections() {
    goes_on(Nginx::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sftp_goes_on_over_new_connections() {
    goes_on(Sshd::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ftp_goes_on_over_new_connections() {
    goes_on(Vsftpd::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_goes_on_over_new_connections() {
    goes_on(Azurite::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_goes_on_over_new_connections() {
    goes_on(FakeGcs::start()).await;
}
