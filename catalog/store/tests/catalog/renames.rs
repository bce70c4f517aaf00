//! Renames that were verified: an entry moves with all beneath it, and keeps its id.

use manifold_catalog::{Change, CompleteListing, Error, Found};

use crate::support::{Scratch, With, add_source, file, folder, id, list, listing, names};

#[test]
fn a_directory_moves_with_its_subtree_and_keeps_all_ids() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![folder("a").identity(1), folder("b").identity(2)],
    );
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    list(&catalog, a, vec![folder("d").identity(3)]);
    let d = id(&catalog, "/s/a/d");
    list(&catalog, d, vec![file("f").identity(4)]);
    let f = id(&catalog, "/s/a/d/f");
    assert_eq!(
        catalog.find_identity(source.id, [3; 16]).unwrap(),
        Some(Found { id: d, departed: false })
    );
    let totals = catalog.totals().unwrap();
    list(&catalog, b, vec![]);
    let changes = list(&catalog, b, vec![folder("e").identity(3).adopt(d)]);
    let moved = Change::Moved {
        id: d,
        from: (a, b"d".as_slice().into()),
        to: (b, b"e".as_slice().into()),
    };
    assert_eq!(changes, [moved, Change::Directory { id: b }]);
    assert_eq!(id(&catalog, "/s/b/e/f"), f);
    assert!(names(&catalog, a).is_empty());
    assert_eq!(catalog.object_path(f).unwrap().unwrap().1, b"b/e/f");
    assert_eq!(catalog.totals().unwrap(), totals);
    assert_eq!(list(&catalog, a, vec![]), []);
    scratch.check(catalog);
}

#[test]
fn an_older_listing_takes_nothing_from_where_a_newer_one_has_seen_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let folders = vec![folder("a").identity(1), folder("b").identity(2)];
    list(&catalog, source.root, folders);
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    list(&catalog, b, vec![]);
    let old = listing(&catalog, vec![]);
    list(&catalog, a, vec![file("f").identity(3)]);
    let f = id(&catalog, "/s/a/f");
    let claim = |taken: CompleteListing| {
        let children = vec![file("g").identity(3).adopt(f)];
        catalog.apply_listing(b, CompleteListing { children, ..taken }, &|_| false)
    };
    assert!(matches!(claim(old), Err(Error::Overtaken(at)) if at == b));
    assert_eq!(id(&catalog, "/s/a/f"), f);
    // A look at the file tells as much.
    let old = listing(&catalog, vec![]);
    let seen = file("f").identity(3).seen;
    catalog
        .update_attributes(f, seen, catalog.ticket(), &|_| false)
        .unwrap();
    assert!(matches!(claim(old), Err(Error::Overtaken(at)) if at == b));
    // Whoever asks again, and still sees the old place empty, is right.
    claim(listing(&catalog, vec![])).unwrap();
    assert_eq!(id(&catalog, "/s/b/g"), f);
    assert!(names(&catalog, a).is_empty());
    scratch.check(catalog);
}

#[test]
fn an_entry_that_another_object_has_by_now_is_not_claimed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![folder("b").identity(2), file("f").identity(3)],
    );
    let (b, f) = (id(&catalog, "/s/b"), id(&catalog, "/s/f"));
    // What was the file has moved, another one has its name, and that is what was seen first.
    list(
        &catalog,
        source.root,
        vec![folder("b").identity(2), file("f").identity(4)],
    );
    assert_eq!(id(&catalog, "/s/f"), f);
    list(&catalog, b, vec![file("g").identity(3).adopt(f)]);
    assert_eq!(id(&catalog, "/s/f"), f);
    assert_ne!(id(&catalog, "/s/b/g"), f);
    scratch.check(catalog);
}

