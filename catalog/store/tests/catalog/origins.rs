//! Files moved from one source to another: where they stand, what is left of them elsewhere, what listings show of that, and
//! when it is due.

use manifold_catalog::{
    Across, Catalog, Change, EntryId, Error, Keep, Left, Origins, SeenAttributes, SentState, Unseen, WhenStaged,
};

use crate::support::*;

/// Sources `/s` with `d/{f,g}` and `/t` with `e/{h}`.
struct World {
    scratch: Scratch,
    catalog: Catalog,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let catalog = scratch.open();
        for attach in ["/s", "/t"] {
            add_source(&catalog, attach);
        }
        list(&catalog, id(&catalog, "/s"), vec![folder("d")]);
        list(&catalog, id(&catalog, "/t"), vec![folder("e")]);
        list(&catalog, id(&catalog, "/t/e"), vec![file("h").version("h1").size(7)]);
        let world = Self { scratch, catalog };
        world.list_d("v1");
        world
    }

    fn list_d(&self, version: &str) {
        let children = vec![file("f").identity(1).version(version), file("g").identity(2)];
        list(&self.catalog, self.id("/s/d"), children);
    }

    fn id(&self, path: &str) -> EntryId {
        id(&self.catalog, path)
    }

    fn names(&self, path: &str) -> Vec<String> {
        names(&self.catalog, self.id(path))
    }

    fn across(&self, to: &str) -> Across<'static> {
        Across {
            from: (self.id("/s/d"), b"f"),
            to: (self.id("/t/e"), to.to_owned().leak().as_bytes()),
            raw_name: None,
            seen: seen_as("staged"),
            same_bytes: true,
            keeps: true,
            keep: Keep {
                mode: Some(0o600),
                ..Keep::default()
            },
            attributes: vec![((*b"user.a").into(), (*b"1").into())],
            left: Some(Left {
                version: (*b"v1").into(),
                shows_through: true,
            }),
            staged: Some(b"row".to_vec()),
            staged_bytes: Some(b"bytes".to_vec()),
            at_ns: 50,
        }
    }

    fn origins(&self) -> Vec<Origins> {
        self.catalog.all_origins().unwrap()
    }

    fn checked(self) -> Self {
        let Self { scratch, catalog } = self;
        let catalog = scratch.checked(catalog);
        Self { scratch, catalog }
    }
}

fn seen_as(version: &str) -> SeenAttributes {
    SeenAttributes {
        version: version.as_bytes().into(),
        mode: 0o644,
        ..seen(manifold_catalog::Kind::File)
    }
}

