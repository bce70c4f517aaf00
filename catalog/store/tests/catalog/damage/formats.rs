//! Kept files of every format so far: each is opened, brought up to date, and holds what was written to it.

use super::*;

/// Opens a kept file, and finds in it what every one of them holds.
fn open_kept(scratch: &Scratch, format: u64) -> Catalog {
    let kept = format!("{}/tests/fixtures/format-{format}.redb", env!("CARGO_MANIFEST_DIR"));
    fs::copy(&kept, scratch.file()).unwrap();
    let report = Catalog::check(&scratch.file()).unwrap();
    assert_eq!((report.format, report.entries, report.directories), (format, 10, 6));
    assert!(
        fs::read(scratch.file()).unwrap() == fs::read(&kept).unwrap(),
        "checking changed the file"
    );
    assert_eq!((report.departed, report.sources, report.bytes), (1, 2, 1234));
    let catalog = scratch.open();
    let sources = catalog.sources().unwrap();
    assert_eq!(
        (&sources[0].name[..], &sources[0].attach[..]),
        ("test:///outer", &b"/outer"[..])
    );
    assert_eq!((&sources[1].spec[..], &sources[1].options[..]), ("spec", "options"));
    assert_eq!(
        names(&catalog, sources[0].root),
        ["escaped", "file", "link", "sub", "way"]
    );
    let entry = catalog.resolve(b"/outer/file").unwrap().unwrap();
    assert_eq!(
        (entry.size, entry.mode, entry.owner, entry.links),
        (1234, 0o640, Some((1000, 100)), 1)
    );
    assert_eq!((entry.modified_ns, entry.changed_ns), (1, 2));
    let details = catalog.details(id(&catalog, "/outer/escaped")).unwrap().unwrap();
    assert_eq!(
        (&*details.raw_name, details.created_ns, details.device),
        (&b"../bad"[..], Some(-5), 77)
    );
    assert_eq!(
        (&*details.version, details.identity),
        (&b"version 9"[..], Some([9; 16]))
    );
    let found = catalog.find_identity(sources[0].id, [8; 16]).unwrap().unwrap();
    assert!(found.departed);
    let state = catalog.directory_state(id(&catalog, "/outer/sub")).unwrap().unwrap();
    assert_eq!(state.failure.unwrap().message, "no answer");
    let scan = catalog.scan_state(sources[0].id).unwrap().unwrap();
    assert_eq!(
        (scan.generation, scan.started_ns, scan.queued, scan.listed, scan.failed),
        (1, 41, 0, 1, 1)
    );
    catalog
}

/// And it can be worked with.
fn work_with(scratch: &Scratch, catalog: Catalog) {
    let root = id(&catalog, "/outer");
    let hashed = hashed(id(&catalog, "/outer/file"), 1234, 3);
    assert_eq!(catalog.set_contents(&[hashed]).unwrap(), 1);
    assert_eq!(catalog.pin(&[pin(root, None)]).unwrap(), 1);
    list(&catalog, root, vec![file("file").size(1)]);
    let report = scratch.check(catalog);
    assert_eq!(report.format, 10);
}

#[test]
fn a_catalog_of_format_1_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 1);
    assert_eq!(catalog.hashed().unwrap(), 0);
    assert_eq!(catalog.pins(None, 9).unwrap(), []);
    let catalog = scratch.checked(catalog);
    work_with(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_2_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 2);
    finds_pins_and_contents(&catalog);
    assert_eq!(catalog.staged_all().unwrap(), []);
    let catalog = scratch.checked(catalog);
    work_with(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_3_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 3);
    finds_what_is_staged(&catalog);
    let escaped = id(&catalog, "/outer/escaped");
    let file = id(&catalog, "/outer/file");
    assert_eq!(catalog.kept_attributes(file).unwrap(), []);
    assert_eq!(catalog.moves().unwrap(), []);
    let catalog = scratch.checked(catalog);
    work_with(&scratch, catalog);
    let catalog = scratch.open();
    assert_eq!(id(&catalog, "/outer/escaped"), escaped, "a listing took it away");
}

