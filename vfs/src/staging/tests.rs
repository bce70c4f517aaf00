//! The staging area against a plain vector of bytes: what is read, what survives its being opened again, and what a power cut
//! leaves of it.

mod ahead;
mod power_cut;
mod small;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use manifold_catalog::EntryId;
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::row::{Base, Row};
use super::{Durability, Limits, Place, Reading, Recovered, Refused, Sent, StagedFile, Staging, fresh_row};
use crate::Error;

const ID: EntryId = EntryId(7);
const LIMIT: u64 = 4_096;
const LEN: u64 = 256;

/// How far files go that have no data file, in those tests that have any.
const SMALL: u64 = 100;

/// Rows in memory, and what lies beside them; the bytes of data files are as durable as the file system makes them.
#[derive(Default)]
struct Rows {
    journal: Mutex<HashMap<EntryId, Vec<u8>>>,
    beside: Mutex<HashMap<EntryId, Vec<u8>>>,
    /// Whether the folder cannot be brought to the disk.
    folder_fails: AtomicBool,
}

impl Rows {
    fn all(&self) -> Vec<(EntryId, Vec<u8>)> {
        self.journal.lock().iter().map(|(id, row)| (*id, row.clone())).collect()
    }
}

impl Durability for Rows {
    fn data(&self, _number: u64, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn folder(&self, folder: &File) -> io::Result<()> {
        if self.folder_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("on purpose"));
        }
        folder.sync_all()
    }

    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        assert_eq!(row.beside, bytes.map(crc32c::crc32c));
        self.journal.lock().insert(id, row.encode());
        match bytes {
            Some(bytes) => drop(self.beside.lock().insert(id, bytes.to_vec())),
            None => drop(self.beside.lock().remove(&id)),
        }
        Ok(())
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.beside.lock().get(&id).cloned())
    }

    fn rows(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Where all files have data files.
fn open(folder: &TempDir, rows: &Arc<Rows>) -> (Staging, Recovered) {
    open_with(folder, rows, 0)
}

fn open_with(folder: &TempDir, rows: &Arc<Rows>, small: u64) -> (Staging, Recovered) {
    let durability = Arc::clone(rows) as Arc<dyn Durability>;
    Staging::open(folder.path(), limits(small), durability, &rows.all(), false).unwrap()
}

fn limits(small: u64) -> Limits {
    Limits { bytes: LIMIT, small }
}

/// The object that files are made from.
fn base_bytes(length: u64) -> Vec<u8> {
    (0..length).map(|at| 128 | at as u8).collect()
}

fn stage(staging: &Staging, base_size: Option<u64>) -> Arc<StagedFile> {
    let base = base_size.map(|size| Base {
        is_origin: false,
        version: (*b"v1").into(),
        size,
        shows: size,
    });
    let expected = base.as_ref().map(|base| base.version.clone());
    let row = |number| fresh_row(number, base_size.unwrap_or(0), 0, base, expected);
    staging.stage(ID, row, |_| Ok(())).unwrap()
}

/// Reads the whole file, as a reader who has the base at hand.
fn contents(file: &StagedFile) -> Vec<u8> {
    let mut bytes = vec![0xEE; file.look().size as usize + 3];
    let (length, rest) = file.read(0, &mut bytes).unwrap();
    bytes.truncate(length);
    assert_eq!(length as u64, file.look().size);
    if let Some(rest) = rest {
        let base = base_bytes(rest.base.size);
        for range in rest.ranges {
            let range = range.start as usize..range.end as usize;
            bytes[range.clone()].copy_from_slice(&base[range]);
        }
    }
    bytes
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Append(Vec<u8>),
    Truncate(u64),
    Sync,
    /// An upload sends the file, if all of it is synced, and nobody confirms it.
    Send,
    OpenAgain,
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1..128_u8, 1..40)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..LEN, some_bytes()).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        1 => some_bytes().prop_map(Step::Append),
        2 => (0..LEN).prop_map(Step::Truncate),
        2 => Just(Step::Sync),
        2 => Just(Step::Send),
        1 => Just(Step::OpenAgain),
    ];
    proptest::collection::vec(step, 1..25)
}

