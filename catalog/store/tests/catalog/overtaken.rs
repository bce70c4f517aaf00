//! Listings and looks that may be older than a change made through the mount.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_catalog::{Catalog, ChangeGuard, EntryId, Error, NewChild, Ticket};
use parking_lot::Mutex;

use crate::support::{Scratch, With, add_source, file, folder, id, list, names};

fn apply(catalog: &Catalog, directory: EntryId, children: Vec<NewChild>, ticket: Ticket) -> Result<(), Error> {
    let listing = manifold_catalog::CompleteListing {
        children,
        listed_ns: 100,
        scan: 0,
        ticket,
    };
    catalog.apply_listing(directory, listing, &|_| false).map(drop)
}

/// Begins a change, gives it to be made, and then has a listing applied that began before, amid the change and after it.
#[track_caller]
fn overtakes(catalog: &Catalog, root: EntryId, change: impl FnOnce(&Catalog)) {
    let known = catalog.children(root, None, 99).unwrap();
    let old: Vec<_> = known
        .iter()
        .map(|entry| file(&String::from_utf8_lossy(&entry.name)))
        .collect();
    let before = catalog.ticket();
    let guard: ChangeGuard = catalog.begin_change(&[root]);
    let refused = |result| assert!(matches!(result, Err(Error::Overtaken(at)) if at == root), "{result:?}");
    let amid = catalog.ticket();
    refused(apply(catalog, root, old.clone(), before));
    refused(apply(catalog, root, old.clone(), amid));
    change(catalog);
    let now = catalog.children(root, None, 99).unwrap();
    refused(apply(catalog, root, old.clone(), before));
    drop(guard);
    for ticket in [before, amid] {
        refused(apply(catalog, root, old.clone(), ticket));
    }
    assert_eq!(catalog.children(root, None, 99).unwrap(), now);
}

#[test]
fn a_listing_from_before_a_change_is_not_applied_amid_it_nor_after_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("kept"), file("removed"), file("from")]);
    overtakes(&catalog, root, |catalog| {
        catalog.follow_created(root, file("created"), None).unwrap();
    });
    overtakes(&catalog, root, |catalog| {
        catalog.follow_removed(root, b"removed", 1).unwrap();
    });
    overtakes(&catalog, root, |catalog| {
        catalog
            .follow_moved((root, b"from"), (root, b"to"), None, None, 1)
            .unwrap();
    });
    overtakes(&catalog, root, |catalog| {
        let seen = file("to").size(77).seen;
        catalog.follow_attributes(id(catalog, "/s/to"), seen).unwrap();
    });
    overtakes(&catalog, root, |catalog| {
        catalog.follow_exchanged((root, b"to"), (root, b"created")).unwrap();
    });
    assert_eq!(names(&catalog, root), ["created", "kept", "to"]);
    let told = vec![file("kept"), file("to")];
    apply(&catalog, root, told, catalog.ticket()).unwrap();
    assert_eq!(names(&catalog, root), ["kept", "to"], "one from after it is");
    scratch.check(catalog);
}

#[test]
fn what_the_catalog_was_told_overtakes_listings_also_without_a_guard() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![folder("d")]);
    let d = id(&catalog, "/s/d");
    let before = catalog.ticket();
    let (f, _) = catalog.follow_created(root, file("f"), None).unwrap();
    assert!(matches!(
        apply(&catalog, root, vec![], before),
        Err(Error::Overtaken(_))
    ));
    apply(&catalog, d, vec![], before).unwrap();
    catalog.stage(f, b"row", None, false).unwrap();
    let before = catalog.ticket();
    apply(&catalog, root, vec![folder("d")], before).unwrap();
    catalog.unstage(f, None, None).unwrap();
    let after = apply(&catalog, root, vec![folder("d")], before);
    assert!(matches!(after, Err(Error::Overtaken(_))), "it may be uploaded since");
    scratch.check(catalog);
}

