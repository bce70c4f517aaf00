//! One source of a run: where it lies, what it holds, and whether what the mount shows of it may be.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use crate::bytes::{Version, describe};
use crate::ground::{Ground, Kind};
use crate::operation::Ailment;
use crate::truth::{Object, Path, State, Truth, split};

/// A name that nothing has.
pub(crate) const NOBODY: &str = "nobody";

/// What was found wrong, in words.
pub(crate) type Wrong = String;

/// What an error is that a question to the mount came to.
pub(crate) enum Judged {
    /// It may be: the path may be as the error says.
    Allowed,
    /// The source could not be asked, which may be while it is ill, and for a while after that.
    Away(io::Error),
    /// It must not be.
    Wrong(Wrong),
}

/// What was asked of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// What is known by name; a source is asked only about what was never listed.
    Names,
    /// Bytes.
    Bytes,
}

/// One source.
pub(crate) struct Source<'a> {
    /// The folder of the mount that it is seen at.
    pub(crate) name: &'static str,
    pub(crate) ground: &'a Ground,
    pub(crate) truth: Truth,
    pub(crate) ill: Option<Ailment>,
    /// Whether it was ill since everything was last seen.
    pub(crate) was_ill: bool,
    /// When everything was last seen.
    pub(crate) seen: u64,
    /// The inode numbers that the mount showed when everything was last seen.
    pub(crate) inodes: BTreeMap<Path, (u64, Object)>,
    /// To whom each number that was ever seen belonged last.
    pub(crate) owners: BTreeMap<u64, Object>,
}

