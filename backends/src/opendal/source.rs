//! The source behind the backend: one step towards it at a time, and what its answers mean.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::opendal::Metadata as Seen;
use ::opendal::OperationContext;
use ::opendal::options::ListOptions;
use ::opendal::raw::{OpList, OpStat, Servicer, oio};
use futures::FutureExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::confirm::Confirmations;
use super::minds::Minds;
use super::plan::Traits;
use super::transport::{Answer, Transport};
use super::{dav, fault, ftp, path, transport};
use crate::{
    Capabilities, Error, ErrorKind, Identity, Kind, Metadata, ObjectPath, Operation, Presence, Result, Secret,
    Timestamp, Version,
};

/// What the backend, its listings and its confirmations share.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) capabilities: Capabilities,
    pub(super) traits: Traits,
    pub(super) prefix: String,
    pub(super) service: Servicer,
    /// The service without what asks again: what changes something is sent once.
    pub(super) bare: Servicer,
    /// The same, for objects that go in one request.
    pub(super) in_one_request: Servicer,
    pub(super) context: OperationContext,
    pub(super) transport: Transport,
    /// How `WebDAV` and FTP are changed, and FTP is listed, which `OpenDAL` does not do as it must be done.
    pub(super) own: Own,
    pub(super) slots: Semaphore,
    pub(super) patience: Duration,
    pub(super) secrets: Vec<Secret>,
    pub(super) confirmations: Confirmations,
    /// Whether entity tags of one part were seen not to be the MD5 of its bytes.
    pub(super) tags_name_no_bytes: AtomicBool,
    /// The slots that puts may take, of all.
    pub(super) puts: Semaphore,
    pub(super) minds: Minds,
}

/// The ways to change that are our own.
pub(super) enum Own {
    None,
    Dav(dav::Dav),
    Ftp(Box<ftp::Ftp>),
}

impl Source {
    pub(super) fn error(
        &self,
        kind: ErrorKind,
        operation: Operation,
        path: &ObjectPath,
        why: impl Into<String>,
    ) -> Error {
        Error::new(kind, operation, self.name.as_str(), path.clone(), why.into())
    }

    /// Asks the source one thing, in a slot of its own.
    pub(super) async fn ask<T>(
        &self,
        operation: Operation,
        path: &ObjectPath,
        step: impl Future<Output = ::opendal::Result<T>> + Send,
    ) -> Result<Presence<T>> {
        let _slot = self.slot().await;
        Ok(match self.step(operation, path, step).await? {
            Presence::Found((value, _)) => Presence::Found(value),
            Presence::Absent => Presence::Absent,
        })
    }

