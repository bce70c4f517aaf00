//! The disk tier on real files: what it keeps, what it puts out, and what it makes of damage, full disks and vanished folders.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::cache::{ObjectKey, PinnedKeys};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u32 = 64 << 10;

struct Cache {
    tier: DiskTier,
    tally: Arc<Tally>,
}

fn settings(folder: &Path, limit: u64, backlog_max: u64) -> DiskSettings<'_> {
    DiskSettings {
        folder,
        limit,
        pinned_limit: 0,
        backlog_max,
        patience: Duration::from_hours(1),
    }
}

fn start(folder: &Path, limit: u64) -> Cache {
    let tally = Arc::new(Tally::default());
    let tier = DiskTier::start(&settings(folder, limit, 1 << 30), Arc::clone(&tally)).unwrap();
    tier.settle();
    Cache { tier, tally }
}

fn shape(number: u8, size: u64) -> Shape {
    let key = DiskKey {
        source: SourceTag([number % 2; 8]),
        object: ObjectKey([number; 16]),
    };
    Shape {
        key,
        size,
        block_size: BLOCK,
    }
}

/// The true bytes of a block: different for each object, block and place.
fn truth(shape: Shape, index: u64) -> Bytes {
    let seed = u64::from(shape.key.object.0[0]) << 32 | index << 8;
    (0..shape.block_len(index))
        .map(|at| ((at * 31 + seed) % 251) as u8)
        .collect()
}

fn fill(cache: &Cache, shape: Shape) {
    for index in 0..shape.block_count() {
        assert!(cache.tier.write(shape, index, truth(shape, index)).is_none());
    }
    cache.tier.settle();
}

/// Reads all blocks, which must be true or missing, and counts those that are there.
fn count_true(cache: &Cache, shape: Shape) -> u64 {
    let read = (0..shape.block_count()).filter_map(|index| Some((index, cache.tier.read(shape, index)?)));
    read.map(|(index, bytes)| assert!(bytes == truth(shape, index), "block {index} is wrong"))
        .count() as u64
}

/// What the folder really occupies.
fn occupied(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        sum += if about.is_dir() {
            occupied(&entry.path())
        } else {
            about.blocks() * 512
        };
    }
    sum
}

fn count(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[test]
fn blocks_are_found_again_after_a_restart_and_the_whole_file_is_sealed() {
    let folder = TempDir::new().unwrap();
    let (whole, part) = (shape(1, 5 * MIB + 17), shape(2, 5 * MIB));
    let cache = start(folder.path(), 100 * MIB);
    fill(&cache, whole);
    assert!(cache.tier.write(part, 3, truth(part, 3)).is_none());
    cache.tier.settle();
    drop(cache);

    let cache = start(folder.path(), 100 * MIB);
    assert_eq!(count_true(&cache, whole), whole.block_count());
    assert_eq!(count_true(&cache, part), 1);
    assert!(cache.tier.may_contain(part, 3) && !cache.tier.may_contain(part, 4));
    assert!(cache.tier.hand_out(part).is_none());
    let file = cache.tier.hand_out(whole).unwrap();
    assert_eq!(file.file().metadata().unwrap().len(), whole.size);
    let mut bytes = vec![0; BLOCK as usize];
    file.file().read_exact_at(&mut bytes, u64::from(BLOCK)).unwrap();
    assert_eq!(bytes, truth(whole, 1));
}

#[test]
fn the_limit_holds_in_blocks_really_allocated() {
    let folder = TempDir::new().unwrap();
    let limit = 8 * MIB;
    let cache = start(folder.path(), limit);
    for number in 0..40 {
        fill(&cache, shape(number, MIB));
        assert!(occupied(folder.path()) <= limit, "after object {number}");
    }
    assert!(cache.tier.used().0 > limit / 2, "the room is used");
    assert!(count(&cache.tally.disk_bytes_evicted) > 30 * MIB);
    assert!(count(&cache.tally.disk_evictions) > 0);
    drop(cache);
    let cache = start(folder.path(), 2 * MIB);
    assert!(
        cache.tier.used().0 <= 2 * MIB && occupied(folder.path()) <= 2 * MIB,
        "a lower limit holds from the start"
    );
}

#[test]
fn a_big_file_read_once_makes_room_out_of_itself() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 160 * MIB);
    let favourites: Vec<_> = (0..8).map(|number| shape(number, MIB)).collect();
    for favourite in &favourites {
        fill(&cache, *favourite);
        assert_eq!(count_true(&cache, *favourite), favourite.block_count());
    }
    let big = Shape {
        block_size: 1 << 20,
        ..shape(99, 400 * MIB)
    };
    fill(&cache, big);
    for favourite in &favourites {
        assert_eq!(
            count_true(&cache, *favourite),
            favourite.block_count(),
            "a favourite went"
        );
    }
    let kept = count_true(&cache, big);
    assert!(
        kept > 60 && cache.tier.may_contain(big, 399),
        "the end of the big file is kept, {kept} blocks of it"
    );
    assert!(occupied(folder.path()) <= 160 * MIB);
}

