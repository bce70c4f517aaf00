//! Directories renamed ahead of what they hold: where things lie, what listings may change, and when it is over.

use std::collections::HashMap;

use manifold_catalog::{Catalog, Change, Copied, EntryId, Error, Kind, WhenStaged};

use crate::support::*;

/// A source `/s` with `a/{f,g,sub/h}` and `x`.
struct World {
    scratch: Scratch,
    catalog: Catalog,
    root: EntryId,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let catalog = scratch.open();
        let root = add_source(&catalog, "/s").root;
        list(&catalog, root, vec![folder("a"), folder("x")]);
        list(
            &catalog,
            id(&catalog, "/s/a"),
            vec![file("f").identity(1), file("g"), folder("sub")],
        );
        list(&catalog, id(&catalog, "/s/a/sub"), vec![file("h")]);
        list(&catalog, id(&catalog, "/s/x"), vec![]);
        Self { scratch, catalog, root }
    }

    fn rename(&self, from: (EntryId, &str), to: (EntryId, &str)) -> Result<(), Error> {
        let (from, to) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        self.catalog.follow_moved_ahead(from, to, None, 50).map(drop)
    }

    fn a_to_b(&self) -> EntryId {
        let a = id(&self.catalog, "/s/a");
        self.rename((self.root, "a"), (self.root, "b")).unwrap();
        assert_eq!(id(&self.catalog, "/s/b"), a, "it keeps its id");
        a
    }

    fn lies_at(&self, path: &str) -> String {
        let (_, lies_at) = self.catalog.object_path(id(&self.catalog, path)).unwrap().unwrap();
        String::from_utf8(lies_at).unwrap()
    }

    fn stands_at(&self, path: &str) -> String {
        let stands_at = self.catalog.standing_path(id(&self.catalog, path)).unwrap().unwrap();
        String::from_utf8(stands_at).unwrap()
    }

    /// Notes that a file was copied to where it stands, and tells whether that was taken in.
    fn copied(&self, path: &str, left: bool) -> bool {
        let copied = Copied {
            id: id(&self.catalog, path),
            lies_at: self.stands_at(path).into_bytes(),
            left: left.then(|| (self.lies_at(path).into_bytes(), b"v1".to_vec())),
            seen: None,
        };
        self.catalog.note_copied(&copied).unwrap()
    }
}

/// Gives where a directory, and those in it, stand.
fn settled(catalog: &Catalog, top: EntryId) -> HashMap<EntryId, Vec<u8>> {
    let mut settled = HashMap::from([(top, catalog.standing_path(top).unwrap().unwrap())]);
    for child in catalog.children(top, None, usize::MAX).unwrap() {
        if child.kind == Kind::Directory {
            settled.extend(self::settled(catalog, child.id));
        }
    }
    settled
}

/// Ends a move after all its directories were seen to.
fn finish(catalog: &Catalog, top: EntryId) -> bool {
    catalog.finish_move(top, &settled(catalog, top)).unwrap()
}

#[test]
fn what_a_renamed_directory_holds_lies_where_it_lay_until_it_is_brought() {
    let world = World::new();
    let b = world.a_to_b();
    assert_eq!((&*world.lies_at("/s/b"), &*world.stands_at("/s/b")), ("a", "b"));
    assert_eq!(world.lies_at("/s/b/sub/h"), "a/sub/h");
    assert_eq!(
        world.catalog.move_above(id(&world.catalog, "/s/b/sub/h")).unwrap(),
        Some(b)
    );
    assert_eq!(world.catalog.move_above(id(&world.catalog, "/s/x")).unwrap(), None);
    assert!(!finish(&world.catalog, b), "nothing is there yet");
    assert!(world.copied("/s/b/f", true) && world.copied("/s/b/g", false));
    assert_eq!(
        (&*world.lies_at("/s/b/f"), &*world.lies_at("/s/b/sub/h")),
        ("b/f", "a/sub/h")
    );
    let f = id(&world.catalog, "/s/b/f");
    let moved = world.catalog.moved(f).unwrap().unwrap();
    assert_eq!(moved.left, Some((b"a/f".to_vec(), b"v1".to_vec())));
    world.catalog.sync().unwrap();
    let World { scratch, catalog, root } = world;
    let world = World {
        catalog: scratch.checked(catalog),
        scratch,
        root,
    };
    assert!(world.copied("/s/b/sub/h", false));
    assert!(!finish(&world.catalog, b), "something is left of a file");
    world.catalog.note_left_removed(f).unwrap();
    let changes = world.catalog.subscribe();
    assert!(finish(&world.catalog, b));
    let told: Vec<_> = std::iter::from_fn(|| changes.try_recv()).collect();
    assert!(told.contains(&Change::Directory { id: b }), "{told:?}");
    drop(changes);
    assert_eq!(world.catalog.moves().unwrap(), []);
    assert_eq!(world.catalog.moved(f).unwrap(), None);
    assert_eq!(
        (&*world.lies_at("/s/b"), &*world.lies_at("/s/b/sub/h")),
        ("b", "b/sub/h")
    );
    world.scratch.check(world.catalog);
}

