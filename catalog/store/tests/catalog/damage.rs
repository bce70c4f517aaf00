//! Files that are not what they should be: refused in words, and never written to.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_catalog::{
    AttributeMustBe, Catalog, CheckReport, Keep, LinkTarget, OpenError, Options, Pin, PolicyId, SourceId,
};
use redb::TableHandle;

use crate::support::{Scratch, With, add_source, file, folder, hashed, id, list, listing, names, pin};

/// A small catalog with something in every table, as the bytes of its file.
fn sample(scratch: &Scratch) -> Vec<u8> {
    let catalog = scratch.open();
    let source = add_source(&catalog, "/a");
    add_source(&catalog, "/a/x/inner");
    catalog.scan_begin(source.id, 1).unwrap();
    let mut children: Vec<_> = (0..300)
        .map(|n| file(&format!("file {n}")).identity(1).size(n))
        .collect();
    children.push(folder("dir").identity(2));
    list(&catalog, source.root, children.clone());
    list(&catalog, id(&catalog, "/a/dir"), vec![folder("never"), file("f")]);
    children.truncate(200);
    list(&catalog, source.root, children);
    let hashed: Vec<_> = (0..100)
        .map(|n| hashed(id(&catalog, &format!("/a/file {n}")), n, (n % 7) as u8))
        .collect();
    assert_eq!(catalog.set_contents(&hashed).unwrap(), 100);
    let policy = catalog.add_pin_policy(b"policy").unwrap();
    let pins: Vec<_> = hashed.iter().map(|one| pin(one.id, Some(policy))).collect();
    assert_eq!(catalog.pin(&pins).unwrap(), 100);
    for one in &hashed[..20] {
        catalog.stage_with(one.id, &[7; 300], &[9; 900], None).unwrap();
        let set = catalog.keep_attribute(one.id, b"user.a", &[8; 300], AttributeMustBe::Absent, 9);
        set.unwrap().unwrap();
    }
    scratch.check(catalog);
    fs::read(scratch.file()).unwrap()
}

