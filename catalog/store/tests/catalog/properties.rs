//! Any sequence of changes, side by side with the model: the same entries with the same ids, and every row in order.

mod kept;
mod own;

use std::collections::BTreeSet;

use manifold_catalog::{
    Catalog, CompleteListing, Entry, EntryId, Error, Hashed, Kind, NewChild, NewSource, Pin, SourceError, SourceId,
    WhenStaged,
};
use proptest::prelude::*;
use proptest::sample::Index;

use self::kept::{Keeping, keeping};
use self::own::{Own, own};
use crate::model::{Listing, Model, Open, Told};
use crate::support::{Scratch, seen};

const PATHS: [&str; 6] = ["/", "/s", "/s/a", "/s/b/c", "/t", "/s/a/a"];

#[derive(Clone, Debug)]
enum Step {
    List {
        directory: Index,
        children: Vec<(u8, Wish)>,
        open: Open,
    },
    Load {
        directory: Index,
        children: Vec<(u8, Wish)>,
        complete: bool,
    },
    Add(Index),
    Remove(Index),
    Reap(Index),
    Fail(Index),
    Hash(Index, u8),
    Pin(Index, bool),
    Unpin(Index),
    Own(Own),
    Keep(Keeping),
    Reopen,
}

/// A child that is to be told of.
#[derive(Clone, Debug)]
struct Wish {
    kind: Kind,
    identity: Option<u8>,
    version: u8,
    size: u64,
    adopt: Option<Index>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let kind = prop_oneof![3 => Just(Kind::Directory), 3 => Just(Kind::File), 1 => Just(Kind::Symlink)];
    let size = prop_oneof![4 => 0..3u64, 1 => Just(u64::MAX)];
    (
        kind,
        proptest::option::weighted(0.7, 0..6u8),
        0..2u8,
        size,
        proptest::option::weighted(0.3, any::<Index>()),
    )
        .prop_map(|(kind, identity, version, size, adopt)| Wish {
            kind,
            identity,
            version,
            size,
            adopt,
        })
}

fn open() -> impl Strategy<Value = Open> {
    prop_oneof![Just(Open::Nothing), Just(Open::Everything), Just(Open::InPlace)]
}

fn step() -> impl Strategy<Value = Step> {
    let children = || proptest::collection::vec((0..5u8, wish()), 0..6);
    prop_oneof![
        10 => (any::<Index>(), children(), open())
            .prop_map(|(directory, children, open)| Step::List { directory, children, open }),
        3 => (any::<Index>(), children(), any::<bool>())
            .prop_map(|(directory, children, complete)| Step::Load { directory, children, complete }),
        2 => any::<Index>().prop_map(Step::Add),
        1 => any::<Index>().prop_map(Step::Remove),
        1 => any::<Index>().prop_map(Step::Reap),
        1 => any::<Index>().prop_map(Step::Fail),
        4 => (any::<Index>(), 0..3u8).prop_map(|(entry, content)| Step::Hash(entry, content)),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(entry, recursive)| Step::Pin(entry, recursive)),
        1 => any::<Index>().prop_map(Step::Unpin),
        16 => own().prop_map(Step::Own),
        6 => keeping().prop_map(Step::Keep),
        1 => Just(Step::Reopen),
    ]
}

struct Pair {
    scratch: Scratch,
    catalog: Option<Catalog>,
    model: Model,
    /// All ids that ever stood for something.
    used: BTreeSet<u64>,
}

impl Pair {
    fn new() -> Self {
        let scratch = Scratch::new();
        let catalog = Some(scratch.open());
        Self {
            scratch,
            catalog,
            model: Model::new(),
            used: BTreeSet::from([EntryId::ROOT.0]),
        }
    }

