//! What each file may hold: what was acknowledged last, and what was under way since.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What files held, as hashes: with what they got from one another these are many.
pub(crate) type History = HashSet<blake3::Hash>;

/// A change of a file that was begun.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Its bytes are these, from the first to the last.
    Save(Vec<u8>),
    /// It has the bytes of another file, whole; or, where the source has made half of the rename, what that was before.
    Replace(Vec<u8>, History),
    /// These bytes stand in it at an offset.
    Write(usize, Vec<u8>),
    /// It has this length.
    Cut(usize),
    /// It is not there.
    Remove,
}

impl Change {
    /// Gives what a file holds after the change.
    fn after(&self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        match self {
            Self::Save(bytes) | Self::Replace(bytes, _) => Some(bytes.clone()),
            Self::Write(at, bytes) => {
                let mut file = before.unwrap_or_default().to_vec();
                file.resize(file.len().max(at + bytes.len()), 0);
                file[*at..at + bytes.len()].copy_from_slice(bytes);
                Some(file)
            }
            Self::Cut(size) => {
                let mut file = before.unwrap_or_default().to_vec();
                file.resize(*size, 0);
                Some(file)
            }
            Self::Remove => None,
        }
    }

    /// Tells whether a file may be so after the change was broken off: there may be bytes of it, with zeroes where nothing was
    /// written yet.
    fn may_leave(&self, before: Option<&[u8]>, found: Option<&[u8]>) -> bool {
        let after = self.after(before);
        match (self, found) {
            (Self::Save(bytes), Some(found)) => {
                found.len() <= bytes.len() && found.iter().zip(bytes).all(|(found, new)| found == new || *found == 0)
            }
            (Self::Write(..), Some(found)) => {
                let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
                let is_one_of = |at: usize| {
                    let byte = found[at];
                    before.get(at).map_or(byte == 0, |old| *old == byte) || after.get(at) == Some(&byte)
                };
                (before.len()..=after.len()).contains(&found.len()) && (0..found.len()).all(is_one_of)
            }
            (Self::Replace(_, former), Some(found)) => {
                after.as_deref() == Some(found) || former.contains(&blake3::hash(found))
            }
            _ => after.as_deref() == found,
        }
    }
}

#[derive(Debug, Default)]
struct File {
    /// `None`: it is not there.
    acknowledged: Option<Vec<u8>>,
    /// What it held before that, under this name or another.
    former: History,
    /// What was begun since, and not acknowledged.
    under_way: Vec<Change>,
    /// Whether the daemon died while something was renamed to this name, which the source may have done: then what is saved
    /// there later may stand beside that (`docs/semantics.md`).
    is_in_conflict: bool,
}

/// A rename from one source to another that was begun: the catalog makes all of it or nothing.
#[derive(Debug)]
struct Crossing {
    from: String,
    to: String,
    bytes: Vec<u8>,
}

/// All files, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    files: Mutex<BTreeMap<String, File>>,
    crossings: Mutex<Vec<Crossing>>,
    acknowledged: AtomicU64,
}

