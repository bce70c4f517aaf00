//! Unions: sources that are attached beneath one directory of the library, shown there as one tree.
//!
//! A union is a view. The catalog keeps each member's own tree at its own path (`/photos/disk`, `/photos/nas`), and knows
//! nothing of unions; here directories of the same path are merged, and what is asked of the whole is asked of the members that
//! have it. So each file is one entry of one source, with all that its source can do, and journal, staging and uploads stay
//! the member's.
//!
//! Always true:
//! - the order of the members decides: of several files of one name the first is shown, and the others are hidden by it;
//! - a merged directory has the number of the oldest of those that make it up, the union's root its own;
//! - what nobody can tell, since a member was never listed there, is not answered as not there.

mod change;
mod look;
mod place;
mod rename;
mod told;
mod turn;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use manifold_catalog::{Branch, Entry, EntryId, Kind, SourceId};
use parking_lot::{Mutex, RwLock};

use crate::attributes::Attributes;
use crate::error::Cause;
use crate::events::Event;
use crate::pins::glob::Glob;
use crate::turns::Turns;
use crate::vfs::{Core, Vfs};
use crate::{Answer, Error, look as looking};

pub use told::UnionReport;

/// How many answers are remembered that were given though not every member could be asked.
const GUESSED_MAX: usize = 4_096;

/// Sources that are to be shown as one: those that are attached directly beneath a directory of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    /// That directory: an absolute path of the tree, `/a/b`, or `/`.
    pub at: Vec<u8>,
    /// The members that come first, by the names under which they are attached there. The others follow in the order in which
    /// they were added.
    pub order: Vec<Box<[u8]>>,
    /// Where what is new is made if no rule says so.
    pub place: Placement,
    /// A member takes nothing new that has less room than this, in bytes.
    pub min_free: u64,
    /// Where what is new is made, by its path: the first that matches.
    pub rules: Vec<PlaceRule>,
}

/// Which member takes what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The first that has room.
    #[default]
    First,
    /// The one with the most room; those of which that is not known come last.
    MostFree,
}

/// A member for what has certain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceRule {
    glob: Glob,
    member: Box<[u8]>,
}

impl PlaceRule {
    /// Reads a rule: `*` and `?` stand for characters of one name, `**` for any folders; with a `/` in it, the pattern is for the
    /// whole path in the union. `member` is the name under which the member is attached.
    ///
    /// # Errors
    /// Says what is wrong with the pattern.
    pub fn new(pattern: &[u8], member: &[u8]) -> Result<Self, &'static str> {
        Ok(Self {
            glob: Glob::parse(pattern)?,
            member: member.into(),
        })
    }
}

/// A member of a union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) source: SourceId,
    pub(crate) root: EntryId,
    /// The name under which it is attached.
    name: Box<[u8]>,
}

/// A union and its members, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    settings: Union,
    root: EntryId,
    members: Vec<Member>,
}

/// All unions of a library.
#[derive(Debug, Default)]
pub(crate) struct Unions {
    wanted: Mutex<Vec<Union>>,
    joined: RwLock<Vec<Arc<Joined>>>,
    renaming: Mutex<Vec<Renaming>>,
    turns: Turns,
    guessed: Mutex<Vec<(EntryId, Box<[u8]>)>>,
}

/// A merged directory whose parts are getting their new name one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renaming {
    union: EntryId,
    from: Vec<Box<[u8]>>,
    to: Vec<Box<[u8]>>,
}

/// A directory of a union.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    union: Arc<Joined>,
    /// The number under which it is shown.
    pub(crate) id: EntryId,
    /// The names that lead to it from the union's root.
    names: Vec<Box<[u8]>>,
    /// What each member has there, in the order of the members.
    branches: Vec<Branch>,
}

/// What answers a request.
pub(crate) trait Work<T>: Future<Output = Result<T, Error>> + Send + 'static {}

impl<T, F: Future<Output = Result<T, Error>> + Send + 'static> Work<T> for F {}

/// What is left of it.
type Rest<T> = BoxFuture<'static, Result<T, Error>>;

/// What stands under a name, at which member: `None` for the library's own.
type Found = (Option<usize>, Entry);

impl Merged {
    /// Gives the directories that make it up, each with the number of its member.
    fn directories(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let branches = self.branches.iter().enumerate();
        branches.filter_map(|(member, branch)| Some((member, branch.directory()?)))
    }

    fn is_root(&self) -> bool {
        self.names.is_empty()
    }
}