/// Opens bytes as a catalog: either it refuses and leaves them alone, or everything in it agrees.
fn examine(scratch: &Scratch, bytes: &[u8], what: &str) -> bool {
    fs::write(scratch.file(), bytes).unwrap();
    match Catalog::open(&scratch.file(), Options::default()) {
        Ok(catalog) => {
            drop(catalog);
            let report = Catalog::check(&scratch.file());
            assert!(report.is_ok(), "{what}: it opened, but {report:?}");
            true
        }
        Err(OpenError::Damaged { why, .. }) => {
            assert!(!why.is_empty());
            assert!(
                fs::read(scratch.file()).unwrap() == bytes,
                "{what}: it was refused, but its bytes changed"
            );
            false
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
}

#[test]
fn flipped_bits_are_found_or_do_no_harm() {
    let scratch = Scratch::new();
    let bytes = sample(&scratch);
    // Every bit of the header, and one bit of every seventh of the other pages that hold anything.
    let mut places: Vec<_> = (0..400).map(|at| (at, (at % 8) as u8)).collect();
    let used = |at: &usize| bytes[at - at % 64..].iter().take(64).any(|byte| *byte != 0);
    places.extend(
        (400..bytes.len())
            .step_by(1021)
            .filter(used)
            .map(|at| (at, (at % 8) as u8)),
    );
    let mut refused = 0;
    for (at, bit) in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        refused += usize::from(!examine(&scratch, &damaged, &format!("bit {bit} of byte {at}")));
    }
    assert!(refused > 20, "only {refused} were found");
}

#[test]
fn cut_files_are_found_or_do_no_harm() {
    let scratch = Scratch::new();
    let bytes = sample(&scratch);
    let step = bytes.len() / 40 + 1;
    for len in (1..64).chain((64..bytes.len()).step_by(step)).chain([bytes.len() - 1]) {
        assert!(
            !examine(&scratch, &bytes[..len], &format!("cut to {len}")),
            "a catalog cut to {len} was opened"
        );
    }
    assert!(examine(&scratch, &bytes, "whole"));
}

/// redb asserts that its files are its own, and a program's panic hook would print that before the error that tells it in words.
#[test]
fn what_the_storage_asserts_is_known_to_be_a_finding() {
    let (found, strange) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let usual = std::panic::take_hook();
    std::panic::set_hook({
        let (found, strange) = (Arc::clone(&found), Arc::clone(&strange));
        Box::new(move |panic| {
            if manifold_catalog::examines_file() {
                found.fetch_add(1, Ordering::Relaxed);
            } else {
                strange.fetch_add(1, Ordering::Relaxed);
                usual(panic);
            }
        })
    });
    let scratch = Scratch::new();
    let bytes = sample(&scratch);
    for at in (0..bytes.len()).step_by(509) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        examine(&scratch, &damaged, &format!("byte {at}"));
        if found.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    assert!(!manifold_catalog::examines_file());
    assert_eq!(strange.load(Ordering::Relaxed), 0);
    assert!(found.load(Ordering::Relaxed) > 0, "it shows nothing");
}

#[test]
fn whole_pages_of_rubbish_are_found_or_do_no_harm() {
    let scratch = Scratch::new();
    let bytes = sample(&scratch);
    for page in 0..bytes.len() / 4096 {
        for rubbish in [0x00, 0xff, 0x2a] {
            let mut damaged = bytes.clone();
            damaged[page * 4096..(page + 1) * 4096].fill(rubbish);
            if damaged != bytes {
                examine(&scratch, &damaged, &format!("page {page} filled with {rubbish}"));
            }
        }
    }
}

#[test]
fn other_files_are_left_alone() {
    let scratch = Scratch::new();
    let long = vec![b'x'; 100_000];
    for other in [&b""[..], b"hello", b"SQLite format 3\0", &long, &vec![0; 1 << 20]] {
        assert!(!examine(&scratch, other, "another file"));
    }
    fs::remove_file(scratch.file()).unwrap();
    fs::create_dir(scratch.file()).unwrap();
    assert!(matches!(
        Catalog::open(&scratch.file(), Options::default()),
        Err(OpenError::Io { .. })
    ));
    let missing = scratch.file().join("no/such/folder/catalog.redb");
    assert!(matches!(
        Catalog::open(&missing, Options::default()),
        Err(OpenError::Io { .. })
    ));
    assert!(matches!(Catalog::check(&missing), Err(OpenError::Io { .. })));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    drop(scratch.open());
    set_format(&scratch, 7);
    let before = fs::read(scratch.file()).unwrap();
    for result in [
        Catalog::open(&scratch.file(), Options::default()).map(drop),
        Catalog::check(&scratch.file()).map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, OpenError::NewerVersion { found: 7, known: 6, .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("newer version"));
    }
    assert!(fs::read(scratch.file()).unwrap() == before);
    set_format(&scratch, 0);
    assert!(matches!(
        Catalog::open(&scratch.file(), Options::default()),
        Err(OpenError::Damaged { .. })
    ));
}

#[test]
fn rows_of_moves_that_belong_to_nothing_on_the_move_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    list(&catalog, root, vec![folder("d"), file("f")]);
    list(&catalog, id(&catalog, "/s/d"), vec![file("g")]);
    let [root, d, f, g] = ["/s", "/s/d", "/s/f", "/s/d/g"].map(|path| id(&catalog, path).0);
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    let (place, file_place) = (&b"\x01\x01\0\0\0x"[..], &b"\0\x01\0\0\0x"[..]);
    for (rows, what) in [
        (vec![("moves", d, place)], ""),
        (vec![("moves", d, place), ("moved", g, file_place)], ""),
        (vec![("moves", d, &b"\0"[..])], "malformed"),
        (vec![("moves", f, place)], "is on the move"),
        (vec![("moves", root, place)], "is on the move"),
        (vec![("moves", 4711, place)], "is on the move"),
        (
            vec![("moves", d, place), ("moved", f, file_place)],
            "no directory above it",
        ),
        (vec![("moves", d, place), ("moved", d, file_place)], "is on the move"),
        (vec![("moves", d, place), ("moved", g, place)], "malformed"),
    ] {
        check_with(&scratch, &whole, &rows, what);
    }
}

