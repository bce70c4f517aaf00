//! Listings: what appears, what changes, what disappears, and what never does.

use manifold_catalog::{Change, EntryId, Error, Kind, SourceId};

use crate::support::{Scratch, With, add_source, file, folder, id, list, listing, names, seen};

#[test]
fn a_first_listing_shows_its_children_and_tells_only_of_the_directory() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/a/b");
    assert_eq!(catalog.directory_state(source.root).unwrap().unwrap().listed_ns, None);
    let subscription = catalog.subscribe();
    let changes = list(&catalog, source.root, vec![folder("sub"), file("file").size(7)]);
    assert_eq!(changes, [Change::Directory { id: source.root }]);
    assert_eq!(subscription.try_recv(), Some(Change::Directory { id: source.root }));
    assert_eq!(names(&catalog, source.root), ["file", "sub"]);
    let entry = catalog.lookup(source.root, b"file").unwrap().unwrap();
    assert_eq!(
        (entry.size, entry.kind, entry.mode, entry.owner),
        (7, Kind::File, 0o640, Some((1000, 100)))
    );
    assert_eq!((entry.parent, entry.source, entry.links), (source.root, source.id, 1));
    assert_eq!(catalog.entry(entry.id).unwrap().unwrap(), entry);
    assert_eq!(catalog.tree_path(entry.id).unwrap().unwrap(), b"/a/b/file");
    assert_eq!(
        catalog.object_path(entry.id).unwrap().unwrap(),
        (source.id, b"file".to_vec())
    );
    assert_eq!(
        catalog.object_path(source.root).unwrap().unwrap(),
        (source.id, Vec::new())
    );
    assert_eq!(catalog.object_path(id(&catalog, "/a")).unwrap(), None);
    assert_eq!(catalog.tree_path(EntryId::ROOT).unwrap().unwrap(), b"/");
    assert_eq!(&*catalog.details(entry.id).unwrap().unwrap().version, b"v1");
    let state = catalog.directory_state(source.root).unwrap().unwrap();
    assert_eq!((state.listed_ns, state.failure), (Some(100), None));
    let totals = catalog.totals().unwrap();
    assert_eq!((totals.all.entries, totals.all.bytes), (5, 7));
    assert_eq!((totals.sources[0].1.entries, totals.sources[0].1.bytes), (3, 7));
    scratch.check(catalog);
}

#[test]
fn an_unchanged_listing_changes_nothing_and_tells_nothing() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/a");
    let children = || vec![folder("sub").identity(1), file("file").identity(2)];
    list(&catalog, source.root, children());
    let before = catalog.children(source.root, None, 10).unwrap();
    assert_eq!(list(&catalog, source.root, children()), []);
    assert_eq!(catalog.children(source.root, None, 10).unwrap(), before);
    scratch.check(catalog);
}

#[test]
fn pages_of_children_have_each_child_once_and_in_order() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    for count in [0, 1, 999, 1_000, 1_001, 2_000] {
        let children = (0..count).map(|number| file(&format!("{number:05}"))).collect();
        list(&catalog, root, children);
        let pages: Vec<_> = catalog.child_pages(root).map(Result::unwrap).collect();
        assert!(pages.iter().all(|page| !page.is_empty()), "{count}");
        let all = catalog.children(root, None, usize::MAX).unwrap();
        assert_eq!((all.len(), pages.concat()), (count, all), "{count}");
    }
    scratch.check(catalog);
}

