//! The daemon's end of the control socket.
//!
//! Always true: the socket has mode 0600 in a folder of mode 0700, and who connects is asked for its user id as well;
//! connections, lines and silences have bounds.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client::Versioned;
use super::{Call, Line, Outcome, Reply, Request, VERSION};
use crate::events::Follower;
use crate::failure::{Failure, Result, library_failure};

/// The most connections at once.
const CONNECTIONS_MAX: usize = 32;
/// The most of them that may follow events, so that commands find room.
const FOLLOWERS_MAX: usize = 16;
/// The longest request, in bytes: a path of a source and its settings.
const REQUEST_MAX: u64 = 256 << 10;
/// How long a connection may say nothing.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How long somebody may take to read an answer.
const SLOWNESS_MAX: Duration = Duration::from_secs(30);
/// The longest path that fits into a socket's address.
const ADDRESS_MAX: usize = 107;

/// Who answers.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers one request.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Result<Reply>> + Send;

    /// Follows what happens.
    fn follow(&self) -> Follower;
}

/// The socket, taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens. The caller holds the library's lock, so whatever socket is there was left behind.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| library_failure("listen on", path, &error);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let (address, _folder) = reachable(path).map_err(failed)?;
        let listener = UnixListener::bind(&address).map_err(failed)?;
        // Until here the folder's mode has kept others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve<A: Answer>(&self, who: Arc<A>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        loop {
            // Others wait in the kernel's queue meanwhile.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (who, followers) = (Arc::clone(&who), Arc::clone(&followers));
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = converse(stream, who, &followers).await {
                            tracing::debug!(%error, "a control connection broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    // Short of descriptors, mostly: it would fail again at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}

async fn converse<A: Answer>(stream: UnixStream, who: Arc<A>, followers: &Semaphore) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer, "refused a control connection of another user");
        return Ok(());
    }
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut stream).take(REQUEST_MAX);
        let Ok(read) = timeout(SILENCE_MAX, bounded.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let outcome = match understand(&line, whole) {
            Ok(Request::Events) => match followers.try_acquire() {
                Ok(_place) => return tell(stream, who.follow()).await,
                Err(_) => Err(Failure::new(format!(
                    "{FOLLOWERS_MAX} programs follow the events already"
                ))),
            },
            Ok(request) => Arc::clone(&who).answer(request).await,
            Err(failure) => Err(failure),
        };
        let said = say(&mut stream, outcome.map_or_else(Outcome::Error, Outcome::Reply)).await?;
        if !said || !whole {
            return Ok(());
        }
    }
}

