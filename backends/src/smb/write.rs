//! Changes on a share.
//!
//! A put writes a file of a temporary name beside the object, which is marked to go when its handle is closed: should the
//! connection break or the program die, the server removes it by itself. When all is written, flushed and still as
//! expected, the mark is taken off and the file renamed through the same handle, in place of what stands there or only
//! if nothing does; servers do either in one step. A large file that somebody remembers is not marked: the next put of it goes on
//! behind what was flushed ([`give_up`] removes it where none will).
//!
//! Always true here: a request that changes something for good is sent once, on a connection that has just answered; and nothing of
//! ours is open under a name that is replaced or removed ([`Files::clear`](super::files::Files::clear)).

mod put;

use std::sync::Arc;
use std::time::Duration;

use smb2::types::FileId;

use super::facts::Facts;
use super::failure::{Failure, Left};
use super::files::PIECE;
use super::service::Share;
use super::session::Session;
use super::{names, wire};
use crate::write::{Attributes, Condition, Expected, Renames, WriteAbilities};
use crate::{ErrorKind, Kind, ObjectPath, Presence, Timestamp};

pub(super) use put::{give_up, put};

/// What SMB can do. A piece is in memory three times while it is sent: as it was read, as a request, and as a message.
pub(super) const ABILITIES: WriteAbilities = WriteAbilities {
    condition: Condition::AbsenceOnly,
    memory_max: 3 * PIECE as u64 * put::PIECES as u64,
    size_max: i64::MAX as u64,
    replaces_at_once: true,
    real_directories: true,
    renames_files: Renames::Whole,
    renames_directories: Renames::Whole,
    keeps_modified: true,
    keeps_mode: false,
    makes_links: false,
};

/// How long to wait, in milliseconds, before a directory's rename that was refused is asked for again. What others have open beneath it, an indexer or
/// a virus scanner, is so for a moment as a rule.
const DIRECTORY_PAUSES_MS: [u64; 4] = [20, 60, 180, 540];

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

pub(super) async fn create_directory(share: &Share, path: &ObjectPath) -> Result<Facts, Failure> {
    not_the_root(path, ErrorKind::Exists)?;
    let place = Place::of(share, path).await?;
    if place.facts.is_some() {
        return Err(exists());
    }
    let name = place.wire.clone();
    let session = share.pool.session().await?;
    let making = Arc::clone(&session);
    let changing = share.files.change(&name);
    let step = async move {
        let _changing = changing;
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
        Some(Kind::Directory) => {
            let options = wire::DIRECTORY_FILE | wire::OPEN_REPARSE_POINT;
            remove(share, place.wire.clone(), options).await?;
            share.files.until_not_listed(&place.wire).await;
            Ok(())
        }
        Some(_) => Err(Failure::new(ErrorKind::NotADirectory, "it is not a directory")),
    }
}

async fn remove(share: &Share, name: Vec<u16>, options: u32) -> Result<(), Failure> {
    let _cleared = share.files.clear(&[&name]).await;
    let session = share.pool.session().await?;
    let removing = Arc::clone(&session);
    let changing = share.files.change(&name);
    let step = async move {
        let _changing = changing;
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
    let mut is_removed = false;
    if let Some(there) = target.facts.as_ref().filter(|there| !itself(there)) {
        match (subject.kind() == Kind::Directory, there.kind() == Kind::Directory) {
            _ if !replace => return Err(exists()),
            (false, true) => return Err(directory_there()),
            (true, false) => {
                let why = "what stands there is not a directory";
                return Err(Failure::new(ErrorKind::NotADirectory, why));
            }
            // No server replaces a directory.
            (true, true) => {
                remove_directory(share, to).await?;
                is_removed = true;
            }
            (false, false) => {}
        }
    }
    let wire = match names::to_wire(&full(share, to)) {
        // Another spelling is to be stored as it is asked for.
        Ok(wire) if target.facts.as_ref().is_some_and(itself) => wire,
        _ => target.wire,
    };
    let _cleared = share.files.clear(&[&place.wire, &wire]).await;
    if subject.kind() == Kind::Directory {
        let renamed = rename_directory(share, &place.wire, &wire, replace).await;
        if is_removed && matches!(&renamed, Err(failure) if failure.left() == Left::All) {
            make_again(share, to).await;
        }
        renamed?;
    } else {
        give_other_name(share, &place.wire, &wire, replace).await?;
    }
    share.stat_wire(wire).await
}

/// Makes an empty directory again that was to be replaced.
async fn make_again(share: &Share, path: &ObjectPath) {
    if let Err(error) = create_directory(share, path).await {
        tracing::debug!(%path, ?error, "an empty directory is gone that another was to take the place of");
    }
}

async fn rename_directory(share: &Share, old: &[u16], new: &[u16], replace: bool) -> Result<(), Failure> {
    let _hushed = share.files.hush(old).await;
    for pause in DIRECTORY_PAUSES_MS {
        match give_other_name(share, old, new, replace).await {
            Err(failure) if may_be_open_beneath(&failure) => tokio::time::sleep(Duration::from_millis(pause)).await,
            renamed => return renamed,
        }
    }
    give_other_name(share, old, new, replace).await
}

async fn give_other_name(share: &Share, old: &[u16], new: &[u16], replace: bool) -> Result<(), Failure> {
    let session = share.pool.session().await?;
    let (renaming, old, new) = (Arc::clone(&session), old.to_vec(), new.to_vec());
    let changing = [share.files.change(&old), share.files.change(&new)];
    let step = async move {
        let _changing = changing;
        let handle = renaming
            .open_as(&old, wire::CHANGE_NAME, wire::OPEN_REPARSE_POINT, wire::FILE_OPEN)
            .await?;
        let renamed = renaming.rename(handle, &new, replace).await;
        and_close(&renaming, handle, renamed).await
    };
    share.pool.exchange_on(&session, step).await
}

/// Tells whether a directory may have been refused another name because something beneath it is open. Servers answer that as they
/// answer whoever may not do it at all.
fn may_be_open_beneath(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Failed {
            kind: ErrorKind::PermissionDenied | ErrorKind::Busy,
            left: Left::All,
            ..
        }
    )
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
        return Err(directory_there());
    }
    if expected.holds(&place.found()) {
        Ok(place)
    } else {
        Err(conflict())
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

fn directory_there() -> Failure {
    Failure::new(ErrorKind::IsADirectory, "a directory stands there")
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
