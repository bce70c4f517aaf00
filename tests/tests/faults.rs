//! What a library shows and gives while its sources fail in every way that they can: each ailment of the table befalls every
//! kind of source, through a real mount.
//!
//! Needs root, /dev/fuse, and the servers of `tests/servers/install`.

#[path = "faults/bytes.rs"]
mod bytes;
#[path = "faults/drill.rs"]
mod drill;
#[path = "faults/looks.rs"]
mod looks;
#[path = "faults/others.rs"]
mod others;
#[path = "faults/readers.rs"]
mod readers;

use std::thread;

use looks::{Looks, Round, Views};
use manifold_tests::estate::{AILMENTS, Estate, Kind};
use readers::{DEADLINE, read_of, recovery_of};

/// Short deadlines, so that the test is short.
const SETTINGS: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"2 s\"\nmetadata = \"2 s\"\n";
/// What a fault may cost all looks at the tree together, in milliseconds.
const DELAY_MAX_MS: f64 = 100.0;
/// Rounds of looks during a fault.
const ROUNDS: usize = 5;
/// Rounds before it: all that follows is compared with the middle of these, and a few quick ones are not to count.
const ROUNDS_BEFORE: usize = 11;
/// The most rounds during a fault. What else runs on the machine can make the looks at the mount longer and not those at a
/// plain folder, for a while; a look that waits for a source takes long every time.
const ROUNDS_MAX: usize = 40;
/// Readers of each source during a fault.
const READERS: usize = 2;

#[test]
fn the_tree_stays_and_readers_are_answered_whatever_befalls_the_sources() {
    // Listings are asked for again and again, so that a fault meets them too.
    let estate = Estate::start(&Kind::ALL, SETTINGS, "1s");
    let at = estate.library.at();
    let (truth, views) = (Looks::take(&at), Views::of(&at));
    let mut unread = 0..;
    for ailment in AILMENTS {
        let before: Vec<_> = (0..ROUNDS_BEFORE).map(|_| views.look()).collect();
        let befallen = |kind: Kind| ailment.befalls(kind);
        for site in estate.sites.iter().filter(|site| befallen(site.kind)) {
            ailment.begin(site);
        }
        let numbers: Vec<usize> = unread.by_ref().take(READERS).collect();
        let (mut during, answers) = thread::scope(|scope| {
            let readers: Vec<_> = estate
                .sites
                .iter()
                .flat_map(|site| numbers.iter().map(move |number| (site, *number)))
                .map(|(site, number)| (site, scope.spawn(move || read_of(site, number))))
                .collect();
            let during: Vec<_> = (0..ROUNDS).map(|_| views.look()).collect();
            let answers: Vec<_> = readers
                .into_iter()
                .map(|(site, reader)| (site.kind, reader.join().expect("a reader ends well")))
                .collect();
            (during, answers)
        });
        let delay_ms = |during: &[Round]| looks::longer_ms(during) - looks::longer_ms(&before);
        while delay_ms(&during) >= DELAY_MAX_MS && during.len() < ROUNDS_MAX {
            during.push(views.look());
        }
        for round in before.iter().chain(&during) {
            round.must_show(&truth, ailment.name);
        }
        let delay_ms = delay_ms(&during);
        println!("{}: the looks take {delay_ms:.1} ms longer", ailment.name);
        assert!(delay_ms < DELAY_MAX_MS, "{}: {delay_ms:.1} ms", ailment.name);
        for (kind, answer) in &answers {
            println!(
                "    {}: a reader is told {:?} after {:?}",
                kind.name(),
                answer.told,
                answer.after
            );
        }
        for (kind, answer) in &answers {
            let what = format!("{}, {}", ailment.name, kind.name());
            match answer.told {
                Err(errno) if befallen(*kind) => {
                    assert!(
                        ailment.errors.contains(&errno),
                        "{what}: {errno}\n{}",
                        estate.library.log()
                    );
                    assert!(answer.after < DEADLINE, "{what}: {:?}", answer.after);
                }
                Ok(()) if befallen(*kind) && !ailment.can_be_survived => panic!("{what}: bytes came that nobody gave"),
                told => assert_eq!(told, Ok(()), "{what}: well, and not read\n{}", estate.library.log()),
            }
        }
        for site in estate.sites.iter().filter(|site| befallen(site.kind)) {
            ailment.end(site);
        }
        let number = unread.next().expect("an endless range");
        let recoveries = thread::scope(|scope| {
            let recoveries: Vec<_> = estate
                .sites
                .iter()
                .map(|site| {
                    (
                        site.kind,
                        scope.spawn(move || recovery_of(site, number, ailment.recovery_max())),
                    )
                })
                .collect();
            let joined = recoveries.into_iter();
            joined
                .map(|(kind, it)| (kind, it.join().expect("a reader ends well")))
                .collect::<Vec<_>>()
        });
        for (kind, recovery) in recoveries {
            println!("    {}: back after {recovery:?}", kind.name());
            assert!(
                recovery < ailment.recovery_max(),
                "{}, {}: {recovery:?}",
                ailment.name,
                kind.name()
            );
        }
        views.look().must_show(&truth, ailment.name);
    }
}
