//! Sources: where they are attached, what they hide, and what is left when they go.

use manifold_catalog::{Catalog, EntryId, Error, Kind, NewSource, SourceError, SourceId, WhenStaged};

use crate::support::{Scratch, With, add_source, file, folder, id, list, names};

fn try_add(catalog: &Catalog, name: &str, attach: &str) -> Result<EntryId, SourceError> {
    let new = NewSource {
        name: name.into(),
        attach: attach.into(),
        spec: String::new(),
        options: String::new(),
    };
    catalog.add_source(new).map(|record| record.root)
}

#[test]
fn a_source_is_found_again_after_reopening() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let mut source = add_source(&catalog, "/a/b/");
    assert_eq!(source.attach, b"/a/b");
    source = catalog
        .update_source(source.id, "spec".into(), "options".into())
        .unwrap();
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.sources().unwrap(), [source.clone()]);
    let root = catalog.resolve(b"//a/b/").unwrap().unwrap();
    assert_eq!(
        (root.id, root.source, root.attach_point),
        (source.root, source.id, true)
    );
    let above = catalog.resolve(b"/a").unwrap().unwrap();
    assert_eq!(
        (above.source, above.attach_point, above.kind),
        (SourceId::LIBRARY, false, Kind::Directory)
    );
    assert_eq!(
        catalog.directory_state(above.id).unwrap().unwrap().listed_ns,
        Some(i64::MAX)
    );
    assert!(matches!(
        catalog.update_source(SourceId(9), String::new(), String::new()),
        Err(Error::NoSource(_))
    ));
}

#[test]
fn what_is_wrong_with_a_new_source_is_told_and_nothing_is_changed() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    try_add(&catalog, "one", "/a/b").unwrap();
    assert!(matches!(
        try_add(&catalog, "one", "/c"),
        Err(SourceError::SameName { .. })
    ));
    assert!(matches!(try_add(&catalog, "two", "/a/b/"), Err(SourceError::AttachPointTaken { by, .. }) if by == "one"));
    for bad in ["", "a", "/a//b", "/a/../b", "/.", "/a\0"] {
        assert!(
            matches!(try_add(&catalog, "two", bad), Err(SourceError::BadAttachPoint { .. })),
            "{bad}"
        );
    }
    assert_eq!(catalog.sources().unwrap().len(), 1);
    assert_eq!(catalog.totals().unwrap().all.entries, 3);
    scratch.check(catalog);
}

#[test]
fn ids_of_sources_are_not_given_twice() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let first = add_source(&catalog, "/a");
    catalog.remove_source(first.id, WhenStaged::Refuse).unwrap();
    let second = add_source(&catalog, "/a");
    assert!(second.id > first.id && second.root > first.root);
    scratch.check(catalog);
}

#[test]
fn an_attach_point_hides_what_the_outer_source_has_under_its_name() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let outer = add_source(&catalog, "/media");
    list(&catalog, outer.root, vec![folder("photos").identity(1), file("notes")]);
    let hidden = id(&catalog, "/media/photos");
    list(&catalog, hidden, vec![file("hidden.jpg")]);
    let inner = add_source(&catalog, "/media/photos");
    assert_ne!(inner.root, hidden);
    list(&catalog, inner.root, vec![file("shown.jpg")]);
    for children in [vec![folder("photos").identity(1)], vec![file("photos")], vec![]] {
        list(&catalog, outer.root, children);
        assert_eq!(id(&catalog, "/media/photos"), inner.root);
        assert_eq!(names(&catalog, inner.root), ["shown.jpg"]);
    }
    assert_eq!(names(&catalog, outer.root), ["photos"]);
    let catalog = scratch.checked(catalog);
    catalog.remove_source(inner.id, WhenStaged::Refuse).unwrap();
    assert_eq!(catalog.resolve(b"/media/photos").unwrap(), None);
    assert_eq!(catalog.scan_queue_next(outer.id, 9).unwrap(), [outer.root]);
    assert_eq!(catalog.directory_state(outer.root).unwrap().unwrap().listed_ns, Some(0));
    scratch.check(catalog);
}

#[test]
fn a_directory_that_leads_to_an_attach_point_stays_when_its_source_loses_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let outer = add_source(&catalog, "/a");
    list(&catalog, outer.root, vec![folder("x").identity(1)]);
    let x = id(&catalog, "/a/x");
    list(&catalog, x, vec![file("own"), folder("y")]);
    let inner = add_source(&catalog, "/a/x/y/inner");
    list(&catalog, inner.root, vec![file("f")]);
    for children in [vec![], vec![file("x")], vec![folder("z").identity(1).adopt(x)]] {
        list(&catalog, outer.root, children);
        assert_eq!(id(&catalog, "/a/x"), x);
        assert_eq!(catalog.entry(x).unwrap().unwrap().source, SourceId::LIBRARY);
        assert_eq!(id(&catalog, "/a/x/y/inner"), inner.root);
        assert_eq!(names(&catalog, x), ["y"]);
        assert_eq!(names(&catalog, inner.root), ["f"]);
    }
    // And when the source has it again, it is the source's again.
    let catalog = scratch.checked(catalog);
    list(&catalog, outer.root, vec![folder("x").identity(5)]);
    assert_eq!(
        (id(&catalog, "/a/x"), catalog.entry(x).unwrap().unwrap().source),
        (x, outer.id)
    );
    assert_eq!(catalog.directory_state(x).unwrap().unwrap().listed_ns, None);
    list(&catalog, x, vec![file("own"), folder("y")]);
    assert_eq!(names(&catalog, x), ["own", "y"]);
    assert_eq!(id(&catalog, "/a/x/y/inner"), inner.root);
    scratch.check(catalog);
}

#[test]
fn sources_nest_in_any_order_of_adding_and_removing() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let inner = add_source(&catalog, "/m/p/q");
    let outer = add_source(&catalog, "/m");
    let middle = add_source(&catalog, "/m/p");
    let all = add_source(&catalog, "/");
    list(&catalog, all.root, vec![folder("m"), file("top")]);
    list(&catalog, outer.root, vec![folder("p"), file("m")]);
    list(&catalog, middle.root, vec![file("p")]);
    list(&catalog, inner.root, vec![file("q").identity(7)]);
    assert_eq!(all.root, EntryId::ROOT);
    assert_eq!(
        catalog.object_path(id(&catalog, "/m/p/q/q")).unwrap().unwrap(),
        (inner.id, b"q".to_vec())
    );
    let catalog = scratch.checked(catalog);
    for (source, left) in [(outer.id, "/top"), (middle.id, "/m/p/q/q"), (all.id, "/m/p/q/q")] {
        catalog.remove_source(source, WhenStaged::Refuse).unwrap();
        assert!(catalog.resolve(left.as_bytes()).unwrap().is_some(), "{left}");
    }
    assert_eq!(names(&catalog, EntryId::ROOT), ["m"]);
    assert_eq!(names(&catalog, id(&catalog, "/m")), ["p"]);
    catalog.remove_source(inner.id, WhenStaged::Refuse).unwrap();
    assert!(names(&catalog, EntryId::ROOT).is_empty());
    assert_eq!(catalog.totals().unwrap().all.entries, 1);
    assert!(matches!(
        catalog.remove_source(inner.id, WhenStaged::Refuse),
        Err(Error::NoSource(_))
    ));
    let report = scratch.check(catalog);
    assert_eq!((report.entries, report.departed, report.sources), (1, 0, 0));
}