#[test]
fn a_file_in_use_is_unlinked_but_not_changed_and_counts_until_it_is_closed() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 3 * MIB);
    let first = shape(1, 2 * MIB);
    fill(&cache, first);
    let held = cache.tier.hand_out(first).unwrap();
    cache.tier.clear(None, false).unwrap();
    assert!(cache.tier.used().0 >= 2 * MIB, "its bytes are not free yet");
    let second = shape(2, 2 * MIB);
    fill(&cache, second);
    assert!(count_true(&cache, second) < second.block_count());
    let mut bytes = vec![0; first.size as usize];
    held.file().read_exact_at(&mut bytes, 0).unwrap();
    assert!((0..first.block_count()).all(|i| bytes[(i * u64::from(BLOCK)) as usize..].starts_with(&truth(first, i))));
    drop(held);
    fill(&cache, second);
    assert_eq!(count_true(&cache, second), second.block_count());
}

#[test]
fn clearing_one_source_leaves_the_others() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 100 * MIB);
    fill(&cache, shape(1, MIB));
    fill(&cache, shape(2, MIB));
    assert!(cache.tier.clear(Some(SourceTag([1; 8])), false).unwrap() >= MIB);
    assert_eq!(count_true(&cache, shape(1, MIB)), 0);
    assert_eq!(count_true(&cache, shape(2, MIB)), 16);
    assert_eq!(cache.tier.by_source().len(), 1);
}

#[test]
fn verifying_finds_each_damaged_block_and_drops_it() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 100 * MIB);
    let object = shape(1, MIB);
    fill(&cache, object);
    let data = fs::OpenOptions::new()
        .write(true)
        .open(Paths::new(folder.path(), object.key).data)
        .unwrap();
    data.write_all_at(b"damage", 5 * u64::from(BLOCK) + 100).unwrap();
    let checked = cache.tier.verify();
    assert_eq!((checked.objects, checked.blocks, checked.bad), (1, 15, 1));
    assert_eq!(cache.tier.verify().bad, 0);
    assert!(cache.tier.write(object, 5, truth(object, 5)).is_none());
    cache.tier.settle();
    assert_eq!(count_true(&cache, object), 16);
}

#[test]
fn a_sealed_file_that_was_touched_while_running_is_not_handed_out() {
    let folder = TempDir::new().unwrap();
    let object = shape(1, MIB);
    let cache = start(folder.path(), 100 * MIB);
    fill(&cache, object);
    assert!(cache.tier.hand_out(object).is_some());
    let data = fs::OpenOptions::new()
        .write(true)
        .open(Paths::new(folder.path(), object.key).data)
        .unwrap();
    data.write_all_at(b"damage", 100).unwrap();
    assert!(cache.tier.hand_out(object).is_none());
    assert_eq!(count_true(&cache, object), 15);
    assert!(cache.tier.write(object, 0, truth(object, 0)).is_none());
    cache.tier.settle();
    assert!(cache.tier.hand_out(object).is_some(), "mended, it is sealed again");
}

