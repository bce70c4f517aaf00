//! Files that are not what they should be: refused in words, and never written to.

use std::fs;

use manifold_catalog::{Catalog, OpenError, Options};

use crate::support::{Scratch, With, add_source, file, folder, id, list, listing, names};

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
    set_format(&scratch, 2);
    let before = fs::read(scratch.file()).unwrap();
    for result in [
        Catalog::open(&scratch.file(), Options::default()).map(drop),
        Catalog::check(&scratch.file()).map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, OpenError::NewerVersion { found: 2, known: 1, .. }),
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

#[test]
fn a_catalog_of_format_1_opens_as_it_was_written() {
    let scratch = Scratch::new();
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1.redb");
    fs::copy(kept, scratch.file()).unwrap();
    let report = Catalog::check(&scratch.file()).unwrap();
    assert_eq!((report.format, report.entries, report.directories), (1, 10, 6));
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
    // And it can be worked with.
    list(&catalog, sources[0].root, vec![file("file").size(1)]);
    scratch.check(catalog);
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
    let children = vec![escaped, link, file("file").size(1234), folder("sub")];
    let mut before = children.clone();
    before.push(file("departed").identity(8));
    list(&catalog, outer.root, before);
    catalog
        .apply_listing(outer.root, listing(children), &|_| false)
        .unwrap();
    catalog
        .note_failure(id(&catalog, "/outer/sub"), "no answer", 42)
        .unwrap();
    list(&catalog, inner.root, vec![folder("queued"), file("empty").size(0)]);
    scratch.check(catalog);
    fs::copy(scratch.file(), target).unwrap();
}
