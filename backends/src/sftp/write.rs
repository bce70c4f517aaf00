//! Changes on an SFTP server.
//!
//! A put writes a file of a temporary name beside the object, has it synced where the server can (`fsync@openssh.com`), and
//! renames it. Where nothing may stand at the name, the rename of the protocol itself sees to that: it replaces nothing.
//! Where something is replaced, `posix-rename@openssh.com` does it in one step; a server without it gets three renames,
//! between which a reader may find nothing. A large file that somebody remembers is not removed when a put of it is broken off: the
//! next goes on with it ([`resume`]).
//!
//! Always true here: a request that changes something is sent once. Servers answer "failure" to most of what they refuse, so
//! that each such answer is followed by a look at what the reason may be.

mod resume;

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, stream};

use super::Server;
use super::session::{Answer, Fault, Handle, Session};
use super::wire::{Change, Reply, Request, Status};
use crate::parts::onward::{self, Onward};
use crate::write::{self, Attributes, Body, Condition, Expected, Renames, WriteAbilities};
use crate::{Error, ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Result};

/// Bytes written at once: what the draft has every server take in one packet.
const PIECE: u64 = 32 * 1024;
/// Pieces of one put that are under way at once.
const PIECES: usize = 64;
/// The longest name that servers take, in bytes.
const NAME_MAX: usize = 255;

/// What SFTP can do. A piece is in memory twice while it is sent: as it was read, and as a packet.
pub(super) const ABILITIES: WriteAbilities = WriteAbilities {
    condition: Condition::AbsenceOnly,
    memory_max: 2 * PIECE * PIECES as u64,
    size_max: i64::MAX as u64,
    replaces_at_once: true,
    real_directories: true,
    renames_files: Renames::Whole,
    renames_directories: Renames::Whole,
    keeps_modified: true,
    keeps_mode: true,
    makes_links: false,
};

/// A file that a put is still writing. It is removed unless it got its name, or somebody remembers it.
struct Unfinished {
    session: Arc<Session>,
    handle: Option<Handle>,
    temporary: ObjectPath,
    raw: Vec<u8>,
    done: bool,
    /// How far it has come, where that is noted.
    onward: Option<Onward>,
}

impl Unfinished {
    /// It has its object's name now.
    async fn finish(mut self) {
        self.done = true;
        self.forget().await;
    }

