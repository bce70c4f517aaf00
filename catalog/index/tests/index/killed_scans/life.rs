//! One life of a scanner: it scans, lists and looks while the source changes and fails, until it is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_backends::{Child, ErrorKind, Kind, Metadata, Version};
use manifold_catalog::{Change, EntryId, Options, SourceRecord, Subscription};
use manifold_index::IndexSettings;
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::record::Recorder;
use super::world::{self, World};
use crate::held::{Held, Same};
use crate::library::{Known, Library};
use crate::support::{Fault, Request};
use crate::truths::Random;

/// Says to a process that it is to live, and how.
pub(super) const LIFE: &str = "MANIFOLD_TEST_LIFE";
/// The exit code of a life in which something was lost.
const LOST: i32 = 86;
/// How many things a life does, if it is not killed before.
const STEPS: u64 = 40;

/// Puts into words what a life must know.
pub(super) fn words(folder: &Path, seed: u64, life: u64, changes: u64, endless: bool) -> String {
    format!("{seed} {life} {changes} {endless} {}", folder.display())
}

/// Lives, and never returns.
pub(super) fn live(words: &str) {
    // Nobody is left to kill it, should the test be ended.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    // A task that panics would go unseen.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(LOST);
    }));
    let mut words = words.splitn(5, ' ');
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (seed, life, changes) = (number(), number(), number());
    let endless = words.next().unwrap() == "true";
    let folder = Path::new(words.next().unwrap());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(!world::takes_time(seed))
        .build()
        .unwrap();
    let stage = Arc::new(Stage::new(folder, seed, life, changes, endless));
    runtime.block_on(act(&stage, folder, Random::new(&[seed, 3, life])));
    die();
}

