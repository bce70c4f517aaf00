//! What uploads that were broken off have left in directories: files under names that no listing shows. They go with a directory in which
//! nothing else is, when it is removed, and when another takes its name.

use std::time::Duration;

use futures::StreamExt;
use manifold_backends::{
    Backend, Child, Error, ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Result, is_temporary_name,
};
use tokio::time::sleep;

/// How long it is waited, in ms, for what was removed to be gone: a share keeps it until it has noticed that whoever has it open is lost.
const PAUSES_MS: [u64; 4] = [20, 100, 300, 600];

/// Tells whether an upload has left something.
pub(crate) fn is_left(child: &Child) -> bool {
    child.metadata.kind == Kind::File && is_temporary_name(&child.name)
}

/// Removes an empty directory at its source, and what uploads have left in it. Who is uploading into it at this moment, from elsewhere, begins
/// anew.
pub(crate) async fn remove_directory(backend: &dyn Backend, path: &ObjectPath) -> Result<Presence<()>> {
    for pause in PAUSES_MS {
        match backend.remove_directory(path).await {
            Err(error) if error.kind() == ErrorKind::NotEmpty => {
                if take_left(backend, path, error).await?.is_absent() {
                    return Ok(Presence::Absent);
                }
            }
            removed => return removed,
        }
        sleep(Duration::from_millis(pause)).await;
    }
    backend.remove_directory(path).await
}

/// Renames a directory over another that is known to hold nothing, but for what uploads have left in it.
pub(crate) async fn rename_directory(
    backend: &dyn Backend,
    from: &ObjectPath,
    to: &ObjectPath,
) -> Result<Presence<Metadata>> {
    for pause in PAUSES_MS {
        match backend.rename(from, to, true).await {
            Err(error) if error.kind() == ErrorKind::NotEmpty => drop(take_left(backend, to, error).await?),
            renamed => return renamed,
        }
        sleep(Duration::from_millis(pause)).await;
    }
    backend.rename(from, to, true).await
}

/// Takes away what uploads have left in a directory. `error`, if anything else is in it.
async fn take_left(backend: &dyn Backend, path: &ObjectPath, error: Error) -> Result<Presence<()>> {
    let mut left = Vec::new();
    let Presence::Found(mut pages) = backend.list(path).await? else {
        return Ok(Presence::Absent);
    };
    while let Some(page) = pages.next().await {
        for child in page? {
            if !is_left(&child) {
                return Err(error);
            }
            left.push((path.join(&child.name), child.metadata.version));
        }
    }
    for (path, version) in left {
        tracing::debug!(%path, "what an upload has left is removed with its directory");
        match backend.remove_file(&path, &Expected::Version(version)).await {
            Ok(Presence::Found(()) | Presence::Absent) => {}
            // It is written to, or somebody who had it open is not known to be lost yet.
            Err(refused) if matches!(refused.kind(), ErrorKind::Conflict | ErrorKind::Busy) => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(Presence::Found(()))
}
