//! Changes on a share.
//!
//! A put writes a file of a temporary name beside the object, which is marked to go when its handle is closed: should the
//! connection break or the program die, the server removes it by itself. When all is written, flushed and still as
//! expected, the mark is taken off and the file renamed through the same handle, in place of what stands there or only
//! if nothing does; servers do either in one step.
//!
//! Always true here: a request that changes something is sent once, on a connection that has just answered; and nothing of
//! ours is open under a name that is replaced or removed ([`Files::clear`](super::files::Files::clear)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use smb2::types::FileId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::facts::Facts;
use super::failure::{Failure, Left};
use super::files::PIECE;
use super::service::Share;
use super::session::Session;
use super::{names, wire};
use crate::write::{self, Attributes, Body, Condition, Expected, Renames, WriteAbilities};
use crate::{ErrorKind, Kind, ObjectPath, Presence, Timestamp};

/// Pieces of one put that are under way at once.
const PIECES: usize = 4;
/// The first piece of a put, and the smallest: what even a slow line carries within the timeout of a request, in bytes.
const PIECE_MIN: u32 = 64 * 1024;
/// A piece that took less than this is followed by one of twice its size.
const FAST: Duration = Duration::from_millis(500);
/// A piece that took more than this is followed by one of half its size.
const SLOW: Duration = Duration::from_secs(2);

/// What SMB can do. A piece is in memory three times while it is sent: as it was read, as a request, and as a message.
pub(super) const ABILITIES: WriteAbilities = WriteAbilities {
    condition: Condition::AbsenceOnly,
    memory_max: 3 * PIECE as u64 * PIECES as u64,
    size_max: i64::MAX as u64,
    replaces_at_once: true,
    real_directories: true,
    renames_files: Renames::Whole,
    renames_directories: Renames::Whole,
    keeps_modified: true,
    keeps_mode: false,
    makes_links: false,
};

/// Where a path lies on the wire, and what stands there.
struct Place {
    wire: Vec<u16>,
    facts: Option<Facts>,
}

impl Place {
    async fn of(share: &Share, path: &ObjectPath) -> Result<Self, Failure> {
        let wires = share.wires(path)?;
        let look = |wire: Vec<u16>| async move {
            let facts = share.stat_wire(wire.clone()).await?;
            Ok((wire, facts))
        };
        match wires.find(look).await {
            Ok((wire, facts)) => Ok(Self {
                wire,
                facts: Some(facts),
            }),
            // The directory may have its name in the other form.
            Err(Failure::Absent) => Ok(Self {
                wire: beneath(share, &path.parent(), path.name()).await?,
                facts: None,
            }),
            Err(failure) => Err(failure),
        }
    }

    fn found(&self) -> Presence<crate::Metadata> {
        match &self.facts {
            Some(facts) => Presence::Found(facts.metadata()),
            None => Presence::Absent,
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.facts.as_ref().map(Facts::kind)
    }
}

/// Gives the wire path of a new name in a directory; `Absent` if the directory is not there.
async fn beneath(share: &Share, directory: &ObjectPath, name: &[u8]) -> Result<Vec<u16>, Failure> {
    let look = |wire: Vec<u16>| async move {
        let facts = share.stat_wire(wire.clone()).await?;
        Ok((wire, facts))
    };
    let (mut wire, facts) = share.wires(directory)?.find(look).await?;
    if facts.kind() != Kind::Directory {
        return Err(Failure::new(
            ErrorKind::NotADirectory,
            "what it is to lie in is not a directory",
        ));
    }
    if !wire.is_empty() {
        wire.push(u16::from(b'\\'));
    }
    wire.extend(names::to_wire(&ObjectPath::from_bytes(name))?);
    Ok(wire)
}

/// A file that a put is still writing. It goes when it is dropped, unless it got its name.
struct Unfinished {
    share: Share,
    session: Arc<Session>,
    handle: Option<FileId>,
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
        runtime.spawn(async move {
            let last = Arc::clone(&session);
            let step = async move {
                last.set_doomed(handle, true).await?;
                last.close(handle).await
            };
            if let Err(failure) = share.pool.exchange_on(&session, step).await {
                tracing::debug!(%failure, "an unfinished file could not be removed");
            }
            drop(held);
        });
    }
}

