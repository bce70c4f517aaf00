//! Files that were moved from one source to another: the tree shows them in their new place at once, and their bytes follow.
//!
//! Such a file is staged, and what its new source does not have yet is read from where it was: its *origin*. When the upload
//! has settled ([`Catalog::unstage`]), or the file was removed through the mount, its origins are due, in the same transaction,
//! and are taken away. As long as there is one, no listing shows it, and its directory stays in the tree.
//!
//! The same holds for what may have arrived unseen of a file that was removed or renamed while its source was away: the states of it
//! that were sent stand for a version. Nobody needs that, so that it is taken away whatever else is due.

use std::ops::ControlFlow;

use redb::ReadableTableMetadata;

use crate::error::Result;
use crate::fold;
use crate::format::{OriginPlace, OriginsRow, SentState, decode_sent, is_sent, left_id, left_name, left_range};
use crate::store::{Snapshot, When};
use crate::tree::{self, Top};
use crate::{Catalog, Change, EntryId, Keep, SeenAttributes, SourceId};

/// Name and value of an extended attribute.
pub type ExtendedAttribute = (Box<[u8]>, Box<[u8]>);

/// A file that is moved to another source.
#[derive(Clone, Debug)]
pub struct Across<'a> {
    /// The directory in which it stands, and its name there.
    pub from: (EntryId, &'a [u8]),
    /// The directory in which it is to stand, and its name there.
    pub to: (EntryId, &'a [u8]),
    /// What the new source calls it, where that is not the name.
    pub raw_name: Option<Box<[u8]>>,
    /// How it looks there.
    pub seen: SeenAttributes,
    /// Whether its bytes are those of the version that is known.
    pub same_bytes: bool,
    /// Whether the catalog keeps attributes of what is in its new place; else what was kept so far is forgotten.
    pub keeps: bool,
    /// What is kept from now on, where anything is.
    pub keep: Keep,
    /// Extended attributes that are kept from now on.
    pub attributes: Vec<ExtendedAttribute>,
    /// What is left in its former place; `None`: its source had nothing there.
    pub left: Option<Left>,
    /// Its row of the journal; `None`: its new source has all of it already.
    pub staged: Option<Vec<u8>>,
    /// The bytes that lie beside that row, no more than [`STAGED_BYTES_MAX`](crate::STAGED_BYTES_MAX).
    pub staged_bytes: Option<Vec<u8>>,
    /// When it was moved, in nanoseconds since 1970 UTC.
    pub at_ns: i64,
}

/// What a file leaves in its former place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The version that is to be there.
    pub version: Box<[u8]>,
    /// Whether the file is made of it: what was not written is read from there.
    pub shows_through: bool,
}

/// A place in which something is left of a file that stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source.
    pub source: SourceId,
    /// The directory.
    pub directory: EntryId,
    /// The raw name in it.
    pub name: Vec<u8>,
    /// The version that is to be there, or what stands for [`sent`](Self::sent).
    pub version: Vec<u8>,
    /// The path beneath the source's root; `None`: the directory is not in the tree any more.
    pub path: Option<Vec<u8>>,
}

impl Origin {
    /// Gives the states of the file that may have arrived there, of an upload that was not confirmed; `None`: it is known what is
    /// there.
    pub fn sent(&self) -> Option<Vec<SentState>> {
        decode_sent(&self.version)
    }

    /// Tells whether that is so.
    pub fn is_unseen(&self) -> bool {
        is_sent(&self.version)
    }
}

/// A file of which something may have arrived where it stands, and the states that were sent; without any, nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The file.
    pub id: EntryId,
    /// The states.
    pub states: Vec<SentState>,
}

/// A file, and what is left of it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// The file. It may be gone.
    pub id: EntryId,
    /// Whether the origins are to be taken away.
    pub is_due: bool,
    /// Whether the file's source need not be asked whether it has the copy: the file was removed or replaced through the mount, or its source
    /// had it when its name was about to be changed.
    pub is_settled: bool,
    /// Whether the file is made of what is in the first of them.
    pub shows_through: bool,
    /// The places, at least one.
    pub places: Vec<Origin>,
}

