//! The staging area: files of remote sources that were written to and are not uploaded yet.
//!
//! It owns a folder of sparse data files, one for each staged entry that is not short, and says what stands in the entries' journal rows; the
//! rows themselves are the catalog's. See `docs/staging-format.md`. Always true:
//! - a row is written after the bytes that it names are on the disk, or with them, and a data file is removed after its row is gone for good;
//! - one entry has at most one staged file;
//! - what cannot be made sense of is kept, and told.

mod extents;
mod file;
mod room;
pub mod row;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use manifold_catalog::EntryId;
use parking_lot::{Mutex, RwLock};

pub use self::extents::Extents;
use self::file::Area;
use self::file::Data;
pub(crate) use self::file::{InUse, Look, Place, Reading, Refused, Rest, Sending, Sent, StagedFile, Tally};
use self::room::Room;
use self::row::{Base, Renamed, Row, RowError};
use crate::Error;

/// How data is called that may have been known to a catalog that has lost changes: `<number>.lost`.
const LOST: &str = "lost";

/// What makes things survive a crash.
pub(crate) trait Durability: Send + Sync {
    /// Brings the bytes of a data file to the disk.
    fn data(&self, number: u64, file: &File) -> io::Result<()>;
    /// Brings the names of the folder's files to the disk.
    fn folder(&self, folder: &File) -> io::Result<()>;
    /// Makes a row durable, and with it the bytes that lie beside it, in the place of others.
    fn row(&self, id: EntryId, row: &Row, bytes: Option<&[u8]>) -> Result<(), Error>;
    /// Gives the bytes that lie beside a row.
    fn bytes(&self, id: EntryId) -> Result<Option<Vec<u8>>, Error>;
    /// Makes everything durable that was done to rows.
    fn rows(&self) -> Result<(), Error>;
    /// Makes sure that a row will find room for what is about to be written.
    fn room(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Has so many bytes freed on a disk that is full; false where there was nothing to free.
    fn make_way(&self, _bytes: u64) -> bool {
        false
    }
    /// Counts how often what was done to rows, and not durable yet, was lost.
    fn losses(&self) -> u64 {
        0
    }
}

/// All staged files.
pub(crate) struct Staging {
    area: Arc<Area>,
    folder_file: File,
    files: RwLock<HashMap<EntryId, Arc<StagedFile>>>,
    /// How many there are: reads of files that are not staged look here first.
    count: AtomicUsize,
    /// Files that their sources were asked to rename, and of which it may not be known yet what became of that.
    asked: Mutex<HashSet<EntryId>>,
    /// The losses that were known when data files were removed the last time.
    losses: AtomicU64,
}

/// How much may be staged, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes of all files.
    pub(crate) bytes: u64,
    /// How far the extents of a file may go whose bytes lie beside its row, in bytes; 0: they never do.
    pub(crate) small: u64,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// What is staged.
    pub(crate) staged: Vec<EntryId>,
    /// Rows of files of which nothing had been acknowledged, and whether the source has such a file.
    pub(crate) drafts: Vec<(EntryId, bool)>,
}

/// How much is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagingUsage {
    /// Bytes that were written and not uploaded.
    pub used: u64,
    /// The most that they may be.
    pub limit: u64,
    /// Number of files.
    pub files: u64,
}

