//! From the pages of a backend's listing to the children that the catalog is given.
//!
//! Always true: what leaves here is the whole directory, under names that a tree can show, in their byte order, each
//! once; a listing that is not complete or cannot be true leaves as an error. Pages are turned into the catalog's rows
//! as they come, so that a directory of a million entries is held once, in its smallest form.

use std::time::Duration;

use futures::StreamExt;
use manifold_backends::{Kind, Metadata, ObjectPath, Presence, Timestamp, is_temporary_name};
use manifold_catalog::{NewChild, SeenAttributes, VERSION_MAX};
use tokio::time::{Instant, timeout};

use crate::IndexError;
use crate::health::RequestKind;
use crate::names::{Side, escape};
use crate::skip::Skip;
use crate::source::Source;

/// Lists a directory to its end. `idle` bounds the wait for the answer and for each page.
pub(crate) async fn read(
    source: &Source,
    path: &ObjectPath,
    idle: Duration,
) -> Result<Presence<Vec<NewChild>>, IndexError> {
    let under_way = source.monitor.asks(RequestKind::List);
    let result = read_pages(source, path, idle).await;
    under_way.end(&result);
    result
}

async fn read_pages(source: &Source, path: &ObjectPath, idle: Duration) -> Result<Presence<Vec<NewChild>>, IndexError> {
    let timed_out = |_| IndexError::TimedOut {
        source_name: source.backend.name().to_owned(),
        path: path.to_string(),
        after: idle,
    };
    let since = Instant::now();
    let begun = timeout(idle, source.backend.list(path)).await.map_err(timed_out)??;
    source.answered_in(RequestKind::List, since);
    let Presence::Found(mut pages) = begun else {
        return Ok(Presence::Absent);
    };
    let mut children = Children::new(source, path);
    while let Some(page) = timeout(idle, pages.next()).await.map_err(timed_out)? {
        for child in page? {
            children.push(&child.name, &child.metadata)?;
        }
    }
    children.finish().map(Presence::Found)
}

/// Names the links among the children of a directory; those of a folder of this machine are read where they are.
pub(crate) fn links(source: &Source, children: &[NewChild]) -> Vec<Box<[u8]>> {
    if source.is_local() {
        return Vec::new();
    }
    let links = children
        .iter()
        .filter(|child| child.seen.kind == manifold_catalog::Kind::Symlink);
    links.map(|link| link.name.clone()).collect()
}

/// Gathers the children of one directory.
pub(crate) struct Children<'a> {
    source_name: &'a str,
    path: &'a ObjectPath,
    skip: &'a Skip,
    is_local: bool,
    /// Whether the source's names are only parts of keys, so that an empty one can be.
    names_are_keys: bool,
    gathered: Vec<NewChild>,
    out_of_range: u64,
}

impl<'a> Children<'a> {
    pub(crate) fn new(source: &'a Source, path: &'a ObjectPath) -> Self {
        Self {
            source_name: source.backend.name(),
            path,
            skip: &source.skip,
            is_local: source.is_local(),
            names_are_keys: source.backend.capabilities().implicit_directories,
            gathered: Vec::new(),
            out_of_range: 0,
        }
    }

    /// Takes one child as the source gave it.
    pub(crate) fn push(&mut self, name: &[u8], metadata: &Metadata) -> Result<(), IndexError> {
        if name.is_empty() && !self.names_are_keys {
            return Err(self.odd("it holds a child without a name"));
        }
        if metadata.kind == Kind::Directory && self.skip.keeps_out(self.path, name) {
            tracing::debug!(source = self.source_name, directory = %self.path, name = %name.escape_ascii(),
                "kept out of the library");
            return Ok(());
        }
        // What an upload has sent so far, here or on another machine, is nobody's file.
        if !self.is_local && is_temporary_name(name) {
            return Ok(());
        }
        if metadata.version.as_bytes().len() > VERSION_MAX {
            return Err(self.odd(&format!(
                "the version of {:?} is too long",
                name.escape_ascii().to_string()
            )));
        }
        let (seen, in_range) = seen(metadata);
        self.out_of_range += u64::from(!in_range);
        self.gathered.push(NewChild {
            name: name.into(),
            raw_name: None,
            seen,
            adopt: None,
        });
        Ok(())
    }

