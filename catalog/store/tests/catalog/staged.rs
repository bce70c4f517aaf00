//! The journal of what is staged: what it holds in the tree, and what becomes of it.

use manifold_catalog::{
    Catalog, Change, EntryId, Error, Keep, Kind, STAGED_BYTES_MAX, STAGED_ROW_MAX, SeenAttributes, SourceError,
    WhenStaged,
};

use crate::support::{Scratch, With, add_source, file, folder, id, list, names};

/// A catalog with `/s/d/e/f` and `/s/g`, of which `f` is staged.
fn sample(catalog: &Catalog) -> (EntryId, EntryId) {
    let root = add_source(catalog, "/s").root;
    list(catalog, root, vec![folder("d").identity(1), file("g").identity(2)]);
    list(catalog, id(catalog, "/s/d"), vec![folder("e"), file("h")]);
    let e = id(catalog, "/s/d/e");
    list(catalog, e, vec![file("f").identity(3), file("beside")]);
    let f = id(catalog, "/s/d/e/f");
    catalog.stage(f, b"row", None, false).unwrap();
    (root, f)
}

#[test]
fn a_row_is_put_with_attributes_changed_and_taken_away() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let seen = |size| Some(file("f").identity(3).size(size).seen);
    let changes = catalog.stage(f, b"second", seen(77), true).unwrap();
    assert_eq!(changes, [Change::Content { id: f }]);
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.staged_all().unwrap(), [(f, b"second".to_vec())]);
    assert_eq!(catalog.entry(f).unwrap().unwrap().size, 77);
    assert_eq!(catalog.staged(root).unwrap(), None);
    assert_eq!(catalog.staged_of(catalog.sources().unwrap()[0].id).unwrap(), 1);
    let changes = catalog.unstage(f, seen(78), None).unwrap();
    assert_eq!(changes, [Change::Content { id: f }]);
    assert_eq!(
        catalog.unstage(f, None, None).unwrap(),
        [],
        "there is none to take away"
    );
    assert_eq!(catalog.staged(f).unwrap(), None);
    assert_eq!(scratch.check(catalog).staged, 0);
}

/// Whoever puts the row has read them before, and somebody may have changed them since.
#[test]
fn a_row_leaves_mode_and_owner_as_they_are() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (_, f) = sample(&catalog);
    let read = file("f").identity(3).size(77).seen;
    let changed = SeenAttributes {
        mode: 0o755,
        owner: Some((5, 6)),
        ..file("f").identity(3).seen
    };
    catalog.follow_attributes(f, changed).unwrap();
    catalog.stage(f, b"second", Some(read), true).unwrap();
    let entry = catalog.entry(f).unwrap().unwrap();
    assert_eq!((entry.mode, entry.owner, entry.size), (0o755, Some((5, 6)), 77));
}

#[test]
fn rows_that_nobody_could_read_again_are_refused() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let mut link = file("f").seen;
    link.kind = Kind::Symlink;
    let too_long = vec![0; STAGED_ROW_MAX + 1];
    for refused in [
        catalog.stage(f, b"", None, false),
        catalog.stage(f, &too_long, None, true),
        catalog.stage(f, b"x", Some(link), true),
        catalog.stage(root, b"x", None, true),
        catalog.stage(EntryId::ROOT, b"x", None, false),
    ] {
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    for durable in [true, false] {
        let gone = catalog.stage(EntryId(4711), b"x", None, durable);
        assert!(matches!(gone, Err(Error::NoEntry(_))), "{gone:?}");
    }
    assert_eq!(catalog.staged_all().unwrap(), [(f, b"row".to_vec())]);
    catalog.stage(f, &too_long[1..], None, true).unwrap();
    assert_eq!(scratch.check(catalog).staged, 1);
}