#[test]
fn children_come_change_and_go_with_listings_and_keep_their_ids() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    list(
        &catalog,
        root,
        vec![file("gone"), file("same"), file("grown"), folder("sub")],
    );
    let (gone, grown) = (id(&catalog, "/a/gone"), id(&catalog, "/a/grown"));
    let mut touched = folder("sub");
    touched.seen.modified_ns = 77;
    let changes = list(
        &catalog,
        root,
        vec![file("new"), file("same"), file("grown").size(99).version("v2"), touched],
    );
    let new = id(&catalog, "/a/new");
    let expected = [
        Change::Removed {
            parent: root,
            name: b"gone".as_slice().into(),
            id: gone,
        },
        Change::Content { id: grown },
        Change::Attributes {
            id: id(&catalog, "/a/sub"),
        },
        Change::Added {
            parent: root,
            name: b"new".as_slice().into(),
            id: new,
        },
        Change::Directory { id: root },
    ];
    assert_eq!(changes, expected);
    assert_eq!(id(&catalog, "/a/grown"), grown);
    assert_eq!(catalog.entry(gone).unwrap(), None);
    assert_eq!(catalog.details(gone).unwrap(), None);
    scratch.check(catalog);
}

#[test]
fn an_open_file_whose_bytes_changed_gets_a_new_id() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    list(&catalog, root, vec![file("f").identity(1), file("touched")]);
    let (old, touched) = (id(&catalog, "/a/f"), id(&catalog, "/a/touched"));
    let mut other = file("touched");
    other.seen.mode = 0o600;
    let changes = catalog
        .apply_listing(
            root,
            listing(&catalog, vec![file("f").identity(1).version("v2"), other]),
            &|_| true,
        )
        .unwrap();
    let new = id(&catalog, "/a/f");
    assert_ne!(new, old);
    let replaced = Change::Replaced {
        parent: root,
        name: b"f".as_slice().into(),
        old,
        new,
    };
    assert_eq!(
        changes,
        [
            replaced,
            Change::Attributes { id: touched },
            Change::Directory { id: root }
        ]
    );
    assert_eq!(catalog.entry(old).unwrap(), None);
    assert_eq!(
        catalog
            .find_identity(catalog.sources().unwrap()[0].id, [1; 16])
            .unwrap()
            .unwrap()
            .id,
        new
    );
    scratch.check(catalog);
}

#[test]
fn a_file_that_becomes_a_directory_is_another_entry_and_back() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    list(&catalog, root, vec![file("x").identity(1)]);
    let first = id(&catalog, "/a/x");
    list(&catalog, root, vec![folder("x").identity(2)]);
    let second = id(&catalog, "/a/x");
    list(&catalog, second, vec![file("inner"), folder("deeper")]);
    list(&catalog, root, vec![file("x").identity(3)]);
    let third = id(&catalog, "/a/x");
    assert!(first != second && second != third && first != third);
    assert_eq!(catalog.totals().unwrap().sources[0].1.entries, 2);
    assert_eq!(catalog.lookup(third, b"inner").unwrap(), None);
    let catalog = scratch.checked(catalog);
    assert_eq!(
        catalog
            .reap_departed(catalog.sources().unwrap()[0].id, i64::MAX)
            .unwrap(),
        4
    );
    assert_eq!(scratch.check(catalog).departed, 0);
}

#[test]
fn a_name_listed_twice_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    list(&catalog, root, vec![file("kept")]);
    let twice = listing(&catalog, vec![file("x"), folder("x"), file("y")]);
    let refused = catalog.apply_listing(root, twice, &|_| false);
    assert!(matches!(
        refused,
        Err(Error::Refused {
            why: "it is listed twice",
            ..
        })
    ));
    for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(matches!(
            catalog.apply_listing(root, listing(&catalog, vec![file(bad)]), &|_| false),
            Err(Error::Refused { .. })
        ));
    }
    assert_eq!(names(&catalog, root), ["kept"]);
    scratch.check(catalog);
}

#[test]
fn a_failure_changes_nothing_but_the_state_of_the_directory() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    list(&catalog, root, vec![file("kept")]);
    catalog.note_failure(root, "no answer", 500).unwrap();
    let state = catalog.directory_state(root).unwrap().unwrap();
    assert_eq!(
        (state.listed_ns, state.failure.unwrap().message.as_str()),
        (Some(100), "no answer")
    );
    assert_eq!(names(&catalog, root), ["kept"]);
    list(&catalog, root, vec![file("kept")]);
    assert_eq!(catalog.directory_state(root).unwrap().unwrap().failure, None);
    scratch.check(catalog);
}

