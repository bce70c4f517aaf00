//! Changes: what every kind does before and after, and how object stores and drives are changed.
//!
//! - An object appears whole: a store makes it of its parts in one step, a drive takes it in one request.
//! - Conditions travel with the request where the service takes them. Not every server that speaks a service's protocol
//!   minds them, so that all but the service's own are looked at before too.
//! - What comes back is compared with what was sent: by its size, and by its MD5 where the entity tag is made of it.
//!
//! Always true: a request that changes something is sent once; what is not known to have been made is an error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::opendal::options::WriteOptions;
use md5::{Digest as _, Md5};
use tokio::sync::SemaphorePermit;

use super::plan::Writes;
use super::source::{Own, Source};
use super::upload::{self, How, Uploaded};
use super::{dav, ftp, path};
use crate::{
    Body, Condition, Error, ErrorKind, Expected, Kind, Metadata, ObjectPath, Operation, Presence, Renames, Result,
    Version, WriteAbilities,
};

/// How much longer than any other request a put may wait while no bytes move: those that lie in the system's buffers have
/// yet to leave, and servers take their time to make an object of its parts.
const PUT_GRACE: Duration = Duration::from_mins(1);
/// How often a put that may replace anything begins anew, because what it was about to replace had changed.
const ANEW_MAX: usize = 4;
/// Bytes that are read back at once to be compared.
const COMPARED: u64 = 8 * 1024 * 1024;

/// How many of a source's slots puts may take.
pub(super) fn put_slots(concurrency: u32) -> u32 {
    (concurrency / 2).max(1)
}

impl Writes {
    /// Tells whether it is a service of which it is known that it minds conditions.
    pub(super) fn is_the_service(self) -> bool {
        matches!(self, Self::Store { minds_conditions: true })
    }

    /// Says what a kind can do; `None` if nothing.
    pub(super) fn abilities(self) -> Option<WriteAbilities> {
        let store = WriteAbilities {
            condition: Condition::Look,
            memory_max: upload::MEMORY_MAX,
            size_max: upload::SIZE_MAX,
            replaces_at_once: true,
            real_directories: false,
            renames_files: Renames::Copied,
            renames_directories: Renames::No,
            keeps_modified: false,
            keeps_mode: false,
            makes_links: false,
        };
        let server = WriteAbilities {
            size_max: i64::MAX as u64,
            real_directories: true,
            renames_files: Renames::Whole,
            renames_directories: Renames::Whole,
            ..store
        };
        Some(match self {
            Self::Not => return None,
            Self::Store { minds_conditions } => WriteAbilities {
                condition: if minds_conditions {
                    Condition::Source
                } else {
                    Condition::Look
                },
                ..store
            },
            Self::Dav => WriteAbilities {
                memory_max: dav::MEMORY_MAX,
                replaces_at_once: false,
                ..server
            },
            Self::Ftp => WriteAbilities {
                memory_max: ftp::MEMORY_MAX,
                replaces_at_once: false,
                ..server
            },
            Self::Drive { size_max, .. } => WriteAbilities {
                memory_max: 3 * size_max,
                size_max,
                ..server
            },
        })
    }
}

impl Source {
    /// Waits for the turn of a put that makes up to `requests` at once. Puts have half of the source's slots among them, so that
    /// one is left for the looks that they take; where there is only one, they go without.
    pub(super) async fn put_turn(&self, requests: u64) -> (SemaphorePermit<'_>, Option<SemaphorePermit<'_>>) {
        let concurrency = self.capabilities.concurrency;
        let most = put_slots(concurrency);
        let wanted = u32::try_from(requests).map_or(most, |requests| requests.min(most));
        let closed = "invariant: the semaphore is never closed";
        let turn = self.puts.acquire_many(wanted).await.expect(closed);
        let slots = if concurrency > 1 {
            Some(self.slots.acquire_many(wanted).await.expect(closed))
        } else {
            None
        };
        (turn, slots)
    }

    pub(super) fn put_patience(&self) -> Duration {
        self.patience + PUT_GRACE
    }

    /// Says what it means that a put found no place for its object.
    pub(super) fn nowhere(&self) -> ErrorKind {
        if self.traits.implicit_directories {
            ErrorKind::NoSuchSource
        } else {
            ErrorKind::NotADirectory
        }
    }

