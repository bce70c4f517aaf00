//! What one source holds, written down as simply as possible, and what the mount may show of it.
//!
//! The mount shows each path as the source had it at some time since the last look that is known to have seen all: the
//! path's [`states`](Truth::states). A path that nobody touched since then has one state, which the mount must show.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::bytes::Version;

/// A path within a source, with `/` between its parts; the source itself is the empty one.
pub(crate) type Path = String;

/// Names a file or directory of a source for good, as an inode number does on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Object(usize);

/// What stands under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Directory(Object),
    File(Object, Arc<Version>),
    /// A file in the middle of being written: it holds the beginning of that version.
    Writing(Object, Arc<Version>),
}

/// A disk makes a file longer by whole pages while it is written.
const PAGE: usize = 4096;

impl State {
    /// Tells whether something is there.
    pub(crate) fn is_there(&self) -> bool {
        *self != Self::Absent
    }

    /// Tells what is there from all else.
    pub(crate) fn object(&self) -> Option<Object> {
        match self {
            Self::Absent => None,
            Self::Directory(object) | Self::File(object, _) | Self::Writing(object, _) => Some(*object),
        }
    }

    /// Tells whether it is a file.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(..) | Self::Writing(..))
    }

    /// Tells whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Says what it is.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Directory(object) => format!("directory {}", object.0),
            Self::File(object, it) => format!("file {} with {} bytes of {}", object.0, it.bytes.len(), it.mark),
            Self::Writing(object, it) => format!("file {} with some of {}", object.0, it.mark),
        }
    }

    /// Tells whether it is a file of that size.
    pub(crate) fn has_size(&self, size: usize) -> bool {
        match self {
            Self::File(_, version) => version.bytes.len() == size,
            Self::Writing(_, version) => size <= version.bytes.len() && size.is_multiple_of(PAGE),
            Self::Absent | Self::Directory(_) => false,
        }
    }

    /// Tells whether it is a file that holds these bytes from `at` on, to its end if the range that was asked for goes on.
    pub(crate) fn reads(&self, range: &Range<usize>, bytes: &[u8]) -> bool {
        match self {
            Self::File(_, version) => version.range(range) == bytes,
            Self::Writing(_, version) => {
                let end = range.start + bytes.len();
                let ends_well = end == range.end || end.is_multiple_of(PAGE) || bytes.is_empty();
                ends_well && version.range(range).starts_with(bytes)
            }
            Self::Absent | Self::Directory(_) => false,
        }
    }

    /// Tells whether it is a file that holds these bytes at the beginning of a range.
    pub(crate) fn begins(&self, range: &Range<usize>, bytes: &[u8]) -> bool {
        match self {
            Self::File(_, version) | Self::Writing(_, version) => version.range(range).starts_with(bytes),
            Self::Absent | Self::Directory(_) => false,
        }
    }
}

/// What is known of an object besides where it stands.
#[derive(Debug, Default)]
struct Known {
    /// What it has held, if it is a file; the last is what it holds.
    versions: Vec<Arc<Version>>,
    /// How many of them had been passed when all was last seen.
    settled: usize,
    /// Every path that it has ever stood under.
    paths: BTreeSet<Path>,
}

/// A rename of a file or directory.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) from: Path,
    pub(crate) to: Path,
}

/// The truth of one source.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    now: BTreeMap<Path, State>,
    objects: Vec<Known>,
    /// Of what was touched since all beneath it was last seen: all that it has been since, beginning with what it was then.
    past: BTreeMap<Path, Vec<State>>,
    /// When a path was last touched.
    touched: BTreeMap<Path, u64>,
    /// How often, since everything was last seen.
    touches: BTreeMap<Path, u32>,
    /// The renames since then.
    moves: Vec<Move>,
    clock: u64,
}

impl Truth {
    /// An empty source.
    pub(crate) fn new() -> Self {
        let mut truth = Self::default();
        let root = truth.object();
        truth.now.insert(Path::new(), State::Directory(root));
        truth
    }

    fn object(&mut self) -> Object {
        self.objects.push(Known::default());
        Object(self.objects.len() - 1)
    }

    /// Gives what stands under a path now.
    pub(crate) fn at(&self, path: &str) -> State {
        self.now.get(path).cloned().unwrap_or(State::Absent)
    }

    /// Gives what the mount may show under a path. What is beneath something that is not there is not there.
    pub(crate) fn states(&self, path: &str) -> Vec<State> {
        self.past.get(path).cloned().unwrap_or_else(|| vec![self.at(path)])
    }

    /// Gives every path that there is, or that the mount may still show.
    pub(crate) fn paths(&self) -> Vec<Path> {
        let paths: BTreeSet<_> = self.now.keys().chain(self.past.keys()).collect();
        paths.into_iter().cloned().collect()
    }