impl Joined {
    fn member_of(&self, source: SourceId) -> Option<usize> {
        self.members.iter().position(|member| member.source == source)
    }

    /// Tells whether what a member has under a name is merged with what others have.
    fn is_part(&self, member: Option<usize>, entry: &Entry) -> bool {
        let source = member.map(|member| self.members[member].source);
        entry.kind == Kind::Directory && !entry.attach_point && source == Some(entry.source)
    }
}

impl Vfs {
    /// Says which sources are shown as one from now on.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn set_unions(&self, unions: Vec<Union>) -> Result<(), Error> {
        *self.core.unions.wanted.lock() = unions;
        self.sources_changed()
    }

    /// Takes note that sources were attached or removed, so that unions have other members.
    ///
    /// # Errors
    /// The catalog failed.
    pub fn sources_changed(&self) -> Result<(), Error> {
        if self.core.join_anew()? {
            // Names that nothing has changed stand for something else now.
            self.core.publisher.publish(&[Event::Everything]);
        }
        Ok(())
    }
}

impl Core {
    /// Finds the members of all unions; tells whether anything is other than before.
    fn join_anew(&self) -> Result<bool, Error> {
        let wanted = self.unions.wanted.lock().clone();
        let mut joined = Vec::with_capacity(wanted.len());
        for settings in wanted {
            let Some(root) = self.catalog.resolve(&settings.at).map_err(Error::from_catalog)? else {
                continue;
            };
            if root.source != SourceId::LIBRARY {
                let at = settings.at.escape_ascii();
                tracing::warn!(%at, "no union is made where a source is attached itself, or within one");
                continue;
            }
            let mut members = Vec::new();
            for record in self.catalog.sources().map_err(Error::from_catalog)? {
                let entry = self.catalog.entry(record.root).map_err(Error::from_catalog)?;
                if let Some(entry) = entry.filter(|entry| entry.parent == root.id && entry.id != root.id) {
                    members.push(Member {
                        source: record.id,
                        root: record.root,
                        name: entry.name,
                    });
                }
            }
            let is_member = |name: &[u8]| members.iter().any(|member: &Member| *member.name == *name);
            let named = settings
                .order
                .iter()
                .chain(settings.rules.iter().map(|rule| &rule.member));
            for name in named.filter(|name| !is_member(name)) {
                let (at, name) = (settings.at.escape_ascii(), name.escape_ascii());
                tracing::warn!(%at, %name, "the settings of a union name a source that is not attached there");
            }
            members.sort_by_key(|member| {
                let place = settings.order.iter().position(|name| *name == member.name);
                (place.unwrap_or(usize::MAX), member.source)
            });
            joined.push(Arc::new(Joined {
                settings,
                root: root.id,
                members,
            }));
        }
        let mut before = self.unions.joined.write();
        let is_other = *before != joined;
        *before = joined;
        Ok(is_other)
    }

    /// Tells whether a directory is one of a union.
    pub(crate) fn is_in_union(&self, directory: EntryId) -> Result<bool, Error> {
        Ok(self.merged(directory)?.is_some())
    }

    /// Changes a directory of a union, or one of a source alone.
    pub(crate) fn in_union_or<T>(
        &self,
        directory: EntryId,
        joined: impl FnOnce() -> Answer<T>,
        alone: impl FnOnce() -> Answer<T>,
    ) -> Answer<T> {
        match self.is_in_union(directory) {
            Ok(true) => joined(),
            Ok(false) => alone(),
            Err(error) => Answer::err(error),
        }
    }

    /// Gives what a directory of a union is made of; `None` for what is no such directory.
    pub(crate) fn merged(&self, id: EntryId) -> Result<Option<Merged>, Error> {
        let joined = self.unions.joined.read().clone();
        if joined.is_empty() {
            return Ok(None);
        }
        if let Some(union) = joined.iter().find(|union| union.root == id) {
            return self.merged_at(Arc::clone(union), Vec::new(), None).map(Some);
        }
        let Some(entry) = self.catalog.entry(id).map_err(Error::from_catalog)? else {
            return Ok(None);
        };
        if entry.kind != Kind::Directory {
            return Ok(None);
        }
        let union = joined.iter().find(|union| union.member_of(entry.source).is_some());
        let Some(union) = union.map(Arc::clone) else {
            return Ok(None);
        };
        match self.catalog.names_beneath_root(id).map_err(Error::from_catalog)? {
            Some(names) => self.merged_at(union, names, Some(&entry)).map(Some),
            None => Ok(None),
        }
    }

