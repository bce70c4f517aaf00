//! Reads.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use manifold_backends::{ErrorKind, Kind, ObjectPath, Presence, Version};

use crate::subject::{Subject, found, told, within};

/// Bytes that differ from place to place, so that a shifted range shows.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub(crate) async fn every_range_gives_its_bytes(subject: &Subject) {
    const LENGTH: usize = 5 * 1024 * 1024 + 123;
    let bytes = pattern(LENGTH, 1);
    subject.put("ranges/file", &bytes);
    let metadata = subject.stat(b"ranges/file").await;
    assert_eq!((metadata.kind, metadata.size), (Kind::File, LENGTH as u64));
    let block = 1 << 20;
    let last = LENGTH as u64;
    for range in [
        0..1,
        last - 1..last,
        0..last,
        block - 1..block + 1,
        block..2 * block,
        3 * block + 7..5 * block - 7,
        last - 100..last,
        17..17,
    ] {
        let expected = &bytes[range.start as usize..range.end as usize];
        let got = subject.read(b"ranges/file", range.clone()).await;
        assert!(got == expected, "{range:?}: {} bytes", got.len());
        let (path, version) = (ObjectPath::from_bytes(b"ranges/file"), &metadata.version);
        let asked = subject.backend.read_blocks(&path, version, range.clone(), block as u32);
        let blocks = found(within(asked).await, "read blocks");
        assert!(blocks.concat() == expected, "{range:?} in blocks");
        let full = blocks.split_last().map_or(&[][..], |(_, full)| full);
        assert!(
            full.iter().all(|it| it.len() as u64 == block),
            "{range:?}: only the last is shorter"
        );
    }
}

pub(crate) async fn an_empty_file_is_found(subject: &Subject) {
    subject.put("empty/file", b"");
    let metadata = subject.stat(b"empty/file").await;
    assert_eq!((metadata.kind, metadata.size), (Kind::File, 0));
    let listed = subject.list(b"empty").await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(subject.read(b"empty/file", 0..0).await, b"");
}

pub(crate) async fn many_readers_read_at_once(subject: &Subject) {
    const READERS: u64 = 16;
    const PIECE: u64 = 200_000;
    let bytes = Arc::new(pattern((READERS * PIECE) as usize, 2));
    subject.put("crowd/file", &bytes);
    let path = ObjectPath::from_bytes("crowd/file");
    let version = subject.stat(path.as_bytes()).await.version;
    let reads = (0..READERS).map(|reader| {
        let (backend, path, version, bytes) = (subject.backend.clone(), path.clone(), version.clone(), bytes.clone());
        tokio::spawn(async move {
            // Half of them read the same place, half each their own.
            let start = if reader % 2 == 0 { reader * PIECE } else { PIECE };
            let got = found(
                within(backend.read(&path, &version, start..start + PIECE)).await,
                "read",
            );
            assert!(
                got == bytes[start as usize..(start + PIECE) as usize],
                "reader {reader} got other bytes"
            );
        })
    });
    for reader in join_all(reads).await {
        reader.expect("every reader ends well");
    }
}

pub(crate) async fn a_changed_file_is_not_read_as_the_old_one(subject: &Subject) {
    let path = ObjectPath::from_bytes("changing/file");
    subject.put("changing/file", &pattern(300_000, 3));
    let old = subject.stat(path.as_bytes()).await.version;
    // Of another size, so that it shows even where times are coarse.
    subject.put("changing/file", &pattern(310_000, 4));
    changed(subject, &path, &old, "replaced").await;
    subject.put("changing/file", b"short");
    changed(subject, &path, &old, "cut short").await;
    let new = subject.stat(path.as_bytes()).await.version;
    let got = found(
        within(subject.backend.read(&path, &new, 0..5)).await,
        "read the new version",
    );
    assert_eq!(&got[..], b"short");
}

pub(crate) async fn a_file_of_the_same_size_and_another_second_is_another_version(subject: &Subject) {
    // Where files have numbers, versions are made of more than a time.
    if subject.server.root().is_none() || subject.backend.capabilities().identities {
        return;
    }
    let name = "ticks/file";
    let path = ObjectPath::from_bytes(name);
    // Now, listings tell the minute; of what is older than half a year they tell the day.
    for age in [Duration::ZERO, Duration::from_hours(24 * 400)] {
        let minute = Duration::from_mins(1);
        let began = SystemTime::now() - 2 * minute - age;
        let since = began.duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
        let began = began - Duration::from_secs(since.as_secs() % 60);
        let mut before: Option<Version> = None;
        for second in [7, 8, 31] {
            let bytes = [second as u8; 100];
            subject.put(name, &bytes);
            let file = File::options().write(true).open(subject.server.file(name.as_bytes()));
            let set = file
                .expect("open the file")
                .set_modified(began + Duration::from_secs(second));
            set.expect("set the time");
            let looked = subject.stat(name.as_bytes()).await;
            if let Some(before) = before {
                assert_ne!(before, looked.version, "{second} s");
                changed_to(subject, &path, &before).await;
            }
            for _ in 0..2 {
                let listed = subject.list(b"ticks").await;
                assert_eq!(listed[0].metadata, looked, "a listing tells the same, each time");
            }
            assert_eq!(subject.read(name.as_bytes(), 0..100).await, bytes);
            before = Some(looked.version);
        }
    }
}

/// Nothing of another version is given for this one.
async fn changed_to(subject: &Subject, path: &ObjectPath, old: &Version) {
    match within(subject.backend.read(path, old, 0..100)).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::VersionChanged, "{error}"),
        other => panic!("the old version was read: {other:?}"),
    }
}

async fn changed(subject: &Subject, path: &ObjectPath, old: &Version, how: &str) {
    match within(subject.backend.read(path, old, 100..200_000)).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::VersionChanged, "{how}: {error}"),
        Ok(Presence::Found(_)) => panic!("{how}: the old version was read"),
        Ok(Presence::Absent) => panic!("{how}: absent"),
    }
}

pub(crate) async fn a_missing_file_is_absent(subject: &Subject) {
    subject.put("going/file", b"here");
    let path = ObjectPath::from_bytes("going/file");
    let version = subject.stat(path.as_bytes()).await.version;
    subject.server.remove(path.as_bytes());
    match within(subject.backend.read(&path, &version, 0..4)).await {
        Ok(Presence::Absent) => {}
        Ok(Presence::Found(bytes)) => panic!("{bytes:?} was read"),
        Err(error) => panic!("{}", told(&error)),
    }
}

pub(crate) async fn bytes_past_four_gigabytes_are_reached(subject: &Subject) {
    const AT: u64 = 5 << 30;
    if !subject.traits.sparse {
        return;
    }
    subject.put("sparse/file", b"start");
    let mut file = File::options()
        .write(true)
        .open(subject.server.file(b"sparse/file"))
        .expect("open the file");
    file.seek(SeekFrom::Start(AT)).expect("seek");
    file.write_all(b"far away").expect("write");
    drop(file);
    assert_eq!(subject.stat(b"sparse/file").await.size, AT + 8);
    assert_eq!(subject.read(b"sparse/file", AT..AT + 8).await, b"far away");
    assert_eq!(subject.read(b"sparse/file", AT - 4..AT + 3).await, b"\0\0\0\0far");
    subject.server.remove(b"sparse/file");
}
