//! What the catalog must do, written down as simply as possible: all entries in one map, every rule by its words.

pub mod kept;
pub mod own;

use std::collections::{BTreeMap, BTreeSet};

use manifold_catalog::{EntryId, Kind};

use self::kept::Kept;

/// An entry of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0: it has departed.
    pub parent: u64,
    pub name: String,
    pub kind: Kind,
    pub source: u32,
    pub attach: bool,
    pub listed: bool,
    pub identity: Option<u8>,
    pub version: u8,
    pub size: u64,
    /// What its bytes were found to be.
    pub content: Option<u8>,
    /// What is kept of it, whatever is told.
    pub kept: Kept,
    /// Of a new entry: it takes the place of one that was pinned.
    pub takes_pin: bool,
}

/// A child as a listing tells it; names are the keys of the listing.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: Kind,
    pub identity: Option<u8>,
    pub version: u8,
    pub size: u64,
    pub adopt: Option<u64>,
}

/// What is open while a listing is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Nothing,
    /// Every file, each of which becomes another entry when it changes.
    Everything,
    /// Every file, each of which stays the same entry if it is the same object.
    InPlace,
}

pub type Listing = BTreeMap<String, Told>;

/// The whole library. New entries have no id until the catalog has named it: they wait in `unnamed`.
#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
    pub sources: BTreeMap<u32, (u64, String)>,
    pub unnamed: Vec<Node>,
    /// What is pinned, and whether with all beneath it.
    pub pins: BTreeMap<u64, bool>,
    /// The journal of what is staged.
    pub staged: BTreeMap<u64, u8>,
}

impl Told {
    fn node(&self, parent: u64, name: &str, source: u32) -> Node {
        let size = if self.kind == Kind::Directory { 0 } else { self.size };
        let (name, attach, listed) = (name.to_owned(), false, false);
        let Self {
            kind,
            identity,
            version,
            ..
        } = *self;
        Node {
            parent,
            name,
            kind,
            source,
            attach,
            listed,
            identity,
            version,
            size,
            content: None,
            kept: Kept::default(),
            takes_pin: false,
        }
    }
}

impl Node {
    /// The node with what it keeps of its own former state.
    fn after(self, old: &Self) -> Self {
        let same_bytes = (self.version, self.size) == (old.version, old.size);
        Self {
            listed: old.listed,
            content: old.content.filter(|_| same_bytes),
            kept: if same_bytes || self.kind == Kind::Directory {
                old.kept.clone()
            } else {
                old.kept.of_other_bytes()
            },
            ..self
        }
    }
}

fn folder(parent: u64, name: &str, source: u32, attach: bool) -> Node {
    let told = Told {
        kind: Kind::Directory,
        identity: None,
        version: 0,
        size: 0,
        adopt: None,
    };
    Node {
        attach,
        ..told.node(parent, name, source)
    }
}

impl Model {
    pub fn new() -> Self {
        let root = EntryId::ROOT.0;
        let nodes = BTreeMap::from([(root, folder(root, "", 0, false))]);
        Self {
            nodes,
            sources: BTreeMap::new(),
            unnamed: Vec::new(),
            pins: BTreeMap::new(),
            staged: BTreeMap::new(),
        }
    }

    pub fn children(&self, directory: u64) -> BTreeMap<String, u64> {
        let children = self
            .nodes
            .iter()
            .filter(|(id, node)| node.parent == directory && **id != directory);
        children.map(|(id, node)| (node.name.clone(), *id)).collect()
    }

    /// The entry and all above it; ends with the root or with something departed.
    pub fn way_up(&self, id: u64) -> Vec<u64> {
        let mut way = vec![id];
        while let Some(node) = self.nodes.get(way.last().unwrap()) {
            if node.parent == 0 || way.last() == Some(&node.parent) {
                break;
            }
            way.push(node.parent);
        }
        way
    }

    pub fn attached(&self, id: u64) -> bool {
        self.way_up(id).last() == Some(&EntryId::ROOT.0)
    }

    fn holds(&self, id: u64) -> bool {
        self.sources
            .values()
            .any(|(root, _)| *root != id && self.way_up(*root).contains(&id))
    }

    /// Directories that a listing may be given of.
    pub fn listable(&self) -> Vec<u64> {
        let ours = |(id, node): &(&u64, &Node)| node.kind == Kind::Directory && node.source != 0 && self.attached(**id);
        self.nodes.iter().filter(ours).map(|(id, _)| *id).collect()
    }