    fn catalog(&self) -> &Catalog {
        self.catalog.as_ref().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::List {
                directory,
                children,
                open,
            } => {
                let Some(directory) = self.choose(directory) else {
                    return;
                };
                let listing = self.listing(children);
                let children = listing.iter().map(|(name, told)| child(name, told)).collect();
                let told = CompleteListing {
                    children,
                    listed_ns: 7,
                    scan: 0,
                    ticket: self.catalog().ticket(),
                };
                self.catalog()
                    .apply_listing(EntryId(directory), told, &|changed| match open {
                        Open::Nothing => false,
                        Open::Everything => true,
                        Open::InPlace => !changed.same_object,
                    })
                    .unwrap();
                self.model.list(directory, &listing, open);
            }
            Step::Load {
                directory,
                children,
                complete,
            } => {
                let Some(directory) = self.choose(directory) else {
                    return;
                };
                let listing = self.listing(children);
                let source = self.model.nodes[&directory].source;
                let ticket = self.catalog().ticket();
                let mut loader = self.catalog().bulk_load(SourceId(source)).unwrap();
                let mut children: Vec<_> = listing.iter().rev().map(|(name, told)| child(name, told)).collect();
                let rest = children.split_off(children.len() / 2);
                for part in [children, rest] {
                    loader.add(EntryId(directory), ticket, part).unwrap();
                }
                if complete {
                    loader.complete(EntryId(directory), ticket, 7).unwrap();
                }
                loader.finish().unwrap();
                self.model.load(directory, &listing, complete);
            }
            Step::Add(path) => self.add(path.get::<&str>(&PATHS)),
            Step::Remove(source) => {
                let Some(source) = self.choose_source(source) else {
                    return;
                };
                self.catalog()
                    .remove_source(SourceId(source), WhenStaged::Drop)
                    .unwrap();
                self.model.remove_source(source);
            }
            Step::Reap(source) => {
                let Some(source) = self.choose_source(source) else {
                    return;
                };
                self.catalog().reap_departed(SourceId(source), i64::MAX).unwrap();
                self.model.reap(source);
            }
            Step::Fail(directory) => {
                let Some(directory) = self.choose(directory) else {
                    return;
                };
                self.catalog().note_failure(EntryId(directory), "no answer", 3).unwrap();
            }
            Step::Hash(entry, content) => self.hash(self.any(entry), content),
            Step::Pin(entry, recursive) => self.pin(self.any(entry), recursive),
            Step::Unpin(entry) => self.unpin(self.any(entry)),
            Step::Own(own) => self.own(own),
            Step::Keep(keeping) => self.keeping(&keeping),
            Step::Reopen => {
                self.scratch.check(self.catalog.take().unwrap());
                self.catalog = Some(self.scratch.open());
            }
        }
    }

    fn add(&mut self, path: &str) {
        if self.model.sources.values().any(|(_, taken)| taken == path) {
            return;
        }
        let (name, attach) = (path.to_owned(), path.as_bytes().to_vec());
        let new = NewSource {
            name,
            attach,
            spec: String::new(),
            options: String::new(),
        };
        if !self.model.may_attach(path) {
            let refused = self.catalog().add_source(new).unwrap_err();
            assert!(
                matches!(refused, SourceError::Catalog(Error::Waiting(_))),
                "{refused:?}"
            );
            return;
        }
        let record = self.catalog().add_source(new).unwrap();
        let catalog = self.catalog.take().unwrap();
        let resolve = |path: &str| catalog.resolve(path.as_bytes()).unwrap().unwrap().id.0;
        self.model.add_source(record.id.0, record.root.0, path, resolve);
        self.catalog = Some(catalog);
        self.used.extend(self.model.nodes.keys());
    }

    fn choose(&self, directory: Index) -> Option<u64> {
        let all = self.model.listable();
        (!all.is_empty()).then(|| *directory.get(&all))
    }

    /// Any entry that ever was.
    fn any(&self, entry: Index) -> u64 {
        let all: Vec<_> = self.used.iter().copied().collect();
        *entry.get(&all)
    }

    /// Notes a content of what is there now, and of what is not.
    fn hash(&mut self, id: u64, content: u8) {
        let node = self.model.nodes.get(&id).cloned();
        let node = node.unwrap_or_else(|| self.model.nodes[&EntryId::ROOT.0].clone());
        let hashed = Hashed {
            id: EntryId(id),
            version: [node.version].into(),
            size: node.size,
            content: [content; 32],
        };
        let other_version = Hashed {
            version: [node.version + 1].into(),
            ..hashed.clone()
        };
        let other_size = Hashed {
            size: node.size.wrapping_add(1),
            ..hashed.clone()
        };
        let stale = self.catalog().set_contents(&[other_version, other_size]).unwrap();
        assert_eq!(stale, 0, "a content of another state was taken");
        let taken = self.catalog().set_contents(&[hashed]).unwrap();
        assert_eq!(taken, u64::from(self.model.hash(id, content)));
    }

    fn pin(&mut self, id: u64, recursive: bool) {
        let pin = Pin {
            id: EntryId(id),
            recursive,
            policy: None,
            pinned_ns: 5,
        };
        let attached = self.model.nodes.contains_key(&id) && self.model.attached(id);
        assert_eq!(self.catalog().pin(&[pin]).unwrap(), u64::from(attached));
        if attached {
            self.model.pins.insert(id, recursive);
        }
    }

    fn unpin(&mut self, id: u64) {
        let had = self.model.pins.remove(&id).is_some();
        assert_eq!(self.catalog().unpin(&[EntryId(id)]).unwrap(), u64::from(had));
    }

    fn choose_source(&self, source: Index) -> Option<u32> {
        let all: Vec<_> = self.model.sources.keys().copied().collect();
        (!all.is_empty()).then(|| *source.get(&all))
    }

    fn listing(&self, children: Vec<(u8, Wish)>) -> Listing {
        // Claims that can hold more often than such that cannot.
        let living = self
            .model
            .nodes
            .iter()
            .filter(|(_, node)| node.source != 0)
            .map(|(id, _)| *id);
        let living: Vec<_> = living.collect();
        let known: Vec<_> = self.used.iter().copied().take(4).chain(living).collect();
        let told = |wish: Wish| Told {
            kind: wish.kind,
            identity: wish.identity,
            version: wish.version,
            size: wish.size,
            adopt: wish.adopt.map(|adopt| *adopt.get(&known)),
        };
        children
            .into_iter()
            .map(|(letter, wish)| (name(letter), told(wish)))
            .collect()
    }

    /// The catalog holds what the model holds, and its rows agree.
    fn compare(&mut self) {
        let report = self.catalog().examine().unwrap();
        let nodes = &self.model.nodes;
        self.model.pins.retain(|id, _| nodes.contains_key(id));
        let mut entries = 0;
        let mut bytes = 0u64;
        let mut next = vec![EntryId::ROOT];
        while let Some(directory) = next.pop() {
            let shown = self.catalog().children(directory, None, usize::MAX).unwrap();
            self.name_new_ones(directory, &shown);
            let expected = self.model.children(directory.0);
            let names: Vec<_> = shown.iter().map(|entry| (text(&entry.name), entry.id.0)).collect();
            assert_eq!(
                names,
                expected.into_iter().collect::<Vec<_>>(),
                "children of {directory}"
            );
            for entry in &shown {
                let node = &self.model.nodes[&entry.id.0];
                let is = (entry.kind, entry.size, entry.source.0, entry.attach_point);
                assert_eq!(is, (node.kind, node.size, node.source, node.attach), "{entry:?}");
                assert_eq!(self.catalog().entry(entry.id).unwrap().as_ref(), Some(entry));
                self.compare_kept(entry);
                let details = self.catalog().details(entry.id).unwrap().unwrap();
                assert_eq!(
                    details.identity,
                    node.identity.map(|identity| [identity; 16]),
                    "{entry:?}"
                );
                assert_eq!(details.content, node.content.map(|content| [content; 32]), "{entry:?}");
                let replicas = self.catalog().replicas(entry.id, usize::MAX).unwrap();
                let replicas: Vec<_> = replicas.iter().map(|id| id.0).collect();
                assert_eq!(replicas, self.model.replicas(entry.id.0), "{entry:?}");
                if let Some(content) = &details.content {
                    let mut holders = self.catalog().holders(content, usize::MAX).unwrap();
                    holders.retain(|id| *id != entry.id);
                    assert_eq!(holders.iter().map(|id| id.0).collect::<Vec<_>>(), replicas, "{entry:?}");
                }
                let pin = self.catalog().pin_of(entry.id).unwrap().map(|pin| pin.id.0);
                assert_eq!(pin, self.model.pin_of(entry.id.0), "{entry:?}");
                if entry.kind == Kind::Directory {
                    next.push(entry.id);
                    let state = self.catalog().directory_state(entry.id).unwrap().unwrap();
                    assert!(
                        node.source == 0 || state.listed_ns.is_some() == node.listed,
                        "{entry:?}"
                    );
                }
                bytes = bytes.saturating_add(entry.size);
            }
            entries += shown.len() as u64;
        }
        assert!(self.model.unnamed.is_empty(), "{:?} is missing", self.model.unnamed);
        self.compare_gone();
        assert_eq!((report.entries, report.bytes), (entries + 1, bytes));
        let departed = self.model.nodes.values().filter(|node| node.parent == 0).count() as u64;
        assert_eq!(report.departed, departed);
        let (mut walked, mut after) = (0, None);
        loop {
            let (files, next) = self.catalog().files(after, 3).unwrap();
            for file in files {
                let node = &self.model.nodes[&file.id.0];
                let is = (file.source.0, file.size, file.unhashed);
                assert_eq!(is, (node.source, node.size, node.content.is_none()), "{file:?}");
                assert!(node.kind == Kind::File && node.parent != 0, "{file:?}");
                walked += 1;
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
        let files = self
            .model
            .nodes
            .values()
            .filter(|node| node.kind == Kind::File && node.parent != 0);
        assert_eq!(walked, files.count());
        let pins = self.catalog().pins(None, usize::MAX).unwrap();
        let pins: Vec<_> = pins.iter().map(|pin| (pin.id.0, pin.recursive)).collect();
        assert_eq!(pins, self.model.pins.clone().into_iter().collect::<Vec<_>>());
        let staged = self.model.staged.iter().map(|(id, row)| (EntryId(*id), vec![*row]));
        assert_eq!(self.catalog().staged_all().unwrap(), staged.collect::<Vec<_>>());
        let contents = self.model.nodes.values().filter(|node| node.content.is_some()).count() as u64;
        assert_eq!(self.catalog().hashed().unwrap(), contents);
    }

    /// Takes the ids of entries that are new; none was ever used before.
    fn name_new_ones(&mut self, directory: EntryId, shown: &[Entry]) {
        let (here, elsewhere) = std::mem::take(&mut self.model.unnamed)
            .into_iter()
            .partition(|node| node.parent == directory.0);
        self.model.unnamed = elsewhere;
        for node in here {
            let entry = shown.iter().find(|entry| text(&entry.name) == node.name);
            let entry = entry.unwrap_or_else(|| panic!("{node:?} is not shown"));
            assert!(self.used.insert(entry.id.0), "{} was used before", entry.id);
            if node.takes_pin {
                // Only files are replaced, so nothing lies beneath it.
                let moved = self
                    .catalog()
                    .pin_of(entry.id)
                    .unwrap()
                    .filter(|pin| pin.id == entry.id);
                let moved = moved.unwrap_or_else(|| panic!("{node:?} has lost its pin"));
                self.model.pins.insert(entry.id.0, moved.recursive);
            }
            self.model.nodes.insert(entry.id.0, node);
        }
    }
}

fn name(letter: u8) -> String {
    char::from(b'a' + letter).to_string()
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn child(name: &str, told: &Told) -> NewChild {
    let mut seen = seen(told.kind);
    seen.size = told.size;
    seen.version = [told.version].as_slice().into();
    seen.identity = told.identity.map(|identity| [identity; 16]);
    NewChild {
        name: name.as_bytes().into(),
        raw_name: None,
        seen,
        adopt: told.adopt.map(EntryId),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_gives_what_the_model_gives(
            first: Index,
            steps in proptest::collection::vec(step(), 1..56)) {
        let mut pair = Pair::new();
        pair.step(Step::Add(first));
        pair.compare();
        for step in steps {
            pair.step(step);
            pair.compare();
        }
    }
}
