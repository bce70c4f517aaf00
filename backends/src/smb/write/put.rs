//! A put: what it asks of the server, and in which order.
//!
//! A short file takes three messages: it is made, marked, written, given its time and flushed by one, gets its name by the second, and
//! is asked for what it has become when it is closed by the third. Where something may stand under its name, that is looked at just
//! before it gets it. A longer one is looked for before its bytes are sent too, and these go several pieces at once; a large one
//! stays where somebody remembers it ([`resume`]).

mod resume;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use smb2::types::FileId;
use tokio::sync::watch;
use tokio::time::Instant;

pub(in crate::smb) use self::resume::give_up;

use super::{Place, conflict, expect, names, not_the_root, ticks};
use crate::parts::onward::{self, Onward};
use crate::smb::facts::Facts;
use crate::smb::failure::{Failure, Left};
use crate::smb::files::PIECE;
use crate::smb::service::Share;
use crate::smb::session::{First, Session};
use crate::write::{Body, Expected, temporary_beside};
use crate::{ErrorKind, Kind, ObjectPath, PartLog};

/// Pieces of one put that are under way at once.
pub(super) const PIECES: usize = 4;
/// The first piece of a put, and the smallest: what even a slow line carries within the timeout of a request, in bytes. What is no
/// longer goes along with what makes its file.
const PIECE_MIN: u32 = 64 * 1024;
/// A piece that took less than this is followed by one of twice its size.
const FAST: Duration = Duration::from_millis(500);
/// A piece that took more than this is followed by one of half its size.
const SLOW: Duration = Duration::from_secs(2);

/// A file that a put is still writing. It goes when it is dropped, unless it got its name, or somebody remembers it.
struct Unfinished {
    share: Share,
    session: Arc<Session>,
    handle: Option<FileId>,
    /// Who remembers it.
    log: Option<Arc<dyn PartLog>>,
    /// Dropped when the handle is closed.
    held: Option<watch::Sender<()>>,
}

impl Unfinished {
    fn handle(&self) -> Result<FileId, Failure> {
        self.handle
            .ok_or_else(|| Failure::new(ErrorKind::Other, "the file is closed already"))
    }

    async fn exchange<T, R>(&self, step: impl FnOnce(Arc<Session>, FileId) -> R) -> Result<T, Failure>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let step = step(Arc::clone(&self.session), self.handle()?);
        self.share.pool.exchange_on(&self.session, step).await
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(handle), Ok(runtime)) = (self.handle.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        // With its connection the server removes the file itself.
        if self.session.is_lost() {
            return;
        }
        let (share, session, held) = (self.share.clone(), Arc::clone(&self.session), self.held.take());
        let is_kept = self.log.is_some();
        runtime.spawn(async move {
            let last = Arc::clone(&session);
            let step = async move { leave(&last, handle, is_kept).await };
            if let Err(failure) = share.pool.exchange_on(&session, step).await {
                tracing::debug!(%failure, "an unfinished file could not be removed or closed");
            }
            drop(held);
        });
    }
}

/// Closes a file that did not get its name, and has it go, unless it is to be kept.
async fn leave(session: &Session, handle: FileId, is_kept: bool) -> Result<(), Failure> {
    let doomed = if is_kept {
        Ok(())
    } else {
        session.set_doomed(handle, true).await
    };
    super::and_close(session, handle, doomed).await
}

pub(in crate::smb) async fn put(
    share: &Share,
    path: &ObjectPath,
    body: &dyn Body,
    expected: &Expected,
) -> Result<Facts, Failure> {
    not_the_root(path, ErrorKind::IsADirectory)?;
    let size = body.size();
    let is_short = size <= u64::from(PIECE_MIN);
    let target = match share.wires(path)?.only() {
        // To look twice would cost more than to send it in vain.
        Some(only) if is_short => only,
        _ => expect(share, path, expected).await?.wire,
    };
    let unfinished = send(share, path, &target, body).await?;
    let _cleared = share.files.clear(&[&target]).await;
    let is_seen = match expected {
        // The server itself sees to it.
        Expected::Absent => true,
        Expected::Version(_) => false,
        Expected::Anything => !is_short,
    };
    if !is_seen {
        expect(share, path, expected).await?;
    }
    let replace = !matches!(expected, Expected::Absent);
    let log = unfinished.log.clone();
    let (written, told) = match give_name(share, unfinished, &target, replace, size).await {
        Ok(done) => done,
        Err(failure) => return Err(refused(share, path, &target, failure, expected).await),
    };
    if let Some(log) = log {
        onward::ended(&*log).await;
    }
    let now = match told {
        Some(now) => now,
        None => share.stat_wire(target).await?,
    };
    if now.index == written.index {
        return is_whole(now, size);
    }
    Ok(now)
}

