//! Reading a log that may be torn, damaged, gone, or another's.

use std::io;
use std::path::{Path, PathBuf};

use super::path_beside;
use super::record::{self, Whole};

/// What a write-ahead log was found to lack, though it was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLoss {
    /// There is no file.
    #[error("the write-ahead log is missing")]
    Missing,
    /// The file belongs to another catalog or another time, or is damaged from its beginning.
    #[error("the write-ahead log is not the one that belongs to the catalog, or its beginning is damaged")]
    Foreign,
    /// Records in its middle cannot be read.
    #[error("the write-ahead log is damaged: its last {lost} records cannot be used")]
    Damaged {
        /// How many records were lost, from the first that is broken to the last that is whole.
        lost: u64,
    },
}

/// What is in a log.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The steps of the records that follow the durable commit, in their order.
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) loss: Option<LogLoss>,
}

/// Reads the records that follow a durable commit. `begins_with` is the generation of which the database knows that the file
/// begins with it; `None` where nothing is needed of the file.
pub(crate) fn read(catalog: &Path, generation: u64, begins_with: Option<u64>) -> io::Result<Found> {
    let bytes = match std::fs::read(path_beside(catalog)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found {
                loss: begins_with.map(|_| LogLoss::Missing),
                ..Found::default()
            });
        }
        Err(error) => return Err(error),
    };
    Ok(find(&bytes, generation, begins_with))
}

fn find(bytes: &[u8], generation: u64, begins_with: Option<u64>) -> Found {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some(Whole {
        sequence,
        steps,
        behind,
        ..
    }) = record::split_first(rest, generation)
        && sequence == records.len() as u64
    {
        records.push(steps.to_vec());
        rest = behind;
    }
    let next = records.len() as u64;
    let loss = match last_promised(rest, generation, next) {
        Some(last) => Some(LogLoss::Damaged { lost: last - next + 1 }),
        // A header lies in one sector, which a disk writes whole: it is the old one or the new one.
        None => begins_with.and_then(|known| {
            let begins = record::generation_of(bytes);
            (begins != Some(known) && begins != Some(generation)).then_some(LogLoss::Foreign)
        }),
    };
    Found { records, loss }
}

/// Gives the number of the last record that is whole, if one that is not, from `next` on, was on the disk before.
fn last_promised(mut bytes: &[u8], generation: u64, next: u64) -> Option<u64> {
    let mut last = None;
    let mut was_promised = false;
    while let Some(at) = bytes.windows(record::MAGIC.len()).position(|it| it == record::MAGIC) {
        bytes = &bytes[at..];
        match record::split_first(bytes, generation).filter(|whole| whole.sequence > next) {
            Some(whole) => {
                was_promised |= whole.after_sync;
                last = Some(whole.sequence);
                bytes = whole.behind;
            }
            None => bytes = &bytes[1..],
        }
    }
    last.filter(|_| was_promised)
}

/// Notes that a log is not as it should be, in a file that says so until somebody takes it away, and keeps the log for whoever looks
/// into it, since the next one takes its place. An error means that the note could not be written.
pub(crate) fn note_loss(catalog: &Path, loss: LogLoss) -> io::Result<()> {
    let log = path_beside(catalog);
    let aside = beside(&log, "-damaged");
    match std::fs::rename(&log, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %log.display(), %error, "the damaged write-ahead log could not be moved aside");
        }
        _ => {}
    }
    std::fs::write(beside(&log, "-lost"), format!("{loss}\n"))
}

/// Reads the note; `None` where there is none.
pub(crate) fn noted_loss(catalog: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(beside(&path_beside(catalog), "-lost")) {
        Ok(note) => Ok(Some(note.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(log: &Path, end: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::record::Header;
    use super::*;

    const OWN: u64 = 7;

    fn log(of: &[(u64, u64, bool)]) -> Vec<u8> {
        let records = of.iter().map(|(generation, sequence, after_sync)| {
            let steps = vec![*sequence as u8; 30];
            let header = Header::of(*generation, *sequence, *after_sync, &steps);
            [header.encode().as_slice(), &steps].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    fn broken(mut log: Vec<u8>, record: usize) -> Vec<u8> {
        log[record * 70 + 50] ^= 1;
        log
    }

    #[test]
    fn only_what_was_on_the_disk_before_a_later_record_is_missed() {
        let synced = log(&[(OWN, 0, true), (OWN, 1, true), (OWN, 2, true), (6, 3, true)]);
        let found = find(&synced, OWN, Some(OWN));
        assert_eq!((found.records.len(), found.loss), (3, None));
        let found = find(&broken(synced.clone(), 1), OWN, Some(OWN));
        assert_eq!(
            (found.records.len(), found.loss),
            (1, Some(LogLoss::Damaged { lost: 2 }))
        );
        let found = find(&broken(synced.clone(), 2), OWN, Some(OWN));
        assert_eq!((found.records.len(), found.loss), (2, None), "a torn end");
        // The power went before the second and third were brought to the disk, which has the third alone.
        let written = log(&[(OWN, 0, true), (OWN, 1, true), (OWN, 2, false)]);
        let found = find(&broken(written, 1), OWN, Some(OWN));
        assert_eq!((found.records.len(), found.loss), (1, None));
    }

    #[test]
    fn a_log_of_neither_time_is_told() {
        let former = log(&[(6, 0, true)]);
        assert_eq!(find(&former, OWN, Some(6)).loss, None);
        assert_eq!(find(&former, OWN, Some(5)).loss, Some(LogLoss::Foreign));
        assert_eq!(find(&former, OWN, None).loss, None, "nothing is needed of it");
        assert_eq!(find(&[0; 200], OWN, Some(6)).loss, Some(LogLoss::Foreign));
        assert_eq!(find(&[], OWN, Some(6)).loss, Some(LogLoss::Foreign));
        // The first record of the new time was being written.
        assert_eq!(find(&broken(log(&[(OWN, 0, true)]), 0), OWN, Some(6)).loss, None);
    }
}
