//! Puts of large files that somebody remembers: each goes on in the file that an earlier one has left, behind what the server has
//! flushed of it.
//!
//! Such a file is not marked to go. It is noted before it is made. What it must be to be gone on with: a plain file, no shorter than
//! what was noted and no longer than the whole, which gives its last part back as it was sent: of a server that flushes nothing,
//! that is what a loss of power takes first.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::{First, PIECES, Unfinished, beside, create_at};
use crate::parts::onward::{self, Left, Onward, Sum};
use crate::smb::facts::Facts;
use crate::smb::failure::Failure;
use crate::smb::files::PIECE;
use crate::smb::service::Share;
use crate::smb::session::Session;
use crate::smb::wire;
use crate::smb::write::{Place, remove};
use crate::write::{Body, is_temporary_name, temporary_beside};
use crate::{ErrorKind, Kind, ObjectPath, PartLog};

/// How such a file is opened and removed.
const OPTIONS: u32 = wire::NON_DIRECTORY_FILE | wire::OPEN_REPARSE_POINT;

/// Takes a put up where an earlier one was broken off, or begins it.
pub(super) async fn begin(
    share: &Share,
    path: &ObjectPath,
    target: &[u16],
    body: &dyn Body,
    log: Arc<dyn PartLog>,
) -> Result<(Unfinished, Onward), Failure> {
    let size = body.size();
    if let Some((unfinished, left)) = take_up(share, target, body, &log).await? {
        return Ok((unfinished, Onward::new(log, size, Some(&left))));
    }
    let temporary = temporary_beside(path);
    let name = String::from_utf8_lossy(temporary.name());
    log.begun(&name).await.map_err(|error| {
        let text = format!("what is about to be sent could not be noted: {error}");
        Failure::new(ErrorKind::Other, text)
    })?;
    let name = beside(target, temporary.name())?;
    // The server may choose a place where all of it fits, or say at once that there is none.
    let named = || Ok(name.clone());
    let mut unfinished = create_at(share, target, named, First::Kept(size)).await?;
    // Of one that could not be begun nothing needs to stay.
    unfinished.log = Some(Arc::clone(&log));
    Ok((unfinished, Onward::new(log, size, None)))
}

/// Opens what an earlier put has left, if it can be gone on with.
async fn take_up(
    share: &Share,
    target: &[u16],
    body: &dyn Body,
    log: &Arc<dyn PartLog>,
) -> Result<Option<(Unfinished, Left)>, Failure> {
    let left = Left::of(&**log, body.size()).await.map_err(|error| {
        let text = format!("what was sent before could not be found out: {error}");
        Failure::new(ErrorKind::Other, text)
    })?;
    let Some(left) = left else {
        return Ok(None);
    };
    let name = beside(target, left.name.as_bytes())?;
    let fits =
        |facts: &Facts, left: &Left| facts.kind() == Kind::File && !facts.delete_pending && left.may_be(facts.size);
    match share.stat_wire(name.clone()).await {
        Ok(facts) if fits(&facts, &left) => {}
        Ok(facts) => return Ok(abandon(share, name, facts.kind(), &**log).await),
        Err(Failure::Absent) => return Ok(forget(&**log).await),
        Err(failure) => return Err(failure),
    }
    if !left.is_of(body).await.map_err(|error| super::unread(&error))? {
        return Ok(abandon(share, name, Kind::File, &**log).await);
    }
    let (unfinished, facts) = match open(share, &name, log).await {
        Ok(opened) => opened,
        Err(Failure::Absent) => return Ok(forget(&**log).await),
        // Some servers let files be made, and not be written to later. Whoever ends what was broken off tries to remove it.
        Err(Failure::Failed {
            kind: ErrorKind::PermissionDenied,
            ..
        }) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if fits(&facts, &left) && ends_as_it_was_sent(&unfinished, &left).await? {
        return Ok(Some((unfinished, left)));
    }
    drop(unfinished);
    Ok(abandon(share, name, Kind::File, &**log).await)
}

async fn open(share: &Share, name: &[u16], log: &Arc<dyn PartLog>) -> Result<(Unfinished, Facts), Failure> {
    let name: Arc<[u16]> = name.into();
    let _entered = share.files.announce(&name).await;
    let open = |session: Arc<Session>| {
        let (share, name, log) = (share.clone(), Arc::clone(&name), Arc::clone(log));
        async move {
            let held = share.files.hold(&name);
            let handle = session
                .open_as(&name, wire::REWRITE_FILE, OPTIONS, wire::FILE_OPEN)
                .await?;
            // From here on it is closed, should nobody wait for it any more.
            let unfinished = Unfinished {
                share,
                session,
                handle: Some(handle),
                log: Some(log),
                held: Some(held),
            };
            let facts = unfinished.session.query(handle).await?;
            Ok((unfinished, facts))
        }
    };
    share.pool.exchange(open).await
}

/// Reads the last part back that was noted.
async fn ends_as_it_was_sent(unfinished: &Unfinished, left: &Left) -> Result<bool, Failure> {
    let Some((range, noted)) = left.last() else {
        return Ok(true);
    };
    let piece = unfinished.session.read_size(PIECE);
    let starts = (range.start..range.end).step_by(piece as usize);
    let reads = starts.map(|start| {
        let length = (range.end - start).min(u64::from(piece)) as u32;
        unfinished.exchange(move |session, handle| async move {
            let mut pieces = Vec::with_capacity(1);
            let mut got = 0;
            // A server may send less than was asked for.
            while got < length {
                let bytes = session.read(handle, start + u64::from(got), length - got).await?;
                got += bytes.len() as u32;
                pieces.push(bytes);
            }
            Ok(pieces)
        })
    });
    let sum = stream::iter(reads)
        .buffered(PIECES)
        .try_fold(Sum::default(), |mut sum, pieces| async move {
            for bytes in pieces {
                sum.update(&bytes);
            }
            Ok(sum)
        });
    Ok(sum.await?.finish() == noted)
}

/// Removes what an earlier put has left and cannot be gone on with. It is remembered until it is gone.
async fn abandon<T>(share: &Share, name: Vec<u16>, kind: Kind, log: &dyn PartLog) -> Option<T> {
    if kind != Kind::File {
        // It is somebody else's.
        return forget(log).await;
    }
    match remove(share, name, OPTIONS).await {
        Ok(()) | Err(Failure::Absent) => forget(log).await,
        Err(failure) => {
            tracing::debug!(%failure, "what was left of a put that was broken off could not be removed");
            None
        }
    }
}

async fn forget<T>(log: &dyn PartLog) -> Option<T> {
    onward::ended(log).await;
    None
}

/// Removes what a put to a path has left that nobody will go on with; `Absent` if there is nothing.
pub(in crate::smb) async fn give_up(share: &Share, path: &ObjectPath, upload: &str) -> Result<(), Failure> {
    if !is_temporary_name(upload.as_bytes()) {
        return Err(Failure::Absent);
    }
    let temporary = path.parent().join(upload.as_bytes());
    match Place::of(share, &temporary).await {
        Ok(place) if place.kind() == Some(Kind::File) => remove(share, place.wire, OPTIONS).await,
        Ok(_)
        | Err(Failure::Failed {
            kind: ErrorKind::NotADirectory,
            ..
        }) => Err(Failure::Absent),
        Err(failure) => Err(failure),
    }
}
