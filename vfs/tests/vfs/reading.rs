//! Reading through the whole of the file system, over a source that does as it is told: what comes out, what was fetched for it, and what
//! becomes of it when the source misbehaves.

mod late;

use std::sync::Arc;
use std::time::Duration;

use crate::library::Library;
use crate::scripted::{Mood, Scripted, truth};
use manifold_backends::{Backend, ErrorKind};
use manifold_vfs::{Backing, Error, Opened, Settings};
use proptest::prelude::*;
use tokio::task::JoinSet;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 * KIB;

fn settings() -> Settings {
    Settings {
        memory_bytes: 64 * MIB,
        ..Settings::default()
    }
}

/// For tests in which many readers share few processors: the deadline only ends what hangs.
const PATIENT: Duration = Duration::from_mins(2);

fn source() -> Arc<Scripted> {
    Scripted::new("test://one", BLOCK as u32, MIB as u32, 8)
}

fn library(source: &Arc<Scripted>, settings: Settings) -> Library {
    Library::new(&[("s", Arc::clone(source) as Arc<dyn Backend>)], settings)
}

/// Reads a whole file in order, and compares it.
async fn read_through(library: &Library, file: &Opened, seed: u64, step: u32) {
    let mut offset = 0;
    while offset < file.size {
        let bytes = library.read(file, offset, step).await.unwrap();
        assert!(
            bytes == truth(seed, offset..(offset + u64::from(step)).min(file.size)),
            "wrong bytes at {offset}"
        );
        offset += bytes.len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_short_only_at_the_end() {
    let source = source();
    source.put("f", 3 * BLOCK + 100, 1);
    source.put("empty", 0, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    for (offset, length) in [
        (0, 10),
        (BLOCK - 5, 10),
        (0, 4 * MIB as u32),
        (3 * BLOCK + 90, 100),
        (3 * BLOCK + 100, 1),
        (u64::MAX, 5),
    ] {
        let end = offset.saturating_add(u64::from(length)).min(file.size);
        assert_eq!(
            library.read(&file, offset, length).await.unwrap(),
            truth(1, offset.min(end)..end)
        );
    }
    let empty = library.open("s/empty").await;
    assert!(library.read(&empty, 0, 10).await.unwrap().is_empty());
    assert!(source.read_each_block_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_memory_is_answered_at_once() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    assert!(!library.vfs.read(file.handle, 5, 100).is_ready());
    library.read(&file, 0, 3 * BLOCK as u32).await.unwrap();
    source.set_mood(Mood::Holds);
    assert!(library.vfs.read(file.handle, 5, 100).is_ready());
    assert!(library.vfs.read(file.handle, BLOCK - 5, 100).is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_at_random_fetch_no_more_than_a_block_each() {
    let source = Scripted::new("test://one", MIB as u32, 4 * MIB as u32, 8);
    source.put("f", 512 * MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    let mut touched = std::collections::BTreeSet::new();
    let mut at = 12_345_u64;
    for _ in 0..60 {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let offset = (at >> 20) % (512 * MIB / 4096) * 4096;
        touched.insert(offset / MIB);
        assert_eq!(
            library.read(&file, offset, 4096).await.unwrap(),
            truth(1, offset..offset + 4096)
        );
    }
    let mut fetched = source.blocks_read();
    fetched.sort_unstable();
    assert_eq!(fetched, touched.into_iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_that_looks_at_header_trailer_and_middle_does_not_fetch_the_file() {
    let source = source();
    source.put("film", 200 * MIB, 1);
    let library = library(&source, settings());
    let film = library.open("s/film").await;
    for (start, count) in [(0, 4), (200 * MIB - 8 * BLOCK, 8), (100 * MIB, 4)] {
        for step in 0..count {
            library.read(&film, start + step * BLOCK, BLOCK as u32).await.unwrap();
        }
    }
    assert!(
        source.blocks_read().len() as u64 <= 3 * 16 + 8,
        "{} blocks",
        source.blocks_read().len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_gets_each_block_once_in_few_requests() {
    let source = source();
    source.put("f", 40 * MIB + 7, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    read_through(&library, &file, 1, 128 << 10).await;
    assert!(source.read_each_block_once());
    assert_eq!(source.blocks_read().len(), 641);
    assert!(source.reads().len() < 120, "{} requests", source.reads().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_skips_neither_stop_the_window_nor_fetch_twice() {
    let source = source();
    source.put("f", 40 * MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    for offset in (0..39 * MIB).step_by(3 << 18) {
        assert_eq!(
            library.read(&file, offset, 1 << 19).await.unwrap(),
            truth(1, offset..offset + (1 << 19))
        );
    }
    assert!(source.read_each_block_once());
    assert!(library.vfs.counters().bytes_ahead > 20 * MIB);
}

/// Virtual time: what counts is how the requests overlap.
#[tokio::test(start_paused = true)]
async fn a_source_of_10_ms_a_request_gives_400_mb_a_second() {
    let source = Scripted::new("test://one", MIB as u32, 8 * MIB as u32, 8);
    source.put("f", 96 * MIB, 1);
    let library = library(
        &source,
        Settings {
            memory_bytes: 256 * MIB,
            ..Settings::default()
        },
    );
    let file = library.open("s/f").await;
    source.set_mood(Mood::Dawdles(Duration::from_millis(10)));
    let begun = tokio::time::Instant::now();
    for offset in (0..96 * MIB).step_by(MIB as usize) {
        library.read(&file, offset, MIB as u32).await.unwrap();
    }
    let rate = (96 * MIB) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    assert!(rate >= 400.0, "{rate} MB/s");
    assert!(source.read_each_block_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_of_one_file_fetch_each_block_once() {
    let source = source();
    source.put("f", 8 * MIB, 1);
    let library = Arc::new(library(
        &source,
        Settings {
            data_deadline: PATIENT,
            ..settings()
        },
    ));
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let library = Arc::clone(&library);
        readers.spawn(async move {
            let file = library.open("s/f").await;
            read_through(&library, &file, 1, 256 << 10).await;
        });
    }
    readers.join_all().await;
    assert!(source.read_each_block_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_of_fifty_files_stay_within_the_memory() {
    let source = Scripted::new("test://one", (256 * KIB) as u32, MIB as u32, 32);
    let budget = 16 * MIB;
    let library = Arc::new(library(
        &source,
        Settings {
            memory_bytes: budget,
            data_deadline: PATIENT,
            ..Settings::default()
        },
    ));
    (0..50).for_each(|seed| source.put(&format!("f{seed}"), 3 * MIB, seed));
    let mut readers = JoinSet::new();
    for seed in 0..50 {
        let library = Arc::clone(&library);
        readers.spawn(async move {
            let file = library.open(&format!("s/f{seed}")).await;
            read_through(&library, &file, seed, 128 << 10).await;
        });
    }
    readers.join_all().await;
    assert!(
        source.most_alive() as u64 <= budget,
        "{} of {budget} bytes",
        source.most_alive()
    );
    assert!(library.vfs.cache().show().memory_used <= budget / 2);
    assert_eq!(library.vfs.counters().bytes_in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_smaller_than_a_block_still_lets_readers_through() {
    let source = Scripted::new("test://one", MIB as u32, MIB as u32, 8);
    source.put("f", 5 * MIB, 1);
    let library = Arc::new(library(
        &source,
        Settings {
            memory_bytes: 64 * KIB,
            data_deadline: PATIENT,
            ..Settings::default()
        },
    ));
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let library = Arc::clone(&library);
        readers.spawn(async move {
            let file = library.open("s/f").await;
            read_through(&library, &file, 1, 3 << 19).await;
        });
    }
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_reader_going_away_changes_nothing_for_the_second() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    source.set_mood(Mood::Holds);
    let first = tokio::spawn(library.vfs.read(file.handle, 0, 4096).wait());
    source.until_reads(1).await;
    let second = tokio::spawn(library.vfs.read(file.handle, 100, 4096).wait());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    source.set_mood(Mood::Answers);
    assert_eq!(second.await.unwrap().unwrap(), truth(1, 100..4196));
    assert_eq!(source.reads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_a_source_has_its_own_word() {
    let names = |error: &Error| format!("{error:?}").split(['(', ' ']).next().unwrap().to_owned();
    for (kind, name) in [
        (ErrorKind::Unreachable, "Unreachable"),
        (ErrorKind::TimedOut, "TimedOut"),
        (ErrorKind::CredentialsRefused, "AccessDenied"),
        (ErrorKind::PermissionDenied, "PermissionDenied"),
        (ErrorKind::NoSuchSource, "Unreachable"),
        (ErrorKind::Nonsense, "Io"),
        (ErrorKind::Other, "Io"),
    ] {
        // A new one each time: the next failure would not be seen by whom the first has shown that the source is away.
        let source = source();
        source.put("f", MIB, 1);
        let library = library(&source, settings());
        let file = library.open("s/f").await;
        source.set_mood(Mood::Fails(kind));
        assert_eq!(names(&library.read(&file, 0, 1).await.unwrap_err()), name, "{kind:?}");
    }
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    source.set_mood(Mood::CutsShort);
    assert_eq!(names(&library.read(&file, 0, 1).await.unwrap_err()), "Io");
    source.set_mood(Mood::Answers);
    assert_eq!(library.read(&file, 0, 1).await.unwrap(), truth(1, 0..1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_ahead_of_a_reader_is_asked_again_when_it_is_needed() {
    let source = source();
    source.put("f", 8 * MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    for step in 0..4 {
        library.read(&file, step * BLOCK, BLOCK as u32).await.unwrap();
    }
    let failed = library.vfs.counters().requests_failed;
    source.set_mood(Mood::Fails(ErrorKind::Other));
    for step in 4.. {
        if library.read(&file, step * BLOCK, BLOCK as u32).await.is_err() {
            break;
        }
    }
    assert!(library.vfs.counters().requests_failed > failed);
    source.set_mood(Mood::Answers);
    read_through(&library, &file, 1, 256 << 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_reads_one_version_or_none() {
    let source = source();
    source.put("f", 4 * MIB, 1);
    let library = library(&source, settings());
    let old = library.open("s/f").await;
    assert_eq!(library.read(&old, 0, 100).await.unwrap(), truth(1, 0..100));
    source.put("f", 4 * MIB, 2);
    assert!(matches!(
        library.read(&old, 3 * MIB, 100).await.unwrap_err(),
        Error::Stale
    ));
    assert_eq!(
        library.read(&old, 0, 100).await.unwrap(),
        truth(1, 0..100),
        "what is cached is still good"
    );
    assert!(
        matches!(library.read(&old, 0, 4 * MIB as u32).await.unwrap_err(), Error::Stale),
        "never mixed"
    );
    library.relist("s").await;
    let new = library.open("s/f").await;
    read_through(&library, &new, 2, MIB as u32).await;
    library.relist("s").await;
    source.remove("f");
    assert!(matches!(
        library.read(&old, 2 * MIB, 1).await.unwrap_err(),
        Error::Stale
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_survives_the_source_going_away_as_far_as_it_is_cached() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    read_through(&library, &file, 1, 256 << 10).await;
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let again = library.open("s/f").await;
    assert!(again.keep_cache);
    read_through(&library, &again, 1, 256 << 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_on_disk_after_a_restart_and_a_whole_file_is_handed_over() {
    let cache = tempfile::TempDir::new().unwrap();
    let settings = Settings {
        cache_directory: Some(cache.path().to_path_buf()),
        ..settings()
    };
    let source = source();
    source.put("whole", 2 * MIB + 5, 1);
    source.put("part", 8 * MIB, 2);
    let sources = [("s", Arc::clone(&source) as Arc<dyn Backend>)];
    let library = Library::new(&sources, settings.clone());
    let whole = library.open("s/whole").await;
    assert!(matches!(whole.backing, Backing::Blocks));
    read_through(&library, &whole, 1, 256 << 10).await;
    let part = library.open("s/part").await;
    library.read(&part, 4 * MIB, 10).await.unwrap();
    library.vfs.cache().settle();
    let Library {
        vfs,
        catalog,
        indexer,
        folder,
        ..
    } = library;
    indexer.stop().await;
    drop((vfs, indexer, catalog));

    let asked = source.reads().len();
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let library = Library::reopen(folder, &sources, settings);
    let whole = library.open("s/whole").await;
    let Backing::File(file) = &whole.backing else {
        panic!("the whole file is in the cache")
    };
    let mut bytes = vec![0; whole.size as usize];
    std::os::unix::fs::FileExt::read_exact_at(&**file, &mut bytes, 0).unwrap();
    assert!(bytes == truth(1, 0..whole.size));
    read_through(&library, &whole, 1, 256 << 10).await;
    let part = library.open("s/part").await;
    assert_eq!(
        library.read(&part, 4 * MIB, 10).await.unwrap(),
        truth(2, 4 * MIB..4 * MIB + 10)
    );
    assert!(matches!(
        library.read(&part, 0, 10).await.unwrap_err(),
        Error::Unreachable(_)
    ));
    assert_eq!(source.reads().len(), asked + 1);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, u32),
    Mood(Mood),
    Clear,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u64>(), 1_u32..300_000).prop_map(|(offset, length)| Step::Read(offset, length)),
        1 => Just(Step::Mood(Mood::Fails(ErrorKind::Other))),
        1 => Just(Step::Mood(Mood::CutsShort)),
        3 => Just(Step::Mood(Mood::Answers)),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn whatever_is_read_is_the_truth_or_an_error(
        size in 0_u64..2_000_000,
        block_bits in 16_u32..19,
        blocks_a_request in 1_u32..5,
        memory in 100_000_u64..4_000_000,
        steps in proptest::collection::vec(steps(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let cache = tempfile::TempDir::new().unwrap();
            let source = Scripted::new("test://one", 1 << block_bits, blocks_a_request << block_bits, 3);
            source.put("f", size, 5);
            let cache_directory = Some(cache.path().to_path_buf());
            let settings = Settings { memory_bytes: memory, cache_bytes: 1_000_000, cache_directory, ..Settings::default() };
            let library = library(&source, settings);
            let file = library.open("s/f").await;
            let mut answers = true;
            for step in steps {
                match step {
                    Step::Read(offset, length) => {
                        let offset = offset % (size + 10);
                        let end = (offset + u64::from(length)).min(size);
                        match library.read(&file, offset, length).await {
                            Ok(bytes) => assert!(bytes == truth(5, offset.min(end)..end)),
                            Err(error) => assert!(!answers, "{error}"),
                        }
                    }
                    Step::Mood(mood) => {
                        // What is under way still fares as it began.
                        while library.vfs.counters().requests_in_flight > 0 {
                            tokio::task::yield_now().await;
                        }
                        source.set_mood(mood);
                        answers = mood == Mood::Answers;
                    }
                    Step::Clear => drop(library.vfs.cache().clear(manifold_vfs::cache::ClearScope::All, false).unwrap()),
                }
            }
        });
    }
}