#[test]
fn what_is_no_directory_of_a_source_cannot_be_listed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/lib/a").root;
    list(&catalog, root, vec![file("f"), folder("d").identity(1)]);
    let (f, d) = (id(&catalog, "/lib/a/f"), id(&catalog, "/lib/a/d"));
    let apply = |directory| catalog.apply_listing(directory, listing(&catalog, vec![file("x")]), &|_| false);
    assert!(matches!(apply(f), Err(Error::NotADirectory(_))));
    assert!(matches!(apply(id(&catalog, "/lib")), Err(Error::Refused { .. })));
    assert!(matches!(apply(EntryId(99_999)), Err(Error::NoEntry(_))));
    list(&catalog, root, vec![]);
    assert!(matches!(apply(d), Err(Error::NoEntry(_))), "it has departed");
    assert!(matches!(catalog.note_failure(d, "x", 1), Err(Error::NoEntry(_))));
    scratch.check(catalog);
}

#[test]
fn one_entry_is_brought_up_to_date_alone() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/a");
    list(&catalog, source.root, vec![file("f"), folder("d")]);
    let f = id(&catalog, "/a/f");
    let mut now = seen(Kind::File);
    now.size = 11;
    assert_eq!(
        catalog
            .update_attributes(f, now.clone(), catalog.ticket(), &|_| false)
            .unwrap(),
        [Change::Content { id: f }]
    );
    assert_eq!(
        catalog.update_attributes(f, now, catalog.ticket(), &|_| false).unwrap(),
        []
    );
    let mut root = seen(Kind::Directory);
    root.mode = 0o700;
    let changes = catalog
        .update_attributes(source.root, root, catalog.ticket(), &|_| false)
        .unwrap();
    assert_eq!(changes, [Change::Attributes { id: source.root }]);
    assert_eq!(catalog.entry(source.root).unwrap().unwrap().mode, 0o700);
    let d = id(&catalog, "/a/d");
    catalog
        .update_attributes(d, seen(Kind::Symlink), catalog.ticket(), &|_| false)
        .unwrap();
    let link = catalog.resolve(b"/a/d").unwrap().unwrap();
    assert!(link.kind == Kind::Symlink && link.id != d);
    assert!(matches!(
        catalog.update_attributes(d, seen(Kind::File), catalog.ticket(), &|_| false),
        Err(Error::NoEntry(_))
    ));
    assert_eq!(catalog.totals().unwrap().sources[0].1.bytes, 11);
    assert_eq!(catalog.sources().unwrap()[0].id, SourceId(1));
    scratch.check(catalog);
}

#[test]
fn children_are_paged_by_name_in_byte_order() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/a").root;
    let mut children: Vec<_> = (0..2500).rev().map(|n| file(&format!("n{n:04}"))).collect();
    children.push(file("Ünï"));
    children.push(folder(&"x".repeat(255)));
    list(&catalog, root, children);
    let all = catalog.children(root, None, usize::MAX).unwrap();
    assert_eq!(all.len(), 2502);
    assert!(all.is_sorted_by(|a, b| a.name < b.name));
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|entry: &manifold_catalog::Entry| entry.name.clone());
        let page = catalog.children(root, after.as_deref(), 1000).unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(
        catalog.children(root, Some(b"n0041x"), 1).unwrap()[0].name[..],
        *b"n0042"
    );
    assert!(catalog.children(root, None, 0).unwrap().is_empty());
    assert_eq!(catalog.lookup(root, &[b'x'; 256]).unwrap(), None);
    assert_eq!(catalog.lookup(root, b"").unwrap(), None);
    assert_eq!(
        &*catalog.lookup_folded(root, "ÜNÏ".as_bytes()).unwrap().unwrap().name,
        "Ünï".as_bytes()
    );
    assert_eq!(catalog.lookup_folded(root, b"nothing").unwrap(), None);
    scratch.check(catalog);
}
