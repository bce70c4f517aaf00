//! Attributes that are kept over what a source says: what takes them along, and what ends them.

use manifold_catalog::{
    AttributeMustBe, AttributeRefused, Catalog, Change, EntryId, Error, KEPT_ATTRIBUTES_MAX, Keep, SourceId, WhenStaged,
};

use crate::support::{Scratch, With, add_source, file, folder, id, list};

const NOW_NS: i64 = 1_000;

/// A catalog with `/s/d` and `/s/f`, of which everything is kept that can be.
fn sample(catalog: &Catalog) -> (EntryId, EntryId) {
    let root = add_source(catalog, "/s").root;
    list(catalog, root, vec![folder("d"), file("f").size(5)]);
    let f = id(catalog, "/s/f");
    let keep = Keep {
        mode: Some(0o755),
        owner: Some((7, 8)),
        modified_ns: Some(500),
        accessed_ns: Some(600),
        changed_ns: Some(NOW_NS),
    };
    assert_eq!(catalog.keep(f, &keep, None).unwrap(), [Change::Attributes { id: f }]);
    set(catalog, f, "user.a", b"value").unwrap();
    (root, f)
}

fn set(catalog: &Catalog, id: EntryId, name: &str, value: &[u8]) -> Result<(), AttributeRefused> {
    let must_be = AttributeMustBe::Anything;
    let done = catalog.keep_attribute(id, name.as_bytes(), value, must_be, NOW_NS);
    done.unwrap().map(drop)
}

/// Permission bits, owner, time of the last change, of the last read, and the value of `user.a`.
type Shown = (u16, Option<(u32, u32)>, i64, Option<i64>, Option<Vec<u8>>);

fn shown(catalog: &Catalog, id: EntryId) -> Shown {
    let entry = catalog.entry(id).unwrap().unwrap();
    let value = catalog.kept_attribute(id, b"user.a").unwrap();
    (
        entry.mode,
        entry.owner,
        entry.modified_ns,
        catalog.kept_accessed(id).unwrap(),
        value.map(Into::into),
    )
}

fn all() -> Shown {
    (0o755, Some((7, 8)), 500, Some(600), Some(b"value".to_vec()))
}

/// What stays of it where the bytes are another's.
fn but_times() -> Shown {
    (0o755, Some((7, 8)), 1, None, Some(b"value".to_vec()))
}

#[test]
fn listings_of_the_same_version_change_nothing_of_what_is_kept() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    assert_eq!(shown(&catalog, f), all());
    let changes = list(&catalog, root, vec![folder("d"), file("f").size(5)]);
    assert_eq!(changes, [], "nobody is told of anything");
    let mut seen = file("f").size(5).seen;
    (seen.mode, seen.owner, seen.modified_ns, seen.changed_ns) = (0o600, None, 77, 78);
    let mut other = file("f");
    other.seen = seen.clone();
    assert_eq!(list(&catalog, root, vec![folder("d"), other]), []);
    let looked = catalog.update_attributes(f, seen, catalog.ticket(), &|_| true);
    assert_eq!(looked.unwrap(), []);
    let catalog = scratch.checked(catalog);
    assert_eq!(shown(&catalog, f), all());
    assert_eq!(catalog.entry(f).unwrap().unwrap().changed_ns, NOW_NS);
}

#[test]
fn another_version_ends_kept_times_and_nothing_else() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    list(&catalog, root, vec![folder("d"), file("f").size(5).version("v2")]);
    assert_eq!(shown(&catalog, f), but_times());
    let entry = catalog.entry(f).unwrap().unwrap();
    assert!(
        !entry.keeps_time && entry.keeps_more && entry.changed_ns == 2,
        "{entry:?}"
    );
    scratch.check(catalog);
}

#[test]
fn a_file_that_is_replaced_while_it_is_open_hands_on_what_is_kept() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let listing = crate::support::listing(&catalog, vec![folder("d"), file("f").size(5).version("v2")]);
    catalog.apply_listing(root, listing, &|_| true).unwrap();
    let new = id(&catalog, "/s/f");
    assert_ne!(new, f);
    assert_eq!(shown(&catalog, new), but_times());
    assert_eq!(catalog.kept_attributes(f).unwrap(), []);
    scratch.check(catalog);
}

