//! Changes that were made through the mount: the guard around them, and what the catalog makes of each.
//!
//! The order that keeps everything true: begin the change, do it at the source, tell the catalog, drop the guard. A
//! listing or a look that may have seen the time before is then not applied, whenever it began.
//!
//! What has followed outlives this process, where the write-ahead log can be written; with [`Catalog::sync`], a loss of power too.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::staged::staging;
use crate::store::When;
use crate::tree::{self, Top};
use crate::{Catalog, Change, ChangeGuard, EntryId, Keep, NewChild, SeenAttributes, Ticket, Unseen, listing};

impl Catalog {
    /// Gives the present moment. Take it before a listing or a look at a source begins.
    pub fn ticket(&self) -> Ticket {
        self.store().tickets().take()
    }

    /// Says that names or attributes in these directories are being changed through the mount, until the guard is
    /// dropped: after the catalog was told.
    pub fn begin_change(&self, directories: &[EntryId]) -> ChangeGuard {
        self.store().tickets().begin(directories)
    }

    /// Tells whether anything in a directory was changed through the mount since a ticket was taken, or is being changed, so that what
    /// was seen there may be older.
    pub fn is_overtaken(&self, ticket: Ticket, directory: EntryId) -> bool {
        self.store().tickets().is_overtaken(ticket, directory.0)
    }

    /// Tells whether that is so of a directory, or of one that it lies in: then what has not been found beneath may only be
    /// about to get another name.
    pub fn is_overtaken_on_the_way(&self, ticket: Ticket, directory: EntryId) -> Result<bool> {
        Ok(self.is_overtaken(ticket, directory) || self.is_overtaken_above(ticket, directory)?)
    }

    /// Tells whether that is so of one that a directory lies in. For who changes something in the directory himself: it has another name
    /// then, or may be about to get one.
    pub fn is_overtaken_above(&self, ticket: Ticket, directory: EntryId) -> Result<bool> {
        let tickets = self.store().tickets();
        self.store().read(|snapshot| {
            let top = tree::climb(&snapshot.entries, directory.0, |above, _| {
                if above != directory.0 && tickets.is_overtaken(ticket, above) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok(top == Top::Stopped)
        })
    }

    /// Follows a creation, or a replacement of what had that name. What stood there is gone, unless it is of the same
    /// kind and identity: that keeps its id and becomes what the child says. A pin of a file goes on to the file that
    /// takes its place.
    ///
    /// A new directory counts as listed, and empty, if `listed_ns` says when that was; it is queued all the same, so
    /// that it is watched before long.
    ///
    /// Refused where a source is attached, or something is attached or staged beneath what had the name.
    pub fn follow_created(
        &self,
        directory: EntryId,
        mut child: NewChild,
        listed_ns: Option<i64>,
    ) -> Result<(EntryId, Vec<Change>)> {
        listing::prepare(directory, std::slice::from_mut(&mut child))?;
        child.adopt = None;
        self.store()
            .write(When::Told, |edit| edit.follow_created(directory, &child, listed_ns))
    }

    /// Makes a file that stands here alone, with a row of the journal, and what is kept of it, in one transaction. If
    /// `keeps_time`, the directory's time is kept from now on, and is that of the child.
    ///
    /// Refused as [`follow_created`](Self::follow_created) and [`stage`](Self::stage) are.
    pub fn create_staged(
        &self,
        directory: EntryId,
        mut child: NewChild,
        keep: &Keep,
        keeps_time: bool,
        row: &[u8],
    ) -> Result<(EntryId, Vec<Change>)> {
        listing::prepare(directory, std::slice::from_mut(&mut child))?;
        child.adopt = None;
        // Whose it is, is known when it is there.
        let row = staging(directory, row, None, None)?;
        self.store().write_new(When::Soon, |edit| {
            edit.create_staged(directory, &child, keep, keeps_time, row)
        })
    }

    /// Follows a removal. The entry is gone for good, with its pin and what is staged of it. A name that the catalog
    /// does not have is none to remove.
    ///
    /// Refused where something is attached or staged beneath it.
    pub fn follow_removed(&self, directory: EntryId, name: &[u8], at_ns: i64) -> Result<Vec<Change>> {
        let ((), changes) = self
            .store()
            .write(When::Told, |edit| edit.follow_removed((directory, name), at_ns))?;
        Ok(changes)
    }

    /// Follows the removal of a file, as [`follow_removed`](Self::follow_removed), of which an upload may have arrived unseen: that is
    /// to be taken away, and no listing shows it meanwhile. In one transaction.
    pub fn follow_removed_unseen(
        &self,
        directory: EntryId,
        name: &[u8],
        unseen: &Unseen,
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Told, |edit| {
            edit.leave_unseen(unseen)?;
            edit.follow_removed((directory, name), at_ns)
        })?;
        Ok(changes)
    }

    /// Follows the removal of a file, as [`follow_removed`](Self::follow_removed), whose object its source still has in this version:
    /// that is to be taken away, and no listing shows it meanwhile. In one transaction.
    pub fn follow_removed_ahead(
        &self,
        directory: EntryId,
        name: &[u8],
        (id, version): (EntryId, &[u8]),
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Told, |edit| {
            edit.leave(id, version.to_vec())?;
            edit.follow_removed((directory, name), at_ns)
        })?;
        Ok(changes)
    }

