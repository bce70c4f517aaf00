//! The same file on a NAS and in a bucket: a reader does not notice that one of them goes away.

use std::fs::File;
use std::io::Read;

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Samba, SeaweedFs, Server};

const BYTES: usize = 96 << 20;

/// Bytes that differ from block to block.
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(BYTES)
    .collect()
}

#[test]
fn a_file_is_read_on_from_the_bucket_when_the_nas_stops_in_the_middle() {
    let (nas, bucket) = (Samba::start(), SeaweedFs::start());
    let bytes = noise();
    nas.put(b"film.mkv", &bytes);
    bucket.put(b"backup/film.mkv", &bytes);
    bucket.put(b"backup/other.mkv", b"other");
    let mut library = Library::new(User::Current);
    library.add_server(&nas, "/nas");
    library.add_server(&bucket, "/bucket");
    library.mount();
    let said = |arguments: &[&str]| expect_success(library.command().args(arguments));
    let hashed = said(&["hash", "/nas/film.mkv", "/bucket/backup"]);
    let sums: Vec<_> = hashed.lines().filter_map(|line| line.split_once("  ")).collect();
    assert_eq!(sums.len(), 3, "{hashed}");
    assert_eq!(
        (sums[0].0, sums[1].1),
        (sums[1].0, "/bucket/backup/film.mkv"),
        "{hashed}"
    );
    assert_ne!(sums[0].0, sums[2].0);
    let about = said(&["stat", "/nas/film.mkv"]);
    assert!(
        about.contains(sums[0].0) && about.contains("/bucket/backup/film.mkv"),
        "{about}"
    );

    let mut file = File::open(library.at().join("nas/film.mkv")).expect("open the film");
    let mut read = vec![0; 1 << 20];
    file.read_exact(&mut read).expect("read the beginning");
    nas.daemon().pause();
    file.read_to_end(&mut read).expect("read on while the NAS says nothing");
    assert!(read == bytes, "the film was read wrongly");
    let status: serde_json::Value = serde_json::from_str(&said(&["status", "--json"])).expect("status is JSON");
    assert!(status["copies"]["reads"].as_u64() > Some(0), "{status}");
    assert_eq!(status["copies"]["hashed"], 3);
    nas.daemon().resume();
    drop(file);
    library.unmount();
}
