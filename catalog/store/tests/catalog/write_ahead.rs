//! The write-ahead log: what was made durable through it is there after a crash, as far as the log is whole, in its order.

use std::fs;

use manifold_catalog::{Catalog, EntryId, OpenError};

use crate::support::{Scratch, add_source, file, id, listing, options};

/// A catalog whose last durable commit in the database holds these files.
fn with_files(count: usize) -> (Scratch, Catalog, Vec<EntryId>) {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    let children: Vec<_> = (0..count).map(|number| file(&format!("file {number:03}"))).collect();
    catalog
        .apply_listing(source.root, listing(&catalog, children), &|_| false)
        .unwrap();
    // Closing brings everything to the database.
    let catalog = scratch.checked(catalog);
    let ids = (0..count)
        .map(|number| id(&catalog, &format!("/s/file {number:03}")))
        .collect();
    (scratch, catalog, ids)
}

fn staged(catalog: &Catalog) -> Vec<EntryId> {
    catalog.staged_all().unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn what_is_durable_is_there_after_a_crash_although_the_database_does_not_have_it() {
    let (scratch, catalog, ids) = with_files(12);
    let database = fs::read(scratch.file()).unwrap();
    for id in &ids {
        catalog.stage_with(*id, b"row", &id.0.to_le_bytes(), None).unwrap();
    }
    catalog.unstage(ids[3], None, None).unwrap();
    catalog.sync().unwrap();
    let crashed = scratch.as_after_a_crash();
    // So this test shows something.
    let without = Scratch::new();
    fs::write(without.file(), &database).unwrap();
    assert_eq!(staged(&without.open()), []);
    let log = fs::read(crashed.log()).unwrap();
    let before = fs::read(crashed.file()).unwrap();
    let report = Catalog::check(&crashed.file()).unwrap();
    assert_eq!(report.staged, 11);
    assert_eq!(fs::read(crashed.log()).unwrap(), log, "an examination changes nothing");
    assert_eq!(fs::read(crashed.file()).unwrap(), before);
    let again = crashed.open();
    let expected: Vec<_> = ids.iter().copied().filter(|id| *id != ids[3]).collect();
    assert_eq!(staged(&again), expected);
    for id in expected {
        assert_eq!(again.staged_bytes(id).unwrap().unwrap(), id.0.to_le_bytes());
    }
    // What the log held is in the database now, and not done again.
    again.unstage(ids[0], None, None).unwrap();
    let again = crashed.checked(again);
    assert!(!staged(&again).contains(&ids[0]));
}

#[test]
fn a_torn_log_gives_what_came_before_and_no_more() {
    let (scratch, catalog, ids) = with_files(8);
    let mut ends = vec![0];
    for id in &ids {
        catalog.stage_with(*id, b"row", &[id.0 as u8; 700], None).unwrap();
        let log = fs::read(scratch.log()).unwrap();
        ends.push(log.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    }
    assert!(ends.is_sorted_by(|a, b| a < b), "each made a record: {ends:?}");
    let whole = scratch.as_after_a_crash();
    let database = fs::read(whole.file()).unwrap();
    let log = fs::read(whole.log()).unwrap();
    let end = ends[ends.len() - 1];
    for at in (0..end).step_by(97) {
        // All records that end before the damage are whole.
        let kept = ends.iter().filter(|end| **end <= at).count() - 1;
        for cut in [true, false] {
            let mut torn = log.clone();
            if cut {
                torn.truncate(at);
            } else {
                torn[at] ^= 0x40;
            }
            fs::write(whole.file(), &database).unwrap();
            fs::write(whole.log(), torn).unwrap();
            let catalog = whole.open();
            assert_eq!(staged(&catalog), ids[..kept], "damaged at {at}, cut: {cut}");
            whole.check(catalog);
        }
    }
}

#[test]
fn a_log_of_another_time_or_of_another_catalog_is_not_taken() {
    let (scratch, catalog, ids) = with_files(3);
    let old = fs::read(scratch.file()).unwrap();
    catalog.stage_with(ids[0], b"row", b"bytes", None).unwrap();
    let log = fs::read(scratch.log()).unwrap();
    catalog.unstage(ids[0], None, None).unwrap();
    let catalog = scratch.checked(catalog);
    drop(catalog);
    // The database went on since.
    fs::write(scratch.log(), &log).unwrap();
    assert_eq!(staged(&scratch.open()), []);
    // It belongs to this one.
    fs::write(scratch.file(), &old).unwrap();
    fs::write(scratch.log(), &log).unwrap();
    assert_eq!(staged(&scratch.open()), [ids[0]]);
    let (other, catalog, _) = with_files(3);
    drop(catalog);
    fs::write(other.log(), &log).unwrap();
    assert_eq!(staged(&other.open()), []);
}

#[test]
fn where_no_log_can_be_written_the_database_is() {
    let (scratch, catalog, ids) = with_files(3);
    fs::create_dir(scratch.log()).unwrap();
    for id in &ids {
        catalog.stage_with(*id, b"row", b"bytes", None).unwrap();
    }
    let without = Scratch::new();
    fs::copy(scratch.file(), without.file()).unwrap();
    assert_eq!(staged(&without.open()), ids);
    drop(catalog);
    // A log that cannot be read may hold what was promised: it is not passed over.
    let refused = Catalog::open(&scratch.file(), options());
    assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
    fs::remove_dir(scratch.log()).unwrap();
    assert_eq!(staged(&scratch.open()), ids);
}

#[test]
fn more_than_the_log_holds_goes_to_the_database_and_the_log_grows() {
    let (scratch, catalog, ids) = with_files(40);
    let bytes = vec![7; 60 << 10];
    catalog.stage_with(ids[0], b"row", &bytes, None).unwrap();
    let first = fs::metadata(scratch.log()).unwrap().len();
    for id in &ids {
        catalog.stage_with(*id, b"row", &bytes, None).unwrap();
    }
    assert!(fs::metadata(scratch.log()).unwrap().len() > first);
    let crashed = scratch.as_after_a_crash();
    let catalog = crashed.open();
    assert_eq!(staged(&catalog), ids);
    for id in &ids {
        assert_eq!(catalog.staged_bytes(*id).unwrap().unwrap(), bytes);
    }
    crashed.check(catalog);
}

#[test]
fn a_change_too_long_for_the_log_that_was_not_durable_is_not_missing_beneath_one_that_is() {
    let (scratch, catalog, _) = with_files(1);
    let root = id(&catalog, "/s");
    let many: Vec<_> = (0..9_000).map(|number| file(&format!("another {number:05}"))).collect();
    catalog
        .apply_listing(root, listing(&catalog, many), &|_| false)
        .unwrap();
    let last = id(&catalog, "/s/another 08999");
    catalog.stage_with(last, b"row", b"bytes", None).unwrap();
    let crashed = scratch.as_after_a_crash();
    let catalog = crashed.open();
    assert_eq!(id(&catalog, "/s/another 08999"), last);
    assert_eq!(staged(&catalog), [last]);
    crashed.check(catalog);
}