/// Sends the whole body into a file beside its place, and has it reach the disk.
async fn send(share: &Share, path: &ObjectPath, target: &[u16], body: &dyn Body) -> Result<Unfinished, Failure> {
    let size = body.size();
    let modified = || body.attributes().modified.map(ticks);
    if size <= u64::from(PIECE_MIN) {
        let bytes = read(body, 0..size).await?;
        let modified = modified();
        return create(share, path, target, First::Whole { bytes, modified }).await;
    }
    let (unfinished, onward) = match onward::log_of(body) {
        Some(log) => {
            let (unfinished, onward) = resume::begin(share, path, target, body, log).await?;
            (unfinished, Some(onward))
        }
        // The server may choose a place where all of it fits, or say at once that there is none.
        None => (create(share, path, target, First::Length(size)).await?, None),
    };
    write_all(&unfinished, body, onward.as_ref()).await?;
    let modified = modified();
    unfinished
        .exchange(move |session, handle| async move { session.complete(handle, modified).await })
        .await?;
    if let Some(onward) = &onward {
        onward.synced().await;
    }
    Ok(unfinished)
}

/// Gives a file its name and closes it. Says what it was when it was closed, and what it is from then on, if the server tells.
async fn give_name(
    share: &Share,
    mut unfinished: Unfinished,
    target: &[u16],
    replace: bool,
    size: u64,
) -> Result<(Facts, Option<Facts>), Failure> {
    let (handle, is_kept) = (unfinished.handle()?, unfinished.log.is_some());
    // Whoever waits for it or not: once it may have its name, it is not to be removed as unfinished.
    unfinished.handle = None;
    let held = (unfinished.held.take(), share.files.change(target));
    let session = Arc::clone(&unfinished.session);
    let (last, name) = (Arc::clone(&session), target.to_vec());
    let step = async move {
        let _held = held;
        if let Err(failure) = last.keep_as(handle, &name, replace).await {
            // Where the answer is lost, it may have its name.
            if failure.left() == Left::All
                && let Err(failure) = leave(&last, handle, is_kept).await
            {
                tracing::debug!(%failure, "an unfinished file could not be removed or closed");
            }
            return Err(failure);
        }
        let (written, told) = last.close_asking(handle).await?;
        Ok((is_whole(written, size)?, told))
    };
    share.pool.exchange_on(&session, step).await
}

/// Makes sure that a file is as long as what was sent.
fn is_whole(facts: Facts, size: u64) -> Result<Facts, Failure> {
    if facts.size != size {
        let text = format!("{size} bytes were sent, and the file has {}", facts.size);
        return Err(Failure::new(ErrorKind::Nonsense, text));
    }
    Ok(facts)
}

/// Makes the file to write into, which goes when it is closed. Should the connection have broken while nobody looked, it is made
/// on another; what the server then still has of the one before goes by itself.
async fn create(share: &Share, path: &ObjectPath, target: &[u16], first: First) -> Result<Unfinished, Failure> {
    create_at(share, target, || beside(target, temporary_beside(path).name()), first).await
}

/// The same under such a name, for each try.
async fn create_at(
    share: &Share,
    target: &[u16],
    name: impl Fn() -> Result<Vec<u16>, Failure>,
    first: First,
) -> Result<Unfinished, Failure> {
    let first = Arc::new(first);
    // What is made is known itself before this is dropped.
    let _entered = share.files.announce(directory_of(target)).await;
    let create = |session: Arc<Session>| {
        let name = name();
        let (share, first) = (share.clone(), Arc::clone(&first));
        async move {
            let name = name?;
            let held = share.files.hold(&name);
            let (handle, begun) = session.make(&name, &first).await?;
            // From here on it removes itself, should nobody wait for it any more.
            let unfinished = Unfinished {
                share,
                session,
                handle: Some(handle),
                log: None,
                held: Some(held),
            };
            begun?;
            Ok(unfinished)
        }
    };
    share.pool.exchange(create).await
}