impl Manifest {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().expect("no panic")
    }

    /// Takes note that a change is begun.
    pub(crate) fn begin(&self, path: &str, change: Change) {
        self.files().entry(path.to_owned()).or_default().under_way.push(change);
    }

    /// Takes note that the change that was begun last was acknowledged.
    pub(crate) fn acknowledge(&self, path: &str) {
        let mut files = self.files();
        let file = files.entry(path.to_owned()).or_default();
        let last = file.under_way.pop().expect("it was begun");
        let now = last.after(file.acknowledged.as_deref());
        let before = std::mem::replace(&mut file.acknowledged, now);
        file.former.extend(before.as_deref().map(blake3::hash));
        if let Change::Replace(_, former) = last {
            // The source may have the file as it was under its other name.
            file.former.extend(former);
        }
        file.under_way.clear();
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note that the change that was begun last was refused.
    pub(crate) fn withdraw(&self, path: &str) {
        let mut files = self.files();
        let withdrawn = files.get_mut(path).and_then(|file| file.under_way.pop());
        assert!(withdrawn.is_some(), "it was begun");
    }

    /// Takes note that a file is renamed from one source to another.
    pub(crate) fn begin_crossing(&self, from: &str, to: &str, bytes: &[u8]) {
        self.crossings.lock().expect("no panic").push(Crossing {
            from: from.to_owned(),
            to: to.to_owned(),
            bytes: bytes.to_vec(),
        });
    }

    /// Takes note that the rename was acknowledged, or refused.
    pub(crate) fn end_crossing(&self, from: &str) {
        self.crossings.lock().expect("no panic").retain(|it| it.from != from);
    }

    /// Makes sure that each file whose rename to another source a crash has broken off is in one of its two places, whole, and
    /// has it there from now on.
    pub(crate) fn settle_crossings(&self, folder: &Path) {
        for Crossing { from, to, bytes } in self.crossings.lock().expect("no panic").drain(..) {
            let holds = |path: &str| std::fs::read(folder.join(path)).is_ok_and(|found| found == bytes);
            let (stayed, crossed) = (holds(&from), holds(&to));
            assert!(
                stayed != crossed,
                "{from}, on its way to {to} in a crash, is in the one place: {stayed}, in the other: {crossed}"
            );
            println!(
                "{from}, on its way to {to} in a crash, is at {}",
                if crossed { &to } else { &from }
            );
            if crossed {
                self.acknowledge(&from);
                self.acknowledge(&to);
            } else {
                self.withdraw(&from);
                self.withdraw(&to);
            }
        }
    }

    /// Counts the changes that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Gives what a file holds; `None` where that is in doubt, or it is not there.
    pub(crate) fn certain(&self, path: &str) -> Option<Vec<u8>> {
        let files = self.files();
        let file = files
            .get(path)
            .filter(|file| file.under_way.is_empty() && !file.is_in_conflict)?;
        file.acknowledged.clone()
    }

    /// Tells whether what is saved in a file may stand beside it as in a conflict.
    pub(crate) fn may_be_in_conflict(&self, path: &str) -> bool {
        self.files().get(path).is_some_and(|file| file.is_in_conflict)
    }

    /// Gives what a file holds, and what it held before, under other names too.
    pub(crate) fn history(&self, path: &str) -> History {
        let files = self.files();
        files.get(path).map_or_else(History::new, |file| {
            let now = file.acknowledged.as_deref().map(blake3::hash);
            file.former.iter().copied().chain(now).collect()
        })
    }

    /// Removes what is in doubt: a removal that was under way may have left something that can be neither read nor uploaded.
    pub(crate) fn remove_doubts(&self, folder: &Path) {
        for (path, file) in self.files().iter_mut().filter(|(_, file)| !file.under_way.is_empty()) {
            match std::fs::remove_file(folder.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("remove {path}: {error}"),
                _ => {}
            }
            file.under_way.clear();
            file.acknowledged = None;
        }
    }

    /// Takes note that the daemon has died.
    pub(crate) fn end_life(&self) {
        let crossings = self.crossings.lock().expect("no panic");
        for (path, file) in self.files().iter_mut() {
            if crossings.iter().any(|crossing| crossing.to == *path) {
                continue;
            }
            file.is_in_conflict |= file
                .under_way
                .iter()
                .any(|change| matches!(change, Change::Replace(..)));
        }
    }

    /// Compares with what stands in a folder, and says what must not be so. `after_crash`: its folders were not listed since.
    pub(crate) fn differences(&self, folder: &Path, after_crash: bool) -> Vec<String> {
        let (mut found, mut differences) = (Found::new(), Vec::new());
        read_all(folder, "", &mut found, &mut differences);
        for (path, file) in self.files().iter() {
            let mut versions = vec![found.remove(path)];
            if file.is_in_conflict {
                let beside = format!("{path} (conflict ");
                let names: Vec<_> = found.keys().filter(|name| name.starts_with(&beside)).cloned().collect();
                versions.extend(names.into_iter().map(|name| found.remove(&name)));
            }
            let before = file.acknowledged.as_deref();
            // What is gone at the source, or another there, may be shown until its folder is listed again.
            let may_be_unreadable = file.under_way.iter().any(|change| match change {
                Change::Remove => true,
                Change::Replace(..) => after_crash,
                _ => false,
            });
            let is_allowed = |version: &Option<io::Result<Vec<u8>>>| {
                let version = match version {
                    Some(Ok(bytes)) => Some(bytes.as_slice()),
                    // It is gone since it was listed.
                    Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
                    Some(Err(_)) => return may_be_unreadable,
                    None => None,
                };
                before == version || file.under_way.iter().any(|change| change.may_leave(before, version))
            };
            if !versions.iter().any(is_allowed) {
                let versions = versions.iter().map(|version| match version {
                    Some(Ok(bytes)) => told(Some(bytes)),
                    Some(Err(error)) => error.to_string(),
                    None => told(None),
                });
                differences.push(format!(
                    "{path}: {}; acknowledged: {}; under way: {:?}",
                    versions.collect::<Vec<_>>().join(", "),
                    told(before),
                    file.under_way.iter().map(short).collect::<Vec<_>>()
                ));
            }
        }
        differences.extend(found.into_keys().map(|path| format!("{path}: nobody made it")));
        differences
    }
}

type Found = BTreeMap<String, io::Result<Vec<u8>>>;

/// Reads all files beneath a folder, by their paths.
fn read_all(folder: &Path, prefix: &str, found: &mut Found, differences: &mut Vec<String>) {
    let items = match std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(items) => items,
        Err(error) => return differences.push(format!("{prefix} is not listed: {error}")),
    };
    for item in items {
        let name = format!("{prefix}{}", item.file_name().into_string().expect("UTF-8"));
        match item.file_type() {
            Ok(kind) if kind.is_dir() => read_all(&item.path(), &format!("{name}/"), found, differences),
            Ok(_) => drop(found.insert(name, std::fs::read(item.path()))),
            Err(error) => differences.push(format!("{name}: {error}")),
        }
    }
}

fn told(bytes: Option<&[u8]>) -> String {
    bytes.map_or("nothing".to_owned(), |bytes| {
        let hash = blake3::hash(bytes).to_hex();
        format!("{} bytes {}", bytes.len(), &hash[..8])
    })
}

fn short(change: &Change) -> String {
    match change {
        Change::Save(bytes) => format!("save {}", told(Some(bytes))),
        Change::Replace(bytes, _) => format!("replace by {}", told(Some(bytes))),
        Change::Write(at, bytes) => format!("write {} bytes at {at}", bytes.len()),
        Change::Cut(size) => format!("cut to {size}"),
        Change::Remove => "remove".to_owned(),
    }
}
