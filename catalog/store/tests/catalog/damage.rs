//! Files that are not what they should be: refused in words, and never written to.

mod formats;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_catalog::{
    Across, AskedRename, AttributeMustBe, Catalog, CheckReport, Crossing, EntryId, Keep, Left, LinkTarget, Mark,
    OpenError, Options, PartUpload, Pin, PolicyId, SentPart, SourceId,
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
    set_format(&scratch, 11);
    let before = fs::read(scratch.file()).unwrap();
    for result in [
        Catalog::open(&scratch.file(), Options::default()).map(drop),
        Catalog::check(&scratch.file()).map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::NewerVersion {
                    found: 11,
                    known: 10,
                    ..
                }
            ),
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
    let origin = |flags: u8, directory: u64| {
        let place = [
            &1_u32.to_le_bytes()[..],
            &directory.to_le_bytes(),
            b"\x01\0\0\0x\x01\0\0\0v",
        ]
        .concat();
        [&[flags, 1][..], &place].concat()
    };
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
        (vec![("origins", f, &origin(1, d)[..])], "missing in its index"),
        (vec![("origins", f, &origin(0, d))], "is not staged"),
        (vec![("origins", 1 << 40, &origin(1, d))], "was never given"),
        (vec![("origins", f, b"\x01\0")], "malformed"),
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

#[test]
fn rows_of_uploads_in_parts_that_belong_to_nothing_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![file("f")]);
    let f = id(&catalog, "/s/f").0;
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    let upload = |source: u32, entry: u64| {
        let mut row = source.to_le_bytes().to_vec();
        row.extend_from_slice(&entry.to_le_bytes());
        row.extend_from_slice(&[0; 16]);
        row.extend_from_slice(b"\x01\0\0\0pname");
        row
    };
    for (id, row, what) in [
        (f, upload(1, f), ""),
        (f, upload(9, f), "to a source that is gone"),
        (f, upload(1, 1 << 40), "was never given"),
        (1 << 40, upload(1, f), "was never begun"),
        (f, b"short".to_vec(), "malformed"),
    ] {
        check_with(&scratch, &whole, &[("part_uploads", id, &row)], what);
    }
}

#[test]
fn rows_of_copies_that_belong_to_nothing_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![file("f")]);
    let f = id(&catalog, "/s/f").0;
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    let crossing = |from: u64, to: u64| {
        let mut row = vec![0];
        row.extend_from_slice(&from.to_le_bytes());
        row.extend_from_slice(b"\x01\0\0\0f");
        row.extend_from_slice(&to.to_le_bytes());
        row.extend_from_slice(b"\x01\0\0\0g\x01\0\0\0g");
        row.extend_from_slice(&[0; 24 + 16 + 16]);
        row
    };
    for (id, row, what) in [
        (f, crossing(f, f), ""),
        (1 << 40, crossing(f, f), "was never given"),
        (f, crossing(1 << 40, f), "was never given"),
        (f, crossing(f, 1 << 40), "was never given"),
        (f, b"short".to_vec(), "malformed"),
    ] {
        check_with(&scratch, &whole, &[("crossings", id, &row)], what);
    }
}

#[test]
fn rows_of_renames_that_belong_to_nothing_are_found() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![folder("d")]);
    let d = id(&catalog, "/s/d").0;
    scratch.check(catalog);
    let whole = fs::read(scratch.file()).unwrap();
    let rename = |to: u64| [&to.to_le_bytes()[..], b"\x01\0\0\0e\x01\0\0\0e"].concat();
    for (id, row, what) in [
        (d, rename(d), ""),
        (1 << 40, rename(d), "was never given"),
        (d, rename(1 << 40), "was never given"),
        (d, b"short".to_vec(), "malformed"),
    ] {
        check_with(&scratch, &whole, &[("renames", id, &row)], what);
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
