//! From a complete listing to one change of the catalog: which of the new names are old entries that have moved.
//!
//! A new name whose identity the catalog knows may be a rename, a hard link, a copy, or a new object that was given
//! the inode of a dead one. It is taken for a rename only if the old place is known to be empty: the old entry has
//! departed; or it still stands in the catalog, looks the same (kind, birth or else size and time), and its directory
//! is the one just listed, or the source says so when asked. An error proves nothing, and the child gets a new id.
//! A directory that is adopted is listed anew soon, so that children of a dead namesake would not stay.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use manifold_backends::{ObjectPath, Presence};
use manifold_catalog::{
    Catalog, ChildPages, CompleteListing, Details, Entry, EntryId, Kind, NewChild, SourceId, Ticket,
};
use tokio::time::timeout;

use crate::IndexError;
use crate::indexer::{Indexer, Target};

/// How many old places are asked for at once.
const QUESTIONS_AT_ONCE: usize = 8;
/// How often an entry is looked for that moves whenever it is looked at. Each time is a commit of another listing.
const LOOKS_MAX: usize = 100;

/// When a listing was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) listed_ns: i64,
    /// The scan that ran when it began, 0 if none.
    pub(crate) scan: u64,
    /// Taken before it began.
    pub(crate) ticket: Ticket,
}

/// A child that is an old entry, if the source says that the old place is empty.
#[derive(Debug)]
struct Question {
    child: usize,
    old: EntryId,
    old_path: ObjectPath,
}

impl Indexer {
    /// Gives a complete listing to the catalog.
    pub(crate) async fn reconcile(
        self: &Arc<Self>,
        target: &Target,
        mut children: Vec<NewChild>,
        taken: Taken,
    ) -> Result<(), IndexError> {
        let Taken {
            listed_ns,
            scan,
            ticket,
        } = taken;
        let (source, directory) = (target.source.id, target.directory);
        let able = target.source.backend.capabilities();
        let names_are_keys = able.implicit_directories;
        let births_last = able.posix_attributes || names_are_keys;
        if children.iter().any(|child| child.seen.identity.is_some()) {
            let questions;
            (children, questions) = self
                .blocking(move |catalog| {
                    let questions =
                        find_renames(catalog, source, directory, &mut children, names_are_keys, births_last)?;
                    Ok((children, questions))
                })
                .await?;
            let answers: Vec<_> = futures::stream::iter(questions)
                .map(|question| self.old_place_is_empty(target, question, &children, names_are_keys))
                .buffered(QUESTIONS_AT_ONCE)
                .collect()
                .await;
            for (child, old) in answers.into_iter().flatten() {
                children[child].adopt = Some(old);
            }
        }
        let adopted: Vec<EntryId> = children
            .iter()
            .filter(|child| child.seen.kind == Kind::Directory)
            .filter_map(|child| child.adopt)
            .collect();
        if able.lists_may_be_cut {
            children = self.only_if_whole(target, children, ticket).await?;
        }
        let open = self.open_probe();
        self.blocking(move |catalog| {
            catalog.apply_listing(
                directory,
                CompleteListing {
                    children,
                    listed_ns,
                    scan,
                    ticket,
                },
                &*open,
            )?;
            Ok(())
        })
        .await?;
        for directory in adopted {
            self.refresh_directory_if_stale(directory, Duration::ZERO);
        }
        Ok(())
    }

    async fn old_place_is_empty(
        &self,
        target: &Target,
        question: Question,
        children: &[NewChild],
        names_are_keys: bool,
    ) -> Option<(usize, EntryId)> {
        let Question { child, old, old_path } = question;
        let answer = timeout(self.settings().stat_timeout, target.source.backend.stat(&old_path)).await;
        let empty = match answer {
            Ok(Ok(Presence::Absent)) => true,
            // An object store's identity is its content: another one there does not say that this one has moved.
            Ok(Ok(Presence::Found(now))) => {
                !names_are_keys
                    && now
                        .identity
                        .is_some_and(|now| Some(now.0) != children[child].seen.identity)
            }
            Ok(Err(_)) | Err(_) => false,
        };
        empty.then_some((child, old))
    }
}

/// Marks the children that are certainly old entries, and gives those that the source must be asked about.
fn find_renames(
    catalog: &Catalog,
    source: SourceId,
    directory: EntryId,
    children: &mut [NewChild],
    names_are_keys: bool,
    births_last: bool,
) -> Result<Vec<Question>, IndexError> {
    let mut twins = HashMap::new();
    if names_are_keys {
        for identity in children.iter().filter_map(|child| child.seen.identity) {
            *twins.entry(identity).or_insert(0_u32) += 1;
        }
    }
    let mut known = KnownChildren::new(catalog, directory);
    let mut taken = HashSet::new();
    let mut questions = Vec::new();
    for index in 0..children.len() {
        let child = &children[index];
        let Some(identity) = child.seen.identity else { continue };
        let same_name = known.named(&child.name)?;
        // Objects of one content cannot be told apart, least of all empty ones.
        let is_common =
            names_are_keys && (child.seen.size == 0 || twins.get(&identity).is_some_and(|&twins| twins > 1));
        if is_common || !may_be_newcomer(catalog, child, same_name.as_ref())? {
            continue;
        }
        let (old, path) = match find_old(catalog, source, identity)? {
            None => continue,
            Some(Old::Departed(old)) => {
                // What has departed has no attributes to compare any more; the catalog sees to it that the kind is the same.
                if taken.insert(old) {
                    children[index].adopt = Some(old);
                }
                continue;
            }
            Some(Old::Standing(standing)) => {
                let Standing { entry, details, path } = *standing;
                let may_be_it = !taken.contains(&entry.id)
                    && !entry.attach_point
                    && is_same_object(&entry, &details, child, births_last);
                if !may_be_it {
                    continue;
                }
                (entry, path)
            }
        };
        if old.parent == directory {
            let position = children.binary_search_by(|other| other.name.cmp(&old.name));
            let still_there = position.is_ok_and(|at| children[at].seen.identity == Some(identity));
            if !still_there {
                taken.insert(old.id);
                children[index].adopt = Some(old.id);
            }
            continue;
        }
        taken.insert(old.id);
        questions.push(Question {
            child: index,
            old: old.id,
            old_path: path,
        });
    }
    Ok(questions)
}

