//! Puts of large files that somebody remembers: each goes on in the file that an earlier one has left, behind what the server has
//! synced of it. A server that cannot sync (`fsync@openssh.com`) is sent each file from its first byte.
//!
//! Such a file is noted before it is made. What it must be to be gone on with: a plain file, no shorter than what was noted and no
//! longer than the whole, which gives its last part back as it was sent: of a server that syncs nothing, that is what a loss of
//! power takes first.

use std::sync::Arc;

use super::Unfinished;
use crate::parts::onward::{self, Left, Onward, Sum};
use crate::sftp::Server;
use crate::sftp::session::Handle;
use crate::sftp::wire::{Reply, Request};
use crate::write::{Body, is_temporary_name, temporary_beside};
use crate::{ErrorKind, Kind, Metadata, ObjectPath, Operation, PartLog, Presence, Result};

/// Bytes that are read back at once.
const READ_BACK: u64 = 2 * 1024 * 1024;

impl Server {
    /// Makes the file that a put writes, or opens the one that an earlier put has left.
    pub(super) async fn begin(&self, path: &ObjectPath, body: &dyn Body) -> Result<Unfinished> {
        let temporary = temporary_beside(path);
        let Some(log) = onward::log_of(body) else {
            return self.create(path, temporary, None).await;
        };
        let (session, _) = self.session(Operation::Put, path).await?;
        if !session.extensions().fsync {
            return self.create(path, temporary, None).await;
        }
        if let Some(unfinished) = self.take_up(path, body, &log).await? {
            return Ok(unfinished);
        }
        let name = String::from_utf8_lossy(temporary.name());
        log.begun(&name).await.map_err(|error| self.unread(path, error))?;
        // It may lie there for a while, and is nobody else's to read meanwhile than the file will be.
        let mode = body.attributes().mode.map(|mode| (mode & 0o777) | 0o600);
        let mut unfinished = self.create(path, temporary, mode).await?;
        unfinished.onward = Some(Onward::new(log, body.size(), None));
        Ok(unfinished)
    }

    async fn create(&self, path: &ObjectPath, temporary: ObjectPath, mode: Option<u32>) -> Result<Unfinished> {
        let operation = Operation::Put;
        let raw = self.raw(operation, &temporary)?;
        let mut making = Making {
            server: self,
            raw: Some(raw.clone()),
        };
        let answer = self
            .open(operation, path, &Request::CreateFile(raw.clone(), mode))
            .await;
        match answer {
            Ok(Presence::Found(handle)) => {
                making.raw = None;
                Ok(Unfinished::of(handle, temporary, raw))
            }
            Ok(Presence::Absent) => {
                making.raw = None;
                Err(self.no_directory(operation, path).await)
            }
            Err(error) => Err(self.reason(operation, path, error, 1).await),
        }
    }

    /// Opens what an earlier put has left, if it can be gone on with.
    async fn take_up(&self, path: &ObjectPath, body: &dyn Body, log: &Arc<dyn PartLog>) -> Result<Option<Unfinished>> {
        let operation = Operation::Put;
        let left = Left::of(&**log, body.size()).await;
        let Some(left) = left.map_err(|error| self.unread(path, error))? else {
            return Ok(None);
        };
        let temporary = path.parent().join(left.name.as_bytes());
        match self.stat(operation, &temporary).await? {
            Presence::Found(found) if fits(&found, &left) => {}
            Presence::Found(found) => return self.abandon(&temporary, found.kind, &**log).await,
            Presence::Absent => return forget(&**log).await,
        }
        if !left.is_of(body).await.map_err(|error| self.unread(path, error))? {
            return self.abandon(&temporary, Kind::File, &**log).await;
        }
        let raw = self.raw(operation, &temporary)?;
        let handle = match self.open(operation, path, &Request::RewriteFile(raw.clone())).await {
            Ok(Presence::Found(handle)) => handle,
            Ok(Presence::Absent) => return forget(&**log).await,
            // Some servers let files be made, and not be written to later. Whoever ends what was broken off tries to remove it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error),
        };
        let asked = self
            .ask_on(
                handle.session(),
                operation,
                path,
                &Request::Fstat(handle.raw().to_vec()),
            )
            .await?;
        let Presence::Found(Reply::Attributes(seen)) = asked else {
            return Err(self.nonsense(operation, path));
        };
        let found = seen.metadata().filter(|found| fits(found, &left));
        if found.is_some() && self.ends_as_it_was_sent(path, &handle, &left).await? {
            let mut unfinished = Unfinished::of(handle, temporary, raw);
            unfinished.onward = Some(Onward::new(Arc::clone(log), body.size(), Some(&left)));
            return Ok(Some(unfinished));
        }
        drop(handle);
        self.abandon(&temporary, Kind::File, &**log).await
    }

    /// Reads the last part back that was noted.
    async fn ends_as_it_was_sent(&self, path: &ObjectPath, handle: &Handle, left: &Left) -> Result<bool> {
        let Some((range, noted)) = left.last() else {
            return Ok(true);
        };
        let (mut at, mut sum) = (range.start, Sum::default());
        while at < range.end {
            let piece = at..range.end.min(at + READ_BACK);
            at = piece.end;
            sum.update(&self.fetch(path, handle, &piece).await?);
        }
        Ok(sum.finish() == noted)
    }

    /// Removes what an earlier put has left and cannot be gone on with. It is remembered until it is gone.
    async fn abandon<T>(&self, temporary: &ObjectPath, kind: Kind, log: &dyn PartLog) -> Result<Option<T>> {
        if kind != Kind::File {
            // It is somebody else's.
            return forget(log).await;
        }
        let request = Request::Remove(self.raw(Operation::Put, temporary)?);
        match self.change(Operation::Put, temporary, &request).await {
            Ok(_) => forget(log).await,
            Err(error) => {
                tracing::debug!(%error, "what was left of a put that was broken off could not be removed");
                Ok(None)
            }
        }
    }

    /// Removes what a put to a path has left that nobody will go on with.
    pub(in crate::sftp) async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        let operation = Operation::Put;
        if !is_temporary_name(upload.as_bytes()) {
            return Ok(Presence::Absent);
        }
        let temporary = path.parent().join(upload.as_bytes());
        match self.stat(operation, &temporary).await? {
            Presence::Found(found) if found.kind == Kind::File => {}
            _ => return Ok(Presence::Absent),
        }
        let request = Request::Remove(self.raw(operation, &temporary)?);
        match self.change(operation, &temporary, &request).await {
            Err(error) => Err(self.reason(operation, path, error, 0).await),
            removed => removed,
        }
    }
}

/// A file that may have been made though nobody waits for the answer any more, or none has come. It is removed then.
struct Making<'a> {
    server: &'a Server,
    raw: Option<Vec<u8>>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let Some(raw) = self.raw.take() else { return };
        // What is sent over one session is done in its order.
        if let Some(session) = &self.server.sessions.lock().current {
            session.send_off(&Request::Remove(raw));
        }
    }
}

impl Unfinished {
    fn of(handle: Handle, temporary: ObjectPath, raw: Vec<u8>) -> Self {
        Self {
            session: Arc::clone(handle.session()),
            handle: Some(handle),
            temporary,
            raw,
            done: false,
            onward: None,
        }
    }
}

/// Tells whether a file may be the one that was left.
fn fits(found: &Metadata, left: &Left) -> bool {
    found.kind == Kind::File && left.may_be(found.size)
}

async fn forget<T>(log: &dyn PartLog) -> Result<Option<T>> {
    onward::ended(log).await;
    Ok(None)
}
