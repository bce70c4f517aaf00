//! `kill -9` at any moment: what was acknowledged as durable is there, everything agrees, no id is given twice, and
//! opening again repairs nothing.
//!
//! The test starts its own binary again as the child that is killed; the child says on its standard output what it has
//! been promised.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use manifold_catalog::{Catalog, EntryId, NewChild, Options};

use crate::support::{Scratch, add_source, file, folder, id, listing};

const CHILD: &str = "MANIFOLD_TEST_CRASH_CHILD";
const SEED: &str = "MANIFOLD_TEST_CRASH_SEED";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Not a test of its own: the life of the child, until it is killed.
#[test]
fn child_that_works_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let seed = std::env::var(SEED).unwrap();
    let mut random = Random(seed.parse().unwrap());
    let options = Options {
        commit_interval: Duration::from_millis(3),
        ..Options::default()
    };
    let catalog = Catalog::open(Path::new(&path), options).unwrap();
    let source = catalog.sources().unwrap().remove(0);
    let mut say = std::io::stdout().lock();
    // The test harness has begun a line of its own.
    writeln!(say, "\nready {}", catalog.repaired_on_open()).unwrap();
    let rows = catalog.staged_all().unwrap();
    let mut row = rows.iter().map(|(_, row)| number(row)).max().unwrap_or(0);
    for step in 0.. {
        let directory = EntryId(id(&catalog, "/s/work").0);
        match random.below(11) {
            0 => {
                // A promise: what is synced is there for good.
                let name = format!("promise {}", random.below(u64::MAX));
                let mut children = kept(&catalog, directory);
                children.push(file(&name));
                catalog
                    .apply_listing(directory, listing(&catalog, children), &|_| false)
                    .unwrap();
                let given = catalog.lookup(directory, name.as_bytes()).unwrap().unwrap().id;
                catalog.sync().unwrap();
                writeln!(say, "kept {given} {name}").unwrap();
            }
            1 => {
                let load = catalog.resolve(b"/s/load").unwrap().unwrap().id;
                let mut loader = catalog.bulk_load(source.id).unwrap();
                let names = (0..random.below(9000)).map(|n| folder(&format!("{seed} {step} {n}")));
                for met in loader.add(load, catalog.ticket(), names.collect()).unwrap() {
                    writeln!(say, "may {}", met.id).unwrap();
                }
                loader.flush().unwrap();
            }
            2 => {
                let mut children = kept(&catalog, directory);
                children.extend((0..random.below(40)).map(|n| folder(&format!("passing {seed} {step} {n}"))));
                catalog
                    .apply_listing(directory, listing(&catalog, children), &|_| random_open(step))
                    .unwrap();
                for entry in catalog.children(directory, None, usize::MAX).unwrap() {
                    writeln!(say, "seen {} {}", entry.id, String::from_utf8_lossy(&entry.name)).unwrap();
                }
            }
            3 => drop(catalog.reap_departed(source.id, i64::MAX).unwrap()),
            4 => drop(catalog.scan_begin(source.id, 1).unwrap()),
            5 | 6 => {
                // A promise: a row that was staged durably is there until it is taken away.
                let name = format!("staged {}", random.below(6));
                let guard = catalog.begin_change(&[directory]);
                let known = catalog.lookup(directory, name.as_bytes()).unwrap();
                let entry = match known {
                    Some(entry) => entry.id,
                    None => catalog.follow_created(directory, file(&name), None).unwrap().0,
                };
                row += 1;
                let bytes = beside(row);
                catalog.stage_with(entry, &row.to_le_bytes(), &bytes, None).unwrap();
                drop(guard);
                writeln!(say, "staged {entry} {row} {name}").unwrap();
            }
            7 => {
                let staged = catalog.staged_all().unwrap();
                if let Some((entry, _)) = staged.first() {
                    writeln!(say, "loose {entry}").unwrap();
                    catalog.unstage(*entry, None, None).unwrap();
                }
            }
            8 | 9 => {
                // What has the new name has the row that goes with it, whenever that came to the disk.
                row = row.next_multiple_of(2) + 2;
                let guard = catalog.begin_change(&[directory]);
                let known = catalog.lookup(directory, b"goes").unwrap();
                let entry = match known {
                    Some(entry) => entry.id,
                    None => catalog.follow_created(directory, file("goes"), None).unwrap().0,
                };
                catalog
                    .stage_with(entry, &row.to_le_bytes(), &beside(row), None)
                    .unwrap();
                row += 1;
                let (from, to) = ((directory, &b"goes"[..]), (directory, &b"gone"[..]));
                catalog
                    .follow_moved_staged(from, to, None, None, &row.to_le_bytes(), 1)
                    .unwrap();
                drop(guard);
                if random.below(2) == 0 {
                    catalog.sync().unwrap();
                    writeln!(say, "gone {row}").unwrap();
                }
            }
            _ => catalog.note_failure(directory, "seeded", 1).unwrap(),
        }
        writeln!(say, "step").unwrap();
    }
}

/// The bytes that go with a row.
fn beside(row: u64) -> Vec<u8> {
    vec![row as u8; (row * 997 % 20_000) as usize]
}

/// A row that was staged: later ones are greater.
fn number(row: &[u8]) -> u64 {
    u64::from_le_bytes(row.try_into().unwrap())
}

fn random_open(step: u64) -> bool {
    step.is_multiple_of(2)
}