impl Staging {
    /// Opens the folder, or makes it, and takes up what the rows tell of. Data that none tells of goes, unless `rows_lost`: some may have
    /// told of it.
    pub(crate) fn open(
        folder: &Path,
        limits: Limits,
        durability: Arc<dyn Durability>,
        rows: &[(EntryId, Vec<u8>)],
        rows_lost: bool,
    ) -> io::Result<(Self, Recovered)> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
            sync_folder(above)?;
        }
        let losses = AtomicU64::new(durability.losses());
        let staging = Self {
            area: Arc::new(Area {
                folder: folder.to_owned(),
                durability,
                room: Room::new(limits.bytes),
                small: limits.small,
                held: AtomicU64::new(0),
                next: AtomicU64::new(1),
                doomed: Mutex::default(),
                names_lost: Mutex::default(),
            }),
            folder_file: File::open(folder)?,
            files: RwLock::default(),
            count: AtomicUsize::new(0),
            asked: Mutex::default(),
            losses,
        };
        let recovered = staging.recover(rows, rows_lost)?;
        Ok((staging, recovered))
    }

    fn recover(&self, rows: &[(EntryId, Vec<u8>)], rows_lost: bool) -> io::Result<Recovered> {
        let (mut recovered, mut named, mut all_known) = (Recovered::default(), HashSet::new(), true);
        let mut highest = 0;
        for (id, bytes) in rows {
            let staged = match Row::parse(bytes) {
                Ok(row) if row.draft => {
                    recovered.drafts.push((*id, row.expected.is_some()));
                    continue;
                }
                Ok(row) => {
                    let size = row.size;
                    highest = highest.max(row.number);
                    if row.beside.is_none() {
                        named.insert(row.number);
                    }
                    if row.renamed.is_some() {
                        self.asked.lock().insert(*id);
                    }
                    StagedFile::recover(*id, &self.area, row)
                        .unwrap_or_else(|why| StagedFile::broken(*id, &self.area, size, why))
                }
                Err(error @ (RowError::Version(_) | RowError::Damaged)) => {
                    all_known = false;
                    let why = format!("the journal row of this staged file cannot be read: {error}");
                    StagedFile::broken(*id, &self.area, 0, why)
                }
            };
            if let Some(why) = staged.is_broken() {
                tracing::error!(id = id.0, why, "a staged file cannot be uploaded");
            }
            recovered.staged.push(*id);
            self.insert(staged);
        }
        for item in std::fs::read_dir(&self.area.folder)? {
            let name = item?.file_name();
            let Some((number, is_lost)) = name.to_str().and_then(number_of) else {
                continue;
            };
            highest = highest.max(number);
            if is_lost {
                continue;
            }
            // What a row that nobody can read tells of may be any of them.
            if !all_known || named.contains(&number) {
                continue;
            }
            let data = self.area.data_path(number);
            if rows_lost && std::fs::metadata(&data)?.len() > 0 {
                let kept = data.with_extension(LOST);
                std::fs::rename(&data, &kept)?;
                tracing::warn!(
                    path = %kept.display(),
                    "the catalog has lost changes, and may have known of these bytes: they are kept until somebody removes them"
                );
            } else {
                std::fs::remove_file(data)?;
            }
        }
        self.area.next.store(highest + 1, Ordering::Relaxed);
        Ok(recovered)
    }

    /// Gives the staged file of an entry.
    pub(crate) fn get(&self, id: EntryId) -> Option<Arc<StagedFile>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.files.read().get(&id).cloned()
    }

    /// Notes where the source of a file is about to be asked to rename it to. `put` changes its row accordingly.
    pub(crate) fn note_renamed(
        &self,
        file: &StagedFile,
        renamed: &Renamed,
        put: impl FnOnce(&dyn Fn(&mut Row)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        file.note_renamed(Some(renamed), put)?;
        self.asked.lock().insert(file.id);
        Ok(())
    }

    /// Gives the files of which it is not known whether their sources have renamed them, and where to.
    pub(crate) fn perhaps_renamed(&self) -> Vec<(EntryId, Renamed)> {
        let mut perhaps = Vec::new();
        self.asked.lock().retain(|id| {
            let renamed = self.get(*id).and_then(|file| file.renamed());
            let is_open = renamed.is_some();
            perhaps.extend(renamed.map(|renamed| (*id, renamed)));
            is_open
        });
        perhaps
    }

    /// Stages an entry: nothing of it is written yet. Gives the staged file that there is where somebody was faster. `draft`
    /// makes a row of it, while nobody else can find it.
    pub(crate) fn stage(
        &self,
        id: EntryId,
        row: impl FnOnce(u64) -> Row,
        draft: impl FnOnce(&Row) -> Result<(), Error>,
    ) -> Result<Arc<StagedFile>, Error> {
        let mut files = self.files.write();
        if let Some(there) = files.get(&id) {
            return Ok(Arc::clone(there));
        }
        self.make(&mut files, row, |row| draft(row).map(|()| id))
    }

    /// Stages a file that is new here: `entry` makes the entry with the row that it is given, while nobody else can find it.
    pub(crate) fn create(
        &self,
        row: impl FnOnce(u64) -> Row,
        entry: impl FnOnce(&Row) -> Result<EntryId, Error>,
    ) -> Result<Arc<StagedFile>, Error> {
        self.make(&mut self.files.write(), row, entry)
    }

    fn make(
        &self,
        files: &mut HashMap<EntryId, Arc<StagedFile>>,
        row: impl FnOnce(u64) -> Row,
        entry: impl FnOnce(&Row) -> Result<EntryId, Error>,
    ) -> Result<Arc<StagedFile>, Error> {
        let (number, data) = self.area.fresh()?;
        let row = row(number);
        let draft = Row {
            draft: true,
            ..row.clone()
        };
        let id = entry(&draft).inspect_err(|_| {
            if matches!(data, Data::File(_)) {
                self.area.doomed.lock().push(number);
            }
        })?;
        let staged = Arc::new(StagedFile::of(id, &self.area, row, data));
        if files.insert(id, Arc::clone(&staged)).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
        Ok(staged)
    }

    fn insert(&self, staged: Arc<StagedFile>) {
        if self.files.write().insert(staged.id, staged).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// Makes what was written to a file so far survive a crash. Blocks the thread.
    pub(crate) fn sync(&self, file: &StagedFile) -> Result<(), Error> {
        file.sync(&*self.area.durability, &self.folder_file)
    }

    /// As [`sync`](Self::sync), with a journal of the caller's own.
    pub(crate) fn sync_with(&self, file: &StagedFile, durability: &dyn Durability) -> Result<(), Error> {
        file.sync(durability, &self.folder_file)
    }

    /// Makes it last what uploads of a file have sent, so that they are recognised at the source after a crash too. Blocks the
    /// thread.
    pub(crate) fn record(&self, file: &StagedFile) -> Result<(), Error> {
        file.record(&*self.area.durability, &self.folder_file)
    }

    /// Brings what was written to a file so far to the disk. Blocks the thread.
    pub(crate) fn sync_ahead(&self, file: &StagedFile) {
        file.sync_ahead(&*self.area.durability);
    }

    /// Takes note that the source has what an upload began with; see [`StagedFile::sent`]. Blocks the thread.
    pub(crate) fn sent(
        &self,
        file: &Arc<StagedFile>,
        sending: Sending,
        version: &[u8],
        conclude: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Sent, Error> {
        file.sent(sending, version, &*self.area.durability, &self.folder_file, || {
            conclude()?;
            self.remove(file.id);
            Ok(())
        })
    }

    /// Drops an entry that was unlinked; its row is gone, or about to go. Those who have it open keep it.
    pub(crate) fn forget(&self, id: EntryId) {
        if let Some(file) = self.remove(id) {
            file.forget();
        }
    }

    fn remove(&self, id: EntryId) -> Option<Arc<StagedFile>> {
        let removed = self.files.write().remove(&id);
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Release);
        }
        removed
    }

    /// Removes the data of files whose rows are gone, after making sure of that. Blocks the thread.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let doomed = std::mem::take(&mut *self.area.doomed.lock());
        if doomed.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.area.durability.rows() {
            self.area.doomed.lock().extend(doomed);
            return Err(error);
        }
        let losses = self.area.durability.losses();
        if self.losses.swap(losses, Ordering::Relaxed) != losses {
            // Rows that were taken away may be back, and speak of these. The next start finds out.
            tracing::warn!(
                files = doomed.len(),
                "changes of the catalog were lost: the data of uploaded files stays until the next start"
            );
            return Ok(());
        }
        for number in doomed {
            if let Err(error) = std::fs::remove_file(self.area.data_path(number)) {
                tracing::warn!(number, %error, "the data of an uploaded file stays until the next start");
            }
        }
        Ok(())
    }

    /// Makes sure that the disk has room for what is to be kept of something new.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        self.area.durability.room()
    }

    /// Gives what makes things survive a crash.
    pub(crate) fn durability(&self) -> Arc<dyn Durability> {
        Arc::clone(&self.area.durability)
    }

    /// Waits until so many bytes may be written, but no longer than `patience`.
    pub(crate) async fn wait_for_room(&self, bytes: u64, patience: Duration) -> bool {
        self.area.room.wait(bytes, patience).await
    }

    /// Lists what is staged.
    pub(crate) fn all(&self) -> Vec<Arc<StagedFile>> {
        self.files.read().values().cloned().collect()
    }

    /// Counts the bytes that are in memory.
    #[cfg(test)]
    fn held(&self) -> u64 {
        self.area.held.load(Ordering::Relaxed)
    }

    pub(crate) fn usage(&self) -> StagingUsage {
        StagingUsage {
            used: self.area.room.used(),
            limit: self.area.room.limit(),
            files: self.count.load(Ordering::Relaxed) as u64,
        }
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging")
            .field("folder", &self.area.folder)
            .finish_non_exhaustive()
    }
}

/// Makes a row of a file of which nothing was written yet.
pub(crate) fn fresh_row(
    number: u64,
    size: u64,
    modified_ns: i64,
    base: Option<Base>,
    expected: Option<Box<[u8]>>,
) -> Row {
    Row {
        number,
        size,
        modified_ns,
        base,
        expected,
        draft: false,
        renamed: None,
        unconfirmed: Vec::new(),
        beside: None,
        extents: Extents::default(),
    }
}

/// Reads the name of a data file: its number, and whether it is one of which the row may be lost.
fn number_of(name: &str) -> Option<(u64, bool)> {
    let (digits, kind) = name.split_once('.')?;
    let is_lost = match kind {
        "data" => false,
        LOST => true,
        _ => return None,
    };
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)?;
    Some((number, is_lost))
}

/// Brings the names in a folder to the disk, where its file system has that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
            ) =>
        {
            tracing::debug!(folder = %folder.display(), %error, "names in a folder cannot be waited for");
            Ok(())
        }
        synced => synced,
    }
}