#[test]
fn a_file_keeps_its_id_across_sources_and_what_it_leaves_is_not_listed() {
    let world = World::new();
    let f = world.id("/s/d/f");
    assert_eq!(world.catalog.set_contents(&[hashed(f, 10, 3)]).unwrap(), 1);
    let told = world.catalog.follow_across(&world.across("f2")).unwrap();
    let (from, to) = ((world.id("/s/d"), "f"), (world.id("/t/e"), "f2"));
    let moved = Change::Moved {
        id: f,
        from: (from.0, from.1.as_bytes().into()),
        to: (to.0, to.1.as_bytes().into()),
    };
    assert!(told.contains(&moved), "{told:?}");
    let world = world.checked();
    assert_eq!(world.id("/t/e/f2"), f);
    let entry = world.catalog.entry(f).unwrap().unwrap();
    assert_eq!(
        (entry.source, entry.mode),
        (world.catalog.entry(to.0).unwrap().unwrap().source, 0o600)
    );
    assert_eq!(
        world.catalog.kept_attribute(f, b"user.a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(world.catalog.details(f).unwrap().unwrap().content, Some([3; 32]));
    assert_eq!(world.catalog.staged(f).unwrap(), Some(b"row".to_vec()));
    assert_eq!(world.catalog.staged_bytes(f).unwrap(), Some(b"bytes".to_vec()));
    world.list_d("v1");
    assert_eq!(
        world.names("/s/d"),
        ["g"],
        "what was moved is still there, but not shown"
    );
    let d = world.id("/s/d");
    let left = |name: &[u8]| world.catalog.is_left_at(d, name).unwrap();
    assert!(left(b"f") && !left(b"g") && !left(b""));
    assert!(!left(b"F"), "that is another name");
    assert!(world.catalog.is_left_beneath(world.id("/s")).unwrap());
    assert!(!world.catalog.is_left_beneath(world.id("/t")).unwrap());
    let (source, path) = world.catalog.origin_place(f).unwrap().unwrap();
    assert_eq!(
        (source, &path[..]),
        (world.catalog.entry(from.0).unwrap().unwrap().source, &b"d/f"[..])
    );
    // Another version is somebody else's.
    world.list_d("v2");
    assert_eq!(world.names("/s/d"), ["f", "g"]);
    assert_ne!(world.id("/s/d/f"), f);
    world.scratch.check(world.catalog);
}

#[test]
fn the_directory_of_what_is_left_stays_and_takes_it_along() {
    let world = World::new();
    let d = world.id("/s/d");
    world.catalog.follow_across(&world.across("f2")).unwrap();
    assert!(world.catalog.leads_to_staged(d).unwrap() && world.catalog.leads_to_staged(world.id("/s")).unwrap());
    list(&world.catalog, world.id("/s"), vec![]);
    assert_eq!(world.id("/s/d"), d);
    let root = world.id("/s");
    world
        .catalog
        .follow_moved((root, b"d"), (root, b"d2"), None, None, 60)
        .unwrap();
    let place = world.catalog.origin_place(world.id("/t/e/f2")).unwrap().unwrap();
    assert_eq!(place.1, b"d2/f");
    let removed = world.catalog.follow_removed(root, b"d2", 70);
    assert!(matches!(removed, Err(Error::Waiting(_))), "{removed:?}");
    world.scratch.check(world.catalog);
}

#[test]
fn what_is_left_is_due_with_the_end_of_the_upload_and_shown_no_more_until_it_is_gone() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.follow_across(&world.across("f2")).unwrap();
    assert!(!world.origins()[0].is_due);
    world.catalog.unstage(f, Some(seen_as("t1")), None).unwrap();
    world.catalog.sync().unwrap();
    let world = world.checked();
    let [origins] = &world.origins()[..] else {
        panic!("{:?}", world.origins())
    };
    assert!(origins.is_due && !origins.is_settled && origins.id == f, "{origins:?}");
    world.list_d("v1");
    assert_eq!(world.names("/s/d"), ["g"]);
    let begun = listing(&world.catalog, vec![file("f").identity(1), file("g").identity(2)]);
    {
        let _change = world.catalog.begin_change(&[origins.places[0].directory]);
        world.catalog.note_origin_gone(f, &origins.places[0]).unwrap();
    }
    assert_eq!(world.origins(), []);
    assert!(!world.catalog.leads_to_staged(world.id("/s/d")).unwrap());
    // A listing from before shows it still, and is not believed.
    let late = world.catalog.apply_listing(world.id("/s/d"), begun, &|_| false);
    assert!(late.is_err(), "{late:?}");
    assert_eq!(world.names("/s/d"), ["g"]);
    world.scratch.check(world.catalog);
}

#[test]
fn a_file_that_is_removed_or_replaced_leaves_what_is_due() {
    for replaced in [false, true] {
        let world = World::new();
        let f = world.id("/s/d/f");
        world.catalog.follow_across(&world.across("f2")).unwrap();
        let e = world.id("/t/e");
        if replaced {
            world
                .catalog
                .follow_moved((e, b"h"), (e, b"f2"), None, None, 60)
                .unwrap();
        } else {
            world.catalog.follow_removed(e, b"f2", 60).unwrap();
        }
        assert!(world.catalog.entry(f).unwrap().is_none());
        let world = world.checked();
        let [origins] = &world.origins()[..] else {
            panic!("{:?}", world.origins())
        };
        assert!(origins.is_due && origins.is_settled && origins.id == f);
        world.list_d("v1");
        assert_eq!(world.names("/s/d"), ["g"]);
    }
}

#[test]
fn that_a_source_had_a_copy_whose_name_is_changed_is_durable_until_it_is_taken_back() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.follow_across(&world.across("f2")).unwrap();
    let e = world.id("/t/e");
    assert_eq!(world.catalog.unsettled_origins(&[f, e]).unwrap(), [], "it is not due");
    world.catalog.unstage(f, Some(seen_as("t1")), None).unwrap();
    for named in [f, e, world.id("/t")] {
        assert_eq!(world.catalog.unsettled_origins(&[named]).unwrap(), [f]);
    }
    assert_eq!(world.catalog.unsettled_origins(&[world.id("/s")]).unwrap(), []);
    let durable = world.catalog.durable_commits();
    world.catalog.settle_origins(&[f]).unwrap();
    assert!(world.catalog.durable_commits() > durable, "it is on the disk");
    assert!(world.origins()[0].is_settled);
    assert_eq!(world.catalog.unsettled_origins(&[e]).unwrap(), []);
    world.catalog.unsettle_origins(&[f]).unwrap();
    assert!(!world.origins()[0].is_settled);
    world.catalog.settle_origins(&[f]).unwrap();
    world.catalog.follow_removed(e, b"f2", 60).unwrap();
    world.catalog.unsettle_origins(&[f]).unwrap();
    assert!(world.origins()[0].is_settled, "it was removed");
    world.checked();
}

