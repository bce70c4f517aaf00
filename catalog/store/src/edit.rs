//! One change of the catalog: the tables of a write transaction, and the steps that every change is made of.
//!
//! The steps keep hot row, cold row, identity index, queue and totals in agreement; no other module writes to a table.

mod contents;
mod crossings;
pub(crate) mod depart;
pub(crate) mod follow;
mod insert;
pub(crate) mod keep;
mod links;
pub(crate) mod moves;
pub(crate) mod origins;
mod parts;
mod pins;
mod queue;
mod redo;
mod renames;
pub(crate) mod staged;
pub(crate) mod update;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Key, ReadableTable, TableDefinition, Value, WriteTransaction};

use crate::error::{Error, Result};
use crate::format::{
    self, CHILDREN, CONTENTS, CROSSINGS, ChildKey, Cold, ContentKey, DEPARTED, DIRECTORIES, ENTRIES, FORMAT,
    FORMAT_OF_PINS, HOT_BYTES, HotRow, IDENTITIES, IdentityKey, KEPT, LEFT, LINKS, META, META_FORMAT, META_GENERATION,
    META_ID_LIMIT, META_LOG, META_NEXT_POLICY, META_NEXT_SOURCE, MOVED, MOVES, NOWHERE, ORIGINS, OwnedKey,
    PART_UPLOADS, PIN_POLICIES, PINS, PartKey, QUEUE, RENAMES, SENT_PARTS, SOURCES, STAGED, STAGED_BYTES, ScanRow,
    SourceRow, TOTALS_BYTES, TotalsRow, child_name, decode_state, encode_state, identity_key, subtree_range,
};
use crate::rows::Rows;
use crate::store::wal::Record;
use crate::ticket::Tickets;
use crate::tree::{self, Top};
use crate::{Change, DirectoryState, EntryId, SourceId, Ticket};

pub(crate) use insert::Fresh;

/// A write transaction's tables, and what must be written before it ends.
pub(crate) struct Edit<'t> {
    pub(crate) meta: Rows<'t, &'static str, u64>,
    pub(crate) children: Rows<'t, &'static [u8], &'static [u8; HOT_BYTES]>,
    pub(crate) entries: Rows<'t, u64, &'static [u8]>,
    pub(crate) directories: Rows<'t, u64, &'static [u8]>,
    pub(crate) queue: Rows<'t, OwnedKey, ()>,
    pub(crate) identities: Rows<'t, IdentityKey, ()>,
    contents: Rows<'t, ContentKey, ()>,
    pins: Rows<'t, u64, &'static [u8]>,
    pin_policies: Rows<'t, u64, &'static [u8]>,
    staged: Rows<'t, u64, &'static [u8]>,
    staged_bytes: Rows<'t, u64, &'static [u8]>,
    kept: Rows<'t, u64, &'static [u8]>,
    moves: Rows<'t, u64, &'static [u8]>,
    moved: Rows<'t, u64, &'static [u8]>,
    links: Rows<'t, u64, &'static [u8]>,
    pub(crate) departed: Rows<'t, OwnedKey, i64>,
    pub(crate) sources: Rows<'t, u32, &'static [u8]>,
    totals: Rows<'t, u32, &'static [u8; TOTALS_BYTES]>,
    scans: Rows<'t, u32, &'static [u8]>,
    origins: Rows<'t, u64, &'static [u8]>,
    left: Rows<'t, &'static [u8], ()>,
    part_uploads: Rows<'t, u64, &'static [u8]>,
    sent_parts: Rows<'t, PartKey, &'static [u8]>,
    crossings: Rows<'t, u64, &'static [u8]>,
    renames: Rows<'t, u64, &'static [u8]>,
    next_id: &'t AtomicU64,
    pub(crate) tickets: &'t Tickets,
    /// Totals and scans that were touched, as they are now.
    totals_now: BTreeMap<u32, TotalsRow>,
    scans_now: BTreeMap<u32, ScanRow>,
    /// The directories that lead to an attach point, once somebody has asked.
    holding: OnceCell<HashSet<u64>>,
    /// The directories that lead to something staged, or to one whose objects are still to follow it, once somebody has asked.
    leading: OnceCell<HashSet<u64>>,
    pub(crate) changes: Vec<Change>,
}

