//! A run: a mounted library over two sources, all that happens to it, and what must hold after each step.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;
use manifold_tests::mounted::{Library, User, expect_success};

use crate::change::Novelty;
use crate::ground::{Ground, Kind};
use crate::handle::Held;
use crate::operation::{Case, Operation, Pick, Site};
use crate::source::{Judged, NOBODY, Source};
use crate::truth::{State, join};

/// How long a source that is well may go on as if it were ill. It only ends runs that hang.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause before somebody asks again.
const AGAIN: Duration = Duration::from_millis(20);

/// A run under way.
pub(crate) struct World<'a> {
    pub(crate) library: Library,
    pub(crate) sources: [Source<'a>; 2],
    pub(crate) held: Vec<(usize, Held)>,
    novelty: Novelty,
    pub(crate) passthrough: bool,
    pub(crate) chance: Chance,
}

/// Lets a case happen over these two sources.
pub(crate) fn live(disk: &Ground, far: &Ground, case: &Case) {
    let mut world = World::begin(disk, far, case);
    for (step, operation) in case.operations.iter().enumerate() {
        println!("{step}: {operation:?}");
        world.happen(*operation);
        world.glance();
    }
    world.settle();
    world.library.unmount();
    world.check();
}

impl<'a> World<'a> {
    fn begin(disk: &'a Ground, far: &'a Ground, case: &Case) -> Self {
        let mut novelty = Novelty::default();
        if far.kind.needs_sizes() {
            novelty.sizes = Some(std::collections::BTreeSet::new());
        }
        let mut sources =
            [("disk", disk), ("far", far)].map(|(name, ground)| Source::begin(name, ground, &mut novelty));
        let mut library = Library::new(User::Current);
        let refresh = if case.refresh { "1s" } else { "1d" };
        for source in &mut sources {
            source.ground.add_to(&mut library, source.name, &[("refresh", refresh)]);
        }
        // They are added with more patience than readers have. A session of SSH takes its time to begin.
        let deadline = if far.kind == Kind::Sftp { "4 s" } else { "1 s" };
        library.settings(&format!(
            "[deadlines]\nconnect = \"5 s\"\ndata = \"{deadline}\"\nmetadata = \"{deadline}\"\n[cache]\ndisk_bytes = \"{}\"\n\
             [hash]\nlocal = false\n[mount]\npassthrough = {}\n",
            if case.disk_cache { "1 GiB" } else { "0" },
            case.passthrough,
        ));
        library.mount();
        let status = expect_success(library.command().args(["--json", "status"]));
        let status: serde_json::Value = serde_json::from_str(&status).expect("the status is JSON");
        let passthrough = status["mount"]["passthrough"] == true;
        let mut world = Self {
            library,
            sources,
            held: Vec::new(),
            novelty,
            passthrough,
            chance: Chance::new(case.operations.len() as u64),
        };
        world.settle();
        world
    }

