//! What is pinned is whole on disk, follows its source, and is read without it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::library::Library;
use crate::scripted::{Mood, Scripted, truth};
use manifold_backends::{Backend, ErrorKind};
use manifold_catalog::Pin;
use manifold_vfs::cache::ClearScope;
use manifold_vfs::{Backing, EntryId, PinPolicy, PinReport, PinRule, Settings};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 * KIB;

struct Pinned {
    library: Library,
    cache: TempDir,
}

fn settings(cache: &TempDir) -> Settings {
    Settings {
        memory_bytes: 64 * MIB,
        cache_directory: Some(cache.path().to_owned()),
        cache_bytes: 2 * MIB,
        ..Settings::default()
    }
}

fn source(name: &str) -> Arc<Scripted> {
    Scripted::new(name, BLOCK as u32, MIB as u32, 8)
}

impl Pinned {
    fn new(source: &Arc<Scripted>, change: impl FnOnce(&mut Settings)) -> Self {
        let cache = TempDir::new().unwrap();
        let mut settings = settings(&cache);
        change(&mut settings);
        let library = Library::new(&[("s", Arc::clone(source) as Arc<dyn Backend>)], settings);
        let it = Self { library, cache };
        it.keep();
        it
    }

    fn keep(&self) {
        let now_ns = Arc::clone(&self.library.now_ns);
        self.library
            .vfs
            .keep_pins(Arc::new(move || now_ns.load(Ordering::SeqCst)));
    }

    /// Starts anew over the same folders.
    async fn restart(self, source: &Arc<Scripted>) -> Self {
        let Self { library, cache } = self;
        let Library {
            folder,
            vfs,
            catalog,
            indexer,
            ..
        } = library;
        indexer.stop().await;
        let held = Arc::downgrade(&catalog);
        drop((vfs, catalog, indexer));
        // What is under way ends on threads of its own.
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        let settings = settings(&cache);
        let library = Library::reopen(folder, &[("s", Arc::clone(source) as Arc<dyn Backend>)], settings);
        let it = Self { library, cache };
        it.keep();
        it
    }

    async fn pin(&self, path: &str) -> EntryId {
        let id = self.library.find(path).await.unwrap();
        let pin = Pin {
            id,
            recursive: true,
            policy: None,
            pinned_ns: 1,
        };
        assert_eq!(self.library.catalog.pin(&[pin]).unwrap(), 1);
        self.library.vfs.pins_changed();
        id
    }

