//! Attributes that are kept over what a source says, on both sides.

use manifold_catalog::{AttributeMustBe, AttributeRefused, Entry, EntryId, Keep, Kind};
use proptest::prelude::*;
use proptest::sample::Index;

use super::Pair;
use super::own::agree;

#[derive(Clone, Debug)]
pub enum Keeping {
    Attributes(Index, Keep),
    Set(Index, u8, u8, AttributeMustBe),
    Drop(Index, u8),
}

pub fn keeping() -> impl Strategy<Value = Keeping> {
    let maybe = |strategy: std::ops::Range<i64>| proptest::option::of(strategy);
    let keep = (
        proptest::option::of(0o600..0o604u16),
        proptest::option::of((1..3u32, 1..3u32)),
        maybe(0..3),
        maybe(0..3),
        maybe(3..9),
    )
        .prop_map(|(mode, owner, modified_ns, accessed_ns, changed_ns)| Keep {
            mode,
            owner,
            modified_ns,
            accessed_ns,
            changed_ns,
        });
    let must_be = prop_oneof![
        3 => Just(AttributeMustBe::Anything),
        1 => Just(AttributeMustBe::Absent),
        1 => Just(AttributeMustBe::Present),
    ];
    prop_oneof![
        3 => (any::<Index>(), keep).prop_map(|(entry, keep)| Keeping::Attributes(entry, keep)),
        3 => (any::<Index>(), 0..3u8, any::<u8>(), must_be)
            .prop_map(|(entry, name, value, must_be)| Keeping::Set(entry, name, value, must_be)),
        1 => (any::<Index>(), 0..3u8).prop_map(|(entry, name)| Keeping::Drop(entry, name)),
    ]
}

fn name(number: u8) -> Vec<u8> {
    format!("user.{number}").into_bytes()
}

impl Pair {
    pub(super) fn keeping(&mut self, keeping: &Keeping) {
        match keeping {
            Keeping::Attributes(entry, keep) => {
                let id = self.living(*entry);
                // The time of a directory goes by what is done in it, of which the model knows nothing.
                // So does the time of a root that nobody has told of yet.
                let node = self.model.nodes.get(&id);
                let is_directory = node.is_some_and(|it| it.kind == Kind::Directory);
                let is_root = node.is_some_and(|it| it.attach);
                let keep = Keep {
                    modified_ns: keep.modified_ns.filter(|_| !is_directory),
                    accessed_ns: keep.accessed_ns.filter(|_| !is_root),
                    ..*keep
                };
                let result = self.catalog().keep(EntryId(id), &keep, None);
                let expected = self.checked(|model| model.keep(id, &keep));
                agree(&result, &expected);
            }
            Keeping::Set(entry, number, value, must_be) => {
                let id = self.living(*entry);
                let result = self
                    .catalog()
                    .keep_attribute(EntryId(id), &name(*number), &[*value], *must_be, 4);
                self.attribute(id, *number, Some(*value), *must_be, result.map(|done| done.map(drop)));
            }
            Keeping::Drop(entry, number) => {
                let id = self.living(*entry);
                let result = self.catalog().drop_attribute(EntryId(id), &name(*number), 4);
                let must_be = AttributeMustBe::Present;
                self.attribute(id, *number, None, must_be, result.map(|done| done.map(drop)));
            }
        }
    }

    fn attribute(
        &mut self,
        id: u64,
        number: u8,
        value: Option<u8>,
        must_be: AttributeMustBe,
        result: manifold_catalog::Result<Result<(), AttributeRefused>>,
    ) {
        let mut expected = None;
        let done = self.checked(|model| {
            expected = Some(model.attribute(id, number, value, must_be)?);
            Ok(())
        });
        agree(&result, &done);
        assert_eq!(result.ok(), expected);
    }

    /// An entry of the tree more often than one that is gone.
    fn living(&self, entry: Index) -> u64 {
        let living: Vec<_> = self
            .model
            .nodes
            .iter()
            .filter(|(_, node)| node.source != 0)
            .map(|(id, _)| *id)
            .collect();
        if living.is_empty() || entry.index(8) == 0 {
            return self.any(entry);
        }
        *entry.get(&living)
    }

    /// What is kept of an entry is shown of it.
    pub(super) fn compare_kept(&self, entry: &Entry) {
        let node = &self.model.nodes[&entry.id.0];
        let kept = &node.kept;
        let (mode, owner) = (kept.mode.unwrap_or(0o640), kept.owner.unwrap_or((1000, 100)));
        if !node.attach && node.source != 0 {
            let is = (entry.mode, entry.owner, entry.modified_ns, entry.keeps_time);
            let expected = (mode, Some(owner), kept.modified(), kept.modified.is_some());
            assert_eq!(is, expected, "{entry:?}");
        } else if kept.mode.is_some() {
            assert_eq!(entry.mode, mode, "{entry:?}");
        }
        let catalog = self.catalog();
        assert_eq!(catalog.kept_accessed(entry.id).unwrap(), kept.accessed, "{entry:?}");
        let has_row = kept.accessed.is_some() || !kept.attributes.is_empty();
        assert_eq!(entry.keeps_more, has_row, "{entry:?}");
        let names = catalog.kept_attributes(entry.id).unwrap();
        let expected: Vec<_> = kept.attributes.keys().map(|number| name(*number)).collect();
        assert!(names.iter().map(|name| &**name).eq(expected.iter().map(|name| &**name)));
        for (number, value) in &kept.attributes {
            let found = catalog.kept_attribute(entry.id, &name(*number)).unwrap();
            assert_eq!(found.as_deref(), Some(&[*value][..]), "{entry:?}");
        }
    }

    /// Nothing is kept of what is gone.
    pub(super) fn compare_gone(&self) {
        for id in self.used.iter().filter(|id| !self.model.nodes.contains_key(id)) {
            assert_eq!(self.catalog().kept_attributes(EntryId(*id)).unwrap(), []);
            assert_eq!(self.catalog().kept_accessed(EntryId(*id)).unwrap(), None);
        }
    }
}
