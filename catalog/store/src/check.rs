//! What holds between the rows of a catalog, in one place: `manifold check`, opening after a repair, and every test of
//! a change ask here.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use redb::{ReadableTable, ReadableTableMetadata};

use crate::edit::moves::topmost;
use crate::error::{Error, OpenError, Result};
use crate::format::{
    ChildKey, CrossingRow, FORMAT, HotRow, KeptRow, LinkRow, META_ID_LIMIT, META_NEXT_POLICY, META_NEXT_SOURCE,
    MoveRow, MovedRow, NOWHERE, OriginsRow, PartUploadRow, PinRow, RenameRow, STAGED_BYTES_MAX, ScanRow, SentPartRow,
    SourceRow, TotalsRow, child_name, child_parent, content_id, content_key, decode_staged, decode_state, identity_id,
    identity_key, left_key, name_fault, owned_id, part_place,
};
use crate::store::{Snapshot, bring_up_to_date, log_loss, open_file, refuse_file};
use crate::tree::{self, Top};
use crate::{CheckReport, EntryId, Kind, SourceId};

/// Pages of a file under examination that are kept in memory, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// Examines a file from beginning to end. It is held all the time, so that nothing is written to it.
pub(crate) fn check_file(file: &Path) -> Result<CheckReport, OpenError> {
    let opened = open_file(file, CACHE_BYTES, None)?;
    let examined = || {
        let caught = bring_up_to_date(file, &opened.database)?;
        Ok((caught, examine(&Snapshot::take(&opened.database)?)?))
    };
    let (caught, report) = examined().map_err(|error| refuse_file(file, error))?;
    Ok(CheckReport {
        format: opened.format,
        log_loss: log_loss(file, caught.loss),
        ..report
    })
}

/// Finds the first thing that does not hold.
pub(crate) fn examine(snapshot: &Snapshot) -> Result<CheckReport> {
    let id_limit = number(snapshot, META_ID_LIMIT)?;
    let next_source = number(snapshot, META_NEXT_SOURCE)?;
    let sources = sources(snapshot, next_source)?;
    let mut examination = Examination {
        snapshot,
        sources,
        id_limit,
        places: HashMap::new(),
        seen: Seen::default(),
    };
    examination.rows()?;
    examination.directories()?;
    examination.queue()?;
    examination.identities()?;
    examination.contents()?;
    examination.pins()?;
    examination.staged()?;
    examination.kept()?;
    examination.links()?;
    examination.moves()?;
    examination.origins()?;
    examination.parts()?;
    examination.crossings()?;
    examination.renames()?;
    examination.departed()?;
    examination.attach_points()?;
    examination.totals()?;
    let seen = &examination.seen;
    Ok(CheckReport {
        format: FORMAT,
        entries: seen.totals.values().map(|totals| totals.entries).sum(),
        directories: seen.directories,
        departed: snapshot.departed.len()?,
        staged: snapshot.staged.len()?,
        sources: examination.sources.len() as u64,
        bytes: seen
            .totals
            .values()
            .fold(TotalsRow::default(), |sum, one| sum.plus(*one))
            .shown()
            .bytes,
        log_loss: None,
    })
}

struct Examination<'a> {
    snapshot: &'a Snapshot,
    sources: BTreeMap<u32, SourceRow>,
    id_limit: u64,
    /// Where the way up from a directory ends, and whose it is.
    places: HashMap<u64, (Top, u32)>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    totals: BTreeMap<u32, TotalsRow>,
    directories: u64,
    rows: u64,
    identities: u64,
    contents: u64,
    kept: u64,
    departed: u64,
    attach_points: usize,
}

