//! Opening a file that may be anything, without ever writing to one that is not ours.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableError};

use super::{LogLoss, Snapshot, wal};
use crate::check;
use crate::edit;
use crate::error::{Error, OpenError};
use crate::format::{FORMAT, META, META_FORMAT, META_GENERATION, META_ID_LIMIT, META_LOG, OLDEST_FORMAT};
use crate::reserve::Reserve;
use crate::storage::HeldFile;

/// A database that was opened and found good. Its file is still held.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) held: HeldFile,
    /// The format that was found, which may be an older one: [`bring_up_to_date`] comes before a snapshot.
    pub(crate) format: u64,
    /// Whether the storage had to be repaired, which reads all of it.
    pub(crate) repaired: bool,
}

/// A database that may be used, as of its last durable change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    /// What its last durable commit is called, if it has a name.
    pub(super) generation: Option<u64>,
    /// Ids from here on were never given away.
    pub(super) id_limit: u64,
    /// What its log lacks.
    pub(crate) loss: Option<LogLoss>,
}

/// Whether what is written to a file that was opened gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It stays in memory.
    Held,
    /// It gets there.
    Released,
}

/// How much is looked at before a file is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Nothing is known of it: every page is checked against its checksum.
    Nothing,
    /// This process had it open a moment ago.
    Pages,
}

/// Makes an empty catalog where there is no file. It appears under its name only when it is whole.
pub(crate) fn create_if_missing(file: &Path) -> Result<(), OpenError> {
    static DRAFTS: AtomicU32 = AtomicU32::new(0);

    if file.symlink_metadata().is_ok() {
        return Ok(());
    }
    let fail = |cause| OpenError::Io {
        file: file.to_owned(),
        cause,
    };
    let mut name = file
        .file_name()
        .ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?
        .to_owned();
    // Nobody else writes to this name: others that create the same catalog have a draft of their own.
    name.push(format!(
        ".{}-{}.new",
        std::process::id(),
        DRAFTS.fetch_add(1, Ordering::Relaxed)
    ));
    let draft = file.with_file_name(name);
    let placed = write_empty(&draft)
        .map_err(|error| refuse(file, error))
        .and_then(|()| place(&draft, file).map_err(fail));
    match fs::remove_file(&draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => placed.and(Err(fail(cause))),
        _ => placed,
    }
}

fn write_empty(draft: &Path) -> Result<(), Error> {
    match fs::remove_file(draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause.into()),
        _ => {}
    }
    let database = Builder::new()
        .create(draft)
        .map_err(redb::Error::from)
        .map_err(Error::of_storage)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    edit::initialise(&transaction)?;
    transaction.commit()?;
    drop(database);
    File::open(draft)?.sync_all()?;
    Ok(())
}

/// Gives the draft its name, unless somebody else was faster.
fn place(draft: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(draft, file) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // A file system without hard links: the moment between look and rename is the price.
        Err(_) if file.symlink_metadata().is_err() => fs::rename(draft, file)?,
        Err(cause) => return Err(cause),
    }
    sync_folder(file)
}

#[cfg(unix)]
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_file: &Path) -> io::Result<()> {
    Ok(())
}

/// Opens a file of which nothing is known. It stays held.
///
/// What is written to a full disk once it is released takes what the reserve has.
pub(crate) fn open(file: &Path, cache_bytes: usize, reserve: Option<&Arc<Reserve>>) -> Result<Opened, OpenError> {
    examine(file, cache_bytes, Trust::Nothing, reserve)
}

/// Has a file kept that was opened, and does again what its log tells.
pub(super) fn begin(file: &Path, opened: Opened) -> Result<(Database, Caught), Error> {
    opened.held.release()?;
    let caught = bring_up_to_date(file, &opened.database)?;
    Ok((opened.database, caught))
}

/// Opens a file again that this process had open until its storage failed, and does again what its log tells.
pub(super) fn reopen(
    file: &Path,
    cache_bytes: usize,
    hold: Hold,
    reserve: &Arc<Reserve>,
) -> Result<(Database, Caught), Error> {
    let opened = examine(file, cache_bytes, Trust::Pages, Some(reserve)).map_err(|error| match error {
        OpenError::Io { cause, .. } => cause.into(),
        other => Error::damaged(other.to_string()),
    })?;
    if hold == Hold::Released {
        return begin(file, opened);
    }
    let caught = bring_up_to_date(file, &opened.database)?;
    Ok((opened.database, caught))
}

fn examine(file: &Path, cache_bytes: usize, trust: Trust, reserve: Option<&Arc<Reserve>>) -> Result<Opened, OpenError> {
    let damaged = |why: &str| OpenError::Damaged {
        file: file.to_owned(),
        why: why.into(),
    };
    let handle = File::options().read(true).write(true).open(file);
    let handle = handle.map_err(|cause| OpenError::Io {
        file: file.to_owned(),
        cause,
    })?;
    // redb expects to be handed its own files only, and asserts what it expects. None of that can do harm while the
    // file is held.
    let outer = EXAMINING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| {
        examine_held(file, handle, cache_bytes, trust, reserve)
    }));
    EXAMINING.set(outer);
    result.unwrap_or_else(|_| Err(damaged("its structure makes no sense")))
}

