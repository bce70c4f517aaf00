//! The upload of one object in parts, as many at once as its service takes.
//!
//! The writing is a task of its own: who is dropped while it waits leaves a task behind that ends in order, and takes back
//! what was sent so far. A part is sent again when it failed for a passing reason; what makes the object appear is not, since its
//! answer may have been lost. Where somebody remembers the parts, nothing is taken back, and the next put of the same bytes goes on
//! from there (see [`resume`]).

use std::sync::Arc;

use ::opendal::options::WriteOptions;
use ::opendal::raw::{OpWrite, Service as _, Servicer, Timestamp};
use ::opendal::{Buffer, Metadata as Seen};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::mpsc;

use super::plan::Writes;
use super::resume::{Resumption, Way};
use super::source::Source;
use super::{RETRIES, RETRY_PAUSE, transport};
use crate::{Body, Error, ErrorKind, Expected, ObjectPath, Operation, Presence, Result};

const MIB: u64 = 1024 * 1024;
/// The length of a part of an object that is not too large for it, in bytes.
const PART: u64 = 8 * MIB;
/// The longest part, in bytes.
const PART_MAX: u64 = 32 * MIB;
/// Parts of one object; services take a few more.
const PARTS_MAX: u64 = 9_900;
/// Bytes of all the parts that are on the way at once; but one always is.
const ON_THE_WAY: u64 = 32 * MIB;
/// Parts in memory beside those on the way: one is being read, one waits to be taken, one is kept back until it is known
/// whether another follows.
const PARTS_WAITING: u64 = 3;

/// Objects up to this length, in bytes, go in one request.
pub(super) const ONE_REQUEST: u64 = PART;
/// The largest object that is uploaded in parts, in bytes.
pub(super) const SIZE_MAX: u64 = PART_MAX * PARTS_MAX;
/// Bytes that an upload in parts holds at most.
pub(super) const MEMORY_MAX: u64 = PART_MAX * (PARTS_WAITING + 1);

/// How an object is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    part: u64,
    at_once: u64,
}

impl Cut {
    fn of(size: u64) -> Self {
        let mut part = PART;
        while part * PARTS_MAX < size {
            part *= 2;
        }
        Self {
            part,
            at_once: (ON_THE_WAY / part).max(1),
        }
    }
}

/// How an object is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How<'a> {
    /// In parts.
    Parts,
    /// In parts, and only if this is still what stands there when all are sent.
    IfStill(&'a Expected),
    /// In one request.
    Whole,
}

/// What an upload came to.
pub(super) struct Uploaded {
    /// What the service said of the object.
    pub(super) seen: Seen,
    /// The server's time when it said so.
    pub(super) at: Option<Timestamp>,
    /// The MD5 of the bytes of each part, in order.
    pub(super) parts: Vec<[u8; 16]>,
}

/// Uploads a body to `raw`. `None` if an earlier put was to be taken up of which the service has nothing any more.
pub(super) async fn upload(
    source: &Arc<Source>,
    path: &ObjectPath,
    raw: String,
    body: &dyn Body,
    mut options: WriteOptions,
    how: How<'_>,
) -> Result<Option<Uploaded>> {
    let whole = how == How::Whole;
    let size = body.size();
    let mut cut = Cut::of(size);
    if whole {
        cut = Cut {
            part: size.max(1),
            at_once: 1,
        };
    }
    options.concurrent = cut.at_once as usize;
    let capability = source.bare.capability();
    let args = match OpWrite::from_options(&capability, options) {
        Ok((args, _)) => args,
        Err(error) => return Err(source.error(ErrorKind::Other, Operation::Put, path, error.to_string())),
    };
    let resumption = match body.parts().filter(|_| size > cut.part) {
        Some(log) => Some(Arc::new(Resumption::of(log).await.map_err(|error| {
            Error::new(
                ErrorKind::Other,
                Operation::Put,
                source.name.as_str(),
                path.clone(),
                error,
            )
        })?)),
        None => None,
    };
    let service = if size > cut.part {
        &source.bare
    } else {
        &source.in_one_request
    };
    let (parts, coming) = mpsc::channel(1);
    let writing = write(
        Arc::clone(source),
        path.clone(),
        (service.clone(), raw),
        (args, cut.at_once),
        coming,
        resumption.clone(),
    );
    let task = match &resumption {
        Some(resumption) => tokio::spawn(Way::TakeUp(Arc::clone(resumption)).scope(writing)),
        None => tokio::spawn(writing),
    };
    let mut sums = Vec::new();
    let mut start = 0;
    while start < size {
        let end = size.min(start + cut.part);
        let bytes = read(source, path, body, start..end).await?;
        if !whole {
            let sum = Md5::digest(&bytes).into();
            if let Some(resumption) = &resumption {
                resumption.cut(bytes.len() as u64, sum);
            }
            sums.push(sum);
        }
        if parts.send(Some(Buffer::from(bytes))).await.is_err() {
            break;
        }
        start = end;
    }
    if size == 0 {
        sums.push(Md5::digest(b"").into());
    }
    if let How::IfStill(expected) = how {
        // Nothing is to be seen of it before its end is told.
        source.expect(Operation::Put, path, expected).await?;
    }
    // One that has ended says why.
    let _ended = parts.send(None).await;
    match task.await {
        Ok(Err(_)) if resumption.is_some_and(|put| put.takes_up() && put.is_useless()) => Ok(None),
        Ok(done) => {
            let (seen, at) = done?;
            Ok(Some(Uploaded { seen, at, parts: sums }))
        }
        Err(error) => Err(source.error(ErrorKind::Other, Operation::Put, path, error.to_string())),
    }
}