#[test]
fn a_rename_by_the_mount_or_at_the_source_takes_it_all_along() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let d = id(&catalog, "/s/d");
    // A copy at the source, which is another version.
    let seen = file("g").version("copied").size(5).identity(3).seen;
    catalog
        .follow_moved((root, b"f"), (d, b"g"), None, Some(seen), NOW_NS)
        .unwrap();
    assert_eq!(id(&catalog, "/s/d/g"), f);
    assert_eq!(shown(&catalog, f), all());
    let moved = file("h").version("copied").size(5).identity(3).adopt(f);
    list(&catalog, root, vec![folder("d"), moved]);
    assert_eq!(id(&catalog, "/s/h"), f);
    assert_eq!(shown(&catalog, f), all());
    scratch.check(catalog);
}

#[test]
fn what_had_departed_comes_back_with_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    list(&catalog, root, vec![folder("d"), file("f").size(5).identity(3)]);
    list(&catalog, root, vec![folder("d")]);
    assert_eq!(catalog.entry(f).unwrap(), None);
    list(
        &catalog,
        root,
        vec![folder("d"), file("again").size(5).identity(3).adopt(f)],
    );
    assert_eq!(shown(&catalog, f), all());
    list(&catalog, root, vec![folder("d")]);
    catalog.reap_departed(SourceId(1), i64::MAX).unwrap();
    assert_eq!(catalog.kept_attributes(f).unwrap(), []);
    scratch.check(catalog);
}

#[test]
fn it_goes_with_the_entry_and_a_new_one_of_the_same_name_has_none_of_it() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    catalog.follow_removed(root, b"f", NOW_NS).unwrap();
    let (new, _) = catalog.follow_created(root, file("f").size(5), None).unwrap();
    assert_ne!(new, f);
    assert_eq!(shown(&catalog, new), (0o640, Some((1000, 100)), 1, None, None));
    assert_eq!(catalog.kept_attributes(f).unwrap(), []);
    set(&catalog, new, "user.b", b"").unwrap();
    // So is what another file is renamed over.
    catalog.follow_created(root, file("other").identity(9), None).unwrap();
    catalog
        .follow_moved((root, b"other"), (root, b"f"), None, None, NOW_NS)
        .unwrap();
    assert_eq!(catalog.kept_attributes(id(&catalog, "/s/f")).unwrap(), []);
    let catalog = scratch.checked(catalog);
    set(&catalog, id(&catalog, "/s/f"), "user.b", b"").unwrap();
    catalog.remove_source(SourceId(1), WhenStaged::Refuse).unwrap();
    scratch.check(catalog);
}

#[test]
fn an_upload_is_as_old_as_what_was_written_and_keeps_the_rest() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let mut written = file("f").version("staged").size(9).seen;
    (written.modified_ns, written.changed_ns) = (2_000, 2_000);
    catalog.stage(f, b"row", Some(written), true).unwrap();
    assert_eq!(
        catalog.entry(f).unwrap().unwrap().modified_ns,
        2_000,
        "as it was written"
    );
    let arrived = |modified_ns| {
        let mut seen = file("f").version("v2").size(9).seen;
        (seen.modified_ns, seen.changed_ns) = (modified_ns, modified_ns);
        seen
    };
    catalog.unstage(f, Some(arrived(9_000)), Some(2_000)).unwrap();
    let mut listed = file("f");
    listed.seen = arrived(9_000);
    assert_eq!(list(&catalog, root, vec![folder("d"), listed]), []);
    let entry = catalog.entry(f).unwrap().unwrap();
    assert_eq!((entry.modified_ns, entry.changed_ns, entry.mode), (2_000, 2_000, 0o755));
    assert!(entry.keeps_time);
    assert_eq!(
        catalog.kept_attribute(f, b"user.a").unwrap().as_deref(),
        Some(&b"value"[..])
    );
    // What the source tells as it was written needs no keeping.
    catalog.stage(f, b"row", Some(arrived(3_000)), true).unwrap();
    catalog.unstage(f, Some(arrived(3_000)), Some(3_000)).unwrap();
    assert!(!catalog.entry(f).unwrap().unwrap().keeps_time);
    scratch.check(catalog);
}

