//! Reads: one range of one version.

use std::ops::Range;
use std::sync::Arc;

use ::opendal::BytesRange;
use ::opendal::options::ReaderOptions;
use ::opendal::raw::{OpRead, OpReader};
use bytes::{Bytes, BytesMut};

use super::plan::ReadGuard;
use super::source::Source;
use crate::{Error, ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Result, Version};

impl Source {
    pub(super) async fn read(
        self: &Arc<Self>,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Presence<Bytes>> {
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
            return Ok(Presence::Found(Bytes::new()));
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
        let fetched = self.fetch(path, &raw, options, &range).await;
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
            Presence::Found((bytes, served)) => {
                if served.is_some_and(|served| guard.contradicts(&served)) {
                    return Err(self.changed(path));
                }
                Ok(Presence::Found(bytes))
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
    ) -> Result<Presence<(Bytes, Option<::opendal::Metadata>)>> {
        let length = range.end - range.start;
        let _slot = self.slot().await;
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
        let mut gathered = Gathered::new(length);
        loop {
            let piece = match self.step(Operation::Read, path, stream.read_dyn()).await? {
                Presence::Found((piece, _)) => piece,
                Presence::Absent => return Ok(Presence::Absent),
            };
            if piece.is_empty() {
                break;
            }
            for bytes in piece {
                if !gathered.push(bytes) {
                    let why = format!("more than the {length} bytes that were asked for came back");
                    return Err(self.error(ErrorKind::Nonsense, Operation::Read, path, why));
                }
            }
        }
        match gathered.finish() {
            Ok(bytes) => Ok(Presence::Found((bytes, reply.into_metadata()))),
            Err(got) => {
                let why = format!("{got} bytes came back where {length} were asked for");
                Err(self.error(ErrorKind::Nonsense, Operation::Read, path, why))
            }
        }
    }
}

/// The pieces of one range, put together without a copy when there is only one.
struct Gathered {
    length: usize,
    whole: Option<Bytes>,
    pieces: BytesMut,
}

impl Gathered {
    fn new(length: u64) -> Self {
        Self {
            length: usize::try_from(length).unwrap_or(usize::MAX),
            whole: None,
            pieces: BytesMut::new(),
        }
    }

    /// Adds a piece; `false` if it is more than was asked for.
    fn push(&mut self, piece: Bytes) -> bool {
        let got = self.got() + piece.len();
        if got > self.length {
            return false;
        }
        match self.whole.take() {
            None if self.pieces.is_empty() => self.whole = Some(piece),
            first => {
                if let Some(first) = first {
                    self.pieces.reserve(self.length);
                    self.pieces.extend_from_slice(&first);
                }
                self.pieces.extend_from_slice(&piece);
            }
        }
        true
    }

    fn got(&self) -> usize {
        self.whole.as_ref().map_or(self.pieces.len(), Bytes::len)
    }

    /// Gives the bytes, or how many there are if some are missing.
    fn finish(self) -> std::result::Result<Bytes, usize> {
        let got = self.got();
        if got < self.length {
            return Err(got);
        }
        Ok(self.whole.unwrap_or_else(|| self.pieces.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(length: u64, pieces: &[&'static [u8]]) -> Option<std::result::Result<Bytes, usize>> {
        let mut gathered = Gathered::new(length);
        for piece in pieces {
            if !gathered.push(Bytes::from_static(piece)) {
                return None;
            }
        }
        Some(gathered.finish())
    }

    #[test]
    fn pieces_are_put_together_in_order() {
        assert_eq!(
            gather(6, &[b"ab", b"c", b"def"]),
            Some(Ok(Bytes::from_static(b"abcdef")))
        );
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        let place = piece.as_ptr();
        let mut gathered = Gathered::new(100);
        assert!(gathered.push(piece));
        assert_eq!(gathered.finish().map(|bytes| bytes.as_ptr()), Ok(place));
    }

    #[test]
    fn too_little_and_too_much_are_told() {
        assert_eq!(gather(6, &[b"ab", b"c"]), Some(Err(3)));
        assert_eq!(gather(6, &[b"abc", b"defg"]), None);
        assert_eq!(gather(2, &[b"abc"]), None);
    }
}