    /// Gives what stands at a path of a union. `own` is one of its directories, wherever it is by now.
    fn merged_at(&self, union: Arc<Joined>, names: Vec<Box<[u8]>>, own: Option<&Entry>) -> Result<Merged, Error> {
        let mut branches = Vec::with_capacity(union.members.len());
        for member in &union.members {
            branches.push(match own {
                Some(own) if own.source == member.source => Branch::Directory(own.clone()),
                _ => self.branch(&union, member, &names)?,
            });
        }
        let mut merged = Merged {
            id: union.root,
            union,
            names,
            branches,
        };
        if !merged.is_root() {
            let oldest = merged.directories().map(|(_, entry)| entry.id).min();
            merged.id = oldest.ok_or(Error::Stale)?;
        }
        Ok(merged)
    }

    /// Gives what one member has at a path, also while a directory on the way is getting its new name.
    fn branch(&self, union: &Joined, member: &Member, names: &[Box<[u8]>]) -> Result<Branch, Error> {
        let find = |names: &[Box<[u8]>]| self.catalog.branch(member.root, names).map_err(Error::from_catalog);
        let found = find(names)?;
        if found.directory().is_some() {
            return Ok(found);
        }
        let renaming = self.unions.renaming.lock().clone();
        for one in renaming.iter().filter(|one| one.union == union.root) {
            for (here, there) in [(&one.from, &one.to), (&one.to, &one.from)] {
                let Some(rest) = names.strip_prefix(here.as_slice()) else {
                    continue;
                };
                let other = find(&[there, rest].concat())?;
                if other.directory().is_some() {
                    return Ok(other);
                }
            }
        }
        Ok(found)
    }

    /// Gives the entry that is shown for a merged directory.
    fn entry_shown(&self, merged: &Merged) -> Result<Entry, Error> {
        let found: Vec<Found> = merged
            .directories()
            .map(|(member, entry)| (Some(member), entry.clone()))
            .collect();
        if !merged.is_root() {
            return self.entry_of_all(&merged.union, &found).ok_or(Error::Stale);
        }
        let own = self.entry_of(merged.id)?;
        // Roots of sources are no parts of one another by their names.
        let Some(shown) = self.whole(&merged.union, &found) else {
            return Ok(own);
        };
        Ok(Entry {
            id: own.id,
            parent: own.parent,
            name: own.name,
            source: own.source,
            attach_point: own.attach_point,
            ..shown
        })
    }

    /// Gives the entry that is shown for all that stands under one name, in the order of the members.
    fn entry_of_all(&self, union: &Joined, found: &[Found]) -> Option<Entry> {
        let (member, first) = found.first()?;
        if !union.is_part(*member, first) {
            return Some(first.clone());
        }
        let parts: Vec<_> = found
            .iter()
            .filter(|(member, entry)| union.is_part(*member, entry))
            .cloned()
            .collect();
        self.whole(union, &parts)
    }

    /// Makes one directory of several: the oldest gives the number, the first that can be changed gives permissions and owner, and
    /// the latest change of those that can be changed counts.
    fn whole(&self, union: &Joined, parts: &[Found]) -> Option<Entry> {
        let id = parts.iter().map(|(_, entry)| entry.id).min()?;
        let read_only = self.read_only.read();
        let changed = |part: &&Found| part.0.is_some_and(|it| !read_only.contains(&union.members[it].source));
        let mut changeable: Vec<_> = parts.iter().filter(changed).collect();
        if changeable.is_empty() {
            changeable = parts.iter().collect();
        }
        let (_, first) = changeable.first()?;
        let latest = |time: fn(&Entry) -> i64| changeable.iter().map(|(_, entry)| time(entry)).max();
        Some(Entry {
            id,
            modified_ns: latest(|entry| entry.modified_ns)?,
            changed_ns: latest(|entry| entry.changed_ns)?,
            ..first.clone()
        })
    }

    /// Gives the attributes of what the catalog has in a directory: where a union is made of that, those of the union.
    pub(crate) fn attributes_shown(&self, entry: &Entry) -> Result<Attributes, Error> {
        if entry.source == SourceId::LIBRARY {
            let joined = self.unions.joined.read();
            let union = joined.iter().find(|union| union.root == entry.id).map(Arc::clone);
            drop(joined);
            if let Some(union) = union {
                return self.attributes_of_merged(&self.merged_at(union, Vec::new(), None)?);
            }
        }
        looking::attributes_of(&self.catalog, &self.files, entry)
    }

