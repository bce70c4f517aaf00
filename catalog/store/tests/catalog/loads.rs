//! The bulk load and the scan queue.

use manifold_catalog::{Catalog, Change, EntryId, Error, Found, NewChild, SourceId};

use crate::support::{Scratch, With, add_source, file, folder, id, list, listing, names};

/// Lists what is queued, by this rule, until nothing is.
fn drain(catalog: &Catalog, source: SourceId, children: impl Fn(&str) -> Vec<NewChild>) {
    let mut loader = catalog.bulk_load(source).unwrap();
    loop {
        let queued = catalog.scan_queue_next(source, 100).unwrap();
        if queued.is_empty() {
            break;
        }
        for directory in queued {
            let path = String::from_utf8(catalog.object_path(directory).unwrap().unwrap().1).unwrap();
            loader.add(directory, catalog.ticket(), children(&path)).unwrap();
            loader.complete(directory, catalog.ticket(), 5).unwrap();
        }
        loader.flush().unwrap();
    }
    loader.finish().unwrap();
}

fn rule(path: &str) -> Vec<NewChild> {
    let depth = path.split('/').filter(|part| !part.is_empty()).count();
    let mut children = vec![file("z"), file("a").size(3)];
    if depth < 3 {
        children.extend([folder("d2"), folder("d1")]);
    }
    children
}

#[test]
fn a_scan_is_loaded_from_its_queue_and_counted() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    assert_eq!(catalog.scan_state(source.id).unwrap(), None);
    assert_eq!(catalog.scan_begin(source.id, 1).unwrap(), 1);
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [source.root]);
    let subscription = catalog.subscribe();
    drain(&catalog, source.id, rule);
    assert_eq!(
        subscription.try_recv(),
        None,
        "nobody can have seen what was never listed"
    );
    let state = catalog.scan_state(source.id).unwrap().unwrap();
    assert_eq!(
        (state.queued, state.listed, state.failed, state.finished_ns),
        (0, 15, 0, None)
    );
    catalog.scan_finish(source.id, 9).unwrap();
    assert_eq!(catalog.scan_state(source.id).unwrap().unwrap().finished_ns, Some(9));
    let totals = catalog.totals().unwrap().sources[0].1;
    assert_eq!((totals.entries, totals.bytes), (1 + 14 + 30, 15 * 13));
    assert_eq!(names(&catalog, id(&catalog, "/s/d1/d2")), ["a", "d1", "d2", "z"]);
    let deep = id(&catalog, "/s/d1/d2/d1");
    assert_eq!(catalog.directory_state(deep).unwrap().unwrap().listed_ns, Some(5));
    // A second scan finds the known directories stale, and lists each once.
    assert_eq!(catalog.scan_begin(source.id, 20).unwrap(), 2);
    let mut listed = 0;
    while let Some(directory) = catalog.scan_queue_next(source.id, 1).unwrap().first() {
        let path = String::from_utf8(catalog.object_path(*directory).unwrap().unwrap().1).unwrap();
        assert_eq!(list(&catalog, *directory, rule(&path)), []);
        listed += 1;
    }
    assert_eq!(listed, 15);
    assert_eq!(catalog.scan_state(source.id).unwrap().unwrap().listed, 15);
    scratch.check(catalog);
}

#[test]
fn a_directory_that_cannot_be_listed_does_not_hold_the_scan_up() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog.scan_begin(source.id, 1).unwrap();
    list(&catalog, source.root, vec![folder("closed")]);
    let closed = id(&catalog, "/s/closed");
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [closed]);
    catalog.note_failure(closed, "permission denied", 2).unwrap();
    assert!(catalog.scan_queue_next(source.id, 9).unwrap().is_empty());
    let state = catalog.scan_state(source.id).unwrap().unwrap();
    assert_eq!((state.queued, state.listed, state.failed), (0, 1, 1));
    assert_eq!(catalog.directory_state(closed).unwrap().unwrap().listed_ns, None);
    scratch.check(catalog);
}