#[test]
fn a_catalog_of_format_4_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 4);
    let link = id(&catalog, "/outer/link");
    assert_eq!(catalog.link_target(link).unwrap(), None);
    let escaped = id(&catalog, "/outer/escaped");
    assert_eq!(catalog.staged_bytes(escaped).unwrap(), None);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_5_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 5);
    let link = id(&catalog, "/outer/link");
    assert_eq!(catalog.link_target(link).unwrap().as_deref(), Some(&b"../to/it"[..]));
    let escaped = id(&catalog, "/outer/escaped");
    assert_eq!(catalog.staged_bytes(escaped).unwrap(), None);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_6_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 6);
    finds_bytes_beside_a_row(&catalog);
    assert_eq!(catalog.all_origins().unwrap(), []);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_7_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 7);
    finds_bytes_beside_a_row(&catalog);
    finds_what_was_left(&catalog);
    assert_eq!(catalog.part_uploads().unwrap(), []);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_8_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 8);
    finds_bytes_beside_a_row(&catalog);
    finds_what_was_left(&catalog);
    finds_uploads_in_parts(&catalog);
    assert_eq!(catalog.crossings().unwrap(), []);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_9_is_brought_up_to_date() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 9);
    assert_eq!(catalog.asked_renames().unwrap(), []);
    finds_bytes_beside_a_row(&catalog);
    finds_what_was_left(&catalog);
    finds_uploads_in_parts(&catalog);
    assert_eq!(catalog.crossings().unwrap(), [crossing(&catalog)]);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

#[test]
fn a_catalog_of_format_10_opens_as_it_was_written() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 10);
    assert_eq!(catalog.asked_renames().unwrap(), [asked_rename(&catalog)]);
    finds_bytes_beside_a_row(&catalog);
    finds_what_was_left(&catalog);
    finds_uploads_in_parts(&catalog);
    assert_eq!(catalog.crossings().unwrap(), [crossing(&catalog)]);
    finds_what_is_kept_and_moved(&scratch, catalog);
}

/// A directory is renamed.
fn asked_rename(catalog: &Catalog) -> AskedRename {
    AskedRename {
        id: id(catalog, "/outer/sub"),
        to: (id(catalog, "/outer"), (*b"renamed").into()),
        raw_name: Some((*b"re:named").into()),
    }
}

/// A copy of a file that is staged is given its name in a folder of another source.
fn crossing(catalog: &Catalog) -> Crossing {
    Crossing {
        id: id(catalog, "/outer/escaped"),
        from: (id(catalog, "/outer"), (*b"escaped").into()),
        to: (id(catalog, "/outer/way/inner"), (*b"crossed").into()),
        raw_name: Some((*b"../bad").into()),
        size: 7,
        modified_ns: -8,
        mark: Mark::Identity([9; 16]),
        same_bytes: true,
        left: Some(Left {
            version: (*b"version 9").into(),
            shows_through: false,
        }),
        at_ns: 45,
    }
}

/// What the kept files hold from the eighth format on.
fn finds_uploads_in_parts(catalog: &Catalog) {
    let [(upload, begun)] = &catalog.part_uploads().unwrap()[..] else {
        panic!("{:?}", catalog.part_uploads())
    };
    assert_eq!(*begun, part_upload(id(catalog, "/outer/escaped")));
    assert_eq!(catalog.sent_parts(*upload).unwrap(), [sent_part()]);
}

fn part_upload(entry: EntryId) -> PartUpload {
    PartUpload {
        source: SourceId(1),
        entry,
        size: 1 << 24,
        written_ns: -9,
        path: b"sub/escaped".to_vec(),
        name: b"upload".to_vec(),
    }
}

fn sent_part() -> SentPart {
    SentPart {
        number: 2,
        length: 1 << 23,
        sum: [6; 16],
        tag: b"\"tag\"".to_vec(),
    }
}

/// What the kept files hold from the seventh format on.
fn finds_what_was_left(catalog: &Catalog) {
    let [origins] = &catalog.all_origins().unwrap()[..] else {
        panic!("{:?}", catalog.all_origins())
    };
    let [place] = &origins.places[..] else {
        panic!("{origins:?}")
    };
    assert_eq!(
        (origins.id, origins.is_due, origins.is_settled, origins.shows_through),
        (id(catalog, "/outer/way/inner/empty"), true, false, true)
    );
    assert_eq!((place.source, place.directory), (SourceId(1), id(catalog, "/outer")));
    assert_eq!((&place.name[..], &place.version[..]), (&b"left"[..], &b"v1"[..]));
    assert_eq!(place.path.as_deref(), Some(&b"left"[..]));
}