/// Does to a vector what a write does to a file.
fn write_to(model: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if model.len() < at + bytes.len() {
        model.resize(at + bytes.len(), 0);
    }
    model[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes a change. What uploads have sent is recorded first where that is asked for, and of a file that was there at the start
/// all is taken for sent, as where its source cannot be asked.
fn change(
    staging: &Staging,
    file: &StagedFile,
    mut change: impl FnMut(&StagedFile) -> Result<(), Refused>,
) -> Result<(), Error> {
    if file.is_to_be_asked() {
        send(file);
    }
    match change(file) {
        Err(Refused::Unrecorded) => {
            staging.record(file)?;
            change(file).unwrap();
        }
        changed => changed.unwrap(),
    }
    Ok(())
}

/// Sends the whole file to a source that does not answer, and gives what that has now.
fn send(file: &StagedFile) -> Option<Vec<u8>> {
    if file.has_unsynced_bytes() {
        return None;
    }
    let (sending, _, tally) = file.begin_sending().unwrap();
    let bytes = contents(file);
    for (number, part) in bytes.chunks(50).enumerate() {
        assert!(file.note_sending(sending, &tally, number as u64 * 50, &Bytes::copy_from_slice(part)));
    }
    file.end_sending(sending, false);
    Some(bytes)
}

/// Tells whether a file would be recognised at its source though it is another by now.
fn is_recognised(file: &StagedFile, sent: &[u8]) -> bool {
    let hash = *blake3::hash(sent).as_bytes();
    contents(file) == sent || file.unconfirmed().iter().any(|(_, it)| *it == hash)
}

proptest! {
    #[test]
    fn it_is_the_file_that_was_written_also_after_it_is_opened_again(
        steps in steps(),
        base in proptest::option::of(0..LEN),
        small in prop_oneof![Just(0), Just(SMALL), Just(LIMIT)],
    ) {
        let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
        let (mut staging, _) = open_with(&folder, &rows, small);
        let mut file = stage(&staging, base);
        let mut model = base_bytes(base.unwrap_or(0));
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Write(at, bytes) => {
                    change(&staging, &file, |file| file.write(Place::At(at), &bytes, 1)).unwrap();
                    write_to(&mut model, at as usize, &bytes);
                }
                Step::Append(bytes) => {
                    change(&staging, &file, |file| file.write(Place::End, &bytes, 1)).unwrap();
                    model.extend_from_slice(&bytes);
                }
                Step::Truncate(size) => {
                    change(&staging, &file, |file| file.truncate(size, 1)).unwrap();
                    model.resize(size as usize, 0);
                }
                Step::Sync => staging.sync(&file).unwrap(),
                Step::Send => sent.extend(send(&file)),
                Step::OpenAgain => {
                    staging.sync(&file).unwrap();
                    drop((file, staging));
                    staging = open_with(&folder, &rows, small).0;
                    file = staging.get(ID).unwrap();
                }
            }
            prop_assert_eq!(&contents(&file), &model);
            prop_assert_eq!(staging.usage().used, file.written());
            prop_assert!(sent.iter().all(|sent| is_recognised(&file, sent)));
        }
    }
}

#[test]
fn a_full_area_refuses_a_write_and_takes_it_when_there_is_room() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), &[1; LIMIT as usize], 1).unwrap();
    let refused = file.write(Place::End, &[2], 1);
    assert!(matches!(refused, Err(Refused::NoRoom(1))), "{refused:?}");
    file.write(Place::At(5), &[3; 100], 1).unwrap();
    file.truncate(LIMIT - 1, 1).unwrap();
    file.write(Place::End, &[2], 1).unwrap();
    assert_eq!(staging.usage().used, LIMIT);
}

#[test]
fn what_is_written_during_an_upload_is_not_taken_for_uploaded() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"first", 1).unwrap();
    staging.sync(&file).unwrap();
    let (sending, expected, _) = file.begin_sending().unwrap();
    assert_eq!((sending.size, expected), (5, None));
    let mut buffer = [0; 5];
    assert!(matches!(
        file.read_sending(sending, 0, &mut buffer),
        Ok(Reading::Read(None))
    ));
    assert_eq!(&buffer, b"first");
    file.truncate(3, 2).unwrap();
    file.write(Place::At(6), b"second", 2).unwrap();
    assert!(
        matches!(file.read_sending(sending, 0, &mut buffer), Ok(Reading::Changed)),
        "the upload has to notice"
    );
    let sent = staging.sent(&file, sending, b"v2", || unreachable!("not all of it is there"));
    assert_eq!(sent.unwrap(), Sent::More);
    let base = file.base().unwrap();
    assert_eq!((&*base.version, base.size, base.shows), (&b"v2"[..], 5, 3));
    assert_eq!(file.expected().as_deref(), Some(&b"v2"[..]));
    let row = Row::parse(&rows.all()[0].1).unwrap();
    assert_eq!(
        (row.expected, row.size),
        (None, 5),
        "the row tells of what was acknowledged"
    );
    staging.sync(&file).unwrap();
    let row = Row::parse(&rows.all()[0].1).unwrap();
    assert_eq!(row.expected.as_deref(), Some(&b"v2"[..]), "and the row says so");
}

#[test]
fn what_was_uploaded_is_let_go_and_written_to_no_more() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"all", 1).unwrap();
    staging.sync(&file).unwrap();
    let (sending, ..) = file.begin_sending().unwrap();
    let failed = staging.sent(&file, sending, b"v2", || Err(Error::Full));
    assert!(
        failed.is_err() && staging.get(ID).is_some(),
        "the row stays, and so does the file"
    );
    file.write(Place::At(0), b"ALL", 1).unwrap();
    let (sending, ..) = file.begin_sending().unwrap();
    let sent = staging.sent(&file, sending, b"v2", || {
        rows.journal.lock().clear();
        Ok(())
    });
    assert_eq!(sent.unwrap(), Sent::All);
    assert!(staging.get(ID).is_none());
    assert_eq!(contents(&file), b"ALL", "who had it open still reads it");
    assert!(matches!(file.write(Place::End, b"x", 1), Err(Refused::Retired)));
    staging.sweep().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(
        staging.usage(),
        super::StagingUsage {
            used: 0,
            limit: LIMIT,
            files: 0
        }
    );
}

