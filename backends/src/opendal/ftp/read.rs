//! Reads: a range of a file, over a connection for its bytes alone.
//!
//! FTP has no word for where a range ends: the connection for the bytes is closed there, and the server says in its own way that
//! it could not send the rest.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use suppaftp::FtpError;
use tokio::io::AsyncReadExt;

use super::{Failed, Ftp, Line, is_unavailable, judge, within};
use crate::blocks::Blocks;
use crate::opendal::source::Source;
use crate::{ErrorKind, ObjectPath, Operation, Presence, Result};

/// Bytes that are taken from the system at once.
const PIECE: usize = 256 * 1024;

impl Ftp {
    /// Reads exactly that range, in blocks.
    pub(in crate::opendal) async fn read(
        &self,
        source: &Source,
        path: &ObjectPath,
        raw: &str,
        range: &Range<u64>,
        block_size: u64,
    ) -> Result<Presence<Vec<Bytes>>> {
        let operation = Operation::Read;
        let fault = |failed: Failed| self.error(source, operation, path, failed);
        let mut line = self.ready(source, operation, path).await?;
        let length = range.end - range.start;
        let mut data = match within(source.patience, begin(&mut line, raw, range.start)).await {
            Ok(data) => data,
            Err(Failed::Ftp(error)) => {
                if matches!(&error, FtpError::UnexpectedResponse(_)) {
                    self.idle.lock().push(line);
                }
                // "No such file", in as many words as there are servers.
                if is_unavailable(&error) && judge(&error) == ErrorKind::Other {
                    return Ok(Presence::Absent);
                }
                return Err(fault(error.into()));
            }
            Err(failed) => return Err(fault(failed)),
        };
        let mut blocks = Blocks::new(length, block_size);
        let (mut left, mut piece) = (length, BytesMut::new());
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            piece.resize(wanted, 0);
            let read = async { data.read(&mut piece).await.map_err(FtpError::ConnectionError) };
            let count = within(source.patience, read).await.map_err(fault)?;
            if count == 0 {
                break;
            }
            blocks.push(&piece[..count]);
            left -= count as u64;
        }
        let end = within(self.vigil.unacknowledged, line.finalize_retr_stream(data)).await;
        // Whatever it says of the rest, it is ready for the next question; one that says nothing is asked nothing more.
        if matches!(&end, Ok(()) | Err(Failed::Ftp(FtpError::UnexpectedResponse(_)))) {
            self.idle.lock().push(line);
        }
        blocks.finish().map(Presence::Found).map_err(|got| {
            let why = format!("{got} bytes came back where {length} were asked for");
            source.error(ErrorKind::Nonsense, operation, path, why)
        })
    }
}

async fn begin(
    line: &mut Line,
    raw: &str,
    offset: u64,
) -> std::result::Result<impl tokio::io::AsyncRead + Unpin + use<>, FtpError> {
    if offset > 0 {
        line.resume_transfer(usize::try_from(offset).unwrap_or(usize::MAX))
            .await?;
    }
    line.retr_as_stream(raw).await
}
