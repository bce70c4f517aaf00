//! Copies that are given their names in folders of this machine: what was noted outlives a crash, and is followed once, or not at all.

use manifold_catalog::{Catalog, Crossing, EntryId, Error, Left, Mark, SeenAttributes, WhenStaged};

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
        list(&catalog, id(&catalog, "/t/e"), vec![file("h")]);
        list(&catalog, id(&catalog, "/s/d"), vec![file("f"), file("g")]);
        Self { scratch, catalog }
    }

    fn id(&self, path: &str) -> EntryId {
        id(&self.catalog, path)
    }

    fn names(&self, path: &str) -> Vec<String> {
        names(&self.catalog, self.id(path))
    }

    fn crossing(&self) -> Crossing {
        Crossing {
            id: self.id("/s/d/f"),
            from: (self.id("/s/d"), (*b"f").into()),
            to: (self.id("/t/e"), (*b"f2").into()),
            raw_name: Some((*b"F2").into()),
            size: 10,
            modified_ns: -7,
            mark: Mark::Identity([4; 16]),
            same_bytes: true,
            left: Some(Left {
                version: (*b"v1").into(),
                shows_through: false,
            }),
            at_ns: 50,
        }
    }

    /// Looks at every row, and opens it again.
    fn checked(self) -> Self {
        let Self { scratch, catalog } = self;
        let catalog = scratch.checked(catalog);
        Self { scratch, catalog }
    }

    /// What a loss of power would leave.
    fn crashed(&self) -> Self {
        let scratch = self.scratch.as_after_a_crash();
        let catalog = scratch.open();
        Self { scratch, catalog }
    }
}

fn copied() -> SeenAttributes {
    SeenAttributes {
        identity: Some([4; 16]),
        version: (*b"on a disk").into(),
        ..seen(manifold_catalog::Kind::File)
    }
}

