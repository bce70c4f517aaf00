//! The file system of such a disk: as the plain folder, but for what is written.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::Disk;

/// Nothing is kept by the kernel: after a cut it is another disk.
const TTL: Duration = Duration::ZERO;

pub(super) struct Served {
    disk: Arc<Mutex<Disk>>,
    nodes: Mutex<Nodes>,
}

/// The paths that have numbers, and the files that are open.
struct Nodes {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    open: HashMap<u64, Arc<File>>,
    next: u64,
}

impl Nodes {
    fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        self.paths
            .get(&number.0)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn number(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        self.next += 1;
        self.numbers.insert(path.to_owned(), self.next);
        self.paths.insert(self.next, path.to_owned());
        self.next
    }

    fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    fn renamed(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        let moved: Vec<_> = self
            .numbers
            .keys()
            .filter(|path| path.starts_with(from))
            .cloned()
            .collect();
        for path in moved {
            if let (Some(number), Ok(rest)) = (self.numbers.remove(&path), path.strip_prefix(from)) {
                let path = if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                };
                self.paths.insert(number, path.clone());
                self.numbers.insert(path, number);
            }
        }
    }

    fn open(&mut self, file: File) -> FileHandle {
        self.next += 1;
        self.open.insert(self.next, Arc::new(file));
        FileHandle(self.next)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let file = self.open.get(&handle.0).cloned();
        file.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl Served {
    pub(super) fn new(disk: Arc<Mutex<Disk>>) -> Self {
        let root = INodeNo::ROOT.0;
        let nodes = Nodes {
            paths: HashMap::from([(root, PathBuf::new())]),
            numbers: HashMap::from([(PathBuf::new(), root)]),
            open: HashMap::new(),
            next: root,
        };
        Self {
            disk,
            nodes: Mutex::new(nodes),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.nodes().path(parent)?.join(name))
    }

    fn entry(&self, path: &Path) -> io::Result<FileAttr> {
        let about = self.disk().real(path).symlink_metadata()?;
        Ok(attributes(self.nodes().number(path), &about))
    }

    fn create_file(&self, path: &Path, mode: u32, exclusive: bool) -> io::Result<File> {
        let mut disk = self.disk();
        let real = disk.real(path);
        let is_new = real.symlink_metadata().is_err();
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode & 0o7777);
        let file = if exclusive {
            options.create_new(true).open(real)?
        } else {
            options.create(true).truncate(false).open(real)?
        };
        if is_new {
            disk.made(path);
        }
        Ok(file)
    }

    fn change(&self, number: INodeNo, handle: Option<FileHandle>, change: Wanted) -> io::Result<FileAttr> {
        let file = handle.and_then(|handle| self.nodes().file(handle).ok());
        let path = self.nodes().path(number);
        let mut disk = self.disk();
        if let Some(size) = change.size {
            if let Some(file) = &file {
                disk.set_len(file, size)?;
            } else {
                let real = disk.real(path.as_deref().map_err(|error| io::Error::from(error.kind()))?);
                let file = OpenOptions::new().read(true).write(true).open(real)?;
                disk.set_len(&file, size)?;
            }
        }
        if let (Some(mode), Ok(path)) = (change.mode, &path) {
            fs::set_permissions(disk.real(path), Permissions::from_mode(mode & 0o7777))?;
        }
        let about = match (&file, path) {
            (Some(file), _) => file.metadata()?,
            (None, path) => disk.real(&path?).symlink_metadata()?,
        };
        Ok(attributes(number.0, &about))
    }
}

/// What is changed of a file's attributes. Its times and owner are nobody's concern here.
#[derive(Clone, Copy, Default)]
struct Wanted {
    mode: Option<u32>,
    size: Option<u64>,
}

