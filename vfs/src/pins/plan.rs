//! What is to be kept, made from the catalog as it stands: for each pin and policy its files, and how much of them is on this machine.
//!
//! Always true: a file counts once in the whole, however many pins mean it; files of this machine need no copy and count as there;
//! a source that is not connected keeps the objects that were pinned before.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use manifold_catalog::{Catalog, Entry, EntryId, Kind, PolicyId, SourceId};

use super::policy::{Applied, PinPolicy};
use super::{PinRule, PinTotals, RuleReport};
use crate::Error;
use crate::cache::{PinnedKeys, SourceTag};
use crate::fetch::Object;
use crate::vfs::Core;

/// How many pins are read at once.
const PINS_PAGE: usize = 1024;

/// What is to be kept.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) rules: Vec<RuleReport>,
    pub(super) total: PinTotals,
    /// What finds no room beneath the limit.
    pub(super) refused: PinTotals,
    /// The objects that are to be on disk.
    pub(super) keys: PinnedKeys,
    /// What is still to be done, by source.
    pub(super) work: BTreeMap<SourceId, VecDeque<Work>>,
    /// Whether some of it depends on the time.
    pub(super) ages: bool,
}

/// Something to be done at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// List a directory that was never listed.
    List(EntryId),
    /// Fetch what is missing of a file.
    Fetch(EntryId),
}

impl Work {
    /// Names the entry that it is about.
    pub(super) fn id(self) -> EntryId {
        match self {
            Self::List(id) | Self::Fetch(id) => id,
        }
    }
}

/// What a source's files need.
enum Place {
    /// They are on this machine.
    Local,
    /// Blocks on disk.
    Remote,
    /// That is not known while it is not connected.
    Unconnected,
}

struct Planner<'a> {
    core: &'a Core,
    plan: Plan,
    keys: Vec<crate::cache::DiskKey>,
    admitted_bytes: u64,
    places: HashMap<SourceId, Place>,
    seen: HashSet<EntryId>,
}

impl Plan {
    /// Makes the plan. Takes as long as the catalog and, for what nobody has counted yet, the disk take.
    pub(super) fn make(core: &Core, now_ns: i64) -> Result<Self, Error> {
        let mut planner = Planner {
            core,
            plan: Self::default(),
            keys: Vec::new(),
            admitted_bytes: 0,
            places: HashMap::new(),
            seen: HashSet::new(),
        };
        for (id, recursive) in pinned_entries(&core.catalog)? {
            planner.add_pinned(id, recursive)?;
        }
        for (id, policy) in policies(&core.catalog)? {
            planner.add_policy(id, &policy, now_ns)?;
        }
        planner.finish()
    }
}

/// Reads what is pinned by name, in the order in which that was asked for.
fn pinned_entries(catalog: &Catalog) -> Result<Vec<(EntryId, bool)>, Error> {
    let mut pins = Vec::new();
    loop {
        let after = pins.last().map(|pin: &manifold_catalog::Pin| pin.id);
        let page = catalog.pins(after, PINS_PAGE).map_err(Error::from_catalog)?;
        let whole = page.len() < PINS_PAGE;
        pins.extend(page);
        if whole {
            break;
        }
    }
    pins.sort_by_key(|pin| pin.pinned_ns);
    Ok(pins.into_iter().map(|pin| (pin.id, pin.recursive)).collect())
}

/// Reads the policies. One that makes no sense to this program is left alone.
fn policies(catalog: &Catalog) -> Result<Vec<(PolicyId, PinPolicy)>, Error> {
    let policies = catalog.pin_policies().map_err(Error::from_catalog)?;
    let read = policies
        .into_iter()
        .filter_map(|(id, bytes)| Some((id, PinPolicy::decode(&bytes)?)));
    Ok(read.collect())
}