/// What the mount may show.
impl Source<'_> {
    /// Tells whether the path or anything on the way to it has been touched since all was last seen.
    pub(crate) fn is_touched(&self, path: &str) -> bool {
        way_to(path).any(|it| self.truth.is_touched(it))
    }

    /// Judges an error that a question about a path came to.
    pub(crate) fn judge(&self, path: &str, question: Question, error: io::Error) -> Judged {
        let any = |at: &str, is: fn(&State) -> bool| self.truth.states(at).iter().any(is);
        let is_lost = || {
            let mut above = way_to(path).filter(|it| *it != path);
            above.any(|it| any(it, |state| !state.is_directory())) || any(path, |state| !state.is_there())
        };
        let is_touched = self.is_touched(path);
        let may = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => is_lost(),
            Some(Errno::NOTDIR) => is_lost() || any(path, State::is_file),
            Some(Errno::ISDIR) => any(path, State::is_directory),
            Some(Errno::STALE) if self.may_mistake(path) => return Judged::Away(error),
            Some(Errno::STALE) => is_touched,
            // What was listed once is known without the source.
            Some(Errno::TIMEDOUT | Errno::HOSTUNREACH) if is_touched || question == Question::Bytes => {
                return Judged::Away(error);
            }
            _ => false,
        };
        if may {
            return Judged::Allowed;
        }
        Judged::Wrong(format!("{error}, though it has been {}", self.in_words(path)))
    }

    /// Tells whether the source may have told another version of a file than it has: Samba does not notice at once what others
    /// than its clients do to a file that is open.
    pub(crate) fn may_mistake(&self, path: &str) -> bool {
        let is_rewritten = |state: &State| state.object().is_some_and(|it| self.truth.is_rewritten(it));
        self.ground.kind == Kind::Smb && self.truth.states(path).iter().any(is_rewritten)
    }

    /// Judges an error in words: it is no answer where the path has been the same all along.
    pub(crate) fn judge_words(&self, path: &str, error: &str) -> Judged {
        if self.is_touched(path) {
            return Judged::Allowed;
        }
        Judged::Wrong(format!("{error}, though it has been {}", self.in_words(path)))
    }

    /// Judges the BLAKE3 of what a file holds.
    pub(crate) fn judge_hash(&self, path: &str, hash: &str) -> Result<(), Wrong> {
        let is = |state: &State| match state {
            State::File(_, version) | State::Writing(_, version) => {
                blake3::hash(&version.bytes).to_hex().as_str() == hash
            }
            State::Absent | State::Directory(_) => false,
        };
        if self.truth.states(path).iter().any(is) {
            return Ok(());
        }
        Err(format!(
            "the hash {hash} is of nothing that it has been: {}",
            self.in_words(path)
        ))
    }

    /// Everything has been seen as it is now.
    pub(crate) fn seen_all(&mut self) {
        self.truth.seen_all();
        self.seen = self.truth.clock();
        self.was_ill = self.ill.is_some();
    }

    /// Says how often a path, or one on the way to it, was touched since everything was last seen.
    pub(crate) fn touches(&self, path: &str) -> u32 {
        way_to(path).map(|it| self.truth.touches(it)).sum()
    }

    /// Says what the mount may show of a path.
    pub(crate) fn in_words(&self, path: &str) -> String {
        let states: Vec<_> = self.truth.states(path).iter().map(State::in_words).collect();
        states.join(", then ")
    }

    /// Judges the bytes that were read of a name at once, from its beginning to its end.
    pub(crate) fn judge_bytes(&self, path: &str, bytes: &[u8]) -> Result<(), Wrong> {
        let range = 0..usize::MAX;
        let states = self.truth.states(path);
        let is_right = states.iter().any(|state| match (self.ground.kind, state) {
            // A file of this machine is opened on the disk: it is read as it is now.
            (Kind::Local, State::File(object, _)) => self.truth.held(*object).bytes == bytes,
            (Kind::Local, _) => false,
            (_, state) => state.reads(&range, bytes),
        });
        if is_right {
            return Ok(());
        }
        Err(format!(
            "it reads {}, and has been {}",
            describe(bytes),
            self.in_words(path)
        ))
    }

    /// Judges what a directory lists.
    pub(crate) fn judge_names(&self, directory: &str, names: &[String]) -> Result<(), Wrong> {
        let children = self.truth.children(directory);
        let strange = names.iter().find(|name| !children.contains_key(*name));
        if let Some(strange) = strange {
            return Err(format!("it lists {strange:?}, which was never there"));
        }
        let mut sorted = names.to_vec();
        sorted.sort();
        sorted.dedup();
        if sorted.len() != names.len() {
            return Err(format!("it lists a name twice: {names:?}"));
        }
        let is_sure = |states: &[State]| states.iter().all(State::is_there);
        let missing = children
            .iter()
            .find(|(name, states)| is_sure(states) && !names.contains(name));
        // What is in one directory tells nothing of another that took its place.
        let same = way_to(directory).all(|it| !self.truth.is_touched(it));
        match missing {
            Some((name, _)) if same => Err(format!(
                "it does not list {name:?}, which the source has held all along"
            )),
            _ => Ok(()),
        }
    }

    /// Judges kind and size.
    pub(crate) fn judge_attributes(&self, path: &str, is_directory: bool, size: usize) -> Result<(), Wrong> {
        let states = self.truth.states(path);
        let is_right = |state: &State| {
            if is_directory {
                state.is_directory()
            } else {
                state.has_size(size)
            }
        };
        if states.iter().any(is_right) {
            return Ok(());
        }
        let kind = if is_directory { "a directory" } else { "a file" };
        Err(format!(
            "{kind} of {size} bytes, though it has been {}",
            self.in_words(path)
        ))
    }

    /// Gives the versions that a handle of a path may be bound to.
    pub(crate) fn candidates(&self, path: &str) -> Vec<State> {
        self.truth.states(path).into_iter().filter(State::is_file).collect()
    }

    /// Judges a piece of a file of this machine that was read through the page cache: each page is of one of the versions that
    /// were there since the mount was last known to have noticed.
    pub(crate) fn judge_pages(&self, object: Object, range: &Range<usize>, bytes: &[u8]) -> bool {
        const PAGE: usize = 4096;
        let versions = self.truth.held_lately(object);
        let mut at = range.start;
        let end = range.start + bytes.len();
        while at < end {
            let next = ((at / PAGE + 1) * PAGE).min(end);
            let page = &bytes[at - range.start..next - range.start];
            if !versions
                .iter()
                .any(|version| version.range(&(at..next)).starts_with(page))
            {
                return false;
            }
            at = next;
        }
        let ends = |version: &Arc<Version>| end == range.end || version.bytes.len().max(range.start) == end;
        versions.iter().any(ends)
    }
}

/// Gives the directories on the way to a path, and the path.
fn way_to(path: &str) -> impl Iterator<Item = &str> {
    let above = std::iter::successors(Some(path), |path| split(path).map(|(directory, _)| directory));
    above.collect::<Vec<_>>().into_iter().rev()
}