#[test]
fn what_departed_first_is_adopted_with_all_beneath_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![folder("a").identity(1), folder("b").identity(2)],
    );
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    list(&catalog, a, vec![file("f").size(5), folder("never listed")]);
    let f = id(&catalog, "/s/a/f");
    let totals = catalog.totals().unwrap();
    list(&catalog, source.root, vec![folder("b").identity(2)]);
    assert_eq!(catalog.resolve(b"/s/a").unwrap(), None);
    assert_eq!(catalog.tree_path(f).unwrap(), None);
    assert_eq!(catalog.totals().unwrap().sources[0].1.entries, 2);
    assert_eq!(
        catalog.find_identity(source.id, [1; 16]).unwrap(),
        Some(Found { id: a, departed: true })
    );
    assert_eq!(catalog.scan_queue_next(source.id, 9).unwrap(), [b]);
    let catalog = scratch.checked(catalog);
    let changes = list(&catalog, b, vec![folder("moved").identity(1).adopt(a)]);
    // In a directory that was never listed nobody has seen anything.
    assert_eq!(changes, [Change::Directory { id: b }]);
    assert_eq!(id(&catalog, "/s/b/moved/f"), f);
    assert_eq!(catalog.totals().unwrap(), totals);
    assert_eq!(catalog.reap_departed(source.id, i64::MAX).unwrap(), 0);
    assert_eq!(
        catalog.scan_queue_next(source.id, 9).unwrap(),
        [id(&catalog, "/s/b/moved/never listed")]
    );
    scratch.check(catalog);
}

#[test]
fn names_are_swapped_within_one_listing() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(
        &catalog,
        root,
        vec![file("a").identity(1), file("b").identity(2), file("c").identity(3)],
    );
    let (a, b, c) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"), id(&catalog, "/s/c"));
    list(
        &catalog,
        root,
        vec![
            file("a").identity(2).adopt(b),
            file("b").identity(3).adopt(c),
            file("c").identity(1).adopt(a),
        ],
    );
    assert_eq!(
        (id(&catalog, "/s/a"), id(&catalog, "/s/b"), id(&catalog, "/s/c")),
        (b, c, a)
    );
    scratch.check(catalog);
}

#[test]
fn a_file_renamed_over_another_takes_its_name_along_with_its_own_id() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![file("doc").identity(1), file("doc.tmp").identity(2)],
    );
    let (old, new) = (id(&catalog, "/s/doc"), id(&catalog, "/s/doc.tmp"));
    list(&catalog, source.root, vec![file("doc").identity(2).adopt(new)]);
    assert_eq!(id(&catalog, "/s/doc"), new);
    assert_eq!(
        catalog.find_identity(source.id, [1; 16]).unwrap(),
        Some(Found {
            id: old,
            departed: true
        })
    );
    assert_eq!(
        catalog.reap_departed(source.id, 100).unwrap(),
        0,
        "it departed at 100, not before"
    );
    assert_eq!(catalog.reap_departed(source.id, 101).unwrap(), 1);
    assert_eq!(catalog.find_identity(source.id, [1; 16]).unwrap(), None);
    scratch.check(catalog);
}

#[test]
fn a_second_link_is_not_taken_for_a_rename() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("a").identity(1)]);
    let a = id(&catalog, "/s/a");
    list(
        &catalog,
        root,
        vec![
            file("a").identity(1),
            file("b").identity(1).adopt(a),
            file("c").identity(1).adopt(a),
        ],
    );
    assert_eq!(id(&catalog, "/s/a"), a);
    let (b, c) = (id(&catalog, "/s/b"), id(&catalog, "/s/c"));
    assert!(a != b && b != c && a != c);
    // Of two that claim the same one, the first has it.
    list(
        &catalog,
        root,
        vec![file("x").identity(1).adopt(a), file("y").identity(1).adopt(a)],
    );
    assert_eq!(id(&catalog, "/s/x"), a);
    assert_ne!(id(&catalog, "/s/y"), a);
    scratch.check(catalog);
}

