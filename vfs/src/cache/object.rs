//! One object's two files in the disk cache: the data at its natural offsets, and the map that says what of it is there.
//!
//! Always true: a block that [`StoredObject::read`] gives has the checksum that its record has; a data file that [`StoredObject::hand_out`]
//! gives was whole and on stable storage when it was sealed, and was not touched since. Writes come from one thread at a time (the
//! owner of the ledger in `disk`), reads from any.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::evict::Uses;
use super::key::{DiskKey, Shape};
use super::map::{self, Header, RECORD_LEN, RECORDS_START, Seal};

/// How much of a map file is read at once.
const MAP_READ_SIZE: usize = 256 << 10;
const STAT_BLOCK: u64 = 512;

/// What reading a block from disk came to.
#[derive(Debug)]
pub(crate) enum Found {
    /// The block, whole and checked.
    Block(Bytes),
    /// It is not there.
    Missing,
    /// It was there, but damaged, and has been dropped.
    Bad,
}

/// An object's files, open.
#[derive(Debug)]
pub(crate) struct StoredObject {
    shape: Shape,
    data: Arc<File>,
    map: File,
    state: RwLock<State>,
    handed_out: AtomicU32,
    uses: Uses,
}

#[derive(Debug)]
struct State {
    blocks: BTreeMap<u64, u32>,
    /// What the data file looked like when it was sealed, if it is.
    sealed: Option<Seal>,
}

/// A whole data file in the hands of a reader, or of the kernel; nothing is put out of it while this lives.
#[derive(Debug)]
pub(crate) struct HandedOut(Arc<StoredObject>);

impl HandedOut {
    /// Gives the file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.0.data
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        self.0.handed_out.fetch_sub(1, Ordering::Release);
    }
}

/// Where an object's files lie.
pub(crate) struct Paths {
    pub(crate) folder: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) map: PathBuf,
}

impl Paths {
    /// Names the files beneath the cache's folder.
    pub(crate) fn new(root: &Path, key: DiskKey) -> Self {
        let folder = root.join(key.source.to_string());
        Self {
            data: folder.join(format!("{}.data", key.object)),
            map: folder.join(format!("{}.map", key.object)),
            folder,
        }
    }
}

impl StoredObject {
    /// Opens what is there. Files that are not this object's, or not to be made sense of, are `InvalidData`.
    pub(crate) fn open(root: &Path, key: DiskKey, uses: Uses) -> io::Result<Self> {
        let paths = Paths::new(root, key);
        let (data, map) = (open_file(&paths.data, false)?, open_file(&paths.map, false)?);
        let mut head = [0; RECORDS_START as usize];
        let length = read_up_to(&map, &mut head, 0)?;
        let header = Header::parse(&head[..length]).map_err(invalid)?;
        if header.key != key.object {
            return Err(invalid("the map file belongs to another object"));
        }
        let shape = Shape {
            key,
            size: header.size,
            block_size: header.block_size,
        };
        let about = data.metadata()?;
        if about.len() != shape.size {
            return Err(invalid("the data file has another length than the object"));
        }
        let blocks = read_records(&map, &header)?;
        let whole = blocks.len() as u64 == shape.block_count();
        let sealed = Seal::parse(&head[..length], &header).filter(|seal| whole && *seal == seal_of(&about));
        Ok(Self {
            shape,
            data: Arc::new(data),
            map,
            state: RwLock::new(State { blocks, sealed }),
            handed_out: AtomicU32::new(0),
            uses,
        })
    }

    /// Makes new, empty files in place of any that are there.
    pub(crate) fn create(root: &Path, shape: Shape, uses: Uses) -> io::Result<Self> {
        let paths = Paths::new(root, shape.key);
        remove_files(&paths)?;
        std::fs::create_dir_all(&paths.folder)?;
        let (data, map) = (open_file(&paths.data, true)?, open_file(&paths.map, true)?);
        data.set_len(shape.size)?;
        map.write_all_at(&header_of(shape).encode(), 0)?;
        let state = RwLock::new(State {
            blocks: BTreeMap::new(),
            sealed: None,
        });
        Ok(Self {
            shape,
            data: Arc::new(data),
            map,
            state,
            handed_out: AtomicU32::new(0),
            uses,
        })
    }

    /// Says what the object looks like.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Gives the count of the object's uses.
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Tells whether a block is said to be there.
    pub(crate) fn contains(&self, index: u64) -> bool {
        self.state.read().blocks.contains_key(&index)
    }

    /// Counts the bytes of the blocks that are said to be there.
    pub(crate) fn present(&self) -> u64 {
        let state = self.state.read();
        let last = self.shape.block_count().saturating_sub(1);
        let full = state.blocks.len() as u64 * u64::from(self.shape.block_size);
        let short = if state.blocks.contains_key(&last) {
            u64::from(self.shape.block_size) - self.shape.block_len(last)
        } else {
            0
        };
        full - short
    }

    /// Lists the blocks that are said to be there.
    pub(crate) fn indexes(&self) -> Vec<u64> {
        self.state.read().blocks.keys().copied().collect()
    }

    /// Reads a block and checks it. Blocks the thread for as long as the disk takes.
    pub(crate) fn read(&self, index: u64) -> io::Result<Found> {
        let Some(checksum) = self.state.read().blocks.get(&index).copied() else {
            return Ok(Found::Missing);
        };
        let mut bytes = vec![0; self.shape.block_len(index) as usize];
        let length = read_up_to(&self.data, &mut bytes, index * u64::from(self.shape.block_size))?;
        if length == bytes.len() && crc32c::crc32c(&bytes) == checksum {
            self.uses.touch();
            return Ok(Found::Block(bytes.into()));
        }
        // Put out in the meantime, its place reads as zeroes: that is no damage.
        let mut state = self.state.write();
        if state.blocks.get(&index) != Some(&checksum) {
            return Ok(Found::Missing);
        }
        state.blocks.remove(&index);
        let was_sealed = state.sealed.take();
        drop(state);
        if was_sealed.is_some() {
            self.map.write_all_at(&[0; map::SEAL_LEN], map::HEADER_LEN as u64)?;
        }
        self.erase_record(index)?;
        Ok(Found::Bad)
    }