#[test]
fn a_listing_from_before_the_one_that_was_applied_takes_nothing_away() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let (old, new) = (catalog.ticket(), catalog.ticket());
    apply(&catalog, source.root, vec![file("a"), folder("d")], new).unwrap();
    let late = apply(&catalog, source.root, vec![], old);
    assert!(
        matches!(late, Err(Error::Overtaken(at)) if at == source.root),
        "{late:?}"
    );
    assert_eq!(names(&catalog, source.root), ["a", "d"]);
    // Nor after a load, in which there was no listing to compare with.
    let d = id(&catalog, "/s/d");
    let (old, new) = (catalog.ticket(), catalog.ticket());
    let mut loader = catalog.bulk_load(source.id).unwrap();
    loader.add(d, new, vec![file("f")]).unwrap();
    loader.complete(d, new, 2).unwrap();
    loader.finish().unwrap();
    assert!(matches!(apply(&catalog, d, vec![], old), Err(Error::Overtaken(_))));
    assert_eq!(names(&catalog, d), ["f"]);
    scratch.check(catalog);
}

#[test]
fn a_look_from_before_a_change_is_not_taken_in() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("f"), folder("d")]);
    let (f, d) = (id(&catalog, "/s/f"), id(&catalog, "/s/d"));
    let before = catalog.ticket();
    catalog.follow_attributes(f, file("f").size(5).seen).unwrap();
    let late = catalog.update_attributes(f, file("f").size(6).seen, before, &|_| false);
    assert!(matches!(late, Err(Error::Overtaken(at)) if at == root), "{late:?}");
    let same = catalog.update_attributes(f, file("f").size(5).seen, before, &|_| false);
    assert_eq!(same.unwrap(), [], "what is known already does no harm");
    let mut times = folder("d").seen;
    times.modified_ns = 9;
    let before = catalog.ticket();
    drop(catalog.begin_change(&[d]));
    let late = catalog.update_attributes(d, times.clone(), before, &|_| false);
    assert!(matches!(late, Err(Error::Overtaken(at)) if at == d), "{late:?}");
    // Nor by the way, from a listing of the directory above.
    let mut child = folder("d");
    child.seen = times;
    apply(&catalog, root, vec![child.clone(), file("f").size(7)], before).unwrap();
    assert_eq!(catalog.entry(d).unwrap().unwrap().modified_ns, 1);
    assert_eq!(catalog.entry(f).unwrap().unwrap().size, 7);
    apply(&catalog, root, vec![child, file("f").size(7)], catalog.ticket()).unwrap();
    assert_eq!(catalog.entry(d).unwrap().unwrap().modified_ns, 9);
    scratch.check(catalog);
}

#[test]
fn what_was_seen_before_a_look_does_not_bring_back_what_was_replaced() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("f").identity(1)]);
    let refused =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::Overtaken(at)) if at == root), "{result:?}");
    let (listing, early, look) = (catalog.ticket(), catalog.ticket(), catalog.ticket());
    let f = id(&catalog, "/s/f");
    // Somebody has it open, so that the one that has taken its place is another entry.
    let open = |changed: manifold_catalog::ChangedFile| changed.id == f;
    let new = file("f").identity(2).size(2).seen;
    catalog.update_attributes(f, new.clone(), look, &open).unwrap();
    let replaced = id(&catalog, "/s/f");
    assert_ne!(replaced, f);
    // What began before that saw the one before.
    refused(apply(&catalog, root, vec![file("f").identity(1)], listing));
    let old = file("f").identity(1).seen;
    refused(
        catalog
            .update_attributes(replaced, old.clone(), early, &|_| true)
            .map(drop),
    );
    assert_eq!(id(&catalog, "/s/f"), replaced);
    assert_eq!(
        catalog
            .update_attributes(replaced, new.clone(), early, &|_| true)
            .unwrap(),
        []
    );
    // A look from before a listing is no better.
    let early = catalog.ticket();
    apply(&catalog, root, vec![file("f").identity(3)], catalog.ticket()).unwrap();
    refused(catalog.update_attributes(replaced, new, early, &|_| true).map(drop));
    catalog
        .update_attributes(replaced, old, catalog.ticket(), &|_| false)
        .unwrap();
    assert_eq!(id(&catalog, "/s/f"), replaced);
    scratch.check(catalog);
}