#[test]
fn renames_on_the_way_are_followed_from_wherever_things_lie() {
    let world = World::new();
    let a = world.a_to_b();
    assert!(world.copied("/s/b/f", false));
    world.rename((world.root, "b"), (world.root, "c")).unwrap();
    assert_eq!((&*world.lies_at("/s/c/f"), &*world.lies_at("/s/c/g")), ("b/f", "a/g"));
    let places = &world.catalog.moves().unwrap()[0].places;
    assert_eq!(places, &[b"a".to_vec(), b"b".to_vec()]);
    // A directory within goes elsewhere, where nothing is on the move.
    let x = id(&world.catalog, "/s/x");
    world.rename((a, "sub"), (x, "sub")).unwrap();
    assert_eq!(
        (&*world.lies_at("/s/x/sub/h"), &*world.stands_at("/s/x/sub/h")),
        ("a/sub/h", "x/sub/h")
    );
    let sub = id(&world.catalog, "/s/x/sub");
    for path in ["/s/c/f", "/s/c/g", "/s/x/sub/h"] {
        assert!(world.copied(path, false), "{path}");
    }
    assert!(finish(&world.catalog, a) && finish(&world.catalog, sub));
    assert_eq!(world.catalog.moves().unwrap(), []);
    world.scratch.check(world.catalog);
}

#[test]
fn a_move_does_not_end_before_each_directory_was_seen_to_where_it_stands() {
    let world = World::new();
    let b = world.a_to_b();
    for path in ["/s/b/f", "/s/b/g", "/s/b/sub/h"] {
        assert!(world.copied(path, false), "{path}");
    }
    let early = settled(&world.catalog, b);
    world.catalog.follow_created(b, folder("made"), None).unwrap();
    assert!(!world.catalog.finish_move(b, &early).unwrap(), "one was made since");
    let early = settled(&world.catalog, b);
    world.rename((b, "made"), (b, "renamed")).unwrap();
    assert!(!world.catalog.finish_move(b, &early).unwrap(), "it was renamed since");
    assert!(finish(&world.catalog, b));
    assert_eq!(world.catalog.moves().unwrap(), []);
    world.scratch.check(world.catalog);
}

#[test]
fn a_move_within_a_move_ends_with_the_one_above() {
    let world = World::new();
    let a = id(&world.catalog, "/s/a");
    world.rename((a, "sub"), (a, "sub2")).unwrap();
    let sub = id(&world.catalog, "/s/a/sub2");
    world.a_to_b();
    assert_eq!(world.catalog.move_above(sub).unwrap(), Some(a));
    assert_eq!(world.lies_at("/s/b/sub2/h"), "a/sub/h");
    let moves = world.catalog.moves().unwrap();
    let within = moves.iter().find(|one| one.id == sub).unwrap();
    assert_eq!(
        within.places,
        [b"a/sub".to_vec(), b"a/sub2".to_vec()],
        "it may lie where it stood before"
    );
    for path in ["/s/b/f", "/s/b/g", "/s/b/sub2/h"] {
        assert!(world.copied(path, false), "{path}");
    }
    assert!(!finish(&world.catalog, sub), "what is above it is on the move");
    assert!(finish(&world.catalog, a));
    assert_eq!(world.catalog.moves().unwrap(), []);
    assert_eq!(world.lies_at("/s/b/sub2/h"), "b/sub2/h");
    world.scratch.check(world.catalog);
}

#[test]
fn a_move_within_a_move_knows_where_it_has_stood_with_the_one_above() {
    let world = World::new();
    let a = world.a_to_b();
    let sub = id(&world.catalog, "/s/b/sub");
    world.rename((world.root, "b"), (world.root, "c")).unwrap();
    let places = || -> Vec<String> {
        let moves = world.catalog.moves().unwrap();
        let within = moves.into_iter().find(|one| one.id == sub).unwrap();
        let places = within.places.into_iter();
        places.map(|place| String::from_utf8(place).unwrap()).collect()
    };
    world.rename((a, "sub"), (a, "t")).unwrap();
    assert_eq!(places(), ["a/sub", "b/sub", "c/sub"]);
    world.rename((world.root, "c"), (world.root, "d")).unwrap();
    world.rename((a, "t"), (a, "u")).unwrap();
    assert_eq!(places(), ["a/sub", "b/sub", "c/sub", "c/t", "d/t"]);
    world.scratch.check(world.catalog);
}

