//! One of the two sides: a folder, and the files in it that are open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Statx, StatxFlags, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::change::{Change, Flag, How, SLOTS};

/// What came of a change: what it gave, or why it failed.
pub(crate) type Outcome = Result<Gave, Errno>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gave {
    Nothing,
    Number(u64),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Look(Look),
}

/// What both sides must agree on of one object, whenever it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    /// Of what is no directory: those count none here.
    links: Option<u32>,
    size: Option<u64>,
}

/// What the mount and the disk beneath it must agree on, to the nanosecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exactly {
    look: Look,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// Everything about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    look: Look,
    content: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

pub(crate) struct Side {
    root: PathBuf,
    open: [Option<File>; SLOTS],
}

/// Bytes that tell where they stand.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

impl Side {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            open: [const { None }; SLOTS],
        }
    }

    pub(crate) fn close_all(&mut self) {
        self.open = [const { None }; SLOTS];
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn file(&self, slot: usize) -> Result<&File, Errno> {
        self.open[slot].as_ref().ok_or(Errno::BADF)
    }

    pub(crate) fn make(&mut self, change: &Change) -> Outcome {
        let nothing = |()| Gave::Nothing;
        match change {
            Change::Open {
                slot,
                path,
                flags,
                mode,
            } => {
                let opened = rustix::fs::open(self.at(path), open_flags(flags), Mode::from_raw_mode(*mode))?;
                self.open[*slot] = Some(File::from(opened));
                Ok(Gave::Nothing)
            }
            Change::Close { slot } => {
                self.open[*slot] = None;
                Ok(Gave::Nothing)
            }
            Change::Remove { path } => rustix::fs::unlinkat(CWD, self.at(path), AtFlags::empty()).map(nothing),
            Change::RemoveDirectory { path } => {
                rustix::fs::unlinkat(CWD, self.at(path), AtFlags::REMOVEDIR).map(nothing)
            }
            Change::MakeDirectory { path, mode } => {
                rustix::fs::mkdirat(CWD, self.at(path), Mode::from_raw_mode(*mode)).map(nothing)
            }
            Change::MakeFifo { path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::mknodat(CWD, self.at(path), FileType::Fifo, mode, 0).map(nothing)
            }
            Change::MakeSymlink { path, target } => {
                rustix::fs::symlinkat(target.as_str(), CWD, self.at(path)).map(nothing)
            }
            Change::Link { from, to } => {
                rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty()).map(nothing)
            }
            Change::Rename { from, to, how } => {
                let flags = match how {
                    How::Replace => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::NOREPLACE,
                    How::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags).map(nothing)
            }
            Change::List { path } => self.list(path).map(Gave::Names),
            Change::Look { path } => look_at(&self.at(path)).map(|it| Gave::Look(it.look)),
            _ => self.attributes_or_bytes(change),
        }
    }

    fn attributes_or_bytes(&self, change: &Change) -> Outcome {
        let nothing = |()| Gave::Nothing;
        match change {
            Change::TruncatePath { path, size } => {
                let file = rustix::fs::open(self.at(path), OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
                rustix::fs::ftruncate(&file, *size).map(nothing)
            }
            Change::Mode { path, mode } => {
                rustix::fs::chmodat(CWD, self.at(path), Mode::from_raw_mode(*mode), AtFlags::empty()).map(nothing)
            }
            Change::Owner { path, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                rustix::fs::chownat(CWD, self.at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW).map(nothing)
            }
            Change::Times {
                path,
                seconds,
                nanoseconds,
                follow,
            } => {
                let flags = if *follow {
                    AtFlags::empty()
                } else {
                    AtFlags::SYMLINK_NOFOLLOW
                };
                rustix::fs::utimensat(CWD, self.at(path), &times(*seconds, *nanoseconds), flags).map(nothing)
            }
            Change::SetXattr {
                path,
                name,
                length,
                flags,
            } => {
                let flags = XattrFlags::from_bits_retain(*flags);
                rustix::fs::setxattr(self.at(path), *name, &bytes(*length, 1), flags).map(nothing)
            }
            Change::GetXattr { path, name } => {
                let mut value = Vec::with_capacity(1_000);
                rustix::fs::getxattr(self.at(path), *name, spare_capacity(&mut value))?;
                Ok(Gave::Bytes(value))
            }
            Change::RemoveXattr { path, name } => rustix::fs::removexattr(self.at(path), *name).map(nothing),
            _ => self.bytes_of_open(change),
        }
    }

    fn bytes_of_open(&self, change: &Change) -> Outcome {
        let nothing = |()| Gave::Nothing;
        let number = |count: usize| Gave::Number(count as u64);
        match change {
            Change::Read { slot, offset, length } => {
                let mut read = vec![0; *length];
                let count = rustix::io::pread(self.file(*slot)?, &mut read[..], *offset)?;
                read.truncate(count);
                Ok(Gave::Bytes(read))
            }
            Change::Write {
                slot,
                offset,
                length,
                seed,
            } => rustix::io::pwrite(self.file(*slot)?, &bytes(*length, *seed), *offset).map(number),
            Change::Append { slot, length, seed } => {
                let file = self.file(*slot)?;
                rustix::fs::seek(file, SeekFrom::End(0))?;
                rustix::io::write(file, &bytes(*length, *seed)).map(number)
            }
            Change::Truncate { slot, size } => rustix::fs::ftruncate(self.file(*slot)?, *size).map(nothing),
            Change::Sync { slot, data_only: true } => rustix::fs::fdatasync(self.file(*slot)?).map(nothing),
            Change::Sync { slot, .. } => rustix::fs::fsync(self.file(*slot)?).map(nothing),
            Change::Allocate {
                slot,
                mode,
                offset,
                length,
            } => {
                let mode = FallocateFlags::from_bits_retain(*mode);
                rustix::fs::fallocate(self.file(*slot)?, mode, *offset, *length).map(nothing)
            }
            Change::Seek { slot, hole, offset } => {
                let from = if *hole {
                    SeekFrom::Hole(*offset)
                } else {
                    SeekFrom::Data(*offset)
                };
                rustix::fs::seek(self.file(*slot)?, from).map(Gave::Number)
            }
            Change::Copy {
                from,
                offset,
                to,
                target,
                length,
            } => {
                let (mut offset, mut target) = (*offset, *target);
                let (from, to) = (self.file(*from)?, self.file(*to)?);
                rustix::fs::copy_file_range(from, Some(&mut offset), to, Some(&mut target), *length).map(number)
            }
            Change::HandleMode { slot, mode } => {
                rustix::fs::fchmod(self.file(*slot)?, Mode::from_raw_mode(*mode)).map(nothing)
            }
            Change::HandleTimes { slot, seconds } => {
                rustix::fs::futimens(self.file(*slot)?, &times(*seconds, 1)).map(nothing)
            }
            Change::HandleLook { slot } => look(self.file(*slot)?, Path::new("")).map(|it| Gave::Look(it.look)),
            _ => unreachable!("{change:?} is made elsewhere"),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<Vec<u8>>, Errno> {
        let errno = |error: std::io::Error| Errno::from_io_error(&error).expect("the kernel's own");
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(path)).map_err(errno)? {
            names.push(entry.map_err(errno)?.file_name().as_bytes().to_vec());
        }
        names.sort();
        Ok(names)
    }

    /// What is open, as it is: attributes and bytes.
    pub(crate) fn handles(&self) -> Vec<Option<(Look, Vec<u8>)>> {
        let seen = |file: &Option<File>| {
            let file = file.as_ref()?;
            let look = look(file, Path::new("")).expect("look at what is open").look;
            let mut content = vec![0; 1 << 20];
            let count = rustix::io::pread(file, &mut content[..], 0).unwrap_or(0);
            content.truncate(count);
            Some((look, content))
        };
        self.open.iter().map(seen).collect()
    }

    /// Everything on this side, by path.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, Whole> {
        self.walk(|path| {
            let look = look_at(path).expect("look at what was listed").look;
            let content = match look.kind {
                'f' => fs::read(path).expect("read a file"),
                'l' => fs::read_link(path)
                    .expect("read a link")
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
                _ => Vec::new(),
            };
            let xattrs = if look.kind == 'l' {
                BTreeMap::new()
            } else {
                xattrs(path)
            };
            Whole { look, content, xattrs }
        })
    }

    /// The attributes of everything on this side.
    pub(crate) fn looks(&self) -> BTreeMap<PathBuf, Exactly> {
        self.walk(|path| look_at(path).expect("look at what was listed"))
    }

    fn walk<T>(&self, see: impl Fn(&Path) -> T) -> BTreeMap<PathBuf, T> {
        let mut seen = BTreeMap::new();
        let mut waiting = vec![self.root.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).expect("list a directory") {
                let entry = entry.expect("an entry");
                let path = entry.path();
                let kind = entry.file_type().expect("its type");
                if kind.is_dir() {
                    waiting.push(path.clone());
                }
                let beneath = path.strip_prefix(&self.root).expect("beneath the root").to_owned();
                seen.insert(beneath, see(&path));
                assert_eq!(
                    kind.is_fifo(),
                    fs::symlink_metadata(&path).expect("look").file_type().is_fifo()
                );
                assert_ne!(fs::symlink_metadata(&path).expect("look").ino(), 0);
            }
        }
        seen
    }
}

fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn look_at(path: &Path) -> Result<Exactly, Errno> {
    look(CWD, path)
}

fn look(directory: impl AsFd, path: &Path) -> Result<Exactly, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(directory, path, flags, StatxFlags::BASIC_STATS)?;
    Ok(exactly(&stat))
}

fn exactly(stat: &Statx) -> Exactly {
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => 'd',
        FileType::RegularFile => 'f',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        _ => '?',
    };
    let counts = kind != 'd';
    let look = Look {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        owner: (stat.stx_uid, stat.stx_gid),
        links: counts.then_some(stat.stx_nlink),
        size: counts.then_some(stat.stx_size),
    };
    Exactly {
        look,
        modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = Vec::with_capacity(10_000);
    rustix::fs::listxattr(path, spare_capacity(&mut names)).expect("list extended attributes");
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = std::str::from_utf8(name).expect("text").to_owned();
            let mut value = Vec::with_capacity(10_000);
            rustix::fs::getxattr(path, name.as_str(), spare_capacity(&mut value)).expect("an extended attribute");
            (name, value)
        })
        .collect()
}

fn open_flags(flags: &[Flag]) -> OFlags {
    let each = flags.iter().map(|flag| match flag {
        Flag::Read => OFlags::RDONLY,
        Flag::Write => OFlags::WRONLY,
        Flag::Both => OFlags::RDWR,
        Flag::Create => OFlags::CREATE,
        Flag::Exclusive => OFlags::EXCL,
        Flag::Truncate => OFlags::TRUNC,
        Flag::Append => OFlags::APPEND,
        Flag::NoFollow => OFlags::NOFOLLOW,
        Flag::Directory => OFlags::DIRECTORY,
    });
    // A named pipe without a partner would be waited for.
    each.fold(OFlags::CLOEXEC | OFlags::NONBLOCK, |all, flag| all | flag)
}