    fn remove_child(&mut self, id: u64) {
        if self.holds(id) {
            return self.release(id);
        }
        let node = &self.nodes[&id];
        if node.kind == Kind::Directory || node.identity.is_some() {
            let node = self.nodes.get_mut(&id).unwrap();
            (node.parent, node.attach) = (0, false);
        } else {
            self.nodes.remove(&id);
        }
    }

    fn release(&mut self, id: u64) {
        let source = self.nodes[&id].source;
        let node = self.nodes.get_mut(&id).unwrap();
        *node = Node {
            parent: node.parent,
            ..folder(0, &node.name.clone(), 0, false)
        };
        for child in self.children(id).into_values() {
            if self.nodes[&child].source == source && !self.nodes[&child].attach {
                self.remove_child(child);
            }
        }
    }

    fn update(&mut self, id: u64, told: &Told, open: Open) {
        let old = self.nodes[&id].clone();
        self.become_what_is_told(id, told.node(old.parent, &old.name, old.source), open);
    }

    /// A known entry is as it was told, in the place of `new`.
    fn become_what_is_told(&mut self, id: u64, new: Node, open: Open) {
        let old = self.nodes[&id].clone();
        let same_object = old.identity.is_some() && old.identity == new.identity;
        let replaced = match open {
            Open::Nothing => false,
            Open::Everything => true,
            Open::InPlace => !same_object,
        };
        if new.kind == Kind::File && replaced && (old.version, old.size) != (new.version, new.size) {
            self.nodes.remove(&id);
            let takes_pin = self.pins.contains_key(&id);
            let kept = old.kept.of_other_bytes();
            self.unnamed.push(Node { kept, takes_pin, ..new });
        } else {
            self.nodes.insert(id, new.after(&old));
        }
    }

    pub fn list(&mut self, directory: u64, listing: &Listing, open: Open) {
        let source = self.nodes[&directory].source;
        let before = self.children(directory);
        let (mut loose, mut fresh, mut claims) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        let (mut updates, mut takeovers) = (Vec::new(), Vec::new());
        // Directories that stay for the sake of something staged, but may have moved.
        let mut staying = BTreeSet::new();
        for (name, told) in listing {
            let Some(id) = before.get(name).copied() else {
                fresh.push(name);
                continue;
            };
            let node = &self.nodes[&id];
            let claimed = told.adopt.is_some_and(|adopt| adopt != id);
            let another = node.identity.is_some() && told.identity.is_some() && node.identity != told.identity;
            if node.attach || node.source != source {
                if !node.attach && told.kind == Kind::Directory {
                    takeovers.push((id, told));
                }
            } else if self.holds(id) {
                if told.kind != Kind::Directory {
                    loose.extend((!self.kept(id)).then_some(id));
                } else if !self.is_staged(id) {
                    updates.push((id, told));
                }
            } else if node.kind != told.kind {
                if !self.kept(id) {
                    loose.insert(id);
                    fresh.push(name);
                } else if !self.is_staged(id) {
                    staying.insert(id);
                }
            } else if claimed && another && !self.kept(id) {
                loose.insert(id);
                fresh.push(name);
                claims.insert(name, id);
            } else if !self.is_staged(id) {
                updates.push((id, told));
            }
        }
        let unlisted = before
            .iter()
            .filter(|(name, _)| !listing.contains_key(*name))
            .map(|(_, id)| *id);
        for id in unlisted.filter(|id| self.nodes[id].source == source && !self.nodes[id].attach) {
            if !self.kept(id) {
                loose.insert(id);
            } else if !self.is_staged(id) {
                staying.insert(id);
            }
        }
        let movable = &loose | &staying;
        let mut adopted = BTreeMap::new();
        for name in &fresh {
            let Some(id) = listing[*name].adopt else { continue };
            let taken = adopted.values().any(|taken| *taken == id);
            if !taken && self.may_move(id, directory, &listing[*name], &movable) {
                adopted.insert(*name, id);
            }
        }
        for (name, id) in claims {
            if !adopted.contains_key(name) && !adopted.values().any(|moved| *moved == id) {
                loose.remove(&id);
                fresh.retain(|fresh| *fresh != name);
                updates.push((id, &listing[name]));
            }
        }
        for id in adopted.values() {
            // Lifted out before anything is removed, so that it does not go along.
            self.nodes.get_mut(id).unwrap().parent = u64::MAX;
            loose.remove(id);
        }
        for id in loose {
            self.remove_child(id);
        }
        for (id, told) in updates {
            self.update(id, told, open);
        }
        for (id, told) in takeovers {
            let name = self.nodes[&id].name.clone();
            self.nodes.insert(id, told.node(directory, &name, source));
        }
        for name in fresh {
            let new = listing[name].node(directory, name, source);
            match adopted.get(name) {
                Some(id) => self.become_what_is_told(*id, new, open),
                None => self.unnamed.push(new),
            }
        }
        self.nodes.get_mut(&directory).unwrap().listed = true;
    }