    /// Writes a block and then its record, and seals the object when that was the last one missing.
    pub(crate) fn write(&self, index: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 != self.shape.block_len(index) || bytes.is_empty() {
            return Err(invalid("a block of the wrong length was to be cached"));
        }
        let offset = map::record_offset(index).ok_or_else(|| invalid("the object is too large to be cached"))?;
        let checksum = crc32c::crc32c(bytes);
        self.data
            .write_all_at(bytes, index * u64::from(self.shape.block_size))?;
        self.map
            .write_all_at(&map::encode_record(self.shape.key.object, index, checksum), offset)?;
        let mut state = self.state.write();
        state.blocks.insert(index, checksum);
        let whole = state.blocks.len() as u64 == self.shape.block_count();
        drop(state);
        if whole { self.seal() } else { Ok(()) }
    }

    /// Gives the whole data file, if it is sealed and nobody has touched it since. A file that somebody has touched loses its
    /// seal: its blocks are read one by one again, each against its checksum.
    pub(crate) fn hand_out(self: &Arc<Self>) -> Option<HandedOut> {
        let state = self.state.read();
        let seal = state.sealed?;
        if self.data.metadata().ok().map(|about| seal_of(&about)) != Some(seal) {
            drop(state);
            self.state.write().sealed = None;
            return None;
        }
        self.handed_out.fetch_add(1, Ordering::Acquire);
        self.uses.touch();
        Some(HandedOut(Arc::clone(self)))
    }

    /// Tells whether somebody holds the data file.
    pub(crate) fn is_handed_out(&self) -> bool {
        self.handed_out.load(Ordering::Acquire) > 0
    }

    /// Puts out blocks from the front, until about `bytes` are free. Gives `false`, and does nothing, where somebody holds the data
    /// file, or where the file system cannot free a part of a file: such an object goes whole or not at all.
    pub(crate) fn punch(&self, bytes: u64) -> io::Result<bool> {
        let mut gone = Vec::new();
        {
            // The lock that `hand_out` takes: after it, nobody is handed the file any more.
            let mut state = self.state.write();
            if self.is_handed_out() {
                return Ok(false);
            }
            let mut freed = 0;
            while freed < bytes
                && let Some((index, _)) = state.blocks.pop_first()
            {
                freed += self.shape.block_len(index);
                gone.push(index);
            }
            state.sealed = None;
        }
        self.map.write_all_at(&[0; map::SEAL_LEN], map::HEADER_LEN as u64)?;
        for index in gone {
            self.erase_record(index)?;
            let (start, length) = (
                index * u64::from(self.shape.block_size),
                u64::from(self.shape.block_size),
            );
            match fallocate(
                &*self.data,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                start,
                length,
            ) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Gives the bytes that both files really occupy; `NotFound` where somebody has removed them.
    pub(crate) fn allocated(&self) -> io::Result<u64> {
        let (data, map) = (self.data.metadata()?, self.map.metadata()?);
        if data.nlink() == 0 || map.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((data.blocks() + map.blocks()) * STAT_BLOCK)
    }

    /// Makes the data durable first, and says so only then.
    fn seal(&self) -> io::Result<()> {
        self.data.sync_data()?;
        let seal = seal_of(&self.data.metadata()?);
        self.map
            .write_all_at(&seal.encode(&header_of(self.shape)), map::HEADER_LEN as u64)?;
        self.map.sync_data()?;
        self.state.write().sealed = Some(seal);
        Ok(())
    }

    fn erase_record(&self, index: u64) -> io::Result<()> {
        match map::record_offset(index) {
            Some(offset) => self.map.write_all_at(&[0; RECORD_LEN], offset),
            None => Ok(()),
        }
    }
}

/// Removes an object's files, if they are there.
pub(crate) fn remove_files(paths: &Paths) -> io::Result<()> {
    // The map first: data without a map is never taken for anything.
    for path in [&paths.map, &paths.data] {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => std::fs::remove_dir_all(path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open_file(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(create).mode(0o600);
    // Somebody may have put a link or a named pipe in the file's place.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(invalid("not a regular file"))
    }
}

fn read_records(map: &File, header: &Header) -> io::Result<BTreeMap<u64, u32>> {
    let mut blocks = BTreeMap::new();
    let mut buffer = vec![0; MAP_READ_SIZE.min((header.block_count() as usize).saturating_mul(RECORD_LEN))];
    let mut first = 0;
    while first < header.block_count() {
        let Some(offset) = map::record_offset(first) else { break };
        let length = read_up_to(map, &mut buffer, offset)?;
        map::parse_records(header, first, &buffer[..length], &mut blocks);
        if length < buffer.len() {
            break;
        }
        first += (length / RECORD_LEN) as u64;
    }
    Ok(blocks)
}

/// Fills the buffer as far as the file goes.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn header_of(shape: Shape) -> Header {
    Header {
        key: shape.key.object,
        size: shape.size,
        block_size: shape.block_size,
    }
}

fn seal_of(about: &std::fs::Metadata) -> Seal {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Seal {
        modified_ns: ns(about.mtime(), about.mtime_nsec()),
        changed_ns: ns(about.ctime(), about.ctime_nsec()),
        inode: about.ino(),
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