    /// Gives the attributes of a merged directory.
    pub(crate) fn attributes_of_merged(&self, merged: &Merged) -> Result<Attributes, Error> {
        looking::attributes_of(&self.catalog, &self.files, &self.entry_shown(merged)?)
    }

    /// Gives the directory from which extended attributes of a merged one are read: that which gives permissions.
    pub(crate) fn speaker(&self, id: EntryId) -> Result<EntryId, Error> {
        let Some(merged) = self.merged(id)? else {
            return Ok(id);
        };
        let read_only = self.read_only.read();
        let mut directories: Vec<_> = merged.directories().collect();
        directories.sort_by_key(|(_, entry)| read_only.contains(&entry.source));
        Ok(directories.first().map_or(id, |(_, entry)| entry.id))
    }

    /// Turns what changed at a member into what is shown of it.
    pub(crate) fn as_shown(&self, events: &mut Vec<Event>, from: usize) {
        if self.unions.joined.read().is_empty() {
            return;
        }
        let shown = |id: EntryId| match self.merged(id) {
            Ok(Some(merged)) => merged.id,
            // What cannot be found now is told of as what it was.
            Ok(None) | Err(_) => id,
        };
        let mut listed = false;
        for event in &mut events[from..] {
            match event {
                Event::Entry { parent, .. } => *parent = shown(*parent),
                Event::Directory { id } => {
                    listed = true;
                    *id = shown(*id);
                }
                Event::Attributes { id } | Event::Pages { id } => *id = shown(*id),
                Event::Everything => {}
            }
        }
        if listed {
            let guessed = std::mem::take(&mut *self.unions.guessed.lock());
            events.extend(guessed.into_iter().map(|(parent, name)| Event::Entry { parent, name }));
        }
    }

    /// Remembers an answer that is another one once more is known: the next listing has the kernel ask again.
    fn note_guess(&self, merged: &Merged, name: &[u8]) {
        let mut guessed = self.unions.guessed.lock();
        if guessed.len() >= GUESSED_MAX {
            let all = std::mem::take(&mut *guessed);
            drop(guessed);
            let events: Vec<_> = all
                .into_iter()
                .map(|(parent, name)| Event::Entry { parent, name })
                .collect();
            self.publisher.publish(&events);
            guessed = self.unions.guessed.lock();
        }
        let guess = (merged.id, name.into());
        if !guessed.contains(&guess) {
            guessed.push(guess);
        }
    }

    /// Does something on this thread as far as that goes without waiting, and the rest while anybody waits for it.
    pub(crate) fn while_wanted<T: Send + 'static>(&self, work: impl Work<T>) -> Answer<T> {
        match self.begun(work) {
            Ok(done) => Answer::Ready(done),
            Err(rest) => self.in_time(rest),
        }
    }

    /// The same, but to its end: what changes several members is not left half done because nobody waits for it any more.
    pub(crate) fn to_its_end<T: Send + 'static>(&self, work: impl Work<T>) -> Answer<T> {
        match self.begun(work) {
            Ok(done) => Answer::Ready(done),
            Err(rest) => {
                let task = self.runtime.spawn(rest);
                self.in_time(async move { task.await.map_err(Error::broke_off)? })
            }
        }
    }

    /// Waits for what takes several steps, each with a deadline of its own, for one deadline and a half: not so long that the
    /// request is taken for stuck.
    fn in_time<T: Send + 'static>(&self, work: impl Work<T>) -> Answer<T> {
        let patience = self.settings.data_deadline.max(self.settings.metadata_deadline) * 3 / 2;
        Answer::Pending(Box::pin(async move {
            let done = tokio::time::timeout(patience, work).await;
            done.unwrap_or_else(|_| {
                let after = patience.as_secs_f32();
                let cause = format!("members of a union have not all answered within {after} s");
                Err(Error::TimedOut(Cause::new(cause)))
            })
        }))
    }

    /// Does something as far as that goes without waiting; gives what is left of it.
    fn begun<T: Send + 'static>(&self, work: impl Work<T>) -> Result<Result<T, Error>, Rest<T>> {
        let mut work: Rest<T> = Box::pin(work);
        let entered = self.runtime.enter();
        let polled = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(entered);
        match polled {
            Poll::Ready(done) => Ok(done),
            Poll::Pending => Err(work),
        }
    }
}