#[test]
fn a_load_passes_over_directories_that_were_changed_since_they_were_listed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let ticket = catalog.ticket();
    let mut loader = catalog.bulk_load(source.id).unwrap();
    let met = loader
        .add(source.root, ticket, vec![folder("a"), folder("b"), file("gone")])
        .unwrap();
    loader.flush().unwrap();
    // The first half is there to be seen, and somebody works with it.
    catalog.follow_removed(source.root, b"gone", 1).unwrap();
    loader.add(source.root, ticket, vec![file("late")]).unwrap();
    loader.complete(source.root, ticket, 2).unwrap();
    let ticket = catalog.ticket();
    let [a, b] = [met[0].id, met[1].id];
    let (made, _) = catalog.follow_created(a, file("made"), None).unwrap();
    for directory in [a, b] {
        loader.add(directory, ticket, vec![file("loaded")]).unwrap();
        loader.complete(directory, ticket, 2).unwrap();
    }
    loader.finish().unwrap();
    assert_eq!(names(&catalog, source.root), ["a", "b"]);
    assert_eq!(
        (names(&catalog, a), names(&catalog, b)),
        (vec!["made".into()], vec!["loaded".to_owned()])
    );
    let listed = |id| catalog.directory_state(id).unwrap().unwrap().listed_ns;
    assert_eq!((listed(source.root), listed(a), listed(b)), (None, None, Some(2)));
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [a]);
    apply(&catalog, a, vec![file("loaded"), file("made")], catalog.ticket()).unwrap();
    assert_eq!(id(&catalog, "/s/a/made"), made);
    scratch.check(catalog);
}

#[test]
fn what_could_not_be_listed_in_time_counts_as_listed_long_ago_and_is_queued() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d")]);
    let d = id(&catalog, "/s/d");
    list(&catalog, d, vec![file("f")]);
    catalog.note_stale(d).unwrap();
    assert_eq!(catalog.directory_state(d).unwrap().unwrap().listed_ns, Some(0));
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [d]);
    assert_eq!(names(&catalog, d), ["f"]);
    let refused = catalog.note_stale(EntryId::ROOT);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    scratch.check(catalog);
}

