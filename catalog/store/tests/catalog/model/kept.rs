//! What must become of attributes that are kept of an entry over what its source says.

use std::collections::BTreeMap;

use manifold_catalog::{AttributeMustBe, AttributeRefused, Keep, Kind};

use super::own::Refused;
use super::{Model, Node};

/// What is kept of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub mode: Option<u16>,
    pub owner: Option<(u32, u32)>,
    pub modified: Option<i64>,
    pub accessed: Option<i64>,
    pub attributes: BTreeMap<u8, u8>,
}

/// The time of the last change of whatever is told of.
pub const TOLD_NS: i64 = 1;

impl Kept {
    /// Times belong to a version.
    pub fn of_other_bytes(&self) -> Self {
        Self {
            modified: None,
            accessed: None,
            ..self.clone()
        }
    }

    pub fn modified(&self) -> i64 {
        self.modified.unwrap_or(TOLD_NS)
    }
}

impl Model {
    /// An entry of a source, which stands in the tree.
    fn kept_of(&mut self, id: u64) -> Result<&mut Node, Refused> {
        if !self.stands(id) {
            return Err(Refused);
        }
        self.nodes.get_mut(&id).ok_or(Refused)
    }

    pub fn keep(&mut self, id: u64, keep: &Keep) -> Result<(), Refused> {
        let kept = &mut self.kept_of(id)?.kept;
        kept.mode = keep.mode.or(kept.mode);
        kept.owner = keep.owner.or(kept.owner);
        kept.modified = keep.modified_ns.or(kept.modified);
        if let Some(accessed) = keep.accessed_ns {
            kept.accessed = Some(accessed).filter(|_| accessed != kept.modified());
        }
        Ok(())
    }

    pub fn attribute(
        &mut self,
        id: u64,
        name: u8,
        value: Option<u8>,
        must_be: AttributeMustBe,
    ) -> Result<Result<(), AttributeRefused>, Refused> {
        let attributes = &mut self.kept_of(id)?.kept.attributes;
        let is_there = attributes.contains_key(&name);
        Ok(match (must_be, value) {
            (AttributeMustBe::Absent, _) if is_there => Err(AttributeRefused::Exists),
            (AttributeMustBe::Present, _) if !is_there => Err(AttributeRefused::Missing),
            (_, Some(value)) => {
                attributes.insert(name, value);
                Ok(())
            }
            (_, None) => {
                attributes.remove(&name);
                Ok(())
            }
        })
    }

    /// What was written to is as old as it is told.
    pub(super) fn time_is_told(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).filter(|node| !node.attach);
        if let Some(node) = node {
            node.kept.modified = None;
        }
    }

    pub fn is_file(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.kind == Kind::File)
    }
}
