//! An honest source in memory that is written to: it keeps what it is given, and fails, holds and loses answers on cue.

mod parts;
mod renames;
mod waits;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use manifold_backends::{
    Backend, Body, Capabilities, Child, Condition, Error, ErrorKind, Expected, Kind, Listing, Metadata, ObjectPath,
    Operation, Presence, Renames, Result, Timestamp, Version, WriteAbilities,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The length of its blocks, in bytes.
pub(crate) const BLOCK: u32 = 64 << 10;

/// How long a copy takes that takes its time.
const DAWDLING: Duration = Duration::from_millis(20);

/// How changes are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    /// Done at once.
    Does,
    /// Puts are read from, and end when the cue changes.
    Holds,
    /// Refused, and not done.
    Fails(ErrorKind),
    /// Done, but the answer is lost.
    LosesAnswers,
    /// A put or a copy is done, but its answer is lost, and nothing is answered from then on.
    TakesAndGoes,
    /// Renames are done, but their answers are lost; nothing else is done.
    LosesRenames,
    /// A rename is done, but its answer is lost, and the source is silent from then on.
    RenamesAndIsSilent,
    /// Done, but for renames, which are not answered either until the cue changes.
    IgnoresRenames,
    /// Done, but who renames may not see what came of it.
    RenamesAndForbids,
    /// Done, but who renames hears of it when the cue changes.
    TellsLate,
    /// Done, but for removals.
    RemovesNothing,
    /// Done, but files may not be removed.
    ForbidsRemovals,
    /// Copies take their time.
    Dawdles,
    /// Reads end when the cue changes.
    HoldsReads,
    /// Names are made, renamed and removed when the cue changes.
    HoldsNames,
    /// Nothing is answered, nor done.
    IsAway,
    /// Looks are answered when the cue changes.
    IsSilent,
    /// A put in parts fails so when so many bytes of it have arrived; all else is done.
    BreaksOff {
        /// How many.
        after: u64,
        /// How.
        kind: ErrorKind,
    },
    /// Done, but uploads that were broken off cannot be ended.
    EndsNothing,
}

/// A source of the test's own.
#[derive(Debug)]
pub(crate) struct Shelf {
    name: &'static str,
    able: Capabilities,
    /// Looks do not tell upper from lower case.
    ignores_case: bool,
    state: Mutex<State>,
    cue: watch::Sender<Cue>,
    puts: watch::Sender<u64>,
    copies: watch::Sender<u64>,
    held_reads: watch::Sender<u64>,
    held_names: watch::Sender<u64>,
    held_looks: watch::Sender<u64>,
    refused_removals: watch::Sender<u64>,
    vain_removals: watch::Sender<u64>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Vec<u8>, Object>,
    versions: u64,
    parts: parts::Begun,
}

#[derive(Clone, Debug)]
struct Object {
    /// `None`: a directory.
    bytes: Option<Vec<u8>>,
    version: u64,
}

/// A directory of an object store, with an object of its own or without.
const OF_STORE: Object = Object {
    bytes: None,
    version: 0,
};

impl State {
    fn holds_anything(&self, directory: &[u8]) -> bool {
        let beneath = [directory, b"/"].concat();
        self.objects.keys().any(|path| path.starts_with(&beneath))
    }
}

impl Object {
    fn metadata(&self) -> Metadata {
        Metadata {
            kind: if self.bytes.is_some() {
                Kind::File
            } else {
                Kind::Directory
            },
            size: self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            modified: Some(Timestamp(1_000_000_000 * self.version as i64)),
            changed: None,
            created: None,
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_etag(format!("\"{}\"", self.version).as_bytes()),
            identity: None,
        }
    }
}

impl Shelf {
    pub(crate) fn new() -> Arc<Self> {
        Self::named("test://shelf")
    }