pub(super) async fn put(
    share: &Share,
    path: &ObjectPath,
    body: &dyn Body,
    expected: &Expected,
) -> Result<Facts, Failure> {
    let place = expect(share, path, expected).await?;
    let temporary = beneath(share, &path.parent(), write::temporary_beside(path).name()).await?;
    let mut unfinished = create(share, temporary).await?;
    let size = body.size();
    if size > u64::from(PIECE_MIN) {
        // The server may choose a place where all of it fits, or say at once that there is none.
        unfinished
            .exchange(move |session, handle| async move {
                let length = size.to_le_bytes().to_vec();
                session.set(handle, wire::END_OF_FILE_INFORMATION, length).await
            })
            .await?;
    }
    write_all(&unfinished, body, size).await?;
    let modified = body.attributes().modified.map(ticks);
    unfinished
        .exchange(move |session, handle| async move {
            session.flush(handle).await?;
            match modified {
                Some(modified) => {
                    let times = wire::basic_information(modified);
                    session.set(handle, wire::BASIC_INFORMATION, times).await
                }
                None => Ok(()),
            }
        })
        .await?;
    let target = place.wire.clone();
    let _cleared = share.files.clear(&[&target]).await;
    if matches!(expected, Expected::Version(_)) {
        expect(share, path, expected).await?;
    }
    let (name, replace) = (target.clone(), !matches!(expected, Expected::Absent));
    let handle = unfinished.handle()?;
    // Whoever waits for it or not: once it may have its name, it is not to be removed as unfinished.
    unfinished.handle = None;
    let held = (unfinished.held.take(), share.files.hold(&target));
    let session = Arc::clone(&unfinished.session);
    let last = Arc::clone(&session);
    let step = async move {
        let _held = held;
        let named = async {
            last.set_doomed(handle, false).await?;
            last.rename(handle, &name, replace).await
        };
        if let Err(failure) = named.await {
            // Where the answer is lost, it may have its name.
            if failure.left() == Left::All {
                let doomed = last.set_doomed(handle, true).await;
                if let Err(failure) = and_close(&last, handle, doomed).await {
                    tracing::debug!(%failure, "an unfinished file could not be removed");
                }
            }
            return Err(failure);
        }
        let written = last.query(handle).await.and_then(|written| is_whole(written, size));
        let written = match written {
            Ok(written) => written,
            Err(failure) => return and_close(&last, handle, Err(failure)).await,
        };
        // Only when it is closed does the server tell its last times.
        let told = last.close_telling(handle, written).await?;
        Ok((written, told))
    };
    let (written, told) = match share.pool.exchange_on(&session, step).await {
        Ok(done) => done,
        Err(failure) => return Err(refused(share, &target, failure, expected).await),
    };
    let now = match told {
        Some(now) => now,
        None => share.stat_wire(target).await?,
    };
    if now.index == written.index {
        return is_whole(now, size);
    }
    Ok(now)
}

/// Makes sure that a file is as long as what was sent.
fn is_whole(facts: Facts, size: u64) -> Result<Facts, Failure> {
    if facts.size != size {
        let text = format!("{size} bytes were sent, and the file has {}", facts.size);
        return Err(Failure::new(ErrorKind::Nonsense, text));
    }
    Ok(facts)
}

/// Makes the file to write into, which goes when it is closed.
async fn create(share: &Share, name: Vec<u16>) -> Result<Unfinished, Failure> {
    let session = share.pool.session().await?;
    let (making, keeper) = (Arc::clone(&session), share.clone());
    let held = share.files.hold(&name);
    let step = async move {
        let handle = making
            .open_as(&name, wire::WRITE_FILE, wire::NON_DIRECTORY_FILE, wire::FILE_CREATE)
            .await?;
        // From here on it removes itself, should nobody wait for it any more.
        let unfinished = Unfinished {
            share: keeper,
            session: Arc::clone(&making),
            handle: Some(handle),
            held: Some(held),
        };
        making.set_doomed(handle, true).await?;
        Ok(unfinished)
    };
    share.pool.exchange_on(&session, step).await
}

/// Writes the whole body, several pieces at once, of a size that suits the line.
async fn write_all(unfinished: &Unfinished, body: &dyn Body, size: u64) -> Result<(), Failure> {
    let piece = AtomicU32::new(PIECE_MIN);
    let most = unfinished.session.write_size(PIECE);
    let ranges = stream::unfold(0, |start| {
        let length = u64::from(piece.load(Ordering::Relaxed).min(most));
        async move { (start < size).then(|| (start..size.min(start + length), size.min(start + length))) }
    });
    let piece = &piece;
    let pieces = ranges.map(|range| async move {
        let wanted = range.end - range.start;
        let data = body.read(range.clone()).await.map_err(|error| {
            let text = format!("the bytes to be put could not be read: {error}");
            Failure::new(ErrorKind::Other, text)
        })?;
        if data.len() as u64 != wanted {
            return Err(Failure::new(ErrorKind::Other, "the bytes to be put ended too soon"));
        }
        let begun = Instant::now();
        unfinished
            .exchange(move |session, handle| async move { session.write(handle, range.start, &data).await })
            .await?;
        let wanted = wanted as u32;
        match begun.elapsed() {
            took if took < FAST => piece.fetch_max((wanted * 2).min(PIECE), Ordering::Relaxed),
            took if took > SLOW => piece.fetch_min((wanted / 2).max(PIECE_MIN), Ordering::Relaxed),
            _ => wanted,
        };
        Ok(())
    });
    let mut pieces = std::pin::pin!(pieces.buffer_unordered(PIECES));
    while let Some(written) = pieces.next().await {
        written?;
    }
    Ok(())
}

