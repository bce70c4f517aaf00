//! The bytes of a staged file, as an upload sends them.
//!
//! Always true:
//! - what is given is the file as it was when the upload began; after a write there is only an error;
//! - before the source can have all of a file through which another version shows, the journal tells what it was sent: that
//!   version may be gone with the upload, and nobody could tell any more.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use manifold_backends::{Attributes, Body, PartLog, Timestamp};
use parking_lot::Mutex;

use super::parts::Parts;
use crate::Error;
use crate::fetch::{Fetcher, base};
use crate::staging::{InUse, Reading, Sending, Staging, Tally};

/// A staged file at the moment when its upload began.
pub(crate) struct StagedBody {
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) staging: Arc<Staging>,
    pub(crate) file: InUse,
    pub(crate) sending: Sending,
    /// Where it is noted what is sent.
    pub(crate) tally: Arc<Tally>,
    pub(crate) mode: Option<u32>,
    /// Who remembers what of it the source has; `None`: nobody.
    pub(crate) parts: Option<Arc<Parts>>,
    /// How far it was read.
    pub(crate) read: Arc<AtomicU64>,
    /// Whether a part was wanted of the version that the file is based on, and that cannot be had any more.
    pub(crate) base_is_gone: Arc<AtomicBool>,
    /// Why a part could not be read of what the file was moved from: that is no failure of the source that is written to.
    pub(crate) no_origin: Arc<Mutex<Option<Error>>>,
    /// Whether a part could not be read, for whatever reason.
    pub(crate) is_unread: Arc<AtomicBool>,
}

impl StagedBody {
    /// Reads a range, the base's part within it.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let (file, sending) = (Arc::clone(self.file.file()), self.sending);
        let length = usize::try_from(range.end - range.start).map_err(|_| Error::InvalidArgument)?;
        let runtime = self.fetcher.runtime.clone();
        let read = runtime.spawn_blocking(move || {
            let mut buffer = vec![0; length];
            Ok(match file.read_sending(sending, range.start, &mut buffer)? {
                Reading::Read(rest) => Some((buffer, rest)),
                Reading::Changed => None,
            })
        });
        let Some((mut buffer, rest)) = read.await.map_err(Error::broke_off)?? else {
            return Ok(None);
        };
        if let Some(rest) = rest {
            let filled = base::fill(&self.fetcher, self.file.file().id, &rest, range.start, &mut buffer).await;
            if let Err(error) = &filled
                && rest.base.is_origin
            {
                *self.no_origin.lock() = Some(error.clone());
            } else if matches!(filled, Err(Error::Stale | Error::NotFound)) {
                self.base_is_gone.store(true, Ordering::Relaxed);
            }
            filled?;
        }
        Ok(self.file.file().is_still(self.sending).then(|| Bytes::from(buffer)))
    }

    async fn read_part(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Range { start, end } = range;
        let bytes = self.bytes(range).await.map_err(io::Error::other)?;
        let (file, tally) = (self.file.file(), &self.tally);
        let bytes = bytes.filter(|bytes| file.note_sending(self.sending, tally, start, bytes));
        let bytes = bytes.ok_or_else(|| io::Error::other("the file was written to while it was uploaded"))?;
        if file.is_to_be_recorded_when_sent(self.sending) {
            let (staging, file) = (Arc::clone(&self.staging), Arc::clone(file));
            let recorded = self.fetcher.runtime.spawn_blocking(move || staging.record(&file));
            recorded.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        self.read.fetch_max(end, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[async_trait]
impl Body for StagedBody {
    fn size(&self) -> u64 {
        self.sending.size
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let read = self.read_part(range).await;
        self.is_unread.fetch_or(read.is_err(), Ordering::Relaxed);
        read
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            modified: Some(Timestamp(self.file.file().look().modified_ns)),
            mode: self.mode,
        }
    }

    fn parts(&self) -> Option<Arc<dyn PartLog>> {
        let parts = self.parts.as_ref()?;
        Some(Arc::<Parts>::clone(parts))
    }
}