#[test]
fn a_claim_that_does_not_hold_leaves_a_child_under_its_name_its_id() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![file("a").identity(1), folder("d").identity(2)]);
    let (a, d) = (id(&catalog, "/s/a"), id(&catalog, "/s/d"));
    // Of another kind.
    list(
        &catalog,
        root,
        vec![file("a").identity(9).adopt(d), folder("d").identity(2)],
    );
    assert_eq!((id(&catalog, "/s/a"), id(&catalog, "/s/d")), (a, d));
    scratch.check(catalog);
}

#[test]
fn a_directory_is_never_moved_beneath_itself() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![folder("a").identity(1)]);
    let a = id(&catalog, "/s/a");
    list(&catalog, a, vec![folder("b").identity(2)]);
    let b = id(&catalog, "/s/a/b");
    list(
        &catalog,
        b,
        vec![folder("a").identity(1).adopt(a), folder("b").identity(2).adopt(b)],
    );
    assert_eq!((id(&catalog, "/s/a"), id(&catalog, "/s/a/b")), (a, b));
    assert!(![a, b].contains(&id(&catalog, "/s/a/b/a")));
    assert!(![a, b].contains(&id(&catalog, "/s/a/b/b")));
    scratch.check(catalog);
}

#[test]
fn a_directory_is_lifted_out_of_one_that_is_gone() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("a")]);
    let a = id(&catalog, "/s/a");
    list(&catalog, a, vec![folder("b").identity(2), file("lost")]);
    let b = id(&catalog, "/s/a/b");
    list(&catalog, b, vec![file("f")]);
    list(&catalog, source.root, vec![folder("b").identity(2).adopt(b)]);
    assert_eq!(id(&catalog, "/s/b"), b);
    assert_eq!(catalog.totals().unwrap().sources[0].1.entries, 3);
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.reap_departed(source.id, i64::MAX).unwrap(), 2);
    assert_eq!(names(&catalog, b), ["f"]);
    scratch.check(catalog);
}

#[test]
fn what_is_half_reaped_is_not_adopted_as_if_it_were_whole() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("a").identity(1)]);
    let a = id(&catalog, "/s/a");
    list(&catalog, a, (0..12_000).map(|n| file(&n.to_string())).collect());
    list(&catalog, source.root, vec![]);
    assert_eq!(catalog.reap_departed(source.id, i64::MAX).unwrap(), 12_001);
    assert_eq!(catalog.find_identity(source.id, [1; 16]).unwrap(), None);
    list(&catalog, source.root, vec![folder("a").identity(1).adopt(a)]);
    let again = id(&catalog, "/s/a");
    assert_ne!(again, a);
    assert_eq!(catalog.directory_state(again).unwrap().unwrap().listed_ns, None);
    assert!(matches!(
        catalog.apply_listing(a, listing(&catalog, vec![]), &|_| false),
        Err(Error::NoEntry(_))
    ));
    scratch.check(catalog);
}

#[test]
fn an_open_file_that_is_renamed_and_written_to_at_once_is_a_new_entry() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(
        &catalog,
        root,
        vec![file("a").identity(1).version("1"), file("b").identity(2).version("1")],
    );
    let (a, b) = (id(&catalog, "/s/a"), id(&catalog, "/s/b"));
    let renamed = vec![
        file("x").identity(1).version("2").size(7).adopt(a),
        file("y").identity(2).version("2").size(7).adopt(b),
    ];
    let renamed = listing(&catalog, renamed);
    let changes = catalog.apply_listing(root, renamed, &|changed| changed.id == a && changed.same_object);
    let (x, y) = (id(&catalog, "/s/x"), id(&catalog, "/s/y"));
    assert_ne!(x, a, "its handles go on reading the old version under the old number");
    assert_eq!(y, b, "nobody has it open");
    let changes = changes.unwrap();
    assert!(changes.contains(&Change::Content { id: b }), "{changes:?}");
    assert!(!changes.contains(&Change::Content { id: a }), "{changes:?}");
    let is_told = |change: &Change| matches!(change, Change::Replaced { old, new, .. } if *old == a && *new == x);
    assert!(changes.iter().any(is_told), "{changes:?}");
    assert!(catalog.entry(a).unwrap().is_none());
    scratch.check(catalog);
}