/// Reads a part of a body, exactly.
pub(super) async fn read(
    source: &Source,
    path: &ObjectPath,
    body: &dyn Body,
    range: std::ops::Range<u64>,
) -> Result<Bytes> {
    let wanted = range.end - range.start;
    match body.read(range).await {
        Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
        Ok(_) => {
            let why = "the bytes to be put ended too soon";
            Err(source.error(ErrorKind::Other, Operation::Put, path, why))
        }
        Err(error) => Err(Error::new(
            ErrorKind::Other,
            Operation::Put,
            source.name.as_str(),
            path.clone(),
            error,
        )),
    }
}

async fn write(
    source: Arc<Source>,
    path: ObjectPath,
    (service, raw): (Servicer, String),
    (args, at_once): (OpWrite, u64),
    mut coming: mpsc::Receiver<Option<Buffer>>,
    resumption: Option<Arc<Resumption>>,
) -> Result<(Seen, Option<Timestamp>)> {
    let _turn = source.put_turn(at_once).await;
    let failed = |error: &::opendal::Error| source.error(ErrorKind::Other, Operation::Put, &path, error.to_string());
    let mut writer = service
        .write_dyn(&source.context, &raw, args)
        .map_err(|error| failed(&error))?;
    let step = async {
        let mut empty = true;
        while let Some(part) = coming.recv().await {
            transport::moved();
            let Some(part) = part else {
                if empty {
                    // Services differ in what they make of nothing at all.
                    writer.write_dyn(Buffer::new()).await?;
                }
                return writer.close_dyn().await.map(Some);
            };
            empty = false;
            let mut tries = 0;
            while let Err(error) = writer.write_dyn(part.clone()).await {
                if !error.is_temporary() || tries == RETRIES {
                    return Err(error);
                }
                tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(tries as u32)).await;
                tries += 1;
            }
        }
        Ok(None)
    };
    let outcome = source
        .step_within(source.put_patience(), Operation::Put, &path, step)
        .await;
    if let Ok(Presence::Found((Some(seen), answer))) = outcome {
        if let Some(resumption) = &resumption {
            resumption.ended().await;
        }
        return Ok((seen, answer.at));
    }
    // Nobody waits for it any more, or it failed: nothing of it is to stay that nobody remembers.
    if resumption.as_ref().is_none_or(|put| !put.is_to_be_kept()) {
        let done = match tokio::time::timeout(source.patience, writer.abort_dyn()).await {
            Ok(Err(error)) if error.kind() != ::opendal::ErrorKind::NotFound => {
                tracing::debug!(source = %source.name, kind = %error.kind(), "an upload was not taken back");
                false
            }
            Ok(_) => true,
            Err(_elapsed) => {
                tracing::debug!(source = %source.name, "an upload was not taken back in time");
                false
            }
        };
        if let Some(resumption) = resumption.filter(|_| done) {
            resumption.ended().await;
        }
    }
    match outcome {
        Err(error) => Err(error),
        Ok(Presence::Found(_)) => Err(source.error(ErrorKind::Other, Operation::Put, &path, "it was given up")),
        Ok(Presence::Absent) => {
            let why = "the source has no place for it";
            Err(source.error(source.nowhere(), Operation::Put, &path, why))
        }
    }
}

/// Takes back what was sent of an upload that was broken off.
///
/// A writer ends no upload but its own. So one is made that is told of this one when it begins, and whose parts are not sent.
pub(super) async fn give_up(source: &Arc<Source>, path: &ObjectPath, id: &str) -> Result<Presence<()>> {
    if !matches!(source.traits.writes, Writes::Store { .. }) {
        return Err(source.unsupported(Operation::Put, path));
    }
    let raw = source.raw(Operation::Put, path, false)?;
    let step = async {
        let (args, _) = OpWrite::from_options(&source.bare.capability(), WriteOptions::default())?;
        let mut writer = source.bare.write_dyn(&source.context, &raw, args)?;
        for _ in 0..2 {
            writer.write_dyn(Buffer::from("none")).await?;
        }
        writer.abort_dyn().await
    };
    source
        .ask(Operation::Put, path, Way::GiveUp(id.into()).scope(step))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_stays_within_its_bounds_whatever_its_size() {
        for size in [0, 1, PART, 100 * PART, PART * PARTS_MAX + 1, SIZE_MAX] {
            let cut = Cut::of(size);
            assert!(size.div_ceil(cut.part) <= PARTS_MAX, "{size}");
            assert!(cut.part * (cut.at_once + PARTS_WAITING) <= MEMORY_MAX, "{size}");
        }
        assert_eq!(Cut::of(PART), Cut { part: PART, at_once: 4 });
    }
}
