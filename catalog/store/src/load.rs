//! The bulk load: the first scan of a source, in large sorted batches.
//!
//! A directory is marked as listed in the transaction that brings the last of its children, never before. What a load
//! that was broken off left in a directory is reconciled with the whole of it when it is loaded again, like any other
//! listing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::edit::keep::Keeping;
use crate::edit::update::Seen;
use crate::edit::{Edit, Fresh};
use crate::error::{Error, Result};
use crate::store::{Store, When};
use crate::{CompleteListing, EntryId, Kind, NewChild, SourceId, Ticket, listing, sources};

/// How many rows make a commit. Below 10,000 the commits cost more than the rows, above 50,000 nothing is gained.
const COMMIT_ROWS: usize = 32_768;

/// A directory that was met on the way and is to be listed in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedDirectory {
    /// The id it was given.
    pub id: EntryId,
    /// What the source calls it.
    pub raw_name: Box<[u8]>,
}

/// Loads the directories of a fresh source.
///
/// Directories that are given in the order of their ids, as [`add`](Self::add) and the scan queue give them, make all
/// keys ascend, which is more than twice as fast. Rows become visible with each [`flush`](Self::flush); `add` flushes
/// by itself when enough has gathered. A directory that somebody else has listed in the meantime is passed over, and so is
/// one in which something was changed through the mount since the ticket;
/// what is given beneath it then finds no place; the scan queue knows the directories that are really left.
#[derive(Debug)]
pub struct BulkLoader {
    store: Arc<Store>,
    source: SourceId,
    pending: Vec<Pending>,
    rows: usize,
    begun: HashMap<u64, Progress>,
}

/// Some children of a directory, and whether they were the last.
#[derive(Debug)]
struct Pending {
    directory: u64,
    ticket: Ticket,
    children: Vec<(u64, NewChild)>,
    listed_ns: Option<i64>,
}

/// How a directory that was begun is treated until it is complete.
#[derive(Clone, Debug)]
enum Progress {
    /// It had no children of this source: they are put as they come.
    Loading,
    /// It had some: all are gathered, to be compared in the end.
    Gathering(Vec<NewChild>),
    /// It is not ours to load.
    Passed,
}

impl BulkLoader {
    pub(crate) fn begin(store: &Arc<Store>, source: SourceId) -> Result<Self> {
        let known = store.read(|snapshot| Ok(snapshot.sources.get(source.0)?.is_some()))?;
        if !known {
            return Err(Error::NoSource(source));
        }
        Ok(Self {
            store: Arc::clone(store),
            source,
            pending: Vec::new(),
            rows: 0,
            begun: HashMap::new(),
        })
    }

    /// Takes children of a never-listed directory; `ticket` was taken before its listing began. Large directories may come in several calls, in any order of names;
    /// the directory counts as listed only after [`complete`](Self::complete). `adopt` is not looked at.
    ///
    /// Gives back the directories among the children with the ids they will have. An id may turn out unused where
    /// the directory was listed by somebody else in the meantime.
    pub fn add(
        &mut self,
        directory: EntryId,
        ticket: Ticket,
        mut children: Vec<NewChild>,
    ) -> Result<Vec<LoadedDirectory>> {
        listing::prepare(directory, &mut children)?;
        let mut directories = Vec::new();
        let children: Vec<_> = children
            .into_iter()
            .map(|child| (self.store.allocate_id(), NewChild { adopt: None, ..child }))
            .collect();
        for (id, child) in children.iter().filter(|(_, child)| child.seen.kind == Kind::Directory) {
            let raw_name = child.raw_name.clone().unwrap_or_else(|| child.name.clone());
            directories.push(LoadedDirectory {
                id: EntryId(*id),
                raw_name,
            });
        }
        self.rows += children.len();
        self.pending.push(Pending {
            directory: directory.0,
            ticket,
            children,
            listed_ns: None,
        });
        if self.rows >= COMMIT_ROWS {
            self.flush()?;
        }
        Ok(directories)
    }

    /// Says that all children of the directory have been added. The ticket is that of its listing.
    pub fn complete(&mut self, directory: EntryId, ticket: Ticket, listed_ns: i64) -> Result<()> {
        match self.pending.last_mut() {
            Some(last) if last.directory == directory.0 && last.listed_ns.is_none() => {
                last.listed_ns = Some(listed_ns);
                last.ticket = last.ticket.min(ticket);
            }
            _ => {
                let listed_ns = Some(listed_ns);
                self.pending.push(Pending {
                    directory: directory.0,
                    ticket,
                    children: Vec::new(),
                    listed_ns,
                });
            }
        }
        self.rows += 1;
        if self.rows >= COMMIT_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// Commits what has gathered; it becomes durable with company, within the catalog's commit interval. A crash before
    /// that takes rows and queue back together, so that the scan goes on from there. On failure what has gathered is
    /// forgotten, and its directories are still to be listed.
    pub fn flush(&mut self) -> Result<()> {
        self.commit(When::Soon)
    }

    /// Commits what has gathered, durably. Dropping the loader instead forgets what was not flushed.
    pub fn finish(mut self) -> Result<()> {
        self.commit(When::Now)
    }

    /// Gives a directory up whose listing broke off. It is still to be listed, and may be added again from the start.
    pub fn abandon(&mut self, directory: EntryId) {
        self.pending.retain(|part| part.directory != directory.0);
        self.begun.remove(&directory.0);
    }

    fn commit(&mut self, when: When) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        self.rows = 0;
        let source = self.source;
        let begun = self.begun.clone();
        let committed = self.store.write_new(when, |edit| {
            sources::root_of(edit, source)?;
            let mut batch = Batch {
                source: source.0,
                begun,
                ..Batch::default()
            };
            for part in &mut pending {
                batch.decide(edit, part.directory, part.ticket)?;
                batch.gather(part);
            }
            batch.put(edit, &pending)
        });
        match committed {
            Ok((begun, _)) => {
                self.begun = begun;
                Ok(())
            }
            Err(error) => {
                // Children of these are lost, so what is still to come would not be the whole of them.
                let begun = self
                    .begun
                    .keys()
                    .copied()
                    .chain(pending.iter().map(|part| part.directory));
                self.begun = begun.map(|directory| (directory, Progress::Passed)).collect();
                Err(error)
            }
        }
    }
}