impl Catalog {
    /// Follows the move of a file, or of anything else but a directory, to another source, in one transaction: what stood in its new place is gone, and what is left
    /// in the former one is not shown any more. It keeps its id, its pin and what is kept of it. Durable soon; at once with
    /// [`sync`](Self::sync).
    ///
    /// Refused for directories, within one source, and for what belongs to the library itself.
    pub fn follow_across(&self, across: &Across<'_>) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write_new(When::Soon, |edit| edit.follow_across(across))?;
        Ok(changes)
    }

    /// Notes that nothing is left in one place, or nothing that is ours to take away. What listings may show there, they show
    /// from now on. Call it while the directory [is being changed](Self::begin_change).
    pub fn note_origin_gone(&self, id: EntryId, gone: &Origin) -> Result<()> {
        let place = OriginPlace {
            source: gone.source.0,
            directory: gone.directory.0,
            name: gone.name.clone(),
            version: gone.version.clone(),
        };
        let noted = self
            .store()
            .write(When::Soon, |edit| edit.note_origin_gone(id.0, &place));
        noted.map(drop)
    }

    /// Gives up the move of a file whose origin is another version by now, of which nothing was copied: the file is gone, and
    /// what is in its former places shows again. Durable when it returns.
    pub fn give_up_across(&self, id: EntryId, at_ns: i64) -> Result<Vec<Change>> {
        let ((), changes) = self.store().write(When::Now, |edit| edit.give_up_across(id, at_ns))?;
        Ok(changes)
    }

    /// Tells whether a file that stands elsewhere has left something in a directory, under that raw name; or may have, unseen, under one that
    /// differs from it in case alone: to many sources they are the same.
    pub fn is_left_at(&self, directory: EntryId, raw_name: &[u8]) -> Result<bool> {
        self.store().read(|snapshot| {
            let folded = fold::fold(raw_name);
            let may_be = |place: &OriginPlace| is_sent(&place.version) && fold::fold(&place.name) == folded;
            Ok(
                any_left(snapshot, directory, Some(raw_name), |_| true)?
                    || any_left(snapshot, directory, None, may_be)?,
            )
        })
    }

    /// Tells whether that is known to be there: it is more than what may have arrived unseen.
    pub fn is_known_to_be_left_at(&self, directory: EntryId, raw_name: &[u8]) -> Result<bool> {
        self.store()
            .read(|snapshot| any_left(snapshot, directory, Some(raw_name), |place| !is_sent(&place.version)))
    }

