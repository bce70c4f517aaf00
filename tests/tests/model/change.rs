//! What others do to a source, past the mount: each change is made where the source lies, and in its truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bytes::Version;
use crate::ground::{Ground, Kind};
use crate::operation::{Pick, Way};
use crate::source::Source;
use crate::truth::{Path, State, Truth, is_beneath, join, split};

/// The names of files. Few, so that they meet.
const FILES: &[&str] = &["a", "b", "c", "d", "e f", "ü"];
/// The names of directories.
const DIRECTORIES: &[&str] = &["p", "q", "r"];
/// A file that keeps a directory there that is only there while something is in it.
const ANCHOR: &str = "anchor";
/// What becomes the new version of a file by being renamed over it.
const UPLOAD: &str = ".upload";

/// Gives marks and sizes that were not there yet.
#[derive(Default)]
pub(crate) struct Novelty {
    marks: u32,
    /// Sizes that no other version may have; `None` where sizes may repeat.
    pub(crate) sizes: Option<BTreeSet<usize>>,
}

impl Novelty {
    fn mark(&mut self) -> u32 {
        self.marks += 1;
        self.marks
    }

    fn size(&mut self, mut size: usize) -> usize {
        if let Some(sizes) = &mut self.sizes {
            while !sizes.insert(size) {
                size += 1;
            }
        }
        size
    }
}

impl<'a> Source<'a> {
    /// A source with a few files in it.
    pub(crate) fn begin(name: &'static str, ground: &'a Ground, novelty: &mut Novelty) -> Self {
        ground.clear();
        let mut source = Self {
            name,
            ground,
            truth: Truth::new(),
            ill: None,
            was_ill: false,
            seen: 0,
            inodes: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        for directory in ["p", "q", "p/q"] {
            source.truth.make_directory(directory);
            if ground.kind.has_directories() {
                ground.make_directory(directory);
            } else {
                source.create(&join(directory, ANCHOR), 10, novelty);
            }
        }
        for (path, size) in [("a", 100), ("p/a", 9_000), ("p/q/b", 200_000), ("q/c", 5_000)] {
            source.create(path, size, novelty);
        }
        source
    }

    /// Tells whether it can be changed: what has been taken away cannot.
    pub(crate) fn is_here(&self) -> bool {
        self.ill.is_none() || self.ground.kind != Kind::Local
    }

    /// Gives the files that may be renamed and removed.
    fn loose_files(&self) -> Vec<Path> {
        let mut files = self.truth.files();
        files.retain(|path| split(path).is_some_and(|(_, name)| name != ANCHOR));
        files
    }

    /// Chooses a place for a file, where no directory stands.
    pub(crate) fn place(&self, directory: Pick, name: Pick) -> Option<Path> {
        let directories = self.truth.directories();
        let path = join(directory.of(&directories)?, name.of(FILES)?);
        (!self.truth.at(&path).is_directory()).then_some(path)
    }

    /// Chooses a place for a directory, where nothing stands.
    fn free_place(&self, directory: Pick, name: Pick) -> Option<Path> {
        let directories = self.truth.directories();
        let path = join(directory.of(&directories)?, name.of(DIRECTORIES)?);
        (self.ground.kind.has_directories() && !self.truth.at(&path).is_there()).then_some(path)
    }

    /// Writes a file; one that is there is written anew in place.
    pub(crate) fn create(&mut self, path: &str, size: usize, novelty: &mut Novelty) {
        let version = Version::new(novelty.mark(), novelty.size(size));
        self.put(path, version);
    }

    /// Writes that version.
    pub(crate) fn put(&mut self, path: &str, version: Arc<Version>) {
        self.ground.write(path, &version.bytes);
        if self.truth.at(path).is_file() {
            self.truth.rewrite(path, version);
        } else {
            self.truth.create(path, version);
        }
    }

    /// Gives a file another version.
    pub(crate) fn replace(&mut self, file: Pick, way: Way, size: usize, novelty: &mut Novelty) {
        let files = self.truth.files();
        let Some(path) = file.of(&files) else { return };
        let State::File(object, _) = self.truth.at(path) else {
            return;
        };
        let held = Arc::clone(self.truth.held(object));
        match way {
            Way::InPlaceSameSize => self.create(path, held.bytes.len(), novelty),
            Way::ByRename if self.ground.kind.has_directories() => {
                let upload = join(split(path).map_or("", |(directory, _)| directory), UPLOAD);
                self.create(&upload, size, novelty);
                self.rename(&upload, path);
            }
            Way::ByRename | Way::InPlace => self.create(path, size, novelty),
            Way::Append => {
                let size = novelty.size(held.bytes.len() + 1 + size % 10_000);
                let longer = Version::continuing(novelty.mark(), &held.bytes, size);
                self.ground.resize(path, &longer.bytes, held.bytes.len());
                self.truth.rewrite(path, longer);
            }
            Way::Truncate => {
                let mut size = size % (held.bytes.len() + 1);
                if let Some(sizes) = &mut novelty.sizes {
                    while !sizes.insert(size) && size < held.bytes.len() {
                        size += 1;
                    }
                }
                if size < held.bytes.len() {
                    let shorter = Version::continuing(held.mark, &held.bytes, size);
                    self.ground.resize(path, &shorter.bytes, size);
                    self.truth.rewrite(path, shorter);
                }
            }
        }
    }

    /// Renames a file, also over another one.
    pub(crate) fn rename_file(&mut self, file: Pick, directory: Pick, name: Pick) {
        let files = self.loose_files();
        if let (Some(from), Some(to)) = (file.of(&files), self.place(directory, name))
            && *from != to
        {
            self.rename(from, &to);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let State::File(object, _) = self.truth.at(from) else {
            self.ground.rename(from, to, None);
            return self.truth.rename(from, to);
        };
        let held = Arc::clone(self.truth.held(object));
        self.ground.rename(from, to, Some(&held.bytes));
        // An object that is copied and removed is known again by what it holds.
        self.truth.rename(from, to);
    }

    /// Removes a file.
    pub(crate) fn remove_file(&mut self, file: Pick) {
        let files = self.loose_files();
        if let Some(path) = file.of(&files) {
            self.ground.remove(path);
            self.truth.remove(path);
        }
    }

    /// Makes a directory.
    pub(crate) fn make_directory(&mut self, directory: Pick, name: Pick) {
        if let Some(path) = self.free_place(directory, name) {
            self.ground.make_directory(&path);
            self.truth.make_directory(&path);
        }
    }

    /// Renames a directory.
    pub(crate) fn move_directory(&mut self, which: Pick, directory: Pick, name: Pick) {
        let directories = self.truth.directories();
        if let (Some(from), Some(to)) = (which.of(&directories[1..]), self.free_place(directory, name))
            && !is_beneath(&to, from)
        {
            self.rename(from, &to);
        }
    }

    /// Removes a directory with all that is in it.
    pub(crate) fn remove_directory(&mut self, which: Pick) {
        let directories = self.truth.directories();
        if let Some(path) = which.of(&directories[1..])
            && self.ground.kind.has_directories()
        {
            self.ground.remove_directory(path);
            self.truth.remove(path);
        }
    }
}
