//! Whether a server minds the conditions of a put, and of a removal.
//!
//! The services themselves do. Of a server that speaks a service's protocol it is found out once, after some objects were
//! put there, or removed in one version: one of a temporary name is put, put again and removed under conditions that do not hold,
//! and removed. A condition that the server has refused to break is left to it from then on, for objects that go in one request:
//! they need no look before. A removal is looked at all the same, since what is not there is not known by a condition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;

use super::source::Source;
use super::upload::{self, How};
use crate::write::temporary_beside;
use crate::{Body as _, ErrorKind, Expected, ObjectPath, Operation, Version};

/// So many objects are put before the server is tried: whoever saves a file now and then has no use for it.
const TRIED_AFTER: u32 = 4;
/// An entity tag that no object has.
const NO_TAG: &[u8] = b"\"00000000000000000000000000000000\"";

/// What is known of a server.
#[derive(Debug, Default)]
pub(super) struct Minds {
    /// Objects that were put with a look before.
    put: AtomicU32,
    is_tried: AtomicBool,
    /// That nothing is there.
    absence: AtomicBool,
    /// That an object is there in a version.
    version: AtomicBool,
    /// That an object is removed in a version alone.
    removal: AtomicBool,
}

impl Minds {
    /// Tells whether a condition can be left to the server.
    pub(super) fn minds(&self, expected: &Expected) -> bool {
        match expected {
            Expected::Absent => self.absence.load(Ordering::Relaxed),
            Expected::Version(_) => self.version.load(Ordering::Relaxed),
            Expected::Anything => false,
        }
    }

    /// Tells whether it can be left to the server that an object is removed in one version alone.
    pub(super) fn minds_removals(&self) -> bool {
        self.removal.load(Ordering::Relaxed)
    }
}

impl Source {
    /// Takes note that an object was put, or removed in one version, with a look before; tries the server when its time has come.
    pub(super) async fn note_looked(self: &Arc<Self>, path: &ObjectPath) {
        let minds = &self.minds;
        if minds.put.fetch_add(1, Ordering::Relaxed) + 1 < TRIED_AFTER || minds.is_tried.swap(true, Ordering::Relaxed) {
            return;
        }
        let path = temporary_beside(path);
        let Ok(raw) = self.raw(Operation::Put, &path, false) else {
            return;
        };
        let there = self.try_put(&path, &raw, &Expected::Anything).await;
        if there == Some(true) {
            let no_version = Version::from_etag(NO_TAG);
            let tag = Expected::Version(no_version.clone());
            for (expected, flag) in [(Expected::Absent, &minds.absence), (tag, &minds.version)] {
                match self.try_put(&path, &raw, &expected).await {
                    Some(was_made) => flag.store(!was_made, Ordering::Relaxed),
                    // It may say more another time.
                    None => minds.is_tried.store(false, Ordering::Relaxed),
                }
            }
            let removal = self.delete_version(Operation::RemoveFile, &path, &raw, &no_version);
            match Box::pin(removal).await {
                Err(error) if error.kind() == ErrorKind::VersionChanged => minds.removal.store(true, Ordering::Relaxed),
                Err(error) if error.may_retry() => minds.is_tried.store(false, Ordering::Relaxed),
                // It is gone, or the server does not know the condition.
                _ => {}
            }
        } else {
            minds.is_tried.store(there.is_some(), Ordering::Relaxed);
        }
        minds.put.store(0, Ordering::Relaxed);
        tracing::debug!(source = %self.name, ?minds, "tried which conditions the server minds");
        if let Err(error) = self.delete(Operation::Put, &path, &raw).await {
            tracing::warn!(source = %self.name, %path, %error, "what the server was tried with could not be removed");
        }
    }

    /// Puts the object that a server is tried with. Tells whether it was made; `None` if that is not known.
    async fn try_put(self: &Arc<Self>, path: &ObjectPath, raw: &str, expected: &Expected) -> Option<bool> {
        let body = Bytes::from_static(b"manifold");
        debug_assert!(body.size() < upload::ONE_REQUEST);
        let options = self.traits.conditions(expected);
        match upload::upload(self, path, raw.to_owned(), &body, options, How::Parts).await {
            Err(error) if error.kind() == ErrorKind::VersionChanged => Some(false),
            Err(error) if error.may_retry() => None,
            // A server that does not know the condition says so, and is not relied upon.
            _ => Some(true),
        }
    }
}
