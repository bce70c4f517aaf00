//! A complete listing against what the catalog has: the one way in which children disappear.
//!
//! First everything is only looked at, and each child gets its fate; then the tables are changed. What stands in the
//! directory for another reason than the listing (attach points, and the library's directories that lead to them)
//! stays whatever the listing says, and hides a listed child of the same name. So does what is staged, and what leads to
//! it. What was renamed ahead of the objects in it, and all beneath that, is not changed, and its old places are not shown; nor
//! is what was moved to another source and not taken away yet.

mod adopt;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use redb::ReadableTable;

use crate::edit::depart::Standing;
use crate::edit::keep::Keeping;
use crate::edit::update::{Seen, is_unchanged};
use crate::edit::{Edit, Fresh};
use crate::error::{Error, Result};
use crate::format::{HotRow, child_name, decode_sent, name_fault, subtree_range};
use crate::store::Snapshot;
use crate::tree::{self, Top};
use crate::{
    Change, CompleteListing, EntryId, Kind, NewChild, Replaces, SeenAttributes, SourceId, Ticket, VERSION_MAX,
};

use adopt::Adoption;

/// Sorts the children of a listing by name and refuses what cannot stand in a directory.
pub(crate) fn prepare(directory: EntryId, children: &mut [NewChild]) -> Result<()> {
    let refuse = |what, child: &NewChild, why| Error::Refused {
        directory,
        what,
        name: child.name.clone(),
        why,
    };
    for child in &*children {
        if let Some(why) = name_fault(&child.name) {
            return Err(refuse("name", child, why));
        }
        if child.raw_name.as_ref().is_some_and(|raw| raw.len() > u16::MAX.into()) {
            return Err(refuse("raw name of", child, "it is longer than 65535 bytes"));
        }
        if child.seen.version.len() > VERSION_MAX {
            return Err(refuse("version of", child, "it is longer than 4096 bytes"));
        }
    }
    children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match children.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(refuse("name", &pair[0], "it is listed twice")),
        None => Ok(()),
    }
}

/// Makes the children of a directory what a prepared listing says. One that is overtaken is refused before anything is
/// changed.
pub(crate) fn apply(
    edit: &mut Edit<'_>,
    directory: EntryId,
    listing: &CompleteListing,
    replaces: Replaces<'_>,
) -> Result<()> {
    edit.check_ticket(listing.ticket, directory.0)?;
    edit.tickets.check_listing(listing.ticket, directory.0)?;
    let source = edit.source_directory(directory)?.source();
    let first = edit.state(directory.0)?.listed_ns.is_none();
    if !listing.ticket.is_of_move() && pass_over_moving(edit, directory, listing.listed_ns, listing.scan)? {
        return Ok(());
    }
    let before = edit.changes.len();
    let plan = Plan::make(edit, directory.0, source, listing)?;
    plan.carry_out(edit, listing, replaces)?;
    edit.mark_listed(source, directory.0, listing.listed_ns, listing.scan)?;
    edit.tickets.note_listing(listing.ticket, directory.0);
    if first {
        // Nobody can have seen what stood in a directory that was never listed.
        let seen = |change: &Change| match change {
            Change::Added { parent, .. } | Change::Removed { parent, .. } => *parent != directory,
            _ => true,
        };
        let told: Vec<_> = edit.changes.split_off(before).into_iter().filter(seen).collect();
        edit.changes.extend(told);
    }
    let shape = |change: &Change| !matches!(change, Change::Attributes { .. } | Change::Content { .. });
    if first || edit.changes[before..].iter().any(shape) {
        edit.changes.push(Change::Directory { id: directory });
    }
    let named = |change: &Change| {
        matches!(
            change,
            Change::Added { .. } | Change::Removed { .. } | Change::Moved { .. }
        )
    };
    if !first && edit.changes[before..].iter().any(named) {
        edit.names_changed(directory, listing.listed_ns, false)?;
    }
    Ok(())
}

/// Passes over a directory that is on the move and was listed before, as if it had been listed again.
pub(crate) fn pass_over_moving(edit: &mut Edit<'_>, directory: EntryId, listed_ns: i64, scan: u64) -> Result<bool> {
    if edit.topmost_move(directory.0)?.is_none() || edit.state(directory.0)?.listed_ns.is_none() {
        return Ok(false);
    }
    let source = edit.source_directory(directory)?.source();
    edit.mark_listed(source, directory.0, listed_ns, scan)?;
    Ok(true)
}

