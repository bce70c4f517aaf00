//! What was not synced: pages as they were, and names in the order in which they changed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::chance::Chance;

/// What is lost or not as a whole, in bytes.
const PAGE: u64 = 4096;

/// A plain folder, and what of it was not synced.
pub(super) struct Disk {
    root: PathBuf,
    graves: PathBuf,
    buried: u64,
    files: HashMap<u64, Unsynced>,
    names: Vec<Name>,
}

/// A file as it was when it was last synced, as far as it has changed since.
struct Unsynced {
    size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

/// A change of names. Paths are beneath the root.
enum Name {
    Made(PathBuf),
    /// What had the name lies in a grave.
    Removed(PathBuf, PathBuf),
    RemovedDirectory(PathBuf),
    Moved {
        from: PathBuf,
        to: PathBuf,
        over: Option<PathBuf>,
    },
}

impl Name {
    fn is_in(&self, directory: &Path) -> bool {
        let stands_in = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Made(path) | Self::Removed(path, _) | Self::RemovedDirectory(path) => stands_in(path),
            Self::Moved { from, to, .. } => stands_in(from) || stands_in(to),
        }
    }
}

impl Disk {
    pub(super) fn new(folder: &Path) -> Self {
        let (root, graves) = (folder.join("root"), folder.join("graves"));
        for folder in [&root, &graves] {
            fs::create_dir(folder).expect("make a folder");
        }
        Self {
            root,
            graves,
            buried: 0,
            files: HashMap::new(),
            names: Vec::new(),
        }
    }

    /// Gives the place of a path in the plain folder.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.keep(file, offset..offset + bytes.len() as u64)?;
        file.write_all_at(bytes, offset)
    }

    pub(super) fn set_len(&mut self, file: &File, size: u64) -> io::Result<()> {
        let now = file.metadata()?.len();
        self.keep(file, size.min(now)..now)?;
        file.set_len(size)
    }

    /// Keeps pages as they are, where they are not kept already.
    fn keep(&mut self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        let about = file.metadata()?;
        let unsynced = self.files.entry(about.ino()).or_insert_with(|| Unsynced {
            size: about.len(),
            pages: BTreeMap::new(),
        });
        for index in range.start / PAGE..range.end.div_ceil(PAGE) {
            if unsynced.pages.contains_key(&index) {
                continue;
            }
            let (start, end) = (index * PAGE, ((index + 1) * PAGE).min(about.len()));
            let mut page = vec![0; end.saturating_sub(start) as usize];
            file.read_exact_at(&mut page, start)?;
            unsynced.pages.insert(index, page);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, file: &File) -> io::Result<()> {
        self.files.remove(&file.metadata()?.ino());
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, directory: &Path) {
        self.names.retain(|name| !name.is_in(directory));
    }

    pub(super) fn sync_all(&mut self) {
        self.files.clear();
        self.names.clear();
    }

    pub(super) fn made(&mut self, path: &Path) {
        self.names.push(Name::Made(path.to_owned()));
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let grave = self.bury(path)?;
        self.names.push(Name::Removed(path.to_owned(), grave));
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir(self.real(path))?;
        self.names.push(Name::RemovedDirectory(path.to_owned()));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let over = match self.real(to).symlink_metadata() {
            Ok(about) if about.is_dir() => None,
            Ok(_) => Some(self.bury(to)?),
            Err(_) => None,
        };
        fs::rename(self.real(from), self.real(to))?;
        let (from, to) = (from.to_owned(), to.to_owned());
        self.names.push(Name::Moved { from, to, over });
        Ok(())
    }

    fn bury(&mut self, path: &Path) -> io::Result<PathBuf> {
        self.buried += 1;
        let grave = self.graves.join(self.buried.to_string());
        fs::rename(self.real(path), &grave)?;
        Ok(grave)
    }

    /// Loses by chance what was not synced. Gives the number of pages and of names that are as they were.
    pub(super) fn cut(&mut self, chance: &mut Chance) -> (usize, usize) {
        let kept = chance.below(self.names.len() + 1);
        let lost_names = self.names.split_off(kept);
        for name in lost_names.iter().rev() {
            self.undo(name)
                .unwrap_or_else(|error| panic!("a name is not to be had back: {error}"));
        }
        self.names.clear();
        let mut by_number = HashMap::new();
        number_all(&self.root, &mut by_number);
        let files: BTreeMap<_, _> = std::mem::take(&mut self.files).into_iter().collect();
        let mut lost_pages = 0;
        for (number, unsynced) in files {
            if let Some(path) = by_number.get(&number) {
                lost_pages += lose(path, &unsynced, chance)
                    .unwrap_or_else(|error| panic!("{} is not to be had back: {error}", path.display()));
            }
        }
        (lost_pages, lost_names.len())
    }

    fn undo(&self, name: &Name) -> io::Result<()> {
        match name {
            Name::Made(path) => {
                let path = self.real(path);
                if path.symlink_metadata()?.is_dir() {
                    fs::remove_dir(path)
                } else {
                    fs::remove_file(path)
                }
            }
            Name::Removed(path, grave) => fs::rename(grave, self.real(path)),
            Name::RemovedDirectory(path) => fs::create_dir(self.real(path)),
            Name::Moved { from, to, over } => {
                fs::rename(self.real(to), self.real(from))?;
                over.as_ref().map_or(Ok(()), |over| fs::rename(over, self.real(to)))
            }
        }
    }
}

/// Has by chance some pages of a file, or all, as they were, and its length.
fn lose(path: &Path, unsynced: &Unsynced, chance: &mut Chance) -> io::Result<usize> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let all = chance.below(2) == 0;
    let size = if all || chance.below(2) == 0 {
        unsynced.size
    } else {
        file.metadata()?.len()
    };
    file.set_len(size)?;
    let mut lost = 0;
    for (index, page) in &unsynced.pages {
        let (start, end) = (index * PAGE, ((index + 1) * PAGE).min(size));
        if start < end && (all || chance.below(2) == 0) {
            let mut page = page.clone();
            page.resize((end - start) as usize, 0);
            file.write_all_at(&page, start)?;
            lost += 1;
        }
    }
    Ok(lost)
}

/// Finds all files by the numbers that the disk beneath gives them.
fn number_all(folder: &Path, by_number: &mut HashMap<u64, PathBuf>) {
    for item in fs::read_dir(folder).expect("list a folder") {
        let item = item.expect("an entry");
        let about = item.metadata().expect("its attributes");
        if about.is_dir() {
            number_all(&item.path(), by_number);
        } else if about.is_file() {
            by_number.insert(about.ino(), item.path());
        }
    }
}