#[test]
fn a_sealed_file_that_was_touched_is_not_handed_out_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let object = shape(1, MIB);
    let cache = start(folder.path(), 100 * MIB);
    fill(&cache, object);
    assert!(cache.tier.hand_out(object).is_some());
    drop(cache);
    let data = fs::OpenOptions::new()
        .write(true)
        .open(Paths::new(folder.path(), object.key).data)
        .unwrap();
    data.write_all_at(b"damage", 100).unwrap();
    let cache = start(folder.path(), 100 * MIB);
    assert!(cache.tier.hand_out(object).is_none());
    assert_eq!(count_true(&cache, object), 15);
}

#[test]
fn a_folder_that_vanishes_while_running_costs_misses_only() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("cache");
    let cache = start(&root, 100 * MIB);
    fill(&cache, shape(1, MIB));
    fs::remove_dir_all(&root).unwrap();
    fill(&cache, shape(1, MIB));
    fill(&cache, shape(2, MIB));
    count_true(&cache, shape(1, MIB));
    assert_eq!(count_true(&cache, shape(2, MIB)), 16, "it begins anew");
}

#[test]
fn a_folder_that_cannot_be_made_costs_misses_only() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("file");
    fs::write(&root, "in the way").unwrap();
    let cache = start(&root, 100 * MIB);
    fill(&cache, shape(1, MIB));
    assert_eq!(count_true(&cache, shape(1, MIB)), 0);
    assert!(count(&cache.tally.disk_errors) > 0);
    assert_eq!(count(&cache.tally.disk_blocks_skipped), 16);
}

#[test]
fn whoever_asks_is_told_that_the_disk_takes_blocks_again() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("file");
    let cache = start(&root, 100 * MIB);
    assert_eq!(cache.tier.why_failing(), None);
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "in the way").unwrap();
    fill(&cache, shape(1, MIB));
    assert!(cache.tier.why_failing().is_some(), "it was tried in vain");
    fs::remove_file(&root).unwrap();
    assert_eq!(cache.tier.why_failing(), None);
    assert!(
        fs::read_dir(&root).unwrap().next().is_none(),
        "nothing of the trial is left"
    );
    fill(&cache, shape(1, MIB));
    assert_eq!(count_true(&cache, shape(1, MIB)), 16, "nothing is left out any more");
}

#[test]
fn garbage_in_the_folder_is_no_cache_and_no_trouble() {
    let folder = TempDir::new().unwrap();
    let object = shape(1, MIB);
    let paths = Paths::new(folder.path(), object.key);
    fs::create_dir_all(&paths.folder).unwrap();
    fs::create_dir_all(&paths.data).unwrap();
    fs::write(&paths.map, "garbage").unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    fs::write(paths.folder.join("notes.txt"), "mine").unwrap();
    fs::write(paths.folder.join(format!("{}.map", ObjectKey([9; 16]))), "alone").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", paths.folder.join(format!("{}.data", ObjectKey([8; 16])))).unwrap();
    fs::write(paths.folder.join(format!("{}.map", ObjectKey([8; 16]))), "x").unwrap();
    let cache = start(folder.path(), 100 * MIB);
    assert_eq!(count_true(&cache, object), 0);
    fill(&cache, object);
    assert_eq!(count_true(&cache, object), 16);
    assert_eq!(fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(paths.folder.join("notes.txt")).unwrap(), b"mine");
    assert!(fs::metadata("/etc/passwd").is_ok());
}

#[test]
fn a_block_that_finds_no_room_in_line_is_left_out_where_nobody_waits_for_it() {
    let folder = TempDir::new().unwrap();
    let tally = Arc::new(Tally::default());
    let tier = DiskTier::start(&settings(folder.path(), 100 * MIB, 128 * KIB), Arc::clone(&tally)).unwrap();
    tier.settle();
    let held = tier.shared.ledger.lock();
    for index in 0..16 {
        drop(tier.write(shape(1, MIB), index, truth(shape(1, MIB), index)));
    }
    assert!(count(&tally.disk_blocks_skipped) >= 13);
    drop(held);
    tier.settle();
    assert!(count(&tally.disk_blocks_written) >= 2);
}