    fn may_move(&self, id: u64, into: u64, told: &Told, movable: &BTreeSet<u64>) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        !self.is_staged(id)
            && node.source == self.nodes[&into].source
            && !node.attach
            && node.kind == told.kind
            && node.identity == told.identity
            && (node.parent != into || movable.contains(&id))
            && !(node.kind == Kind::Directory && (self.holds(id) || self.way_up(into).contains(&id)))
    }

    /// A bulk load of one directory, broken off or complete.
    pub fn load(&mut self, directory: u64, listing: &Listing, complete: bool) {
        let source = self.nodes[&directory].source;
        let before = self.children(directory);
        let leftover = before
            .values()
            .any(|id| self.nodes[id].source == source && !self.nodes[id].attach);
        if self.nodes[&directory].listed || (leftover && !complete) {
            return;
        }
        let plain: Listing = listing
            .iter()
            .map(|(name, told)| {
                (
                    name.clone(),
                    Told {
                        adopt: None,
                        ..told.clone()
                    },
                )
            })
            .collect();
        self.list(directory, &plain, Open::Nothing);
        self.nodes.get_mut(&directory).unwrap().listed = complete;
    }

    /// Adds a source whose path is free; gives the names of directories that are made on the way.
    pub fn add_source(&mut self, source: u32, root: u64, path: &str, resolve: impl Fn(&str) -> u64) {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut at = EntryId::ROOT.0;
        let mut walked = String::new();
        for (depth, part) in parts.iter().enumerate() {
            walked = format!("{walked}/{part}");
            let last = depth + 1 == parts.len();
            if let Some(id) = self.children(at).get(*part).copied() {
                let node = &self.nodes[&id];
                if node.kind != Kind::Directory || (last && node.source != 0) {
                    self.remove_child(id);
                }
            }
            let there = self.children(at).get(*part).copied();
            at = there.unwrap_or_else(|| {
                let id = resolve(&walked);
                self.nodes.insert(id, folder(at, part, 0, false));
                id
            });
        }
        assert_eq!(at, root, "{path}");
        let node = self.nodes.get_mut(&at).unwrap();
        *node = Node {
            parent: node.parent,
            ..folder(0, &node.name.clone(), source, true)
        };
        self.sources.insert(source, (root, path.to_owned()));
    }

    pub fn remove_source(&mut self, source: u32) {
        self.staged.retain(|id, _| self.nodes[id].source != source);
        let (root, _) = self.sources.remove(&source).unwrap();
        let above = self.nodes[&root].parent;
        let mut prune = root;
        if root == EntryId::ROOT.0 || self.holds(root) {
            self.release(root);
        } else {
            self.remove_child(root);
            prune = above;
        }
        while self.nodes[&prune].source == 0 && prune != EntryId::ROOT.0 && self.children(prune).is_empty() {
            prune = self.nodes.remove(&prune).unwrap().parent;
        }
        self.reap(source);
    }

    /// Notes what the bytes of an entry are, if it is a file that is not forgotten or by itself among the departed.
    pub fn hash(&mut self, id: u64, content: u8) -> bool {
        let node = self.nodes.get_mut(&id);
        let node = node.filter(|node| node.kind == Kind::File && node.parent != 0);
        node.map(|node| node.content = Some(content)).is_some()
    }

    /// Other files of the tree with the same content.
    pub fn replicas(&self, id: u64) -> Vec<u64> {
        let content = self.nodes[&id].content;
        let others = self.nodes.iter().filter(|(other, node)| {
            **other != id && content.is_some() && node.content == content && self.attached(**other)
        });
        others.map(|(id, _)| *id).collect()
    }

    /// The entry whose pin counts for this one.
    pub fn pin_of(&self, id: u64) -> Option<u64> {
        let mut way = self.way_up(id).into_iter();
        way.find(|above| self.pins.get(above).is_some_and(|recursive| *recursive || *above == id))
    }

    /// Forgets all of a source that cannot be reached.
    pub fn reap(&mut self, source: u32) {
        let gone: Vec<_> = self
            .nodes
            .iter()
            .filter(|(id, node)| node.source == source && !self.attached(**id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.nodes.remove(&id);
        }
    }
}
