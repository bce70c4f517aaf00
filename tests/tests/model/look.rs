//! Those who look at the library while all that happens: through the mount, by name and by open handles, and through the control
//! socket.

use std::fs;

use crate::control;
use crate::handle::Held;
use crate::operation::{Pick, Site};
use crate::source::{Judged, Question};
use crate::truth::{State, join};
use crate::world::{World, index};

/// The most handles that are kept open.
const HANDLES_MAX: usize = 8;
/// How many of them are read after each step.
const GLANCES: usize = 2;

impl World<'_> {
    pub(crate) fn open(&mut self, site: Site, file: Pick) {
        let index = index(site);
        let paths = self.sources[index].truth.paths();
        let Some(path) = file.of(&paths) else { return };
        let (at, source) = (self.at(index, path), &self.sources[index]);
        let mut opened = None;
        self.ask(index, &format!("opening {path:?}"), || {
            if source.truth.states(path).iter().any(State::is_directory) {
                return Err(Judged::Allowed);
            }
            let open = Held::open(source, at.clone(), path, self.passthrough);
            opened = Some(open.map_err(|error| source.judge(path, Question::Bytes, error))?);
            Ok(())
        });
        if let Some(held) = opened {
            self.held.push((index, held));
        }
        if self.held.len() > HANDLES_MAX {
            self.held.remove(0);
        }
    }

    pub(crate) fn read_handle(&mut self, handle: Pick, at: Pick, length: Pick) {
        let all: Vec<usize> = (0..self.held.len()).collect();
        if let Some(number) = handle.of(&all).copied() {
            let size = self.held[number].1.size_max();
            let start = at.up_to(size);
            self.read_piece(number, start, start + 1 + length.up_to(size.min(300_000)));
        }
    }

    pub(crate) fn read_piece(&mut self, number: usize, start: usize, end: usize) {
        let (index, mut held) = self.held.remove(number);
        let what = format!("reading the open {:?}", held.path);
        self.ask(index, &what, || {
            held.judge_size(&self.sources[index]).map_err(Judged::Wrong)?;
            held.read(&self.sources[index], &(start..end))
        });
        self.held.push((index, held));
    }

    /// Reads a little through some of the open handles.
    pub(crate) fn glance(&mut self) {
        for _ in 0..GLANCES.min(self.held.len()) {
            let number = self.chance.below(self.held.len());
            let start = self.chance.below(self.held[number].1.size_max() + 1);
            self.read_piece(number, start, start + 5_000);
        }
    }

    pub(crate) fn read_file(&mut self, site: Site, file: Pick) {
        let paths = self.source(site).truth.paths();
        if let Some(path) = file.of(&paths) {
            self.read_whole(index(site), path);
        }
    }

    /// Reads a file by its name, from its beginning to its end.
    pub(crate) fn read_whole(&self, index: usize, path: &str) {
        let (at, source) = (self.at(index, path), &self.sources[index]);
        self.ask(index, &format!("reading {path:?}"), || match fs::read(&at) {
            Ok(bytes) => source.judge_bytes(path, &bytes).map_err(Judged::Wrong),
            Err(error) => Err(source.judge(path, Question::Bytes, error)),
        });
    }

    pub(crate) fn list(&mut self, site: Site, directory: Pick) {
        let (index, directories) = (index(site), self.source(site).truth.directories());
        let Some(directory) = directory.of(&directories) else {
            return;
        };
        let (at, source) = (self.at(index, directory), &self.sources[index]);
        self.ask(index, &format!("listing {directory:?}"), || {
            let names = fs::read_dir(&at).and_then(|entries| {
                let name = |entry: std::io::Result<fs::DirEntry>| {
                    Ok(entry?.file_name().into_string().expect("a name of the model is UTF-8"))
                };
                entries.map(name).collect::<std::io::Result<Vec<_>>>()
            });
            let names = names.map_err(|error| source.judge(directory, Question::Names, error))?;
            source.judge_names(directory, &names).map_err(Judged::Wrong)
        });
    }

    pub(crate) fn stat(&self, index: usize, path: &str) {
        let (at, source) = (self.at(index, path), &self.sources[index]);
        self.ask(index, &format!("looking at {path:?}"), || {
            let metadata = fs::symlink_metadata(&at).map_err(|error| source.judge(path, Question::Names, error))?;
            let judged = source.judge_attributes(path, metadata.is_dir(), metadata.len() as usize);
            judged.map_err(Judged::Wrong)
        });
    }

    pub(crate) fn list_by_control(&mut self, site: Site, directory: Pick) {
        let (index, directories) = (index(site), self.source(site).truth.directories());
        let Some(directory) = directory.of(&directories) else {
            return;
        };
        let source = &self.sources[index];
        let what = format!("listing {directory:?} by the socket");
        self.ask(index, &what, || {
            let listed = control::list(&self.library, &format!("/{}", join(source.name, directory)));
            let entries = listed.map_err(|error| source.judge_words(directory, &error))?;
            let names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
            source.judge_names(directory, &names).map_err(Judged::Wrong)?;
            for entry in &entries {
                let judged = source.judge_attributes(&join(directory, &entry.name), entry.is_directory, entry.size);
                judged.map_err(Judged::Wrong)?;
            }
            Ok(())
        });
    }

    pub(crate) fn stat_by_control(&mut self, site: Site, path: Pick) {
        let (index, paths) = (index(site), self.source(site).truth.paths());
        let Some(path) = path.of(&paths) else { return };
        let source = &self.sources[index];
        self.ask(index, &format!("looking at {path:?} by the socket"), || {
            let looked = control::stat(&self.library, &format!("/{}", join(source.name, path)));
            let entry = looked.map_err(|error| source.judge_words(path, &error))?;
            let judged = source.judge_attributes(path, entry.is_directory, entry.size);
            judged.map_err(Judged::Wrong)
        });
    }

    /// Has a file hashed. That waits for a source that is ill as long as it takes, so that it is done of those that are well.
    pub(crate) fn hash(&mut self, site: Site, file: Pick) {
        let (index, files) = (index(site), self.source(site).truth.files());
        let Some(path) = file.of(&files) else { return };
        let source = &self.sources[index];
        if source.ill.is_some() {
            return;
        }
        self.ask(index, &format!("hashing {path:?}"), || {
            let hashed = control::hash(&self.library, &format!("/{}", join(source.name, path)));
            match hashed {
                Ok(hash) => source.judge_hash(path, &hash).map_err(Judged::Wrong),
                // It says in words what is wrong, which may be that the source was away a moment ago.
                Err(error) if source.is_touched(path) => Err(source.judge_words(path, &error)),
                Err(error) => Err(Judged::Away(std::io::Error::other(error))),
            }
        });
    }
}
