//! Symbolic links as small objects, for sources that have none: a link `name` is an object `name.rclonelink` that holds where it
//! points, and nothing else. That is how rclone keeps them with `--links`, so each reads what the other has written.
//!
//! Always true:
//! - what has a link's name but cannot be one (it is empty, or longer than a path can be, or `name` itself is there too) is
//!   shown as the file that it is;
//! - nothing is asked twice of a source but where it has nothing under the plain name.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use crate::backend::Listing;
use crate::write::{Attributes, Body, Expected};
use crate::{
    Backend, Capabilities, Child, Error, ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Result, Version,
    Watch,
};

/// How the name ends of an object that is a link.
const SUFFIX: &[u8] = b".rclonelink";
/// The longest that a link can point, in bytes: a path, as the kernel takes it.
const TARGET_MAX: u64 = 4_095;

/// A source whose links are objects.
#[derive(Debug)]
pub(crate) struct LinkObjects {
    inner: Arc<dyn Backend>,
    able: Capabilities,
}

impl LinkObjects {
    /// Shows the links of a source, and lets them be made.
    pub(crate) fn over(inner: Arc<dyn Backend>) -> Self {
        let mut able = inner.capabilities().clone();
        if let Some(writes) = &mut able.writes {
            writes.makes_links = true;
        }
        Self { inner, able }
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath, why: &'static str) -> Error {
        Error::new(kind, operation, self.name(), path.clone(), why)
    }

    /// Looks for the object of a link.
    async fn stat_link(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        if path.is_root() {
            return Ok(Presence::Absent);
        }
        Ok(match self.inner.stat(&object_of(path)).await? {
            Presence::Found(metadata) if can_be_link(&metadata) => Presence::Found(as_link(metadata)),
            Presence::Found(_) | Presence::Absent => Presence::Absent,
        })
    }
}

/// Names the object that is the link of a path.
fn object_of(link: &ObjectPath) -> ObjectPath {
    link.parent().join(&[link.name(), SUFFIX].concat())
}

/// Gives the name of the link whose object has a name.
fn link_of(object: &[u8]) -> Option<&[u8]> {
    object.strip_suffix(SUFFIX).filter(|name| !name.is_empty())
}

fn can_be_link(metadata: &Metadata) -> bool {
    metadata.kind == Kind::File && (1..=TARGET_MAX).contains(&metadata.size)
}

fn as_link(metadata: Metadata) -> Metadata {
    Metadata {
        kind: Kind::Symlink,
        mode: None,
        ..metadata
    }
}

/// A listing on its way: links are held back until it is known that nothing else has their names.
struct Pages {
    rest: Listing,
    hasher: RandomState,
    /// The names that were seen, by their hashes: a name that is taken for seen because of another is shown as it is.
    seen: HashSet<u64>,
    held: Vec<Child>,
    ended: bool,
}

impl Pages {
    async fn next(mut self) -> Option<(Result<Vec<Child>>, Self)> {
        if self.ended {
            return None;
        }
        match self.rest.next().await {
            Some(Ok(mut page)) => {
                self.seen
                    .extend(page.iter().map(|child| self.hasher.hash_one(&child.name)));
                let links = page.extract_if(.., |child| {
                    link_of(&child.name).is_some() && can_be_link(&child.metadata)
                });
                self.held.extend(links);
                Some((Ok(page), self))
            }
            Some(Err(error)) => {
                self.ended = true;
                Some((Err(error), self))
            }
            None => {
                self.ended = true;
                let held = std::mem::take(&mut self.held);
                let last = held.into_iter().map(|child| self.shown(child)).collect();
                Some((Ok(last), self))
            }
        }
    }

    fn shown(&self, child: Child) -> Child {
        match link_of(&child.name) {
            Some(name) if !self.seen.contains(&self.hasher.hash_one(name)) => Child {
                name: name.to_vec(),
                metadata: as_link(child.metadata),
            },
            _ => child,
        }
    }
}

