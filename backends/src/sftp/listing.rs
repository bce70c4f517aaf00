//! Listings: batches of children, as they come. A listing holds one batch in memory.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::Server;
use super::session::Handle;
use super::wire::{Reply, Request, Status};
use crate::{Child, Error, ErrorKind, Kind, Listing, Metadata, ObjectPath, Operation, Presence, Result};

/// Children in one batch.
const BATCH: usize = 1_000;

impl Server {
    pub(super) async fn list(self: Arc<Self>, directory: &ObjectPath) -> Result<Presence<Listing>> {
        let _slot = self.slot().await;
        let request = Request::OpenDirectory(self.raw(Operation::List, directory)?);
        let handle = match self.open(Operation::List, directory, &request).await {
            Ok(Presence::Found(handle)) => handle,
            // Servers say the same of what is missing and of what is no directory.
            Ok(Presence::Absent) => {
                return match self.stat(Operation::List, directory).await? {
                    Presence::Absent => Ok(Presence::Absent),
                    Presence::Found(Metadata {
                        kind: Kind::Directory, ..
                    }) => Err(self.nonsense(Operation::List, directory)),
                    Presence::Found(_) => Err(self.not_a_directory(directory)),
                };
            }
            Err(error) => return Err(self.why_not_listed(directory, error).await),
        };
        let walk = Walk {
            server: self.clone(),
            handle,
            directory: directory.clone(),
        };
        let Some((first, rest)) = walk.next_batch().await? else {
            return Ok(Presence::Found(stream::empty().boxed()));
        };
        let rest = stream::try_unfold(rest, |walk| async {
            let Some(walk) = walk else { return Ok(None) };
            let server = walk.server.clone();
            let _slot = server.slot().await;
            walk.next_batch().await
        });
        Ok(Presence::Found(stream::once(async { Ok(first) }).chain(rest).boxed()))
    }

    /// Tells a file from a directory that could not be opened; servers say "failure" of both.
    async fn why_not_listed(&self, directory: &ObjectPath, error: Error) -> Error {
        if error.kind() != ErrorKind::Other {
            return error;
        }
        match self.stat(Operation::List, directory).await {
            Ok(Presence::Found(metadata)) if metadata.kind != Kind::Directory => self.not_a_directory(directory),
            _ => error,
        }
    }
}

/// A listing under way.
struct Walk {
    server: Arc<Server>,
    handle: Handle,
    directory: ObjectPath,
}

impl Walk {
    /// Gathers the next batch; `None` beside it where it was the last. The caller holds a slot.
    async fn next_batch(self) -> Result<Option<(Vec<Child>, Option<Self>)>> {
        let mut children = Vec::new();
        loop {
            let request = Request::ReadDirectory(self.handle.raw().to_vec());
            match self
                .server
                .ask_on(self.handle.session(), Operation::List, &self.directory, &request)
                .await?
            {
                Presence::Found(Reply::Names(names)) if !names.is_empty() => {
                    for entry in names {
                        if matches!(entry.name.as_slice(), b"." | b"..") {
                            continue;
                        }
                        let Some(metadata) = entry.attributes.metadata() else {
                            return Err(self.server.nonsense(Operation::List, &self.directory));
                        };
                        children.push(Child {
                            name: entry.name,
                            metadata,
                        });
                    }
                    if children.len() >= BATCH {
                        return Ok(Some((children, Some(self))));
                    }
                }
                Presence::Found(Reply::Status(Status::EndOfFile, _)) => {
                    return Ok((!children.is_empty()).then_some((children, None)));
                }
                _ => return Err(self.server.nonsense(Operation::List, &self.directory)),
            }
        }
    }
}
