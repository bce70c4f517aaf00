//! Bytes that change on their way, or on the cache's disk. What protects them, and what nothing protects, is written in
//! docs/semantics.md.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifold_tests::estate::{Estate, Kind};

use crate::readers::{DEADLINE, read_of, recovery_of};

const SETTINGS: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"4 s\"\nmetadata = \"2 s\"\n";
/// The longest until a source is back.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// How many files are read of each source while bytes change.
const FILES: usize = 4;

#[test]
fn a_source_that_signs_or_encrypts_never_gives_a_byte_that_changed_on_its_way() {
    let kinds = [Kind::Smb, Kind::Webdavs, Kind::Sftp];
    let estate = Estate::start(&kinds, SETTINGS, "1s");
    for site in &estate.sites {
        site.corrupt(20_000);
        for number in 0..FILES {
            // A wrong byte panics. The right ones may come piece by piece, each from a connection of its own.
            let answer = read_of(site, number);
            println!("{}: {:?} after {:?}", site.kind.name(), answer.told, answer.after);
            assert!(answer.after < DEADLINE, "{}: {:?}", site.kind.name(), answer.after);
        }
        site.heal();
        for number in 0..FILES {
            let recovery = recovery_of(site, number, RECOVERY_MAX);
            assert!(recovery < RECOVERY_MAX, "{}: {recovery:?}", site.kind.name());
        }
    }
}

#[test]
fn bytes_that_change_on_the_disk_of_the_cache_are_fetched_again() {
    let mut estate = Estate::start(&[Kind::Smb, Kind::S3], SETTINGS, "60s");
    let read_all = |estate: &Estate| {
        for site in &estate.sites {
            for number in 0..FILES {
                site.read(number).expect("the sources are well");
            }
        }
    };
    read_all(&estate);
    // Stopping writes what is in memory.
    estate.library.unmount();
    let cache = estate.library.state().join("cache");
    let flipped = flip_everywhere(&cache);
    assert!(
        flipped >= FILES * estate.sites.len(),
        "{flipped} places in {}",
        cache.display()
    );
    estate.library.mount();
    read_all(&estate);
    estate.library.unmount();
}

/// Changes a byte in the middle of each file of data, and says how many there are.
fn flip_everywhere(folder: &Path) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(folder).expect("look into the cache") {
        let path: PathBuf = entry.expect("look into the cache").path();
        if path.is_dir() {
            flipped += flip_everywhere(&path);
        } else if path.extension().is_some_and(|it| it == "data") {
            let file = File::options()
                .read(true)
                .write(true)
                .open(&path)
                .expect("open a file of the cache");
            let mut byte = [0];
            let middle = file.metadata().expect("stat a file of the cache").len() / 2;
            file.read_exact_at(&mut byte, middle).expect("read a byte");
            file.write_all_at(&[byte[0] ^ 0x15], middle).expect("write a byte");
            flipped += 1;
        }
    }
    flipped
}
