//! What changes that are made through the mount, and the journal of what is staged, must do to the model.

use manifold_catalog::Kind;

use super::kept::TOLD_NS;
use super::{Model, Node, Told};

/// A directory and a name in it.
pub type Place<'a> = (u64, &'a str);

/// The catalog refuses it, and nothing changes.
#[derive(Debug)]
pub struct Refused;

impl Model {
    pub fn is_staged(&self, id: u64) -> bool {
        self.staged.contains_key(&id)
    }

    fn leads_to_staged(&self, id: u64) -> bool {
        self.staged
            .keys()
            .any(|staged| *staged != id && self.way_up(*staged).contains(&id))
    }

    /// Whether it stays where it is whatever a listing says.
    pub fn kept(&self, id: u64) -> bool {
        self.is_staged(id) || self.leads_to_staged(id)
    }

    pub fn find(&self, (directory, name): Place<'_>) -> Option<u64> {
        self.children(directory).get(name).copied()
    }

    /// What stands at a place, if it is the source's to change.
    fn own(&self, place: Place<'_>) -> Result<Option<u64>, Refused> {
        let Some(id) = self.find(place) else { return Ok(None) };
        let node = &self.nodes[&id];
        let refused = node.attach || node.source == 0 || self.holds(id);
        if refused { Err(Refused) } else { Ok(Some(id)) }
    }

    fn remove_for_good(&mut self, id: u64) -> Result<(), Refused> {
        if self.leads_to_staged(id) {
            return Err(Refused);
        }
        self.staged.remove(&id);
        if self.children(id).is_empty() {
            self.nodes.remove(&id);
        } else {
            let node = self.nodes.get_mut(&id).unwrap();
            (node.parent, node.identity) = (0, None);
        }
        Ok(())
    }

    pub fn created(&mut self, place: Place<'_>, told: &Told, listed: bool) -> Result<(), Refused> {
        let source = self.nodes[&place.0].source;
        let listed = listed && told.kind == Kind::Directory;
        let before = self.own(place)?;
        let mut takes_pin = false;
        if let Some(id) = before {
            let node = &self.nodes[&id];
            if (node.kind, node.identity) == (told.kind, told.identity) {
                let is_new = !node.listed && self.children(id).is_empty();
                self.change(id, told);
                self.nodes.get_mut(&id).unwrap().listed |= listed && is_new;
                return Ok(());
            }
            takes_pin = self.pins.contains_key(&id) && node.kind == Kind::File && told.kind == Kind::File;
            self.remove_for_good(id)?;
        }
        let new = told.node(place.0, place.1, source);
        self.unnamed.push(Node {
            listed,
            takes_pin,
            ..new
        });
        Ok(())
    }

    pub fn removed(&mut self, place: Place<'_>) -> Result<(), Refused> {
        match self.own(place)? {
            Some(id) => self.remove_for_good(id),
            None => Ok(()),
        }
    }

    pub fn moved(&mut self, from: Place<'_>, to: Place<'_>, told: Option<&Told>) -> Result<(), Refused> {
        let source = self.nodes[&from.0].source;
        if self.nodes[&to.0].source != source {
            return Err(Refused);
        }
        let Some(id) = self.own(from)? else {
            return told.map_or(Err(Refused), |told| self.created(to, told, false));
        };
        let old = self.nodes[&id].clone();
        if self.way_up(to.0).contains(&id) {
            return Err(Refused);
        }
        if let Some(target) = self.own(to)?.filter(|target| *target != id) {
            if self.way_up(from.0).contains(&target) {
                return Err(Refused);
            }
            let both_files = old.kind == Kind::File && self.nodes[&target].kind == Kind::File;
            let pin = self.pins.get(&target).copied();
            self.remove_for_good(target)?;
            if let Some(recursive) = pin.filter(|_| both_files && !self.pins.contains_key(&id)) {
                self.pins.insert(id, recursive);
            }
        }
        let new = match told {
            Some(told) => Node {
                kept: old.kept.clone(),
                ..told.node(to.0, to.1, source).after(&old)
            },
            None => Node {
                parent: to.0,
                name: to.1.to_owned(),
                ..old
            },
        };
        self.nodes.insert(id, new);
        Ok(())
    }

    pub fn exchanged(&mut self, a: Place<'_>, b: Place<'_>) -> Result<(), Refused> {
        if self.nodes[&a.0].source != self.nodes[&b.0].source {
            return Err(Refused);
        }
        let (one, other) = (self.own(a)?.ok_or(Refused)?, self.own(b)?.ok_or(Refused)?);
        if self.way_up(b.0).contains(&one) || self.way_up(a.0).contains(&other) {
            return Err(Refused);
        }
        for (id, place) in [(one, b), (other, a)] {
            let node = self.nodes.get_mut(&id).unwrap();
            (node.parent, node.name) = (place.0, place.1.to_owned());
        }
        Ok(())
    }

    /// Whether it stands in the tree of a source.
    pub(super) fn stands(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.source != 0) && self.attached(id)
    }

    pub fn attributes(&mut self, id: u64, told: &Told) -> Result<(), Refused> {
        if !self.stands(id) || self.nodes[&id].kind != told.kind {
            return Err(Refused);
        }
        self.change(id, told);
        Ok(())
    }

    pub fn stage(&mut self, id: u64, row: u8, told: Option<&Told>) -> Result<(), Refused> {
        if !self.stands(id) || self.nodes[&id].attach {
            return Err(Refused);
        }
        if let Some(told) = told {
            self.attributes(id, told)?;
            self.time_is_told(id);
        }
        self.staged.insert(id, row);
        Ok(())
    }

    pub fn unstage(&mut self, id: u64, told: Option<&Told>, kept: Option<i64>) -> Result<(), Refused> {
        if !self.stands(id) {
            return Err(Refused);
        }
        if let Some(told) = told {
            self.attributes(id, told)?;
            self.time_is_told(id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.kept.modified = kept.filter(|kept| *kept != TOLD_NS).or(node.kept.modified);
            }
        }
        self.staged.remove(&id);
        Ok(())
    }

    /// An own change of what stands there, which keeps its id.
    fn change(&mut self, id: u64, told: &Told) {
        let old = self.nodes[&id].clone();
        // A root has neither a name nor an identity that its source tells.
        if !old.attach {
            let new = told.node(old.parent, &old.name, old.source).after(&old);
            self.nodes.insert(id, Node { kept: old.kept, ..new });
        }
    }

    /// Whether a source can be attached there without something staged being hidden.
    pub fn may_attach(&self, path: &str) -> bool {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut at = manifold_catalog::EntryId::ROOT.0;
        for (depth, part) in parts.iter().enumerate() {
            let Some(id) = self.find((at, part)) else { return true };
            let node = &self.nodes[&id];
            let goes = node.kind != Kind::Directory || (depth + 1 == parts.len() && node.source != 0);
            if goes && self.kept(id) {
                return false;
            }
            if node.kind != Kind::Directory {
                return true;
            }
            at = id;
        }
        true
    }
}