#[test]
fn a_directory_is_as_old_as_it_was_said_to_be_until_names_in_it_change() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, _) = sample(&catalog);
    let d = id(&catalog, "/s/d");
    let keep = Keep {
        modified_ns: Some(500),
        ..Keep::default()
    };
    let modified = || catalog.entry(d).unwrap().unwrap().modified_ns;
    list(&catalog, d, vec![file("x")]);
    catalog.keep(d, &keep, None).unwrap();
    list(&catalog, root, vec![folder("d").version("v2"), file("f").size(5)]);
    list(&catalog, d, vec![file("x").version("v2")]);
    assert_eq!(modified(), 500, "no name has changed");
    let mut new = file("y");
    new.seen.changed_ns = NOW_NS;
    let (_, changes) = catalog.follow_created(d, new, None).unwrap();
    assert!(changes.contains(&Change::Attributes { id: d }), "{changes:?}");
    assert_eq!(modified(), NOW_NS);
    catalog.follow_removed(d, b"y", NOW_NS + 1).unwrap();
    assert_eq!(modified(), NOW_NS + 1);
    catalog
        .follow_moved((d, b"x"), (root, b"x"), None, None, NOW_NS + 2)
        .unwrap();
    assert_eq!(modified(), NOW_NS + 2);
    let modified_ns = Some(50);
    catalog.keep(d, &Keep { modified_ns, ..keep }, None).unwrap();
    list(&catalog, d, vec![file("theirs")]);
    assert_eq!(modified(), 100, "when that was listed");
    assert!(
        !catalog.entry(d).unwrap().unwrap().keeps_time,
        "from now on the source tells"
    );
    // The root of a source is a directory too, and stands in no listing.
    catalog
        .keep(
            root,
            &Keep {
                mode: Some(0o700),
                ..keep
            },
            None,
        )
        .unwrap();
    catalog
        .update_attributes(root, folder("").seen, catalog.ticket(), &|_| true)
        .unwrap();
    let entry = catalog.entry(root).unwrap().unwrap();
    assert_eq!((entry.mode, entry.modified_ns), (0o700, 500));
    scratch.check(catalog);
}

#[test]
fn extended_attributes_are_set_as_they_are_asked_for_and_have_a_limit() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (root, f) = sample(&catalog);
    let must = |must_be, name: &[u8]| {
        let done = catalog.keep_attribute(f, name, b"x", must_be, NOW_NS);
        done.unwrap().map(drop)
    };
    assert_eq!(must(AttributeMustBe::Absent, b"user.a"), Err(AttributeRefused::Exists));
    assert_eq!(
        must(AttributeMustBe::Present, b"user.b"),
        Err(AttributeRefused::Missing)
    );
    assert_eq!(must(AttributeMustBe::Absent, b"user.b"), Ok(()));
    assert_eq!(must(AttributeMustBe::Present, b"user.b"), Ok(()));
    for bad in [&b""[..], b"a\0b", &[b'n'; 256]] {
        assert_eq!(must(AttributeMustBe::Anything, bad), Err(AttributeRefused::BadName));
    }
    let left = KEPT_ATTRIBUTES_MAX - ("user.a".len() + 5 + 1) - ("user.b".len() + 1 + 1) - ("user.c".len() + 1);
    assert_eq!(
        set(&catalog, f, "user.c", &vec![1; left + 1]),
        Err(AttributeRefused::NoRoom)
    );
    assert_eq!(set(&catalog, f, "user.c", &vec![1; left]), Ok(()));
    let catalog = scratch.checked(catalog);
    assert_eq!(
        catalog.kept_attributes(f).unwrap(),
        [&b"user.a"[..], b"user.b", b"user.c"].map(Into::into)
    );
    let dropped = |name: &[u8]| catalog.drop_attribute(f, name, NOW_NS).unwrap().map(drop);
    assert_eq!(dropped(b"user.c"), Ok(()));
    assert_eq!(dropped(b"user.c"), Err(AttributeRefused::Missing));
    for nobody in [EntryId(4711), EntryId::ROOT] {
        let refused = catalog.keep_attribute(nobody, b"user.a", b"", AttributeMustBe::Anything, NOW_NS);
        assert!(
            matches!(refused, Err(Error::NoEntry(_) | Error::Refused { .. })),
            "{refused:?}"
        );
    }
    set(&catalog, root, "user.root", b"x").unwrap();
    scratch.check(catalog);
}

#[test]
fn what_is_kept_is_durable_when_it_is_synced_with_one_commit_for_many() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (_, f) = sample(&catalog);
    let before = catalog.durable_commits();
    for number in 0..20 {
        set(&catalog, f, &format!("user.{number}"), b"x").unwrap();
    }
    assert_eq!(catalog.durable_commits(), before);
    catalog.sync().unwrap();
    assert_eq!(catalog.durable_commits(), before + 1);
    let after = scratch.as_after_a_crash().open();
    assert_eq!(after.kept_attributes(f).unwrap().len(), 21);
    assert_eq!(shown(&after, f), all());
}
