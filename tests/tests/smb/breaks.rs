//! Connections that break, servers that stop, callers that go away.

use futures::StreamExt;

use super::*;

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_after_the_server_was_killed_and_started_again() {
    let server = Samba::start();
    let content = noise(8, 6 * MIB as usize);
    server.put(b"file", &content);
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    let first = read(&*backend, "file", &metadata.version, 0..2 * MIB)
        .await
        .expect("bytes");
    server.kill9();
    for answer in [
        kind(backend.read(&path("file"), &metadata.version, 2 * MIB..3 * MIB).await),
        kind(backend.stat(&path("file")).await),
        kind(backend.stat(&path("never was")).await),
        kind(backend.list(&ObjectPath::root()).await),
    ] {
        assert_eq!(answer, ErrorKind::Unreachable);
    }
    server.restart();
    let rest = until_reached(|| read(&*backend, "file", &metadata.version, 2 * MIB..metadata.size)).await;
    assert_eq!([&first[..], &rest[..]].concat(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_while_nobody_looked_is_not_noticed() {
    let server = Samba::start();
    server.put(b"file", b"content");
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    read(&*backend, "file", &metadata.version, 0..7).await.expect("bytes");
    server.restart();
    // The handle that is kept open died with the connection; neither is told of.
    assert_eq!(
        read(&*backend, "file", &metadata.version, 0..7).await.expect("bytes"),
        b"content"[..]
    );
    server.restart();
    assert_eq!(stat(&*backend, "file").await, metadata);
    server.restart();
    assert_eq!(children(&*backend, "").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_in_full_flight_survive_a_restart() {
    let server = Samba::start();
    let content = Arc::new(noise(9, 8 * MIB as usize));
    server.put(b"file", &content);
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    let (started, mut start) = tokio::sync::mpsc::unbounded_channel();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (backend, version, content) = (Arc::clone(&backend), metadata.version.clone(), Arc::clone(&content));
            let started = started.clone();
            tokio::spawn(async move {
                for round in 0..20u64 {
                    let range = round % 8 * MIB..(round % 8 + 1) * MIB;
                    let bytes = until_reached(|| read(&*backend, "file", &version, range.clone())).await;
                    assert_eq!(bytes, content[range.start as usize..range.end as usize]);
                    started.send(()).expect("the test listens");
                }
            })
        })
        .collect();
    for _ in 0..3 {
        start.recv().await.expect("a reader has begun");
        let server = &server;
        tokio::task::block_in_place(|| server.restart());
    }
    for reader in readers {
        reader.await.expect("a reader");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_while_the_server_was_away_is_not_taken_for_the_old_one() {
    let server = Samba::start();
    server.put(b"file", &noise(10, 2 * MIB as usize));
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    read(&*backend, "file", &metadata.version, 0..MIB).await.expect("bytes");
    server.put(b"other", &noise(11, 2 * MIB as usize));
    std::fs::rename(server.file(b"other"), server.file(b"file")).expect("rename");
    server.restart();
    let answer = backend.read(&path("file"), &metadata.version, MIB..2 * MIB).await;
    assert_eq!(kind(answer), ErrorKind::VersionChanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_abandoned_reads_cost_nothing_but_themselves() {
    let server = Samba::start_with(&["smb2 max credits = 128"]);
    let content = noise(12, 16 * MIB as usize);
    server.put(b"file", &content);
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    read(&*backend, "file", &metadata.version, 0..MIB).await.expect("bytes");
    server.pause();
    let file = path("file");
    for number in 0..100u64 {
        let read = backend.read(&file, &metadata.version, number % 16 * MIB..(number % 16 + 1) * MIB);
        // Polled once: sent or waiting for its turn, but never answered.
        assert!(futures::poll!(read).is_pending());
    }
    server.resume();
    // As many at once as the source takes: each lost credit or permit would be missing now.
    for _ in 0..3 {
        let reads = (0..16u64).map(|number| {
            let (backend, version) = (&backend, &metadata.version);
            async move { read(&**backend, "file", version, number * MIB..(number + 1) * MIB).await }
        });
        let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(reads))
            .await
            .expect("all answered");
        let bytes: Vec<u8> = answers.into_iter().flat_map(|answer| answer.expect("bytes")).collect();
        assert_eq!(blake3::hash(&bytes), blake3::hash(&content));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_an_error_and_not_a_shorter_listing() {
    let server = Samba::start();
    for number in 0..20_000 {
        server.put(
            format!("many/a file with a rather long name, so that pages are many: {number}").as_bytes(),
            b"",
        );
    }
    let backend = connect(&server).await;
    let mut listing = found(backend.list(&path("many")).await);
    let first = listing.next().await.expect("a page").expect("no error yet");
    assert!(!first.is_empty());
    server.kill9();
    let mut rest = Vec::new();
    while let Some(page) = listing.next().await {
        rest.push(page);
    }
    let last = rest.pop().expect("something after the first page");
    assert_eq!(kind(last), ErrorKind::Unreachable);
    assert!(rest.iter().all(std::result::Result::is_ok), "nothing follows an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_left_in_the_middle_and_many_files_leave_nothing_open() {
    let server = Samba::start();
    for number in 0..200 {
        server.put(format!("files/{number}").as_bytes(), b"content");
    }
    let backend = connect(&server).await;
    for _ in 0..50 {
        drop(found(backend.list(&path("files")).await));
    }
    for child in children(&*backend, "files").await {
        let name = format!("files/{}", String::from_utf8(child.name).expect("a number"));
        read(&*backend, &name, &child.metadata.version, 0..7)
            .await
            .expect("bytes");
    }
    // The folder itself and the handles that may stay open are few; everything else is closed within a moment.
    let closed = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while open_below(&server, "files") > 64 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("handles are closed");
}

/// Counts what the server's processes hold open beneath a folder of the share.
fn open_below(server: &Samba, folder: &str) -> usize {
    let folder = server.file(folder.as_bytes());
    let server = server.daemon().pid().expect("it runs").to_string();
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flatten()
        .flatten()
        .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
        .filter(|target| target.starts_with(&folder))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_its_time_over_each_step_of_the_log_in_is_entered_all_the_same() {
    let server = Behind::proxy(Samba::start());
    server.put(b"file", b"content");
    let limits = Limits {
        connect_timeout: Duration::from_secs(1),
        ..limits()
    };
    // A server on a busy machine: four answers until the share is entered, which are later together than a connection may be.
    server.line().fail(Fault::Late {
        by: Duration::from_millis(400),
    });
    let password = server.secrets().remove("password");
    let backend = connect_to(&server.uri(), &[], password.as_deref(), &limits).await;
    let metadata = stat(&*backend, "file").await;
    let bytes = read(&*backend, "file", &metadata.version, 0..7).await.expect("bytes");
    assert_eq!(bytes, b"content"[..]);
}
