//! The write-ahead log: what was made durable through it is there after a crash, as far as the log is whole, in its order.

use std::fs;

use manifold_catalog::{Catalog, EntryId, LogLoss, OpenError};

use crate::support::{Scratch, add_source, file, folder, id, listing, options};

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

/// Makes the first durable change since the opening, which goes to the database and notes the log there.
fn begin_log(catalog: &Catalog) {
    let source = catalog.sources().unwrap()[0].id;
    catalog.scan_begin(source, 1).unwrap();
}

fn staged(catalog: &Catalog) -> Vec<EntryId> {
    catalog.staged_all().unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn what_is_durable_is_there_after_a_crash_although_the_database_does_not_have_it() {
    let (scratch, catalog, ids) = with_files(12);
    begin_log(&catalog);
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
    begin_log(&catalog);
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
            let broken = (ids.len() - kept) as u64;
            // Nothing tells the damage of the last from a torn end.
            let loss = match cut {
                true if at < 16 => Some(LogLoss::Foreign),
                false if broken > 1 => Some(LogLoss::Damaged { lost: broken }),
                _ => None,
            };
            let loss = loss.map(|loss| loss.to_string());
            let report = Catalog::check(&whole.file()).unwrap();
            assert_eq!(report.log_loss, loss, "at {at}, cut: {cut}");
            let catalog = whole.open();
            assert_eq!(catalog.log_loss(), loss);
            assert_eq!(staged(&catalog), ids[..kept], "damaged at {at}, cut: {cut}");
            // That is told until somebody takes it away.
            assert_eq!(whole.check(catalog).log_loss, loss);
            if loss.is_some() {
                fs::remove_file(whole.lost()).unwrap();
            }
            assert_eq!(whole.open().log_loss(), None);
        }
    }
}

#[test]
fn a_log_of_another_time_or_of_another_catalog_is_not_taken() {
    let (scratch, catalog, ids) = with_files(3);
    begin_log(&catalog);
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
    let other = other.open();
    assert_eq!(
        (staged(&other), other.log_loss()),
        (Vec::new(), None),
        "it was closed in order"
    );
}

#[test]
fn a_log_that_is_gone_or_anothers_after_a_crash_is_told_and_all_else_is_there() {
    let (scratch, catalog, ids) = with_files(3);
    catalog.stage_with(ids[0], b"row", b"bytes", None).unwrap();
    catalog.stage_with(ids[1], b"row", b"bytes", None).unwrap();
    let (other, another, others) = with_files(3);
    another.stage_with(others[0], b"row", b"bytes", None).unwrap();
    another.stage_with(others[1], b"row", b"bytes", None).unwrap();
    let foreign = fs::read(other.log()).unwrap();
    for (log, loss) in [(None, LogLoss::Missing), (Some(&foreign), LogLoss::Foreign)] {
        let crashed = scratch.as_after_a_crash();
        match log {
            Some(log) => fs::write(crashed.log(), log).unwrap(),
            None => fs::remove_file(crashed.log()).unwrap(),
        }
        for _ in 0..2 {
            let report = Catalog::check(&crashed.file()).unwrap();
            assert_eq!((report.log_loss, report.entries), (Some(loss.to_string()), 5));
        }
        let catalog = crashed.open();
        assert_eq!(catalog.log_loss(), Some(loss.to_string()));
        // Kept for whoever looks into it.
        let aside = crashed.folder.path().join("catalog.redb-wal-damaged");
        assert_eq!(fs::read(aside).ok().as_ref(), log);
        fs::remove_file(crashed.lost()).unwrap();
        assert_eq!(catalog.log_loss(), None);
        // It works on, with a log of its own.
        catalog.stage_with(ids[2], b"row", b"bytes", None).unwrap();
        catalog.stage_with(ids[0], b"row", b"bytes", None).unwrap();
        let again = crashed.as_after_a_crash().open();
        assert_eq!(again.log_loss(), None);
        assert!(staged(&again).contains(&ids[0]));
        assert_eq!(crashed.check(catalog).log_loss, None);
    }
}

#[test]
fn what_followed_a_change_through_the_mount_outlives_the_process() {
    let (scratch, catalog, ids) = with_files(2);
    let root = id(&catalog, "/s");
    let (made, _) = catalog.follow_created(root, folder("made"), Some(1)).unwrap();
    let (inner, _) = catalog.follow_created(made, file("inner"), None).unwrap();
    catalog.follow_removed(root, b"file 000", 1).unwrap();
    let (from, to) = ((root, &b"file 001"[..]), (made, &b"moved"[..]));
    catalog.follow_moved(from, to, None, None, 1).unwrap();
    let crashed = scratch.as_after_a_crash();
    let again = crashed.open();
    assert_eq!(id(&again, "/s/made/inner"), inner);
    assert_eq!(id(&again, "/s/made/moved"), ids[1]);
    assert_eq!(again.resolve(b"/s/file 000").unwrap(), None);
    crashed.check(again);
}

#[test]
fn what_a_loss_of_power_takes_from_the_end_of_the_log_is_no_damage() {
    let (scratch, catalog, ids) = with_files(2);
    let root = id(&catalog, "/s");
    catalog.stage_with(ids[0], b"row", b"bytes", None).unwrap();
    // Which reserves ids for all that follow.
    catalog.follow_created(root, file("before"), None).unwrap();
    catalog.stage_with(ids[1], b"row", b"bytes", None).unwrap();
    let promised = fs::read(scratch.log()).unwrap();
    let end = promised.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for number in 0..4 {
        let made = file(&format!("made {number}"));
        catalog.follow_created(root, made, None).unwrap();
    }
    let crashed = scratch.as_after_a_crash();
    let mut log = fs::read(crashed.log()).unwrap();
    // The sector with the first of them never came to the disk.
    log[end..end + 60].fill(0);
    fs::write(crashed.log(), log).unwrap();
    let again = crashed.open();
    assert_eq!((again.log_loss(), staged(&again)), (None, ids.clone()));
    assert_eq!(again.resolve(b"/s/made 3").unwrap(), None);
    crashed.check(again);
    // What was made durable after them has them.
    catalog.sync().unwrap();
    catalog.follow_created(root, file("later"), None).unwrap();
    let crashed = scratch.as_after_a_crash();
    let mut log = fs::read(crashed.log()).unwrap();
    log[end..end + 60].fill(0);
    fs::write(crashed.log(), log).unwrap();
    let loss = LogLoss::Damaged { lost: 5 };
    assert_eq!(crashed.open().log_loss(), Some(loss.to_string()));
}

#[test]
fn where_no_log_can_be_written_the_database_is() {
    let (scratch, catalog, ids) = with_files(3);
    fs::remove_file(scratch.log()).unwrap();
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
