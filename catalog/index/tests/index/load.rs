//! Reads: a second request for what is late, and precedence over the scan, which can be held to a rate or held up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use manifold_backends::{ObjectPath, Presence, Version};
use manifold_catalog::SourceRecord;
use manifold_index::{IndexError, IndexSettings, ScanHold, SourceOptions};
use tempfile::tempdir;
use tokio::time::{Instant, advance};

use crate::library::Library;
use crate::support::{QUICK, Scripted, source};

const DEADLINE: Duration = Duration::from_mins(2);
/// More than the record needs before it says what is late.
const SETTLING: usize = 100;

async fn read(library: &Library, record: &SourceRecord) -> Result<usize, IndexError> {
    let (path, version) = (ObjectPath::from_bytes(*b"x"), Version::from_etag(b"1"));
    let read = library
        .indexer
        .read(record.id, &path, &version, 0..4096, 4096, DEADLINE);
    match read.await? {
        Presence::Found(blocks) => Ok(blocks.iter().map(Bytes::len).sum()),
        Presence::Absent => panic!("it is there"),
    }
}

/// A library with a source whose reads are known to be quick.
async fn settled(folder: &std::path::Path, source: &Arc<Scripted>) -> (Library, SourceRecord) {
    source.file("x", 4096);
    let library = Library::open(folder);
    let record = library.add("/s", source);
    for _ in 0..SETTLING {
        assert_eq!(read(&library, &record).await.unwrap(), 4096);
    }
    assert_eq!(source.reads.load(Ordering::SeqCst), SETTLING, "none was late");
    (library, record)
}

fn hedges(library: &Library, record: &SourceRecord) -> (u64, u64) {
    let health = library.indexer.health(record.id).unwrap();
    (health.hedges, health.hedges_won)
}

#[tokio::test(start_paused = true)]
async fn a_late_read_is_made_a_second_time_and_the_first_answer_wins() {
    let (folder, source) = (tempdir().unwrap(), source());
    let (library, record) = settled(folder.path(), &source).await;
    source.slow_reads([Duration::from_mins(1)]);
    let since = Instant::now();
    read(&library, &record).await.unwrap();
    assert_eq!(since.elapsed(), Duration::from_millis(50) + QUICK);
    assert_eq!(hedges(&library, &record), (1, 1));
    // Here the second is the slower one.
    source.slow_reads([Duration::from_millis(60), Duration::from_mins(1)]);
    let since = Instant::now();
    read(&library, &record).await.unwrap();
    assert_eq!(since.elapsed(), Duration::from_millis(60));
    assert_eq!(hedges(&library, &record), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn second_requests_are_few_however_much_is_late() {
    let (folder, source) = (tempdir().unwrap(), source());
    let (library, record) = settled(folder.path(), &source).await;
    let late = 100;
    source.slow_reads(std::iter::repeat_n(Duration::from_millis(900), 2 * late));
    for _ in 0..late {
        read(&library, &record).await.unwrap();
    }
    let (hedges, _) = hedges(&library, &record);
    let extra = source.reads.load(Ordering::SeqCst) - SETTLING - late;
    assert_eq!(extra as u64, hedges);
    assert!((1..=3 + late as u64 / 20).contains(&hedges), "{hedges}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_late_before_it_is_known_what_is_usual() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 4096);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.slow_reads(std::iter::repeat_n(Duration::from_secs(1), 20));
    for _ in 0..20 {
        read(&library, &record).await.unwrap();
    }
    assert_eq!(hedges(&library, &record), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_second_request_that_fails_leaves_the_first_to_answer() {
    let (folder, source) = (tempdir().unwrap(), source());
    let (library, record) = settled(folder.path(), &source).await;
    source.slow_reads([Duration::from_secs(1)]);
    let reading = read(&library, &record);
    let failing = async {
        source.until_reads(SETTLING + 1).await;
        source.go_away(manifold_backends::ErrorKind::Other);
    };
    let (bytes, ()) = tokio::join!(reading, failing);
    assert_eq!(bytes.unwrap(), 4096);
    assert_eq!(hedges(&library, &record), (1, 0));
}

fn forest(source: &Scripted, directories: usize) {
    for number in 0..directories {
        source.directory(&format!("d{number}"));
    }
}

#[tokio::test(start_paused = true)]
async fn while_somebody_reads_the_scan_lists_one_directory_at_a_time_and_seldom() {
    let (folder, source) = (tempdir().unwrap(), source());
    forest(&source, 40);
    source.file("x", 4096);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.slow_reads([Duration::from_secs(2)]);
    let reading = async { read(&library, &record).await.unwrap() };
    let scanning = async {
        source.until_reads(1).await;
        let scan = library.indexer.scan(record.id);
        advance(Duration::from_millis(1)).await;
        scan
    };
    let (_, scan) = tokio::join!(reading, scanning);
    let listed = source.listings_in_all();
    assert!((1..=8).contains(&listed), "one in each 250 ms of the 2 s: {listed}");
    assert_eq!(source.most_at_once.load(Ordering::SeqCst), 1);
    scan.ended().await;
    assert_eq!(source.listings_in_all(), 41);
    assert!(
        source.most_at_once.load(Ordering::SeqCst) > 1,
        "then it goes on as before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_scan_can_be_held_to_a_rate() {
    let settings = IndexSettings {
        scan_rate: 10,
        ..IndexSettings::default()
    };
    for (of_its_own, least) in [
        (None, Duration::from_secs(4)),
        (Some(2), Duration::from_secs(20)),
        (Some(0), Duration::ZERO),
    ] {
        let (folder, source) = (tempdir().unwrap(), source());
        forest(&source, 40);
        let library = Library::with(folder.path(), settings.clone());
        let record = library.record("/s", "scripted://one");
        let options = SourceOptions { scan_rate: of_its_own };
        library
            .indexer
            .attach_with(record.id, Arc::<Scripted>::clone(&source), options);
        let since = Instant::now();
        library.scan(&record).await;
        let took = since.elapsed();
        assert!(
            took >= least && took <= least + Duration::from_secs(1),
            "{of_its_own:?}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn scans_wait_while_they_are_held_and_what_is_opened_does_not() {
    let (folder, source) = (tempdir().unwrap(), source());
    forest(&source, 3);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    for hold in [
        ScanHold {
            battery: true,
            metered: false,
        },
        ScanHold {
            battery: false,
            metered: true,
        },
    ] {
        library.indexer.hold_scans(hold);
        let before = source.listings_in_all();
        let scan = library.indexer.scan(record.id);
        advance(Duration::from_mins(10)).await;
        assert_eq!(source.listings_in_all(), before);
        assert!(library.indexer.scan_paused(record.id).is_some());
        library.list("/s").await;
        library.indexer.hold_scans(ScanHold::default());
        scan.ended().await;
        assert!(source.listings_in_all() > before + 3);
        assert_eq!(library.indexer.scan_paused(record.id), None);
    }
}