#[test]
fn a_directory_that_could_not_be_listed_is_counted_until_it_can_or_leaves() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog.scan_begin(source.id, 1).unwrap();
    list(&catalog, source.root, vec![folder("a"), folder("b")]);
    let failed = || catalog.scan_state(source.id).unwrap().unwrap().failed;
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    for (at_ns, directory) in [(2, a), (3, b), (4, b)] {
        catalog.note_failure(directory, "busy", at_ns).unwrap();
    }
    assert_eq!(failed(), 2, "each counts once");
    catalog.scan_finish(source.id, 5).unwrap();
    list(&catalog, a, vec![folder("c")]);
    assert_eq!(failed(), 1, "what is listed well after the scan is no failure any more");
    catalog.note_failure(id(&catalog, "/s/a/c"), "busy", 6).unwrap();
    assert_eq!(failed(), 2);
    list(&catalog, source.root, Vec::new());
    assert_eq!(failed(), 0, "what has left the tree is missed by nobody");

    catalog.scan_begin(source.id, 10).unwrap();
    list(&catalog, source.root, vec![folder("d")]);
    catalog.note_failure(id(&catalog, "/s/d"), "busy", 11).unwrap();
    catalog.scan_finish(source.id, 12).unwrap();
    catalog.scan_begin(source.id, 20).unwrap();
    assert_eq!(failed(), 0, "a new scan tries everything anew");
    scratch.check(catalog);
}

#[test]
fn a_huge_directory_comes_in_parts_and_counts_as_listed_with_the_last() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let mut loader = catalog.bulk_load(source.id).unwrap();
    for part in 0..10 {
        // The names of the parts interleave.
        loader
            .add(
                source.root,
                catalog.ticket(),
                (0..10_000).map(|n| file(&format!("{n:05}-{part}")).size(1)).collect(),
            )
            .unwrap();
        assert_eq!(catalog.directory_state(source.root).unwrap().unwrap().listed_ns, None);
    }
    assert!(
        catalog.totals().unwrap().all.entries > 32_768,
        "what has gathered shows on the way"
    );
    loader.complete(source.root, catalog.ticket(), 8).unwrap();
    loader.finish().unwrap();
    assert_eq!(
        catalog.directory_state(source.root).unwrap().unwrap().listed_ns,
        Some(8)
    );
    assert_eq!(catalog.totals().unwrap().sources[0].1.bytes, 100_000);
    let mut after: Option<Box<[u8]>> = None;
    let mut seen = 0;
    loop {
        let page = catalog.children(source.root, after.as_deref(), 1000).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.is_sorted_by(|a, b| a.name < b.name));
        assert!(after.is_none_or(|after| after < page[0].name));
        seen += page.len();
        after = Some(last.name.clone());
    }
    assert_eq!(seen, 100_000);
    scratch.check(catalog);
}

#[test]
fn what_an_interrupted_load_left_is_reconciled_with_the_next() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog.scan_begin(source.id, 1).unwrap();
    let mut loader = catalog.bulk_load(source.id).unwrap();
    loader
        .add(
            source.root,
            catalog.ticket(),
            vec![file("deleted meanwhile"), file("kept").identity(1), folder("sub")],
        )
        .unwrap();
    loader.flush().unwrap();
    drop(loader);
    let (kept, sub) = (id(&catalog, "/s/kept"), id(&catalog, "/s/sub"));
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [source.root, sub]);
    let mut loader = catalog.bulk_load(source.id).unwrap();
    loader
        .add(
            source.root,
            catalog.ticket(),
            vec![file("new"), file("kept").identity(1)],
        )
        .unwrap();
    loader.flush().unwrap();
    assert_eq!(
        names(&catalog, source.root),
        ["deleted meanwhile", "kept", "sub"],
        "not before it is complete"
    );
    loader.add(source.root, catalog.ticket(), vec![folder("sub")]).unwrap();
    loader.complete(source.root, catalog.ticket(), 2).unwrap();
    loader.finish().unwrap();
    assert_eq!(names(&catalog, source.root), ["kept", "new", "sub"]);
    assert_eq!((id(&catalog, "/s/kept"), id(&catalog, "/s/sub")), (kept, sub));
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [sub]);
    scratch.check(catalog);
}

#[test]
fn a_listing_on_demand_is_not_undone_by_the_load() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog.scan_begin(source.id, 1).unwrap();
    let mut loader = catalog.bulk_load(source.id).unwrap();
    let met = loader
        .add(
            source.root,
            catalog.ticket(),
            vec![folder("a"), folder("b"), folder("late")],
        )
        .unwrap();
    // Somebody opens the root before the loader has flushed, and a directory in it.
    list(&catalog, source.root, vec![folder("a"), folder("b").identity(2)]);
    let a = id(&catalog, "/s/a");
    list(&catalog, a, vec![file("on demand")]);
    loader.complete(source.root, catalog.ticket(), 2).unwrap();
    for directory in met {
        loader
            .add(directory.id, catalog.ticket(), vec![file("by the loader")])
            .unwrap();
        loader.complete(directory.id, catalog.ticket(), 2).unwrap();
    }
    loader.add(a, catalog.ticket(), vec![file("by the loader")]).unwrap();
    loader.complete(a, catalog.ticket(), 3).unwrap();
    let b = id(&catalog, "/s/b");
    loader.add(b, catalog.ticket(), vec![file("x").identity(3)]).unwrap();
    loader.complete(b, catalog.ticket(), 3).unwrap();
    loader.finish().unwrap();
    assert_eq!(names(&catalog, source.root), ["a", "b"]);
    assert_eq!(
        (names(&catalog, a), names(&catalog, b)),
        (vec!["on demand".into()], vec!["x".into()])
    );
    assert!(catalog.scan_queue_next(source.id, 9).unwrap().is_empty());
    assert_eq!(
        catalog.find_identity(source.id, [3; 16]).unwrap(),
        Some(Found {
            id: id(&catalog, "/s/b/x"),
            departed: false
        })
    );
    scratch.check(catalog);
}