/// Opens a table, whose number in the write-ahead log this is.
fn rows<'t, K: Key + 'static, V: Value + 'static>(
    transaction: &'t WriteTransaction,
    table: TableDefinition<'_, K, V>,
    number: u8,
    record: &'t RefCell<Record>,
) -> Result<Rows<'t, K, V>> {
    Ok(Rows::new(transaction.open_table(table)?, number, record))
}

/// Writes the rows of an empty catalog.
pub(crate) fn initialise(transaction: &WriteTransaction) -> Result<()> {
    let root = EntryId::ROOT.0;
    // Ids begin above the root's; nothing is reserved yet.
    let next_id = AtomicU64::new(root + 1);
    let tickets = Tickets::default();
    let record = RefCell::default();
    let mut edit = Edit::begin(transaction, &record, &next_id, &tickets)?;
    edit.meta.insert(META_FORMAT, FORMAT)?;
    edit.meta.insert(META_NEXT_SOURCE, 1)?;
    edit.meta.insert(META_NEXT_POLICY, 1)?;
    edit.set_id_limit(root + 1)?;
    edit.put_directory(root, NOWHERE, b"", SourceId::LIBRARY.0, false)?;
    edit.finish().map(drop)
}

/// Does again what records of the write-ahead log tell, in the commit of that name.
pub(crate) fn redo(transaction: &WriteTransaction, records: &[Vec<u8>], generation: u64) -> Result<()> {
    // No id is given away.
    let next_id = AtomicU64::new(0);
    let tickets = Tickets::default();
    let record = RefCell::default();
    let mut edit = Edit::begin(transaction, &record, &next_id, &tickets)?;
    for record in records {
        edit.redo(record)?;
    }
    edit.set_generation(generation, None)?;
    edit.finish().map(drop)
}

/// Brings the rows of a catalog of an older format up to date. The tables that it lacks are made empty.
pub(crate) fn upgrade(transaction: &WriteTransaction, from: u64) -> Result<()> {
    // No id is given away.
    let next_id = AtomicU64::new(0);
    let tickets = Tickets::default();
    let record = RefCell::default();
    let mut edit = Edit::begin(transaction, &record, &next_id, &tickets)?;
    edit.meta.insert(META_FORMAT, FORMAT)?;
    if from < FORMAT_OF_PINS {
        edit.meta.insert(META_NEXT_POLICY, 1)?;
        edit.index_contents()?;
    }
    edit.finish().map(drop)
}

impl<'t> Edit<'t> {
    pub(crate) fn begin(
        transaction: &'t WriteTransaction,
        record: &'t RefCell<Record>,
        next_id: &'t AtomicU64,
        tickets: &'t Tickets,
    ) -> Result<Self> {
        Ok(Self {
            meta: rows(transaction, META, 0, record)?,
            children: rows(transaction, CHILDREN, 1, record)?,
            entries: rows(transaction, ENTRIES, 2, record)?,
            directories: rows(transaction, DIRECTORIES, 3, record)?,
            queue: rows(transaction, QUEUE, 4, record)?,
            identities: rows(transaction, IDENTITIES, 5, record)?,
            contents: rows(transaction, CONTENTS, 6, record)?,
            pins: rows(transaction, PINS, 7, record)?,
            pin_policies: rows(transaction, PIN_POLICIES, 8, record)?,
            staged: rows(transaction, STAGED, 9, record)?,
            staged_bytes: rows(transaction, STAGED_BYTES, 10, record)?,
            kept: rows(transaction, KEPT, 11, record)?,
            moves: rows(transaction, MOVES, 12, record)?,
            moved: rows(transaction, MOVED, 13, record)?,
            links: rows(transaction, LINKS, 14, record)?,
            departed: rows(transaction, DEPARTED, 15, record)?,
            sources: rows(transaction, SOURCES, 16, record)?,
            totals: rows(transaction, format::TOTALS, 17, record)?,
            scans: rows(transaction, format::SCANS, 18, record)?,
            origins: rows(transaction, ORIGINS, 19, record)?,
            left: rows(transaction, LEFT, 20, record)?,
            part_uploads: rows(transaction, PART_UPLOADS, 21, record)?,
            sent_parts: rows(transaction, SENT_PARTS, 22, record)?,
            crossings: rows(transaction, CROSSINGS, 23, record)?,
            renames: rows(transaction, RENAMES, 24, record)?,
            next_id,
            tickets,
            totals_now: BTreeMap::new(),
            scans_now: BTreeMap::new(),
            holding: OnceCell::new(),
            leading: OnceCell::new(),
            changes: Vec::new(),
        })
    }