    pub(super) async fn put(
        self: &Arc<Self>,
        path: &ObjectPath,
        body: &dyn Body,
        expected: &Expected,
    ) -> Result<Metadata> {
        let most = self.traits.writes.abilities().map_or(u64::MAX, |able| able.size_max);
        if body.size() > most {
            let why = format!("it has {} bytes, and this kind of source takes {most}", body.size());
            return Err(self.error(ErrorKind::TooLarge, Operation::Put, path, why));
        }
        let outcome = match (&self.own, self.traits.writes) {
            (Own::Dav(dav), _) => match dav.put(self, path, body, expected).await {
                Err(error) if error.kind() == ErrorKind::Other && self.leads_nowhere(path).await => {
                    Err(self.no_directory(Operation::Put, path))
                }
                put => put,
            },
            (Own::Ftp(ftp), _) => ftp.put(self, path, body, expected).await,
            (Own::None, Writes::Store { minds_conditions }) => {
                self.put_to_store(path, body, expected, minds_conditions).await
            }
            (Own::None, Writes::Not) => Err(self.unsupported(Operation::Put, path)),
            (Own::None, _) => self.put_to_drive(path, body, expected).await,
        };
        outcome.map_err(|error| match error.kind() {
            ErrorKind::VersionChanged => error.with_kind(ErrorKind::Conflict),
            _ => error,
        })
    }

    /// Looks at what stands there, and refuses what was not expected.
    pub(super) async fn expect(
        &self,
        operation: Operation,
        path: &ObjectPath,
        expected: &Expected,
    ) -> Result<Presence<Metadata>> {
        if path.is_root() {
            let why = "it is the source's own folder";
            return Err(self.error(ErrorKind::IsADirectory, operation, path, why));
        }
        let found = self.standing(path).await?;
        if matches!(&found, Presence::Found(metadata) if metadata.kind == Kind::Directory) {
            return Err(self.error(ErrorKind::IsADirectory, operation, path, "a directory stands there"));
        }
        if expected.holds(&found) {
            return Ok(found);
        }
        Err(self.conflict(operation, path))
    }

    pub(super) fn conflict(&self, operation: Operation, path: &ObjectPath) -> Error {
        let why = "what stands there is not what was expected";
        self.error(ErrorKind::Conflict, operation, path, why)
    }

    /// Looks at what stands at a path that is to be changed. A name that is missing is absent, also where it could be the
    /// garbled form of another.
    pub(super) async fn standing(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        match self.stat(path).await {
            Err(error) if error.kind() == ErrorKind::BadPath && path::may_be_garbled(path.as_bytes()) => {
                self.absent(Operation::Stat).await
            }
            answer => answer,
        }
    }

    /// Looks at what was put. Another size is an error of this kind: `Conflict` where all was seen to have come before, so
    /// that what is there now is somebody else's.
    pub(super) async fn look_after(&self, path: &ObjectPath, size: u64, otherwise: ErrorKind) -> Result<Metadata> {
        match self.stat_object(Operation::Put, path).await? {
            Presence::Found(now) if now.size == size => Ok(now),
            Presence::Found(now) => {
                let why = format!("{size} bytes were sent, and {} are there", now.size);
                Err(self.error(otherwise, Operation::Put, path, why))
            }
            Presence::Absent => {
                let why = "the server took it, and does not have it";
                Err(self.error(otherwise, Operation::Put, path, why))
            }
        }
    }

