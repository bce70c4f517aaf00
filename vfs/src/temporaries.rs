//! What uploads that were broken off have left in directories: files under names that no listing shows. They go with a directory in which
//! nothing else is.

use futures::StreamExt;
use manifold_backends::{Backend, Error, ErrorKind, Expected, Kind, ObjectPath, Presence, Result, is_temporary_name};

/// Removes an empty directory at its source, and what uploads have left in it. Who is uploading into it at this moment, from elsewhere, begins
/// anew.
pub(crate) async fn remove_directory(backend: &dyn Backend, path: &ObjectPath) -> Result<Presence<()>> {
    let error: Error = match backend.remove_directory(path).await {
        Err(error) if error.kind() == ErrorKind::NotEmpty => error,
        removed => return removed,
    };
    let mut left = Vec::new();
    let Presence::Found(mut pages) = backend.list(path).await? else {
        return Ok(Presence::Absent);
    };
    while let Some(page) = pages.next().await {
        for child in page? {
            if child.metadata.kind != Kind::File || !is_temporary_name(&child.name) {
                return Err(error);
            }
            left.push((path.join(&child.name), child.metadata.version));
        }
    }
    if left.is_empty() {
        return Err(error);
    }
    for (path, version) in left {
        tracing::debug!(%path, "what an upload has left is removed with its directory");
        match backend.remove_file(&path, &Expected::Version(version)).await {
            Ok(Presence::Found(()) | Presence::Absent) => {}
            // It is written to at this moment.
            Err(refused) if matches!(refused.kind(), ErrorKind::Conflict | ErrorKind::Busy) => return Err(error),
            Err(failed) => return Err(failed),
        }
    }
    backend.remove_directory(path).await
}
