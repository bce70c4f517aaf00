//! SFTP servers, through the machine's own `ssh` and a client of protocol version 3 of our own.
//!
//! `ssh` brings the user's keys, agent, known hosts and configuration; what runs over it is
//! draft-ietf-secsh-filexfer-02, the version that every server speaks. `OpenDAL`'s service is not used: its listing
//! breaks off at a name that is not UTF-8, follows links in circles, and makes the root folder where it is missing.
//!
//! Always true here:
//! - names are the server's bytes, and links are links;
//! - only a regular file is ever opened: a FIFO would block the server's process for good;
//! - bytes are given only after the open file was looked at once more, after they had come;
//! - an exchange that its caller gives up on costs the session nothing, and leaves no file open on the server.

mod attributes;
mod kept;
mod listing;
mod session;
mod wire;
mod words;
mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::kept::Kept;
use self::session::{Answer, Fault, Handle, Session, SshCommand};
use self::wire::{Reply, Request, Status};
use crate::{
    Attributes, Backend, Body, Capabilities, Error, ErrorKind, Expected, Kind, Limits, Listing, Metadata, ObjectPath,
    Operation, Presence, Result, SourceSpec, Version,
};

/// Bytes asked for at once; servers may give less.
const PIECE: u64 = 128 * 1024;
/// Pieces of one read that are under way at once.
const PIECES: usize = 16;
/// Links that are asked for at once.
const LINKS: usize = 64;

/// Builds the backend. The connection is made by the first question.
#[expect(clippy::unused_async, reason = "every kind of source is connected in the same way")]
pub(crate) async fn connect(spec: &SourceSpec, limits: &Limits) -> Result<Arc<dyn Backend>> {
    let command = SshCommand::of(spec, limits).map_err(|why| {
        Error::new(
            ErrorKind::Settings,
            Operation::Connect,
            spec.name(),
            ObjectPath::root(),
            why,
        )
    })?;
    let concurrency = limits.concurrency.unwrap_or(16).max(1);
    let block_size = limits.block_size.unwrap_or(1 << 20);
    Ok(Arc::new(SftpBackend(Arc::new(Server {
        name: spec.name().to_owned(),
        root: spec.prefix().clone(),
        capabilities: Capabilities {
            block_size,
            read_size_max: block_size.max(4 << 20),
            concurrency,
            posix_attributes: true,
            identities: false,
            implicit_directories: false,
            lists_may_be_cut: false,
            tells_minutes: false,
            writes: Some(write::ABILITIES),
        },
        command,
        connect_patience: limits.connect_timeout + limits.request_timeout,
        patience: limits.request_timeout,
        slots: Semaphore::new(concurrency as usize),
        sessions: Arc::default(),
        kept: Kept::default(),
    }))))
}

struct SftpBackend(Arc<Server>);

impl fmt::Debug for SftpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpBackend")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

struct Server {
    name: String,
    /// The source's root: beneath the server's, or the user's home if empty.
    root: ObjectPath,
    capabilities: Capabilities,
    command: SshCommand,
    connect_patience: Duration,
    patience: Duration,
    slots: Semaphore,
    sessions: Arc<Mutex<Sessions>>,
    kept: Kept,
}

/// The session in use, and the one that is being made.
#[derive(Default)]
struct Sessions {
    /// Replaced when it is found dead.
    current: Option<Arc<Session>>,
    connecting: Option<Connecting>,
}

/// A session in the making, awaited by all who need it.
type Connecting = Shared<BoxFuture<'static, std::result::Result<Arc<Session>, Fault>>>;

#[async_trait]
impl Backend for SftpBackend {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn check(&self) -> Result<()> {
        let _slot = self.0.slot().await;
        self.0.check(Operation::Connect).await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let _slot = self.0.slot().await;
        self.0.stat(Operation::Stat, path).await
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        self.0.clone().list(directory).await
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        let _slot = self.0.slot().await;
        self.0.read(path, version, range).await
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        let _slot = self.0.slot().await;
        self.0.read_link(path).await
    }

    async fn read_links(&self, paths: &[ObjectPath]) -> Vec<Result<Presence<Vec<u8>>>> {
        let _slot = self.0.slot().await;
        let reads: Vec<_> = paths.iter().map(|path| self.0.read_link(path)).collect();
        stream::iter(reads).buffered(LINKS).collect().await
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        let _slot = self.0.slot().await;
        self.0.put(path, body, expected).await
    }