#[tokio::test]
async fn an_object_that_comes_faster_than_it_is_written_is_whole_in_the_end() {
    let folder = TempDir::new().unwrap();
    let tally = Arc::new(Tally::default());
    let tier = DiskTier::start(&settings(folder.path(), 100 * MIB, 128 * KIB), Arc::clone(&tally)).unwrap();
    let object = shape(1, 4 * MIB);
    for index in 0..object.block_count() {
        if let Some(late) = tier.write(object, index, truth(object, index)) {
            late.catch_up().await;
        }
    }
    tier.settle();
    assert!(tier.hand_out(object).is_some());
    assert_eq!(count(&tally.disk_blocks_skipped), 0);
}

fn pin(cache: &Cache, objects: &[Shape]) {
    let keys = objects.iter().map(|it| it.key).collect();
    cache.tier.set_pins(PinnedKeys::new(keys));
}

#[test]
fn what_is_pinned_stays_whatever_else_comes_and_after_a_restart_too() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 4 * MIB);
    let kept = [shape(1, 3 * MIB), shape(2, 3 * MIB + 5)];
    pin(&cache, &kept);
    for object in kept {
        for index in 0..object.block_count() {
            assert_eq!(cache.tier.missing(object).first(), Some(&index));
            cache.tier.write_pinned(object, index, &truth(object, index)).unwrap();
        }
        assert_eq!(cache.tier.present(object), object.size);
    }
    for number in 10..30 {
        fill(&cache, shape(number, MIB));
    }
    assert!(cache.tier.used().0 <= 4 * MIB && cache.tier.pinned_used().0 >= 6 * MIB);
    drop(cache);
    // A start with less room puts out what is not pinned before anybody can say again what is.
    let cache = start(folder.path(), MIB);
    assert!(cache.tier.used().0 <= MIB);
    for object in kept {
        assert_eq!(cache.tier.present(object), object.size);
        assert!(cache.tier.hand_out(object).is_some());
    }
    assert_eq!(cache.tier.clear(None, false).unwrap(), cache.tier.used().0);
    assert_eq!(count_true(&cache, kept[0]), kept[0].block_count());
    pin(&cache, &kept[1..]);
    assert_eq!(cache.tier.present(kept[0]), 0, "unpinned, it has no room");
    assert!(cache.tier.clear(None, true).unwrap() > 3 * MIB);
    assert_eq!(cache.tier.present(kept[1]), 0);
}

#[test]
fn pinned_objects_have_a_limit_of_their_own() {
    let folder = TempDir::new().unwrap();
    let settings = DiskSettings {
        pinned_limit: 2 * MIB,
        ..settings(folder.path(), 100 * MIB, 1 << 30)
    };
    let cache = Cache {
        tier: DiskTier::start(&settings, Arc::default()).unwrap(),
        tally: Arc::default(),
    };
    cache.tier.settle();
    let object = shape(1, 4 * MIB);
    assert_eq!(
        cache.tier.write_pinned(object, 0, &truth(object, 0)),
        Err(NotKept::Unpinned)
    );
    pin(&cache, &[object]);
    let written = (0..object.block_count())
        .take_while(|index| cache.tier.write_pinned(object, *index, &truth(object, *index)).is_ok())
        .count() as u64;
    assert!((24..32).contains(&written), "{written} blocks");
    assert_eq!(
        cache.tier.write_pinned(object, 40, &truth(object, 40)),
        Err(NotKept::Limit)
    );
    assert_eq!(cache.tier.present(object), written * u64::from(BLOCK));
    fill(&cache, shape(2, 4 * MIB));
    assert_eq!(count_true(&cache, shape(2, 4 * MIB)), 64, "others have theirs");
}

#[test]
fn nothing_is_put_out_before_it_is_known_what_is_pinned() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 100 * MIB);
    let object = shape(1, 4 * MIB);
    pin(&cache, &[object]);
    fill(&cache, object);
    drop(cache);
    fs::write(folder.path().join("pinned"), b"damage").unwrap();
    let cache = start(folder.path(), MIB);
    assert_eq!(cache.tier.present(object), object.size);
    pin(&cache, &[object]);
    assert_eq!(cache.tier.present(object), object.size);
    pin(&cache, &[]);
    assert_eq!(cache.tier.present(object), 0);
}

