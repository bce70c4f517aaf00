//! Listings: pages of `OpenDAL` entries turned into children, as they come.
//!
//! A listing holds one batch in memory, whatever the size of the directory. It ends in an error if any page fails, if an
//! entry is not a child of the directory that was asked for, or if the server starts again from the beginning.

use std::mem;
use std::sync::Arc;

use ::opendal::raw::{OpList, OpStat, oio};
use ::opendal::{EntryMode, Metadata as Seen};
use futures::{StreamExt, stream};

use super::source::{Own, Source};
use crate::{Child, Error, ErrorKind, Kind, Listing, Metadata, ObjectPath, Operation, Presence, Result};

/// Children in one batch.
const BATCH: usize = 1_000;

/// A listing under way.
struct Walk {
    source: Arc<Source>,
    directory: ObjectPath,
    /// The directory as the service takes it.
    raw: String,
    lister: oio::Lister,
    /// The first child that came; seeing it again means that the server repeats itself.
    first: Option<(Vec<u8>, Kind)>,
    /// Whether an object of the directory's own name came (`a/` among the objects of `a/`).
    marker: bool,
    /// Entries that came, children or not.
    entries: u64,
    ended: bool,
}

/// Begins a listing: the first batch is fetched before it is called found.
pub(super) async fn list(source: Arc<Source>, directory: &ObjectPath) -> Result<Presence<Listing>> {
    let raw = source.raw(Operation::List, directory, true)?;
    let lister = if let Own::Ftp(ftp) = &source.own {
        let _slot = source.slot().await;
        ftp.list(&source, directory, &raw).await?
    } else {
        let lister = source.service.list_dyn(&source.context, &raw, OpList::default());
        source.ask(Operation::List, directory, async { lister }).await?
    };
    let lister = match lister {
        Presence::Found(lister) => lister,
        Presence::Absent => return source.missing(Operation::List, directory).await,
    };
    let mut walk = Walk {
        source,
        directory: directory.clone(),
        raw,
        lister,
        first: None,
        marker: false,
        entries: 0,
        ended: false,
    };
    let batch = match walk.batch().await {
        Ok(Presence::Found(batch)) => batch,
        Ok(Presence::Absent) => return walk.gone().await,
        Err(error) => return Err(walk.why(error).await),
    };
    if walk.entries == 0 {
        // Services list what does not exist as empty.
        if let Some(absent) = walk.look_if_empty_or_missing().await? {
            return Ok(absent);
        }
    }
    let rest = stream::unfold(Some(walk), |walk| async {
        let mut walk = walk?;
        if walk.ended {
            return None;
        }
        let batch = match walk.batch().await {
            Ok(Presence::Found(batch)) => Ok(batch),
            Ok(Presence::Absent) => Err(walk.error(ErrorKind::Other, "the directory vanished while it was listed")),
            Err(error) => Err(error),
        };
        let next = batch.is_ok().then_some(walk);
        Some((batch, next))
    });
    Ok(Presence::Found(stream::once(async { Ok(batch) }).chain(rest).boxed()))
}

impl Walk {
    fn error(&self, kind: ErrorKind, why: &str) -> Error {
        self.source.error(kind, Operation::List, &self.directory, why)
    }

    /// Tells a file from a directory that could not be listed: servers refuse a file each in its own words.
    async fn why(&self, error: Error) -> Error {
        let unclear = matches!(error.kind(), ErrorKind::Other | ErrorKind::Nonsense);
        if !unclear || self.source.traits.implicit_directories || self.directory.is_root() {
            return error;
        }
        match self.source.stat_object(Operation::List, &self.directory).await {
            Ok(Presence::Found(Metadata { kind: Kind::File, .. })) => {
                self.error(ErrorKind::NotADirectory, "not a directory")
            }
            _ => error,
        }
    }

    /// Answers for a directory that the service has not found.
    async fn gone(&self) -> Result<Presence<Listing>> {
        if self.source.traits.implicit_directories {
            let why = "the bucket or container does not exist";
            let root = ObjectPath::root();
            return Err(self.source.error(ErrorKind::NoSuchSource, Operation::List, &root, why));
        }
        self.source.missing(Operation::List, &self.directory).await
    }

    /// Finds out whether a directory without a single entry is there at all.
    async fn look_if_empty_or_missing(&self) -> Result<Option<Presence<Listing>>> {
        let traits = &self.source.traits;
        let bare_root = self.directory.is_root() && self.source.prefix.is_empty();
        if traits.implicit_directories || (bare_root && traits.root_needs_listing) {
            return Ok(None);
        }
        if self.directory.is_root() {
            self.source.check(Operation::List).await?;
            return Ok(None);
        }
        match self.source.stat_object(Operation::List, &self.directory).await? {
            Presence::Found(Metadata {
                kind: Kind::Directory, ..
            }) => Ok(None),
            Presence::Found(_) => Err(self.error(ErrorKind::NotADirectory, "not a directory")),
            Presence::Absent => self.source.missing(Operation::List, &self.directory).await.map(Some),
        }
    }