/// Writes one line. Tells whether it was read in time.
async fn say(stream: &mut BufReader<UnixStream>, outcome: Outcome) -> io::Result<bool> {
    let mut line = serde_json::to_vec(&Line {
        version: VERSION,
        outcome,
    })?;
    line.push(b'\n');
    match timeout(SLOWNESS_MAX, stream.get_mut().write_all(&line)).await {
        Ok(written) => written.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Tells of what happens until the other side hangs up, or has nothing more to hear.
async fn tell(mut stream: BufReader<UnixStream>, mut follower: Follower) -> io::Result<()> {
    let mut next = Some(Reply::Done);
    while let Some(reply) = next {
        if !say(&mut stream, Outcome::Reply(reply)).await? {
            return Ok(());
        }
        next = tokio::select! {
            event = follower.next() => event.map(Reply::Event),
            // Whatever it says, or its end: a connection that follows is for nothing else.
            _said = stream.fill_buf() => None,
        };
    }
    Ok(())
}

fn understand(line: &[u8], whole: bool) -> Result<Request> {
    if !whole {
        return Err(Failure::new(format!(
            "a request is one line of at most {REQUEST_MAX} bytes"
        )));
    }
    let nonsense = |error| Failure::new(format!("the request makes no sense: {error}"));
    let found: Versioned = serde_json::from_slice(line).map_err(nonsense)?;
    if found.version != VERSION {
        return Err(Failure::new(format!(
            "the daemon speaks version {VERSION} of the control protocol, not {}",
            found.version
        )));
    }
    serde_json::from_slice::<Call>(line)
        .map(|call| call.request)
        .map_err(nonsense)
}

/// Gives a path for the socket that fits into an address. Where the path itself does not, its folder is opened and
/// named by its descriptor, which must live for as long as the address is used.
pub(super) fn reachable(socket: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if socket.as_os_str().len() <= ADDRESS_MAX {
        return Ok((socket.to_owned(), None));
    }
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((address, Some(folder)))
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::text::Text;
    use super::*;
    use crate::events::{Hub, Named, What};

    struct Echo(Hub);

    impl Answer for Echo {
        async fn answer(self: Arc<Self>, request: Request) -> Result<Reply> {
            match request {
                Request::Stop => Err(Failure::new("no").hint("ask again")),
                _ => Ok(Reply::Cleared { bytes: 7 }),
            }
        }

        fn follow(&self) -> Follower {
            self.0.follow()
        }
    }

    fn offline() -> What {
        What::SourceState {
            source: Named {
                id: 1,
                uri: "smb://nas/x".to_owned(),
                attach: Text::new("/nas"),
            },
            was: "online".to_owned(),
            state: "offline".to_owned(),
            problem: None,
        }
    }

    fn mounted() -> What {
        What::Mounted { point: Text::new("/m") }
    }

    async fn with_server<T>(socket: PathBuf, talk: impl Future<Output = T>) -> T {
        with_hub(socket, Hub::new(), talk).await
    }

    async fn with_hub<T>(socket: PathBuf, hub: Hub, talk: impl Future<Output = T>) -> T {
        let server = Server::bind(&socket).expect("it can listen");
        let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tokio::select! {
            () = server.serve(Arc::new(Echo(hub))) => unreachable!("it serves for ever"),
            done = talk => done,
        }
    }

    #[tokio::test]
    async fn replies_and_failures_come_back_also_over_a_long_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("x".repeat(120));
        fs::create_dir(&deep).expect("a folder");
        for socket in [folder.path().join("s"), deep.join("s")] {
            with_server(socket.clone(), async {
                let mut client = Client::connect(&socket).await.expect("no error").expect("it listens");
                assert!(matches!(
                    client.ask(Request::CacheVerify).await,
                    Ok(Reply::Cleared { bytes: 7 })
                ));
                let failure = client.ask(Request::Stop).await.expect_err("it says no");
                assert_eq!(failure, Failure::new("no").hint("ask again"));
                assert!(client.ask(Request::Status).await.is_ok(), "the connection goes on");
            })
            .await;
            assert!(
                Client::connect(&socket).await.expect("no error").is_none(),
                "it is gone"
            );
        }
    }

    #[tokio::test]
    async fn nonsense_and_foreign_versions_are_answered_with_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        with_server(socket.clone(), async {
            for (said, word) in [
                (&b"hello\n"[..], "makes no sense"),
                (b"{\"version\":99,\"request\":\"status\"}\n", "version 1"),
                (b"{\"version\":1,\"request\":\"dance\"}\n", "makes no sense"),
                (&vec![b'x'; REQUEST_MAX as usize], "at most"),
            ] {
                let mut stream = UnixStream::connect(&socket).await.expect("it listens");
                stream.write_all(said).await.expect("it reads");
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).await.expect("it answers");
                assert!(line.contains("\"error\"") && line.contains(word), "{line}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn who_follows_hears_of_everything_and_takes_no_place_from_commands() {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, hub) = (folder.path().join("s"), Hub::new());
        with_hub(socket.clone(), hub.clone(), async {
            let mut following = Vec::new();
            for _ in 0..FOLLOWERS_MAX {
                let mut client = Client::connect(&socket).await.expect("no error").expect("it listens");
                assert!(matches!(client.ask(Request::Events).await, Ok(Reply::Done)));
                following.push(client);
            }
            let mut one_more = Client::connect(&socket).await.expect("no error").expect("it listens");
            let failure = one_more.ask(Request::Events).await.expect_err("there are enough");
            assert!(failure.message().contains("follow the events already"));
            assert!(one_more.ask(Request::Status).await.is_ok());
            for what in [mounted(), offline()] {
                hub.tell(what.clone());
                for client in &mut following {
                    match client.next().await {
                        Ok(Some(Reply::Event(event))) => assert_eq!(event.what, what),
                        other => panic!("{other:?}"),
                    }
                }
            }
            following.clear();
            // Their places are free again as soon as the server has seen them go.
            while one_more.ask(Request::Events).await.is_err() {}
        })
        .await;
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let hub = Hub::new();
        let mut follower = hub.follow();
        for _ in 0..300 {
            hub.tell(mounted());
        }
        let first = follower.next().await.expect("there is something to hear");
        assert_eq!(first.what, What::Missed { events: 44 });
        assert_eq!(follower.next().await.expect("and more").what, mounted());
    }
}