#[test]
fn a_file_that_moves_on_leaves_something_in_each_place_and_is_made_of_the_first() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.follow_across(&world.across("h")).unwrap();
    assert_eq!(world.names("/t/e"), ["h"], "what had the name is gone");
    // It had replaced something that its upload was to replace at the source.
    let on = Across {
        from: (world.id("/t/e"), b"h"),
        to: (world.id("/s/d"), b"f3"),
        left: Some(Left {
            version: (*b"h1").into(),
            shows_through: false,
        }),
        ..world.across("unused")
    };
    world.catalog.follow_across(&on).unwrap();
    let world = world.checked();
    let [origins] = &world.origins()[..] else {
        panic!("{:?}", world.origins())
    };
    let places: Vec<_> = origins.places.iter().map(|place| place.path.clone().unwrap()).collect();
    assert_eq!(
        (origins.shows_through, places),
        (true, vec![b"d/f".to_vec(), b"e/h".to_vec()])
    );
    assert_eq!(world.id("/s/d/f3"), f);
    world.list_d("v1");
    assert_eq!(world.names("/s/d"), ["f3", "g"]);
    list(&world.catalog, world.id("/t/e"), vec![file("h").version("h1").size(7)]);
    assert_eq!(world.names("/t/e"), [""; 0]);
    world.scratch.check(world.catalog);
}

#[test]
fn a_move_that_is_given_up_shows_what_is_in_the_former_place() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.follow_across(&world.across("f2")).unwrap();
    world.catalog.give_up_across(f, 60).unwrap();
    let world = world.checked();
    assert_eq!((world.origins(), world.names("/t/e")), (vec![], vec!["h".to_owned()]));
    world.list_d("v1");
    assert_eq!(world.names("/s/d"), ["f", "g"]);
}

#[test]
fn a_source_is_not_removed_from_under_what_still_needs_it() {
    for gone in ["/s", "/t"] {
        let world = World::new();
        world.catalog.follow_across(&world.across("f2")).unwrap();
        let source = world.catalog.entry(world.id(gone)).unwrap().unwrap().source;
        let refused = world.catalog.remove_source(source, WhenStaged::Refuse);
        assert!(matches!(refused, Err(Error::SourceWaiting { .. })), "{refused:?}");
        world.catalog.remove_source(source, WhenStaged::Drop).unwrap();
        let world = world.checked();
        assert_eq!(world.origins(), [], "nothing is taken away that has no copy");
        if gone == "/t" {
            world.list_d("v1");
            assert_eq!(world.names("/s/d"), ["f", "g"]);
        } else {
            assert_eq!(world.names("/t/e"), ["f2", "h"]);
        }
    }
}

#[test]
fn only_files_of_sources_move_and_only_to_another() {
    let world = World::new();
    let (s, t) = (world.id("/s"), world.id("/t"));
    for (from, to) in [
        ((s, &b"d"[..]), (t, &b"x"[..])),
        ((s, b"nothing"), (t, b"x")),
        ((world.id("/s/d"), b"f"), (t, b"e")),
        ((world.id("/s/d"), b"f"), (s, b"x")),
        ((world.id("/s/d"), b"f"), (t, b"bad/name")),
    ] {
        let across = Across {
            from,
            to,
            ..world.across("unused")
        };
        let refused = world.catalog.follow_across(&across);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    assert_eq!(world.names("/s/d"), ["f", "g"]);
    world.scratch.check(world.catalog);
}

#[test]
fn what_comes_whole_leaves_what_is_due_at_once_and_nothing_that_was_kept() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.follow_across(&world.across("f2")).unwrap();
    let back = Across {
        from: (world.id("/t/e"), b"f2"),
        to: (world.id("/s/d"), b"f3"),
        seen: SeenAttributes {
            identity: Some([9; 16]),
            ..seen_as("on a disk")
        },
        keeps: false,
        keep: Keep::default(),
        attributes: Vec::new(),
        left: None,
        staged: None,
        staged_bytes: None,
        ..world.across("unused")
    };
    world.catalog.follow_across(&back).unwrap();
    let world = world.checked();
    assert_eq!(world.id("/s/d/f3"), f);
    let [origins] = &world.origins()[..] else {
        panic!("{:?}", world.origins())
    };
    assert!(
        origins.is_due && !origins.is_settled && origins.places.len() == 1,
        "{origins:?}"
    );
    assert_eq!(world.catalog.staged(f).unwrap(), None);
    assert_eq!(world.catalog.staged_bytes(f).unwrap(), None);
    assert_eq!(world.catalog.kept_attributes(f).unwrap(), Vec::<Box<[u8]>>::new());
    let entry = world.catalog.entry(f).unwrap().unwrap();
    assert_eq!((entry.mode, entry.keeps_time), (0o644, false));
    assert_eq!(world.catalog.with_identity(entry.source, [9; 16]).unwrap(), [f]);
    world.scratch.check(world.catalog);
}

