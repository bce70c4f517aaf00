//! Directories that their sources were asked to rename: what was noted outlives a crash, and goes when the catalog has followed.

use manifold_catalog::{AskedRename, EntryId, Error, PartUpload, WhenStaged};

use crate::support::*;

#[test]
fn a_rename_that_is_noted_outlives_a_crash_and_goes_with_the_move_or_the_directory() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d"), folder("to"), file("f")]);
    let (d, to) = (id(&catalog, "/s/d"), id(&catalog, "/s/to"));
    let asked = AskedRename {
        id: d,
        to: (to, (*b"new").into()),
        raw_name: Some((*b"raw").into()),
    };
    catalog.begin_rename(&asked).unwrap();
    let crashed = scratch.as_after_a_crash();
    let after = crashed.open();
    assert_eq!(after.asked_renames().unwrap(), std::slice::from_ref(&asked));
    let after = crashed.checked(after);
    let (from, name) = ((source.root, &b"d"[..]), (to, &b"new"[..]));
    after.follow_moved(from, name, asked.raw_name.clone(), None, 7).unwrap();
    assert_eq!(after.asked_renames().unwrap(), []);
    assert_eq!(id(&after, "/s/to/new"), d);
    crashed.check(after);
    // Another takes its place, and what the source has not done is forgotten.
    let again = AskedRename {
        to: (source.root, (*b"other").into()),
        raw_name: None,
        ..asked.clone()
    };
    catalog.begin_rename(&again).unwrap();
    assert_eq!(catalog.asked_renames().unwrap(), [again]);
    catalog.end_rename(d).unwrap();
    assert_eq!(catalog.asked_renames().unwrap(), []);
    catalog.begin_rename(&asked).unwrap();
    list(&catalog, source.root, vec![folder("to"), file("f")]);
    assert_eq!(
        catalog.asked_renames().unwrap(),
        [],
        "a listing does not find it any more"
    );
    assert!(catalog.begin_rename(&asked).is_err());
    list(&catalog, source.root, vec![folder("d"), folder("to"), file("f")]);
    let asked = AskedRename {
        id: id(&catalog, "/s/d"),
        ..asked
    };
    catalog.begin_rename(&asked).unwrap();
    catalog.follow_removed(source.root, b"d", 8).unwrap();
    assert_eq!(catalog.asked_renames().unwrap(), []);
    scratch.check(catalog);
}

#[test]
fn what_is_no_directory_of_a_source_is_not_noted_and_rows_go_with_their_source() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d"), file("f")]);
    let (d, f) = (id(&catalog, "/s/d"), id(&catalog, "/s/f"));
    let ask = |id: EntryId, to: EntryId, name: Vec<u8>| {
        catalog.begin_rename(&AskedRename {
            id,
            to: (to, name.into()),
            raw_name: None,
        })
    };
    for (id, to, name) in [
        (f, source.root, b"new".to_vec()),
        (EntryId(1 << 40), source.root, b"new".to_vec()),
        (d, f, b"new".to_vec()),
        (d, EntryId::ROOT, b"new".to_vec()),
        (d, source.root, vec![b'n'; 9_000]),
    ] {
        let refused = ask(id, to, name).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Refused { .. } | Error::NotADirectory(_) | Error::NoEntry(_)
            ),
            "{refused:?}"
        );
    }
    ask(d, source.root, b"new".to_vec()).unwrap();
    catalog.remove_source(source.id, WhenStaged::Refuse).unwrap();
    assert_eq!(catalog.asked_renames().unwrap(), []);
    scratch.check(catalog);
}

#[test]
fn a_rename_is_followed_unless_something_waits_in_its_way() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d"), folder("e"), file("f")]);
    list(&catalog, id(&catalog, "/s/d"), vec![file("in d")]);
    list(&catalog, id(&catalog, "/s/e"), vec![file("in e")]);
    let ask = |path: &str, name: &str| {
        let asked = AskedRename {
            id: id(&catalog, path),
            to: (source.root, name.as_bytes().into()),
            raw_name: None,
        };
        catalog.begin_rename(&asked).unwrap();
        asked.id
    };
    let follow = |id| catalog.follow_asked_rename(id, 9).unwrap();
    assert!(!follow(id(&catalog, "/s/d")), "nothing was asked for");
    let waits = id(&catalog, "/s/e/in e");
    for (name, is_staged) in [("e", true), ("f", false)] {
        if is_staged {
            catalog.stage(waits, b"row", None, false).unwrap();
        }
        let asked = ask("/s/d", name);
        assert!(!follow(asked), "{name}");
        assert_eq!(id(&catalog, "/s/d"), asked);
        assert_eq!(catalog.asked_renames().unwrap(), []);
        if is_staged {
            catalog.unstage(waits, None, None).unwrap();
        }
    }
    let d = ask("/s/d", "e");
    let begun = PartUpload {
        source: source.id,
        entry: id(&catalog, "/s/d/in d"),
        size: 100,
        written_ns: 3,
        path: b"d/in d".to_vec(),
        name: b"name".to_vec(),
    };
    catalog.begin_part_upload(&begun).unwrap();
    assert!(follow(d));
    let uploads = catalog.part_uploads().unwrap();
    assert_eq!(uploads[0].1.path, b"e/in d", "what was sent of it lies there by now");
    assert_eq!(id(&catalog, "/s/e"), d);
    assert_eq!(names(&catalog, d), ["in d"]);
    assert_eq!(names(&catalog, source.root), ["e", "f"]);
    assert_eq!(catalog.asked_renames().unwrap(), []);
    scratch.check(catalog);
}