/// Ends this process as a power cut would, but for what the machine has in memory.
fn die() -> ! {
    loop {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}

/// What goes on around the indexer: each request moves it on.
struct Stage {
    seed: u64,
    life: u64,
    world: World,
    endless: bool,
    /// The indexer is at work, so that time may pass.
    begun: AtomicBool,
    scene: Mutex<Scene>,
}

struct Scene {
    random: Random,
    /// Requests until the end.
    left: u64,
    /// Whether the end comes with the request, or a moment later, in the middle of something else.
    moment: u64,
    /// One of so many hundred requests fails.
    wildness: u64,
    /// Requests for which the source is away.
    away: u64,
    away_as: ErrorKind,
    changes: u64,
    /// What the catalog must go on holding.
    held: Held,
    /// What the source has once held and let go. Should it come back, a listing that was under way may not know.
    once: BTreeSet<(Vec<u8>, Same)>,
    recorder: Recorder,
}

impl Stage {
    fn new(folder: &Path, seed: u64, life: u64, changes: u64, endless: bool) -> Self {
        let mut random = Random::new(&[seed, 4, life]);
        let left_max = [8, 40, 150][random.below(3) as usize];
        let scene = Scene {
            left: 1 + random.below(left_max),
            moment: if random.below(2) == 0 { 0 } else { random.below(60_000) },
            wildness: [0, 5, 20, 50][random.below(4) as usize],
            away: 0,
            away_as: ErrorKind::Unreachable,
            changes,
            held: Held::default(),
            once: BTreeSet::new(),
            recorder: Recorder::open(folder, life),
            random,
        };
        Self {
            seed,
            life,
            world: World::open(seed, folder, changes),
            endless,
            begun: AtomicBool::new(false),
            scene: Mutex::new(scene),
        }
    }

    /// Time passes: with each request, or each look at the clock where the source is a folder.
    fn pass(&self, request: Option<Request>) -> Option<Fault> {
        if !self.begun.load(Ordering::SeqCst) {
            return None;
        }
        let mut scene = self.scene.lock();
        scene.left = scene.left.saturating_sub(1);
        if scene.left == 0 && !self.endless {
            let moment = scene.moment;
            if moment == 0 {
                die();
            }
            scene.left = u64::MAX;
            std::thread::spawn(move || {
                (0..moment).for_each(|_| std::hint::spin_loop());
                die();
            });
        }
        if scene.random.below(7) == 0 {
            self.change(&mut scene);
        }
        request.and_then(|request| scene.fault(request, world::may_deny(self.seed)))
    }

    /// Changes the source.
    fn change(&self, scene: &mut Scene) {
        let truth = self.world.truth();
        let before = truth.tree();
        scene.recorder.change();
        world::stir(self.seed, scene.changes).apply(truth);
        scene.changes += 1;
        let after = truth.tree();
        let same = |(kind, _, identity): (bool, u64, Option<[u8; 16]>)| (kind, identity);
        for (path, seen) in before {
            if after.get(&path).map(|seen| same(*seen)) != Some(same(seen)) {
                scene.once.insert((path, same(seen)));
            }
        }
        let gone = scene.held.retain(&after);
        scene.recorder.forget(&gone);
    }

    /// Sees that nothing is lost, and takes note of what must not be lost from now on.
    fn look(&self, library: &Library, source: &SourceRecord, changes: &Subscription) -> Known {
        let mut scene = self.scene.lock();
        while let Some(change) = changes.try_recv() {
            match change {
                Change::Removed { id, .. } | Change::Replaced { old: id, .. } if scene.held.contains(id) => {
                    self.lost(&format!("{change:?}, but the source has held it all along"));
                }
                _ => {}
            }
        }
        let known = library.known(source);
        if let Some(lost) = scene.held.missing(&known) {
            self.lost(&lost);
        }
        scene.held = Held::new(&known, &self.world.truth().tree());
        let Scene { held, once, .. } = &mut *scene;
        let doubtful: Vec<_> = held
            .iter()
            .filter(|&(path, _, same)| once.contains(&(path.clone(), same)))
            .map(|(path, ..)| path.clone())
            .collect();
        for path in &doubtful {
            held.forget(path);
        }
        // What happened between the two looks is not for the next one.
        while changes.try_recv().is_some() {}
        known
    }

    /// Has the catalog promise what it knows.
    fn promise(&self, library: &Library) {
        let (held, changes) = {
            let scene = self.scene.lock();
            (scene.held.clone(), scene.changes)
        };
        library.catalog.sync().unwrap();
        let mut scene = self.scene.lock();
        if scene.changes == changes {
            scene.recorder.promise(&held);
        }
    }

    fn lost(&self, what: &str) -> ! {
        use std::io::Write;
        let _told = writeln!(std::io::stderr(), "seed {}, life {}: {what}", self.seed, self.life);
        std::process::exit(LOST)
    }
}

impl Scene {
    /// Decides how a request fails.
    fn fault(&mut self, request: Request, may_deny: bool) -> Option<Fault> {
        const KINDS: [ErrorKind; 9] = [
            ErrorKind::Unreachable,
            ErrorKind::TimedOut,
            ErrorKind::CredentialsRefused,
            ErrorKind::NoSuchSource,
            ErrorKind::RateLimited,
            ErrorKind::PermissionDenied,
            ErrorKind::NotADirectory,
            ErrorKind::Nonsense,
            ErrorKind::Other,
        ];
        if self.away > 0 {
            self.away -= 1;
            return Some(Fault::Refuse(self.away_as));
        }
        if self.random.below(100) >= self.wildness {
            return None;
        }
        let kind = KINDS[self.random.below(KINDS.len() as u64) as usize];
        let pages = self.random.below(3) as usize;
        let choice = self.random.below(12);
        let fault = match (request, choice) {
            (_, 0) => {
                self.away = 1 + self.random.below(20);
                self.away_as = KINDS[self.random.below(5) as usize];
                Fault::Refuse(self.away_as)
            }
            (Request::List | Request::Stat | Request::Check, 1..3) => Fault::Hang,
            (Request::List, 3..5) => Fault::BreakAfter(pages),
            (Request::List, 5) => Fault::HangAfter(pages),
            (Request::List, 6..8) => Fault::SayAbsent,
            (Request::List, 8) => Fault::Pretend(vec![child(b"a"), child(b"a")]),
            (Request::List, 9) => Fault::Pretend(vec![child(b""), child(b"")]),
            (Request::Stat, 3..5) if may_deny => Fault::SayAbsent,
            _ => Fault::Refuse(kind),
        };
        Some(fault)
    }
}

/// A child that no directory holds.
fn child(name: &[u8]) -> Child {
    Child {
        name: name.into(),
        metadata: Metadata {
            kind: Kind::File,
            size: 1,
            modified: None,
            changed: None,
            created: None,
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_etag(b"none"),
            identity: None,
        },
    }
}

async fn act(stage: &Arc<Stage>, folder: &Path, mut random: Random) {
    let now = std::sync::atomic::AtomicI64::new((2 * stage.life as i64 + 1) << 40);
    let ticking = Arc::clone(stage);
    let clock = move || {
        if ticking.world.scripted().is_none() {
            ticking.pass(None);
        }
        now.fetch_add(1, Ordering::SeqCst)
    };
    let options = Options {
        commit_interval: Duration::from_millis(1 + random.below(20)),
        ..Options::default()
    };
    let library = Library::under(folder, IndexSettings::default(), options, Arc::new(clock));
    let source = library.catalog.sources().unwrap().remove(0);
    if let Some(scripted) = stage.world.scripted() {
        let hearing = Arc::clone(stage);
        scripted.on_request(Box::new(move |request| hearing.pass(Some(request))));
    }
    let changes = library.catalog.subscribe();
    stage.look(&library, &source, &changes);
    stage.begun.store(true, Ordering::SeqCst);
    library.indexer.attach(source.id, stage.world.backend());
    library.indexer.scan(source.id);
    for step in 0.. {
        if step >= STEPS && !stage.endless {
            return;
        }
        let known = stage.look(&library, &source, &changes);
        let directories = known.values().filter(|(_, (is_directory, ..))| *is_directory);
        let mut directories: Vec<EntryId> = directories.map(|(id, _)| *id).collect();
        directories.push(source.root);
        let directory = directories[random.below(directories.len() as u64) as usize];
        let patience = if world::takes_time(stage.seed) {
            Duration::from_millis(1 + random.below(20))
        } else {
            Duration::from_secs(1 + random.below(60))
        };
        match random.below(12) {
            0..2 => drop(library.indexer.scan(source.id)),
            // What these answer is not the question here: with failures about, many of them fail.
            2..6 => drop(timeout(patience, library.indexer.list_now(directory)).await),
            6 => {
                let (first, second) = (
                    library.indexer.list_now(directory),
                    library.indexer.list_now(source.root),
                );
                drop(timeout(patience, async { tokio::join!(first, second) }).await);
            }
            7..9 => {
                let entry = known.values().nth(random.below(known.len().max(1) as u64) as usize);
                let entry = entry.map_or(source.root, |(id, _)| *id);
                drop(timeout(patience, library.indexer.refresh(entry)).await);
            }
            9 => tokio::time::sleep(patience).await,
            10 => stage.promise(&library),
            _ if random.below(3) == 0 => {
                library.indexer.detach(source.id);
                library.indexer.attach(source.id, stage.world.backend());
            }
            _ => stage.change(&mut stage.scene.lock()),
        }
    }
}
