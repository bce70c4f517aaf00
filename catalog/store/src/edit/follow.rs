//! Following what was done at a source through the mount: names that came, went, moved and changed places, and entries
//! that look different now.
//!
//! Nobody is asked whether a file is open: what is changed through the mount keeps its id. Attach points, the
//! library's own directories and what leads to them are not a source's to change.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::depart::Standing;
use super::keep::Keeping;
use super::staged::Staging;
use super::update::{Moving, Seen};
use super::{Edit, Fresh};
use crate::error::{Error, Result};
use crate::format::{Cold, HotRow, name_fault};
use crate::tree;
use crate::{Change, DirectoryState, EntryId, Keep, Kind, NewChild, SeenAttributes, SourceId, VERSION_MAX, listing};

/// A directory and a name in it.
pub(crate) type Place<'a> = (EntryId, &'a [u8]);

/// An entry that stands in the tree and belongs to a source, as it is known.
pub(crate) struct Known {
    pub(crate) id: EntryId,
    pub(crate) cold: Cold,
    pub(crate) hot: HotRow,
}

impl Known {
    pub(crate) fn refuse(&self, why: &'static str) -> Error {
        Error::Refused {
            directory: self.id,
            what: "attributes of",
            name: self.cold.name.clone(),
            why,
        }
    }
}

pub(crate) fn refuse((directory, name): Place<'_>, why: &'static str) -> Error {
    Error::Refused {
        directory,
        what: "change of",
        name: name.into(),
        why,
    }
}