/// Some make and remove files at a source and tell the catalog, others list it all the time: whoever has made a file sees
/// it until he removes it, and never again after that.
#[test]
fn whoever_lists_while_others_change_takes_nothing_away_and_brings_nothing_back() {
    const CHANGERS: usize = 3;
    const LISTERS: usize = 2;
    const ROUNDS: usize = 400;
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![]);
    let at_source = Mutex::new(BTreeSet::<String>::new());
    let over = AtomicBool::new(false);
    let children = || at_source.lock().iter().map(|name| file(name)).collect::<Vec<_>>();
    let (mut applied, mut overtaken) = (0, 0);
    std::thread::scope(|scope| {
        let changers: Vec<_> = (0..CHANGERS)
            .map(|changer| {
                let (catalog, at_source) = (&catalog, &at_source);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let name = format!("{changer} {}", round % 7);
                        let there = || catalog.lookup(root, name.as_bytes()).unwrap().is_some();
                        let guard = catalog.begin_change(&[root]);
                        if at_source.lock().insert(name.clone()) {
                            catalog.follow_created(root, file(&name), None).unwrap();
                            drop(guard);
                            assert!(there(), "{name} in round {round}");
                        } else {
                            at_source.lock().remove(&name);
                            catalog.follow_removed(root, name.as_bytes(), 1).unwrap();
                            drop(guard);
                            assert!(!there(), "{name} in round {round}");
                        }
                    }
                })
            })
            .collect();
        let listers: Vec<_> = (0..LISTERS)
            .map(|_| {
                let (catalog, over, children) = (&catalog, &over, &children);
                scope.spawn(move || {
                    let (mut applied, mut overtaken) = (0, 0);
                    while !over.load(Ordering::Relaxed) {
                        let ticket = catalog.ticket();
                        let children = children();
                        std::thread::yield_now();
                        match apply(catalog, root, children, ticket) {
                            Ok(()) => applied += 1,
                            Err(Error::Overtaken(_)) => overtaken += 1,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    (applied, overtaken)
                })
            })
            .collect();
        for changer in changers {
            changer.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        for lister in listers {
            let counts = lister.join().unwrap();
            (applied, overtaken) = (applied + counts.0, overtaken + counts.1);
        }
    });
    assert!(overtaken > 0, "{applied} listings were applied, and none met a change");
    let truth: Vec<_> = at_source.lock().iter().cloned().collect();
    assert_eq!(names(&catalog, root), truth);
    apply(&catalog, root, children(), catalog.ticket()).unwrap();
    assert_eq!(names(&catalog, root), truth);
    scratch.check(catalog);
}

#[test]
fn hard_links_and_identities_do_not_confuse_a_listing_after_own_changes() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("a").identity(1)]);
    let a = id(&catalog, "/s/a");
    let (b, _) = catalog.follow_created(root, file("b").identity(1), None).unwrap();
    let told = || vec![file("a").identity(1), file("b").identity(1)];
    apply(&catalog, root, told(), catalog.ticket()).unwrap();
    assert_eq!((id(&catalog, "/s/a"), id(&catalog, "/s/b")), (a, b));
    // The second link moves at the source, and is claimed to be the first.
    let claimed = vec![file("a").identity(1), file("c").identity(1).adopt(a)];
    apply(&catalog, root, claimed, catalog.ticket()).unwrap();
    assert_eq!(id(&catalog, "/s/a"), a);
    assert_eq!(names(&catalog, root), ["a", "c"]);
    scratch.check(catalog);
}

/// The listing of a directory is asked for by its path. It may move while that is under way, and another may take its place.
#[test]
fn what_was_seen_by_a_path_is_not_taken_for_what_has_moved_from_there() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![folder("old").identity(1)]);
    let old = id(&catalog, "/s/old");
    list(&catalog, old, vec![folder("inner").identity(2)]);
    let inner = id(&catalog, "/s/old/inner");
    list(&catalog, inner, vec![file("held").identity(3)]);
    let tickets = [
        (old, catalog.ticket().by_path(b"old")),
        (inner, catalog.ticket().by_path(b"old/inner")),
    ];
    // A source tells of the move: nothing of it was done through the mount.
    list(&catalog, root, vec![folder("new").identity(1).adopt(old)]);
    list(
        &catalog,
        root,
        vec![folder("new").identity(1), folder("old").identity(4)],
    );
    assert_eq!(id(&catalog, "/s/new"), old);
    for (directory, ticket) in tickets {
        let refused = apply(&catalog, directory, Vec::new(), ticket);
        assert!(
            matches!(refused, Err(Error::Overtaken(at)) if at == directory),
            "{refused:?}"
        );
        let refused = catalog.update_attributes(directory, folder("d").seen, ticket, &|_| false);
        assert!(matches!(refused, Err(Error::Overtaken(_))), "{refused:?}");
    }
    assert_eq!(names(&catalog, inner), ["held"]);
    let now = catalog.ticket().by_path(b"new/inner");
    apply(&catalog, inner, vec![file("held").identity(3), file("more")], now).unwrap();
    assert_eq!(names(&catalog, inner), ["held", "more"], "by its own path it is");
    scratch.check(catalog);
}