/// Tells whether the catalog has an entry just as it was seen.
pub(crate) fn is_as_seen(snapshot: &Snapshot, id: EntryId, seen: &SeenAttributes) -> Result<bool> {
    let node = tree::node(&snapshot.children, &snapshot.entries, id.0)?;
    let Some((cold, hot)) = node.filter(|(_, hot)| hot.kind() == seen.kind && !hot.is_attach_point()) else {
        return Ok(false);
    };
    let same = HotRow::of(id.0, hot.source(), seen).keeping(&hot, true) == hot
        && (&cold.version, cold.created_ns) == (&seen.version, seen.created_ns)
        && (cold.device, cold.identity) == (seen.device, seen.identity);
    let top = tree::climb(&snapshot.entries, id.0, |_, _| ControlFlow::Continue(()))?;
    Ok(same && top == Top::Root && hot.source() != SourceId::LIBRARY.0)
}

/// Takes in what a source said of one entry alone.
pub(crate) fn apply_one(
    edit: &mut Edit<'_>,
    id: EntryId,
    seen: SeenAttributes,
    ticket: Ticket,
    replaces: Replaces<'_>,
) -> Result<()> {
    let (cold, hot) = edit.node(id.0)?.ok_or(Error::NoEntry(id))?;
    if !edit.is_attached(id.0)? {
        return Err(Error::NoEntry(id));
    }
    edit.tickets.check(ticket, cold.parent)?;
    edit.check_ticket(ticket, id.0)?;
    edit.tickets.check_listing(ticket, cold.parent)?;
    edit.tickets.check_look(ticket, cold.parent, id.0)?;
    edit.tickets.note_look(ticket, id.0);
    let refuse = |why| Error::Refused {
        directory: id,
        what: "attributes of",
        name: cold.name.clone(),
        why,
    };
    if seen.version.len() > VERSION_MAX {
        return Err(refuse("the version is longer than 4096 bytes"));
    }
    let child = NewChild {
        name: cold.name.clone(),
        raw_name: cold.raw_name.clone(),
        seen,
        adopt: None,
    };
    if hot.is_attach_point() {
        if child.seen.kind != Kind::Directory {
            return Err(refuse("the root of a source is a directory"));
        }
        return edit.update_attach_point(&hot, &cold, &child, Keeping::OfVersion);
    }
    if hot.source() == SourceId::LIBRARY.0 {
        return Err(refuse("it belongs to no source"));
    }
    let (directory, source) = (cold.parent, hot.source());
    let seen = Seen {
        directory,
        source,
        child: &child,
        keeping: Keeping::OfVersion,
    };
    if edit.is_staged(id.0)? || edit.topmost_move(id.0)?.is_some() {
        return Ok(());
    }
    if hot.kind() == child.seen.kind {
        let before = edit.changes.len();
        edit.update_child(&seen, &hot, replaces)?;
        for change in &edit.changes[before..] {
            if let Change::Replaced { new, .. } = change {
                // It was looked at under the number of the one before.
                edit.tickets.note_look(ticket, new.0);
            }
        }
        return Ok(());
    }
    if edit.is_kept(&hot)? {
        return Ok(());
    }
    let standing = Standing {
        parent: directory,
        name: cold.name.clone(),
        hot,
    };
    // Nobody told the time; nothing is adopted from here once it is reaped, which may be at once.
    edit.remove_child(&standing, child.seen.changed_ns)?;
    if edit.hot(directory, &child.name)?.is_none() {
        let new = edit.allocate_id();
        edit.insert_fresh(
            source,
            &mut [Fresh {
                id: new,
                parent: directory,
                child: &child,
            }],
            |_| false,
        )?;
        let (parent, id) = (EntryId(directory), EntryId(new));
        edit.changes.push(Change::Added {
            parent,
            name: child.name.clone(),
            id,
        });
    }
    edit.changes.push(Change::Directory { id: EntryId(directory) });
    Ok(())
}

/// What is to happen, child by child (numbers are places in the listing).
struct Plan<'a> {
    directory: u64,
    source: u32,
    children: &'a [NewChild],
    ticket: Ticket,
    /// Whether it is taken to move what is listed: directories stay then, whose files may lie where they stand already.
    of_move: bool,
    /// Known children that are seen differently now.
    updates: Vec<(usize, HotRow)>,
    /// The library's directories that the source has too.
    takeovers: Vec<(usize, HotRow)>,
    /// Children that need a new row: adopted or with a new id.
    fresh: Vec<usize>,
    /// Known directories that are still there, in case a scan runs.
    known_directories: Vec<u64>,
    /// Children of this directory that lose their place, by id.
    loose: HashMap<u64, Standing>,
    /// Directories that stay in their places for the sake of something staged, but may have moved.
    staying: HashSet<u64>,
    adoptions: HashMap<usize, Adoption>,
}

