//! Where symbolic links point.

use manifold_catalog::{Catalog, Change, EntryId, Kind, LINK_TARGET_MAX, LinkTarget, NewChild};

use crate::support::{Scratch, With, add_source, file, folder, id, list};

fn link(name: &str) -> NewChild {
    let mut child = file(name).size(0);
    child.seen.kind = Kind::Symlink;
    child
}

fn read(id: EntryId, version: &str, target: &[u8]) -> LinkTarget {
    LinkTarget {
        id,
        version: version.as_bytes().into(),
        target: target.into(),
    }
}

fn target(catalog: &Catalog, id: EntryId) -> Option<Vec<u8>> {
    catalog.link_target(id).unwrap().map(Vec::from)
}

#[test]
fn where_a_link_points_is_known_of_the_version_that_was_read() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![link("a"), link("b"), file("f"), folder("d")]);
    let [a, b, f, d] = ["/s/a", "/s/b", "/s/f", "/s/d"].map(|path| id(&catalog, path));
    assert_eq!(target(&catalog, a), None);
    let told = [
        read(a, "v1", b"../to \xff"),
        read(b, "v0", b"older"),
        read(f, "v1", b"a file"),
        read(d, "v1", b"a directory"),
        read(EntryId(4711), "v1", b"nothing"),
    ];
    assert_eq!(catalog.set_link_targets(&told).unwrap(), []);
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"../to \xff"[..]));
    assert_eq!([b, f, d].map(|id| target(&catalog, id)), [None, None, None]);
    // It outlives the process, and listings that see the same.
    catalog.sync().unwrap();
    let catalog = scratch.checked(catalog);
    list(&catalog, root, vec![link("a"), link("b"), file("f"), folder("d")]);
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"../to \xff"[..]));
    // Of another version it says nothing.
    list(&catalog, root, vec![link("a").version("v2"), file("f"), folder("d")]);
    assert_eq!(target(&catalog, a), None);
    let changes = catalog.set_link_targets(&[read(a, "v2", b"new")]).unwrap();
    assert_eq!(changes, [], "the listing has told of it");
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"new"[..]));
    // The version may be too coarse to tell two apart.
    let changes = catalog.set_link_targets(&[read(a, "v2", b"now")]).unwrap();
    assert_eq!(changes, [Change::Content { id: a }]);
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"now"[..]));
    scratch.check(catalog);
}

#[test]
fn no_link_points_nowhere_or_to_what_is_no_path() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![link("a")]);
    let a = id(&catalog, "/s/a");
    let longest = vec![b'x'; LINK_TARGET_MAX];
    for bad in [&b"a\0b"[..], &[&longest[..], b"x"].concat()] {
        catalog.set_link_targets(&[read(a, "v1", bad)]).unwrap();
        assert_eq!(target(&catalog, a), None);
        assert_eq!(catalog.links_among(root, &[(*b"a").into()]).unwrap()[0].target, None);
    }
    // Its source would not tell, and need not be asked with each listing.
    catalog.set_link_targets(&[read(a, "v1", b"")]).unwrap();
    assert_eq!(target(&catalog, a), None);
    let known = catalog.links_among(root, &[(*b"a").into()]).unwrap();
    assert_eq!(known[0].target.as_deref(), Some(&b""[..]));
    catalog.set_link_targets(&[read(a, "v1", &longest)]).unwrap();
    assert_eq!(target(&catalog, a), Some(longest));
    scratch.check(catalog);
}

#[test]
fn the_links_among_names_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    let mut escaped = link("shown").version("v7");
    escaped.raw_name = Some(b"../raw".as_slice().into());
    list(&catalog, root, vec![escaped, link("b"), file("f"), folder("d")]);
    let names = ["shown", "f", "d", "gone", ""].map(|name| name.as_bytes().into());
    let known = catalog.links_among(root, &names).unwrap();
    let [one] = &known[..] else { panic!("{known:?}") };
    assert_eq!((one.id, one.modified_ns), (id(&catalog, "/s/shown"), 1));
    assert_eq!((&*one.raw_name, &*one.version), (&b"../raw"[..], &b"v7"[..]));
    assert_eq!(one.target, None);
}

#[test]
fn a_link_that_is_changed_or_moved_through_the_mount_points_where_it_did() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![link("a"), link("b"), folder("d")]);
    let [a, b, d] = ["/s/a", "/s/b", "/s/d"].map(|path| id(&catalog, path));
    catalog
        .set_link_targets(&[read(a, "v1", b"of a"), read(b, "v1", b"of b")])
        .unwrap();
    catalog.follow_attributes(a, link("a").version("v2").seen).unwrap();
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"of a"[..]));
    let moved = Some(link("a").version("v3").seen);
    catalog.follow_moved((root, b"a"), (d, b"c"), None, moved, 5).unwrap();
    assert_eq!(id(&catalog, "/s/d/c"), a);
    assert_eq!(target(&catalog, a).as_deref(), Some(&b"of a"[..]));
    // What takes its place is another link.
    catalog.follow_created(root, link("b").version("v2"), None).unwrap();
    assert_eq!(target(&catalog, id(&catalog, "/s/b")), None);
    catalog.follow_removed(d, b"c", 6).unwrap();
    assert_eq!(target(&catalog, a), None);
    scratch.check(catalog);
}