/// Gives the directory of a wire path.
fn directory_of(name: &[u16]) -> &[u16] {
    let end = name.iter().rposition(|unit| *unit == u16::from(b'\\'));
    &name[..end.unwrap_or(0)]
}

/// Gives the wire path of a name in the directory of another.
fn beside(target: &[u16], name: &[u8]) -> Result<Vec<u16>, Failure> {
    let end = target.iter().rposition(|unit| *unit == u16::from(b'\\'));
    let directory = &target[..end.map_or(0, |end| end + 1)];
    Ok([directory, &names::to_wire(&ObjectPath::from_bytes(name))?].concat())
}

/// Writes the whole body, or what is left of it, several pieces at once, of a size that suits the line.
async fn write_all(unfinished: &Unfinished, body: &dyn Body, onward: Option<&Onward>) -> Result<(), Failure> {
    let piece = AtomicU32::new(PIECE_MIN);
    let most = unfinished.session.write_size(PIECE);
    let size = body.size();
    let ranges = stream::unfold(onward.map_or(0, Onward::start), |start| {
        let length = u64::from(piece.load(Ordering::Relaxed).min(most));
        let end = onward.map_or(size, |onward| onward.part_end(start)).min(start + length);
        async move { (start < size).then_some((start..end, end)) }
    });
    let piece = &piece;
    let pieces = ranges.map(|range: Range<u64>| async move {
        let wanted = (range.end - range.start) as u32;
        let data = read(body, range.clone()).await?;
        if let Some(onward) = onward {
            onward.sum(range.start, &data).await;
        }
        let (begun, at) = (Instant::now(), range.start);
        unfinished
            .exchange(move |session, handle| async move { session.write(handle, at, &data).await })
            .await?;
        if let Some(onward) = onward {
            onward.arrived(range);
        }
        match begun.elapsed() {
            took if took < FAST => piece.fetch_max((wanted * 2).min(PIECE), Ordering::Relaxed),
            took if took > SLOW => piece.fetch_min((wanted / 2).max(PIECE_MIN), Ordering::Relaxed),
            _ => wanted,
        };
        Ok::<_, Failure>(())
    });
    let sync = || unfinished.exchange(|session, handle| async move { session.complete(handle, None).await });
    onward::write(onward, pieces.buffer_unordered(PIECES), sync).await
}

/// Reads a range of a body, all of it.
async fn read(body: &dyn Body, range: Range<u64>) -> Result<Bytes, Failure> {
    let wanted = range.end - range.start;
    let bytes = body.read(range).await.map_err(|error| unread(&error))?;
    if bytes.len() as u64 != wanted {
        return Err(Failure::new(ErrorKind::Other, "the bytes to be put ended too soon"));
    }
    Ok(bytes)
}

fn unread(error: &std::io::Error) -> Failure {
    let text = format!("the bytes to be put could not be read: {error}");
    Failure::new(ErrorKind::Other, text)
}

/// Says why a file could not take its name.
async fn refused(share: &Share, path: &ObjectPath, target: &[u16], failure: Failure, expected: &Expected) -> Failure {
    let Failure::Failed { kind, .. } = &failure else {
        return match Place::of(share, &path.parent()).await {
            Ok(Place { facts: Some(_), .. }) => Failure::new(
                ErrorKind::Other,
                "the file that was written was removed before it got its name",
            ),
            _ => failure,
        };
    };
    match kind {
        ErrorKind::Exists if matches!(expected, Expected::Absent) => match share.stat_wire(target.to_vec()).await {
            Ok(there) if there.kind() == Kind::Directory => super::directory_there(),
            _ => conflict(),
        },
        // Servers refuse to replace what anybody has open.
        ErrorKind::PermissionDenied => match share.stat_wire(target.to_vec()).await {
            Ok(there) if there.kind() == Kind::File => Failure::new(
                ErrorKind::Busy,
                "the server does not let the file be replaced; a program may have it open",
            ),
            _ => failure,
        },
        _ => failure,
    }
}