    /// One of several.
    pub(crate) fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self::with_directories(name, true))
    }

    /// One that looks at names without regard to upper and lower case.
    pub(crate) fn without_case() -> Arc<Self> {
        Arc::new(Self {
            ignores_case: true,
            ..Self::with_directories("test://shelf", true)
        })
    }

    /// As an object store: a directory is what names have in common, or an object of its own that somebody has made; it cannot be
    /// renamed.
    pub(crate) fn store() -> Arc<Self> {
        Arc::new(Self::with_directories("test://shelf", false))
    }

    fn with_directories(name: &'static str, real_directories: bool) -> Self {
        let writes = WriteAbilities {
            condition: Condition::Source,
            memory_max: u64::from(BLOCK),
            size_max: u64::MAX,
            replaces_at_once: true,
            real_directories,
            renames_files: Renames::Whole,
            renames_directories: if real_directories { Renames::Whole } else { Renames::No },
            keeps_modified: false,
            keeps_mode: false,
            makes_links: false,
        };
        Self {
            name,
            ignores_case: false,
            able: Capabilities {
                block_size: BLOCK,
                read_size_max: 1 << 20,
                concurrency: 8,
                posix_attributes: false,
                identities: false,
                implicit_directories: false,
                lists_may_be_cut: false,
                tells_minutes: false,
                writes: Some(writes),
            },
            state: Mutex::default(),
            cue: watch::Sender::new(Cue::Does),
            puts: watch::Sender::new(0),
            copies: watch::Sender::new(0),
            held_reads: watch::Sender::new(0),
            held_names: watch::Sender::new(0),
            held_looks: watch::Sender::new(0),
            refused_removals: watch::Sender::new(0),
            vain_removals: watch::Sender::new(0),
            changed: watch::Sender::new(0),
        }
    }

    /// Puts a file there, as somebody else would.
    pub(crate) fn place(&self, path: &str, bytes: &[u8]) {
        let path = ObjectPath::from_bytes(path);
        self.insert_above(&path);
        self.insert(path.as_bytes(), Some(bytes.to_vec()));
    }

    /// Takes a file away, as somebody else would.
    pub(crate) fn take(&self, path: &str) {
        self.state.lock().objects.remove(path.as_bytes());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Makes a directory there, as somebody else would.
    pub(crate) fn place_directory(&self, path: &str) {
        self.insert(path.as_bytes(), None);
    }

    /// Makes the directories that lead to a path, where they are real.
    fn insert_above(&self, path: &ObjectPath) {
        if !self.real_directories() {
            return;
        }
        let path = path.as_bytes();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.insert(&path[..at], None);
        }
    }

    fn real_directories(&self) -> bool {
        self.able.writes.is_some_and(|able| able.real_directories)
    }

    /// Tells whether anything, if only a directory, has an object of its own there.
    pub(crate) fn has_object(&self, path: &str) -> bool {
        self.state.lock().objects.contains_key(path.as_bytes())
    }

    /// Gives the bytes of a file.
    pub(crate) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().objects.get(path.as_bytes())?.bytes.clone()
    }

    /// Lists all files.
    pub(crate) fn files(&self) -> Vec<String> {
        let state = self.state.lock();
        let files = state.objects.iter().filter(|(_, object)| object.bytes.is_some());
        files
            .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    pub(crate) fn set_cue(&self, cue: Cue) {
        self.cue.send_replace(cue);
    }

    async fn names_are_let(&self) {
        let mut cue = self.cue.subscribe();
        if *cue.borrow() == Cue::HoldsNames {
            self.held_names.send_modify(|count| *count += 1);
        }
        let _changed = cue.wait_for(|cue| *cue != Cue::HoldsNames).await;
    }

    fn insert(&self, path: &[u8], bytes: Option<Vec<u8>>) -> Metadata {
        let mut state = self.state.lock();
        let version = if bytes.is_some() || self.real_directories() {
            state.versions += 1;
            state.versions
        } else {
            OF_STORE.version
        };
        let is_known_directory = bytes.is_none() && state.objects.contains_key(path);
        if !is_known_directory {
            state.objects.insert(path.to_vec(), Object { bytes, version });
        }
        let metadata = state.objects[path].metadata();
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        metadata
    }

    fn found(&self, path: &[u8]) -> Presence<Metadata> {
        let state = self.state.lock();
        match state.objects.get(path) {
            Some(object) => Presence::Found(object.metadata()),
            None if !self.real_directories() && state.holds_anything(path) => Presence::Found(OF_STORE.metadata()),
            None => Presence::Absent,
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath) -> Error {
        Error::new(kind, operation, self.name(), path.clone(), "on cue")
    }

    fn refuse(&self, operation: Operation, path: &ObjectPath) -> Result<()> {
        match *self.cue.borrow() {
            Cue::Fails(kind) => Err(self.error(kind, operation, path)),
            Cue::RemovesNothing if matches!(operation, Operation::RemoveFile | Operation::RemoveDirectory) => {
                self.refused_removals.send_modify(|count| *count += 1);
                Err(self.error(ErrorKind::TimedOut, operation, path))
            }
            Cue::ForbidsRemovals if operation == Operation::RemoveFile => {
                Err(self.error(ErrorKind::PermissionDenied, operation, path))
            }
            Cue::LosesRenames if operation != Operation::Rename => {
                Err(self.error(ErrorKind::TimedOut, operation, path))
            }
            _ => self.reach(operation, path),
        }
    }

    fn reach(&self, operation: Operation, path: &ObjectPath) -> Result<()> {
        match *self.cue.borrow() {
            Cue::IsAway => Err(self.error(ErrorKind::Unreachable, operation, path)),
            _ => Ok(()),
        }
    }

    fn answer<T>(&self, operation: Operation, path: &ObjectPath, value: T) -> Result<T> {
        if *self.cue.borrow() == Cue::LosesAnswers {
            return Err(self.error(ErrorKind::TimedOut, operation, path));
        }
        Ok(value)
    }
}

#[async_trait]
impl Backend for Shelf {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn check(&self) -> Result<()> {
        self.reach(Operation::Connect, &ObjectPath::root())
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let mut cue = self.cue.subscribe();
        if *cue.borrow() == Cue::IsSilent {
            self.held_looks.send_modify(|count| *count += 1);
        }
        let _changed = cue.wait_for(|cue| *cue != Cue::IsSilent).await;
        self.reach(Operation::Stat, path)?;
        if self.ignores_case {
            let state = self.state.lock();
            let mut objects = state.objects.iter();
            let found = objects.find(|(there, _)| there.eq_ignore_ascii_case(path.as_bytes()));
            return Ok(found.map_or(Presence::Absent, |(_, object)| Presence::Found(object.metadata())));
        }
        Ok(self.found(path.as_bytes()))
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        self.reach(Operation::List, directory)?;
        if !directory.is_root() && self.found(directory.as_bytes()) == Presence::Absent {
            return Ok(Presence::Absent);
        }
        let state = self.state.lock();
        let mut children = BTreeMap::new();
        for (path, object) in &state.objects {
            let rest = if directory.is_root() {
                Some(path.as_slice())
            } else {
                let rest = path.strip_prefix(directory.as_bytes());
                rest.and_then(|rest| rest.strip_prefix(b"/"))
            };
            let mut parts = rest.unwrap_or_default().splitn(2, |byte| *byte == b'/');
            match (parts.next().filter(|name| !name.is_empty()), parts.next()) {
                (Some(name), None) => drop(children.insert(name, object.metadata())),
                // Where directories are real, it is there by itself.
                (Some(name), Some(_)) if !self.real_directories() => {
                    children.entry(name).or_insert_with(|| OF_STORE.metadata());
                }
                _ => {}
            }
        }
        let children = children.into_iter().map(|(name, metadata)| Child {
            name: name.to_vec(),
            metadata,
        });
        let pages = [Ok(children.collect())];
        Ok(Presence::Found(futures::stream::iter(pages).boxed()))
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        let mut cue = self.cue.subscribe();
        if *cue.borrow() == Cue::HoldsReads {
            self.held_reads.send_modify(|count| *count += 1);
        }
        let _changed = cue.wait_for(|cue| *cue != Cue::HoldsReads).await;
        self.reach(Operation::Read, path)?;
        let object = self.state.lock().objects.get(path.as_bytes()).cloned();
        let Some(object) = object else {
            return Ok(Presence::Absent);
        };
        if object.metadata().version != *version {
            return Err(self.error(ErrorKind::VersionChanged, Operation::Read, path));
        }
        let bytes = object.bytes.unwrap_or_default();
        Ok(Presence::Found(
            bytes[range.start as usize..range.end as usize].to_vec().into(),
        ))
    }

    async fn read_link(&self, _path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        Ok(Presence::Absent)
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        self.puts.send_modify(|count| *count += 1);
        self.refuse(Operation::Put, path)?;
        let (bytes, log) = self.take_in(path, body).await?;
        let cue = *self.cue.subscribe().wait_for(|cue| *cue != Cue::Holds).await.unwrap();
        if let Cue::Fails(kind) = cue {
            return Err(self.error(kind, Operation::Put, path));
        }
        let directory = path.parent();
        if self.real_directories() && !directory.is_root() && self.found(directory.as_bytes()) == Presence::Absent {
            return Err(self.error(ErrorKind::NotADirectory, Operation::Put, path));
        }
        if !expected.holds(&self.found(path.as_bytes())) {
            return Err(self.error(ErrorKind::Conflict, Operation::Put, path));
        }
        if cue == Cue::TakesAndGoes {
            // Before anybody sees that it is there.
            self.set_cue(Cue::IsAway);
        }
        let metadata = self.insert(path.as_bytes(), Some(bytes));
        self.put_together(path, log).await?;
        if cue == Cue::TakesAndGoes {
            return Err(self.error(ErrorKind::TimedOut, Operation::Put, path));
        }
        self.answer(Operation::Put, path, metadata)
    }

    async fn give_up(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        self.end(path, upload)
    }

    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        self.names_are_let().await;
        self.refuse(Operation::CreateDirectory, path)?;
        if self.found(path.as_bytes()) != Presence::Absent {
            return Err(self.error(ErrorKind::Exists, Operation::CreateDirectory, path));
        }
        if matches!(self.found(path.parent().as_bytes()), Presence::Found(above) if above.kind == Kind::File) {
            return Err(self.error(ErrorKind::NotADirectory, Operation::CreateDirectory, path));
        }
        Ok(self.insert(path.as_bytes(), None))
    }

    async fn keep_directory(&self, path: &ObjectPath) -> Result<()> {
        self.names_are_let().await;
        self.refuse(Operation::CreateDirectory, path)?;
        self.insert(path.as_bytes(), None);
        Ok(())
    }

    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        self.names_are_let().await;
        self.refuse(Operation::RemoveFile, path)?;
        let found = self.found(path.as_bytes());
        if found == Presence::Absent {
            self.vain_removals.send_modify(|count| *count += 1);
            return Ok(Presence::Absent);
        }
        if !expected.holds(&found) {
            return Err(self.error(ErrorKind::Conflict, Operation::RemoveFile, path));
        }
        self.state.lock().objects.remove(path.as_bytes());
        self.changed.send_modify(|count| *count += 1);
        Ok(Presence::Found(()))
    }

    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        self.names_are_let().await;
        self.refuse(Operation::RemoveDirectory, path)?;
        let mut state = self.state.lock();
        if state.holds_anything(path.as_bytes()) {
            return Err(self.error(ErrorKind::NotEmpty, Operation::RemoveDirectory, path));
        }
        let removed = state.objects.remove(path.as_bytes());
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        Ok(removed.map_or(Presence::Absent, |_| Presence::Found(())))
    }

    async fn copy(&self, from: &ObjectPath, version: &Version, to: &ObjectPath) -> Result<Presence<Metadata>> {
        self.copies.send_modify(|count| *count += 1);
        if *self.cue.borrow() == Cue::Dawdles {
            tokio::time::sleep(DAWDLING).await;
        }
        let cue = *self.cue.subscribe().wait_for(|cue| *cue != Cue::Holds).await.unwrap();
        self.refuse(Operation::Rename, from)?;
        let Some(object) = self.state.lock().objects.get(from.as_bytes()).cloned() else {
            return Ok(Presence::Absent);
        };
        if object.metadata().version != *version {
            return Err(self.error(ErrorKind::Conflict, Operation::Rename, from));
        }
        if self.found(to.as_bytes()) != Presence::Absent {
            return Err(self.error(ErrorKind::Exists, Operation::Rename, to));
        }
        let bytes = object.bytes.unwrap_or_default();
        if cue == Cue::TakesAndGoes {
            self.set_cue(Cue::IsAway);
        }
        self.place(&String::from_utf8_lossy(to.as_bytes()), &bytes);
        if cue == Cue::TakesAndGoes {
            return Err(self.error(ErrorKind::TimedOut, Operation::Rename, from));
        }
        let Presence::Found(copy) = self.found(to.as_bytes()) else {
            return Ok(Presence::Absent);
        };
        self.answer(Operation::Rename, from, Presence::Found(copy))
    }

    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        self.names_are_let().await;
        self.refuse(Operation::Rename, from)?;
        if *self.cue.borrow() == Cue::IgnoresRenames {
            let mut cue = self.cue.subscribe();
            let _changed = cue.wait_for(|cue| *cue != Cue::IgnoresRenames).await;
            return Err(self.error(ErrorKind::TimedOut, Operation::Rename, from));
        }
        let is_last = *self.cue.borrow() == Cue::RenamesAndIsSilent;
        if is_last {
            // Before anybody sees that it is done.
            self.set_cue(Cue::IsSilent);
        }
        let metadata = {
            let mut state = self.state.lock();
            if !replace && state.objects.contains_key(to.as_bytes()) {
                return Err(self.error(ErrorKind::Exists, Operation::Rename, to));
            }
            if state.holds_anything(to.as_bytes()) {
                return Err(self.error(ErrorKind::NotEmpty, Operation::Rename, to));
            }
            let Some(metadata) = state.rename(from.as_bytes(), to.as_bytes()) else {
                return Ok(Presence::Absent);
            };
            metadata
        };
        self.changed.send_modify(|count| *count += 1);
        let mut cue = self.cue.subscribe();
        let _changed = cue.wait_for(|cue| *cue != Cue::TellsLate).await;
        if *self.cue.borrow() == Cue::RenamesAndForbids {
            return Err(self.error(ErrorKind::PermissionDenied, Operation::Rename, from));
        }
        if is_last || *self.cue.borrow() == Cue::LosesRenames {
            return Err(self.error(ErrorKind::TimedOut, Operation::Rename, from));
        }
        Ok(Presence::Found(metadata))
    }
}