    async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        let _slot = self.0.slot().await;
        self.0.give_up(path, upload).await
    }

    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        let _slot = self.0.slot().await;
        self.0.create_directory(path).await
    }

    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        let _slot = self.0.slot().await;
        self.0.remove_file(path, expected).await
    }

    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        let _slot = self.0.slot().await;
        self.0.remove_directory(path).await
    }

    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        let _slot = self.0.slot().await;
        self.0.rename(from, to, replace).await
    }

    async fn set_attributes(&self, path: &ObjectPath, attributes: &Attributes) -> Result<Presence<Metadata>> {
        let _slot = self.0.slot().await;
        self.0.set_attributes(path, attributes).await
    }
}

impl Server {
    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath, why: impl Into<String>) -> Error {
        Error::new(kind, operation, self.name.as_str(), path.clone(), why.into())
    }

    fn nonsense(&self, operation: Operation, path: &ObjectPath) -> Error {
        self.error(
            ErrorKind::Nonsense,
            operation,
            path,
            "the server's answer does not fit the question",
        )
    }

    async fn slot(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.slots
            .acquire()
            .await
            .expect("invariant: the semaphore is never closed")
    }

    /// Writes a path as the server takes it.
    fn raw(&self, operation: Operation, path: &ObjectPath) -> Result<Vec<u8>> {
        let bytes = path.as_bytes();
        let bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
        if !path.is_root() && bytes.split(|byte| *byte == b'/').any(bad) {
            return Err(self.error(
                ErrorKind::BadPath,
                operation,
                path,
                "a part is empty, `.` or `..`, or holds a NUL",
            ));
        }
        let mut raw = Vec::with_capacity(self.root.as_bytes().len() + bytes.len() + 2);
        if self.root.is_root() {
            raw.push(b'.');
        } else {
            raw.push(b'/');
            raw.extend_from_slice(self.root.as_bytes());
        }
        if !path.is_root() {
            raw.push(b'/');
            raw.extend_from_slice(bytes);
        }
        Ok(raw)
    }

    /// Gives the session, making one if there is none that lives. Whether it is new.
    async fn session(&self, operation: Operation, path: &ObjectPath) -> Result<(Arc<Session>, bool)> {
        let connecting = {
            let mut sessions = self.sessions.lock();
            if let Some(session) = sessions.current.as_ref().filter(|session| session.lives()) {
                return Ok((session.clone(), false));
            }
            match &sessions.connecting {
                Some(connecting) => connecting.clone(),
                None => self.connect(&mut sessions),
            }
        };
        let made = connecting.await.map_err(|fault| self.fault(operation, path, fault))?;
        Ok((made, true))
    }

    /// Starts to make a session, as a task of its own: one that takes longer than the patience of who asked for it is there
    /// for who asks next.
    fn connect(&self, sessions: &mut Sessions) -> Connecting {
        self.kept.clear();
        let (command, patience, settled) = (self.command.clone(), self.connect_patience, self.sessions.clone());
        let task = tokio::spawn(async move {
            let made = tokio::time::timeout(patience, Session::connect(&command)).await;
            let made = made.unwrap_or_else(|_elapsed| {
                Err(Fault {
                    kind: ErrorKind::TimedOut,
                    why: format!("no connection within {} s", patience.as_secs_f32()),
                })
            });
            let mut sessions = settled.lock();
            sessions.connecting = None;
            if let Ok(session) = &made {
                sessions.current = Some(session.clone());
            }
            made
        });
        let connecting = async move {
            task.await.unwrap_or_else(|error| {
                Err(Fault {
                    kind: ErrorKind::Other,
                    why: format!("the connecting was broken off: {error}"),
                })
            })
        };
        let connecting = connecting.boxed().shared();
        sessions.connecting = Some(connecting.clone());
        connecting
    }

    fn fault(&self, operation: Operation, path: &ObjectPath, fault: Fault) -> Error {
        self.error(fault.kind, operation, path, fault.why)
    }

    /// Puts one question to the server. A session that died since it was last used is replaced once.
    async fn ask(&self, operation: Operation, path: &ObjectPath, request: &Request) -> Result<Presence<Reply>> {
        loop {
            let (session, new) = self.session(operation, path).await?;
            match self.ask_on(&session, operation, path, request).await {
                Err(error) if error.kind() == ErrorKind::Unreachable && !new && !session.lives() => {}
                answer => return answer,
            }
        }
    }

    async fn ask_on(
        &self,
        session: &Session,
        operation: Operation,
        path: &ObjectPath,
        request: &Request,
    ) -> Result<Presence<Reply>> {
        Ok(match self.answer(session, operation, path, request).await? {
            Presence::Found((reply, _)) => Presence::Found(reply),
            Presence::Absent => Presence::Absent,
        })
    }

    /// Puts one question to the server over this session, and sorts out the refusals.
    async fn answer(
        &self,
        session: &Session,
        operation: Operation,
        path: &ObjectPath,
        request: &Request,
    ) -> Result<Presence<Answer>> {
        let Ok(answer) = tokio::time::timeout(self.patience, session.exchange(request)).await else {
            let why = format!("no answer within {} s", self.patience.as_secs_f32());
            return Err(self.error(ErrorKind::TimedOut, operation, path, why));
        };
        self.sort_out(operation, path, answer)
    }

    /// Tells answers from refusals.
    fn sort_out(
        &self,
        operation: Operation,
        path: &ObjectPath,
        answer: std::result::Result<Answer, Fault>,
    ) -> Result<Presence<Answer>> {
        let (kind, why) = match answer.map_err(|fault| self.fault(operation, path, fault))? {
            (Reply::Status(Status::NoSuchFile, _), _) => return Ok(Presence::Absent),
            (Reply::Status(Status::PermissionDenied, why), _) => (ErrorKind::PermissionDenied, why),
            (Reply::Status(Status::BadMessage, why), _) => (ErrorKind::BadPath, why),
            (Reply::Status(Status::Unsupported, why), _) => (ErrorKind::Unsupported, why),
            (Reply::Status(Status::ConnectionLost, why), _) => (ErrorKind::Unreachable, why),
            (Reply::Status(Status::Failure | Status::Other(_), why), _) => (ErrorKind::Other, why),
            answer => return Ok(Presence::Found(answer)),
        };
        Err(self.error(kind, operation, path, format!("the server says: {why}")))
    }

    /// Makes sure that the source's root is there, and a folder.
    async fn check(&self, operation: Operation) -> Result<()> {
        let root = ObjectPath::root();
        match self
            .ask(operation, &root, &Request::Stat(self.raw(operation, &root)?))
            .await?
        {
            Presence::Absent => Err(self.error(
                ErrorKind::NoSuchSource,
                operation,
                &root,
                "the server answers, but has no such folder",
            )),
            Presence::Found(Reply::Attributes(seen)) => match seen.metadata() {
                Some(Metadata {
                    kind: Kind::Directory, ..
                }) => Ok(()),
                Some(_) => Err(self.error(ErrorKind::NotADirectory, operation, &root, "not a folder")),
                None => Err(self.nonsense(operation, &root)),
            },
            Presence::Found(_) => Err(self.nonsense(operation, &root)),
        }
    }

    /// Turns "not found" into absence, once the root is known to be there.
    async fn missing<T>(&self, operation: Operation) -> Result<Presence<T>> {
        self.check(operation).await?;
        Ok(Presence::Absent)
    }

    async fn stat(&self, operation: Operation, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let raw = self.raw(operation, path)?;
        // The root may be reached through a link; nothing beneath it is.
        let request = if path.is_root() {
            Request::Stat(raw)
        } else {
            Request::Lstat(raw)
        };
        match self.ask(operation, path, &request).await? {
            Presence::Found(Reply::Attributes(seen)) => match seen.metadata() {
                Some(metadata) => Ok(Presence::Found(metadata)),
                None => Err(self.nonsense(operation, path)),
            },
            Presence::Found(_) => Err(self.nonsense(operation, path)),
            Presence::Absent if path.is_root() => Err(self.error(
                ErrorKind::NoSuchSource,
                operation,
                path,
                "the server answers, but has no such folder",
            )),
            Presence::Absent => self.missing(operation).await,
        }
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        let request = Request::ReadLink(self.raw(Operation::ReadLink, path)?);
        let names = match self.ask(Operation::ReadLink, path, &request).await? {
            Presence::Absent => return self.missing(Operation::ReadLink).await,
            Presence::Found(Reply::Names(names)) => names,
            Presence::Found(_) => return Err(self.nonsense(Operation::ReadLink, path)),
        };
        match <[_; 1]>::try_from(names) {
            Ok([entry]) if !entry.name.is_empty() => Ok(Presence::Found(entry.name)),
            _ => Err(self.nonsense(Operation::ReadLink, path)),
        }
    }

    fn not_a_directory(&self, path: &ObjectPath) -> Error {
        self.error(ErrorKind::NotADirectory, Operation::List, path, "not a directory")
    }

    /// Opens a file or directory.
    async fn open(&self, operation: Operation, path: &ObjectPath, request: &Request) -> Result<Presence<Handle>> {
        loop {
            let (session, new) = self.session(operation, path).await?;
            match self.answer(&session, operation, path, request).await {
                Ok(Presence::Found((_, Some(handle)))) => return Ok(Presence::Found(handle)),
                Ok(Presence::Found(_)) => return Err(self.nonsense(operation, path)),
                Ok(Presence::Absent) => return Ok(Presence::Absent),
                Err(error) if error.kind() == ErrorKind::Unreachable && !new && !session.lives() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        let kept = self.kept.find(path, version);
        match self.read_once(path, version, &range, kept).await {
            // The session that the open file belonged to has died: open it anew.
            Err(error) if error.kind() == ErrorKind::Unreachable => self.read_once(path, version, &range, None).await,
            answer => answer,
        }
    }

    async fn read_once(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: &Range<u64>,
        kept: Option<Arc<Handle>>,
    ) -> Result<Presence<Bytes>> {
        let changes = self.kept.changes();
        let handle = match kept {
            Some(handle) => handle,
            None => match self.open_file(path, version).await? {
                Presence::Found(handle) => Arc::new(handle),
                Presence::Absent => return Ok(Presence::Absent),
            },
        };
        let fetched = self.fetch(path, &handle, range).await;
        if matches!(&fetched, Err(error) if !matches!(error.kind(), ErrorKind::Nonsense | ErrorKind::Other)) {
            return fetched.map(Presence::Found);
        }
        // Bytes, or too few of them, mean something only if the file is still what it was.
        let request = Request::Fstat(handle.raw().to_vec());
        match self.ask_on(handle.session(), Operation::Read, path, &request).await? {
            Presence::Found(Reply::Attributes(seen)) => {
                if seen.metadata().is_none_or(|metadata| metadata.version != *version) {
                    return Err(self.changed(path));
                }
            }
            Presence::Found(_) => return Err(self.nonsense(Operation::Read, path)),
            Presence::Absent => return Err(self.changed(path)),
        }
        let bytes = fetched?;
        self.kept.keep(path, version, handle, changes);
        Ok(Presence::Found(bytes))
    }

    fn changed(&self, path: &ObjectPath) -> Error {
        let why = "the file has changed since it was last looked at";
        self.error(ErrorKind::VersionChanged, Operation::Read, path, why)
    }

    /// Opens a regular file in the version that is asked for.
    async fn open_file(&self, path: &ObjectPath, version: &Version) -> Result<Presence<Handle>> {
        match self.stat(Operation::Read, path).await? {
            Presence::Absent => return Ok(Presence::Absent),
            Presence::Found(metadata) => match metadata.kind {
                Kind::File if metadata.version == *version => {}
                Kind::Directory => {
                    return Err(self.error(
                        ErrorKind::IsADirectory,
                        Operation::Read,
                        path,
                        "a directory stands there",
                    ));
                }
                _ => return Err(self.changed(path)),
            },
        }
        let request = Request::OpenFile(self.raw(Operation::Read, path)?);
        self.open(Operation::Read, path, &request).await
    }

    /// Fetches a range in pieces, several at once.
    async fn fetch(&self, path: &ObjectPath, handle: &Handle, range: &Range<u64>) -> Result<Bytes> {
        let starts = (0..)
            .map(|index| range.start + index * PIECE)
            .take_while(|start| *start < range.end);
        let pieces = starts.map(|start| self.piece(path, handle, start..range.end.min(start + PIECE)));
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0));
        let mut pieces = stream::iter(pieces).buffered(PIECES);
        while let Some(piece) = pieces.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Fetches one piece, asking again for what the server left out.
    async fn piece(&self, path: &ObjectPath, handle: &Handle, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let request = Request::Read {
                handle: handle.raw().to_vec(),
                offset: at,
                length: (range.end - at) as u32,
            };
            match self.ask_on(handle.session(), Operation::Read, path, &request).await? {
                Presence::Found(Reply::Data(data)) if !data.is_empty() && data.len() as u64 <= range.end - at => {
                    at += data.len() as u64;
                    if bytes.is_empty() {
                        bytes = data;
                    } else {
                        bytes.extend_from_slice(&data);
                    }
                }
                Presence::Found(Reply::Status(Status::EndOfFile, _)) => {
                    let why = "the file ends before the range that was asked for";
                    return Err(self.error(ErrorKind::Nonsense, Operation::Read, path, why));
                }
                _ => return Err(self.nonsense(Operation::Read, path)),
            }
        }
        Ok(bytes)
    }
}
