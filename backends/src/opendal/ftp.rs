//! An FTP server, over connections of our own: `OpenDAL` takes blanks off names and any line for one; it appends where it should
//! write, knows no renames, makes nothing of an empty file, and waits for connections that have silently gone.
//!
//! A put stores a file of a temporary name and renames it. Some servers rename over what stands there; of others it is
//! removed first, so that a reader may find nothing for a moment. FTP has no conditions: what stands at the name is looked
//! at before, and again just before the renaming.
//!
//! Always true: a connection whose last exchange did not end in order is dropped, never used again.

mod answers;
pub(super) mod lines;
mod look;
mod read;
mod seconds;
mod warned;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::opendal::raw::oio;
use parking_lot::Mutex;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream, ImplAsyncFtpStream};
use suppaftp::tokio_rustls::TlsConnector;
use suppaftp::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use suppaftp::types::FileType;
use suppaftp::{FtpError, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::answers::{is_unavailable, judge, refused, shut};
use self::lines::{Lines, Told, Understood};
use self::seconds::Seconds;
use self::warned::Warned;
use super::source::Source;
use super::unfinished::Unfinished;
use super::upload;
use crate::socket::{self, Vigil};
use crate::{Body, Error, ErrorKind, Expected, Limits, Metadata, ObjectPath, Operation, Presence, Result, Secret};

/// Bytes of a body that are read at once.
const PIECE: u64 = 256 * 1024;
/// Bytes that a put holds at most: a piece, and what is made of it under TLS.
pub(super) const MEMORY_MAX: u64 = 2 * PIECE;
/// Connections for changes, and as many for listings, so that a look at a file need not wait for what is being put; those for
/// reading come on top, one for each of the source's slots, and servers allow few.
const CONNECTIONS_MAX: usize = 2;
/// For how long after its last answer a connection is taken to be there, where a question can be asked again.
const FRESH: Duration = Duration::from_secs(1);

type Line = AsyncRustlsFtpStream;

/// A server, and who asks it.
pub(super) struct Ftp {
    address: String,
    host: String,
    user: String,
    password: Option<Secret>,
    tls: bool,
    connect_patience: Duration,
    vigil: Vigil,
    permits: Semaphore,
    listings: Semaphore,
    idle: Mutex<Vec<Idle>>,
    seconds: Seconds,
    /// Directories of which it was said that they hold names that cannot be asked for.
    broken: Warned,
}

/// A connection that waits for the next question.
struct Idle {
    line: Line,
    /// When its last exchange ended.
    heard: Instant,
}

/// What has to be known of a connection before something is asked over it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// That it answers now. What changes something is asked once.
    Answers,
    /// That it answered a moment ago. Where it turns out to be gone all the same, whoever asks does so once more, over a new one.
    Answered,
}

/// A connection to ask something over.
struct Ready {
    line: Line,
    /// Whether it has answered for this question, or is new.
    proven: bool,
}

/// Of which names the time of the last change is wanted to the second.
#[derive(Clone, Copy)]
enum Precisely<'a> {
    All,
    One(&'a str),
    Nothing,
}

