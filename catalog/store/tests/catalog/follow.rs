//! Changes made through the mount, one by one.

use manifold_catalog::{Change, EntryId, Error, Kind};

use crate::support::{Scratch, With, add_source, file, folder, hashed, id, list, listing, names, pin};

fn at(directory: EntryId, name: &[u8]) -> (EntryId, &[u8]) {
    (directory, name)
}

fn name(name: &str) -> Box<[u8]> {
    name.as_bytes().into()
}

#[test]
fn what_is_made_gets_an_id_and_a_new_directory_is_empty_and_still_queued() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![]);
    let (made, changes) = catalog
        .follow_created(source.root, folder("d").identity(1), Some(50))
        .unwrap();
    let expected = [
        Change::Added {
            parent: source.root,
            name: name("d"),
            id: made,
        },
        Change::Directory { id: source.root },
    ];
    assert_eq!(changes, expected);
    assert_eq!(catalog.directory_state(made).unwrap().unwrap().listed_ns, Some(50));
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [made]);
    let (unlisted, _) = catalog.follow_created(source.root, folder("e"), None).unwrap();
    assert_eq!(catalog.directory_state(unlisted).unwrap().unwrap().listed_ns, None);
    let (inner, _) = catalog.follow_created(made, file("f"), Some(50)).unwrap();
    assert_eq!(id(&catalog, "/s/d/f"), inner);
    scratch.check(catalog);
}

#[test]
fn what_a_listing_saw_first_keeps_its_id_and_anything_else_is_replaced() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    let children = vec![
        file("same").identity(1),
        file("other").identity(2),
        folder("dir").identity(3),
    ];
    list(&catalog, root, children);
    let [same, other, dir] = ["/s/same", "/s/other", "/s/dir"].map(|path| id(&catalog, path));
    list(&catalog, dir, vec![folder("sub").identity(4)]);
    catalog.pin(&[pin(other, None)]).unwrap();
    let (kept, changes) = catalog
        .follow_created(root, file("same").identity(1).size(11), None)
        .unwrap();
    assert_eq!((kept, changes), (same, vec![Change::Content { id: same }]));
    let (new, changes) = catalog.follow_created(root, file("other").identity(9), None).unwrap();
    let removed = Change::Removed {
        parent: root,
        name: name("other"),
        id: other,
    };
    assert!(new != other && changes[0] == removed, "{changes:?}");
    assert_eq!(catalog.entry(other).unwrap(), None);
    assert_eq!(
        catalog.pins(None, 9).unwrap(),
        [pin(new, None)],
        "the pin is the name's"
    );
    let (over, _) = catalog.follow_created(root, file("dir").identity(3), None).unwrap();
    assert_eq!(catalog.entry(over).unwrap().unwrap().kind, Kind::File);
    assert_eq!(
        catalog
            .find_identity(catalog.sources().unwrap()[0].id, [3; 16])
            .unwrap()
            .unwrap()
            .id,
        over
    );
    assert_eq!(names(&catalog, root), ["dir", "other", "same"]);
    scratch.check(catalog);
}

#[test]
fn what_is_removed_is_gone_for_good_and_not_found_elsewhere() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![file("f").identity(1), folder("d").identity(2)],
    );
    let d = id(&catalog, "/s/d");
    list(&catalog, d, vec![]);
    for name in [&b"f"[..], b"d"] {
        let changes = catalog.follow_removed(source.root, name, 60).unwrap();
        assert!(matches!(
            &changes[..],
            [Change::Removed { .. }, Change::Directory { .. }]
        ));
        assert_eq!(catalog.follow_removed(source.root, name, 60).unwrap(), []);
    }
    for identity in [1, 2] {
        assert_eq!(catalog.find_identity(source.id, [identity; 16]).unwrap(), None);
    }
    assert_eq!(catalog.departed().unwrap(), 0);
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), []);
    scratch.check(catalog);
}

