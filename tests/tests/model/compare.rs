//! The whole of what the mount shows against the truth: names, sizes, times, bytes, and the numbers of inodes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::source::{Source, Wrong};
use crate::truth::{Object, Path, State, is_beneath, join};
use crate::world::World;

/// What the mount shows of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    inode: u64,
    is_directory: bool,
    size: usize,
    modified_ns: i128,
}

impl Shown {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            is_directory: metadata.is_dir(),
            size: metadata.len() as usize,
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

impl World<'_> {
    /// Looks at all beneath a directory, which has just been scanned: it is as the source holds it.
    pub(crate) fn compare(&self, index: usize, directory: &str) -> BTreeMap<Path, Shown> {
        let source = &self.sources[index];
        let mut shown = BTreeMap::new();
        let mut waiting = vec![directory.to_owned()];
        while let Some(path) = waiting.pop() {
            let entries = fs::read_dir(self.at(index, &path));
            let entries =
                entries.unwrap_or_else(|error| panic!("after a scan, list {path:?} of {}: {error}", source.name));
            for entry in entries {
                let name = entry.expect("list a directory").file_name();
                let path = join(&path, name.to_str().expect("a name of the model is UTF-8"));
                let metadata = fs::symlink_metadata(self.at(index, &path));
                let metadata = metadata
                    .unwrap_or_else(|error| panic!("after a scan, look at {path:?} of {}: {error}", source.name));
                if metadata.is_dir() {
                    waiting.push(path.clone());
                }
                shown.insert(path, Shown::of(&metadata));
            }
        }
        if let Err(wrong) = source.judge_all(directory, &shown) {
            panic!("after a scan of {directory:?}, {} is shown wrong: {wrong}", source.name);
        }
        for (path, it) in &shown {
            if !it.is_directory {
                self.read_whole(index, path);
            }
        }
        shown
    }

    /// Takes note of the numbers of all entries, and judges them by those that were there before.
    pub(crate) fn take_numbers(&mut self, index: usize, shown: BTreeMap<Path, Shown>) {
        let source = &mut self.sources[index];
        if let Err(wrong) = source.judge_numbers(&shown) {
            panic!("{}: {wrong}", source.name);
        }
        source.inodes.clear();
        for (path, it) in shown {
            let object = source.truth.at(&path).object().expect("it is shown as it is");
            source.owners.insert(it.inode, object);
            source.inodes.insert(path, (it.inode, object));
        }
    }

    /// Judges the numbers of what nobody touched, whatever else has happened.
    pub(crate) fn same_numbers(&self, index: usize) {
        let source = &self.sources[index];
        for (path, (inode, _)) in &source.inodes {
            if source.touches(path) > 0 || source.may_mistake(path) {
                continue;
            }
            let metadata = fs::symlink_metadata(self.at(index, path));
            let metadata =
                metadata.unwrap_or_else(|error| panic!("{path:?} of {}, which nobody touched: {error}", source.name));
            assert_eq!(metadata.ino(), *inode, "{path:?} of {} has another number", source.name);
        }
    }
}

impl Source<'_> {
    fn judge_all(&self, directory: &str, shown: &BTreeMap<Path, Shown>) -> Result<(), Wrong> {
        let mut truth = self.truth.beneath(directory);
        truth.retain(|path| path != directory);
        let names: Vec<_> = shown.keys().cloned().collect();
        if names != truth {
            return Err(format!("the mount has {names:?}, the source {truth:?}"));
        }
        for (path, it) in shown {
            self.judge_attributes(path, it.is_directory, it.size)
                .map_err(|wrong| format!("{path:?}: {wrong}"))?;
            let tells = !it.is_directory || self.ground.kind == crate::ground::Kind::Local;
            if let (Some(step), true) = (self.ground.kind.time_step_ns(), tells) {
                let truth = self.ground.modified_ns(path);
                if it.modified_ns.div_euclid(step) != truth.div_euclid(step) {
                    return Err(format!("{path:?} is of {}, not of {truth}", it.modified_ns));
                }
            }
        }
        Ok(())
    }

    fn judge_numbers(&self, shown: &BTreeMap<Path, Shown>) -> Result<(), Wrong> {
        let mut all = BTreeMap::new();
        for (path, it) in shown {
            if let Some(other) = all.insert(it.inode, path) {
                return Err(format!("{path:?} and {other:?} have one number, {}", it.inode));
            }
            let object = self.truth.at(path).object().expect("it is shown as it is");
            self.judge_owner(path, it.inode, object)?;
            if let Some((before, of)) = self.inodes.get(path)
                && self.touches(path) == 0
                && !self.may_mistake(path)
                && *of == object
                && *before != it.inode
            {
                return Err(format!(
                    "{path:?}, which nobody touched, was {before} and is {}",
                    it.inode
                ));
            }
        }
        // While a source cannot be asked, nobody can tell a rename from a copy.
        if self.ground.kind.tells_inodes() && !self.was_ill {
            for it in self.truth.clean_moves() {
                self.judge_move(&it.from, &it.to, shown)?;
            }
        }
        Ok(())
    }

    /// A number is for good: it passes from one file to another only by a name that both have had, or in a bucket by their
    /// bytes, which is all that tells a rename there.
    fn judge_owner(&self, path: &str, inode: u64, object: Object) -> Result<(), Wrong> {
        match self.owners.get(&inode) {
            Some(owner) if !self.ground.kind.has_directories() && self.truth.held_alike(*owner, object) => Ok(()),
            Some(owner) if *owner != object && !self.truth.shared_a_path(*owner, object) => Err(format!(
                "{path:?} has the number {inode}, which was that of another that never had a name in common with it"
            )),
            _ => Ok(()),
        }
    }

    /// What was renamed, and nothing else, keeps its number, and so does all beneath it.
    fn judge_move(&self, from: &str, to: &str, shown: &BTreeMap<Path, Shown>) -> Result<(), Wrong> {
        if self.inodes.keys().any(|path| is_beneath(path, to)) {
            return Ok(());
        }
        for (old, (before, object)) in self.inodes.iter().filter(|(path, _)| is_beneath(path, from)) {
            let new = format!("{to}{}", &old[from.len()..]);
            let moved = matches!(self.truth.at(&new), State::File(now, _) | State::Directory(now) if now == *object);
            if let (true, Some(now)) = (moved, shown.get(&new))
                && !self.may_mistake(&new)
                && now.inode != *before
            {
                return Err(format!(
                    "{old:?} was {before}, and is {} since it was renamed to {new:?}",
                    now.inode
                ));
            }
        }
        Ok(())
    }
}