/// What is asked of the server in one exchange, of paths from its root.
#[derive(Clone, Copy)]
enum Command<'a> {
    MakeDirectory(&'a str),
    Remove(&'a str),
    RemoveDirectory(&'a str),
    Rename(&'a str, &'a str),
}

/// Why an exchange failed: what FTP said, or nothing in time.
enum Failed {
    Ftp(FtpError),
    TimedOut,
}

impl From<FtpError> for Failed {
    fn from(error: FtpError) -> Self {
        Self::Ftp(error)
    }
}

impl Failed {
    /// Tells whether the connection was lost, or given up by the server, so that another may do.
    fn is_loss(&self) -> bool {
        match self {
            // What is cut off before its first letter is an answer of no form.
            Self::Ftp(FtpError::ConnectionError(_) | FtpError::BadResponse) => true,
            Self::Ftp(FtpError::UnexpectedResponse(response)) => response.status == Status::NotAvailable,
            _ => false,
        }
    }
}

impl Ftp {
    pub(super) fn new(
        (host, port): (&str, Option<u16>),
        user: Option<&str>,
        password: Option<Secret>,
        tls: bool,
        limits: &Limits,
    ) -> Self {
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Self {
            address: format!("{bracketed}:{}", port.unwrap_or(21)),
            host: host.to_owned(),
            user: user.unwrap_or("anonymous").to_owned(),
            password,
            tls,
            connect_patience: limits.connect_timeout,
            vigil: Vigil::of(limits.request_timeout),
            permits: Semaphore::new(CONNECTIONS_MAX),
            listings: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
            seconds: Seconds::default(),
            broken: Warned::default(),
        }
    }

    /// Lists a directory, named by its path with a slash behind it.
    pub(super) async fn list(
        &self,
        source: &Source,
        directory: &ObjectPath,
        raw: &str,
    ) -> Result<Presence<oio::Lister>> {
        let lines = self
            .lines(source, Operation::List, directory, (raw, Precisely::All))
            .await?;
        Ok(match lines {
            Presence::Found(lines) => Presence::Found(Box::new(Lines::new(raw, lines))),
            Presence::Absent => Presence::Absent,
        })
    }

    /// Reads where links of one directory point: its listing tells.
    pub(super) async fn read_links(&self, source: &Source, paths: &[ObjectPath]) -> Vec<Result<Presence<Vec<u8>>>> {
        let operation = Operation::ReadLink;
        let Some(first) = paths.first() else { return Vec::new() };
        let look = async {
            let directory = first.parent();
            let raw = source.raw(operation, &directory, true)?;
            let _slot = source.slot().await;
            self.lines(source, operation, &directory, (&raw, Precisely::Nothing))
                .await
        };
        let (told, failed) = match look.await {
            Ok(Presence::Found(told)) => (told, None),
            Ok(Presence::Absent) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some((error.kind(), error.cause().to_string()))),
        };
        let answer = |path: &ObjectPath| {
            if let Some((kind, why)) = &failed {
                return Err(source.error(*kind, operation, path, why.clone()));
            }
            let Some(there) = told.iter().find(|told| told.name.as_bytes() == path.name()) else {
                return Ok(Presence::Absent);
            };
            match &there.target {
                Some(target) => Ok(Presence::Found(target.clone())),
                None => Err(source.error(
                    ErrorKind::Unsupported,
                    operation,
                    path,
                    "the server tells of no link there",
                )),
            }
        };
        paths.iter().map(answer).collect()
    }

    async fn lines(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        (directory, precisely): (&str, Precisely<'_>),
    ) -> Result<Presence<Vec<Told>>> {
        let (_permit, mut ready) = self
            .line(&self.listings, source, operation, path, Proof::Answered)
            .await?;
        let asked = (directory != "/").then_some(directory);
        let listed = loop {
            match within(source.patience, list_on(&mut ready.line, asked)).await {
                Ok(listed) => break listed,
                Err(failed) if failed.is_loss() && !ready.proven => ready = self.anew(source, operation, path).await?,
                Err(failed) => {
                    if matches!(&failed, Failed::Ftp(FtpError::UnexpectedResponse(_))) {
                        self.keep(ready.line);
                    }
                    return match failed {
                        // "No such directory", in as many words as there are servers.
                        Failed::Ftp(error) if is_unavailable(&error) && judge(&error) == ErrorKind::Other => {
                            Ok(Presence::Absent)
                        }
                        failed => Err(self.error(source, operation, path, failed)),
                    };
                }
            }
        };
        let mut line = ready.line;
        let Ok(Understood { mut told, broken }) = lines::understand(&listed) else {
            self.keep(line);
            let why = "a line of the server's listing makes no sense";
            return Err(source.error(ErrorKind::Nonsense, operation, path, why));
        };
        if broken > 0 && operation == Operation::List && self.broken.is_first(path.as_bytes()) {
            tracing::warn!(source = %source.name, directory = %path, names = broken,
                "names with a line break in them are left out: no FTP command can ask for them");
        }
        let of = told.len();
        let anew = match precisely {
            Precisely::Nothing => {
                self.keep(line);
                return Ok(Presence::Found(told));
            }
            Precisely::One(name) => {
                told.retain(|told| told.name == name);
                true
            }
            Precisely::All => false,
        };
        let beneath = asked.unwrap_or_default();
        let seconds = self
            .seconds
            .complete((&mut line, self.tls), source.patience, beneath, &mut told, of, anew);
        match seconds.await {
            Ok(()) => self.keep(line),
            Err(failed) => return Err(self.error(source, operation, path, failed)),
        }
        Ok(Presence::Found(told))
    }

    pub(super) async fn put(
        &self,
        source: &Arc<Source>,
        path: &ObjectPath,
        body: &dyn Body,
        expected: &Expected,
    ) -> Result<Metadata> {
        let operation = Operation::Put;
        source.expect(operation, path, expected).await?;
        source.has_parent(operation, path).await?;
        let raw = source.raw(operation, path, false)?;
        let unfinished = Unfinished::beside(source, path)?;
        self.store(source, path, unfinished.raw(), body).await?;
        let there = source.expect(operation, path, expected).await?;
        let replaces = matches!(there, Presence::Found(_));
        self.move_to(source, operation, path, (unfinished.raw(), &raw), replaces)
            .await?;
        unfinished.finish();
        source.look_after(path, body.size(), ErrorKind::Conflict).await
    }

    /// Stores a body, however long it takes as long as bytes move.
    async fn store(&self, source: &Source, path: &ObjectPath, raw: &str, body: &dyn Body) -> Result<()> {
        let operation = Operation::Put;
        let (_permit, Ready { mut line, .. }) = self
            .line(&self.permits, source, operation, path, Proof::Answers)
            .await?;
        let patience = source.put_patience();
        let fault = |failed: Failed| self.error(source, operation, path, failed);
        let mut data = within(patience, line.put_with_stream(raw)).await.map_err(fault)?;
        let size = body.size();
        let mut start = 0;
        while start < size {
            let end = size.min(start + PIECE);
            let piece = upload::read(source, path, body, start..end).await?;
            let written = async { data.write_all(&piece).await.map_err(FtpError::ConnectionError) };
            within(patience, written).await.map_err(fault)?;
            start = end;
        }
        within(patience, line.finalize_put_stream(data)).await.map_err(fault)?;
        // Where the server cannot tell, the look at the object does.
        if let Ok(stored) = within(patience, line.size(raw)).await
            && stored as u64 != size
        {
            let why = format!("{size} bytes were sent, and {stored} are there");
            return Err(source.error(ErrorKind::Nonsense, operation, path, why));
        }
        self.keep(line);
        Ok(())
    }

    pub(super) async fn create_directory(&self, source: &Source, path: &ObjectPath, raw: &str) -> Result<()> {
        let operation = Operation::CreateDirectory;
        source.has_parent(operation, path).await?;
        let command = Command::MakeDirectory(raw.trim_end_matches('/'));
        self.exchange(source, operation, path, command).await
    }

    pub(super) async fn delete(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        raw: &str,
    ) -> Result<Presence<()>> {
        let command = match raw.strip_suffix('/') {
            Some(directory) => Command::RemoveDirectory(directory),
            None => Command::Remove(raw),
        };
        let gone = self.exchange(source, operation, path, command).await;
        gone.map(Presence::Found)
    }

    pub(super) async fn rename(
        &self,
        source: &Arc<Source>,
        to: &ObjectPath,
        raw: (&str, &str),
        replace: bool,
    ) -> Result<()> {
        let operation = Operation::Rename;
        source.has_parent(operation, to).await?;
        let directory = raw.1.ends_with('/');
        let there = source.standing(to).await?;
        if directory && matches!(there, Presence::Found(_)) {
            // An empty directory, as was seen before.
            self.delete(source, operation, to, raw.1).await?;
        }
        let replaces = replace && !directory && matches!(there, Presence::Found(_));
        let raw = (raw.0.trim_end_matches('/'), raw.1.trim_end_matches('/'));
        self.move_to(source, operation, to, raw, replaces).await
    }

    /// Renames; what stands there is removed first if the server does not replace it.
    async fn move_to(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        raw: (&str, &str),
        replaces: bool,
    ) -> Result<()> {
        let command = Command::Rename(raw.0, raw.1);
        match self.exchange(source, operation, path, command).await {
            Err(error) if replaces && !error.may_retry() => {
                self.delete(source, operation, path, raw.1).await?;
                self.exchange(source, operation, path, command).await
            }
            renamed => renamed,
        }
    }

    /// Makes one exchange on a connection, which is kept if it ended in order.
    async fn exchange(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        command: Command<'_>,
    ) -> Result<()> {
        let (_permit, Ready { mut line, .. }) = self
            .line(&self.permits, source, operation, path, Proof::Answers)
            .await?;
        let step = async {
            match command {
                Command::MakeDirectory(name) => line.mkdir(name).await,
                Command::Remove(name) => line.rm(name).await,
                Command::RemoveDirectory(name) => line.rmdir(name).await,
                Command::Rename(from, to) => line.rename(from, to).await,
            }
        };
        let outcome = within(source.patience, step).await;
        if matches!(&outcome, Ok(()) | Err(Failed::Ftp(FtpError::UnexpectedResponse(_)))) {
            self.keep(line);
        }
        outcome.map_err(|failed| self.error(source, operation, path, failed))
    }

    /// Keeps a connection for the next question. Its last exchange has just ended, in order.
    fn keep(&self, line: Line) {
        let heard = Instant::now();
        self.idle.lock().push(Idle { line, heard });
    }

    /// Waits for a turn, and for a connection.
    async fn line<'a>(
        &self,
        permits: &'a Semaphore,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        proof: Proof,
    ) -> Result<(tokio::sync::SemaphorePermit<'a>, Ready)> {
        let permit = permits
            .acquire()
            .await
            .expect("invariant: the semaphore is never closed");
        Ok((permit, self.ready(source, operation, path, proof).await?))
    }

    /// Gives a connection.
    async fn ready(&self, source: &Source, operation: Operation, path: &ObjectPath, proof: Proof) -> Result<Ready> {
        let kept = self.idle.lock().pop();
        let Some(Idle { mut line, heard }) = kept else {
            return self.anew(source, operation, path).await;
        };
        if proof == Proof::Answered && heard.elapsed() < FRESH {
            return Ok(Ready { line, proven: false });
        }
        if within(self.vigil.unacknowledged, line.noop()).await.is_ok() {
            return Ok(Ready { line, proven: true });
        }
        self.anew(source, operation, path).await
    }

    /// Gives a new connection. If an old one was lost, what has taken that has taken the others too; to ask each would take the time of
    /// whoever waits.
    async fn anew(&self, source: &Source, operation: Operation, path: &ObjectPath) -> Result<Ready> {
        self.idle.lock().clear();
        let connecting = within(self.connect_patience + source.patience, self.connect());
        let line = connecting
            .await
            .map_err(|failed| self.error(source, operation, path, failed))?;
        Ok(Ready { line, proven: true })
    }

    async fn connect(&self) -> std::result::Result<Line, FtpError> {
        let stream = socket::connect(&self.address, self.vigil).await;
        let stream = stream.map_err(FtpError::ConnectionError)?;
        let plain: Line = ImplAsyncFtpStream::connect_with_stream(stream).await?;
        let mut line = if self.tls {
            let mut roots = RootCertStore::empty();
            // Whether there are any was seen when the source was connected.
            for certificate in rustls_native_certs::load_native_certs().certs {
                let _unusable = roots.add(certificate);
            }
            let settings = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let connector = AsyncRustlsConnector::from(TlsConnector::from(Arc::new(settings)));
            plain.into_secure(connector, &self.host).await?
        } else {
            plain
        };
        let password = self.password.as_ref().map_or("", Secret::expose);
        line.login(self.user.as_str(), password).await?;
        line.transfer_type(FileType::Binary).await?;
        Ok(line)
    }

    fn error(&self, source: &Source, operation: Operation, path: &ObjectPath, failed: Failed) -> Error {
        let (kind, why) = match failed {
            Failed::TimedOut => (ErrorKind::TimedOut, "the server says nothing".to_owned()),
            Failed::Ftp(error) => (judge(&error), error.to_string()),
        };
        let why: String = why
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(300)
            .collect();
        let why = match &self.password {
            Some(password) if !password.expose().is_empty() => why.replace(password.expose(), "***"),
            _ => why,
        };
        source.error(kind, operation, path, why.trim().to_owned())
    }
}

async fn within<T>(
    patience: Duration,
    step: impl Future<Output = std::result::Result<T, FtpError>>,
) -> std::result::Result<T, Failed> {
    match timeout(patience, step).await {
        Ok(outcome) => Ok(outcome?),
        Err(_elapsed) => Err(Failed::TimedOut),
    }
}

/// Lists a directory. Where nothing came, that it is there and could be read is made sure of: vsftpd sends nothing of one that it
/// may not open or does not find, and calls that done.
async fn list_on(line: &mut Line, directory: Option<&str>) -> std::result::Result<Vec<Vec<u8>>, FtpError> {
    const DONE: [Status; 2] = [Status::ClosingDataConnection, Status::RequestedFileActionOk];
    let command = directory.map_or_else(|| "LIST".to_owned(), |directory| format!("LIST {directory}"));
    let begun = [Status::AboutToSend, Status::AlreadyOpen];
    let (_, stream) = line.custom_data_command(command, &begun).await?;
    let (mut stream, mut listing) = (stream, Vec::new());
    stream
        .read_to_end(&mut listing)
        .await
        .map_err(FtpError::ConnectionError)?;
    let lines = lines::cut(&listing);
    if !lines.is_empty() {
        line.close_data_connection(stream).await?;
        return Ok(lines);
    }
    drop(stream);
    // The words with which it ends are the answer to the next command, and that one's answer is what the end is taken for.
    let end = line.custom_command("NOOP", &DONE).await?;
    match line.close_data_connection(tokio::io::empty()).await {
        Err(FtpError::UnexpectedResponse(noop)) if noop.status == Status::CommandOk => {}
        Err(error) => return Err(error),
        Ok(()) => return Err(FtpError::BadResponse),
    }
    let words = String::from_utf8_lossy(&end.body).to_lowercase();
    let failed = ["fail", "denied", "cannot", "not permitted"]
        .iter()
        .any(|word| words.contains(word));
    let Some(directory) = directory else {
        return if failed { Err(shut()) } else { Ok(lines) };
    };
    let home = line.pwd().await?;
    let Err(missing) = line.cwd(directory).await else {
        line.cwd(home).await?;
        return if failed { Err(shut()) } else { Ok(lines) };
    };
    // It is not there, or may not be gone into: the directory above tells which.
    let path = directory.trim_end_matches('/');
    let (above, name) = path
        .rsplit_once('/')
        .map_or((None, path), |(above, name)| (Some(above), name));
    let above = above.filter(|above| !above.is_empty()).map(|above| format!("{above}/"));
    let lines = Box::pin(list_on(line, above.as_deref())).await?;
    let told = lines::understand(&lines).unwrap_or_default().told;
    Err(match told.iter().find(|line| line.name == name) {
        Some(there) if there.mode.is_dir() => shut(),
        Some(_) => refused("550 Not a directory"),
        None => missing,
    })
}

#[cfg(test)]
mod tests {
    use suppaftp::types::Response;

    use super::*;

    #[test]
    fn a_refusal_is_understood_by_number_or_word() {
        for (status, words, kind) in [
            (Status::ExceededStorage, "552 no", ErrorKind::Full),
            (
                Status::FileUnavailable,
                "550 Permission denied.",
                ErrorKind::PermissionDenied,
            ),
            (Status::FileUnavailable, "550 Directory not empty", ErrorKind::NotEmpty),
            (
                Status::FileUnavailable,
                "550 Delete operation failed.",
                ErrorKind::Other,
            ),
            (Status::NotLoggedIn, "530 Please log in", ErrorKind::CredentialsRefused),
            (Status::NotAvailable, "421 Too many connections", ErrorKind::Unreachable),
        ] {
            let body = words.as_bytes().to_vec();
            let error = FtpError::UnexpectedResponse(Response { status, body });
            assert_eq!(judge(&error), kind, "{words}");
        }
    }
}