    /// Nobody is to go on with it.
    async fn forget(&mut self) {
        if let Some(onward) = self.onward.take() {
            onward.ended().await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done && self.onward.is_none() {
            self.session.send_off(&Request::Remove(std::mem::take(&mut self.raw)));
        }
    }
}

impl Server {
    pub(super) async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        let operation = Operation::Put;
        let before = self.expect(operation, path, expected).await?;
        let mut unfinished = self.begin(path, body).await?;
        let Some(handle) = unfinished.handle.take() else {
            return Err(self.nonsense(operation, path));
        };
        self.write(path, body, &handle, unfinished.onward.as_ref()).await?;
        let now = match self.complete(path, body, &before, &handle).await {
            Err(error) if error.kind() == ErrorKind::Nonsense => {
                // Nothing can be made of it.
                unfinished.forget().await;
                return Err(error);
            }
            now => now?,
        };
        if let Some(onward) = &unfinished.onward {
            onward.synced().await;
        }
        self.done(operation, path, handle.close().await).await?;
        if matches!(expected, Expected::Version(_)) {
            self.expect(operation, path, expected).await?;
        }
        let (session, temporary) = (Arc::clone(&unfinished.session), unfinished.temporary.clone());
        let give_name = async |replace| self.give_name(&session, operation, &temporary, path, replace).await;
        let any = matches!(expected, Expected::Anything);
        let replace = !matches!(expected, Expected::Absent) && matches!(before, Presence::Found(_));
        let moved = match give_name(replace).await {
            // Somebody made it meanwhile, and anything may be replaced.
            Err(error) if error.kind() == ErrorKind::Exists && any => give_name(true).await,
            moved => moved,
        };
        match moved {
            Ok(Presence::Found(())) => {
                self.kept.forget(path, &now.version);
                unfinished.finish().await;
                Ok(now)
            }
            Ok(Presence::Absent) => Err(self.nowhere(operation, path).await),
            Err(error) if error.kind() == ErrorKind::Exists && !any => {
                let why = "something has that name by now";
                Err(self.error(ErrorKind::Conflict, operation, path, why))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives what was written its attributes, and looks at what it is then.
    async fn complete(
        &self,
        path: &ObjectPath,
        body: &dyn Body,
        before: &Presence<Metadata>,
        handle: &Handle,
    ) -> Result<Metadata> {
        let kept = match before {
            Presence::Found(before) => before.mode,
            Presence::Absent => None,
        };
        let wanted = body.attributes();
        let change = Change {
            mode: wanted.mode.or(kept),
            times: seconds(&wanted),
        };
        let now = self.settle(path, handle, change, body.size()).await?;
        match before {
            Presence::Found(before) if before.version == now.version => {
                // Times are whole seconds here; another state must not look like the one before it.
                let times = now.modified.map(|time| (time.0.div_euclid(1_000_000_000) + 1) as u32);
                self.settle(path, handle, Change { mode: None, times }, body.size())
                    .await
            }
            _ => Ok(now),
        }
    }

    pub(super) async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        let operation = Operation::CreateDirectory;
        self.not_the_root(operation, path, ErrorKind::Exists)?;
        let raw = self.raw(operation, path)?;
        match self.change(operation, path, &Request::MakeDirectory(raw)).await {
            Ok(Presence::Found(())) => {}
            Ok(Presence::Absent) => return Err(self.no_directory(operation, path).await),
            Err(error) => {
                return Err(match self.stat(operation, path).await? {
                    Presence::Found(_) => self.exists(operation, path),
                    Presence::Absent => self.reason(operation, path, error, 1).await,
                });
            }
        }
        match self.stat(operation, path).await? {
            Presence::Found(metadata) => Ok(metadata),
            Presence::Absent => Err(self.error(
                ErrorKind::Conflict,
                operation,
                path,
                "the directory was removed as soon as it was made",
            )),
        }
    }

    pub(super) async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        let operation = Operation::RemoveFile;
        self.not_the_root(operation, path, ErrorKind::IsADirectory)?;
        match self.stat(operation, path).await? {
            Presence::Absent => return Ok(Presence::Absent),
            Presence::Found(found) if found.kind == Kind::Directory => {
                return Err(self.error(ErrorKind::IsADirectory, operation, path, "a directory stands there"));
            }
            Presence::Found(found) if !expected.holds(&Presence::Found(found.clone())) => {
                return Err(self.conflict(operation, path));
            }
            Presence::Found(_) => {}
        }
        let raw = self.raw(operation, path)?;
        match self.change(operation, path, &Request::Remove(raw)).await {
            Err(error) => Err(self.reason(operation, path, error, 0).await),
            removed => removed,
        }
    }

    pub(super) async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        let operation = Operation::RemoveDirectory;
        self.not_the_root(operation, path, ErrorKind::Unsupported)?;
        match self.stat(operation, path).await? {
            Presence::Absent => return Ok(Presence::Absent),
            Presence::Found(found) if found.kind != Kind::Directory => {
                return Err(self.error(ErrorKind::NotADirectory, operation, path, "it is not a directory"));
            }
            Presence::Found(_) => {}
        }
        let raw = self.raw(operation, path)?;
        match self.change(operation, path, &Request::RemoveDirectory(raw)).await {
            Err(error) if error.kind() == ErrorKind::Other && self.holds_anything(operation, path).await? => {
                Err(self.error(ErrorKind::NotEmpty, operation, path, "the directory is not empty"))
            }
            Err(error) => Err(self.reason(operation, path, error, 0).await),
            removed => removed,
        }
    }

