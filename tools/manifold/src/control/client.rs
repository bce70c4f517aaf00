//! The command's end of the control socket.
//!
//! Always true: nobody waits for a daemon that has stopped. While an answer takes its time, the daemon is asked beside it
//! whether it is there at all.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::server::reachable;
use super::{Call, LINE_MAX, Line, Outcome, Reply, Request, VERSION};
use crate::failure::{Failure, Result, io_failure};

/// How long an answer may take for which no source has to be waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one may take that needs a source: longer than any deadline that a setting can set.
const SOURCE_PATIENCE: Duration = Duration::from_mins(15);
/// How long an answer is waited for before the daemon is asked whether it is there, and between two such questions.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// How long a daemon that is there may take to say so. It may be busy, and have many to answer.
const SIGN_PATIENCE: Duration = Duration::from_secs(15);

/// The part of a line that any version has.
#[derive(serde::Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    /// Its process, where the system tells.
    daemon: Option<i32>,
}

impl Client {
    /// Connects; `None` if no daemon listens there.
    pub(crate) async fn connect(socket: &Path) -> Result<Option<Self>> {
        let (address, _folder) = match reachable(socket) {
            Ok(reached) => reached,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_failure("reach", socket, &error)),
        };
        // The kernel takes connections for a daemon that has stopped, but only so many.
        let Ok(connected) = timeout(SIGN_PATIENCE, UnixStream::connect(&address)).await else {
            return Err(hangs(None));
        };
        match connected {
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
                    socket: socket.to_owned(),
                    daemon: peer.pid(),
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
            | Request::Rescan { .. }
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
        let line = self.line_of_the_living();
        let line = match patience {
            None => line.await?,
            Some(patience) => timeout(patience, line)
                .await
                .unwrap_or_else(|_| Ok(Err(io::ErrorKind::TimedOut.into())))?,
        };
        let line = line.map_err(gone)?;
        if line.is_empty() {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        understand(&line)
    }

    /// Waits for as long as it takes for what follows an answer; `None` when the daemon hangs up.
    pub(crate) async fn next(&mut self) -> Result<Option<Reply>> {
        let line = self.line_of_the_living().await?;
        match line.map_err(|error| Failure::new(format!("cannot hear from the daemon: {error}")))? {
            line if line.is_empty() => Ok(None),
            line => understand(&line).map(Some),
        }
    }

    /// Waits for a line for as long as the daemon is there.
    async fn line_of_the_living(&mut self) -> Result<io::Result<Vec<u8>>> {
        let (socket, daemon) = (self.socket.clone(), self.daemon);
        let mut line = pin!(self.line());
        loop {
            tokio::select! {
                biased;
                line = &mut line => return Ok(line),
                () = sleep(ASK_AFTER) => {}
            }
            tokio::select! {
                biased;
                line = &mut line => return Ok(line),
                sign = timeout(SIGN_PATIENCE, sign_of_life(&socket)) => {
                    if sign.is_err() {
                        return Err(hangs(daemon));
                    }
                }
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_MAX);
        bounded.read_until(b'\n', &mut line).await?;
        Ok(line)
    }
}

/// Asks a daemon something that it can answer at once, and waits for that; or finds that it has gone, which whoever waits for
/// its answer is told by the end of the connection.
async fn sign_of_life(socket: &Path) -> io::Result<()> {
    let (address, _folder) = reachable(socket)?;
    let mut stream = BufReader::new(UnixStream::connect(&address).await?);
    // Jobs are numbered from 1, so that it has nothing to look up.
    let mut call = serde_json::to_vec(&Call {
        version: VERSION,
        request: Request::RescanProgress { job: 0 },
    })?;
    call.push(b'\n');
    stream.get_mut().write_all(&call).await?;
    stream.read_until(b'\n', &mut Vec::new()).await.map(drop)
}

/// Says that a daemon does not answer, and what can be done.
fn hangs(daemon: Option<i32>) -> Failure {
    let (name, pid) = daemon.map_or_else(
        || (String::new(), "PID".to_owned()),
        |pid| (format!(" (process {pid})"), pid.to_string()),
    );
    Failure::new(format!(
        "the daemon of this library{name} does not answer: it was stopped, or hangs"
    ))
    .hint(format!("if it was stopped, let it go on: kill -CONT {pid}"))
    .hint(format!(
        "else end it, and mount again; nothing is lost: kill -KILL {pid}; manifold unmount; manifold mount"
    ))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixListener;

    use super::super::server::{Answer, Server};
    use super::super::text::Text;
    use super::*;
    use crate::events::{Follower, Hub};

    fn list() -> Request {
        Request::List {
            path: Text::new("/"),
            after: None,
            limit: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_has_stopped_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        // As the kernel does for one that was stopped: it takes the connection, and nobody reads.
        let _listener = UnixListener::bind(&socket).expect("it can listen");
        let follow = Request::Events;
        for request in [list(), Request::CacheVerify, Request::Status, follow] {
            let mut client = Client::connect(&socket).await.expect("no error").expect("it listens");
            let failure = client.ask(request).await.expect_err("nobody answers");
            assert!(failure.message().contains("does not answer"), "{failure}");
            let pid = format!("kill -CONT {}", std::process::id());
            assert!(failure.hints().iter().any(|hint| hint.contains(&pid)), "{failure}");
        }
    }

    /// Takes its time for some answers, and gives others at once.
    struct Busy(Hub);

    impl Answer for Busy {
        async fn answer(self: Arc<Self>, request: Request) -> Result<Reply> {
            if let Request::RescanProgress { .. } = request {
                return Err(Failure::new("there is no such job"));
            }
            sleep(Duration::from_mins(10)).await;
            Ok(Reply::Cleared { bytes: 7 })
        }

        fn follow(&self) -> Follower {
            self.0.follow()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_takes_its_time_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let server = Server::bind(&socket).expect("it can listen");
        let asked = async {
            let mut client = Client::connect(&socket).await.expect("no error").expect("it listens");
            client.ask(list()).await
        };
        let answered = tokio::select! {
            () = server.serve(Arc::new(Busy(Hub::new()))) => unreachable!("it serves for ever"),
            answered = asked => answered,
        };
        assert!(matches!(answered, Ok(Reply::Cleared { bytes: 7 })), "{answered:?}");
    }
}