    /// Follows a rename within one source, from directory and name to directory and name. What stood at `to` is gone,
    /// with what is staged of it; its pin goes on to the entry that takes its place, where both are files and that has
    /// none. `raw_name` is what the source calls it there, where that is not the name; `seen`, how it looks there, if
    /// known. The entry keeps its id, and all beneath it theirs. One that the catalog does not know is new at `to` if
    /// `seen` is given.
    ///
    /// Names of one identity are entries of their own: a rename of one hard link onto another, at which a disk does
    /// nothing, is not to be followed. Of uploads in parts into a directory that is renamed, the paths follow.
    ///
    /// Refused for what is not one source's own, and for a target that leads to something staged.
    pub fn follow_moved(
        &self,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        raw_name: Option<Box<[u8]>>,
        seen: Option<SeenAttributes>,
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Told, |edit| {
            edit.follow_moved_with_uploads(from, to, raw_name, seen, at_ns)
        })?;
        Ok(changes)
    }

    /// Gives a file another name in its directory, as [`follow_moved`](Self::follow_moved), and what another has made the name that it
    /// had, as [`follow_created`](Self::follow_created), in one transaction: something stands there all the while.
    pub fn follow_made_way(
        &self,
        from: (EntryId, &[u8]),
        to: &[u8],
        raw_name: Option<Box<[u8]>>,
        mut child: NewChild,
        at_ns: i64,
    ) -> Result<(EntryId, Vec<Change>)> {
        listing::prepare(from.0, std::slice::from_mut(&mut child))?;
        child.adopt = None;
        self.store().write(When::Told, |edit| {
            edit.follow_moved(from, (from.0, to), raw_name, None, None, at_ns)?;
            edit.follow_created(from.0, &child, None)
        })
    }

    /// Follows a rename of a file that has a row in the journal, as [`follow_moved`](Self::follow_moved), and puts another row
    /// in the place of that, in one transaction: what speaks of the new place is never there without it. Bytes beside the
    /// row stay. Where the directory is on the move, its object lies at `lies_at`.
    ///
    /// Refused where it has no row.
    pub fn follow_moved_staged(
        &self,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        raw_name: Option<Box<[u8]>>,
        lies_at: Option<Vec<u8>>,
        row: &[u8],
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let staging = staging(from.0, row, None, None)?;
        let ((), changes) = self.store().write(When::Told, |edit| {
            edit.follow_moved_staged(from, to, raw_name, lies_at, &staging.row, at_ns)
        })?;
        Ok(changes)
    }

    /// Follows a rename, as [`follow_moved_staged`](Self::follow_moved_staged) where nothing is on the move, of a file, or over one, of
    /// which an upload may have arrived unseen: that is to be taken away, and no listing shows it meanwhile. In one transaction.
    pub fn follow_moved_unseen(
        &self,
        from: (EntryId, &[u8]),
        to: (EntryId, &[u8]),
        raw_name: Option<Box<[u8]>>,
        row: &[u8],
        unseen: &[Unseen],
        at_ns: i64,
    ) -> Result<Vec<Change>> {
        let staging = staging(from.0, row, None, None)?;
        let ((), changes) = self.store().write(When::Told, |edit| {
            for unseen in unseen {
                edit.leave_unseen(unseen)?;
            }
            edit.follow_moved_staged(from, to, raw_name, None, &staging.row, at_ns)
        })?;
        Ok(changes)
    }

    /// Follows an exchange of two entries of one source, each of which has directory and name of the other now.
    pub fn follow_exchanged(&self, a: (EntryId, &[u8]), b: (EntryId, &[u8])) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Told, |edit| edit.follow_exchanged(a, b))?;
        Ok(changes)
    }

    /// Follows a change of attributes or bytes. The entry keeps its id, whoever has it open.
    pub fn follow_attributes(&self, id: EntryId, seen: SeenAttributes) -> Result<Vec<Change>> {
        let ((), changes) = self
            .store()
            .write(When::Told, |edit| edit.follow_attributes(id, seen))?;
        Ok(changes)
    }

    /// Notes that what is known of a directory is not what a listing would find: it counts as listed long ago, and is
    /// queued.
    pub fn note_stale(&self, directory: EntryId) -> Result<()> {
        let noted = self.store().write(When::Soon, |edit| {
            edit.source_directory(directory)?;
            crate::sources::list_again(edit, directory.0)
        });
        noted.map(drop)
    }
}