/// Tells whether the name stands for something else than it did: it is new, or of another kind, or another directory.
/// A file that was replaced by another one of its name keeps the entry.
fn may_be_newcomer(catalog: &Catalog, child: &NewChild, same_name: Option<&Entry>) -> Result<bool, IndexError> {
    let Some(before) = same_name else { return Ok(true) };
    if before.attach_point {
        return Ok(false);
    }
    if before.kind != child.seen.kind {
        return Ok(true);
    }
    if before.kind != Kind::Directory {
        return Ok(false);
    }
    let identity_before = catalog.details(before.id)?.and_then(|details| details.identity);
    Ok(identity_before.is_some() && identity_before != child.seen.identity)
}

/// An entry that has the identity of a child, as it was found.
enum Old {
    /// It has left its place, and waits for adoption.
    Departed(EntryId),
    /// It stands in the tree.
    Standing(Box<Standing>),
}

/// An entry that stands in the tree.
struct Standing {
    entry: Entry,
    details: Details,
    path: ObjectPath,
}

/// Finds the entry that has an identity. Other directories are reconciled meanwhile: what stood when it was found may have left
/// before all of it was read, and is then looked for again, for it is departed now, or stands elsewhere.
fn find_old(catalog: &Catalog, source: SourceId, identity: [u8; 16]) -> Result<Option<Old>, IndexError> {
    for _ in 0..LOOKS_MAX {
        let Some(found) = catalog.find_identity(source, identity)? else {
            return Ok(None);
        };
        if found.departed {
            return Ok(Some(Old::Departed(found.id)));
        }
        let (entry, details) = (catalog.entry(found.id)?, catalog.details(found.id)?);
        let path = catalog.object_path(found.id)?;
        if let (Some(entry), Some(details), Some((_, path))) = (entry, details, path) {
            let path = ObjectPath::from_bytes(path);
            return Ok(Some(Old::Standing(Box::new(Standing { entry, details, path }))));
        }
    }
    Ok(None)
}

/// Tells whether an entry of that identity may be the child: inodes are given anew when a file has died, and then
/// the birth differs, or where that is not told, size and time of change.
///
/// Without `births_last`, a birth that differs says nothing: Samba makes one up of the oldest time that the file has, and
/// a rename changes those. The times of a directory change with what is in it, so there the identity alone tells.
fn is_same_object(entry: &Entry, details: &Details, child: &NewChild, births_last: bool) -> bool {
    if entry.kind != child.seen.kind {
        return false;
    }
    let is_as_old = if entry.keeps_time {
        // What the source has told is hidden by what was kept for that version.
        details.version == child.seen.version
    } else {
        entry.modified_ns == child.seen.modified_ns
    };
    let looks_same = entry.size == child.seen.size && is_as_old;
    match (details.created_ns, child.seen.created_ns) {
        (Some(before), Some(now)) if before == now => true,
        (Some(_), Some(_)) if births_last => false,
        _ => looks_same || (!births_last && entry.kind == Kind::Directory),
    }
}

/// The children of a directory as the catalog knows them, asked for in the order of their names.
pub(crate) struct KnownChildren<'a> {
    pages: ChildPages<'a>,
    page: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
}

impl<'a> KnownChildren<'a> {
    pub(crate) fn new(catalog: &'a Catalog, directory: EntryId) -> Self {
        Self {
            pages: catalog.child_pages(directory),
            page: Vec::new().into_iter(),
            next: None,
        }
    }

    /// Gives the next known child.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        self.advance()?;
        Ok(self.next.take())
    }

    /// Gives the known child of that name. Names must ascend from call to call.
    fn named(&mut self, name: &[u8]) -> Result<Option<Entry>, IndexError> {
        loop {
            if self.next.is_none() && !self.advance()? {
                return Ok(None);
            }
            match self.next.as_ref().map(|next| next.name.as_ref().cmp(name)) {
                Some(std::cmp::Ordering::Less) => self.next = None,
                Some(std::cmp::Ordering::Equal) => return Ok(self.next.take()),
                Some(std::cmp::Ordering::Greater) | None => return Ok(None),
            }
        }
    }

    fn advance(&mut self) -> Result<bool, IndexError> {
        self.next = self.page.next();
        if self.next.is_none()
            && let Some(page) = self.pages.next()
        {
            self.page = page?.into_iter();
            self.next = self.page.next();
        }
        Ok(self.next.is_some())
    }
}
