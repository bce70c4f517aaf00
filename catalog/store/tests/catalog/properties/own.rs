//! Changes made through the mount and the journal, done to both sides.

use manifold_catalog::{Change, CompleteListing, EntryId, Error, Kind, SeenAttributes};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Pair, Wish, child, wish};
use crate::model::own::Refused;
use crate::model::{Listing, Told};

/// A directory and a name in it.
type Place = (Index, u8);

#[derive(Clone, Debug)]
pub enum Own {
    Created(Place, Wish, bool),
    Removed(Place),
    Moved(Place, Place, Option<Wish>),
    Exchanged(Place, Place),
    Attributes(Index, Wish),
    Stage(Index, u8, Option<Wish>, bool),
    Unstage(Index, Option<Wish>, Option<i64>),
    /// A listing that began before a change ended.
    Late(Index, Vec<(u8, Wish)>),
}

pub fn own() -> impl Strategy<Value = Own> {
    let place = || (any::<Index>(), 0..5u8);
    let maybe = || proptest::option::of(wish());
    prop_oneof![
        4 => (place(), wish(), any::<bool>()).prop_map(|(place, wish, listed)| Own::Created(place, wish, listed)),
        3 => place().prop_map(Own::Removed),
        4 => (place(), place(), maybe()).prop_map(|(from, to, wish)| Own::Moved(from, to, wish)),
        2 => (place(), place()).prop_map(|(a, b)| Own::Exchanged(a, b)),
        2 => (any::<Index>(), wish()).prop_map(|(entry, wish)| Own::Attributes(entry, wish)),
        5 => (any::<Index>(), 1..9u8, maybe(), proptest::bool::weighted(0.1))
            .prop_map(|(entry, row, wish, durable)| Own::Stage(entry, row, wish, durable)),
        2 => (any::<Index>(), maybe(), proptest::option::of(0..3i64))
            .prop_map(|(entry, wish, kept)| Own::Unstage(entry, wish, kept)),
        1 => (any::<Index>(), proptest::collection::vec((0..5u8, wish()), 0..4))
            .prop_map(|(directory, children)| Own::Late(directory, children)),
    ]
}

/// Both refuse, or both do.
pub(super) fn agree<T>(catalog: &Result<T, Error>, model: &Result<(), Refused>) {
    let error = catalog.as_ref().err();
    let refusal = |error: &Error| matches!(error, Error::Refused { .. } | Error::Waiting(_) | Error::NoEntry(_));
    assert_eq!(error.is_none(), model.is_ok(), "{error:?}");
    assert!(error.is_none_or(refusal), "{error:?}");
}