impl<'a> Plan<'a> {
    fn make(edit: &Edit<'_>, directory: u64, source: u32, listing: &'a CompleteListing) -> Result<Self> {
        let children = &*listing.children;
        let mut plan = Self {
            directory,
            source,
            children,
            ticket: listing.ticket,
            of_move: listing.ticket.is_of_move(),
            updates: Vec::new(),
            takeovers: Vec::new(),
            fresh: Vec::new(),
            known_directories: Vec::new(),
            loose: HashMap::new(),
            staying: HashSet::new(),
            adoptions: HashMap::new(),
        };
        // Children that stand under their name in another identity, and claim to have been elsewhere: whether they are
        // an adoption or a change is known only when the claim was looked at.
        let mut claims = HashMap::new();
        let mut next = 0;
        let moved_away = edit.names_moved_away(directory, source)?;
        let left = edit.left_in(directory)?;
        let range = subtree_range(directory);
        for row in edit.children.range(range.start.as_slice()..range.end.as_slice())? {
            let (key, row) = row?;
            let (name, hot) = (child_name(key.value())?, HotRow::decode(row.value())?);
            while children.get(next).is_some_and(|child| &*child.name < name) {
                plan.fresh.push(next);
                next += 1;
            }
            if children.get(next).is_some_and(|child| &*child.name == name) {
                plan.pair(edit, next, hot, &mut claims)?;
                next += 1;
            } else if hot.source() == source && !hot.is_attach_point() {
                plan.miss(edit, name, hot)?;
            }
        }
        plan.fresh.extend(next..children.len());
        plan.hide(&moved_away);
        plan.hide_left(&left);
        plan.weigh_adoptions(edit)?;
        plan.settle_claims(claims);
        Ok(plan)
    }

    /// Leaves out new directories that are the old places of others.
    fn hide(&mut self, moved_away: &HashSet<Vec<u8>>) {
        if moved_away.is_empty() {
            return;
        }
        let children = self.children;
        self.fresh.retain(|index| {
            let child = &children[*index];
            let raw: &[u8] = child.raw_name.as_deref().unwrap_or(&child.name);
            child.seen.kind != Kind::Directory || !moved_away.contains(raw)
        });
    }

    /// Leaves out what was moved to another source and is still here, in the version that was moved, and what may have arrived unseen,
    /// until that is found out.
    fn hide_left(&mut self, left: &HashMap<Vec<u8>, Vec<Vec<u8>>>) {
        if left.is_empty() {
            return;
        }
        let children = self.children;
        self.fresh.retain(|index| {
            let child = &children[*index];
            let raw: &[u8] = child.raw_name.as_deref().unwrap_or(&child.name);
            let may_be_it = |version: &Vec<u8>| match decode_sent(version) {
                Some(states) => states.iter().any(|state| state.size == child.seen.size),
                None => **version == *child.seen.version,
            };
            let is_left = |versions: &Vec<Vec<u8>>| versions.iter().any(may_be_it);
            child.seen.kind == Kind::Directory || !left.get(raw).is_some_and(is_left)
        });
    }

    /// Decides on a known child whose name is not listed.
    fn miss(&mut self, edit: &Edit<'_>, name: &[u8], hot: HotRow) -> Result<()> {
        if edit.is_kept(&hot)? || (self.of_move && hot.is_directory()) {
            return self.stays(edit, &hot);
        }
        edit.tickets.check_look(self.ticket, self.directory, hot.id())?;
        let standing = Standing {
            parent: self.directory,
            name: name.into(),
            hot,
        };
        self.loose.insert(hot.id(), standing);
        Ok(())
    }

    /// Decides on a listed child whose name is there already.
    fn pair(&mut self, edit: &Edit<'_>, index: usize, hot: HotRow, claims: &mut HashMap<usize, HotRow>) -> Result<()> {
        let child = &self.children[index];
        let is_directory = child.seen.kind == Kind::Directory;
        if hot.is_attach_point() {
            return Ok(());
        }
        if hot.source() != self.source {
            if is_directory {
                self.takeovers.push((index, hot));
            }
            return Ok(());
        }
        if edit.has_move(hot.id())? {
            self.known_directories.extend(hot.is_directory().then(|| hot.id()));
            return Ok(());
        }
        if hot.is_directory() && edit.holds_attach_point(hot.id())? {
            if is_directory {
                self.update(edit, index, hot)?;
            } else if !edit.is_kept(&hot)? {
                self.loosen(index, hot);
            }
            return Ok(());
        }
        if hot.kind() != child.seen.kind {
            if edit.is_kept(&hot)? || (self.of_move && hot.is_directory()) {
                return self.stays(edit, &hot);
            }
            self.loosen(index, hot);
            self.fresh.push(index);
            return Ok(());
        }
        let seen = Seen {
            directory: self.directory,
            source: self.source,
            child,
            keeping: Keeping::OfVersion,
        };
        let (unchanged, identity) = tree::with_cold(&*edit.entries, hot.id(), |cold| {
            Ok((is_unchanged(&seen, &hot, &cold), cold.identity))
        })?
        .ok_or_else(|| Error::damaged(format!("entry {} has lost its details", hot.id())))?;
        let claimed = child.adopt.is_some_and(|adopt| adopt.0 != hot.id());
        let is_other = identity.is_some() && child.seen.identity.is_some() && identity != child.seen.identity;
        if claimed && is_other && !edit.is_kept(&hot)? {
            self.loosen(index, hot);
            self.fresh.push(index);
            claims.insert(index, hot);
            return Ok(());
        }
        if unchanged {
            self.known_directories.extend(is_directory.then(|| hot.id()));
            return Ok(());
        }
        edit.tickets.check_look(self.ticket, self.directory, hot.id())?;
        self.update(edit, index, hot)
    }