    /// Writes what was put off, and gives the changes back. The transaction may then be committed.
    pub(crate) fn finish(mut self) -> Result<Vec<Change>> {
        self.write_sums()?;
        Ok(self.changes)
    }

    /// Writes what was put off until now.
    pub(crate) fn write_sums(&mut self) -> Result<()> {
        for (source, totals) in std::mem::take(&mut self.totals_now) {
            self.totals.insert(source, &totals.encode())?;
        }
        for (source, scan) in std::mem::take(&mut self.scans_now) {
            self.scans.insert(source, scan.encode().as_slice())?;
        }
        Ok(())
    }

    /// Names the durable commit that this change ends with, and the generation that its write-ahead log begins with until the first
    /// record that follows it; `None` where there is none that could be missed.
    pub(crate) fn set_generation(&mut self, generation: u64, log: Option<u64>) -> Result<()> {
        self.meta.insert(META_GENERATION, generation)?;
        match log {
            Some(log) => drop(self.meta.insert(META_LOG, log)?),
            None => drop(self.meta.remove(META_LOG)?),
        }
        Ok(())
    }

    /// Tells whether what was seen of an entry since the ticket may be older than a change, or of something else.
    pub(crate) fn is_overtaken(&self, ticket: Ticket, id: u64) -> Result<bool> {
        if self.tickets.is_overtaken(ticket, id) {
            return Ok(true);
        }
        if !ticket.has_place() {
            return Ok(false);
        }
        // What is not in the tree has no place that it could be elsewhere than.
        let path = self.object_path(id)?;
        Ok(path.is_some_and(|path| ticket.is_elsewhere(&path)))
    }

    /// Refuses what [is overtaken](Self::is_overtaken).
    pub(crate) fn check_ticket(&self, ticket: Ticket, id: u64) -> Result<()> {
        if self.is_overtaken(ticket, id)? {
            return Err(Error::Overtaken(EntryId(id)));
        }
        Ok(())
    }

    pub(crate) fn set_id_limit(&mut self, limit: u64) -> Result<()> {
        self.meta.insert(META_ID_LIMIT, limit)?;
        Ok(())
    }

    pub(crate) fn allocate_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn node(&self, id: u64) -> Result<Option<(Cold, HotRow)>> {
        tree::node(&*self.children, &*self.entries, id)
    }

    pub(crate) fn hot(&self, parent: u64, name: &[u8]) -> Result<Option<HotRow>> {
        match ChildKey::new(parent, name) {
            Some(key) => tree::hot(&*self.children, &key),
            None => Ok(None),
        }
    }

    pub(crate) fn existing_cold(&self, id: u64) -> Result<Cold> {
        tree::cold(&*self.entries, id)?.ok_or_else(|| Error::damaged(format!("entry {id} has lost its details")))
    }

    /// Gives the row of a directory that stands in the tree and belongs to a source.
    pub(crate) fn source_directory(&self, id: EntryId) -> Result<HotRow> {
        self.source_directory_with(id, &mut HashSet::new())
    }

    /// The same for many of them: `attached` gathers the directories that are known to stand in the tree.
    pub(crate) fn source_directory_with(&self, id: EntryId, attached: &mut HashSet<u64>) -> Result<HotRow> {
        let (cold, hot) = self.node(id.0)?.ok_or(Error::NoEntry(id))?;
        if !hot.is_directory() {
            return Err(Error::NotADirectory(id));
        }
        if hot.source() == SourceId::LIBRARY.0 {
            let why = "it belongs to no source";
            return Err(Error::Refused {
                directory: id,
                what: "directory",
                name: cold.name,
                why,
            });
        }
        let mut way = Vec::new();
        let top = tree::climb(&*self.entries, id.0, |above, _| {
            if attached.contains(&above) {
                return ControlFlow::Break(());
            }
            way.push(above);
            ControlFlow::Continue(())
        })?;
        if !matches!(top, Top::Root | Top::Stopped) {
            return Err(Error::NoEntry(id));
        }
        attached.extend(way);
        Ok(hot)
    }

    /// Tells whether an entry can be reached from the root.
    pub(crate) fn is_attached(&self, id: u64) -> Result<bool> {
        Ok(tree::climb(&*self.entries, id, |_, _| ControlFlow::Continue(()))? == Top::Root)
    }