/// What the kept files hold from the sixth format on.
fn finds_bytes_beside_a_row(catalog: &Catalog) {
    let bytes = catalog.staged_bytes(id(catalog, "/outer/escaped")).unwrap();
    assert_eq!(bytes.as_deref(), Some(&b"bytes of it"[..]));
}

/// What the kept files hold from the fourth format on.
fn finds_what_is_kept_and_moved(scratch: &Scratch, catalog: Catalog) {
    finds_what_is_staged(&catalog);
    let escaped = id(&catalog, "/outer/escaped");
    let (link, sub) = (id(&catalog, "/outer/link"), id(&catalog, "/outer/sub"));
    let entry = catalog.entry(sub).unwrap().unwrap();
    assert_eq!(
        (entry.mode, entry.owner, entry.modified_ns, entry.changed_ns),
        (0o2750, Some((3, 4)), 5, 7)
    );
    assert_eq!(catalog.kept_accessed(sub).unwrap(), Some(-6));
    assert_eq!(catalog.kept_attributes(sub).unwrap(), []);
    let value = catalog.kept_attribute(link, b"user.kept").unwrap();
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
    let moves = catalog.moves().unwrap();
    assert_eq!((moves.len(), moves[0].id, moves[0].source), (1, sub, SourceId(1)));
    assert_eq!(moves[0].places, [b"was".to_vec(), b"was once".to_vec()]);
    let (_, lies_at) = catalog.object_path(sub).unwrap().unwrap();
    assert_eq!(lies_at, b"was");
    work_with(scratch, catalog);
    let catalog = scratch.open();
    assert_eq!(id(&catalog, "/outer/escaped"), escaped, "a listing took it away");
    assert_eq!(id(&catalog, "/outer/sub"), sub, "a listing took it away");
}

/// What the kept files hold from the third format on.
fn finds_what_is_staged(catalog: &Catalog) {
    finds_pins_and_contents(catalog);
    let escaped = id(catalog, "/outer/escaped");
    assert_eq!(catalog.staged_all().unwrap(), [(escaped, b"\x01staged".to_vec())]);
}

/// What the kept files hold from the second format on.
fn finds_pins_and_contents(catalog: &Catalog) {
    let (file, sub) = (id(catalog, "/outer/file"), id(catalog, "/outer/sub"));
    assert_eq!(catalog.hashed().unwrap(), 2);
    assert_eq!(catalog.details(file).unwrap().unwrap().content, Some([7; 32]));
    let found = catalog.find_identity(SourceId(1), [8; 16]).unwrap().unwrap();
    assert_eq!(catalog.replicas(found.id, 9).unwrap(), [file]);
    assert_eq!(catalog.replicas(file, 9).unwrap(), [], "the other one has departed");
    let policies = catalog.pin_policies().unwrap();
    let (policy, bytes) = &policies[1];
    assert_eq!((policies.len(), *policy, &bytes[..]), (2, PolicyId(2), &b"*.jpg"[..]));
    let pinned = Pin {
        recursive: false,
        ..pin(file, Some(*policy))
    };
    assert_eq!(catalog.pins(None, 9).unwrap(), [pinned, pin(sub, None)]);
}

#[test]
fn an_upgrade_indexes_the_contents_that_are_known() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        (0..50).map(|n| file(&format!("{n:02}"))).collect(),
    );
    let children = catalog.children(source.root, None, 99).unwrap();
    let known: Vec<_> = children
        .iter()
        .map(|child| hashed(child.id, 10, child.name[1]))
        .collect();
    catalog.set_contents(&known).unwrap();
    drop(catalog);
    // A file of format 1 has none of the new tables.
    let database = redb::Database::open(scratch.file()).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    for table in [
        "contents",
        "pins",
        "pin_policies",
        "staged",
        "staged_bytes",
        "kept",
        "links",
        "origins",
        "left",
        "part_uploads",
        "sent_parts",
        "crossings",
        "renames",
    ] {
        let handle = transaction
            .list_tables()
            .unwrap()
            .find(|one| one.name() == table)
            .unwrap();
        transaction.delete_table(handle).unwrap();
    }
    let mut meta = transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
        .unwrap();
    meta.remove("next_policy").unwrap();
    meta.insert("format", 1).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(Catalog::check(&scratch.file()).unwrap().format, 1);
    let catalog = scratch.open();
    assert_eq!(catalog.hashed().unwrap(), 50);
    assert_eq!(catalog.replicas(known[0].id, 99).unwrap().len(), 4);
    assert_eq!(scratch.check(catalog).format, 10);
}

