//! The command's end of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::server::reachable;
use super::{Call, LINE_MAX, Line, Outcome, Reply, Request, VERSION};
use crate::failure::{Failure, Result, io_failure};

/// How long an answer may take for which no source has to be waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one may take that needs a source: longer than any deadline that a setting can set.
const SOURCE_PATIENCE: Duration = Duration::from_mins(15);

/// The part of a line that any version has.
#[derive(serde::Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; `None` if no daemon listens there.
    pub(crate) async fn connect(socket: &Path) -> Result<Option<Self>> {
        let (address, _folder) = match reachable(socket) {
            Ok(reached) => reached,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_failure("reach", socket, &error)),
        };
        match UnixStream::connect(&address).await {
            Ok(stream) => {
                let peer = stream
                    .peer_cred()
                    .map_err(|error| io_failure("tell who listens at", socket, &error))?;
                if peer.uid() != rustix::process::geteuid().as_raw() {
                    return Err(Failure::new(format!(
                        "the daemon of this library runs as another user (id {}), and answers nobody else",
                        peer.uid()
                    )));
                }
                Ok(Some(Self {
                    stream: BufReader::new(stream),
                }))
            }
            // A socket that nobody listens on was left behind by a daemon that was killed.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(io_failure("reach the daemon at", socket, &error)),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Reply> {
        // Work on the whole cache, on all entries of a source or on all bytes of a file takes as long as it takes.
        let patience = match request {
            Request::CacheClear { .. } | Request::CacheVerify | Request::RemoveSource { .. } | Request::Hash { .. } => {
                None
            }
            Request::List { .. }
            | Request::Stat { .. }
            | Request::Pin { .. }
            | Request::Unpin { .. }
            | Request::AddSource { .. }
            | Request::SetSource { .. }
            | Request::Reconnect { .. } => Some(SOURCE_PATIENCE),
            _ => Some(PATIENCE),
        };
        let gone = |error: io::Error| {
            Failure::new(format!("the daemon has not answered: {error}")).hint("`manifold status` tells how it is")
        };
        let mut call = serde_json::to_vec(&Call {
            version: VERSION,
            request,
        })
        .map_err(|error| Failure::new(format!("cannot write the request: {error}")))?;
        call.push(b'\n');
        self.stream.get_mut().write_all(&call).await.map_err(gone)?;
        let line = self.line();
        let line = match patience {
            None => line.await,
            Some(patience) => timeout(patience, line)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let line = line.map_err(gone)?;
        if line.is_empty() {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        understand(&line)
    }

    /// Waits for as long as it takes for what follows an answer; `None` when the daemon hangs up.
    pub(crate) async fn next(&mut self) -> Result<Option<Reply>> {
        let line = self.line().await;
        match line.map_err(|error| Failure::new(format!("cannot hear from the daemon: {error}")))? {
            line if line.is_empty() => Ok(None),
            line => understand(&line).map(Some),
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_MAX);
        bounded.read_until(b'\n', &mut line).await?;
        Ok(line)
    }
}

fn understand(line: &[u8]) -> Result<Reply> {
    // The version is looked at first: the rest of a foreign line need not make sense.
    let other = |found: u32| {
        Failure::new(format!(
            "the daemon speaks version {found} of the control protocol, this command {VERSION}"
        ))
        .hint("use the same manifold for both: `manifold unmount`, then mount again")
    };
    let nonsense = |error| Failure::new(format!("the daemon's answer makes no sense: {error}"));
    let found: Versioned = serde_json::from_slice(line).map_err(nonsense)?;
    if found.version != VERSION {
        return Err(other(found.version));
    }
    match serde_json::from_slice::<Line>(line).map_err(nonsense)?.outcome {
        Outcome::Reply(reply) => Ok(reply),
        Outcome::Error(failure) => Err(failure),
    }
}
