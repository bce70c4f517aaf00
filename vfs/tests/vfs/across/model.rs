//! Anything that applications do with files of several sources, by chance, while sources go away and the daemon dies: each file is in
//! one place, with the bytes that were written last, at once and in the end.

use std::collections::BTreeMap;

use super::*;

const STEPS: usize = 60;
const SEEDS: u64 = 6;
const SOURCES: [&str; 5] = ["x", "t", "d", "near", "far"];

/// Numbers that look like chance, from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    /// Gives at least one byte, and no more than `most`: as nobody else writes them.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = 1 + self.below(most);
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(&self.0.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }
}

/// What files there are, by their paths.
type Truth = BTreeMap<String, Vec<u8>>;

fn is_of_disk(path: &str) -> bool {
    ["d/", "near/", "far/"].iter().any(|source| path.starts_with(source))
}

/// Tells whether a file that goes to a folder of this machine is copied there.
fn is_far(from: &str, to: &str) -> bool {
    let is_near = |path: &str| is_of_disk(path) && !path.starts_with("far/");
    let (from_source, to_source) = (from.split('/').next(), to.split('/').next());
    is_of_disk(to) && from_source != to_source && !(is_near(from) && is_near(to))
}

impl World {
    async fn agrees(&self, truth: &Truth, when: &str) {
        for source in SOURCES {
            let id = self.library.find(source).await.unwrap();
            // What arrives meanwhile overtakes a listing.
            while self.library.indexer.list_now(id).await.is_err() {
                tokio::task::yield_now().await;
            }
            let children = self.library.catalog.children(id, None, usize::MAX).unwrap();
            let found: Vec<_> = children
                .iter()
                .map(|child| format!("{source}/{}", String::from_utf8_lossy(&child.name)))
                .collect();
            let prefix = format!("{source}/");
            let expected: Vec<_> = truth.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
            assert_eq!(found, expected, "{when}");
        }
        for (path, bytes) in truth {
            assert!(self.content(path).await == *bytes, "{when}: {path}");
        }
    }

    async fn save(&self, path: &str, bytes: &[u8], truth: &mut Truth) {
        if let Some(known) = truth.get_mut(path) {
            let handle = self.open(path, Access::ReadWrite).await;
            self.write(handle, 0, bytes).await;
            self.close(handle).await;
            known.resize(known.len().max(bytes.len()), 0);
            known[..bytes.len()].copy_from_slice(bytes);
            return;
        }
        match self.create(path).await {
            Ok(handle) => {
                self.write(handle, 0, bytes).await;
                self.close(handle).await;
                truth.insert(path.to_owned(), bytes.to_vec());
            }
            // What had the name is still on its way.
            Err(Error::Busy) => assert!(is_of_disk(path), "{path}"),
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

async fn anything_happens(seed: u64) {
    let (x, t) = (Shelf::named("test://x"), Shelf::named("test://t"));
    let mut world = World::over(x, t, disks(), TempDir::new().unwrap(), CrossSourceRename::Copy);
    for source in SOURCES {
        world.library.find(source).await.unwrap();
        world.library.relist(source).await;
    }
    let (mut chance, mut truth) = (Chance(seed * 7_919 + 1), Truth::new());
    for step in 0..STEPS {
        let name = |chance: &mut Chance| format!("{}/{}", SOURCES[chance.below(SOURCES.len())], chance.below(3));
        let (one, other) = (name(&mut chance), name(&mut chance));
        let when = format!("seed {seed}, step {step}");
        match chance.below(12) {
            0..=3 => {
                let bytes = chance.bytes(150_000);
                world.save(&one, &bytes, &mut truth).await;
            }
            4..=8 => {
                let renamed = world.rename(&one, &other).await;
                match (renamed, truth.contains_key(&one)) {
                    (Ok(()), true) => {
                        let bytes = truth.remove(&one).unwrap();
                        truth.insert(other.clone(), bytes);
                    }
                    // Or it waits for what had the new name.
                    (Err(Error::NotFound), false) | (Err(Error::Busy), _) => {}
                    (Err(Error::CrossSource), _) => {
                        let is_copied_over = is_far(&one, &other) && truth.contains_key(&other);
                        assert!(is_copied_over, "{when}: {one} to {other}");
                    }
                    (renamed, _) => panic!("{when}: {one} to {other}: {renamed:?}"),
                }
            }
            9 => match (world.remove(&one).await, truth.remove(&one)) {
                (Ok(()), Some(_)) | (Err(Error::NotFound), None) => {}
                (removed, known) => panic!("{when}: {one}: {removed:?}, {}", known.is_some()),
            },
            10 => {
                let shelf = if chance.below(2) == 0 { &world.x } else { &world.t };
                // What holds uploads holds no names.
                let cue = if chance.below(2) == 0 { Cue::Holds } else { Cue::Does };
                shelf.set_cue(cue);
            }
            _ => {
                world.x.set_cue(Cue::Does);
                world.t.set_cue(Cue::Does);
                world = world.die_and_come_back().await;
                world.agrees(&truth, &format!("{when}, after a death")).await;
            }
        }
    }
    world
        .agrees(&truth, &format!("seed {seed}, before all has arrived"))
        .await;
    world.x.set_cue(Cue::Does);
    world.t.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    world.agrees(&truth, &format!("seed {seed}, in the end")).await;
    for (source, shelf) in [("x", &world.x), ("t", &world.t)] {
        let files = shelf
            .files()
            .into_iter()
            .map(|name| (format!("{source}/{name}"), shelf.bytes(&name).unwrap()));
        let prefix = format!("{source}/");
        let expected = truth.iter().filter(|(path, _)| path.starts_with(&prefix));
        assert!(
            files.eq(expected.map(|(path, bytes)| (path.clone(), bytes.clone()))),
            "seed {seed}: at {source}"
        );
    }
    for (source, disk) in [("d", &world.disk), ("near", &world.near), ("far", &world.far)] {
        for item in fs::read_dir(disk.path()).unwrap() {
            let item = item.unwrap();
            let path = format!("{source}/{}", item.file_name().to_string_lossy());
            assert_eq!(
                truth.get(&path),
                Some(&fs::read(item.path()).unwrap()),
                "seed {seed}: {path}"
            );
        }
    }
    assert_eq!(world.undone(), 0, "nobody else has changed anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_is_in_one_place_whatever_happens() {
    for seed in 0..SEEDS {
        anything_happens(seed).await;
    }
}