    /// Tells whether a directory leads to an attach point, so that it must stay where it is.
    pub(crate) fn holds_attach_point(&self, id: u64) -> Result<bool> {
        if let Some(holding) = self.holding.get() {
            return Ok(holding.contains(&id));
        }
        let mut holding = HashSet::new();
        for source in self.sources.iter()? {
            let root = SourceRow::decode(source?.1.value())?.root;
            tree::climb(&*self.entries, root, |above, _| {
                if above != root {
                    holding.insert(above);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(self.holding.get_or_init(|| holding).contains(&id))
    }

    /// Says that sources came or went.
    pub(crate) fn sources_changed(&mut self) {
        self.holding = OnceCell::new();
    }

    /// Collects the children of a directory that are chosen.
    pub(crate) fn children_where(
        &self,
        directory: u64,
        mut choose: impl FnMut(&HotRow) -> bool,
    ) -> Result<Vec<(Box<[u8]>, HotRow)>> {
        let mut chosen = Vec::new();
        let range = subtree_range(directory);
        for row in self.children.range(range.start.as_slice()..range.end.as_slice())? {
            let (key, row) = row?;
            let hot = HotRow::decode(row.value())?;
            if choose(&hot) {
                chosen.push((child_name(key.value())?.into(), hot));
            }
        }
        Ok(chosen)
    }

    /// Tells whether a directory has a child of that sort.
    pub(crate) fn any_child(&self, directory: u64, is: impl Fn(&HotRow) -> bool) -> Result<bool> {
        let range = subtree_range(directory);
        for row in self.children.range(range.start.as_slice()..range.end.as_slice())? {
            if is(&HotRow::decode(row?.1.value())?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn put_hot(&mut self, key: &ChildKey, hot: &HotRow) -> Result<()> {
        self.children.insert(key.as_slice(), &hot.encode())?;
        Ok(())
    }

    pub(crate) fn put_cold(&mut self, id: u64, cold: &Cold) -> Result<()> {
        self.entries.insert(id, cold.encode().as_slice())?;
        Ok(())
    }

    /// Puts a directory that no source told of.
    pub(crate) fn put_directory(
        &mut self,
        id: u64,
        parent: u64,
        name: &[u8],
        source: u32,
        attach_point: bool,
    ) -> Result<()> {
        let key = tree::hot_key(id, parent, name)?;
        self.drop_kept(id)?;
        self.put_hot(&key, &HotRow::directory(id, source, attach_point))?;
        self.put_cold(id, &Cold::directory(parent, name, attach_point))?;
        self.add_totals(source, TotalsRow::of(0))
    }

    pub(crate) fn change_identity(
        &mut self,
        source: u32,
        id: u64,
        old: Option<[u8; 16]>,
        new: Option<[u8; 16]>,
    ) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.identities.remove(&identity_key(source, &old, id))?;
        }
        if let Some(new) = new {
            self.identities.insert(&identity_key(source, &new, id), ())?;
        }
        Ok(())
    }

    pub(crate) fn state(&self, directory: u64) -> Result<DirectoryState> {
        match self.directories.get(directory)? {
            Some(state) => Ok(decode_state(state.value())?),
            None => Ok(DirectoryState::default()),
        }
    }

    pub(crate) fn set_state(&mut self, directory: u64, state: &DirectoryState) -> Result<()> {
        self.directories.insert(directory, encode_state(state).as_slice())?;
        Ok(())
    }

    pub(crate) fn add_totals(&mut self, source: u32, more: TotalsRow) -> Result<()> {
        let now = self.totals_of(source)?;
        self.totals_now.insert(source, now.plus(more));
        Ok(())
    }

    pub(crate) fn subtract_totals(&mut self, source: u32, less: TotalsRow) -> Result<()> {
        let now = self.totals_of(source)?.minus(less);
        let now = now.ok_or_else(|| Error::damaged(format!("totals of source {source} are too small")))?;
        self.totals_now.insert(source, now);
        Ok(())
    }

    fn totals_of(&self, source: u32) -> Result<TotalsRow> {
        if let Some(now) = self.totals_now.get(&source) {
            return Ok(*now);
        }
        match self.totals.get(source)? {
            Some(row) => Ok(TotalsRow::decode(row.value())?),
            None => Ok(TotalsRow::default()),
        }
    }

    /// Forgets what is kept of a source besides its entries.
    pub(crate) fn forget_source(&mut self, source: u32) -> Result<()> {
        self.totals_now.remove(&source);
        self.scans_now.remove(&source);
        self.totals.remove(source)?;
        self.scans.remove(source)?;
        Ok(())
    }
}