fn kept(catalog: &Catalog, directory: EntryId) -> Vec<NewChild> {
    let children = catalog.children(directory, None, usize::MAX).unwrap();
    let names = children
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
    names
        .filter(|name| name.starts_with("promise"))
        .map(|name| file(&name))
        .collect()
}

fn start(scratch: &Scratch, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "crashes::child_that_works_until_it_is_killed",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, scratch.file())
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn number_of(word: &str) -> u64 {
    word.parse().unwrap()
}

/// The line without its first words.
fn rest(line: &str, words: usize) -> String {
    line.splitn(words + 1, ' ').last().unwrap_or_default().to_owned()
}

#[test]
fn a_killed_process_loses_nothing_that_was_promised_and_no_id_is_given_twice() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog
        .apply_listing(
            source.root,
            listing(&catalog, vec![folder("work"), folder("load")]),
            &|_| false,
        )
        .unwrap();
    drop(catalog);
    let mut promised = Vec::new();
    let mut given: HashMap<u64, String> = HashMap::new();
    // What must have a row: the last one that was acknowledged, or a later one.
    let mut staged: HashMap<u64, (u64, String)> = HashMap::new();
    let mut rows_found = 0;
    // The last rename of something staged that was acknowledged; none where its row was taken away since.
    let (mut gone, mut renames_found) = (None, 0);
    let mut random = Random(20_261_121);
    for round in 0..24 {
        let mut child = start(&scratch, random.below(u64::MAX));
        let mut steps = random.below(30);
        // Some are killed between steps, some within one, after a moment of its work.
        let moment = random.below(200_000);
        let mut ids = Vec::new();
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words[..] {
                ["ready", repaired] => assert_eq!(repaired, "false", "round {round}"),
                ["kept", id, ..] => promised.push((number_of(id), rest(&line, 2))),
                ["seen", id, ..] => ids.push((number_of(id), rest(&line, 2))),
                ["staged", id, row, name] => drop(staged.insert(number_of(id), (number_of(row), name.to_owned()))),
                ["loose", id] => {
                    staged.remove(&number_of(id));
                    gone = None;
                }
                ["gone", row] => gone = Some(number_of(row)),
                ["step"] if steps > 0 => steps -= 1,
                ["step"] if !killed => {
                    for _ in 0..moment {
                        std::hint::spin_loop();
                    }
                    // What it said until then is read to the end.
                    child.kill().unwrap();
                    killed = true;
                }
                _ => {}
            }
        }
        assert!(killed, "it ended by itself in round {round}");
        child.wait().unwrap();
        Catalog::check(&scratch.file()).unwrap();
        let catalog = scratch.open();
        assert!(!catalog.repaired_on_open(), "round {round}");
        for (id, name) in &promised {
            let entry = catalog.resolve(format!("/s/work/{name}").as_bytes()).unwrap();
            assert_eq!(entry.map(|entry| entry.id.0), Some(*id), "{name} in round {round}");
        }
        for (entry, (row, name)) in &staged {
            let now = catalog.staged(EntryId(*entry)).unwrap();
            let now = now.unwrap_or_else(|| panic!("the row of {name} is lost in round {round}"));
            assert!(
                number(&now) >= *row,
                "the row of {name} is an older one in round {round}"
            );
            let bytes = catalog.staged_bytes(EntryId(*entry)).unwrap().unwrap();
            assert!(bytes == beside(number(&now)), "{name} has other bytes in round {round}");
            assert_eq!(
                id(&catalog, &format!("/s/work/{name}")),
                EntryId(*entry),
                "round {round}"
            );
            rows_found += 1;
        }
        for (name, parity) in [("goes", 0), ("gone", 1)] {
            let entry = catalog.resolve(format!("/s/work/{name}").as_bytes()).unwrap();
            let now = entry.and_then(|entry| Some((entry.id, number(&catalog.staged(entry.id).unwrap()?))));
            if let Some((entry, now)) = now {
                assert_eq!(now % 2, parity, "{name} has the row of the other name in round {round}");
                let bytes = catalog.staged_bytes(entry).unwrap().unwrap();
                assert!(bytes == beside(now & !1), "{name} has other bytes in round {round}");
                renames_found += parity;
            }
            if let (1, Some(gone)) = (parity, gone) {
                let now = now.map(|(_, now)| now);
                assert!(now >= Some(gone), "{name}: {now:?} instead of {gone} in round {round}");
            }
        }
        // Every name is made once only, so an id that anyone saw under two names was given twice; but for what was renamed.
        ids.retain(|(_, name)| name != "goes" && name != "gone");
        for (id, name) in ids {
            let before = given.entry(id).or_insert_with(|| name.clone());
            assert_eq!(*before, name, "id {id} in round {round}");
        }
    }
    assert!(
        promised.len() > 20 && given.len() > 100 && rows_found > 20 && renames_found > 5,
        "{} promises, {} ids, {rows_found} rows, {renames_found} renames",
        promised.len(),
        given.len()
    );
}

#[test]
fn two_processes_never_have_the_same_catalog_open() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    catalog
        .apply_listing(
            source.root,
            listing(&catalog, vec![folder("work"), folder("load")]),
            &|_| false,
        )
        .unwrap();
    drop(catalog);
    let mut child = start(&scratch, 1);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("ready")));
    let before = Catalog::open(&scratch.file(), Options::default());
    assert!(
        matches!(before, Err(manifold_catalog::OpenError::Locked { .. })),
        "{before:?}"
    );
    let checked = Catalog::check(&scratch.file());
    assert!(
        matches!(checked, Err(manifold_catalog::OpenError::Locked { .. })),
        "{checked:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(scratch.open());
}
