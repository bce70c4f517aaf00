//! A power cut at any moment: of what was not synced, any part may be missing; what was acknowledged may not.
//!
//! The disk of these tests keeps, for each data file, the bytes as they were when it was last synced, and the folder's names
//! as they were when it was. A cut leaves these, with some of the bytes written since, and the rows that were committed. It
//! may also fall between the steps of a sync.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use manifold_catalog::EntryId;

use super::*;

/// The unit in which bytes that were not synced are there or not.
const PAGE: usize = 8;

#[derive(Default)]
struct Disk {
    data: HashMap<u64, Vec<u8>>,
    names: HashSet<u64>,
    /// Each with the bytes beside it.
    rows: HashMap<EntryId, (Vec<u8>, Option<Vec<u8>>)>,
    /// After how many more steps the power goes.
    left: u32,
}

struct PowerCut(Mutex<Disk>, TempDir);

impl PowerCut {
    /// Takes one step, unless there is no power any more.
    fn step(&self, take: impl FnOnce(&mut Disk)) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.left = disk
            .left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("there is no power"))?;
        take(&mut disk);
        Ok(())
    }
}

impl Durability for PowerCut {
    fn data(&self, number: u64, file: &File) -> io::Result<()> {
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        self.step(|disk| drop(disk.data.insert(number, bytes)))
    }

    fn folder(&self, _folder: &File) -> io::Result<()> {
        let names = std::fs::read_dir(self.1.path())?.filter_map(|item| {
            let name = item.ok()?.file_name();
            super::super::number_of(name.to_str()?)
        });
        let names = names.map(|(number, _)| number).collect();
        self.step(|disk| disk.names = names)
    }

    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        let row = (row.encode(), bytes.map(<[u8]>::to_vec));
        let committed = self.step(|disk| drop(disk.rows.insert(id, row)));
        committed.map_err(|error| super::super::file::failed(&error))
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        let disk = self.0.lock();
        Ok(disk.rows.get(&id).and_then(|(_, bytes)| bytes.clone()))
    }

    fn rows(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// What a file may be after the cut: some state, and for each byte what was written over it later.
#[derive(Clone, Default)]
struct Allowed {
    bytes: Vec<u8>,
    later: Vec<(usize, Vec<u8>)>,
}

impl Allowed {
    fn covers(&self, found: &[u8]) -> bool {
        let is_later = |at: usize, byte: u8| {
            let mut writes = self.later.iter();
            writes.any(|(start, bytes)| at >= *start && bytes.get(at - start) == Some(&byte))
        };
        found.len() == self.bytes.len()
            && (0..found.len()).all(|at| found[at] == self.bytes[at] || is_later(at, found[at]))
    }
}

proptest! {
    #[test]
    fn what_was_synced_is_there_after_it_and_nothing_is_there_that_was_not_written(
        steps in steps(),
        base in proptest::option::of(0..LEN),
        power in 0..20_u32,
        kept in proptest::collection::vec(any::<bool>(), (LEN as usize + 64) / PAGE),
        dropped_whole in any::<bool>(),
        small in prop_oneof![Just(0), Just(SMALL), Just(LIMIT)],
        in_use in any::<bool>(),
    ) {
        let folder = TempDir::new().unwrap();
        let disk = Arc::new(PowerCut(Mutex::new(Disk { left: power, ..Disk::default() }), folder));
        let durability = Arc::clone(&disk) as Arc<dyn Durability>;
        let (staging, _) = Staging::open(disk.1.path(), limits(small), durability, &[], false).unwrap();
        let file = stage(&staging, base);
        let _in_use = in_use.then(|| file.use_it().unwrap());
        let mut model = base_bytes(base.unwrap_or(0));
        let (mut acknowledged, mut in_between) = (None::<Allowed>, None::<Allowed>);
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Write(at, bytes) => {
                    if change(&staging, &file, |file| file.write(Place::At(at), &bytes, 1)).is_err() {
                        break;
                    }
                    write_to(&mut model, at as usize, &bytes);
                    if let Some(it) = &mut acknowledged {
                        it.later.push((at as usize, bytes.clone()));
                    }
                }
                Step::Append(bytes) => {
                    if change(&staging, &file, |file| file.write(Place::End, &bytes, 1)).is_err() {
                        break;
                    }
                    if let Some(it) = &mut acknowledged {
                        it.later.push((model.len(), bytes.clone()));
                    }
                    model.extend_from_slice(&bytes);
                }
                Step::Truncate(size) => {
                    if change(&staging, &file, |file| file.truncate(size, 1)).is_err() {
                        break;
                    }
                    model.resize(size as usize, 0);
                }
                Step::Send => sent.extend(send(&file)),
                Step::Sync | Step::OpenAgain => {
                    let now = Allowed { bytes: model.clone(), later: Vec::new() };
                    if staging.sync(&file).is_ok() {
                        acknowledged = Some(now);
                    } else {
                        in_between = Some(now);
                        break;
                    }
                }
            }
        }
        // What the next start finds.
        let after = TempDir::new().unwrap();
        let rows = disk.0.lock().rows.clone();
        let names = disk.0.lock().names.clone();
        for number in names {
            let name = format!("{number:016x}.data");
            let mut bytes = disk.0.lock().data.get(&number).cloned().unwrap_or_default();
            if !dropped_whole {
                let now = std::fs::read(disk.1.path().join(&name)).unwrap();
                for (page, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                    let range = page * PAGE..now.len().min((page + 1) * PAGE);
                    if range.start < range.end {
                        write_to(&mut bytes, range.start, &now[range]);
                    }
                }
            }
            std::fs::write(after.path().join(name), bytes).unwrap();
        }
        let found = Arc::<Rows>::default();
        for (id, (row, bytes)) in rows {
            found.journal.lock().insert(id, row);
            found.beside.lock().extend(bytes.map(|bytes| (id, bytes)));
        }
        let (staging, _) = open_with(&after, &found, small);
        let Some(file) = staging.get(ID) else {
            prop_assert!(acknowledged.is_none(), "what was acknowledged is gone");
            return Ok(());
        };
        prop_assert_eq!(file.is_broken(), None);
        let found = contents(&file);
        let allowed = [acknowledged, in_between];
        let is_allowed = allowed.iter().flatten().any(|it| it.covers(&found));
        prop_assert!(is_allowed, "found {:?}, allowed {:?}", found, allowed.map(|it| it.map(|it| it.bytes)));
        // And what has arrived unseen is not taken for another's.
        prop_assert!(sent.iter().all(|sent| is_recognised(&file, sent)));
    }
}