/// Writes the fixture anew, when a format is made: run it alone, with the path in this variable.
#[test]
fn the_fixture_is_written_where_it_is_asked_for() {
    let Ok(target) = std::env::var("MANIFOLD_WRITE_FIXTURE") else {
        return;
    };
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let outer = add_source(&catalog, "/outer");
    let inner = add_source(&catalog, "/outer/way/inner");
    catalog
        .update_source(inner.id, "spec".into(), "options".into())
        .unwrap();
    catalog.scan_begin(outer.id, 41).unwrap();
    let mut escaped = file("escaped").version("version 9").identity(9).size(0);
    escaped.raw_name = Some(b"../bad".as_slice().into());
    escaped.seen.created_ns = Some(-5);
    escaped.seen.device = 77;
    escaped.seen.owner = None;
    let mut link = file("link").size(0);
    link.seen.kind = manifold_catalog::Kind::Symlink;
    let left = file("left").size(0);
    let children = vec![escaped, link, file("file").size(1234), folder("was"), left.clone()];
    let mut before = children.clone();
    before.push(file("departed").identity(8).size(1234));
    list(&catalog, outer.root, before);
    let (file_id, departed) = (id(&catalog, "/outer/file"), id(&catalog, "/outer/departed"));
    let known = [hashed(file_id, 1234, 7), hashed(departed, 1234, 7)];
    assert_eq!(catalog.set_contents(&known).unwrap(), 2);
    catalog
        .apply_listing(outer.root, listing(&catalog, children), &|_| false)
        .unwrap();
    let root = outer.root;
    for (from, to) in [(&b"was"[..], &b"was once"[..]), (b"was once", b"sub")] {
        catalog.follow_moved_ahead((root, from), (root, to), None, 43).unwrap();
    }
    catalog
        .note_failure(id(&catalog, "/outer/sub"), "no answer", 42)
        .unwrap();
    list(&catalog, inner.root, vec![folder("queued")]);
    // A move to another source that is done, but for what it left.
    let moved = Across {
        from: (outer.root, b"left"),
        to: (inner.root, b"empty"),
        raw_name: None,
        seen: left.seen.clone(),
        same_bytes: true,
        keeps: true,
        keep: Keep::default(),
        attributes: Vec::new(),
        left: Some(Left {
            version: (*b"v1").into(),
            shows_through: true,
        }),
        staged: Some(b"\x01staged".to_vec()),
        staged_bytes: None,
        at_ns: 44,
    };
    catalog.follow_across(&moved).unwrap();
    let empty = id(&catalog, "/outer/way/inner/empty");
    catalog.unstage(empty, Some(left.seen), None).unwrap();
    let sub = id(&catalog, "/outer/sub");
    catalog.add_pin_policy(b"*.png").unwrap();
    let policy = catalog.add_pin_policy(b"*.jpg").unwrap();
    catalog
        .pin(&[
            pin(sub, None),
            Pin {
                recursive: false,
                ..pin(file_id, Some(policy))
            },
        ])
        .unwrap();
    let escaped = id(&catalog, "/outer/escaped");
    let keep = Keep {
        mode: Some(0o2750),
        owner: Some((3, 4)),
        modified_ns: Some(5),
        accessed_ns: Some(-6),
        changed_ns: Some(7),
    };
    catalog.keep(sub, &keep, None).unwrap();
    let link = id(&catalog, "/outer/link");
    let set = catalog.keep_attribute(link, b"user.kept", b"value", AttributeMustBe::Absent, 8);
    set.unwrap().unwrap();
    catalog
        .stage_with(escaped, b"\x01staged", b"bytes of it", None)
        .unwrap();
    let read = LinkTarget {
        id: link,
        version: b"v1".as_slice().into(),
        target: b"../to/it".as_slice().into(),
    };
    catalog.set_link_targets(&[read]).unwrap();
    let upload = catalog.begin_part_upload(&part_upload(escaped)).unwrap();
    catalog.note_sent_part(upload, &sent_part()).unwrap();
    catalog.begin_crossing(&crossing(&catalog)).unwrap();
    catalog.begin_rename(&asked_rename(&catalog)).unwrap();
    scratch.check(catalog);
    fs::copy(scratch.file(), target).unwrap();
}