#[async_trait]
impl Backend for LinkObjects {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        match self.inner.stat(path).await? {
            Presence::Absent => self.stat_link(path).await,
            found @ Presence::Found(_) => Ok(found),
        }
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        Ok(match self.inner.list(directory).await? {
            Presence::Absent => Presence::Absent,
            Presence::Found(pages) => {
                let pages = Pages {
                    rest: pages,
                    hasher: RandomState::new(),
                    seen: HashSet::new(),
                    held: Vec::new(),
                    ended: false,
                };
                Presence::Found(stream::unfold(pages, Pages::next).boxed())
            }
        })
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        self.inner.read(path, version, range).await
    }

    async fn read_blocks(
        &self,
        path: &ObjectPath,
        version: &Version,
        range: Range<u64>,
        block_size: u32,
    ) -> Result<Presence<Vec<Bytes>>> {
        self.inner.read_blocks(path, version, range, block_size).await
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        let Presence::Found(link) = self.stat_link(path).await? else {
            // Some kinds of source have links of their own as well.
            return self.inner.read_link(path).await;
        };
        let read = self.inner.read(&object_of(path), &link.version, 0..link.size).await?;
        let Presence::Found(target) = read else {
            return Ok(Presence::Absent);
        };
        if target.contains(&0) {
            let why = "what it holds is nowhere that a link can point";
            return Err(self.error(ErrorKind::Nonsense, Operation::ReadLink, path, why));
        }
        Ok(Presence::Found(target.to_vec()))
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        // It would be a link when it is seen the next time.
        if *expected == Expected::Absent && link_of(path.name()).is_some() {
            let why = "names that end so are those of links";
            return Err(self.error(ErrorKind::BadPath, Operation::Put, path, why));
        }
        match (self.inner.put(path, body, expected).await, expected) {
            (Err(conflict), Expected::Version(version)) if conflict.kind() == ErrorKind::Conflict => {
                // What is to be replaced may be a link, which goes when the file has its name.
                match self.stat_link(path).await? {
                    Presence::Found(link) if link.version == *version => {}
                    Presence::Found(_) | Presence::Absent => return Err(conflict),
                }
                let put = self.inner.put(path, body, &Expected::Absent).await?;
                self.inner.remove_file(&object_of(path), expected).await?;
                Ok(put)
            }
            (put, _) => put,
        }
    }

    async fn create_directory(&self, path: &ObjectPath) -> Result<Metadata> {
        self.inner.create_directory(path).await
    }

    async fn keep_directory(&self, path: &ObjectPath) -> Result<()> {
        self.inner.keep_directory(path).await
    }

    async fn make_link(&self, path: &ObjectPath, target: &[u8]) -> Result<Metadata> {
        let is_too_long = target.is_empty() || target.len() as u64 > TARGET_MAX;
        if is_too_long || link_of(path.name()).is_some() {
            let why = "nothing that could be recognised as a link again";
            return Err(self.error(ErrorKind::InvalidArgument, Operation::Create, path, why));
        }
        if self.inner.stat(path).await? != Presence::Absent {
            return Err(self.error(ErrorKind::Exists, Operation::Create, path, "something has its name"));
        }
        let body = Bytes::copy_from_slice(target);
        match self.inner.put(&object_of(path), &body, &Expected::Absent).await {
            Ok(metadata) => Ok(as_link(metadata)),
            Err(error) if error.kind() == ErrorKind::Conflict => Err(error.with_kind(ErrorKind::Exists)),
            Err(error) => Err(error),
        }
    }

    async fn remove_file(&self, path: &ObjectPath, expected: &Expected) -> Result<Presence<()>> {
        match self.inner.remove_file(path, expected).await? {
            Presence::Absent if !path.is_root() => self.inner.remove_file(&object_of(path), expected).await,
            removed => Ok(removed),
        }
    }

    async fn remove_directory(&self, path: &ObjectPath) -> Result<Presence<()>> {
        self.inner.remove_directory(path).await
    }

    /// What is replaced may be a link and the other not: then it is removed when the other has its name. A crash between leaves
    /// both, and the link is shown as the file that it is.
    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, replace: bool) -> Result<Presence<Metadata>> {
        if from.is_root() || to.is_root() {
            return self.inner.rename(from, to, replace).await;
        }
        let (from_object, to_object) = (object_of(from), object_of(to));
        if !replace && self.stat(to).await? != Presence::Absent {
            return Err(self.error(ErrorKind::Exists, Operation::Rename, to, "something has that name"));
        }
        if let Presence::Found(renamed) = self.inner.rename(from, to, replace).await? {
            if renamed.kind == Kind::File && replace && self.stat_link(to).await? != Presence::Absent {
                self.inner.remove_file(&to_object, &Expected::Anything).await?;
            }
            return Ok(Presence::Found(renamed));
        }
        let Presence::Found(renamed) = self.inner.rename(&from_object, &to_object, replace).await? else {
            return Ok(Presence::Absent);
        };
        if replace {
            self.inner.remove_file(to, &Expected::Anything).await?;
        }
        Ok(Presence::Found(as_link(renamed)))
    }

    async fn copy(&self, from: &ObjectPath, version: &Version, to: &ObjectPath) -> Result<Presence<Metadata>> {
        if self.stat(to).await? != Presence::Absent {
            return Err(self.error(ErrorKind::Exists, Operation::Rename, to, "something has that name"));
        }
        if let Presence::Found(copied) = self.inner.copy(from, version, to).await? {
            return Ok(Presence::Found(copied));
        }
        let copied = self.inner.copy(&object_of(from), version, &object_of(to)).await?;
        Ok(match copied {
            Presence::Found(metadata) => Presence::Found(as_link(metadata)),
            Presence::Absent => Presence::Absent,
        })
    }

    async fn set_attributes(&self, path: &ObjectPath, attributes: &Attributes) -> Result<Presence<Metadata>> {
        match self.inner.set_attributes(path, attributes).await? {
            Presence::Absent if !path.is_root() => {
                Ok(match self.inner.set_attributes(&object_of(path), attributes).await? {
                    Presence::Found(metadata) => Presence::Found(as_link(metadata)),
                    Presence::Absent => Presence::Absent,
                })
            }
            set => Ok(set),
        }
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.inner.watch()
    }
}

#[cfg(test)]
mod tests;