    /// Gathers the next batch; the last one may be short or empty.
    async fn batch(&mut self) -> Result<Presence<Vec<Child>>> {
        let source = self.source.clone();
        let mut children = Vec::new();
        while children.len() < BATCH {
            // A slot for each entry costs nothing while a page is being emptied: only a page is a request.
            let Presence::Found(entry) = source
                .ask(Operation::List, &self.directory, self.lister.next_dyn())
                .await?
            else {
                return Ok(Presence::Absent);
            };
            let Some(entry) = entry else {
                self.ended = true;
                if mem::take(&mut self.marker) {
                    children.extend(self.marker_with_content().await?);
                }
                break;
            };
            self.entries += 1;
            if let Some(child) = self.child(&entry).await? {
                if self
                    .first
                    .as_ref()
                    .is_some_and(|(name, kind)| *name == child.name && *kind == child.metadata.kind)
                {
                    return Err(self.error(ErrorKind::Nonsense, "the server repeats its listing and never ends it"));
                }
                self.first
                    .get_or_insert_with(|| (child.name.clone(), child.metadata.kind));
                children.push(child);
            }
        }
        Ok(Presence::Found(children))
    }

    /// Turns an entry into a child, unless it is the directory itself or has no bytes to read.
    async fn child(&mut self, entry: &oio::Entry) -> Result<Option<Child>> {
        let path = without_origin(entry.path());
        let own = if self.raw == "/" { "" } else { self.raw.as_str() };
        if path == self.raw || path == own || path == "/" {
            if entry.metadata().is_file() {
                return Err(self.error(ErrorKind::NotADirectory, "not a directory"));
            }
            self.marker |= self.source.traits.implicit_directories;
            return Ok(None);
        }
        let seen = entry.metadata();
        let below = match path.strip_prefix(own) {
            Some(below) => below,
            // Drives give the name alone, or the path in another spelling.
            None if !self.source.traits.implicit_directories => last_part(path),
            None => return Err(self.error(ErrorKind::Nonsense, "the server lists what lies elsewhere")),
        };
        let name = if seen.is_dir() {
            below.strip_suffix('/').unwrap_or(below)
        } else {
            below
        };
        if name.contains('/') {
            return Err(self.error(ErrorKind::Nonsense, "the server lists more than one level"));
        }
        if name.is_empty() && (self.directory.is_root() || !self.source.traits.implicit_directories) {
            tracing::debug!(source = %self.source.name, directory = %self.directory, "an entry without a name is left out");
            return Ok(None);
        }
        let is_all = matches!(self.source.own, Own::Ftp(_));
        let metadata = if seen.mode() == EntryMode::Unknown && !is_all {
            self.complete(path, name).await?
        } else {
            self.source.metadata(seen)
        };
        Ok(metadata.map(|metadata| Child {
            name: name.as_bytes().to_vec(),
            metadata,
        }))
    }

    /// Asks after an entry of which the listing told too little. What has no bytes (a link that leads nowhere, a
    /// document that exists only in a browser) is left out.
    async fn complete(&self, path: &str, name: &str) -> Result<Option<Metadata>> {
        let own = if self.raw == "/" { "" } else { self.raw.as_str() };
        let raw = if path.starts_with(own) {
            path.to_owned()
        } else {
            format!("{own}{name}")
        };
        let source = &self.source;
        let step = source.service.stat_dyn(&source.context, &raw, OpStat::default());
        match source
            .ask(Operation::List, &self.directory.join(name.as_bytes()), step)
            .await
        {
            Ok(Presence::Found(reply)) => {
                let seen: Seen = reply.into_metadata();
                Ok(self.source.metadata(&seen))
            }
            Ok(Presence::Absent) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Nonsense | ErrorKind::Other) => {
                tracing::debug!(source = %source.name, %error, "an entry without bytes is left out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the object that bears the directory's own name, where it holds bytes: a child without a name.
    async fn marker_with_content(&self) -> Result<Option<Child>> {
        if self.directory.is_root() {
            return Ok(None);
        }
        let object = self.directory.join(b"");
        let found = self.source.marker(Operation::List, &object, &self.raw).await?;
        Ok(found.map(|metadata| Child {
            name: Vec::new(),
            metadata,
        }))
    }
}

/// Takes scheme and host off an address that a server gives in place of a path.
fn without_origin(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("http://").or_else(|| path.strip_prefix("https://")) else {
        return path;
    };
    rest.split_once('/').map_or("", |(_, path)| path)
}

fn last_part(path: &str) -> &str {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let start = trimmed.rfind('/').map_or(0, |slash| slash + 1);
    &path[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_its_path() {
        assert_eq!(without_origin("http://host:80/a/b"), "a/b");
        assert_eq!(without_origin("https://host"), "");
        assert_eq!(without_origin("a/http://b"), "a/http://b");
    }

    #[test]
    fn the_last_part_keeps_its_slash() {
        assert_eq!(last_part("a/b/"), "b/");
        assert_eq!(last_part("a/b"), "b");
        assert_eq!(last_part("b"), "b");
    }
}