const SENT: [SentState; 2] = [
    SentState { size: 3, hash: [1; 32] },
    SentState { size: 5, hash: [2; 32] },
];

#[test]
fn what_may_have_arrived_unseen_of_a_removed_file_is_not_listed_until_it_is_looked_at() {
    let world = World::new();
    let (f, d) = (world.id("/s/d/f"), world.id("/s/d"));
    world.catalog.stage_with(f, b"row", b"bytes", None).unwrap();
    let unseen = Unseen {
        id: f,
        states: SENT.to_vec(),
    };
    world.catalog.follow_removed_unseen(d, b"f", &unseen, 60).unwrap();
    world.catalog.sync().unwrap();
    let world = world.checked();
    let due = world.catalog.due_origins().unwrap();
    let [
        Origins {
            is_due: true,
            is_settled: true,
            places,
            ..
        },
    ] = &due[..]
    else {
        panic!("{due:?}")
    };
    assert_eq!(
        (places[0].path.as_deref(), places[0].sent().as_deref()),
        (Some(&b"d/f"[..]), Some(&SENT[..]))
    );
    assert!(world.catalog.is_left_at(d, b"f").unwrap());
    assert!(!world.catalog.is_known_to_be_left_at(d, b"f").unwrap());
    assert!(world.catalog.is_left_at(d, b"F").unwrap(), "it may be the same name");
    assert!(!world.catalog.is_left_at(d, b"ff").unwrap());
    for (size, is_shown) in [(3, false), (5, false), (4, true)] {
        list(
            &world.catalog,
            d,
            vec![file("f").version("v9").size(size), file("g").identity(2)],
        );
        let names: &[&str] = if is_shown { &["f", "g"] } else { &["g"] };
        assert_eq!(world.names("/s/d"), names, "{size} bytes");
    }
    world.catalog.note_origin_gone(f, &places[0]).unwrap();
    assert_eq!(world.origins(), []);
    list(
        &world.catalog,
        d,
        vec![file("f").version("v9").size(3), file("g").identity(2)],
    );
    assert_eq!(world.names("/s/d"), ["f", "g"]);
    world.checked();
}

#[test]
fn a_file_that_is_removed_ahead_of_its_object_is_not_listed_and_its_object_is_due() {
    let world = World::new();
    let (f, d) = (world.id("/s/d/f"), world.id("/s/d"));
    let version = world.catalog.details(f).unwrap().unwrap().version;
    world.catalog.follow_removed_ahead(d, b"f", (f, &version), 60).unwrap();
    world.catalog.sync().unwrap();
    let world = world.checked();
    let due = world.catalog.due_origins().unwrap();
    let [origins] = &due[..] else { panic!("{due:?}") };
    assert!(origins.is_due && origins.is_settled, "{origins:?}");
    let [place] = &origins.places[..] else {
        panic!("{origins:?}")
    };
    assert_eq!((place.path.as_deref(), &*place.version), (Some(&b"d/f"[..]), &*version));
    assert!(world.catalog.is_known_to_be_left_at(d, b"f").unwrap());
    list(&world.catalog, d, vec![file("f").version("v1"), file("g").identity(2)]);
    assert_eq!(world.names("/s/d"), ["g"]);
    world.catalog.note_origin_gone(f, place).unwrap();
    list(&world.catalog, d, vec![file("f").version("v1"), file("g").identity(2)]);
    assert_eq!(world.names("/s/d"), ["f", "g"]);
    world.checked();
}

#[test]
fn what_may_have_arrived_unseen_under_a_former_name_is_to_be_taken_away_though_the_file_is_staged() {
    let world = World::new();
    let (f, g, d) = (world.id("/s/d/f"), world.id("/s/d/g"), world.id("/s/d"));
    for id in [f, g] {
        world.catalog.stage_with(id, b"row", b"bytes", None).unwrap();
    }
    let states = SENT.to_vec();
    let unseen = [f, g].map(|id| Unseen {
        id,
        states: states.clone(),
    });
    let (from, to) = ((d, &b"f"[..]), (d, &b"g"[..]));
    let moved = world.catalog.follow_moved_unseen(from, to, None, b"row 2", &unseen, 60);
    moved.unwrap();
    let world = world.checked();
    assert_eq!((world.id("/s/d/g"), world.names("/s/d")), (f, vec!["g".to_owned()]));
    let told: Vec<_> = world.catalog.due_origins().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|it| (it.id, it.is_due, it.is_settled, it.places[0].name.as_slice()))
        .collect();
    assert_eq!(told, [(f, false, false, &b"f"[..]), (g, true, true, &b"g"[..])]);
    world.catalog.follow_removed(d, b"g", 70).unwrap();
    let world = world.checked();
    assert!(
        world
            .catalog
            .due_origins()
            .unwrap()
            .iter()
            .all(|it| it.is_due && it.is_settled)
    );
}