impl Pair {
    pub(super) fn own(&mut self, own: Own) {
        match own {
            Own::Created(place, wish, listed) => {
                let Some((directory, name)) = self.place(place) else {
                    return;
                };
                let told = self.told(&wish);
                let listed_ns = listed.then_some(11);
                let new = child(&name, &told);
                let result = self.catalog().follow_created(EntryId(directory), new, listed_ns);
                let expected = self.checked(|model| model.created((directory, &name), &told, listed));
                agree(&result, &expected);
                if let Ok((id, _)) = result {
                    let there = self.catalog().lookup(EntryId(directory), name.as_bytes()).unwrap();
                    assert_eq!(there.map(|entry| entry.id), Some(id));
                }
            }
            Own::Removed(place) => {
                let Some((directory, name)) = self.place(place) else {
                    return;
                };
                let result = self.catalog().follow_removed(EntryId(directory), name.as_bytes(), 13);
                let expected = self.checked(|model| model.removed((directory, &name)));
                agree(&result, &expected);
            }
            Own::Moved(from, to, wish) => {
                let (Some(from), Some(to)) = (self.place(from), self.place(to)) else {
                    return;
                };
                let moving = self.model.find((from.0, &from.1));
                let told = wish.map(|wish| self.told_of(moving, &wish));
                let result = self.catalog().follow_moved(
                    (EntryId(from.0), from.1.as_bytes()),
                    (EntryId(to.0), to.1.as_bytes()),
                    None,
                    told.as_ref().map(seen_of),
                    13,
                );
                let expected = self.checked(|model| model.moved((from.0, &from.1), (to.0, &to.1), told.as_ref()));
                agree(&result, &expected);
            }
            Own::Exchanged(a, b) => {
                let (Some(a), Some(b)) = (self.place(a), self.place(b)) else {
                    return;
                };
                let result = self
                    .catalog()
                    .follow_exchanged((EntryId(a.0), a.1.as_bytes()), (EntryId(b.0), b.1.as_bytes()));
                let expected = self.checked(|model| model.exchanged((a.0, &a.1), (b.0, &b.1)));
                agree(&result, &expected);
            }
            Own::Attributes(entry, wish) => {
                let id = self.any(entry);
                let told = self.told_of(Some(id), &wish);
                let result = self.catalog().follow_attributes(EntryId(id), seen_of(&told));
                if let Ok(changes) = &result {
                    let stays = |change: &Change| matches!(change, Change::Content { .. } | Change::Attributes { .. });
                    assert!(changes.iter().all(stays), "{changes:?}");
                }
                let expected = self.checked(|model| model.attributes(id, &told));
                agree(&result, &expected);
            }
            Own::Stage(entry, row, wish, durable) => {
                let id = self.any(entry);
                let told = wish.map(|wish| self.told_of(Some(id), &wish));
                let seen = told.as_ref().map(seen_of);
                let result = self.catalog().stage(EntryId(id), &[row], seen, durable);
                let expected = self.checked(|model| model.stage(id, row, told.as_ref()));
                agree(&result, &expected);
            }
            Own::Unstage(entry, wish, kept) => {
                let staged: Vec<_> = self.model.staged.keys().copied().collect();
                let id = if staged.is_empty() {
                    self.any(entry)
                } else {
                    *entry.get(&staged)
                };
                let told = wish.map(|wish| self.told_of(Some(id), &wish));
                let kept = kept.filter(|_| self.model.is_file(id));
                let result = self.catalog().unstage(EntryId(id), told.as_ref().map(seen_of), kept);
                let expected = self.checked(|model| model.unstage(id, told.as_ref(), kept));
                agree(&result, &expected);
            }
            Own::Late(directory, children) => self.late(directory, children),
        }
    }

    /// A listing that began before a change ended is not applied, neither amid the change nor after it.
    fn late(&mut self, directory: Index, children: Vec<(u8, Wish)>) {
        let Some(directory) = self.choose(directory) else {
            return;
        };
        let listing: Listing = self.listing(children);
        let told = CompleteListing {
            children: listing.iter().map(|(name, told)| child(name, told)).collect(),
            listed_ns: 7,
            scan: 0,
            ticket: self.catalog().ticket(),
        };
        let id = EntryId(directory);
        let guard = self.catalog().begin_change(&[id]);
        let amid = self.catalog().apply_listing(id, told.clone(), &|_| false);
        assert!(matches!(amid, Err(Error::Overtaken(at)) if at == id), "{amid:?}");
        drop(guard);
        let after = self.catalog().apply_listing(id, told, &|_| false);
        assert!(matches!(after, Err(Error::Overtaken(at)) if at == id), "{after:?}");
    }

    /// Does something to the model, unless it is refused.
    pub(super) fn checked(
        &mut self,
        change: impl FnOnce(&mut crate::model::Model) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut changed = self.model.clone();
        change(&mut changed)?;
        self.model = changed;
        Ok(())
    }

    fn place(&self, (directory, name): Place) -> Option<(u64, String)> {
        let directory = self.choose(directory)?;
        Some((directory, super::name(name)))
    }

    fn told(&self, wish: &Wish) -> Told {
        self.told_of(None, wish)
    }

    /// The same entry may look otherwise, but stays what it is.
    fn told_of(&self, id: Option<u64>, wish: &Wish) -> Told {
        let node = id.and_then(|id| self.model.nodes.get(&id));
        Told {
            kind: node.map_or(wish.kind, |node| node.kind),
            identity: wish.identity,
            version: wish.version,
            size: wish.size,
            adopt: None,
        }
    }
}

fn seen_of(told: &Told) -> SeenAttributes {
    let seen = child("x", told).seen;
    assert!(seen.kind != Kind::Fifo);
    seen
}