    /// Gives the paths of all files that are there.
    pub(crate) fn files(&self) -> Vec<Path> {
        let is_file = |(path, state): (&Path, &State)| matches!(state, State::File(..)).then(|| path.clone());
        self.now.iter().filter_map(is_file).collect()
    }

    /// Gives the paths of all directories that are there, that of the source first.
    pub(crate) fn directories(&self) -> Vec<Path> {
        let is_directory = |(path, state): (&Path, &State)| matches!(state, State::Directory(_)).then(|| path.clone());
        self.now.iter().filter_map(is_directory).collect()
    }

    /// Gives the names beneath a directory that the mount may show, with what each may be.
    pub(crate) fn children(&self, directory: &str) -> BTreeMap<String, Vec<State>> {
        let child = |path: Path| {
            let (parent, name) = split(&path)?;
            (parent == directory).then(|| (name.to_owned(), self.states(&path)))
        };
        self.paths().into_iter().filter_map(child).collect()
    }

    /// Gives what an object holds now.
    pub(crate) fn held(&self, object: Object) -> &Arc<Version> {
        let versions = &self.objects[object.0].versions;
        versions.last().expect("a file always holds something")
    }

    /// Gives what an object has held since all was last seen.
    pub(crate) fn held_lately(&self, object: Object) -> &[Arc<Version>] {
        let known = &self.objects[object.0];
        &known.versions[known.settled..]
    }

    /// Tells whether two objects have ever stood under one path.
    pub(crate) fn shared_a_path(&self, one: Object, other: Object) -> bool {
        !self.objects[one.0].paths.is_disjoint(&self.objects[other.0].paths)
    }

    /// Tells whether a file has ever been written in place.
    pub(crate) fn is_rewritten(&self, object: Object) -> bool {
        self.objects[object.0].versions.len() > 1
    }

    /// Tells whether two files have ever held the same bytes.
    pub(crate) fn held_alike(&self, one: Object, other: Object) -> bool {
        let others = &self.objects[other.0].versions;
        self.objects[one.0]
            .versions
            .iter()
            .any(|version| others.contains(version))
    }

    /// Gives what tells now from later.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Tells whether a path was touched after a time.
    pub(crate) fn touched_after(&self, path: &str, clock: u64) -> bool {
        self.touched.get(path).is_some_and(|at| *at > clock)
    }

    /// Tells whether a path has been touched since all was last seen.
    pub(crate) fn is_touched(&self, path: &str) -> bool {
        self.past.contains_key(path)
    }

    /// Says how often a path has been touched since everything was last seen.
    pub(crate) fn touches(&self, path: &str) -> u32 {
        self.touches.get(path).copied().unwrap_or(0)
    }

    /// Gives the renames since everything was last seen, where nothing else has touched either side.
    pub(crate) fn clean_moves(&self) -> Vec<Move> {
        let once = |place: &Path| {
            let beneath = self.touches.iter().filter(|(path, _)| is_beneath(path, place));
            beneath.map(|(_, count)| *count).max() == Some(1)
        };
        let clean = |it: &&Move| once(&it.from) && once(&it.to);
        self.moves.iter().filter(clean).cloned().collect()
    }

    fn set(&mut self, path: &str, state: State) {
        println!("  {path:?} becomes {}", state.in_words());
        self.clock += 1;
        let before = self.at(path);
        self.past
            .entry(path.to_owned())
            .or_insert_with(|| vec![before])
            .push(state.clone());
        self.touched.insert(path.to_owned(), self.clock);
        *self.touches.entry(path.to_owned()).or_default() += 1;
        if let Some(object) = state.object() {
            self.objects[object.0].paths.insert(path.to_owned());
        }
        match state {
            State::Absent => drop(self.now.remove(path)),
            there => drop(self.now.insert(path.to_owned(), there)),
        }
    }

    /// A file that was not there is written.
    pub(crate) fn create(&mut self, path: &str, version: Arc<Version>) {
        let object = self.object();
        self.hold(object, path, version);
    }

    /// A file gets other bytes, and stays the file that it is.
    pub(crate) fn rewrite(&mut self, path: &str, version: Arc<Version>) {
        let State::File(object, _) = self.at(path) else {
            panic!("{path:?} is no file");
        };
        self.hold(object, path, version);
    }

    fn hold(&mut self, object: Object, path: &str, version: Arc<Version>) {
        self.objects[object.0].versions.push(Arc::clone(&version));
        self.set(path, State::File(object, Arc::clone(&version)));
        let past = self.past.get_mut(path).expect("it has just been touched");
        past.insert(past.len() - 1, State::Writing(object, version));
    }

