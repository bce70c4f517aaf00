//! What object stores and `WebDAV` servers may say, and how it is taken.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn bucket(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> OpendalBackend {
    let settings = BTreeMap::from([
        ("endpoint".to_owned(), serve(answer)),
        ("anonymous".to_owned(), "true".to_owned()),
    ]);
    let spec = SourceSpec::parse("s3://bucket", &settings).expect("a good source");
    OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend")
}

fn page(keys: &[(&str, u64)], prefixes: &[&str], truncated: &str) -> Said {
    let mut xml = format!("<ListBucketResult>{truncated}");
    for (key, size) in keys {
        let _infallible = write!(
            xml,
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;e-{size}&quot;</ETag>\
             <LastModified>2024-01-02T03:04:05.678Z</LastModified></Contents>"
        );
    }
    for prefix in prefixes {
        let _infallible = write!(xml, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    (
        200,
        vec![("Content-Type", "application/xml".to_owned())],
        (xml + "</ListBucketResult>").into_bytes(),
    )
}

const LAST: &str = "<IsTruncated>false</IsTruncated>";

fn missing() -> Said {
    (
        404,
        vec![],
        b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>".to_vec(),
    )
}

fn object(asked: &Asked, bytes: &'static [u8]) -> Said {
    let headers = vec![
        ("ETag", format!("\"e-{}\"", bytes.len())),
        ("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT".to_owned()),
    ];
    (if asked.method == "HEAD" { 200 } else { 206 }, headers, bytes.to_vec())
}

#[tokio::test]
async fn an_object_and_a_prefix_of_one_name_are_two_children() {
    let backend = bucket(|asked| {
        if asked.target.contains("list-type") {
            return page(&[("a", 5)], &["a/"], LAST);
        }
        object(asked, b"bytes")
    });
    let listed = children(&backend, "").await.expect("a listing");
    let mut seen = names(&listed);
    seen.sort_unstable_by_key(|(_, kind)| *kind == Kind::File);
    assert_eq!(seen, [("a", Kind::Directory), ("a", Kind::File)]);
    let path = ObjectPath::from_bytes("a");
    let Presence::Found(directory) = backend.stat(&path).await.expect("a look") else {
        panic!("absent")
    };
    assert_eq!(directory.kind, Kind::Directory, "the directory wins");
    let file = listed
        .iter()
        .find(|child| child.metadata.kind == Kind::File)
        .expect("the object");
    let read = backend.read(&path, &file.metadata.version, 0..5).await.expect("a read");
    assert_eq!(
        read,
        Presence::Found(Bytes::from_static(b"bytes")),
        "and the object can be read"
    );
}

#[tokio::test]
async fn an_object_whose_key_ends_in_a_slash_is_a_child_without_a_name() {
    let backend = bucket(|asked| match asked.target.as_str() {
        target if target.contains("list-type") => page(&[("a/", 6), ("a/b", 1)], &["a//"], LAST),
        "/bucket/a/" => object(asked, b"marker"),
        _ => missing(),
    });
    let listed = children(&backend, "a").await.expect("a listing");
    let mut seen = names(&listed);
    seen.sort_unstable_by_key(|(name, kind)| (*name, *kind == Kind::File));
    assert_eq!(seen, [("", Kind::Directory), ("", Kind::File), ("b", Kind::File)]);
    let marker = listed
        .iter()
        .find(|child| child.name.is_empty() && child.metadata.kind == Kind::File);
    let metadata = &marker.expect("the marker").metadata;
    assert_eq!(metadata.size, 6);
    let path = ObjectPath::from_bytes("a").join(b"");
    let read = backend.read(&path, &metadata.version, 0..6).await.expect("a read");
    assert_eq!(read, Presence::Found(Bytes::from_static(b"marker")));
}

#[tokio::test]
async fn a_directory_that_is_to_stay_gets_an_object_once_whatever_lies_beneath() {
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&puts);
    let backend = bucket(move |asked| match (&*asked.method, &*asked.target) {
        ("PUT", "/bucket/a/") => {
            counted.fetch_add(1, Ordering::SeqCst);
            (200, vec![("ETag", "\"e-0\"".to_owned())], Vec::new())
        }
        ("HEAD", "/bucket/a/") if counted.load(Ordering::SeqCst) > 0 => object(asked, b""),
        (_, target) if target.contains("list-type") => page(&[("a/b", 1)], &[], LAST),
        _ => missing(),
    });
    for _ in 0..2 {
        let kept = backend.keep_directory(&ObjectPath::from_bytes("a")).await;
        kept.expect("it has an object");
        assert_eq!(puts.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_key_that_no_request_can_name_is_listed_and_refused() {
    let backend = bucket(|asked| {
        if asked.target.contains("list-type") {
            return page(&[("good", 1)], &["./", "../"], LAST);
        }
        missing()
    });
    let listed = children(&backend, "").await.expect("a listing");
    assert_eq!(listed.len(), 3, "{listed:?}");
    for path in [".", "..", "../etc", "a/../b"] {
        let error = backend.stat(&ObjectPath::from_bytes(path)).await.expect_err("no look");
        assert_eq!(error.kind(), ErrorKind::BadPath, "{path}");
    }
}

#[tokio::test]
async fn a_listing_that_never_ends_is_nonsense() {
    let backend = bucket(|_| page(&[("a", 1), ("b", 1)], &[], ""));
    let error = children(&backend, "").await.expect_err("no listing");
    assert_eq!(error.kind(), ErrorKind::Nonsense, "{error}");
}

#[tokio::test]
async fn a_listing_that_goes_too_deep_is_nonsense() {
    let backend = bucket(|_| page(&[("a/b/c", 1)], &[], LAST));
    let error = children(&backend, "").await.expect_err("no listing");
    assert_eq!(error.kind(), ErrorKind::Nonsense, "{error}");
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_an_error() {
    let backend = bucket(|asked| {
        if asked.target.contains("continuation-token") {
            return (500, vec![], b"<Error><Code>InternalError</Code></Error>".to_vec());
        }
        let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>";
        page(&[("a", 1)], &[], more)
    });
    children(&backend, "").await.expect_err("no listing");
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_neither_empty_nor_absent() {
    let backend = bucket(|_| {
        (
            404,
            vec![],
            b"<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>".to_vec(),
        )
    });
    let path = ObjectPath::from_bytes("a");
    let errors = [
        backend.check().await.err(),
        backend.stat(&path).await.err(),
        children(&backend, "").await.err(),
        backend.read(&path, &Version::from_etag(b"e"), 0..1).await.err(),
    ];
    for error in errors {
        let error = error.expect("an error");
        assert_eq!(error.kind(), ErrorKind::NoSuchSource, "{error}");
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_length_or_version_is_not_passed_on() {
    let path = ObjectPath::from_bytes("a");
    let version = Version::from_etag(b"\"e-5\"");
    // The whole object in place of a range.
    let whole = bucket(|asked| {
        if asked.target.contains("list-type") {
            return page(&[], &[], LAST);
        }
        object(asked, b"bytes")
    });
    let error = whole.read(&path, &version, 1..3).await.expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::Nonsense, "{error}");
    // Fewer bytes, of the version that was asked for.
    let error = whole.read(&path, &version, 0..9).await.expect_err("too little");
    assert_eq!(error.kind(), ErrorKind::Nonsense, "{error}");
    // A server that ignores the condition.
    let error = whole
        .read(&path, &Version::from_etag(b"\"old\""), 0..5)
        .await
        .expect_err("another version");
    assert_eq!(error.kind(), ErrorKind::VersionChanged, "{error}");
}

#[tokio::test]
async fn a_crowd_of_readers_shares_its_looks() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const READERS: usize = 64;
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let multistatus = br#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/a</D:href><D:propstat>
        <D:status>HTTP/1.1 200 OK</D:status><D:prop><D:getcontentlength>5</D:getcontentlength>
        <D:getetag>"e"</D:getetag><D:getlastmodified>Tue, 02 Jan 2024 03:04:05 GMT</D:getlastmodified>
        <D:resourcetype/></D:prop></D:propstat></D:response></D:multistatus>"#;
    let address = serve(move |asked| {
        if asked.method == "PROPFIND" {
            LOOKS.fetch_add(1, Ordering::SeqCst);
            return (207, vec![], multistatus.to_vec());
        }
        (206, vec![], b"bytes".to_vec())
    });
    let uri = address.replace("http://", "webdav://");
    let spec = SourceSpec::parse(&uri, &BTreeMap::new()).expect("a good source");
    let backend = OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend");
    let path = ObjectPath::from_bytes("a");
    let version = Version::from_etag(b"\"e\"");
    let reads = (0..READERS).map(|_| backend.read(&path, &version, 0..5));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.expect("a read"), Presence::Found(Bytes::from_static(b"bytes")));
    }
    let looks = LOOKS.load(Ordering::SeqCst);
    assert!((1..READERS).contains(&looks), "{looks} looks for {READERS} readers");
}

/// A bucket that answers 429 the first time, and the times at which it was asked.
fn busy_once(retry_after: &'static str) -> (OpendalBackend, Arc<parking_lot::Mutex<Vec<std::time::Instant>>>) {
    let asked_at = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked_at);
    let backend = bucket(move |asked| {
        let mut noted = noted.lock();
        noted.push(std::time::Instant::now());
        if noted.len() == 1 {
            return (429, vec![("Retry-After", retry_after.to_owned())], Vec::new());
        }
        object(asked, b"bytes")
    });
    (backend, asked_at)
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_for_a_moment_is_waited_for() {
    let (backend, asked_at) = busy_once("1");
    let path = ObjectPath::from_bytes("a");
    let version = Version::from_etag(b"\"e-5\"");
    let read = backend.read(&path, &version, 0..5).await.expect("a read");
    assert_eq!(read, Presence::Found(Bytes::from_static(b"bytes")));
    let asked_at = asked_at.lock();
    assert_eq!(asked_at.len(), 2);
    assert!(asked_at[1] - asked_at[0] >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_for_long_is_asked_nothing() {
    let (backend, asked_at) = busy_once("3600");
    let path = ObjectPath::from_bytes("a");
    let version = Version::from_etag(b"\"e-5\"");
    for _ in 0..3 {
        let error = backend.read(&path, &version, 0..5).await.expect_err("it is left alone");
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        let after = error.retry_after().expect("it said for how long");
        assert!(
            after > Duration::from_mins(50) && after <= Duration::from_hours(1),
            "{after:?}"
        );
    }
    assert_eq!(asked_at.lock().len(), 1);
}

#[tokio::test]
async fn a_server_that_goes_on_asking_to_be_left_alone_is_waited_for_once() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let backend = bucket(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (429, vec![("Retry-After", "1".to_owned())], Vec::new())
    });
    let path = ObjectPath::from_bytes("a");
    let read = backend.read(&path, &Version::from_etag(b"\"e-5\""), 0..5).await;
    let error = read.expect_err("it has no bytes for anybody");
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::RateLimited, Some(Duration::from_secs(1)))
    );
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_not_taken() {
    let version = Version::from_etag(b"\"e-5\"");
    for (status, part) in [(206, Some("bytes 0-4/15")), (206, Some("bytes 5-14/15")), (200, None)] {
        let backend = bucket(move |asked| {
            let (_, mut headers, bytes) = object(asked, b"bytes");
            if asked.method == "HEAD" {
                return (200, headers, bytes);
            }
            headers.extend(part.map(|part| ("Content-Range", part.to_owned())));
            (status, headers, bytes)
        });
        let path = ObjectPath::from_bytes("a");
        let error = backend.read(&path, &version, 5..10).await.expect_err("not those bytes");
        assert_eq!(error.kind(), ErrorKind::Nonsense, "{status} {part:?}: {error}");
    }
}

#[tokio::test]
async fn whoever_asks_whether_a_server_is_there_is_told_that_it_asks_to_be_left_alone() {
    for status in [429, 503] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let backend = bucket(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            (status, vec![("Retry-After", "2".to_owned())], Vec::new())
        });
        let error = backend.check().await.expect_err("it is not to be asked");
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{status}: {error}");
        assert!(
            error.retry_after().is_some_and(|after| after.as_secs() <= 2),
            "{error:?}"
        );
        assert_eq!(
            asked.load(Ordering::SeqCst),
            1,
            "nobody waits until it may be asked again"
        );
    }
}

#[tokio::test]
async fn a_uri_that_leads_to_a_file_is_said_to() {
    let multistatus = br#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/a.txt</D:href><D:propstat>
        <D:status>HTTP/1.1 200 OK</D:status><D:prop><D:getcontentlength>5</D:getcontentlength>
        <D:getlastmodified>Tue, 02 Jan 2024 03:04:05 GMT</D:getlastmodified>
        <D:resourcetype/></D:prop></D:propstat></D:response></D:multistatus>"#;
    for (status, exists, kind) in [
        (400, true, ErrorKind::NotADirectory),
        (404, true, ErrorKind::NotADirectory),
        (405, true, ErrorKind::NotADirectory),
        (404, false, ErrorKind::NoSuchSource),
        (400, false, ErrorKind::Other),
    ] {
        let address = serve(move |asked| match asked.target.as_str() {
            "/a.txt" if exists => (207, vec![], multistatus.to_vec()),
            "/a.txt" => (404, vec![], Vec::new()),
            _ => (status, vec![], Vec::new()),
        });
        let uri = address.replace("http://", "webdav://") + "/a.txt";
        let spec = SourceSpec::parse(&uri, &BTreeMap::new()).expect("a good source");
        let backend = OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend");
        let error = backend.check().await.expect_err("no folder");
        assert_eq!(error.kind(), kind, "{status} {exists}: {error}");
    }
}

/// What a server refuses is absent only where nothing can be.
#[tokio::test]
async fn a_refusal_is_absence_beneath_a_file_alone() {
    fn answer(kind: &str) -> Vec<u8> {
        let answer = format!(
            r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/</D:href><D:propstat>
            <D:status>HTTP/1.1 200 OK</D:status><D:prop><D:getcontentlength>5</D:getcontentlength>
            <D:getlastmodified>Tue, 02 Jan 2024 03:04:05 GMT</D:getlastmodified>
            <D:resourcetype>{kind}</D:resourcetype></D:prop></D:propstat></D:response></D:multistatus>"#
        );
        answer.into_bytes()
    }
    for status in [400, 405, 500] {
        let address = serve(move |asked| match asked.target.trim_end_matches('/') {
            "" | "/directory" => (207, vec![], answer("<D:collection/>")),
            "/file" => (207, vec![], answer("")),
            "/gone" => (404, vec![], Vec::new()),
            _ => (status, vec![], Vec::new()),
        });
        let spec =
            SourceSpec::parse(&address.replace("http://", "webdav://"), &BTreeMap::new()).expect("a good source");
        let backend = OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend");
        for (path, is_absent) in [
            ("file/beneath", true),
            ("file/beneath/more", true),
            ("gone/beneath", true),
            ("directory/inside", false),
            ("refused/beneath", false),
            ("refused", false),
        ] {
            let looked = backend.stat(&ObjectPath::from_bytes(path)).await;
            assert_eq!(
                matches!(looked, Ok(Presence::Absent)),
                is_absent,
                "{status} {path}: {looked:?}"
            );
            assert_eq!(looked.is_err(), !is_absent, "{status} {path}: {looked:?}");
        }
    }
}
