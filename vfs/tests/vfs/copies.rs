//! Files that hold the same bytes in several sources: which of them is read, and that a reader gets its bytes, of one version, while
//! sources fail.

use std::sync::Arc;
use std::time::Duration;

use crate::library::Library;
use crate::scripted::{Mood, Scripted, truth};
use manifold_backends::{Backend, ErrorKind};
use manifold_catalog::Hashed;
use manifold_index::HashSettings;
use manifold_vfs::{Backing, Error, Opened, Settings};
use proptest::prelude::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn settings() -> Settings {
    Settings {
        memory_bytes: 64 * MIB,
        ..Settings::default()
    }
}

/// Two sources with blocks of different sizes.
fn sources() -> [Arc<Scripted>; 2] {
    [
        Scripted::new("test://one", 64 * KIB as u32, MIB as u32, 8),
        Scripted::new("test://two", 128 * KIB as u32, MIB as u32, 8),
    ]
}

fn library(sources: &[Arc<Scripted>; 2], settings: Settings) -> Library {
    let [one, two] = sources.clone();
    Library::new(&[("one", one as Arc<dyn Backend>), ("two", two)], settings)
}

/// Records that a file holds the bytes of `seed`.
async fn know(library: &Library, path: &str, seed: u8) {
    let id = library.find(path).await.unwrap();
    let entry = library.catalog.entry(id).unwrap().unwrap();
    let hashed = Hashed {
        id,
        version: library.catalog.details(id).unwrap().unwrap().version,
        size: entry.size,
        content: [seed; 32],
    };
    assert_eq!(library.catalog.set_contents(&[hashed]).unwrap(), 1);
}