#[test]
fn a_directory_that_the_catalog_took_for_full_goes_and_what_it_held_may_turn_up_elsewhere() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d").identity(1)]);
    let d = id(&catalog, "/s/d");
    list(&catalog, d, vec![file("f").identity(2)]);
    let f = id(&catalog, "/s/d/f");
    catalog.follow_removed(source.root, b"d", 60).unwrap();
    assert_eq!(catalog.find_identity(source.id, [1; 16]).unwrap(), None);
    list(&catalog, source.root, vec![file("g").identity(2).adopt(f)]);
    assert_eq!(id(&catalog, "/s/g"), f);
    assert_eq!(catalog.reap_departed(source.id, i64::MAX).unwrap(), 1);
    assert_eq!(scratch.check(catalog).departed, 0);
}

#[test]
fn a_rename_keeps_ids_and_all_beneath_and_what_it_replaces_is_gone() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![folder("a").identity(1), folder("b").identity(2)],
    );
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    list(&catalog, a, vec![folder("deep").identity(3), file("new").identity(5)]);
    list(&catalog, b, vec![folder("empty").identity(4), file("old").identity(6)]);
    let (deep, empty) = (id(&catalog, "/s/a/deep"), id(&catalog, "/s/b/empty"));
    let (new, old) = (id(&catalog, "/s/a/new"), id(&catalog, "/s/b/old"));
    list(&catalog, deep, vec![file("leaf").identity(7)]);
    list(&catalog, empty, vec![]);
    let leaf = id(&catalog, "/s/a/deep/leaf");
    catalog.set_contents(&[hashed(new, 10, 3)]).unwrap();
    catalog.pin(&[pin(old, None)]).unwrap();
    let changes = catalog
        .follow_moved((a, b"deep"), (b, b"empty"), None, None, 70)
        .unwrap();
    let expected = [
        Change::Removed {
            parent: b,
            name: name("empty"),
            id: empty,
        },
        Change::Moved {
            id: deep,
            from: (a, name("deep")),
            to: (b, name("empty")),
        },
        Change::Directory { id: a },
        Change::Directory { id: b },
    ];
    assert_eq!(changes, expected);
    assert_eq!(id(&catalog, "/s/b/empty/leaf"), leaf);
    assert_eq!(catalog.entry(empty).unwrap(), None);
    let raw = Some(b"old?".as_slice().into());
    catalog.follow_moved((a, b"new"), (b, b"old"), raw, None, 70).unwrap();
    let details = catalog.details(new).unwrap().unwrap();
    assert_eq!((&*details.raw_name, details.content), (&b"old?"[..], Some([3; 32])));
    assert_eq!(catalog.pins(None, 9).unwrap(), [pin(new, None)]);
    assert_eq!(catalog.entry(old).unwrap(), None);
    assert_eq!(catalog.departed().unwrap(), 0);
    scratch.check(catalog);
}

#[test]
fn a_file_makes_way_for_anothers_in_one_step() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![file("f").identity(1)]);
    let ours = id(&catalog, "/s/f");
    catalog.stage_with(ours, b"row", b"bytes", None).unwrap();
    let (theirs, changes) = catalog
        .follow_made_way((source.root, b"f"), b"f (conflict)", None, file("f").identity(2), 70)
        .unwrap();
    let moved = Change::Moved {
        id: ours,
        from: (source.root, name("f")),
        to: (source.root, name("f (conflict)")),
    };
    assert!(changes.contains(&moved), "{changes:?}");
    assert_eq!((id(&catalog, "/s/f"), id(&catalog, "/s/f (conflict)")), (theirs, ours));
    assert!(catalog.staged(ours).unwrap().is_some() && catalog.staged(theirs).unwrap().is_none());
    // Where the one half is refused, nothing of the other is done.
    let refused = catalog.follow_made_way((source.root, b"gone"), b"elsewhere", None, file("gone"), 80);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(catalog.lookup(source.root, b"gone").unwrap(), None);
    scratch.check(catalog);
}

#[test]
fn a_rename_of_what_the_catalog_does_not_know_is_a_creation_if_it_is_known_how_it_looks() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("to").identity(1)]);
    let to = id(&catalog, "/s/to");
    let unknown = catalog.follow_moved((root, b"from"), (root, b"to"), None, None, 1);
    assert!(matches!(unknown, Err(Error::Refused { .. })), "{unknown:?}");
    assert_eq!(id(&catalog, "/s/to"), to);
    let seen = Some(file("to").identity(2).seen);
    catalog
        .follow_moved((root, b"from"), (root, b"to"), None, seen, 1)
        .unwrap();
    assert_ne!(id(&catalog, "/s/to"), to);
    scratch.check(catalog);
}