impl Edit<'_> {
    /// Puts what was made in a directory, in the place of what had its name. Gives its id.
    pub(crate) fn follow_created(
        &mut self,
        directory: EntryId,
        child: &NewChild,
        listed_ns: Option<i64>,
    ) -> Result<EntryId> {
        let source = self.source_directory(directory)?.source();
        self.tickets.touch(&[directory.0]);
        let listed_ns = listed_ns.filter(|_| child.seen.kind == Kind::Directory);
        let place = (directory, &*child.name);
        let before = self.standing(place)?;
        if let Some(before) = &before {
            self.may_be_changed(before)?;
            let hot = before.hot;
            let identity = self.existing_cold(hot.id())?.identity;
            if hot.kind() == child.seen.kind && identity == child.seen.identity {
                let seen = Seen {
                    directory: directory.0,
                    source,
                    child,
                    keeping: Keeping::All,
                };
                // Of the same look, it may point elsewhere.
                self.drop_link_target(hot.id())?;
                self.update_child(&seen, &hot, &|_| false)?;
                let is_new = self.state(hot.id())?.listed_ns.is_none() && !self.any_child(hot.id(), |_| true)?;
                if is_new {
                    self.note_empty(hot.id(), listed_ns)?;
                }
                return Ok(EntryId(hot.id()));
            }
        }
        let id = self.allocate_id();
        if let Some(before) = before {
            self.bequeath_pin(&before.hot, id, child.seen.kind)?;
            self.remove_for_good(&before, child.seen.changed_ns)?;
        }
        let mut fresh = [Fresh {
            id,
            parent: directory.0,
            child,
        }];
        self.insert_fresh(source, &mut fresh, |_| false)?;
        self.note_empty(id, listed_ns)?;
        let id = EntryId(id);
        self.changes.push(Change::Added {
            parent: directory,
            name: child.name.clone(),
            id,
        });
        self.changes.push(Change::Directory { id: directory });
        let at_ns = listed_ns.unwrap_or(child.seen.changed_ns);
        self.names_changed(directory, at_ns, true)?;
        Ok(id)
    }

    /// Puts a file that stands here alone, with its row, and what is kept of it and its directory.
    pub(crate) fn create_staged(
        &mut self,
        directory: EntryId,
        child: &NewChild,
        keep: &Keep,
        keeps_time: bool,
        row: Staging,
    ) -> Result<EntryId> {
        let id = self.follow_created(directory, child, None)?;
        let at_ns = child.seen.modified_ns;
        let known = self.node(directory.0)?;
        if keeps_time && known.is_some_and(|(_, hot)| !hot.keeps_time()) {
            let now = Keep {
                modified_ns: Some(at_ns),
                changed_ns: Some(at_ns),
                ..Keep::default()
            };
            self.keep(directory, &now, None)?;
        }
        if *keep != Keep::default() {
            self.keep(id, keep, None)?;
        }
        self.stage(&Staging { id, ..row })?;
        Ok(id)
    }

    /// Takes away what was removed from a directory.
    pub(crate) fn follow_removed(&mut self, place: Place<'_>, at_ns: i64) -> Result<()> {
        self.source_directory(place.0)?;
        self.tickets.touch(&[place.0.0]);
        let Some(standing) = self.standing(place)? else {
            // A listing was faster.
            return Ok(());
        };
        self.may_be_changed(&standing)?;
        self.remove_for_good(&standing, at_ns)?;
        self.changes.push(Change::Directory { id: place.0 });
        self.names_changed(place.0, at_ns, true)
    }

    /// Moves an entry with all beneath it; what stood in its new place is gone. Its object lies where it stands then, or at
    /// `lies_at`.
    pub(crate) fn follow_moved(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        raw_name: Option<Box<[u8]>>,
        seen: Option<SeenAttributes>,
        lies_at: Option<Vec<u8>>,
        at_ns: i64,
    ) -> Result<()> {
        let source = self.same_source(from, to)?;
        let Some(standing) = self.standing(from)? else {
            // The catalog has not come to know of it; what it looks like may be known all the same.
            let seen = seen.ok_or_else(|| refuse(from, "it is not in the catalog"))?;
            let mut child = new_child(to.1, raw_name, seen);
            listing::prepare(to.0, std::slice::from_mut(&mut child))?;
            return self.follow_created(to.0, &child, None).map(drop);
        };
        self.may_be_changed(&standing)?;
        let (id, hot) = (standing.hot.id(), standing.hot);
        let cold = self.existing_cold(id)?;
        let seen = seen.unwrap_or_else(|| hot.seen(&cold));
        if seen.kind != hot.kind() {
            return Err(refuse(from, "it is of another kind"));
        }
        if hot.is_directory() && self.lies_above(id, to.0)? {
            return Err(refuse(from, "it would lie beneath itself"));
        }
        let in_place = from == to;
        if let Some(target) = self.standing(to)?.filter(|_| !in_place) {
            self.may_be_changed(&target)?;
            if target.hot.is_directory() && self.lies_above(target.hot.id(), from.0)? {
                return Err(refuse(to, "it holds what is moved"));
            }
            if self.pin_is_free(id)? {
                self.bequeath_pin(&target.hot, id, hot.kind())?;
            }
            self.remove_for_good(&target, at_ns)?;
        }
        let mut child = new_child(to.1, raw_name, seen);
        listing::prepare(to.0, std::slice::from_mut(&mut child))?;
        let seen = Seen {
            directory: to.0.0,
            source,
            child: &child,
            keeping: Keeping::All,
        };
        if in_place {
            return self.update_child(&seen, &hot, &|_| false);
        }
        let attached = true;
        let moving = Moving { id, cold, attached };
        self.lift(&moving, source)?;
        self.settle(&moving, &hot, &seen)?;
        // Of a directory, its rename ahead of what it holds says where it lies.
        self.drop_move(id)?;
        if let Some(lies_at) = lies_at
            && self.topmost_move(id)?.is_some()
        {
            self.put_moved(id, lies_at, None)?;
        }
        self.tell_directories(from, to);
        self.names_changed(from.0, at_ns, true)?;
        self.names_changed(to.0, at_ns, true)
    }

    /// Moves a staged file, and puts another row in the place of the one that it has.
    pub(crate) fn follow_moved_staged(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        raw_name: Option<Box<[u8]>>,
        lies_at: Option<Vec<u8>>,
        row: &[u8],
        at_ns: i64,
    ) -> Result<()> {
        let standing = self.standing(from)?;
        let id = standing
            .ok_or_else(|| refuse(from, "it is not in the catalog"))?
            .hot
            .id();
        self.follow_moved(from, to, raw_name, None, lies_at, at_ns)?;
        self.restage(EntryId(id), row)
    }

    /// Lets two entries change places.
    pub(crate) fn follow_exchanged(&mut self, a: Place<'_>, b: Place<'_>) -> Result<()> {
        let source = self.same_source(a, b)?;
        let mut both = Vec::with_capacity(2);
        for (place, other) in [(a, b), (b, a)] {
            let standing = self.standing(place)?;
            let standing = standing.ok_or_else(|| refuse(place, "it is not in the catalog"))?;
            self.may_be_changed(&standing)?;
            let id = standing.hot.id();
            if standing.hot.is_directory() && self.lies_above(id, other.0)? {
                return Err(refuse(place, "it would lie beneath itself"));
            }
            let cold = self.existing_cold(id)?;
            let attached = true;
            both.push((Moving { id, cold, attached }, standing.hot));
        }
        if a == b {
            return Ok(());
        }
        for (moving, _) in &both {
            self.lift(moving, source)?;
        }
        let raw_names = [&both[1], &both[0]].map(|(moving, _)| moving.cold.raw_name.clone());
        for ((moving, hot), (to, raw_name)) in both.iter().zip([b, a].into_iter().zip(raw_names)) {
            let child = new_child(to.1, raw_name, hot.seen(&moving.cold));
            let seen = Seen {
                directory: to.0.0,
                source,
                child: &child,
                keeping: Keeping::All,
            };
            self.settle(moving, hot, &seen)?;
        }
        self.tell_directories(a, b);
        Ok(())
    }

    /// Takes in how an entry looks after a change that was made through the mount.
    pub(crate) fn follow_attributes(&mut self, id: EntryId, seen: SeenAttributes) -> Result<()> {
        let known = self.known(id)?;
        self.tickets.touch(&[known.cold.parent]);
        self.take_own_change(&known, seen, Keeping::All)
    }

    /// The same for an entry whose rows are read already. Refused before anything is changed.
    pub(crate) fn take_own_change(&mut self, known: &Known, seen: SeenAttributes, keeping: Keeping) -> Result<()> {
        if seen.version.len() > VERSION_MAX {
            return Err(known.refuse("the version is longer than 4096 bytes"));
        }
        if seen.kind != known.hot.kind() {
            return Err(known.refuse("it is of another kind"));
        }
        let child = new_child(&known.cold.name, known.cold.raw_name.clone(), seen);
        if known.hot.is_attach_point() {
            return self.update_attach_point(&known.hot, &known.cold, &child, keeping);
        }
        let seen = Seen {
            directory: known.cold.parent,
            source: known.hot.source(),
            child: &child,
            keeping,
        };
        self.update_child(&seen, &known.hot, &|_| false)
    }

    /// Reads the rows of an entry that stands in the tree and belongs to a source.
    pub(crate) fn known(&self, id: EntryId) -> Result<Known> {
        let (cold, hot) = self.node(id.0)?.ok_or(Error::NoEntry(id))?;
        if !self.is_attached(id.0)? {
            return Err(Error::NoEntry(id));
        }
        let known = Known { id, cold, hot };
        if known.hot.source() == SourceId::LIBRARY.0 {
            return Err(known.refuse("it belongs to no source"));
        }
        Ok(known)
    }

    pub(crate) fn standing(&self, (directory, name): Place<'_>) -> Result<Option<Standing>> {
        if let Some(why) = name_fault(name) {
            return Err(refuse((directory, name), why));
        }
        let hot = self.hot(directory.0, name)?;
        Ok(hot.map(|hot| Standing {
            parent: directory.0,
            name: name.into(),
            hot,
        }))
    }

    /// Refuses what is not the source's own to change.
    pub(crate) fn may_be_changed(&self, standing: &Standing) -> Result<()> {
        let place = (EntryId(standing.parent), &*standing.name);
        let hot = &standing.hot;
        if hot.is_attach_point() || hot.source() == SourceId::LIBRARY.0 {
            return Err(refuse(place, "it belongs to the library itself"));
        }
        if hot.is_directory() && self.holds_attach_point(hot.id())? {
            return Err(refuse(place, "another source is attached beneath it"));
        }
        Ok(())
    }

    fn same_source(&self, a: Place<'_>, b: Place<'_>) -> Result<u32> {
        let source = self.source_directory(a.0)?.source();
        if self.source_directory(b.0)?.source() != source {
            return Err(refuse(b, "it belongs to another source"));
        }
        self.tickets.touch(&[a.0.0, b.0.0]);
        Ok(source)
    }

    /// Tells whether an entry is that directory, or lies above it.
    fn lies_above(&self, id: u64, directory: EntryId) -> Result<bool> {
        let top = tree::climb(&*self.entries, directory.0, |at, _| {
            if at == id {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(top == tree::Top::Stopped)
    }

    /// Notes that a directory is new and empty. It stays queued: so it is watched, and looked at once all the same.
    fn note_empty(&mut self, directory: u64, listed_ns: Option<i64>) -> Result<()> {
        if listed_ns.is_none() {
            return Ok(());
        }
        let state = DirectoryState {
            listed_ns,
            ..DirectoryState::default()
        };
        self.set_state(directory, &state)
    }

    /// Gives the pin of a file to the file that takes its place.
    pub(crate) fn bequeath_pin(&mut self, before: &HotRow, heir: u64, kind: Kind) -> Result<()> {
        if before.kind() == Kind::File && kind == Kind::File {
            self.move_pin(before.id(), heir)?;
        }
        Ok(())
    }

    pub(crate) fn tell_directories(&mut self, a: Place<'_>, b: Place<'_>) {
        let directories = HashSet::from([a.0, b.0]);
        let mut directories: Vec<_> = directories.into_iter().collect();
        directories.sort_unstable();
        let told = directories.into_iter().map(|id| Change::Directory { id });
        self.changes.extend(told);
    }
}

fn new_child(name: &[u8], raw_name: Option<Box<[u8]>>, seen: SeenAttributes) -> NewChild {
    NewChild {
        name: name.into(),
        raw_name,
        seen,
        adopt: None,
    }
}