    /// Tells whether files that stand elsewhere have left something in a directory, or somewhere beneath it.
    pub fn is_left_beneath(&self, directory: EntryId) -> Result<bool> {
        self.store().read(|snapshot| {
            if snapshot.origins.is_empty()? {
                return Ok(false);
            }
            for row in snapshot.origins.range::<u64>(..)? {
                for place in OriginsRow::decode(row?.1.value())?.places {
                    let top = tree::climb(&snapshot.entries, place.directory, |above, _| {
                        if above == directory.0 {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    })?;
                    if top == Top::Stopped {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
    }

    /// Lists what is left of files that stand elsewhere, in the order of ids.
    pub fn all_origins(&self) -> Result<Vec<Origins>> {
        self.store().read(|snapshot| {
            let mut all = Vec::new();
            if snapshot.origins.is_empty()? {
                return Ok(all);
            }
            for row in snapshot.origins.range::<u64>(..)? {
                let (id, row) = row?;
                all.push(shown(snapshot, id.value(), OriginsRow::decode(row.value())?)?);
            }
            Ok(all)
        })
    }

    /// Lists what is to be taken away, in the order of ids: all that is due, and what may have arrived unseen.
    pub fn due_origins(&self) -> Result<Vec<Origins>> {
        self.store().read(|snapshot| {
            let mut due = Vec::new();
            if snapshot.origins.is_empty()? {
                return Ok(due);
            }
            for row in snapshot.origins.range::<u64>(..)? {
                let (id, row) = row?;
                let row = OriginsRow::decode(row.value())?;
                if row.is_due || row.places.iter().any(|place| is_sent(&place.version)) {
                    due.push(shown(snapshot, id.value(), row)?);
                }
            }
            Ok(due)
        })
    }

    /// Finds which of these files, and of those beneath these directories, have left something that is due, and whose sources are to be
    /// asked still whether they have the copies.
    pub fn unsettled_origins(&self, named: &[EntryId]) -> Result<Vec<EntryId>> {
        self.store().read(|snapshot| {
            let mut found = Vec::new();
            if snapshot.origins.is_empty()? {
                return Ok(found);
            }
            for row in snapshot.origins.range::<u64>(..)? {
                let (id, row) = row?;
                let row = OriginsRow::decode(row.value())?;
                if !row.is_due || row.is_settled {
                    continue;
                }
                let top = tree::climb(&snapshot.entries, id.value(), |above, _| {
                    if named.contains(&EntryId(above)) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                if top == Top::Stopped {
                    found.push(EntryId(id.value()));
                }
            }
            Ok(found)
        })
    }

    /// Notes that the sources of these files had the copies, and need not be asked any more: what stands there is about to be changed through
    /// the mount, and should that be done and not be known here after a crash, what the files have left elsewhere would come back. Durable
    /// when it returns.
    pub fn settle_origins(&self, files: &[EntryId]) -> Result<()> {
        let settled = self.store().write(When::Now, |edit| edit.settle_origins(files, true));
        settled.map(drop)
    }

    /// Takes that back of those that are still there. Durable soon.
    pub fn unsettle_origins(&self, files: &[EntryId]) -> Result<()> {
        let settled = self.store().write(When::Soon, |edit| edit.settle_origins(files, false));
        settled.map(drop)
    }

    /// Tells what is left of one file.
    pub fn origins(&self, id: EntryId) -> Result<Option<Origins>> {
        self.store().read(|snapshot| {
            if snapshot.origins.is_empty()? {
                return Ok(None);
            }
            let Some(row) = snapshot.origins.get(id.0)? else {
                return Ok(None);
            };
            shown(snapshot, id.0, OriginsRow::decode(row.value())?).map(Some)
        })
    }

    /// Finds where what shows through a file is: the source, and the path beneath its root.
    pub fn origin_place(&self, id: EntryId) -> Result<Option<(SourceId, Vec<u8>)>> {
        let origins = self.origins(id)?.filter(|origins| origins.shows_through);
        let first = origins.and_then(|origins| origins.places.into_iter().next());
        Ok(first.and_then(|origin| Some((origin.source, origin.path?))))
    }
}

/// Tells whether `holds` is so of any place in a directory, or of any under one raw name.
fn any_left(
    snapshot: &Snapshot,
    directory: EntryId,
    raw_name: Option<&[u8]>,
    holds: impl Fn(&OriginPlace) -> bool,
) -> Result<bool> {
    if snapshot.left.is_empty()? {
        return Ok(false);
    }
    let (first, last) = left_range(directory.0, raw_name);
    for key in snapshot.left.range(first.as_slice()..last.as_slice())? {
        let key = key?.0;
        let (id, name) = (left_id(key.value())?, left_name(key.value())?);
        let Some(row) = snapshot.origins.get(id)? else { continue };
        let is_here = |place: &OriginPlace| (place.directory, &*place.name) == (directory.0, name);
        let places = OriginsRow::decode(row.value())?.places;
        if places.iter().any(|place| is_here(place) && holds(place)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shown(snapshot: &Snapshot, id: u64, row: OriginsRow) -> Result<Origins> {
    let mut places = Vec::with_capacity(row.places.len());
    for place in row.places {
        let above = snapshot.object_path(place.directory)?;
        let path = above.map(|above| {
            if above.is_empty() {
                place.name.clone()
            } else {
                [&above[..], b"/", &place.name].concat()
            }
        });
        places.push(Origin {
            source: SourceId(place.source),
            directory: EntryId(place.directory),
            name: place.name,
            version: place.version,
            path,
        });
    }
    Ok(Origins {
        id: EntryId(id),
        is_due: row.is_due,
        is_settled: row.is_settled,
        shows_through: row.shows_through,
        places,
    })
}
