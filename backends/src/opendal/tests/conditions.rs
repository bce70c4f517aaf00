//! How an object store is written to whose server minds conditions, or does not: what is left to it, and what is asked before.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};
use parking_lot::Mutex;

use std::sync::atomic::Ordering;

use super::*;
use crate::{ErrorKind, Expected, Version};

/// Which conditions a server minds.
#[derive(Clone, Copy)]
struct Minded {
    absence: bool,
    version: bool,
    removal: bool,
}

const NEITHER: Minded = Minded {
    absence: false,
    version: false,
    removal: false,
};
const BOTH: Minded = Minded {
    absence: true,
    version: true,
    removal: true,
};
/// Puts that go before the server has been tried.
const UNTRIED: usize = 4;

/// A bucket in memory.
struct Bucket {
    minded: Minded,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Method and key of all that was asked for.
    asked: Mutex<Vec<(String, String)>>,
    /// Whether it is too busy.
    busy: AtomicBool,
    /// What another puts there right before a removal.
    slipped_in: Mutex<Option<(String, Vec<u8>)>>,
}

impl Bucket {
    fn start(minded: Minded) -> (Arc<Self>, OpendalBackend) {
        let bucket = Arc::new(Self {
            minded,
            objects: Mutex::default(),
            asked: Mutex::default(),
            busy: AtomicBool::new(false),
            slipped_in: Mutex::default(),
        });
        let served = Arc::clone(&bucket);
        let settings = BTreeMap::from([
            ("endpoint".to_owned(), serve(move |asked| served.answer(asked))),
            ("anonymous".to_owned(), "true".to_owned()),
        ]);
        let spec = SourceSpec::parse("s3://bucket", &settings).expect("a good source");
        let backend = OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend");
        (bucket, backend)
    }

    fn answer(&self, asked: &Asked) -> Said {
        let head = asked.head.to_ascii_lowercase();
        let condition = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            line.map(|value| value.trim().to_owned())
        };
        let key = asked.target.trim_start_matches("/bucket/").to_owned();
        self.asked.lock().push((asked.method.clone(), key.clone()));
        let mut objects = self.objects.lock();
        let tag = |bytes: &[u8]| super::super::write::tag_of(&[Md5::digest(bytes).into()]);
        let plain = |status| (status, vec![], Vec::new());
        match &*asked.method {
            "GET" if asked.target.contains("list-type") => {
                let list = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
                (200, vec![], list.to_vec())
            }
            "HEAD" => match objects.get(&key) {
                Some(bytes) => {
                    let headers = vec![
                        ("ETag", tag(bytes)),
                        ("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT".to_owned()),
                        ("Content-Length", bytes.len().to_string()),
                    ];
                    (200, headers, Vec::new())
                }
                None => plain(404),
            },
            "PUT" => {
                let is_trial = key.contains(crate::TEMPORARY_PREFIX);
                if self.busy.load(Ordering::Relaxed) && is_trial {
                    return plain(503);
                }
                let there = objects.get(&key).map(|bytes| tag(bytes));
                let breaks_absence = condition("if-none-match:").is_some() && there.is_some();
                let breaks_version = condition("if-match:").is_some_and(|wanted| there.as_ref() != Some(&wanted));
                if (self.minded.absence && breaks_absence) || (self.minded.version && breaks_version) {
                    let code = b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>";
                    return (412, vec![], code.to_vec());
                }
                let bytes = asked.body.clone().into_bytes();
                let headers = vec![
                    ("ETag", tag(&bytes)),
                    ("Date", "Tue, 02 Jan 2024 03:04:06 GMT".to_owned()),
                ];
                objects.insert(key, bytes);
                (200, headers, Vec::new())
            }
            "DELETE" => {
                if let Some((key, bytes)) = self.slipped_in.lock().take() {
                    objects.insert(key, bytes);
                }
                let there = objects.get(&key).map(|bytes| tag(bytes));
                let breaks_version = condition("if-match:").is_some_and(|wanted| there.as_ref() != Some(&wanted));
                if self.minded.removal && breaks_version {
                    let code = b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>";
                    return (412, vec![], code.to_vec());
                }
                objects.remove(&key);
                plain(204)
            }
            _ => plain(400),
        }
    }

    /// Gives what was asked since the last time.
    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.asked.lock())
    }
}

async fn put(backend: &OpendalBackend, key: &str, bytes: &'static [u8], expected: &Expected) -> Result<Metadata> {
    let body = Bytes::from_static(bytes);
    backend.put(&ObjectPath::from_bytes(key), &body, expected).await
}

async fn put_some(backend: &OpendalBackend) {
    for number in 0..UNTRIED {
        let made = put(backend, &format!("some/{number}"), b"bytes", &Expected::Absent).await;
        made.expect("it is put");
    }
}