    /// Waits for one of the source's slots.
    pub(super) async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots
            .acquire()
            .await
            .expect("invariant: the semaphore is never closed")
    }

    /// Takes one step towards the source: within the timeout, and without being torn down by a service that panics over
    /// what a server sent. The caller holds a slot.
    pub(super) async fn step<T>(
        &self,
        operation: Operation,
        path: &ObjectPath,
        step: impl Future<Output = ::opendal::Result<T>> + Send,
    ) -> Result<Presence<(T, Answer)>> {
        self.step_within(self.patience, operation, path, step).await
    }

    /// Takes a step that may take as long as it takes, if bytes move.
    pub(super) async fn step_within<T>(
        &self,
        patience: Duration,
        operation: Operation,
        path: &ObjectPath,
        step: impl Future<Output = ::opendal::Result<T>> + Send,
    ) -> Result<Presence<(T, Answer)>> {
        // Whoever asks whether the source is there wants to be told that it asks to be left alone, and not wait until it
        // does not: his own patience may be shorter than that.
        let waits = operation != Operation::Connect;
        let guarded = transport::observe(AssertUnwindSafe(step).catch_unwind(), patience, waits);
        let Some((outcome, answer)) = guarded.await else {
            let why = format!("no answer within {} s", patience.as_secs_f32());
            return Err(self.error(ErrorKind::TimedOut, operation, path, why));
        };
        match outcome {
            Ok(Ok(value)) => Ok(Presence::Found((value, answer))),
            Ok(Err(error)) => match fault::classify(&error, answer.status) {
                None => Ok(Presence::Absent),
                Some(kind) => {
                    // The whole source is refused, rather than one object of it.
                    let whole = path.is_root();
                    let kind = match kind {
                        ErrorKind::PermissionDenied if whole => ErrorKind::CredentialsRefused,
                        // A server that is down does not say when it is back.
                        ErrorKind::Unreachable if answer.retry_after.is_some() => ErrorKind::RateLimited,
                        kind => kind,
                    };
                    let why = fault::describe(&error, answer.status, &self.secrets);
                    Err(self
                        .error(kind, operation, path, why)
                        .with_retry_after(answer.retry_after))
                }
            },
            Err(_panic) => {
                let why = "the server's answer could not be understood";
                Err(self.error(ErrorKind::Nonsense, operation, path, why))
            }
        }
    }

    /// Makes sure that the source itself is there, is a folder, and takes the credentials.
    pub(super) async fn check(&self, operation: Operation) -> Result<()> {
        match self.look_at_root(operation).await {
            // Servers answer in many ways to a file's name with a slash behind it, and say the true reason in none.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NoSuchSource | ErrorKind::Unsupported | ErrorKind::Nonsense | ErrorKind::Other
                ) && self.root_is_a_file(operation).await =>
            {
                let why = "a file stands there, and no folder";
                Err(self.error(ErrorKind::NotADirectory, operation, &ObjectPath::root(), why))
            }
            looked => looked,
        }
    }

    async fn root_is_a_file(&self, operation: Operation) -> bool {
        let root = ObjectPath::root();
        let Ok(raw) = self.raw(operation, &root, false) else {
            return false;
        };
        if self.traits.implicit_directories || self.prefix.is_empty() {
            return false;
        }
        matches!(self.look_at(operation, &root, &raw).await, Ok(Presence::Found(seen)) if seen.is_file())
    }

    /// Asks for what stands at exactly that name.
    async fn look_at(&self, operation: Operation, path: &ObjectPath, raw: &str) -> Result<Presence<Seen>> {
        if let Own::Ftp(ftp) = &self.own {
            let _slot = self.slot().await;
            return ftp.find(self, operation, path, raw).await;
        }
        let step = self.service.stat_dyn(&self.context, raw, OpStat::default());
        Ok(match self.ask(operation, path, step).await? {
            Presence::Found(reply) => Presence::Found(reply.into_metadata()),
            Presence::Absent => Presence::Absent,
        })
    }

    async fn look_at_root(&self, operation: Operation) -> Result<()> {
        let root = ObjectPath::root();
        let there = if self.traits.implicit_directories {
            // An empty prefix is no reason to refuse; a missing bucket is an error of its own.
            self.any_beneath(operation, &root).await?;
            true
        } else {
            let raw = self.raw(operation, &root, true)?;
            if self.traits.root_needs_listing && self.prefix.is_empty() {
                matches!(self.first_entry(operation, &root).await?, Presence::Found(_))
            } else {
                let looked = self.look_at(operation, &root, &raw).await?;
                matches!(looked, Presence::Found(seen) if !seen.is_file())
            }
        };
        if there {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::NoSuchSource,
            operation,
            &root,
            "the server answers, but has no such folder",
        ))
    }

    /// Turns "not found" into absence, once the source itself is known to be there.
    pub(super) async fn absent<T>(&self, operation: Operation) -> Result<Presence<T>> {
        self.check(operation).await?;
        Ok(Presence::Absent)
    }

    pub(super) async fn first_entry(
        &self,
        operation: Operation,
        directory: &ObjectPath,
    ) -> Result<Presence<Option<oio::Entry>>> {
        let raw = self.raw(operation, directory, true)?;
        if let Own::Ftp(ftp) = &self.own {
            let _slot = self.slot().await;
            return Ok(match ftp.list(self, directory, &raw).await? {
                Presence::Found(_) => Presence::Found(None),
                Presence::Absent => Presence::Absent,
            });
        }
        let options = OpList::from(ListOptions {
            limit: Some(1),
            ..ListOptions::default()
        });
        self.ask(operation, directory, async {
            let mut lister = self.service.list_dyn(&self.context, &raw, options)?;
            lister.next_dyn().await
        })
        .await
    }

    /// Tells whether anything lies beneath a prefix of an object store.
    pub(super) async fn any_beneath(&self, operation: Operation, directory: &ObjectPath) -> Result<bool> {
        match self.first_entry(operation, directory).await? {
            Presence::Found(entry) => Ok(entry.is_some()),
            // Only the bucket itself can be missing when a prefix is listed.
            Presence::Absent => {
                let why = "the bucket or container does not exist";
                Err(self.error(ErrorKind::NoSuchSource, operation, &ObjectPath::root(), why))
            }
        }
    }

    pub(super) async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        if path.is_root() {
            self.check(Operation::Stat).await?;
            return Ok(Presence::Found(directory(None)));
        }
        if self.traits.implicit_directories {
            // A directory wins over an object of the same name, so both questions are asked, at once.
            let (beneath, object) = tokio::join!(
                self.any_beneath(Operation::Stat, path),
                self.stat_object(Operation::Stat, path)
            );
            if beneath? {
                return Ok(Presence::Found(directory(None)));
            }
            if let Presence::Found(metadata) = object? {
                return Ok(Presence::Found(metadata));
            }
            let Presence::Found(marker) = self.stat_marker(path).await? else {
                return Ok(Presence::Absent);
            };
            // A server that keeps objects as files answers to `path/` with an object `path` that was made since the first question.
            return Ok(match self.stat_object(Operation::Stat, path).await? {
                Presence::Found(metadata) => Presence::Found(metadata),
                Presence::Absent => Presence::Found(marker),
            });
        }
        match self.stat_object(Operation::Stat, path).await {
            Ok(Presence::Found(metadata)) => Ok(Presence::Found(metadata)),
            Ok(Presence::Absent) => self.missing(Operation::Stat, path).await,
            // Servers refuse to look beneath a file, each in its own words.
            Err(error)
                if matches!(error.kind(), ErrorKind::Other | ErrorKind::Unsupported)
                    && self.leads_nowhere(path).await =>
            {
                Ok(Presence::Absent)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells whether no directory is where something would lie.
    pub(super) async fn leads_nowhere(&self, path: &ObjectPath) -> bool {
        let parent = path.parent();
        if parent.is_root() {
            return false;
        }
        match Box::pin(self.stat(&parent)).await {
            Ok(Presence::Found(there)) => there.kind != Kind::Directory,
            Ok(Presence::Absent) => true,
            Err(_) => false,
        }
    }

    /// Looks for the object `path/`, which stands for an empty directory of an object store.
    pub(super) async fn stat_marker(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let raw = self.raw(Operation::Stat, path, true)?;
        let step = self.service.stat_dyn(&self.context, &raw, OpStat::default());
        Ok(match self.ask(Operation::Stat, path, step).await? {
            Presence::Found(_) => Presence::Found(directory(None)),
            Presence::Absent => Presence::Absent,
        })
    }

    /// Gives the attributes of exactly one object, without a look at what may lie beneath its name.
    pub(super) async fn stat_object(&self, operation: Operation, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let raw = self.raw(operation, path, false)?;
        if self.traits.implicit_directories && raw.ends_with('/') {
            let marker = self.marker(operation, path, &raw).await?;
            return Ok(marker.map_or(Presence::Absent, Presence::Found));
        }
        match self.look_at(operation, path, &raw).await? {
            Presence::Absent => Ok(Presence::Absent),
            Presence::Found(seen) => match self.metadata(&seen) {
                Some(metadata) => Ok(Presence::Found(metadata)),
                None => Err(self.error(
                    ErrorKind::Unsupported,
                    operation,
                    path,
                    "neither a file nor a directory",
                )),
            },
        }
    }

    /// Gives the object whose key ends in a slash, if it holds bytes; without any it only stands for a directory.
    /// `OpenDAL` takes it for a directory either way, so that its length is taken from the answer.
    pub(super) async fn marker(&self, operation: Operation, path: &ObjectPath, raw: &str) -> Result<Option<Metadata>> {
        let _slot = self.slot().await;
        let step = self.service.stat_dyn(&self.context, raw, OpStat::default());
        let Presence::Found((reply, answer)) = self.step(operation, path, step).await? else {
            return Ok(None);
        };
        let seen = reply.into_metadata();
        Ok(answer
            .object_length
            .filter(|size| *size > 0)
            .map(|size| self.file(&seen, size)))
    }

    /// Answers for an object that the source does not have.
    pub(super) async fn missing<T>(&self, operation: Operation, path: &ObjectPath) -> Result<Presence<T>> {
        if path::may_be_garbled(path.as_bytes()) {
            let why = "the name is not UTF-8 on the server, and cannot be asked for";
            return Err(self.error(ErrorKind::BadPath, operation, path, why));
        }
        self.absent(operation).await
    }

    /// Gives what we say of an object, or `None` if it is neither file, directory nor link.
    pub(super) fn metadata(&self, seen: &::opendal::Metadata) -> Option<Metadata> {
        if seen.is_dir() {
            return Some(directory(if self.traits.implicit_directories {
                None
            } else {
                self.modified(seen)
            }));
        }
        let file = seen.is_file().then(|| self.file(seen, seen.content_length()))?;
        let is_link = matches!(self.own, Own::Ftp(_)) && seen.content_type() == Some(ftp::lines::LINK);
        let kind = if is_link { Kind::Symlink } else { file.kind };
        Some(Metadata { kind, ..file })
    }

    pub(super) fn file(&self, seen: &::opendal::Metadata, size: u64) -> Metadata {
        let modified = self.modified(seen);
        Metadata {
            kind: Kind::File,
            size,
            modified,
            version: self.traits.version(seen, size, modified),
            identity: self.traits.identity(seen, size),
            ..directory(None)
        }
    }

    pub(super) fn modified(&self, seen: &::opendal::Metadata) -> Option<Timestamp> {
        Some(self.in_its_unit(seen.last_modified()?))
    }

    /// Cuts a time to the precision in which the source always tells it.
    pub(super) fn in_its_unit(&self, time: ::opendal::raw::Timestamp) -> Timestamp {
        let nanoseconds = time.into_inner().as_nanosecond();
        let rounded = nanoseconds - nanoseconds.rem_euclid(self.traits.time_unit_ns);
        Timestamp(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
    }
}

/// Gives the attributes of a directory.
pub(super) fn directory(modified: Option<Timestamp>) -> Metadata {
    let version = modified.map_or_else(Version::default, |time| {
        Version::from_stat(0, time, Timestamp::default(), 0)
    });
    Metadata {
        kind: Kind::Directory,
        size: 0,
        modified,
        changed: None,
        created: None,
        mode: None,
        owner: None,
        links: 1,
        device: 0,
        version,
        identity: None,
    }
}

/// Derives an identity from a name of the content: equal for equal bytes, wherever they lie.
pub(super) fn identity(content_name: &str, size: u64) -> Identity {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(content_name.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Identity(bytes)
}