async fn read_all(library: &Library, file: &Opened) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < file.size {
        bytes.extend_from_slice(&library.read(file, bytes.len() as u64, 100_000).await?);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_from_the_other_copy_when_its_source_fails_in_the_middle() {
    let sources = sources();
    for (source, path) in sources.iter().zip(["f", "g"]) {
        source.put(path, 3 * MIB + 5, 1);
    }
    let library = library(&sources, settings());
    know(&library, "one/f", 1).await;
    know(&library, "two/g", 1).await;
    let file = library.open("one/f").await;
    assert_eq!(library.read(&file, 0, 100).await.unwrap(), truth(1, 0..100));
    assert!(sources[1].reads().is_empty(), "there was no need of the other copy");
    sources[0].set_mood(Mood::Fails(ErrorKind::Other));
    assert!(read_all(&library, &file).await.unwrap() == truth(1, 0..file.size));
    let counters = library.vfs.counters();
    assert!(
        counters.replica_switches > 0 && counters.replica_reads > 0,
        "{counters:?}"
    );
    assert_eq!(counters.requests_failed, 0, "no request failed as a whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_says_nothing_is_joined_by_the_other_within_the_deadline() {
    let sources = sources();
    for source in &sources {
        source.put("f", MIB, 1);
    }
    let library = library(&sources, settings());
    know(&library, "one/f", 1).await;
    know(&library, "two/f", 1).await;
    let file = library.open("one/f").await;
    sources[0].set_mood(Mood::Holds);
    assert_eq!(library.read(&file, 0, 100).await.unwrap(), truth(1, 0..100));
    assert_eq!(library.vfs.counters().reads_timed_out, 0);
    assert!(library.vfs.counters().replica_switches > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_of_one_copy_serves_the_other() {
    let sources = sources();
    for source in &sources {
        source.put("f", 3 * MIB + 5, 1);
    }
    let library = library(&sources, settings());
    know(&library, "one/f", 1).await;
    know(&library, "two/f", 1).await;
    let two = library.open("two/f").await;
    read_all(&library, &two).await.unwrap();
    for source in &sources {
        source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    }
    let one = library.open("one/f").await;
    assert!(read_all(&library, &one).await.unwrap() == truth(1, 0..one.size));
    assert!(sources[0].reads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_replaced_under_its_handle_is_read_on_from_its_copy() {
    let sources = sources();
    for source in &sources {
        source.put("f", MIB, 1);
    }
    let library = library(&sources, settings());
    know(&library, "one/f", 1).await;
    know(&library, "two/f", 1).await;
    let file = library.open("one/f").await;
    sources[0].put("f", MIB, 2);
    library.relist("one").await;
    assert!(read_all(&library, &file).await.unwrap() == truth(1, 0..MIB));
    // The new version has no copy, and the other copy changes too: nothing holds the old bytes any more.
    sources[1].put("f", MIB, 3);
    let file = library.open("one/f").await;
    assert!(read_all(&library, &file).await.unwrap() == truth(2, 0..MIB));
    let stale = library.open("two/f").await;
    assert!(matches!(library.read(&stale, 0, 10).await, Err(Error::Stale)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_the_file_that_was_opened_is_told_when_no_copy_can_be_read() {
    let sources = sources();
    for source in &sources {
        source.put("f", MIB, 1);
    }
    let library = library(&sources, settings());
    know(&library, "one/f", 1).await;
    know(&library, "two/f", 1).await;
    let file = library.open("one/f").await;
    sources[0].set_mood(Mood::Fails(ErrorKind::CredentialsRefused));
    sources[1].set_mood(Mood::Fails(ErrorKind::Other));
    let error = library.read(&file, 0, 100).await.unwrap_err();
    assert!(matches!(error, Error::AccessDenied(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_whole_in_the_disk_cache_is_hashed_once_it_was_read() {
    let sources = sources();
    sources[0].put("f", MIB + 7, 1);
    let folder = tempfile::TempDir::new().unwrap();
    let settings = Settings {
        cache_directory: Some(folder.path().to_owned()),
        ..settings()
    };
    let library = library(&sources, settings);
    let file = library.open("one/f").await;
    let bytes = read_all(&library, &file).await.unwrap();
    let id = library.find("one/f").await.unwrap();
    library.vfs.release(file.handle);
    let known = async {
        while library.vfs.counters().files_hashed == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), known).await.unwrap();
    let content = library.catalog.details(id).unwrap().unwrap().content;
    assert_eq!(content, Some(blake3::hash(&bytes).into()));
    // The kernel may read a copy's file by itself.
    sources[1].put("g", MIB + 7, 1);
    library.relist("two").await;
    let copy = library.find("two/g").await.unwrap();
    let hashed = Hashed {
        id: copy,
        version: library.catalog.details(copy).unwrap().unwrap().version,
        size: MIB + 7,
        content: content.unwrap(),
    };
    library.catalog.set_contents(&[hashed]).unwrap();
    let copy = library.open("two/g").await;
    assert!(matches!(copy.backing, Backing::File(_)), "{copy:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_hashed_gets_no_content() {
    let sources = sources();
    sources[0].put("f", 3 * MIB, 1);
    let library = library(&sources, settings());
    let id = library.find("one/f").await.unwrap();
    sources[0].set_mood(Mood::Holds);
    let hashing = tokio::spawn({
        let indexer = Arc::clone(&library.indexer);
        async move { indexer.hash(id).await }
    });
    sources[0].until_reads(1).await;
    sources[0].put("f", 3 * MIB, 2);
    sources[0].set_mood(Mood::Answers);
    let error = hashing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::VersionChanged), "{error}");
    assert_eq!(library.catalog.details(id).unwrap().unwrap().content, None);
    library.relist("one").await;
    let id = library.find("one/f").await.unwrap();
    let content = library.indexer.hash(id).await.unwrap();
    assert_eq!(content, <[u8; 32]>::from(blake3::hash(&truth(2, 0..3 * MIB))));
    assert_eq!(library.catalog.details(id).unwrap().unwrap().content, Some(content));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_that_may_have_a_copy_in_another_source_are_read_to_be_hashed() {
    let sources = sources();
    sources[0].put("shared", MIB + 1, 1);
    sources[0].put("alone", MIB + 2, 1);
    sources[0].put("same size", 1000, 3);
    sources[0].put("beside", 1000, 3);
    sources[0].put("empty", 0, 1);
    sources[1].put("shared too", MIB + 1, 1);
    sources[1].put("other bytes", 1000, 4);
    sources[1].put("empty", 0, 1);
    let library = library(&sources, settings());
    for path in ["one/shared", "two/empty"] {
        library.find(path).await.unwrap();
    }
    let mut hash = HashSettings {
        local: true,
        remote: false,
        rate: 0,
    };
    assert_eq!(library.indexer.hash_round(hash).await.unwrap(), 0);
    assert!(sources[0].reads().is_empty() && sources[1].reads().is_empty());
    hash.remote = true;
    assert_eq!(library.indexer.hash_round(hash).await.unwrap(), 5);
    assert_eq!(library.indexer.hash_round(hash).await.unwrap(), 0, "all is known now");
    let alone = library.find("one/alone").await.unwrap();
    assert_eq!(library.catalog.details(alone).unwrap().unwrap().content, None);
    let (shared, too) = (
        library.find("one/shared").await.unwrap(),
        library.find("two/shared too").await.unwrap(),
    );
    assert_eq!(library.catalog.replicas(shared, 9).unwrap(), [too]);
    let other = library.find("two/other bytes").await.unwrap();
    assert_eq!(library.catalog.replicas(other, 9).unwrap(), []);
}

#[derive(Clone, Debug)]
enum Step {
    /// A source gets another version.
    Replace(usize, u64),
    Mood(usize, u8),
    Relist(usize),
    /// What a file holds is learnt, of the version that the catalog has.
    Know(usize),
    Open(usize),
    Read {
        handle: usize,
        at: u64,
        length: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..2_usize, 1..4_u64).prop_map(|(source, seed)| Step::Replace(source, seed)),
        2 => (0..2_usize, 0..4_u8).prop_map(|(source, mood)| Step::Mood(source, mood)),
        2 => (0..2_usize).prop_map(Step::Relist),
        3 => (0..2_usize).prop_map(Step::Know),
        2 => (0..2_usize).prop_map(Step::Open),
        6 => (any::<usize>(), 0..4 * 128 * KIB, 1..200_000_u32)
            .prop_map(|(handle, at, length)| Step::Read { handle, at, length }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_and_fails_a_handle_reads_the_version_that_it_opened(steps in proptest::collection::vec(step(), 1..60)) {
        const SIZE: u64 = 4 * 128 * KIB - 3;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let sources = sources();
            for source in &sources {
                source.put("f", SIZE, 1);
            }
            let library = library(&sources, settings());
            let attached = ["one", "two"];
            let mut seeds = [1, 1];
            // What the catalog has of each: a listing takes in what is there.
            let mut opened: Vec<(Opened, Vec<u64>)> = Vec::new();
            let mut moods = [0_u8, 0];
            for path in ["one/f", "two/f"] {
                library.find(path).await.unwrap();
            }
            for step in steps {
                match step {
                    Step::Replace(source, seed) => {
                        seeds[source] = seed;
                        sources[source].put("f", SIZE, seed);
                    }
                    Step::Mood(source, mood) => {
                        moods[source] = mood;
                        sources[source].set_mood(match mood {
                            0 | 1 => Mood::Answers,
                            2 => Mood::Fails(ErrorKind::Other),
                            _ => Mood::CutsShort,
                        });
                    }
                    Step::Relist(source) => {
                        let id = library.find(attached[source]).await.unwrap();
                        // A source in a bad mood is not listed.
                        let _listed_or_not = library.indexer.list_now(id).await;
                    }
                    Step::Know(source) => {
                        let id = library.find(&format!("{}/f", attached[source])).await.unwrap();
                        // A version that is open may be replaced by another entry meanwhile.
                        let Some(details) = library.catalog.details(id).unwrap() else {
                            continue;
                        };
                        let seed = seed_of(&details.version);
                        let hashed = Hashed { id, version: details.version, size: SIZE, content: [seed as u8; 32] };
                        library.catalog.set_contents(&[hashed]).unwrap();
                    }
                    Step::Open(source) => {
                        let id = library.find(&format!("{}/f", attached[source])).await.unwrap();
                        let before = library.catalog.details(id).unwrap().map(|it| seed_of(&it.version));
                        let file = library.vfs.open(id, manifold_vfs::Access::Read).wait().await;
                        let after = library.catalog.details(id).unwrap().map(|it| seed_of(&it.version));
                        if let Ok(file) = file {
                            opened.push((file, before.into_iter().chain(after).collect()));
                        }
                    }
                    Step::Read { handle, at, length } => {
                        if opened.is_empty() {
                            continue;
                        }
                        let at_handle = handle % opened.len();
                        let (file, may_be) = &mut opened[at_handle];
                        let end = at.saturating_add(u64::from(length)).min(SIZE);
                        if let Ok(bytes) = library.read(file, at, length).await {
                            let range = at.min(end)..end;
                            may_be.retain(|seed| bytes == truth(*seed, range.clone()));
                            prop_assert!(!may_be.is_empty(), "bytes of another version than was opened");
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// The scripted source's versions begin with the seed.
fn seed_of(version: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(version);
    let digits = text.trim_start_matches(|it: char| !it.is_ascii_digit());
    digits.split('-').next().unwrap().parse().unwrap()
}