fn attributes(number: u64, about: &Metadata) -> FileAttr {
    let kind = about.file_type();
    let kind = if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    };
    let time = |time: io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(number),
        size: about.len(),
        blocks: about.blocks(),
        atime: time(about.accessed()),
        mtime: time(about.modified()),
        ctime: time(about.modified()),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: (about.mode() & 0o7777) as u16,
        nlink: about.nlink() as u32,
        uid: about.uid(),
        gid: about.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn told(result: io::Result<FileAttr>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn shown(result: io::Result<FileAttr>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        told(self.child(parent, name).and_then(|path| self.entry(&path)), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        shown(self.change(number, handle, Wanted::default()), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        shown(self.change(number, handle, Wanted { mode, size }), reply);
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _rdev: u32, reply: ReplyEntry) {
        let make = || {
            let path = self.child(parent, name)?;
            let is_socket = mode & 0o170_000 == 0o140_000;
            if is_socket {
                let mut disk = self.disk();
                let kind = rustix::fs::FileType::Socket;
                let mode = rustix::fs::Mode::from_raw_mode(mode & 0o7777);
                rustix::fs::mknodat(rustix::fs::CWD, disk.real(&path), kind, mode, 0)?;
                disk.made(&path);
            } else {
                self.create_file(&path, mode, true)?;
            }
            self.entry(&path)
        };
        told(make(), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let make = || {
            let path = self.child(parent, name)?;
            {
                let mut disk = self.disk();
                fs::create_dir(disk.real(&path))?;
                fs::set_permissions(disk.real(&path), Permissions::from_mode(mode & !umask & 0o7777))?;
                disk.made(&path);
            }
            self.entry(&path)
        };
        told(make(), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || {
            let path = self.child(parent, name)?;
            self.disk().remove(&path)?;
            self.nodes().forget(&path);
            Ok(())
        };
        done(remove(), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || {
            let path = self.child(parent, name)?;
            self.disk().remove_directory(&path)?;
            self.nodes().forget(&path);
            Ok(())
        };
        done(remove(), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || {
            let (from, to) = (self.child(parent, name)?, self.child(new_parent, new_name)?);
            let mut disk = self.disk();
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && disk.real(&to).symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.rename(&from, &to)?;
            self.nodes().renamed(&from, &to);
            Ok(())
        };
        done(rename(), reply);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = || {
            let path = self.nodes().path(number)?;
            let real = self.disk().real(&path);
            let is_written = flags.0 & 0b11 != 0;
            OpenOptions::new().read(true).write(is_written).open(real)
        };
        match open() {
            Ok(file) => reply.opened(self.nodes().open(file), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let exclusive = flags & rustix::fs::OFlags::EXCL.bits() as i32 != 0;
        let create = || {
            let path = self.child(parent, name)?;
            let file = self.create_file(&path, mode & !umask, exclusive)?;
            Ok::<_, io::Error>((self.entry(&path)?, file))
        };
        match create() {
            Ok((attributes, file)) => {
                let handle = self.nodes().open(file);
                reply.created(&TTL, &attributes, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let file = self.nodes().file(handle)?;
            let mut bytes = vec![0; size as usize];
            let mut length = 0;
            while length < bytes.len() {
                match file.read_at(&mut bytes[length..], offset + length as u64)? {
                    0 => break,
                    count => length += count,
                }
            }
            bytes.truncate(length);
            Ok::<_, io::Error>(bytes)
        };
        match read() {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || {
            let file = self.nodes().file(handle)?;
            let is_appended = flags.0 & rustix::fs::OFlags::APPEND.bits() as i32 != 0;
            let offset = if is_appended { file.metadata()?.len() } else { offset };
            self.disk().write(&file, offset, bytes)
        };
        match write() {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.nodes().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let file = self.nodes().file(handle);
        done(file.and_then(|file| self.disk().sync(&file)), reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.nodes().path(number);
        done(path.map(|path| self.disk().sync_directory(&path)), reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let list = || {
            let path = self.nodes().path(number)?;
            let mut names = Vec::new();
            for item in fs::read_dir(self.disk().real(&path))? {
                let item = item?;
                let number = self.nodes().number(&path.join(item.file_name()));
                let kind = FileType::from_std(item.file_type()?).unwrap_or(FileType::RegularFile);
                names.push((number, kind, item.file_name()));
            }
            names.sort_unstable_by_key(|(number, ..)| *number);
            Ok::<_, io::Error>(names)
        };
        match list() {
            Ok(names) => {
                // The numbers of entries are where to go on.
                for (number, kind, name) in names.into_iter().filter(|(number, ..)| *number > offset) {
                    if reply.add(INodeNo(number), number, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }
}