#[test]
fn rows_of_links_that_are_none_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/s").root;
    let mut link = file("link").size(0);
    link.seen.kind = manifold_catalog::Kind::Symlink;
    list(&catalog, root, vec![link, file("f")]);
    let [link, f] = ["/s/link", "/s/f"].map(|path| id(&catalog, path).0);
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    for (id, row, what) in [
        (link, &b"\x02\0v1to"[..], ""),
        (link, b"\x02\0v0to", ""),
        (link, b"\x02\0v", "malformed"),
        (f, b"\x02\0v1to", "is no link"),
        (4711, b"\x02\0v1to", "is no link"),
    ] {
        check_with(&scratch, &whole, &[("links", id, row)], what);
    }
}

#[test]
fn rows_of_the_journal_that_belong_to_nothing_in_the_tree_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let root = add_source(&catalog, "/way/s").root;
    list(&catalog, root, vec![folder("gone").identity(1)]);
    let gone = id(&catalog, "/way/s/gone");
    list(&catalog, gone, vec![file("f")]);
    let beneath = id(&catalog, "/way/s/gone/f");
    list(&catalog, root, vec![file("there")]);
    let [way, there] = ["/way", "/way/s/there"].map(|path| id(&catalog, path).0);
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    for (id, row, what) in [
        (4711, &b"row"[..], "does not stand in the tree"),
        (gone.0, b"row", "does not stand in the tree"),
        (beneath.0, b"row", "does not stand in the tree"),
        (root.0, b"row", "does not stand in the tree"),
        (way, b"row", "does not stand in the tree"),
        (there, b"", "malformed"),
        (there, b"row", ""),
    ] {
        let report = check_with(&scratch, &whole, &[("staged", id, row)], what);
        assert!(report.is_none_or(|report| report.staged == 1), "{id}");
    }
}

/// Examines a whole file with some more rows in it, which are an error of those words, or none.
fn check_with(scratch: &Scratch, whole: &[u8], rows: &[(&str, u64, &[u8])], what: &str) -> Option<CheckReport> {
    fs::write(scratch.file(), whole).unwrap();
    let database = redb::Database::open(scratch.file()).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    for (table, id, row) in rows {
        transaction
            .open_table(redb::TableDefinition::<u64, &[u8]>::new(table))
            .unwrap()
            .insert(id, row)
            .unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    match Catalog::check(&scratch.file()) {
        Ok(report) => {
            assert_eq!(what, "", "{rows:?}");
            Some(report)
        }
        Err(OpenError::Damaged { why, .. }) => {
            assert!(!what.is_empty() && why.contains(what), "{rows:?}: {why}");
            None
        }
        Err(other) => panic!("{rows:?}: {other:?}"),
    }
}

fn set_format(scratch: &Scratch, format: u64) {
    let database = redb::Database::open(scratch.file()).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("format", format)
        .unwrap();
    transaction.commit().unwrap();
}

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
    assert_eq!(report.format, 6);
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
fn a_catalog_of_format_6_opens_as_it_was_written() {
    let scratch = Scratch::new();
    let catalog = open_kept(&scratch, 6);
    let escaped = id(&catalog, "/outer/escaped");
    let bytes = catalog.staged_bytes(escaped).unwrap();
    assert_eq!(bytes.as_deref(), Some(&b"bytes of it"[..]));
    finds_what_is_kept_and_moved(&scratch, catalog);
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
    assert_eq!(scratch.check(catalog).format, 6);
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
    let children = vec![escaped, link, file("file").size(1234), folder("was")];
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
    list(&catalog, inner.root, vec![folder("queued"), file("empty").size(0)]);
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
    scratch.check(catalog);
    fs::copy(scratch.file(), target).unwrap();
}