#[test]
fn a_listing_neither_removes_nor_changes_what_is_staged_nor_what_leads_to_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let [d, e, g] = ["/s/d", "/s/d/e", "/s/g"].map(|path| id(&catalog, path));
    let before = (catalog.entry(f).unwrap(), catalog.details(f).unwrap());
    list(&catalog, e, vec![file("f").identity(9).version("v9").size(9)]);
    list(&catalog, e, vec![folder("f").identity(9)]);
    assert_eq!(names(&catalog, e), ["f"]);
    list(&catalog, e, vec![]);
    list(&catalog, d, vec![file("e")]);
    assert_eq!(names(&catalog, d), ["e"], "what leads to nothing staged goes");
    list(&catalog, root, vec![folder("new").identity(3).adopt(f)]);
    list(&catalog, root, vec![file("moved").identity(3).adopt(f)]);
    assert_eq!(names(&catalog, root), ["d", "moved"]);
    assert_eq!(catalog.entry(g).unwrap(), None);
    assert_eq!((catalog.entry(f).unwrap(), catalog.details(f).unwrap()), before);
    assert_eq!(id(&catalog, "/s/d/e/f"), f);
    for (at, leads) in [(root, true), (d, true), (e, true), (f, false)] {
        assert_eq!(catalog.leads_to_staged(at).unwrap(), leads, "{at}");
    }
    let mut link = file("f").seen;
    link.kind = Kind::Symlink;
    for seen in [link, file("f").version("v9").seen] {
        assert_eq!(
            catalog.update_attributes(f, seen, catalog.ticket(), &|_| true).unwrap(),
            []
        );
    }
    let other = file("e").seen;
    assert_eq!(
        catalog
            .update_attributes(e, other, catalog.ticket(), &|_| true)
            .unwrap(),
        []
    );
    let catalog = scratch.checked(catalog);
    catalog.unstage(f, None, None).unwrap();
    list(&catalog, root, vec![]);
    assert_eq!(names(&catalog, root), [""; 0]);
    scratch.check(catalog);
}

#[test]
fn a_directory_that_moved_at_its_source_takes_what_is_staged_in_it_along() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let d = id(&catalog, "/s/d");
    list(&catalog, root, vec![folder("elsewhere").identity(1).adopt(d)]);
    assert_eq!(id(&catalog, "/s/elsewhere/e/f"), f);
    assert_eq!(catalog.staged(f).unwrap().as_deref(), Some(&b"row"[..]));
    scratch.check(catalog);
}

#[test]
fn own_removals_and_replacements_take_the_row_along_and_nothing_above_it_goes() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let [d, e, g] = ["/s/d", "/s/d/e", "/s/g"].map(|path| id(&catalog, path));
    let refused = [
        catalog.follow_removed(root, b"d", 1),
        catalog.follow_removed(d, b"e", 1),
        catalog.follow_moved((root, b"g"), (root, b"d"), None, None, 1),
        catalog.follow_created(d, file("e"), None).map(|(_, changes)| changes),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::Waiting(_))), "{refused:?}");
    }
    catalog.follow_moved((e, b"f"), (root, b"f"), None, None, 1).unwrap();
    assert_eq!(
        catalog.staged(f).unwrap().as_deref(),
        Some(&b"row"[..]),
        "it goes along"
    );
    catalog.stage(g, b"other", None, false).unwrap();
    catalog.follow_moved((root, b"g"), (root, b"f"), None, None, 1).unwrap();
    assert_eq!(catalog.staged_all().unwrap(), [(g, b"other".to_vec())]);
    catalog.follow_removed(root, b"f", 1).unwrap();
    assert_eq!(catalog.staged_all().unwrap(), []);
    catalog.follow_removed(root, b"d", 1).unwrap();
    scratch.check(catalog);
}

#[test]
fn a_source_with_something_staged_stays_unless_that_is_to_be_dropped() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let source = catalog.sources().unwrap()[0].id;
    let other = add_source(&catalog, "/other");
    list(&catalog, other.root, vec![file("x")]);
    let x = id(&catalog, "/other/x");
    catalog.stage(x, b"x", None, true).unwrap();
    let refused = catalog.remove_source(source, WhenStaged::Refuse).unwrap_err();
    assert!(
        matches!(refused, Error::SourceWaiting { source_id, entries: 1 } if source_id == source),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("upload them first"), "{refused}");
    let new = manifold_catalog::NewSource {
        name: "over".into(),
        attach: b"/s/d/e".to_vec(),
        spec: String::new(),
        options: String::new(),
    };
    let hides = catalog.add_source(new).unwrap_err();
    assert!(matches!(hides, SourceError::Catalog(Error::Waiting(_))), "{hides:?}");
    assert_eq!(id(&catalog, "/s/d/e/f"), f);
    catalog.remove_source(source, WhenStaged::Drop).unwrap();
    assert_eq!(catalog.entry(root).unwrap(), None);
    assert_eq!(catalog.staged_all().unwrap(), [(x, b"x".to_vec())]);
    scratch.check(catalog);
}