#[test]
fn an_exchange_changes_places_and_nothing_else() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    let mut escaped = file("x").identity(1).size(5);
    escaped.raw_name = Some(b"x/".as_slice().into());
    list(&catalog, root, vec![escaped, folder("d").identity(2)]);
    let (x, d) = (id(&catalog, "/s/x"), id(&catalog, "/s/d"));
    list(&catalog, d, vec![file("in")]);
    let before = (catalog.entry(x).unwrap().unwrap(), catalog.totals().unwrap());
    catalog.follow_exchanged((root, b"x"), (root, b"d")).unwrap();
    assert_eq!((id(&catalog, "/s/x"), id(&catalog, "/s/d")), (d, x));
    assert!(catalog.resolve(b"/s/x/in").unwrap().is_some());
    assert_eq!(&*catalog.details(d).unwrap().unwrap().raw_name, b"x/");
    assert_eq!(&*catalog.details(x).unwrap().unwrap().raw_name, b"d");
    let now = manifold_catalog::Entry {
        name: name("x"),
        ..catalog.entry(x).unwrap().unwrap()
    };
    assert_eq!((now, catalog.totals().unwrap()), before);
    let within = catalog.follow_exchanged((root, b"x"), (d, b"in"));
    assert!(matches!(within, Err(Error::Refused { .. })), "{within:?}");
    scratch.check(catalog);
}

#[test]
fn own_changes_keep_the_id_whoever_has_the_file_open() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("f").identity(1)]);
    let f = id(&catalog, "/s/f");
    let seen = file("f").identity(7).version("v2").size(99).seen;
    let changes = catalog.follow_attributes(f, seen.clone()).unwrap();
    assert_eq!(changes, [Change::Content { id: f }]);
    assert_eq!(catalog.entry(f).unwrap().unwrap().size, 99);
    let mut other = seen;
    other.kind = Kind::Symlink;
    let refused = catalog.follow_attributes(f, other.clone());
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let nobody = catalog.follow_attributes(EntryId(4711), other);
    assert!(matches!(nobody, Err(Error::NoEntry(_))), "{nobody:?}");
    scratch.check(catalog);
}

#[test]
fn what_is_the_librarys_own_is_not_followed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let outer = add_source(&catalog, "/o");
    let inner = add_source(&catalog, "/o/way/inner");
    list(
        &catalog,
        outer.root,
        vec![file("f"), folder("way").identity(1), folder("d")],
    );
    list(&catalog, inner.root, vec![file("g")]);
    let (way, d) = (id(&catalog, "/o/way"), id(&catalog, "/o/d"));
    let before = catalog.totals().unwrap();
    let refused = [
        catalog
            .follow_created(way, folder("inner"), None)
            .map(|(_, changes)| changes),
        catalog
            .follow_created(outer.root, file("way"), None)
            .map(|(_, changes)| changes),
        catalog
            .follow_created(EntryId::ROOT, file("x"), None)
            .map(|(_, changes)| changes),
        catalog.follow_created(d, file("a/b"), None).map(|(_, changes)| changes),
        catalog.follow_removed(outer.root, b"way", 1),
        catalog.follow_removed(way, b"inner", 1),
        catalog.follow_moved(at(outer.root, b"way"), at(outer.root, b"w"), None, None, 1),
        catalog.follow_moved(at(outer.root, b"f"), at(outer.root, b"way"), None, None, 1),
        catalog.follow_moved(at(way, b"inner"), at(way, b"w"), None, None, 1),
        catalog.follow_moved(at(outer.root, b"f"), at(inner.root, b"f"), None, None, 1),
        catalog.follow_moved(at(outer.root, b"f"), at(outer.root, b".."), None, None, 1),
        catalog.follow_moved(at(outer.root, b"d"), at(d, b"d"), None, None, 1),
        catalog.follow_moved(
            at(outer.root, b"f"),
            at(outer.root, b"g"),
            Some(vec![b'x'; 1 << 16].into()),
            None,
            1,
        ),
        catalog.follow_exchanged(at(outer.root, b"f"), at(outer.root, b"way")),
        catalog.follow_exchanged(at(outer.root, b"f"), at(inner.root, b"g")),
        catalog.follow_attributes(EntryId::ROOT, folder("x").seen),
    ];
    for (index, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::Refused { .. })), "{index}: {refused:?}");
    }
    assert_eq!(catalog.totals().unwrap(), before);
    let mut root = folder("x").seen;
    root.mode = 0o700;
    let changes = catalog.follow_attributes(outer.root, root).unwrap();
    assert_eq!(changes, [Change::Attributes { id: outer.root }]);
    scratch.check(catalog);
}

