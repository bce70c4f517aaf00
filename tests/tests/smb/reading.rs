//! What is read is what lies there, in one version.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn every_range_reads_as_it_lies() {
    let server = Samba::start();
    let content = noise(1, 9 * MIB + 123);
    server.put(b"dir/file", &content);
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "dir/file").await;
    assert_eq!(metadata.size, content.len() as u64);
    assert_eq!(
        read_all(&*backend, "dir/file", &metadata).await.expect("bytes"),
        content
    );
    let size = metadata.size;
    for range in [
        0..0,
        0..1,
        size - 1..size,
        MIB as u64 - 1..MIB as u64 + 1,
        5..4 * MIB as u64 + 7,
        0..size,
    ] {
        let bytes = read(&*backend, "dir/file", &metadata.version, range.clone())
            .await
            .expect("bytes");
        assert_eq!(bytes, content[range.start as usize..range.end as usize], "{range:?}");
    }
    assert!(
        read(&*backend, "dir/file", &metadata.version, size - 1..size + 1)
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_a_file_beyond_4_gib_are_read() {
    const FAR: u64 = 5 * 1024 * 1024 * 1024;
    let server = Samba::start();
    server.put(b"empty", b"");
    let mut sparse = File::create(server.file(b"sparse")).expect("a file");
    sparse.seek(SeekFrom::Start(FAR)).expect("seek");
    sparse.write_all(b"the end").expect("write");
    drop(sparse);
    let backend = connect(&server).await;
    let empty = stat(&*backend, "empty").await;
    assert!(
        read(&*backend, "empty", &empty.version, 0..0)
            .await
            .expect("nothing")
            .is_empty()
    );
    let sparse = stat(&*backend, "sparse").await;
    assert_eq!(sparse.size, FAR + 7);
    assert_eq!(
        read(&*backend, "sparse", &sparse.version, FAR - 1..FAR + 7)
            .await
            .expect("bytes"),
        b"\0the end"[..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_readers_get_their_own_bytes() {
    let server = Samba::start();
    for reader in 0..16 {
        server.put(
            format!("file {reader}").as_bytes(),
            &noise(reader, 3 * MIB + reader as usize),
        );
    }
    let backend = connect(&server).await;
    let readers: Vec<_> = (0..16u64)
        .map(|reader| {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move {
                let name = format!("file {reader}");
                for _ in 0..3 {
                    let metadata = stat(&*backend, &name).await;
                    let bytes = read_all(&*backend, &name, &metadata).await.expect("bytes");
                    assert_eq!(
                        blake3::hash(&bytes),
                        blake3::hash(&noise(reader, 3 * MIB + reader as usize))
                    );
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.expect("a reader");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_grants_few_credits_is_read_in_smaller_pieces() {
    let server = Samba::start_with(&["smb2 max credits = 8"]);
    let content = noise(2, 5 * MIB);
    server.put(b"file", &content);
    for number in 0..3000 {
        server.put(format!("many/{number}").as_bytes(), b"");
    }
    let backend = connect(&server).await;
    let metadata = stat(&*backend, "file").await;
    assert_eq!(read_all(&*backend, "file", &metadata).await.expect("bytes"), content);
    assert_eq!(children(&*backend, "many").await.len(), 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_under_a_reader_is_read_to_its_end_or_refused() {
    let server = Samba::start();
    let (old, new) = (noise(3, 3 * MIB), noise(4, 3 * MIB));
    server.put(b"file", &old);
    let backend = connect(&server).await;
    let before = stat(&*backend, "file").await;
    let end = before.size;
    let first = read(&*backend, "file", &before.version, 0..MIB as u64)
        .await
        .expect("bytes");
    assert_eq!(first, old[..MIB]);
    server.put(b"new", &new);
    fs::rename(server.file(b"new"), server.file(b"file")).expect("rename");
    match read(&*backend, "file", &before.version, MIB as u64..end).await {
        Ok(rest) => assert_eq!(rest, old[MIB..]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::VersionChanged),
    }
    let after = stat(&*backend, "file").await;
    assert_ne!(after.version, before.version);
    assert_eq!(read_all(&*backend, "file", &after).await.expect("bytes"), new);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_a_file_again_and_again_never_mixes_its_versions() {
    let server = Samba::start();
    server.put(b"file", &vec![0; 2 * MIB]);
    let backend = connect(&server).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (done, target) = (Arc::clone(&done), server.file(b"file"));
        std::thread::spawn(move || {
            let mut fill = 0u8;
            while !done.load(Ordering::Relaxed) {
                fill = fill.wrapping_add(1);
                let new = target.with_extension("new");
                fs::write(&new, vec![fill; 2 * MIB]).expect("write");
                fs::rename(&new, &target).expect("rename");
            }
        })
    };
    let mut whole = 0;
    while whole < 20 {
        // Between the two names there is no moment without the file.
        let metadata = stat(&*backend, "file").await;
        match read(&*backend, "file", &metadata.version, 0..2 * MIB as u64).await {
            Ok(bytes) => {
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two versions in one read");
                whole += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::VersionChanged, "{error}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    writer.join().expect("the writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_overwritten_in_place_is_noticed() {
    let server = Samba::start();
    server.put(b"file", &noise(5, MIB));
    let backend = connect(&server).await;
    let before = stat(&*backend, "file").await;
    read(&*backend, "file", &before.version, 0..10)
        .await
        .expect("the old bytes");
    let mut file = File::options()
        .write(true)
        .open(server.file(b"file"))
        .expect("the file");
    file.write_all(b"something else").expect("write");
    drop(file);
    // The handle that is still open does not hide it, neither from a listing nor from a reader.
    assert_ne!(children(&*backend, "").await[0].metadata.version, before.version);
    assert_eq!(
        kind(read(&*backend, "file", &before.version, 0..10).await),
        ErrorKind::VersionChanged
    );
    let after = stat(&*backend, "file").await;
    assert_eq!(after.size, before.size);
    assert_eq!(
        read(&*backend, "file", &after.version, 0..9).await.expect("new bytes"),
        b"something"[..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_is_not_read_short() {
    let server = Samba::start();
    server.put(b"file", &noise(6, 2 * MIB));
    let backend = connect(&server).await;
    let before = stat(&*backend, "file").await;
    read(&*backend, "file", &before.version, 0..10).await.expect("bytes");
    File::options()
        .write(true)
        .open(server.file(b"file"))
        .expect("the file")
        .set_len(100)
        .expect("cut");
    assert_eq!(
        kind(read(&*backend, "file", &before.version, 0..2 * MIB as u64).await),
        ErrorKind::VersionChanged
    );
    assert_eq!(
        kind(read(&*backend, "file", &before.version, 0..10).await),
        ErrorKind::VersionChanged
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_absent_and_what_is_no_file_is_no_file() {
    let server = Samba::start();
    server.put(b"file", b"x");
    server.make_directory(b"directory");
    let backend = connect(&server).await;
    let version = stat(&*backend, "file").await.version;
    for name in ["gone", "directory/gone", "gone/gone"] {
        assert_eq!(
            backend.stat(&path(name)).await.expect("an answer"),
            Presence::Absent,
            "{name}"
        );
        assert_eq!(
            backend.read(&path(name), &version, 0..1).await.expect("an answer"),
            Presence::Absent,
            "{name}"
        );
        assert!(
            matches!(backend.list(&path(name)).await.expect("an answer"), Presence::Absent),
            "{name}"
        );
    }
    assert_eq!(
        kind(backend.read(&path("directory"), &version, 0..1).await),
        ErrorKind::IsADirectory
    );
    assert_eq!(kind(backend.list(&path("file")).await), ErrorKind::NotADirectory);
    assert_eq!(kind(backend.read_link(&path("file")).await), ErrorKind::Unsupported);
    assert!(children(&*backend, "directory").await.is_empty());
}