#[test]
fn a_load_leaves_what_is_staged_alone() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let (f, _) = catalog
        .follow_created(source.root, file("f").identity(1), None)
        .unwrap();
    catalog.stage(f, b"row", None, false).unwrap();
    let ticket = catalog.ticket();
    let mut loader = catalog.bulk_load(source.id).unwrap();
    let told = vec![file("f").identity(2).size(99), file("g")];
    loader.add(source.root, ticket, told).unwrap();
    loader.complete(source.root, ticket, 2).unwrap();
    loader.finish().unwrap();
    assert_eq!(names(&catalog, source.root), ["f", "g"]);
    assert_eq!(catalog.entry(f).unwrap().unwrap().size, 10);
    assert_eq!(
        catalog.directory_state(source.root).unwrap().unwrap().listed_ns,
        Some(2)
    );
    scratch.check(catalog);
}

#[test]
fn bytes_come_and_go_with_their_row() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (_, f) = sample(&catalog);
    let before = catalog.durable_commits();
    catalog.stage_with(f, b"row", b"bytes", None).unwrap();
    assert_eq!(catalog.durable_commits() - before, 1);
    assert_eq!(catalog.staged_bytes(f).unwrap().as_deref(), Some(&b"bytes"[..]));
    catalog.stage_with(f, b"row", b"others", None).unwrap();
    assert_eq!(catalog.staged_bytes(f).unwrap().as_deref(), Some(&b"others"[..]));
    catalog.stage(f, b"row of a file", None, true).unwrap();
    assert_eq!(catalog.staged_bytes(f).unwrap(), None);
    catalog.stage_with(f, b"row", &vec![1; STAGED_BYTES_MAX], None).unwrap();
    let too_many = catalog.stage_with(f, b"row", &vec![1; STAGED_BYTES_MAX + 1], None);
    assert!(matches!(too_many, Err(Error::Refused { .. })), "{too_many:?}");
    catalog.unstage(f, None, None).unwrap();
    assert_eq!(catalog.staged_bytes(f).unwrap(), None);
    catalog.stage_with(f, b"row", b"bytes", None).unwrap();
    let catalog = scratch.checked(catalog);
    catalog.follow_removed(id(&catalog, "/s/d/e"), b"f", 1).unwrap();
    assert_eq!(catalog.staged_bytes(f).unwrap(), None);
    scratch.check(catalog);
}

#[test]
fn a_file_that_stands_here_alone_is_made_in_one_transaction() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, _) = sample(&catalog);
    let keep = Keep {
        mode: Some(0o640),
        ..Keep::default()
    };
    let mut child = file("new").size(0);
    child.seen.modified_ns = 4711;
    let (new, changes) = catalog.create_staged(root, child, &keep, true, b"draft").unwrap();
    assert_eq!(id(&catalog, "/s/new"), new);
    assert!(changes.contains(&Change::Directory { id: root }), "{changes:?}");
    assert_eq!(catalog.staged(new).unwrap().as_deref(), Some(&b"draft"[..]));
    let (entry, above) = (
        catalog.entry(new).unwrap().unwrap(),
        catalog.entry(root).unwrap().unwrap(),
    );
    assert_eq!((entry.mode, above.modified_ns, above.keeps_time), (0o640, 4711, true));
    let refused = catalog.create_staged(root, file("none"), &Keep::default(), false, b"");
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(catalog.resolve(b"/s/none").unwrap().is_none(), "half of it was made");
    scratch.check(catalog);
}