thread_local! {
    static EXAMINING: Cell<bool> = const { Cell::new(false) };
}

/// Tells whether this thread is looking at a file that may be anything, so that a panic is a finding, which becomes
/// [`OpenError::Damaged`]. For a program's panic hook, which has nothing to say of it.
pub fn examines_file() -> bool {
    EXAMINING.get()
}

fn examine_held(
    file: &Path,
    handle: File,
    cache_bytes: usize,
    trust: Trust,
    reserve: Option<&Arc<Reserve>>,
) -> Result<Opened, OpenError> {
    let fail = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { file: file.to_owned() },
        DatabaseError::Storage(StorageError::Io(cause)) if !is_nonsense(&cause) => OpenError::Io {
            file: file.to_owned(),
            cause,
        },
        other => OpenError::Damaged {
            file: file.to_owned(),
            why: other.to_string(),
        },
    };
    let length = handle
        .metadata()
        .map_err(|cause| OpenError::Io {
            file: file.to_owned(),
            cause,
        })?
        .len();
    if length == 0 {
        return Err(OpenError::Damaged {
            file: file.to_owned(),
            why: "it is empty".into(),
        });
    }
    let held = HeldFile::new(handle, reserve).map_err(fail)?;
    let repaired = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&repaired);
    let mut database = Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback(move |_| flag.store(true, Ordering::Relaxed))
        .create_with_backend(held.clone())
        .map_err(fail)?;
    let repaired = repaired.load(Ordering::Relaxed);
    let found = format_of(&database).map_err(|error| refuse(file, error))?;
    if found > FORMAT {
        return Err(OpenError::NewerVersion {
            file: file.to_owned(),
            found,
            known: FORMAT,
        });
    }
    if found < OLDEST_FORMAT {
        return Err(OpenError::Damaged {
            file: file.to_owned(),
            why: format!("there is no format {found}"),
        });
    }
    let whole = trust == Trust::Pages || database.check_integrity().map_err(fail)?;
    if !whole {
        // It was mended from what is left; only a look at every row tells whether that is a catalog.
        let examined = upgrade(&database)
            .and_then(|()| Snapshot::take(&database))
            .and_then(|snapshot| check::examine(&snapshot));
        examined.map_err(|error| refuse(file, error))?;
    }
    Ok(Opened {
        database,
        held,
        format: found,
        repaired: repaired || !whole,
    })
}

/// Does again what the write-ahead log holds, and brings a file of an older format up to date, in a transaction each; where
/// there is nothing to do, the file is left alone. The log comes first: its rows are of the format that the file has.
///
/// Where the file is to be kept it is released first: only then does redb see to the order in which pages are written.
pub(crate) fn bring_up_to_date(file: &Path, database: &Database) -> Result<Caught, Error> {
    let mut generation = number(database, META_GENERATION)?;
    let mut loss = None;
    if let Some(known) = generation {
        let found = wal::read(file, known, number(database, META_LOG)?)?;
        loss = found.loss;
        if !found.records.is_empty() {
            generation = Some(redo(database, &found.records)?);
            tracing::info!(
                file = %file.display(),
                records = found.records.len(),
                "what the write-ahead log held was done again"
            );
        }
    }
    upgrade(database)?;
    let id_limit = number(database, META_ID_LIMIT)?.ok_or_else(|| Error::damaged("no limit of ids"))?;
    Ok(Caught {
        generation,
        id_limit,
        loss,
    })
}

fn upgrade(database: &Database) -> Result<(), Error> {
    let found = format_of(database)?;
    if found >= FORMAT {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    edit::upgrade(&transaction, found)?;
    transaction.commit()?;
    tracing::info!(from = found, to = FORMAT, "the catalog was brought to a newer format");
    Ok(())
}

/// Does again what the records tell, and gives the name of the commit.
fn redo(database: &Database, records: &[Vec<u8>]) -> Result<u64, Error> {
    let generation = wal::new_generation();
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    edit::redo(&transaction, records, generation)?;
    transaction.commit()?;
    Ok(generation)
}

fn format_of(database: &Database) -> Result<u64, Error> {
    number(database, META_FORMAT)?.ok_or_else(|| Error::damaged("it names no format"))
}

fn number(database: &Database, name: &str) -> Result<Option<u64>, Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => {
            return Err(Error::damaged("it is not a catalog"));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(meta.get(name)?.map(|number| number.value()))
}

/// Reading past the end and bytes without sense are the file's fault, not the disk's.
fn is_nonsense(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

/// Says of a file that it cannot be used.
pub(crate) fn refuse(file: &Path, error: Error) -> OpenError {
    let file = file.to_owned();
    match error {
        Error::Damaged(why) => OpenError::Damaged { file, why },
        Error::Full => OpenError::Io {
            file,
            cause: io::ErrorKind::StorageFull.into(),
        },
        Error::Storage(cause) => match *cause {
            redb::Error::Io(cause) if !is_nonsense(&cause) => OpenError::Io { file, cause },
            redb::Error::DatabaseAlreadyOpen => OpenError::Locked { file },
            other => OpenError::Damaged {
                file,
                why: other.to_string(),
            },
        },
        other => OpenError::Damaged {
            file,
            why: other.to_string(),
        },
    }
}