#[test]
fn a_damaged_block_is_missed_when_it_is_counted_anew() {
    let folder = TempDir::new().unwrap();
    let cache = start(folder.path(), 100 * MIB);
    let object = shape(1, MIB);
    pin(&cache, &[object]);
    fill(&cache, object);
    let data = Paths::new(folder.path(), object.key).data;
    let file = fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(b"damage", u64::from(BLOCK)).unwrap();
    assert_eq!(cache.tier.verify().bad, 1);
    cache.tier.count_anew();
    assert_eq!(cache.tier.present(object), object.size - u64::from(BLOCK));
    assert_eq!(cache.tier.missing(object), [1]);
}

/// Needs the right to mount; where it is missing, the limit of a file's size stands in for the full disk elsewhere.
#[test]
fn a_full_disk_costs_misses_only() {
    let folder = TempDir::new().unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        folder.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=1m"),
    );
    if mounted.is_err() {
        eprintln!("not run: mounting a small file system is not permitted here");
        return;
    }
    let cache = start(folder.path(), 100 * MIB);
    let object = shape(1, 4 * MIB);
    fill(&cache, object);
    let kept = count_true(&cache, object);
    assert!(kept > 0 && kept < object.block_count());
    assert!(count(&cache.tally.disk_errors) > 0);
    assert_eq!(
        count(&cache.tally.disk_blocks_written) + count(&cache.tally.disk_blocks_skipped),
        object.block_count()
    );
    drop(cache);
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(u64),
    Flip(u64, u8),
    Zero(u64, u64),
    Grow(u64),
    Delete,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<u64>().prop_map(Damage::Cut),
        (any::<u64>(), 1_u8..).prop_map(|(at, flip)| Damage::Flip(at, flip)),
        (any::<u64>(), 1_u64..200_000).prop_map(|(at, length)| Damage::Zero(at, length)),
        (1_u64..100_000).prop_map(Damage::Grow),
        Just(Damage::Delete),
    ]
}

fn damage(path: &Path, damage: &Damage) {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len() as u64;
    match *damage {
        Damage::Cut(at) => bytes.truncate((at % length) as usize),
        Damage::Flip(at, flip) => bytes[(at % length) as usize] ^= flip,
        Damage::Zero(at, zeroes) => {
            let start = at % length;
            bytes[start as usize..(start + zeroes).min(length) as usize].fill(0);
        }
        Damage::Grow(by) => bytes.resize((length + by) as usize, 0xAA),
        Damage::Delete => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_to_the_files_no_wrong_byte_comes_out(
        of_data in proptest::collection::vec(damages(), 0..3),
        of_map in proptest::collection::vec(damages(), 0..3),
        whole in any::<bool>(),
    ) {
        let folder = TempDir::new().unwrap();
        let object = shape(1, 300 * KIB + 5);
        let cache = start(folder.path(), 100 * MIB);
        if whole {
            fill(&cache, object);
        } else {
            assert!(cache.tier.write(object, 2, truth(object, 2)).is_none());
            cache.tier.settle();
        }
        drop(cache);
        let paths = Paths::new(folder.path(), object.key);
        for (path, damages) in [(&paths.data, &of_data), (&paths.map, &of_map)] {
            for it in damages {
                if fs::metadata(path).is_ok_and(|about| about.len() > 0) {
                    damage(path, it);
                }
            }
        }
        let cache = start(folder.path(), 100 * MIB);
        count_true(&cache, object);
        if let Some(file) = cache.tier.hand_out(object) {
            let mut bytes = vec![0; object.size as usize];
            file.file().read_exact_at(&mut bytes, 0).unwrap();
            let whole: Vec<u8> = (0..object.block_count()).flat_map(|index| truth(object, index)).collect();
            prop_assert!(bytes == whole);
        }
        fill(&cache, object);
        prop_assert_eq!(count_true(&cache, object), object.block_count());
    }
}