    /// A directory is made.
    pub(crate) fn make_directory(&mut self, path: &str) {
        let object = self.object();
        self.set(path, State::Directory(object));
    }

    /// Something is removed, with all beneath it.
    pub(crate) fn remove(&mut self, path: &str) {
        for it in self.beneath(path).into_iter().rev() {
            self.set(&it, State::Absent);
        }
    }

    /// Something is renamed, with all beneath it. A file that stood in the new place is gone.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let shown: Vec<_> = self.paths().into_iter().filter(|it| is_beneath(it, from)).collect();
        let (mut leaving, mut coming) = (Vec::new(), Vec::new());
        for old in shown {
            let new = format!("{to}{}", &old[from.len()..]);
            let (states, now) = (self.states(&old), self.at(&old));
            if now.is_there() {
                leaving.push(old.clone());
            }
            coming.push((new, states, now, old == from));
        }
        for (new, states, now, is_top) in coming {
            if now.is_there() || self.at(&new).is_there() {
                self.set(&new, now);
            }
            // A directory that is found again in another place has in it what was known to be in it.
            if !is_top && (states.len() > 1 || self.past.contains_key(&new)) {
                self.touched.insert(new.clone(), self.clock);
                let past = self.past.entry(new).or_insert_with(|| vec![State::Absent]);
                let last = past.pop().expect("a past has an end");
                past.extend(states);
                past.push(last);
            }
        }
        for old in leaving.into_iter().rev() {
            self.set(&old, State::Absent);
        }
        self.moves.push(Move {
            from: from.to_owned(),
            to: to.to_owned(),
        });
    }

    /// Gives a path and all that is there beneath it, the path first.
    pub(crate) fn beneath(&self, path: &str) -> Vec<Path> {
        self.now.keys().filter(|it| is_beneath(it, path)).cloned().collect()
    }

    /// All beneath a directory has been seen as it is now.
    pub(crate) fn seen_beneath(&mut self, directory: &str) {
        // The directory itself is seen from the one above it.
        self.past
            .retain(|path, _| !is_beneath(path, directory) || path == directory);
        let objects: Vec<_> = self
            .beneath(directory)
            .iter()
            .filter_map(|it| self.at(it).object())
            .collect();
        for object in objects {
            let known = &mut self.objects[object.0];
            known.settled = known.versions.len().saturating_sub(1);
        }
    }

    /// Everything has been seen as it is now.
    pub(crate) fn seen_all(&mut self) {
        self.past.clear();
        self.touches.clear();
        self.moves.clear();
        self.seen_beneath("");
    }
}

/// Tells whether a path is another one, or lies beneath it.
pub(crate) fn is_beneath(path: &str, top: &str) -> bool {
    top.is_empty()
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Parts a path into that of its directory and its name; the source itself has none.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    if path.is_empty() {
        return None;
    }
    Some(path.rsplit_once('/').unwrap_or(("", path)))
}

/// Gives the path of a name in a directory.
pub(crate) fn join(directory: &str, name: &str) -> Path {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

#[test]
fn what_was_touched_may_be_shown_old_or_new_but_not_mixed_or_cut() {
    let (old, new) = (Version::new(1, 9_000), Version::new(2, 9_000));
    let mut truth = Truth::new();
    truth.create("a", Arc::clone(&old));
    truth.seen_all();
    assert_eq!(truth.states("a").len(), 1);
    truth.rewrite("a", Arc::clone(&new));
    let mixed = [&old.bytes[..4_096], &new.bytes[4_096..]].concat();
    let reads = |truth: &Truth, bytes: &[u8]| {
        truth
            .states("a")
            .iter()
            .any(|state| state.reads(&(0..usize::MAX), bytes))
    };
    assert!(reads(&truth, &old.bytes) && reads(&truth, &new.bytes));
    assert!(!reads(&truth, &mixed) && !reads(&truth, &new.bytes[..5_000]));
    truth.seen_all();
    assert!(!reads(&truth, &old.bytes) && reads(&truth, &new.bytes));
}

#[test]
fn what_is_renamed_with_its_directory_takes_its_past_along() {
    let mut truth = Truth::new();
    truth.make_directory("p");
    truth.create("p/a", Version::new(1, 10));
    truth.seen_all();
    truth.rewrite("p/a", Version::new(2, 20));
    truth.rename("p", "q");
    let sizes = [10, 20].map(|size| truth.states("q/a").iter().any(|state| state.has_size(size)));
    assert_eq!((sizes, truth.at("p/a")), ([true, true], State::Absent));
    assert!(truth.is_touched("q/a") && truth.clean_moves().is_empty());
}