/// Hard links are entries of their own that share an identity.
#[test]
fn two_names_of_one_object_live_side_by_side() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let named = |name| {
        let mut child = file(name).identity(1);
        child.seen.links = 2;
        child
    };
    list(&catalog, source.root, vec![named("a"), folder("d")]);
    let (a, d) = (id(&catalog, "/s/a"), id(&catalog, "/s/d"));
    list(&catalog, d, vec![]);
    let (b, _) = catalog.follow_created(d, named("b"), None).unwrap();
    let found = |expected: EntryId, departed| {
        let found = catalog.find_identity(source.id, [1; 16]).unwrap().unwrap();
        assert_eq!((found.id, found.departed), (expected, departed));
    };
    assert_ne!(a, b);
    found(a, false);
    catalog.follow_moved((d, b"b"), (d, b"c"), None, None, 1).unwrap();
    assert_eq!((id(&catalog, "/s/a"), id(&catalog, "/s/d/c")), (a, b));
    catalog.follow_removed(source.root, b"a", 1).unwrap();
    found(b, false);
    let (third, _) = catalog.follow_created(source.root, named("e"), None).unwrap();
    catalog
        .follow_moved((source.root, b"e"), (source.root, b"g"), None, None, 1)
        .unwrap();
    list(&catalog, d, vec![]);
    found(b, true);
    list(&catalog, d, vec![named("back").adopt(b)]);
    assert_eq!((id(&catalog, "/s/d/back"), id(&catalog, "/s/g")), (b, third));
    catalog.follow_removed(source.root, b"g", 1).unwrap();
    found(b, false);
    catalog.follow_removed(d, b"back", 1).unwrap();
    assert_eq!(catalog.find_identity(source.id, [1; 16]).unwrap(), None);
    scratch.check(catalog);
}

#[test]
fn a_file_that_changed_in_place_keeps_its_id_if_whoever_has_it_open_says_so() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let children = || {
        vec![
            file("in place").identity(1),
            file("replaced").identity(2),
            file("nameless"),
        ]
    };
    list(&catalog, source.root, children());
    let ids = ["/s/in place", "/s/replaced", "/s/nameless"].map(|path| id(&catalog, path));
    let mut now = children();
    now[1] = file("replaced").identity(3);
    let now: Vec<_> = now.into_iter().map(|child| child.version("v2")).collect();
    let asked = std::cell::RefCell::new(Vec::new());
    let replaces = |file: manifold_catalog::ChangedFile| {
        assert_eq!(file.source, source.id);
        asked.borrow_mut().push((file.id, file.same_object));
        !file.same_object
    };
    let listing = listing(&catalog, now);
    let changes = catalog.apply_listing(source.root, listing, &replaces).unwrap();
    assert!(changes.contains(&Change::Content { id: ids[0] }), "{changes:?}");
    let now = ["/s/in place", "/s/replaced", "/s/nameless"].map(|path| id(&catalog, path));
    assert!(now[0] == ids[0] && now[1] != ids[1] && now[2] != ids[2], "{now:?}");
    let mut asked = asked.into_inner();
    asked.sort_unstable();
    let mut expected = [(ids[0], true), (ids[1], false), (ids[2], false)];
    expected.sort_unstable();
    assert_eq!(asked, expected);
    scratch.check(catalog);
}
