//! One `ssh` process and the exchanges over it.
//!
//! Requests are numbered and may be answered in any order. A task writes them, another reads the answers and hands each
//! to whoever waits for it. An answer that nobody waits for any more is dropped; if it opened something, that is closed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use super::wire::{self, Extensions, Reply, Request};
use super::words;
use crate::socket::Vigil;
use crate::{ErrorKind, Limits, SourceSpec};

/// How much of what `ssh` says is kept for the error message, in bytes.
const WORDS_MAX: usize = 4096;

/// Why an exchange failed: the session is of no more use, or the server made no sense.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) why: String,
}

/// How `ssh` is called for a source.
#[derive(Clone, Debug)]
pub(super) struct SshCommand {
    arguments: Vec<String>,
    /// The file of the private key, where one is set.
    key: Option<PathBuf>,
}

impl SshCommand {
    /// Plans the call, or says why it cannot be.
    pub(super) fn of(spec: &SourceSpec, limits: &Limits) -> Result<Self, String> {
        let host = spec.host().ok_or("the URI names no host")?;
        let mut options = vec![
            // Nobody is there to answer.
            "BatchMode=yes".to_owned(),
            format!("ConnectTimeout={}", limits.connect_timeout.as_secs().max(1)),
            // A connection that has silently gone is noticed in time for another try: after three such spans without a word.
            format!(
                "ServerAliveInterval={}",
                Vigil::of(limits.request_timeout).again.as_secs().max(1)
            ),
            "ServerAliveCountMax=2".to_owned(),
            "TCPKeepAlive=yes".to_owned(),
            // A connection of its own, whatever the user shares elsewhere.
            "ControlMaster=no".to_owned(),
            "ControlPath=none".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ];
        match spec.setting("known_hosts") {
            Some("accept") => {
                options.push("StrictHostKeyChecking=no".to_owned());
                options.push("UserKnownHostsFile=/dev/null".to_owned());
            }
            Some("add") => options.push("StrictHostKeyChecking=accept-new".to_owned()),
            _ => options.push("StrictHostKeyChecking=yes".to_owned()),
        }
        let mut arguments = Vec::new();
        if let Some(key) = spec.setting("key") {
            arguments.extend(["-i".to_owned(), key.to_owned()]);
            options.push("IdentitiesOnly=yes".to_owned());
        }
        arguments.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
        if let Some(port) = spec.port() {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = spec.user() {
            arguments.extend(["-l".to_owned(), user.to_owned()]);
        }
        // The dashes keep a host's name from being taken for an option.
        arguments.extend(["-s", "--", host, "sftp"].map(str::to_owned));
        let key = spec.setting("key").map(PathBuf::from);
        Ok(Self { arguments, key })
    }

    fn spawn(&self) -> Result<Child, Fault> {
        Command::new("ssh")
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt typed at a terminal is meant for us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Fault {
                kind: ErrorKind::Settings,
                why: format!("the program `ssh` cannot be started: {error}"),
            })
    }
}

/// An answer, and what it opened. The handle travels with it, so that an answer dropped on its way closes it.
pub(super) type Answer = (Reply, Option<Handle>);

type Waiting = HashMap<u32, oneshot::Sender<Result<Answer, Fault>>>;

/// A session with a server.
pub(super) struct Session {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    next: AtomicU32,
    /// Who waits for which answer; `None` once the session has ended.
    waiting: Mutex<Option<Waiting>>,
    ended: OnceLock<Fault>,
    extensions: Extensions,
}

impl Session {
    /// Starts `ssh` and agrees on the protocol.
    pub(super) async fn connect(command: &SshCommand) -> Result<Arc<Self>, Fault> {
        let mut child = command.spawn()?;
        let broken = || Fault {
            kind: ErrorKind::Other,
            why: "the pipes to `ssh` are missing".to_owned(),
        };
        let mut input = child.stdin.take().ok_or_else(broken)?;
        let mut output = child.stdout.take().ok_or_else(broken)?;
        let words = child.stderr.take().ok_or_else(broken)?;
        let words = tokio::spawn(last_words(words));
        let greeting = async {
            input.write_all(&[0, 0, 0, 5, wire::INIT, 0, 0, 0, 3]).await.ok()?;
            wire::decode_version(&packet(&mut output).await.ok()??)
        };
        let Some((version, extensions)) = greeting.await else {
            drop(input);
            let said = words.await.unwrap_or_default();
            return Err(words::judge(&said, command.key.as_deref()).await);
        };
        if version < 3 {
            let why = format!("the server speaks version {version} of SFTP only");
            return Err(Fault {
                kind: ErrorKind::Unsupported,
                why,
            });
        }
        // Bounded by the slots of the backend: each holds few requests at a time.
        let (outgoing, requests) = mpsc::unbounded_channel();
        let session = Arc::new(Self {
            outgoing,
            next: AtomicU32::new(1),
            waiting: Mutex::new(Some(Waiting::new())),
            ended: OnceLock::new(),
            extensions,
        });
        tokio::spawn(send(input, requests));
        let receiver = Arc::downgrade(&session);
        tokio::spawn(async move {
            let nonsense = receive(output, &receiver).await;
            // Its words are complete once it has ended, which killing it makes sure of.
            let _gone = child.start_kill();
            let fault = match nonsense {
                Some(nonsense) => nonsense,
                None => words::judge(&words.await.unwrap_or_default(), None).await,
            };
            let _reaped = child.wait().await;
            if let Some(session) = receiver.upgrade() {
                session.end(fault);
            }
        });
        Ok(session)
    }