    /// Takes the listing as complete: finds what collides, and gives every child the name it is shown under.
    pub(crate) fn finish(mut self) -> Result<Vec<NewChild>, IndexError> {
        let is_file = |child: &NewChild| child.seen.kind != manifold_catalog::Kind::Directory;
        self.gathered
            .sort_unstable_by(|a, b| a.name.cmp(&b.name).then(is_file(a).cmp(&is_file(b))));
        let mut escaped = 0_u64;
        for index in 0..self.gathered.len() {
            let mut side = Side::Plain;
            if let Some(before) = index.checked_sub(1).map(|before| &self.gathered[before]) {
                let raw_before: &[u8] = before.raw_name.as_deref().unwrap_or(&before.name);
                if raw_before == self.gathered[index].name.as_ref() {
                    if is_file(before) || !is_file(&self.gathered[index]) {
                        let name = self.gathered[index].name.escape_ascii().to_string();
                        return Err(self.odd(&format!("two children are called {name:?}")));
                    }
                    side = Side::FileBesideDirectory;
                }
            }
            let child = &mut self.gathered[index];
            let shown = match escape(&child.name, side) {
                std::borrow::Cow::Borrowed(_) => continue,
                std::borrow::Cow::Owned(shown) => shown.into_boxed_slice(),
            };
            child.raw_name = Some(std::mem::replace(&mut child.name, shown));
            escaped += 1;
        }
        if escaped > 0 {
            self.gathered.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            if let Some(twice) = self.gathered.windows(2).find(|pair| pair[0].name == pair[1].name) {
                let name = twice[0].name.escape_ascii().to_string();
                return Err(self.odd(&format!("two children would be shown as {name:?}")));
            }
        }
        if escaped + self.out_of_range > 0 {
            tracing::warn!(source = self.source_name, directory = %self.path, escaped, out_of_range = self.out_of_range,
                "names that cannot be shown were escaped, sizes and times out of range were clamped or dropped");
        }
        self.gathered.shrink_to_fit();
        Ok(self.gathered)
    }

    fn odd(&self, reason: &str) -> IndexError {
        IndexError::Odd {
            source_name: self.source_name.to_owned(),
            path: self.path.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Turns what a source says of an object into the catalog's words, as a listing does.
pub fn seen_attributes(metadata: &Metadata) -> SeenAttributes {
    seen(metadata).0
}

/// Turns what a source says of an object into the catalog's words. The second value is false where a size or a time
/// was out of range: sizes are clamped to what a kernel takes (2⁶³−1), times at the ends of their range are unknown.
pub(crate) fn seen(metadata: &Metadata) -> (SeenAttributes, bool) {
    let mut in_range = true;
    let mut time = |timestamp: Option<Timestamp>| match timestamp {
        Some(Timestamp(i64::MIN | i64::MAX)) => {
            in_range = false;
            None
        }
        other => other.map(|timestamp| timestamp.0),
    };
    let (modified_ns, changed_ns, created_ns) =
        (time(metadata.modified), time(metadata.changed), time(metadata.created));
    let size = if metadata.kind == Kind::Directory {
        0
    } else {
        metadata.size.min(i64::MAX as u64)
    };
    in_range &= metadata.kind == Kind::Directory || size == metadata.size;
    let mode = metadata.mode.unwrap_or(match metadata.kind {
        Kind::Directory => 0o755,
        Kind::Symlink => 0o777,
        _ => 0o644,
    });
    let seen = SeenAttributes {
        kind: kind(metadata.kind),
        size,
        modified_ns: modified_ns.unwrap_or(0),
        // Where a source tells only one of the two, the other is the best guess at it.
        changed_ns: changed_ns.or(modified_ns).unwrap_or(0),
        created_ns,
        mode: (mode & 0o7777) as u16,
        owner: metadata.owner,
        links: metadata.links.max(1),
        device: metadata.device,
        version: metadata.version.as_bytes().into(),
        identity: metadata.identity.map(|identity| identity.0),
    };
    (seen, in_range)
}

/// The same kinds, in the words of the two rooms.
pub(crate) fn kind(kind: Kind) -> manifold_catalog::Kind {
    match kind {
        Kind::Directory => manifold_catalog::Kind::Directory,
        Kind::File => manifold_catalog::Kind::File,
        Kind::Symlink => manifold_catalog::Kind::Symlink,
        Kind::Fifo => manifold_catalog::Kind::Fifo,
        Kind::Socket => manifold_catalog::Kind::Socket,
        Kind::CharDevice => manifold_catalog::Kind::CharDevice,
        Kind::BlockDevice => manifold_catalog::Kind::BlockDevice,
    }
}
