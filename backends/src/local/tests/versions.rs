//! Versions, identities, and reading the bytes of one version.

use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

#[tokio::test]
async fn ranges_of_a_sparse_file_lie_where_they_should() {
    let (folder, backend) = folder();
    let offset = 5 << 30;
    let file = File::create(folder.path().join("sparse")).unwrap();
    file.write_all_at(b"far", offset).unwrap();
    let metadata = found(backend.stat(&path("sparse")).await);
    assert_eq!(metadata.size, offset + 3);
    let read = async |range| backend.read(&path("sparse"), &metadata.version, range).await;
    assert_eq!(found(read(offset - 2..offset + 3).await), &b"\0\0far"[..]);
    assert_eq!(found(read(7..7).await), &b""[..]);
    assert_eq!(found(read(0..4096).await), vec![0; 4096]);
    assert_eq!(
        kind_of(read(offset..offset + 4).await),
        ErrorKind::Nonsense,
        "past the end"
    );
    assert_eq!(kind_of(read(Range { start: 2, end: 1 }).await), ErrorKind::Nonsense);
}

#[tokio::test]
async fn bytes_of_another_version_are_never_given() {
    let (folder, backend) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "one").unwrap();
    let first = found(backend.stat(&path("file")).await).version;

    // Replaced by rename, with the same size and time: another inode tells.
    let time = file.metadata().unwrap().modified().unwrap();
    std::fs::write(folder.path().join("new"), "two").unwrap();
    File::options()
        .write(true)
        .open(folder.path().join("new"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    assert_eq!(
        kind_of(backend.read(&path("file"), &first, 0..3).await),
        ErrorKind::VersionChanged
    );

    // Written in place with its time put back: the change time tells.
    let second = found(backend.stat(&path("file")).await).version;
    let changed_before = file.metadata().unwrap().ctime_nsec();
    while file.metadata().unwrap().ctime_nsec() == changed_before {
        let open = File::options().write(true).open(&file).unwrap();
        open.write_all_at(b"six", 0).unwrap();
        open.set_modified(time).unwrap();
    }
    assert_eq!(
        kind_of(backend.read(&path("file"), &second, 0..3).await),
        ErrorKind::VersionChanged
    );
}

#[test]
fn a_change_between_the_looks_before_and_after_a_read_is_seen() {
    let (folder, backend) = folder();
    std::fs::write(folder.path().join("file"), vec![1; 100]).unwrap();
    let (file, metadata) = found(backend.open_file(&path("file")));
    let file = file.shared().unwrap();
    assert_eq!(
        read::exactly(file, &metadata, &metadata.version, 0..100).unwrap().len(),
        100
    );
    // The attributes of before the change stand for the look before, the file for the look after.
    std::fs::write(folder.path().join("file"), vec![2; 50]).unwrap();
    for range in [0..10, 40..100, 60..70] {
        let failure = read::exactly(file, &metadata, &metadata.version, range).unwrap_err();
        assert_eq!(failure.into_parts(&backend.folder.root).0, ErrorKind::VersionChanged);
    }
}

#[tokio::test]
async fn an_open_file_survives_being_removed() {
    let (folder, backend) = folder();
    std::fs::write(folder.path().join("file"), "kept").unwrap();
    let (file, _) = found(backend.open_file(&path("file")));
    std::fs::remove_file(folder.path().join("file")).unwrap();
    assert_eq!(file.read(0, 9).await.unwrap(), "kept");
    let now = file.read_now(0, 9).map(Result::unwrap);
    assert!(now.is_none_or(|bytes| bytes == "kept"));
}

#[test]
fn an_identity_survives_a_rename_and_is_not_inherited() {
    let (folder, backend) = folder();
    let identity = |name: &str| walk(&backend, "")[name.as_bytes()].identity;
    std::fs::create_dir(folder.path().join("a")).unwrap();
    let before = identity("a");
    std::fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    assert_eq!(identity("b"), before);
    // File systems hand the number of a removed inode to the next one.
    for round in 0..50 {
        std::fs::write(folder.path().join("x"), "").unwrap();
        let old = identity("x");
        std::fs::remove_file(folder.path().join("x")).unwrap();
        std::fs::write(folder.path().join("x"), "").unwrap();
        let born = |name: &str| walk(&backend, "")[name.as_bytes()].created;
        assert!(identity("x") != old || born("x").is_none(), "round {round}");
    }
}