    /// Tells whether the session can still be used.
    pub(super) fn lives(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Says what the server can do beyond the protocol.
    pub(super) fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Sends a request that nobody waits for the answer of.
    pub(super) fn send_off(&self, request: &Request) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let _ended = self.outgoing.send(request.encode(id));
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn exchange(&self, request: &Request) -> Result<Answer, Fault> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, waiter) = oneshot::channel();
        let known = self
            .waiting
            .lock()
            .as_mut()
            .map(|waiting| waiting.insert(id, answer))
            .is_some();
        if known {
            // A writer that has gone shows as the end of the session.
            let _ended = self.outgoing.send(request.encode(id));
            if let Ok(answer) = waiter.await {
                return answer;
            }
        }
        Err(self.ended.get().cloned().unwrap_or_else(lost))
    }

    fn answer(self: &Arc<Self>, id: u32, reply: Option<Reply>) {
        // Nobody waits for the answer to a close.
        let Some(waiter) = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id)) else {
            return;
        };
        let answer = match reply {
            Some(Reply::Handle(raw)) => Ok((
                Reply::Handle(Vec::new()),
                Some(Handle {
                    session: self.clone(),
                    raw,
                }),
            )),
            Some(reply) => Ok((reply, None)),
            None => Err(Fault {
                kind: ErrorKind::Nonsense,
                why: "the server's answer could not be understood".to_owned(),
            }),
        };
        // A waiter that has gone drops the answer, and with it what it opened.
        let _gone = waiter.send(answer);
    }

    fn end(&self, fault: Fault) {
        let _first_stays = self.ended.set(fault);
        // Dropping their senders wakes all who wait.
        let waiting = self.waiting.lock().take();
        drop(waiting);
    }
}

/// An open file or directory on the server.
pub(super) struct Handle {
    session: Arc<Session>,
    raw: Vec<u8>,
}

impl Handle {
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Closes it, to hear what the server says to that.
    pub(super) async fn close(mut self) -> Result<Answer, Fault> {
        let request = Request::Close(std::mem::take(&mut self.raw));
        self.session.exchange(&request).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // One that was closed already has no number any more. A session that has ended has closed everything.
        if !self.raw.is_empty() {
            self.session.send_off(&Request::Close(std::mem::take(&mut self.raw)));
        }
    }
}

/// Writes requests as they come, until the session is dropped or the pipe breaks.
async fn send(mut input: ChildStdin, mut requests: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(request) = requests.recv().await {
        if input.write_all(&request).await.is_err() {
            break;
        }
    }
}

/// Hands out answers until the connection ends, the session is dropped, or the server makes no sense.
async fn receive(mut output: ChildStdout, session: &Weak<Session>) -> Option<Fault> {
    loop {
        match packet(&mut output).await {
            Ok(Some(packet)) => {
                let session = session.upgrade()?;
                let Some((id, reply)) = wire::decode(&packet) else {
                    break;
                };
                session.answer(id, reply);
            }
            Ok(None) => return None,
            Err(TooLong) => break,
        }
    }
    Some(Fault {
        kind: ErrorKind::Nonsense,
        why: "the server does not keep to the protocol".to_owned(),
    })
}

struct TooLong;

/// Reads one packet, without its length; `None` at the end.
async fn packet(output: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, TooLong> {
    let Ok(length) = output.read_u32().await else {
        return Ok(None);
    };
    if length > wire::PACKET_MAX {
        return Err(TooLong);
    }
    let mut packet = vec![0; length as usize];
    Ok(output.read_exact(&mut packet).await.is_ok().then_some(packet))
}

/// Reads what `ssh` has to say, to its end.
async fn last_words(mut words: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = words.read(&mut buffer).await {
        let room = WORDS_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

pub(super) fn lost() -> Fault {
    Fault {
        kind: ErrorKind::Unreachable,
        why: "the connection was lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_never_an_option() {
        let spec =
            SourceSpec::parse("sftp://u@example.org:2222/a", &std::collections::BTreeMap::new()).expect("a good URI");
        let command = SshCommand::of(&spec, &Limits::default()).expect("a plan");
        let tail = &command.arguments[command.arguments.len() - 8..];
        assert_eq!(tail, ["-p", "2222", "-l", "u", "-s", "--", "example.org", "sftp"]);
    }
}