/// One transaction of the load.
#[derive(Default)]
struct Batch {
    source: u32,
    begun: HashMap<u64, Progress>,
    /// Directories that this batch brings.
    new: HashSet<u64>,
    /// Directories that this batch was to bring, but found their name taken.
    hidden: HashSet<u64>,
    /// Directories that are known to stand in the tree.
    attached: HashSet<u64>,
    /// Part and child of all that is to be put.
    fresh: Vec<(usize, usize)>,
}

impl Batch {
    /// Finds out how a directory is to be treated, now that nobody else can change it.
    fn decide(&mut self, edit: &Edit<'_>, directory: u64, ticket: Ticket) -> Result<()> {
        if self.new.contains(&directory) {
            self.begun.entry(directory).or_insert(Progress::Loading);
            return Ok(());
        }
        if edit.is_overtaken(ticket, directory)? {
            self.begun.insert(directory, Progress::Passed);
            return Ok(());
        }
        let ours = match edit.source_directory_with(EntryId(directory), &mut self.attached) {
            Ok(hot) => hot.source() == self.source && edit.state(directory)?.listed_ns.is_none(),
            Err(Error::NoEntry(_) | Error::NotADirectory(_) | Error::Refused { .. }) => false,
            Err(error) => return Err(error),
        };
        if !ours {
            self.begun.insert(directory, Progress::Passed);
        } else if !self.begun.contains_key(&directory) {
            let leftover = edit.any_child(directory, |hot| hot.source() == self.source && !hot.is_attach_point())?;
            let progress = if leftover {
                Progress::Gathering(Vec::new())
            } else {
                Progress::Loading
            };
            self.begun.insert(directory, progress);
        }
        Ok(())
    }

    fn gather(&mut self, part: &mut Pending) {
        match self.begun.get_mut(&part.directory) {
            Some(Progress::Loading) => {
                let directories = part
                    .children
                    .iter()
                    .filter(|(_, child)| child.seen.kind == Kind::Directory);
                self.new.extend(directories.map(|(id, _)| *id));
            }
            Some(Progress::Gathering(all)) => all.extend(part.children.drain(..).map(|(_, child)| child)),
            Some(Progress::Passed) | None => part.children.clear(),
        }
    }

    fn put(mut self, edit: &mut Edit<'_>, pending: &[Pending]) -> Result<HashMap<u64, Progress>> {
        let source = self.source;
        for (at, part) in pending.iter().enumerate() {
            self.choose(edit, at, part)?;
        }
        let complete: HashSet<u64> = pending
            .iter()
            .filter(|part| part.listed_ns.is_some())
            .map(|part| part.directory)
            .collect();
        let mut fresh: Vec<_> = self
            .fresh
            .iter()
            .map(|(part, index)| {
                let part = &pending[*part];
                let (id, child) = &part.children[*index];
                Fresh {
                    id: *id,
                    parent: part.directory,
                    child,
                }
            })
            .collect();
        edit.insert_fresh(source, &mut fresh, |id| complete.contains(&id))?;
        for part in pending {
            let Some(listed_ns) = part.listed_ns else { continue };
            match self.begun.remove(&part.directory) {
                Some(Progress::Loading) => {
                    edit.mark_listed(source, part.directory, listed_ns, 0)?;
                    edit.tickets.note_listing(part.ticket, part.directory);
                }
                Some(Progress::Gathering(mut children)) => {
                    let directory = EntryId(part.directory);
                    listing::prepare(directory, &mut children)?;
                    let listing = CompleteListing {
                        children,
                        listed_ns,
                        scan: 0,
                        ticket: part.ticket,
                    };
                    match listing::apply(edit, directory, &listing, &|_| false) {
                        // A change has begun since it was decided on: it is still to be listed.
                        Ok(()) | Err(Error::Overtaken(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                Some(Progress::Passed) | None => {}
            }
        }
        Ok(self.begun)
    }

    /// Chooses the children that get a row; attach points hide theirs, and what leads to one becomes the source's.
    fn choose(&mut self, edit: &mut Edit<'_>, at: usize, part: &Pending) -> Result<()> {
        if self.hidden.contains(&part.directory) {
            self.begun.insert(part.directory, Progress::Passed);
            self.hidden.extend(part.children.iter().map(|(id, _)| *id));
            return Ok(());
        }
        let may_be_taken = !self.new.contains(&part.directory) && edit.holds_attach_point(part.directory)?;
        for (index, (id, child)) in part.children.iter().enumerate() {
            let taken = if may_be_taken {
                edit.hot(part.directory, &child.name)?
            } else {
                None
            };
            match taken.filter(|hot| hot.source() != self.source) {
                None => self.fresh.push((at, index)),
                Some(hot) => {
                    self.hidden.insert(*id);
                    if !hot.is_attach_point() && child.seen.kind == Kind::Directory {
                        edit.take_over(
                            &hot,
                            &Seen {
                                directory: part.directory,
                                source: self.source,
                                child,
                                keeping: Keeping::OfVersion,
                            },
                        )?;
                    }
                }
            }
        }
        Ok(())
    }
}