impl Examination<'_> {
    /// Every hot row has its cold row and the other way round; both agree; parents are directories that exist.
    fn rows(&mut self) -> Result<()> {
        for row in self.snapshot.children.iter()? {
            let (key, row) = row?;
            let (parent, name) = (child_parent(key.value())?, child_name(key.value())?);
            self.row(parent, name, &HotRow::decode(row.value())?)?;
        }
        agree(self.seen.rows == self.snapshot.entries.len()?, || {
            "entries without attributes".into()
        })?;
        agree(self.seen.identities == self.snapshot.identities.len()?, || {
            "identities without an entry".into()
        })?;
        agree(self.seen.contents == self.snapshot.contents.len()?, || {
            "contents without an entry".into()
        })
    }

    fn row(&mut self, parent: u64, name: &[u8], hot: &HotRow) -> Result<()> {
        let (id, source) = (hot.id(), hot.source());
        self.seen.rows += 1;
        agree(id < self.id_limit && id >= EntryId::ROOT.0, || {
            format!("entry {id} has an id that was never given")
        })?;
        let cold = tree::cold(&self.snapshot.entries, id)?;
        let cold = cold.ok_or_else(|| Error::damaged(format!("entry {id} has no details")))?;
        agree(cold.parent == parent, || {
            format!("entry {id} stands in two directories")
        })?;
        agree(cold.attach_point == hot.is_attach_point(), || {
            format!("entry {id} is half an attach point")
        })?;
        agree(!hot.is_directory() || hot.size() == 0, || {
            format!("directory {id} has a size")
        })?;
        agree(source != SourceId::LIBRARY.0 || !hot.keeps_anything(), || {
            format!("something is kept of entry {id}, which is the library's own")
        })?;
        self.seen.kept += u64::from(hot.keeps_more());
        self.seen.identities += u64::from(cold.identity.is_some());
        if let Some(identity) = &cold.identity {
            let indexed = self
                .snapshot
                .identities
                .get(&identity_key(source, identity, id))?
                .is_some();
            agree(indexed, || format!("entry {id} is missing in the index of identities"))?;
        }
        self.seen.contents += u64::from(cold.content.is_some());
        if let Some(content) = &cold.content {
            let indexed = self.snapshot.contents.get(&content_key(content, id))?.is_some();
            agree(indexed, || format!("entry {id} is missing in the index of contents"))?;
            agree(hot.kind() == Kind::File && !cold.version.is_empty(), || {
                format!("entry {id} has a content, but is no file of a known version")
            })?;
        }
        let place = if parent == NOWHERE {
            let is_root = id == EntryId::ROOT.0;
            let key = if is_root { Vec::new() } else { id.to_be_bytes().to_vec() };
            agree(name == key && (is_root || name_fault(&cold.name).is_none()), || {
                format!("entry {id} is misplaced")
            })?;
            self.seen.departed += u64::from(!is_root);
            if is_root { Top::Root } else { Top::Departed }
        } else {
            agree(*cold.name == *name, || format!("entry {id} has two names"))?;
            agree(name_fault(name).is_none(), || {
                format!("entry {id} has an impossible name")
            })?;
            let (place, owner) = self.place_of(parent)?;
            let apart = hot.is_attach_point() || source == SourceId::LIBRARY.0;
            agree(apart || source == owner, || {
                format!("entry {id} stands in a directory of another source")
            })?;
            place
        };
        agree(!hot.is_attach_point() || hot.is_directory(), || {
            format!("attach point {id} is no directory")
        })?;
        if place == Top::Root {
            let totals = self.seen.totals.entry(source).or_default();
            *totals = totals.plus(TotalsRow::of(hot.size()));
            self.seen.directories += u64::from(hot.is_directory());
            self.seen.attach_points += usize::from(hot.is_attach_point());
            let known = source == SourceId::LIBRARY.0 || self.sources.contains_key(&source);
            agree(known, || format!("entry {id} belongs to a source that is gone"))?;
        } else {
            let apart = hot.is_attach_point() || source == SourceId::LIBRARY.0;
            agree(!apart, || format!("entry {id} was the library's, and has departed"))?;
        }
        Ok(())
    }

    /// Where a directory is: in the tree, or beneath something departed; and whose it is.
    fn place_of(&mut self, directory: u64) -> Result<(Top, u32)> {
        if let Some(place) = self.places.get(&directory) {
            return Ok(*place);
        }
        let node = tree::node(&self.snapshot.children, &self.snapshot.entries, directory)?;
        let (_, hot) = node.ok_or_else(|| Error::damaged(format!("directory {directory} is missing")))?;
        agree(hot.is_directory(), || {
            format!("entry {directory} has children, but is no directory")
        })?;
        let mut known = None;
        let mut way = Vec::new();
        let top = tree::climb(&self.snapshot.entries, directory, |above, _| {
            known = self.places.get(&above).map(|place| place.0);
            way.push(above);
            if known.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let place = (known.unwrap_or(top), hot.source());
        self.places.insert(directory, place);
        Ok(place)
    }

    fn is_directory_of(&self, id: u64, source: Option<u32>) -> Result<bool> {
        let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
        Ok(node.is_some_and(|(_, hot)| hot.is_directory() && source.is_none_or(|source| hot.source() == source)))
    }

    fn directories(&self) -> Result<()> {
        for row in self.snapshot.directories.iter()? {
            let (id, state) = row?;
            decode_state(state.value())?;
            let id = id.value();
            agree(self.is_directory_of(id, None)?, || {
                format!("a listing is noted of {id}, which is no directory")
            })?;
        }
        Ok(())
    }

    fn queue(&mut self) -> Result<()> {
        let mut queued = BTreeMap::<u32, u64>::new();
        for row in self.snapshot.queue.iter()? {
            let (source, id) = owned_id(row?.0.value());
            *queued.entry(source).or_default() += 1;
            let there = self.is_directory_of(id, Some(source))? && self.place_of(id)?.0 == Top::Root;
            agree(there, || {
                format!("entry {id} is queued, but is no directory of its source")
            })?;
        }
        for row in self.snapshot.scans.iter()? {
            let (source, scan) = row?;
            let (source, scan) = (source.value(), ScanRow::decode(scan.value())?);
            agree(self.sources.contains_key(&source), || {
                format!("a scan of source {source}, which is gone")
            })?;
            let counted = queued.remove(&source).unwrap_or_default();
            agree(scan.queued == counted, || {
                format!("source {source} counts {} queued, not {counted}", scan.queued)
            })?;
        }
        agree(queued.is_empty(), || "directories are queued without a count".into())
    }

    fn identities(&self) -> Result<()> {
        for row in self.snapshot.identities.iter()? {
            let key = *row?.0.value();
            let id = identity_id(&key);
            let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
            let same = node.is_some_and(|(cold, hot)| {
                cold.identity
                    .is_some_and(|identity| identity_key(hot.source(), &identity, id) == key)
            });
            agree(same, || format!("the index of identities is wrong about entry {id}"))?;
        }
        Ok(())
    }

    fn contents(&self) -> Result<()> {
        for row in self.snapshot.contents.iter()? {
            let key = *row?.0.value();
            let id = content_id(&key);
            let content = tree::with_cold(&self.snapshot.entries, id, |cold| Ok(cold.content))?.flatten();
            let same = content.is_some_and(|content| content_key(&content, id) == key);
            agree(same, || format!("the index of contents is wrong about entry {id}"))?;
        }
        Ok(())
    }

    /// What is pinned is there, and so is the policy that pinned it.
    fn pins(&self) -> Result<()> {
        let next_policy = number(self.snapshot, META_NEXT_POLICY)?;
        for row in self.snapshot.pin_policies.iter()? {
            let id = row?.0.value();
            agree(id != 0 && id < next_policy, || format!("policy {id} was never made"))?;
        }
        for row in self.snapshot.pins.iter()? {
            let (id, row) = row?;
            let id = id.value();
            let there = self.snapshot.entries.get(id)?.is_some();
            agree(there, || format!("entry {id} is pinned, but is not there"))?;
            if let Some(policy) = PinRow::decode(row.value())?.pin(id).policy {
                let there = self.snapshot.pin_policies.get(policy.0)?.is_some();
                agree(there, || {
                    format!("policy {policy}, which pinned entry {id}, is not there")
                })?;
            }
        }
        Ok(())
    }

    /// What is staged stands in the tree, and is a source's.
    fn staged(&mut self) -> Result<()> {
        for row in self.snapshot.staged.iter()? {
            let (id, row) = row?;
            let id = id.value();
            decode_staged(row.value())?;
            let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
            let own = node.filter(|(_, hot)| hot.source() != SourceId::LIBRARY.0 && !hot.is_attach_point());
            let parent = own.map_or(NOWHERE, |(cold, _)| cold.parent);
            agree(parent != NOWHERE && self.place_of(parent)?.0 == Top::Root, || {
                format!("entry {id} is staged, but does not stand in the tree of a source")
            })?;
        }
        for row in self.snapshot.staged_bytes.iter()? {
            let (id, bytes) = row?;
            let id = id.value();
            agree(bytes.value().len() <= STAGED_BYTES_MAX, || {
                format!("there are too many bytes beside the row of entry {id}")
            })?;
            agree(self.snapshot.staged.get(id)?.is_some(), || {
                format!("there are bytes of entry {id}, which is not staged")
            })?;
        }
        Ok(())
    }

    /// What is kept in rows of their own belongs to the entries that say so.
    fn kept(&self) -> Result<()> {
        for row in self.snapshot.kept.iter()? {
            let (id, row) = row?;
            let id = id.value();
            KeptRow::decode(row.value())?;
            let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
            agree(node.is_some_and(|(_, hot)| hot.keeps_more()), || {
                format!("something is kept of entry {id}, which does not say so")
            })?;
        }
        agree(self.snapshot.kept.len()? == self.seen.kept, || {
            "what is kept of an entry is missing".into()
        })
    }

    /// Where something points is known of links alone.
    fn links(&self) -> Result<()> {
        for row in self.snapshot.links.iter()? {
            let (id, row) = row?;
            let id = id.value();
            LinkRow::decode(row.value())?;
            let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
            agree(node.is_some_and(|(_, hot)| hot.kind() == Kind::Symlink), || {
                format!("entry {id} points elsewhere, but is no link")
            })?;
        }
        Ok(())
    }

    /// What is on the move stands in the tree of a source: directories, and files beneath them.
    fn moves(&mut self) -> Result<()> {
        let snapshot = self.snapshot;
        for row in snapshot.moves.iter()? {
            let (id, row) = row?;
            let id = id.value();
            MoveRow::decode(row.value())?;
            self.is_on_the_move(id, true)?;
        }
        for row in snapshot.moved.iter()? {
            let (id, row) = row?;
            let id = id.value();
            MovedRow::decode(row.value())?;
            self.is_on_the_move(id, false)?;
            agree(topmost(&snapshot.entries, &snapshot.moves, id)?.is_some(), || {
                format!("entry {id} has moved, but no directory above it")
            })?;
        }
        Ok(())
    }

    /// What is left of files that stand elsewhere is in directories of its source; who still needs it is staged.
    fn origins(&mut self) -> Result<()> {
        let (snapshot, mut places) = (self.snapshot, 0);
        for row in snapshot.origins.iter()? {
            let (id, row) = row?;
            let (id, row) = (id.value(), OriginsRow::decode(row.value())?);
            agree(id < self.id_limit, || {
                format!("something is left of {id}, which was never given")
            })?;
            agree(row.is_due || snapshot.staged.get(id)?.is_some(), || {
                format!("entry {id} has left something elsewhere that it needs, but is not staged")
            })?;
            places += row.places.len() as u64;
            for place in row.places {
                let key = left_key(place.directory, &place.name, id);
                agree(snapshot.left.get(key.as_slice())?.is_some(), || {
                    format!("what is left of entry {id} is missing in its index")
                })?;
                let is_there = self.is_directory_of(place.directory, Some(place.source))?
                    && self.place_of(place.directory)?.0 == Top::Root;
                agree(is_there, || {
                    format!("what is left of entry {id} is in no directory of its source")
                })?;
            }
        }
        agree(snapshot.left.len()? <= places, || {
            "the index of what is left names what is not".into()
        })
    }

    /// An upload in parts is a source's, and a part that of an upload.
    fn parts(&self) -> Result<()> {
        for row in self.snapshot.part_uploads.iter()? {
            let (id, row) = row?;
            let (id, row) = (id.value(), PartUploadRow::decode(row.value())?);
            agree(id < self.id_limit && row.entry < self.id_limit, || {
                format!("upload {id} in parts is of an entry that was never given, or was never begun")
            })?;
            agree(self.sources.contains_key(&row.source), || {
                format!("upload {id} in parts is to a source that is gone")
            })?;
        }
        for row in self.snapshot.sent_parts.iter()? {
            let (key, row) = row?;
            let (upload, number) = part_place(key.value());
            SentPartRow::decode(row.value())?;
            let there = number > 0 && self.snapshot.part_uploads.get(upload)?.is_some();
            agree(there, || {
                format!("a part {number} is noted of upload {upload}, which is not there")
            })?;
        }
        Ok(())
    }

    /// Copies are named of entries that were given, in directories that were too.
    fn crossings(&self) -> Result<()> {
        for row in self.snapshot.crossings.iter()? {
            let (id, row) = row?;
            let (id, row) = (id.value(), CrossingRow::decode(row.value())?);
            agree(id.max(row.from.0).max(row.to.0) < self.id_limit, || {
                format!("a copy is noted of entry {id}, which was never given, or in such a directory")
            })?;
        }
        Ok(())
    }

    /// Directories that were given are asked to get names in such.
    fn renames(&self) -> Result<()> {
        for row in self.snapshot.renames.iter()? {
            let (id, row) = row?;
            let (id, row) = (id.value(), RenameRow::decode(row.value())?);
            agree(id.max(row.to.0) < self.id_limit, || {
                format!("a rename is noted of entry {id}, which was never given, or to such a directory")
            })?;
        }
        Ok(())
    }

    fn is_on_the_move(&mut self, id: u64, is_directory: bool) -> Result<()> {
        let node = tree::node(&self.snapshot.children, &self.snapshot.entries, id)?;
        let own = node.filter(|(_, hot)| {
            hot.source() != SourceId::LIBRARY.0 && !hot.is_attach_point() && hot.is_directory() == is_directory
        });
        let parent = own.map_or(NOWHERE, |(cold, _)| cold.parent);
        agree(parent != NOWHERE && self.place_of(parent)?.0 == Top::Root, || {
            format!("entry {id} is on the move, but does not stand in the tree of a source")
        })
    }

    fn departed(&self) -> Result<()> {
        for row in self.snapshot.departed.iter()? {
            let (source, id) = owned_id(row?.0.value());
            let hot = tree::hot(&self.snapshot.children, &ChildKey::departed(id))?;
            agree(hot.is_some_and(|hot| hot.source() == source), || {
                format!("departed entry {id} is not there")
            })?;
        }
        let count = self.snapshot.departed.len()?;
        agree(count == self.seen.departed, || {
            "entries have departed without a note".into()
        })
    }

    /// Each source's root is where its record says, and no entry else claims to be one.
    fn attach_points(&self) -> Result<()> {
        for (source, row) in &self.sources {
            let node = tree::node(&self.snapshot.children, &self.snapshot.entries, row.root)?;
            let there = node.is_some_and(|(_, hot)| hot.is_attach_point() && hot.source() == *source);
            agree(there, || format!("the root of source {source} is not there"))?;
            let mut names = Vec::new();
            tree::climb(&self.snapshot.entries, row.root, |_, cold| {
                names.push(cold.name.to_vec());
                ControlFlow::Continue(())
            })?;
            names.reverse();
            let path = if names.len() == 1 {
                b"/".to_vec()
            } else {
                names.join(&b'/')
            };
            agree(path == row.attach, || {
                format!("source {source} is attached elsewhere than its record says")
            })?;
        }
        agree(self.seen.attach_points == self.sources.len(), || {
            "attach points without a source".into()
        })
    }

    fn totals(&self) -> Result<()> {
        let mut kept = BTreeMap::new();
        for row in self.snapshot.totals.iter()? {
            let (source, totals) = row?;
            let totals = TotalsRow::decode(totals.value())?;
            if totals != TotalsRow::default() {
                kept.insert(source.value(), totals);
            }
        }
        agree(kept == self.seen.totals, || {
            format!("totals are {kept:?}, not {:?}", self.seen.totals)
        })
    }
}

fn sources(snapshot: &Snapshot, next_source: u64) -> Result<BTreeMap<u32, SourceRow>> {
    let mut sources = BTreeMap::new();
    for row in snapshot.sources.iter()? {
        let (id, row) = row?;
        let id = id.value();
        agree(id != SourceId::LIBRARY.0 && u64::from(id) < next_source, || {
            format!("source {id} was never made")
        })?;
        sources.insert(id, SourceRow::decode(row.value())?);
    }
    Ok(sources)
}

fn number(snapshot: &Snapshot, name: &str) -> Result<u64> {
    let number = snapshot.meta.get(name)?.map(|number| number.value());
    number.ok_or_else(|| Error::damaged(format!("{name} is missing")))
}

fn agree(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Damaged(what())) }
}