#[tokio::test]
async fn what_a_server_minds_is_left_to_it_and_a_small_object_takes_one_request() {
    let (bucket, backend) = Bucket::start(BOTH);
    put_some(&backend).await;
    let objects: Vec<_> = bucket.objects.lock().keys().cloned().collect();
    assert_eq!(objects.len(), UNTRIED, "what it was tried with is gone: {objects:?}");
    bucket.asked();

    let made = put(&backend, "new", b"one", &Expected::Absent)
        .await
        .expect("it is put");
    assert_eq!(bucket.asked(), [("PUT".to_owned(), "new".to_owned())]);
    assert_eq!(made.size, 3);
    let there = backend.stat(&ObjectPath::from_bytes("new")).await.expect("a look");
    let Presence::Found(there) = there else {
        panic!("absent")
    };
    assert_eq!(made.version, there.version, "a listing tells of no change");
    assert!(made.modified > there.modified, "the time is that of the answer");
    bucket.asked();

    let over = Expected::Version(made.version.clone());
    put(&backend, "new", b"two", &over).await.expect("it is replaced");
    assert_eq!(bucket.asked(), [("PUT".to_owned(), "new".to_owned())]);
    for expected in [Expected::Absent, over] {
        let error = put(&backend, "new", b"three", &expected)
            .await
            .expect_err("it has changed");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(bucket.objects.lock()["new"], b"two");
    }
    let gone = Expected::Version(Version::from_etag(b"\"0\""));
    assert!(put(&backend, "none", b"x", &gone).await.is_err());
    assert!(!bucket.objects.lock().contains_key("none"));
}

#[tokio::test]
async fn what_a_server_does_not_mind_is_looked_at_before_each_object() {
    for minded in [
        NEITHER,
        Minded {
            absence: true,
            ..NEITHER
        },
        Minded {
            version: true,
            ..NEITHER
        },
    ] {
        let (bucket, backend) = Bucket::start(minded);
        put_some(&backend).await;
        bucket.asked();
        let made = put(&backend, "new", b"one", &Expected::Absent)
            .await
            .expect("it is put");
        assert_eq!(bucket.asked().len() == 1, minded.absence);
        let over = Expected::Version(made.version);
        put(&backend, "new", b"two", &over).await.expect("it is replaced");
        assert_eq!(bucket.asked().len() == 1, minded.version);
        for expected in [Expected::Absent, over] {
            let error = put(&backend, "new", b"three", &expected)
                .await
                .expect_err("it has changed");
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert_eq!(bucket.objects.lock()["new"], b"two", "it was replaced unseen");
        }
        let tried = |asked: &[(String, String)]| asked.iter().any(|(_, key)| key.contains(crate::TEMPORARY_PREFIX));
        assert!(!tried(&bucket.asked()), "it is tried once");
    }
}

#[tokio::test]
async fn a_server_that_is_too_busy_to_be_tried_is_tried_later() {
    let (bucket, backend) = Bucket::start(BOTH);
    bucket.busy.store(true, Ordering::Relaxed);
    put_some(&backend).await;
    bucket.asked();
    put(&backend, "careful", b"one", &Expected::Absent)
        .await
        .expect("it is put");
    assert!(bucket.asked().len() > 1, "nothing is known of it");
    bucket.busy.store(false, Ordering::Relaxed);
    for number in 0..UNTRIED {
        let made = put(&backend, &format!("more/{number}"), b"bytes", &Expected::Absent).await;
        made.expect("it is put");
    }
    bucket.asked();
    put(&backend, "new", b"one", &Expected::Absent)
        .await
        .expect("it is put");
    assert_eq!(bucket.asked(), [("PUT".to_owned(), "new".to_owned())]);
}

#[tokio::test]
async fn a_server_that_minds_it_removes_an_object_in_one_version_alone() {
    for minded in [BOTH, NEITHER] {
        let (bucket, backend) = Bucket::start(minded);
        let path = ObjectPath::from_bytes("moved");
        // It is tried after some removals too.
        for _ in 0..UNTRIED {
            let made = put_unseen(&bucket, &backend, b"one").await;
            let removed = backend.remove_file(&path, &Expected::Version(made)).await;
            assert_eq!(removed.expect("it is removed"), Presence::Found(()));
        }
        assert!(bucket.objects.lock().is_empty(), "what it was tried with is gone");
        let seen = put_unseen(&bucket, &backend, b"one").await;
        *bucket.slipped_in.lock() = Some(("moved".to_owned(), b"theirs".to_vec()));
        let removed = backend.remove_file(&path, &Expected::Version(seen.clone())).await;
        let left = bucket.objects.lock().get("moved").cloned();
        if minded.removal {
            assert_eq!(removed.expect_err("it has changed").kind(), ErrorKind::Conflict);
            assert_eq!(left.as_deref(), Some(&b"theirs"[..]));
            let removed = backend.remove_file(&path, &Expected::Version(seen)).await;
            assert_eq!(removed.expect_err("that is seen before").kind(), ErrorKind::Conflict);
            let removed = backend.remove_file(&path, &Expected::Anything).await;
            assert_eq!(removed.expect("whatever it is"), Presence::Found(()));
            assert!(bucket.objects.lock().is_empty());
        } else {
            removed.expect("nothing tells that it has changed");
        }
    }
}

/// Puts an object as another would, and gives its version.
async fn put_unseen(bucket: &Bucket, backend: &OpendalBackend, bytes: &[u8]) -> Version {
    bucket.objects.lock().insert("moved".to_owned(), bytes.to_vec());
    match backend.stat(&ObjectPath::from_bytes("moved")).await {
        Ok(Presence::Found(there)) => there.version,
        other => panic!("{other:?}"),
    }
}