    pub(crate) fn source(&mut self, site: Site) -> &mut Source<'a> {
        &mut self.sources[index(site)]
    }

    fn happen(&mut self, operation: Operation) {
        use Operation as Op;
        match operation {
            Op::Create(site, ..)
            | Op::Replace(site, ..)
            | Op::Rename(site, ..)
            | Op::Remove(site, ..)
            | Op::MakeDirectory(site, ..)
            | Op::MoveDirectory(site, ..)
            | Op::RemoveDirectory(site, ..) => {
                if self.source(site).is_here() {
                    self.change(operation);
                }
            }
            Op::Copy(site, file, directory, name) => self.copy(site, file, directory, name),
            Op::Open(site, file) => self.open(site, file),
            Op::ReadHandle(handle, at, length) => self.read_handle(handle, at, length),
            Op::Close(handle) => {
                let all: Vec<usize> = (0..self.held.len()).collect();
                if let Some(it) = handle.of(&all) {
                    self.held.remove(*it);
                }
            }
            Op::ReadFile(site, file) => self.read_file(site, file),
            Op::List(site, directory) => self.list(site, directory),
            Op::Stat(site, path) => {
                let paths = self.source(site).truth.paths();
                if let Some(path) = path.of(&paths) {
                    self.stat(index(site), path);
                }
            }
            Op::StatAbsent(site, directory) => {
                let directories = self.source(site).truth.directories();
                if let Some(directory) = directory.of(&directories) {
                    self.stat(index(site), &join(directory, NOBODY));
                }
            }
            Op::ListByControl(site, directory) => self.list_by_control(site, directory),
            Op::StatByControl(site, path) => self.stat_by_control(site, path),
            Op::Hash(site, file) => self.hash(site, file),
            Op::FallIll(site, ailment) => {
                let source = self.source(site);
                if source.ill.is_none() {
                    source.ground.fall_ill(ailment);
                    (source.ill, source.was_ill) = (Some(ailment), true);
                }
            }
            Op::GetWell(site) => self.get_well(index(site)),
            Op::KillDaemon => {
                self.library.kill9();
                self.orphaned();
                self.check();
                self.start_again();
            }
            Op::RestartDaemon => {
                self.library.unmount();
                self.orphaned();
                self.start_again();
            }
            Op::Scan(site, directory) => self.scan(site, directory),
            Op::Settle => self.settle(),
        }
    }

    fn change(&mut self, operation: Operation) {
        use Operation as Op;
        let novelty = &mut self.novelty;
        match operation {
            Op::Create(site, directory, name, length) => {
                let source = &mut self.sources[index(site)];
                if let Some(path) = source.place(directory, name) {
                    source.create(&path, length, novelty);
                }
            }
            Op::Replace(site, file, way, length) => self.sources[index(site)].replace(file, way, length, novelty),
            Op::Rename(site, file, directory, name) => self.source(site).rename_file(file, directory, name),
            Op::Remove(site, file) => self.source(site).remove_file(file),
            Op::MakeDirectory(site, directory, name) => self.source(site).make_directory(directory, name),
            Op::MoveDirectory(site, which, directory, name) => self.source(site).move_directory(which, directory, name),
            Op::RemoveDirectory(site, which) => self.source(site).remove_directory(which),
            _ => unreachable!("no change: {operation:?}"),
        }
    }

    fn copy(&mut self, site: Site, file: Pick, directory: Pick, name: Pick) {
        let [from, to] = match site {
            Site::Disk => [0, 1],
            Site::Far => [1, 0],
        };
        let files = self.sources[from].truth.files();
        let place = self.sources[to].place(directory, name);
        if let (Some(file), Some(place)) = (file.of(&files), place)
            && let State::File(object, _) = self.sources[from].truth.at(file)
            && self.sources[to].is_here()
        {
            let version = Arc::clone(self.sources[from].truth.held(object));
            self.sources[to].put(&place, version);
        }
    }

    /// Gives where the mount shows a path.
    pub(crate) fn at(&self, index: usize, path: &str) -> PathBuf {
        self.library.at().join(join(self.sources[index].name, path))
    }

    /// Asks until there is an answer; one that says that the source is away counts while it is ill.
    pub(crate) fn ask(&self, index: usize, what: &str, mut ask: impl FnMut() -> Result<(), Judged>) {
        let begun = Instant::now();
        loop {
            match ask() {
                Ok(()) | Err(Judged::Allowed) => return,
                Err(Judged::Wrong(wrong)) => panic!("{what} of {}: {wrong}", self.sources[index].name),
                Err(Judged::Away(_)) if self.sources[index].ill.is_some() => return,
                Err(Judged::Away(error)) => assert!(
                    begun.elapsed() < PATIENCE,
                    "{what} of {}: {error} long after it got well\n{}",
                    self.sources[index].name,
                    self.library.log()
                ),
            }
            thread::sleep(AGAIN);
        }
    }

    fn get_well(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if source.ill.take().is_some() {
            source.ground.get_well();
        }
    }

    /// Looks at what is left of a daemon that has gone.
    fn orphaned(&mut self) {
        for (index, mut held) in self.held.drain(..) {
            if let Err(wrong) = held.judge_orphan(&self.sources[index]) {
                panic!("{:?} of {}: {wrong}", held.path, self.sources[index].name);
            }
        }
    }

    /// Starts the daemon again: what nobody touched is as it was, under the same numbers, whether its source is there or not.
    fn start_again(&mut self) {
        self.library.mount();
        for index in 0..self.sources.len() {
            self.same_numbers(index);
        }
    }

    /// Examines the catalog, while no daemon runs.
    fn check(&self) {
        expect_success(self.library.command().arg("check"));
    }

    fn scan(&mut self, site: Site, directory: Pick) {
        let (index, directories) = (index(site), self.source(site).truth.directories());
        let Some(directory) = directory.of(&directories) else {
            return;
        };
        if self.scans(&join(self.sources[index].name, directory)) {
            self.sources[index].truth.seen_beneath(directory);
            self.compare(index, directory);
        }
    }

    /// Has a part of the library scanned, and tells whether that is said to have succeeded.
    fn scans(&self, path: &str) -> bool {
        let mut command = self.library.command();
        let output = command
            .args(["scan", &format!("/{path}")])
            .output()
            .expect("run manifold");
        output.status.success()
    }

    /// Makes all sources well, has everything scanned, and looks at everything.
    fn settle(&mut self) {
        for index in 0..self.sources.len() {
            self.get_well(index);
        }
        let begun = Instant::now();
        while !self.scans("") {
            assert!(
                begun.elapsed() < PATIENCE,
                "a scan never succeeds: {}",
                self.library.log()
            );
            thread::sleep(AGAIN);
        }
        for index in 0..self.sources.len() {
            self.sources[index].truth.seen_beneath("");
            let shown = self.compare(index, "");
            self.take_numbers(index, shown);
            self.sources[index].seen_all();
        }
        // Each is put behind the others.
        for _ in 0..self.held.len() {
            let size = self.held[0].1.size_max();
            self.read_piece(0, size.saturating_sub(40), size + 1);
        }
    }
}

/// Gives the number of a source.
pub(crate) fn index(site: Site) -> usize {
    match site {
        Site::Disk => 0,
        Site::Far => 1,
    }
}