    async fn put_to_store(
        self: &Arc<Self>,
        path: &ObjectPath,
        body: &dyn Body,
        expected: &Expected,
        is_the_service: bool,
    ) -> Result<Metadata> {
        if path.is_root() {
            self.expect(Operation::Put, path, expected).await?;
        }
        let raw = self.raw(Operation::Put, path, false)?;
        if raw.ends_with('/') {
            let why = "a name that ends in a slash stands for a directory";
            return Err(self.error(ErrorKind::BadPath, Operation::Put, path, why));
        }
        let in_one = body.size() <= upload::ONE_REQUEST;
        let minds_conditions = is_the_service || (in_one && self.minds.minds(expected));
        // Of a server that was tried, an object that goes in one request is not worth another: beside a directory that somebody has
        // just made, it can be reached all the same.
        if is_the_service && !matches!(expected, Expected::Version(_)) && self.any_beneath(Operation::Put, path).await?
        {
            let why = "a directory stands there";
            return Err(self.error(ErrorKind::IsADirectory, Operation::Put, path, why));
        }
        let generations = self.traits.has_generations();
        let how = if minds_conditions || *expected == Expected::Anything {
            How::Parts
        } else {
            How::IfStill(expected)
        };
        let mut anew = 0;
        let uploaded = loop {
            // What is sent at once is looked at once, right before.
            let looks = match how {
                How::IfStill(_) => !in_one || generations,
                _ => !minds_conditions || (generations && *expected == Expected::Anything),
            };
            let found = if looks {
                Some(self.expect(Operation::Put, path, expected).await?)
            } else {
                None
            };
            let bound = match (&found, expected) {
                // Only what is bound to a generation goes to such a store in pieces that its like all take.
                (Some(Presence::Found(found)), Expected::Anything) if generations => {
                    Expected::Version(found.version.clone())
                }
                (Some(Presence::Absent), Expected::Anything) if generations => Expected::Absent,
                _ => expected.clone(),
            };
            let options = self.traits.conditions(&bound);
            match upload::upload(self, path, raw.clone(), body, options, how).await {
                // Perhaps the object was made of it, and the answer lost.
                Ok(None) if anew < ANEW_MAX => {
                    anew += 1;
                    if !looks {
                        self.expect(Operation::Put, path, expected).await?;
                    }
                }
                Ok(None) => {
                    let why = "the service forgets what is sent to it";
                    return Err(self.error(ErrorKind::Nonsense, Operation::Put, path, why));
                }
                Ok(Some(uploaded)) => break uploaded,
                Err(error)
                    if error.kind() == ErrorKind::VersionChanged
                        && *expected == Expected::Anything
                        && anew < ANEW_MAX =>
                {
                    anew += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let now = self.verify(path, body, &uploaded, minds_conditions).await?;
        if in_one && !minds_conditions {
            self.note_looked(path).await;
        }
        Ok(now)
    }

    /// Makes sure that the store has what was sent to it, and says what it is now. One that `is_trusted` is not asked again where
    /// its answer to the put names the bytes.
    async fn verify(
        self: &Arc<Self>,
        path: &ObjectPath,
        body: &dyn Body,
        uploaded: &Uploaded,
        is_trusted: bool,
    ) -> Result<Metadata> {
        let size = body.size();
        let made = self.traits.version_if_named(&uploaded.seen);
        if is_trusted
            && self.traits.tags_may_be_md5()
            && uploaded.parts.len() == 1
            && uploaded.seen.etag() == Some(tag_of(&uploaded.parts).as_str())
            && uploaded.at.is_some()
        {
            return Ok(Metadata {
                modified: uploaded.at.map(|at| self.in_its_unit(at)),
                ..self.file(&uploaded.seen, size)
            });
        }
        let now = match (self.stat_object(Operation::Put, path).await?, made) {
            // Some servers leave the quotes of a tag out, here or there.
            (Presence::Found(now), Some(made)) if same(&now.version, &made) => now,
            (Presence::Found(now), None) => now,
            // Somebody has changed it since: this is what was put.
            (_, Some(version)) => {
                return Ok(Metadata {
                    modified: None,
                    version,
                    ..self.file(&uploaded.seen, size)
                });
            }
            (Presence::Absent, None) => {
                let why = "the server took it, and does not have it";
                return Err(self.error(ErrorKind::Nonsense, Operation::Put, path, why));
            }
        };
        if now.size != size {
            let why = format!("{size} bytes were sent, and {} are there", now.size);
            return Err(self.error(ErrorKind::Nonsense, Operation::Put, path, why));
        }
        let Some(tag) = now.version.etag().filter(|_| self.traits.tags_may_be_md5()) else {
            return Ok(now);
        };
        if tag_of(&uploaded.parts).as_bytes() == tag || !looks_like_md5(tag) {
            return Ok(now);
        }
        // A tag of this form is the MD5 of the bytes on most servers, but not where they are encrypted for somebody.
        if !self.tags_name_no_bytes.load(Ordering::Relaxed) {
            self.compare(path, body, &now.version).await?;
            self.tags_name_no_bytes.store(true, Ordering::Relaxed);
        }
        Ok(now)
    }

    /// Reads back what was put.
    async fn compare(self: &Arc<Self>, path: &ObjectPath, body: &dyn Body, version: &Version) -> Result<()> {
        let size = body.size();
        let mut start = 0;
        while start < size {
            let range = start..size.min(start + COMPARED);
            let sent = upload::read(self, path, body, range.clone()).await?;
            let there = self.read(path, version, range.clone(), COMPARED).await?;
            if !matches!(there, Presence::Found(blocks) if blocks.concat() == sent) {
                let why = "the server has other bytes than were sent";
                return Err(self.error(ErrorKind::Nonsense, Operation::Put, path, why));
            }
            start = range.end;
        }
        Ok(())
    }

    async fn put_to_drive(
        self: &Arc<Self>,
        path: &ObjectPath,
        body: &dyn Body,
        expected: &Expected,
    ) -> Result<Metadata> {
        self.expect(Operation::Put, path, expected).await?;
        self.has_parent(Operation::Put, path).await?;
        let raw = self.raw(Operation::Put, path, false)?;
        upload::upload(self, path, raw, body, WriteOptions::default(), How::Whole).await?;
        self.look_after(path, body.size(), ErrorKind::Nonsense).await
    }

    /// Makes sure that the directory is there which something is to lie in: some services would make it.
    pub(super) async fn has_parent(&self, operation: Operation, path: &ObjectPath) -> Result<()> {
        match self.stat(&path.parent()).await? {
            Presence::Found(Metadata {
                kind: Kind::Directory, ..
            }) => Ok(()),
            _ => Err(self.no_directory(operation, path)),
        }
    }

    pub(super) fn unsupported(&self, operation: Operation, path: &ObjectPath) -> Error {
        let why = "this kind of source is only read";
        self.error(ErrorKind::Unsupported, operation, path, why)
    }

    pub(super) fn no_directory(&self, operation: Operation, path: &ObjectPath) -> Error {
        let why = "the directory that it is to lie in is not there";
        self.error(ErrorKind::NotADirectory, operation, path, why)
    }

    pub(super) fn exists(&self, operation: Operation, path: &ObjectPath) -> Error {
        self.error(ErrorKind::Exists, operation, path, "something has that name")
    }
}

/// Tells whether two versions are the same but for quotes.
fn same(one: &Version, other: &Version) -> bool {
    let bare = |tag: &[u8]| {
        tag.strip_prefix(b"\"")
            .and_then(|tag| tag.strip_suffix(b"\""))
            .unwrap_or(tag)
            .to_vec()
    };
    one == other
        || one
            .etag()
            .map(bare)
            .is_some_and(|one| other.etag().map(bare) == Some(one))
}

/// Gives the entity tag that S3 makes of the MD5 of the parts.
pub(super) fn tag_of(parts: &[[u8; 16]]) -> String {
    let hex = |sum: &[u8]| {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
        sum.iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect::<String>()
    };
    match parts {
        [whole] => format!("\"{}\"", hex(whole)),
        parts => format!("\"{}-{}\"", hex(&Md5::digest(parts.concat())), parts.len()),
    }
}

/// Tells whether an entity tag may be the MD5 of an object that was sent in one piece.
fn looks_like_md5(tag: &[u8]) -> bool {
    let bare = tag.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    bare.unwrap_or(tag).len() == 32 && bare.unwrap_or(tag).iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_made_as_s3_makes_it() {
        let whole: [u8; 16] = Md5::digest(b"hello").into();
        assert_eq!(tag_of(&[whole]), "\"5d41402abc4b2a76b9719d911017c592\"");
        assert!(tag_of(&[whole, whole]).ends_with("-2\""));
        assert!(looks_like_md5(tag_of(&[whole]).as_bytes()));
        assert!(!looks_like_md5(tag_of(&[whole, whole]).as_bytes()));
        assert!(!looks_like_md5(b"\"0x8D9\""));
    }
}