#[test]
fn a_load_leaves_attach_points_alone() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let outer = add_source(&catalog, "/s");
    let inner = add_source(&catalog, "/s/x/inner");
    let x = id(&catalog, "/s/x");
    let mut loader = catalog.bulk_load(outer.id).unwrap();
    let met = loader
        .add(outer.root, catalog.ticket(), vec![folder("x"), folder("y"), file("z")])
        .unwrap();
    loader.complete(outer.root, catalog.ticket(), 2).unwrap();
    for directory in met {
        let below = loader
            .add(directory.id, catalog.ticket(), vec![file("f"), folder("g")])
            .unwrap();
        loader.complete(directory.id, catalog.ticket(), 2).unwrap();
        for directory in below {
            loader.complete(directory.id, catalog.ticket(), 2).unwrap();
        }
    }
    loader.flush().unwrap();
    assert_eq!(
        (id(&catalog, "/s/x"), catalog.entry(x).unwrap().unwrap().source),
        (x, outer.id)
    );
    assert_eq!(names(&catalog, id(&catalog, "/s/y")), ["f", "g"]);
    // The directory that was there already is the one in the queue.
    assert_eq!(catalog.scan_queue_next(outer.id, 9).unwrap(), [x]);
    loader
        .add(x, catalog.ticket(), vec![file("inner"), file("own")])
        .unwrap();
    loader.complete(x, catalog.ticket(), 3).unwrap();
    loader.finish().unwrap();
    assert_eq!(names(&catalog, x), ["inner", "own"]);
    assert_eq!(id(&catalog, "/s/x/inner"), inner.root);
    scratch.check(catalog);
}

#[test]
fn a_name_that_comes_twice_in_a_load_is_refused_and_the_directory_stays_to_be_listed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let mut loader = catalog.bulk_load(source.id).unwrap();
    assert!(matches!(
        loader.add(source.root, catalog.ticket(), vec![file("a"), file("a")]),
        Err(Error::Refused { .. })
    ));
    loader
        .add(source.root, catalog.ticket(), vec![file("a"), file("b")])
        .unwrap();
    loader.flush().unwrap();
    loader
        .add(source.root, catalog.ticket(), vec![file("b"), file("c")])
        .unwrap();
    assert!(matches!(loader.flush(), Err(Error::Refused { .. })));
    loader.add(source.root, catalog.ticket(), vec![file("d")]).unwrap();
    loader.complete(source.root, catalog.ticket(), 1).unwrap();
    loader.finish().unwrap();
    assert_eq!(catalog.directory_state(source.root).unwrap().unwrap().listed_ns, None);
    // A listing that broke off is given up, and taken from the start.
    let mut loader = catalog.bulk_load(source.id).unwrap();
    loader.add(source.root, catalog.ticket(), vec![file("x")]).unwrap();
    loader.abandon(source.root);
    loader
        .add(source.root, catalog.ticket(), vec![file("a"), file("b"), file("c")])
        .unwrap();
    loader.complete(source.root, catalog.ticket(), 2).unwrap();
    loader.finish().unwrap();
    assert_eq!(names(&catalog, source.root), ["a", "b", "c"]);
    assert!(matches!(catalog.bulk_load(SourceId(77)), Err(Error::NoSource(_))));
    scratch.check(catalog);
}

#[test]
fn a_listing_of_a_directory_that_was_loaded_in_part_tells_only_of_the_directory() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let mut loader = catalog.bulk_load(source.id).unwrap();
    loader
        .add(source.root, catalog.ticket(), vec![file("a"), file("b")])
        .unwrap();
    loader.flush().unwrap();
    let changes = catalog
        .apply_listing(source.root, listing(&catalog, vec![file("b"), file("c")]), &|_| false)
        .unwrap();
    assert_eq!(changes, [Change::Directory { id: source.root }]);
    assert_ne!(catalog.lookup(source.root, b"c").unwrap().unwrap().id, EntryId::ROOT);
    drop(loader);
    scratch.check(catalog);
}