    /// Takes note of a known child that is seen differently; what is staged is not changed by a listing.
    fn update(&mut self, edit: &Edit<'_>, index: usize, hot: HotRow) -> Result<()> {
        if hot.is_directory() {
            self.known_directories.push(hot.id());
        }
        if !edit.is_staged(hot.id())? {
            self.updates.push((index, hot));
        }
        Ok(())
    }

    /// Takes note of a child that the source does not have where it stands, and that stays all the same.
    fn stays(&mut self, edit: &Edit<'_>, hot: &HotRow) -> Result<()> {
        if !edit.is_staged(hot.id())? {
            self.staying.insert(hot.id());
        }
        Ok(())
    }

    fn loosen(&mut self, index: usize, hot: HotRow) {
        let name = self.children[index].name.clone();
        self.loose.insert(
            hot.id(),
            Standing {
                parent: self.directory,
                name,
                hot,
            },
        );
    }

    /// Where a claim did not hold, the child is what stood under its name before, changed; unless that moved away.
    fn settle_claims(&mut self, claims: HashMap<usize, HotRow>) {
        let moved: HashSet<u64> = self.adoptions.values().map(|adoption| adoption.moving.id).collect();
        for (index, hot) in claims {
            if !self.adoptions.contains_key(&index) && !moved.contains(&hot.id()) {
                self.loose.remove(&hot.id());
                self.fresh.retain(|fresh| *fresh != index);
                self.updates.push((index, hot));
                if hot.is_directory() {
                    self.known_directories.push(hot.id());
                }
            }
        }
    }

    fn carry_out(mut self, edit: &mut Edit<'_>, listing: &CompleteListing, replaces: Replaces<'_>) -> Result<()> {
        let (directory, source) = (self.directory, self.source);
        let seen = |index: usize| Seen {
            directory,
            source,
            child: &self.children[index],
            keeping: Keeping::OfVersion,
        };
        for adoption in self.adoptions.values() {
            edit.lift(&adoption.moving, source)?;
            self.loose.remove(&adoption.moving.id);
        }
        let mut loose: Vec<_> = self.loose.into_values().collect();
        loose.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for standing in &loose {
            edit.remove_child(standing, listing.listed_ns)?;
        }
        for (index, hot) in &self.updates {
            // What is done in a directory changes it too, and may be younger than this.
            if !(hot.is_directory() && edit.tickets.is_overtaken(listing.ticket, hot.id())) {
                edit.update_child(&seen(*index), hot, replaces)?;
            }
        }
        for (index, hot) in &self.takeovers {
            edit.take_over(hot, &seen(*index))?;
        }
        self.fresh.sort_unstable();
        let mut fresh = Vec::with_capacity(self.fresh.len() - self.adoptions.len());
        for index in self.fresh {
            if let Some(adoption) = self.adoptions.get(&index) {
                edit.settle_listed(&adoption.moving, &adoption.hot, &seen(index), replaces)?;
                if adoption.hot.is_directory() {
                    self.known_directories.push(adoption.moving.id);
                }
            } else {
                let id = edit.allocate_id();
                fresh.push(Fresh {
                    id,
                    parent: directory,
                    child: &self.children[index],
                });
                let (parent, id) = (EntryId(directory), EntryId(id));
                edit.changes.push(Change::Added {
                    parent,
                    name: self.children[index].name.clone(),
                    id,
                });
            }
        }
        edit.insert_fresh(source, &mut fresh, |_| false)?;
        if edit.scan(source)?.is_running() {
            for directory in self.known_directories {
                edit.enqueue_for_scan(source, directory)?;
            }
        }
        Ok(())
    }
}