#[test]
fn an_unlinked_file_lives_until_its_last_user_lets_go() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    let in_use = file.use_it().unwrap();
    drop(file);
    in_use.file().write(Place::At(0), b"alive", 1).unwrap();
    staging.forget(ID);
    assert!(staging.get(ID).is_none());
    in_use.file().write(Place::End, b" still", 1).unwrap();
    staging.sync(in_use.file()).unwrap();
    assert!(rows.all().is_empty(), "no row comes of it any more");
    assert_eq!(contents(in_use.file()), b"alive still");
    assert!(in_use.file().begin_sending().is_none());
    drop(in_use);
    staging.sweep().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(staging.usage().used, 0);
}

#[test]
fn a_row_that_cannot_be_read_keeps_all_data_and_says_why() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"precious", 1).unwrap();
    staging.sync(&file).unwrap();
    drop((file, staging));
    rows.journal.lock().get_mut(&ID).unwrap()[0] = 9;
    let (staging, recovered) = open(&folder, &rows);
    assert_eq!(recovered.staged, [ID]);
    let file = staging.get(ID).unwrap();
    let why = file.is_broken().unwrap();
    assert!(why.contains("format 9"), "{why}");
    assert!(file.read(0, &mut [0; 4]).is_err() && file.write(Place::At(0), b"x", 1).is_err());
    assert!(staging.sync(&file).is_err() && file.begin_sending().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn data_that_is_shorter_than_its_row_says_is_never_read() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"precious", 1).unwrap();
    staging.sync(&file).unwrap();
    drop((file, staging));
    let item = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    File::options()
        .write(true)
        .open(item.path())
        .unwrap()
        .set_len(4)
        .unwrap();
    let (staging, _) = open(&folder, &rows);
    assert!(staging.get(ID).unwrap().read(0, &mut [0; 4]).is_err());
}

#[test]
fn what_was_never_acknowledged_is_as_if_it_had_not_been_touched() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let row = |number| fresh_row(number, 5, 0, None, None);
    let file = staging.stage(ID, row, |draft| rows.row(ID, draft, None)).unwrap();
    file.truncate(0, 1).unwrap();
    drop((file, staging));
    let (staging, recovered) = open(&folder, &rows);
    assert_eq!((recovered.drafts, recovered.staged), (vec![(ID, false)], vec![]));
    assert!(staging.get(ID).is_none());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "its data is nobody's"
    );
}

#[test]
fn data_of_which_the_rows_may_be_lost_is_kept_aside() {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"precious", 1).unwrap();
    staging.sync(&file).unwrap();
    drop((file, staging));
    let nobody = Arc::new(Rows::default());
    let reopen = |rows_lost| {
        let durability = Arc::clone(&nobody) as Arc<dyn Durability>;
        drop(Staging::open(folder.path(), limits(0), durability, &nobody.all(), rows_lost).unwrap());
        let items = std::fs::read_dir(folder.path()).unwrap();
        items.map(|item| item.unwrap().path()).collect::<Vec<_>>()
    };
    for rows_lost in [true, true, false] {
        let [kept] = &reopen(rows_lost)[..] else {
            panic!("one file is kept");
        };
        assert_eq!(kept.extension().unwrap(), "lost");
        let (number, is_lost) = super::number_of(kept.file_name().unwrap().to_str().unwrap()).unwrap();
        assert!(number > 0 && is_lost, "its number is not given out again");
        assert_eq!(std::fs::read(kept).unwrap(), b"precious");
    }
}

#[test]
fn a_name_that_may_not_be_on_the_disk_is_not_taken_for_safe_later() {
    let folder = TempDir::new().unwrap();
    let rows = Arc::new(Rows::default());
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"precious", 1).unwrap();
    rows.folder_fails.store(true, Ordering::Relaxed);
    staging.sync(&file).unwrap_err();
    // A disk tells such a thing once.
    rows.folder_fails.store(false, Ordering::Relaxed);
    staging.sync(&file).unwrap_err();
    drop((file, staging));
    let (staging, _) = open(&folder, &rows);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"precious", 1).unwrap();
    staging.sync(&file).unwrap();
}

#[test]
fn the_folder_and_its_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let inner = folder.path().join("a/staging");
    let (staging, _) = Staging::open(&inner, limits(0), Arc::new(Rows::default()), &rows.all(), false).unwrap();
    drop(stage(&staging, None));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let item = std::fs::read_dir(&inner).unwrap().next().unwrap().unwrap();
    assert_eq!(mode(&item.path()), 0o600);
}