    pub(super) async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        let operation = Operation::Rename;
        self.not_the_root(operation, from, ErrorKind::Unsupported)?;
        self.not_the_root(operation, to, ErrorKind::Exists)?;
        let Presence::Found(subject) = self.stat(operation, from).await? else {
            return Ok(Presence::Absent);
        };
        if from == to {
            return Ok(Presence::Found(subject));
        }
        let there = self.stat(operation, to).await?;
        if let Presence::Found(there) = &there {
            let is_directory = (subject.kind == Kind::Directory, there.kind == Kind::Directory);
            let refused = match is_directory {
                _ if !replace => Some((ErrorKind::Exists, "something has that name")),
                (false, true) => Some((ErrorKind::IsADirectory, "a directory stands there")),
                (true, false) => Some((ErrorKind::NotADirectory, "what stands there is not a directory")),
                (true, true) if self.holds_anything(operation, to).await? => {
                    Some((ErrorKind::NotEmpty, "the directory is not empty"))
                }
                _ => None,
            };
            if let Some((kind, why)) = refused {
                return Err(self.error(kind, operation, to, why));
            }
        }
        let (session, _) = self.session(operation, from).await?;
        let replaces = matches!(there, Presence::Found(_));
        match self.give_name(&session, operation, from, to, replaces).await? {
            Presence::Found(()) => self.kept.forget(to, &subject.version),
            Presence::Absent => return Err(self.no_directory(operation, to).await),
        }
        self.stat(operation, to).await
    }

    pub(super) async fn set_attributes(&self, path: &ObjectPath, wanted: &Attributes) -> Result<Presence<Metadata>> {
        let operation = Operation::SetAttributes;
        let Presence::Found(now) = self.stat(operation, path).await? else {
            return Ok(Presence::Absent);
        };
        if now.kind == Kind::Symlink {
            // The server would follow it.
            let why = "this protocol cannot change the attributes of a link";
            return Err(self.error(ErrorKind::Unsupported, operation, path, why));
        }
        let change = Change {
            mode: wanted.mode,
            times: seconds(wanted),
        };
        let raw = self.raw(operation, path)?;
        match self.change(operation, path, &Request::SetStat(raw, change)).await {
            Ok(Presence::Found(())) => self.stat(operation, path).await,
            Ok(Presence::Absent) => Ok(Presence::Absent),
            Err(error) => Err(self.reason(operation, path, error, 0).await),
        }
    }

    /// Writes the whole body, or what is left of it, several pieces at once. As long as pieces are taken, it may take as long as it
    /// takes.
    async fn write(&self, path: &ObjectPath, body: &dyn Body, handle: &Handle, onward: Option<&Onward>) -> Result<()> {
        let size = body.size();
        let ranges = stream::unfold(onward.map_or(0, Onward::start), |start| {
            let end = onward.map_or(size, |onward| onward.part_end(start)).min(start + PIECE);
            async move { (start < size).then_some((start..end, end)) }
        });
        let pieces = ranges.map(|range: Range<u64>| async move {
            let data = body
                .read(range.clone())
                .await
                .map_err(|error| self.unread(path, error))?;
            if data.len() as u64 != range.end - range.start {
                let why = "the bytes to be put ended too soon";
                return Err(self.error(ErrorKind::Other, Operation::Put, path, why));
            }
            if let Some(onward) = onward {
                onward.sum(range.start, &data).await;
            }
            let request = Request::Write {
                handle: handle.raw().to_vec(),
                offset: range.start,
                data,
            };
            let left = size - range.start;
            match self.sort_out(Operation::Put, path, handle.session().exchange(&request).await) {
                Ok(Presence::Found((Reply::Status(Status::Good, _), _))) => {
                    if let Some(onward) = onward {
                        onward.arrived(range);
                    }
                    Ok(())
                }
                Ok(_) => Err(self.nonsense(Operation::Put, path)),
                Err(error) => Err(self.reason(Operation::Put, path, error, left).await),
            }
        });
        let pieces = Box::pin(pieces.buffer_unordered(PIECES));
        let in_time = stream::unfold(pieces, |mut pieces| async move {
            let piece = match tokio::time::timeout(self.patience, pieces.next()).await {
                Ok(piece) => piece?,
                Err(_elapsed) => {
                    let why = format!("the server took nothing for {} s", self.patience.as_secs_f32());
                    Err(self.error(ErrorKind::TimedOut, Operation::Put, path, why))
                }
            };
            Some((piece, pieces))
        });
        onward::write(onward, in_time, || self.sync(path, handle)).await
    }

    fn unread(&self, path: &ObjectPath, error: std::io::Error) -> Error {
        Error::new(
            ErrorKind::Other,
            Operation::Put,
            self.name.as_str(),
            path.clone(),
            error,
        )
    }

    /// Has the bytes of an open file brought to the server's disk.
    async fn sync(&self, path: &ObjectPath, handle: &Handle) -> Result<()> {
        let (operation, request) = (Operation::Put, Request::Fsync(handle.raw().to_vec()));
        match self.change_on(handle.session(), operation, path, &request).await {
            Ok(Presence::Found(())) => Ok(()),
            Ok(Presence::Absent) => Err(self.nonsense(operation, path)),
            Err(error) => Err(self.reason(operation, path, error, 1).await),
        }
    }

    /// Has the bytes of an open file synced and its attributes changed, and looks at what it is then.
    async fn settle(&self, path: &ObjectPath, handle: &Handle, change: Change, size: u64) -> Result<Metadata> {
        let (operation, session, raw) = (Operation::Put, handle.session(), handle.raw());
        if change != Change::default() {
            let request = Request::FsetStat(raw.to_vec(), change);
            self.change_on(session, operation, path, &request).await?;
        }
        if session.extensions().fsync {
            self.sync(path, handle).await?;
        }
        let looked = self
            .ask_on(session, operation, path, &Request::Fstat(raw.to_vec()))
            .await?;
        let Presence::Found(Reply::Attributes(seen)) = looked else {
            return Err(self.nonsense(operation, path));
        };
        match seen.metadata() {
            Some(now) if now.size == size => Ok(now),
            Some(now) => {
                let why = format!("{size} bytes were sent, and the file has {}", now.size);
                Err(self.error(ErrorKind::Nonsense, operation, path, why))
            }
            None => Err(self.nonsense(operation, path)),
        }
    }

    /// Renames; `Absent` if a name on the way does not exist.
    async fn give_name(
        &self,
        session: &Session,
        operation: Operation,
        from: &ObjectPath,
        to: &ObjectPath,
        replace: bool,
    ) -> Result<Presence<()>> {
        let (raw_from, raw_to) = (self.raw(operation, from)?, self.raw(operation, to)?);
        if !replace {
            let request = Request::Rename(raw_from, raw_to);
            return match self.change_on(session, operation, to, &request).await {
                Err(error) if error.kind() == ErrorKind::Other => Err(match self.stat(operation, to).await? {
                    Presence::Found(_) => self.exists(operation, to),
                    Presence::Absent => self.reason(operation, to, error, 0).await,
                }),
                renamed => renamed,
            };
        }
        if session.extensions().posix_rename {
            let request = Request::PosixRename(raw_from, raw_to);
            return match self.change_on(session, operation, to, &request).await {
                Err(error) => Err(self.reason(operation, to, error, 0).await),
                renamed => renamed,
            };
        }
        // What stands there is put aside first, and back if the new one cannot take its place.
        let aside = self.raw(operation, &write::temporary_beside(to))?;
        let put_aside = Request::Rename(raw_to.clone(), aside.clone());
        self.change_on(session, operation, to, &put_aside).await?;
        match self
            .change_on(session, operation, to, &Request::Rename(raw_from, raw_to.clone()))
            .await
        {
            Ok(Presence::Found(())) => {
                session.send_off(&Request::Remove(aside.clone()));
                session.send_off(&Request::RemoveDirectory(aside));
                Ok(Presence::Found(()))
            }
            renamed => {
                self.change_on(session, operation, to, &Request::Rename(aside, raw_to))
                    .await?;
                renamed
            }
        }
    }

    /// Sends a request that changes something, once.
    async fn change(&self, operation: Operation, path: &ObjectPath, request: &Request) -> Result<Presence<()>> {
        let (session, _) = self.session(operation, path).await?;
        self.change_on(&session, operation, path, request).await
    }

    async fn change_on(
        &self,
        session: &Session,
        operation: Operation,
        path: &ObjectPath,
        request: &Request,
    ) -> Result<Presence<()>> {
        match self.ask_on(session, operation, path, request).await? {
            Presence::Found(Reply::Status(Status::Good, _)) => Ok(Presence::Found(())),
            Presence::Found(_) => Err(self.nonsense(operation, path)),
            Presence::Absent => Ok(Presence::Absent),
        }
    }

    /// Takes the answer to the closing of a written file, at which some servers say that they had no room for it.
    async fn done(
        &self,
        operation: Operation,
        path: &ObjectPath,
        answer: std::result::Result<Answer, Fault>,
    ) -> Result<()> {
        match self.sort_out(operation, path, answer) {
            Ok(Presence::Found((Reply::Status(Status::Good, _), _))) => Ok(()),
            Ok(_) => Err(self.nonsense(operation, path)),
            Err(error) => Err(self.reason(operation, path, error, 1).await),
        }
    }

    /// Looks at what stands there, and refuses what was not expected.
    async fn expect(&self, operation: Operation, path: &ObjectPath, expected: &Expected) -> Result<Presence<Metadata>> {
        self.not_the_root(operation, path, ErrorKind::IsADirectory)?;
        let found = self.stat(operation, path).await?;
        if matches!(&found, Presence::Found(metadata) if metadata.kind == Kind::Directory) {
            return Err(self.error(ErrorKind::IsADirectory, operation, path, "a directory stands there"));
        }
        if expected.holds(&found) {
            Ok(found)
        } else {
            Err(self.conflict(operation, path))
        }
    }

    async fn holds_anything(&self, operation: Operation, path: &ObjectPath) -> Result<bool> {
        let request = Request::OpenDirectory(self.raw(operation, path)?);
        let Presence::Found(handle) = self.open(operation, path, &request).await? else {
            return Ok(false);
        };
        loop {
            let request = Request::ReadDirectory(handle.raw().to_vec());
            match self.ask_on(handle.session(), operation, path, &request).await? {
                Presence::Found(Reply::Names(names)) => {
                    if names.iter().any(|entry| !matches!(entry.name.as_slice(), b"." | b"..")) {
                        return Ok(true);
                    }
                }
                Presence::Found(Reply::Status(Status::EndOfFile, _)) => return Ok(false),
                _ => return Err(self.nonsense(operation, path)),
            }
        }
    }

    /// Finds out what a server that only says "failure" may mean. `wanted` is how many bytes it was to make room for.
    async fn reason(&self, operation: Operation, path: &ObjectPath, error: Error, wanted: u64) -> Error {
        if error.kind() == ErrorKind::BadPath && path.name().len() > NAME_MAX {
            return self.error(ErrorKind::NameTooLong, operation, path, error.cause().to_string());
        }
        if error.kind() != ErrorKind::Other {
            return error;
        }
        let Ok((session, _)) = self.session(operation, path).await else {
            return error;
        };
        if !session.extensions().file_system {
            return error;
        }
        // Another file system may be mounted there than at the root.
        let directory = path.parent();
        let Ok(raw) = self.raw(operation, &directory) else {
            return error;
        };
        let (kind, why) = match self
            .ask_on(&session, operation, &directory, &Request::FileSystem(raw))
            .await
        {
            Ok(Presence::Found(Reply::FileSystem(system))) if system.read_only => {
                (ErrorKind::ReadOnly, "the server's file system may not be written to")
            }
            Ok(Presence::Found(Reply::FileSystem(system)))
                if wanted > 0 && (system.free < wanted || system.free_files == 0) =>
            {
                (ErrorKind::Full, "the server's file system is full")
            }
            _ => return error,
        };
        self.error(kind, operation, path, why)
    }

    async fn no_directory(&self, operation: Operation, path: &ObjectPath) -> Error {
        // Without its root, the source is not there at all.
        match self.check(operation).await {
            Err(error) => error,
            Ok(()) => self.error(
                ErrorKind::NotADirectory,
                operation,
                path,
                "the directory that it is to lie in is not there",
            ),
        }
    }

    /// Says why a file could not get its name where the server knows nothing on the way to it.
    async fn nowhere(&self, operation: Operation, path: &ObjectPath) -> Error {
        match self.stat(operation, &path.parent()).await {
            Ok(Presence::Found(_)) => {
                let why = "the file that was written was removed before it got its name";
                self.error(ErrorKind::Other, operation, path, why)
            }
            _ => self.no_directory(operation, path).await,
        }
    }

    fn not_the_root(&self, operation: Operation, path: &ObjectPath, kind: ErrorKind) -> Result<()> {
        if path.is_root() {
            return Err(self.error(kind, operation, path, "it is the source's own folder"));
        }
        Ok(())
    }

    fn exists(&self, operation: Operation, path: &ObjectPath) -> Error {
        self.error(ErrorKind::Exists, operation, path, "something has that name")
    }

    fn conflict(&self, operation: Operation, path: &ObjectPath) -> Error {
        let why = "what stands there is not what was expected";
        self.error(ErrorKind::Conflict, operation, path, why)
    }
}

/// Gives the time of a change as the protocol has it, cut to whole seconds and to those that it can tell.
fn seconds(wanted: &Attributes) -> Option<u32> {
    let time = wanted.modified?;
    Some(u32::try_from(time.0.div_euclid(1_000_000_000).max(0)).unwrap_or(u32::MAX))
}
