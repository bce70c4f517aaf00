//! What a life has left behind, line by line, each written at once so that a kill leaves whole ones:
//! `change` before the source is changed, `+ id kind identity path` for all that is promised from now on between `promise`
//! and `promised`, and `- path` for what the source does not hold any more, and which is therefore not promised.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use manifold_catalog::EntryId;

use crate::held::{Held, Same};

pub(super) struct Record {
    /// How many changes were made, or begun.
    pub(super) changes: u64,
    /// What the catalog must have.
    pub(super) promised: Held,
}

/// Keeps the record of the life that goes on.
pub(super) struct Recorder(File);

fn file(folder: &Path, life: u64) -> PathBuf {
    folder.join(format!("life {life}"))
}

fn line(path: &[u8], id: EntryId, same: Same) -> String {
    let identity = same
        .1
        .map_or("-".to_owned(), |identity| u128::from_le_bytes(identity).to_string());
    format!(
        "+ {id} {} {identity} {}\n",
        same.0,
        std::str::from_utf8(path).expect("the names are text")
    )
}

fn parse(line: &str) -> Option<(Vec<u8>, EntryId, Same)> {
    let mut words = line.splitn(4, ' ');
    let id = EntryId(words.next()?.parse().ok()?);
    let is_directory = words.next()?.parse().ok()?;
    let identity = words.next()?.parse().ok().map(u128::to_le_bytes);
    Some((words.next()?.into(), id, (is_directory, identity)))
}

impl Record {
    /// Begins the record of a life with what the catalog holds durably.
    pub(super) fn begin(folder: &Path, life: u64, held: &Held) {
        File::create(file(folder, life)).expect("the scratch folder is there");
        Recorder::open(folder, life).promise(held);
    }

    pub(super) fn read(folder: &Path, life: u64) -> Self {
        let text = std::fs::read_to_string(file(folder, life)).expect("the life was begun");
        let (mut record, mut coming) = (
            Self {
                changes: 0,
                promised: Held::default(),
            },
            Held::default(),
        );
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split_once(' ') {
                Some(("+", entry)) => {
                    let (path, id, same) = parse(entry).expect("it was written so");
                    coming.insert(path, id, same);
                }
                Some(("-", path)) => record.promised.forget(path.as_bytes()),
                _ if line == "promise" => coming = Held::default(),
                _ if line == "promised" => record.promised = std::mem::take(&mut coming),
                _ if line == "change" => record.changes += 1,
                _ => panic!("no life writes {line:?}"),
            }
        }
        record
    }
}

impl Recorder {
    pub(super) fn open(folder: &Path, life: u64) -> Self {
        let file = OpenOptions::new().append(true).open(file(folder, life));
        Self(file.expect("the life was begun"))
    }

    pub(super) fn change(&mut self) {
        self.write("change\n");
    }

    pub(super) fn promise(&mut self, held: &Held) {
        let lines: String = held.iter().map(|(path, id, same)| line(path, id, same)).collect();
        self.write(&format!("promise\n{lines}promised\n"));
    }

    pub(super) fn forget(&mut self, paths: &[Vec<u8>]) {
        let lines = paths
            .iter()
            .map(|path| format!("- {}\n", String::from_utf8_lossy(path)));
        self.write(&lines.collect::<String>());
    }

    fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("the scratch folder is there");
    }
}
