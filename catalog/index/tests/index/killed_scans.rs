//! A thousand runs: the scanner is killed (-9) again and again, at seeded points, while its source changes and fails in
//! every way it can. On the way nothing is lost that the source has held all along; in the end the catalog is the truth.
//!
//! A run is made of lives. Each is this test's own binary, started again as the child that is killed; it keeps a record
//! of what it has changed at the source and of what the catalog has promised to keep. After each life the catalog is
//! opened, examined, and held against the record.
//!
//! A run that fails is told by its seed, and is repeated alone with `MANIFOLD_TEST_SEED=…`. A seed fixes the source, its
//! changes and failures, what is asked of the indexer, and the request at which it dies; the threads' order stays chance.

mod life;
mod record;
mod world;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_catalog::{CompleteListing, Options, SourceRecord};
use manifold_index::IndexSettings;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::held::Held;
use crate::library::Library;
use crate::truths::Random;

use life::LIFE;
use record::Record;
use world::World;

/// How many runs there are.
const RUNS: u64 = 1_000;
/// Repeats one run.
const SEED: &str = "MANIFOLD_TEST_SEED";
/// How many runs are under way at once: most of the time goes into starting processes.
const AT_ONCE: usize = 3;
/// The scratch folders' place, where there is one: what a killed process has written is as safe in memory as on a disk.
const IN_MEMORY: &str = "/dev/shm";

#[test]
fn a_thousand_killed_scans_lose_nothing_and_end_with_the_truth() {
    let only = std::env::var(SEED).ok().map(|seed| seed.parse::<u64>().unwrap());
    let next = AtomicU64::new(only.unwrap_or(0));
    let end = only.map_or(RUNS, |seed| seed + 1);
    let failures = Mutex::new(Vec::new());
    let folder = TempDir::new().unwrap();
    let empty = empty_catalog(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end || !failures.lock().is_empty() {
                        return;
                    }
                    let lived = std::panic::catch_unwind(|| run(seed, &empty));
                    if let Err(why) = lived.unwrap_or_else(|_| Err("it panicked, as told above".to_owned())) {
                        failures
                            .lock()
                            .push(format!("seed {seed}: {why}\nrepeat it with {SEED}={seed}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Not a test of its own: one life, until it is killed.
#[test]
fn a_life_that_ends_by_being_killed() {
    if let Ok(life) = std::env::var(LIFE) {
        life::live(&life);
    }
}

fn run(seed: u64, empty: &Path) -> Result<(), String> {
    let scratch = tempfile::tempdir_in(IN_MEMORY).or_else(|_| TempDir::new());
    let scratch = scratch.map_err(|error| error.to_string())?;
    let folder = scratch.path();
    let mut random = Random::new(&[seed, 1]);
    World::found(seed, folder);
    std::fs::copy(empty, folder.join("catalog.redb")).map_err(|error| error.to_string())?;
    let lives = 1 + random.below(2);
    let (mut changes, mut held) = (World::YOUNG, Held::default());
    for life in 1..=lives {
        Record::begin(folder, life, &held);
        end_of_life(folder, seed, life, changes, &mut random)?;
        let record = Record::read(folder, life);
        changes += record.changes;
        held = record.promised;
        let runtime = runtime(!world::takes_time(seed));
        held = runtime.block_on(after_life(seed, folder, life, changes, held, life == lives))?;
    }
    Ok(())
}

/// Opens what a life has left behind; after the last one, lets a scan come to its end.
async fn after_life(
    seed: u64,
    folder: &Path,
    life: u64,
    changes: u64,
    mut held: Held,
    is_last: bool,
) -> Result<Held, String> {
    let world = World::open(seed, folder, changes);
    let truth = world.truth().tree();
    held.retain(&truth);
    let library = open(folder, life);
    if library.catalog.repaired_on_open() {
        return Err("the catalog had to be repaired".to_owned());
    }
    library.catalog.examine().map_err(|error| error.to_string())?;
    let source = library.catalog.sources().unwrap().remove(0);
    let known = library.known(&source);
    held.missing(&known).map_or(Ok(()), Err)?;
    held = Held::new(&known, &truth);
    if is_last {
        last_scan(&library, &source, &world, &held).await?;
    }
    Ok(held)
}

/// With nothing that fails, the catalog comes to hold the truth, and all that it held of it under the same ids.
async fn last_scan(library: &Library, source: &SourceRecord, world: &World, held: &Held) -> Result<(), String> {
    library.indexer.attach(source.id, world.backend());
    // The first may be one that was cut short, and have seen some of it before the end.
    library.scan(source).await;
    let failed = library.scan(source).await;
    library.indexer.stop().await;
    let examined = library.catalog.examine().map_err(|error| error.to_string())?;
    let (known, truth) = (library.known(source), world.truth().tree());
    let is_same = known.iter().map(|(path, (_, seen))| (path, seen)).eq(&truth);
    if failed > 0 || !is_same || examined.entries != truth.len() as u64 + 2 {
        return Err(format!(
            "in the end, {failed} directories failed, {} entries are there and the catalog is\n{known:?}\nthe truth\n{truth:?}",
            examined.entries
        ));
    }
    held.missing(&known).map_or(Ok(()), Err)
}

fn runtime(paused: bool) -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .build()
        .unwrap()
}

/// Makes the catalog that every run begins with.
fn empty_catalog(folder: &Path) -> PathBuf {
    let runtime = runtime(true);
    let _inside = runtime.enter();
    open(folder, 0).record("/s", "scripted://one");
    folder.join("catalog.redb")
}

/// Opens the library in one of its lives, for which time goes on.
fn open(folder: &Path, life: u64) -> Library {
    let now = std::sync::atomic::AtomicI64::new((2 * life as i64 + 2) << 40);
    let clock = move || now.fetch_add(1, Ordering::SeqCst);
    Library::under(
        folder,
        IndexSettings::default(),
        Options::default(),
        std::sync::Arc::new(clock),
    )
}

/// Starts a life, and sees that it ends by being killed: by itself, or by us at any moment.
fn end_of_life(folder: &Path, seed: u64, life: u64, changes: u64, random: &mut Random) -> Result<(), String> {
    let from_outside = random.below(8) == 0;
    let complaints = std::fs::File::create(folder.join("stderr")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "killed_scans::a_life_that_ends_by_being_killed",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(LIFE, life::words(folder, seed, life, changes, from_outside))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .map_err(|error| error.to_string())?;
    if from_outside {
        // Any moment will do; this is not to wait for anything.
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        child.kill().map_err(|error| error.to_string())?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.signal() == Some(9) {
        return Ok(());
    }
    let complaints = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    Err(format!("it was not killed ({status})\n{complaints}"))
}

/// The test can tell a catalog that has lost something.
#[test]
fn what_is_lost_is_noticed() {
    let folder = TempDir::new().unwrap();
    runtime(true).block_on(async {
        World::found(1, folder.path());
        let world = World::open(1, folder.path(), World::YOUNG);
        let library = open(folder.path(), 0);
        let source = library.record("/s", "scripted://one");
        library.indexer.attach(source.id, world.backend());
        library.scan(&source).await;
        let held = Held::new(&library.known(&source), &world.truth().tree());
        assert!(held.iter().count() > 3);
        assert_eq!(held.missing(&library.known(&source)), None);
        let nothing = CompleteListing {
            children: Vec::new(),
            listed_ns: 1,
            scan: 0,
            ticket: library.catalog.ticket(),
        };
        library.catalog.apply_listing(source.root, nothing, &|_| false).unwrap();
        assert!(held.missing(&library.known(&source)).is_some());
        library.indexer.stop().await;
    });
}