impl Planner<'_> {
    fn add_pinned(&mut self, id: EntryId, recursive: bool) -> Result<(), Error> {
        let Some(entry) = self.core.catalog.entry(id).map_err(Error::from_catalog)? else {
            return Ok(());
        };
        let mut totals = PinTotals::default();
        if entry.kind == Kind::Directory && recursive {
            self.walk(id, &mut totals, None)?;
        } else {
            self.consider(&entry, &mut totals)?;
        }
        let rule = PinRule::Entry(id);
        self.plan.rules.push(RuleReport { rule, totals });
        Ok(())
    }

    fn add_policy(&mut self, id: PolicyId, policy: &PinPolicy, now_ns: i64) -> Result<(), Error> {
        let mut totals = PinTotals::default();
        self.plan.ages |= policy.newer_s.is_some();
        if let Some(applied) = Applied::new(policy, now_ns) {
            let mut at = Some(EntryId::ROOT);
            let mut path = Vec::new();
            for name in applied.folders() {
                let Some(parent) = at else { break };
                let found = self.core.catalog.lookup(parent, &name).map_err(Error::from_catalog)?;
                if found.is_none() && !self.is_listed(parent)? {
                    self.leave_to_list(parent, &mut totals)?;
                }
                at = found.filter(|it| it.kind == Kind::Directory).map(|it| it.id);
                path.extend_from_slice(&name);
                path.push(b'/');
            }
            if let Some(folder) = at {
                self.walk(folder, &mut totals, Some((&applied, path)))?;
            }
        }
        let rule = PinRule::Policy(id);
        self.plan.rules.push(RuleReport { rule, totals });
        Ok(())
    }

    /// Looks at all files beneath a directory; with a policy, at those that it means. A path ends with a slash.
    fn walk(
        &mut self,
        directory: EntryId,
        totals: &mut PinTotals,
        policy: Option<(&Applied, Vec<u8>)>,
    ) -> Result<(), Error> {
        let (policy, path) = policy.map_or((None, Vec::new()), |(policy, path)| (Some(policy), path));
        let catalog = &self.core.catalog;
        let mut directories = vec![(directory, path)];
        while let Some((directory, path)) = directories.pop() {
            if !self.is_listed(directory)? {
                self.leave_to_list(directory, totals)?;
            }
            let mut beneath = Vec::new();
            for page in catalog.child_pages(directory) {
                for entry in &page.map_err(Error::from_catalog)? {
                    let mut inner = Vec::new();
                    if policy.is_some() {
                        inner.extend_from_slice(&path);
                        inner.extend_from_slice(&entry.name);
                    }
                    match entry.kind {
                        Kind::Directory => {
                            inner.push(b'/');
                            beneath.push((entry.id, inner));
                        }
                        Kind::File if policy.is_none_or(|it| it.means(entry, &inner)) => {
                            self.consider(entry, totals)?;
                        }
                        _ => {}
                    }
                }
            }
            // So that the first is done first.
            directories.extend(beneath.into_iter().rev());
        }
        Ok(())
    }

    fn is_listed(&self, directory: EntryId) -> Result<bool, Error> {
        let state = self.core.catalog.directory_state(directory);
        let state = state.map_err(Error::from_catalog)?;
        Ok(state.is_none_or(|it| it.listed_ns.is_some()))
    }

    fn leave_to_list(&mut self, directory: EntryId, totals: &mut PinTotals) -> Result<(), Error> {
        totals.unlisted += 1;
        if !self.seen.insert(directory) {
            return Ok(());
        }
        self.plan.total.unlisted += 1;
        if let Some(entry) = self.core.catalog.entry(directory).map_err(Error::from_catalog)? {
            let work = self.plan.work.entry(entry.source).or_default();
            work.push_back(Work::List(directory));
        }
        Ok(())
    }

    fn consider(&mut self, entry: &Entry, totals: &mut PinTotals) -> Result<(), Error> {
        if entry.kind != Kind::File {
            return Ok(());
        }
        let first = self.seen.insert(entry.id);
        let indexer = &self.core.indexer;
        let place = self
            .places
            .entry(entry.source)
            .or_insert_with(|| match indexer.backend(entry.source) {
                None => Place::Unconnected,
                Some(backend) if backend.as_local().is_some() => Place::Local,
                Some(_) => Place::Remote,
            });
        let mut present = 0;
        match place {
            Place::Local => present = entry.size,
            Place::Unconnected => {}
            Place::Remote => {
                let object = match Object::find(&self.core.catalog, &self.core.indexer, entry.id) {
                    Ok((object, _)) => object,
                    // It went, or its source did, while the plan was made; the next plan knows.
                    Err(Error::Stale | Error::Unreachable(_)) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let limit = self.core.settings.pinned_bytes;
                let fits = limit == 0 || self.admitted_bytes + entry.size <= limit;
                if first && !fits {
                    self.plan.refused.add(entry.size, 0);
                }
                if first && fits && entry.size > 0 {
                    self.admitted_bytes += entry.size;
                    self.keys.push(object.shape.key);
                }
                present = self.core.cache.present(object.shape).min(entry.size);
                if first && fits && present < entry.size {
                    let work = self.plan.work.entry(entry.source).or_default();
                    work.push_back(Work::Fetch(entry.id));
                }
            }
        }
        totals.add(entry.size, present);
        if first {
            self.plan.total.add(entry.size, present);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Plan, Error> {
        let unconnected = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place, Place::Unconnected));
        let unconnected: HashSet<_> = unconnected.map(|(id, _)| *id).collect();
        if !unconnected.is_empty() {
            let before = self.core.cache.pins();
            for record in self.core.catalog.sources().map_err(Error::from_catalog)? {
                if unconnected.contains(&record.id) {
                    self.keys.extend(before.of_source(SourceTag::new(&record.name)));
                }
            }
        }
        self.plan.keys = PinnedKeys::new(self.keys);
        Ok(self.plan)
    }
}