#[test]
fn no_listing_takes_a_name_away_or_brings_the_old_one_back() {
    let world = World::new();
    let (catalog, root) = (&world.catalog, world.root);
    let b = world.a_to_b();
    let early = listing(catalog, vec![folder("a"), folder("x")]);
    list(catalog, root, vec![folder("a"), folder("x")]);
    assert_eq!(names(catalog, root), ["b", "x"]);
    list(catalog, root, vec![folder("a"), folder("b"), folder("x"), file("a2")]);
    assert_eq!(names(catalog, root), ["a2", "b", "x"]);
    list(catalog, root, vec![]);
    assert_eq!(names(catalog, root), ["b"], "nothing of it needs to be there yet");
    // What it holds is changed by nobody but who moves it.
    list(catalog, b, vec![file("foreign")]);
    assert_eq!(names(catalog, b), ["f", "g", "sub"]);
    let found = catalog
        .find_identity(catalog.sources().unwrap()[0].id, [1; 16])
        .unwrap()
        .unwrap();
    list(catalog, root, vec![file("copy").identity(1).adopt(found.id)]);
    assert_eq!(names(catalog, b), ["f", "g", "sub"], "it does not go elsewhere either");
    assert!(world.copied("/s/b/f", true));
    // All of `sub` may have been brought already.
    let mut of_move = listing(catalog, vec![file("f").version("v2"), file("known")]);
    of_move.ticket = catalog.ticket().by_path(b"a").of_move();
    catalog.apply_listing(b, of_move, &|_| false).unwrap();
    assert_eq!(names(catalog, b), ["f", "known", "sub"], "g is gone, known has come");
    let f = catalog.details(id(catalog, "/s/b/f")).unwrap().unwrap();
    assert_eq!(
        &*f.version, b"v1",
        "what is left in the old place is not the file any more"
    );
    catalog.note_left_removed(id(catalog, "/s/b/f")).unwrap();
    for path in ["/s/b/known", "/s/b/sub/h"] {
        assert!(world.copied(path, false), "{path}");
    }
    assert!(finish(catalog, b));
    let late = catalog.apply_listing(root, early, &|_| false);
    assert!(matches!(late, Err(Error::Overtaken(_))), "{late:?}");
    list(catalog, root, vec![folder("a"), folder("b")]);
    assert_eq!(names(catalog, root), ["a", "b"], "what is there now is somebody else's");
    world.scratch.check(world.catalog);
}

#[test]
fn what_is_removed_or_written_on_the_way_is_not_brought() {
    let world = World::new();
    let (catalog, b) = (&world.catalog, world.a_to_b());
    assert!(world.copied("/s/b/f", true));
    let f = id(catalog, "/s/b/f");
    catalog.follow_removed(b, b"f", 60).unwrap();
    assert_eq!(catalog.moved(f).unwrap(), None);
    let g = id(catalog, "/s/b/g");
    catalog.stage(g, b"row", None, false).unwrap();
    let copied = Copied {
        id: g,
        lies_at: b"b/g".to_vec(),
        left: None,
        seen: Some(file("g").version("v2").seen),
    };
    assert!(!catalog.note_copied(&copied).unwrap(), "whoever writes relies on v1");
    let elsewhere = Copied {
        id: f,
        ..copied.clone()
    };
    assert!(!catalog.note_copied(&elsewhere).unwrap(), "it is gone");
    catalog.unstage(g, None, None).unwrap();
    assert!(catalog.note_copied(&copied).unwrap());
    catalog.examine().unwrap();
    // A file that leaves lies where it stands then.
    catalog
        .follow_moved((b, b"g"), (world.root, b"g"), None, None, 70)
        .unwrap();
    assert_eq!(world.lies_at("/s/g"), "g");
    catalog.examine().unwrap();
    let source = catalog.sources().unwrap()[0].id;
    let refused = catalog.remove_source(source, WhenStaged::Refuse);
    assert!(
        matches!(refused, Err(Error::SourceWaiting { entries: 1, .. })),
        "{refused:?}"
    );
    catalog.remove_source(source, WhenStaged::Drop).unwrap();
    assert_eq!(catalog.moves().unwrap(), []);
    world.scratch.check(world.catalog);
}
