//! Reads: one range of one version, cut into blocks.

use std::ops::Range;
use std::sync::Arc;

use ::opendal::BytesRange;
use ::opendal::options::ReaderOptions;
use ::opendal::raw::{OpRead, OpReader};
use bytes::Bytes;

use super::plan::ReadGuard;
use super::source::{Own, Source};
use crate::blocks::Blocks;
use crate::{Error, ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Result, Version};

impl Source {
    pub(super) async fn read(
        self: &Arc<Self>,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u64,
    ) -> Result<Presence<Vec<Bytes>>> {
        if path.is_root() {
            return Err(self.error(
                ErrorKind::IsADirectory,
                Operation::Read,
                path,
                "a directory stands there",
            ));
        }
        let raw = self.raw(Operation::Read, path, false)?;
        if range.is_empty() {
            return Ok(Presence::Found(Vec::new()));
        }
        let guard = self.traits.guard(version);
        let options = match &guard {
            ReadGuard::Etag(etag) => ReaderOptions {
                if_match: Some(etag.clone()),
                ..ReaderOptions::default()
            },
            ReadGuard::Generation(id) => ReaderOptions {
                if_version_match: Some(id.clone()),
                ..ReaderOptions::default()
            },
            ReadGuard::Confirm => ReaderOptions::default(),
        };
        let (options, _): (OpRead, OpReader) = options.into();
        let fetched = self.fetch(path, &raw, options, &range, block_size).await;
        // What has changed shows in many ways: other bytes, fewer bytes, a refused range, a refused condition. Bytes that
        // came under a condition need no second look.
        let look = match &fetched {
            Ok(Presence::Found(_)) => guard == ReadGuard::Confirm,
            Ok(Presence::Absent) => false,
            Err(error) => matches!(
                error.kind(),
                ErrorKind::Nonsense | ErrorKind::VersionChanged | ErrorKind::Other
            ),
        };
        if look {
            match self.confirm(path).await? {
                Presence::Found(seen) if seen == *version => {}
                Presence::Found(_) => return Err(self.changed(path)),
                Presence::Absent => return self.missing(Operation::Read, path).await,
            }
        }
        match fetched? {
            Presence::Found((blocks, served)) => {
                if served.is_some_and(|served| guard.contradicts(&served)) {
                    return Err(self.changed(path));
                }
                Ok(Presence::Found(blocks))
            }
            Presence::Absent if self.traits.implicit_directories => match self.stat(path).await? {
                Presence::Found(Metadata {
                    kind: Kind::Directory, ..
                }) => Err(self.error(
                    ErrorKind::IsADirectory,
                    Operation::Read,
                    path,
                    "a directory stands there",
                )),
                Presence::Found(_) => Err(self.changed(path)),
                Presence::Absent => Ok(Presence::Absent),
            },
            Presence::Absent => self.missing(Operation::Read, path).await,
        }
    }

    fn changed(&self, path: &ObjectPath) -> Error {
        let why = "the object has changed since it was last looked at";
        self.error(ErrorKind::VersionChanged, Operation::Read, path, why)
    }

    /// Fetches exactly one range, and what the answer says of the object it comes from.
    async fn fetch(
        &self,
        path: &ObjectPath,
        raw: &str,
        options: OpRead,
        range: &Range<u64>,
        block_size: u64,
    ) -> Result<Presence<(Vec<Bytes>, Option<::opendal::Metadata>)>> {
        let length = range.end - range.start;
        let _slot = self.slot().await;
        if let Own::Ftp(ftp) = &self.own {
            return Ok(match ftp.read(self, path, raw, range, block_size).await? {
                Presence::Found(blocks) => Presence::Found((blocks, None)),
                Presence::Absent => Presence::Absent,
            });
        }
        let opened = self
            .step(Operation::Read, path, async {
                let reader = self.service.read_dyn(&self.context, raw, options)?;
                reader.open_dyn(BytesRange::new(range.start, Some(length))).await
            })
            .await?;
        let (reply, mut stream) = match opened {
            Presence::Found((opened, _)) => opened,
            Presence::Absent => return Ok(Presence::Absent),
        };
        let mut blocks = Blocks::new(length, block_size);
        loop {
            let piece = match self.step(Operation::Read, path, stream.read_dyn()).await? {
                Presence::Found((piece, _)) => piece,
                Presence::Absent => return Ok(Presence::Absent),
            };
            if piece.is_empty() {
                break;
            }
            for bytes in piece {
                if !blocks.push(&bytes) {
                    let why = format!("more than the {length} bytes that were asked for came back");
                    return Err(self.error(ErrorKind::Nonsense, Operation::Read, path, why));
                }
            }
        }
        match blocks.finish() {
            Ok(blocks) => Ok(Presence::Found((blocks, reply.into_metadata()))),
            Err(got) => {
                let why = format!("{got} bytes came back where {length} were asked for");
                Err(self.error(ErrorKind::Nonsense, Operation::Read, path, why))
            }
        }
    }
}