pub(super) async fn create_directory(share: &Share, path: &ObjectPath) -> Result<Facts, Failure> {
    not_the_root(path, ErrorKind::Exists)?;
    let place = Place::of(share, path).await?;
    if place.facts.is_some() {
        return Err(exists());
    }
    let name = place.wire.clone();
    let session = share.pool.session().await?;
    let making = Arc::clone(&session);
    let step = async move {
        let handle = making
            .open_as(&name, wire::READ_ATTRIBUTES, wire::DIRECTORY_FILE, wire::FILE_CREATE)
            .await?;
        making.close(handle).await
    };
    share.pool.exchange_on(&session, step).await?;
    share.stat_wire(place.wire).await
}

pub(super) async fn remove_file(share: &Share, path: &ObjectPath, expected: &Expected) -> Result<(), Failure> {
    let place = match expect(share, path, &Expected::Anything).await? {
        Place { facts: None, .. } => return Err(Failure::Absent),
        place if !expected.holds(&place.found()) => return Err(conflict()),
        place => place,
    };
    let options = if place.kind() == Some(Kind::File) {
        wire::NON_DIRECTORY_FILE | wire::OPEN_REPARSE_POINT
    } else {
        wire::OPEN_REPARSE_POINT
    };
    remove(share, place.wire, options).await
}

pub(super) async fn remove_directory(share: &Share, path: &ObjectPath) -> Result<(), Failure> {
    not_the_root(path, ErrorKind::Unsupported)?;
    let place = Place::of(share, path).await?;
    match place.kind() {
        None => Err(Failure::Absent),
        Some(Kind::Directory) => remove(share, place.wire, wire::DIRECTORY_FILE | wire::OPEN_REPARSE_POINT).await,
        Some(_) => Err(Failure::new(ErrorKind::NotADirectory, "it is not a directory")),
    }
}

async fn remove(share: &Share, name: Vec<u16>, options: u32) -> Result<(), Failure> {
    let _cleared = share.files.clear(&[&name]).await;
    let session = share.pool.session().await?;
    let removing = Arc::clone(&session);
    let step = async move {
        let handle = removing
            .open_as(&name, wire::CHANGE_NAME, options, wire::FILE_OPEN)
            .await?;
        let doomed = removing.set_doomed(handle, true).await;
        and_close(&removing, handle, doomed).await
    };
    share.pool.exchange_on(&session, step).await
}

