//! What is done to the library: readers, walkers, and faults that come and go.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;
use manifold_tests::estate::{AILMENTS, Ailment, Estate, READS, Site};

const READERS: u64 = 6;
const WALKERS: u64 = 2;
/// The pause between two changes of the sources' health, and between two rounds of a walker.
const CHANGE_EVERY: Duration = Duration::from_secs(4);
const WALK_EVERY: Duration = Duration::from_millis(500);
/// The pause of a reader who was told of an error.
const AGAIN: Duration = Duration::from_millis(200);
/// How long after an ailment a source may still be away, unless the table of ailments gives it longer.
const CONVALESCENCE: Duration = Duration::from_secs(20);
/// The longest that a reader may be left without an answer: twice the deadline, and once more for a machine that is busy.
const ANSWER_MAX: Duration = Duration::from_secs(9);
/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 20;

/// How a site is.
#[derive(Clone, Copy)]
struct Health {
    /// When it fell ill or got well last.
    since: Instant,
    is_ill: bool,
    /// How long after that it may still be away.
    convalescence: Duration,
    /// What it has, or had last.
    ailment: Option<&'static str>,
}

/// The load, and what came of it so far.
pub(crate) struct Load {
    seed: u64,
    stop: AtomicBool,
    /// Every path and inode number of the mount.
    truth: BTreeMap<PathBuf, u64>,
    health: Vec<Mutex<Health>>,
    pub(crate) begun: AtomicU64,
    pub(crate) good: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) walks: AtomicU64,
    pub(crate) ailments: AtomicU64,
    pub(crate) longest_ms: AtomicU64,
    pub(crate) complaints: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn new(estate: &Estate, seed: u64) -> Self {
        let mut truth = BTreeMap::new();
        walk(&estate.library.at(), &mut truth).expect("walk the library before anything fails");
        let well = Health {
            since: Instant::now(),
            is_ill: false,
            convalescence: Duration::ZERO,
            ailment: None,
        };
        Self {
            seed,
            stop: AtomicBool::new(false),
            truth,
            health: estate.sites.iter().map(|_| Mutex::new(well)).collect(),
            begun: AtomicU64::new(0),
            good: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            walks: AtomicU64::new(0),
            ailments: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
            complaints: Mutex::default(),
        }
    }

    /// Starts all that goes on until [`stop`](Self::stop).
    pub(crate) fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, estate: &'scope Estate) {
        for reader in 0..READERS {
            scope.spawn(move || self.read(estate, Chance::new(self.seed + 1 + reader)));
        }
        for _ in 0..WALKERS {
            scope.spawn(move || self.look(&estate.library.at()));
        }
        scope.spawn(move || self.trouble(estate, Chance::new(self.seed)));
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.complaints().len() >= COMPLAINTS_MAX
    }

    pub(crate) fn complaints(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, what: String) {
        eprintln!("{what}");
        let mut complaints = self.complaints();
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(what);
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn read(&self, estate: &Estate, mut chance: Chance) {
        while self.goes_on() {
            let which = chance.below(estate.sites.len());
            let (site, number) = (&estate.sites[which], chance.below(READS));
            forget_pages(&site.read_path(number));
            let was_well = self.is_well(which);
            let begun = Instant::now();
            self.begun.fetch_add(1, Ordering::Relaxed);
            let told = site.try_read(number);
            let took = begun.elapsed();
            self.longest_ms.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
            let what = || format!("{} {number}, after {took:?}", site.kind.name());
            if took > ANSWER_MAX {
                self.complain(format!("{}: the answer came too late", what()));
            }
            match told {
                Ok(true) => {
                    self.good.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => self.complain(format!("{}: wrong bytes", what())),
                Err(errno) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    if was_well && self.is_well(which) {
                        let past = self.past(which);
                        self.complain(format!("{}: error {errno}, and the source is well{past}", what()));
                    }
                    thread::sleep(AGAIN);
                }
            }
        }
    }

    /// Says what befell a site last, and how long ago that ended.
    fn past(&self, which: usize) -> String {
        let health = *self.health[which].lock().unwrap_or_else(PoisonError::into_inner);
        let ago = health.since.elapsed().as_secs();
        health
            .ailment
            .map_or_else(String::new, |name| format!(", {ago} s after: {name}"))
    }

    /// Tells whether a site has been well for long enough that it must be read.
    fn is_well(&self, which: usize) -> bool {
        let health = *self.health[which].lock().unwrap_or_else(PoisonError::into_inner);
        !health.is_ill && health.since.elapsed() >= health.convalescence
    }

    fn look(&self, at: &Path) {
        while self.goes_on() {
            let mut seen = BTreeMap::new();
            if let Err(error) = walk(at, &mut seen) {
                self.complain(format!("the walk broke off: {error}"));
            } else if seen != self.truth {
                let missing: Vec<_> = self
                    .truth
                    .keys()
                    .filter(|path| !seen.contains_key(*path))
                    .take(5)
                    .collect();
                self.complain(format!(
                    "the tree has {} entries in place of {}; missing {missing:?}",
                    seen.len(),
                    self.truth.len()
                ));
            }
            self.walks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(WALK_EVERY);
        }
    }

    /// Lets one source fall ill, or get well, now and then; all are well in the end.
    fn trouble(&self, estate: &Estate, mut chance: Chance) {
        let mut ill: Vec<Option<&'static Ailment>> = estate.sites.iter().map(|_| None).collect();
        while self.goes_on() {
            let which = chance.below(estate.sites.len());
            self.change(which, &estate.sites[which], &mut ill[which], &mut chance);
            thread::sleep(CHANGE_EVERY);
        }
        for (site, ailment) in estate.sites.iter().zip(ill) {
            if let Some(ailment) = ailment {
                ailment.end(site);
            }
        }
    }

    fn change(&self, which: usize, site: &Site, ill: &mut Option<&'static Ailment>, chance: &mut Chance) {
        let note = |is_ill, ailment: &'static Ailment| {
            *self.health[which].lock().unwrap_or_else(PoisonError::into_inner) = Health {
                since: Instant::now(),
                is_ill,
                convalescence: ailment.recovery_max().max(CONVALESCENCE),
                ailment: Some(ailment.name),
            };
        };
        if let Some(ailment) = ill.take() {
            ailment.end(site);
            note(false, ailment);
            return;
        }
        let befalling: Vec<_> = AILMENTS.iter().filter(|it| it.befalls(site.kind)).collect();
        let ailment = befalling[chance.below(befalling.len())];
        // Before it begins, so that no reader takes it for well.
        note(true, ailment);
        ailment.begin(site);
        self.ailments.fetch_add(1, Ordering::Relaxed);
        *ill = Some(ailment);
    }
}

/// Makes the kernel forget what it has read of a file, so that the next read reaches the daemon.
fn forget_pages(path: &Path) {
    // A file that cannot be opened is read all the same, and tells why.
    if let Ok(file) = File::open(path) {
        let _kept = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

fn walk(folder: &Path, seen: &mut BTreeMap<PathBuf, u64>) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::metadata(&path)?;
        seen.insert(path.clone(), metadata.ino());
        if metadata.is_dir() {
            walk(&path, seen)?;
        }
    }
    Ok(())
}