    /// Waits until keeping has come to where it shall be.
    async fn until(&self, what: &str, is_so: impl Fn(&PinReport) -> bool) -> PinReport {
        let mut last = None;
        let reached = async {
            loop {
                let report = self.library.vfs.pins().await;
                if report.up_to_date && is_so(&report) {
                    return report;
                }
                last = Some(report);
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_mins(1);
        let reached = tokio::time::timeout(limit, reached).await;
        reached.unwrap_or_else(|_| panic!("it never came to this: {what}; {last:?}"))
    }

    async fn until_whole(&self, bytes: u64) -> PinReport {
        self.until("whole", |it| it.total.bytes == bytes && is_whole(it)).await
    }

    /// Reads a whole file, and compares it.
    async fn is_read(&self, path: &str, seed: u64) {
        let file = self.library.open(path).await;
        let mut offset = 0;
        while offset < file.size {
            let bytes = self.library.read(&file, offset, MIB as u32).await.unwrap();
            assert!(
                bytes == truth(seed, offset..offset + bytes.len() as u64),
                "wrong bytes at {offset}"
            );
            offset += bytes.len() as u64;
        }
        self.library.vfs.release(file.handle);
    }
}

fn is_whole(report: &PinReport) -> bool {
    report.total.unlisted == 0 && report.total.cached_bytes == report.total.bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_folder_is_read_without_its_source_after_a_restart_too() {
    let source = source("test://one");
    source.put("films/a", 5 * MIB + 3, 1);
    source.put("films/deep/er/b", 3 * MIB, 2);
    source.put("films/empty", 0, 3);
    source.put("other", MIB, 4);
    let it = Pinned::new(&source, |_| {});
    let id = it.pin("s/films").await;
    let report = it.until_whole(8 * MIB + 3).await;
    assert_eq!((report.total.files, report.total.missing_files), (3, 0));
    assert_eq!(report.rules.len(), 1);
    assert_eq!(report.rules[0].rule, PinRule::Entry(id));
    assert_eq!(report.problems, []);
    assert!(source.read_each_block_once());
    // More than the rest of the cache holds is read through.
    for round in 0..4 {
        source.put(&format!("big{round}"), 2 * MIB, 9);
    }
    it.library.relist("s").await;
    for round in 0..4 {
        it.is_read(&format!("s/big{round}"), 9).await;
    }
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    it.is_read("s/films/a", 1).await;
    let it = it.restart(&source).await;
    it.is_read("s/films/a", 1).await;
    it.is_read("s/films/deep/er/b", 2).await;
    let whole = it.library.open("s/films/a").await;
    assert!(matches!(whole.backing, Backing::File(_)), "the kernel can read it");
    it.until_whole(8 * MIB + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_what_the_source_changes() {
    let source = source("test://one");
    source.put("d/a", MIB, 1);
    let it = Pinned::new(&source, |_| {});
    it.pin("s/d").await;
    it.until_whole(MIB).await;
    source.put("d/a", MIB + 5, 2);
    source.put("d/b", 2 * MIB, 3);
    it.library.relist("s/d").await;
    it.until_whole(3 * MIB + 5).await;
    let used = it.library.vfs.cache().show();
    assert!(used.disk_used >= MIB, "the old version is room for others: {used:?}");
    source.remove("d/b");
    it.library.relist("s/d").await;
    it.until_whole(MIB + 5).await;
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    it.is_read("s/d/a", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_stood_when_the_source_comes_back_or_the_daemon_does() {
    let source = source("test://one");
    source.put("a", 20 * MIB, 1);
    let it = Pinned::new(&source, |_| {});
    it.pin("s/a").await;
    source.until_reads(3).await;
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let report = it.until("a problem", |it| !it.problems.is_empty()).await;
    assert!(
        report.total.missing_files == 1 && report.problems[0].source.is_some(),
        "{report:?}"
    );
    it.library.vfs.cache().settle();
    let before = it.library.vfs.pins_now().total.cached_bytes;
    source.set_mood(Mood::Answers);
    let it = it.restart(&source).await;
    it.until_whole(20 * MIB).await;
    let blocks = source.blocks_read().len() as u64;
    assert!(
        blocks * BLOCK <= 20 * MIB + 20 * MIB - before,
        "{blocks} blocks, of which {before} bytes were kept"
    );
    it.is_read("s/a", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_told_and_the_rest_is_kept() {
    let source = source("test://one");
    source.put("a", MIB, 1);
    source.put("b", 3 * MIB, 2);
    source.put("c", MIB / 2, 3);
    let it = Pinned::new(&source, |settings| settings.pinned_bytes = 2 * MIB);
    it.pin("s").await;
    let report = it.until("what fits", |it| it.total.cached_bytes >= MIB * 3 / 2).await;
    assert_eq!((report.refused.files, report.refused.bytes), (1, 3 * MIB));
    assert_eq!(report.total.files, 3);
    it.is_read("s/b", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_keeps_what_it_means_and_nothing_else() {
    let source = source("test://one");
    source.put("photos/2024/a.jpg", MIB, 1);
    source.put("photos/2024/small.jpg", 10, 2);
    source.put("photos/2024/b.png", MIB, 3);
    source.put("a.jpg", MIB, 4);
    let it = Pinned::new(&source, |_| {});
    let policy = PinPolicy {
        glob: b"/s/photos/**/*.jpg".to_vec(),
        larger: Some(10),
        ..PinPolicy::default()
    };
    let id = it.library.catalog.add_pin_policy(&policy.encode()).unwrap();
    it.library.vfs.pins_changed();
    // The policy itself has the folders listed that it needs.
    let report = it.until_whole(MIB).await;
    assert_eq!(report.rules[0].rule, PinRule::Policy(id));
    source.put("photos/2025/c.jpg", MIB, 5);
    it.library.relist("s/photos").await;
    it.until_whole(2 * MIB).await;
    assert!(it.library.catalog.remove_pin_policy(id).unwrap());
    it.library.vfs.pins_changed();
    it.until("nothing", |it| it.total.files == 0).await;
    assert_eq!(it.library.vfs.cache().show().pinned_used, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_the_cache_leaves_what_is_pinned_and_clearing_that_too_fetches_it_again() {
    let source = source("test://one");
    source.put("a", MIB, 1);
    source.put("b", MIB, 2);
    let it = Pinned::new(&source, |_| {});
    it.pin("s/a").await;
    it.until_whole(MIB).await;
    it.is_read("s/b", 2).await;
    let cache = it.library.vfs.cache();
    cache.settle();
    assert!(cache.clear(ClearScope::All, false).unwrap() >= MIB);
    // A removed file counts until the last who reads it has let go, which may be a read that was just answered.
    while cache.show().disk_used != 0 {
        tokio::task::yield_now().await;
    }
    let reads = source.reads().len();
    it.is_read("s/a", 1).await;
    assert_eq!(source.reads().len(), reads, "it is still there");
    assert!(cache.clear(ClearScope::All, true).unwrap() >= MIB);
    it.library.vfs.pins_changed();
    it.until_whole(MIB).await;
    assert!(source.reads().len() > reads);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_served_while_much_is_fetched_to_be_kept() {
    let source = source("test://one");
    source.put("kept", 64 * MIB, 1);
    source.put("read", 2 * MIB, 2);
    let it = Pinned::new(&source, |_| {});
    it.pin("s/kept").await;
    source.until_reads(1).await;
    source.set_mood(Mood::Holds);
    let file = it.library.open("s/read").await;
    let reader = it.library.vfs.read(file.handle, 0, BLOCK as u32);
    // Its request goes out past all that waits, though nothing is answered.
    while !source.reads().contains(&(0..BLOCK)) {
        tokio::task::yield_now().await;
    }
    source.set_mood(Mood::Answers);
    assert_eq!(reader.wait().await.unwrap(), truth(2, 0..BLOCK));
    it.until_whole(64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_counted_where_it_was_found() {
    const BLOCKS: u64 = 4;
    let source = source("test://one");
    source.put("kept", BLOCKS * BLOCK, 1);
    source.put("read", BLOCKS * BLOCK, 2);
    let it = Pinned::new(&source, |_| {});
    it.pin("s/kept").await;
    it.until_whole(BLOCKS * BLOCK).await;
    let counters = it.library.vfs.counters();
    assert_eq!((counters.pinned_misses, counters.misses), (BLOCKS, 0));
    it.is_read("s/kept", 1).await;
    let counters = it.library.vfs.counters();
    assert_eq!((counters.pinned_hits, counters.pinned_misses), (BLOCKS, BLOCKS));
    assert_eq!((counters.disk_hits, counters.memory_misses), (0, BLOCKS));

    it.is_read("s/read", 2).await;
    let first = it.library.vfs.counters();
    assert_eq!((first.misses, first.memory_misses), (BLOCKS, 2 * BLOCKS));
    it.is_read("s/read", 2).await;
    let again = it.library.vfs.counters();
    assert!(again.memory_hits >= first.memory_hits + BLOCKS, "{again:?}");
    let cache = it.library.vfs.cache();
    cache.settle();
    // Of the disk nothing goes; memory is always cleared whole.
    cache.clear(ClearScope::Source("test://another"), false).unwrap();
    it.is_read("s/read", 2).await;
    let last = it.library.vfs.counters();
    assert_eq!(
        (last.disk_hits, last.misses, last.memory_misses),
        (BLOCKS, BLOCKS, 3 * BLOCKS)
    );
    assert_eq!((last.pinned_hits, last.pinned_misses), (BLOCKS, BLOCKS));
    assert_eq!(last.bytes_read, 4 * BLOCKS * BLOCK);
}