pub(super) async fn rename(share: &Share, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Facts, Failure> {
    not_the_root(from, ErrorKind::Unsupported)?;
    not_the_root(to, ErrorKind::Exists)?;
    let place = Place::of(share, from).await?;
    let Some(subject) = place.facts else {
        return Err(Failure::Absent);
    };
    let target = match Place::of(share, to).await {
        Err(Failure::Absent) => {
            return Err(Failure::new(
                ErrorKind::NotADirectory,
                "the directory that it is to lie in is not there",
            ));
        }
        target => target?,
    };
    // Where upper and lower case are the same, another spelling of the name is the thing itself.
    let itself = |there: &Facts| there.index != 0 && there.index == subject.index;
    if let Some(there) = target.facts.as_ref().filter(|there| !itself(there)) {
        match (subject.kind() == Kind::Directory, there.kind() == Kind::Directory) {
            _ if !replace => return Err(exists()),
            (false, true) => return Err(Failure::new(ErrorKind::IsADirectory, "a directory stands there")),
            (true, false) => {
                let why = "what stands there is not a directory";
                return Err(Failure::new(ErrorKind::NotADirectory, why));
            }
            // No server replaces a directory.
            (true, true) => remove_directory(share, to).await?,
            (false, false) => {}
        }
    }
    let wire = match names::to_wire(&full(share, to)) {
        // Another spelling is to be stored as it is asked for.
        Ok(wire) if target.facts.as_ref().is_some_and(itself) => wire,
        _ => target.wire,
    };
    let _cleared = share.files.clear(&[&place.wire, &wire]).await;
    let session = share.pool.session().await?;
    let (renaming, old, new) = (Arc::clone(&session), place.wire, wire.clone());
    let step = async move {
        let handle = renaming
            .open_as(&old, wire::CHANGE_NAME, wire::OPEN_REPARSE_POINT, wire::FILE_OPEN)
            .await?;
        let renamed = renaming.rename(handle, &new, replace).await;
        and_close(&renaming, handle, renamed).await
    };
    share.pool.exchange_on(&session, step).await?;
    share.stat_wire(wire).await
}

pub(super) async fn set_attributes(share: &Share, path: &ObjectPath, wanted: &Attributes) -> Result<Facts, Failure> {
    let place = Place::of(share, path).await?;
    if place.facts.is_none() {
        return Err(Failure::Absent);
    }
    let Some(modified) = wanted.modified.map(ticks) else {
        return Err(Failure::new(
            ErrorKind::Unsupported,
            "of the attributes that were given, this kind of source keeps none",
        ));
    };
    let name = place.wire.clone();
    let session = share.pool.session().await?;
    let changing = Arc::clone(&session);
    let step = async move {
        let handle = changing
            .open_as(
                &name,
                wire::CHANGE_ATTRIBUTES,
                wire::OPEN_REPARSE_POINT,
                wire::FILE_OPEN,
            )
            .await?;
        let times = wire::basic_information(modified);
        let set = changing.set(handle, wire::BASIC_INFORMATION, times).await;
        and_close(&changing, handle, set).await
    };
    share.pool.exchange_on(&session, step).await?;
    share.stat_wire(place.wire).await
}

/// Closes a handle, whatever became of what it was opened for.
async fn and_close<T>(session: &Session, handle: FileId, outcome: Result<T, Failure>) -> Result<T, Failure> {
    if matches!(&outcome, Err(failure) if failure.left() != Left::All) {
        return outcome;
    }
    let closed = session.close(handle).await;
    let outcome = outcome?;
    closed.map(|()| outcome)
}

/// Looks at what stands there, and refuses what was not expected.
async fn expect(share: &Share, path: &ObjectPath, expected: &Expected) -> Result<Place, Failure> {
    not_the_root(path, ErrorKind::IsADirectory)?;
    let place = Place::of(share, path).await?;
    if place.kind() == Some(Kind::Directory) {
        return Err(Failure::new(ErrorKind::IsADirectory, "a directory stands there"));
    }
    if expected.holds(&place.found()) {
        Ok(place)
    } else {
        Err(conflict())
    }
}

/// Says why a file could not take its name.
async fn refused(share: &Share, target: &[u16], failure: Failure, expected: &Expected) -> Failure {
    match &failure {
        Failure::Failed {
            kind: ErrorKind::Exists,
            ..
        } if matches!(expected, Expected::Absent) => conflict(),
        // Servers refuse to replace what anybody has open.
        Failure::Failed {
            kind: ErrorKind::PermissionDenied,
            ..
        } => match share.stat_wire(target.to_vec()).await {
            Ok(there) if there.kind() == Kind::File => Failure::new(
                ErrorKind::Busy,
                "the server does not let the file be replaced; a program may have it open",
            ),
            _ => failure,
        },
        _ => failure,
    }
}

fn full(share: &Share, path: &ObjectPath) -> ObjectPath {
    let mut full = share.settings().root.clone();
    for name in path.as_bytes().split(|byte| *byte == b'/') {
        full = full.join(name);
    }
    full
}

fn not_the_root(path: &ObjectPath, kind: ErrorKind) -> Result<(), Failure> {
    if path.is_root() {
        return Err(Failure::new(kind, "it is the source's own folder"));
    }
    Ok(())
}

fn conflict() -> Failure {
    Failure::new(ErrorKind::Conflict, "what stands there is not what was expected")
}

fn exists() -> Failure {
    Failure::new(ErrorKind::Exists, "something has that name")
}

/// Turns a time into a FILETIME (MS-DTYP 2.3.3), of those that set a time: 0 would leave it as it is.
fn ticks(time: Timestamp) -> u64 {
    const UNIX_EPOCH_TICKS: i64 = 116_444_736_000_000_000;
    (time.0.div_euclid(100) + UNIX_EPOCH_TICKS).max(1).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_turned_into_one_of_windows() {
        assert_eq!(ticks(Timestamp(0)), 116_444_736_000_000_000);
        assert_eq!(ticks(Timestamp(150)), 116_444_736_000_000_001);
        assert_eq!(ticks(Timestamp(-1)), 116_444_735_999_999_999);
        assert!(ticks(Timestamp(i64::MIN)) > 0);
    }
}