/// What is done, and how.
type Told = (&'static str, fn(&World));

#[test]
fn a_copy_that_is_noted_outlives_a_crash_and_is_followed_in_one_step() {
    let world = World::new();
    let (f, e, d) = (world.id("/s/d/f"), world.id("/t/e"), world.id("/s/d"));
    assert_eq!(world.catalog.set_contents(&[hashed(f, 10, 3)]).unwrap(), 1);
    world.catalog.stage_with(f, b"row", b"bytes", None).unwrap();
    let crossing = world.crossing();
    world.catalog.begin_crossing(&crossing).unwrap();
    assert!(world.catalog.is_crossing_to(e).unwrap() && !world.catalog.is_crossing_to(d).unwrap());
    let before = world.crashed();
    assert_eq!(before.catalog.crossings().unwrap(), [crossing]);
    assert_eq!(before.names("/s/d"), ["f", "g"]);
    let (is_followed, changes) = before.catalog.follow_crossing(f, &copied()).unwrap();
    assert!(is_followed && !changes.is_empty());
    // And so does that, as a whole.
    before.catalog.sync().unwrap();
    let after = before.crashed();
    for world in [before, after] {
        let world = world.checked();
        assert_eq!(world.catalog.crossings().unwrap(), []);
        assert!(!world.catalog.is_crossing_to(e).unwrap());
        assert_eq!(
            (world.names("/s/d"), world.names("/t/e")),
            (vec!["g".into()], vec!["f2".into(), "h".into()])
        );
        assert_eq!(world.id("/t/e/f2"), f);
        let details = world.catalog.details(f).unwrap().unwrap();
        assert_eq!((&*details.raw_name, details.content), (&b"F2"[..], Some([3; 32])));
        assert_eq!(world.catalog.staged_all().unwrap(), []);
        let [origins] = &world.catalog.due_origins().unwrap()[..] else {
            panic!("{:?}", world.catalog.all_origins())
        };
        assert_eq!(
            (&origins.places[0].name[..], &origins.places[0].version[..]),
            (&b"f"[..], &b"v1"[..])
        );
        assert!(
            !world.catalog.follow_crossing(f, &copied()).unwrap().0,
            "it was followed"
        );
        world.scratch.check(world.catalog);
    }
}

#[test]
fn a_copy_that_a_listing_has_shown_is_the_entry_that_it_was_made_of() {
    let world = World::new();
    let f = world.id("/s/d/f");
    world.catalog.begin_crossing(&world.crossing()).unwrap();
    let mut shown = file("f2").identity(4);
    shown.raw_name = Some((*b"F2").into());
    list(&world.catalog, world.id("/t/e"), vec![shown, file("h")]);
    assert_ne!(world.id("/t/e/f2"), f);
    assert!(world.catalog.follow_crossing(f, &copied()).unwrap().0);
    let world = world.checked();
    assert_eq!(
        (world.names("/t/e"), world.id("/t/e/f2")),
        (vec!["f2".into(), "h".into()], f)
    );
    let source = world.catalog.entry(f).unwrap().unwrap().source;
    assert_eq!(world.catalog.with_identity(source, [4; 16]).unwrap(), [f]);
    world.scratch.check(world.catalog);
}

#[test]
fn what_is_not_any_more_what_was_copied_stays_where_it_is() {
    let changes: [Told; 9] = [
        ("written", |world| {
            let f = world.id("/s/d/f");
            world.catalog.stage_with(f, b"row", b"bytes", None).unwrap();
        }),
        ("written and uploaded", |world| {
            let f = world.id("/s/d/f");
            world.catalog.stage_with(f, b"row", b"bytes", None).unwrap();
            let uploaded = SeenAttributes {
                version: (*b"v2").into(),
                ..seen(manifold_catalog::Kind::File)
            };
            world.catalog.unstage(f, Some(uploaded), None).unwrap();
        }),
        ("changed by another", |world| {
            let children = vec![file("f").version("v2"), file("g")];
            list(&world.catalog, world.id("/s/d"), children);
        }),
        ("renamed", |world| {
            let d = world.id("/s/d");
            let renamed = world.catalog.follow_moved((d, b"f"), (d, b"k"), None, None, 60);
            renamed.unwrap();
        }),
        ("removed", |world| {
            world.catalog.follow_removed(world.id("/s/d"), b"f", 60).unwrap();
        }),
        ("its directory removed", |world| {
            list(&world.catalog, world.id("/s"), vec![]);
        }),
        ("the other directory removed", |world| {
            list(&world.catalog, world.id("/t"), vec![]);
        }),
        ("a directory in its place", |world| {
            list(&world.catalog, world.id("/t/e"), vec![folder("f2")]);
        }),
        ("nothing is there", |world| {
            world.catalog.end_crossing(world.id("/s/d/f")).unwrap();
            world.catalog.end_crossing(world.id("/s/d/f")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let world = World::new();
        let f = world.id("/s/d/f");
        world.catalog.begin_crossing(&world.crossing()).unwrap();
        change(&world);
        let before = (world.catalog.entry(f).unwrap(), world.catalog.staged(f).unwrap());
        let (is_followed, changes) = world.catalog.follow_crossing(f, &copied()).unwrap();
        assert!(!is_followed && changes.is_empty(), "{what}: {changes:?}");
        let world = world.checked();
        let after = (world.catalog.entry(f).unwrap(), world.catalog.staged(f).unwrap());
        assert_eq!(after, before, "{what}");
        assert_eq!(
            (world.catalog.crossings().unwrap(), world.catalog.all_origins().unwrap()),
            (vec![], vec![])
        );
        world.scratch.check(world.catalog);
    }
}

#[test]
fn what_was_staged_already_is_told_from_what_was_written_since() {
    for written in [false, true] {
        let world = World::new();
        let f = world.id("/s/d/f");
        world.catalog.stage_with(f, b"row", b"bytes", None).unwrap();
        world.catalog.begin_crossing(&world.crossing()).unwrap();
        if written {
            world.catalog.stage_with(f, b"row 2", b"others", None).unwrap();
        }
        assert_eq!(world.catalog.follow_crossing(f, &copied()).unwrap().0, !written);
        assert_eq!(world.catalog.staged(f).unwrap().is_some(), written);
        world.scratch.check(world.catalog);
    }
}

#[test]
fn a_link_is_noted_by_where_it_points_and_a_later_note_takes_the_place_of_an_earlier_one() {
    let world = World::new();
    world.catalog.begin_crossing(&world.crossing()).unwrap();
    let link = Crossing {
        mark: Mark::Target((*b"../to/it").into()),
        raw_name: None,
        left: None,
        same_bytes: false,
        ..world.crossing()
    };
    world.catalog.begin_crossing(&link).unwrap();
    let world = world.checked();
    assert_eq!(world.catalog.crossings().unwrap(), std::slice::from_ref(&link));
    for odd in [
        Crossing {
            mark: Mark::Target(vec![b'x'; (1 << 13) + 1].into()),
            ..link.clone()
        },
        Crossing {
            from: (world.id("/s/d"), (*b"g").into()),
            ..link.clone()
        },
        Crossing {
            to: (EntryId(1 << 40), (*b"g").into()),
            ..link.clone()
        },
    ] {
        let refused = world.catalog.begin_crossing(&odd);
        assert!(
            matches!(refused, Err(Error::Refused { .. } | Error::NoEntry(_))),
            "{refused:?}"
        );
    }
    assert_eq!(world.catalog.crossings().unwrap(), [link]);
    world.scratch.check(world.catalog);
}

#[test]
fn neither_source_goes_before_a_copy_has_its_name_unless_that_is_asked_for() {
    for gone in ["/s", "/t"] {
        let world = World::new();
        let crossing = world.crossing();
        world.catalog.begin_crossing(&crossing).unwrap();
        let source = world.catalog.entry(world.id(gone)).unwrap().unwrap().source;
        let refused = world.catalog.remove_source(source, WhenStaged::Refuse);
        assert!(
            matches!(refused, Err(Error::SourceWaiting { entries: 1, .. })),
            "{refused:?}"
        );
        assert_eq!(world.catalog.crossings().unwrap(), [crossing]);
        world.catalog.remove_source(source, WhenStaged::Drop).unwrap();
        let world = world.checked();
        assert_eq!(world.catalog.crossings().unwrap(), []);
        world.scratch.check(world.catalog);
    }
}
