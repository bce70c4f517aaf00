//! Bytes that are brought to the disk before anybody asks for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// A disk that counts how often it is asked for, and fails when told to.
#[derive(Default)]
struct Disk {
    asked: AtomicU64,
    fails: AtomicBool,
    rows: Rows,
}

impl Durability for Disk {
    fn data(&self, _number: u64, _file: &File) -> io::Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // As a kernel does: a failure is told once.
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn folder(&self, _folder: &File) -> io::Result<()> {
        Ok(())
    }

    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error> {
        self.rows.row(id, row, bytes)
    }

    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error> {
        self.rows.bytes(id)
    }

    fn rows(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn staged() -> (TempDir, Arc<Disk>, Staging, Arc<StagedFile>) {
    let (folder, disk) = (TempDir::new().unwrap(), Arc::<Disk>::default());
    let durability = Arc::clone(&disk) as Arc<dyn Durability>;
    let (staging, _) = Staging::open(folder.path(), limits(0), durability, &[], false).unwrap();
    let file = stage(&staging, None);
    (folder, disk, staging, file)
}

/// Writes until the file asks to be brought to the disk; gives the number of bytes.
fn write_until_wanted(file: &StagedFile) -> u64 {
    let bytes = [7; LIMIT as usize];
    let mut written = 0;
    while !file.is_to_be_synced_ahead() {
        assert!(written < 1 << 30, "it is never wanted");
        file.write(Place::At(0), &bytes, 1).unwrap();
        written += LIMIT;
    }
    written
}

#[test]
fn a_long_file_is_brought_to_the_disk_step_by_step_and_acknowledges_nothing_by_that() {
    let (_folder, disk, staging, file) = staged();
    let step = write_until_wanted(&file);
    assert!(step > LIMIT, "a short file waits for whoever closes it");
    file.write(Place::At(0), b"more", 1).unwrap();
    assert!(!file.is_to_be_synced_ahead(), "it is wanted already");
    staging.sync_ahead(&file);
    assert_eq!(disk.asked.load(Ordering::Relaxed), 1);
    assert!(!file.is_recorded() && disk.rows.all().is_empty());
    assert_eq!(write_until_wanted(&file), step);
    staging.sync(&file).unwrap();
    assert_eq!(disk.asked.load(Ordering::Relaxed), 2);
    assert!(file.is_recorded());
}

#[test]
fn a_failure_that_nobody_waited_for_is_told_to_whoever_closes_the_file() {
    let (_folder, disk, staging, file) = staged();
    write_until_wanted(&file);
    disk.fails.store(true, Ordering::Relaxed);
    staging.sync_ahead(&file);
    let error = staging.sync(&file).expect_err("the bytes are lost");
    assert!(error.to_string().contains("the disk is broken"), "{error}");
    assert!(!file.is_recorded() && disk.rows.all().is_empty());
    assert!(matches!(
        file.write(Place::End, b"more", 1),
        Err(Refused::Failed(Error::Io(_)))
    ));
}
